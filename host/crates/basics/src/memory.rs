//! The memory of this machine, and what the C library's allocator keeps of it that nobody uses.

/// How many arenas there are for all threads. Each grows to the most that its threads ever held at
/// once, and glibc makes eight for each core: with these, the service still grew after 30,000 requests,
/// with two not any more, and no slower.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 2;

/// What is as large as this, in bytes, is mapped by itself, and so goes back to the system when it is
/// freed: bodies and prompts. Said explicitly, because glibc otherwise raises it to the size of the
/// largest one that was ever freed, up to 32 MiB, and keeps those.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 256 << 10;

/// Has all threads share a few arenas, and large pieces go back when they are free. To be called before
/// there are any threads.
pub fn bound() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, ARENAS),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
    ] {
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: it takes two numbers, and no other thread allocates yet. If it refuses, all is as
        // it was.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what is free: after compiling a guest, some 20 MB.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: it takes a number, and may be called at any time by any thread.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

/// The memory that new programs can have without others being swapped out, in bytes, as the kernel estimates it. None if
/// it does not tell.
pub fn available() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
