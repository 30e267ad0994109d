//! A wire that fails: every call ends in time and says what it is, nothing wrong is read, and all is well when the wire is.

use std::time::Duration;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_drivers::cache::redis::RedisCache;
use nexus_kernel::hal::{CacheStore, StoreError};
use nexus_messages::ErrorKind;

use crate::servers::Server;
use crate::servers::proxy::{Fault, Proxy, Speaks};
use crate::{CALL_WITHIN, World, config, redis};

/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(2);

/// How often each call is made under each fault: the first finds the wire whole, and later ones that it is broken.
const ROUNDS: usize = 3;

/// Makes a call, which ends in time, and which the fault leaves no other error than one of these.
fn in_time<T>(
    world: &World,
    what: &str,
    fault: Fault,
    call: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (answer, took) = world.timed(call);
    assert!(took < CALL_WITHIN + SLACK, "{what} under {fault:?} took {took:?}");
    if let Err(error) = &answer {
        let kind = error.kind();
        let is_of_the_wire = matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Io);
        assert!(is_of_the_wire, "{what} under {fault:?}: {error:?}");
    }
    answer
}

#[test]
fn every_call_ends_in_time_says_what_it_is_and_reads_nothing_wrong() {
    let (world, server) = (World::new(), Server::start(redis::redis()));
    // Beside each other, each with a key of its own: most of the time is spent waiting.
    std::thread::scope(|scope| {
        for fault in Fault::ALL {
            let (world, server) = (&world, &server);
            scope.spawn(move || meet(world, server.port(), fault));
        }
    });
}

fn meet(world: &World, server: u16, fault: Fault) {
    let proxy = Proxy::of(server, Speaks::Redis);
    let (cache, direct) = (world.cache(config(proxy.port())), world.cache(config(server)));
    let key = format!("{fault:?}");
    let get = |cache: &RedisCache| block_on(cache.get(&key));
    let put = |value: &str| block_on(cache.put(&key, Bytes::copy_from_slice(value.as_bytes()), None));
    let mut there = String::from("before");
    world.until("it serves", || put(&there).ok());
    proxy.set(fault);
    let mut failures = 0;
    for round in 0..ROUNDS {
        match in_time(world, "get", fault, || get(&cache)) {
            Ok(found) => {
                let found = found.expect("it is kept for as long as there is room");
                assert_eq!(found, there.as_bytes(), "under {fault:?}");
            }
            Err(error) => {
                assert!(!error.is_unknown(), "a read changes nothing: {error:?}");
                failures += 1;
            }
        }
        let new = format!("{fault:?} {round}");
        let done = in_time(world, "put", fault, || put(&new));
        let now = world.until("it is read past the wire", || get(&direct).ok()).expect("it is there");
        failures += usize::from(done.is_err());
        match done {
            Ok(()) => assert_eq!(now, new.as_bytes(), "acknowledged under {fault:?}"),
            Err(error) if error.is_unknown() => {
                assert!(now == new.as_bytes() || now == there.as_bytes(), "{now:?} under {fault:?}");
            }
            Err(error) => assert_eq!(now, there.as_bytes(), "told as not done under {fault:?}: {error:?}"),
        }
        there = String::from_utf8_lossy(&now).into_owned();
        let message = Bytes::from_static(b"message");
        let heard = in_time(world, "publish", fault, || block_on(cache.publish(&key, message)));
        let listens = in_time(world, "subscribe", fault, || block_on(cache.subscribe(&key, 1)).map(drop));
        failures += usize::from(heard.is_err()) + usize::from(listens.is_err());
    }
    assert!(failures > 0, "{fault:?} hurt nobody");
    proxy.set(Fault::None);
    there = format!("after {fault:?}");
    world.until("it is put", || put(&there).ok());
    let now = world.until("it is read past the wire", || get(&direct).ok());
    assert_eq!(now, Some(Bytes::copy_from_slice(there.as_bytes())));
}
