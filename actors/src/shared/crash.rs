//! A process that dies after each of its steps, one after the other, and others that go on with what it leaves; and one that others overtake after each of its steps.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::log::{Log, SharedRead, SharedState, append_words};
use super::memory::{Memory, SharedTrouble};
use super::ring::{Ring, RingShape};

/// Words that simulated processes share.
type Words = Arc<[AtomicU64]>;

fn words(count: usize) -> Words {
    std::iter::repeat_with(AtomicU64::default).take(count).collect()
}

/// A process, which has so many steps left: each change of a word is one. A dead one changes nothing any more.
struct Process {
    words: Words,
    me: u64,
    left: Cell<u64>,
    sleeps: Cell<u32>,
}

/// What ends it.
struct Death;

impl Process {
    fn new(words: &Words, me: u64, steps: u64) -> Self {
        Self { words: words.clone(), me, left: Cell::new(steps), sleeps: Cell::new(0) }
    }

    /// One that does not die.
    fn survivor(words: &Words) -> Self {
        Self::new(words, 2, u64::MAX)
    }

    /// Whether the step is made.
    fn step(&self) -> bool {
        match self.left.get() {
            0 if std::thread::panicking() => false,
            0 => resume_unwind(Box::new(Death)),
            left => {
                self.left.set(left - 1);
                true
            }
        }
    }
}

impl Memory for Process {
    fn load(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::SeqCst)
    }

    fn store(&self, at: usize, value: u64) {
        if self.step() {
            self.words[at].store(value, Ordering::SeqCst);
        }
    }

    fn exchange(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        if !self.step() {
            return Ok(());
        }
        self.words[at].compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    fn peek(&self, at: usize) -> u64 {
        self.load(at)
    }

    fn poke(&self, at: usize, value: u64) {
        self.store(at, value);
    }

    fn fence(&self) {}

    fn me(&self) -> u64 {
        self.me
    }

    fn is_dead(&self, process: u64) -> bool {
        process == 1
    }

    fn sleep(&self, _: usize, _: u32, _: Duration) {
        self.sleeps.set(self.sleeps.get() + 1);
        assert!(self.sleeps.get() < 1_000, "nobody comes to wake it");
    }

    fn wake(&self, _: usize) {}

    fn pause(&self, _: u32) {}
}

/// Runs `life` in a process that dies after `steps` steps; whether it did.
fn dies(process: &Process, life: impl FnOnce(&Process)) -> bool {
    match catch_unwind(AssertUnwindSafe(|| life(process))) {
        Ok(()) => false,
        Err(end) if end.is::<Death>() => true,
        Err(end) => resume_unwind(end),
    }
}

/// For each number of steps until the process lives to its end.
fn at_each_step(mut run: impl FnMut(u64) -> bool) {
    let mut steps = 0;
    while run(steps) {
        steps += 1;
        assert!(steps < 100_000, "it never comes to its end");
    }
    assert!(steps > 20, "it made {steps} steps");
}

fn message(n: u64, length: usize) -> Vec<u8> {
    let mut message = vec![u8::try_from(n % 251).unwrap(); length];
    message[0] = u8::try_from(n).unwrap();
    message
}

fn at<M: Memory>(memory: M, shape: RingShape) -> Ring<M> {
    Ring { memory, shape }
}

