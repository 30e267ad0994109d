//! How a child is started, and how all are ended.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nexus_messages::{
    Caller, ChildEntry, ChildId, ChildSignal, ChildSpec, Error, ErrorKind, LifeId, Op, Result, Timestamp,
    VPath,
};

use super::child::{Child, Count};
use super::framing::Framer;
use super::pump::{InPump, OutPump, Outlet};
use super::start::Start;
use super::table::Untaken;
use crate::hal::{ProcessError, ProcessHost, RECORD_BYTES_MAX};
use crate::kernel::Kernel;
use crate::owned::Owned;
use crate::syscalls::{PipeReader, PipeWriter};

/// How long children may take to end when they are asked to, before they are killed.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How long what killed children wrote may take to be where it belongs.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What starts programs, once it is known.
#[derive(Debug, Default)]
pub(crate) struct Hosting(OnceLock<Arc<dyn ProcessHost>>);

/// A child to be started, with its ends of its pipes.
pub(super) struct Order {
    pub(super) id: ChildId,
    pub(super) spec: Arc<ChildSpec>,
    pub(super) program: PathBuf,
    /// Who asked for it, and for whom its pumps read and write: with the kernel's own life.
    pub(super) caller: Arc<Caller>,
    pub(super) life: Option<LifeId>,
    pub(super) stdin: Option<PipeReader>,
    pub(super) stdout: Ends,
    pub(super) stderr: Ends,
}

/// Where an output leads.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) pipe: Option<PipeWriter>,
    pub(super) stream: Option<VPath>,
}

impl Ends {
    /// The longest message that all take.
    fn message_max(&self) -> usize {
        let pipe = self.pipe.as_ref().and_then(|pipe| pipe.metadata().pipe());
        let pipe = pipe.and_then(|pipe| usize::try_from(pipe.capacity).ok()).unwrap_or(usize::MAX);
        let stream = self.stream.as_ref().map_or(usize::MAX, |_| RECORD_BYTES_MAX);
        pipe.min(stream)
    }
}

impl Kernel {
    /// Gives the kernel what starts programs. To be called once, before the tree runs; a kernel without it has no children.
    pub fn set_process_host(&self, host: Arc<dyn ProcessHost>) {
        let set = self.hosting().0.set(host);
        debug_assert!(set.is_ok(), "a kernel gets its host of processes once");
    }

    /// Starts a child whose input and output are paths; see [`ChildSpec`]. Pipes and streams that are missing are made, and stay. Dropping the future gives all of that up:
    /// what was started is killed, and what was made is removed, unless somebody has used it meanwhile.
    ///
    /// # Errors
    /// `EACCES` unless the caller is an administrator, or when the gate refuses a path; `EOPNOTSUPP` when this kernel has no children; `EINVAL` for what makes no sense;
    /// `ENOENT` when there is no such program; `EBUSY` when as many run, or are being started, as may, or have ended unread; what is wrong with a path; what the host says. Nothing was made then.
    pub async fn spawn_child(self: &Arc<Self>, caller: &Arc<Caller>, spec: ChildSpec) -> Result<ChildEntry> {
        let spec = Arc::new(spec);
        let fail = |kind| Error::on_host(Op::Spawn, &spec.program, kind);
        administrator(caller, || fail(ErrorKind::PermissionDenied))?;
        let host = self.hosting().0.get();
        let host =
            host.ok_or_else(|| fail(ErrorKind::NotSupported).because("this kernel starts no programs"))?;
        if let Some(why) = spec.fault() {
            return Err(fail(ErrorKind::InvalidArgument).because(why));
        }
        let found = host.find(spec.clone()).await;
        let program = found.map_err(|error| unstarted(&spec, &error))?;
        let (reserved, place) = self.children_table().reserve().map_err(|why| untaken(&spec, why))?;
        let start = Start {
            kernel: self.clone(),
            caller: caller.clone(),
            spec,
            program,
            given_up: reserved.given_up(),
            place,
        };
        // When this future is dropped it goes on, and takes back what it made: so no step of it is left half-way.
        let mut start = Owned::from_start(self.env(), "children.start", start.run());
        // Declared after it, and so dropped before it: what goes on finds that it is given up.
        let reserved = reserved;
        let entry = (&mut start).await?;
        reserved.keep();
        Ok(entry)
    }

    /// Waits until a child has ended, or, when `done` says so, until all that it wrote is in its pipes and streams, too. Dropping the future changes nothing.
    ///
    /// # Errors
    /// `EACCES` unless the caller is an administrator; `ENOENT` for a child that nobody knows, or not any more.
    pub async fn wait_child(&self, caller: &Caller, id: ChildId, done: bool) -> Result<ChildEntry> {
        match self.child(caller, id)? {
            Ok(child) => Ok(child.wait(done).await),
            Err(entry) => Ok(entry),
        }
    }

