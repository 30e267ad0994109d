//! OpenDAL in the place of Nexus in the benchmarks `remote`, `local` and `cache`, which start this when it is built:
//!
//!     cargo build --release --manifest-path benches/opendal/Cargo.toml
//!     cargo bench --features versus --bench remote
//!     cargo bench --bench local
//!     cargo bench -p nexus-drivers --features redis --bench cache
//!
//! What is moved, and how that is looked at, is theirs.

mod bucket;
#[path = "../../remote/content.rs"]
mod bucket_content;
mod folder;
#[path = "../../local/content.rs"]
#[allow(dead_code, reason = "the benchmark writes what is read here")]
mod folder_content;
mod redis;
#[path = "../../../drivers/benches/cache/content.rs"]
mod redis_content;

use std::time::Duration;

use bucket_content::runtime;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["large", port] => bucket::large(port),
        ["list", port] => bucket::list(port),
        ["small", port] => bucket::small(port),
        ["folder", folder] => folder::run(folder),
        ["redis", port] => redis::run(port),
        _ => panic!("large PORT, list PORT, small PORT, folder FOLDER, or redis PORT"),
    }
}

/// Does something for each line that comes, and tells how long it took.
fn each_line(mut round: impl FnMut(&str) -> Duration) {
    for line in std::io::stdin().lines() {
        println!("{}", round(&line.expect("it is text")).as_secs_f64());
    }
}
