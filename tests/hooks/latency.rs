//! How long hooks take, as `/__sys__/hooks/` shows it: under a clock that goes on only when somebody waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus::dispatch::{HookId, Interceptor, OpSet, Registration};
use nexus::{Config, Env, HookContext, Nexus, Op, Verdict};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Takes that long, from call to call.
struct Takes(Env, Mutex<VecDeque<Duration>>);

impl Interceptor for Takes {
    fn ops(&self) -> OpSet {
        [Op::Stat].into_iter().collect()
    }

    fn before<'a>(&'a self, _: &'a mut HookContext) -> BoxFuture<'a, Verdict> {
        let takes = self.1.lock().pop_front().unwrap_or_default();
        Box::pin(async move {
            if !takes.is_zero() {
                self.0.sleep(takes).await;
            }
            Verdict::Continue
        })
    }
}

async fn shown(nx: &Nexus, id: HookId) -> Value {
    let shown = nx.read(format!("/__sys__/hooks/{}", id.0)).await.expect("it is shown");
    serde_json::from_slice(&shown).expect("it is JSON")
}

#[test]
fn how_long_a_hook_took_is_counted_by_call() {
    let (env, simulation) = Env::seeded(1);
    simulation.block_on(async {
        let nx = nexus::connect(Config::in_memory().env(env.clone())).await.expect("it boots");
        let times = [30, 0, 3_000, 400].map(Duration::from_micros);
        let hook = Arc::new(Takes(env.clone(), Mutex::new(times.into())));
        let id = nx.register_hook(Registration::interceptor("takes", hook)).await.unwrap();
        let mut longest = Vec::new();
        for _ in times {
            nx.stat("/").await.unwrap();
            longest.push(shown(&nx, id).await["max_ns"].clone());
        }
        assert_eq!(longest, [30_000, 30_000, 3_000_000, 3_000_000]);
        let shown = shown(&nx, id).await;
        let buckets = [(1_000, 5), (50_000, 6), (500_000, 7), (5_000_000, 8)];
        let buckets = buckets.map(|(upto, count)| json!({ "upto": upto, "count": count }));
        // What it does after each call takes no time.
        assert_eq!((&shown["calls"], &shown["total_ns"]), (&json!(8), &json!(3_430_000)));
        assert_eq!(shown["latency"], json!(buckets));
        nx.shutdown().await.expect("it ends");
    });
}
