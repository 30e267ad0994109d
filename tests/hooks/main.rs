//! Hooks and the permission gate, through the front door: what they may do, in which order, and what they may not.

mod breaking;
mod latency;
mod observers;
mod order;

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use nexus::dispatch::{Interceptor, MountHook, Observer, OpSet, Registration, Resolution, Resolver};
use nexus::gate::{Decision, Permission, Right};
use nexus::{
    Caller, Config, ErrorKind, Event, EventKind, EventMask, HookContext, MountContext, MountSpec, Outcome,
    Place, Syscall, VPath, Verdict, blocking,
};
use nexus_kernel::locks::{LockOwner, Mode, Scope};
use parking_lot::Mutex;

type Told = Arc<Mutex<Vec<String>>>;

fn boot() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// Tells what it sees, and does to a call what it is told to.
struct Tells {
    name: &'static str,
    told: Told,
    change: fn(&mut HookContext) -> Verdict,
}

impl Interceptor for Tells {
    fn ops(&self) -> OpSet {
        OpSet::ALL
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> futures_util::future::BoxFuture<'a, Verdict> {
        self.told.lock().push(format!("{} before {} {}", self.name, cx.call.op(), cx.call.path()));
        let verdict = (self.change)(cx);
        Box::pin(std::future::ready(verdict))
    }

    fn after<'a>(
        &'a self,
        cx: &'a HookContext,
        outcome: &'a Outcome,
    ) -> futures_util::future::BoxFuture<'a, ()> {
        let how = outcome.error.as_ref().map_or("ok", |error| error.errno().name());
        self.told.lock().push(format!("{} after {} {how}", self.name, cx.call.op()));
        Box::pin(std::future::ready(()))
    }
}

fn tells(name: &'static str, told: &Told, change: fn(&mut HookContext) -> Verdict) -> Registration {
    Registration::interceptor(name, Arc::new(Tells { name, told: told.clone(), change }))
}

fn pass(_: &mut HookContext) -> Verdict {
    Verdict::Continue
}

#[test]
fn interceptors_run_in_order_and_back() {
    let (nx, told) = (boot(), Told::default());
    nx.register_hook(tells("second", &told, pass).order(5)).expect("there is room");
    nx.register_hook(tells("first", &told, pass).order(-5)).expect("there is room");
    nx.write("/a", "x").expect("it writes");
    let expected =
        ["first before write /a", "second before write /a", "second after write ok", "first after write ok"];
    assert_eq!(*told.lock(), expected);
    told.lock().clear();
    assert_eq!(nx.read("/b").expect_err("there is none").kind(), ErrorKind::NotFound);
    let expected = [
        "first before read /b",
        "second before read /b",
        "second after read ENOENT",
        "first after read ENOENT",
    ];
    assert_eq!(*told.lock(), expected);
}

#[test]
fn a_refused_call_changes_nothing() {
    let (nx, told) = (boot(), Told::default());
    nx.write("/a", "x").expect("it writes");
    nx.register_hook(tells("no", &told, |_| Verdict::refuse("not today"))).expect("there is room");
    let error = nx.write("/a", "y").expect_err("it is refused");
    assert_eq!(error.to_string(), "write /a: refused by a hook: no: not today (EACCES)");
    for hook in nx.hooks().expect("it lists") {
        nx.unregister_hook(hook.id).expect("it is there");
    }
    assert_eq!(nx.read("/a").expect("it is there"), "x");
}

#[test]
fn an_interceptor_may_change_the_content() {
    let (nx, told) = (boot(), Told::default());
    let redact = tells("redact", &told, |cx| {
        if let Syscall::Write(call) = &mut cx.call
            && call.place == Place::Whole
        {
            call.data = vec!["[redacted]".into()];
        }
        Verdict::Continue
    });
    nx.register_hook(redact.below(path("/secret"))).expect("there is room");
    nx.write("/secret/key", "hunter2").expect("it writes");
    nx.write("/open", "hello").expect("it writes");
    assert_eq!(nx.read("/secret/key").expect("it is there"), "[redacted]");
    assert_eq!(nx.read("/open").expect("it is there"), "hello");
}

