//! The driver behind one mount, as a supervised child: opened, probed, opened anew with back-off, replaced.
//!
//! Owns:       the driver instance; publishes it in the mount's slot.
//! Asks:       nobody.
//! On restart: opens the driver anew and publishes it beside the old one, which serves until then and ends with its last caller. A driver
//!             whose content would be gone with it stays.
//! Bounds:     `THREADS_MAX` threads and `CALLS_MAX` waiting calls of an instance for a backend that blocks, `STUCK_MAX` of both that never come back.
//!
//! It is alive whether its driver is or not: what cannot be opened is tried again here, with back-off, and is no exit that its supervisor
//! would count. No code of a driver runs on the actor's thread: calls run on their callers' tasks, and the rest aside.

mod messages;
mod opening;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, Env, ExitReason, Handle, Message, Reply, Retired, Start};
use nexus_messages::syscall::DriverSwapped;
use nexus_supervisors::Backoff;

pub(super) use messages::{Adopt, Open, Prepare, Probe, Recover};
pub(super) use opening::{Opened, Threads, open};

use super::breaker::Change;
use super::guarded::{Guarded, Places, Watch};
use super::health::Standing;
use super::mount::Mount;
use super::outside::{self, Announce};
use super::passage::Era;
use crate::hal::{Catalogue, StoreError};

/// How long the calls inside an old driver may take before it is left to end by itself.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Waits between the attempts to open a driver that fails.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), factor: 2, max: Duration::from_secs(5) };

/// After this long without trouble, waits begin anew.
const QUIET: Duration = Duration::from_secs(60);

/// What a driver's actor is started with.
#[derive(Clone)]
pub(super) struct DriverArgs {
    // Weak: the mount holds its driver's door, which holds a reference to this actor, which holds what it is started with.
    pub(super) mount: Weak<Mount>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) data_folder: Option<std::path::PathBuf>,
    /// Told of what others change in what the driver serves.
    pub(super) announce: Announce,
}

/// The actor of one mount's driver.
pub(super) struct Driver {
    args: DriverArgs,
    mount: Arc<Mount>,
    generation: u64,
    /// Whether the driver is being opened anew, or waits for that.
    recovering: bool,
    /// Attempts to open it in a row.
    attempts: u32,
    attempted: Option<Instant>,
    /// How many calls had been made when the mount was last looked after.
    made: u64,
    watching: bool,
}

impl Behaviour for Driver {
    type Args = DriverArgs;
    const NAME: &'static str = "driver";

    fn init(args: DriverArgs, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let generation = start.generation();
        async move {
            let mount = args.mount.upgrade().ok_or_else(|| ExitReason::error("the mount is gone"))?;
            mount.claim(generation).map_err(ExitReason::error)?;
            if generation > 1 {
                // The first incarnation is told when; a later one takes up what the one before it left.
                start.me().signal(Recover).map_err(ExitReason::error)?;
            }
            Ok(Self {
                args,
                mount,
                generation,
                recovering: false,
                attempts: 0,
                attempted: None,
                made: 0,
                watching: false,
            })
        }
        .boxed_local()
    }
}

/// How an attempt to have a driver that answers came out.
enum Attempt {
    Opened(Opened),
    /// The one that is there answers.
    Answers,
}

