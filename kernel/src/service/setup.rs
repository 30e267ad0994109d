//! What a service is started with.

use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nexus_actors::Superseded;
use nexus_messages::{Caller, Error, ErrorKind, Holding, Lsn, Result, VPath, ZoneId};

use super::{Making, Published, Service, ServiceRef, agent_of};
use crate::cache::Cache;
use crate::dispatch::OpSet;
use crate::hal::LogRecord;
use crate::kernel::Kernel;
use crate::syscalls::Serve;

/// What a service is started with: who it is, its configuration, the place for its view, and the way to the kernel. Cheap to clone. The same
/// at each restart of one version.
pub struct Setup<S: Service>(Arc<Inner<S>>);

struct Inner<S: Service> {
    name: Arc<str>,
    number: u64,
    config: S::Config,
    view: Arc<Published<S::View>>,
    before: Option<Arc<dyn Any + Send + Sync>>,
    calls: Syscalls,
    cache: Cache,
}

impl<S: Service> Setup<S> {
    pub(super) fn new(config: S::Config, making: &Making) -> Self {
        let mut caller = Caller::administrator();
        caller.agent = agent_of(&making.name).into();
        // What is tied to the version goes when the registry has stopped it.
        caller.life = making.life;
        let kernel = making.kernel.upgrade().filter(|_| !making.read_only);
        let cache = Cache::new(kernel.map(|kernel| kernel.kernel_cache().clone()), &making.name);
        Self(Arc::new(Inner {
            name: making.name.clone(),
            number: making.number,
            config,
            view: Arc::new(Published::new()),
            before: making.before.clone(),
            calls: Syscalls {
                kernel: making.kernel.clone(),
                caller: Arc::new(caller),
                read_only: making.read_only,
            },
            cache,
        }))
    }

    /// The name under which it is registered.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Whether this version is on trial in shadow. It must not touch what it shares with the one that serves: it is given copies of calls, and
    /// ends with the trial.
    pub fn is_on_trial(&self) -> bool {
        self.0.calls.read_only
    }

    /// The number of this version: 1 for the first, and one more with each that takes its place.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// What it is configured with.
    pub fn config(&self) -> &S::Config {
        &self.0.config
    }

    /// What was published last, by this incarnation or one before it.
    pub fn view(&self) -> &Arc<Published<S::View>> {
        &self.0.view
    }

    /// Makes `view` what inline hooks and direct calls see from now on. To be done in `init` when there are any of either.
    ///
    /// # Errors
    /// [`Superseded`], when a later incarnation has published.
    pub fn publish(
        &self,
        incarnation: u64,
        view: impl Into<Arc<S::View>>,
    ) -> std::result::Result<(), Superseded> {
        self.0.view.publish(incarnation, view)
    }

    /// What the version before publishes, when it is of this type: state that both can share while both are called. Not so
    /// [on trial](Self::is_on_trial): then it is to be copied.
    pub fn predecessor<V: Send + Sync + 'static>(&self) -> Option<Arc<V>> {
        self.0.before.clone()?.downcast::<Published<V>>().ok()?.get()
    }

    /// The kernel, called as this service. Such calls pass the service's own hooks by.
    pub fn calls(&self) -> &Syscalls {
        &self.0.calls
    }

    /// The kernel's cache, for what may be lost at any time and may be old; all versions of the service have the same keys.
    /// [On trial](Self::is_on_trial) it keeps nothing.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Another service, or this one. A handle to itself is inside already: it never waits for a swap. [On trial](Self::is_on_trial) another one is
    /// looked at, and asked nothing: what asks for something is refused with `EROFS`.
    ///
    /// # Errors
    /// `ESHUTDOWN` when the kernel is gone.
    pub fn service<T: Service>(&self, name: &str) -> Result<ServiceRef<T>> {
        let kernel = self.0.calls.kernel()?;
        let service = ServiceRef::new(kernel.services().clone(), name);
        Ok(match *name == *self.0.name {
            true => service.inside(self.0.number),
            false if self.is_on_trial() => service.read_only(),
            false => service,
        })
    }
}

