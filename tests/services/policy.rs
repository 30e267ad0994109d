//! A permission policy: an inline hook over what the service publishes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::dispatch::OpSet;
use nexus::service::{Completed, Declaration, Intercept, Intercepted, OnLate, Service, ServiceHook, Setup};
use nexus::{ExitReason, Op, VPath, Verdict};
use serde::{Deserialize, Serialize};

/// What the policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) enum Rule {
    /// Refuses what is below `/forbidden`.
    #[default]
    Forbid,
    /// Refuses nothing.
    AllowAll,
    /// Panics instead of deciding.
    Panics,
    /// Publishes nothing to decide by.
    Blank,
}

/// What inline hooks look at.
pub(crate) struct View {
    rule: Rule,
    pub(crate) passed: AtomicU64,
    pub(crate) heard: AtomicU64,
    pub(crate) failed: AtomicU64,
}

pub(crate) struct Policy;

impl Behaviour for Policy {
    type Args = Setup<Self>;
    const NAME: &'static str = "policy";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            let rule = *setup.config();
            if rule != Rule::Blank && setup.view().get().is_none() {
                let (passed, heard, failed) = Default::default();
                setup
                    .publish(start.generation(), View { rule, passed, heard, failed })
                    .map_err(ExitReason::error)?;
            }
            if setup.number() == 1 {
                // Its own calls pass its hooks by.
                let own =
                    nexus::SysWrite::at(VPath::parse("/forbidden/own").expect("a path"), "mine").create();
                setup.calls().send(own).await.map_err(ExitReason::error)?;
            }
            Ok(Policy)
        })
    }
}

impl Service for Policy {
    const VERSION: &'static str = "1.0.0";
    type Config = Rule;
    type View = View;

    fn declare(_: &Rule) -> Declaration<Self> {
        let decide = |view: &View, cx: &mut nexus::HookContext| {
            let forbidden = cx.call.path().as_str().starts_with("/forbidden");
            match view.rule {
                Rule::Panics => panic!("the policy is broken"),
                Rule::Forbid if forbidden => return Verdict::refuse("it is forbidden"),
                _ => {}
            }
            view.passed.fetch_add(1, Ordering::Relaxed);
            Verdict::Continue
        };
        let hear = |view: &View, _: &nexus::HookContext, outcome: &nexus::Outcome| {
            view.heard.fetch_add(1, Ordering::Relaxed);
            view.failed.fetch_add(u64::from(!outcome.is_ok()), Ordering::Relaxed);
        };
        Declaration::new()
            .hook(ServiceHook::around("decide", OpSet::MUTATIONS, decide, hear))
            .probation(Duration::from_secs(30))
    }
}

/// The deadline of a mailed hook that has not much time.
pub(crate) const BRIEF: Duration = Duration::from_millis(200);

/// A policy that decides in its own time.
pub(crate) struct Mailed {
    setup: Setup<Self>,
    seen: u64,
    completed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MailedConfig {
    pub(crate) open: bool,
    pub(crate) answer: Answer,
    #[serde(default)]
    pub(crate) on_demand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Yes,
    /// It says yes, and had not much time to say so.
    Briefly,
    No,
    Never,
    Panic,
    /// Sends writes elsewhere.
    Elsewhere,
    /// Gives writes other bytes.
    Bytes,
}

/// How many calls were seen, and how many completed.
#[derive(Debug, Clone)]
pub(crate) struct Seen;

impl Message for Seen {
    type Reply = (u64, u64);
    const NAME: &'static str = "mailed.seen";
}

impl Behaviour for Mailed {
    type Args = Setup<Self>;
    const NAME: &'static str = "mailed";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self { setup, seen: 0, completed: 0 }) })
    }
}

impl Service for Mailed {
    const VERSION: &'static str = "1.0.0";
    type Config = MailedConfig;
    type View = ();

    fn declare(config: &MailedConfig) -> Declaration<Self> {
        let on_late = if config.open { OnLate::Pass } else { OnLate::Refuse };
        let ops = OpSet::from(Op::Write);
        let deadline = match config.answer {
            Answer::Never | Answer::Briefly => BRIEF,
            _ => Duration::from_secs(10),
        };
        let declared = Declaration::new()
            .hook(ServiceHook::mailed_around("decide", ops, deadline, on_late))
            .exports::<Seen>()
            .swap_mode(nexus::SwapMode::Exclusive);
        if config.on_demand { declared.on_demand() } else { declared }
    }
}

impl Handle<Intercept> for Mailed {
    fn handle(&mut self, m: Intercept, _: &mut Cx<'_, Self>) -> Reply<Self, Intercepted> {
        self.seen += 1;
        match self.setup.config().answer {
            Answer::Yes | Answer::Briefly => Reply::Now(m.go_on()),
            Answer::No => Reply::Now(m.refuse("the service says no")),
            Answer::Never => Reply::later(std::future::pending()),
            Answer::Panic => panic!("the service breaks"),
            Answer::Bytes => {
                let mut answer = m.go_on();
                if let nexus::Syscall::Write(write) = &mut answer.call {
                    write.data = vec!["other".into()];
                }
                Reply::Now(answer)
            }
            Answer::Elsewhere => {
                let mut answer = m.go_on();
                if let nexus::Syscall::Write(write) = &mut answer.call {
                    write.path = VPath::parse("/elsewhere").expect("a path");
                }
                Reply::Now(answer)
            }
        }
    }
}

impl Handle<Completed> for Mailed {
    fn handle(&mut self, _: Completed, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.completed += 1;
        Reply::Now(())
    }
}

impl Handle<Seen> for Mailed {
    fn handle(&mut self, _: Seen, _: &mut Cx<'_, Self>) -> Reply<Self, (u64, u64)> {
        Reply::Now((self.seen, self.completed))
    }
}

/// The view of the policy that serves.
pub(crate) async fn view(nx: &nexus::Nexus) -> Arc<(u64, u64, u64)> {
    let policy = nx.service::<Policy>("policy").expect("it is the administrator's handle");
    let lease = policy.lease().await.expect("it publishes");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Arc::new((count(&lease.passed), count(&lease.heard), count(&lease.failed)))
}
