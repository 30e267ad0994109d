//! What calls cost among more and more files; how long opening takes after a `kill -9`; and what it costs to rename a large directory.

use std::path::Path;
use std::time::{Duration, Instant};

use nexus::{Bytes, Config, Nexus, SysRead, SysReaddir, SysStat, SysTx, SysWrite, VPath};

use crate::child::{Working, told};
use crate::report::{beside, median, tell, within};
use crate::{boot, runtime};

/// Files below this prefix are called; so many are in one directory.
const HOT: u64 = 10_000;
const IN_HOT: u64 = 10;

/// The others, so many in one directory.
const IN_COLD: u64 = 1_000;

/// Sizes that are compared with the first. A file is four rows: its name, what it is, what it holds, and that it was not there before.
const STEPS: [u64; 4] = [10_000, 1_000_000, 2_500_000, 10_000_000];

/// Files that one transaction makes.
const IN_TX: u64 = 1_000;

/// Calls that are timed together, and how many such runs there are. Durable writes are timed one by one.
const CALLS: u64 = 100;
const RUNS: u64 = 100;
const WRITES: u64 = 500;

/// Files in the directory that is renamed, and how often it is.
const WIDE: u64 = 100_000;
const RENAMES: usize = 21;

/// The budgets.
const GROWTH_MAX: f64 = 2.0;
const OPEN_MAX: Duration = Duration::from_secs(1);
const RENAME_MAX: Duration = Duration::from_millis(10);

pub(crate) fn run(folder: &Path, files: u64) {
    let data = folder.join("nexus");
    let mut there = 0;
    let mut first: [Option<Costs>; 2] = [None, None];
    for step in STEPS.into_iter().filter(|step| *step <= files.max(STEPS[0])) {
        let text = data.to_str().expect("it is text");
        let mut child = Working::start(&["fill", text, &there.to_string(), &step.to_string()]);
        println!("{}", child.hear());
        child.kill();
        there = step;

        let runtime = runtime();
        let began = Instant::now();
        let nx = boot(&runtime, Config::new(&data));
        within(&format!("{step} files: open after kill -9"), began.elapsed(), OPEN_MAX);
        measure(&runtime, &nx, "caches on", step, &mut first[0]);
        if step == STEPS[0] {
            runtime.block_on(rename(&nx));
        }
        runtime.block_on(nx.shutdown()).expect("it stops in order");

        let bare = Config::new(&data).metadata_cache_bytes(0).content_cache_bytes(0).metastore_cache_bytes(0);
        let nx = boot(&runtime, bare);
        measure(&runtime, &nx, "caches off", step, &mut first[1]);
        runtime.block_on(nx.shutdown()).expect("it stops in order");
        println!("  {:<52} {:>10}", format!("{step} files: memory"), resident());
    }
}

/// In a process of its own, which is killed when it is done: makes files until there are `to`.
pub(crate) fn fill(folder: &Path, from: u64, to: u64) {
    let runtime = runtime();
    let nx = boot(&runtime, Config::new(folder));
    let began = Instant::now();
    runtime.block_on(async {
        let mut next = from;
        while next < to {
            let last = (next + IN_TX).min(to);
            let content = |number: u64| Bytes::from(format!("file {number}\n"));
            let tx = (next..last).fold(SysTx::new(), |tx, number| {
                tx.with(SysWrite::at(path(number), content(number)).create())
            });
            nx.send(tx).await.expect("it commits");
            next = last;
        }
    });
    let each = began.elapsed() / u32::try_from((to - from).max(1)).expect("there are less");
    told(&format!(
        "  {:<52} {:>10}",
        format!("{to} files: made by transactions of 1,000, each"),
        format!("{each:.1?}")
    ));
}

/// The hot files first, ten in a directory; then the cold ones.
fn path(number: u64) -> VPath {
    let text = if number < HOT {
        format!("/hot/{}/{number}", number / IN_HOT)
    } else {
        format!("/cold/{}/{number}", number / IN_COLD)
    };
    VPath::parse(&text).expect("it is a path")
}

/// One of the hot files, in an order without order.
fn hot(turn: u64) -> u64 {
    turn.wrapping_mul(7_919) % HOT
}

