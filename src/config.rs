//! The settings of a kernel, and where they come from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env as Environment, Format, Toml};
use nexus_actors::Env;
use nexus_kernel::hal::{CacheStore, DriverFactory, Metastore, StreamStore};
use nexus_kernel::service::{Service, ServiceCatalogue};
use nexus_kernel::{GarbageConfig, ScrubConfig};
use nexus_messages::syscall::MountSpec;
use nexus_messages::{Error, ErrorKind, Op, Result};
use serde::Deserialize;

use crate::attach::Serving;
use crate::cache::CacheSpec;
use crate::profile::{Limits, Profile};

/// The data folder when nothing else is said.
const DATA_FOLDER: &str = "nexus-data";

/// The file with settings, in the data folder.
const FILE: &str = "nexus.toml";

/// What the names of settings in the environment begin with.
const PREFIX: &str = "NEXUS_";

/// The keys of the environment and the file.
const KEYS: [&str; 24] = [
    "profile",
    "data_folder",
    "metadata_cache_bytes",
    "content_cache_bytes",
    "metastore_cache_bytes",
    "kernel_threads",
    "user_threads",
    "io_threads",
    "search_threads",
    "restarts_max",
    "restarts_within_s",
    "watchdog_ms",
    "garbage_interval_s",
    "garbage_grace_s",
    "flush_within_ms",
    "unflushed_max_bytes",
    "locks_per_agent",
    "scrub_bytes_per_s",
    "scrub_interval_s",
    "services_must_start",
    "cache",
    "root_driver",
    "root_options",
    "serve",
];

/// Names in the environment that begin so and are no settings of the kernel.
const NOT_SETTINGS: [&str; 11] = [
    "data_dir",
    "config",
    "log",
    "redis_password",
    "clients",
    "user",
    "lock_path",
    "lock_id",
    "lock_token",
    "record_offset",
    "record_deliveries",
];

/// The driver of `/` on a kernel with a data folder, and on one in memory.
const ROOT_DRIVER: &str = "cas-local";
const ROOT_DRIVER_IN_MEMORY: &str = "memory";

/// How many times in which period a supervisor restarts its children before it gives up.
const RESTARTS_MAX: u32 = 10;
const RESTARTS_WITHIN: Duration = Duration::from_secs(30);

/// How long one message may hold an actor of the kernel.
const WATCHDOG: Duration = Duration::from_secs(5);

/// How far the disk may be behind what is acknowledged, where that is allowed.
const FLUSH_WITHIN: Duration = Duration::from_millis(50);
const UNFLUSHED_MAX_BYTES: u64 = 8 << 20;

/// How many advisory locks one agent may hold and wait for.
const LOCKS_PER_AGENT: usize = 10_000;

