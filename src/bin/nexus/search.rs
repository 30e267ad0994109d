//! `glob` and `grep`.

use nexus::syscall::SysStat;
use nexus::{FileMatches, Grep, Op};
use serde_json::json;

use crate::args::{GlobArgs, GrepArgs};
use crate::failure::{Failure, Outcome, Status};
use crate::session::{Session, path};

pub(crate) async fn glob(session: &Session, args: GlobArgs) -> Outcome {
    for found in session.nx.glob(&args.pattern).await? {
        session.out.either(&json!({ "path": found }), &found)?;
    }
    Ok(())
}

pub(crate) async fn grep(session: &Session, args: GrepArgs) -> Outcome {
    let at = path(Op::Grep, &args.path)?;
    let top = session.nx.send(SysStat::at(&at)).await.map_err(|error| error.during(Op::Grep))?;
    let mut grep = Grep::new(&args.pattern).path(&at);
    if args.ignore_case {
        grep = grep.ignore_case();
    }
    if let Some(pattern) = &args.glob {
        grep = grep.glob(pattern);
    }
    if args.files_with_matches {
        grep = grep.files_only();
    }
    if args.count {
        grep = grep.count_only();
    }
    let printer = Printer { session, args: &args, named: top.is_directory() };
    let mut found = session.nx.grep_stream(grep).await?;
    let mut any = false;
    while let Some(file) = found.next().await {
        match file {
            Ok(file) => {
                any = true;
                printer.print(&file)?;
            }
            Err(error) => session.each(Err(Failure::from(error)))?,
        }
    }
    if !any {
        if args.count && !printer.named {
            session.out.either(&json!({ "path": at, "count": 0 }), 0)?;
        }
        session.out.ends_with(Status::Failed);
    }
    Ok(())
}

struct Printer<'a> {
    session: &'a Session,
    args: &'a GrepArgs,
    /// Whether lines begin with the path of their file.
    named: bool,
}

impl Printer<'_> {
    fn print(&self, file: &FileMatches) -> Outcome {
        let (out, path) = (&self.session.out, &file.path);
        if self.args.files_with_matches {
            return out.either(&json!({ "path": path }), path);
        }
        if self.args.count {
            let json = json!({ "path": path, "count": file.count });
            return match self.named {
                true => out.either(&json, format_args!("{path}:{}", file.count)),
                false => out.either(&json, file.count),
            };
        }
        for line in &file.lines {
            if out.is_json() {
                let text = String::from_utf8_lossy(&line.text);
                out.json(&json!({ "path": path, "line": line.number, "text": text }))?;
                continue;
            }
            let mut printed = Vec::with_capacity(line.text.len() + 1);
            if self.named {
                printed.extend_from_slice(path.as_str().as_bytes());
                printed.push(b':');
            }
            if self.args.line_number {
                printed.extend_from_slice(format!("{}:", line.number).as_bytes());
            }
            printed.extend_from_slice(&line.text);
            printed.push(b'\n');
            out.bytes(&printed)?;
        }
        Ok(())
    }
}
