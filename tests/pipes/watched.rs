//! Hooks and the permission gate stand before a pipe as before a file; observers hear nothing of it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::gate::{Decision, Permission};
use nexus::{
    Bytes, Caller, Errno, Event, EventMask, HookContext, Nexus, Op, Outcome, Right, StreamSpec, SysRead,
    SysSetattr, SysTx, SysWrite, Syscall, VPath, Verdict, WhichPipe,
};
use parking_lot::Mutex;

use crate::bench::{LONG, path, piped, read, refused, write};

type Told = Arc<Mutex<Vec<String>>>;

struct Tells(Told);

impl Interceptor for Tells {
    fn ops(&self) -> OpSet {
        [Op::Read, Op::Write].into_iter().collect()
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        self.0.lock().push(format!("before {} {}", cx.call.op(), cx.call.path()));
        let mut verdict = Verdict::Continue;
        if let Syscall::Write(call) = &mut cx.call {
            match &*call.data[0] {
                b"secret" => verdict = Verdict::refuse("it is one"),
                b"loud" => call.data = vec![Bytes::from_static(b"LOUD")],
                _ => {}
            }
        }
        Box::pin(std::future::ready(verdict))
    }

    fn after<'a>(&'a self, cx: &'a HookContext, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        let how = outcome.error.as_ref().map_or("ok", |error| error.errno().name());
        self.0.lock().push(format!("after {} {how}", cx.call.op()));
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn interceptors_see_each_message_once_change_it_and_refuse_it() {
    let (nx, at) = piped(100);
    write(&nx, &at, "warm").unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "warm");
    let (writer, reader) = (nx.pipe_writer(&at).unwrap(), nx.pipe_reader(&at).unwrap());
    let told = Told::default();
    nx.register_hook(Registration::interceptor("tells", Arc::new(Tells(told.clone())))).unwrap();
    write(&nx, &at, "loud").unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "LOUD");
    refused(write(&nx, &at, "secret"), Errno::EACCES);
    refused(read(&nx, &at), Errno::EAGAIN);
    let expected = [
        "before write /p",
        "after write ok",
        "before read /p",
        "after read ok",
        "before write /p",
        "before read /p",
        "after read EAGAIN",
    ];
    assert_eq!(*told.lock(), expected);
    told.lock().clear();
    refused(writer.write("secret", Some(LONG)), Errno::EACCES);
    writer.write("loud", Some(LONG)).unwrap();
    assert_eq!(reader.read(Some(LONG)).unwrap().unwrap(), "LOUD");
    drop(writer);
    assert_eq!(reader.read(None).unwrap(), None);
    // The one that refuses is not told what came of it.
    assert_eq!(told.lock().len(), 7, "an end is no way around them");
}

#[test]
fn an_end_that_hooks_see_is_of_its_pipe_and_of_nothing_that_comes_in_its_place() {
    let (nx, at) = piped(100);
    let (writer, reader) = (nx.pipe_writer(&at).unwrap(), nx.pipe_reader(&at).unwrap());
    nx.register_hook(Registration::interceptor("tells", Arc::new(Tells(Told::default())))).unwrap();
    nx.unlink(&at).unwrap();
    nx.write(&at, "a file").unwrap();
    refused(writer.write("x", None), Errno::ENOENT);
    refused(reader.read(None), Errno::ENOENT);
    assert_eq!(nx.read(&at).unwrap(), "a file");
    nx.unlink(&at).unwrap();
    refused(writer.write("x", None), Errno::ENOENT);
    nx.make_pipe(&at, 100).unwrap();
    write(&nx, &at, "another pipe").unwrap();
    refused(writer.write("x", None), Errno::ENOENT);
    refused(reader.read(None), Errno::ENOENT);
    assert_eq!(read(&nx, &at).unwrap(), "another pipe");
    refused(read(&nx, &at), Errno::EAGAIN);
}

