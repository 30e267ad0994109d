//! Advisory locks, through the front door.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nexus::actors::{Behaviour, ExitReason, LocalBoxFuture, Start};
use nexus::blocking;
use nexus::dispatch::{Interceptor, Observer, OpSet, Registration};
use nexus::gate::{Decision, Permission};
use nexus::service::{Declaration, Service, Setup};
use nexus::{
    Caller, Config, EntryType, Env, Errno, ErrorKind, Event, EventKind, EventMask, Fence, HookContext, Kill,
    LockKind, Locked, Lsn, Nexus, Op, OpId, Result, Right, StreamSpec, SysLock, SysRead, SysStat, SysUnlock,
    SysWrite, Syscall, Timestamp, VPath, Verdict, WatchItem,
};
use parking_lot::Mutex;

const SOON: Duration = Duration::from_secs(5);
const NOW: Duration = Duration::ZERO;

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("a path")
}

/// Runs `test` in a simulation: its time is virtual, and jumps when nothing can go on.
fn simulated<F: Future<Output = ()>>(seed: u64, test: impl FnOnce(Env, Nexus) -> F) {
    let (env, simulation) = Env::seeded(seed);
    simulation.block_on(async {
        let nx = nexus::connect(Config::in_memory().env(env.clone())).await.expect("it boots");
        test(env, nx.clone()).await;
        nx.shutdown().await.expect("it ends");
    });
}

