//! The suite that the cache in memory passes, over TCP and over a unix socket.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_drivers::cache::redis::RedisConfig;
use nexus_kernel::hal::conformance::cache_store::{Subject, check};

use crate::servers::Server;
use crate::{World, config, redis};

/// Within this time, messages arrive, and a listener that was cut off is back.
const ARRIVES: Duration = Duration::from_millis(400);

/// No claim waits longer for a real server: what ends, ends within a second, and what is to stay for a million of them is looked at after one.
const PASS_MAX: Duration = Duration::from_secs(1);

/// The server counts time in whole milliseconds, and keeps a value until the next one after its end.
const TICKS: Duration = Duration::from_millis(5);

fn check_at(server: &Server, settings: RedisConfig) {
    let (world, made) = (Rc::new(World::new()), Cell::new(0));
    let port = server.port();
    let make = move || {
        made.set(made.get() + 1);
        let mut settings = settings.clone();
        settings.call_within = Duration::from_secs(5);
        settings.connect_within = Duration::from_secs(5);
        settings.prefix = format!("subject {}:", made.get());
        let clock = world.clone();
        Subject::new(world.cache(settings), move |time| block_on(clock.0.sleep(time.min(PASS_MAX) + TICKS)))
            .arriving(ARRIVES)
            .severed_by(move || sever(port))
    };
    check(&make).assert_passed();
}

/// Has the server close the connections of all listeners.
fn sever(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.write_all(b"CLIENT KILL TYPE pubsub\r\n").expect("it reads");
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b":1\r", "one listener was cut off");
}

#[test]
fn it_conforms() {
    let server = Server::start(redis::redis());
    check_at(&server, config(server.port()));
}

#[test]
fn it_conforms_over_a_unix_socket() {
    let server = Server::start(redis::redis());
    check_at(&server, config(server.port()).socket(server.folder().join(redis::SOCKET)));
}
