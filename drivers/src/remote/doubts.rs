//! Keys at which a change may be carried out yet that was given up, or repeated: nobody calls back a request that a server has.
//!
//! What is known of them is kept by where the store is, and outside of its drivers: the kernel replaces one that fails, which is just when something is left open. A change that
//! was under way when the process ended is not known to the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use nexus_actors::Env;
use nexus_messages::syscall::MountSpec;
use object_store::path::Path;
use parking_lot::Mutex;

use crate::late::LATE_MAX;
use crate::turn::Turn;

/// Of how many keys it is known. Beyond that all keys are in doubt.
const DOUBTS_MAX: usize = 4_096;

/// The options that say where a store is: in one bucket, keys are whole, so a prefix makes no other one of it.
const WHERE: [&str; 4] = ["account", "bucket", "container", "endpoint"];

/// What may be carried out at a key yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Other content.
    Written,
    Deleted,
    /// A copy of another key, by its hash.
    CopyOf([u8; 32]),
}

impl Change {
    pub(super) fn copy_of(key: &Path) -> Self {
        Self::CopyOf(*blake3::hash(key.as_ref().as_bytes()).as_bytes())
    }
}

/// What is in doubt in all stores of one driver.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// By the hash of store and key.
    keys: HashMap<[u8; 32], Doubt>,
    /// Until when those are for which there was no room.
    others: Option<Instant>,
}

#[derive(Debug)]
struct Doubt {
    until: Instant,
    /// What it is, unless there is more than one.
    change: Option<Change>,
}

impl Table {
    fn note(&mut self, key: [u8; 32], change: Change, now: Instant) {
        let until = now + LATE_MAX;
        if self.keys.len() >= DOUBTS_MAX {
            self.keys.retain(|_, doubt| doubt.until > now);
        }
        let has_room = self.keys.len() < DOUBTS_MAX;
        match self.keys.get_mut(&key) {
            Some(doubt) => {
                let is_other = doubt.until > now && doubt.change != Some(change);
                *doubt = Doubt { until, change: (!is_other).then_some(change) };
            }
            None if has_room => {
                self.keys.insert(key, Doubt { until, change: Some(change) });
            }
            None => self.others = Some(until),
        }
    }

    fn until(&self, key: &[u8; 32], but: Option<Change>) -> Option<Instant> {
        let doubt = self.keys.get(key).filter(|doubt| but.is_none() || doubt.change != but);
        doubt.map(|doubt| doubt.until).max(self.others)
    }
}

/// What is in doubt in one store.
#[derive(Debug, Clone)]
pub(super) struct OfStore {
    all: Arc<Doubts>,
    store: [u8; 32],
}

impl OfStore {
    /// Those of the store that `spec` names, among `all` of its driver.
    pub(super) fn new(all: Arc<Doubts>, spec: &MountSpec) -> Self {
        let mut hasher = blake3::Hasher::new();
        for option in WHERE {
            let said = spec.options.get(option);
            // With its length before it, so that nothing goes over into what follows.
            let length = said.map_or(u64::MAX, |said| said.len() as u64);
            hasher.update(&length.to_le_bytes()).update(said.map_or(b"", |said| said.as_bytes()));
        }
        Self { all, store: *hasher.finalize().as_bytes() }
    }

    fn key(&self, key: &Path) -> [u8; 32] {
        *blake3::keyed_hash(&self.store, key.as_ref().as_bytes()).as_bytes()
    }

    /// Waits until nothing can be carried out at `key` any more, `but` for what may be.
    pub(super) async fn settled(&self, key: &Path, but: Option<Change>, env: &Env) {
        let key = self.key(key);
        loop {
            let (now, until) = (env.now(), self.all.0.lock().until(&key, but));
            match until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero()) {
                Some(left) => env.sleep(left).await,
                None => return,
            }
        }
    }
}

/// A change on its way to some keys. They are in doubt from its end on, unless it is known to be over, or was not sent.
pub(super) struct OnItsWay {
    pub(super) doubts: OfStore,
    pub(super) keys: Vec<Path>,
    pub(super) change: Change,
    pub(super) env: Env,
    /// Whose it is to send it.
    pub(super) turn: Turn,
    pub(super) is_over: bool,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if self.is_over || self.turn.take() {
            return;
        }
        let (now, mut table) = (self.env.now(), self.doubts.all.0.lock());
        self.keys.iter().for_each(|key| table.note(self.doubts.key(key), self.change, now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_is_in_doubt_for_a_while_and_for_all_but_the_same_change() {
        let (env, _simulation) = Env::seeded(1);
        let (mut table, now, key) = (Table::default(), env.now(), [1; 32]);
        let late = Some(now + LATE_MAX);
        table.note(key, Change::Deleted, now);
        assert_eq!(table.until(&key, None), late);
        assert_eq!(table.until(&key, Some(Change::Written)), late);
        assert_eq!(table.until(&key, Some(Change::Deleted)), None, "done twice it is done once");
        assert_eq!(table.until(&[2; 32], None), None);
        table.note(key, Change::Written, now);
        for but in [Change::Deleted, Change::Written] {
            assert_eq!(table.until(&key, Some(but)), late, "there are two");
        }
        let after = now + LATE_MAX + Duration::from_secs(1);
        table.note(key, Change::Deleted, after);
        assert_eq!(table.until(&key, Some(Change::Deleted)), None, "the others are over");
    }

    #[test]
    fn when_there_is_no_room_all_keys_are_in_doubt_until_there_is() {
        let (env, _simulation) = Env::seeded(1);
        let (mut table, now) = (Table::default(), env.now());
        let key = |nth: usize| *blake3::hash(&nth.to_le_bytes()).as_bytes();
        (0..DOUBTS_MAX).for_each(|nth| table.note(key(nth), Change::Written, now));
        assert_eq!(table.until(&key(DOUBTS_MAX), None), None);
        table.note(key(DOUBTS_MAX), Change::Written, now);
        assert_eq!(table.until(&key(DOUBTS_MAX + 1), None), Some(now + LATE_MAX));
        let after = now + LATE_MAX + Duration::from_secs(1);
        table.note(key(DOUBTS_MAX), Change::Written, after);
        assert_eq!((table.keys.len(), table.until(&key(DOUBTS_MAX), None)), (1, Some(after + LATE_MAX)));
    }

    #[test]
    fn what_is_known_of_a_store_is_by_where_it_is_and_no_driver_takes_it_along() {
        let all: Arc<Doubts> = Arc::default();
        let (env, _simulation) = Env::seeded(1);
        let of = |bucket: &str, prefix: &str| {
            let spec = MountSpec::new("s3").option("bucket", bucket).option("prefix", prefix);
            OfStore::new(all.clone(), &spec)
        };
        let (keys, turn) = (vec![Path::from("k")], Turn::default());
        assert!(turn.take());
        let (doubts, change, is_over) = (of("b", ""), Change::Written, false);
        drop(OnItsWay { doubts, keys: keys.clone(), change, env: env.clone(), turn, is_over });
        let is_in_doubt = |store: &OfStore| all.0.lock().until(&store.key(&keys[0]), None).is_some();
        assert!(is_in_doubt(&of("b", "p")) && !is_in_doubt(&of("c", "")));
        let (doubts, turn) = (of("c", ""), Turn::default());
        drop(OnItsWay { doubts, keys: keys.clone(), change, env, turn, is_over });
        assert!(!is_in_doubt(&of("c", "")), "it was not sent");
    }
}
