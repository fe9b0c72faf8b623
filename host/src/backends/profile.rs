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
/// prompt would read, and `--no-session-persistence` writes no transcript. `--allowedTools` names
/// the MCP server whose tools are the client's functions: the CLI then asks for a call, and waits,
/// where it would else tell the model that calls are not allowed, and ask the API again.
const CLAUDE_ARGS: [&str; 19] = [
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
    "--allowedTools",
    "mcp__client",
    "--disable-slash-commands",
    "--no-session-persistence",
    "--model",
];

/// Variables that every launch of the Claude Code command line has, above all configured ones:
/// no file is attached to a prompt, no memory is read or written, nothing phones home, and a stream
/// that broke off is not asked for again without streaming.
const CLAUDE_ENV: [(&str, &str); 10] = [
    ("CLAUDE_CODE_DISABLE_ATTACHMENTS", "1"),
    ("CLAUDE_CODE_DISABLE_AUTO_MEMORY", "1"),
    ("CLAUDE_CODE_DISABLE_CLAUDE_MDS", "1"),
    ("CLAUDE_CODE_DISABLE_FILE_MENTIONS", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK", "1"),
    ("CLAUDE_CODE_DISABLE_TERMINAL_TITLE", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_TELEMETRY", "1"),
];

/// Something about a launch that a guest may ask for.
struct Optional {
    placeholder: &'static str,
    values: Values,
    place: Place,
}

/// What may stand for a placeholder.
enum Values {
    /// One of these words.
    Words(&'static [&'static str]),
    /// A whole number from 1 up to this.
    UpTo(u64),
}

/// Where the value goes.
enum Place {
    /// Behind this flag.
    Flag(&'static str),
    /// Into this variable.
    Variable(&'static str),
    /// Nowhere: this variable is set to `1`.
    Switch(&'static str),
}

const CLAUDE_OPTIONAL: [Optional; 3] = [
    Optional {
        placeholder: "effort",
        values: Values::Words(&["low", "medium", "high", "xhigh", "max"]),
        place: Place::Flag("--effort"),
    },
    Optional {
        placeholder: "thinking",
        values: Values::Words(&["off"]),
        place: Place::Switch("CLAUDE_CODE_DISABLE_THINKING"),
    },
    Optional {
        placeholder: "max-output-tokens",
        // The CLI itself lowers it to what the model can.
        values: Values::UpTo(1_000_000),
        place: Place::Variable("CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
    },
];

impl Values {
    fn allow(&self, value: &str) -> bool {
        match self {
            Values::Words(words) => words.contains(&value),
            Values::UpTo(most) => {
                let number = value.parse().ok().filter(|n| (1..=*most).contains(n));
                number.is_some_and(|n: u64| n.to_string() == value)
            }
        }
    }
}

/// Where `claude` is installed when it is not on the `PATH` of a service, below the home folder.
const CLAUDE_HOMES: [&str; 2] = [".local/bin", ".claude/local"];

/// The longest name of a model, in bytes. Anthropic's longest is below 40.
const MODEL_NAME_MAX: usize = 128;

/// A command line ready to be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let Some(optional) = known.filter(|o| o.values.allow(value)) else {
            let (name, value) = (name.clone(), value.chars().take(64).collect());
            return Err(BadPlaceholder { name, value });
        };
        match optional.place {
            Place::Flag(flag) => line.args.extend([flag.into(), value.into()]),
            Place::Variable(variable) => line.env.push((variable.into(), value.into())),
            Place::Switch(variable) => line.env.push((variable.into(), "1".into())),
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

/// The launch that asks the command line for its version: it prints a line that begins with it.
pub(crate) fn version_check(backend: &config::Backend) -> CommandLine {
    let mut line = base(backend);
    line.args.push("--version".into());
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

/// A command line of the backend as a person types it: with the variables that are configured for it,
/// because they say where its login is.
pub(crate) fn shell_line(backend: &config::Backend, args: &[&str]) -> String {
    // Values of others may be secrets, and do not change where the login is kept.
    const PLACES: [&str; 3] = ["CLAUDE_CONFIG_DIR", "HOME", "XDG_CONFIG_HOME"];
    let places = backend
        .env
        .iter()
        .filter(|(name, _)| PLACES.contains(&&**name));
    let assigned = places.map(|(name, value)| format!("{name}={}", quoted(value)));
    // A name is found by the shell as well; a path need not be on its PATH.
    let program = match backend.command.contains('/') {
        true => quoted(&backend.command),
        false => backend.command.clone(),
    };
    let args = args.iter().map(|arg| (*arg).to_owned());
    assigned
        .chain([program])
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as it stands in a shell's line.
fn quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./~:@%+=,".contains(&b);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Where a program was looked for that is not there, and how to name it.
pub(crate) fn looked_for(backend: &config::Backend) -> String {
    let name = &backend.name;
    if backend.command.contains('/') {
        return format!(" (`[backends.{name}] command` names it)");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let path = crate::plain::line(&path, 300);
    format!(
        " (it was looked for in {path}, ~/.local/bin and ~/.claude/local; where `command -v {}` finds it, as with nvm, write that path as `[backends.{name}] command`)",
        backend.command
    )
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
            line.args[18..],
            ["--model", "opus", "--effort", "low"].map(OsString::from)
        );
        assert!(exchange(&claude(), "opus", &arg("low --tools Bash")).is_err());
        assert!(exchange(&claude(), "opus", &[("mcp-config".into(), "x".into())]).is_err());
        let tokens = |value: &str| {
            let line = exchange(
                &claude(),
                "opus",
                &[("max-output-tokens".into(), value.into())],
            );
            line.map(|line| line.env.last().unwrap().clone())
        };
        let expected = (
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS".to_owned(),
            OsString::from("77"),
        );
        assert_eq!(tokens("77").unwrap(), expected);
        for bad in ["0", "-1", "+7", "07", "1e3", "1000001", "", "x"] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
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
