//! Waiting for changes.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream};
use nexus_kernel::watcher::EventSource;
use nexus_messages::syscall::{SysWatch, Watched};
use nexus_messages::{Error, Event, EventMask, IntoPath, Lsn, Op, Result};

use crate::attach::RemoteWatch;
use crate::handle::{Link, Nexus, path};

/// A watch that is being put together; see [`Nexus::watch`].
#[derive(Debug, Clone)]
#[must_use = "nothing is watched before it is asked for events"]
pub struct WatchBuilder {
    nx: Nexus,
    call: Result<SysWatch>,
}

/// What a watch gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// Something happened.
    Event(Event),
    /// Events came faster than they were taken, or the connection to the kernel was another for a while. What was committed after this place comes next, from the log; what is in no log is lost.
    Overflow(Lsn),
}

/// The events of a watch, one after the other, without an end; see [`WatchBuilder::stream`].
pub struct EventStream {
    source: Box<dyn EventSource>,
    ready: std::vec::IntoIter<Event>,
    /// Comes behind what is ready: some did not fit.
    overflow: Option<Lsn>,
    /// Where to go on when all that is ready was given.
    next: Lsn,
    /// Where the watch went on when the events came that are given now: all before was given.
    given: Lsn,
    is_over: bool,
}

impl Nexus {
    /// Watches the path and all below it: what [`SysWatch`] tells. It need not exist.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::{EventKind, WatchItem};
    ///
    /// let mut events = nx.watch("/inbox").mask(EventKind::FileWritten).stream().await?;
    /// nx.write("/inbox/1", "hello").await?;
    /// let Some(WatchItem::Event(event)) = events.next().await.transpose()? else { panic!() };
    /// assert_eq!((event.path.as_str(), event.size, event.is_new), ("/inbox/1", 5, true));
    ///
    /// // Later, also after a restart: what was since then.
    /// nx.write("/inbox/2", "again").await?;
    /// let batch = nx.watch("/inbox").since(event.lsn).batch(std::time::Duration::ZERO).await?;
    /// assert_eq!(batch.events[0].path, "/inbox/2");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn watch(&self, at: impl IntoPath) -> WatchBuilder {
        WatchBuilder { nx: self.clone(), call: path(Op::Watch, at).map(SysWatch::at) }
    }

    /// Watches the paths that match `pattern`, as [`glob`](Self::glob) reads it: `*` and `?` do not match `/`, `**` does. What it begins with, up to its first
    /// wildcard, is a path of which links are followed.
    pub fn watch_glob(&self, pattern: impl AsRef<str>) -> WatchBuilder {
        let pattern = pattern.as_ref();
        let call = SysWatch::glob(pattern).map_err(|why| Error::bad_path(Op::Watch, pattern, &why));
        WatchBuilder { nx: self.clone(), call }
    }
}

impl WatchBuilder {
    fn with(mut self, change: impl FnOnce(SysWatch) -> SysWatch) -> Self {
        self.call = self.call.map(change);
        self
    }

    /// Only these kinds of events.
    pub fn mask(self, mask: impl Into<EventMask>) -> Self {
        self.with(|call| call.mask(mask))
    }

    /// Only what happens at the path itself.
    pub fn alone(self) -> Self {
        self.with(SysWatch::alone)
    }

    /// Only paths below it that match this pattern from there on.
    pub fn matching(self, pattern: impl Into<Arc<str>>) -> Self {
        self.with(|call| call.matching(pattern))
    }

    /// From after this commit on, which may be long ago, and before a restart: each event since then, once.
    pub fn since(self, since: Lsn) -> Self {
        self.with(|call| call.since(since))
    }

    /// At most so many events at once, if one commit has not more.
    pub fn limit(self, limit: NonZeroU32) -> Self {
        self.with(|call| call.limit(limit))
    }

    /// The next events, and where to go on; none when nothing happens for as long as `wait`. Each call is a watch of its own: what happens between two is told
    /// to who asks [since](Self::since) the first one's `next`.
    ///
    /// # Errors
    /// As [`SysWatch`].
    pub async fn batch(self, wait: Duration) -> Result<Watched> {
        self.nx.send(self.call?.wait(wait)).await
    }

    /// The next event alone; none when nothing happens for as long as `wait`. Others of the same commit are left out.
    ///
    /// # Errors
    /// As [`SysWatch`].
    pub async fn one(self, wait: Duration) -> Result<Option<Event>> {
        let watched = self.limit(NonZeroU32::MIN).batch(wait).await?;
        Ok(watched.events.into_iter().next())
    }

