//! One run of a program: from its arguments to what it says, within its bounds.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select, try_join};
use nexus_actors::{Env, Pool};
use nexus_kernel::hal::{ProcessError, ProcessHost, ProcessInput, ProcessOutput, StartedProcess};
use nexus_messages::{ChildExit, ChildSpec, VPath};
use tokio::sync::{Semaphore, oneshot};

use crate::processes::HostProcesses;
use crate::secret::Secret;
use crate::turn::Turn;

/// How much is kept of what it says of its troubles.
const STDERR_MAX: usize = 4 << 10;

/// How much of an output is taken at once.
const PIECE: usize = 64 << 10;

/// How long after its end others may hold its outputs open.
const GRACE: Duration = Duration::from_secs(1);

/// Runs programs.
pub(super) struct Runner {
    pub(super) env: Env,
    pool: Pool,
    processes: Arc<HostProcesses>,
    places: Arc<Semaphore>,
    output_max: u64,
    /// What is run, without arguments and without what is secret.
    template: ChildSpec,
    secrets: Vec<(String, Secret)>,
}

/// What became of a program that ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) exit: ChildExit,
    pub(super) stdout: Bytes,
    /// Its beginning.
    pub(super) stderr: String,
}

/// Why one did not.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It was not started.
    NotStarted(ProcessError),
    /// It did not come to its turn in time.
    NoPlace,
    /// It was killed: the time was up.
    Late,
    /// It was killed: it says too much.
    TooMuch,
    /// It ended, and left others behind that hold what it wrote to; they were killed.
    LeftOpen,
    /// It cannot be watched.
    Lost(String),
}

impl Runner {
    pub(super) fn new(
        env: Env,
        pool: Pool,
        template: ChildSpec,
        secrets: Vec<(String, Secret)>,
        concurrency: usize,
        output_max: u64,
    ) -> Self {
        let processes = Arc::new(HostProcesses::new(&env));
        let places = Arc::new(Semaphore::new(concurrency));
        Self { env, pool, processes, places, output_max, template, secrets }
    }

    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.secrets.iter().map(|(_, secret)| secret.clone()).collect()
    }

    /// Whether the program is there.
    pub(super) async fn find(&self) -> Result<(), ProcessError> {
        self.processes.find(Arc::new(self.template.clone())).await.map(drop)
    }

    /// Runs it with these arguments, and with `input` to read if there is any. When this is dropped, or the time is up, it is killed with all of its group.
    pub(super) async fn run(
        &self,
        args: Vec<String>,
        input: Option<Bytes>,
        limit: Duration,
    ) -> Result<Ended, Stopped> {
        let (mut done, ended) = oneshot::channel();
        let turn = Turn::default();
        let spec = self.spec(args, input.is_some());
        let (env, pool, processes) = (self.env.clone(), self.pool.clone(), self.processes.clone());
        let (places, begins, output_max) = (self.places.clone(), turn.clone(), self.output_max);
        self.env.spawn("external.command", async move {
            let work = async {
                // It is never closed.
                let place = places.acquire_owned().await.ok();
                if !begins.take() {
                    return Err(Stopped::NoPlace);
                }
                let program = processes.find(spec.clone()).await.map_err(Stopped::NotStarted)?;
                let started = processes.start(program, spec).await.map_err(Stopped::NotStarted)?;
                Ok((place, started))
            };
            let begun = match select(pin!(work), pin!(done.closed())).await {
                Either::Left((begun, _)) => begun,
                Either::Right(_) => return,
            };
            let (place, mut started) = match begun {
                Ok(begun) => begun,
                Err(stopped) => {
                    let _ = done.send(Err(stopped));
                    return;
                }
            };
            let ended = {
                let driven = driven(&env, &mut started, input, output_max);
                match select(pin!(driven), pin!(done.closed())).await {
                    Either::Left((ended, _)) => Some(ended),
                    Either::Right(_) => None,
                }
            };
            // Ending what is left of it may take as long as the host takes; until then it has its place.
            let finished = pool.run(move || started.process.finish()).await;
            if let Err(error) = finished {
                tracing::warn!(%error, "a program could not be ended in its turn");
            }
            drop(place);
            if let Some(ended) = ended {
                // Who waited may have given up.
                let _ = done.send(ended);
            }
        });
        match self.env.timeout(limit, ended).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(Stopped::Lost("its task has ended".into())),
            Err(_) if turn.take() => Err(Stopped::NoPlace),
            Err(_) => Err(Stopped::Late),
        }
    }

    fn spec(&self, args: Vec<String>, has_input: bool) -> Arc<ChildSpec> {
        let mut spec = self.template.clone();
        spec.args = args;
        spec.env.extend(self.secrets.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
        // Only that they lead somewhere is looked at, and that both outputs do not lead to the same place: they would be one.
        spec.stdin = has_input.then(VPath::root);
        spec.stdout.pipe = Some(VPath::root());
        spec.stderr.stream = Some(VPath::root());
        Arc::new(spec)
    }
}

/// Feeds it, hears it out, and waits for its end.
async fn driven(
    env: &Env,
    started: &mut StartedProcess,
    input: Option<Bytes>,
    output_max: u64,
) -> Result<Ended, Stopped> {
    let (process, stdin) = (&started.process, started.stdin.take());
    let (stdout, stderr) = (started.stdout.take(), started.stderr.take());
    let fed = async {
        fed(stdin, input).await;
        std::future::pending::<()>().await;
    };
    let heard = async {
        let outputs = try_join(
            heard(stdout.as_deref(), output_max, usize::MAX),
            heard(stderr.as_deref(), output_max, STDERR_MAX),
        );
        let lost = |error: std::io::Error| Stopped::Lost(error.to_string());
        let (exit, (stdout, stderr)) = match select(pin!(process.exited()), pin!(outputs)).await {
            Either::Left((exit, outputs)) => {
                let outputs = env.timeout(GRACE, outputs).await.map_err(|_| Stopped::LeftOpen)?;
                (exit.map_err(lost)?, outputs?)
            }
            Either::Right((outputs, exit)) => {
                let outputs = outputs?;
                (exit.await.map_err(lost)?, outputs)
            }
        };
        Ok(Ended { exit, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    };
    match select(pin!(heard), pin!(fed)).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), _)) => Err(Stopped::Lost("its input has ended".into())),
    }
}

/// Hands it all of its input. What it does not want it need not read: how it ends says what that means.
async fn fed(stdin: Option<Box<dyn ProcessInput>>, input: Option<Bytes>) {
    if let (Some(mut stdin), Some(input)) = (stdin, input) {
        let _ = stdin.write(input).await;
    }
}

/// All that comes from an output, of which the first `kept_max` bytes are kept.
async fn heard(output: Option<&dyn ProcessOutput>, max: u64, kept_max: usize) -> Result<Bytes, Stopped> {
    let (mut kept, mut total) = (BytesMut::new(), 0);
    let Some(output) = output else { return Ok(Bytes::new()) };
    loop {
        let piece = output.read(PIECE).await.map_err(|error| Stopped::Lost(error.to_string()))?;
        if piece.is_empty() {
            return Ok(kept.freeze());
        }
        total += piece.len() as u64;
        if total > max {
            return Err(Stopped::TooMuch);
        }
        kept.extend_from_slice(&piece[..piece.len().min(kept_max - kept.len())]);
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("program", &self.template.program).finish_non_exhaustive()
    }
}
