//! Whose kernel a command works in that waits for what others do: that of a process in the background, which is there for all of them, whoever ends first.
//!
//! It is `nexus serve --while-used`. The first command that finds no owner of the data folder starts one, and it ends when the last client has gone.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, absolute};
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use nexus::syscall::{IoProfile, SysStat};
use nexus::{Config, EntryType, Error, ErrorKind, Nexus, Op, Serving, SysLock};
use nexus_actors::{Env, HostConfig};

use crate::args::{Command, PipeArgs, PipeCommand, StreamArgs, StreamCommand};
use crate::failure::Outcome;
use crate::line::{self, Line, Place, taken};
use crate::output::tell;
use crate::session::{Session, path};

/// How often an owner is started: each one may have ended before this process came to it.
const STARTS_MAX: usize = 16;

/// How long an owner may take until it serves.
const SERVES_WITHIN: Duration = Duration::from_secs(60);

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

/// For how long the command waits for a place among the clients of who has the kernel: as long as for what it waits for then, and no shorter than others for their turn.
pub(crate) fn patience(command: &Command) -> Duration {
    let said = |wait: Option<humantime::Duration>| wait.map(Duration::from);
    let waits = match command {
        Command::Lock(args) if args.nonblock => Some(Duration::ZERO),
        Command::Lock(args) => Some(args.wait.unwrap_or(SysLock::TTL_MAX)),
        Command::Watch(args) => args.wait,
        Command::Pipe(args) => match &args.command {
            PipeCommand::Read(args) => said(args.wait),
            PipeCommand::Write(args) => said(args.wait),
            PipeCommand::Make(_) => Some(Duration::ZERO),
        },
        Command::Stream(args) => match &args.command {
            StreamCommand::Read(args) => said(args.wait),
            StreamCommand::Take(args) => Some(said(args.wait).unwrap_or_default()),
            StreamCommand::Tail(_) => None,
            _ => Some(Duration::ZERO),
        },
        _ => Some(Duration::ZERO),
    };
    waits.map_or(Duration::MAX, |waits| waits.max(line::TURN_WITHIN))
}

/// Refuses a message or a record that would be acknowledged and gone: in the memory of this process, or of an owner that was `started` for this command or another one and
/// ends with it, where nobody else is who could read it.
pub(crate) async fn would_last(session: &Session, started: bool, command: &Command) -> Outcome {
    let (at, what) = match command {
        Command::Pipe(PipeArgs { command: PipeCommand::Write(args) }) => (&args.path, "message"),
        Command::Stream(StreamArgs { command: StreamCommand::Append(args) }) => (&args.path, "record"),
        _ => return Ok(()),
    };
    // Somebody else has the kernel, and goes on.
    if !started && !session.nx.is_last_client() && session.nx.kernel().is_err() {
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

/// Boots the kernel, or attaches to who has it. One command after the other has it for itself: the turn of this one is waited for, in the order of coming.
pub(crate) async fn connect(config: Config, data: &Path) -> nexus::Result<Nexus> {
    // Who serves takes all comers.
    if data.join(SOCKET).exists()
        && let Ok(nx) = nexus::attach(data).await
    {
        return Ok(nx);
    }
    let mut line = Line::join(data).await;
    while line.is_worth_waiting_in() {
        let tried = match data.join(SOCKET).exists() {
            true => nexus::connect_or_attach(config.clone()).await,
            false => nexus::connect(config.clone()).await,
        };
        match tried {
            Err(error) if error.kind() == ErrorKind::Busy => line.wait().await,
            done => return done,
        }
    }
    // It says who has the folder.
    nexus::connect_or_attach(config).await
}

/// Attaches to the owner of the data folder, and starts one when there is none; whether it did. When it has as many clients as it takes, that is waited for, too.
pub(crate) async fn attach(
    config: Config,
    data: &Path,
    profile: Option<&str>,
    patience: Duration,
) -> nexus::Result<(Nexus, bool)> {
    // For when none can be started; then it says why.
    let own = config.serve(Serving::administrator());
    let mut place = Place::within(patience);
    let (mut started, mut starts) = (false, 0);
    while starts < STARTS_MAX {
        let before = taken(data);
        match nexus::attach(data).await {
            Ok(nx) => return Ok((nx, started)),
            Err(full) if full.kind() == ErrorKind::Busy => {
                place.wait(full).await?;
                continue;
            }
            Err(_) => starts += 1,
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
        let nx = match nexus::connect_or_attach(own.clone()).await {
            // It has as many clients as it takes; or has come meanwhile, and is about to go.
            Err(busy)
                if busy.kind() == ErrorKind::Busy
                    && (data.join(SOCKET).exists() || taken(data) != before) =>
            {
                continue;
            }
            done => done?,
        };
        if nx.kernel().is_err() {
            return Ok((nx, false));
        }
        // The other one has ended meanwhile. This process is not to be the owner for others, who may need it for longer.
        nx.shutdown().await?;
    }
    let nx = nexus::connect_or_attach(own).await?;
    if nx.kernel().is_ok() {
        let what = "no owner can be started in the background: it is this command";
        tell(format_args!("{what}, and what others have there ends with it"));
    }
    Ok((nx, false))
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
    let mut line = Line::join(data).await;
    loop {
        match nexus::connect(config.clone()).await {
            // It is not attached to, for that would count as a use of it.
            Err(busy)
                if busy.kind() == ErrorKind::Busy
                    && !data.join(SOCKET).exists()
                    && line.is_worth_waiting_in() =>
            {
                line.wait().await;
            }
            done => return done,
        }
    }
}

/// Threads and time of a process that has no kernel yet.
pub(crate) fn environment() -> io::Result<Env> {
    Env::host(HostConfig::default())
}
