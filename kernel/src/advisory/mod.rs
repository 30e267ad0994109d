//! Lets agents agree on who works where: locks that bind those who ask for them.
//!
//! Owns:       what is to be done in time: whose time is over, who waits for ever. Callers acquire and release on their own tasks, in the shared table, `table.rs`.
//! Asks:       nobody.
//! On restart: the table goes on, and so do those who hold or wait for something in it. What came due meanwhile is done first.
//! Bounds:     `HELD_MAX` locks held, `WAITING_MAX` calls that wait, `MAILBOX_MAX` messages.

mod deadlock;
mod durable;
mod hearing;
mod key;
mod messages;
mod table;
mod view;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{AbortHandle, abortable};
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Reply, Start};

pub(crate) use hearing::Hearing;
pub(crate) use key::LockKey;
pub(crate) use messages::Look;
pub use table::AdvisoryLocks;
pub(crate) use table::{Granted, Lined, Obstacle, Pinned, request};
pub use view::{AdvisoryLock, AdvisoryStatistics};

/// The most locks that are held at once in one part of the table: all below one top-level directory are in one.
pub const HELD_MAX: usize = 1_000_000;

/// The most calls that wait for locks at once in one part of the table.
pub const WAITING_MAX: usize = 100_000;

/// How often what is held is looked through for those whose time is over although nobody waits for it.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

use crate::semaphore::places::Moment;

/// The actor that sees to advisory locks and semaphores in time.
pub(crate) struct Advisory {
    locks: Arc<AdvisoryLocks>,
    /// What wakes it next.
    timer: Option<AbortHandle>,
    /// When all that is held was looked through last.
    swept: Option<Moment>,
}

impl Behaviour for Advisory {
    type Args = Arc<AdvisoryLocks>;
    const NAME: &'static str = "advisory";

    fn init(
        locks: Arc<AdvisoryLocks>,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        // What came due while nobody looked.
        let begun = start.me().signal(Look).map_err(ExitReason::error);
        Box::pin(std::future::ready(begun.map(|()| Self { locks, timer: None, swept: None })))
    }
}

impl Advisory {
    fn look(&mut self, cx: &mut Cx<'_, Self>) {
        let now = self.locks.now();
        let sweep = self.swept.is_none_or(|swept| now.saturating_sub(swept) >= SWEEP_EVERY);
        if sweep {
            self.swept = Some(now);
        }
        let after = self.locks.see_to(sweep, SWEEP_EVERY, deadlock::circles);
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let Some(after) = after else { return };
        let (sleep, timer) = abortable(cx.env().sleep(after));
        self.timer = Some(timer);
        cx.spawn(sleep, |me: &mut Self, cx, slept| {
            if slept.is_ok() {
                me.look(cx);
            }
        });
    }
}

impl Handle<Look> for Advisory {
    fn handle(&mut self, _: Look, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.look(cx);
        Reply::Now(())
    }
}
