//! Private, empty working directories.
//!
//! The CLI may tell the model the name of its working directory, and a prompt that differs in
//! it misses the API's cache: so the names are few, say nothing, and are used again, the lowest
//! first. A directory belongs to one process at a time and is made anew for it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

/// The folder in which working directories lie.
pub(super) struct Workdirs(Arc<Shared>);

struct Shared {
    root: TempDir,
    taken: Mutex<BTreeSet<u32>>,
}

/// A directory that belongs to one process.
pub(super) struct Workdir {
    shared: Arc<Shared>,
    number: u32,
    path: PathBuf,
}

impl Workdirs {
    /// Makes the folder; it goes when the last directory in it does.
    pub(super) fn new() -> io::Result<Self> {
        let root = tempfile::Builder::new().prefix("harness-").tempdir()?;
        Ok(Workdirs(Arc::new(Shared {
            root,
            taken: Mutex::default(),
        })))
    }

    /// The folder in which all of them lie.
    pub(super) fn root(&self) -> &Path {
        self.0.root.path()
    }

    pub(super) fn lease(&self) -> io::Result<Workdir> {
        let number = {
            let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let lowest = (0..).find(|n| !taken.contains(n)).unwrap_or(u32::MAX);
            taken.insert(lowest);
            lowest
        };
        let path = self.0.root.path().join(number.to_string());
        let workdir = Workdir {
            shared: self.0.clone(),
            number,
            path,
        };
        workdir.clear()?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&workdir.path)?;
        Ok(workdir)
    }
}

impl Workdir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove a working directory");
        }
        self.shared
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_private_empty_and_used_again() {
        let workdirs = Workdirs::new().unwrap();
        let first = workdirs.lease().unwrap();
        let second = workdirs.lease().unwrap();
        let name = first.path().to_owned();
        assert_ne!(name, second.path());
        fs::write(name.join("left"), "x").unwrap();
        drop(first);
        assert!(!name.exists());
        let again = workdirs.lease().unwrap();
        assert_eq!(again.path(), name);
        assert_eq!(fs::read_dir(&name).unwrap().count(), 0);
    }
}
