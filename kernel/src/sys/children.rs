//! `children/`: the child processes that run, the last that ended, and what was counted of all.

use futures_util::future::BoxFuture;
use nexus_messages::syscall::SysWrite;
use nexus_messages::{ChildId, ChildSignal, ErrorKind, Result};

use super::{ALL, Change, Entry, Provider};
use crate::kernel::Kernel;

pub(super) struct Children;

/// What was counted.
const STATISTICS: &str = "statistics";

impl Provider for Children {
    fn name(&self) -> &'static str {
        "children"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => {
                let ids = kernel.children().into_iter().map(|child| child.id.to_string());
                Some(Entry::directory(ids.chain([ALL, STATISTICS].map(Into::into)).map(|name| (name, false))))
            }
            [ALL] => Some(Entry::json(&kernel.children())),
            [STATISTICS] => Some(Entry::json(&kernel.children_table().statistics())),
            [id] => kernel.children_table().entry(id.parse().ok()?).map(|child| Entry::json(&child)),
            _ => None,
        }
    }

    fn is_writable(&self, at: &[&str]) -> bool {
        matches!(at, [id] if id.parse::<ChildId>().is_ok())
    }

    fn write<'a>(&'a self, change: Change<'a>, call: &'a SysWrite) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(signal(&change, call)))
    }
}

/// Sends the signal that is written.
fn signal(change: &Change<'_>, call: &SysWrite) -> Result<()> {
    let invalid = |why: &dyn std::fmt::Display| change.fail(ErrorKind::InvalidArgument).because(why);
    let [id] = change.at[..] else { return Err(change.fail(ErrorKind::NotFound)) };
    let id: ChildId = id.parse().map_err(|why| invalid(&why))?;
    let word = call.data.concat();
    let word = std::str::from_utf8(&word).map_err(|why| invalid(&why))?;
    let signal: ChildSignal = word.trim().parse().map_err(|why| invalid(&why))?;
    match change.kernel.signal_child(&change.intent.caller, id, signal)? {
        true => Ok(()),
        false => Err(change.fail(ErrorKind::NotFound).because("it has ended")),
    }
}
