//! `cat`, `write`, `append`, `edit`.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nexus::syscall::{SysRead, SysWrite, Written};
use nexus::{Op, VPath};
use serde::Serialize;

use crate::args::{CatArgs, EditArgs, WriteArgs};
use crate::failure::{Failure, Outcome};
use crate::feed;
use crate::session::{Session, fence, path};

#[derive(Serialize)]
struct ContentJson<'a> {
    path: &'a str,
    size: u64,
    offset: u64,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

pub(crate) async fn cat(session: &Session, args: CatArgs) -> Outcome {
    let as_of = session.as_of(&args.then);
    for text in &args.paths {
        let one = async {
            let at = path(Op::Read, text)?;
            let call = SysRead::at(&at);
            let mut call = match args.count {
                Some(count) => call.range(args.offset, count),
                None => call.from_offset(args.offset),
            };
            call.as_of = as_of;
            if !session.out.is_json() {
                let mut stream = session.nx.open_stream(call).await?;
                while let Some(piece) = stream.next().await {
                    session.out.bytes(&piece?)?;
                }
                return Ok(());
            }
            let read = session.nx.send(call).await?;
            let text = std::str::from_utf8(&read.data).ok();
            session.out.json(&ContentJson {
                path: at.as_str(),
                size: read.metadata.size,
                offset: args.offset,
                count: read.data.len(),
                text,
                base64: text.is_none().then(|| STANDARD.encode(&read.data)),
            })
        };
        session.each(one.await)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct WrittenJson<'a> {
    path: &'a str,
    written: u64,
    size: u64,
    created: bool,
    version: u64,
    places: u64,
    lsn: u64,
    durability: &'static str,
}

fn report(session: &Session, done: &Written) -> Outcome {
    session.out.quiet(&WrittenJson {
        path: done.metadata.path.as_str(),
        written: done.written,
        size: done.metadata.size,
        created: done.created,
        version: done.metadata.version,
        places: done.places,
        lsn: done.receipt.lsn.0,
        durability: done.receipt.durability.name(),
    })
}

pub(crate) async fn write(session: &Session, args: WriteArgs) -> Outcome {
    let at = path(Op::Write, &args.path)?;
    let mut call = SysWrite::vectored(&at, Vec::new()).create();
    call.fence = fence(Op::Write, &at, &args.fence)?;
    if args.eventual {
        call = call.eventual();
    }
    let written = if args.file == Path::new("-") {
        let told = |error| Failure::host("write", Path::new("standard input"), error);
        feed::write(&session.nx, call, io::stdin()).await.map_err(told)?
    } else {
        let told = source(Op::Write, &at, &args.file);
        let file = fs::File::open(&args.file).map_err(&told)?;
        feed::write(&session.nx, call, file).await.map_err(told)?
    };
    report(session, &written?)
}

pub(crate) async fn append(session: &Session, args: WriteArgs) -> Outcome {
    let at = path(Op::Append, &args.path)?;
    let data = input(&at, &args.file)?;
    let mut call = SysWrite::at(&at, data).append().create();
    call.fence = fence(Op::Append, &at, &args.fence)?;
    if args.eventual {
        call = call.eventual();
    }
    let done = session.nx.send(call).await;
    report(session, &done.map_err(|error| error.during(Op::Append))?)
}

pub(crate) async fn edit(session: &Session, args: EditArgs) -> Outcome {
    let at = path(Op::Edit, &args.path)?;
    let mut call = SysWrite::edit(&at, args.old, args.new);
    call.fence = fence(Op::Edit, &at, &args.fence)?;
    if args.all {
        call = call.all();
    }
    let done = session.nx.send(call).await.map_err(|error| error.during(Op::Edit))?;
    report(session, &done)
}

/// Tells that `file` of the host, which was to be the content of `to`, could not be read.
fn source(op: Op, to: &VPath, file: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Source { op, to: to.clone(), file: file.to_owned(), error }
}

/// The bytes of a host file, or of standard input for `-`.
fn input(at: &VPath, file: &Path) -> Outcome<Vec<u8>> {
    if file != Path::new("-") {
        return fs::read(file).map_err(source(Op::Append, at, file));
    }
    let mut data = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut data);
    read.map_err(|error| Failure::host("append", Path::new("standard input"), error))?;
    Ok(data)
}
