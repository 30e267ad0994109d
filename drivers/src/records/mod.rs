//! Records in tables, for services: [SQLite](sqlite) built in, and [PostgreSQL](postgres) on a server.
//!
//! Both take the same portable SQL ([`nexus_kernel::hal::RecordStore`] says which) and give the same errors, so a service names its store in its settings and
//! nowhere else. What only one of them would take is refused by both, before either sees it.
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! use nexus_actors::{Env, HostConfig};
//! use nexus_drivers::records;
//! use nexus_kernel::hal::{DriverContext, Migration, ReadFrom, RetryPolicy, Statement, transact};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! let env = Env::host(HostConfig::default()).unwrap();
//! let context = DriverContext::new(env.clone(), env.pool("records", 4, 64), Some(folder.path().into()));
//! // Or `postgres://user@localhost/agents`; nothing else would change.
//! let store = records::open_url("sqlite:agents.sqlite", &context).unwrap();
//! let schema = [Migration::new(1, "agents").step("CREATE TABLE agents (name TEXT NOT NULL PRIMARY KEY, runs BIGINT NOT NULL)")];
//! let runs: i64 = env.blocking_wait(async {
//!     store.migrate(&schema).await?;
//!     transact(&*store, &env, RetryPolicy::default(), |session| {
//!         Box::pin(async move {
//!             let sql = "INSERT INTO agents (name, runs) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET runs = agents.runs + 1";
//!             session.execute(&Statement::new(sql).bind("scout")).await
//!         })
//!     })
//!     .await?;
//!     let mut session = store.read(ReadFrom::Replica).await?;
//!     let rows = session.query(&Statement::new("SELECT runs FROM agents WHERE name = $1").bind("scout")).await?;
//!     rows[0].named("runs")
//! })
//! .unwrap();
//! assert_eq!(runs, 1);
//! # env.stop();
//! # }
//! ```
//!
//! # Why these libraries
//!
//! `rusqlite` and `tokio-postgres`, not `sqlx` 0.9, which does both. In an empty crate, both without TLS (2 cores, `cargo build`), sqlx with SQLite and PostgreSQL took 81 s of processor time and 143 s in all,
//! and these took 48 s and 84 s. sqlx 0.9 wants `libsqlite3-sys` below 0.38, and the `rusqlite` that the metastore is measured against 0.40: only one SQLite can be linked, so
//! cargo refuses the two together. And sqlx takes clock, tasks and threads by itself, where all of ours come from the [`Env`](nexus_actors::Env): its pool waits by tokio's clock, and each connection to SQLite
//! has a thread of its own. The pool that this leaves to us (`postgres/pool.rs`) has to know more than `deadpool` does anyway: whether what a dropped session was doing is to be cancelled, taken back or let be.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_kernel::hal::{DriverContext, DriverOption, RecordError, RecordStore};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod idle;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod migrations;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod options;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod portable;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// The options of the driver `sqlite`.
pub const SQLITE_OPTIONS: &[DriverOption] = &[
    option("path", "the file, in the data folder unless it is absolute; records.sqlite when not given"),
    option("readers", "how many sessions read at once; 4 when not given"),
    HOLD_MS,
    WAIT_MS,
    STATEMENT_MS,
    MIGRATION_MS,
];

/// The options of the driver `postgres`.
pub const POSTGRES_OPTIONS: &[DriverOption] = &[
    DriverOption {
        required: true,
        secret: true,
        ..option("url", "postgres://user:password@host:port/database")
    },
    DriverOption {
        secret: true,
        ..option(
            "replica_url",
            "where sessions read that may see what is older; at url when not given, and while it is not reached",
        )
    },
    option(
        "ca_file",
        "the certificates (PEM) of the authorities by which servers are trusted; the system's when not given",
    ),
    option("sessions", "how many sessions there are at once, at each url; 8 when not given"),
    option("connect_ms", "how long one try to connect may take; 5000 when not given"),
    option("idle_ms", "for how long a connection that nobody uses is used again; 600000 when not given"),
    HOLD_MS,
    WAIT_MS,
    STATEMENT_MS,
    MIGRATION_MS,
];

const HOLD_MS: DriverOption =
    option("hold_ms", "how long a session may do nothing until it is ended; 60000 when not given");
const WAIT_MS: DriverOption = option(
    "wait_ms",
    "how long a session waits for its turn, and for a store that is away; 30000 when not given",
);
const STATEMENT_MS: DriverOption =
    option("statement_ms", "how long a statement may take; 30000 when not given");
const MIGRATION_MS: DriverOption = option(
    "migration_ms",
    "how long a statement of a migration may take, and waiting for another process that migrates; 600000 when not given",
);

const fn option(key: &'static str, help: &'static str) -> DriverOption {
    DriverOption { key, required: false, secret: false, help }
}

/// The drivers of records by their names, with their options, also those that this build leaves out.
pub const DRIVERS: &[(&str, &[DriverOption])] = &[("sqlite", SQLITE_OPTIONS), ("postgres", POSTGRES_OPTIONS)];

/// A store of records by the name of its driver. Nothing is opened until it is first used.
///
/// # Errors
/// [`RecordError::BadOption`] that names what is wrong; also when this build has not the driver.
pub fn open(
    driver: &str,
    options: &BTreeMap<String, String>,
    context: &DriverContext,
) -> Result<Arc<dyn RecordStore>, RecordError> {
    let Some((_, known)) = DRIVERS.iter().find(|(name, _)| *name == driver) else {
        let names: Vec<&str> = DRIVERS.iter().map(|(name, _)| *name).collect();
        return Err(bad(format!("there is no driver {driver:?} for records, but {}", names.join(", "))));
    };
    if let Some(unknown) = options.keys().find(|key| !known.iter().any(|option| option.key == *key)) {
        let keys: Vec<&str> = known.iter().map(|option| option.key).collect();
        return Err(bad(format!("{driver} has no option {unknown:?}; it takes: {}", keys.join(", "))));
    }
    if let Some(missing) = known.iter().find(|option| option.required && !options.contains_key(option.key)) {
        return Err(bad(format!("{driver} needs the option {:?}: {}", missing.key, missing.help)));
    }
    match driver {
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(sqlite::SqliteRecords::new(
            sqlite::SqliteConfig::from_options(options, context)?,
            context,
        ))),
        #[cfg(feature = "postgres")]
        "postgres" => Ok(Arc::new(postgres::PostgresRecords::new(
            postgres::PostgresConfig::from_options(options)?,
            context,
        ))),
        left_out => {
            let _ = context;
            Err(bad(format!(
                "this build leaves the driver {left_out:?} out; the feature {left_out:?} brings it"
            )))
        }
    }
}

/// A store of records by its address: `sqlite:path`, or `postgres://user:password@host/database`. Otherwise as [`open`].
///
/// # Errors
/// As [`open`]. No error has the address in it: it may have a password.
pub fn open_url(url: &str, context: &DriverContext) -> Result<Arc<dyn RecordStore>, RecordError> {
    let of = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    match url.split_once(':') {
        Some(("sqlite", path)) => open("sqlite", &of("path", path), context),
        Some(("postgres" | "postgresql", _)) => open("postgres", &of("url", url), context),
        _ => Err(bad("the address of a record store begins with sqlite: or postgres://".into())),
    }
}

fn bad(why: String) -> RecordError {
    RecordError::BadOption { why }
}
