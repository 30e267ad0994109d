//! What of the history goes: a pure function over its rows, in the order of their keys.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nexus_messages::{FileId, Lsn, Timestamp};

use super::history::{Parts, Past, Was, horizon_key, parts_of};
use super::rows;
use crate::hal::{Change, RowKey, StoreError, TreeId};

/// How much of the history of one mount is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// How many superseded states of each row, at least one.
    pub(crate) count: usize,
    /// For how long.
    pub(crate) age: Duration,
    /// From where on; what was superseded by then is not looked at any more.
    pub(crate) horizon: Lsn,
}

/// One walk through the history of a tree, page by page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sweep {
    /// Where it goes on; none at the beginning.
    pub(crate) after: Option<RowKey>,
    /// By mount: the latest place at which something was superseded that is too old, and the first of what is not.
    ages: BTreeMap<FileId, (Option<Lsn>, Option<Lsn>)>,
}

/// The rows of history of one row.
struct Group {
    of: RowKey,
    rows: Vec<(RowKey, Lsn, Past)>,
}

impl Sweep {
    /// What goes of `page`, the rows after [`after`](Self::after); `more` says that there may be others behind it. `kept` has the mounts that keep a
    /// history. Nothing is said of a row that is not in the page, so it does not matter what is written meanwhile.
    pub(crate) fn prune(
        &mut self,
        page: Vec<(RowKey, Bytes)>,
        more: bool,
        kept: &BTreeMap<FileId, Kept>,
        now: Timestamp,
    ) -> Result<Vec<Change>, StoreError> {
        let mut changes = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let end = page.last().map(|(key, _)| key.clone());
        let mut has_horizon = false;
        for (key, value) in page {
            match parts_of(&key)? {
                Parts::Horizon(mount, lsn) => {
                    has_horizon = true;
                    // Of those of one mount only the last one holds.
                    if kept.get(&mount).is_none_or(|kept| lsn < kept.horizon) {
                        changes.push(Change::Delete(key));
                    }
                }
                Parts::Row(of, lsn) => {
                    let past: Past = rows::decode(&key, &value)?;
                    match groups.last_mut().filter(|group| group.of == of) {
                        Some(group) => group.rows.push((key, lsn, past)),
                        None => groups.push(Group { of, rows: vec![(key, lsn, past)] }),
                    }
                }
            }
        }
        // The rest of the last one may be in the next page. One that fills a page is cut, and gone on with.
        let cut = if more && (groups.len() > 1 || has_horizon) { groups.pop() } else { None };
        let cut_is_none = cut.is_none();
        self.after = match cut {
            Some(cut) => {
                groups.last().and_then(|group| group.rows.last()).map(|(key, ..)| key.clone()).or_else(|| {
                    // Only horizons came before it.
                    cut.rows.first().map(|(key, ..)| before(key))
                })
            }
            None => end.filter(|_| more),
        };
        let one = more && cut_is_none && groups.len() == 1;
        for group in groups {
            let dropped = self.prune_group(group, kept, now, &mut changes);
            if one {
                // What is left of it counts with what comes, and so does the mark.
                self.after = dropped.map(|mark| before(&mark)).or_else(|| self.after.take());
            }
        }
        Ok(changes)
    }

