//! Consumer groups: the records of a stream, shared among those who work on them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use nexus_messages::syscall::{
    Chosen, Delivered, GroupAction, GroupDetail, GroupDone, GroupInfo, GroupSettings, Record, RecordRange,
    StreamStart, SysGroup, SysRead, SysTake, Taken,
};
use nexus_messages::{Error, ErrorKind, IntoPath, Op, Result, VPath};

use crate::handle::{Nexus, path};

/// How many bytes a consumer takes at once when nothing else is said.
const TAKE_BYTES: u64 = 1 << 20;

/// How long one call of a stream of deliveries waits; then the next one does.
const CALL_MAX: Duration = Duration::from_secs(60);

/// A member of a consumer group; see [`Nexus::consumer`]. What it took goes back when the life of its handle ends, and not with this value: several of one handle share what they have.
#[derive(Clone)]
pub struct Consumer {
    nx: Nexus,
    path: VPath,
    group: Arc<str>,
    batch: u32,
    hold: Option<Duration>,
}

impl Nexus {
    /// Joins the consumer group of the stream, which is made as `settings` say when there is none: it gives records from `start` on. A record is one member's at a time, until he acknowledges
    /// it: it is another's when he gives it back, lets its time pass, or when the life of his handle ends. Records, and acknowledgements, are as durable as the stream is.
    ///
    /// # Errors
    /// As [`SysGroup`].
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::{GroupSettings, StreamSpec, StreamStart};
    ///
    /// nx.make_stream("/jobs", StreamSpec::new()).await?;
    /// nx.append_records("/jobs", vec!["build".into(), "test".into()]).await?;
    ///
    /// let worker = nx.agent("worker-1")?;
    /// let consumer = worker.consumer("/jobs", "ci", StreamStart::Oldest, GroupSettings::default()).await?;
    /// let job = consumer.take(1, None).await?.remove(0);
    /// assert_eq!((&job.record.data[..], job.deliveries), (&b"build"[..], 1));
    /// drop((worker, consumer)); // It crashed, and so its work is another's.
    ///
    /// let worker = nx.agent("worker-2")?;
    /// let consumer = worker.consumer("/jobs", "ci", StreamStart::Oldest, GroupSettings::default()).await?;
    /// let jobs = consumer.take(2, None).await?;
    /// assert_eq!(jobs.iter().map(|job| job.deliveries).collect::<Vec<_>>(), [2, 1]);
    /// consumer.acknowledge(jobs.iter().map(|job| job.record.offset).collect::<Vec<_>>()).await?;
    /// assert_eq!(consumer.info().await?.info.lag, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn consumer(
        &self,
        at: impl IntoPath,
        group: impl AsRef<str>,
        start: impl Into<StreamStart>,
        settings: GroupSettings,
    ) -> Result<Consumer> {
        let (path, group) = (path(Op::Group, at)?, Arc::from(group.as_ref()));
        let consumer = Consumer { nx: self.clone(), path, group, batch: 1, hold: None };
        self.send(SysGroup::join(&consumer.path, consumer.group.clone(), start, settings)).await?;
        Ok(consumer)
    }

    /// The consumer groups of the stream, and how far each is.
    ///
    /// # Errors
    /// As [`SysGroup`].
    pub async fn groups(&self, at: impl IntoPath) -> Result<Vec<GroupInfo>> {
        let at = path(Op::Group, at)?;
        match self.send(SysGroup::list(&at)).await? {
            GroupDone::Listed(groups) => Ok(groups),
            _ => Err(other(&at)),
        }
    }

    /// A consumer group, with who has which of its records, which are to be given again, and which are dead.
    ///
    /// # Errors
    /// As [`SysGroup`].
    pub async fn group(&self, at: impl IntoPath, group: impl AsRef<str>) -> Result<GroupDetail> {
        let at = path(Op::Group, at)?;
        match self.send(SysGroup::new(&at, group.as_ref(), GroupAction::Inspect)).await? {
            GroupDone::Inspected(group) => Ok(group),
            _ => Err(other(&at)),
        }
    }

    /// Removes a consumer group; says whether there was one. Who waits for its records is told.
    ///
    /// # Errors
    /// As [`SysGroup`].
    pub async fn remove_group(&self, at: impl IntoPath, group: impl AsRef<str>) -> Result<bool> {
        let at = path(Op::Group, at)?;
        match self.send(SysGroup::new(&at, group.as_ref(), GroupAction::Remove)).await? {
            GroupDone::Settled(removed) => Ok(removed > 0),
            _ => Err(other(&at)),
        }
    }
}

/// What cannot be: a call is answered as what it is.
fn other(at: &VPath) -> Error {
    Error::new(Op::Group, at, ErrorKind::Io).because("the answer is that of another call")
}

