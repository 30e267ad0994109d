//! Rows in tables: SQL, for services. The kernel itself never uses it.
//!
//! **Portable SQL** is what every store takes, so that a service names its store in its settings and nowhere else:
//!
//! - One statement at a time, placeholders `$1`, `$2`, types as in [`RecordValue`]; `CAST(x AS BIGINT)`, not `x::bigint`. Text stands in `'single'`
//!   quotes and names in none, or in `"double"` ones.
//! - `INSERT .. ON CONFLICT (..) DO NOTHING` or `DO UPDATE SET x = excluded.x`, `RETURNING`, `LIMIT .. OFFSET`, joins, `WITH`, window functions,
//!   `COALESCE`, `CASE`, `TRUE`, `FALSE`.
//! - `sum` of a `BIGINT` column is to be cast back to `BIGINT`. Whether `LIKE` tells `a` from `A`, the order of text other than ASCII, and the clock
//!   (`now()`) are the store's own: compare `lower(..)`, order in the program, and bind the time.
//! - Identities are the caller's: no `SERIAL`, no `AUTOINCREMENT`. Columns of a primary key are `NOT NULL` in so many words.
//! - A store may or may not refuse a value of another type than the column's: bind the right one.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use nexus_actors::Env;

use super::{Row, Statement};

/// How many rows one query gives at most: what has more is read in pages, by key.
pub const ROWS_MAX: usize = 65_536;

/// How many bytes one query gives at most, by what its values [cost](super::RecordValue::cost).
pub const ROWS_BYTES_MAX: usize = 64 << 20;

/// The longest text of a statement, in bytes.
pub const SQL_MAX: usize = 256 << 10;

/// How many placeholders a statement has at most.
pub const PLACEHOLDERS_MAX: usize = 30_000;

/// What a record store's operation gives. It may be polled by any executor.
pub type RecordFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, RecordError>> + Send + 'a>>;

/// Why a record store said no. What was asked for was not carried out, unless [`is_unknown`](Self::is_unknown).
///
/// No variant holds what was bound, and none a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is a row with this key already.
    #[error("a row with this key is there already: {constraint}")]
    UniqueViolation {
        /// What was violated, in the store's words.
        constraint: String,
    },
    /// A row names one that is not there, or is named by another.
    #[error("a foreign key is violated: {constraint}")]
    ForeignKeyViolation {
        /// What was violated, in the store's words.
        constraint: String,
    },
    /// A row is not what the table's check allows.
    #[error("a check is violated: {constraint}")]
    CheckViolation {
        /// What was violated, in the store's words.
        constraint: String,
    },
    /// A column needs a value.
    #[error("a column needs a value: {column}")]
    NotNullViolation {
        /// The column, in the store's words.
        column: String,
    },
    /// It cannot stand beside what another session did meanwhile. The whole session can be repeated; [`transact`] does.
    #[error("another session was in the way: {cause}")]
    Conflict {
        /// What the store said.
        cause: String,
    },
    /// No session was free in time, or another process kept the store.
    #[error("{what} is busy")]
    Busy {
        /// What was waited for.
        what: String,
    },
    /// The store is not reached.
    #[error("the connection is lost: {cause}{}", maybe(*.unknown))]
    ConnectionLost {
        /// What was noticed.
        cause: String,
        /// Whether it may have been carried out nevertheless.
        unknown: bool,
    },
    /// The deadline is over.
    #[error("{what} took longer than {limit:?}{}", maybe(*.unknown))]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long that was.
        limit: Duration,
        /// Whether it may have been carried out nevertheless.
        unknown: bool,
    },
    /// The statement is not portable SQL, or none at all.
    #[error("the statement is wrong: {cause}")]
    Syntax {
        /// What is wrong with it.
        cause: String,
    },
    /// There is no table of this name.
    #[error("there is no such table: {cause}")]
    NoSuchTable {
        /// What the store said.
        cause: String,
    },
    /// A read session does not write.
    #[error("a read session does not write")]
    ReadOnly,
    /// A statement of this session failed before: nothing of it will be carried out.
    #[error("the session is over: an earlier statement of it failed or was given up")]
    Aborted,
    /// A value cannot be stored, or is not what it is read as.
    #[error("{why}")]
    BadValue {
        /// What is wrong with it.
        why: String,
    },
    /// A setting is wrong.
    #[error("{why}")]
    BadOption {
        /// What is wrong with it.
        why: String,
    },
    /// More than a bound allows.
    #[error("{what} is more than {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// What was migrated before is not what is migrated now. Nothing was changed.
    #[error("the migrations do not fit the store: {why}")]
    History {
        /// Where they part.
        why: String,
    },
    /// A migration failed; those before it stand, and it does not.
    #[error("migration {id} ({name}): {cause}")]
    Migration {
        /// Which.
        id: u32,
        /// Its name.
        name: String,
        /// What failed.
        cause: Box<RecordError>,
    },
    /// Anything else.
    #[error("{cause}{}", maybe(*.unknown))]
    Backend {
        /// What the store said.
        cause: String,
        /// Whether it may have been carried out nevertheless.
        unknown: bool,
    },
}

