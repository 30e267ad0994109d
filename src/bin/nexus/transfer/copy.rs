//! `cp`: a file, or a tree, within the namespace.

use std::sync::Arc;

use nexus::syscall::{DirEntry, SysCopy, SysReaddir, SysSetattr, SysStat};
use nexus::{AsOf, Attributes, EntryType, Error, ErrorKind, FileMetadata, Op, VPath};
use parking_lot::Mutex;
use serde_json::json;

use super::{FOUND_MAX, Transfer, broken, is_folder, lanes};
use crate::args::CpArgs;
use crate::failure::Outcome;
use crate::listing::Pages;
use crate::session::{Session, path};

/// What a directory may be used for until all is in it.
const OPEN_DIRECTORY: u32 = 0o700;

pub(crate) async fn cp(session: &Arc<Session>, args: CpArgs) -> Outcome {
    let (from, to) = (path(Op::Copy, &args.from)?, path(Op::Copy, &args.to)?);
    let as_of = session.as_of(&args.then);
    let transfer = Arc::new(Transfer::begin("copy", session.env(), &session.out));
    let done = Box::pin(copy(session, &transfer, (&from, as_of), &to, args.recursive)).await;
    let counts = transfer.end(&session.out);
    done?;
    session.out.quiet(&json!({
        "from": from,
        "to": to,
        "files": counts.files,
        "bytes": counts.bytes,
        "directories": counts.directories,
        "links": counts.links,
        "skipped": counts.skipped,
        "failed": counts.failed,
    }))
}

async fn copy(
    session: &Arc<Session>,
    transfer: &Arc<Transfer>,
    (from, as_of): (&VPath, Option<AsOf>),
    to: &VPath,
    recursive: bool,
) -> Outcome {
    let during = |error: Error| error.during(Op::Copy);
    let top = session.nx.send(look(SysStat::at(from), as_of)).await.map_err(during)?;
    if !top.is_directory() {
        let mut call = SysCopy::new(from, to);
        call.as_of = as_of;
        let done = session.nx.send(call).await?;
        transfer.file(done.size);
        return Ok(());
    }
    let refuse = |kind, why: &str| Err(Error::new(Op::Copy, from, kind).because(why).into());
    if !recursive {
        return refuse(ErrorKind::IsADirectory, "-r copies directories");
    }
    let there = match session.nx.send(SysStat::at(to)).await {
        Ok(entry) => entry.path.clone(),
        Err(error) if error.kind() == ErrorKind::NotFound => real(session, to).await?,
        Err(error) => return Err(during(error).into()),
    };
    // What was does not change by what is made of it.
    if as_of.is_none() && there == top.path {
        return Ok(());
    }
    if as_of.is_none() && there.is_within(&top.path) {
        return refuse(ErrorKind::InvalidArgument, "a directory cannot be copied into itself");
    }
    let (send, items) = flume::bounded(FOUND_MAX);
    let work = Arc::new(Work {
        session: session.clone(),
        transfer: transfer.clone(),
        from: top.path.clone(),
        as_of,
        to: to.clone(),
        closed: Mutex::default(),
    });
    let worker = work.clone();
    let lanes = lanes(session.env(), items, move |entry| worker.clone().take(entry));
    let finder = work.clone();
    let find = async move { finder.find(&top, send).await };
    let (found, taken) = futures_util::future::join(find, lanes).await;
    work.close().await;
    found?;
    taken.map_err(broken("copy"))
}

/// The same look as of then.
fn look(mut call: SysStat, as_of: Option<AsOf>) -> SysStat {
    call.as_of = as_of;
    call
}

