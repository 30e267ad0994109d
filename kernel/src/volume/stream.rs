//! Content piece by piece: out of a file, and on its way into one.
//!
//! What comes in is made safe before the write that commits it takes its path's lock. Where content is found by its hash, it goes where it
//! belongs, and nothing names it yet. Where files are plain files, it goes to a file beside the one that it is for, and that one is renamed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, Error, ErrorKind, FileId, Op, Timestamp};

use super::large::MountBlobs;
use super::rows::RowVolume;
use super::write::Kept;
use super::{Intent, Site, Stop, Volume, blob_error, store_error};
use crate::content::{self, CALL_MAX, CONTENT_MAX, Pieces, Shape, WHOLE_MAX, Writer};
use crate::garbage::Hold;
use crate::hal::{Addressing, ObjectInfo, ObjectStore, PathStore, PathWrite, StoreError};
use crate::kernel::Kernel;
use crate::mounts::{Guarded, Mount};
use crate::namespace::{Node, Placement};

/// The pieces in which plain files are read and written.
const PIECE: u64 = 1 << 20;

/// Content that goes to a plain file is held up to so many bytes, and written at once, without a file beside it.
const PLAIN_HELD_MAX: u64 = 4 << 20;

/// What the names of files begin with that are on their way to become others. Listings leave them out, and no call may name them.
pub(crate) const BESIDE: &str = ".nexus-stream-";

/// What was not written to for so long is on its way no more: its process was killed.
const BESIDE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How many files that are on their way are looked at in one folder.
const BESIDE_LOOK: usize = 256;

/// Pieces up to this size are put together while they are held: each by itself would cost more than its bytes.
const SMALL_PIECE: usize = 4 << 10;

/// How long what is put together grows.
const TOGETHER: usize = 64 << 10;

/// Whether a path on a mount of plain files leads to, or through, a file that is on its way to become another.
pub(crate) fn is_beside(relative: &str) -> bool {
    relative.split('/').any(|name| name.starts_with(BESIDE))
}

/// Removes from a folder of plain files what processes that were killed have left of streams; says whether there was any.
pub(super) async fn remove_left(kernel: &Kernel, store: &dyn PathStore, folder: &str) -> bool {
    // In the order of names they come behind what they begin with.
    let Ok(page) = store.list(folder, Some(BESIDE), BESIDE_LOOK).await else { return false };
    let now = Timestamp(kernel.env().wall());
    let is_left = |info: &ObjectInfo| {
        u128::from(now.nanos().saturating_sub(info.modified.nanos())) > BESIDE_MAX.as_nanos()
    };
    let mut any = false;
    for (name, info) in page.entries.iter().filter(|(name, info)| is_beside(name) && is_left(info)) {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        match store.delete(&path).await {
            Ok(()) => any = true,
            Err(error) => tracing::warn!(%path, %error, "what is left of a stream stays"),
        }
        tracing::debug!(%path, modified = ?info.modified, "what a process that was killed left of a stream");
    }
    any
}

/// A part of a file's content, piece by piece.
pub(crate) struct Source {
    op: Op,
    site: Site,
    from: From,
}

enum From {
    /// What is at hand.
    Memory(Option<Bytes>),
    /// Chunks, some read ahead. They never change, and are held.
    Chunks { pieces: Box<Pieces<MountBlobs>>, _held: Hold },
    /// What is left of a plain file, and which state of it that is.
    Plain { range: Range<u64>, tag: Option<ContentId> },
}

