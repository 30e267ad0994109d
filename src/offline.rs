//! A data folder that cannot be opened because its log is damaged: what is damaged, what can be kept, and how the rest is given up.
//!
//! Opening a folder tells that a frame of its log is gone or damaged, and opens nothing around it: what was written after it rests on what it did. Who
//! has another copy of the folder takes that. Who has none decides what to give up: [`damage`] tells up to where all can be kept, and
//! what would be lost; [`repair`] cuts the log there. What is cut off stays in files beside the log.
//!
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! # nexus::blocking::connect(folder)?.shutdown()?;
//! use nexus::offline;
//!
//! if let Some(damage) = offline::damage(folder)? {
//!     println!("{damage}");
//!     // Whoever reads that, and agrees:
//!     let cut = offline::repair(folder, &offline::GiveUpAfter::of(&damage))?;
//!     println!("what was cut off is in {:?}", cut.aside);
//! }
//! let nx = nexus::blocking::connect(folder)?;
//! # nx.shutdown()?;
//! # Ok::<(), nexus::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use nexus_drivers::streams::wal::DamagedStreams;
pub use nexus_drivers::streams::wal::{LostRecords, StreamsCut, StreamsDamage, StreamsPlace};
use nexus_drivers::wal::DamagedLog;
pub use nexus_drivers::wal::{Cut, LogDamage, Lost};
use nexus_kernel::hal::{StoreError, TreeId};
use nexus_messages::{Error, ErrorKind, Lsn, Op, Result};

use crate::boot::STREAMS;
use crate::folder::DataFolder;

/// After which place, of each tree, the rest of the log is given up. As text it is the place in the root zone, and `TREE:LSN` for each
/// other tree, with commas between them: `120` or `120,3:17`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GiveUpAfter(BTreeMap<TreeId, Lsn>);

impl GiveUpAfter {
    /// After all that can be kept.
    pub fn of(damage: &LogDamage) -> Self {
        Self(damage.kept.clone())
    }

    /// And after this place of that tree.
    #[must_use]
    pub fn and(mut self, tree: TreeId, lsn: Lsn) -> Self {
        if lsn.0 > 0 {
            self.0.insert(tree, lsn);
        }
        self
    }

    /// After which place of this tree.
    pub fn lsn(&self, tree: TreeId) -> Lsn {
        self.0.get(&tree).copied().unwrap_or_default()
    }
}

impl From<Lsn> for GiveUpAfter {
    /// After this place in the root zone, of a store that has no other.
    fn from(lsn: Lsn) -> Self {
        Self::default().and(TreeId::ROOT, lsn)
    }
}

impl fmt::Display for GiveUpAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.lsn(TreeId::ROOT))?;
        let others = self.0.iter().filter(|(tree, _)| **tree != TreeId::ROOT);
        others.into_iter().try_for_each(|(tree, lsn)| write!(f, ",{}:{lsn}", tree.0))
    }
}

impl FromStr for GiveUpAfter {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
        let mut all = Self::default();
        for part in text.split(',') {
            let (tree, lsn) = match part.split_once(':') {
                Some((tree, lsn)) => {
                    (tree.parse().map(TreeId).map_err(|_| format!("{tree:?} is no tree"))?, number(lsn)?)
                }
                None => (TreeId::ROOT, number(part)?),
            };
            all = all.and(tree, Lsn(lsn));
        }
        Ok(all)
    }
}

/// What of the log in the data folder `folder` is damaged; none when that is not what keeps it from being opened. The folder is locked meanwhile, and nothing in
/// it is changed, but that the database brings to its end what it was in the middle of. Blocks on disk, for as long as it takes to read the log.
///
/// # Errors
/// `ENOENT` when there is no store in the folder, `EBUSY` when somebody has it open; else as [`connect`](crate::connect), for a database that is damaged itself, say.
pub fn damage(folder: impl AsRef<Path>) -> Result<Option<LogDamage>> {
    let path = folder.as_ref();
    in_log(path, Op::Check, |log| log.damage())
}

