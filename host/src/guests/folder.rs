//! Finds components in the guests' folder.
//!
//! The folder is looked at four times a second. That needs no support of the file system, sees
//! renames, writes in place, swapped links and a folder that comes and goes alike, and costs a
//! listing. A file is read once its looks have not changed between two visits, so that one
//! that is still being written is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admission::COMPONENT_MAX;

/// How often the folder is looked at.
pub(crate) const VISIT: Duration = Duration::from_millis(250);

/// What a file looks like from outside; it changes whenever the file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Looks {
    pub(crate) fn of(path: &Path) -> Option<Looks> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Looks {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// A component on disk.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) looks: Looks,
}

/// The files `NAME.wasm` of a folder, by name. A folder that is not there has none.
pub(crate) fn list(folder: &Path) -> BTreeMap<String, File> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| {
        let path = entry.path();
        let name = path
            .file_name()?
            .to_str()?
            .strip_suffix(".wasm")?
            .to_owned();
        let hidden = name.is_empty() || name.starts_with('.');
        let looks = Looks::of(&path).filter(|_| !hidden)?;
        Some((name, File { path, looks }))
    });
    files.collect()
}

/// Reads a component, unless it is too large to be one.
pub(crate) fn read(file: &File) -> std::io::Result<Vec<u8>> {
    if file.looks.size > COMPONENT_MAX {
        return Err(std::io::Error::other(super::admission::Refused::TooLarge));
    }
    fs::read(&file.path)
}
