//! Records on PostgreSQL, against real servers.

#[path = "records/log.rs"]
mod log;
#[path = "records/postgres.rs"]
mod postgres;
#[path = "records/postgres_faults.rs"]
mod postgres_faults;
#[path = "servers/postgres.rs"]
mod server;
mod servers;
