//! Lets agents agree on who works where: locks that bind those who ask for them.
//!
//! Owns:       what is to be done in time: whose time is over, who waits for ever. Callers acquire and release on their own tasks, in the shared table, `table.rs`.
//! Asks:       nobody.
//! On restart: the table goes on, and so do those who hold or wait for something in it. What came due meanwhile is done first.
//! Bounds:     `HELD_MAX` locks held, `WAITING_MAX` calls that wait, `locks_per_agent` of both for each agent, `MAILBOX_MAX` messages.

mod deadlock;
mod durable;
mod hearing;
mod keeper;
mod key;
mod local;
mod messages;
mod table;
mod view;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{AbortHandle, abortable};
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Reply, Start};

pub(crate) use hearing::Hearing;
pub(crate) use keeper::OtherTables;
pub use keeper::{Hold, LockTable};
pub(crate) use key::LockKey;
pub(crate) use local::{line_up, lock};
pub(crate) use messages::Look;
pub use table::AdvisoryLocks;
pub(crate) use table::{Locking, request};
pub use view::{AdvisoryLock, AdvisoryStatistics};

/// The most locks that are held at once in one part of the table: all below one top-level directory are in one.
pub const HELD_MAX: usize = 1_000_000;

/// The most calls that wait for locks at once in one part of the table.
pub const WAITING_MAX: usize = 100_000;

/// How often what is held is looked through for those whose time is over although nobody waits for it.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

use crate::semaphore::places::Moment;
use crate::semaphore::table::{BRIEF_BELOW, LOOKED_AFTER_WITHIN};

// Of what is held for longer a look at all of it tells that it ends before the next one.
const _: () = assert!(SWEEP_EVERY.as_nanos() <= BRIEF_BELOW.as_nanos());

/// How often what is held is looked through before its time, because something ends.
const EARLY_EVERY: Duration = LOOKED_AFTER_WITHIN;

/// How often those are looked for who wait for each other, at most.
const SEARCH_EVERY: Duration = LOOKED_AFTER_WITHIN;

/// The actor that sees to advisory locks and semaphores in time.
pub(crate) struct Advisory {
    locks: Arc<AdvisoryLocks>,
    /// What wakes it next.
    timer: Option<AbortHandle>,
    /// When all that is held was looked through last.
    swept: Option<Moment>,
    /// When those were looked for last who wait for each other.
    searched: Option<Moment>,
}

impl Behaviour for Advisory {
    // Weak: the locks hold a reference to this actor, which holds what it is started with.
    type Args = Weak<AdvisoryLocks>;
    const NAME: &'static str = "advisory";

    fn init(
        locks: Weak<AdvisoryLocks>,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let begun = start.me().signal(Look).map_err(ExitReason::error);
        let locks = locks.upgrade().ok_or_else(|| ExitReason::error("the kernel is gone"));
        // What came due while nobody looked.
        let made = begun.and(locks).map(|locks| Self { locks, timer: None, swept: None, searched: None });
        Box::pin(std::future::ready(made))
    }
}

impl Advisory {
    fn look(&mut self, cx: &mut Cx<'_, Self>) {
        self.locks.begin_look();
        let now = self.locks.now();
        let since = self.swept.map(|swept| now.saturating_sub(swept));
        let ends = |now| self.locks.next_end().is_some_and(|end| end <= now);
        let sweep = since.is_none_or(|since| since >= SWEEP_EVERY || (since >= EARLY_EVERY && ends(now)));
        if sweep {
            self.swept = Some(now);
        }
        // Seldom enough that it costs little, however many come to wait.
        let rest = self
            .searched
            .map_or(Duration::ZERO, |last| SEARCH_EVERY.saturating_sub(now.saturating_sub(last)));
        let mut next = rest;
        if rest.is_zero() {
            self.searched = Some(now);
            // There may be more of them than one look finds.
            let is_over = self.locks.search(deadlock::circles) < deadlock::CIRCLES_MAX;
            next = if is_over { SWEEP_EVERY } else { SEARCH_EVERY };
        }
        let again = self.locks.is_awaited().then_some(next);
        let see_to = self.locks.see_to(sweep, SWEEP_EVERY);
        let early = self.swept.map_or(now, |swept| swept.saturating_add(EARLY_EVERY));
        let ends = self.locks.next_end().map(|end| end.max(early).saturating_sub(now));
        let ends = ends.filter(|_| see_to.is_some());
        let after = [see_to, again, ends].into_iter().flatten().min();
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let Some(after) = after else { return };
        self.locks.end_look(after);
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
