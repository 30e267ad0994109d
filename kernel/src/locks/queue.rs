//! Who waits, in the order in which they came, and which subtrees are held. Pure; kept behind one mutex by the table.
//!
//! A call waits while something that it claims is excluded by a lock that is held, or by a claim of a call that came earlier
//! and still waits. So nobody is overtaken by somebody he would have to wait for, and nobody starves.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use nexus_messages::{Timestamp, VPath};

use super::claim::{Claim, LockOwner, Mode, Scope};

/// A call's place in the queue. Those who came earlier have smaller ones.
pub(super) type Place = u64;

/// The queue. Its length is bounded by the futures that callers hold: a call whose future is dropped leaves.
pub(super) struct Queue<T> {
    next: Place,
    waiting: BTreeMap<Place, Waiting<T>>,
    /// Invariant: for each claim of `waiting` one place in the line of its path; no empty line.
    lines: BTreeMap<VPath, Line>,
    /// Invariant: no path without a holder.
    subtrees: BTreeMap<VPath, Vec<SubtreeHolder>>,
}

/// One call that waits.
pub(super) struct Waiting<T> {
    /// In canonical order.
    pub(super) claims: Arc<[Claim]>,
    pub(super) owner: LockOwner,
    /// When it began to wait.
    pub(super) from: Timestamp,
    /// How to reach it.
    pub(super) ticket: T,
}

pub(super) struct SubtreeHolder {
    pub(super) token: u64,
    pub(super) mode: Mode,
    pub(super) owner: LockOwner,
}

/// The calls that wait for one path.
#[derive(Default)]
struct Line {
    entry: Turns,
    subtree: Turns,
}

