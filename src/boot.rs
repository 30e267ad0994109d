//! From settings to a kernel that serves, and back.
//!
//! ```text
//! lock folder → env → metastore → streams → kernel → tree → remount → first mount of / → services → socket → ready
//! ```
//!
//! Each step needs the ones before it. When one fails, what was started is stopped again, last first, and the error says which step it was.
//!
//! The end is the same whoever orders it: a handle, the drop of the last one, or the root of the tree, when it gave up.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nexus_actors::{Env, ExitReason, HostConfig, Latch, Pool, SharedFolder, Sleepers};
use nexus_drivers::memory::MemoryMetastore;
use nexus_drivers::redb::RedbConfig;
use nexus_drivers::streams::wal::{LateStreams, WalStreamsConfig};
use nexus_drivers::streams::{MemoryStreams, SharedStreams, SharedStreamsConfig};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::hal::{CacheStore, Catalogue, Metastore, ProcessHost, StreamStore};
use nexus_kernel::{Kernel, KernelConfig, ServiceState};
use nexus_messages::syscall::SysSetattr;
use nexus_messages::{Caller, Error, ErrorKind, Op, Result, VPath};
use nexus_supervisors::Tree;

use crate::attach::{SOCKET, Server, Serving, ServingStats};
use crate::closing::Closing;
use crate::config::{Config, Settings};
use crate::folder::DataFolder;
use crate::shared;

/// How long the drop of the last handle waits for the kernel to end. It goes on ending in the background.
const DROP_WAIT_MAX: Duration = Duration::from_millis(250);

/// The folder of the streams on disk, in the data folder.
pub(crate) const STREAMS: &str = "streams";

/// Threads that open streams on disk, and read what is not in memory.
const STREAM_THREADS: usize = 2;

/// Reads of streams that may wait for such a thread.
const STREAM_QUEUE: usize = 1_024;

/// Threads that make and open files of shared memory.
const SHARED_THREADS: usize = 2;

/// How many may wait for them.
const SHARED_QUEUE: usize = 1_024;

/// How long the services may take to stop in the order of their needs; what is late is stopped with the tree.
const SERVICES_STOP_MAX: Duration = Duration::from_secs(30);

/// How long drivers have to bring to their backends what lies on this machine alone; what does not get there goes with the next boot.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// Searches that may wait for a thread, for each thread.
const SEARCHES_PER_THREAD: usize = 4;

/// A kernel that serves, and everything that it runs on.
pub(crate) struct Machine {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) tree: Arc<Tree>,
    /// Threads that search content.
    pub(crate) search: Pool,
    pub(crate) search_threads: usize,
    started: Owned,
}

/// Boots a kernel.
pub(crate) async fn boot(config: &Config) -> Result<Machine> {
    let settings = config.settle()?;
    let catalogue = catalogue(config, &settings)?;

    let serves = settings.serving.is_some();
    let folder =
        settings.data_folder.as_deref().map(|folder| DataFolder::take(folder, serves)).transpose()?;
    let env = environment(config, &settings)?;
    let mut started = Owned(Started::new(env.clone(), config.env.is_none()));
    let booted = bring_up(config, &settings, catalogue, folder, &mut started.0).await;
    match booted {
        Ok((kernel, tree)) => {
            started.0.end_with_root();
            let search_threads = settings.limits.search_threads;
            let search = env.pool("search", search_threads, search_threads * SEARCHES_PER_THREAD);
            Ok(Machine { kernel, tree, search, search_threads, started })
        }
        Err(error) => {
            started.0.stop().await;
            Err(error)
        }
    }
}

