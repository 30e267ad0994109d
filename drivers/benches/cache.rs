//! Gets of a cache in Redis, pipelined, beside the client library alone: `cargo bench -p nexus-drivers --features redis --bench cache`.
//!
//! Both use one connection on which as many calls are under way at once; a round of the one follows a round of the other, so that both meet the same machine. The better
//! half of the rounds counts. Starts a `redis-server` of its own.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark prints, and takes the time"
)]

#[path = "../tests/servers/redis.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod redis_server;
#[path = "../tests/servers/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod servers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::iter;
use nexus_actors::{Env, HostConfig, Latch};
use nexus_drivers::cache::redis::{RedisCache, RedisConfig};
use nexus_kernel::hal::CacheStore;
use redis::cmd;

/// Gets in a round, how many of them are under way at once, rounds, and how large the values are.
const GETS: usize = 20_000;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 10;
const VALUE_BYTES: usize = 100;

/// The share of the client library's speed that is asked for.
const ASKED: f64 = 0.80;

/// Far more than any round takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(number: usize) -> String {
    format!("key {}", number % 1_000)
}

fn value(number: usize) -> Vec<u8> {
    let mut value = key(number).into_bytes();
    value.resize(VALUE_BYTES, b'.');
    value
}

async fn round_of_ours(cache: &RedisCache) -> Duration {
    let start = Instant::now();
    let gets = iter(0..GETS).map(|number| async move {
        let got = cache.get(&key(number)).await.expect("it serves");
        assert_eq!(got.expect("it was put"), value(number));
    });
    gets.buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    start.elapsed()
}

async fn round_of_the_library(connection: &redis::aio::MultiplexedConnection, prefix: &str) -> Duration {
    let start = Instant::now();
    let gets = iter(0..GETS).map(|number| {
        let mut connection = connection.clone();
        async move {
            let name = [prefix, &key(number)].concat();
            let got: Option<Bytes> =
                cmd("GET").arg(name).query_async(&mut connection).await.expect("it serves");
            assert_eq!(got.expect("it was put"), value(number));
        }
    });
    gets.buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    start.elapsed()
}

/// The mean of the better half.
fn better_half(mut rounds: Vec<Duration>) -> f64 {
    rounds.sort();
    rounds.truncate(rounds.len().div_ceil(2));
    rounds.iter().sum::<Duration>().as_secs_f64() / rounds.len() as f64
}

async fn measured(env: Env, port: u16) -> (f64, f64) {
    let mut config = RedisConfig::default().port(port);
    config.call_within = PATIENCE;
    let prefix = config.prefix.clone();
    let cache = RedisCache::start(&env, config);
    for number in 0..1_000 {
        cache.put(&key(number), value(number).into(), None).await.expect("it serves");
    }
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("it is a URL");
    let library = client.get_multiplexed_async_connection().await.expect("it serves");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(round_of_the_library(&library, &prefix).await);
        ours.push(round_of_ours(&cache).await);
    }
    (better_half(ours), better_half(theirs))
}

fn main() -> ExitCode {
    let server = servers::Server::start(redis_server::redis());
    let env = Env::host(HostConfig::default()).expect("threads can be started");
    let done = Latch::new();
    let (port, told, inside) = (server.port(), done.clone(), env.clone());
    // Both on the same runtime.
    env.spawn("bench", async move {
        told.set(measured(inside, port).await);
    });
    let waited = env.blocking_wait(async { env.timeout(PATIENCE * 5, done.wait()).await });
    let (ours, theirs) = waited.expect("all values were right, in time");
    let ratio = theirs / ours;
    let per_second = |seconds: f64| GETS as f64 / seconds;
    println!("gets of {VALUE_BYTES} bytes, {AT_ONCE} at once, one connection");
    println!("  the redis crate alone  {:>10.0} /s", per_second(theirs));
    println!("  nexus                  {:>10.0} /s", per_second(ours));
    let kept = ratio >= ASKED;
    println!("  ratio {ratio:.2}, asked at least {ASKED:.2}: {}", if kept { "kept" } else { "OVER" });
    env.stop();
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
