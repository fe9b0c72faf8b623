//! How much of the processor a thread gets beside others.

/// The shortest time for which Linux lets a thread run before it looks whether another one is due, in nanoseconds.
#[cfg(target_os = "linux")]
const SHORTEST_SLICE: u64 = 100_000;

/// Has this thread give way to others: `nice` is as for the program of this name, and on Linux from 6.12 on, another thread
/// that wakes need not wait until a slice of some milliseconds is used up. Where the system does not let it, the thread is as
/// important as the others. Elsewhere than on Linux nothing happens, because it would be said of the whole process.
pub fn give_way(nice: i32) {
    #[cfg(target_os = "linux")]
    {
        let attributes = libc::sched_attr {
            size: size_of::<libc::sched_attr>() as u32,
            sched_policy: libc::SCHED_OTHER as u32,
            sched_flags: 0,
            sched_nice: nice,
            sched_priority: 0,
            sched_runtime: SHORTEST_SLICE,
            sched_deadline: 0,
            sched_period: 0,
        };
        #[expect(
            unsafe_code,
            reason = "a call of the kernel that libc has no function for"
        )]
        // SAFETY: the kernel reads the attributes, whose size they tell, and nothing else. 0 is this thread.
        let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}
