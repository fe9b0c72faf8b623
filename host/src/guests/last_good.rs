//! Keeps, for each name, the last guest from a file that was admitted.
//!
//! It serves after a restart that finds a bad file: a prompt format, or what takes secrets out of
//! prompts, is never exchanged for the built-in guest without a word.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config;
use crate::ownership;

/// A folder with `NAME.wasm` and `NAME.json` for each guest; without one, nothing is kept.
pub(super) struct LastGood(Option<PathBuf>);

/// What a guest was admitted with.
#[derive(Deserialize, Serialize)]
struct Settings {
    config: Value,
    wasi: bool,
}

impl LastGood {
    /// Opens the folder below `base`, making it if need be. A folder that others can change is not used.
    pub(super) fn open(base: Option<&Path>) -> Self {
        let folder = base.map(|base| base.join("guests"));
        let folder = folder.filter(|folder| match prepare(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "good guests are not kept for the next start");
                false
            }
        });
        LastGood(folder)
    }

    /// Keeps a guest that was admitted from a file.
    pub(super) fn keep(&self, settings: &config::Guest, component: &[u8]) {
        let Some(folder) = &self.0 else { return };
        let admitted = Settings {
            config: settings.config.clone(),
            wasi: settings.wasi,
        };
        let kept = serde_json::to_vec(&admitted)
            .map_err(io::Error::other)
            .and_then(|json| {
                write(folder, &format!("{}.wasm", settings.name), component)?;
                write(folder, &format!("{}.json", settings.name), &json)
            });
        if let Err(error) = kept {
            tracing::warn!(guest = %settings.name, %error, "cannot keep a good guest for the next start");
        }
    }

    /// The last good component of this name, with what it was admitted with.
    pub(super) fn find(&self, name: &str, now: &config::Guest) -> Option<(Vec<u8>, config::Guest)> {
        let folder = self.0.as_ref()?;
        let component = fs::read(folder.join(format!("{name}.wasm"))).ok()?;
        let settings = fs::read(folder.join(format!("{name}.json"))).ok()?;
        let Settings { config, wasi } = serde_json::from_slice(&settings).ok()?;
        let settings = config::Guest {
            config,
            wasi,
            ..now.clone()
        };
        Some((component, settings))
    }

    /// Forgets a guest whose file was taken away.
    pub(super) fn forget(&self, name: &str) {
        let Some(folder) = &self.0 else { return };
        for ending in ["wasm", "json"] {
            let _ = fs::remove_file(folder.join(format!("{name}.{ending}")));
        }
    }
}

fn prepare(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    ownership::check(folder).map_err(io::Error::other)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut whole = tempfile::NamedTempFile::new_in(folder)?;
    whole.write_all(bytes)?;
    whole.persist(folder.join(name))?;
    Ok(())
}
