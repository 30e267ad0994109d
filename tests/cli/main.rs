//! The command line as its users see it: what it prints, its errors, its exit statuses, and what it leaves when it is killed.
#![cfg(feature = "cli")]

mod fixture;
#[path = "../common/halted.rs"]
mod halted;
mod host;
#[path = "../common/rows.rs"]
#[allow(dead_code, reason = "other tests look into rows as well")]
mod rows;

mod agreement;
mod checks;
mod children;
mod commands;
mod damaged;
mod imports;
mod killed;
mod kills;
mod large;
mod locks;
mod messages;
mod past;
mod pipes;
mod round_trip;
mod services;
mod serving;
mod statuses;
mod streams;
mod syncs;
mod together;
mod tours;
mod transactions;
mod watches;
mod watching;
