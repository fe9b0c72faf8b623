//! The real command lines, if they are there.

use std::io::Write;
use std::path::PathBuf;

/// The versions that the tests run, oldest first.
pub const VERSIONS: [&str; 2] = ["2.1.197", "2.1.330"];

/// The program of a version, where `tests/run` puts it: `cli/VERSION/package/claude` in cargo's
/// target directory. Says on standard error which test is left out where it is missing.
pub fn find(version: &str, test: &str) -> Option<PathBuf> {
    let program = target_dir()
        .join("cli")
        .join(version)
        .join("package/claude");
    if program.is_file() {
        return Some(program);
    }
    // Written past the capture of the test's output: it shall be seen.
    let _ = writeln!(
        std::io::stderr(),
        "left out: {test} with Claude Code {version}, which is not there; ./tests/run fetches it"
    );
    None
}

/// Cargo's target directory, from where this program lies in it.
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let profile = program
        .ancestors()
        .find(|dir| dir.ends_with("debug") || dir.ends_with("release"));
    profile
        .and_then(|dir| dir.parent())
        .expect("a target directory")
        .to_owned()
}
