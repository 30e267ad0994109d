//! `ls`, `tree`, `stat`.

use std::sync::Arc;

use nexus::syscall::{DirEntry, SysReaddir, SysStat};
use nexus::{AsOf, ErrorKind, FileMetadata, Op, Result, VPath};

use crate::args::{AsOfArgs, LsArgs, StatArgs, TreeArgs};
use crate::entry::{EntryJson, Long, Unknown, describe};
use crate::failure::Outcome;
use crate::listing::{Descent, Pages};
use crate::session::{Session, path};

pub(crate) async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let at = path(Op::Readdir, &args.path)?;
    let (nx, out) = (&session.nx, &session.out);
    let as_of = session.as_of(&args.then);
    let entry = found(session, &at, as_of).await.map_err(|error| error.during(Op::Readdir))?;
    let print = |entry: &FileMetadata, name: &str| match () {
        () if out.is_json() => out.json(&EntryJson::from(entry)),
        () if args.long => out.line(Long { entry, name }),
        () => out.line(name),
    };
    if !entry.is_directory() {
        return print(&entry, at.as_str());
    }
    let mut listing = SysReaddir::at(&at);
    listing.as_of = as_of;
    let described = args.long || out.is_json();
    if described {
        listing = listing.with_metadata();
    }
    let each = async |entry: DirEntry| {
        let name = if args.recursive { entry.path.as_str() } else { entry.name() };
        if !described {
            return out.line(name);
        }
        match metadata(session, &entry, as_of).await {
            Ok(Some(metadata)) => print(&metadata, name),
            Ok(None) => Ok(()),
            // Of one that is damaged there is the name: the others are printed all the same.
            Err(error) => {
                let unknown = Unknown { entry: &entry, name };
                out.either(&unknown.json(&error), &unknown)?;
                session.each(Err(error.during(Op::Readdir).into()))
            }
        }
    };
    if args.recursive {
        let mut below = Descent::new(nx, listing, "ls");
        while let Some(entry) = below.next().await {
            match entry {
                Ok(entry) => each(entry).await?,
                // Those beside a directory that cannot be read are listed all the same.
                Err(failure) => session.each(Err(failure))?,
            }
        }
        return Ok(());
    }
    let mut pages = Pages::new(nx, listing);
    while let Some(entries) = pages.next().await? {
        for entry in entries {
            each(entry).await?;
        }
        pages.left_out("ls").try_for_each(|failure| session.each(Err(failure)))?;
    }
    Ok(())
}

/// What the path leads to; a link that leads nowhere itself.
async fn found(session: &Session, at: &VPath, as_of: Option<AsOf>) -> Result<Arc<FileMetadata>> {
    let mut call = SysStat::at(at);
    call.as_of = as_of;
    match session.nx.send(call.clone()).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::TooManyLinks) => {
            session.nx.send(call.no_follow()).await.map_err(|_| error)
        }
        other => other,
    }
}

/// The metadata of a listed entry; none when it is gone meanwhile.
async fn metadata(
    session: &Session,
    entry: &DirEntry,
    as_of: Option<AsOf>,
) -> Result<Option<Arc<FileMetadata>>> {
    if let Some(metadata) = &entry.metadata {
        return Ok(Some(metadata.clone()));
    }
    let mut call = SysStat::at(&entry.path).no_follow();
    call.as_of = as_of;
    match session.nx.send(call).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) async fn tree(session: &Session, args: TreeArgs) -> Outcome {
    if session.out.is_json() {
        return Box::pin(ls(
            session,
            LsArgs { path: args.path, long: true, recursive: true, then: AsOfArgs::default() },
        ))
        .await;
    }
    let at = path(Op::Readdir, &args.path)?;
    session.out.line(&at)?;
    // The open directories from the top down: what is left of each, and what is drawn before its entries.
    let mut levels = vec![(children(session, &at).await?.into_iter(), String::new())];
    let (mut directories, mut others) = (0_u64, 0_u64);
    while let Some((rest, indent)) = levels.last_mut() {
        let Some(entry) = rest.next() else {
            levels.pop();
            continue;
        };
        let (branch, below) = if rest.len() == 0 { ("└── ", "    ") } else { ("├── ", "│   ") };
        let target = entry.metadata.as_ref().and_then(|metadata| metadata.link_target.as_deref());
        let arrow = target.map(|target| format!(" -> {target}")).unwrap_or_default();
        session.out.line(format_args!("{indent}{branch}{}{arrow}", entry.name()))?;
        if entry.entry_type.is_directory() {
            directories += 1;
            let indent = format!("{indent}{below}");
            // One that cannot be read is drawn without what is in it, and those beside it follow.
            match children(session, &entry.path).await {
                Ok(children) => levels.push((children.into_iter(), indent)),
                Err(failure) => session.each(Err(failure))?,
            }
        } else {
            others += 1;
        }
    }
    session.out.line(format_args!("\n{directories} directories, {others} other entries"))
}

async fn children(session: &Session, at: &VPath) -> Outcome<Vec<DirEntry>> {
    let mut pages = Pages::new(&session.nx, SysReaddir::at(at).with_metadata());
    let mut all = Vec::new();
    while let Some(entries) = pages.next().await? {
        all.extend(entries);
        pages.left_out("tree").try_for_each(|failure| session.each(Err(failure)))?;
    }
    Ok(all)
}

pub(crate) async fn stat(session: &Session, args: StatArgs) -> Outcome {
    let as_of = session.as_of(&args.then);
    for (nth, text) in args.paths.iter().enumerate() {
        let one = async {
            let mut call = SysStat::at(path(Op::Stat, text)?);
            (call.follow, call.as_of) = (args.follow, as_of);
            let entry = session.nx.send(call).await?;
            if nth > 0 && !session.out.is_json() {
                session.out.line("")?;
            }
            describe(&session.out, &entry)
        };
        session.each(one.await)?;
    }
    Ok(())
}
