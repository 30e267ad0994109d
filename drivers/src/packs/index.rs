//! Where each blob is: what was learnt lately in memory, the rest in runs.
//!
//! The log of segments is the truth, and all of this can be made from it again. A run says up to where in the log it and those before it go; what
//! comes after is read from the log when the store is opened. Newer entries hide older ones: first what is in memory, then the runs, newest
//! first. Runs are merged so that there are few: each is at least about as large as all that are newer.
//!
//! A run is written beside the others, flushed, and then has its name; whatever fails, those that are there stay as they are.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::io;
use std::sync::Arc;

use foldhash::fast::RandomState;
use nexus_kernel::hal::StoreError;
use parking_lot::{Mutex, RwLock};

use super::run::{Entry, Place, Run, Span, Through, Wait};
use crate::disk::Folder;

/// How many neighbouring runs of a size are merged into one.
const MERGE_MIN: usize = 4;

/// One is looked for far more often than all are wanted in order.
type Entries = HashMap<String, Option<Place>, RandomState>;

pub(super) struct Index {
    folder: Arc<dyn Folder>,
    state: RwLock<State>,
    /// Held by who writes runs.
    writing: Mutex<()>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("unwritten", &self.unwritten()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    recent: Entries,
    /// Up to where `recent` goes.
    through: Through,
    /// What is being written as a run, and up to where it goes.
    frozen: Option<(Arc<Entries>, Through)>,
    /// The newest first.
    runs: Vec<Arc<Run>>,
}

impl State {
    /// What the entries in memory say of the key; none when it says nothing.
    #[expect(clippy::option_option, reason = "whether it is known here, and whether there is a blob")]
    fn in_memory(&self, key: &str) -> Option<Option<Place>> {
        let frozen = || self.frozen.as_ref().and_then(|(frozen, _)| frozen.get(key));
        self.recent.get(key).or_else(frozen).copied()
    }
}

impl Index {
    /// The index as the runs of the folder have it. Without any when one of them is damaged: then all of it must be learnt from the log.
    pub(super) fn open(folder: Arc<dyn Folder>, names: &[String]) -> Result<Self, StoreError> {
        let failed = |e| StoreError::io("opening the index", e);
        Run::clean(&*folder).map_err(failed)?;
        let mut spans: Vec<Span> = names.iter().filter_map(|name| Span::of_name(name)).collect();
        // A run that holds another one comes before it.
        spans.sort_unstable_by_key(|span| (Reverse(span.last), span.first));
        let mut runs: Vec<Arc<Run>> = Vec::new();
        let mut damaged = None;
        for span in &spans {
            if runs.iter().any(|run| run.span.contains(*span)) {
                remove(&*folder, *span).map_err(failed)?;
                continue;
            }
            match Run::open(&*folder, *span).map_err(failed)? {
                Some(run) => runs.push(Arc::new(run)),
                None => damaged = Some(*span),
            }
        }
        let follows = runs.windows(2).all(|two| two[0].span.first == two[1].span.last + 1);
        let begins = runs.last().is_none_or(|run| run.span.first == 0);
        if damaged.is_some() || !follows || !begins {
            tracing::error!(
                ?damaged,
                runs = runs.len(),
                "the index of packed blobs is damaged, and made anew from the blobs"
            );
            disown(&*folder, spans).map_err(failed)?;
            runs.clear();
        }
        let through = runs.first().map(|run| run.through).unwrap_or_default();
        let state = State { through, runs, ..State::default() };
        Ok(Self { folder, state: RwLock::new(state), writing: Mutex::new(()) })
    }

