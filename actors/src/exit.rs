//! Why an actor ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// The last word of an actor's incarnation, as its supervisor and `status()` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum ExitReason {
    /// It had nothing more to do.
    Normal,
    /// Its supervisor stopped it, in order.
    Shutdown,
    /// It was ended without being asked: a brutal kill, a stop that took too long, or its thread went away.
    Killed,
    /// One message held it for longer than its watchdog allows. A handler that blocks its thread cannot be
    /// ended, so the incarnation was written off.
    Wedged {
        /// The name of the message.
        message: &'static str,
        /// How long it had been held when the watchdog gave up.
        held: Duration,
    },
    /// It shared its thread with an actor that wedged, and was moved to another thread. Not its own fault:
    /// supervisors restart it at once and do not count it.
    Displaced {
        /// The actor that wedged.
        by: Arc<str>,
    },
    /// It gave this error as its reason.
    Error(Arc<str>),
    /// It panicked.
    Panic {
        /// What the panic said.
        message: Arc<str>,
        /// `file:line` of the panic, when it could be caught.
        location: Option<Arc<str>>,
        /// The message being handled; none in `init`, `terminate` and the like.
        handling: Option<&'static str>,
    },
    /// A supervisor restarted its children more often than its limit allows.
    RestartIntensity,
    /// A newer version took over its mailbox.
    Replaced,
    /// It did not answer within the time that was given, and was ended.
    TimedOut {
        /// What it was doing: `init`, `swap`.
        doing: &'static str,
    },
}

impl ExitReason {
    /// An error exit with this text.
    pub fn error(text: impl fmt::Display) -> Self {
        ExitReason::Error(text.to_string().into())
    }

    /// Whether a transient child stays down after this exit.
    pub fn is_normal(&self) -> bool {
        matches!(self, ExitReason::Normal | ExitReason::Shutdown | ExitReason::Replaced)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Normal => f.write_str("done"),
            ExitReason::Shutdown => f.write_str("shut down"),
            ExitReason::Killed => f.write_str("killed"),
            ExitReason::Wedged { message, held } => write!(f, "wedged in {message} for {held:?}"),
            ExitReason::Displaced { by } => write!(f, "displaced: {by} wedged its thread"),
            ExitReason::Error(text) => write!(f, "error: {text}"),
            ExitReason::Panic { message, location, handling } => {
                write!(f, "panicked: {message}")?;
                if let Some(place) = location {
                    write!(f, " at {place}")?;
                }
                if let Some(name) = handling {
                    write!(f, " while handling {name}")?;
                }
                Ok(())
            }
            ExitReason::RestartIntensity => f.write_str("restarted its children too often"),
            ExitReason::Replaced => f.write_str("replaced by a newer version"),
            ExitReason::TimedOut { doing } => write!(f, "took too long in {doing}"),
        }
    }
}

impl std::error::Error for ExitReason {}
