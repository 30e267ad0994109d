//! Consumer groups: the records of a stream are shared among those who work on them, and a crashed one's work is taken up by another.

#[path = "common/hindered.rs"]
mod hindered;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use nexus::blocking::{self, Consumer};
use nexus::gate::{Decision, Permission};
use nexus::{
    Bytes, Caller, Chosen, Config, Delivered, Errno, Error, GroupAction, GroupDone, GroupSettings, IoProfile,
    Kill, Right, Serving, StreamSpec, StreamStart, SysGroup, SysTake, VPath,
};
use nexus_actors::block_on;
use nexus_kernel::streams::{GroupEntry, StreamStatistics};

use hindered::Hindered;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(30);

/// Long enough to be told apart from nothing.
const SHORT: Duration = Duration::from_millis(20);

/// Longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(60);

const AT: &str = "/jobs";

fn settings() -> GroupSettings {
    GroupSettings::default()
}

fn in_memory() -> blocking::Nexus {
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    nx.make_stream(AT, StreamSpec::new()).expect("it is made");
    nx
}

fn on_disk(folder: &Path) -> blocking::Nexus {
    loop {
        match blocking::connect(Config::new(folder)) {
            Ok(nx) => return nx,
            // The one before it is not gone yet.
            Err(error) => assert_eq!(error.errno(), Errno::EBUSY, "{error}"),
        }
    }
}

fn join(nx: &blocking::Nexus, settings: GroupSettings) -> Consumer {
    nx.consumer(AT, "g", StreamStart::Oldest, settings).expect("it joins")
}

#[test]
fn who_waits_for_a_record_and_whose_life_ends_is_given_none() {
    let nx = in_memory();
    let other = join(&nx, settings());
    let kernel = nx.kernel().expect("it is here");
    let life = kernel.begin_life();
    let caller = Arc::new(Caller::administrator().living(life.id()));
    let mut call = SysTake::new(VPath::parse(AT).expect("it is one"), "g");
    call.wait = Some(LONG);
    let mut waits = pin!(kernel.send(&caller, call));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(life);
    nx.append_record(AT, "one").expect("there is room");
    let error = block_on(waits).expect_err("nothing is given to who is gone");
    assert_eq!(error.errno(), Errno::EPERM, "{error}");
    let taken = other.take(1, None).expect("it is there");
    assert_eq!((&taken[0].record.data, taken[0].deliveries), (&Bytes::from("one"), 1));
}

fn agent(nx: &blocking::Nexus, name: &str) -> (blocking::Nexus, Consumer) {
    let agent = nx.agent(name).expect("it may be");
    let consumer = join(&agent, settings());
    (agent, consumer)
}

fn append(nx: &blocking::Nexus, from: u64, count: u64) {
    let records = (from..from + count).map(|n| Bytes::from(n.to_string())).collect();
    assert_eq!(nx.append_records(AT, records).expect("it is appended"), from);
}

