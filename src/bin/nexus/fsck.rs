//! `fsck`: looks at all that is stored, and tells what is wrong.

use indicatif::{HumanBytes, HumanCount};
use nexus::{Check, CheckState};

use crate::args::FsckArgs;
use crate::failure::{Failure, Outcome};
use crate::output::one_line;
use crate::pass::{Pass, until_over};
use crate::session::Session;
use crate::sys;

pub(crate) async fn fsck(session: &Session, args: FsckArgs) -> Outcome {
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
