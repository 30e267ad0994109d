//! Writes the audit log.
//!
//! Owns:       the refusals that it has heard of and not logged yet; publishes them, and how far the logs are, as its view. The logs are files.
//! Asks:       the kernel, as `service:NAME`: for commits, and to read and append to its files.
//! On restart: reads where each log ends. Refusals that were not logged yet are in the view, and are logged then.
//! Bounds:     `RECORDS_MAX` records an append, `REFUSALS_MAX` refusals that wait, `COMMITS_MAX` commits read at once, `SEGMENTS_MAX` segments
//!             read for one page of a query. A segment has at most `segment_bytes`, the records of one commit, and its seal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus_kernel::service::{Completed, Declaration, Service, Setup, Syscalls};
use nexus_messages::{Error, ErrorKind, Lsn, Op, Result, Timestamp, VPath, ZoneId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::files::{self, End};
use super::spec::{AuditConfig, CaughtUp, Page, Query, Verified, Verify, declare};
use super::state::{Broken, Entry, Link, Log, Own, REFUSALS_MAX, Record, name_of, take, verify_segment};

/// How many commits are read at once.
const COMMITS_MAX: usize = 1_024;
/// How many segments are read for one page of a query.
const SEGMENTS_MAX: usize = 64;
/// After this time it looks for commits even when it was told of none.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long somebody waits for the log at most. Whoever asked may be gone by then, and must not keep others from asking.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(30);
/// How long it waits after an error before it tries again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The service. Registered with [`AuditConfig`], asked with [`CaughtUp`], [`Query`] and [`Verify`].
pub struct Audit {
    setup: Setup<Self>,
    shared: Arc<Shared>,
}

/// What the audit log publishes: what its hook decides by, and how it is.
pub struct AuditView {
    directory: VPath,
    open_to_administrators: bool,
    shared: Arc<Shared>,
}

/// What outlives an incarnation, and a version.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be logged.
    heard: Notify,
    /// A log went on, or cannot.
    went_on: Notify,
}

#[derive(Default)]
struct State {
    /// How far each zone's log is; what is up to here is in the files.
    through: BTreeMap<ZoneId, Lsn>,
    refusals: VecDeque<Refused>,
    missed: u64,
    failure: Option<Error>,
}

struct Refused {
    zone: ZoneId,
    at: Timestamp,
    entry: Entry,
}

impl AuditView {
    /// Where its files are.
    pub fn directory(&self) -> &VPath {
        &self.directory
    }

    /// How far the log of `zone` is; none before it was looked at.
    pub fn through(&self, zone: &ZoneId) -> Option<Lsn> {
        self.shared.state.lock().through.get(zone).copied()
    }

    /// What keeps it from going on; none while it does. It tries again, and catches up by itself.
    pub fn failure(&self) -> Option<Error> {
        self.shared.state.lock().failure.clone()
    }

    pub(super) fn is_open_to_administrators(&self) -> bool {
        self.open_to_administrators
    }
}

/// Begins to write. Told to itself by the incarnation of this number, past all that waits: a full mailbox must keep none from beginning.
struct Begin(u64);

impl Message for Begin {
    type Reply = ();
    const NAME: &'static str = "audit.begin";
}

impl Behaviour for Audit {
    type Args = Setup<Self>;
    const NAME: &'static str = "audit";

    fn init(
        setup: Setup<Self>,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, std::result::Result<Self, ExitReason>> {
        Box::pin(async move {
            let before = setup.view().get().or_else(|| {
                // On trial it writes nothing, and its failing to is not that of the one that serves.
                setup.predecessor::<AuditView>().filter(|_| !setup.is_on_trial())
            });
            // How far the logs are is true of these files alone.
            let before = before.filter(|view| view.directory == setup.config().directory);
            let shared = before.map(|view| view.shared.clone()).unwrap_or_default();
            let view = AuditView {
                directory: setup.config().directory.clone(),
                open_to_administrators: setup.config().open_to_administrators,
                shared: shared.clone(),
            };
            setup.publish(start.generation(), view).map_err(ExitReason::error)?;
            if !setup.is_on_trial() {
                start.me().signal(Begin(start.generation())).map_err(ExitReason::error)?;
            }
            Ok(Self { setup, shared })
        })
    }
}

impl Service for Audit {
    const VERSION: &'static str = "1.0.0";
    type Config = AuditConfig;
    type View = AuditView;