/// The offsets, with how often each was given. What it holds is what was appended there.
fn seen(taken: &[Delivered]) -> Vec<(u64, u32)> {
    for given in taken {
        assert_eq!(given.record.data, given.record.offset.to_string());
    }
    taken.iter().map(|given| (given.record.offset, given.deliveries)).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(done: Result<T, Error>, errno: Errno) -> Error {
    let error = done.expect_err("it is refused");
    assert_eq!(error.errno(), errno, "{error}");
    error
}

fn counted(nx: &blocking::Nexus) -> StreamStatistics {
    let read = nx.read("/__sys__/streams/statistics").expect("it is shown");
    serde_json::from_slice(&read).expect("they are counts")
}

/// Waits until it is so: the text says what for.
#[expect(clippy::disallowed_methods, reason = "what does not come is told by the clock of the machine")]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

#[test]
fn members_share_the_records_and_each_is_one_members() {
    const WORKERS: usize = 4;
    const COUNT: u64 = 400;
    let nx = in_memory();
    let done = thread::scope(|scope| {
        let worker = |n: usize| {
            let (_agent, consumer) = agent(&nx, &format!("worker-{n}"));
            let mut mine = Vec::new();
            while consumer.info().unwrap().info.finished < COUNT {
                let taken = consumer.take(3, Some(SHORT)).unwrap();
                mine.extend(seen(&taken));
                let offsets: Vec<u64> = taken.iter().map(|given| given.record.offset).collect();
                assert_eq!(consumer.acknowledge(offsets).unwrap(), taken.len() as u64);
            }
            mine
        };
        let workers: Vec<_> = (0..WORKERS).map(|n| scope.spawn(move || worker(n))).collect();
        for n in 0..COUNT / 4 {
            append(&nx, n * 4, 4);
        }
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let mut offsets: Vec<u64> = done.iter().map(|(offset, _)| *offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, Vec::from_iter(0..COUNT), "each once");
    assert!(done.iter().all(|(_, deliveries)| *deliveries == 1));
}

#[test]
fn the_work_of_an_agent_whose_life_ends_is_taken_up_by_another() {
    let nx = in_memory();
    append(&nx, 0, 3);
    let ((one, of_one), (_other, of_other)) = (agent(&nx, "one"), agent(&nx, "other"));
    assert_eq!(seen(&of_one.take(2, None).unwrap()), [(0, 1), (1, 1)]);
    of_one.acknowledge(0).unwrap();
    assert_eq!(seen(&of_other.take(9, None).unwrap()), [(2, 1)]);
    let held = of_other.info().unwrap().held;
    assert_eq!(
        held.iter().map(|held| (held.offset, &*held.agent)).collect::<Vec<_>>(),
        [(1, "one"), (2, "other")]
    );
    thread::scope(|scope| {
        let waiting = scope.spawn(|| of_other.take(9, Some(LONG)));
        until("somebody waits", || counted(&nx).readers_waiting == 1);
        drop((one, of_one));
        assert_eq!(seen(&waiting.join().unwrap().unwrap()), [(1, 2)], "at once, and not after its time");
    });
    assert_eq!(counted(&nx).taken_again, 1);
}

#[test]
fn what_nobody_acknowledges_in_time_is_given_again_also_while_all_actors_are_held() {
    let nx = in_memory();
    append(&nx, 0, 1);
    let ((_one, of_one), (_other, of_other)) = (agent(&nx, "one"), agent(&nx, "other"));
    let of_one = of_one.hold(SHORT);
    assert_eq!(seen(&of_one.take(1, None).unwrap()), [(0, 1)]);
    nx.kill("nexus/kernel/streams", Kill::Panic).unwrap();
    assert_eq!(seen(&of_other.take(1, Some(LONG)).unwrap()), [(0, 2)]);
    let late = refused(of_one.acknowledge(0), Errno::EPERM);
    assert!(late.to_string().contains("one does not have record 0"), "{late}");
    assert_eq!(of_other.acknowledge(Chosen::UpTo(0)).unwrap(), 1);
}

#[test]
fn who_needs_longer_says_so() {
    let nx = in_memory();
    append(&nx, 0, 1);
    let ((_one, of_one), (_other, of_other)) = (agent(&nx, "one"), agent(&nx, "other"));
    let brief = of_one.clone().hold(SHORT);
    assert_eq!(brief.take(1, None).unwrap().len(), 1);
    assert_eq!(of_one.extend(0).unwrap(), 1, "for as long as the group says");
    assert_eq!(of_other.take(1, Some(2 * SHORT)).unwrap(), []);
    assert_eq!(of_one.acknowledge(0).unwrap(), 1);
}

#[test]
fn what_is_given_back_is_given_again_at_once_or_later() {
    let nx = in_memory();
    append(&nx, 0, 2);
    let (_agent, consumer) = agent(&nx, "a");
    assert_eq!(consumer.take(2, None).unwrap().len(), 2);
    assert_eq!(consumer.give_back(1).unwrap(), 1);
    assert_eq!(consumer.give_back_for(0, 5 * SHORT).unwrap(), 1);
    assert_eq!(seen(&consumer.take(2, None).unwrap()), [(1, 2)]);
    let began = nx.env().now();
    assert_eq!(seen(&consumer.take(2, Some(LONG)).unwrap()), [(0, 2)]);
    assert!(nx.env().now().duration_since(began) > SHORT);
}

#[test]
fn what_is_given_too_often_is_set_aside_and_can_be_read() {
    let nx = in_memory();
    append(&nx, 0, 2);
    let consumer = join(&nx, settings().deliveries_max(2));
    for _ in 0..2 {
        consumer.take(1, None).unwrap();
        consumer.give_back(0).unwrap();
    }
    assert_eq!(seen(&consumer.take(9, None).unwrap()), [(1, 1)], "it holds nobody up");
    assert_eq!(seen(&consumer.dead().unwrap()), [(0, 2)]);
    assert_eq!((consumer.info().unwrap().info.dead, counted(&nx).dead), (1, 1));
    assert_eq!(consumer.revive(vec![0]).unwrap(), 1);
    assert_eq!(seen(&consumer.take(9, None).unwrap()), [(0, 1)]);
    consumer.give_back(0).unwrap();
    consumer.take(1, None).unwrap();
    consumer.give_back(0).unwrap();
    assert_eq!((consumer.bury(vec![0, 7]).unwrap(), consumer.dead().unwrap().len()), (1, 0));
}

#[test]
fn retention_that_overtakes_a_group_is_told() {
    let nx = blocking::connect(Config::in_memory()).expect("it boots");
    // Room for ten records of a digit or two.
    nx.make_stream(AT, StreamSpec::new().bytes_max(60)).unwrap();
    let (_agent, consumer) = agent(&nx, "a");
    for n in 0..10 {
        append(&nx, n, 1);
    }
    assert_eq!(consumer.take(2, None).unwrap().len(), 2);
    for n in 10..40 {
        append(&nx, n, 1);
    }
    let taken = consumer.take_batch(1, Some(LONG)).unwrap();
    let first = taken.records[0].record.offset;
    assert_eq!((taken.lost, taken.records[0].deliveries), (first, 1), "those that were held, too");
    refused(consumer.acknowledge(0), Errno::EPERM);
    assert_eq!(consumer.info().unwrap().info.lost, first);
}

#[test]
fn a_take_has_a_deadline_and_waits_for_the_next_record() {
    let nx = in_memory();
    let (_agent, consumer) = agent(&nx, "a");
    refused(nx.send(SysTake::new(VPath::parse(AT).unwrap(), "g").wait(SHORT)), Errno::ETIMEDOUT);
    assert_eq!(consumer.take(1, Some(SHORT)).unwrap(), []);
    assert_eq!(consumer.take(1, None).unwrap(), []);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| consumer.take(1, Some(LONG)).unwrap())).collect();
        until("all wait", || counted(&nx).readers_waiting == 5);
        append(&nx, 0, 5);
        let mut offsets: Vec<_> = waiting.into_iter().flat_map(|one| seen(&one.join().unwrap())).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, Vec::from_iter((0..5).map(|n| (n, 1))));
    });
}