async fn held(nx: &Nexus) -> serde_json::Value {
    let text = nx.read("/__sys__/locks/advisory").await.expect("it is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

#[test]
fn a_lock_keeps_others_from_its_path_from_what_is_above_and_from_what_is_below() {
    simulated(1, |_, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let lock = a.lock("/p/q", NOW).await.unwrap();
        for taken in ["/", "/p", "/p/q", "/p//q/", "/p/q/r/s"] {
            let error = b.lock(taken, NOW).await.unwrap_err();
            assert_eq!((error.kind(), error.errno()), (ErrorKind::WouldBlock, Errno::EAGAIN), "{taken}");
            assert!(error.to_string().contains("a holds"), "{error}");
        }
        for free in ["/p/qq", "/p/q-1", "/p/r", "/q"] {
            b.lock(free, NOW).await.unwrap();
        }
        a.unlock("/p/q", lock.id).await.unwrap();
        assert_eq!(a.unlock("/p/q", lock.id).await.unwrap_err().errno(), Errno::EPERM);
        b.lock("/p/q", NOW).await.unwrap();
        // The root reaches all, and is not free while anything is held.
        assert_eq!(b.lock("/", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn shared_and_counted_locks_admit_their_like() {
    simulated(2, |_, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let shared = || SysLock::shared(path("/s"));
        let first = a.send(shared()).await.unwrap();
        let second = b.send(shared()).await.unwrap();
        assert!(second.token > first.token);
        b.send(SysLock::shared(path("/s/below"))).await.unwrap();
        assert_eq!(b.lock("/s", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(
            b.send(SysLock::semaphore(path("/s"), 3)).await.unwrap_err().kind(),
            ErrorKind::WouldBlock
        );

        let counted = |holders| SysLock::semaphore(path("/c"), holders);
        let places = [a.send(counted(2)).await.unwrap(), b.send(counted(2)).await.unwrap()];
        assert_eq!(a.send(counted(2)).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        a.unlock("/c", places[0].id).await.unwrap();
        // Who says another number does not share it.
        assert_eq!(a.send(counted(3)).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        a.send(counted(2)).await.unwrap();
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    simulated(3, |_, nx| async move {
        let a = nx.agent("a").unwrap();
        let lock = a.lock("/a", NOW).await.unwrap();
        for call in [
            SysLock::semaphore(path("/x"), 0),
            SysLock::exclusive(path("/x")).ttl(Duration::ZERO),
            SysLock::exclusive(path("/x")).ttl(SysLock::TTL_MAX + Duration::from_secs(1)),
            SysLock::exclusive(path("/x")).tied().durable(),
            SysLock::extend(path("/a"), lock.id).wait(SOON),
        ] {
            assert_eq!(a.send(call.clone()).await.unwrap_err().errno(), Errno::EINVAL, "{call:?}");
        }
        let ended = a.lock("/__sys__/version", NOW).await.unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::NotSupported);
        assert_eq!(a.force_unlock("/a").await.unwrap_err().errno(), Errno::EACCES);
        assert_eq!(nx.force_unlock("/a").await.unwrap().released, 1);
        assert_eq!(nx.force_unlock("/a").await.unwrap().released, 0);
        assert_eq!(a.extend("/a", lock.id, SOON).await.unwrap_err().errno(), Errno::EPERM);
    });
}

#[test]
fn a_lock_ends_with_its_time_unless_it_is_extended() {
    simulated(4, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let ttl = Duration::from_secs(10);
        let lock = a.send(SysLock::exclusive(path("/a")).ttl(ttl)).await.unwrap();
        env.sleep(Duration::from_secs(8)).await;
        a.extend("/a", lock.id, ttl).await.unwrap();
        env.sleep(Duration::from_secs(8)).await;
        assert_eq!(b.lock("/a", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        env.sleep(Duration::from_secs(3)).await;
        // What is over does not keep anybody out, also above and below it.
        b.lock("/a/below", NOW).await.unwrap();
        assert_eq!(a.extend("/a", lock.id, ttl).await.unwrap_err().errno(), Errno::EPERM);
        assert_eq!(held(&nx).await["locks"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn who_waits_gets_the_lock_when_its_time_is_over_or_waits_no_longer_than_it_said() {
    simulated(5, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        a.send(SysLock::exclusive(path("/a")).ttl(Duration::from_secs(10))).await.unwrap();
        let begun = env.now();
        let error = b.lock("/a", Duration::from_secs(3)).await.unwrap_err();
        assert_eq!((error.kind(), env.now() - begun), (ErrorKind::TimedOut, Duration::from_secs(3)));
        assert!(error.to_string().contains("a holds it"), "{error}");
        b.lock("/a", Duration::from_secs(60)).await.unwrap();
        let took = env.now() - begun;
        assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
    });
}

#[test]
fn the_end_of_a_lock_whose_time_is_over_is_told_when_it_comes_though_nobody_waits_for_it() {
    simulated(5, |env, nx| async move {
        let releases = nx.watch("/").mask(EventMask::from(EventKind::Unlocked));
        let mut releases = releases.stream().await.unwrap();
        nx.lock("/other", Duration::ZERO).await.unwrap();
        for ttl_ms in [300, 40, 990, 2_300] {
            // At any time between two looks at all that is held.
            env.sleep(Duration::from_millis(450)).await;
            let (begun, ttl) = (env.now(), Duration::from_millis(ttl_ms));
            nx.send(SysLock::exclusive(path("/a")).ttl(ttl)).await.unwrap();
            releases.next().await.unwrap().unwrap();
            let took = env.now() - begun;
            assert!(took >= ttl && took < ttl + Duration::from_millis(30), "{took:?} of {ttl:?}");
        }
    });
}

#[test]
fn who_waits_behind_one_that_was_handed_the_lock_gets_it_when_that_ones_time_is_over() {
    simulated(5, |env, nx| async move {
        let [a, b, c] = ["a", "b", "c"].map(|name| nx.agent(name).unwrap());
        let held = a.send(SysLock::exclusive(path("/a")).ttl(SysLock::TTL_MAX)).await.unwrap();
        let wait = Duration::from_secs(60);
        let brief = SysLock::exclusive(path("/a")).ttl(Duration::from_millis(100)).wait(wait);
        let (mut second, mut third) = (Box::pin(b.send(brief)), Box::pin(c.lock("/a", wait)));
        assert!(
            futures_util::poll!(&mut second).is_pending() && futures_util::poll!(&mut third).is_pending()
        );
        env.sleep(Duration::from_millis(200)).await;
        a.unlock("/a", held.id).await.unwrap();
        let begun = env.now();
        second.await.unwrap();
        third.await.unwrap();
        let took = env.now() - begun;
        assert!((Duration::from_millis(100)..Duration::from_millis(150)).contains(&took), "{took:?}");
    });
}

#[test]
fn those_who_wait_for_each_other_are_told_and_the_youngest_gives_way() {
    simulated(6, |env, nx| async move {
        let agents: Vec<Nexus> = ["a", "b", "c"].iter().map(|name| nx.agent(name).unwrap()).collect();
        let mut own: Vec<Locked> = Vec::new();
        for (at, agent) in agents.iter().enumerate() {
            own.push(agent.lock(format!("/{at}"), NOW).await.unwrap());
        }
        let begun = env.now();
        let waits = agents.iter().enumerate().map(|(at, agent)| {
            let (env, own) = (env.clone(), own[at].clone());
            async move {
                // One after the other, so that it is known who is the youngest.
                env.sleep(Duration::from_millis(at as u64)).await;
                let got = agent.lock(format!("/{}", (at + 1) % 3), Duration::from_secs(600)).await;
                agent.unlock(format!("/{at}"), own.id).await.unwrap();
                got
            }
        });
        let got: Vec<Result<Locked>> = futures_util::future::join_all(waits).await;
        let error = got[2].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Deadlock, Errno::EDEADLK));
        assert!(error.to_string().contains("c waits for a waits for b waits for c"), "{error}");
        assert!(got[0].is_ok() && got[1].is_ok());
        assert!(env.now() - begun < Duration::from_secs(1));
    });
}

#[test]
fn who_waits_for_one_of_several_places_is_in_a_circle_when_all_who_hold_one_are() {
    simulated(8, |env, nx| async move {
        let agents: Vec<Nexus> = ["a", "b", "c"].iter().map(|name| nx.agent(name).unwrap()).collect();
        let [a, b, c] = &agents[..] else { panic!("they are three") };
        let pool = || SysLock::semaphore(path("/pool"), 2);
        let (of_a, of_c) = (a.send(pool()).await.unwrap(), c.send(pool()).await.unwrap());
        let x = b.lock("/x", NOW).await.unwrap();
        let mut a_waits = Box::pin(a.lock("/x", Duration::from_secs(600)));
        let mut b_waits = Box::pin(b.send(pool().wait(Duration::from_secs(600))));
        assert!(
            futures_util::poll!(&mut a_waits).is_pending() && futures_util::poll!(&mut b_waits).is_pending()
        );
        // Long enough for a look, and c is about to give its place back.
        env.sleep(Duration::from_secs(10)).await;
        assert!(
            futures_util::poll!(&mut a_waits).is_pending() && futures_util::poll!(&mut b_waits).is_pending()
        );
        // When c waits, too, nobody gives one back.
        let mut c_waits = Box::pin(c.lock("/x", Duration::from_secs(600)));
        assert!(futures_util::poll!(&mut c_waits).is_pending());
        assert_eq!(b_waits.await.unwrap_err().kind(), ErrorKind::Deadlock);
        b.unlock("/x", x.id).await.unwrap();
        let x = a_waits.await.unwrap();
        a.unlock("/x", x.id).await.unwrap();
        c_waits.await.unwrap();
        a.unlock("/pool", of_a.id).await.unwrap();
        c.unlock("/pool", of_c.id).await.unwrap();
    });
}

/// Holds up whoever extends a lock.
struct HoldsUp;

impl Interceptor for HoldsUp {
    fn ops(&self) -> OpSet {
        OpSet::from(Op::Lock)
    }

    fn before<'a>(&'a self, cx: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        match &cx.call {
            Syscall::Lock(call) if call.id.is_some() => Box::pin(std::future::pending()),
            _ => Box::pin(std::future::ready(Verdict::Continue)),
        }
    }
}

#[test]
fn a_guard_that_is_given_up_before_it_is_there_leaves_no_lock() {
    let nx = blocking::connect(Config::in_memory()).unwrap();
    nx.register_hook(Registration::interceptor("holds up", Arc::new(HoldsUp))).unwrap();
    let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
    // The first lock of a boot reserves tokens, by a commit.
    b.lock("/first", NOW).expect("it is free");
    let mut guard = Box::pin(a.as_async().locked("/p", SOON));
    assert!(guard.as_mut().now_or_never().is_none(), "it is extended as soon as it is there");
    let held = || String::from_utf8(nx.read("/__sys__/locks/advisory").unwrap().to_vec()).unwrap();
    assert!(held().contains("\"/p\""), "{}", held());
    drop(guard);
    assert!(!held().contains("\"/p\""), "{}", held());
    b.lock("/p", NOW).expect("nobody holds it");
}

#[test]
fn who_asks_for_the_first_lock_and_looks_away_holds_up_nobody() {
    simulated(7, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        // It reserves tokens, by a commit.
        let mut first = Box::pin(a.lock("/p", NOW));
        assert!(first.as_mut().now_or_never().is_none(), "it waits for the disk");
        let other = env.timeout(SOON, b.lock("/q", NOW)).await;
        other.expect("nobody waits for who does not look").expect("it is free");
        first.await.expect("it is free");
    });
}

#[test]
fn who_asks_for_a_durable_lock_and_looks_away_holds_up_nobody() {
    simulated(7, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        a.lock("/first", NOW).await.expect("it is free");
        let durable = |at: &str| SysLock::exclusive(path(at)).durable();
        let mut first = Box::pin(a.send(durable("/p")));
        assert!(first.as_mut().now_or_never().is_none(), "it waits for the disk");
        let other = env.timeout(SOON, b.send(durable("/q"))).await;
        let other = other.expect("nobody waits for who does not look").expect("it is free");
        let first = first.await.expect("it is free");
        let mut released = Box::pin(a.unlock("/p", first.id));
        assert!(released.as_mut().now_or_never().is_none(), "it waits for the disk");
        let released_too = env.timeout(SOON, b.unlock("/q", other.id)).await;
        released_too.expect("nobody waits for who does not look").expect("it is held");
        released.await.expect("it is held");
    });
}

#[test]
fn tokens_grow_and_a_write_demands_that_its_lock_is_held() {
    simulated(7, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        a.write("/d/f", "0").await.unwrap();
        let old = a.send(SysLock::exclusive(path("/d")).ttl(Duration::from_secs(1))).await.unwrap();
        let write = |text: &'static str, fence: Fence| SysWrite::at(path("/d/f"), text).fence(fence);
        a.send(write("1", old.fence())).await.unwrap();
        env.sleep(Duration::from_secs(2)).await;
        let new = b.lock("/d", NOW).await.unwrap();
        assert!(new.token > old.token);
        // The one who was away comes back and does not know that its time is over.
        let error = a.send(write("late", old.fence())).await.unwrap_err();
        assert_eq!((error.kind(), error.errno().name()), (ErrorKind::Fenced, "EFENCED"));
        let late = a.tx().unlink("/d/f").op(write("late", old.fence())).commit().await.unwrap_err();
        assert_eq!((late.kind(), late.item()), (ErrorKind::Fenced, Some(1)));
        b.send(write("2", new.fence())).await.unwrap();
        assert_eq!(nx.read("/d/f").await.unwrap(), "2");
        let other = nx.send(write("x", Fence::new(path("/elsewhere"), new.token))).await.unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Fenced);
    });
}

#[test]
fn what_is_tied_goes_with_its_owner_and_wakes_who_waits() {
    simulated(8, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let tied = SysLock::exclusive(path("/t")).ttl(SysLock::TTL_MAX).tied();
        a.send(tied).await.unwrap();
        let stays = a.send(SysLock::exclusive(path("/u")).ttl(SysLock::TTL_MAX)).await.unwrap();
        let clone = a.clone();
        drop(a);
        assert_eq!(b.lock("/t", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        let ends = async {
            env.sleep(Duration::from_secs(1)).await;
            drop(clone);
        };
        let (got, ()) = futures_util::future::join(b.lock("/t", SOON), ends).await;
        got.unwrap();
        assert_eq!(b.lock("/u", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        b.unlock("/u", stays.id).await.unwrap();
    });
}

#[test]
fn nothing_is_tied_to_a_life_that_has_ended() {
    simulated(31, |_, nx| async move {
        let agent = nx.agent("a").unwrap();
        let (kernel, caller) = (nx.kernel().unwrap(), Arc::new(agent.caller().clone()));
        let lock = |at| kernel.send(&caller, SysLock::exclusive(path(at)).ttl(SysLock::TTL_MAX).tied());
        lock("/a").await.unwrap();
        drop(agent);
        let error = lock("/b").await.unwrap_err();
        assert_eq!(error.errno(), Errno::EPERM, "{error}");
        nx.lock("/", NOW).await.unwrap();
    });
}

#[test]
fn a_guard_extends_its_lock_releases_it_and_tells_when_it_is_lost() {
    simulated(9, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let call = || SysLock::exclusive(path("/g")).ttl(Duration::from_secs(3));
        let guard = a.locked_with(call(), Duration::from_secs(60)).await.unwrap();
        env.sleep(Duration::from_secs(30)).await;
        assert!(!guard.is_lost());
        assert_eq!(b.lock("/g", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(guard);
        let again = b.locked_with(call(), Duration::from_secs(10)).await.unwrap();
        let begun = env.now();
        env.sleep(Duration::from_millis(9_500)).await;
        assert!(again.check().await.unwrap(), "it may be held for half a second more, and no longer");
        again.lost().await;
        let held = env.now() - begun;
        assert!(held <= Duration::from_secs(10) && held > Duration::from_secs(9), "{held:?}");
        env.sleep(Duration::from_secs(1)).await;
        assert!(!again.check().await.unwrap());
        let free = a.lock("/g", NOW).await.expect("nobody holds it");
        a.unlock("/g", free.id).await.unwrap();
        assert_eq!(again.release().await.unwrap_err().errno(), Errno::EPERM);
        let forced = a.locked("/g", NOW).await.unwrap();
        nx.force_unlock("/g").await.unwrap();
        forced.lost().await;
        assert!(forced.is_lost());
        drop(forced);
        let done = b.locked("/g", NOW).await.unwrap().release().await.unwrap();
        assert_eq!(done.released, 1);
    });
}

/// May be read, and not written.
struct ReadOnly;

impl Permission for ReadOnly {
    fn check(&self, caller: &Caller, right: Right, _: &VPath) -> Decision {
        match right {
            Right::Read => Decision::Allow,
            _ if &*caller.agent == "reader" => Decision::Deny("readers read".into()),
            _ => Decision::Allow,
        }
    }
}

#[test]
fn who_may_share_a_lock_may_extend_it() {
    simulated(31, |env, nx| async move {
        nx.write("/f", "x").await.unwrap();
        nx.set_permission(Some(Arc::new(ReadOnly))).unwrap();
        let reader = nx.agent("reader").unwrap();
        assert_eq!(reader.lock("/f", NOW).await.unwrap_err().errno(), Errno::EACCES);
        let call = SysLock::shared(path("/f")).ttl(Duration::from_secs(3));
        let guard = reader.locked_with(call, Duration::from_secs(60)).await.unwrap();
        env.sleep(Duration::from_secs(20)).await;
        assert!(!guard.is_lost());
        reader.extend("/f", guard.id(), Duration::from_secs(9)).await.unwrap();
        guard.release().await.unwrap();
    });
}

#[test]
fn a_lock_is_shown_by_stat_and_listed_with_who_holds_it_and_who_waits() {
    simulated(10, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        a.write("/f", "x").await.unwrap();
        let look = || SysStat::at(path("/f")).include_lock();
        assert!(nx.send(look()).await.unwrap().lock.is_none());
        let lock = a.lock("/f", NOW).await.unwrap();
        let mut waiting = Box::pin(b.lock("/f", SOON));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        env.sleep(Duration::from_secs(1)).await;
        let shown = nx.send(look()).await.unwrap().lock.clone().unwrap();
        assert_eq!((&*shown.holders[0].agent, shown.holders[0].kind), ("a", LockKind::Exclusive));
        assert_eq!((shown.holders[0].token, shown.holders[0].age), (lock.token, Duration::from_secs(1)));
        assert_eq!((&*shown.waiting[0].agent, shown.waiting.len()), ("b", 1));
        assert!(nx.stat("/f").await.unwrap().lock.is_none());
        let listed = held(&nx).await;
        assert_eq!((listed["held"].as_u64(), listed["waiting"].as_u64()), (Some(1), Some(1)));
        assert_eq!(listed["locks"][0]["path"], "/f");
        assert_eq!(listed["locks"][0]["holders"][0]["agent"], "a");
        assert_eq!(a.read("/__sys__/locks/advisory").await.unwrap_err().errno(), Errno::EACCES);
        drop(waiting);
        assert_eq!(held(&nx).await["waiting"], 0);
    });
}

#[test]
fn a_link_is_followed_to_what_it_leads_to() {
    simulated(11, |_, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        nx.write("/real", "x").await.unwrap();
        nx.link("/link", "/real").await.unwrap();
        let lock = a.lock("/link", NOW).await.unwrap();
        assert_eq!(lock.path.as_str(), "/real");
        assert_eq!(b.lock("/real", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        nx.unlink("/link").await.unwrap();
        // The lock is found by its identity although the link is gone.
        a.extend("/link", lock.id, SOON).await.unwrap();
        a.unlock("/link", lock.id).await.unwrap();
        b.lock("/real", NOW).await.unwrap();
    });
}

#[test]
fn a_lock_is_extended_and_released_by_what_it_is_on_and_by_what_it_was_taken_by_alone() {
    simulated(31, |_, nx| async move {
        let a = nx.agent("a").unwrap();
        let durable = SysLock::exclusive(path("/durable")).durable();
        for lock in [a.lock("/plain/file", NOW).await.unwrap(), a.send(durable).await.unwrap()] {
            let before = held(&nx).await["locks"][0]["holders"][0]["token"].clone();
            for wrong in ["/plain", "/other", "/plain/file/below", "/"] {
                let extended = a.extend(wrong, lock.id, SOON).await.unwrap_err();
                let released = a.unlock(wrong, lock.id).await.unwrap_err();
                for error in [extended, released] {
                    assert_eq!(error.errno(), Errno::EPERM, "{error}");
                    let said = error.to_string();
                    assert!(said.contains(&format!(" {wrong}: ")), "what was asked for: {said}");
                    assert!(
                        said.contains(&format!("the lock {} is one on {}", lock.id, lock.path)),
                        "{said}"
                    );
                }
                assert_eq!(nx.lock(&lock.path, NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
                assert_eq!(held(&nx).await["locks"][0]["holders"][0]["token"], before);
            }
            a.unlock(&lock.path, lock.id).await.unwrap();
        }

        // A link leads elsewhere since, and what was locked is a link itself.
        nx.write("/real", "x").await.unwrap();
        nx.link("/link", "/real").await.unwrap();
        let lock = a.lock("/link", NOW).await.unwrap();
        nx.unlink("/link").await.unwrap();
        nx.link("/link", "/other").await.unwrap();
        a.extend("/link", lock.id, SOON).await.unwrap();
        nx.rename("/real", "/moved").await.unwrap();
        nx.link("/real", "/moved").await.unwrap();
        a.extend("/real", lock.id, SOON).await.unwrap();
        assert_eq!(a.unlock("/other", lock.id).await.unwrap_err().errno(), Errno::EPERM);
        assert_eq!(a.unlock("/moved", lock.id).await.unwrap_err().errno(), Errno::EPERM);
        a.unlock("/link", lock.id).await.unwrap();
        assert_eq!(held(&nx).await["held"], 0);

        let (one, other) = (a.semaphore("one", 1).unwrap(), a.semaphore("other", 1).unwrap());
        let place = one.try_acquire(SOON).unwrap();
        assert_eq!(other.extend(place.id, SOON).unwrap_err().errno(), Errno::EPERM);
        assert_eq!(other.release(place.id).unwrap_err().errno(), Errno::EPERM);
        one.release(place.id).unwrap();
    });
}

#[test]
fn locks_outlive_the_actor_that_looks_after_them() {
    simulated(12, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let lock = a.send(SysLock::exclusive(path("/a")).ttl(Duration::from_secs(20))).await.unwrap();
        let mut waiting = Box::pin(b.lock("/a", Duration::from_secs(60)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        for _ in 0..3 {
            assert!(nx.kill("nexus/kernel/advisory", Kill::Panic).await.unwrap());
            assert_eq!(nx.lock("/a", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
            env.sleep(Duration::from_secs(1)).await;
        }
        a.extend("/a", lock.id, Duration::from_secs(2)).await.unwrap();
        let begun = env.now();
        waiting.await.unwrap();
        assert!(env.now() - begun < Duration::from_secs(4), "the next incarnation looks after it");
    });
}

#[test]
fn a_durable_lock_outlives_the_process_until_its_time_is_over_and_tokens_go_on_growing() {
    let folder = tempfile::tempdir().unwrap();
    let boot = || blocking::connect(Config::new(folder.path())).unwrap();
    let nx = boot();
    let plain = nx.send(SysLock::exclusive(path("/plain")).ttl(SysLock::TTL_MAX)).unwrap();
    let call = SysLock::exclusive(path("/kept")).ttl(Duration::from_secs(600)).durable();
    let kept = nx.agent("a").unwrap().send(call).unwrap();
    let gone = nx.send(SysLock::exclusive(path("/gone")).ttl(Duration::from_secs(600)).durable()).unwrap();
    nx.unlock("/gone", gone.id).unwrap();
    let short = SysLock::exclusive(path("/short")).ttl(SysLock::TTL_MIN).durable();
    nx.send(short).unwrap();
    nx.shutdown().unwrap();

    let nx = boot();
    let again = nx.send(SysLock::exclusive(path("/plain"))).unwrap();
    assert!(again.token > kept.token.max(plain.token).max(gone.token));
    assert_eq!(nx.lock("/kept/below", NOW).unwrap_err().kind(), ErrorKind::WouldBlock);
    nx.lock("/gone", NOW).unwrap();
    nx.lock("/short", NOW).unwrap();
    // Its holder finds it again by its identity, and what it writes under it is written.
    let write = SysWrite::at(path("/kept"), "mine").create().fence(kept.fence());
    nx.send(write).unwrap();
    nx.extend("/kept", kept.id, Duration::from_secs(600)).unwrap();
    nx.send(SysUnlock::new(path("/kept"), kept.id)).unwrap();
    nx.shutdown().unwrap();
    let nx = boot();
    nx.lock("/kept", NOW).unwrap();
    nx.shutdown().unwrap();
}

#[test]
fn the_age_of_a_durable_lock_goes_on_when_the_process_starts_again_and_when_it_is_extended() {
    let folder = tempfile::tempdir().unwrap();
    let boot = || blocking::connect(Config::new(folder.path())).unwrap();
    let age = |nx: &blocking::Nexus| {
        let stat = nx.send(SysStat::at(path("/kept")).include_lock()).unwrap();
        stat.lock.as_ref().expect("it is locked").holders[0].age
    };
    let nx = boot();
    nx.write("/kept", "x").unwrap();
    let mut kept =
        nx.send(SysLock::exclusive(path("/kept")).ttl(Duration::from_secs(600)).durable()).unwrap();
    let (taken, mut latest) = (nx.env().now(), age(&nx));
    nx.shutdown().unwrap();
    for extends in [false, true, false] {
        let nx = boot();
        if extends {
            kept = nx.extend("/kept", kept.id, Duration::from_secs(500)).unwrap();
        }
        // It is told by the clock of the wall what was before the start.
        let least = nx.env().now() - taken - Duration::from_millis(1);
        let now = age(&nx);
        assert!(now >= least && now > latest, "{now:?} of at least {least:?}, after {latest:?}");
        latest = now;
        nx.shutdown().unwrap();
    }
}

#[test]
fn an_agent_holds_and_waits_for_no_more_locks_than_it_may_also_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let boot = |most: usize| {
        let config = Config::new(folder.path()).locks_per_agent(most);
        blocking::connect(config).unwrap()
    };
    let nx = boot(3);
    let (a, again, b) = (nx.agent("a").unwrap(), nx.agent("a").unwrap(), nx.agent("b").unwrap());
    let kept = a.send(SysLock::exclusive(path("/kept")).ttl(Duration::from_secs(600)).durable()).unwrap();
    let second = again.lock("/2", NOW).unwrap();
    let mut guard = Some(a.locked("/3", NOW).unwrap());
    let refused = |wait: Option<Duration>| {
        let mut call = SysLock::exclusive(path("/4/x"));
        call.wait = wait;
        let error = again.send(call).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NoLocks, Errno::ENOLCK), "{error}");
        let told = error.to_string();
        assert!(told.contains("/4/x") && told.contains("a holds and waits for 3 locks"), "{told}");
        assert!(told.contains("lock") && told.contains("locks_per_agent"), "{told}");
    };
    refused(None);
    refused(Some(SOON));
    a.extend("/2", second.id, SOON).expect("it has that one already");
    b.lock("/4/b", NOW).expect("it is not b's bound");
    assert!(nx.kill("nexus/kernel/advisory", Kill::Panic).unwrap());
    refused(None);
    nx.send(SysUnlock::force(path("/4/b"))).unwrap();
    refused(None);
    drop(guard.take());
    let third = a.lock("/4/y", NOW).expect("its guard gave one back");
    refused(None);
    a.unlock("/4/y", third.id).unwrap();
    a.send(SysLock::exclusive(path("/5")).ttl(SysLock::TTL_MIN)).unwrap();
    // What its time has taken back is free for another one, when that was looked at.
    let until = nx.env().now() + SOON;
    while a.lock("/6", NOW).is_err() {
        assert!(nx.env().now() < until, "what is over still counts");
        std::thread::yield_now();
    }
    nx.shutdown().unwrap();

    let nx = boot(2);
    let a = nx.agent("a").unwrap();
    a.lock("/1", NOW).expect("what was in memory alone is gone");
    assert_eq!(a.lock("/2", NOW).unwrap_err().kind(), ErrorKind::NoLocks, "one outlived the process");
    a.unlock("/kept", kept.id).unwrap();
    a.lock("/2", NOW).unwrap();
    assert_eq!(a.lock("/3", NOW).unwrap_err().kind(), ErrorKind::NoLocks);
    nx.shutdown().unwrap();
}

#[test]
fn threads_never_hold_one_lock_together_and_what_they_write_under_it_is_never_torn() {
    const ROUNDS: u64 = 200;
    let nx = blocking::connect(Config::in_memory()).unwrap();
    nx.write("/count", "0").unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let (agent, inside) = (nx.agent(name).unwrap(), inside.clone());
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let lock = agent.lock("/count", SOON).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    let text = agent.read("/count").unwrap();
                    let count: u64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
                    let write = SysWrite::at(path("/count"), (count + 1).to_string()).eventual();
                    agent.send(write.fence(lock.fence())).unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    agent.unlock("/count", lock.id).unwrap();
                }
            });
        }
    });
    assert_eq!(nx.read("/count").unwrap(), (4 * ROUNDS).to_string());
    nx.shutdown().unwrap();
}

#[test]
fn a_semaphore_has_so_many_places_and_serves_in_order() {
    simulated(13, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let ttl = Duration::from_secs(10);
        let (one, same) = (a.semaphore("gpu", 2).unwrap(), b.semaphore("gpu", 2).unwrap());
        let first = one.try_acquire(ttl).unwrap();
        one.try_acquire(ttl).unwrap();
        assert_eq!(same.try_acquire(ttl).unwrap_err().kind(), ErrorKind::WouldBlock);
        let info = same.info();
        assert_eq!((info.holders.len(), info.holders_max, info.waiting), (2, 2, 0));
        one.release(first.id).unwrap();
        assert_eq!(one.release(first.id).unwrap_err().errno(), Errno::EPERM);
        let third = same.acquire(ttl, SOON).await.unwrap();
        assert!(third.token > first.token);
        same.extend(third.id, Duration::from_secs(30)).unwrap();
        let begun = env.now();
        one.acquire(ttl, Duration::from_secs(60)).await.unwrap();
        assert!(env.now() - begun < Duration::from_secs(12), "the second place's time is over");
        assert_eq!(same.acquire(ttl, SOON).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(a.semaphore("gpu", 2).unwrap().force().unwrap_err().errno(), Errno::EACCES);
        assert_eq!(nx.semaphore("gpu", 2).unwrap().force().unwrap(), 2);
        // Another number of places is another semaphore, and not at the same time.
        nx.semaphore("gpu", 3).unwrap().try_acquire(ttl).unwrap();
        assert_eq!(one.try_acquire(ttl).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(a.semaphore("", 1).unwrap_err().errno(), Errno::EINVAL);
        assert_eq!(a.semaphore("x", 0).unwrap_err().errno(), Errno::EINVAL);
    });
}

/// Locks a path when it starts, for as long as it lives.
struct Holding;

impl Behaviour for Holding {
    type Args = Setup<Self>;
    const NAME: &'static str = "holding";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            let call = SysLock::exclusive(path(setup.config())).ttl(SysLock::TTL_MAX).tied();
            setup.calls().send(call).await.map_err(|error| ExitReason::Error(error.to_string().into()))?;
            Ok(Self)
        })
    }
}

impl Service for Holding {
    const VERSION: &'static str = "1.0.0";
    type Config = String;
    type View = ();

    fn declare(_: &String) -> Declaration<Self> {
        Declaration::new()
    }
}

#[test]
fn what_a_service_has_locked_goes_with_the_version_of_it() {
    simulated(14, |_, nx| async move {
        nx.register::<Holding>("holding", "/s".to_owned()).await.unwrap();
        assert_eq!(nx.lock("/s", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        nx.unregister("holding").await.unwrap();
        nx.lock("/s", NOW).await.unwrap();
    });
}

#[test]
fn what_a_service_has_locked_goes_when_it_crashes_and_its_next_incarnation_has_it() {
    simulated(18, |env, nx| async move {
        nx.write("/s", "").await.unwrap();
        nx.register::<Holding>("holding", "/s".to_owned()).await.unwrap();
        let token = async || {
            let stat = nx.send(SysStat::at(path("/s")).include_lock()).await.unwrap();
            stat.lock.as_ref().map(|lock| lock.holders[0].token)
        };
        let mut held = token().await.expect("it is locked");
        for how in [Kill::Panic, Kill::Error] {
            assert!(nx.kill("nexus/services/holding@1", how).await.unwrap());
            let next = async {
                loop {
                    match token().await {
                        Some(next) if next > held => return next,
                        _ => env.sleep(Duration::from_millis(10)).await,
                    }
                }
            };
            held = env.timeout(SOON, next).await.expect("it is free for who comes back");
        }
    });
}

#[test]
fn watchers_hear_of_locks_that_are_given_handed_over_and_lost_in_their_order() {
    simulated(15, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        let mut heard = nx.watch("/w").mask(EventKind::Locked | EventKind::Unlocked).stream().await.unwrap();
        let first = a.lock("/w/x", NOW).await.unwrap();
        a.lock("/elsewhere", NOW).await.unwrap();
        let waits = b.send(SysLock::exclusive(path("/w/x")).ttl(Duration::from_secs(2)).wait(SOON));
        let (second, ()) = futures_util::future::join(waits, async {
            env.sleep(Duration::from_secs(1)).await;
            a.unlock("/w/x", first.id).await.unwrap();
        })
        .await;
        let second = second.unwrap();
        env.sleep(Duration::from_secs(5)).await;
        let expected = [
            (EventKind::Locked, "a", first.token),
            (EventKind::Unlocked, "a", first.token),
            (EventKind::Locked, "b", second.token),
            (EventKind::Unlocked, "b", second.token),
        ];
        for (kind, agent, token) in expected {
            let WatchItem::Event(event) = heard.next().await.unwrap().unwrap() else {
                panic!("all of it fits")
            };
            assert_eq!((event.kind, &*event.caller.agent, event.version), (kind, agent, token));
            assert_eq!(event.path.as_str(), "/w/x");
            assert_ne!(event.op_id.0, first.id.0, "who hears of a lock cannot release it");
        }
    });
}

type Heard = Arc<Mutex<Vec<Event>>>;

/// Keeps what it is told of locks.
struct Hears(Heard);

impl Observer for Hears {
    fn mask(&self) -> EventMask {
        EventKind::Locked | EventKind::Unlocked
    }

    fn observe(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

#[test]
fn who_hears_of_a_lock_is_told_who_has_it_on_what_how_and_when() {
    simulated(32, |env, nx| async move {
        nx.mkdir("/w/d").await.unwrap();
        nx.write("/w/f", "x").await.unwrap();
        let heard = Heard::default();
        let observer = Registration::observer("hears", Arc::new(Hears(heard.clone()))).inline();
        nx.register_hook(observer).await.unwrap();
        let team = nx.zone("team").unwrap();
        let (a, b) = (nx.agent("a").unwrap(), team.agent("b").unwrap());
        // The first lock of a boot reserves tokens, by a commit.
        let first = a.lock("/elsewhere", NOW).await.unwrap();
        a.unlock("/elsewhere", first.id).await.unwrap();
        for watched in [false, true] {
            let last = nx.write("/w/f", "y").await.unwrap().receipt.lsn;
            let watch = nx.watch("/w").mask(EventKind::Locked | EventKind::Unlocked);
            let mut watch = match watched {
                true => Some(watch.stream().await.unwrap()),
                false => None,
            };
            env.sleep(SOON).await;
            heard.lock().clear();
            let began = Timestamp(env.wall());
            let mut tokens = Vec::new();
            for (who, at, kind) in [
                (&a, "/w/f", LockKind::Exclusive),
                (&b, "/w/d", LockKind::Shared),
                (&team, "/w/none", LockKind::Semaphore(3)),
            ] {
                // The second time it is known what is there.
                for waits in [None, Some(SOON)] {
                    let mut call = SysLock::exclusive(path(at));
                    (call.kind, call.wait) = (kind, waits);
                    let lock = who.send(call).await.unwrap();
                    env.sleep(SOON).await;
                    who.unlock(at, lock.id).await.unwrap();
                    env.sleep(SOON).await;
                    tokens.push(lock.token);
                }
            }
            let expected = [
                ("/w/f", EntryType::Reg, "a", "root", false, LockKind::Exclusive),
                ("/w/d", EntryType::Dir, "b", "team", false, LockKind::Shared),
                ("/w/none", EntryType::Reg, "nexus", "team", true, LockKind::Semaphore(3)),
            ];
            let mut told = heard.lock().clone();
            assert_eq!(told.len(), 12);
            let mut seen = Vec::new();
            while let Some(watch) = watch.as_mut().filter(|_| seen.len() < 12) {
                match watch.next().await.unwrap().unwrap() {
                    WatchItem::Event(event) => seen.push(Event::clone(&event)),
                    overflow => panic!("all of it fits: {overflow:?}"),
                }
            }
            if watched {
                assert_eq!(told, seen);
            }
            for (n, event) in told.drain(..).enumerate() {
                let kind = if n % 2 == 0 { EventKind::Locked } else { EventKind::Unlocked };
                let (at, entry_type, agent, zone, admin, lock) = expected[n / 4];
                assert_eq!((event.kind, event.path.as_str(), event.entry_type), (kind, at, entry_type));
                assert_eq!((&*event.caller.agent, event.caller.zone.as_str()), (agent, zone));
                assert_eq!((event.caller.admin, event.lock), (admin, Some(lock)), "{at}");
                assert_eq!((event.version, event.lsn), (tokens[n / 2], last), "{at}");
                assert_eq!(event.at, began.after(SOON * u32::try_from(n).unwrap()), "{at}");
                assert_eq!((event.other, event.content_id, event.size, event.is_new), (None, None, 0, false));
            }
        }
        let mut file = nx.watch("/w/f").since(Lsn(0)).stream().await.unwrap();
        let file = file.next_for(SOON).await.expect("it was written").unwrap();
        assert!(matches!(file, WatchItem::Event(event) if event.lock.is_none()));
    });
}

#[test]
fn of_a_durable_lock_all_is_told_when_it_goes_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let boot = || blocking::connect(Config::new(folder.path())).unwrap();
    let nx = boot();
    nx.mkdir("/d").unwrap();
    let mut call = SysLock::exclusive(path("/d")).ttl(Duration::from_secs(600)).durable();
    call.kind = LockKind::Shared;
    let team = nx.zone("team").unwrap();
    let lock = team.send(call).unwrap();
    nx.shutdown().unwrap();
    let nx = boot();
    let mut heard = nx.watch("/d").mask(EventKind::Unlocked).stream().unwrap();
    nx.unlock("/d", lock.id).unwrap();
    let Some(Ok(WatchItem::Event(event))) = heard.next_for(SOON * 6) else { panic!("it is told") };
    assert_eq!(
        (event.entry_type, event.lock, event.version),
        (EntryType::Dir, Some(LockKind::Shared), lock.token)
    );
    assert_eq!((event.caller.zone.as_str(), event.caller.admin), ("team", true));
    nx.shutdown().unwrap();
}

#[test]
fn what_goes_through_a_pipe_or_into_a_stream_demands_that_its_lock_is_held() {
    simulated(33, |_, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        nx.make_pipe("/p", 100).await.unwrap();
        nx.make_stream("/s", StreamSpec::new()).await.unwrap();
        let to_pipe = |text: &'static str, lock: &Locked| SysWrite::at(path("/p"), text).fence(lock.fence());
        let append =
            |text: &'static str, lock: &Locked| SysWrite::at(path("/s"), text).append().fence(lock.fence());
        let old = a.lock("/d", NOW).await.unwrap();
        a.send(to_pipe("1", &old)).await.unwrap();
        a.send(to_pipe("2", &old).op_id(OpId(2))).await.unwrap();
        a.send(append("1", &old)).await.unwrap();
        a.send(append("2", &old).op_id(OpId(3))).await.unwrap();
        a.unlock("/d", old.id).await.unwrap();
        for holder in [None, Some(&b)] {
            let new = match holder {
                Some(holder) => Some(holder.lock("/d", NOW).await.unwrap()),
                None => None,
            };
            for (call, op) in [(to_pipe("late", &old), 4), (append("late", &old), 5)] {
                let late = call.clone().op_id(OpId(op));
                for late in [call.clone(), call.wait(SOON), late] {
                    assert_eq!(a.send(late).await.unwrap_err().kind(), ErrorKind::Fenced);
                }
            }
            // What was executed before is told what it was told, as of a file.
            assert_eq!(a.send(to_pipe("2", &old).op_id(OpId(2))).await.unwrap().written, 1);
            assert_eq!(a.send(append("2", &old).op_id(OpId(3))).await.unwrap().first_record, Some(1));
            if let Some(new) = &new {
                b.send(to_pipe("3", new)).await.unwrap();
                b.send(append("3", new)).await.unwrap();
            }
        }
        let mut messages = Vec::new();
        while let Ok(read) = nx.send(SysRead::at(path("/p"))).await {
            messages.push(read.data);
        }
        assert_eq!(messages, ["1", "2", "3"]);
        let records = nx.send(SysRead::at(path("/s")).records_from(0)).await.unwrap().records.unwrap();
        let records: Vec<_> = records.records.into_iter().map(|record| record.data).collect();
        assert_eq!(records, ["1", "2", "3"]);
    });
}

#[test]
fn a_write_that_waits_at_a_pipe_is_done_under_its_lock_and_keeps_it_from_nobody_meanwhile() {
    simulated(34, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        nx.make_pipe("/p", 4).await.unwrap();
        nx.send(SysWrite::at(path("/p"), "full")).await.unwrap();
        for op in [None, Some(OpId(7))] {
            let lock = a.lock("/d", NOW).await.unwrap();
            let write = |text: &'static str| {
                let mut call = SysWrite::at(path("/p"), text).wait(SOON * 10).fence(lock.fence());
                call.op_id = op;
                call
            };
            let mut waits = Box::pin(a.send(write("kept")));
            assert!(futures_util::poll!(&mut waits).is_pending());
            env.sleep(SOON).await;
            assert_eq!(nx.send(SysRead::at(path("/p"))).await.unwrap().data, "full");
            waits.await.unwrap();

            let call = write("late").op_id(OpId(8));
            let mut waits = Box::pin(a.send(call.clone()));
            assert!(futures_util::poll!(&mut waits).is_pending());
            a.unlock("/d", lock.id).await.unwrap();
            let next = b.lock("/d", NOW).await.expect("nothing is written while there is no room");
            assert_eq!(nx.send(SysRead::at(path("/p"))).await.unwrap().data, "kept");
            assert_eq!(waits.await.unwrap_err().kind(), ErrorKind::Fenced);
            assert_eq!(nx.send(SysRead::at(path("/p"))).await.unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(a.send(call).await.unwrap_err().kind(), ErrorKind::Fenced, "nor is it remembered");
            b.unlock("/d", next.id).await.unwrap();
            nx.send(SysWrite::at(path("/p"), "full")).await.unwrap();
        }
    });
}

#[test]
fn whoever_gets_a_lock_next_finds_what_was_appended_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let nx = blocking::connect(Config::new(folder.path())).unwrap();
    let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
    nx.make_stream("/s", StreamSpec::new()).unwrap();
    // It is opened by its first use.
    nx.append_record("/s", "0").unwrap();
    // A machine that lets this thread stand may have brought it to the disk by the time this looks: then again.
    let kept = (0..100).any(|_| {
        let lock = a.lock("/d", SOON).unwrap();
        let mut append =
            Box::pin(a.as_async().send(SysWrite::at(path("/s"), "x").append().fence(lock.fence())));
        let is_pending = append.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert_eq!(nx.force_unlock("/d").unwrap().released, 1);
        if is_pending {
            assert_eq!(b.lock("/d", NOW).unwrap_err().kind(), ErrorKind::WouldBlock);
            nx.env().blocking_wait(append).expect("it was begun while the lock was held");
            b.lock("/d", NOW).expect("it is free");
        }
        is_pending
    });
    assert!(kept, "it waits for the disk");
    nx.shutdown().unwrap();
}

#[test]
fn a_guard_that_waited_longer_than_its_lock_lasts_is_not_lost() {
    simulated(16, |env, nx| async move {
        let (a, b) = (nx.agent("a").unwrap(), nx.agent("b").unwrap());
        a.send(SysLock::exclusive(path("/g")).ttl(Duration::from_secs(40))).await.unwrap();
        let call = SysLock::exclusive(path("/g")).ttl(Duration::from_secs(30)).wait(Duration::from_secs(60));
        let begun = env.now();
        let guard = b.locked_with(call, Duration::from_secs(600)).await.unwrap();
        assert!(env.now() - begun >= Duration::from_secs(40));
        env.sleep(Duration::from_secs(120)).await;
        assert!(!guard.is_lost());
        assert_eq!(a.lock("/g", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(guard);
        a.lock("/g", NOW).await.unwrap();
    });
}

#[test]
fn what_was_to_outlive_the_process_and_did_not_last_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let boot = || blocking::connect(Config::new(folder.path())).unwrap();
    let nx = boot();
    let agent = nx.agent("a").unwrap();
    let short = SysLock::exclusive(path("/short")).ttl(SysLock::TTL_MIN).durable();
    agent.send(short.clone()).unwrap();
    // Given up while its row was on its way to the disk, or just after. A machine that lets this thread stand may have
    // written the row by the time this looks: then again.
    let durable = SysLock::exclusive(path("/given-up")).ttl(Duration::from_secs(600)).durable();
    let given_up = (0..100).any(|_| {
        let mut call = Box::pin(agent.as_async().send(durable.clone()));
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => true,
            Poll::Ready(grant) => {
                agent.unlock("/given-up", grant.unwrap().id).unwrap();
                false
            }
        }
    });
    assert!(given_up, "it waits for the disk");
    nx.lock("/given-up", SOON).unwrap();
    nx.shutdown().unwrap();
    let nx = boot();
    nx.lock("/short", NOW).unwrap();
    nx.lock("/given-up", NOW).unwrap();
    nx.shutdown().unwrap();
}

#[test]
fn two_kernels_that_share_a_table_of_locks_keep_each_other_out() {
    simulated(30, |env, here| async move {
        let there = nexus::connect(Config::in_memory().env(env.clone())).await.expect("it boots");
        let zone = nexus::ZoneId::root();
        let (kernel, other) = (here.kernel().unwrap(), there.kernel().unwrap());
        let lock = there.lock("/busy", NOW).await.unwrap();
        assert_eq!(other.use_locks(&zone, kernel.share_locks()).unwrap_err().kind(), ErrorKind::Busy);
        there.unlock("/busy", lock.id).await.unwrap();
        other.use_locks(&zone, kernel.share_locks()).unwrap();

        // The same names, and the same numbers of lives, are others there.
        let (a, b) = (here.agent("a").unwrap(), there.agent("a").unwrap());
        let first = a.lock("/p", NOW).await.unwrap();
        let error = b.lock("/p/q", NOW).await.unwrap_err();
        assert!(error.kind() == ErrorKind::WouldBlock && error.to_string().contains("a holds"), "{error}");
        let mut waiting = Box::pin(b.lock("/p", SOON));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        a.unlock("/p", first.id).await.unwrap();
        let second = waiting.await.unwrap();
        assert!(second.token > first.token);
        assert_eq!(a.lock("/p", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);

        // What is written there under a lock that is kept here.
        there.write("/f", "0").await.unwrap();
        let write = SysWrite::at(path("/f"), "1").fence(second.fence());
        b.send(write.clone()).await.unwrap();
        there.make_pipe("/through", 4).await.unwrap();
        let message = SysWrite::at(path("/through"), "full").fence(second.fence());
        b.send(message.clone()).await.unwrap();
        let mut waits = Box::pin(b.send(message.clone().wait(SOON)));
        assert!(futures_util::poll!(&mut waits).is_pending());
        there.send(SysRead::at(path("/through"))).await.unwrap();
        waits.await.unwrap();
        let stat = b.send(SysStat::at(path("/f")).include_lock()).await.unwrap();
        assert!(stat.lock.is_none());
        b.extend("/p", second.id, Duration::from_secs(60)).await.unwrap();
        b.unlock("/p", second.id).await.unwrap();
        assert_eq!(b.send(write).await.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(b.send(message).await.unwrap_err().kind(), ErrorKind::Fenced);

        // Who waits across both in a circle is told.
        let (on_x, on_y) = (a.lock("/x", NOW).await.unwrap(), b.lock("/y", NOW).await.unwrap());
        let (mut of_a, mut of_b) = (Box::pin(a.lock("/y", SOON)), Box::pin(b.lock("/x", SOON)));
        assert!(futures_util::poll!(&mut of_a).is_pending() && futures_util::poll!(&mut of_b).is_pending());
        assert_eq!(of_b.await.unwrap_err().errno(), Errno::EDEADLK);
        b.unlock("/y", on_y.id).await.unwrap();
        let on_y = of_a.await.unwrap();
        a.unlock("/x", on_x.id).await.unwrap();
        a.unlock("/y", on_y.id).await.unwrap();

        // What is tied goes with a life of the other kernel, and what waits there is taken back.
        b.send(SysLock::exclusive(path("/tied")).tied()).await.unwrap();
        assert_eq!(a.lock("/tied", NOW).await.unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(b);
        a.lock("/tied", NOW).await.unwrap();
        let mut given_up = Box::pin(there.lock("/tied", SOON));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        assert!(held(&here).await.to_string().contains("/tied"));
        there.shutdown().await.unwrap();
    });
}
