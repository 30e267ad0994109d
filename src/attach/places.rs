//! The places that the owner has for the streams and watches of a client, as the client keeps account of them: who opens a stream waits for a place, and has it until the owner
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
const STREAMS_MAX: usize = 64;

/// Watches that one client may have.
const WATCHES_MAX: usize = 1_024;

/// How long none of the streams that have the places may move until who waits for one is refused: then they are kept open by who does not use them.
const STILL_MAX: Duration = Duration::from_secs(30);

/// How long the end of a pipe, or a watch, waits for a place: as long as the owner may take to hear that another one was closed. They are open for as long as they please.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    /// Either end of a pipe.
    Pipe,
    Watch,
}

impl Use {
    /// How many of it one client may have open.
    pub(super) fn places_max(self) -> usize {
        match self {
            Self::Read | Self::Write | Self::Pipe => STREAMS_MAX,
            Self::Watch => WATCHES_MAX,
        }
    }

    /// Whether it is open for as long as it pleases, whether it moves or not.
    fn is_lasting(self) -> bool {
        matches!(self, Self::Pipe | Self::Watch)
    }

    /// That all places for it are taken.
    pub(super) fn busy(self, error: impl FnOnce(ErrorKind) -> Error) -> Error {
        let what = match self {
            Self::Read => "streams that are read",
            Self::Write => "streams that are written",
            Self::Pipe => "ends of pipes",
            Self::Watch => "watches",
        };
        error(ErrorKind::Busy).because(format!("this client has {} {what} open", self.places_max()))
    }
}

/// All places of one client.
pub(super) struct Places {
    reads: Line,
    writes: Line,
    pipes: Line,
    watches: Line,
}

struct Line {
    free: Arc<Semaphore>,
    /// How often one of the streams has moved.
    moved: AtomicU64,
}

impl Line {
    fn of(kind: Use) -> Self {
        Self { free: Arc::new(Semaphore::new(kind.places_max())), moved: AtomicU64::new(0) }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            reads: Line::of(Use::Read),
            writes: Line::of(Use::Write),
            pipes: Line::of(Use::Pipe),
            watches: Line::of(Use::Watch),
        }
    }
}

impl Places {
    fn line(&self, kind: Use) -> &Line {
        match kind {
            Use::Read => &self.reads,
            Use::Write => &self.writes,
            Use::Pipe => &self.pipes,
            Use::Watch => &self.watches,
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
        let within = if kind.is_lasting() { END_WITHIN } else { STILL_MAX };
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

    /// A stream of this kind has moved. Of one that may go on for ever that says nothing.
    pub(super) fn moved(&self, kind: Use) {
        if !kind.is_lasting() {
            self.line(kind).moved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody gets a place any more.
    pub(super) fn close(&self) {
        for line in [&self.reads, &self.writes, &self.pipes, &self.watches] {
            line.free.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many as there are.
    async fn all(places: &Places, env: &Env, kind: Use) -> Vec<OwnedSemaphorePermit> {
        let mut taken = Vec::new();
        for _ in 0..STREAMS_MAX {
            taken.extend(places.take(env, kind, Op::Read, &VPath::root()).await);
        }
        assert_eq!(taken.len(), STREAMS_MAX);
        taken
    }

    #[test]
    fn who_waits_is_refused_only_when_nothing_moves_and_of_another_kind_is_not_held_up() {
        let (env, sim) = Env::seeded(1);
        let places = Places::default();
        let path = VPath::root();
        sim.block_on(async {
            let _reads = all(&places, &env, Use::Read).await;
            let written = places.take(&env, Use::Write, Op::Write, &path).await;
            drop(written.expect("it has places of its own"));
            let began = env.now();
            let moving = async {
                for _ in 0..4 {
                    env.sleep(STILL_MAX - Duration::from_secs(1)).await;
                    places.moved(Use::Read);
                }
            };
            let waiting = places.take(&env, Use::Read, Op::Read, &path);
            let (refused, ()) = futures_util::future::join(waiting, moving).await;
            let refused = refused.expect_err("they are kept");
            assert_eq!((refused.kind(), refused.path()), (ErrorKind::Busy, Some("/")));
            let waited = env.now().duration_since(began);
            assert!(waited > 4 * STILL_MAX && waited < 6 * STILL_MAX, "{waited:?}");
        });
    }

    #[test]
    fn a_pipe_is_refused_soon_and_who_waits_at_the_end_of_all_is_told() {
        let (env, sim) = Env::seeded(1);
        let places = Places::default();
        let path = VPath::root();
        sim.block_on(async {
            let mut pipes = all(&places, &env, Use::Pipe).await;
            places.moved(Use::Pipe);
            let began = env.now();
            let refused = places.take(&env, Use::Pipe, Op::Read, &path).await.expect_err("all are taken");
            assert_eq!((refused.kind(), env.now().duration_since(began)), (ErrorKind::Busy, END_WITHIN));
            pipes.pop();
            pipes.extend(places.take(&env, Use::Pipe, Op::Read, &path).await);
            assert_eq!(pipes.len(), STREAMS_MAX);
            let ending = async { places.close() };
            let waiting = places.take(&env, Use::Pipe, Op::Read, &path);
            let (told, ()) = futures_util::future::join(waiting, ending).await;
            assert_eq!(told.expect_err("it has ended").kind(), ErrorKind::Down);
        });
    }
}
