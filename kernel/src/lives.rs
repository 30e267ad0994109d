//! The lives of those who call: what is tied to one goes when it ends.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use nexus_messages::LifeId;

use crate::kernel::Kernel;

/// Gives lives their identities, none of them twice.
#[derive(Debug)]
pub(crate) struct Lives(AtomicU64);

impl Default for Lives {
    fn default() -> Self {
        Self(AtomicU64::new(LifeId::KERNEL.0 + 1))
    }
}

impl Lives {
    /// A life that somebody else ends.
    pub(crate) fn begin(&self) -> LifeId {
        // Relaxed: nothing but the number itself is told by it.
        LifeId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A life, which ends when this is dropped. Its holder puts the identity into the [`Caller`](nexus_messages::Caller)s for whom it vouches.
pub struct Life {
    kernel: Weak<Kernel>,
    id: LifeId,
}

impl Life {
    pub(crate) fn begin(kernel: &Arc<Kernel>) -> Self {
        Self { kernel: Arc::downgrade(kernel), id: kernel.lives().begin() }
    }

    /// Its identity.
    pub fn id(&self) -> LifeId {
        self.id
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.end_life(self.id);
        }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Life").field(&self.id.0).finish()
    }
}
