//! Attaches and detaches mounts, starts the drivers behind them and replaces them.
//!
//! Owns:       which mounts there are, `table.rs`, what is mounted there, and their rows in the metastore; publishes them, `view.rs`.
//! Asks:       the router, the drivers' supervisor, and the drivers' actors, `driver/`.
//! On restart: takes the last published mounts; a second crash within the period reads the metastore.
//! Bounds:     `MOUNTS_MAX` mounts of the router; one change at a time of each mount, `MAILBOX_MAX` of all.
//!
//! A driver that takes its time holds up what is asked of its own mount, and nothing else: work on mounts is done beside the mailbox, and the lock
//! of the mount point, or the mount's own, keeps changes of one mount apart.

mod attach;
mod boot;
mod breaker;
mod detach;
mod driver;
mod guarded;
mod health;
mod history;
mod messages;
mod mount;
mod options;
mod placeholder;
mod probe;
mod swap;
mod table;
mod view;
mod zones;

use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Message, Reply, Start};

pub(crate) use guarded::Guarded;
pub use health::{DriverCalls, DriverFailure};
pub(crate) use history::kept_of;
pub(crate) use messages::{Attach, Detach, Remount};
pub(crate) use mount::Mount;
pub(crate) use options::HISTORY_COUNT_MAX;
pub(crate) use probe::probe;
use table::Mounts;
pub(crate) use view::MountsView;
pub use view::{MountState, MountStatus};
pub(crate) use zones::Zones;

use crate::kernel::Kernel;

/// The driver lifecycle.
pub(crate) struct Lifecycle {
    kernel: Arc<Kernel>,
    table: Mounts,
    generation: u64,
}

impl Behaviour for Lifecycle {
    // Weak: the kernel holds a reference to this actor, which holds what it is started with.
    type Args = Weak<Kernel>;
    const NAME: &'static str = "lifecycle";

    fn init(kernel: Weak<Kernel>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let generation = start.generation();
        async move {
            let kernel = kernel.upgrade().ok_or_else(|| ExitReason::Error("the kernel is gone".into()))?;
            // What is published was confirmed by the router; a mount that was being made is not in it, and is made again by its caller.
            let table = Mounts::of(kernel.mounts().all());
            Ok(Self { kernel, table, generation })
        }
        .boxed_local()
    }
}

impl Lifecycle {
    fn publish(&self) {
        // Refused only for a ghost, whose successor has published.
        let _ = self.kernel.mounts().publish(self.generation, self.table.all());
    }
}

impl Handle<Attach> for Lifecycle {
    fn handle(&mut self, m: Attach, _: &mut Cx<'_, Self>) -> Reply<Self, <Attach as Message>::Reply> {
        Reply::later_then(attach::attach(self.kernel.clone(), m), |me: &mut Self, _, done| {
            done.inspect(|attached| {
                me.table.insert(attached.mount.clone());
                me.publish();
            })
        })
    }
}

impl Handle<Detach> for Lifecycle {
    fn handle(&mut self, m: Detach, _: &mut Cx<'_, Self>) -> Reply<Self, <Detach as Message>::Reply> {
        Reply::later_then(detach::detach(self.kernel.clone(), m), |me: &mut Self, _, done| {
            done.inspect(|detached| {
                me.table.remove(&detached.mount);
                me.publish();
            })
        })
    }
}

impl Handle<Remount> for Lifecycle {
    fn handle(&mut self, _: Remount, _: &mut Cx<'_, Self>) -> Reply<Self, <Remount as Message>::Reply> {
        Reply::later_then(boot::remount(self.kernel.clone()), |me: &mut Self, _, done| {
            done.map(|mounts| {
                let count = mounts.len();
                mounts.into_iter().for_each(|mount| me.table.insert(mount));
                me.publish();
                count
            })
        })
    }
}
