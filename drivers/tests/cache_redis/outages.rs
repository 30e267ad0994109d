//! A server that is not there, dies, stands still, and comes back.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_drivers::cache::redis::{RedisCache, TIMEOUTS_MAX};
use nexus_kernel::hal::{CacheState, CacheStore, Heard, Missed, StoreError, Subscription};
use nexus_messages::ErrorKind;

use crate::servers::{Server, free_port};
use crate::{CALL_WITHIN, WITHIN, World, config, redis};

/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(2);

/// A call that asks nobody takes no longer than this, on average: far above what it takes, far below any deadline.
const AT_ONCE: Duration = Duration::from_millis(2);

fn get(cache: &RedisCache) -> Result<Option<Bytes>, StoreError> {
    block_on(cache.get("key"))
}

fn put(cache: &RedisCache, value: &'static str) -> Result<(), StoreError> {
    block_on(cache.put("key", Bytes::from_static(value.as_bytes()), None))
}

fn fails_at_once(world: &World, cache: &RedisCache) {
    let (_, took) = world.timed(|| {
        for _ in 0..100 {
            let error = get(cache).expect_err("there is no server");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
    });
    assert!(took < AT_ONCE * 100, "a hundred calls of a dead server took {took:?}");
}

#[test]
fn a_server_that_comes_later_is_found() {
    let world = World::new();
    let mut server = Server::start(redis::redis());
    server.kill();
    let cache = world.cache(config(server.port()));
    let error = put(&cache, "1").expect_err("there is no server");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let refused = block_on(cache.subscribe("topic", 1)).expect_err("there is no server");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    fails_at_once(&world, &cache);
    server.start_again();
    world.until("it is found", || put(&cache, "1").ok());
    assert_eq!(get(&cache).expect("it serves"), Some(Bytes::from_static(b"1")));
}

#[test]
fn the_reason_is_told() {
    let world = World::new();
    let cache = world.cache(config(free_port()));
    let error = get(&cache).expect_err("there is no server").to_string();
    assert!(error.contains("127.0.0.1") && error.to_lowercase().contains("refused"), "{error}");
    assert!(matches!(cache.state(), CacheState::Down { cause } if cause.to_lowercase().contains("refused")));
}

#[test]
fn a_server_that_is_killed_under_load_is_found_again_and_listeners_are_told() {
    const CALLERS: usize = 4;
    let world = World::new();
    let mut server = Server::start(redis::redis());
    let cache = world.cache(config(server.port()));
    put(&cache, "before").expect("it serves");
    let mut listener = block_on(cache.subscribe("topic", 100)).expect("it serves");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    while !over.load(std::sync::atomic::Ordering::SeqCst) {
                        let (done, took) = world.timed(|| get(&cache));
                        longest = longest.max(took);
                        if let Err(error) = done {
                            let kind = error.kind();
                            assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut), "{error}");
                        }
                    }
                    longest
                })
            })
            .collect();
        for _ in 0..2 {
            server.kill();
            world.until("it is missed", || get(&cache).err());
            fails_at_once(&world, &cache);
            server.start_again();
            world.until("it is found", || put(&cache, "after").ok());
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        for caller in callers {
            let longest = caller.join().expect("it saw no other error");
            assert!(longest < CALL_WITHIN + SLACK, "a call took {longest:?}");
        }
    });
    hears_again(&world, &cache, &mut *listener);
}

/// The gap comes, and messages after it.
fn hears_again(world: &World, cache: &RedisCache, listener: &mut dyn Subscription) {
    let first = block_on(listener.next()).expect("the store is there");
    assert_eq!(first, Some(Heard::Missed(Missed::Unknown)), "told before anything else");
    world.until("it listens again", || {
        block_on(cache.publish("topic", Bytes::from_static(b"again"))).ok().filter(|heard| *heard == 1)
    });
    loop {
        match block_on(listener.next()).expect("the store is there") {
            Some(Heard::Missed(Missed::Unknown)) => {}
            heard => break assert_eq!(heard, Some(Heard::Message(Bytes::from_static(b"again")))),
        }
    }
}

