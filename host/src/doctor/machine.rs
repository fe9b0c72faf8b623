//! The machine: folders, memory and the clock.

use std::path::Path;

use basics::{memory, ownership};
use rustix::fs::{Access, access, statvfs};

use super::{Finding, said};
use crate::config::Config;
use crate::failure::unix_now;

/// Less room than this on a disk is worth a warning: compiled guests take up to 512 MiB.
const ROOM_LEAST: u64 = 512 << 20;

/// 1 January 2026: no clock that is right tells an earlier time.
const EARLIEST: u64 = 1_767_225_600;

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = folders(config);
    findings.push(memory(config));
    findings.push(clock().await);
    findings
}

fn folders(config: &Config) -> Vec<Finding> {
    let guests = &config.guests;
    let folders = [
        ("guests_dir", Some(&guests.dir), false),
        ("cache_dir", guests.cache_dir.as_ref(), true),
        ("state_dir", guests.state_dir.as_ref(), true),
    ];
    let named = folders.into_iter();
    let named = named.filter_map(|(setting, folder, is_written)| {
        folder.map(|folder| self::folder(setting, folder, is_written))
    });
    named.collect()
}

/// A folder that the service reads, and that it also writes if `is_written`.
fn folder(setting: &str, folder: &Path, is_written: bool) -> Finding {
    let shown = folder.display();
    if !folder.exists() {
        return match is_written {
            true => Finding::ok(setting, format!("{shown} will be made")),
            false => Finding::ok(
                setting,
                format!("{shown} is not there, so the built-in guests serve"),
            ),
        };
    }
    if let Err(what) = ownership::check(folder) {
        return Finding::wrong(setting, what.to_string());
    }
    if is_written && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Finding::wrong(setting, format!("{shown} cannot be written"))
            .mended_by(format!("chmod u+rwx '{shown}'"));
    }
    match statvfs(folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)) {
        Ok(room) if is_written && room < ROOM_LEAST => {
            let room = room >> 20;
            Finding::warning(
                setting,
                format!("{shown} is on a disk with {room} MiB of room"),
            )
        }
        _ => Finding::ok(setting, shown.to_string()),
    }
}

fn memory(config: &Config) -> Finding {
    let check = "memory";
    let mib = |bytes: u64| bytes >> 20;
    let wanted = config.warm_memory;
    match memory::available() {
        None => Finding::unknown(check, "this machine does not tell how much is available"),
        Some(available) if available < wanted => Finding::warning(
            check,
            format!(
                "processes that wait may take {} MiB (`warm_memory`), and {} MiB are available",
                mib(wanted),
                mib(available)
            ),
        ),
        Some(available) => Finding::ok(
            check,
            format!(
                "{} MiB for processes that wait, of {} MiB that are available",
                mib(wanted),
                mib(available)
            ),
        ),
    }
}

async fn clock() -> Finding {
    let check = "clock";
    if unix_now() < EARLIEST {
        let what = "it is wrong: it tells a time before 2026, so every certificate fails";
        return Finding::wrong(check, what).mended_by("sudo timedatectl set-ntp true");
    }
    match said("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]).await {
        Some(told) if told == "yes" => Finding::ok(check, "set by the network"),
        Some(_) => {
            let what = "nothing sets it by the network: reset times of limits may be shown wrong";
            Finding::warning(check, what).mended_by("sudo timedatectl set-ntp true")
        }
        None => Finding::unknown(
            check,
            "this machine does not tell whether the network sets it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::State;
    use super::*;

    #[test]
    fn a_folder_that_others_can_write_is_wrong_and_says_what_mends_it() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("state");
        assert_eq!(folder("state_dir", &dir, true).state, State::Ok);
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(folder("state_dir", &dir, true).state, State::Ok);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let found = folder("state_dir", &dir, true);
        assert_eq!(found.state, State::Wrong);
        assert!(found.found.contains("`chmod go-w` it"), "{found:?}");
    }
}
