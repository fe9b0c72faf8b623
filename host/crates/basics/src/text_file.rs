//! Reads small text files that the operator names.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::ownership;

/// The largest file, in bytes. A template and a recorded dialogue have some kilobytes.
pub const FILE_MAX: u64 = 1 << 20;

/// The text of a file.
///
/// # Errors
///
/// Names the file and what is wrong with it: it cannot be read, is no regular file, is too large or no UTF-8, or
/// others can change it.
pub fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("cannot read {shown}: {error}");
    // A FIFO is not opened: that would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    ownership::check(path).map_err(|what| what.to_string())?;
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let size = file.take(FILE_MAX + 1).read_to_end(&mut text);
    if size.map_err(unreadable)? as u64 > FILE_MAX {
        return Err(format!("{shown} is larger than {} MiB", FILE_MAX >> 20));
    }
    String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{shown} is not UTF-8: byte {at}")
    })
}
