//! Whether anybody else can change a file that decides what this program does.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

/// Why a file cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum NotOurs {
    /// It, or a folder above it, belongs to somebody who is neither this user nor root.
    #[error("{} belongs to another user (uid {owner}): `chown` it to the user of this service, or name that user in CLAUDE_HARNESS_TRUSTED_UIDS", path.display())]
    Owner {
        /// The place.
        path: PathBuf,
        /// The id of the user it belongs to.
        owner: u32,
    },
    /// It, or a folder above it, can be written by others.
    #[error("{} can be written by other users (mode {mode:o}): `chmod go-w` it", path.display())]
    Writable {
        /// The place.
        path: PathBuf,
        /// Its mode, as `chmod` takes it.
        mode: u32,
    },
    /// It cannot be looked at.
    #[error("cannot look at {}: {source}", path.display())]
    Unknown {
        /// The place.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Checks that nobody but this user and root can change what is at `path`, or put something else in
/// its place: its owner and mode, those of all folders above it, and those of wherever links on the way
/// lead.
///
/// Users whom the operator names in `CLAUDE_HARNESS_TRUSTED_UIDS`, such as the owner of a container's
/// mounted files, are as good as root.
///
/// # Errors
///
/// Names the first place that somebody else can change, and the command that mends it.
pub fn check(path: &Path) -> Result<(), NotOurs> {
    let named = std::path::absolute(path).map_err(|source| NotOurs::Unknown {
        path: path.to_owned(),
        source,
    })?;
    check_from(&named, LINKS_MAX)
}

/// The most links in a row, as the kernel has it.
const LINKS_MAX: u32 = 40;

fn check_from(path: &Path, links: u32) -> Result<(), NotOurs> {
    // Seen from the file upwards: whether a place below was this user's own.
    let mut below_is_ours = false;
    for place in path.ancestors() {
        let unknown = |source| NotOurs::Unknown {
            path: place.to_owned(),
            source,
        };
        let metadata = fs::symlink_metadata(place).map_err(unknown)?;
        let owner = metadata.uid();
        let is_roots = || below_is_ours && is_unmapped_root(owner);
        if !is_trusted(owner) && !is_roots() {
            return Err(NotOurs::Owner {
                path: place.to_owned(),
                owner,
            });
        }
        below_is_ours |= owner == geteuid().as_raw();
        if metadata.is_symlink() {
            let target = fs::read_link(place).map_err(unknown)?;
            let target = place.parent().unwrap_or(place).join(target);
            let again = links
                .checked_sub(1)
                .ok_or_else(|| unknown(io::Error::other("too many links")))?;
            check_from(&target, again)?;
            continue;
        }
        // In a folder like /tmp others can write, but not change what is not theirs.
        let is_shared = metadata.is_dir() && metadata.mode() & 0o1000 != 0 && place != path;
        if others_write(&metadata) && !is_shared {
            return Err(NotOurs::Writable {
                path: place.to_owned(),
                mode: metadata.mode() & 0o7777,
            });
        }
    }
    Ok(())
}

/// Whether somebody else may write. Permission for all others always counts. Permission for a group counts on
/// this user's own files, where it is probably an accident of the umask, unless the group is this user's
/// private one or this user is root. On root's files it is taken for root's decision.
fn others_write(metadata: &Metadata) -> bool {
    let us = geteuid().as_raw();
    let by_group = metadata.mode() & 0o020 != 0
        && metadata.uid() == us
        && us != 0
        && !is_private_group(metadata.gid());
    metadata.mode() & 0o002 != 0 || by_group
}

/// Whether a group is this user's alone, as most systems make one for each user: with the same number, or
/// with the same name.
fn is_private_group(group: u32) -> bool {
    let us = geteuid().as_raw();
    let name_in = |file: &str, number: u32| {
        let text = fs::read_to_string(file).ok()?;
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let line =
            lines.find(|fields| fields.get(2).is_some_and(|id| *id == number.to_string()))?;
        Some((*line.first()?).to_owned())
    };
    let same_name = || Some(name_in("/etc/passwd", us)? == name_in("/etc/group", group)?);
    group == getegid().as_raw() && (group == us || same_name().unwrap_or(false))
}

/// Whether an owner is this user, root, or named by the operator.
fn is_trusted(owner: u32) -> bool {
    let named = || std::env::var("CLAUDE_HARNESS_TRUSTED_UIDS").unwrap_or_default();
    let is_named = || {
        named()
            .split(',')
            .any(|uid| uid.trim().parse() == Ok(owner))
    };
    owner == geteuid().as_raw() || owner == 0 || is_named()
}

/// Whether files of this `owner` may be root's. In a user namespace without root (systemd's `PrivateUsers`) the
/// files of all other users, root among them, seem to belong to `nobody`. The caller therefore trusts such an
/// owner only for folders above something that belongs to this user, such as the folders above its home.
fn is_unmapped_root(owner: u32) -> bool {
    /// The kernel's number for users that a namespace does not know.
    const OVERFLOW: u32 = 65534;
    let map = || fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let has_root = |map: &str| {
        map.lines()
            .any(|line| line.split_whitespace().next() == Some("0"))
    };
    owner == OVERFLOW && fs::metadata("/").is_ok_and(|m| m.uid() == OVERFLOW) && !has_root(&map())
}

/// Checks a folder in which others may make files of their own, such as /tmp, but must not be able to
/// change those of this program.
///
/// # Errors
///
/// Names the first place that somebody else can change.
pub fn check_shared(folder: &Path) -> Result<(), NotOurs> {
    // `check` accepts a folder like /tmp only above the path that it is given. Here such a folder is that path
    // itself, because the files in it need not be there yet.
    match check(folder) {
        Err(NotOurs::Writable { path, mode }) if path == folder && mode & 0o1000 != 0 => Ok(()),
        result => result,
    }
}

/// Whether other users can read a file.
pub fn others_read(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_can_write_is_not_ours() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("file");
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        mode(&folder, 0o755);
        mode(&file, 0o644);
        check(&file).unwrap();
        mode(&file, 0o646);
        assert!(matches!(check(&file), Err(NotOurs::Writable { .. })));
        mode(&file, 0o644);
        mode(&folder, 0o777);
        let error = check(&file).unwrap_err().to_string();
        assert!(
            error.contains("folder can be written by other users (mode 777)"),
            "{error}"
        );
        mode(&folder, 0o1777);
        check(&file).unwrap();
        // A link in a sound folder to one that is not.
        mode(&folder, 0o777);
        let link = base.path().join("link");
        symlink(&file, &link).unwrap();
        assert!(check(&link).is_err());
        // And one between links.
        let (first, sound) = (base.path().join("first"), base.path().join("sound"));
        fs::write(&sound, "").unwrap();
        symlink(&sound, folder.join("between")).unwrap();
        symlink(folder.join("between"), &first).unwrap();
        assert!(check(&first).is_err());
        assert!(matches!(
            check(&base.path().join("none")),
            Err(NotOurs::Unknown { .. })
        ));
    }

    #[test]
    fn what_belongs_to_others_is_not_ours() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        // Only root can give a file away.
        if std::os::unix::fs::chown(&file, Some(12345), None).is_ok() && geteuid().as_raw() != 12345
        {
            assert!(matches!(
                check(&file),
                Err(NotOurs::Owner { owner: 12345, .. })
            ));
        }
    }
}
