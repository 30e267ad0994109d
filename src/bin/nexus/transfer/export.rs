//! `export`: a tree of the namespace becomes a tree of the host.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::{Either, select};
use nexus::syscall::{SysRead, SysReaddir, SysStat};
use nexus::{ChildSignal, ContentStream, EntryType, ErrorKind, FileMetadata, Op, Timestamp, VPath};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::sync::not_into_stores;
use super::{FOUND_MAX, STREAM_BYTES, Transfer, broken, lanes};
use crate::args::ExportArgs;
use crate::failure::{Failure, Outcome, Status};
use crate::feed::AT_ONCE_MAX;
use crate::listing::Pages;
use crate::session::{Session, path};
use crate::signals::Signals;

/// What the names of files begin with that are on their way to become others.
const BESIDE: &str = ".nexus-export-";

/// What a directory may be used for until all is in it.
const OPEN_DIRECTORY: u32 = 0o700;

/// What a file may be used for until it is whole.
const OPEN_FILE: u32 = 0o600;

/// `export` of a command line of its own: who interrupts it finds no file that is not whole.
pub(crate) async fn export_alone(session: &Arc<Session>, args: ExportArgs) -> Outcome {
    const ENDING: [ChildSignal; 3] = [ChildSignal::Hangup, ChildSignal::Interrupt, ChildSignal::Terminate];
    let mut signals = Signals::listen(session.env(), "export", &ENDING).await?;
    let unfinished = Arc::new(Unfinished::default());
    let signal = {
        let (exporting, next) = (pin!(export_with(session, args, &unfinished)), pin!(signals.next()));
        match select(exporting, next).await {
            Either::Left((done, _)) => return done,
            Either::Right((Some(signal), _)) => signal,
            Either::Right((None, exporting)) => return exporting.await,
        }
    };
    unfinished.end();
    session.out.set_bar(None);
    session.out.ends_with(Status::Command(Signals::shell_status(signal)?));
    Ok(())
}

pub(crate) async fn export(session: &Arc<Session>, args: ExportArgs) -> Outcome {
    export_with(session, args, &Arc::default()).await
}

async fn export_with(session: &Arc<Session>, args: ExportArgs, unfinished: &Arc<Unfinished>) -> Outcome {
    let source = path(Op::Export, &args.source)?;
    let transfer = Arc::new(Transfer::begin("export", session.env(), &session.out));
    let done = Box::pin(run(session, &transfer, &source, &args.destination, unfinished)).await;
    if done.is_err() {
        transfer.end(&session.out);
    }
    done?;
    transfer.report(&session.out)
}

/// Exports all there is. What fails is told and counted; only what concerns the whole is the result.
pub(crate) async fn run(
    session: &Arc<Session>,
    transfer: &Arc<Transfer>,
    source: &VPath,
    destination: &Path,
    unfinished: &Arc<Unfinished>,
) -> Outcome {
    let during = |error: nexus::Error| error.during(Op::Export);
    // What a link at the source leads to is exported, and listed under its own path.
    let top = session.nx.send(SysStat::at(source)).await.map_err(during)?;
    not_into_stores(session, &top.path, destination).await?;
    let (send, items) = flume::bounded(FOUND_MAX);
    let work = Arc::new(Work {
        session: session.clone(),
        transfer: transfer.clone(),
        source: top.path.clone(),
        destination: destination.to_owned(),
        unfinished: unfinished.clone(),
    });
    let worker = work.clone();
    let lanes = lanes(session.env(), items, move |entry| worker.clone().take(entry));
    let find = async move {
        let found = work.find(top, send).await;
        found.map(|directories| (work, directories))
    };
    let (found, taken) = futures_util::future::join(find, lanes).await;
    let (work, directories) = found?;
    taken.map_err(broken("export"))?;
    // The deepest first: what comes into a directory changes its time.
    for (host, entry) in directories.iter().rev() {
        if let Err(error) = settle(host, entry) {
            work.transfer.fail(&work.session.out, &Failure::host("export", host, error));
        }
    }
    Ok(())
}

struct Work {
    session: Arc<Session>,
    transfer: Arc<Transfer>,
    source: VPath,
    destination: PathBuf,
    unfinished: Arc<Unfinished>,
}

