//! `kill`: hurts an actor, and tells what becomes of it.

use std::time::Duration;

use nexus::sys::ActorEntry;
use nexus::{ActorState, Kill, Op};
use serde_json::json;

use crate::args::KillArgs;
use crate::failure::{Failure, Outcome};
use crate::output::one_line;
use crate::session::Session;
use crate::sys;

/// How long the actor may take to be back: longer than a watchdog waits for one that is wedged.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(crate) async fn kill(session: &Session, args: KillArgs) -> Outcome {
    let actor = args.actor.trim_matches('/');
    let words = args.handling.map_or_else(|| args.how.clone(), |when| format!("{} {when}", args.how));
    let how: Kill = words.parse().map_err(|error| Failure::Usage(format!("kill: {error}")))?;
    let before = sys::actor(session, actor).await.map_err(|failure| failure.during(Op::Kill))?;
    let begun = session.env().now();
    sys::kill(session, actor, how).await?;
    if matches!(how, Kill::Handling(..)) {
        let armed = json!({ "actor": actor, "how": words, "armed": true });
        return session.out.either(&armed, format_args!("{actor}: armed with {how} its next message"));
    }
    let back = session.env().timeout(BACK_WITHIN, back(session, actor, &before)).await;
    let Ok(after) = back else {
        return Err(Failure::claim("kill", format!("{actor}: not running again after {BACK_WITHIN:?}")));
    };
    let after = after?;
    let took = session.env().now() - begun;
    let exit = after.last_exit.as_ref().map_or_else(|| "ended".into(), |exit| one_line(&exit.told));
    session.out.either(
        &json!({
            "actor": actor,
            "how": words,
            "last_exit": after.last_exit,
            "generation": after.generation,
            "back_after_seconds": took.as_secs_f64(),
        }),
        format_args!("{actor}: {exit}; running again as generation {} after {took:.1?}", after.generation),
    )
}

/// The actor, once it was restarted and serves.
async fn back(session: &Session, actor: &str, before: &ActorEntry) -> Outcome<ActorEntry> {
    loop {
        let now = sys::actor(session, actor).await?;
        if now.generation > before.generation && now.state == ActorState::Running {
            return Ok(now);
        }
        session.env().sleep(LOOK_EVERY).await;
    }
}
