//! `run` and `children`: child processes whose standard input and output are paths.

use std::path::Path;
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus::sys::{ALL, ROOT};
use nexus::syscall::{SysRead, SysWrite};
use nexus::{
    ChildEntry, ChildExit, ChildHandle, ChildSignal, ChildSpec, ChildState, Error, ErrorKind, Framing,
    LINE_MAX_DEFAULT, LongLines, Op, VPath,
};

use crate::args::{ChildrenArgs, FramingKind, RunArgs};
use crate::failure::{Failure, Outcome, Status};
use crate::output::one_line;
use crate::session::{Session, path};
use crate::signals::{PASSED_ON, Signals};

/// How long messages that nobody has read keep the kernel of this process, which they end with.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// How long a kernel is waited for when this process is to end.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether somebody has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Those of what is handed on that end this process when there is nobody to hand them on to.
const ENDING: [ChildSignal; 4] =
    [ChildSignal::Hangup, ChildSignal::Interrupt, ChildSignal::Quit, ChildSignal::Terminate];

/// `run` of a command line of its own: the signals of this process are handed on.
pub(crate) async fn run_alone(session: &Session, args: RunArgs) -> Outcome {
    // Before it is started: then one that comes meanwhile waits for it.
    let signals = Signals::listen(session.env(), "run", PASSED_ON).await?;
    run_with(session, args, Some(signals)).await
}

/// `run` in a shell, which goes on, and whose signals are its own.
pub(crate) async fn run(session: &Session, args: RunArgs) -> Outcome {
    run_with(session, args, None).await
}

async fn run_with(session: &Session, args: RunArgs, mut signals: Option<Signals>) -> Outcome {
    let spec = spec(&args)?;
    let child = match started(session, spec, &mut signals).await? {
        Started::Here(child) => child,
        Started::GivenUp(signal) => return ended_by(session, signal),
    };
    let (exit, is_left) = match ended(session, &child, &mut signals).await? {
        Ended::Whole(exit) => (exit, false),
        Ended::Left(exit) => (exit, true),
        Ended::GivenUp(signal) => return ended_by(session, signal),
    };
    session.out.ends_with(Status::Command(exit.status()));
    if let (true, Some(pipe)) = (session.nx.kernel().is_ok(), &args.stdout) {
        let pipe = path(Op::Read, pipe)?;
        if is_left {
            // It is told, and not waited for: somebody wants this process to end.
            left_in(session, &pipe).await?;
        } else {
            linger(session, &pipe, signals).await?;
        }
    }
    let Ok(entry) = session.env().timeout(ANSWER_MAX, child.status()).await else {
        session.out.warn(format_args!("run: what became of its output is not told in time"));
        return Ok(());
    };
    let entry = entry?;
    if let Some(trouble) = &entry.trouble {
        session.out.warn(format_args!("run {}: {}", entry.program, one_line(trouble)));
    }
    session.out.quiet(&entry)
}

/// This process ends as if the signal had ended it. What it started is tied to it, and goes with it.
fn ended_by(session: &Session, signal: ChildSignal) -> Outcome {
    session.out.ends_with(Status::Command(Signals::ended_by(signal)?.status()));
    Ok(())
}

/// What came of a start.
enum Started {
    Here(ChildHandle),
    /// This signal came first.
    GivenUp(ChildSignal),
}

/// Starts the command. A signal that would end this process gives that up; the others are handed on once the command is there.
async fn started(session: &Session, spec: ChildSpec, signals: &mut Option<Signals>) -> Outcome<Started> {
    let mut starting = Box::pin(session.nx.spawn(spec));
    let mut early: Vec<ChildSignal> = Vec::new();
    let child = loop {
        let Some(heard) = signals else { break starting.await? };
        match select(&mut starting, Box::pin(heard.next())).await {
            Either::Left((child, _)) => break child?,
            Either::Right((Some(signal), _)) if ENDING.contains(&signal) => {
                return Ok(Started::GivenUp(signal));
            }
            // As with those of the host, one that waits is not counted.
            Either::Right((Some(signal), _)) if early.contains(&signal) => {}
            Either::Right((Some(signal), _)) => early.push(signal),
            // Who listens has ended with the kernel.
            Either::Right((None, _)) => break starting.await?,
        }
    };
    for signal in early {
        hand_on(session, &child, signal).await?;
    }
    Ok(Started::Here(child))
}

