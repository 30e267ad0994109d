//! A content-addressed mount as a store of files that are found by their paths: for a migration, which copies out of one, or into one to which nobody is led yet.
//!
//! No path is locked here, no hook is asked, and nobody is told of what is changed: who reads what others change looks again, and what is filled is its caller's alone.
//! Permission bits, times, links and empty folders are there; owners and media types are not, since no plain file has them ([`RowFiles::beyond_files`] tells of them).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::syscall::{ByteRange, Parents, SysSetattr, SysUnlink, SysWrite};
use nexus_messages::{
    Attributes, Caller, Consistency, ContentId, EntryType, Error, ErrorKind, FileMetadata, Op, Timestamp,
};
use parking_lot::Mutex;

use super::rows::{Memory, RowVolume};
use super::stream::Intake;
use super::write::guess_mime;
use super::{Intent, Site, Stop};
use crate::hal::{
    ListPage, ObjectInfo, PathCapabilities, PathStore, PathUpload, PathWrite, StoreError, StoreFuture,
};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{Node, Placement};

/// How often a file is looked at whose content is another one each time.
const LOOKS_MAX: usize = 64;

/// Who owns a plain file: nobody.
const NOBODY: &str = "";

/// The files of a content-addressed mount, by their paths.
#[derive(Clone)]
pub(crate) struct RowFiles {
    kernel: Arc<Kernel>,
    mount: Arc<Mount>,
}

impl RowFiles {
    pub(crate) fn new(kernel: &Arc<Kernel>, mount: &Arc<Mount>) -> Self {
        Self { kernel: kernel.clone(), mount: mount.clone() }
    }

    /// What is known of the entry at `path` that no plain file has, in words. With `owned` also whose it is.
    pub(crate) fn beyond_files(&self, path: &str, owned: bool) -> Result<Option<String>, StoreError> {
        let node = match self.node(path) {
            Ok((_, node)) => node,
            Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let FileMetadata { owner, mime_type, path, .. } = &*node.metadata;
        if owned && **owner != *NOBODY {
            return Ok(Some(format!("belongs to {owner}")));
        }
        let given = mime_type.as_ref().filter(|mime| Some(*mime) != guess_mime(path).as_ref());
        Ok(given.map(|mime| format!("has the media type {mime}, which its name does not tell")))
    }

    fn volume(&self) -> RowVolume<'_> {
        RowVolume { kernel: &self.kernel, mount: &self.mount, within: None, as_of: None }
    }

    fn site(&self, path: &str) -> Result<Site, StoreError> {
        let joined = self.mount.point.join_relative(path);
        let path = joined.map_err(|why| StoreError::BadOption { why: format!("{path:?}: {why}") })?;
        Ok(Site { mount: self.mount.clone(), path })
    }

    /// What is at `path` by the rows.
    fn node(&self, path: &str) -> Result<(Site, Node), StoreError> {
        let site = self.site(path)?;
        match self.volume().look(&site, false, Memory::Passed)? {
            Some(Some(node)) => Ok((site, node)),
            Some(None) => Err(StoreError::NotFound { what: path.to_owned() }),
            // To who follows none a link is no folder.
            None => Err(StoreError::NotADirectory { what: path.to_owned() }),
        }
    }

    /// What a change means that is made here. Nobody waits for the disk: who confirms a copy does.
    fn intent(&self, op: Op) -> Intent {
        Intent {
            caller: Arc::new(Caller::administrator()),
            op,
            op_id: self.kernel.new_op_id(),
            repeatable: false,
            consistency: Some(Consistency::Eventual),
            at: Timestamp(self.kernel.env().wall()),
            scales: None,
            staged: None,
            within: None,
            at_once: false,
            held: None,
            is_untold: true,
        }
    }

