//! Finds entries by walking from a mount's root, name by name.

use nexus_messages::{EntryType, FileId};
use smallvec::SmallVec;

use super::rows::{self, DentryRow, InodeRow};
use crate::hal::{Reader, RowKey, StoreError, TreeId};

/// One step of a walk: a name, and what it led to.
#[derive(Debug, Clone)]
pub(crate) struct Step<'p> {
    pub(crate) parent: FileId,
    pub(crate) name: &'p str,
    pub(crate) dentry: DentryRow,
}

/// Steps one after the other. Most paths are short.
pub(crate) type Steps<'p> = SmallVec<[Step<'p>; 2]>;

/// The names that are left. Mostly there is one.
pub(crate) type Rest<'p> = SmallVec<[&'p str; 1]>;

/// Where a walk ended.
#[derive(Debug, Clone)]
pub(crate) enum Walk<'p> {
    /// At the entry. No step when it is the root.
    Found { steps: Steps<'p> },
    /// Before a name that `parent` does not have. `rest` begins with that name.
    Missing { steps: Steps<'p>, parent: FileId, rest: Rest<'p> },
    /// At a link that is not the last name.
    Link,
    /// At something that is neither directory nor link, with names left.
    NotADirectory,
}

/// Rows of one tree, as one consistent view.
pub(crate) struct Rows {
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) tree: TreeId,
}

impl Rows {
    pub(crate) fn dentry(&self, parent: FileId, name: &str) -> Result<Option<DentryRow>, StoreError> {
        self.row(&rows::dentry_key(self.tree, parent, name))
    }

    /// The inode `id`, which a dentry or a mount refers to: that it is missing is damage.
    pub(crate) fn inode(&self, id: FileId) -> Result<InodeRow, StoreError> {
        let key = rows::inode_key(self.tree, id);
        self.row(&key)?
            .ok_or_else(|| StoreError::Corrupt { what: format!("row {key:?}"), found: "nothing".into() })
    }

    fn row<T: serde::de::DeserializeOwned>(&self, key: &RowKey) -> Result<Option<T>, StoreError> {
        self.reader.get(key)?.map(|value| rows::decode(key, &value)).transpose()
    }

    /// The children of `parent` with names greater than `after`, in the order of their names.
    pub(crate) fn children(
        &self,
        parent: FileId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, DentryRow)>, StoreError> {
        let prefix = rows::children_key(self.tree, parent);
        let after = after.map(|name| rows::dentry_key(self.tree, parent, name));
        let found = self.reader.scan(&prefix, after.as_ref(), limit)?;
        let mut children = Vec::with_capacity(found.len());
        for (key, value) in found {
            let row = rows::decode(&key, &value)?;
            children.push((rows::dentry_name(&key)?.to_owned(), row));
        }
        Ok(children)
    }

    /// Whether `parent` has a child.
    pub(crate) fn has_children(&self, parent: FileId) -> Result<bool, StoreError> {
        Ok(!self.reader.scan(&rows::children_key(self.tree, parent), None, 1)?.is_empty())
    }

    /// Walks `relative`, a path without leading slash, from `root`. A link at the end is where the walk ends.
    pub(crate) fn walk<'p>(&self, root: FileId, relative: &'p str) -> Result<Walk<'p>, StoreError> {
        let mut steps = Steps::new();
        let mut names = relative.split('/').filter(|name| !name.is_empty()).peekable();
        let mut here = root;
        while let Some(name) = names.next() {
            let Some(dentry) = self.dentry(here, name)? else {
                let rest = std::iter::once(name).chain(names).collect();
                return Ok(Walk::Missing { steps, parent: here, rest });
            };
            steps.push(Step { parent: here, name, dentry });
            let last = names.peek().is_none();
            match dentry.entry_type {
                EntryType::Link if !last => return Ok(Walk::Link),
                entry_type if !last && !entry_type.is_directory() => return Ok(Walk::NotADirectory),
                _ => here = dentry.id,
            }
        }
        Ok(Walk::Found { steps })
    }
}
