//! The lives of those who call: what is tied to one goes when it ends.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use nexus_messages::LifeId;
use parking_lot::Mutex;

use crate::kernel::Kernel;

/// Gives lives their identities, none of them twice, and knows which of them go on.
#[derive(Debug)]
pub(crate) struct Lives {
    next: AtomicU64,
    going_on: Mutex<HashSet<LifeId>>,
}

impl Default for Lives {
    fn default() -> Self {
        Self { next: AtomicU64::new(LifeId::KERNEL.0 + 1), going_on: Mutex::default() }
    }
}

impl Lives {
    /// A life that goes on until [`Kernel::finish_life`].
    pub(crate) fn begin(&self) -> LifeId {
        // Relaxed: nothing but the number itself is told by it.
        let id = LifeId(self.next.fetch_add(1, Ordering::Relaxed));
        self.going_on.lock().insert(id);
        id
    }

    /// Whether this life goes on; the kernel's own does. Who ties something to it looks afterwards: either this says that it has ended, or its end finds what is tied.
    pub(crate) fn goes_on(&self, id: LifeId) -> bool {
        id == LifeId::KERNEL || self.going_on.lock().contains(&id)
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
            kernel.finish_life(self.id);
        }
    }
}

impl Kernel {
    /// A life has ended: what is tied to it is let go of, and nothing is tied to it any more. Does not wait; may be repeated.
    pub(crate) fn finish_life(&self, id: LifeId) {
        self.lives().going_on.lock().remove(&id);
        self.end_life(id);
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Life").field(&self.id.0).finish()
    }
}
