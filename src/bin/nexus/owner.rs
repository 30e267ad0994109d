//! Whose kernel a command works in that waits for what others do: that of a process in the background, which is there for all of them, whoever ends first.
//!
//! It is `nexus serve --while-used`. The first command that finds no owner of the data folder starts one, and it ends when the last client has gone.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, absolute};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use nexus::syscall::{IoProfile, SysStat};
use nexus::{Config, EntryType, Error, ErrorKind, Nexus, Op, Serving};
use nexus_actors::{Env, HostConfig};

use crate::args::{Command, PipeArgs, PipeCommand, StreamArgs, StreamCommand};
use crate::failure::Outcome;
use crate::session::{Session, path};

/// How often an owner is started: each one may have ended before this process came to it.
const STARTS_MAX: usize = 16;

/// How long an owner may take until it serves.
const SERVES_WITHIN: Duration = Duration::from_secs(60);

/// How long who owns the folder and serves nobody is waited for: most likely it has begun to end.
const FREE_WITHIN: Duration = Duration::from_secs(1);

/// How long another command is waited for that has the folder, and serves nobody.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// How long to wait between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The socket's name in the data folder.
pub(crate) const SOCKET: &str = "nexus.sock";

/// Whether the command waits for what other processes do, or has them wait.
pub(crate) fn is_for(command: &Command) -> bool {
    match command {
        Command::Lock(args) => args.extend.is_none(),
        Command::Watch(args) => args.wait != Some(Duration::ZERO),
        Command::Pipe(args) => match &args.command {
            PipeCommand::Read(args) => args.wait.is_some(),
            PipeCommand::Write(args) => args.wait.is_some(),
            PipeCommand::Make(_) => false,
        },
        Command::Stream(args) => match &args.command {
            StreamCommand::Read(args) => args.wait.is_some(),
            StreamCommand::Tail(args) => args.follow,
            // The others have the records that this one does not.
            StreamCommand::Take(args) => args.wait.is_some() || !args.command.is_empty(),
            _ => false,
        },
        _ => false,
    }
}

/// Refuses a message or a record that would be acknowledged and gone: in the memory of this process, or of an owner that was `started` for this command and ends with it,
/// where nobody else is who could read it.
pub(crate) async fn would_last(session: &Session, started: bool, command: &Command) -> Outcome {
    let (at, what) = match command {
        Command::Pipe(PipeArgs { command: PipeCommand::Write(args) }) => (&args.path, "message"),
        Command::Stream(StreamArgs { command: StreamCommand::Append(args) }) => (&args.path, "record"),
        _ => return Ok(()),
    };
    // Somebody else has the kernel, and goes on.
    if !started && session.nx.kernel().is_err() {
        return Ok(());
    }
    let at = path(Op::Write, at)?;
    // Whatever else is wrong, the write says.
    let Ok(there) = session.nx.send(SysStat::at(&at)).await else { return Ok(()) };
    let is_of_messages = matches!(there.entry_type, EntryType::Pipe | EntryType::Stream);
    let lasts = matches!(there.io_profile, Some(IoProfile::Durable | IoProfile::Shared));
    if !is_of_messages || lasts {
        return Ok(());
    }
    let kinds = if there.entry_type == EntryType::Pipe { "shared" } else { "durable or shared" };
    let why = format!(
        "nobody serves the data folder, and what is in memory ends with who owns it: the {what} would be gone with this command; start `nexus serve` before, or make one of the \
         kind {kinds}"
    );
    Err(Error::new(Op::Write, &at, ErrorKind::NotSupported).because(why).into())
}

/// Boots the kernel, or attaches to who has it. One command after the other has it for itself: the turn of this one is waited for.
pub(crate) async fn connect(config: Config) -> nexus::Result<Nexus> {
    let mut turn = Turn::within(TURN_WITHIN);
    loop {
        match nexus::connect_or_attach(config.clone()).await {
            Err(error) if error.kind() == ErrorKind::Busy => turn.wait(error).await?,
            done => return done,
        }
    }
}

