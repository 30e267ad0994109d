//! Whether a server honours conditional writes. Some ignore the condition, and answer as if it had held; so it is tried, whenever a mount is opened.

use nexus_kernel::hal::StoreError;
use nexus_messages::Timestamp;

use bytes::Bytes;

use super::client::Client;

/// What the names of the keys begin with at which it is tried.
const PROBE: &str = ".nexus-probe-";

/// What is left of a trial for so long is left for good: its process was killed.
const LEFT_NANOS: u64 = 60 * 60 * 1_000_000_000;

/// How many such are looked at, at each opening.
const LEFT_LOOK: usize = 100;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditions {
    /// What is there is not replaced by what asks for something new.
    Honoured,
    /// It is, or the server refuses to be asked.
    Ignored,
    /// Not known: the mount is read-only, or must not write there. Nothing is promised.
    Untried,
}

/// Tries it, below the mount's prefix.
pub(super) async fn find_out(client: &Client) -> Result<Conditions, StoreError> {
    if client.settings.read_only {
        return Ok(Conditions::Untried);
    }
    let key = client.key(&format!("{PROBE}{:016x}", client.env().random()))?;
    let found = tried(client, &key).await;
    match found {
        Err(StoreError::Io { .. } | StoreError::ReadOnly { .. }) => {}
        _ => match client.delete(&key).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "what is left of trying conditional writes stays"),
        },
    }
    remove_left(client).await;
    found.or_else(|error| match error {
        StoreError::Io { .. } => {
            tracing::warn!(%error, "whether the server honours conditional writes cannot be tried: nothing is promised");
            Ok(Conditions::Untried)
        }
        // There is no other way to miss something.
        StoreError::NotFound { .. } => Err(StoreError::NotFound { what: "the bucket".into() }),
        error => Err(error),
    })
}

async fn tried(client: &Client, key: &object_store::path::Path) -> Result<Conditions, StoreError> {
    let content = [Bytes::from_static(b"nexus tries whether conditional writes are honoured")];
    match client.create(key, &content).await {
        Ok(_) => {}
        // The server, or the library for it, has no such thing.
        Err(StoreError::NotSupported { .. }) => return Ok(Conditions::Ignored),
        Err(error) => return Err(error),
    }
    match client.create(key, &content).await {
        Err(StoreError::Exists { .. }) => Ok(Conditions::Honoured),
        Ok(_) | Err(StoreError::NotSupported { .. }) => Ok(Conditions::Ignored),
        Err(error) => Err(error),
    }
}

/// Removes what processes left that were killed while they tried.
async fn remove_left(client: &Client) {
    let prefix = format!("{}{PROBE}", client.settings.prefix);
    let Ok(page) = client.page(prefix, None, LEFT_LOOK, false, None).await else { return };
    let now = Timestamp(client.env().wall());
    for meta in page.result.objects {
        let modified = super::paths::modified(&meta);
        if now.nanos().saturating_sub(modified.nanos()) > LEFT_NANOS {
            // The next opening tries again.
            let _ = client.delete(&meta.location).await;
        }
    }
}
