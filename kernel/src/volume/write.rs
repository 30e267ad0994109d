//! Writing, making, describing and copying entries of a content-addressed mount.

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::{
    Attribute, Copied, Create, Place as Where, SetattrDone, SysCopy, SysSetattr, SysWrite, Written,
};
use nexus_messages::{
    Attributes, ContentId, EntryType, Error, ErrorKind, EventKind, FileId, FileMetadata, VPath,
};

use super::large::Old;
use super::rows::{End, Place, RowVolume, expect};
use super::{Intake, Intent, Site, Source, Stop, blob_error, no_mount_below, store_error};
use crate::content::{self, INLINE_MAX, Plan, Segment, Shape, WHOLE_MAX, Writer};
use crate::garbage::Hold;
use crate::hal::{Addressing, ObjectStore, StoreError};
use crate::namespace::{Draft, InodeRow, Node, Placement};

/// Content that is safe in its place, or goes there with the commit.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) id: ContentId,
    pub(super) size: u64,
    pub(super) placement: Placement,
    /// The content itself, for what is kept in the metastore and in the cache.
    pub(super) whole: Option<Bytes>,
    /// Keeps it from being collected until a row names it.
    pub(super) hold: Hold,
}

/// The content that a write makes, and how it came about.
struct Renewed {
    kept: Kept,
    written: u64,
    places: u64,
}

