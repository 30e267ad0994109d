//! The lock table against a naive model, one by one and by many threads at once.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use nexus_actors::{Behaviour, Env, MailboxBounds, Ref};
use nexus_messages::{Timestamp, VPath};
use nexus_supervisors::{self as supervisors, ChildSpec, Kill, SupSpec, Tree};
use proptest::prelude::*;

use super::Mode::{Read, Write};
use super::Scope::{Entry, Subtree};
use super::claim::canonical;
use super::*;

const SOON: Duration = Duration::from_secs(5);

fn path(text: &str) -> VPath {
    VPath::parse(text).unwrap()
}

fn owner(name: &str) -> LockOwner {
    LockOwner { agent: Arc::from(name), since: Timestamp(7) }
}

fn locks() -> PathLocks {
    PathLocks::new(|| Timestamp(100))
}

fn try_lock(locks: &PathLocks, text: &str, mode: Mode, scope: Scope) -> Option<PathGuard> {
    locks.try_lock(&path(text), mode, scope, owner("a"))
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Whether the second lock is given while the first is held; and the other way round.
fn check(held: (&str, Mode, Scope), wanted: (&str, Mode, Scope), given: bool) {
    for (first, second) in [(held, wanted), (wanted, held)] {
        let locks = locks();
        let guard = try_lock(&locks, first.0, first.1, first.2).unwrap();
        let other = try_lock(&locks, second.0, second.1, second.2);
        assert_eq!(other.is_some(), given, "{second:?} while {first:?}");
        drop(guard);
        drop(other);
        let alone = try_lock(&locks, second.0, second.1, second.2);
        assert!(alone.is_some(), "{second:?} after {first:?}");
        drop(alone);
        assert!(locks.is_idle(), "{first:?} {second:?}");
    }
}

#[test]
fn readers_share_and_writers_exclude() {
    for scope in [Entry, Subtree] {
        check(("/a", Read, scope), ("/a", Read, scope), true);
        check(("/a", Write, scope), ("/a", Read, scope), false);
        check(("/a", Write, scope), ("/a", Write, scope), false);
    }
}

#[test]
fn a_subtree_excludes_what_is_below_it_and_nothing_beside_it() {
    for scope in [Entry, Subtree] {
        check(("/a", Write, Subtree), ("/a/b/c", Read, scope), false);
        check(("/a", Read, Subtree), ("/a/b/c", Read, scope), true);
        check(("/a", Read, Subtree), ("/a/b/c", Write, scope), false);
        check(("/", Write, Subtree), ("/a/b/c", Read, scope), false);
        for sibling in ["/a/bc", "/a/b-x", "/a/b.txt", "/a"] {
            check((sibling, Write, Entry), ("/a/b", Write, scope), true);
        }
    }
    check(("/a/bc", Write, Subtree), ("/a/b", Write, Subtree), true);
}

#[test]
fn a_hundred_readers_share_and_one_of_a_hundred_writers_wins() {
    let locks = locks();
    let readers: Vec<_> = (0..100).map(|_| try_lock(&locks, "/a", Read, Entry).unwrap()).collect();
    assert!(try_lock(&locks, "/a", Write, Entry).is_none());
    assert_eq!(locks.statistics().held, 100);
    drop(readers);
    let writers: Vec<_> = (0..100).filter_map(|_| try_lock(&locks, "/a", Write, Entry)).collect();
    assert_eq!(writers.len(), 1);
    drop(writers);
    assert!(locks.is_idle(), "idle entries vanish");
}

#[test]
fn a_waiting_writer_goes_before_later_readers() {
    let locks = locks();
    let place = path("/a");
    let reader = try_lock(&locks, "/a", Read, Entry).unwrap();
    let mut writer = Box::pin(locks.lock(&place, Write, Entry, owner("w")));
    assert!(poll(&mut writer).is_pending());
    let mut late = Box::pin(locks.lock(&place, Read, Entry, owner("r")));
    assert!(poll(&mut late).is_pending(), "a later reader waits behind the writer");
    assert!(try_lock(&locks, "/a", Read, Entry).is_none());
    assert!(try_lock(&locks, "/b", Write, Entry).is_some(), "other paths are free");
    drop(reader);
    assert!(poll(&mut late).is_pending());
    let Poll::Ready(writer) = poll(&mut writer) else { panic!("the writer is next") };
    drop(writer);
    assert!(poll(&mut late).is_ready());
}

#[test]
fn a_waiting_subtree_is_not_starved_by_entries_below_it() {
    let locks = locks();
    let (base, below) = (path("/a"), path("/a/b/c"));
    let first = try_lock(&locks, "/a/b", Write, Entry).unwrap();
    let mut tree = Box::pin(locks.lock(&base, Write, Subtree, owner("t")));
    assert!(poll(&mut tree).is_pending());
    let mut late = Box::pin(locks.lock(&below, Read, Entry, owner("r")));
    assert!(poll(&mut late).is_pending());
    assert!(try_lock(&locks, "/b", Write, Entry).is_some());
    drop(first);
    let Poll::Ready(tree) = poll(&mut tree) else { panic!("the subtree is next") };
    assert!(poll(&mut late).is_pending());
    drop(tree);
    assert!(poll(&mut late).is_ready());
}

#[test]
fn dropping_a_wait_lets_those_behind_it_go() {
    let locks = locks();
    let place = path("/a");
    let reader = try_lock(&locks, "/a", Read, Entry).unwrap();
    let mut writer = Box::pin(locks.lock(&place, Write, Entry, owner("w")));
    assert!(poll(&mut writer).is_pending());
    let mut late = Box::pin(locks.lock(&place, Read, Entry, owner("r")));
    assert!(poll(&mut late).is_pending());
    drop(writer);
    assert!(poll(&mut late).is_ready());
    drop((reader, late));
    assert!(locks.is_idle());
}

#[test]
fn a_lock_given_to_a_dropped_wait_is_given_back() {
    let locks = locks();
    let place = path("/a");
    let holder = try_lock(&locks, "/a", Write, Entry).unwrap();
    let mut next = Box::pin(locks.lock(&place, Write, Entry, owner("w")));
    assert!(poll(&mut next).is_pending());
    drop(holder); // Now it is given, and nobody has seen it.
    assert!(try_lock(&locks, "/a", Read, Entry).is_none());
    drop(next);
    assert!(try_lock(&locks, "/a", Write, Entry).is_some());
    assert!(locks.is_idle());
}

#[test]
fn claims_of_one_call_do_not_exclude_each_other_and_come_all_or_none() {
    let locks = locks();
    let claims = vec![
        (path("/a/b"), Write, Entry),
        (path("/a"), Read, Subtree),
        (path("/c"), Read, Entry),
        (path("/c"), Write, Entry),
    ];
    let in_the_way = try_lock(&locks, "/c", Read, Entry).unwrap();
    let mut all = Box::pin(locks.lock_all(claims, owner("a")));
    assert!(poll(&mut all).is_pending());
    assert_eq!(locks.statistics().held, 1, "who waits holds nothing");
    drop(in_the_way);
    let Poll::Ready(all) = poll(&mut all) else { panic!("free") };
    assert_eq!(locks.statistics().held, 3);
    assert!(try_lock(&locks, "/a/x", Read, Entry).is_some());
    assert!(try_lock(&locks, "/a/b", Read, Entry).is_none());
    drop(all);
    assert!(locks.is_idle());
}

#[test]
fn guards_outlive_the_table() {
    let locks = locks();
    let entry = try_lock(&locks, "/a", Write, Entry).unwrap();
    let tree = try_lock(&locks, "/b", Write, Subtree).unwrap();
    drop(locks);
    drop((entry, tree));
}

#[test]
fn holders_are_listed_with_owner_and_time() {
    let locks = locks();
    let place = path("/b");
    let first = try_lock(&locks, "/b", Write, Entry).unwrap();
    let mut waited = Box::pin(locks.lock(&place, Write, Subtree, owner("second")));
    assert!(poll(&mut waited).is_pending());
    assert_eq!(locks.statistics().waiting, 1);
    drop(first);
    let Poll::Ready(_waited) = poll(&mut waited) else { panic!("free") };
    let _other = try_lock(&locks, "/a", Read, Entry).unwrap();
    let listed = locks.held(10, |_| true);
    let shown: Vec<_> =
        listed.iter().map(|l| (l.path.as_str(), l.mode, l.scope, &*l.agent, l.since.nanos())).collect();
    assert_eq!(shown, [("/a", Read, Entry, "a", 7), ("/b", Write, Subtree, "second", 100)]);
    assert_eq!(locks.held(1, |_| true).len(), 1);
    assert_eq!(locks.held(10, |lock| lock.since > Timestamp(50)).len(), 1);
    let statistics = locks.statistics();
    assert_eq!((statistics.taken, statistics.waited, statistics.held, statistics.subtrees), (3, 1, 2, 1));
    assert_eq!(statistics.longest_wait, Duration::ZERO);
}

#[test]
fn the_actor_answers_for_the_table_and_its_death_hurts_nobody() {
    let (env, simulation) = Env::seeded(1);
    let clock = env.clone();
    let table = PathLocks::new(move || Timestamp(clock.wall()));
    let actor: Ref<Locks> = Ref::new(&env, Locks::NAME, MailboxBounds { messages: MAILBOX_MAX });
    let child = ChildSpec::new("locks", actor.clone(), table.clone());
    let spec = SupSpec::new("kernel", supervisors::Strategy::OneForOne).child(child);
    simulation.block_on(async {
        let tree = Tree::start(&env, spec).await.unwrap();
        let owner = |name: &str| LockOwner { agent: Arc::from(name), since: Timestamp(env.wall()) };
        let old = table.lock(&path("/a/old"), Write, Entry, owner("stuck")).await;
        env.sleep(Duration::from_secs(60)).await;
        let young = table.lock(&path("/b"), Read, Subtree, owner("fine")).await;
        tree.kill("kernel/locks", Kill::Panic);
        let longer_than = Duration::from_secs(30);
        let stuck = actor.call(FindStuck { longer_than }, SOON).await.unwrap();
        assert_eq!(stuck.iter().map(|lock| &*lock.agent).collect::<Vec<_>>(), ["stuck"]);
        let list = |base: &str, limit| actor.call(ListLocks { base: path(base), limit }, SOON);
        assert_eq!(list("/", 10).await.unwrap().len(), 2);
        assert_eq!(list("/", 1).await.unwrap().len(), 1);
        assert_eq!(list("/a", 10).await.unwrap(), stuck);
        assert_eq!(actor.call(CountLocks, SOON).await.unwrap().held, 2);
        drop((old, young));
        assert!(table.is_idle());
        tree.stop().await;
    });
}

/// What one call claims, in the model and in the table.
type Call = Vec<(VPath, Mode, Scope)>;

#[derive(Debug, Clone)]
enum Step {
    Ask(Call),
    Try(VPath, Mode, Scope),
    /// Gives back what the call of this number, modulo how many there are, holds.
    Release(usize),
    /// Drops the future of a call that waits.
    Leave(usize),
}

/// Held calls and waiting calls, in the order in which they came; nothing else.
#[derive(Default)]
struct Naive {
    held: Vec<(usize, Vec<Claim>)>,
    waiting: Vec<(usize, Vec<Claim>)>,
}

impl Naive {
    fn is_free(&self, claims: &[Claim], ahead: &[(usize, Vec<Claim>)]) -> bool {
        let mut others = self.held.iter().chain(ahead).flat_map(|(_, claims)| claims);
        others.all(|other| claims.iter().all(|claim| !claim.excludes(other)))
    }

    fn serve(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() {
            if self.is_free(&self.waiting[at].1, &self.waiting[..at]) {
                let call = self.waiting.remove(at);
                self.held.push(call);
            } else {
                at += 1;
            }
        }
    }
}

fn any_claim() -> impl Strategy<Value = (VPath, Mode, Scope)> {
    let paths = ["/", "/a", "/a/b", "/a/b/c", "/a/bc", "/a-b", "/d"];
    let path = prop::sample::select(paths.map(path).to_vec());
    let scope = prop_oneof![3 => Just(Entry), 1 => Just(Subtree)];
    (path, prop_oneof![Just(Read), Just(Write)], scope)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(any_claim(), 1..4).prop_map(Step::Ask),
        2 => any_claim().prop_map(|(path, mode, scope)| Step::Try(path, mode, scope)),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// After each step the same calls hold their locks as in the model, and the table is idle in the end.
    #[test]
    fn the_table_agrees_with_a_list_of_held_locks(steps in prop::collection::vec(any_step(), 1..40)) {
        type Asking<'a> = Pin<Box<dyn Future<Output = PathGuards> + Send + 'a>>;
        let locks = locks();
        let mut model = Naive::default();
        let mut held: Vec<(usize, PathGuards)> = Vec::new();
        let mut waiting: Vec<(usize, Asking<'_>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Ask(call) => {
                    let claims: Vec<Claim> = call.iter().cloned().map(|(p, m, s)| Claim::new(p, m, s)).collect();
                    model.waiting.push((number, canonical(claims)));
                    waiting.push((number, Box::pin(locks.lock_all(call, owner("p")))));
                }
                Step::Try(path, mode, scope) => {
                    let claims = vec![Claim::new(path.clone(), mode, scope)];
                    let expected = model.is_free(&claims, &model.waiting);
                    let got = locks.try_lock(&path, mode, scope, owner("p"));
                    prop_assert_eq!(got.is_some(), expected);
                    if let Some(guard) = got {
                        model.held.push((number, claims));
                        held.push((number, PathGuards(vec![guard].into())));
                    }
                }
                Step::Release(which) if !held.is_empty() => {
                    let (gone, guards) = held.swap_remove(which % held.len());
                    drop(guards);
                    model.held.retain(|(number, _)| *number != gone);
                }
                Step::Leave(which) if !waiting.is_empty() => {
                    let (gone, _) = waiting.remove(which % waiting.len());
                    model.waiting.retain(|(number, _)| *number != gone);
                }
                Step::Release(_) | Step::Leave(_) => {}
            }
            model.serve();
            let mut still = Vec::new();
            for (number, mut asking) in waiting {
                match poll(&mut asking) {
                    Poll::Ready(guards) => held.push((number, guards)),
                    Poll::Pending => still.push((number, asking)),
                }
            }
            waiting = still;
            let mut got: Vec<_> = held.iter().map(|(number, _)| *number).collect();
            let mut expected: Vec<_> = model.held.iter().map(|(number, _)| *number).collect();
            got.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(got, expected);
        }
        drop((held, waiting));
        prop_assert!(locks.is_idle());
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

/// Who holds what, told by the holders themselves: a count of readers for each path, and a large number for a writer.
struct Oracle {
    paths: Vec<VPath>,
    holders: Vec<AtomicUsize>,
}

const WRITER: usize = 1_000_000;

impl Oracle {
    fn new(paths: &[&str]) -> Self {
        let paths: Vec<_> = paths.iter().copied().map(path).collect();
        let holders = paths.iter().map(|_| AtomicUsize::new(0)).collect();
        Self { paths, holders }
    }

    fn reached<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = (&'a AtomicUsize, Mode)> {
        let claims = canonical(call.iter().cloned().map(|(p, m, s)| Claim::new(p, m, s)).collect());
        self.paths.iter().zip(&self.holders).filter_map(move |(path, holders)| {
            let reached = claims.iter().filter(|claim| match claim.scope {
                Entry => claim.path == *path,
                Subtree => path.is_within(&claim.path),
            });
            reached.map(|claim| claim.mode).max().map(|mode| (holders, mode))
        })
    }

    fn enter(&self, call: &Call) {
        for (holders, mode) in self.reached(call) {
            match mode {
                Read => assert!(holders.fetch_add(1, Ordering::Relaxed) < WRITER, "read under a writer"),
                Write => assert_eq!(holders.fetch_add(WRITER, Ordering::Relaxed), 0, "write beside others"),
            }
        }
    }

    fn leave(&self, call: &Call) {
        for (holders, mode) in self.reached(call) {
            holders.fetch_sub(if mode == Write { WRITER } else { 1 }, Ordering::Relaxed);
        }
    }
}

/// A generator of numbers that needs nothing of the world.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Threads lock at random, wait, give up waiting, and release; the oracle sees each overlap that should not be.
fn hammer(paths: &[&str], subtree_of: usize, rounds: u64) {
    let oracle = Oracle::new(paths);
    let locks = locks();
    let entered = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 1..=4 {
            let (oracle, locks, entered) = (&oracle, &locks, &entered);
            scope.spawn(move || {
                let mut dice = Dice(seed);
                for _ in 0..rounds {
                    let call: Call = (0..=dice.roll(2))
                        .map(|_| {
                            let path = oracle.paths[dice.roll(oracle.paths.len())].clone();
                            let mode = if dice.roll(2) == 0 { Read } else { Write };
                            let scope = if dice.roll(subtree_of) == 0 { Subtree } else { Entry };
                            (path, mode, scope)
                        })
                        .collect();
                    let mut asking = Box::pin(locks.lock_all(call.clone(), owner("t")));
                    if dice.roll(8) == 0 && poll(&mut asking).is_pending() {
                        continue; // Gives up.
                    }
                    let asking = locks.lock_all(call.clone(), owner("t"));
                    let guards = block_on(asking);
                    oracle.enter(&call);
                    if dice.roll(16) == 0 {
                        thread::yield_now();
                    }
                    oracle.leave(&call);
                    drop(guards);
                    entered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(locks.is_idle());
    assert!(entered.into_inner() > rounds);
}

#[test]
fn threads_never_hold_together_what_excludes_each_other() {
    hammer(&["/", "/a", "/a/b", "/a/b/c", "/a/bc", "/d"], 4, 4_000);
}

#[test]
fn a_subtree_and_an_entry_below_it_are_never_held_at_once() {
    // Mostly entries, so that the count of subtree locks goes up and down under the fast path.
    hammer(&["/a", "/a/b", "/a/c", "/a/d", "/a/e", "/a/f"], 40, 20_000);
}
