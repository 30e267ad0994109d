//! The settings, from a URL or by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nexus_kernel::hal::StoreError;
use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use crate::secret::{Secret, scrubbed};

/// The variable of the environment with the password.
const PASSWORD: &str = "NEXUS_REDIS_PASSWORD";

/// What it is when nothing else is said.
const HOST: &str = "127.0.0.1";
const PORT: u16 = 6379;
const PREFIX: &str = "nexus:";
const CALL_WITHIN: Duration = Duration::from_millis(500);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const CALLS_MAX: usize = 1_024;
const QUEUE_MAX: usize = 4_096;
const LISTENERS_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1 << 20;

/// The settings of a [`RedisCache`](super::RedisCache). Nothing of the password is ever printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    pub(super) server: Server,
    /// Whether the way to it is encrypted; its certificate and name are always checked then. Not for unix sockets.
    pub tls: bool,
    /// The certificates (PEM) of the authorities by which it is trusted; the system's when none are named.
    pub ca_file: Option<PathBuf>,
    /// The number of the database.
    pub db: i64,
    /// As whom to log in; none for the server's default user.
    pub username: Option<String>,
    /// With what to log in.
    pub password: Option<Secret>,
    /// What the names of all keys and topics begin with at the server.
    pub prefix: String,
    /// How long one call may take.
    pub call_within: Duration,
    /// How long an attempt to connect may take, with logging in.
    pub connect_within: Duration,
    /// How many calls may be under way; others wait, within their deadline.
    pub calls_max: usize,
    /// How many messages may wait for one listener, at most, whatever it asks for.
    pub queue_max: usize,
    /// How many listeners there may be: each has a connection.
    pub listeners_max: usize,
    /// Larger values, with their keys, are not kept.
    pub value_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            server: Server::Tcp { host: HOST.into(), port: PORT },
            tls: false,
            ca_file: None,
            db: 0,
            username: None,
            password: None,
            prefix: PREFIX.into(),
            call_within: CALL_WITHIN,
            connect_within: CONNECT_WITHIN,
            calls_max: CALLS_MAX,
            queue_max: QUEUE_MAX,
            listeners_max: LISTENERS_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
        }
    }
}

impl RedisConfig {
    /// From `redis://[user[:password]@]host[:port][/db]`, `rediss://` for an encrypted way, or `unix:///path/to/socket[?db=N&user=U&pass=P]`.
    ///
    /// # Errors
    /// [`StoreError::BadOption`], which repeats nothing of the URL: there may be a password in it.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        // The way is ours to encrypt: the client library knows nothing of it.
        let encrypted = ["rediss:", "valkeys:"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let plain = encrypted.map(|rest| format!("redis:{rest}"));
        let info = plain.as_deref().unwrap_or(url).into_connection_info().map_err(|_| {
            bad("url: it is to be redis:// or rediss://[user[:password]@]host[:port][/db], or unix:///path")
        })?;
        let server = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Server::Tcp { host: host.clone(), port: *port },
            ConnectionAddr::Unix(path) => Server::Unix(path.clone()),
            _ => return Err(bad("url: this build does not know such servers")),
        };
        let login = info.redis_settings();
        Ok(Self {
            server,
            tls: encrypted.is_some(),
            db: login.db(),
            username: login.username().map(Into::into),
            password: login.password().map(Secret::new),
            ..Self::default()
        })
    }

    /// From options by name: `url`, or `host`, `port`, `tls` (`true` or `false`), or `socket`; and `ca_file`, `db`, `username`, `password`, `prefix`, `call_within_ms`, `connect_within_ms`, `calls_max`,
    /// `queue_max`, `listeners_max`, `value_bytes_max`. What is said by name is stronger than the URL.
    ///
    /// # Errors
    /// [`StoreError::BadOption`], which names the option.
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self, StoreError> {
        let mut config = options.get("url").map_or_else(|| Ok(Self::default()), |url| Self::from_url(url))?;
        for (name, value) in options {
            match name.as_str() {
                "url" => {}
                "host" => config = config.host(value.clone()),
                "port" => config = config.port(number(name, value)?),
                "socket" => config = config.socket(value),
                "tls" => config.tls = flag(name, value)?,
                "ca_file" => config.ca_file = Some(value.into()),
                "db" => config.db = number(name, value)?,
                "username" => config.username = Some(value.clone()),
                "password" => config.password = Some(Secret::new(value.clone())),
                "prefix" => config.prefix.clone_from(value),
                "call_within_ms" => config.call_within = millis(name, value)?,
                "connect_within_ms" => config.connect_within = millis(name, value)?,
                "calls_max" => config.calls_max = at_least_one(name, value)?,
                "queue_max" => config.queue_max = at_least_one(name, value)?,
                "listeners_max" => config.listeners_max = at_least_one(name, value)?,
                "value_bytes_max" => config.value_bytes_max = number(name, value)?,
                _ => return Err(bad(format!("{name}: a cache in Redis has no such option"))),
            }
        }
        if options.contains_key("socket") && (options.contains_key("host") || options.contains_key("port")) {
            return Err(bad("socket: it is given beside host or port"));
        }
        if config.ca_file.is_some() && !config.tls {
            return Err(bad("ca_file: the way is not encrypted: tls is not true"));
        }
        if config.tls && matches!(config.server, Server::Unix(_)) {
            return Err(bad("tls: a unix socket is not encrypted"));
        }
        Ok(config)
    }

    /// Takes the password from `NEXUS_REDIS_PASSWORD` of the environment, when none was said otherwise.
    #[must_use]
    pub fn password_from_environment(mut self) -> Self {
        if self.password.is_none() {
            self.password = std::env::var(PASSWORD).ok().map(Secret::new);
        }
        self
    }

    /// Sets the host's name or address.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        let port = if let Server::Tcp { port, .. } = self.server { port } else { PORT };
        self.server = Server::Tcp { host: host.into(), port };
        self
    }

    /// Sets the port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        let host = if let Server::Tcp { host, .. } = self.server { host } else { HOST.into() };
        self.server = Server::Tcp { host, port };
        self
    }

    /// Reaches the server by a unix socket.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.server = Server::Unix(path.into());
        self
    }

    /// Where the server is, without secrets.
    pub fn address(&self) -> String {
        self.server.to_string()
    }

    pub(super) fn hide(&self, text: &str) -> String {
        scrubbed(text, self.password.as_slice())
    }

    /// How to log in.
    pub(super) fn login(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default().set_db(self.db).set_skip_set_lib_name();
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.expose());
        }
        login
    }
}

