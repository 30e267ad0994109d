//! Passwords: they work, and are printed nowhere.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_drivers::Secret;
use nexus_drivers::cache::redis::RedisConfig;
use nexus_kernel::hal::CacheStore;
use nexus_messages::ErrorKind;

use crate::redis::{PASSWORD, redis_encrypted, redis_with_password};
use crate::servers::{Server, certificates};
use crate::{CALL_WITHIN, World, config};

#[test]
fn the_right_password_opens_and_a_wrong_one_is_refused() {
    let (world, server) = (World::new(), Server::start(redis_with_password()));
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/1", server.port());
    let cache = world.cache(RedisConfig::from_url(&url).expect("it is a URL"));
    block_on(cache.put("key", Bytes::from_static(b"1"), None)).expect("it is let in");
    let mut listener = block_on(cache.subscribe("topic", 1)).expect("it is let in");
    block_on(cache.publish("topic", Bytes::from_static(b"1"))).expect("it is let in");
    block_on(listener.next()).expect("it hears");
    assert!(!format!("{cache:?} {listener:?} {:?}", cache.state()).contains(PASSWORD));

    for password in [None, Some(Secret::new("wrong-8262"))] {
        let mut settings = config(server.port());
        settings.password = password;
        let cache = world.cache(settings);
        let errors = [
            block_on(cache.get("key")).expect_err("it is not let in"),
            block_on(cache.put("key", Bytes::new(), None)).expect_err("it is not let in"),
            block_on(cache.subscribe("topic", 1)).map(drop).expect_err("it is not let in"),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
            assert!(!format!("{error:?} {error} {:?}", cache.state()).contains("wrong-8262"), "{error:?}");
        }
    }
}

/// Some servers repeat what they do not understand.
#[test]
fn a_server_that_repeats_the_password_does_not_get_it_printed() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = listener.accept().expect("somebody comes");
            let mut answers = stream.try_clone().expect("a socket");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if line.contains(PASSWORD) {
                    // The client may be gone.
                    let _ =
                        write!(answers, "-ERR unknown command, with args beginning with: '{PASSWORD}'\r\n");
                    break;
                }
            }
        });
        let world = World::new();
        let mut settings = config(port);
        settings.call_within = CALL_WITHIN * 10;
        settings.password = Some(Secret::new(PASSWORD));
        let cache = world.cache(settings);
        let error = block_on(cache.get("key")).expect_err("it is no Redis");
        assert!(!format!("{error:?} {error} {:?}", cache.state()).contains(PASSWORD), "{error:?}");
    });
}

#[test]
fn an_encrypted_way_is_taken_to_a_server_that_is_trusted_and_to_no_other() {
    let folder = tempfile::tempdir().expect("a folder for the server");
    certificates::certify(folder.path(), "server.key", "server.crt");
    let (world, server) = (World::new(), Server::start_in(redis_encrypted(), folder));
    let settings = |host: &str, is_trusted: bool| {
        let url = format!("rediss://{host}:{}", server.port());
        let mut settings = RedisConfig::from_url(&url).expect("it is a URL");
        settings.ca_file = is_trusted.then(|| server.folder().join(certificates::AUTHORITY));
        (settings.call_within, settings.connect_within) = (CALL_WITHIN * 10, CALL_WITHIN * 10);
        settings
    };
    let cache = world.cache(settings("localhost", true));
    block_on(cache.put("key", Bytes::from_static(b"1"), None)).expect("it is trusted");
    let mut listener = block_on(cache.subscribe("topic", 1)).expect("it is trusted");
    block_on(cache.publish("topic", Bytes::from_static(b"1"))).expect("it is trusted");
    block_on(listener.next()).expect("it hears");
    // An authority that nobody knows, a name that is not its own, and a way that is not encrypted.
    let mut plain = settings("localhost", true);
    plain.tls = false;
    for settings in [settings("localhost", false), settings("127.0.0.1", true), plain] {
        let cache = world.cache(settings);
        let error = block_on(cache.get("key")).expect_err("nothing is said to it");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
}
