//! The way of a syscall, where it went wrong before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::{
    Config, EntryType, ErrorKind, Event, EventMask, HookContext, MountSpec, OpId, Outcome, Place,
    Precondition, SysCopy, SysReaddir, SysRename, SysSetattr, SysUnlink, SysWrite, Syscall, VPath, Verdict,
    blocking,
};
use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::hal::{Metastore, TreeId};

/// Every kind of root that needs no folder.
const ROOTS: [&str; 2] = ["memory", "memory-path"];

fn boot(root: &str) -> blocking::Nexus {
    blocking::connect(Config::in_memory().root(MountSpec::new(root))).expect("it boots")
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("it is one")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(done: nexus::Result<T>, kind: ErrorKind) {
    assert_eq!(done.expect_err("it is refused").kind(), kind);
}

#[test]
fn a_read_only_mount_can_be_copied_from() {
    let nx = boot("memory");
    let folder = tempfile::tempdir().expect("there is room");
    std::fs::write(folder.path().join("f"), "kept").expect("there is room");
    let plain = MountSpec::new("path-local").option("folder", folder.path().display().to_string());
    nx.mount("/r", plain.read_only()).expect("it mounts");
    nx.copy("/r/f", "/f").expect("nothing is changed there");
    assert_eq!(nx.read("/f").expect("it is there"), "kept");
    refused(nx.copy("/f", "/r/g"), ErrorKind::ReadOnly);
}

#[test]
fn a_link_leads_a_write_out_of_a_mount_that_takes_no_changes_or_keeps_none() {
    let data = tempfile::tempdir().expect("there is room");
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.mkdir("/w").expect("it is made");
    nx.mount("/scratch", MountSpec::new("memory").option("class", "scratch")).expect("it mounts");
    nx.mount("/read", MountSpec::new("cas-local")).expect("it mounts");
    for mount in ["/scratch", "/read"] {
        nx.link(format!("{mount}/l"), "/w").expect("it is made");
        nx.link(format!("{mount}/f"), format!("/w{mount}")).expect("it is made");
    }
    nx.swap_driver("/read", MountSpec::new("cas-local").read_only()).expect("it is replaced");
    for (n, at) in ["/scratch/l/a", "/read/l/b", "/scratch/f", "/read/f"].into_iter().enumerate() {
        let call = SysWrite::at(path(at), n.to_string()).create().strong();
        nx.send(call).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(nx.read(at).expect("it is there"), n.to_string());
    }
    let there: Vec<_> = nx.readdir("/w").expect("it lists").into_iter().map(|entry| entry.path).collect();
    assert_eq!(there, ["/w/a", "/w/b", "/w/read", "/w/scratch"].map(path));
    let strong = |at| nx.send(SysWrite::at(path(at), "x").create().strong());
    refused(strong("/read/g"), ErrorKind::ReadOnly);
    refused(strong("/scratch/g"), ErrorKind::NotSupported);
    // What is in the way says what it is, and a link that is an entry stays one.
    refused(strong("/w/a/b"), ErrorKind::NotADirectory);
    refused(strong("/w"), ErrorKind::IsADirectory);
    nx.link("/w/l", "/w/new").expect("it is made");
    let exclusive = SysWrite::at(path("/w/l"), "x").create_exclusive();
    refused(nx.send(exclusive), ErrorKind::AlreadyExists);
    nx.write("/w/l", "through").expect("it writes");
    assert_eq!(nx.read("/w/new").expect("it is there"), "through");
}

#[test]
fn a_mount_that_could_not_be_started_can_be_detached() {
    let (data, files) =
        (tempfile::tempdir().expect("there is room"), tempfile::tempdir().expect("there is room"));
    let plain = MountSpec::new("path-local").option("folder", files.path().display().to_string());
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.mount("/m", plain).expect("it mounts");
    nx.shutdown().expect("it stops");
    drop(files);
    let nx = blocking::connect(data.path()).expect("one bad mount is no reason not to boot");
    refused(nx.stat("/m/f"), ErrorKind::Unavailable);
    refused(nx.remove_all("/m"), ErrorKind::Busy);
    nx.unmount("/m").expect("it is detached");
    refused(nx.stat("/m/f"), ErrorKind::NotFound);
    nx.write("/m/f", "x").expect("nothing covers it any more");
}

#[test]
fn nothing_is_mounted_below_a_file_and_no_file_is_made_above_a_mount() {
    for root in ROOTS {
        let nx = boot(root);
        nx.write("/f", "x").expect("it writes");
        refused(nx.mount("/f/m", MountSpec::new("memory")), ErrorKind::NotADirectory);
        nx.mount("/d/m", MountSpec::new("memory")).expect("it mounts");
        refused(nx.write("/d", "x"), ErrorKind::IsADirectory);
        refused(nx.send(SysSetattr::file(path("/d"))), ErrorKind::IsADirectory);
        refused(nx.link("/d", "/f"), ErrorKind::IsADirectory);
        refused(nx.copy("/f", "/d"), ErrorKind::InvalidArgument);
        refused(nx.rename("/f", "/d"), ErrorKind::Busy);
        assert_eq!(nx.stat("/d/m").expect("it is there").entry_type, EntryType::Mount);
    }
}

#[test]
fn a_mount_made_through_a_link_is_where_the_link_leads() {
    for root in ROOTS {
        let nx = boot(root);
        nx.mkdir("/d").expect("it makes");
        nx.link("/l", "d").expect("it links");
        nx.mount("/l/m", MountSpec::new("memory")).expect("it mounts");
        nx.write("/d/m/f", "x").expect("it writes");
        assert_eq!(nx.read("/l/m/f").expect("it is there"), "x");
        nx.unmount("/l/m").expect("it unmounts by either way");
        assert!(!nx.exists("/d/m").expect("it looks"), "on {root}");
    }
}

#[test]
fn a_copy_onto_anything_without_leave_to_replace_is_told_that_it_exists() {
    for root in ROOTS {
        let nx = boot(root);
        nx.write("/f", "x").expect("it writes");
        nx.mkdir("/d").expect("it makes");
        refused(nx.send(SysCopy::new(path("/f"), path("/d")).no_replace()), ErrorKind::AlreadyExists);
        refused(nx.copy("/f", "/d"), ErrorKind::InvalidArgument);
    }
}

#[test]
fn what_is_missing_is_told_as_missing_whatever_was_expected_of_it() {
    for root in ROOTS {
        let nx = boot(root);
        let expected = Precondition::Version(7);
        refused(nx.send(SysUnlink::at(path("/f")).when(expected.clone())), ErrorKind::NotFound);
        refused(nx.send(SysRename::new(path("/f"), path("/g")).when(expected)), ErrorKind::NotFound);
    }
}

#[test]
fn the_root_renamed_onto_itself_stays_as_it_is() {
    for root in ROOTS {
        let nx = boot(root);
        nx.mount("/m", MountSpec::new("memory")).expect("it mounts");
        assert!(!nx.rename("/", "/").expect("nothing happens").replaced);
        refused(nx.rename("/", "/x"), ErrorKind::Busy);
    }
}

#[test]
fn a_copy_between_zones_is_logged_where_it_changes_something() {
    let rows = Arc::new(MemoryMetastore::new());
    let nx = blocking::connect(Config::in_memory().metastore(rows.clone())).expect("it boots");
    nx.write("/f", "x").expect("it writes");
    let team = nx.zone("team").expect("a name");
    team.mount("/own", MountSpec::new("memory")).expect("it mounts");
    let before = rows.last_lsn(TreeId::ROOT).expect("it is open");
    let done = team.copy("/f", "/own/f").expect("it copies");
    assert_eq!(rows.last_lsn(TreeId::ROOT).expect("it is open"), before);
    assert_eq!(rows.last_lsn(TreeId(1)).expect("it is open"), done.receipt.lsn);
}

#[test]
fn what_a_path_can_no_longer_name_is_left_out_of_listings() {
    let nx = boot("memory");
    let deep: String = std::iter::repeat_n(format!("/{}", "d".repeat(250)), 15).collect();
    nx.write(format!("{deep}/f"), "x").expect("it writes");
    nx.mkdir(format!("/{0}/{0}/{0}", "e".repeat(250))).expect("it makes");
    let moved = format!("/{0}/{0}/{0}/moved", "e".repeat(250));
    nx.rename(format!("/{}", "d".repeat(250)), &moved).expect("it is one row");
    let all = nx.walk("/").count();
    let listed: nexus::Result<Vec<_>> = nx.walk("/").collect();
    assert_eq!(listed.expect("what can be named is listed").len(), all);
    nx.rename(moved, "/short").expect("it can be moved up again");
    assert!(nx.walk("/short").any(|entry| entry.is_ok_and(|entry| entry.name() == "f")));
}

/// Tells how often it heard of something.
#[derive(Default)]
struct Hears(AtomicU32);

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, _: &Event) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_repeat_of_what_was_done_is_told_to_no_observer() {
    for root in ROOTS {
        let nx = boot(root);
        let hears = Arc::new(Hears::default());
        nx.register_hook(Registration::observer("hears", hears.clone()).inline()).expect("there is room");
        let call = SysWrite::at(path("/f"), "x").create().append().op_id(OpId(7));
        let first = nx.send(call.clone()).expect("it writes");
        let again = nx.send(call).expect("it was written");
        assert_eq!(first.receipt.lsn, again.receipt.lsn);
        assert_eq!(nx.read("/f").expect("it is there"), "x", "on {root}");
        assert_eq!(hears.0.load(Ordering::Relaxed), 1, "on {root}");
    }
}

