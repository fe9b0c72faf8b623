//! Builds the guests of this repository into components.
//!
//! A guest is a folder of `guests/` with a package `guest-NAME`. Its component is committed as
//! `guests/dist/NAME.wasm`, so that the host builds with plain stable Rust, and beside it lies
//! `NAME.sources`, the digest of what it was built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// The target that gives modules without any import.
const TARGET: &str = "wasm32-unknown-unknown";

/// What the linker is told of a guest's heap: 512 KiB, as in `guests/templates/rust/guest.toml`. A short request needs
/// less, so its instance need not grow (see `guests/kit/src/memory.rs`).
const INITIAL_HEAP: &str = "-Clink-arg=--initial-heap=524288";

/// Folders of `guests/` that hold no guest.
const NO_GUESTS: [&str; 3] = ["build", "deeds", "kit"];

/// Folders of guests: those of the product, and those of its tests.
const FOLDERS: [&str; 2] = ["guests", "tests/guests"];

/// The workspace with its guests.
pub struct Workspace {
    root: PathBuf,
}

/// A guest's sources.
pub struct Source {
    /// Its name: `claude-code`.
    pub name: String,
    /// The folder of its package.
    folder: PathBuf,
    /// Where its component goes.
    dist: PathBuf,
}

impl Workspace {
    /// The workspace that cargo runs this program in: another checkout may have built it, in a shared target directory.
    pub fn here() -> Self {
        let folder = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Workspace {
            root: folder.join("../.."),
        }
    }

    /// All guests, in the order of their names within each folder.
    pub fn guests(&self) -> Result<Vec<Source>> {
        let mut guests = Vec::new();
        for folder in FOLDERS.map(|folder| self.root.join(folder)) {
            let mut here = Vec::new();
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !NO_GUESTS.contains(&name.as_str()) && entry.path().join("Cargo.toml").is_file()
                {
                    here.push(Source {
                        name,
                        folder: entry.path(),
                        dist: folder.join("dist"),
                    });
                }
            }
            here.sort_by(|a, b| a.name.cmp(&b.name));
            guests.extend(here);
        }
        Ok(guests)
    }

    /// Builds one guest, and returns its component.
    ///
    /// # Errors
    ///
    /// Fails if cargo does, which it does without the target `wasm32-unknown-unknown`.
    pub fn build(&self, guest: &Source) -> Result<Vec<u8>> {
        let name = &guest.name;
        let target_dir = self.target_dir();
        let package = format!("guest-{name}");
        let status = Command::new(env!("CARGO"))
            .current_dir(&self.root)
            .args(["rustc", "--quiet", "--profile", "guest", "--target", TARGET])
            .args(["--package", &package, "--lib", "--target-dir"])
            .arg(&target_dir)
            .args(["--", INITIAL_HEAP])
            .status()
            .context("cannot start cargo")?;
        ensure!(
            status.success(),
            "building `{name}` failed; is the target there? `rustup target add {TARGET}`"
        );
        let module = target_dir
            .join(TARGET)
            .join("guest")
            .join(format!("{}.wasm", package.replace('-', "_")));
        let module =
            fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        wit_component::ComponentEncoder::default()
            .module(&module)
            .with_context(|| format!("`{name}` is no guest"))?
            .validate(true)
            .encode()
            .with_context(|| format!("cannot make a component of `{name}`"))
    }

    /// Writes a guest's component to where it is committed, and the digest of its sources.
    pub fn commit(&self, guest: &Source, component: &[u8]) -> Result<()> {
        fs::create_dir_all(&guest.dist)?;
        fs::write(guest.dist.join(format!("{}.wasm", guest.name)), component)?;
        fs::write(guest.digest_file(), self.sources_digest(guest)? + "\n")?;
        Ok(())
    }

    /// Compares a guest's committed component with its sources.
    ///
    /// # Errors
    ///
    /// Fails if a source changed since the component was built.
    pub fn check(&self, guest: &Source) -> Result<()> {
        let built = fs::read_to_string(guest.digest_file()).unwrap_or_default();
        if built.trim() != self.sources_digest(guest)? {
            bail!(
                "the component of `{}` is out of step with its sources: run `cargo guests`",
                guest.name
            );
        }
        Ok(())
    }

    /// A digest of all that a guest is built from: its folder, the kit and the contract, and for guests of tests
    /// what they share.
    fn sources_digest(&self, guest: &Source) -> Result<String> {
        let mut files = vec![guest.folder.join("Cargo.toml")];
        collect(&guest.folder.join("src"), &mut files)?;
        collect(&self.root.join("guests/kit/src"), &mut files)?;
        collect(&self.root.join("guests/kit/bindings/src"), &mut files)?;
        collect(
            &self.root.join("guests/kit/dialect-bindings/src"),
            &mut files,
        )?;
        collect(&self.root.join("wit"), &mut files)?;
        let tests = self.root.join("tests/guests");
        if guest.folder.starts_with(&tests) {
            collect(&tests.join("deeds/src"), &mut files)?;
        }
        files.retain(|file| file.extension() != Some("sha256".as_ref()));
        files.sort();
        let mut digest = Sha256::new();
        for file in files {
            let name = file.strip_prefix(&self.root).unwrap_or(&file);
            digest.update(name.to_string_lossy().as_bytes());
            digest.update([0]);
            digest.update(fs::read(&file)?);
            digest.update([0]);
        }
        Ok(hex(&digest.finalize()))
    }

    fn target_dir(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }
}

impl Source {
    fn digest_file(&self) -> PathBuf {
        self.dist.join(format!("{}.sources", self.name))
    }
}

/// A digest in hexadecimal.
fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `wit/released.sha256` has the digest of each file of a released version, as `sha256sum` writes them.
    #[test]
    fn released_versions_of_the_contract_do_not_change() {
        let wit = Workspace::here().root.join("wit");
        let released = fs::read_to_string(wit.join("released.sha256")).unwrap();
        let mut files = Vec::new();
        for line in released.lines().filter(|line| !line.starts_with('#')) {
            let (digest, name) = line.split_once("  ").unwrap();
            let file = wit.join(name);
            assert_eq!(
                hex(&Sha256::digest(fs::read(&file).unwrap())),
                digest,
                "{name} is released: make a new version instead"
            );
            files.push(file);
        }
        for file in files.clone() {
            let mut there = Vec::new();
            collect(file.parent().unwrap(), &mut there).unwrap();
            for file in there {
                assert!(files.contains(&file), "{} is new", file.display());
            }
        }
    }

    #[test]
    fn every_version_of_the_contract_is_sound() {
        let wit = Workspace::here().root.join("wit");
        let mut versions = 0;
        for entry in fs::read_dir(wit).unwrap() {
            let folder = entry.unwrap().path();
            if folder.is_dir() {
                let mut resolve = wit_parser::Resolve::new();
                resolve.push_dir(&folder).unwrap();
                versions += 1;
            }
        }
        assert!(versions >= 1);
    }

    #[test]
    fn committed_components_are_in_step_with_their_sources() {
        let workspace = Workspace::here();
        let guests = workspace.guests().unwrap();
        assert!(!guests.is_empty());
        for guest in guests {
            workspace.check(&guest).unwrap();
        }
    }
}
