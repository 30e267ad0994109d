//! `mkdir`, `rm`, `mv`, `ln`.

use nexus::syscall::{Expect, Parents, SysRename, SysSetattr, SysUnlink};
use nexus::{Error, ErrorKind, Op};
use serde_json::json;

use crate::args::{LnArgs, MkdirArgs, MvArgs, RmArgs};
use crate::failure::Outcome;
use crate::session::{Session, fence, path};

pub(crate) async fn mkdir(session: &Session, args: MkdirArgs) -> Outcome {
    for text in &args.paths {
        let one = async {
            let at = path(Op::Mkdir, text)?;
            let call = SysSetattr::directory(&at);
            let mut call = match args.parents {
                true => call.parents(Parents::Made),
                false => call.exclusive().parents(Parents::Required),
            };
            call.fence = fence(Op::Mkdir, &at, &args.fence)?;
            let done = session.nx.send(call).await.map_err(|error| error.during(Op::Mkdir))?;
            session.out.quiet(&json!({ "path": done.metadata.path, "created": done.created }))
        };
        session.each(one.await)?;
    }
    Ok(())
}

pub(crate) async fn rm(session: &Session, args: RmArgs) -> Outcome {
    for text in &args.paths {
        let one = async {
            let at = path(Op::Unlink, text)?;
            // A mount point would be detached, also one that does not serve; that is what umount is for.
            match session.nx.lstat(&at).await {
                Ok(found) if found.entry_type.is_mount_point() => {
                    let error = Error::new(Op::Unlink, &at, ErrorKind::Busy);
                    return Err(error.because("a mount point, which umount detaches").into());
                }
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error.during(Op::Unlink).into());
                }
                _ => {}
            }
            let call = SysUnlink::at(&at);
            let mut call = if args.recursive { call.recursive() } else { call.expect(Expect::File) };
            call.fence = fence(Op::Unlink, &at, &args.fence)?;
            let done = session.nx.send(call).await?;
            session.out.quiet(&json!({ "path": at, "removed": done.removed }))
        };
        session.each(one.await)?;
    }
    Ok(())
}

pub(crate) async fn mv(session: &Session, args: MvArgs) -> Outcome {
    let (from, to) = (path(Op::Rename, &args.from)?, path(Op::Rename, &args.to)?);
    let call = SysRename::new(&from, &to);
    let mut call = if args.no_replace { call.no_replace() } else { call };
    call.fence = fence(Op::Rename, &from, &args.fence)?;
    let done = session.nx.send(call).await?;
    session.out.quiet(&json!({ "from": from, "to": to, "replaced": done.replaced }))
}

pub(crate) async fn ln(session: &Session, args: LnArgs) -> Outcome {
    let at = path(Op::Link, &args.path)?;
    let call = SysSetattr::link(&at, &*args.target).exclusive();
    let done = session.nx.send(call).await.map_err(|error| error.during(Op::Link))?;
    session.out.quiet(&json!({ "path": at, "target": args.target, "created": done.created }))
}
