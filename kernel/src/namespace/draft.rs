//! A mutation of rows while it is being drawn up: what must hold, what changes, and what becomes visible afterwards.

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::Parents;
use nexus_messages::{
    ContentId, Effect, EntryType, ErrorKind, FileId, FileMetadata, Holding, Op, Timestamp, VPath, ZoneId,
};
use serde::Serialize;
use smallvec::SmallVec;

use super::cache::Node;
use super::history::{PastBy, Was, past_of};
use super::rows::{self, DentryRow, InodeRow};
use super::walk::{Rows, Step};
use crate::garbage::Hold;
use crate::hal::{Change, Precondition, RowKey, StoreError, TreeId};
use crate::kernel::Kernel;

/// What a commit makes visible.
#[derive(Debug)]
pub(crate) enum Visible {
    /// This is at the path now.
    Node(VPath, Node),
    /// What was known of the path is no longer so.
    Gone(VPath),
    /// The directory that was at the path is there no longer.
    DirectoryGone(VPath),
    /// What was known of paths below some directory is no longer so.
    Subtree,
    /// The pipe with this identity is there no longer.
    PipeGone(FileId),
    /// The stream with this identity, in this tree, is there no longer.
    StreamGone(TreeId, FileId),
}

/// In whose history a draft keeps what it supersedes, and what the history is to tell of it.
#[derive(Debug, Clone)]
pub(crate) struct Keeping {
    /// The mount, by its root.
    pub(crate) mount: FileId,
    /// Who supersedes it.
    pub(crate) by: Arc<str>,
    /// By which operation.
    pub(crate) op: Op,
}

/// Changes of rows of one tree, in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    tree: TreeId,
    zone: ZoneId,
    at: Timestamp,
    /// None when what is superseded is not kept.
    keeping: Option<Keeping>,
    /// The permission bits of directories that are made on the way.
    mode_dirs: u32,
    /// The directories that the draft makes. Nobody could be in them before, so their children need no history of not being there.
    made: Vec<FileId>,
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) changes: Vec<Change>,
    pub(crate) visible: Vec<Visible>,
    /// What is held until it is committed.
    pub(crate) holds: SmallVec<[Hold; 2]>,
    /// Whether somebody is to be told what it does to what files hold.
    is_weighed: bool,
    /// What that is.
    pub(crate) effect: Effect,
}

