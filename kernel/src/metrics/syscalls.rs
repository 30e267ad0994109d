//! Syscalls by operation: how many, what came of them, how long they took.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use nexus_actors::Env;
use nexus_messages::{Errno, Op};
use serde::{Deserialize, Serialize};

use super::histogram::{Bucket, DURATIONS, Histogram};
use super::shard::{Lines, SHARDS, shard};

/// The syscalls: first those with the lowest numbers, in their order.
pub(crate) const OPS: [Op; 18] = [
    Op::Stat,
    Op::Setattr,
    Op::Rename,
    Op::Unlink,
    Op::Readdir,
    Op::Read,
    Op::Write,
    Op::Copy,
    Op::Lock,
    Op::Unlock,
    Op::Watch,
    Op::Tx,
    Op::Versions,
    Op::Sync,
    Op::Receipt,
    Op::Outcome,
    Op::Take,
    Op::Group,
];

const _: () = {
    let mut place = 0;
    while place < OPS.len() {
        assert!(place_of(OPS[place]) == place);
        place += 1;
    }
};

/// The place of a syscall among [`OPS`]: its number but for the last ones, which came later than operations that are no syscalls.
const fn place_of(op: Op) -> usize {
    match op {
        Op::Tx => OPS.len() - 7,
        Op::Versions => OPS.len() - 6,
        Op::Sync => OPS.len() - 5,
        Op::Receipt => OPS.len() - 4,
        Op::Outcome => OPS.len() - 3,
        Op::Take => OPS.len() - 2,
        Op::Group => OPS.len() - 1,
        op => op as usize % OPS.len(),
    }
}

/// What a call may come to: each error, in the order of [`Errno::ALL`], then success, or that its caller went away first.
const OUTCOMES: usize = Errno::ALL.len() + 2;
const OK: usize = Errno::ALL.len();
const DROPPED: usize = OK + 1;

/// The counters of all syscalls.
#[derive(Debug)]
pub(crate) struct Syscalls {
    /// Calls that were answered from memory.
    warm: Lines<[AtomicU64; OPS.len()]>,
    /// All others, spread so that threads seldom share a line.
    cold: Box<[CachePadded<[Cold; OPS.len()]>]>,
}

/// Calls that were not answered from memory.
#[derive(Debug)]
struct Cold {
    begun: AtomicU64,
    ended: [AtomicU64; OUTCOMES],
    took: Histogram<{ DURATIONS.len() }>,
}

/// The calls of one operation, as `/__sys__/syscalls/` shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SyscallEntry {
    /// The operation.
    pub op: String,
    /// How many calls have ended.
    pub calls: u64,
    /// How many of them were answered from memory, and not timed.
    pub warm: u64,
    /// How many are being executed now, those that are answered from memory left out.
    pub in_flight: u64,
    /// What came of the calls: `ok`, an errno, or `dropped` when the caller went away first.
    pub outcomes: BTreeMap<String, u64>,
    /// How many calls were timed: all that were not answered from memory.
    pub timed: u64,
    /// How long the timed calls took together, in nanoseconds.
    pub timed_ns: u64,
    /// The timed calls by how long they took, in nanoseconds; those above the last bound are only in `timed`.
    pub latency: Vec<Bucket>,
}

/// A call that is being executed.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    cold: &'a Cold,
    env: &'a Env,
    began: Instant,
    outcome: usize,
}

impl Syscalls {
    pub(crate) fn new() -> Self {
        let cold = || Cold {
            begun: AtomicU64::new(0),
            ended: array::from_fn(|_| AtomicU64::new(0)),
            took: Histogram::new(&DURATIONS),
        };
        Self {
            warm: Lines::new(|| array::from_fn(|_| AtomicU64::new(0))),
            cold: (0..SHARDS).map(|_| CachePadded::new(array::from_fn(|_| cold()))).collect(),
        }
    }

    /// Counts a call that was answered from memory.
    #[inline]
    pub(crate) fn warm(&self, op: Op) {
        self.warm.raise(|ops| &ops[place_of(op)]);
    }

