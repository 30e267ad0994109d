//! An end of a pipe that somebody has opened, and what waits through it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use nexus_actors::Latch;
use nexus_messages::LifeId;

use super::pipe::Refusal;

/// An end that somebody has opened. It is closed by [`PipeTable::close_end`](super::PipeTable::close_end).
#[derive(Debug, Clone)]
pub(crate) struct OpenEnd {
    pub(super) number: u64,
    pub(super) closing: Arc<Closing>,
    pub(super) life: LifeId,
}

impl OpenEnd {
    /// The number that it has among the ends of its pipe.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it was closed with the life of its owner.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_closed()
    }

    /// As [`Closing::unless_closed`].
    pub(crate) async fn unless_closed<T>(
        &self,
        waits: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        self.closing.unless_closed(waits).await
    }
}

/// Whether an end is closed, for those who wait through it.
#[derive(Debug)]
pub(crate) struct Closing {
    is_closed: AtomicBool,
    /// Set once it is closed. Apart, because who does not wait pays one load.
    told: Latch<()>,
}

impl Default for Closing {
    fn default() -> Self {
        Self { is_closed: AtomicBool::new(false), told: Latch::new() }
    }
}

impl Closing {
    /// Nothing is begun through it any more.
    pub(super) fn close(&self) {
        // Orders nothing: what uses the end at this moment may do so for the last time.
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Wakes what waits through it. To be called when it is closed, without any lock.
    pub(super) fn tell(&self) {
        self.told.set(());
    }

    #[inline]
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Does what waits at the pipe, unless the end is closed first. What waits is dropped then: it has taken no message and written none, and leaves the line to others.
    pub(crate) async fn unless_closed<T>(
        &self,
        waits: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let (mut told, mut waits) = (pin!(self.told.wait()), pin!(waits));
        poll_fn(|cx| {
            // Before each attempt: a message that has come since is not for who is gone.
            if told.as_mut().poll(cx).is_ready() || self.is_closed() {
                return Poll::Ready(Err(Refusal::EndClosed));
            }
            waits.as_mut().poll(cx)
        })
        .await
    }
}
