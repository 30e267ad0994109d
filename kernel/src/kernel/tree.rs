//! The supervision tree of a kernel: every primitive, in what order it starts, and what restarts with it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nexus_actors::Place;
use nexus_supervisors::{ChildSpec, Restart, Shutdown, Strategy, SupSpec};

use super::{Kernel, mailbox};
use crate::locks::Locks;
use crate::mounts::Mount;
use crate::router::{MountSource, RouterArgs};
use crate::store::{Committer, Upkeep};

impl Kernel {
    /// Started top to bottom, stopped bottom to top. A crash of a branch also restarts everything below it.
    pub(super) fn tree(
        self: &Arc<Self>,
        restarts: impl Fn(SupSpec) -> SupSpec,
        drivers: SupSpec,
        services: SupSpec,
    ) -> SupSpec {
        let watchdog = self.config.watchdog;
        let primitive = move |child: ChildSpec| child.restart(Restart::Permanent).watchdog(watchdog);
        let source = Arc::downgrade(self);
        let mounted: MountSource<Arc<Mount>> = Arc::new(move || {
            let mounts = source.upgrade().map(|kernel| kernel.mounts.all()).unwrap_or_default();
            std::future::ready(Ok(mounts)).boxed()
        });
        let router = RouterArgs { view: self.routes.clone(), source: mounted };

        // What they have taken is finished before they end.
        let finishes =
            |child: ChildSpec| primitive(child).shutdown(Shutdown::Timeout(Duration::from_secs(30)));
        let store = SupSpec::new("store", Strategy::OneForAll)
            .child(finishes(ChildSpec::new(
                "committer",
                mailbox::<Committer>(&self.env, "committer"),
                self.store.clone(),
            )))
            .child(finishes(ChildSpec::new(
                "upkeep",
                mailbox::<Upkeep>(&self.env, "upkeep"),
                self.store.clone(),
            )));
        // An observer harms only itself: it is somebody else's code, and goes on with the next event, later each time.
        let observers =
            SupSpec::new("observers", Strategy::OneForOne).restarts(u32::MAX, self.config.restarts_within);
        let kernel = SupSpec::new("kernel", Strategy::OneForOne)
            .child(primitive(ChildSpec::new("router", self.router.clone(), router)))
            .child(primitive(ChildSpec::new(
                "locks",
                mailbox::<Locks>(&self.env, "locks"),
                self.locks.clone(),
            )))
            .child(primitive(ChildSpec::new(
                "advisory",
                self.advisory_actor.clone(),
                Arc::downgrade(&self.advisory),
            )))
            .child(primitive(ChildSpec::new(
                "dispatch",
                self.dispatch.clone(),
                (self.hooks.clone(), observers.handle(&self.env), watchdog),
            )))
            .child(primitive(ChildSpec::new("watcher", self.watcher.clone(), self.watches().clone())))
            .child(primitive(ChildSpec::new(
                "pipes",
                self.pipes_actor.clone(),
                (self.pipes.clone(), Arc::downgrade(self)),
            )))
            .child(primitive(ChildSpec::new(
                "streams",
                self.streams_actor.clone(),
                (self.streams.clone(), Arc::downgrade(self)),
            )))
            .child(primitive(ChildSpec::new(
                "children",
                self.children_actor.clone(),
                (self.children.clone(), Arc::downgrade(self)),
            )))
            // Last, and so the first of these to be stopped: what was queued for them is told while all the others live.
            .child(observers.into_child().place(Place::Supervisors));
        let registry = SupSpec::new("registry", Strategy::RestForOne)
            .child(primitive(ChildSpec::new("services", self.registry.clone(), Arc::downgrade(self))))
            .child(primitive(ChildSpec::new("lifecycle", self.lifecycle.clone(), Arc::downgrade(self))));
        restarts(SupSpec::new("nexus", Strategy::RestForOne))
            .supervisor(restarts(store))
            .supervisor(restarts(kernel))
            .supervisor(restarts(registry))
            .child(drivers.into_child().place(Place::Supervisors))
            .child(services.into_child().place(Place::Supervisors))
            // Last: what it does is for nobody, and is begun again.
            .child(primitive(ChildSpec::new("garbage", self.collector.clone(), Arc::downgrade(self))))
            .child(primitive(ChildSpec::new("scrub", self.scrubber.clone(), Arc::downgrade(self))))
    }
}
