//! Interceptors and resolvers that break, decide, or want more than they may.

use std::collections::{BTreeMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nexus::dispatch::{
    ASIDE_MAX, Interceptor, MissedCalls, OnLate, OpSet, Registration, Resolution, Resolver,
};
use nexus::{Caller, ErrorKind, HookContext, Lsn, Op, Outcome, Syscall, VPath, Verdict, ZoneId};
use nexus_messages::syscall::SysReaddir;
use parking_lot::Mutex;

use crate::{boot, path};

/// Changes what is written, and then never decides about `/slow` and panics over `/breaks`.
#[derive(Default)]
struct Breaks {
    heard: AtomicUsize,
}

impl Interceptor for Breaks {
    fn ops(&self) -> OpSet {
        OpSet::MUTATIONS
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        async move {
            if let Syscall::Write(call) = &mut cx.call {
                call.data = vec!["changed".into()];
            }
            match cx.call.path().as_str() {
                "/slow" => std::future::pending().await,
                "/breaks" => panic!("an interceptor that panics"),
                _ => Verdict::Continue,
            }
        }
        .boxed()
    }

    fn after<'a>(&'a self, _: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        self.heard.fetch_add(1, Ordering::Relaxed);
        std::future::ready(()).boxed()
    }
}

#[test]
fn a_late_one_and_one_that_panics_fail_as_they_were_registered() {
    for (how, slow, breaks) in
        [(OnLate::Refuse, Some(ErrorKind::TimedOut), Some(ErrorKind::Refused)), (OnLate::Pass, None, None)]
    {
        let (nx, hook) = (boot(), Arc::new(Breaks::default()));
        let registration = Registration::interceptor("breaks", hook.clone());
        let registration = registration.deadline(Duration::from_millis(50)).fails(how);
        let id = nx.register_hook(registration).expect("there is room");
        for (at, kind) in [("/slow", slow), ("/breaks", breaks)] {
            let written = nx.write(at, "as it was");
            assert_eq!(written.err().map(|error| error.kind()), kind, "{at} {how:?}");
        }
        if how == OnLate::Pass {
            assert_eq!(nx.read("/slow").expect("it is there"), "as it was");
            assert_eq!(nx.read("/breaks").expect("it is there"), "as it was");
        }
        assert_eq!(hook.heard.load(Ordering::Relaxed), 0, "it let none of them pass");
        nx.write("/fine", "x").expect("it writes");
        assert_eq!(nx.read("/fine").expect("it is there"), "changed");
        let shown = nx.read(format!("/__sys__/hooks/{}", id.0)).expect("it is shown");
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("it is JSON");
        let passed_by = if how == OnLate::Pass { 2 } else { 0 };
        for (what, times) in [("calls", 4), ("errors", 1), ("timeouts", 1), ("passed_by", passed_by)] {
            assert_eq!(shown[what], times, "{what}: {shown}");
        }
    }
}

/// Does to a call what it is told to.
struct Does(fn(&mut HookContext) -> Verdict);

impl Interceptor for Does {
    fn ops(&self) -> OpSet {
        OpSet::ALL
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        std::future::ready((self.0)(cx)).boxed()
    }
}

fn does(what: fn(&mut HookContext) -> Verdict) -> Registration {
    Registration::interceptor("does", Arc::new(Does(what)))
}

#[test]
fn a_call_is_refused_with_the_error_of_the_hooks_choice() {
    let nx = boot();
    let refuses = does(|cx| match cx.call.path().as_str() {
        "/nothing" => Verdict::refuse_as(ErrorKind::NotFound, "there is none"),
        "/busy" => Verdict::refuse_as(ErrorKind::Busy, "later"),
        "/io" => Verdict::refuse_as(ErrorKind::Io, "the disk"),
        _ => Verdict::Continue,
    });
    let id = nx.register_hook(refuses).expect("there is room");
    for (at, kind) in [("/nothing", ErrorKind::NotFound), ("/busy", ErrorKind::Busy), ("/io", ErrorKind::Io)]
    {
        let error = nx.write(at, "x").expect_err("it is refused");
        assert_eq!((error.kind(), error.errno()), (kind, kind.errno()), "{error}");
    }
    let shown = nx.read(format!("/__sys__/hooks/{}", id.0)).expect("it is shown");
    let shown: serde_json::Value = serde_json::from_slice(&shown).expect("it is JSON");
    assert_eq!(shown["refusals"], 3, "{shown}");
}

#[test]
fn what_bounds_a_call_may_be_made_narrower_and_not_wider() {
    let nx = boot();
    (0..3).for_each(|number| nx.write(format!("/{number}"), "x").map(drop).expect("it writes"));
    let narrows = does(|cx| {
        if let Syscall::Readdir(call) = &mut cx.call {
            call.limit = 2.try_into().ok();
        }
        Verdict::Continue
    });
    nx.register_hook(narrows).expect("there is room");
    let page = nx.send(SysReaddir::at(path("/"))).expect("it lists");
    assert_eq!(page.entries.len(), 2);
    let error = nx.send(SysReaddir::at(path("/")).limit(1)).expect_err("the hook wants more");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("a hook widened what bounds the call: its limit"), "{error}");
}

#[test]
fn who_calls_is_not_for_a_hook_to_say() {
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let nx = boot();
    let forges = does(|cx| {
        cx.caller = Arc::new(Caller::agent("somebody-else", ZoneId::root()));
        Verdict::Continue
    });
    let sees = does(|cx| {
        SEEN.lock().push(cx.caller.agent.to_string());
        Verdict::Continue
    });
    nx.register_hook(forges).expect("there is room");
    nx.register_hook(sees).expect("there is room");
    nx.agent("coder-7").expect("a name").write("/a", "x").expect("it writes");
    assert_eq!(*SEEN.lock(), ["coder-7"]);
}

