//! The handle: who calls, and which kernel.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nexus_actors::{Env, ExitReason, Pool};
use nexus_kernel::{Kernel, Serve};
use nexus_messages::syscall::SyscallMessage;
use nexus_messages::{Caller, Error, ErrorKind, IntoPath, Op, Result, VPath, ZoneId};

use crate::attach::{Remote, RemoteLife, ServingStats, acting_for, as_agent, lessened};
use crate::boot::{Machine, administrator, boot};
use crate::config::Config;

/// A handle to a kernel: what a process calls it with. Cheap to clone.
///
/// The handle says who calls: no message can. The one that [`connect`] gives is the administrator's; [`agent`](Self::agent) makes others,
/// which can do less. When the last handle of a kernel is dropped, the kernel ends as with [`shutdown`](Self::shutdown); the drop waits for that at most a
/// quarter of a second.
///
/// All methods can be called from any executor, and from none through [`blocking`](crate::blocking). Dropping the future of a call that
/// changes something loses only the reply, once the change has begun.
#[derive(Clone)]
pub struct Nexus {
    pub(crate) link: Link,
    caller: Arc<Caller>,
    /// What is tied to the agent goes with the last clone of its handle; what is tied to one that is no agent's, with the kernel or the connection.
    #[expect(dead_code, reason = "kept to be dropped")]
    life: Option<Life>,
}

/// An agent's life, of a kernel in this process or elsewhere.
#[derive(Clone)]
#[expect(dead_code, reason = "kept to be dropped")]
enum Life {
    Local(Arc<nexus_kernel::Life>),
    Remote(Arc<RemoteLife>),
}

/// A handle that keeps neither the kernel nor anybody's life going.
pub(crate) struct WeakNexus {
    link: WeakLink,
    caller: Arc<Caller>,
}

enum WeakLink {
    Local(Weak<Machine>),
    Remote(Weak<Remote>),
}

impl WeakNexus {
    /// The handle, while somebody else has one.
    pub(crate) fn upgrade(&self) -> Option<Nexus> {
        let link = match &self.link {
            WeakLink::Local(machine) => Link::Local(machine.upgrade()?),
            WeakLink::Remote(remote) => Link::Remote(remote.upgrade()?),
        };
        Some(Nexus::linked(link, self.caller.clone()))
    }
}

/// Where the kernel is.
#[derive(Clone)]
pub(crate) enum Link {
    /// In this process, which owns it.
    Local(Arc<Machine>),
    /// In another, which serves its socket.
    Remote(Arc<Remote>),
}

/// Boots a kernel and gives the administrator's handle to it. Nothing has to be set up: what is missing in the data folder is made.
///
/// # Errors
/// What keeps the kernel from booting, with the step in the cause; what was started by then is stopped again. `EBUSY` when another process, or
/// another kernel of this one, owns the data folder.
///
/// ```
/// # smol::block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let nx = nexus::connect(folder).await?;
/// nx.write("/notes/today.md", "buy milk").await?;
/// assert_eq!(nx.read("/notes/today.md").await?, "buy milk");
/// nx.shutdown().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub async fn connect(config: impl Into<Config>) -> Result<Nexus> {
    let config = config.into();
    let machine = Box::pin(boot(&config)).await?;
    Ok(Nexus::linked(Link::Local(Arc::new(machine)), administrator()))
}

impl Nexus {
    pub(crate) fn linked(link: Link, caller: Arc<Caller>) -> Self {
        Self { link, caller, life: None }
    }

    /// Executes a syscall.
    ///
    /// # Errors
    /// What the syscall's documentation says; `ESHUTDOWN` once the kernel has ended, with the reason when nobody asked for it.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::{SysRead, SysWrite, VPath};
    ///
    /// let path = VPath::parse("/a/b.txt")?;
    /// let written = nx.send(SysWrite::at(&path, "0123456789").create()).await?;
    /// assert!(written.created);
    /// let read = nx.send(SysRead::at(&path).range(3, 4)).await?;
    /// assert_eq!((&*read.data, read.metadata.version), (&b"3456"[..], 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[expect(clippy::manual_async_fn, reason = "an async function would copy the call before it looks at it")]
    pub fn send<S: Serve>(&self, mut call: S) -> impl Future<Output = Result<S::Done>> + Send {
        async move {
            match self.at_hand(&mut call) {
                Some(done) => Ok(done),
                None => self.ask(call).await,
            }
        }
    }

