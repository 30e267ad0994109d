//! What content addressing promises beside the suite: what is written, and how often.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use nexus_drivers::cas::Cas;
use nexus_drivers::memory::MemoryTransport;
use nexus_kernel::hal::{BlobInfo, ContentStore, StoreError, StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;

use super::subjects::{id_of, wait};

/// Counts what is asked of it, and fails on demand.
#[derive(Debug, Default)]
struct Counting {
    blobs: MemoryTransport,
    puts: AtomicUsize,
    piece_max: AtomicUsize,
    /// A put leaves half of its blob under the final name, and fails.
    tears: AtomicBool,
}

impl Transport for Counting {
    fn put<'a>(&'a self, key: &'a str, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.puts.fetch_add(1, Ordering::SeqCst);
            if self.tears.load(Ordering::SeqCst) {
                self.blobs.put(key, &data[..data.len() / 2]).await?;
                return Err(StoreError::Unknown { what: "put".into(), cause: "injected".into() });
            }
            self.blobs.put(key, data).await
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            let piece = self.blobs.get(key, range).await?;
            self.piece_max.fetch_max(piece.len(), Ordering::SeqCst);
            Ok(piece)
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<BlobInfo>> {
        self.blobs.head(key)
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.blobs.delete(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<String>> {
        self.blobs.list(prefix, after, limit)
    }
}

#[test]
fn identical_content_is_written_once() {
    let cas = Cas::new(Counting::default());
    let id = id_of(b"same");
    for _ in 0..3 {
        wait(cas.write(&id, &[Bytes::from_static(b"same")])).unwrap();
    }
    assert_eq!(cas.transport().puts.load(Ordering::SeqCst), 1);
}

#[test]
fn content_of_another_process_counts_once_it_was_verified() {
    let cas = Cas::new(Counting::default());
    let id = id_of(b"same");
    let key = Cas::<Counting>::key(&id).unwrap();
    wait(cas.transport().blobs.put(&key, &[Bytes::from_static(b"same")])).unwrap();
    wait(cas.write(&id, &[Bytes::from_static(b"same")])).unwrap();
    assert_eq!(cas.transport().puts.load(Ordering::SeqCst), 0);
    assert_eq!(key, format!("cas/{}/{}/{id}", &id.to_string()[..2], &id.to_string()[2..4]));
}

#[test]
fn a_write_that_failed_midway_does_not_count_as_there() {
    let cas = Cas::new(Counting::default());
    let (id, data) = (id_of(b"onetwo"), [Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
    cas.transport().tears.store(true, Ordering::SeqCst);
    assert!(wait(cas.write(&id, &data)).is_err());
    assert!(!wait(cas.contains(&id)).unwrap());
    cas.transport().tears.store(false, Ordering::SeqCst);
    wait(cas.write(&id, &data)).unwrap();
    assert_eq!(wait(cas.read(&id, ByteRange::ALL)).unwrap(), "onetwo");
}

#[test]
fn a_range_of_large_content_is_verified_in_pieces() {
    const PIECE: usize = 1 << 20;
    let cas = Cas::new(Counting::default());
    for len in [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 1] {
        let content: Vec<u8> = (0..len).map(|n| (n / 1_000).to_le_bytes()[0]).collect();
        let id = id_of(&content);
        wait(cas.write(&id, &[content.clone().into()])).unwrap();
        let range = ByteRange::new(PIECE as u64 - 10, 20);
        let (from, to) = range.within(len as u64);
        let got = wait(cas.read(&id, range)).unwrap();
        assert_eq!(got, &content[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()]);
        assert_eq!(wait(cas.examine(&id, ByteRange::ALL)).unwrap(), content);
    }
    assert_eq!(cas.transport().piece_max.load(Ordering::SeqCst), PIECE);
}