#[test]
fn a_take_that_is_dropped_gives_back_what_it_was_given() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    nx.make_stream(AT, StreamSpec::new()).unwrap();
    let (_agent, consumer) = agent(&nx, "a");
    append(&nx, 0, 50);
    let one = nx.as_async().agent("one").unwrap();
    let mut given = 0;
    let mut dropped = 0;
    // Dropped after so many steps: before it was given anything, between, and when all but the reply was done.
    for steps in 0..200 {
        let take = SysTake::new(VPath::parse(AT).unwrap(), "g").records_max(1).wait(LONG);
        let mut take = pin!(one.send(take));
        let mut cx = Context::from_waker(Waker::noop());
        let polled = (0..=steps % 40).find_map(|_| match take.as_mut().poll(&mut cx) {
            Poll::Ready(taken) => Some(taken.unwrap()),
            Poll::Pending => {
                thread::yield_now();
                None
            }
        });
        match polled {
            Some(taken) => {
                assert_eq!(taken.records[0].deliveries, 1, "what nobody heard of does not count");
                given += 1;
                let offset = taken.records[0].record.offset;
                let done = GroupAction::Acknowledge(offset.into());
                block_on(one.send(SysGroup::new(VPath::parse(AT).unwrap(), "g", done))).unwrap();
                if given == 40 {
                    break;
                }
            }
            None => dropped += 1,
        }
    }
    assert!(dropped > 0);
    until("what was dropped is free again", || consumer.info().unwrap().info.held == 0);
    let rest = consumer.take(256, None).unwrap();
    assert_eq!(rest.len() + given, 50, "nothing is lost, and nothing twice");
    assert!(rest.iter().all(|given| given.deliveries == 1));
    nx.shutdown().unwrap();
}