    pub(super) fn through(&self) -> Through {
        self.state.read().through
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Place>, StoreError> {
        self.look(key, Wait::ForDisk)
    }

    /// As [`get`](Self::get), for which nobody waits longer than is said.
    fn look(&self, key: &str, wait: Wait) -> Result<Option<Place>, StoreError> {
        let runs = {
            let state = self.state.read();
            if let Some(place) = state.in_memory(key) {
                return Ok(place);
            }
            state.runs.clone()
        };
        self.look_in(&runs, key, wait)
    }

    /// Each key as [`get`](Self::get), for which nobody waits longer than is said.
    pub(super) fn look_all(&self, keys: &[String], wait: Wait) -> Vec<Result<Option<Place>, StoreError>> {
        let (in_memory, runs): (Vec<_>, _) = {
            // Taken once: looks that do not wait for each other wait for memory together.
            let state = self.state.read();
            (keys.iter().map(|key| state.in_memory(key)).collect(), state.runs.clone())
        };
        let found = keys.iter().zip(in_memory);
        found.map(|(key, place)| place.map_or_else(|| self.look_in(&runs, key, wait), Ok)).collect()
    }

    /// Where the newest of `runs` that knows the key says that it is.
    fn look_in(&self, runs: &[Arc<Run>], key: &str, wait: Wait) -> Result<Option<Place>, StoreError> {
        for run in runs {
            let found = run
                .get(key, wait)
                .inspect_err(|error| condemn(&*self.folder, error, std::slice::from_ref(run)))?;
            if let Some(place) = found {
                return Ok(place);
            }
        }
        Ok(None)
    }

    /// Learns what is in the log up to `through`.
    pub(super) fn learn(&self, entries: impl IntoIterator<Item = Entry>, through: Through) {
        let mut state = self.state.write();
        state.recent.extend(entries);
        state.through = through;
    }

    /// How many entries are in memory alone.
    pub(super) fn unwritten(&self) -> usize {
        let state = self.state.read();
        state.recent.len() + state.frozen.as_ref().map_or(0, |(frozen, _)| frozen.len())
    }

    /// All keys from `from` on, in order, and where their blobs are. Never fewer: what comes after a block that cannot be read is an error.
    pub(super) fn from(
        &self,
        from: &str,
    ) -> impl Iterator<Item = Result<(String, Place), StoreError>> + use<> {
        let (merged, runs) = self.merged_from(from);
        let folder = self.folder.clone();
        merged.filter_map(move |entry| match entry {
            Ok((key, place)) => place.map(|place| Ok((key, place))),
            Err(error) => {
                condemn(&*folder, &error, &runs);
                Some(Err(error))
            }
        })
    }

    /// The entries from `from` on, and the runs that they are read from.
    fn merged_from(&self, from: &str) -> (Merge, Vec<Arc<Run>>) {
        let state = self.state.read();
        let memory = |entries: &Entries| -> Source {
            // Few of them may be taken, so they are not put in order before.
            let later = entries.iter().filter(|(key, _)| key.as_str() >= from);
            let mut later: BinaryHeap<Reverse<Entry>> =
                later.map(|(key, place)| Reverse((key.clone(), *place))).collect();
            Box::new(std::iter::from_fn(move || later.pop().map(|Reverse(entry)| Ok(entry))))
        };
        let mut sources = vec![memory(&state.recent)];
        sources.extend(state.frozen.iter().map(|(frozen, _)| memory(frozen)));
        sources.extend(state.runs.iter().map(|run| Box::new(run.clone().from(from)) as Source));
        (Merge::of(sources), state.runs.clone())
    }

    /// Writes what is in memory as a run, and merges runs when there are many. Blocks. When it fails, nothing is forgotten.
    pub(super) fn write(&self) -> Result<(), StoreError> {
        let _alone = self.writing.lock();
        self.write_alone()
    }

    /// As [`write`](Self::write), unless somebody is at it.
    pub(super) fn try_write(&self) -> Result<(), StoreError> {
        match self.writing.try_lock() {
            Some(_alone) => self.write_alone(),
            None => Ok(()),
        }
    }

    fn write_alone(&self) -> Result<(), StoreError> {
        // What an earlier attempt left frozen goes first.
        while let Some((frozen, through, span)) = self.freeze() {
            let mut entries: Vec<_> = frozen.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries = entries.into_iter().map(|(key, place)| Ok((key.clone(), *place)));
            let run = Run::write(&*self.folder, span, through, frozen.len() as u64, entries)?;
            let mut state = self.state.write();
            state.runs.insert(0, Arc::new(run));
            state.frozen = None;
        }
        while self.merge()? {}
        Ok(())
    }

    fn freeze(&self) -> Option<(Arc<Entries>, Through, Span)> {
        let state = &mut *self.state.write();
        if state.frozen.is_none() {
            if state.recent.is_empty() {
                return None;
            }
            state.frozen = Some((Arc::new(std::mem::take(&mut state.recent)), state.through));
        }
        let number = state.runs.first().map_or(0, |run| run.span.last + 1);
        let (frozen, through) = state.frozen.clone()?;
        Some((frozen, through, Span { first: number, last: number }))
    }

    fn merge(&self) -> Result<bool, StoreError> {
        let runs = self.state.read().runs.clone();
        let count = merged(&runs.iter().map(|run| run.entries).collect::<Vec<_>>());
        if count < MERGE_MIN {
            return Ok(false);
        }
        let (old, is_all) = (&runs[..count], count == runs.len());
        let span = Span { first: old[count - 1].span.first, last: old[0].span.last };
        let entries_max = old.iter().map(|run| run.entries).sum();
        let entries = Merge::of(old.iter().map(|run| Box::new(run.clone().from("")) as Source).collect());
        // Nothing older is left that a deletion would hide.
        let entries = entries.filter(|entry| !is_all || !matches!(entry, Ok((_, None))));
        let run = Run::write(&*self.folder, span, old[0].through, entries_max, entries)
            .inspect_err(|error| condemn(&*self.folder, error, old))?;
        let mut state = self.state.write();
        // Who writes runs is alone: the newest are those that were read.
        state.runs.splice(..count, [Arc::new(run)]);
        drop(state);
        for run in old {
            // One that stays is removed when the store is opened.
            if let Err(error) = remove(&*self.folder, run.span) {
                tracing::warn!(run = run.span.name(), %error, "a run that was merged stays for now");
            }
        }
        Ok(true)
    }
}

/// How many of the newest runs go into one: as long as the next older one is not much larger than they are together.
fn merged(entries: &[u64]) -> usize {
    let mut sum = 0_u64;
    for (count, entries) in entries.iter().enumerate() {
        if count > 0 && *entries > sum.saturating_mul(2) {
            return count;
        }
        sum += entries;
    }
    entries.len()
}

/// When `error` says that one of `runs` is damaged, takes the names of all runs away: what they say is in the log, too, and is learnt from there when
/// the store is opened next.
fn condemn(folder: &dyn Folder, error: &StoreError, runs: &[Arc<Run>]) {
    let StoreError::Corrupt { what, .. } = error else { return };
    if runs.iter().any(|run| *what == run.what()) {
        let named = folder.list().map(|names| names.iter().filter_map(|name| Span::of_name(name)).collect());
        let removed = named.and_then(|spans| disown(folder, spans));
        tracing::error!(%error, ?removed, "the index of packed blobs is damaged, and is made anew when it is opened next");
    }
}

/// Removes all runs. Those that begin the index come first, each durably: without them the others are no index, whatever a crash leaves of them. With
/// them, older ones without a newer one are one that is whole and out of date, and what it leads to may have been removed since.
fn disown(folder: &dyn Folder, mut spans: Vec<Span>) -> io::Result<()> {
    // The shorter one first: it may be what a merge left, and the longer one, which hides it, the only one that is known to be damaged.
    spans.sort_unstable_by_key(|span| (span.first, span.last));
    for span in spans {
        remove(folder, span)?;
        if span.first == 0 {
            folder.sync()?;
        }
    }
    folder.sync()
}

fn remove(folder: &dyn Folder, span: Span) -> io::Result<()> {
    match folder.remove(&span.name()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

type Source = Box<dyn Iterator<Item = Result<Entry, StoreError>> + Send>;

/// Sorted entries of several sources as one; of those with the same key, that of the first source.
struct Merge {
    sources: Vec<std::iter::Peekable<Source>>,
}

impl Merge {
    fn of(sources: Vec<Source>) -> Self {
        Self { sources: sources.into_iter().map(Iterator::peekable).collect() }
    }
}

impl Iterator for Merge {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<(usize, String)> = None;
        for (number, source) in self.sources.iter_mut().enumerate() {
            match source.peek() {
                Some(Ok((key, _))) if least.as_ref().is_none_or(|(_, least)| key < least) => {
                    least = Some((number, key.clone()));
                }
                Some(Ok(_)) | None => {}
                Some(Err(_)) => return source.next(),
            }
        }
        let (first, key) = least?;
        let entry = self.sources[first].next();
        for source in &mut self.sources {
            source.next_if(|entry| matches!(entry, Ok((there, _)) if *there == key));
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::disk::sim::{Fault, SimDisk};

    fn open(disk: &SimDisk) -> Index {
        let folder = disk.folder();
        let names = folder.list().unwrap();
        Index::open(folder, &names).unwrap()
    }

    fn place(n: u32) -> Option<Place> {
        Some(Place { segment: 1 + u64::from(n % 7), offset: n, len: n % 100 })
    }

    fn through(offset: u64) -> Through {
        Through { segment: 1, offset }
    }

    fn key(n: u32) -> String {
        format!("cas/{:02x}/{n:08}", n % 251)
    }

    #[test]
    fn an_index_says_what_a_map_says_over_runs_merges_and_reopening() {
        let disk = SimDisk::new(1);
        let (mut index, mut model) = (open(&disk), BTreeMap::new());
        for round in 0..60_u32 {
            let entries: Vec<Entry> = (0..200)
                .map(|n| {
                    let number = round.wrapping_mul(7_919).wrapping_add(n * 31) % 3_000;
                    (key(number), if (round + n) % 5 == 0 { None } else { place(round * 200 + n) })
                })
                .collect();
            for (key, place) in &entries {
                match place {
                    Some(place) => model.insert(key.clone(), *place),
                    None => model.remove(key),
                };
            }
            index.learn(entries, through(u64::from(round)));
            index.write().unwrap();
            if round % 10 == 9 {
                index = open(&disk);
                assert_eq!(index.through(), through(u64::from(round)));
            }
        }
        let all: Vec<_> = index.from("").map(Result::unwrap).collect();
        assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
        for n in 0..3_200 {
            assert_eq!(index.get(&key(n)).unwrap(), model.get(&key(n)).copied());
        }
        let from = key(1_234);
        assert_eq!(index.from(&from).next().unwrap().unwrap().0, *model.range(from..).next().unwrap().0);
        let runs = index.state.read().runs.len();
        assert!(runs <= 8, "{runs} runs");
    }

    #[test]
    fn runs_stay_few_and_each_entry_is_written_a_few_times() {
        let (mut runs, mut written, mut most) = (Vec::<u64>::new(), 0, 0);
        for _ in 0..10_000 {
            runs.insert(0, 1);
            loop {
                let count = merged(&runs);
                if count < MERGE_MIN {
                    break;
                }
                let sum = runs.drain(..count).sum();
                written += sum;
                runs.insert(0, sum);
            }
            most = most.max(runs.len());
        }
        assert!(most <= 24, "{most} runs at once");
        assert!(written / 10_000 <= 16, "each entry is written {} times", written / 10_000);
    }

    #[test]
    fn a_damaged_run_is_found_and_the_index_is_made_anew() {
        let disk = SimDisk::new(1);
        let index = open(&disk);
        index.learn((0..2_000).map(|n| (key(n), place(n))), through(9));
        index.write().unwrap();
        let name = disk.paths().remove(0);
        let len = disk.content(&name).unwrap().len() as u64;
        // A block that is damaged while the store is open is told when it is used, and not opened again.
        let block = disk.copy();
        let used = open(&block);
        assert!(block.damage(&name, 5, |byte| byte ^ 1, 1));
        assert!(matches!(used.get(&key(0)), Err(StoreError::Corrupt { .. })));
        assert!(!block.paths().contains(&name));
        assert_eq!(open(&block).through(), Through::default());
        for at in [5, len / 2, len - 1, len - 88, len - 100, len - 2_000] {
            let disk = disk.copy();
            assert!(disk.damage(&name, at, |byte| byte ^ 1, 1));
            assert_eq!(open(&disk).through(), Through::default(), "{at} of {len}");
        }
        assert_eq!(open(&disk).get(&key(7)).unwrap(), place(7));
    }

    /// An index of two runs, of which the newer one says that a key of the older one is gone; and the names of both.
    fn two_runs(disk: &SimDisk) -> (Index, [String; 2]) {
        let index = open(disk);
        index.learn((0..2_000).map(|n| (key(n), place(n))), through(1));
        index.write().unwrap();
        index.learn((0..2_000).map(|n| (key(n), if n == 7 { None } else { place(n) })), through(2));
        index.write().unwrap();
        let mut names = disk.paths();
        names.sort_unstable();
        (index, names.try_into().unwrap())
    }

    #[test]
    fn a_list_over_a_damaged_block_is_an_error_and_the_index_is_made_anew() {
        let disk = SimDisk::new(1);
        let (_, names) = two_runs(&disk);
        let mut whole: Vec<_> = (0..2_000).filter(|n| *n != 7).map(key).collect();
        whole.sort_unstable();
        for name in &names {
            let middle = disk.content(name).unwrap().len() as u64 / 2;
            for at in [5, middle] {
                let disk = disk.copy();
                let index = open(&disk);
                assert!(disk.damage(name, at, |byte| byte ^ 1, 1));
                let listed: Vec<_> = index.from("").collect();
                let told = listed.iter().position(Result::is_err).expect("it is told");
                assert!(matches!(listed[told], Err(StoreError::Corrupt { .. })), "{name} {at}");
                let before: Vec<_> = listed[..told].iter().flatten().map(|(key, _)| key.clone()).collect();
                assert_eq!(before, whole[..told], "up to there nothing is left out");
                // Nothing is left of it that could be taken for an index: not even a whole run that is older than the damaged one.
                assert_eq!(open(&disk).through(), Through::default(), "{name} {at}");
            }
        }
    }

    #[test]
    fn a_crash_while_a_damaged_index_is_removed_leaves_none_that_is_out_of_date() {
        let disk = SimDisk::new(1);
        let (_, names) = two_runs(&disk);
        assert!(disk.damage(&names[1], 5, |byte| byte ^ 1, 1));
        for change in 1.. {
            let disk = disk.copy();
            disk.power_off_at(disk.counts().changes + change);
            let opened = Index::open(disk.folder(), &disk.folder().list().unwrap());
            if !disk.is_off() {
                assert_eq!(opened.unwrap().through(), Through::default());
                assert!(change > 3, "it was removed in steps");
                break;
            }
            for seed in 0..16 {
                let disk = disk.copy();
                disk.crash_by(seed);
                assert_eq!(open(&disk).through(), Through::default(), "change {change}, crash {seed}");
            }
        }
    }

    #[test]
    fn a_run_that_cannot_be_written_forgets_nothing_and_is_written_later() {
        for fault in [Fault::Error, Fault::Full, Fault::Sync] {
            for at in 0.. {
                let disk = SimDisk::new(at);
                let index = open(&disk);
                index.learn((0..300).map(|n| (key(n), place(n))), through(1));
                disk.fail_from(disk.counts().operations + at, fault, 1);
                let written = index.write();
                if disk.counts().faults == 0 {
                    written.unwrap();
                    break;
                }
                assert_eq!(index.get(&key(7)).unwrap(), place(7), "{fault:?} {at}");
                index.learn([(key(7), None)], through(2));
                index.write().unwrap();
                disk.crash_by(0);
                let index = open(&disk);
                assert_eq!((index.get(&key(7)).unwrap(), index.get(&key(8)).unwrap()), (None, place(8)));
                assert_eq!(index.through(), through(2));
            }
        }
    }
}
