//! Puts versions of services and drivers in each other's place all the time, and has mounts and hooks come and go.

use std::sync::Arc;
use std::time::Duration;

use nexus::dispatch::{Observer, Registration};
use nexus::service::Service;
use nexus::services::audit::Audit;
use nexus::services::quota::Quota;
use nexus::{Env, Error, ErrorKind, Event, EventMask, MountSpec, Nexus, ServiceSwapped, SwapOptions};

use crate::auditing::{self, AUDIT};
use crate::clients;
use crate::limits::{self, QUOTA};
use crate::model::{PLAIN, SCRATCH};
use crate::plan::{Flaw, Swap, Which};
use crate::record::Record;
use crate::scene::{MOMENT, Scene};
use crate::services::{COUNTER, Counter1, Counter2, Made, POLICY, PROBATION, Policy1, Policy2};

/// How long a version that breaks may serve: who calls it finds out at once.
const SWAP_BACK_MAX: Duration = Duration::from_secs(30);

/// The time between two replacements of the driver, and between two changes of mounts and hooks.
const DRIVER_EVERY: Duration = Duration::from_millis(150);
const MOUNT_EVERY: Duration = Duration::from_millis(15);

/// Swaps one of the services, as planned.
pub(crate) async fn services(scene: Arc<Scene>, which: Which) {
    let planned = scene.life.swaps.clone();
    let mut number = 0;
    for swap in planned.iter().filter(|swap| swap.service == which) {
        if !scene.until(swap.at).await || scene.is_dying() {
            break;
        }
        number += 1;
        carry_out(&scene, swap, number).await;
    }
    while scene.goes_on().await {
        scene.env.sleep(MOUNT_EVERY).await;
    }
}

/// Registers the services, or brings those to serve soundly that are remembered from before.
pub(crate) async fn register(nx: &Nexus, env: &Env) -> nexus::Result<()> {
    let there: Vec<_> = nx.services()?.into_iter().map(|service| service.name).collect();
    for which in [Which::Counter, Which::Policy, Which::Audit, Which::Quota] {
        if there.iter().any(|service| **service == *name(which)) {
            swap(nx, which, 1, Flaw::None).await?;
        } else {
            match which {
                Which::Counter => drop(nx.register::<Counter1>(COUNTER, Made::default()).await?),
                Which::Policy => drop(nx.register::<Policy1>(POLICY, Made::default()).await?),
                Which::Audit => drop(nx.register::<Audit>(AUDIT, auditing::config(0)).await?),
                Which::Quota => drop(nx.register::<Quota>(QUOTA, limits::config(0)).await?),
            }
        }
    }
    limits::set(nx, env).await
}

fn name(which: Which) -> &'static str {
    match which {
        Which::Counter => COUNTER,
        Which::Policy => POLICY,
        Which::Audit => AUDIT,
        Which::Quota => QUOTA,
    }
}

async fn swap(nx: &Nexus, which: Which, number: u64, flaw: Flaw) -> nexus::Result<ServiceSwapped> {
    let second = number.is_multiple_of(2);
    // What is real has one version, which is configured in two ways.
    let options = SwapOptions::new().probation(Duration::ZERO);
    match (which, second) {
        (Which::Audit, _) => nx.swap_with::<Audit>(AUDIT, auditing::config(number), options).await,
        (Which::Quota, _) => nx.swap_with::<Quota>(QUOTA, limits::config(number), options).await,
        (Which::Counter, false) => put::<Counter1>(nx, COUNTER, flaw).await,
        (Which::Counter, true) => put::<Counter2>(nx, COUNTER, flaw).await,
        (Which::Policy, false) => put::<Policy1>(nx, POLICY, flaw).await,
        (Which::Policy, true) => put::<Policy2>(nx, POLICY, flaw).await,
    }
}

async fn put<S: Service<Config = Made>>(nx: &Nexus, name: &str, flaw: Flaw) -> nexus::Result<ServiceSwapped> {
    // A sound version is not swapped back for a fault that was injected: the calls that it has answered would be lost with it.
    let probation = if flaw == Flaw::Breaks { PROBATION } else { Duration::ZERO };
    nx.swap_with::<S>(name, Made { flaw }, SwapOptions::new().probation(probation)).await
}

async fn carry_out(scene: &Arc<Scene>, planned: &Swap, number: u64) {
    let Swap { service, flaw, .. } = *planned;
    let swapped = swap(&scene.nx, service, number, flaw).await;
    match (flaw, swapped) {
        (Flaw::None, Ok(done)) => {
            let pause_us = u64::try_from(done.pause.as_micros()).unwrap_or(u64::MAX);
            scene.tell(Record::Swapped { service: Some(service), pause_us });
        }
        (Flaw::Breaks, Ok(done)) => back(scene, service, flaw, &done, number).await,
        (_, Ok(done)) => {
            scene.broken(format_args!("a version with a flaw came to serve: {flaw:?}, {done:?}"));
        }
        (_, Err(error)) if flaw != Flaw::None && error.to_string().contains("a flaw in its") => {
            scene.tell(Record::Withstood { service, flaw });
        }
        (_, Err(error)) => cut_short(scene, Some(service), &error),
    }
}

