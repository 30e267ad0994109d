//! `import`: a tree of the host becomes a tree of the namespace.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::{OptionFuture, join3};
use futures_util::{StreamExt, stream};
use nexus::syscall::{SysSetattr, SysStat, SysUnlink, SysWrite};
use nexus::{Attributes, EntryType, Error, ErrorKind, FileMetadata, Op, Timestamp, VPath};
use nexus_actors::Latch;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use serde_json::json;

use super::walk::{Found, Kind, count, walk};
use super::{FOUND_MAX, IN_FLIGHT, STREAM_BYTES, Transfer, broken, is_folder, lanes};
use crate::args::ImportArgs;
use crate::failure::{Failure, Outcome, shown};
use crate::feed;
use crate::session::{Session, path};

/// What a folder may be used for until all is in it.
const OPEN_FOLDER: u32 = 0o700;

/// The permission bits of a mode of the host.
const PERMISSIONS: u32 = 0o7777;

/// What to import, and how.
pub(crate) struct Import {
    pub(crate) source: PathBuf,
    pub(crate) destination: VPath,
    pub(crate) verbose: bool,
    pub(crate) force: bool,
    /// Leaves out `.git` and what `.gitignore` ignores.
    pub(crate) tracked_only: bool,
    /// How many files at most; the rest is left out.
    pub(crate) files_max: u64,
    /// How many bytes at most; the file that goes beyond is the last.
    pub(crate) bytes_max: u64,
}

pub(crate) async fn import(session: &Arc<Session>, args: ImportArgs) -> Outcome {
    let import = Import {
        destination: path(Op::Import, &args.destination)?,
        verbose: args.verbose,
        force: args.force,
        ..Import::new(args.source)
    };
    let transfer = Arc::new(Transfer::begin("import", session.env(), &session.out));
    let done = Box::pin(import.run(session, &transfer)).await;
    if done.is_err() {
        transfer.end(&session.out);
    }
    done?;
    transfer.report(&session.out)
}

impl Import {
    /// All of `source`, into the root.
    pub(crate) fn new(source: PathBuf) -> Self {
        Self {
            source,
            destination: VPath::root(),
            verbose: false,
            force: false,
            tracked_only: false,
            files_max: u64::MAX,
            bytes_max: u64::MAX,
        }
    }

    /// Imports all there is. What fails is told and counted; only what concerns the whole is the result.
    pub(crate) async fn run(self, session: &Arc<Session>, transfer: &Arc<Transfer>) -> Outcome {
        let source =
            fs::metadata(&self.source).map_err(|error| Failure::host("import", &self.source, error))?;
        if !source.is_dir() && !source.is_file() {
            let error = std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "neither a file nor a directory (EINVAL)",
            );
            return Err(Failure::host("import", &self.source, error));
        }
        let env = session.env().clone();
        let (send, items) = flume::bounded(FOUND_MAX);
        let work = Arc::new(Work {
            import: self,
            session: session.clone(),
            transfer: transfer.clone(),
            directories: Mutex::default(),
        });
        // One thread walks; when somebody sees the bar, another one counts what is to come.
        let walking = env.pool("import-walk", 2, 2);
        let counter = transfer.is_shown().then(|| {
            let (transfer, source) = (transfer.clone(), work.import.source.clone());
            let tracked_only = work.import.tracked_only;
            walking.run(move || count(&transfer, &source, tracked_only))
        });
        let finder = {
            let work = work.clone();
            walking.run(move || work.find(source.is_file(), &send))
        };
        let worker = work.clone();
        let lanes = lanes(&env, items, move |item| worker.clone().take(item));
        let (counted, found, taken) = join3(OptionFuture::from(counter), finder, lanes).await;
        counted.unwrap_or(Ok(())).and(found).and(taken).map_err(broken("import"))?;
        work.settle().await;
        Ok(())
    }
}

/// An entry, and the directory that it comes into.
struct Item {
    found: Found,
    /// Set when the directory is made. Were entries made before it, then each of them would make it, and all but one in vain.
    parent: Option<Latch<()>>,
    /// Set when this is made, for what comes into it.
    made: Latch<()>,
}

