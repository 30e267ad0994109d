//! Files by their paths: names, attributes and content of one backend become those of another.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nexus_messages::{Attributes, EntryType, ErrorKind, Timestamp};

use super::copying::Known;
use super::crossing::Crossing;
use super::journal::{CopyRow, Of, PAGE};
use super::opening::changing;
use super::view::Progress;
use super::{Attempts, Failed, Run, Side, tried};
use crate::content::CALL_MAX;
use crate::hal::{Addressing, ListPage, ObjectInfo, ObjectStore, PathStore, PathWrite, StoreError};
use crate::mounts::passage::Notes;

/// What the name of the file begins with that tells whether the new store lies within the old one. Some drivers take no names with a dot before them.
pub(super) const MARKER: &str = "nexus-migration-marker-";

/// What is in it.
pub(super) const MARKED: &[u8] = b"a migration looks whether its stores are two";

/// The permission bit without which nothing can be put into a folder.
const OWNER_WRITES: u32 = 0o200;

/// The mode of a folder that has none yet.
pub(super) const DIFFERS: u32 = u32::MAX;

pub(super) fn files(store: &dyn ObjectStore) -> Result<&dyn PathStore, StoreError> {
    match store.addressing() {
        Addressing::Path(store) => Ok(store),
        Addressing::Content(_) => Err(StoreError::NotSupported { what: "content by its path" }),
    }
}

/// A step of the way through a tree.
enum Step {
    Enter(String),
    /// All below it is copied.
    Leave(String, ObjectInfo),
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

impl Run {
    /// Whether the new store can hold all that is there, and does not lie in the old one. Nothing is left in it.
    pub(super) async fn check_with_marker(&self) -> Result<(), Failed> {
        if let Crossing::ToRows { .. } = self.crossing {
            // A name among rows is seen by nobody beside them.
            return self.check_files(None).await;
        }
        let marker = format!("{MARKER}{}", self.kernel.new_op_id());
        tried!(self, Side::New, async {
            let data = [Bytes::from_static(MARKED)];
            self.new_files()?.write(&marker, &data, PathWrite::Whole, &Attributes::none()).await
        })?;
        let checked = self.check_files(Some(&marker)).await;
        self.delete(&marker).await?;
        checked
    }

