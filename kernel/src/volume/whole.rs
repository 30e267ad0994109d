//! Plain files that are read as a whole.

use bytes::Bytes;
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Error, ErrorKind};

use super::{Intent, Site, Stop, store_error};
use crate::content::CALL_MAX;
use crate::hal::{ObjectInfo, PathStore, StoreError};

/// All of a file that has `size` bytes, for a driver that writes it again with what is changed in it. One that is too large for that is refused before it is read.
pub(super) async fn to_be_changed(
    store: &dyn PathStore,
    site: &Site,
    intent: &Intent,
    size: u64,
) -> Result<(Bytes, ObjectInfo), Stop> {
    if size > CALL_MAX {
        let why = format!(
            "its driver writes it as a whole, and {size} bytes are more than one call carries, {CALL_MAX}"
        );
        return Err(Error::new(intent.op, &site.path, ErrorKind::TooLarge).because(why).into());
    }
    let read = read_as_known(store, site, ByteRange::ALL, size).await;
    read.map_err(|error| store_error(intent.op, &site.path, &error).into())
}

/// The part `range` of a file that had `size` bytes when it was looked at. How long that may take goes by how many are asked for; so all the rest is asked for as so many, and one
/// more, which comes when the file has grown.
pub(super) async fn read_as_known(
    store: &dyn PathStore,
    site: &Site,
    range: ByteRange,
    size: u64,
) -> Result<(Bytes, ObjectInfo), StoreError> {
    if range.count.is_some() {
        return store.read(site.relative(), range).await;
    }
    let known = size.saturating_sub(range.offset);
    let read = store.read(site.relative(), ByteRange::new(range.offset, known + 1)).await?;
    if read.0.len() as u64 > known { store.read(site.relative(), range).await } else { Ok(read) }
}
