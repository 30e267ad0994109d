//! In the place of Nexus in the benchmark `remote`.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use opendal::Operator;
use opendal::services::S3;

use crate::bucket_content::{
    AT_ONCE, KEYS, PART, SMALL, SMALL_BYTES, in_and_out, looked_at, numbered, piece,
};
use crate::{each_line, runtime};

/// Moves content up and down, and tells how long each way took and how much memory both.
pub(crate) fn large(port: &str) {
    let (runtime, store) = (runtime(), bucket(port));
    runtime.block_on(store.write("warm", "x")).expect("it serves");
    in_and_out(|pieces| runtime.block_on(up(&store, pieces)), |size| runtime.block_on(down(&store, size)));
}

/// Tells how long a folder of many keys takes.
pub(crate) fn list(port: &str) {
    let (runtime, store) = (runtime(), bucket(port));
    let began = Instant::now();
    let entries = runtime.block_on(store.list("listed/")).expect("it is listed");
    let took = began.elapsed();
    let files = entries.iter().filter(|entry| entry.metadata().is_file()).count();
    assert_eq!(files as u64, KEYS, "all of them");
    println!("{}", took.as_secs_f64());
}

/// For each line `FOLDER WRITERS`: puts small files there, by so many at once, and tells how long that took.
pub(crate) fn small(port: &str) {
    let (runtime, store) = (runtime(), bucket(port));
    runtime.block_on(store.write("warm", "x")).expect("it serves");
    each_line(|line| {
        let (folder, writers) = line.split_once(' ').expect("FOLDER WRITERS");
        let writers = writers.parse().expect("it is a number");
        let began = Instant::now();
        let writes = (0..SMALL).map(async |number| {
            let content = numbered(number, SMALL_BYTES);
            store.write(&format!("{folder}/{number}"), content).await.expect("it goes up")
        });
        let done = runtime.block_on(stream::iter(writes).buffer_unordered(writers).count());
        assert_eq!(done, SMALL);
        began.elapsed()
    });
}

fn bucket(port: &str) -> Operator {
    opendal::install_default();
    let told = S3::default()
        .bucket("bkt")
        .endpoint(&format!("http://127.0.0.1:{port}"))
        .region("us-east-1")
        .access_key_id("key")
        .secret_access_key("secret")
        .disable_config_load()
        .disable_ec2_metadata();
    Operator::new(told).expect("the options are right")
}

async fn up(store: &Operator, pieces: u64) {
    let part = usize::try_from(PART).expect("it is small");
    let mut writer = store.writer_with("large").chunk(part).concurrent(AT_ONCE).await.expect("it serves");
    for number in 0..pieces {
        writer.write(piece(number)).await.expect("it goes up");
    }
    writer.close().await.expect("it goes up");
}

async fn down(store: &Operator, size: u64) -> u64 {
    let part = usize::try_from(PART).expect("it is small");
    let reader = store.reader_with("large").chunk(part).concurrent(AT_ONCE).await.expect("it is there");
    let mut content = reader.into_bytes_stream(0..size).await.expect("it is there");
    let mut offset = 0;
    while let Some(bytes) = content.try_next().await.expect("it comes down") {
        offset = looked_at(offset, &bytes);
    }
    offset
}
