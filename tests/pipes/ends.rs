//! Ends: the end of a pipe without writers, EPIPE without readers, and the lives that ends are tied to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::{
    Caller, Errno, ErrorKind, HookContext, IoProfile, Op, PipeSpec, SysRead, SysWrite, VPath, Verdict,
    blocking,
};
use nexus_actors::block_on;

use crate::bench::{LONG, boot, path, piped, read, refused, write};

#[test]
fn when_the_last_writer_is_gone_readers_drain_the_pipe_and_come_to_its_end() {
    let (nx, at) = piped(100);
    let (first, second) = (nx.pipe_writer(&at).unwrap(), nx.pipe_writer(&at).unwrap());
    let reader = nx.pipe_reader(&at).unwrap();
    first.write("one", None).unwrap();
    drop(first);
    second.write("two", None).unwrap();
    drop(second);
    assert_eq!(reader.read(None).unwrap().unwrap(), "one");
    assert_eq!(reader.read(Some(LONG)).unwrap().unwrap(), "two");
    assert_eq!(reader.read(None).unwrap(), None);
    assert_eq!(reader.read(Some(LONG)).unwrap(), None);
    assert!(nx.send(SysRead::at(&at)).unwrap().data.is_empty(), "no bytes are the end, as in POSIX");
    let again = nx.pipe_writer(&at).unwrap();
    refused(reader.read(None), Errno::EAGAIN);
    again.write("three", None).unwrap();
    assert_eq!(reader.read(None).unwrap().unwrap(), "three");
}

#[test]
fn a_waiting_reader_is_told_of_the_end() {
    let (nx, at) = piped(100);
    let writer = nx.pipe_writer(&at).unwrap();
    let (reader, plain) = (nx.as_async().pipe_reader(&at), nx.as_async().send(SysRead::at(&at).wait(LONG)));
    let reader = nx.env().blocking_wait(reader).unwrap();
    let (mut end, mut plain) = (Box::pin(reader.read(Some(LONG))), Box::pin(plain));
    assert!(end.as_mut().now_or_never().is_none() && plain.as_mut().now_or_never().is_none());
    drop(writer);
    assert_eq!(nx.env().blocking_wait(end).unwrap(), None);
    assert!(nx.env().blocking_wait(plain).unwrap().data.is_empty());
}

