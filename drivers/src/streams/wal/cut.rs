//! A streams' log that is damaged where it ends, while nobody has it open: up to where it is whole, what would be lost with the rest, and how that is cut off.
//!
//! Damage in an older segment keeps nothing from being opened: to read what is there is an error. In the last one it does, because what the streams are
//! is told by that one.
//!
//! **Nothing is destroyed.** What is cut off is copied into files beside the log first, and the copies are on disk before the first byte goes. A crash
//! leaves a log that is damaged in the same place, or one that ends there; the cut may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use nexus_kernel::hal::StoreError;
use nexus_kernel::streams::groups::stream_of;
use nexus_messages::FileId;

use super::record::{self, Entry};
use super::{index, proof, recovery, salt};
use crate::disk::{FileLock, Folder, LocalFolder};
use crate::frames::aside::{end_of, set_aside};
use crate::frames::segment::{Last, Segment, name_of, numbers};

/// A place in a streams' log. As text it is `SEGMENT:OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamsPlace {
    /// The number of the segment.
    pub segment: u64,
    /// Where in it, in bytes.
    pub offset: u64,
}

impl fmt::Display for StreamsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

impl FromStr for StreamsPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
        let (segment, offset) =
            text.split_once(':').ok_or_else(|| format!("{text:?} is not SEGMENT:OFFSET"))?;
        Ok(Self { segment: number(segment)?, offset: number(offset)? })
    }
}

/// What is damaged in a streams' log, and what would be lost with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsDamage {
    /// Up to here the log is whole.
    pub place: StreamsPlace,
    /// The file, within the folder of the streams, in which that is.
    pub segment: String,
    /// What says that there was more.
    pub proof: String,
    /// Up to which offset the records of each stream are kept, as far as the limits had not let go of them. Of a segment that was moved elsewhere nothing is told.
    pub kept: BTreeMap<FileId, u64>,
    /// What would be lost.
    pub lost: LostRecords,
}

/// What is lost when a streams' log is cut, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRecords {
    /// How many records.
    pub records: u64,
    /// The offsets of the first and the last of each stream.
    pub streams: BTreeMap<FileId, (u64, u64)>,
    /// How many bytes are cut off, the zeros at the end of each file left out.
    pub bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsCut {
    /// The damage that was cut off.
    pub damage: StreamsDamage,
    /// The files, within the folder of the streams, that have what was cut off.
    pub aside: Vec<String>,
}

/// A streams' log that is not open, held so that nobody opens it meanwhile.
pub struct DamagedStreams {
    folder: Arc<dyn Folder>,
    salt: u64,
    _held: Option<FileLock>,
}

