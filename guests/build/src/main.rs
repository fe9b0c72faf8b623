//! `cargo guests [NAME]…` builds the named guests, or all; `cargo guests --check` only tells
//! whether the committed components are in step with their sources.

use anyhow::Result;
use guests_build::Workspace;

fn main() -> Result<()> {
    let workspace = Workspace::here();
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let check = names.iter().any(|name| name == "--check");
    names.retain(|name| name != "--check");
    if names.is_empty() {
        names = workspace.guests()?;
    }
    for name in &names {
        if check {
            workspace.check(name)?;
        } else {
            let path = workspace.build(name)?;
            let size = std::fs::metadata(&path)?.len();
            println!(
                "{name}: {} KiB in guests/dist/{name}.wasm",
                size.div_ceil(1024)
            );
        }
    }
    Ok(())
}
