//! Calls, and what they carry.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::{
    ByteRange, Bytes, ErrorKind, Executed, Grep, HookContext, MountSpec, OpId, OpOutcome, Serving, SysLock,
    SysRead, SysWrite, VPath, Verdict, blocking,
};
use parking_lot::Mutex;

use crate::bench::{Bench, PATIENCE, until};

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// Bytes that tell a mix-up of pieces.
fn pattern(length: usize) -> Bytes {
    let words = (0u32..).flat_map(u32::to_le_bytes);
    words.take(length).collect::<Vec<_>>().into()
}

#[test]
fn large_content_goes_both_ways() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    for length in [0, 1, 16_384, 200_000, 262_144, 262_145, 12 << 20] {
        let content = pattern(length);
        let written = nx.write("/f", content.clone()).expect("it writes");
        assert_eq!(written.written, length as u64);
        assert!(bench.owner.read("/f").expect("it is there") == content, "{length} bytes in");
        assert!(nx.read("/f").expect("it is there") == content, "{length} bytes out");
    }
    let content = pattern(12 << 20);
    let part = nx.read_range("/f", 1_234_567, 10_000_000).expect("it is there");
    assert!(part == content[1_234_567..11_234_567]);
    let ranges = vec![ByteRange::new(5, 10_000_000), ByteRange::new(1 << 60, 5), ByteRange::new(0, 7)];
    let read = nx.send(SysRead::at(path("/f")).vectored(ranges)).expect("it is there");
    assert!(read.data == content[5..10_000_005] && read.more == [Bytes::new(), content.slice(..7)]);
    assert_eq!(*read.metadata, *bench.owner.stat("/f").expect("it is there"));

    let many: Vec<Bytes> = (0..100_000u32).map(|n| Bytes::copy_from_slice(&n.to_le_bytes())).collect();
    nx.send(SysWrite::vectored(path("/many"), many).create()).expect("it writes");
    assert!(bench.owner.read("/many").expect("it is there") == pattern(400_000));
    let (old, new) = (pattern(3_000_000).slice(1_000..2_900_000), Bytes::from(vec![b'x'; 3_000_000]));
    nx.write("/edit", pattern(3_000_000)).expect("it writes");
    nx.edit("/edit", old, new.clone()).expect("it is there once");
    let edited = bench.owner.read("/edit").expect("it is there");
    assert!(edited[1_000..3_001_000] == new && edited.len() == 3_000_000 + 101_000);
}

#[test]
fn it_is_told_from_elsewhere_what_became_of_an_operation() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let call = SysWrite::at(path("/f"), "x").create().op_id(OpId(7));
    assert_eq!(nx.outcome(OpId(7)).expect("it can be told"), OpOutcome::NotExecuted);
    let receipt = nx.send(call).expect("it writes").receipt;
    // One without an identity is given one before it travels.
    let unnamed = nx.append("/f", "y").expect("it writes").receipt;
    for receipt in [receipt, unnamed] {
        let (here, there) = (nx.outcome(receipt.op_id), bench.owner.outcome(receipt.op_id));
        assert_eq!(here, there);
        assert_eq!(here.expect("it can be told").receipt(), Some(receipt));
    }
}

#[test]
fn what_is_larger_than_may_be_is_refused_before_it_is_sent() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let part = Bytes::from(vec![0; 64 << 20]);
    let much = vec![part; 65];
    let refused = nx.send(SysWrite::vectored(path("/f"), much.clone()).create()).expect_err("it is too much");
    let there = bench.owner.send(SysWrite::vectored(path("/f"), much).create()).expect_err("it is too much");
    assert_eq!((refused.kind(), refused.executed()), (there.kind(), there.executed()));
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    assert!(
        nx.read("/f").is_err_and(|error| error.kind() == ErrorKind::NotFound),
        "and the connection serves on"
    );
}

