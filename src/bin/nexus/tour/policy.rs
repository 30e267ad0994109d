//! Puts broken permission policies in the place of a good one while agents try what is forbidden.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join;
use nexus::actors::{Behaviour, ExitReason, LocalBoxFuture, Start};
use nexus::dispatch::OpSet;
use nexus::service::{Declaration, Service, ServiceHook, Setup};
use nexus::syscall::{SwapOptions, SysWrite};
use nexus::{ErrorKind, HookContext, VPath, Verdict};
use nexus_actors::block_on;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Tour;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// The service, for as long as the tour needs it.
const NAME: &str = "tour-policy";

/// Agents that call meanwhile.
const AGENTS: usize = 4;

/// How often each broken policy is tried.
const ROUNDS: usize = 5;

/// Answers that must agree before a policy is promoted from its trial.
const TRIAL: u32 = 50;

/// How long a broken policy may take to be found out.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// What is wrong with a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Flaw {
    None,
    /// It is not fit to serve, and its probe says so.
    Unfit,
    /// It panics where it should decide.
    Panics,
    /// It allows everything.
    Blind,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settings {
    forbidden: VPath,
    flaw: Flaw,
}

/// A permission policy: an inline hook that refuses changes below one folder.
struct Policy(Setup<Self>);

impl Behaviour for Policy {
    type Args = Setup<Self>;
    const NAME: &'static str = "tour-policy";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            let settings = setup.config().clone();
            setup.publish(start.generation(), settings).map_err(ExitReason::error)?;
            Ok(Self(setup))
        })
    }
}

impl Service for Policy {
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = Settings;
    type View = Settings;

    fn declare(_: &Settings) -> Declaration<Self> {
        let decide = |settings: &Settings, call: &mut HookContext| {
            let forbidden = call.call.path().is_within(&settings.forbidden);
            match settings.flaw {
                Flaw::Panics => panic!("this policy is broken on purpose"),
                Flaw::None | Flaw::Unfit if forbidden => Verdict::refuse("it is forbidden"),
                _ => Verdict::Continue,
            }
        };
        Declaration::new()
            .hook(ServiceHook::before("decide", OpSet::MUTATIONS, decide))
            .probation(FOUND_WITHIN)
    }

    fn probe(&mut self) -> LocalBoxFuture<'static, Result<(), ExitReason>> {
        let unfit = self.0.config().flaw == Flaw::Unfit;
        let fit = if unfit { Err(ExitReason::error("it is not fit to serve")) } else { Ok(()) };
        Box::pin(std::future::ready(fit))
    }
}

/// What the agents saw.
#[derive(Default)]
struct Agents {
    stop: AtomicBool,
    calls: AtomicU64,
    failed: AtomicU64,
    slipped: AtomicU64,
    longest_us: AtomicU64,
}

