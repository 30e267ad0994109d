//! Random calls, with the kernel stopped, killed and opened again among them. After each call the answers are compared, and all that can be seen.
//!
//! When the power goes off in the middle of a call, it was made or it was not, whole; and it was, when it had answered.
//!
//!     PROPTEST_CASES=1000 cargo test --test model random

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nexus::{Caller, ErrorKind, MountSpec, SysSetattr, VPath};
use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::disk::sim::SimDisk;
use nexus_drivers::memory::MemoryMetastore;
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{Metastore, StoreError};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_supervisors::Tree as Supervision;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::calls::{Call, Calls, call};
use crate::client::{Client, METADATA_CACHE_BYTES};
use crate::disk::{Blobs, Machine};
use crate::tree::{Answer, Tree};

/// How many calls one case has at most.
const CALLS_MAX: usize = 40;

/// What `/` is, and where rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Content by its hash, rows in memory.
    Memory,
    /// Content by its hash, rows in redb.
    Redb,
    /// A file system in memory. Nothing of it is there after the kernel was stopped.
    MemoryPath,
    /// A folder of plain files.
    PathLocal,
    /// Content by its hash, rows in redb, all on a disk that loses what was not flushed.
    Disk,
}

impl Kind {
    fn has_rows(self) -> bool {
        matches!(self, Self::Memory | Self::Redb | Self::Disk)
    }
}

struct System {
    kind: Kind,
    ground: Ground,
}

/// What the kernel stands on.
enum Ground {
    Host {
        env: Env,
        folder: tempfile::TempDir,
        memory: Option<Arc<dyn Metastore>>,
        client: Client,
        supervision: Supervision,
    },
    Simulated {
        disk: SimDisk,
        life: u64,
        machine: Machine,
    },
}

async fn boot(env: &Env, folder: &Path, kind: Kind, metastore: Arc<dyn Metastore>) -> (Client, Supervision) {
    let mut config = KernelConfig::default();
    let data = folder.join("data");
    std::fs::create_dir_all(&data).expect("there is room");
    config.data_folder = Some(data);
    config.metadata_cache_bytes = METADATA_CACHE_BYTES;
    let catalogue = Arc::new(nexus_drivers::catalogue());
    let (kernel, spec) = Kernel::new(env, config, metastore, catalogue).expect("it is made");
    let supervision = Supervision::start(env, spec).await.expect("the tree starts");
    kernel.remount().await.expect("it remounts");
    let spec = match kind {
        Kind::Memory | Kind::Redb | Kind::Disk => MountSpec::new("cas-local"),
        Kind::MemoryPath => MountSpec::new("memory-path"),
        Kind::PathLocal => {
            let files = folder.join("files");
            std::fs::create_dir_all(&files).expect("there is room");
            MountSpec::new("path-local").option("folder", files.display().to_string())
        }
    };
    let admin = Arc::new(Caller::administrator());
    kernel.send(&admin, SysSetattr::mount(VPath::root(), spec)).await.expect("it mounts");
    (Client::new(kernel, kind.has_rows()), supervision)
}

fn power_on(disk: &SimDisk, life: u64) -> Machine {
    Machine::boot(disk, life, Blobs::Here).unwrap_or_else(|why| panic!("it does not boot: {why}"))
}

impl System {
    fn new(env: &Env, kind: Kind) -> Self {
        if kind == Kind::Disk {
            let (disk, life) = (SimDisk::new(1), 1);
            let machine = power_on(&disk, life);
            return Self { kind, ground: Ground::Simulated { disk, life, machine } };
        }
        let folder = tempfile::tempdir().expect("there is room");
        let memory = (kind != Kind::Redb).then(|| Arc::new(MemoryMetastore::new()) as Arc<dyn Metastore>);
        let metastore = memory.clone().unwrap_or_else(|| redb(folder.path()));
        let (client, supervision) = block_on(boot(env, folder.path(), kind, metastore));
        Self { kind, ground: Ground::Host { env: env.clone(), folder, memory, client, supervision } }
    }

