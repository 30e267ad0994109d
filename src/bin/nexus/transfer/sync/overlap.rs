//! Whether the two trees are the same folder of the host, or lie in each other there: what was copied would be found, and copied, again.

use std::path::{Path, PathBuf};

use nexus::{Error, ErrorKind, MountStatus, Op, VPath, ZoneId};

use super::names::real;
use super::place::Place;
use crate::failure::{Failure, Outcome, shown};
use crate::session::Session;
use crate::sys;

/// The drivers whose mounts are folders of the host, by the option `folder`, or `prefix` in it.
const LOCAL: [&str; 2] = ["local", "path-local"];

/// Refuses when `from` and `to` have a folder of the host in common.
pub(super) async fn refused(session: &Session, from: &Place, to: &Place) -> Outcome {
    // Who may not see the mounts is told nothing.
    let mounts = sys::mounts(session).await.unwrap_or_default();
    let local: Vec<_> = mounts.iter().filter(|mount| mount.zone == ZoneId::root()).collect();
    let read = folders(from, &local);
    let mut written = Vec::new();
    for (below, folder) in folders(to, &local) {
        // What is mounted below is written to only where the source has something of that name.
        let is_meant = match &below {
            Some(below) => below_of(from, below)?.resolved(session).await?.is_some(),
            None => true,
        };
        written.extend(is_meant.then_some(folder));
    }
    for (_, source) in &read {
        if let Some(target) =
            written.iter().find(|target| target.starts_with(source) || source.starts_with(target))
        {
            let (source, target) = (shown(source), shown(target));
            let why = match source == target {
                true => format!("{from} is the same folder of the host, {source}"),
                false => format!("{from} and it lie in each other on the host: {source} and {target}"),
            };
            return Err(told(from, to, why));
        }
    }
    Ok(())
}

/// What no sync takes from the host: where the kernel keeps its data, and the folders that are mounted.
#[derive(Default)]
pub(super) struct Kept(Vec<Folder>);

struct Folder {
    path: PathBuf,
    /// What it is for.
    what: String,
    /// Whether files of its users lie in it as they are, which come and go there.
    plain: bool,
}

impl Kept {
    /// Nothing, where nothing of the host is changed.
    pub(super) async fn of(session: &Session, to: &Place) -> Self {
        let Place::Host(_) = to else { return Self::default() };
        let data =
            Folder { path: real(&session.data), what: "where Nexus keeps its data".into(), plain: false };
        // Who may not see the mounts is not kept from them.
        let mounts = sys::mounts(session).await.unwrap_or_default();
        let mounted = mounts.iter().filter_map(|mount| {
            let folder = PathBuf::from(mount.options.get("folder")?);
            let plain = LOCAL.contains(&&*mount.driver);
            let path = if plain { self::folder(mount)? } else { folder };
            Some(Folder {
                path: real(&path),
                what: format!("the folder of the mount {}", mount.point),
                plain,
            })
        });
        Self(std::iter::once(data).chain(mounted).collect())
    }

    /// Refuses a destination in one of them. A folder of users may be filled, unless that takes away what else is in it.
    pub(super) fn refused(&self, from: &Place, to: &Place, delete: bool) -> Outcome {
        let Place::Host(host) = to else { return Ok(()) };
        let host = real(host);
        let within = |kept: &&Folder| host.starts_with(&kept.path) && (delete || !kept.plain);
        match self.0.iter().find(within) {
            None => Ok(()),
            Some(Folder { path, what, .. }) => {
                Err(told(from, to, format!("{to} lies in {} on the host, {what}", shown(path))))
            }
        }
    }

    /// Refuses to remove what is one of them, holds one, or lies in one.
    pub(super) fn not_removed(&self, at: &Place) -> Outcome {
        let Place::Host(host) = at else { return Ok(()) };
        // A link is removed itself, and not what it leads to.
        let host = match (host.parent(), host.file_name()) {
            (Some(above), Some(name)) => real(above).join(name),
            _ => real(host),
        };
        let touched = |kept: &&Folder| host.starts_with(&kept.path) || kept.path.starts_with(&host);
        match self.0.iter().find(touched) {
            None => Ok(()),
            Some(Folder { path, what, .. }) => {
                let why = format_args!("{at}: it is not removed: {} is {what}", shown(path));
                Err(Failure::claim("sync", why))
            }
        }
    }
}

