//! What is acknowledged before it is on disk, and what is on disk when: by call and by mount.
//!
//! `--test model crashes` looks at what a crash of the machine leaves of it, at each point and with each outcome.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use nexus::{
    Caller, Config, Durability, Env, ErrorKind, Event, EventMask, Executed, HostConfig, Kept, Kill, Lsn,
    MountSpec, Nexus, OpId, OpOutcome, Receipt, Result, Serve, SysOutcome, SysRead, SysReceipt, SysSetattr,
    SysSync, SysTx, SysUnlink, SysWrite, Timestamp, VPath, dispatch,
};
use nexus_actors::block_on;
use nexus_drivers::disk::sim::{Fault, Kept as Settled, SimDisk};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::locks::{LockOwner, Mode, Scope};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_supervisors::Tree;
use parking_lot::Mutex;

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// Longer than a test takes: nothing is flushed unless somebody has it flushed.
const NEVER: Duration = Duration::from_secs(3_600);

/// Within this time something happens that nobody asks for.
const SOON: Duration = Duration::from_secs(30);

/// So much that nobody waits for room.
const MUCH: u64 = 8 << 20;

/// By how much the log grows at once.
const AHEAD_BYTES: u64 = 16 << 10;

/// A disk for rows that can lose what was not flushed, and a folder for blobs.
struct Ground {
    disk: SimDisk,
    folder: tempfile::TempDir,
}

/// A kernel on it.
struct Life {
    env: Env,
    kernel: Arc<Kernel>,
    tree: Tree,
    admin: Arc<Caller>,
}

impl Ground {
    fn new() -> Self {
        Self { disk: SimDisk::new(7), folder: tempfile::tempdir().expect("there is room") }
    }

    async fn boot(&self, within: Duration, max_bytes: u64) -> Life {
        let env = Env::host(HostConfig::default()).expect("threads can be started");
        let metastore =
            WalMetastore::open_in(&self.disk.folder(), WalConfig::default().ahead_bytes(AHEAD_BYTES));
        let metastore = metastore.expect("it opens");
        let mut config = KernelConfig::default();
        config.data_folder = Some(self.folder.path().into());
        (config.flush_within, config.unflushed_max_bytes) = (within, max_bytes);
        let catalogue = Arc::new(nexus_drivers::catalogue());
        let (kernel, spec) = Kernel::new(&env, config, Arc::new(metastore), catalogue).expect("it is made");
        let tree = Tree::start(&env, spec).await.expect("the tree starts");
        let admin = Arc::new(Caller::administrator());
        let life = Life { env, kernel, tree, admin };
        if life.kernel.remount().await.expect("it remounts") == 0 {
            life.mount("/", MountSpec::new("cas-local")).await.expect("it mounts");
        }
        life
    }

    /// The power goes off, and nothing of what was not flushed is kept.
    async fn crash(&self, life: Life) {
        self.disk.crash(|_| Settled::Nothing);
        life.end().await;
    }
}

impl Life {
    async fn send<S: Serve>(&self, call: S) -> Result<S::Done> {
        self.kernel.send(&self.admin, call).await
    }

    async fn mount(&self, point: &str, spec: MountSpec) -> Result<Receipt> {
        Ok(self.send(SysSetattr::mount(path(point), spec)).await?.receipt)
    }

    async fn write(&self, at: &str) -> Receipt {
        let call = SysWrite::at(path(at), at.to_owned()).create().eventual();
        let receipt = self.send(call).await.expect("it writes").receipt;
        assert!(receipt.changed);
        receipt
    }

    async fn has(&self, at: &str) -> bool {
        match self.send(SysRead::at(path(at))).await {
            Ok(read) => {
                assert_eq!(read.data, at);
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                false
            }
        }
    }

    async fn kept(&self, receipt: Receipt) -> Kept {
        self.send(SysReceipt::of(receipt)).await.expect("it can be told")
    }

