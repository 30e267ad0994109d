//! `pipe make`, `pipe read`, `pipe write`.

use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nexus::syscall::{IoProfile, PipeSpec, SysRead, SysSetattr, SysWrite, WhichPipe};
use nexus::{Error, ErrorKind, Op, PIPE_CAPACITY_DEFAULT};
use serde::Serialize;
use serde_json::json;

use crate::args::{PipeArgs, PipeCommand, PipeKind, PipeMakeArgs, PipeReadArgs, PipeWriteArgs};
use crate::failure::{Failure, Outcome};
use crate::session::{Session, fence, path};
use crate::signals::{ENDING, Signals};

pub(crate) async fn pipe(session: &Session, args: PipeArgs) -> Outcome {
    match args.command {
        PipeCommand::Make(args) => make(session, args).await,
        PipeCommand::Read(args) => read(session, args).await,
        PipeCommand::Write(args) => write(session, args).await,
    }
}

async fn make(session: &Session, args: PipeMakeArgs) -> Outcome {
    let at = path(Op::Setattr, &args.path)?;
    let mut spec = PipeSpec::new(args.capacity.unwrap_or(PIPE_CAPACITY_DEFAULT));
    spec.io_profile = match args.kind {
        PipeKind::Memory => IoProfile::Memory,
        PipeKind::Shared => IoProfile::Shared,
    };
    let call = SysSetattr::pipe_with(&at, spec);
    let done = session.nx.send(call).await?;
    let capacity = done.metadata.pipe().map(|pipe| pipe.capacity);
    session.out.quiet(&json!({ "path": at, "created": done.created, "capacity": capacity }))
}

#[derive(Serialize)]
struct MessageJson<'a> {
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

async fn read(session: &Session, args: PipeReadArgs) -> Outcome {
    let at = path(Op::Read, &args.path)?;
    let mut signals = Signals::listen(session.env(), "read", ENDING).await?;
    for _ in 0..args.number {
        let mut call = SysRead::at(&at).of_pipe(WhichPipe::Any);
        call.wait = args.wait.map(Into::into);
        // Given up it takes no message along, also one that has just come.
        let Some(read) = signals.unless_one(&session.out, session.nx.send(call)).await? else { break };
        let message = read?.data;
        if message.is_empty() {
            // The end: writers had opened it, and the last is gone.
            return Ok(());
        }
        if session.out.is_json() {
            let text = std::str::from_utf8(&message).ok();
            let base64 = text.is_none().then(|| STANDARD.encode(&message));
            session.out.json(&MessageJson { count: message.len(), text, base64 })?;
        } else {
            session.out.bytes(&message)?;
            session.out.bytes(b"\n")?;
        }
        // Who waits for the next one is to see this one.
        session.out.flush()?;
    }
    Ok(())
}

async fn write(session: &Session, args: PipeWriteArgs) -> Outcome {
    let at = path(Op::Write, &args.path)?;
    let message = match args.text {
        Some(text) if text != "-" => text.into_bytes(),
        _ => {
            let mut message = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut message);
            read.map_err(|error| Failure::host("write", Path::new("standard input"), error))?;
            message
        }
    };
    if message.is_empty() {
        let error = Error::new(Op::Write, &at, ErrorKind::InvalidArgument);
        return Err(error.because("nothing is to be written, and a pipe has no empty messages").into());
    }
    let mut call = SysWrite::at(&at, message).to_pipe(WhichPipe::Any);
    call.wait = args.wait.map(Into::into);
    call.fence = fence(Op::Write, &at, &args.fence)?;
    let done = session.nx.send(call).await?;
    session.out.quiet(&json!({ "path": at, "written": done.written }))
}
