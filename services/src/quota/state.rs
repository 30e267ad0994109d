//! The pure core of quotas: accounts, what is reserved on them, and counting anew while changes go on.
//!
//! A change is weighed under the lock of its paths, when it is known exactly what it does and nothing is done yet: what it adds is reserved. When
//! it is committed, what it added and took is booked, and the reservation ends. So what is used and reserved together never exceeds a limit, and what is
//! used is never more or less than what is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::{Effect, Lsn, VPath};
use serde::{Deserialize, Serialize};

/// How many accounts there are at most.
pub(super) const ACCOUNTS_MAX: usize = 1_024;
/// How many changes may be booked while it is being counted. More, and that count is given up.
pub(super) const BOOKED_MAX: usize = 65_536;

/// Whose usage is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// What an agent owns, wherever it is.
    Agent(Arc<str>),
    /// What is at this path or below it, whoever owns it.
    Below(VPath),
}

/// What a subject may use. What is `None` is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The lengths of its files, together.
    pub bytes: Option<u64>,
    /// How many entries that are no directories.
    pub files: Option<u64>,
    /// How many calls a second, and as many at once.
    pub ops_per_s: Option<u32>,
}

/// What a subject uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The lengths of its files, together.
    pub bytes: u64,
    /// How many entries that are no directories.
    pub files: u64,
}

/// What a change does to one account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Delta {
    bytes: i64,
    files: i64,
}

impl Delta {
    /// What it adds at most: an account is never charged less for what a change frees elsewhere.
    fn growth(self) -> Self {
        Self { bytes: self.bytes.max(0), files: self.files.max(0) }
    }

    fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, files: self.files + other.files }
    }

    fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, files: self.files - other.files }
    }
}

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It would exceed a limit. In words.
    Exceeds(String),
    /// A directory would cross the border of an account, with all below it uncounted.
    Crosses(VPath),
    /// An account's subtree would go with a directory above it.
    Carries(VPath),
}

/// One account.
#[derive(Debug, Clone, Default)]
struct Account {
    used: Delta,
    reserved: Delta,
    /// Whether it was ever counted. Before that nothing is known, and nothing refused.
    counted: bool,
    /// What counts have corrected, less what was heard of only afterwards.
    corrected: Delta,
    /// With which commit its first count ended. There was nothing to correct.
    first: Lsn,
    bucket: Bucket,
}

/// Tokens that come back with time, up to as many as one second brings.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// In billionths of a token.
    spent: u64,
    at: Duration,
}

const TOKEN: u64 = 1_000_000_000;

impl Bucket {
    /// Brings back what `now` allows; says whether there is a token.
    fn refill(&mut self, now: Duration, per_s: u32) -> bool {
        let past = u64::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.spent = self.spent.saturating_sub(past.saturating_mul(per_s.into()));
        self.at = now.max(self.at);
        self.spent + TOKEN <= TOKEN * u64::from(per_s)
    }
}

/// All accounts, shared by the versions of a service.
#[derive(Debug, Default)]
pub(super) struct Books {
    accounts: BTreeMap<Subject, Account>,
    /// Up to here changes are part of the last count, and are not booked again.
    counted: Lsn,
    /// What was booked while it is being counted.
    booked: VecDeque<(Lsn, Arc<Effect>)>,
    lost: bool,
    counts: u32,
    counts_done: u64,
    /// Whether something happened that only a count can tell.
    pub(super) doubtful: bool,
}

/// By how much the accounts were off, when they were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// How often it was counted.
    pub counts: u64,
    /// How many bytes all counts together have corrected, over all accounts that there are. Calls that are under way make it restless: it is exact between them.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
}

impl Books {
    /// Opens the accounts of what is `limited`, and closes all others. False when there would be too many: nothing has changed then.
    pub(super) fn keep(&mut self, limited: &BTreeSet<Subject>) -> bool {
        if limited.len() > ACCOUNTS_MAX {
            return false;
        }
        self.accounts.retain(|subject, _| limited.contains(subject));
        for subject in limited {
            self.accounts.entry(subject.clone()).or_default();
        }
        true
    }

