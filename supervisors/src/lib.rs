//! Supervision trees over Nexus actors.
//!
//! A tree is data: a [`SupSpec`] with a [`ChildSpec`] for each actor. [`Tree::start`] brings it to life. Children start
//! top to bottom and stop bottom to top; who is restarted after which exit is up to the [`Strategy`] and the child's
//! [`Restart`]. A supervisor that restarts too often gives up, and its own supervisor decides.
//!
//! What differs from Erlang/OTP: mailboxes outlive supervisors, so a [`Ref`](nexus_actors::Ref) stays valid through all of
//! it; children that were added by order come back with a restarted supervisor; and an actor that was displaced from a
//! thread that another one wedged is restarted without being counted.

mod backoff;
mod board;
mod intensity;
mod messages;
mod plan;
mod spec;
mod supervisor;
mod tree;

pub use backoff::Backoff;
pub use board::TreeStatus;
pub use messages::OrderError;
pub use spec::{AutoShutdown, ChildSpec, MakeChild, Monitor, Restart, Shutdown, Strategy, SupSpec};
pub use supervisor::Supervisor;
pub use tree::{Kill, SupervisorRef, Tree, UnknownKill};
