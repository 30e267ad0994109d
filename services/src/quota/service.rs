//! Counts what agents and subtrees use, and limits it.
//!
//! Owns:       the limits and the accounts; publishes both, for its hooks book on the accounts on the callers' tasks.
//! Asks:       the kernel, as `service:NAME`: for all that is there, to count it.
//! On restart: takes the published limits and accounts; at boot, counts.
//! Bounds:     `ACCOUNTS_MAX` accounts, `BOOKED_MAX` changes booked during a count.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nexus_actors::{Behaviour, Cx, Env, ExitReason, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus_kernel::service::{Declaration, Service, Setup, Syscalls};
use nexus_messages::{Effect, Error, ErrorKind, Lsn, Op, Result, VPath, ZoneId};
use parking_lot::Mutex;

use super::spec::{Account, GetUsage, ListUsage, QuotaConfig, Recount, SetLimits, declare};
use super::state::{ACCOUNTS_MAX, Books, Count, Drift, Limits, Refusal, Subject};

/// How often a count is tried that too much happened during.
const COUNTS_MAX: usize = 16;
/// How often it looks whether a count is needed.
const LOOK: Duration = Duration::from_secs(1);

/// The service. Registered with [`QuotaConfig`]; asked with [`SetLimits`], [`GetUsage`], [`ListUsage`] and [`Recount`].
pub struct Quota {
    setup: Setup<Self>,
    view: Arc<QuotaView>,
}

/// What quotas publish: the accounts, and the limits of one version.
pub struct QuotaView {
    books: Arc<Ledger>,
    /// What the configuration says. Run-time limits are for this alone.
    configured: BTreeMap<Subject, Limits>,
    /// Shared by versions with the same configured limits: what is set at run time outlasts a swap, and a swap back.
    limits: Arc<Table>,
}

/// What is limited, and how.
type Table = Mutex<BTreeMap<Subject, Limits>>;

/// The accounts, with the clock that all versions measure by.
struct Ledger {
    books: Mutex<Books>,
    /// The tables of all versions: there is an account for whatever one of them limits. Locked before they are, and they before the books.
    tables: Mutex<Vec<Weak<Table>>>,
    env: Env,
    began: Instant,
}

impl Ledger {
    fn new(env: &Env) -> Self {
        Self { books: Mutex::default(), tables: Mutex::default(), env: env.clone(), began: env.now() }
    }

    /// The same by itself, for a version on trial: it spends and counts, and the one that serves must not see that.
    fn copied(&self) -> Self {
        let books = Mutex::new(self.books.lock().copied());
        Self { books, tables: Mutex::default(), env: self.env.clone(), began: self.began }
    }

    /// Opens the accounts that are limited, and closes those that are not any more. False when there are too many: nothing has changed then.
    fn arrange(&self) -> bool {
        let mut tables = self.tables.lock();
        tables.retain(|table| table.strong_count() > 0);
        let limited = tables.iter().filter_map(Weak::upgrade);
        let limited = limited.flat_map(|table| table.lock().keys().cloned().collect::<Vec<_>>()).collect();
        self.books.lock().keep(&limited)
    }
}

impl QuotaView {
    /// What a version begins with that takes the place of `before`, or is tried for that.
    fn after(before: Option<&Self>, config: &QuotaConfig, on_trial: bool, env: &Env) -> Self {
        let books = match before {
            Some(before) if on_trial => Arc::new(before.books.copied()),
            Some(before) => before.books.clone(),
            None => Arc::new(Ledger::new(env)),
        };
        let configured: BTreeMap<_, _> = config.limits.iter().cloned().collect();
        let limits = match before.filter(|before| before.configured == configured) {
            Some(before) if on_trial => Arc::new(Mutex::new(before.limits.lock().clone())),
            Some(before) => before.limits.clone(),
            None => Arc::new(Mutex::new(configured.clone())),
        };
        books.tables.lock().push(Arc::downgrade(&limits));
        Self { books, configured, limits }
    }