impl RowVolume<'_> {
    pub(crate) async fn write(&self, site: &Site, intent: &Intent, call: &SysWrite) -> Result<Written, Stop> {
        let rows = self.rows().map_err(|error| store_error(intent.op, &site.path, &error))?;
        let Place { end, .. } = self.place(&rows, site, intent)?;
        let mut draft = self.draft(intent);
        match end {
            End::Entry { step, row } => {
                // A message for a pipe, or a record for a stream, which was not known to be one: without the lock.
                let may_be_message = intent.staged.is_none() && self.within.is_none();
                if matches!(row.entry_type, EntryType::Pipe | EntryType::Stream) && may_be_message {
                    return Err(Stop::Again);
                }
                // Whatever is there is in the way of a new file.
                if call.create != Create::Exclusive {
                    must_be_file(intent, &site.path, row.entry_type)?;
                }
                let id = step.map_or(self.mount.root, |step| step.dentry.id);
                expect(intent, &site.path, Some((id, &row)), call.create, &call.precondition)?;
                drop(rows);
                let Renewed { kept, written, places } = self.renewed(site, intent, call, Some(&row)).await?;
                let mut new = row.clone();
                hold(&mut new, &kept, intent);
                describe(intent, &site.path, &mut new, &call.attributes)?;
                draft.frees(&site.path, &row);
                draft.takes(&site.path, &new);
                draft.update(id, &row, &new);
                let metadata = self.include(&mut draft, kept, &site.path, id, &new);
                let told = intent.told(EventKind::FileWritten, &metadata, false);
                let receipt = self.commit(site, None, intent, draft, told).await?;
                let mut done = Written::new(written, Some(row.size), metadata, receipt);
                done.places = places;
                Ok(done)
            }
            End::Nothing { parent, rest } => {
                expect(intent, &site.path, None, call.create, &call.precondition)?;
                no_mount_below(self.kernel, site, intent)?;
                drop(rows);
                let Renewed { kept, written, .. } = self.renewed(site, intent, call, None).await?;
                let mut row = InodeRow::new(EntryType::Reg, intent.caller.agent.clone(), intent.at);
                row.mode = self.mount.first_mode(EntryType::Reg);
                hold(&mut row, &kept, intent);
                row.mime_type = guess_mime(&site.path);
                describe(intent, &site.path, &mut row, &call.attributes)?;
                let id = self.add(&mut draft, site, intent, parent, &rest, Default::default(), &row)?;
                draft.takes(&site.path, &row);
                let metadata = self.include(&mut draft, kept, &site.path, id, &row);
                let told = intent.told(EventKind::FileWritten, &metadata, true);
                let receipt = self.commit(site, None, intent, draft, told).await?;
                Ok(Written::new(written, None, metadata, receipt))
            }
        }
    }

    /// The content that the write makes, kept where it belongs. What only large content needs has a box of its own: the future of each write has room for
    /// all that is not.
    async fn renewed(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysWrite,
        row: Option<&InodeRow>,
    ) -> Result<Renewed, Stop> {
        if let Some(staged) = &intent.staged {
            let kept = staged.kept(self.mount, intent, site)?;
            return Ok(Renewed { written: kept.size, kept, places: 1 });
        }
        let size = content::length(&call.data);
        if call.place == Where::Whole && size <= WHOLE_MAX && !call.data.iter().any(Bytes::is_empty) {
            let kept = self.keep(site, intent, &call.data).await?;
            return Ok(Renewed { kept, written: size, places: 1 });
        }
        let failed = |error: StoreError| Stop::from(store_error(intent.op, &site.path, &error));
        let refused = |(kind, why): content::Refusal| Error::new(intent.op, &site.path, kind).because(why);
        let old = match row {
            Some(row) if call.place != Where::Whole => Box::pin(self.old(row)).await.map_err(failed)?,
            _ => Old::Whole(Bytes::new()),
        };
        let plan = match (&old, &call.place) {
            (Old::Whole(old), place) => {
                content::plan(Some(old), old.len() as u64, &call.data, place, call.truncate)
                    .map_err(refused)?
            }
            (Old::Chunked(cursor), Where::Instead { of, all }) => {
                let search = async {
                    let mut search = content::Search::new(of, *all).map_err(refused)?;
                    let mut pieces = cursor.clone().pieces(0..cursor.total());
                    while let Some(piece) = pieces.next().await.map_err(failed)? {
                        search.look(&piece).map_err(refused)?;
                    }
                    Ok::<_, Stop>(search.plan(cursor.total(), &call.data).map_err(refused)?)
                };
                Box::pin(search).await?
            }
            (Old::Chunked(cursor), place) => {
                content::plan(None, cursor.total(), &call.data, place, call.truncate).map_err(refused)?
            }
        };
        let (written, places) = (plan.written, plan.places);
        let kept = if plan.size > WHOLE_MAX {
            Box::pin(self.assemble(site, intent, old, plan)).await?
        } else {
            let mut data = Vec::with_capacity(plan.parts.len());
            for part in plan.parts {
                data.push(match (part, &old) {
                    (Segment::Old(from, to), Old::Whole(old)) => {
                        old.slice(content::index(from)..content::index(to))
                    }
                    (Segment::Old(from, to), Old::Chunked(cursor)) => {
                        Box::pin(cursor.read(from..to)).await.map_err(failed)?
                    }
                    (Segment::New(new), _) => new,
                    (Segment::Zeros(count), _) => Bytes::from(vec![0; content::index(count)]),
                });
            }
            self.keep(site, intent, &data).await?
        };
        Ok(Renewed { kept, written, places })
    }

    /// Puts content where it belongs. What is to be in the metastore is not yet durable.
    pub(super) async fn keep(&self, site: &Site, intent: &Intent, data: &[Bytes]) -> Result<Kept, Stop> {
        let failed = |error: &StoreError| Stop::from(blob_error(intent.op, &site.path, error));
        let size = content::length(data);
        if size > WHOLE_MAX {
            let parts = data.iter().cloned().map(Segment::New).collect();
            let plan = Plan { parts, size, written: size, places: 1 };
            return Box::pin(self.assemble(site, intent, Old::Whole(Bytes::new()), plan)).await;
        }
        let id = self.kernel.address(data).await.map_err(|error| failed(&error))?;
        let hold = self.hold();
        if let Some(hash) = id.blake3().filter(|_| size > 0) {
            hold.content(hash).await;
        }
        if size <= INLINE_MAX {
            let placement = if size == 0 { Placement::None } else { Placement::Inline };
            return Ok(Kept { id, size, placement, whole: Some(content::own(data)), hold });
        }
        let driver = self.mount.lease().await;
        match driver.addressing() {
            Addressing::Content(store) => store.write(&id, data).await.map_err(|error| failed(&error))?,
            Addressing::Path(_) => return Err(intent.fail(&site.path, ErrorKind::NotSupported)),
        }
        let whole = self.kernel.caches().content.takes(size).then(|| content::own(data));
        Ok(Kept { id, size, placement: Placement::Store, whole, hold })
    }

    /// Stores large content: what is new of it, and the lists that tell all of it.
    async fn assemble(&self, site: &Site, intent: &Intent, mut old: Old, plan: Plan) -> Result<Kept, Stop> {
        let failed = |error: StoreError| Stop::from(blob_error(intent.op, &site.path, &error));
        let keep = self.kernel.caches().content.takes(plan.size);
        let hold = self.hold();
        let mut writer = Writer::new(self.blobs(keep, &hold), Shape::TODAY);
        let last = plan.parts.len().saturating_sub(1);
        for (n, part) in plan.parts.into_iter().enumerate() {
            let taken = match (part, &mut old) {
                (Segment::New(data), _) => writer.feed(&data).await,
                (Segment::Zeros(count), _) => writer.zeros(count).await,
                (Segment::Old(from, to), Old::Chunked(cursor)) => {
                    writer.copy(cursor, from..to, n == last).await
                }
                (Segment::Old(from, to), Old::Whole(old)) => {
                    writer.feed(&old.slice(content::index(from)..content::index(to))).await
                }
            };
            taken.map_err(failed)?;
        }
        let root = writer.finish().await.map_err(failed)?;
        Ok(Kept::chunked(root, hold))
    }

    /// Completes the draft with the content and with what becomes visible.
    fn include(
        &self,
        draft: &mut Draft,
        kept: Kept,
        path: &VPath,
        id: FileId,
        row: &InodeRow,
    ) -> Arc<FileMetadata> {
        draft.holds.push(kept.hold);
        if let Some(whole) = kept.whole {
            // Filed before the commit: nobody can ask for content that no row names yet.
            self.kernel.caches().content.keep(&kept.id, &whole);
            if kept.placement == Placement::Inline {
                draft.inline(&kept.id, whole);
            }
        }
        draft.show(path, id, row)
    }

    /// Adds the new entry at `site`, and the parents that it lacks.
    #[expect(clippy::too_many_arguments, reason = "a place in the tree has these parts")]
    fn add(
        &self,
        draft: &mut Draft,
        site: &Site,
        intent: &Intent,
        parent: FileId,
        rest: &[&str],
        parents: nexus_messages::syscall::Parents,
        row: &InodeRow,
    ) -> Result<FileId, Stop> {
        let Some((name, missing)) = rest.split_last() else {
            return Err(intent.fail(&site.path, ErrorKind::AlreadyExists));
        };
        let new_id = || self.kernel.store().new_file_id();
        let parent = draft
            .parents(&site.path, parent, missing, parents, &intent.caller.agent, new_id)
            .map_err(|kind| intent.fail(&site.path, kind))?;
        let id = new_id();
        draft.insert(parent, name, id, row);
        Ok(id)
    }

    pub(crate) async fn set(
        &self,
        site: &Site,
        intent: &Intent,
        call: &SysSetattr,
    ) -> Result<SetattrDone, Stop> {
        let rows = self.rows().map_err(|error| store_error(intent.op, &site.path, &error))?;
        let Place { end, .. } = self.place(&rows, site, intent)?;
        let mut draft = self.draft(intent);
        match end {
            // A link that came here since the path was resolved: what it leads to is meant.
            End::Entry { row, .. } if row.entry_type == EntryType::Link && call.entry_type.is_none() => {
                Err(Stop::Again)
            }
            End::Entry { step, row } => {
                let id = step.map_or(self.mount.root, |step| step.dentry.id);
                expect(intent, &site.path, Some((id, &row)), call.create, &call.precondition)?;
                same_kind(intent, &site.path, &row, call)?;
                drop(rows);
                let mut new = row.clone();
                let changed = describe(intent, &site.path, &mut new, &call.attributes)?;
                // A directory that existed by implication is now made.
                let made = row.implicit && call.entry_type == Some(EntryType::Dir);
                new.implicit = row.implicit && !made && changed.is_empty();
                if new == row {
                    let metadata = Arc::new(row.metadata(site.path.clone(), self.mount.zone.clone(), id));
                    return Ok(SetattrDone::new(
                        false,
                        changed,
                        metadata,
                        self.unchanged(site, intent).await?,
                    ));
                }
                new.changed = intent.at;
                draft.frees(&site.path, &row);
                draft.takes(&site.path, &new);
                draft.update(id, &row, &new);
                let metadata = draft.show(&site.path, id, &new);
                let told = intent.told(kind_of_set(made, &metadata), &metadata, made);
                let receipt = self.commit(site, None, intent, draft, told).await?;
                Ok(SetattrDone::new(made, changed, metadata, receipt))
            }
            End::Nothing { parent, rest } => {
                expect(intent, &site.path, None, call.create, &call.precondition)?;
                drop(rows);
                let entry_type = call.entry_type.unwrap_or(EntryType::Reg);
                if entry_type != EntryType::Dir {
                    no_mount_below(self.kernel, site, intent)?;
                }
                let mut row = InodeRow::new(entry_type, intent.caller.agent.clone(), intent.at);
                row.mode = self.mount.first_mode(entry_type);
                row.link_target.clone_from(&call.link_target);
                row.size = match (entry_type, &call.link_target) {
                    (EntryType::Pipe, _) => u64::from(call.pipe.unwrap_or_default().capacity),
                    (EntryType::Stream, _) => call.stream.and_then(|spec| spec.bytes_max).unwrap_or(0),
                    (_, Some(target)) => target.len() as u64,
                    (_, None) => 0,
                };
                if entry_type == EntryType::Pipe {
                    let placed = self.kernel.place_pipe(call.pipe.unwrap_or_default());
                    row.placement = placed.map_err(|why| {
                        Error::new(intent.op, &site.path, ErrorKind::NotSupported).because(why)
                    })?;
                }
                if entry_type == EntryType::Stream {
                    let spec = call.stream.unwrap_or_default();
                    let placed = self.kernel.place_stream(self.mount, spec);
                    row.placement = placed.map_err(|why| {
                        Error::new(intent.op, &site.path, ErrorKind::NotSupported).because(why)
                    })?;
                }
                if entry_type == EntryType::Reg {
                    row.mime_type = guess_mime(&site.path);
                }
                describe(intent, &site.path, &mut row, &call.attributes)?;
                let id = self.add(&mut draft, site, intent, parent, &rest, call.parents, &row)?;
                draft.takes(&site.path, &row);
                let metadata = draft.show(&site.path, id, &row);
                let told = intent.told(kind_of_set(true, &metadata), &metadata, true);
                let receipt = self.commit(site, None, intent, draft, told).await?;
                Ok(SetattrDone::new(true, Vec::new(), metadata, receipt))
            }
        }
    }

    pub(crate) async fn copy(
        &self,
        from: &Site,
        source: &Node,
        to: &Site,
        intent: &Intent,
        call: &SysCopy,
    ) -> Result<Copied, Stop> {
        let kept = self.kept_of(from, source, to, intent).await?;
        let create = if call.replace { Create::IfMissing } else { Create::Exclusive };
        let rows = self.rows().map_err(|error| store_error(intent.op, &to.path, &error))?;
        let Place { end, .. } = self.place(&rows, to, intent)?;
        let mut draft = self.draft(intent);
        let found = match &end {
            End::Entry { step, row } => {
                Some((step.as_ref().map_or(self.mount.root, |step| step.dentry.id), row))
            }
            End::Nothing { .. } => None,
        };
        expect(intent, &to.path, found, create, &call.precondition)?;
        let (id, row, created) = match end {
            End::Entry { step, row } => {
                must_be_file(intent, &to.path, row.entry_type)?;
                let id = step.map_or(self.mount.root, |step| step.dentry.id);
                let mut new = row.clone();
                hold(&mut new, &kept, intent);
                like(&mut new, source);
                draft.frees(&to.path, &row);
                draft.update(id, &row, &new);
                (id, new, false)
            }
            End::Nothing { parent, rest } => {
                no_mount_below(self.kernel, to, intent)?;
                let mut new = InodeRow::new(EntryType::Reg, intent.caller.agent.clone(), intent.at);
                hold(&mut new, &kept, intent);
                like(&mut new, source);
                (self.add(&mut draft, to, intent, parent, &rest, Default::default(), &new)?, new, true)
            }
        };
        drop(rows);
        draft.takes(&to.path, &row);
        let metadata = self.include(&mut draft, kept, &to.path, id, &row);
        let told = intent.told(EventKind::FileCopied, &metadata, created);
        let receipt = self.commit(from, Some(&to.path), intent, draft, told).await?;
        Ok(Copied::new(created, metadata, receipt))
    }

    /// The content of `source`, kept where this mount keeps it. Within one mount nothing is copied.
    async fn kept_of(&self, from: &Site, source: &Node, to: &Site, intent: &Intent) -> Result<Kept, Stop> {
        let metadata = &source.metadata;
        if let (Some(id), true) = (&metadata.content_id, from.mount.root == to.mount.root) {
            // The source is locked, or what it was is held: all of it is there until the copy is committed, and the hold goes on from there.
            let hold = self.hold();
            match id {
                ContentId::Blake3(hash) => hold.content(hash).await,
                ContentId::Chunks(root) => hold.list(root).await,
                _ => {}
            }
            return Ok(Kept {
                id: id.clone(),
                size: metadata.size,
                placement: source.placement,
                whole: None,
                hold,
            });
        }
        let all = nexus_messages::syscall::ByteRange::ALL;
        let mut source = Source::open(self.kernel, intent.op, from, source, all).await?;
        let mut intake = Intake::begin(self.kernel, intent.op, to).await?;
        while let Some(piece) = source.next().await? {
            intake.take(piece).await?;
        }
        intake.finish(intent).await?.kept(self.mount, intent, to)
    }
}

