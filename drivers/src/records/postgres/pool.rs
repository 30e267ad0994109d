//! Connections to one server: a bounded number, made when they are needed, used again while they are good.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use nexus_actors::Env;
use nexus_kernel::hal::{RecordError, RetryPolicy};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_postgres::Client;

use super::config::Server;
use super::error::translate;
use super::tls::Tls;

/// How long taking back a transaction, or cancelling a statement, may take: what takes longer is cut off.
const CLEAN_MAX: Duration = Duration::from_secs(5);

/// How long after the server's deadline its answer is waited for.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// The waits between tries to reach a server that is away.
const AWAY: RetryPolicy =
    RetryPolicy { attempts: u32::MAX, wait: Duration::from_millis(20), wait_max: Duration::from_secs(1) };

/// What takes from a connection all that its last session may have left with it: settings, locks, tables, the last number of a sequence. In a transaction of its
/// own: what is begun behind it must be the first of its own. The settings that an address says stay, and what is prepared, which is the driver's.
const FORGET: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; \
    SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; END; ";

/// The settings of a pool.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) server: Server,
    pub(super) sessions: u32,
    pub(super) connect: Duration,
    pub(super) idle: Duration,
}

/// A connection. Dropping it closes it at once.
pub(super) struct Opened {
    pub(super) client: Client,
    /// How it is encrypted, for the connection that cancels.
    tls: Tls,
    /// The task that moves its bytes ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

/// The connections to one server.
pub(super) struct Pool {
    settings: Settings,
    env: Env,
    seats: Arc<Semaphore>,
    idle: Mutex<Vec<(Opened, Instant)>>,
    closed: AtomicBool,
    /// Where files are read.
    files: nexus_actors::Pool,
    tls: OnceLock<Tls>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle.lock().len()).finish_non_exhaustive()
    }
}

/// What a lent connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is in no transaction.
    Clean,
    /// It is in a transaction, and does nothing.
    Begun,
    /// A statement is on its way, which may be cancelled.
    Running,
    /// A commit is on its way, which is let be.
    Committing,
}

/// A connection that is in use. Dropping it takes back what was begun, and gives it back, or closes it when a statement was on its way.
pub(super) struct Lease {
    opened: Option<Opened>,
    state: State,
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Pool>,
}