struct Work {
    import: Import,
    session: Arc<Session>,
    transfer: Arc<Transfer>,
    /// The directories and what they shall be in the end: what comes into a directory may change its time.
    directories: Mutex<Vec<(VPath, Attributes)>>,
}

impl Work {
    /// Sends what there is to the lanes. Blocks.
    fn find(&self, is_file: bool, send: &flume::Sender<Item>) {
        let (source, destination) = (&self.import.source, &self.import.destination);
        if is_file {
            let found = Found { host: source.clone(), path: destination.clone(), kind: Kind::File, depth: 0 };
            // The lanes are gone only when one of them broke, which is told by itself.
            let _ = send.send(Item { found, parent: None, made: Latch::new() });
            return;
        }
        let (mut files, mut bytes) = (0, 0);
        // The directories that lead to where the walk is.
        let mut way: Vec<Latch<()>> = Vec::new();
        for found in walk(&self.session, &self.transfer, source, destination, self.import.tracked_only) {
            if found.kind == Kind::File {
                files += 1;
                if files > self.import.files_max || bytes > self.import.bytes_max {
                    break;
                }
                if self.import.bytes_max < u64::MAX {
                    bytes += fs::symlink_metadata(&found.host).map_or(0, |host| host.len());
                }
            }
            way.truncate(found.depth);
            let (parent, made) = (way.last().cloned(), Latch::new());
            if found.kind == Kind::Directory {
                way.push(made.clone());
            }
            if self.transfer.is_hopeless() || send.send(Item { found, parent, made }).is_err() {
                break;
            }
        }
    }

    async fn take(self: Arc<Self>, item: Item) {
        // Lanes take entries in the order of the walk, so the directory is under way.
        if let Some(parent) = &item.parent {
            parent.wait().await;
        }
        if !self.transfer.is_hopeless() {
            self.make(&item.found).await;
        }
        item.made.set(());
    }

    async fn make(&self, found: &Found) {
        let done = match found.kind {
            Kind::File => Box::pin(self.file(found)).await.map(|()| true),
            Kind::Directory => Box::pin(self.directory(found)).await,
            Kind::Link => Box::pin(self.link(found)).await.map(|()| true),
        };
        match done {
            Ok(true) if self.import.verbose => {
                let out = &self.session.out;
                // An import goes on when nobody listens any more.
                let _ =
                    out.either(&json!({ "imported": found.path }), &found.path).and_then(|()| out.flush());
            }
            Ok(_) => {}
            Err(failure) => self.transfer.fail(&self.session.out, &failure.during(Op::Import)),
        }
    }

    async fn file(&self, found: &Found) -> Outcome {
        let told = |error| Failure::host("import", &found.host, error);
        // Should it have become a pipe or a link since it was found, then we neither wait for it nor follow it.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        #[expect(clippy::cast_possible_wrap, reason = "flags are bits")]
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(if found.host == self.import.source { 0 } else { flags.bits() as i32 })
            .open(&found.host)
            .map_err(told)?;
        let host = file.metadata().map_err(told)?;
        if !host.is_file() {
            return Err(told(std::io::Error::other("it is no file any more")));
        }
        let attributes = attributes(&host);
        let there = self.there(&found.path).await?;
        if let Some(entry) = &there {
            self.same_type(entry, EntryType::Reg)?;
            if !self.import.force && entry.size == host.len() && already(entry, &attributes) {
                Transfer::count(&self.transfer.unchanged);
                self.transfer.file(host.len());
                return Ok(());
            }
        }
        let _room = self.transfer.room(host.len().min(STREAM_BYTES)).await;
        let call = SysWrite::vectored(&found.path, Vec::new()).create().attributes(attributes);
        let written = feed::write(&self.session.nx, call, &mut file).await.map_err(told)??;
        self.transfer.file(written.written);
        Ok(())
    }