#[test]
fn who_takes_and_is_not_polled_any_more_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    nx.make_stream(AT, StreamSpec::new()).unwrap();
    let (_agent, consumer) = agent(&nx, "a");
    append(&nx, 0, 100);
    let one = nx.as_async().agent("one").unwrap();
    let take = SysTake::new(VPath::parse(AT).unwrap(), "g").records_max(1);
    // Left after so many steps, and not dropped.
    let left: Vec<_> = (1..20)
        .map(|steps| {
            let mut left = Box::pin(one.send(take.clone()));
            for _ in 0..steps {
                if left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    return None;
                }
                thread::yield_now();
            }
            let others = block_on(nx.env().timeout(LONG, nx.as_async().send(take.clone())));
            let others = others.expect("it is not held up").unwrap();
            assert_eq!(others.records.len(), 1);
            Some(left)
        })
        .collect();
    assert!(left.iter().any(Option::is_some), "it waits for the disk");
    drop(left);
    until("what was dropped is free again", || consumer.info().unwrap().info.held == 19);
    nx.shutdown().unwrap();
}

#[test]
fn who_waits_for_records_and_is_not_polled_any_more_is_passed_over() {
    let nx = in_memory();
    let (_agent, consumer) = agent(&nx, "a");
    let one = nx.as_async().agent("one").unwrap();
    let take = SysTake::new(VPath::parse(AT).unwrap(), "g").records_max(1).wait(LONG);
    let mut left = pin!(one.send(take));
    assert!(
        left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(),
        "it is the first in line"
    );
    thread::scope(|scope| {
        let others = scope.spawn(|| consumer.take(1, Some(LONG)));
        until("the other waits, too", || counted(&nx).readers_waiting == 2);
        append(&nx, 0, 1);
        assert_eq!(seen(&others.join().expect("it ends").expect("it is given one")), [(0, 1)]);
    });
}

