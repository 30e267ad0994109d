//! The table beside a list of who holds and who waits, under a clock that the test turns.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nexus_messages::syscall::LockKind::{self, Exclusive, Semaphore, Shared};
use nexus_messages::{EntryType, LifeId, LockId, VPath, ZoneId};
use proptest::prelude::*;

use super::places::{Grant, Moved, Owner, Places, Request, Waiter};
use super::table::{Bounds, Lined, Pinned, Table, Tokens, Waiting};
use super::ticket::Verdict;
use crate::advisory::LockKey;

const BOUNDS: Bounds = Bounds { held: 1_000, waiting: 1_000, each: 2_000 };

/// A table, and its clock in milliseconds.
fn table() -> (Table<LockKey>, Arc<AtomicU64>) {
    bounded(BOUNDS)
}

fn bounded(bounds: Bounds) -> (Table<LockKey>, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(0));
    let told = clock.clone();
    let tokens = Tokens::new(1, u64::MAX, |token| token.wrapping_mul(7));
    (
        Table::new(
            tokens,
            bounds,
            move || Duration::from_millis(told.load(Ordering::Relaxed)),
            |_| (),
            |_, _, _| Vec::new(),
        ),
        clock,
    )
}

fn key(path: &str) -> LockKey {
    LockKey::new(&ZoneId::root(), &VPath::parse(path).unwrap())
}

fn request(kind: LockKind, ttl_ms: u64, life: u64) -> Request {
    let owner = Owner::new(format!("agent-{life}").into(), LifeId(life), 0);
    let ttl = Duration::from_millis(ttl_ms);
    Request { kind, ttl, owner, entry_type: EntryType::Reg, tied: life > 1, durable: false }
}

fn poll(waiting: &mut Waiting<'_, LockKey>) -> Option<Verdict> {
    match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verdict) => Some(verdict),
        Poll::Pending => None,
    }
}

fn held(verdict: Option<Verdict>) -> Option<Grant> {
    match verdict? {
        Verdict::Held(grant) => Some(grant),
        Verdict::Deadlock(circle) => panic!("nobody looks for circles: {circle:?}"),
    }
}

fn lined<'t>(table: &'t Table<LockKey>, path: &str, kind: LockKind) -> Waiting<'t, LockKey> {
    match table.line_up(&key(path), request(kind, 1_000, 1)) {
        Lined::Waiting(waiting) => waiting,
        Lined::Held(holder) => panic!("{path} was free: {holder:?}"),
        Lined::Full | Lined::Enough => panic!("there is room"),
    }
}

fn taken(table: &Table<LockKey>, path: &str, kind: LockKind) -> Grant {
    table.acquire(&key(path), request(kind, 1_000, 1)).unwrap()
}

#[test]
fn a_wait_that_is_dropped_after_it_was_served_gives_the_lock_back() {
    let (table, _) = table();
    let first = taken(&table, "/a", Exclusive);
    let (second, mut third) = (lined(&table, "/a", Exclusive), lined(&table, "/a", Exclusive));
    assert!(table.release(&key("/a"), first.id).is_some());
    assert!(poll(&mut third).is_none(), "the second has it, and has not heard of it");
    drop(second);
    let third = held(poll(&mut third)).unwrap();
    assert!(third.token > first.token);
    assert!(table.release(&key("/a"), third.id).is_some());
    assert!(table.is_idle());
}

#[test]
fn a_thousand_who_wait_are_served_in_order_and_one_is_woken_at_a_time() {
    let (table, _) = table();
    let mut holder = taken(&table, "/a", Exclusive);
    let mut waiting: Vec<_> = (0..1_000).map(|_| lined(&table, "/a", Exclusive)).collect();
    for waiting in &mut waiting {
        assert!(poll(waiting).is_none());
    }
    for (at, waiting) in waiting.iter_mut().enumerate() {
        assert!(table.release(&key("/a"), holder.id).is_some());
        assert_eq!(table.counted().woken, at as u64 + 1);
        let next = held(poll(waiting)).unwrap();
        assert_eq!(next.token, holder.token + 1);
        holder = next;
    }
    assert!(table.release(&key("/a"), holder.id).is_some());
    assert!(table.is_idle());
}

