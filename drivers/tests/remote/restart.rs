//! A server that is killed and started again while it is written to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_kernel::hal::PathWrite;

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

/// The server answers a write when its file has it: a killed process loses none of these. (What the machine would lose is not its promise.)
#[test]
fn what_was_acknowledged_is_there_when_the_server_is_back() {
    let mut server = s3rver();
    let store = open(&s3(server.port()).option("timeout_ms", "3000").option("retries", "1"));
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (acknowledged, failures) = thread::scope(|scope| {
        let (store, stop, written) = (&store, &stop, &written);
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
                            assert!(error.is_backend_failure(), "{error:?}");
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
        }
        wait_for(written, WRITES);
        stop.store(true, Ordering::Release);
        let mut all = BTreeMap::new();
        let mut failures = 0;
        for writing in writing {
            let (acknowledged, failed) = writing.join().expect("it does not panic");
            all.extend(acknowledged);
            failures += failed;
        }
        (all, failures)
    });
    assert!(acknowledged.len() >= 3 * WRITES, "{} writes, {failures} failures", acknowledged.len());
    for (path, content) in &acknowledged {
        assert_eq!(read(&*store, path).expect("it is there")[..], *content.as_bytes(), "{path}");
    }
}
