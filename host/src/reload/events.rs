//! Tells when a file was written, so that a change need not wait for the next look at the files.
//!
//! This is only a hint. The watcher looks at the files in any case, because not all file systems send events, and the
//! kernel has only so many of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Single files: the configuration, and those that it names.
    pub(super) files: BTreeSet<PathBuf>,
    /// The folder of the guests.
    pub(super) guests: PathBuf,
}

impl Watched {
    /// The folders that have to be watched. Not the files: an editor puts a new file into the place of the old one.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let parents = self.files.iter().filter_map(|file| file.parent());
        let mut folders: BTreeSet<_> = parents.map(Path::to_owned).collect();
        folders.insert(self.guests.clone());
        folders
    }

    fn concerns(&self, path: &Path) -> bool {
        let is_guest = path.extension() == Some("wasm".as_ref());
        self.files.contains(path) || (is_guest && path.parent() == Some(&self.guests))
    }
}

/// Watches files.
pub(super) struct FileEvents {
    /// None where the system has no events.
    watcher: Option<RecommendedWatcher>,
    watched: Arc<Mutex<Watched>>,
    /// The folders for which the system was asked for events, and gave its word.
    folders: BTreeSet<PathBuf>,
}

impl FileEvents {
    /// `on_written` is called on a thread of the watcher.
    pub(super) fn start(on_written: impl Fn() + Send + 'static) -> Self {
        let watched = Arc::new(Mutex::new(Watched::default()));
        let concerned = watched.clone();
        let on_event = move |event: notify::Result<Event>| {
            let is_written = |event: &Event| {
                is_finished(event.kind)
                    && event
                        .paths
                        .iter()
                        .any(|path| concerned.lock().concerns(path))
            };
            if event.is_ok_and(|event| is_written(&event)) {
                on_written();
            }
        };
        let watcher = notify::recommended_watcher(on_event);
        if let Err(error) = &watcher {
            tracing::info!(%error, "no events of files: changes are found when the files are looked at");
        }
        FileEvents {
            watcher: watcher.ok(),
            watched,
            folders: BTreeSet::new(),
        }
    }

    /// From now on these are watched. A folder that cannot be watched, for instance because it is not there yet, is
    /// tried again the next time.
    pub(super) fn watch(&mut self, watched: Watched) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let folders = watched.folders();
        if *self.watched.lock() != watched {
            *self.watched.lock() = watched;
        }
        // A folder that was taken away and made again is another one for the system.
        self.folders.retain(|folder| {
            let stays = folders.contains(folder) && folder.is_dir();
            if !stays {
                // This fails if the folder is gone.
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        for folder in folders.difference(&self.folders.clone()) {
            if watcher.watch(folder, RecursiveMode::NonRecursive).is_ok() {
                self.folders.insert(folder.clone());
            }
        }
    }
}

/// Whether a file is complete, has another name or is gone.
fn is_finished(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_)
    )
}