impl Source {
    /// Opens the part `range` of the file at `site`, which `node` describes. What becomes of the path meanwhile changes nothing, unless it is a plain
    /// file's; but it must still lead to this content when this has returned, or be locked: what was collected before it was held is not there.
    pub(crate) async fn open(
        kernel: &Arc<Kernel>,
        op: Op,
        site: &Site,
        node: &Node,
        range: ByteRange,
    ) -> Result<Self, Error> {
        let failed = |error: StoreError| store_error(op, &site.path, &error);
        let metadata = &node.metadata;
        let (start, end) = range.within(metadata.size);
        let from = match Volume::of(kernel, site) {
            Volume::Paths(_) => From::Plain { range: start..end, tag: metadata.content_id.clone() },
            Volume::Rows(volume) => match (&metadata.content_id, node.placement) {
                (Some(id), Placement::Chunked) => {
                    let keep = kernel.caches().content.holds_streams_of(end - start);
                    let hold = kernel.garbage().hold();
                    if let Some(root) = id.chunks() {
                        hold.list(root).await;
                    }
                    let blobs = volume.blobs(keep, &hold).aside();
                    let cursor = RowVolume::chunks_of(blobs, id, metadata.size).await.map_err(failed)?;
                    From::Chunks { pieces: Box::new(cursor.pieces(start..end)), _held: hold }
                }
                (Some(id), placement @ (Placement::Inline | Placement::Store)) => {
                    let whole = volume.whole(id, placement).await.map_err(failed)?;
                    From::Memory(Some(whole.slice(content::index(start)..content::index(end))))
                }
                _ => From::Memory(None),
            },
            volume @ Volume::Sys(_) => {
                let extent = nexus_messages::syscall::Extent::One(range);
                let ((data, _), _) = volume.read(site, node, &extent).await.map_err(failed)?;
                From::Memory(Some(data))
            }
        };
        Ok(Self { op, site: site.clone(), from })
    }

    /// The next piece, never empty; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let failed = |error: StoreError| store_error(self.op, &self.site.path, &error);
        match &mut self.from {
            From::Memory(data) => Ok(data.take().filter(|data| !data.is_empty())),
            From::Chunks { pieces, .. } => pieces.next().await.map_err(failed),
            From::Plain { range, .. } if range.is_empty() => Ok(None),
            From::Plain { range, tag } => {
                let wanted = ByteRange::new(range.start, PIECE.min(range.end - range.start));
                let driver = self.site.mount.lease().await;
                let store = plain(&driver).map_err(failed)?;
                let (data, info) = store.read(self.site.relative(), wanted).await.map_err(failed)?;
                if tag.as_ref() != Some(&info.tag) || data.is_empty() {
                    let error = Error::new(self.op, &self.site.path, ErrorKind::Busy);
                    return Err(error.because("the file changed while it was read"));
                }
                range.start += data.len() as u64;
                Ok(Some(data))
            }
        }
    }
}

fn plain(driver: &Arc<Guarded>) -> Result<&dyn PathStore, StoreError> {
    match driver.addressing() {
        Addressing::Path(store) => Ok(store),
        Addressing::Content(_) => Err(StoreError::NotSupported { what: "content by its path" }),
    }
}

/// Content that is safe, and becomes that of a file with the write's commit.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    /// The mount that it is on, by its root.
    mount: FileId,
    size: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Kept(Kept),
    /// Not yet written: small, or of a driver that can write plain files only at once.
    Held(Vec<Bytes>),
    /// In a plain file beside the one that it is for.
    Beside(Arc<Beside>),
}

impl Staged {
    /// How long the content is.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the content is on `mount`.
    pub(crate) fn is_on(&self, mount: &Mount) -> bool {
        self.mount == mount.root
    }

    fn on(&self, mount: &Mount, intent: &Intent, site: &Site) -> Result<&What, Stop> {
        if self.is_on(mount) {
            return Ok(&self.what);
        }
        let error = Error::new(intent.op, &site.path, ErrorKind::Busy);
        Err(error.because("the path leads to another mount since the stream began").into())
    }

    /// The content, on a mount where it is found by its hash.
    pub(super) fn kept(&self, mount: &Mount, intent: &Intent, site: &Site) -> Result<Kept, Stop> {
        match self.on(mount, intent, site)? {
            What::Kept(kept) => Ok(kept.clone()),
            _ => Err(intent.fail(&site.path, ErrorKind::NotSupported)),
        }
    }

