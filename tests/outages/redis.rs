//! A kernel whose cache is in a Redis that dies, hangs and talks nonsense, and comes back.

use std::time::Duration;

use nexus::sys::ServiceCacheEntry;
use nexus::{Config, Nexus, VPath};

use crate::digests::{Digest, Digests};
use crate::redis_server::redis;
use crate::servers::Server;
use crate::servers::proxy::{Fault, Proxy, Speaks};

/// How long a call of a service may take, whatever the cache does: its deadlines, and what a loaded machine adds.
const WITHIN: Duration = Duration::from_secs(10);

/// Rounds of everything, in each state of the server.
const ROUNDS: u8 = 4;

async fn shown(nx: &Nexus) -> ServiceCacheEntry {
    let read = nx.read("/__sys__/store/cache").await.expect("it is shown");
    serde_json::from_slice(&read).expect("it is JSON")
}

#[tokio::test]
async fn a_kernel_on_a_redis_that_dies_loses_no_function() {
    let mut server = Server::start(redis());
    let proxy = Proxy::of(server.port(), Speaks::Redis);
    let cache = format!("redis://127.0.0.1:{}", proxy.port());
    let nx = nexus::connect(Config::in_memory().cache(cache)).await.expect("it boots");
    let service = nx.register::<Digests>("digests", ()).await.expect("it starts");
    let path = |text: &str| VPath::parse(text).expect("written as one");
    let everything = async |state: &str| {
        for round in 1..=ROUNDS {
            let content = vec![round; 100 + state.len()];
            nx.write("/f", content.clone()).await.expect("it writes");
            nx.rename("/f", "/g").await.expect("it renames");
            assert_eq!(nx.read("/g").await.expect("it is there"), content, "{state}");
            let want = u64::from(round) * content.len() as u64;
            for _ in 0..2 {
                let got = service.call(Digest(path("/g")), WITHIN).await.expect("in time");
                assert_eq!(got.expect("it is there"), want, "{state}: of what is there now");
            }
            nx.unlink("/g").await.expect("it is removed");
        }
    };
    everything("while it serves").await;
    let before = shown(&nx).await;
    assert!(before.hits > 0 && before.errors == 0, "{before:?}");
    for fault in Fault::ALL {
        proxy.set(fault);
        everything(&format!("under {fault:?}")).await;
    }
    proxy.set(Fault::None);
    server.kill();
    everything("while it is dead").await;
    let during = shown(&nx).await;
    assert!(during.errors > 0 && during.down.is_some(), "{during:?}");
    server.start_again();
    server.pause();
    everything("while it stands still").await;
    server.resume();
    // It helps again by itself.
    let mut round = 0;
    while shown(&nx).await.hits <= during.hits {
        round += 1;
        everything(&format!("again {round}")).await;
        assert!(round < 2_000, "{:?}", shown(&nx).await);
    }
    nx.shutdown().await.expect("it ends");
}
