//! Tells one observer of a trusted module what it wants to hear, on a thread of its own that nobody else waits for.
//!
//! Owns:       nothing; it has the observer's queue, [`Line`], which outlives it, emptied one event after the other.
//! Asks:       nobody.
//! On restart: goes on with what is in the queue. An event over which the observer panicked or hung is not told again.
//! Bounds:     `QUEUE_LIMIT` events in a queue at most, one event for each message, `MAILBOX` messages, the watchdog's time for an event,
//!             `HUNG_MAX` threads that were written off. At an ordered stop `STOP_MAX` for all that was queued.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use nexus_actors::{
    Behaviour, Cx, Env, ExitReason, Handle, LocalBoxFuture, MailboxBounds, Message, Panicked, Place, Pool,
    PoolError, Ref, Reply, Start,
};
use nexus_messages::Event;
use nexus_supervisors::{Backoff, ChildSpec, OrderError, Restart, Shutdown, SupervisorRef};
use parking_lot::Mutex;

use super::counts::{Count, Running};
use super::hook::{HookId, Missed, Observer, Registration};
use super::view::PublishedHooks;
use crate::caught::catch;

/// How many events may wait for an observer, unless its registration says otherwise.
pub const QUEUE: usize = 1_024;

/// The most that a registration may say.
pub const QUEUE_LIMIT: usize = 65_536;

/// Threads in which one observer may hang. With so many it is told nothing more until one of them comes back.
const HUNG_MAX: usize = 4;

/// Reminders that there is something in the queue.
const MAILBOX: usize = 8;

/// How long what is queued may take at an ordered stop.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How often it is tried again to have the children as the table says, before the next change of the table does.
const ALIGN_MAX: u32 = 16;

/// The queue of one observer.
pub(crate) struct Line {
    actor: Ref<Listener>,
    state: Mutex<State>,
    capacity: usize,
}

struct State {
    /// Invariant: at most `capacity`, in the order in which they were offered.
    queue: VecDeque<Event>,
    /// Invariant: all that was missed came after all that is queued.
    missed: Option<Missed>,
    /// Whether a reminder is under way, or what is being told will be followed by one.
    reminded: bool,
    /// One thread, so that the observer is told one thing at a time, whoever asked for it.
    pool: Pool,
    /// Counts the pools. One whose thread hangs is given up, and what it does later finds another number here.
    epoch: u64,
    /// Runs of the observer that were begun and have not come back.
    begun: usize,
}

/// What the observer is to hear next.
enum Next {
    Event(Event),
    Missed(Missed),
}

fn pool(env: &Env) -> Pool {
    env.pool("observer", 1, 1)
}

impl Line {
    pub(super) fn new(env: &Env, capacity: usize) -> Self {
        let actor = Ref::new(env, Listener::NAME, MailboxBounds { messages: MAILBOX });
        let state = State {
            queue: VecDeque::new(),
            missed: None,
            reminded: false,
            pool: pool(env),
            epoch: 0,
            begun: 0,
        };
        Self { actor, state: Mutex::new(state), capacity }
    }

    pub(super) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Queues `event`; false when there is no room, or was none before and the observer does not know of it yet. Neither blocks nor waits.
    pub(super) fn offer(&self, event: &Event) -> bool {
        let mut state = self.state.lock();
        let fits = state.missed.is_none() && state.queue.len() < self.capacity;
        if fits {
            state.queue.push_back(event.clone());
        } else {
            let missed = state.missed.get_or_insert_with(|| Missed { events: 0, first: event.clone() });
            missed.events += 1;
        }
        let remind = !std::mem::replace(&mut state.reminded, true);
        drop(state);
        if remind {
            self.remind();
        }
        fits
    }

    /// No lock is held. A full mailbox has a reminder already.
    fn remind(&self) {
        let _ = self.actor.tell(Hear);
    }

    /// Where the observer runs now; none while it hangs in too many threads.
    fn pool(&self) -> Option<(Pool, u64)> {
        let state = self.state.lock();
        (state.begun < HUNG_MAX).then(|| (state.pool.clone(), state.epoch))
    }

    /// Gives up the thread of this pool, in which the observer hangs.
    fn give_up(&self, epoch: u64) {
        let mut state = self.state.lock();
        if state.epoch == epoch {
            state.epoch += 1;
            state.pool = pool(self.actor.env());
        }
    }