    pub(super) fn spend(&self, agent: &str, paths: &[&VPath]) -> std::result::Result<(), String> {
        let now = self.books.env.now().saturating_duration_since(self.books.began);
        let limits = self.limits.lock();
        self.books.books.lock().spend(&limits, agent, paths, now)
    }

    pub(super) fn reserve(
        &self,
        before: Option<&Effect>,
        effect: &Effect,
    ) -> std::result::Result<(), Refusal> {
        let limits = self.limits.lock();
        self.books.books.lock().reserve(&limits, before, effect)
    }

    pub(super) fn settle(&self, effect: &Arc<Effect>, lsn: Option<Lsn>) {
        self.books.books.lock().settle(effect, lsn);
    }

    pub(super) fn doubt(&self, effect: &Effect) {
        self.books.books.lock().doubt(effect);
    }

    /// One account; none when nothing is limited there.
    pub fn account(&self, subject: &Subject) -> Option<Account> {
        let limits = *self.limits.lock().get(subject)?;
        let used = self.books.books.lock().usage(subject)?;
        Some(Account { subject: subject.clone(), used, limits })
    }

    /// What counts have corrected so far.
    pub fn drift(&self) -> Drift {
        self.books.books.lock().drift()
    }
}

/// Says that a count has ended, however it did.
struct Counting {
    ledger: Arc<Ledger>,
    taken: bool,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.ledger.books.lock().end_count(self.taken);
    }
}

/// Counts what is there, and takes it over.
async fn count(calls: &Syscalls, ledger: &Arc<Ledger>) -> Result<Drift> {
    // A version with limits of its own may be gone since.
    ledger.arrange();
    for _ in 0..COUNTS_MAX {
        let subjects = {
            let mut books = ledger.books.lock();
            books.begin_count();
            books.subjects()
        };
        let mut counting = Counting { ledger: ledger.clone(), taken: false };
        let zone = ZoneId::root();
        let census = calls.census(&zone, Count::of(subjects), |count, held| {
            count.add(&held.path, &held.owner, held.bytes);
        });
        let (lsn, counted) = census.await?;
        let mut books = ledger.books.lock();
        counting.taken = books.take_over(lsn, &counted);
        let drift = books.drift();
        // The count ends with its guard, which takes the lock as well.
        drop(books);
        if counting.taken {
            return Ok(drift);
        }
    }
    let error = Error::global(Op::Service, ErrorKind::Busy);
    Err(error.because(format!("too much was changed during {COUNTS_MAX} counts")))
}

/// Says so when nothing that `subject` is about can be counted as mounts are now: its limit would hold nobody up.
fn warn_if_uncounted(calls: &Syscalls, subject: &Subject) {
    if let Subject::Below(base) = subject
        && let Ok(Some(mount)) = calls.path_addressed(base)
    {
        tracing::warn!(%base, %mount, "a quota on a path-addressed mount limits calls alone: bytes and files there are not counted");
    }
}

/// Counts from time to time. Told to itself by the incarnation of this number, past all that waits: a full mailbox must keep none from beginning.
struct Begin(u64);

impl Message for Begin {
    type Reply = ();
    const NAME: &'static str = "quota.begin";
}

impl Behaviour for Quota {
    type Args = Setup<Self>;
    const NAME: &'static str = "quota";

    fn init(
        setup: Setup<Self>,
        start: Start<Self>,
    ) -> LocalBoxFuture<'static, std::result::Result<Self, ExitReason>> {
        Box::pin(async move {
            let view = setup.view().get().unwrap_or_else(|| {
                let before = setup.predecessor::<QuotaView>();
                let env = start.env();
                Arc::new(QuotaView::after(before.as_deref(), setup.config(), setup.is_on_trial(), env))
            });
            if !view.books.arrange() {
                return Err(ExitReason::error(format!("there are more than {ACCOUNTS_MAX} accounts")));
            }
            let limited: Vec<_> = view.limits.lock().keys().cloned().collect();
            limited.iter().for_each(|subject| warn_if_uncounted(setup.calls(), subject));
            count(setup.calls(), &view.books).await.map_err(ExitReason::error)?;
            setup.publish(start.generation(), view.clone()).map_err(ExitReason::error)?;
            start.me().signal(Begin(start.generation())).map_err(ExitReason::error)?;
            Ok(Self { setup, view })
        })
    }
}

