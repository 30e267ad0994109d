//! The identities and tokens of what is given.

use crossbeam_utils::CachePadded;
use nexus_messages::LockId;

use crate::locks::sync::{AtomicU64, Ordering};
use crate::semaphore::places::Issue;

/// Gives identities and tokens.
pub(crate) struct Tokens {
    /// By itself in its line of the cache: each grant of any part changes it.
    next: CachePadded<AtomicU64>,
    /// What may be given ends here: from there on nothing is known to be reserved.
    end: AtomicU64,
    salt: Box<dyn Fn(u64) -> u64 + Send + Sync>,
}

impl Tokens {
    /// Tokens from `next` on, below `end`. `salt` gives each token a number that nobody can guess.
    pub(crate) fn new(next: u64, end: u64, salt: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        let next = CachePadded::new(AtomicU64::new(next));
        Self { next, end: AtomicU64::new(end), salt: Box::new(salt) }
    }

    /// Whether at least so many can be given.
    pub(crate) fn has(&self, count: u64) -> bool {
        // Relaxed: who has reserved more hands it to those who ask for it through the future that waited for it.
        self.next.load(Ordering::Relaxed).saturating_add(count) <= self.end.load(Ordering::Relaxed)
    }

    /// Gives none up to `token` any more: that was given by another process.
    pub(super) fn pass(&self, token: u64) {
        self.next.fetch_max(token.saturating_add(1), Ordering::Relaxed);
    }

    /// Gives those from `from` to `end` next, unless it is beyond them already.
    pub(crate) fn reserve(&self, from: u64, end: u64) {
        self.next.fetch_max(from, Ordering::Relaxed);
        self.end.fetch_max(end, Ordering::Relaxed);
    }
}

impl Issue for Tokens {
    fn issue(&self) -> (LockId, u64) {
        // Relaxed: each addition gives another number, and of two grants at one key the mutex tells which is the later.
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        (LockId(u128::from((self.salt)(token)) << 64 | u128::from(token)), token)
    }
}