#[test]
fn a_place_is_handed_over_to_who_is_first_in_line() {
    let (table, _) = table();
    let mut grant = taken(&table, "/a", Exclusive);
    let mut waiting: Vec<_> = (0..100).map(|_| lined(&table, "/a", Exclusive)).collect();
    let beside = taken(&table, "/b", Exclusive);
    for (at, waiting) in waiting.iter_mut().enumerate() {
        assert!(poll(waiting).is_none());
        assert!(table.give_back(key("/a"), grant.id).is_ok(), "nothing else is in the way");
        assert!(table.give_back(key("/a"), grant.id).is_err(), "it is another's now");
        let next = held(poll(waiting)).unwrap();
        assert!(next.token > grant.token);
        assert_eq!((table.counted().woken, table.counted().waiting), (at as u64 + 1, 99 - at));
        grant = next;
    }
    assert!(table.give_back(key("/a"), grant.id).is_ok());
    assert!(table.give_back(key("/b"), beside.id).is_ok());
    assert!(table.is_idle());
}

#[test]
fn what_more_than_one_change_follows_from_is_not_handed_over() {
    let check = |held: &[(&str, LockKind)], waiting: &[(&str, LockKind)]| {
        let (table, _) = table();
        let first = taken(&table, held[0].0, held[0].1);
        let others: Vec<_> = held[1..].iter().map(|(path, kind)| taken(&table, path, *kind)).collect();
        let waiting: Vec<_> = waiting.iter().map(|(path, kind)| lined(&table, path, *kind)).collect();
        assert!(table.give_back(key(held[0].0), first.id).is_err(), "{held:?}");
        assert!(table.release_plain(&key(held[0].0), first.id));
        drop((waiting, others));
    };
    // Those who share go in together; of two who hold one alone is gone; who waits above may be first.
    check(&[("/a", Exclusive)], &[("/a", Shared), ("/a", Shared)]);
    check(&[("/a", Shared), ("/a", Shared)], &[("/a", Exclusive)]);
    check(&[("/a/b", Exclusive)], &[("/a", Exclusive), ("/a/b", Exclusive)]);
}

#[test]
fn keys_that_were_handed_over_are_not_kept_as_awaited() {
    let mut places: Places<LockKey, ()> = Places::new();
    let tokens = Tokens::new(1, u64::MAX, |_| 0);
    let (mut moved, now) = (Moved::default(), Duration::ZERO);
    for number in 0..1_000 {
        let key = key(&format!("/{number}"));
        let grant = places.hold(&key, request(Exclusive, 1_000, 1), &tokens, now, &mut moved).grant();
        places.line_up(&key, Waiter { number, request: request(Exclusive, 1_000, 1), since: now, who: () });
        assert!(places.hand_over(&key, grant.id, now, |_| now, &tokens).is_some());
        assert!(!places.is_awaited());
    }
    assert!(places.awaited() < 100, "{} keys", places.awaited());
}

#[test]
fn readers_who_come_later_do_not_overtake_a_writer_and_are_served_together() {
    let (table, _) = table();
    let reader = taken(&table, "/a", Shared);
    let mut writer = lined(&table, "/a", Exclusive);
    assert!(table.acquire(&key("/a"), request(Shared, 1_000, 1)).is_err());
    let mut readers: Vec<_> = (0..3).map(|_| lined(&table, "/a/b", Shared)).collect();
    assert!(table.release(&key("/a"), reader.id).is_some());
    let writer = held(poll(&mut writer)).unwrap();
    assert!(readers.iter_mut().all(|reader| poll(reader).is_none()));
    assert!(table.release(&key("/a"), writer.id).is_some());
    let readers: Vec<_> = readers.iter_mut().filter_map(|reader| held(poll(reader))).collect();
    assert_eq!(readers.len(), 3);
    for reader in readers {
        assert!(table.release(&key("/a/b"), reader.id).is_some());
    }
    assert!(table.is_idle());
}