/// Refuses an export of what is at `source` to `host` that would write where the kernel, or a driver, keeps its data.
pub(crate) async fn not_into_stores(session: &Session, source: &VPath, host: &Path) -> Outcome {
    let (from, to) = (Place::Space(source.clone()), Place::Host(host.to_owned()));
    let kept = Kept::of(session, &to).await;
    let as_export = |failure| match failure {
        Failure::Call(error) => error.during(Op::Export).into(),
        failure => failure,
    };
    kept.refused(&from, &to, false).map_err(as_export)?;
    let host = real(host);
    for Folder { path, what, .. } in kept.0.iter().filter(|folder| !folder.plain) {
        let Some(below) = path.strip_prefix(&host).ok().and_then(Path::to_str) else { continue };
        if below_of(&from, below)?.resolved(session).await?.is_some() {
            let why = format!("{to} has {below}, {what}, and {source} has something of that name");
            return Err(as_export(told(&from, &to, why)));
        }
    }
    Ok(())
}

fn told(from: &Place, to: &Place, why: String) -> Failure {
    match (to, from) {
        (Place::Space(path), _) | (_, Place::Space(path)) => {
            Error::new(Op::Copy, path, ErrorKind::InvalidArgument).because(why).into()
        }
        _ => Failure::Usage(why),
    }
}

fn below_of(place: &Place, below: &str) -> Outcome<Place> {
    below.split('/').try_fold(place.clone(), |at, name| at.join(name))
}

/// The folders of the host that a tree is made of; of those that are mounted below its top, with where.
fn folders(place: &Place, mounts: &[&MountStatus]) -> Vec<(Option<String>, PathBuf)> {
    let path = match place {
        Place::Host(path) => return vec![(None, real(path))],
        Place::Space(path) => path,
    };
    // What is below a mount is the mount's, and not of the one that it lies in.
    let serves = mounts.iter().filter(|mount| path.is_within(&mount.point));
    let serves = serves.max_by_key(|mount| mount.point.depth());
    let top = serves.and_then(|mount| Some((None, folder(mount)?.join(path.relative_to(&mount.point)?))));
    let below = mounts.iter().filter(|mount| mount.point != *path);
    let below =
        below.filter_map(|mount| Some((Some(mount.point.relative_to(path)?.to_owned()), folder(mount)?)));
    top.into_iter().chain(below).map(|(below, folder)| (below, real(&folder))).collect()
}

fn folder(mount: &MountStatus) -> Option<PathBuf> {
    let folder = mount.options.get("folder").filter(|_| LOCAL.contains(&&*mount.driver))?;
    Some(PathBuf::from(folder).join(mount.options.get("prefix").map_or("", String::as_str)))
}

/// The mounts whose backends keep no modes and times, among all.
pub(super) struct Keepless(Vec<(VPath, bool)>);

impl Keepless {
    pub(super) async fn of(session: &Session) -> Self {
        // Who may not see the mounts is told that all is kept.
        let mounts = sys::mounts(session).await.unwrap_or_default();
        let of_root = mounts.into_iter().filter(|mount| mount.zone == ZoneId::root());
        let keeps = |mount: &MountStatus| mount.capabilities.is_none_or(|can| can.attributes);
        Self(of_root.map(|mount| (mount.point.clone(), keeps(&mount))).collect())
    }

    /// Whether `place` is in one of them.
    pub(super) fn holds(&self, place: &Place) -> bool {
        let Place::Space(path) = place else { return false };
        let serves = self.0.iter().filter(|(point, _)| path.is_within(point));
        serves.max_by_key(|(point, _)| point.depth()).is_some_and(|(_, keeps)| !keeps)
    }
}
