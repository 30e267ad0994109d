//! The other end: calls that are executed in the process that owns the data folder, and what is said of those that were not.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nexus_actors::{Env, Latch, Pool, Sleepers};
use nexus_kernel::SharedRegion;
use nexus_kernel::gate::Right;
use nexus_messages::syscall::{Extent, GroupAction, SysGroup, Syscall, SyscallMessage};
use nexus_messages::{
    Caller, ChildEntry, Error, ErrorKind, Executed, LifeId, LockId, Op, OpId, Result, VPath,
};
use parking_lot::Mutex;

use super::connection::{Connection, Line, Lost, NoConnection, connect};
use super::lives::{Going, RemoteLife};
use super::message::{Call, Given, Reply, Request, Streaming};
use super::places::Places;
use super::wire::{BODY_MAX, CALL_HEAD_MAX, Kind, WireError};

/// Searches that may wait for a thread, for each thread.
const SEARCHES_PER_THREAD: usize = 4;

/// A kernel in another process, or in another part of this one.
pub(crate) struct Remote {
    env: Env,
    reach: Arc<Reach>,
    /// As whom the server took this process.
    granted: Arc<Caller>,
    search: Pool,
    search_threads: usize,
    /// For its streams.
    places: Places,
    sleepers: OnceLock<Sleepers>,
}

/// The way to the owner of a folder.
pub(super) struct Reach {
    env: Env,
    folder: PathBuf,
    /// Locked before the connection, so that each life is told of to the one that there is.
    lives: Mutex<Going>,
    connection: Mutex<Arc<Connection>>,
    /// Held by who connects anew, so that one does it for all.
    connecting: tokio::sync::Mutex<()>,
    closed: AtomicBool,
}

