//! Watches of attached clients: the owner's process has the watch, and its queue, for as long as the client has it, and the client asks for what it tells next.
//!
//! So an attached watch misses nothing that one in the kernel's process is told, also what is in no log. A client can give a call up when its answer is on the way:
//! the other end has that until the client says, with its next call, that it has come. With the connection the watch is gone. On the next one another is begun in the
//! place in the log where it was; that what is in no log may have been missed until then is told as an overflow.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus_kernel::Kernel;
use nexus_kernel::watcher::{EventSource, Watch};
use nexus_messages::syscall::{Answer, SysWatch, Watched};
use nexus_messages::{Caller, Error, ErrorKind, EventKind, Lsn, Op, Result};

use super::client::Remote;
use super::message::{Given, Streaming};
use super::places::Use;
use super::streams::Numbered;
use crate::handle::Nexus;

/// How long one call to the owner waits. Whoever waits longer calls again: so where to go on moves along where nothing is told, and is not too old for the log when it is
/// asked for.
const CALL_MAX: Duration = Duration::from_secs(30);

/// A watch of a client, in the owner's process.
pub(super) struct Watching {
    watch: Watch,
    /// Answers that told something.
    told: u64,
    /// The last of them, until the client has said that it has come.
    last: Option<Watched>,
}

impl Watching {
    pub(super) async fn begin(
        kernel: &Arc<Kernel>,
        caller: &Arc<Caller>,
        call: SysWatch,
        goes_on: bool,
    ) -> Result<Self> {
        let watch = match goes_on {
            true => kernel.watch_on(caller, call).await?,
            false => kernel.watch(caller, call).await?,
        };
        Ok(Self { watch, told: 0, last: None })
    }

    /// Up to where all was told.
    pub(super) fn cursor(&self) -> Lsn {
        self.watch.cursor()
    }

    /// What comes next for a client that so many answers have come to which told something. Dropping the future loses nothing.
    pub(super) async fn next(&mut self, came: u64, wait: Duration) -> Result<Watched> {
        match (&self.last, self.told.checked_sub(came)) {
            (_, Some(0)) => self.last = None,
            (Some(last), Some(1)) => return Ok(last.clone()),
            _ => {
                let error = Error::global(Op::Watch, ErrorKind::InvalidArgument);
                return Err(error.because(format!("{came} answers cannot have come of {}", self.told)));
            }
        }
        let watched = self.watch.next(Some(wait)).await?;
        if tells(&watched) {
            self.told += 1;
            self.last = Some(watched.clone());
        }
        Ok(watched)
    }
}

/// Whether there is something in an answer that is not there a second time.
fn tells(watched: &Watched) -> bool {
    !watched.events.is_empty() || watched.overflow.is_some()
}

/// A watch of a kernel elsewhere.
pub(crate) struct RemoteWatch {
    remote: Arc<Remote>,
    /// Goes along, and the life of an agent with it.
    nx: Nexus,
    /// Since where the next watch is to tell.
    call: SysWatch,
    /// The watch that there is.
    begun: Option<Begun>,
    /// Whether what is in no log may have been missed since the one before.
    has_missed: bool,
}

struct Begun {
    watch: Numbered,
    /// Answers that came of it and told something.
    came: u64,
}

impl RemoteWatch {
    /// Begins a watch for the caller of `nx`.
    ///
    /// # Errors
    /// As [`SysWatch`]; `EBUSY` when this client has as many as it may.
    pub(crate) async fn begin(remote: &Arc<Remote>, nx: Nexus, call: SysWatch) -> Result<Self> {
        let mut watch = Self { remote: remote.clone(), nx, call, begun: None, has_missed: false };
        watch.begin_anew().await?;
        Ok(watch)
    }

    /// Where it goes on.
    pub(crate) fn cursor(&self) -> Lsn {
        self.call.since.unwrap_or_default()
    }

    /// Has the owner begin a watch that goes on where this one is. When that is not heard of, it is closed.
    async fn begin_anew(&mut self) -> Result<()> {
        let (caller, call, goes_on) = (self.nx.shared_caller(), self.call.clone(), self.has_missed);
        let watch = Numbered::new(&self.remote, caller, Use::Watch, Op::Watch, &call.path).await?;
        match watch.ask(|number| Streaming::Watch(number, call, goes_on), false).await? {
            Given::Watching(cursor) => {
                self.call.since = Some(cursor);
                self.begun = Some(Begun { watch, came: 0 });
                Ok(())
            }
            _ => Err(watch.unexpected()),
        }
    }

    async fn next_within(&mut self, wait: Option<Duration>) -> Result<Watched> {
        let mut left = wait;
        loop {
            let Some(begun) = &mut self.begun else {
                self.begin_anew().await?;
                continue;
            };
            if std::mem::take(&mut self.has_missed) {
                let mut watched = Watched::new(Vec::new(), self.cursor());
                watched.overflow = Some(self.cursor());
                return Ok(watched);
            }
            let (came, waits) = (begun.came, left.map_or(CALL_MAX, |left| left.min(CALL_MAX)));
            let watched =
                match begun.watch.ask(|number| Streaming::Events(number, came, waits), false).await? {
                    Given::Answer(Answer::Watch(watched)) => watched,
                    Given::NoWatch => {
                        begun.watch.is_gone();
                        self.begun = None;
                        self.has_missed = tells_of_what_is_in_no_log(&self.call);
                        continue;
                    }
                    _ => return Err(begun.watch.unexpected()),
                };
            // Only with the answer in hand: a call that is given up is made again.
            begun.came += u64::from(tells(&watched));
            self.call.since = Some(watched.next);
            left = left.map(|left| left.saturating_sub(waits));
            if tells(&watched) || left == Some(Duration::ZERO) {
                return Ok(watched);
            }
        }
    }
}

impl EventSource for RemoteWatch {
    fn next(&mut self, wait: Option<Duration>) -> BoxFuture<'_, Result<Watched>> {
        Box::pin(self.next_within(wait))
    }
}

/// Whether the watch is for something that nobody hears of who was not there.
fn tells_of_what_is_in_no_log(call: &SysWatch) -> bool {
    EventKind::ALL.iter().any(|kind| !kind.is_logged() && call.mask.contains(*kind))
}
