//! A server that is killed and started again while it is written to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectStore, PathWrite};
use nexus_messages::ErrorKind;

use crate::servers::Server;
use crate::servers::s3::s3rver;
use crate::subjects::{env, open, read, s3, write};

const WRITERS: usize = 3;

/// How many writes must have come through before the server is killed, and again after it is back.
const WRITES: usize = 30;

/// How long those may take.
const WRITES_MAX: Duration = Duration::from_secs(60);

fn wait_for(written: &AtomicUsize, more: usize) {
    let wanted = written.load(Ordering::Acquire) + more;
    let deadline = env().now() + WRITES_MAX;
    while written.load(Ordering::Acquire) < wanted {
        assert!(env().now() < deadline, "writes do not come through");
        block_on(env().sleep(Duration::from_millis(5)));
    }
}

/// Writes while the server is killed twice, and gives what was acknowledged. The mount is never opened anew.
fn killed_under_load(
    server: &mut Server,
    store: &Arc<dyn ObjectStore>,
    again: impl Fn(&Server),
) -> BTreeMap<String, String> {
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (stop, written) = (&stop, &written);
        let writer = |writer: usize| {
            move || {
                let (mut acknowledged, mut failures) = (BTreeMap::new(), 0);
                for turn in 0_usize.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let (path, content) = (format!("w{writer}/{turn}"), format!("{writer} wrote {turn}"));
                    match write(&**store, &path, content.clone(), PathWrite::Whole) {
                        Ok(_) => {
                            acknowledged.insert(path, content);
                            written.fetch_add(1, Ordering::AcqRel);
                        }
                        Err(error) => {
                            // One that has just begun may know of no container yet.
                            let is_known = error.is_backend_failure() || error.kind() == ErrorKind::NotFound;
                            assert!(is_known, "{error:?}");
                            failures += 1;
                        }
                    }
                }
                (acknowledged, failures)
            }
        };
        let writing: Vec<_> = (0..WRITERS).map(|number| scope.spawn(writer(number))).collect();
        for _ in 0..2 {
            wait_for(written, WRITES);
            server.kill();
            server.start_again();
            again(server);
        }
        wait_for(written, WRITES);
        stop.store(true, Ordering::Release);
        let mut all = BTreeMap::new();
        for writing in writing {
            all.extend(writing.join().expect("it does not panic").0);
        }
        assert!(all.len() >= 3 * WRITES, "{} writes", all.len());
        all
    })
}

/// The server answers a write when its file has it: a killed process loses none of these. (What the machine would lose is not its promise.)
#[test]
fn what_was_acknowledged_is_there_when_the_server_is_back() {
    let mut server = s3rver();
    let store = open(&s3(server.port()).option("timeout_ms", "3000").option("retries", "1"));
    let acknowledged = killed_under_load(&mut server, &store, |_| ());
    for (path, content) in &acknowledged {
        assert_eq!(read(&*store, path).expect("it is there")[..], *content.as_bytes(), "{path}");
    }
}

/// Its emulator forgets what it acknowledged last, so only this is claimed: service goes on by itself, and nothing wrong is read.
#[cfg(feature = "azure")]
#[test]
fn azure_serves_again_by_itself_and_nothing_wrong_is_read() {
    use crate::servers::azure::{azurite, make_container};
    let mut server = azurite();
    let spec = crate::subjects::azure(server.port()).option("timeout_ms", "3000").option("retries", "1");
    let store = open(&spec);
    let acknowledged = killed_under_load(&mut server, &store, |server| make_container(server.port()));
    let mut there = 0;
    for (path, content) in &acknowledged {
        match read(&*store, path) {
            Ok(read) => {
                assert_eq!(read[..], *content.as_bytes(), "{path}");
                there += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{path}: {error}"),
        }
    }
    assert!(there >= WRITES, "{there} of {} are there: the last ones at least", acknowledged.len());
}