    /// The answer to a call, when it is at hand; none, and nothing is done, when [`send`](Self::send) is to be asked.
    #[inline]
    pub(crate) fn at_hand<S: Serve>(&self, call: &mut S) -> Option<S::Done> {
        match &self.link {
            Link::Local(machine) if !machine.is_stopping() => machine.kernel.at_hand(&self.caller, call),
            _ => None,
        }
    }

    /// As [`send`](Self::send), of a call whose answer is not at hand.
    pub(crate) async fn ask<S: Serve>(&self, call: S) -> Result<S::Done> {
        match &self.link {
            Link::Local(machine) if machine.is_stopping() => {
                Err(machine.told(Error::global(<S as SyscallMessage>::OP, ErrorKind::Down)))
            }
            Link::Local(machine) => {
                machine.kernel.ask(&self.caller, call).await.map_err(|error| machine.told(error))
            }
            // Apart, so that the way of a call to the kernel of this process stays short.
            Link::Remote(remote) => Box::pin(remote.send(&self.caller, call)).await,
        }
    }

    /// A handle for the agent called `name`, in the same zone. It is not an administrator's. With the last clone of it ends the agent's life, and what is tied to
    /// that: two handles of one name are two lives. On an [attached](crate::attach()) handle what is tied goes with the connection, too.
    ///
    /// # Errors
    /// `EINVAL` for a name that is empty, longer than 255 bytes, or has `/` or control characters in it, and for those under which the kernel and its
    /// services act: `nexus`, and what begins with `service:`. `EACCES` on an [attached](crate::attach()) handle whose owner grants less, and
    /// `EBUSY` on one that has as many agents as may be.
    pub fn agent(&self, name: impl AsRef<str>) -> Result<Self> {
        let caller = as_agent(&self.caller, name.as_ref())?;
        let (caller, life) = match &self.link {
            Link::Local(machine) => {
                let life = machine.kernel.begin_life();
                (caller.living(life.id()), Life::Local(Arc::new(life)))
            }
            Link::Remote(remote) => {
                let caller = lessened(remote.granted(), caller)?;
                let life = remote.begin_life()?;
                ((*caller).clone().living(life.id()), Life::Remote(life))
            }
        };
        Ok(Self { link: self.link.clone(), caller: Arc::new(caller), life: Some(life) })
    }

    /// The same handle in the zone called `name`, whose namespace is its own: it sees its own mounts, and below them the root zone's.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle, `EINVAL` for what does not name a zone.
    pub fn zone(&self, name: &str) -> Result<Self> {
        self.administrator(Op::Connect)?;
        let zone = ZoneId::parse(name);
        let zone = zone.map_err(|why| Error::global(Op::Connect, ErrorKind::InvalidArgument).because(why))?;
        let caller = Caller { zone, ..(*self.caller).clone() };
        Ok(Self { caller: Arc::new(caller), ..self.clone() })
    }

    /// The same handle for the user called `name`, and so are those of [`agents`](Self::agent) that are made from it. It is told with what they do: in events, and to hooks and the
    /// permission provider, who may go by it. It gives no right by itself.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle: whom an agent acts for is not for it to say. `EINVAL` for a name that is empty, longer than 255 bytes, or has control
    /// characters in it.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// let agent = nx.user("ada")?.agent("coder-7")?;
    /// assert_eq!(agent.caller().user.as_deref(), Some("ada"));
    /// assert_eq!(agent.user("bob").unwrap_err().kind(), nexus::ErrorKind::PermissionDenied);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn user(&self, name: &str) -> Result<Self> {
        self.administrator(Op::Connect)?;
        let caller = acting_for(&self.caller, name)?;
        Ok(Self { caller: Arc::new(caller), ..self.clone() })
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether this is an administrator's handle.
    pub fn is_admin(&self) -> bool {
        self.caller.admin
    }

    /// The kernel itself, for modules that are trusted with it: hooks, the permission provider, statistics.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EOPNOTSUPP` when it is [attached](crate::attach()).
    pub fn kernel(&self) -> Result<&Arc<Kernel>> {
        self.administrator(Op::Access)?;
        Ok(&self.machine(Op::Access)?.kernel)
    }

    /// Clock, tasks and threads that this handle runs on.
    pub fn env(&self) -> &Env {
        match &self.link {
            Link::Local(machine) => machine.env(),
            Link::Remote(remote) => remote.env(),
        }
    }

