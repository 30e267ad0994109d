//! The places that the owner has for the streams of a client, as the client keeps account of them: who opens a stream waits for a place, and has it until the owner
//! has said that the stream is no more.
//!
//! Those that are read and those that are written have places apart: who reads one stream while it writes another cannot wait for others who do the same. Who waits
//! for two of one kind can; that shows in nothing moving any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_actors::Env;
use nexus_messages::{Error, ErrorKind, Op, Result, VPath};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams of each kind that one client may have open.
pub(super) const STREAMS_MAX: usize = 64;

/// How long none of the streams that have the places may move until who waits for one is refused: then they are kept open by who does not use them.
const STILL_MAX: Duration = Duration::from_secs(30);

/// How long the end of a pipe waits for a place: as long as the owner may take to hear that another one was closed. Ends are open for as long as they please.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    /// Either end of a pipe.
    Pipe,
}

impl Use {
    /// That all places for it are taken.
    pub(super) fn busy(self, error: impl FnOnce(ErrorKind) -> Error) -> Error {
        let what = match self {
            Self::Read => "streams that are read",
            Self::Write => "streams that are written",
            Self::Pipe => "ends of pipes",
        };
        error(ErrorKind::Busy).because(format!("this client has {STREAMS_MAX} {what} open"))
    }
}

/// All places of one client.
#[derive(Default)]
pub(super) struct Places {
    reads: Line,
    writes: Line,
    pipes: Line,
}

struct Line {
    free: Arc<Semaphore>,
    /// How often one of the streams has moved.
    moved: AtomicU64,
}

impl Default for Line {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(STREAMS_MAX)), moved: AtomicU64::new(0) }
    }
}

impl Places {
    fn line(&self, kind: Use) -> &Line {
        match kind {
            Use::Read => &self.reads,
            Use::Write => &self.writes,
            Use::Pipe => &self.pipes,
        }
    }

    /// Waits for a place, in the order of coming.
    ///
    /// # Errors
    /// `EBUSY` when there is none and the streams that have them stand still; `ESHUTDOWN` when the handle is let go of.
    pub(super) async fn take(
        &self,
        env: &Env,
        kind: Use,
        op: Op,
        path: &VPath,
    ) -> Result<OwnedSemaphorePermit> {
        let line = self.line(kind);
        let within = if kind == Use::Pipe { END_WITHIN } else { STILL_MAX };
        let mut free = Box::pin(line.free.clone().acquire_owned());
        loop {
            let before = line.moved.load(Ordering::Relaxed);
            match env.timeout(within, &mut free).await {
                Ok(Ok(place)) => return Ok(place),
                Ok(Err(_)) => return Err(Error::new(op, path, ErrorKind::Down)),
                Err(_) if line.moved.load(Ordering::Relaxed) != before => {}
                Err(_) => return Err(kind.busy(|busy| Error::new(op, path, busy))),
            }
        }
    }

    /// A stream of this kind has moved. Of a pipe that says nothing: it may go on for ever.
    pub(super) fn moved(&self, kind: Use) {
        if kind != Use::Pipe {
            self.line(kind).moved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody gets a place any more.
    pub(super) fn close(&self) {
        for line in [&self.reads, &self.writes, &self.pipes] {
            line.free.close();
        }
    }
}