    /// Sends a signal to the process group of a child; false when it has ended. Does not wait.
    ///
    /// # Errors
    /// As [`wait_child`](Self::wait_child); `EIO` when the host does not let it.
    pub fn signal_child(&self, caller: &Caller, id: ChildId, signal: ChildSignal) -> Result<bool> {
        let Ok(child) = self.child(caller, id)? else { return Ok(false) };
        let failed = |error| Error::global(Op::Kill, ErrorKind::Io).because(format!("child {id}: {error}"));
        child.signal(signal).map_err(failed)
    }

    /// The children that run, and the last that ended. Sends no mail.
    pub fn children(&self) -> Vec<ChildEntry> {
        self.children_table().list()
    }

    /// Ends all children, and waits until what they wrote is in their streams: they are asked to end, and killed when they are late. Nothing is started any more. To be
    /// called before the tree stops; may be repeated.
    pub async fn stop_children(&self) {
        let children = self.children_table().close();
        for child in &children {
            child.stop();
            // What cannot be asked is killed below.
            let _ = child.signal(ChildSignal::Terminate);
            let _ = child.signal(ChildSignal::Continue);
        }
        for (limit, done) in [(STOP_GRACE, false), (STOP_MAX, true)] {
            let all = futures_util::future::join_all(children.iter().map(|child| child.wait(done)));
            let late = self.env().timeout(limit, all).await.is_err();
            if late && !done {
                children.iter().filter(|child| child.state().exit().is_none()).for_each(|child| child.kill());
            } else if late {
                tracing::warn!("what children wrote is not all where it belongs, and the kernel ends");
            }
        }
    }

    /// Ends the children that are still there: when nobody stopped them. Blocks for as long as the host takes. May be repeated.
    pub(crate) fn end_children(&self) {
        self.children_table().close().iter().for_each(|child| child.finish());
    }

    fn child(&self, caller: &Caller, id: ChildId) -> Result<Result<Arc<Child>, ChildEntry>> {
        let fail = |kind| Error::global(Op::Kill, kind).because(format!("child {id}"));
        administrator(caller, || fail(ErrorKind::PermissionDenied))?;
        self.children_table().get(id).ok_or_else(|| fail(ErrorKind::NotFound))
    }

    /// Starts what was ordered, on the actor: from here on the child is minded, whatever becomes of the actor.
    pub(super) async fn start_child(self: Arc<Self>, order: Order) -> Result<ChildEntry> {
        let Order { id, spec, program, caller, life, stdin, stdout, stderr } = order;
        let Some(host) = self.hosting().0.get().cloned() else {
            return Err(Error::on_host(Op::Spawn, &spec.program, ErrorKind::NotSupported));
        };
        let started = host.start(program, spec.clone()).await.map_err(|error| unstarted(&spec, &error))?;
        let at = Timestamp(self.env().wall());
        let entry =
            ChildEntry::new(id, started.process.pid(), &spec, caller.agent.clone(), caller.zone.clone(), at);
        let child = Arc::new(Child::new(entry, started.process, life, spec.grace));
        // Nothing is waited for from here to the end, if it is taken: a child in the table has all that minds it.
        if let Err(why) = self.children_table().admit(&child) {
            // Its ends first: whoever takes back what was made looks who has it.
            drop((stdin, stdout, stderr));
            child.end_unheard().await;
            return Err(untaken(&spec, why));
        }
        if let Some(life) = life.filter(|life| !self.lives().goes_on(*life)) {
            // Whoever ended it may not have found the child yet.
            self.children_table().end_life(life);
        }
        let env = self.env();
        if let (Some(pipe), Some(to)) = (stdin, started.stdin) {
            let pump = InPump { pipe, to, framing: spec.framing };
            env.spawn("children.stdin", pump.run(child.pumping()));
        }
        let outputs = [
            ("children.stdout", stdout, started.stdout, Count::Out),
            ("children.stderr", stderr, started.stderr, Count::Err),
        ];
        for (name, ends, from, count) in outputs {
            let Some(from) = from else { continue };
            let framer = Framer::new(spec.framing, ends.message_max());
            let (kernel, caller) = (self.clone(), caller.clone());
            let Ends { pipe, stream } = ends;
            let to = Outlet { kernel, caller, framer, pipe, stream, count };
            let pump = OutPump { from, open: child.output(env), to };
            env.spawn(name, pump.run(child.pumping()));
        }
        env.spawn("children.mind", child.clone().mind(self.children_table().clone()));
        Ok(child.entry())
    }
}

fn administrator(caller: &Caller, refused: impl FnOnce() -> Error) -> Result<()> {
    if caller.admin {
        return Ok(());
    }
    Err(refused().because(format!("{} does not hold the administrator's handle", caller.agent)))
}

fn unstarted(spec: &ChildSpec, error: &ProcessError) -> Error {
    Error::on_host(Op::Spawn, &spec.program, error.kind).because(error)
}

pub(super) fn untaken(spec: &ChildSpec, why: Untaken) -> Error {
    let kind = match why {
        Untaken::TooMany | Untaken::TooManyUnread => ErrorKind::Busy,
        Untaken::Down | Untaken::GivenUp => ErrorKind::Down,
    };
    Error::on_host(Op::Spawn, &spec.program, kind).because(why)
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("id", &self.id).field("program", &self.program).finish_non_exhaustive()
    }
}