impl Consumer {
    /// The stream.
    pub fn path(&self) -> &VPath {
        &self.path
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Keeps what it takes for so long before it is another's, and not for as long as the group says.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Takes at most so many records at once when it is used [as a stream](Self::into_stream).
    #[must_use]
    pub fn batch(mut self, records: u32) -> Self {
        self.batch = records;
        self
    }

    /// Up to `most` records, which it waits for so long; none when there are none, or none came. Dropping the future gives back what it was given, which does not count.
    ///
    /// # Errors
    /// As [`SysTake`].
    pub async fn take(&self, most: u32, wait: Option<Duration>) -> Result<Vec<Delivered>> {
        Ok(self.take_batch(most, wait).await?.records)
    }

    /// As [`take`](Self::take), with how many records the stream let go of before anybody acknowledged them.
    ///
    /// # Errors
    /// As [`SysTake`].
    pub async fn take_batch(&self, most: u32, wait: Option<Duration>) -> Result<Taken> {
        let mut call = SysTake::new(&self.path, self.group.clone()).records_max(most).bytes_max(TAKE_BYTES);
        (call.wait, call.hold) = (wait, self.hold);
        match self.nx.send(call).await {
            Err(error) if wait.is_some() && error.kind() == ErrorKind::TimedOut => Ok(Taken::default()),
            taken => taken,
        }
    }

    /// Is done with these: they are not given again. Returns when that is as durable as the stream.
    ///
    /// # Errors
    /// `EPERM` when one is not this consumer's, or not any more; then it is done with none of them.
    pub async fn acknowledge(&self, which: impl Into<Chosen>) -> Result<u64> {
        self.settle(GroupAction::Acknowledge(which.into())).await
    }

    /// Gives these back: they are given again at once, or are dead when they were given too often.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn give_back(&self, which: impl Into<Chosen>) -> Result<u64> {
        self.give_back_for(which, Duration::ZERO).await
    }

    /// As [`give_back`](Self::give_back); they are given again after `delay`.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn give_back_for(&self, which: impl Into<Chosen>, delay: Duration) -> Result<u64> {
        self.settle(GroupAction::GiveBack { which: which.into(), delay }).await
    }

    /// Keeps these for as long again, from now on.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn extend(&self, which: impl Into<Chosen>) -> Result<u64> {
        self.settle(GroupAction::Extend { which: which.into(), hold: self.hold }).await
    }

    /// The group, with who has which of its records.
    ///
    /// # Errors
    /// As [`SysGroup`].
    pub async fn info(&self) -> Result<GroupDetail> {
        self.nx.group(&self.path, &self.group).await
    }

    /// The dead records that the stream still has: those that were given too often. They stay listed until they are [buried](Self::bury) or [revived](Self::revive).
    ///
    /// # Errors
    /// As [`SysGroup`] and [`SysRead`].
    pub async fn dead(&self) -> Result<Vec<Delivered>> {
        let mut found = Vec::new();
        for dead in self.info().await?.dead {
            let call = SysRead::at(&self.path).records(RecordRange::from(dead.offset).records_max(1));
            let records: Vec<Record> = match self.nx.send(call).await {
                // It went meanwhile.
                Err(error) if error.kind() == ErrorKind::NotKept => continue,
                read => read?.records.map(|records| records.records).unwrap_or_default(),
            };
            found.extend(records.into_iter().map(|record| Delivered::new(record, dead.deliveries)));
        }
        Ok(found)
    }

    /// Lists these dead records no more; says how many those were.
    ///
    /// # Errors
    /// As [`SysGroup`].
    pub async fn bury(&self, offsets: Vec<u64>) -> Result<u64> {
        self.settle(GroupAction::Bury(offsets)).await
    }

    /// Has these dead records given again, as if they had never been given; says how many those were.
    ///
    /// # Errors
    /// As [`SysGroup`].
    pub async fn revive(&self, offsets: Vec<u64>) -> Result<u64> {
        self.settle(GroupAction::Revive(offsets)).await
    }

    async fn settle(&self, action: GroupAction) -> Result<u64> {
        match self.nx.send(SysGroup::new(&self.path, self.group.clone(), action)).await? {
            GroupDone::Settled(count) => Ok(count),
            _ => Err(other(&self.path)),
        }
    }

    /// As a stream, for what works on streams: record after record, each of which is to be acknowledged. It ends after an error. With a [batch](Self::batch) above one, records are
    /// taken ahead of their turn, and their time runs.
    pub fn into_stream(self) -> impl Stream<Item = Result<Delivered>> + Send {
        let ahead: VecDeque<Delivered> = VecDeque::new();
        stream::unfold(Some((self, ahead)), |state| async move {
            let (consumer, mut ahead) = state?;
            loop {
                if let Some(next) = ahead.pop_front() {
                    return Some((Ok(next), Some((consumer, ahead))));
                }
                match consumer.take(consumer.batch, Some(CALL_MAX)).await {
                    Ok(taken) => ahead.extend(taken),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("path", &self.path)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