/// Attaches to the owner of the data folder, and starts one when there is none; whether it did.
pub(crate) async fn attach(
    config: Config,
    data: &Path,
    profile: Option<&str>,
) -> nexus::Result<(Nexus, bool)> {
    // For when none can be started; then it says why.
    let own = config.serve(Serving::administrator());
    let mut started = false;
    for _ in 0..STARTS_MAX {
        if let Ok(nx) = nexus::attach(data).await {
            return Ok((nx, started));
        }
        match start(data, profile).await {
            Ok(true) => {
                started = true;
                continue;
            }
            // Another one owns the folder, or nobody can.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "no owner can be started: it is this process");
                break;
            }
        }
        let nx = nexus::connect_or_attach(own.clone()).await?;
        if nx.kernel().is_err() {
            return Ok((nx, false));
        }
        // The other one has ended meanwhile. This process is not to be the owner for others, who may need it for longer.
        nx.shutdown().await?;
    }
    Ok((nexus::connect_or_attach(own).await?, false))
}

/// Starts an owner in the background; whether it serves. It outlives this process, and whoever interrupts that does not interrupt it.
async fn start(data: &Path, profile: Option<&str>) -> io::Result<bool> {
    let mut owner = Process::new(std::env::current_exe()?);
    owner.arg("--data").arg(absolute(data)?);
    if let Some(profile) = profile {
        owner.arg("--profile").arg(profile);
    }
    owner.args(["serve", "--while-used", "--apart"]);
    owner.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let env = environment()?;
    let pool = env.pool("owner", 1, 1);
    let serves = pool.run(move || says_that_it_serves(owner.spawn()?));
    match env.timeout(SERVES_WITHIN, serves).await {
        Ok(serves) => serves.map_err(io::Error::other)?,
        // It goes on by itself, and ends when nobody comes.
        Err(_) => Ok(false),
    }
}

/// Waits for the one line of an owner, or for its end. Blocks.
fn says_that_it_serves(mut owner: Child) -> io::Result<bool> {
    let mut line = Vec::new();
    let said = owner.stdout.take().map(BufReader::new);
    match said.map_or(Ok(0), |mut said| said.read_until(b'\n', &mut line)) {
        Ok(0) | Err(_) => owner.wait().map(|_| false),
        Ok(_) => Ok(true),
    }
}

/// Boots the kernel that others have started this process for. When somebody else serves the folder there is nothing to do; that is `EBUSY`, too.
pub(crate) async fn own(config: Config, data: &Path) -> nexus::Result<Nexus> {
    let mut turn = Turn::within(FREE_WITHIN);
    loop {
        match nexus::connect(config.clone()).await {
            // It is not attached to, for that would count as a use of it.
            Err(busy) if busy.kind() == ErrorKind::Busy && !data.join(SOCKET).exists() => {
                turn.wait(busy).await?;
            }
            done => return done,
        }
    }
}

/// The wait for a folder that somebody else has.
struct Turn {
    within: Duration,
    waiting: Option<(Env, Instant)>,
}

impl Turn {
    fn within(within: Duration) -> Self {
        Self { within, waiting: None }
    }

    /// Waits until it is worth another look; gives back why there was nothing to be had when that took too long.
    async fn wait(&mut self, busy: Error) -> nexus::Result<()> {
        let (env, since) = match &self.waiting {
            Some(waiting) => waiting,
            None => {
                let Ok(env) = environment() else { return Err(busy) };
                let now = env.now();
                self.waiting.insert((env, now))
            }
        };
        if env.now().duration_since(*since) > self.within {
            return Err(busy);
        }
        env.sleep(LOOK_EVERY).await;
        Ok(())
    }
}

/// Threads and time of a process that has no kernel yet.
fn environment() -> io::Result<Env> {
    Env::host(HostConfig::default())
}
