//! Looks for tests.

use std::time::Duration;

use nexus_actors::Env;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::look::Look;

fn entry<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn actor(path: &str, children: Value) -> Value {
    json!({
        "path": path, "id": path.rsplit('/').next(), "kind": "actor", "restart": "permanent",
        "state": "running", "generation": 1, "restarts": 0, "queued": 3, "bound": 64, "callers_waiting": 0,
        "in_flight": 0, "served": 10, "running": null, "armed": null, "last_exit": null,
        "up_ms": 3_723_000, "children": children,
    })
}

/// A kernel with a router that panicked once, one mount, some reads, and no copies.
pub(super) fn look() -> Look {
    let mut router = actor("nexus/router", json!([]));
    router["generation"] = json!(2);
    router["restarts"] = json!(1);
    router["last_exit"] =
        json!({ "kind": "panic", "told": "panicked: boom at a.rs:1", "place": "a.rs:1", "handling": null });
    let latency = json!([{ "upto": 1_000, "count": 50 }, { "upto": 10_000, "count": 100 }]);
    let read = json!({
        "op": "read", "calls": 1_000, "warm": 900, "in_flight": 2, "outcomes": { "ok": 990, "ENOENT": 10 },
        "timed": 100, "timed_ns": 250_000, "latency": latency,
    });
    let copy = json!({
        "op": "copy", "calls": 0, "warm": 0, "in_flight": 0, "outcomes": {}, "timed": 0, "timed_ns": 0,
        "latency": [],
    });
    let mount = json!({
        "zone": "root", "point": "/home", "driver": "memory", "options": {}, "read_only": false,
        "state": "serving", "generation": 0, "actor": "nexus/drivers/mount-2", "in_flight": 1,
        "calls": { "made": 7, "in_flight": 1, "failed": 2, "timed_out": 0, "panicked": 0, "refused": 0 },
        "last_failure": null,
    });
    let cache = json!({ "hits": 10, "misses": 10, "bytes": 1_000 });
    Look {
        at: Env::seeded(0).0.now(),
        actors: entry(actor("nexus", json!([router]))),
        syscalls: vec![entry(read), entry(copy)],
        mounts: vec![entry(mount)],
        committer: entry(json!({
            "batches": 5, "entries": 50, "failed": 0, "applied_ns": 5_000_000, "sizes": [], "latency": [],
        })),
        caches: entry(json!({ "metadata": cache, "content": cache })),
    }
}

/// The same, a second later.
pub(super) fn second_later(look: &Look) -> Look {
    Look { at: look.at + Duration::from_secs(1), ..look.clone() }
}
