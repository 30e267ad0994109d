//! Large plain files of drivers that write a file as a whole: what is changed in them goes there with the rest, piece by piece, and no more than a piece of it is held.

use bytes::Bytes;
use nexus_messages::syscall::{ByteRange, Place, SysWrite};
use nexus_messages::{Attributes, Error};

use super::{Intent, Site, Stop, store_error};
use crate::content::{self, Plan, Search, Segment};
use crate::hal::{ObjectInfo, PathStore, PathWrite, StoreError};

/// Up to so many bytes a file is read and written in one go: that asks the store less often.
const AT_ONCE_MAX: u64 = 16 << 20;

/// What is read and written at once of a larger one.
const PIECE: u64 = 8 << 20;

/// A file that is written anew, with something changed in it.
pub(super) struct Rewriting<'a> {
    pub(super) store: &'a dyn PathStore,
    pub(super) site: &'a Site,
    pub(super) intent: &'a Intent,
    pub(super) call: &'a SysWrite,
    pub(super) attributes: &'a Attributes,
    /// Whether what came since the file was looked at is changed instead: the call goes for any state of it.
    pub(super) takes_anything: bool,
}

/// What became of it.
pub(super) struct Rewritten {
    pub(super) info: ObjectInfo,
    pub(super) written: u64,
    pub(super) places: u64,
}

impl Rewriting<'_> {
    /// Writes the file anew, which had `size` bytes when it was looked at. None when it is for who does that in one go.
    pub(super) async fn run(&self, size: u64) -> Result<Option<Rewritten>, Stop> {
        if size <= AT_ONCE_MAX || !self.store.capabilities().upload {
            return Ok(None);
        }
        let before = self.store.stat(self.relative()).await.map_err(|error| self.failed(&error))?;
        if before.size != size {
            return Err(Stop::Again);
        }
        let plan = self.plan(&before).await?;
        let mut upload = match self.store.upload(self.relative()).await {
            Err(StoreError::NotSupported { .. }) => return Ok(None),
            upload => upload.map_err(|error| self.failed(&error))?,
        };
        for part in &plan.parts {
            match part {
                Segment::New(data) => upload.push(data.clone()).await.map_err(|error| self.failed(&error))?,
                Segment::Zeros(count) => {
                    let zeros = Bytes::from(vec![0; content::index(PIECE.min(*count))]);
                    for (from, to) in pieces(0, *count) {
                        let some = zeros.slice(..content::index(to - from));
                        upload.push(some).await.map_err(|error| self.failed(&error))?;
                    }
                }
                Segment::Old(from, to) => {
                    for (from, to) in pieces(*from, *to) {
                        let data = self.read(&before, from, to).await?;
                        upload.push(data).await.map_err(|error| self.failed(&error))?;
                    }
                }
            }
        }
        upload.settle().await.map_err(|error| self.failed(&error))?;
        // What others write meanwhile is not to be replaced by what does not have it.
        let how = match self.store.capabilities().conditional_upload {
            true => PathWrite::IfMatch(before.tag.clone()),
            false => PathWrite::Whole,
        };
        match upload.finish(self.relative(), how, self.attributes).await {
            Ok(info) => Ok(Some(Rewritten { info, written: plan.written, places: plan.places })),
            // Somebody was quicker: once more, with what they wrote, or with an error that says what that is.
            Err(StoreError::Changed { .. } | StoreError::NotFound { .. }) if self.takes_anything => {
                Err(Stop::Again)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// What the new content is made of. An edit looks for its places first.
    async fn plan(&self, before: &ObjectInfo) -> Result<Plan, Stop> {
        let refused =
            |(kind, why)| Stop::from(Error::new(self.intent.op, &self.site.path, kind).because(why));
        let (data, size) = (&self.call.data, before.size);
        let Place::Instead { of, all } = &self.call.place else {
            return content::plan(None, size, data, &self.call.place, self.call.truncate).map_err(refused);
        };
        let mut search = Search::new(of, *all).map_err(refused)?;
        for (from, to) in pieces(0, size) {
            search.look(&self.read(before, from, to).await?).map_err(refused)?;
        }
        search.plan(size, data).map_err(refused)
    }

    /// What is between `from` and `to` of the state `before`.
    async fn read(&self, before: &ObjectInfo, from: u64, to: u64) -> Result<Bytes, Stop> {
        let read = self.store.read(self.relative(), ByteRange::new(from, to - from)).await;
        match read {
            Ok((data, now)) if now.tag == before.tag && data.len() as u64 == to - from => Ok(data),
            // It is another one by now.
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(Stop::Again),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn relative(&self) -> &str {
        self.site.relative()
    }

    fn failed(&self, error: &StoreError) -> Stop {
        store_error(self.intent.op, &self.site.path, error).into()
    }
}

/// The bounds of the pieces between `from` and `to`.
fn pieces(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..(to - from).div_ceil(PIECE)).map(move |nth| (from + nth * PIECE, to.min(from + (nth + 1) * PIECE)))
}
