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
use crate::signals::Signals;

/// How long messages that nobody has read keep the kernel of this process, which they end with.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether somebody has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is sent to this process is for the command that it runs, as if that were in its place.
const HANDED_ON: [ChildSignal; 6] = [
    ChildSignal::Hangup,
    ChildSignal::Interrupt,
    ChildSignal::Quit,
    ChildSignal::User1,
    ChildSignal::User2,
    ChildSignal::Terminate,
];

/// `run` of a command line of its own: the signals of this process are handed on.
pub(crate) async fn run_alone(session: &Session, args: RunArgs) -> Outcome {
    // Before it is started: then one that comes meanwhile waits for it.
    let signals = Signals::listen(session.env(), "run", &HANDED_ON).await?;
    run_with(session, args, Some(signals)).await
}

/// `run` in a shell, which goes on, and whose signals are its own.
pub(crate) async fn run(session: &Session, args: RunArgs) -> Outcome {
    run_with(session, args, None).await
}

async fn run_with(session: &Session, args: RunArgs, mut signals: Option<Signals>) -> Outcome {
    let spec = spec(&args)?;
    let child = session.nx.spawn(spec).await?;
    let (exit, is_left) = ended(session, &child, &mut signals).await?;
    if let (true, Some(pipe)) = (session.nx.kernel().is_ok(), &args.stdout) {
        // What is left is told, and not waited for, when somebody wants this process to end.
        let wait = if is_left { Duration::ZERO } else { LINGER_MAX };
        linger(session, &path(Op::Read, pipe)?, wait, signals).await?;
    }
    let entry = child.status().await?;
    if let Some(trouble) = &entry.trouble {
        session.out.warn(format_args!("run {}: {}", entry.program, one_line(trouble)));
    }
    session.out.ends_with(Status::Command(exit.status()));
    session.out.quiet(&entry)
}

/// Waits for the end of the command, and until all that it wrote is where it belongs; or no longer, when a signal comes after its end: says so.
async fn ended(
    session: &Session,
    child: &ChildHandle,
    signals: &mut Option<Signals>,
) -> Outcome<(ChildExit, bool)> {
    let mut done = Box::pin(child.wait());
    // It was started: when its kernel goes away, nobody knows how far it came.
    let lost = Error::outcome_unknown;
    while let Some(heard) = signals {
        match select(Box::pin(heard.next()), &mut done).await {
            Either::Left((Some(signal), _)) => {
                // Before it is handed on: what it ends by that has all it says carried.
                if let Some(exit) = child.status().await.map_err(lost)?.state.exit() {
                    return Ok((exit, true));
                }
                if let Err(error) = child.kill(signal).await {
                    session.out.warn(format_args!("run: {signal} cannot be handed on: {error}"));
                }
            }
            // Who listens has ended with the kernel.
            Either::Left((None, _)) => break,
            Either::Right((exit, _)) => return Ok((exit.map_err(lost)?, false)),
        }
    }
    Ok((done.await.map_err(lost)?, false))
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

/// Waits for so long until all in the pipe is read, or until this process is sent a signal.
async fn linger(session: &Session, pipe: &VPath, wait: Duration, mut signals: Option<Signals>) -> Outcome {
    let unread = async {
        loop {
            let listing = format!("{ROOT}/pipes/{ALL}");
            let pipes: Vec<serde_json::Value> = shown(session, &listing).await?;
            let there = pipes.iter().find(|there| there["path"] == pipe.as_str());
            let unread = there.and_then(|there| there["messages"].as_u64()).unwrap_or(0);
            if unread == 0 {
                return Ok::<_, Failure>(());
            }
            session.env().sleep(LOOK_EVERY).await;
        }
    };
    let interrupted = async {
        match &mut signals {
            Some(signals) => drop(signals.next().await),
            None => std::future::pending().await,
        }
    };
    let read = session.env().timeout(wait, select(Box::pin(unread), Box::pin(interrupted))).await;
    if let Ok(Either::Left((read, _))) = read {
        return read;
    }
    let left = format_args!("run: what is left in {pipe} was read by nobody, and ends with this process");
    session.out.warn(left);
    Ok(())
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