impl Remote {
    /// Attaches to the kernel that owns `folder`.
    pub(crate) async fn attach(
        env: &Env,
        folder: &Path,
        search_threads: usize,
    ) -> std::result::Result<Self, NoConnection> {
        let (connection, welcome) = connect(env, folder).await?;
        Ok(Self {
            search: env.pool("search", search_threads, search_threads * SEARCHES_PER_THREAD),
            search_threads,
            granted: Arc::new(welcome.granted),
            reach: Arc::new(Reach {
                env: env.clone(),
                folder: folder.to_owned(),
                lives: Mutex::default(),
                connection: Mutex::new(connection),
                connecting: tokio::sync::Mutex::new(()),
                closed: AtomicBool::new(false),
            }),
            places: Places::default(),
            sleepers: OnceLock::new(),
            env: env.clone(),
        })
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// As whom the server took this process.
    pub(crate) fn granted(&self) -> &Arc<Caller> {
        &self.granted
    }

    /// Whether the kernel ends with its last client, and nobody else was there when the connection was made that there is now, or was last.
    pub(crate) fn is_last(&self) -> bool {
        self.reach.connection.lock().is_last
    }

    /// What is set when the connection is lost that there is now, or was last.
    pub(crate) fn cut(&self) -> Latch<()> {
        self.reach.connection.lock().cut()
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn search(&self) -> (&Pool, usize) {
        (&self.search, self.search_threads)
    }

    /// Begins a life, for an agent who will call. Does not wait.
    ///
    /// # Errors
    /// `EBUSY` when there are as many as may be.
    pub(crate) fn begin_life(&self) -> Result<Arc<RemoteLife>> {
        let mut lives = self.reach.lives.lock();
        let life = lives.begin(&self.reach)?;
        self.reach.connection.lock().tell(Kind::LifeBegins, [life.id().0]);
        Ok(life)
    }

    /// Lets go of the server. Calls answer `ESHUTDOWN` from now on.
    pub(crate) fn close(&self) {
        self.reach.closed.store(true, Ordering::Relaxed);
        self.places.close();
        self.reach.connection.lock().lose(Lost::Closed);
    }

    pub(crate) async fn send<S: SyscallMessage>(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        call: S,
    ) -> Result<S::Done> {
        let mut call: Syscall = call.into();
        if let Syscall::Tx(call) = &call {
            // What the owner would refuse may be too much to be sent.
            call.validate()?;
        }
        let op_id = self.identify(&mut call);
        let about = About { op: call.op(), path: Some(call.path().clone()), changes: changes(&call) };
        let mut taking = self.taking(caller, &mut call);
        let given = self.request(caller, Request::Syscall(call), &about).await;
        if let Some(taking) = &mut taking {
            taking.is_answered = true;
        }
        let given = given.map_err(|error| of(error, op_id))?;
        let answer = match given {
            Given::Answer(answer) => S::from_answer(answer),
            _ => None,
        };
        answer.ok_or_else(|| of(about.unreadable(&"it is that of another call"), op_id))
    }

    /// The identity of a call that changes something. One without is given one, so that it can be asked what became of it when the owner goes away.
    fn identify(&self, call: &mut Syscall) -> Option<OpId> {
        let op_id = match call {
            Syscall::Setattr(call) if call.mount.is_none() && call.service.is_none() => &mut call.op_id,
            Syscall::Write(call) => &mut call.op_id,
            Syscall::Rename(call) => &mut call.op_id,
            Syscall::Unlink(call) => &mut call.op_id,
            Syscall::Copy(call) => &mut call.op_id,
            Syscall::Tx(call) => &mut call.op_id,
            _ => return None,
        };
        Some(*op_id.get_or_insert_with(|| self.new_op_id()))
    }

    /// Has what a take was given go back when its answer is never heard, and may be on its way: it is given a number to name it by.
    fn taking(self: &Arc<Self>, caller: &Arc<Caller>, call: &mut Syscall) -> Option<Taking> {
        let Syscall::Take(call) = call else { return None };
        while call.number == 0 {
            call.number = self.env.random();
        }
        let untake = SysGroup::new(&call.path, call.group.clone(), GroupAction::Untake(call.number));
        let life = self.reach.lives.lock().kept(caller.life);
        Some(Taking { remote: self.clone(), caller: caller.clone(), untake, life, is_answered: false })
    }

    pub(super) fn new_op_id(&self) -> OpId {
        OpId((u128::from(self.env.random()) << 64) | u128::from(self.env.random()))
    }

    pub(crate) async fn access(&self, caller: &Arc<Caller>, path: &VPath, right: Right) -> Result<bool> {
        let about = About { op: Op::Access, path: Some(path.clone()), changes: false };
        let request = Request::Access { path: path.clone(), right };
        match self.request(caller, request, &about).await? {
            Given::Access(may) => Ok(may),
            _ => Err(about.unreadable(&"it is that of another call")),
        }
    }

    /// Gives a lock back without asking anybody whether that may be.
    pub(crate) async fn release_lock(&self, caller: &Arc<Caller>, path: &VPath, id: LockId) -> Result<bool> {
        let about = About { op: Op::Unlock, path: Some(path.clone()), changes: true };
        match self.request(caller, Request::Release { path: path.clone(), id }, &about).await? {
            Given::Released(released) => Ok(released),
            _ => Err(about.unreadable(&"it is that of another call")),
        }
    }

    /// Starts a child process, or waits for one.
    pub(crate) async fn child(&self, caller: &Arc<Caller>, request: Request) -> Result<ChildEntry> {
        let about = About { op: Op::Spawn, path: None, changes: matches!(request, Request::Spawn(_)) };
        match self.request(caller, request, &about).await? {
            Given::Child(child) => Ok(*child),
            _ => Err(about.unreadable(&"it is that of another call")),
        }
    }

    /// Where the pipe or stream at `path` is in shared memory, if it is there, and its owner lets this process map it.
    pub(crate) async fn region(
        &self,
        caller: &Arc<Caller>,
        path: &VPath,
        op: Op,
    ) -> Result<Option<SharedRegion>> {
        let about = About { op, path: Some(path.clone()), changes: false };
        let request = Request::Region { path: path.clone(), writes: op == Op::Write };
        match self.request(caller, request, &about).await? {
            Given::Region(region) => Ok(region),
            _ => Err(about.unreadable(&"it is that of another call")),
        }
    }

    /// The threads that sleep for those who wait at shared memory.
    pub(crate) fn sleepers(&self) -> &Sleepers {
        self.sleepers.get_or_init(|| Sleepers::new(&self.env))
    }

    /// Asks about a stream of content at `path`.
    pub(super) async fn stream(
        &self,
        caller: &Arc<Caller>,
        call: Streaming,
        op: Op,
        path: &VPath,
        changes: bool,
    ) -> Result<Given> {
        let about = About { op, path: Some(path.clone()), changes };
        self.request(caller, Request::Stream(call), &about).await
    }

    async fn request(&self, caller: &Arc<Caller>, request: Request, about: &About) -> Result<Given> {
        let mut again = true;
        let (message, connection) = loop {
            let lost = |lost| about.lost(&self.reach.folder, lost);
            let connection = self.reach.connection().await.map_err(lost)?;
            // After a restart the owner may grant another than before: then it is asked for the one that the handle is.
            let asked = (**caller != connection.granted).then(|| (**caller).clone());
            let parcel =
                Call::pack(asked, caller.life.0, request.clone()).map_err(|why| about.too_large(&why))?;
            let (head, body) = (parcel.head.len(), parcel.body_length());
            if head > CALL_HEAD_MAX || body > BODY_MAX {
                return Err(about.too_large(&WireError::MessageTooLarge { head: head as u64, body }));
            }
            match connection.call(parcel, about.changes, line_of(&request)).await {
                // The owner may have been restarted since the last call. What was not sent can be sent again.
                Err(Lost::Before) if std::mem::take(&mut again) => {}
                done => break (done.map_err(lost)?, connection),
            }
        };
        let number = message.number;
        let given = Reply::unpack(message).map_err(|why| about.unreadable(&why))?;
        if given.as_ref().is_ok_and(|given| given.is_taken(&request)) {
            // From here on nobody drops what asked for it.
            connection.took(number);
        }
        given.map_err(|error| about.named(error))
    }
}

impl Reach {
    /// The connection; a new one when it was lost, which is made on a task of its own: who asks for it first and is not polled any more holds up nobody.
    async fn connection(self: &Arc<Self>) -> std::result::Result<Arc<Connection>, Lost> {
        if let Some(connection) = self.living()? {
            return Ok(connection);
        }
        let reach = self.clone();
        let anew = self.env.apart("attach.again", async move { reach.connect().await });
        anew.await.unwrap_or(Err(Lost::Closed))
    }

    async fn connect(&self) -> std::result::Result<Arc<Connection>, Lost> {
        let _one = self.connecting.lock().await;
        if let Some(connection) = self.living()? {
            return Ok(connection);
        }
        let (connection, welcome) = connect(&self.env, &self.folder).await.map_err(Lost::NoOther)?;
        tracing::debug!(granted = ?welcome.granted, "attached again");
        {
            let lives = self.lives.lock();
            // Before anybody calls in one of them.
            connection.tell(Kind::LifeBegins, lives.numbers());
            *self.connection.lock() = connection.clone();
        }
        // It may have been closed meanwhile.
        if self.closed.load(Ordering::Relaxed) {
            connection.lose(Lost::Closed);
        }
        Ok(connection)
    }

    pub(super) fn end_life(&self, id: LifeId) {
        let mut lives = self.lives.lock();
        lives.end(id);
        self.connection.lock().tell(Kind::LifeEnds, [id.0]);
    }

    fn living(&self) -> std::result::Result<Option<Arc<Connection>>, Lost> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Lost::Closed);
        }
        let connection = self.connection.lock();
        Ok((!connection.is_lost()).then(|| connection.clone()))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("folder", &self.reach.folder)
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

/// A take whose answer was not heard yet.
struct Taking {
    remote: Arc<Remote>,
    caller: Arc<Caller>,
    untake: SysGroup,
    /// It goes on until the records are back: who has left has no more to give back, and what his end takes from him counts.
    life: Option<Arc<RemoteLife>>,
    is_answered: bool,
}

impl Drop for Taking {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let (remote, caller, untake) = (self.remote.clone(), self.caller.clone(), self.untake.clone());
        let life = self.life.take();
        self.remote.env.spawn("take.called_off", async move {
            let about = About { op: Op::Group, path: Some(untake.path.clone()), changes: true };
            // When it cannot be sent, the connection is lost, and what was given goes back with that.
            let _ = remote.request(&caller, Request::Syscall(untake.into()), &about).await;
            drop(life);
        });
    }
}

