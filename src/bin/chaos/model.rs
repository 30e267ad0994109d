//! What the files of the run may be: the oracle's pure core, and what clients write.
//!
//! Each client has a home that it alone changes, one change at a time. So a home is known but for the change that is under way, and a
//! reader of another's home can say which versions it may find.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus::OpId;
use serde::{Deserialize, Serialize};

use crate::locks::{LOCKERS, kept::Kept};
use crate::plan::Dice;
use crate::streams::{APPENDERS, durable::Durable};
use crate::watches::history::{Live, Watching};
use crate::watches::{self, AllMade, CURSORS};

/// Clients of the run.
pub(crate) const CLIENTS: usize = 8;

/// Files in a home.
pub(crate) const FILES: usize = 8;

/// The client whose home is on a mount of plain files, where a driver finds them by their paths.
pub(crate) const ON_PLAIN: usize = 6;

/// The mounts beside `/`: plain files; a driver that fails at will; one that comes and goes.
pub(crate) const PLAIN: &str = "/plain";
pub(crate) const BAD: &str = "/bad";
pub(crate) const SCRATCH: &str = "/scratch";

/// Where little may be: in the one place of everybody together, in the other of one agent.
pub(crate) const TIGHT: &str = "/tight";
pub(crate) const THRIFT: &str = "/thrift";

/// Where the audit log is.
pub(crate) const AUDITED: &str = "/audit";

/// What nobody may write: the policy refuses it.
pub(crate) const FORBIDDEN: &str = "/forbidden";

/// Content above this length is no longer kept beside its row.
const SMALL: u64 = 3_000;
const LARGE: u64 = 40_000;

/// Every so many versions are large.
const LARGE_EVERY: u64 = 6;

/// The files of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Home {
    /// Which of its two names the folder has.
    turned: bool,
    files: Vec<File>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    /// The last version written; 0 before the first.
    version: u64,
    present: bool,
    /// Which of its two names it has.
    moved: bool,
}

/// A change of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// The next version of a file, which is made when it is not there.
    Write(usize),
    /// A file gets its other name.
    Rename(usize),
    Remove(usize),
    /// The folder, with all in it, gets its other name.
    Turn,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { turned: false, files: vec![File::default(); FILES] }
    }

    /// The home after `change`.
    pub(crate) fn after(&self, change: Change) -> Self {
        let mut after = self.clone();
        match change {
            Change::Write(file) => {
                after.files[file].version += 1;
                after.files[file].present = true;
            }
            Change::Rename(file) => after.files[file].moved ^= true,
            Change::Remove(file) => after.files[file].present = false,
            Change::Turn => after.turned ^= true,
        }
        after
    }

    /// Whether `change` can be made now.
    pub(crate) fn allows(&self, change: Change) -> bool {
        match change {
            Change::Write(_) | Change::Turn => true,
            Change::Rename(file) | Change::Remove(file) => self.files[file].present,
        }
    }

    /// Whether a path of the home comes or goes with `change`.
    pub(crate) fn is_moved_by(&self, change: Change) -> bool {
        !matches!(change, Change::Write(file) if self.files[file].present)
    }

    pub(crate) fn folder(&self, client: usize) -> String {
        format!("{}/{}", base(client), if self.turned { "e" } else { "d" })
    }

    pub(crate) fn path(&self, client: usize, file: usize) -> String {
        let name = if self.files[file].moved { "b" } else { "a" };
        format!("{}/{file}{name}", self.folder(client))
    }

    /// The version of a file that is there.
    pub(crate) fn version(&self, file: usize) -> Option<u64> {
        let file = &self.files[file];
        file.present.then_some(file.version)
    }

    /// The version that the next write of a file makes.
    pub(crate) fn next_version(&self, file: usize) -> u64 {
        self.files[file].version + 1
    }

    /// All that is there: the files with their contents' marks.
    pub(crate) fn listing(&self, client: usize) -> BTreeMap<String, Mark> {
        let there = (0..FILES).filter_map(|file| {
            let version = self.version(file)?;
            Some((self.path(client, file), Mark { client, file, version }))
        });
        there.collect()
    }
}

