//! What loom proves of the lock, of publishing, and of waking, over words of its own. Each test names mutations that make it fail.

use std::time::Duration;

use bytes::Bytes;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::bell::Bell;
use super::layout::{COMES, WRITERS};
use super::log::{Log, SharedRead, SharedState, region_words};
use super::memory::Memory;
use super::ring::{Ring, RingShape};
use crate::models::{bounded, large};

/// Words of loom, seen by a process. Only those that a test touches are there: the others of a region would be too many for a model.
#[derive(Clone)]
struct Words {
    words: Arc<Vec<AtomicU64>>,
    /// Which word of a region is which of these.
    at: fn(usize) -> usize,
    /// Where all sleep.
    bed: Arc<(Mutex<()>, Condvar)>,
    me: u64,
    /// Whether a sleeper looks by itself after a while: then no wake can be missed, and bells order nothing: their fences would hide what others are missing.
    patrols: bool,
}

/// Where a word is that a model leaves out: it is always 0.
const LEFT_OUT: usize = usize::MAX;

impl Words {
    fn new(count: usize, at: fn(usize) -> usize) -> Self {
        let words = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            words: Arc::new(words),
            at,
            bed: Arc::new((Mutex::new(()), Condvar::new())),
            me: 1,
            patrols: false,
        }
    }

    fn of(&self, me: u64) -> Self {
        Self { me, ..self.clone() }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[(self.at)(at)]
    }
}

impl Memory for Words {
    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::SeqCst)
    }

    fn store(&self, at: usize, value: u64) {
        self.word(at).swap(value, Ordering::SeqCst);
    }

    fn exchange(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        self.word(at).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    fn peek(&self, at: usize) -> u64 {
        if (self.at)(at) == LEFT_OUT { 0 } else { self.word(at).load(Ordering::Relaxed) }
    }

    fn poke(&self, at: usize, value: u64) {
        if (self.at)(at) != LEFT_OUT {
            self.word(at).store(value, Ordering::Relaxed);
        }
    }

    fn fence(&self) {
        fence(Ordering::AcqRel);
    }

    fn me(&self) -> u64 {
        self.me
    }

    fn is_dead(&self, process: u64) -> bool {
        process == 9
    }

    fn sleep(&self, at: usize, expected: u32, _: Duration) {
        if self.patrols {
            return thread::yield_now();
        }
        let (bed, wakes) = &*self.bed;
        let asleep = bed.lock().unwrap();
        // As a futex: the look and the sleep are one, to who wakes.
        if self.load(at) == u64::from(expected) {
            drop(wakes.wait(asleep).unwrap());
        }
    }

    fn wake(&self, _: usize) {
        let (bed, wakes) = &*self.bed;
        drop(bed.lock().unwrap());
        wakes.notify_all();
    }

    fn pause(&self, _: u32) {
        thread::yield_now();
    }

    fn model_fence(&self) {
        if !self.patrols {
            fence(Ordering::SeqCst);
        }
    }
}

