//! What SQLite says, in our words.

use nexus_kernel::hal::RecordError;
use rusqlite::{Error, ErrorCode, ffi};

/// The errors of a statement that was not a commit: nothing of it is carried out.
pub(super) fn translate(error: Error) -> RecordError {
    match error {
        Error::SqliteFailure(code, message) => of_code(code, message.unwrap_or_else(|| code.to_string())),
        // It has the whole statement in it otherwise.
        Error::SqlInputError { error, msg, .. } => of_code(error, msg),
        Error::FromSqlConversionFailure(..) | Error::Utf8Error(..) | Error::IntegralValueOutOfRange(..) => {
            RecordError::BadValue { why: error.to_string() }
        }
        Error::MultipleStatement | Error::NulError(_) => RecordError::Syntax { cause: error.to_string() },
        other => RecordError::Backend { cause: other.to_string(), unknown: false },
    }
}

/// The errors of a commit. One of the disk leaves open what is found there after a crash.
pub(super) fn of_commit(error: Error) -> RecordError {
    match translate(error) {
        RecordError::Backend { cause, .. } => RecordError::Backend { cause, unknown: true },
        other => other,
    }
}

fn of_code(code: ffi::Error, message: String) -> RecordError {
    let constraint = message.rsplit(": ").next().unwrap_or_default().to_owned();
    match (code.extended_code, code.code) {
        (
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID,
            _,
        ) => RecordError::UniqueViolation { constraint },
        (ffi::SQLITE_CONSTRAINT_FOREIGNKEY, _) => RecordError::ForeignKeyViolation { constraint: message },
        (ffi::SQLITE_CONSTRAINT_CHECK, _) => RecordError::CheckViolation { constraint },
        (ffi::SQLITE_CONSTRAINT_NOTNULL, _) => RecordError::NotNullViolation { column: constraint },
        (_, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => RecordError::Conflict { cause: message },
        (_, ErrorCode::ReadOnly) => RecordError::ReadOnly,
        (_, ErrorCode::TypeMismatch) => RecordError::BadValue { why: message },
        (ffi::SQLITE_ERROR, _) if message.contains("no such table") => {
            RecordError::NoSuchTable { cause: message }
        }
        (ffi::SQLITE_ERROR, _) if message.contains("integer overflow") => {
            RecordError::BadValue { why: message }
        }
        // What is temporary is refused.
        (ffi::SQLITE_ERROR | ffi::SQLITE_AUTH, _) => RecordError::Syntax { cause: message },
        _ => RecordError::Backend { cause: message, unknown: false },
    }
}
