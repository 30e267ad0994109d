//! What loom proves of mailboxes, and of a swap under calls: the real cell, parcels and turn, on loom's locks. Each test
//! names mutations that make it fail.

use std::sync::Mutex;

use futures_util::future::LocalBoxFuture;
use loom::thread;

use super::*;
use crate::behaviour::{Cx, Reply, Start, Swap};
use crate::call::Executed;
use crate::env::{Place, Simulation};
use crate::parked::{block_on, poll_once};
use crate::reference::Ref;
use crate::turn::Turn;

/// Preemptions in one execution: a whole turn has too many steps for all of them.
const PREEMPTIONS: usize = 3;
/// The same where no bound is set from outside, as in `.ci/long`.
const PREEMPTIONS_LONG: usize = 4;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    let bound = builder.preemption_bound.map_or(PREEMPTIONS_LONG, |bound| bound.min(PREEMPTIONS));
    builder.preemption_bound = Some(bound);
    builder.check(check);
}

/// Counts what it serves. Its log is no lock that loom knows of: looking into it makes no difference to the model.
struct Tally {
    served: u64,
    log: Log,
}

type Log = Arc<Mutex<Vec<Served>>>;

/// A message that was handled.
struct Served {
    message: u64,
    by: u64,
}

/// Counts this message, and gives the generation that did and the count.
#[derive(Clone, Copy)]
struct Count {
    message: u64,
    answers: Answers,
}

#[derive(Clone, Copy)]
enum Answers {
    Now,
    /// In a later poll, beside other messages.
    Later,
    /// After a look whether its incarnation still serves.
    Looking,
    /// And ends the incarnation, in order.
    AndEnds,
}

impl Message for Count {
    type Reply = (u64, u64);
    const NAME: &'static str = "tally.count";
}

impl Behaviour for Tally {
    type Args = Log;
    const NAME: &'static str = "tally";

    fn init(log: Log, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async { Ok(Tally { served: 0, log }) })
    }
}

impl Swap for Tally {
    const VSN: u32 = 1;
    type Carry = u64;

    fn export(&mut self) -> Result<u64, ExitReason> {
        Ok(self.served)
    }

    fn import(
        served: u64,
        _: u32,
        log: Log,
        _: Start<Self>,
    ) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Tally { served, log }) })
    }
}

impl Tally {
    /// Counts a message that the incarnation `by` has begun.
    fn count(&mut self, message: u64, by: u64, cx: &Cx<'_, Self>) -> (u64, u64) {
        self.served += 1;
        self.log.lock().unwrap().push(Served { message, by });
        (cx.generation(), self.served)
    }
}

impl Handle<Count> for Tally {
    fn handle(&mut self, count: Count, cx: &mut Cx<'_, Self>) -> Reply<Self, (u64, u64)> {
        let by = cx.generation();
        match count.answers {
            Answers::Now => Reply::Now(self.count(count.message, by, cx)),
            Answers::Later => {
                let mut polls = 0;
                let second_poll = std::future::poll_fn(move |task| {
                    polls += 1;
                    task.waker().wake_by_ref();
                    if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
                });
                Reply::later_then(second_poll, move |me: &mut Self, cx, ()| me.count(count.message, by, cx))
            }
            Answers::Looking => {
                let by = if cx.me().cell().is_live(by) { by } else { GHOST };
                self.served += 1;
                Reply::Now((by, self.served))
            }
            Answers::AndEnds => {
                cx.exit(ExitReason::Normal);
                Reply::Now(self.count(count.message, by, cx))
            }
        }
    }
}

/// Stands for a generation that knew that it was over.
const GHOST: u64 = u64::MAX;

#[derive(Clone)]
struct World {
    cell: Arc<Cell<Tally>>,
    log: Log,
    /// Threads that have done with it.
    gone: Arc<AtomicU64>,
    _simulation: Arc<Simulation>,
}

impl World {
    fn new(bound: usize) -> Self {
        let (env, simulation) = Env::seeded(1);
        let cell = Cell::new(&env, "tally".into(), MailboxBounds { messages: bound });
        World { cell, log: Log::default(), gone: Arc::default(), _simulation: Arc::new(simulation) }
    }

    /// The next incarnation, which serves already, to be driven on this thread. None when one lives.
    fn serving(&self) -> Option<Turn<Tally>> {
        let seat = self.cell.env.seat(Place::Kernel).unwrap();
        let pulse = Arc::new(Pulse::default());
        let generation = self.cell.enter(&seat, &pulse, Arc::new(|_| {}), oneshot::channel().0)?;
        let start = Start { me: Ref::from_cell(self.cell.clone()), generation, warm: true };
        Some(Turn::new(start, self.log.clone(), pulse))
    }