impl fmt::Debug for DamagedStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DamagedStreams").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DamagedStreams {
    /// Takes the streams in `folder`; none when it is not there. Blocks on disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when somebody has it, and [`StoreError::Corrupt`] when the number is lost that binds the log together: nothing can be read then.
    pub fn open(folder: impl AsRef<Path>) -> Result<Option<Self>, StoreError> {
        let path = folder.as_ref();
        if !path.is_dir() {
            return Ok(None);
        }
        let failed = |e| StoreError::io(format!("opening {}", path.display()), e);
        let folder: Arc<dyn Folder> = Arc::new(LocalFolder::open(path).map_err(failed)?);
        let held = FileLock::try_take(&path.join(super::driver::LOCK)).map_err(failed)?;
        let held = held.ok_or_else(|| StoreError::Locked { what: path.display().to_string() })?;
        Ok(Self::open_in(folder)?.map(|taken| Self { _held: Some(held), ..taken }))
    }

    /// Takes the streams in `folder`, which nobody else opens: no lock is taken. None when there are none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_in(folder: Arc<dyn Folder>) -> Result<Option<Self>, StoreError> {
        if numbers(&folder)?.is_empty() && recovery::left_alone(&folder)?.is_none() {
            return Ok(None);
        }
        let Some(salt) = salt::there(&folder)? else { return Ok(None) };
        Ok(Some(Self { folder, salt, _held: None }))
    }

    /// The streams in `folder`, whose salt is this.
    #[cfg(test)]
    pub(super) fn of(folder: Arc<dyn Folder>, salt: u64) -> Self {
        Self { folder, salt, _held: None }
    }

    /// What is damaged; none when the streams can be opened. Changes nothing. Blocks on disk.
    ///
    /// # Errors
    ///
    /// When the log cannot be read, or was written by a later version.
    pub fn damage(&self) -> Result<Option<StreamsDamage>, StoreError> {
        let Some((place, proof)) = self.gap()? else { return Ok(None) };
        let (mut lost, mut seen) = (LostRecords::default(), BTreeSet::new());
        for (number, from) in self.behind(place)? {
            let segment = self.segment(number)?;
            segment.search(from, &mut |_, header, payload| {
                if seen.insert(header.seq) {
                    for item in record::decode(&payload.into()).unwrap_or_default() {
                        lost.take(&item.entry);
                    }
                }
                true
            })?;
            lost.bytes += end_of(&*segment.file, from, &name_of(number))? - from;
        }
        let kept = self.kept(place)?;
        Ok(Some(StreamsDamage { place, segment: name_of(place.segment), proof, kept, lost }))
    }

    /// Cuts the log at `place`, which is where [`damage`](Self::damage) told that it is whole up to: so that nobody gives up more than was meant. When it returns
    /// the streams can be opened. May be repeated after a failure, or a crash. Blocks on disk.
    ///
    /// The offsets of what was lost are given anew to what is appended afterwards.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadOption`] when nothing is damaged, or in another place, and nothing is changed then; else what the disk says.
    pub fn cut(&self, place: StreamsPlace) -> Result<StreamsCut, StoreError> {
        let refused = |why: String| Err(StoreError::BadOption { why });
        let Some(damage) = self.damage()? else {
            return refused("the streams' log is not damaged: nothing is to be given up".into());
        };
        if damage.place != place {
            return refused(format!("the log can be kept up to {}, and not up to {place}", damage.place));
        }
        let behind = self.behind(place)?;
        let mut aside = Vec::new();
        for (number, from) in &behind {
            aside.extend(set_aside(&self.folder, &*self.segment(*number)?.file, &name_of(*number), *from)?);
        }
        // What says that there was more. An index is made again of its segment.
        let proofs = [proof::NAME.to_owned()];
        let indexes = self
            .names()?
            .into_iter()
            .filter(|name| index::number_of(name).is_some_and(|number| number + 1 >= place.segment));
        let proofs: Vec<String> = proofs.into_iter().chain(indexes).collect();
        for name in &proofs {
            match self.folder.open(name, false) {
                Ok(file) => aside.extend(set_aside(&self.folder, &*file, name, 0)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io(format!("reading {name}"), error)),
            }
        }
        self.sync()?;
        // All of it is on disk a second time. The last one first: what is left is damaged in the same place, or is a log that ends there.
        for (number, from) in behind.iter().rev() {
            if *from == 0 {
                self.remove(&name_of(*number))?;
                continue;
            }
            let file = self.segment(*number)?.file;
            let cut = file.set_len(*from).and_then(|()| file.sync());
            cut.map_err(|e| StoreError::io(format!("cutting {}", name_of(*number)), e))?;
        }
        self.sync()?;
        proofs.iter().try_for_each(|name| self.remove(name))?;
        self.sync()?;
        Ok(StreamsCut { damage, aside })
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self.folder.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io(format!("removing {name}"), error))
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.folder.sync().map_err(|e| StoreError::io("flushing the streams' folder", e))
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        self.folder.list().map_err(|e| StoreError::io("listing the streams' log", e))
    }

    fn segment(&self, number: u64) -> Result<Segment, StoreError> {
        Segment::open(&self.folder, self.salt, number, false)
    }

    /// The segments of which something stands behind `place`, in their order, and from where on.
    fn behind(&self, place: StreamsPlace) -> Result<Vec<(u64, u64)>, StoreError> {
        let behind = numbers(&self.folder)?.into_iter().filter(|number| *number >= place.segment);
        Ok(behind.map(|number| (number, if number == place.segment { place.offset } else { 0 })).collect())
    }

    /// Where the log is damaged, as opening it finds, and what says so.
    fn gap(&self) -> Result<Option<(StreamsPlace, String)>, StoreError> {
        let at = |segment, offset| StreamsPlace { segment, offset };
        let mut segments = numbers(&self.folder)?;
        let first = segments.first().copied().unwrap_or(1);
        while let Some(number) = segments.pop() {
            let segment = self.segment(number)?;
            if segment.frame(0)?.is_some() {
                if recovery::read_index(&self.folder, &segment).is_some() {
                    let said =
                        format!("the index of segment {number} was written when the next one was on disk");
                    return Ok(Some((at(number + 1, 0), said)));
                }
                let (end, last) = follow(&segment, u64::MAX, &mut |_| ())?;
                let missing = last.seq + 1;
                if proof::read(&self.folder, segment.seed).is_some_and(|proof| proof.seq >= missing) {
                    return Ok(Some((
                        at(number, end),
                        "the streams were closed when more was on disk".into(),
                    )));
                }
                let proof = segment.proves(end, missing)?;
                let said = |seq| format!("frame {seq} was written when frame {missing} was on disk");
                return Ok(proof.map(|proof| (at(number, end), said(proof.seq))));
            }
            if let Some(proof) = segment.any_frame()? {
                let said =
                    format!("frame {proof} was written when the beginning of segment {number} was on disk");
                return Ok(Some((at(number, 0), said)));
            }
        }
        let left = recovery::left_alone(&self.folder)?;
        Ok(left.map(|left| (at(first, 0), format!("{left} was written when there was a segment"))))
    }

    /// The tails of the streams at `place`.
    fn kept(&self, place: StreamsPlace) -> Result<BTreeMap<FileId, u64>, StoreError> {
        let mut tails = BTreeMap::new();
        for number in numbers(&self.folder)?.into_iter().rev().filter(|number| *number <= place.segment) {
            let until = if number == place.segment { place.offset } else { u64::MAX };
            let segment = self.segment(number)?;
            if until == 0 || segment.frame(0)?.is_none() {
                continue;
            }
            follow(&segment, until, &mut |entry| note(&mut tails, entry))?;
            break;
        }
        Ok(tails)
    }
}

