//! Answers that are remembered to be asked about again: whether they are still so.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::HeaderMap;

/// The most answers that are remembered.
const ANSWERS_MAX: usize = 1_024;

/// What an answer that is remembered uses beside its body.
const EACH: u64 = 512;

/// An answer with all that matters of it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Answers by their URLs, bounded; those that were not used for the longest time go first. None is given to anybody before the server was asked.
#[derive(Debug)]
pub(super) struct Validated {
    bytes_max: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pages: HashMap<Box<str>, (Arc<Page>, u64)>,
    // Invariant: the sum of what they use.
    bytes: u64,
    turn: u64,
}

impl Validated {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    pub(super) fn get(&self, url: &str) -> Option<Arc<Page>> {
        let mut kept = self.kept.lock();
        kept.turn += 1;
        let turn = kept.turn;
        let (page, used) = kept.pages.get_mut(url)?;
        *used = turn;
        Some(page.clone())
    }

    /// Remembers it, unless it is large beside all that may be.
    pub(super) fn put(&self, url: &str, page: Arc<Page>) {
        self.forget(url);
        let size = size(url, &page);
        if size > self.bytes_max / 2 {
            return;
        }
        let mut kept = self.kept.lock();
        while kept.bytes + size > self.bytes_max || kept.pages.len() >= ANSWERS_MAX {
            let oldest = kept.pages.iter().min_by_key(|(_, (_, used))| *used).map(|(url, _)| url.clone());
            let Some(oldest) = oldest else { return };
            kept.remove(&oldest);
        }
        kept.turn += 1;
        kept.bytes += size;
        let turn = kept.turn;
        kept.pages.insert(url.into(), (page, turn));
    }

    pub(super) fn forget(&self, url: &str) {
        self.kept.lock().remove(url);
    }
}

impl Kept {
    fn remove(&mut self, url: &str) {
        if let Some((page, _)) = self.pages.remove(url) {
            self.bytes -= size(url, &page);
        }
    }
}

fn size(url: &str, page: &Page) -> u64 {
    (url.len() + page.body.len()) as u64 + EACH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(size: usize) -> Arc<Page> {
        Arc::new(Page { headers: HeaderMap::new(), body: vec![0; size].into() })
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let kept = Validated::new(4 * (1_000 + EACH));
        for url in ["a", "b", "c"] {
            kept.put(url, page(1_000));
        }
        assert!(kept.get("a").is_some());
        kept.put("d", page(1_400));
        assert!(kept.get("b").is_none(), "the oldest");
        assert!(["a", "c", "d"].iter().all(|url| kept.get(url).is_some()));
        kept.put("a", page(10));
        assert_eq!(kept.get("a").map(|page| page.body.len()), Some(10));
        kept.put("huge", page(9_000));
        assert!(kept.get("huge").is_none());
        for url in ["a", "c", "d", "huge"] {
            kept.forget(url);
        }
        assert_eq!(kept.kept.lock().bytes, 0);
    }

    #[test]
    fn many_small_answers_are_not_kept_without_end() {
        let kept = Validated::new(1 << 30);
        for nth in 0..ANSWERS_MAX + 10 {
            kept.put(&nth.to_string(), page(0));
        }
        assert_eq!(kept.kept.lock().pages.len(), ANSWERS_MAX);
    }
}
