//! A whole kernel whose stores elsewhere fail: what its other parts notice of it, and how it comes back.

#![expect(clippy::disallowed_methods, reason = "the callers are threads of a program around the kernel")]

mod boot;
#[path = "../cache/digests.rs"]
mod digests;
mod neighbours;
mod redis;
#[path = "../../drivers/tests/servers/redis.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod redis_server;
#[path = "../../drivers/tests/servers/mod.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod servers;

use std::thread;
use std::time::{Duration, Instant};

use nexus::blocking::Nexus;
use nexus::{MountSpec, MountStatus};

use servers::s3::{BUCKET, KEY};

/// Within this time all is well again by itself.
const WELL_WITHIN: Duration = Duration::from_secs(60);

/// Waits until something has come about by itself.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < WELL_WITHIN, "never {what}");
        // Whoever is to bring it about needs the processor.
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A mount of the bucket at the server of this port.
fn bucket(port: u16, prefix: &str) -> MountSpec {
    MountSpec::new("s3")
        .option("bucket", BUCKET)
        .option("endpoint", format!("http://127.0.0.1:{port}"))
        .option("allow_http", "true")
        .option("access_key", KEY)
        .option("secret_key", KEY)
        .option("prefix", prefix)
}

fn status(nx: &Nexus, point: &str) -> MountStatus {
    let mounts = nx.mounts().expect("they are listed");
    mounts.into_iter().find(|mount| mount.point.as_str() == point).expect("it is mounted")
}