    /// The accounts as they are now, for somebody who is told of nothing that happens later.
    pub(super) fn copied(&self) -> Self {
        let mut accounts = self.accounts.clone();
        accounts.values_mut().for_each(|account| account.reserved = Delta::default());
        Self { accounts, ..Self::default() }
    }

    pub(super) fn subjects(&self) -> Vec<Subject> {
        self.accounts.keys().cloned().collect()
    }

    pub(super) fn usage(&self, subject: &Subject) -> Option<Usage> {
        let account = self.accounts.get(subject).filter(|account| account.counted)?;
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        Some(Usage { bytes: number(account.used.bytes), files: number(account.used.files) })
    }

    pub(super) fn drift(&self) -> Drift {
        let start = Drift { counts: self.counts_done, ..Drift::default() };
        self.accounts.values().fold(start, |drift, account| Drift {
            bytes: drift.bytes + account.corrected.bytes.unsigned_abs(),
            files: drift.files + account.corrected.files.unsigned_abs(),
            ..drift
        })
    }

    /// Spends a token of each account that a call of `agent` with these paths concerns, or of none when one has none left.
    ///
    /// # Errors
    /// Which one, in words.
    pub(super) fn spend(
        &mut self,
        limits: &BTreeMap<Subject, Limits>,
        agent: &str,
        paths: &[&VPath],
        now: Duration,
    ) -> Result<(), String> {
        let mut concerned = Vec::new();
        for (subject, limits) in limits {
            let Some(per_s) = limits.ops_per_s else { continue };
            let concerns = match subject {
                Subject::Agent(name) => **name == *agent,
                Subject::Below(base) => paths.iter().any(|path| path.is_within(base)),
            };
            let Some(account) = self.accounts.get_mut(subject).filter(|_| concerns) else { continue };
            if !account.bucket.refill(now, per_s) {
                return Err(format!("{} may make {per_s} calls a second", subject.words()));
            }
            concerned.push(subject);
        }
        for subject in concerned {
            if let Some(account) = self.accounts.get_mut(subject) {
                account.bucket.spent += TOKEN;
            }
        }
        Ok(())
    }

    /// Reserves what `effect` adds, in the place of what `before` did: the same call, weighed before in vain.
    ///
    /// # Errors
    /// Why it is not to be. Nothing is reserved for the call then.
    pub(super) fn reserve(
        &mut self,
        limits: &BTreeMap<Subject, Limits>,
        before: Option<&Effect>,
        effect: &Effect,
    ) -> Result<(), Refusal> {
        if let Some(before) = before {
            self.release(before);
        }
        for (subject, account) in &self.accounts {
            // Another version may count there still; what is not limited here stands in nobody's way.
            let Some(limits) = limits.get(subject) else { continue };
            if let Some(refusal) = subject.loses(effect) {
                return Err(refusal);
            }
            if !account.counted {
                continue;
            }
            let delta = subject.delta(effect);
            let held = account.used.plus(account.reserved);
            let check = |limit: Option<u64>, held: i64, more: i64, what: &str| match limit {
                Some(limit)
                    if more > 0 && held.saturating_add(more) > i64::try_from(limit).unwrap_or(i64::MAX) =>
                {
                    let who = subject.words();
                    Err(Refusal::Exceeds(format!(
                        "{who} may use {limit} {what}, uses {held}, and this adds {more}"
                    )))
                }
                _ => Ok(()),
            };
            check(limits.bytes, held.bytes, delta.bytes, "bytes")?;
            check(limits.files, held.files, delta.files, "files")?;
        }
        for (subject, account) in &mut self.accounts {
            account.reserved = account.reserved.plus(subject.delta(effect).growth());
        }
        Ok(())
    }

    fn release(&mut self, effect: &Effect) {
        for (subject, account) in &mut self.accounts {
            // An account that was opened since has nothing reserved for it.
            let left = account.reserved.minus(subject.delta(effect).growth());
            account.reserved = left.growth();
        }
    }

    /// Ends the reservation of a call, and books what it did when it was committed, at `lsn`.
    pub(super) fn settle(&mut self, effect: &Arc<Effect>, lsn: Option<Lsn>) {
        self.release(effect);
        let Some(lsn) = lsn else { return };
        if lsn <= self.counted {
            // The count has it already: that was no mistake of the accounts.
            for (subject, account) in &mut self.accounts {
                if account.counted && lsn > account.first {
                    account.corrected = account.corrected.minus(subject.delta(effect));
                }
            }
            return;
        }
        self.book(effect);
        if self.counts > 0 {
            if self.booked.len() < BOOKED_MAX {
                self.booked.push_back((lsn, effect.clone()));
            } else {
                self.lost = true;
            }
        }
    }