impl<S: Service> Clone for Setup<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The kernel as a service calls it: under its own name, with an administrator's rights. On trial it can change nothing.
#[derive(Clone)]
pub struct Syscalls {
    kernel: Weak<Kernel>,
    caller: Arc<Caller>,
    read_only: bool,
}

/// Some commits of one zone, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commits {
    /// The commits after the cursor.
    pub records: Vec<LogRecord>,
    /// The cursor to go on with.
    pub next: Lsn,
}

impl Syscalls {
    /// Executes a syscall.
    ///
    /// # Errors
    /// What the syscall says; `EROFS` for a change by a version on trial; `ESHUTDOWN` when the kernel is gone.
    pub async fn send<C: Serve>(&self, call: C) -> Result<C::Done> {
        let op = C::OP;
        if self.read_only && OpSet::MUTATIONS.contains(op) {
            let error = Error::global(op, ErrorKind::ReadOnly);
            return Err(error.because(format!("{} is on trial and changes nothing", self.caller.agent)));
        }
        self.kernel()?.send(&self.caller, call).await
    }

    /// As whom it calls.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The same in another zone.
    #[must_use]
    pub fn in_zone(&self, zone: ZoneId) -> Self {
        let caller = Caller { zone, ..(*self.caller).clone() };
        Self { caller: Arc::new(caller), ..self.clone() }
    }

    /// The zones that there are.
    ///
    /// # Errors
    /// What the metastore says.
    pub fn zones(&self) -> Result<Vec<ZoneId>> {
        self.kernel()?.all_zones()
    }

    /// Up to `limit` commits of `zone` after the cursor `since`, in their order, without gaps. What is returned is on disk. Blocks on the
    /// metastore.
    ///
    /// # Errors
    /// What the metastore says.
    pub fn commits(&self, zone: &ZoneId, since: Lsn, limit: usize) -> Result<Commits> {
        self.kernel()?.commits(zone, since, limit)
    }

    /// Hands what each entry of `zone` holds to `visit`, as it was at one moment, and gives the commit with which that moment ends: what is committed
    /// later is not in it. Directories hold nothing, and what lies on path-addressed mounts is not seen. Goes through all rows, on a thread of its
    /// own; an entry costs two rows.
    ///
    /// # Errors
    /// What the metastore says.
    pub async fn census<T: Send + 'static>(
        &self,
        zone: &ZoneId,
        state: T,
        visit: impl Fn(&mut T, Holding) + Send + 'static,
    ) -> Result<(Lsn, T)> {
        self.kernel()?.census(zone, state, visit).await
    }

    /// The mount at which `path` lies, when that is a path-addressed one: changes there are not weighed, and no census sees what they leave. As
    /// mounts are now; links are not followed.
    ///
    /// # Errors
    /// `ESHUTDOWN` when the kernel is gone.
    pub fn path_addressed(&self, path: &VPath) -> Result<Option<VPath>> {
        let kernel = self.kernel()?;
        Ok(kernel.routes().route(&self.caller.zone, path, |routed| {
            let mount = routed?.mount;
            mount.is_path_addressed().then(|| mount.point.clone())
        }))
    }

    /// Waits until something became durable after [`progress`](Self::progress) was `seen`, at most for `limit`.
    pub async fn committed(&self, seen: u64, limit: Duration) {
        if let Ok(kernel) = self.kernel() {
            kernel.committed(seen, limit).await;
        }
    }

    /// How often the committer has made something durable. What is committed and not durable yet is in no log.
    pub fn progress(&self) -> u64 {
        self.kernel().map_or(0, |kernel| kernel.store().progress())
    }

    pub(crate) fn kernel(&self) -> Result<Arc<Kernel>> {
        self.kernel.upgrade().ok_or_else(|| Error::global(nexus_messages::Op::Service, ErrorKind::Down))
    }
}

impl std::fmt::Debug for Syscalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syscalls").field("caller", &self.caller).finish_non_exhaustive()
    }
}
