//! What is started: a program, its arguments and its whole environment.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// A command line ready to be started.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The program's path, or a name to look for on the `PATH`.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// All variables that it gets; of several with one name the last counts.
    pub env: Vec<(String, OsString)>,
}

/// Names the variables without their values, which may be a login's token.
impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("CommandLine")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_variable_is_shown() {
        let line = CommandLine {
            program: "claude".into(),
            args: vec!["-p".into()],
            env: vec![("CLAUDE_CODE_OAUTH_TOKEN".into(), "s3cret".into())],
        };
        let shown = format!("{line:?}");
        assert!(
            shown.contains("CLAUDE_CODE_OAUTH_TOKEN") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