/// Whoever comes first when a holder's time is over takes it out, and then nobody was told who had waited for just that.
#[test]
fn who_waited_for_a_holder_whose_time_is_over_is_served_when_another_comes_in_its_place() {
    let (table, clock) = table();
    taken(&table, "/a", Exclusive);
    let mut below = lined(&table, "/a/b", Shared);
    assert!(poll(&mut below).is_none());
    clock.store(5_000, Ordering::Relaxed);
    let beside = taken(&table, "/a", Shared);
    let below = held(poll(&mut below)).expect("they agree");
    assert!(table.release(&key("/a"), beside.id).is_some());
    assert!(table.release(&key("/a/b"), below.id).is_some());
    // And so when it is the first in line who comes in its place.
    taken(&table, "/a", Exclusive);
    let mut other = lined(&table, "/a/c", Shared);
    clock.store(6_500, Ordering::Relaxed);
    let own = taken(&table, "/a/b", Exclusive);
    let mut first = lined(&table, "/a", Shared);
    assert!(poll(&mut first).is_none() && poll(&mut other).is_none());
    assert!(table.release(&key("/a/b"), own.id).is_some());
    let (first, other) = (held(poll(&mut first)).unwrap(), held(poll(&mut other)).expect("they agree"));
    assert!(table.release(&key("/a"), first.id).is_some());
    assert!(table.release(&key("/a/c"), other.id).is_some());
    assert!(table.is_idle());
}

#[test]
fn a_write_under_a_lock_that_is_lost_keeps_the_next_one_out_until_it_has_ended() {
    let (table, clock) = table();
    let first = taken(&table, "/a", Exclusive);
    let write = table.pin(&key("/a"), first.token).unwrap();
    clock.store(5_000, Ordering::Relaxed);
    assert!(table.pin(&key("/a"), first.token).is_none(), "its time is over");
    let mut next = lined(&table, "/a", Exclusive);
    let mut below = lined(&table, "/a/b", Shared);
    table.expire(false);
    assert!(poll(&mut next).is_none() && poll(&mut below).is_none());
    drop(write);
    assert!(poll(&mut below).is_none());
    let next = held(poll(&mut next)).unwrap();
    assert!(table.pin(&key("/a"), first.token).is_none() && table.pin(&key("/a"), next.token).is_some());
    drop(below);
    assert!(table.release(&key("/a"), next.id).is_some());
    assert!(table.is_idle());
}

#[test]
fn the_root_excludes_all_and_lets_all_go_again() {
    let (table, _) = table();
    let paths = ["/a", "/b/c", "/d", "/e/f/g", "/h"];
    let holders: Vec<_> = paths.map(|path| (path, taken(&table, path, Exclusive))).into();
    let mut root = lined(&table, "/", Exclusive);
    let mut late = lined(&table, "/z", Exclusive);
    for (path, holder) in &holders {
        assert!(poll(&mut root).is_none());
        assert!(table.release(&key(path), holder.id).is_some());
    }
    let root = held(poll(&mut root)).unwrap();
    assert!(poll(&mut late).is_none());
    assert!(table.acquire(&key("/q"), request(Shared, 1_000, 1)).is_err());
    assert!(table.release(&key("/"), root.id).is_some());
    let late = held(poll(&mut late)).unwrap();
    assert!(table.release(&key("/z"), late.id).is_some());
    assert!(table.is_idle());
}

