//! What brings what is pending to its store.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use nexus_kernel::hal::{Addressing, ObjectInfo, ObjectStore, StoreError};
use nexus_messages::Attributes;
use nexus_messages::syscall::ByteRange;
use tokio::sync::Notify;

use super::UPLOADING_MAX;
use super::calls::{LATE_MAX, outlive};
use super::mounted::Mounted;
use super::options::Caching;
use super::pending::{Failure, refusal};
use super::place::Place;
use super::table::Piece;
use super::vault::Vault;

/// How long a file waits after its first failure, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// How long one upload may take. The store behind has limits of its own; this one holds when they do not.
const UPLOAD_MAX: Duration = Duration::from_secs(120);

/// For how long, in nanoseconds, it counts that the store was looked at before a file was acknowledged.
pub(super) const LOOKED_MAX: u64 = 10_000_000_000;

/// What is to go to the store next.
#[derive(Debug)]
pub(super) enum Due {
    Nothing,
    /// It has no room beside what is under way.
    TooLarge,
    Upload(Box<Upload>),
}

/// A file that is to go to the store.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) path: String,
    pub(super) info: ObjectInfo,
    pub(super) attributes: Attributes,
    pub(super) pieces: Vec<Piece>,
    /// Whether it was looked a moment ago what is at its path.
    pub(super) looked: bool,
}

/// Brings to `inner` what is pending, for as long as it is mounted.
pub(super) fn begin(inner: &Arc<dyn ObjectStore>, mounted: &Arc<Mounted>, caching: Caching) {
    let (vault, place) = (&mounted.vault, &mounted.place);
    // Another mount of the store may leave something pending that changes here would wait for.
    let may_change = caching.write_back || !inner.read_only() && inner.connector().is_none();
    if !may_change && place.table().pending_files() == 0 {
        return;
    }
    let uploads = Uploads {
        vault: vault.clone(),
        place: place.clone(),
        inner: inner.clone(),
        writes_back: caching.write_back,
        at_once: caching.uploads_max.max(1),
    };
    let (alive, ended) = (Arc::downgrade(mounted), mounted.ended.clone());
    vault.env().spawn("cached.upload", async move {
        uploads.go_on(&alive, &ended).await;
        // What woke this one alone may be for another mount of the store.
        uploads.place.due.notify_one();
    });
}

struct Uploads {
    vault: Arc<Vault>,
    place: Arc<Place>,
    inner: Arc<dyn ObjectStore>,
    /// Whether its mount does. One that does not brings to the store what is left by those that did.
    writes_back: bool,
    /// How many files are on their way at once.
    at_once: usize,
}

impl Uploads {
    /// Sleeps until there is something to do: who waits for nothing costs nothing.
    async fn go_on(&self, alive: &Weak<Mounted>, ended: &Notify) {
        let env = self.vault.env();
        let (mut running, mut under_way) = (FuturesUnordered::new(), 0);
        while alive.strong_count() > 0 {
            let left = self.place.left_alone.notified();
            if !self.writes_back && self.place.writes_back() {
                // What woke this one was for a mount that writes back.
                self.place.due.notify_one();
                let (left, over) = (pin!(left), pin!(ended.notified()));
                let waited = select(left, over);
                if running.is_empty() {
                    waited.await;
                } else if let Either::Left((Some(size), _)) = select(running.next(), waited).await {
                    under_way -= size;
                }
                continue;
            }
            let (due, over) = (pin!(self.place.due.notified()), pin!(ended.notified()));
            let told = select(due, over);
            let now = self.vault.uptime();
            let hands = self.place.pace.lock().hands(now, self.at_once);
            let has_room = loop {
                if running.len() >= hands {
                    break false;
                }
                match self.place.table().take_due(now, UPLOADING_MAX - under_way) {
                    Due::Nothing => break true,
                    Due::TooLarge => break false,
                    Due::Upload(upload) => {
                        let size = upload.info.size;
                        under_way += size;
                        running.push(self.upload(*upload).map(move |()| size));
                    }
                }
            };
            let pause = self.place.pace.lock().waits_until(now);
            let next = match pause {
                Some(until) => Some(until),
                // When all hands are full, the first that is free looks.
                None if !has_room => None,
                None => self.place.table().next_due(),
            };
            let waited = pin!(async {
                match next {
                    Some(at) => drop(env.timeout(Duration::from_nanos(at.saturating_sub(now)), told).await),
                    None => {
                        told.await;
                    }
                }
            });
            if running.is_empty() {
                waited.await;
            } else {
                if let Either::Left((Some(size), _)) = select(running.next(), waited).await {
                    under_way -= size;
                }
            }
        }
    }

