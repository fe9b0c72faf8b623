//! How the host launches each known command line.
//!
//! What keeps a prompt or a guest from reading files or running programs is here and in
//! [`guard`](super::guard), in the host: no guest and no request can undo it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{self, Profile};

/// Arguments that every launch of the Claude Code command line has.
///
/// `--tools ""` and `--strict-mcp-config` leave the model nothing to call, `--setting-sources ""`
/// keeps hooks and plugins of the user's settings out, `--settings` denies what `@path` in a
/// prompt would read, and `--no-session-persistence` writes no transcript.
const CLAUDE_ARGS: [&str; 17] = [
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--tools",
    "",
    "--setting-sources",
    "",
    "--settings",
    r#"{"permissions":{"deny":["Read"]}}"#,
    "--strict-mcp-config",
    "--disable-slash-commands",
    "--no-session-persistence",
    "--model",
];

/// Variables that every launch of the Claude Code command line has, above all configured ones:
/// no file is attached to a prompt, no memory is read or written, nothing phones home.
const CLAUDE_ENV: [(&str, &str); 9] = [
    ("CLAUDE_CODE_DISABLE_ATTACHMENTS", "1"),
    ("CLAUDE_CODE_DISABLE_AUTO_MEMORY", "1"),
    ("CLAUDE_CODE_DISABLE_CLAUDE_MDS", "1"),
    ("CLAUDE_CODE_DISABLE_FILE_MENTIONS", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("CLAUDE_CODE_DISABLE_TERMINAL_TITLE", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_TELEMETRY", "1"),
];

/// An argument that a guest may ask for: a flag, and the values that may stand behind it.
struct Optional {
    placeholder: &'static str,
    flag: &'static str,
    values: &'static [&'static str],
}

const CLAUDE_OPTIONAL: [Optional; 1] = [Optional {
    placeholder: "effort",
    flag: "--effort",
    values: &["low", "medium", "high", "xhigh", "max"],
}];

/// Where `claude` is installed when it is not on the `PATH` of a service, below the home folder.
const CLAUDE_HOMES: [&str; 2] = [".local/bin", ".claude/local"];

/// The longest name of a model, in bytes. Anthropic's longest is below 40.
const MODEL_NAME_MAX: usize = 128;

/// A command line ready to be launched.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, OsString)>,
}

/// A placeholder that the profile does not know, or a value that it does not allow.
#[derive(Debug, thiserror::Error)]
#[error("the placeholder `{name}` may not be `{value}`")]
pub(crate) struct BadPlaceholder {
    name: String,
    value: String,
}

/// Whether `name` may stand behind `--model`: nothing that could be taken for an option.
pub(crate) fn is_model_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._:/@[]-".contains(&b));
    first && rest && name.len() <= MODEL_NAME_MAX
}

/// Whether the host sets this variable itself.
pub(crate) fn is_safety_variable(name: &str) -> bool {
    CLAUDE_ENV.iter().any(|(known, _)| *known == name)
}

/// The launch of an exchange. `placeholders` are the guest's.
pub(crate) fn exchange(
    backend: &config::Backend,
    model: &str,
    placeholders: &[(String, String)],
) -> Result<CommandLine, BadPlaceholder> {
    let mut line = base(backend);
    line.args.extend(CLAUDE_ARGS.map(OsString::from));
    line.args.push(model.into());
    for (name, value) in placeholders {
        let known = CLAUDE_OPTIONAL.iter().find(|o| o.placeholder == name);
        match known.filter(|o| o.values.contains(&value.as_str())) {
            Some(optional) => line.args.extend([optional.flag.into(), value.into()]),
            None => {
                let (name, value) = (name.clone(), value.chars().take(64).collect());
                return Err(BadPlaceholder { name, value });
            }
        }
    }
    Ok(line)
}

/// The launch that asks whether the backend is logged in: it prints a JSON object with
/// `loggedIn`, and in newer versions `loginExpiresAt`.
pub(crate) fn login_check(backend: &config::Backend) -> CommandLine {
    let mut line = base(backend);
    line.args.extend(["auth", "status"].map(OsString::from));
    line
}

fn base(backend: &config::Backend) -> CommandLine {
    let (program, args) = match backend.profile {
        Profile::ClaudeCode => (find(&backend.command), Vec::new()),
        Profile::Demo => (own_program(), vec!["demo-backend".into()]),
    };
    CommandLine {
        program,
        args,
        env: environment(backend),
    }
}

/// Passed on, then configured, then ours: the later one wins.
fn environment(backend: &config::Backend) -> Vec<(String, OsString)> {
    let passed = backend
        .pass_env
        .iter()
        .filter_map(|name| Some((name.clone(), std::env::var_os(name)?)));
    let configured = backend
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.into()));
    let ours = CLAUDE_ENV
        .iter()
        .map(|(name, value)| (name.to_string(), value.into()));
    let retries = (
        "CLAUDE_CODE_MAX_RETRIES".to_owned(),
        backend.max_retries.to_string().into(),
    );
    passed
        .chain([retries])
        .chain(configured)
        .chain(ours)
        .collect()
}

/// The program behind `command`: a path as it is, else the first of that name on the `PATH` or
/// in the places where its installer puts it. A name that is nowhere is left as it is, so that
/// the attempt to start it fails by that name.
fn find(command: &str) -> PathBuf {
    if command.contains('/') {
        return command.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let homes = home
        .iter()
        .flat_map(|home| CLAUDE_HOMES.map(|folder| home.join(folder)));
    let mut places = std::env::split_paths(&path)
        .chain(homes)
        .map(|folder| folder.join(command));
    places
        .find(|file| is_executable(file))
        .unwrap_or_else(|| command.into())
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| "claude-harness".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn claude() -> config::Backend {
        Config::parse("", None, &Overrides::default())
            .unwrap()
            .backends
            .remove(0)
    }

    #[test]
    fn a_model_name_is_no_option() {
        for good in [
            "sonnet",
            "claude-opus-4-8",
            "us.anthropic.claude-3:0",
            "sonnet[1m]",
        ] {
            assert!(is_model_name(good), "{good}");
        }
        for bad in [
            "",
            "-p",
            "--settings",
            "a b",
            "a\n",
            "\u{fc}",
            &"x".repeat(200),
        ] {
            assert!(!is_model_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_guest_chooses_among_listed_values_only() {
        let arg = |value: &str| vec![("effort".to_owned(), value.to_owned())];
        let line = exchange(&claude(), "opus", &arg("low")).unwrap();
        assert_eq!(
            line.args[16..],
            ["--model", "opus", "--effort", "low"].map(OsString::from)
        );
        assert!(exchange(&claude(), "opus", &arg("low --tools Bash")).is_err());
        assert!(exchange(&claude(), "opus", &[("mcp-config".into(), "x".into())]).is_err());
    }

    #[test]
    fn the_hosts_variables_stand_last_and_win() {
        let mut backend = claude();
        backend.env = vec![("A".into(), "1".into())];
        let env = environment(&backend);
        let place = |name| env.iter().position(|(known, _)| known == name).unwrap();
        assert!(place("A") < place("CLAUDE_CODE_DISABLE_ATTACHMENTS"));
        assert!(!env.iter().any(|(name, _)| name == "ANTHROPIC_API_KEY"));
    }
}
