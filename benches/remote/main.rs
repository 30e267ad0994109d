//! What a mounted bucket costs beside the library that it stands on, from a server that answers 20 ms late: large content up and down, with the memory that it takes, a
//! folder of ten thousand keys, and what a cache in front of it gives.
//!
//!     cargo bench --features versus --bench remote
//!     cargo bench --features versus --bench remote -- large            # large content, and the folder
//!     cargo bench --features versus --bench remote -- cached           # the cache
//!     MIB=64 TURNS=1 cargo bench --features versus --bench remote      # a short run
//!
//! Both send parts of the same size, as many at once, to the same server, by turns, each in a process of its own: so the memory of each is its own. All that comes back is
//! looked at. OpenDAL is not beside them: it would be a dependency of every build with all features.

#![allow(missing_docs, reason = "a benchmark has no callers")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod cached;
#[path = "../storage/report.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod report;
#[path = "../../drivers/tests/servers/small.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use nexus::{Bytes, Config, MountSpec, Nexus};
use object_store::aws::AmazonS3Builder;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, WriteMultipart};

use report::{median, verdict};

const MIB: u64 = 1 << 20;

/// What goes up and down, and how often, unless something else is asked for.
const SIZE_MIB: u64 = 1_024;
const TURNS: u64 = 3;

/// The pieces in which content is made and looked at.
const PIECE: u64 = MIB;

/// What both do: the size of a part, and how many are under way at once.
const PART: u64 = 8 * MIB;
const AT_ONCE: usize = 4;

/// How much later than its work each answer of the server comes.
const LATENCY: Duration = Duration::from_millis(20);

/// The budgets: the rate beside that of the library, the memory above an idle process, and requests for a folder of so many keys.
const RATE_MIN: f64 = 0.8;
const MEMORY_MAX_MIB: f64 = 64.0;
const KEYS: u64 = 10_000;
/// A page of a thousand, a look for a folder that it leaves open, and a few.
const REQUESTS_MAX: u64 = 2 * (KEYS / 1_000) + 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => serve(),
        [who, port] => in_and_out(who, port),
        _ => {
            let mut server = Part::start(&["serve"]);
            let port = server.hear();
            if arguments != ["cached"] {
                compare(&port);
                list(&port);
            }
            if arguments != ["large"] {
                cached::compare(&port);
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

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("it is a number"))
}

/// A process of this benchmark.
struct Part(Child, BufReader<std::process::ChildStdout>);

impl Part {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self(child, output)
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("it tells text");
        assert!(!line.is_empty(), "a part of the benchmark failed");
        line.trim_end().to_owned()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn compare(port: &str) {
    let (mib, turns) = (asked("MIB", SIZE_MIB), asked("TURNS", TURNS));
    println!(
        "{mib} MiB up and down, {turns} times, parts of {} MiB, {AT_ONCE} at once, answers 20 ms late",
        PART / MIB
    );
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        for (who, told) in [("object_store", &mut theirs), ("nexus", &mut ours)] {
            let line = Part::start(&[who, port]).hear();
            let figures: Vec<f64> =
                line.split(' ').map(|word| word.parse().expect("it is a number")).collect();
            told.push([figures[0], figures[1], figures[2]]);
        }
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
    }
    let most = |all: &[[f64; 3]]| all.iter().map(|figures| figures[2]).fold(0.0, f64::max);
    println!(
        "  memory {:>7.1} MiB above idle, object_store alone {:.1} MiB; at most {MEMORY_MAX_MIB} asked: {}",
        most(&ours),
        most(&theirs),
        verdict(most(&ours) <= MEMORY_MAX_MIB)
    );
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
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("it starts")
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

    async fn down(&self, size: u64) {
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
        assert_eq!(offset, size, "all of it");
    }
}

/// Content that says where it is.
fn piece(number: u64) -> Bytes {
    let mut bytes = vec![number.to_le_bytes()[0]; usize::try_from(PIECE).expect("it is small")];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

/// Looks at what came from `offset` on, and gives where it ends.
fn looked_at(mut offset: u64, mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        let index = |at: u64| usize::try_from(at).expect("it is small");
        let within = index(offset % PIECE);
        let expected = piece(offset / PIECE);
        let (now, rest) = bytes.split_at(bytes.len().min(expected.len() - within));
        assert!(*now == expected[within..within + now.len()], "what comes down is what went up");
        (offset, bytes) = (offset + now.len() as u64, rest);
    }
    offset
}

/// Moves content, and tells how long each way took and how much memory both.
fn in_and_out(who: &str, port: &str) {
    let runtime = runtime();
    let mover = runtime.block_on(Mover::of(who, port));
    let size = asked("MIB", SIZE_MIB) * MIB;
    let idle = resident_mib("VmRSS:");
    // From here on the highest is counted.
    std::fs::write("/proc/self/clear_refs", "5").expect("the system counts the memory of a process");
    let began = Instant::now();
    runtime.block_on(mover.up(size / PIECE));
    let up = began.elapsed();
    let began = Instant::now();
    runtime.block_on(mover.down(size));
    let down = began.elapsed();
    let above = resident_mib("VmHWM:") - idle;
    println!("{} {} {above}", up.as_secs_f64(), down.as_secs_f64());
    if let Mover::Nexus(nx) = mover {
        runtime.block_on(nx.shutdown()).expect("it stops in order");
    }
}

/// A line of what Linux tells of this process's memory, in MiB.
fn resident_mib(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system tells");
    let value = status.lines().find_map(|told| told.strip_prefix(line)).expect("it tells this, too");
    let kib: f64 = value.trim().trim_end_matches("kB").trim().parse().expect("it is a number");
    kib / 1_024.0
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
