//! Names against metadata: what the rows of the namespace say of each other. Synchronous, and handed the rows.
//!
//! The rows are first looked at page by page, each page in a view of its own, so that no view grows old. What is moved meanwhile may then be seen
//! twice or not at all, and look wrong. So when something does, all of it is surveyed again in one view, in which nothing moves, and only what that
//! says is suspected. What is suspected carries its evidence: the rows that make it wrong. It holds for as long as they are as they were.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nexus_messages::{EntryType, FileId, VPath};

use super::finding::Fault;
use crate::hal::{Metastore, Reader, RowKey, StoreError, Table, TreeId};
use crate::namespace::{
    DentryRow, InodeRow, MountRow, children_key, decode, dentry_name, inode_key, mount_root, zones,
};

/// How many rows are looked at in one view.
const PAGE: usize = 1_024;

/// How many identities are matched with names at once, at two or three bits each. A store whose identities span more is surveyed range by range.
const WINDOW: u64 = 1 << 26;

/// How many directories are remembered with where they lie, at 16 bytes each. Beyond that circles are not looked for.
const DIRECTORIES_MAX: usize = 1 << 22;

/// How many suspects are kept. Beyond that they are counted.
const SUSPECTS_MAX: usize = 1_000;

/// How deep directories can lie: what is deeper is damage.
const DEPTH_MAX: usize = 4_096;

/// Rows as they were seen: none for one that was not there.
pub(super) type Evidence = Vec<(RowKey, Option<Bytes>)>;

/// Something that looks wrong.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) tree: TreeId,
    /// The directory that it is named in, and the name; none when none leads to it.
    pub(super) name: Option<(FileId, String)>,
    pub(super) id: Option<FileId>,
    /// The mount whose content it is about.
    pub(super) mount: Option<FileId>,
    /// The blob that it is about.
    pub(super) blob: Option<crate::content::Hash>,
    pub(super) fault: Fault,
    pub(super) cause: String,
    pub(super) evidence: Evidence,
}

impl Suspect {
    pub(super) fn new(tree: TreeId, id: Option<FileId>, fault: Fault, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self { tree, name: None, id, mount: None, blob: None, fault, cause, evidence: Vec::new() }
    }

    /// About a log.
    pub(super) fn of_tree(tree: TreeId, fault: Fault, cause: impl Into<String>) -> Self {
        Self::new(tree, None, fault, cause)
    }

    pub(super) fn named(mut self, parent: FileId, name: &str) -> Self {
        self.name = Some((parent, name.to_owned()));
        self
    }

    pub(super) fn seen(mut self, key: RowKey, value: Option<Bytes>) -> Self {
        self.evidence.push((key, value));
        self
    }