fn maybe(unknown: bool) -> &'static str {
    if unknown { "; it may have been carried out" } else { "" }
}

impl RecordError {
    /// Whether what was asked for may have been carried out. Only of a commit: what is not committed never is.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::ConnectionLost { unknown, .. }
            | Self::TimedOut { unknown, .. }
            | Self::Backend { unknown, .. } => *unknown,
            Self::Migration { cause, .. } => cause.is_unknown(),
            _ => false,
        }
    }

    /// Whether repeating the whole session may help, and can do nothing twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict { .. } => true,
            Self::ConnectionLost { unknown, .. } => !unknown,
            _ => false,
        }
    }
}

/// A store of rows in tables.
///
/// Each session is one transaction, and sees one state of the store from its first statement on, with what it wrote itself. Write sessions are
/// serializable: what is committed is what the sessions would have done one after another. A store may let them in one at a time, so nobody opens a write
/// session while it holds one.
///
/// Opening a store opens nothing: that is done when it is first used, and again after it was lost. A driver is done when
/// `hal::conformance::record_store` passes.
pub trait RecordStore: fmt::Debug + Send + Sync + 'static {
    /// What kind of store it is, for logs.
    fn kind(&self) -> &'static str;

    /// Begins a session that writes. Waits for its turn, and for a store that comes back, up to the store's deadline. Repeat: safe.
    fn write(&self) -> RecordFuture<'_, Box<dyn WriteSession>>;

    /// Begins a session that reads. Waits as [`write`](Self::write) does. Repeat: safe.
    fn read(&self, from: ReadFrom) -> RecordFuture<'_, Box<dyn ReadSession>>;

    /// Brings the tables up to the last of `migrations`, which are in order. Each that is not there yet is carried out in a transaction of its own, whole
    /// or not at all, and recorded with its checksum. Processes that migrate at once do it once. Repeat: safe.
    ///
    /// # Errors
    /// [`RecordError::History`] when one that was carried out has changed since, is left out, or comes before one that was carried out; nothing is
    /// changed then. [`RecordError::Migration`] with the first that failed.
    fn migrate<'a>(&'a self, migrations: &'a [Migration]) -> RecordFuture<'a, Migrated>;

    /// Ends: sessions are not begun any more, and what is idle is closed. Sessions that are open end by themselves. Repeat: safe.
    fn close(&self) -> RecordFuture<'_, ()>;
}

/// Where a read session reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// What is committed, all of it.
    #[default]
    Latest,
    /// A replica, when there is one that is reached: it may be behind, and two sessions may see the times in another order.
    Replica,
}

/// A session that reads. Dropping it ends it.
pub trait ReadSession: fmt::Debug + Send {
    /// The rows of a statement, [`ROWS_MAX`] and [`ROWS_BYTES_MAX`] at most. In a write session any statement may be asked, `INSERT .. RETURNING` too.
    ///
    /// Dropping the future gives the statement up and the session with it.
    ///
    /// # Errors
    /// After any error the session is over: what follows is [`RecordError::Aborted`].
    fn query<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, Vec<Row>>;
}