/// The error of the operation `op_id`; it says so when the operation may have been executed.
pub(super) fn of(error: Error, op_id: Option<OpId>) -> Error {
    match op_id {
        Some(op_id) if error.executed() == Executed::Unknown => error.of_operation(op_id),
        _ => error,
    }
}

/// Among which calls a request counts.
fn line_of(request: &Request) -> Line {
    if request.waits().is_some() { Line::Waits } else { Line::Calls }
}

/// Whether a call changes something, when it is executed.
fn changes(call: &Syscall) -> bool {
    // Who waits for something takes it away, but of a stream.
    if let Syscall::Read(call) = call {
        return call.wait.is_some() && !matches!(call.extent, Extent::Records(_));
    }
    if let Syscall::Group(call) = call {
        return !matches!(call.action, GroupAction::Inspect | GroupAction::List);
    }
    !matches!(
        call,
        Syscall::Stat(_)
            | Syscall::Readdir(_)
            | Syscall::Watch(_)
            | Syscall::Versions(_)
            | Syscall::Sync(_)
            | Syscall::Receipt(_)
            | Syscall::Outcome(_)
    )
}

/// What a call is about, for its errors.
struct About {
    op: Op,
    path: Option<VPath>,
    changes: bool,
}

impl About {
    fn error(&self, kind: ErrorKind) -> Error {
        match &self.path {
            Some(path) => Error::new(self.op, path, kind),
            None => Error::global(self.op, kind),
        }
    }

