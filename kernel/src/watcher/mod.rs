//! Lets callers wait for changes.
//!
//! Owns:       the table of subscriptions, `table.rs`; publishes it, `feed.rs`. What is queued for a subscription is with it, `subscription.rs`, and
//!             is taken on its owner's task, `watch.rs`, which also reads the log for what was before.
//! Asks:       nobody.
//! On restart: takes the table that was published last, warm or cold: no store knows of it. Whoever waits is told of changes meanwhile.
//! Bounds:     `WATCHES_MAX` subscriptions, `QUEUE_MAX` events for each, `BATCH_MAX` in a reply and the rest of a commit, `LIST_MAX` in a listing,
//!             `MAILBOX_MAX` messages.

mod events;
mod feed;
mod messages;
mod scope;
mod subscription;
mod table;
mod view;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Reply, Start};

pub(crate) use events::{told, told_by, told_event, told_mount, told_nobody};
pub(crate) use feed::{Held, Wakers, Watches};
pub use messages::{CountWatches, ListWatches, SubscribeError};
pub(crate) use messages::{Subscribe, Tend, Unsubscribe};
pub(crate) use scope::Scope;
pub(crate) use subscription::{Subscription, Wanted};
use table::WatchTable;
pub use view::{WatchInfo, WatchStatistics};
pub use watch::{EventSource, Watch};

/// The most subscriptions that there can be.
pub const WATCHES_MAX: usize = 65_536;

/// How many events may wait for the owner of a subscription. One that is slower than that goes on from the log.
pub const QUEUE_MAX: usize = 1_024;

/// How many events one reply has; more only when one commit has more for it.
pub const BATCH_MAX: usize = 1_024;

/// The most subscriptions that one listing shows.
pub const LIST_MAX: usize = 10_000;

/// How many messages may wait for the actor.
pub const MAILBOX_MAX: usize = 1_024;

/// How often the actor looks after what nobody else does, while there are subscriptions. What a caller holds up who does not go on is told after the second look.
const TEND_EVERY: Duration = Duration::from_millis(500);

/// The actor that alone changes who watches what.
pub(crate) struct Watcher {
    table: WatchTable,
    watches: Arc<Watches>,
    /// Whether it looks again in a while.
    tends: bool,
}

impl Behaviour for Watcher {
    type Args = Arc<Watches>;
    const NAME: &'static str = "watcher";

    fn init(watches: Arc<Watches>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        async move {
            let last = watches.claim(start.generation()).map_err(ExitReason::error)?;
            // Somebody may have gone while nobody could be told.
            start.me().signal(Tend).map_err(ExitReason::error)?;
            Ok(Self { table: (*last).clone(), watches, tends: false })
        }
        .boxed_local()
    }
}

impl Watcher {
    /// Shows everybody what has changed. An actor that is too late for that ends.
    fn publish(&self, cx: &mut Cx<'_, Self>) -> Result<(), SubscribeError> {
        self.watches.publish(cx.generation(), self.table.clone()).map_err(|late| {
            cx.exit(ExitReason::error(late));
            SubscribeError::Superseded
        })
    }

    /// Forgets those whose owners are gone; whether there were any.
    fn sweep(&mut self) -> bool {
        let gone: Vec<_> = self.table.iter().filter(|one| one.is_gone()).cloned().collect();
        for one in &gone {
            self.forget(one);
        }
        !gone.is_empty()
    }

    fn forget(&mut self, one: &Subscription) -> bool {
        let was_there = self.table.remove(one);
        if was_there {
            self.watches.count(one);
        }
        was_there
    }

    fn tend(&mut self, cx: &mut Cx<'_, Self>) {
        if self.sweep() {
            // An actor that is too late has nothing to tend.
            let _ = self.publish(cx);
        }
        self.watches.tell_held_up();
        self.tend_later(cx);
    }

    fn tend_later(&mut self, cx: &mut Cx<'_, Self>) {
        if !self.tends && self.table.len() > 0 {
            self.tends = true;
            cx.spawn(cx.env().sleep(TEND_EVERY), |me: &mut Self, cx, ()| {
                me.tends = false;
                me.tend(cx);
            });
        }
    }
}

impl Handle<Subscribe> for Watcher {
    fn handle(&mut self, m: Subscribe, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<(), SubscribeError>> {
        if m.0.is_gone() {
            // Whoever asked for it does not wait any more.
            return Reply::Now(Ok(()));
        }
        if self.table.len() >= WATCHES_MAX && !self.sweep() {
            return Reply::Now(Err(SubscribeError::TooMany { max: WATCHES_MAX }));
        }
        let tree = m.0.tree;
        self.table.insert(m.0);
        let done = self.publish(cx);
        if done.is_ok() {
            self.watches.follow(tree);
        }
        self.tend_later(cx);
        Reply::Now(done)
    }
}

impl Handle<Unsubscribe> for Watcher {
    fn handle(&mut self, m: Unsubscribe, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if self.forget(&m.0) {
            // An actor that is too late ends, and the next one forgets it.
            let _ = self.publish(cx);
        }
        Reply::Now(())
    }
}

impl Handle<Tend> for Watcher {
    fn handle(&mut self, _: Tend, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.tend(cx);
        Reply::Now(())
    }
}

impl Handle<ListWatches> for Watcher {
    fn handle(&mut self, m: ListWatches, _: &mut Cx<'_, Self>) -> Reply<Self, Vec<WatchInfo>> {
        Reply::Now(list(&self.table, m.limit))
    }
}

impl Handle<CountWatches> for Watcher {
    fn handle(&mut self, _: CountWatches, _: &mut Cx<'_, Self>) -> Reply<Self, WatchStatistics> {
        Reply::Now(self.watches.statistics())
    }
}

/// The subscriptions of a table, in the order in which they came, at most `limit` and at most [`LIST_MAX`].
pub(crate) fn list(table: &WatchTable, limit: usize) -> Vec<WatchInfo> {
    let mut living: Vec<_> = table.iter().filter(|one| !one.is_gone()).collect();
    living.sort_unstable_by_key(|one| one.id);
    living.into_iter().take(limit.min(LIST_MAX)).map(|one| WatchInfo::of(one)).collect()
}
