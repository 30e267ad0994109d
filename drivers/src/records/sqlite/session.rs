//! A session: a connection that is lent, and comes back clean.
//!
//! While a session does nothing, its lease lies in a slot that the store knows, and is taken back from there when that lasts too long.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nexus_actors::{Env, PoolError};
use nexus_kernel::hal::{ReadSession, RecordError, RecordFuture, Row, Statement, WriteSession};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::connection::Opened;
use super::error::{of_commit, translate};
use crate::records::portable;

/// How long after its deadline a statement is waited for: it is interrupted, and says so itself.
const GRACE: Duration = Duration::from_secs(1);

/// A connection that is in use. Dropping it takes back what was begun, and gives the connection back.
pub(super) struct Lease {
    opened: Option<Opened>,
    writes: bool,
    /// Given back after the connection was.
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl Lease {
    pub(super) fn new(
        opened: Opened,
        writes: bool,
        permit: OwnedSemaphorePermit,
        shared: Arc<Shared>,
    ) -> Self {
        Self { opened: Some(opened), writes, permit: Some(permit), shared }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(opened), permit) = (self.opened.take(), self.permit.take()) else { return };
        let (shared, writes) = (self.shared.clone(), self.writes);
        if opened.is_clean() {
            return shared.give_back(opened, writes);
        }
        let pool = shared.pool.clone();
        let env = shared.env.clone();
        env.spawn("records-rollback", async move {
            let taken_back = pool.run(move || {
                // What cannot be taken back is closed, which takes it back.
                if opened.control("ROLLBACK").is_ok() {
                    shared.give_back(opened, writes);
                }
                drop(permit);
            });
            if let Err(error) = taken_back.await {
                tracing::warn!(%error, "a connection of SQLite is closed");
            }
        });
    }
}

/// Runs `job` with the lease, which comes back with what it gave unless it failed. `changing` says that it may have been done when its end is not seen.
pub(super) async fn run<T: Send + 'static>(
    mut lease: Lease,
    limit: Duration,
    changing: bool,
    job: impl FnOnce(&mut Opened) -> Result<T, RecordError> + Send + 'static,
) -> Result<(T, Lease), RecordError> {
    let shared = lease.shared.clone();
    let waiting = Arc::new(());
    let wanted = Arc::downgrade(&waiting);
    let (env, until) = (shared.env.clone(), shared.env.now() + limit);
    let done = shared.pool.run(move || {
        let opened =
            lease.opened.as_mut().filter(|_| wanted.strong_count() > 0).ok_or(RecordError::Aborted)?;
        if env.now() >= until {
            return Err(RecordError::TimedOut { what: "the statement", limit, unknown: false });
        }
        match opened.run(until, wanted, job) {
            Ok(value) => Ok((value, lease)),
            Err(error) if is_interrupt(&error) => {
                Err(RecordError::TimedOut { what: "the statement", limit, unknown: false })
            }
            Err(error) => {
                // The next session gets a file that is opened anew, which may be there again.
                if matches!(error, RecordError::Backend { .. }) {
                    drop(lease.opened.take());
                }
                Err(error)
            }
        }
    });
    let done = shared.env.timeout(limit + GRACE, done).await;
    drop(waiting);
    match done {
        Ok(Ok(done)) => done,
        Ok(Err(PoolError::Panicked(panicked))) => Err(RecordError::Backend {
            cause: format!("a statement panicked: {panicked}"),
            unknown: changing,
        }),
        Ok(Err(PoolError::Closed)) => {
            Err(RecordError::ConnectionLost { cause: "the environment is stopped".into(), unknown: false })
        }
        Err(_) => Err(RecordError::TimedOut { what: "the statement", limit, unknown: changing }),
    }
}

/// What SQLite says of what was interrupted.
fn is_interrupt(error: &RecordError) -> bool {
    matches!(error, RecordError::Backend { cause, .. } if cause == "interrupted")
}

/// Where a session's lease lies while it does nothing.
#[derive(Default)]
struct Slot(Mutex<Held>);

#[derive(Default)]
enum Held {
    /// It runs a statement, or it is over: one failed, or was given up.
    #[default]
    Nothing,
    Idle(Lease, Instant),
    /// It did nothing for too long.
    TakenBack,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("is_idle", &matches!(*self.0.lock(), Held::Idle(..))).finish()
    }
}

impl Slot {
    fn take(&self, hold: Duration) -> Result<Lease, RecordError> {
        match std::mem::take(&mut *self.0.lock()) {
            Held::Idle(lease, _) => Ok(lease),
            Held::Nothing => Err(RecordError::Aborted),
            Held::TakenBack => {
                let what = "the session, which did nothing,";
                Err(RecordError::TimedOut { what, limit: hold, unknown: false })
            }
        }
    }

