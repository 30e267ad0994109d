//! Attaching: a kernel is called from other processes, through the socket of its data folder.
//!
//! ```text
//! handle ─ client.rs ─┐                               ┌─ session.rs ─ kernel
//!    (another process)├─ message.rs ─ wire.rs ─ socket ┤
//! handle ─ client.rs ─┘                               └─ session.rs ─ kernel
//!                                                        one for each client, of server.rs
//! ```
//!
//! `connection.rs` is how a client's messages come and go; `places.rs` is where its streams wait for one another; `lives.rs` is with what end which of its handles'
//! locks go, and `watches.rs` how its watches miss nothing between two of its calls.
//!
//! One process owns a data folder, always. It may serve `nexus.sock` in it: the same syscalls, as messages. Who attaches has a handle like any
//! other, with the rights that the owner grants.

mod client;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gifts;
mod grant;
mod lives;
mod message;
mod places;
mod sent;
mod server;
mod session;
mod socket;
mod streams;
mod watches;
mod wire;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_actors::{Env, HostConfig};
use nexus_messages::{Error, ErrorKind, Op, Result};

pub(crate) use client::Remote;
pub use grant::{Grant, Serving};
pub(crate) use grant::{acting_for, as_agent, lessened};
pub(crate) use lives::RemoteLife;
pub(crate) use message::Request;
pub(crate) use server::Server;
pub use server::ServingStats;
pub(crate) use socket::SOCKET;
pub(crate) use streams::{RemoteEnd, RemoteReader};
pub(crate) use watches::RemoteWatch;

use self::connection::NoConnection;
use crate::config::Config;
use crate::folder;
use crate::handle::{Link, Nexus, connect};
use crate::profile::Profile;

/// How long to wait for an owner that is starting or ending.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// How long to wait between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Attaches to the kernel that owns the data folder and serves its socket, and gives a handle to it.
///
/// The handle is used as any other. Its rights are those that the owner grants; [`Nexus::caller`] says which. What needs the process of
/// the kernel itself answers `EOPNOTSUPP`: [`Nexus::kernel`], hooks, the permission provider. [`Nexus::shutdown`] ends the attachment and
/// not the kernel. Dropping the future of a call calls it off as far as it has not come to its path lock.
///
/// Of streams of content 64 that are read and 64 that are written are open at once. Who opens another waits until one ends, and is answered `EBUSY` when none of
/// them has moved for 30 seconds. Ends of pipes are 64, and watches 1,024, and another is
/// refused after a second. Handles of [agents](Nexus::agent) are 16,384.
///
/// When the owner goes away, calls under way answer `ESHUTDOWN`: those that were not sent, and those that only read, were not executed;
/// of a change that was sent it is unknown. Each later call tries once to attach anew, so that a handle outlives the restart of its owner.
///
/// # Errors
/// `ESHUTDOWN` when nobody serves the socket; `EOPNOTSUPP` when the owner is of another version; `EACCES` when it is another user's;
/// `EBUSY` when it has as many clients as it takes.
///
/// ```
/// # smol::block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// use nexus::{Config, Serving};
///
/// // In the process that owns the folder:
/// let owner = nexus::connect(Config::new(folder).serve(Serving::administrator())).await?;
/// // In any other of the same user:
/// let nx = nexus::attach(folder).await?;
/// nx.write("/notes/today.md", "buy milk").await?;
/// assert_eq!(owner.read("/notes/today.md").await?, "buy milk");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub async fn attach(folder: impl AsRef<Path>) -> Result<Nexus> {
    let folder = folder.as_ref();
    let env = environment(folder)?;
    let threads = Profile::default().limits().map_or(1, |limits| limits.search_threads);
    let remote = Remote::attach(&env, folder, threads).await;
    remote.map(attached).map_err(|why| why.into_error(folder))
}

/// Boots a kernel on the data folder, or attaches to the one that owns it.
///
/// An owner that is just starting or ending is waited for, within bounds. Attached, only the data folder of the settings counts.
///
/// # Errors
/// As [`connect`] and [`attach`]; `EBUSY` when the owner does not serve its socket.
pub async fn connect_or_attach(config: impl Into<Config>) -> Result<Nexus> {
    let config = config.into();
    let settings = config.settle()?;
    let Some(folder) = settings.data_folder else { return connect(config).await };
    let mut waiting: Option<(Env, Instant)> = None;
    let mut unserved = 0;
    loop {
        let busy = match connect(config.clone()).await {
            Err(error) if error.kind() == ErrorKind::Busy => error,
            done => return done,
        };
        let (env, since) = match &waiting {
            Some(waiting) => waiting,
            None => {
                let own = config.env.clone().filter(|env| !env.is_simulated());
                let env = own.map_or_else(|| environment(&folder), Ok)?;
                let now = env.now();
                waiting.insert((env, now))
            }
        };
        match Remote::attach(env, &folder, settings.limits.search_threads).await {
            Ok(remote) => return Ok(attached(remote)),
            Err(NoConnection::Final(error)) => return Err(error),
            Err(NoConnection::Nobody(_) | NoConnection::Ending) => {}
        }
        let holder = folder::told_of(&folder);
        // Said once, it may have been said by the owner before.
        unserved = if holder.serves == Some(false) { unserved + 1 } else { 0 };
        if unserved > 1 {
            return Err(refused(
                &busy,
                &folder,
                &format!("{}, which does not serve {SOCKET}", holder.in_use()),
            ));
        }
        if env.now().duration_since(*since) > SETTLE_MAX {
            return Err(refused(
                &busy,
                &folder,
                &format!("{}, which does not answer at {SOCKET}", holder.in_use()),
            ));
        }
        env.sleep(LOOK_EVERY).await;
    }
}

fn refused(busy: &Error, folder: &Path, why: &str) -> Error {
    Error::on_host(Op::Connect, folder, busy.kind()).because(why)
}

fn attached(remote: Remote) -> Nexus {
    let caller = remote.granted().clone();
    Nexus::linked(Link::Remote(Arc::new(remote)), caller)
}

/// Threads of a handle that has no kernel beside it.
fn environment(folder: &Path) -> Result<Env> {
    Env::host(HostConfig::default()).map_err(|error| {
        Error::on_host(Op::Connect, folder, ErrorKind::Io).because(format!("starting threads: {error}"))
    })
}
