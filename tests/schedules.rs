//! A wait that is given up while it is served, and an actor that is killed while others wait: for locks, streams and watches, under many seeded schedules of the
//! whole kernel. What callers saw is held against what may be by the oracle of the chaos run. For pipes, `tests/pipes/simulated.rs` does the same.
//!
//! `NEXUS_SEEDS` says how many seeds are run, `NEXUS_FIRST_SEED` which is the first.

#[path = "../src/bin/chaos/locks/history.rs"]
#[allow(dead_code, reason = "these runs have no writes under locks, and no pauses")]
mod locks;
#[path = "../src/bin/chaos/order.rs"]
mod order;
mod pipes {
    #[path = "../../src/bin/chaos/pipes/history.rs"]
    #[allow(dead_code, reason = "records are messages here")]
    pub(crate) mod history;
}
#[path = "../src/bin/chaos/plan.rs"]
#[allow(dead_code, reason = "only the dice are used")]
mod plan;
#[path = "../src/bin/chaos/streams/history.rs"]
#[allow(dead_code, reason = "the identities of these appends are never forgotten")]
mod streams;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, Abortable, Aborted, Either, select};
use nexus::{
    Config, Env, ErrorKind, EventKind, IoProfile, Kill, LockKind, Lsn, Nexus, OpId, StreamSpec, StreamStart,
    SysLock, SysUnlock, SysWrite, VPath, WatchItem,
};
use parking_lot::Mutex;

use crate::locks::{At, History, Hold, PATHS};
use crate::order::Span;
use crate::pipes::history::Message;
use crate::plan::Dice;
use crate::streams::{Appended, Seen};

/// Seeds of an ordinary test run, for each family.
const SEEDS: u64 = 24;

/// So many of them are run twice.
const REPLAYS: u64 = 4;

/// How long everything takes here, and who waits before he gives up: a few of these, so that much happens at the same moment.
const MOMENT: Duration = Duration::from_micros(10);
const MOMENTS_MAX: u64 = 12;

/// Longer than a run.
const LONG: Duration = Duration::from_secs(60);

/// An actor is killed so often in a run, at most.
const KILLS_MAX: usize = 200;

const TASKS: usize = 5;
const ROUNDS: usize = 25;

/// What the tasks of a run share.
struct Run {
    nx: Nexus,
    env: Env,
    began: Instant,
    ticks: AtomicU64,
    /// Tasks that work.
    working: AtomicUsize,
    /// Waits that were given up, and actors killed.
    given_up: AtomicUsize,
    killed: AtomicUsize,
    /// Waits that may be made to give up, in the order in which they began.
    waits: Mutex<Vec<AbortHandle>>,
    wrong: Mutex<Vec<String>>,
}

impl Run {
    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn at(&self) -> At {
        let number = self.tick();
        At { number, time: self.env.now().saturating_duration_since(self.began) }
    }

    fn wrong(&self, wrong: impl ToString) {
        self.wrong.lock().push(wrong.to_string());
    }

    fn task<F>(self: &Arc<Self>, run: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.working.fetch_add(1, Ordering::SeqCst);
        let (me, running) = (self.clone(), run(self.clone()));
        self.env.spawn("task", async move {
            running.await;
            me.working.fetch_sub(1, Ordering::SeqCst);
        });
    }

    async fn nap(&self, dice: &mut Dice) {
        self.env.sleep(moment(dice)).await;
    }

