//! One thread beside a model that is too simple to be wrong, and many threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Wake, Waker};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::parked::{block_on, poll_once};

fn never() -> bool {
    false
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counted {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll_with<T>(work: Pin<&mut impl Future<Output = T>>, counted: &Arc<Counted>) -> Poll<T> {
    work.poll(&mut Context::from_waker(&Waker::from(counted.clone())))
}

#[test]
fn looking_again_is_given_up_where_it_does_not_pay_and_taken_up_where_it_does() {
    let patience = Patience::new();
    let mut looks = 0;
    let mut in_vain = |times: u32| {
        looks = 0;
        for _ in 0..times {
            let seen: Option<()> = patience.look(|| {
                looks += 1;
                None
            });
            assert!(seen.is_none());
        }
        looks / Patience::LOOKS
    };
    assert_eq!(in_vain(3), 2, "at first it is tried");
    assert_eq!(in_vain(640), 9, "then now and then");
    // It pays again, at the time at which it is tried.
    assert!((0..=Patience::COST).any(|_| patience.look(|| Some(())).is_some()));
    assert!((0..20).all(|_| patience.look(|| Some(())).is_some()));
    assert_eq!(in_vain(20), 16, "and is tried for longer where it has paid");
}

#[derive(Debug, Clone)]
enum Step {
    Push(u32),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => (0u32..12).prop_map(Step::Push), 2 => Just(Step::Pop)]
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "one task uses it: there is nothing for miri to see that the others do not show")]
    fn a_ring_does_what_a_queue_with_two_bounds_does(steps in vec(step(), 0..200), slots in 1usize..9, capacity in 11u32..40) {
        let ring = Ring::new(slots, capacity);
        let mut model: VecDeque<(usize, u32)> = VecDeque::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(weight) => {
                    let held: u32 = model.iter().map(|(_, weight)| weight).sum();
                    let fits = model.len() < ring.slots() && held + weight <= capacity;
                    prop_assert_eq!(ring.try_push(n, weight).is_ok(), fits);
                    if fits {
                        model.push_back((n, weight));
                    }
                }
                Step::Pop => prop_assert_eq!(ring.try_pop(), model.pop_front().map(|(n, _)| n)),
            }
            prop_assert_eq!(ring.held(), (model.len(), model.iter().map(|(_, weight)| weight).sum()));
        }
    }
}

#[test]
fn positions_and_weights_may_wrap() {
    let ring = Ring::new(4, WEIGHT_MAX);
    // As after almost 2^32 messages: a multiple of the slots, so that each stands for the position that it says.
    let mark = u64::from(u32::MAX - 5) << 32 | u64::from(u32::MAX - 3);
    for (slot, position) in ring.slots.iter().zip(0u32..) {
        slot.sequence.store((u32::MAX - 3).wrapping_add(position), Ordering::Relaxed);
    }
    ring.tail.store(mark, Ordering::Relaxed);
    ring.head.store(mark, Ordering::Relaxed);
    for n in 0..40 {
        assert!(ring.try_push(n, 3).is_ok());
        assert_eq!(ring.held(), (1, 3));
        assert_eq!(ring.try_pop(), Some(n));
        assert_eq!((ring.held(), ring.try_pop()), ((0, 0), None));
    }
}

#[test]
fn what_is_left_in_a_ring_is_dropped_with_it() {
    let message = Arc::new(());
    let ring = Ring::new(4, 10);
    for _ in 0..3 {
        assert!(ring.try_push(message.clone(), 1).is_ok());
    }
    assert!(ring.try_pop().is_some());
    assert_eq!(Arc::strong_count(&message), 3);
    assert_eq!(ring.clear(), 2);
    assert!(ring.try_push(message.clone(), 1).is_ok());
    drop(ring);
    assert_eq!(Arc::strong_count(&message), 1);
}

#[test]
fn a_message_wakes_the_reader_that_came_first_and_nobody_else() {
    const READERS: usize = if cfg!(miri) { 20 } else { 1_000 };
    let ring = Ring::new(8, 100);
    let mut readers: Vec<_> =
        (0..READERS).map(|_| (Box::pin(ring.pop(never)), Arc::new(Counted::default()))).collect();
    for (reader, counted) in &mut readers {
        assert!(poll_with(reader.as_mut(), counted).is_pending());
    }
    for n in 0..READERS {
        assert!(ring.try_push(n, 1).is_ok());
        let woken: Vec<usize> = (0..READERS).filter(|at| readers[*at].1.times() > 0).collect();
        assert_eq!(woken, (0..=n).collect::<Vec<_>>());
        let (reader, counted) = &mut readers[n];
        assert_eq!(poll_with(reader.as_mut(), counted), Poll::Ready(Some(n)));
    }
    assert!(readers.iter().all(|(_, counted)| counted.times() == 1), "each was woken once");
}

