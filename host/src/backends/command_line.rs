//! Words a backend's command lines, as its profile has them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config;
use crate::processes::CommandLine;
use crate::profiles::{Place, Program};

/// A placeholder that the profile does not know, or a value that it does not allow.
#[derive(Debug, thiserror::Error)]
#[error("the placeholder `{name}` may not have this value")]
pub(crate) struct BadPlaceholder {
    name: &'static str,
}

/// The launch of an exchange. `placeholders` are the guest's.
pub(crate) fn exchange(
    backend: &config::Backend,
    model: &str,
    placeholders: &[(String, String)],
) -> Result<CommandLine, BadPlaceholder> {
    let mut line = base(backend);
    line.args
        .extend(backend.profile.args.iter().map(OsString::from));
    line.args.push(model.into());
    for (name, value) in placeholders {
        let known = backend.profile.options.iter().find(|o| o.name == name);
        let Some(optional) = known.filter(|o| o.values.allow(value)) else {
            // In the host's own words: a guest has seen a prompt.
            let name = known.map_or("of another name", |option| option.name);
            return Err(BadPlaceholder { name });
        };
        match optional.place {
            Place::Flag(flag) => line.args.extend([flag.into(), value.into()]),
            Place::Variable(variable) => line.env.push((variable.into(), value.into())),
            Place::Switch(variable) => line.env.push((variable.into(), "1".into())),
        }
    }
    Ok(line)
}

/// The launch that asks whether the backend is logged in: it prints a JSON object with `loggedIn`. None
/// if it has no login.
pub(crate) fn login_check(backend: &config::Backend) -> Option<CommandLine> {
    let mut line = base(backend);
    line.args
        .extend(backend.profile.login_check?.iter().map(OsString::from));
    Some(line)
}

/// The launch that asks the command line for its version: it prints a line that begins with it.
pub(crate) fn version_check(backend: &config::Backend) -> CommandLine {
    let mut line = base(backend);
    line.args.push("--version".into());
    line
}

fn base(backend: &config::Backend) -> CommandLine {
    let (program, args) = match backend.profile.program {
        Program::Command { below_home, .. } => (find(&backend.command, below_home), Vec::new()),
        Program::This(subcommand) => (own_program(), vec![subcommand.into()]),
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
        .map(|(name, value)| (name.clone(), OsString::from(&value.0)));
    let ours = backend
        .profile
        .env
        .iter()
        .map(|(name, value)| (name.to_string(), value.into()));
    let retries = (
        backend.profile.retries.to_owned(),
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
    let places = backend.profile.login_places;
    let places = backend
        .env
        .iter()
        .filter(|(name, _)| places.contains(&&**name));
    let assigned = places.map(|(name, value)| format!("{name}={}", quoted(&value.0)));
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
    let below_home: String = match backend.profile.program {
        Program::Command { below_home, .. } => below_home
            .iter()
            .map(|folder| format!(", ~/{folder}"))
            .collect(),
        Program::This(_) => String::new(),
    };
    format!(
        " (it was looked for in {path}{below_home}; where `command -v {}` finds it, as with nvm, write that path as `[backends.{name}] command`)",
        backend.command
    )
}

/// The program behind `command`: a path as it is, else the first of that name on the `PATH` or
/// in the places where its installer puts it. A name that is nowhere is left as it is, so that
/// the attempt to start it fails by that name.
fn find(command: &str, below_home: &[&str]) -> PathBuf {
    if command.contains('/') {
        return command.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let homes = home
        .iter()
        .flat_map(|home| below_home.iter().map(|folder| home.join(folder)));
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
        backend.env = vec![("A".into(), config::Secret("1".into()))];
        let env = environment(&backend);
        let place = |name| env.iter().position(|(known, _)| known == name).unwrap();
        assert!(place("A") < place("CLAUDE_CODE_DISABLE_ATTACHMENTS"));
        assert!(!env.iter().any(|(name, _)| name == "ANTHROPIC_API_KEY"));
    }
}
