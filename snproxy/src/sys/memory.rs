//! Gives freed memory back to the kernel.

#![expect(
    unsafe_code,
    reason = "malloc_trim(3) and mallopt(3) have no safe wrappers"
)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Smallest block with pages of its own, which go with it. glibc's default, but glibc raises it with each larger block that
/// is freed, up to 32 MiB: then a reload leaves its texts and tables in the heaps of the threads that made them, and
/// `malloc_trim` does not shrink those. 61,000 mappings stay at 13.5 MiB instead of 22 MiB after five reloads (2026-11-21).
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 128 * 1024;

/// Whether the heap is ours alone.
static OURS: AtomicBool = AtomicBool::new(false);

/// Says that the heap is of snproxy alone, and lets large blocks go back to the kernel as soon as they are freed. Once,
/// before the first large one.
pub fn take_over() {
    OURS.store(true, Relaxed);
    // SAFETY: takes two numbers, and is thread-safe (mallopt(3)). It only fails for values out of range.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
    }
}

/// Returns free heap memory to the kernel: a reload frees much at once and nothing asks for it again.
///
/// Not where snproxy is a part of another program: what that one freed it may want again.
pub fn trim() {
    if !OURS.load(Relaxed) {
        return;
    }
    // SAFETY: takes a number, touches only free memory of the allocator, and is thread-safe (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
