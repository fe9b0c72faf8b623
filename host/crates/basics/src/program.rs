//! This program's own file.

use std::path::PathBuf;

/// What to start for another part of this program, which must be of the same version. Linux has the file that runs,
/// even if an update has put another one into its place.
pub fn own() -> PathBuf {
    match cfg!(target_os = "linux") {
        true => "/proc/self/exe".into(),
        false => std::env::current_exe().unwrap_or_else(|_| "claude-harness".into()),
    }
}
