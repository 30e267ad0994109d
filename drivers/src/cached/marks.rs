//! Which stores may have something pending, told beside the index: so that a mount of another store needs no index, and one that is damaged can be told from one
//! with which something acknowledged is lost. All blocks.
//!
//! A mark is an empty file. It is durable before a mount of its store may write back, and goes when the last such mount has ended with nothing pending; whoever opens
//! the index, marks what it has. A last file says that this was done: what a version left that knew no marks, tells nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::rows::PlaceId;
use super::vault::INDEX;
use crate::disk::{Folder, LocalFolder};

/// Where marks are in the folder of a cache.
const FOLDER: &str = "write_back";

/// Says that every store that needs a mark has one.
const ALL: &str = "all-marked";

/// The marks of a folder that is open.
pub(super) struct Marks {
    folder: Arc<dyn Folder>,
    /// Held while a mark is made or taken away.
    turn: Mutex<()>,
}

/// What is known of a store without its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing is pending.
    Nothing,
    /// Something may be pending.
    Marked,
    /// It was written by a version that knew no marks.
    Unknown,
}

impl Marks {
    /// Marks those stores of the cache in `folder`, and no others.
    pub(super) fn begin(folder: &Path, pending: &BTreeSet<PlaceId>) -> io::Result<Self> {
        let marks: Arc<dyn Folder> = Arc::new(LocalFolder::open(folder.join(FOLDER))?);
        let wanted: Vec<String> = pending.iter().map(name_of).collect();
        let there = marks.list()?;
        for name in wanted.iter().filter(|name| !there.contains(name)) {
            marks.open(name, true)?;
        }
        marks.sync()?;
        if !there.iter().any(|name| name == ALL) {
            marks.open(ALL, true)?;
            marks.sync()?;
        }
        for name in there.iter().filter(|name| *name != ALL && !wanted.contains(name)) {
            marks.remove(name)?;
        }
        Ok(Self { folder: marks, turn: Mutex::default() })
    }

    /// Marks a store, durably.
    pub(super) fn set(&self, id: &PlaceId) -> io::Result<()> {
        let _turn = self.turn.lock();
        self.folder.open(&name_of(id), true)?;
        self.folder.sync()
    }

    /// Takes the mark away, if it is not needed.
    pub(super) fn clear(&self, id: &PlaceId, is_needed: impl FnOnce() -> bool) -> io::Result<()> {
        let _turn = self.turn.lock();
        if is_needed() {
            return Ok(());
        }
        match self.folder.remove(&name_of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What the marks in the folder of a cache, which may not be there, say of a store.
pub(super) fn told_of(folder: &Path, id: &PlaceId) -> io::Result<Told> {
    told(folder, |marks| marks.join(name_of(id)).try_exists())
}

/// What they say of all stores together.
pub(super) fn told_of_all(folder: &Path) -> io::Result<Told> {
    told(folder, |marks| Ok(std::fs::read_dir(marks)?.count() > 1))
}

fn told(folder: &Path, is_marked: impl FnOnce(&PathBuf) -> io::Result<bool>) -> io::Result<Told> {
    let marks = folder.join(FOLDER);
    if !marks.join(ALL).try_exists()? {
        let is_there = folder.join(INDEX).try_exists()?;
        return Ok(if is_there { Told::Unknown } else { Told::Nothing });
    }
    Ok(if is_marked(&marks)? { Told::Marked } else { Told::Nothing })
}

fn name_of(id: &PlaceId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
