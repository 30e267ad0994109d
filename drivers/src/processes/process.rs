//! A process that runs.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
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
        if let Some(mut child) = self.child.take() {
            kill(self.number);
            reap(self.number, &mut child);
        }
    }
}

/// A process that was started, the first of its group.
pub(super) struct HostProcess {
    pid: Pid,
    number: u32,
    /// Ready when the process has ended.
    end: Watched,
    /// Invariant: while it is not forgotten the host gives its number to no other, because nobody has waited for it but so that it is remembered.
    body: Mutex<Body>,
}

/// What there is of a process.
enum Body {
    /// It runs, or has ended and the host remembers it.
    Known(Child),
    /// The host has forgotten it. How it ended, if that was heard.
    Forgotten(Option<ChildExit>),
}

impl HostProcess {
    /// To be called on the I/O runtime. On an error the process is killed.
    pub(super) fn new(mut born: Born) -> io::Result<Self> {
        let number = born.number;
        let pid = group_of(number)
            .ok_or_else(|| io::Error::other(format!("no process has the number {number}")))?;
        let end = Watched::new(pidfd_open(pid, PidfdFlags::empty())?)?;
        let child = born.child.take().ok_or_else(|| io::Error::other("it was ended before"))?;
        Ok(Self { pid, number, end, body: Mutex::new(Body::Known(child)) })
    }

    /// How it ended, if it has. It is not forgotten by that.
    fn ended(&self) -> io::Result<Option<ChildExit>> {
        match self.look(WaitIdOptions::NOHANG) {
            // Somebody had it forgotten before this look.
            Err(Errno::CHILD) => match *self.body.lock() {
                Body::Forgotten(Some(exit)) => Ok(Some(exit)),
                _ => Err(Errno::CHILD.into()),
            },
            looked => Ok(looked?),
        }
    }

    fn look(&self, how: WaitIdOptions) -> rustix::io::Result<Option<ChildExit>> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | how;
        let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.end.as_fd()), look))?;
        Ok(status.and_then(|status| {
            let code = status.exit_status().map(ChildExit::Code);
            code.or_else(|| status.terminating_signal().map(ChildExit::Signal))
        }))
    }

    /// Waits for its end, and has the host forget it.
    fn forget(&self) {
        // Without the lock, for as long as the host takes: it is remembered meanwhile, so that whoever signals it meets it and no other.
        match self.look(WaitIdOptions::empty()) {
            // Somebody else had it forgotten.
            Ok(_) | Err(Errno::CHILD) => {}
            Err(error) => {
                tracing::warn!(pid = self.number, %error, "the end of a process could not be waited for");
            }
        }
        let mut body = self.body.lock();
        if let Body::Known(child) = &mut *body {
            // It has ended: this does not wait.
            *body = Body::Forgotten(reap(self.number, child));
        }
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
        let body = self.body.lock();
        if matches!(*body, Body::Forgotten(_)) {
            return Ok(false);
        }
        match kill_process_group(self.pid, number_of(signal)?) {
            // One that has ended, and is alone in its group.
            Err(Errno::SRCH) => Ok(false),
            sent => sent.map(|()| true).map_err(Into::into),
        }
    }

    fn finish(&self) {
        {
            let body = self.body.lock();
            if matches!(*body, Body::Forgotten(_)) {
                return;
            }
            kill(self.number);
        }
        self.forget();
    }
}

/// Kills the group. The host must not have forgotten its first process.
fn kill(number: u32) {
    if let Some(pid) = group_of(number)
        && let Err(error) = kill_process_group(pid, Signal::KILL)
        && error != Errno::SRCH
    {
        tracing::warn!(pid = number, %error, "a process group could not be killed");
    }
}

/// Has the host forget the process, and waits for its end before. How it ended, if that is heard.
fn reap(number: u32, child: &mut Child) -> Option<ChildExit> {
    let status = child.wait();
    let status = status
        .inspect_err(|error| tracing::warn!(pid = number, %error, "a process could not be waited for"))
        .ok()?;
    status.code().map(ChildExit::Code).or_else(|| status.signal().map(ChildExit::Signal))
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use nexus_actors::{Env, HostConfig};

    use super::*;

    /// Longer than anything takes here.
    const LONG: Duration = Duration::from_secs(60);

    /// Whether the thread of this number sleeps.
    fn sleeps(thread: &Path) -> bool {
        let stat = std::fs::read_to_string(Path::new("/proc").join(thread).join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    }

    #[test]
    fn who_waits_for_the_end_keeps_nobody_from_a_signal() {
        let env = Env::host(HostConfig::default()).expect("it starts");
        let child = Command::new("sleep").arg("1000").process_group(0).spawn().expect("it starts");
        let number = child.id();
        let (made, process) = mpsc::channel();
        env.spawn("test", async move {
            let _ = made.send(HostProcess::new(Born::new(child)));
        });
        let process = process.recv_timeout(LONG).expect("it is made").expect("it is watched");
        let (told, sent) = mpsc::channel();
        std::thread::scope(|scope| {
            let (waits, who) = mpsc::channel();
            let process = &process;
            // As of a process that is killed, and that the host does not let go.
            scope.spawn(move || {
                let _ = waits.send(std::fs::read_link("/proc/thread-self"));
                process.forget();
            });
            let waiting = who.recv_timeout(LONG).expect("it begins").expect("it has a number");
            let begun = env.now();
            while !sleeps(&waiting) {
                assert!(env.now() - begun < LONG, "not within {LONG:?}: somebody waits for the end");
                std::thread::yield_now();
            }
            scope.spawn(move || {
                let _ = told.send(process.signal(ChildSignal::Terminate));
            });
            let sent = sent.recv_timeout(Duration::from_secs(10));
            if sent.is_err() {
                kill(number);
            }
            assert!(matches!(sent, Ok(Ok(true))), "a signal waits for who waits for the end: {sent:?}");
        });
        assert!(!process.signal(ChildSignal::Terminate).unwrap(), "it is forgotten");
        let exit = env.blocking_wait(process.exited()).expect("it has ended");
        assert_eq!(exit, ChildExit::Signal(15), "how it ended is known all the same");
        drop(process);
        env.stop();
    }
}
