//! A session: a connection that is lent, and comes back clean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::PoolError;
use nexus_kernel::hal::{ReadSession, RecordError, RecordFuture, Row, Statement, WriteSession};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::connection::Opened;
use super::error::{of_commit, translate};
use crate::records::idle::Seat;
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

/// A session that reads or writes.
pub(super) struct SqliteSession {
    seat: Seat<Lease>,
    /// How long a statement may take.
    limit: Duration,
}

impl SqliteSession {
    pub(super) fn new(lease: Lease, limit: Duration) -> Self {
        let shared = lease.shared.clone();
        Self { seat: shared.sessions.begin(lease), limit }
    }

    async fn statement(&mut self, statement: &Statement) -> Result<(Vec<Row>, u64), RecordError> {
        let lease = self.seat.take()?;
        portable::check(statement)?;
        let limit = statement.deadline().map_or(self.limit, |own| own.min(self.limit));
        let statement = statement.clone();
        let (done, lease) = run(lease, limit, false, move |opened| opened.query(&statement)).await?;
        self.seat.put(lease);
        Ok(done)
    }

    async fn end(self, sql: &'static str) -> Result<(), RecordError> {
        let lease = self.seat.take()?;
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
        f.debug_struct("SqliteSession").field("seat", &self.seat).finish_non_exhaustive()
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