/// Takes note of a swap that did not come about, for which there must be a fault that was injected.
fn cut_short(scene: &Scene, service: Option<Which>, error: &Error) {
    let of_a_kill = matches!(
        error.kind(),
        ErrorKind::Busy | ErrorKind::Crashed | ErrorKind::Down | ErrorKind::TimedOut | ErrorKind::Unavailable
    );
    let why = error.to_string();
    // A version that refuses what it is asked for, because it was told to fail just then, is told as such.
    let of_a_fault = ["an injected", "was killed"].iter().any(|told| why.contains(told));
    if !of_a_kill && !of_a_fault && !scene.is_dying() {
        scene.broken(format_args!("a swap was refused for no fault: {error}"));
    }
    scene.tell(Record::CutShort { service, why });
}

/// Uses a version that breaks until it was swapped back. Those who use it otherwise may be at a pause, which waits for this.
async fn back(scene: &Arc<Scene>, service: Which, flaw: Flaw, done: &ServiceSwapped, number: u64) {
    // Who is not told does not know.
    let is_back = || {
        scene.nx.services().is_ok_and(|all| {
            all.iter().any(|status| {
                status.name == done.service
                    && status.serving.as_ref().is_some_and(|serving| serving.number != done.to.number)
            })
        })
    };
    let Ok(counter) = scene.nx.service(COUNTER) else {
        return scene.broken("the administrator is given no service");
    };
    let began = scene.env.now();
    while scene.env.now().saturating_duration_since(began) < SWAP_BACK_MAX {
        if is_back() {
            return scene.tell(Record::Withstood { service, flaw });
        }
        if scene.is_stopped() || scene.is_dying() {
            // The end came first: nothing was withstood.
            return;
        }
        match service {
            Which::Counter => clients::next(scene, &counter).await,
            Which::Policy => clients::try_forbidden(scene, "swapper").await,
            // They have no flaws.
            Which::Audit | Which::Quota => return,
        }
        scene.env.sleep(MOMENT).await;
    }
    let status = scene.nx.services().ok();
    scene.broken(format_args!("a version that breaks still serves: {done:?}, {status:?}"));
    let _ = swap(&scene.nx, service, number, Flaw::None).await;
}

/// Replaces the driver of the plain files, over and over.
pub(crate) async fn driver(scene: Arc<Scene>) {
    for number in 0_u64.. {
        scene.env.sleep(DRIVER_EVERY).await;
        if !scene.goes_on().await {
            break;
        }
        if scene.is_dying() || !scene.setting.swaps_drivers {
            continue;
        }
        let deadline = (60_000 + number % 2).to_string();
        let spec = scene.setting.plain.clone().option("deadline_ms", deadline);
        match scene.nx.swap_driver(PLAIN, spec).await {
            Ok(done) => {
                let pause_us = u64::try_from(done.pause.as_micros()).unwrap_or(u64::MAX);
                scene.tell(Record::Swapped { service: None, pause_us });
            }
            Err(error) => cut_short(&scene, None, &error),
        }
    }
}

/// An observer that hears nothing of interest.
struct Deaf;

impl Observer for Deaf {
    fn mask(&self) -> EventMask {
        EventMask::NONE
    }

    fn observe(&self, _: &Event) {}
}

/// An observer that hears everything, for as long as the kernel lives.
struct Hears;

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, _: &Event) {}
}

/// Attaches and detaches a mount, registers and removes a hook, over and over: so that those whom this is asked of are at work when they are struck.
pub(crate) async fn mounts_and_hooks(scene: Arc<Scene>) {
    let mut hears = false;
    while scene.goes_on().await {
        scene.env.sleep(MOUNT_EVERY).await;
        if scene.is_dying() {
            continue;
        }
        if !hears {
            // Twice does no harm, when the answer is lost.
            hears = scene.nx.register_hook(Registration::observer("hears", Arc::new(Hears))).await.is_ok();
        }
        // Those who are killed meanwhile answer with an error, and what they did or not is put right by the next round.
        let _ = scene.nx.mount(SCRATCH, MountSpec::new("memory")).await;
        let _ = scene.nx.write(format!("{SCRATCH}/x"), "x").await;
        if let Ok(id) = scene.nx.register_hook(Registration::observer("deaf", Arc::new(Deaf)).inline()).await
        {
            let _ = scene.nx.unregister_hook(id).await;
        }
        let _ = scene.nx.unmount(SCRATCH).await;
    }
}
