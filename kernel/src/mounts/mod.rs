//! Attaches and detaches mounts, starts the drivers behind them and replaces them.
//!
//! Owns:       which mounts there are, `table.rs`, what is mounted there, and their rows in the metastore.
//! Asks:       the router, the drivers' supervisor, and the drivers' actors, `driver/`.
//! On restart: has nothing to take up. What the one before it had not committed is undone, and what it had committed is finished without it.
//! Bounds:     `MOUNTS_MAX` mounts of the router; one change at a time of each mount, `MAILBOX_MAX` of all.
//!
//! A driver that takes its time holds up what is asked of its own mount, and nothing else: work on mounts is done beside the mailbox, and the lock
//! of the mount point, or the mount's own, keeps changes of one mount apart.

mod attach;
mod boot;
mod breaker;
mod detach;
mod driver;
mod figures;
mod guarded;
mod health;
mod history;
mod messages;
mod migration;
mod mount;
mod options;
mod outside;
mod passage;
mod placeholder;
mod probe;
mod swap;
mod table;
mod uploading;
mod view;
mod zones;

use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, Message, Reply, Start};

pub(crate) use attach::LOCK_WAIT_MAX;
pub use figures::{CallTimes, DriverTimes};
pub(crate) use guarded::Guarded;
pub use health::{DriverCalls, DriverFailure};
pub(crate) use history::kept_of;
pub(crate) use messages::{Attach, Detach, Remount};
pub use migration::{MigrateOrder, MigrationState, MigrationStatus};
pub(crate) use migration::{Migrations, ordered};
pub(crate) use mount::Mount;
pub(crate) use options::{HISTORY_COUNT_MAX, opening_max};
pub(crate) use passage::{Naming, UnderWay};
pub(crate) use probe::probe;
pub(crate) use table::Mounts;
pub(crate) use view::MountTimes;
pub use view::{MountState, MountStatus};
pub(crate) use zones::Zones;

use crate::kernel::Kernel;

/// The driver lifecycle.
pub(crate) struct Lifecycle {
    kernel: Arc<Kernel>,
}

impl Behaviour for Lifecycle {
    // Weak: the kernel holds a reference to this actor, which holds what it is started with.
    type Args = Weak<Kernel>;
    const NAME: &'static str = "lifecycle";

    fn init(kernel: Weak<Kernel>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let kernel = kernel.upgrade().ok_or_else(|| ExitReason::Error("the kernel is gone".into()));
        std::future::ready(kernel.map(|kernel| Self { kernel })).boxed_local()
    }
}

impl Handle<Attach> for Lifecycle {
    fn handle(&mut self, m: Attach, _: &mut Cx<'_, Self>) -> Reply<Self, <Attach as Message>::Reply> {
        Reply::later(attach::attach(self.kernel.clone(), m))
    }
}

impl Handle<Detach> for Lifecycle {
    fn handle(&mut self, m: Detach, _: &mut Cx<'_, Self>) -> Reply<Self, <Detach as Message>::Reply> {
        Reply::later(detach::detach(self.kernel.clone(), m))
    }
}

impl Handle<Remount> for Lifecycle {
    fn handle(&mut self, _: Remount, _: &mut Cx<'_, Self>) -> Reply<Self, <Remount as Message>::Reply> {
        Reply::later(boot::remount(self.kernel.clone()))
    }
}
