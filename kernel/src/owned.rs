//! Futures that the kernel finishes when their caller does not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use nexus_actors::Env;

/// Says from when on the kernel owns a future.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ownership(Arc<AtomicBool>);

impl Ownership {
    /// From here on the future is finished, whoever waits for it.
    pub(crate) fn take(&self) {
        // Read by the thread that drops the future, which has polled it or was handed it: the hand-over orders the two.
        self.0.store(true, Ordering::Relaxed);
    }

    /// The future may end with its caller again.
    pub(crate) fn give_back(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A future that runs on its caller's task, and goes on alone when it is dropped while the kernel owns it.
pub(crate) struct Owned<T: Send + 'static> {
    env: Env,
    name: &'static str,
    ownership: Ownership,
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> Owned<T> {
    /// A future that the kernel owns from its first step on.
    pub(crate) fn from_start<F>(env: &Env, name: &'static str, work: F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        Self::new(env, name, |ownership| async move {
            ownership.take();
            work.await
        })
    }

    /// `make` is given what says when the kernel takes over.
    pub(crate) fn new<F>(env: &Env, name: &'static str, make: impl FnOnce(Ownership) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let ownership = Ownership::default();
        let future = Box::pin(make(ownership.clone()));
        Self { env: env.clone(), name, ownership, future: Some(future) }
    }
}

impl<T: Send + 'static> Future for Owned<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Not there while it is polled: when it panics it is gone, and with it its locks, and nobody polls it again.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let done = future.as_mut().poll(cx);
        if done.is_pending() {
            self.future = Some(future);
        }
        done
    }
}

impl<T: Send + 'static> Drop for Owned<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.future.take()
            && self.ownership.0.load(Ordering::Relaxed)
        {
            self.env.spawn(self.name, async move {
                // Nobody waits for the result any more.
                let _ = rest.await;
            });
        }
    }
}