/// Cuts the log in the data folder `folder` at its first damaged frame, so that it can be opened again: with all up to there, and without what came
/// later. `after` is what [`damage`] told, so that nobody loses more than was meant. What is cut off is copied into files in the folder of the log
/// before, and nothing removes those. On disk when it returns; after a crash or a failure it may be repeated. Blocks on disk.
///
/// The LSNs and identities of what was lost are given anew to what is committed afterwards, so cursors and places from before are not to be relied on. A receipt
/// for what was lost is told as lost, for as long as the log has a record of what took its place.
///
/// # Errors
/// As [`damage`]; `EINVAL` when nothing is damaged, or something else can be kept than `after` says: then nothing is changed.
pub fn repair(folder: impl AsRef<Path>, after: &GiveUpAfter) -> Result<Cut> {
    let path = folder.as_ref();
    in_log(path, Op::Repair, |log| {
        let damage = log.damage()?;
        let can_be_kept = damage.as_ref().map(GiveUpAfter::of);
        match can_be_kept {
            Some(can_be_kept) if can_be_kept != *after => Err(StoreError::BadOption {
                why: format!("all after {can_be_kept} is to be given up, and not all after {after}"),
            }),
            _ => log.cut(&after.0),
        }
    })
}

/// What of the streams' log in the data folder `folder` is damaged; none when that is not what keeps the folder from being opened. Damage in the middle of the log does not: to
/// read what was there is an error, and all else goes on. The folder is locked meanwhile, and nothing in it is changed. Blocks on disk, for as long as it takes to read the end of
/// the log.
///
/// # Errors
/// `ENOENT` when there is no folder, `EBUSY` when somebody has it open.
pub fn streams_damage(folder: impl AsRef<Path>) -> Result<Option<StreamsDamage>> {
    in_streams(folder.as_ref(), Op::Check, |streams| match streams {
        Some(streams) => streams.damage(),
        None => Ok(None),
    })
}

/// Cuts the streams' log in the data folder `folder` at `place`, up to which [`streams_damage`] told that it is whole, so that the folder can be opened again. What is cut off is
/// copied into files in the folder of the streams before, and nothing removes those. On disk when it returns; after a crash or a failure it may be repeated. Blocks on disk.
///
/// The offsets of records that were lost are given anew; what a consumer group was done with is told as of the same place.
///
/// # Errors
/// As [`streams_damage`]; `EINVAL` when nothing is damaged, or in another place: then nothing is changed.
pub fn repair_streams(folder: impl AsRef<Path>, place: StreamsPlace) -> Result<StreamsCut> {
    in_streams(folder.as_ref(), Op::Repair, |streams| match streams {
        Some(streams) => streams.cut(place),
        None => Err(StoreError::BadOption { why: "there are no streams: nothing is to be given up".into() }),
    })
}

fn in_streams<T>(
    path: &Path,
    op: Op,
    run: impl FnOnce(Option<&DamagedStreams>) -> std::result::Result<T, StoreError>,
) -> Result<T> {
    let failed = |error: &StoreError| Error::on_host(op, path, error.kind()).because(error);
    if !path.is_dir() {
        return Err(Error::on_host(op, path, ErrorKind::NotFound));
    }
    let _folder = DataFolder::take(path, false).map_err(|error| error.during(op))?;
    let streams = DamagedStreams::open(path.join(STREAMS)).map_err(|error| failed(&error))?;
    run(streams.as_ref()).map_err(|error| failed(&error))
}

fn in_log<T>(
    path: &Path,
    op: Op,
    run: impl FnOnce(&DamagedLog) -> std::result::Result<T, StoreError>,
) -> Result<T> {
    let failed = |error: &StoreError| Error::on_host(op, path, error.kind()).because(error);
    // Whoever mistypes a folder does not get one made.
    if !path.is_dir() {
        return Err(Error::on_host(op, path, ErrorKind::NotFound));
    }
    let _folder = DataFolder::take(path, false).map_err(|error| error.during(op))?;
    let log = DamagedLog::open(path).map_err(|error| failed(&error))?;
    run(&log).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_told_and_read_alike() {
        let check = |text: &str, expected: GiveUpAfter| {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        };
        check("0", GiveUpAfter::default());
        check("120", Lsn(120).into());
        check("120,3:17", GiveUpAfter::from(Lsn(120)).and(TreeId(3), Lsn(17)));
        check("0,1:2,3:17", GiveUpAfter::default().and(TreeId(3), Lsn(17)).and(TreeId(1), Lsn(2)));
        for wrong in ["", "x", "1,", "1,x:2", "-1", "1:"] {
            assert!(wrong.parse::<GiveUpAfter>().is_err(), "{wrong}");
        }
    }
}