#[test]
fn a_reader_that_came_too_late_keeps_its_place() {
    let ring = Ring::new(8, 100);
    let [first, second] = [(); 2].map(|()| Arc::new(Counted::default()));
    let (mut one, mut two) = (Box::pin(ring.pop(never)), Box::pin(ring.pop(never)));
    assert!(poll_with(one.as_mut(), &first).is_pending() && poll_with(two.as_mut(), &second).is_pending());
    assert!(ring.try_push(1, 1).is_ok());
    assert_eq!(ring.try_pop(), Some(1), "somebody is quicker");
    assert!(poll_with(one.as_mut(), &first).is_pending());
    assert!(ring.try_push(2, 1).is_ok());
    assert_eq!((first.times(), second.times()), (2, 0));
    assert_eq!(poll_with(one.as_mut(), &first), Poll::Ready(Some(2)));
}

#[test]
fn a_reader_that_is_cancelled_after_it_was_woken_passes_that_on() {
    let ring = Ring::new(8, 100);
    let [first, second] = [(); 2].map(|()| Arc::new(Counted::default()));
    let (mut one, mut two) = (Box::pin(ring.pop(never)), Box::pin(ring.pop(never)));
    assert!(poll_with(one.as_mut(), &first).is_pending() && poll_with(two.as_mut(), &second).is_pending());
    assert!(ring.try_push(1, 1).is_ok());
    drop(one);
    assert_eq!((first.times(), second.times()), (1, 1));
    assert_eq!(poll_with(two.as_mut(), &second), Poll::Ready(Some(1)));
    assert_eq!(ring.waiting(), (0, 0));
}

#[test]
fn a_large_message_waits_at_the_front_and_small_ones_do_not_pass_it() {
    let ring = Ring::new(8, 10);
    for n in 0..10 {
        let _ = ring.try_push(n, 2);
    }
    assert_eq!(ring.held(), (5, 10));
    let [large, small] = [(); 2].map(|()| Arc::new(Counted::default()));
    let (mut nine, mut one) = (Box::pin(ring.push(100, 9, never)), Box::pin(ring.push(101, 1, never)));
    assert!(poll_with(nine.as_mut(), &large).is_pending() && poll_with(one.as_mut(), &small).is_pending());
    for _ in 0..4 {
        assert!(ring.try_pop().is_some());
        assert!(ring.try_push(7, 1).is_err(), "who comes later lines up");
        assert_eq!((large.times(), small.times()), (0, 0), "there is no room for the first yet");
    }
    assert!(ring.try_pop().is_some());
    assert_eq!((large.times(), small.times()), (1, 0));
    assert!(matches!(poll_with(nine.as_mut(), &large), Poll::Ready(Ok(()))));
    assert_eq!(small.times(), 1, "who leaves the line calls the next");
    assert!(matches!(poll_with(one.as_mut(), &small), Poll::Ready(Ok(()))));
    assert_eq!((ring.try_pop(), ring.try_pop(), ring.try_pop()), (Some(100), Some(101), None));
}

#[test]
fn a_writer_that_is_cancelled_lets_the_next_one_write() {
    let ring = Ring::new(8, 10);
    assert!(ring.try_push(0, 10).is_ok());
    let [first, second] = [(); 2].map(|()| Arc::new(Counted::default()));
    let (mut one, mut two) = (Box::pin(ring.push(1, 10, never)), Box::pin(ring.push(2, 10, never)));
    assert!(poll_with(one.as_mut(), &first).is_pending() && poll_with(two.as_mut(), &second).is_pending());
    assert_eq!(ring.try_pop(), Some(0));
    assert_eq!((first.times(), second.times()), (1, 0));
    drop(one);
    assert_eq!(second.times(), 1);
    assert!(matches!(poll_with(two.as_mut(), &second), Poll::Ready(Ok(()))));
    assert_eq!(ring.try_pop(), Some(2));
}

