//! Which paths lead to what was found.

use std::collections::{BTreeMap, BTreeSet};

use nexus_messages::{FileId, VPath};

use super::survey::{Places, Suspect, dentry_of, place};
use crate::hal::{Reader, RowKey, StoreError, Table, TreeId};
use crate::namespace::{DentryRow, decode, dentry_name};

/// How many rows are looked at in one step.
const PAGE: usize = 1_024;

/// How deep a path is followed.
const DEPTH_MAX: usize = 4_096;

/// Finds paths by what a survey knows of directories.
pub(super) struct Paths<'r> {
    reader: &'r dyn Reader,
    places: &'r Places,
    points: &'r BTreeMap<FileId, VPath>,
    goes_on: &'r dyn Fn() -> bool,
    /// Of directories.
    known: BTreeMap<(TreeId, FileId), Option<String>>,
}

impl<'r> Paths<'r> {
    pub(super) fn new(
        reader: &'r dyn Reader,
        places: &'r Places,
        points: &'r BTreeMap<FileId, VPath>,
        goes_on: &'r dyn Fn() -> bool,
    ) -> Self {
        Self { reader, places, points, goes_on, known: BTreeMap::new() }
    }

    /// Finds the names of those of which only the identity is known. Costs all names, when there are such.
    pub(super) fn name(&self, suspects: &mut [Suspect]) -> Result<(), StoreError> {
        let nameless = |suspect: &Suspect| suspect.name.is_none();
        let wanted: BTreeSet<(TreeId, FileId)> = suspects
            .iter()
            .filter(|suspect| nameless(suspect))
            .filter_map(|suspect| Some((suspect.tree, suspect.id?)))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let (mut names, mut after) = (BTreeMap::new(), None::<RowKey>);
        loop {
            if !(self.goes_on)() {
                return Err(StoreError::Closed);
            }
            let page = self.reader.scan(&RowKey::new(Table::Dentries, Vec::new()), after.as_ref(), PAGE)?;
            for (key, value) in &page {
                if let (Some((tree, parent)), Ok(name), Ok(dentry)) =
                    (place(key), dentry_name(key), decode::<DentryRow>(key, value))
                    && wanted.contains(&(tree, dentry.id))
                {
                    names.insert((tree, dentry.id), (parent, name.to_owned()));
                }
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
        for suspect in suspects.iter_mut().filter(|suspect| nameless(suspect)) {
            suspect.name = suspect.id.and_then(|id| names.get(&(suspect.tree, id)).cloned());
        }
        Ok(())
    }

    /// The path to it; none when none leads there.
    pub(super) fn of(&mut self, suspect: &Suspect) -> Result<Option<String>, StoreError> {
        match (&suspect.name, suspect.id) {
            (Some((parent, name)), _) => {
                Ok(self.directory(suspect.tree, *parent)?.map(|path| below(&path, name)))
            }
            (None, Some(id)) => Ok(self.points.get(&id).map(ToString::to_string)),
            (None, None) => Ok(None),
        }
    }

    fn directory(&mut self, tree: TreeId, id: FileId) -> Result<Option<String>, StoreError> {
        let (mut way, mut here) = (Vec::new(), id);
        let mut path = loop {
            if let Some(known) = self.known.get(&(tree, here)) {
                break known.clone();
            }
            if let Some(point) = self.points.get(&here) {
                break Some(point.to_string());
            }
            let Some(parent) = self.places.parent(tree, here).filter(|_| way.len() < DEPTH_MAX) else {
                break None;
            };
            way.push((here, parent));
            here = parent;
        };
        for (id, parent) in way.into_iter().rev() {
            let name = match &path {
                Some(_) => dentry_of(self.reader, tree, parent, id)?,
                None => None,
            };
            let name = name.and_then(|(key, _)| Some(dentry_name(&key).ok()?.to_owned()));
            path = path.zip(name).map(|(path, name)| below(&path, &name));
            self.known.insert((tree, id), path.clone());
        }
        Ok(path)
    }
}

fn below(path: &str, name: &str) -> String {
    format!("{}/{name}", path.trim_end_matches('/'))
}
