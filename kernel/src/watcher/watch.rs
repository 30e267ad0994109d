//! One watch, on its owner's task: what was, from the log, and what comes, from its queue, without a gap or a double at the seam.
//!
//! A subscription is published first, and the end of the log is looked up then. A commit up to that end is told from the log, and left out of the queue; a later
//! one was made when the subscription was there to be found, so it is in the queue, or the queue says from where something is missing in it.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nexus_messages::syscall::{SysWatch, Watched};
use nexus_messages::{Caller, Error, ErrorKind, Event, EventKind, Lsn, Result, VPath};

use super::events::heard;
use super::messages::{Subscribe, SubscribeError, Unsubscribe};
use super::subscription::{Heard, Subscription, Taken, Wanted};
use crate::gate::{Owner, Right};
use crate::hal::StoreError;
use crate::kernel::{Kernel, call_kind, down};
use crate::volume::store_error;

/// How many records of the log are looked at in one step.
const PAGE: usize = 256;

/// How long the actor may take to take a subscription up.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(10);

/// How long to wait for a flush before it is looked again whether there was one.
const FLUSH_LOOK: Duration = Duration::from_secs(1);

/// Where events come from: a kernel of this process, or one elsewhere.
pub trait EventSource: Send {
    /// The next events, in the order of their commits, and where to go on; at least one event, or what says that some did not fit. Waits for the first one
    /// for as long as `wait`, for ever with none, and gives no event when that time is over. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `ENODATA` when the log does not tell any more what is to be told next, with the oldest place that it tells from: [`Error::oldest`]. `ESHUTDOWN` when
    /// the kernel has ended. What a connection says, where there is one.
    fn next(&mut self, wait: Option<Duration>) -> BoxFuture<'_, Result<Watched>>;
}

/// A watch that was begun. It ends when it is dropped.
pub struct Watch {
    kernel: Arc<Kernel>,
    one: Arc<Subscription>,
    is_asked: bool,
    is_published: bool,
    limit: usize,
    /// All up to here was told.
    cursor: Lsn,
    /// Where it was said to go on: never before that.
    told: Lsn,
    from: From,
    /// What is to be told next, before it is known whether its owner may hear of it.
    raw: VecDeque<Arc<Heard>>,
    /// The place in the log of the last of it.
    raw_to: Lsn,
    shown: Vec<Event>,
}

/// Where the next events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// In the log: up to this place, or to its end.
    Log(Option<Lsn>),
    /// In the queue, those after this place in the log.
    Queue(Lsn),
}

/// What a step came to.
enum Step {
    Done,
    /// Some did not fit.
    Overflow(Lsn),
    /// Nothing is there yet.
    Nothing,
}

impl Watch {
    /// A watch of what is `wanted`. It is not told of what comes before it is [published](Self::publish).
    pub(crate) fn new(kernel: &Arc<Kernel>, wanted: Wanted, limit: usize) -> Self {
        let cursor = wanted.since.unwrap_or_default();
        Self {
            one: Arc::new(Subscription::new(kernel.watches().new_id(), wanted)),
            kernel: kernel.clone(),
            is_asked: false,
            is_published: false,
            limit,
            cursor,
            told: cursor,
            from: From::Log(None),
            raw: VecDeque::new(),
            raw_to: cursor,
            shown: Vec::new(),
        }
    }

    /// Where to go on: all before it was told.
    pub fn cursor(&self) -> Lsn {
        if self.cursor <= self.told {
            return self.told;
        }
        // What is not on disk may never have been.
        self.durable().map_or(self.told, |durable| self.cursor.min(durable).max(self.told))
    }

    /// Up to where all is on disk; none when the log is closed, and does not say any more.
    fn durable(&self) -> Option<Lsn> {
        self.kernel.store().metastore().durable_lsn(self.one.tree).ok()
    }

    /// What is told next, and where to go on behind it.
    fn watched(&mut self, events: Vec<Event>) -> Watched {
        // What is told waited for that it is on disk, whatever the log says by now.
        let logged = events.iter().filter(|event| event.kind.is_logged()).map(|event| event.lsn);
        self.told = self.told.max(logged.max().unwrap_or_default());
        self.told = self.cursor();
        Watched::new(events, self.told)
    }

    /// As [`EventSource::next`].
    ///
    /// # Errors
    /// As [`EventSource::next`].
    pub async fn next(&mut self, wait: Option<Duration>) -> Result<Watched> {
        if let Some(found) = self.look(false).await? {
            return Ok(found);
        }
        if wait == Some(Duration::ZERO) {
            return Ok(self.nothing());
        }
        let env = self.kernel.env().clone();
        let waited = match wait {
            Some(wait) => env.timeout(wait, self.look(true)).await,
            None => Ok(self.look(true).await),
        };
        match waited {
            Ok(found) => Ok(found?.unwrap_or_else(|| self.nothing())),
            Err(_) => Ok(self.nothing()),
        }
    }

