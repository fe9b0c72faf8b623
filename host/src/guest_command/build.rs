//! `claude-harness guest build`: makes a component of a guest's sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::component;

/// `guest.toml`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Project {
    /// The guest's name, which is that of its component.
    name: String,
    /// The commands that build it, in order.
    build: Vec<Vec<String>>,
    /// What they make: a component, or a core module to make one of.
    output: PathBuf,
}

/// Builds the guest in a folder as `NAME.wasm`, checks it, and has it repeat its cases, or records them anew.
pub(super) fn build(dir: &Path, update: bool) -> Result<()> {
    let file = dir.join("guest.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let project: Project = toml::from_str(&text).with_context(|| format!("{}", file.display()))?;
    for command in &project.build {
        run(dir, command)?;
    }
    let output = dir.join(&project.output);
    let built = fs::read(&output).with_context(|| format!("cannot read {}", output.display()))?;
    let component = dir.join(format!("{}.wasm", project.name));
    fs::write(&component, componentized(built)?)
        .with_context(|| format!("cannot write {}", component.display()))?;
    println!("built {}", component.display());
    component::check_built(&component, &dir.join("cases"), update)
}

fn run(dir: &Path, command: &[String]) -> Result<()> {
    let line = command.join(" ");
    let (program, arguments) = command
        .split_first()
        .context("`build` has an empty command")?;
    println!("$ {line}");
    let status = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .status();
    match status {
        Ok(status) => ensure!(status.success(), "`{line}` failed ({status})"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no `{program}`: install it, or change `build` in guest.toml")
        }
        Err(error) => bail!("cannot start `{program}`: {error}"),
    }
    Ok(())
}

/// A component as it is; a core module becomes one.
fn componentized(built: Vec<u8>) -> Result<Vec<u8>> {
    if !built.starts_with(b"\0asm\x01\0\0\0") {
        return Ok(built);
    }
    wit_component::ComponentEncoder::default()
        .module(&built)
        .context("it is no guest")?
        .validate(true)
        .encode()
        .context("cannot make a component of it")
}
