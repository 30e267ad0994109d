//! Files by their paths: names, attributes and content of one backend become those of another.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, EntryType, ErrorKind, Timestamp};

use super::journal::{CopyRow, Of, PAGE};
use super::opening::changing;
use super::view::Progress;
use super::{Failed, Run, tried};
use crate::content::CALL_MAX;
use crate::hal::{Addressing, ListPage, ObjectInfo, ObjectStore, PathStore, PathWrite, StoreError};
use crate::mounts::passage::Notes;

/// How many files are copied at once.
const AT_ONCE: usize = 8;

/// Files up to this size are in memory while they are copied; larger ones go piece by piece, where the new store takes content so.
const HELD_MAX: u64 = 4 << 20;

/// The pieces.
const PIECE: u64 = 4 << 20;

/// A file that was read so soon after it was changed may have been changed again without a sign: the clocks of disks are coarse.
const SOON_NANOS: u64 = 100_000_000;

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

/// Why a file was not copied.
enum Missed {
    /// It changed, or went, while it was read: it is looked at again.
    Changed,
    Store(StoreError),
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::Changed,
            error => Self::Store(error),
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

impl Run {
    /// Whether the new store can hold all that is there; nothing is copied. `marker` is the name of a file in the new store that the old one must not have.
    pub(super) async fn check_files(&self, marker: &str) -> Result<(), Failed> {
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
                    if name == marker {
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

    fn shown(&self, path: &str) -> String {
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
            EntryType::Link => return None,
            _ => return Some(format!("{shown} is neither a file, nor a folder, nor a link")),
        }
        let is_lost = info.mode != info.entry_type.default_mode();
        if is_lost && self.had.attributes && !self.can.attributes && !self.without_modes {
            let why = "which --without-modes gives up";
            return Some(format!("{shown} has the mode {:o}, and {driver} keeps none, {why}", info.mode));
        }
        None
    }

    async fn list_old(&self, folder: &str, after: Option<&str>) -> Result<ListPage, Failed> {
        tried!(self, async {
            let driver = self.mount.lease().await;
            match files(&**driver)?.list(folder, after, PAGE).await {
                // It went meanwhile, which is noted.
                Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => Ok(Default::default()),
                listed => listed,
            }
        })
    }

    async fn list_new(&self, folder: &str, after: Option<&str>) -> Result<ListPage, Failed> {
        tried!(self, async {
            match files(&*self.target)?.list(folder, after, PAGE).await {
                Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => Ok(Default::default()),
                listed => listed,
            }
        })
    }

    async fn look_old(&self, path: &str) -> Result<Option<ObjectInfo>, Failed> {
        tried!(self, async {
            let driver = self.mount.lease().await;
            there(files(&**driver)?.stat(path).await)
        })
    }

    pub(super) async fn look_new(&self, path: &str) -> Result<Option<ObjectInfo>, Failed> {
        tried!(self, async { there(files(&*self.target)?.stat(path).await) })
    }

    /// Copies the folder `root` and all below it, unless it was copied and is the same; removes copies of what is gone when `compare` says that there may be some.
    pub(super) async fn copy_tree(&self, root: &str, compare: bool, closed: bool) -> Result<(), Failed> {
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
                self.check_others(&folder, after.as_deref(), &page).await?;
                let mut plain = Vec::new();
                for (name, info) in page.entries {
                    let path = join(&folder, &name);
                    if info.entry_type == EntryType::Dir {
                        self.make_folder(&path).await?;
                        way.push(Step::Leave(path.clone(), info));
                        way.push(Step::Enter(path));
                    } else if self.can_be_copied(&path, &info, closed)? {
                        plain.push((path, info, false));
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

    /// Whether nothing of a page of a folder, which came behind `after`, is in the new store but copies.
    async fn check_others(&self, folder: &str, after: Option<&str>, page: &ListPage) -> Result<(), Failed> {
        let Some((last, _)) = page.entries.last() else { return Ok(()) };
        let mut after = after.map(str::to_owned);
        loop {
            let there = self.list_new(folder, after.as_deref()).await?;
            after = there.entries.last().map(|(name, _)| name.clone());
            let is_ours = |name: &String| page.entries.iter().any(|(ours, _)| ours == name);
            let both = there.entries.iter().map(|(name, _)| name).filter(|name| is_ours(name));
            let both: Vec<_> = both.map(|name| join(folder, name)).collect();
            let known = self.journal.copies(&both)?;
            if let Some((path, _)) = both.iter().zip(known).find(|(_, row)| row.is_none()) {
                return Err(not_ours(path));
            }
            if !there.more || after.as_ref().is_none_or(|name| name >= last) {
                return Ok(());
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
        let mut plain = Vec::new();
        for (path, deep) in &notes.paths {
            if path.is_empty() {
                if *deep {
                    self.copy_tree("", true, closed).await?;
                }
                continue;
            }
            let Some(info) = self.found(path).await? else {
                self.remove(path).await?;
                self.check_emptied(path, closed).await?;
                continue;
            };
            if info.entry_type == EntryType::Dir {
                self.make_folder(path).await?;
                if *deep || !self.can.directories {
                    self.copy_tree(path, true, closed).await?;
                }
                self.describe_folder(path, &info).await?;
            } else if self.can_be_copied(path, &info, closed)? {
                self.check_other(path).await?;
                plain.push((path.clone(), info, true));
            }
            if plain.len() >= PAGE {
                self.copy_files(std::mem::take(&mut plain)).await?;
            }
        }
        self.copy_files(plain).await?;
        self.journal.flush(true).await
    }

    /// What is at `path` in the old store; the folders above it are made in the new one.
    async fn found(&self, path: &str) -> Result<Option<ObjectInfo>, Failed> {
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            match self.look_old(above).await? {
                Some(info) if info.entry_type == EntryType::Dir => {
                    self.make_folder(above).await?;
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

    pub(super) fn note_again(&self, path: &str, deep: bool) {
        let mut notes = Notes::default();
        notes.paths.insert(path.to_owned(), deep);
        self.mount.passage().give_back(notes);
    }

    /// Makes a folder in the new store, in the place of whatever else is there.
    async fn make_folder(&self, path: &str) -> Result<(), Failed> {
        let names = [path.to_owned()];
        let known = self.journal.copies(&names)?.pop().flatten();
        if known.as_ref().is_some_and(|row| row.folder && row.of.is_some()) {
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
                match files(&*self.target)?.make_directory(path, &Attributes::none()).await {
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
        self.journal.confirm(path, CopyRow { ours: true, folder: true, of: Some(of) });
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
        tried!(self, async { there(files(&*self.target)?.set_attributes(path, &attributes).await) })?;
        self.confirm_folder(path, info.mode);
        Ok(())
    }

    /// Copies files and links. Of each is said whether it is copied also when it seems to be the same as before.
    async fn copy_files(&self, found: Vec<(String, ObjectInfo, bool)>) -> Result<(), Failed> {
        let names: Vec<_> = found.iter().map(|(path, _, _)| path.clone()).collect();
        let known = self.journal.copies(&names)?;
        let mut wanted = Vec::new();
        for ((path, info, forced), row) in found.into_iter().zip(known) {
            if !forced && row.is_some_and(|row| self.is_copied(&row, &info)) {
                // What a later look finds copied, this migration has copied.
                if self.progress.looks.load(Ordering::Relaxed) == 0 {
                    Progress::count(&self.progress.kept, 1);
                }
            } else {
                wanted.push((path, info));
            }
        }
        self.journal.begin(wanted.iter().map(|(path, _)| (path.clone(), false))).await?;
        let copies =
            stream::iter(wanted).map(|(path, info)| async move { self.copy_file(&path, &info).await });
        copies.buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Whether the row is of a verified copy of what is there.
    fn is_copied(&self, row: &CopyRow, info: &ObjectInfo) -> bool {
        let is_soon = |of: &Of| of.at.nanos().saturating_sub(info.modified.nanos()) < SOON_NANOS;
        row.of.as_ref().is_some_and(|of| {
            (&of.tag, of.size, of.mode) == (&info.tag, info.size, info.mode) && !is_soon(of)
        })
    }

    async fn copy_file(&self, path: &str, info: &ObjectInfo) -> Result<(), Failed> {
        let (mut attempt, mut refused) = (0, false);
        loop {
            let copied = match info.entry_type {
                EntryType::Link => self.copy_link(path, info).await,
                _ if info.size > HELD_MAX && self.can.upload => self.copy_pieces(path, info).await,
                _ => self.copy_whole(path).await,
            };
            match copied {
                Ok(of) => {
                    Progress::count(&self.progress.copied, 1);
                    Progress::count(&self.progress.bytes, of.size);
                    self.journal.confirm(path, CopyRow { ours: true, folder: false, of: Some(of) });
                    return self.journal.flush(false).await;
                }
                Err(Missed::Changed) => {
                    self.note_again(path, false);
                    return Ok(());
                }
                // Something else is in its place, or where a folder above it is to be.
                Err(Missed::Store(
                    StoreError::IsADirectory { .. } | StoreError::NotEmpty { .. } | StoreError::Exists { .. },
                )) if attempt == 0 => {
                    attempt += 1;
                    self.remove(path).await?;
                    self.journal.begin(std::iter::once((path.to_owned(), false))).await?;
                }
                Err(Missed::Store(error)) => {
                    let is_denied = error.kind() == ErrorKind::PermissionDenied;
                    if is_denied && !std::mem::replace(&mut refused, true) && self.opens(path).await? {
                        continue;
                    }
                    if !self.again(&error, &mut attempt).await {
                        let failed = Failed::from(error);
                        return Err(Failed {
                            why: format!("{}: {}", self.shown(path), failed.why),
                            ..failed
                        });
                    }
                }
            }
        }
    }

    fn attributes(&self, info: &ObjectInfo) -> Attributes {
        match self.can.attributes {
            true if self.had.attributes => Attributes::none().mode(info.mode).modified(info.modified),
            true => Attributes::none().modified(info.modified),
            false => Attributes::none(),
        }
    }

    fn of(&self, info: &ObjectInfo) -> Of {
        let at = Timestamp(self.kernel.env().wall());
        Of { tag: info.tag.clone(), size: info.size, mode: info.mode, at }
    }

    /// Copies a file at once. What it is when it is read counts, not what it was when it was listed.
    async fn copy_whole(&self, path: &str) -> Result<Of, Missed> {
        let (data, info) = {
            let driver = self.mount.lease().await;
            files(&**driver)?.read(path, ByteRange::ALL).await?
        };
        if info.entry_type != EntryType::Reg || data.len() as u64 != info.size {
            return Err(Missed::Changed);
        }
        let data = [data];
        let hash = self.kernel.address(&data).await.map_err(Missed::Store)?;
        let new = files(&*self.target)?;
        let written = new.write(path, &data, PathWrite::Whole, &self.attributes(&info)).await;
        written.map_err(Missed::Store)?;
        let (back, _) = new.read(path, ByteRange::ALL).await.map_err(Missed::Store)?;
        let found = self.kernel.address(&[back]).await.map_err(Missed::Store)?;
        if found != hash {
            return Err(Missed::Store(unlike(path, &found.to_string())));
        }
        Ok(self.of(&info))
    }

    /// Copies a large file piece by piece: the new store shows it when all of it is there.
    async fn copy_pieces(&self, path: &str, info: &ObjectInfo) -> Result<Of, Missed> {
        let new = files(&*self.target)?;
        let mut upload = new.upload(path).await.map_err(Missed::Store)?;
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        while offset < info.size {
            let range = ByteRange::new(offset, PIECE.min(info.size - offset));
            let (data, now) = {
                let driver = self.mount.lease().await;
                files(&**driver)?.read(path, range).await?
            };
            if now.tag != info.tag || data.is_empty() {
                return Err(Missed::Changed);
            }
            hasher.update(&data);
            offset += data.len() as u64;
            upload.push(data).await.map_err(Missed::Store)?;
        }
        upload.settle().await.map_err(Missed::Store)?;
        let finished = upload.finish(path, PathWrite::Whole, &self.attributes(info)).await;
        finished.map_err(Missed::Store)?;
        let (mut back, mut offset) = (blake3::Hasher::new(), 0);
        while offset < info.size {
            let (data, _) = new.read(path, ByteRange::new(offset, PIECE)).await.map_err(Missed::Store)?;
            if data.is_empty() {
                break;
            }
            offset += data.len() as u64;
            back.update(&data);
        }
        let found = back.finalize();
        if found != hasher.finalize() {
            return Err(Missed::Store(unlike(path, &found.to_hex())));
        }
        Ok(self.of(info))
    }

    async fn copy_link(&self, path: &str, info: &ObjectInfo) -> Result<Of, Missed> {
        let (new, target) = (files(&*self.target)?, info.link_target.as_deref().unwrap_or_default());
        let made = new.make_link(path, target).await.map_err(Missed::Store);
        let back = match made {
            Err(Missed::Store(StoreError::Exists { .. })) => new.stat(path).await.map_err(Missed::Store)?,
            made => {
                made?;
                new.stat(path).await.map_err(Missed::Store)?
            }
        };
        if back.link_target.as_deref() == Some(target) {
            return Ok(self.of(info));
        }
        // It is removed, and made again.
        Err(Missed::Store(StoreError::Exists { what: path.to_owned() }))
    }

    /// Removes the copy at `path`, with all below it. What is not the migration's own ends it.
    async fn remove(&self, path: &str) -> Result<(), Failed> {
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
        changing!(self, path, async { there(files(&*self.target)?.delete(path).await) }).map(drop)
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

fn unlike(path: &str, found: &str) -> StoreError {
    StoreError::Corrupt {
        what: format!("the copy of {path}"),
        found: format!("content with the hash {found}"),
    }
}
