//! Hooks and the permission gate stand before a pipe as before a file; observers hear nothing of it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::gate::{Decision, Permission};
use nexus::{
    Bytes, Caller, Errno, Event, EventMask, HookContext, Op, Outcome, Right, Syscall, VPath, Verdict,
};
use parking_lot::Mutex;

use crate::bench::{LONG, piped, read, refused, write};

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