    /// Whether the rows are still as they were.
    pub(super) fn holds(&self, reader: &dyn Reader) -> Result<bool, StoreError> {
        for (key, value) in &self.evidence {
            if reader.get(key)? != *value {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Suspects, and how many more there were.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pub(super) all: Vec<Suspect>,
    pub(super) untold: u64,
}

impl Suspects {
    pub(super) fn push(&mut self, suspect: Suspect) {
        if self.all.len() < SUSPECTS_MAX {
            self.all.push(suspect);
        } else {
            self.untold += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Of a directory that is not there, its name tells, if it has one, and not also what lies in it.
    fn once(&mut self) {
        let named = |suspect: &Suspect| {
            (suspect.fault == Fault::NameWithoutInode).then_some((suspect.tree, suspect.id))
        };
        let told: BTreeSet<_> = self.all.iter().filter_map(named).collect();
        let is_told = |suspect: &Suspect| told.contains(&(suspect.tree, suspect.id));
        self.all.retain(|suspect| suspect.fault != Fault::NamesInNothing || !is_told(suspect));
    }
}

/// How rows are looked at.
pub(super) enum Views<'s> {
    /// Each time as they are then.
    Each(&'s dyn Metastore),
    /// As they were at one time.
    One(Box<dyn Reader>),
}

impl Views<'_> {
    pub(super) fn with<T>(
        &self,
        look: impl FnOnce(&dyn Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Each(metastore) => look(&*metastore.reader()?),
            Self::One(reader) => look(&**reader),
        }
    }
}

/// Which directories lie in which, and which are roots of mounts.
#[derive(Debug, Default)]
pub(super) struct Places {
    // Invariant: each list is sorted by the first of each pair, and has it once.
    parents: BTreeMap<TreeId, Vec<(u64, u64)>>,
    roots: BTreeSet<(TreeId, FileId)>,
    /// There are more directories than are remembered.
    overflowed: bool,
}

impl Places {
    /// The directory that `id` lies in; none for a root, and for what is not known.
    pub(super) fn parent(&self, tree: TreeId, id: FileId) -> Option<FileId> {
        let parents = self.parents.get(&tree)?;
        let at = parents.binary_search_by_key(&id.0, |(id, _)| *id).ok()?;
        Some(FileId(parents[at].1))
    }

    /// The root of the mount that the directory `id` lies in; none when no way leads there, or it is not known.
    pub(super) fn root(&self, tree: TreeId, mut id: FileId) -> Option<FileId> {
        for _ in 0..DEPTH_MAX {
            if self.roots.contains(&(tree, id)) {
                return Some(id);
            }
            id = self.parent(tree, id)?;
        }
        None
    }

    fn add(&mut self, tree: TreeId, id: FileId, parent: FileId) {
        let parents = self.parents.entry(tree).or_default();
        if parents.len() < DIRECTORIES_MAX {
            parents.push((id.0, parent.0));
        } else {
            self.overflowed = true;
        }
    }

    fn settle(&mut self) {
        for parents in self.parents.values_mut() {
            parents.sort_unstable();
            parents.dedup_by_key(|(id, _)| *id);
        }
    }

    /// The directories that lie in each other, circle by circle.
    fn circles(&self) -> Vec<(TreeId, Vec<FileId>)> {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            Never,
            OnThisWay,
            Before,
        }
        let mut circles = Vec::new();
        for (tree, parents) in &self.parents {
            let mut seen = vec![Seen::Never; parents.len()];
            let place = |id: u64| parents.binary_search_by_key(&id, |(id, _)| *id).ok();
            for start in 0..parents.len() {
                let (mut way, mut here) = (Vec::new(), Some(start));
                while let Some(at) = here {
                    match seen[at] {
                        Seen::Before => break,
                        Seen::OnThisWay => {
                            let from = way.iter().position(|on_it| *on_it == at).unwrap_or_default();
                            let members = way[from..].iter().map(|at: &usize| FileId(parents[*at].0));
                            circles.push((*tree, members.collect()));
                            break;
                        }
                        Seen::Never => seen[at] = Seen::OnThisWay,
                    }
                    way.push(at);
                    let parent = parents[at].1;
                    here = if self.roots.contains(&(*tree, FileId(parent))) { None } else { place(parent) };
                }
                way.into_iter().for_each(|at| seen[at] = Seen::Before);
            }
        }
        circles
    }
}

/// What the rows of the namespace say.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) suspects: Suspects,
    pub(super) places: Places,
    /// Names that were looked at.
    pub(super) names: u64,
    /// Entries that were looked at.
    pub(super) entries: u64,
    /// The points of mounts by their roots, attached or not.
    pub(super) points: BTreeMap<FileId, VPath>,
    /// What was not looked for, and why.
    pub(super) left_out: Vec<String>,
}

/// Surveys the rows; in one view when something looks wrong. `goes_on` says no when nobody wants to know any more. Blocks.
pub(super) fn survey(metastore: &dyn Metastore, goes_on: &dyn Fn() -> bool) -> Result<Survey, StoreError> {
    let loosely = Surveyor::new(Views::Each(metastore), metastore, goes_on).survey()?;
    if loosely.suspects.is_empty() {
        return Ok(loosely);
    }
    Surveyor::new(Views::One(metastore.reader()?), metastore, goes_on).survey()
}

struct Surveyor<'s> {
    views: Views<'s>,
    metastore: &'s dyn Metastore,
    goes_on: &'s dyn Fn() -> bool,
    found: Survey,
}

/// What a directory's own row is.
#[derive(Clone, Copy, PartialEq)]
enum Parent {
    Missing,
    NoDirectory,
    Fine,
}

impl<'s> Surveyor<'s> {
    fn new(views: Views<'s>, metastore: &'s dyn Metastore, goes_on: &'s dyn Fn() -> bool) -> Self {
        Self { views, metastore, goes_on, found: Survey::default() }
    }

    fn survey(mut self) -> Result<Survey, StoreError> {
        self.mounts()?;
        self.inodes()?;
        self.dentries()?;
        self.found.places.settle();
        if self.found.places.overflowed {
            let why = format!("circles of directories: there are more than {DIRECTORIES_MAX} directories");
            self.found.left_out.push(why);
        } else {
            self.circles()?;
        }
        self.found.suspects.once();
        Ok(self.found)
    }

