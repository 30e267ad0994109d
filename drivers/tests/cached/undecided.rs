//! What nobody knows the end of: an entry of the index, and a call that is under way.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::Env;
use nexus_drivers::cached::{CachedPaths, Caching, Vault};
use nexus_drivers::cas::Cas;
use nexus_drivers::faults::{Fault, Where};
use nexus_drivers::memory::{MemoryMetastore, MemoryPaths, MemoryTransport};
use nexus_kernel::hal::{
    Applied, Batch, LogRecord, Metastore, PathStore, PathWrite, Reader, StoreError, TreeId,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, Lsn, OpId, Timestamp};

use super::far::{Far, content};

const BACK: &[(&str, &str)] = &[("write_back", "yes"), ("cache_age_ms", "60000")];

/// An index whose disk fails when it is to flush: its entry stands in the log, and comes up again.
#[derive(Debug, Default)]
struct Failing {
    inner: MemoryMetastore,
    fails: AtomicBool,
}

impl Metastore for Failing {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let applied = self.inner.apply(batch)?;
        match self.fails.load(Ordering::Relaxed) {
            true => Err(StoreError::Unknown { what: "committing".into(), cause: "the disk fails".into() }),
            false => Ok(applied),
        }
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.inner.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        self.inner.changes(tree, since, limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.inner.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.inner.next_file_id()
    }
}

#[test]
fn content_stays_of_an_entry_of_which_nobody_knows_whether_it_is_on_disk() {
    let (env, simulation) = Env::seeded(7);
    simulation.quiet();
    let clock = env.clone();
    let inner = Arc::new(MemoryPaths::new(Arc::new(move || Timestamp(clock.wall()))));
    let (index, blobs) = (Arc::new(Failing::default()), Arc::new(Cas::new(MemoryTransport::new())));
    let open = || {
        let pool = env.pool("cached", 2, 64);
        let vault = simulation.block_on(Vault::on(&env, pool, index.clone(), blobs.clone(), false));
        let caching = Caching { write_back: true, pending_max: 8 << 20, ..Caching::default() };
        CachedPaths::new(inner.clone(), vault.expect("it is whole"), "inner", caching).expect("it is right")
    };
    let (none, large) = (Attributes::none(), content(100_000, 1));
    let near = open();
    simulation.block_on(near.write("f", &["old".into()], PathWrite::Whole, &none)).expect("there is room");
    index.fails.store(true, Ordering::Relaxed);
    let written = simulation.block_on(near.write("f", std::slice::from_ref(&large), PathWrite::Whole, &none));
    assert!(written.as_ref().is_err_and(StoreError::is_unknown), "{written:?}");
    simulation.run_for(Duration::from_secs(5));
    drop(near);
    simulation.run_for(Duration::from_secs(5));
    index.fails.store(false, Ordering::Relaxed);
    let read = simulation.block_on(open().read("f", ByteRange::ALL)).expect("what its row names is there");
    assert!(read.0 == large);
}

#[test]
fn nothing_goes_to_a_path_that_is_being_renamed() {
    let far = Far::new();
    let (one, other) = (far.open(BACK), far.open(BACK));
    for name in ["d/f", "e"] {
        one.write(name, "old").unwrap();
    }
    far.wait(one.flush()).unwrap();
    for (from, to, file) in [("d", "g", "d/f"), ("e", "h", "e")] {
        far.faults.once(Where::Change, Fault::Hang);
        let under_way = async {
            let renaming = pin!(one.paths().rename(from, to));
            let between = pin!(async {
                far.env.sleep(Duration::from_secs(1)).await;
                let new = (["new".into()], Attributes::none());
                other.paths().write(file, &new.0, PathWrite::Whole, &new.1).await.expect("there is room");
                far.env.sleep(Duration::from_secs(5)).await;
                far.store.read(file, ByteRange::ALL).await.expect("it is there").0
            });
            match select(renaming, between).await {
                Either::Left(_) => panic!("nobody answers"),
                Either::Right((theirs, _)) => theirs,
            }
        };
        assert_eq!(
            far.wait(under_way),
            "old",
            "what copies {file} and deletes it would take the new state along"
        );
        far.pass(Duration::from_secs(120));
        assert_eq!((other.read(file).unwrap(), far.theirs(file).unwrap()), ("new".into(), "new".into()));
    }
}
