//! Keeps compiled guests from one start to the next.
//!
//! Compiled code is run as it is, so it is only taken from a folder that nobody else can write,
//! and only if it is what was put there: each file begins with the digest of the rest. Files
//! are named by the digest of the component and by what the engine would compile it to.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::memory;

/// Files that were not written for this long are removed.
const KEEP: Duration = Duration::from_secs(60 * 24 * 3600);

/// The length of the digest at the head of a file, in bytes.
const HEAD: usize = 32;

/// A folder of compiled guests; without one, nothing is kept.
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// Opens the folder, making it if need be. A folder that others can change is not used.
    pub(crate) fn open(base: Option<&Path>) -> Self {
        let Some(base) = base else {
            return Cache { folder: None };
        };
        let folder = base.join("components");
        match prepare(&folder) {
            Ok(()) => Cache {
                folder: Some(folder),
            },
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "compiled guests are not kept");
                Cache { folder: None }
            }
        }
    }

    /// Compiles a component, or takes it from the folder.
    pub(crate) fn compile(
        &self,
        engine: &Engine,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        let Some(folder) = &self.folder else {
            return anew(engine, bytes);
        };
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let file = folder.join(format!("{digest}-{:016x}.cwasm", hasher.finish()));
        if let Some(component) = load(engine, &file) {
            return Ok(component);
        }
        let component = anew(engine, bytes)?;
        if let Err(error) = store(folder, &file, &component.serialize()?) {
            tracing::warn!(file = %file.display(), %error, "cannot keep a compiled guest");
        }
        Ok(component)
    }
}

fn anew(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
    let component = Component::new(engine, bytes);
    memory::give_back();
    component
}

fn prepare(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let folder = folder.canonicalize()?;
    // Whoever can write one of the folders above can put another one in this one's place.
    for place in folder.ancestors() {
        let metadata = fs::symlink_metadata(place)?;
        let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
        let sticky = metadata.mode() & 0o1000 != 0;
        let others_write = metadata.mode() & 0o022 != 0 && !(sticky && place != folder);
        if others_write || (owner != us && owner != 0) {
            let what = format!("others can change {}", place.display());
            return Err(std::io::Error::other(what));
        }
    }
    remove_old(&folder);
    Ok(())
}

fn remove_old(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let written = entry
            .metadata()
            .and_then(|m| m.modified())
            .unwrap_or(SystemTime::now());
        if written.elapsed().is_ok_and(|age| age > KEEP) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the bytes are those that this program wrote into a folder of its own"
)]
fn load(engine: &Engine, file: &Path) -> Option<Component> {
    let metadata = fs::symlink_metadata(file).ok()?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let bytes = fs::read(file).ok()?;
    let (head, compiled) = bytes.split_at_checked(HEAD)?;
    if head != Sha256::digest(compiled).as_slice() {
        return None;
    }
    // SAFETY: the folder is ours alone, and the file is whole and as `store` wrote it; wasmtime
    // itself checks that the same version and settings compiled it.
    unsafe { Component::deserialize(engine, compiled) }.ok()
}

fn store(folder: &Path, file: &Path, compiled: &[u8]) -> std::io::Result<()> {
    let mut whole = tempfile::NamedTempFile::new_in(folder)?;
    whole.write_all(&Sha256::digest(compiled))?;
    whole.write_all(compiled)?;
    whole.persist(file)?;
    Ok(())
}