#[test]
fn when_the_last_reader_is_gone_writes_fail_also_those_that_wait() {
    let (nx, at) = piped(4);
    let reader = nx.pipe_reader(&at).unwrap();
    let writer = nx.env().blocking_wait(nx.as_async().pipe_writer(&at)).unwrap();
    write(&nx, &at, "full").unwrap();
    let mut waiting = Box::pin(writer.write("more", Some(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(reader);
    let broken = refused(nx.env().blocking_wait(waiting), Errno::EPIPE);
    assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
    refused(write(&nx, &at, "x"), Errno::EPIPE);
    refused(nx.send(SysWrite::at(&at, "x").wait(LONG)), Errno::EPIPE);
    let _reader = nx.pipe_reader(&at).unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "full", "what was written before is there");
    write(&nx, &at, "x").unwrap();
}

#[test]
fn without_ends_a_pipe_is_only_empty_or_full() {
    let (nx, at) = piped(4);
    write(&nx, &at, "full").unwrap();
    refused(write(&nx, &at, "x"), Errno::EAGAIN);
    assert_eq!(read(&nx, &at).unwrap(), "full");
    refused(read(&nx, &at), Errno::EAGAIN);
    // Who calls by the path counts as nobody's end.
    drop(nx.pipe_writer(&at).unwrap());
    write(&nx, &at, "x").unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "x");
    assert_eq!(read(&nx, &at).unwrap(), "", "it is at its end");
}

#[test]
fn an_end_goes_with_the_life_of_its_owner() {
    let (nx, at) = piped(100);
    let reader = nx.pipe_reader(&at).unwrap();
    let agent = nx.agent("a").unwrap();
    let writer = agent.clone().pipe_writer(&at).unwrap();
    writer.write("last words", None).unwrap();
    // The agent is gone, and nobody has closed its end.
    drop(agent);
    assert_eq!(reader.read(None).unwrap().unwrap(), "last words");
    assert_eq!(reader.read(None).unwrap(), None);
    refused(writer.write("from beyond", None), Errno::EPERM);
    drop(writer);
    assert_eq!(reader.read(None).unwrap(), None);
}

/// Sees each call, and lets it pass.
struct Sees;

impl Interceptor for Sees {
    fn ops(&self) -> OpSet {
        [Op::Read, Op::Write].into_iter().collect()
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(ready(Verdict::Continue))
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A pipe for four bytes in memory, and one that processes share, each without a hook and with one.
fn each_kind(check: impl Fn(&blocking::Nexus, &VPath)) {
    for kind in [IoProfile::Memory, IoProfile::Shared] {
        for hooked in [false, true] {
            let (nx, at) = (boot(), path("/p"));
            nx.make_pipe_with(&at, PipeSpec::new(4).io_profile(kind)).expect("there is room");
            if hooked {
                let hook = Registration::interceptor("sees", Arc::new(Sees));
                nx.register_hook(hook).expect("it is the administrator's handle");
            }
            check(&nx, &at);
        }
    }
}

#[test]
fn a_read_that_waits_through_an_end_ends_with_the_life_of_its_owner_and_takes_nothing() {
    each_kind(|nx, at| {
        let agent = nx.agent("a").unwrap();
        let reader = nx.env().blocking_wait(agent.as_async().pipe_reader(at)).unwrap();
        let other = nx.pipe_reader(at).unwrap();
        let (mut first, mut second) = (Box::pin(reader.read(Some(LONG))), Box::pin(reader.read(Some(LONG))));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        assert!(first.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        assert!(second.as_mut().now_or_never().is_none());
        drop(agent);
        assert!(wakes.0.load(Ordering::Relaxed) > 0, "it is told, and does not wait for its deadline");
        // Those that came first stand in line still, and are called before the other one.
        write(nx, at, "late").unwrap();
        refused(nx.env().blocking_wait(first), Errno::EPERM);
        refused(nx.env().blocking_wait(second), Errno::EPERM);
        assert_eq!(other.read(Some(LONG)).unwrap().unwrap(), "late");
    });
}

#[test]
fn a_message_that_woke_a_reader_whose_life_then_ends_is_there_for_others() {
    each_kind(|nx, at| {
        let agent = nx.agent("a").unwrap();
        let reader = nx.env().blocking_wait(agent.as_async().pipe_reader(at)).unwrap();
        let other = nx.env().blocking_wait(nx.as_async().pipe_reader(at)).unwrap();
        let (mut first, mut second) = (Box::pin(reader.read(Some(LONG))), Box::pin(other.read(Some(LONG))));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        write(nx, at, "one").unwrap();
        drop(agent);
        refused(nx.env().blocking_wait(first), Errno::EPERM);
        assert_eq!(nx.env().blocking_wait(second).unwrap().unwrap(), "one");
    });
}

#[test]
fn a_write_that_waits_through_an_end_ends_with_the_life_of_its_owner_and_writes_nothing() {
    each_kind(|nx, at| {
        let agent = nx.agent("a").unwrap();
        let writer = nx.env().blocking_wait(agent.as_async().pipe_writer(at)).unwrap();
        let reader = nx.pipe_reader(at).unwrap();
        write(nx, at, "full").unwrap();
        let mut waits = Box::pin(writer.write("late", Some(LONG)));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        assert!(waits.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        drop(agent);
        assert!(wakes.0.load(Ordering::Relaxed) > 0, "it is told, and does not wait for its deadline");
        assert_eq!(reader.read(None).unwrap().unwrap(), "full");
        assert_eq!(reader.read(None).unwrap(), None, "the last writer is gone");
        refused(nx.env().blocking_wait(waits), Errno::EPERM);
        assert_eq!(reader.read(None).unwrap(), None, "nothing is written after that was told");
        write(nx, at, "next").unwrap();
        assert_eq!(reader.read(None).unwrap().unwrap(), "next");
    });
}

#[test]
fn whose_life_has_ended_opens_no_end() {
    let (nx, at) = piped(100);
    let kernel = nx.kernel().unwrap();
    let life = kernel.begin_life();
    let caller = Arc::new(Caller::administrator().living(life.id()));
    let writer = block_on(kernel.open_pipe_writer(&caller, &at)).unwrap();
    drop((writer, life));
    refused(block_on(kernel.open_pipe_writer(&caller, &at)), Errno::EPERM);
    assert_eq!(read(&nx, &at).unwrap(), "", "no end of it is left open");
}

#[test]
fn only_a_pipe_has_ends() {
    let (nx, _) = piped(100);
    nx.write("/f", "x").unwrap();
    nx.mkdir("/d").unwrap();
    refused(nx.pipe_reader("/f"), Errno::EOPNOTSUPP);
    refused(nx.pipe_writer("/f"), Errno::EOPNOTSUPP);
    refused(nx.pipe_reader("/d"), Errno::EISDIR);
    refused(nx.pipe_writer("/none"), Errno::ENOENT);
}

#[test]
fn ends_and_messages_are_listed() {
    let (nx, at) = piped(100);
    let agent = nx.agent("a").unwrap();
    let _reader = agent.pipe_reader(&at).unwrap();
    let _writer = nx.pipe_writer(&at).unwrap();
    write(&nx, &at, "12345").unwrap();
    let all = nx.read("/__sys__/pipes/.all").unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_slice(&all).unwrap();
    assert_eq!(all.len(), 1);
    let pipe = &all[0];
    assert_eq!(
        (&pipe["path"], &pipe["capacity"], &pipe["io_profile"]),
        (&"/p".into(), &100.into(), &"Memory".into())
    );
    assert_eq!((&pipe["messages"], &pipe["bytes"]), (&1.into(), &5.into()));
    let ends =
        serde_json::json!([{ "side": "reader", "agent": "a" }, { "side": "writer", "agent": "nexus" }]);
    assert_eq!(pipe["ends"], ends);
    let one = nx.read(format!("/__sys__/pipes/{}", pipe["id"])).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&one).unwrap(), *pipe);
    refused(agent.read("/__sys__/pipes/.all"), Errno::EACCES);
    read(&nx, &at).unwrap();
    let counted = nx.read("/__sys__/pipes/statistics").unwrap();
    let counted: serde_json::Value = serde_json::from_slice(&counted).unwrap();
    assert_eq!((&counted["open"], &counted["written"], &counted["read"]), (&1.into(), &1.into(), &1.into()));
    let metrics = String::from_utf8(nx.read("/__sys__/metrics").unwrap().to_vec()).unwrap();
    for line in ["nexus_pipes 1", "nexus_pipe_messages 0", "nexus_pipe_messages_total{op=\"write\"} 1"] {
        assert!(metrics.lines().any(|other| other == line), "{line}");
    }
}
