//! `gc`: takes away what nothing names any more, and tells how much that was.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nexus::sys::CollectOrder;
use nexus::{Collection, CollectionState, Freed};

use crate::args::GcArgs;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::sys;

/// How often the collection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn gc(session: &Session, args: GcArgs) -> Outcome {
    let before = sys::garbage(session).await?.latest.map_or(0, |latest| latest.number);
    let grace_ms = args.grace.map(|seconds| seconds.saturating_mul(1_000));
    sys::collect(session, CollectOrder { dry_run: args.dry_run, grace_ms }).await?;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        session.out.set_bar(Some(bar.clone()));
    }
    let done = over(session, before, &bar).await;
    bar.finish_and_clear();
    session.out.set_bar(None);
    let done = done?;
    if let CollectionState::Failed { cause } = &done.state {
        if session.out.is_json() {
            session.out.json(&done)?;
        }
        return Err(Failure::claim("gc", cause));
    }
    session.out.either(&done, told(&done))?;
    for mount in &done.left_out {
        session.out.warn(format_args!("gc: {mount}: its store is not open, and was left out"));
    }
    Ok(())
}

/// The first collection after `before`, once it is over.
async fn over(session: &Session, before: u64, bar: &ProgressBar) -> Outcome<Collection> {
    loop {
        if let Some(latest) = sys::garbage(session).await?.latest.filter(|latest| latest.number > before) {
            if latest.is_over() {
                return Ok(latest);
            }
            bar.set_message(step(&latest));
            bar.tick();
        }
        session.env().sleep(LOOK_EVERY).await;
    }
}

fn step(now: &Collection) -> String {
    match now.state {
        CollectionState::Rows => "removing rows of mounts that are gone".into(),
        CollectionState::Marking => format!("marking what is reachable, {} so far", now.reachable),
        CollectionState::Sweeping => format!("sweeping, {} objects so far", now.freed.objects),
        _ => "giving back space".into(),
    }
}

fn told(done: &Collection) -> String {
    let some = |freed: &Freed| format!("{} objects, {} bytes", freed.objects, freed.bytes);
    let mut text = format!("{} {}", if done.dry_run { "would free" } else { "freed" }, some(&done.freed));
    if done.rows > 0 {
        text += &format!(", {} rows of mounts that are gone", done.rows);
    }
    text += &format!("; {} are reachable", done.reachable);
    for (kept, why) in [
        (&done.kept_by_grace, "not unreachable for long enough"),
        (&done.kept_by_pins, "still held by calls"),
    ] {
        if kept.objects > 0 {
            text += &format!("; {} are {why}", some(kept));
        }
    }
    if done.reclaimed_bytes > 0 {
        text += &format!("; {} given back on disk", HumanBytes(done.reclaimed_bytes));
    }
    text
}