    /// The part `range` of a file, and what the file is. It is held meanwhile, so that nobody collects it.
    async fn content(&self, path: &str, range: ByteRange) -> Result<(Bytes, ObjectInfo), StoreError> {
        for _ in 0..LOOKS_MAX {
            let (_, Node { metadata, placement }) = self.node(path)?;
            match metadata.entry_type {
                EntryType::Reg => {}
                kind if kind.is_directory() => return Err(StoreError::IsADirectory { what: path.into() }),
                _ => return Err(StoreError::NotSupported { what: "the content of what is no file" }),
            }
            let info = info(&metadata);
            let Some(id) = metadata.content_id.as_ref().filter(|_| placement != Placement::None) else {
                return Ok((Bytes::new(), info));
            };
            let volume = self.volume();
            let hold = volume.hold();
            match id {
                ContentId::Blake3(hash) => hold.content(hash).await,
                ContentId::Chunks(root) => hold.list(root).await,
                _ => {}
            }
            // What was collected before it was held is not there.
            let now = self.node(path);
            if !now.is_ok_and(|(_, now)| now.metadata.content_id == metadata.content_id) {
                continue;
            }
            let (start, end) = range.within(metadata.size);
            // From where it lies, and not from memory: it may be looked at to see whether it is a copy.
            let data = match placement {
                Placement::Chunked => {
                    let blobs = volume.blobs(false, &hold).afresh();
                    let cursor = Box::pin(RowVolume::chunks_of(blobs, id, metadata.size)).await?;
                    Box::pin(cursor.read(start..end)).await?
                }
                Placement::Store => volume.stored(id, range).await?,
                _ => {
                    let whole = volume.inline(id)?;
                    whole.slice(crate::content::index(start)..crate::content::index(end))
                }
            };
            return Ok((data, info));
        }
        Err(StoreError::Backend {
            what: format!("reading {path}"),
            cause: format!("it was another one {LOOKS_MAX} times in a row"),
        })
    }

    /// Takes content for the file at `path`.
    async fn intake(&self, path: &str) -> Result<Intake, StoreError> {
        let site = self.site(path)?;
        Intake::begin(&self.kernel, Op::Write, &site).await.map_err(|error| failed(path, error.into()))
    }

    /// Makes what was taken the whole content of the file at `path`.
    async fn put_down(
        &self,
        path: &str,
        intake: Intake,
        attributes: &Attributes,
    ) -> Result<ObjectInfo, StoreError> {
        // A link is no file to write through: what is copied takes its place.
        if matches!(self.node(path), Ok((_, node)) if node.metadata.entry_type == EntryType::Link) {
            return Err(StoreError::Exists { what: path.to_owned() });
        }
        let (site, mut intent) = (self.site(path)?, self.intent(Op::Write));
        let staged = Box::pin(intake.finish(&intent)).await.map_err(|stop| failed(path, stop))?;
        intent.staged = Some(staged);
        let attributes = attributes.clone().owner(NOBODY);
        let call = SysWrite::at(site.path.clone(), Bytes::new()).create().attributes(attributes);
        let written = Box::pin(self.volume().write(&site, &intent, &call)).await;
        written.map(|written| info(&written.metadata)).map_err(|stop| failed(path, stop))
    }

    /// Makes or describes an entry.
    async fn set(&self, path: &str, call: SysSetattr) -> Result<ObjectInfo, StoreError> {
        let (site, intent) = (self.site(path)?, self.intent(Op::Setattr));
        let set = Box::pin(self.volume().set(&site, &intent, &call)).await;
        set.map(|set| info(&set.metadata)).map_err(|stop| failed(path, stop))
    }

    /// Makes an entry where none is.
    async fn make(&self, path: &str, call: SysSetattr) -> Result<ObjectInfo, StoreError> {
        match self.node(path) {
            Ok(_) => Err(StoreError::Exists { what: path.to_owned() }),
            Err(StoreError::NotFound { .. }) => self.set(path, call.parents(Parents::Made)).await,
            Err(error) => Err(error),
        }
    }

    fn page(&self, path: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let (site, node) = self.node(path)?;
        if !node.metadata.entry_type.is_directory() {
            return Err(StoreError::NotADirectory { what: path.to_owned() });
        }
        let (children, more) = self.volume().list(&site, &node, after, limit, true)?;
        let mut entries = Vec::with_capacity(children.len());
        for child in children {
            let metadata = child.metadata.ok_or_else(|| StoreError::Corrupt {
                what: format!("the row of {:?} in {}", child.name, site.path),
                found: "nothing that can be read".into(),
            })?;
            entries.push((child.name, info(&metadata)));
        }
        Ok(ListPage::new(entries, more, 0))
    }
}

impl fmt::Debug for RowFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowFiles").field("mount", &self.mount).finish_non_exhaustive()
    }
}

