//! With every kernel actor held down, warm reads and uncontended locks pass, and no mail is sent.

use std::sync::Arc;

use nexus_actors::{ActorState, Env, HostConfig, block_on};
use nexus_drivers::redb::{RedbConfig, RedbMetastore};
use nexus_kernel::locks::{LockOwner, Mode, Scope};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_messages::syscall::{MountSpec, SysRead, SysSetattr, SysStat, SysWrite};
use nexus_messages::{Caller, Timestamp, VPath};
use nexus_supervisors::{Tree, TreeStatus};

/// The actors whose hold must not be felt.
const PRIMITIVES: [&str; 5] = [
    "nexus/store/committer",
    "nexus/kernel/router",
    "nexus/kernel/locks",
    "nexus/kernel/dispatch",
    "nexus/registry/lifecycle",
];

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// The mails that the actors of the tree were ever sent.
fn mails(tree: &TreeStatus) -> u64 {
    let own = tree.actor.served + (tree.actor.queued + tree.actor.callers_waiting) as u64;
    own + tree.children.iter().map(mails).sum::<u64>()
}

#[test]
fn held_actors_stop_no_warm_call() {
    let folder = tempfile::tempdir().expect("there is room");
    let env = Env::host(HostConfig::default()).expect("threads can be started");
    let metastore =
        RedbMetastore::open(folder.path().join("meta.redb"), RedbConfig::default()).expect("it opens");
    let mut config = KernelConfig::default();
    config.data_folder = Some(folder.path().into());
    let (kernel, spec) = Kernel::new(&env, config, Arc::new(metastore), Arc::new(nexus_drivers::catalogue()))
        .expect("it starts");
    block_on(async {
        let tree = Tree::start(&env, spec).await.expect("the tree starts");
        let admin = Arc::new(Caller::administrator());
        let mount = SysSetattr::mount(path("/"), MountSpec::new("cas-local"));
        kernel.send(&admin, mount).await.expect("it mounts");

        let (small, large) = (path("/small"), path("/deep/large"));
        kernel.send(&admin, SysWrite::at(&small, "hello").create()).await.expect("it writes");
        kernel.send(&admin, SysWrite::at(&large, vec![7u8; 100_000]).create()).await.expect("it writes");

        for name in PRIMITIVES {
            tree.child(name).unwrap_or_else(|| panic!("{name} is in the tree")).suspend();
        }
        let held = || {
            PRIMITIVES
                .iter()
                .all(|name| tree.find(name).is_some_and(|it| it.actor.state == ActorState::Suspended))
        };
        while !held() {
            std::thread::yield_now();
        }
        let before = mails(&tree.snapshot());
        for _ in 0..100 {
            assert_eq!(kernel.send(&admin, SysStat::at(&small)).await.expect("it is there").size, 5);
            assert_eq!(kernel.send(&admin, SysRead::at(&small)).await.expect("it is there").data, "hello");
            let part = kernel.send(&admin, SysRead::at(&large).range(99_990, 50)).await.expect("it is there");
            assert_eq!(part.data.as_ref(), [7u8; 10]);
            let owner = LockOwner { agent: "test".into(), since: Timestamp(0) };
            let lock = kernel.path_locks().lock(&small, Mode::Write, Scope::Entry, owner);
            drop(lock.await);
        }
        assert!(held(), "the actors were held all the time");
        assert_eq!(mails(&tree.snapshot()), before, "no mail was sent");

        for name in PRIMITIVES {
            tree.child(name).unwrap_or_else(|| panic!("{name} is in the tree")).resume();
        }
        let written = kernel.send(&admin, SysWrite::at(&small, "again")).await.expect("it writes again");
        assert_eq!(written.metadata.version, 2);
        tree.stop().await;
    });
    env.stop();
}
