//! What packed blobs promise on the real disk: how many share a flush is counted beside the core, on a simulated one.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use futures_util::future::join_all;
use nexus_actors::{Env, HostConfig, block_on};
use nexus_drivers::cas::Cas;
use nexus_drivers::packs::{PACKED_BYTES_MAX, Packs};
use nexus_kernel::hal::conformance::object_store::content::Damage;
use nexus_kernel::hal::{ContentStore, StoreError, Transport};
use nexus_messages::syscall::ByteRange;

use super::subjects::{cas_local, cas_packs, damaged, id_of, packs, pool, wait};

fn blob(n: usize, len: usize) -> Bytes {
    (0..len).map(|at| (at / 3 + n).to_le_bytes()[0]).collect()
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn many_blobs_at_once_share_a_file_and_are_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = packs(folder.path());
    let blobs: Vec<_> = (0..200).map(|n| (format!("k/{n:03}"), [blob(n, n * 50)])).collect();
    block_on(join_all(blobs.iter().map(|(key, data)| store.put(key, data))))
        .into_iter()
        .for_each(|put| put.unwrap());
    drop(store);
    assert!(!folder.path().join("k").exists());
    assert_eq!(files(&folder.path().join("packs")), 2, "a segment, and the lock");
    let store = packs(folder.path());
    for (key, data) in &blobs {
        assert_eq!(wait(store.get(key, ByteRange::ALL)).unwrap(), data[0]);
    }
    assert_eq!(wait(store.list("k/", None, 999)).unwrap().len(), 200);
}

#[test]
fn what_waits_for_the_threads_of_its_mount_is_one_batch() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::host(HostConfig::default()).unwrap();
    let pool = env.pool("test", 1, 1_024);
    let store = block_on(Packs::open(folder.path(), pool.clone(), 1)).unwrap();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let mut busy = Box::pin(pool.run(move || left.recv()));
    let blobs: Vec<_> = (0..64).map(|n| (format!("k/{n:03}"), [blob(n, 32 << 10)])).collect();
    let mut puts = Box::pin(join_all(blobs.iter().map(|(key, data)| store.put(key, data))));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(busy.as_mut().poll(&mut cx).is_pending() && puts.as_mut().poll(&mut cx).is_pending());
    leave.send(()).unwrap();
    assert!(block_on(puts).into_iter().all(|put| put.is_ok()));
    // Each record says up to where all was flushed when its batch was written.
    let segment = fs::read_dir(folder.path().join("packs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "pack"));
    let bytes = fs::read(segment.unwrap()).unwrap();
    let records: Vec<_> = bytes.windows(4).enumerate().filter(|(_, part)| part == b"nxr\x01").collect();
    let flushed: BTreeSet<_> = records.iter().map(|(at, _)| &bytes[at + 12..at + 16]).collect();
    assert_eq!((records.len(), flushed.len()), (64, 1));
    env.stop();
}

#[test]
fn a_folder_is_open_once_in_a_process_and_each_user_sees_what_the_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (packs(folder.path()), packs(&folder.path().join(".")));
    wait(one.put("a", &[blob(1, 10)])).unwrap();
    wait(two.put("b", &[blob(2, 10)])).unwrap();
    assert_eq!(wait(two.get("a", ByteRange::ALL)).unwrap(), blob(1, 10));
    drop(one);
    assert_eq!(wait(two.get("b", ByteRange::ALL)).unwrap(), blob(2, 10));
    drop(two);
    // As another process that has it.
    let lock = fs::File::open(folder.path().join("packs/lock")).unwrap();
    lock.lock().unwrap();
    let refused = block_on(Packs::open(folder.path(), pool(), 1));
    assert!(matches!(refused, Err(StoreError::Locked { .. })), "{refused:?}");
    drop(lock);
    assert_eq!(wait(packs(folder.path()).list("", None, 9)).unwrap(), ["a", "b"]);
}

#[test]
fn a_folder_that_is_closed_and_opened_by_many_at_once_is_never_taken_for_anothers() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::thread::scope(|scope| {
        for n in 0..4 {
            let folder = folder.clone();
            scope.spawn(move || {
                for round in 0..20 {
                    let store = packs(folder.path());
                    wait(store.put(&format!("{n}/{round}"), &[blob(n, 100)])).unwrap();
                }
            });
        }
    });
    assert_eq!(wait(packs(folder.path()).list("", None, 999)).unwrap().len(), 80);
}