/// A message whose write was acknowledged is read, once and whole; one that was being written is there or not; one that was being read was read, or is there.
#[test]
fn a_process_that_dies_at_any_step_tears_no_message_loses_none_and_doubles_none() {
    let shape = RingShape::new(60, 4).unwrap();
    at_each_step(|steps| {
        let all = words(shape.region_words());
        let (written, read) = (Cell::new(0), Cell::new(0));
        let lengths = [5, 17, 8, 20, 1, 9, 33, 16];
        let length = |n: u64| lengths[usize::try_from(n).unwrap() % lengths.len()];
        let began = (Cell::new(0), Cell::new(0));
        let died = dies(&Process::new(&all, 1, steps), |process| {
            let ring = at(Process::new(&all, 1, steps), shape);
            let _ = process;
            // More than one lap of slots and of bytes.
            for _ in 0..3 {
                for _ in 0..2 {
                    let n = written.get();
                    began.0.set(n + 1);
                    assert!(ring.try_push(&message(n, length(n))).unwrap());
                    written.set(n + 1);
                }
                for _ in 0..2 {
                    began.1.set(read.get() + 1);
                    let n = read.get();
                    assert_eq!(ring.try_pop().unwrap().unwrap(), message(n, length(n)));
                    read.set(n + 1);
                }
            }
            let n = written.get();
            began.0.set(n + 1);
            assert!(ring.try_push(&message(n, length(n))).unwrap());
            written.set(n + 1);
        });
        let ring = at(Process::survivor(&all), shape);
        let left: Vec<Bytes> = std::iter::from_fn(|| ring.try_pop().unwrap()).collect();
        let first = if left.first().is_some_and(|first| *first == message(read.get(), length(read.get()))) {
            read.get()
        } else {
            began.1.get()
        };
        assert!(first == read.get() || first == began.1.get(), "at {steps}: the next one is {first}");
        for (n, found) in (first..).zip(&left) {
            assert_eq!(*found, message(n, length(n)), "at {steps}");
        }
        let end = first + left.len() as u64;
        assert!(end == written.get() || end == began.0.get(), "at {steps}: up to {end} of {}", written.get());
        // And it goes on.
        for n in 200..212 {
            assert!(ring.try_push(&message(n, 30)).unwrap(), "at {steps}");
            assert_eq!(ring.try_pop().unwrap().unwrap(), message(n, 30), "at {steps}");
        }
        died
    });
}

const ROOM: usize = 40;

fn record(n: u64) -> Bytes {
    message(n, 3 + usize::try_from(n * 7 % 23).unwrap()).into()
}

/// Lets go of the oldest until the records have room, and appends them.
fn append<M: Memory>(log: &Log<M>, records: &[Bytes], op: u128) -> Result<u64, SharedTrouble> {
    let mut writing = log.write()?;
    if let Some((first, _)) = writing.find_op(op) {
        return Ok(first);
    }
    let mut state = writing.state();
    while usize::try_from(state.tail_at - state.head_at).unwrap() + append_words(records) > ROOM {
        let (frame, next) = writing.frame(state.head_at, state.head)?;
        (state.head, state.head_at, state.bytes) = (frame.end(), next, state.bytes - frame.cost);
    }
    let cost = records.iter().map(|record| record.len() as u64).sum();
    state.bytes += cost;
    let first = state.tail;
    writing.append(records, 1_000 + first, cost, Some(op), state);
    Ok(first)
}

fn all<M: Memory>(log: &Log<M>) -> (SharedState, Vec<Bytes>) {
    let state = log.state().unwrap();
    match log.read(state.head, None, |_, _| true).unwrap().0 {
        SharedRead::Records(records, state) => (state, records.into_iter().map(|(_, data)| data).collect()),
        SharedRead::Missing(state) => panic!("{state:?}"),
    }
}

/// What was appended is there, in its order, until it has to make room; of an append all or nothing; and its repeat finds it.
#[test]
fn a_process_that_dies_at_any_step_leaves_of_each_append_all_or_nothing() {
    at_each_step(|steps| {
        let shared = words(super::log::region_words(ROOM));
        Log { memory: Process::survivor(&shared), room: ROOM }.begin([7; 6]);
        let (appended, begun) = (Cell::new(0), Cell::new(0));
        // Pairs and single ones.
        let records = |n: u64| -> Vec<Bytes> { (n..n + 1 + n % 2).map(record).collect() };
        let died = dies(&Process::survivor(&shared), |_| {
            let log = Log { memory: Process::new(&shared, 1, steps), room: ROOM };
            let mut n = 0;
            while n < 12 {
                let records = records(n);
                begun.set(n + records.len() as u64);
                assert_eq!(append(&log, &records, n.into()), Ok(n));
                n += records.len() as u64;
                appended.set(n);
            }
        });
        let log = Log { memory: Process::survivor(&shared), room: ROOM };
        let (state, kept) = all(&log);
        assert!([appended.get(), begun.get()].contains(&state.tail), "at {steps}: {state:?}");
        assert_eq!(state.user, [7; 6]);
        let expected: Vec<Bytes> = (state.head..state.tail).map(record).collect();
        assert_eq!(kept, expected, "at {steps}");
        assert_eq!(state.bytes, expected.iter().map(|record| record.len() as u64).sum::<u64>(), "at {steps}");
        // The one that it was about to make is made once, by whoever repeats it.
        if appended.get() < 12 {
            let n = appended.get();
            assert_eq!(append(&log, &records(n), n.into()), Ok(n), "at {steps}");
            let (state, kept) = all(&log);
            assert_eq!(state.tail, begun.get().max(n + records(n).len() as u64), "at {steps}");
            assert_eq!(kept, (state.head..state.tail).map(record).collect::<Vec<_>>(), "at {steps}");
        }
        died
    });
}

