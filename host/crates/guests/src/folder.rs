//! Finds components in the guests' folder.
//!
//! The folder is listed at each visit. That needs no support of the file system, and it sees every kind of
//! change: renames, writes in place, links that are swapped, and a folder that is made or removed. A file is
//! read once its stamp has not changed between two visits, so that one that is still being written is left
//! alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use basics::file_stamp::FileStamp;
use basics::ownership;

use super::admit::COMPONENT_MAX;

/// With this flag, opening something that is not a regular file (a pipe, say) does not wait.
const O_NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// A component on disk.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) stamp: FileStamp,
}

/// What is in the folder.
#[derive(Default)]
pub(crate) struct Listing {
    /// The files `NAME.wasm`, by name.
    pub(crate) files: BTreeMap<String, File>,
    /// How many files have a name that no guest may have.
    pub(crate) odd_names: usize,
}

/// Lists a folder. A missing folder counts as empty.
///
/// # Errors
///
/// Fails if the folder cannot be read, so that it is not known what is in it, or if others can write it.
pub(crate) fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
        entries => entries?,
    };
    ownership::check(folder).map_err(io::Error::other)?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix(".wasm")) else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        if !is_guest_name(name) {
            listing.odd_names += 1;
        } else if let Some(stamp) = FileStamp::of(&path) {
            let file = File {
                path: path.clone(),
                stamp,
            };
            listing.files.insert(name.to_owned(), file);
        }
    }
    Ok(listing)
}

/// Whether a guest may have this name, which logs and `/health` show.
pub(crate) fn is_guest_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// Reads a component. Fails if the file is too large, or if it is no longer the regular file that was listed:
/// reading something else, such as a pipe, could take for ever.
pub(crate) fn read(file: &File) -> io::Result<Vec<u8>> {
    ownership::check(&file.path).map_err(io::Error::other)?;
    let open = fs::OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(&file.path)?;
    let metadata = open.metadata()?;
    if !metadata.is_file() || !file.stamp.is_same_file(&metadata) {
        return Err(io::Error::other("it is being replaced"));
    }
    let mut bytes = Vec::new();
    open.take(COMPONENT_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > COMPONENT_MAX {
        return Err(io::Error::other(super::admit::Refused::TooLarge));
    }
    Ok(bytes)
}
