//! What the collector publishes, and where content is held against it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_actors::{Env, Pool};
use nexus_messages::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::pins::{Hold, Pins};

/// No incarnation has this number.
const NOBODY: u64 = 0;

/// Looks at rows that may wait.
const ASIDE_MAX: usize = 4;

/// How and when content goes that nothing names any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GarbageConfig {
    /// How long it is from the end of one collection to the next; none for collections on demand only.
    pub interval: Option<Duration>,
    /// How long content must have been unreachable before it goes, as far as collections saw.
    pub grace: Duration,
}

impl Default for GarbageConfig {
    fn default() -> Self {
        Self { interval: Some(Duration::from_secs(60 * 60)), grace: Duration::from_secs(24 * 60 * 60) }
    }
}

impl GarbageConfig {
    /// How long it is from the end of one collection to the next; none for collections on demand only.
    #[must_use]
    pub fn interval(mut self, interval: Option<Duration>) -> Self {
        self.interval = interval;
        self
    }

    /// How long content must have been unreachable before it goes.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Freed {
    /// How many contents, chunks and lists.
    pub objects: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

impl Freed {
    pub(super) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// How far a collection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CollectionState {
    /// It removes rows of mounts that are gone.
    Rows,
    /// It marks what is reachable.
    Marking,
    /// It looks for what is not.
    Sweeping,
    /// Stores give back the space of what went.
    Reclaiming,
    /// It is over.
    Done,
    /// It was cut short; nothing is lost, and the next one does the rest.
    Failed {
        /// By what.
        cause: String,
    },
}

/// A collection: what it did so far, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Collection {
    /// Its number, counted from the start of the kernel.
    pub number: u64,
    /// Whether it takes nothing away, and counts what it would.
    pub dry_run: bool,
    /// How long content must have been unreachable, in milliseconds.
    pub grace_ms: u64,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How far it is.
    pub state: CollectionState,
    /// Rows removed that belonged to mounts that are gone, or that would be.
    pub rows: u64,
    /// Contents, chunks and lists that are reachable.
    pub reachable: u64,
    /// What went, or would.
    pub freed: Freed,
    /// What is unreachable, and has not been for long enough.
    pub kept_by_grace: Freed,
    /// What no row names, and a call or a stream holds or held just now.
    pub kept_by_pins: Freed,
    /// How many bytes stores gave back on disk. What small content took is used again by later rows, and is not in it.
    pub reclaimed_bytes: u64,
    /// Mounts whose stores are not open.
    pub left_out: Vec<String>,
    /// Mounts whose stores failed meanwhile, and were left out from then on, with the causes.
    pub failed: Vec<String>,
    /// What looks gone to one row and not to another: damage, which stays for a check of what is stored to tell. The first of it.
    pub left_alone: Vec<String>,
}

impl Collection {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }
}

/// The collector as everybody else sees it.
#[derive(Debug)]
pub(crate) struct Garbage {
    env: Env,
    pins: Arc<Pins>,
    /// The newest incarnation of the collector: an older one goes no further.
    generation: AtomicU64,
    aside: Pool,
    numbers: AtomicU64,
    latest: Mutex<Option<Collection>>,
}

impl Garbage {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            pins: Arc::default(),
            generation: AtomicU64::new(NOBODY),
            aside: env.pool("garbage", 1, ASIDE_MAX),
            numbers: AtomicU64::new(0),
            latest: Mutex::default(),
        }
    }

    /// Holds nothing yet.
    pub(crate) fn hold(&self) -> Hold {
        self.pins.hold()
    }

    /// How many contents are held.
    pub(crate) fn held(&self) -> usize {
        self.pins.len()
    }

    /// The collection that runs, or the last one.
    pub(crate) fn latest(&self) -> Option<Collection> {
        self.latest.lock().clone()
    }

    pub(super) fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// From now on this incarnation collects. What the one before has begun is over with it.
    pub(super) fn claim(&self, generation: u64) {
        self.generation.store(generation, Ordering::SeqCst);
        self.cut_short("the collector was restarted");
    }

    /// This incarnation collects no more.
    pub(super) fn leave(&self, generation: u64) {
        // Refused when another one does already.
        let _ = self.generation.compare_exchange(generation, NOBODY, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::SeqCst) == generation
    }

    pub(super) fn begin(&self, dry_run: bool, grace: Duration) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst) + 1;
        *self.latest.lock() = Some(Collection {
            number,
            dry_run,
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            began: Timestamp(self.env.wall()),
            ended: None,
            state: CollectionState::Rows,
            rows: 0,
            reachable: 0,
            freed: Freed::default(),
            kept_by_grace: Freed::default(),
            kept_by_pins: Freed::default(),
            reclaimed_bytes: 0,
            left_out: Vec::new(),
            failed: Vec::new(),
            left_alone: Vec::new(),
        });
        number
    }

    /// Changes what is told of this collection, as long as it is not over.
    pub(super) fn tell(&self, number: u64, change: impl FnOnce(&mut Collection)) {
        let mut latest = self.latest.lock();
        if let Some(latest) = latest.as_mut().filter(|latest| latest.number == number && !latest.is_over()) {
            change(latest);
        }
    }

    /// The latest collection is over, because of this, unless it is over.
    pub(super) fn cut_short(&self, cause: &str) {
        let ended = Timestamp(self.env.wall());
        if let Some(latest) = self.latest.lock().as_mut().filter(|latest| !latest.is_over()) {
            latest.state = CollectionState::Failed { cause: cause.into() };
            latest.ended = Some(ended);
        }
    }

    /// Where rows are read.
    pub(super) fn aside(&self) -> &Pool {
        &self.aside
    }
}
