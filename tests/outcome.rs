//! What became of an operation, asked by its identity.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus::dispatch::{Interceptor, OpSet, Registration};
use nexus::hal::{Batch, Entry, Metastore, TreeId};
use nexus::{
    Config, Durability, ErrorKind, HookContext, Lsn, MountSpec, OPS_KEPT, Op, OpId, OpOutcome, StreamSpec,
    SysOutcome, SysRename, SysWrite, Timestamp, VPath, Verdict, blocking,
};
use nexus_actors::block_on;
use nexus_drivers::memory::MemoryMetastore;
use tokio::sync::Semaphore;

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn write(at: &str, op_id: u128) -> SysWrite {
    SysWrite::at(path(at), "x").create().op_id(OpId(op_id))
}

fn boot() -> blocking::Nexus {
    blocking::connect(Config::in_memory()).expect("it boots")
}

fn outcome(nx: &blocking::Nexus, op_id: u128) -> OpOutcome {
    nx.outcome(OpId(op_id)).expect("it can be told")
}

#[test]
fn what_was_committed_is_told_with_its_receipt_path_and_operation() {
    let nx = boot();
    let written = nx.send(write("/a", 7)).expect("it writes");
    let OpOutcome::Committed(told) = outcome(&nx, 7) else { panic!("it was committed") };
    assert_eq!((told.receipt.op_id, told.receipt.lsn), (OpId(7), written.receipt.lsn));
    assert_eq!((told.op, &told.path, &told.other), (Op::Write, &path("/a"), &None));

    // A call that was given no identity by its client has one all the same.
    let moved = nx.send(SysRename::new(path("/a"), path("/b"))).expect("it moves").receipt;
    let told = nx.outcome(moved.op_id).expect("it can be told");
    let OpOutcome::Committed(told) = told else { panic!("{told}") };
    assert_eq!((told.receipt.lsn, told.op, told.other), (moved.lsn, Op::Rename, Some(path("/b"))));

    let both = nx.tx().write("/c", "x").write("/d", "x").op_id(OpId(8)).commit().expect("it commits");
    assert_eq!(outcome(&nx, 8).receipt().map(|receipt| receipt.lsn), Some(both.receipt.lsn));
    nx.mount("/scratch", MountSpec::new("memory")).expect("it mounts");
    nx.send(write("/scratch/f", 9)).expect("it writes");
    let kept = outcome(&nx, 9).receipt().map(|receipt| receipt.durability);
    assert_eq!(kept, Some(Durability::Volatile));
}

#[test]
fn what_was_refused_or_never_sent_was_not_executed() {
    let nx = boot();
    nx.send(write("/a", 1)).expect("it writes");
    let refused = nx.send(write("/a", 2).if_absent()).expect_err("there is one");
    assert_eq!((refused.kind(), refused.op_id()), (ErrorKind::PreconditionFailed, None));
    for op_id in [2, 3] {
        assert_eq!(outcome(&nx, op_id), OpOutcome::NotExecuted);
    }
}

/// Holds each write up until it is let through.
struct Holds(Arc<Semaphore>);

impl Interceptor for Holds {
    fn ops(&self) -> OpSet {
        OpSet::MUTATIONS
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        Box::pin(async {
            self.0.acquire().await.expect("it is not closed").forget();
            Verdict::Continue
        })
    }
}

#[test]
fn a_call_that_is_held_up_is_under_way_and_one_that_is_given_up_was_not_executed() {
    let nx = boot();
    let gate = Arc::new(Semaphore::new(0));
    nx.register_hook(Registration::interceptor("holds", Arc::new(Holds(gate.clone()))))
        .expect("there is room");
    let handle = nx.as_async();
    let mut cx = Context::from_waker(Waker::noop());
    {
        let mut call = pin!(handle.send(write("/a", 1)));
        assert!(call.as_mut().poll(&mut cx).is_pending());
        assert_eq!(outcome(&nx, 1), OpOutcome::UnderWay { op: Op::Write, path: path("/a") });
        gate.add_permits(1);
        block_on(call).expect("it writes");
        assert!(outcome(&nx, 1).receipt().is_some());
    }
    {
        let mut call = pin!(handle.tx().write("/b", "x").op_id(OpId(2)).commit());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        assert_eq!(outcome(&nx, 2), OpOutcome::UnderWay { op: Op::Tx, path: path("/b") });
    }
    assert_eq!(outcome(&nx, 2), OpOutcome::NotExecuted);
}

