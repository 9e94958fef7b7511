//! Gives freed memory back to the kernel.

#![expect(unsafe_code, reason = "malloc_trim(3) has no safe wrapper")]

/// Returns free heap memory to the kernel: a reload frees much at once and nothing asks for it again.
pub fn trim() {
    // SAFETY: takes a number, touches only free memory of the allocator, and is thread-safe (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
