//! What is known of each command line, as data: one [`Profile`] each.
//!
//! What keeps a prompt or a guest from reading files or running programs stands in a profile's arguments
//! and variables, and in the schema of what may be written to standard input: no guest and no request can
//! undo it. Everything else of the host goes by a profile, and names no command line.

mod claude_code;
mod demo;
mod generic;

use processes::Framing;

/// How the host runs one kind of command line.
#[derive(Debug)]
pub struct Profile {
    /// Its name in the configuration.
    pub(crate) name: &'static str,
    /// What people call the command line.
    pub(crate) product: &'static str,
    /// The adapter that speaks its protocol, unless the configuration names another one.
    pub(crate) adapter: &'static str,
    /// Which program it is.
    pub(crate) program: Program,
    /// Arguments of every launch that answers.
    pub(crate) args: Args,
    /// Variables of every launch. They override the configured ones.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// Variables that keep it from asking its API anything that no answer needs. They are not set where
    /// `plan_windows` wants it to ask how much of the plan is used.
    pub(crate) quiet_env: &'static [(&'static str, &'static str)],
    /// The variable that says how often the command line itself repeats a failed call.
    pub(crate) retries: Option<&'static str>,
    /// Variables that it gets of the service's environment by default.
    pub(crate) pass_env: &'static [&'static str],
    /// Variables that say where its login is kept.
    pub(crate) login_places: &'static [&'static str],
    /// What an adapter may ask for at a launch.
    pub(crate) options: &'static [LaunchOption],
    /// Arguments that ask whether it is logged in. Without them, it always is.
    pub(crate) login_check: Option<&'static [&'static str]>,
    /// Arguments with which a person logs in.
    pub(crate) login: &'static [&'static str],
    /// What installs it, as a line of the shell; empty if nothing does.
    pub(crate) install: &'static str,
    /// The oldest and the newest version that were tested. `install` with `@` and one of them behind it installs it.
    pub(crate) tested: Option<(&'static str, &'static str)>,
    /// Names that clients use, and what the command line calls these models.
    pub(crate) models: &'static [(&'static str, &'static str)],
    /// Models that are gone, but that clients still ask for: how their names begin, and what the command line
    /// calls the present model of the same family.
    pub(crate) retired: &'static [(&'static str, &'static str)],
    /// How the name of a model begins that is passed on though nobody listed it.
    pub(crate) passed_on: Option<&'static str>,
    /// The model that every version of it knows.
    pub(crate) probe_model: &'static str,
    /// How its output is cut into pieces by default.
    pub(crate) framing: Framing,
    /// Processes that are kept warm by default, for each model in use.
    pub(crate) warm: Warm,
    /// How long a process is kept after an answer by default, in seconds.
    pub(crate) continue_for: u64,
    /// What a process holds while it waits and none of its kind was measured, in bytes.
    pub(crate) idle_memory: u64,
    /// What may be written to its standard input.
    pub(crate) stdin: Stdin,
    /// It only shows that the service works.
    pub(crate) is_demo: bool,
}

/// How many processes are started ahead for a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warm {
    /// As many as were needed at once lately, and at least one.
    Auto,
    /// So many.
    Fixed(usize),
}

/// Which program a profile starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The configured `command`, by default this name; it is looked for on the `PATH` and in these folders
    /// below the home, where its installer puts it.
    Command {
        name: &'static str,
        below_home: &'static [&'static str],
    },
    /// The configured `command`, which has no default; it is looked for on the `PATH`.
    Configured,
    /// This program itself, with this subcommand.
    This(&'static str),
}

/// The arguments of a launch that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Args {
    /// These; the model's name follows them.
    Fixed(&'static [&'static str]),
    /// Those of the configuration, with the model's name in the place of `{model}`.
    Configured,
}

/// What may be written to a standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// Lines of JSON that fit this JSON Schema.
    JsonLines(&'static str),
    /// Any text.
    Text,
}

/// Something about a launch that an adapter may ask for.
#[derive(Debug)]
pub(crate) struct LaunchOption {
    pub(crate) name: &'static str,
    pub(crate) values: Values,
    pub(crate) place: Place,
}

/// What may be asked for.
#[derive(Debug)]
pub(crate) enum Values {
    /// One of these words.
    Words(&'static [&'static str]),
    /// A whole number from 1 up to this.
    UpTo(u64),
}

/// Where the value goes.
#[derive(Debug)]
pub(crate) enum Place {
    /// Behind this flag.
    Flag(&'static str),
    /// Into this variable.
    Variable(&'static str),
    /// Nowhere: this variable is set to `1`.
    Switch(&'static str),
}

/// All profiles, the default one first.
pub(crate) static PROFILES: [&Profile; 3] =
    [&claude_code::CLAUDE_CODE, &demo::DEMO, &generic::GENERIC];

/// The longest name of a model, in bytes. Anthropic's longest is below 40.
const MODEL_NAME_MAX: usize = 128;

impl Profile {
    /// Whether the host sets this variable itself.
    pub(crate) fn sets(&self, variable: &str) -> bool {
        let mut ours = self.env.iter().chain(self.quiet_env);
        ours.any(|(known, _)| *known == variable)
    }
}

/// There is one of each name.
impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Profile {}

impl Values {
    pub(crate) fn allow(&self, value: &str) -> bool {
        match self {
            Values::Words(words) => words.contains(&value),
            Values::UpTo(most) => {
                let number = value.parse().ok().filter(|n| (1..=*most).contains(n));
                number.is_some_and(|n: u64| n.to_string() == value)
            }
        }
    }
}

/// Whether `name` may stand behind an option for the model: nothing that could be taken for an option
/// itself.
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

#[cfg(test)]
mod tests {
    use super::*;

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

    /// The table of the reference.
    fn table() -> String {
        let mut text =
            String::from("| profile | option | values | what it becomes |\n|---|---|---|---|\n");
        for profile in PROFILES {
            for option in profile.options {
                let values = match option.values {
                    Values::Words(words) => format!("`{}`", words.join("`, `")),
                    Values::UpTo(most) => format!("a whole number from 1 to {most}"),
                };
                let place = match option.place {
                    Place::Flag(flag) => format!("`{flag} VALUE`"),
                    Place::Variable(name) => format!("`{name}=VALUE`"),
                    Place::Switch(name) => format!("`{name}=1`"),
                };
                let (profile, option) = (profile.name, option.name);
                text += &format!("| `{profile}` | `{option}` | {values} | {place} |\n");
            }
        }
        text
    }

    #[test]
    fn the_reference_lists_the_launch_options() {
        const BEGIN: &str = "<!-- options: a test compares this table with host/src/profiles -->\n";
        const END: &str = "<!-- /options -->\n";
        crate::reference::compare("profiles.md", BEGIN, END, &table());
    }

    #[test]
    fn profiles_have_names_of_their_own() {
        for (at, profile) in PROFILES.iter().enumerate() {
            assert!(
                PROFILES[..at]
                    .iter()
                    .all(|other| other.name != profile.name)
            );
        }
    }
}