    async fn until_on_disk(&self, receipt: Receipt) {
        let on_disk = async {
            while self.kept(receipt).await != Kept::OnDisk {
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
        };
        self.env.timeout(SOON, on_disk).await.expect("it gets to the disk");
    }

    async fn end(self) {
        self.tree.stop().await;
        self.kernel.release_drivers();
        self.kernel.close_store();
        self.env.stop();
    }
}

#[test]
fn what_is_put_off_is_seen_at_once_and_is_on_disk_after_a_sync() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, MUCH).await;
        let lost = life.write("/lost").await;
        assert_eq!(lost.durability, Durability::Eventual);
        assert!(life.has("/lost").await);
        assert_eq!(life.kept(lost).await, Kept::InMemory);
        ground.crash(life).await;

        let life = ground.boot(NEVER, MUCH).await;
        assert!(!life.has("/lost").await, "nothing had brought it to the disk");
        assert_eq!(life.kept(lost).await, Kept::Lost);
        let kept = life.write("/kept").await;
        assert_eq!(kept.lsn, lost.lsn, "its place is free again");
        assert_eq!(life.kept(lost).await, Kept::Lost, "another has its place");
        let synced = life.send(SysSync::at(path("/kept"))).await.expect("it syncs");
        assert!(synced.lsn >= kept.lsn);
        assert_eq!(life.kept(kept).await, Kept::OnDisk);
        ground.crash(life).await;

        let life = ground.boot(NEVER, MUCH).await;
        assert!(life.has("/kept").await);
        assert_eq!(life.kept(kept).await, Kept::OnDisk);
        let missing = life.send(SysSync::at(path("/nothing"))).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        life.end().await;
    });
}

#[test]
fn a_write_that_waits_for_nobody_is_done_on_the_spot_and_any_other_waits_its_turn() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, MUCH).await;
        life.write("/here").await;
        let write = |content: &'static str| {
            life.send(SysWrite::at(path("/here"), content).eventual()).map(|done| done.expect("it writes"))
        };
        // The committer may be busy with what went before; one that does not come through then is finished by the kernel, before the next.
        let at_once = async |content| {
            for _ in 0..1_000 {
                if let Some(done) = write(content).now_or_never() {
                    return done;
                }
                write("in between").await;
            }
            panic!("nobody is in the way");
        };
        let seen = async || life.send(SysRead::at(path("/here"))).await.expect("it is there");
        let first = at_once("first").await;
        assert_eq!(seen().await.metadata, first.metadata);

        let owner = LockOwner { agent: "somebody".into(), since: Timestamp(0) };
        let in_the_way =
            life.kernel.path_locks().lock(&path("/here"), Mode::Write, Scope::Entry, owner).await;
        let mut second = Box::pin(write("second"));
        assert!(second.as_mut().now_or_never().is_none(), "somebody is in the way");
        assert!(write("given up").now_or_never().is_none(), "so is the second");
        drop(in_the_way);
        let second = second.await;
        assert_eq!(second.metadata.version, first.metadata.version + 1);
        assert_eq!(second.receipt.lsn, Lsn(first.receipt.lsn.0 + 1), "nothing was done of what was given up");
        at_once("third").await;
        assert_eq!(seen().await.data, "third");
        assert_eq!(life.kernel.path_locks().statistics().held, 0);
        life.end().await;
    });
}

#[test]
fn it_is_on_disk_in_time_with_nobody_asking() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(Duration::from_millis(20), MUCH).await;
        for round in 0..3 {
            // Also after a committer that was to flush has died.
            if round == 2 {
                let committer = "nexus/store/committer";
                assert!(life.tree.kill(committer, Kill::Panic), "it is there");
            }
            let receipt = life.write(&format!("/{round}")).await;
            life.until_on_disk(receipt).await;
        }
        ground.crash(life).await;
        let life = ground.boot(NEVER, MUCH).await;
        for round in 0..3 {
            assert!(life.has(&format!("/{round}")).await);
        }
        life.end().await;
    });
}

#[test]
fn who_waits_for_the_disk_brings_there_what_was_before() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, MUCH).await;
        let before = life.write("/before").await;
        let strong = life.send(SysWrite::at(path("/strong"), "/strong").create()).await.expect("it writes");
        assert_eq!((strong.receipt.durability, life.kept(before).await), (Durability::Strong, Kept::OnDisk));
        life.write("/after").await;
        ground.crash(life).await;
        let life = ground.boot(NEVER, MUCH).await;
        for (at, is_there) in [("/before", true), ("/strong", true), ("/after", false)] {
            assert_eq!(life.has(at).await, is_there, "{at}");
        }
        life.end().await;
    });
}