/// The settings of a kernel: what [`connect`](crate::connect) takes.
///
/// What is not set has the value of the [profile](Profile). [`Config::new`] and [`Config::in_memory`] read nothing but what the
/// code says; [`Config::load`] and its siblings read a file and the environment first. So from weak to strong:
///
/// 1. the profile;
/// 2. the file `nexus.toml` in the data folder, or the one that `NEXUS_CONFIG` names;
/// 3. the environment: a key below in capitals, after `NEXUS_`; the data folder is `NEXUS_DATA_DIR`;
/// 4. the methods of this type.
///
/// | key | what it is |
/// |---|---|
/// | `profile` | the profile's name |
/// | `data_folder` | where the kernel keeps its data |
/// | `metadata_cache_bytes` | how much metadata is kept in memory, with its paths; some 500 bytes a file |
/// | `content_cache_bytes` | how much content is kept in memory |
/// | `metastore_cache_bytes` | how much of the metastore's file is kept in memory |
/// | `kernel_threads` | threads for the kernel's actors |
/// | `user_threads` | threads for services and drivers; started when first needed |
/// | `io_threads` | threads of the I/O runtime |
/// | `search_threads` | threads that search content at once; started when first needed |
/// | `restarts_max`, `restarts_within_s` | how often, in how many seconds, a supervisor restarts its children before it gives up |
/// | `watchdog_ms` | how long one message may hold an actor of the kernel, or its thread, before it is written off and another serves on |
/// | `garbage_interval_s` | how many seconds after a collection of what nothing names any more the next one begins by itself; 0 for never |
/// | `garbage_grace_s` | for how many seconds collections must have found content unreachable before it goes |
/// | `flush_within_ms` | how long after a change that is acknowledged before it is on disk a flush is begun at the latest |
/// | `unflushed_max_bytes` | with how many bytes of such changes in memory alone the next one waits for a flush; 0 to let none be put off |
/// | `locks_per_agent` | how many advisory locks one agent may hold and wait for; what it asks for beyond that is refused with ENOLCK |
/// | `scrub_bytes_per_s` | how many bytes of content are read in a second, at most, in the background, to find out whether they are what was written; 0 for never |
/// | `scrub_interval_s` | how many seconds after the beginning of such a reading the next one begins |
/// | `services_must_start` | whether a boot at which a registered service cannot be started is refused; else the service is listed with the cause |
/// | `cache` | the cache that services are handed: `null` (the usual), `memory`, or with the feature `redis` `redis://[user[:password]@]host[:port][/db]`, `rediss://..` for an encrypted way, `unix:///path`, or a table of options: `url`, or `host`, `port` and `tls`, or `socket`; `ca_file`, `db`, `username`, `password`, `prefix`, `call_within_ms`, `connect_within_ms`, `calls_max`, `queue_max`, `listeners_max`, `value_bytes_max`; of what is said in a file or the environment, the password may stand in `NEXUS_REDIS_PASSWORD` alone |
/// | `root_driver`, `root_options` | what is mounted at `/` when the kernel boots for the first time |
/// | `serve` | whether the kernel serves `nexus.sock` in the data folder, to administrators |
///
/// A key that is not here is refused in a file; in the environment, where other programs may use the prefix, it is only told to the log.
///
/// ```
/// # use nexus::{Config, Profile};
/// let config = Config::new("some/folder").profile(Profile::Full).content_cache_bytes(1 << 30);
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct Config {
    layer: Layer,
    in_memory: bool,
    serving: Option<Serving>,
    pub(crate) drivers: Vec<Arc<dyn DriverFactory>>,
    pub(crate) services: Vec<AddService>,
    pub(crate) metastore: Option<Arc<dyn Metastore>>,
    pub(crate) cache: Option<Arc<dyn CacheStore>>,
    pub(crate) streams: Option<Arc<dyn StreamStore>>,
    pub(crate) env: Option<Env>,
}

/// Adds a kind of service to a kernel's catalogue.
pub(crate) type AddService = fn(&ServiceCatalogue) -> std::result::Result<(), String>;

/// What one source may say. Everything is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Layer {
    profile: Option<Profile>,
    data_folder: Option<PathBuf>,
    metadata_cache_bytes: Option<u64>,
    content_cache_bytes: Option<u64>,
    metastore_cache_bytes: Option<usize>,
    kernel_threads: Option<usize>,
    user_threads: Option<usize>,
    io_threads: Option<usize>,
    search_threads: Option<usize>,
    restarts_max: Option<u32>,
    restarts_within_s: Option<u64>,
    watchdog_ms: Option<u64>,
    garbage_interval_s: Option<u64>,
    garbage_grace_s: Option<u64>,
    flush_within_ms: Option<u64>,
    unflushed_max_bytes: Option<u64>,
    locks_per_agent: Option<usize>,
    scrub_bytes_per_s: Option<u64>,
    scrub_interval_s: Option<u64>,
    services_must_start: Option<bool>,
    cache: Option<CacheSpec>,
    root_driver: Option<String>,
    root_options: Option<BTreeMap<String, String>>,
    serve: Option<bool>,
}

/// The settings with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// None for a kernel in memory.
    pub(crate) data_folder: Option<PathBuf>,
    pub(crate) limits: Limits,
    pub(crate) user_threads: usize,
    pub(crate) restarts_max: u32,
    pub(crate) restarts_within: Duration,
    pub(crate) watchdog: Duration,
    pub(crate) garbage: GarbageConfig,
    pub(crate) flush_within: Duration,
    pub(crate) unflushed_max_bytes: u64,
    pub(crate) locks_per_agent: usize,
    pub(crate) scrub: ScrubConfig,
    pub(crate) services_must_start: bool,
    pub(crate) cache: CacheSpec,
    pub(crate) root: MountSpec,
    /// How the socket in the data folder is served, if it is.
    pub(crate) serving: Option<Serving>,
}

