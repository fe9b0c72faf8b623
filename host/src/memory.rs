//! What the C library's allocator keeps of memory that nobody uses.

/// How many arenas there are for all threads. Each grows to the most that its threads ever held at
/// once, and glibc makes eight for each core: with these, the service still grew after 30,000 requests,
/// with two not any more, and no slower.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 2;

/// Has all threads share a few arenas. To be called before there are any.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: it takes two numbers, and no other thread allocates yet. If it refuses, all is as
        // it was.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}

/// Gives back what is free: after compiling a guest, some 20 MB.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: it takes a number, and may be called at any time by any thread.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
