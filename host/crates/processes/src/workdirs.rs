//! Private, empty working directories.
//!
//! The CLI may tell the model the name of its working directory, and a prompt that differs in
//! it misses the API's cache: so the names are few, say nothing, and are used again, the lowest
//! first, by one service after the other. A directory belongs to one process at a time and is made
//! anew for it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use basics::ownership;
use parking_lot::{Mutex, MutexGuard};
use rustix::process::geteuid;

/// How many usual names there are: `harness-0` and so on. A service that finds them all taken gets a folder
/// with a random name.
const FOLDERS_MAX: u32 = 1000;

/// How long to wait for the lock of a service that has ended, and how often to try to get it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The folder in which working directories lie.
pub(super) struct Workdirs(Arc<Shared>);

struct Shared {
    /// Where the folder is looked for.
    base: PathBuf,
    state: Mutex<State>,
}

struct State {
    root: Root,
    taken: BTreeSet<u32>,
}

/// A folder that belongs to this service; it goes when this is dropped.
struct Root {
    path: PathBuf,
    /// The folder itself, locked. The lock is released when the service ends, however it ends, and
    /// keeps programs that tidy up `/tmp` away from the folder.
    lock: File,
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
            if let Some(lock) = make(&path)? {
                clear(&path)?;
                return Ok(Root { path, lock });
            }
        }
        // All of these names are taken. Any other name will do, but the API's cache will not know
        // it.
        let path = tempfile::Builder::new()
            .prefix("harness-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(base)?
            .keep();
        let message = || format!("no folder can be had in {}: set TMPDIR", base.display());
        let lock = lock(&path)?.ok_or_else(|| io::Error::other(message()))?;
        tracing::warn!(folder = %path.display(), "all usual names of working directories are taken");
        Ok(Root { path, lock })
    }

    /// Whether the path still leads to this folder: a program that ignores locks may have removed
    /// it.
    fn is_there(&self) -> bool {
        is_at(&self.lock, &self.path).unwrap_or(false)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // It is removed while it is still locked, so that no other service takes it meanwhile. If something
        // cannot be removed, the next service that takes the folder removes it.
        if self.is_there() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Locks the folder at `path`, which is made if it is not there. None if it is another service's.
fn make(path: &Path) -> io::Result<Option<File>> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match lock(path) {
        // Its last owner has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        locked => locked,
    }
}

/// Locks a folder. None if it is another service's, or another user's.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let looks = fs::symlink_metadata(path)?;
    let is_private = looks.permissions().mode() & 0o077 == 0;
    if !looks.is_dir() || looks.uid() != geteuid().as_raw() || !is_private {
        return Ok(None);
    }
    let lock = File::open(path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Its last owner may have removed it before it was locked here.
    Ok(is_at(&lock, path)?.then_some(lock))
}

/// Whether a path leads to this folder.
fn is_at(folder: &File, path: &Path) -> io::Result<bool> {
    let (this, there) = (folder.metadata()?, fs::symlink_metadata(path)?);
    Ok((this.dev(), this.ino()) == (there.dev(), there.ino()))
}

/// Removes all that is in a folder.
fn clear(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a folder, if the service that had it is gone and no other one has taken it over. The
/// lock of a service that ends is released a moment after everything else, so this waits for it.
pub(super) fn remove_abandoned(folder: &Path) {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match lock(folder) {
            Ok(Some(lock)) => {
                return drop(Root {
                    path: folder.to_owned(),
                    lock,
                });
            }
            Ok(None) if folder.exists() && Instant::now() < deadline => {
                thread::sleep(LOCK_POLL_INTERVAL)
            }
            _ => return,
        }
    }
}

impl Workdirs {
    /// Takes a folder. It is removed when this value and the last directory in it are dropped.
    pub(super) fn new() -> io::Result<Self> {
        Workdirs::below(&std::env::temp_dir())
    }

    fn below(base: &Path) -> io::Result<Self> {
        if let Err(what) = ownership::check_shared(base) {
            tracing::warn!(
                "working directories lie where others can change them: {what}; or set TMPDIR"
            );
        }
        let root = Root::take(base)?;
        Ok(Workdirs(Arc::new(Shared {
            base: base.to_owned(),
            state: Mutex::new(State {
                root,
                taken: BTreeSet::new(),
            }),
        })))
    }

    /// The folder in which all of them lie.
    pub(super) fn root(&self) -> PathBuf {
        self.0.state().root.path.clone()
    }

    /// A directory for a process.
    pub(super) fn lease(&self) -> io::Result<Workdir> {
        let (number, path) = {
            let mut state = self.0.state();
            if !state.root.is_there() {
                state.root = Root::take(&self.0.base)?;
                let folder = state.root.path.display();
                tracing::warn!(%folder, "the folder of working directories was gone");
            }
            let lowest = (0..).find(|n| !state.taken.contains(n)).unwrap_or(u32::MAX);
            state.taken.insert(lowest);
            (lowest, state.root.path.join(lowest.to_string()))
        };
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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
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
        let is_ours = {
            let root = &self.shared.state().root;
            self.path.starts_with(&root.path) && root.is_there()
        };
        if is_ours && let Err(error) = self.clear() {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove a working directory");
        }
        self.shared.state().taken.remove(&self.number);
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
        first.lock.unlock().unwrap();
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
        for number in 4..FOLDERS_MAX {
            fs::create_dir(base.path().join(format!("harness-{number}"))).unwrap();
            fs::set_permissions(
                base.path().join(format!("harness-{number}")),
                fs::Permissions::from_mode(0o777),
            )
            .unwrap();
        }
        let other = Root::take(base.path()).unwrap();
        assert!(
            is_at(&other.lock, &other.path).unwrap(),
            "another name does"
        );
    }

    #[test]
    fn directories_are_private_empty_and_used_again() {
        let base = tempfile::tempdir().unwrap();
        let workdirs = Workdirs::below(base.path()).unwrap();
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

    #[test]
    fn a_folder_that_somebody_removed_is_made_again() {
        let base = tempfile::tempdir().unwrap();
        let workdirs = Workdirs::below(base.path()).unwrap();
        let before = workdirs.lease().unwrap();
        fs::remove_dir_all(workdirs.root()).unwrap();
        let after = workdirs.lease().unwrap();
        assert!(after.path().exists() && after.path() != before.path());
        // Now another service is faster.
        fs::remove_dir_all(workdirs.root()).unwrap();
        let other = Workdirs::below(base.path()).unwrap();
        let others = other.lease().unwrap();
        let last = workdirs.lease().unwrap();
        assert_ne!(workdirs.root(), other.root());
        drop((before, after, last));
        drop(workdirs);
        assert!(others.path().exists());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