    /// Takes out what is next, for a run in this pool.
    fn next(&self, epoch: u64) -> Option<Next> {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return None;
        }
        let next = match state.queue.pop_front() {
            Some(event) => Next::Event(event),
            None => match state.missed.take() {
                Some(missed) => Next::Missed(missed),
                None => {
                    state.reminded = false;
                    return None;
                }
            },
        };
        state.begun += 1;
        Some(next)
    }

    /// A run in this pool has come back.
    fn came_back(&self, epoch: u64) {
        let mut state = self.state.lock();
        state.begun -= 1;
        let late = state.epoch != epoch;
        drop(state);
        if late {
            // There may have been no room for another thread.
            self.remind();
        }
    }

    /// A new incarnation looks into the queue.
    fn take_over(&self) {
        self.state.lock().reminded = true;
        self.remind();
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Something may be in the queue. Repeating it does no harm.
#[derive(Debug, Clone, Copy)]
struct Hear;

impl Message for Hear {
    type Reply = ();
    const NAME: &'static str = "observer.hear";
}

/// The observer and its queue, as its actor is handed them.
#[derive(Clone)]
pub(super) struct ListenerArgs {
    observer: Arc<dyn Observer>,
    name: Arc<str>,
    running: Arc<Running>,
    line: Arc<Line>,
    /// How long one event may take.
    limit: Duration,
    hooks: Weak<PublishedHooks>,
}

/// The actor that tells one observer.
pub(super) struct Listener(ListenerArgs);

/// How it went.
enum Told {
    /// There was nothing to tell.
    Nothing,
    Well,
    Panicked(Panicked),
    /// It has not come back in time, and its thread was given up.
    Hung,
    /// There is no thread for it.
    NotBegun(PoolError),
}

impl ListenerArgs {
    /// Tells the observer what is next, in its own thread.
    async fn tell(self) -> Told {
        let Some((pool, epoch)) = self.line.pool() else { return Told::Nothing };
        let (running, line, limit) = (self.running.clone(), self.line.clone(), self.limit);
        let run = pool.run(move || self.tell_here(epoch));
        match running.env.timeout(limit, run).await {
            Ok(Ok(told)) => told,
            Ok(Err(why)) => {
                // What was to run there may run yet, and then finds that it is not to.
                line.give_up(epoch);
                Told::NotBegun(why)
            }
            Err(_) => {
                running.count(Count::Timeout);
                line.give_up(epoch);
                Told::Hung
            }
        }
    }

    fn tell_here(&self, epoch: u64) -> Told {
        let Some(next) = self.line.next(epoch) else { return Told::Nothing };
        let began = self.running.begin();
        let told = catch(|| match &next {
            Next::Event(event) => self.observer.observe(event),
            Next::Missed(missed) => self.observer.overflowed(missed),
        });
        self.running.ended(began);
        if told.is_err() {
            self.running.count(Count::Error);
        }
        self.line.came_back(epoch);
        told.map_or_else(Told::Panicked, |()| Told::Well)
    }
}

impl Behaviour for Listener {
    type Args = ListenerArgs;
    const NAME: &'static str = "observer";

    fn init(args: ListenerArgs, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        args.line.take_over();
        std::future::ready(Ok(Self(args))).boxed_local()
    }

    fn terminate(&mut self, why: &ExitReason) -> LocalBoxFuture<'static, ()> {
        let (args, in_order) = (self.0.clone(), *why == ExitReason::Shutdown);
        async move {
            if !in_order {
                return;
            }
            let rest = async {
                loop {
                    match args.clone().tell().await {
                        Told::Nothing | Told::Hung | Told::NotBegun(_) => return,
                        Told::Well => {}
                        Told::Panicked(panicked) => {
                            tracing::error!(hook = &*args.name, %panicked, "an observer panicked");
                        }
                    }
                }
            };
            let env = &args.running.env;
            // They end one after the other, and at the end of the kernel all of them together have so long.
            let ends_by = args.hooks.upgrade().and_then(|hooks| hooks.ends_by.get().copied());
            let most = ends_by.map_or(STOP_MAX, |by| by.saturating_duration_since(env.now()).min(STOP_MAX));
            if env.timeout(most, rest).await.is_err() {
                tracing::warn!(hook = &*args.name, "an observer was not told all that was queued for it");
            }
        }
        .boxed_local()
    }
}

impl Handle<Hear> for Listener {
    fn handle(&mut self, _: Hear, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        // One event for each message, so that orders to the actor come in between.
        Reply::wait_then(self.0.clone().tell(), |me: &mut Self, cx, told| {
            let broke = match told {
                Told::Nothing => return,
                Told::Well => {
                    let _ = cx.me().tell(Hear);
                    return;
                }
                Told::Panicked(panicked) => ExitReason::error(panicked),
                Told::Hung => ExitReason::error(format!("one event held it for {:?}", me.0.limit)),
                // The next incarnation looks into the queue, after the wait that comes before a restart.
                Told::NotBegun(why) => ExitReason::error(why),
            };
            tracing::error!(hook = &*me.0.name, %broke, "an observer broke, and goes on with the next event");
            cx.me().fail(cx.generation(), broke);
        })
    }
}

/// The name of the child that tells this observer.
fn child_name(name: &str, id: HookId) -> String {
    let plain: String = name.chars().map(|c| if c == '/' || c == '@' { '-' } else { c }).collect();
    format!("{plain}@{}", id.0)
}