/// A session that writes. Dropping it takes back what it did.
pub trait WriteSession: ReadSession {
    /// Carries out a statement, and says how many rows it inserted, updated or deleted; nothing useful for `CREATE`, `ALTER` and `DROP`. Otherwise as
    /// [`query`](ReadSession::query).
    fn execute<'a>(&'a mut self, statement: &'a Statement) -> RecordFuture<'a, u64>;

    /// Makes all of it durable and seen, or nothing. When the future is dropped, it may have been done.
    ///
    /// # Errors
    /// [`RecordError::is_unknown`] tells whether it may have been carried out: then only reading tells.
    fn commit(self: Box<Self>) -> RecordFuture<'static, ()>;

    /// Takes it back, and waits until that is done.
    fn rollback(self: Box<Self>) -> RecordFuture<'static, ()>;
}

/// One step of a schema's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    id: u32,
    name: Cow<'static, str>,
    statements: Vec<Cow<'static, str>>,
}

impl Migration {
    /// A step without statements so far. Identities grow from step to step.
    pub fn new(id: u32, name: impl Into<Cow<'static, str>>) -> Self {
        Self { id, name: name.into(), statements: Vec::new() }
    }

    /// Adds a statement.
    #[must_use]
    pub fn step(mut self, sql: impl Into<Cow<'static, str>>) -> Self {
        self.statements.push(sql.into());
        self
    }

    /// Which step it is.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, in order.
    pub fn statements(&self) -> &[Cow<'static, str>] {
        &self.statements
    }

    /// By what a change of it is noticed: the BLAKE3 hash of its name and its statements, in hexadecimal.
    pub fn checksum(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&self.name).chain(&self.statements) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// What a migration came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// The steps that were carried out by this call.
    pub applied: Vec<u32>,
}

/// How often [`transact`] tries, and how long it waits between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times it tries, at most.
    pub attempts: u32,
    /// The longest wait after the first try; it doubles with each, and what is waited is drawn from nothing up to it.
    pub wait: Duration,
    /// The longest wait of all.
    pub wait_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 8, wait: Duration::from_millis(10), wait_max: Duration::from_secs(1) }
    }
}

impl RetryPolicy {
    /// How long to wait after the try of this number, the first is 0: "full jitter", so that those who collided do not meet again.
    pub fn wait_after(&self, attempt: u32, env: &Env) -> Duration {
        let longest = self.wait.saturating_mul(1_u32 << attempt.min(20)).min(self.wait_max);
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(env.random() % nanos.saturating_add(1).max(1))
    }
}

/// Does `work` in a write session and commits it, again when another session was in the way or the connection was lost before the commit. What may have been
/// carried out is never repeated. `work` may run several times, and must have no effect but by the session.
///
/// # Errors
/// What `work` or the commit gave; of the last try when none succeeded.
pub async fn transact<T: Send>(
    store: &dyn RecordStore,
    env: &Env,
    policy: RetryPolicy,
    mut work: impl for<'s> FnMut(&'s mut dyn WriteSession) -> RecordFuture<'s, T> + Send,
) -> Result<T, RecordError> {
    let mut attempt = 0;
    loop {
        // The store itself waits until it is reached: what it gives up is not tried again.
        let session = store.write().await?;
        match once(session, &mut work).await {
            Err(error) if error.is_retryable() && attempt + 1 < policy.attempts => {
                tracing::debug!(store = store.kind(), attempt, %error, "a session is repeated");
                env.sleep(policy.wait_after(attempt, env)).await;
                attempt += 1;
            }
            done => return done,
        }
    }
}

async fn once<T: Send>(
    mut session: Box<dyn WriteSession>,
    work: &mut (impl for<'s> FnMut(&'s mut dyn WriteSession) -> RecordFuture<'s, T> + Send),
) -> Result<T, RecordError> {
    let done = work(&mut *session).await?;
    session.commit().await?;
    Ok(done)
}
