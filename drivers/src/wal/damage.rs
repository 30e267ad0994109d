//! A log that is damaged, while nobody has its store open: what of it is whole, what would be lost with the rest, and how that is cut off.
//!
//! A frame that is gone or damaged ends what can be read in order: what was written after it may rest on what it did. So all before it is kept, and it and
//! all behind it is given up; what of that can be read is told, and not done.
//!
//! **Nothing is destroyed.** What is cut off is copied into files beside the log first, and the copies are on disk before the first byte goes. A crash
//! leaves a log that is damaged as before, or one that ends where it was to be cut; the cut may be repeated in either case, and copies that are whole
//! are not written again, or over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use nexus_kernel::hal::{LogRecord, StoreError, TreeId};
use nexus_messages::Lsn;

use super::frame;
use super::segment::{Gap, Segment, name_of, read_all};
use super::store::{DATABASE, LOG};
use crate::disk::{Folder, LocalFolder};
use crate::frames::aside::{end_of, set_aside};
use crate::redb::{Disk, FileDisk, RedbConfig, RedbMetastore};

/// How many of the operations that would be lost are told one by one.
pub const LOST_MAX: usize = 1_024;

/// What is damaged, and the segments of which something is to be cut off, in their order: each from where on.
type Looked = (LogDamage, Vec<(Segment, u64)>);

/// The log of a store that is not open, held so that nobody opens it meanwhile. The database beside it is opened, as the store itself does it: should the
/// database have been left in the middle of something, that is brought to its end.
pub struct DamagedLog {
    database: RedbMetastore,
    folder: Arc<dyn Folder>,
}

/// What is damaged in a log, and what would be lost with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogDamage {
    /// The file, within the folder of the log, in which the first frame lies that is not whole, or was to lie.
    pub segment: String,
    /// Where in that file, in bytes.
    pub offset: u64,
    /// The number of that frame. All before it are whole.
    pub frame: u64,
    /// The number of the frame that says so: it was written when the missing one was on disk.
    pub proof: u64,
    /// Up to which place all of each tree is kept, for those that have something.
    pub kept: BTreeMap<TreeId, Lsn>,
    /// What would be lost.
    pub lost: Lost,
}

/// What is lost when a log is cut, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The number of the last frame that is known to have been written. Those that were never flushed may be among them: nobody was told of those.
    pub through: u64,
    /// How many of the frames cannot be read.
    pub unreadable: u64,
    /// How many operations those hold that can be read.
    pub operations: u64,
    /// The first and the last place, of each tree, that can be read.
    pub places: BTreeMap<TreeId, (Lsn, Lsn)>,
    /// The operations, in their order; the first [`LOST_MAX`] of them.
    pub listed: Vec<(TreeId, LogRecord)>,
    /// How many bytes are cut off, the zeros at the end of each file left out.
    pub bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The damage that was cut off.
    pub damage: LogDamage,
    /// The files, within the folder of the log, that have what was cut off.
    pub aside: Vec<String>,
}

