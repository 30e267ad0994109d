//! Has what nothing names collected, what is stored checked, and content read, over and over: so that those whom this is asked of are at work when they are
//! struck.

use std::sync::Arc;
use std::time::Duration;

use nexus::sys::{FsckEntry, GarbageEntry, ScrubEntry};
use nexus::{
    Check, CheckState, Collection, CollectionState, Env, Error, ErrorKind, Executed, Nexus, Op, SysWrite,
    VPath,
};
use serde::de::DeserializeOwned;

use crate::model::BAD;
use crate::scene::{MOMENT, Scene};

/// The time between two of one kind.
const EVERY: Duration = Duration::from_millis(60);

/// Within what an order is to be answered.
const ORDER_MAX: Duration = Duration::from_secs(10);

/// Within what one is over.
const OVER_MAX: Duration = Duration::from_secs(120);

/// What no kill makes it say: damage, and a panic of what is no actor.
const OF_NO_KILL: [&str; 3] = ["damaged", "circle", "panicked"];

/// What is done to all that is stored, one of each kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Collection,
    Check,
    Scrub,
}

/// How one ended, or how far it is.
struct Latest {
    number: u64,
    is_over: bool,
    /// Why it was cut short.
    cut_short: Option<String>,
    wrong: Vec<String>,
}

impl Pass {
    pub(crate) const ALL: [Self; 3] = [Self::Collection, Self::Check, Self::Scrub];

    /// Where it is begun, and shown.
    fn file(self) -> &'static str {
        match self {
            Self::Collection => "/__sys__/store/garbage",
            Self::Check => "/__sys__/store/fsck",
            Self::Scrub => "/__sys__/store/scrub",
        }
    }

    /// What it is begun with: whatever nothing names goes at once.
    fn order(self, number: u64) -> String {
        match self {
            Self::Collection => format!(r#"{{"dry_run":{},"grace_ms":0}}"#, number.is_multiple_of(4)),
            Self::Check | Self::Scrub => "{}".into(),
        }
    }

    async fn latest(self, nx: &Nexus) -> nexus::Result<Option<Latest>> {
        Ok(match self {
            Self::Collection => shown::<GarbageEntry>(nx, self.file()).await?.latest.map(Latest::from),
            Self::Check => shown::<FsckEntry>(nx, self.file()).await?.latest.map(Latest::from),
            Self::Scrub => shown::<ScrubEntry>(nx, self.file()).await?.latest.map(Latest::from),
        })
    }
}

impl From<Collection> for Latest {
    fn from(latest: Collection) -> Self {
        let is_over = latest.is_over();
        let cut_short = match latest.state {
            CollectionState::Failed { cause } => Some(cause),
            _ => None,
        };
        Self { number: latest.number, is_over, cut_short, wrong: Vec::new() }
    }
}

impl From<Check> for Latest {
    fn from(latest: Check) -> Self {
        let is_over = latest.is_over();
        // What lies where the driver fails is not what the kernel wrote there.
        let is_elsewhere = |path: &str| !path.starts_with(BAD);
        let found = latest.findings.iter().filter(|finding| finding.path.as_deref().is_none_or(is_elsewhere));
        let mut wrong: Vec<_> = found.map(ToString::to_string).collect();
        if latest.untold > 0 {
            wrong.push(format!("{} more", latest.untold));
        }
        let cut_short = match latest.state {
            CheckState::Failed { cause } => Some(cause),
            _ => None,
        };
        Self { number: latest.number, is_over, cut_short, wrong }
    }
}

/// What a file of the kernel's own shows.
pub(crate) async fn shown<T: DeserializeOwned>(nx: &Nexus, file: &str) -> nexus::Result<T> {
    let read = nx.read(file).await?;
    serde_json::from_slice(&read).map_err(|why| Error::global(Op::Read, ErrorKind::Corrupt).because(why))
}

