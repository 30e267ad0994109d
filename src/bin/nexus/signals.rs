//! Signals that this process is sent. Who listens for one is not ended by it any more.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::Arc;

use futures_util::future::{Either, select};
use nexus::{Bytes, ChildExit, ChildSignal};
use nexus_actors::Env;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal as HostSignal, WaitId, WaitIdOptions, getpgrp, kill_process, waitid};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Failure, Outcome, Status};
use crate::output::Output;

/// Signals that came and were not taken yet; what comes while so many wait is left out.
const WAITING_MAX: usize = 16;

/// The signals that came.
pub(crate) struct Signals(mpsc::Receiver<ChildSignal>);

impl Signals {
    /// Listens for these on the I/O runtime, for `op`: those that come after this has returned are heard.
    pub(crate) async fn listen(env: &Env, op: &'static str, to: &'static [ChildSignal]) -> Outcome<Self> {
        let (listening, listens) = oneshot::channel();
        let (came, signals) = mpsc::channel(WAITING_MAX);
        let own = env.clone();
        env.spawn("signals", async move {
            let all: io::Result<Vec<_>> = to.iter().map(|one| Ok((*one, signal(kind(*one)?)?))).collect();
            let listened = all.map(|all| {
                for (one, source) in all {
                    own.spawn("signal", tell(one, source, came.clone()));
                }
            });
            // Who asked waits for it.
            let _ = listening.send(listened);
        });
        let listened = listens.await.unwrap_or_else(|_| Err(io::Error::other("the kernel ended")));
        listened.map_err(|error| Failure::host(op, Path::new("signals"), error))?;
        Ok(Self(signals))
    }

    /// How a process ends that such a signal has ended.
    pub(crate) fn ended_by(signal: ChildSignal) -> Outcome<ChildExit> {
        let kind = kind(signal).map_err(|error| Failure::host("run", Path::new("signals"), error))?;
        Ok(ChildExit::Signal(kind.as_raw_value()))
    }

    /// The exit status, as shells tell it, of a process that such a signal has ended.
    pub(crate) fn shell_status(signal: ChildSignal) -> Outcome<u8> {
        match Self::ended_by(signal)? {
            ChildExit::Signal(number) => Ok(u8::try_from(128 + number).unwrap_or(u8::MAX)),
            _ => Ok(u8::MAX),
        }
    }

    /// Does this, unless one of them comes before it is done: then it is given up, and the exit status is that of a process that the signal has ended.
    pub(crate) async fn unless_one<T>(
        &mut self,
        out: &Output,
        doing: impl Future<Output = T>,
    ) -> Outcome<Option<T>> {
        let one = async {
            loop {
                match self.next().await {
                    // It is for a command, and there is none.
                    Some(signal) if !ENDING.contains(&signal) => {}
                    signal => return signal,
                }
            }
        };
        match select(Box::pin(one), Box::pin(doing)).await {
            Either::Left((Some(signal), _)) => {
                out.ends_with(Status::Command(Self::shell_status(signal)?));
                Ok(None)
            }
            Either::Left((None, doing)) => Ok(Some(doing.await)),
            Either::Right((done, _)) => Ok(Some(done)),
        }
    }

    /// The next one; none when the kernel has ended. Dropping the future takes none along.
    pub(crate) async fn next(&mut self) -> Option<ChildSignal> {
        self.0.recv().await
    }
}

/// What somebody who runs a command for another one passes on to it.
pub(crate) const PASSED_ON: &[ChildSignal] = &[
    ChildSignal::Hangup,
    ChildSignal::Interrupt,
    ChildSignal::Quit,
    ChildSignal::User1,
    ChildSignal::User2,
    ChildSignal::Terminate,
];

/// What ends a command that waits.
pub(crate) const ENDING: &[ChildSignal] =
    &[ChildSignal::Hangup, ChildSignal::Interrupt, ChildSignal::Terminate];

/// Runs a command to its end, whatever signals come meanwhile: they are the command's, which says how it ends. What a terminal sends, it has sent to the command, too.
pub(crate) async fn attended(
    env: &Env,
    op: &'static str,
    command: process::Command,
) -> Outcome<process::ExitStatus> {
    // Before it is there: what comes from then on is its.
    let mut signals = Signals::listen(env, op, PASSED_ON).await?;
    Ok(attended_with(&mut signals, env, op, command, None).await?.0)
}

/// As [`attended`], with this for the command to read, by who listens already; and whether one of the signals was to end it.
pub(crate) async fn attended_with(
    signals: &mut Signals,
    env: &Env,
    op: &'static str,
    mut command: process::Command,
    input: Option<Bytes>,
) -> Outcome<(process::ExitStatus, bool)> {
    let program = command.get_program().to_owned();
    let failed = |error: io::Error| Failure::host(op, Path::new(&program), error);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(failed)?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let runs = Arc::new(Mutex::new(pid));
    let ends = runs.clone();
    let pool = env.pool("command", 1, 1);
    let mut ended = Box::pin(pool.run(move || {
        if let Some((mut to, input)) = child.stdin.take().zip(input) {
            // One that does not read it all need not.
            let _ = to.write_all(&input);
        }
        // Its number is nobody else's until it has been waited for.
        let _ = pid.map(|pid| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
        *ends.lock() = None;
        child.wait()
    }));
    let mut is_to_end = false;
    loop {
        let signal = match select(&mut ended, Box::pin(signals.next())).await {
            Either::Left((ended, _)) => {
                let status = ended.map_err(io::Error::other).and_then(|status| status);
                return Ok((status.map_err(failed)?, is_to_end));
            }
            Either::Right((signal, _)) => signal,
        };
        let Some(signal) = signal else {
            let status = ended.await.map_err(io::Error::other).and_then(|status| status);
            return Ok((status.map_err(failed)?, is_to_end));
        };
        is_to_end |= ENDING.contains(&signal);
        let is_the_terminals = matches!(signal, ChildSignal::Interrupt | ChildSignal::Quit);
        if !is_the_terminals || !is_in_foreground() {
            let runs = runs.lock();
            // It may have ended just now.
            let _ = runs.map(|pid| kill_process(pid, host(signal)));
        }
    }
}

/// Whether a terminal sends what is typed there to this process, and to all that it runs.
fn is_in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

fn host(signal: ChildSignal) -> HostSignal {
    match signal {
        ChildSignal::Hangup => HostSignal::HUP,
        ChildSignal::Interrupt => HostSignal::INT,
        ChildSignal::Quit => HostSignal::QUIT,
        ChildSignal::User1 => HostSignal::USR1,
        ChildSignal::User2 => HostSignal::USR2,
        _ => HostSignal::TERM,
    }
}

async fn tell(which: ChildSignal, mut source: Signal, came: mpsc::Sender<ChildSignal>) {
    while source.recv().await.is_some() && !came.is_closed() {
        // One that is left out is one of many.
        let _ = came.try_send(which);
    }
}

fn kind(signal: ChildSignal) -> io::Result<SignalKind> {
    Ok(match signal {
        ChildSignal::Hangup => SignalKind::hangup(),
        ChildSignal::Interrupt => SignalKind::interrupt(),
        ChildSignal::Quit => SignalKind::quit(),
        ChildSignal::User1 => SignalKind::user_defined1(),
        ChildSignal::User2 => SignalKind::user_defined2(),
        ChildSignal::Terminate => SignalKind::terminate(),
        other => return Err(io::Error::other(format!("{other} cannot be listened for"))),
    })
}
