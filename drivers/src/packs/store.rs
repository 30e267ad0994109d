//! The store: a queue of what is asked, the log of segments that it goes to in batches, and the index of where it went.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use nexus_kernel::hal::{BlobInfo, StoreError};
use nexus_messages::syscall::ByteRange;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::buffers::Buffers;
use super::index::Index;
use super::record::{self, Kind, RECORD_HEADER_BYTES, Record, Salt, SegmentHeader, checksum};
use super::recovery::{self, Damage};
use super::run::{Place, Through, Wait};
use super::segment::{self, ALIGN, OpenFiles, align};
use crate::disk::{DiskFile, Folder};

/// How often a read looks again for a blob that was moved meanwhile.
const READS_MAX: usize = 8;

/// The key of what has none.
const FLUSHED_KEY: &str = "-";

/// How many segments are emptied by one call, at most.
const EMPTIED_MAX: usize = 16;

/// What bounds a store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a segment grows before the next one is begun.
    pub segment_bytes: u64,
    /// How many bytes of content share a flush, at most; one blob always may.
    pub batch_bytes: usize,
    /// How many blobs share a flush, at most.
    pub batch_count: usize,
    /// From how many entries of the index in memory on they are written, in the background.
    pub unwritten: usize,
    /// How many there are at most: then a batch waits until they are written.
    pub unwritten_max: usize,
    /// How many segments are open at once.
    pub open_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            batch_bytes: 8 << 20,
            batch_count: 1_024,
            unwritten: 4_096,
            unwritten_max: 32_768,
            open_max: 64,
        }
    }
}

/// What is done to a key.
#[derive(Debug)]
enum What {
    Put(Vec<Bytes>),
    Delete,
    /// The blob that is at this place goes to the end of the log, unless it is somewhere else by now.
    Move(Place, Bytes),
    /// That the key is gone is said again at the end of the log, unless it came back by now.
    Bury,
}

/// Who is told how it went: whether there was anything to do.
#[derive(Debug)]
enum Reply {
    Caller(oneshot::Sender<Result<bool, StoreError>>),
    Compaction(mpsc::Sender<Result<bool, StoreError>>),
}

#[derive(Debug)]
struct Request {
    key: String,
    what: What,
    reply: Reply,
}

impl Request {
    fn tell(self, result: Result<bool, StoreError>) {
        // Who gave the call up is not told.
        match self.reply {
            Reply::Caller(reply) => drop(reply.send(result)),
            Reply::Compaction(reply) => drop(reply.send(result)),
        }
    }

    fn data(&self) -> &[Bytes] {
        match &self.what {
            What::Put(data) => data,
            What::Move(_, data) => std::slice::from_ref(data),
            What::Delete | What::Bury => &[],
        }
    }

    fn kind(&self) -> Kind {
        match self.what {
            What::Put(_) | What::Move(..) => Kind::Blob,
            What::Delete | What::Bury => Kind::Deleted,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Whether somebody makes batches of what waits; he comes to all of it.
    flushing: bool,
}

/// The end of the log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) current: Option<Current>,
    // Invariant: up to here all was flushed.
    pub(super) last: Through,
    pub(super) next_number: u64,
    /// How many records of the last segment's doubtful end the next segment begins with.
    copied: u64,
    /// Whether something whose outcome was told as unknown may come back after a crash: until the next segment is begun.
    in_doubt: bool,
}

impl Log {
    /// A log whose next segment comes after the one with this number.
    pub(super) fn after(number: u64) -> Self {
        Self { next_number: number + 1, ..Self::default() }
    }
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Current {
    number: u64,
    file: Arc<dyn DiskFile>,
    salt: Salt,
    end: u64,
}

/// What is appended.
pub(super) struct Appended<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a str,
    pub(super) data: &'a [Bytes],
}

/// Why a batch is not on disk.
enum Failed {
    /// Nothing of it is.
    Clean(io::Error),
    /// Nobody knows what of it is.
    Unknown(io::Error),
}

#[derive(Debug)]
pub(super) struct Store {
    folder: Arc<dyn Folder>,
    files: OpenFiles,
    index: Index,
    queue: Mutex<Queue>,
    log: Mutex<Log>,
    compacting: Mutex<()>,
    damage: Vec<Damage>,
    seed: u64,
    limits: Limits,
    buffers: Arc<Buffers>,
}

impl Store {
    /// Opens the store in `folder`. What was put and acknowledged is there; what a crash tore is not. Blocks.
    pub(super) fn open(folder: Arc<dyn Folder>, seed: u64, limits: Limits) -> Result<Self, StoreError> {
        let names = folder.list().map_err(|e| StoreError::io("opening packed blobs", e))?;
        let index = Index::open(folder.clone(), &names)?;
        let found = recovery::recover(&*folder, &names, &index, limits.unwritten)?;
        let store = Self {
            files: OpenFiles::new(folder.clone(), limits.open_max),
            folder,
            index,
            queue: Mutex::default(),
            log: Mutex::new(found.log),
            compacting: Mutex::new(()),
            damage: found.damage,
            seed,
            limits,
            buffers: Arc::default(),
        };
        for damage in &store.damage {
            tracing::error!(%damage, "packed blobs are damaged");
        }
        // They may lie in memory alone, of a process that was killed or of a flush that failed: only a new flush of a new file tells.
        if !found.unproven.is_empty() {
            let records: Vec<_> = found
                .unproven
                .iter()
                .map(|(record, data)| Appended {
                    kind: record.kind,
                    key: &record.key,
                    data: std::slice::from_ref(data),
                })
                .collect();
            let mut log = store.log.lock();
            log.copied = records.len() as u64;
            store.append(&mut log, &records)?;
        }
        Ok(store)
    }

