//! Random calls, against a file system that is too simple to be wrong. After each call the answers are compared, and all that can be seen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nexus::{Caller, ErrorKind, MountSpec, SysSetattr, VPath};
use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::memory::MemoryMetastore;
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{Metastore, StoreError};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_supervisors::Tree as Supervision;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::calls::{Call, Calls, call};
use crate::client::Client;
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
}

impl Kind {
    fn has_rows(self) -> bool {
        matches!(self, Self::Memory | Self::Redb)
    }
}

struct System {
    kind: Kind,
    env: Env,
    folder: tempfile::TempDir,
    memory: Option<Arc<dyn Metastore>>,
    client: Client,
    supervision: Supervision,
}

async fn boot(
    env: &Env,
    folder: &Path,
    kind: Kind,
    metastore: Arc<dyn Metastore>,
) -> (Arc<Kernel>, Supervision) {
    let mut config = KernelConfig::default();
    config.data_folder = Some(folder.into());
    // So small that entries leave it.
    config.metadata_cache_entries = 16;
    let catalogue = Arc::new(nexus_drivers::catalogue());
    let (kernel, spec) = Kernel::new(env, config, metastore, catalogue).expect("it is made");
    let supervision = Supervision::start(env, spec).await.expect("the tree starts");
    kernel.remount().await.expect("it remounts");
    let spec = match kind {
        Kind::Memory | Kind::Redb => MountSpec::new("cas-local"),
        Kind::MemoryPath => MountSpec::new("memory-path"),
        Kind::PathLocal => {
            let files = folder.join("files");
            std::fs::create_dir_all(&files).expect("there is room");
            MountSpec::new("path-local").option("folder", files.display().to_string())
        }
    };
    let admin = Arc::new(Caller::administrator());
    kernel.send(&admin, SysSetattr::mount(VPath::root(), spec)).await.expect("it mounts");
    (kernel, supervision)
}

impl System {
    async fn new(env: &Env, kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let memory = (kind != Kind::Redb).then(|| Arc::new(MemoryMetastore::new()) as Arc<dyn Metastore>);
        let metastore = memory.clone().unwrap_or_else(|| redb(folder.path()));
        let (kernel, supervision) = boot(env, folder.path(), kind, metastore).await;
        let client = Client::new(kernel, kind.has_rows());
        Self { kind, env: env.clone(), folder, memory, client, supervision }
    }

    async fn reopen(self) -> Self {
        let Self { kind, env, folder, memory, client, supervision } = self;
        supervision.stop().await;
        drop((client, supervision));
        let metastore = memory.clone().unwrap_or_else(|| redb(folder.path()));
        let (kernel, supervision) = boot(&env, folder.path(), kind, metastore).await;
        let client = Client::new(kernel, kind.has_rows());
        Self { kind, env, folder, memory, client, supervision }
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
            // Where it is not served, that is one reason among others.
            links
                || got == due
                || *due == ErrorKind::CrossMount
                || matches!(got, ErrorKind::InvalidArgument | ErrorKind::TooManyLinks)
        }
        // Links that it changes are not followed.
        (Err(got), Ok(_)) => {
            links
                && matches!(
                    got,
                    ErrorKind::NotSupported
                        | ErrorKind::TooManyLinks
                        | ErrorKind::NotADirectory
                        | ErrorKind::NotFound
                )
        }
    }
}

async fn run(env: &Env, kind: Kind, calls: Vec<Call>, committed: &AtomicU32) -> Result<(), TestCaseError> {
    let mut system = System::new(env, kind).await;
    let mut model = Tree::new(kind.has_rows());
    for call in &calls {
        if matches!(call, Call::Reopen) {
            system = system.reopen().await;
            if kind == Kind::MemoryPath {
                model = Tree::new(false);
            }
        }
        let before = model.clone();
        let due = model.call(call);
        let got = system.client.call(call).await;
        match call {
            Call::Tx(calls) => {
                prop_assert!(is_due(&got, &due, calls, &before), "{got:?}, not {due:?}: {call:?}");
                if got.is_ok() && calls.len() > 1 {
                    committed.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => prop_assert_eq!(&got, &due, "{:?}", call),
        }
        if got.is_err() {
            model = before;
        }
        system.client.matches(&model).await?;
    }
    system.supervision.stop().await;
    Ok(())
}

/// Checks `cases` random sequences of calls; gives how many transactions of several calls were committed.
fn check(kind: Kind, cases: u32, links: bool, transactions: u32) -> u32 {
    let committed = AtomicU32::new(0);
    let env = Env::host(HostConfig::default()).expect("threads can be started");
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let calls = call(Calls { versions: kind.has_rows(), links, transactions });
    let calls = prop::collection::vec(calls, 1..CALLS_MAX);
    let checked = TestRunner::new(config).run(&calls, |calls| block_on(run(&env, kind, calls, &committed)));
    env.stop();
    if let Err(TestError::Fail(why, calls)) = checked {
        let calls: Vec<String> = calls.iter().map(|call| format!("{call:?}")).collect();
        panic!("on {kind:?}: {why}\n{}", calls.join("\n"));
    }
    committed.into_inner()
}

#[test]
fn a_transaction_does_what_its_calls_do_one_after_the_other_or_nothing() {
    let committed = check(Kind::Memory, 400, false, 40);
    // Most are refused: they meet few paths, and one call that fails is enough.
    assert!(committed >= 50, "{committed} were committed");
}

#[test]
fn the_same_of_transactions_on_redb() {
    check(Kind::Redb, 10, false, 40);
}

#[test]
fn content_addressed_mounts_do_what_the_model_does() {
    check(Kind::Memory, 150, true, 10);
}

#[test]
fn the_same_on_redb() {
    check(Kind::Redb, 15, true, 10);
}

#[test]
fn a_file_system_in_memory_does_what_the_model_does() {
    check(Kind::MemoryPath, 80, true, 1);
}

#[test]
fn a_folder_of_plain_files_does_what_the_model_does() {
    check(Kind::PathLocal, 15, true, 1);
}
