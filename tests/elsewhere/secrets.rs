//! A run of a kernel with a mount of each kind, a cache and a store of records, over wires that fail: its credentials are in nothing that is said.

#[path = "../../drivers/tests/servers/postgres.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod postgres_server;
#[path = "../../drivers/tests/servers/redis.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod redis_server;

use std::fmt::{Debug, Display, Write};
use std::sync::Arc;

use bytes::Bytes;
use nexus::blocking::{self, Nexus};
use nexus::hal::{CacheStore, DriverContext, ReadFrom, RecordError, RecordStore, Statement};
use nexus::{Config, EntryType, Env, MountSpec};
use nexus_drivers::cache::redis::{RedisCache, RedisConfig};
use nexus_drivers::records;

use self::postgres_server::{PASSWORD as POSTGRES, Postgres, url};
use self::redis_server::{PASSWORD as REDIS, redis_with_password};
use crate::Logged;
use crate::servers::azure::{ACCOUNT, CONTAINER, KEY as AZURE, azurite};
use crate::servers::proxy::{Fault, Proxy, Speaks};
use crate::servers::s3::{BUCKET, moto};
use crate::servers::{Recipe, Server};

const ACCESS: &str = "HUNTER23ACCESS";
const SECRET: &str = "hunter23-s3-secret";
const TOKEN: &str = "hunter23-s3-token";
const GOOGLE: &str = "hunter23-google-token";
const WEB: &str = "hunter23-web-token";
const SIGNATURE: &str = "hunter23-signature";
const WRONG: &str = "hunter23-wrong-password";

/// All that must be seen nowhere. All the world knows the key of Azure's emulator, but not from here.
const SECRETS: [&str; 10] = [ACCESS, SECRET, TOKEN, GOOGLE, WEB, SIGNATURE, WRONG, AZURE, REDIS, POSTGRES];

/// Everything that anybody is told.
#[derive(Default)]
struct Said(String);

impl Said {
    /// An answer, as a program and as its user sees it.
    fn hear<T: Debug, E: Debug + Display>(&mut self, answer: Result<T, E>) {
        // A string takes whatever is written to it.
        let _ = match answer {
            Ok(answer) => writeln!(self.0, "{answer:?}"),
            Err(error) => writeln!(self.0, "{error} {error:?}"),
        };
    }

    /// All that the kernel shows of itself.
    fn look(&mut self, nx: &Nexus) {
        self.hear(nx.mounts());
        self.below(nx, "/__sys__");
    }

    fn below(&mut self, nx: &Nexus, folder: &str) {
        for entry in nx.readdir(folder).expect("it is listed") {
            let path = format!("{folder}/{}", entry.name());
            if entry.entry_type == EntryType::Dir {
                self.below(nx, &path);
            } else if let Ok(read) = nx.read(&path) {
                self.0.push_str(&String::from_utf8_lossy(&read));
            }
        }
    }
}

/// No secret is in it, neither as it is nor as URLs write it.
fn check(what: &str, said: &str) {
    for secret in SECRETS {
        let escaped = secret.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        for form in [secret, &escaped] {
            if let Some(place) = said.find(form) {
                let before: Vec<char> = said[..place].chars().rev().take(300).collect();
                panic!("a credential is in {what}, after: {}", before.iter().rev().collect::<String>());
            }
        }
    }
}

fn web() -> Server {
    let folder = tempfile::tempdir().expect("there is room");
    std::fs::write(folder.path().join("f"), "1").expect("there is room");
    let recipe = Recipe {
        program: "python3",
        install: "apt-get install python3",
        ready: "Serving HTTP",
        arguments: |_, port| {
            ["-u", "-m", "http.server", "--bind", "127.0.0.1", &port.to_string()].map(String::from).to_vec()
        },
    };
    Server::start_in(recipe, folder)
}

