//! `cargo guests [NAME]…` builds the named guests, or all, and puts their components where they
//! are committed. With `--dry-run` they are only built; with `--check` nothing is built, and it
//! is only told whether the committed components are in step with their sources.

use anyhow::{Result, ensure};
use guests_build::Workspace;

fn main() -> Result<()> {
    let workspace = Workspace::here();
    let (flags, names): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    for flag in &flags {
        ensure!(
            flag == "--check" || flag == "--dry-run",
            "`{flag}` is unknown: --check or --dry-run"
        );
    }
    let mut guests = workspace.guests()?;
    for name in &names {
        ensure!(
            guests.iter().any(|guest| guest.name == *name),
            "there is no guest `{name}`"
        );
    }
    guests.retain(|guest| names.is_empty() || names.contains(&guest.name));
    for guest in &guests {
        if flags.iter().any(|flag| flag == "--check") {
            workspace.check(guest)?;
            continue;
        }
        let component = workspace.build(guest)?;
        println!("{}: {} KiB", guest.name, component.len().div_ceil(1024));
        if flags.is_empty() {
            workspace.commit(guest, &component)?;
        }
    }
    Ok(())
}
