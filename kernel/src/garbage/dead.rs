//! Which rows belong to mounts that are gone. Synchronous, and handed the rows.
//!
//! The row of a mount goes when its content goes with it, and the rows of what it held are buried later. That such a row is not there is no proof that it
//! was taken away: one damaged bit makes the root of a mount of any file, and another one leads from a dead directory to one that lives. So nothing is
//! taken for dead on the word of one row. Nothing else may remember the mount; and in one view of all names, in which nothing moves, no name leads to
//! its root, and one name, its own, to each of the entries below. As identities are never used again, none leads there later. Whatever does not fit is
//! damage: it stays with all around it, and is left to `fsck`.

use std::collections::BTreeSet;

use bytes::Bytes;
use nexus_messages::{EntryType, FileId};

use crate::hal::{Reader, RowKey, StoreError, Table, TreeId};
use crate::namespace::{DentryRow, InodeRow, addressing_key, children_key, decode, inode_key, mount_key};

/// How many rows are read at once.
const PAGE: usize = 1_024;

/// How many entries are looked at together, at 16 bytes each: what comes beyond takes another look at all names.
pub(super) const DEAD_MAX: usize = 1 << 22;

/// How deep directories can lie: what is deeper is damage.
pub(super) const DEPTH_MAX: usize = 4_096;

/// Why a look ends early: nobody will see what it found.
const OVER: &str = "the collection is over";

/// The root of a mount that looks as if it were gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) tree: TreeId,
    pub(super) id: FileId,
    /// Its row.
    pub(super) row: Bytes,
}

/// The roots among the inodes in `page` that nothing remembers; and those that something speaks for, with what that is.
pub(super) fn forgotten(
    reader: &dyn Reader,
    page: &[(RowKey, Bytes)],
) -> Result<(Vec<Root>, Vec<String>), StoreError> {
    let (mut roots, mut left) = (Vec::new(), Vec::new());
    for (key, value) in page {
        let Some((tree, id)) = place(key) else { continue };
        let row = decode::<InodeRow>(key, value)?;
        if row.entry_type != EntryType::Mount || reader.get(&mount_key(id))?.is_some() {
            continue;
        }
        if row.content_id.is_some() {
            left.push(format!("{id} is told to be the root of a mount, and has content"));
        } else if reader.get(&addressing_key(id))?.is_some() {
            left.push(format!("the mount with the root {id} is remembered, and its row is not there"));
        } else {
            roots.push(Root { tree, id, row: value.clone() });
        }
    }
    Ok((roots, left))
}

/// What is dead of one tree.
#[derive(Debug, Default)]
pub(super) struct Dead {
    // Invariant: sorted, and each once.
    ids: Vec<FileId>,
    /// The roots below which it lies: some of those that were asked for.
    pub(super) roots: Vec<Root>,
    /// What stays, and why.
    pub(super) left: Vec<String>,
    /// How many rows that are.
    pub(super) rows: u64,
    /// There is more than was looked at.
    pub(super) is_part: bool,
}