/// What setting attributes did to the entry that `metadata` describes, which it may have `made`.
pub(crate) fn kind_of_set(made: bool, metadata: &FileMetadata) -> EventKind {
    match (made, metadata.entry_type) {
        (true, EntryType::Dir) => EventKind::DirCreated,
        (true, _) => EventKind::Created,
        (false, _) => EventKind::MetadataChanged,
    }
}

/// What removing an entry of this type is.
pub(crate) fn kind_of_removal(entry_type: EntryType) -> EventKind {
    if entry_type == EntryType::Dir { EventKind::DirDeleted } else { EventKind::FileDeleted }
}

/// The media type that the path's name tells.
pub(super) fn guess_mime(path: &VPath) -> Option<Arc<str>> {
    mime_guess::from_path(path.as_str()).first_raw().map(Arc::from)
}

pub(super) fn must_be_file(intent: &Intent, path: &VPath, entry_type: EntryType) -> Result<(), Stop> {
    match entry_type {
        EntryType::Reg => Ok(()),
        directory if directory.is_directory() => Err(intent.fail(path, ErrorKind::IsADirectory)),
        // A link has come to where a file or nothing was: resolve again.
        EntryType::Link => Err(Stop::Again),
        other => {
            let error = Error::new(intent.op, path, ErrorKind::NotSupported);
            Err(error.because(format!("it is a {other}")).into())
        }
    }
}