impl Driver {
    /// Opens the driver anew, or probes the one that must stay; again and again, with back-off, until it answers. What has `failed` to open counts as failed until it
    /// is open.
    fn recover(&mut self, cause: Arc<str>, failed: bool, cx: &mut Cx<'_, Self>) {
        if self.recovering {
            return;
        }
        self.recovering = true;
        let now = cx.env().now();
        if self.attempted.is_some_and(|at| now.saturating_duration_since(at) > QUIET) {
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        let wait = BACKOFF.wait(self.attempts);
        self.attempted = Some(now + wait);
        let opening = Standing::Opening { cause: cause.clone() };
        let health = self.mount.health();
        health.set_standing(match failed || !wait.is_zero() {
            true => Standing::Failed { cause, until: now + wait },
            false => opening.clone(),
        });
        let (env, mount, args) = (cx.env().clone(), self.mount.clone(), self.args.clone());
        let attempt = async move {
            if !wait.is_zero() {
                env.sleep(wait).await;
            }
            if !failed {
                mount.health().set_standing(opening);
            }
            let threads = mount.threads().clone();
            if mount.outlives_its_actor() {
                let (driver, limit) = mount.for_probing();
                return opening::probe(env, threads, driver, limit).await.map(|()| Attempt::Answers);
            }
            open(env, threads, args, mount.spec(), true).await.map(Attempt::Opened)
        };
        cx.spawn(attempt, |me: &mut Self, cx, outcome| {
            me.recovering = false;
            match outcome {
                Ok(Attempt::Opened(opened)) => {
                    if let Err(error) = me.publish(opened, cx) {
                        me.failed(&error, cx);
                    }
                }
                Ok(Attempt::Answers) => {
                    me.mount.health().renewed();
                    me.look_after(cx);
                }
                Err(error) => me.failed(&error, cx),
            }
        });
    }

    fn failed(&mut self, error: &StoreError, cx: &mut Cx<'_, Self>) {
        let (mount, attempt) = (&self.mount.point, self.attempts);
        // One that stays down for days is not told every few seconds.
        if attempt.is_power_of_two() || attempt == 0 {
            tracing::warn!(%mount, %error, attempt, "a driver cannot be opened");
        } else {
            tracing::debug!(%mount, %error, attempt, "a driver cannot be opened");
        }
        self.mount.health().note(cx.env(), error);
        self.recover(error.to_string().into(), true, cx);
    }

    /// Puts a driver in the place of the one that is there, which drains.
    fn publish(&mut self, opened: Opened, cx: &mut Cx<'_, Self>) -> Result<(), StoreError> {
        let Some(era) = self.mount.era_of(&opened.spec) else {
            // It was replaced meanwhile by what is not to be replaced by this.
            self.retire(opened, cx);
            if !self.mount.has_driver() {
                self.recover("its options were changed".into(), false, cx);
            }
            return Ok(());
        };
        let retired = self.put(opened, era, cx)?;
        let (env, threads) = (cx.env().clone(), self.mount.threads().clone());
        cx.spawn(async move { drain(&env, &threads, retired).await }, |_: &mut Self, _, _| {});
        Ok(())
    }

    /// Publishes a driver, behind its door.
    fn put(
        &mut self,
        opened: Opened,
        era: Era,
        cx: &mut Cx<'_, Self>,
    ) -> Result<Retired<Arc<Guarded>>, StoreError> {
        let watch = Watch {
            env: cx.env().clone(),
            point: self.mount.point.clone(),
            options: opened.options,
            health: self.mount.health().clone(),
            actor: Some(cx.me().clone()),
            passage: self.mount.passage().clone(),
            era,
            opener: (!opened.volatile).then_some(self.generation),
            places: opened.options.concurrency.map(Places::new),
        };
        self.mount.fits(opened.path_addressed)?;
        let (volatile, listened) =
            (opened.volatile, opened.path_addressed.then(|| Arc::downgrade(&opened.driver)));
        let door = Guarded::new(opened.driver, opened.path_addressed, watch);
        self.mount.set_keeps_modes(opened.keeps_modes);
        let put = self.mount.put(cx.env(), self.generation, door, volatile);
        // A ghost: its successor has opened a driver, or will.
        let retired = put.map_err(|late| StoreError::Backend {
            what: "publishing the driver".into(),
            cause: late.to_string(),
        })?;
        self.mount.health().renewed();
        self.look_after(cx);
        if let Some(driver) = listened {
            outside::listen(cx.env(), driver, &self.args.mount, &self.args.announce);
        }
        Ok(retired)
    }

    fn retire(&self, opened: Opened, cx: &mut Cx<'_, Self>) {
        let (env, threads) = (cx.env().clone(), self.mount.threads().clone());
        cx.spawn(async move { threads.end(&env, opened).await }, |_: &mut Self, _, ()| {});
    }

    /// Probes the driver from time to time while nobody calls it, so that one that is down is known before somebody does.
    fn look_after(&mut self, cx: &mut Cx<'_, Self>) {
        let options = self.mount.options();
        let Some(every) = options.probe_every.filter(|_| !self.watching) else { return };
        self.watching = true;
        self.made = self.mount.health().calls().made;
        cx.spawn(cx.env().sleep(every), move |me: &mut Self, cx, ()| {
            me.watching = false;
            let idle = me.mount.health().calls().made == me.made;
            // Also one that failed too often: when nobody calls it, nothing else tells that it is well again.
            if idle && !me.recovering {
                me.probe(cx);
            }
            me.look_after(cx);
        });
    }

    fn probe(&mut self, cx: &mut Cx<'_, Self>) {
        let (driver, limit) = self.mount.for_probing();
        let probing = opening::probe(cx.env().clone(), self.mount.threads().clone(), driver, limit);
        cx.spawn(probing, |me: &mut Self, cx, answer| me.probed(&answer, cx));
    }

    fn probed(&mut self, answer: &Result<(), StoreError>, cx: &mut Cx<'_, Self>) {
        match answer {
            Ok(()) => {
                if self.mount.health().answers() == Some(Change::Closed) {
                    tracing::info!(mount = %self.mount.point, "a driver serves again");
                }
            }
            Err(error) => {
                self.mount.health().note(cx.env(), error);
                self.recover(error.to_string().into(), false, cx);
            }
        }
    }
}

impl Handle<Open> for Driver {
    fn handle(&mut self, m: Open, cx: &mut Cx<'_, Self>) -> Reply<Self, <Open as Message>::Reply> {
        let threads = self.mount.threads().clone();
        let opening = open(cx.env().clone(), threads, self.args.clone(), self.mount.spec(), m.is_again);
        Reply::later_then(opening, |me: &mut Self, cx, opened| {
            let done = opened.and_then(|opened| me.publish(opened, cx));
            if let Err(error) = &done {
                me.failed(error, cx);
            }
            done
        })
    }
}

impl Handle<Prepare> for Driver {
    fn handle(
        &mut self,
        Prepare(spec): Prepare,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <Prepare as Message>::Reply> {
        let threads = self.mount.threads().clone();
        let opening = open(cx.env().clone(), threads, self.args.clone(), spec, false);
        Reply::later_then(opening, |me: &mut Self, cx, opened| {
            let opened = opened?;
            if let Err(error) = me.mount.fits(opened.path_addressed) {
                me.retire(opened, cx);
                return Err(error);
            }
            Ok(opened)
        })
    }
}

impl Handle<Adopt> for Driver {
    fn handle(
        &mut self,
        Adopt(opened): Adopt,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <Adopt as Message>::Reply> {
        let Some(era) = self.mount.era_of(&opened.spec) else {
            let what = "publishing the driver".into();
            return Reply::Now(Err(StoreError::Backend { what, cause: "another one is mounted".into() }));
        };
        let retired = match self.put(opened, era, cx) {
            Ok(retired) => retired,
            Err(error) => return Reply::Now(Err(error)),
        };
        let mut report = DriverSwapped::new(retired.generation(), self.mount.driver_generation());
        report.calls = retired.in_flight();
        let (env, threads) = (cx.env().clone(), self.mount.threads().clone());
        Reply::later(async move {
            let began = env.now();
            report.left = drain(&env, &threads, retired).await;
            report.drain = env.now().saturating_duration_since(began);
            Ok(report)
        })
    }
}

impl Handle<Probe> for Driver {
    fn handle(&mut self, _: Probe, cx: &mut Cx<'_, Self>) -> Reply<Self, <Probe as Message>::Reply> {
        let (driver, limit) = self.mount.for_probing();
        let probing = opening::probe(cx.env().clone(), self.mount.threads().clone(), driver, limit);
        Reply::later_then(probing, |me: &mut Self, cx, answer| {
            me.probed(&answer, cx);
            answer
        })
    }
}

impl Handle<Recover> for Driver {
    fn handle(&mut self, _: Recover, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let health = self.mount.health();
        let cause = match health.is_closed() {
            false => health.cause(),
            // The incarnation before this one ended.
            true => match cx.me().status().last_exit {
                Some(why) => why.to_string().into(),
                None => "it was not opened yet".into(),
            },
        };
        self.recover(cause, false, cx);
        Reply::Now(())
    }
}

/// Waits for the last call in an old driver, and ends it; gives how many are left when the time is up.
pub(super) async fn drain(env: &Env, threads: &Threads, mut retired: Retired<Arc<Guarded>>) -> usize {
    if env.timeout(DRAIN_MAX, retired.drained()).await.is_err() {
        // It ends with its last caller.
        return retired.in_flight();
    }
    if let Ok(old) = retired.into_service() {
        threads.end(env, old).await;
    }
    0
}

/// The name of a driver's actor in the tree.
pub(super) fn actor_name(mount: &Mount) -> String {
    format!("mount-{}", mount.root)
}