    /// The same, and it waits for messages.
    fn idle(&self) -> Turn<Tally> {
        let mut turn = self.serving().unwrap();
        assert!(poll_once(Pin::new(&mut turn)).is_pending());
        turn
    }

    /// A call, for any thread.
    fn calling(&self, message: u64, answers: Answers, deadline: Duration) -> Calling {
        let cell = self.cell.clone();
        Box::pin(async move { Call::new(&cell, Count { message, answers }, deadline).await })
    }

    fn call(&self, message: u64, answers: Answers) -> Result<(u64, u64), CallError> {
        block_on(self.calling(message, answers, Duration::MAX))
    }

    /// Ends the incarnation that serves, in order.
    fn end(&self) {
        self.call(0, Answers::AndEnds).unwrap();
    }

    /// The last of so many threads ends the actor.
    fn leave(&self, of: u64) {
        if self.gone.fetch_add(1, Ordering::Relaxed) + 1 == of {
            self.end();
        }
    }

    /// Nobody holds the cell's lock, so this is what anybody could see.
    fn assert_bound(&self, bound: usize) {
        assert!(self.cell.status().queued <= bound, "over the bound");
    }

    /// Who served this message; asserts that nobody did so twice.
    fn served(&self, message: u64) -> Option<u64> {
        let log = self.log.lock().unwrap();
        let mut by = log.iter().filter(|served| served.message == message).map(|served| served.by);
        let first = by.next();
        assert_eq!(by.next(), None, "message {message} was served twice");
        first
    }
}

type Calling = Pin<Box<dyn Future<Output = Result<(u64, u64), CallError>> + Send>>;

/// Mutations: a `push` that looks for room, and takes its lock again to queue (the bound is exceeded); a `pop` that gives
/// the freed place to nobody, that keeps its waker after it let the lock go, or a `push` that does not wake (a caller
/// hangs).
#[test]
fn loom_a_mailbox_keeps_its_bound_and_gives_a_freed_place_to_who_waits() {
    model(|| {
        let world = World::new(1);
        let turn = world.idle();
        let waits = world.clone();
        let waits = thread::spawn(move || {
            waits.call(1, Answers::Now).unwrap();
            waits.leave(2);
        });
        let tells = world.clone();
        let tells = thread::spawn(move || {
            let told = tells.cell.tell(Count { message: 2, answers: Answers::Now }).is_ok();
            tells.assert_bound(1);
            tells.call(3, Answers::Now).unwrap();
            tells.leave(2);
            told
        });
        block_on(turn);
        waits.join().unwrap();
        let told = tells.join().unwrap();
        assert_eq!([1, 2, 3].map(|message| world.served(message).is_some()), [true, told, true]);
    });
}

/// A caller that goes away while its message is being taken; two others wait for its place.
/// Mutations: a withdrawal that gives the place to nobody (a caller hangs), or gives one though the message had been taken
/// already (the bound is exceeded).
#[test]
fn loom_a_withdrawn_message_gives_its_place_back_once() {
    model(|| {
        let world = World::new(1);
        let turn = world.idle();
        let [mut leaves, mut second, mut third] =
            [1, 2, 3].map(|message| world.calling(message, Answers::Now, Duration::MAX));
        for call in [&mut leaves, &mut second, &mut third] {
            assert!(poll_once(call.as_mut()).is_pending());
        }
        let callers = world.clone();
        let callers = thread::spawn(move || {
            drop(leaves);
            callers.assert_bound(1);
            block_on(second).unwrap();
            block_on(third).unwrap();
            callers.end();
        });
        block_on(turn);
        callers.join().unwrap();
        world.served(1);
    });
}

/// Deadlines are looked at while the message is being taken.
/// Mutations: a parcel that tells its caller "not executed" after it let go of the look that said so, or that begins
/// nevertheless (it was executed).
#[test]
fn loom_what_was_told_as_not_executed_never_is() {
    model(|| {
        let world = World::new(1);
        let turn = world.idle();
        let sweeps = world.clone();
        let mut call = world.calling(1, Answers::Now, Duration::ZERO);
        assert!(poll_once(call.as_mut()).is_pending());
        let sweeps = thread::spawn(move || {
            sweeps.cell.sweep();
            let outcome = block_on(call);
            sweeps.end();
            outcome
        });
        block_on(turn);
        match (sweeps.join().unwrap(), world.served(1)) {
            (Ok(_), Some(_)) | (Err(CallError::Timeout), _) => {}
            (Err(error), None) => assert_eq!(error.executed(), Executed::No),
            (outcome, served) => panic!("{outcome:?}, and served by {served:?}"),
        }
    });
}