/// Does one after the other until the scene ends.
pub(crate) async fn always(scene: Arc<Scene>, pass: Pass) {
    for number in 0_u64.. {
        scene.env.sleep(EVERY.min(scene.setting.quiet_every / 4)).await;
        if !scene.goes_on().await {
            break;
        }
        if scene.is_dying() {
            continue;
        }
        if let Some(wrong) = carry_out(&scene, pass, number).await {
            wrong
                .iter()
                .for_each(|wrong| scene.broken(format_args!("a check beside the clients found: {wrong}")));
        }
    }
}

/// How far the latest one is; none when there was none yet.
async fn latest(scene: &Scene, pass: Pass) -> Option<Latest> {
    match pass.latest(&scene.nx).await {
        Ok(latest) => latest,
        Err(error) => {
            if !scene.is_dying() {
                scene.broken(format_args!("{} is not shown: {error}", pass.file()));
            }
            None
        }
    }
}

/// Begins one and waits for its end. Says what it found; none when it was cut short.
async fn carry_out(scene: &Scene, pass: Pass, number: u64) -> Option<Vec<String>> {
    let file = pass.file();
    let before = latest(scene, pass).await.map_or(0, |latest| latest.number);
    let Ok(at) = VPath::parse(file) else { return None };
    let ordering = scene.nx.send(SysWrite::at(at, pass.order(number)));
    match scene.call("order", file, ORDER_MAX, ordering).await {
        Some(Ok(_)) => {}
        Some(Err(error)) if error.executed() == Executed::Unknown || error.kind() == ErrorKind::Busy => {
            return None;
        }
        Some(Err(_)) | None if scene.is_dying() => return None,
        Some(Err(error)) => {
            scene.broken(format_args!("an order was refused for no fault: {error}"));
            return None;
        }
        None => return None,
    }
    let began = scene.env.now();
    while scene.goes_on().await && !scene.is_dying() {
        match latest(scene, pass).await.filter(|latest| latest.number > before && latest.is_over) {
            Some(Latest { cut_short: Some(why), .. }) => {
                if OF_NO_KILL.iter().any(|told| why.contains(told)) && !scene.is_dying() {
                    scene.broken(format_args!("{pass:?} was cut short by no kill: {why}"));
                }
                scene.count(|counts| counts.passes_cut_short += 1);
                return None;
            }
            Some(latest) => {
                scene.count(|counts| match pass {
                    Pass::Collection => counts.collections += 1,
                    Pass::Check => counts.checks += 1,
                    Pass::Scrub => counts.scrubs += 1,
                });
                return Some(latest.wrong);
            }
            None if scene.env.now().saturating_duration_since(began) > OVER_MAX => {
                scene.broken(format_args!("{pass:?} is not over after {OVER_MAX:?}"));
                return None;
            }
            None => scene.env.sleep(MOMENT * 4).await,
        }
    }
    None
}

/// When nobody calls, a check comes to its end. Says what it found.
pub(crate) async fn check(nx: &Nexus, env: &Env) -> Vec<String> {
    let began = env.now();
    loop {
        let why = match check_once(nx, env).await {
            Ok(Latest { cut_short: None, wrong, .. }) => {
                return wrong.into_iter().map(|wrong| format!("a check found: {wrong}")).collect();
            }
            Ok(Latest { cut_short: Some(why), .. }) => why,
            // One that was begun beside the clients is not over yet, or a fault that waited has struck this.
            Err(error) => error.to_string(),
        };
        if env.now().saturating_duration_since(began) > OVER_MAX {
            return vec![format!("no check comes to its end, and nobody else calls: {why}")];
        }
        env.sleep(MOMENT * 40).await;
    }
}

async fn check_once(nx: &Nexus, env: &Env) -> nexus::Result<Latest> {
    let (pass, began) = (Pass::Check, env.now());
    let before = pass.latest(nx).await?.map_or(0, |latest| latest.number);
    nx.write(pass.file(), pass.order(0)).await?;
    loop {
        let latest = pass.latest(nx).await?;
        if let Some(latest) = latest.filter(|latest| latest.number > before && latest.is_over) {
            return Ok(latest);
        }
        if env.now().saturating_duration_since(began) > OVER_MAX {
            return Err(Error::global(Op::Check, ErrorKind::TimedOut));
        }
        env.sleep(MOMENT * 4).await;
    }
}
