//! Writes of 1 KiB: durable, alone and many at once; and acknowledged before they are on disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nexus::{Bytes, Config, Consistency, Kept, Nexus, SysWrite, VPath};
use tokio::runtime::Runtime;

use crate::baseline::{Raw, Redb, Sqlite};
use crate::report::{beside, compare, median, time};
use crate::{boot, runtime};

/// What each of the files holds.
pub(crate) const CONTENT: [u8; 1_024] = [7; 1_024];

/// Turns that everybody takes, with so many writes each.
const TURNS: usize = 20;
const WRITES: usize = 50;

/// How many are acknowledged before they are on disk, in a turn: they take longer together than a flush is put off.
const PUT_OFF_WRITES: usize = 4_000;

/// Writers at once, and how many files each of them writes in a turn.
const WRITERS: usize = 64;
const EACH: usize = 16;

/// The budgets of whatever is durable: one write alone beside a flush of the disk, and one of 64 beside it.
pub(crate) const ALONE_MAX: f64 = 2.0;
pub(crate) const SHARED_MAX: f64 = 4.0 / 64.0;

/// The budget of one that is acknowledged before it is on disk.
const PUT_OFF: Duration = Duration::from_micros(5);

pub(crate) fn run(folder: &Path) {
    let runtime = runtime();
    let nx = boot(&runtime, Config::new(folder.join("nexus")));
    let mut files = Files { nx, next: 0 };
    let (mut raw, mut sqlite, mut redb) = (Raw::new(folder), Sqlite::new(folder), Redb::new(folder));

    let mut alone: [Vec<Duration>; 4] = Default::default();
    let mut shared: [Vec<Duration>; 4] = Default::default();
    for turn in 0..=TURNS {
        let mut took: [Vec<Duration>; 4] = Default::default();
        for _ in 0..WRITES {
            took[0].push(time(|| raw.write(1)));
        }
        took[1] = runtime.block_on(files.write_alone(WRITES, Consistency::Strong));
        for _ in 0..WRITES {
            took[2].push(time(|| sqlite.write(1)));
        }
        for _ in 0..WRITES {
            took[3].push(time(|| redb.write(1)));
        }
        let together = [
            time(|| (0..EACH).for_each(|_| raw.write(WRITERS))),
            runtime.block_on(files.write_together()),
            time(|| (0..EACH).for_each(|_| sqlite.write(WRITERS))),
            time(|| (0..EACH).for_each(|_| redb.write(WRITERS))),
        ];
        // The first turn warms up.
        if turn > 0 {
            alone.iter_mut().zip(took).for_each(|(all, took)| all.extend(took));
            shared.iter_mut().zip(together).for_each(|(all, took)| all.push(took));
        }
    }
    runtime.block_on(files.check());
    sqlite.check();
    let put_off = put_off(&runtime, &folder.join("eventual"));

    let [flush, nexus, sqlite, redb] = alone.map(median);
    beside("1 KiB, alone", nexus, "an append and fdatasync", flush, ALONE_MAX);
    compare("1 KiB, alone, SQLite (WAL, FULL)", sqlite, "an append and fdatasync", flush);
    compare("1 KiB, alone, bare redb", redb, "an append and fdatasync", flush);
    beside("1 KiB, alone, eventual", put_off, "its budget", PUT_OFF, 1.0);
    let each = u32::try_from(WRITERS * EACH).expect("there are few");
    let [batch, nexus, sqlite, redb] = shared.map(|times| median(times) / each);
    beside("1 KiB, 64 at once, each", nexus, "an append and fdatasync", flush, SHARED_MAX);
    compare("1 KiB, 64 in one append and fdatasync, each", batch, "alone", flush);
    compare("1 KiB, 64 in one transaction, each, SQLite", sqlite, "64 at once in Nexus", nexus);
    compare("1 KiB, 64 in one transaction, each, bare redb", redb, "64 at once in Nexus", nexus);
    runtime.block_on(files.nx.shutdown()).expect("it stops in order");
}

/// The median of a write that is acknowledged before it is on disk; by itself, so that nobody works off what others left to be done later.
fn put_off(runtime: &Runtime, folder: &Path) -> Duration {
    let mut files = Files { nx: boot(runtime, Config::new(folder)), next: 0 };
    let mut took = Vec::new();
    for turn in 0..=TURNS {
        let turns = runtime.block_on(files.write_alone(PUT_OFF_WRITES, Consistency::Eventual));
        if turn > 0 {
            took.extend(turns);
        }
    }
    runtime.block_on(files.check());
    runtime.block_on(files.nx.shutdown()).expect("it stops in order");
    median(took)
}

/// New files, one after the other.
struct Files {
    nx: Nexus,
    next: usize,
}

impl Files {
    fn paths(&mut self, count: usize) -> Vec<VPath> {
        let from = self.next;
        self.next += count;
        (from..self.next).map(path).collect()
    }

    async fn write_alone(&mut self, count: usize, consistency: Consistency) -> Vec<Duration> {
        let content = Bytes::from_static(&CONTENT);
        let mut took = Vec::with_capacity(count);
        let mut last = None;
        for path in self.paths(count) {
            let began = std::time::Instant::now();
            let call = SysWrite::at(&path, content.clone()).create().consistency(consistency);
            let written = self.nx.send(call).await.expect("it writes");
            took.push(began.elapsed());
            last = Some(written.receipt);
        }
        self.nx.sync("/writes").await.expect("it syncs");
        let last = self.nx.receipt(last.expect("something was written")).await;
        assert_eq!(last.expect("it can be told"), Kept::OnDisk);
        took
    }

    async fn write_together(&mut self) -> Duration {
        let paths = Arc::new(self.paths(WRITERS * EACH));
        let began = std::time::Instant::now();
        let writers = (0..WRITERS).map(|writer| {
            let (nx, paths) = (self.nx.clone(), paths.clone());
            tokio::spawn(async move {
                for path in paths.iter().skip(writer).step_by(WRITERS) {
                    let call = SysWrite::at(path, Bytes::from_static(&CONTENT)).create();
                    nx.send(call).await.expect("it writes");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("no writer fails");
        }
        began.elapsed()
    }

    /// Everything that was acknowledged is there.
    async fn check(&self) {
        for number in 0..self.next {
            let data = self.nx.read(path(number)).await.expect("it was acknowledged");
            assert_eq!(data, &CONTENT[..]);
        }
    }
}

fn path(number: usize) -> VPath {
    VPath::parse(&format!("/writes/{number}")).expect("it is a path")
}
