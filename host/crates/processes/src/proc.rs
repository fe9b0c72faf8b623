//! What the system tells of a process.

use std::time::Duration;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
use elsewhere as system;

pub(super) use system::{all, environment, is_here, program, resident};

/// What is known of a process.
pub(super) struct Stat {
    /// Whether it has ended and is only still listed.
    pub(super) has_ended: bool,
    /// Processor time used, with all threads.
    pub(super) cpu_time: Duration,
    /// The process that started it, or took it over.
    pub(super) parent: i32,
    /// When it began, in units that only grow.
    pub(super) began: u64,
}

impl Stat {
    /// None if there is no such process.
    pub(super) fn of(pid: i32) -> Option<Self> {
        system::stat(pid)
    }
}

/// Processor time that a process has used, with all its threads; none if it is gone.
pub fn cpu_time(pid: i32) -> Duration {
    Stat::of(pid).map_or(Duration::ZERO, |stat| stat.cpu_time)
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
        assert!(!stat.has_ended && stat.began > 0);
        assert_eq!((cpu_time(-1), resident(-1)), (Duration::ZERO, None));
    }
}
