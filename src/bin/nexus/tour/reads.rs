//! Reading: everything once against the original, then the warm part of it as often as it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use nexus::syscall::{SysRead, SysReaddir, SysWrite};
use nexus::{EntryType, VPath};
use nexus_actors::block_on;
use serde_json::json;

use super::Tour;
use super::source::Source;
use crate::failure::{Failure, Outcome};
use crate::listing::Pages;
use crate::session::Session;

/// For how long warm files are read.
const WARM_FOR: Duration = Duration::from_millis(1_500);

/// How much is read warm at most: it has to stay in the content cache.
const WARM_BYTES_MAX: u64 = 16 << 20;

/// What is read when no file of the tree stays in the cache.
const OWN: &str = "read while all else goes on\n";

/// Reads between two looks at the clock.
const BURST: usize = 64;

/// Files that are compared at once.
const COMPARED_AT_ONCE: usize = 16;

/// A file of the imported tree.
#[derive(Debug, Clone)]
pub(super) struct Imported {
    pub(super) path: VPath,
    /// Below the source, and below the tree.
    pub(super) relative: String,
    pub(super) size: u64,
}

impl Tour<'_> {
    /// Compares every file with its original, byte for byte.
    pub(super) async fn read_back(
        &self,
        session: &Session,
        source: &Source,
        tree: &VPath,
    ) -> Outcome<Vec<Imported>> {
        let begun = self.env.now();
        let mut files = Vec::new();
        let mut pages = Pages::new(&session.nx, SysReaddir::at(tree).recursive().with_metadata());
        while let Some(entries) = pages.next().await? {
            files.extend(entries.into_iter().filter(|entry| entry.entry_type == EntryType::Reg).map(
                |entry| {
                    let relative = entry.path.relative_to(tree).unwrap_or_default().to_owned();
                    let size = entry.metadata.as_ref().map_or(0, |metadata| metadata.size);
                    Imported { path: entry.path, relative, size }
                },
            ));
        }
        let bytes = AtomicU64::new(0);
        let changed = AtomicU64::new(0);
        let comparing = stream::iter(&files).map(Ok).try_for_each_concurrent(COMPARED_AT_ONCE, |file| {
            let (bytes, changed) = (&bytes, &changed);
            async move {
                let kept = session.nx.send(SysRead::at(&file.path)).await?.data;
                bytes.fetch_add(kept.len() as u64, Ordering::Relaxed);
                let host = source.folder.join(&file.relative);
                match std::fs::read(&host) {
                    Ok(original) if *original == *kept => Ok(()),
                    // Somebody works in the folder just now.
                    _ if modified_since(&host, begun, &self.env) => {
                        changed.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    }
                    Ok(_) => Err(Failure::claim("tour", format!("{} is not what was imported", file.path))),
                    Err(error) => Err(Failure::host("tour", &host, error)),
                }
            }
        });
        Box::pin(comparing).await?;
        let (bytes, changed) = (bytes.into_inner(), changed.into_inner());
        let mut says = format!(
            "{} files, {:.1} MB, are byte for byte what they are on the host",
            files.len(),
            bytes as f64 / 1e6
        );
        if changed > 0 {
            says.push_str(&format!(" ({changed} changed there meanwhile)"));
        }
        let measured = json!({ "files": files.len(), "bytes": bytes, "changed_meanwhile": changed });
        self.step("compare", begun, says, measured)?;
        Ok(files)
    }

    /// What is read warm: of `files` what stays in the cache, and when nothing does, a file of the tour's own.
    pub(super) async fn choose_warm(
        &self,
        session: &Session,
        files: &[Imported],
    ) -> Outcome<Arc<[Imported]>> {
        let fitting = warm(files);
        if !fitting.is_empty() {
            return Ok(fitting);
        }
        let path = self.below("warm")?;
        session.nx.send(SysWrite::at(&path, OWN).create()).await?;
        session.nx.send(SysRead::at(&path)).await?;
        Ok([Imported { path, relative: String::new(), size: OWN.len() as u64 }].into())
    }

    /// Reads files that are in the caches, on all processors.
    pub(super) async fn read_warm(&self, session: &Arc<Session>, warm: &Arc<[Imported]>) -> Outcome {
        let begun = self.env.now();
        let readers = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = session.env().pool("tour-read", readers, readers);
        let until = self.env.now() + WARM_FOR;
        let reading = (0..readers).map(|reader| {
            let (session, warm, env) = (session.clone(), warm.clone(), self.env.clone());
            pool.run(move || {
                let mut done = (0_u64, 0_u64);
                let mut next = reader * warm.len() / readers;
                while env.now() < until {
                    for _ in 0..BURST {
                        let file = &warm[next % warm.len()];
                        next += 1;
                        let read = block_on(session.nx.send(SysRead::at(&file.path)))?;
                        if read.data.len() as u64 != file.size {
                            return Err(Failure::claim("tour", format!("{} was read short", file.path)));
                        }
                        done = (done.0 + 1, done.1 + file.size);
                    }
                }
                Ok(done)
            })
        });
        let read = futures_util::future::try_join_all(reading).await;
        let read = read.map_err(|error| Failure::claim("tour", error))?;
        let read: Vec<(u64, u64)> = read.into_iter().collect::<Outcome<_>>()?;
        let (reads, bytes) = read.iter().fold((0, 0), |sum, done| (sum.0 + done.0, sum.1 + done.1));
        if reads == 0 {
            return Err(Failure::claim("tour", format!("nothing was read within {WARM_FOR:?}")));
        }
        let seconds = self.env.now().duration_since(begun).as_secs_f64();
        let says = format!(
            "{reads} warm reads of {} files by {readers} readers: {:.0} a second, {:.2} µs each, {:.2} GB/s handed out",
            warm.len(),
            reads as f64 / seconds,
            seconds * 1e6 * readers as f64 / reads as f64,
            bytes as f64 / seconds / 1e9,
        );
        self.step(
            "read",
            begun,
            says,
            json!({ "reads": reads, "bytes": bytes, "readers": readers, "files": warm.len() }),
        )
    }
}

/// The files that fit into the cache together, the first ones first.
fn warm(files: &[Imported]) -> Arc<[Imported]> {
    let mut left = WARM_BYTES_MAX;
    let fitting = files.iter().filter(|file| match left.checked_sub(file.size) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    fitting.cloned().collect()
}

/// Whether the host's file changed, or went, after the tour looked at it first.
fn modified_since(host: &std::path::Path, begun: std::time::Instant, env: &nexus_actors::Env) -> bool {
    let ago = env.now().duration_since(begun) + SLACK;
    let now = nexus::Timestamp(env.wall());
    match std::fs::symlink_metadata(host).and_then(|metadata| metadata.modified()) {
        Ok(modified) => nexus::Timestamp::from(modified).after(ago) > now,
        Err(_) => true,
    }
}

/// How long an import may have taken before the comparison began.
const SLACK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_fit_keeps_none_out_that_does() {
        let file = |size| Imported { path: VPath::root(), relative: String::new(), size };
        let check = |sizes: &[u64], expected: &[u64]| {
            let files: Vec<_> = sizes.iter().copied().map(file).collect();
            let sizes: Vec<_> = warm(&files).iter().map(|file| file.size).collect();
            assert_eq!(sizes, expected);
        };
        let max = WARM_BYTES_MAX;
        check(&[max + 1, 3, 0], &[3, 0]);
        check(&[3, max, 4, u64::MAX, max - 7, 1], &[3, 4, max - 7]);
        check(&[max + 1], &[]);
    }
}