    /// Counts and times the execution of a call, up to the drop of what this gives.
    pub(crate) fn begin<'a>(&'a self, op: Op, env: &'a Env) -> InFlight<'a> {
        let cold = &self.cold[shard()][place_of(op)];
        // Statistics: nothing is ordered by them.
        cold.begun.fetch_add(1, Ordering::Relaxed);
        InFlight { cold, env, began: env.now(), outcome: DROPPED }
    }

    /// How many calls of this operation were answered from memory.
    pub(crate) fn warm_of(&self, op: Op) -> u64 {
        self.warm.sum(|ops| &ops[place_of(op)])
    }

    /// What was counted, by operation.
    pub(crate) fn entries(&self) -> Vec<SyscallEntry> {
        OPS.into_iter().map(|op| self.entry(op)).collect()
    }

    fn entry(&self, op: Op) -> SyscallEntry {
        let cold: Vec<&Cold> = self.cold.iter().map(|shard| &shard[place_of(op)]).collect();
        let total = |pick: &dyn Fn(&Cold) -> &AtomicU64| {
            cold.iter().map(|cold| pick(cold).load(Ordering::Relaxed)).sum::<u64>()
        };
        let warm = self.warm_of(op);
        // What has ended is read before what has begun, so that the difference is never below zero.
        let mut outcomes = BTreeMap::new();
        let mut ended = 0;
        for outcome in 0..OUTCOMES {
            let count = total(&|cold| &cold.ended[outcome]);
            ended += count;
            let count = if outcome == OK { count + warm } else { count };
            if count > 0 {
                *outcomes.entry(name(outcome).to_owned()).or_default() += count;
            }
        }
        let begun = total(&|cold| &cold.begun);
        let took =
            cold.split_first().map(|(first, rest)| first.took.with(rest.iter().map(|cold| &cold.took)));
        let took = took.unwrap_or_default();
        SyscallEntry {
            op: op.to_string(),
            calls: ended + warm,
            warm,
            in_flight: begun.saturating_sub(ended),
            outcomes,
            timed: took.count,
            timed_ns: took.sum,
            latency: took.buckets,
        }
    }
}

fn name(outcome: usize) -> &'static str {
    match outcome {
        OK => "ok",
        DROPPED => "dropped",
        error => Errno::ALL[error].name(),
    }
}

impl InFlight<'_> {
    /// Says what came of the call; until then, that its caller went away.
    pub(crate) fn with(mut self, error: Option<Errno>) {
        let number = |error| Errno::ALL.iter().position(|known| *known == error).unwrap_or(DROPPED);
        self.outcome = error.map_or(OK, number);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let took: Duration = self.env.now().saturating_duration_since(self.began);
        self.cold.took.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.cold.ended[self.outcome].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(syscalls: &Syscalls, op: Op) -> SyscallEntry {
        syscalls.entries().into_iter().find(|entry| entry.op == op.name()).unwrap()
    }

    #[test]
    fn each_call_is_counted_once_by_what_came_of_it() {
        let (env, _sim) = Env::seeded(1);
        let syscalls = Syscalls::new();
        syscalls.warm(Op::Read);
        syscalls.begin(Op::Read, &env).with(None);
        syscalls.begin(Op::Read, &env).with(Some(Errno::ENOENT));
        for error in [Errno::EIO, Errno::EIO] {
            syscalls.begin(Op::Read, &env).with(Some(error));
        }
        drop(syscalls.begin(Op::Read, &env));
        let running = syscalls.begin(Op::Read, &env);
        let read = entry(&syscalls, Op::Read);
        assert_eq!((read.calls, read.warm, read.in_flight, read.timed), (6, 1, 1, 5));
        let outcomes: Vec<_> = read.outcomes.iter().map(|(name, count)| (&**name, *count)).collect();
        assert_eq!(outcomes, [("EIO", 2), ("ENOENT", 1), ("dropped", 1), ("ok", 2)]);
        running.with(None);
        assert_eq!(entry(&syscalls, Op::Read).in_flight, 0);
        assert_eq!(entry(&syscalls, Op::Write).calls, 0);
    }
}
