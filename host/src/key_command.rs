//! `claude-harness key new NAME`: makes a key, and puts its digest into the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use basics::plain::is_word;
use basics::whole_file;
use clap::{Args, Subcommand};
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Overrides};

/// How a key begins. Clients that check a key's form want `sk-`.
const PREFIX: &str = "sk-ch-";

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key, print it once, and write its digest into the configuration
    New(New),
}

/// The key that is made.
#[derive(Args, Debug)]
pub struct New {
    /// Its name, which the log shows
    name: String,
    /// It opens /metrics and /admin, too
    #[arg(long)]
    admin: bool,
    /// The configuration [default: as for `serve`, or else ~/.config/claude-harness/harness.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Carries out a command.
///
/// # Errors
///
/// Says why there is no new key. Then the configuration is as it was.
pub fn run(command: &KeyCommand) -> Result<()> {
    let KeyCommand::New(new) = command;
    make(new)
}

fn make(new: &New) -> Result<()> {
    let name = &new.name;
    ensure!(
        is_word(name),
        "the name of a key appears in the log: use letters, digits and `._+-`, at most 32 characters"
    );
    let before = match &new.config {
        // A file that is named is made if it is not there; another one is not looked for.
        Some(file) if !file.exists() => Config::parse("", None, &Overrides::default())?,
        named => Config::load(&Overrides::of_command(named.clone()))?,
    };
    let is_known = |key: &crate::config::Key| key.name.as_deref() == Some(name);
    ensure!(
        !before.access.keys.iter().any(is_known),
        "there is a key `{name}` already: remove `[keys.{name}]`, or take another name"
    );
    let file = match (&before.source, &new.config) {
        (Some(file), _) | (None, Some(file)) => file.clone(),
        (None, None) => usual_file()?,
    };
    let key = random();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => bail!("cannot read {}: {error}", file.display()),
    };
    let text = with_key(text, name, &key, new.admin);
    // What cannot be read afterwards is not written.
    Config::parse(&text, Some(file.clone()), &Overrides::default())?;
    replace(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!(
        "wrote `[keys.{name}]` into {}; the key is shown only now:",
        file.display()
    );
    println!("{key}");
    if before.access.keys.is_empty() {
        eprintln!("it is the first key: from now on, every caller needs one");
    }
    Ok(())
}

/// The configuration with another key at its end, where a section disturbs nothing before it.
fn with_key(mut text: String, name: &str, key: &str, admin: bool) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let quoted = toml::Value::from(name);
    let digest: String = Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let admin = if admin { "admin = true\n" } else { "" };
    let gap = if text.is_empty() { "" } else { "\n" };
    text + &format!("{gap}[keys.{quoted}]\nkey = \"sha256:{digest}\"\n{admin}")
}

/// A key that nobody can guess: 244 random bits of the system's.
fn random() -> String {
    let [one, other] = [(); 2].map(|()| uuid::Uuid::new_v4().simple());
    format!("{PREFIX}{one}{other}")
}

fn usual_file() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.context("HOME is not set: name a file with --config")?;
    Ok(Path::new(&home).join(".config/claude-harness/harness.toml"))
}

/// Whoever reads the file sees all of the old one or all of the new one. Its mode stays.
fn replace(file: &Path, text: &str) -> Result<()> {
    // A link stays one: what it leads to is replaced.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(whole_file::replace(&file, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_put_at_the_end_and_all_else_stays() {
        for before in [
            "",
            "max_choices = 2",
            "[backends.demo]\nprofile = \"demo\"\n# the end",
        ] {
            let key = random();
            let text = with_key(before.into(), "a.b", &key, true);
            assert!(text.starts_with(before) && !text.contains(&key), "{text}");
            let config = Config::parse(&text, None, &Overrides::default()).unwrap();
            let known = config.access.accepted(&key).unwrap();
            assert_eq!((known.name.as_deref(), known.admin), (Some("a.b"), true));
        }
    }

    #[test]
    fn no_two_keys_are_the_same() {
        let key = random();
        assert!(key.starts_with(PREFIX) && key.len() == PREFIX.len() + 64);
        assert_ne!(key, random());
    }
}