    /// Gives whether it is there, or will be with what lies in it.
    async fn directory(&self, found: &Found) -> Outcome<bool> {
        let host = fs::metadata(&found.host).map_err(|error| Failure::host("import", &found.host, error))?;
        let attributes = attributes(&host);
        // A mount point belongs to its mount; what is imported comes below it.
        let there = self.there(&found.path).await?;
        if there.as_ref().is_none_or(|entry| !entry.entry_type.is_mount_point()) {
            // Until all is in it, its mode does not keep its owner from filling it.
            let open = attributes.clone().mode(host.mode() & PERMISSIONS | OPEN_FOLDER);
            if !there.is_some_and(|entry| !entry.implicit && already(&entry, &open)) {
                let call = SysSetattr::directory(&found.path).attributes(open);
                match self.session.nx.send(call).await {
                    // Where folders are only implied, files bring theirs along.
                    Err(error) if error.kind() == ErrorKind::NotSupported => {
                        let is_empty = fs::read_dir(&found.host)
                            .map_err(|error| Failure::host("import", &found.host, error))?
                            .next()
                            .is_none();
                        let comes = !is_empty || is_folder(&self.session, &found.path, Op::Import).await?;
                        if !comes {
                            self.transfer.skip_empty(&self.session.out, shown(&found.host), &found.path);
                        }
                        return Ok(comes);
                    }
                    made => made?,
                };
            }
            self.directories.lock().push((found.path.clone(), attributes));
        }
        Transfer::count(&self.transfer.directories);
        Ok(true)
    }

    async fn link(&self, found: &Found) -> Outcome {
        let told = |error| Failure::host("import", &found.host, error);
        let host = fs::symlink_metadata(&found.host).map_err(told)?;
        let target = fs::read_link(&found.host).map_err(told)?;
        let Some(target) = target.to_str() else {
            let error =
                std::io::Error::other("the link's target is not UTF-8, which a path must be (EILSEQ)");
            return Err(told(error));
        };
        let attributes = Attributes::none().modified(modified(&host));
        let call = SysSetattr::link(&found.path, target).attributes(attributes.clone());
        if let Some(entry) = self.there(&found.path).await? {
            self.same_type(&entry, EntryType::Link)?;
            if entry.link_target.as_deref() == Some(target) && already(&entry, &attributes) {
                Transfer::count(&self.transfer.unchanged);
                Transfer::count(&self.transfer.links);
                return Ok(());
            }
            if entry.link_target.as_deref() != Some(target) {
                self.session.nx.send(SysUnlink::at(&found.path)).await?;
            }
        }
        self.session.nx.send(call).await?;
        Transfer::count(&self.transfer.links);
        Ok(())
    }

    /// What is at the path itself.
    async fn there(&self, path: &VPath) -> Outcome<Option<Arc<FileMetadata>>> {
        match self.session.nx.send(SysStat::at(path).no_follow()).await {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.during(Op::Import).into()),
        }
    }

    fn same_type(&self, entry: &FileMetadata, wanted: EntryType) -> Outcome {
        if entry.entry_type == wanted {
            return Ok(());
        }
        let kind = if entry.is_directory() { ErrorKind::IsADirectory } else { ErrorKind::AlreadyExists };
        let why = format!("a {} is there, and a {wanted} is to be imported", entry.entry_type);
        Err(Error::new(Op::Import, &entry.path, kind).because(why).into())
    }

    /// Gives the directories their times again, where what came into them changed these.
    async fn settle(&self) {
        if self.transfer.is_hopeless() {
            return;
        }
        let directories = std::mem::take(&mut *self.directories.lock());
        let settling = stream::iter(directories).for_each_concurrent(IN_FLIGHT, |(path, attributes)| {
            Box::pin(async move {
                let done = async {
                    if !self.there(&path).await?.is_some_and(|entry| already(&entry, &attributes)) {
                        self.session.nx.send(SysSetattr::directory(&path).attributes(attributes)).await?;
                    }
                    Outcome::Ok(())
                };
                if let Err(failure) = done.await {
                    self.transfer.fail(&self.session.out, &failure.during(Op::Import));
                }
            })
        });
        settling.await;
    }
}

fn attributes(host: &fs::Metadata) -> Attributes {
    Attributes::none().mode(host.mode() & PERMISSIONS).modified(modified(host))
}

fn modified(host: &fs::Metadata) -> Timestamp {
    host.modified().map(Timestamp::from).unwrap_or_default()
}

/// Whether the entry has these attributes.
fn already(entry: &FileMetadata, wanted: &Attributes) -> bool {
    wanted.mode.is_none_or(|mode| mode == entry.mode) && wanted.modified.is_none_or(|at| at == entry.modified)
}
