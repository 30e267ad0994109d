//! What goes wrong, in our kinds.

use std::io;
use std::time::Duration;

use nexus_kernel::hal::StoreError;
use redis::{ErrorKind, RedisError};

use super::config::RedisConfig;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no connection, or it broke, or nothing sensible came by it.
    Unreachable(String),
    /// The server does not want us.
    Refused(String),
    /// The server has no room.
    Full,
    /// The server did not do it, for a reason of its own.
    Failed(String),
}

impl Failure {
    /// What the client library says, without secrets.
    pub(super) fn of(error: &RedisError, config: &RedisConfig) -> Self {
        let said = config.hide(&error.to_string());
        let code = error.code().unwrap_or_default();
        if error.kind() == ErrorKind::AuthenticationFailed
            || matches!(code, "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED")
        {
            return Self::Refused(said);
        }
        // What has no code of the server's does not say that it did nothing: the connection broke, or the answer was none.
        if code.is_empty() {
            return Self::Unreachable(said);
        }
        if code == "OOM" { Self::Full } else { Self::Failed(said) }
    }

    pub(super) fn cause(&self) -> &str {
        match self {
            Self::Unreachable(cause) | Self::Refused(cause) | Self::Failed(cause) => cause,
            Self::Full => "it is full",
        }
    }

    /// Of a call that was not sent.
    pub(super) fn before(self, what: &str, config: &RedisConfig, retry_in: Duration) -> StoreError {
        match self {
            Self::Refused(cause) => refused(what, config, cause),
            other => StoreError::Unavailable {
                mount: format!("the cache at {}", config.address()),
                cause: other.cause().into(),
                retry_in,
            },
        }
    }

    /// Of a call that was sent, or may have been.
    pub(super) fn after(self, what: &'static str, changing: bool, config: &RedisConfig) -> StoreError {
        match self {
            Self::Refused(cause) => refused(what, config, cause),
            Self::Full => StoreError::Full,
            Self::Failed(cause) => StoreError::Backend { what: what.into(), cause },
            Self::Unreachable(cause) if changing => StoreError::Unknown { what: what.into(), cause },
            unreachable => unreachable.before(what, config, Duration::ZERO),
        }
    }
}

fn refused(what: &str, config: &RedisConfig, cause: String) -> StoreError {
    let cause = io::Error::new(io::ErrorKind::PermissionDenied, cause);
    StoreError::io(format!("{what} at {}", config.address()), cause)
}
