//! Nexus: an operating-system kernel for AI agents, as a library.
//!
//! It gives a process one namespace of paths over any storage, with syscalls in the manner of POSIX. Every primitive of the kernel is a
//! supervised actor, and yet no warm call waits for one. There is no server and nothing to set up.
//!
//! # Connect
//!
//! [`connect`] boots a kernel on a data folder, which is made when it is missing, and gives the administrator's handle to it.
//!
//! ```
//! #[tokio::main]
//! async fn main() -> nexus::Result<()> {
//! #   let folder = tempfile::tempdir().unwrap();
//! #   let folder = folder.path();
//!     let nx = nexus::connect(folder).await?;
//!
//!     nx.write("/notes/today.md", "buy milk\n").await?;
//!     nx.append("/notes/today.md", "buy bread\n").await?;
//!     nx.edit("/notes/today.md", "milk", "oat milk").await?;
//!     assert_eq!(nx.read("/notes/today.md").await?, "buy oat milk\nbuy bread\n");
//!
//!     nx.shutdown().await
//! }
//! ```
//!
//! The kernel brings its own threads and timers. It works the same in both flavours of `#[tokio::main]`, under another executor, and with
//! none: the twins in [`blocking`] need no runtime at all.
//!
//! ```
//! let nx = nexus::blocking::connect(nexus::Config::in_memory())?;
//! nx.write("/a", "one")?;
//! assert_eq!(nx.read("/a")?, "one");
//! # Ok::<(), nexus::Error>(())
//! ```
//!
//! [`Config`] says where the data is and how large the kernel may grow; from code, a file, and the environment.
//!
//! # Syscalls
//!
//! A syscall is a message: a struct that says what to do and where, and nothing of who asks. [`Nexus::send`] executes it on the caller's
//! task. There are [`SysStat`], [`SysSetattr`], [`SysRename`], [`SysUnlink`], [`SysReaddir`], [`SysRead`], [`SysWrite`], [`SysCopy`], [`SysTx`] for
//! several changes as one, and [`SysWatch`] for who wants to hear of changes.
//!
//! ```
//! # let nx = nexus::blocking::connect(nexus::Config::in_memory())?;
//! use nexus::{Precondition, SysRead, SysWrite, VPath};
//!
//! let path: VPath = "/src/lib.rs".parse()?;
//! let first = nx.send(SysWrite::at(&path, "fn main() {}").create_exclusive())?;
//! // Only if nobody has changed it since.
//! let unchanged = Precondition::Version(first.metadata.version);
//! nx.send(SysWrite::at(&path, "fn main() { work() }").when(unchanged))?;
//! assert_eq!(nx.send(SysRead::at(&path).range(3, 4))?.data, "main");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A change is acknowledged when it is on disk, and answers with a [`Receipt`]. Each is one commit, all of it or nothing: a write, an
//! append, an edit, the rename of a folder with a million files, and what [`Nexus::tx`] puts together.
//!
//! # Everyday methods
//!
//! On top of the syscalls the handle has what one wants most of the time; each takes a path as text.
//!
//! | | |
//! |---|---|
//! | content | [`read`](Nexus::read) [`read_range`](Nexus::read_range) [`write`](Nexus::write) [`append`](Nexus::append) [`edit`](Nexus::edit) [`copy`](Nexus::copy) |
//! | content larger than memory | [`stream`](Nexus::stream) [`stream_range`](Nexus::stream_range) [`write_stream`](Nexus::write_stream) |
//! | entries | [`stat`](Nexus::stat) [`exists`](Nexus::exists) [`access`](Nexus::access) [`mkdir`](Nexus::mkdir) [`link`](Nexus::link) [`rename`](Nexus::rename) [`unlink`](Nexus::unlink) [`rmdir`](Nexus::rmdir) [`remove_all`](Nexus::remove_all) |
//! | listings | [`readdir`](Nexus::readdir) [`walk`](Nexus::walk) [`glob`](Nexus::glob) [`grep`](Nexus::grep) |
//! | many at once | [`write_batch`](Nexus::write_batch) [`read_batch`](Nexus::read_batch) [`stat_batch`](Nexus::stat_batch) [`unlink_batch`](Nexus::unlink_batch) |
//! | all or nothing | [`tx`](Nexus::tx) |
//! | who works where | [`locked`](Nexus::locked) [`lock`](Nexus::lock) [`extend`](Nexus::extend) [`unlock`](Nexus::unlock) [`semaphore`](Nexus::semaphore) |
//! | messages | [`make_pipe`](Nexus::make_pipe) [`make_pipe_with`](Nexus::make_pipe_with) [`map_stream`](Nexus::map_stream) [`pipe_reader`](Nexus::pipe_reader) [`pipe_writer`](Nexus::pipe_writer) |
//! | records | [`make_stream`](Nexus::make_stream) [`append_record`](Nexus::append_record) [`append_records`](Nexus::append_records) [`stream_reader`](Nexus::stream_reader) |
//! | child processes | [`spawn`](Nexus::spawn) [`children`](Nexus::children) |
//! | mounts | [`mount`](Nexus::mount) [`swap_driver`](Nexus::swap_driver) [`migrate`](Nexus::migrate) [`migrations`](Nexus::migrations) [`abort_migration`](Nexus::abort_migration) [`give_up_migration`](Nexus::give_up_migration) [`unmount`](Nexus::unmount) [`mounts`](Nexus::mounts) |
//!
//! ```
//! # let nx = nexus::blocking::connect(nexus::Config::in_memory())?;
//! use nexus::Grep;
//!
//! let written = nx.write_batch([("/src/a.rs", "fn a() {}\n"), ("/src/b.rs", "fn b() {}\n"), ("/src/c.md", "# c\n")]);
//! assert!(written.iter().all(Result::is_ok));
//! assert_eq!(nx.glob("/src/*.rs")?, ["/src/a.rs", "/src/b.rs"]);
//! let report = nx.grep(Grep::new(r"fn \w\(").path("/src"))?;
//! assert_eq!(report.matches.len(), 2);
//! # Ok::<(), nexus::Error>(())
//! ```
//!
//! # Agents
//!
//! Who calls is a property of the handle that no message can forge. An agent owns what it makes, and cannot do what needs the
//! administrator: mount, manage, end the kernel.
//!
//! ```
//! # let nx = nexus::blocking::connect(nexus::Config::in_memory())?;
//! use nexus::{ErrorKind, MountSpec};
//!
//! let agent = nx.agent("coder-7")?;
//! agent.write("/project/plan.md", "1. think")?;
//! assert_eq!(&*nx.stat("/project/plan.md")?.owner, "coder-7");
//! let refused = agent.mount("/m", MountSpec::new("memory")).unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
//! # Ok::<(), nexus::Error>(())
//! ```
//!
//! # Errors
//!
//! An [`Error`] has the operation, the path, the [kind](ErrorKind) with its [errno](Errno), the cause, and whether anything was
//! [executed](Executed): what was not can be repeated safely.
//!
//! ```
//! # let nx = nexus::blocking::connect(nexus::Config::in_memory())?;
//! use nexus::{Errno, Executed};
//!
//! let error = nx.read("/missing").unwrap_err();
//! assert_eq!((error.errno(), error.executed()), (Errno::ENOENT, Executed::No));
//! assert_eq!(error.to_string(), "read /missing: no such file or directory (ENOENT)");
//! # Ok::<(), nexus::Error>(())
//! ```
//!
//! # Supervision
//!
//! The kernel is a tree of supervised actors. [`Nexus::tree`] shows it, and [`Nexus::kill`] hurts one of them. What an actor published
//! outlives it: reads go on while it is restarted, and a call that needs it waits for that.
//!
//! ```
//! # let nx = nexus::blocking::connect(nexus::Config::in_memory())?;
//! use nexus::Kill;
//!
//! nx.write("/a", "one")?;
//! assert!(nx.kill("nexus/kernel/router", Kill::Panic)?);
//! assert_eq!(nx.read("/a")?, "one");
//! let kernel = nx.tree()?.children.into_iter().find(|child| &*child.id == "kernel");
//! assert!(kernel.is_some_and(|kernel| kernel.children.iter().any(|child| &*child.id == "router")));
//! # Ok::<(), nexus::Error>(())
//! ```

