//! Repairs: those that lose nothing, each one entry of the log, with what made it wrong as its preconditions.
//!
//! A name that leads to nothing goes. What no name leads to is named again in `lost+found` of its mount. What the rows say twice is told by the one that
//! cannot be wrong: the type by the metadata, unless the metadata cannot be of that type, the size by the content, whose address is its hash. Damaged content is written again from a copy with the
//! same hash: in memory, among the rows, or in the store of another mount. All else is left as it is.

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::Parents;
use nexus_messages::{Caller, ContentId, EntryType, FileId, Op, Timestamp, VPath};

use super::content::{Blob, contents, inline};
use super::finding::{Fault, Remedy};
use super::run::{Course, Halt, Run};
use super::survey::{Evidence, Suspect};
use crate::content::{self, Hash};
use crate::hal::{Change, Entry, Precondition, RowKey, StoreError, Table, TreeId};
use crate::locks::{LockOwner, Mode, PathGuard, Scope};
use crate::mounts::{LOCK_WAIT_MAX, Mount, Naming};
use crate::namespace::{
    DentryRow, Draft, InodeRow, Keeping, Placement, Rows, content_key, decode, dentry_key, encode, inode_key,
};
use crate::owned::Owned;
use crate::store::CommitError;

/// Where entries go that had no name, below the root of their mount.
const LOST_AND_FOUND: &str = "lost+found";

/// A repair of rows, drawn up: what is done, where to, and in which words. Or why there is none.
type Plan = Result<Planned, String>;

struct Planned {
    draft: Draft,
    other: Option<VPath>,
    how: String,
}

/// What a repair is drawn up with.
#[derive(Clone)]
struct Desk {
    course: Course,
    mount: Arc<Mount>,
    tree: TreeId,
    at: Timestamp,
}

impl Run {
    /// Repairs what was found, when that loses nothing.
    pub(super) async fn repair(&mut self, suspect: &Suspect, path: Option<&str>) -> Result<Remedy, Halt> {
        if !self.is_so(suspect).await? {
            return Ok(Remedy::Repaired { how: "it is no longer so".into() });
        }
        let left = |why: &str| Ok(Remedy::Left { why: why.into() });
        match &suspect.fault {
            Fault::NameWithoutInode | Fault::WrongType { .. } | Fault::WrongSize { .. } => {
                let Some(mount) =
                    suspect.name.as_ref().and_then(|(parent, _)| self.mount_of(suspect.tree, *parent))
                else {
                    return left("its mount is not attached");
                };
                self.redraw(suspect, mount, path).await
            }
            Fault::InodeWithoutName | Fault::NamesInNothing | Fault::Circle { .. } => {
                match self.home(suspect).await? {
                    Ok(mount) => self.redraw(suspect, mount, path).await,
                    Err(why) => Ok(Remedy::Left { why }),
                }
            }
            Fault::MissingContent { .. } | Fault::DamagedContent { .. } | Fault::LostVersion { .. } => {
                match suspect.blob {
                    Some(hash) => self.heal(suspect, hash, path).await,
                    None => left("there is nothing that tells what it was"),
                }
            }
            Fault::DamagedRows => left(
                "nothing tells what they were: what can still be read can be exported, and the data folder restored from a copy",
            ),
            Fault::DamagedStore { .. } => left("what was in it and is named is told by itself"),
            _ => left("nothing tells what it was"),
        }
    }

    /// The mount that something without a name belongs to; why that is not known.
    async fn home(&mut self, suspect: &Suspect) -> Result<Result<Arc<Mount>, String>, Halt> {
        let is_home = |mount: &&Arc<Mount>| {
            mount.tree == suspect.tree
                && !mount.is_path_addressed()
                && mount.has_driver()
                && !mount.is_read_only()
        };
        let all: Vec<Arc<Mount>> = self.mounts.values().filter(is_home).cloned().collect();
        let blob = suspect.evidence.iter().find_map(|(key, value)| {
            let row = decode::<InodeRow>(key, value.as_ref()?).ok()?;
            let id =
                row.content_id.filter(|_| matches!(row.placement, Placement::Store | Placement::Chunked))?;
            id.blake3().or(id.chunks()).copied()
        });
        let has_rows_alone = suspect.fault == Fault::InodeWithoutName && blob.is_none() && is_leaf(suspect);
        if let Some(hash) = blob {
            for mount in &all {
                let driver = mount.lease().await;
                let Ok(store) = contents(&driver) else { continue };
                if let Ok(Some(_)) = store.length(&ContentId::Blake3(hash)).await {
                    return Ok(Ok(mount.clone()));
                }
            }
        }
        Ok(match &all[..] {
            [] => Err("no mount of its zone is attached that could take it".into()),
            // What has no content in a store can be anywhere.
            [only] => Ok(only.clone()),
            [first, ..] if has_rows_alone => Ok(first.clone()),
            _ => Err("it is not known which mount it belonged to".into()),
        })
    }

