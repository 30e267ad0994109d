//! `watch`: changes as they happen, and those that were.

use nexus::{Event, EventKind, EventMask, Lsn, Op, WatchItem};
use serde_json::{Value, json};

use crate::args::WatchArgs;
use crate::failure::{Outcome, Status};
use crate::output::one_line;
use crate::session::{Session, path};
use crate::signals::{ENDING, Signals};

pub(crate) async fn watch(session: &Session, args: WatchArgs) -> Outcome {
    let mut watch = match args.glob {
        true => session.nx.watch_glob(&args.path),
        false => session.nx.watch(path(Op::Watch, &args.path)?),
    };
    if args.alone {
        watch = watch.alone();
    }
    if !args.mask.is_empty() {
        watch = watch.mask(args.mask.iter().fold(EventMask::NONE, |mask, kind| mask | *kind));
    }
    if let Some(since) = args.since {
        watch = watch.since(Lsn(since));
    }
    let mut events = watch.stream().await?;
    let env = session.nx.env().clone();
    let began = env.now();
    let (mut left, mut last, mut done) = (args.count, None, Ok(()));
    let mut signals = Signals::listen(&env, "watch", ENDING).await?;
    // Who goes on from the cursor hears all of a commit again of which it was told a part.
    while left != Some(0) || last.is_some_and(|last| events.cursor() < last) {
        let next = async {
            match args.wait {
                // No deadline: one may wait for longer than there are times.
                Some(wait) => {
                    let waited = env.now().saturating_duration_since(began);
                    events.next_for(wait.saturating_sub(waited)).await
                }
                None => events.next().await,
            }
        };
        let Some(item) = signals.unless_one(&session.out, next).await? else {
            left = None;
            break;
        };
        match item {
            Some(Ok(WatchItem::Event(event))) => {
                left = left.map(|left| left.saturating_sub(1));
                // What is in no log is of no commit.
                last = event.kind.is_logged().then_some(event.lsn).or(last);
                session.out.either(&object(&event), line(&event))?;
                // Who reads is to see it now.
                session.out.flush()?;
            }
            Some(Ok(WatchItem::Overflow(from))) if session.out.is_json() => {
                session.out.json(&json!({ "overflow": from.0 }))?;
            }
            Some(Ok(WatchItem::Overflow(from))) => {
                session.out.warn(format_args!(
                    "watch {}: what is in no log may be missing from here on; the rest comes from the log, as with --since {from}",
                    args.path
                ));
            }
            // What was told, was told: another watch goes on from there.
            Some(Err(error)) => {
                (left, done) = (None, Err(error.into()));
                break;
            }
            // The time is over.
            None => break,
        }
    }
    // A place that nothing can be told from is none to go on from.
    if session.out.is_json() && (done.is_ok() || last.is_some()) {
        session.out.json(&json!({ "next": events.cursor().0 }))?;
    }
    if left.is_some_and(|left| left > 0) {
        session.out.ends_with(Status::Failed);
    }
    done
}

/// An event as a line: place in the log, time, kind, agent, path, and the other path.
fn line(event: &Event) -> String {
    let mut line = format!("{} {} {} {}", event.lsn, event.at, event.kind, event.caller.agent);
    line.push(' ');
    line.push_str(&one_line(event.path.as_str()));
    if let Some(other) = &event.other {
        line.push_str(if event.kind == EventKind::Renamed { " -> " } else { " <- " });
        line.push_str(&one_line(other.as_str()));
    }
    line
}

fn object(event: &Event) -> Value {
    json!({
        "lsn": event.lsn.0,
        "kind": event.kind.name(),
        "path": event.path,
        "other": event.other,
        "type": event.entry_type.to_string(),
        "size": event.size,
        "content_id": event.content_id.as_ref().map(ToString::to_string),
        "version": event.version,
        "generation": event.generation,
        "is_new": event.is_new,
        "agent": event.caller.agent,
        "user": event.caller.user,
        "zone": event.caller.zone,
        "op": event.op_id.to_string(),
        "at": event.at.to_string(),
        "lock": event.lock,
    })
}
