//! What is known of one store: its files, what of their content is here, what is pending, and what folders were seen to hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::{Change, ObjectInfo, Precondition, StoreError};
use nexus_messages::{Attributes, ContentId, EntryType, Timestamp};

use super::calls::LATE_MAX;
use super::folders::Folder;
use super::pending::Pending;
use super::rows::{FileRow, PieceRow, PlaceId, encode, file_key, piece_key, was_tagged_at};
use super::upload::{Due, LOOKED_MAX, Upload};
use super::vault::{Blob, Vault};
use super::{FILES_MAX, IN_MEMORY_MAX, INLINE_MAX, PIECE_BYTES};

/// What is let go at once when there is too much: an eighth. One by one, each look would search for the oldest.
const SHARE: usize = 8;

/// A piece of a file's content, and how long it is.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Inline(Bytes),
    Blob(Arc<Blob>, u32),
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(_, length) => u64::from(*length),
        }
    }

    fn in_memory(&self) -> u64 {
        if let Self::Inline(bytes) = self { bytes.len() as u64 } else { 0 }
    }

    fn row(&self) -> PieceRow {
        match self {
            Self::Inline(bytes) => PieceRow::Inline(bytes.clone()),
            Self::Blob(blob, length) => PieceRow::Blob { hash: blob.hash(), length: *length },
        }
    }
}

/// A file that is known.
#[derive(Debug)]
pub(super) struct File {
    /// What callers see.
    pub(super) info: ObjectInfo,
    /// The tag that the store has given it.
    remote: Option<ContentId>,
    /// When the store was last asked.
    seen: u64,
    pieces: BTreeMap<u32, Piece>,
    /// Its row, when it has one.
    row: Option<Bytes>,
    pub(super) pending: Option<Pending>,
    used: u64,
}

impl File {
    fn bytes(&self) -> u64 {
        self.pieces.values().map(Piece::len).sum()
    }

    fn in_memory(&self) -> u64 {
        self.pieces.values().map(Piece::in_memory).sum()
    }
}

/// What is known of one store. Times are nanoseconds of the wall's clock.
#[derive(Debug, Default)]
pub(super) struct Table {
    id: PlaceId,
    pub(super) files: BTreeMap<String, File>,
    pub(super) folders: HashMap<String, Folder>,
    /// The paths of what is pending.
    pub(super) pending: BTreeSet<String>,
    /// When each of them is to go to the store.
    pub(super) due: BTreeMap<(u64, u64), String>,
    /// Those that the store refuses, and that nobody has had tried again since.
    pub(super) refused: BTreeSet<String>,
    /// Until when something may arrive at the store that was given up on its way there, by path.
    pub(super) late: BTreeMap<String, u64>,
    /// How many calls that change the store itself are under way, by path.
    pub(super) calls: HashMap<String, usize>,
    /// The paths of which the index was told that something may arrive.
    pub(super) told: BTreeSet<String>,
    /// Whether somebody sees to it that the index is told when that is over.
    pub(super) is_outliving: bool,
    /// What is on its way to the store, or held back.
    pub(super) busy: HashSet<String>,
    /// About which folders the store is being asked, by how many, and how often something changed in them since.
    pub(super) asked: HashMap<String, (usize, u64)>,
    /// How many bytes of files that are not pending are here.
    bytes: u64,
    pending_bytes: u64,
    /// How many bytes of content are in memory, pending or not.
    in_memory: u64,
    /// How many bytes were let go since their space was given back.
    let_go: u64,
    /// How many bytes came since it was asked for them, of files that are not pending.
    came: u64,
    pub(super) number: u64,
}

/// The same moment by the clock of the wall, and by that of the vault, which nobody sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) wall: u64,
    pub(super) uptime: u64,
}

/// When something must have been seen to count as true: later than the first, and not in the future, which is what a clock that was set back makes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    pub(super) since: u64,
    pub(super) now: u64,
}

impl Age {
    /// Nothing that was seen counts.
    pub(super) const NONE: Self = Self { since: u64::MAX, now: 0 };

