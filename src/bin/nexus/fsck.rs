//! `fsck`: looks at all that is stored, and tells what is wrong.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nexus::{Check, CheckState};

use crate::args::FsckArgs;
use crate::failure::{Failure, Outcome};
use crate::output::one_line;
use crate::session::Session;
use crate::sys;

/// How often the check is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn fsck(session: &Session, args: FsckArgs) -> Outcome {
    let before = sys::checks(session).await?.latest.map_or(0, |latest| latest.number);
    sys::check(session, args.repair).await?;
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

/// The first check after `before`, once it is over.
async fn over(session: &Session, before: u64, bar: &ProgressBar) -> Outcome<Check> {
    loop {
        if let Some(latest) = sys::checks(session).await?.latest.filter(|latest| latest.number > before) {
            if latest.is_over() {
                return Ok(latest);
            }
            bar.set_message(step(&latest));
            bar.tick();
        }
        session.env().sleep(LOOK_EVERY).await;
    }
}

fn step(now: &Check) -> String {
    let read = || format!("{} so far", HumanBytes(now.bytes));
    match now.state {
        CheckState::Names => "matching names with metadata".into(),
        CheckState::Contents => format!("reading content of {} files, {}", HumanCount(now.files), read()),
        CheckState::Versions => format!("reading {} versions, {}", HumanCount(now.versions), read()),
        CheckState::Log => "reading the logs".into(),
        CheckState::Garbage => "counting what nothing names".into(),
        _ => "looking again at what looked wrong".into(),
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