/// Reads the frames of a segment one after the other, up to `until`; gives where they end, and the last.
fn follow(segment: &Segment, until: u64, learn: &mut dyn FnMut(&Entry)) -> Result<(u64, Last), StoreError> {
    let (mut at, mut last) = (0, None::<Last>);
    while at < until {
        let Some((header, payload)) = segment.frame(at)? else { break };
        if last.is_some_and(|last| header.seq != last.seq + 1 || header.previous != last.checksum) {
            break;
        }
        record::decode(&payload.into()).unwrap_or_default().iter().for_each(|item| learn(&item.entry));
        at += header.frame_bytes();
        last = Some(Last { seq: header.seq, checksum: header.checksum });
    }
    Ok((at, last.unwrap_or(Last { seq: 0, checksum: 0 })))
}

/// Takes in what becomes of the tails of streams.
fn note(tails: &mut BTreeMap<FileId, u64>, entry: &Entry) {
    match entry {
        Entry::Start(snapshots) => {
            tails.extend(snapshots.iter().map(|snapshot| (snapshot.stream, snapshot.state.tail)));
        }
        Entry::Create { stream, .. } => drop(tails.entry(*stream).or_insert(0)),
        Entry::Append(append) => {
            let tail = tails.entry(append.stream).or_insert(0);
            *tail = (*tail).max(append.first + append.lengths.len() as u64);
        }
        Entry::Remove { stream } => drop(tails.remove(stream)),
        _ => {}
    }
}

impl LostRecords {
    fn take(&mut self, entry: &Entry) {
        let Entry::Append(append) = entry else { return };
        let count = append.lengths.len() as u64;
        let last = append.first + count.saturating_sub(1);
        self.records += count;
        let (from, to) = self.streams.entry(append.stream).or_insert((append.first, last));
        (*from, *to) = ((*from).min(append.first), (*to).max(last));
    }
}

impl fmt::Display for StreamsDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, segment, proof, kept, lost } = self;
        let named = |stream: &FileId| match stream_of(*stream) {
            of if of == *stream => format!("stream {stream}"),
            of => format!("the groups of stream {of}"),
        };
        writeln!(f, "streams/{segment}, at byte {}: a frame is gone or damaged, and {proof}", place.offset)?;
        for (stream, tail) in kept {
            writeln!(f, "kept: {} up to record {tail}, which comes next", named(stream))?;
        }
        writeln!(f, "lost: {} records that can be read; {} bytes", lost.records, lost.bytes)?;
        for (stream, (first, last)) in &lost.streams {
            writeln!(f, "lost: {}, records {first} to {last}, as far as they can be read", named(stream))?;
        }
        Ok(())
    }
}
