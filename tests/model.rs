//! Random calls, against a file system that is too simple to be wrong. After each call the answers are compared, and all that can be seen.

#[path = "model/calls.rs"]
mod calls;
#[path = "model/tree.rs"]
mod tree;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nexus::{
    Attributes, ByteRange, Caller, EntryType, Error, ErrorKind, FileMetadata, MountSpec, Precondition,
    SysCopy, SysRead, SysReaddir, SysRename, SysSetattr, SysStat, SysTx, SysUnlink, SysWrite, TxDone, TxOp,
    VPath,
};
use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::memory::MemoryMetastore;
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{Metastore, StoreError};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_supervisors::Tree as Supervision;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use calls::{Call, Calls, Expected, Place, call};
use tree::{Answer, Node, Tree, names, text, told_dir, told_file, told_link};

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
    kernel: Arc<Kernel>,
    supervision: Supervision,
    admin: Arc<Caller>,
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

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("it is one")
}

fn kind_of(error: Error) -> ErrorKind {
    error.kind()
}

impl System {
    async fn new(env: &Env, kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let memory = (kind != Kind::Redb).then(|| Arc::new(MemoryMetastore::new()) as Arc<dyn Metastore>);
        let metastore = memory.clone().unwrap_or_else(|| redb(folder.path()));
        let (kernel, supervision) = boot(env, folder.path(), kind, metastore).await;
        let admin = Arc::new(Caller::administrator());
        Self { kind, env: env.clone(), folder, memory, kernel, supervision, admin }
    }

    async fn reopen(self) -> Self {
        let Self { kind, env, folder, memory, kernel, supervision, admin } = self;
        supervision.stop().await;
        drop((kernel, supervision));
        let metastore = memory.clone().unwrap_or_else(|| redb(folder.path()));
        let (kernel, supervision) = boot(&env, folder.path(), kind, metastore).await;
        Self { kind, env, folder, memory, kernel, supervision, admin }
    }

    fn told(&self, metadata: &FileMetadata) -> String {
        let path = metadata.path.as_str();
        match metadata.entry_type {
            EntryType::Mount => "root".into(),
            EntryType::Reg => {
                let versions = self.kind.has_rows().then_some((metadata.version, metadata.generation));
                told_file(path, metadata.size, versions, metadata.mode)
            }
            EntryType::Link => told_link(path, metadata.link_target.as_deref().unwrap_or_default()),
            _ => told_dir(path, metadata.implicit, metadata.mode),
        }
    }

    fn told_of(&self, done: &TxDone) -> String {
        match done {
            TxDone::Write(done) => {
                assert_eq!(done.created, done.old_size.is_none());
                let (written, places, old) = (done.written, done.places, done.old_size);
                format!("{written} bytes at {places} over {old:?}: {}", self.told(&done.metadata))
            }
            TxDone::Setattr(done) => {
                let changed = !done.changed.is_empty();
                format!("created {} changed {changed}: {}", done.created, self.told(&done.metadata))
            }
            TxDone::Rename(done) => format!("replaced {}: {}", done.replaced, self.told(&done.metadata)),
            TxDone::Unlink(done) => format!("removed {}, a {}", done.removed, done.entry_type),
            other => panic!("{other:?} is not among the calls"),
        }
    }

    async fn change(&self, op: TxOp) -> nexus::Result<TxDone> {
        let (kernel, admin) = (&self.kernel, &self.admin);
        match op {
            TxOp::Write(call) => kernel.send(admin, call).await.map(TxDone::Write),
            TxOp::Setattr(call) => kernel.send(admin, call).await.map(TxDone::Setattr),
            TxOp::Rename(call) => kernel.send(admin, call).await.map(TxDone::Rename),
            TxOp::Unlink(call) => kernel.send(admin, call).await.map(TxDone::Unlink),
            other => panic!("{other:?} is not among the calls"),
        }
    }

    async fn call(&self, call: &Call) -> Answer {
        let (kernel, admin) = (&self.kernel, &self.admin);
        if let Some(op) = op(call) {
            return Ok(self.told_of(&self.change(op).await.map_err(kind_of)?));
        }
        match call {
            Call::Tx(calls) => {
                let call = calls.iter().filter_map(op).fold(SysTx::new(), SysTx::with);
                let done = kernel.send(admin, call).await.map_err(kind_of)?;
                assert_eq!((done.results.len(), done.repeated), (calls.len(), false));
                Ok(done.results.iter().map(|done| self.told_of(done)).collect::<Vec<_>>().join("\n"))
            }
            Call::Copy { from, to, replace } => {
                let mut call = SysCopy::new(path(from), path(to));
                call.replace = *replace;
                let done = kernel.send(admin, call).await.map_err(kind_of)?;
                assert_eq!(done.size, done.metadata.size);
                Ok(format!("created {}: {}", done.created, self.told(&done.metadata)))
            }
            Call::Stat { path: at, follow } => {
                let mut call = SysStat::at(path(at));
                call.follow = *follow;
                Ok(self.told(&*kernel.send(admin, call).await.map_err(kind_of)?))
            }
            Call::Read { path: at, ranges } => {
                let range = |&(offset, count): &(usize, Option<usize>)| ByteRange {
                    offset: offset as u64,
                    count: count.map(|count| count as u64),
                };
                let call = SysRead::at(path(at)).vectored(ranges.iter().map(range).collect());
                let done = kernel.send(admin, call).await.map_err(kind_of)?;
                let mut runs: Vec<Vec<u8>> = done.runs().map(|run| run.to_vec()).collect();
                runs.truncate(ranges.len());
                Ok(format!("{runs:?} of {}", self.told(&done.metadata)))
            }
            Call::List { path: at, recursive, limit } => self.list(at, *recursive, *limit).await,
            _ => Ok(String::new()),
        }
    }

