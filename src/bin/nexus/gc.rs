//! `gc`: takes away what nothing names any more, and tells how much that was.

use indicatif::HumanBytes;
use nexus::sys::CollectOrder;
use nexus::{Collection, CollectionState, Freed};

use crate::args::GcArgs;
use crate::failure::{Failure, Outcome};
use crate::pass::{Pass, until_over};
use crate::session::Session;
use crate::sys;

pub(crate) async fn gc(session: &Session, args: GcArgs) -> Outcome {
    let before = sys::garbage(session).await?.latest.map_or(0, |latest| latest.number);
    let grace_ms = args.grace.map(|seconds| seconds.saturating_mul(1_000));
    sys::collect(session, CollectOrder { dry_run: args.dry_run, grace_ms }).await?;
    let latest = async || Ok(sys::garbage(session).await?.latest);
    let done = until_over(session, before, latest).await?;
    if let CollectionState::Failed { cause } = &done.state {
        if session.out.is_json() {
            session.out.json(&done)?;
        }
        return Err(Failure::claim_at("gc", &session.data, cause));
    }
    session.out.either(&done, told(&done))?;
    for mount in &done.left_out {
        session.out.warn(format_args!("gc: {mount}: its store is not open, and was left out"));
    }
    for failed in &done.failed {
        session.each(Err(Failure::claim("gc", format_args!("{failed}; its store was left out"))))?;
    }
    for odd in &done.left_alone {
        session.out.warn(format_args!("gc: {odd}; it stays, and fsck tells what is damaged"));
    }
    Ok(())
}

impl Pass for Collection {
    fn number(&self) -> u64 {
        self.number
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn step(&self) -> String {
        match self.state {
            CollectionState::Rows => "removing rows of mounts that are gone".into(),
            CollectionState::Marking => format!("marking what is reachable, {} so far", self.reachable),
            CollectionState::Sweeping => format!("sweeping, {} objects so far", self.freed.objects),
            _ => "giving back space".into(),
        }
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