#[test]
fn who_is_told_that_it_is_so_already_is_told_what_is_on_disk() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, MUCH).await;
        let made = SysSetattr::directory(path("/made"));
        life.send(made.clone().eventual()).await.expect("it is made");
        let same = life.send(made).await.expect("it is there").receipt;
        assert_eq!((same.changed, same.durability), (false, Durability::Strong));
        assert_eq!(life.kept(same).await, Kept::Nothing);

        // A call that comes again, and waits for the disk now.
        let again = SysWrite::at(path("/again"), "/again").create().op_id(OpId(5));
        let first = life.send(again.clone().eventual()).await.expect("it writes").receipt;
        assert_eq!(life.kept(first).await, Kept::InMemory);
        let second = life.send(again).await.expect("it is there").receipt;
        assert_eq!((second.lsn, second.durability), (first.lsn, Durability::Strong));
        let tx = SysTx::new().with(SysWrite::at(path("/tx"), "/tx").create()).op_id(OpId(6));
        let first = life.send(tx.clone().eventual()).await.expect("it commits").receipt;
        assert_eq!(life.kept(first).await, Kept::InMemory);
        life.send(tx).await.expect("it is there");
        ground.crash(life).await;

        let life = ground.boot(NEVER, MUCH).await;
        assert!(life.send(nexus::SysStat::at(path("/made"))).await.is_ok());
        assert!(life.has("/again").await && life.has("/tx").await);
        life.end().await;
    });
}

#[test]
fn an_end_in_order_leaves_nothing_in_memory() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, MUCH).await;
        life.write("/last").await;
        life.end().await;
        ground.disk.crash(|_| Settled::Nothing);
        let life = ground.boot(NEVER, MUCH).await;
        assert!(life.has("/last").await);
        life.end().await;
    });
}

#[test]
fn a_change_that_fails_leaves_nothing_behind_that_was_put_off_before_it() {
    block_on(async {
        let ground = Ground::new();
        for within in [NEVER, Duration::from_millis(20)] {
            let life = ground.boot(within, MUCH).await;
            let at = format!("/{}", within.as_millis());
            let receipt = life.write(&at).await;
            ground.disk.fail_from(0, Fault::Full, 1);
            // The log has no room for so much before it grows, which fails with nothing written.
            let much = vec![7; usize::try_from(AHEAD_BYTES).expect("it is little")];
            let full = life.send(SysWrite::at(path("/full"), much).create()).await.unwrap_err();
            assert_eq!(full.kind(), ErrorKind::StoreFull, "{full}");
            ground.disk.heal();
            if within == NEVER {
                life.end().await;
                ground.disk.crash(|_| Settled::Nothing);
            } else {
                life.until_on_disk(receipt).await;
                ground.crash(life).await;
            }
            let life = ground.boot(NEVER, MUCH).await;
            assert!(life.has(&at).await, "{within:?}");
            life.end().await;
        }
    });
}

#[test]
fn a_call_that_comes_again_and_cannot_be_kept_is_not_told_as_one_that_was_not_made() {
    block_on(async {
        for fault in [Fault::Sync, Fault::Error] {
            let ground = Ground::new();
            let life = ground.boot(NEVER, MUCH).await;
            let write = SysWrite::at(path("/again"), "/again").create().op_id(OpId(5));
            let tx = SysTx::new().with(SysWrite::at(path("/tx"), "/tx").create()).op_id(OpId(6));
            life.send(write.clone().eventual()).await.expect("it writes");
            life.send(tx.clone().eventual()).await.expect("it commits");
            ground.disk.fail_from(0, fault, u64::MAX);
            for _ in 0..2 {
                for (error, op_id) in [
                    (life.send(write.clone()).await.expect_err("it cannot be kept"), OpId(5)),
                    (life.send(tx.clone()).await.expect_err("it cannot be kept"), OpId(6)),
                ] {
                    assert_eq!(
                        (error.executed(), error.op_id()),
                        (Executed::Unknown, Some(op_id)),
                        "{error}"
                    );
                }
            }
            ground.disk.heal();
            ground.crash(life).await;
        }
    });
}

#[test]
fn no_more_is_put_off_than_may_be() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, 20_000).await;
        let mut in_memory = 0;
        let mut receipts = Vec::new();
        for n in 0..30_u8 {
            let call = SysWrite::at(path(&format!("/{n}")), vec![n; 4_000]).create().eventual();
            receipts.push(life.send(call).await.expect("it writes").receipt);
        }
        for receipt in &receipts {
            in_memory += usize::from(life.kept(*receipt).await == Kept::InMemory);
        }
        assert!(in_memory * 4_000 <= 20_000 + 4_000, "{in_memory} writes of 4,000 bytes are in memory alone");
        life.end().await;
        let life = ground.boot(NEVER, 0).await;
        let receipt = life.write("/none-is-put-off").await;
        assert_eq!(life.kept(receipt).await, Kept::OnDisk);
        life.end().await;
    });
}