/// Changes calls.
struct Changes(fn(&mut Syscall));

impl Interceptor for Changes {
    fn ops(&self) -> OpSet {
        OpSet::MUTATIONS
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        self.0(&mut cx.call);
        Box::pin(std::future::ready(Verdict::Continue))
    }

    fn after<'a>(&'a self, _: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn what_a_hook_makes_of_a_call_is_checked_like_the_call() {
    let check = |change: fn(&mut Syscall), kind| {
        for root in ROOTS {
            let nx = boot(root);
            let hook = Registration::interceptor("changes", Arc::new(Changes(change)));
            nx.register_hook(hook).expect("there is room");
            refused(nx.mkdir("/d"), kind);
            assert!(!nx.exists("/d").expect("it looks"), "on {root}");
            assert_eq!(nx.mounts().expect("it looks").len(), 1, "on {root}");
        }
    };
    check(
        |call| {
            let Syscall::Setattr(call) = call else { return };
            call.entry_type = Some(EntryType::Link);
        },
        ErrorKind::InvalidArgument,
    );
    check(
        |call| {
            let Syscall::Setattr(call) = call else { return };
            call.entry_type = Some(EntryType::Mount);
            call.mount = Some(MountSpec::new("memory"));
        },
        ErrorKind::Refused,
    );
    check(
        |call| {
            *call = SysWrite::at(path("/d"), "x").create().into();
        },
        ErrorKind::Refused,
    );
    let nx = boot("memory");
    let hook = Changes(|call| {
        if let Syscall::Write(call) = call {
            call.truncate = true;
            call.place = Place::End;
        }
    });
    nx.register_hook(Registration::interceptor("changes", Arc::new(hook))).expect("there is room");
    refused(nx.write("/f", "x"), ErrorKind::InvalidArgument);
}

/// Takes itself, and all others, out before the call goes on.
struct Leaves {
    nx: nexus::Nexus,
    after: AtomicU32,
}

impl Interceptor for Leaves {
    fn ops(&self) -> OpSet {
        OpSet::MUTATIONS
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(async {
            for hook in self.nx.hooks().await.expect("it lists") {
                self.nx.unregister_hook(hook.id).await.expect("it is there");
            }
            Verdict::Continue
        })
    }

