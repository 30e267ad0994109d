//! Gets of a cache in Redis, pipelined, beside the client library alone: `cargo bench -p nexus-drivers --features redis --bench cache`.
//!
//! Both use one connection on which as many calls are under way at once; a round of the one follows a round of the other, so that both meet the same machine. The better
//! half of the rounds counts. Starts a `redis-server` of its own. OpenDAL does the same beside them when it is built, with a connection for each get under way, which it has no other way to do:
//!
//!     cargo build --release --manifest-path benches/opendal/Cargo.toml

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark prints, and takes the time"
)]

#[path = "../../../benches/beside/mod.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod beside;
mod content;
#[path = "../../tests/servers/redis.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod redis_server;
#[path = "../../tests/servers/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod servers;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, HostConfig, Latch};
use nexus_drivers::cache::redis::{RedisCache, RedisConfig};
use nexus_kernel::hal::CacheStore;
use redis::cmd;

use beside::{NOT_BUILT, Part, opendal};
use content::{AT_ONCE, GETS, VALUE_BYTES, VALUES, key, round, value};

/// Rounds of each.
const ROUNDS: usize = 10;

/// The share of the client library's speed that is asked for.
const ASKED: f64 = 0.80;

/// Far more than any round takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The mean of the better half.
fn better_half(mut rounds: Vec<Duration>) -> f64 {
    rounds.sort();
    rounds.truncate(rounds.len().div_ceil(2));
    rounds.iter().sum::<Duration>().as_secs_f64() / rounds.len() as f64
}

/// How long rounds take: ours, those of the client library, and those of OpenDAL where it is built.
#[derive(Clone, Copy)]
struct Measured {
    ours: f64,
    library: f64,
    opendal: Option<f64>,
}

async fn measured(env: Env, port: u16, mut opendal: Option<Part>) -> Measured {
    let mut config = RedisConfig::default().port(port);
    config.call_within = PATIENCE;
    let prefix = config.prefix.clone();
    let cache = RedisCache::start(&env, config);
    for number in 0..VALUES {
        cache.put(&key(number), value(number).into(), None).await.expect("it serves");
    }
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("it is a URL");
    let library = client.get_multiplexed_async_connection().await.expect("it serves");
    let (mut ours, mut theirs, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let get = |number| {
            let (mut connection, name) = (library.clone(), [&prefix, &*key(number)].concat());
            async move {
                let got: Option<Bytes> =
                    cmd("GET").arg(name).query_async(&mut connection).await.expect("it serves");
                got.expect("it was put")
            }
        };
        theirs.push(round(get).await);
        let get = |number| {
            let cache = &cache;
            async move { cache.get(&key(number)).await.expect("it serves").expect("it was put") }
        };
        ours.push(round(get).await);
        others.extend(opendal.as_mut().map(|part| part.round(&prefix)));
    }
    let opendal = (!others.is_empty()).then(|| better_half(others));
    Measured { ours: better_half(ours), library: better_half(theirs), opendal }
}

fn main() -> ExitCode {
    let server = servers::Server::start(redis_server::redis());
    let env = Env::host(HostConfig::default()).expect("threads can be started");
    let done = Latch::new();
    let (port, told, inside) = (server.port(), done.clone(), env.clone());
    let part = opendal().map(|command| Part::of(command, &["redis", &port.to_string()]));
    // Both on the same runtime.
    env.spawn("bench", async move {
        told.set(measured(inside, port, part).await);
    });
    let waited = env.blocking_wait(async { env.timeout(PATIENCE * 5, done.wait()).await });
    let Measured { ours, library, opendal } = waited.expect("all values were right, in time");
    let ratio = library / ours;
    let per_second = |seconds: f64| GETS as f64 / seconds;
    println!("gets of {VALUE_BYTES} bytes, {AT_ONCE} at once, one connection");
    println!("  the redis crate alone  {:>10.0} /s", per_second(library));
    println!("  nexus                  {:>10.0} /s", per_second(ours));
    match opendal {
        Some(theirs) => {
            let ratio = library / theirs;
            println!(
                "  OpenDAL                {:>10.0} /s, {ratio:.2} of the redis crate",
                per_second(theirs)
            );
        }
        None => println!("  {NOT_BUILT}"),
    }
    let kept = ratio >= ASKED;
    println!("  ratio {ratio:.2}, asked at least {ASKED:.2}: {}", if kept { "kept" } else { "OVER" });
    env.stop();
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
