//! What a process takes, as the kernel tells it.

use std::fs;
use std::time::Duration;

/// The unit of processor time in `/proc`, in hertz: fixed for programs, whatever the kernel's own.
const USER_HZ: u64 = 100;

/// Processor time that a process has used, with all its threads; none if it is gone.
pub(crate) fn cpu_time(pid: i32) -> Duration {
    let used = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything, even a parenthesis.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_millis((user + system) * 1000 / USER_HZ))
    };
    used().unwrap_or_default()
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
        assert_eq!((cpu_time(-1), resident(-1)), (Duration::ZERO, None));
    }
}
