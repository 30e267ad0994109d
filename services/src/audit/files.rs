//! The files of one log: where it ends, appending to it so that only one writer can, and reading it.

use bytes::Bytes;
use nexus_kernel::service::Syscalls;
use nexus_messages::syscall::{Precondition, SysRead, SysReaddir, SysWrite};
use nexus_messages::{Error, ErrorKind, FileMetadata, Lsn, Op, Result, VPath};

use super::state::{Batch, Entry, Log, Tip, last_of, name_of, parse_name};

/// The end of a log, as it was when it was looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct End {
    pub(super) tip: Tip,
    /// The segment to append to; none when the next one is to be made.
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    path: VPath,
    size: u64,
    generation: u64,
}

impl Open {
    fn of(metadata: &FileMetadata) -> Self {
        Self { path: metadata.path.clone(), size: metadata.size, generation: metadata.generation }
    }
}

/// The folder of a log.
pub(super) fn folder(directory: &VPath, zone: &str, log: Log) -> Result<VPath> {
    let folder = directory.join(zone).and_then(|folder| folder.join(log.name()));
    folder.map_err(|why| Error::bad_path(Op::Service, zone, &why))
}

/// The names of the segments in `folder`, in their order, from the one on that has record `from`; none when nothing was logged yet. What is no
/// segment is among them: it does not belong there.
pub(super) async fn segments(calls: &Syscalls, folder: &VPath, from: u64) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut list = SysReaddir::at(folder);
    loop {
        let page = match calls.send(list.clone()).await {
            Ok(page) => page,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(error),
        };
        for entry in page.entries {
            // Of those that begin before `from`, only the last can have it.
            if parse_name(entry.name()).is_some_and(|first| first <= from) {
                names.clear();
            }
            names.push(entry.name().to_owned());
        }
        let Some(next) = page.next else { return Ok(names) };
        list = list.after(next);
    }
}

/// The content of the segment `name`.
pub(super) async fn read(calls: &Syscalls, folder: &VPath, name: &str) -> Result<Bytes> {
    let path = folder.join(name).map_err(|why| Error::bad_path(Op::Service, name, &why))?;
    Ok(calls.send(SysRead::at(path)).await?.data)
}

/// Where the log in `folder` ends.
///
/// # Errors
/// `EIO` when its last record cannot be read: there is nothing to chain to then.
pub(super) async fn end(calls: &Syscalls, folder: &VPath) -> Result<End> {
    let names = segments(calls, folder, u64::MAX).await?;
    let Some(name) = names.iter().rev().find(|name| parse_name(name).is_some()) else {
        return Ok(End::default());
    };
    let path = folder.join(name).map_err(|why| Error::bad_path(Op::Service, name, &why))?;
    let read = calls.send(SysRead::at(&path)).await?;
    let Some((last, link)) = last_of(&read.data) else {
        return Err(Error::new(Op::Service, &path, ErrorKind::Corrupt)
            .because("the log's last record cannot be read, so none can follow it"));
    };
    let sealed = matches!(last.entry, Entry::Sealed { .. });
    let told = last.entry.lsn().unwrap_or(Lsn(0));
    let open = (!sealed).then(|| Open::of(&read.metadata));
    Ok(End { tip: Tip { link, told }, open })
}

/// Appends `batch`, which follows `end`, in one commit: whole, or not at all. Gives the new end.
///
/// # Errors
/// `ECANCELED`, `EEXIST` and `ENOENT` when the log does not end at `end` any more, because somebody else has appended to it. Whatever the error,
/// where the log ends is to be looked at again.
pub(super) async fn append(calls: &Syscalls, folder: &VPath, end: &End, batch: Batch) -> Result<End> {
    let Batch { tip, text, sealed, .. } = batch;
    let write = match &end.open {
        Some(open) => SysWrite::at(&open.path, text).append().when(Precondition::Generation(open.generation)),
        None => {
            let name = name_of(end.tip.link.n);
            let path = folder.join(&name).map_err(|why| Error::bad_path(Op::Service, &name, &why))?;
            SysWrite::at(path, text).create_exclusive()
        }
    };
    let written = calls.send(write).await?;
    Ok(End { tip, open: (!sealed).then(|| Open::of(&written.metadata)) })
}

/// Begins a batch that follows `end`.
pub(super) fn begin(end: &End) -> Batch {
    Batch::after(end.tip)
}

/// How large the open segment is.
pub(super) fn size(end: &End) -> u64 {
    end.open.as_ref().map_or(0, |open| open.size)
}

/// How much may be appended at once so that the open segment hardly grows above `segment_bytes`: something in any case.
pub(super) fn room(end: &End, segment_bytes: u64) -> u64 {
    segment_bytes.saturating_sub(size(end)).max(1)
}

/// Whether the error says that the log ends elsewhere by now.
pub(super) fn is_overtaken(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PreconditionFailed | ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Busy
    )
}
