//! The head of an HTTP/1 request, for which Pingora takes a MiB.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Longest head of an HTTP/1 request, bytes; the queue-proxy takes no more either. What is not whole
/// is not held yet, and in no budget.
const MAX_HEAD: usize = 64 << 10;

/// Whether what is read belongs to the head of a request, which Pingora tells the request only.
#[derive(Debug, Default)]
pub(super) struct Head {
    is_whole: AtomicBool,
    /// Read while it was not.
    bytes: AtomicUsize,
}

// === impl Head ===

impl Head {
    /// It is whole, or that of the next request begins.
    pub(super) fn set_whole(&self, is_whole: bool) {
        self.is_whole.store(is_whole, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Whether it is too long, with `more` bytes that were read now.
    pub(super) fn is_too_long(&self, more: usize) -> bool {
        let is_whole = self.is_whole.load(Ordering::Relaxed);
        !is_whole && self.bytes.fetch_add(more, Ordering::Relaxed) + more > MAX_HEAD
    }
}
