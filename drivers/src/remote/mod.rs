//! Object stores elsewhere: S3 and what speaks like it, Azure Blob Storage, Google Cloud Storage, and, to be read, what a web server has.
//!
//! | module | what it is |
//! |---|---|
//! | `options`, `secret` | what a mount may say, and its credentials |
//! | `factory`, `s3`, `azure`, `gcs`, `http` | from options to a mount that is open |
//! | `conditions`, `notes` | whether the server honours conditional writes: found out when it is mounted, and kept for a day |
//! | `client`, `errors` | operations: deadlines, bounds, repetition, and what went wrong in the kernel's words |
//! | `going` | answers under way, of servers that give no parts |
//! | `buffers` | memory for large content on its way |
//! | `doubts` | keys at which a change may be carried out yet, kept while drivers are replaced |
//! | `requests` | what goes with a request beside what the library says, and which of them its server may carry out yet |
//! | `multipart`, `upload` | large content in parts, as it comes |
//! | `transport` | blobs under flat keys, for content by its hash |
//! | `paths`, `listing`, `rename` | keys as they are, which other tools share |
//!
//! Relied on: the crate `object_store`, which speaks the protocols, signs, and repeats requests that may be repeated; and that tasks of
//! [`Env::spawn`](nexus_actors::Env::spawn) run on a tokio runtime, where all that this crate does is done. Who calls a mount may be polled by any executor.
//!
//! Credentials come from options, from the environment, or from where the provider has them (a web identity, a container's or a machine's own). An option may
//! name where the credential is instead of giving it, `env:NAME` or `file:PATH`: then the metastore, which remembers the options of each mount for the next
//! boot, holds the name alone. What is given itself is stored there as it is, in the clear. Neither is ever shown.

#[cfg(feature = "azure")]
mod azure;
mod buffers;
mod client;
mod conditions;
mod deleting;
mod doubts;
mod errors;
mod factory;
#[cfg(feature = "gcs")]
mod gcs;
mod going;
mod handles;
#[cfg(feature = "http")]
mod http;
mod listing;
mod multipart;
mod notes;
mod options;
mod paths;
#[cfg(feature = "s3")]
mod profile;
mod rename;
mod requests;
#[cfg(feature = "s3")]
mod s3;
mod transport;
mod upload;

#[cfg(feature = "azure")]
pub(crate) use azure::Azure;
#[cfg(feature = "gcs")]
pub(crate) use gcs::Gcs;
#[cfg(feature = "http")]
pub(crate) use http::Http;
pub use paths::RemotePaths;
#[cfg(feature = "s3")]
pub(crate) use s3::S3;
pub use transport::RemoteTransport;