fn child(
    id: HookId,
    hook: &Registration,
    limit: Duration,
    hooks: &Weak<PublishedHooks>,
) -> Option<ChildSpec> {
    let (observer, running) = hook.listens()?;
    let line = running.line.clone()?;
    let actor = line.actor.clone();
    let (observer, running, name) = (observer.clone(), running.clone(), hook.name.clone());
    let hooks = hooks.clone();
    let args = ListenerArgs { observer, name, running, line, limit, hooks };
    let spec = ChildSpec::new(child_name(&hook.name, id), actor, args)
        .restart(Restart::Permanent)
        .place(Place::Users)
        // No code of the observer runs there; what it is given for an event is over before.
        .watchdog(limit.saturating_mul(2))
        .shutdown(Shutdown::Timeout(STOP_MAX.saturating_mul(2)))
        .backoff(Backoff::default());
    Some(spec)
}

/// Starts and stops children until there is one for each observer of the published table that has a queue, and no other. Whoever changed the table
/// has this run aside; several may run at once.
pub(super) async fn align(hooks: Weak<PublishedHooks>, observers: SupervisorRef, limit: Duration) {
    for _ in 0..ALIGN_MAX {
        let Some(view) = hooks.upgrade().map(|hooks| hooks.view()) else { return };
        let wanted: Vec<_> = view
            .registered()
            .iter()
            .filter(|(_, hook)| hook.listens().is_some())
            .map(|(id, hook)| (child_name(&hook.name, *id), *id, hook))
            .collect();
        let there: Vec<Arc<str>> =
            observers.which_children().into_iter().map(|child| Arc::from(&*child.id)).collect();
        let missing = wanted.iter().filter(|(name, ..)| !there.iter().any(|id| **id == **name));
        let surplus: Vec<_> =
            there.iter().filter(|id| !wanted.iter().any(|(name, ..)| **name == ***id)).collect();
        let mut changed = !surplus.is_empty();
        for (name, id, hook) in missing {
            changed = true;
            let Some(spec) = child(*id, hook, limit, &hooks) else { continue };
            if let Err(why) = observers.start_child(spec).await
                && !matches!(why, OrderError::Exists(_))
            {
                tracing::warn!(observer = &**name, %why, "an observer does not start");
            }
        }
        for id in surplus {
            // What it had queued is told first. Somebody else may be about to do the same.
            let _ = observers.terminate_child(id).await;
            let _ = observers.delete_child(id).await;
        }
        if !changed {
            return;
        }
    }
}

impl PublishedHooks {
    /// The kernel is about to end: from now on all observers together have as long as one has otherwise. May be repeated.
    pub(crate) fn end_observers(&self, env: &Env) {
        // The first one has said so.
        let _ = self.ends_by.set(env.now() + STOP_MAX);
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::EventKind;
    use nexus_supervisors::{Strategy, SupSpec, Tree};

    use super::super::fixture::{Recorder, event};
    use super::super::messages::Register;
    use super::super::{Dispatch, MAILBOX_MAX};
    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const MOMENT: Duration = Duration::from_millis(10);

    #[test]
    fn an_observer_for_which_there_was_no_thread_is_told_when_there_is_one() {
        let (env, simulation) = Env::seeded(7);
        let (log, hooks) = (Recorder::new(), Arc::new(PublishedHooks::new()));
        let dispatch: Ref<Dispatch> = Ref::new(&env, Dispatch::NAME, MailboxBounds { messages: MAILBOX_MAX });
        let observers = SupSpec::new("observers", Strategy::OneForOne);
        let child =
            ChildSpec::new("dispatch", dispatch.clone(), (hooks.clone(), observers.handle(&env), SOON));
        let spec =
            SupSpec::new("kernel", Strategy::OneForOne).restarts(5, SOON).child(child).supervisor(observers);
        simulation.block_on(async {
            let tree = Tree::start(&env, spec).await.unwrap();
            dispatch.call(Register(log.observer("o")), SOON).await.unwrap().unwrap();
            let view = hooks.view();
            let line =
                view.registered()[0].1.listens().and_then(|(_, running)| running.line.clone()).unwrap();
            env.sleep(SOON).await;
            // What it is to run in ends before it does.
            let (ends, ending) = Env::seeded(8);
            line.state.lock().pool = pool(&ends);
            assert!(line.offer(&event(EventKind::FileWritten, "a")));
            env.sleep(MOMENT).await;
            drop(ending);
            // In less than the time after which it would be taken for one that hangs.
            env.sleep(SOON / 2).await;
            assert_eq!(log.take(), ["file_write o"], "it was told without another event");
            assert!(line.offer(&event(EventKind::Renamed, "a")));
            env.sleep(SOON).await;
            assert_eq!((log.take(), line.queued()), (vec!["file_rename o".to_owned()], 0));
            tree.stop().await;
        });
    }
}