#[test]
fn many_calls_are_under_way_on_one_connection() {
    let bench = Bench::new(Serving::administrator().in_flight_max(16));
    let nx = bench.attach();
    let content = pattern(3 << 20);
    nx.write("/large", content.clone()).expect("it writes");
    nexus_actors::block_on(async {
        let nx = nx.as_async();
        let calls = (0..200u32).map(|n| {
            let content = &content;
            async move {
                match n % 4 {
                    0 => assert!(nx.read("/large").await.expect("it is there") == *content),
                    1 => drop(nx.append("/log", format!("{n}\n")).await.expect("it writes")),
                    2 => drop(
                        nx.write(format!("/large{n}"), content.slice(..1 << 20)).await.expect("it writes"),
                    ),
                    _ => assert_eq!(nx.stat("/large").await.expect("it is there").size, 3 << 20),
                }
            }
        });
        futures_util::stream::iter(calls).buffer_unordered(64).collect::<Vec<()>>().await;
    });
    let log = bench.owner.read("/log").expect("it is there");
    assert_eq!(String::from_utf8_lossy(&log).lines().count(), 50);
    until(&bench.owner, "the end of all", || bench.owner.serving().unwrap().unwrap().calls == 0);
}

/// As many streams as the owner has places for, and once more as many that wait for one.
#[test]
fn who_opens_more_streams_than_may_be_open_waits_for_a_place() {
    const STREAMS: usize = 128;
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    bench.owner.write("/f", pattern(1_500_000)).expect("it writes");
    let nx = nx.as_async();
    // Each reads while it writes: all that read have their places before the first that writes asks for one.
    let copies = (0..STREAMS).map(|nth| async move {
        let reading = nx.open_stream(SysRead::at(path("/f"))).await.expect("it waits for a place");
        let content = futures_util::stream::unfold(reading, |mut reading| async move {
            let piece = reading.next().await?;
            Some((piece, reading))
        });
        let call = SysWrite::vectored(path(&format!("/copy{nth}")), Vec::new()).create();
        nx.send_stream(call, content).await.expect("it waits for a place")
    });
    let written = nexus_actors::block_on(futures_util::future::join_all(copies));
    assert!(written.iter().all(|written| written.written == 1_500_000));
}

#[test]
fn batches_walks_globs_and_greps_work_from_elsewhere() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let files = (0..600).map(|n| (format!("/d/{:02}/{n}", n % 50), format!("line\nnumber {n}\n")));
    assert!(nx.write_batch(files.collect::<Vec<_>>()).iter().all(Result::is_ok));
    let here = |nx: &blocking::Nexus| {
        let walked: Vec<_> = nx.walk("/").with_metadata().map(|entry| entry.expect("it walks")).collect();
        let found = nx.grep(Grep::new("number .*7$").path("/d")).expect("it greps");
        let globbed = nx.glob("/d/*7/*9").expect("it globs");
        let read = nx.read_batch(globbed.clone()).into_iter().map(|read| read.expect("it is there"));
        (walked, found.matches, found.stats, globbed, read.collect::<Vec<_>>())
    };
    assert!(here(&nx) == here(&bench.owner));
    assert_eq!(here(&nx).0.len(), 1 + 50 + 600);
}

#[test]
fn the_kernel_is_shown_and_hurt_from_elsewhere() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    nx.mount("/m", MountSpec::new("memory")).expect("it mounts");
    let (there, here) = (nx.mounts().expect("it looks"), bench.owner.mounts().expect("it looks"));
    assert_eq!(there, here);
    let router = |nx: &blocking::Nexus| {
        let tree = nx.tree().expect("it looks");
        let kernel = tree.children.into_iter().find(|child| &*child.id == "kernel").expect("it is there");
        kernel.children.into_iter().find(|child| &*child.id == "router").expect("it is there")
    };
    let before = router(&nx).generation;
    assert!(nx.kill("nexus/kernel/router", nexus::Kill::Panic).expect("it may"));
    until(&nx, "the router", || router(&nx).generation == before + 1);
    let exit = router(&nx).last_exit.expect("it has ended once");
    assert_eq!((&*exit.kind, router(&bench.owner).last_exit), ("panic", Some(exit.clone())));
    assert!(!nx.kill("nexus/kernel/nobody", nexus::Kill::Panic).expect("it may"));
    assert!(nx.kill("nexus/kernel", nexus::Kill::Error).expect("it may"), "a supervisor, too");
}