    /// What was found damaged when the store was opened.
    pub(super) fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Asks for the blob to be written. Who asked sees to it that [`drive`](Self::drive) is called after it.
    pub(super) fn ask_put(&self, key: &str, data: &[Bytes]) -> oneshot::Receiver<Result<bool, StoreError>> {
        self.ask(key, What::Put(data.to_vec()))
    }

    /// Asks for the blob to be deleted, as [`ask_put`](Self::ask_put). The answer says whether it was there.
    pub(super) fn ask_delete(&self, key: &str) -> oneshot::Receiver<Result<bool, StoreError>> {
        self.ask(key, What::Delete)
    }

    fn ask(&self, key: &str, what: What) -> oneshot::Receiver<Result<bool, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.queue.lock().waiting.push_back(Request { key: key.into(), what, reply: Reply::Caller(reply) });
        answer
    }

    /// Writes what waits, batch after batch, until nothing does; leaves it to who is at it already. Blocks.
    pub(super) fn drive(&self) {
        {
            let mut queue = self.queue.lock();
            if queue.flushing {
                return;
            }
            queue.flushing = true;
        }
        let flushing = Flushing(&self.queue);
        loop {
            let batch = {
                let mut queue = self.queue.lock();
                let batch = self.take_batch(&mut queue);
                if batch.is_empty() {
                    queue.flushing = false;
                    std::mem::forget(flushing);
                    return;
                }
                batch
            };
            self.commit(batch);
        }
    }

    /// Does what can wait: writes the index, once there is enough of it. Blocks.
    pub(super) fn tend(&self) {
        if self.index.unwritten() >= self.limits.unwritten
            && let Err(error) = self.index.try_write()
        {
            tracing::error!(%error, "the index of packed blobs cannot be written");
        }
    }

