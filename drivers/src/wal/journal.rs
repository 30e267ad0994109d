//! The log, open for appending.
//!
//! Segments are files with rising numbers. One is appended to; it is written with zeros ahead of the frames, so that a flush need not write the
//! file's length or new blocks down as well. A segment whose frames are all in the database below becomes the next one, under its new number:
//! its old frames are those of another segment, and so they are none.

use std::fmt;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;
use parking_lot::Mutex;

use super::frame::{self, Done, Payload};
use super::segment::{Last, Reading, Segment, Unwritten, failed, name_of, number_of, numbers};
use crate::disk::{DiskFile, Folder};

/// About how many bytes of frames that are put off are not even handed to the system: to hand over one costs as much as many.
const HANDED_OVER_BYTES: u64 = 64 << 10;

/// How much memory is kept for the next frame, in bytes.
const BUFFER_MAX: usize = 4 << 20;

/// A segment that is used again is not longer than this, in bytes.
const REUSED_MAX: u64 = 32 << 20;

/// The log on disk, open for appending.
pub(super) struct Journal {
    folder: Arc<dyn Folder>,
    current: Segment,
    /// The next one, if its name is durable already.
    ready: Option<Segment>,
    /// The last frame that was written.
    last: Last,
    /// The frames after it, which are in memory alone.
    put_off: Vec<PutOff>,
    /// About how many bytes they take.
    put_off_bytes: u64,
    /// The last frame that is on disk.
    durable: u64,
    /// Up to here the log itself says that it is on disk.
    proven: u64,
    /// How many bytes were appended since the journal was opened, and how many of them are on disk.
    appended: u64,
    flushed: u64,
    salt: u64,
    /// How far ahead of the frames a segment is written with zeros, in bytes.
    ahead: u64,
    buffer: Vec<u8>,
}