/// A mount of each kind, over these wires. Google's server is a stub that speaks S3.
fn mounts([s3, azure, gcs, web]: [u16; 4]) -> [(&'static str, MountSpec); 4] {
    let at = |port: u16, more: &str| format!("http://127.0.0.1:{port}{more}");
    let any = |driver: &str| {
        let spec = MountSpec::new(driver).option("allow_http", "true").option("timeout_ms", "1500");
        spec.option("retries", "0").option("open_ms", "3000").option("deadline_ms", "1500")
    };
    let s3 = any("s3").option("bucket", BUCKET).option("endpoint", at(s3, "")).option("prefix", "s3");
    let azure = any("azure")
        .option("container", CONTAINER)
        .option("account", ACCOUNT)
        .option("endpoint", at(azure, &format!("/{ACCOUNT}")));
    let gcs = any("gcs").option("bucket", BUCKET).option("endpoint", at(gcs, "")).option("prefix", "google");
    [
        ("/s3", s3.option("access_key", ACCESS).option("secret_key", SECRET).option("session_token", TOKEN)),
        ("/azure", azure.option("access_key", AZURE)),
        ("/gcs", gcs.option("bearer_token", GOOGLE)),
        ("/web", any("http").option("url", at(web, "")).option("bearer_token", WEB)),
    ]
}

/// Everything that is done with a mount.
fn work(nx: &Nexus, point: &str, said: &mut Said) {
    said.hear(nx.write(format!("{point}/f"), "content"));
    said.hear(nx.read(format!("{point}/f")));
    said.hear(nx.readdir(point));
    said.hear(nx.copy(format!("{point}/f"), format!("{point}/g")));
    said.hear(nx.rename(format!("{point}/f"), format!("{point}/h")));
    said.hear(nx.unlink(format!("{point}/g")));
    said.hear(nx.stat(format!("{point}/none")));
}

async fn rows(store: &dyn RecordStore) -> Result<i64, RecordError> {
    let mut session = store.write().await?;
    session.execute(&"INSERT INTO rows (number) VALUES (1)".into()).await?;
    session.commit().await?;
    let count: Statement = "SELECT count(*) FROM rows".into();
    store.read(ReadFrom::Latest).await?.query(&count).await?[0].get(0)
}

async fn keep(cache: &RedisCache) -> Result<(), nexus::hal::StoreError> {
    cache.put("key", Bytes::from_static(b"value"), None).await?;
    cache.get("key").await?;
    cache.publish("topic", Bytes::from_static(b"message")).await?;
    cache.subscribe("topic", 1).await.map(drop)
}

fn records_at(env: &Env, port: u16, password: &str) -> Arc<dyn RecordStore> {
    let context = DriverContext::new(env.clone(), env.pool("records", 1, 8), None);
    let address = url(port, "postgres").replace(POSTGRES, password);
    // Who waits for a server that is away waits no longer than a test may.
    let times = ["wait_ms", "connect_ms", "statement_ms"].map(|key| (key.to_owned(), "500".to_owned()));
    let options = times.into_iter().chain([("url".to_owned(), address)]).collect();
    records::open("postgres", &options, &context).expect("the address is right")
}

fn cache_at(env: &Env, port: u16, password: &str) -> RedisCache {
    let url = format!("redis://:{password}@127.0.0.1:{port}");
    RedisCache::start(env, RedisConfig::from_url(&url).expect("it is a URL"))
}

#[test]
fn a_run_with_a_mount_of_each_kind_says_no_credential() {
    let logged = Logged::begin();
    let (s3, azure, web) = (moto(), azurite(), web());
    let (redis, postgres) = (Server::start(redis_with_password()), Postgres::start());
    let of_mounts = [s3.port(), azure.port(), s3.port(), web.port()].map(Proxy::start);
    let of_cache = Proxy::of(redis.port(), Speaks::Redis);
    let of_records = Proxy::of(postgres.port(), Speaks::Postgres);
    let wires: Vec<&Proxy> = of_mounts.iter().chain([&of_cache, &of_records]).collect();
    let [one, two, three, four] = &of_mounts;
    let specs = mounts([one, two, three, four].map(Proxy::port));
    let (data, mut said) = (tempfile::tempdir().expect("there is room"), Said::default());

    let settings = || {
        let cache = format!("redis://:{REDIS}@127.0.0.1:{}", of_cache.port());
        Config::new(data.path()).cache(cache)
    };
    said.0 += &format!("{:?} {specs:?}", settings());
    let nx = blocking::connect(settings()).expect("it boots");
    for (point, spec) in &specs {
        nx.mount(*point, spec.clone()).expect("it mounts");
    }
    let env = nx.env().clone();
    let (records, cache) =
        (records_at(&env, of_records.port(), POSTGRES), cache_at(&env, of_cache.port(), REDIS));
    env.blocking_wait(async {
        let mut session = records.write().await?;
        session.execute(&"CREATE TABLE rows (number BIGINT NOT NULL)".into()).await?;
        session.commit().await
    })
    .expect("the server is there");
    env.blocking_wait(keep(&cache)).expect("the server is there");
    for fault in [Fault::None, Fault::Cut, Fault::Garbage, Fault::Unavailable, Fault::Half] {
        for wire in &wires {
            wire.set(fault);
        }
        for (point, _) in &specs {
            work(&nx, point, &mut said);
        }
        said.hear(env.blocking_wait(rows(&*records)));
        said.hear(env.blocking_wait(keep(&cache)));
        said.0 += &format!("{records:?} {cache:?} {:?}", cache.state());
        said.look(&nx);
    }
    for wire in &wires {
        wire.set(Fault::None);
    }
    // What makes no sense, and what is wrong.
    for (_, spec) in &specs {
        for (key, text) in [("prefix", "/"), ("nonsense", "1"), ("deadline_ms", "soon"), ("concurrency", "0")]
        {
            said.hear(nx.mount("/m", spec.clone().option(key, text)));
        }
    }
    let [_, (_, azure_spec), ..] = &specs;
    let mut signed = azure_spec.clone();
    signed.options.remove("access_key");
    said.hear(nx.mount("/m", signed.option("sas_token", format!("sv=2021-08-06&sig={SIGNATURE}"))));
    let (wrong_records, wrong_cache) =
        (records_at(&env, postgres.port(), WRONG), cache_at(&env, redis.port(), WRONG));
    let refused = env.blocking_wait(rows(&*wrong_records));
    assert!(refused.is_err(), "the password is wrong");
    said.hear(refused);
    said.hear(env.blocking_wait(keep(&wrong_cache)));
    said.0 += &format!("{wrong_records:?} {wrong_cache:?} {:?}", wrong_cache.state());
    said.look(&nx);
    drop((records, cache, wrong_records, wrong_cache));
    nx.shutdown().expect("it ends");

    // And a boot at which nobody can be reached.
    for wire in &wires {
        wire.set(Fault::Cut);
    }
    let nx = blocking::connect(settings()).expect("it boots");
    for (point, _) in &specs {
        work(&nx, point, &mut said);
    }
    said.look(&nx);
    nx.shutdown().expect("it ends");

    let log = logged.said();
    for words in [BUCKET, CONTAINER, "nexus_mount_errors_total", "postgres", "(hidden)"] {
        assert!(
            log.contains(words) || said.0.contains(words),
            "nobody says {words}: little can have been looked at"
        );
    }
    // What libraries say is among it: through `tracing`, and through `log`.
    for library in ["hyper_util", "tokio_postgres"] {
        assert!(log.contains(library), "{library} says nothing: little can have been looked at");
    }
    check("the log", &log);
    check("an answer or a listing", &said.0);
}
