//! Rows that are in the log and not yet in the database below it.
//!
//! Every row is kept with the number of the frame that wrote it. So a reader sees the rows as of one frame while the next one is written. One row is
//! found by its hash: most looks are for what is not here, and an ordered search would pay for each of them. Rows stand one behind the other as they
//! came, and what is searched are their places alone, which are few bytes each. The order is made when somebody asks for it, and for the table that
//! is asked for: many a layer is folded before anybody does.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_skiplist::{SkipMap, SkipSet};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use nexus_kernel::hal::{LogRecord, RowKey, Table, TreeId};
use nexus_messages::{Lsn, OpId};
use parking_lot::{Mutex, RwLock};

/// What a row costs beside its bytes.
const ROW_OVERHEAD: u64 = 128;

/// What a frame costs beside its rows and records.
const FRAME_OVERHEAD: u64 = 64;

/// A row as of one frame; no value for one that was removed.
#[derive(Debug, Clone)]
struct Version {
    seq: u64,
    value: Option<Bytes>,
}

/// The frame of a version that was taken back: none has this number.
const NEVER: u64 = u64::MAX;

/// A row as of each frame that wrote it.
#[derive(Debug)]
struct Versions {
    newest: Version,
    /// The others, the oldest first.
    older: Vec<Version>,
}

impl Versions {
    /// The row as of the frame `seq`; none before the first one that wrote it.
    #[expect(clippy::option_option, reason = "whether it is known here, and whether there is a row")]
    fn as_of(&self, seq: u64) -> Option<Option<Bytes>> {
        let mut all = std::iter::once(&self.newest).chain(self.older.iter().rev());
        all.find(|version| version.seq <= seq && version.seq != NEVER).map(|version| version.value.clone())
    }

    fn write(&mut self, version: Version) {
        let before = std::mem::replace(&mut self.newest, version);
        // Of one frame only what it left counts.
        if before.seq != self.newest.seq && before.seq != NEVER {
            self.older.push(before);
        }
    }

    fn take_back(&mut self, seq: u64) {
        if self.newest.seq == seq {
            self.newest = self.older.pop().unwrap_or(Version { seq: NEVER, value: None });
        }
    }
}

/// How many parts the rows are in, by their hashes: who reads one does not wait for who writes another.
const PARTS: usize = 16;

/// Rows whose hashes belong together.
#[derive(Debug, Default)]
struct Part {
    /// As they came. One that was taken back stays, without a version, while there is one after it.
    rows: Vec<(RowKey, Versions)>,
    /// Where in `rows` each of them is.
    places: HashTable<u32>,
}

impl Part {
    fn with_room(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), places: HashTable::with_capacity(rows) }
    }

    fn place(&self, hash: u64, key: &RowKey) -> Option<usize> {
        let found = self.places.find(hash, |place| self.rows[*place as usize].0 == *key);
        found.map(|place| *place as usize)
    }

    /// Adds a row that is not there.
    fn add(&mut self, hash: u64, key: &RowKey, newest: Version, hasher: &RandomState) {
        // Far more would not fit into the bytes that a layer may take.
        let place = u32::try_from(self.rows.len()).expect("a layer has fewer rows");
        self.rows.push((key.clone(), Versions { newest, older: Vec::new() }));
        let rows = &self.rows;
        self.places.insert_unique(hash, place, |place| hasher.hash_one(&rows[*place as usize].0));
    }

    /// Takes back what frame `seq` wrote of the row at `place`. Whether the row is gone with that.
    fn take_back(&mut self, hash: u64, place: usize, seq: u64) -> bool {
        let versions = &mut self.rows[place].1;
        versions.take_back(seq);
        if versions.newest.seq != NEVER || place + 1 < self.rows.len() {
            return false;
        }
        self.rows.pop();
        if let Ok(found) = self.places.find_entry(hash, |other| *other as usize == place) {
            found.remove();
        }
        true
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.places.clear();
    }
}

/// In which part a row with this hash is. The table of a part looks at the first bits and at the last ones.
fn part_of(hash: u64) -> usize {
    usize::from(hash.to_le_bytes()[4]) % PARTS
}

/// A record of the log, and what is kept beside it.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) record: Arc<LogRecord>,
    pub(super) repeatable: bool,
    seq: u64,
}