    /// A stream of all events from here on, or since the place that was asked for. When it is returned, what is committed from then on is in it. It is its reader who
    /// must keep up: up to [`QUEUE_MAX`](nexus_kernel::watcher::QUEUE_MAX) events wait for him, and then he is told so and goes on from the log.
    ///
    /// On an [attached](crate::attach()) handle the events wait in the process of the kernel. When the connection is lost between two calls it goes on from the log on the
    /// next one, and says so as an [overflow](WatchItem::Overflow) if it is for what is in no log.
    ///
    /// # Errors
    /// As [`SysWatch`]; `EBUSY` when an attached client has as many as it may.
    pub async fn stream(self) -> Result<EventStream> {
        let (nx, call) = (self.nx, self.call?);
        let (source, next): (Box<dyn EventSource>, Lsn) = match &nx.link {
            Link::Local(machine) if machine.is_stopping() => {
                return Err(machine.told(Error::new(Op::Watch, &call.path, nexus_messages::ErrorKind::Down)));
            }
            Link::Local(machine) => {
                let opened = machine.kernel.watch(nx.shared_caller(), call).await;
                let watch = opened.map_err(|error| machine.told(error))?;
                let next = watch.cursor();
                // The handle goes along: a kernel that is watched does not end by itself.
                (Box::new(LocalWatch { watch, nx: nx.clone() }), next)
            }
            Link::Remote(remote) => {
                let remote = remote.clone();
                let watch = RemoteWatch::begin(&remote, nx, call).await?;
                let next = watch.cursor();
                (Box::new(watch), next)
            }
        };
        Ok(EventStream {
            source,
            ready: Vec::new().into_iter(),
            overflow: None,
            next,
            given: next,
            is_over: false,
        })
    }
}

/// A watch of the kernel of this process.
struct LocalWatch {
    watch: nexus_kernel::watcher::Watch,
    nx: Nexus,
}

impl EventSource for LocalWatch {
    fn next(&mut self, wait: Option<Duration>) -> BoxFuture<'_, Result<Watched>> {
        Box::pin(async move {
            let told = self.watch.next(wait).await;
            told.map_err(|error| match &self.nx.link {
                Link::Local(machine) => machine.told(error),
                Link::Remote(_) => error,
            })
        })
    }
}

impl EventStream {
    /// The next event; none after an error. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<WatchItem>> {
        self.next_within(None).await
    }

    /// As [`next`](Self::next), waiting for as long as `wait`; none when nothing happens in that time.
    pub async fn next_for(&mut self, wait: Duration) -> Option<Result<WatchItem>> {
        self.next_within(Some(wait)).await
    }

    async fn next_within(&mut self, wait: Option<Duration>) -> Option<Result<WatchItem>> {
        if self.ready.len() == 0 && self.overflow.is_none() && !self.is_over {
            match self.source.next(wait).await {
                Ok(Watched { events, next, overflow, .. }) => {
                    self.ready = events.into_iter();
                    self.overflow = overflow;
                    self.given = std::mem::replace(&mut self.next, next);
                }
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
        let overflow = || self.overflow.take().map(WatchItem::Overflow);
        self.ready.next().map(WatchItem::Event).or_else(overflow).map(Ok)
    }

    /// Where a watch goes on that has seen what this stream has given: all of a commit when a part of it was not given yet.
    pub fn cursor(&self) -> Lsn {
        match self.ready.as_slice().first() {
            Some(event) if event.kind.is_logged() => Lsn(event.lsn.0.saturating_sub(1)),
            // It may have been told long before: what was given since then is not given again.
            Some(event) => event.lsn.max(self.given),
            None => self.next,
        }
    }

    /// As a stream, for what works on streams. It ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchItem>> + Send {
        stream::unfold(self, |mut events| async move { events.next().await.map(|item| (item, events)) })
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use nexus_actors::block_on;
    use nexus_messages::{Caller, EntryType, EventKind, OpId, VPath};

    use super::*;

    /// Gives these, and where to go on behind each.
    struct Told(std::vec::IntoIter<(Vec<Event>, u64)>);

    impl EventSource for Told {
        fn next(&mut self, _: Option<Duration>) -> BoxFuture<'_, Result<Watched>> {
            let (events, next) = self.0.next().expect("no more is asked for");
            Box::pin(std::future::ready(Ok(Watched::new(events, Lsn(next)))))
        }
    }

    fn event(kind: EventKind, lsn: u64) -> Event {
        let path = VPath::parse("/f").expect("it is one");
        let mut event = Event::new(kind, path, EntryType::Reg, Arc::new(Caller::administrator()), OpId(1));
        event.lsn = Lsn(lsn);
        event
    }

    #[test]
    fn a_cursor_does_not_go_back_to_where_a_lock_was_taken_that_is_told_late() {
        let (write, lock) = (EventKind::FileWritten, EventKind::Locked);
        // From the log first, and then what was told meanwhile and is in no log.
        let told = vec![
            (vec![event(write, 4), event(write, 7)], 9),
            (vec![event(lock, 5), event(lock, 9), event(write, 10)], 10),
        ];
        let source = Box::new(Told(told.into_iter()));
        let ready = Vec::new().into_iter();
        let (overflow, is_over, next, given) = (None, false, Lsn(3), Lsn(3));
        let mut events = EventStream { source, ready, overflow, next, given, is_over };
        let mut seen = vec![events.cursor().0];
        for _ in 0..5 {
            block_on(events.next()).expect("there is more").expect("it is told");
            seen.push(events.cursor().0);
        }
        assert_eq!(seen, [3, 6, 9, 9, 9, 10]);
    }
}