#[test]
fn a_root_gathers_what_is_below_it_alone_and_one_that_is_refused_gathers_nothing() {
    let (table, _) = table();
    let team = ZoneId::parse("team").unwrap();
    let at = |zone: &ZoneId, path: &str| LockKey::new(zone, &VPath::parse(path).unwrap());
    let others: Vec<_> = (0..64).map(|n| at(&team, &format!("/{n}/x"))).collect();
    for other in &others {
        table.acquire(other, request(Exclusive, 1_000, 1)).unwrap();
    }
    let spread = table.parts_in_use();
    assert!(spread > 8, "{spread}");
    table.acquire(&at(&team, "/"), request(Exclusive, 1_000, 1)).unwrap_err();
    assert!(table.obstacle(&at(&team, "/"), Exclusive).is_some());
    assert!(table.look(&at(&team, "/"), |_| ()).is_none());
    assert_eq!(table.parts_in_use(), spread);
    // Of the other zone nothing moves.
    let root = taken(&table, "/", Exclusive);
    assert!(table.parts_in_use() >= spread);
    assert!(table.acquire(&key("/a"), request(Shared, 1_000, 1)).is_err());
    table.acquire(&at(&team, "/0/y"), request(Exclusive, 1_000, 1)).unwrap();
    let mut all = match table.line_up(&at(&team, "/"), request(Exclusive, 1_000, 1)) {
        Lined::Waiting(waiting) => waiting,
        _ => panic!("the zone is in use"),
    };
    assert_eq!(table.parts_in_use(), 1, "what is waited for is in one part");
    assert!(table.release(&key("/"), root.id).is_some());
    assert!(table.acquire(&key("/a"), request(Shared, 1_000, 1)).is_ok());
    for other in &others {
        assert!(poll(&mut all).is_none());
        table.force(other);
    }
    assert!(poll(&mut all).is_none());
    table.force(&at(&team, "/0/y"));
    assert!(held(poll(&mut all)).is_some());
    table.force(&at(&team, "/"));
    table.force(&key("/a"));
    assert!(table.is_idle() && table.counts_right());
}

#[test]
fn an_agent_holds_and_waits_for_no_more_than_its_bound_over_all_parts_and_for_as_many() {
    const EACH: usize = 200;
    let (table, clock) = bounded(Bounds { each: EACH, ..BOUNDS });
    let place = |n: usize| key(&format!("/{n}/x"));
    let mine = |ttl| request(Exclusive, ttl, 1);
    let enough =
        |n: usize| table.acquire(&place(n), mine(1_000)).unwrap_err() == super::places::Obstacle::Enough;
    // Back and forth in all parts, so that each keeps one.
    for n in 0..EACH {
        let grant = table.take(place(n), mine(1_000)).unwrap();
        assert!(table.give_back(place(n), grant.id).is_ok());
    }
    let held: Vec<Grant> = (0..EACH)
        .map(|n| table.acquire(&place(n), mine(1_000)).unwrap_or_else(|why| panic!("{n}: {why:?}")))
        .collect();
    assert!(enough(EACH) && table.take(place(EACH), mine(1_000)).is_none());
    assert!(matches!(table.line_up(&place(0), mine(1_000)), Lined::Enough));
    table.acquire(&place(EACH), request(Exclusive, 1_000, 2)).expect("it is another's bound");
    // Given back, in any way: one for one.
    assert!(table.release(&place(0), held[0].id).is_some());
    assert!(table.give_back(place(1), held[1].id).is_ok());
    assert_eq!(table.force(&place(2)).len(), 1);
    // What waits counts, and what is handed over counts once.
    let mut waits: Vec<_> = (3..6).map(|n| lined(&table, &format!("/{n}/x"), Exclusive)).collect();
    assert!(enough(0) && table.counts_right());
    drop(waits.pop());
    table.acquire(&place(0), mine(500)).unwrap();
    assert!(enough(1));
    assert!(table.give_back(place(3), held[3].id).is_ok());
    assert!(self::held(poll(&mut waits[0])).is_some() && table.counts_right());
    table.acquire(&place(1), mine(500)).unwrap();
    assert!(enough(2));
    // By time.
    clock.store(600, Ordering::Relaxed);
    assert_eq!(table.expire(true).2.len(), 2);
    // One that outlived the process is held, and counted.
    assert!(table.restore(&place(0), Grant { id: LockId(7), token: 1 << 20 }, mine(5_000), Duration::ZERO));
    assert!(table.restore(&place(1), Grant { id: LockId(8), token: 1 << 21 }, mine(5_000), Duration::ZERO));
    assert!(
        table.restore(&place(2), Grant { id: LockId(9), token: 1 << 22 }, mine(5_000), Duration::ZERO),
        "whatever the bound is now"
    );
    assert!(enough(EACH + 1) && table.counts_right());
    drop(waits);
    clock.store(10_000, Ordering::Relaxed);
    table.expire(true);
    assert!(table.is_idle() && table.counts_right());
    for n in 0..EACH {
        table.acquire(&place(n), mine(1_000)).unwrap();
    }
    assert!(enough(EACH));
}

