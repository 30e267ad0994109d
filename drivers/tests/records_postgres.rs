//! Records on PostgreSQL, against real servers.

#[path = "records/postgres.rs"]
mod postgres;
#[path = "records/proxy.rs"]
mod proxy;
mod servers;
