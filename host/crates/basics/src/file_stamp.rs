//! Tells whether a file has changed since it was last looked at.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the file system says of a file; it changes whenever the file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of a regular file; `None` if there is none at this path.
    pub fn of(path: &Path) -> Option<FileStamp> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether it is the stamp of the file that `metadata` describes, whatever was written to it since.
    pub fn is_same_file(&self, metadata: &fs::Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }
}