#[test]
fn who_waits_for_less_than_the_first_in_line_may_take_is_given_what_is_there_too() {
    let nx = in_memory();
    let (_agent, consumer) = agent(&nx, "a");
    let one = nx.as_async().agent("one").unwrap();
    let take = SysTake::new(VPath::parse(AT).unwrap(), "g").records_max(1).wait(LONG);
    let mut left = pin!(one.send(take));
    assert!(left.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    append(&nx, 0, 3);
    assert_eq!(seen(&consumer.take(1, Some(SHORT)).unwrap()), [(0, 1)]);
    assert_eq!(seen(&consumer.take(1, Some(Duration::ZERO)).unwrap()), [(1, 1)]);
}

#[test]
fn who_waits_until_something_is_acknowledged_hears_that_the_stream_is_gone() {
    let nx = in_memory();
    let (_agent, consumer) = agent(&nx, "a");
    append(&nx, 0, 1_024);
    append(&nx, 1_024, 1_024);
    append(&nx, 2_048, 1);
    let mut taken = 0;
    while taken < 2_048 {
        taken += consumer.take(1_024, None).unwrap().len();
    }
    let (_other, other) = agent(&nx, "b");
    thread::scope(|scope| {
        let waits = scope.spawn(|| other.take(1, Some(LONG)));
        until("it waits", || counted(&nx).readers_waiting == 1);
        append(&nx, 2_049, 1);
        let begun = nx.env().now();
        nx.unlink(AT).unwrap();
        refused(waits.join().expect("it ends"), Errno::ENOENT);
        assert!(nx.env().now() - begun < LONG / 2, "it is told at once");
    });
}

/// What the process before had taken was free in memory alone when nothing could be written, and was held again by nobody once it could.
#[test]
fn what_a_restart_frees_is_free_also_when_that_could_not_be_written_at_first() {
    let folder = tempfile::tempdir().expect("there is room");
    let store = Arc::new(Hindered::default());
    let boot = || blocking::connect(Config::new(folder.path()).stream_store(store.clone())).unwrap();
    let nx = boot();
    nx.make_stream(AT, StreamSpec::new()).unwrap();
    append(&nx, 0, 3);
    let before = join(&nx, settings());
    assert_eq!(seen(&before.take(2, None).unwrap()), [(0, 1), (1, 1)]);
    nx.shutdown().unwrap();
    let nx = boot();
    store.is_full.store(true, Ordering::SeqCst);
    refused(nx.send(SysTake::new(VPath::parse(AT).unwrap(), "g")), Errno::ENOSPC);
    store.is_full.store(false, Ordering::SeqCst);
    let consumer = join(&nx, settings());
    assert_eq!(seen(&consumer.take(9, None).unwrap()), [(0, 2), (1, 2), (2, 1)]);
    nx.shutdown().unwrap();
    drop(before);
}

/// A life that ended while nobody knew what its group had, because something could not be written, had its records until their time was over.
#[test]
fn what_is_freed_while_the_groups_are_in_doubt_is_free() {
    let folder = tempfile::tempdir().expect("there is room");
    let store = Arc::new(Hindered::default());
    let nx = blocking::connect(Config::new(folder.path()).stream_store(store.clone())).unwrap();
    nx.make_stream(AT, StreamSpec::new()).unwrap();
    append(&nx, 0, 3);
    let (one, first) = agent(&nx, "one");
    let (_other, second) = agent(&nx, "other");
    assert_eq!(first.take(2, None).unwrap().len(), 2);
    store.is_full.store(true, Ordering::SeqCst);
    refused(second.take(1, None), Errno::ENOSPC);
    store.is_full.store(false, Ordering::SeqCst);
    drop((one, first));
    let mut all = Vec::new();
    while all.len() < 3 {
        let taken = seen(&second.take(9, Some(LONG)).unwrap());
        assert!(!taken.is_empty(), "{all:?} and no more");
        all.extend(taken);
    }
    all.sort_unstable();
    assert_eq!(all, [(0, 2), (1, 2), (2, 1)]);
    nx.shutdown().unwrap();
}

#[test]
fn a_restart_gives_what_was_not_acknowledged_and_nothing_else() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    nx.make_stream(AT, StreamSpec::new()).unwrap();
    append(&nx, 0, 10);
    let (life, consumer) = agent(&nx, "a");
    assert_eq!(consumer.take(6, None).unwrap().len(), 6);
    consumer.acknowledge(vec![0, 2, 5]).unwrap();
    let untied = SysTake::new(VPath::parse(AT).unwrap(), "g").records_max(1).untied();
    assert_eq!(seen(&life.send(untied).unwrap().records), [(6, 1)]);
    // Nobody says that it is to end.
    drop((life, consumer, nx));

    let nx = on_disk(folder.path());
    let (_agent, consumer) = agent(&nx, "a");
    assert_eq!(consumer.info().unwrap().info.next, 7);
    assert_eq!(seen(&consumer.take(99, None).unwrap()), [(1, 2), (3, 2), (4, 2), (7, 1), (8, 1), (9, 1)]);
    assert_eq!(consumer.acknowledge(Chosen::All).unwrap(), 7, "that which was tied to no life, too");
    assert_eq!(consumer.info().unwrap().info.lag, 0);
    nx.shutdown().unwrap();
}

