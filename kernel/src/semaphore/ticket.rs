//! How a table reaches who waits: what is shared by the line and the future.

use std::mem;
use std::task::{Poll, Waker};

use super::places::{Grant, Owner};
use crate::locks::sync::Mutex;

/// Shared by the line and by the future that waits.
#[derive(Debug)]
pub(crate) struct Ticket(Mutex<Word>);

#[derive(Debug)]
enum Word {
    /// Nobody has polled it, or this is to be woken.
    Wait(Option<Waker>),
    Said(Verdict),
    Taken,
}

/// What comes of waiting.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The place is held.
    Held(Grant),
    /// Those who wait, this one among them, wait for each other: each of these for the next, and the last for the first.
    Deadlock(Vec<Owner>),
}

impl Ticket {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Word::Wait(None)))
    }

    /// Says what comes of it. The waker is for the caller to wake when it has let go of the table.
    pub(crate) fn say(&self, verdict: Verdict) -> Option<Waker> {
        match mem::replace(&mut *self.0.lock(), Word::Said(verdict)) {
            Word::Wait(waker) => waker,
            Word::Said(_) | Word::Taken => unreachable!("who waits is told once"),
        }
    }

    /// What was said; else `waker` is the one to wake.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Verdict> {
        if let Some(verdict) = self.take() {
            return Poll::Ready(verdict);
        }
        // Cloned, and the one before it dropped, without the mutex: dropping a waker may drop a whole task.
        let waker = waker.clone();
        let mut word = self.0.lock();
        let before = match &*word {
            Word::Said(_) => mem::replace(&mut *word, Word::Taken),
            _ => mem::replace(&mut *word, Word::Wait(Some(waker))),
        };
        drop(word);
        match before {
            Word::Said(verdict) => Poll::Ready(verdict),
            Word::Wait(_) | Word::Taken => Poll::Pending,
        }
    }

    /// What was said and nobody has heard.
    pub(crate) fn take(&self) -> Option<Verdict> {
        let mut word = self.0.lock();
        match mem::replace(&mut *word, Word::Taken) {
            Word::Said(verdict) => Some(verdict),
            other => {
                *word = other;
                None
            }
        }
    }
}
