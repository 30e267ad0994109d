//! Quotas: how many bytes and files agents and subtrees may hold, and how many calls a second they may make.
//!
//! A change is weighed under the locks of its paths, when it is known exactly what it does: what would exceed a limit is refused with `EDQUOT`, and
//! nothing has changed. A limit is never exceeded, however many write at once, and what is freed is free as soon as it is committed.
//!
//! | | |
//! |---|---|
//! | bytes | the lengths of regular files; for an agent those that it owns, whoever wrote them |
//! | files | entries that are no directories. Directories cost nothing: the kernel makes and removes many by implication |
//! | calls | changes, and with [`reads`](QuotaConfig::reads) reads and listings; as many at once as a second brings |
//!
//! Counted is the root zone on content-addressed mounts; what lies on others, such as `local`, is their backends' business: a limit of bytes or
//! files for a subtree there holds nobody up, and a warning in the log says so when it is set. Only an agent's calls are counted in all
//! zones. A limit may be set below what is used
//! already: then nothing may be added. Calls of services are counted, but for the quota service's own.
//!
//! A directory does not move across the border of a subtree that is counted, with all that lies uncounted below it: that is `EXDEV`, as on
//! other file systems with such quotas, and programs copy then. Nor is a directory removed with such a subtree within it (`EBUSY`).
//!
//! What is there when it starts is counted by a look at one consistent view of the rows, with the changes meanwhile booked on top; again every
//! [`recount_s`](QuotaConfig::recount_s) seconds, and on demand with [`Recount`], which says by how much it was off. Changes that began before it was
//! registered are not weighed, and counted with the next count.
//!
//! ```text
//! use std::time::Duration;
//!
//! use nexus::ErrorKind;
//! use nexus::services::quota::{GetUsage, Limits, Quota, QuotaConfig, SetLimits, Subject};
//!
//! let nx = nexus::connect(nexus::Config::in_memory()).await?;
//! let tmp = Subject::Below("/tmp".parse().unwrap());
//! let config = QuotaConfig::default().limit(tmp.clone(), Limits { bytes: Some(10), ..Limits::default() });
//! let quota = nx.register::<Quota>("quota", config).await?;
//!
//! nx.write("/tmp/a", "12345678").await?;
//! let refused = nx.append("/tmp/a", "9abcdef").await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
//! assert_eq!(nx.read("/tmp/a").await?, "12345678");
//!
//! let limit = Duration::from_secs(10);
//! assert_eq!(quota.call(GetUsage(tmp.clone()), limit).await??.used.bytes, 8);
//! let more = Limits { bytes: Some(100), ..Limits::default() };
//! quota.call(SetLimits { subject: tmp, limits: Some(more) }, limit).await??;
//! nx.append("/tmp/a", "9abcdef").await?;
//! ```

mod hooks;
mod service;
mod spec;
mod state;

pub use service::{Quota, QuotaView};
pub use spec::{Account, GetUsage, ListUsage, QuotaConfig, Recount, SetLimits};
pub use state::{Drift, Limits, Subject, Usage};
