//! The audit log of the run: asked while everything is killed, verified again and again, and held against what clients were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nexus::actors::Handle;
use nexus::service::{Service, ServiceRef};
use nexus::services::audit::{Audit, AuditConfig, CaughtUp, Entry, Query, Verify};
use nexus::{Env, Error, ErrorKind, Executed, Lsn, Message, Nexus, OpId, VPath, ZoneId};

use crate::clients::SERVICE_MAX;
use crate::model::{AUDITED, Ledger};
use crate::scene::{MOMENT, Scene};

pub(crate) const AUDIT: &str = "audit";

/// How large a segment grows, by one version and by the other.
const SEGMENT_BYTES: [u64; 2] = [4 * 1_024, 16 * 1_024];

/// The time between two verifications of the whole log beside the clients.
const VERIFY_EVERY: Duration = Duration::from_millis(400);

/// How long a service is asked for its answer when nobody calls. Faults that wait for a message strike those who ask.
const ASKED_MAX: Duration = Duration::from_secs(90);

/// How far the kernel's log of each zone is.
const POSITIONS: &str = "/__sys__/store/log";

/// What the version of this number is configured with.
pub(crate) fn config(number: u64) -> AuditConfig {
    let [one, other] = SEGMENT_BYTES;
    let segment_bytes = if number.is_multiple_of(2) { one } else { other };
    AuditConfig { directory: directory(), segment_bytes, ..AuditConfig::default() }
}

fn directory() -> VPath {
    AUDITED.parse().unwrap_or_else(|_| VPath::root())
}

/// Asks a service until it answers: what strikes it meanwhile strikes the question.
///
/// # Errors
/// What it says after a long time.
pub(crate) async fn ask<S, M, T>(env: &Env, service: &ServiceRef<S>, message: M) -> nexus::Result<T>
where
    S: Service + Handle<M>,
    M: Message<Reply = nexus::Result<T>> + Clone,
{
    let began = env.now();
    loop {
        let answer = service.call(message.clone(), SERVICE_MAX).await.and_then(|answer| answer);
        if answer.is_ok() || env.now().saturating_duration_since(began) > ASKED_MAX {
            return answer;
        }
        env.sleep(MOMENT).await;
    }
}

/// Asks for the log to come to a change that was acknowledged.
pub(crate) async fn catch_up(scene: &Scene, audit: &ServiceRef<Audit>, lsn: Lsn) {
    let asking = audit.call(CaughtUp::root(lsn), SERVICE_MAX);
    let called = scene.call("call", AUDIT, SERVICE_MAX, asking).await;
    scene.count(|counts| counts.service_calls += 1);
    match called {
        Some(Ok(Ok(through))) if through >= lsn => scene.count(|counts| counts.audited += 1),
        Some(Ok(Ok(through))) => {
            scene.broken(format_args!("the audit log is said to have {lsn}, and is at {through}"));
        }
        Some(Ok(Err(error))) if is_of_a_fault(&error) => {}
        Some(Err(error)) if error.executed() == Executed::Unknown => {
            scene.count(|counts| counts.service_crashes += 1);
        }
        Some(Ok(Err(_)) | Err(_)) | None if scene.is_dying() => {}
        Some(Ok(Err(error))) => scene.broken(format_args!("the audit log does not know {lsn}: {error}")),
        Some(Err(error)) => scene.broken(format_args!("a call of the audit log failed: {error}")),
        None => {}
    }
}

/// Whether it says that something was killed which the log needs, rather than that the log is wrong.
fn is_of_a_fault(error: &Error) -> bool {
    let of_the_log = matches!(
        error.kind(),
        ErrorKind::InvalidArgument | ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::PermissionDenied
    );
    !of_the_log
}

/// Has the whole log verified, over and over, while it grows and is killed.
pub(crate) async fn verify_always(scene: Arc<Scene>) {
    let Ok(audit) = scene.nx.service::<Audit>(AUDIT) else {
        return scene.broken("the administrator is given no service");
    };
    loop {
        let pause = VERIFY_EVERY.min(scene.setting.quiet_every);
        if !scene.until(scene.age() + pause).await {
            return;
        }
        if scene.is_dying() {
            continue;
        }
        match audit.call(Verify::root(), ASKED_MAX).await {
            Ok(Ok(verified)) => {
                scene.count(|counts| counts.verified += 1);
                if let Some(wrong) = wrong_in(&verified) {
                    scene.broken(wrong);
                }
            }
            Ok(Err(error)) if is_of_a_fault(&error) => {}
            Err(error) if error.executed() == Executed::Unknown => {}
            Ok(Err(_)) | Err(_) if scene.is_dying() => {}
            Ok(Err(error)) | Err(error) => {
                scene.broken(format_args!("the audit log cannot be verified: {error}"));
            }
        }
    }
}

fn wrong_in(verified: &nexus::services::audit::Verified) -> Option<String> {
    if let Some(broken) = &verified.broken {
        return Some(format!("the audit log is broken: {broken}"));
    }
    (verified.missing > 0)
        .then(|| format!("the audit log lacks {} changes: {:?}", verified.missing, verified.gaps))
}

/// Waits until everything is in the log, and holds it against what clients were told of their changes: each acknowledged one is there, once; none is that was not
/// made; and nothing is there twice. Says what is wrong.
pub(crate) async fn check(nx: &Nexus, env: &Env, ledger: &Ledger) -> Vec<String> {
    match read_all(nx, env).await {
        Ok((told, mut wrong)) => {
            wrong.extend(ledger.disagrees(&told));
            wrong
        }
        Err(error) => vec![format!("the audit log cannot be read: {error}")],
    }
}

/// How often the log tells of each operation, and what is wrong with it by itself.
async fn read_all(nx: &Nexus, env: &Env) -> nexus::Result<(BTreeMap<OpId, u64>, Vec<String>)> {
    let audit = nx.service::<Audit>(AUDIT)?;
    ask(env, &audit, CaughtUp::root(last(nx).await?)).await?;
    let mut wrong = Vec::new();
    wrong.extend(wrong_in(&ask(env, &audit, Verify::root()).await?));
    let (mut told, mut before) = (BTreeMap::new(), Lsn(0));
    let mut query = Query::root();
    loop {
        let page = ask(env, &audit, query.clone()).await?;
        for record in page.records {
            let Entry::Change { lsn, op_id, .. } = record.entry else { continue };
            if lsn <= before {
                wrong.push(format!("the audit log tells {lsn} behind {before}"));
            }
            before = lsn;
            *told.entry(op_id).or_insert(0) += 1;
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok((told, wrong)),
        }
    }
}

/// The place of the last commit of the root zone.
async fn last(nx: &Nexus) -> nexus::Result<Lsn> {
    let positions: BTreeMap<ZoneId, u64> = crate::cleaning::shown(nx, POSITIONS).await?;
    Ok(Lsn(positions.get(&ZoneId::root()).copied().unwrap_or(0)))
}