    /// Draws up a repair of rows, and commits it.
    async fn redraw(
        &mut self,
        suspect: &Suspect,
        mount: Arc<Mount>,
        path: Option<&str>,
    ) -> Result<Remedy, Halt> {
        let (kernel, at) = (&self.course.kernel, Timestamp(self.course.env().wall()));
        // Who takes the mount away, or has its names become something else, has all of it locked.
        let owner = LockOwner { agent: Caller::KERNEL.into(), since: at };
        let lock = kernel.locks().lock(&mount.point, Mode::Write, Scope::Entry, owner);
        let left = |why: String| Ok(Remedy::Left { why });
        let Ok(lock) = self.course.env().timeout(LOCK_WAIT_MAX, lock).await else {
            return left(format!("what is done with the mount at {} has not ended", mount.point));
        };
        // It may have gone and come since all was looked at: then it is another one, of the same entries.
        let is_it = |there: &Arc<Mount>| {
            (there.root, &there.zone, &there.point) == (mount.root, &mount.zone, &mount.point)
                && !there.is_path_addressed()
        };
        let Some(mount) = kernel.mounts().all().into_iter().find(is_it) else {
            return left(format!("the mount at {} is not attached any more", mount.point));
        };
        if mount.is_read_only() {
            return left(format!("the mount at {} is read-only", mount.point));
        }
        let desk = Desk { course: self.course.clone(), mount: mount.clone(), tree: suspect.tree, at };
        let (of, drawn) = (suspect.clone(), desk.clone());
        let plan = self.course.look(move |store, _| drawn.draw(&store.rows(drawn.tree)?, &of)).await?;
        let Planned { draft, other, how } = match plan {
            Ok(planned) => planned,
            Err(why) => return Ok(Remedy::Left { why }),
        };
        let path = path.and_then(|path| VPath::parse(path).ok()).unwrap_or_else(|| mount.point.clone());
        let mut entry = self.entry(suspect.tree, path, &suspect.evidence);
        (entry.at, entry.other) = (at, other);
        entry.preconditions.extend(draft.preconditions);
        entry.changes = draft.changes;
        Ok(self.committed(entry, how, Some((mount, lock))).await)
    }

    fn entry(&self, tree: TreeId, path: VPath, evidence: &Evidence) -> Entry {
        let as_seen = |(key, value): &(RowKey, Option<Bytes>)| match value {
            Some(value) => Precondition::Equals(key.clone(), value.clone()),
            None => Precondition::Absent(key.clone()),
        };
        Entry {
            tree,
            op_id: self.course.kernel.new_op_id(),
            repeatable: false,
            caller: Caller::KERNEL.into(),
            op: Op::Repair,
            path,
            other: None,
            items: Vec::new(),
            told: None,
            at: Timestamp(self.course.env().wall()),
            preconditions: evidence.iter().map(as_seen).collect(),
            changes: Vec::new(),
        }
    }

    /// Commits a repair, also when this run ends meanwhile. It may concern any name of the mount that is `locked`.
    async fn committed(&self, entry: Entry, how: String, locked: Option<(Arc<Mount>, PathGuard)>) -> Remedy {
        let (kernel, tree) = (self.course.kernel.clone(), entry.tree);
        let committed = Owned::from_start(self.course.env(), "repair.commit", async move {
            // Whatever is remembered of paths: what they lead to may be something else.
            let serving = kernel.clone();
            let publish = Box::new(move |_| {
                for mount in serving.mounts().all() {
                    if mount.tree == tree {
                        mount.raise_generation();
                    }
                }
            });
            let named = locked.iter().map(|(mount, _)| (&**mount, &mount.point, true));
            // Goes before the lock does.
            let _naming = Naming::of(named);
            kernel.store().commit(entry, publish).await
        });
        match committed.await {
            Ok(_) => Remedy::Repaired { how },
            Err(CommitError::Refused) => {
                Remedy::Left { why: "it changed meanwhile: a second check repairs it".into() }
            }
            Err(error) => Remedy::Left { why: error.to_string() },
        }
    }