impl Config {
    fn of(layer: Layer, in_memory: bool) -> Self {
        Self {
            layer,
            in_memory,
            serving: None,
            drivers: Vec::new(),
            services: Vec::new(),
            metastore: None,
            cache: None,
            streams: None,
            env: None,
        }
    }

    /// A kernel that keeps its data in `folder`, which is made when it is missing. Reads neither file nor environment.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self::of(Layer { data_folder: Some(folder.into()), ..Layer::default() }, false)
    }

    /// A kernel that keeps everything in memory: gone with the last handle. Reads neither file nor environment.
    pub fn in_memory() -> Self {
        Self::of(Layer::default(), true)
    }

    /// Reads the environment, and the file. The data folder is `NEXUS_DATA_DIR`, else `nexus-data` below the current folder.
    ///
    /// # Errors
    /// `EINVAL` that says which key of which source is unknown or has which wrong value.
    pub fn load() -> Result<Self> {
        Self::layered(None, None)
    }

    /// As [`load`](Self::load), for this data folder, whatever the environment says of it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_from(folder: impl Into<PathBuf>) -> Result<Self> {
        Self::layered(Some(folder.into()), None)
    }

    /// As [`load`](Self::load), with what stands in `file` in the place of the data folder's own file.
    ///
    /// # Errors
    /// As [`load`](Self::load), and `ENOENT` when there is no such file.
    pub fn load_file(file: impl Into<PathBuf>) -> Result<Self> {
        Self::layered(None, Some(file.into()))
    }

    fn layered(folder: Option<PathBuf>, file: Option<PathBuf>) -> Result<Self> {
        let said = folder.or_else(|| std::env::var_os("NEXUS_DATA_DIR").map(PathBuf::from));
        let named = file.or_else(|| std::env::var_os("NEXUS_CONFIG").map(PathBuf::from));
        if let Some(named) = named.as_ref().filter(|named| !named.is_file()) {
            return Err(
                Error::on_host(Op::Connect, named, ErrorKind::NotFound).because("it is to hold the settings")
            );
        }
        let place = said.clone().unwrap_or_else(|| PathBuf::from(DATA_FOLDER));
        let file = named.unwrap_or_else(|| place.join(FILE));
        let mut sources = Figment::new();
        // Left out when it is not there; a folder of that name is told by the attempt to read it.
        if file.exists() {
            sources = sources.merge(Toml::file_exact(&file));
        }
        let environment = Environment::prefixed(PREFIX).ignore(&NOT_SETTINGS);
        for (name, _) in environment.clone().iter().filter(|(name, _)| !KEYS.contains(&name.as_str())) {
            // Others use the prefix too: what is not ours is no reason to stop.
            tracing::warn!(
                "the environment's {PREFIX}{} is no setting of a kernel",
                name.as_str().to_uppercase()
            );
        }
        sources = sources.merge(environment.only(&KEYS));
        let mut layer: Layer = sources.extract().map_err(|why| {
            Error::on_host(Op::Connect, &place, ErrorKind::InvalidArgument).because(told(why))
        })?;
        if let Some(cache) = &mut layer.cache {
            cache.loaded();
        }
        layer.data_folder = said.or(layer.data_folder).or(Some(place));
        Ok(Self::of(layer, false))
    }

    /// Sets the profile.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.layer.profile = Some(profile);
        self
    }

    /// Keeps the data in `folder`.
    #[must_use]
    pub fn data_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.layer.data_folder = Some(folder.into());
        self.in_memory = false;
        self
    }

    /// Keeps at most this many bytes of metadata in memory, and of what is known not to be there; each with its path and what it costs to keep it. 0 for
    /// none. With less than 12 KiB, those with the longest paths are not kept.
    #[must_use]
    pub fn metadata_cache_bytes(mut self, bytes: u64) -> Self {
        self.layer.metadata_cache_bytes = Some(bytes);
        self
    }

    /// Keeps at most this many bytes of content in memory.
    #[must_use]
    pub fn content_cache_bytes(mut self, bytes: u64) -> Self {
        self.layer.content_cache_bytes = Some(bytes);
        self
    }

    /// Keeps at most this many bytes of the metastore's file in memory.
    #[must_use]
    pub fn metastore_cache_bytes(mut self, bytes: usize) -> Self {
        self.layer.metastore_cache_bytes = Some(bytes);
        self
    }

    /// Runs the kernel's actors on this many threads; at least 1.
    #[must_use]
    pub fn kernel_threads(mut self, threads: usize) -> Self {
        self.layer.kernel_threads = Some(threads);
        self
    }

    /// Runs services and drivers on up to this many threads; at least 1.
    #[must_use]
    pub fn user_threads(mut self, threads: usize) -> Self {
        self.layer.user_threads = Some(threads);
        self
    }

    /// Gives the I/O runtime this many threads; at least 1.
    #[must_use]
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.layer.io_threads = Some(threads);
        self
    }

    /// Searches content on up to this many threads at once; at least 1.
    #[must_use]
    pub fn search_threads(mut self, threads: usize) -> Self {
        self.layer.search_threads = Some(threads);
        self
    }

    /// A supervisor gives up when its children had to be restarted more than `max` times `within` this time.
    #[must_use]
    pub fn restarts(mut self, max: u32, within: Duration) -> Self {
        self.layer.restarts_max = Some(max);
        self.layer.restarts_within_s = Some(within.as_secs().max(1));
        self
    }

    /// An actor of the kernel that one message holds for longer than this is written off, and another incarnation serves on; at least 1 ms. Short limits
    /// need a machine that lets every thread run: who is kept from running is written off too.
    #[must_use]
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.layer.watchdog_ms = Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// What nothing names any more is collected `interval` after the last collection, without anybody asking; none for on demand only. It goes when
    /// collections have found it unreachable for `grace`. Whole seconds count.
    #[must_use]
    pub fn garbage(mut self, interval: Option<Duration>, grace: Duration) -> Self {
        self.layer.garbage_interval_s = Some(interval.map_or(0, |interval| interval.as_secs().max(1)));
        self.layer.garbage_grace_s = Some(grace.as_secs());
        self
    }

    /// Of changes that are acknowledged before they are on disk, a flush is begun `within` this time after the first, in whole milliseconds; and with more
    /// than `max_bytes` in memory alone the next one waits for it. See [`Consistency`](crate::Consistency).
    #[must_use]
    pub fn flush(mut self, within: Duration, max_bytes: u64) -> Self {
        self.layer.flush_within_ms = Some(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        self.layer.unflushed_max_bytes = Some(max_bytes);
        self
    }

    /// One agent may hold and wait for so many advisory locks; what it asks for beyond that is refused with `ENOLCK`.
    #[must_use]
    pub fn locks_per_agent(mut self, locks: usize) -> Self {
        self.layer.locks_per_agent = Some(locks);
        self
    }

    /// All content is read in the background, at most `bytes_per_s` bytes in a second, to find out whether it is what was written; again `interval` after
    /// it began, and first so long after the start. 0 bytes for on demand only. Whole seconds count, at least 1.
    #[must_use]
    pub fn scrub(mut self, bytes_per_s: u64, interval: Duration) -> Self {
        self.layer.scrub_bytes_per_s = Some(bytes_per_s);
        self.layer.scrub_interval_s = Some(interval.as_secs());
        self
    }

    /// A boot at which a registered service cannot be started is refused: for who would rather have no kernel than one without its permission policy,
    /// whose hooks would be absent. Else such a service is listed with the cause, and everything else serves.
    #[must_use]
    pub fn services_must_start(mut self, must: bool) -> Self {
        self.layer.services_must_start = Some(must);
        self
    }

    /// The cache that services are handed, as the key `cache` says it: `null`, `memory`, or a URL.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<String>) -> Self {
        self.layer.cache = Some(CacheSpec::new(cache));
        self
    }

    /// The cache that services are handed is in a server that speaks the Redis protocol, with these options, as those of the key `cache`.
    #[must_use]
    pub fn cache_options<K: Into<String>, V: Into<String>>(
        mut self,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let options = options.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self.layer.cache = Some(CacheSpec::options(options));
        self
    }

    /// Hands this cache to services, in the place of what [`cache`](Self::cache) says.
    #[must_use]
    pub fn cache_store(mut self, cache: Arc<dyn CacheStore>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Keeps the records of durable streams in this store, in the place of the log in the data folder: a [`StreamStore`] of one's own, for which `hal::conformance` has
    /// a suite. It is of this kernel alone: a stream that no entry names any more is removed from it. It is left open at the end.
    #[must_use]
    pub fn stream_store(mut self, streams: Arc<dyn StreamStore>) -> Self {
        self.streams = Some(streams);
        self
    }

    /// What is mounted at `/` when the kernel boots for the first time. Later boots attach what was mounted last.
    #[must_use]
    pub fn root(mut self, spec: MountSpec) -> Self {
        self.layer.root_driver = Some(spec.driver);
        self.layer.root_options = Some(spec.options);
        self
    }

    /// Serves `nexus.sock` in the data folder, so that other processes of the same user can [attach](crate::attach()). Off unless it is said here or in the settings.
    #[must_use]
    pub fn serve(mut self, serving: Serving) -> Self {
        self.serving = Some(serving);
        self
    }

    /// Adds a kind of driver to those that this kernel can mount.
    #[must_use]
    pub fn driver(mut self, factory: Arc<dyn DriverFactory>) -> Self {
        self.drivers.push(factory);
        self
    }

    /// Adds a kind of service to those that this kernel can run, so that one that was registered before is started at boot.
    #[must_use]
    pub fn service<S: Service>(mut self) -> Self {
        self.services.push(|catalogue| catalogue.add::<S>().map(drop));
        self
    }

    /// Keeps the rows in `metastore`, which is open, in the place of the profile's own.
    #[must_use]
    pub fn metastore(mut self, metastore: Arc<dyn Metastore>) -> Self {
        self.metastore = Some(metastore);
        self
    }

    /// Runs in `env`, such as a [simulation](Env::seeded), in the place of one of its own. It is left running at the end.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Where the data is; none for a kernel in memory.
    pub fn folder(&self) -> Option<&Path> {
        self.layer.data_folder.as_deref().filter(|_| !self.in_memory)
    }

    /// Fills what is open from the profile, and checks the whole.
    pub(crate) fn settle(&self) -> Result<Settings> {
        let said = &self.layer;
        let data_folder = said.data_folder.clone().filter(|_| !self.in_memory);
        let refuse = |kind, why: String| match &data_folder {
            Some(folder) => Error::on_host(Op::Connect, folder, kind).because(why),
            None => Error::global(Op::Connect, kind).because(why),
        };
        let profile = said.profile.unwrap_or_default();
        let Some(base) = profile.limits() else {
            let why = format!("the profile {profile} is not in this build, but {}", Profile::available());
            return Err(refuse(ErrorKind::NotSupported, why));
        };
        let limits = Limits {
            metadata_cache_bytes: said.metadata_cache_bytes.unwrap_or(base.metadata_cache_bytes),
            content_cache_bytes: said.content_cache_bytes.unwrap_or(base.content_cache_bytes),
            metastore_cache_bytes: said.metastore_cache_bytes.unwrap_or(base.metastore_cache_bytes),
            kernel_threads: said.kernel_threads.unwrap_or(base.kernel_threads),
            io_threads: said.io_threads.unwrap_or(base.io_threads),
            search_threads: said.search_threads.unwrap_or(base.search_threads),
        };
        let user_threads = said.user_threads.unwrap_or(1);
        let threads = [
            ("kernel_threads", limits.kernel_threads),
            ("user_threads", user_threads),
            ("io_threads", limits.io_threads),
            ("search_threads", limits.search_threads),
        ];
        if let Some((key, _)) = threads.iter().find(|(_, threads)| *threads == 0) {
            return Err(refuse(ErrorKind::InvalidArgument, format!("{key} must be at least 1")));
        }
        if said.watchdog_ms == Some(0) {
            return Err(refuse(ErrorKind::InvalidArgument, "watchdog_ms must be at least 1".into()));
        }
        let serving = self.serving.clone().or(said.serve.unwrap_or(false).then(Serving::administrator));
        if serving.is_some() && data_folder.is_none() {
            let why = "a kernel in memory has no data folder to serve a socket in".to_owned();
            return Err(refuse(ErrorKind::InvalidArgument, why));
        }
        let usual = if data_folder.is_some() { ROOT_DRIVER } else { ROOT_DRIVER_IN_MEMORY };
        let mut root = MountSpec::new(said.root_driver.as_deref().unwrap_or(usual));
        root.options = said.root_options.clone().unwrap_or_default();
        Ok(Settings {
            data_folder,
            limits,
            user_threads,
            restarts_max: said.restarts_max.unwrap_or(RESTARTS_MAX),
            restarts_within: said.restarts_within_s.map_or(RESTARTS_WITHIN, Duration::from_secs),
            watchdog: said.watchdog_ms.map_or(WATCHDOG, Duration::from_millis),
            garbage: garbage(said.garbage_interval_s, said.garbage_grace_s),
            flush_within: said.flush_within_ms.map_or(FLUSH_WITHIN, Duration::from_millis),
            unflushed_max_bytes: said.unflushed_max_bytes.unwrap_or(UNFLUSHED_MAX_BYTES),
            locks_per_agent: said.locks_per_agent.unwrap_or(LOCKS_PER_AGENT),
            scrub: scrub(said.scrub_bytes_per_s, said.scrub_interval_s),
            services_must_start: said.services_must_start.unwrap_or(false),
            cache: said.cache.clone().unwrap_or_default(),
            root,
            serving,
        })
    }
}

