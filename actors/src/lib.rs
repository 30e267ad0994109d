//! The actor runtime of Nexus and its concurrency parts.

mod gate;
mod slot;
mod snap;

mod epoch;
mod eventcount;
mod sync;

#[cfg(all(test, not(nexus_loom)))]
mod parked;

pub use gate::{Gate, Pass};
pub use slot::{Lease, Retired, Slot, SwapError, SwapReport, Swapped, Timer};
pub use snap::{Snap, Superseded};
