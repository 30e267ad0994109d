//! Why a migration came to an end, and which of its two stores is to blame.

use std::collections::BTreeMap;
use std::time::Duration;

use nexus_messages::ErrorKind;

use super::Run;
use crate::hal::{HIDDEN, StoreError, is_of_every_mount};

/// How often a call of a driver is made that fails.
const ATTEMPTS_MAX: u32 = 4;

/// How long it is from the first attempt to the second; each further wait is twice as long.
const ATTEMPT_WAIT: Duration = Duration::from_millis(100);

/// The longest wait for a driver that says when it may be called again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Makes a call of one of the stores, again when it fails and may succeed later.
macro_rules! tried {
    ($run:expr, $side:expr, $call:expr) => {{
        let mut attempts = Attempts::default();
        loop {
            match $call.await {
                Ok(done) => break Ok(done),
                Err(error) => {
                    if !$run.again($side, error, &mut attempts).await {
                        break Err($run.failed(&attempts));
                    }
                }
            }
        }
    }};
}
pub(super) use tried;

/// Why a migration came to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mounts) struct Failed {
    pub(in crate::mounts) kind: ErrorKind,
    pub(in crate::mounts) why: String,
}

impl Failed {
    /// What the new store cannot hold.
    pub(super) fn refused(why: String) -> Self {
        Self { kind: ErrorKind::NotSupported, why }
    }
}

/// What neither store has said: the metastore.
impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { kind: error.kind(), why: error.to_string() }
    }
}

/// One of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that the files leave.
    Old,
    /// The one that they come to.
    New,
}

/// What became of the attempts at one thing.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    made: u32,
    /// Why the last one failed in which a store was asked; one in which it was not says less.
    failed: Option<(Side, StoreError)>,
}

impl Run {
    /// Whether what failed is to be tried again, after a wait.
    pub(super) async fn again(&self, side: Side, error: StoreError, attempts: &mut Attempts) -> bool {
        let wait = match &error {
            StoreError::Unavailable { retry_in, .. } => Some((*retry_in).min(RETRY_MAX)),
            error if error.is_backend_failure() => Some(ATTEMPT_WAIT * 2_u32.saturating_pow(attempts.made)),
            _ => None,
        };
        attempts.made += 1;
        if attempts.failed.is_none() || !matches!(error, StoreError::Unavailable { .. }) {
            attempts.failed = Some((side, error));
        }
        let Some(wait) = wait.filter(|_| attempts.made < ATTEMPTS_MAX) else { return false };
        self.kernel.env().sleep(wait).await;
        true
    }

    /// It failed for good.
    pub(super) fn failed(&self, attempts: &Attempts) -> Failed {
        self.blame(attempts, said)
    }

    /// The file at `path` was not copied, for good.
    pub(super) fn not_copied(&self, path: &str, attempts: &Attempts) -> Failed {
        // Which file it was need not be told twice.
        let cause = |error: &StoreError| match error {
            StoreError::Io { source, .. } => source.to_string(),
            StoreError::Backend { cause, .. }
            | StoreError::Unknown { cause, .. }
            | StoreError::Doubtful { cause, .. } => cause.clone(),
            error => said(error),
        };
        self.blame(attempts, |error| format!("copying {path}: {}", cause(error)))
    }

    fn blame(&self, attempts: &Attempts, say: impl Fn(&StoreError) -> String) -> Failed {
        let Some((side, error)) = &attempts.failed else {
            return Failed { kind: ErrorKind::Io, why: "it was not tried".into() };
        };
        let shown = |spec| self.kernel.catalogue().shown(spec);
        let store = match side {
            Side::Old => {
                let spec = self.mount.spec();
                format!("the old store {}", named(&spec.driver, &shown(&spec)))
            }
            Side::New => format!("the new store {}", named(&self.spec.driver, &shown(&self.spec))),
        };
        Failed { kind: error.kind(), why: format!("{store}: {}", say(error)) }
    }
}

/// What a store has said. Of the new one a door would speak as of the mount, which the old one serves.
fn said(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable { cause, .. } => {
            format!("it fails again and again, and was not asked any more; the latest was {cause}")
        }
        error => error.to_string(),
    }
}

/// A store in words: its driver, and what was said of where and how it is. `options` are as anybody may see them.
pub(super) fn named(driver: &str, options: &BTreeMap<String, String>) -> String {
    let own = options.iter().filter(|(key, shown)| !is_of_every_mount(key) && *shown != HIDDEN);
    let own: Vec<_> = own.map(|(key, shown)| format!("{key}={shown}")).collect();
    if own.is_empty() { driver.to_owned() } else { format!("{driver} ({})", own.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_what_says_where_it_is() {
        let check = |options: &[(&str, &str)], expected: &str| {
            let options = options.iter().map(|(key, shown)| ((*key).to_owned(), (*shown).to_owned()));
            assert_eq!(named("s3", &options.collect()), expected);
        };
        check(&[], "s3");
        check(&[("read_only", "true"), ("secret_key", HIDDEN)], "s3");
        check(
            &[("endpoint", "http://127.0.0.1:1"), ("bucket", "b"), ("deadline_ms", "9")],
            "s3 (bucket=b, endpoint=http://127.0.0.1:1)",
        );
    }

    #[test]
    fn a_store_that_is_not_asked_any_more_is_not_taken_for_the_mount() {
        let error = StoreError::Unavailable {
            mount: "/m".into(),
            cause: "writing \"f\": it is gone".into(),
            retry_in: Duration::ZERO,
        };
        assert!(!said(&error).contains("/m") && said(&error).ends_with("writing \"f\": it is gone"));
    }
}