    /// No event, and up to where there was none.
    fn nothing(&mut self) -> Watched {
        if let From::Queue(_) = self.from
            && self.raw.is_empty()
            && self.shown.is_empty()
        {
            // Before the look into the queue: what is told up to there is in it.
            let through = self.kernel.watches().through(self.one.tree);
            if self.one.is_empty() {
                self.cursor = self.cursor.max(through);
            }
        }
        self.watched(Vec::new())
    }

    /// One step after the other until there is something to tell. What is seldom waited for is boxed: who is woken frees the whole of this, and that is quicker
    /// while it is small.
    async fn look(&mut self, may_wait: bool) -> Result<Option<Watched>> {
        loop {
            if !self.raw.is_empty() && self.sees_all() {
                self.shown.extend(self.raw.drain(..).map(event_of));
            }
            while let Some(next) = self.raw.front().cloned() {
                let shown = Box::pin(self.visible(&next)).await;
                // Only now: dropped before, it is looked at again.
                self.raw.pop_front();
                self.shown.extend(shown);
            }
            self.cursor = self.cursor.max(self.raw_to);
            if !self.shown.is_empty() {
                let shown = std::mem::take(&mut self.shown);
                return Ok(Some(self.watched(shown)));
            }
            if self.kernel.watches().is_closed() {
                return Err(self.error(ErrorKind::Down));
            }
            let seen = self.kernel.store().progress();
            let step = match self.from {
                From::Log(to) => self.read(to)?,
                From::Queue(told) => self.take(told),
            };
            match step {
                Step::Done => {}
                Step::Overflow(from) => {
                    let mut watched = self.watched(Vec::new());
                    watched.overflow = Some(from);
                    return Ok(Some(watched));
                }
                // Of one that has its subscription the end is looked up without a wait, behind which the queue is.
                Step::Nothing if self.is_published && self.from == From::Log(None) => {
                    Box::pin(self.publish()).await?;
                }
                Step::Nothing if !may_wait => return Ok(None),
                Step::Nothing => match self.from {
                    From::Log(None) => Box::pin(self.publish()).await?,
                    // Up to there all is committed, and some of it not on disk.
                    From::Log(Some(_)) => Box::pin(self.kernel.store().committed(seen, FLUSH_LOOK)).await,
                    From::Queue(_) => self.queued().await,
                },
            }
            if matches!(self.from, From::Log(_)) {
                breathe().await;
            }
        }
    }

    /// Has what is committed from now on queued, and reads the log up to there. Without a place to begin at, it begins now.
    pub(crate) async fn publish(&mut self) -> Result<()> {
        if !self.is_asked && self.one.since.is_none() && self.cursor == Lsn::default() {
            // Now, and not when the answer comes: others see it in the table before that, and may count on it.
            let now = self.end()?;
            (self.cursor, self.raw_to) = (now, now);
            self.told = self.cursor();
        }
        if !self.is_published {
            // From here on it is taken back: whether the actor has it is not known when the answer does not come. It is asked again then, which does nothing
            // to one that it has.
            self.is_asked = true;
            match self.kernel.watcher().call(Subscribe(self.one.clone()), SUBSCRIBE_MAX).await {
                Ok(Ok(())) => self.is_published = true,
                Ok(Err(why @ SubscribeError::TooMany { .. })) => {
                    return Err(self.error(ErrorKind::Busy).because(why));
                }
                Ok(Err(why)) => return Err(self.error(ErrorKind::Crashed).because(why)),
                Err(error) => return Err(down(self.error(call_kind(error)), error)),
            }
        }
        let end = self.end()?;
        self.from = From::Log(Some(end));
        Ok(())
    }

    /// Lets a watch that is not published begin at the end of the log.
    pub(crate) fn begin_at_end(&mut self) -> Result<()> {
        let end = self.end()?;
        (self.cursor, self.raw_to) = (end, end);
        self.told = self.cursor();
        Ok(())
    }

    fn end(&self) -> Result<Lsn> {
        self.kernel.store().last_lsn(self.one.tree).map_err(|error| self.failed(&error))
    }