#[test]
fn a_disk_that_fails_ends_all_changes_and_what_was_promised_is_not_said_to_be_kept() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, MUCH).await;
        let put_off = life.write("/put-off").await;
        ground.disk.fail_from(0, Fault::Sync, u64::MAX);
        let failed = life.send(SysSync::at(path("/put-off"))).await.unwrap_err();
        assert_eq!(failed.executed(), Executed::Unknown, "{failed}");
        ground.disk.heal();
        for call in
            [SysWrite::at(path("/next"), "x").create(), SysWrite::at(path("/next"), "x").create().eventual()]
        {
            let refused = life.send(call).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ReadOnly, "{refused}");
        }
        assert!(life.has("/put-off").await, "readers go on");
        assert_eq!(life.kept(put_off).await, Kept::InMemory);
        ground.crash(life).await;
        let life = ground.boot(NEVER, MUCH).await;
        let kept = life.kept(put_off).await;
        assert_eq!(life.has("/put-off").await, kept == Kept::OnDisk, "{kept:?}");
        life.end().await;
    });
}

#[test]
fn a_change_that_may_have_been_made_says_which_it_was_and_the_next_boot_says_whether() {
    block_on(async {
        for (kept, op_id) in [(Settled::All, None), (Settled::Nothing, None), (Settled::All, Some(OpId(7)))] {
            let ground = Ground::new();
            let life = ground.boot(NEVER, MUCH).await;
            ground.disk.fail_from(0, Fault::Sync, u64::MAX);
            let mut call = SysWrite::at(path("/f"), "/f").create();
            call.op_id = op_id;
            let failed = life.send(call).await.unwrap_err();
            assert_eq!(failed.executed(), Executed::Unknown, "{failed}");
            let asked = failed.op_id().expect("it has one");
            assert!(op_id.is_none_or(|op_id| op_id == asked));
            assert_eq!(life.send(SysOutcome::of(asked)).await, Ok(OpOutcome::InDoubt));
            ground.disk.heal();
            ground.disk.crash(|_| kept);
            life.end().await;
            let life = ground.boot(NEVER, MUCH).await;
            let told = life.send(SysOutcome::of(asked)).await.expect("it can be told");
            match life.has("/f").await {
                true => assert!(told.receipt().is_some_and(|receipt| receipt.op_id == asked), "{told}"),
                false => assert_eq!(told, OpOutcome::NotExecuted),
            }
            life.end().await;
        }
    });
}

struct Hears(Arc<Mutex<Vec<String>>>);

impl dispatch::Observer for Hears {
    fn mask(&self) -> EventMask {
        EventMask::ALL
    }

    fn observe(&self, event: &Event) {
        self.0.lock().push(event.path.to_string());
    }
}

#[test]
fn observers_hear_of_what_is_on_disk_in_the_order_of_the_log() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(NEVER, MUCH).await;
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let observer = dispatch::Registration::observer("hears", Arc::new(Hears(heard.clone()))).inline();
        let registering =
            life.kernel.dispatch_actor().call(dispatch::Register(observer), Duration::from_secs(5));
        registering.await.expect("it serves").expect("there is room");
        let put_off: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
        for at in &put_off {
            life.write(at).await;
        }
        assert_eq!(*heard.lock(), [""; 0], "nothing of it is on disk");
        let strong = SysWrite::at(path("/strong"), "x").create();
        life.send(strong).await.expect("it writes");
        let all = [put_off, vec!["/strong".into()]].concat();
        let hearing = async {
            while heard.lock().len() < all.len() {
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
        };
        life.env.timeout(SOON, hearing).await.expect("all of it is told");
        assert_eq!(*heard.lock(), all);
        life.end().await;
    });
}

#[test]
fn many_at_once_are_each_seen_by_whoever_made_them() {
    block_on(async {
        let ground = Ground::new();
        let life = ground.boot(Duration::from_millis(1), 100_000).await;
        let life = &life;
        let writers = (0..8).map(|writer| async move {
            for n in 0..60 {
                let at = format!("/{writer}/{}", n % 7);
                let call = SysWrite::at(path(&at), at.clone()).create();
                // Some wait for the disk, and most do not.
                let call = if n % 10 == writer { call } else { call.eventual() };
                life.send(call).await.expect("it writes");
                assert!(life.has(&at).await);
                if n % 5 == 0 {
                    life.send(SysUnlink::at(path(&at)).eventual()).await.expect("it is there");
                    assert!(!life.has(&at).await);
                }
            }
        });
        join_all(writers).await;
    });
}