/// The type of an entry never changes; making what exists is refused unless it is the same.
fn same_kind(intent: &Intent, path: &VPath, row: &InodeRow, call: &SysSetattr) -> Result<(), Stop> {
    let Some(wanted) = call.entry_type else { return Ok(()) };
    let same = match (wanted, row.entry_type) {
        (EntryType::Dir, EntryType::Dir | EntryType::Mount) => true,
        (EntryType::Link, EntryType::Link) => call.link_target == row.link_target,
        (wanted, there) => wanted == there,
    };
    if same {
        return Ok(());
    }
    let error = Error::new(intent.op, path, ErrorKind::AlreadyExists);
    Err(match (wanted, row.entry_type) {
        (EntryType::Link, EntryType::Link) => error.because("a link with another target"),
        (_, there) => error.because(format!("it is a {there} and cannot become a {wanted}")),
    }
    .into())
}

/// Lets the entry have this content from now on.
fn hold(row: &mut InodeRow, kept: &Kept, intent: &Intent) {
    row.content_id = Some(kept.id.clone());
    row.size = kept.size;
    row.placement = kept.placement;
    row.version += 1;
    row.generation += 1;
    row.modified = intent.at;
    row.changed = intent.at;
}

/// Takes over what a copy has of its source.
fn like(row: &mut InodeRow, source: &Node) {
    row.mode = source.metadata.mode;
    row.mime_type.clone_from(&source.metadata.mime_type);
}

