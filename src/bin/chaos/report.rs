//! What came of a run: counted, judged, printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::plan::{Flaw, Which};
use crate::record::{Counts, Record};

/// Of a hundred kills, so many must strike a running handler.
const STRUCK_MIN: u64 = 30;

/// What a run of a minute must reach; a shorter one its share of it.
const KILLS_A_MINUTE: u64 = 1_000;
const SWAPS_A_MINUTE: u64 = 100;
const WITHSTOOD_A_MINUTE: u64 = 20;
const WEDGES_A_MINUTE: u64 = 1;
const PASSES_A_MINUTE: u64 = 1;
const LOOKS_A_MINUTE: u64 = 10;
const WAITS_A_MINUTE: u64 = 1_000;
/// Within so many seconds an event overflows somewhere. A run of a minute may see none.
const OVERFLOW_SECONDS: u64 = 300;

/// What came of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    /// Kills by the kind of actor and the way, with how many struck a running handler.
    kills: BTreeMap<&'static str, BTreeMap<String, Kills>>,
    /// The kinds of actors that the kernel's tree had, without its root.
    actors: BTreeSet<String>,
    killed: u64,
    struck: u64,
    /// Actors whose watchdogs found them wedged.
    wedged: u64,
    restart_median_us: u64,
    #[serde(skip)]
    restarts_us: Vec<u64>,
    service_swaps: u64,
    driver_swaps: u64,
    pause_max_us: u64,
    withstood: BTreeMap<String, u64>,
    withstood_in_all: u64,
    cut_short: u64,
    pub(crate) reasons: BTreeMap<String, u64>,
    pauses: u64,
    counts: Counts,
    pub(crate) process_kills: u64,
    pub(crate) root_kills: u64,
    /// How often the oracle looked at everything through a fresh kernel.
    pub(crate) verified: u64,
    /// The claims that do not hold.
    pub(crate) broken: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Kills {
    killed: u64,
    struck: u64,
}

impl Report {
    pub(crate) fn new(seed: u64, seconds: u64) -> Self {
        Self { seed, seconds, ..Self::default() }
    }

    /// Takes note of what happened.
    pub(crate) fn hear(&mut self, life: usize, record: &Record) {
        match record {
            Record::There { kind } => drop(self.actors.insert(kind.clone())),
            Record::Killed { target, how, struck, restart_us } => {
                self.wedged += u64::from(how.starts_with("wedge"));
                let kills = self.kills.entry(target.kind()).or_default().entry(how.clone()).or_default();
                for kills in [&mut kills.killed, &mut self.killed] {
                    *kills += 1;
                }
                for hits in [&mut kills.struck, &mut self.struck] {
                    *hits += u64::from(*struck);
                }
                self.restarts_us.extend(restart_us);
            }
            Record::Swapped { service, pause_us } => {
                match service {
                    Some(_) => self.service_swaps += 1,
                    None => self.driver_swaps += 1,
                }
                self.pause_max_us = self.pause_max_us.max(*pause_us);
            }
            Record::Withstood { service, flaw } => self.withstood(*service, *flaw),
            Record::CutShort { why, .. } => {
                self.cut_short += 1;
                *self.reasons.entry(why.clone()).or_default() += 1;
            }
            Record::Quiet => self.pauses += 1,
            Record::Did(counts) => self.counts.add(**counts),
            Record::Broken { claim } => self.broken.push(format!("life {life}, {claim}")),
            _ => {}
        }
    }

    fn withstood(&mut self, service: Which, flaw: Flaw) {
        *self.withstood.entry(format!("{service:?} {flaw:?}")).or_default() += 1;
        self.withstood_in_all += 1;
    }

    /// One line on how far it is.
    pub(crate) fn progress(&self) -> String {
        format!(
            "{} kills, {} swaps, {} changes, {} reads, {} claims broken",
            self.killed,
            self.service_swaps + self.driver_swaps,
            self.counts.changes,
            self.counts.reads,
            self.broken.len()
        )
    }