impl fmt::Debug for DamagedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DamagedLog").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DamagedLog {
    /// Takes the log of the store in `folder`, which must be there. Blocks on disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is no store, [`StoreError::Locked`] when somebody has it, and what opening the database says: a damaged database
    /// is not for this.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = folder.as_ref();
        let failed = |e| StoreError::io(format!("opening {}", path.display()), e);
        if !path.join(DATABASE).exists() {
            return Err(StoreError::NotFound { what: path.join(DATABASE).display().to_string() });
        }
        let folder = LocalFolder::open(path).map_err(failed)?;
        let database = FileDisk::open(&path.join(DATABASE))?;
        Self::open_on(database, || folder.folder(LOG).map_err(failed))
    }

    /// Takes the log of the store in `folder`, which nobody else opens: no lock is taken.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_in(folder: &Arc<dyn Folder>) -> Result<Self, StoreError> {
        let failed = |e| StoreError::io("opening the log", e);
        if !folder.list().map_err(failed)?.iter().any(|name| name == DATABASE) {
            return Err(StoreError::NotFound { what: DATABASE.into() });
        }
        Self::open_on(Disk::in_folder(folder, DATABASE)?, || folder.folder(LOG).map_err(failed))
    }

    fn open_on(
        database: Disk,
        log: impl FnOnce() -> Result<Arc<dyn Folder>, StoreError>,
    ) -> Result<Self, StoreError> {
        // Its lock keeps others out of the log, too.
        let database = RedbMetastore::open_on(database, RedbConfig::default())?;
        Ok(Self { database, folder: log()? })
    }

    /// What is damaged; none when the store can be opened. Changes nothing. Blocks on disk, for as long as it takes to read the log.
    ///
    /// # Errors
    ///
    /// When the log cannot be read, or was written by a later version.
    pub fn damage(&self) -> Result<Option<LogDamage>, StoreError> {
        Ok(self.look()?.map(|(damage, _)| damage))
    }

    /// Cuts the damaged frame off, and all behind it. `kept` is up to where all is kept then, as [`damage`](Self::damage) told it: so that nobody gives up
    /// more than was meant. When it returns the store can be opened. May be repeated after a failure, or a crash. Blocks on disk.
    ///
    /// The places behind `kept`, and the identities of files that were made there, are given anew to what is committed afterwards: who remembers one from
    /// before must not rely on it.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadOption`] when nothing is damaged or `kept` is something else, and nothing is changed then; else what the disk says.
    pub fn cut(&self, kept: &BTreeMap<TreeId, Lsn>) -> Result<Cut, StoreError> {
        let refused = |why: String| Err(StoreError::BadOption { why });
        let Some((damage, segments)) = self.look()? else {
            return refused("the log is not damaged: nothing is to be given up".into());
        };
        if damage.kept != *kept {
            let told = |places: &BTreeMap<TreeId, Lsn>| {
                let told: Vec<_> =
                    places.iter().map(|(tree, lsn)| format!("LSN {lsn} of tree {}", tree.0)).collect();
                if told.is_empty() { "nothing".into() } else { told.join(", ") }
            };
            return refused(format!("{} can be kept, and not {}", told(&damage.kept), told(kept)));
        }
        let mut aside = Vec::new();
        for (segment, from) in &segments {
            aside.extend(set_aside(&self.folder, &*segment.file, &name_of(segment.number), *from)?);
        }
        self.sync()?;
        // All of it is on disk a second time. The last one first: what is left is damaged as before, or is a log that ends here.
        for (segment, from) in segments.iter().rev() {
            if segment.number == segments[0].0.number {
                let what = format!("cutting {}", name_of(segment.number));
                let cut = segment.file.set_len(*from).and_then(|()| segment.file.sync());
                cut.map_err(|e| StoreError::io(what, e))?;
            } else {
                let name = name_of(segment.number);
                self.folder.remove(&name).map_err(|e| StoreError::io(format!("removing {name}"), e))?;
            }
        }
        self.sync()?;
        Ok(Cut { damage, aside })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.folder.sync().map_err(|e| StoreError::io("flushing the log's folder", e))
    }

    fn look(&self) -> Result<Option<Looked>, StoreError> {
        let mut kept = self.database.last_lsns();
        let (applied, salt) = (self.database.applied(), self.database.salt());
        let damage = read_all(&self.folder, salt, applied, &mut |_, payload| {
            for entry in payload.entries {
                let last = kept.entry(entry.tree).or_insert(Lsn(0));
                *last = (*last).max(entry.record.lsn);
            }
            Ok(())
        })?;
        let Some((Gap { segment, at, frame: missing, proof }, numbers)) = damage else { return Ok(None) };
        kept.retain(|_, lsn| lsn.0 > 0);
        let mut lost = Lost { through: missing.max(proof), ..Lost::default() };
        let mut readable = BTreeSet::new();
        let mut segments = Vec::new();
        for number in numbers.into_iter().filter(|number| *number >= segment) {
            let segment_here = Segment::open(&self.folder, salt, number, false)?;
            let from = if number == segment { at } else { 0 };
            segment_here.search(from, &mut |_, header, payload| {
                // One that is older was let go, or was left behind by who wrote over it.
                if header.seq >= missing && readable.insert(header.seq) {
                    lost.through = lost.through.max(header.seq);
                    if let Ok(payload) = frame::decode(&payload) {
                        payload
                            .entries
                            .into_iter()
                            .for_each(|entry| lost.take(entry.tree, entry.record.into_owned()));
                    }
                }
                true
            })?;
            lost.bytes += end_of(&*segment_here.file, from, &name_of(number))? - from;
            segments.push((segment_here, from));
        }
        lost.unreadable = (lost.through + 1 - missing) - readable.len() as u64;
        let segment = name_of(segment);
        Ok(Some((LogDamage { segment, offset: at, frame: missing, proof, kept, lost }, segments)))
    }
}

impl Lost {
    fn take(&mut self, tree: TreeId, record: LogRecord) {
        self.operations += 1;
        let (first, last) = self.places.entry(tree).or_insert((record.lsn, record.lsn));
        (*first, *last) = ((*first).min(record.lsn), (*last).max(record.lsn));
        if self.listed.len() < LOST_MAX {
            self.listed.push((tree, record));
        }
    }
}

impl fmt::Display for LogDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, frame, proof, kept, lost } = self;
        writeln!(
            f,
            "{LOG}/{segment}, at byte {offset}: frame {frame} is gone or damaged, and frame {proof} was written after it was on disk"
        )?;
        if kept.is_empty() {
            writeln!(f, "kept: nothing")?;
        }
        for (tree, lsn) in kept {
            writeln!(f, "kept: all up to LSN {lsn}{}", of_tree(*tree))?;
        }
        let frames = lost.through + 1 - frame;
        writeln!(
            f,
            "lost: frames {frame} to {}, {} of {frames} unreadable; {} operations that can be read; {} bytes",
            lost.through, lost.unreadable, lost.operations, lost.bytes
        )?;
        for (tree, (first, last)) in &lost.places {
            let begin = kept.get(tree).map_or(1, |lsn| lsn.0 + 1);
            write!(f, "lost: LSN {begin} to {last} at least{}", of_tree(*tree))?;
            if first.0 > begin {
                write!(f, ", {begin} to {} unreadable", first.0 - 1)?;
            }
            writeln!(f)?;
        }
        for (tree, record) in &lost.listed {
            let other = record.other.as_ref().map(|other| format!(" {other}")).unwrap_or_default();
            let LogRecord { lsn, op, path, at, caller, .. } = record;
            writeln!(f, "  {lsn}{} {op} {path}{other} {at} {caller}", of_tree(*tree))?;
        }
        match lost.operations - lost.listed.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

/// Which tree, unless it is that of the root zone.
fn of_tree(tree: TreeId) -> String {
    if tree == TreeId::ROOT { String::new() } else { format!(" of tree {}", tree.0) }
}
