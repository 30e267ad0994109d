//! A value that is set once and can be awaited by many.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// Set once, awaited by any number of tasks in the order in which they came. Clones share the value.
#[derive(Debug)]
pub struct Latch<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waiting: Vec<(u64, Waker)>,
    tickets: u64,
}

impl<T> Clone for Latch<T> {
    fn clone(&self) -> Self {
        Latch(self.0.clone())
    }
}

impl<T: Clone> Default for Latch<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Latch<T> {
    /// One that is not set.
    pub fn new() -> Self {
        Latch(Arc::new(Mutex::new(State { value: None, waiting: Vec::new(), tickets: 0 })))
    }

    /// Sets the value; the first one stays.
    pub fn set(&self, value: T) {
        let woken = {
            let mut state = self.0.lock();
            if state.value.is_some() {
                return;
            }
            state.value = Some(value);
            std::mem::take(&mut state.waiting)
        };
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The value, if it is set.
    pub fn get(&self) -> Option<T> {
        self.0.lock().value.clone()
    }

    /// Waits for the value. Dropping the future gives its place up.
    pub async fn wait(&self) -> T {
        let mut ticket = Ticket { latch: self, number: None };
        poll_fn(|cx| {
            let mut state = ticket.latch.0.lock();
            if let Some(value) = &state.value {
                return Poll::Ready(value.clone());
            }
            let number = *ticket.number.get_or_insert_with(|| {
                state.tickets += 1;
                state.tickets
            });
            match state.waiting.iter_mut().find(|(n, _)| *n == number) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => state.waiting.push((number, cx.waker().clone())),
            }
            Poll::Pending
        })
        .await
    }
}

struct Ticket<'a, T> {
    latch: &'a Latch<T>,
    number: Option<u64>,
}

impl<T> Drop for Ticket<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.latch.0.lock().waiting.retain(|(n, _)| *n != number);
        }
    }
}
