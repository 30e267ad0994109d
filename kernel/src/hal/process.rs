//! Where child processes come from.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::{ChildExit, ChildSignal, ChildSpec, ErrorKind};

/// What an operation of a host of processes gives. It may be polled by any executor.
pub type ProcessFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a program was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ProcessError {
    /// What kind of failure it is, for callers.
    pub kind: ErrorKind,
    /// What happened.
    pub why: String,
}

impl ProcessError {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, why: impl fmt::Display) -> Self {
        Self { kind, why: why.to_string() }
    }
}

/// Starts programs of the host.
pub trait ProcessHost: fmt::Debug + Send + Sync + 'static {
    /// The program that `spec` names, as a path of the host that can be executed. Starts nothing; may be repeated.
    fn find(&self, spec: Arc<ChildSpec>) -> ProcessFuture<'_, Result<PathBuf, ProcessError>>;

    /// Starts `program` as `spec` says, as the first of a process group of its own that no terminal controls, with a descriptor for each of its inputs and outputs that
    /// leads somewhere, and nothing else that this process opened. When both outputs lead to the same place they are one descriptor, which is given as the standard output. No shell is asked. It ends at the latest with this process. On an error nothing runs.
    fn start(
        &self,
        program: PathBuf,
        spec: Arc<ChildSpec>,
    ) -> ProcessFuture<'_, Result<StartedProcess, ProcessError>>;
}

/// A process that was just started, and the kernel's ends of its descriptors.
#[derive(Debug)]
pub struct StartedProcess {
    /// The process. Dropped before [`Process::finish`], it is killed.
    pub process: Box<dyn Process>,
    /// Leads to its standard input.
    pub stdin: Option<Box<dyn ProcessInput>>,
    /// Comes from its standard output.
    pub stdout: Option<Box<dyn ProcessOutput>>,
    /// Comes from its standard error.
    pub stderr: Option<Box<dyn ProcessOutput>>,
}

/// A process that runs, or ran. Killed when it is dropped before it is finished.
pub trait Process: fmt::Debug + Send + Sync + 'static {
    /// The host's number for it, and for its group.
    fn pid(&self) -> u32;

    /// Waits for its end. May be repeated, and asked for by several; dropping the future changes nothing.
    fn exited(&self) -> ProcessFuture<'_, io::Result<ChildExit>>;

    /// Sends a signal to its group; false when it is [finished](Self::finish). Never to another process that was given its number since. Blocks: no, also while others
    /// wait for its end.
    ///
    /// # Errors
    /// What the host says.
    fn signal(&self, signal: ChildSignal) -> io::Result<bool>;

    /// Kills what is left of its group, itself if it runs, and lets the host forget it. May be repeated. Blocks for as long as the host takes to end it, if it runs.
    fn finish(&self);
}

/// The kernel's end of a process's standard input. It is closed when it is dropped.
pub trait ProcessInput: fmt::Debug + Send + Sync + 'static {
    /// Writes all of it. On an error, and when the future is dropped, a part may be written.
    fn write(&mut self, data: Bytes) -> ProcessFuture<'_, io::Result<()>>;

    /// Waits until nobody can read it any more. Dropping the future changes nothing.
    fn closed(&self) -> ProcessFuture<'_, ()>;
}

/// The kernel's end of an output of a process. It is closed when it is dropped.
pub trait ProcessOutput: fmt::Debug + Send + Sync + 'static {
    /// What there is to be read, at most `max` bytes; waits for it. No bytes at the end, when nobody can write it any more. For one at a time. Dropping the future
    /// takes nothing along.
    fn read(&self, max: usize) -> ProcessFuture<'_, io::Result<Bytes>>;

    /// Waits until nobody can write it any more, whether what was written is read or not. Dropping the future changes nothing.
    fn closed(&self) -> ProcessFuture<'_, ()>;

    /// Whether somebody can write it now. Blocks: no.
    ///
    /// # Errors
    /// What the host says.
    fn is_open(&self) -> io::Result<bool>;

    /// How many bytes could be read now without waiting.
    ///
    /// # Errors
    /// What the host says.
    fn ready(&self) -> io::Result<usize>;
}
