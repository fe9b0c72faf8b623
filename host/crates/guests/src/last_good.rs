//! Keeps, for each name, the last guest from a file that was admitted.
//!
//! If the service finds a bad file when it starts, the last good guest serves. The built-in guest must not
//! replace it in silence, because a guest from a file may have its own prompt format, or may remove secrets from
//! prompts.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use basics::ownership;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::settings::{GuestConfig, GuestUse};

/// A folder with one file for each guest. Such a file holds the length of the guest's settings, the settings as
/// JSON, and the component. Without a folder, nothing is kept.
pub(super) struct LastGood(Option<PathBuf>);

/// What a guest was admitted with.
#[derive(Deserialize, Serialize)]
struct Settings {
    uses: Vec<GuestUse>,
    wasi: bool,
}

impl LastGood {
    /// Opens the folder below `base` that belongs to `guests_dir`, and makes it if need be. Each `guests_dir`
    /// has its own, so that services with different guests do not share one. A folder that others can change is
    /// not used.
    pub(super) fn open(base: Option<&Path>, guests_dir: &Path) -> Self {
        let digest = Sha256::digest(guests_dir.as_os_str().as_encoded_bytes());
        let name: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let folder = base.map(|base| base.join("guests").join(name));
        let folder = folder.filter(|folder| match prepare(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "good guests are not kept for the next start");
                false
            }
        });
        LastGood(folder)
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(format!("{name}.guest")))
    }

    /// Keeps a guest that was admitted from a file.
    pub(super) fn keep(&self, settings: &GuestConfig, component: &[u8]) {
        let Some(file) = self.file(&settings.name) else {
            return;
        };
        let admitted = Settings {
            uses: settings.uses.clone(),
            wasi: settings.wasi,
        };
        let kept = serde_json::to_vec(&admitted)
            .map_err(io::Error::other)
            .and_then(|json| write(&file, &json, component));
        if let Err(error) = kept {
            tracing::warn!(guest = %settings.name, %error, "cannot keep a good guest for the next start");
        }
    }

    /// The last good component of this name, with what it was admitted with.
    pub(super) fn find(&self, name: &str, now: &GuestConfig) -> Option<(Vec<u8>, GuestConfig)> {
        let whole = fs::read(self.file(name)?).ok()?;
        let (length, rest) = whole.split_at_checked(8)?;
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let (json, component) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let Settings { uses, wasi } = serde_json::from_slice(json).ok()?;
        let settings = GuestConfig {
            uses,
            wasi,
            ..now.clone()
        };
        Some((component.to_vec(), settings))
    }

    /// Forgets a guest whose file was taken away.
    pub(super) fn forget(&self, name: &str) {
        if let Some(file) = self.file(name) {
            let _ = fs::remove_file(file);
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

fn write(file: &Path, json: &[u8], component: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(file);
    let mut whole = tempfile::NamedTempFile::new_in(folder)?;
    whole.write_all(&(json.len() as u64).to_le_bytes())?;
    whole.write_all(json)?;
    whole.write_all(component)?;
    whole.persist(file)?;
    Ok(())
}