    async fn upload(&self, upload: Upload) {
        let mut settle = Settle { vault: &self.vault, place: &self.place, upload: &upload, is_known: false };
        let env = self.vault.env();
        // The kernel around it is not asked here: what panics is caught as it would be there.
        let sending = AssertUnwindSafe(self.send(&upload)).catch_unwind();
        let sent = match env.timeout(UPLOAD_MAX, sending).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) => Err(StoreError::Unknown {
                what: format!("writing {} back", upload.path),
                cause: "the driver panicked".into(),
            }),
            Err(_) => Err(StoreError::Unknown {
                what: format!("writing {} back", upload.path),
                cause: format!("it took longer than {UPLOAD_MAX:?}"),
            }),
        };
        match &sent {
            Ok(()) => self.place.pace.lock().came_through(),
            Err(error) if error.is_backend_failure() => self.place.pace.lock().failed(self.vault.uptime()),
            // It is there, and says no to this file alone.
            Err(error) if refusal(error).is_some() => self.place.pace.lock().came_through(),
            Err(_) => {}
        }
        settle.is_known = sent.as_ref().err().is_none_or(|error| !error.is_unknown());
        if let Err(error) = sent {
            let failure = Failure::of(&error);
            let failures = self.place.table().put_off(&upload.path, &upload.info.tag, failure, |failures| {
                let wait = BACKOFF.0.saturating_mul(1 << failures.min(16)).min(BACKOFF.1);
                // Between a half and all of it, so that not all come at once.
                let half = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX) / 2;
                self.vault.uptime() + half + env.random() % half.max(1)
            });
            self.place.failed.fetch_add(1, Ordering::Relaxed);
            *self.place.last_failure.lock() = Some(format!("{}: {error}", upload.path));
            if failures == 1 {
                tracing::warn!(path = upload.path, %error, "a file cannot be written back, and is tried again");
            }
        }
        drop(settle);
    }

    async fn send(&self, upload: &Upload) -> Result<(), StoreError> {
        let Addressing::Path(store) = self.inner.addressing() else {
            return Err(StoreError::NotSupported { what: "content by its path" });
        };
        let mut data = Vec::with_capacity(upload.pieces.len());
        for piece in &upload.pieces {
            data.push(match piece {
                Piece::Inline(bytes) => bytes.clone(),
                Piece::Blob(blob, _) => self.vault.read(blob, ByteRange::ALL).await?,
            });
        }
        let length: u64 = data.iter().map(|piece| piece.len() as u64).sum();
        if length != upload.info.size {
            return Err(StoreError::Corrupt {
                what: upload.path.clone(),
                found: format!("{length} bytes on the local disk instead of {}", upload.info.size),
            });
        }
        let remote = store.put(&upload.path, &data, &upload.attributes, upload.looked).await?;
        let (path, tag) = (&upload.path, &upload.info.tag);
        // As much content stays as any mount of the store may keep.
        let bytes_max = self.place.bound().unwrap_or(0);
        let with_content = bytes_max > 0;
        let written = {
            let now = self.vault.env().wall();
            let mut table = self.place.table();
            let Some((holds, mut changes, row)) = table.uploaded(path, tag, &remote, now, with_content)?
            else {
                // It is another one by now, which goes there, too.
                return Ok(());
            };
            changes.extend(table.told_with(path, self.vault.uptime()));
            let (place, path, tag) = (self.place.clone(), path.clone(), tag.clone());
            self.vault.enter_and_wait(vec![holds], changes, move |held| {
                if held {
                    place.table().settle_upload(&path, &tag, remote, row, now, with_content);
                }
            })
        };
        written.await?;
        self.place.make_room(&self.vault, bytes_max);
        Ok(())
    }
}

/// Says that nothing is on its way to the path any more, or that it was given up.
struct Settle<'a> {
    vault: &'a Arc<Vault>,
    place: &'a Arc<Place>,
    upload: &'a Upload,
    /// Whether it is known what has become of the attempt: not of one that was dropped with its mount.
    is_known: bool,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        {
            let mut table = self.place.table();
            if !self.is_known {
                let now = self.vault.uptime();
                table.doubt(&self.upload.path, Some(&self.upload.info.tag), now + LATE_MAX);
            }
            table.settle(&self.upload.path);
        }
        if !self.is_known {
            outlive(self.vault, self.place);
        }
        self.place.settled.notify_waiters();
        self.place.due.notify_one();
    }
}
