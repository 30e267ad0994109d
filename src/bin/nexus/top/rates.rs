//! What happened between two looks. Pure.

use std::time::Duration;

use nexus::MountStatus;
use nexus::sys::{ActorEntry, Bucket, CacheEntry, SyscallEntry};

use super::look::Look;

/// The time between two looks, and how often things happened in a second of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Between<'l> {
    before: &'l Look,
    after: &'l Look,
}

/// The calls of one operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Calls {
    /// Each second.
    pub(super) calls: f64,
    /// The part of them that was answered from memory.
    pub(super) warm: Option<f64>,
    /// Each second, those whose caller went away left out.
    pub(super) failed: f64,
    /// How long the others took.
    pub(super) took: Took,
}

/// How long things took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Took {
    pub(super) mean: Option<Duration>,
    /// Half of them took at most so long.
    pub(super) half: Option<Latency>,
    /// And 99 of 100.
    pub(super) most: Option<Latency>,
}

/// How long something took, as far as ranges tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Latency {
    Upto(Duration),
    Above(Duration),
}

/// What was committed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Commits {
    /// Each second.
    pub(super) batches: f64,
    /// Entries of a batch, in the mean.
    pub(super) size: Option<f64>,
    pub(super) took: Took,
}

impl<'l> Between<'l> {
    pub(super) fn new(before: &'l Look, after: &'l Look) -> Self {
        Self { before, after }
    }

    /// Messages that the actor has begun each second.
    pub(super) fn served(&self, actor: &ActorEntry) -> f64 {
        let before = find(&self.before.actors, &actor.path).map_or(actor.served, |before| before.served);
        self.by_second(before, actor.served)
    }

    /// Whether the actor was restarted meanwhile.
    pub(super) fn was_restarted(&self, actor: &ActorEntry) -> bool {
        find(&self.before.actors, &actor.path).is_some_and(|before| before.generation < actor.generation)
    }

    /// The calls of an operation.
    pub(super) fn calls(&self, op: &SyscallEntry) -> Calls {
        let before = self.before.syscalls.iter().find(|before| before.op == op.op).unwrap_or(op);
        let calls = op.calls.saturating_sub(before.calls);
        Calls {
            calls: self.by_second(before.calls, op.calls),
            warm: part(op.warm.saturating_sub(before.warm), calls),
            failed: self.by_second(failures(before), failures(op)),
            took: took(
                (op.timed.saturating_sub(before.timed), op.timed_ns.saturating_sub(before.timed_ns)),
                (&before.latency, &op.latency),
            ),
        }
    }

    /// All calls and all failures each second.
    pub(super) fn all_calls(&self) -> (f64, f64) {
        let each = self.after.syscalls.iter().map(|op| self.calls(op));
        each.fold((0.0, 0.0), |(calls, failed), op| (calls + op.calls, failed + op.failed))
    }

    /// Calls of a mount's driver each second.
    pub(super) fn driver_calls(&self, mount: &MountStatus) -> f64 {
        let is_same = |before: &&MountStatus| (&before.zone, &before.point) == (&mount.zone, &mount.point);
        let before = self.before.mounts.iter().find(is_same).unwrap_or(mount);
        self.by_second(before.calls.made, mount.calls.made)
    }

    /// What was committed.
    pub(super) fn commits(&self) -> Commits {
        let (before, after) = (&self.before.committer, &self.after.committer);
        let batches = after.batches.saturating_sub(before.batches);
        Commits {
            batches: self.by_second(before.batches, after.batches),
            size: part(after.entries.saturating_sub(before.entries), batches),
            took: took(
                (batches, after.applied_ns.saturating_sub(before.applied_ns)),
                (&before.latency, &after.latency),
            ),
        }
    }

    /// The parts of looks into the caches of metadata and of content that found what they looked for.
    pub(super) fn found(&self) -> [Option<f64>; 2] {
        let found = |before: &CacheEntry, after: &CacheEntry| {
            let hits = after.hits.saturating_sub(before.hits);
            part(hits, hits + after.misses.saturating_sub(before.misses))
        };
        let (before, after) = (&self.before.caches, &self.after.caches);
        [found(&before.metadata, &after.metadata), found(&before.content, &after.content)]
    }

