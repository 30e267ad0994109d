//! Watches from elsewhere: they are told what one in the kernel's process is told, also what is in no log.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nexus::blocking::{self, EventStream};
use nexus::{Event, EventKind, EventMask, Lsn, Serving, WatchItem};
use nexus_actors::block_on;

use crate::bench::{Bench, PATIENCE, own, until};

fn locking() -> EventMask {
    EventKind::Locked | EventKind::Unlocked
}

/// Takes the lock on this path, and gives it back.
fn lock_once(nx: &blocking::Nexus, at: &str) {
    let lock = nx.lock(at, Duration::ZERO).expect("it is free");
    nx.unlock(at, lock.id).expect("it is held");
}

fn item(stream: &mut EventStream) -> WatchItem {
    stream.next_for(PATIENCE).expect("it comes").expect("it is told")
}

fn event(stream: &mut EventStream) -> Event {
    match item(stream) {
        WatchItem::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

/// So many events, as kind and path.
fn told(stream: &mut EventStream, count: usize) -> Vec<String> {
    (0..count).map(|_| event(stream)).map(|event| format!("{} {}", event.kind, event.path)).collect()
}

/// How many watches there are in the kernel.
fn watches(owner: &blocking::Nexus) -> usize {
    let listed = owner.readdir("/__sys__/watches").expect("it is listed");
    listed.iter().filter(|entry| entry.name().parse::<u64>().is_ok()).count()
}

#[test]
fn what_is_in_no_log_is_told_of_all_that_happens_between_two_calls() {
    const ROUNDS: usize = 50;
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let mut here = bench.owner.watch("/").mask(locking()).stream().expect("it begins");
    let mut there = nx.watch("/").mask(locking()).stream().expect("it begins");
    for round in 0..3 {
        // Nobody waits meanwhile.
        (0..ROUNDS).for_each(|n| lock_once(&bench.owner, &format!("/{round}/{n}")));
        let expected = told(&mut here, 2 * ROUNDS);
        assert_eq!(expected[..2], [format!("lock /{round}/0"), format!("unlock /{round}/0")]);
        assert_eq!(told(&mut there, 2 * ROUNDS), expected);
    }
}

#[test]
fn locks_that_are_taken_side_by_side_are_all_told() {
    const TAKERS: usize = 6;
    const ROUNDS: usize = 60;
    let bench = Bench::new(Serving::administrator());
    let mut there = bench.attach().watch("/").mask(locking()).stream().expect("it begins");
    let mut expected: Vec<_> = (0..TAKERS * ROUNDS)
        .flat_map(|n| ["lock", "unlock"].map(|kind| format!("{kind} /{}/{}", n / ROUNDS, n % ROUNDS)))
        .collect();
    let mut heard = std::thread::scope(|scope| {
        for taker in 0..TAKERS {
            let owner = &bench.owner;
            let run = move || (0..ROUNDS).for_each(|n| lock_once(owner, &format!("/{taker}/{n}")));
            std::thread::Builder::new().spawn_scoped(scope, run).expect("it starts");
        }
        told(&mut there, expected.len())
    });
    heard.sort_unstable();
    expected.sort_unstable();
    assert_eq!(heard, expected);
}

#[test]
fn a_call_that_is_given_up_loses_no_event_and_none_is_told_twice() {
    const ROUNDS: usize = 300;
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let mask = locking() | EventKind::FileWritten;
    let mut stream = block_on(nx.as_async().watch("/").mask(mask).stream()).expect("it begins");
    let (mut expected, mut heard) = (Vec::new(), Vec::new());
    let mut hear = |item: Option<nexus::Result<WatchItem>>| match item {
        Some(Ok(WatchItem::Event(event))) => heard.push(format!("{} {}", event.kind, event.path)),
        other => panic!("{other:?}"),
    };
    for round in 0..ROUNDS {
        let at = format!("/{round}");
        lock_once(&bench.owner, &at);
        bench.owner.write(&at, "x").expect("it writes");
        expected.extend(["lock", "unlock", "file_write"].map(|kind| format!("{kind} {at}")));
        {
            // Dropped before it is sent, while it is served, or while the reply is on its way.
            let mut next = pin!(stream.next());
            match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(item) => hear(item),
                Poll::Pending => (0..round * 50).for_each(|_| std::hint::spin_loop()),
            }
        }
        if round % 40 == 0 {
            hear(block_on(stream.next_for(PATIENCE)));
        }
    }
    bench.owner.write("/last", "x").expect("it writes");
    expected.push("file_write /last".into());
    while heard.last() != expected.last() {
        let item = block_on(stream.next_for(PATIENCE));
        match item {
            Some(Ok(WatchItem::Event(event))) => heard.push(format!("{} {}", event.kind, event.path)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, expected);
}

#[test]
fn on_the_seam_of_the_log_and_what_comes_nothing_is_lost_or_told_twice() {
    const BEFORE: usize = 300;
    const AFTER: usize = 300;
    let bench = Bench::new(Serving::administrator());
    let write = |n: usize| bench.owner.write(format!("/w/{n}"), "x").expect("it writes").receipt.lsn;
    let begun = bench.owner.mkdir("/w").expect("it is made").receipt.lsn;
    let mut places: Vec<Lsn> = (0..BEFORE).map(write).collect();
    let nx = bench.attach();
    let mut there = nx.watch("/w").since(begun).stream().expect("it begins");
    std::thread::scope(|scope| {
        let writes = || (BEFORE..BEFORE + AFTER).map(write).collect::<Vec<_>>();
        let writes = std::thread::Builder::new().spawn_scoped(scope, writes).expect("it starts");
        let heard: Vec<Lsn> = (0..BEFORE + AFTER).map(|_| event(&mut there).lsn).collect();
        places.extend(writes.join().expect("it ends"));
        assert_eq!(heard, places, "each once, in their order");
    });
    lock_once(&bench.owner, "/w/0");
    assert_eq!(told(&mut there, 2), ["lock /w/0", "unlock /w/0"], "and then what is in no log, too");
}

#[test]
fn what_does_not_fit_is_told_as_an_overflow_with_the_place_to_go_on_from() {
    const ROUNDS: usize = 3_000;
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let mask = locking() | EventKind::FileWritten;
    let mut there = nx.watch("/").mask(mask).stream().expect("it begins");
    lock_once(&bench.owner, "/l");
    assert_eq!(told(&mut there, 2), ["lock /l", "unlock /l"]);
    // The first lock has written what all others go on with: behind this nothing is in the log.
    let before = bench.owner.write("/before", "x").expect("it writes").receipt.lsn;
    (0..ROUNDS).for_each(|_| lock_once(&bench.owner, "/l"));
    bench.owner.write("/after", "x").expect("it writes");
    assert_eq!(told(&mut there, 1), ["file_write /before"]);
    let mut locks = 0;
    let from = loop {
        match item(&mut there) {
            WatchItem::Event(event) => locks += usize::from(event.path == "/l"),
            WatchItem::Overflow(from) => break from,
        }
    };
    assert!(locks > 0 && locks < 2 * ROUNDS, "{locks}");
    assert_eq!((from, there.cursor()), (before, before));
    assert_eq!(told(&mut there, 1), ["file_write /after"], "from the log");
    lock_once(&bench.owner, "/l");
    assert_eq!(told(&mut there, 2), ["lock /l", "unlock /l"], "and then as before");
}

#[test]
fn a_watch_goes_on_with_the_next_owner_and_says_that_something_may_be_missing_if_it_may() {
    let Bench { owner, folder } = &Bench::new(Serving::administrator());
    let nx = blocking::attach(folder.path()).expect("it is served");
    let mut all = nx.watch("/").stream().expect("it begins");
    let mut logged = nx.watch("/").mask(EventKind::FileWritten).stream().expect("it begins");
    let last = owner.write("/one", "x").expect("it writes").receipt.lsn;
    assert_eq!([told(&mut all, 1), told(&mut logged, 1)], [["file_write /one"], ["file_write /one"]]);
    owner.shutdown().expect("it stops");
    let again = own(folder.path(), Serving::administrator());
    again.write("/two", "x").expect("it writes");
    // It was between two calls.
    assert_eq!(item(&mut all), WatchItem::Overflow(last));
    assert_eq!([told(&mut all, 1), told(&mut logged, 1)], [["file_write /two"], ["file_write /two"]]);
    lock_once(&again, "/l");
    assert_eq!(told(&mut all, 2), ["lock /l", "unlock /l"]);
    drop((all, logged));
    until(&again, "their end", || watches(&again) == 0);
    again.shutdown().expect("it stops");
}

#[test]
fn a_watch_ends_with_its_stream_and_with_its_connection() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let (first, second) = (nx.watch("/a").stream(), nx.watch("/b").stream());
    let (first, second) = (first.expect("it begins"), second.expect("it begins"));
    assert_eq!(watches(&bench.owner), 2, "also while nobody waits");
    drop(first);
    until(&bench.owner, "the end of the first", || watches(&bench.owner) == 1);
    nx.shutdown().expect("it lets go");
    until(&bench.owner, "the end of the second", || watches(&bench.owner) == 0);
    drop(second);
}

#[test]
fn one_watch_more_than_a_client_may_have_is_refused_until_another_one_ends() {
    const WATCHES: usize = 1_024;
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let watch = || nx.watch("/a").stream();
    let mut open: Vec<_> = (0..WATCHES).map(|_| watch().expect("there is a place")).collect();
    let refused = watch().map(drop).expect_err("there is none");
    assert_eq!(refused.kind(), nexus::ErrorKind::Busy);
    assert!(refused.to_string().contains("1024 watches"), "{refused}");
    open.pop();
    open.push(watch().expect("there is one again"));
    lock_once(&bench.owner, "/a");
    assert!(open.iter_mut().all(|open| event(open).kind == EventKind::Locked));
}