    pub(super) fn covers(self, seen: u64) -> bool {
        seen > self.since && seen <= self.now
    }
}

/// What is known of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    Is(ObjectInfo),
    Absent,
    /// Above it there is a file.
    Below(String),
    Unknown,
}

/// What is here of a file.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) info: ObjectInfo,
    pub(super) remote: Option<ContentId>,
    pub(super) is_pending: bool,
    /// Whether the store need not be asked whether this is still so.
    pub(super) is_current: bool,
    pub(super) pieces: BTreeMap<u32, Piece>,
}

/// The folder that `path` is in.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(super) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// What lies below `path` begins with.
pub(super) fn below(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}/") }
}

pub(super) fn directory() -> ObjectInfo {
    ObjectInfo::new(EntryType::Dir, 0, ContentId::Tag("directory".into()), Timestamp(0))
}

impl Table {
    /// Of the store `id`, of which nothing is known.
    pub(super) fn new(id: PlaceId) -> Self {
        Self { id, ..Self::default() }
    }

    /// Takes up a file that was in the index.
    pub(super) fn restore(
        &mut self,
        path: &str,
        row: &FileRow,
        encoded: Bytes,
        pieces: BTreeMap<u32, Piece>,
    ) {
        self.number += 1;
        let pending = row.pending.clone().map(|attributes| {
            // When the process ended this state may have been on its way, or one before it, which it is to come after.
            self.late.insert(path.to_owned(), LATE_MAX);
            let due = (if was_tagged_at(&row.tag, row.seen) { 0 } else { LATE_MAX }, self.number);
            self.pending.insert(path.to_owned());
            self.due.insert(due, path.to_owned());
            self.pending_bytes += row.size;
            let since = if row.seen > 0 { row.seen } else { row.modified.0 };
            Pending { attributes, failures: 0, due, looked: None, since, failure: None }
        });
        let file = File {
            info: row.info(),
            remote: row.remote.clone(),
            // What had begun at the store when the process ended, nobody was told of: it is asked again, once.
            seen: 0,
            pieces,
            row: Some(encoded),
            pending,
            used: self.number,
        };
        if file.pending.is_none() {
            self.bytes += file.bytes();
        }
        self.in_memory += file.in_memory();
        self.files.insert(path.to_owned(), file);
    }

    pub(super) fn id(&self) -> PlaceId {
        self.id
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many bytes have come since this was last asked.
    pub(super) fn take_came(&mut self) -> u64 {
        std::mem::take(&mut self.came)
    }

    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// How long a piece may be that becomes a part of its row, and is in memory with that.
    pub(super) fn inline_max(&self) -> usize {
        if self.in_memory < IN_MEMORY_MAX { INLINE_MAX } else { 0 }
    }

    /// Whether nothing is known of any file.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(super) fn pending_files(&self) -> usize {
        self.pending.len()
    }

    /// What is known of `path` without asking the store: what is pending, and what the store said within `age`.
    pub(super) fn known(&mut self, path: &str, age: Age) -> Known {
        if path.is_empty() {
            return Known::Unknown;
        }
        self.number += 1;
        if let Some(file) = self.files.get_mut(path)
            && (file.pending.is_some() || age.covers(file.seen))
        {
            file.used = self.number;
            return Known::Is(file.info.clone());
        }
        if self.is_pending_below(path) {
            return Known::Is(directory());
        }
        let mut above = parent(path);
        while !above.is_empty() {
            if self.pending.contains(above) {
                return Known::Below(above.to_owned());
            }
            above = parent(above);
        }
        match self.folders.get(parent(path)).filter(|folder| age.covers(folder.seen)) {
            Some(Folder { children: Some(children), .. }) => match children.get(name(path)) {
                Some(info) => Known::Is(self.shown(path, info)),
                None => Known::Absent,
            },
            _ => Known::Unknown,
        }
    }

