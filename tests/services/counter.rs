//! A service that counts, in two versions that are different types.

use std::time::Duration;

use nexus::ExitReason;
use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::service::{Carry, Declaration, Service, Setup};
use serde::{Deserialize, Serialize};

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Adds one and gives the sum.
#[derive(Debug, Clone)]
pub(crate) struct Next;

impl Message for Next {
    type Reply = u64;
    const NAME: &'static str = "counter.next";
}

/// Gives the sum.
#[derive(Debug, Clone)]
pub(crate) struct Sum;

impl Message for Sum {
    type Reply = u64;
    const NAME: &'static str = "counter.sum";
}

/// Calls the service itself, which adds one.
#[derive(Debug, Clone)]
pub(crate) struct NextByItself;

impl Message for NextByItself {
    type Reply = nexus::Result<u64>;
    const NAME: &'static str = "counter.next_by_itself";
}

/// Panics.
#[derive(Debug, Clone)]
pub(crate) struct Break;

impl Message for Break {
    type Reply = ();
    const NAME: &'static str = "counter.break";
}

/// How a version misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) fault: Fault,
    pub(crate) on_demand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) enum Mode {
    #[default]
    Overlap,
    Exclusive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Its start gives an error.
    Start,
    /// Its start panics.
    StartPanics,
    /// Its probe gives an error.
    Probe,
    ProbePanics,
    /// Its export gives an error: it cannot be replaced.
    Export,
    ExportPanics,
    Import,
    ImportPanics,
    /// It panics at each call.
    Serving,
    /// It answers one too much.
    Wrong,
    /// What it declares makes no sense.
    Declared,
}

impl Config {
    pub(crate) fn fault(fault: Fault) -> Self {
        Self { fault, ..Self::default() }
    }

    pub(crate) fn exclusive() -> Self {
        Self { mode: Mode::Exclusive, ..Self::default() }
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
                    match setup.config().fault {
                        Fault::Start => return Err(ExitReason::error("it does not like it here")),
                        Fault::StartPanics => panic!("it breaks in its start"),
                        _ => {}
                    }
                    // After a crash, from where it was published last.
                    let sum = setup.view().get().map_or(0, |sum| *sum);
                    setup.publish(start.generation(), sum).map_err(ExitReason::error)?;
                    Ok(Self { setup, incarnation: start.generation(), sum })
                })
            }
        }

        impl Service for $name {
            const VERSION: &'static str = $version;
            type Config = Config;
            type View = u64;

            fn declare(config: &Config) -> Declaration<Self> {
                assert!(config.fault != Fault::Declared, "what it declares makes no sense");
                let declared = Declaration::new()
                    .exports_compared::<Next>()
                    .exports::<Sum>()
                    .swap_mode(match config.mode {
                        Mode::Overlap => nexus::SwapMode::Overlap,
                        Mode::Exclusive => nexus::SwapMode::Exclusive,
                    })
                    .probation(Duration::from_secs(30));
                if config.on_demand { declared.on_demand() } else { declared }
            }

            fn export(&mut self) -> Result<Carry, ExitReason> {
                match self.setup.config().fault {
                    Fault::Export => Err(ExitReason::error("it keeps what it has")),
                    Fault::ExportPanics => panic!("it breaks in its export"),
                    _ => Carry::of(1, &self.sum),
                }
            }

            fn import(&mut self, carry: Carry) -> Result<(), ExitReason> {
                match self.setup.config().fault {
                    Fault::Import => return Err(ExitReason::error("it does not understand")),
                    Fault::ImportPanics => panic!("it breaks in its import"),
                    _ => {}
                }
                self.sum = carry.take()?;
                self.setup.publish(self.incarnation, self.sum).map_err(ExitReason::error)
            }

            fn probe(&mut self) -> LocalBoxFuture<'static, Result<(), ExitReason>> {
                let fault = self.setup.config().fault;
                Box::pin(async move {
                    match fault {
                        Fault::Probe => Err(ExitReason::error("it is not fit")),
                        Fault::ProbePanics => panic!("it breaks in its probe"),
                        _ => Ok(()),
                    }
                })
            }
        }

        impl Handle<Next> for $name {
            fn handle(&mut self, _: Next, cx: &mut Cx<'_, Self>) -> Reply<Self, u64> {
                assert!(self.setup.config().fault != Fault::Serving, "it breaks while it serves");
                self.sum += 1;
                let _ = self.setup.publish(cx.generation(), self.sum);
                Reply::Now(self.sum + u64::from(self.setup.config().fault == Fault::Wrong))
            }
        }

        impl Handle<Sum> for $name {
            fn handle(&mut self, _: Sum, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
                Reply::Now(self.sum)
            }
        }

        impl Handle<Break> for $name {
            fn handle(&mut self, _: Break, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
                panic!("it was told to break")
            }
        }

        impl Handle<NextByItself> for $name {
            fn handle(&mut self, _: NextByItself, _: &mut Cx<'_, Self>) -> Reply<Self, nexus::Result<u64>> {
                let itself = self.setup.service::<Self>(self.setup.name());
                Reply::later(async move { itself?.call(Next, SOON).await })
            }
        }
    )*};
}

counters! {
    Counter, "counter", "1.0.0";
    Counter2, "counter-2", "2.0.0";
}
