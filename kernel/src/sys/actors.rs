//! `actors/`: the supervision tree. A supervisor is a directory of its children.
//!
//! An actor's file takes a word: `panic`, `error`, `brutal` or `wedge` hurts it in that way at once, and `panic before`, `error after` and
//! so on when it handles its next message, to see what becomes of it. The write is answered when the actor was told, not when it is back.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use nexus_actors::{ActorState, Behaviour, Busy, ExitReason};
use nexus_messages::syscall::{Place, SysWrite};
use nexus_messages::{ErrorKind, Result};
use nexus_supervisors::{Kill, Restart, Supervisor, TreeStatus};
use serde::{Deserialize, Serialize};

use super::{ALL, Change, Entry, Provider, SELF};
use crate::kernel::Kernel;

pub(super) struct Actors;

/// An actor, as `/__sys__/actors/` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorEntry {
    /// Where it is in the tree, such as `nexus/kernel/router`.
    pub path: String,
    /// The id in its supervisor's spec.
    pub id: Arc<str>,
    /// The behaviour's name; of a supervisor `supervisor`.
    pub kind: Arc<str>,
    /// After which exits it is restarted; none for the root.
    pub restart: Option<Restart>,
    /// Where it is in its life.
    pub state: ActorState,
    /// Counts incarnations; 0 before the first.
    pub generation: u64,
    /// How many of its incarnations replaced one that had ended.
    pub restarts: u64,
    /// Messages in the mailbox.
    pub queued: usize,
    /// Most messages the mailbox holds.
    pub bound: usize,
    /// Callers that wait for room in the mailbox.
    pub callers_waiting: usize,
    /// Messages begun and not finished.
    pub in_flight: usize,
    /// Messages begun since it was made.
    pub served: u64,
    /// What it works on now.
    pub running: Option<Running>,
    /// The fault that will strike its next message, such as `panic before`.
    pub armed: Option<String>,
    /// How its last incarnation ended.
    pub last_exit: Option<LastExit>,
    /// How long this incarnation has been running, in milliseconds.
    pub up_ms: Option<u64>,
    /// Its children, in the order of their start; where only the actor itself is shown, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ActorEntry>,
}

/// What holds an actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Running {
    /// The message, or the part of its life.
    pub message: Arc<str>,
    /// For how long it has been seen there, in milliseconds: counted from the first look at it.
    pub held_ms: u64,
    /// Whether it holds its thread as well.
    pub on_thread: bool,
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastExit {
    /// The kind of exit, such as `panic` or `killed`.
    pub kind: Arc<str>,
    /// All of it in words.
    pub told: String,
    /// `file:line` of a panic.
    pub place: Option<Arc<str>>,
    /// The message that was being handled.
    pub handling: Option<Arc<str>>,
}

impl Provider for Actors {
    fn name(&self) -> &'static str {
        "actors"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        let root = kernel.supervised().map(|tree| tree.snapshot());
        match at {
            [] => {
                let names = root.iter().map(|root| (&*root.id, true));
                Some(Entry::directory(names.chain([(ALL, false)])))
            }
            // One tree, or none for as long as it has not started.
            [ALL] => Some(Entry::json(&root.map(|root| ActorEntry::tree(&root, "")))),
            [ids @ .., SELF] => {
                let found = find(root.as_ref()?, ids)?;
                is_supervisor(found).then(|| Entry::json(&ActorEntry::one(found, &ids.join("/"))))
            }
            ids => {
                let found = find(root.as_ref()?, ids)?;
                if !is_supervisor(found) {
                    return Some(Entry::json(&ActorEntry::one(found, &ids.join("/"))));
                }
                let children = found.children.iter().map(|child| (&*child.id, is_supervisor(child)));
                Some(Entry::directory(children.chain([(SELF, false)])))
            }
        }
    }

    fn is_writable(&self, at: &[&str]) -> bool {
        at.last().is_some_and(|name| *name != ALL)
    }

    fn write<'a>(&'a self, change: Change<'a>, call: &'a SysWrite) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(kill(&change, call)))
    }
}

fn kill(change: &Change<'_>, call: &SysWrite) -> Result<()> {
    let word = call.data.concat();
    let word = String::from_utf8_lossy(&word);
    let invalid = || change.fail(ErrorKind::InvalidArgument);
    let how: Kill = word.trim().parse().map_err(|error| invalid().because(error))?;
    if !matches!(call.place, Place::Whole | Place::End | Place::At(0)) {
        return Err(invalid().because("what an actor takes is taken whole"));
    }
    let ids = match &change.at[..] {
        [ids @ .., SELF] => ids,
        ids => ids,
    };
    let killed = change.kernel.supervised().is_some_and(|tree| tree.kill(&ids.join("/"), how));
    if killed {
        Ok(())
    } else {
        Err(change.fail(ErrorKind::Busy).because("it does not run, or is armed already"))
    }
}

fn find<'t>(root: &'t TreeStatus, ids: &[&str]) -> Option<&'t TreeStatus> {
    let (first, rest) = ids.split_first()?;
    let root = Some(root).filter(|root| *root.id == **first);
    rest.iter().fold(root, |found, id| found?.children.iter().find(|child| *child.id == **id))
}

fn is_supervisor(actor: &TreeStatus) -> bool {
    actor.actor.kind == <Supervisor as Behaviour>::NAME
}

impl ActorEntry {
    /// The actor alone.
    fn one(status: &TreeStatus, path: &str) -> Self {
        let actor = &status.actor;
        Self {
            path: path.to_owned(),
            id: status.id.clone(),
            kind: actor.kind.into(),
            restart: status.restart,
            state: actor.state,
            generation: actor.generation,
            restarts: actor.restarts,
            queued: actor.queued,
            bound: actor.bound,
            callers_waiting: actor.callers_waiting,
            in_flight: actor.in_flight,
            served: actor.served,
            running: actor.running.as_ref().map(Running::of),
            armed: actor.armed.map(|strike| Kill::Handling(strike.fault, strike.moment).to_string()),
            last_exit: actor.last_exit.as_ref().map(LastExit::of),
            up_ms: actor.up_for.map(milliseconds),
            children: Vec::new(),
        }
    }

    /// The actor and all below it; `above` is the path of its supervisor.
    pub fn tree(status: &TreeStatus, above: &str) -> Self {
        let path = if above.is_empty() { status.id.to_string() } else { format!("{above}/{}", status.id) };
        let children = status.children.iter().map(|child| Self::tree(child, &path)).collect();
        Self { children, ..Self::one(status, &path) }
    }
}

impl Running {
    fn of(busy: &Busy) -> Self {
        Self { message: busy.message.into(), held_ms: milliseconds(busy.held), on_thread: busy.on_thread }
    }
}

impl LastExit {
    fn of(exit: &ExitReason) -> Self {
        let (kind, place, handling) = match exit {
            ExitReason::Normal => ("normal", None, None),
            ExitReason::Shutdown => ("shutdown", None, None),
            ExitReason::Killed => ("killed", None, None),
            ExitReason::Wedged { message, .. } => ("wedged", None, Some((*message).into())),
            ExitReason::Displaced { .. } => ("displaced", None, None),
            ExitReason::Error(_) => ("error", None, None),
            ExitReason::Panic { location, handling, .. } => {
                ("panic", location.clone(), handling.map(Into::into))
            }
            ExitReason::RestartIntensity => ("restart_intensity", None, None),
            ExitReason::Replaced => ("replaced", None, None),
            ExitReason::TimedOut { .. } => ("timed_out", None, None),
            _ => ("other", None, None),
        };
        Self { kind: kind.into(), told: exit.to_string(), place, handling }
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
