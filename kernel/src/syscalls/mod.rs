//! The syscalls: what each does, and the one order in which it is done.
//!
//! ```text
//! resolve → route → permission gate → intercept pre → path lock → driver I/O → commit
//!   → publish → unlock → intercept post → observe
//! ```
//!
//! Everything up to the path lock runs on the caller's task and ends with it. From the path lock on the kernel owns a mutation: when the
//! caller goes away, the rest runs on the kernel's own tasks. Reads leave out commit and observe.

mod access;
mod admit;
mod copy;
pub(crate) mod group;
mod limits;
mod locate;
mod lock;
mod mutate;
mod outcome;
mod past;
mod pipe;
mod read;
mod readdir;
mod records;
mod rename;
mod setattr;
pub(crate) mod span;
mod stat;
mod stream;
mod sync;
mod tx;
mod unlink;
mod versions;
mod watch;
mod write;

pub(crate) use pipe::shared_at;
pub use pipe::{PipeReader, PipeWriter};
pub use stream::ContentReader;

use std::future::Future;
use std::sync::Arc;

use nexus_messages::Caller;
use nexus_messages::syscall::SyscallMessage;

use crate::kernel::Kernel;

/// A syscall that the kernel serves.
pub trait Serve: SyscallMessage {
    /// The answer, when it is at hand: asks nobody, waits for nothing, allocates nothing but records of a stream. None: [`serve`](Self::serve) has it, and the call is as it was.
    fn warm(&mut self, kernel: &Kernel, caller: &Caller) -> Option<Self::Done> {
        let _ = (kernel, caller);
        None
    }

    /// Executes the call for `caller`, on the task that polls.
    fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> impl Future<Output = Self::Reply> + Send;
}