#[test]
fn who_waits_gives_up_when_it_is_over() {
    let (ring, over) = (Ring::new(2, 10), AtomicBool::new(false));
    let is_over = || over.load(Ordering::Acquire);
    let (mut first, mut second) = (Box::pin(ring.pop(is_over)), Box::pin(ring.pop(is_over)));
    assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
    over.store(true, Ordering::Release);
    ring.wake_all();
    assert!(matches!(poll_once(first.as_mut()), Poll::Ready(None)));
    assert!(matches!(poll_once(second.as_mut()), Poll::Ready(None)));
    assert_eq!(block_on(ring.push(5, 1, is_over)), Err(5));
    assert!(ring.try_push(6, 1).is_ok());
    assert_eq!(block_on(ring.pop(is_over)), Some(6), "what is there is read first");
}

#[test]
fn many_threads_lose_nothing_and_read_nothing_twice() {
    const WRITERS: u64 = 4;
    const READERS: usize = 4;
    const EACH: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let (ring, over) = (Ring::new(16, 64), AtomicBool::new(false));
    let is_over = || over.load(Ordering::Acquire);
    let read: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut read = Vec::new();
                    while let Some(message) = block_on(ring.pop(is_over)) {
                        read.push(message);
                    }
                    read
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let ring = &ring;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let weight = u32::try_from(n % 7).unwrap() + 1;
                        assert_eq!(block_on(ring.push(writer << 32 | n, weight, never)), Ok(()));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        over.store(true, Ordering::Release);
        ring.wake_all();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    for reader in &read {
        for writer in 0..WRITERS {
            let of_one: Vec<u64> = reader.iter().copied().filter(|n| n >> 32 == writer).collect();
            assert!(of_one.is_sorted(), "the messages of one writer came in its order");
        }
    }
    let mut all: Vec<u64> = read.into_iter().flatten().collect();
    all.sort_unstable();
    let sent: Vec<u64> = (0..WRITERS).flat_map(|writer| (0..EACH).map(move |n| writer << 32 | n)).collect();
    assert!(all == sent, "{} of {} came", all.len(), sent.len());
}

fn took(ring: &Ring<usize>) -> Taken<usize> {
    ring.try_take().expect("there is one")
}

#[test]
fn what_is_put_back_is_read_first_and_in_the_order_in_which_it_was_written() {
    let ring = Ring::new(8, 100);
    for n in 0..5 {
        assert!(ring.try_push(n, 10).is_ok());
    }
    let [zero, one, two] = [(); 3].map(|()| took(&ring));
    ring.put_back(one);
    assert_eq!(ring.held(), (3, 30));
    ring.put_back(zero);
    // What came back and is taken once more keeps its place.
    let zero = took(&ring);
    assert_eq!(zero.message, 0);
    ring.put_back(two);
    ring.put_back(zero);
    assert_eq!(ring.held(), (5, 50));
    assert_eq!(std::iter::from_fn(|| ring.try_pop()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(ring.held(), (0, 0));
}

#[test]
fn what_is_put_back_has_room_and_others_wait_until_there_is_some_again() {
    let ring = Ring::new(8, 10);
    assert!(ring.try_push(1, 6).is_ok());
    let taken = took(&ring);
    assert!(ring.try_push(2, 6).is_ok(), "its room is free");
    ring.put_back(taken);
    assert_eq!((ring.held(), ring.try_push(3, 1)), ((2, 12), Err(3)));
    let counted = Arc::new(Counted::default());
    let mut writer = Box::pin(ring.push(4, 4, never));
    assert!(poll_with(writer.as_mut(), &counted).is_pending());
    assert_eq!(ring.try_pop(), Some(1));
    assert_eq!(counted.times(), 1, "there is room for four");
    assert_eq!(poll_with(writer.as_mut(), &counted), Poll::Ready(Ok(())));
    drop(writer);
    assert_eq!(std::iter::from_fn(|| ring.try_pop()).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn what_is_put_back_wakes_the_reader_that_came_first() {
    let ring = Ring::new(8, 100);
    assert!(ring.try_push(1, 1).is_ok());
    let taken = took(&ring);
    let [first, second] = [(); 2].map(|()| Arc::new(Counted::default()));
    let (mut one, mut two) = (Box::pin(ring.pop(never)), Box::pin(ring.pop(never)));
    assert!(poll_with(one.as_mut(), &first).is_pending() && poll_with(two.as_mut(), &second).is_pending());
    ring.put_back(taken);
    assert_eq!((first.times(), second.times()), (1, 0));
    // It goes away, and passes that on.
    drop(one);
    assert_eq!(poll_with(two.as_mut(), &second), Poll::Ready(Some(1)));
    assert_eq!(second.times(), 1);
}