    async fn list(&self, at: &str, recursive: bool, limit: u32) -> Answer {
        let mut call = SysReaddir::at(path(at)).limit(limit).with_metadata();
        call.recursive = recursive;
        let mut told = Vec::new();
        loop {
            let page = self.kernel.send(&self.admin, call.clone()).await.map_err(kind_of)?;
            assert!(
                page.entries.len() <= limit as usize && (page.next.is_none() || !page.entries.is_empty())
            );
            for entry in &page.entries {
                let metadata = entry.metadata.as_ref().expect("it was asked for");
                assert_eq!(
                    (&entry.path, entry.entry_type, entry.file_id),
                    (&metadata.path, metadata.entry_type, metadata.file_id)
                );
                told.push(self.told(metadata));
            }
            match page.next {
                Some(next) => call = call.after(next),
                None => return Ok(told.join("\n")),
            }
        }
    }

    /// All that can be seen: what is listed, each path that may be there, all content.
    async fn matches(&self, model: &Tree) -> Result<(), TestCaseError> {
        let all: Vec<String> = model.below(&[]).iter().map(|at| model.told(at)).collect();
        prop_assert_eq!(self.list("/", true, 1_000).await, Ok(all.join("\n")));
        for at in every_path() {
            let stat = self.call(&Call::Stat { path: text(&at), follow: false }).await;
            let read = self.kernel.send(&self.admin, SysRead::at(path(&text(&at)))).await;
            match model.get(&at) {
                Some(node) => {
                    prop_assert_eq!(stat, Ok(model.told(&at)));
                    if let Node::File { data, .. } = node {
                        prop_assert_eq!(&read.expect("it is there").data[..], &data[..]);
                    }
                }
                // It may be there by way of a link.
                None => {
                    let due = model.clone().call(&Call::Stat { path: text(&at), follow: false });
                    prop_assert_eq!(stat, due);
                }
            }
        }
        Ok(())
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

/// The call as an operation of a transaction, when it can be one.
fn op(call: &Call) -> Option<TxOp> {
    Some(match call {
        Call::Write { path: at, data, place, truncate, create, expected } => {
            let mut call = match place {
                Place::Whole => SysWrite::at(path(at), data.clone()),
                Place::At(offset) => SysWrite::at(path(at), data.clone()).offset(*offset as u64),
                Place::End => SysWrite::at(path(at), data.clone()).append(),
                Place::Instead { of, all: false } => SysWrite::edit(path(at), *of, data.clone()),
                Place::Instead { of, all: true } => SysWrite::edit(path(at), *of, data.clone()).all(),
            };
            call.truncate = *truncate;
            call.create = *create;
            call.when(wanted(*expected)).into()
        }
        Call::Set { path: at, entry_type, target, create, parents, mode } => {
            let mut call = SysSetattr::at(path(at)).parents(*parents);
            call.entry_type = *entry_type;
            call.link_target = target.as_deref().map(Into::into);
            call.create = *create;
            call.attributes = mode.map_or(Attributes::none(), |mode| Attributes::none().mode(mode));
            call.into()
        }
        Call::Rename { from, to, replace, expected } => {
            let mut call = SysRename::new(path(from), path(to)).when(wanted(*expected));
            call.replace = *replace;
            call.into()
        }
        Call::Unlink { path: at, recursive, expect, expected } => {
            let mut call = SysUnlink::at(path(at)).expect(*expect).when(wanted(*expected));
            call.recursive = *recursive;
            call.into()
        }
        _ => return None,
    })
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

fn wanted(expected: Expected) -> Precondition {
    match expected {
        Expected::Nothing => Precondition::None,
        Expected::Absent => Precondition::Absent,
        Expected::Version(version) => Precondition::Version(version),
    }
}

/// All paths that the calls can make.
fn every_path() -> Vec<tree::Names> {
    let mut found = vec![Vec::new()];
    for depth in 0..3 {
        let longest: Vec<_> = found.iter().filter(|at: &&tree::Names| at.len() == depth).cloned().collect();
        for at in longest {
            found.extend(["a", "b", "c"].map(|name| [at.clone(), names(name)].concat()));
        }
    }
    found
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
        let got = system.call(call).await;
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
        system.matches(&model).await?;
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
