//! glibc's allocator, set for a daemon that is to stay small. By default each thread gets an arena of its own, and an
//! arena keeps most of the memory that was ever in use in it. Elsewhere (musl) there is nothing to set.

/// Buffers from this size on are mapped one by one, and returned when they are freed: pages of metrics, BTF. glibc's
/// own default, which otherwise grows to the largest buffer that was freed.
const MAPPED_FROM: i32 = 128 * 1024;

/// Sets one arena for all threads. To be called before there are other threads.
pub fn limit() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers and keeps no pointer.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}

/// Returns freed memory to the kernel.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and touches freed memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