impl Draft {
    pub(crate) fn new(tree: TreeId, zone: ZoneId, at: Timestamp) -> Self {
        let effect = Effect::within(zone.clone());
        let (preconditions, changes, visible) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            tree,
            zone,
            at,
            keeping: None,
            mode_dirs: EntryType::Dir.default_mode(),
            made: Vec::new(),
            preconditions,
            changes,
            visible,
            holds: SmallVec::new(),
            is_weighed: false,
            effect,
        }
    }

    /// Says whether somebody is to be told what it does to what files hold.
    pub(crate) fn weighed(mut self, is_weighed: bool) -> Self {
        self.is_weighed = is_weighed;
        self
    }

    /// Gives the directories that it makes on the way these permission bits.
    pub(crate) fn mode_dirs(mut self, mode: u32) -> Self {
        self.mode_dirs = mode;
        self
    }

    /// Keeps what it supersedes.
    pub(crate) fn keeping(mut self, keeping: Option<Keeping>) -> Self {
        self.keeping = keeping;
        self
    }

    /// Whether what it supersedes is kept, so that it must be known.
    pub(crate) fn keeps(&self) -> bool {
        self.keeping.is_some()
    }

    /// The row of the history that says that this was at `key` until the commit.
    fn past(&self, key: &RowKey, was: Was) -> Option<(RowKey, Bytes)> {
        let Keeping { mount, by, op } = self.keeping.as_ref()?;
        let past = PastBy { mount: *mount, at: self.at, by: &**by, op: *op, was };
        Some((past_of(key)?, rows::encode_among_others(&past)))
    }

    /// As [`past`](Self::past), of a row.
    fn past_row(&self, key: &RowKey, was: &impl Serialize) -> Option<(RowKey, Bytes)> {
        self.keeping.as_ref()?;
        let was = rows::encode_among_others(was);
        self.past(key, Was::Row(was))
    }

    /// Keeps what was at `key` until the commit. To be called before what changes it.
    fn supersede(&mut self, key: &RowKey, was: Was) {
        let past = self.past(key, was);
        self.changes.extend(past.map(|(prefix, value)| Change::PutAtLsn { prefix, value }));
    }

    /// As [`supersede`](Self::supersede), of a row.
    fn supersede_row(&mut self, key: &RowKey, was: &impl Serialize) {
        let past = self.past_row(key, was);
        self.changes.extend(past.map(|(prefix, value)| Change::PutAtLsn { prefix, value }));
    }

    /// Says that `old` was at `path`, and no longer is so.
    pub(crate) fn frees(&mut self, path: &VPath, old: &InodeRow) {
        if self.is_weighed {
            self.effect.before.extend(holding(path, old));
        }
    }

    /// Says that `new` is at `path` after the commit.
    pub(crate) fn takes(&mut self, path: &VPath, new: &InodeRow) {
        if self.is_weighed {
            self.effect.after.extend(holding(path, new));
        }
    }

    /// Makes the directories `names` below `parent`, one in the other, for what is to be at `path`; gives the last one. `parent` must still be there at
    /// commit.
    pub(crate) fn parents(
        &mut self,
        path: &VPath,
        parent: FileId,
        names: &[&str],
        policy: Parents,
        owner: &Arc<str>,
        mut new_id: impl FnMut() -> FileId,
    ) -> Result<FileId, ErrorKind> {
        self.preconditions.push(Precondition::Present(rows::inode_key(self.tree, parent)));
        if !names.is_empty() && policy == Parents::Required {
            return Err(ErrorKind::NotFound);
        }
        let mut here = parent;
        for name in names {
            let id = new_id();
            let mut row = InodeRow::new(EntryType::Dir, owner.clone(), self.at);
            row.mode = self.mode_dirs;
            row.implicit = policy == Parents::Implied;
            self.insert(here, name, id, &row);
            self.made.push(id);
            here = id;
        }
        if !names.is_empty() {
            // That nothing was there may be known.
            let above = std::iter::successors(path.parent(), VPath::parent).take(names.len());
            self.visible.extend(above.map(Visible::Gone));
        }
        Ok(here)
    }

    /// Adds the child `name` with this inode; refused at commit when there is one.
    pub(crate) fn insert(&mut self, parent: FileId, name: &str, id: FileId, row: &InodeRow) {
        let key = rows::dentry_key(self.tree, parent, name);
        self.preconditions.push(Precondition::Absent(key.clone()));
        self.name_at(key, parent, None, DentryRow { id, entry_type: row.entry_type });
        self.changes.push(Change::Put(rows::inode_key(self.tree, id), rows::encode_among_others(row)));
    }

    /// Gives the child `name` of `parent` this dentry instead of `old`, or where there is none.
    pub(crate) fn name(&mut self, parent: FileId, name: &str, old: Option<DentryRow>, dentry: DentryRow) {
        self.name_at(rows::dentry_key(self.tree, parent, name), parent, old, dentry);
    }

    fn name_at(&mut self, key: RowKey, parent: FileId, old: Option<DentryRow>, dentry: DentryRow) {
        self.close_pipe(old.filter(|old| old.id != dentry.id));
        match old {
            Some(old) => self.supersede_row(&key, &old),
            None if self.made.contains(&parent) => {}
            None => self.supersede(&key, Was::Nothing),
        }
        self.changes.push(Change::Put(key, rows::encode_among_others(&dentry)));
    }

    /// Replaces the inode `old` by `new`; refused at commit when it changed meanwhile.
    pub(crate) fn update(&mut self, id: FileId, old: &InodeRow, new: &InodeRow) {
        let key = rows::inode_key(self.tree, id);
        let was = rows::encode_among_others(old);
        self.preconditions.push(Precondition::Equals(key.clone(), was.clone()));
        self.supersede(&key, Was::Row(was));
        self.changes.push(Change::Put(key, rows::encode_among_others(new)));
    }

    /// Refused at commit when the inode changed meanwhile.
    pub(crate) fn unchanged(&mut self, id: FileId, row: &InodeRow) {
        self.preconditions
            .push(Precondition::Equals(rows::inode_key(self.tree, id), rows::encode_among_others(row)));
    }

    /// Refused at commit when the dentry is another one by then.
    pub(crate) fn still_named(&mut self, parent: FileId, name: &str, dentry: DentryRow) {
        let key = rows::dentry_key(self.tree, parent, name);
        self.preconditions.push(Precondition::Equals(key, rows::encode_among_others(&dentry)));
    }

    /// Refused at commit when the directory has a child by then.
    pub(crate) fn vacant(&mut self, id: FileId) {
        self.preconditions.push(Precondition::Vacant(rows::children_key(self.tree, id)));
    }

    /// Removes the dentry `name` of `parent`, which is this one.
    pub(crate) fn remove_name(&mut self, parent: FileId, name: &str, old: DentryRow) {
        let key = rows::dentry_key(self.tree, parent, name);
        self.supersede_row(&key, &old);
        self.changes.push(Change::Delete(key));
        // A pipe is not renamed: what loses its name is gone. Who renames a stream says so.
        self.close_pipe(Some(old));
    }

    /// The entry with this identity has lost its name for another one, and goes on.
    pub(crate) fn goes_on(&mut self, id: FileId) {
        self.visible.retain(|visible| !matches!(visible, Visible::StreamGone(_, gone) if *gone == id));
    }

    fn close_pipe(&mut self, gone: Option<DentryRow>) {
        let Some(gone) = gone else { return };
        match gone.entry_type {
            EntryType::Pipe => self.visible.push(Visible::PipeGone(gone.id)),
            EntryType::Stream => self.visible.push(Visible::StreamGone(self.tree, gone.id)),
            _ => {}
        }
    }

    /// Removes the inode, which is this one. It may be left unknown when what is superseded is not [kept](Self::keeps).
    pub(crate) fn remove_inode(&mut self, id: FileId, old: Option<&InodeRow>) {
        let key = rows::inode_key(self.tree, id);
        debug_assert!(old.is_some() || !self.keeps(), "what is to be kept must be known");
        if let Some(old) = old {
            self.supersede_row(&key, old);
        }
        self.changes.push(Change::Delete(key));
    }

    /// Keeps small content beside its row.
    pub(crate) fn inline(&mut self, id: &ContentId, content: Bytes) {
        if let Some(key) = rows::content_key(id) {
            self.changes.push(Change::PutIfAbsent(key, content));
        }
    }

    /// Lets the implicit directories among `steps` (a walk from the root to the parent of what is removed) go when nothing is left in them.
    /// To be called after the removal, with the path of the last step.
    pub(crate) fn prune(
        &mut self,
        rows: &Rows,
        steps: &[Step<'_>],
        last: Option<VPath>,
    ) -> Result<(), StoreError> {
        let mut path = last;
        for step in steps.iter().rev() {
            let row = rows.inode(step.dentry.id)?;
            if !row.implicit {
                break;
            }
            self.unchanged(step.dentry.id, &row);
            let dentry = rows::dentry_key(self.tree, step.parent, step.name);
            let inode = rows::inode_key(self.tree, step.dentry.id);
            let kept = [self.past_row(&dentry, &step.dentry), self.past_row(&inode, &row)];
            self.changes.push(Change::DeleteIfVacant {
                prefix: rows::children_key(self.tree, step.dentry.id),
                rows: vec![dentry, inode],
                kept: kept.into_iter().flatten().collect(),
            });
            let parent = path.as_ref().and_then(VPath::parent);
            self.visible.extend(path.map(Visible::DirectoryGone));
            path = parent;
        }
        Ok(())
    }

    /// Says that `row` is at `path` after the commit, and gives what callers see of it.
    pub(crate) fn show(&mut self, path: &VPath, id: FileId, row: &InodeRow) -> Arc<FileMetadata> {
        let metadata = Arc::new(row.metadata(path.clone(), self.zone.clone(), id));
        let node = Node { metadata: metadata.clone(), placement: row.placement };
        self.visible.push(Visible::Node(path.clone(), node));
        metadata
    }
}

