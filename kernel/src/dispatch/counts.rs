//! What each hook did so far, counted by whoever calls it.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use nexus_actors::{Env, Panicked};
use nexus_messages::{Lsn, ZoneId};
use parking_lot::Mutex;
use serde::Serialize;

use super::hook::MissedCalls;
use super::observing::Line;
use crate::caught::catch;
use crate::metrics::{Bucket, DURATIONS, Histogram};

/// How many runs of one hook that nobody waits for may be under way. What comes beyond is counted and told as missed, and not run.
pub const ASIDE_MAX: usize = 256;

/// What a hook did so far. Statistics: they are read one after the other while calls go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookCounts {
    /// How often it was called. Before and after a call are two.
    pub calls: u64,
    /// Calls that it refused by its own decision.
    pub refusals: u64,
    /// Times that it broke: it panicked, or its service was down.
    pub errors: u64,
    /// Times that it was late.
    pub timeouts: u64,
    /// Calls that went on without it, because it fails open.
    pub passed_by: u64,
    /// Events, or calls that it would have been told of aside, that found no room.
    pub overflow: u64,
    /// Events that wait in its queue now; or runs aside that are under way.
    pub queued: u64,
    /// How long it took, all its calls together, in nanoseconds.
    pub total_ns: u64,
    /// The longest that it took, in nanoseconds.
    pub max_ns: u64,
    /// How many calls took up to so many nanoseconds; without those that it has none of.
    pub latency: Vec<Bucket>,
}

/// What a registered hook has beside itself: the clock, its counters, and its queue. Stays over restarts of the dispatch, and over swaps of a service.
pub(crate) struct Running {
    pub(super) env: Env,
    counters: CachePadded<Counters>,
    aside: Mutex<Crowd>,
    /// Of an observer that is told on a task of its own.
    pub(super) line: Option<Arc<Line>>,
}

// Orders nothing, each of them: statistics.
struct Counters {
    refusals: AtomicU64,
    errors: AtomicU64,
    timeouts: AtomicU64,
    passed_by: AtomicU64,
    overflow: AtomicU64,
    max_ns: AtomicU64,
    latency: Histogram<{ DURATIONS.len() }>,
}

/// The runs of a hook that nobody waits for.
#[derive(Default)]
struct Crowd {
    /// Invariant: at most `ASIDE_MAX`.
    under_way: usize,
    /// Invariant: nothing, unless something is under way, whose end sees to it; or was dropped before its end.
    missed: MissedCalls,
}

/// What may be counted beside a call's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Refusal,
    Error,
    Timeout,
    PassedBy,
    Overflow,
}

impl Running {
    pub(crate) fn new(env: &Env, line: Option<Arc<Line>>) -> Self {
        let zero = || AtomicU64::new(0);
        let counters = Counters {
            refusals: zero(),
            errors: zero(),
            timeouts: zero(),
            passed_by: zero(),
            overflow: zero(),
            max_ns: zero(),
            latency: Histogram::new(&DURATIONS),
        };
        Self { env: env.clone(), counters: CachePadded::new(counters), aside: Mutex::default(), line }
    }

    pub(super) fn begin(&self) -> Instant {
        self.env.now()
    }

    /// Counts a call that began then.
    pub(super) fn ended(&self, began: Instant) {
        let took = self.env.now().saturating_duration_since(began);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counters.latency.add(nanos);
        self.counters.max_ns.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(super) fn count(&self, what: Count) {
        self.count_many(what, 1);
    }

    pub(super) fn count_many(&self, what: Count, times: u64) {
        let counters = &*self.counters;
        let counter = match what {
            Count::Refusal => &counters.refusals,
            Count::Error => &counters.errors,
            Count::Timeout => &counters.timeouts,
            Count::PassedBy => &counters.passed_by,
            Count::Overflow => &counters.overflow,
        };
        counter.fetch_add(times, Ordering::Relaxed);
    }

    /// A place among the runs that nobody waits for, of a call that was committed there; none when all are taken. That is counted, and told when the next of them is over.
    pub(super) fn aside(self: &Arc<Self>, committed: Option<&(ZoneId, Lsn)>) -> Option<Aside> {
        let mut crowd = self.aside.lock();
        if crowd.under_way >= ASIDE_MAX {
            crowd.missed.add(committed);
            drop(crowd);
            self.count(Count::Overflow);
            return None;
        }
        crowd.under_way += 1;
        Some(Aside { running: self.clone(), has_told: false, is_over: false })
    }

    /// Tells the hook of this name what it missed.
    pub(super) fn tell_missed(
        &self,
        name: &str,
        missed: &MissedCalls,
        tell: impl FnOnce(),
    ) -> Result<(), Panicked> {
        tracing::warn!(hook = name, missed = missed.calls, "a hook was not told of calls, since it is slow");
        let told = catch(tell);
        if told.is_err() {
            self.count(Count::Error);
        }
        told
    }

    pub(crate) fn counts(&self) -> HookCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &*self.counters;
        let measured = counters.latency.measured();
        let mut latency = measured.buckets;
        // All behind the longest say the same.
        latency.dedup_by_key(|bucket| bucket.count);
        latency.retain(|bucket| bucket.count > 0);
        let aside = self.aside.lock().under_way;
        HookCounts {
            calls: measured.count,
            refusals: get(&counters.refusals),
            errors: get(&counters.errors),
            timeouts: get(&counters.timeouts),
            passed_by: get(&counters.passed_by),
            overflow: get(&counters.overflow),
            queued: self.line.as_ref().map_or(aside, |line| line.queued()) as u64,
            total_ns: measured.sum,
            max_ns: get(&counters.max_ns),
            latency,
        }
    }
}

/// The place of one run that nobody waits for.
pub(super) struct Aside {
    running: Arc<Running>,
    has_told: bool,
    is_over: bool,
}

impl Aside {
    /// What its hook missed meanwhile, to be told in this place; to be asked when the run is over, and again when that was told. With none the place is free.
    pub(super) fn end(&mut self) -> Option<MissedCalls> {
        let mut crowd = self.running.aside.lock();
        // Who goes last tells all that is left: while it is alone nothing finds no room, so that ends. The others tell once, or a hook whose calls come without an end would have
        // one run for ever.
        if crowd.missed.calls > 0 && (!self.has_told || crowd.under_way == 1) {
            self.has_told = true;
            return Some(mem::take(&mut crowd.missed));
        }
        crowd.under_way -= 1;
        self.is_over = true;
        None
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.is_over {
            self.running.aside.lock().under_way -= 1;
        }
    }
}

/// How a module's interceptor is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) deadline: Duration,
    pub(super) on_late: crate::service::OnLate,
    /// Whether nobody waits for what it does after the call.
    pub(super) aside: bool,
}
