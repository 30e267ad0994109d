//! Records on PostgreSQL, against real servers.

#[path = "records/log.rs"]
mod log;
#[path = "records/postgres.rs"]
mod postgres;
#[path = "records/proxy.rs"]
mod proxy;
#[path = "servers/postgres.rs"]
mod server;
mod servers;