#[test]
fn what_needs_the_process_of_the_kernel_says_so() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let refusals = [
        nx.kernel().map(drop).unwrap_err(),
        nx.hooks().map(drop).unwrap_err(),
        nx.set_permission(None).unwrap_err(),
        nx.serving().map(drop).unwrap_err(),
        nx.ended().map(drop).unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(refused.kind(), ErrorKind::NotSupported);
        assert!(refused.to_string().contains("the handle is attached"), "{refused}");
    }
}

#[test]
fn calls_that_wait_for_others_keep_nobody_of_the_same_connection_from_going_on() {
    const WAITING: usize = 100;
    let bench = Bench::new(Serving::administrator().in_flight_max(4));
    let nx = bench.attach();
    let held = nx.lock("/a", Duration::ZERO).expect("it is free");
    let at: VPath = "/a".parse().expect("a path");
    nexus_actors::block_on(async {
        let nx = nx.as_async();
        let mut waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                Box::pin(async {
                    let call = SysLock::exclusive(&at).wait(Duration::from_secs(60));
                    let lock = nx.send(call).await.expect("it comes");
                    nx.unlock("/a", lock.id).await.expect("it is held");
                })
            })
            .collect();
        for waiting in &mut waiting {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        nx.unlock("/a", held.id).await.expect("others wait, and this one does not");
        futures_util::future::join_all(waiting).await;
    });
    let locks = bench.owner.kernel().expect("it is the administrator's").advisory().clone();
    until(&bench.owner, "the end of all", || bench.owner.serving().unwrap().unwrap().calls == 0);
    assert_eq!((locks.statistics().held, locks.statistics().waiting), (0, 0));
}

/// However much they write together: what is beyond what may wait is refused, and who would make room is heard.
#[test]
fn messages_that_wait_for_room_keep_nobody_of_the_same_connection_from_making_it() {
    const MESSAGE: u32 = 1 << 20;
    const WRITERS: usize = 80;
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let at = path("/p");
    nx.make_pipe(&at, MESSAGE).expect("it is made");
    let content = pattern(1 << 20);
    let refused = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..WRITERS {
        let (there, refused) = (nx.as_async().clone(), refused.clone());
        let call = SysWrite::at(&at, content.clone()).wait(Duration::MAX);
        bench.owner.env().spawn("writes", async move {
            if let Err(error) = there.send(call).await {
                refused.lock().push((error.kind(), error.executed()));
            }
        });
    }
    // Of 64 MiB, the usual limit of what is read.
    until(&bench.owner, "those that wait", || bench.owner.serving().unwrap().unwrap().calls >= 64);
    nexus_actors::block_on(async {
        let reading = Box::pin(nx.as_async().send(SysRead::at(&at).wait(PATIENCE)));
        let read = bench.owner.env().timeout(PATIENCE, reading).await.expect("it is heard");
        assert!(read.expect("they write").data == content);
    });
    until(&bench.owner, "those that are refused", || !refused.lock().is_empty());
    let told = refused.lock().clone();
    assert!(told.iter().all(|told| *told == (ErrorKind::Busy, Executed::No)), "{told:?}");
    assert!(told.len() <= WRITERS - 64, "{told:?}");
    nx.shutdown().expect("it lets go");
    until(&bench.owner, "the end of all", || bench.owner.serving().unwrap().unwrap().calls == 0);
}