#[test]
fn what_runs_aside_holds_up_no_caller() {
    struct Slow(Mutex<Sender<&'static str>>, Mutex<Receiver<()>>);
    impl Interceptor for Slow {
        fn ops(&self) -> OpSet {
            OpSet::MUTATIONS
        }
        fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
            std::future::ready(Verdict::Continue).boxed()
        }
        fn after<'a>(&'a self, _: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
            async move {
                // Asked again and again, by a task of the kernel.
                poll_fn(|cx| {
                    if self.1.lock().try_recv() != Err(TryRecvError::Empty) {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                let _ = self.0.lock().send("heard");
            }
            .boxed()
        }
    }
    let ((told, heard), (go, go_on)) = (channel(), channel());
    let slow = Slow(Mutex::new(told), Mutex::new(go_on));
    let nx = boot();
    nx.register_hook(Registration::interceptor("slow", Arc::new(slow)).aside()).expect("there is room");
    nx.write("/a", "x").expect("it does not wait for what is told afterwards");
    assert!(heard.try_recv().is_err(), "it still waits");
    go.send(()).expect("it listens");
    assert_eq!(heard.recv_timeout(Duration::from_secs(30)), Ok("heard"));
}

#[test]
fn a_resolver_has_a_permission_of_its_own_for_what_it_answers_for() {
    struct Guarded;
    impl Resolver for Guarded {
        fn resolve(&self, _: &Caller, at: &VPath) -> Resolution {
            VPath::parse(&format!("/real{at}")).map_or(Resolution::Unchanged, Resolution::Rewrite)
        }
        fn permits(&self, caller: &Caller, op: Op, at: &VPath) -> Result<(), String> {
            assert!(at.as_str() != "/g/breaks", "a permission that panics");
            match (&*caller.agent, op) {
                ("coder-7", _) | (_, Op::Read) => Ok(()),
                _ => Err("it is coder-7's".into()),
            }
        }
    }
    let nx = boot();
    let resolver = Registration::resolver("guarded", "/g/**", Arc::new(Guarded)).expect("a pattern");
    nx.register_hook(resolver).expect("there is room");
    let (mine, other) = (nx.agent("coder-7").expect("a name"), nx.agent("other").expect("a name"));
    mine.write("/g/a", "x").expect("it may");
    assert_eq!(other.read("/g/a").expect("anybody may read"), "x");
    let error = other.write("/g/a", "y").expect_err("it may not");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("it is coder-7's"), "{error}");
    mine.write("/g/breaks", "x").expect_err("it fails closed");
    assert_eq!(mine.read("/real/g/a").expect("it is there"), "x");
}

/// Is told of calls aside, one at a time for each that it is let go on, and of those that it missed.
struct Crowded {
    go_on: Mutex<Receiver<()>>,
    told: Mutex<Sender<String>>,
}

impl Interceptor for Crowded {
    fn ops(&self) -> OpSet {
        OpSet::MUTATIONS
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        std::future::ready(Verdict::Continue).boxed()
    }

    fn after<'a>(&'a self, cx: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        poll_fn(move |task| {
            if self.go_on.lock().try_recv() == Err(TryRecvError::Empty) {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            let _ = self.told.lock().send(cx.call.path().to_string());
            Poll::Ready(())
        })
        .boxed()
    }

    fn overflowed(&self, missed: &MissedCalls) {
        let _ = self.told.lock().send(format!("missed {} from {:?}", missed.calls, missed.first));
    }
}

#[test]
fn what_finds_no_room_aside_is_counted_and_told_with_where_to_read_on_though_nothing_comes_later() {
    const BEYOND: usize = 3;
    let ((told, hear), (go, go_on)) = (channel(), channel());
    let nx = boot();
    let hook = Arc::new(Crowded { go_on: Mutex::new(go_on), told: Mutex::new(told) });
    let id = nx.register_hook(Registration::interceptor("crowded", hook).aside()).expect("there is room");
    let count = |what: &str| {
        let shown = nx.read(format!("/__sys__/hooks/{}", id.0)).expect("it is shown");
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("it is JSON");
        usize::try_from(shown[what].as_u64().expect("it is a number")).expect("it is small")
    };
    let write = |number: usize| {
        nx.write(format!("/{number}"), "x").expect("it does not wait for what is told aside").receipt.lsn
    };
    let lsns: Vec<Lsn> = (0..ASIDE_MAX + BEYOND).map(write).collect();
    assert_eq!((count("overflow"), count("queued")), (BEYOND, ASIDE_MAX));
    let next = || hear.recv_timeout(Duration::from_secs(30)).expect("it was told");
    let missed = |calls: usize, from: Lsn| {
        format!("missed {calls} from {:?}", BTreeMap::from([(ZoneId::root(), from)]))
    };
    go.send(()).expect("it listens");
    let mut heard = HashSet::from([next()]);
    assert_eq!(next(), missed(BEYOND, lsns[ASIDE_MAX]), "told by who is over first");
    for _ in 1..ASIDE_MAX {
        go.send(()).expect("it listens");
        heard.insert(next());
    }
    assert_eq!(heard, (0..ASIDE_MAX).map(|number| format!("/{number}")).collect::<HashSet<_>>());
    // The room of the last is free a moment after it was told.
    let env = nx.env();
    let until = env.now() + Duration::from_secs(30);
    while count("queued") > 0 {
        assert!(env.now() < until, "a place aside is not given back");
        std::thread::yield_now();
    }
    nx.write("/later", "x").expect("it does not wait for what is told aside");
    go.send(()).expect("it listens");
    assert_eq!(next(), "/later", "once");
}