    /// Holds the whole against what a run must reach.
    pub(crate) fn judge(&mut self, process_kills: u64) {
        self.restarts_us.sort_unstable();
        self.restart_median_us = self.restarts_us.get(self.restarts_us.len() / 2).copied().unwrap_or(0);
        let share = |a_minute: u64| a_minute * self.seconds / 60;
        let reached = [
            ("kills", self.killed, share(KILLS_A_MINUTE)),
            ("swaps", self.service_swaps + self.driver_swaps, share(SWAPS_A_MINUTE)),
            ("failing swaps", self.withstood_in_all, share(WITHSTOOD_A_MINUTE)),
            (
                "kills of a hundred that struck a running handler",
                self.struck * 100 / self.killed.max(1),
                STRUCK_MIN,
            ),
            ("kills of the process", self.process_kills, process_kills),
            ("reads", self.counts.reads, 1),
            ("changes", self.counts.changes, 1),
            ("refused operations", self.counts.refused, 1),
            ("wedges", self.wedged, share(WEDGES_A_MINUTE)),
            ("collections", self.counts.collections, share(PASSES_A_MINUTE)),
            ("checks", self.counts.checks, share(PASSES_A_MINUTE)),
            ("scrubs", self.counts.scrubs, share(PASSES_A_MINUTE)),
            ("changes seen in the audit log", self.counts.audited, share(LOOKS_A_MINUTE)),
            ("verifications of the audit log", self.counts.verified, share(PASSES_A_MINUTE)),
            ("looks at what is used", self.counts.usages, share(LOOKS_A_MINUTE)),
            ("changes over a limit", self.counts.over_quota, share(LOOKS_A_MINUTE)),
            ("locks given", self.counts.locked, share(WAITS_A_MINUTE)),
            ("locks lost to time or force", self.counts.lost, share(LOOKS_A_MINUTE)),
            ("locks kept on disk", self.counts.kept, share(LOOKS_A_MINUTE)),
            ("writes under a lock", self.counts.fenced, share(LOOKS_A_MINUTE)),
            ("writes refused under a lock that was lost", self.counts.stale, share(LOOKS_A_MINUTE)),
            ("messages written", self.counts.messages, share(WAITS_A_MINUTE)),
            ("messages read", self.counts.messages_read, share(WAITS_A_MINUTE)),
            ("writes to a full pipe", self.counts.pipes_full, share(LOOKS_A_MINUTE)),
            ("pipes removed", self.counts.pipes_removed, share(LOOKS_A_MINUTE)),
            ("records appended", self.counts.appended, share(WAITS_A_MINUTE)),
            ("records read", self.counts.records_read, share(WAITS_A_MINUTE)),
            ("calls given up while they waited", self.counts.given_up, share(LOOKS_A_MINUTE)),
            ("events told", self.counts.events, share(WAITS_A_MINUTE)),
            ("watches taken up at a cursor", self.counts.resumed, share(LOOKS_A_MINUTE)),
            ("events that overflowed", self.counts.overflows, self.seconds / OVERFLOW_SECONDS),
        ];
        for (what, reached, least) in reached {
            if reached < least {
                self.broken.push(format!("{reached} {what}, of at least {least}"));
            }
        }
        // A short run does not come to everybody.
        if self.seconds >= 60 {
            for kind in self.actors.iter().filter(|kind| !self.kills.contains_key(kind.as_str())) {
                self.broken.push(format!("no {kind} was killed, and there was one"));
            }
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { calls, reads, changes, unknown, not_executed, refused, .. } = self.counts;
        writeln!(f, "seed {}, {} s", self.seed, self.seconds)?;
        for (target, ways) in &self.kills {
            let sum: u64 = ways.values().map(|kills| kills.killed).sum();
            let ways: Vec<_> = ways.iter().map(|(how, kills)| format!("{how} {}", kills.killed)).collect();
            writeln!(f, "  {target:<24} {sum:>5}  {}", ways.join(", "))?;
        }
        writeln!(
            f,
            "kills: {}, of which {} struck a running handler ({} %), and {} were wedges; back after {:.1} ms at the median",
            self.killed,
            self.struck,
            self.struck * 100 / self.killed.max(1),
            self.wedged,
            self.restart_median_us as f64 / 1e3
        )?;
        writeln!(
            f,
            "kill -9 of the process: {}; kills of the root: {}",
            self.process_kills, self.root_kills
        )?;
        writeln!(
            f,
            "swaps: {} of services, {} of drivers, longest pause {:.1} ms; {} given up for a fault, told as",
            self.service_swaps,
            self.driver_swaps,
            self.pause_max_us as f64 / 1e3,
            self.cut_short
        )?;
        for (why, times) in &self.reasons {
            writeln!(f, "  {times:>5} times: {why}")?;
        }
        let withstood: Vec<_> =
            self.withstood.iter().map(|(flaw, times)| format!("{flaw} {times}")).collect();
        writeln!(f, "failing swaps withstood: {} ({})", self.withstood_in_all, withstood.join(", "))?;
        writeln!(
            f,
            "calls: {calls}; {reads} reads checked; {changes} changes acknowledged, {unknown} told as unknown and settled, \
             {not_executed} not executed after the root was killed; {refused} forbidden operations refused"
        )?;
        writeln!(
            f,
            "calls of services: {}, of which {} met a crash; of the failing driver: {}, of which {} failed",
            self.counts.service_calls,
            self.counts.service_crashes,
            self.counts.driver_calls,
            self.counts.driver_errors
        )?;
        writeln!(
            f,
            "audit log: {} acknowledged changes found in it at once, {} times verified while it grew; quota: {} changes over a limit refused, \
             {} looks at what is used",
            self.counts.audited, self.counts.verified, self.counts.over_quota, self.counts.usages
        )?;
        writeln!(
            f,
            "collections: {}; checks: {}; scrubs: {}; cut short by a kill: {}",
            self.counts.collections, self.counts.checks, self.counts.scrubs, self.counts.passes_cut_short
        )?;
        let Counts { locked, lock_refused, deadlocks, lost, forced, kept, fenced, stale, given_up, .. } =
            self.counts;
        writeln!(
            f,
            "locks: {locked} given, {lock_refused} refused in time and {deadlocks} for a circle, {forced} taken by force, {lost} found lost, \
             {kept} kept on disk; {fenced} writes under one, {stale} refused; {given_up} calls given up while they waited"
        )?;
        let Counts { messages, messages_read, pipes_full, pipes_removed, .. } = self.counts;
        writeln!(
            f,
            "pipes: {messages} messages written, {messages_read} read, {pipes_full} without room, {pipes_removed} pipes removed"
        )?;
        let Counts { appended, appends_repeated, records_read, events, resumed, overflows, .. } = self.counts;
        writeln!(
            f,
            "streams: {appended} records appended, {appends_repeated} appends sent again, {records_read} records read; watches: {events} events \
             told, {resumed} times taken up at a cursor, {overflows} overflows"
        )?;
        writeln!(
            f,
            "pauses without a lock held: {}; everything verified through a fresh kernel: {} times; longest call beyond its deadline: \
             {:.1} ms",
            self.pauses,
            self.verified,
            self.counts.late_max_us as f64 / 1e3
        )?;
        for claim in &self.broken {
            writeln!(f, "BROKEN: {claim}")?;
        }
        f.write_str(if self.holds() { "every claim held" } else { "not every claim held" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;

    /// What a minute comes to in which all of `killed` were, with a wedge or without.
    fn minute(killed: &[Target], wedge: bool) -> Report {
        let mut report = Report::new(1, 60);
        for kind in Target::ALL.iter().map(|target| target.kind().to_owned()) {
            report.hear(0, &Record::There { kind });
        }
        let ways = if wedge { ["panic", "wedge after"] } else { ["panic", "panic after"] };
        for (how, target) in ways.iter().flat_map(|how| killed.iter().map(move |target| (how, *target))) {
            for _ in 0..KILLS_A_MINUTE {
                let (how, restart_us) = ((*how).to_owned(), Some(1));
                report.hear(0, &Record::Killed { target, how, struck: true, restart_us });
            }
        }
        for _ in 0..SWAPS_A_MINUTE {
            report.hear(0, &Record::Swapped { service: Some(Which::Audit), pause_us: 1 });
            report.hear(0, &Record::Withstood { service: Which::Counter, flaw: Flaw::Breaks });
        }
        let few = LOOKS_A_MINUTE;
        let counts = Counts {
            reads: few,
            changes: few,
            refused: few,
            audited: few,
            verified: few,
            ..Counts::default()
        };
        let passes = Counts {
            over_quota: few,
            usages: few,
            collections: few,
            checks: few,
            scrubs: few,
            ..Counts::default()
        };
        let many = WAITS_A_MINUTE;
        let waits = Counts {
            locked: many,
            lost: few,
            kept: few,
            fenced: few,
            stale: few,
            messages: many,
            messages_read: many,
            pipes_full: few,
            pipes_removed: few,
            appended: many,
            records_read: many,
            given_up: few,
            events: many,
            resumed: few,
            overflows: few,
            ..Counts::default()
        };
        [counts, passes, waits].into_iter().for_each(|counts| report.hear(0, &Record::Did(Box::new(counts))));
        report
    }

    fn broken(mut report: Report) -> Vec<String> {
        report.judge(0);
        report.broken
    }

    #[test]
    fn a_minute_in_which_somebody_of_the_tree_was_spared_fails() {
        assert_eq!(broken(minute(Target::ALL, true)), Vec::<String>::new());
        for spared in Target::ALL {
            let others: Vec<_> = Target::ALL.iter().copied().filter(|target| target != spared).collect();
            let expected = format!("no {} was killed, and there was one", spared.kind());
            assert_eq!(broken(minute(&others, true)), [expected]);
        }
        let mut report = minute(Target::ALL, true);
        report.hear(0, &Record::There { kind: "nexus/kernel/federation".into() });
        assert_eq!(broken(report), ["no nexus/kernel/federation was killed, and there was one"]);
    }

    #[test]
    fn a_minute_without_a_wedge_fails() {
        assert_eq!(broken(minute(Target::ALL, false)), ["0 wedges, of at least 1"]);
    }
}