    fn call(&self, call: &Call) -> nexus::Result<String> {
        match &self.ground {
            Ground::Host { client, .. } => block_on(client.try_call(call)),
            Ground::Simulated { machine, .. } => machine.wait(machine.client.try_call(call)),
        }
    }

    fn matches(&self, model: &Tree) -> Result<(), TestCaseError> {
        match &self.ground {
            Ground::Host { client, .. } => block_on(client.matches(model)),
            Ground::Simulated { machine, .. } => machine.wait(machine.client.matches(model)),
        }
    }

    fn end(self) {
        match self.ground {
            Ground::Host { supervision, .. } => block_on(supervision.stop()),
            Ground::Simulated { machine, .. } => machine.end(),
        }
    }

    fn reopen(self) -> Self {
        let kind = self.kind;
        let ground = match self.ground {
            Ground::Host { env, folder, memory, client, supervision } => {
                block_on(supervision.stop());
                drop((client, supervision));
                let metastore = memory.clone().unwrap_or_else(|| redb(folder.path()));
                let (client, supervision) = block_on(boot(&env, folder.path(), kind, metastore));
                Ground::Host { env, folder, memory, client, supervision }
            }
            Ground::Simulated { disk, life, machine } => {
                machine.end();
                let machine = power_on(&disk, life + 1);
                Ground::Simulated { disk, life: life + 1, machine }
            }
        };
        Self { kind, ground }
    }

    /// The power goes off in the middle of `call`, which may have been answered before, and another kernel is started on what is left.
    fn crash(self, call: &Call, change: u64, seed: u64) -> (Self, Answer) {
        let Ground::Simulated { disk, life, machine } = self.ground else {
            panic!("{:?} has no disk that can crash", self.kind)
        };
        disk.power_off_at(disk.counts().changes + change);
        let answer = machine.wait(machine.client.call(call));
        disk.crash_by(seed);
        drop(machine);
        let machine = power_on(&disk, life + 1);
        (Self { kind: self.kind, ground: Ground::Simulated { disk, life: life + 1, machine } }, answer)
    }
}

/// What a kernel that was stopped still holds, some thread of it lets go of soon.
fn redb(folder: &Path) -> Arc<dyn Metastore> {
    loop {
        match WalMetastore::open(folder, WalConfig::default()) {
            Err(StoreError::Locked { .. }) => std::thread::yield_now(),
            opened => return Arc::new(opened.expect("it opens")),
        }
    }
}

/// Whether a transaction may answer `got` where its calls, made one after the other, answer `due`.
fn is_due(got: &Answer, due: &Answer, calls: &[Call], model: &Tree) -> bool {
    let makes_links = |call: &Call| matches!(call, Call::Set { target: Some(_), .. });
    let links = model.has_links() || calls.iter().any(makes_links);
    match (got, due) {
        (Ok(_), _) => got == due,
        // What is refused whatever is there is told before what is not as expected.
        (Err(got), Err(due)) => {
            // Where it is not served, that is one reason among others. A transaction looks at all of its calls before the first is made: of two reasons
            // it may tell another one than its calls by themselves.
            links
                || got == due
                || *due == ErrorKind::CrossMount
                || calls.len() > 1
                || matches!(got, ErrorKind::InvalidArgument | ErrorKind::TooManyLinks)
        }
        // Links that it changes are not followed. By its own text, a path through one may lie within what is renamed to it.
        (Err(got), Ok(_)) => {
            let refused = match got {
                ErrorKind::NotSupported
                | ErrorKind::TooManyLinks
                | ErrorKind::NotADirectory
                | ErrorKind::NotFound => true,
                ErrorKind::InvalidArgument => calls.iter().any(|call| matches!(call, Call::Rename { .. })),
                _ => false,
            };
            links && refused
        }
    }
}

/// What came of a case.
#[derive(Debug, Default)]
struct Counted {
    /// Transactions of several calls that were committed.
    committed: AtomicU32,
    /// Calls in the middle of which the power went off, and that were made; and that were not.
    made: AtomicU32,
    unmade: AtomicU32,
}