async fn bring_up(
    config: &Config,
    settings: &Settings,
    catalogue: Catalogue,
    folder: Option<DataFolder>,
    started: &mut Started,
) -> Result<(Arc<Kernel>, Arc<Tree>)> {
    let env = started.env.clone();
    let (metastore, folder) = open_metastore(&env, config, settings, folder).await?;
    let store = Arc::new(Closing::new(metastore, folder));
    started.store = Some(store.clone());
    let given = config.streams.clone();
    started.streams = if given.is_none() { open_streams(&env, settings).await? } else { None };

    let opened = Kernel::new(&env, kernel_config(settings), store, Arc::new(catalogue));
    let (kernel, spec) = opened.map_err(|error| failed(settings, error.kind(), "the metastore", &error))?;
    let own = || started.streams.clone().map(|streams| streams as Arc<dyn StreamStore>);
    let durable = given.or_else(own);
    kernel.set_stream_stores(Arc::new(MemoryStreams::default()), durable);
    if let Some((kind, cache)) = cache(&env, config, settings)? {
        kernel.set_cache(kind, cache);
    }
    if let Some(host) = process_host(&env) {
        kernel.set_process_host(host);
    }
    started.shared = share(&env, settings, &kernel);
    let tree = Tree::start(&env, spec).await;
    let tree = tree.map_err(|why| failed(settings, ErrorKind::Crashed, "the supervision tree", &why))?;
    let tree = Arc::new(tree);
    started.tree = Some(tree.clone());
    started.kernel = Some(kernel.clone());
    kernel.set_tree(&tree);

    let remounted = kernel.remount().await;
    let remounted = remounted.map_err(|error| refused(settings, "mounting again", &error))?;
    if remounted == 0 {
        let mount = SysSetattr::mount(VPath::root(), settings.root.clone());
        let mounted = kernel.send(&administrator(), mount).await;
        mounted.map_err(|error| refused(settings, "the first mount", &error))?;
    }
    for add in &config.services {
        let added = add(kernel.service_catalogue());
        added
            .map_err(|why| failed(settings, ErrorKind::InvalidArgument, "the catalogue of services", &why))?;
    }
    let services = kernel.start_services().await;
    services.map_err(|error| refused(settings, "starting services", &error))?;
    if settings.services_must_start {
        for service in kernel.service_statuses() {
            if let ServiceState::Failed { cause } = &service.state {
                let why = format!("{} cannot be started: {cause}", service.name);
                return Err(failed(settings, ErrorKind::Down, "starting services", &why));
            }
        }
    }
    if let (Some(serving), Some(folder)) = (&settings.serving, &settings.data_folder) {
        started.server = Some(Arc::new(serve(&env, &kernel, settings, folder, serving)?));
    }
    Ok((kernel, tree))
}

/// The cache that services are handed; none for one that keeps nothing.
fn cache(
    env: &Env,
    config: &Config,
    settings: &Settings,
) -> Result<Option<(&'static str, Arc<dyn CacheStore>)>> {
    if let Some(given) = &config.cache {
        return Ok(Some(("given", given.clone())));
    }
    let opened = settings.cache.open(env);
    opened.map_err(|error| failed(settings, error.kind(), "the setting cache", &error))
}

/// What starts child processes; none in a simulation, and where it is not known how.
#[cfg(target_os = "linux")]
fn process_host(env: &Env) -> Option<Arc<dyn ProcessHost>> {
    (!env.is_simulated())
        .then(|| Arc::new(nexus_drivers::processes::HostProcesses::new(env)) as Arc<dyn ProcessHost>)
}

#[cfg(not(target_os = "linux"))]
fn process_host(_: &Env) -> Option<Arc<dyn ProcessHost>> {
    None
}

