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
use std::time::Duration;

use basics::{memory, ownership};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine as Wasmtime;
use wasmtime::component::Component;

use super::compile::{self, CompileError};
use super::engine::Engine;

/// Files that were not written for this long are removed.
const RETENTION: Duration = Duration::from_secs(60 * 24 * 3600);

/// The most bytes of all files together. The file of a guest made of Python has some 60 MB.
const SIZE_MAX: u64 = 512 << 20;

/// The length of the digest at the head of a file, in bytes.
const DIGEST_LEN: usize = 32;

/// Where a component is compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compile {
    /// By this thread: a guest that is built into this program.
    Here,
    /// By a process with bounds: a guest from a file, which anybody may have written.
    InProcess,
}

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
        how: Compile,
    ) -> Result<Component, CompileError> {
        let wasmtime = engine.wasmtime();
        let Some(folder) = &self.folder else {
            return deserialized(wasmtime, &anew(engine, bytes, how)?);
        };
        let mut hasher = DefaultHasher::new();
        wasmtime.precompile_compatibility_hash().hash(&mut hasher);
        let file = folder.join(format!("{digest}-{:016x}.cwasm", hasher.finish()));
        if let Some(component) = load(wasmtime, &file) {
            return Ok(component);
        }
        let code = anew(engine, bytes, how)?;
        if let Err(error) = store(folder, &file, &code) {
            tracing::warn!(file = %file.display(), %error, "cannot keep a compiled guest");
        }
        deserialized(wasmtime, &code)
    }
}

fn anew(engine: &Engine, bytes: &[u8], how: Compile) -> Result<Vec<u8>, CompileError> {
    match how {
        Compile::InProcess => compile::in_process(engine, bytes),
        Compile::Here => {
            let code = engine.wasmtime().precompile_component(bytes);
            memory::give_back();
            code.map_err(invalid)
        }
    }
}

fn invalid(error: wasmtime::Error) -> CompileError {
    CompileError::Invalid(
        format!("{error:#}")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    )
}

#[expect(
    unsafe_code,
    reason = "the bytes are what this program's own compiler made"
)]
fn deserialized(engine: &Wasmtime, code: &[u8]) -> Result<Component, CompileError> {
    // SAFETY: this program, in this process or in one that it started, has just compiled them.
    unsafe { Component::deserialize(engine, code) }.map_err(invalid)
}

fn prepare(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    ownership::check(folder).map_err(std::io::Error::other)?;
    // The files here are run as code, so not even a group of this user may write here.
    if fs::metadata(folder)?.mode() & 0o022 != 0 {
        let what = format!("others can write to {}", folder.display());
        return Err(std::io::Error::other(what));
    }
    remove_old(folder);
    Ok(())
}

/// Removes the files that were not written for long, and the oldest ones beyond the bound.
fn remove_old(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    files.sort_by_key(|(written, ..)| std::cmp::Reverse(*written));
    let mut size = 0_u64;
    for (written, length, path) in files {
        size = size.saturating_add(length);
        if size > SIZE_MAX || written.elapsed().is_ok_and(|age| age > RETENTION) {
            let _ = fs::remove_file(path);
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the bytes are those that this program wrote into a folder of its own"
)]
fn load(engine: &Wasmtime, file: &Path) -> Option<Component> {
    let metadata = fs::symlink_metadata(file).ok()?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let bytes = fs::read(file).ok()?;
    let (head, compiled) = bytes.split_at_checked(DIGEST_LEN)?;
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
    remove_old(folder);
    Ok(())
}