fn run(env: &Env, kind: Kind, calls: Vec<Call>, counted: &Counted) -> Result<(), TestCaseError> {
    let mut system = System::new(env, kind);
    let mut model = Tree::new(kind.has_rows());
    for call in &calls {
        if matches!(call, Call::Reopen) {
            system = system.reopen();
            if kind == Kind::MemoryPath {
                model = Tree::new(false);
            }
        }
        let before = model.clone();
        if let Call::Crash { during, change, seed } = call {
            let due = model.call(during);
            let (there, got) = system.crash(during, *change, *seed);
            system = there;
            if due.is_err() {
                model = before;
            } else if got.is_ok() {
                prop_assert_eq!(&got, &due, "{:?}", call);
            } else if system.matches(&model).is_ok() {
                counted.made.fetch_add(1, Ordering::Relaxed);
            } else {
                model = before;
                counted.unmade.fetch_add(1, Ordering::Relaxed);
            }
            system.matches(&model)?;
            continue;
        }
        let due = model.call(call);
        let answer = system.call(call);
        let got = answer.clone().map_err(|error| error.kind());
        match call {
            Call::Tx(calls) => {
                prop_assert!(is_due(&got, &due, calls, &before), "{got:?}, not {due:?}: {call:?}");
                if got.is_ok() && calls.len() > 1 {
                    counted.committed.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => prop_assert_eq!(&got, &due, "{:?}, of {:?}", answer, call),
        }
        if got.is_err() {
            model = before;
        }
        system.matches(&model)?;
    }
    system.end();
    Ok(())
}

/// Checks `cases` random sequences of calls; the shortest that fails is shown.
fn check(kind: Kind, cases: u32, links: bool, transactions: u32) -> Counted {
    let counted = Counted::default();
    let env = Env::host(HostConfig::default()).expect("threads can be started");
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let calls = call(Calls { rows: kind.has_rows(), links, transactions, crashes: kind == Kind::Disk });
    let calls = prop::collection::vec(calls, 1..CALLS_MAX);
    let checked = TestRunner::new(config).run(&calls, |calls| run(&env, kind, calls, &counted));
    env.stop();
    if let Err(TestError::Fail(why, calls)) = checked {
        let calls: Vec<String> = calls.iter().map(|call| format!("{call:?}")).collect();
        panic!("on {kind:?}: {why}\n{}", calls.join("\n"));
    }
    counted
}

#[test]
fn a_transaction_does_what_its_calls_do_one_after_the_other_or_nothing() {
    let committed = check(Kind::Memory, 120, false, 40).committed.into_inner();
    println!("{committed} were committed");
    // Most are refused: they meet few paths, and one call that fails is enough.
    assert!(committed >= 5, "{committed} were committed");
}

#[test]
fn the_same_of_transactions_on_redb() {
    check(Kind::Redb, 10, false, 40);
}

#[test]
fn content_addressed_mounts_do_what_the_model_does() {
    check(Kind::Memory, 50, true, 10);
}

#[test]
fn the_same_on_redb() {
    check(Kind::Redb, 15, true, 10);
}

#[test]
fn a_kernel_whose_power_goes_off_and_on_does_what_the_model_does() {
    let Counted { made, unmade, .. } = check(Kind::Disk, 120, false, 10);
    let (made, unmade) = (made.into_inner(), unmade.into_inner());
    println!("in the middle of {made} calls that were made, and of {unmade} that were not");
    assert!(made > 0 && unmade > 0, "{made} were made, {unmade} were not");
}

#[test]
fn the_same_with_links() {
    check(Kind::Disk, 20, true, 10);
}

#[test]
fn a_file_system_in_memory_does_what_the_model_does() {
    check(Kind::MemoryPath, 50, true, 1);
}

#[test]
fn a_folder_of_plain_files_does_what_the_model_does() {
    check(Kind::PathLocal, 15, true, 1);
}
