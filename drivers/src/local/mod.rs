//! The local disk: blobs under keys ([`LocalTransport`]), and an existing folder by its paths ([`PathLocal`]).
//!
//! Both have a blocking core that knows nothing of tasks (`blobs`, `folder`) and an asynchronous face that runs it on the mount's pool; but for reads of what is in memory (`at_hand`).

#[cfg(target_os = "linux")]
mod at_hand;
mod blobs;
mod copying;
mod descend;
mod folder;
mod in_place;
mod info;
mod outside;
mod part;
mod paths;
mod staging;
mod transport;
mod upload;

pub(crate) use blobs::{Blobs, PACKS_FOLDER, check_key};
pub use paths::PathLocal;
pub use transport::LocalTransport;
