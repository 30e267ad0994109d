//! A process that runs.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::process::Child;

use nexus_kernel::hal::{Process, ProcessFuture};
use nexus_messages::{ChildExit, ChildSignal};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use super::watched::Watched;

/// A process that was just started, and that nobody watches yet: killed when it is dropped.
pub(super) struct Born {
    number: u32,
    child: Option<Child>,
}

impl Born {
    pub(super) fn new(child: Child) -> Self {
        Self { number: child.id(), child: Some(child) }
    }

    /// The process, for its descriptors to be taken.
    pub(super) fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }
}

impl Drop for Born {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(self.number, child);
        }
    }
}

/// A process that was started, the first of its group.
pub(super) struct HostProcess {
    pid: Pid,
    number: u32,
    /// Ready when the process has ended.
    end: Watched,
    /// The process until it is finished. Invariant: while it is here the host gives its number to no other, because nobody has waited for it.
    child: Mutex<Option<Child>>,
}

impl HostProcess {
    /// To be called on the I/O runtime. On an error the process is killed.
    pub(super) fn new(mut born: Born) -> io::Result<Self> {
        let number = born.number;
        let pid = group_of(number)
            .ok_or_else(|| io::Error::other(format!("no process has the number {number}")))?;
        let end = Watched::new(pidfd_open(pid, PidfdFlags::empty())?)?;
        Ok(Self { pid, number, end, child: Mutex::new(born.child.take()) })
    }

    /// How it ended, if it has. It is not forgotten by that.
    fn ended(&self) -> io::Result<Option<ChildExit>> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(status) = waitid(WaitId::PidFd(self.end.as_fd()), look)? else { return Ok(None) };
        let exit = status.exit_status().map(ChildExit::Code);
        Ok(exit.or_else(|| status.terminating_signal().map(ChildExit::Signal)))
    }
}

impl Process for HostProcess {
    fn pid(&self) -> u32 {
        self.number
    }

    fn exited(&self) -> ProcessFuture<'_, io::Result<ChildExit>> {
        Box::pin(async move {
            loop {
                let mut ready = self.end.readable().await?;
                if let Some(exit) = self.ended()? {
                    return Ok(exit);
                }
                ready.clear_ready();
            }
        })
    }

    fn signal(&self, signal: ChildSignal) -> io::Result<bool> {
        let child = self.child.lock();
        if child.is_none() {
            return Ok(false);
        }
        match kill_process_group(self.pid, number_of(signal)?) {
            // One that has ended, and is alone in its group.
            Err(Errno::SRCH) => Ok(false),
            sent => sent.map(|()| true).map_err(Into::into),
        }
    }

    fn finish(&self) {
        let mut here = self.child.lock();
        if let Some(child) = here.take() {
            end(self.number, child);
        }
    }
}

/// Kills the group, and has the host forget its first process.
fn end(number: u32, mut child: Child) {
    if let Some(pid) = group_of(number)
        && let Err(error) = kill_process_group(pid, Signal::KILL)
        && error != Errno::SRCH
    {
        tracing::warn!(pid = number, %error, "a process group could not be killed");
    }
    if let Err(error) = child.wait() {
        tracing::warn!(pid = number, %error, "a process could not be waited for");
    }
}

fn group_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn number_of(signal: ChildSignal) -> io::Result<Signal> {
    Ok(match signal {
        ChildSignal::Hangup => Signal::HUP,
        ChildSignal::Interrupt => Signal::INT,
        ChildSignal::Quit => Signal::QUIT,
        ChildSignal::Kill => Signal::KILL,
        ChildSignal::User1 => Signal::USR1,
        ChildSignal::User2 => Signal::USR2,
        ChildSignal::Terminate => Signal::TERM,
        ChildSignal::Stop => Signal::STOP,
        ChildSignal::Continue => Signal::CONT,
        other => return Err(io::Error::other(format!("{other} cannot be sent"))),
    })
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for HostProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostProcess").field("pid", &self.number).finish_non_exhaustive()
    }
}
