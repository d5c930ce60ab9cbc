//! Asks the processor for a cache line ahead of its use. The one place of this crate with unsafe.
//!
//! A prefetch changes nothing that a program can see: no value, no fault; only the time.

/// Prefetches the line that holds `words[at]`; does nothing if there is no such word.
#[inline(always)]
pub(crate) fn prefetch(words: &[u32], at: usize) {
    if let Some(word) = words.get(at) {
        prefetch_line(word);
    }
}

/// Prefetches the line in which `item` begins.
#[inline(always)]
#[allow(unsafe_code)]
pub fn prefetch_line<T>(item: &T) {
    let address = core::ptr::from_ref(item);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the address comes from a live reference, and the instruction reads nothing into
    // the program, writes nothing and cannot fault. SSE is part of every x86-64.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: the address comes from a live reference; PRFM is a hint that reads nothing into
    // the program, writes nothing, cannot fault and leaves stack and flags alone.
    unsafe {
        core::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(readonly, nostack, preserves_flags)
        );
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}
