//! The quotas of the run: limits that nobody comes to, and small ones at which everybody is refused; never is there more than they allow.

use nexus::service::ServiceRef;
use nexus::services::quota::{
    Account, GetUsage, Limits, Quota, QuotaConfig, Recount, SetLimits, Subject, Usage,
};
use nexus::{EntryType, Env, ErrorKind, Executed, Nexus, SysUnlink, SysWrite, VPath};

use crate::auditing::ask;
use crate::clients::{SERVICE_MAX, SYSCALL_MAX};
use crate::model::{CLIENTS, ON_PLAIN, THRIFT, TIGHT, base};
use crate::plan::Dice;
use crate::scene::Scene;

pub(crate) const QUOTA: &str = "quota";

/// Who may have few files. Its limit is set at run time: no crash and no swap may forget it.
pub(crate) const THRIFTY: &str = "thrifty";

/// What may be where little may be, by everybody together.
const TIGHT_BYTES: u64 = 6_000;
const TIGHT_FILES: u64 = 5;
const THRIFTY_FILES: u64 = 4;

/// What nobody comes to.
const PLENTY: Limits = Limits { bytes: Some(1 << 40), files: Some(1 << 30), ops_per_s: None };

/// How often it is counted anew.
const RECOUNT_S: u64 = 2;

/// Names, and bytes of a content, where little may be.
const NAMES: u64 = 9;
const CONTENT_MAX: u64 = 2_500;

/// What fills a place to its limit.
const EDGE: &str = "edge";

fn tight() -> Limits {
    Limits { bytes: Some(TIGHT_BYTES), files: Some(TIGHT_FILES), ..Limits::default() }
}

fn thrifty() -> Limits {
    Limits { files: Some(THRIFTY_FILES), ..Limits::default() }
}

/// What every version is configured with: the small limit, and one for each home that is counted. In every second version reads are calls, too.
pub(crate) fn config(number: u64) -> QuotaConfig {
    let homes = (0..CLIENTS).filter(|client| *client != ON_PLAIN);
    let start =
        QuotaConfig { reads: number.is_multiple_of(2), recount_s: RECOUNT_S, ..QuotaConfig::default() };
    homes
        .fold(start.limit(below(TIGHT), tight()), |config, client| config.limit(below(&base(client)), PLENTY))
}

fn below(path: &str) -> Subject {
    Subject::Below(path.parse().unwrap_or_else(|_| VPath::root()))
}

fn thrifty_agent() -> Subject {
    Subject::Agent(THRIFTY.into())
}

/// Sets what is limited at run time alone. To be done after each boot, which knows the configuration only.
pub(crate) async fn set(nx: &Nexus, env: &Env) -> nexus::Result<()> {
    let quota = nx.service::<Quota>(QUOTA)?;
    ask(env, &quota, SetLimits { subject: thrifty_agent(), limits: Some(thrifty()) }).await
}

/// Writes or removes something where little may be.
pub(crate) async fn squeeze(scene: &Scene, thrifty: &Nexus, dice: &mut Dice) {
    let (nx, place) = if dice.below(2) == 0 { (thrifty, THRIFT) } else { (&scene.nx, TIGHT) };
    let path = format!("{place}/f{}", dice.below(NAMES));
    let Ok(at) = VPath::parse(&path) else { return scene.broken(format_args!("{path} is no path")) };
    let content = "x".repeat(usize::try_from(dice.below(CONTENT_MAX)).unwrap_or(0));
    let removes = dice.below(4) == 0;
    let changing = async {
        if removes {
            nx.send(SysUnlink::at(at)).await.map(drop)
        } else {
            nx.send(SysWrite::at(at, content).create()).await.map(drop)
        }
    };
    match scene.call("change", &path, SYSCALL_MAX, changing).await {
        Some(Ok(())) => {}
        Some(Err(error)) if error.executed() == Executed::Unknown => {
            scene.count(|counts| counts.unknown += 1);
        }
        Some(Err(error)) if error.kind() == ErrorKind::QuotaExceeded && !removes => {
            scene.count(|counts| counts.over_quota += 1);
        }
        Some(Err(error)) if error.kind() == ErrorKind::NotFound && removes => {}
        Some(Err(_)) | None if scene.is_dying() => {}
        Some(Err(error)) => scene.broken(format_args!("a change where little may be failed: {error}")),
        None => {}
    }
}

/// Asks what is used where little may be.
pub(crate) async fn look(scene: &Scene, quota: &ServiceRef<Quota>, dice: &mut Dice) {
    let subject = if dice.below(2) == 0 { below(TIGHT) } else { thrifty_agent() };
    let asking = quota.call(GetUsage(subject), SERVICE_MAX);
    let called = scene.call("call", QUOTA, SERVICE_MAX, asking).await;
    scene.count(|counts| counts.service_calls += 1);
    match called {
        Some(Ok(Ok(_))) => scene.count(|counts| counts.usages += 1),
        Some(Err(error)) if error.executed() == Executed::Unknown => {
            scene.count(|counts| counts.service_crashes += 1);
        }
        Some(Ok(Err(_)) | Err(_)) | None if scene.is_dying() => {}
        Some(Ok(Err(error)) | Err(error)) => {
            scene.broken(format_args!("nobody says what is used where it is limited: {error}"));
        }
        None => {}
    }
}

