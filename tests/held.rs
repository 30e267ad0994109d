//! With every kernel actor held down, warm reads and uncontended locks pass, watchers are told, and no mail is sent.

mod common;

use std::time::Duration;

use common::{boot, path};
use nexus_actors::{ActorState, block_on};
use nexus_kernel::locks::{LockOwner, Mode, Scope};
use nexus_messages::syscall::{SysRead, SysStat, SysWatch, SysWrite};
use nexus_messages::{EntryType, Event, EventKind, OpId, Timestamp};
use nexus_supervisors::TreeStatus;

/// The actors whose hold must not be felt.
const PRIMITIVES: [&str; 6] = [
    "nexus/store/committer",
    "nexus/kernel/router",
    "nexus/kernel/locks",
    "nexus/kernel/dispatch",
    "nexus/kernel/watcher",
    "nexus/registry/lifecycle",
];

/// The mails that the actors of the tree were ever sent.
fn mails(tree: &TreeStatus) -> u64 {
    let own = tree.actor.served + (tree.actor.queued + tree.actor.callers_waiting) as u64;
    own + tree.children.iter().map(mails).sum::<u64>()
}

#[test]
fn held_actors_stop_no_warm_call() {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let running = boot(folder.path()).await;
        let (kernel, tree, admin) = (&running.kernel, &running.tree, &running.admin);
        let (small, large) = (path("/small"), path("/deep/large"));
        kernel.send(admin, SysWrite::at(&small, "hello").create()).await.expect("it writes");
        kernel.send(admin, SysWrite::at(&large, vec![7u8; 100_000]).create()).await.expect("it writes");

        let mut watch = kernel.watch(admin, SysWatch::at(path("/"))).await.expect("it begins");

        for name in PRIMITIVES {
            tree.child(name).unwrap_or_else(|| panic!("{name} is in the tree")).suspend();
        }
        let held = || {
            let state = |name| tree.find(name).map(|found| found.actor.state);
            PRIMITIVES.iter().all(|name| state(name) == Some(ActorState::Suspended))
        };
        while !held() {
            std::thread::yield_now();
        }
        let before = mails(&tree.snapshot());
        for _ in 0..100 {
            assert_eq!(kernel.send(admin, SysStat::at(&small)).await.expect("it is there").size, 5);
            assert_eq!(kernel.send(admin, SysRead::at(&small)).await.expect("it is there").data, "hello");
            let part = kernel.send(admin, SysRead::at(&large).range(99_990, 50)).await.expect("it is there");
            assert_eq!(part.data.as_ref(), [7u8; 10]);
            let owner = LockOwner { agent: "test".into(), since: Timestamp(0) };
            drop(kernel.path_locks().lock(&small, Mode::Write, Scope::Entry, owner).await);
            let locked = Event::new(EventKind::Locked, small.clone(), EntryType::Reg, admin.clone(), OpId(1));
            kernel.announce(locked);
            let told = watch.next(Some(Duration::ZERO)).await.expect("it is told").events;
            assert_eq!((told.len(), told[0].kind), (1, EventKind::Locked));
        }
        assert!(held(), "the actors were held all the time");
        assert_eq!(mails(&tree.snapshot()), before, "no mail was sent");

        for name in PRIMITIVES {
            tree.child(name).unwrap_or_else(|| panic!("{name} is in the tree")).resume();
        }
        let written = kernel.send(admin, SysWrite::at(&small, "again")).await.expect("it writes again");
        assert_eq!(written.metadata.version, 2);
        running.stop().await;
    });
}