impl Work {
    /// Makes the directories, sends the rest to the lanes, and gives the directories made, each before what it holds.
    async fn find(
        &self,
        top: Arc<FileMetadata>,
        send: flume::Sender<Arc<FileMetadata>>,
    ) -> Outcome<Vec<(PathBuf, Arc<FileMetadata>)>> {
        let mut directories = Vec::new();
        if !top.is_directory() {
            self.transfer.expect_file();
            // The lanes are gone only when one of them broke, which is told by itself.
            let _ = send.send_async(top).await;
            return Ok(directories);
        }
        let told = |host: &Path| {
            let host = host.to_owned();
            move |error| Failure::host("export", &host, error)
        };
        make_directory(&self.destination).map_err(told(&self.destination))?;
        directories.push((self.destination.clone(), top));
        Transfer::count(&self.transfer.directories);
        let listing = SysReaddir::at(&self.source).recursive().with_metadata();
        let mut pages = Pages::new(&self.session.nx, listing);
        while let Some(entries) = pages.next().await? {
            pages.left_out("export").for_each(|failure| self.transfer.fail(&self.session.out, &failure));
            for entry in entries {
                let metadata = match entry.metadata {
                    Some(metadata) => metadata,
                    None => match self.session.nx.send(SysStat::at(&entry.path).no_follow()).await {
                        Ok(metadata) => metadata,
                        Err(error) => {
                            self.transfer.fail(&self.session.out, &error.into());
                            continue;
                        }
                    },
                };
                if !metadata.is_directory() {
                    self.transfer.expect_file();
                    if send.send_async(metadata).await.is_err() {
                        return Ok(directories);
                    }
                    continue;
                }
                let host = self.host_of(&metadata.path);
                match make_directory(&host) {
                    Ok(()) => {
                        Transfer::count(&self.transfer.directories);
                        directories.push((host, metadata));
                    }
                    Err(error) => self.transfer.fail(&self.session.out, &told(&host)(error)),
                }
            }
        }
        Ok(directories)
    }

    fn host_of(&self, path: &VPath) -> PathBuf {
        match path.relative_to(&self.source) {
            None | Some("") => self.destination.clone(),
            Some(relative) => self.destination.join(relative),
        }
    }

    async fn take(self: Arc<Self>, entry: Arc<FileMetadata>) {
        if self.unfinished.is_over() {
            return;
        }
        let host = self.host_of(&entry.path);
        let done = match entry.entry_type {
            EntryType::Reg => Box::pin(self.file(&entry, &host)).await,
            EntryType::Link => {
                self.link(&entry, &host).map_err(|error| Failure::host("export", &host, error))
            }
            other => {
                let what = format!("export {}: skipped: a {other} has no content to keep", entry.path);
                return self.transfer.skip(&self.session.out, what);
            }
        };
        match done {
            Ok(()) => {}
            // It was removed since it was listed.
            Err(Failure::Call(error)) if error.kind() == ErrorKind::NotFound => {}
            // That it does not take its place is as it was meant.
            Err(_) if self.unfinished.is_over() => {}
            Err(failure) => self.transfer.fail(&self.session.out, &failure),
        }
    }

    async fn file(&self, entry: &FileMetadata, host: &Path) -> Outcome {
        let _room = self.transfer.room(entry.size.min(STREAM_BYTES)).await;
        let told = |error| Failure::host("export", host, error);
        if entry.size <= AT_ONCE_MAX {
            let read = self.session.nx.send(SysRead::at(&entry.path)).await?;
            write(host, &read.data, &read.metadata, &self.unfinished).map_err(told)?;
            self.transfer.file(read.data.len() as u64);
            return Ok(());
        }
        let stream = self.session.nx.stream(&entry.path).await?;
        let beside = Beside::create(host, &self.unfinished).map_err(told)?;
        let size = pour(stream, beside, told).await?;
        self.transfer.file(size);
        Ok(())
    }

    fn link(&self, entry: &FileMetadata, host: &Path) -> io::Result<()> {
        make_way(host)?;
        symlink(entry.link_target.as_deref().unwrap_or_default(), host)?;
        let modified = match entry.modified {
            // Nobody keeps it.
            Timestamp(0) => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            modified => timespec(modified)?,
        };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: modified,
        };
        utimensat(CWD, host, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Transfer::count(&self.transfer.links);
        Ok(())
    }
}

/// A file beside its place, which it takes when it is whole. It is gone when it does not.
struct Beside {
    file: File,
    beside: PathBuf,
    host: PathBuf,
    unfinished: Arc<Unfinished>,
}

/// The files that are on their way to their places.
#[derive(Default)]
pub(crate) struct Unfinished(Mutex<Files>);

#[derive(Default)]
struct Files {
    paths: HashSet<PathBuf>,
    /// No more come, and none takes its place any more.
    is_over: bool,
}

impl Unfinished {
    fn is_over(&self) -> bool {
        self.0.lock().is_over
    }

