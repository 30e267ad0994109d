//! The same kernel without `async`: for programs that have no runtime, and for threads outside of it.
//!
//! Each method waits on the calling thread for its twin on [`crate::Nexus`]. Not to be called from a task of an executor, whose thread it
//! would hold.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let nx = nexus::blocking::connect(folder)?;
//! nx.mkdir("/a/b")?;
//! nx.append("/a/b/log.txt", "one\n")?;
//! nx.append("/a/b/log.txt", "two\n")?;
//! assert_eq!(nx.read("/a/b/log.txt")?, "one\ntwo\n");
//! let all: nexus::Result<Vec<_>> = nx.walk("/").collect();
//! assert_eq!(all?.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod group;

use std::num::NonZeroU32;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, ExitReason, block_on};
use nexus_kernel::dispatch::{HookId, HookInfo, Registration};
use nexus_kernel::gate::{Permission, Right};
use nexus_kernel::sys::ActorEntry;
use nexus_kernel::{Kernel, MigrationStatus, MountStatus, Semaphore, Serve};
use nexus_messages::syscall::{
    AsOf, Copied, DirEntry, DriverSwapped, Kept, Locked, MountSpec, OpOutcome, PipeSpec, Precondition,
    Record, Renamed, SetattrDone, StreamSpec, StreamStart, Synced, SysLock, SysWrite, Transacted, TxOp,
    Unlinked, Unlocked, Version, Watched, Written,
};
use nexus_messages::{
    Caller, ChildEntry, ChildExit, ChildId, ChildSignal, ChildSpec, ContentId, Event, EventMask,
    FileMetadata, IntoPath, LockId, Lsn, OpId, Receipt, Result, VPath,
};
use nexus_supervisors::Kill;

use crate::MappedStream;
pub use group::Consumer;

use crate::attach::ServingStats;
use crate::config::Config;
use crate::tier2::locks::{lock_call, unlock_call};
use crate::tier2::{FileMatches, Grep, GrepReport, GrepStats, LockGuard, WatchItem};

/// Boots a kernel and gives the administrator's handle to it; the twin of [`crate::connect`]. Blocks.
///
/// # Errors
/// As [`crate::connect`].
pub fn connect(config: impl Into<Config>) -> Result<Nexus> {
    let config = config.into();
    let nx = match config.env.clone() {
        // In a simulation it is this thread that runs everything.
        Some(env) => env.blocking_wait(crate::connect(config)),
        None => block_on(crate::connect(config)),
    };
    nx.map(Nexus)
}

/// Attaches to the kernel that owns the data folder; the twin of [`crate::attach()`]. Blocks.
///
/// # Errors
/// As [`crate::attach()`].
pub fn attach(folder: impl AsRef<std::path::Path>) -> Result<Nexus> {
    block_on(crate::attach(folder)).map(Nexus)
}

/// Boots a kernel, or attaches to the one that owns the data folder; the twin of [`crate::connect_or_attach`]. Blocks.
///
/// # Errors
/// As [`crate::connect_or_attach`].
pub fn connect_or_attach(config: impl Into<Config>) -> Result<Nexus> {
    let config = config.into();
    let nx = match config.env.clone() {
        // In a simulation it is this thread that runs everything.
        Some(env) => env.blocking_wait(crate::connect_or_attach(config)),
        None => block_on(crate::connect_or_attach(config)),
    };
    nx.map(Nexus)
}

/// A handle to a kernel whose methods block; see the [module](self).
#[derive(Debug, Clone)]
pub struct Nexus(crate::Nexus);

macro_rules! twins {
    ($($name:ident$(<$($generic:ident: $bound:path),*>)?($($arg:ident: $type:ty),*) -> $done:ty;)*) => {
        impl Nexus {$(
            #[doc = concat!("As [`crate::Nexus::", stringify!($name), "`], and blocks.")]
            ///
            /// # Errors
            #[doc = concat!("As [`crate::Nexus::", stringify!($name), "`].")]
            pub fn $name$(<$($generic: $bound),*>)?(&self, $($arg: $type),*) -> $done {
                self.env().blocking_wait(self.0.$name($($arg),*))
            }
        )*}
    };
}