/// Gives the kernel memory that processes share. Without it, it makes no such pipes and streams. What is returned ends with the kernel.
fn share(env: &Env, settings: &Settings, kernel: &Arc<Kernel>) -> Option<SharedFolder> {
    if env.is_simulated() {
        return None;
    }
    let data = settings.data_folder.as_deref();
    let folder = match shared::folder(env, data) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::warn!(%error, "there is no memory that processes share");
            return None;
        }
    };
    let (pool, sleepers) = (env.pool("shared.files", SHARED_THREADS, SHARED_QUEUE), Sleepers::new(env));
    let streams =
        SharedStreams::new(folder.clone(), sleepers.clone(), pool.clone(), SharedStreamsConfig::default());
    kernel.set_shared_memory(folder.clone(), sleepers);
    kernel.set_shared_streams(Arc::new(streams));
    let root = shared::root(data);
    env.spawn("shared.left", async move {
        if let Ok(Err(error)) = pool.run(move || SharedFolder::remove_left_over(root)).await {
            tracing::warn!(%error, "shared memory that is left over could not be looked for");
        }
    });
    data.is_none().then_some(folder)
}

/// From here on others can attach.
fn serve(
    env: &Env,
    kernel: &Arc<Kernel>,
    settings: &Settings,
    folder: &Path,
    serving: &Serving,
) -> Result<Server> {
    let step = format!("serving {SOCKET}");
    if env.is_simulated() {
        return Err(failed(settings, ErrorKind::NotSupported, &step, &"a simulation has no sockets"));
    }
    let granted = serving.caller().map_err(|error| refused(settings, &step, &error))?;
    let served = Server::start(env, kernel, folder, serving, granted);
    served.map_err(|error| failed(settings, ErrorKind::Io, &step, &error))
}

/// Who boots, and who holds the handle that `connect` returns.
pub(crate) fn administrator() -> Arc<Caller> {
    Arc::new(Caller::administrator())
}

fn failed(settings: &Settings, kind: ErrorKind, step: &str, cause: &dyn std::fmt::Display) -> Error {
    let error = match &settings.data_folder {
        Some(folder) => Error::on_host(Op::Connect, folder, kind),
        None => Error::global(Op::Connect, kind),
    };
    error.because(format!("{step}: {cause}"))
}

/// As [`failed`], for what the kernel itself answered: said once, not as an error within an error.
fn refused(settings: &Settings, step: &str, error: &Error) -> Error {
    failed(settings, error.kind(), step, &error.cause().unwrap_or(error.kind().describe()))
}

fn catalogue(config: &Config, settings: &Settings) -> Result<Catalogue> {
    let mut catalogue = nexus_drivers::catalogue();
    for factory in &config.drivers {
        let added = catalogue.add(factory.clone());
        added.map_err(|error| failed(settings, error.kind(), "the catalogue of drivers", &error))?;
    }
    Ok(catalogue)
}

fn environment(config: &Config, settings: &Settings) -> Result<Env> {
    if let Some(env) = &config.env {
        return Ok(env.clone());
    }
    let host = HostConfig {
        kernel_threads: settings.limits.kernel_threads,
        user_threads: settings.user_threads,
        io_threads: settings.limits.io_threads,
        ..HostConfig::default()
    };
    Env::host(host).map_err(|error| failed(settings, ErrorKind::Io, "starting threads", &error))
}

/// The metastore, and the folder that is locked for as long as it is open. A folder is given up when opening fails.
async fn open_metastore(
    env: &Env,
    config: &Config,
    settings: &Settings,
    folder: Option<DataFolder>,
) -> Result<(Arc<dyn Metastore>, Option<DataFolder>)> {
    if let Some(given) = &config.metastore {
        return Ok((given.clone(), folder));
    }
    let Some(folder) = folder else { return Ok((Arc::new(MemoryMetastore::new()), None)) };
    let file = folder.metastore();
    let step = format!("opening {}", file.display());
    let database =
        RedbConfig::default().cache_bytes(settings.limits.metastore_cache_bytes).salt(env.random());
    let config = WalConfig::default().database(database);
    // The folder goes along: when this future is dropped, it stays locked until the file is closed again.
    let opening = move || WalMetastore::open(folder.path(), config).map(|metastore| (metastore, folder));
    let opened = env.pool("boot", 1, 1).run(opening).await;
    let opened = opened.map_err(|error| failed(settings, ErrorKind::Crashed, &step, &error))?;
    let (metastore, folder) = opened.map_err(|error| failed(settings, error.kind(), &step, &error))?;
    Ok((Arc::new(metastore), Some(folder)))
}