/// Where a client's home is.
pub(crate) fn base(client: usize) -> String {
    if client == ON_PLAIN { format!("{PLAIN}/c{client}") } else { format!("/c{client}") }
}

/// What a content says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) client: usize,
    pub(crate) file: usize,
    pub(crate) version: u64,
}

impl Mark {
    /// The content with this mark: a line that says it, and a filling that no other has.
    pub(crate) fn content(self) -> Bytes {
        let Self { client, file, version } = self;
        let (mut dice, length) = self.begin();
        let mut content = format!("{client} {file} {version}\n").into_bytes();
        while (content.len() as u64) < length {
            content.extend_from_slice(&dice.roll().to_le_bytes());
        }
        content.into()
    }

    /// Where its filling comes from, and how many bytes it has at least.
    fn begin(self) -> (Dice, u64) {
        let Self { client, file, version } = self;
        let mut dice = Dice::new(version ^ (client as u64) << 56 ^ (file as u64) << 48);
        let most = if version.is_multiple_of(LARGE_EVERY) { LARGE } else { SMALL };
        let least = most / 2 + dice.below(most / 2);
        (dice, least)
    }

    /// How long the content with this mark is.
    pub(crate) fn length(self) -> u64 {
        let Self { client, file, version } = self;
        let line = format!("{client} {file} {version}\n").len() as u64;
        line + self.begin().1.saturating_sub(line).next_multiple_of(8)
    }

    /// The mark of a content that is whole; none for any other.
    pub(crate) fn of(content: &[u8]) -> Option<Self> {
        let line = content.split(|byte| *byte == b'\n').next()?;
        let mut said = str::from_utf8(line).ok()?.split(' ');
        let (client, file, version) = (said.next()?, said.next()?, said.next()?);
        let mark =
            Self { client: client.parse().ok()?, file: file.parse().ok()?, version: version.parse().ok()? };
        (*mark.content() == *content).then_some(mark)
    }
}

/// All homes as the oracle knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    homes: Vec<Home>,
    /// The change of each client that began, and of whose end nothing was heard.
    pending: Vec<Option<(Change, OpId)>>,
    /// What became of every change, by its identity: the audit log must say the same. For the oracle alone.
    #[serde(skip)]
    became: BTreeMap<OpId, Became>,
    /// Where in the log those are whose callers were told. For the oracle alone.
    #[serde(skip)]
    pub(crate) lsns: BTreeMap<OpId, u64>,
    /// As what every change is to be told, by its identity. For the oracle alone, as what the live watcher was told.
    #[serde(skip)]
    made: AllMade,
    #[serde(skip)]
    pub(crate) live: Live,
    pub(crate) watches: Vec<Watching>,
    pub(crate) kept: Vec<Kept>,
    /// Above this one are all tokens of locks that are given from now on.
    pub(crate) token: u64,
    pub(crate) stream: Durable,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Became {
    /// It was acknowledged.
    Acknowledged,
    /// It is there, and nobody said so.
    Found,
    NotMade,
    /// Nothing was heard.
    Unknown,
}