    /// Writes damaged content again, from wherever it is whole.
    async fn heal(&mut self, suspect: &Suspect, hash: Hash, path: Option<&str>) -> Result<Remedy, Halt> {
        let id = ContentId::Blake3(hash);
        let left = |why: String| Ok(Remedy::Left { why });
        // Until it is committed: who names it may be gone by now.
        let hold = self.course.kernel.garbage().hold();
        hold.content(&hash).await;
        let Some((content, from)) = self.copy_of(suspect.mount, hash).await? else {
            return left("no other copy of it is known; writing the same content again heals it".into());
        };
        let path = path.and_then(|path| VPath::parse(path).ok()).unwrap_or_else(VPath::root);
        let mut entry = self.entry(suspect.tree, path, &suspect.evidence);
        match suspect.mount {
            Some(root) => {
                let Some(mount) = self.mounts.get(&root).cloned() else {
                    return left("its mount is not attached".into());
                };
                if mount.is_read_only() {
                    return left(format!("the mount at {} is read-only", mount.point));
                }
                let written = {
                    let driver = mount.lease().await;
                    match contents(&driver) {
                        Ok(store) => store.write(&id, &[content]).await,
                        Err(error) => Err(error),
                    }
                };
                if let Err(error) = written {
                    return left(format!("it could not be written again: {error}"));
                }
                if !self.is_whole(suspect.mount, hash).await? {
                    return left("it was written again, and is still not whole".into());
                }
                // The blob first, and then what is told of it.
                let key = RowKey::new(Table::Settings, *b"fsck/healed");
                entry.changes.push(Change::Put(key, encode(&entry.at)));
            }
            None => {
                let Some(key) = content_key(&id) else { return left("an address that is no hash".into()) };
                let at = key.clone();
                let there = self.course.look(move |store, _| store.metastore().reader()?.get(&at)).await?;
                entry.preconditions.push(match there {
                    Some(there) => Precondition::Equals(key.clone(), there),
                    None => Precondition::Absent(key.clone()),
                });
                entry.changes.push(Change::Put(key, content::own(&[content])));
            }
        }
        let remedy = self.committed(entry, format!("written again from {from}"), None).await;
        drop(hold);
        Ok(remedy)
    }

    /// A copy of the content that is whole and lies elsewhere, and where that is.
    async fn copy_of(
        &mut self,
        damaged: Option<FileId>,
        hash: Hash,
    ) -> Result<Option<(Bytes, String)>, Halt> {
        let id = ContentId::Blake3(hash);
        let remembered = self.course.kernel.caches().content.get(&id);
        // It was verified when it was remembered. It goes to disk now, where a mistake stays.
        if let Some(content) =
            remembered.filter(|content| content::address(std::slice::from_ref(content)) == id)
        {
            return Ok(Some((content, "memory".into())));
        }
        if damaged.is_some() {
            let look = self.course.look(move |store, _| inline(&*store.metastore().reader()?, &hash));
            if let Ok(content) = look.await? {
                return Ok(Some((content, "the metastore".into())));
            }
        }
        let others: Vec<Arc<Mount>> = self.mounts.values().cloned().collect();
        for mount in others {
            if Some(mount.root) == damaged || mount.is_path_addressed() || !mount.has_driver() {
                continue;
            }
            if let Blob::Whole(content) = self.inspector.blob(&mount, &hash).await? {
                return Ok(Some((content, format!("the store of {}", mount.point))));
            }
        }
        Ok(None)
    }
}

/// Whether nothing can lie below it.
fn is_leaf(suspect: &Suspect) -> bool {
    let rows =
        suspect.evidence.iter().filter_map(|(key, value)| decode::<InodeRow>(key, value.as_ref()?).ok());
    rows.into_iter().all(|row| !row.entry_type.is_directory())
}

impl Desk {
    /// What is corrected was never so: no history keeps it.
    fn correction(&self) -> Draft {
        Draft::new(self.tree, self.mount.zone.clone(), self.at)
    }

    /// As for any change: that something had no name, or another one, is history.
    fn draft(&self) -> Draft {
        let keeping = self.mount.history().map(|_| Keeping {
            mount: self.mount.root,
            by: Caller::KERNEL.into(),
            op: Op::Repair,
        });
        self.correction().keeping(keeping)
    }

