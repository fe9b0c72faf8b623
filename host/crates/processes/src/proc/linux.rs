//! What `/proc` tells; see proc(5).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::geteuid;

use super::Stat;

/// How many units of processor time in `/proc` make a second. Programs always see this value,
/// whatever tick rate the kernel uses itself.
const USER_HZ: u64 = 100;

/// What is known of a process; None if there is none.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, even a parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Fields are numbered as in proc(5), where the state, the first one here, is the third.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let (user, system) = (number(14)?, number(15)?);
    Some(Stat {
        has_ended: matches!(*fields.first()?, "Z" | "X"),
        cpu_time: Duration::from_millis((user + system) * 1000 / USER_HZ),
        parent: i32::try_from(number(4)?).ok()?,
        began: number(22)?,
    })
}

/// Memory that a process holds, in bytes; None if it is gone.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// The ids of all processes.
pub(crate) fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The variables that a process was started with, each with its value. None if they may not be read.
pub(crate) fn environment(pid: i32) -> Option<Vec<Vec<u8>>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = environment.split(|byte| *byte == 0);
    Some(variables.map(<[u8]>::to_vec).collect())
}

/// The program that a process runs. None if that may not be read.
pub(crate) fn program(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Whether a process is this user's, and its id means the same to it as to this process: in another namespace, such as
/// a container's, it means another process.
pub(crate) fn is_here(pid: i32) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
    let owner = fs::metadata(format!("/proc/{pid}")).map(|entry| entry.uid());
    owner.is_ok_and(|owner| owner == geteuid().as_raw())
        && namespace(&pid.to_string()) == namespace("self")
}
