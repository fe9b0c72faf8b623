//! Builds command lines for a backend from its profile and configuration. Here a command line is a program
//! with its arguments and environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use processes::CommandLine;

use crate::config;
use crate::profiles::{Args, Place, Profile, Program};

/// A launch option that the profile does not know, or a value that it does not allow.
///
/// The name of an unknown option and a bad value are not repeated: a guest has seen a prompt, and might put words
/// of it there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadLaunchOption {
    #[error("it wants a launch option that the profile does not have")]
    Unknown,
    #[error("it wants a value for the launch option `{0}` that the profile does not allow")]
    Value(&'static str),
}

/// The command line of an exchange. `options` are the guest's.
pub(crate) fn exchange(
    base: &CommandLine,
    launch: &config::LaunchConfig,
    model: &str,
    options: &[(String, String)],
) -> Result<CommandLine, BadLaunchOption> {
    let profile = launch.profile;
    let mut line = base.clone();
    match profile.args {
        Args::Fixed(args) => {
            line.args.extend(args.iter().map(OsString::from));
            line.args.push(model.into());
        }
        Args::Configured => {
            let args = launch.args.iter().map(|arg| arg.replace("{model}", model));
            line.args.extend(args.map(OsString::from));
        }
    }
    for (name, value) in options {
        let optional = profile.options.iter().find(|o| o.name == name);
        let optional = optional.ok_or(BadLaunchOption::Unknown)?;
        if !optional.values.allow(value) {
            return Err(BadLaunchOption::Value(optional.name));
        }
        match optional.place {
            Place::Flag(flag) => line.args.extend([flag.into(), value.into()]),
            Place::Variable(variable) => line.env.push((variable.into(), value.into())),
            Place::Switch(variable) => line.env.push((variable.into(), "1".into())),
        }
    }
    Ok(line)
}

/// The command line that asks whether the backend is logged in: it prints a JSON object with `loggedIn`.
/// None if it has no login.
pub(crate) fn login_check(base: &CommandLine, profile: &Profile) -> Option<CommandLine> {
    let mut line = base.clone();
    let check = profile.login_check?;
    line.args.extend(check.iter().map(OsString::from));
    Some(line)
}

/// The command line that asks for the version: it prints a line that begins with the version.
pub(crate) fn version_check(base: &CommandLine) -> CommandLine {
    let mut line = base.clone();
    line.args.push("--version".into());
    line
}

/// What all command lines of a backend begin with. Searches the PATH.
pub(crate) fn base(launch: &config::LaunchConfig) -> CommandLine {
    let (program, args) = match launch.profile.program {
        Program::Command { below_home, .. } => (find(&launch.command, below_home), Vec::new()),
        Program::Configured => (find(&launch.command, &[]), Vec::new()),
        Program::This(subcommand) => (basics::program::own(), vec![subcommand.into()]),
    };
    CommandLine {
        program,
        args,
        env: environment(launch),
    }
}

/// The environment variables: those passed on from this service, the number of retries, those configured, and
/// those of the profile. Of two with the same name, the later one wins.
fn environment(launch: &config::LaunchConfig) -> Vec<(String, OsString)> {
    let passed = launch
        .pass_env
        .iter()
        .filter_map(|name| Some((name.clone(), std::env::var_os(name)?)));
    let configured = launch
        .env
        .iter()
        .map(|(name, value)| (name.clone(), OsString::from(&value.0)));
    let quiet = launch.profile.quiet_env.iter();
    let ours = launch
        .profile
        .env
        .iter()
        .chain(quiet.filter(|_| !launch.plan_windows))
        .map(|(name, value)| (name.to_string(), value.into()));
    let retries = launch.profile.retries.map(|variable| {
        let count = launch.max_retries.to_string();
        (variable.to_owned(), count.into())
    });
    passed
        .chain(retries)
        .chain(configured)
        .chain(ours)
        .collect()
}

/// A command line of the backend as a person types it: with those of its configured variables that say where
/// its login is kept.
pub(crate) fn shell_line(launch: &config::LaunchConfig, args: &[&str]) -> String {
    // Other variables are left out: their values may be secrets, and do not change where the login is kept.
    let places = launch.profile.login_places;
    let places = launch
        .env
        .iter()
        .filter(|(name, _)| places.contains(&&**name));
    let assigned = places.map(|(name, value)| format!("{name}={}", quoted(&value.0)));
    // If the program is configured as a name, the person's shell finds it on the PATH too. If it is
    // configured as a path, the line must have the path, because its folder may not be on that PATH.
    let program = match launch.command.contains('/') {
        true => quoted(&launch.command),
        false => launch.command.clone(),
    };
    let args = args.iter().map(|arg| (*arg).to_owned());
    assigned
        .chain([program])
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word, quoted for a shell if need be.
fn quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./~:@%+=,".contains(&b);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// For a program that was not found: where it was looked for, and which setting may give its path.
pub(crate) fn looked_for(backend: &config::BackendConfig) -> String {
    let (name, launch) = (&backend.name, &backend.launch);
    if launch.command.contains('/') {
        return format!(" (`[backends.{name}] command` names it)");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let path = basics::plain::line(&path, 300);
    let below_home: String = match launch.profile.program {
        Program::Command { below_home, .. } => below_home
            .iter()
            .map(|folder| format!(", ~/{folder}"))
            .collect(),
        Program::Configured | Program::This(_) => String::new(),
    };
    format!(
        " (it was looked for in {path}{below_home}; if `command -v {}` prints a path in your shell, as it may with nvm, set `[backends.{name}] command` to that path)",
        launch.command
    )
}

/// The program behind `command`: a path as it is, else the first of that name on the `PATH` or
/// in the places where its installer puts it. A name that is found nowhere is returned as it is, so that the error of
/// the attempt to start it shows that name.
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

/// Whether there is such a program.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn claude() -> config::LaunchConfig {
        let config = Config::parse("", None, &Overrides::default()).unwrap();
        config.backends[0].launch.clone()
    }

    fn worded(options: &[(String, String)]) -> Result<CommandLine, BadLaunchOption> {
        let launch = claude();
        exchange(&base(&launch), &launch, "opus", options)
    }

    #[test]
    fn a_guest_chooses_among_listed_values_only() {
        let arg = |value: &str| vec![("effort".to_owned(), value.to_owned())];
        let line = worded(&arg("low")).unwrap();
        assert_eq!(
            line.args[18..],
            ["--model", "opus", "--effort", "low"].map(OsString::from)
        );
        assert!(worded(&arg("low --tools Bash")).is_err());
        assert!(worded(&[("mcp-config".into(), "x".into())]).is_err());
        let tokens = |value: &str| {
            let line = worded(&[("max-output-tokens".into(), value.into())]);
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
        let mut launch = claude();
        launch.env = vec![("A".into(), config::Secret("1".into()))];
        let env = environment(&launch);
        let place = |name| env.iter().position(|(known, _)| known == name).unwrap();
        assert!(place("A") < place("CLAUDE_CODE_DISABLE_ATTACHMENTS"));
        assert!(!env.iter().any(|(name, _)| name == "ANTHROPIC_API_KEY"));
    }
}
