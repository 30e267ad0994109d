//! What import, export, `cp -r` and `sync` share: many entries on their way at once, counted, within a bounded memory.

pub(crate) mod copy;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod sync;
mod walk;

use std::future::Future;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nexus::syscall::SysStat;
use nexus::{ErrorKind, Op, VPath};
use nexus_actors::{Env, PoolError, block_on};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::session::Session;

/// Entries on their way at once, on each lane: enough for the committer to find a full batch after every fsync.
const IN_FLIGHT: usize = 64;

/// Threads that work on entries, whatever the machine has.
const LANES_MAX: usize = 8;

/// Entries that were found and wait for a lane.
const FOUND_MAX: usize = 1_024;

/// Bytes of content on their way at once.
const BYTES_MAX: u64 = 32 << 20;

/// What a file has in memory that goes piece by piece: a few pieces, and chunks on their way to the store.
const STREAM_BYTES: u64 = 8 << 20;

/// How many bytes of content one permit of the budget stands for.
const PERMIT_BYTES: u64 = 4 << 10;

#[expect(clippy::cast_possible_truncation, reason = "8,192")]
const PERMITS: u32 = (BYTES_MAX / PERMIT_BYTES) as u32;

/// How often the bar is drawn while nothing changes.
const TICK: Duration = Duration::from_millis(100);

/// A transfer that is under way: what was done, what may still begin.
pub(crate) struct Transfer {
    verb: &'static str,
    env: Env,
    begun: Instant,
    bar: ProgressBar,
    budget: Semaphore,
    hopeless: AtomicBool,
    files: AtomicU64,
    bytes: AtomicU64,
    directories: AtomicU64,
    links: AtomicU64,
    unchanged: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
}

/// What a transfer did. The fields are part of the interface.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) directories: u64,
    pub(crate) links: u64,
    pub(crate) unchanged: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
}

impl Transfer {
    /// Begins; a terminal sees a bar from now on.
    pub(crate) fn begin(verb: &'static str, env: &Env, out: &Output) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        if io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} files, {elapsed}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(verb);
            bar.enable_steady_tick(TICK);
            out.set_bar(Some(bar.clone()));
        }
        let zero = AtomicU64::default;
        Self {
            verb,
            env: env.clone(),
            begun: env.now(),
            bar,
            budget: Semaphore::new(PERMITS as usize),
            hopeless: AtomicBool::new(false),
            files: zero(),
            bytes: zero(),
            directories: zero(),
            links: zero(),
            unchanged: zero(),
            skipped: zero(),
            failed: zero(),
        }
    }

    /// Whether somebody sees the bar.
    fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Another file was found.
    fn expect_file(&self) {
        self.bar.inc_length(1);
    }

    /// Waits until `size` bytes of content may be in memory.
    async fn room(&self, size: u64) -> Option<SemaphorePermit<'_>> {
        let permits = u32::try_from(size.div_ceil(PERMIT_BYTES)).unwrap_or(PERMITS).min(PERMITS);
        // The semaphore is never closed.
        self.budget.acquire_many(permits).await.ok()
    }

    fn file(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(1);
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells that an entry is left out on purpose.
    fn skip(&self, out: &Output, what: impl std::fmt::Display) {
        Self::count(&self.skipped);
        out.warn(what);
    }

    /// Tells that a folder is left out: where folders are only implied, none is empty.
    fn skip_empty(&self, out: &Output, from: impl std::fmt::Display, to: impl std::fmt::Display) {
        self.skip(out, format_args!("{} {from}: skipped: no empty folder can be at {to}", self.verb));
    }

    /// Tells that an entry failed. The rest goes on, unless nothing more can succeed.
    fn fail(&self, out: &Output, failure: &Failure) {
        Self::count(&self.failed);
        if let Failure::Call(error) = failure
            && matches!(error.kind(), ErrorKind::StoreFull | ErrorKind::ReadOnly | ErrorKind::Down)
        {
            // Said once, not once for each entry that is left.
            if self.hopeless.swap(true, Ordering::Relaxed) {
                return out.ends_with(failure.status());
            }
        }
        out.failed(failure);
    }

    /// Whether nothing more can succeed.
    fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::Relaxed)
    }

    /// Ends; the bar is gone.
    pub(crate) fn end(&self, out: &Output) -> Counts {
        self.bar.finish_and_clear();
        out.set_bar(None);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            files: get(&self.files),
            bytes: get(&self.bytes),
            seconds: self.env.now().duration_since(self.begun).as_secs_f64(),
            directories: get(&self.directories),
            links: get(&self.links),
            unchanged: get(&self.unchanged),
            skipped: get(&self.skipped),
            failed: get(&self.failed),
        }
    }

    /// Ends with the last line of the command.
    pub(crate) fn report(&self, out: &Output) -> Outcome {
        let counts = self.end(out);
        if self.is_hopeless() {
            out.warn(format_args!("{}: given up; what is left was not tried", self.verb));
        }
        out.either(&counts, counts)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { files, bytes, seconds, directories, links, unchanged, skipped, failed } = self;
        write!(f, "{files} files, {bytes} bytes, {seconds:.3} seconds")?;
        write!(f, " ({}; {directories} directories, {links} links", HumanBytes(*bytes))?;
        for (count, what) in [(unchanged, "unchanged"), (skipped, "skipped"), (failed, "failed")] {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        f.write_str(")")
    }
}

/// Hands each item that comes to `work`, on a few threads and many at once on each.
///
/// `work` may block its thread for as long as a file of the host takes to be read or written.
async fn lanes<T, F>(
    env: &Env,
    items: flume::Receiver<T>,
    work: impl Fn(T) -> F + Clone + Send + 'static,
) -> Result<(), PoolError>
where
    T: Send + 'static,
    F: Future<Output = ()>,
{
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, LANES_MAX);
    let pool = env.pool("transfer", threads, threads);
    let lanes = (0..threads).map(|_| {
        let (items, work) = (items.clone(), work.clone());
        pool.run(move || {
            let working = items.into_stream().map(work).buffer_unordered(IN_FLIGHT);
            block_on(working.for_each(|()| std::future::ready(())));
        })
    });
    futures_util::future::try_join_all(lanes).await.map(drop)
}

/// Whether there is a folder at `path`, if only because of what lies in it.
async fn is_folder(session: &Session, path: &VPath, op: Op) -> Outcome<bool> {
    match session.nx.send(SysStat::at(path)).await {
        Ok(entry) => Ok(entry.is_directory()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.during(op).into()),
    }
}

/// A thread of ours broke, which is a defect.
fn broken(op: &'static str) -> impl Fn(PoolError) -> Failure {
    move |error| Failure::claim(op, error)
}
