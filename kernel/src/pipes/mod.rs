//! Lets agents hand messages to each other through a path.
//!
//! A pipe's entry is a row as any other; what is on its way through it is in memory, and begins empty with its first use. `pipe.rs` is one pipe: a ring
//! from [`nexus_actors`], and who has opened it. Reading and writing happen on the callers' tasks, in the shared table, `table.rs`.
//!
//! Owns:       which pipes are open, and how many may be.
//! Asks:       nobody; looks at rows and routes.
//! On restart: the table goes on, and so do those who read and write in it; what waits to be opened is opened then.
//! Bounds:     `PIPES_MAX` open pipes, `PIPES_BYTES_MAX` bytes in all of them and in all that are shared, `ENDS_MAX` ends of each, `LIST_MAX` pipes in a listing, `OPS_KEPT`
//!             writes with an identity of each, and 2^20 of all, or 128 of each when that is more; a message that is away for each read under way, the messages of any primitive.

mod body;
mod end;
mod given;
mod messages;
mod once;
mod pipe;
mod shared;
mod table;
mod unsettled;
mod view;

#[cfg(test)]
#[cfg(not(nexus_loom))]
mod tests;

use std::sync::{Arc, Weak};

use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Reply, Start};

pub(crate) use end::{Closing, OpenEnd};
pub use given::GivenMessage;
pub(crate) use messages::OpenPipe;
pub use once::OPS_KEPT;
pub(crate) use pipe::{Holder, Pipe, Refusal, Side};
pub use shared::{MappedPipe, SharedRegion};
pub(crate) use table::{Known, PipeTable};
pub use view::{PipeEnd, PipeEntry, PipeStatistics};

use crate::kernel::Kernel;
use crate::namespace::inode_key;

/// The most pipes that may be open at once. A pipe is opened by its first use, and closed when it is removed, or its mount is detached.
pub const PIPES_MAX: usize = 1 << 16;

/// The most bytes that all open pipes in memory of this process together may have room for; and the most that the files of all pipes together have which are in memory that
/// processes share, open or not.
pub const PIPES_BYTES_MAX: u64 = 4 << 30;

/// The most ends of one pipe that may be open at once.
pub const ENDS_MAX: usize = 4_096;

/// The most pipes that one listing shows.
pub const LIST_MAX: usize = 10_000;

/// The actor that opens pipes.
pub(crate) struct Pipes {
    table: PipeTable,
    kernel: Weak<Kernel>,
}

impl Behaviour for Pipes {
    type Args = (PipeTable, Weak<Kernel>);
    const NAME: &'static str = "pipes";

    fn init(
        (table, kernel): Self::Args,
        _: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(std::future::ready(Ok(Self { table, kernel })))
    }
}

impl Handle<OpenPipe> for Pipes {
    fn handle(&mut self, m: OpenPipe, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<Arc<Pipe>, Refusal>> {
        let (id, asked) = (m.metadata.file_id, m.clone());
        let opened = self.table.open(m).and_then(|(pipe, is_new)| {
            // After it was opened: whoever removes the entry closes the pipe when the row is gone. So either finds the other.
            if is_new && !self.is_there(&asked) {
                self.table.remove(cx.env(), [id]);
                return Err(Refusal::Removed);
            }
            Ok(pipe)
        });
        Reply::Now(opened)
    }
}

impl Pipes {
    /// Whether the entry, and its mount, are there still. What cannot be read was there a moment ago.
    fn is_there(&self, m: &OpenPipe) -> bool {
        let Some(kernel) = self.kernel.upgrade() else { return false };
        if !kernel.routes().read(|routes| routes.iter().any(|mount| mount.root == m.mount)) {
            return false;
        }
        let row = kernel
            .store()
            .rows(m.tree)
            .and_then(|rows| rows.reader.get(&inode_key(m.tree, m.metadata.file_id)));
        row.map_or(true, |row| row.is_some())
    }
}