    fn draw(&self, rows: &Rows, suspect: &Suspect) -> Result<Plan, StoreError> {
        let (Some(id), named) = (suspect.id, suspect.name.as_ref()) else {
            return Ok(Err("it has no identity".into()));
        };
        match (&suspect.fault, named) {
            (Fault::NameWithoutInode, Some((parent, name))) => {
                let Some(dentry) = rows.dentry(*parent, name)? else { return Ok(gone()) };
                let mut draft = self.correction();
                if rows.has_children(id)? {
                    let row = self.directory();
                    draft.changes.push(Change::Put(inode_key(self.tree, id), encode(&row)));
                    if !dentry.entry_type.is_directory() {
                        draft.name(*parent, name, Some(dentry), DentryRow { id, entry_type: EntryType::Dir });
                    }
                    return Ok(planned(draft, "a directory was made for what lies below the name"));
                }
                draft.vacant(id);
                draft.remove_name(*parent, name, dentry);
                Ok(planned(draft, "the name was taken away"))
            }
            (Fault::WrongType { is, .. }, Some((parent, name))) => {
                let Some(dentry) = rows.dentry(*parent, name)? else { return Ok(gone()) };
                let mut draft = self.correction();
                let old = rows.inode(id)?;
                // No name leads to the root of a mount, and only a file has content: then the name is right.
                let cannot_be =
                    *is == EntryType::Mount || (old.content_id.is_some() && *is != EntryType::Reg);
                if cannot_be && dentry.entry_type != EntryType::Mount {
                    let new = InodeRow { entry_type: dentry.entry_type, ..old.clone() };
                    draft.update(id, &old, &new);
                    return Ok(planned(draft, "the metadata says what the name says now"));
                }
                draft.name(*parent, name, Some(dentry), DentryRow { id, entry_type: *is });
                Ok(planned(draft, "the name says so now"))
            }
            (Fault::WrongSize { found, .. }, _) => {
                let old = rows.inode(id)?;
                let mut new = old.clone();
                new.size = *found;
                let mut draft = self.correction();
                draft.update(id, &old, &new);
                Ok(planned(draft, format!("its size is told as {found}")))
            }
            (Fault::NamesInNothing, _) => {
                let mut draft = self.draft();
                draft.changes.push(Change::Put(inode_key(self.tree, id), encode(&self.directory())));
                self.name_again(rows, draft, id, EntryType::Dir)
            }
            (Fault::InodeWithoutName, _) => {
                let row = rows.inode(id)?;
                self.name_again(rows, self.draft(), id, row.entry_type)
            }
            (Fault::Circle { .. }, Some((parent, name))) => {
                let Some(dentry) = rows.dentry(*parent, name)? else { return Ok(gone()) };
                let mut draft = self.draft();
                draft.remove_name(*parent, name, dentry);
                self.name_again(rows, draft, id, dentry.entry_type)
            }
            _ => Ok(Err("nothing tells what it was".into())),
        }
    }

    /// A directory in the place of one of which nothing is known any more.
    fn directory(&self) -> InodeRow {
        InodeRow::new(EntryType::Dir, Caller::KERNEL.into(), self.at)
    }

    /// Gives it a name in `lost+found` of its mount.
    fn name_again(
        &self,
        rows: &Rows,
        mut draft: Draft,
        id: FileId,
        entry_type: EntryType,
    ) -> Result<Plan, StoreError> {
        let root = self.mount.root;
        let lost = match rows.dentry(root, LOST_AND_FOUND)? {
            Some(dentry) if dentry.entry_type.is_directory() => {
                draft.still_named(root, LOST_AND_FOUND, dentry);
                draft.preconditions.push(Precondition::Present(inode_key(self.tree, dentry.id)));
                dentry.id
            }
            Some(_) => return Ok(Err(format!("{LOST_AND_FOUND} of {} is no directory", self.mount.point))),
            None => {
                let new_id = || self.course.kernel.store().new_file_id();
                let owner = Caller::KERNEL.into();
                // What is remembered of paths is forgotten after each repair.
                match draft.parents(&self.mount.point, root, &[LOST_AND_FOUND], Parents::Made, &owner, new_id)
                {
                    Ok(made) => made,
                    Err(kind) => return Ok(Err(format!("{LOST_AND_FOUND} cannot be made: {kind:?}"))),
                }
            }
        };
        let name = id.to_string();
        let key = dentry_key(self.tree, lost, &name);
        draft.preconditions.push(Precondition::Absent(key));
        draft.name(lost, &name, None, DentryRow { id, entry_type });
        let there = self.mount.point.join(LOST_AND_FOUND).and_then(|lost| lost.join(&name));
        let how = match &there {
            Ok(there) => format!("it is {there} now"),
            Err(_) => format!("it is {name} in {LOST_AND_FOUND} of {} now", self.mount.point),
        };
        Ok(Ok(Planned { draft, other: there.ok(), how }))
    }
}

fn planned(draft: Draft, how: impl Into<String>) -> Plan {
    Ok(Planned { draft, other: None, how: how.into() })
}

fn gone() -> Plan {
    Err("it changed meanwhile: a second check repairs it".into())
}