impl Dead {
    /// Whether the entry may go.
    pub(super) fn has(&self, id: FileId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// What is dead below `roots`, which are of `tree`, and with them: at most `max` entries. `goes_on` is asked now and then.
    pub(super) fn of(
        reader: &dyn Reader,
        tree: TreeId,
        roots: Vec<Root>,
        max: usize,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Self, StoreError> {
        let mut survey = Survey { reader, tree, max, goes_on, found: Vec::new(), odd: BTreeSet::new() };
        let mut dead = Self::default();
        for (number, root) in (0..).zip(&roots) {
            if let Err(why) = survey.walk(number, root.id)? {
                survey.odd.insert(number);
                dead.left.push(looks_dead(root.id, &why));
            }
        }
        dead.is_part = survey.found.len() >= max;
        survey.found.sort_unstable_by_key(|(id, _, _)| *id);
        let named = survey.names()?;
        for (at, (id, number, names)) in survey.found.iter().enumerate() {
            let is_root = roots[*number as usize].id == *id;
            let is_met_again = |at: Option<usize>| {
                at.and_then(|at| survey.found.get(at)).is_some_and(|(other, _, _)| other == id)
            };
            let odd = match &named {
                Err(why) => Some(why.clone()),
                Ok(()) if *names != u8::from(!is_root) => Some(format!("{names} names lead to {id}")),
                Ok(()) if is_met_again(at.checked_sub(1)) || is_met_again(Some(at + 1)) => {
                    Some(format!("{id} lies below it, and elsewhere"))
                }
                Ok(()) => None,
            };
            if let Some(why) = odd
                && survey.odd.insert(*number)
            {
                dead.left.push(looks_dead(roots[*number as usize].id, &why));
            }
        }
        let is_dead = |number: &u32| !survey.odd.contains(number);
        dead.ids =
            survey.found.iter().filter(|(_, number, _)| is_dead(number)).map(|(id, _, _)| *id).collect();
        dead.roots = (0..).zip(roots).filter(|(number, _)| is_dead(number)).map(|(_, root)| root).collect();
        // An entry has its metadata and its name, a root has no name.
        dead.rows =
            2 * dead.ids.len() as u64 - dead.roots.iter().filter(|root| dead.has(root.id)).count() as u64;
        Ok(dead)
    }
}

/// A directory that is walked.
struct Level {
    directory: FileId,
    after: Option<RowKey>,
    page: std::vec::IntoIter<(RowKey, Bytes)>,
}

impl Level {
    fn new(directory: FileId) -> Self {
        Self { directory, after: None, page: Vec::new().into_iter() }
    }
}

struct Survey<'a> {
    reader: &'a dyn Reader,
    tree: TreeId,
    max: usize,
    goes_on: &'a dyn Fn() -> bool,
    /// Each entry with the number of its root, and how many names lead to it.
    found: Vec<(FileId, u32, u8)>,
    /// The roots of which something stays.
    odd: BTreeSet<u32>,
}

impl Survey<'_> {
    /// Finds what lies below `root`, each directory before what it holds. Why it cannot be dead, if that shows.
    fn walk(&mut self, number: u32, root: FileId) -> Result<Result<(), String>, StoreError> {
        if self.found.len() >= self.max {
            return Ok(Ok(()));
        }
        self.found.push((root, number, 0));
        let mut way = vec![Level::new(root)];
        while let Some(level) = way.last_mut() {
            let Some((key, value)) = level.page.next() else {
                if !(self.goes_on)() {
                    return Ok(Err(OVER.into()));
                }
                let page = self.reader.scan(
                    &children_key(self.tree, level.directory),
                    level.after.as_ref(),
                    PAGE,
                )?;
                match page.last() {
                    Some((last, _)) => (level.after, level.page) = (Some(last.clone()), page.into_iter()),
                    None => drop(way.pop()),
                }
                continue;
            };
            if self.found.len() >= self.max {
                return Ok(Ok(()));
            }
            let Ok(dentry) = decode::<DentryRow>(&key, &value) else {
                return Ok(Err(format!("row {key:?} cannot be read")));
            };
            if let Err(why) = self.check(&dentry)? {
                return Ok(Err(why));
            }
            self.found.push((dentry.id, number, 0));
            if dentry.entry_type.is_directory() {
                way.push(Level::new(dentry.id));
                if way.len() > DEPTH_MAX {
                    return Ok(Err("directories below it lie in a circle".into()));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether the metadata is of what its name says.
    fn check(&self, dentry: &DentryRow) -> Result<Result<(), String>, StoreError> {
        let key = inode_key(self.tree, dentry.id);
        let Some(value) = self.reader.get(&key)? else { return Ok(Ok(())) };
        Ok(match decode::<InodeRow>(&key, &value) {
            Err(_) => Err(format!("row {key:?} cannot be read")),
            Ok(row) if row.entry_type != dentry.entry_type || row.entry_type == EntryType::Mount => {
                Err(format!(
                    "the name of {} says {:?}, and its metadata {:?}",
                    dentry.id, dentry.entry_type, row.entry_type
                ))
            }
            Ok(_) => Ok(()),
        })
    }

    /// Counts the names of what was found, which is sorted. Why that cannot be done, if so.
    fn names(&mut self) -> Result<Result<(), String>, StoreError> {
        let all = RowKey::new(Table::Dentries, self.tree.0.to_be_bytes());
        let mut after = None;
        loop {
            if !(self.goes_on)() {
                return Ok(Err(OVER.into()));
            }
            let page = self.reader.scan(&all, after.as_ref(), PAGE)?;
            for (key, value) in &page {
                // One that cannot be read may lead anywhere.
                let Ok(dentry) = decode::<DentryRow>(key, value) else {
                    return Ok(Err(format!("row {key:?} cannot be read")));
                };
                let first = self.found.partition_point(|(id, _, _)| *id < dentry.id);
                for (_, _, names) in self.found[first..].iter_mut().take_while(|(id, _, _)| *id == dentry.id)
                {
                    *names = names.saturating_add(1);
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return Ok(Ok(())),
            }
        }
    }
}

fn looks_dead(root: FileId, why: &str) -> String {
    format!("{root} looks like the root of a mount that is gone: {why}")
}

/// The tree and the identity in an inode's key.
pub(super) fn place(key: &RowKey) -> Option<(TreeId, FileId)> {
    debug_assert_eq!(key.table, Table::Inodes);
    let (tree, id) = key.bytes.split_first_chunk()?;
    let id = <[u8; 8]>::try_from(id).ok()?;
    Some((TreeId(u32::from_be_bytes(*tree)), FileId(u64::from_be_bytes(id))))
}
