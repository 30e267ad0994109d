//! The actor runtime of Nexus and its concurrency parts.
//!
//! [`Env`] is where clock, randomness, tasks and threads come from. A [`Behaviour`] is an actor, with one [`Handle`] for
//! each message. Others hold a [`Ref`] to it, which stays valid while incarnations of the actor come and go; its
//! supervisor holds a [`Child`]. The engine that hosts actors (actix, or a seeded simulation) is sealed in here.

#[cfg(panic = "abort")]
compile_error!("supervision needs panics that unwind: build without panic = \"abort\"");

mod behaviour;
mod call;
mod cell;
mod child;
mod engine;
mod env;
mod envelope;
mod epoch;
mod eventcount;
mod exit;
mod fault;
#[cfg(target_os = "linux")]
mod futex;
mod gate;
mod latch;
mod mailbox;
#[cfg(all(test, nexus_loom))]
mod models;
mod panics;
#[cfg(test)]
mod parked;
mod reference;
mod ring;
#[cfg(unix)]
mod shared;
mod slot;
mod snap;
mod spans;
mod status;
mod swap;
mod sync;
mod turn;
mod visit;

pub use behaviour::{Behaviour, Cx, Deferred, Handle, Reply, Start, Swap};
pub use call::{CallError, Executed, Undone};
pub use cell::{ChildExit, ExitPort};
pub use child::{Child, child};
pub use env::{
    Closed, Deadlock, Elapsed, Env, Event, HostConfig, Place, Pool, PoolError, Secret, Simulation, Sleep,
    Stopwatch, Trace, TraceEntry, Worker, WorkerBounds, block_on,
};
pub use exit::ExitReason;
pub use fault::{Inject, Moment, Strike};
pub use futures_util::future::LocalBoxFuture;
pub use gate::{Gate, Pass};
pub use latch::Latch;
pub use mailbox::MailboxBounds;
pub use nexus_messages::Message;
pub use panics::{Panicked, guard};
pub use reference::Ref;
pub use ring::{Pop, Push, Ring, Take, Taken};
#[cfg(unix)]
pub use shared::{
    SHARED_LOOKS, SHARED_OPS_KEPT, SHARED_PATROL, SharedFolder, SharedFrame, SharedHome, SharedKind,
    SharedLog, SharedPipe, SharedRead, SharedState, SharedTrouble, SharedWords, SharedWriting, Sleepers,
};
pub use slot::{
    Lease, Retired, Slot, SwapError as SlotSwapError, SwapReport as SlotSwapReport, Swapped, Timer,
};
pub use snap::{Snap, Superseded};
pub use status::{ActorState, ActorStatus, Busy};
pub use swap::{SwapError, SwapReport};
