//! Deleting many keys at once.
//!
//! S3 and Azure take a list of keys in one request; not every server that speaks as they do knows it. One that does not is told each key by itself, some at once.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{StreamExt, iter};
use nexus_kernel::hal::StoreError;
use object_store::path::Path;
use object_store::{Error, ObjectStore};

use super::client::Client;
use super::doubts::Change;
use super::errors::{Call, INTERNAL_ERROR, SLOW_DOWN, status, translated};

/// How many keys are told in one call to a server that is told each by itself: a call has to be over within its deadline.
const SINGLY_MAX: u16 = 64;

/// How many of those are under way at once.
const AT_ONCE: usize = 16;

/// As how many bytes a key counts where time is allowed for many.
const DELETED_AS: u64 = 16 << 10;

/// What becomes of each of some keys.
type Each = Vec<Result<(), StoreError>>;

impl Client {
    /// How many keys are to be deleted in one call.
    pub(super) fn deletes_at_once(&self) -> u16 {
        self.bulk().map_or(SINGLY_MAX, |(_, most)| most)
    }

    fn bulk(&self) -> Option<(Arc<dyn ObjectStore>, u16)> {
        self.handles.bulk.clone().filter(|_| !self.deletes_singly.load(Ordering::Relaxed))
    }

    /// Deletes the keys, and says of each what became of it. One that is not there counts as deleted.
    pub(super) async fn delete_many(&self, keys: &[Path]) -> Result<Each, StoreError> {
        let is_listed: Vec<bool> = keys.iter().map(|key| may_stand_in_a_list(key.as_ref())).collect();
        let of = |listed: bool| {
            let keys = keys.iter().zip(&is_listed).filter(move |(_, is)| **is == listed);
            keys.map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        let (together, apart) = (of(true), of(false));
        let mut listed = match self.bulk() {
            Some((store, most)) if together.len() > 1 => {
                let mut each = Vec::with_capacity(together.len());
                for some in together.chunks(usize::from(most)) {
                    match self.in_one_request(&store, some).await? {
                        Some(some) => each.extend(some),
                        None => each.extend(self.delete_each(some).await),
                    }
                }
                each
            }
            _ => self.delete_each(&together).await,
        }
        .into_iter();
        let mut others = self.delete_each(&apart).await.into_iter();
        let each = is_listed.iter().map(|is| if *is { listed.next() } else { others.next() });
        Ok(each.flatten().collect())
    }

    /// Each by itself, some at once.
    async fn delete_each(&self, keys: &[Path]) -> Each {
        let mut each = Vec::with_capacity(keys.len());
        let deletions = keys.iter().cloned().map(|key| async move { self.delete(&key).await });
        let mut deleted = pin!(iter(deletions).buffered(AT_ONCE));
        while let Some(deleted) = deleted.next().await {
            each.push(deleted);
        }
        each
    }

    /// All in one request; none when the server does not know such.
    async fn in_one_request(
        &self,
        store: &Arc<dyn ObjectStore>,
        keys: &[Path],
    ) -> Result<Option<Each>, StoreError> {
        let Some(first) = keys.first() else { return Ok(Some(Vec::new())) };
        let bytes = DELETED_AS.saturating_mul(keys.len() as u64);
        let call = Call::change("deleting the keys from", first.as_ref(), bytes).noted(Change::Deleted, keys);
        let (store, asked) = (store.clone(), keys.to_vec());
        let work = async move {
            let count = asked.len();
            let answers = store.delete_stream(iter(asked.into_iter().map(Ok)).boxed());
            let mut answers: Vec<Result<Path, Error>> = answers.collect().await;
            if answers.len() == count {
                return Ok(Some(answers));
            }
            // What is wrong with the request stands in place of all its answers.
            match answers.pop() {
                Some(Err(error)) if matches!(status(&error), Some(400 | 405 | 501)) => Ok(None),
                Some(Err(error)) => Err(error),
                _ => Err(Error::Generic { store: "remote", source: "it answers for other keys".into() }),
            }
        };
        let Some(answers) = self.run(call, Box::pin(work)).await? else {
            tracing::info!("the server does not delete many keys at once: each is deleted by itself");
            self.deletes_singly.store(true, Ordering::Relaxed);
            return Ok(None);
        };
        let told = |(key, answer): (&Path, Result<Path, Error>)| match answer {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.refused(key, &error)),
        };
        Ok(Some(keys.iter().zip(answers).map(told).collect()))
    }

    /// What became of one key of many.
    fn refused(&self, key: &Path, error: &Error) -> StoreError {
        let call = Call::change("deleting", key.as_ref(), 0);
        let text = error.to_string();
        // The library gives the code that stands beside the key in a text, and after what else the server says of it, which is not told on.
        let code = text.rsplit_once("(code: ").and_then(|(_, code)| code.split_once(')'));
        let code = code.map(|(code, _)| code).filter(|code| code.chars().all(|c| c.is_ascii_alphanumeric()));
        let Some(code) = code else { return translated(error, &call, self.limit(0), &self.secrets, false) };
        let (what, cause) = (call.in_words(), format!("the server says {code}"));
        let kind = match code {
            "AccessDenied" | "401" | "403" => io::ErrorKind::PermissionDenied,
            INTERNAL_ERROR | SLOW_DOWN | "ServiceUnavailable" | "500" | "503" => {
                return StoreError::Unknown { what, cause };
            }
            _ => io::ErrorKind::InvalidInput,
        };
        StoreError::Io { what, source: Arc::new(io::Error::new(kind, cause)) }
    }
}

/// Whether a list of keys means this one whoever reads it: a list is XML, in which spaces around a key may be taken for none, and some characters cannot be.
fn may_stand_in_a_list(key: &str) -> bool {
    key.trim() == key && !key.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_a_list_may_change_stands_in_none() {
        for (key, may) in [
            ("a", true),
            ("a b/ä&<c>", true),
            ("d/a ", false),
            (" a", false),
            ("a\u{2003}", false),
            ("a\u{85}b", false),
            ("a\u{ffff}", false),
        ] {
            assert_eq!(may_stand_in_a_list(key), may, "{key:?}");
        }
    }
}