/// A process that reads, and stands still after some steps while another one does something: each look at a word is a step.
struct Overtaken<'a> {
    process: Process,
    left: Cell<u64>,
    meanwhile: &'a dyn Fn(),
}

impl Overtaken<'_> {
    fn step(&self) {
        if self.left.get() == 0 {
            (self.meanwhile)();
        }
        self.left.set(self.left.get().wrapping_sub(1));
    }
}

impl Memory for Overtaken<'_> {
    fn load(&self, at: usize) -> u64 {
        self.step();
        self.process.load(at)
    }

    fn peek(&self, at: usize) -> u64 {
        self.step();
        self.process.peek(at)
    }

    fn store(&self, at: usize, value: u64) {
        self.process.store(at, value);
    }

    fn exchange(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        self.process.exchange(at, old, new)
    }

    fn poke(&self, at: usize, value: u64) {
        self.process.poke(at, value);
    }

    fn fence(&self) {}

    fn me(&self) -> u64 {
        self.process.me
    }

    fn is_dead(&self, process: u64) -> bool {
        self.process.is_dead(process)
    }

    fn sleep(&self, _: usize, _: u32, _: Duration) {}

    fn wake(&self, _: usize) {}

    fn pause(&self, _: u32) {}
}

fn of_words(words: &[u64]) -> Bytes {
    words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// What a record holds is never taken for an append, also when it looks like one, and the way to what is read was written over meanwhile.
#[test]
fn a_reader_that_is_overtaken_at_any_step_is_not_led_into_what_records_hold() {
    const ALL: usize = 8 + 11 + 6;
    let one_record = 1 << 32;
    // Behind the next append, which has fewer words and takes the place of this one, stand its last two: as the head of one that leads into the second one.
    let first = of_words(&[0, 1, one_record | 7]);
    // A whole append, of what is nobody's record.
    let second = of_words(&[2, one_record | 6, 0, 0, 8, 666]);
    let third = of_words(&[3]);
    let mut overtaken = 0;
    at_each_step(|steps| {
        let shared = words(super::log::region_words(ALL));
        let log = Log { memory: Process::survivor(&shared), room: ALL };
        log.begin([0; 6]);
        for record in [&first, &second, &third] {
            let mut writing = log.write().unwrap();
            let state = writing.state();
            writing.append(
                std::slice::from_ref(record),
                0,
                1,
                None,
                SharedState { bytes: state.bytes + 1, ..state },
            );
        }
        assert_eq!(log.state().unwrap().tail_at, ALL as u64);
        let meanwhile = || {
            let mut writing = log.write().unwrap();
            let state = writing.state();
            let (frame, next) = writing.frame(state.head_at, state.head).unwrap();
            let state = SharedState { head: frame.end(), head_at: next, ..state };
            writing.append(&[of_words(&[4])], 0, 1, None, state);
        };
        let reader =
            Overtaken { process: Process::survivor(&shared), left: Cell::new(steps), meanwhile: &meanwhile };
        let reader = Log { memory: reader, room: ALL };
        let (read, _) = reader.read(2, None, |count, _| count == 0).unwrap();
        let SharedRead::Records(records, _) = read else { panic!("at {steps}: it is kept") };
        assert_eq!(records, [(0, third.clone())], "at {steps}");
        let is_overtaken = log.state().unwrap().head == 1;
        overtaken += u64::from(is_overtaken);
        is_overtaken
    });
    assert!(overtaken > 20, "it was overtaken {overtaken} times");
}
