//! Private, empty working directories.
//!
//! The CLI may tell the model the name of its working directory, and a prompt that differs in
//! it misses the API's cache: so the names are few, say nothing, and are used again, the lowest
//! first, by one service after the other. A directory belongs to one process at a time and is made
//! anew for it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::geteuid;

/// The most services of one machine that have folders.
const FOLDERS_MAX: u32 = 1000;

/// The file in a folder that the service to which it belongs has locked. The lock goes with the
/// service, however that ends.
const LOCK: &str = ".lock";

/// The folder in which working directories lie.
pub(super) struct Workdirs(Arc<Shared>);

struct Shared {
    root: Root,
    taken: Mutex<BTreeSet<u32>>,
}

/// A folder that belongs to this service; it goes when this is dropped.
struct Root {
    path: PathBuf,
    _lock: File,
}

/// A directory that belongs to one process.
pub(super) struct Workdir {
    shared: Arc<Shared>,
    number: u32,
    path: PathBuf,
}

impl Root {
    /// The first folder below `base` that no running service has.
    fn take(base: &Path) -> io::Result<Self> {
        for number in 0..FOLDERS_MAX {
            let path = base.join(format!("harness-{number}"));
            match make(&path).and_then(|()| lock(&path)) {
                Ok(Some(lock)) => {
                    clear(&path)?;
                    return Ok(Root { path, _lock: lock });
                }
                Ok(None) => {}
                // Its last owner has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!("no folder can be had in {}: set TMPDIR", base.display());
        Err(io::Error::other(message))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a folder whose lock is held. It gets another name first, so that nobody takes it for a
/// folder to be had while it goes.
fn remove(path: &Path) {
    let going = path.with_extension(std::process::id().to_string());
    let _ = fs::rename(path, &going).and_then(|()| fs::remove_dir_all(&going));
}

/// Makes a folder, if it is not there.
fn make(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Locks a folder. None if it is another service's, or another user's.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let looks = fs::symlink_metadata(path)?;
    let is_private = looks.permissions().mode() & 0o077 == 0;
    if !looks.is_dir() || looks.uid() != geteuid().as_raw() || !is_private {
        return Ok(None);
    }
    let file = path.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&file)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Its last owner may have removed it before it was locked here.
    let same = fs::metadata(&file).is_ok_and(|there| {
        lock.metadata()
            .is_ok_and(|this| (this.dev(), this.ino()) == (there.dev(), there.ino()))
    });
    Ok(same.then_some(lock))
}

/// Removes all that is in a folder but its lock.
fn clear(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a folder, if the service that had it is gone and no other one has taken it over.
pub(super) fn remove_abandoned(folder: &Path) {
    if let Ok(Some(_lock)) = lock(folder) {
        remove(folder);
    }
}

impl Workdirs {
    /// Takes a folder; it goes when the last directory in it does.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Workdirs(Arc::new(Shared {
            root: Root::take(&std::env::temp_dir())?,
            taken: Mutex::default(),
        })))
    }

    /// The folder in which all of them lie.
    pub(super) fn root(&self) -> &Path {
        &self.0.root.path
    }

    pub(super) fn lease(&self) -> io::Result<Workdir> {
        let number = {
            let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let lowest = (0..).find(|n| !taken.contains(n)).unwrap_or(u32::MAX);
            taken.insert(lowest);
            lowest
        };
        let path = self.0.root.path.join(number.to_string());
        let workdir = Workdir {
            shared: self.0.clone(),
            number,
            path,
        };
        workdir.clear()?;
        fs::DirBuilder::new().mode(0o700).create(&workdir.path)?;
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
    fn a_folder_is_one_services_and_then_the_next_ones() {
        let base = tempfile::tempdir().unwrap();
        let first = Root::take(base.path()).unwrap();
        let second = Root::take(base.path()).unwrap();
        let names = [&first, &second].map(|root| root.path.file_name().unwrap().to_owned());
        assert_eq!(names, ["harness-0", "harness-1"]);
        remove_abandoned(&first.path);
        assert!(first.path.exists(), "it is not abandoned");
        fs::write(first.path.join("left"), "x").unwrap();
        // As if it had been killed: nothing is removed, and the lock is gone.
        let path = first.path.clone();
        let Root { _lock, .. } = &first;
        _lock.unlock().unwrap();
        std::mem::forget(first);
        let third = Root::take(base.path()).unwrap();
        assert_eq!(third.path, path);
        assert!(!path.join("left").exists());
        drop(third);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let open = base.path().join("harness-0");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink("/", base.path().join("harness-1")).unwrap();
        fs::write(base.path().join("harness-2"), "").unwrap();
        let root = Root::take(base.path()).unwrap();
        assert!(root.path.ends_with("harness-3"));
    }

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