#[test]
fn what_went_to_a_pipe_or_a_stream_is_told_as_long_as_the_kernel_runs() {
    let nx = boot();
    nx.make_pipe("/p", 4).expect("it is made");
    nx.make_stream("/s", StreamSpec::new()).expect("it is made");
    let agent = nx.agent("one").expect("a name");
    let to = |at: &str, op_id: u128| SysWrite::at(path(at), "full").append().op_id(OpId(op_id));
    for (at, op_id) in [("/p", 1), ("/s", 2)] {
        let written = agent.send(to(at, op_id)).expect("there is room");
        for nx in [&nx, &agent] {
            let OpOutcome::Committed(told) = outcome(nx, op_id) else { panic!("it was executed") };
            assert_eq!((told.receipt, told.op, told.path), (written.receipt, Op::Write, path(at)));
        }
        let other = nx.agent("other").expect("a name").outcome(OpId(op_id)).expect_err("it is another's");
        assert_eq!(other.kind(), ErrorKind::PermissionDenied);
    }
    let handle = nx.as_async();
    {
        let mut call = pin!(handle.send(to("/p", 3).wait(Duration::MAX)));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(outcome(&nx, 3), OpOutcome::UnderWay { op: Op::Write, path: path("/p") });
    }
    assert_eq!(outcome(&nx, 3), OpOutcome::NotExecuted);
    nx.send(to("/p", 4)).expect_err("there is no room");
    assert_eq!(outcome(&nx, 4), OpOutcome::NotExecuted);
}

#[test]
fn of_those_that_are_in_no_log_as_many_are_remembered_and_others_may_be_forgotten() {
    let nx = boot();
    nx.make_pipe("/p", 4).expect("it is made");
    let before = nx.write("/f", "x").expect("it writes").receipt.lsn;
    for op_id in 0..=u128::from(OPS_KEPT) {
        nx.send(SysWrite::at(path("/p"), "full").op_id(OpId(op_id))).expect("there is room");
        nx.read("/p").expect("there is a message");
    }
    let after = nx.write("/f", "y").expect("it writes").receipt.lsn;
    assert!(outcome(&nx, 1).receipt().is_some() && outcome(&nx, OPS_KEPT.into()).receipt().is_some());
    assert_eq!(outcome(&nx, 0), OpOutcome::Forgotten { through: before });
    // Who knows when it was sent at the earliest is told more.
    let since = |lsn| nx.send(SysOutcome::of(OpId(1 << 100)).since(lsn)).expect("it can be told");
    assert_eq!(since(before), OpOutcome::Forgotten { through: before });
    assert_eq!(since(after), OpOutcome::NotExecuted);
}

#[test]
fn an_agent_is_told_of_its_own_operations_alone_and_the_administrator_of_all() {
    let nx = boot();
    let (one, other) = (nx.agent("one").expect("a name"), nx.agent("other").expect("a name"));
    let receipt = one.send(write("/a", 1)).expect("it writes").receipt;
    let unnamed = one.append("/a", "y").expect("it writes").receipt;
    for receipt in [receipt, unnamed] {
        for nx in [&one, &nx] {
            let told = nx.outcome(receipt.op_id).expect("it can be told").receipt();
            assert_eq!(told.map(|told| told.lsn), Some(receipt.lsn));
        }
        let refused = other.outcome(receipt.op_id).expect_err("it is another's");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(outcome(&other, 2), OpOutcome::NotExecuted);
}

/// Commits `count` operations that change nothing, below a kernel: their identities are their places.
fn fill(store: &MemoryMetastore, count: u64) {
    let before = store.last_lsn(TreeId::ROOT).expect("it is open").0;
    let entry = |lsn: u64| Entry {
        tree: TreeId::ROOT,
        op_id: OpId(lsn.into()),
        repeatable: lsn.is_multiple_of(2),
        caller: "nexus".into(),
        op: Op::Write,
        path: VPath::root(),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(1),
        preconditions: Vec::new(),
        changes: Vec::new(),
    };
    let entries = (before + 1..=before + count).map(entry).collect();
    store.apply(&Batch { entries, next_file_id: 0 }).expect("it is applied");
}

#[test]
fn exactly_so_many_operations_are_remembered_and_what_may_be_forgotten_is_told_apart() {
    let store = Arc::new(MemoryMetastore::new());
    let nx = blocking::connect(Config::in_memory().metastore(store.clone())).expect("it boots");
    let last = || store.last_lsn(TreeId::ROOT).expect("it is open").0;
    fill(&store, OPS_KEPT - last());
    assert_eq!(outcome(&nx, 1 << 100), OpOutcome::NotExecuted, "nothing is forgotten yet");
    let earlier = last();
    // An even one, and an odd one: with an identity of their clients, and without.
    for _ in 0..3 {
        fill(&store, 101);
        let oldest = u128::from(last() - OPS_KEPT + 1);
        for op_id in [oldest, oldest + 1] {
            let at = outcome(&nx, op_id).receipt().map(|receipt| u128::from(receipt.lsn.0));
            assert_eq!(at, Some(op_id), "{op_id} is remembered");
        }
        let through = Lsn(last() - OPS_KEPT);
        for op_id in [oldest - 1, oldest - 2, 1 << 100] {
            assert_eq!(outcome(&nx, op_id), OpOutcome::Forgotten { through }, "{op_id}");
        }
    }
    // Who knows when it was sent at the earliest is told more.
    let since = |lsn: u64| nx.send(SysOutcome::of(OpId(1 << 100)).since(Lsn(lsn))).expect("it can be told");
    assert_eq!(since(earlier), OpOutcome::NotExecuted);
    assert!(matches!(since(1), OpOutcome::Forgotten { .. }));
}
