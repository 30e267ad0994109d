//! Content piece by piece: out of a file, and on its way into one.
//!
//! What comes in is made safe before the write that commits it takes its path's lock. Where content is found by its hash, it goes where it
//! belongs, and nothing names it yet. Where files are plain files, the driver takes it as an upload, which nobody sees before it is finished.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{ContentId, Error, ErrorKind, FileId, Op};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::large::MountBlobs;
use super::rows::RowVolume;
use super::write::Kept;
use super::{Intent, Site, Stop, Volume, blob_error, store_error};
use crate::content::{self, CALL_MAX, CONTENT_MAX, Pieces, Shape, WHOLE_MAX, Writer};
use crate::garbage::Hold;
use crate::hal::{Addressing, ObjectInfo, ObjectStore, PathStore, PathUpload, StoreError};
use crate::kernel::Kernel;
use crate::mounts::{Guarded, Mount, UnderWay};
use crate::namespace::{Node, Placement};

/// The pieces in which plain files are read and written.
const PIECE: u64 = 1 << 20;

/// How much of a plain file is asked for in one read, where several are under way at once: each waits longer than it works.
const AHEAD_PIECE: u64 = 6 << 20;

/// How much of a plain file is on its way at once, or has come and is not given yet, at most.
const AHEAD_MAX: u64 = 30 << 20;

/// Content that goes to a plain file is held up to so many bytes, and written at once, without an upload.
const PLAIN_HELD_MAX: u64 = 4 << 20;

/// Pieces up to this size are put together while they are held: each by itself would cost more than its bytes.
const SMALL_PIECE: usize = 4 << 10;

/// How long what is put together grows.
const TOGETHER: usize = 64 << 10;

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
    /// What is left of a plain file.
    Plain(Plain),
}

/// What a read of a plain file gives.
type Come = Result<(Bytes, ObjectInfo), StoreError>;

/// A part of a plain file. What is read may come from several reads at once, and all of it is of one state of the file.
struct Plain {
    kernel: Arc<Kernel>,
    /// What is left to be asked for.
    range: Range<u64>,
    /// The state.
    tag: Option<ContentId>,
    /// How many reads may be under way.
    at_once: usize,
    /// Those that are, in order, each with how much it is to bring.
    ahead: VecDeque<(u64, oneshot::Receiver<Come>)>,
    /// What has come and is not given yet.
    come: Bytes,
}

impl Plain {
    async fn of(
        kernel: &Arc<Kernel>,
        site: &Site,
        range: Range<u64>,
        tag: Option<ContentId>,
    ) -> Result<Self, StoreError> {
        let driver = site.mount.lease().await;
        let wanted = usize::from(plain(&driver)?.capabilities().reads_at_once);
        let at_once = wanted.max(1);
        Ok(Self { kernel: kernel.clone(), range, tag, at_once, ahead: VecDeque::new(), come: Bytes::new() })
    }

    /// The next piece; none when the file is another one by now. When its future is dropped it comes with the next one.
    async fn next(&mut self, site: &Site) -> Result<Option<Bytes>, StoreError> {
        if self.at_once == 1 {
            let wanted = PIECE.min(self.range.end - self.range.start);
            let read = read(site.clone(), ByteRange::new(self.range.start, wanted)).await?;
            self.range.start += wanted;
            return Ok(self.of_this_state(wanted, read));
        }
        if self.come.is_empty() {
            self.ask(site);
            let Some((wanted, coming)) = self.ahead.front_mut() else { return Ok(None) };
            let (wanted, read) = (*wanted, coming.await);
            self.ahead.pop_front();
            let read = read.unwrap_or_else(|_| {
                Err(StoreError::Backend { what: "reading a file".into(), cause: "its task has ended".into() })
            });
            let Some(come) = self.of_this_state(wanted, read?) else { return Ok(None) };
            self.come = come;
            self.ask(site);
        }
        Ok(Some(self.come.split_to(self.come.len().min(content::index(PIECE)))))
    }

    fn is_over(&self) -> bool {
        self.range.is_empty() && self.ahead.is_empty() && self.come.is_empty()
    }

    fn of_this_state(&self, wanted: u64, (data, info): (Bytes, ObjectInfo)) -> Option<Bytes> {
        (self.tag.as_ref() == Some(&info.tag) && data.len() as u64 == wanted).then_some(data)
    }

    /// Begins as many reads as may be under way, beside what has come.
    fn ask(&mut self, site: &Site) {
        let held = usize::from(!self.come.is_empty());
        let room = self.at_once.min(content::index(AHEAD_MAX / AHEAD_PIECE) - held);
        while self.ahead.len() < room && !self.range.is_empty() {
            let wanted = AHEAD_PIECE.min(self.range.end - self.range.start);
            let (mut tell, coming) = oneshot::channel();
            let reading = read(site.clone(), ByteRange::new(self.range.start, wanted));
            self.kernel.env().spawn("stream.read", async move {
                let come = match select(pin!(reading), pin!(tell.closed())).await {
                    Either::Left((come, _)) => come,
                    // The stream was dropped.
                    Either::Right(_) => return,
                };
                // It may be dropped just now.
                let _ = tell.send(come);
            });
            self.range.start += wanted;
            self.ahead.push_back((wanted, coming));
        }
    }
}

