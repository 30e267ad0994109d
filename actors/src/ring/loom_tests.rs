//! What loom proves of the ring. Each test names mutations that make it fail.

use super::*;
use crate::models::{bounded, large};
use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;
use std::task::Waker;

fn never() -> bool {
    false
}

/// Mutations: a writer that publishes the slot before it has written the message; a reader that frees it before it has read; a tail that is moved by a store
/// instead of an exchange (a message is lost); a head that is (one is read twice). Two laps: the slots are used again.
#[test]
fn loom_each_message_is_read_once_and_in_the_order_of_its_writer() {
    bounded(3, || {
        let ring = Arc::new(Ring::new(2, 100));
        let write = |from: u32, count: u32| {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut written = 0;
                for n in 0..count {
                    if ring.try_push(Box::new(from + n), 1).is_err() {
                        break;
                    }
                    written += 1;
                }
                written
            })
        };
        let writers = [write(10, 2), write(20, 1)];
        let mut read: Vec<u32> = std::iter::from_fn(|| ring.try_pop()).map(|message| *message).collect();
        let written: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        read.extend(std::iter::from_fn(|| ring.try_pop()).map(|message| *message));
        assert_eq!(read.len(), written, "{read:?}");
        let of_first: Vec<u32> = read.iter().copied().filter(|n| *n < 20).collect();
        assert!(of_first == [10, 11] || of_first == [10] || of_first.is_empty(), "{read:?}");
        assert!(read.iter().filter(|n| **n >= 20).count() <= 1, "{read:?}");
    });
}

/// Mutations: as above, of the head: with two readers, an exchange that does not compare.
#[test]
fn loom_two_readers_never_take_the_same_message() {
    bounded(4, || {
        let ring = Arc::new(Ring::new(2, 100));
        assert!(ring.try_push(Box::new(1), 1).is_ok() && ring.try_push(Box::new(2), 1).is_ok());
        let other = ring.clone();
        let other = thread::spawn(move || (other.try_pop(), other.try_push(Box::new(3), 1).is_ok()));
        let mine = ring.try_pop();
        let (theirs, pushed) = other.join().unwrap();
        let (mine, theirs) = (mine.map_or(0, |n| *n), theirs.map_or(0, |n| *n));
        assert_eq!(mine + theirs, 3, "each found one of the two");
        // One that is still being read is in the way of one lap later alone.
        let left = ring.try_pop().map(|n| *n);
        assert_eq!(left, pushed.then_some(3));
    });
}

/// Mutation: a check of room that is not part of the exchange: a tail whose weight is raised behind it.
#[test]
fn loom_messages_never_weigh_more_than_the_capacity() {
    bounded(4, || {
        let ring = Arc::new(Ring::new(4, 10));
        let other = ring.clone();
        let other = thread::spawn(move || other.try_push((), 6).is_ok());
        let mine = ring.try_push((), 6).is_ok();
        assert!(mine != other.join().unwrap(), "one of the two has room");
        assert_eq!(ring.held(), (1, 6));
    });
}

/// Mutations: no fence behind the publishing of a message, or behind standing in line; a writer that looks at the line before it publishes; a reader that does
/// not look again once it stands in line.
#[test]
fn loom_a_reader_is_woken_by_a_message() {
    bounded(4, || {
        let ring = Arc::new(Ring::new(2, 10));
        let other = ring.clone();
        let writer = thread::spawn(move || assert!(other.try_push(7, 1).is_ok()));
        assert_eq!(block_on(ring.pop(never)), Some(7));
        writer.join().unwrap();
    });
}

/// Mutations: one that puts back and looks at the line before what it puts back is there, or does not look; no fence behind it.
#[test]
fn loom_a_reader_is_woken_by_what_is_put_back() {
    bounded(4, || {
        let ring = Arc::new(Ring::new(2, 10));
        assert!(ring.try_push(7, 1).is_ok());
        let (other, taken) = (ring.clone(), ring.try_take().unwrap());
        let reader = thread::spawn(move || other.put_back(taken));
        assert_eq!(block_on(ring.pop(never)), Some(7));
        reader.join().unwrap();
    });
}