#[test]
fn a_group_goes_with_its_stream_and_a_stream_that_takes_its_place_has_none() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = on_disk(folder.path());
    for profile in [IoProfile::Memory, IoProfile::Durable] {
        nx.make_stream(AT, StreamSpec::new().io_profile(profile)).unwrap();
        let (_agent, consumer) = agent(&nx, "a");
        append(&nx, 0, 1);
        assert_eq!(nx.groups(AT).unwrap().len(), 1);
        nx.rename(AT, "/moved").unwrap();
        assert_eq!(nx.group("/moved", "g").unwrap().info.lag, 1);
        nx.rename("/moved", AT).unwrap();
        thread::scope(|scope| {
            consumer.take(1, None).unwrap();
            let waiting = scope.spawn(|| consumer.take(1, Some(LONG)));
            until("somebody waits", || counted(&nx).readers_waiting == 1);
            nx.unlink(AT).unwrap();
            refused(waiting.join().unwrap(), Errno::ENOENT);
        });
        nx.make_stream(AT, StreamSpec::new().io_profile(profile)).unwrap();
        assert_eq!(nx.groups(AT).unwrap(), []);
        nx.unlink(AT).unwrap();
    }
    until("all is removed", || counted(&nx).dropped == 0);
    nx.shutdown().unwrap();
}

#[test]
fn a_group_that_is_removed_tells_who_waits() {
    let nx = in_memory();
    let (_agent, consumer) = agent(&nx, "a");
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| consumer.take(1, Some(LONG)))).collect();
        until("all wait", || counted(&nx).readers_waiting == 3);
        assert!(nx.remove_group(AT, "g").unwrap());
        for waiting in waiting {
            let told = refused(waiting.join().unwrap(), Errno::ENOENT);
            assert!(told.to_string().contains("no group g"), "{told}");
        }
    });
    assert!(!nx.remove_group(AT, "g").unwrap());
    append(&nx, 0, 2);
    let anew = nx.consumer(AT, "g", StreamStart::At(1), settings()).unwrap();
    assert_eq!(seen(&anew.take(9, None).unwrap()), [(1, 1)]);
}

#[test]
fn what_no_group_is_is_refused_before_anything_is_done() {
    let nx = in_memory();
    for name in ["", ".x", "a/b", &"x".repeat(65)] {
        refused(nx.consumer(AT, name, StreamStart::Oldest, settings()), Errno::EINVAL);
    }
    let with = |settings| nx.consumer(AT, "g", StreamStart::Oldest, settings);
    refused(with(settings().deadline(Duration::ZERO)), Errno::EINVAL);
    refused(with(settings().deadline(Duration::MAX)), Errno::EINVAL);
    refused(with(settings().deliveries_max(0)), Errno::EINVAL);
    refused(nx.consumer(AT, "g", 1, settings()), Errno::EINVAL);
    refused(nx.consumer("/none", "g", 0, settings()), Errno::ENOENT);
    nx.write("/file", "x").unwrap();
    refused(nx.consumer("/file", "g", 0, settings()), Errno::EOPNOTSUPP);
    refused(nx.group(AT, "g"), Errno::ENOENT);
    let at = VPath::parse(AT).unwrap();
    refused(nx.send(SysTake::new(&at, "g")), Errno::ENOENT);
    let (_agent, consumer) = agent(&nx, "a");
    refused(consumer.acknowledge(Vec::from_iter(0..257)), Errno::EINVAL);
    refused(consumer.clone().hold(Duration::ZERO).take(1, None), Errno::EINVAL);
    refused(consumer.give_back_for(Chosen::All, Duration::MAX), Errno::EINVAL);
    for n in 1..64 {
        nx.consumer(AT, format!("g{n}"), 0, settings()).unwrap();
    }
    refused(nx.consumer(AT, "one-more", 0, settings()), Errno::ENOSPC);
    // Made again it is what it was.
    assert_eq!(
        nx.send(SysGroup::join(&at, "g", 0, settings().deliveries_max(9))),
        Ok(GroupDone::Joined(false))
    );
    assert_eq!(consumer.info().unwrap().info.settings, settings());
}

#[derive(Debug)]
struct ReadersOnly;

impl Permission for ReadersOnly {
    fn check(&self, caller: &Caller, right: Right, _: &VPath) -> Decision {
        match (&*caller.agent, right) {
            ("reader", Right::Read) => Decision::Allow,
            _ => Decision::Deny("it may not".into()),
        }
    }
}