/// The lines in which the parser of TOML shows what it could not read: after its first one, that says where it is.
const EXCERPT: RangeInclusive<usize> = 1..=3;

/// What is wrong, at which key of which source, and not the value: which of them are secret only their driver knows.
fn told(why: figment::Error) -> String {
    let told = why.into_iter().map(|mut one| {
        one.kind = Kind::Message(match one.kind {
            Kind::Message(text) if text.starts_with("TOML parse error") => {
                let lines = text.lines().enumerate().filter(|(number, _)| !EXCERPT.contains(number));
                lines.map(|(_, line)| line).collect::<Vec<_>>().join(": ")
            }
            Kind::InvalidType(_, expected) => format!("invalid type, expected {expected}"),
            Kind::InvalidValue(_, expected) => format!("invalid value, expected {expected}"),
            Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "a number that is out of range".into(),
            Kind::Unsupported(_) => "a value of that type is not supported".into(),
            Kind::UnsupportedKey(_, expected) => format!("a key of another type than {expected}"),
            other => other.to_string(),
        });
        one.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    });
    told.collect::<Vec<_>>().join("; ")
}

fn garbage(interval_s: Option<u64>, grace_s: Option<u64>) -> GarbageConfig {
    let mut garbage = GarbageConfig::default();
    if let Some(seconds) = interval_s {
        garbage.interval = Some(Duration::from_secs(seconds)).filter(|interval| !interval.is_zero());
    }
    garbage.grace = grace_s.map_or(garbage.grace, Duration::from_secs);
    garbage
}

fn scrub(bytes_per_s: Option<u64>, interval_s: Option<u64>) -> ScrubConfig {
    let mut scrub = ScrubConfig::default();
    scrub.bytes_per_s = bytes_per_s.unwrap_or(scrub.bytes_per_s);
    scrub.interval = interval_s.map_or(scrub.interval, |seconds| Duration::from_secs(seconds.max(1)));
    scrub
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut settings = self.layer.clone();
        // Which of them are secret only their driver knows.
        settings.root_options.iter_mut().flat_map(|all| all.values_mut()).for_each(String::clear);
        f.debug_struct("Config")
            .field("settings", &settings)
            .field("in_memory", &self.in_memory)
            .finish_non_exhaustive()
    }
}

macro_rules! from_folder {
    ($($path:ty),*) => {$(
        impl From<$path> for Config {
            /// As [`Config::new`].
            fn from(folder: $path) -> Self {
                Self::new(folder)
            }
        }
    )*};
}

from_folder!(&str, &Path, &PathBuf, String, PathBuf);
