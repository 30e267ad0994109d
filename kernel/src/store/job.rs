//! What the committer is asked for, on its way there, and its answer on the way back.

use std::sync::Arc;

use nexus_messages::Lsn;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::hal::{Entry, StoreError};
use crate::watcher::{Held, Watches};

/// Makes a commit visible.
pub(crate) type Show = Box<dyn FnOnce(Lsn) + Send>;

/// What makes a commit known: run when it is durable, or visible in the rows if that is all that is waited for, before it is acknowledged, in the order of the
/// commits.
pub(crate) struct Publication {
    show: Show,
    /// Whether the locks that it is made under are there still: watchers are told when they are gone.
    held: Option<Held>,
}

impl Publication {
    pub(crate) fn new(show: Show, held: Option<Held>) -> Self {
        Self { show, held }
    }

    /// `entry` was committed at `lsn`.
    pub(super) fn publish(self, watches: &Watches, entry: &Entry, lsn: Lsn) {
        (self.show)(lsn);
        watches.committed(entry, lsn, self.held);
    }
}

/// Why an entry was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CommitError {
    /// A precondition did not hold: the rows changed since they were read.
    #[error("the rows changed meanwhile")]
    Refused,
    /// Nothing was changed.
    #[error(transparent)]
    Failed(StoreError),
    /// It may be on disk.
    #[error(transparent)]
    Unknown(StoreError),
    /// Whoever committed it died meanwhile: it may be on disk.
    #[error("the committer crashed during the commit")]
    Crashed,
    /// The committer did not come back in time; nothing was changed.
    #[error("the committer is down")]
    Down,
    /// The committer is held up, and had not begun it; nothing was changed.
    #[error("the metastore holds the committer up: not begun within {0:?}")]
    NotBegun(std::time::Duration),
    /// The metastore does not answer: it may be on disk, or come there yet.
    #[error("the metastore has not answered within {0:?}")]
    Hangs(std::time::Duration),
}

/// The answer: the place in the log, and whether this entry put it there (and not an earlier one with its operation id).
pub(crate) type Answer = Result<(Lsn, bool), CommitError>;

/// What the committer can be asked for.
#[expect(clippy::large_enum_variant, reason = "it waits in a box, and the large one is the usual one")]
pub(crate) enum Work {
    /// Commit an entry, and make it visible.
    Commit {
        entry: Entry,
        publish: Publication,
        /// Whether visible is enough.
        put_off: bool,
    },
    /// Make all durable that is visible.
    Sync,
}

impl Work {
    fn bytes(&self) -> u64 {
        match self {
            Self::Commit { entry, .. } => entry.bytes(),
            Self::Sync => 0,
        }
    }
}

/// What comes back to who submitted.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub(crate) enum Back {
    /// The answer; of a sync, no place of its own. What was committed comes along to be dropped where it was made: that is cheaper by far than to
    /// have one thread free what all others allocated.
    Answer(Answer, Option<Entry>),
    /// It was not begun: submit it again.
    NotBegun(Box<Work>),
}

/// Work that waits for the committer. Shared with whoever submitted it, who may take it back.
#[derive(Clone)]
pub(crate) struct Waiting(Arc<Mutex<Place>>);

/// Where work is.
enum Place {
    /// On its way.
    Queued(Box<Work>),
    /// With whoever submitted it.
    Back,
    /// Begun: what becomes of it is unknown until it is told.
    Begun,
}

impl Waiting {
    /// Takes the work back. Whether it was not begun, and never will be.
    pub(crate) fn take_back(&self) -> bool {
        !matches!(std::mem::replace(&mut *self.0.lock(), Place::Back), Place::Begun)
    }
}

/// Work on its way, with what makes it visible and who waits for it.
pub(crate) struct Job {
    // A job that is dropped before it is begun goes back; one that is dropped after is unknown.
    waiting: Waiting,
    publish: Option<Publication>,
    back: Option<oneshot::Sender<Back>>,
}

/// What a job was that is begun.
pub(crate) enum Begun {
    /// An entry, and whether visible is enough.
    Entry(Entry, bool),
    Sync,
    /// Who submitted it has taken it back.
    Nothing,
}

impl Job {
    pub(crate) fn new(work: Box<Work>) -> (Self, Waiting, oneshot::Receiver<Back>) {
        let (back, answer) = oneshot::channel();
        let waiting = Waiting(Arc::new(Mutex::new(Place::Queued(work))));
        (Self { waiting: waiting.clone(), publish: None, back: Some(back) }, waiting, answer)
    }

    /// About how many bytes the entry takes; 0 once it is begun.
    pub(crate) fn bytes(&self) -> u64 {
        match &*self.waiting.0.lock() {
            Place::Queued(work) => work.bytes(),
            Place::Back | Place::Begun => 0,
        }
    }

    /// What to do. From here on the outcome is unknown until [`finish`](Self::finish).
    pub(crate) fn begin(&mut self) -> Begun {
        let mut place = self.waiting.0.lock();
        match std::mem::replace(&mut *place, Place::Begun) {
            Place::Queued(work) => match *work {
                Work::Commit { entry, publish, put_off } => {
                    self.publish = Some(publish);
                    Begun::Entry(entry, put_off)
                }
                Work::Sync => Begun::Sync,
            },
            elsewhere => {
                *place = elsewhere;
                Begun::Nothing
            }
        }
    }

    /// Publishes what was committed and answers.
    pub(crate) fn finish(mut self, answer: Answer, entry: Option<Entry>, watches: &Watches) {
        if let (Ok((lsn, true)), Some(entry), Some(publication)) = (&answer, &entry, self.publish.take()) {
            publication.publish(watches, entry, *lsn);
        }
        self.send(Back::Answer(answer, entry));
    }

    fn send(&mut self, back: Back) {
        if let Some(sender) = self.back.take() {
            // Who does not wait any more does not need the answer.
            let _ = sender.send(back);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut place = self.waiting.0.lock();
        match std::mem::replace(&mut *place, Place::Back) {
            Place::Queued(work) => {
                drop(place);
                self.send(Back::NotBegun(work));
            }
            elsewhere => *place = elsewhere,
        }
    }
}