impl Pool {
    pub(super) fn new(settings: Settings, env: Env, files: nexus_actors::Pool) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(settings.sessions.max(1) as usize));
        Arc::new(Self {
            settings,
            env,
            seats,
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
            files,
            tls: OnceLock::new(),
        })
    }

    /// A connection on which `begin` was carried out, which waits for nothing. Waits for its turn, and for a server that is away or says nothing, until the time is
    /// over; one try may end later by the time that connecting may take.
    pub(super) async fn begin(
        self: &Arc<Self>,
        begin: &str,
        wait: Duration,
        limit: Duration,
    ) -> Result<Lease, RecordError> {
        let until = self.env.now() + wait;
        let permit = self.env.timeout(wait, self.seats.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| RecordError::Busy { what: "every session of the pool".into() })?;
        let permit = permit.map_err(|_| lost("the store is closed"))?;
        let mut lease = Lease { opened: None, state: State::Clean, permit: Some(permit), pool: self.clone() };
        let mut attempt = 0;
        loop {
            // One that was idle may have been dead for long: then the next is tried at once.
            let was_idle = lease.take_idle();
            let begun = match was_idle {
                true => lease.begin(&format!("{FORGET}{begin}"), limit, self.env.now()).await,
                false => lease.begin(begin, limit, until).await,
            };
            match begun {
                Ok(()) => return Ok(lease),
                // Nor is one used that does not forget.
                Err(error) if was_idle => {
                    tracing::debug!(%error, "an idle connection is not used again");
                    if lease.state == State::Running {
                        // It says nothing: those that are idle for longer would say no more, each after a wait of its own.
                        let silent = std::mem::take(&mut *self.idle.lock());
                        drop(silent);
                    }
                }
                Err(RecordError::ConnectionLost { cause, .. }) => {
                    let pause = AWAY.wait_after(attempt, &self.env);
                    if self.env.now() + pause >= until || self.closed.load(Ordering::Relaxed) {
                        return Err(lost(&cause));
                    }
                    tracing::debug!(attempt, %cause, "PostgreSQL is not reached");
                    self.env.sleep(pause).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
            lease.opened = None;
            lease.state = State::Clean;
        }
    }

    /// How the way is encrypted: the authorities are read once.
    async fn tls(&self) -> Result<Tls, RecordError> {
        if !self.settings.server.is_encrypted() {
            return Ok(Tls::default());
        }
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let authorities = self.settings.server.authorities.clone();
        let loaded = self.files.run(move || Tls::load(authorities.as_deref())).await;
        let loaded =
            loaded.map_err(|error| RecordError::Backend { cause: error.to_string(), unknown: false })??;
        Ok(self.tls.get_or_init(|| loaded).clone())
    }

    async fn connect(&self) -> Result<Opened, RecordError> {
        let tls = self.tls().await?;
        let (tell, told) = oneshot::channel();
        let (alive, gone) = oneshot::channel::<()>();
        let (config, env, limit) =
            (self.settings.server.config.clone(), self.env.clone(), self.settings.connect);
        // tokio's I/O works on the Env's tasks only.
        let way = tls.clone();
        self.env.spawn("postgres-connection", async move {
            let connection = match env.timeout(limit, config.connect(way)).await {
                Ok(Ok((client, connection))) => match tell.send(Ok(client)) {
                    Ok(()) => connection,
                    Err(_) => return,
                },
                Ok(Err(error)) => {
                    let _ = tell.send(Err(translate(&error, limit, false)));
                    return;
                }
                Err(_) => {
                    let _ = tell.send(Err(lost("connecting took too long")));
                    return;
                }
            };
            if let Either::Left((Err(error), _)) = select(connection, gone).await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        let client = told.await.unwrap_or_else(|_| Err(lost("the environment is stopped")))?;
        Ok(Opened { client, tls, _alive: alive })
    }

    fn give_back(&self, opened: Opened) {
        if opened.client.is_closed() {
            return;
        }
        let now = self.env.now();
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| now.saturating_duration_since(*since) < self.settings.idle);
        if !self.closed.load(Ordering::Relaxed) {
            idle.push((opened, now));
        }
    }

    /// Closes what is idle, and begins nothing any more.
    pub(super) fn close(&self) {
        self.seats.close();
        let idle = {
            let mut idle = self.idle.lock();
            self.closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *idle)
        };
        drop(idle);
    }
}

fn lost(cause: &str) -> RecordError {
    RecordError::ConnectionLost { cause: cause.to_owned(), unknown: false }
}

impl Lease {
    /// Takes a connection that is idle, the one last used.
    fn take_idle(&mut self) -> bool {
        let (now, max) = (self.pool.env.now(), self.pool.settings.idle);
        let mut idle = self.pool.idle.lock();
        while let Some((opened, since)) = idle.pop() {
            if !opened.client.is_closed() && now.saturating_duration_since(since) < max {
                self.opened = Some(opened);
                return true;
            }
        }
        false
    }

    /// Carries out `begin`, which must end by `until`, or within the time that connecting may take.
    async fn begin(&mut self, begin: &str, limit: Duration, until: Instant) -> Result<(), RecordError> {
        if self.opened.is_none() {
            self.opened = Some(self.pool.connect().await?);
        }
        let env = self.pool.env.clone();
        let within = until.saturating_duration_since(env.now()).max(self.pool.settings.connect);
        let begun = env.timeout(within, self.control(begin, limit, State::Running, State::Begun)).await;
        begun.unwrap_or_else(|_| Err(lost("the server does not answer in time")))
    }

    /// Carries out what has no values.
    pub(super) async fn control(
        &mut self,
        sql: &str,
        limit: Duration,
        meanwhile: State,
        then: State,
    ) -> Result<(), RecordError> {
        self.run(limit, meanwhile, then, async |client| {
            let commits = meanwhile == State::Committing;
            client.batch_execute(sql).await.map_err(|error| translate(&error, limit, commits))
        })
        .await
    }

    /// Runs `job` with the connection, for not much longer than `limit`: the server has that deadline, too.
    pub(super) async fn run<T>(
        &mut self,
        limit: Duration,
        meanwhile: State,
        then: State,
        job: impl AsyncFnOnce(&Client) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        let Some(opened) = &self.opened else { return Err(RecordError::Aborted) };
        if opened.client.is_closed() {
            // Nothing is sent any more, so that nothing of it can be carried out.
            return Err(RecordError::ConnectionLost {
                cause: "the connection is closed".into(),
                unknown: false,
            });
        }
        // When the future is dropped, this stays.
        self.state = meanwhile;
        let done = self.pool.env.timeout(limit + GRACE, job(&opened.client)).await;
        match done {
            Ok(done) => {
                self.state = if done.is_ok() { then } else { State::Begun };
                done
            }
            Err(_) => {
                let unknown = meanwhile == State::Committing;
                Err(RecordError::TimedOut { what: "the statement", limit, unknown })
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(opened), permit) = (self.opened.take(), self.permit.take()) else { return };
        let pool = self.pool.clone();
        let env = pool.env.clone();
        match self.state {
            State::Clean => pool.give_back(opened),
            // The server carries it out, or not.
            State::Committing => drop(opened),
            State::Begun => env.clone().spawn("postgres-rollback", async move {
                let taken_back = env.timeout(CLEAN_MAX, opened.client.batch_execute("ROLLBACK")).await;
                if let Ok(Ok(())) = taken_back {
                    pool.give_back(opened);
                }
                drop(permit);
            }),
            State::Running => env.clone().spawn("postgres-cancel", async move {
                // What the cancel meets would be anything that comes next: so nothing does.
                let cancelled = env
                    .timeout(CLEAN_MAX, opened.client.cancel_token().cancel_query(opened.tls.clone()))
                    .await;
                tracing::debug!(cancelled = matches!(cancelled, Ok(Ok(()))), "a statement was given up");
                drop(opened);
                drop(permit);
            }),
        }
    }
}