impl Service for Quota {
    const VERSION: &'static str = "1.0.0";
    type Config = QuotaConfig;
    type View = QuotaView;

    fn declare(config: &QuotaConfig) -> Declaration<Self> {
        declare(config)
    }
}

impl Handle<Begin> for Quota {
    fn handle(&mut self, Begin(generation): Begin, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if generation != cx.generation() {
            // One that ended before it came to this.
            return Reply::Now(());
        }
        let (env, calls, ledger) = (cx.env().clone(), self.setup.calls().clone(), self.view.books.clone());
        let every = Some(self.setup.config().recount_s).filter(|every| *every > 0).map(Duration::from_secs);
        let counting = async move {
            // Once its hooks stand: what was changed since the first count, and was not weighed, is counted now.
            let mut counted: Option<Instant> = None;
            loop {
                env.sleep(LOOK).await;
                let due = match counted {
                    None => true,
                    Some(at) => every.is_some_and(|every| env.now().saturating_duration_since(at) >= every),
                };
                if !due && !ledger.books.lock().doubtful {
                    continue;
                }
                counted = Some(env.now());
                if let Err(error) = count(&calls, &ledger).await {
                    tracing::warn!(%error, "usage could not be counted");
                }
            }
        };
        cx.spawn(counting, |_, _, ()| {});
        Reply::Now(())
    }
}

impl Handle<SetLimits> for Quota {
    fn handle(&mut self, m: SetLimits, _: &mut Cx<'_, Self>) -> Reply<Self, Result<()>> {
        let Some(limits) = m.limits else {
            self.view.limits.lock().remove(&m.subject);
            self.view.books.arrange();
            return Reply::Now(Ok(()));
        };
        warn_if_uncounted(self.setup.calls(), &m.subject);
        let before = self.view.limits.lock().insert(m.subject.clone(), limits);
        if !self.view.books.arrange() {
            if before.is_none() {
                self.view.limits.lock().remove(&m.subject);
            }
            let error = Error::global(Op::Service, ErrorKind::InvalidArgument);
            return Reply::Now(Err(error.because(format!("there are {ACCOUNTS_MAX} accounts already"))));
        }
        if self.view.account(&m.subject).is_some() {
            return Reply::Now(Ok(()));
        }
        let (calls, ledger) = (self.setup.calls().clone(), self.view.books.clone());
        Reply::later(async move { count(&calls, &ledger).await.map(drop) })
    }
}

impl Handle<GetUsage> for Quota {
    fn handle(&mut self, m: GetUsage, _: &mut Cx<'_, Self>) -> Reply<Self, Result<Account>> {
        Reply::Now(self.view.account(&m.0).ok_or_else(|| {
            let error = Error::global(Op::Service, ErrorKind::NotFound);
            error.because(format!("nothing is limited for {:?}", m.0))
        }))
    }
}

impl Handle<ListUsage> for Quota {
    fn handle(&mut self, _: ListUsage, _: &mut Cx<'_, Self>) -> Reply<Self, Vec<Account>> {
        let subjects: Vec<_> = self.view.limits.lock().keys().cloned().collect();
        Reply::Now(subjects.iter().filter_map(|subject| self.view.account(subject)).collect())
    }
}

impl Handle<Recount> for Quota {
    fn handle(&mut self, _: Recount, _: &mut Cx<'_, Self>) -> Reply<Self, Result<Drift>> {
        let (calls, ledger) = (self.setup.calls().clone(), self.view.books.clone());
        Reply::later(async move { count(&calls, &ledger).await })
    }
}