#[test]
fn agents_that_have_nothing_any_more_are_forgotten() {
    let (table, _) = table();
    for n in 0..2_000 {
        let mut asked = request(Exclusive, 1_000, 1);
        asked.owner.agent = format!("passing-{n}").into();
        let grant = table.take(key("/a/b"), asked).unwrap();
        assert!(table.give_back(key("/a/b"), grant.id).is_ok());
    }
    assert!(table.agents() < 1_100, "{}", table.agents());
    assert!(table.counts_right());
}

#[derive(Debug, Clone)]
enum Step {
    /// Waits, if it must.
    Ask(&'static str, LockKind, u64, u64),
    Try(&'static str, LockKind, u64, u64),
    /// Of the call of this number, modulo how many there are.
    Release(usize),
    Extend(usize, u64),
    Leave(usize),
    Force(&'static str),
    End(u64),
    Pin(usize),
    Unpin(usize),
    Advance(u64),
}

/// A call, in the model.
#[derive(Debug, Clone)]
struct Call {
    number: usize,
    path: VPath,
    kind: LockKind,
    ttl: u64,
    life: u64,
    until: u64,
    pins: u32,
}

/// Who holds and who waits, in the order in which they came; nothing else.
#[derive(Debug, Default)]
struct Naive {
    now: u64,
    held: Vec<Call>,
    waiting: Vec<Call>,
    /// Paths at which writes are under way of who does not hold them any more.
    leaving: Vec<VPath>,
}

fn reaches(one: &VPath, other: &VPath) -> bool {
    one.is_within(other) || other.is_within(one)
}

impl Naive {
    fn is_free(&self, call: &Call, ahead: &[Call]) -> bool {
        let living = self.held.iter().filter(|held| held.until > self.now);
        let others: Vec<&Call> =
            living.chain(ahead).filter(|other| reaches(&other.path, &call.path)).collect();
        let left = self.held.iter().filter(|held| held.until <= self.now && held.pins > 0);
        if self.leaving.iter().chain(left.map(|held| &held.path)).any(|path| reaches(path, &call.path)) {
            return false;
        }
        match call.kind {
            Shared => others.iter().all(|other| other.kind == Shared),
            Semaphore(places) => {
                others.iter().all(|other| other.path == call.path && other.kind == call.kind)
                    && others.len() < places as usize
            }
            _ => others.is_empty(),
        }
    }

    fn hold(&mut self, mut call: Call) {
        call.until = self.now + call.ttl;
        self.held.push(call);
    }

    fn serve(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() {
            if self.is_free(&self.waiting[at], &self.waiting[..at]) {
                let call = self.waiting.remove(at);
                self.hold(call);
            } else {
                at += 1;
            }
        }
    }

    fn drop_held(&mut self, gone: impl Fn(&Call) -> bool) {
        let (gone, kept): (Vec<Call>, Vec<Call>) =
            std::mem::take(&mut self.held).into_iter().partition(|call| gone(call));
        self.held = kept;
        for call in gone {
            self.leaving.extend(std::iter::repeat_n(call.path, call.pins as usize));
        }
    }

    fn living(&self) -> Vec<usize> {
        let mut living: Vec<_> =
            self.held.iter().filter(|call| call.until > self.now).map(|call| call.number).collect();
        living.sort_unstable();
        living
    }
}

fn any_path() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => prop::sample::select(vec!["/a", "/a/b", "/a/b/c", "/a/bc", "/a-b", "/d", "/d/e"]),
        1 => Just("/"),
    ]
}

fn any_kind() -> impl Strategy<Value = LockKind> {
    prop_oneof![3 => Just(Exclusive), 3 => Just(Shared), 2 => Just(Semaphore(2)), 1 => Just(Semaphore(3))]
}

fn any_step() -> impl Strategy<Value = Step> {
    let (ttl, life) = (1_u64..60, 1_u64..4);
    prop_oneof![
        6 => (any_path(), any_kind(), ttl.clone(), life.clone()).prop_map(|(p, k, t, l)| Step::Ask(p, k, t, l)),
        3 => (any_path(), any_kind(), ttl.clone(), life).prop_map(|(p, k, t, l)| Step::Try(p, k, t, l)),
        5 => any::<usize>().prop_map(Step::Release),
        2 => (any::<usize>(), ttl).prop_map(|(which, ttl)| Step::Extend(which, ttl)),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => any_path().prop_map(Step::Force),
        1 => (2_u64..4).prop_map(Step::End),
        2 => any::<usize>().prop_map(Step::Pin),
        2 => any::<usize>().prop_map(Step::Unpin),
        3 => (1_u64..40).prop_map(Step::Advance),
    ]
}

/// The table, and what its callers have.
struct Real<'t> {
    table: &'t Table<LockKey>,
    clock: Arc<AtomicU64>,
    held: Vec<(usize, LockKey, LockId, u64)>,
    waiting: Vec<(usize, LockKey, Waiting<'t, LockKey>)>,
    pinned: Vec<(usize, VPath, Pinned<LockKey>)>,
    last_token: u64,
}

impl Real<'_> {
    fn hold(&mut self, number: usize, key: LockKey, Grant { id, token }: Grant) {
        assert!(token > self.last_token, "tokens grow");
        self.last_token = token;
        self.held.push((number, key, id, token));
    }

