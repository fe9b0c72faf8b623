//! `cargo guests [NAME]…` builds the named guests, or all; `cargo guests --check` only tells
//! whether the committed components are in step with their sources.

use anyhow::{Result, ensure};
use guests_build::Workspace;

fn main() -> Result<()> {
    let workspace = Workspace::here();
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let check = names.iter().any(|name| name == "--check");
    names.retain(|name| name != "--check");
    let mut guests = workspace.guests()?;
    for name in &names {
        ensure!(
            guests.iter().any(|guest| guest.name == *name),
            "there is no guest `{name}`"
        );
    }
    guests.retain(|guest| names.is_empty() || names.contains(&guest.name));
    for guest in &guests {
        if check {
            workspace.check(guest)?;
        } else {
            let path = workspace.build(guest)?;
            let size = std::fs::metadata(&path)?.len();
            println!("{}: {} KiB", guest.name, size.div_ceil(1024));
        }
    }
    Ok(())
}