impl Became {
    /// What is known when it is there or not, and by that committed or not. In files of others nothing is: a driver may have done it whose caller was killed before the commit.
    fn of(client: usize, is_there: bool) -> Self {
        match (client, is_there) {
            (ON_PLAIN, true) => Self::Found,
            (ON_PLAIN, false) => Self::Unknown,
            (_, true) => Self::Acknowledged,
            (_, false) => Self::NotMade,
        }
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            homes: vec![Home::new(); CLIENTS],
            pending: vec![None; CLIENTS],
            became: BTreeMap::new(),
            lsns: BTreeMap::new(),
            made: AllMade::new(),
            live: Live::default(),
            watches: vec![Watching::default(); CURSORS],
            kept: vec![Kept::Free; LOCKERS],
            token: 0,
            stream: Durable::new(APPENDERS),
        }
    }

    pub(crate) fn homes(&self) -> &[Home] {
        &self.homes
    }

    pub(crate) fn begun(&mut self, client: usize, change: Change, op_id: OpId) {
        self.pending[client] = Some((change, op_id));
        self.became.insert(op_id, Became::Unknown);
        self.made.insert(op_id, watches::made(&self.homes[client], client, change));
    }

    /// The change that began has ended, and was made or not.
    pub(crate) fn ended(&mut self, client: usize, op_id: OpId, became: Became) {
        let known = if became == Became::Found { Became::of(client, true) } else { became };
        self.became.insert(op_id, known);
        if let Some((change, _)) = self.pending[client].take()
            && became != Became::NotMade
        {
            self.homes[client] = self.homes[client].after(change);
        }
    }

    /// What is wrong with what watchers were told, when all with cursors were told everything.
    pub(crate) fn check_watches(&mut self) -> Vec<String> {
        let Self { watches, live, made, became, lsns, .. } = self;
        let mut wrong = Vec::new();
        for (number, watching) in watches.iter_mut().enumerate() {
            let became = |op_id| became.get(&op_id).copied().unwrap_or(Became::Unknown);
            let found = watching.check(|client| watches::is_watched(number, client), made, became, lsns);
            wrong.extend(found.into_iter().map(|wrong| format!("watcher {number}: {wrong}")));
        }
        let all = watches.last().map(|all| live.check(all)).unwrap_or_default();
        wrong.extend(all.into_iter().map(|wrong| format!("the live watcher: {wrong}")));
        wrong
    }

    /// What is known of the lock of a client that outlives the process.
    pub(crate) fn kept(&self, locker: usize) -> Kept {
        self.kept.get(locker).copied().unwrap_or_default()
    }

    /// What is wrong with how often a log tells of each change: just once of what was acknowledged, at most once of what may have been done, and never of what was not.
    pub(crate) fn disagrees(&self, told: &BTreeMap<OpId, u64>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (op_id, became) in &self.became {
            let times = told.get(op_id).copied().unwrap_or(0);
            let is_right = match became {
                Became::Acknowledged => times == 1,
                Became::Found | Became::Unknown => times <= 1,
                Became::NotMade => times == 0,
            };
            if !is_right {
                wrong.push(format!("the audit log tells {times} times of {op_id}, which is {became:?}"));
            }
        }
        wrong
    }

    /// Holds what is there against what may be: the home without the pending change, or with it; which of them it is, is known from then on.
    pub(crate) fn settle(
        &mut self,
        client: usize,
        found: &BTreeMap<String, Option<Mark>>,
    ) -> Result<(), String> {
        let before = self.homes[client].clone();
        let after = self.pending[client].map(|(change, _)| before.after(change));
        let mut why = String::new();
        // No change leaves a home as it was.
        for (may_be, is_made) in [(Some(before), false), (after, true)] {
            let Some(may_be) = may_be else { continue };
            let mut expected: BTreeMap<String, Option<Mark>> =
                may_be.listing(client).into_iter().map(|(path, mark)| (path, Some(mark))).collect();
            expected.insert(base(client), None);
            expected.insert(may_be.folder(client), None);
            if expected == *found {
                self.homes[client] = may_be;
                if let Some((_, op_id)) = self.pending[client].take() {
                    self.became.insert(op_id, Became::of(client, is_made));
                }
                return Ok(());
            }
            let missing = expected.iter().filter(|(path, mark)| found.get(*path) != Some(mark));
            let foreign = found.iter().filter(|(path, mark)| expected.get(*path) != Some(mark));
            why = format!(
                "{why}; expected and not there: {:?}; there and not expected: {:?}",
                missing.collect::<Vec<_>>(),
                foreign.collect::<Vec<_>>()
            );
        }
        let pending = self.pending[client].take();
        Err(format!("the home of client {client} (under way: {pending:?}){why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_says_what_it_is_and_a_torn_one_nothing() {
        for version in 1..20 {
            let mark = Mark { client: 3, file: 2, version };
            let content = mark.content();
            assert_eq!(Mark::of(&content), Some(mark));
            assert_eq!(mark.length(), content.len() as u64);
            assert_eq!(Mark::of(&content[..content.len() - 1]), None);
            let mut torn = content.to_vec();
            torn[content.len() / 2] ^= 1;
            assert_eq!(Mark::of(&torn), None);
        }
    }

    fn found_of(client: usize, home: &Home) -> BTreeMap<String, Option<Mark>> {
        let files = home.listing(client).into_iter().map(|(path, mark)| (path, Some(mark)));
        files.chain([(base(client), None), (home.folder(client), None)]).collect()
    }

    fn found(home: &Home) -> BTreeMap<String, Option<Mark>> {
        found_of(1, home)
    }

    #[test]
    fn a_change_of_unknown_end_may_be_there_or_not_and_nothing_else_may() {
        let mut ledger = Ledger::new();
        for change in [Change::Write(0), Change::Write(1), Change::Write(0), Change::Turn, Change::Rename(1)]
        {
            assert!(ledger.homes[1].allows(change));
            ledger.begun(1, change, OpId(0));
            ledger.ended(1, OpId(0), Became::Acknowledged);
        }
        let before = ledger.homes[1].clone();
        for change in [Change::Write(0), Change::Remove(1), Change::Turn, Change::Rename(0)] {
            let after = before.after(change);
            for now in [&before, &after] {
                let mut ledger = ledger.clone();
                ledger.begun(1, change, OpId(0));
                ledger.settle(1, &found(now)).expect("it may be so");
                assert_eq!(ledger.homes[1], *now);
                // Now it is known.
                let other = if now == &before { &after } else { &before };
                ledger.settle(1, &found(other)).expect_err("it was the other");
            }
        }
    }

    #[test]
    fn a_hole_a_double_and_what_was_not_made_are_seen_in_a_log() {
        let check = |became, times: u64, is_right: bool| {
            let mut ledger = Ledger::new();
            ledger.begun(ON_PLAIN, Change::Turn, OpId(7));
            if became != Became::Unknown {
                ledger.ended(ON_PLAIN, OpId(7), became);
            }
            let told = if times == 0 { BTreeMap::new() } else { BTreeMap::from([(OpId(7), times)]) };
            assert_eq!(ledger.disagrees(&told).is_empty(), is_right, "{became:?}, {times} times");
        };
        for became in [Became::Acknowledged, Became::Found, Became::NotMade, Became::Unknown] {
            check(became, 0, became != Became::Acknowledged);
            check(became, 1, became != Became::NotMade);
            check(became, 2, false);
        }
    }

    #[test]
    fn what_was_under_way_is_to_be_in_a_log_when_it_is_there_and_not_when_it_is_not() {
        let check = |client: usize, is_there: bool, times: u64, is_right: bool| {
            let mut ledger = Ledger::new();
            let before = ledger.homes[client].clone();
            ledger.begun(client, Change::Turn, OpId(7));
            let now = if is_there { before.after(Change::Turn) } else { before };
            ledger.settle(client, &found_of(client, &now)).expect("it may be so");
            let told = if times == 0 { BTreeMap::new() } else { BTreeMap::from([(OpId(7), times)]) };
            assert_eq!(ledger.disagrees(&told).is_empty(), is_right, "{client} {is_there} {times}");
        };
        for is_there in [false, true] {
            check(1, is_there, 0, !is_there);
            check(1, is_there, 1, is_there);
            check(ON_PLAIN, is_there, 0, true);
            check(ON_PLAIN, is_there, 1, true);
        }
        let mut ledger = Ledger::new();
        ledger.begun(1, Change::Turn, OpId(7));
        ledger.ended(1, OpId(7), Became::Found);
        assert!(!ledger.disagrees(&BTreeMap::new()).is_empty(), "it was found, and so committed");
    }

    #[test]
    fn a_lost_write_and_a_foreign_file_are_seen() {
        let mut ledger = Ledger::new();
        ledger.begun(1, Change::Write(4), OpId(0));
        ledger.ended(1, OpId(0), Became::Acknowledged);
        ledger.settle(1, &found(&Home::new())).expect_err("the write is lost");
        let mut more = found(&ledger.homes[1]);
        more.insert("/c1/d/x".into(), Some(Mark { client: 1, file: 0, version: 1 }));
        ledger.settle(1, &more).expect_err("a file more");
        let mut torn = found(&ledger.homes[1]);
        torn.insert(ledger.homes[1].path(1, 4), None);
        ledger.settle(1, &torn).expect_err("a torn file");
    }
}
