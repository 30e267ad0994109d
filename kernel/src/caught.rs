//! Runs what was written elsewhere (hooks, providers, services) so that its panic is a value.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use nexus_actors::{Panicked, guard};

/// Runs `work`; a panic in it gives its text and place.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    guard(work)
}

/// Makes a future and runs it; a panic in either gives its text and place. The future is not polled again after one.
pub(crate) async fn catch_async<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, Panicked> {
    let future = catch(make)?;
    let mut future = pin!(AssertUnwindSafe(future));
    std::future::poll_fn(move |cx| match guard(|| future.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(panicked) => std::task::Poll::Ready(Err(panicked)),
    })
    .await
}
