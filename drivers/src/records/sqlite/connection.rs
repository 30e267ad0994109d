//! One connection: all of this blocks, and runs on the pool.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_actors::Env;
use nexus_kernel::hal::{
    ROWS_BYTES_MAX, ROWS_MAX, RecordError, RecordValue, Row, Statement, micros_of, timestamp_of_micros,
};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags};

use super::error::translate;

/// How long SQLite itself waits for a lock, on a thread of the pool. Longer waits are made without one.
const BUSY: Duration = Duration::from_millis(50);

/// How many steps of SQLite's machine go between two looks at the clock: some 100 µs.
const STEPS: i32 = 4_000;

/// A connection, and what ends its statement.
#[derive(Debug)]
pub(super) struct Opened {
    connection: Connection,
    running: Arc<Mutex<Option<Running>>>,
}

/// Until when the statement may run, and for whom.
#[derive(Debug)]
struct Running {
    until: Instant,
    wanted: Weak<()>,
}

impl Opened {
    /// Opens the file, which is made when it is not there.
    pub(super) fn open(path: &Path, reads_only: bool, env: Env) -> Result<Self, RecordError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(translate)?;
        let running: Arc<Mutex<Option<Running>>> = Arc::default();
        set_up(&connection, reads_only).map_err(translate)?;
        connection.authorizer(Some(nothing_temporary)).map_err(translate)?;
        let watched = running.clone();
        let is_over = move || {
            let running = watched.lock();
            running.as_ref().is_some_and(|it| it.wanted.strong_count() == 0 || env.now() >= it.until)
        };
        connection.progress_handler(STEPS, Some(is_over)).map_err(translate)?;
        Ok(Self { connection, running })
    }

    /// Runs `job`; what of it takes longer, or is given up by whom it is for, is interrupted.
    pub(super) fn run<T>(&mut self, until: Instant, wanted: Weak<()>, job: impl FnOnce(&mut Self) -> T) -> T {
        *self.running.lock() = Some(Running { until, wanted });
        let done = job(self);
        *self.running.lock() = None;
        done
    }

    /// Whether it is in no transaction.
    pub(super) fn is_clean(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// Carries out one of `BEGIN`, `COMMIT` and `ROLLBACK`.
    pub(super) fn control(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.connection.execute_batch(sql)
    }

    /// The rows of a statement, and how many it changed.
    pub(super) fn query(&self, statement: &Statement) -> Result<(Vec<Row>, u64), RecordError> {
        let mut prepared = self.connection.prepare_cached(statement.sql()).map_err(translate)?;
        for index in 1..=prepared.parameter_count() {
            // `$2` is a name to SQLite, and the first one that it meets has the index 1.
            let number = prepared.parameter_name(index).and_then(|name| name.get(1..)?.parse::<usize>().ok());
            let value = number.and_then(|number| statement.values().get(number.checked_sub(1)?));
            let value =
                value.ok_or_else(|| RecordError::Syntax { cause: "a placeholder has no value".into() })?;
            prepared.raw_bind_parameter(index, bound(value)).map_err(translate)?;
        }
        let changes = !prepared.readonly();
        // Known once it runs: a statement that was kept has the columns of then, until it meets tables that were altered since.
        let mut described: Option<(Vec<Kind>, Arc<[String]>)> = None;
        let (mut rows, mut cost) = (Vec::new(), 0_usize);
        let mut found = prepared.raw_query();
        while let Some(row) = found.next().map_err(translate)? {
            let (kinds, columns) = described.get_or_insert_with(|| {
                let now: &rusqlite::Statement<'_> = row.as_ref();
                let kinds = now.columns().map(|column| Kind::of(column.decl_type())).collect();
                (kinds, now.column_names().map(str::to_owned).collect())
            });
            let value = |(index, kind): (usize, &Kind)| read(row.get_ref(index).map_err(translate)?, *kind);
            let values: Vec<RecordValue> = kinds.iter().enumerate().map(value).collect::<Result<_, _>>()?;
            cost += values.iter().map(RecordValue::cost).sum::<usize>();
            if rows.len() == ROWS_MAX {
                return Err(RecordError::TooLarge { what: "the number of rows", max: ROWS_MAX });
            }
            if cost > ROWS_BYTES_MAX {
                return Err(RecordError::TooLarge { what: "the size of the rows", max: ROWS_BYTES_MAX });
            }
            rows.push(Row::new(columns.clone(), values));
        }
        Ok((rows, if changes { self.connection.changes() } else { 0 }))
    }
}

/// Refuses what would stay with the connection, and hide from its next sessions what all others find under this name.
fn nothing_temporary(context: AuthContext<'_>) -> Authorization {
    let is_temporary = match context.action {
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateTempTrigger { .. } => true,
        // By its name alone.
        AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateVtable { .. } => context.database_name == Some("temp"),
        _ => false,
    };
    if is_temporary { Authorization::Deny } else { Authorization::Allow }
}

fn set_up(connection: &Connection, reads_only: bool) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY)?;
    // Text in double quotes is a name, as it is elsewhere.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // What is acknowledged is on the disk, not only with the system.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "query_only", reads_only)
}

fn bound(value: &RecordValue) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        RecordValue::Bool(value) => ValueRef::Integer((*value).into()),
        RecordValue::Int(value) => ValueRef::Integer(*value),
        RecordValue::Float(value) => ValueRef::Real(*value),
        RecordValue::Text(value) => ValueRef::Text(value.as_bytes()),
        RecordValue::Bytes(value) => ValueRef::Blob(value),
        RecordValue::Timestamp(value) => ValueRef::Integer(micros_of(*value)),
        _ => ValueRef::Null,
    })
}

/// What a column's declared type makes of a number.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Bool,
    Timestamp,
}

impl Kind {
    fn of(declared: Option<&str>) -> Self {
        let declared = declared.unwrap_or_default().to_ascii_lowercase();
        match declared.as_str() {
            kind if kind.starts_with("bool") => Self::Bool,
            kind if kind.starts_with("timestamp") => Self::Timestamp,
            _ => Self::Plain,
        }
    }
}

fn read(value: ValueRef<'_>, kind: Kind) -> Result<RecordValue, RecordError> {
    let bad = |why: &str| RecordError::BadValue { why: why.into() };
    Ok(match (value, kind) {
        (ValueRef::Null, _) => RecordValue::Null,
        (ValueRef::Integer(bit @ (0 | 1)), Kind::Bool) => RecordValue::Bool(bit == 1),
        (ValueRef::Integer(micros), Kind::Timestamp) => RecordValue::Timestamp(
            timestamp_of_micros(micros).ok_or_else(|| bad("a time is before 1970 or after 2554"))?,
        ),
        (ValueRef::Integer(value), _) => RecordValue::Int(value),
        (ValueRef::Real(value), _) => RecordValue::Float(value),
        (ValueRef::Text(text), _) => {
            RecordValue::Text(std::str::from_utf8(text).map_err(|_| bad("a text is not UTF-8"))?.to_owned())
        }
        (ValueRef::Blob(bytes), _) => RecordValue::Bytes(Bytes::copy_from_slice(bytes)),
    })
}