    /// Whether nobody else was [attached](crate::attach()) when this handle was, to a kernel that [ends with its last client](Self::unused): what is in no more than its
    /// memory may then end with this handle. False where the kernel is in this process.
    pub fn is_last_client(&self) -> bool {
        matches!(&self.link, Link::Remote(remote) if remote.is_last())
    }

    /// How the socket of the data folder is used; none when it is not [served](Config::serve).
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EOPNOTSUPP` when it is [attached](crate::attach()).
    pub fn serving(&self) -> Result<Option<ServingStats>> {
        self.administrator(Op::Access)?;
        Ok(self.machine(Op::Access)?.serving())
    }

    /// Waits until nobody is [attached](crate::attach()): until the last has gone, or when nobody comes within `first`. From then on nobody is taken: who comes
    /// is told that the kernel ends, and waits for the next one. So [`shutdown`](Self::shutdown) is to follow.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EOPNOTSUPP` when it is attached itself, or the socket is not [served](Config::serve).
    pub async fn unused(&self, first: Duration) -> Result<()> {
        self.administrator(Op::Access)?;
        let Some(server) = self.machine(Op::Access)?.server().cloned() else {
            let error = Error::global(Op::Access, ErrorKind::NotSupported);
            return Err(error.because("the socket of the data folder is not served"));
        };
        server.unused(first).await;
        Ok(())
    }

    /// Ends the kernel: its actors stop in order, what was acknowledged is on disk, and the data folder is free when this returns. All handles answer
    /// `ESHUTDOWN` from now on. May be repeated. On an [attached](crate::attach()) handle it ends the attachment, and the kernel goes on.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle.
    pub async fn shutdown(&self) -> Result<()> {
        match &self.link {
            Link::Local(machine) => {
                self.administrator(Op::Shutdown)?;
                machine.stop().await;
            }
            // Its own end of the connection is everybody's to close.
            Link::Remote(remote) => remote.close(),
        }
        Ok(())
    }

    /// Waits for the end of the kernel, and says why it came: [`ExitReason::Shutdown`] when it was asked for,
    /// [`ExitReason::RestartIntensity`] when the root of the tree gave up on its children. The kernel stops in order in both cases: what was
    /// acknowledged is on disk, and the data folder is free when this returns.
    ///
    /// May be asked for by many, and after the end.
    ///
    /// # Errors
    /// `EOPNOTSUPP` on an [attached](crate::attach()) handle.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// nx.shutdown().await?;
    /// assert_eq!(nx.ended().await?, nexus::ExitReason::Shutdown);
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub async fn ended(&self) -> Result<ExitReason> {
        Ok(self.machine(Op::Shutdown)?.ended().await)
    }

    /// Whether the kernel is in this process, and has not begun to end.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(&self.link, Link::Local(machine) if !machine.is_stopping() && machine.tree.ended().is_none())
    }

    /// The kernel of this process, for what `op` cannot do from outside.
    pub(crate) fn machine(&self, op: Op) -> Result<&Arc<Machine>> {
        match &self.link {
            Link::Local(machine) => Ok(machine),
            Link::Remote(_) => {
                let error = Error::global(op, ErrorKind::NotSupported);
                Err(error.because("the handle is attached: this needs the process that owns the kernel"))
            }
        }
    }

    /// Threads that search content, and how many files are searched at once.
    pub(crate) fn search(&self) -> (&Pool, usize) {
        match &self.link {
            Link::Local(machine) => (&machine.search, machine.search_threads),
            Link::Remote(remote) => remote.search(),
        }
    }

    pub(crate) fn downgrade(&self) -> WeakNexus {
        let link = match &self.link {
            Link::Local(machine) => WeakLink::Local(Arc::downgrade(machine)),
            Link::Remote(remote) => WeakLink::Remote(Arc::downgrade(remote)),
        };
        WeakNexus { link, caller: self.caller.clone() }
    }

    pub(crate) fn shared_caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    pub(crate) fn administrator(&self, op: Op) -> Result<()> {
        if self.is_admin() {
            return Ok(());
        }
        let error = Error::global(op, ErrorKind::PermissionDenied);
        Err(error.because(format!("{} does not hold the administrator's handle", self.caller.agent)))
    }
}

/// The path in what `op` was given as one.
pub(crate) fn path(op: Op, path: impl IntoPath) -> Result<VPath> {
    path.into_path().map_err(|(text, why)| Error::bad_path(op, &text, &why))
}

impl fmt::Debug for Nexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nexus").field("caller", &self.caller).finish_non_exhaustive()
    }
}