/// A frame that is not written yet.
struct PutOff {
    next_file_id: u64,
    entries: Vec<Done>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("segment", &self.current.number)
            .field("end", &self.current.end)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

fn too_large() -> StoreError {
    StoreError::Backend {
        what: "writing to the log".into(),
        cause: format!("a batch of more than {} bytes", frame::PAYLOAD_MAX),
    }
}

impl Journal {
    /// Opens the log in `folder` of the store with this salt, hands each frame after `applied` to `replay`, and goes on behind the last of them. What a crash left of frames that
    /// nobody was told of is written over.
    pub(super) fn open(
        folder: Arc<dyn Folder>,
        salt: u64,
        applied: u64,
        ahead: u64,
        mut replay: impl FnMut(u64, Payload<'static>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let numbers = numbers(&folder)?;
        let newest = numbers.last().copied().unwrap_or(0);
        let mut reading = Reading::after(applied);
        let mut current: Option<Segment> = None;
        let mut later = Vec::new();
        for number in numbers {
            let mut segment = Segment::open(&folder, salt, number, false)?;
            let frames = reading.segment(&mut segment, &mut replay)?;
            match frames > 0 || current.is_none() {
                true => {
                    later.clear();
                    current = Some(segment);
                }
                // It was made ready, and nothing came of it.
                false => later.push(segment),
            }
        }
        let last = reading.end();
        // Nothing is appended behind frames that are all in the database: should one of them be damaged later, what follows it would not be found.
        let goes_on = current.filter(|segment| segment.end == 0 || last.seq > applied);
        let current = match goes_on {
            Some(segment) => {
                // What was read may not have been flushed before the crash. From here on it is relied on.
                segment.file.sync().map_err(failed("flushing the log"))?;
                segment
            }
            None => match later.pop() {
                // It has its place on the disk already, which may be full.
                Some(ready) => ready,
                None => {
                    let segment = Segment::open(&folder, salt, newest + 1, true)?;
                    folder.sync().map_err(failed("flushing the log's folder"))?;
                    segment
                }
            },
        };
        let mut journal = Self {
            folder,
            current,
            ready: None,
            last,
            put_off: Vec::new(),
            put_off_bytes: 0,
            durable: last.seq,
            proven: last.seq,
            appended: 0,
            flushed: 0,
            salt,
            ahead: ahead.max(1),
            buffer: Vec::new(),
        };
        for segment in later {
            if segment.number == journal.current.number + 1 {
                journal.ready = Some(segment);
            } else {
                journal.remove(segment.number)?;
            }
        }
        journal.folder.sync().map_err(failed("flushing the log's folder"))?;
        Ok(journal)
    }

    /// The number of the last frame, written or put off.
    pub(super) fn last_seq(&self) -> u64 {
        self.last.seq + self.put_off.len() as u64
    }

    /// The number of the segment that is appended to.
    pub(super) fn segment(&self) -> u64 {
        self.current.number
    }

    /// Whether a frame of about so many bytes may be put off. What is written first to make room for it may fail; then nothing has changed.
    pub(super) fn may_put_off(&mut self, bytes: u64) -> Result<bool, StoreError> {
        if bytes > HANDED_OVER_BYTES {
            return Ok(false);
        }
        if self.put_off_bytes + bytes > HANDED_OVER_BYTES {
            self.hand_over()?;
        }
        Ok(true)
    }

    /// Takes a frame that is written with one of those after it. It is lost with the process.
    pub(super) fn put_off(&mut self, next_file_id: u64, entries: Vec<Done>, bytes: u64) {
        self.put_off.push(PutOff { next_file_id, entries });
        self.put_off_bytes += bytes;
    }

    /// Writes the frames that were put off. They are in the log, and not yet on disk. After an error they still are put off: whatever is in the log of them, is
    /// written over.
    pub(super) fn hand_over(&mut self) -> Result<(), StoreError> {
        if self.put_off.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let (seed, durable) = (self.current.seed, self.durable);
        let encode = |last: Last, PutOff { next_file_id, entries }: &PutOff| {
            let entries = entries.iter().map(Done::as_frame).collect();
            let payload = Payload { next_file_id: *next_file_id, entries };
            let header = frame::encode(&mut buffer, seed, last.seq + 1, durable, last.checksum, &payload);
            header.map(|header| Last { seq: header.seq, checksum: header.checksum }).ok_or_else(too_large)
        };
        let last = self.put_off.iter().try_fold(self.last, encode);
        let written = last.and_then(|last| {
            self.current.extend(buffer.len(), self.ahead)?;
            self.current.file.write_at(self.current.end, &buffer).map_err(failed("writing to the log"))?;
            Ok(last)
        });
        if let Ok(last) = written {
            self.current.end += buffer.len() as u64;
            self.appended += buffer.len() as u64;
            (self.last, self.proven) = (last, durable);
            self.put_off.clear();
            self.put_off_bytes = 0;
        }
        self.keep(buffer);
        written.map(drop)
    }

    /// Appends a frame, behind those that were put off. It is in the log, and not yet on disk. `others` is the lock of those who may be flushing meanwhile;
    /// none when the caller holds it.
    pub(super) fn append(
        &mut self,
        payload: &Payload<'_>,
        others: Option<&Mutex<()>>,
    ) -> Result<u64, Unwritten> {
        self.hand_over().map_err(Unwritten::Not)?;
        let seq = self.last.seq + 1;
        let mut buffer = std::mem::take(&mut self.buffer);
        let header =
            frame::encode(&mut buffer, self.current.seed, seq, self.durable, self.last.checksum, payload);
        let written = match &header {
            Some(_) => self.current.write(&buffer, self.ahead, others),
            None => Err(Unwritten::Not(too_large())),
        };
        self.keep(buffer);
        written?;
        if let Some(header) = header {
            self.current.end += header.frame_bytes();
            self.appended += header.frame_bytes();
            self.last = Last { seq, checksum: header.checksum };
            self.proven = header.durable;
        }
        Ok(seq)
    }

    /// Keeps the memory of the buffer for the next frame.
    fn keep(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(BUFFER_MAX);
        self.buffer = buffer;
    }

    /// Says in the log up to where it is on disk, unless its last frame does: so that one which is damaged later is missed. It is true whether
    /// this gets to the disk or not.
    pub(super) fn mark(&mut self, next_file_id: u64) -> Result<(), Unwritten> {
        if self.durable <= self.proven {
            return Ok(());
        }
        self.append(&Payload { next_file_id, entries: Vec::new() }, None).map(drop)
    }

    /// Makes all frames that were written durable. After an error nothing may be written any more.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let unflushed = self.to_flush();
        unflushed.flush()?;
        self.take_flushed(&unflushed);
        Ok(())
    }

