//! Rows of the database that were looked up lately, or were looked for and not found.
//!
//! A write finds its way through the same directories as the one before it, and looks for the name that it makes twice: once to see that it is not there,
//! and once to be sure when it is committed. Each is a search from the root of a tree on disk down, which this spares.

use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::RandomState;
use nexus_kernel::hal::RowKey;
use parking_lot::Mutex;

/// How many rows are remembered at most: one for each byte that a hash may begin with. Two that have the same place drive each other out.
const ROWS: usize = 256;

/// A longer row is not remembered, in bytes: small content is asked for once, and then in the cache of contents.
const ROW_MAX: usize = 512;

/// A key, and the row that is there, if one is.
type Found = (RowKey, Option<Bytes>);

/// What was found in one snapshot, which never changes.
#[derive(Debug)]
pub(super) struct Recent {
    hasher: RandomState,
    rows: Box<[Mutex<Option<Found>>]>,
}

impl Recent {
    /// Nothing was looked up yet.
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::default(), rows: (0..ROWS).map(|_| Mutex::default()).collect() }
    }

    fn place(&self, key: &RowKey) -> &Mutex<Option<Found>> {
        let [first, ..] = self.hasher.hash_one(key).to_le_bytes();
        &self.rows[usize::from(first)]
    }

    /// The row at `key`, from here or as `look` finds it. Nobody waits: a place that is in use is passed by.
    pub(super) fn get<E>(
        &self,
        key: &RowKey,
        look: impl FnOnce() -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Bytes>, E> {
        let place = self.place(key);
        if let Some(known) = place.try_lock()
            && let Some((_, row)) = known.as_ref().filter(|(known, _)| known == key)
        {
            return Ok(row.clone());
        }
        let row = look()?;
        if row.as_ref().is_none_or(|row| row.len() <= ROW_MAX)
            && let Some(mut known) = place.try_lock()
        {
            *known = Some((key.clone(), row.clone()));
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use nexus_kernel::hal::Table;

    use super::*;

    #[test]
    fn each_key_gives_its_own_row_and_is_looked_up_again_only_when_it_was_driven_out_or_is_long() {
        let (recent, looks) = (Recent::new(), Cell::new(0));
        let get = |n: usize| {
            let key = RowKey::new(Table::Inodes, n.to_be_bytes());
            let row = (!n.is_multiple_of(3)).then(|| Bytes::from(vec![1; n]));
            let look = || {
                looks.set(looks.get() + 1);
                Ok::<_, Infallible>(row.clone())
            };
            let found = recent.get(&key, look);
            assert_eq!(found, Ok(row));
        };
        (0..2).for_each(|_| get(7));
        (0..2).for_each(|_| get(9));
        assert_eq!(looks.get(), 2, "what is not there is known, too");
        (0..2).for_each(|_| get(ROW_MAX + 2));
        assert_eq!(looks.get(), 4, "too long");
        (0..4 * ROWS).for_each(get);
        (0..4 * ROWS).for_each(get);
        assert!(looks.get() > 4 * ROWS, "some were driven out");
    }
}