    /// Gives the last row that was dropped for there being too many.
    fn prune_group(
        &mut self,
        group: Group,
        kept: &BTreeMap<FileId, Kept>,
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Option<RowKey> {
        let mut left = Vec::new();
        for (key, lsn, past) in group.rows {
            match kept.get(&past.mount) {
                Some(kept) if lsn > kept.horizon => {
                    let is_old = now.0.saturating_sub(past.at.0) > nanos(kept.age);
                    let (old, young) = self.ages.entry(past.mount).or_default();
                    if is_old {
                        *old = (*old).max(Some(lsn));
                    } else {
                        *young = Some(young.map_or(lsn, |young| young.min(lsn)));
                    }
                    left.push((key, past));
                }
                // It is of a mount that keeps none, or nobody looks that far back.
                _ => changes.push(Change::Delete(key)),
            }
        }
        let count = left.first().and_then(|(_, past)| kept.get(&past.mount)).map_or(0, |kept| kept.count);
        let surplus = left.len().saturating_sub(count);
        let is_marked = left.first().is_some_and(|(_, past)| past.was == Was::Dropped);
        // A mark is no state: with it there may be one more.
        if surplus == 0 || (is_marked && surplus == 1) {
            return None;
        }
        let mut last = None;
        for (nth, (key, past)) in left.into_iter().take(surplus).enumerate() {
            if nth + 1 == surplus {
                changes.push(Change::Put(key.clone(), rows::encode(&Past { was: Was::Dropped, ..past })));
                last = Some(key);
            } else {
                changes.push(Change::Delete(key));
            }
        }
        last
    }

    /// At the end of the walk: the mounts whose history begins later from here on, and where. All that was superseded up to there is too old. Begins
    /// the next walk.
    pub(crate) fn horizons(
        &mut self,
        tree: TreeId,
        kept: &BTreeMap<FileId, Kept>,
    ) -> Vec<(FileId, RowKey, Lsn)> {
        self.after = None;
        let ages = std::mem::take(&mut self.ages);
        let moved = ages.into_iter().filter_map(|(mount, (old, young))| {
            let old = old?;
            let to = young.map_or(old, |Lsn(young)| old.min(Lsn(young.saturating_sub(1))));
            let from = kept.get(&mount)?.horizon;
            (to > from).then(|| (mount, horizon_key(tree, mount).at(to), from))
        });
        moved.collect()
    }
}

/// A key that comes before `key`, and after all of other rows that come before it.
fn before(key: &RowKey) -> RowKey {
    let mut before = key.clone();
    before.bytes.pop();
    before
}

fn nanos(age: Duration) -> u64 {
    u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use nexus_messages::Op;

    use super::super::history::past_of;
    use super::super::rows::inode_key;
    use super::*;

    const TREE: TreeId = TreeId(3);
    const MOUNT: FileId = FileId(1);

    type Rows = BTreeMap<RowKey, Bytes>;

    fn kept(count: usize, age_s: u64, horizon: u64) -> BTreeMap<FileId, Kept> {
        let kept = Kept { count, age: Duration::from_secs(age_s), horizon: Lsn(horizon) };
        BTreeMap::from([(MOUNT, kept)])
    }

    /// One row a second, each for the file and the place given.
    fn rows_of(pasts: &[(u64, u64)], mount: FileId) -> Rows {
        let row = |&(file, lsn): &(u64, u64)| {
            let was = Was::Row(Bytes::from(vec![1]));
            let past =
                Past { mount, at: Timestamp(lsn * 1_000_000_000), by: "me".into(), op: Op::Write, was };
            (past_of(&inode_key(TREE, FileId(file))).unwrap().at(Lsn(lsn)), rows::encode(&past))
        };
        pasts.iter().map(row).collect()
    }

    /// Walks through all of it, and gives where the history begins afterwards.
    fn sweep(rows: &mut Rows, page: usize, kept: &BTreeMap<FileId, Kept>, now_s: u64) -> Option<Lsn> {
        let mut sweep = Sweep::default();
        for _ in 0..1_000 {
            let after = sweep.after.clone();
            let there = rows.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
            let found: Vec<_> = there.take(page).map(|(key, value)| (key.clone(), value.clone())).collect();
            let more = found.len() == page;
            let changes = sweep.prune(found, more, kept, Timestamp(now_s * 1_000_000_000)).unwrap();
            for change in changes {
                match change {
                    Change::Put(key, value) => drop(rows.insert(key, value)),
                    Change::Delete(key) => drop(rows.remove(&key)),
                    other => panic!("{other:?}"),
                }
            }
            if !more {
                let moved = sweep.horizons(TREE, kept).pop();
                return moved.map(|(_, key, _)| match parts_of(&key).unwrap() {
                    Parts::Horizon(_, lsn) => lsn,
                    Parts::Row(..) => panic!("no horizon"),
                });
            }
        }
        panic!("it does not come to an end");
    }

    /// The rows as file, place, and whether it is a mark.
    fn told(rows: &Rows) -> Vec<(u64, u64, bool)> {
        let told = |(key, value): (&RowKey, &Bytes)| {
            let Parts::Row(of, Lsn(lsn)) = parts_of(key).unwrap() else { panic!("{key:?}") };
            let past: Past = rows::decode(key, value).unwrap();
            let file = u64::from_be_bytes(of.bytes[4..].try_into().unwrap());
            (file, lsn, past.was == Was::Dropped)
        };
        rows.iter().map(told).collect()
    }

    #[test]
    fn of_each_row_the_newest_are_kept_and_a_mark_before_them() {
        for page in [4, 5, 7, 100] {
            let mut rows = rows_of(&[(1, 1), (1, 2), (1, 3), (1, 4), (1, 9), (2, 5), (3, 6), (3, 8)], MOUNT);
            sweep(&mut rows, page, &kept(2, 1_000, 0), 10);
            let expected =
                [(1, 3, true), (1, 4, false), (1, 9, false), (2, 5, false), (3, 6, false), (3, 8, false)];
            assert_eq!(told(&rows), expected, "pages of {page}");
            sweep(&mut rows, page, &kept(2, 1_000, 0), 10);
            assert_eq!(told(&rows), expected, "once more, pages of {page}");
            rows.extend(rows_of(&[(1, 11)], MOUNT));
            sweep(&mut rows, page, &kept(2, 1_000, 0), 12);
            assert_eq!(told(&rows)[..3], [(1, 4, true), (1, 9, false), (1, 11, false)], "pages of {page}");
        }
    }

    #[test]
    fn what_is_too_old_moves_the_horizon_and_goes_with_the_next_walk() {
        let mut rows = rows_of(&[(1, 1), (1, 20), (2, 5), (2, 12), (3, 30)], MOUNT);
        let moved = sweep(&mut rows, 100, &kept(9, 10, 0), 24).unwrap();
        assert_eq!((moved, rows.len()), (Lsn(12), 5), "12 seconds old, and nothing older is younger than 10");
        assert_eq!(sweep(&mut rows, 100, &kept(9, 10, 12), 24), None);
        assert_eq!(told(&rows), [(1, 20, false), (3, 30, false)]);
        // A clock that was set back in between: what is young keeps what came after it.
        let mut rows = rows_of(&[(1, 3), (2, 50)], MOUNT);
        let odd = rows_of(&[(3, 4)], MOUNT).into_values().next().unwrap();
        rows.insert(past_of(&inode_key(TREE, FileId(3))).unwrap().at(Lsn(60)), odd);
        assert_eq!(sweep(&mut rows, 100, &kept(9, 10, 0), 55), Some(Lsn(49)));
        assert_eq!(
            sweep(&mut rows_of(&[(1, 50)], MOUNT), 100, &kept(9, 10, 0), 55),
            None,
            "nothing is too old"
        );
    }

    #[test]
    fn what_no_mount_keeps_goes_and_so_do_horizons_that_do_not_hold() {
        let mut rows = rows_of(&[(1, 1), (1, 2)], FileId(99));
        rows.extend(rows_of(&[(2, 8)], MOUNT));
        for (mount, lsn) in [(1, 3), (1, 7), (99, 1)] {
            rows.insert(horizon_key(TREE, FileId(mount)).at(Lsn(lsn)), rows::encode(&()));
        }
        for page in [1, 2, 3, 100] {
            let mut rows = rows.clone();
            sweep(&mut rows, page, &kept(9, 1_000, 7), 10);
            let left: Vec<_> = rows.keys().map(|key| parts_of(key).unwrap()).collect();
            let row = Parts::Row(inode_key(TREE, FileId(2)), Lsn(8));
            assert_eq!(left, [Parts::Horizon(MOUNT, Lsn(7)), row], "pages of {page}");
        }
    }
}