#[derive(Default)]
struct Turns {
    reads: BTreeSet<Place>,
    writes: BTreeSet<Place>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { next: 0, waiting: BTreeMap::new(), lines: BTreeMap::new(), subtrees: BTreeMap::new() }
    }

    /// The place of a call that comes now.
    pub(super) fn last_place(&self) -> Place {
        self.next
    }

    /// Lines up a call, behind all others.
    pub(super) fn push(&mut self, call: Waiting<T>) -> Place {
        let place = self.next;
        self.next += 1;
        for claim in &*call.claims {
            self.lines.entry(claim.path.clone()).or_default().turns(claim.scope).of(claim.mode).insert(place);
        }
        self.waiting.insert(place, call);
        place
    }

    /// Takes a call out of the queue; none when it is not there any more.
    pub(super) fn remove(&mut self, place: Place) -> Option<Waiting<T>> {
        let call = self.waiting.remove(&place)?;
        for claim in &*call.claims {
            let Some(line) = self.lines.get_mut(&claim.path) else {
                unreachable!("a claim that waits stands in a line");
            };
            line.turns(claim.scope).of(claim.mode).remove(&place);
            if line.entry.is_empty() && line.subtree.is_empty() {
                self.lines.remove(&claim.path);
            }
        }
        Some(call)
    }

    pub(super) fn claims(&self, place: Place) -> Option<Arc<[Claim]>> {
        self.waiting.get(&place).map(|call| call.claims.clone())
    }

    /// Whether a held subtree, or a claim of a call that came before `place` and waits, excludes `claim`.
    pub(super) fn excludes(&self, claim: &Claim, place: Place) -> bool {
        self.subtree_held_against(claim) || self.earlier_waits_for(claim, place)
    }

    fn subtree_held_against(&self, claim: &Claim) -> bool {
        if self.subtrees.is_empty() {
            return false;
        }
        let against =
            |holders: &Vec<SubtreeHolder>| holders.iter().any(|holder| holder.mode.excludes(claim.mode));
        let above = std::iter::once(claim.path.as_str()).chain(claim.path.ancestors());
        above.filter_map(|path| self.subtrees.get(path)).any(against)
            || claim.scope == Scope::Subtree
                && below(&self.subtrees, &claim.path).any(|(_, holders)| against(holders))
    }

    fn earlier_waits_for(&self, claim: &Claim, place: Place) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        let Claim { path, mode, scope } = claim;
        let excludes = |line: &Line| line.entry.exclude(*mode, place) || line.subtree.exclude(*mode, place);
        self.lines.get(path).is_some_and(excludes)
            || path
                .ancestors()
                .filter_map(|above| self.lines.get(above))
                .any(|line| line.subtree.exclude(*mode, place))
            || *scope == Scope::Subtree && below(&self.lines, path).any(|(_, line)| excludes(line))
    }

    /// The calls that may have become free to go when a lock or a claim of `path` was given up, in the order in which they came.
    ///
    /// In each line these are the readers before its first writer, and that writer: all behind it still wait for it.
    pub(super) fn candidates(&self, path: &VPath, scope: Scope, into: &mut BTreeSet<Place>) {
        if self.lines.is_empty() {
            return;
        }
        if let Some(line) = self.lines.get(path) {
            heads(&[&line.entry, &line.subtree], into);
        }
        for line in path.ancestors().filter_map(|above| self.lines.get(above)) {
            heads(&[&line.subtree], into);
        }
        if scope == Scope::Subtree {
            for (_, line) in below(&self.lines, path) {
                heads(&[&line.entry, &line.subtree], into);
            }
        }
    }

    /// Notes that a subtree is held.
    pub(super) fn hold_subtree(&mut self, path: &VPath, holder: SubtreeHolder) {
        self.subtrees.entry(path.clone()).or_default().push(holder);
    }

    /// Notes that a subtree is not held any more.
    pub(super) fn release_subtree(&mut self, path: &VPath, token: u64) -> SubtreeHolder {
        let Some(holders) = self.subtrees.get_mut(path) else {
            unreachable!("a held subtree has holders");
        };
        let Some(at) = holders.iter().position(|holder| holder.token == token) else {
            unreachable!("a lock is given back once, by its guard");
        };
        let holder = holders.swap_remove(at);
        if holders.is_empty() {
            self.subtrees.remove(path);
        }
        holder
    }

    /// The subtrees that are held, by path.
    pub(super) fn held_subtrees(&self) -> impl Iterator<Item = (&VPath, &SubtreeHolder)> {
        self.subtrees.iter().flat_map(|(path, holders)| holders.iter().map(move |holder| (path, holder)))
    }

    /// Whether nothing is held and nobody waits.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.lines.is_empty() && self.subtrees.is_empty()
    }

    /// How many calls wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Line {
    fn turns(&mut self, scope: Scope) -> &mut Turns {
        match scope {
            Scope::Entry => &mut self.entry,
            Scope::Subtree => &mut self.subtree,
        }
    }
}

impl Turns {
    fn of(&mut self, mode: Mode) -> &mut BTreeSet<Place> {
        match mode {
            Mode::Read => &mut self.reads,
            Mode::Write => &mut self.writes,
        }
    }

    fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }

    /// Whether a call before `place` excludes `mode`.
    fn exclude(&self, mode: Mode, place: Place) -> bool {
        let earlier = |turns: &BTreeSet<Place>| turns.first().is_some_and(|&first| first < place);
        earlier(&self.writes) || mode == Mode::Write && earlier(&self.reads)
    }
}

/// The readers before the first writer of all these turns, and that writer.
fn heads(turns: &[&Turns], into: &mut BTreeSet<Place>) {
    let writer = turns.iter().filter_map(|turns| turns.writes.first()).min().copied();
    let until = writer.unwrap_or(Place::MAX);
    for turns in turns {
        into.extend(turns.reads.range(..until));
    }
    into.extend(writer);
}

/// What a map by path has strictly below `base`.
fn below<'a, V>(map: &'a BTreeMap<VPath, V>, base: &'a VPath) -> impl Iterator<Item = (&'a VPath, &'a V)> {
    map.range::<str, _>((Bound::Excluded(base.as_str()), Bound::Unbounded))
        .take_while(|(path, _)| path.as_str().starts_with(base.as_str()))
        .filter(|(path, _)| path.is_within(base))
}