    fn book(&mut self, effect: &Effect) {
        for (subject, account) in &mut self.accounts {
            account.used = account.used.plus(subject.delta(effect));
            if subject.loses(effect).is_some() {
                // Done by a version that does not limit it, or weighed before it was limited.
                account.counted = false;
                self.doubtful = true;
            }
        }
    }

    /// It is not known whether this was committed: it is charged until a count tells.
    pub(super) fn doubt(&mut self, effect: &Effect) {
        self.release(effect);
        for (subject, account) in &mut self.accounts {
            account.used = account.used.plus(subject.delta(effect).growth());
        }
        self.doubtful = true;
    }

    /// Begins a count; each is to be ended.
    pub(super) fn begin_count(&mut self) {
        if self.counts == 0 {
            self.booked.clear();
            self.lost = false;
        }
        self.counts += 1;
        self.doubtful = false;
    }

    /// Ends a count. When it was not taken over, what was doubtful before it still is.
    pub(super) fn end_count(&mut self, taken: bool) {
        self.doubtful |= !taken;
        self.counts = self.counts.saturating_sub(1);
        if self.counts == 0 {
            self.booked.clear();
        }
    }

    /// Takes over a count of all that was there at `lsn`; what was committed later is booked on top. False when it is of no use: a later one is
    /// there, or too much has happened meanwhile.
    pub(super) fn take_over(&mut self, lsn: Lsn, counted: &Count) -> bool {
        if self.lost || lsn < self.counted {
            return false;
        }
        for (subject, account) in &mut self.accounts {
            let Some(found) = counted.0.get(subject) else { continue };
            let later = self.booked.iter().filter(|(at, _)| *at > lsn);
            let used = later.fold(*found, |used, (_, effect)| used.plus(subject.delta(effect)));
            if account.counted {
                account.corrected = account.corrected.plus(used.minus(account.used));
            } else {
                account.first = lsn;
            }
            (account.used, account.counted) = (used, true);
        }
        self.counted = lsn;
        self.counts_done += 1;
        true
    }
}

/// A count in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(BTreeMap<Subject, Delta>);

impl Count {
    pub(super) fn of(subjects: Vec<Subject>) -> Self {
        Self(subjects.into_iter().map(|subject| (subject, Delta::default())).collect())
    }

    /// Counts one entry that is no directory.
    pub(super) fn add(&mut self, path: &VPath, owner: &str, bytes: u64) {
        for (subject, sum) in &mut self.0 {
            if subject.has(path, owner) {
                *sum = sum.plus(Delta { bytes: signed(bytes), files: 1 });
            }
        }
    }
}

impl Subject {
    fn has(&self, path: &VPath, owner: &str) -> bool {
        match self {
            Self::Agent(name) => **name == *owner,
            Self::Below(base) => path.is_within(base),
        }
    }

    fn delta(&self, effect: &Effect) -> Delta {
        let sum = |held: &[nexus_messages::Holding]| {
            let held = held.iter().filter(|held| self.has(&held.path, &held.owner));
            held.fold(Delta::default(), |sum, held| {
                sum.plus(Delta { bytes: signed(held.bytes), files: signed(held.files) })
            })
        };
        sum(&effect.after).minus(sum(&effect.before))
    }

    /// Why `effect` would take what is below this subject, or bring it there, without its being counted; none when it does not.
    fn loses(&self, effect: &Effect) -> Option<Refusal> {
        let Self::Below(base) = self else { return None };
        for (from, to) in &effect.moved {
            let crosses = from.is_within(base) != to.is_within(base);
            let carried = base.is_within(from) || base != to && base.is_within(to);
            if crosses || carried {
                return Some(Refusal::Crosses(base.clone()));
            }
        }
        let cleared = effect.cleared.iter().any(|gone| base.is_within(gone) && base != gone);
        cleared.then(|| Refusal::Carries(base.clone()))
    }

