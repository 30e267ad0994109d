//! A path-addressed mount: the backend is the truth about names, metadata and content. No row describes its entries; its mutations
//! stand in the log all the same.
//!
//! What plain files cannot hold is not pretended: `version` and `generation` come of the time of the last change of content, in nanoseconds, and mostly
//! grow with a write; the owner is nobody; media types are guessed from names.

use std::sync::Arc;

use bytes::Bytes;
use nexus_actors::Lease;
use nexus_messages::syscall::{
    Attribute, ByteRange, Copied, Create, Extent, Place as Where, Precondition, Renamed, SetattrDone,
    SysCopy, SysRename, SysSetattr, SysUnlink, SysWrite, Unlinked, Written,
};
use nexus_messages::{
    Attributes, EntryType, Error, ErrorKind, EventKind, FileId, FileMetadata, Receipt, VPath, hash_of,
};

use super::emptying::{gone_with_its_children, part_of, remove_below};
use super::remove::taken_for;
use super::rewrite::{Rewriting, Rewritten};
use super::stream::ForPlain;
use super::whole::{read_as_known, to_be_changed};
use super::write::{check_attributes, kind_of_removal, kind_of_set, must_be_file};
use super::{
    Child, Children, Intake, Intent, Runs, Site, Source, Staged, State, Stop, commit_error, no_mount_below,
    store_error,
};
use crate::content;
use crate::hal::{
    Addressing, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathWrite, StoreError, Told,
};
use crate::kernel::Kernel;
use crate::mounts::{Guarded, Mount};
use crate::namespace::{Node, Placement};

/// How often several runs of one file are read that changes while they are.
const READS_MAX: usize = 4;

/// A path-addressed mount, with the kernel around it.
#[derive(Clone, Copy)]
pub(crate) struct PathVolume<'a> {
    pub(crate) kernel: &'a Arc<Kernel>,
    pub(crate) mount: &'a Arc<Mount>,
}

/// The driver, kept alive while it is used.
struct Driver(Lease<Arc<Guarded>>);

impl Driver {
    fn store(&self) -> Result<&dyn PathStore, StoreError> {
        match self.0.addressing() {
            Addressing::Path(store) => Ok(store),
            Addressing::Content(_) => Err(StoreError::NotSupported { what: "content by its path" }),
        }
    }
}

