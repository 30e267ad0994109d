//! Records on a PostgreSQL server, and perhaps a replica of it.
//!
//! Connections are made when sessions need them, `sessions` at most at each server, and used again. A session waits for its turn, and for a server that is away, until its
//! deadline, and begins on a connection that is made anew when the one it had is dead: so service resumes by itself. What a lost connection was doing is
//! not repeated here ([`nexus_kernel::hal::transact`] repeats what can be). The server has the deadline of each statement, too; an answer that does not come some seconds later
//! is given up, and so is a statement whose caller is gone: it is cancelled, and its connection closed.
//!
//! Write sessions are `SERIALIZABLE`; read sessions `REPEATABLE READ, READ ONLY`, which a replica can do. While the replica is not reached, sessions read at the server.
//!
//! tokio's I/O runs on the tasks of the [`Env`]: each connection is one. Futures of sessions may be polled anywhere.
//!
//! The way to a server on another machine is encrypted unless its address says otherwise: see [`Server::new`].

mod config;
mod error;
mod pool;
mod session;
mod tls;
mod value;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_actors::Env;
use nexus_kernel::hal::{
    DriverContext, Migrated, Migration, ReadFrom, ReadSession, RecordError, RecordFuture, RecordStore,
    WriteSession,
};
use parking_lot::Mutex;

pub use self::config::{PostgresConfig, Server};
use self::pool::{Lease, Pool, Settings, State};
use self::session::{PostgresSession, millis};
use super::idle::Sessions;

/// For how long a replica that was not reached is not asked again.
const REPLICA_REST: Duration = Duration::from_secs(5);

/// Which lock of the server a migration holds: any number that nobody else uses.
const MIGRATION_LOCK: i64 = 0x6e65_7875_735f_6d69;

/// A store of records on a server.
#[derive(Debug)]
pub struct PostgresRecords {
    config: PostgresConfig,
    env: Env,
    server: Arc<Pool>,
    replica: Option<Arc<Pool>>,
    /// Those that are under way.
    sessions: Sessions<Lease>,
    /// When the replica may be asked again.
    rests_until: Mutex<Option<Instant>>,
}

impl PostgresRecords {
    /// A store over a server, which nothing connects to before the first session.
    pub fn new(config: PostgresConfig, context: &DriverContext) -> Self {
        let env = context.env.clone();
        let pool = |server: &Server| {
            let PostgresConfig { sessions, connect, idle, .. } = config;
            Pool::new(
                Settings { server: server.clone(), sessions, connect, idle },
                env.clone(),
                context.pool.clone(),
            )
        };
        let (server, replica) = (pool(&config.server), config.replica.as_ref().map(pool));
        let sessions = Sessions::new(env.clone(), config.hold);
        Self { server, replica, sessions, rests_until: Mutex::default(), env, config }
    }

    /// What begins a transaction, and tells the server its deadlines.
    fn begin_sql(&self, mode: &str, limit: Duration) -> String {
        // Of who does not even look after its sessions any more.
        let (statement, hold) = (millis(limit), millis(self.config.hold.saturating_mul(2)));
        format!(
            "BEGIN ISOLATION LEVEL {mode}; SET LOCAL statement_timeout = {statement}; \
             SET LOCAL idle_in_transaction_session_timeout = {hold}"
        )
    }

    async fn session(
        &self,
        mode: &str,
        pool: &Arc<Pool>,
        wait: Duration,
    ) -> Result<PostgresSession, RecordError> {
        let limit = self.config.statement;
        let lease = pool.begin(&self.begin_sql(mode, limit), wait, limit).await?;
        Ok(PostgresSession::new(self.sessions.begin(lease), limit))
    }

    /// A session at the replica. None when there is none, or it is not reached now.
    async fn at_replica(&self) -> Option<PostgresSession> {
        let replica = self.replica.as_ref()?;
        if self.rests_until.lock().is_some_and(|until| self.env.now() < until) {
            return None;
        }
        // One try: who may read there may read at the server as well.
        let begun = self.env.timeout(self.config.connect, self.session(READS, replica, Duration::ZERO)).await;
        match begun {
            Ok(Ok(session)) => return Some(session),
            // All of its sessions are in use, which says nothing against it.
            Ok(Err(RecordError::Busy { .. })) => return None,
            Ok(Err(error)) => tracing::warn!(%error, "the replica is not reached: reading at the server"),
            Err(_) => tracing::warn!("the replica does not answer: reading at the server"),
        }
        *self.rests_until.lock() = Some(self.env.now() + REPLICA_REST);
        None
    }

    /// A session that sees what all those before it did, one at a time over all processes.
    fn exclusive(&self) -> RecordFuture<'_, Box<dyn WriteSession>> {
        Box::pin(async move {
            let limit = self.config.migration;
            // What is serializable would see what there was before it waited for the lock.
            let begin = self.begin_sql("READ COMMITTED", limit);
            let mut lease = self.server.begin(&begin, self.config.wait, limit).await?;
            // Another process may hold it for longer than a server is waited for.
            let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
            lease.control(&lock, limit, State::Running, State::Begun).await?;
            Ok(Box::new(PostgresSession::new(self.sessions.begin(lease), limit)) as Box<dyn WriteSession>)
        })
    }
}

const READS: &str = "REPEATABLE READ, READ ONLY";
const WRITES: &str = "SERIALIZABLE";

impl RecordStore for PostgresRecords {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn write(&self) -> RecordFuture<'_, Box<dyn WriteSession>> {
        Box::pin(async move {
            let session = self.session(WRITES, &self.server, self.config.wait).await?;
            Ok(Box::new(session) as Box<dyn WriteSession>)
        })
    }

    fn read(&self, from: ReadFrom) -> RecordFuture<'_, Box<dyn ReadSession>> {
        Box::pin(async move {
            let at_replica = if from == ReadFrom::Replica { self.at_replica().await } else { None };
            let session = match at_replica {
                Some(session) => session,
                None => self.session(READS, &self.server, self.config.wait).await?,
            };
            Ok(Box::new(session) as Box<dyn ReadSession>)
        })
    }

    fn migrate<'a>(&'a self, migrations: &'a [Migration]) -> RecordFuture<'a, Migrated> {
        Box::pin(super::migrations::migrate(|| self.exclusive(), migrations))
    }

    fn close(&self) -> RecordFuture<'_, ()> {
        Box::pin(async move {
            self.server.close();
            if let Some(replica) = &self.replica {
                replica.close();
            }
            Ok(())
        })
    }
}
