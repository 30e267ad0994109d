//! What went wrong, in the kernel's words.

use std::io;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;

/// How much of what somebody else says is told on.
const SAID_MAX: usize = 200;

/// A failure that is about this one call: the backend is well.
pub(super) fn of_the_call(
    kind: io::ErrorKind,
    what: impl Into<String>,
    cause: impl Into<String>,
) -> StoreError {
    StoreError::Io { what: what.into(), source: Arc::new(io::Error::new(kind, cause.into())) }
}

/// A failure of the backend. Of a change nobody knows then what became of it.
pub(super) fn of_the_backend(
    changing: bool,
    what: impl Into<String>,
    cause: impl Into<String>,
) -> StoreError {
    let (what, cause) = (what.into(), cause.into());
    if changing { StoreError::Unknown { what, cause } } else { StoreError::Backend { what, cause } }
}

pub(super) fn bad(why: impl Into<String>) -> StoreError {
    StoreError::BadOption { why: why.into() }
}

/// `text` on one line, and not too long.
pub(super) fn shortened(text: &str) -> String {
    text.trim().chars().take(SAID_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