#[test]
fn a_call_for_a_pipe_is_for_nothing_else() {
    let (nx, at) = piped(100);
    nx.write("/f", "a file").unwrap();
    nx.mkdir("/d").unwrap();
    nx.make_stream("/s", StreamSpec::new()).unwrap();
    let other = nx.stat("/f").unwrap().file_id;
    let check = |at: &str, pipe, errno| {
        refused(nx.send(SysWrite::at(path(at), "x").create().to_pipe(pipe)), errno);
        refused(nx.send(SysRead::at(path(at)).of_pipe(pipe)), errno);
    };
    check("/f", WhichPipe::Any, Errno::EOPNOTSUPP);
    check("/s", WhichPipe::Any, Errno::EOPNOTSUPP);
    check("/d", WhichPipe::Any, Errno::EISDIR);
    check("/none", WhichPipe::Any, Errno::ENOENT);
    check("/f", WhichPipe::One(other), Errno::ENOENT);
    check("/p", WhichPipe::One(other), Errno::ENOENT);
    let call = SysWrite::at(path("/f"), "x").to_pipe(WhichPipe::Any);
    refused(nx.send(SysTx::new().with(call)), Errno::EINVAL);
    assert_eq!(nx.read("/f").unwrap(), "a file");
    let own = WhichPipe::One(nx.stat(&at).unwrap().file_id);
    for pipe in [own, WhichPipe::Any] {
        nx.send(SysWrite::at(&at, "x").to_pipe(pipe)).unwrap();
        assert_eq!(nx.send(SysRead::at(&at).of_pipe(pipe)).unwrap().data, "x");
    }
}

struct Hears(Told);

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, event: &Event) {
        self.0.lock().push(format!("{:?} {}", event.kind, event.path));
    }
}

#[test]
fn observers_hear_of_the_entry_and_not_of_messages() {
    let (nx, at) = piped(100);
    let told = Told::default();
    nx.register_hook(Registration::observer("hears", Arc::new(Hears(told.clone()))).inline()).unwrap();
    write(&nx, &at, "x").unwrap();
    read(&nx, &at).unwrap();
    nx.make_pipe("/q", 10).unwrap();
    nx.unlink("/q").unwrap();
    assert_eq!(*told.lock(), ["Created /q", "FileDeleted /q"]);
}

/// Who is called `quiet` may not write.
#[derive(Debug)]
struct Quiet;

impl Permission for Quiet {
    fn check(&self, caller: &Caller, right: Right, _: &VPath) -> Decision {
        match (&*caller.agent, right) {
            ("quiet", Right::Write) => Decision::Deny("it is quiet".into()),
            _ => Decision::Allow,
        }
    }
}

#[test]
fn the_gate_is_asked_for_each_call() {
    let (nx, at) = piped(100);
    let quiet = nx.agent("quiet").unwrap();
    write(&quiet, &at, "before there is a gate").unwrap();
    let writer = quiet.pipe_writer(&at).unwrap();
    nx.set_permission(Some(Arc::new(Quiet))).unwrap();
    refused(write(&quiet, &at, "x"), Errno::EACCES);
    refused(writer.write("x", None), Errno::EACCES);
    refused(quiet.pipe_writer(&at), Errno::EACCES);
    assert_eq!(read(&quiet, &at).unwrap(), "before there is a gate");
    write(&nx, &at, "x").unwrap();
    let reader = quiet.pipe_reader(&at).unwrap();
    assert_eq!(reader.read(None).unwrap().unwrap(), "x");
}

/// Makes a pipe and a stream where somebody reads who found nothing there.
struct Makes(Nexus);

impl Interceptor for Makes {
    fn ops(&self) -> OpSet {
        [Op::Read].into_iter().collect()
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        let at = cx.call.path().clone();
        Box::pin(async move {
            if at == "/pipe" {
                self.0.send(SysSetattr::pipe(&at, 100)).await.expect("it is made");
                self.0.send(SysWrite::at(&at, "made")).await.expect("it is made");
            } else {
                self.0.make_stream(&at, StreamSpec::new()).await.expect("it is made");
                self.0.append_record(&at, "made").await.expect("it is made");
            }
            Verdict::Continue
        })
    }
}

/// Found by the chaos run, under seed 3: a read that found nothing looked again, found the pipe that had been made meanwhile, and said that it cannot be read.
#[test]
fn a_pipe_that_is_made_while_it_is_read_is_a_pipe() {
    let (nx, _) = piped(100);
    let makes = Arc::new(Makes(nx.as_async().clone()));
    let hook = nx.register_hook(Registration::interceptor("makes", makes)).unwrap();
    assert_eq!(read(&nx, &path("/pipe")).unwrap(), "made");
    let read = nx.send(SysRead::at(path("/stream")).records_from(0)).unwrap();
    assert_eq!(read.records.unwrap().records[0].data, "made");
    nx.unregister_hook(hook).unwrap();
}