    /// Takes up what was given to those who wait.
    fn hear(&mut self) {
        let mut given = Vec::new();
        self.waiting.retain_mut(|(number, key, waiting)| match held(poll(waiting)) {
            Some(grant) => {
                given.push((*number, key.clone(), grant));
                false
            }
            None => true,
        });
        given.sort_by_key(|(_, _, grant)| grant.token);
        for (number, key, grant) in given {
            self.hold(number, key, grant);
        }
    }
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (table, clock) = table();
    let mut real = Real {
        table: &table,
        clock,
        held: Vec::new(),
        waiting: Vec::new(),
        pinned: Vec::new(),
        last_token: 0,
    };
    let mut model = Naive::default();
    let path = |text: &str| VPath::parse(text).unwrap();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Ask(at, kind, ttl, life) | Step::Try(at, kind, ttl, life) => {
                let call = Call { number, path: path(at), kind, ttl, life, until: 0, pins: 0 };
                let free = model.is_free(&call, &model.waiting);
                let (asked, wanted) = (key(at), request(kind, ttl, life));
                if matches!(step, Step::Try(..)) {
                    // In the simplest way first, as calls do.
                    let taken = real.table.take(asked.clone(), wanted.clone());
                    let got = taken.or_else(|| real.table.acquire(&asked, wanted).ok());
                    prop_assert_eq!(got.is_some(), free);
                    if let Some(given) = got {
                        real.hold(number, asked, given);
                        model.hold(call);
                    }
                } else {
                    match real.table.line_up(&asked, wanted) {
                        Lined::Held(grant) => {
                            prop_assert!(free);
                            real.hold(number, asked, grant);
                            model.hold(call);
                        }
                        Lined::Waiting(waiting) => {
                            prop_assert!(!free);
                            real.waiting.push((number, asked, waiting));
                            model.waiting.push(call);
                        }
                        Lined::Full | Lined::Enough => panic!("there is room"),
                    }
                }
            }
            Step::Release(which) if !real.held.is_empty() => {
                let (gone, key, id, _) = real.held.swap_remove(which % real.held.len());
                let lived = model.living().contains(&gone);
                let released =
                    real.table.give_back(key.clone(), id).is_ok() || real.table.release(&key, id).is_some();
                prop_assert_eq!(released, lived);
                model.drop_held(|call| call.number == gone);
            }
            Step::Extend(which, ttl) if !real.held.is_empty() => {
                let (number, key, id, _) = &real.held[which % real.held.len()];
                let lived = model.living().contains(number);
                let extended = real.table.extend(key, *id, Duration::from_millis(ttl));
                prop_assert_eq!(extended.is_some(), lived);
                let now = model.now;
                for call in model.held.iter_mut().filter(|call| call.number == *number && lived) {
                    call.until = now + ttl;
                }
            }
            Step::Leave(which) if !real.waiting.is_empty() => {
                let (gone, _, waiting) = real.waiting.remove(which % real.waiting.len());
                drop(waiting);
                model.waiting.retain(|call| call.number != gone);
            }
            Step::Force(at) => {
                let (now, at) = (model.now, path(at));
                let expected = model.held.iter().filter(|call| call.path == at && call.until > now).count();
                prop_assert_eq!(real.table.force(&key(at.as_str())).len(), expected);
                model.drop_held(|call| call.path == at);
            }
            Step::End(life) => {
                let now = model.now;
                let expected = model.held.iter().filter(|call| call.life == life && call.until > now).count();
                prop_assert_eq!(real.table.end(LifeId(life)).len(), expected);
                let tied: Vec<usize> =
                    model.held.iter().filter(|call| call.life == life).map(|call| call.number).collect();
                for number in tied {
                    model.drop_held(|call| call.number == number);
                    model.serve();
                }
            }
            Step::Pin(which) if !real.held.is_empty() => {
                let (number, key, _, token) = real.held[which % real.held.len()].clone();
                let pinned = real.table.pin(&key, token);
                prop_assert_eq!(pinned.is_some(), model.living().contains(&number));
                if let Some(pinned) = pinned {
                    real.pinned.push((number, key.parts().1, pinned));
                    for call in model.held.iter_mut().filter(|call| call.number == number) {
                        call.pins += 1;
                    }
                }
            }
            Step::Unpin(which) if !real.pinned.is_empty() => {
                let (number, at, pinned) = real.pinned.swap_remove(which % real.pinned.len());
                drop(pinned);
                match model.held.iter_mut().find(|call| call.number == number) {
                    Some(call) => call.pins -= 1,
                    None => {
                        let left = model.leaving.iter().position(|path| *path == at);
                        model.leaving.swap_remove(left.expect("it was pinned"));
                    }
                }
            }
            Step::Advance(by) => {
                model.now += by;
                real.clock.store(model.now, Ordering::Relaxed);
                // As the actor does; now and then it sweeps.
                let sweep = by % 2 == 0;
                real.table.expire(sweep);
                let now = model.now;
                if sweep {
                    model.drop_held(|call| call.until <= now);
                } else {
                    let waiting: Vec<VPath> = model.waiting.iter().map(|call| call.path.clone()).collect();
                    model.drop_held(|call| {
                        call.until <= now && waiting.iter().any(|path| reaches(path, &call.path))
                    });
                }
            }
            _ => {}
        }
        // Who is let in takes the place of those whose time is over there, with the writes that those have under way.
        model.serve();
        real.hear();
        let mut living: Vec<usize> = real.held.iter().map(|(number, ..)| *number).collect();
        living.retain(|number| model.living().contains(number));
        living.sort_unstable();
        prop_assert_eq!(&living, &model.living(), "who holds something after step {}", number);
        let mut waiting: Vec<usize> = real.waiting.iter().map(|(number, ..)| *number).collect();
        waiting.sort_unstable();
        let expected: Vec<usize> = model.waiting.iter().map(|call| call.number).collect();
        prop_assert_eq!(waiting, expected, "who waits after step {}", number);
        let counted = real.table.counted();
        prop_assert_eq!(counted.waiting, model.waiting.len());
    }
    prop_assert!(real.table.counts_right());
    real.waiting.clear();
    real.pinned.clear();
    for (_, key, id, _) in real.held {
        real.table.release(&key, id);
    }
    real.clock.store(1_000_000, Ordering::Relaxed);
    real.table.expire(true);
    prop_assert!(real.table.is_idle() && real.table.counts_right());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn the_table_agrees_with_a_list_of_who_holds_and_who_waits(steps in prop::collection::vec(any_step(), 1..60)) {
        run(steps)?;
    }
}
