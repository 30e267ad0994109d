//! Carries out the plan's faults, and counts by what the actors' statuses say of them afterwards, not by what was meant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus::actors::{Inject, Moment};
use nexus::{ActorState, ActorStatus, ExitReason, Kill, TreeStatus};
use nexus_drivers::faults::Fault;

use crate::plan::{Target, kind_of};
use crate::record::Record;
use crate::scene::{MOMENT, Scene};

/// For how long an actor is left alone that is to be wedged by a message: so that the message comes, and the watchdog.
const WEDGE_MAX: Duration = Duration::from_secs(3);

/// A fault that was sent, until it is seen what became of it.
struct Sent {
    target: Target,
    how: Kill,
    at: Instant,
    generation: u64,
    struck: u64,
    /// The supervisor above, and its generation: when that one dies, its children do not die of what was sent to them.
    above: (String, u64),
}

/// Kills actors until the scene ends.
pub(crate) async fn actors(scene: Arc<Scene>) {
    let mut sent: BTreeMap<String, Sent> = BTreeMap::new();
    let mut due = scene.life.faults.iter().peekable();
    let mut kinds = BTreeSet::new();
    while scene.goes_on().await && !scene.is_dying() {
        let Some(tree) = scene.tree() else { return };
        let mut actors = BTreeMap::new();
        flatten(&tree, &tree.id, "", &mut actors);
        tell_kinds(&scene, &tree.id, &actors, &mut kinds);
        settle(&scene, &actors, &mut sent);
        while let Some(fault) = due.next_if(|fault| fault.at <= scene.age()) {
            // One that is to be struck waits for a message; what comes to it meanwhile takes its place, but not that of a wedge, which takes its time.
            let waits = |path: &str| {
                sent.get(path).is_some_and(|sent| match sent.how {
                    Kill::Handling(Inject::Wedge, _) => {
                        scene.env.now().saturating_duration_since(sent.at) < WEDGE_MAX
                    }
                    Kill::Handling(..) => false,
                    _ => true,
                })
            };
            let there: Vec<_> = actors
                .iter()
                .filter(|(path, (_, actor))| {
                    Target::at(path) == Some(fault.target)
                        && actor.state == ActorState::Running
                        && !waits(path)
                })
                .collect();
            let Some(at) = fault.pick.checked_rem(there.len() as u64) else { continue };
            let Some((path, (above, actor))) = there.get(usize::try_from(at).unwrap_or(0)) else { continue };
            let Ok(true) = scene.nx.kill(path, fault.how).await else { continue };
            tracing::info!(actor = %path, how = %fault.how, "a fault");
            let above_generation = actors.get(above.as_str()).map_or(0, |(_, actor)| actor.generation);
            let note = Sent {
                target: fault.target,
                how: fault.how,
                at: scene.env.now(),
                generation: actor.generation,
                struck: actor.struck,
                above: (above.clone(), above_generation),
            };
            sent.insert((*path).clone(), note);
        }
        scene.env.sleep(MOMENT).await;
    }
}

/// Tells what kinds of actors there are, each once, but for the root, whose end is that of the kernel.
fn tell_kinds(scene: &Scene, root: &str, actors: &Actors<'_>, kinds: &mut BTreeSet<String>) {
    for path in actors.keys().filter(|path| *path != root) {
        let kind = kind_of(path);
        if !kinds.contains(kind) {
            kinds.insert(kind.to_owned());
            scene.tell(Record::There { kind: kind.to_owned() });
            if Target::at(path).is_none() {
                scene.broken(format_args!("nobody kills {path}: the plan has no target for {kind}"));
            }
        }
    }
}

type Actors<'a> = BTreeMap<String, (String, &'a ActorStatus)>;

/// All actors by their paths, each with the path of its supervisor.
fn flatten<'a>(tree: &'a TreeStatus, path: &str, above: &str, found: &mut Actors<'a>) {
    found.insert(path.to_owned(), (above.to_owned(), &tree.actor));
    for child in &tree.children {
        flatten(child, &format!("{path}/{}", child.id), path, found);
    }
}

/// Tells of the faults whose victims serve again.
fn settle(scene: &Scene, actors: &Actors<'_>, sent: &mut BTreeMap<String, Sent>) {
    sent.retain(|path, fault| {
        // A version that was replaced, or a mount that was detached: what became of it is not known, so it does not count.
        let Some((_, actor)) = actors.get(path) else { return false };
        let above = actors.get(&fault.above.0).map_or(0, |(_, actor)| actor.generation);
        if above != fault.above.1 {
            return false;
        }
        if actor.generation <= fault.generation || actor.state != ActorState::Running {
            return true;
        }
        if actor.last_exit.as_ref().is_some_and(|exit| is_of(fault.how, exit)) {
            let waited = matches!(fault.how, Kill::Handling(..) | Kill::Wedge);
            let restart = scene.env.now().saturating_duration_since(fault.at);
            scene.tell(Record::Killed {
                target: fault.target,
                how: fault.how.to_string(),
                struck: actor.struck > fault.struck,
                restart_us: (!waited).then(|| u64::try_from(restart.as_micros()).unwrap_or(u64::MAX)),
            });
        }
        false
    });
}

/// Whether an actor that was hurt so may have ended so.
fn is_of(how: Kill, exit: &ExitReason) -> bool {
    let fault = match how {
        Kill::Panic => Inject::Panic,
        Kill::Error => Inject::Error,
        Kill::Brutal => Inject::Kill,
        Kill::Wedge => Inject::Wedge,
        Kill::Handling(fault, Moment::Before | Moment::After) => fault,
    };
    matches!(
        (fault, exit),
        (Inject::Panic, ExitReason::Panic { .. })
            | (Inject::Error, ExitReason::Error(_))
            | (Inject::Kill, ExitReason::Killed)
            | (Inject::Wedge, ExitReason::Wedged { .. })
    )
}

/// Makes the driver that fails at will fail, until the scene ends.
pub(crate) async fn driver(scene: Arc<Scene>) {
    for fault in &scene.life.driver_faults {
        if !scene.until(fault.at).await {
            break;
        }
        // What blocks its thread goes on before the next one.
        scene.faults.clear();
        if fault.fault != Fault::Block || !scene.env.is_simulated() {
            scene.faults.once(fault.place, fault.fault);
        }
    }
    scene.faults.clear();
    while scene.goes_on().await {
        scene.env.sleep(MOMENT * 20).await;
    }
}