    /// Reads the next records of the log, up to this place.
    fn read(&mut self, to: Option<Lsn>) -> Result<Step> {
        if let Some(end) = to
            && self.cursor >= end
        {
            self.from = From::Queue(end);
            return Ok(Step::Done);
        }
        let log = self.kernel.store().metastore();
        let page = log.changes(self.one.tree, self.cursor, PAGE).map_err(|error| self.failed(&error))?;
        let Some(first) = page.first() else { return Ok(Step::Nothing) };
        if first.lsn.0 != self.cursor.0 + 1 {
            let error = self.error(ErrorKind::NotKept).since_oldest(Lsn(first.lsn.0.saturating_sub(1)));
            let why =
                format!("the log tells changes since {}, and not since {}", first.lsn.0 - 1, self.cursor);
            return Err(error.because(why));
        }
        for record in page {
            if to.is_some_and(|to| record.lsn > to) || self.raw.len() >= self.limit {
                break;
            }
            self.raw_to = record.lsn;
            self.raw.extend(
                heard(&record, &self.one.zone).into_iter().filter(|heard| self.one.concerns(heard.facts())),
            );
        }
        Ok(Step::Done)
    }

    /// Takes what is queued.
    fn take(&mut self, told: Lsn) -> Step {
        let Taken { events, last, overflow } = self.one.take(self.limit, told.max(self.cursor));
        if let Some(from) = overflow {
            // The log has it. Its end is looked up later: what is told before the mark is taken is not queued, and would lie behind an end from before that.
            let from = from.max(self.cursor);
            (self.cursor, self.raw_to) = (from, from);
            self.from = From::Log(None);
            return Step::Overflow(from);
        }
        if events.is_empty() {
            return Step::Nothing;
        }
        self.raw_to = last.unwrap_or(self.raw_to);
        if self.sees_all() {
            self.shown.reserve_exact(events.len());
            self.shown.extend(events.into_iter().map(event_of));
        } else {
            self.raw.extend(events);
        }
        Step::Done
    }

    /// Waits until something is queued, or the kernel ends.
    async fn queued(&self) {
        poll_fn(|cx| {
            self.one.register(cx);
            let is_there = !self.one.is_empty() || self.kernel.watches().is_closed();
            if is_there { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// What its owner may hear of an event. Of a rename one of whose paths he may not read, the other one is told alone; of a copy, its source is left out.
    async fn visible(&self, heard: &Heard) -> Option<Event> {
        let mut event = heard.event.clone();
        let owner = Some(&*heard.owner);
        let sees_path = self.sees(&event.path, owner).await;
        if let Some(other) = event.other.take() {
            let is_renamed = event.kind == EventKind::Renamed;
            let sees_other = self.sees(&other, owner.filter(|_| is_renamed)).await;
            match (sees_path, sees_other) {
                (true, true) => event.other = Some(other),
                (false, true) if is_renamed => event.path = other,
                (true, false) => {}
                (false, _) => return None,
            }
        } else if !sees_path {
            return None;
        }
        let told = Heard { event, owner: heard.owner.clone() };
        self.one.concerns(told.facts()).then_some(told.event)
    }

    fn sees_all(&self) -> bool {
        !self.kernel.gate().is_guarded() && self.one.zone == self.one.caller.zone
    }

    /// Whether its owner sees this path in the log's zone, and may read what is there.
    async fn sees(&self, path: &VPath, owner: Option<&str>) -> bool {
        let caller: &Caller = &self.one.caller;
        if self.one.zone != caller.zone {
            // A mount of his own zone covers it.
            let covered = self.kernel.routes().read(|routes| {
                routes.route(&caller.zone, path).is_some_and(|route| route.mount.zone == caller.zone)
            });
            if covered {
                return false;
            }
        }
        let owner = owner.map(|agent| Owner { zone: &self.one.zone, agent });
        self.kernel.gate().pass(caller, Right::Read, path, owner).await.is_ok()
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(SysWatch::OP, &self.one.base, kind)
    }

    fn failed(&self, error: &StoreError) -> Error {
        store_error(SysWatch::OP, &self.one.base, error)
    }
}

impl EventSource for Watch {
    fn next(&mut self, wait: Option<Duration>) -> BoxFuture<'_, Result<Watched>> {
        Box::pin(self.next(wait))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_asked {
            // At once: nothing is queued or listed from here on. The actor that hears of it, or sees it later, only tidies up.
            self.one.leave();
            let _ = self.kernel.watcher().tell(Unsubscribe(self.one.clone()));
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("of", &self.one).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// An event to whom nothing of it is hidden.
fn event_of(heard: Arc<Heard>) -> Event {
    Arc::unwrap_or_clone(heard).event
}

/// Lets others run on this thread, between two looks at the disk.
async fn breathe() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
