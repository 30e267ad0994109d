//! Published state: one writer publishes immutable snapshots, everybody else looks at the newest.
//!
//! The snapshot outlives its writer: when the actor that publishes is dead, readers go on with what it published last,
//! and its next incarnation may start from it. Each publish carries the generation of its writer, and a generation that
//! was overtaken is refused, so no ghost of a dead actor writes.

use crate::epoch::EpochPtr;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};
use std::fmt;
use std::sync::Arc;

/// The newest snapshot of some state that an actor owns.
///
/// Reading is a pin and a load: no lock, no shared write, never a wait, whatever the writer does. A replaced snapshot is
/// dropped soon after its last reader is gone, on whichever thread comes by, so `T` should be plain data whose drop
/// neither blocks nor panics. What must be torn down in order belongs into a [`Slot`](crate::Slot).
pub struct Snap<T> {
    current: EpochPtr<T>,
    /// Invariant: raised after `current` was replaced, so a version that was seen promises at least its snapshot.
    version: AtomicU64,
    /// The newest generation that published or claimed. Invariant: `current` changes under this lock alone.
    newest_writer: Mutex<u64>,
}

/// A writer came too late: a newer generation has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("generation {writer} was superseded by generation {newest}")]
pub struct Superseded {
    /// The generation that was refused.
    pub writer: u64,
    /// The newest one that the snapshot has heard of.
    pub newest: u64,
}

impl<T: Send + Sync + 'static> Snap<T> {
    /// A cell with a first snapshot, of version 0. Any generation may publish the next.
    pub fn new(value: T) -> Self {
        Self {
            current: EpochPtr::new(Arc::new(value)),
            version: AtomicU64::new(0),
            newest_writer: Mutex::new(0),
        }
    }

    /// Looks at the newest snapshot, for as long as `look` runs. Never waits; several looks may nest.
    ///
    /// `look` must not block: while it runs, replaced snapshots of the whole process stay in memory. Use
    /// [`get`](Self::get) to keep one.
    #[inline]
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.current.pin().load())
    }

    /// An owner of the newest snapshot, which may be kept over an await. Costs a shared reference count.
    pub fn get(&self) -> Arc<T> {
        self.current.get()
    }

    /// How often something was published. Changes after the snapshot did: who sees version `n` and then reads finds the
    /// snapshot of `n` or a newer one.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire) // Pairs with the release in `publish`.
    }

    /// Makes `value` the snapshot that every later look finds.
    ///
    /// `writer` is the generation of the actor that publishes. Blocks only while another writer publishes, for a few
    /// instructions. Publishing the same again is harmless.
    ///
    /// # Errors
    /// [`Superseded`] when a newer generation has published or [claimed](Self::claim); nothing has changed then.
    pub fn publish(&self, writer: u64, value: T) -> Result<(), Superseded> {
        let value = Arc::new(value);
        let pinned = self.current.pin(); // Before the lock: a pin may run destructors.
        {
            let mut newest = lock(&self.newest_writer);
            raise(&mut newest, writer)?;
            pinned.swap(value);
            self.version.fetch_add(1, Ordering::Release);
        }
        pinned.collect();
        Ok(())
    }

    /// Takes the pen: from now on older generations are refused, even before `writer` has published anything. Returns
    /// the snapshot to start from; it cannot change any more except by `writer` and its successors.
    ///
    /// # Errors
    /// [`Superseded`] when `writer` itself is an old one.
    pub fn claim(&self, writer: u64) -> Result<Arc<T>, Superseded> {
        let pinned = self.current.pin(); // Before the lock, as above.
        let mut newest = lock(&self.newest_writer);
        raise(&mut newest, writer)?;
        Ok(pinned.load().to_arc())
    }
}

fn raise(newest: &mut u64, writer: u64) -> Result<(), Superseded> {
    if writer < *newest {
        return Err(Superseded { writer, newest: *newest });
    }
    *newest = writer;
    Ok(())
}

impl<T: Default + Send + Sync + 'static> Default for Snap<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for Snap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|value| {
            f.debug_struct("Snap").field("version", &self.version()).field("value", value).finish()
        })
    }
}

#[cfg(all(test, not(nexus_loom)))]
mod tests;

#[cfg(all(test, nexus_loom))]
mod loom_tests;
