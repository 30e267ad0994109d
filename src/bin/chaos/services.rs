//! The services of the run, each in two versions that are different types: a counter whose state is handed over while its calls wait, and a policy
//! that refuses on callers' tasks and whose versions serve side by side.

use std::time::Duration;

use nexus::actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::dispatch::OpSet;
use nexus::service::{Carry, Declaration, Service, ServiceHook, Setup};
use nexus::supervisors::Backoff;
use nexus::{HookContext, SwapMode, Syscall, Verdict};
use serde::{Deserialize, Serialize};

use crate::model::FORBIDDEN;
use crate::plan::Flaw;

pub(crate) const COUNTER: &str = "counter";
pub(crate) const POLICY: &str = "policy";

/// How long one message may hold one of them.
const WATCHDOG: Duration = Duration::from_millis(500);

/// For how long a version may prove itself, when it is asked to.
pub(crate) const PROBATION: Duration = Duration::from_secs(20);

/// Restarted at once, however often.
const AT_ONCE: Backoff = Backoff { first: Duration::ZERO, factor: 1, max: Duration::ZERO };

/// Adds one and gives the sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next;

impl Message for Next {
    type Reply = u64;
    const NAME: &'static str = "counter.next";
}

/// Gives the sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum;

impl Message for Sum {
    type Reply = u64;
    const NAME: &'static str = "counter.sum";
}

/// Gives what the policy forbids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forbidden;

impl Message for Forbidden {
    type Reply = String;
    const NAME: &'static str = "policy.forbidden";
}

/// What a version is made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) flaw: Flaw,
}

/// What the policy publishes.
#[derive(Debug)]
pub(crate) struct Rules {
    forbidden: String,
    flaw: Flaw,
}

fn begin(flaw: Flaw) -> Result<(), ExitReason> {
    match flaw {
        Flaw::StartFails => Err(ExitReason::error("a flaw in its start")),
        Flaw::StartPanics => panic!("a flaw in its start"),
        _ => Ok(()),
    }
}

fn prove(flaw: Flaw) -> Result<(), ExitReason> {
    match flaw {
        Flaw::ProbeFails => Err(ExitReason::error("a flaw in its probe")),
        Flaw::ProbePanics => panic!("a flaw in its probe"),
        _ => Ok(()),
    }
}

fn take_over(flaw: Flaw) -> Result<(), ExitReason> {
    match flaw {
        Flaw::ImportFails => Err(ExitReason::error("a flaw in its import")),
        Flaw::ImportPanics => panic!("a flaw in its import"),
        _ => Ok(()),
    }
}

macro_rules! counters {
    ($($name:ident, $kind:literal, $version:literal;)*) => {$(
        pub(crate) struct $name {
            setup: Setup<Self>,
            incarnation: u64,
            sum: u64,
        }

        impl Behaviour for $name {
            type Args = Setup<Self>;
            const NAME: &'static str = $kind;

            fn init(
                setup: Setup<Self>,
                start: Start<Self>,
            ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
                Box::pin(async move {
                    begin(setup.config().flaw)?;
                    // After a crash, from where it was published last.
                    let sum = setup.view().get().map_or(0, |sum| *sum);
                    let counter = Self { setup, incarnation: start.generation(), sum };
                    counter.publish()?;
                    Ok(counter)
                })
            }
        }

        impl $name {
            fn publish(&self) -> Result<(), ExitReason> {
                self.setup.publish(self.incarnation, self.sum).map_err(ExitReason::error)
            }
        }

        impl Service for $name {
            const VERSION: &'static str = $version;
            type Config = Made;
            type View = u64;

            fn declare(_: &Made) -> Declaration<Self> {
                Declaration::new()
                    .exports::<Next>()
                    .exports::<Sum>()
                    .swap_mode(SwapMode::Exclusive)
                    .watchdog(WATCHDOG)
                    .backoff(AT_ONCE)
            }

            fn export(&mut self) -> Result<Carry, ExitReason> {
                Carry::of(1, &self.sum)
            }

            fn import(&mut self, carry: Carry) -> Result<(), ExitReason> {
                take_over(self.setup.config().flaw)?;
                self.sum = carry.take()?;
                self.publish()
            }

            fn probe(&mut self) -> LocalBoxFuture<'static, Result<(), ExitReason>> {
                let flaw = self.setup.config().flaw;
                Box::pin(async move { prove(flaw) })
            }
        }

        impl Handle<Next> for $name {
            fn handle(&mut self, _: Next, cx: &mut Cx<'_, Self>) -> Reply<Self, u64> {
                assert!(self.setup.config().flaw != Flaw::Breaks, "a flaw while it serves");
                self.sum += 1;
                if let Err(why) = self.publish() {
                    cx.exit(why);
                }
                Reply::Now(self.sum)
            }
        }

        impl Handle<Sum> for $name {
            fn handle(&mut self, _: Sum, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
                Reply::Now(self.sum)
            }
        }
    )*};
}

counters! {
    Counter1, "chaos.counter-1", "1.0.0";
    Counter2, "chaos.counter-2", "2.0.0";
}

macro_rules! policies {
    ($($name:ident, $kind:literal, $version:literal;)*) => {$(
        pub(crate) struct $name(Setup<Self>);

        impl Behaviour for $name {
            type Args = Setup<Self>;
            const NAME: &'static str = $kind;

            fn init(
                setup: Setup<Self>,
                start: Start<Self>,
            ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
                Box::pin(async move {
                    begin(setup.config().flaw)?;
                    let rules = Rules { forbidden: FORBIDDEN.into(), flaw: setup.config().flaw };
                    setup.publish(start.generation(), rules).map_err(ExitReason::error)?;
                    Ok(Self(setup))
                })
            }
        }

        impl Service for $name {
            const VERSION: &'static str = $version;
            type Config = Made;
            type View = Rules;

            fn declare(_: &Made) -> Declaration<Self> {
                Declaration::new()
                    .exports::<Forbidden>()
                    .hook(ServiceHook::before("gate", OpSet::MUTATIONS, decide))
                    .watchdog(WATCHDOG)
                    .backoff(AT_ONCE)
            }

            fn export(&mut self) -> Result<Carry, ExitReason> {
                // Its rules come by its configuration; this is for the next version to be asked whether it takes over.
                Carry::of(1, &0_u8)
            }

            fn import(&mut self, _: Carry) -> Result<(), ExitReason> {
                take_over(self.0.config().flaw)
            }

            fn probe(&mut self) -> LocalBoxFuture<'static, Result<(), ExitReason>> {
                let flaw = self.0.config().flaw;
                Box::pin(async move { prove(flaw) })
            }
        }

        impl Handle<Forbidden> for $name {
            fn handle(&mut self, _: Forbidden, _: &mut Cx<'_, Self>) -> Reply<Self, String> {
                Reply::Now(FORBIDDEN.into())
            }
        }
    )*};
}

policies! {
    Policy1, "chaos.policy-1", "1.0.0";
    Policy2, "chaos.policy-2", "2.0.0";
}

fn decide(rules: &Rules, context: &mut HookContext) -> Verdict {
    let path = match &context.call {
        Syscall::Write(call) => &call.path,
        Syscall::Setattr(call) => &call.path,
        Syscall::Rename(call) => &call.to,
        _ => return Verdict::Continue,
    };
    if !path.as_str().starts_with(&rules.forbidden) {
        return Verdict::Continue;
    }
    assert!(rules.flaw != Flaw::Breaks, "a flaw while it decides");
    Verdict::refuse("nobody writes there")
}
