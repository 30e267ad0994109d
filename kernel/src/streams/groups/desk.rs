//! Where the groups of one open stream are asked: decided on the caller's task, made durable together with what came meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::Env;
use nexus_messages::syscall::{Delivered, Record};
use nexus_messages::{FileId, LifeId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use super::log::{GroupChange, GroupLog, GroupLogError, Groups, apply};
use super::record::{GroupRecord, Member};
use super::table::{Delivery, Group, GroupError, Wish};
use crate::hal::{READ_BYTES_MAX, ReadBounds, StoreError, StreamError, StreamStore, cost_of};
use crate::owned::Owned;
use crate::streams::stream::{Refusal, Stream};

/// How long the one who looks for records of a group may leave the others in the line: it may not be polled any more.
const LINE_MAX: Duration = Duration::from_secs(1);

/// How often it is tried to have written what nobody waits for. What is not is free when its time is over.
const ALONE_TRIES: usize = 4;

/// What was counted of all groups: records given, given again, acknowledged, dead.
pub(in crate::streams) type GroupTotals = [AtomicU64; 4];

/// The groups of a stream that is open.
pub(crate) struct Desk {
    env: Env,
    log: tokio::sync::Mutex<GroupLog>,
    state: Mutex<State>,
    /// Told when there may be something to take that was not there before.
    changed: Notify,
    totals: Arc<GroupTotals>,
}

#[derive(Default)]
struct State {
    /// The groups, with all that was decided. None: not known, to be read.
    groups: Option<Groups>,
    /// Whether it is on disk that the lives have nothing any more that ended with the process before: those who have records now may be there still.
    has_begun: bool,
    /// What was decided and is not written yet.
    pending: Vec<GroupChange>,
    /// What becomes of it.
    batch: Arc<Batch>,
    /// Those who wait for records of a group stand in a line, and the first one looks for them: so one record wakes one. The others look now and then.
    turns: BTreeMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>,
}

/// Changes that are made durable together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    outcome: OnceLock<Result<(), GroupLogError>>,
}

/// The groups, to decide about.
pub(crate) struct Deciding<'a> {
    pub(crate) groups: &'a mut Groups,
    pending: &'a mut Vec<GroupChange>,
    totals: &'a GroupTotals,
    wakes: bool,
}

impl Deciding<'_> {
    /// The group of this name.
    pub(crate) fn group(&self, name: &str) -> Result<&Group, Refusal> {
        self.groups.get(name).ok_or_else(|| Refusal::NoGroup(name.into()))
    }

    /// Takes in what was decided.
    pub(crate) fn put(&mut self, name: &Arc<str>, records: impl IntoIterator<Item = GroupRecord>) {
        for record in records {
            let was_full = self.groups.get(name).is_some_and(Group::is_full);
            let (total, count) = match &record {
                GroupRecord::Done { offsets } => (2, offsets.len()),
                GroupRecord::Died { offsets } => (3, offsets.len()),
                _ => (0, 0),
            };
            // Statistics: nothing is ordered by them.
            self.totals[total].fetch_add(count as u64, Ordering::Relaxed);
            let takes_away = matches!(
                record,
                GroupRecord::Taken { .. } | GroupRecord::Extended { .. } | GroupRecord::Buried { .. }
            );
            let frees = !matches!(record, GroupRecord::Done { .. }) || was_full;
            self.wakes |= !takes_away && frees;
            let change = (name.clone(), record);
            apply(self.groups, &change);
            self.pending.push(change);
        }
    }

    /// Frees what is overdue of a group, and passes over what its stream, which begins at `head`, let go of.
    pub(crate) fn freshen(&mut self, name: &Arc<str>, head: u64, now: Timestamp) -> Result<(), Refusal> {
        let overdue = self.group(name)?.expire(now);
        self.put(name, overdue);
        let trimmed = self.group(name)?.trimmed(head);
        self.put(name, trimmed);
        Ok(())
    }
}

/// A take.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) group: Arc<str>,
    pub(crate) wish: Wish,
    pub(crate) bytes_max: u64,
    pub(crate) wait: Option<Duration>,
}

/// Records that were given and not handed over yet: they go back when this is dropped before it is [kept](Self::keep).
pub(crate) struct Given {
    desk: Arc<Desk>,
    group: Arc<str>,
    member: Member,
    take: u64,
    is_kept: bool,
}

