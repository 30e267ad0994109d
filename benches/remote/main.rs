//! What a mounted bucket costs beside the library that it stands on, from a server that answers 20 ms late: large content up and down, with the memory that it takes, a
//! folder of ten thousand keys, and what a cache in front of it gives.
//!
//!     cargo bench --features versus --bench remote
//!     cargo bench --features versus --bench remote -- large            # large content, and the folder
//!     cargo bench --features versus --bench remote -- cached           # the cache
//!     MIB=64 TURNS=1 cargo bench --features versus --bench remote      # a short run
//!
//! All send parts of the same size, as many at once, to the same server, by turns, each in a process of its own: so the memory of each is its own. All that comes back is
//! looked at. OpenDAL does the same beside them when it is built, by itself, so that nobody who builds Nexus builds it:
//!
//!     cargo build --release --manifest-path benches/opendal/Cargo.toml

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../beside/mod.rs"]
mod beside;
mod cached;
mod content;
#[path = "../storage/report.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod report;
#[path = "../../drivers/tests/servers/small.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use nexus::{Config, MountSpec, Nexus};
use object_store::aws::AmazonS3Builder;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, WriteMultipart};

use beside::{NOT_BUILT, Part, opendal};
use content::{AT_ONCE, KEYS, MIB, PART, SIZE_MIB, asked, in_and_out, looked_at, piece, runtime};
use report::{median, verdict};

/// How often content goes up and down, unless something else is asked for.
const TURNS: u64 = 3;

/// How much later than its work each answer of the server comes.
const LATENCY: Duration = Duration::from_millis(20);

/// The budgets: the rate beside that of the library, the memory above an idle process, and requests for a folder of so many keys.
const RATE_MIN: f64 = 0.8;
const MEMORY_MAX_MIB: f64 = 64.0;
/// A page of a thousand, a look for a folder that it leaves open, and a few.
const REQUESTS_MAX: u64 = 2 * (KEYS / 1_000) + 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => serve(),
        [who, port] => move_content(who, port),
        _ => {
            let mut server = Part::start(&["serve"]);
            let port = server.hear();
            if arguments != ["cached"] {
                compare(&port);
                list(&port);
            }
            if arguments != ["large"] {
                cached::run(&port);
            }
        }
    }
}

/// In a process of its own, until the parent is gone or closes what it speaks through.
fn serve() {
    let server = server::Small::start(LATENCY);
    println!("{}", server.port());
    let _ = std::io::stdin().read(&mut [0]);
}

/// How long up and down took, and the memory.
fn figures(mut part: Part) -> [f64; 3] {
    let figures: Vec<f64> =
        part.hear().split(' ').map(|word| word.parse().expect("it is a number")).collect();
    figures.try_into().expect("they are three")
}

fn compare(port: &str) {
    let (mib, turns) = (asked("MIB", SIZE_MIB), asked("TURNS", TURNS));
    println!(
        "{mib} MiB up and down, {turns} times, parts of {} MiB, {AT_ONCE} at once, answers 20 ms late",
        PART / MIB
    );
    let (mut theirs, mut ours, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        theirs.push(figures(Part::start(&["object_store", port])));
        ours.push(figures(Part::start(&["nexus", port])));
        others.extend(opendal().map(|command| figures(Part::of(command, &["large", port]))));
    }
    let median_of = |all: &[[f64; 3]], which: usize| {
        median(all.iter().map(|figures| Duration::from_secs_f64(figures[which])).collect()).as_secs_f64()
    };
    for (what, which) in [("up", 0), ("down", 1)] {
        let (our, their) = (median_of(&ours, which), median_of(&theirs, which));
        println!(
            "  {what:<6} {:>7.0} MiB/s   {:.2} of object_store alone, {:.0} MiB/s; at least {RATE_MIN} asked: {}",
            mib as f64 / our,
            their / our,
            mib as f64 / their,
            verdict(their / our >= RATE_MIN)
        );
        if !others.is_empty() {
            let other = median_of(&others, which);
            println!(
                "         {:>7.0} MiB/s   OpenDAL, {:.2} of object_store alone",
                mib as f64 / other,
                their / other
            );
        }
    }
    let most = |all: &[[f64; 3]]| all.iter().map(|figures| figures[2]).fold(0.0, f64::max);
    println!(
        "  memory {:>7.1} MiB above idle, object_store alone {:.1} MiB; at most {MEMORY_MAX_MIB} asked: {}",
        most(&ours),
        most(&theirs),
        verdict(most(&ours) <= MEMORY_MAX_MIB)
    );
    if others.is_empty() {
        println!("  {NOT_BUILT}");
    } else {
        println!("         {:>7.1} MiB   OpenDAL", most(&others));
    }
}