/// How a command ended.
enum Ended {
    /// All that it wrote is where it belongs.
    Whole(ChildExit),
    /// A signal came after its end, and before all was.
    Left(ChildExit),
    /// This signal came, and it is not known whether the command heard of it.
    GivenUp(ChildSignal),
}

/// Waits for the end of the command, and until all that it wrote is where it belongs; or no longer, when a signal comes that it does not hear of any more.
async fn ended(session: &Session, child: &ChildHandle, signals: &mut Option<Signals>) -> Outcome<Ended> {
    let mut done = Box::pin(child.wait());
    while let Some(heard) = signals {
        match select(Box::pin(heard.next()), &mut done).await {
            Either::Left((Some(signal), _)) => match hand_on(session, child, signal).await? {
                HandedOn::Yes => {}
                HandedOn::TooLate(exit) => return Ok(Ended::Left(exit)),
                HandedOn::NotKnown if ENDING.contains(&signal) => return Ok(Ended::GivenUp(signal)),
                HandedOn::NotKnown => {}
            },
            // Who listens has ended with the kernel.
            Either::Left((None, _)) => break,
            Either::Right((exit, _)) => return exit.map(Ended::Whole).map_err(|error| lost(error).into()),
        }
    }
    Ok(Ended::Whole(done.await.map_err(lost)?))
}

/// It was started: when its kernel goes away, nobody knows how far it came.
fn lost(error: Error) -> Error {
    error.outcome_unknown()
}

/// Whether a command was sent a signal.
enum HandedOn {
    Yes,
    /// It had ended so.
    TooLate(ChildExit),
    /// Its kernel does not answer.
    NotKnown,
}

async fn hand_on(session: &Session, child: &ChildHandle, signal: ChildSignal) -> Outcome<HandedOn> {
    let handing = async {
        // Before it is handed on: what it ends by that has all it says carried.
        if let Some(exit) = child.status().await.map_err(lost)?.state.exit() {
            return Ok(HandedOn::TooLate(exit));
        }
        if let Err(error) = child.kill(signal).await {
            session.out.warn(format_args!("run: {signal} cannot be handed on: {error}"));
        }
        Ok(HandedOn::Yes)
    };
    session.env().timeout(ANSWER_MAX, handing).await.unwrap_or_else(|_| {
        session.out.warn(format_args!("run: {signal} is not handed on within {ANSWER_MAX:?}"));
        Ok(HandedOn::NotKnown)
    })
}

fn spec(args: &RunArgs) -> Outcome<ChildSpec> {
    let at = |text: &String| path(Op::Spawn, text);
    let [program, arguments @ ..] = &args.command[..] else {
        return Err(Failure::Usage("run: no command is given".into()));
    };
    let mut spec = ChildSpec::new(program, arguments).tied();
    spec.stdin = args.stdin.as_ref().map(at).transpose()?;
    spec.stdout.pipe = args.stdout.as_ref().map(at).transpose()?;
    spec.stdout.stream = args.tee.as_ref().map(at).transpose()?;
    spec.stderr.stream = args.stderr.as_ref().map(at).transpose()?;
    if args.merge {
        spec.stderr = spec.stdout.clone();
    }
    let longer = if args.cut { LongLines::Cut } else { LongLines::Drop };
    spec.framing = match args.framing {
        FramingKind::Lines => Framing::Lines { max: LINE_MAX_DEFAULT, longer },
        FramingKind::Raw if args.cut => return Err(Failure::Usage("run: --cut is for lines".into())),
        FramingKind::Raw => Framing::Raw,
    };
    if let Some(grace) = args.grace {
        spec.grace = grace;
    }
    for variable in &args.env {
        match variable.split_once('=') {
            Some((name, value)) => spec = spec.env(name, value),
            None => {
                let own = std::env::var(variable);
                spec = spec.env(
                    variable,
                    own.map_err(|why| Failure::Usage(format!("run: --env {variable}: {why}")))?,
                );
            }
        }
    }
    let here = std::env::current_dir().map_err(|error| Failure::host("run", Path::new("."), error))?;
    let here = here.into_os_string().into_string();
    let here = here
        .map_err(|here| Failure::Usage(format!("run: this folder's name is no text: {}", here.display())))?;
    Ok(spec.folder(here))
}