#[test]
fn a_rewritten_path_goes_back_once_and_not_twice() {
    struct Move(&'static str);
    impl Resolver for Move {
        fn resolve(&self, _: &Caller, _: &VPath) -> Resolution {
            Resolution::Rewrite(path(self.0))
        }
    }
    let nx = boot();
    let resolver =
        |pattern, to| Registration::resolver("move", pattern, Arc::new(Move(to))).expect("a pattern");
    nx.register_hook(resolver("/alias", "/real")).expect("there is room");
    nx.register_hook(resolver("/one", "/two")).expect("there is room");
    nx.register_hook(resolver("/two", "/three")).expect("there is room");
    nx.write("/alias", "x").expect("it writes");
    assert_eq!(nx.read("/real").expect("it is there"), "x");
    let error = nx.write("/one", "x").expect_err("it is rewritten twice");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(!nx.exists("/three").expect("it looks"));
    assert_eq!(
        nx.register_hook(resolver("/one", "/x")).expect_err("it is taken").kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn a_hook_that_panics_before_a_call_refuses_it_and_after_it_changes_nothing() {
    struct Breaks {
        after: bool,
    }
    impl Interceptor for Breaks {
        fn ops(&self) -> OpSet {
            OpSet::MUTATIONS
        }
        fn before<'a>(&'a self, _: &'a mut HookContext) -> futures_util::future::BoxFuture<'a, Verdict> {
            assert!(self.after, "broken before");
            Box::pin(std::future::ready(Verdict::Continue))
        }
        fn after<'a>(
            &'a self,
            _: &'a HookContext,
            _: &'a Outcome,
        ) -> futures_util::future::BoxFuture<'a, ()> {
            panic!("broken after");
        }
    }
    let nx = boot();
    let before = Registration::interceptor("breaks", Arc::new(Breaks { after: false }));
    let before = nx.register_hook(before).expect("there is room");
    let error = nx.write("/a", "x").expect_err("it fails closed");
    assert!(error.to_string().contains("broken before") && error.kind() == ErrorKind::Refused, "{error}");
    nx.unregister_hook(before).expect("it is there");
    nx.register_hook(Registration::interceptor("breaks", Arc::new(Breaks { after: true })))
        .expect("there is room");
    nx.write("/a", "x").expect("what comes after changes nothing");
    assert_eq!(nx.read("/a").expect("it is there"), "x");
}

/// Tells the events that it hears.
struct Hears {
    mask: EventMask,
    told: Told,
}

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        self.mask
    }

    fn observe(&self, event: &Event) {
        let to = event.other.as_ref().map(|to| format!(" -> {to}")).unwrap_or_default();
        self.told.lock().push(format!("{} {}{to} by {}", event.kind, event.path, event.caller.agent));
        assert!(event.path.as_str() != "/breaks", "an observer that panics");
    }
}

#[test]
fn observers_hear_what_their_mask_lets_through() {
    let (nx, all, some) = (boot(), Told::default(), Told::default());
    let observer = |mask, told: &Told| {
        Registration::observer("hears", Arc::new(Hears { mask, told: told.clone() })).inline()
    };
    nx.register_hook(observer(EventMask::ALL, &all)).expect("there is room");
    nx.register_hook(observer(EventKind::Renamed | EventKind::DirCreated, &some)).expect("there is room");
    let agent = nx.agent("coder-7").expect("a name");
    agent.write("/d/a", "x").expect("it writes");
    agent.mkdir("/e").expect("it makes");
    agent.mkdir("/e").expect("nothing happens");
    agent.rename("/d/a", "/e/b").expect("it renames");
    agent.copy("/e/b", "/e/c").expect("it copies");
    agent.link("/l", "e/b").expect("it links");
    agent.unlink("/l").expect("it removes");
    agent.remove_all("/e").expect("it removes");
    agent.write("/breaks", "x").expect("a broken observer changes nothing");
    nx.mount("/m", MountSpec::new("memory")).expect("it mounts");
    nx.unmount("/m").expect("it unmounts");
    let expected = [
        "file_write /d/a by coder-7",
        "dir_create /e by coder-7",
        "file_rename /d/a -> /e/b by coder-7",
        "file_copy /e/c -> /e/b by coder-7",
        "create /l by coder-7",
        "file_delete /l by coder-7",
        "dir_delete /e by coder-7",
        "file_write /breaks by coder-7",
        "mount /m by nexus",
        "unmount /m by nexus",
    ];
    assert_eq!(*all.lock(), expected);
    assert_eq!(*some.lock(), ["dir_create /e by coder-7", "file_rename /d/a -> /e/b by coder-7"]);
}

#[test]
fn mount_hooks_hear_of_mounts() {
    struct Mounts(Told);
    impl MountHook for Mounts {
        fn on_mount<'a>(&'a self, cx: &'a MountContext) -> futures_util::future::BoxFuture<'a, ()> {
            self.0.lock().push(format!("{} at {}", cx.driver, cx.point));
            Box::pin(std::future::ready(()))
        }
        fn on_unmount<'a>(&'a self, cx: &'a MountContext) -> futures_util::future::BoxFuture<'a, ()> {
            self.0.lock().push(format!("{} gone from {}", cx.driver, cx.point));
            Box::pin(std::future::ready(()))
        }
    }
    let (nx, told) = (boot(), Told::default());
    nx.register_hook(Registration::mount_hook("mounts", Arc::new(Mounts(told.clone()))))
        .expect("there is room");
    nx.mount("/m", MountSpec::new("memory")).expect("it mounts");
    nx.unmount("/m").expect("it unmounts");
    assert_eq!(*told.lock(), ["memory at /m", "memory gone from /m"]);
}

/// Lets nobody but its owner touch what lies below `/private`.
struct Private;

impl Permission for Private {
    fn check(&self, _: &Caller, right: Right, at: &VPath) -> Decision {
        assert!(at.as_str() != "/breaks", "a provider that panics");
        let private = at.is_within(&path("/private")) && at.as_str() != "/private";
        if private && right != Right::Create {
            Decision::Deny("it is private".into())
        } else {
            Decision::Allow
        }
    }
}