/// The medians of one size.
struct Costs {
    stat: Duration,
    read: Duration,
    write: Duration,
    readdir: Duration,
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    nx: &Nexus,
    caches: &str,
    step: u64,
    first: &mut Option<Costs>,
) {
    let costs = runtime.block_on(async {
        // Once each, so that caches which hold them do.
        calls(HOT / CALLS, async |turn| assert_read(nx, hot(turn)).await).await;
        calls(HOT / CALLS, async |turn| assert_listed(nx, hot(turn) / IN_HOT).await).await;
        Costs {
            stat: calls(RUNS, async |turn| {
                let stat = nx.send(SysStat::at(path(hot(turn)))).await.expect("it is there");
                assert!(stat.size > 0);
            })
            .await,
            read: calls(RUNS, async |turn| assert_read(nx, hot(turn)).await).await,
            readdir: calls(RUNS, async |turn| assert_listed(nx, hot(turn) / IN_HOT).await).await,
            write: writes(nx).await,
        }
    });
    let named = |call: &str| format!("{step} files, {caches}: {call}");
    match first {
        None => {
            tell(&named("stat"), costs.stat);
            tell(&named("read"), costs.read);
            tell(&named("durable write"), costs.write);
            tell(&named("readdir of 10"), costs.readdir);
            *first = Some(costs);
        }
        Some(first) => {
            let other = format!("with {} files", STEPS[0]);
            beside(&named("stat"), costs.stat, &other, first.stat, GROWTH_MAX);
            beside(&named("read"), costs.read, &other, first.read, GROWTH_MAX);
            beside(&named("durable write"), costs.write, &other, first.write, GROWTH_MAX);
            beside(&named("readdir of 10"), costs.readdir, &other, first.readdir, GROWTH_MAX);
        }
    }
}

/// The median of one call, of which `CALLS` are timed together.
async fn calls(runs: u64, call: impl AsyncFn(u64)) -> Duration {
    let mut took = Vec::new();
    for run in 0..runs {
        let began = Instant::now();
        for turn in run * CALLS..(run + 1) * CALLS {
            call(turn).await;
        }
        took.push(began.elapsed() / u32::try_from(CALLS).expect("there are few"));
    }
    median(took)
}

async fn assert_read(nx: &Nexus, number: u64) {
    let read = nx.send(SysRead::at(path(number))).await.expect("it is there");
    assert!(read.data.starts_with(b"file "));
}

async fn assert_listed(nx: &Nexus, directory: u64) {
    let at = VPath::parse(&format!("/hot/{directory}")).expect("it is a path");
    let listed = nx.send(SysReaddir::at(at)).await.expect("it is there");
    assert_eq!(listed.entries.len() as u64, IN_HOT);
}

async fn writes(nx: &Nexus) -> Duration {
    let mut took = Vec::new();
    for turn in 0..WRITES {
        let number = hot(turn);
        let content = Bytes::from(format!("file {number}, again\n"));
        let call = SysWrite::at(path(number), content);
        let began = Instant::now();
        nx.send(call).await.expect("it writes");
        took.push(began.elapsed());
    }
    median(took)
}

/// Renames a directory with many files to and fro.
async fn rename(nx: &Nexus) {
    for from in (0..WIDE).step_by(usize::try_from(IN_TX).expect("it is small")) {
        let tx = (from..from + IN_TX).fold(SysTx::new(), |tx, number| {
            let at = VPath::parse(&format!("/wide/{number}")).expect("it is a path");
            tx.with(SysWrite::at(at, "wide").create())
        });
        nx.send(tx).await.expect("it commits");
    }
    let mut took = Vec::new();
    let names = ["/wide", "/wider"];
    let mut last = None;
    for turn in 0..RENAMES {
        let (from, to) = (names[turn % 2], names[(turn + 1) % 2]);
        let began = Instant::now();
        let renamed = nx.rename(from, to).await.expect("it renames");
        took.push(began.elapsed());
        let stat = nx.stat(format!("{to}/{}", WIDE - 1)).await.expect("all of it went along");
        assert_eq!(stat.size, 4);
        let lsn = renamed.receipt.lsn.0;
        assert!(last.is_none_or(|last| lsn == last + 1), "a rename is one commit");
        last = Some(lsn);
    }
    within(&format!("rename of a directory of {WIDE} files"), median(took), RENAME_MAX);
    nx.rename(names[RENAMES % 2], "/cold-wide").await.expect("it renames");
}

/// The memory that this process has in use, as Linux counts it.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown");
    line.trim().to_owned()
}
