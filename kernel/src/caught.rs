//! Runs what was written elsewhere (hooks, providers) so that its panic is a value.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

/// Runs `work`; a panic in it gives its text.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(text_of)
}

/// Makes a future and runs it; a panic in either gives its text. The future must not be used afterwards, and is not.
pub(crate) async fn catch_async<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, String> {
    let future = catch(make)?;
    AssertUnwindSafe(future).catch_unwind().await.map_err(text_of)
}

fn text_of(payload: Box<dyn Any + Send>) -> String {
    let text = match payload.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => {
            payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without text".to_owned())
        }
    };
    // The payload is somebody's value, and its destructor may panic as well.
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(again);
    }
    text
}
