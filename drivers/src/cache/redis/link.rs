//! The connection that calls share, and the task that keeps it.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use nexus_actors::{Env, Latch, Pool};
use nexus_kernel::hal::{CacheState, StoreError};
use parking_lot::Mutex;
use redis::aio::{AsyncStream, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisError, Value, from_redis_value};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsConnector;

use super::breaker::{BackOff, TIMEOUTS_MAX};
use super::config::{RedisConfig, Server};
use super::failure::Failure;
use crate::tls;

/// How often a server that nobody asks is asked for a sign of life.
pub(super) const PING_EVERY: Duration = Duration::from_secs(1);

/// How many calls may wait to be sent, at most.
const QUEUED_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) env: Env,
    pub(super) config: RedisConfig,
    state: Mutex<State>,
    /// Set when the first attempt to connect has ended, either way.
    tried: Latch<()>,
    /// Set when the store is gone.
    pub(super) closed: Latch<()>,
    places: Semaphore,
    timeouts: AtomicU32,
    /// Too many calls have run into their deadline.
    dead: Notify,
    /// Where files are read.
    files: Pool,
    /// How the way is encrypted, once its authorities were read.
    tls: OnceLock<Arc<ClientConfig>>,
}

#[derive(Debug)]
enum State {
    Starting,
    Up(MultiplexedConnection),
    Down { why: Failure, until: Instant },
}

/// A socket, of either kind.
pub(super) type Socket = Pin<Box<dyn AsyncStream + Send + Sync>>;

