//! Kills every kernel primitive while readers go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join;
use nexus::Kill;
use nexus::sys::ActorEntry;
use nexus::syscall::{SysRead, SysWrite};
use nexus_actors::{ActorState, block_on};
use serde_json::json;

use super::Tour;
use super::reads::Imported;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// The branches of the tree whose actors are killed: what the kernel cannot do without.
const BRANCHES: [&str; 3] = ["store", "kernel", "registry"];

const READERS: usize = 2;

/// How long a primitive may take to be back.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// How often the tree is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_micros(200);

#[derive(Default)]
struct Readers {
    stop: AtomicBool,
    reads: AtomicU64,
    failed: AtomicU64,
}

impl Tour<'_> {
    pub(super) async fn kill_primitives(&self, session: &Arc<Session>, warm: &Arc<[Imported]>) -> Outcome {
        let readers = Arc::new(Readers::default());
        let pool = session.env().pool("tour-read", READERS, READERS);
        let reading = futures_util::future::try_join_all((0..READERS).map(|reader| {
            let (session, warm, readers) = (session.clone(), warm.clone(), readers.clone());
            pool.run(move || readers.read(&session, &warm, reader))
        }));
        let killing = async {
            let done = self.kill_each(session, &readers).await;
            readers.stop.store(true, Ordering::Relaxed);
            done
        };
        let begun = self.env.now();
        let (read, killed) = join(reading, Box::pin(killing)).await;
        read.map_err(|error| Failure::claim("tour", error))?;
        let killed = killed?;
        let (reads, failed) = (readers.reads.load(Ordering::Relaxed), readers.failed.load(Ordering::Relaxed));
        if failed > 0 || reads == 0 {
            return Err(Failure::claim(
                "tour",
                format!("{failed} of {reads} reads failed while primitives were killed"),
            ));
        }
        let says =
            format!("{killed} primitives panicked and came back; {reads} reads meanwhile, {failed} failed");
        self.step("kills", begun, says, json!({ "killed": killed, "reads": reads, "failed": failed }))
    }

    async fn kill_each(&self, session: &Session, readers: &Readers) -> Outcome<usize> {
        let mut victims = Vec::new();
        let tree = session.nx.tree().await?;
        for branch in tree.children.iter().filter(|branch| BRANCHES.contains(&&*branch.id)) {
            leaves(branch, &format!("{}/{}", tree.id, branch.id), &mut victims);
        }
        for victim in &victims {
            self.kill(session, readers, victim).await?;
        }
        Ok(victims.len())
    }

    async fn kill(&self, session: &Session, readers: &Readers, victim: &str) -> Outcome {
        let looked = async || session.nx.tree().await.map(|tree| actor(&tree, victim));
        let gone = || Failure::claim("tour", format!("{victim} is not in the tree"));
        let (before, _) = looked().await?.ok_or_else(gone)?;
        let reads = readers.reads.load(Ordering::Relaxed);
        let begun = self.env.now();
        if !session.nx.kill(victim, Kill::Panic).await? {
            return Err(gone());
        }
        while !looked()
            .await?
            .is_some_and(|(generation, state)| generation > before && state == ActorState::Running)
        {
            if self.env.now().duration_since(begun) > BACK_WITHIN {
                return Err(Failure::claim("tour", format!("{victim} was not back within {BACK_WITHIN:?}")));
            }
            self.env.sleep(LOOK_EVERY).await;
        }
        let back = self.env.now().duration_since(begun).as_secs_f64() * 1e3;
        // It is not only there: a change goes through all of them.
        session.nx.send(SysWrite::at(self.below("alive")?, victim.to_owned()).create()).await?;
        let meanwhile = readers.reads.load(Ordering::Relaxed) - reads;
        let failed = readers.failed.load(Ordering::Relaxed);
        let says = format!(
            "{victim} panicked and was back after {back:.2} ms; a write passed; {meanwhile} reads meanwhile, {failed} failed"
        );
        self.step(
            "kill",
            begun,
            says,
            json!({ "actor": victim, "back_ms": back, "reads": meanwhile, "failed": failed }),
        )
    }
}

impl Readers {
    fn read(&self, session: &Session, warm: &[Imported], first: usize) {
        for file in warm.iter().cycle().skip(first) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let read = block_on(session.nx.send(SysRead::at(&file.path)));
            let good = read.is_ok_and(|read| read.data.len() as u64 == file.size);
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.failed.fetch_add(u64::from(!good), Ordering::Relaxed);
        }
    }
}

/// The paths of the actors that are no supervisors, below `tree`.
fn leaves(tree: &ActorEntry, path: &str, found: &mut Vec<String>) {
    if tree.children.is_empty() {
        found.push(path.to_owned());
    }
    for child in &tree.children {
        leaves(child, &format!("{path}/{}", child.id), found);
    }
}

/// The generation and state of the actor at `path`, which begins with the tree's own id.
fn actor(tree: &ActorEntry, path: &str) -> Option<(u64, ActorState)> {
    let mut at = tree;
    for id in path.split('/').skip(1) {
        at = at.children.iter().find(|child| *child.id == *id)?;
    }
    Some((at.generation, at.state))
}
