//! `SysRead`: content of a file.

use std::sync::Arc;

use nexus_messages::syscall::{ByteRange, Extent, ReadData, SysRead};
use nexus_messages::{Caller, EntryType, Error, ErrorKind, Result, Timestamp, VPath};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, admit, one_path, pass, straight_to_read};
use super::locate::{ATTEMPTS_MAX, Located, is_served};
use super::mutate::LOCK_WAIT_MAX;
use super::past::then_held;
use super::{pipe, records};
use crate::content;
use crate::gate::Right;
use crate::hal::StoreError;
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, PathGuard, Scope};
use crate::namespace::{Node, Placement};
use crate::pipes::GivenMessage;
use crate::volume::{PathVolume, Site, Volume, store_error};

impl Admissible for SysRead {
    one_path!();

    fn is_of_the_past(&self, _: Which) -> bool {
        self.as_of.is_some()
    }

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::Read
    }
}

impl Serve for SysRead {
    #[inline]
    fn warm(&mut self, kernel: &Kernel, caller: &Caller) -> Option<ReadData> {
        if self.pipe.is_some() {
            return None;
        }
        if let Extent::Records(range) = self.extent {
            return records::read_warm(kernel, caller, self, range);
        }
        let read = if self.as_of.is_none() { pipe::read_warm(kernel, caller, self) } else { None };
        read.or_else(|| content_at_hand(kernel, caller, self))
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<ReadData> {
        Box::pin(cold(kernel, caller, self)).await
    }
}

/// The content of what is a file, when all of it is at hand.
#[inline]
pub(super) fn content_at_hand(kernel: &Kernel, caller: &Caller, call: &SysRead) -> Option<ReadData> {
    if call.as_of.is_some() || call.pipe.is_some() || matches!(call.extent, Extent::Records(_)) {
        return None;
    }
    kernel.warm(caller, &call.path, true, |node| warm(kernel, node, &call.extent))
}

/// The content, when all of it is in memory.
#[inline]
fn warm(kernel: &Kernel, node: Node, extent: &Extent) -> Option<ReadData> {
    if node.metadata.entry_type != EntryType::Reg {
        return None;
    }
    let cache = &kernel.caches().content;
    let whole = match (&node.metadata.content_id, node.placement) {
        (None, _) | (_, Placement::None) => Default::default(),
        (Some(id), Placement::Chunked) => {
            let Extent::One(range) = extent else { return None };
            let (start, end) = range.within(node.metadata.size);
            let data = content::at_hand(cache, id.chunks()?, start..end)?;
            return Some(ReadData::new(data, node.metadata));
        }
        (Some(id), _) => cache.get(id)?,
    };
    let (data, more) = content::runs(&whole, extent);
    let mut read = ReadData::new(data, node.metadata);
    read.more = more;
    Some(read)
}

/// How much of a plain file is read without a look at it first: what is more is not read twice.
const STRAIGHT_MAX: u64 = 1 << 20;

async fn cold(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: SysRead) -> Result<ReadData> {
    if let Some(read) = straight_read(kernel, caller, &call).await {
        return read;
    }
    let (read, given) = take(kernel, caller, call).await?;
    if let Some(given) = given {
        given.keep();
    }
    Ok(read)
}

/// A read of a plain file about which nobody is to be asked: the driver says what the file is with what is in it, and is not asked twice. None when it is not as simple as
/// that: what the driver says then is no answer yet.
async fn straight_read(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &SysRead,
) -> Option<Result<ReadData>> {
    let Extent::One(range) = call.extent else { return None };
    if call.pipe.is_some()
        || call.as_of.is_some()
        || call.wait.is_some()
        || range.count.is_some_and(|count| count > STRAIGHT_MAX)
    {
        return None;
    }
    let site = straight_to_read(kernel, caller, call)?;
    let _guard = match read_lock(kernel, caller, &site).await {
        Ok(guard) => guard,
        Err(error) => return Some(Err(error)),
    };
    // It may have come or gone while nobody held the path.
    if !is_served(kernel, &caller.zone, &site) {
        return None;
    }
    let wanted = ByteRange::new(range.offset, range.count.unwrap_or(STRAIGHT_MAX));
    let volume = PathVolume { kernel, mount: &site.mount };
    match volume.read_file(&site, wanted).await {
        Ok((data, metadata)) => {
            let (start, end) = range.within(metadata.size);
            let is_all = data.len() as u64 == end - start;
            (is_all && metadata.entry_type == EntryType::Reg).then(|| Ok(ReadData::new(data, metadata)))
        }
        // To be told so once is enough.
        Err(error) if error.is_backend_failure() || matches!(error, StoreError::Unavailable { .. }) => {
            Some(Err(store_error(SysRead::OP, &site.path, &error)))
        }
        Err(_) => None,
    }
}

/// As a read; a message of a pipe goes back when it is not handed over.
pub(super) async fn take(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: SysRead,
) -> Result<(ReadData, Option<GivenMessage>)> {
    if let Some(ready) = pipe::at_hand(kernel, caller, SysRead::OP, &call.path, call.pipe) {
        return pipe::read(kernel, ready, &call).await;
    }
    if matches!(call.extent, Extent::Records(_))
        && call.pipe.is_none()
        && let Some(ready) = records::at_hand(kernel, caller, SysRead::OP, &call.path)
    {
        return records::read(kernel, ready, &call).await.map(|read| (read, None));
    }
    let mut admitted = admit(kernel, caller, call, None).await?;
    let (read, given) = match fetch(kernel, caller, &mut admitted).await {
        Ok((read, given)) => (Ok(read), given),
        Err(error) => (Err(error), None),
    };
    // Whoever goes away before this has heard of nothing: the message goes back.
    admitted.after(&read).await;
    read.map(|read| (read, given))
}

async fn fetch(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    admitted: &mut Admitted<SysRead>,
) -> Result<(ReadData, Option<GivenMessage>)> {
    let mut attempts = 0..ATTEMPTS_MAX;
    loop {
        pipe::check_meant(SysRead::OP, admitted.call.pipe, &admitted.first)?;
        // Each time: where nothing was, a pipe may have been made meanwhile.
        if let Some(read) = next_of(kernel, caller, admitted).await {
            return read;
        }
        if let Some(as_of) = admitted.call.as_of {
            let (then, _held) = then_held(kernel, caller, &admitted.call, &admitted.first, as_of).await?;
            return Ok((read_at(kernel, caller, &then, &admitted.call).await?, None));
        }
        let read = read_at(kernel, caller, &admitted.first, &admitted.call).await.map(|read| (read, None));
        if read.is_ok() || attempts.next().is_none() {
            return read;
        }
        // No lock was held when the path was resolved: it may be another entry by now, or on another mount.
        let (now, _) = pass(kernel, caller, &admitted.call).await?;
        // All on the way were directories when it was resolved: that one is not, is no answer, even if it is one again.
        let on_the_way = matches!(&read, Err(error) if error.kind() == ErrorKind::NotADirectory);
        // The same file may have other content by now, and the old one may be collected.
        if now.has_same_content(&admitted.first) && !on_the_way {
            return read;
        }
        admitted.first = now;
    }
}

/// The next message of a pipe, or records of a stream; none when neither is there.
async fn next_of(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    admitted: &mut Admitted<SysRead>,
) -> Option<Result<(ReadData, Option<GivenMessage>)>> {
    let (is_pipe, is_stream) = (pipe::is_there(&admitted.first), records::is_there(&admitted.first));
    if !is_pipe && !is_stream {
        return None;
    }
    let waits = admitted.call.wait.is_some();
    if waits {
        // Whoever swaps a service that saw the call must not wait for as long as the call does.
        admitted.step_aside();
    }
    let (first, call) = (&admitted.first, &admitted.call);
    let read = async {
        if is_pipe {
            let ready = pipe::ready(kernel, caller, SysRead::OP, &call.path, first).await?;
            pipe::read(kernel, ready, call).await
        } else {
            let ready = records::ready(kernel, SysRead::OP, first).await?;
            records::read(kernel, ready, call).await.map(|read| (read, None))
        }
    };
    let read = read.await;
    if waits {
        admitted.step_back();
    }
    Some(read)
}

async fn read_at(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    located: &Located,
    call: &SysRead,
) -> Result<ReadData> {
    let (site, node) = located.clone().existing_file(SysRead::OP)?;
    if matches!(call.extent, Extent::Records(_)) {
        let error = Error::new(SysRead::OP, &site.path, ErrorKind::InvalidArgument);
        return Err(
            error.because(format!("it is a {}, and only a stream has records", node.metadata.entry_type))
        );
    }
    let bytes = content::bytes_in(&call.extent, node.metadata.size);
    if bytes > content::CALL_MAX {
        let error = Error::new(SysRead::OP, &site.path, ErrorKind::TooLarge);
        let why = format!(
            "{bytes} bytes are more than one call carries, {}: ask for ranges, or for a stream",
            content::CALL_MAX
        );
        return Err(error.because(why));
    }
    let volume = Volume::of(kernel, &site);
    // Content by its hash never changes; content that is overwritten in place must not change while it is read.
    let _guard = match volume {
        Volume::Rows(_) | Volume::Sys(_) => None,
        Volume::Paths(_) => Some(read_lock(kernel, caller, &site).await?),
    };
    let read = volume.read(&site, &node, &call.extent).await;
    let ((data, more), metadata) = read.map_err(|error| store_error(SysRead::OP, &site.path, &error))?;
    let mut read = ReadData::new(data, metadata);
    read.more = more;
    Ok(read)
}

async fn read_lock(kernel: &Arc<Kernel>, caller: &Caller, site: &Site) -> Result<PathGuard> {
    let owner = LockOwner { agent: caller.agent.clone(), since: Timestamp(kernel.env().wall()) };
    let lock = kernel.locks().lock(&site.path, Mode::Read, Scope::Entry, owner);
    let locked = kernel.env().timeout(LOCK_WAIT_MAX, lock).await;
    locked.map_err(|_| Error::new(SysRead::OP, &site.path, ErrorKind::TimedOut))
}