fn exceeds(limits: Limits, used: Usage) -> bool {
    limits.bytes.is_some_and(|limit| used.bytes > limit)
        || limits.files.is_some_and(|limit| used.files > limit)
}

/// What is at `base` and below it, by its metadata.
async fn there(nx: &Nexus, base: &str) -> nexus::Result<Usage> {
    let (mut usage, mut walk) = (Usage::default(), nx.walk(base).with_metadata());
    while let Some(entry) = walk.next().await {
        let entry = entry?;
        if entry.entry_type == EntryType::Reg {
            usage.files += 1;
            usage.bytes += entry.metadata.as_ref().map_or(0, |metadata| metadata.size);
        }
    }
    Ok(usage)
}

/// There must not be more than the small limits allow. Says what is wrong.
pub(crate) async fn exceeded(nx: &Nexus) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, limits) in [(TIGHT, tight()), (THRIFT, thrifty())] {
        match there(nx, place).await {
            Ok(usage) if exceeds(limits, usage) => {
                wrong.push(format!("{usage:?} is in {place}, where there may be {limits:?}"));
            }
            Ok(_) => {}
            Err(error) => wrong.push(format!("{place} cannot be listed: {error}")),
        }
    }
    wrong
}

/// When nobody changes anything: never is less charged than is there, a count brings them together, limits are as they were set, and the small one allows just what it says.
/// Says what is wrong.
pub(crate) async fn check(nx: &Nexus, env: &Env, has_run_time_limits: bool) -> Vec<String> {
    let mut wrong = exceeded(nx).await;
    if let Err(error) = accounts(nx, env, has_run_time_limits, &mut wrong).await {
        wrong.push(format!("quotas cannot be checked: {error}"));
    }
    wrong
}

async fn accounts(
    nx: &Nexus,
    env: &Env,
    has_run_time_limits: bool,
    wrong: &mut Vec<String>,
) -> nexus::Result<()> {
    let quota = nx.service::<Quota>(QUOTA)?;
    let homes = (0..CLIENTS).filter(|client| *client != ON_PLAIN).map(|client| (base(client), PLENTY));
    let places = homes.chain([(TIGHT.to_owned(), tight())]);
    let mut limited: Vec<_> = places.map(|(place, limits)| (below(&place), place, limits)).collect();
    if has_run_time_limits {
        limited.push((thrifty_agent(), THRIFT.to_owned(), thrifty()));
    }
    let mut charged = Vec::new();
    for (subject, ..) in &limited {
        charged.push(ask(env, &quota, GetUsage(subject.clone())).await?.used);
    }
    ask(env, &quota, Recount).await?;
    for ((subject, place, limits), charged) in limited.into_iter().zip(charged) {
        let Account { used, limits: told, .. } = ask(env, &quota, GetUsage(subject)).await?;
        let there = there(nx, &place).await?;
        if charged.bytes < there.bytes || charged.files < there.files {
            wrong.push(format!("{charged:?} is charged for {place}, where {there:?} is"));
        }
        if used != there {
            wrong.push(format!("{used:?} was counted in {place}, where {there:?} is"));
        }
        if told != limits {
            wrong.push(format!("{told:?} is said to be the limit of {place}, and {limits:?} was set"));
        }
    }
    fill(nx, wrong).await
}

/// Fills the small place up to its limit, which is allowed, and by a byte more, which is not.
async fn fill(nx: &Nexus, wrong: &mut Vec<String>) -> nexus::Result<()> {
    let edge = format!("{TIGHT}/{EDGE}");
    // A process that was killed in the middle of this has left it.
    if nx.exists(&edge).await? {
        nx.unlink(&edge).await?;
    }
    let before = there(nx, TIGHT).await?;
    let room = usize::try_from(TIGHT_BYTES.saturating_sub(before.bytes)).unwrap_or(0);
    let filled = nx.write(&edge, "x".repeat(room)).await;
    match filled {
        Ok(_) if before.files < TIGHT_FILES => {}
        Err(error) if before.files >= TIGHT_FILES && error.kind() == ErrorKind::QuotaExceeded => {
            return Ok(());
        }
        Ok(_) => wrong.push(format!("a file more than {TIGHT_FILES} came to {TIGHT}")),
        Err(error) => {
            wrong.push(format!("{room} bytes were refused beside {before:?} in {TIGHT}: {error}"));
            return Ok(());
        }
    }
    match nx.append(&edge, "x").await {
        Err(error) if error.kind() == ErrorKind::QuotaExceeded => {}
        other => wrong.push(format!("a byte more than {TIGHT_BYTES} was to come to {TIGHT}: {other:?}")),
    }
    nx.unlink(&edge).await.map(drop)
}
