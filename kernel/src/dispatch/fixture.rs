//! Hooks that note what they are told, for tests.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nexus_messages::syscall::{SysRead, Syscall};
use nexus_messages::{
    Caller, Event, EventKind, EventMask, HookContext, MountContext, Outcome, VPath, Verdict, ZoneId,
};
use parking_lot::Mutex;

use super::hook::{Interceptor, MountHook, Observer, OpSet, Registration, Resolution, Resolver};

/// What hooks noted, in the order in which they ran.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }

    fn hook(&self, name: &str, ops: OpSet, mask: EventMask, mood: Mood) -> Arc<Noted> {
        Arc::new(Noted { name: name.to_owned(), log: self.clone(), ops, mask, mood })
    }

    pub(crate) fn interceptor(&self, name: &str) -> Registration {
        self.moody(name, OpSet::ALL, Mood::Calm)
    }

    pub(crate) fn moody(&self, name: &str, ops: OpSet, mood: Mood) -> Registration {
        Registration::interceptor(name, self.hook(name, ops, EventMask::NONE, mood))
    }

    pub(crate) fn observer(&self, name: &str) -> Registration {
        self.moody_observer(name, EventMask::ALL, Mood::Calm)
    }

    pub(crate) fn moody_observer(&self, name: &str, mask: impl Into<EventMask>, mood: Mood) -> Registration {
        Registration::observer(name, self.hook(name, OpSet::NONE, mask.into(), mood))
    }

    pub(crate) fn mount_hook(&self, name: &str, mood: Mood) -> Registration {
        Registration::mount_hook(name, self.hook(name, OpSet::NONE, EventMask::NONE, mood))
    }
}

/// What a hook does beside noting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Calm,
    Refuses,
    /// Sends a read to `/moved`.
    Rewrites,
    Panics,
    /// Panics after a first wait.
    PanicsLate,
}

struct Noted {
    name: String,
    log: Recorder,
    ops: OpSet,
    mask: EventMask,
    mood: Mood,
}

impl Noted {
    fn note(&self, what: &str) {
        self.log.0.lock().push(format!("{what} {}", self.name));
        assert!(self.mood != Mood::Panics, "{} is broken", self.name);
    }

    async fn late(&self) {
        let mut waited = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        assert!(self.mood != Mood::PanicsLate, "{} is broken late", self.name);
    }
}

impl Interceptor for Noted {
    fn ops(&self) -> OpSet {
        self.ops
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        self.note("before");
        Box::pin(async move {
            self.late().await;
            match self.mood {
                Mood::Refuses => return Verdict::refuse("not today"),
                Mood::Rewrites => cx.call = Syscall::Read(SysRead::at(path("/moved"))),
                _ => {}
            }
            Verdict::Continue
        })
    }

    fn after<'a>(&'a self, _: &'a HookContext, outcome: &'a Outcome) -> BoxFuture<'a, ()> {
        self.note(if outcome.is_ok() { "after" } else { "after failed" });
        Box::pin(self.late())
    }
}

impl Observer for Noted {
    fn mask(&self) -> EventMask {
        self.mask
    }

    fn observe(&self, event: &Event) {
        self.note(event.kind.name());
    }
}

impl MountHook for Noted {
    fn on_mount<'a>(&'a self, cx: &'a MountContext) -> BoxFuture<'a, ()> {
        self.note(&format!("mounted {}", cx.point));
        Box::pin(self.late())
    }
}

struct To(Resolution);

impl Resolver for To {
    fn resolve(&self, _: &Caller, _: &VPath) -> Resolution {
        assert!(self.0 != Resolution::Refuse(String::new()), "the resolver is broken");
        self.0.clone()
    }
}

/// A resolver that sends all to one path.
pub(crate) fn resolver(name: &str, pattern: &str, to: &str) -> Registration {
    resolver_that(name, pattern, Resolution::Rewrite(path(to)))
}

/// A resolver that always says the same; with an empty refusal it panics.
pub(crate) fn resolver_that(name: &str, pattern: &str, resolution: Resolution) -> Registration {
    Registration::resolver(name, pattern, Arc::new(To(resolution))).unwrap()
}

pub(crate) fn path(text: &str) -> VPath {
    VPath::parse(text).unwrap()
}

pub(crate) fn caller(agent: &str) -> Arc<Caller> {
    Arc::new(Caller::agent(agent, ZoneId::root()))
}

pub(crate) fn reading(agent: &str, text: &str) -> HookContext {
    HookContext::new(caller(agent), None, Syscall::Read(SysRead::at(path(text))))
}

pub(crate) fn event(kind: EventKind, agent: &str) -> Event {
    let entry = nexus_messages::EntryType::Reg;
    Event::new(kind, path("/a"), entry, caller(agent), nexus_messages::OpId(1))
}
