//! The whole kernel under the seeded engine: one seed is one run, kills included.

use std::sync::Arc;

use nexus_actors::{Env, Trace};
use nexus_drivers::memory::MemoryMetastore;
use nexus_kernel::{Kernel, KernelConfig};
use nexus_messages::syscall::{MountSpec, SysRead, SysReaddir, SysRename, SysSetattr, SysWrite};
use nexus_messages::{Caller, Executed, VPath};
use nexus_supervisors::{Kill, Tree};

/// Writers that run at once.
const WRITERS: u64 = 4;

/// Writes of each of them.
const WRITES: u64 = 12;

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// Boots a kernel in the simulation of `seed`, lets writers work while the committer and the router are killed, and looks at what is
/// left: each acknowledged write, and the listing. Gives the trace, and what was seen.
fn run(seed: u64) -> (Trace, Vec<String>) {
    let (env, simulation) = Env::seeded(seed);
    let outer = env.clone();
    let seen = simulation.block_on(async move {
        let metastore = Arc::new(MemoryMetastore::new());
        let catalogue = Arc::new(nexus_drivers::catalogue());
        let (kernel, spec) =
            Kernel::new(&env, KernelConfig::default(), metastore, catalogue).expect("it is made");
        let tree = Tree::start(&env, spec).await.expect("the tree starts");
        let admin = Arc::new(Caller::administrator());
        kernel.send(&admin, SysSetattr::mount(path("/"), MountSpec::new("memory"))).await.expect("it mounts");

        let (done, mut results) = tokio::sync::mpsc::channel(64);
        for writer in 0..WRITERS {
            let (kernel, admin, done) = (kernel.clone(), admin.clone(), done.clone());
            env.spawn("writer", async move {
                let mut kept = Vec::new();
                for n in 0..WRITES {
                    let file = path(&format!("/{writer}/{n}"));
                    match kernel.send(&admin, SysWrite::at(&file, format!("{writer} {n}")).create()).await {
                        Ok(written) => kept.push((file, written.receipt.lsn)),
                        Err(error) => assert_eq!(error.executed(), Executed::Unknown, "{error}"),
                    }
                }
                done.send(kept).await.expect("the test listens");
            });
        }
        for name in ["nexus/store/committer", "nexus/kernel/router", "nexus/kernel/dispatch"] {
            assert!(tree.kill(name, Kill::Panic));
        }
        let mut seen = Vec::new();
        for _ in 0..WRITERS {
            let kept = results.recv().await.expect("each writer ends");
            for (file, lsn) in kept {
                let read = kernel.send(&admin, SysRead::at(&file)).await.expect("it was acknowledged");
                seen.push(format!("{file} {lsn} {:?}", read.data));
            }
        }
        kernel.send(&admin, SysRename::new(path("/0"), path("/moved"))).await.expect("it renames");
        let listing = kernel.send(&admin, SysReaddir::at(path("/")).recursive()).await.expect("it lists");
        seen.extend(listing.entries.iter().map(|entry| entry.path.to_string()));
        tree.stop().await;
        seen
    });
    drop(outer);
    (simulation.trace(), seen)
}

#[test]
fn one_seed_is_one_run() {
    let mut digests = Vec::new();
    for seed in 1..=6 {
        let (trace, seen) = run(seed);
        let (again, seen_again) = run(seed);
        assert_eq!(trace.digest, again.digest, "the traces of seed {seed}");
        assert_eq!(trace.entries, again.entries, "the traces of seed {seed}");
        assert_eq!(seen, seen_again, "what was seen under seed {seed}");
        digests.push(trace.digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert!(digests.len() > 1, "seeds make a difference");
}