    fn take_batch(&self, queue: &mut Queue) -> Vec<Request> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = queue.waiting.front() {
            let size = next.data().iter().map(Bytes::len).sum::<usize>();
            let is_over = bytes + size > self.limits.batch_bytes || batch.len() >= self.limits.batch_count;
            if is_over && !batch.is_empty() {
                break;
            }
            let Some(next) = queue.waiting.pop_front() else { break };
            if matches!(&next.reply, Reply::Caller(reply) if reply.is_closed()) {
                continue;
            }
            bytes += size;
            batch.push(next);
        }
        batch
    }

    fn commit(&self, batch: Vec<Request>) {
        let log = &mut *self.log.lock();
        if self.index.unwritten() >= self.limits.unwritten_max
            && let Err(error) = self.index.write()
        {
            batch.into_iter().for_each(|request| request.tell(Err(error.clone())));
            return;
        }
        // What earlier requests of the batch make of their keys: whether there is a blob.
        let mut changed = BTreeMap::new();
        let (mut written, mut void) = (Vec::new(), Vec::new());
        for request in batch {
            match self.is_due(&request, changed.get(request.key.as_str()).copied()) {
                // What is gone would come back if it was put by a batch that is in doubt.
                Ok(is_due) if is_due || (log.in_doubt && matches!(request.what, What::Delete)) => {
                    changed.insert(request.key.clone(), request.kind() == Kind::Blob);
                    written.push((request, is_due));
                }
                Ok(_) => void.push(request),
                Err(error) => request.tell(Err(error)),
            }
        }
        let records: Vec<_> = written
            .iter()
            .map(|(request, _)| Appended { kind: request.kind(), key: &request.key, data: request.data() })
            .collect();
        let appended = if records.is_empty() { Ok(()) } else { self.append(log, &records) };
        for (request, is_due) in written {
            request.tell(appended.clone().map(|()| is_due));
        }
        void.into_iter().for_each(|request| request.tell(Ok(false)));
    }

    fn is_due(&self, request: &Request, changed: Option<bool>) -> Result<bool, StoreError> {
        match (&request.what, changed) {
            (What::Put(_), _) => Ok(true),
            (What::Delete, Some(is_there)) => Ok(is_there),
            (What::Delete, None) => Ok(self.index.get(&request.key)?.is_some()),
            (What::Move(..) | What::Bury, Some(_)) => Ok(false),
            (What::Move(from, _), None) => Ok(self.index.get(&request.key)? == Some(*from)),
            (What::Bury, None) => Ok(self.index.get(&request.key)?.is_none()),
        }
    }

    /// Puts the records at the end of the log, with one flush, and into the index.
    fn append(&self, log: &mut Log, records: &[Appended<'_>]) -> Result<(), StoreError> {
        // Said before it is tried: also when it panics.
        let was_in_doubt = std::mem::replace(&mut log.in_doubt, true);
        let appended = self.try_append(log, records).or_else(|failed| match failed {
            Failed::Clean(error) => {
                log.in_doubt = was_in_doubt;
                Err(StoreError::io("writing packed blobs", error))
            }
            Failed::Unknown(first) => {
                tracing::error!(error = %first, "a segment is given up, and what was to be written goes to another");
                self.try_append(log, records).map_err(|(Failed::Clean(error) | Failed::Unknown(error))| {
                    let cause = format!("{first}; and in a new segment: {error}");
                    StoreError::Unknown { what: "writing packed blobs".into(), cause }
                })
            }
        });
        let places = appended?;
        let entries = records
            .iter()
            .zip(places)
            .map(|(record, place)| (record.key.to_owned(), (record.kind == Kind::Blob).then_some(place)));
        self.index.learn(entries, log.last);
        Ok(())
    }

    fn try_append(&self, log: &mut Log, records: &[Appended<'_>]) -> Result<Vec<Place>, Failed> {
        let content = |record: &Appended<'_>| record.data.iter().map(Bytes::len).sum::<usize>();
        let size: usize =
            records.iter().map(|record| RECORD_HEADER_BYTES + record.key.len() + content(record)).sum();
        // Taken out: whatever goes wrong, it is not written to again unless it is put back.
        let has_room = |current: &Current| align(current.end) + size as u64 <= self.limits.segment_bytes;
        let (mut current, is_new) = match log.current.take().filter(has_room) {
            Some(current) => (current, false),
            None => (self.new_segment(log).map_err(Failed::Clean)?, true),
        };
        let start = if is_new { 0 } else { align(current.end) };
        let mut bytes = Vec::with_capacity(size + usize::try_from(ALIGN).unwrap_or_default());
        if is_new {
            let header = SegmentHeader {
                number: current.number,
                salt: current.salt,
                previous: log.last.segment,
                previous_end: log.last.offset,
                copied: log.copied,
            };
            for at in segment::HEADERS_AT {
                bytes.resize(usize::try_from(at).unwrap_or_default(), 0);
                bytes.extend_from_slice(&header.encode());
            }
            bytes.resize(usize::try_from(ALIGN).unwrap_or_default(), 0);
        }
        // Segments are far shorter than what 32 bits can say.
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let places = records
            .iter()
            .map(|appended| {
                let offset = start + bytes.len() as u64;
                let record = Record::new(appended.kind, appended.key, appended.data, short(current.end));
                record.encode(&mut bytes, &current.salt, offset);
                appended.data.iter().for_each(|part| bytes.extend_from_slice(part));
                Place { segment: current.number, offset: short(offset), len: record.len }
            })
            .collect();
        if let Err(error) = current.file.write_at(start, &bytes) {
            return Err(self.undo(log, current, is_new, error));
        }
        current.file.sync().map_err(Failed::Unknown)?;
        if is_new {
            self.folder.sync().map_err(Failed::Unknown)?;
        }
        current.end = start + bytes.len() as u64;
        log.last = Through { segment: current.number, offset: current.end };
        (log.copied, log.in_doubt) = (0, false);
        if is_new {
            self.files.put(current.number, current.file.clone());
        }
        log.current = Some(current);
        Ok(places)
    }

    fn new_segment(&self, log: &mut Log) -> io::Result<Current> {
        let number = log.next_number;
        // Also when it fails: a name is never used again.
        log.next_number += 1;
        let file = self.folder.open(&segment::name(number), true)?;
        let salt = checksum(&[b"salt", &self.seed.to_le_bytes(), &number.to_le_bytes()]);
        Ok(Current { number, file, salt, end: 0 })
    }

    /// After a write that failed: takes away what was written of it, so that nothing of it comes back after a crash.
    fn undo(&self, log: &mut Log, current: Current, is_new: bool, error: io::Error) -> Failed {
        let undone = if is_new {
            self.folder.remove(&segment::name(current.number)).and_then(|()| self.folder.sync())
        } else {
            current.file.set_len(current.end).and_then(|()| current.file.sync())
        };
        match undone {
            Ok(()) if is_new => Failed::Clean(error),
            Ok(()) => {
                log.current = Some(current);
                Failed::Clean(error)
            }
            Err(_) => Failed::Unknown(error),
        }
    }

    /// The part `range` of the blob; none when there is no such blob. Reads that part and nothing else. Blocks.
    pub(super) fn get(&self, key: &str, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let failed = |e| StoreError::io(format!("reading {key}"), e);
        for _ in 0..READS_MAX {
            let Some(place) = self.index.get(key)? else { return Ok(None) };
            let file = match self.files.get(place.segment) {
                // It was moved meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            let (from, to) = range.within(u64::from(place.len));
            let mut part = vec![0; usize::try_from(to - from).unwrap_or_default()];
            let content_at = u64::from(place.offset) + record::size(key, 0);
            match file.read_at(content_at + from, &mut part) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(StoreError::Corrupt {
                        what: key.into(),
                        found: format!("{} ends before it", segment::name(place.segment)),
                    });
                }
                read => read.map_err(failed)?,
            }
            return Ok(Some(part.into()));
        }
        Err(StoreError::Corrupt { what: key.into(), found: "the segment that it is in is not there".into() })
    }

    /// Where each blob is; none when it is not there.
    pub(super) fn places(&self, keys: &[String], wait: Wait) -> Vec<Result<Option<Place>, StoreError>> {
        self.index.look_all(keys, wait)
    }

    /// The file of a segment.
    pub(super) fn segment(&self, number: u64, wait: Wait) -> io::Result<Arc<dyn DiskFile>> {
        match wait {
            Wait::ForDisk => self.files.get(number),
            Wait::Never => self.files.at_hand(number).ok_or_else(|| io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(super) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    pub(super) fn head(&self, key: &str) -> Result<Option<BlobInfo>, StoreError> {
        Ok(self.index.get(key)?.map(|place| BlobInfo { size: place.len.into() }))
    }

    /// The keys that start with `prefix` and are greater than `after`, in order, at most `limit`. Blocks.
    pub(super) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let from = after.filter(|after| *after > prefix).unwrap_or(prefix);
        self.index
            .from(from)
            .map(|entry| entry.map(|(key, _)| key))
            .take_while(|key| key.as_ref().map_or(true, |key| key.starts_with(prefix)))
            .filter(|key| key.as_ref().map_or(true, |key| after.is_none_or(|after| key.as_str() > after)))
            .take(limit)
            .collect()
    }

    /// Copies what is alive in segments that are mostly dead, or small, to the end of the log, and removes them. Gives how many bytes are free
    /// that were not. Reads and writes go on meanwhile. Repeat: safe; nothing is lost when it fails midway. Blocks.
    pub(super) fn compact(&self) -> Result<u64, StoreError> {
        let failed = |e| StoreError::io("compacting packed blobs", e);
        let _alone = self.compacting.lock();
        // Then the index on disk knows all of the segments before this one, and opening the store never looks into them.
        self.index.write()?;
        let before = self.index.through().segment;
        let current = self.log.lock().current.as_ref().map(|current| current.number);
        let mut live = BTreeMap::<u64, u64>::new();
        for entry in self.index.from("") {
            let (key, place) = entry?;
            *live.entry(place.segment).or_default() += record::size(&key, place.len);
        }
        let mut sealed = BTreeMap::new();
        for number in self.folder.list().map_err(failed)?.iter().filter_map(|name| segment::number(name)) {
            if number < before && Some(number) != current {
                let file = self.folder.open(&segment::name(number), false).map_err(failed)?;
                sealed.insert(number, file.len().map_err(failed)?);
            }
        }
        let emptied = self.to_empty(&sealed, &live);
        let mut copied = 0;
        for number in &emptied {
            let is_oldest = sealed.keys().all(|other| other >= number || emptied.contains(other));
            copied += self.copy_live(*number, is_oldest)?;
        }
        // Never is a segment removed while the index on disk may still lead to it.
        self.index.write()?;
        let mut free = emptied;
        for entry in self.index.from("") {
            free.remove(&entry?.1.segment);
        }
        let mut freed = 0_u64;
        for number in free {
            self.folder.remove(&segment::name(number)).map_err(failed)?;
            self.files.forget(number);
            freed += sealed[&number];
        }
        self.folder.sync().map_err(failed)?;
        Ok(freed.saturating_sub(copied))
    }

    fn to_empty(&self, sealed: &BTreeMap<u64, u64>, live: &BTreeMap<u64, u64>) -> BTreeSet<u64> {
        let alive = |number: &u64| live.get(number).copied().unwrap_or_default();
        let mut emptied: BTreeSet<u64> = sealed
            .iter()
            .filter(|(number, len)| alive(number) * 2 <= **len)
            .map(|(number, _)| *number)
            .collect();
        // Of each life of the process one segment is left, however short.
        let small: Vec<u64> = sealed
            .iter()
            .filter(|(number, len)| **len * 4 <= self.limits.segment_bytes && !emptied.contains(number))
            .map(|(number, _)| *number)
            .collect();
        if small.len() > 1 {
            emptied.extend(small);
        }
        emptied.into_iter().take(EMPTIED_MAX).collect()
    }

    /// Gives how many bytes were copied. What cannot be read as it was written stays where it is, and its segment with it.
    fn copy_live(&self, number: u64, is_oldest: bool) -> Result<u64, StoreError> {
        let failed = |e| StoreError::io("compacting packed blobs", e);
        let file = self.folder.open(&segment::name(number), false).map_err(failed)?;
        let Some(header) = segment::header(&*file).map_err(failed)? else { return Ok(0) };
        let (mut waiting, mut copied) = (Vec::new(), 0);
        let mut bytes = 0;
        segment::walk(&*file, &header.salt, ALIGN, u64::MAX, |offset, record| {
            let there = self.index.get(&record.key)?;
            let what = match (there, record.kind) {
                (None, Kind::Deleted) if !is_oldest => What::Bury,
                (Some(place), Kind::Blob) if place.segment == number && u64::from(place.offset) == offset => {
                    match segment::content(&*file, &record, offset).map_err(failed)? {
                        Some(content) => What::Move(place, content.into()),
                        None => {
                            tracing::error!(key = record.key, "a packed blob is damaged and is not moved");
                            return Ok(());
                        }
                    }
                }
                _ => return Ok(()),
            };
            bytes += record.size();
            waiting.push((record.key, what));
            if bytes >= self.limits.batch_bytes as u64 || waiting.len() >= self.limits.batch_count {
                copied += std::mem::take(&mut bytes);
                self.copy(std::mem::take(&mut waiting))?;
            }
            Ok(())
        })?;
        self.copy(waiting)?;
        Ok(copied + bytes)
    }

    fn copy(&self, moves: Vec<(String, What)>) -> Result<(), StoreError> {
        let (reply, answers) = mpsc::channel();
        let requests = moves.into_iter().map(|(key, what)| Request {
            key,
            what,
            reply: Reply::Compaction(reply.clone()),
        });
        self.queue.lock().waiting.extend(requests);
        drop(reply);
        self.drive();
        // It ends when each was answered, or was dropped by a flush that panicked: the segment then stays.
        answers.iter().try_for_each(|answer| answer.map(drop))
    }

    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        self.files.len()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let log = self.log.get_mut();
        let Some(current) = log.current.take() else { return };
        // Then nobody has to ask at the next start whether the last batch was flushed. It is true whether this gets to the disk or not.
        let (mut mark, offset) = (Vec::new(), align(current.end));
        let proven = u32::try_from(current.end).unwrap_or(u32::MAX);
        Record::new(Kind::Flushed, FLUSHED_KEY, &[], proven).encode(&mut mark, &current.salt, offset);
        if let Err(error) = current.file.write_at(offset, &mark) {
            tracing::debug!(%error, "the next start writes the last batch of packed blobs again");
        }
    }
}

/// Held while batches are made. When that panics, who waits is told by the loss of his reply.
struct Flushing<'a>(&'a Mutex<Queue>);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.flushing = false;
        queue.waiting.clear();
    }
}