/// Reads a part of the file at `site`. The driver is held only while it does.
async fn read(site: Site, range: ByteRange) -> Come {
    let driver = site.mount.lease().await;
    plain(&driver)?.read(site.relative(), range).await
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
            Volume::Paths(_) => {
                let of = Plain::of(kernel, site, start..end, metadata.content_id.clone()).await;
                From::Plain(of.map_err(failed)?)
            }
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
            From::Plain(plain) if plain.is_over() => Ok(None),
            From::Plain(plain) => match plain.next(&self.site).await.map_err(failed)? {
                Some(piece) => Ok(Some(piece)),
                None => {
                    let error = Error::new(self.op, &self.site.path, ErrorKind::Busy);
                    Err(error.because("the file changed while it was read"))
                }
            },
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
    /// It is on its way until it is committed.
    _under_way: Arc<UnderWay>,
}

#[derive(Debug, Clone)]
enum What {
    Kept(Kept),
    /// Not yet written: small, or of a driver that can write plain files only at once.
    Held(Vec<Bytes>),
    /// With the driver, and to be finished. Taken by who finishes it.
    Upload(Arc<Mutex<Option<Box<dyn PathUpload>>>>),
}

/// Content for a plain file.
pub(super) enum ForPlain<'a> {
    Held(&'a [Bytes]),
    Upload(Box<dyn PathUpload>),
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

    /// The content on a mount of plain files. An upload is given once.
    pub(super) fn plain(&self, mount: &Mount, intent: &Intent, site: &Site) -> Result<ForPlain<'_>, Stop> {
        match self.on(mount, intent, site)? {
            What::Held(data) => Ok(ForPlain::Held(data)),
            What::Upload(upload) => match upload.lock().take() {
                Some(upload) => Ok(ForPlain::Upload(upload)),
                None => Err(intent.fail(&site.path, ErrorKind::Busy)),
            },
            What::Kept(_) => Err(intent.fail(&site.path, ErrorKind::NotSupported)),
        }
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
    under_way: UnderWay,
}

enum Onto {
    /// Small so far.
    Rows,
    Chunks(Box<Writer<MountBlobs>>, Hold),
    /// Plain files; whether the driver takes them in pieces.
    Plain {
        in_pieces: bool,
    },
    Upload(Box<dyn PathUpload>),
}

impl Intake {
    /// Takes content for the file at `site`.
    pub(crate) async fn begin(kernel: &Arc<Kernel>, op: Op, site: &Site) -> Result<Self, Error> {
        let onto = match Volume::of(kernel, site) {
            Volume::Rows(_) => Onto::Rows,
            Volume::Paths(_) => {
                let driver = site.mount.lease().await;
                let store = plain(&driver).map_err(|error| store_error(op, &site.path, &error))?;
                Onto::Plain { in_pieces: store.capabilities().upload }
            }
            Volume::Sys(_) => return Err(Error::new(op, &site.path, ErrorKind::NotSupported)),
        };
        let under_way = site.mount.stream();
        let (kernel, site, held, small) = (kernel.clone(), site.clone(), Vec::new(), BytesMut::new());
        Ok(Self { kernel, op, site, size: 0, held, small, held_size: 0, onto, under_way })
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
                let begun = {
                    let driver = self.site.mount.lease().await;
                    plain(&driver).map_err(failed)?.upload(self.site.relative()).await
                };
                self.onto = match begun {
                    // The driver that is there now takes none.
                    Err(StoreError::NotSupported { .. }) => Onto::Plain { in_pieces: false },
                    begun => Onto::Upload(begun.map_err(failed)?),
                };
                self.push().await?;
            }
            Onto::Upload(_) if self.held_size > PIECE => self.push().await?,
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

    /// Gives what is held to the upload, if there is one.
    async fn push(&mut self) -> Result<(), Error> {
        if !matches!(self.onto, Onto::Upload(_)) {
            return Ok(());
        }
        self.held_size = 0;
        for piece in self.held() {
            let Onto::Upload(upload) = &mut self.onto else { break };
            let pushed = upload.push(piece).await;
            pushed.map_err(|error| blob_error(self.op, &self.site.path, &error))?;
        }
        Ok(())
    }

    /// All has come. It is durable on return, or goes to its place with the commit.
    pub(crate) async fn finish(mut self, intent: &Intent) -> Result<Staged, Stop> {
        self.push().await?;
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
            Onto::Upload(mut upload) => {
                // What is left to be done under the path's lock is short.
                upload.settle().await.map_err(|error| blob_error(self.op, &site.path, &error))?;
                What::Upload(Arc::new(Mutex::new(Some(upload))))
            }
        };
        Ok(Staged { mount, size: self.size, what, _under_way: Arc::new(self.under_way) })
    }
}