#[test]
fn blobs_of_the_layout_before_are_read_listed_replaced_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let old = cas_local(folder.path());
    let contents: Vec<Bytes> = (0..4).map(|n| blob(n, 20_000)).collect();
    for content in &contents {
        wait(old.write(&id_of(content), std::slice::from_ref(content))).unwrap();
    }
    drop(old);
    let store = cas_packs(folder.path());
    let key = |content: &Bytes| Cas::<Packs>::key(&id_of(content)).unwrap();
    for content in &contents {
        let id = id_of(content);
        assert!(wait(store.contains(&id)).unwrap());
        assert_eq!(wait(store.read(&id, ByteRange::new(7, 9))).unwrap(), content.slice(7..16));
        // It is there: nothing is written again.
        wait(store.write(&id, std::slice::from_ref(content))).unwrap();
    }
    let packed = |store: &Cas<Packs>| wait(store.transport().list("cas/", None, 99)).unwrap().len();
    assert_eq!((packed(&store), files(&folder.path().join("packs"))), (4, 1));
    // A damaged one is healed by the identical write, and the packed one counts from then on.
    let file = folder.path().join(key(&contents[0]));
    fs::write(&file, damaged(contents[0].to_vec(), Damage::Altered)).unwrap();
    let id = id_of(&contents[0]);
    assert!(matches!(wait(store.examine(&id, ByteRange::ALL)), Err(StoreError::Corrupt { .. })));
    wait(store.write(&id, &contents[..1])).unwrap();
    assert_eq!(wait(store.read(&id, ByteRange::ALL)).unwrap(), contents[0]);
    for content in &contents {
        wait(store.delete(&id_of(content))).unwrap();
        assert!(!wait(store.contains(&id_of(content))).unwrap());
        assert!(!folder.path().join(key(content)).exists());
    }
    assert!(matches!(wait(store.delete(&id)), Err(StoreError::NotFound { .. })));
    assert_eq!(packed(&store), 0);
}

#[test]
fn a_blob_may_grow_out_of_the_packs_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = packs(folder.path());
    let sizes = [10, PACKED_BYTES_MAX + 1, PACKED_BYTES_MAX, 0, PACKED_BYTES_MAX * 2, 5];
    for (n, size) in sizes.into_iter().enumerate() {
        wait(store.put("k", &[blob(n, size)])).unwrap();
        assert_eq!(wait(store.get("k", ByteRange::ALL)).unwrap(), blob(n, size));
        assert_eq!(wait(store.head("k")).unwrap().map(|info| info.size), Some(size as u64));
        assert_eq!(wait(store.list("", None, 9)).unwrap(), ["k"]);
    }
    wait(store.delete("k")).unwrap();
    assert_eq!(wait(store.head("k")).unwrap(), None, "no earlier one comes to light");
    assert!(matches!(wait(store.get("k", ByteRange::ALL)), Err(StoreError::NotFound { .. })));
}

#[test]
fn reads_and_writes_go_on_while_it_is_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let store = packs(folder.path());
    let put = |n: usize| wait(store.put(&format!("k{n:03}"), &[blob(n, 600_000)])).unwrap();
    (0..240).for_each(put);
    for n in (0..240).filter(|n| n % 4 != 0) {
        wait(store.delete(&format!("k{n:03}"))).unwrap();
    }
    let freed = std::thread::scope(|scope| {
        let compacting = scope.spawn(|| wait(store.compact()).unwrap());
        let mut written = 240;
        while !compacting.is_finished() {
            for n in (0..240).step_by(4).chain(240..written) {
                assert_eq!(wait(store.get(&format!("k{n:03}"), ByteRange::ALL)).unwrap(), blob(n, 600_000));
            }
            put(written);
            written += 1;
        }
        compacting.join().unwrap()
    });
    assert!(freed > 60_000_000, "{freed}");
    drop(store);
    let store = packs(folder.path());
    for n in (0..240).step_by(4) {
        assert_eq!(wait(store.get(&format!("k{n:03}"), ByteRange::ALL)).unwrap(), blob(n, 600_000));
    }
}

#[test]
fn what_is_asked_for_together_comes_from_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = packs(folder.path());
    // The last one has a file of its own.
    let blobs: Vec<_> = [40_000, 1, 0, 300_000, PACKED_BYTES_MAX + 1].map(|len| blob(len, len)).into();
    let keys: Vec<_> = (0..blobs.len()).map(|n| format!("k{n}")).collect();
    for (key, blob) in keys.iter().zip(&blobs) {
        wait(store.put(key, std::slice::from_ref(blob))).unwrap();
    }
    let read = |keys: &[String]| {
        let all: Result<Vec<_>, _> = wait(store.get_many(keys)).unwrap().into_iter().collect();
        all.unwrap()
    };
    assert_eq!(read(&keys[..4]), blobs[..4]);
    assert_eq!(read(&keys), blobs);
    // A part of each call that stays must not change when the memory of others is used again.
    let kept = read(&keys[..4]);
    for _ in 0..20 {
        assert_eq!(read(&keys[3..4]), blobs[3..4]);
    }
    assert_eq!(kept, blobs[..4]);
    let found = wait(store.get_many(&[keys[1].clone(), "nobody".into(), keys[0].clone()])).unwrap();
    assert!(matches!(&found[..], [Ok(_), Err(StoreError::NotFound { .. }), Ok(_)]), "{found:?}");
    wait(store.delete(&keys[0])).unwrap();
    assert!(matches!(wait(store.get_many(&keys[..1])).unwrap()[..], [Err(StoreError::NotFound { .. })]));
}
