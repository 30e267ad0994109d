//! Which paths the starts that are under way name, and what they made there.
//!
//! What starts made goes with the last of those that name its path, if none of them was kept: so nobody who begins loses what another one that is given up had made, and
//! of many that are given up nothing is left.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use nexus_messages::{FileMetadata, VPath, ZoneId};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The paths of starts. Cloning gives another handle on the same.
///
/// Bounds: the paths of as many starts as may be under way, `CHILDREN_MAX` with the children that run: one that is given up has its place until it is done with that.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Inner>);

#[derive(Default)]
struct Inner {
    paths: Mutex<HashMap<Key, Claimed>>,
    /// Told when what was made somewhere is gone.
    freed: Notify,
}

type Key = (ZoneId, VPath);

/// A path that is named.
#[derive(Default)]
struct Claimed {
    /// How many starts name it. None do while what was made there is removed.
    starts: usize,
    /// What one of them made there, while none of them is kept.
    made: Option<Arc<FileMetadata>>,
}

/// The paths that one start names, until it is dropped. What was made there stays, unless it is [given up](Self::give_up).
pub(super) struct Claim {
    claims: Claims,
    named: Vec<Key>,
}

/// What is to be removed. Nobody names the paths until it is dropped.
pub(super) struct Leaving {
    claims: Claims,
    paths: Vec<(Key, Arc<FileMetadata>)>,
}

impl Claims {
    /// Names these paths of `zone`, once nothing is being removed at any of them. Dropping the future names nothing.
    pub(super) async fn claim<'a>(&self, zone: &ZoneId, paths: impl Iterator<Item = &'a VPath>) -> Claim {
        let mut keys: Vec<Key> = paths.map(|path| (zone.clone(), path.clone())).collect();
        keys.sort();
        keys.dedup();
        loop {
            // Before the look: what is gone after it is heard of.
            let freed = self.0.freed.notified();
            if let Some(claim) = self.try_claim(&keys) {
                return claim;
            }
            freed.await;
        }
    }

    fn try_claim(&self, keys: &[Key]) -> Option<Claim> {
        let mut paths = self.0.paths.lock();
        if keys.iter().any(|key| paths.get(key).is_some_and(|claimed| claimed.starts == 0)) {
            return None;
        }
        for key in keys {
            paths.entry(key.clone()).or_default().starts += 1;
        }
        Some(Claim { claims: self.clone(), named: keys.to_vec() })
    }
}

impl Claim {
    /// Notes what was made at a path, as it was named.
    pub(super) fn made(&self, path: &VPath, entry: Arc<FileMetadata>) {
        let mut paths = self.claims.0.paths.lock();
        let key = self.named.iter().find(|(_, named)| named == path);
        if let Some(claimed) = key.and_then(|key| paths.get_mut(key)) {
            claimed.made = Some(entry);
        }
    }

    /// The child lives: what was made at its paths stays, whoever made it.
    pub(super) fn keep(self) {
        let mut paths = self.claims.0.paths.lock();
        for key in &self.named {
            if let Some(claimed) = paths.get_mut(key) {
                claimed.made = None;
            }
        }
    }

    /// There will be no child: gives what is to be removed, which is what nobody else names.
    pub(super) fn give_up(mut self) -> Leaving {
        let mut leaving = Vec::new();
        {
            let mut paths = self.claims.0.paths.lock();
            self.named.retain(|key| match paths.get_mut(key) {
                Some(Claimed { starts: starts @ 1, made: Some(made) }) => {
                    *starts = 0;
                    leaving.push((key.clone(), made.clone()));
                    false
                }
                _ => true,
            });
        }
        Leaving { claims: self.claims.clone(), paths: leaving }
    }
}

impl Leaving {
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<FileMetadata>> {
        self.paths.iter().map(|(_, entry)| entry)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut paths = self.claims.0.paths.lock();
        for key in &self.named {
            if let Some(claimed) = paths.get_mut(key) {
                claimed.starts -= 1;
                if claimed.starts == 0 {
                    paths.remove(key);
                }
            }
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        {
            let mut paths = self.claims.0.paths.lock();
            for (key, _) in &self.paths {
                paths.remove(key);
            }
        }
        self.claims.0.freed.notify_waiters();
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("paths", &self.0.paths.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use nexus_messages::{EntryType, FileId, Timestamp};

    use super::*;

    fn path(text: &str) -> VPath {
        VPath::parse(text).expect("written as one")
    }

    fn claim(claims: &Claims, paths: &[&str]) -> Option<Claim> {
        let paths: Vec<VPath> = paths.iter().map(|text| path(text)).collect();
        claims.claim(&ZoneId::root(), paths.iter()).now_or_never()
    }

    fn made(claim: &Claim, at: &str) {
        let entry = FileMetadata::new(path(at), ZoneId::root(), FileId(7), EntryType::Pipe, Timestamp(0));
        claim.made(&path(at), Arc::new(entry));
    }

    /// What goes with this claim.
    fn leaves(claim: Claim) -> Vec<String> {
        claim.give_up().entries().map(|entry| entry.path.to_string()).collect()
    }

    #[test]
    fn what_was_made_goes_with_the_last_that_names_it() {
        let claims = Claims::default();
        let (first, second) =
            (claim(&claims, &["/a", "/b"]).unwrap(), claim(&claims, &["/b", "/c"]).unwrap());
        for (by, at) in [(&first, "/a"), (&first, "/b"), (&second, "/c")] {
            made(by, at);
        }
        assert_eq!(leaves(first), ["/a"]);
        assert_eq!(leaves(second), ["/b", "/c"]);
        assert!(claims.0.paths.lock().is_empty());
    }

    #[test]
    fn what_a_child_has_stays_whoever_made_it() {
        let claims = Claims::default();
        let (first, second) = (claim(&claims, &["/a"]).unwrap(), claim(&claims, &["/a", "/a"]).unwrap());
        made(&first, "/a");
        second.keep();
        assert_eq!(leaves(first), [""; 0]);
        assert!(claims.0.paths.lock().is_empty());
    }

    #[test]
    fn nobody_begins_where_something_is_being_removed() {
        let claims = Claims::default();
        let first = claim(&claims, &["/a"]).unwrap();
        made(&first, "/a");
        let leaving = first.give_up();
        assert!(claim(&claims, &["/a", "/b"]).is_none());
        let there = [path("/a")];
        let root = ZoneId::root();
        let mut waits = Box::pin(claims.claim(&root, there.iter()));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(leaving);
        assert!(waits.now_or_never().is_some(), "it is told when that is done");
    }
}
