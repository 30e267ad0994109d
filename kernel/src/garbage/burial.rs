//! Removes the rows of mounts that are gone, before what is left is marked.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nexus_messages::FileId;

use super::dead::{self, DEAD_MAX, DEPTH_MAX, Dead, Root};
use super::run::{Halt, REMOVED_MAX, Run, page};
use crate::hal::{Change, Precondition, RowKey, StoreError, Table, TreeId};
use crate::namespace::{DentryRow, children_key, decode, inode_key, mount_key};
use crate::store::CommitError;

/// How many rows are read at once.
const PAGE: usize = 1_024;

/// How many oddities are told.
const LEFT_MAX: usize = 64;

impl Run {
    /// Removes the rows of mounts that are gone: those whose content went with them, and which nothing remembers. A dry run finds and counts them.
    pub(super) async fn bury_mounts(&mut self) -> Result<(), Halt> {
        let mut forgotten: BTreeMap<TreeId, Vec<Root>> = BTreeMap::new();
        let mut after = None;
        loop {
            let (roots, left, last) = self
                .look(move |store| {
                    let rows = page(store, &RowKey::new(Table::Inodes, Vec::new()), after.as_ref(), PAGE)?;
                    let (roots, left) = dead::forgotten(&*store.metastore().reader()?, &rows)?;
                    Ok((roots, left, rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone())))
                })
                .await?;
            self.leave(left);
            // What serves is not gone, whatever the rows say.
            let attached: BTreeSet<FileId> =
                self.kernel.mounts().all().iter().map(|mount| mount.root).collect();
            for root in roots {
                if attached.contains(&root.id) {
                    self.leave(vec![format!(
                        "the mount with the root {} serves, and its row is not there",
                        root.id
                    )]);
                } else {
                    forgotten.entry(root.tree).or_default().push(root);
                }
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        for (tree, roots) in forgotten {
            self.bury_all(tree, roots).await?;
        }
        Ok(())
    }

    /// Removes what lies below `roots` and is found to be dead.
    async fn bury_all(&mut self, tree: TreeId, mut roots: Vec<Root>) -> Result<(), Halt> {
        loop {
            let (kernel, generation) = (self.kernel.clone(), self.generation);
            let dead = self.look(move |store| {
                let goes_on = || kernel.garbage().is_current(generation);
                Dead::of(&*store.metastore().reader()?, tree, roots, DEAD_MAX, &goes_on)
            });
            let mut dead = dead.await?;
            self.check()?;
            self.leave(std::mem::take(&mut dead.left));
            if self.dry_run {
                self.tell(|latest| latest.rows += dead.rows);
                self.dead.insert(tree, dead);
                return Ok(());
            }
            let (mut rest, mut buried) = (Vec::new(), 0);
            for root in std::mem::take(&mut dead.roots) {
                let (is_whole, rows) = self.bury(&dead, &root).await?;
                buried += rows;
                if !is_whole {
                    rest.push(root);
                }
            }
            if !dead.is_part || rest.is_empty() || buried == 0 {
                return Ok(());
            }
            roots = rest;
        }
    }

    /// Removes what is dead below `root`, which nobody can reach, from its leaves to itself. Whether that was all, and how many rows.
    async fn bury(&self, dead: &Dead, root: &Root) -> Result<(bool, u64), Halt> {
        let tree = root.tree;
        let inode = |id| inode_key(tree, id);
        // Each time: that it is gone must still be so.
        let is_gone = [
            Precondition::Absent(mount_key(root.id)),
            Precondition::Equals(inode(root.id), root.row.clone()),
        ];
        let mut buried = 0;
        let mut way: Vec<(FileId, Option<(RowKey, Bytes)>)> = vec![(root.id, None)];
        while let Some((id, name)) = way.last().cloned() {
            let children = self
                .look(move |store| {
                    let found = page(store, &children_key(tree, id), None, REMOVED_MAX)?;
                    let rows = found.into_iter().map(|(key, value)| {
                        let dentry: DentryRow = decode(&key, &value)?;
                        Ok::<_, StoreError>(((key, value), dentry))
                    });
                    rows.collect::<Result<Vec<_>, _>>()
                })
                .await?;
            let is_empty = children.is_empty();
            let dying = children.into_iter().filter(|(_, dentry)| dead.has(dentry.id));
            let (directories, leaves): (Vec<_>, Vec<_>) =
                dying.partition(|(_, dentry)| dentry.entry_type.is_directory());
            let (mut removed, mut preconditions) = (Vec::new(), is_gone.to_vec());
            for ((key, value), dentry) in leaves {
                preconditions.push(Precondition::Equals(key.clone(), value));
                removed.extend([key, inode(dentry.id)]);
            }
            if let Some((name, dentry)) = directories.into_iter().next() {
                way.push((dentry.id, Some(name)));
                if way.len() > DEPTH_MAX {
                    return Err(Halt::Failed(format!("directories below {} lie in a circle", root.id)));
                }
            } else if is_empty && dead.has(id) {
                preconditions.push(Precondition::Vacant(children_key(tree, id)));
                removed.push(inode(id));
                if let Some((key, value)) = name {
                    preconditions.push(Precondition::Equals(key.clone(), value));
                    removed.push(key);
                }
                way.pop();
            } else if removed.is_empty() {
                return Ok((false, buried));
            }
            if removed.is_empty() {
                continue;
            }
            let rows = removed.len() as u64;
            let mut entry = self.entry(removed.into_iter().map(Change::Delete).collect());
            entry.preconditions = preconditions;
            match self.commit_entry(entry, Vec::new()).await? {
                Ok(()) => {}
                Err(CommitError::Refused) => {
                    self.leave(vec![format!("what lies below the root {} changed meanwhile", root.id)]);
                    return Ok((false, 0));
                }
                Err(error) => return Err(error.into()),
            }
            buried += rows;
            self.tell(|latest| latest.rows += rows);
        }
        Ok((true, buried))
    }

    /// Tells of what looks gone, and is left alone.
    fn leave(&self, odd: Vec<String>) {
        for why in odd {
            tracing::warn!(number = self.number, why, "rows that look like garbage are damaged, and stay");
            self.tell(|latest| {
                if latest.left_alone.len() < LEFT_MAX {
                    latest.left_alone.push(why);
                }
            });
        }
    }
}