    /// What is to be flushed so that all frames that were written are durable, while further ones are appended. Nobody else may flush it meanwhile: of a
    /// failure only one of them would hear.
    pub(super) fn to_flush(&self) -> Unflushed {
        Unflushed { file: self.current.file.clone(), seq: self.last.seq, appended: self.appended }
    }

    /// It was flushed.
    pub(super) fn take_flushed(&mut self, flushed: &Unflushed) {
        self.durable = self.durable.max(flushed.seq);
        self.flushed = self.flushed.max(flushed.appended);
    }

    /// The last frame that is on disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// About how many bytes were appended, or put off, that are not on disk.
    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.appended - self.flushed + self.put_off_bytes
    }

    /// Sees to it that the next segment is there, with room for what comes first, and nothing put off. After an error nothing has changed.
    pub(super) fn prepare(&mut self) -> Result<(), StoreError> {
        self.hand_over()?;
        if self.ready.is_none() {
            let number = self.current.number + 1;
            let mut segment = Segment::open(&self.folder, self.salt, number, true)?;
            if let Err(error) = segment.extend(1, self.ahead) {
                // What it took is of use to others.
                let _ = self.remove(number);
                return Err(error);
            }
            self.folder.sync().map_err(failed("flushing the log's folder"))?;
            self.ready = Some(segment);
        }
        Ok(())
    }

    /// Goes on in the next segment, if it is there. All that was written is durable then; after an error nothing may be written any more. Gives the
    /// number of the segment that came to its end.
    pub(super) fn rotate(&mut self) -> Result<u64, StoreError> {
        if self.durable < self.last.seq {
            self.sync()?;
        }
        let ended = self.current.number;
        if let Some(next) = self.ready.take() {
            self.current = next;
        }
        Ok(ended)
    }

    pub(super) fn salt(&self) -> u64 {
        self.salt
    }

    /// Writes all again that was read, where it stands, and brings it to the disk: of what was read nobody knows whether it is there. Takes no room.
    pub(super) fn write_again(&self) -> Result<(), StoreError> {
        for number in numbers(&self.folder)?.into_iter().filter(|number| *number <= self.current.number) {
            let segment = Segment::open(&self.folder, self.salt, number, false)?;
            let again = segment.write_again(0, segment.written).and_then(|()| segment.file.sync());
            again.map_err(failed("writing the log again"))?;
        }
        Ok(())
    }

    fn remove(&self, number: u64) -> Result<(), StoreError> {
        self.folder.remove(&name_of(number)).map_err(failed("removing a segment of the log"))
    }

    pub(super) fn folder(&self) -> &Arc<dyn Folder> {
        &self.folder
    }

    /// Takes the next segment, which was made ready aside.
    pub(super) fn make_ready(&mut self, next: Next) {
        if self.ready.is_none() && next.0.number == self.current.number + 1 {
            self.ready = Some(next.0);
        }
    }

    /// Whether the next segment is there already.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }
}

/// Frames on their way to disk. All that is not durable is in one file: a segment is flushed before the next one is begun.
pub(super) struct Unflushed {
    file: Arc<dyn DiskFile>,
    /// The last of them.
    seq: u64,
    /// How many bytes were appended by then.
    appended: u64,
}

impl Unflushed {
    /// The last of them.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Makes them durable. After an error nothing may be written any more. Blocks on disk.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.file.sync().map_err(failed("flushing the log"))
    }
}

/// A segment that is there, under a durable name, and holds nothing yet.
pub(super) struct Next(Segment);

