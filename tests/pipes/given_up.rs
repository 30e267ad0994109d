//! Reads that are given up after they have taken something, and writes that are repeated: nothing is lost, and nothing comes twice.

#![expect(clippy::disallowed_methods, reason = "users have tasks of their own, and wait in real time")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::{
    Bytes, Config, Errno, GroupSettings, HookContext, Nexus, Op, OpId, Outcome, PipeSpec, Result, Serving,
    StreamSpec, StreamStart, SysLock, SysRead, SysWrite, VPath, Verdict, Written,
};

use crate::bench::{LONG, SHORT, path};

/// Holds up who read from a pipe, took from a group or was given a lock, until it is let go.
#[derive(Default)]
struct Holds {
    held: AtomicUsize,
    is_open: AtomicBool,
}

impl Interceptor for Holds {
    fn ops(&self) -> OpSet {
        [Op::Read, Op::Take, Op::Lock].into_iter().collect()
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(Verdict::Continue))
    }

    fn after<'a>(&'a self, _: &'a HookContext, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if outcome.is_ok() && !self.is_open.load(Ordering::Relaxed) {
                self.held.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }
        })
    }
}

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Polls `call` until `there`, which it never comes to the end before.
#[track_caller]
fn poll_until<T>(call: &mut Call<'_, T>, what: &str, there: impl Fn() -> bool) {
    let began = Instant::now();
    while !there() {
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "it came to its end before {what}");
        assert!(began.elapsed() < LONG, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A kernel in a folder, and what holds up who reads.
async fn held() -> (Nexus, Arc<Holds>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("there is room");
    let config = Config::new(folder.path()).serve(Serving::administrator());
    let nx = nexus::connect(config).await.expect("it boots");
    let holds = Arc::new(Holds::default());
    nx.register_hook(Registration::interceptor("holds", holds.clone())).await.expect("there is room");
    (nx, holds, folder)
}

async fn make(nx: &Nexus, spec: PipeSpec) -> VPath {
    let at = path("/p");
    nx.make_pipe_with(&at, spec).await.expect("it is made");
    at
}

async fn write(nx: &Nexus, at: &VPath, messages: &[&'static str]) {
    for message in messages {
        nx.send(SysWrite::at(at, *message)).await.expect("there is room");
    }
}

async fn read(nx: &Nexus, at: &VPath) -> Bytes {
    nx.send(SysRead::at(at).wait(LONG)).await.expect("there is a message").data
}

/// Waits until it is so of the one pipe, as it is listed.
async fn until(nx: &Nexus, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
    let began = Instant::now();
    loop {
        let listed = nx.read("/__sys__/pipes/.all").await.expect("it is listed");
        let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed).expect("it is JSON");
        if listed.first().is_some_and(&is_so) {
            return;
        }
        assert!(began.elapsed() < LONG, "waited in vain until {what}: {listed:?}");
        tokio::task::yield_now().await;
    }
}

/// Takes a message with each of these calls, gives them up in this order, and expects all as they were written.
async fn check(spec: PipeSpec, order: &[usize]) {
    let (nx, holds, _folder) = held().await;
    let at = make(&nx, spec).await;
    write(&nx, &at, &["one", "two", "three", "four"]).await;
    let mut calls: Vec<Option<Call<'_, _>>> = Vec::new();
    for number in 0..3 {
        let call = SysRead::at(&at);
        let mut call: Call<'_, _> = Box::pin(nx.send(if number % 2 == 0 { call.wait(LONG) } else { call }));
        poll_until(&mut call, "a hook holds it", || holds.held.load(Ordering::Relaxed) > number);
        calls.push(Some(call));
    }
    for number in order {
        drop(calls[*number].take());
    }
    holds.is_open.store(true, Ordering::Relaxed);
    for message in ["one", "two", "three", "four"] {
        assert_eq!(read(&nx, &at).await, message, "given up in the order {order:?}");
    }
    nx.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn messages_whose_readers_go_away_under_a_hook_are_read_by_others_in_their_order() {
    check(PipeSpec::new(1_000), &[0, 1, 2]).await;
    check(PipeSpec::new(1_000), &[2, 0, 1]).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn so_are_those_of_a_pipe_in_shared_memory() {
    check(PipeSpec::shared(1_000), &[0, 1, 2]).await;
    check(PipeSpec::shared(1_000), &[2, 0, 1]).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_comes_back_to_shared_memory_without_room_is_there_when_there_is_some() {
    for is_mapped in [false, true] {
        let (nx, holds, folder) = held().await;
        let at = make(&nx, PipeSpec::shared(8)).await;
        write(&nx, &at, &["first"]).await;
        let mut call: Call<'_, _> = Box::pin(nx.send(SysRead::at(&at)));
        poll_until(&mut call, "a hook holds it", || holds.held.load(Ordering::Relaxed) == 1);
        write(&nx, &at, &["second"]).await;
        drop(call);
        if is_mapped {
            for hook in nx.hooks().await.expect("they are listed") {
                nx.unregister_hook(hook.id).await.expect("it is there");
            }
            let client = nexus::attach(folder.path()).await.expect("it is served");
            let end = client.pipe_reader(&at).await.expect("it is opened");
            // What came back is in the owner alone, until there is room.
            for message in ["second", "first"] {
                assert_eq!(
                    end.read(Some(LONG)).await.expect("it comes").as_deref(),
                    Some(message.as_bytes())
                );
            }
            client.shutdown().await.expect("it lets go");
        } else {
            holds.is_open.store(true, Ordering::Relaxed);
            assert_eq!((read(&nx, &at).await, read(&nx, &at).await), ("first".into(), "second".into()));
        }
        nx.shutdown().await.expect("it stops");
    }
}

#[tokio::test]
async fn a_waiting_reader_gets_what_another_gave_up() {
    let (nx, holds, _folder) = held().await;
    let at = make(&nx, PipeSpec::new(100)).await;
    write(&nx, &at, &["one"]).await;
    let mut first: Call<'_, _> = Box::pin(nx.send(SysRead::at(&at).wait(LONG)));
    poll_until(&mut first, "a hook holds it", || holds.held.load(Ordering::Relaxed) == 1);
    holds.is_open.store(true, Ordering::Relaxed);
    let (other, there) = (nx.clone(), at.clone());
    let waiting = tokio::spawn(async move { read(&other, &there).await });
    until(&nx, "it stands in line", |pipe| pipe["readers_waiting"] == 1).await;
    drop(first);
    assert_eq!(waiting.await.expect("it reads"), "one");
    nx.shutdown().await.expect("it stops");
}

/// The end of a pipe is told when nothing can come back any more.
async fn check_end(spec: PipeSpec) {
    let (nx, holds, _folder) = held().await;
    let at = make(&nx, spec).await;
    let writer = nx.pipe_writer(&at).await.expect("it is opened");
    let end = nx.pipe_reader(&at).await.expect("it is opened");
    write(&nx, &at, &["one", "two"]).await;
    let mut calls: [Call<'_, _>; 2] = [(); 2].map(|()| Box::pin(nx.send(SysRead::at(&at))) as Call<'_, _>);
    for (number, call) in calls.iter_mut().enumerate() {
        poll_until(call, "a hook holds it", || holds.held.load(Ordering::Relaxed) > number);
    }
    holds.is_open.store(true, Ordering::Relaxed);
    drop(writer);
    for wait in [None, Some(SHORT)] {
        let none = end.read(wait).await.map_err(|error| error.errno());
        let errno = if wait.is_some() { Errno::ETIMEDOUT } else { Errno::EAGAIN };
        assert_eq!(none, Err(errno), "what was taken may come back");
    }
    let (other, there) = (nx.clone(), at.clone());
    let waiting = tokio::spawn(async move {
        [read(&other, &there).await, read(&other, &there).await, read(&other, &there).await]
    });
    until(&nx, "it stands in line", |pipe| pipe["readers_waiting"] == 1).await;
    let [first, second] = calls;
    drop(first);
    until(&nx, "it stands in line again", |pipe| pipe["readers_waiting"] == 1).await;
    drop(second);
    assert_eq!(waiting.await.expect("it reads"), ["one", "two", ""]);
    assert_eq!(end.read(None).await, Ok(None), "it is at its end");
    nx.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn the_end_is_not_told_while_a_message_may_come_back() {
    check_end(PipeSpec::new(100)).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nor_is_that_of_a_pipe_in_shared_memory() {
    check_end(PipeSpec::shared(100)).await;
}

/// Has each read meet others after it took its message.
struct Yields;

impl Interceptor for Yields {
    fn ops(&self) -> OpSet {
        [Op::Read].into_iter().collect()
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(Verdict::Continue))
    }

    fn after<'a>(&'a self, _: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        Box::pin(tokio::task::yield_now())
    }
}

/// Reads to the end of the pipe, and gives up every other read after some looks at it; says how many messages there were.
async fn read_to_the_end(nx: Nexus, at: VPath, patience: usize) -> usize {
    let mut messages = 0;
    for turn in 0.. {
        let mut call = Box::pin(nx.send(SysRead::at(&at).wait(LONG)));
        let mut looks = if turn % 2 == 0 { usize::MAX } else { patience };
        let looked = std::future::poll_fn(|cx| {
            looks -= 1;
            match call.as_mut().poll(cx) {
                Poll::Pending if looks == 0 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(read) => Poll::Ready(Some(read)),
            }
        });
        match looked.await {
            None => {}
            Some(read) if read.as_ref().is_ok_and(|read| read.data.is_empty()) => break,
            Some(read) => messages += usize::from(!read.expect("it is there").data.is_empty()),
        }
    }
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_come_to_the_end_and_nothing_is_left_behind_it() {
    const MESSAGES: usize = 300;
    let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
    nx.register_hook(Registration::interceptor("yields", Arc::new(Yields))).await.expect("there is room");
    for round in 0..20 {
        let at = path(&format!("/p{round}"));
        nx.make_pipe(&at, 64).await.expect("it is made");
        let writer = nx.pipe_writer(&at).await.expect("it is opened");
        let readers: Vec<_> = (0..6)
            .map(|reader| tokio::spawn(read_to_the_end(nx.clone(), at.clone(), 1 + reader % 3)))
            .collect();
        for _ in 0..MESSAGES {
            writer.write("message", Some(LONG)).await.expect("there is room");
        }
        drop(writer);
        let mut read = 0;
        for reader in readers {
            read += reader.await.expect("it comes to the end");
        }
        assert_eq!(read, MESSAGES);
    }
    nx.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn records_and_locks_go_back_so_too() {
    let (nx, holds, _folder) = held().await;
    nx.make_stream("/jobs", StreamSpec::new()).await.expect("it is made");
    nx.append_records("/jobs", vec!["build".into()]).await.expect("it is appended");
    let consumer = nx.consumer("/jobs", "ci", StreamStart::Oldest, GroupSettings::default()).await;
    let consumer = consumer.expect("it joins");
    let mut take: Call<'_, _> = Box::pin(consumer.take(1, Some(LONG)));
    poll_until(&mut take, "a hook holds it", || holds.held.load(Ordering::Relaxed) == 1);
    let at = path("/lock");
    let mut lock: Call<'_, _> = Box::pin(nx.send(SysLock::exclusive(&at)));
    poll_until(&mut lock, "a hook holds it", || holds.held.load(Ordering::Relaxed) == 2);
    let mut place: Call<'_, _> = Box::pin(nx.send(SysLock::semaphore(path("/places"), 1)));
    poll_until(&mut place, "a hook holds it", || holds.held.load(Ordering::Relaxed) == 3);
    drop((take, lock, place));
    holds.is_open.store(true, Ordering::Relaxed);
    let records = consumer.take(1, Some(LONG)).await.expect("it is there again");
    assert_eq!((&records[0].record.data, records[0].deliveries), (&Bytes::from("build"), 1));
    nx.send(SysLock::exclusive(&at)).await.expect("nobody has it");
    nx.send(SysLock::semaphore(path("/places"), 1)).await.expect("nobody has it");
    nx.shutdown().await.expect("it stops");
}

/// Reads of a client that was attached: under a hook in the owner, and with the reply on its way.
async fn check_attached(spec: PipeSpec, through_an_end: bool) {
    let (nx, holds, folder) = held().await;
    let at = make(&nx, spec).await;
    let client = nexus::attach(folder.path()).await.expect("it is served");
    let end = client.pipe_reader(&at).await.expect("it is opened");
    let take = || -> Call<'_, Bytes> {
        match through_an_end {
            true => Box::pin(async { Ok(end.read(Some(LONG)).await?.unwrap_or_default()) }),
            false => Box::pin(async { Ok(client.send(SysRead::at(&at).wait(LONG)).await?.data) }),
        }
    };
    write(&nx, &at, &["one"]).await;
    let mut under_a_hook = take();
    poll_until(&mut under_a_hook, "a hook holds it", || holds.held.load(Ordering::Relaxed) == 1);
    holds.is_open.store(true, Ordering::Relaxed);
    drop(under_a_hook);
    assert_eq!(read(&nx, &at).await, "one");

    let mut on_its_way = take();
    assert!(on_its_way.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    write(&nx, &at, &["two"]).await;
    let began = Instant::now();
    // Taken, and not looked at by who waits for it.
    while nx.send(SysRead::at(&at)).await.is_ok_and(|there| !there.data.is_empty()) {
        write(&nx, &at, &["two"]).await;
        assert!(began.elapsed() < LONG, "waited in vain for the client's read");
        tokio::task::yield_now().await;
    }
    drop(on_its_way);
    assert_eq!(read(&nx, &at).await, "two");

    // What it has it keeps.
    write(&nx, &at, &["three", "four"]).await;
    assert_eq!(take().await.expect("it is there"), "three");
    assert_eq!(take().await.expect("it is there"), "four");
    client.shutdown().await.expect("it lets go");
    let none = nx.send(SysRead::at(&at).wait(SHORT)).await;
    let none = none.map(|read| read.data);
    assert!(none.as_ref().is_ok_and(Bytes::is_empty) || none.is_err_and(|e| e.errno() == Errno::ETIMEDOUT));
    nx.shutdown().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_takes_and_never_hears_of_goes_back() {
    check_attached(PipeSpec::new(1_000), false).await;
    check_attached(PipeSpec::new(1_000), true).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_what_it_takes_from_shared_memory() {
    check_attached(PipeSpec::shared(1_000), false).await;
    check_attached(PipeSpec::shared(1_000), true).await;
}

#[tokio::test]
async fn a_write_with_an_identity_is_executed_once() {
    let folder = tempfile::tempdir().expect("there is room");
    let config = Config::new(folder.path()).serve(Serving::administrator());
    let nx = nexus::connect(config).await.expect("it boots");
    let at = make(&nx, PipeSpec::new(1_000)).await;
    let call = |message: &'static str, op: u128| SysWrite::at(&at, message).op_id(OpId(op));
    // A client that loses its connection, and another that repeats what it wrote.
    let first = nexus::attach(folder.path()).await.expect("it is served");
    let before = first.send(call("message", 7)).await.expect("there is room");
    first.shutdown().await.expect("it lets go");
    let second = nexus::attach(folder.path()).await.expect("it is served");
    for nx in [&second, &nx] {
        let again = nx.send(call("message", 7)).await.expect("it was executed");
        assert_eq!((again.written, again.receipt), (before.written, before.receipt));
    }
    second.send(call("other", 8)).await.expect("there is room");
    assert_eq!((read(&nx, &at).await, read(&nx, &at).await), ("message".into(), "other".into()));
    nx.send(SysRead::at(&at)).await.expect_err("nothing came twice");
    // One that was not executed is none that is remembered.
    nx.send(call(Box::leak("x".repeat(1_001).into_boxed_str()), 9)).await.expect_err("it is too large");
    nx.send(call("small", 9)).await.expect("there is room");
    assert_eq!(read(&nx, &at).await, "small");
    nx.shutdown().await.expect("it stops");
}

#[tokio::test]
async fn a_repeat_of_a_write_that_waits_waits_for_that() {
    let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
    let at = make(&nx, PipeSpec::new(10)).await;
    write(&nx, &at, &["full"]).await;
    let call = || SysWrite::at(&at, "waiting").op_id(OpId(7));
    let [mut first, mut second, mut third]: [Call<'_, Written>; 3] =
        [(); 3].map(|()| Box::pin(nx.send(call().wait(LONG))) as Call<'_, Written>);
    for one in [&mut first, &mut second, &mut third] {
        for _ in 0..3 {
            assert!(one.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }
    let busy = nx.send(call()).await.expect_err("it waits for nobody");
    assert_eq!(busy.errno(), Errno::EBUSY, "{busy}");
    // The first is given up, and the second takes its place.
    drop(first);
    assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(read(&nx, &at).await, "full");
    let (second, third) = tokio::join!(second, third);
    assert_eq!(second.expect("there is room").written, third.expect("it was executed").written);
    assert_eq!(read(&nx, &at).await, "waiting");
    nx.send(SysRead::at(&at)).await.expect_err("nothing came twice");
    nx.shutdown().await.expect("it stops");
}
