//! What the kernel's process tells the oracle, one line each, written at once: what was told before a kill is not lost.

use nexus::OpId;
use serde::{Deserialize, Serialize};

use crate::locks::kept::Kept;
use crate::model::{Became, Change};
use crate::plan::{Flaw, Target, Which};
use crate::streams::durable;
use crate::watches::history::Told;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The kernel serves, so many microseconds after its boot began.
    Ready { boot_us: u64 },
    /// A client is about to make a change.
    Begun { client: usize, change: Change, op_id: OpId },
    /// It was made, or was not; and where its place in the log is, when its caller was told. Of one that may have been made, nothing is told.
    Ended { client: usize, op_id: OpId, became: Became, lsn: Option<u64> },
    /// What a client knows from now on of its lock that outlives the process.
    Kept { locker: usize, kept: Kept },
    /// The token of a lock that was given just now, the newest that its caller knows.
    Token { newest: u64 },
    /// A client is about to append to the stream on disk.
    Appending { begun: durable::Begun },
    /// It did so, or not.
    Appended { appender: usize, became: durable::Became },
    /// The live watcher is told what comes after this place in the log.
    Watching { from: u64 },
    /// A watcher was told this, and goes on after the cursor.
    Watched { watcher: usize, events: Vec<Told>, cursor: u64 },
    /// The kernel's tree has actors of this kind.
    There { kind: String },
    /// An actor was killed, and serves again.
    Killed {
        target: Target,
        /// The way, in words.
        how: String,
        /// Whether it was handling a message.
        struck: bool,
        /// From the kill to serving, where the moment of the kill is known.
        restart_us: Option<u64>,
    },
    /// A service, or a driver, was swapped; for how long a call waited at most.
    Swapped { service: Option<Which>, pause_us: u64 },
    /// A version with a flaw did not come to serve, or was swapped back.
    Withstood { service: Which, flaw: Flaw },
    /// A swap was given up because something that it needed was killed, or another one was not over yet.
    CutShort { service: Option<Which>, why: String },
    /// All clients paused: no lock was held, every actor served, and the counter was exact.
    Quiet,
    /// What was done since the last time.
    Did(Box<Counts>),
    /// A claim does not hold.
    Broken { claim: String },
    /// The kernel has ended by itself.
    Over,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What clients did.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) struct Counts {
            $($(#[$doc])* pub(crate) $name: u64,)*
            /// By how much a call exceeded its deadline, at most.
            pub(crate) late_max_us: u64,
        }

        impl Counts {
            /// Adds what was done later.
            pub(crate) fn add(&mut self, more: Self) {
                $(self.$name += more.$name;)*
                self.late_max_us = self.late_max_us.max(more.late_max_us);
            }
        }
    };
}

counts! {
    /// Calls of all kinds.
    calls,
    /// Reads that were checked, byte for byte, against the versions that may be there.
    reads,
    /// Changes that were acknowledged.
    changes,
    /// Changes whose caller was told that the outcome is unknown.
    unknown,
    /// Changes whose caller was told that they were not executed.
    not_executed,
    /// Operations that the policy refused.
    refused,
    /// Calls of services.
    service_calls,
    /// Such calls that a crash ended.
    service_crashes,
    /// Changes that the audit log was asked for at once, and had.
    audited,
    /// Verifications of the whole audit log while it grew.
    verified,
    /// Changes refused because they would have exceeded a limit.
    over_quota,
    /// Looks at what is used where it is limited.
    usages,
    /// Collections, checks and scrubs that came to their ends, and those that were cut short by a kill.
    collections,
    checks,
    scrubs,
    passes_cut_short,
    /// Calls of the driver that fails at will, and those that failed.
    driver_calls,
    driver_errors,
    /// Advisory locks that were given, refused in time, and refused because of a circle; lost before they were given back; taken by force; kept on disk.
    locked,
    lock_refused,
    deadlocks,
    lost,
    forced,
    kept,
    /// Writes under a lock, and those that were refused because it was not held any more.
    fenced,
    stale,
    /// Calls that waited and were given up.
    given_up,
    /// Messages written to pipes, and those read; writes that found no room; pipes removed.
    messages,
    messages_read,
    pipes_full,
    pipes_removed,
    /// Records appended to streams, appends that were sent again, and records read.
    appended,
    appends_repeated,
    records_read,
    /// Events told of the clients' homes; watches taken up at a cursor; events that overflowed.
    events,
    resumed,
    overflows,
}
