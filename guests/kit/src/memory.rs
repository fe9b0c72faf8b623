//! Where a guest's memory comes from.
//!
//! The allocator is that of Rust's standard library for WebAssembly, but it begins with the memory that the component
//! was linked with. The standard one asks for more at its first allocation. The host then changes the protection of
//! pages, and again for the next instance, which begins small: two system calls, 4 µs a request.

#![allow(unsafe_code, reason = "an allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::memory_grow;
use core::cell::{Cell, UnsafeCell};

use dlmalloc::Dlmalloc;

/// The pages of WebAssembly.
const PAGE: usize = 64 << 10;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(UnsafeCell::new(Dlmalloc::new_with_allocator(Pages {
    is_first: Cell::new(true),
})));

struct Allocator(UnsafeCell<Dlmalloc<Pages>>);

/// Gives the allocator whole pages.
struct Pages {
    /// Whether the memory that the component was linked with is still to be given.
    is_first: Cell<bool>,
}

unsafe extern "C" {
    /// Where the linker's memory for the heap begins and ends; only their addresses have meaning.
    static __heap_base: u8;
    static __heap_end: u8;
}

// SAFETY: a guest has one thread.
unsafe impl Sync for Allocator {}

// SAFETY: all is left to `Dlmalloc`. Nobody else has it: a guest has one thread, and `Dlmalloc` calls no one who would
// come back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { (*self.0.get()).free(at, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { (*self.0.get()).realloc(at, layout.size(), layout.align(), size) }
    }
}

// SAFETY: each piece of memory is given once, and is the guest's for ever. What is behind the heap's base was never
// written to, and new pages are zero.
unsafe impl dlmalloc::Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let first = &raw const __heap_base;
        let room = (&raw const __heap_end).addr() - first.addr();
        if self.is_first.get() && size <= room {
            self.is_first.set(false);
            return (first.cast_mut(), room, 0);
        }
        let pages = size.div_ceil(PAGE);
        match memory_grow::<0>(pages) {
            usize::MAX => (core::ptr::null_mut(), 0, 0),
            // The last bytes of the address space are not given, so that no pointer comes back to its beginning.
            before if (before + pages).wrapping_mul(PAGE) == 0 => {
                ((before * PAGE) as *mut u8, pages * PAGE - 16, 0)
            }
            before => ((before * PAGE) as *mut u8, pages * PAGE, 0),
        }
    }

    fn remap(&self, _at: *mut u8, _before: usize, _size: usize, _may_move: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, _at: *mut u8, _before: usize, _size: usize) -> bool {
        false
    }

    fn free(&self, _at: *mut u8, _size: usize) -> bool {
        false
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}