    fn after<'a>(&'a self, _: &'a HookContext, _: &'a Outcome) -> BoxFuture<'a, ()> {
        self.after.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn the_hooks_that_saw_a_call_before_it_see_it_afterwards() {
    nexus_actors::block_on(async {
        let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
        let leaves = Arc::new(Leaves { nx: nx.clone(), after: AtomicU32::new(0) });
        nx.register_hook(Registration::interceptor("leaves", leaves.clone())).await.expect("there is room");
        nx.write("/f", "x").await.expect("it writes");
        assert_eq!(leaves.after.load(Ordering::Relaxed), 1);
        nx.write("/f", "y").await.expect("it writes");
        assert_eq!(leaves.after.load(Ordering::Relaxed), 1, "it is gone");
        nx.shutdown().await.expect("it stops");
    });
}

#[test]
fn a_detached_mount_whose_content_is_gone_is_forgotten() {
    let rows = Arc::new(MemoryMetastore::new());
    let nx = blocking::connect(Config::in_memory().metastore(rows.clone())).expect("it boots");
    let remembered = || {
        let mounts = nexus_kernel::hal::RowKey::new(nexus_kernel::hal::Table::Mounts, Vec::new());
        let reader = rows.reader().expect("it is open");
        reader.scan(&mounts, None, usize::MAX).expect("it scans").len()
    };
    let before = remembered();
    for _ in 0..3 {
        nx.mount("/m", MountSpec::new("memory")).expect("it mounts");
        nx.unmount("/m").expect("it unmounts");
    }
    assert_eq!(remembered(), before);
    let page = nx.send(SysReaddir::at(path("/"))).expect("it lists");
    assert!(page.entries.is_empty());
}