impl Tour<'_> {
    pub(super) async fn swap_policies(&self, session: &Arc<Session>) -> Outcome {
        let begun = self.env.now();
        let forbidden = self.below("forbidden")?;
        let settings = |flaw| Settings { forbidden: forbidden.clone(), flaw };
        session.nx.register::<Policy>(NAME, settings(Flaw::None)).await?;
        let agents = Arc::new(Agents::default());
        let pool = session.env().pool("tour-agents", AGENTS, AGENTS);
        let calling = futures_util::future::try_join_all((0..AGENTS).map(|number| {
            let (session, agents) = (session.clone(), agents.clone());
            let (allowed, forbidden) = (self.below(&format!("allowed-{number}")), forbidden.join("secret"));
            pool.run(move || agents.call(&session, number, allowed.ok(), forbidden.ok()))
        }));
        let swapping = async {
            let done = self.try_each(session, &agents, settings).await;
            agents.stop.store(true, Ordering::Relaxed);
            done
        };
        let (called, swapped) = join(calling, Box::pin(swapping)).await;
        called.map_err(|error| Failure::claim("tour", error))?;
        let tried = swapped?;
        session.nx.unregister(NAME).await?;

        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (calls, failed, slipped) = (count(&agents.calls), count(&agents.failed), count(&agents.slipped));
        if failed > 0 || slipped > 0 || calls == 0 {
            let found = format!(
                "of {calls} calls under broken policies {failed} failed and {slipped} slipped through"
            );
            return Err(Failure::claim("tour", found));
        }
        let longest = count(&agents.longest_us) as f64 / 1e3;
        let says = format!(
            "{tried} broken permission policies were swapped in under {calls} calls of {AGENTS} agents and rolled back: forbidden \
             operations that passed: {slipped}; failed calls: {failed}; longest pause: {longest:.2} ms"
        );
        let measured = json!({
            "tried": tried, "calls": calls, "passed": slipped, "failed": failed, "longest_pause_ms": longest,
        });
        self.step("policy", begun, says, measured)
    }

    /// Swaps each kind of broken policy in, and waits until the good one serves again.
    async fn try_each(
        &self,
        session: &Session,
        agents: &Agents,
        settings: impl Fn(Flaw) -> Settings,
    ) -> Outcome<usize> {
        let mut tried = 0;
        for _ in 0..ROUNDS {
            for flaw in [Flaw::Unfit, Flaw::Panics, Flaw::Blind] {
                let before = agents.calls.load(Ordering::Relaxed);
                let shadow = if flaw == Flaw::Blind { TRIAL } else { 0 };
                let begun = self.env.now();
                loop {
                    let options = SwapOptions::new().shadow(shadow);
                    match session.nx.swap_with::<Policy>(NAME, settings(flaw), options).await {
                        Ok(_) if flaw == Flaw::Panics => break,
                        Ok(_) => {
                            return Err(Failure::claim(
                                "tour",
                                format!("a policy with the flaw {flaw:?} serves"),
                            ));
                        }
                        // What the round before left is being tidied up.
                        Err(error) if error.kind() == ErrorKind::Busy => {
                            self.env.sleep(Duration::from_millis(1)).await
                        }
                        Err(_) => break,
                    }
                }
                while !is_good(session)? || agents.calls.load(Ordering::Relaxed) < before + AGENTS as u64 {
                    if self.env.now().duration_since(begun) > FOUND_WITHIN {
                        let found =
                            format!("a policy with the flaw {flaw:?} was not found out in {FOUND_WITHIN:?}");
                        return Err(Failure::claim("tour", found));
                    }
                    self.env.sleep(Duration::from_millis(1)).await;
                }
                tried += 1;
            }
        }
        Ok(tried)
    }
}

/// Whether the policy that serves is the first one.
fn is_good(session: &Session) -> Outcome<bool> {
    let services = session.nx.services()?;
    let policy = services.iter().find(|service| &*service.name == NAME);
    Ok(policy.and_then(|policy| policy.serving.as_ref()).is_some_and(|version| version.number == 1))
}

impl Agents {
    /// Does what is allowed and tries what is not, one after the other, as an agent of its own.
    fn call(&self, session: &Session, number: usize, allowed: Option<VPath>, forbidden: Option<VPath>) {
        let (Ok(agent), Some(allowed), Some(forbidden)) =
            (session.nx.agent(format!("tourist-{number}")), allowed, forbidden)
        else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        while !self.stop.load(Ordering::Relaxed) {
            let begun = session.env().now();
            let written = block_on(agent.send(SysWrite::at(&allowed, "mine").create()));
            let took = session.env().now().duration_since(begun).as_micros();
            self.longest_us.fetch_max(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.failed.fetch_add(u64::from(written.is_err()), Ordering::Relaxed);
            match block_on(agent.send(SysWrite::at(&forbidden, "not mine").create())) {
                Err(error) if error.kind() == ErrorKind::Refused => {}
                Err(_) => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
                Ok(_) => drop(self.slipped.fetch_add(1, Ordering::Relaxed)),
            }
            self.calls.fetch_add(2, Ordering::Relaxed);
        }
    }
}
