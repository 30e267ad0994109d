//! Records on SQLite, which is built in: one file, one session that writes at a time, and several that read beside it (WAL).
//!
//! A file is opened when it is first used. Statements run on the context's pool, one of its threads each while it runs; a session that waits for the writer,
//! or for another process, holds no thread. A statement that takes too long is interrupted, and so is one whose caller is gone. Whoever keeps a write session keeps
//! all others waiting, each until its own deadline; one that does nothing for too long is taken back.
//!
//! A commit is on the disk when it is acknowledged (`synchronous = full`). Integers are `BIGINT`s whatever the column says, and a column takes values of other
//! types: what PostgreSQL refuses there, SQLite keeps.

mod connection;
mod error;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nexus_actors::{Env, Pool};
use nexus_kernel::hal::{
    DriverContext, Migrated, Migration, ReadFrom, ReadSession, RecordError, RecordFuture, RecordStore,
    WriteSession,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::connection::Opened;
use self::error::translate;
use self::session::{Lease, SqliteSession, run};
use super::idle::Sessions;
use super::options::{millis, number};

/// The file within the data folder, when none is named.
const FILE: &str = "records.sqlite";

/// The most sessions that read at once.
const READERS_MAX: u32 = 256;

/// The longest wait between two tries to become the one that writes, among processes.
const TURN_MAX: Duration = Duration::from_millis(20);

/// The settings of [`SqliteRecords`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The file.
    pub path: PathBuf,
    /// How many sessions read at once.
    pub readers: u32,
    /// How long a session waits for its turn.
    pub wait: Duration,
    /// How long a session may do nothing until it is taken back; up to a quarter longer.
    pub hold: Duration,
    /// How long a statement may take.
    pub statement: Duration,
    /// How long a statement of a migration may take, and the wait for another process that migrates.
    pub migration: Duration,
}

impl SqliteConfig {
    /// The usual settings, for this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readers: 4,
            wait: Duration::from_secs(30),
            hold: Duration::from_secs(60),
            statement: Duration::from_secs(30),
            migration: Duration::from_secs(600),
        }
    }

    /// The settings that options say.
    pub(super) fn from_options(
        options: &BTreeMap<String, String>,
        context: &DriverContext,
    ) -> Result<Self, RecordError> {
        let bad = |why: &str| Err(RecordError::BadOption { why: why.into() });
        let named = options.get("path").map_or(FILE, String::as_str);
        if named.is_empty() || named.starts_with(':') || named.starts_with("file:") {
            return bad(
                "\"path\" is that of a file: sessions have connections of their own, and would not share one in memory",
            );
        }
        let path = match &context.data_folder {
            Some(folder) => folder.join(named),
            None if options.contains_key("path") => PathBuf::from(named),
            None => return bad("sqlite needs the option \"path\": this kernel has no data folder"),
        };
        let usual = Self::new(path);
        Ok(Self {
            readers: number(options, "readers", READERS_MAX)?.unwrap_or(usual.readers),
            wait: millis(options, "wait_ms", usual.wait)?,
            hold: millis(options, "hold_ms", usual.hold)?,
            statement: millis(options, "statement_ms", usual.statement)?,
            migration: millis(options, "migration_ms", usual.migration)?,
            ..usual
        })
    }
}

/// A store of records in a file of SQLite.
#[derive(Debug, Clone)]
pub struct SqliteRecords(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: SqliteConfig,
    env: Env,
    pool: Pool,
    writer: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    /// What is open and not in use: no more than may be in use at once.
    idle: Mutex<Idle>,
    closed: AtomicBool,
    /// Those that are under way.
    sessions: Sessions<Lease>,
}

#[derive(Debug, Default)]
struct Idle {
    writer: Option<Opened>,
    readers: Vec<Opened>,
}

impl SqliteRecords {
    /// A store over a file, which nothing looks at before the first session.
    pub fn new(config: SqliteConfig, context: &DriverContext) -> Self {
        let readers = config.readers.clamp(1, READERS_MAX) as usize;
        let sessions = Sessions::new(context.env.clone(), config.hold);
        Self(Arc::new(Shared {
            config,
            env: context.env.clone(),
            pool: context.pool.clone(),
            writer: Arc::new(Semaphore::new(1)),
            readers: Arc::new(Semaphore::new(readers)),
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
            sessions,
        }))
    }

