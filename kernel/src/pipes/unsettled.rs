//! Messages of a pipe that may come back: while there are some, nobody is told that the pipe is at its end.
//!
//! A read that may give back what it takes is counted from before it looks until it is known what becomes of it. So nothing comes back to a pipe that is found empty
//! while none is counted, neither before that look nor behind it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::pipe::Pipe;

/// One that is counted, and one that has ever been.
const ONE: u64 = 1 | 1 << 32;

/// The reads of a pipe that may give back what they take.
#[derive(Default)]
pub(super) struct Unsettled {
    /// How many there are (the lower half), and how many there were (the upper half, which wraps).
    count: AtomicU64,
    /// Whether somebody waits for there being none. Who does says so and looks at the count; who is counted no longer looks at this: so one of them sees the other.
    is_awaited: AtomicBool,
}

impl Unsettled {
    /// What is so while nothing can come back, but from those `own` reads of who asks; none when something can: who waits is called when it cannot any more.
    pub(super) fn none_but(&self, own: u64) -> Option<u64> {
        let look =
            || Some(self.count.load(Ordering::SeqCst)).filter(|count| count & u64::from(u32::MAX) <= own);
        look().or_else(|| {
            self.is_awaited.store(true, Ordering::SeqCst);
            look()
        })
    }

    /// Whether it has been so all the time.
    pub(super) fn is_still(&self, then: u64) -> bool {
        self.count.load(Ordering::SeqCst) == then
    }

    /// It is known what becomes of a read that was counted. Says whether to call who waits for the end.
    pub(super) fn settle(&self) -> bool {
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        before & u64::from(u32::MAX) == 1 && self.is_awaited.swap(false, Ordering::SeqCst)
    }
}

/// A read that looks, and is counted.
pub(super) struct Looking<'a>(&'a Pipe);

impl<'a> Looking<'a> {
    pub(super) fn begin(pipe: &'a Pipe) -> Self {
        pipe.unsettled.count.fetch_add(ONE, Ordering::SeqCst);
        Self(pipe)
    }

    /// It has taken something, and is counted on until it is known what becomes of that.
    pub(super) fn has_taken(self) {
        std::mem::forget(self);
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.settle();
    }
}
