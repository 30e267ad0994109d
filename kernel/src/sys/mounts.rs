//! `mounts/`: each mount where it is, below its zone: the mount of `/home` in the root zone is `mounts/root/home/.self`.

use super::{ALL, Entry, Provider, SELF};
use crate::kernel::Kernel;
use crate::mounts::MountStatus;

pub(super) struct Mounts;

impl Provider for Mounts {
    fn name(&self) -> &'static str {
        "mounts"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        let mounts = kernel.mount_statuses();
        match at {
            [] => {
                let zones = mounts.iter().map(|mount| (mount.zone.to_string(), true));
                Some(Entry::directory(zones.chain([(ALL.into(), false)])))
            }
            [ALL] => Some(Entry::json(&mounts)),
            [zone, point @ .., SELF] if find(&mounts, zone, point).is_some() => {
                find(&mounts, zone, point).map(Entry::json)
            }
            [zone, above @ ..] => below(&mounts, zone, above),
        }
    }
}

fn find<'m>(mounts: &'m [MountStatus], zone: &str, point: &[&str]) -> Option<&'m MountStatus> {
    mounts
        .iter()
        .find(|mount| mount.zone.as_str() == zone && mount.point.components().eq(point.iter().copied()))
}

/// The directory of a path that is a mount point or leads to one.
fn below(mounts: &[MountStatus], zone: &str, above: &[&str]) -> Option<Entry> {
    let children = mounts.iter().filter(|mount| mount.zone.as_str() == zone).filter_map(|mount| {
        let mut components = mount.point.components();
        let leads_here = above.iter().all(|name| components.next() == Some(*name));
        leads_here.then(|| components.next().map_or((SELF, false), |name| (name, true)))
    });
    let mut children = children.peekable();
    children.peek()?;
    Some(Entry::directory(children))
}
