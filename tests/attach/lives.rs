//! Lives of agents from elsewhere: what is tied to an agent goes with its handle, and not only with the connection.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use nexus::blocking::{self, Nexus};
use nexus::{ErrorKind, GroupSettings, Serving, StreamSpec, StreamStart, SysLock, SysTake, VPath};
use nexus_actors::block_on;

use crate::bench::{Bench, PATIENCE, own};

/// Takes the lock on this path for a long time, tied to who takes it.
fn tie(nx: &Nexus, at: &str) {
    let at = VPath::parse(at).expect("it is one");
    nx.send(SysLock::exclusive(&at).tied().ttl(SysLock::TTL_MAX)).expect("it is free");
}

fn is_held(nx: &Nexus, at: &str) -> bool {
    match nx.lock(at, Duration::ZERO) {
        Ok(lock) => {
            nx.unlock(at, lock.id).expect("it is held");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            true
        }
    }
}

/// Waits until the lock is free.
#[track_caller]
fn comes_free(nx: &Nexus, at: &str) {
    let lock = nx.lock(at, PATIENCE).expect("it comes free");
    nx.unlock(at, lock.id).expect("it is held");
}

#[test]
fn a_lock_goes_with_the_handle_of_the_agent_that_it_is_tied_to_and_with_no_other() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let (one, other) = (nx.agent("a").expect("it may be"), nx.agent("a").expect("it may be"));
    tie(&one, "/one");
    tie(&other, "/other");
    tie(&nx, "/own");
    let clone = one.clone();
    drop(one);
    assert!(is_held(&nx, "/one"), "a clone of the handle is there");
    drop(clone);
    comes_free(&nx, "/one");
    assert!(is_held(&nx, "/other") && is_held(&nx, "/own"), "of one name are two lives");
    let guard = block_on(other.as_async().locked("/guarded", Duration::ZERO)).expect("it is free");
    drop(other);
    assert!(is_held(&nx, "/other") && is_held(&nx, "/guarded"), "a guard is its agent's");
    drop(guard);
    comes_free(&nx, "/other");
    comes_free(&nx, "/guarded");
    nx.shutdown().expect("it lets go");
    comes_free(&bench.owner, "/own");
}

#[test]
fn a_granted_agent_has_a_life_for_each_of_its_handles_too() {
    let bench = Bench::new(Serving::agent("a"));
    bench.owner.mkdir("/d").expect("it is made");
    let nx = bench.attach();
    let agent = nx.agent("a").expect("it is");
    tie(&agent, "/one");
    tie(&nx, "/own");
    drop(agent);
    comes_free(&bench.owner, "/one");
    assert!(is_held(&bench.owner, "/own"));
}

#[test]
fn records_go_back_with_the_handle_of_the_agent_that_took_them() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    nx.make_stream("/jobs", StreamSpec::new()).expect("it is made");
    nx.append_records("/jobs", vec!["one".into(), "two".into()]).expect("there is room");
    let joined = |name: &str| {
        let agent = nx.agent(name).expect("it may be");
        let settings = GroupSettings::default().deadline(GroupSettings::DEADLINE_MAX);
        let joined = agent.consumer("/jobs", "g", StreamStart::Oldest, settings);
        (agent, joined.expect("it joins"))
    };
    let (first, consumer) = joined("first");
    assert_eq!(consumer.take(1, None).expect("it is there").len(), 1);
    drop(first);
    let (_second, other) = joined("second");
    let taken = other.take(2, None).expect("one is there");
    assert_eq!(taken.iter().map(|one| &one.record.data[..]).collect::<Vec<_>>(), [b"two"]);
    drop(consumer);
    let taken = other.take(2, Some(PATIENCE)).expect("it comes back");
    assert_eq!((&taken[0].record.data[..], taken[0].deliveries), (&b"one"[..], 2));
}

#[test]
fn what_an_agent_gave_up_taking_before_it_went_was_not_given_to_it() {
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    nx.make_stream("/jobs", StreamSpec::new()).expect("it is made");
    let joined = |nx: &Nexus| nx.consumer("/jobs", "g", StreamStart::Oldest, GroupSettings::default());
    let other = joined(&bench.owner).expect("it joins");
    for round in 0..100 {
        let offset = nx.append_record("/jobs", "x").expect("there is room");
        let agent = nx.agent("a").expect("it may be").as_async().clone();
        {
            let take = SysTake::new(VPath::parse("/jobs").expect("it is one"), "g");
            // Dropped before it is sent, while it is served, or while the reply is on its way.
            let mut taking = pin!(agent.send(take.records_max(1)));
            assert!(taking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            (0..round * 200).for_each(|_| std::hint::spin_loop());
        }
        drop(agent);
        let taken = other.take(1, Some(PATIENCE)).expect("it comes back");
        assert_eq!((taken[0].record.offset, taken[0].deliveries), (offset, 1), "round {round}");
        other.acknowledge(offset).expect("it is this one's");
    }
}

#[test]
fn an_agent_lives_on_with_the_next_owner_and_ends_there() {
    let Bench { owner, folder } = &Bench::new(Serving::administrator());
    let nx = blocking::attach(folder.path()).expect("it is served");
    let (agent, gone) = (nx.agent("a").expect("it may be"), nx.agent("b").expect("it may be"));
    tie(&agent, "/l");
    owner.shutdown().expect("it stops");
    drop(gone);
    // One that begins while there is no connection.
    let late = nx.agent("late").expect("it may be");
    let again = own(folder.path(), Serving::administrator());
    tie(&agent, "/l");
    tie(&late, "/late");
    drop(agent);
    comes_free(&again, "/l");
    assert!(is_held(&again, "/late"));
    drop(late);
    comes_free(&again, "/late");
    again.shutdown().expect("it stops");
}

#[test]
fn one_agent_more_than_a_client_may_have_is_refused_until_another_one_ends() {
    const AGENTS: usize = 16_384;
    let bench = Bench::new(Serving::administrator());
    let nx = bench.attach();
    let mut agents: Vec<_> = (0..AGENTS).map(|_| nx.agent("a").expect("there is room")).collect();
    let refused = nx.agent("a").map(drop).expect_err("there is none");
    assert_eq!(refused.kind(), ErrorKind::Busy);
    assert!(refused.to_string().contains("16384 agents"), "{refused}");
    agents.pop();
    agents.push(nx.agent("a").expect("there is room again"));
    tie(&agents[AGENTS - 1], "/l");
    drop(agents);
    comes_free(&nx, "/l");
}
