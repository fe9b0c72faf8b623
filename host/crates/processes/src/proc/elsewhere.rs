//! What the library `sysinfo` tells, where there is no `/proc`.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::geteuid;
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::Stat;

/// What is known of a process; None if there is none.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    look(pid, ProcessRefreshKind::nothing().with_cpu(), |process| {
        let parent = process.parent().map_or(0, Pid::as_u32);
        Some(Stat {
            has_ended: matches!(
                process.status(),
                ProcessStatus::Zombie | ProcessStatus::Dead
            ),
            cpu_time: Duration::from_millis(process.accumulated_cpu_time()),
            parent: parent.cast_signed(),
            began: process.start_time(),
        })
    })
}

/// Memory that a process holds, in bytes; None if it is gone.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let memory = ProcessRefreshKind::nothing().with_memory();
    look(pid, memory, |process| Some(process.memory()))
}

/// The ids of all processes.
pub(crate) fn all() -> impl Iterator<Item = i32> {
    let system = System::new().map(|mut system| {
        let nothing = ProcessRefreshKind::nothing();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, nothing);
        system
    });
    let ids = system.iter().flat_map(|system| system.processes().keys());
    let ids: Vec<i32> = ids.map(|pid| pid.as_u32().cast_signed()).collect();
    ids.into_iter()
}

/// The variables that a process was started with, each with its value. None if they may not be read.
pub(crate) fn environment(pid: i32) -> Option<Vec<Vec<u8>>> {
    let variables = ProcessRefreshKind::nothing().with_environ(UpdateKind::Always);
    look(pid, variables, |process| {
        let variables = process.environ().iter();
        Some(
            variables
                .map(|variable| variable.as_bytes().to_vec())
                .collect(),
        )
    })
}

/// The program that a process runs. None if that may not be read.
pub(crate) fn program(pid: i32) -> Option<PathBuf> {
    let program = ProcessRefreshKind::nothing().with_exe(UpdateKind::Always);
    look(pid, program, |process| process.exe().map(Into::into))
}

/// Whether a process is this user's.
pub(crate) fn is_here(pid: i32) -> bool {
    let user = ProcessRefreshKind::nothing().with_user(UpdateKind::Always);
    let owner = look(pid, user, |process| process.effective_user_id().cloned());
    owner.is_some_and(|owner| *owner == geteuid().as_raw())
}

fn look<T>(
    pid: i32,
    what: ProcessRefreshKind,
    read: impl FnOnce(&sysinfo::Process) -> Option<T>,
) -> Option<T> {
    let pid = Pid::from_u32(u32::try_from(pid).ok()?);
    let mut system = System::new().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
    read(system.process(pid)?)
}