/// Sets the attributes, and says which are now different.
pub(super) fn describe(
    intent: &Intent,
    path: &VPath,
    row: &mut InodeRow,
    wanted: &Attributes,
) -> Result<Vec<Attribute>, Stop> {
    check_attributes(intent, path, &row.owner, wanted)?;
    let mut changed = Vec::new();
    let mut set = |different: bool, attribute: Attribute| {
        if different {
            changed.push(attribute);
        }
    };
    if let Some(mode) = wanted.mode {
        set(mode != row.mode, Attribute::Mode);
        row.mode = mode;
    }
    if let Some(owner) = &wanted.owner {
        set(*owner != row.owner, Attribute::Owner);
        row.owner = owner.clone();
    }
    if let Some(mime) = &wanted.mime_type {
        set(Some(mime) != row.mime_type.as_ref(), Attribute::MimeType);
        row.mime_type = Some(mime.clone());
    }
    if let Some(modified) = wanted.modified {
        set(modified != row.modified, Attribute::Modified);
        row.modified = modified;
    }
    if let Some(created) = wanted.created {
        set(created != row.created, Attribute::Created);
        row.created = created;
    }
    Ok(changed)
}

/// Whether the attributes make sense, and the caller may set them.
pub(super) fn check_attributes(
    intent: &Intent,
    path: &VPath,
    owner: &Arc<str>,
    wanted: &Attributes,
) -> Result<(), Stop> {
    if let Some(mode) = wanted.mode.filter(|mode| *mode > 0o7777) {
        let error = Error::new(intent.op, path, ErrorKind::InvalidArgument);
        return Err(error.because(format!("mode {mode:o} has more than the permission bits")).into());
    }
    if wanted.owner.as_ref().is_some_and(|new| new != owner) && !intent.caller.admin {
        let error = Error::new(intent.op, path, ErrorKind::PermissionDenied);
        return Err(error
            .because("giving an entry to somebody else needs the administrator's handle")
            .into());
    }
    Ok(())
}