/// Lets go of the segments up to `through`, all of whose frames are in the database below. One of them becomes the segment `next`, if that is
/// asked for. Blocks on the disk, and nothing that is written meanwhile waits for it.
pub(super) fn release(
    folder: &Arc<dyn Folder>,
    salt: u64,
    through: u64,
    mut next: Option<u64>,
) -> Result<Option<Next>, StoreError> {
    let mut made = None;
    for name in folder.list().map_err(failed("listing the log"))? {
        let Some(number) = number_of(&name).filter(|number| *number <= through) else { continue };
        match next.take() {
            Some(next) => {
                let segment = Segment::open(folder, salt, number, false)?;
                if segment.written > REUSED_MAX {
                    segment.file.set_len(REUSED_MAX).map_err(failed("cutting a segment of the log"))?;
                }
                folder.rename(&name, &name_of(next)).map_err(failed("using a segment of the log again"))?;
                made = Some(next);
            }
            None => folder.remove(&name).map_err(failed("removing a segment of the log"))?,
        }
    }
    folder.sync().map_err(failed("flushing the log's folder"))?;
    made.map(|number| Ok(Next(Segment::open(folder, salt, number, false)?))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::{Fault, SimDisk};

    fn open(disk: &SimDisk) -> Journal {
        Journal::open(disk.folder(), 9, 0, 512, |_, _| Ok(())).unwrap()
    }

    fn payload() -> Payload<'static> {
        Payload { next_file_id: 1, entries: Vec::new() }
    }

    #[test]
    fn a_frame_that_failed_is_taken_back_unless_somebody_else_may_hear_of_the_flush_that_does_it() {
        for busy in [false, true] {
            let disk = SimDisk::new(1);
            let mut journal = open(&disk);
            journal.append(&payload(), None).unwrap();
            disk.fail_from(disk.counts().operations + 1, Fault::Error, 1);
            let flush = Mutex::new(());
            let flushing = busy.then(|| flush.lock());
            let failed = journal.append(&payload(), Some(&flush)).unwrap_err();
            assert_eq!(matches!(failed, Unwritten::Unknown(_)), busy, "{failed:?}");
            drop(flushing);
        }
    }

    fn numbers_on(disk: &SimDisk) -> Vec<u64> {
        let mut numbers = Vec::new();
        let read = |seq, _: Payload<'static>| {
            numbers.push(seq);
            Ok(())
        };
        Journal::open(disk.folder(), 9, 0, 512, read).unwrap();
        numbers
    }

    #[test]
    fn what_is_put_off_has_its_number_at_once_and_its_place_when_it_is_handed_over() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk);
        for seq in 1..=3 {
            assert!(journal.may_put_off(10).unwrap());
            journal.put_off(seq, Vec::new(), 10);
            assert_eq!((journal.last_seq(), journal.unsynced_bytes()), (seq, 10 * seq));
        }
        assert_eq!(numbers_on(&disk), [0; 0], "they are in memory");
        // A frame that is written goes behind them.
        journal.append(&payload(), None).unwrap();
        assert_eq!(numbers_on(&disk), [1, 2, 3, 4]);
        journal.put_off(1, Vec::new(), 10);
        journal.sync().unwrap();
        assert_eq!(
            (journal.durable(), journal.unsynced_bytes()),
            (4, 10),
            "only what was written is flushed"
        );
        // A segment ends with nothing put off.
        journal.prepare().unwrap();
        journal.rotate().unwrap();
        assert_eq!(journal.durable(), 5);
        assert!(!journal.may_put_off(HANDED_OVER_BYTES + 1).unwrap(), "it is no small one");
        journal.put_off(1, Vec::new(), HANDED_OVER_BYTES);
        assert_eq!(numbers_on(&disk), [1, 2, 3, 4, 5]);
        assert!(journal.may_put_off(1).unwrap());
        assert_eq!(numbers_on(&disk), [1, 2, 3, 4, 5, 6], "there was no room for one more");
    }

    #[test]
    fn what_could_not_be_handed_over_is_put_off_further() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk);
        journal.put_off(1, Vec::new(), 10);
        journal.put_off(1, Vec::new(), 10);
        for _ in 0..2 {
            disk.fail_from(disk.counts().operations + 1, Fault::Error, 1);
            journal.hand_over().unwrap_err();
            disk.fail_from(disk.counts().operations + 1, Fault::Error, 1);
            assert!(matches!(journal.append(&payload(), None).unwrap_err(), Unwritten::Not(_)));
            assert_eq!(journal.last_seq(), 2);
        }
        journal.append(&payload(), None).unwrap();
        assert_eq!(numbers_on(&disk), [1, 2, 3]);
    }

    #[test]
    fn a_mark_is_written_once_and_only_of_what_is_on_disk() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk);
        journal.append(&payload(), None).unwrap();
        journal.mark(1).unwrap();
        assert_eq!(journal.last_seq(), 1, "nothing is on disk yet");
        journal.sync().unwrap();
        journal.mark(1).unwrap();
        assert_eq!(journal.last_seq(), 2);
        journal.sync().unwrap();
        journal.mark(1).unwrap();
        assert_eq!(journal.last_seq(), 3, "the mark itself is a frame");
    }
}