    /// Whether the new store can hold all that is there; nothing is copied. `marker` is the name of a file in the new store that the old one must not have.
    pub(super) async fn check_files(&self, marker: Option<&str>) -> Result<(), Failed> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let (mut after, mut empty): (Option<String>, _) = (None, true);
            loop {
                let page = self.list_old(&folder, after.as_deref()).await?;
                empty &= page.entries.is_empty();
                if page.unnameable > 0 {
                    return Err(Failed::refused(self.no_names(&folder, &page)));
                }
                for (name, info) in &page.entries {
                    let path = join(&folder, name);
                    if marker.is_some_and(|marker| name == marker) {
                        let why = format!("what is to be mounted lies in {} itself", self.shown(&folder));
                        return Err(Failed { kind: ErrorKind::InvalidArgument, why });
                    }
                    if let Some(why) = self.cannot_hold(&path, info) {
                        return Err(Failed::refused(why));
                    }
                    if info.entry_type == EntryType::Dir {
                        folders.push(path);
                    }
                }
                let files = page.entries.iter().filter(|(_, info)| info.entry_type != EntryType::Dir);
                Progress::count(&self.progress.found, files.count() as u64);
                after = page.entries.into_iter().next_back().map(|(name, _)| name);
                if !page.more {
                    break;
                }
            }
            if empty && !folder.is_empty() && !self.can.directories {
                return Err(Failed::refused(self.no_empty_folder(&folder)));
            }
        }
        Ok(())
    }

    pub(super) fn shown(&self, path: &str) -> String {
        self.mount.point.join_relative(path).map_or_else(|_| path.to_owned(), |path| path.to_string())
    }

    fn no_empty_folder(&self, folder: &str) -> String {
        let driver = &self.spec.driver;
        format!("{} is an empty folder, and {driver} has none such", self.shown(folder))
    }

    fn no_names(&self, folder: &str, page: &ListPage) -> String {
        let shown = self.shown(folder);
        format!(
            "{shown} holds names that no path can hold, or that a file of the same name hides: {}",
            page.unnameable
        )
    }

    /// Why the new store cannot hold what is at `path`.
    fn cannot_hold(&self, path: &str, info: &ObjectInfo) -> Option<String> {
        let (driver, shown) = (&self.spec.driver, self.shown(path));
        if let Err(why) = self.new_files().and_then(|store| store.can_name(path)) {
            return Some(format!("{shown}: {why}"));
        }
        match info.entry_type {
            EntryType::Reg if !self.can.upload && info.size > CALL_MAX => {
                return Some(format!(
                    "{shown} has {} bytes, and {driver} writes at most {CALL_MAX}",
                    info.size
                ));
            }
            EntryType::Reg | EntryType::Dir => {}
            EntryType::Link if !self.can.links => {
                return Some(format!("{shown} is a link, and {driver} has no links"));
            }
            EntryType::Link if info.link_target.is_none() => {
                return Some(format!("the target of the link {shown} is not UTF-8"));
            }
            EntryType::Link => return self.lost_with_rows(path, &shown),
            EntryType::Pipe => return Some(format!("{shown} is a pipe, and {driver} has none")),
            EntryType::Stream => return Some(format!("{shown} is a stream, and {driver} has none")),
            _ => return Some(format!("{shown} is neither a file, nor a folder, nor a link")),
        }
        if let Some(why) = self.lost_with_rows(path, &shown) {
            return Some(why);
        }
        let is_lost = info.mode != info.entry_type.default_mode();
        if is_lost && self.had.attributes && !self.can.attributes && !self.without_modes {
            let why = "which --without-modes gives up";
            return Some(format!("{shown} has the mode {:o}, and {driver} keeps none, {why}", info.mode));
        }
        None
    }

    async fn list_old(&self, folder: &str, after: Option<&str>) -> Result<ListPage, Failed> {
        tried!(self, Side::Old, async {
            let old = self.old().await;
            match old.files()?.list(folder, after, PAGE).await {
                // It went meanwhile, which is noted.
                Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => Ok(Default::default()),
                listed => listed,
            }
        })
    }

    async fn list_new(&self, folder: &str, after: Option<&str>) -> Result<ListPage, Failed> {
        tried!(self, Side::New, async {
            match self.new_files()?.list(folder, after, PAGE).await {
                Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => Ok(Default::default()),
                listed => listed,
            }
        })
    }

    async fn look_old(&self, path: &str) -> Result<Option<ObjectInfo>, Failed> {
        tried!(self, Side::Old, async {
            let old = self.old().await;
            there(old.files()?.stat(path).await)
        })
    }

    pub(super) async fn look_new(&self, path: &str) -> Result<Option<ObjectInfo>, Failed> {
        tried!(self, Side::New, async { there(self.new_files()?.stat(path).await) })
    }

    /// Copies the folder `root` and all below it, unless it was copied and is the same; removes copies of what is gone when `compare` says that there may be some.
    pub(super) async fn copy_tree(&self, root: &str, compare: bool, closed: bool) -> Result<(), Failed> {
        // What became of the copies between two processes nobody knows.
        let trusts = !self.resumed || self.progress.looks.load(Ordering::Relaxed) > 0;
        let mut way = vec![Step::Enter(root.to_owned())];
        while let Some(step) = way.pop() {
            let folder = match step {
                Step::Enter(folder) => folder,
                Step::Leave(folder, info) => {
                    self.describe_folder(&folder, &info).await?;
                    continue;
                }
            };
            let mut names = BTreeSet::new();
            let mut after: Option<String> = None;
            loop {
                let page = self.list_old(&folder, after.as_deref()).await?;
                if page.unnameable > 0 {
                    self.cannot_be_copied(&folder, true, self.no_names(&folder, &page), closed)?;
                }
                let mut copies = self.check_others(&folder, after.as_deref(), &page).await?;
                let mut plain = Vec::new();
                for (name, info) in page.entries {
                    let path = join(&folder, &name);
                    let copy = copies.remove(&name);
                    if info.entry_type == EntryType::Dir {
                        // What is in it is copied all the same: it may be as others again when it counts.
                        self.can_be_copied(&path, &info, closed)?;
                        self.make_folder(&path, !trusts && copy.is_none()).await?;
                        way.push(Step::Leave(path.clone(), info));
                        way.push(Step::Enter(path));
                    } else if self.can_be_copied(&path, &info, closed)? {
                        self.twins.lock().saw(&path, &info);
                        let known = match trusts {
                            true => Known::Trusted,
                            false => Known::As(copy.map(|copy| copy.tag)),
                        };
                        plain.push((path, info, known));
                    }
                    after = Some(name.clone());
                    names.insert(name);
                }
                self.copy_files(plain).await?;
                if !page.more {
                    break;
                }
            }
            if names.is_empty() && !folder.is_empty() && !self.can.directories {
                self.cannot_be_copied(&folder, false, self.no_empty_folder(&folder), closed)?;
            }
            if compare {
                self.remove_others(&folder, &names).await?;
            }
        }
        self.journal.flush(true).await
    }

    /// What is in the new store of a page of a folder, which came behind `after`: copies, and nothing else.
    async fn check_others(
        &self,
        folder: &str,
        after: Option<&str>,
        page: &ListPage,
    ) -> Result<HashMap<String, ObjectInfo>, Failed> {
        let mut copies = HashMap::new();
        let Some((last, _)) = page.entries.last() else { return Ok(copies) };
        let ours: HashSet<&String> = page.entries.iter().map(|(name, _)| name).collect();
        let mut after = after.map(str::to_owned);
        loop {
            let there = self.list_new(folder, after.as_deref()).await?;
            after = there.entries.last().map(|(name, _)| name.clone());
            let both: Vec<_> = there.entries.into_iter().filter(|(name, _)| ours.contains(name)).collect();
            let paths: Vec<_> = both.iter().map(|(name, _)| join(folder, name)).collect();
            let known = self.journal.copies(&paths)?;
            if let Some((path, _)) = paths.iter().zip(known).find(|(_, row)| row.is_none()) {
                return Err(not_ours(path));
            }
            copies.extend(both);
            if !there.more || after.as_ref().is_none_or(|name| name >= last) {
                return Ok(copies);
            }
        }
    }

    /// Whether nothing is at `path` in the new store but a copy.
    async fn check_other(&self, path: &str) -> Result<(), Failed> {
        let is_known = self.journal.copies(&[path.to_owned()])?.pop().flatten().is_some();
        match is_known || self.look_new(path).await?.is_none() {
            true => Ok(()),
            false => Err(not_ours(path)),
        }
    }

    /// Removes from the new store the copies that are in the folder and have none of these names.
    async fn remove_others(&self, folder: &str, names: &BTreeSet<String>) -> Result<(), Failed> {
        let mut after: Option<String> = None;
        loop {
            let page = self.list_new(folder, after.as_deref()).await?;
            for (name, info) in page.entries {
                let path = join(folder, &name);
                if folder.is_empty() && is_marker(&name, &info) {
                    self.delete(&path).await?;
                } else if !names.contains(&name) && self.look_old(&path).await?.is_none() {
                    // What came since it was listed is noted, and copied.
                    self.remove(&path).await?;
                }
                after = Some(name);
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Sees to what was noted. `closed` says that nothing changes meanwhile.
    pub(super) async fn settle_files(&self, notes: &Notes, closed: bool) -> Result<(), Failed> {
        let (mut plain, mut left, mut added) = (Vec::new(), notes.paths.clone(), BTreeSet::new());
        while let Some((path, deep)) = left.pop_first() {
            let mut names = self.twins.lock().names(&path, deep);
            if let Some(info) = self.settle_path(&path, deep, closed).await? {
                self.saw(&path, &info);
                names.append(&mut self.twins.lock().names(&path, false));
                plain.push((path, info, Known::Changed));
            }
            for name in names {
                if !notes.paths.contains_key(&name) && added.insert(name.clone()) {
                    left.insert(name, false);
                }
            }
            if plain.len() >= PAGE {
                self.copy_files(std::mem::take(&mut plain)).await?;
            }
        }
        self.copy_files(plain).await?;
        self.journal.flush(true).await
    }

    /// Sees to what is at `path`, but for a file or a link, which is given.
    async fn settle_path(&self, path: &str, deep: bool, closed: bool) -> Result<Option<ObjectInfo>, Failed> {
        if path.is_empty() {
            if deep {
                self.copy_tree("", true, closed).await?;
            }
            return Ok(None);
        }
        let Some(info) = self.found(path).await? else {
            // A folder that is there by implication goes with the last in it.
            let gone = self.gone_above(path).await?.unwrap_or(path);
            self.remove(gone).await?;
            self.check_emptied(gone, closed).await?;
            return Ok(None);
        };
        if info.entry_type == EntryType::Dir {
            self.can_be_copied(path, &info, closed)?;
            self.make_folder(path, false).await?;
            if deep || !self.can.directories {
                self.copy_tree(path, true, closed).await?;
            }
            self.describe_folder(path, &info).await?;
        } else if self.can_be_copied(path, &info, closed)? {
            self.check_other(path).await?;
            return Ok(Some(info));
        }
        Ok(None)
    }

    /// The first folder on the way to `path` where nothing is in the old store any more.
    async fn gone_above<'p>(&self, path: &'p str) -> Result<Option<&'p str>, Failed> {
        for (end, _) in path.match_indices('/') {
            if self.look_old(&path[..end]).await?.is_none() {
                return Ok(Some(&path[..end]));
            }
        }
        Ok(None)
    }

    /// What is at `path` in the old store; the folders above it are made in the new one.
    async fn found(&self, path: &str) -> Result<Option<ObjectInfo>, Failed> {
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            match self.look_old(above).await? {
                Some(info) if info.entry_type == EntryType::Dir => {
                    self.make_folder(above, false).await?;
                    // One that cannot be written to gets its mode when all is in it.
                    if info.mode & OWNER_WRITES != 0 {
                        self.describe_folder(above, &info).await?;
                    }
                }
                _ => return Ok(None),
            }
        }
        self.look_old(path).await
    }

    /// Whether the new store can hold it. If not, and it may change still, it is looked at again later.
    fn can_be_copied(&self, path: &str, info: &ObjectInfo, closed: bool) -> Result<bool, Failed> {
        match self.cannot_hold(path, info) {
            None => Ok(true),
            Some(why) => self.cannot_be_copied(path, false, why, closed).map(|()| false),
        }
    }

    /// What the new store cannot hold, at `path` or, if it is `deep`, below it; unless it changes still.
    fn cannot_be_copied(&self, path: &str, deep: bool, why: String, closed: bool) -> Result<(), Failed> {
        if closed {
            return Err(Failed::refused(why));
        }
        self.note_again(path, deep);
        Ok(())
    }

    /// Whether what was at `path` was the last in its folder, which the new store cannot have then.
    async fn check_emptied(&self, path: &str, closed: bool) -> Result<(), Failed> {
        let Some((folder, _)) = path.rsplit_once('/').filter(|_| !self.can.directories) else {
            return Ok(());
        };
        let is_folder = self.look_old(folder).await?.is_some_and(|info| info.entry_type == EntryType::Dir);
        if is_folder && self.list_old(folder, None).await?.entries.is_empty() {
            self.cannot_be_copied(folder, false, self.no_empty_folder(folder), closed)?;
        }
        Ok(())
    }

    /// Takes note of a file that was changed by this name.
    fn saw(&self, path: &str, info: &ObjectInfo) {
        if !self.twins.lock().saw(path, info) {
            // Its other names may be anywhere.
            self.mount.passage().give_back(Notes { all: true, ..Notes::default() });
        }
    }

    pub(super) fn note_again(&self, path: &str, deep: bool) {
        let mut notes = Notes::default();
        notes.paths.insert(path.to_owned(), deep);
        self.mount.passage().give_back(notes);
    }

    /// Makes a folder in the new store, in the place of whatever else is there, unless it was made, and is not `missing`.
    async fn make_folder(&self, path: &str, missing: bool) -> Result<(), Failed> {
        let names = [path.to_owned()];
        let known = self.journal.copies(&names)?.pop().flatten();
        if !missing && known.as_ref().is_some_and(|row| row.folder && row.of.is_some()) {
            return Ok(());
        }
        match known {
            None => self.check_other(path).await?,
            Some(row) if !row.folder => self.remove(path).await?,
            Some(_) => {}
        }
        let [name] = names;
        self.journal.begin(std::iter::once((name, true))).await?;
        if self.can.directories {
            changing!(self, path, async {
                match self.new_files()?.make_directory(path, &Attributes::none()).await {
                    Ok(_) | Err(StoreError::Exists { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            })?;
        }
        self.confirm_folder(path, DIFFERS);
        Ok(())
    }

    pub(super) fn confirm_folder(&self, path: &str, mode: u32) {
        let at = Timestamp(self.kernel.env().wall());
        let tag = nexus_messages::ContentId::Tag("folder".into());
        let of = Of { tag, size: 0, mode, at };
        self.journal.confirm(path, CopyRow { ours: true, folder: true, of: Some(of), tag: None });
    }

    /// Gives a folder its mode, now that all is in it.
    async fn describe_folder(&self, path: &str, info: &ObjectInfo) -> Result<(), Failed> {
        if !self.can.attributes || !self.had.attributes {
            return Ok(());
        }
        let known = self.journal.copies(&[path.to_owned()])?.pop().flatten();
        if known.and_then(|row| row.of).is_some_and(|of| of.mode == info.mode) {
            return Ok(());
        }
        let attributes = Attributes::none().mode(info.mode).modified(info.modified);
        tried!(self, Side::New, async { there(self.new_files()?.set_attributes(path, &attributes).await) })?;
        self.confirm_folder(path, info.mode);
        Ok(())
    }

    /// Gives the folder that is mounted the mode of the old one: it says who may see what is in it.
    pub(super) async fn describe_root(&self) -> Result<(), Failed> {
        if !self.is_of_files() || !self.can.attributes || !self.had.attributes {
            return Ok(());
        }
        let (Some(old), Some(new)) = (self.look_old("").await?, self.look_new("").await?) else {
            return Ok(());
        };
        if old.mode != new.mode {
            let attributes = Attributes::none().mode(old.mode);
            let set =
                tried!(self, Side::New, async { self.new_files()?.set_attributes("", &attributes).await });
            match set {
                // Somebody else's folder keeps its mode.
                Err(failed) if failed.kind == ErrorKind::PermissionDenied => {
                    tracing::warn!(point = %self.mount.point, why = %failed.why, "it has another mode from now on");
                }
                set => drop(set?),
            }
        }
        Ok(())
    }

    /// Removes the copy at `path`, with all below it. What is not the migration's own ends it.
    pub(super) async fn remove(&self, path: &str) -> Result<(), Failed> {
        let there = self.look_new(path).await?;
        let is_known = self.journal.copies(&[path.to_owned()])?.pop().flatten().is_some();
        if !is_known {
            return if there.is_none() { Ok(()) } else { Err(not_ours(path)) };
        }
        // Whenever it is cut short, no row speaks for a copy that is gone.
        self.journal.doubt(path).await?;
        if let Some(info) = there {
            match info.entry_type {
                EntryType::Dir => self.remove_folder(path).await?,
                _ => self.delete(path).await?,
            }
            Progress::count(&self.progress.removed, 1);
        }
        self.journal.forget(path).await
    }

    async fn remove_folder(&self, path: &str) -> Result<(), Failed> {
        let mut folders = vec![path.to_owned()];
        while let Some(folder) = folders.last().cloned() {
            let page = self.list_new(&folder, None).await?;
            let paths: Vec<_> = page.entries.iter().map(|(name, _)| join(&folder, name)).collect();
            let known = self.journal.copies(&paths)?;
            let before = folders.len();
            for ((path, (_, info)), known) in paths.into_iter().zip(&page.entries).zip(known) {
                if known.is_none() {
                    return Err(not_ours(&path));
                }
                if info.entry_type == EntryType::Dir {
                    folders.push(path);
                } else {
                    self.delete(&path).await?;
                }
            }
            if folders.len() == before && !page.more {
                folders.pop();
                self.delete(&folder).await?;
            }
        }
        Ok(())
    }

    /// Removes one entry of the new store; none is there when this has returned.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failed> {
        changing!(self, path, async { there(self.new_files()?.delete(path).await) }).map(drop)
    }

    /// Whether nothing is in the new store. Markers are removed.
    pub(super) async fn is_empty(&self) -> Result<bool, Failed> {
        let page = self.list_new("", None).await?;
        for (name, info) in &page.entries {
            if is_marker(name, info) {
                self.delete(name).await?;
            } else {
                return Ok(false);
            }
        }
        Ok(!page.more)
    }
}

/// Whether it is what a process left that ended while it looked whether the stores are two.
fn is_marker(name: &str, info: &ObjectInfo) -> bool {
    name.starts_with(MARKER) && info.size == MARKED.len() as u64
}

/// What others have put where only copies are to be.
fn not_ours(path: &str) -> Failed {
    let why = format!(
        "{path} in the new store is no copy of this migration: it is not removed, and would be a file of the mount"
    );
    Failed { kind: ErrorKind::NotEmpty, why }
}

fn there<T>(found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