#[test]
fn who_may_read_a_stream_may_consume_it_and_not_remove_its_groups() {
    let nx = in_memory();
    append(&nx, 0, 1);
    let owner = join(&nx, settings());
    drop(owner);
    let (reader, stranger) = (nx.agent("reader").unwrap(), nx.agent("stranger").unwrap());
    nx.set_permission(Some(Arc::new(ReadersOnly))).unwrap();
    let consumer = join(&reader, settings());
    assert_eq!(consumer.take(1, None).unwrap().len(), 1);
    assert_eq!(consumer.acknowledge(0).unwrap(), 1);
    refused(reader.remove_group(AT, "g"), Errno::EACCES);
    refused(stranger.consumer(AT, "g", 0, settings()), Errno::EACCES);
    refused(stranger.groups(AT), Errno::EACCES);
}

#[test]
fn groups_are_shown() {
    let nx = in_memory();
    append(&nx, 0, 5);
    let (_agent, consumer) = agent(&nx, "a");
    consumer.take(2, None).unwrap();
    consumer.acknowledge(0).unwrap();
    let shown = nx.read("/__sys__/streams/groups").unwrap();
    let shown: Vec<GroupEntry> = serde_json::from_slice(&shown).unwrap();
    assert_eq!((shown[0].path.as_str(), &*shown[0].group.name, shown[0].group.lag), (AT, "g", 4));
    let counted = counted(&nx);
    assert_eq!((counted.groups, counted.taken, counted.acknowledged), (1, 2, 1));
    let listed = nx.groups(AT).unwrap();
    assert_eq!((listed[0].finished, listed[0].next, listed[0].held), (1, 2, 1));
}

#[test]
fn the_actor_may_be_killed_again_and_again() {
    const COUNT: u64 = 300;
    let nx = in_memory();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // It may be on its way back.
                let _ = nx.kill("nexus/kernel/streams", Kill::Panic);
                thread::yield_now();
            }
        });
        let mut done = BTreeMap::<u64, u32>::new();
        for n in 0..COUNT / 3 {
            append(&nx, n * 3, 3);
            let (agent_, consumer) = agent(&nx, "a");
            let taken = consumer.take(256, Some(LONG)).unwrap();
            let (first, _) = taken.split_first().unwrap();
            consumer.acknowledge(first.record.offset).unwrap();
            *done.entry(first.record.offset).or_default() += 1;
            drop((agent_, consumer));
        }
        let (_agent, consumer) = agent(&nx, "last");
        while consumer.info().unwrap().info.lag > 0 {
            for given in consumer.take(256, Some(LONG)).unwrap() {
                consumer.acknowledge(given.record.offset).unwrap();
                *done.entry(given.record.offset).or_default() += 1;
            }
            let dead: Vec<u64> = consumer.info().unwrap().dead.iter().map(|dead| dead.offset).collect();
            for some in dead.chunks(256) {
                consumer.revive(some.to_vec()).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(done.len() as u64, COUNT);
        assert!(done.values().all(|times| *times == 1));
    });
}

#[test]
fn attached_members_share_and_one_whose_connection_ends_leaves_its_work() {
    let folder = tempfile::tempdir().expect("there is room");
    let config = Config::new(folder.path()).serve(Serving::administrator());
    let owner = blocking::connect(config).expect("it boots");
    owner.make_stream(AT, StreamSpec::new()).unwrap();
    append(&owner, 0, 4);
    let attach = || blocking::attach(folder.path()).expect("it is served");
    let (one, other) = (attach(), attach());
    let (of_one, of_other) = (join(&one, settings()), join(&other, settings()));
    assert_eq!(seen(&of_one.take(2, None).unwrap()), [(0, 1), (1, 1)]);
    assert_eq!(seen(&of_other.take(1, None).unwrap()), [(2, 1)]);
    of_one.acknowledge(0).unwrap();
    drop((one, of_one));
    let mut taken = Vec::new();
    while taken.len() < 2 {
        taken.extend(seen(&of_other.take(9, Some(LONG)).unwrap()));
    }
    taken.sort_unstable();
    assert_eq!(taken, [(1, 2), (3, 1)]);
    // Calls that wait keep nobody from acknowledging.
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..10).map(|_| scope.spawn(|| of_other.take(1, Some(LONG)).unwrap())).collect();
        until("all wait", || counted(&owner).readers_waiting == 10);
        assert_eq!(of_other.acknowledge(Chosen::All).unwrap(), 3);
        append(&owner, 4, 10);
        waiting.into_iter().for_each(|waiting| assert_eq!(waiting.join().unwrap().len(), 1));
    });
    owner.shutdown().expect("it stops");
}