    /// What is here of the file at `path`.
    pub(super) fn held(&mut self, path: &str, age: Age) -> Option<Held> {
        self.number += 1;
        let file = self.files.get_mut(path)?;
        file.used = self.number;
        Some(Held {
            info: file.info.clone(),
            remote: file.remote.clone(),
            is_pending: file.pending.is_some(),
            is_current: file.pending.is_some() || age.covers(file.seen),
            pieces: file.pieces.clone(),
        })
    }

    pub(super) fn is_pending(&self, path: &str) -> bool {
        self.pending.contains(path)
    }

    /// Whether a file is known at `path`.
    pub(super) fn is_file(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether something is pending below `path`.
    pub(super) fn is_pending_below(&self, path: &str) -> bool {
        let prefix = below(path);
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        self.pending.range::<str, _>(from).next().is_some_and(|path| path.starts_with(&prefix))
    }

    pub(super) fn is_pending_within(&self, path: &str) -> bool {
        self.is_pending(path) || self.is_pending_below(path)
    }

    /// What callers see of what the store says of `path`.
    pub(super) fn shown(&self, path: &str, info: &ObjectInfo) -> ObjectInfo {
        match self.files.get(path) {
            Some(file) if file.remote.as_ref() == Some(&info.tag) => file.info.clone(),
            _ => info.clone(),
        }
    }

    /// Takes what the store said of `path` just now, and gives what callers see of it. What is pending is not touched. With `keep` it is known from now on.
    pub(super) fn learn(
        &mut self,
        vault: &Arc<Vault>,
        path: &str,
        info: &ObjectInfo,
        now: u64,
        keep: bool,
    ) -> ObjectInfo {
        self.number += 1;
        if let Some(file) = self.files.get_mut(path) {
            if file.pending.is_some() {
                return file.info.clone();
            }
            let is_same = info.told_apart && file.remote.as_ref() == Some(&info.tag);
            if is_same && info.entry_type == EntryType::Reg {
                (file.seen, file.used) = (now, self.number);
                let shown = file.info.clone();
                self.note_there(path, &shown);
                return shown;
            }
            self.forget(vault, path);
        }
        self.note_there(path, info);
        if keep && info.told_apart && info.entry_type == EntryType::Reg {
            self.add(vault, path, info, now);
        }
        info.clone()
    }

    fn add(&mut self, vault: &Arc<Vault>, path: &str, info: &ObjectInfo, now: u64) {
        let file = File {
            info: info.clone(),
            remote: Some(info.tag.clone()),
            seen: now,
            pieces: BTreeMap::new(),
            row: None,
            pending: None,
            used: self.number,
        };
        self.files.insert(path.to_owned(), file);
        self.bound_files(vault);
    }

    /// Lets go some of the files that are not pending when there are too many.
    fn bound_files(&mut self, vault: &Arc<Vault>) {
        if self.files.len() - self.pending.len() > FILES_MAX {
            let oldest = self.oldest(|_| true);
            for path in oldest.into_iter().take(FILES_MAX / SHARE) {
                self.forget(vault, &path);
            }
        }
    }

    /// The paths of what is not pending, and may be let go, the longest unused first.
    fn oldest(&self, which: impl Fn(&File) -> bool) -> Vec<String> {
        let clean = self.files.iter().filter(|(_, file)| file.pending.is_none() && which(file));
        let mut paths: Vec<(u64, &String)> = clean.map(|(path, file)| (file.used, path)).collect();
        paths.sort_unstable();
        paths.into_iter().map(|(_, path)| path.clone()).collect()
    }

    /// Lets go what is known of the file at `path`, which is not pending.
    pub(super) fn forget(&mut self, vault: &Arc<Vault>, path: &str) {
        let Some(file) = self.files.remove(path) else { return };
        debug_assert!(file.pending.is_none(), "what is pending is not forgotten");
        self.bytes -= file.bytes();
        self.in_memory -= file.in_memory();
        self.let_go += file.bytes();
        if let Some(remote) = &file.remote {
            self.note_unknown(path, &file.info.tag, remote);
        }
        if let Some(row) = &file.row {
            // Unless it became another one, whose write is in the queue.
            let key = file_key(&self.id, path);
            let mut changes = self.without(path, &file);
            changes.push(Change::Delete(key.clone()));
            vault.enter(vec![Precondition::Equals(key, row.clone())], changes, true, |_| {});
        }
    }

    /// The changes that take away the pieces of a file.
    fn without(&self, path: &str, file: &File) -> Vec<Change> {
        let piece = |index: &u32| Change::Delete(piece_key(&self.id, path, &file.info.tag, *index));
        file.pieces.keys().map(piece).collect()
    }

    /// Lets go files and content until there are not too many, and at most `bytes_max` bytes. Says whether so much went that its space is worth the work.
    pub(super) fn make_room(&mut self, vault: &Arc<Vault>, bytes_max: u64) -> bool {
        self.bound_files(vault);
        if self.bytes > bytes_max {
            let enough = bytes_max - bytes_max / SHARE as u64;
            for path in self.oldest(|file| !file.pieces.is_empty()) {
                if self.bytes <= enough {
                    break;
                }
                self.forget(vault, &path);
            }
        }
        let is_worth_it = self.let_go > (bytes_max / 4).max(PIECE_BYTES);
        if is_worth_it {
            self.let_go = 0;
        }
        is_worth_it
    }

    /// Keeps a piece of the file at `path`, as long as it is the one whose tag at the store is `remote`.
    pub(super) fn keep(
        &mut self,
        vault: &Arc<Vault>,
        path: &str,
        remote: &ContentId,
        index: u32,
        piece: &Piece,
    ) -> Result<(), StoreError> {
        let Some(file) = self.files.get_mut(path) else { return Ok(()) };
        if file.pending.is_some() || file.remote.as_ref() != Some(remote) || file.pieces.contains_key(&index)
        {
            return Ok(());
        }
        let key = file_key(&self.id, path);
        let mut changes =
            vec![Change::Put(piece_key(&self.id, path, &file.info.tag, index), encode(&piece.row())?)];
        let holds = if let Some(row) = &file.row {
            Precondition::Equals(key, row.clone())
        } else {
            let row = encode(&FileRow::of(&file.info, file.remote.clone(), file.seen, None))?;
            file.row = Some(row.clone());
            changes.push(Change::Put(key.clone(), row));
            Precondition::Absent(key)
        };
        file.pieces.insert(index, piece.clone());
        self.bytes += piece.len();
        self.came += piece.len();
        self.in_memory += piece.in_memory();
        vault.enter(vec![holds], changes, true, |_| {});
        Ok(())
    }

    /// What is pending in `folder`, by name: files, and folders that have such below them.
    pub(super) fn pending_in(&self, folder: &str, after: Option<&str>) -> BTreeMap<String, ObjectInfo> {
        let prefix = below(folder);
        let from = after.map_or(prefix.clone(), |after| format!("{prefix}{after}"));
        let mut found = BTreeMap::new();
        for path in self.pending.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded)) {
            let Some(rest) = path.strip_prefix(&prefix) else { break };
            let (name, is_file) = rest.split_once('/').map_or((rest, true), |(name, _)| (name, false));
            if after.is_some_and(|after| name <= after) {
                continue;
            }
            match self.files.get(path).filter(|_| is_file) {
                Some(file) => found.insert(name.to_owned(), file.info.clone()),
                None => found.insert(name.to_owned(), directory()),
            };
        }
        found
    }

    /// The next file that is to go to the store, if it has at most `room` bytes: it is on its way from now on.
    pub(super) fn take_due(&mut self, now: u64, room: u64) -> Due {
        let mut due = self.due.range(..=(now, u64::MAX));
        let Some((key, path)) = due.find(|(_, path)| !self.is_held_up(path)) else { return Due::Nothing };
        let (key, path) = (*key, path.clone());
        let found = self.files.get(&path).and_then(|file| Some((file, file.pending.as_ref()?)));
        let Some((file, pending)) = found else {
            self.due.remove(&key);
            return Due::Nothing;
        };
        if file.info.size > room {
            return Due::TooLarge;
        }
        self.due.remove(&key);
        let upload = Upload {
            path: path.clone(),
            info: file.info.clone(),
            attributes: pending.attributes.clone(),
            pieces: file.pieces.values().cloned().collect(),
            looked: pending.failures == 0
                && pending.looked.is_some_and(|looked| now.saturating_sub(looked) <= LOOKED_MAX),
        };
        self.busy.insert(path);
        Due::Upload(Box::new(upload))
    }

    /// When the next file is to go to the store that does not wait for something else.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.iter().find(|(_, path)| !self.is_held_up(path)).map(|((at, _), _)| *at)
    }

    /// Nothing is on its way to `path` any more. What is pending there, and was given up, goes again.
    pub(super) fn settle(&mut self, path: &str) {
        self.busy.remove(path);
        if let Some(pending) = self.files.get(path).and_then(|file| file.pending.as_ref()) {
            self.due.entry(pending.due).or_insert_with(|| path.to_owned());
        }
    }

    /// The row that says that the state `tag` of `path` is at the store as `remote`, and what must hold for it to be written; none when it is another one by now.
    pub(super) fn uploaded(
        &self,
        path: &str,
        tag: &ContentId,
        remote: &ContentId,
        now: u64,
        with_content: bool,
    ) -> Result<Option<(Precondition, Vec<Change>, Bytes)>, StoreError> {
        let Some(file) = self.files.get(path).filter(|file| file.info.tag == *tag) else { return Ok(None) };
        let Some(old) = file.row.clone().filter(|_| file.pending.is_some()) else { return Ok(None) };
        let row = encode(&FileRow::of(&file.info, Some(remote.clone()), now, None))?;
        let key = file_key(&self.id, path);
        let mut changes = if with_content { Vec::new() } else { self.without(path, file) };
        changes.push(Change::Put(key.clone(), row.clone()));
        Ok(Some((Precondition::Equals(key, old), changes, row)))
    }

    /// The state `tag` of `path` is at the store: what [`uploaded`](Self::uploaded) gave is in the index.
    pub(super) fn settle_upload(
        &mut self,
        path: &str,
        tag: &ContentId,
        remote: ContentId,
        row: Bytes,
        now: u64,
        with_content: bool,
    ) {
        self.touch(path);
        let Some(file) = self.files.get_mut(path).filter(|file| file.info.tag == *tag) else { return };
        let info = file.info.clone();
        if let Some(pending) = file.pending.take() {
            self.due.remove(&pending.due);
            self.pending.remove(path);
            self.refused.remove(path);
            self.pending_bytes -= file.info.size;
            (file.remote, file.row, file.seen) = (Some(remote), Some(row), now);
            if !with_content {
                self.let_go += file.bytes();
                self.in_memory -= file.in_memory();
                file.pieces.clear();
            }
            self.bytes += file.bytes();
            self.came += file.bytes();
            // A listing that was made while it was on its way has it not, and counts when the file is let go.
            self.note_there(path, &info);
        }
    }

    /// The changes of the index that make this the state of `path` at `now`, which is pending.
    pub(super) fn written(
        &self,
        path: &str,
        info: &ObjectInfo,
        attributes: &Attributes,
        pieces: &BTreeMap<u32, Piece>,
        now: Moment,
    ) -> Result<(Vec<Change>, Bytes), StoreError> {
        // A state that waits for what may arrive late is not to be taken for the first one.
        let is_first = self.first_due(path, now.uptime) == 0;
        let since = self.pending_since(path).unwrap_or(now.wall - u64::from(!is_first));
        let row = encode(&FileRow::of(info, None, since, Some(attributes.clone())))?;
        let mut changes = match self.files.get(path) {
            Some(file) => self.without(path, file),
            None => Vec::new(),
        };
        for (index, piece) in pieces {
            changes.push(Change::Put(piece_key(&self.id, path, &info.tag, *index), encode(&piece.row())?));
        }
        changes.push(Change::Put(file_key(&self.id, path), row.clone()));
        Ok((changes, row))
    }

    /// What [`written`](Self::written) gave is in the index.
    pub(super) fn settle_write(
        &mut self,
        path: &str,
        info: &ObjectInfo,
        attributes: Attributes,
        pieces: BTreeMap<u32, Piece>,
        row: Bytes,
        now: Moment,
    ) {
        self.number += 1;
        // Over what is pending, nobody asked the store.
        let old = self.files.get(path).and_then(|file| file.pending.as_ref());
        let (looked, since) = old.map_or((Some(now.uptime), now.wall), |old| (old.looked, old.since));
        self.take(path);
        let due = (self.first_due(path, now.uptime), self.number);
        self.due.insert(due, path.to_owned());
        self.pending.insert(path.to_owned());
        self.pending_bytes += info.size;
        let file = File {
            info: info.clone(),
            remote: None,
            seen: 0,
            pieces,
            row: Some(row),
            pending: Some(Pending { attributes, failures: 0, due, looked, since, failure: None }),
            used: self.number,
        };
        self.in_memory += file.in_memory();
        self.files.insert(path.to_owned(), file);
        self.note(path, info);
    }

    /// The row of what is pending at `path`.
    pub(super) fn pending_row(&self, path: &str) -> Option<Bytes> {
        self.files.get(path).filter(|file| file.pending.is_some())?.row.clone()
    }

    /// What must hold for `path` to be taken away, and the changes of the index that do it; none when it is not in it.
    pub(super) fn removed(&self, path: &str) -> Option<(Precondition, Vec<Change>)> {
        let file = self.files.get(path)?;
        let (row, key) = (file.row.clone()?, file_key(&self.id, path));
        let mut changes = self.without(path, file);
        changes.push(Change::Delete(key.clone()));
        Some((Precondition::Equals(key, row), changes))
    }

    /// Takes out whatever is known of the file at `path`.
    pub(super) fn take(&mut self, path: &str) {
        let Some(file) = self.files.remove(path) else { return };
        self.let_go += file.bytes();
        self.in_memory -= file.in_memory();
        match file.pending {
            Some(pending) => {
                self.due.remove(&pending.due);
                self.pending.remove(path);
                self.refused.remove(path);
                self.pending_bytes -= file.info.size;
            }
            None => self.bytes -= file.bytes(),
        }
    }

    /// Notes that the store itself was written to at `path`.
    pub(super) fn note_written(
        &mut self,
        vault: &Arc<Vault>,
        path: &str,
        info: &ObjectInfo,
        now: u64,
        keep: bool,
    ) {
        if keep && !self.is_pending(path) {
            self.number += 1;
            self.forget(vault, path);
            self.add(vault, path, info, now);
        }
        self.note(path, info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_bounded_and_counted_whatever_becomes_of_it() {
        let mut table = Table::new([0; 16]);
        let piece = Piece::Inline(vec![7; INLINE_MAX].into());
        let info =
            ObjectInfo::new(EntryType::Reg, INLINE_MAX as u64, ContentId::Tag("t".into()), Timestamp(1));
        let files = IN_MEMORY_MAX / INLINE_MAX as u64;
        for n in 0..files {
            assert_eq!(table.inline_max(), INLINE_MAX);
            let pending = n.is_multiple_of(2).then(Attributes::none);
            let row = FileRow::of(&info, None, 0, pending);
            table.restore(&n.to_string(), &row, Bytes::new(), [(0, piece.clone())].into());
        }
        assert_eq!(table.inline_max(), 0);
        table.settle_upload("0", &info.tag, info.tag.clone(), Bytes::new(), 0, false);
        assert_eq!(table.inline_max(), INLINE_MAX);
        for n in 0..files {
            table.take(&n.to_string());
        }
        assert_eq!((table.in_memory, table.bytes(), table.pending_bytes()), (0, 0, 0));
    }
}
