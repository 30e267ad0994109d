//! What a cache in front of a bucket gives: reads again of what was read, beside reads of the local disk, and small files that come to the bucket later, beside puts that wait.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use nexus::{Bytes, Config, MountSpec};
use object_store::{ObjectStore, ObjectStoreExt};

use super::beside::{NOT_BUILT, Part, opendal};
use super::content::{SMALL, SMALL_BYTES, asked, numbered};
use super::report::{beside, compare, median, tell, verdict};
use super::{library, requests, runtime, spec};

/// Of files that are read again: how large, and how many.
const READ: [(usize, usize); 4] = [(4 << 10, 200), (64 << 10, 100), (1 << 20, 32), (16 << 20, 4)];
const ROUNDS: usize = 21;

/// How many agents write small files at once.
const WRITERS: [usize; 2] = [1, 16];

/// How often they are.
const TURNS: u64 = 3;

/// How many are looked at at once afterwards.
const LOOKS: usize = 64;

/// The budgets: a read beside the local one, and what is written back beside puts one after the other.
const READ_TIMES_MAX: f64 = 2.0;
const SHARE_MAX: f64 = 0.05;

/// All is kept by far before so many rounds, though some of it may be left out in each.
const FILLING_MAX: usize = 100;

pub(super) fn run(port: &str) {
    let folder =
        tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the folder can be written");
    let runtime = runtime();
    runtime.block_on(read_again(port, folder.path()));
    runtime.block_on(written_back(port, folder.path()));
}

/// A mount whose cache lies in the data folder.
fn caching(port: &str) -> MountSpec {
    spec(port).option("cache_bytes", (1_u64 << 30).to_string()).option("cache_age_ms", "3600000")
}

async fn read_again(port: &str, folder: &Path) {
    let (plain, data) = (folder.join("plain"), folder.join("read"));
    std::fs::create_dir(&plain).expect("the folder can be written");
    let store = library(port).await;
    let nx = nexus::connect(Config::new(&data)).await.expect("it boots");
    nx.mount("/s3", caching(port)).await.expect("it is mounted");
    println!("files of a bucket read again, the median of {ROUNDS} rounds, each read");
    for (size, count) in READ {
        let name = |number: usize| format!("read-{size}-{number}");
        for number in 0..count {
            let content = numbered(number, size);
            std::fs::write(plain.join(name(number)), &content).expect("it is written");
            store.put(&name(number).into(), content.into()).await.expect("it goes up");
        }
        let cached = async |number| nx.read(format!("/s3/{}", name(number))).await.expect("it is there");
        let local =
            async |number| Bytes::from(tokio::fs::read(plain.join(name(number))).await.expect("it is there"));
        let mut filling = 0;
        loop {
            let before = requests(port);
            for number in 0..count {
                assert!(cached(number).await == numbered(number, size), "what was written");
            }
            if requests(port) == before {
                break;
            }
            filling += 1;
            assert!(filling < FILLING_MAX, "all of it is kept");
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let before = requests(port);
        for _ in 0..ROUNDS {
            theirs.push(round(count, size, &local).await);
            ours.push(round(count, size, &cached).await);
        }
        assert_eq!(requests(port), before, "none of it came from the bucket");
        beside(&format!("{} KiB", size >> 10), median(ours), "tokio::fs", median(theirs), READ_TIMES_MAX);
    }
    nx.shutdown().await.expect("it stops in order");
}

/// The time of one read.
async fn round(count: usize, size: usize, read: &impl AsyncFn(usize) -> Bytes) -> Duration {
    let began = Instant::now();
    for number in 0..count {
        let bytes = read(number).await;
        assert!(bytes.len() == size && bytes[..8] == number.to_le_bytes(), "what was written");
    }
    began.elapsed() / u32::try_from(count).expect("they are few")
}

async fn written_back(port: &str, folder: &Path) {
    let turns = asked("TURNS", TURNS);
    println!(
        "{SMALL} files of {} KiB, {turns} times; until all are in the bucket, where another tool looks at each",
        SMALL_BYTES >> 10
    );
    let store = library(port).await;
    let nx = nexus::connect(Config::new(folder.join("written"))).await.expect("it boots");
    let mut put = Vec::new();
    let mut by_writers = WRITERS.map(|_| (Vec::new(), Vec::new(), Vec::new()));
    let mut opendal = opendal().map(|command| Part::of(command, &["small", port]));
    for turn in 0..turns {
        let began = Instant::now();
        for number in 0..SMALL {
            let content = numbered(number, SMALL_BYTES);
            store.put(&format!("put-{turn}/{number}").into(), content.into()).await.expect("it goes up");
        }
        put.push(began.elapsed());
        for (writers, (acknowledged, written, others)) in WRITERS.iter().zip(&mut by_writers) {
            nx.mount("/s3", caching(port).option("write_back", "yes")).await.expect("it is mounted");
            let began = Instant::now();
            let writes = (0..SMALL).map(|number| {
                let content = numbered(number, SMALL_BYTES);
                nx.write(format!("/s3/{}/{number}", written_to(turn, *writers)), content)
            });
            let writes = stream::iter(writes).buffer_unordered(*writers);
            let done: Vec<_> = writes.try_collect().await.expect("they are written");
            assert_eq!(done.len(), SMALL);
            acknowledged.push(began.elapsed());
            // It waits until all of them are there.
            nx.unmount("/s3").await.expect("it is unmounted");
            written.push(began.elapsed());
            all_there(&store, &written_to(turn, *writers)).await;
            if let Some(part) = &mut opendal {
                let folder = format!("opendal-{turn}-by-{writers}");
                others.push(part.round(&format!("{folder} {writers}")));
                all_there(&store, &folder).await;
            }
        }
    }
    let put = median(put);
    tell("put, each when the one before it is there", put);
    for (writers, (acknowledged, written, others)) in WRITERS.iter().zip(by_writers) {
        let written = median(written);
        let share = written.as_secs_f64() / put.as_secs_f64();
        tell(&format!("acknowledged to {writers} at once"), median(acknowledged));
        tell("written back", written);
        println!(
            "  {:.1} % of the time of the puts; at most {} % asked: {}",
            share * 100.0,
            SHARE_MAX * 100.0,
            verdict(share <= SHARE_MAX)
        );
        if others.is_empty() {
            println!("  {NOT_BUILT}");
        } else {
            compare(&format!("OpenDAL, put by {writers} at once"), median(others), "the puts", put);
        }
    }
    nx.shutdown().await.expect("it stops in order");
}

fn written_to(turn: u64, writers: usize) -> String {
    format!("written-{turn}-by-{writers}")
}

/// Another tool finds each of them in the bucket.
async fn all_there(store: &Arc<dyn ObjectStore>, folder: &str) {
    let looks = (0..SMALL).map(async |number| {
        let key = format!("{folder}/{number}").into();
        let found = store.get(&key).await.expect("it is there").bytes().await.expect("all of it comes");
        assert!(found == numbered(number, SMALL_BYTES), "what was written");
    });
    stream::iter(looks).buffer_unordered(LOOKS).collect::<Vec<()>>().await;
}