    fn declare(config: &AuditConfig) -> Declaration<Self> {
        declare(config)
    }
}

impl Handle<Begin> for Audit {
    fn handle(&mut self, Begin(generation): Begin, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if generation != cx.generation() {
            // One that ended before it came to this.
            return Reply::Now(());
        }
        let writer = Writer {
            calls: self.setup.calls().clone(),
            config: self.setup.config().clone(),
            shared: self.shared.clone(),
            changes: BTreeMap::new(),
            refusals: BTreeMap::new(),
        };
        let env = cx.env().clone();
        cx.spawn(writer.write(env), |_, _, ()| {});
        Reply::Now(())
    }
}

impl Handle<Completed> for Audit {
    fn handle(&mut self, m: Completed, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let Some(error) = m.outcome.error else { return Reply::Now(()) };
        let entry = Entry::Refusal {
            op_id: m.context.op_id,
            agent: m.context.caller.agent.clone(),
            op: m.context.call.op(),
            path: m.context.call.path().clone(),
            other: m.context.call.other_path().cloned(),
            error: error.kind(),
            cause: error.cause().map(str::to_owned),
        };
        let refused = Refused { zone: m.context.caller.zone.clone(), at: Timestamp(cx.env().wall()), entry };
        let mut state = self.shared.state.lock();
        if state.refusals.len() < REFUSALS_MAX {
            state.refusals.push_back(refused);
        } else {
            state.missed += 1;
        }
        drop(state);
        self.shared.heard.notify_one();
        Reply::Now(())
    }
}

impl Handle<CaughtUp> for Audit {
    fn handle(&mut self, m: CaughtUp, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<Lsn>> {
        let (calls, shared, env) = (self.setup.calls().clone(), self.shared.clone(), cx.env().clone());
        Reply::later(async move {
            match env.timeout(CAUGHT_UP_MAX, caught_up(&calls, &shared, &m)).await {
                Ok(caught_up) => caught_up,
                Err(_) => {
                    let error = Error::global(Op::Service, ErrorKind::TimedOut);
                    Err(error.because(format!("the log did not come to {} within {CAUGHT_UP_MAX:?}", m.lsn)))
                }
            }
        })
    }
}

/// Waits for as long as the log goes on.
async fn caught_up(calls: &Syscalls, shared: &Shared, m: &CaughtUp) -> Result<Lsn> {
    let mut committed = false;
    loop {
        // Registered before the look, so that a step in between is not missed.
        let mut went_on = std::pin::pin!(shared.went_on.notified());
        went_on.as_mut().enable();
        {
            let state = shared.state.lock();
            if let Some(through) = state.through.get(&m.zone).filter(|through| **through >= m.lsn) {
                return Ok(*through);
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
        }
        if !committed && calls.commits(&m.zone, Lsn(m.lsn.0.saturating_sub(1)), 1)?.records.is_empty() {
            let error = Error::global(Op::Service, ErrorKind::InvalidArgument);
            return Err(error.because(format!(
                "{} was not committed in the zone {}",
                m.lsn,
                m.zone.as_str()
            )));
        }
        committed = true;
        went_on.await;
    }
}

impl Handle<Query> for Audit {
    fn handle(&mut self, m: Query, _: &mut Cx<'_, Self>) -> Reply<Self, Result<Page>> {
        let (calls, directory) = (self.setup.calls().clone(), self.setup.config().directory.clone());
        Reply::later(async move { look_for(&calls, &directory, &m).await })
    }
}

impl Handle<Verify> for Audit {
    fn handle(&mut self, m: Verify, _: &mut Cx<'_, Self>) -> Reply<Self, Result<Verified>> {
        let (calls, directory) = (self.setup.calls().clone(), self.setup.config().directory.clone());
        let through = self.shared.state.lock().through.get(&m.zone).copied().unwrap_or_default();
        Reply::later(async move { verify(&calls, &directory, &m, through).await })
    }
}

/// What writes the logs: one for as long as its incarnation lives.
struct Writer {
    calls: Syscalls,
    config: AuditConfig,
    shared: Arc<Shared>,
    changes: BTreeMap<ZoneId, Changes>,
    refusals: BTreeMap<ZoneId, End>,
}

/// The log of one zone's changes.
struct Changes {
    end: End,
    /// Up to here every commit is in the log, or its own.
    cursor: Lsn,
}

impl Writer {
    async fn write(mut self, env: nexus_actors::Env) {
        loop {
            let seen = self.calls.progress();
            let written = self.write_all(&env).await;
            let failure = written.err();
            let failed = failure.is_some();
            if let Some(error) = &failure {
                tracing::warn!(%error, "the audit log does not go on");
                // Whatever became of the append, the files say where the logs end.
                self.changes.clear();
                self.refusals.clear();
            }
            self.shared.state.lock().failure = failure.filter(|error| !files::is_overtaken(error));
            if failed {
                // Who waits for the log learns why it does not go on.
                self.shared.went_on.notify_waiters();
                env.sleep(TRY_AGAIN).await;
                continue;
            }
            let committed = std::pin::pin!(self.calls.committed(seen, LOOK_AGAIN));
            let heard = std::pin::pin!(self.shared.heard.notified());
            futures_util::future::select(committed, heard).await;
        }
    }

    async fn write_all(&mut self, env: &nexus_actors::Env) -> Result<()> {
        for zone in self.calls.zones()? {
            while self.write_changes(&zone, env).await? {}
            self.shared.went_on.notify_waiters();
        }
        self.write_refusals(env).await
    }

    /// Appends what follows in the log of `zone`, once; says whether there may be more.
    async fn write_changes(&mut self, zone: &ZoneId, env: &nexus_actors::Env) -> Result<bool> {
        let folder = files::folder(&self.config.directory, zone.as_str(), Log::Changes)?;
        if !self.changes.contains_key(zone) {
            let end = files::end(&self.calls, &folder).await?;
            let cursor = end.tip.told;
            self.changes.insert(zone.clone(), Changes { end, cursor });
        }
        let Some(log) = self.changes.get_mut(zone) else { return Ok(false) };
        let commits = self.calls.commits(zone, log.cursor, COMMITS_MAX)?;
        let mut batch = files::begin(&log.end);
        let own = Own { agent: &self.calls.caller().agent, directory: &self.config.directory };
        let bytes = self.config.segment_bytes;
        let room = files::room(&log.end, bytes);
        let cursor = take(&mut batch, &commits.records, log.cursor, own, room);
        if batch.records > 0 {
            batch.seal(files::size(&log.end), bytes, Timestamp(env.wall()));
            log.end = match files::append(&self.calls, &folder, &log.end, batch).await {
                Ok(end) => end,
                Err(error) if files::is_overtaken(&error) => {
                    // Another version, or a ghost, was first. What it logged is not logged again.
                    self.changes.remove(zone);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
        }
        log.cursor = cursor;
        let mut state = self.shared.state.lock();
        let through = state.through.entry(zone.clone()).or_default();
        *through = cursor.max(*through);
        Ok(!commits.records.is_empty())
    }

    async fn write_refusals(&mut self, env: &nexus_actors::Env) -> Result<()> {
        loop {
            let (zone, missed) = {
                let state = self.shared.state.lock();
                let Some(first) = state.refusals.front() else { return Ok(()) };
                (first.zone.clone(), state.missed)
            };
            let folder = files::folder(&self.config.directory, zone.as_str(), Log::Refusals)?;
            if !self.refusals.contains_key(&zone) {
                let end = files::end(&self.calls, &folder).await?;
                self.refusals.insert(zone.clone(), end);
            }
            let Some(end) = self.refusals.get_mut(&zone) else { return Ok(()) };
            let mut batch = files::begin(end);
            let bytes = self.config.segment_bytes;
            let room = files::room(end, bytes);
            // Taken out at once: two versions share the queue, and each is to be logged by one of them.
            let mut taken = Vec::new();
            {
                let mut state = self.shared.state.lock();
                state.missed -= missed.min(state.missed);
                while !batch.is_full(room)
                    && state.refusals.front().is_some_and(|refused| refused.zone == zone)
                    && let Some(refused) = state.refusals.pop_front()
                {
                    batch.push(refused.at, refused.entry.clone());
                    taken.push(refused);
                }
            }
            if missed > 0 {
                batch.push(Timestamp(env.wall()), Entry::Missed { refusals: missed });
            }
            if batch.records == 0 {
                continue;
            }
            batch.seal(files::size(end), bytes, Timestamp(env.wall()));
            match files::append(&self.calls, &folder, end, batch).await {
                Ok(new) => *end = new,
                Err(error) => {
                    let mut state = self.shared.state.lock();
                    for refused in taken.into_iter().rev() {
                        state.refusals.push_front(refused);
                    }
                    state.missed += missed;
                    drop(state);
                    self.refusals.remove(&zone);
                    if !files::is_overtaken(&error) {
                        return Err(error);
                    }
                }
            }
        }
    }
}

async fn look_for(calls: &Syscalls, directory: &VPath, query: &Query) -> Result<Page> {
    let folder = files::folder(directory, query.zone.as_str(), query.log)?;
    let from = query.after.map_or(0, |after| after.saturating_add(1));
    let limit = query.limit.clamp(1, Query::RECORDS_MAX);
    let names = files::segments(calls, &folder, from).await?;
    let mut page = Page::default();
    let mut seen = None;
    for (read, name) in names.iter().enumerate() {
        if read == SEGMENTS_MAX {
            page.next = seen;
            break;
        }
        let text = files::read(calls, &folder, name).await?;
        // All of it may be at hand: who never waits would hold the thread for as long as it takes, and be taken for wedged.
        yield_now().await;
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record = line.splitn(2, |byte| *byte == b' ').nth(1);
            let record: Option<Record> = record.and_then(|text| serde_json::from_slice(text).ok());
            let Some(record) = record else {
                let path = folder.join(name).map_err(|why| Error::bad_path(Op::Service, name, &why))?;
                let error = Error::new(Op::Service, &path, ErrorKind::Corrupt);
                return Err(error.because("it has a line that is no record: verify says which"));
            };
            if record.n < from {
                continue;
            }
            if page.records.len() == limit {
                page.next = seen;
                return Ok(page);
            }
            seen = Some(record.n);
            if is_wanted(&record, query) {
                page.records.push(record);
            }
        }
    }
    Ok(page)
}

fn is_wanted(record: &Record, query: &Query) -> bool {
    let Some((agent, ..)) = record.entry.who_and_where() else {
        // What tells of the log itself, only who asks for everything sees.
        return query.below.is_none() && query.agent.is_none() && in_time(record, query);
    };
    let below = |base: &VPath| record.entry.paths().any(|path| path.is_within(base));
    query.agent.as_ref().is_none_or(|wanted| wanted == agent)
        && query.below.as_ref().is_none_or(below)
        && in_time(record, query)
}

fn in_time(record: &Record, query: &Query) -> bool {
    query.from.is_none_or(|from| record.at >= from) && query.until.is_none_or(|until| record.at < until)
}

/// Checks a log of which everything up to `through` is known to have been in the files before.
async fn verify(calls: &Syscalls, directory: &VPath, what: &Verify, through: Lsn) -> Result<Verified> {
    let folder = files::folder(directory, what.zone.as_str(), what.log)?;
    let names = files::segments(calls, &folder, 0).await?;
    let own = Own { agent: &calls.caller().agent, directory };
    let mut found = Verified::default();
    let mut link = Link::FIRST;
    // What the kernel still knows, from the first record on that it does.
    let mut known = Known { calls, zone: &what.zone, own, next: Lsn(0), records: Default::default() };
    for (number, name) in names.iter().enumerate() {
        let bytes = files::read(calls, &folder, name).await?;
        yield_now().await;
        let checked = verify_segment(name, &bytes, link);
        let mut segment = match checked {
            Ok(segment) => segment,
            Err(broken) => {
                found.records = broken.n;
                found.broken = Some(broken);
                return Ok(found);
            }
        };
        let mut broken = None;
        if what.log == Log::Changes {
            broken = known.disagrees(&segment.records)?;
        }
        if !segment.is_sealed() && number + 1 < names.len() {
            broken = broken
                .or(Some((segment.link.n, "the segment ends without a seal, and is not the last".into())));
        }
        found.segments += 1;
        if let Some((n, why)) = broken {
            found.records = n;
            found.broken = Some(Broken { segment: name.clone(), n, why });
            return Ok(found);
        }
        segment.records.iter().for_each(|record| found.note_missing(record));
        segment.records.clear();
        link = segment.link;
    }
    found.records = link.n;
    if what.log == Log::Changes
        && let Some(why) = known.left(through)?
    {
        let segment = names.last().cloned().unwrap_or_else(|| name_of(0));
        found.broken = Some(Broken { segment, n: link.n, why });
    }
    Ok(found)
}

/// The kernel's own log, beside which the audit log is read.
struct Known<'a> {
    calls: &'a Syscalls,
    zone: &'a ZoneId,
    own: Own<'a>,
    next: Lsn,
    records: VecDeque<nexus_kernel::hal::LogRecord>,
}

impl Known<'_> {
    /// The first of `records` that does not tell what the kernel knows, and why.
    fn disagrees(&mut self, records: &[Record]) -> Result<Option<(u64, String)>> {
        for record in records {
            let Some(lsn) = record.entry.lsn() else {
                return Ok(Some((record.n, "it does not belong in a log of changes".into())));
            };
            if lsn.0 == 0 || matches!(record.entry, Entry::Sealed { .. }) {
                continue;
            }
            if let Entry::Gap { from, .. } = record.entry {
                if let Some(why) = self.refutes(from, lsn)? {
                    return Ok(Some((record.n, why)));
                }
                // Read here before the kernel forgot them.
                while self.peek()?.is_some_and(|known| known >= from && known <= lsn) {
                    self.records.pop_front();
                }
                continue;
            }
            // What is in between and not its own is missing in the log.
            while let Some(known) = self.peek()?.filter(|known| *known < lsn) {
                let Some(passed) = self.records.pop_front() else { break };
                if !self.own.is(&passed) {
                    let why =
                        format!("the change with the LSN {known} ({}) is missing before it", passed.path);
                    return Ok(Some((record.n, why)));
                }
            }
            let Some(known) = self.peek()? else { continue };
            if known > lsn {
                // Older than what the kernel keeps.
                continue;
            }
            let Some(known) = self.records.pop_front() else { continue };
            if let Entry::Change { .. } = record.entry
                && (record.entry != Entry::of(&known) || record.at != known.at)
            {
                return Ok(Some((record.n, format!("the change with the LSN {lsn} was another one"))));
            }
        }
        Ok(None)
    }

    /// Why the kernel cannot have forgotten all commits from `from` to `to`: what it once did not know it does not know now.
    fn refutes(&self, from: Lsn, to: Lsn) -> Result<Option<String>> {
        if from > to {
            return Ok(Some("its gap ends before it begins".into()));
        }
        // Asked anew: what was read before may have been forgotten since.
        let known = self.calls.commits(self.zone, Lsn(from.0.saturating_sub(1)), 1)?;
        let known = known.records.first().filter(|known| known.lsn <= to);
        Ok(known.map(|known| {
            format!(
                "it says that the kernel had forgotten the change with the LSN {}, which it still knows",
                known.lsn
            )
        }))
    }

    fn peek(&mut self) -> Result<Option<Lsn>> {
        if self.records.is_empty() {
            let commits = self.calls.commits(self.zone, self.next, COMMITS_MAX)?;
            self.next = commits.next;
            self.records = commits.records.into();
        }
        Ok(self.records.front().map(|record| record.lsn))
    }

    /// The first change up to `through` that is left when the log is at its end.
    fn left(&mut self, through: Lsn) -> Result<Option<String>> {
        while self.peek()?.is_some_and(|known| known <= through) {
            let Some(left) = self.records.pop_front() else { break };
            if !self.own.is(&left) {
                return Ok(Some(format!(
                    "the change with the LSN {} ({}) is missing at the end",
                    left.lsn, left.path
                )));
            }
        }
        Ok(None)
    }
}