#[test]
fn an_attached_take_that_is_dropped_gives_back_what_it_was_given() {
    let folder = tempfile::tempdir().expect("there is room");
    let config = Config::new(folder.path()).serve(Serving::administrator());
    let owner = blocking::connect(config).expect("it boots");
    owner.make_stream(AT, StreamSpec::new()).unwrap();
    append(&owner, 0, 200);
    let nx = blocking::attach(folder.path()).expect("it is served");
    let consumer = join(&nx, settings());
    let mut given = 0;
    for round in 0..100_u32 {
        let taking = consumer.as_async().take(1, Some(LONG));
        let within = Duration::from_micros(u64::from(round) * 20);
        if let Ok(taken) = block_on(nx.env().timeout(within, taking)) {
            let taken = taken.unwrap();
            assert_eq!(taken[0].deliveries, 1);
            given += consumer.acknowledge(taken[0].record.offset).unwrap();
        }
    }
    until("what was dropped is free again", || consumer.info().unwrap().info.held == 0);
    let rest = consumer.take(256, None).unwrap();
    assert_eq!((rest.len() as u64 + given, rest.iter().all(|given| given.deliveries == 1)), (200, true));
    owner.shutdown().expect("it stops");
}

fn nexus(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEXUS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.arg("--data").arg(folder);
    command
}

fn killed(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn the_work_of_a_process_that_is_killed_is_taken_up_by_another() {
    let folder = tempfile::tempdir().expect("there is room");
    let config = Config::new(folder.path()).serve(Serving::administrator());
    let owner = blocking::connect(config).expect("it boots");
    owner.make_stream(AT, StreamSpec::new()).unwrap();
    append(&owner, 0, 2);
    let mut worker = nexus(folder.path());
    // It says that it is at it, and is not done before the worker is gone.
    let script = "cat; echo; while kill -0 $PPID 2>&-; do sleep 0.1; done";
    worker.args(["stream", "take", AT, "g", "--", "sh", "-c", script]).stdout(Stdio::piped());
    let mut worker = worker.spawn().expect("it starts");
    let mut said = String::new();
    let mut out = BufReader::new(worker.stdout.take().expect("it is piped"));
    out.read_line(&mut said).expect("it can be read");
    assert_eq!(said, "0\n");
    let consumer = join(&owner, settings());
    assert_eq!(seen(&consumer.take(1, None).unwrap()), [(1, 1)]);
    killed(worker);
    assert_eq!(seen(&consumer.take(1, Some(LONG)).unwrap()), [(0, 2)]);
    owner.shutdown().expect("it stops");
}

#[test]
fn the_owner_that_is_killed_forgets_no_acknowledgement() {
    let folder = tempfile::tempdir().expect("there is room");
    let mut serve = nexus(folder.path());
    let mut serve = serve.arg("serve").stdout(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    let mut out = BufReader::new(serve.stdout.take().expect("it is piped"));
    out.read_line(&mut said).expect("it can be read");
    let nx = blocking::attach(folder.path()).expect("it is served");
    nx.make_stream(AT, StreamSpec::new()).unwrap();
    append(&nx, 0, 20);
    let consumer = join(&nx, settings());
    let taken = consumer.take(10, None).unwrap();
    for given in taken.iter().step_by(2) {
        consumer.acknowledge(given.record.offset).unwrap();
    }
    killed(serve);
    drop((consumer, nx));
    let nx = on_disk(folder.path());
    let (_agent, consumer) = agent(&nx, "a");
    let odd = (0..10).filter(|n| n % 2 == 1).map(|n| (n, 2));
    assert_eq!(seen(&consumer.take(99, None).unwrap()), Vec::from_iter(odd.chain((10..20).map(|n| (n, 1)))));
    nx.shutdown().unwrap();
}
