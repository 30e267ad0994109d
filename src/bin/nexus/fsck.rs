//! `fsck`: looks at all that is stored, and tells what is wrong.

use std::path::Path;

use indicatif::{HumanBytes, HumanCount};
use nexus::hal::{LogRecord, TreeId};
use nexus::offline::{self, GiveUpAfter, LogDamage, StreamsDamage, StreamsPlace};
use nexus::{Check, CheckState, Error, Lsn};
use serde_json::{Value, json};

use crate::args::FsckArgs;
use crate::failure::{Failure, Outcome};
use crate::output::{Output, one_line};
use crate::pass::{Pass, until_over};
use crate::session::Session;
use crate::sys;
use crate::when::When;

pub(crate) async fn fsck(session: &Session, args: FsckArgs) -> Outcome {
    if args.give_up_after.is_some() || args.give_up_streams_after.is_some() {
        let why =
            "fsck: --give-up-after is for a data folder that cannot be opened, and this kernel has it open";
        return Err(Failure::Usage(why.into()));
    }
    let before = sys::checks(session).await?.latest.map_or(0, |latest| latest.number);
    sys::check(session, args.repair).await?;
    let latest = async || Ok(sys::checks(session).await?.latest);
    let done = until_over(session, before, latest).await?;
    if session.out.is_json() {
        session.out.json(&done)?;
    } else {
        for finding in &done.findings {
            session.out.line(one_line(&finding.to_string()))?;
        }
        session.out.line(told(&done))?;
    }
    for why in &done.left_out {
        session.out.warn(format_args!("fsck: left out: {}", one_line(why)));
    }
    match (&done.state, done.left()) {
        (CheckState::Failed { cause }, _) => Err(Failure::claim("fsck", cause)),
        (_, 0) => Ok(()),
        (_, 1) => Err(Failure::claim("fsck", "1 thing is wrong and left so")),
        (_, left) => Err(Failure::claim("fsck", format_args!("{left} things are wrong and left so"))),
    }
}

/// Tells what is damaged in the log of a folder that was `refused` to be opened; that it was, when it is not for that.
pub(crate) fn damaged(out: &Output, data: &Path, refused: Error) -> Outcome {
    // That somebody has it open, or that it is none, says more of it than we could.
    let Ok(Some(damage)) = offline::damage(data) else { return damaged_streams(out, data, refused) };
    let after = GiveUpAfter::of(&damage);
    if out.is_json() {
        out.json(&told_of(&damage, None))?;
    } else {
        tell_damage(out, &damage)?;
        out.line(format_args!(
            "nothing was changed; to give that up: fsck --repair --give-up-after {after}"
        ))?;
    }
    Err(Failure::claim("fsck", "the log is damaged, and the folder cannot be opened"))
}

/// As [`damaged`], of the streams' log.
fn damaged_streams(out: &Output, data: &Path, refused: Error) -> Outcome {
    let Ok(Some(damage)) = offline::streams_damage(data) else { return Err(refused.into()) };
    if out.is_json() {
        out.json(&told_of_streams(&damage, None))?;
    } else {
        damage.to_string().lines().try_for_each(|line| out.line(one_line(line)))?;
        out.line(format_args!(
            "nothing was changed; to give that up: fsck --repair --give-up-streams-after {}",
            damage.place
        ))?;
    }
    Err(Failure::claim("fsck", "the streams' log is damaged, and the folder cannot be opened"))
}

/// Cuts the damaged streams' log of a folder that nobody has open.
pub(crate) fn give_up_streams(out: &Output, data: &Path, place: StreamsPlace) -> Outcome {
    let cut = offline::repair_streams(data, place)?;
    if out.is_json() {
        return out.json(&told_of_streams(&cut.damage, Some(&cut.aside)));
    }
    cut.damage.to_string().lines().try_for_each(|line| out.line(one_line(line)))?;
    for name in &cut.aside {
        out.line(format_args!("set aside: streams/{name}"))?;
    }
    out.line(format_args!("all after {place} was given up"))
}

