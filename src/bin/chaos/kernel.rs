//! The kernel's process: boots, lives one life of the plan, and tells the oracle of it until it is killed.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nexus::services::audit::Audit;
use nexus::services::quota::Quota;
use nexus::{Config, Env, HostConfig, MountSpec};
use nexus_drivers::faults::{Faults, FaultyFactory};
use parking_lot::Mutex;

use crate::Args;
use crate::clients::BAD_MAX;
use crate::life;
use crate::model::Ledger;
use crate::plan::{Life, Plan};
use crate::record::Record;
use crate::scene::{Scene, Setting, Tell};
use crate::services::{Counter1, Counter2, Policy1, Policy2};
use crate::swaps;

/// How long one message may hold an actor of the kernel. Each wedge of the run costs this.
const WATCHDOG: Duration = Duration::from_millis(500);

/// How long a client waits between two calls, on average.
const PACE: Duration = Duration::from_micros(300);

/// How long a call waits that waits for others, on average.
const WAIT: Duration = Duration::from_millis(6);

/// How long clients work from one pause to the next.
const QUIET_EVERY: Duration = Duration::from_secs(2);

/// Longer than a run.
const NEVER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The driver that fails at will.
const FAULTY: &str = "faulty";

/// The mounts of a run in `folder`.
pub(crate) fn setting(folder: &Path) -> Setting {
    let files = |driver: &str, name: &str| {
        MountSpec::new(driver).option("folder", folder.join(name).display().to_string())
    };
    let deadline = BAD_MAX.as_millis().to_string();
    Setting {
        plain: files("path-local", "plain"),
        bad: files(FAULTY, "bad").option("deadline_ms", deadline).option("open_ms", "500"),
        swaps_drivers: true,
        pace: PACE,
        wait: WAIT,
        quiet_every: QUIET_EVERY,
    }
}

/// The settings of each kernel of a run in `folder`.
pub(crate) fn config(folder: &Path, faults: &Faults) -> Result<Config, Box<dyn Error>> {
    let inner = nexus_drivers::catalogue().get("path-local").ok_or("no driver is called path-local")?;
    let faulty = Arc::new(FaultyFactory::new(FAULTY, inner, faults.clone()));
    let config = Config::new(folder.join("data")).driver(faulty).service::<Audit>().service::<Quota>();
    // Collected and read is when that is asked for, as fast as it goes.
    Ok(config.garbage(None, Duration::ZERO).scrub(0, NEVER))
}

/// Lives one life of the plan. The homes as they are come by standard input, records go to standard output.
pub(crate) fn live(args: &Args, number: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
    let seed = args.seed.ok_or("the kernel's process is told the seed")?;
    let plan = Plan::new(seed, Duration::from_secs(args.seconds));
    let life = plan.lives.into_iter().nth(number).ok_or("there is no such life")?;
    let mut said = Vec::new();
    io::stdin().read_to_end(&mut said)?;
    let ledger: Ledger = serde_json::from_slice(&said)?;

    let log = File::create(folder.join(format!("life-{number}.log")))?;
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::sync::Mutex::new(log)).init();
    // The panics of the plan are told by exit reasons; thousands of them on standard error would hide what is not of the plan.
    let quiet = HostConfig { quiet: true, io_threads: 2, ..HostConfig::default() };
    let env = Env::host(quiet)?;
    let done = env.blocking_wait(Box::pin(serve(&env, Env::host(quiet)?, life, ledger, folder)));
    env.stop();
    done
}

async fn serve(
    env: &Env,
    kernels_own: Env,
    life: Life,
    ledger: Ledger,
    folder: &Path,
) -> Result<(), Box<dyn Error>> {
    let tell = teller()?;
    let faults = Faults::new();
    let config = config(folder, &faults)?
        .env(kernels_own.clone())
        .restarts(u32::MAX, Duration::from_secs(1))
        .watchdog(WATCHDOG)
        .service::<Counter1>()
        .service::<Counter2>()
        .service::<Policy1>()
        .service::<Policy2>();
    let began = env.now();
    let nx = nexus::connect(config).await?;
    swaps::register(&nx, env).await?;
    life::begin(&nx).await?;
    let boot_us = u64::try_from(env.now().duration_since(began).as_micros()).unwrap_or(u64::MAX);
    tell(Record::Ready { boot_us });
    let scene = Scene::new(nx, env.clone(), life, setting(folder), faults, ledger, tell);
    // The oracle looks afterwards, from outside.
    life::run(&scene, async || {}).await;
    kernels_own.stop();
    Ok(())
}

/// Writes each record at once, so that the oracle has it whatever becomes of this process.
fn teller() -> io::Result<Tell> {
    let out = Mutex::new(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    Ok(Arc::new(move |record: Record| {
        let Ok(mut line) = serde_json::to_vec(&record) else { return };
        line.push(b'\n');
        // Without an oracle there is nobody to work for.
        if out.lock().write_all(&line).is_err() {
            std::process::abort();
        }
    }))
}
