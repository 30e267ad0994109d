//! Runs programs of the host whose standard input and output are paths.
//!
//! A pipe, or a stream, of a child is one as any other; on its other side is a pump (`pump.rs`), a task of the kernel that carries messages between the ring, or the
//! log, and a descriptor. So back-pressure, the end of a pipe, what becomes of a read that is dropped are what they are for all. `framing.rs` is how bytes
//! become messages, `child.rs` one child and what minds it, `spawn.rs` how one is asked for, and how all are ended. `start.rs` is one start, which takes back what it made when it comes to
//! nothing, and `claims.rs` what others have to do with that. Starting needs the administrator's handle: who may write somewhere cannot run anything.
//!
//! Owns:       the start of children, and how many may run.
//! Asks:       nobody; starts processes by [`ProcessHost`](crate::hal::ProcessHost).
//! On restart: the table goes on, and so do the children and their pumps; one that was just being started is killed, and who asked is told that it is not known.
//! Bounds:     `CHILDREN_MAX` children that run, are being started, or whose start is taken back, `ENDED_MAX` and as many more whose output is on its way, `DONE_KEPT` of those that are done, a line and a chunk in memory for each output, the messages of any primitive.

mod child;
mod claims;
mod framing;
mod messages;
mod pump;
mod spawn;
mod start;
mod table;
mod view;

use std::sync::{Arc, Weak};

use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Reply, Start};
use nexus_messages::{ChildEntry, Error, ErrorKind, Op, Result};

pub(crate) use claims::Claims;
pub(crate) use messages::StartChild;
pub(crate) use spawn::Hosting;
pub(crate) use table::ChildTable;
pub use view::ChildStatistics;

use crate::kernel::Kernel;

/// The most children that may run at once, with those that are being started, or whose start is being taken back.
pub const CHILDREN_MAX: usize = 1_024;

/// How many children may have ended with what they wrote still on its way, because nobody reads it, before no more are started.
pub const ENDED_MAX: usize = 1_024;

/// Of how many children that have ended is told how.
pub const DONE_KEPT: usize = 256;

/// The actor that starts children.
pub(crate) struct Children {
    table: ChildTable,
    kernel: Weak<Kernel>,
}

impl Behaviour for Children {
    type Args = (ChildTable, Weak<Kernel>);
    const NAME: &'static str = "children";

    fn init(
        (table, kernel): Self::Args,
        _: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(std::future::ready(Ok(Self { table, kernel })))
    }
}

impl Handle<StartChild> for Children {
    fn handle(&mut self, m: StartChild, _: &mut Cx<'_, Self>) -> Reply<Self, Result<ChildEntry>> {
        let (order, kernel) = (self.table.take_order(m.0), self.kernel.upgrade());
        let (Some(order), Some(kernel)) = (order, kernel) else {
            // Who asked went away, or the kernel ends.
            return Reply::Now(Err(Error::global(Op::Spawn, ErrorKind::Down)));
        };
        Reply::later(async move { Arc::clone(&kernel).start_child(*order).await })
    }
}