/// What drives a connection, to its end.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Link {
    /// Starts to keep a connection.
    pub(super) fn start(env: &Env, config: RedisConfig) -> Arc<Self> {
        let places = Semaphore::new(config.calls_max.min(Semaphore::MAX_PERMITS));
        let link = Arc::new(Self {
            env: env.clone(),
            config,
            state: Mutex::new(State::Starting),
            tried: Latch::new(),
            closed: Latch::new(),
            places,
            timeouts: AtomicU32::new(0),
            dead: Notify::new(),
            files: env.pool("cache.redis.files", 1, 8),
            tls: OnceLock::new(),
        });
        env.spawn("cache.redis", link.clone().keep());
        link
    }

    pub(super) fn state(&self) -> CacheState {
        match &*self.state.lock() {
            State::Up(_) => CacheState::Serving,
            State::Starting => CacheState::Down { cause: "it is being connected to".into() },
            State::Down { why, .. } => CacheState::Down { cause: why.cause().into() },
        }
    }

    /// Makes a call, and has its answer by the deadline.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        what: &'static str,
        changing: bool,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        // In its place from the beginning: as an argument it would be moved, and there twice.
        let asked = pin!(async {
            let mut connection = self.connection(what).await?;
            let _place = match self.places.try_acquire() {
                Ok(place) => place,
                // Never closed.
                Err(_) => self.places.acquire().await.map_err(|_| StoreError::Closed)?,
            };
            let answer = connection.send_packed_command(command).await;
            answer
                .and_then(Value::extract_error)
                .and_then(|value| from_redis_value(value).map_err(RedisError::from))
                .map_err(|error| Failure::of(&error, &self.config).after(what, changing, &self.config))
        });
        match self.env.timeout(self.config.call_within, asked).await {
            Ok(answered) => {
                // It orders nothing: a count that is a little off holds the server for dead a little later.
                if self.timeouts.load(Ordering::Relaxed) != 0 {
                    self.timeouts.store(0, Ordering::Relaxed);
                }
                answered
            }
            Err(_) => {
                if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
                    self.dead.notify_one();
                }
                Err(StoreError::TimedOut { what: what.into(), limit: self.config.call_within, changing })
            }
        }
    }

    /// The connection; fails at once when it is known that there is none.
    async fn connection(&self, what: &str) -> Result<MultiplexedConnection, StoreError> {
        if let Some(known) = self.known(what) {
            return known;
        }
        self.tried.wait().await;
        self.known(what).unwrap_or(Err(StoreError::Closed))
    }

    /// The connection, or why there is none; neither before the first one was tried.
    pub(super) fn known(&self, what: &str) -> Option<Result<MultiplexedConnection, StoreError>> {
        match &*self.state.lock() {
            State::Starting => None,
            State::Up(connection) => Some(Ok(connection.clone())),
            State::Down { why, until } => {
                let retry_in = until.saturating_duration_since(self.env.now());
                Some(Err(why.clone().before(what, &self.config, retry_in)))
            }
        }
    }

    /// Keeps a connection for as long as the store is there.
    async fn keep(self: Arc<Self>) {
        let mut back_off = BackOff::default();
        while self.closed.get().is_none() {
            let why = match self.connect().await {
                Ok((connection, driver)) => {
                    self.timeouts.store(0, Ordering::Relaxed);
                    *self.state.lock() = State::Up(connection.clone());
                    self.tried.set(());
                    tracing::info!(server = %self.config.address(), "the cache is connected");
                    let stopwatch = self.env.now();
                    let why = self.serve(connection, driver).await;
                    back_off.served(self.env.now().saturating_duration_since(stopwatch));
                    why
                }
                Err(why) => why,
            };
            let wait = back_off.next(self.env.random());
            tracing::warn!(server = %self.config.address(), cause = why.cause(), "the cache is not reached");
            *self.state.lock() = State::Down { why, until: self.env.now() + wait };
            self.tried.set(());
            select(pin!(self.env.sleep(wait)), pin!(self.closed.wait())).await;
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, Driver), Failure> {
        let connecting = async {
            let socket = self.socket().await?;
            // Deadlines are ours, and so is the bound on calls: none of them waits a second time.
            let queued_max = self.config.calls_max.clamp(1, QUEUED_MAX);
            let config =
                AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(queued_max);
            let login = self.config.login();
            let (connection, driver) = MultiplexedConnection::new_with_config(&login, socket, config).await?;
            Ok((connection, Box::pin(driver) as Driver))
        };
        self.in_time(connecting).await
    }

    /// Awaits what belongs to a connection, no longer than it may take.
    pub(super) async fn in_time<T>(
        &self,
        connecting: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Failure> {
        match self.env.timeout(self.config.connect_within, connecting).await {
            Ok(connected) => connected.map_err(|error| Failure::of(&error, &self.config)),
            Err(_) => {
                let limit = self.config.connect_within;
                Err(Failure::Unreachable(format!("it does not answer within {limit:?}")))
            }
        }
    }

    /// A socket to the server. On the I/O runtime only.
    pub(super) async fn socket(&self) -> Result<Socket, RedisError> {
        match &self.config.server {
            Server::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                if !self.config.tls {
                    return Ok(Box::pin(stream));
                }
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Ok(Box::pin(TlsConnector::from(self.tls().await?).connect(name, stream).await?))
            }
            #[cfg(unix)]
            Server::Unix(path) => Ok(Box::pin(UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Server::Unix(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    async fn tls(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let authorities = self.config.ca_file.clone();
        let read = self.files.run(move || tls::client(authorities.as_deref())).await;
        let read = read.map_err(|error| io::Error::other(error.to_string()))?.map_err(io::Error::other)?;
        Ok(self.tls.get_or_init(|| read).clone())
    }

    /// Drives the connection to its end.
    async fn serve(&self, connection: MultiplexedConnection, driver: Driver) -> Failure {
        let watch = pin!(self.watch(connection));
        match select(driver, select(watch, pin!(self.closed.wait()))).await {
            Either::Left(_) => Failure::Unreachable("the connection broke".into()),
            Either::Right((Either::Left((why, _)), _)) => why,
            Either::Right((Either::Right(_), _)) => Failure::Unreachable("the cache is closed".into()),
        }
    }

    /// Ends when the server is held for dead.
    async fn watch(&self, mut connection: MultiplexedConnection) -> Failure {
        let late = async {
            // A notice may be of the connection before.
            while self.timeouts.load(Ordering::Relaxed) < TIMEOUTS_MAX {
                self.dead.notified().await;
            }
            Failure::Unreachable("calls run into their deadline".into())
        };
        let silent = async {
            loop {
                self.env.sleep(PING_EVERY).await;
                if let Err(why) = self.in_time(connection.send_packed_command(&redis::cmd("PING"))).await {
                    break why;
                }
            }
        };
        select(pin!(late), pin!(silent)).await.factor_first().0
    }
}
