//! The command line as its users see it: what it prints, its errors, its exit statuses, and what it leaves when it is killed.
#![cfg(feature = "cli")]

mod fixture;
mod host;

mod agreement;
mod checks;
mod commands;
mod damaged;
mod imports;
mod killed;
mod kills;
mod large;
mod past;
mod pipes;
mod round_trip;
mod services;
mod serving;
mod statuses;
mod tours;
mod transactions;
mod watching;