twins! {
    stat(at: impl IntoPath) -> Result<Arc<FileMetadata>>;
    lstat(at: impl IntoPath) -> Result<Arc<FileMetadata>>;
    exists(at: impl IntoPath) -> Result<bool>;
    is_directory(at: impl IntoPath) -> Result<bool>;
    access(at: impl IntoPath, right: Right) -> Result<bool>;
    read(at: impl IntoPath) -> Result<Bytes>;
    read_range(at: impl IntoPath, offset: u64, count: u64) -> Result<Bytes>;
    write(at: impl IntoPath, data: impl Into<Bytes>) -> Result<Written>;
    append(at: impl IntoPath, data: impl Into<Bytes>) -> Result<Written>;
    edit(at: impl IntoPath, old: impl Into<Bytes>, new: impl Into<Bytes>) -> Result<Written>;
    edit_all(at: impl IntoPath, old: impl Into<Bytes>, new: impl Into<Bytes>) -> Result<Written>;
    stat_at(at: impl IntoPath, as_of: AsOf) -> Result<Arc<FileMetadata>>;
    read_at(at: impl IntoPath, as_of: AsOf) -> Result<Bytes>;
    versions(at: impl IntoPath) -> Result<Vec<Version>>;
    versions_of_file(at: impl IntoPath) -> Result<Vec<Version>>;
    restore(at: impl IntoPath, as_of: AsOf) -> Result<Copied>;
    receipt(receipt: Receipt) -> Result<Kept>;
    outcome(op_id: OpId) -> Result<OpOutcome>;
    sync(at: impl IntoPath) -> Result<Synced>;
    copy(from: impl IntoPath, to: impl IntoPath) -> Result<Copied>;
    mkdir(at: impl IntoPath) -> Result<SetattrDone>;
    make_pipe(at: impl IntoPath, capacity: u32) -> Result<SetattrDone>;
    make_pipe_with(at: impl IntoPath, spec: PipeSpec) -> Result<SetattrDone>;
    map_stream(at: impl IntoPath) -> Result<MappedStream>;
    make_stream(at: impl IntoPath, spec: StreamSpec) -> Result<SetattrDone>;
    append_record(at: impl IntoPath, record: impl Into<Bytes>) -> Result<u64>;
    append_records(at: impl IntoPath, records: Vec<Bytes>) -> Result<u64>;
    mkdir_new(at: impl IntoPath) -> Result<SetattrDone>;
    rmdir(at: impl IntoPath) -> Result<Unlinked>;
    unlink(at: impl IntoPath) -> Result<Unlinked>;
    remove_all(at: impl IntoPath) -> Result<Unlinked>;
    rename(from: impl IntoPath, to: impl IntoPath) -> Result<Renamed>;
    rename_new(from: impl IntoPath, to: impl IntoPath) -> Result<Renamed>;
    link(at: impl IntoPath, target: impl AsRef<str>) -> Result<SetattrDone>;
    readdir(at: impl IntoPath) -> Result<Vec<DirEntry>>;
    glob(pattern: impl AsRef<str>) -> Result<Vec<VPath>>;
    grep(grep: Grep) -> Result<GrepReport>;
    mount(at: impl IntoPath, spec: MountSpec) -> Result<SetattrDone>;
    swap_driver(at: impl IntoPath, spec: MountSpec) -> Result<DriverSwapped>;
    migrate(at: impl IntoPath, to: MountSpec, modes: bool) -> Result<()>;
    migrations() -> Result<Vec<MigrationStatus>>;
    abort_migration(at: impl IntoPath) -> Result<()>;
    give_up_migration(at: impl IntoPath) -> Result<()>;
    unmount(at: impl IntoPath) -> Result<Unlinked>;
    write_batch<P: IntoPath, D: Into<Bytes>>(files: impl IntoIterator<Item = (P, D)>) -> Vec<Result<Written>>;
    read_batch<P: IntoPath>(files: impl IntoIterator<Item = P>) -> Vec<Result<Bytes>>;
    stat_batch<P: IntoPath>(entries: impl IntoIterator<Item = P>) -> Vec<Result<Arc<FileMetadata>>>;
    unlink_batch<P: IntoPath>(files: impl IntoIterator<Item = P>) -> Vec<Result<Unlinked>>;
    extend(at: impl IntoPath, id: LockId, ttl: Duration) -> Result<Locked>;
    force_unlock(at: impl IntoPath) -> Result<Unlocked>;
    locked(at: impl IntoPath, wait: Duration) -> Result<LockGuard>;
    locked_with(call: SysLock, hold_max: Duration) -> Result<LockGuard>;
    register_hook(hook: Registration) -> Result<HookId>;
    unregister_hook(id: HookId) -> Result<HookInfo>;
    hooks() -> Result<Vec<HookInfo>>;
    unused(first: Duration) -> Result<()>;
    ended() -> Result<ExitReason>;
    tree() -> Result<ActorEntry>;
    kill(path: &str, how: Kill) -> Result<bool>;
    mounts() -> Result<Vec<MountStatus>>;
    children() -> Result<Vec<ChildEntry>>;
    shutdown() -> Result<()>;
}