    /// The error of this call, which says where it happened also when the other end did not.
    fn named(&self, error: Error) -> Error {
        match &self.path {
            Some(path) if error.path().is_none() => error.at(path),
            _ => error,
        }
    }

    fn too_large(&self, why: &WireError) -> Error {
        self.error(ErrorKind::TooLarge).because(format!("the call cannot be sent: {why}"))
    }

    fn unreadable(&self, why: &dyn fmt::Display) -> Error {
        let error = self.error(ErrorKind::Io).because(format!("the reply cannot be read: {why}"));
        if self.changes { error.outcome_unknown() } else { error }
    }

    fn lost(&self, folder: &Path, lost: Lost) -> Error {
        let down = self.error(ErrorKind::Down);
        let folder = folder.display();
        match lost {
            Lost::Closed => down,
            Lost::NoOther(NoConnection::Final(error)) => {
                let why = error.cause().unwrap_or(error.kind().describe()).to_owned();
                self.error(error.kind()).because(why)
            }
            Lost::NoOther(why) => down.because(format!("the owner of {folder} is gone: {why}")),
            Lost::Before => down.because(format!("the connection to the owner of {folder} was lost")),
            Lost::During { why, executed: true } if self.changes => {
                down.because(format!("the owner of {folder} went away meanwhile: {why}")).outcome_unknown()
            }
            Lost::During { why, .. } => {
                down.because(format!("the owner of {folder} went away meanwhile: {why}"))
            }
        }
    }
}
