//! What the kernel's primitives cost on a caller's task: routing, locking, dispatch with no hook, a published snapshot.
//!
//!     cargo bench -p nexus-kernel --bench primitives

#![allow(missing_docs, reason = "a benchmark has no callers")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nexus_actors::Snap;
use nexus_kernel::dispatch::PublishedHooks;
use nexus_kernel::gate::{Decision, PermissionGate, Right};
use nexus_kernel::locks::{LockOwner, Mode, PathLocks, Scope};
use nexus_kernel::router::{AsMount, MountId, MountTable, RouteTable};
use nexus_messages::{Caller, Op, Timestamp, VPath, ZoneId};

#[derive(Debug)]
struct Point {
    id: u64,
    zone: ZoneId,
    point: VPath,
}

/// Shared, as the kernel's mounts are.
#[derive(Debug, Clone)]
struct Mounted(Arc<Point>);

impl AsMount for Mounted {
    fn id(&self) -> MountId {
        MountId(self.0.id)
    }

    fn zone(&self) -> &ZoneId {
        &self.0.zone
    }

    fn point(&self) -> &VPath {
        &self.0.point
    }
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// A root mount, and others one and two levels below it.
fn routes(mounts: u64) -> RouteTable<Mounted> {
    let mut table = MountTable::new();
    for id in 0..mounts {
        let point = match id {
            0 => path("/"),
            id if id % 2 == 0 => path(&format!("/agents/{id}")),
            id => path(&format!("/mount-{id}")),
        };
        table
            .mount(Mounted(Arc::new(Point { id, zone: ZoneId::root(), point })))
            .expect("each has a point of its own");
    }
    table.freeze()
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let zone = ZoneId::root();
    for mounts in [1u64, 100, 1_000] {
        let last = mounts - 1;
        let wanted = match last {
            0 => path("/project/src/lib.rs"),
            _ => path(&format!("/mount-{last}/src/lib.rs")),
        };
        let routes = Snap::new(routes(mounts));
        let routed = || {
            routes
                .read(|table| table.route(black_box(&zone), black_box(&wanted)).map(|found| found.mount.0.id))
        };
        assert_eq!(routed(), Some(last), "the longest prefix wins");
        group.bench_function(BenchmarkId::from_parameter(mounts), |b| b.iter(routed));
    }
    group.finish();
}

fn lock(c: &mut Criterion) {
    let locks = PathLocks::new(|| Timestamp(0));
    let wanted = path("/project/src/lib.rs");
    let owner = LockOwner { agent: "bench".into(), since: Timestamp(0) };
    let held = locks.try_lock(&wanted, Mode::Write, Scope::Entry, owner.clone()).expect("nobody holds it");
    assert!(locks.try_lock(&wanted, Mode::Read, Scope::Entry, owner.clone()).is_none(), "a writer is alone");
    drop(held);
    for (name, mode) in [("read", Mode::Read), ("write", Mode::Write)] {
        c.bench_function(&format!("path lock and unlock/{name}"), |b| {
            b.iter(|| {
                let guard = locks.try_lock(black_box(&wanted), mode, Scope::Entry, owner.clone());
                assert!(guard.is_some(), "nobody else locks here");
            });
        });
    }
    assert_eq!(locks.statistics().held, 0, "every lock was released");
}

fn dispatch(c: &mut Criterion) {
    let hooks = PublishedHooks::new();
    let gate = PermissionGate::new();
    let caller = Caller::agent("bench", ZoneId::root());
    let wanted = path("/project/src/lib.rs");
    assert!(hooks.get().is_none() && !gate.is_guarded());
    c.bench_function("dispatch with no hook", |b| {
        b.iter(|| black_box(&hooks).summary().has_interceptors(black_box(Op::Read)));
    });
    c.bench_function("gate without a provider", |b| {
        b.iter(|| matches!(black_box(&gate).check(&caller, Right::Read, &wanted, None), Decision::Allow));
    });
}

criterion_group!(benches, route, lock, dispatch);
criterion_main!(benches);