#[test]
fn a_lock_goes_with_the_connection_that_it_is_tied_to() {
    let bench = Bench::new(Serving::administrator());
    let (nx, other) = (bench.attach(), bench.attach());
    let guard = nx.locked("/a", Duration::ZERO).expect("it is free");
    assert_eq!(other.lock("/a", Duration::ZERO).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(guard);
    let lock = other.lock("/a", Duration::from_secs(60)).expect("the guard gave it back");
    other.unlock("/a", lock.id).expect("it is held");
    let agent = nx.agent("coder-7").expect("a name");
    agent.send(SysLock::exclusive(VPath::root()).tied().ttl(SysLock::TTL_MAX)).expect("it is free");
    nx.shutdown().expect("it lets go");
    other.lock("/b", Duration::from_secs(60)).expect("it went with the connection");
}

#[test]
fn a_lock_whose_taker_goes_away_before_it_hears_of_it_is_taken_back() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let there = nx.as_async();
    let locks = bench.owner.kernel().expect("it is the administrator's").advisory().clone();
    let at = path("/a");
    for round in 0..400 {
        let call = SysLock::exclusive(&at).ttl(SysLock::TTL_MAX);
        {
            // Dropped before it is sent, while it is served, while the reply is on its way, or when that has come.
            let mut taking = pin!(there.send(call));
            assert!(taking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            (0..round * 20).for_each(|_| std::hint::spin_loop());
        }
        until(&bench.owner, "the lock to be free", || locks.statistics().held == 0);
        let lock = nx.lock("/a", Duration::from_secs(60)).expect("nobody holds it");
        nx.unlock("/a", lock.id).expect("it is held");
    }
}

#[test]
fn a_call_whose_caller_goes_away_is_called_off() {
    let bench = Bench::new(Serving::administrator().in_flight_max(4));
    let nx = bench.attach();
    let content = pattern(8 << 20);
    nx.write("/large", content.clone()).expect("it writes");
    let locks = bench.owner.kernel().expect("it is the administrator's").path_locks();
    let there = nx.as_async();
    for round in 0..100 {
        // Both are dropped soon after their first step: in the middle of what is sent or received.
        let mut both =
            pin!(futures_util::future::join(there.read("/large"), there.write("/other", content.clone())));
        assert!(both.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        (0..round * 100).for_each(|_| std::hint::spin_loop());
    }
    assert!(nx.read("/large").expect("it is there") == content, "the connection serves on");
    until(&bench.owner, "the end of all", || {
        let statistics = locks.statistics();
        (statistics.held, statistics.waiting, bench.owner.serving().unwrap().unwrap().calls) == (0, 0, 0)
    });
    let other = bench.owner.read("/other");
    assert!(other.is_err() || other.is_ok_and(|other| other == content), "all of it or nothing");
}

/// Aborts calls, each with the error that its path names.
struct Aborts;

impl Interceptor for Aborts {
    fn ops(&self) -> OpSet {
        OpSet::ALL
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        let kind = match cx.call.path().as_str() {
            "/busy" => Some(ErrorKind::Busy),
            "/full" => Some(ErrorKind::StoreFull),
            "/denied" => Some(ErrorKind::PermissionDenied),
            _ => None,
        };
        let verdict =
            kind.map_or(Verdict::Continue, |kind| Verdict::refuse_as(kind, format!("for {kind:?}")));
        Box::pin(std::future::ready(verdict))
    }
}

#[test]
fn a_call_that_a_hook_aborts_arrives_with_the_error_of_its_choice() {
    let bench = Bench::new(Serving::administrator());
    let hook = Registration::interceptor("aborts", Arc::new(Aborts));
    bench.owner.register_hook(hook).expect("there is room");
    let nx = bench.attach();
    for (at, kind) in [
        ("/busy", ErrorKind::Busy),
        ("/full", ErrorKind::StoreFull),
        ("/denied", ErrorKind::PermissionDenied),
    ] {
        for error in [
            nx.write(at, "x").map(drop).expect_err("it is aborted"),
            nx.read(at).map(drop).expect_err("it is aborted"),
            nx.stat(at).map(drop).expect_err("it is aborted"),
        ] {
            assert_eq!((error.kind(), error.errno()), (kind, kind.errno()), "{error}");
            assert_eq!((error.executed(), error.path()), (Executed::No, Some(at)));
            assert_eq!(error.cause(), Some(&*format!("aborts: for {kind:?}")), "{error}");
        }
        let own = bench.owner.write(at, "x").map(drop).expect_err("it is aborted");
        let other = nx.write(at, "x").map(drop).expect_err("it is aborted");
        assert_eq!(own.to_string(), other.to_string());
    }
    nx.write("/fine", "x").expect("it passes");
}