impl Nexus {
    /// As [`crate::Nexus::send`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::send`].
    pub fn send<S: Serve>(&self, mut call: S) -> Result<S::Done> {
        // A simulation runs its tasks whenever somebody waits.
        if self.env().is_simulated() {
            return self.env().blocking_wait(self.0.send(call));
        }
        match self.0.at_hand(&mut call) {
            Some(done) => Ok(done),
            None => self.env().blocking_wait(self.0.ask(call)),
        }
    }

    /// As [`crate::Nexus::lock`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::lock`].
    pub fn lock(&self, at: impl IntoPath, wait: Duration) -> Result<Locked> {
        self.send(lock_call(at, wait)?)
    }

    /// As [`crate::Nexus::unlock`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::unlock`].
    pub fn unlock(&self, at: impl IntoPath, id: LockId) -> Result<Unlocked> {
        self.send(unlock_call(at, id)?)
    }

    /// As [`crate::Nexus::set_permission`].
    ///
    /// # Errors
    /// As [`crate::Nexus::set_permission`].
    pub fn set_permission(&self, provider: Option<Arc<dyn Permission>>) -> Result<()> {
        self.0.set_permission(provider)
    }

    /// As [`crate::Nexus::semaphore`]; what waits for a place of it is a future.
    ///
    /// # Errors
    /// As [`crate::Nexus::semaphore`].
    pub fn semaphore(&self, name: &str, holders_max: u32) -> Result<Semaphore> {
        self.0.semaphore(name, holders_max)
    }

    /// As [`crate::Nexus::agent`].
    ///
    /// # Errors
    /// As [`crate::Nexus::agent`].
    pub fn agent(&self, name: impl AsRef<str>) -> Result<Self> {
        self.0.agent(name).map(Self)
    }

    /// As [`crate::Nexus::zone`].
    ///
    /// # Errors
    /// As [`crate::Nexus::zone`].
    pub fn zone(&self, name: &str) -> Result<Self> {
        self.0.zone(name).map(Self)
    }

    /// As [`crate::Nexus::user`].
    ///
    /// # Errors
    /// As [`crate::Nexus::user`].
    pub fn user(&self, name: &str) -> Result<Self> {
        self.0.user(name).map(Self)
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        self.0.caller()
    }

    /// Whether this is an administrator's handle.
    pub fn is_admin(&self) -> bool {
        self.0.is_admin()
    }

    /// As [`crate::Nexus::kernel`].
    ///
    /// # Errors
    /// As [`crate::Nexus::kernel`].
    pub fn kernel(&self) -> Result<&Arc<Kernel>> {
        self.0.kernel()
    }

    /// As [`crate::Nexus::is_last_client`].
    pub fn is_last_client(&self) -> bool {
        self.0.is_last_client()
    }

    /// As [`crate::Nexus::serving`].
    ///
    /// # Errors
    /// As [`crate::Nexus::serving`].
    pub fn serving(&self) -> Result<Option<ServingStats>> {
        self.0.serving()
    }

    /// As [`crate::Nexus::env`].
    pub fn env(&self) -> &Env {
        self.0.env()
    }

    /// As [`crate::Nexus::walk`]; each step blocks.
    pub fn walk(&self, at: impl IntoPath) -> Walk {
        Walk { env: self.env().clone(), walk: self.0.walk(at) }
    }

