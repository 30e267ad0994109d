//! Decides which mount serves a path.
//!
//! Owns:       the mount table, `table.rs`; publishes it as routes, `routes.rs` and `view.rs`.
//! Asks:       its source, once, at a cold start.
//! On restart: takes the last published table; a second crash within the period reads the store, through the source.
//! Bounds:     `MOUNTS_MAX` mounts, `MAILBOX_MAX` messages.

mod messages;
mod routes;
mod table;
mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Reply, Start};
use nexus_messages::Message;

pub use messages::{ListMounts, Mount, Rebind, Unmount};
pub use routes::{RouteTable, Routed};
pub use table::{AsMount, MOUNTS_MAX, MountId, MountTable, RouteError};
pub use view::RouterView;

/// How many messages may wait for the router.
pub const MAILBOX_MAX: usize = 1_024;

/// Reads from the store which mounts there should be.
pub type MountSource<T> = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<T>, Arc<str>>> + Send + Sync>;

/// What a router is started with.
pub struct RouterArgs<T> {
    /// Where it publishes.
    pub view: RouterView<T>,
    /// Where it reads the mounts when there is no published table, or none to trust.
    pub source: MountSource<T>,
}

impl<T> Clone for RouterArgs<T> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), source: self.source.clone() }
    }
}

/// The actor that alone changes which mounts there are.
pub struct Router<T> {
    table: MountTable<T>,
    view: RouterView<T>,
}

impl<T: AsMount> Behaviour for Router<T> {
    type Args = RouterArgs<T>;
    const NAME: &'static str = "router";

    fn init(args: RouterArgs<T>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            let RouterArgs { view, source } = args;
            // First the pen, so that no ghost changes what we start from.
            let last = view.claim(start.generation()).map_err(ExitReason::error)?;
            let published = view.version() > 0;
            let table =
                if start.warm() && published { MountTable::thaw(&last) } else { read(source).await? };
            view.publish(start.generation(), table.freeze()).map_err(ExitReason::error)?;
            Ok(Self { table, view })
        })
    }
}

/// The mounts that the store knows. One that the table refuses is told and left out: the others must serve.
async fn read<T: AsMount>(source: MountSource<T>) -> Result<MountTable<T>, ExitReason> {
    let mut table = MountTable::new();
    for mount in source().await.map_err(ExitReason::error)? {
        if let Err(why) = table.mount(mount) {
            tracing::error!(%why, "a mount that the store remembers cannot be attached");
        }
    }
    Ok(table)
}

impl<T: AsMount> Router<T> {
    /// Shows everybody what has changed. A router that is too late for that ends.
    fn publish(&self, cx: &mut Cx<'_, Self>) -> Result<(), RouteError> {
        self.view.publish(cx.generation(), self.table.freeze()).map_err(|late| {
            cx.exit(ExitReason::error(late));
            RouteError::Superseded
        })
    }
}

impl<T: AsMount> Handle<Mount<T>> for Router<T> {
    fn handle(
        &mut self,
        Mount(mount): Mount<T>,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <Mount<T> as Message>::Reply> {
        Reply::Now(match self.table.mount(mount) {
            Ok(true) => self.publish(cx),
            Ok(false) => Ok(()),
            Err(why) => Err(why),
        })
    }
}

impl<T: AsMount> Handle<Unmount<T>> for Router<T> {
    fn handle(
        &mut self,
        Unmount(mount): Unmount<T>,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <Unmount<T> as Message>::Reply> {
        Reply::Now(self.table.unmount(&mount).and_then(|_| self.publish(cx)))
    }
}

impl<T: AsMount> Handle<Rebind<T>> for Router<T> {
    fn handle(
        &mut self,
        Rebind(mount): Rebind<T>,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, <Rebind<T> as Message>::Reply> {
        Reply::Now(self.table.rebind(mount).and_then(|before| self.publish(cx).map(|()| before)))
    }
}

impl<T: AsMount> Handle<ListMounts<T>> for Router<T> {
    fn handle(&mut self, _: ListMounts<T>, _: &mut Cx<'_, Self>) -> Reply<Self, Vec<T>> {
        Reply::Now(self.table.iter().cloned().collect())
    }
}
