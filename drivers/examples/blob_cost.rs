//! What a blob costs on this disk, beside a raw append with one flush: `cargo run --release -p nexus-drivers --example blob_cost`.
//!
//! Blobs of 32 KiB, alone and 64 at once: packed, a file each, and as one raw append; and how long opening takes after the store was closed. The folder to write in can be given as the first argument, and the number of blobs that are there before as the second.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures, and tells")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::try_join_all;
use nexus_actors::{Env, HostConfig, Pool, block_on};
use nexus_drivers::local::LocalTransport;
use nexus_drivers::packs::Packs;
use nexus_kernel::hal::Transport;
use nexus_messages::syscall::ByteRange;

const AT_ONCE: [usize; 2] = [1, 64];
const BLOB_BYTES: usize = 32 << 10;
const ROUNDS: usize = 60;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("nexus-blob-cost");
    let before = arguments.next().map_or(Ok(10_000), |blobs| blobs.parse())?;
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let env = Env::host(HostConfig::default())?;
    let pool = env.pool("blobs", 4, 1_024);
    println!(
        "in {}, blobs of {BLOB_BYTES} bytes, {before} there before; medians of {ROUNDS}",
        folder.display()
    );
    raw(&folder)?;
    let files = block_on(LocalTransport::open(folder.join("files"), pool.clone()))?;
    measure("a file each", &files)?;
    let packs = open(&folder, &pool)?;
    let many: Vec<_> = (0..before).map(|n| (key("before", n), [Bytes::from(vec![1; 64])])).collect();
    for some in many.chunks(512) {
        block_on(try_join_all(some.iter().map(|(key, data)| packs.put(key, data))))?;
    }
    measure("packed", &packs)?;
    let (mut reads, mut number) = (Vec::new(), 0_usize);
    for _ in 0..ROUNDS * 10 {
        number = (number * 31 + 7) % (ROUNDS * 64);
        let begun = Instant::now();
        block_on(packs.get(&key("at-once-64", number), ByteRange::ALL))?;
        reads.push(begun.elapsed().as_micros());
    }
    println!("packed, read of one: {} us", median(&mut reads));
    drop(packs);
    let begun = Instant::now();
    let packs = open(&folder, &pool)?;
    println!("packed, opening: {} us", begun.elapsed().as_micros());
    let freed = block_on(packs.compact())?;
    println!("packed, bytes that compacting found dead: {freed}");
    drop(packs);
    fs::remove_dir_all(&folder)?;
    env.stop();
    Ok(())
}

fn open(folder: &Path, pool: &Pool) -> Outcome<Packs> {
    Ok(block_on(Packs::open(folder.join("packed"), pool.clone(), 1))?)
}

fn key(kind: &str, number: usize) -> String {
    let hash = blake3::hash(format!("{kind} {number}").as_bytes()).to_hex();
    match kind {
        "at-once-64" => format!("at-once-64/{number:08}"),
        _ => format!("cas/{}/{}/{hash}", &hash[..2], &hash[2..4]),
    }
}

fn raw(folder: &Path) -> Outcome<()> {
    let mut file = File::create(folder.join("raw"))?;
    for count in AT_ONCE {
        let data = vec![7; count * BLOB_BYTES];
        let appended = timed(|| {
            file.write_all(&data)?;
            Ok(file.sync_data()?)
        })?;
        let end = file.metadata()?.len();
        file.write_all(&vec![0; data.len()])?;
        file.sync_all()?;
        let written_over = timed(|| {
            file.write_all_at(&data, end)?;
            Ok(file.sync_data()?)
        })?;
        println!(
            "raw, one flush of {count}: {appended} us; where there were zeros before: {written_over} us"
        );
    }
    Ok(())
}

fn measure(name: &str, store: &dyn Transport) -> Outcome<()> {
    for count in AT_ONCE {
        let mut round = 0;
        let took = timed(|| {
            let numbers = round * count..(round + 1) * count;
            round += 1;
            let blobs: Vec<_> = numbers
                .map(|n| {
                    (key(&format!("at-once-{count}"), n), [Bytes::from(vec![n.to_le_bytes()[0]; BLOB_BYTES])])
                })
                .collect();
            block_on(try_join_all(blobs.iter().map(|(key, data)| store.put(key, data))))?;
            Ok(())
        })?;
        println!("{name}, {count} at once: {took} us");
    }
    Ok(())
}

fn timed(mut job: impl FnMut() -> Outcome<()>) -> Outcome<u128> {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        job()?;
        took.push(begun.elapsed().as_micros());
    }
    Ok(median(&mut took))
}

fn median(numbers: &mut [u128]) -> u128 {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}