async fn on(folder: &tempfile::TempDir) -> Nexus {
    nexus::connect(Config::new(folder.path()).flush(NEVER, MUCH)).await.expect("it boots")
}

#[test]
fn what_ends_with_the_process_is_gone_after_it_and_the_rest_is_there() {
    block_on(async {
        let folder = tempfile::tempdir().expect("there is room");
        let nx = on(&folder).await;
        let class = |class: &str| MountSpec::new("cas-local").option("class", class);
        nx.mount("/scratch", class("scratch")).await.expect("it mounts");
        nx.mount("/cache", class("cache")).await.expect("it mounts");
        let scratch = nx.write("/scratch/a/b", "x").await.expect("it writes").receipt;
        let cache = nx.write("/cache/a/b", "x").await.expect("it writes").receipt;
        let durable = nx.write("/durable", "x").await.expect("it writes").receipt;
        let promised = [scratch, cache, durable].map(|receipt| receipt.durability);
        assert_eq!(promised, [Durability::Volatile, Durability::Eventual, Durability::Strong]);
        assert_eq!(nx.receipt(scratch).await, Ok(Kept::InMemory));

        // A call may ask for more than the mount gives, and not for what nothing there can give.
        let strong = nx.send(SysWrite::at(path("/cache/c"), "x").create().strong()).await.expect("it writes");
        assert_eq!(strong.receipt.durability, Durability::Strong);
        let refused = nx.send(SysWrite::at(path("/scratch/c"), "x").create().strong()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotSupported);
        assert!(refused.to_string().contains("/scratch"), "{refused}");
        // Of several in one transaction the strictest is kept.
        let tx = nx.tx().write("/scratch/t", "x").write("/t", "x").commit().await.expect("it commits");
        assert_eq!(tx.receipt.durability, Durability::Strong);
        // Only what is durable has a past, unless one is asked for.
        nx.write("/cache/a/b", "y").await.expect("it writes");
        for at in ["/cache/a/b", "/scratch/a/b"] {
            assert_eq!(nx.versions(at).await.unwrap_err().kind(), ErrorKind::NotKept, "{at}");
        }
        nx.shutdown().await.expect("it ends");

        let nx = on(&folder).await;
        assert_eq!(nx.read("/durable").await.expect("it is there"), "x");
        assert_eq!(nx.read("/cache/a/b").await.expect("it is there"), "y");
        assert_eq!(nx.readdir("/scratch").await.expect("it is mounted").len(), 0);
        assert_eq!(nx.receipt(scratch).await, Ok(Kept::Lost));
        nx.write("/scratch/a/b", "anew").await.expect("it serves");
        nx.shutdown().await.expect("it ends");
    });
}

#[test]
fn options_that_make_no_sense_are_refused_by_name_and_nothing_is_mounted() {
    block_on(async {
        let folder = tempfile::tempdir().expect("there is room");
        let nx = on(&folder).await;
        let spec = || MountSpec::new("cas-local");
        let refused = [
            (spec().option("class", "fast"), "class"),
            (spec().option("consistency", "maybe"), "consistency"),
            (spec().option("class", "scratch").option("consistency", "strong"), "scratch"),
        ];
        for (spec, named) in refused {
            let error = nx.mount("/m", spec).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(!nx.exists("/m").await.expect("it can be told"));
        let eventual = spec().option("consistency", "eventual");
        nx.mount("/m", eventual).await.expect("it mounts");
        let durability = nx.write("/m/x", "x").await.expect("it writes").receipt.durability;
        assert_eq!(durability, Durability::Eventual);
        let within = SysTx::new().with(SysWrite::at(path("/x"), "x").create().eventual());
        let error = nx.send(within).await.unwrap_err();
        assert_eq!((error.kind(), error.item()), (ErrorKind::InvalidArgument, Some(0)), "{error}");
        let tx = nx.tx().write("/y", "y").eventual().commit().await.expect("it commits");
        assert_eq!(tx.receipt.durability, Durability::Eventual);
        nx.shutdown().await.expect("it ends");
    });
}
