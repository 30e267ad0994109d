//! The suites of [`ObjectStore`](crate::hal::ObjectStore): one for content by its hash, one for content by its path.

pub mod content;
pub mod path;
mod upload;

use nexus_actors::block_on;

use crate::hal::{StoreError, StoreFuture};

/// Waits for a call of a driver.
fn wait<T>(call: StoreFuture<'_, T>) -> Result<T, StoreError> {
    block_on(call)
}

/// Whether `result` is the failure that `is` describes.
fn fails<T: std::fmt::Debug>(
    what: &str,
    result: Result<T, StoreError>,
    is: fn(&StoreError) -> bool,
) -> super::Verdict {
    match result {
        Err(error) if is(&error) => Ok(()),
        other => Err(format!("{what}: got {other:?}")),
    }
}

fn not_found(error: &StoreError) -> bool {
    matches!(error, StoreError::NotFound { .. })
}
