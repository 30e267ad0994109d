//! The turn of a call that waits for its place among others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Taken once: by the call when it begins, or by whoever waited for it and gives it up. So what is told as not begun never begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Whether it is the caller's.
    pub(crate) fn take(&self) -> bool {
        // The first to set it has its way; it guards no other memory.
        !self.0.swap(true, Ordering::Relaxed)
    }
}