    /// As [`crate::Nexus::grep_stream`]; each step blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::grep_stream`].
    pub fn grep_stream(&self, grep: Grep) -> Result<GrepStream> {
        let stream = self.env().blocking_wait(self.0.grep_stream(grep))?;
        Ok(GrepStream { env: self.env().clone(), stream })
    }

    /// As [`crate::Nexus::stream`]; each piece blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::stream`].
    pub fn stream(&self, at: impl IntoPath) -> Result<ContentStream> {
        self.stream_range(at, ..)
    }

    /// As [`crate::Nexus::stream_range`]; each piece blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::stream_range`].
    pub fn stream_range(&self, at: impl IntoPath, range: impl RangeBounds<u64>) -> Result<ContentStream> {
        let stream = self.env().blocking_wait(self.0.stream_range(at, range))?;
        Ok(ContentStream { env: self.env().clone(), stream })
    }

    /// As [`crate::Nexus::write_stream`], and blocks; so may the iterator.
    ///
    /// # Errors
    /// As [`crate::Nexus::write_stream`].
    pub fn write_stream<I>(&self, at: impl IntoPath, data: I) -> Result<Written>
    where
        I: IntoIterator<Item = Result<Bytes>>,
        I::IntoIter: Send,
    {
        self.env().blocking_wait(self.0.write_stream(at, futures_util::stream::iter(data)))
    }

    /// As [`crate::Nexus::send_stream`], and blocks; so may the iterator.
    ///
    /// # Errors
    /// As [`crate::Nexus::send_stream`].
    pub fn send_stream<I>(&self, call: SysWrite, data: I) -> Result<Written>
    where
        I: IntoIterator<Item = Result<Bytes>>,
        I::IntoIter: Send,
    {
        self.env().blocking_wait(self.0.send_stream(call, futures_util::stream::iter(data)))
    }

    /// As [`crate::Nexus::watch`]; waiting blocks.
    pub fn watch(&self, at: impl IntoPath) -> WatchBuilder {
        WatchBuilder { env: self.env().clone(), watch: self.0.watch(at) }
    }

    /// As [`crate::Nexus::watch_glob`]; waiting blocks.
    pub fn watch_glob(&self, pattern: impl AsRef<str>) -> WatchBuilder {
        WatchBuilder { env: self.env().clone(), watch: self.0.watch_glob(pattern) }
    }

    /// As [`crate::Nexus::pipe_reader`], and blocks; so does each read that waits.
    ///
    /// # Errors
    /// As [`crate::Nexus::pipe_reader`].
    pub fn pipe_reader(&self, at: impl IntoPath) -> Result<PipeReader> {
        let reader = self.env().blocking_wait(self.0.pipe_reader(at))?;
        Ok(PipeReader { env: self.env().clone(), reader })
    }

    /// As [`crate::Nexus::pipe_writer`], and blocks; so does each write that waits.
    ///
    /// # Errors
    /// As [`crate::Nexus::pipe_writer`].
    pub fn pipe_writer(&self, at: impl IntoPath) -> Result<PipeWriter> {
        let writer = self.env().blocking_wait(self.0.pipe_writer(at))?;
        Ok(PipeWriter { env: self.env().clone(), writer })
    }

    /// As [`crate::Nexus::stream_reader`]; waiting blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::stream_reader`].
    pub fn stream_reader(&self, at: impl IntoPath, from: impl Into<StreamStart>) -> Result<StreamReader> {
        Ok(StreamReader { env: self.env().clone(), reader: self.0.stream_reader(at, from)? })
    }

    /// As [`crate::Nexus::spawn`], and blocks; so does waiting for the child.
    ///
    /// # Errors
    /// As [`crate::Nexus::spawn`].
    pub fn spawn(&self, spec: ChildSpec) -> Result<ChildHandle> {
        let child = self.env().blocking_wait(self.0.spawn(spec))?;
        Ok(ChildHandle { env: self.env().clone(), child })
    }

    /// As [`crate::Nexus::tx`]; committing blocks.
    pub fn tx(&self) -> Tx {
        Tx(self.0.tx())
    }

    /// The handle whose methods are `async`.
    pub fn as_async(&self) -> &crate::Nexus {
        &self.0
    }
}

impl From<crate::Nexus> for Nexus {
    fn from(nx: crate::Nexus) -> Self {
        Self(nx)
    }
}