/// The streams on disk, if there can be a folder for them, which belongs to who holds the data folder. It is made with the first of them.
async fn open_streams(env: &Env, settings: &Settings) -> Result<Option<Arc<LateStreams>>> {
    let Some(folder) = settings.data_folder.as_ref().map(|folder| folder.join(STREAMS)) else {
        return Ok(None);
    };
    let step = format!("opening {}", folder.display());
    let pool = env.pool("streams.read", STREAM_THREADS, STREAM_QUEUE);
    let opened = LateStreams::new(folder, env, pool, WalStreamsConfig::default()).await;
    let opened = opened.map_err(|error| failed(settings, error.kind(), &step, &error))?;
    Ok(Some(Arc::new(opened)))
}

fn kernel_config(settings: &Settings) -> KernelConfig {
    let mut config = KernelConfig::default();
    config.data_folder.clone_from(&settings.data_folder);
    config.metadata_cache_bytes = settings.limits.metadata_cache_bytes;
    config.content_cache_bytes = settings.limits.content_cache_bytes;
    config.restarts_max = settings.restarts_max;
    config.restarts_within = settings.restarts_within;
    config.watchdog = settings.watchdog;
    config.garbage = settings.garbage;
    config.flush_within = settings.flush_within;
    config.unflushed_max_bytes = settings.unflushed_max_bytes;
    config.locks_per_agent = settings.locks_per_agent;
    config.scrub = settings.scrub;
    config
}

impl Machine {
    /// Stops the kernel: the socket, the tree from bottom to top, then the metastore, which gives the data folder up, then the threads. May be repeated,
    /// and by several at once; each returns when the folder is free.
    pub(crate) async fn stop(&self) {
        self.started.0.stop().await;
    }

    /// Whether the end has begun.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.started.0.why.get().is_some()
    }

    /// Waits for the end, and says why it came. The data folder is free then.
    pub(crate) fn ended(&self) -> impl Future<Output = ExitReason> + Send + use<> {
        let ended = self.started.0.ended.clone();
        async move { ended.wait().await }
    }

    /// Whether calls are still taken.
    pub(crate) fn serving_for(&self, op: Op) -> Result<()> {
        if self.is_stopping() { Err(self.told(Error::global(op, ErrorKind::Down))) } else { Ok(()) }
    }

    /// What becomes of `error`: one that comes of the kernel's end says why the kernel ended, when nobody asked for that.
    #[cold]
    pub(crate) fn told(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Down {
            return error;
        }
        // The root closes its mailboxes before the end begins.
        let why = self.started.0.why.get().cloned().or_else(|| self.tree.snapshot().actor.last_exit);
        match why {
            Some(why) if !why.is_normal() => error.because(format!("the kernel has ended: {why}")),
            _ => error,
        }
    }

    pub(crate) fn env(&self) -> &Env {
        &self.started.0.env
    }

    /// Who serves the socket; none when nobody does.
    pub(crate) fn server(&self) -> Option<&Arc<Server>> {
        self.started.0.server.as_ref()
    }

    /// How the socket is used; none when it is not served.
    pub(crate) fn serving(&self) -> Option<ServingStats> {
        self.server().map(|server| server.stats())
    }
}

/// What was started, to be stopped in reverse order. Clones share the end.
#[derive(Clone)]
struct Started {
    env: Env,
    /// Whether the environment was made for this kernel, and ends with it.
    owns_env: bool,
    store: Option<Arc<Closing>>,
    streams: Option<Arc<LateStreams>>,
    /// Shared memory that is of no use without this kernel.
    shared: Option<SharedFolder>,
    kernel: Option<Arc<Kernel>>,
    tree: Option<Arc<Tree>>,
    server: Option<Arc<Server>>,
    /// Why the end has begun.
    why: Arc<OnceLock<ExitReason>>,
    /// Set when the data folder is free.
    ended: Latch<ExitReason>,
}