fn told_of_streams(damage: &StreamsDamage, aside: Option<&[String]>) -> Value {
    let kept: Vec<Value> =
        damage.kept.iter().map(|(stream, next)| json!({ "stream": stream.0, "next": next })).collect();
    let lost: Vec<Value> = damage
        .lost
        .streams
        .iter()
        .map(|(stream, (first, last))| json!({ "stream": stream.0, "first": first, "last": last }))
        .collect();
    json!({
        "damaged": true,
        "repaired": aside.is_some(),
        "segment": damage.segment,
        "offset": damage.place.offset,
        "proof": damage.proof,
        "kept": kept,
        "give_up_streams_after": damage.place.to_string(),
        "lost": { "records": damage.lost.records, "bytes": damage.lost.bytes, "streams": lost },
        "aside": aside,
    })
}

/// Cuts the damaged log of a folder that nobody has open.
pub(crate) fn give_up(out: &Output, data: &Path, after: &GiveUpAfter) -> Outcome {
    let cut = offline::repair(data, after)?;
    if out.is_json() {
        return out.json(&told_of(&cut.damage, Some(&cut.aside)));
    }
    tell_damage(out, &cut.damage)?;
    for name in &cut.aside {
        out.line(format_args!("set aside: wal/{name}"))?;
    }
    out.line(format_args!("all after {after} was given up"))
}

fn tell_damage(out: &Output, damage: &LogDamage) -> Outcome {
    damage.to_string().lines().try_for_each(|line| out.line(one_line(line)))
}

/// What was damaged, and what was set aside when it was cut off.
fn told_of(damage: &LogDamage, aside: Option<&[String]>) -> Value {
    let lost = &damage.lost;
    let listed = |(TreeId(tree), record): &(TreeId, LogRecord)| {
        json!({
            "tree": tree, "lsn": record.lsn.0, "op": record.op.name(), "path": record.path, "to": record.other,
            "by": record.caller, "at": When(record.at),
        })
    };
    let places = |(TreeId(tree), (Lsn(first), Lsn(last))): (&TreeId, &(Lsn, Lsn))| json!({ "tree": tree, "first": first, "last": last });
    json!({
        "damaged": true,
        "repaired": aside.is_some(),
        "segment": damage.segment,
        "offset": damage.offset,
        "frame": damage.frame,
        "proof": damage.proof,
        "kept": damage.kept.iter().map(|(tree, lsn)| json!({ "tree": tree.0, "lsn": lsn.0 })).collect::<Vec<_>>(),
        "give_up_after": GiveUpAfter::of(damage).to_string(),
        "lost": {
            "through": lost.through,
            "unreadable": lost.unreadable,
            "operations": lost.operations,
            "bytes": lost.bytes,
            "places": lost.places.iter().map(places).collect::<Vec<_>>(),
            "listed": lost.listed.iter().map(listed).collect::<Vec<_>>(),
        },
        "aside": aside,
    })
}

impl Pass for Check {
    fn number(&self) -> u64 {
        self.number
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn step(&self) -> String {
        let read = || format!("{} so far", HumanBytes(self.bytes));
        match self.state {
            CheckState::Names => "matching names with metadata".into(),
            CheckState::Contents => {
                format!("reading content of {} files, {}", HumanCount(self.files), read())
            }
            CheckState::Versions => format!("reading {} versions, {}", HumanCount(self.versions), read()),
            CheckState::Log => "reading the logs".into(),
            CheckState::Garbage => "counting what nothing names".into(),
            _ => "looking again at what looked wrong".into(),
        }
    }
}

fn told(done: &Check) -> String {
    let mut text = format!(
        "{} entries, {} names, {} files, {} versions, {} blobs of {} bytes, {} log records: ",
        done.entries, done.names, done.files, done.versions, done.blobs, done.bytes, done.records
    );
    let found = done.findings.len() as u64 + done.untold;
    text += &match (found, done.left()) {
        (0, _) => "all is well".into(),
        (found, left) => format!("{found} wrong, {} repaired, {left} left", found - left),
    };
    if let Some(garbage) = done.garbage.filter(|garbage| garbage.objects > 0) {
        text += &format!(
            "; {} objects of {} bytes are named by nothing, and go with gc",
            garbage.objects, garbage.bytes
        );
    }
    text
}