/// Mutation: one that takes what came back and does not look whether a writer waits for its room.
#[test]
fn loom_a_writer_is_woken_by_the_room_of_what_came_back() {
    bounded(4, || {
        let ring = Arc::new(Ring::new(2, 10));
        assert!(ring.try_push(1, 10).is_ok());
        ring.put_back(ring.try_take().unwrap());
        let other = ring.clone();
        let reader = thread::spawn(move || assert_eq!(other.try_pop(), Some(1)));
        assert!(block_on(ring.push(2, 10, never)).is_ok());
        reader.join().unwrap();
        assert_eq!(ring.try_pop(), Some(2));
    });
}

/// Mutations: the same of room: no fence behind the freeing of a slot; a reader that looks at the line before it has freed the slot.
#[test]
fn loom_a_writer_is_woken_by_room() {
    bounded(4, || {
        let ring = Arc::new(Ring::new(2, 10));
        assert!(ring.try_push(1, 10).is_ok());
        let other = ring.clone();
        let reader = thread::spawn(move || assert_eq!(other.try_pop(), Some(1)));
        assert!(block_on(ring.push(2, 10, never)).is_ok());
        reader.join().unwrap();
        assert_eq!(ring.try_pop(), Some(2));
    });
}

/// Mutation: a reader that is dropped and does not look whether there is a message for the next.
#[test]
fn loom_a_reader_that_is_cancelled_passes_the_wake_on() {
    bounded(3, || {
        let ring = Arc::new(Ring::new(2, 10));
        let (writing, waiting) = (ring.clone(), ring.clone());
        {
            let mut first = Box::pin(ring.pop(never));
            // It stands in line before the other, who may then be called in its place.
            let waker = Waker::noop();
            assert!(first.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
            let second = thread::spawn(move || assert_eq!(block_on(waiting.pop(never)), Some(7)));
            let writer = thread::spawn(move || assert!(writing.try_push(7, 1).is_ok()));
            drop(first);
            writer.join().unwrap();
            second.join().unwrap();
        }
    });
}

/// The message behind one that is still being written wakes a reader that finds nothing yet, and goes back to its place. Mutation: a reader that takes a message
/// and does not look whether there is another for the next.
#[test]
fn loom_two_readers_get_the_messages_of_two_writers() {
    // Four threads.
    large(2, || {
        let ring = Arc::new(Ring::new(2, 10));
        let write = |n: u32| {
            let ring = ring.clone();
            thread::spawn(move || assert!(ring.try_push(n, 1).is_ok()))
        };
        let read = {
            let ring = ring.clone();
            thread::spawn(move || block_on(ring.pop(never)).unwrap_or_default())
        };
        let writers = [write(1), write(2)];
        let mine = block_on(ring.pop(never)).unwrap_or_default();
        assert_eq!(mine + read.join().unwrap(), 3);
        for writer in writers {
            writer.join().unwrap();
        }
    });
}

/// Mutations: a reader that asks whether it is over after it found nothing, which loses what was written in between; a `wake_all` that calls nobody.
#[test]
fn loom_what_was_written_before_it_was_over_is_read() {
    bounded(4, || {
        let shared = Arc::new((Ring::new(2, 10), AtomicBool::new(false)));
        let other = shared.clone();
        let writer = thread::spawn(move || {
            assert!(other.0.try_push(7, 1).is_ok());
            other.1.store(true, Ordering::Release);
            other.0.wake_all();
        });
        let over = || shared.1.load(Ordering::Acquire);
        assert_eq!(block_on(shared.0.pop(over)), Some(7));
        assert_eq!(block_on(shared.0.pop(over)), None);
        writer.join().unwrap();
    });
}
