//! Whether a server honours conditional writes. Some ignore the condition, and answer as if it had held; so it is tried when a mount is asked for.
//!
//! What was found is kept in the data folder, and counts for a day when the same mount is opened again: who only wants to list a bucket does not write to it.

use nexus_kernel::hal::StoreError;
use nexus_messages::Timestamp;

use bytes::Bytes;
use object_store::UpdateVersion;
use object_store::path::Path;

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::multipart::Upload;
use super::notes::Notes;
use super::requests::Condition;

/// What the names of the keys begin with at which it is tried.
const PROBE: &str = ".nexus-probe-";

/// What is left of a trial for so long is left for good: its process was killed.
const LEFT_NANOS: u64 = 60 * 60 * 1_000_000_000;

/// How many such are looked at, at each trial.
const LEFT_LOOK: usize = 100;

/// What was found, of each kind of condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conditions {
    /// That nothing is there.
    pub(super) absent: Verdict,
    /// That what is there is in one state.
    pub(super) state: Verdict,
    /// The first, when content that came in parts is put together.
    pub(super) parts_absent: Verdict,
    /// The second then.
    pub(super) parts_state: Verdict,
}

impl Conditions {
    const UNTRIED: Self = Self::all(Verdict::Untried);
    const IGNORED: Self = Self::all(Verdict::Ignored);

    const fn all(verdict: Verdict) -> Self {
        Self { absent: verdict, state: verdict, parts_absent: verdict, parts_state: verdict }
    }

    /// Whether the server said what there is to know.
    fn is_certain(self) -> bool {
        let Self { absent, state, parts_absent, parts_state } = self;
        [absent, state, parts_absent, parts_state].iter().all(|verdict| *verdict != Verdict::Untried)
    }
}

/// What was found of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// What does not meet it is not replaced.
    Honoured,
    /// It is, or the server refuses to be asked.
    Ignored,
    /// Not known: the mount is read-only, or must not write there, or what the server said makes no sense. Nothing is promised.
    Untried,
}

impl Verdict {
    /// Whether the server decides.
    pub(super) fn is_honoured(self) -> bool {
        self == Self::Honoured
    }

    /// Of an answer to what was to be refused.
    fn of<T>(answer: Result<T, StoreError>) -> Self {
        match answer {
            Err(StoreError::Exists { .. }) => Self::Honoured,
            Ok(_) | Err(StoreError::NotSupported { .. }) => Self::Ignored,
            Err(_) => Self::Untried,
        }
    }
}

/// What was found when the mount was asked for, if it is only opened again, and not long after; else it is tried.
pub(super) async fn known_or_tried(
    client: &Client,
    notes: Option<Notes>,
    is_again: bool,
) -> Result<Conditions, StoreError> {
    if client.settings.read_only {
        return Ok(Conditions::UNTRIED);
    }
    if let Some(notes) = notes.as_ref().filter(|_| is_again)
        && let Some(known) = notes.read(client.env().wall()).await
    {
        return Ok(known);
    }
    let found = find_out(client).await?;
    if let Some(notes) = notes {
        notes.keep(found.is_certain().then_some(found), client.env()).await;
    }
    Ok(found)
}

/// Tries it, below the mount's prefix.
async fn find_out(client: &Client) -> Result<Conditions, StoreError> {
    let key = client.key(&format!("{PROBE}{:016x}", client.env().random()))?;
    let found = tried(client, &key).await;
    match found {
        Err(StoreError::Io { .. } | StoreError::ReadOnly { .. }) => {}
        _ => match client.delete(&key).await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(at = %client.settings.in_what(), %error, "what is left of trying conditional writes stays");
            }
        },
    }
    remove_left(client).await;
    found.or_else(|error| match error {
        StoreError::Io { .. } => {
            tracing::warn!(at = %client.settings.in_what(), %error, "whether the server honours conditional writes cannot be tried: nothing is promised");
            Ok(Conditions::UNTRIED)
        }
        // There is no other way to miss something.
        StoreError::NotFound { .. } => Err(StoreError::NotFound { what: client.settings.in_what() }),
        error => Err(error),
    })
}

fn content() -> [Bytes; 1] {
    [Bytes::from_static(b"nexus tries whether conditional writes are honoured")]
}

async fn tried(client: &Client, key: &Path) -> Result<Conditions, StoreError> {
    let put = match client.create(key, &content()).await {
        Ok(put) => put,
        // The server, or the library for it, has no such thing.
        Err(StoreError::NotSupported { .. }) => return Ok(Conditions::IGNORED),
        Err(error) => return Err(error),
    };
    let absent = match client.create(key, &content()).await {
        Err(StoreError::Exists { .. }) => Verdict::Honoured,
        Ok(_) | Err(StoreError::NotSupported { .. }) => Verdict::Ignored,
        Err(error) => return Err(error),
    };
    let first = UpdateVersion { e_tag: put.e_tag, version: put.version };
    let state = state(client, key, first.clone()).await;
    // What is ignored where it is easy is not honoured where it is not. Where it is, `first` is no state any more.
    let parts_absent =
        if absent.is_honoured() { parts(client, key, Condition::Absent).await } else { absent };
    let parts_state =
        if state.is_honoured() { parts(client, key, Condition::State(first)).await } else { state };
    Ok(Conditions { absent, state, parts_absent, parts_state })
}

/// Replaces the state `first` by another one, and then tries to replace it again.
async fn state(client: &Client, key: &Path, first: UpdateVersion) -> Verdict {
    let other = [Bytes::from_static(b"nexus tries it once more")];
    match client.update(key, &other, first.clone()).await {
        Ok(_) => Verdict::of(client.update(key, &content(), first).await),
        Err(StoreError::NotSupported { .. }) => Verdict::Ignored,
        Err(_) => Verdict::Untried,
    }
}

/// Tries to put parts together under a condition that does not hold.
async fn parts(client: &Client, key: &Path, condition: Condition) -> Verdict {
    if !client.completes_under_conditions() {
        return Verdict::Ignored;
    }
    let mut upload = Upload::new(client.clone(), key.clone(), 1);
    let pushed = upload.push(Bytes::from_static(b"x")).await;
    let put = if pushed.is_ok() { upload.complete(Some(condition)).await.map(drop) } else { pushed };
    upload.abort().await;
    Verdict::of(put)
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