    /// Waits for something, or gives up in the middle of it: after a while, or when somebody has it [give up](Self::have_one_give_up). It is not looked at again then, so it may
    /// be served already and not know.
    async fn given_up<T>(&self, dice: &mut Dice, wait: impl Future<Output = T>) -> Option<T> {
        let (handle, registration) = AbortHandle::new_pair();
        self.waits.lock().push(handle);
        let wait = Abortable::new(wait, registration);
        let after = if dice.below(2) == 0 { moment(dice) } else { LONG };
        match select(pin!(self.env.sleep(after)), pin!(wait)).await {
            Either::Right((Ok(done), _)) => Some(done),
            Either::Left(_) | Either::Right((Err(Aborted), _)) => {
                self.given_up.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Has one of those that began to wait last give up. To be called by who has just done what they wait for: who was woken by that has not been looked at since.
    fn have_one_give_up(&self, dice: &mut Dice) {
        let mut waits = self.waits.lock();
        let behind = usize::try_from(dice.below(TASKS as u64)).unwrap_or(0) + 1;
        if let Some(at) = waits.len().checked_sub(behind) {
            let wait = waits.remove(at);
            drop(waits);
            wait.abort();
        }
    }

    /// Kills an actor, over and over, until all tasks have ended.
    async fn kill_until_all_end(&self, actor: &str, dice: &mut Dice) {
        while self.working.load(Ordering::SeqCst) > 0 {
            if self.killed.load(Ordering::Relaxed) > KILLS_MAX {
                // So that those who wait in vain come to the end of their time.
                self.env.sleep(LONG).await;
                continue;
            }
            let how = if dice.below(2) == 0 { Kill::Panic } else { Kill::Brutal };
            let killed = self.nx.kill(actor, how).await.expect("an administrator may");
            self.killed.fetch_add(usize::from(killed), Ordering::Relaxed);
            self.env.sleep(moment(dice) * 3).await;
        }
    }
}

/// What a run came to: how often a wait was given up and an actor killed, what is wrong, and the digest of its steps.
type Outcome = (usize, usize, Vec<String>, u64);

fn run<F>(seed: u64, family: impl FnOnce(Arc<Run>, Dice) -> F) -> Outcome
where
    F: Future<Output = ()>,
{
    let (env, simulation) = Env::seeded(seed);
    simulation.quiet();
    let outcome = simulation.block_on(async {
        let config = Config::in_memory().env(env.clone()).restarts(u32::MAX, Duration::from_secs(1));
        let nx = nexus::connect(config).await.expect("it boots");
        let run = Arc::new(Run {
            nx: nx.clone(),
            began: env.now(),
            env: env.clone(),
            ticks: AtomicU64::new(0),
            working: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            killed: AtomicUsize::new(0),
            waits: Mutex::default(),
            wrong: Mutex::default(),
        });
        family(run.clone(), Dice::new(seed)).await;
        nx.shutdown().await.expect("it ends");
        let wrong = std::mem::take(&mut *run.wrong.lock());
        (run.given_up.load(Ordering::Relaxed), run.killed.load(Ordering::Relaxed), wrong)
    });
    drop(env);
    (outcome.0, outcome.1, outcome.2, simulation.trace().digest)
}

fn number(name: &str, unsaid: u64) -> u64 {
    std::env::var(name).ok().map_or(unsaid, |said| said.parse().expect("a number"))
}

/// No seed breaks a claim, and one seed is one run.
fn under_all_seeds<F: Future<Output = ()>>(family: impl Fn(Arc<Run>, Dice) -> F) {
    let first = number("NEXUS_FIRST_SEED", 1);
    let (mut given_up, mut killed) = (0, 0);
    let mut broken = BTreeMap::new();
    for seed in first..first + number("NEXUS_SEEDS", SEEDS) {
        let outcome = run(seed, &family);
        // Whoever is woken, is woken in an order that the seed says.
        if seed < first + REPLAYS {
            assert_eq!(outcome, run(seed, &family), "seed {seed}");
        }
        given_up += outcome.0;
        killed += outcome.1;
        if !outcome.2.is_empty() {
            broken.insert(seed, outcome.2);
        }
    }
    assert!(broken.is_empty(), "by seed: {broken:#?}");
    assert!(given_up > 0 && killed > 0, "{given_up} waits were given up, {killed} actors killed");
}

fn moment(dice: &mut Dice) -> Duration {
    MOMENT * u32::try_from(1 + dice.below(MOMENTS_MAX)).unwrap_or(1)
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("a path")
}

#[test]
fn no_lock_is_held_twice_or_kept_by_who_gave_up() {
    under_all_seeds(async |run: Arc<Run>, mut dice: Dice| {
        let seen: Arc<Mutex<History>> = Arc::default();
        for _ in 0..TASKS {
            let (seen, dice) = (seen.clone(), Dice::new(dice.roll()));
            run.task(|run| lock(run, dice, seen));
        }
        run.kill_until_all_end("nexus/kernel/advisory", &mut dice).await;
        seen.lock().check().iter().for_each(|wrong| run.wrong(wrong));
        // At once, and not when its time is over.
        let left = run.nx.kernel().expect("it is here").advisory().list(usize::MAX);
        if !left.is_empty() {
            run.wrong(format_args!("held or waited for: {left:?}"));
        }
    });
}

async fn lock(run: Arc<Run>, mut dice: Dice, seen: Arc<Mutex<History>>) {
    let agent = run.nx.agent(format!("agent-{}", dice.roll())).expect("there can be one more");
    for _ in 0..ROUNDS {
        let at = usize::try_from(dice.below(3)).unwrap_or(0);
        let kind = if dice.below(3) == 0 { LockKind::Shared } else { LockKind::Exclusive };
        let sent = run.tick();
        let mut call = SysLock::exclusive(path(PATHS[at])).ttl(LONG);
        // All come by in the end: nobody waits in vain but who gives up.
        (call.kind, call.wait) = (kind, Some(LONG / 2));
        let asking = agent.send(call);
        let asked =
            if dice.below(2) == 0 { run.given_up(&mut dice, asking).await } else { Some(asking.await) };
        match asked {
            Some(Ok(locked)) => {
                let from = run.at();
                let (token, until) = (locked.token, from.time + LONG / 2);
                let hold =
                    Hold { path: at, kind, token, sent, from, ends: None, until, missed: None, tied: None };
                let number = seen.lock().begin(hold);
                run.nap(&mut dice).await;
                let ends = run.tick();
                seen.lock().holds[number].ends = Some(ends);
                if let Err(error) = agent.send(SysUnlock::new(path(PATHS[at]), locked.id)).await {
                    run.wrong(error);
                }
                run.have_one_give_up(&mut dice);
            }
            Some(Err(error)) => run.wrong(error),
            None => {}
        }
        if dice.below(2) == 0 {
            run.nap(&mut dice).await;
        }
    }
}

const LOG: &str = "/log";

/// What was appended, and in which order.
type Records = (Vec<Appended>, Vec<(Span, u64)>);

#[test]
fn no_reader_sleeps_beside_a_record_or_passes_one_over() {
    under_all_seeds(async |run: Arc<Run>, mut dice: Dice| {
        let spec = StreamSpec::new().io_profile(IoProfile::Memory);
        run.nx.make_stream(LOG, spec).await.expect("it is made");
        let told: Arc<Mutex<Records>> = Arc::default();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        for writer in 0..TASKS {
            let (told, seen) = (told.clone(), seen.clone());
            let (appends, follows) = (Dice::new(dice.roll()), Dice::new(dice.roll()));
            run.task(|run| append(run, writer, appends, told));
            run.task(|run| follow(run, follows, seen));
        }
        run.kill_until_all_end("nexus/kernel/streams", &mut dice).await;
        let (appended, order) = std::mem::take(&mut *told.lock());
        let seen = seen.lock();
        streams::check(seen.records(), &appended).iter().for_each(|wrong| run.wrong(wrong));
        streams::order(&order).iter().for_each(|wrong| run.wrong(wrong));
    });
}

async fn append(run: Arc<Run>, writer: usize, mut dice: Dice, told: Arc<Mutex<Records>>) {
    for number in 0..ROUNDS {
        let first = Message { writer, number: number as u64 };
        let op_id = OpId(dice.roll().into());
        let sent = run.tick();
        let offset = loop {
            let call = SysWrite::vectored(path(LOG), vec![first.content()]).append().op_id(op_id);
            let appending = run.nx.send(call);
            let asked = if dice.below(3) == 0 {
                run.given_up(&mut dice, appending).await
            } else {
                Some(appending.await)
            };
            match asked {
                Some(Ok(written)) => break written.first_record.expect("it is a stream"),
                Some(Err(error)) => return run.wrong(error),
                None => {}
            }
        };
        let span = Span { sent, back: run.tick() };
        told.lock().0.push(Appended { first, count: 1, offset: Some(offset), times_max: 1 });
        told.lock().1.push((span, offset));
        run.have_one_give_up(&mut dice);
        run.nap(&mut dice).await;
    }
}

async fn follow(run: Arc<Run>, mut dice: Dice, seen: Arc<Mutex<Seen>>) {
    let mut reader = run.nx.stream_reader(LOG, StreamStart::Oldest).expect("it is a path");
    let mut next = 0;
    while next < (TASKS * ROUNDS) as u64 {
        // Who waits so long sleeps beside a record.
        let reading = reader.next(Some(LONG));
        let read =
            if dice.below(2) == 0 { run.given_up(&mut dice, reading).await } else { Some(reading.await) };
        match read {
            Some(Ok(Some(record))) => {
                match Message::of(&record.data) {
                    Some(message) => seen
                        .lock()
                        .saw(next, record.offset, message)
                        .iter()
                        .for_each(|wrong| run.wrong(wrong)),
                    None => run.wrong("a record is torn"),
                }
                next = record.offset + 1;
            }
            Some(Ok(None)) => return run.wrong(format_args!("nobody told a reader at {next} of what came")),
            Some(Err(error)) => return run.wrong(error),
            None => {}
        }
    }
}

/// Whether events of writes are told live, or from a cursor that is dropped and taken up again.
async fn watch(
    run: Arc<Run>,
    mut dice: Dice,
    resumes: bool,
    ready: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<Vec<Lsn>>>>,
) {
    let (mut heard, mut cursor) = (Vec::new(), Lsn(0));
    let mut opened = None;
    while heard.len() < TASKS * ROUNDS {
        let mut events = match opened.take() {
            Some(events) => events,
            None => {
                let watch = run.nx.watch("/watched").mask(EventKind::FileWritten);
                let watch = if resumes { watch.since(cursor) } else { watch };
                match watch.stream().await {
                    Ok(events) => events,
                    // An actor that is killed while it takes the watch up says that it may have.
                    Err(error) if error.kind() == ErrorKind::Crashed => continue,
                    Err(error) => return run.wrong(error),
                }
            }
        };
        if heard.is_empty() && cursor == Lsn(0) {
            cursor = events.cursor();
            ready.fetch_add(1, Ordering::SeqCst);
        }
        let waiting = events.next_for(LONG);
        let item =
            if dice.below(2) == 0 { run.given_up(&mut dice, waiting).await } else { Some(waiting.await) };
        match item {
            Some(Some(Ok(WatchItem::Event(event)))) => heard.push(event.lsn),
            Some(Some(Ok(WatchItem::Overflow(_)))) | None => {}
            Some(Some(Err(error))) if error.kind() == ErrorKind::Crashed => continue,
            Some(Some(Err(error))) => return run.wrong(error),
            Some(None) => {
                return run.wrong(format_args!("nobody told a watcher of what came after {heard:?}"));
            }
        }
        cursor = events.cursor();
        if !resumes || dice.below(4) > 0 {
            opened = Some(events);
        }
    }
    told.lock().push(heard);
}

#[test]
fn every_watcher_is_told_every_commit_once() {
    under_all_seeds(async |run: Arc<Run>, mut dice: Dice| {
        run.nx.mkdir("/watched").await.expect("it is made");
        let ready: Arc<AtomicUsize> = Arc::default();
        let told: Arc<Mutex<Vec<Vec<Lsn>>>> = Arc::default();
        let written: Arc<Mutex<Vec<Lsn>>> = Arc::default();
        for number in 0..TASKS {
            let (ready, told, dice) = (ready.clone(), told.clone(), Dice::new(dice.roll()));
            run.task(|run| watch(run, dice, number % 2 == 0, ready, told));
        }
        while ready.load(Ordering::SeqCst) < TASKS {
            run.env.sleep(MOMENT).await;
        }
        for number in 0..TASKS {
            let (written, mut dice) = (written.clone(), Dice::new(dice.roll()));
            run.task(|run| async move {
                for round in 0..ROUNDS {
                    match run.nx.write(format!("/watched/{number}"), format!("{round}")).await {
                        Ok(done) => written.lock().push(done.receipt.lsn),
                        Err(error) => run.wrong(error),
                    }
                    run.have_one_give_up(&mut dice);
                    run.nap(&mut dice).await;
                }
            });
        }
        run.kill_until_all_end("nexus/kernel/watcher", &mut dice).await;
        let mut written = std::mem::take(&mut *written.lock());
        written.sort_unstable();
        for told in told.lock().iter().filter(|told| **told != written) {
            run.wrong(format_args!("told {told:?}, and written was {written:?}"));
        }
    });
}