#[test]
fn a_server_that_stands_still_costs_some_deadlines_and_then_nothing() {
    let world = World::new();
    let server = Server::start(redis::redis());
    let mut settings = config(server.port());
    // The sign of life is not what finds it out here.
    settings.connect_within = Duration::from_secs(10);
    let cache = world.cache(settings);
    put(&cache, "before").expect("it serves");
    server.pause();
    let mut late = 0;
    let down = world.until("it is held for dead", || {
        let (done, took) = world.timed(|| put(&cache, "during"));
        assert!(took < CALL_WITHIN + SLACK, "a call took {took:?}");
        let error = done.expect_err("it stands still");
        if error.kind() == ErrorKind::TimedOut {
            assert!(error.is_unknown(), "it may have been done");
            late += 1;
            return None;
        }
        Some(error)
    });
    assert!(matches!(down.kind(), ErrorKind::Unavailable | ErrorKind::Io), "{down}");
    assert!(late <= TIMEOUTS_MAX + 1, "{late} calls ran into their deadline");
    fails_at_once(&world, &cache);
    server.resume();
    world.until("it is found again", || get(&cache).ok());
}

#[test]
fn listeners_are_told_when_the_server_stood_still() {
    let world = World::new();
    let server = Server::start(redis::redis());
    let cache = world.cache(config(server.port()));
    let mut listener = block_on(cache.subscribe("topic", 100)).expect("it serves");
    server.pause();
    let told = block_on(listener.next()).expect("the store is there");
    assert_eq!(told, Some(Heard::Missed(Missed::Unknown)), "told while it stands still");
    server.resume();
    world.until_it_serves(&cache);
    world.until("it listens again", || {
        block_on(cache.publish("topic", Bytes::from_static(b"again"))).ok().filter(|heard| *heard >= 1)
    });
    loop {
        match block_on(listener.next()).expect("the store is there") {
            Some(Heard::Message(_)) => break,
            heard => assert_eq!(heard, Some(Heard::Missed(Missed::Unknown))),
        }
    }
}

#[test]
fn no_more_calls_are_under_way_than_may_be() {
    let world = World::new();
    let server = Server::start(redis::redis());
    let mut settings = config(server.port());
    settings.calls_max = 1;
    settings.listeners_max = 1;
    // Each of eight waits for its turn, however loaded the machine is.
    settings.call_within = WITHIN;
    let cache = world.cache(settings);
    put(&cache, "1").expect("it serves");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    get(&cache).expect("each has its turn");
                }
            });
        }
    });
    let listener = block_on(cache.subscribe("topic", 1)).expect("there is room for one");
    assert_eq!(block_on(cache.subscribe("topic", 1)).expect_err("for one only").kind(), ErrorKind::StoreFull);
    drop(listener);
    world.until("its place is free", || block_on(cache.subscribe("topic", 1)).ok());
}

/// It answers, and nothing that can be read.
#[test]
fn what_a_change_came_to_is_not_known_when_the_answer_is_none() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = listener.accept().expect("somebody comes");
            let mut answers = stream.try_clone().expect("a socket");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if line == "SET" {
                    // The client may be gone.
                    let _ = write!(answers, "what?\r\n");
                    break;
                }
            }
        });
        let world = World::new();
        let cache = world.cache(config(port));
        let error = put(&cache, "1").expect_err("it is no Redis");
        assert!(error.is_unknown(), "{error:?}");
    });
}

#[test]
fn a_value_that_others_made_too_large_is_not_held() {
    let world = World::new();
    let server = Server::start(redis::redis());
    let mut small = config(server.port());
    small.value_bytes_max = 100;
    let (large, small) = (world.cache(config(server.port())), world.cache(small));
    for (bytes, is_held) in [(0, true), (97, true), (98, false), (1 << 20, false)] {
        // With its key.
        let value = Bytes::from(vec![0; bytes]);
        block_on(large.put("key", value.clone(), None)).expect("it serves");
        assert_eq!(get(&small).expect("it serves"), is_held.then_some(value), "{bytes}");
    }
}