mod attach;
pub mod blocking;
mod boot;
mod cache;
mod child;
mod closing;
mod config;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod hooks;
pub mod offline;
mod profile;
mod registering;
mod shared;
mod tier2;

/// The actor runtime that the kernel is made of, for actors of one's own.
pub use nexus_actors as actors;
/// Services that come with the kernel, to be registered where they are wanted.
pub use nexus_services as services;
/// Supervision trees, for one's own.
pub use nexus_supervisors as supervisors;

pub use attach::{Grant, Serving, ServingStats, attach, connect_or_attach};
pub use bytes::Bytes;
pub use child::{Embedded, child, child_as};
pub use config::Config;
pub use handle::{Nexus, connect};
pub use nexus_actors::{ActorState, ActorStatus, Env, ExitReason, HostConfig, Simulation};
pub use nexus_kernel::gate::Right;
pub use nexus_kernel::{
    CallTimes, Check, CheckState, Collection, CollectionState, DriverCalls, DriverFailure, DriverTimes,
    Fault, Finding, Freed, Kernel, MigrateOrder, MigrationState, MigrationStatus, MountState, MountStatus,
    Permit, PermitInfo, Remedy, Semaphore, SemaphoreInfo, Serve, ServiceState, ServiceStatus, StoreStats,
    advisory, cache as service_cache, dispatch, gate, hal, service, sys, watcher,
};
pub use nexus_messages::syscall::*;
pub use nexus_messages::*;
pub use nexus_supervisors::{Kill, TreeStatus};
pub use profile::{Profile, UnknownProfile};
pub use tier2::{
    ChildHandle, Consumer, ContentStream, EventStream, FileMatches, Grep, GrepReport, GrepStats, GrepStream,
    Line, LockGuard, MappedStream, PipeReader, PipeWriter, StreamReader, Tx, Walk, WatchBuilder, WatchItem,
};

/// The examples of the readme, which compile and run as all others do.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