fn bad(why: impl Into<String>) -> StoreError {
    StoreError::BadOption { why: why.into() }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, StoreError> {
    value.parse().map_err(|_| bad(format!("{name}: {value} is no such number")))
}

fn flag(name: &str, value: &str) -> Result<bool, StoreError> {
    value.parse().map_err(|_| bad(format!("{name}: it is to be true or false")))
}

fn at_least_one(name: &str, value: &str) -> Result<usize, StoreError> {
    match number(name, value)? {
        0 => Err(bad(format!("{name}: it is to be 1 or more"))),
        number => Ok(number),
    }
}

fn millis(name: &str, value: &str) -> Result<Duration, StoreError> {
    match number(name, value)? {
        0 => Err(bad(format!("{name}: it is to be 1 or more"))),
        millis => Ok(Duration::from_millis(millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(options: &[(&str, &str)]) -> Result<RedisConfig, StoreError> {
        let owned = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        RedisConfig::from_options(&owned)
    }

    #[test]
    fn a_url_and_options_say_the_same() {
        let url = options(&[("url", "redis://me:hush@there:7000/3")]).unwrap();
        let named =
            [("host", "there"), ("port", "7000"), ("db", "3"), ("username", "me"), ("password", "hush")];
        assert_eq!(url, options(&named).unwrap());
        let encrypted = options(&[("url", "rediss://there/3")]).unwrap();
        assert_eq!(encrypted, options(&[("host", "there"), ("db", "3"), ("tls", "true")]).unwrap());
        assert_eq!(options(&[("url", "unix:///s")]).unwrap(), options(&[("socket", "/s")]).unwrap());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong: [(&[(&str, &str)], &str); 8] = [
            (&[("prot", "1")], "prot"),
            (&[("port", "70000")], "port"),
            (&[("calls_max", "0")], "calls_max"),
            (&[("socket", "/s"), ("port", "1")], "socket"),
            (&[("tls", "1")], "tls"),
            (&[("url", "unix:///s"), ("tls", "true")], "tls"),
            (&[("url", "nonsense")], "url"),
            (&[("host", "there"), ("ca_file", "/c")], "ca_file"),
        ];
        for (given, named) in wrong {
            let error = options(given).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let config = options(&[("url", "redis://me:hush@there")]).unwrap();
        assert!(!format!("{config:?} {}", config.address()).contains("hush"));
        let error = options(&[("url", "redis://me:hush@there:port")]).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hush"));
        assert_eq!(
            config.hide("unknown command HELLO, with args 3 AUTH me hush"),
            "unknown command HELLO, with args 3 AUTH me (hidden)"
        );
    }
}
