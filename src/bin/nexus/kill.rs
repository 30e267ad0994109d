//! `kill`: hurts an actor, and tells what becomes of it.

use std::time::Duration;

use nexus::sys::ActorEntry;
use nexus::{ActorState, ErrorKind, Kill, Op};
use serde_json::{Value, json};

use crate::args::KillArgs;
use crate::failure::{Failure, Outcome};
use crate::output::one_line;
use crate::session::Session;
use crate::{services, sys};

/// How long the actor may take to be back: longer than a watchdog waits for one that is wedged.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// How long an actor is missing that ended for good.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(crate) async fn kill(session: &Session, args: KillArgs) -> Outcome {
    let actor = args.actor.trim_matches('/');
    let words = args.handling.map_or_else(|| args.how.clone(), |when| format!("{} {when}", args.how));
    let how: Kill = words.parse().map_err(|error| Failure::Usage(format!("kill: {error}")))?;
    let before = sys::actor(session, actor).await.map_err(|failure| failure.during(Op::Kill))?;
    let service = service_of(session, actor).await?;
    let begun = session.env().now();
    match sys::kill(session, actor, how).await {
        // The answer goes with the kernel, and so does it when it is the root.
        Err(failure) if is_root(actor) && is_end(&failure) => {}
        told => told?,
    }
    if matches!(how, Kill::Handling(..)) {
        let armed = json!({ "actor": actor, "how": words, "armed": true });
        return session.out.either(&armed, format_args!("{actor}: armed with {how} its next message"));
    }
    let became =
        session.env().timeout(BACK_WITHIN, became(session, actor, &before, service.as_deref())).await;
    let Ok(became) = became else {
        return Err(Failure::claim("kill", format!("{actor}: not running again after {BACK_WITHIN:?}")));
    };
    let became = became?;
    let took = session.env().now() - begun;
    let mut report = json!({ "actor": actor, "how": words, "outcome": became.name() });
    let says = match became {
        Became::Restarted(after) => {
            report["last_exit"] = json!(after.last_exit);
            report["generation"] = json!(after.generation);
            report["back_after_seconds"] = json!(took.as_secs_f64());
            let exit = after.last_exit.as_ref().map_or_else(|| "ended".into(), |exit| one_line(&exit.told));
            format!("{actor}: {exit}; running again as generation {} after {took:.1?}", after.generation)
        }
        Became::SwappedBack(serves) => {
            let version = serves["version"].as_str().unwrap_or("-");
            let says = format!("{actor}: ended, and version {version} #{} serves", serves["number"]);
            report["serves"] = serves;
            says
        }
        Became::Gone => format!("{actor}: ended, and is not started again"),
        Became::KernelEnded => format!("{actor}: gone with its kernel"),
    };
    session.out.either(&report, says)
}

/// What became of an actor that was killed.
enum Became {
    /// It was restarted, and serves.
    Restarted(Box<ActorEntry>),
    /// It was a version of a service on probation, and this one serves in its place.
    SwappedBack(Value),
    /// It ended for good.
    Gone,
    /// The kernel ended with it.
    KernelEnded,
}

impl Became {
    /// For programs.
    fn name(&self) -> &'static str {
        match self {
            Self::Restarted(_) => "restarted",
            Self::SwappedBack(_) => "swapped_back",
            Self::Gone => "gone",
            Self::KernelEnded => "kernel_ended",
        }
    }
}

/// Waits for what becomes of the actor, which was killed.
async fn became(
    session: &Session,
    actor: &str,
    before: &ActorEntry,
    service: Option<&str>,
) -> Outcome<Became> {
    let mut missing_since = None;
    loop {
        let is_there = match sys::actor(session, actor).await {
            Ok(now) if now.generation > before.generation && now.state == ActorState::Running => {
                return Ok(Became::Restarted(Box::new(now)));
            }
            Ok(_) => true,
            Err(failure) if is_end(&failure) => {
                session.nx.ended().await.map_or_else(|_| (), drop);
                return Ok(Became::KernelEnded);
            }
            Err(failure) if failure.is(ErrorKind::NotFound) => false,
            Err(failure) => return Err(failure),
        };
        if let Some(service) = service {
            let now = services::status(session, service).await?;
            if now["path"].as_str().is_some_and(|path| !is_below(actor, path)) {
                return Ok(Became::SwappedBack(now["serving"].clone()));
            }
        }
        // One whose supervisor is being restarted comes with it.
        let since = *missing_since.get_or_insert(session.env().now());
        if is_there {
            missing_since = None;
        } else if session.env().now() - since > GONE_AFTER {
            return Ok(Became::Gone);
        }
        session.env().sleep(LOOK_EVERY).await;
    }
}

/// The service whose version that serves the actor is, or is a part of.
async fn service_of(session: &Session, actor: &str) -> Outcome<Option<String>> {
    let is_its = |service: &Value| service["path"].as_str().is_some_and(|path| is_below(actor, path));
    let all = services::statuses(session).await.map_err(|failure| failure.during(Op::Kill))?;
    let service = all.as_array().into_iter().flatten().find(|service| is_its(service));
    Ok(service.and_then(|service| service["name"].as_str()).map(str::to_owned))
}

/// Whether the actor is the one at `path`, or below it.
fn is_below(actor: &str, path: &str) -> bool {
    actor.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_root(actor: &str) -> bool {
    !actor.contains('/')
}

/// Whether there is no kernel any more that could say something else.
fn is_end(failure: &Failure) -> bool {
    failure.is(ErrorKind::Down)
}