    fn put(&self, lease: Lease, now: Instant) {
        *self.0.lock() = Held::Idle(lease, now);
    }

    /// Takes back what lies there since before `since`.
    fn take_back(&self, since: Instant) {
        let mut held = self.0.lock();
        if matches!(&*held, Held::Idle(_, idle) if *idle <= since) {
            let idle = std::mem::replace(&mut *held, Held::TakenBack);
            drop(held);
            // Dropped here, and not under the lock.
            drop(idle);
        }
    }
}

/// The sessions of a store, to take back those that do nothing.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    // Those that are gone are taken out before it would grow: it stays within a small multiple of what the store lends at once.
    slots: Vec<Weak<Slot>>,
    /// Whether a task looks after them.
    watched: bool,
}

impl Sessions {
    /// Looks after `slot`, for as long as it is there.
    fn watch(shared: &Arc<Shared>, slot: &Arc<Slot>) {
        let mut known = shared.sessions.0.lock();
        if known.slots.len() == known.slots.capacity() {
            known.slots.retain(|slot| slot.strong_count() > 0);
        }
        known.slots.push(Arc::downgrade(slot));
        if std::mem::replace(&mut known.watched, true) {
            return;
        }
        drop(known);
        let (env, store, hold) = (shared.env.clone(), Arc::downgrade(shared), shared.config.hold);
        shared.env.spawn("records-sessions", async move {
            loop {
                env.sleep(hold / LOOKS).await;
                let Some(shared) = store.upgrade() else { return };
                if !shared.sessions.look(&env, hold) {
                    return;
                }
            }
        });
    }

    /// Whether there is still something to look after.
    fn look(&self, env: &Env, hold: Duration) -> bool {
        let slots: Vec<Arc<Slot>> = {
            let mut known = self.0.lock();
            known.slots.retain(|slot| slot.strong_count() > 0);
            let slots: Vec<_> = known.slots.iter().filter_map(Weak::upgrade).collect();
            // By what is there still, as is told below: a slot that went since would end the task, and leave it said that one looks.
            known.watched = !slots.is_empty();
            slots
        };
        if let Some(since) = env.now().checked_sub(hold) {
            slots.iter().for_each(|slot| slot.take_back(since));
        }
        !slots.is_empty()
    }
}

/// How often in the time that a session may do nothing it is looked at: that is how exact this time is.
const LOOKS: u32 = 4;

/// A session that reads or writes.
pub(super) struct SqliteSession {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    /// How long a statement may take.
    limit: Duration,
}

impl SqliteSession {
    pub(super) fn new(lease: Lease, limit: Duration) -> Self {
        let (slot, shared) = (Arc::<Slot>::default(), lease.shared.clone());
        slot.put(lease, shared.env.now());
        Sessions::watch(&shared, &slot);
        Self { slot, shared, limit }
    }

    async fn statement(&mut self, statement: &Statement) -> Result<(Vec<Row>, u64), RecordError> {
        let lease = self.slot.take(self.shared.config.hold)?;
        portable::check(statement)?;
        let limit = statement.deadline().map_or(self.limit, |own| own.min(self.limit));
        let statement = statement.clone();
        let (done, lease) = run(lease, limit, false, move |opened| opened.query(&statement)).await?;
        self.slot.put(lease, self.shared.env.now());
        Ok(done)
    }

    async fn end(self, sql: &'static str) -> Result<(), RecordError> {
        let lease = self.slot.take(self.shared.config.hold)?;
        let commits = sql == COMMIT;
        let job = move |opened: &mut Opened| {
            opened.control(sql).map_err(|error| if commits { of_commit(error) } else { translate(error) })
        };
        run(lease, self.limit, commits, job).await.map(drop)
    }
}

const COMMIT: &str = "COMMIT";

impl fmt::Debug for SqliteSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSession").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl ReadSession for SqliteSession {
    fn query<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, Vec<Row>> {
        Box::pin(async move { Ok(self.statement(statement).await?.0) })
    }
}

impl WriteSession for SqliteSession {
    fn execute<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, u64> {
        Box::pin(async move { Ok(self.statement(statement).await?.1) })
    }

    fn commit(self: Box<Self>) -> RecordFuture<'static, ()> {
        Box::pin(self.end(COMMIT))
    }

    fn rollback(self: Box<Self>) -> RecordFuture<'static, ()> {
        Box::pin(async move {
            match self.end("ROLLBACK").await {
                // One that is over is being taken back already.
                Err(RecordError::Aborted) => Ok(()),
                ended => ended,
            }
        })
    }
}