/// What the entry with this row holds; nothing for directories.
pub(crate) fn holding(path: &VPath, row: &InodeRow) -> Option<Holding> {
    let bytes = if row.entry_type == EntryType::Reg { row.size } else { 0 };
    let holding = || Holding { path: path.clone(), owner: row.owner.clone(), files: 1, bytes };
    (!row.entry_type.is_directory()).then(holding)
}

/// Makes `visible` what a commit changed.
pub(crate) fn publish(kernel: &Kernel, mount: FileId, generation: u64, visible: Vec<Visible>) {
    let (cache, pipes) = (&kernel.caches().metadata, kernel.pipes());
    for change in visible {
        match change {
            Visible::Node(path, node) => {
                if node.metadata.entry_type == EntryType::Stream {
                    kernel.streams().see(&node.metadata);
                }
                let pipe = (node.metadata.entry_type == EntryType::Pipe).then_some(node.metadata.file_id);
                cache.publish(mount, generation, path, node);
                if let Some(pipe) = pipe {
                    pipes.forget(pipe);
                }
            }
            Visible::PipeGone(id) => pipes.remove(kernel.env(), [id]),
            Visible::StreamGone(tree, id) => kernel.drop_stream(tree, id),
            Visible::Gone(path) => cache.forget(mount, generation, &path),
            Visible::DirectoryGone(path) => cache.forget_directory(mount, generation, &path),
            // The mount's generation was raised by whoever publishes: nothing below the old one is found any more.
            Visible::Subtree => {}
        }
    }
}
