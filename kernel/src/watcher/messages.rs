//! What the watcher is asked. Telling watchers of changes is not among it: that happens on the task of whoever made the change.

use std::sync::Arc;

use nexus_messages::Message;

use super::subscription::Subscription;
use super::view::{WatchInfo, WatchStatistics};

/// Begins to queue what a subscription waits for. Repeating it does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Subscribe(pub(crate) Arc<Subscription>);

impl Message for Subscribe {
    type Reply = Result<(), SubscribeError>;
    const NAME: &'static str = "watcher.subscribe";
}

/// Forgets a subscription whose owner is gone. Nothing was queued for it any more since then. Repeating it does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Unsubscribe(pub(crate) Arc<Subscription>);

impl Message for Unsubscribe {
    type Reply = ();
    const NAME: &'static str = "watcher.unsubscribe";
}

/// Looks after what nobody else does: subscriptions whose owner could not say that it went, and changes that wait for a call which does not go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tend;

impl Message for Tend {
    type Reply = ();
    const NAME: &'static str = "watcher.tend";
}

/// The subscriptions, in the order in which they came, at most `limit` and at most [`LIST_MAX`](super::LIST_MAX).
#[derive(Debug, Clone, Copy)]
pub struct ListWatches {
    /// How many to list.
    pub limit: usize,
}

impl Message for ListWatches {
    type Reply = Vec<WatchInfo>;
    const NAME: &'static str = "watcher.list";
}

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct CountWatches;

impl Message for CountWatches {
    type Reply = WatchStatistics;
    const NAME: &'static str = "watcher.count";
}

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// There are as many as may be.
    #[error("{max} watches are the most that there can be")]
    TooMany {
        /// How many that is.
        max: usize,
    },
    /// A newer incarnation of the watcher has taken over.
    #[error("the watcher was superseded")]
    Superseded,
}
