//! Connectors: what lies behind an API or a program, as paths.
//!
//! | module | what it is |
//! |---|---|
//! | [`registry`](Connectors) | what a connector is, and those that there are, by name |
//! | `description` | the file that says how paths become requests or programs: where it is read from, and what all have in common |
//! | `pattern`, `routes`, `template` | which route serves a path, and what is asked there |
//! | `listing` | what names a listing gives, of whatever was answered |
//! | `tree` | the paths: the same for each way of asking |
//! | `rest` | asks an HTTP API |
//! | `command` | asks by running a program |
//!
//! A description is data. It names each thing that may be asked, and what an agent says in a path fills in single places of that: one name of a path becomes one
//! name of a URL, or one argument of a program, and never more. The administrator who mounts it answers for what the description lets be asked.
//!
//! Whether a file is replaced in one step, and what a crash leaves of it, is up to who is asked.
//!
//! A mount point of a connector is told as [`ExternalStorage`](nexus_messages::EntryType::ExternalStorage), and its category with the mounts.

#[cfg(target_os = "linux")]
mod command;
mod description;
mod failure;
mod listing;
mod pattern;
mod registry;
mod rest;
mod routes;
mod template;
mod tree;

#[cfg(target_os = "linux")]
pub use command::Command;
pub use registry::{Connected, Connector, Connectors};
pub use rest::Rest;
