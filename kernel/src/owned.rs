//! Futures that the kernel finishes when their caller does not.
//!
//! Such a future has to be on the heap, and it is several kilobytes long: so the place of one that is done is kept for the next one of its kind.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use foldhash::fast::FixedState;
use nexus_actors::Env;

/// How many places of one kind each thread keeps.
const SPARE_MAX: usize = 32;

thread_local! {
    /// Places of futures that are done, by their kind: a `Vec<Place<F>>` for each `F`.
    static SPARE: RefCell<HashMap<TypeId, Box<dyn Any>, FixedState>> = RefCell::default();
}

/// Where a future is until it is done.
type Place<F> = Pin<Box<Option<F>>>;

/// Does something with the places that this thread keeps for futures of the kind `F`; none while the thread ends.
fn with_spare<F: 'static, R>(act: impl FnOnce(&mut Vec<Place<F>>) -> R) -> Option<R> {
    SPARE
        .try_with(|spare| {
            let mut spare = spare.borrow_mut();
            let kind = spare.entry(TypeId::of::<F>()).or_insert_with(|| Box::new(Vec::<Place<F>>::new()));
            kind.downcast_mut().map(act)
        })
        .ok()
        .flatten()
}

/// A place with a future in it, of whatever kind.
trait Placed<T>: Send {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T>;

    /// The future is done: its place is free for another one.
    fn done(self: Pin<Box<Self>>);
}

impl<F: Future + Send + 'static> Placed<F::Output> for Option<F> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx))
    }

    fn done(mut self: Pin<Box<Self>>) {
        // Before anything is borrowed: what goes with the future may make one of its kind.
        self.set(None);
        with_spare(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }
}

fn place<F: Future + Send + 'static>(future: F) -> Place<F> {
    match with_spare(Vec::pop).flatten() {
        Some(mut place) => {
            place.set(Some(future));
            place
        }
        None => Box::pin(Some(future)),
    }
}

/// Says from when on the kernel owns a future.
#[derive(Debug, Clone)]
pub(crate) struct Ownership(Option<Arc<AtomicBool>>);

impl Ownership {
    /// Of what nobody can take over: it ends where it is polled.
    pub(crate) const NONE: Self = Self(None);

    fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// From here on the future is finished, whoever waits for it.
    pub(crate) fn take(&self) {
        self.set(true);
    }

    /// The future may end with its caller again.
    pub(crate) fn give_back(&self) {
        self.set(false);
    }

    fn set(&self, taken: bool) {
        if let Some(owned) = &self.0 {
            // Read by the thread that drops the future, which has polled it or was handed it: the hand-over orders the two.
            owned.store(taken, Ordering::Relaxed);
        }
    }

    fn is_taken(&self) -> bool {
        self.0.as_ref().is_some_and(|owned| owned.load(Ordering::Relaxed))
    }
}

/// A future that runs on its caller's task, and goes on alone when it is dropped while the kernel owns it.
pub(crate) struct Owned<T: Send + 'static> {
    env: Env,
    name: &'static str,
    ownership: Ownership,
    future: Option<Pin<Box<dyn Placed<T>>>>,
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
        let ownership = Ownership::new();
        let future = place(make(ownership.clone()));
        Self { env: env.clone(), name, ownership, future: Some(future) }
    }

    /// Has what is not done with its first step go on on a task of its own, where it holds up nobody when its caller is not polled any more. None when it
    /// panicked there, and when the kernel has ended.
    pub(crate) async fn apart(mut self) -> Option<T> {
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut self).poll(cx))).await;
        if let Poll::Ready(done) = first {
            return Some(done);
        }
        let mut rest = self.future.take()?;
        let going_on = async move {
            let done = poll_fn(|cx| rest.as_mut().poll(cx)).await;
            rest.done();
            done
        };
        self.env.apart(self.name, going_on).await
    }
}

impl<T: Send + 'static> Future for Owned<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Not there while it is polled: when it panics it is gone, and with it its locks, and nobody polls it again.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let done = future.as_mut().poll(cx);
        match done {
            Poll::Pending => self.future = Some(future),
            Poll::Ready(_) => future.done(),
        }
        done
    }
}

impl<T: Send + 'static> Drop for Owned<T> {
    fn drop(&mut self) {
        if let Some(mut rest) = self.future.take()
            && self.ownership.is_taken()
        {
            self.env.spawn(self.name, async move {
                // Nobody waits for the result any more.
                let _ = poll_fn(|cx| rest.as_mut().poll(cx)).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::task::Waker;

    use super::*;

    fn kept<F: Future + 'static>(_: &F) -> usize {
        with_spare::<F, _>(|spare| spare.len()).expect("the thread runs")
    }

    fn number(number: u64) -> Ready<u64> {
        ready(number)
    }

    #[test]
    fn the_place_of_what_is_done_is_that_of_the_next_of_its_kind() {
        let mut cx = Context::from_waker(Waker::noop());
        for turn in 0..3 {
            let mut first = place(number(turn));
            assert_eq!(kept(&number(0)), 0, "the one that was kept is in use");
            assert_eq!(Placed::poll(first.as_mut(), &mut cx), Poll::Ready(turn));
            first.done();
            assert_eq!(kept(&number(0)), 1);
        }
        let many: Vec<_> = (0..2 * SPARE_MAX as u64).map(|n| place(number(n))).collect();
        many.into_iter().for_each(Placed::done);
        assert_eq!(kept(&number(0)), SPARE_MAX);
    }

    /// Done at once; when it goes, it has another one of its kind made.
    struct Nested(Option<Arc<AtomicBool>>);

    impl Future for Nested {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    impl Drop for Nested {
        fn drop(&mut self) {
            if let Some(gone) = self.0.take() {
                gone.store(true, Ordering::Relaxed);
                place(Self(None)).done();
            }
        }
    }

    #[test]
    fn what_goes_with_a_future_that_is_done_may_make_one_of_its_kind() {
        let gone = Arc::new(AtomicBool::new(false));
        place(Nested(Some(gone.clone()))).done();
        assert!(gone.load(Ordering::Relaxed));
        assert_eq!(with_spare::<Nested, _>(|spare| spare.len()), Some(2));
    }
}
