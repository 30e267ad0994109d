//! The namespace as rows: identities, names, metadata.

mod cache;
mod draft;
mod ledger;
mod rows;
mod walk;

pub(crate) use cache::{Lookup, MetadataCache, Node};
pub(crate) use draft::{Draft, Visible, holding, publish};
pub(crate) use ledger::Ledger;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rows::{DentryRow, FORMAT};
pub(crate) use rows::{
    InodeRow, MountRow, Placement, addressing_key, content_key, decode, dentry_key, encode, inode_key,
    mount_key, mount_root, zone_key, zones,
};
pub(crate) use walk::{Rows, Step, Walk};
