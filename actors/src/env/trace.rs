//! What a simulation did, step by step: equal traces mean equal runs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Entries kept; later ones are in the digest only.
const ENTRIES_MAX: usize = 1 << 20;

/// One step of a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEntry {
    /// Virtual time since the simulation began.
    pub at: Duration,
    /// The task or actor.
    pub who: Arc<str>,
    /// What it did.
    pub event: Event,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The task was made.
    Spawned,
    /// The task was run until it waited.
    Ran,
    /// The task came to its end.
    Ended,
    /// Something that an actor, or a test, wrote down.
    Note(Cow<'static, str>),
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12?} {} ", self.at, self.who)?;
        match &self.event {
            Event::Spawned => f.write_str("spawned"),
            Event::Ran => f.write_str("ran"),
            Event::Ended => f.write_str("ended"),
            Event::Note(text) => f.write_str(text),
        }
    }
}

/// The steps of a simulation so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The first 1,048,576 steps.
    pub entries: Vec<TraceEntry>,
    /// How many steps there were in all.
    pub steps: u64,
    /// A digest over all steps (FNV-1a, 64 bits).
    pub digest: u64,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Trace { entries: Vec::new(), steps: 0, digest: 0xcbf2_9ce4_8422_2325 }
    }

    pub(crate) fn push(&mut self, entry: TraceEntry) {
        let (kind, text): (u8, &str) = match &entry.event {
            Event::Spawned => (0, ""),
            Event::Ran => (1, ""),
            Event::Ended => (2, ""),
            Event::Note(text) => (3, text),
        };
        self.mix(&entry.at.as_nanos().to_le_bytes());
        self.mix(entry.who.as_bytes());
        self.mix(&[kind]);
        self.mix(text.as_bytes());
        self.steps += 1;
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(entry);
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        // A separator, so that `ab` + `c` is not `a` + `bc`.
        self.digest = (self.digest ^ 0xff).wrapping_mul(0x100_0000_01b3);
    }
}