    fn words(&self) -> String {
        match self {
            Self::Agent(name) => format!("the agent {name}"),
            Self::Below(base) => format!("what is below {base}"),
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use nexus_messages::Holding;
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> VPath {
        text.parse().unwrap()
    }

    fn below(text: &str) -> Subject {
        Subject::Below(path(text))
    }

    fn holding(at: &str, owner: &str, bytes: u64) -> Holding {
        Holding { path: path(at), owner: owner.into(), files: 1, bytes }
    }

    fn change(before: Option<Holding>, after: Option<Holding>) -> Effect {
        Effect {
            before: before.into_iter().collect(),
            after: after.into_iter().collect(),
            ..Effect::default()
        }
    }

    fn books(subjects: &[Subject]) -> Books {
        let mut books = Books::default();
        assert!(books.keep(&subjects.iter().cloned().collect()));
        books.begin_count();
        assert!(books.take_over(Lsn(0), &Count::of(books.subjects())));
        books.end_count(true);
        books
    }

    fn limits(subject: &Subject, bytes: u64) -> BTreeMap<Subject, Limits> {
        [(subject.clone(), Limits { bytes: Some(bytes), ..Limits::default() })].into()
    }

    #[test]
    fn what_is_reserved_counts_and_what_failed_is_free_again() {
        let (subject, mut books) = (below("/a"), books(&[below("/a")]));
        let limits = limits(&subject, 100);
        let sixty = Arc::new(change(None, Some(holding("/a/x", "me", 60))));
        books.reserve(&limits, None, &sixty).unwrap();
        assert!(matches!(books.reserve(&limits, None, &sixty), Err(Refusal::Exceeds(_))));
        books.settle(&sixty, None);
        books.reserve(&limits, None, &sixty).unwrap();
        books.settle(&sixty, Some(Lsn(1)));
        assert_eq!(books.usage(&subject), Some(Usage { bytes: 60, files: 1 }));
        // In place it costs what it adds; elsewhere nothing.
        let ninety = change(Some(holding("/a/x", "me", 60)), Some(holding("/a/x", "me", 90)));
        books.reserve(&limits, None, &ninety).unwrap();
        books.reserve(&limits, None, &change(None, Some(holding("/ab", "me", 1_000)))).unwrap();
    }

    #[test]
    fn weighing_again_reserves_once() {
        let (subject, mut books) = (below("/a"), books(&[below("/a")]));
        let limits = limits(&subject, 100);
        let effect = change(None, Some(holding("/a/x", "me", 60)));
        books.reserve(&limits, None, &effect).unwrap();
        books.reserve(&limits, Some(&effect), &effect).unwrap();
        books.settle(&Arc::new(effect), Some(Lsn(1)));
        assert_eq!(books.accounts[&subject].reserved, Delta::default());
    }

    #[test]
    fn a_directory_does_not_cross_a_border() {
        let check = |from: &str, to: &str, good| {
            let effect = Effect { moved: vec![(path(from), path(to))], ..Effect::default() };
            assert_eq!(below("/a/b").loses(&effect).is_none(), good, "{from} to {to}");
        };
        check("/a/b/x", "/a/b/y", true);
        check("/c", "/d", true);
        check("/a/b/x", "/c", false);
        check("/c", "/a/b/x", false);
        check("/a", "/c", false);
        check("/a/b", "/a/c", false);
        check("/c", "/a", false);
    }

    #[test]
    fn what_is_limited_no_more_stands_in_nobodys_way() {
        let (subject, mut books) = (below("/a/b"), books(&[below("/a/b")]));
        let moved = Arc::new(Effect { moved: vec![(path("/a/b/x"), path("/c"))], ..Effect::default() });
        let cleared = Effect { cleared: vec![path("/a")], ..Effect::default() };
        let limits = limits(&subject, 100);
        assert!(matches!(books.reserve(&limits, None, &moved), Err(Refusal::Crosses(_))));
        assert!(matches!(books.reserve(&limits, None, &cleared), Err(Refusal::Carries(_))));
        books.reserve(&BTreeMap::new(), None, &cleared).unwrap();
        books.reserve(&BTreeMap::new(), None, &moved).unwrap();
        books.settle(&moved, Some(Lsn(1)));
        assert!(books.doubtful, "another version may limit it: it is counted anew");
        assert_eq!(books.usage(&subject), None);
    }

    #[test]
    fn accounts_end_with_their_limits() {
        let mut books = Books::default();
        for n in 0..2 * ACCOUNTS_MAX {
            assert!(books.keep(&BTreeSet::from([Subject::Agent(n.to_string().into())])));
        }
        assert_eq!(books.subjects().len(), 1);
        let many = (0..=ACCOUNTS_MAX).map(|n| Subject::Agent(n.to_string().into())).collect();
        assert!(!books.keep(&many));
        assert_eq!(books.subjects().len(), 1);
    }

    #[test]
    fn a_count_that_fails_leaves_the_doubt() {
        let mut books = books(&[below("/a")]);
        books.doubt(&change(None, Some(holding("/a/x", "me", 60))));
        books.begin_count();
        books.end_count(false);
        assert!(books.doubtful);
    }

    #[test]
    fn tokens_come_back_with_time() {
        let subject = Subject::Agent("me".into());
        let mut books = books(std::slice::from_ref(&subject));
        let limits = [(subject, Limits { ops_per_s: Some(10), ..Limits::default() })].into();
        let mut spend = |millis| books.spend(&limits, "me", &[], Duration::from_millis(millis)).is_ok();
        assert!((0..10).all(|_| spend(5_000)), "as many at once as in a second");
        assert!(!spend(5_050));
        assert!(spend(5_100));
        assert!(!spend(5_100));
        assert_eq!((0..100).filter(|_| spend(60_000)).count(), 10, "no more are saved up");
        assert!(!spend(59_000), "time that goes back brings none");
    }

    proptest! {
        /// Against a naive model: changes committed in order and settled in another, with counts in between.
        #[test]
        fn usage_is_what_is_there_however_settling_and_counting_meet(
            steps in prop::collection::vec((0..4usize, 0..50u64, 0..6usize, any::<bool>()), 1..80),
        ) {
            let subject = below("/a");
            let mut books = books(std::slice::from_ref(&subject));
            let none = BTreeMap::new();
            let names = ["/a/0", "/a/1", "/b/0", "/b/1"];
            let mut there: BTreeMap<&str, u64> = BTreeMap::new();
            let mut waiting: Vec<(Lsn, Arc<Effect>)> = Vec::new();
            let mut counting: Option<(Lsn, Count)> = None;
            let mut lsn = Lsn(0);
            for (file, bytes, settles, counts) in steps {
                let name = names[file];
                let before = there.get(name).map(|bytes| holding(name, "me", *bytes));
                let after = (bytes > 0).then(|| holding(name, "me", bytes));
                match bytes {
                    0 => there.remove(name),
                    _ => there.insert(name, bytes),
                };
                let effect = Arc::new(change(before, after));
                books.reserve(&none, None, &effect).unwrap();
                lsn.0 += 1;
                waiting.push((lsn, effect));
                if counts {
                    match counting.take() {
                        None => {
                            books.begin_count();
                            let mut count = Count::of(books.subjects());
                            there.iter().for_each(|(name, bytes)| count.add(&path(name), "me", *bytes));
                            counting = Some((lsn, count));
                        }
                        Some((at, count)) => {
                            prop_assert!(books.take_over(at, &count));
                            books.end_count(true);
                        }
                    }
                }
                // From the end too, as when a caller is slow to hear.
                for _ in 0..settles {
                    let Some((lsn, effect)) = waiting.pop() else { break };
                    books.settle(&effect, Some(lsn));
                }
            }
            if let Some((at, count)) = counting {
                prop_assert!(books.take_over(at, &count));
                books.end_count(true);
            }
            for (lsn, effect) in waiting {
                books.settle(&effect, Some(lsn));
            }
            let mine = there.iter().filter(|(name, _)| name.starts_with("/a"));
            let (bytes, files) = mine.fold((0, 0), |(bytes, files), (_, size)| (bytes + size, files + 1));
            prop_assert_eq!(books.usage(&subject), Some(Usage { bytes, files }));
            prop_assert_eq!(books.accounts[&subject].reserved, Delta::default());
            prop_assert_eq!((books.drift().bytes, books.drift().files), (0, 0), "there was nothing to correct");
        }
    }
}
