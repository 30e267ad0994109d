//! One entry on its way to disk, and its answer on the way back.

use nexus_messages::Lsn;
use tokio::sync::oneshot;

use crate::hal::{Entry, StoreError};

/// Makes a commit visible: run after it is durable, before it is acknowledged, in the order of the commits.
pub(crate) type Publication = Box<dyn FnOnce(Lsn) + Send>;

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
    /// The committer died while it held the entry: it may be on disk.
    #[error("the committer crashed during the commit")]
    Crashed,
    /// The committer did not come back in time; nothing was changed.
    #[error("the committer is down")]
    Down,
}

/// The answer: the place in the log, and whether this entry put it there (and not an earlier one with its operation id).
pub(crate) type Answer = Result<(Lsn, bool), CommitError>;

/// What comes back to who submitted.
pub(crate) enum Back {
    /// The answer.
    Answer(Answer),
    /// The entry was not begun: submit it again.
    NotBegun(Box<(Entry, Publication)>),
}

/// One entry, with what makes it visible and who waits for it.
pub(crate) struct Job {
    // Invariant: some until the job is begun. A job that is dropped before goes back; one that is dropped after is unknown.
    waiting: Option<Box<(Entry, Publication)>>,
    publish: Option<Publication>,
    back: Option<oneshot::Sender<Back>>,
}

impl Job {
    pub(crate) fn new(work: Box<(Entry, Publication)>) -> (Self, oneshot::Receiver<Back>) {
        let (back, answer) = oneshot::channel();
        (Self { waiting: Some(work), publish: None, back: Some(back) }, answer)
    }

    /// About how many bytes the entry takes; 0 once it is begun.
    pub(crate) fn bytes(&self) -> u64 {
        self.waiting.as_ref().map_or(0, |work| work.0.bytes())
    }

    /// The entry, for the batch. From here on the outcome is unknown until [`finish`](Self::finish).
    pub(crate) fn begin(&mut self) -> Option<Entry> {
        let (entry, publish) = *self.waiting.take()?;
        self.publish = Some(publish);
        Some(entry)
    }

    /// Publishes what was committed and answers.
    pub(crate) fn finish(mut self, answer: Answer) {
        if let (Ok((lsn, true)), Some(publish)) = (&answer, self.publish.take()) {
            publish(*lsn);
        }
        self.send(Back::Answer(answer));
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
        if let Some(work) = self.waiting.take() {
            self.send(Back::NotBegun(work));
        }
    }
}
