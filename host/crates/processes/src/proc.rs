//! What the kernel tells of a process.

use std::fs;
use std::time::Duration;

/// How many units of processor time in `/proc` make a second. Programs always see this value,
/// whatever tick rate the kernel uses itself.
const USER_HZ: u64 = 100;

/// What `/proc/PID/stat` says.
pub(super) struct Stat {
    /// `R` runs, `S` sleeps, `Z` has ended; proc(5) has them all.
    pub(super) state: char,
    /// Processor time used, with all threads.
    pub(super) cpu_time: Duration,
    /// The process that started it, or took it over.
    pub(super) parent: i32,
    /// When it began, in units that count from the machine's start.
    pub(super) began: u64,
}

impl Stat {
    /// None if there is no such process.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything, even a parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Fields are numbered as in proc(5), where the state, the first one here, is the third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let (user, system) = (number(14)?, number(15)?);
        Some(Stat {
            state: fields.first()?.chars().next()?,
            cpu_time: Duration::from_millis((user + system) * 1000 / USER_HZ),
            parent: i32::try_from(number(4)?).ok()?,
            began: number(22)?,
        })
    }
}

/// Processor time that a process has used, with all its threads; none if it is gone.
pub fn cpu_time(pid: i32) -> Duration {
    Stat::of(pid).map_or(Duration::ZERO, |stat| stat.cpu_time)
}

/// Whether somebody stopped a process (SIGSTOP): it would do nothing with what it is given.
pub(super) fn is_stopped(pid: i32) -> bool {
    Stat::of(pid).is_some_and(|stat| matches!(stat.state, 'T' | 't'))
}

/// Memory that a process holds, in bytes; None if it is gone.
pub(super) fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something_and_one_that_is_not_there_nothing() {
        let pid = std::process::id().cast_signed();
        assert!(resident(pid).unwrap() > 1 << 20);
        while cpu_time(pid) < Duration::from_millis(10) {
            std::hint::black_box(pid);
        }
        let stat = Stat::of(pid).unwrap();
        assert!("RS".contains(stat.state) && stat.began > 0);
        assert_eq!((cpu_time(-1), resident(-1)), (Duration::ZERO, None));
    }
}