impl Started {
    fn new(env: Env, owns_env: bool) -> Self {
        let (why, ended) = (Arc::default(), Latch::new());
        Self {
            env,
            owns_env,
            store: None,
            streams: None,
            shared: None,
            kernel: None,
            tree: None,
            server: None,
            why,
            ended,
        }
    }

    /// Ends all of it when the root of the tree has ended by itself.
    fn end_with_root(&self) {
        let Some(tree) = self.tree.clone() else { return };
        let started = self.clone();
        self.env.spawn("root", async move {
            let why = tree.wait().await;
            started.begin(why);
        });
    }

    /// Begins the end, once. A task of the kernel's own carries it out, so that it does not hang on who asked for it.
    fn begin(&self, why: ExitReason) {
        if self.why.set(why.clone()).is_err() {
            return;
        }
        if !why.is_normal() {
            tracing::error!(%why, "the kernel ends");
        }
        let (kernel, tree, server) = (self.kernel.clone(), self.tree.clone(), self.server.clone());
        // Otherwise nobody is there who could flush.
        let in_order = why == ExitReason::Shutdown;
        let last_word = LastWord {
            why,
            kernel: kernel.clone(),
            streams: self.streams.clone(),
            shared: self.shared.clone(),
            store: self.store.clone(),
            ended: self.ended.clone(),
        };
        let env = self.owns_env.then(|| self.env.clone());
        self.env.spawn("shutdown", async move {
            if let Some(server) = server {
                server.stop().await;
            }
            if let Some(kernel) = &kernel {
                if in_order {
                    // While the services live, which may observe.
                    kernel.tell_observers().await;
                }
                // What they said last is on its way into streams, which need all that is below.
                kernel.stop_children().await;
                kernel.stop_services(SERVICES_STOP_MAX).await;
                if in_order {
                    kernel.tell_observers().await;
                }
                kernel.end_observers();
                if in_order {
                    kernel.forget_locks().await;
                    kernel.flush_drivers(FLUSH_MAX).await;
                }
            }
            if let Some(tree) = tree {
                tree.stop().await;
            }
            if let Some(kernel) = kernel {
                kernel.release_drivers();
            }
            drop(last_word);
            if let Some(env) = env {
                env.stop();
            }
        });
    }

    async fn stop(&self) {
        self.begin(ExitReason::Shutdown);
        self.ended.wait().await;
    }
}

/// Closes the store, which gives the folder up, and then says that the end has come. Does so on drop: also when the environment was stopped
/// under the kernel, and with it the task that holds this.
struct LastWord {
    why: ExitReason,
    kernel: Option<Arc<Kernel>>,
    streams: Option<Arc<LateStreams>>,
    shared: Option<SharedFolder>,
    store: Option<Arc<Closing>>,
    ended: Latch<ExitReason>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if let Some(kernel) = &self.kernel {
            kernel.close_store();
        }
        // Before the data folder is given up.
        if let Some(streams) = &self.streams {
            streams.shut();
        }
        if let Some(Err(error)) = self.shared.as_ref().map(SharedFolder::remove_all) {
            tracing::warn!(%error, "shared memory is left over");
        }
        if let Some(store) = &self.store {
            store.close();
        }
        self.ended.set(self.why.clone());
    }
}

/// What ends with this value.
struct Owned(Started);

impl Drop for Owned {
    /// A program may end right after this: it waits a moment, so that most kernels end cleanly.
    fn drop(&mut self) {
        let Started { env, why, ended, .. } = &self.0;
        if why.get().is_some() {
            return;
        }
        self.0.begin(ExitReason::Shutdown);
        if !env.is_simulated() && env.blocking_wait(env.timeout(DROP_WAIT_MAX, ended.wait())).is_err() {
            tracing::debug!("the kernel goes on ending in the background");
        }
    }
}