    fn by_second(&self, before: u64, after: u64) -> f64 {
        let seconds = self.after.at.saturating_duration_since(self.before.at).as_secs_f64();
        if seconds > 0.0 { number(after.saturating_sub(before)) / seconds } else { 0.0 }
    }
}

/// How many calls failed since the start, those whose caller went away left out.
pub(super) fn failures(op: &SyscallEntry) -> u64 {
    let good = |outcome: &str| matches!(outcome, "ok" | "dropped");
    op.outcomes.iter().filter(|(outcome, _)| !good(outcome)).map(|(_, count)| count).sum()
}

/// How long all the calls of an operation took since the start.
pub(super) fn took_since_start(op: &SyscallEntry) -> Took {
    took((op.timed, op.timed_ns), (&[], &op.latency))
}

fn find<'t>(tree: &'t ActorEntry, path: &str) -> Option<&'t ActorEntry> {
    if tree.path == path {
        return Some(tree);
    }
    tree.children.iter().find_map(|child| find(child, path))
}

fn took((count, sum): (u64, u64), (before, after): (&[Bucket], &[Bucket])) -> Took {
    let old = |upto: u64| before.iter().find(|old| old.upto == upto).map_or(0, |old| old.count);
    let ranges: Vec<(u64, u64)> =
        after.iter().map(|range| (range.upto, range.count.saturating_sub(old(range.upto)))).collect();
    let quantile = |percent: u64| {
        let wanted = (count * percent).div_ceil(100);
        let found = ranges.iter().find(|(_, count)| *count >= wanted);
        let last = ranges.last().map(|(upto, _)| Latency::Above(Duration::from_nanos(*upto)));
        (count > 0).then(|| found.map(|(upto, _)| Latency::Upto(Duration::from_nanos(*upto))).or(last))?
    };
    Took { mean: sum.checked_div(count).map(Duration::from_nanos), half: quantile(50), most: quantile(99) }
}

fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| number(some) / number(all))
}

#[expect(clippy::cast_precision_loss, reason = "what is drawn has three digits")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::{look, second_later};

    #[test]
    fn rates_are_by_the_second() {
        let before = look();
        let mut after = second_later(&before);
        after.actors.children[0].served += 250;
        after.actors.children[0].generation += 1;
        after.committer.batches += 4;
        after.committer.entries += 100;
        after.caches.metadata.hits += 99;
        after.caches.metadata.misses += 1;
        let between = Between::new(&before, &after);
        assert_eq!(between.served(&after.actors.children[0]), 250.0);
        assert!(between.was_restarted(&after.actors.children[0]));
        assert!(!between.was_restarted(&after.actors));
        let commits = between.commits();
        assert_eq!((commits.batches, commits.size), (4.0, Some(25.0)));
        assert_eq!(between.found(), [Some(0.99), None]);
    }

    #[test]
    fn latencies_are_those_of_the_time_between() {
        let before = look();
        let mut after = second_later(&before);
        let read = &mut after.syscalls[0];
        // Ten calls: nine of at most 10 µs, one above all ranges.
        read.calls += 20;
        read.warm += 10;
        read.timed += 10;
        read.timed_ns += 100_000;
        read.latency[1].count += 9;
        *read.outcomes.entry("ENOENT".into()).or_default() += 3;
        *read.outcomes.entry("dropped".into()).or_default() += 2;
        let calls = Between::new(&before, &after).calls(&after.syscalls[0]);
        assert_eq!((calls.calls, calls.warm, calls.failed), (20.0, Some(0.5), 3.0));
        let ns = Duration::from_nanos;
        let expected = Took {
            mean: Some(ns(10_000)),
            half: Some(Latency::Upto(ns(10_000))),
            most: Some(Latency::Above(ns(10_000))),
        };
        assert_eq!(calls.took, expected);
        assert_eq!(Between::new(&before, &before).calls(&before.syscalls[0]).took, Took::default());
    }

    #[test]
    fn what_has_just_come_has_no_past() {
        let before = look();
        let mut after = second_later(&before);
        let mut new = after.actors.children[0].clone();
        new.path = "nexus/new".into();
        new.served = 1_000_000;
        after.actors.children.push(new.clone());
        let between = Between::new(&before, &after);
        assert_eq!((between.served(&new), between.was_restarted(&new)), (0.0, false));
    }
}
