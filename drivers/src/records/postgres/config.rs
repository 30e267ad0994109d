//! The settings.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nexus_kernel::hal::RecordError;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::records::options::{millis, number};

/// The most sessions at once.
const SESSIONS_MAX: u32 = 1_024;

/// A server's address with its secrets, of which it shows nothing.
#[derive(Clone)]
pub struct Server {
    pub(super) config: Config,
    /// Whom its certificate is trusted by; the system's authorities when none are named.
    pub(super) authorities: Option<PathBuf>,
}

impl Server {
    /// The server at `postgres://user:password@host:port/database?option=value`.
    ///
    /// The way to it is encrypted, and its certificate and name are checked, unless it is on this machine and does not ask for that (`sslmode=require`), or its
    /// address says `sslmode=disable`: for a network that is trusted.
    ///
    /// # Errors
    /// [`RecordError::BadOption`], without the address.
    pub fn new(url: &str) -> Result<Self, RecordError> {
        Self::named("url", url)
    }

    /// Trusts its certificate by the authorities in a file (PEM), and not by the system's.
    #[must_use]
    pub fn trusted_by(mut self, authorities: impl Into<PathBuf>) -> Self {
        self.authorities = Some(authorities.into());
        self
    }

    /// Whether the way to it is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }

    fn named(key: &str, url: &str) -> Result<Self, RecordError> {
        let bad = |why: &str| RecordError::BadOption { why: format!("{key:?} {why}") };
        // The parser's error may have a part of the address in it.
        let mut config: Config = url.parse().map_err(|_| bad("is no address of a PostgreSQL server"))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(bad("names no host"));
        }
        let is_here =
            config.get_hosts().iter().all(is_here) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        match config.get_ssl_mode() {
            SslMode::Prefer if is_here => config.ssl_mode(SslMode::Disable),
            // What is preferred can be talked out of by whoever is in between.
            SslMode::Prefer => config.ssl_mode(SslMode::Require),
            _ => &mut config,
        };
        if config.get_application_name().is_none() {
            config.application_name("nexus");
        }
        config.keepalives_idle(KEEPALIVE).tcp_user_timeout(KEEPALIVE);
        Ok(Self { config, authorities: None })
    }
}

/// After how long a peer that says nothing is looked for.
const KEEPALIVE: Duration = Duration::from_secs(30);

fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server(..)")
    }
}

/// The settings of [`PostgresRecords`](super::PostgresRecords).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// Where sessions write, and read what is latest.
    pub server: Server,
    /// Where sessions read that may see what is older.
    pub replica: Option<Server>,
    /// How many sessions there are at once, at each.
    pub sessions: u32,
    /// How long a session waits for its turn, and for a server that is away.
    pub wait: Duration,
    /// How long one try to connect may take.
    pub connect: Duration,
    /// For how long a connection that nobody uses is used again.
    pub idle: Duration,
    /// How long a session may do nothing until the server ends it.
    pub hold: Duration,
    /// How long a statement may take.
    pub statement: Duration,
    /// How long a statement of a migration may take, and the wait for another process that migrates.
    pub migration: Duration,
}

impl PostgresConfig {
    /// The usual settings, for this server.
    pub fn new(server: Server) -> Self {
        Self {
            server,
            replica: None,
            sessions: 8,
            wait: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(600),
            hold: Duration::from_secs(60),
            statement: Duration::from_secs(30),
            migration: Duration::from_secs(600),
        }
    }

    /// The settings that options say.
    pub(in crate::records) fn from_options(options: &BTreeMap<String, String>) -> Result<Self, RecordError> {
        let trusted = |server: Server| match options.get("ca_file") {
            Some(path) => server.trusted_by(path),
            None => server,
        };
        let usual = Self::new(trusted(Server::new(options.get("url").map_or("", String::as_str))?));
        let replica = options.get("replica_url").map(|url| Server::named("replica_url", url).map(trusted));
        Ok(Self {
            replica: replica.transpose()?,
            sessions: number(options, "sessions", SESSIONS_MAX)?.unwrap_or(usual.sessions),
            wait: millis(options, "wait_ms", usual.wait)?,
            connect: millis(options, "connect_ms", usual.connect)?,
            idle: millis(options, "idle_ms", usual.idle)?,
            hold: millis(options, "hold_ms", usual.hold)?,
            statement: millis(options, "statement_ms", usual.statement)?,
            migration: millis(options, "migration_ms", usual.migration)?,
            ..usual
        })
    }
}
