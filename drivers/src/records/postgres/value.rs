//! Values on their way to the server and back.

use std::error::Error;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use nexus_kernel::hal::{RecordError, RecordValue, Row, micros_of, timestamp_of_micros};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

/// The server counts from the year 2000: so many microseconds after the epoch.
const Y2K_MICROS: i64 = 946_684_800_000_000;

/// A value as a parameter.
#[derive(Debug)]
pub(super) struct Bound<'a>(pub(super) &'a RecordValue);

impl Bound<'_> {
    /// What it is sent as: the server converts it to what it is used as, as it does with constants.
    pub(super) fn kind(&self) -> Type {
        match self.0 {
            RecordValue::Bool(_) => Type::BOOL,
            RecordValue::Int(_) => Type::INT8,
            RecordValue::Float(_) => Type::FLOAT8,
            RecordValue::Text(_) => Type::TEXT,
            RecordValue::Bytes(_) => Type::BYTEA,
            RecordValue::Timestamp(_) => Type::TIMESTAMPTZ,
            _ => Type::UNKNOWN,
        }
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            RecordValue::Bool(value) => out.put_u8((*value).into()),
            RecordValue::Int(value) => out.put_i64(*value),
            RecordValue::Float(value) => out.put_f64(*value),
            RecordValue::Text(value) => out.put_slice(value.as_bytes()),
            RecordValue::Bytes(value) => out.put_slice(value),
            RecordValue::Timestamp(value) => out.put_i64(micros_of(*value) - Y2K_MICROS),
            _ => return Ok(IsNull::Yes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(kind, out)
    }
}

/// A value of a column.
struct Found(RecordValue);

impl<'a> FromSql<'a> for Found {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let value = match *kind {
            Type::BOOL => RecordValue::Bool(u8::from_be_bytes(raw.try_into()?) != 0),
            Type::INT2 => RecordValue::Int(i16::from_be_bytes(raw.try_into()?).into()),
            Type::INT4 => RecordValue::Int(i32::from_be_bytes(raw.try_into()?).into()),
            Type::INT8 => RecordValue::Int(i64::from_be_bytes(raw.try_into()?)),
            Type::FLOAT4 => RecordValue::Float(f32::from_be_bytes(raw.try_into()?).into()),
            Type::FLOAT8 => RecordValue::Float(f64::from_be_bytes(raw.try_into()?)),
            Type::BYTEA => RecordValue::Bytes(Bytes::copy_from_slice(raw)),
            Type::TIMESTAMPTZ => {
                let micros = i64::from_be_bytes(raw.try_into()?).checked_add(Y2K_MICROS);
                let time =
                    micros.and_then(timestamp_of_micros).ok_or("a time is before 1970 or after 2554")?;
                RecordValue::Timestamp(time)
            }
            Type::VOID => RecordValue::Null,
            _ => RecordValue::Text(std::str::from_utf8(raw)?.to_owned()),
        };
        Ok(Self(value))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(RecordValue::Null))
    }

    fn accepts(kind: &Type) -> bool {
        const KINDS: &[Type] = &[
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::BYTEA,
            Type::TIMESTAMPTZ,
            Type::VOID,
            Type::TEXT,
            Type::VARCHAR,
            Type::BPCHAR,
            Type::NAME,
            Type::UNKNOWN,
        ];
        KINDS.contains(kind)
    }
}

/// A row of ours from the server's.
pub(super) fn row_of(row: &tokio_postgres::Row, columns: &Arc<[String]>) -> Result<Row, RecordError> {
    let value = |index: usize| {
        let column = &row.columns()[index];
        row.try_get::<_, Found>(index).map(|found| found.0).map_err(|error| {
            let source = Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let (name, kind) = (column.name(), column.type_());
            RecordError::BadValue {
                why: format!("the column {name:?} of type {kind} is to be cast to a portable type: {source}"),
            }
        })
    };
    let values = (0..row.len()).map(value).collect::<Result<_, _>>()?;
    Ok(Row::new(columns.clone(), values))
}