impl Given {
    /// They are handed over.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if !self.is_kept {
            self.desk.untake(&self.group, &self.member, self.take);
        }
    }
}

/// What a look for records found.
enum Found {
    Records(Vec<Delivery>, Arc<Batch>),
    /// None; something is to be looked at again at this time.
    Nothing(Option<Timestamp>),
    /// No more may be given; something is to be looked at again at this time.
    Full(GroupError, Option<Timestamp>),
}

impl Desk {
    pub(in crate::streams) fn new(
        env: &Env,
        store: Arc<dyn StreamStore>,
        stream: FileId,
        totals: Arc<GroupTotals>,
    ) -> Arc<Self> {
        Arc::new(Self {
            env: env.clone(),
            log: tokio::sync::Mutex::new(GroupLog::new(store, stream)),
            state: Mutex::default(),
            changed: Notify::new(),
            totals,
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.env.wall())
    }

    /// Decides, when the groups are known, and tells what has to be durable before anybody is told.
    fn decide<T>(&self, act: impl FnOnce(&mut Deciding<'_>) -> T) -> Option<(T, Arc<Batch>)> {
        let (done, batch, wakes) = {
            let mut state = self.state.lock();
            let State { groups, pending, batch, .. } = &mut *state;
            let groups = groups.as_mut()?;
            let mut deciding = Deciding { groups, pending, totals: &self.totals, wakes: false };
            let done = act(&mut deciding);
            (done, batch.clone(), deciding.wakes)
        };
        if wakes {
            self.wake();
        }
        Some((done, batch))
    }

    /// With no lock held.
    fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Reads the groups, if they are not known.
    async fn ready(self: &Arc<Self>) -> Result<(), Refusal> {
        if self.state.lock().groups.is_some() {
            return Ok(());
        }
        let desk = self.clone();
        let read = Owned::from_start(&self.env, "groups.read", async move { desk.read_groups().await });
        Ok(read.apart().await.unwrap_or(Err(StreamError::Store(StoreError::Closed).into()))?)
    }

    async fn read_groups(&self) -> Result<(), GroupLogError> {
        let mut log = self.log.lock().await;
        if self.state.lock().groups.is_some() {
            return Ok(());
        }
        let groups = log.read().await?;
        {
            let mut state = self.state.lock();
            state.groups = Some(groups);
            // Until something was written, nobody here was given anything.
            if !state.has_begun {
                // The lives that records were tied to ended with the process, or with what kept the stream.
                let State { groups: Some(groups), pending, .. } = &mut *state else { return Ok(()) };
                let left: Vec<GroupChange> = groups
                    .iter()
                    .flat_map(|(name, group)| {
                        group.leave(None).into_iter().map(|record| (name.clone(), record))
                    })
                    .collect();
                left.iter().for_each(|change| apply(groups, change));
                pending.extend(left);
            }
        }
        self.wake();
        Ok(())
    }

    /// Decides, and gives what was decided when it is durable.
    pub(crate) async fn change<T: Send>(
        self: &Arc<Self>,
        act: impl Fn(&mut Deciding<'_>) -> Result<T, Refusal> + Send,
    ) -> Result<T, Refusal> {
        let (done, batch) = loop {
            self.ready().await?;
            if let Some((done, batch)) = self.decide(&act) {
                break (done?, batch);
            }
        };
        self.settle(batch).await?;
        Ok(done)
    }

    /// As [`change`](Self::change), of what need not be durable: a look.
    pub(crate) async fn look<T>(
        self: &Arc<Self>,
        act: impl Fn(&mut Deciding<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        loop {
            self.ready().await?;
            if let Some((done, _)) = self.decide(&act) {
                return done;
            }
        }
    }

    /// Looks at the groups if they are known.
    pub(crate) fn peek<T>(&self, act: impl FnOnce(&Groups) -> T) -> Option<T> {
        self.state.lock().groups.as_ref().map(act)
    }

    /// Returns when the batch is durable. It is written also when the caller goes away.
    async fn settle(self: &Arc<Self>, batch: Arc<Batch>) -> Result<(), GroupLogError> {
        let (desk, now) = (self.clone(), self.now());
        let written =
            Owned::from_start(&self.env, "groups.write", async move { desk.write(batch, now).await });
        written.apart().await.unwrap_or_else(closed)
    }

    async fn write(&self, batch: Arc<Batch>, now: Timestamp) -> Result<(), GroupLogError> {
        let mut log = self.log.lock().await;
        if let Some(outcome) = batch.outcome.get() {
            return outcome.clone();
        }
        let (changes, whole) = {
            let mut state = self.state.lock();
            if !Arc::ptr_eq(&state.batch, &batch) {
                // Whoever wrote it went away in the middle of it, with what he runs on.
                return closed();
            }
            state.batch = Arc::default();
            let whole = if log.is_long() { state.groups.clone() } else { None };
            (std::mem::take(&mut state.pending), whole)
        };
        let written = log.append(&changes, now).await;
        // Nobody else sets it: it was taken out of the state.
        let _ = batch.outcome.set(written.clone());
        match (&written, whole) {
            (Err(_), _) => self.doubt(),
            (Ok(()), Some(whole)) => {
                self.state.lock().has_begun = true;
                if let Err(error) = log.shorten(&whole, now).await {
                    tracing::warn!(%error, "the records of consumer groups were not shortened");
                    if !matches!(error, GroupLogError::Stream(_)) || error.is_unknown() {
                        self.doubt();
                    }
                }
            }
            (Ok(()), None) => self.state.lock().has_begun = true,
        }
        written
    }

    /// What the groups are is not known any more: what was decided and not written is none.
    fn doubt(&self) {
        let batch = {
            let mut state = self.state.lock();
            state.groups = None;
            state.pending.clear();
            std::mem::take(&mut state.batch)
        };
        let _ = batch.outcome.set(Err(GroupLogError::InDoubt));
        self.wake();
    }

    /// Takes records, and gives them with how many the group has lost. None when there are none and the call does not wait.
    pub(crate) async fn take(
        self: &Arc<Self>,
        stream: &Stream,
        ask: &Ask,
    ) -> Result<(Vec<Delivered>, u64, Option<Given>), Refusal> {
        let began = self.env.now();
        let _waiting = ask.wait.map(|_| stream.wait());
        // The place in the line, and being the first.
        let (mut place, mut turn) = (None, None);
        loop {
            let left = ask.wait.map(|wait| wait.saturating_sub(self.env.now().duration_since(began)));
            let late = || Refusal::NothingCame(ask.wait.unwrap_or_default());
            // Before the look: what changes after it is heard of.
            let (records, changes) = (stream.heard(), self.changed.notified());
            let look = self.look_for(stream, ask);
            let found = match left {
                Some(left) => {
                    let in_line = async {
                        if turn.is_none() {
                            let place = place.get_or_insert_with(|| Box::pin(self.turn(&ask.group)));
                            turn = self.env.timeout(LINE_MAX, place).await.ok();
                        }
                        if turn.is_some() {
                            place = None;
                        }
                        look.await
                    };
                    match self.env.timeout(left, in_line).await {
                        Ok(found) => found,
                        // The first in line is not polled, and may have been told of what is there for this one.
                        Err(_) if turn.is_none() => {
                            let look = self.env.timeout(LINE_MAX, self.look_for(stream, ask)).await;
                            look.map_err(|_| late())?
                        }
                        Err(_) => return Err(late()),
                    }
                }
                None => look.await,
            };
            let (found, lost, tail) = found?;
            let (is_full, until) = match found {
                Found::Records(deliveries, batch) => {
                    // The next one may look.
                    turn = None;
                    if let Some(done) = self.hand_over(stream, ask, deliveries, batch, lost).await? {
                        return Ok(done);
                    }
                    continue;
                }
                Found::Nothing(_) if left.is_none() => return Ok((Vec::new(), lost, None)),
                Found::Full(error, _) if left.is_none() => return Err(Refusal::Group(error)),
                Found::Nothing(until) => (false, until),
                Found::Full(_, until) => (true, until),
            };
            let left = left.unwrap_or_default();
            // Looked at once more when the time is over, and then no more, whatever else comes meanwhile.
            if left.is_zero() {
                return Err(late());
            }
            if turn.is_none() {
                continue;
            }
            let due = until.map(|until| Duration::from_nanos(until.nanos().saturating_sub(self.env.wall())));
            let wait = due.map_or(left, |due| due.min(left));
            let change = async {
                if is_full {
                    // More records are no help to it, but that the stream is gone ends the wait.
                    let (mut records, mut changes) = (pin!(records), pin!(changes));
                    while let Either::Left(_) = select(records.as_mut(), changes.as_mut()).await {
                        records.set(stream.heard());
                        if stream.check().is_err() {
                            return;
                        }
                    }
                    return;
                }
                // Other processes may append, where the memory is theirs, too.
                let grown = stream.grown(tail);
                select(grown, select(pin!(records), pin!(changes))).await;
            };
            // Whether it came or not: the next look tells.
            let _ = self.env.timeout(wait, change).await;
        }
    }

    /// The place at the head of the line of those who wait for records of this group.
    async fn turn(&self, group: &Arc<str>) -> OwnedMutexGuard<()> {
        let line = {
            let mut state = self.state.lock();
            // No more lines than groups, and those for which somebody waits.
            state.turns.retain(|_, line| Arc::strong_count(line) > 1);
            state.turns.entry(group.clone()).or_default().clone()
        };
        line.lock_owned().await
    }

    async fn look_for(self: &Arc<Self>, stream: &Stream, ask: &Ask) -> Result<(Found, u64, u64), Refusal> {
        let name = &ask.group;
        loop {
            self.ready().await?;
            let there = stream.state_now().await?;
            let now = self.now();
            let decided = self.decide(|deciding| {
                deciding.freshen(name, there.head, now)?;
                let group = deciding.group(name)?;
                let lost = group.lost();
                let record = match group.take(&ask.wish, there.tail, now) {
                    Ok(Some(record)) => record,
                    Ok(None) => return Ok((Err(Found::Nothing(group.next_due(now))), lost)),
                    Err(full) => return Ok((Err(Found::Full(full, group.next_due(now))), lost)),
                };
                deciding.put(name, [record.clone()]);
                Ok::<_, Refusal>((Ok(deciding.group(name)?.deliveries(&record)), lost))
            });
            let Some((decided, batch)) = decided else { continue };
            let (given, lost) = decided?;
            let found = given.map_or_else(|found| found, |given| Found::Records(given, batch));
            return Ok((found, lost, there.tail));
        }
    }

    /// Reads what was given, and waits until it is durable that it was. None when nothing of it is there any more.
    async fn hand_over(
        self: &Arc<Self>,
        stream: &Stream,
        ask: &Ask,
        deliveries: Vec<Delivery>,
        batch: Arc<Batch>,
        lost: u64,
    ) -> Result<Option<(Vec<Delivered>, u64, Option<Given>)>, Refusal> {
        let (group, member, take) = (ask.group.clone(), ask.wish.member.clone(), ask.wish.take);
        let given = Given { desk: self.clone(), group, member, take, is_kept: false };
        let records = match self.read(stream, ask, &deliveries).await {
            Ok(records) => records,
            Err(error) => {
                // Counted as given: what cannot be read is dead after some time, and holds nobody up.
                self.give_back(&ask.group, &ask.wish);
                return Err(error);
            }
        };
        if records.len() < deliveries.len() {
            let kept: Vec<u64> = records.iter().map(|given| given.record.offset).collect();
            let head = stream.state_now().await?.head;
            let now = self.now();
            // It may have become another's meanwhile, whose it is then.
            let _ = self.decide(|deciding| {
                deciding.freshen(&ask.group, head, now)?;
                let rest = deciding.group(&ask.group)?.untake(&ask.wish.member, take, &kept);
                deciding.put(&ask.group, rest);
                Ok::<_, Refusal>(())
            });
        }
        self.settle(batch).await?;
        if records.is_empty() {
            return Ok(None);
        }
        let again = records.iter().filter(|given| given.deliveries > 1).count();
        self.totals[0].fetch_add(records.len() as u64, Ordering::Relaxed);
        self.totals[1].fetch_add(again as u64, Ordering::Relaxed);
        Ok(Some((records, lost, Some(given))))
    }

    /// The first of these records: as many as may be given at once, without those that are gone.
    async fn read(
        &self,
        stream: &Stream,
        ask: &Ask,
        deliveries: &[Delivery],
    ) -> Result<Vec<Delivered>, Refusal> {
        let most = ask.bytes_max.min(READ_BYTES_MAX);
        let (mut records, mut bytes): (Vec<Delivered>, u64) = (Vec::new(), 0);
        let mut rest = deliveries;
        while let Some(first) = rest.first() {
            let side_by_side =
                rest.iter().zip(first.offset..).take_while(|(given, offset)| given.offset == *offset);
            let (run, behind) = rest.split_at(side_by_side.count());
            let bounds = ReadBounds::new(run.len(), most.saturating_sub(bytes));
            let read = match stream.read_at(first.offset, bounds).await {
                Err(Refusal::Store(StreamError::Trimmed { .. })) => {
                    rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
                Err(_) if !records.is_empty() => break,
                read => read?,
            };
            let count = read.len();
            for (record, given) in read.into_iter().zip(run) {
                let cost = cost_of([record.data.len()]);
                if !records.is_empty() && bytes + cost > most {
                    return Ok(records);
                }
                bytes += cost;
                let record = Record::new(record.offset, record.at, record.data);
                records.push(Delivered::new(record, given.deliveries));
            }
            if count == 0 || bytes >= most {
                break;
            }
            rest = if count < run.len() { rest.get(count..).unwrap_or_default() } else { behind };
        }
        Ok(records)
    }

    /// What was given by a take was not given after all. Does not wait.
    fn untake(self: &Arc<Self>, group: &Arc<str>, member: &Member, take: u64) {
        let (group, member) = (group.clone(), member.clone());
        self.settle_alone(tries_of(take), move |deciding| {
            let Ok(given) = deciding.group(&group) else { return false };
            let records = given.untake(&member, take, &[]);
            let is_any = !records.is_empty();
            deciding.put(&group, records);
            is_any
        });
    }

    /// Gives back what was given by a take, which counts. Does not wait.
    fn give_back(self: &Arc<Self>, group: &Arc<str>, wish: &Wish) {
        let (group, member, take) = (group.clone(), wish.member.clone(), wish.take);
        self.settle_alone(tries_of(take), move |deciding| {
            let Ok(given) = deciding.group(&group) else { return false };
            let offsets: Vec<u64> = given.taken_by(&member, take);
            let records = given.give_back(&member, &offsets.into(), Timestamp::default()).unwrap_or_default();
            let is_any = !records.is_empty();
            deciding.put(&group, records);
            is_any
        });
    }

    /// Frees what is tied to this life. Does not wait.
    pub(crate) fn leave(self: &Arc<Self>, life: LifeId) {
        self.settle_alone(ALONE_TRIES, move |deciding| {
            let names: Vec<Arc<str>> = deciding.groups.keys().cloned().collect();
            let mut is_any = false;
            for name in names {
                let records =
                    deciding.groups.get(&name).map(|group| group.leave(Some(life))).unwrap_or_default();
                is_any |= !records.is_empty();
                deciding.put(&name, records);
            }
            is_any
        });
    }

    /// Decides what nobody waits for, and has it written; `act` says whether there is anything. Once more when the groups are not known, or are not any more when it is to be
    /// written: then nothing of it is done. Does not wait.
    fn settle_alone(
        self: &Arc<Self>,
        tries: usize,
        act: impl Fn(&mut Deciding<'_>) -> bool + Send + Sync + 'static,
    ) {
        let mut decided = self.decide(&act);
        if let Some((false, _)) = decided {
            return;
        }
        let desk = self.clone();
        self.env.spawn("groups.write", async move {
            for more in (0..tries).rev() {
                let failed = match decided {
                    Some((false, _)) => return,
                    Some((true, batch)) => match desk.write(batch, desk.now()).await {
                        Ok(()) => return,
                        Err(error) => Some(Refusal::from(error)),
                    },
                    None => desk.ready().await.err(),
                };
                if let Some(error) = failed {
                    tracing::debug!(%error, "what a consumer has no more is not free yet");
                }
                if more == 0 {
                    return;
                }
                decided = desk.decide(&act);
            }
        });
    }
}

/// How often it is tried to free what was given by the take of this number. Who sends it again under its number has what it gave, and is not to lose it to a later try.
fn tries_of(take: u64) -> usize {
    if take == 0 { ALONE_TRIES } else { 1 }
}

/// Whoever wrote is gone, with what he ran on.
fn closed() -> Result<(), GroupLogError> {
    Err(GroupLogError::Partly(StreamError::Store(StoreError::Closed)))
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("groups", &self.peek(Groups::len)).finish_non_exhaustive()
    }
}
