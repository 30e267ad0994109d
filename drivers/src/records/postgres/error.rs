//! What the server says, in our words. Details are left out: they have the values in them.

use std::io;
use std::time::Duration;

use nexus_kernel::hal::RecordError;
use tokio_postgres::Error;
use tokio_postgres::error::DbError;

/// The errors of what ran for `limit` at most. `commits` says that it was a commit, whose end may be unknown.
pub(super) fn translate(error: &Error, limit: Duration, commits: bool) -> RecordError {
    match error.as_db_error() {
        Some(said) => of_server(said, limit, commits),
        // Before it was sent, it was encoded.
        None if error.to_string().contains("serializing parameter") => {
            RecordError::BadValue { why: "a value cannot be sent".into() }
        }
        None if is_no_way(error) => RecordError::BadOption { why: cause_of(error) },
        None => RecordError::ConnectionLost { cause: cause_of(error), unknown: commits },
    }
}

/// Whether the two will never agree on how to encrypt, or the certificate is not to be trusted: no other try helps.
fn is_no_way(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    error.to_string().starts_with("error performing TLS handshake")
        && source.is_some_and(|source| {
            source.downcast_ref::<io::Error>().is_none_or(|error| error.kind() == io::ErrorKind::InvalidData)
        })
}

/// An error with what it came from; none of them has more of the settings in it than the server's address.
fn cause_of(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn of_server(said: &DbError, limit: Duration, commits: bool) -> RecordError {
    let message = said.message().to_owned();
    let named = |name: Option<&str>| name.unwrap_or(said.message()).to_owned();
    let lost = |unknown| RecordError::ConnectionLost { cause: said.message().to_owned(), unknown };
    match said.code().code() {
        "23505" => RecordError::UniqueViolation { constraint: named(said.constraint()) },
        "23503" => RecordError::ForeignKeyViolation { constraint: named(said.constraint()) },
        "23514" => RecordError::CheckViolation { constraint: named(said.constraint()) },
        "23502" => RecordError::NotNullViolation { column: named(said.column()) },
        "40001" | "40P01" | "55P03" => RecordError::Conflict { cause: message },
        "57014" => RecordError::TimedOut { what: "the statement", limit, unknown: false },
        "25P03" => RecordError::TimedOut { what: "the session, which did nothing,", limit, unknown: false },
        "25006" => RecordError::ReadOnly,
        "25P02" => RecordError::Aborted,
        "42P01" => RecordError::NoSuchTable { cause: message },
        // It is not known at which moment of a commit the server went.
        "57P01" | "57P02" => lost(commits),
        "57P03" | "53300" => lost(false),
        "28000" | "28P01" | "3D000" => {
            RecordError::BadOption { why: format!("the server refuses: {message}") }
        }
        code => match code.get(..2) {
            Some("08") => lost(commits),
            Some("22") => RecordError::BadValue { why: without_values(&message) },
            Some("42" | "0A") => RecordError::Syntax { cause: message },
            _ => RecordError::Backend { cause: message, unknown: false },
        },
    }
}

/// What is said of a value has it in it, in quotes.
fn without_values(message: &str) -> String {
    // A quote in the value ends nothing: all from the first to the last of them is the value's.
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}..{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_told() {
        let check = |message: &str, want: &str| assert_eq!(without_values(message), want);
        check("invalid input syntax for type bigint: \"a\"b\"", "invalid input syntax for type bigint: ..");
        check("value \"9\" is out of range for type bigint", "value .. is out of range for type bigint");
        check("division by zero", "division by zero");
    }
}