/// Changes that are made together or not at all; see [`crate::Tx`].
#[must_use = "nothing is done before it is committed"]
#[derive(Debug, Clone)]
pub struct Tx(crate::Tx);

macro_rules! tx_twins {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        impl Tx {$(
            #[doc = concat!("As [`crate::Tx::", stringify!($name), "`].")]
            pub fn $name(self, $($arg: $type),*) -> Self {
                Self(self.0.$name($($arg),*))
            }
        )*}
    };
}

tx_twins! {
    write(at: impl IntoPath, data: impl Into<Bytes>);
    create(at: impl IntoPath, data: impl Into<Bytes>);
    append(at: impl IntoPath, data: impl Into<Bytes>);
    edit(at: impl IntoPath, old: impl Into<Bytes>, new: impl Into<Bytes>);
    mkdir(at: impl IntoPath);
    link(at: impl IntoPath, target: impl Into<Arc<str>>);
    rename(from: impl IntoPath, to: impl IntoPath);
    unlink(at: impl IntoPath);
    rmdir(at: impl IntoPath);
    remove_all(at: impl IntoPath);
    check(at: impl IntoPath);
    op(op: impl Into<TxOp>);
    if_unchanged(seen: &FileMetadata);
    if_version(version: u64);
    if_absent();
    if_match(content: ContentId);
    when(expected: Precondition);
    op_id(op_id: OpId);
}

impl Tx {
    /// As [`crate::Tx::commit`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Tx::commit`].
    pub fn commit(self) -> Result<Transacted> {
        let env = self.0.nexus().env().clone();
        env.blocking_wait(self.0.commit())
    }
}

/// A child process whose methods block; see [`crate::ChildHandle`].
#[derive(Debug, Clone)]
pub struct ChildHandle {
    env: Env,
    child: crate::ChildHandle,
}

impl ChildHandle {
    /// As [`crate::ChildHandle::id`].
    pub fn id(&self) -> ChildId {
        self.child.id()
    }

    /// As [`crate::ChildHandle::pid`].
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
}

macro_rules! child_twins {
    ($($name:ident($($arg:ident: $type:ty),*) -> $done:ty;)*) => {
        impl ChildHandle {$(
            #[doc = concat!("As [`crate::ChildHandle::", stringify!($name), "`], and blocks.")]
            ///
            /// # Errors
            #[doc = concat!("As [`crate::ChildHandle::", stringify!($name), "`].")]
            pub fn $name(&self, $($arg: $type),*) -> $done {
                self.env.blocking_wait(self.child.$name($($arg),*))
            }
        )*}
    };
}

child_twins! {
    wait() -> Result<ChildExit>;
    exited() -> Result<ChildExit>;
    kill(signal: ChildSignal) -> Result<bool>;
    status() -> Result<ChildEntry>;
}

/// A walk that blocks; see [`crate::Walk`].
#[derive(Debug)]
pub struct Walk {
    env: Env,
    walk: crate::Walk,
}

impl Walk {
    /// Gives each entry its metadata.
    #[must_use]
    pub fn with_metadata(self) -> Self {
        Self { walk: self.walk.with_metadata(), ..self }
    }
}

impl Iterator for Walk {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.env.blocking_wait(self.walk.next())
    }
}

/// A watch that blocks; see [`crate::WatchBuilder`].
#[must_use = "nothing is watched before it is asked for events"]
#[derive(Debug, Clone)]
pub struct WatchBuilder {
    env: Env,
    watch: crate::WatchBuilder,
}

macro_rules! watch_twins {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        impl WatchBuilder {$(
            #[doc = concat!("As [`crate::WatchBuilder::", stringify!($name), "`].")]
            pub fn $name(self, $($arg: $type),*) -> Self {
                Self { watch: self.watch.$name($($arg),*), ..self }
            }
        )*}
    };
}

watch_twins! {
    mask(mask: impl Into<EventMask>);
    alone();
    matching(pattern: impl Into<Arc<str>>);
    since(since: Lsn);
    limit(limit: NonZeroU32);
}

impl WatchBuilder {
    /// As [`crate::WatchBuilder::batch`], and blocks.
    ///
    /// # Errors
    /// As [`crate::WatchBuilder::batch`].
    pub fn batch(self, wait: Duration) -> Result<Watched> {
        self.env.blocking_wait(self.watch.batch(wait))
    }

