//! What opening a mount of any object store has in common.

use std::sync::Arc;
use std::time::Duration;

use nexus_kernel::hal::{DriverContext, DriverOption, ObjectStore, StoreError, StoreFuture};
use nexus_messages::syscall::MountSpec;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::client::Client;
use super::conditions::{Verdict, known_or_tried};
use super::doubts::{Doubts, OfStore};
use super::handles::Handles;
use super::notes::Notes;
use super::options::{Addressed, Settings};
use super::paths::RemotePaths;
use super::transport::RemoteTransport;
use crate::cas::Cas;
use crate::secret::Secret;

/// How long connecting may take at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The waits between repetitions of a request: from the first to the last, each somewhere between the first one and three times the one before.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// How the server is spoken to, and with which credentials.
pub(super) struct Told {
    pub(super) handles: Handles,
    pub(super) secrets: Vec<Secret>,
    /// Whether the driver changes nothing on such a server, whatever the options say.
    pub(super) read_only: bool,
}

/// Checks the options, makes clients by `told`, and finds out what the server can do. What is in `doubt` at the stores of the driver outlives what is opened.
pub(super) fn open_with(
    spec: &MountSpec,
    options: &'static [DriverOption],
    context: DriverContext,
    told: fn(&MountSpec, &Settings) -> Result<Told, StoreError>,
    doubt: &Arc<Doubts>,
) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
    let (spec, doubts) = (spec.clone(), OfStore::new(doubt.clone(), spec));
    Box::pin(async move {
        let mut settings = Settings::of(&spec)?;
        let notes = Notes::of(&spec, options, &context);
        let is_again = context.is_again;
        // Credentials may lie in files.
        let asked = settings.clone();
        let made = context.pool.run(move || told(&spec, &asked)).await;
        let made = made.map_err(|error| StoreError::Backend {
            what: "making a client".into(),
            cause: error.to_string(),
        })?;
        let Told { handles, secrets, read_only } = made?;
        settings.read_only |= read_only;
        let addressed = settings.addressed;
        let client = Client::new(context.env, handles, settings, secrets, doubts)?;
        match addressed {
            Addressed::Content => {
                Ok(Arc::new(Cas::new(RemoteTransport::new(client))) as Arc<dyn ObjectStore>)
            }
            Addressed::Path => {
                let conditions = known_or_tried(&client, notes, is_again).await?;
                if conditions.absent == Verdict::Ignored || conditions.state == Verdict::Ignored {
                    tracing::warn!(
                        at = %client.settings.in_what(),
                        "the server does not honour all conditional writes: a write may replace what another writer makes at the same moment"
                    );
                }
                Ok(Arc::new(RemotePaths::new(client, conditions)) as Arc<dyn ObjectStore>)
            }
        }
    })
}

/// A client of each kind. What the library says of options that make none may repeat them.
pub(super) fn both<T>(
    kind: &str,
    build: impl Fn(bool) -> Result<object_store::Result<T>, StoreError>,
) -> Result<(Arc<T>, Arc<T>), StoreError> {
    Ok((one(kind, build(true)?)?, one(kind, build(false)?)?))
}

/// A client of this kind that was built, or why it was not.
pub(super) fn one<T>(kind: &str, built: object_store::Result<T>) -> Result<Arc<T>, StoreError> {
    built.map(Arc::new).map_err(|_| StoreError::BadOption {
        why: format!("the options, with what the environment has, do not make a client of {kind}: look at the names of the bucket and the server, and at the credentials"),
    })
}

/// How patient a client is: one that repeats what may be repeated, or one that makes each request once.
pub(super) fn patience(
    settings: &Settings,
    repeating: bool,
    allow_http: bool,
) -> (ClientOptions, RetryConfig) {
    use_ring();
    let client = ClientOptions::new()
        .with_allow_http(allow_http)
        // The whole operation has its own limit, and it depends on the size.
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_MAX.min(settings.timeout / 3));
    let client = if repeating { client.with_read_timeout(settings.timeout / 3) } else { client };
    let (init_backoff, max_backoff) = BACKOFF;
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff, max_backoff, base: 3.0 },
        max_retries: if repeating { settings.retries } else { 0 },
        retry_timeout: settings.timeout,
    };
    (client, retry)
}

/// The HTTP client takes the cryptography that the process has chosen. One that has chosen none gets ring.
fn use_ring() {
    // Whoever was first has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
