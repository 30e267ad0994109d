//! The audit log: every change of every zone, in order, once, in a chain that shows what was altered.
//!
//! The log is fed by a cursor over the kernel's own log of commits, not by hooks: the last record in the files says where to go on. So neither a
//! crash of the service, nor a swap of it, nor the end of the process makes a hole or a double. Its own appends are left out, or the log would feed
//! itself: just the writes by its own agent below its own directory. What was refused (by the gate, by hooks) or failed is logged beside it, as far as it
//! is heard of, in a chain of its own.
//!
//! The files are ordinary ones, a record a line, below the [directory](AuditConfig::directory) in the root zone:
//!
//! ```text
//! /audit/{zone}/changes/00000000000000000000.log     {hash} {record as JSON}
//! /audit/{zone}/refusals/00000000000000000000.log
//! ```
//!
//! A segment is named after the number of its first record. A record's hash is the BLAKE3 of the hash before it and the record's text;
//! [`verify_segment`] checks that with nothing but the bytes. While the service runs nobody else changes its files; what is changed while it does
//! not, [`Verify`] finds: by the chain, and by comparing with the kernel's log as far as that goes back.
//!
//! The kernel keeps the last 65,536 commits of each zone. A service that is registered later, or was away for longer, says in the log which commits it
//! cannot know ([`Entry::Gap`]). [`Verify`] tells such gaps, and does not take them for tampering, unless the kernel still knows what the log says it
//! had forgotten.
//!
//! The directory belongs on a content-addressed mount, as the root is: there an append is one commit with a precondition, and of two writers (two versions
//! during a swap, or an actor that was written off and lives on) only one can make it.
//!
//! ```text
//! use std::time::Duration;
//!
//! use nexus::services::audit::{Audit, AuditConfig, CaughtUp, Entry, Query, Verify};
//!
//! let nx = nexus::connect(nexus::Config::in_memory()).await?;
//! let audit = nx.register::<Audit>("audit", AuditConfig::default()).await?;
//! nx.agent("coder-7")?.write("/plan.md", "1. think").await?;
//!
//! let limit = Duration::from_secs(10);
//! let lsn = nx.send(nexus::SysWrite::at("/plan.md".parse::<nexus::VPath>().unwrap(), "2. do")).await?.receipt.lsn;
//! audit.call(CaughtUp::root(lsn), limit).await??;
//! let page = audit.call(Query::root().agent("coder-7"), limit).await??;
//! let [record] = page.records.as_slice() else { panic!("{page:?}") };
//! assert!(matches!(&record.entry, Entry::Change { path, .. } if path.as_str() == "/plan.md"));
//! assert_eq!(audit.call(Verify::root(), limit).await??.broken, None);
//! ```

mod files;
mod hooks;
mod service;
mod spec;
mod state;

pub use service::{Audit, AuditView};
pub use spec::{AuditConfig, CaughtUp, Page, Query, Verified, Verify};
pub use state::{Broken, Entry, Gap, Link, Log, Record, Segment, verify_segment};
