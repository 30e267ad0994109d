//! The cache that services are handed: nothing is lost when it is gone, slow, or gives what is old.

mod digests;
mod stores;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus::service_cache::{ANSWER_MAX, LATE_MAX};
use nexus::sys::ServiceCacheEntry;
use nexus::{Config, Nexus, VPath};

use crate::digests::{Digest, Digests};
use crate::stores::{Gone, Hung, Old};

/// What a loaded machine may add.
const SLACK: Duration = Duration::from_secs(5);

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

async fn shown(nx: &Nexus) -> ServiceCacheEntry {
    let read = nx.read("/__sys__/store/cache").await.expect("it is shown");
    serde_json::from_slice(&read).expect("it is JSON")
}

/// Everything that a kernel and a service do, with this cache.
async fn nothing_is_lost(config: Config) -> ServiceCacheEntry {
    let nx = nexus::connect(config).await.expect("it boots");
    let service = nx.register::<Digests>("digests", ()).await.expect("it starts");
    for round in 0..6u8 {
        let content = vec![round; 1_000];
        nx.write("/f", content.clone()).await.expect("it writes");
        assert_eq!(nx.read("/f").await.expect("it is there"), content);
        let want = u64::from(round) * 1_000;
        for _ in 0..2 {
            let got =
                service.call(Digest(path("/f")), SLACK).await.expect("it answers").expect("it is there");
            assert_eq!(got, want, "of what is there now");
        }
        nx.rename("/f", "/g").await.expect("it renames");
        let got = service.call(Digest(path("/g")), SLACK).await.expect("it answers").expect("it is there");
        assert_eq!(got, want);
    }
    let entry = shown(&nx).await;
    nx.shutdown().await.expect("it stops");
    entry
}

#[tokio::test]
async fn without_a_cache() {
    let entry = nothing_is_lost(Config::in_memory()).await;
    assert_eq!((entry.kind.as_str(), entry.hits, entry.down), ("null", 0, None));
}

#[tokio::test]
async fn with_a_cache_in_memory_which_helps() {
    let entry = nothing_is_lost(Config::in_memory().cache("memory")).await;
    assert_eq!((entry.kind.as_str(), entry.hits, entry.misses), ("memory", 12, 6));
    assert!(entry.took_ns > 0 && entry.errors + entry.late + entry.bypassed == 0, "{entry:?}");
}

#[tokio::test]
async fn with_a_cache_that_is_gone() {
    let entry = nothing_is_lost(Config::in_memory().cache_store(Arc::new(Gone))).await;
    assert_eq!((entry.hits, entry.misses, entry.late), (0, 0, 0));
    assert!(entry.errors > 0 && entry.down.is_some(), "{entry:?}");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test itself is outside of the kernel")]
async fn with_a_cache_that_never_answers() {
    let start = Instant::now();
    let entry = nothing_is_lost(Config::in_memory().cache_store(Arc::new(Hung))).await;
    assert!(entry.late >= u64::from(LATE_MAX) && entry.bypassed > 0, "{entry:?}");
    assert!(start.elapsed() < ANSWER_MAX * (LATE_MAX + 4) + SLACK, "some deadlines, and then nothing");
}

#[tokio::test]
async fn with_a_cache_that_gives_what_is_old() {
    let entry = nothing_is_lost(Config::in_memory().cache_store(Arc::new(Old::default()))).await;
    assert!(entry.hits > 0, "{entry:?}");
}

#[tokio::test]
async fn a_setting_that_makes_no_sense_is_refused_and_not_repeated() {
    for setting in ["nonsense", "redis://user:hush@host:port"] {
        let error =
            nexus::connect(Config::in_memory().cache(setting)).await.map(drop).expect_err("it is refused");
        let text = format!("{error:?} {error} {:?}", Config::in_memory().cache(setting));
        assert!(
            text.contains("the setting cache") && !text.contains("hush") && !text.contains("nonsense"),
            "{text}"
        );
    }
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn with_a_redis_that_is_not_there() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let config = Config::in_memory().cache(format!("redis://:hush-5521@127.0.0.1:{port}"));
    assert!(!format!("{config:?}").contains("hush"));
    let entry = nothing_is_lost(config).await;
    assert_eq!((entry.kind.as_str(), entry.hits), ("redis", 0));
    assert!(entry.errors > 0 && entry.down.is_some(), "{entry:?}");
    assert!(!format!("{entry:?}").contains("hush"));
}