/// The keys of one table in their order. One whose row was taken back may still be there.
#[derive(Debug, Default)]
struct Keys {
    ordered: SkipSet<RowKey>,
    /// Held by whoever puts keys in order; taken before the lock of a part.
    done: Mutex<Ordered>,
    /// How many there are.
    count: AtomicUsize,
}

/// What is in order.
#[derive(Debug, Default)]
struct Ordered {
    /// How many keys.
    count: usize,
    /// All rows of each part up to here.
    rows: [usize; PARTS],
}

/// Rows and records of a run of frames.
#[derive(Debug)]
pub(super) struct Layer {
    rows: [RwLock<Part>; PARTS],
    hasher: RandomState,
    /// The keys of `rows`, by table.
    keys: [Keys; Table::ALL.len()],
    /// The records of each tree, one place after the other.
    log: RwLock<BTreeMap<TreeId, Vec<Logged>>>,
    ops: SkipMap<OpId, (TreeId, Lsn, u64)>,
    bytes: AtomicU64,
    /// The last frame before it.
    after: u64,
    /// The last frame that readers see.
    published: AtomicU64,
}

impl Layer {
    /// An empty layer, for the frames after `seq`.
    pub(super) fn after(seq: u64) -> Self {
        Self::with_room(seq, 0)
    }

    /// An empty layer, for the frames after `seq`, with room for as many rows as there are here, however they are spread over its parts.
    pub(super) fn next(&self, seq: u64) -> Self {
        let rows = self.rows.iter().map(|part| part.read().rows.len()).max().unwrap_or(0);
        Self::with_room(seq, rows + rows / 4)
    }

    /// The same layer without what is in it: in memory that was touched before, which is sooner filled than new one.
    pub(super) fn emptied(mut self) -> Self {
        self.rows.iter_mut().for_each(|part| part.get_mut().clear());
        Self {
            rows: self.rows,
            hasher: self.hasher,
            keys: Default::default(),
            log: RwLock::default(),
            ops: SkipMap::new(),
            bytes: AtomicU64::new(0),
            after: 0,
            published: AtomicU64::new(0),
        }
    }

    /// Has an empty layer be for the frames after `seq`.
    pub(super) fn begin(mut self, seq: u64) -> Self {
        self.after = seq;
        self.published = AtomicU64::new(seq);
        self
    }

    /// With room for so many rows in each part.
    fn with_room(seq: u64, rows: usize) -> Self {
        Self {
            rows: std::array::from_fn(|_| RwLock::new(Part::with_room(rows))),
            hasher: RandomState::default(),
            keys: Default::default(),
            log: RwLock::default(),
            ops: SkipMap::new(),
            bytes: AtomicU64::new(0),
            after: seq,
            published: AtomicU64::new(seq),
        }
    }

    /// The last frame that readers see.
    pub(super) fn published(&self) -> u64 {
        // Pairs with the store in `publish`: who sees the number sees the rows of its frame.
        self.published.load(Ordering::Acquire)
    }