/// Mutations: who waits does not set the bit, looks before it sets it, or sleeps whatever the word is by then; who brings does not look at the bit, looks before it publishes,
/// or clears the bit without counting on.
#[test]
fn loom_nobody_sleeps_beside_what_it_waits_for() {
    const BELL: Bell = Bell(0);
    bounded(3, || {
        let words = Words::new(2, |at| at);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let words = words.clone();
                thread::spawn(move || {
                    loop {
                        let heard = BELL.listen(&words);
                        if words.load(1) == 1 {
                            return;
                        }
                        BELL.sleep(&words, heard, Duration::MAX);
                    }
                })
            })
            .collect();
        words.store(1, 1);
        BELL.ring(&words);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

fn lock_at(at: usize) -> usize {
    match at {
        at if at == WRITERS.holder => 0,
        at if at == WRITERS.bell.0 => 1,
        at => at,
    }
}

/// Mutations: a lock that is taken by a store; that is taken over from one who lives; that is given back by a store without order (with the word that it guards unordered).
#[test]
fn loom_one_at_a_time_has_the_lock_also_when_a_dead_one_had_it() {
    bounded(3, || {
        let words = Words::new(3, lock_at);
        words.store(WRITERS.holder, 9);
        let count = |me| {
            let words = Words { patrols: true, ..words.of(me) };
            move || {
                let locked = WRITERS.lock(&words);
                if locked.is_ok() {
                    let now = words.peek(2);
                    words.poke(2, now + 1);
                }
                u64::from(locked.is_ok())
            }
        };
        let other = thread::spawn(count(2));
        let mine = count(1)();
        let theirs = other.join().unwrap();
        assert_eq!(words.peek(2), mine + theirs);
        assert!(mine + theirs >= 1);
    });
}

const SHAPE: RingShape = RingShape { capacity: 16, slots: 2 };

fn ring_at(at: usize) -> usize {
    const KNOWN: [usize; 8] = [16, 17, 24, 25, 32, 33, 40, 41];
    KNOWN.iter().position(|known| *known == at).unwrap_or_else(|| 8 + at - super::layout::HEADER_WORDS)
}

/// Mutations: a tail that is published before the message or its slot is written, or without order.
#[test]
fn loom_each_message_comes_whole_and_once() {
    bounded(3, || {
        let words = Words {
            patrols: true,
            ..Words::new(8 + SHAPE.region_words() - super::layout::HEADER_WORDS, ring_at)
        };
        let ring = |me| Ring { memory: words.of(me), shape: SHAPE };
        let writer = ring(2);
        let writer = thread::spawn(move || {
            let mut written = 0;
            // The third one is where the first was.
            for n in 1..=3u8 {
                if writer.try_push(&[n; 8]) != Ok(true) {
                    break;
                }
                written += 1;
            }
            written
        });
        let reads = ring(1);
        let reads = thread::spawn(move || {
            let read = (0..2).filter_map(|_| reads.try_pop().unwrap());
            read.collect::<Vec<Bytes>>()
        });
        let (written, mut read) = (writer.join().unwrap(), reads.join().unwrap());
        let reader = ring(1);
        read.extend(std::iter::from_fn(|| reader.try_pop().unwrap()));
        assert_eq!(read.len(), written);
        for (message, n) in read.iter().zip(1..) {
            assert_eq!(message[..], [n; 8]);
        }
    });
}

/// Mutations: a head that is published before the message was copied.
#[test]
fn loom_nobody_writes_over_a_message_that_is_being_read() {
    bounded(3, || {
        let words = Words {
            patrols: true,
            ..Words::new(8 + SHAPE.region_words() - super::layout::HEADER_WORDS, ring_at)
        };
        let ring = |me| Ring { memory: words.of(me), shape: SHAPE };
        // In words 0 and 1, and in word 2, of four: all slots are taken.
        assert!(ring(1).try_push(&[1; 9]) == Ok(true) && ring(1).try_push(&[2; 7]) == Ok(true));
        let (writer, reader) = (ring(2), ring(3));
        // In words 3 and 0, as soon as the first one is gone.
        let writes = thread::spawn(move || writer.try_push(&[3; 9]).unwrap());
        let reads = thread::spawn(move || reader.try_pop().unwrap().unwrap());
        let (written, read) = (writes.join().unwrap(), reads.join().unwrap());
        assert_eq!(read[..], [1; 9]);
        assert_eq!(ring(1).try_pop().unwrap().unwrap()[..], [2; 7]);
        assert_eq!(ring(1).try_pop().unwrap(), written.then(|| Bytes::from(vec![3; 9])));
    });
}

const ROOM: usize = 7;

fn log_at(at: usize) -> usize {
    const KNOWN: [usize; 4] = [16, 17, 32, 33];
    let states = super::layout::STATES_AT..super::layout::STATES_AT + 2 * super::layout::STATE_WORDS;
    match at {
        at if states.contains(&at) => 4 + at - states.start,
        at if at >= super::layout::HEADER_WORDS => 4 + states.len() + at - super::layout::HEADER_WORDS,
        at => KNOWN.iter().position(|known| *known == at).expect("it is one of those"),
    }
}

/// Words of a state that a model has: what the log is, and one of its user.
const STATE: usize = 7;

/// The words of a log that a model has: the lock, the version, and what of both states there is.
fn state_at(at: usize) -> usize {
    use super::layout::{STATE_WORDS, STATES_AT};
    match at.checked_sub(STATES_AT).map(|at| (at / STATE_WORDS, at % STATE_WORDS)) {
        Some((state @ (0 | 1), word)) if word < STATE => 4 + state * STATE + word,
        Some((0 | 1, _)) => LEFT_OUT,
        _ => log_at(at),
    }
}

/// Mutations: a reader that does not look whether the version is still the one, or looks without a fence before; a writer without a fence behind what was published before it, or
/// behind what it published itself; a state that is published before it is written.
#[test]
fn loom_a_state_is_read_whole_while_it_changes() {
    // By one writer, and by two.
    for writers in [1, 2] {
        large(2, move || {
            let words = Words { patrols: true, ..Words::new(4 + 2 * STATE, state_at) };
            let log = |me| Log { memory: words.of(me), room: ROOM };
            // All of it is one number, which makes sense.
            let state = |n: u64| {
                let user = [n, 0, 0, 0, 0, 0];
                SharedState { head: n, head_at: n, tail: n, tail_at: n, bytes: n, ops: n, user }
            };
            log(1).begin([0; 6]);
            let change = move |log: &Log<Words>, times: u64| {
                // Or the other one is in it for longer than this one waits.
                let Ok(mut writing) = log.write() else { return };
                // The second one is where the first was.
                (0..times).for_each(|_| writing.publish(state(writing.state().head + 1)));
            };
            let writes: Vec<_> = (0..writers)
                .map(|n| {
                    let log = log(2 + n);
                    thread::spawn(move || change(&log, 2 / writers))
                })
                .collect();
            let reader = log(1);
            let reads = thread::spawn(move || {
                let found = reader.state().unwrap();
                assert_eq!(found, state(found.head));
            });
            writes.into_iter().for_each(|writer| writer.join().unwrap());
            reads.join().unwrap();
            let found = log(1).state().unwrap();
            assert!(found == state(found.head) && found.head > 0);
        });
    }
}

/// Mutations: an append that writes over the oldest before it published that they are gone, or without a fence behind that; a reader that does not look whether what it copied is
/// still kept.
#[test]
fn loom_a_reader_that_is_overtaken_never_believes_what_it_copied() {
    large(2, || {
        let words = Words {
            patrols: true,
            ..Words::new(4 + region_words(ROOM) - super::layout::HEADER_WORDS + 32, log_at)
        };
        let log = |me| Log { memory: words.of(me), room: ROOM };
        let writer = log(2);
        writer.begin([0; 6]);
        // There is room for one: each takes the place of the one before.
        let append = |log: &Log<Words>, n: u8| {
            let mut writing = log.write().unwrap();
            let mut state = writing.state();
            (state.head, state.head_at) = (state.tail, state.tail_at);
            writing.append(&[vec![n; 9].into()], n.into(), 9, None, SharedState { bytes: 9, ..state });
        };
        append(&writer, 1);
        let writes = thread::spawn(move || append(&writer, 2));
        let reads = log(1);
        let reads = thread::spawn(move || match reads.read(0, None, |_, _| true).unwrap().0 {
            SharedRead::Records(records, _) => {
                assert_eq!(records.first(), Some(&(1, Bytes::from(vec![1; 9]))));
            }
            // The oldest goes before the next one comes.
            SharedRead::Missing(state) => {
                assert!(state.head == 1 && matches!(state.tail, 1 | 2), "{state:?}")
            }
        });
        writes.join().unwrap();
        reads.join().unwrap();
        assert!(COMES.0 > 0);
        let reader = log(1);
        let SharedRead::Records(records, _) = reader.read(1, None, |_, _| true).unwrap().0 else {
            panic!("it is there")
        };
        assert_eq!(records, [(2, Bytes::from(vec![2; 9]))]);
    });
}