/// Waits until all in the pipe is read, or until this process is sent a signal, and not for longer than it may.
async fn linger(session: &Session, pipe: &VPath, mut signals: Option<Signals>) -> Outcome {
    let unread = async {
        while is_unread(session, pipe).await? {
            session.env().sleep(LOOK_EVERY).await;
        }
        Ok::<_, Failure>(())
    };
    let interrupted = async {
        match &mut signals {
            Some(signals) => drop(signals.next().await),
            None => std::future::pending().await,
        }
    };
    let read = session.env().timeout(LINGER_MAX, select(Box::pin(unread), Box::pin(interrupted))).await;
    match read {
        Ok(Either::Left((read, _))) => read,
        _ => left_in(session, pipe).await,
    }
}

/// Tells what is left in the pipe, if something is.
async fn left_in(session: &Session, pipe: &VPath) -> Outcome {
    let looked = session.env().timeout(ANSWER_MAX, is_unread(session, pipe)).await;
    // What cannot be seen in time may be left.
    if looked.unwrap_or(Ok(true))? {
        let left = format_args!("run: what is left in {pipe} was read by nobody, and ends with this process");
        session.out.warn(left);
    }
    Ok(())
}

async fn is_unread(session: &Session, pipe: &VPath) -> Outcome<bool> {
    let listing = format!("{ROOT}/pipes/{ALL}");
    let pipes: Vec<serde_json::Value> = shown(session, &listing).await?;
    let there = pipes.iter().find(|there| there["path"] == pipe.as_str());
    Ok(there.and_then(|there| there["messages"].as_u64()).unwrap_or(0) > 0)
}

pub(crate) async fn children(session: &Session, args: ChildrenArgs) -> Outcome {
    let Some(id) = args.id else {
        let children: Vec<ChildEntry> = shown(session, &format!("{ROOT}/children/{ALL}")).await?;
        return children.iter().try_for_each(|child| show(session, child));
    };
    let file = format!("{ROOT}/children/{id}");
    match args.signal {
        None => show(session, &shown(session, &file).await?),
        Some(signal) => {
            let sent = session.nx.send(SysWrite::at(path(Op::Kill, &file)?, signal.name())).await;
            sent.map_err(|error| error.during(Op::Kill))?;
            session.out.quiet(&serde_json::json!({ "id": id, "signal": signal.name() }))
        }
    }
}

fn show(session: &Session, child: &ChildEntry) -> Outcome {
    if session.out.is_json() {
        return session.out.json(child);
    }
    let state = match child.state {
        ChildState::Running => "running".to_owned(),
        ChildState::Ended(exit) => format!("ended with {exit}, output on its way"),
        ChildState::Done(exit) => format!("ended with {exit}"),
    };
    let command: Vec<&str> =
        std::iter::once(&*child.program).chain(child.args.iter().map(|arg| &**arg)).collect();
    session.out.line(format_args!(
        "{}\t{}\t{state}\t{}\t{}\t{}\t{}",
        child.id,
        child.pid,
        child.bytes_in,
        child.bytes_out,
        child.bytes_err,
        one_line(&command.join(" ")),
    ))
}

async fn shown<T: serde::de::DeserializeOwned>(session: &Session, file: &str) -> Outcome<T> {
    let file = path(Op::Read, file)?;
    let read = session.nx.send(SysRead::at(&file)).await?.data;
    Ok(serde_json::from_slice(&read)
        .map_err(|why| Error::new(Op::Read, &file, ErrorKind::NotSupported).because(why))?)
}
