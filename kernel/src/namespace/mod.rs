//! The namespace as rows: identities, names, metadata.

mod cache;
mod draft;
mod rows;
mod walk;

pub(crate) use cache::{Lookup, MetadataCache, Node};
pub(crate) use draft::{Draft, Visible, publish};
pub(crate) use rows::{
    InodeRow, MountRow, Placement, addressing_key, content_key, decode, dentry_key, encode, inode_key,
    mount_key, mount_root, zone_key, zones,
};
pub(crate) use walk::{Rows, Step, Walk};