/// Mutations: a swap that does not wait for what is answered later (the new value ends it), or does not wake who serves; a
/// `pop` that does not look for orders once there are messages (the swap never comes).
#[test]
fn loom_a_swap_loses_no_call_and_no_state() {
    model(|| {
        let world = World::new(2);
        let turn = world.idle();
        let callers = world.clone();
        let callers = thread::spawn(move || {
            let later = callers.call(1, Answers::Later).unwrap();
            let now = callers.call(2, Answers::Now).unwrap();
            callers.leave(2);
            [later, now]
        });
        let swaps = world.clone();
        let swaps = thread::spawn(move || {
            let swapped = block_on(swaps.cell.clone().swap(swaps.log.clone(), Duration::MAX));
            swaps.leave(2);
            swapped
        });
        block_on(turn);
        let report = swaps.join().unwrap().unwrap();
        assert_eq!((report.from, report.to), (1, 2));
        let [(first_by, first), (second_by, second)] = callers.join().unwrap();
        assert_eq!((first, second), (1, 2));
        assert_eq!(world.served(1), Some(first_by), "begun by one generation and ended by another");
        assert!(first_by <= second_by, "an older generation served after a newer one");
    });
}

/// A handler that is written off with its message, and goes on as a ghost beside its successor.
/// Mutations: a `pop` that does not look whose turn it is, or an end that leaves it to the ghost (the ghost takes a message);
/// an end that does not tell what was begun (the caller hangs), or does not give back what was not (the caller is told that
/// the actor is down).
#[test]
fn loom_a_ghost_takes_no_message_beside_its_successor() {
    model(|| {
        let world = World::new(2);
        let turn = world.idle();
        let caller = world.clone();
        let caller = thread::spawn(move || {
            [(1, Answers::Later), (2, Answers::Now)].map(|(message, answers)| caller.call(message, answers))
        });
        let watchdog = world.clone();
        let watchdog = thread::spawn(move || {
            watchdog.cell.write_off(1, ExitReason::Killed);
            block_on(watchdog.serving().unwrap());
        });
        block_on(turn);
        let replies = caller.join().unwrap();
        world.end();
        watchdog.join().unwrap();
        let mut newest = 1;
        for reply in replies {
            match reply {
                Ok((by, _)) => {
                    assert!(by >= newest, "a ghost served after its successor");
                    newest = by;
                }
                Err(CallError::Crashed { generation: 1 }) if newest == 1 => newest = 2,
                Err(error) => panic!("{error}"),
            }
        }
    });
}

/// A handler that is written off while it runs.
/// Mutation: an end that does not seal what was begun before it lets the cell go (the ghost's reply is heard).
#[test]
fn loom_nobody_hears_who_knows_that_it_was_written_off() {
    model(|| {
        let world = World::new(2);
        let turn = world.idle();
        let caller = world.clone();
        let caller = thread::spawn(move || caller.call(1, Answers::Looking));
        let watchdog = world.clone();
        let watchdog = thread::spawn(move || {
            watchdog.cell.write_off(1, ExitReason::Killed);
            block_on(watchdog.serving().unwrap());
        });
        block_on(turn);
        let reply = caller.join().unwrap();
        world.end();
        watchdog.join().unwrap();
        match reply {
            Ok((by, _)) => assert_ne!(by, GHOST, "a ghost was heard"),
            Err(error) => assert_eq!(error, CallError::Crashed { generation: 1 }),
        }
    });
}

/// The cut-over of a swap against the write-off of the one that swaps: either the new value serves, or a successor.
/// Mutation: a cut-over that does not look whether it was written off (two incarnations of one number serve).
#[test]
fn loom_a_swap_and_a_restart_never_make_two_that_serve() {
    model(|| {
        let world = World::new(2);
        let turn = world.idle();
        let mut swap = Box::pin(world.cell.clone().swap(world.log.clone(), Duration::MAX));
        assert!(poll_once(swap.as_mut()).is_pending());
        let watchdog = world.clone();
        let watchdog = thread::spawn(move || {
            watchdog.cell.write_off(1, ExitReason::Killed);
            let successor = watchdog.serving();
            let restarted = successor.is_some();
            watchdog.cell.tell(Count { message: 1, answers: Answers::AndEnds }).unwrap();
            successor.into_iter().for_each(block_on);
            restarted
        });
        block_on(turn);
        let restarted = watchdog.join().unwrap();
        // A swap that came too late has no effect, and says so.
        assert_eq!(block_on(swap).is_err(), restarted);
        assert_eq!(world.cell.generation(), 2);
        assert_eq!(world.served(1), Some(2));
    });
}