    /// From here on readers see the frame `seq`.
    pub(super) fn publish(&self, seq: u64) {
        self.bytes.fetch_add(FRAME_OVERHEAD, Ordering::Relaxed);
        self.published.store(seq, Ordering::Release);
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        // A hint for when to fold; nothing is ordered by it.
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether readers see no frame of it.
    pub(super) fn is_empty(&self) -> bool {
        self.published() == self.after
    }

    /// Says that it takes as much memory as at an earlier look: what came since was taken back.
    pub(super) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Writes a row, or removes it, in frame `seq`.
    pub(super) fn put(&self, key: &RowKey, value: Option<Bytes>, seq: u64) {
        let cost = (key.bytes.len() + value.as_ref().map_or(0, Bytes::len)) as u64 + ROW_OVERHEAD;
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        let version = Version { seq, value };
        let hash = self.hasher.hash_one(key);
        let mut part = self.rows[part_of(hash)].write();
        if let Some(place) = part.place(hash, key) {
            part.rows[place].1.write(version);
        } else {
            part.add(hash, key, version, &self.hasher);
            // Orders nothing by itself: a reader sees the row from the frame's publication on.
            self.keys[place_of(key.table)].count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a row of frame `seq` out again: the frame was not written. To be called for the last row first: then nothing is left of the frame.
    pub(super) fn take_back(&self, key: &RowKey, seq: u64) {
        let hash = self.hasher.hash_one(key);
        let (at, table) = (part_of(hash), place_of(key.table));
        let mut done = self.keys.each_ref().map(|keys| keys.done.lock());
        let mut part = self.rows[at].write();
        let Some(place) = part.place(hash, key) else { return };
        if part.take_back(hash, place, seq) {
            self.keys[table].count.fetch_sub(1, Ordering::Relaxed);
            done[table].count -= usize::from(done[table].rows[at] > place);
            done.iter_mut().for_each(|done| done.rows[at] = done.rows[at].min(place));
        }
    }

    /// Keeps the record of an entry of frame `seq`.
    pub(super) fn log(&self, tree: TreeId, record: Arc<LogRecord>, repeatable: bool, seq: u64) {
        let (lsn, op_id) = (record.lsn, record.op_id);
        let cost = record.bytes() + ROW_OVERHEAD;
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        if repeatable {
            self.ops.insert(op_id, (tree, lsn, seq));
        }
        self.log.write().entry(tree).or_default().push(Logged { record, repeatable, seq });
    }

    /// Takes a record out again, and all of its tree after it: their frame was not written.
    pub(super) fn unlog(&self, tree: TreeId, record: &LogRecord, repeatable: bool) {
        if let Some(records) = self.log.write().get_mut(&tree) {
            records.truncate(records.partition_point(|logged| logged.record.lsn < record.lsn));
        }
        if repeatable {
            self.ops.remove(&record.op_id);
        }
    }

    /// What the frames up to `seq` say of the row at `key`; none when they say nothing.
    #[expect(clippy::option_option, reason = "whether it is known here, and whether there is a row")]
    pub(super) fn get(&self, key: &RowKey, seq: u64) -> Option<Option<Bytes>> {
        let hash = self.hasher.hash_one(key);
        let part = self.rows[part_of(hash)].read();
        part.rows[part.place(hash, key)?].1.as_of(seq)
    }

    /// The keys of `table` in their order: at least those of all frames that readers see.
    fn in_order(&self, table: Table) -> &SkipSet<RowKey> {
        let keys = &self.keys[place_of(table)];
        // Who finds nothing new waits for what somebody else puts in order.
        let mut done = keys.done.lock();
        if done.count == keys.count.load(Ordering::Relaxed) {
            return &keys.ordered;
        }
        let mut new = Vec::new();
        for (part, seen) in self.rows.iter().zip(&mut done.rows) {
            let part = part.read();
            let rows = part.rows[*seen..].iter();
            new.extend(rows.filter(|(key, _)| key.table == table).map(|(key, _)| key.clone()));
            *seen = part.rows.len();
        }
        done.count += new.len();
        // One beside the other, each is soon found in the place of the one before it.
        new.sort_unstable();
        for key in new {
            keys.ordered.insert(key);
        }
        &keys.ordered
    }

    /// What the frames up to `seq` say of the rows whose keys begin with `prefix` and are greater than `after`, in the order of the keys.
    pub(super) fn within<'a>(
        &'a self,
        prefix: &'a RowKey,
        after: Option<&'a RowKey>,
        seq: u64,
    ) -> impl Iterator<Item = (RowKey, Option<Bytes>)> + 'a {
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        self.in_order(prefix.table)
            .range((start, Bound::Unbounded))
            .map(|entry| entry.value().clone())
            .take_while(|key| key.bytes.starts_with(&prefix.bytes))
            .filter_map(move |key| self.get(&key, seq).map(|row| (key, row)))
    }

    /// The newest of each row, in the order of tables and keys.
    pub(super) fn newest(&self) -> Vec<(RowKey, Option<Bytes>)> {
        let mut newest = Vec::new();
        for part in &self.rows {
            let part = part.read();
            let rows = part.rows.iter().filter(|(_, versions)| versions.newest.seq != NEVER);
            newest.extend(rows.map(|(key, versions)| (key.clone(), versions.newest.value.clone())));
        }
        newest.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        newest
    }

    /// All records, in the order of trees and places.
    pub(super) fn records(&self) -> Vec<(TreeId, Logged)> {
        let log = self.log.read();
        let of = |(tree, records): (&TreeId, &Vec<Logged>)| {
            let tree = *tree;
            records.iter().map(move |logged| (tree, logged.clone())).collect::<Vec<_>>()
        };
        log.iter().flat_map(of).collect()
    }

    /// The records of `tree` after `since` that the frames up to `seq` hold, at most `limit`.
    pub(super) fn changes(&self, tree: TreeId, since: Lsn, seq: u64, limit: usize) -> Vec<LogRecord> {
        let log = self.log.read();
        let Some(records) = log.get(&tree) else { return Vec::new() };
        let after = records[records.partition_point(|logged| logged.record.lsn <= since)..].iter();
        after
            .take_while(|logged| logged.seq <= seq)
            .take(limit)
            .map(|logged| (*logged.record).clone())
            .collect()
    }

    /// Where the frames up to `seq` committed the operation.
    pub(super) fn outcome(&self, op_id: OpId, seq: u64) -> Option<(TreeId, Lsn)> {
        let found = self.ops.get(&op_id)?;
        let (tree, lsn, at) = *found.value();
        (at <= seq).then_some((tree, lsn))
    }
}

/// Where the keys of a table are; the tables are in the order of their numbers.
fn place_of(table: Table) -> usize {
    table as usize - 1
}

const _: () = {
    let mut place = 0;
    while place < Table::ALL.len() {
        assert!(Table::ALL[place] as usize == place + 1);
        place += 1;
    }
};

#[cfg(test)]
mod tests {
    use nexus_messages::{Op, Timestamp, VPath};