impl PathVolume<'_> {
    async fn driver(&self) -> Driver {
        Driver(self.mount.lease().await)
    }

    fn metadata(&self, path: VPath, info: &ObjectInfo) -> FileMetadata {
        let is_root = path == self.mount.point;
        let (id, entry_type) = match (is_root, info.inode) {
            (true, _) => (self.mount.root, self.kernel.catalogue().mount_type(&self.mount.spec().driver)),
            // A backend without identities: the path is the identity, as long as nothing is renamed.
            (false, 0) => (FileId(hash_of(path.as_str())), info.entry_type),
            (false, inode) => (FileId(inode), info.entry_type),
        };
        let mut metadata = FileMetadata::new(path, self.mount.zone.clone(), id, entry_type, info.created);
        metadata.mode = self.mount.shown_mode(entry_type, info.mode);
        metadata.modified = info.modified;
        metadata.changed = info.modified;
        metadata.size = if entry_type.is_directory() { 0 } else { info.size };
        metadata.link_target.clone_from(&info.link_target);
        if entry_type == EntryType::Reg {
            metadata.content_id = Some(info.tag.clone());
            metadata.version = info.version();
            metadata.generation = metadata.version;
            metadata.mime_type = mime_guess::from_path(metadata.path.as_str()).first_raw().map(Arc::from);
        }
        metadata
    }

    fn node(&self, path: &VPath, info: &ObjectInfo) -> Node {
        Node { metadata: Arc::new(self.metadata(path.clone(), info)), placement: Placement::Store }
    }

    pub(crate) async fn find(&self, site: &Site) -> Result<Option<Node>, StoreError> {
        let driver = self.driver().await;
        match driver.store()?.stat(site.relative()).await {
            Ok(info) => Ok(Some(self.node(&site.path, &info))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn list(
        &self,
        site: &Site,
        _: &Node,
        after: Option<&str>,
        limit: usize,
        metadata: bool,
    ) -> Result<Children, StoreError> {
        let driver = self.driver().await;
        let page = driver.store()?.list(site.relative(), after, limit).await?;
        let child = |(name, info): (String, ObjectInfo)| {
            let described = site.path.join(&name).ok().map(|path| Arc::new(self.metadata(path, &info)));
            let file_id = described.as_ref().map_or(FileId(info.inode), |described| described.file_id);
            let metadata = described.filter(|_| metadata);
            Child { name, entry_type: info.entry_type, file_id, metadata }
        };
        let hidden = page.unnameable as u64;
        Ok(Children { page: page.entries.into_iter().map(child).collect(), more: page.more, hidden })
    }

    pub(crate) async fn read(
        &self,
        site: &Site,
        node: &Node,
        extent: &Extent,
    ) -> Result<(Runs, Arc<FileMetadata>), StoreError> {
        let driver = self.driver().await;
        let store = driver.store()?;
        let Some((first, more)) = content::ranges(extent).split_first() else {
            let info = store.stat(site.relative()).await?;
            return Ok(((Bytes::new(), Vec::new()), self.node(&site.path, &info).metadata));
        };
        // The path's lock is held: nothing in the kernel changes the file between the runs, and others may.
        for _ in 0..READS_MAX {
            let (data, info) = read_as_known(store, site, *first, node.metadata.size).await?;
            let mut runs = Vec::with_capacity(more.len());
            for range in more {
                let (run, then) = store.read(site.relative(), *range).await?;
                if then.tag != info.tag {
                    break;
                }
                runs.push(run);
            }
            if runs.len() == more.len() {
                return Ok(((data, runs), self.node(&site.path, &info).metadata));
            }
        }
        Err(StoreError::Locked { what: site.relative().into() })
    }

    /// A part of the file at `site`, and what it is, without a look at it first.
    pub(crate) async fn read_file(
        &self,
        site: &Site,
        range: ByteRange,
    ) -> Result<(Bytes, Arc<FileMetadata>), StoreError> {
        let driver = self.driver().await;
        let (data, info) = driver.store()?.read(site.relative(), range).await?;
        Ok((data, self.node(&site.path, &info).metadata))
    }

    pub(crate) async fn write(&self, site: &Site, intent: &Intent, call: &SysWrite) -> Result<Written, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &site.path, &error));
        let driver = self.driver().await;
        let store = driver.store().map_err(failed)?;
        let found = self.here(store, site, intent).await?;
        // Whatever is there is in the way of a new file.
        if let Some(node) = found.as_ref().filter(|_| call.create != Create::Exclusive) {
            must_be_file(intent, &site.path, node.metadata.entry_type)?;
        }
        expect(intent, &site.path, found.as_ref(), call.create, &call.precondition)?;
        if found.is_none() {
            no_mount_below(self.kernel, site, intent)?;
        }
        check_attributes(intent, &site.path, &Arc::from(""), &call.attributes)?;
        if found.is_none() {
            self.make_parent_as_said(store, site).await.map_err(failed)?;
        }
        let capabilities = store.capabilities();
        let relative = site.relative();
        // Whatever is there is replaced or grows, also what came since it was looked for.
        let takes_anything = call.precondition == Precondition::None && call.create != Create::Exclusive;

        let staged = intent.staged.as_ref();
        let mut old_size = found.as_ref().map(|node| node.metadata.size);
        let (info, written, places) = match &call.place {
            Where::Whole if let Some(staged) = staged => {
                let attributes = self.kept_mode(&call.attributes, found.as_ref());
                let expected = (found.as_ref(), &call.precondition);
                match self.put(store, site, intent, staged, &attributes, expected).await? {
                    Ok(info) => (info, staged.size(), 1),
                    Err(error) => return Err(self.refused(store, site, intent, call, error).await),
                }
            }
            Where::Whole => {
                let how = how(found.as_ref(), &call.precondition, capabilities.if_match);
                let attributes = self.kept_mode(&call.attributes, found.as_ref());
                match store.write(relative, &call.data, how, &attributes).await {
                    Ok(info) => (info, content::length(&call.data), 1),
                    // It came since it was looked for.
                    Err(StoreError::Exists { .. }) if takes_anything => return Err(Stop::Again),
                    Err(error) => return Err(self.refused(store, site, intent, call, error).await),
                }
            }
            place @ (Where::At(_) | Where::End) if capabilities.write_at => {
                let size = old_size.unwrap_or(0);
                let offset = if let Where::At(offset) = place { *offset } else { size };
                let end = offset.saturating_add(content::length(&call.data));
                if end > content::CONTENT_MAX {
                    return Err(intent.fail(&site.path, ErrorKind::TooLarge));
                }
                let truncate = call.truncate && !matches!(place, Where::End);
                let how = match place {
                    Where::End => PathWrite::Append,
                    _ => PathWrite::At { offset, truncate },
                };
                let attributes = match &found {
                    Some(_) => call.attributes.clone(),
                    None => self.made_with(&call.attributes, EntryType::Reg),
                };
                let is_append = how == PathWrite::Append;
                let info = match store.write(relative, &call.data, how, &attributes).await {
                    // Another store serves the mount by now, and what is there is to be looked at.
                    Err(StoreError::Changed { .. }) => return Err(Stop::Again),
                    written => written.map_err(failed)?,
                };
                let written = content::length(&call.data);
                if is_append && old_size.is_some() {
                    // Others may have appended since it was looked at.
                    old_size = Some(info.size.saturating_sub(written));
                }
                (info, written, 1)
            }
            place => {
                let attributes = self.kept_mode(&call.attributes, found.as_ref());
                let rewriting =
                    Rewriting { store, site, intent, call, attributes: &attributes, takes_anything };
                let size = old_size.unwrap_or(0);
                if let Some(done) = rewriting.run(size).await? {
                    return self.wrote(site, intent, old_size, done).await;
                }
                let (old, how) = match &found {
                    Some(node) => {
                        let (old, info) = to_be_changed(store, site, intent, node.metadata.size).await?;
                        // What others write meanwhile is not to be replaced by what does not have it.
                        let is_decided = capabilities.if_match;
                        (old, if is_decided { PathWrite::IfMatch(info.tag) } else { PathWrite::Whole })
                    }
                    None => (Bytes::new(), PathWrite::Exclusive),
                };
                let spliced = content::splice(&old, &call.data, place, call.truncate)
                    .map_err(|(kind, why)| Error::new(intent.op, &site.path, kind).because(why))?;
                drop(old);
                let info = match store.write(relative, &spliced.content, how, &attributes).await {
                    Ok(info) => info,
                    // Somebody was quicker: once more, with what they wrote.
                    Err(StoreError::Exists { .. } | StoreError::Changed { .. }) if takes_anything => {
                        return Err(Stop::Again);
                    }
                    Err(error) => return Err(self.refused(store, site, intent, call, error).await),
                };
                (info, spliced.written, spliced.places)
            }
        };
        self.wrote(site, intent, old_size, Rewritten { info, written, places }).await
    }

    /// What is told of a write that is done.
    async fn wrote(
        &self,
        site: &Site,
        intent: &Intent,
        old_size: Option<u64>,
        done: Rewritten,
    ) -> Result<Written, Stop> {
        let metadata = self.node(&site.path, &done.info).metadata;
        let told = intent.told(EventKind::FileWritten, &metadata, old_size.is_none());
        let receipt = self.log(site, None, intent, told).await?;
        let mut written = Written::new(done.written, old_size, metadata, receipt);
        written.places = done.places;
        Ok(written)
    }

    pub(crate) async fn set(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysSetattr,
    ) -> Result<SetattrDone, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &site.path, &error));
        let driver = self.driver().await;
        let store = driver.store().map_err(failed)?;
        let found = self.here(store, site, intent).await?;
        expect(intent, &site.path, found.as_ref(), call.create, &call.precondition)?;
        check_attributes(intent, &site.path, &Arc::from(""), &call.attributes)?;
        if call.attributes.owner.is_some() || call.attributes.mime_type.is_some() {
            let error = Error::new(intent.op, &site.path, ErrorKind::NotSupported);
            return Err(error.because("a plain file has neither owner nor media type").into());
        }
        let relative = site.relative();
        if let Some(node) = found {
            self.same_kind(intent, site, &node, call)?;
            let changed = changes(&node.metadata, &call.attributes);
            if changed.is_empty() {
                return Ok(SetattrDone::new(
                    false,
                    changed,
                    node.metadata,
                    self.unchanged(site, intent).await?,
                ));
            }
            self.require(intent, site, store, "attributes", |can| can.attributes)?;
            let info = store.set_attributes(relative, &call.attributes).await.map_err(failed)?;
            let metadata = self.node(&site.path, &info).metadata;
            let told = intent.told(kind_of_set(false, &metadata), &metadata, false);
            let receipt = self.log(site, None, intent, told).await?;
            return Ok(SetattrDone::new(false, changed, metadata, receipt));
        }
        if call.parents == nexus_messages::syscall::Parents::Required {
            self.require_parent(store, site, intent).await?;
        }
        let entry_type = call.entry_type.unwrap_or(EntryType::Reg);
        if entry_type != EntryType::Dir {
            no_mount_below(self.kernel, site, intent)?;
        }
        self.make_parent_as_said(store, site).await.map_err(failed)?;
        let made = match entry_type {
            EntryType::Dir => {
                self.require(intent, site, store, "directories", |can| can.directories)?;
                store.make_directory(relative, &self.made_with(&call.attributes, entry_type)).await
            }
            EntryType::Link => {
                self.require(intent, site, store, "links", |can| can.links)?;
                store.make_link(relative, call.link_target.as_deref().unwrap_or_default()).await
            }
            EntryType::Reg => {
                let attributes = self.made_with(&call.attributes, entry_type);
                store.write(relative, &[], PathWrite::Exclusive, &attributes).await
            }
            _ => return Err(intent.fail(&site.path, ErrorKind::NotSupported)),
        };
        let info = made.map_err(|error| match error {
            // It came into being since it was looked for, implied by something below it.
            StoreError::Exists { .. } if call.create == Create::IfMissing => Stop::Again,
            error => failed(error),
        })?;
        let metadata = self.node(&site.path, &info).metadata;
        let told = intent.told(kind_of_set(true, &metadata), &metadata, true);
        let receipt = self.log(site, None, intent, told).await?;
        Ok(SetattrDone::new(true, Vec::new(), metadata, receipt))
    }

    pub(crate) async fn rename(
        &self,
        from: &Site,
        to: &Site,
        intent: &Intent,
        call: &SysRename,
        subtrees: bool,
    ) -> Result<Renamed, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &from.path, &error));
        let driver = self.driver().await;
        let store = driver.store().map_err(failed)?;
        let Some(source) = self.here(store, from, intent).await? else {
            return Err(intent.fail(&from.path, ErrorKind::NotFound));
        };
        expect(intent, &from.path, Some(&source), Create::Never, &call.precondition)?;
        if source.metadata.is_directory() && !subtrees {
            return Err(Stop::Again);
        }
        if from.path == to.path {
            return Ok(Renamed::new(false, source.metadata, self.unchanged(from, intent).await?));
        }
        let target = self.here(store, to, intent).await?;
        if let Some(target) = &target {
            let kind = match (source.metadata.is_directory(), target.metadata.is_directory()) {
                _ if !call.replace || to.is_root() => Some(ErrorKind::AlreadyExists),
                (true, false) => Some(ErrorKind::NotADirectory),
                (false, true) => Some(ErrorKind::IsADirectory),
                _ => None,
            };
            if let Some(kind) = kind {
                return Err(intent.fail(&to.path, kind));
            }
        }
        self.require(intent, from, store, "rename", |can| can.rename)?;
        self.make_parent(store, to).await.map_err(failed)?;
        let moved = store.rename(from.relative(), to.relative()).await;
        let info = moved.map_err(|error| match error {
            StoreError::NotEmpty { .. } => intent.fail(&to.path, ErrorKind::NotEmpty),
            error => failed(error),
        })?;
        let metadata = self.node(&to.path, &info).metadata;
        let told = intent.told(EventKind::Renamed, &metadata, false);
        let receipt = self.log(from, Some(&to.path), intent, told).await?;
        Ok(Renamed::new(target.is_some(), metadata, receipt))
    }

    pub(crate) async fn unlink(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysUnlink,
    ) -> Result<Unlinked, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &site.path, &error));
        let driver = self.driver().await;
        let store = driver.store().map_err(failed)?;
        let Some(node) = self.here(store, site, intent).await? else {
            return Err(intent.fail(&site.path, ErrorKind::NotFound));
        };
        expect(intent, &site.path, Some(&node), Create::Never, &call.precondition)?;
        let entry_type = node.metadata.entry_type;
        taken_for(intent, &site.path, entry_type, call.expect)?;
        let mut removed = 0;
        if call.recursive && entry_type == EntryType::Dir {
            let below = remove_below(store, site.relative(), &mut removed).await;
            below.map_err(|error| part_of(removed, failed(error)))?;
        }
        let deleted = store.delete(site.relative()).await;
        let deleted = if removed > 0 { gone_with_its_children(store, deleted) } else { deleted };
        deleted.map_err(|error| part_of(removed, failed(error)))?;
        let told = intent.told(kind_of_removal(entry_type), &node.metadata, false);
        let receipt = self.log(site, None, intent, told).await?;
        Ok(Unlinked::new(entry_type, removed + 1, receipt))
    }

    pub(crate) async fn copy(
        &self,
        from: &Site,
        source: &Node,
        to: &Site,
        intent: &Intent,
        call: &SysCopy,
    ) -> Result<Copied, Stop> {
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &to.path, &error));
        let driver = self.driver().await;
        let store = driver.store().map_err(failed)?;
        let found = self.here(store, to, intent).await?;
        // Where nothing may be replaced, whatever is there is in the way.
        if let Some(node) = found.as_ref().filter(|_| call.replace) {
            must_be_file(intent, &to.path, node.metadata.entry_type)?;
        }
        let create = if call.replace { Create::IfMissing } else { Create::Exclusive };
        expect(intent, &to.path, found.as_ref(), create, &call.precondition)?;
        if found.is_none() {
            no_mount_below(self.kernel, to, intent)?;
        }
        let within = Arc::ptr_eq(&from.mount, self.mount) && source.metadata.entry_type == EntryType::Reg;
        let copied = match (within && store.capabilities().copy, found.is_none()) {
            (false, _) => Err(StoreError::NotSupported { what: "copying within the store" }),
            (true, true) => store.copy_new(from.relative(), to.relative()).await,
            (true, false) => store.copy(from.relative(), to.relative()).await,
        };
        let info = if !matches!(copied, Err(StoreError::NotSupported { .. })) {
            copied.map_err(failed)?
        } else {
            let mut content = Source::open(self.kernel, intent.op, from, source, ByteRange::ALL).await?;
            let mut intake = Intake::begin(self.kernel, intent.op, to).await?;
            while let Some(piece) = content.next().await? {
                intake.take(piece).await?;
            }
            let staged = intake.finish(intent).await?;
            let attributes = Attributes::none().mode(EntryType::Reg.copied_mode(source.metadata.mode));
            let expected = (found.as_ref(), &call.precondition);
            self.put(store, to, intent, &staged, &attributes, expected).await?.map_err(failed)?
        };
        let metadata = self.node(&to.path, &info).metadata;
        let told = intent.told(EventKind::FileCopied, &metadata, found.is_none());
        let receipt = self.log(from, Some(&to.path), intent, told).await?;
        Ok(Copied::new(found.is_none(), metadata, receipt))
    }

    /// Makes staged content that of the file at `site`, where `found` is that is `expected`.
    async fn put(
        &self,
        store: &dyn PathStore,
        site: &Site,
        intent: &Intent,
        staged: &Staged,
        attributes: &Attributes,
        (found, expected): (Option<&Node>, &Precondition),
    ) -> Result<Result<ObjectInfo, StoreError>, Stop> {
        let can = store.capabilities();
        Ok(match staged.plain(self.mount, intent, site)? {
            ForPlain::Held(data) => {
                store.write(site.relative(), data, how(found, expected, can.if_match), attributes).await
            }
            ForPlain::Upload(upload) => {
                let how = how(found, expected, can.conditional_upload);
                upload.finish(site.relative(), how, attributes).await
            }
        })
    }

    /// The failure of a write. Of one that met another state than it was to replace, with that state.
    async fn refused(
        &self,
        store: &dyn PathStore,
        site: &Site,
        intent: &Intent,
        call: &SysWrite,
        error: StoreError,
    ) -> Stop {
        if let StoreError::Changed { .. } = &error {
            let now = self.here(store, site, intent).await;
            let met =
                now.and_then(|now| expect(intent, &site.path, now.as_ref(), call.create, &call.precondition));
            if let Err(stop) = met {
                return stop;
            }
        }
        store_error(intent.op, &site.path, &error).into()
    }

    /// What is at `site` now. `Again` when it is no longer resolved.
    async fn here(&self, store: &dyn PathStore, site: &Site, intent: &Intent) -> Result<Option<Node>, Stop> {
        match store.stat(site.relative()).await {
            Ok(info) => Ok(Some(self.node(&site.path, &info))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            // When it was resolved, all on the way were directories: one has become a link, or a file.
            Err(StoreError::NotADirectory { .. }) => Err(Stop::Again),
            Err(error) => Err(store_error(intent.op, &site.path, &error).into()),
        }
    }

    async fn require_parent(&self, store: &dyn PathStore, site: &Site, intent: &Intent) -> Result<(), Stop> {
        let relative = site.relative();
        let parent = relative.rsplit_once('/').map_or("", |(parent, _)| parent);
        match store.stat(parent).await {
            Ok(_) => Ok(()),
            Err(error) => Err(store_error(intent.op, &site.path, &error).into()),
        }
    }

    /// Makes the parent that a new name needs: to callers, parents exist by implication.
    async fn make_parent(&self, store: &dyn PathStore, site: &Site) -> Result<(), StoreError> {
        let Some((parent, _)) = site.relative().rsplit_once('/') else { return Ok(()) };
        // With a mode of the mount's own, each of them; else the driver makes those above.
        let each = self.mount.given_mode(EntryType::Dir).is_some();
        let mut missing = Vec::new();
        let mut above = Some(parent);
        while let Some(directory) = above {
            match store.stat(directory).await {
                Err(StoreError::NotFound { .. }) if store.capabilities().directories => {}
                // What else is wrong with it, the operation itself says.
                _ => break,
            }
            missing.push(directory);
            above = directory.rsplit_once('/').map(|(above, _)| above).filter(|_| each);
        }
        let attributes = self.made_with(&Attributes::none(), EntryType::Dir);
        for directory in missing.into_iter().rev() {
            match store.make_directory(directory, &attributes).await {
                Ok(_) | Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As [`make_parent`](Self::make_parent), for what makes its parents itself: with a mode of the mount's own they are made before it.
    async fn make_parent_as_said(&self, store: &dyn PathStore, site: &Site) -> Result<(), StoreError> {
        match self.mount.given_mode(EntryType::Dir) {
            Some(_) => self.make_parent(store, site).await,
            None => Ok(()),
        }
    }

    fn require(
        &self,
        intent: &Intent,
        site: &Site,
        store: &dyn PathStore,
        what: &str,
        has: impl Fn(PathCapabilities) -> bool,
    ) -> Result<(), Stop> {
        if has(store.capabilities()) {
            return Ok(());
        }
        let error = Error::new(intent.op, &site.path, ErrorKind::NotSupported);
        Err(error.because(format!("the driver {} has no {what}", self.mount.spec().driver)).into())
    }

    fn same_kind(&self, intent: &Intent, site: &Site, node: &Node, call: &SysSetattr) -> Result<(), Stop> {
        let there = node.metadata.entry_type;
        let same = match call.entry_type {
            None => true,
            Some(EntryType::Dir) => there.is_directory(),
            Some(EntryType::Link) => {
                there == EntryType::Link && call.link_target == node.metadata.link_target
            }
            Some(wanted) => wanted == there,
        };
        if same {
            return Ok(());
        }
        let error = Error::new(intent.op, &site.path, ErrorKind::AlreadyExists);
        Err(error.because(format!("it is a {there}")).into())
    }

    /// Puts a mutation that the backend has carried out into the log.
    async fn log(
        &self,
        site: &Site,
        other: Option<&VPath>,
        intent: &Intent,
        told: Arc<Told>,
    ) -> Result<Receipt, Stop> {
        let mut entry = intent.entry(self.mount.tree, &site.path, other);
        entry.told = Some(told);
        let durability = intent.durability(self.mount);
        match super::commit(self.kernel, intent, durability, entry, Box::new(|_| ())).await {
            Ok((lsn, _)) => Ok(intent.receipt(self.mount, lsn)),
            Err(error) => match commit_error(intent.op, &site.path, &error) {
                // The backend did it, whatever the log says.
                Stop::Failed(error) => Err(Stop::Failed(error.outcome_unknown())),
                again => Err(again),
            },
        }
    }

    async fn unchanged(&self, site: &Site, intent: &Intent) -> Result<Receipt, Stop> {
        intent.unchanged(self.kernel.store(), self.mount, &site.path).await
    }

    /// A file that is replaced keeps its mode, and one that is made has the mount's, unless another is asked for.
    fn kept_mode(&self, wanted: &Attributes, found: Option<&Node>) -> Attributes {
        match found {
            Some(node) => {
                let mut attributes = wanted.clone();
                attributes.mode = wanted.mode.or(Some(EntryType::Reg.copied_mode(node.metadata.mode)));
                attributes
            }
            None => self.made_with(wanted, EntryType::Reg),
        }
    }

    /// What an entry is made with: the mode that the mount gives such, if it does, unless another is asked for.
    fn made_with(&self, wanted: &Attributes, entry_type: EntryType) -> Attributes {
        let mut attributes = wanted.clone();
        attributes.mode = wanted.mode.or_else(|| self.mount.given_mode(entry_type));
        attributes
    }
}

/// How content becomes that of what was `found`, which was as `expected`. Where the backend decides whether that is so, it is asked to.
fn how(found: Option<&Node>, expected: &Precondition, is_decided: bool) -> PathWrite {
    let Some(found) = found else { return PathWrite::Exclusive };
    match (&found.metadata.content_id, expected) {
        (_, Precondition::None | Precondition::Absent) => PathWrite::Whole,
        (Some(tag), _) if is_decided => PathWrite::IfMatch(tag.clone()),
        _ => PathWrite::Whole,
    }
}

fn changes(metadata: &FileMetadata, wanted: &Attributes) -> Vec<Attribute> {
    let mut changed = Vec::new();
    if wanted.mode.is_some_and(|mode| mode != metadata.mode) {
        changed.push(Attribute::Mode);
    }
    if wanted.modified.is_some_and(|modified| modified != metadata.modified) {
        changed.push(Attribute::Modified);
    }
    changed
}

/// Whether what was found is what the caller expects, and may be made when it is missing.
fn expect(
    intent: &Intent,
    path: &VPath,
    found: Option<&Node>,
    create: Create,
    expected: &Precondition,
) -> Result<(), Stop> {
    let found = found.map(|node| State {
        file_id: node.metadata.file_id,
        version: node.metadata.version,
        generation: node.metadata.generation,
        content_id: node.metadata.content_id.as_ref(),
    });
    super::expect(intent, path, found, create, expected)
}
