//! OpenDAL in the place of Nexus in the benchmark `remote`, which starts this when it is built:
//!
//!     cargo build --release --manifest-path benches/opendal/Cargo.toml
//!     cargo bench --features versus --bench remote
//!
//! `large PORT` moves content up and down, and tells how long each way took and how much memory both; `list PORT` tells how long a folder of many keys takes.

#[path = "../../remote/content.rs"]
mod content;

use std::time::Instant;

use futures_util::TryStreamExt;
use opendal::Operator;
use opendal::services::S3;

use content::{AT_ONCE, KEYS, PART, in_and_out, looked_at, piece, runtime};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = runtime();
    match arguments[..] {
        ["large", port] => {
            let store = bucket(port);
            runtime.block_on(store.write("warm", "x")).expect("it serves");
            in_and_out(
                |pieces| runtime.block_on(up(&store, pieces)),
                |size| runtime.block_on(down(&store, size)),
            );
        }
        ["list", port] => {
            let store = bucket(port);
            let began = Instant::now();
            let entries = runtime.block_on(store.list("listed/")).expect("it is listed");
            let took = began.elapsed();
            let files = entries.iter().filter(|entry| entry.metadata().is_file()).count();
            assert_eq!(files as u64, KEYS, "all of them");
            println!("{}", took.as_secs_f64());
        }
        _ => panic!("large PORT, or list PORT"),
    }
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
