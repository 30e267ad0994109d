//! Many calls at once: one result for each, in the order in which they were given.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nexus_messages::syscall::{Unlinked, Written};
use nexus_messages::{FileMetadata, IntoPath, Op, Result, VPath};

use crate::handle::{Nexus, path};

/// How many items of a batch are under way at once.
const CONCURRENT_MAX: usize = 64;

impl Nexus {
    /// Writes many files; each as [`write`](Self::write), with a result of its own. They share fsyncs. Items whose paths are the same, or lie one below the
    /// other, are written in the order in which they are given; the others in any order.
    pub async fn write_batch<P: IntoPath, D: Into<Bytes>>(
        &self,
        files: impl IntoIterator<Item = (P, D)>,
    ) -> Vec<Result<Written>> {
        let (paths, mut data): (Vec<_>, Vec<Option<Bytes>>) =
            files.into_iter().map(|(at, data)| (path(Op::Write, at), Some(data.into()))).unzip();
        self.in_chains(paths, |index, at| self.write(at, data[index].take().unwrap_or_default())).await
    }

    /// Reads many files; each as [`read`](Self::read), with a result of its own.
    pub async fn read_batch<P: IntoPath>(&self, files: impl IntoIterator<Item = P>) -> Vec<Result<Bytes>> {
        let paths = files.into_iter().map(|at| path(Op::Read, at)).collect();
        self.at_once(paths, |at| self.read(at)).await
    }

    /// Looks at many entries; each as [`stat`](Self::stat), with a result of its own.
    pub async fn stat_batch<P: IntoPath>(
        &self,
        entries: impl IntoIterator<Item = P>,
    ) -> Vec<Result<Arc<FileMetadata>>> {
        let paths = entries.into_iter().map(|at| path(Op::Stat, at)).collect();
        self.at_once(paths, |at| self.stat(at)).await
    }

    /// Removes many files; each as [`unlink`](Self::unlink), with a result of its own. In order as in [`write_batch`](Self::write_batch).
    pub async fn unlink_batch<P: IntoPath>(
        &self,
        files: impl IntoIterator<Item = P>,
    ) -> Vec<Result<Unlinked>> {
        let paths = files.into_iter().map(|at| path(Op::Unlink, at)).collect();
        self.in_chains(paths, |_, at| self.unlink(at)).await
    }

    async fn at_once<T, F: Future<Output = Result<T>>>(
        &self,
        paths: Vec<Result<VPath>>,
        call: impl Fn(VPath) -> F,
    ) -> Vec<Result<T>> {
        let call = &call;
        let calls = paths.into_iter().map(|at| async move { call(at?).await });
        futures_util::stream::iter(calls).buffered(CONCURRENT_MAX).collect().await
    }

    /// Makes the calls whose paths have nothing to do with each other at once, the others one after the other.
    async fn in_chains<T, F: Future<Output = Result<T>>>(
        &self,
        paths: Vec<Result<VPath>>,
        mut call: impl FnMut(usize, VPath) -> F,
    ) -> Vec<Result<T>> {
        let mut results: BTreeMap<usize, Result<T>> = BTreeMap::new();
        let mut calls = BTreeMap::new();
        let mut known = Vec::new();
        for (index, at) in paths.into_iter().enumerate() {
            match at {
                Ok(at) => {
                    known.push((index, at.clone()));
                    calls.insert(index, call(index, at));
                }
                Err(error) => {
                    results.insert(index, Err(error));
                }
            }
        }
        let mut chains = chains(&known).into_iter().map(|chain| {
            let calls: Vec<_> =
                chain.into_iter().filter_map(|index| Some((index, calls.remove(&index)?))).collect();
            async move {
                let mut done = Vec::with_capacity(calls.len());
                for (index, call) in calls {
                    done.push((index, call.await));
                }
                done
            }
        });
        let mut running: FuturesUnordered<_> = chains.by_ref().take(CONCURRENT_MAX).collect();
        while let Some(done) = running.next().await {
            results.extend(done);
            running.extend(chains.next());
        }
        results.into_values().collect()
    }
}

/// The indices of paths that are the same or lie one below the other, together and in their order.
fn chains(paths: &[(usize, VPath)]) -> Vec<Vec<usize>> {
    let mut sorted: Vec<_> = paths.iter().collect();
    // By components: so what lies below a path comes right after it.
    sorted.sort_by(|(_, a), (_, b)| a.components().cmp(b.components()));
    let mut chains: Vec<(&VPath, Vec<usize>)> = Vec::new();
    for (index, path) in sorted {
        match chains.last_mut() {
            Some((top, chain)) if path.is_within(top) => chain.push(*index),
            _ => chains.push((path, vec![*index])),
        }
    }
    let ordered = chains.into_iter().map(|(_, mut chain)| {
        chain.sort_unstable();
        chain
    });
    ordered.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(texts: &[&str]) -> Vec<(usize, VPath)> {
        texts.iter().map(|text| VPath::parse(text).unwrap()).enumerate().collect()
    }

    fn check(texts: &[&str], expected: &[&[usize]]) {
        assert_eq!(chains(&paths(texts)), expected, "{texts:?}");
    }

    #[test]
    fn what_lies_below_a_path_waits_for_it() {
        check(&["/b", "/a"], &[&[1], &[0]]);
        check(&["/a/b", "/a", "/a/b"], &[&[0, 1, 2]]);
        // A name that begins alike does not come between a path and what lies below it.
        check(&["/a/b", "/a-b", "/a"], &[&[0, 2], &[1]]);
    }

    proptest! {
        #[test]
        fn two_items_share_a_chain_just_when_their_paths_meet(
            texts in prop::collection::vec("(/[ab-]{1,2}){1,3}", 0..12)
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let paths = paths(&texts);
            // The naive model: merge whatever meets until nothing changes.
            let mut group: Vec<usize> = (0..paths.len()).collect();
            for _ in 0..paths.len() {
                for (i, a) in &paths {
                    for (j, b) in &paths {
                        if a.is_within(b) || b.is_within(a) {
                            let low = group[*i].min(group[*j]);
                            group[*i] = low;
                            group[*j] = low;
                        }
                    }
                }
            }
            let found = chains(&paths);
            prop_assert_eq!(found.iter().map(Vec::len).sum::<usize>(), paths.len());
            for chain in &found {
                prop_assert!(chain.is_sorted());
                prop_assert!(chain.iter().all(|index| group[*index] == group[chain[0]]));
            }
            let groups: std::collections::BTreeSet<usize> = group.into_iter().collect();
            prop_assert_eq!(found.len(), groups.len());
        }
    }
}
