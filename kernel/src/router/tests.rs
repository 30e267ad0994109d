//! The router under a supervisor: what readers see while it comes and goes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nexus_actors::{Env, MailboxBounds, Ref, Simulation};
use nexus_supervisors::{ChildSpec, Kill, Strategy, SupSpec, Tree};

use super::fixture::{TestMount, mount, path, zone};
use super::*;

const SOON: Duration = Duration::from_secs(5);

struct World {
    env: Env,
    view: RouterView<TestMount>,
    router: Ref<Router<TestMount>>,
    /// How often the store was read.
    reads: Arc<AtomicU32>,
    spec: Option<SupSpec>,
}

impl World {
    fn new() -> (Self, Simulation) {
        let (env, simulation) = Env::seeded(7);
        let (view, reads) = (RouterView::new(), Arc::new(AtomicU32::new(0)));
        let read = reads.clone();
        let source: MountSource<TestMount> = Arc::new(move || {
            read.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(vec![mount(1, "root", "/"), mount(2, "root", "/")]) })
        });
        let router = Ref::new(&env, Router::<TestMount>::NAME, MailboxBounds { messages: MAILBOX_MAX });
        let args = RouterArgs { view: view.clone(), source };
        let child = ChildSpec::new("router", router.clone(), args);
        let spec = SupSpec::new("kernel", Strategy::OneForOne).restarts(5, SOON).child(child);
        (Self { env, view, router, reads, spec: Some(spec) }, simulation)
    }

    async fn start(&mut self) -> Tree {
        Tree::start(&self.env, self.spec.take().unwrap()).await.unwrap()
    }

    fn routed(&self, text: &str) -> Option<String> {
        self.view.route(&zone("root"), &path(text), |routed| routed.map(|r| r.mount.point.to_string()))
    }

    async fn mount(&self, id: u64, point: &str) -> Result<(), RouteError> {
        self.router.call(Mount(mount(id, "root", point)), SOON).await.unwrap()
    }

    fn reads(&self) -> u32 {
        self.reads.load(Ordering::Relaxed)
    }
}

/// Runs `test` in the simulation.
fn check(test: impl AsyncFnOnce(&mut World)) {
    let (mut world, simulation) = World::new();
    simulation.block_on(test(&mut world));
}

#[test]
fn what_is_mounted_is_routed_when_the_reply_is_there() {
    check(async |world| {
        let tree = world.start().await;
        assert_eq!(world.routed("/a/b").as_deref(), Some("/"), "the store's mounts are there at once");
        assert_eq!(world.mount(3, "/a").await, Ok(()));
        assert_eq!(world.routed("/a/b").as_deref(), Some("/a"));
        let version = world.view.version();
        assert_eq!(world.mount(3, "/a").await, Ok(()));
        assert_eq!(world.view.version(), version, "repeating it changes nothing");
        assert!(matches!(world.mount(4, "/a").await, Err(RouteError::PointTaken { .. })));
        let before = world.router.call(Rebind(mount(5, "root", "/a")), SOON).await.unwrap().unwrap();
        assert_eq!(before.id, MountId(3));
        let listed = world.router.call(ListMounts::new(), SOON).await.unwrap();
        assert_eq!(listed, world.view.list());
        assert_eq!(
            listed.iter().map(|m| m.id.0).collect::<Vec<_>>(),
            [1, 5],
            "the store's second / is left out"
        );
        world.router.call(Unmount(mount(5, "root", "/a")), SOON).await.unwrap().unwrap();
        assert_eq!(world.routed("/a/b").as_deref(), Some("/"));
        tree.stop().await;
    });
}

#[test]
fn a_crashed_router_still_routes_and_goes_on_from_what_it_published() {
    check(async |world| {
        let tree = world.start().await;
        world.mount(3, "/a").await.unwrap();
        tree.kill("kernel/router", Kill::Panic);
        world.mount(4, "/b").await.unwrap(); // Waits for the next incarnation.
        assert_eq!(world.router.generation(), 2);
        assert_eq!(world.routed("/a").as_deref(), Some("/a"));
        assert_eq!(world.routed("/b").as_deref(), Some("/b"));
        assert_eq!(world.reads(), 1, "the first restart is warm");
        tree.stop().await;
        assert_eq!(world.routed("/a").as_deref(), Some("/a"), "a stopped router still routes");
    });
}

#[test]
fn a_second_crash_within_the_period_reads_the_store() {
    check(async |world| {
        let tree = world.start().await;
        world.mount(3, "/a").await.unwrap();
        for point in ["/b", "/c"] {
            tree.kill("kernel/router", Kill::Panic);
            world.mount(9, point).await.unwrap();
        }
        assert_eq!(world.reads(), 2);
        assert_eq!(world.routed("/a").as_deref(), Some("/"), "what the store does not know is gone");
        assert_eq!(world.routed("/c").as_deref(), Some("/c"));
        tree.stop().await;
    });
}

#[test]
fn a_ghost_cannot_publish() {
    check(async |world| {
        let tree = world.start().await;
        let table = world.view.get();
        tree.kill("kernel/router", Kill::Brutal);
        world.mount(3, "/a").await.unwrap();
        assert!(world.view.publish(1, MountTable::thaw(&table).freeze()).is_err());
        assert_eq!(world.routed("/a").as_deref(), Some("/a"));
        tree.stop().await;
    });
}
