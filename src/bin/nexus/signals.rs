//! Signals that this process is sent. Who listens for one is not ended by it any more.

use std::io;
use std::path::Path;

use nexus::{ChildExit, ChildSignal};
use nexus_actors::Env;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Failure, Outcome};

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

    /// The next one; none when the kernel has ended. Dropping the future takes none along.
    pub(crate) async fn next(&mut self) -> Option<ChildSignal> {
        self.0.recv().await
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