    /// The content on a mount of plain files: the buffers, or the path of the file that has it.
    pub(super) fn plain(
        &self,
        mount: &Mount,
        intent: &Intent,
        site: &Site,
    ) -> Result<Result<&[Bytes], &str>, Stop> {
        match self.on(mount, intent, site)? {
            What::Held(data) => Ok(Ok(data)),
            What::Beside(beside) => Ok(Err(&beside.path)),
            What::Kept(_) => Err(intent.fail(&site.path, ErrorKind::NotSupported)),
        }
    }

    /// Says that the file beside has become the one that it is for.
    pub(super) fn renamed(&self) {
        if let What::Beside(beside) = &self.what {
            // Read when the last hold on it goes, which is handed from task to task.
            beside.done.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// A file that is on its way to become another. Removed when it does not.
#[derive(Debug)]
struct Beside {
    kernel: Arc<Kernel>,
    mount: Arc<Mount>,
    path: String,
    done: std::sync::atomic::AtomicBool,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if *self.done.get_mut() {
            return;
        }
        let (mount, path) = (self.mount.clone(), std::mem::take(&mut self.path));
        self.kernel.env().spawn("stream.clean", async move {
            let driver = mount.lease().await;
            let Ok(store) = plain(&driver) else { return };
            match store.delete(&path).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(%path, %error, "what is left of a stream stays"),
            }
        });
    }
}

/// Takes content that comes in pieces, and makes it safe. Holds a few chunks; what was taken by one that is dropped is named by nothing.
pub(crate) struct Intake {
    kernel: Arc<Kernel>,
    op: Op,
    site: Site,
    size: u64,
    /// What is not yet written.
    held: Vec<Bytes>,
    /// Small pieces that came after it.
    small: BytesMut,
    held_size: u64,
    onto: Onto,
}

enum Onto {
    /// Small so far.
    Rows,
    Chunks(Box<Writer<MountBlobs>>, Hold),
    /// Plain files; whether they can be written in pieces.
    Plain {
        in_pieces: bool,
    },
    Beside(Arc<Beside>),
}

impl Intake {
    /// Takes content for the file at `site`.
    pub(crate) async fn begin(kernel: &Arc<Kernel>, op: Op, site: &Site) -> Result<Self, Error> {
        let onto = match Volume::of(kernel, site) {
            Volume::Rows(_) => Onto::Rows,
            Volume::Paths(_) => {
                let driver = site.mount.lease().await;
                let store = plain(&driver).map_err(|error| store_error(op, &site.path, &error))?;
                let can = store.capabilities();
                Onto::Plain { in_pieces: can.write_at && can.rename }
            }
            Volume::Sys(_) => return Err(Error::new(op, &site.path, ErrorKind::NotSupported)),
        };
        let (held, small) = (Vec::new(), BytesMut::new());
        Ok(Self { kernel: kernel.clone(), op, site: site.clone(), size: 0, held, small, held_size: 0, onto })
    }

    /// Holds the next piece until it is written.
    fn hold(&mut self, piece: Bytes) {
        self.held_size += piece.len() as u64;
        if piece.len() <= SMALL_PIECE {
            self.small.extend_from_slice(&piece);
            if self.small.len() >= TOGETHER {
                self.held.push(self.small.split().freeze());
            }
            return;
        }
        if !self.small.is_empty() {
            self.held.push(self.small.split().freeze());
        }
        self.held.push(piece);
    }

    /// What is held. It is so no more.
    fn held(&mut self) -> Vec<Bytes> {
        let mut held = std::mem::take(&mut self.held);
        if !self.small.is_empty() {
            held.push(self.small.split().freeze());
        }
        held
    }