    use super::*;

    fn key(name: &str) -> RowKey {
        RowKey::new(Table::Inodes, name.as_bytes())
    }

    fn value(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    fn record(lsn: u64) -> LogRecord {
        LogRecord {
            lsn: Lsn(lsn),
            op_id: OpId(lsn.into()),
            caller: "somebody".into(),
            op: Op::Write,
            path: VPath::root(),
            other: None,
            items: Vec::new(),
            told: None,
            at: Timestamp(0),
        }
    }

    #[test]
    fn a_reader_sees_the_rows_as_of_its_frame() {
        let layer = Layer::after(0);
        layer.put(&key("a"), value("1"), 1);
        layer.put(&key("a"), value("2"), 2);
        layer.put(&key("a"), value("2, again"), 2);
        layer.put(&key("a"), None, 3);
        let seen: Vec<_> = (0..5).map(|seq| layer.get(&key("a"), seq)).collect();
        assert_eq!(seen, [None, Some(value("1")), Some(value("2, again")), Some(None), Some(None)]);
        layer.take_back(&key("a"), 3);
        assert_eq!(layer.get(&key("a"), 9), Some(value("2, again")));
        assert_eq!(layer.get(&key("ab"), 9), None);
    }

    /// Found by the chaos run: a collection listed the contents while they were folded, and what it was just putting in order was left out.
    #[test]
    fn what_is_folded_is_all_there_is_also_while_somebody_lists_it() {
        const ROWS: usize = 2_000;
        for _ in 0..20 {
            let layer = Layer::after(0);
            for row in 0..ROWS {
                layer.put(&key(&format!("{:05}", row * 7_919 % ROWS)), value("x"), 1);
            }
            std::thread::scope(|scope| {
                let all = key("");
                let listing = scope.spawn({
                    let layer = &layer;
                    move || layer.within(&all, None, 1).count()
                });
                while !listing.is_finished() {
                    assert_eq!(layer.newest().len(), ROWS);
                }
            });
        }
    }

    #[test]
    fn what_is_taken_back_of_the_log_is_a_frame_and_no_record_before_it_or_of_another_tree() {
        let layer = Layer::after(0);
        let other = TreeId(7);
        for (lsn, seq) in [(1, 1), (2, 2), (3, 2)] {
            layer.log(TreeId::ROOT, Arc::new(record(lsn)), false, seq);
        }
        layer.log(other, Arc::new(record(1)), false, 2);
        let places = |tree, seq| {
            let found = layer.changes(tree, Lsn(0), seq, 9);
            found.into_iter().map(|record| record.lsn.0).collect::<Vec<_>>()
        };
        assert_eq!((places(TreeId::ROOT, 1), places(TreeId::ROOT, 2)), (vec![1], vec![1, 2, 3]));
        assert_eq!(layer.changes(TreeId::ROOT, Lsn(1), 2, 1).len(), 1);
        for lsn in [2, 3] {
            layer.unlog(TreeId::ROOT, &record(lsn), false);
        }
        assert_eq!((places(TreeId::ROOT, 2), places(other, 2)), (vec![1], vec![1]));
        layer.log(TreeId::ROOT, Arc::new(record(2)), false, 3);
        assert_eq!((places(TreeId::ROOT, 3), layer.records().len()), (vec![1, 2], 3));
    }

    #[test]
    fn an_emptied_layer_knows_nothing_of_what_was_in_it() {
        let fill = |layer: &Layer, seq| {
            layer.put(&key("a"), value("1"), seq);
            layer.put(&key("b"), None, seq);
            layer.log(TreeId::ROOT, Arc::new(record(1)), true, seq);
            layer.publish(seq);
        };
        let seen = |layer: &Layer| {
            let all = key("");
            let listed: Vec<_> = layer.within(&all, None, u64::MAX).collect();
            let changes = layer.changes(TreeId::ROOT, Lsn(0), u64::MAX, 9).len();
            let outcome = layer.outcome(record(1).op_id, u64::MAX);
            (listed, layer.newest(), changes, outcome, layer.bytes(), layer.is_empty())
        };
        let layer = Layer::after(0);
        fill(&layer, 1);
        // One table is in order already, another is not.
        assert_eq!(seen(&layer).0.len(), 2);
        layer.put(&RowKey::new(Table::Contents, *b"c"), value("3"), 2);
        let (untouched, again) = (Layer::after(7), layer.emptied().begin(7));
        assert_eq!(seen(&again), seen(&untouched));
        assert_eq!(again.get(&key("a"), u64::MAX), None);
        assert_eq!(again.published(), 7);
        fill(&again, 8);
        fill(&untouched, 8);
        assert_eq!(seen(&again), seen(&untouched));
        assert_eq!(again.get(&key("a"), 7), None);
    }

    #[test]
    fn rows_come_in_order_each_once_as_of_the_frame() {
        let layer = Layer::after(0);
        for (name, seq) in [("b", 1), ("a", 2), ("b", 3), ("c", 4), ("ab", 2)] {
            layer.put(&key(name), value("x"), seq);
        }
        let walk = |seq| {
            let all = key("");
            let names = layer
                .within(&all, None, seq)
                .map(|(key, _)| String::from_utf8(key.bytes.into_vec()).unwrap());
            names.collect::<Vec<_>>()
        };
        assert_eq!(walk(1), ["b"]);
        assert_eq!(walk(3), ["a", "ab", "b"]);
        assert_eq!(walk(9), ["a", "ab", "b", "c"]);
        let from = |prefix: &str, after: &str| {
            let (prefix, after) = (key(prefix), key(after));
            layer.within(&prefix, Some(&after), 9).count()
        };
        assert_eq!((from("a", "a"), from("a", "b"), from("", "ab"), from("", "c")), (1, 0, 2, 0));
        assert_eq!(layer.within(&RowKey::new(Table::Contents, *b""), None, 9).count(), 0);
        assert_eq!(layer.newest().len(), 4);
        // What comes after a listing, and what was taken back and came again.
        for seq in [5, 6] {
            layer.put(&key("aa"), value("x"), seq);
            assert_eq!(walk(9), ["a", "aa", "ab", "b", "c"]);
            if seq == 5 {
                layer.take_back(&key("aa"), seq);
                assert_eq!(walk(9), ["a", "ab", "b", "c"]);
            }
        }
        // Of a frame that was not written nothing is left, whatever was listed of it.
        let left = || layer.rows.iter().map(|part| part.read().rows.len()).sum::<usize>();
        let before = left();
        let frame: Vec<_> = (0..100).map(|n| key(&format!("of a frame {}", n % 70))).collect();
        for seq in 7..9 {
            frame.iter().for_each(|key| layer.put(key, value("x"), seq));
            assert_eq!((walk(9).len(), left()), (75, before + 70));
            frame.iter().rev().for_each(|key| layer.take_back(key, seq));
            assert_eq!((walk(9).len(), left()), (5, before));
        }
        let newest = layer.newest();
        assert!(newest.is_sorted_by(|(one, _), (next, _)| one < next) && newest.len() == 5, "{newest:?}");
    }
}