    /// Hands all rows that begin with `prefix` to `each`, page by page, until it says that it has enough.
    fn walk(
        &mut self,
        prefix: &RowKey,
        mut after: Option<RowKey>,
        mut each: impl FnMut(&mut Survey, &dyn Reader, RowKey, Bytes) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        loop {
            if !(self.goes_on)() {
                return Err(StoreError::Closed);
            }
            let found = &mut self.found;
            let last = self.views.with(|reader| {
                let page = reader.scan(prefix, after.as_ref(), PAGE)?;
                let last = page.last().filter(|_| page.len() == PAGE).map(|(key, _)| key.clone());
                for (key, value) in page {
                    if !each(found, reader, key, value)? {
                        return Ok(None);
                    }
                }
                Ok(last)
            })?;
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    fn mounts(&mut self) -> Result<(), StoreError> {
        let read = self.views.with(|reader| zones(reader).map(drop));
        match read {
            Ok(()) => {}
            Err(StoreError::Corrupt { what, found }) => {
                let row = what.trim_start_matches("row ").to_owned();
                self.found.suspects.push(Suspect::of_tree(
                    TreeId::ROOT,
                    Fault::UndecodableRow { row },
                    found,
                ));
            }
            Err(error) => return Err(error),
        }
        self.walk(&RowKey::new(Table::Mounts, Vec::new()), None, |found, reader, key, value| {
            let row = match decode::<MountRow>(&key, &value) {
                Ok(row) => row,
                Err(error) => {
                    found.suspects.push(undecodable(TreeId::ROOT, key, value, &error));
                    return Ok(true);
                }
            };
            let Ok(root) = mount_root(&key) else { return Ok(true) };
            found.points.insert(root, row.point.clone());
            let inode = inode_key(row.tree, root);
            if reader.get(&inode)?.is_none() {
                let cause = format!("row {inode:?} is not there; it is mounted at {}", row.point);
                let suspect = Suspect::new(row.tree, Some(root), Fault::MountWithoutRoot, cause);
                found.suspects.push(suspect.seen(key, Some(value)).seen(inode, None));
            }
            Ok(true)
        })
    }

    /// Metadata without names, and with two.
    fn inodes(&mut self) -> Result<(), StoreError> {
        let all = RowKey::new(Table::Inodes, Vec::new());
        let mut after = None;
        loop {
            let first = self.views.with(|reader| reader.scan(&all, after.as_ref(), 1))?;
            let Some((key, _)) = first.into_iter().next() else { return Ok(()) };
            let Some((tree, start)) = place(&key) else {
                let suspect = Suspect::of_tree(TreeId::ROOT, undecodable_row(&key), "a key of no identity");
                self.found.suspects.push(suspect.seen(key.clone(), None));
                after = Some(key);
                continue;
            };
            after = Some(self.window(tree, start.0, after)?);
        }
    }

    /// Matches the identities from `start` on with the names of `tree`. Gives the key of the last one.
    fn window(&mut self, tree: TreeId, start: u64, after: Option<RowKey>) -> Result<RowKey, StoreError> {
        let (mut there, mut last) = (Bits::default(), inode_key(tree, FileId(start)));
        let metastore = self.metastore;
        let mut next = 0;
        self.walk(&RowKey::new(Table::Inodes, Vec::new()), after, |found, _, key, value| {
            let Some((of, id)) = place(&key).filter(|(of, id)| *of == tree && id.0 - start < WINDOW) else {
                return Ok(false);
            };
            last = key.clone();
            found.entries += 1;
            match decode::<InodeRow>(&key, &value) {
                Err(error) => {
                    let mut suspect = undecodable(of, key, value, &error);
                    suspect.id = Some(id);
                    found.suspects.push(suspect);
                    return Ok(true);
                }
                Ok(row) if row.entry_type == EntryType::Mount => {
                    found.places.roots.insert((of, id));
                }
                Ok(_) => there.set(id.0 - start),
            }
            if id.0 < next {
                return Ok(true);
            }
            // Asked for behind the row: the number is raised before a row uses it.
            next = metastore.next_file_id()?;
            if id.0 >= next {
                let cause = format!("the row is there, and {next} is the next number");
                let suspect = Suspect::new(of, Some(id), Fault::IdentityAhead { next }, cause);
                found.suspects.push(suspect.seen(key, Some(value)));
            }
            Ok(true)
        })?;
        // Names are looked at behind the metadata: what was made since is not missed, and what was removed since is looked for again.
        let (mut once, mut twice) = (Bits::default(), Bits::default());
        self.walk(&names_of(tree), None, |_, _, key, value| {
            if let Ok(dentry) = decode::<DentryRow>(&key, &value)
                && let Some(at) = dentry.id.0.checked_sub(start).filter(|at| *at < WINDOW)
            {
                if once.has(at) {
                    twice.set(at);
                }
                once.set(at);
            }
            Ok(true)
        })?;
        for at in there.without(&once) {
            let (id, key) = (FileId(start + at), inode_key(tree, FileId(start + at)));
            if let Some(value) = self.views.with(|reader| reader.get(&key))? {
                let cause = format!("row {key:?} is there, and no name");
                let suspect = Suspect::new(tree, Some(id), Fault::InodeWithoutName, cause);
                self.found.suspects.push(suspect.seen(key, Some(value)));
            }
        }
        if !twice.is_empty() {
            self.second_names(tree, start, &twice)?;
        }
        Ok(last)
    }

    fn second_names(&mut self, tree: TreeId, start: u64, twice: &Bits) -> Result<(), StoreError> {
        let mut first: BTreeMap<FileId, (RowKey, Bytes)> = BTreeMap::new();
        self.walk(&names_of(tree), None, |found, _, key, value| {
            let Ok(dentry) = decode::<DentryRow>(&key, &value) else { return Ok(true) };
            let at = dentry.id.0.checked_sub(start);
            if !at.is_some_and(|at| at < WINDOW && twice.has(at)) {
                return Ok(true);
            }
            match first.get(&dentry.id) {
                None if first.len() < SUSPECTS_MAX => {
                    first.insert(dentry.id, (key, value));
                }
                None => found.suspects.untold += 1,
                Some((other, was)) => {
                    let (Some((_, parent)), Ok(name)) = (place(&key), dentry_name(&key)) else {
                        return Ok(true);
                    };
                    let fault =
                        Fault::SecondName { other: dentry_name(other).unwrap_or_default().to_owned() };
                    let cause = format!("rows {other:?} and {key:?} lead to it");
                    let suspect = Suspect::new(tree, Some(dentry.id), fault, cause).named(parent, name);
                    let suspect = suspect.seen(other.clone(), Some(was.clone()));
                    found.suspects.push(suspect.seen(key, Some(value)));
                }
            }
            Ok(true)
        })
    }

    /// Names without metadata, in directories that are none, and of another type.
    fn dentries(&mut self) -> Result<(), StoreError> {
        let mut lies_in: Option<((TreeId, FileId), Parent)> = None;
        self.walk(&RowKey::new(Table::Dentries, Vec::new()), None, |found, reader, key, value| {
            found.names += 1;
            let Some((tree, parent)) = place(&key) else {
                found.suspects.push(undecodable_key(key, value));
                return Ok(true);
            };
            let name = match dentry_name(&key) {
                Ok(name) => name.to_owned(),
                Err(_) => {
                    found.suspects.push(undecodable_key(key, value));
                    return Ok(true);
                }
            };
            let known = lies_in.filter(|(of, _)| *of == (tree, parent)).map(|(_, is)| is);
            // Each page is a view of its own: what was missing may be there by now.
            if known.is_none_or(|is| is != Parent::Fine) {
                let directory = inode_key(tree, parent);
                let row = reader.get(&directory)?;
                let is = match &row {
                    None => Parent::Missing,
                    // One that cannot be read is told by itself.
                    Some(row) => match decode::<InodeRow>(&directory, row) {
                        Ok(row) if !row.entry_type.is_directory() => Parent::NoDirectory,
                        _ => Parent::Fine,
                    },
                };
                let fault = match is {
                    Parent::Missing => Some(Fault::NamesInNothing),
                    Parent::NoDirectory => Some(Fault::NamesInAFile),
                    Parent::Fine => None,
                };
                // Told once for all that lie there together.
                if let Some(fault) = fault.filter(|_| known.is_none()) {
                    let cause = format!("{name:?} is the first of them");
                    let suspect = Suspect::new(tree, Some(parent), fault, cause);
                    let suspect = suspect.seen(directory, row);
                    found.suspects.push(suspect.seen(key.clone(), Some(value.clone())));
                }
                lies_in = Some(((tree, parent), is));
            }
            let dentry = match decode::<DentryRow>(&key, &value) {
                Ok(dentry) => dentry,
                Err(error) => {
                    found.suspects.push(undecodable(tree, key, value, &error).named(parent, &name));
                    return Ok(true);
                }
            };
            let inode = inode_key(tree, dentry.id);
            let row = reader.get(&inode)?;
            let is = match &row {
                None => {
                    let cause = format!("row {inode:?} is not there");
                    let suspect = Suspect::new(tree, Some(dentry.id), Fault::NameWithoutInode, cause);
                    let suspect = suspect.named(parent, &name).seen(key, Some(value));
                    found.suspects.push(suspect.seen(inode.clone(), None));
                    dentry.entry_type
                }
                Some(row) => decode::<InodeRow>(&inode, row).map_or(dentry.entry_type, |row| row.entry_type),
            };
            if is.is_directory() {
                found.places.add(tree, dentry.id, parent);
            }
            if is != dentry.entry_type {
                let fault = Fault::WrongType { named: dentry.entry_type, is };
                let suspect = Suspect::new(tree, Some(dentry.id), fault, "").named(parent, &name);
                let key = crate::namespace::dentry_key(tree, parent, &name);
                let value = reader.get(&key)?;
                found.suspects.push(suspect.seen(key, value).seen(inode, row));
            }
            Ok(true)
        })
    }

    fn circles(&mut self) -> Result<(), StoreError> {
        for (tree, members) in self.found.places.circles() {
            let Some(first) = members.iter().min().copied() else { continue };
            let fault = Fault::Circle { directories: members.len() as u64 };
            let mut suspect = Suspect::new(tree, Some(first), fault, "no path leads to them");
            for id in members {
                let Some(parent) = self.found.places.parent(tree, id) else { continue };
                let named = self.views.with(|reader| dentry_of(reader, tree, parent, id))?;
                let Some((key, value)) = named else { continue };
                if id == first
                    && let Ok(name) = dentry_name(&key)
                {
                    suspect = suspect.named(parent, name);
                }
                suspect = suspect.seen(key, Some(value));
            }
            self.found.suspects.push(suspect);
        }
        Ok(())
    }
}

/// The row of the name in `parent` that leads to `id`. Costs the children.
pub(super) fn dentry_of(
    reader: &dyn Reader,
    tree: TreeId,
    parent: FileId,
    id: FileId,
) -> Result<Option<(RowKey, Bytes)>, StoreError> {
    let prefix = children_key(tree, parent);
    let mut after: Option<RowKey> = None;
    loop {
        let page = reader.scan(&prefix, after.as_ref(), PAGE)?;
        let full = page.len() == PAGE;
        after = page.last().map(|(key, _)| key.clone());
        let leads_there =
            |(key, value): &(RowKey, Bytes)| decode::<DentryRow>(key, value).is_ok_and(|row| row.id == id);
        if let Some(found) = page.into_iter().find(leads_there) {
            return Ok(Some(found));
        }
        if !full {
            return Ok(None);
        }
    }
}

/// What a key of a name or of metadata begins with: its tree, and the directory or the entry.
pub(super) fn place(key: &RowKey) -> Option<(TreeId, FileId)> {
    let (tree, rest) = key.bytes.split_first_chunk()?;
    let id = rest.first_chunk()?;
    Some((TreeId(u32::from_be_bytes(*tree)), FileId(u64::from_be_bytes(*id))))
}

fn names_of(tree: TreeId) -> RowKey {
    RowKey::new(Table::Dentries, tree.0.to_be_bytes())
}

fn undecodable_row(key: &RowKey) -> Fault {
    Fault::UndecodableRow { row: format!("{key:?}") }
}

/// A row whose value cannot be read.
pub(super) fn undecodable(tree: TreeId, key: RowKey, value: Bytes, error: &StoreError) -> Suspect {
    let cause = match error {
        StoreError::Corrupt { found, .. } => found.clone(),
        other => other.to_string(),
    };
    Suspect::of_tree(tree, undecodable_row(&key), cause).seen(key, Some(value))
}

/// A row whose key cannot be read.
pub(super) fn undecodable_key(key: RowKey, value: Bytes) -> Suspect {
    let suspect = Suspect::of_tree(TreeId::ROOT, undecodable_row(&key), "its key cannot be read");
    suspect.seen(key, Some(value))
}

/// Numbers below [`WINDOW`].
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, at: u64) {
        let word = usize::try_from(at / 64).unwrap_or(usize::MAX);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (at % 64);
    }

    fn has(&self, at: u64) -> bool {
        let word = usize::try_from(at / 64).unwrap_or(usize::MAX);
        self.0.get(word).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Those that are not in `other`.
    fn without<'b>(&'b self, other: &'b Self) -> impl Iterator<Item = u64> + 'b {
        self.0.iter().enumerate().flat_map(|(n, word)| {
            let rest = word & !other.0.get(n).copied().unwrap_or_default();
            (0..64).filter(move |bit| rest & (1 << bit) != 0).map(move |bit| n as u64 * 64 + bit)
        })
    }
}
