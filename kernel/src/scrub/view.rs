//! What the scrubber publishes: the check and the scrub that run, or the last ones, and where the scrub is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_actors::{Env, Pool};
use nexus_messages::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::finding::Finding;
use crate::garbage::Freed;
use crate::hal::RowKey;

/// No incarnation has this number.
const NOBODY: u64 = 0;

/// Looks at rows that may wait.
const ASIDE_MAX: usize = 4;

/// How and when content is read that nobody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubConfig {
    /// How many bytes of content are read in a second, at most; 0 for no scrub but on demand, at any speed.
    pub bytes_per_s: u64,
    /// How long it is from the beginning of one scrub to the next.
    pub interval: Duration,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { bytes_per_s: 8 << 20, interval: Duration::from_secs(7 * 24 * 60 * 60) }
    }
}

impl ScrubConfig {
    /// How many bytes of content are read in a second, at most; 0 for no scrub but on demand, at any speed.
    #[must_use]
    pub fn bytes_per_s(mut self, bytes: u64) -> Self {
        self.bytes_per_s = bytes;
        self
    }

    /// How long it is from the beginning of one scrub to the next.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

/// How far a check or a scrub is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckState {
    /// It matches names with metadata.
    Names,
    /// It reads content.
    Contents,
    /// It reads the history and its content.
    Versions,
    /// It reads the logs.
    Log,
    /// It lets the collector count what nothing names.
    Garbage,
    /// It looks again at what it suspects, and repairs if that is asked for.
    Settling,
    /// It is over.
    Done,
    /// It was cut short; what it had found until then is told.
    Failed {
        /// By what.
        cause: String,
    },
}

/// A check or a scrub: what it did so far, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Check {
    /// Its number, counted from the start of the kernel.
    pub number: u64,
    /// Whether it repairs.
    pub repair: bool,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How far it is.
    pub state: CheckState,
    /// How often it was gone on with after a restart.
    pub resumed: u64,
    /// Entries that were looked at.
    pub entries: u64,
    /// Names that were looked at.
    pub names: u64,
    /// Files whose content was looked at.
    pub files: u64,
    /// Rows of the history that were looked at.
    pub versions: u64,
    /// Blobs that were read: contents, chunks and lists.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records of logs that were read.
    pub records: u64,
    /// What nothing names: the next collections take it. None when it is not known.
    pub garbage: Option<Freed>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How much more is wrong than is told.
    pub untold: u64,
    /// What could not be looked at, and why.
    pub left_out: Vec<String>,
}

impl Check {
    fn new(number: u64, repair: bool, began: Timestamp) -> Self {
        Self {
            number,
            repair,
            began,
            ended: None,
            state: CheckState::Names,
            resumed: 0,
            entries: 0,
            names: 0,
            files: 0,
            versions: 0,
            blobs: 0,
            bytes: 0,
            records: 0,
            garbage: None,
            findings: Vec::new(),
            untold: 0,
            left_out: Vec::new(),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// How much of what was found is still wrong.
    pub fn left(&self) -> u64 {
        self.findings.iter().filter(|finding| finding.is_left()).count() as u64 + self.untold
    }
}

/// Where a scrub goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Position {
    /// Behind this name; none at the beginning.
    Names(Option<RowKey>),
    /// Behind this row of the history; none at its beginning.
    Versions(Option<RowKey>),
}

/// What is told of one kind of run.
#[derive(Debug, Default)]
pub(super) struct Told {
    numbers: AtomicU64,
    latest: Mutex<Option<Check>>,
}

impl Told {
    /// The run that goes on, or the last one.
    pub(super) fn latest(&self) -> Option<Check> {
        self.latest.lock().clone()
    }

    pub(super) fn begin(&self, repair: bool, began: Timestamp) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst) + 1;
        *self.latest.lock() = Some(Check::new(number, repair, began));
        number
    }

    /// Changes what is told of this run, as long as it is not over.
    pub(super) fn tell(&self, number: u64, change: impl FnOnce(&mut Check)) {
        let mut latest = self.latest.lock();
        if let Some(latest) = latest.as_mut().filter(|latest| latest.number == number && !latest.is_over()) {
            change(latest);
        }
    }

    /// The latest run is over, because of this, unless it is over.
    pub(super) fn cut_short(&self, cause: &str, ended: Timestamp) {
        if let Some(latest) = self.latest.lock().as_mut().filter(|latest| !latest.is_over()) {
            latest.state = CheckState::Failed { cause: cause.into() };
            latest.ended = Some(ended);
        }
    }
}

/// The scrubber as everybody else sees it.
#[derive(Debug)]
pub(crate) struct Scrubbing {
    env: Env,
    /// The newest incarnation of the scrubber: an older one goes no further.
    generation: AtomicU64,
    aside: Pool,
    pub(super) checks: Told,
    pub(super) scrubs: Told,
    /// Where the scrub is that is not over. Written by its run alone, of the newest incarnation.
    position: Mutex<Option<Position>>,
    /// Bytes that scrubs have read since the start of the kernel.
    scrubbed: AtomicU64,
}

impl Scrubbing {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            generation: AtomicU64::new(NOBODY),
            aside: env.pool("scrub", 1, ASIDE_MAX),
            checks: Told::default(),
            scrubs: Told::default(),
            position: Mutex::default(),
            scrubbed: AtomicU64::new(0),
        }
    }

    /// The check that runs, or the last one.
    pub(crate) fn check(&self) -> Option<Check> {
        self.checks.latest()
    }

    /// The scrub that runs, or the last one.
    pub(crate) fn scrub(&self) -> Option<Check> {
        self.scrubs.latest()
    }

    /// How many bytes scrubs have read since the start of the kernel.
    pub(crate) fn scrubbed_bytes(&self) -> u64 {
        self.scrubbed.load(Ordering::Relaxed)
    }

    pub(super) fn add_scrubbed(&self, bytes: u64) {
        self.scrubbed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// From now on this incarnation runs things. A check that the one before had begun is over with it; its scrub is gone on with.
    pub(super) fn claim(&self, generation: u64) {
        self.generation.store(generation, Ordering::SeqCst);
        self.checks.cut_short("the scrubber was restarted", Timestamp(self.env.wall()));
    }

    /// This incarnation runs nothing any more.
    pub(super) fn leave(&self, generation: u64) {
        // Refused when another one does already.
        let _ = self.generation.compare_exchange(generation, NOBODY, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::SeqCst) == generation
    }

    /// Where the scrub goes on that was begun and is not over; none when there is none.
    pub(super) fn unfinished(&self) -> Option<(u64, Position)> {
        let number = self.scrubs.latest().filter(|latest| !latest.is_over())?.number;
        Some((number, self.position.lock().clone().unwrap_or(Position::Names(None))))
    }

    /// The scrub of this incarnation has come so far; an older incarnation is not heard.
    pub(super) fn come_to(&self, generation: u64, position: Option<Position>) {
        let mut there = self.position.lock();
        if self.is_current(generation) {
            *there = position;
        }
    }

    /// Where rows are read.
    pub(super) fn aside(&self) -> &Pool {
        &self.aside
    }
}
