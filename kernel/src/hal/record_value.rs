//! What goes into a statement and what comes out of it: values, statements, rows.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::Timestamp;

use super::RecordError;

/// A value of a column or a placeholder.
///
/// | value | column type to write | kept as |
/// |---|---|---|
/// | `Bool` | `BOOLEAN` | 0 or 1 on SQLite |
/// | `Int` | `BIGINT` | |
/// | `Float` | `DOUBLE PRECISION` | never NaN, which SQLite has not |
/// | `Text` | `TEXT` | without the character NUL, which PostgreSQL has not |
/// | `Bytes` | `BYTEA` | |
/// | `Timestamp` | `TIMESTAMPTZ` | whole microseconds, what is finer is cut off; a number of them on SQLite |
///
/// Whoever reads says which type it wants ([`Row::get`]): SQLite does not know the type of what is computed, and gives a number where PostgreSQL gives a `Bool` or
/// a `Timestamp`.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum RecordValue {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// A point in time.
    Timestamp(Timestamp),
}

impl RecordValue {
    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "a time",
        }
    }

    /// What it costs of a result's bound, in bytes.
    pub fn cost(&self) -> usize {
        let content = match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        size_of::<Self>() + content
    }
}

/// Its kind only: what is stored may be a secret.
impl fmt::Debug for RecordValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

macro_rules! value_from {
    ($($from:ty => $value:expr),* $(,)?) => {
        $(impl From<$from> for RecordValue {
            fn from(value: $from) -> Self {
                let make: fn($from) -> Self = $value;
                make(value)
            }
        })*
    };
}

value_from! {
    bool => Self::Bool,
    i64 => Self::Int,
    i32 => |value| Self::Int(value.into()),
    u32 => |value| Self::Int(value.into()),
    f64 => Self::Float,
    String => Self::Text,
    &str => |value| Self::Text(value.to_owned()),
    Bytes => Self::Bytes,
    Vec<u8> => |value| Self::Bytes(value.into()),
    &[u8] => |value| Self::Bytes(Bytes::copy_from_slice(value)),
    Timestamp => Self::Timestamp,
}

impl<T: Into<RecordValue>> From<Option<T>> for RecordValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What a value can be read as. `Option` takes null, too.
pub trait FromRecord: Sized {
    /// The value as this type; none when it is of another kind.
    fn from_record(value: &RecordValue) -> Option<Self>;
}

impl FromRecord for RecordValue {
    fn from_record(value: &RecordValue) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: FromRecord> FromRecord for Option<T> {
    fn from_record(value: &RecordValue) -> Option<Self> {
        match value {
            RecordValue::Null => Some(None),
            value => T::from_record(value).map(Some),
        }
    }
}

impl FromRecord for bool {
    fn from_record(value: &RecordValue) -> Option<Self> {
        match value {
            RecordValue::Bool(value) => Some(*value),
            RecordValue::Int(0) => Some(false),
            RecordValue::Int(1) => Some(true),
            _ => None,
        }
    }
}

impl FromRecord for i64 {
    fn from_record(value: &RecordValue) -> Option<Self> {
        if let RecordValue::Int(value) = value { Some(*value) } else { None }
    }
}

impl FromRecord for f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "SQLite may compute a whole number where PostgreSQL gives a float"
    )]
    fn from_record(value: &RecordValue) -> Option<Self> {
        match value {
            RecordValue::Float(value) => Some(*value),
            RecordValue::Int(value) => Some(*value as f64),
            _ => None,
        }
    }
}

impl FromRecord for String {
    fn from_record(value: &RecordValue) -> Option<Self> {
        if let RecordValue::Text(value) = value { Some(value.clone()) } else { None }
    }
}

impl FromRecord for Bytes {
    fn from_record(value: &RecordValue) -> Option<Self> {
        if let RecordValue::Bytes(value) = value { Some(value.clone()) } else { None }
    }
}

impl FromRecord for Timestamp {
    fn from_record(value: &RecordValue) -> Option<Self> {
        match value {
            RecordValue::Timestamp(value) => Some(*value),
            RecordValue::Int(micros) => timestamp_of_micros(*micros),
            _ => None,
        }
    }
}

/// Nanoseconds in a microsecond.
const MICRO: u64 = 1_000;

/// The whole microseconds of a point in time, as both kinds of store keep it.
pub fn micros_of(time: Timestamp) -> i64 {
    // 2^64 nanoseconds are fewer than 2^63 microseconds.
    i64::try_from(time.nanos() / MICRO).unwrap_or(i64::MAX)
}

/// The point in time so many microseconds after the epoch; none when it is before it or after the year 2554.
pub fn timestamp_of_micros(micros: i64) -> Option<Timestamp> {
    u64::try_from(micros).ok()?.checked_mul(MICRO).map(Timestamp)
}

/// One statement of SQL, with the values of its placeholders.
///
/// Placeholders are `$1`, `$2` and so on; each may stand several times. A statement is one of `SELECT`, `WITH`, `VALUES`, `INSERT`, `UPDATE`, `DELETE`,
/// and of `CREATE`, `ALTER` and `DROP`: transactions are the sessions', and nothing outlives one but what it stores.
#[derive(Clone)]
pub struct Statement {
    sql: Cow<'static, str>,
    values: Vec<RecordValue>,
    deadline: Option<Duration>,
}

impl Statement {
    /// A statement without values so far.
    pub fn new(sql: impl Into<Cow<'static, str>>) -> Self {
        Self { sql: sql.into(), values: Vec::new(), deadline: None }
    }

    /// Gives the next placeholder its value: the first call that of `$1`.
    #[must_use]
    pub fn bind(mut self, value: impl Into<RecordValue>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Lets it take no longer than this; what the store allows each statement holds, too.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The text.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The values, that of `$1` first.
    pub fn values(&self) -> &[RecordValue] {
        &self.values
    }

    /// How long it may take, when it was told.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }
}

impl From<&'static str> for Statement {
    fn from(sql: &'static str) -> Self {
        Self::new(sql)
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("sql", &self.sql).field("values", &self.values.len()).finish()
    }
}

/// One row of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<RecordValue>,
}

impl Row {
    /// A row whose values stand under these names. For drivers.
    pub fn new(columns: Arc<[String]>, values: Vec<RecordValue>) -> Self {
        debug_assert_eq!(columns.len(), values.len(), "a value for each column");
        Self { columns, values }
    }

    /// The values, in the order of the columns.
    pub fn values(&self) -> &[RecordValue] {
        &self.values
    }

    /// The value of the column at `index`, the first is 0.
    ///
    /// # Errors
    /// [`RecordError::BadValue`] when there is no such column, or its value is of another kind.
    pub fn get<T: FromRecord>(&self, index: usize) -> Result<T, RecordError> {
        let bad = |why: String| RecordError::BadValue { why };
        let value = self
            .values
            .get(index)
            .ok_or_else(|| bad(format!("there is no column {index}, but {} of them", self.values.len())))?;
        T::from_record(value).ok_or_else(|| {
            bad(format!("{:?} is {}, not {}", self.columns[index], value.kind(), std::any::type_name::<T>()))
        })
    }

    /// The value of the column of this name.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn named<T: FromRecord>(&self, name: &str) -> Result<T, RecordError> {
        let index = self.columns.iter().position(|column| column == name);
        let index =
            index.ok_or_else(|| RecordError::BadValue { why: format!("there is no column {name:?}") })?;
        self.get(index)
    }
}
