//! What a service publishes of itself.

use std::fmt;
use std::sync::Arc;

use nexus_actors::{Snap, Superseded};

/// The view of a service: what inline hooks and direct calls look at. It outlives the actor that published it, so a crashed service still
/// answers what its view can answer.
pub struct Published<V>(Snap<Option<Arc<V>>>);

impl<V: Send + Sync + 'static> Published<V> {
    pub(crate) fn new() -> Self {
        Self(Snap::new(None))
    }

    /// Makes `view` what everybody sees from now on. `writer` is the incarnation that publishes.
    ///
    /// # Errors
    /// [`Superseded`] when a later incarnation has published; nothing has changed then, and the caller is a ghost.
    pub fn publish(&self, writer: u64, view: impl Into<Arc<V>>) -> Result<(), Superseded> {
        self.0.publish(writer, Some(view.into()))
    }

    /// What was published last; none before the first time.
    pub fn get(&self) -> Option<Arc<V>> {
        self.0.read(Clone::clone)
    }
}

impl<V> fmt::Debug for Published<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").finish_non_exhaustive()
    }
}
