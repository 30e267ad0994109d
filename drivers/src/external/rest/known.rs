//! What is known of tokens, kept while the drivers that ask for them come and go: a kernel replaces the driver of a mount that fails by another one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// The most grants of which something is known.
const GRANTS_MAX: usize = 256;

/// A grant: all that is given to ask for its tokens, as a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Grant([u8; 32]);

impl Grant {
    pub(super) fn of(given: &[Option<&str>]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for one in given {
            // With its length before it, so that nothing goes over into what follows.
            let length = one.map_or(u64::MAX, |one| one.len() as u64);
            hasher.update(&length.to_le_bytes()).update(one.unwrap_or_default().as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// A name that tells nothing of what was given.
    pub(super) fn name(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// What is known of each grant, bounded; those that no driver has go first, the one that was asked for longest ago before others.
pub(super) struct Known<T>(Mutex<Table<T>>);

struct Table<T> {
    grants: HashMap<Grant, (Arc<T>, u64)>,
    turn: u64,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Mutex::new(Table { grants: HashMap::new(), turn: 0 }))
    }
}

impl<T> Known<T> {
    /// What is known of `grant`; `first` when that is nothing.
    pub(super) fn of(&self, grant: Grant, first: T) -> Arc<T> {
        let mut table = self.0.lock();
        table.turn += 1;
        let turn = table.turn;
        if let Some((known, used)) = table.grants.get_mut(&grant) {
            *used = turn;
            return known.clone();
        }
        let first = Arc::new(first);
        if table.grants.len() >= GRANTS_MAX {
            let unused = table.grants.iter().filter(|(_, (known, _))| Arc::strong_count(known) == 1);
            let Some(oldest) = unused.min_by_key(|(_, (_, used))| *used).map(|(grant, _)| *grant) else {
                return first;
            };
            table.grants.remove(&oldest);
        }
        table.grants.insert(grant, (first.clone(), turn));
        first
    }
}

impl<T> fmt::Debug for Known<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("grants", &self.0.lock().grants.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_tells_grants_apart() {
        let all =
            [&[Some("ab"), Some("c")][..], &[Some("a"), Some("bc")], &[Some("ab"), None], &[Some("ab")]];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| Grant::of(one) != Grant::of(other)), "{one:?}");
            assert!(Grant::of(one) == Grant::of(one));
        }
    }

    #[test]
    fn what_no_driver_has_goes_first() {
        let (known, grant) = (Known::default(), |nth: usize| Grant::of(&[Some(&nth.to_string())]));
        let used = known.of(grant(0), 0);
        for nth in 1..=GRANTS_MAX {
            assert_eq!(*known.of(grant(nth), nth), nth);
        }
        assert_eq!(known.0.lock().grants.len(), GRANTS_MAX);
        assert!(Arc::ptr_eq(&known.of(grant(0), 9), &used));
        assert_eq!(*known.of(grant(2), 9), 2);
        assert_eq!(*known.of(grant(1), 9), 9, "the oldest that nobody has");
        // When all are in use, a new one is on its own.
        let (full, all) = (Known::default(), 0..GRANTS_MAX);
        let all: Vec<_> = all.map(|nth| full.of(grant(nth), nth)).collect();
        assert_eq!((*full.of(grant(GRANTS_MAX), 7), *full.of(grant(GRANTS_MAX), 8)), (7, 8));
        assert_eq!(*full.of(grant(3), 9), *all[3]);
    }
}