    /// As [`crate::WatchBuilder::one`], and blocks.
    ///
    /// # Errors
    /// As [`crate::WatchBuilder::one`].
    pub fn one(self, wait: Duration) -> Result<Option<Event>> {
        self.env.blocking_wait(self.watch.one(wait))
    }

    /// As [`crate::WatchBuilder::stream`]; each step blocks.
    ///
    /// # Errors
    /// As [`crate::WatchBuilder::stream`].
    pub fn stream(self) -> Result<EventStream> {
        let stream = self.env.blocking_wait(self.watch.stream())?;
        Ok(EventStream { env: self.env, stream })
    }
}

/// The events of a watch, one after the other; see [`crate::EventStream`].
#[derive(Debug)]
pub struct EventStream {
    env: Env,
    stream: crate::EventStream,
}

impl EventStream {
    /// As [`crate::EventStream::next_for`], and blocks for as long.
    pub fn next_for(&mut self, wait: Duration) -> Option<Result<WatchItem>> {
        self.env.blocking_wait(self.stream.next_for(wait))
    }

    /// As [`crate::EventStream::cursor`].
    pub fn cursor(&self) -> Lsn {
        self.stream.cursor()
    }
}

impl Iterator for EventStream {
    type Item = Result<WatchItem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.env.blocking_wait(self.stream.next())
    }
}

/// The content of a file, piece by piece; see [`crate::ContentStream`].
#[derive(Debug)]
pub struct ContentStream {
    env: Env,
    stream: crate::ContentStream,
}

impl ContentStream {
    /// The file whose content this is, as it was when the stream was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        self.stream.metadata()
    }
}

impl Iterator for ContentStream {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.env.blocking_wait(self.stream.next())
    }
}

/// The reading end of a pipe; see [`crate::PipeReader`].
#[derive(Debug)]
pub struct PipeReader {
    env: Env,
    reader: crate::PipeReader,
}

impl PipeReader {
    /// What the entry was when the end was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        self.reader.metadata()
    }

    /// As [`crate::PipeReader::read`]; blocks while it waits.
    ///
    /// # Errors
    /// As [`crate::PipeReader::read`].
    pub fn read(&self, wait: Option<Duration>) -> Result<Option<Bytes>> {
        self.env.blocking_wait(self.reader.read(wait))
    }
}

/// The writing end of a pipe; see [`crate::PipeWriter`].
#[derive(Debug)]
pub struct PipeWriter {
    env: Env,
    writer: crate::PipeWriter,
}

impl PipeWriter {
    /// What the entry was when the end was opened.
    pub fn metadata(&self) -> &Arc<FileMetadata> {
        self.writer.metadata()
    }

    /// As [`crate::PipeWriter::write`]; blocks while it waits.
    ///
    /// # Errors
    /// As [`crate::PipeWriter::write`].
    pub fn write(&self, message: impl Into<Bytes>, wait: Option<Duration>) -> Result<()> {
        self.env.blocking_wait(self.writer.write(message, wait))
    }
}

/// Reads the records of a stream one after the other; see [`crate::StreamReader`].
#[derive(Debug)]
pub struct StreamReader {
    env: Env,
    reader: crate::StreamReader,
}

impl StreamReader {
    /// As [`crate::StreamReader::position`].
    pub fn position(&self) -> StreamStart {
        self.reader.position()
    }

    /// As [`crate::StreamReader::next`]; blocks while it waits.
    ///
    /// # Errors
    /// As [`crate::StreamReader::next`].
    pub fn next(&mut self, wait: Option<Duration>) -> Result<Option<Record>> {
        self.env.blocking_wait(self.reader.next(wait))
    }
}

/// Files with matches, one after the other; see [`crate::GrepStream`].
#[derive(Debug)]
pub struct GrepStream {
    env: Env,
    stream: crate::GrepStream,
}

impl GrepStream {
    /// How much was searched so far.
    pub fn stats(&self) -> GrepStats {
        self.stream.stats()
    }
}

impl Iterator for GrepStream {
    type Item = Result<FileMatches>;

    fn next(&mut self) -> Option<Self::Item> {
        self.env.blocking_wait(self.stream.next())
    }
}