#[test]
fn the_gate_guards_both_ends_filters_listings_and_fails_closed() {
    let nx = boot();
    let (mine, other) = (nx.agent("mine").expect("a name"), nx.agent("other").expect("a name"));
    nx.set_permission(Some(Arc::new(Private))).expect("it is the administrator");
    mine.write("/private/a", "secret words").expect("anybody may make");
    mine.write("/open", "words").expect("it writes");

    let denied = |error: nexus::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    denied(other.read("/private/a").expect_err("it is private"));
    denied(other.stat("/private/a").expect_err("it is private"));
    denied(other.write("/private/a", "x").expect_err("it is private"));
    denied(other.unlink("/private/a").expect_err("it is private"));
    denied(other.rename("/private/a", "/stolen").expect_err("it is private"));
    denied(other.rename("/open", "/private/a").expect_err("it is private"));
    denied(other.copy("/private/a", "/stolen").expect_err("it is private"));
    nx.link("/way", "/private/a").expect("it links");
    denied(other.read("/way").expect_err("it is private by any way"));
    denied(other.write("/breaks", "x").expect_err("it fails closed"));

    assert!(other.readdir("/private").expect("it lists").is_empty());
    assert_eq!(mine.readdir("/private").expect("it lists").len(), 1);
    assert!(!other.glob("/**/a").expect("it looks").iter().any(|found| found == "/private/a"));
    let report = other.grep(nexus::Grep::new("words").path("/")).expect("it searches");
    assert_eq!(report.matches.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["/open"]);
    assert_eq!(mine.read("/private/a").expect("its owner may"), "secret words");
    nx.set_permission(None).expect("it is the administrator");
    assert_eq!(other.read("/private/a").expect("nobody guards it"), "secret words");
}

#[test]
fn what_somebody_else_made_meanwhile_is_guarded_too() {
    let nx = boot();
    let (mine, other) = (nx.agent("mine").expect("a name"), nx.agent("other").expect("a name"));
    nx.set_permission(Some(Arc::new(Private))).expect("it is the administrator");
    let denied = |error: nexus::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");

    // While a stream comes.
    nexus::actors::block_on(async {
        let data = stream::iter(0..2).then(|_| async {
            let made = mine.as_async().write("/private/streamed", "mine").await;
            made.map(|_| nexus::Bytes::from_static(b"other"))
        });
        let streamed = Box::pin(other.as_async().write_stream("/private/streamed", data)).await;
        denied(streamed.expect_err("it is private by now"));
    });
    assert_eq!(mine.read("/private/streamed").expect("its owner may"), "mine");

    // While a write waits for its turn: who came before it is served before it.
    let at = path("/private/waited-for");
    let locks = nx.kernel().expect("it is here").path_locks();
    let owner = LockOwner { agent: "test".into(), since: nexus::Timestamp(0) };
    nexus::actors::block_on(async {
        let held = locks.lock(&at, Mode::Write, Scope::Entry, owner).await;
        let mut first = Box::pin(mine.as_async().write(&at, "mine"));
        let mut second = Box::pin(other.as_async().write(&at, "other"));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(held);
        first.await.expect("anybody may make");
        denied(second.await.expect_err("it is private by now"));
    });
    assert_eq!(mine.read(&at).expect("its owner may"), "mine");
}

#[test]
fn a_hook_is_told_how_much_came_as_a_stream() {
    static STREAMED: Mutex<Vec<Option<u64>>> = Mutex::new(Vec::new());
    let (nx, told) = (boot(), Told::default());
    let note = |cx: &mut HookContext| {
        STREAMED.lock().push(cx.stream);
        if cx.stream.is_some_and(|size| size > 100) { Verdict::refuse("too much") } else { Verdict::Continue }
    };
    nx.register_hook(tells("notes", &told, note)).expect("there is room");
    let data = |count: usize| (0..count).map(|_| Ok(nexus::Bytes::from_static(b"0123456789")));
    nx.write("/a", "x").expect("it writes");
    nx.write_stream("/b", data(7)).expect("it is little");
    assert_eq!(nx.write_stream("/c", data(11)).expect_err("it is much").kind(), ErrorKind::Refused);
    assert_eq!(*STREAMED.lock(), [None, Some(70), Some(110)]);
    // One that breaks off was never a call.
    told.lock().clear();
    let broken = || nexus::Error::global(nexus::Op::Write, ErrorKind::Io);
    nx.write_stream("/d", data(3).chain([Err(broken())])).expect_err("the source broke");
    assert!(told.lock().is_empty());
}

#[test]
fn only_the_administrator_touches_hooks() {
    let nx = boot();
    let agent = nx.agent("coder-7").expect("a name");
    let hook = tells("mine", &Told::default(), pass);
    assert_eq!(agent.register_hook(hook).expect_err("it may not").kind(), ErrorKind::PermissionDenied);
    assert_eq!(agent.hooks().expect_err("it may not").kind(), ErrorKind::PermissionDenied);
    assert_eq!(agent.set_permission(None).expect_err("it may not").kind(), ErrorKind::PermissionDenied);
}