/// Asks the server itself.
fn ask(port: &str, line: &str) -> String {
    let mut connection = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it serves");
    write!(connection, "{line} HTTP/1.1\r\nContent-Length: 0\r\n\r\n").expect("it listens");
    connection.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers");
    answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

fn requests(port: &str) -> u64 {
    ask(port, &format!("GET {}", server::COUNT)).parse().expect("it is a number")
}

fn list(port: &str) {
    ask(port, &format!("POST /bkt?fill={KEYS}"));
    let runtime = runtime();
    let nx = runtime.block_on(mounted(port));
    let (before, began) = (requests(port), Instant::now());
    let entries = runtime.block_on(nx.readdir("/s3/listed")).expect("it is listed");
    let (took, asked) = (began.elapsed(), requests(port) - before);
    assert_eq!(entries.len() as u64, KEYS, "all of them");
    println!(
        "  {KEYS} keys listed in {took:.1?} by {asked} requests; at most {REQUESTS_MAX} asked: {}",
        verdict(asked <= REQUESTS_MAX)
    );
    runtime.block_on(nx.shutdown()).expect("it stops in order");
    if let Some(command) = opendal() {
        let before = requests(port);
        let took = Part::of(command, &["list", port]).hear_time();
        println!("    OpenDAL in {took:.1?} by {} requests", requests(port) - before);
    }
}

/// Who moves content up and down.
enum Mover {
    Nexus(Nexus),
    Library(Arc<dyn ObjectStore>),
}

impl Mover {
    async fn of(who: &str, port: &str) -> Self {
        if who == "nexus" {
            return Self::Nexus(mounted(port).await);
        }
        Self::Library(library(port).await)
    }

    async fn up(&self, pieces: u64) {
        match self {
            Self::Nexus(nx) => {
                let pieces = stream::iter((0..pieces).map(|number| Ok(piece(number))));
                nx.write_stream("/s3/large", pieces).await.expect("it goes up");
            }
            Self::Library(store) => {
                let upload = store.put_multipart(&"large".into()).await.expect("it serves");
                let part = usize::try_from(PART).expect("it is small");
                let mut write = WriteMultipart::new_with_chunk_size(upload, part);
                for number in 0..pieces {
                    write.wait_for_capacity(AT_ONCE).await.expect("it goes up");
                    write.put(piece(number));
                }
                write.finish().await.expect("it goes up");
            }
        }
    }

    async fn down(&self, size: u64) -> u64 {
        let mut offset = 0;
        match self {
            Self::Nexus(nx) => {
                let mut content = nx.stream("/s3/large").await.expect("it is there");
                while let Some(bytes) = content.next().await {
                    offset = looked_at(offset, &bytes.expect("it comes down"));
                }
            }
            Self::Library(store) => {
                let ranges =
                    (0..size.div_ceil(PART)).map(|number| number * PART..size.min((number + 1) * PART));
                let key = "large".into();
                let parts = ranges.map(|range| store.get_range(&key, range));
                let mut parts = std::pin::pin!(stream::iter(parts).buffered(AT_ONCE));
                while let Some(bytes) = parts.try_next().await.expect("it comes down") {
                    offset = looked_at(offset, &bytes);
                }
            }
        }
        offset
    }
}

/// Moves content, and tells what that took.
fn move_content(who: &str, port: &str) {
    let runtime = runtime();
    let mover = runtime.block_on(Mover::of(who, port));
    in_and_out(|pieces| runtime.block_on(mover.up(pieces)), |size| runtime.block_on(mover.down(size)));
    if let Mover::Nexus(nx) = mover {
        runtime.block_on(nx.shutdown()).expect("it stops in order");
    }
}

/// The library, with a connection.
async fn library(port: &str) -> Arc<dyn ObjectStore> {
    // Who was first has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = AmazonS3Builder::new()
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout_disabled())
        .with_bucket_name("bkt")
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .build();
    let store = Arc::new(store.expect("the options are right"));
    store.put(&"warm".into(), "x".into()).await.expect("it serves");
    store
}

async fn mounted(port: &str) -> Nexus {
    let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
    nx.mount("/s3", spec(port)).await.expect("it is mounted");
    nx
}

fn spec(port: &str) -> MountSpec {
    MountSpec::new("s3")
        .option("bucket", "bkt")
        .option("endpoint", format!("http://127.0.0.1:{port}"))
        .option("allow_http", "true")
        .option("region", "us-east-1")
        .option("access_key", "key")
        .option("secret_key", "secret")
        .option("part_bytes", PART.to_string())
}