    async fn begin(
        &self,
        writes: bool,
        wait: Duration,
        limit: Duration,
    ) -> Result<SqliteSession, RecordError> {
        let shared = &self.0;
        let until = shared.env.now() + wait;
        let (seats, what) = match writes {
            true => (shared.writer.clone(), "the one session that writes"),
            false => (shared.readers.clone(), "every session that reads"),
        };
        let busy = || RecordError::Busy { what: what.into() };
        loop {
            // A session that waits for another process lets those of this one through.
            let left = until.saturating_duration_since(shared.env.now());
            let permit = shared.env.timeout(left, seats.clone().acquire_owned()).await.map_err(|_| busy())?;
            let permit = permit.map_err(|_| shut())?;
            let begun = shared.begin(writes, permit, limit).await;
            match begun {
                Err(RecordError::Conflict { .. }) if shared.env.now() < until => {
                    shared.env.sleep(shared.pause()).await;
                }
                Err(RecordError::Conflict { .. }) => return Err(busy()),
                begun => return Ok(SqliteSession::new(begun?, limit)),
            }
        }
    }

    fn exclusive(&self) -> RecordFuture<'_, Box<dyn WriteSession>> {
        let limit = self.0.config.migration;
        Box::pin(async move { Ok(Box::new(self.begin(true, limit, limit).await?) as Box<dyn WriteSession>) })
    }
}

fn shut() -> RecordError {
    RecordError::ConnectionLost { cause: "the store is closed".into(), unknown: false }
}

impl Shared {
    /// Opens a connection unless one is idle, and begins a transaction.
    async fn begin(
        self: &Arc<Self>,
        writes: bool,
        permit: tokio::sync::OwnedSemaphorePermit,
        limit: Duration,
    ) -> Result<Lease, RecordError> {
        let idle = {
            let mut idle = self.idle.lock();
            if writes { idle.writer.take() } else { idle.readers.pop() }
        };
        let opened = match idle {
            Some(opened) => opened,
            None => {
                let (path, env) = (self.config.path.clone(), self.env.clone());
                let opening = self.pool.run(move || Opened::open(&path, !writes, env));
                let opened = self.env.timeout(limit, opening).await;
                let opened =
                    opened.map_err(|_| RecordError::TimedOut { what: "opening", limit, unknown: false })?;
                opened
                    .map_err(|error| RecordError::Backend { cause: error.to_string(), unknown: false })??
            }
        };
        let lease = Lease::new(opened, writes, permit, self.clone());
        let sql = if writes { "BEGIN IMMEDIATE" } else { "BEGIN" };
        Ok(run(lease, limit, false, move |opened| opened.control(sql).map_err(translate)).await?.1)
    }

    /// Keeps a connection that is in no transaction for the next session.
    fn give_back(&self, opened: Opened, writes: bool) {
        let mut idle = self.idle.lock();
        // Under the lock: what comes after `close` looked is closed here.
        if self.closed.load(Ordering::Relaxed) {
            drop(idle);
            drop(opened);
        } else if writes {
            idle.writer = Some(opened);
        } else {
            idle.readers.push(opened);
        }
    }

    /// How long to wait for another process, so that two do not meet again and again.
    fn pause(&self) -> Duration {
        let most = u64::try_from(TURN_MAX.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(1_000 + self.env.random() % most)
    }
}

impl RecordStore for SqliteRecords {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn write(&self) -> RecordFuture<'_, Box<dyn WriteSession>> {
        let SqliteConfig { wait, statement, .. } = self.0.config;
        Box::pin(
            async move { Ok(Box::new(self.begin(true, wait, statement).await?) as Box<dyn WriteSession>) },
        )
    }

    fn read(&self, _: ReadFrom) -> RecordFuture<'_, Box<dyn ReadSession>> {
        let SqliteConfig { wait, statement, .. } = self.0.config;
        Box::pin(
            async move { Ok(Box::new(self.begin(false, wait, statement).await?) as Box<dyn ReadSession>) },
        )
    }

    fn migrate<'a>(&'a self, migrations: &'a [Migration]) -> RecordFuture<'a, Migrated> {
        Box::pin(super::migrations::migrate(|| self.exclusive(), migrations))
    }

    fn close(&self) -> RecordFuture<'_, ()> {
        Box::pin(async move {
            self.0.writer.close();
            self.0.readers.close();
            let idle = {
                let mut idle = self.0.idle.lock();
                self.0.closed.store(true, Ordering::Relaxed);
                std::mem::take(&mut *idle)
            };
            // Closing writes to the disk.
            let closed = self.0.pool.run(move || drop(idle)).await;
            closed.map_err(|error| RecordError::Backend { cause: error.to_string(), unknown: false })
        })
    }
}
