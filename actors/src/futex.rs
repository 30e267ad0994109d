//! The system's way for a thread to sleep at a word until another one wakes it.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex;

/// Sleeps while the word is `expected`, for at most so long. May return early: whoever sleeps looks by itself.
pub(crate) fn sleep(word: &AtomicU32, flags: futex::Flags, expected: u32, most: Option<Duration>) {
    let most = most.map(|most| rustix::fs::Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    });
    // It has changed, or somebody woke, or it took too long.
    let _ = futex::wait(word, flags, expected, most.as_ref());
}

/// Wakes at most `count` of those who sleep at the word.
pub(crate) fn wake(word: &AtomicU32, flags: futex::Flags, count: u32) {
    // Nobody sleeps at an address that is mapped and yet cannot be waked: there is no other error.
    let _ = futex::wake(word, flags, count);
}
