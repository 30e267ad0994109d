//! Child processes whose standard input and output are paths.

use std::fmt;

use nexus_kernel::sys::ROOT;
use nexus_messages::syscall::{SysRead, SysWrite};
use nexus_messages::{
    ChildEntry, ChildExit, ChildId, ChildSignal, ChildSpec, Error, ErrorKind, Op, Result, VPath,
};

use crate::attach::Request;
use crate::handle::{Link, Nexus, path};

/// A child process of the kernel; see [`Nexus::spawn`]. Dropping it leaves the child as it is.
#[derive(Clone)]
pub struct ChildHandle {
    nx: Nexus,
    id: ChildId,
    pid: u32,
}

impl Nexus {
    /// Starts a program of the host whose standard input, output and error are paths: what is written to the pipe of its input is a line for it, what is read of that
    /// of its output a line of it, and a stream keeps all that it says for anybody to read. Pipes and streams that are missing are made. No shell is asked, and its
    /// environment is what `spec` names.
    ///
    /// It is killed when the kernel ends, and with it the processes that it started and left in its process group; those go on when the kernel's process is killed by SIGKILL.
    /// It has no terminal.
    ///
    /// Dropping the future gives the start up: what was started by then is killed, nothing was carried to it or from it, and what was made for it is removed, unless somebody
    /// else has used it since. Through an [attached](crate::attach()) handle it may be too late for that: then it is killed, and its paths stay.
    ///
    /// When it has ended, the pipe of its input is broken for who writes, and that of its output is at its end once all is read, until another child has them.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle, `ENOENT` when there is no such program, `EINVAL` for what makes no sense, `EBUSY` when as many run as may,
    /// or as many have ended as may and nobody has read what they wrote; `EEXIST` when something else is at one of the paths; `EOPNOTSUPP` where the kernel starts no programs. Nothing was made then.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use std::time::Duration;
    /// use nexus::{ChildSpec, SysRead, SysWrite, VPath};
    ///
    /// let (to, from) = (VPath::parse("/tools/cat/in")?, VPath::parse("/tools/cat/out")?);
    /// let child = nx.spawn(ChildSpec::new("cat", ["-"]).stdin(&to).stdout(&from)).await?;
    /// nx.send(SysWrite::at(&to, r#"{"jsonrpc":"2.0","id":1}"#)).await?;
    /// let line = nx.send(SysRead::at(&from).wait(Duration::from_secs(10))).await?.data;
    /// assert_eq!(line, r#"{"jsonrpc":"2.0","id":1}"#);
    /// child.kill(nexus::ChildSignal::Terminate).await?;
    /// assert!(!child.wait().await?.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn spawn(&self, spec: ChildSpec) -> Result<ChildHandle> {
        let child = match &self.link {
            Link::Local(machine) => {
                machine.serving_for(Op::Spawn)?;
                let spawned = machine.kernel.spawn_child(self.shared_caller(), spec).await;
                spawned.map_err(|error| machine.told(error))?
            }
            Link::Remote(remote) => remote.child(self.shared_caller(), Request::Spawn(spec)).await?,
        };
        Ok(ChildHandle { nx: self.clone(), id: child.id, pid: child.pid })
    }

    /// The child processes that run, and the last that ended, in the order of their beginning. Asks no actor.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle.
    pub async fn children(&self) -> Result<Vec<ChildEntry>> {
        self.shown("children").await
    }
}

impl ChildHandle {
    /// Its identity: the name of its file in `/__sys__/children/`.
    pub fn id(&self) -> ChildId {
        self.id
    }

    /// The host's number for the process. The host may give it to another when this one has ended.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has ended, and all that it wrote is in its pipes and streams: so for as long as a pipe is full and nobody reads it, for which [`exited`](Self::exited)
    /// does not wait. Says how it ended. May be repeated, and asked for by several; dropping the future changes nothing.
    ///
    /// # Errors
    /// `ENOENT` when it ended so long ago that nobody knows of it any more; `ESHUTDOWN` when the kernel has ended.
    pub async fn wait(&self) -> Result<ChildExit> {
        self.until(true).await
    }

    /// As [`wait`](Self::wait), of its end alone: what it wrote may be on its way still.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn exited(&self) -> Result<ChildExit> {
        self.until(false).await
    }

    async fn until(&self, done: bool) -> Result<ChildExit> {
        let (nx, id) = (&self.nx, self.id);
        let child = match &nx.link {
            Link::Local(machine) => machine.kernel.wait_child(nx.shared_caller(), id, done).await?,
            Link::Remote(remote) => remote.child(nx.shared_caller(), Request::Await { id, done }).await?,
        };
        child.state.exit().ok_or_else(|| Error::global(Op::Spawn, ErrorKind::Io).because("it has not ended"))
    }

    /// Sends a signal to it, and to what is left of its process group; false when it has ended. Does not wait for what becomes of it. It is a write to
    /// `/__sys__/children/`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); what a hook, the gate or the host says.
    pub async fn kill(&self, signal: ChildSignal) -> Result<bool> {
        let sent = self.nx.send(SysWrite::at(self.file(Op::Kill)?, signal.name())).await;
        match sent.map_err(|error| error.during(Op::Kill)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How it is, and what it said so far in numbers.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn status(&self) -> Result<ChildEntry> {
        let file = self.file(Op::Read)?;
        let read = self.nx.send(SysRead::at(&file)).await?;
        serde_json::from_slice(&read.data)
            .map_err(|why| Error::new(Op::Read, &file, ErrorKind::Io).because(why))
    }

    fn file(&self, op: Op) -> Result<VPath> {
        path(op, format!("{ROOT}/children/{}", self.id))
    }
}

impl fmt::Debug for ChildHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildHandle").field("id", &self.id).field("pid", &self.pid).finish_non_exhaustive()
    }
}