    /// Removes those that are there. From now on none takes its place.
    fn end(&self) {
        let mut files = self.0.lock();
        files.is_over = true;
        for path in files.paths.drain() {
            // That it cannot be removed says nothing more: it is not the file.
            let _ = fs::remove_file(path);
        }
    }
}

impl Beside {
    /// Makes it. What a process left there that was killed goes, so that no link leads the bytes elsewhere.
    fn create(host: &Path, unfinished: &Arc<Unfinished>) -> io::Result<Self> {
        let beside = beside(host);
        let mut files = unfinished.0.lock();
        if files.is_over {
            return Err(io::ErrorKind::Interrupted.into());
        }
        make_way(&beside)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(OPEN_FILE).open(&beside)?;
        files.paths.insert(beside.clone());
        drop(files);
        Ok(Self { file, beside, host: host.to_owned(), unfinished: unfinished.clone() })
    }

    /// It is whole, and takes its place. A file or a link that is there goes in the same moment; a directory stays, and this fails.
    fn finish(self, entry: &FileMetadata) -> io::Result<()> {
        describe(&self.file, entry)?;
        let mut files = self.unfinished.0.lock();
        if files.is_over {
            return Err(io::ErrorKind::Interrupted.into());
        }
        fs::rename(&self.beside, &self.host)?;
        files.paths.remove(&self.beside);
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.unfinished.0.lock().paths.remove(&self.beside) {
            // That it cannot be removed says nothing more: it is not the file.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// What a file is until it takes the place of `host`. The same each time, so that who exports it again finds what was left.
fn beside(host: &Path) -> PathBuf {
    let name = host.file_name().unwrap_or_default();
    host.with_file_name(format!("{BESIDE}{:016x}", nexus::hash_of(&name.to_string_lossy())))
}

/// Writes a file at once.
fn write(host: &Path, data: &[u8], entry: &FileMetadata, unfinished: &Arc<Unfinished>) -> io::Result<()> {
    let mut beside = Beside::create(host, unfinished)?;
    beside.file.write_all(data)?;
    beside.finish(entry)
}

/// Writes all that the stream has, and says how much it was.
async fn pour(
    mut stream: ContentStream,
    mut beside: Beside,
    told: impl Fn(io::Error) -> Failure,
) -> Outcome<u64> {
    let mut size = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        if beside.unfinished.is_over() {
            return Err(told(io::ErrorKind::Interrupted.into()));
        }
        beside.file.write_all(&piece).map_err(&told)?;
        size += piece.len() as u64;
    }
    beside.finish(stream.metadata()).map_err(&told)?;
    Ok(size)
}

fn describe(file: &File, entry: &FileMetadata) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(entry.mode))?;
    match entry.modified {
        // Nobody keeps it.
        Timestamp(0) => Ok(()),
        modified => file.set_times(FileTimes::new().set_modified(time(modified))),
    }
}

fn time(at: Timestamp) -> SystemTime {
    at.into()
}

fn timespec(at: Timestamp) -> io::Result<Timespec> {
    let since = time(at).duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(Timespec {
        tv_sec: since.as_secs().try_into().map_err(io::Error::other)?,
        tv_nsec: since.subsec_nanos().into(),
    })
}

/// Removes a file or link that is in the way. A directory stays, and what follows fails.
fn make_way(host: &Path) -> io::Result<()> {
    match fs::symlink_metadata(host) {
        Ok(there) if !there.is_dir() => fs::remove_file(host),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A directory that is ours to fill. One that is there is kept; a link to one is not one.
fn make_directory(host: &Path) -> io::Result<()> {
    match fs::create_dir(host) {
        Ok(()) => fs::set_permissions(host, Permissions::from_mode(OPEN_DIRECTORY)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = fs::symlink_metadata(host)?;
            let mode = there.permissions().mode();
            match there.is_dir() {
                // It gets its mode when nothing more comes into it.
                true if mode & OPEN_DIRECTORY != OPEN_DIRECTORY => {
                    fs::set_permissions(host, Permissions::from_mode(mode | OPEN_DIRECTORY))
                }
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(NOT_A_DIRECTORY)),
            }
        }
        Err(error) => Err(error),
    }
}

const NOT_A_DIRECTORY: i32 = rustix::io::Errno::NOTDIR.raw_os_error();

/// Gives a directory its mode and time, now that nothing more comes into it.
fn settle(host: &Path, entry: &FileMetadata) -> io::Result<()> {
    let directory = File::open(host)?;
    describe(&directory, entry)
}
