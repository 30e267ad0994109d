//! The namespace as rows: identities, names, metadata.

mod cache;
mod draft;
#[cfg(test)]
mod fixture;
mod history;
mod ledger;
mod moment;
mod prune;
mod rows;
mod trail;
mod walk;

pub(crate) use cache::{Lookup, MetadataCache, Node};
pub(crate) use draft::{Draft, Keeping, Visible, holding, publish};
pub(crate) use history::{
    AsOf, Parts, Past, Was, history_key, horizon, horizon_key, parts_of, pasts, root_of,
};
pub(crate) use ledger::Ledger;
pub(crate) use moment::{LogTimes, place_at};
pub(crate) use prune::{Kept, Sweep};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rows::FORMAT;
pub(crate) use rows::{
    DentryRow, InodeRow, MountRow, Placement, addressing_key, children_key, content_key, decode, dentry_key,
    dentry_name, encode, inode_key, mount_key, mount_root, zone_key, zones,
};
pub(crate) use trail::{Changed, Stay, Trail};
pub(crate) use walk::{Rest, Rows, Step, Steps, Walk};
