//! The oracle: hears what clients were told, and holds a fresh kernel on the same folder against it.

use std::collections::BTreeMap;

use nexus::{EntryType, Env, Nexus};

use crate::locks::kept::{self, Kept};
use crate::model::{AUDITED, BAD, CLIENTS, Ledger, Mark, PLAIN, SCRATCH, THRIFT, TIGHT, base};
use crate::record::Record;
use crate::{auditing, cleaning, limits, locks, pipes, streams, watches};

/// What is in no home and may be there.
const OTHERS: [&str; 12] = [
    "/__sys__",
    AUDITED,
    BAD,
    SCRATCH,
    THRIFT,
    TIGHT,
    PLAIN,
    locks::GUARDED,
    locks::KEPT,
    pipes::PIPES,
    streams::STREAMS,
    watches::BURST_AT,
];

impl Ledger {
    /// Takes note of what a client did or was told.
    pub(crate) fn hear(&mut self, record: &Record) {
        match record {
            Record::Begun { client, change, op_id } => self.begun(*client, *change, *op_id),
            Record::Ended { client, op_id, became, lsn } => {
                self.ended(*client, *op_id, *became);
                self.lsns.extend(lsn.map(|lsn| (*op_id, lsn)));
            }
            Record::Kept { locker, kept } => {
                if let Kept::Held { token, .. } = kept {
                    self.token = self.token.max(*token);
                }
                self.kept[*locker] = *kept;
            }
            Record::Token { newest } => self.token = self.token.max(*newest),
            Record::Appending { begun } => self.stream.begun(*begun),
            Record::Appended { appender, became } => self.stream.ended(*appender, *became),
            Record::Watching { from } => self.live.begin(*from),
            Record::Watched { watcher, events, cursor } => match self.watches.get_mut(*watcher) {
                Some(watching) => watching.hear(events, *cursor),
                None => self.live.hear(events, *cursor),
            },
            _ => {}
        }
    }
}

/// Holds all that is there against what may be, and the audit log, the quotas and what a check finds against both; says what is wrong. What was unknown is known from then on.
pub(crate) async fn verify(
    nx: &Nexus,
    env: &Env,
    ledger: &mut Ledger,
    has_run_time_limits: bool,
) -> Vec<String> {
    let mut wrong = limits::check(nx, env, has_run_time_limits).await;
    // First: what was under way when the kernel ended is known then, and the logs must say the same.
    wrong.extend(settle(nx, ledger).await);
    wrong.extend(auditing::check(nx, env, ledger).await);
    wrong.extend(cleaning::check(nx, env).await);
    wrong.extend(kept::check(nx, env, &ledger.kept));
    wrong.extend(streams::check_durable(nx, &mut ledger.stream).await);
    wrong.extend(watches::check(nx, ledger).await);
    wrong
}

/// Reads all that is there, and holds it against what may be.
async fn settle(nx: &Nexus, ledger: &mut Ledger) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found: Vec<BTreeMap<String, Option<Mark>>> = vec![BTreeMap::new(); CLIENTS];
    let mut walk = nx.walk("/");
    while let Some(entry) = walk.next().await {
        let entry = match entry {
            Ok(entry) => entry,
            // The driver that fails at will may do so here, too.
            Err(error) if error.path().is_some_and(|path| is_in(path, BAD)) => continue,
            Err(error) => {
                wrong.push(format!("a listing failed: {error}"));
                break;
            }
        };
        let path = entry.path.as_str();
        let Some(client) = (0..CLIENTS).find(|client| is_in(path, &base(*client))) else {
            let is_known = path == PLAIN || OTHERS.iter().any(|other| *other != PLAIN && is_in(path, other));
            if !is_known {
                wrong.push(format!("{path} is there, and nobody made it"));
            }
            continue;
        };
        let mark = match entry.entry_type {
            EntryType::Dir => None,
            EntryType::Reg => match nx.read(&entry.path).await {
                Ok(content) => {
                    let mark = Mark::of(&content);
                    if mark.is_none() {
                        wrong.push(format!("{path} is torn"));
                    }
                    mark
                }
                Err(error) => {
                    wrong.push(format!("it cannot be read: {error}"));
                    None
                }
            },
            other => {
                wrong.push(format!("{path} is a {other}"));
                None
            }
        };
        found[client].insert(path.to_owned(), mark);
    }
    for (client, found) in found.iter().enumerate() {
        wrong.extend(ledger.settle(client, found).err());
    }
    wrong
}

fn is_in(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
