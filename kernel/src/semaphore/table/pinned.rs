//! What keeps a lock from being given to others while something is written under it.

use std::sync::Arc;

use super::{Filed, Inner};
use crate::semaphore::places::Moved;

/// A write that was let pass because of the lock under which it is made. Until this is dropped nobody else is given that lock.
pub(crate) struct Pinned<K: Filed> {
    pub(super) table: Arc<Inner<K>>,
    pub(super) key: K,
    pub(super) token: u64,
}

impl<K: Filed> Drop for Pinned<K> {
    fn drop(&mut self) {
        self.table.with(&self.key, |inner, part, woken| {
            let mut moved = Moved::default();
            part.places.unpin(&self.key, self.token, &inner.tokens, inner.clock.now(), &mut moved);
            inner.settle(part, moved, woken);
        });
    }
}
