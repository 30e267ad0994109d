//! `streams/`: the streams that were used since the start, by the identity of their entries; their consumer groups; and what was counted of all.

use nexus_messages::FileId;

use super::{ALL, Entry, Provider};
use crate::kernel::Kernel;
use crate::streams::LIST_MAX;

pub(super) struct Streams;

/// What was counted.
const STATISTICS: &str = "statistics";

/// The consumer groups.
const GROUPS: &str = "groups";

impl Provider for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => {
                let ids = kernel.streams().list(LIST_MAX).into_iter().map(|stream| stream.id.to_string());
                Some(Entry::directory(
                    ids.chain([ALL, STATISTICS, GROUPS].map(Into::into)).map(|name| (name, false)),
                ))
            }
            [ALL] => Some(Entry::json(&kernel.streams().list(LIST_MAX))),
            [STATISTICS] => Some(Entry::json(&kernel.streams().statistics())),
            [GROUPS] => Some(Entry::json(&kernel.streams().groups(LIST_MAX))),
            [id] => kernel.streams().entry(FileId(id.parse().ok()?)).map(|stream| Entry::json(&stream)),
            _ => None,
        }
    }
}