/// Where a path that does not exist would really be: its nearest ancestor that exists is looked at.
async fn real(session: &Session, path: &VPath) -> Outcome<VPath> {
    let mut above = path.parent();
    while let Some(ancestor) = above {
        match session.nx.send(SysStat::at(&ancestor)).await {
            Ok(entry) => {
                let rebased = path.rebase(&ancestor, &entry.path).and_then(Result::ok);
                return Ok(rebased.unwrap_or_else(|| path.clone()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => above = ancestor.parent(),
            Err(error) => return Err(error.during(Op::Copy).into()),
        }
    }
    Ok(path.clone())
}

struct Work {
    session: Arc<Session>,
    transfer: Arc<Transfer>,
    from: VPath,
    as_of: Option<AsOf>,
    to: VPath,
    /// Directories that are to be closed to their owner when all is in them, with their modes; each before what it holds.
    closed: Mutex<Vec<(VPath, u32)>>,
}

impl Work {
    /// Makes the directories, and sends the rest to the lanes.
    async fn find(&self, top: &FileMetadata, send: flume::Sender<DirEntry>) -> Outcome {
        self.directory(&self.from, &self.to, top).await?;
        let mut listing = SysReaddir::at(&self.from).recursive().with_metadata();
        listing.as_of = self.as_of;
        let mut pages = Pages::new(&self.session.nx, listing);
        while let Some(entries) = pages.next().await? {
            pages.left_out("copy").for_each(|failure| self.transfer.fail(&self.session.out, &failure));
            for entry in entries {
                if !entry.entry_type.is_directory() {
                    if send.send_async(entry).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                let metadata = match &entry.metadata {
                    Some(metadata) => metadata.clone(),
                    None => self.stat(&entry.path).await?,
                };
                let done = async { self.directory(&entry.path, &self.target(&entry.path)?, &metadata).await };
                if let Err(failure) = done.await {
                    self.transfer.fail(&self.session.out, &failure);
                }
            }
        }
        Ok(())
    }

    async fn stat(&self, at: &VPath) -> Outcome<Arc<FileMetadata>> {
        Ok(self.session.nx.send(look(SysStat::at(at).no_follow(), self.as_of)).await?)
    }

    async fn directory(&self, from: &VPath, to: &VPath, like: &FileMetadata) -> Outcome {
        // Until all is in it, its mode does not keep its owner from filling it.
        let attributes = Attributes::none().mode(like.mode | OPEN_DIRECTORY);
        let call = SysSetattr::directory(to).attributes(attributes);
        match self.session.nx.send(call).await {
            // Where folders are only implied, files bring theirs along.
            Err(error) if error.kind() == ErrorKind::NotSupported => {
                if self.is_empty(from).await? && !is_folder(&self.session, to, Op::Copy).await? {
                    self.transfer.skip_empty(&self.session.out, from, to);
                }
                return Ok(());
            }
            made => made.map_err(|error| error.during(Op::Copy))?,
        };
        if like.mode & OPEN_DIRECTORY != OPEN_DIRECTORY {
            self.closed.lock().push((to.clone(), like.mode));
        }
        Transfer::count(&self.transfer.directories);
        Ok(())
    }

    /// Gives directories their modes that could not be filled with them.
    async fn close(&self) {
        let closed = std::mem::take(&mut *self.closed.lock());
        for (at, mode) in closed.into_iter().rev() {
            let call = SysSetattr::at(&at).attributes(Attributes::none().mode(mode));
            match self.session.nx.send(call).await {
                // Where no modes are kept.
                Err(error) if error.kind() == ErrorKind::NotSupported => {}
                Err(error) => self.transfer.fail(&self.session.out, &error.during(Op::Copy).into()),
                Ok(_) => {}
            }
        }
    }

    async fn is_empty(&self, folder: &VPath) -> Outcome<bool> {
        let mut listing = SysReaddir::at(folder).limit(1);
        listing.as_of = self.as_of;
        let listed = self.session.nx.send(listing).await.map_err(|error| error.during(Op::Copy))?;
        Ok(listed.entries.is_empty())
    }

    fn target(&self, path: &VPath) -> Outcome<VPath> {
        match path.rebase(&self.from, &self.to) {
            Some(Ok(target)) => Ok(target),
            Some(Err(why)) => Err(Error::bad_path(Op::Copy, path.as_str(), &why).into()),
            None => Ok(self.to.clone()),
        }
    }

    async fn take(self: Arc<Self>, entry: DirEntry) {
        let done = async {
            let target = self.target(&entry.path)?;
            match entry.entry_type {
                EntryType::Reg => {
                    let mut call = SysCopy::new(&entry.path, target);
                    call.as_of = self.as_of;
                    let done = self.session.nx.send(call).await?;
                    self.transfer.file(done.size);
                }
                EntryType::Link => {
                    let metadata = self.stat(&entry.path).await?;
                    let to = metadata.link_target.clone().unwrap_or_default();
                    let done = self.session.nx.send(SysSetattr::link(target, to)).await;
                    done.map_err(|error| error.during(Op::Copy))?;
                    Transfer::count(&self.transfer.links);
                }
                other => {
                    let what = format!("copy {}: skipped: a {other} has no content to copy", entry.path);
                    self.transfer.skip(&self.session.out, what);
                }
            }
            Ok(())
        };
        if let Err(failure) = Box::pin(done).await {
            self.transfer.fail(&self.session.out, &failure);
        }
    }
}