    /// Takes the next piece.
    pub(crate) async fn take(&mut self, piece: Bytes) -> Result<(), Error> {
        self.size = self.size.saturating_add(piece.len() as u64);
        if self.size > CONTENT_MAX {
            let error = Error::new(self.op, &self.site.path, ErrorKind::TooLarge);
            return Err(error.because(format!("more than {CONTENT_MAX} bytes")));
        }
        if let Onto::Chunks(writer, _) = &mut self.onto {
            let fed = writer.feed(&piece).await;
            return fed.map_err(|error| blob_error(self.op, &self.site.path, &error));
        }
        self.hold(piece);
        self.relieve().await
    }

    /// Writes what is held, once it is more than may be held.
    async fn relieve(&mut self) -> Result<(), Error> {
        let (op, at) = (self.op, self.site.path.clone());
        let failed = |error: StoreError| blob_error(op, &at, &error);
        match &self.onto {
            Onto::Rows if self.held_size > WHOLE_MAX => {
                let volume =
                    RowVolume { kernel: &self.kernel, mount: &self.site.mount, within: None, as_of: None };
                let hold = volume.hold();
                let mut writer = Writer::new(volume.blobs(false, &hold).aside(), Shape::TODAY);
                for piece in self.held() {
                    writer.feed(&piece).await.map_err(failed)?;
                }
                self.held_size = 0;
                self.onto = Onto::Chunks(Box::new(writer), hold);
            }
            Onto::Plain { in_pieces: true } if self.held_size > PLAIN_HELD_MAX => {
                let relative = self.site.relative();
                let folder = relative.rsplit_once('/').map_or("", |(folder, _)| folder);
                {
                    let driver = self.site.mount.lease().await;
                    remove_left(&self.kernel, plain(&driver).map_err(failed)?, folder).await;
                }
                let slash = if folder.is_empty() { "" } else { "/" };
                let path = format!("{folder}{slash}{BESIDE}{}", self.kernel.new_op_id());
                let beside = Beside {
                    kernel: self.kernel.clone(),
                    mount: self.site.mount.clone(),
                    path,
                    done: false.into(),
                };
                self.onto = Onto::Beside(Arc::new(beside));
                self.write_beside().await?;
            }
            Onto::Beside(_) if self.held_size > PLAIN_HELD_MAX => self.write_beside().await?,
            Onto::Plain { in_pieces: false } if self.held_size > CALL_MAX => {
                let error = Error::new(self.op, &self.site.path, ErrorKind::TooLarge);
                let why =
                    format!("the driver writes files at once, and more than {CALL_MAX} bytes are too many");
                return Err(error.because(why));
            }
            _ => {}
        }
        Ok(())
    }

    async fn write_beside(&mut self) -> Result<(), Error> {
        let data = self.held();
        let Onto::Beside(beside) = &self.onto else { return Ok(()) };
        let failed = |error: StoreError| blob_error(self.op, &self.site.path, &error);
        let offset = self.size - std::mem::take(&mut self.held_size);
        let driver = self.site.mount.lease().await;
        let store = plain(&driver).map_err(failed)?;
        let how = PathWrite::At { offset, truncate: false };
        store.write(&beside.path, &data, how, &Attributes::none()).await.map_err(failed)?;
        Ok(())
    }

    /// All has come. It is durable on return, or goes to its place with the commit.
    pub(crate) async fn finish(mut self, intent: &Intent) -> Result<Staged, Stop> {
        if matches!(self.onto, Onto::Beside(_)) && self.held_size > 0 {
            self.write_beside().await?;
        }
        let held = self.held();
        let (site, mount) = (&self.site, self.site.mount.root);
        let what = match self.onto {
            Onto::Rows => {
                let volume =
                    RowVolume { kernel: &self.kernel, mount: &site.mount, within: None, as_of: None };
                What::Kept(volume.keep(site, intent, &held).await?)
            }
            Onto::Chunks(writer, hold) => {
                let root = writer.finish().await.map_err(|error| blob_error(self.op, &site.path, &error))?;
                What::Kept(Kept::chunked(root, hold))
            }
            Onto::Plain { .. } => What::Held(held),
            Onto::Beside(beside) => What::Beside(beside),
        };
        Ok(Staged { mount, size: self.size, what })
    }
}