/// What the rows say, as a store of files says it.
fn info(metadata: &FileMetadata) -> ObjectInfo {
    let entry_type = match metadata.entry_type {
        kind if kind.is_directory() => EntryType::Dir,
        kind => kind,
    };
    let size = if entry_type == EntryType::Dir { 0 } else { metadata.size };
    let tag = match (&metadata.content_id, &metadata.link_target) {
        (Some(id), _) => id.clone(),
        (None, Some(target)) => ContentId::Tag(target.clone()),
        (None, None) => ContentId::Tag("empty".into()),
    };
    let mut info = ObjectInfo::new(entry_type, size, tag, metadata.modified);
    info.mode = metadata.mode;
    info.created = metadata.created;
    info.link_target.clone_from(&metadata.link_target);
    info
}

/// Why it was not done at `path`, as a store says it.
fn failed(path: &str, stop: Stop) -> StoreError {
    let what = path.to_owned();
    let error: Error = match stop {
        Stop::Failed(error) => error,
        Stop::Again => {
            return StoreError::Backend { what, cause: "it changed while it was changed".into() };
        }
    };
    match error.kind() {
        ErrorKind::NotFound => StoreError::NotFound { what },
        ErrorKind::AlreadyExists => StoreError::Exists { what },
        ErrorKind::IsADirectory => StoreError::IsADirectory { what },
        ErrorKind::NotADirectory => StoreError::NotADirectory { what },
        ErrorKind::NotEmpty => StoreError::NotEmpty { what },
        ErrorKind::StoreFull => StoreError::Full,
        _ => StoreError::Backend { what, cause: error.to_string() },
    }
}

impl PathStore for RowFiles {
    fn capabilities(&self) -> PathCapabilities {
        let mut can = PathCapabilities::default();
        (can.directories, can.links, can.attributes, can.upload) = (true, true, true, true);
        can
    }

    fn can_name(&self, path: &str) -> Result<(), StoreError> {
        self.site(path).map(drop)
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { self.node(path).map(|(_, node)| info(&node.metadata)) })
    }

    fn read<'a>(&'a self, path: &'a str, range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(self.content(path, range))
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            whole_alone(&how)?;
            let mut intake = self.intake(path).await?;
            for piece in data.iter().filter(|piece| !piece.is_empty()) {
                let taken = Box::pin(intake.take(piece.clone())).await;
                taken.map_err(|error| failed(path, error.into()))?;
            }
            self.put_down(path, intake, attributes).await
        })
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        Box::pin(async move {
            let intake = self.intake(path).await?;
            let upload = RowUpload { files: self.clone(), path: path.into(), intake: Mutex::new(intake) };
            Ok::<Box<dyn PathUpload>, _>(Box::new(upload))
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let (site, intent) = (self.site(path)?, self.intent(Op::Unlink));
            let call = SysUnlink::at(site.path.clone());
            let gone = Box::pin(self.volume().unlink(&site, &intent, &call)).await;
            gone.map(drop).map_err(|stop| failed(path, stop))
        })
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(async move { self.page(path, after, limit) })
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let call = SysSetattr::directory(self.site(path)?.path);
            self.make(path, call.attributes(attributes.clone().owner(NOBODY))).await
        })
    }

    fn rename<'a>(&'a self, _: &'a str, _: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(std::future::ready(Err(StoreError::NotSupported { what: "renaming" })))
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let call = SysSetattr::link(self.site(path)?.path, target);
            self.make(path, call.attributes(Attributes::none().owner(NOBODY))).await
        })
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            let call = SysSetattr::at(self.site(path)?.path);
            self.set(path, call.attributes(attributes.clone())).await
        })
    }
}

fn whole_alone(how: &PathWrite) -> Result<(), StoreError> {
    match how {
        PathWrite::Whole => Ok(()),
        _ => Err(StoreError::NotSupported { what: "a write but of the whole content" }),
    }
}

/// Content on its way to a file.
struct RowUpload {
    files: RowFiles,
    path: Box<str>,
    // Never locked: who shares an upload does nothing with it.
    intake: Mutex<Intake>,
}

impl fmt::Debug for RowUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowUpload").field("path", &self.path).finish_non_exhaustive()
    }
}

impl PathUpload for RowUpload {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let taken = Box::pin(self.intake.get_mut().take(data)).await;
            taken.map_err(|error| failed(&self.path, error.into()))
        })
    }

    fn finish<'a>(
        self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move {
            whole_alone(&how)?;
            let Self { files, intake, .. } = *self;
            files.put_down(path, intake.into_inner(), attributes).await
        })
    }
}
