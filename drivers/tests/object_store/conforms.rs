//! Each driver passes its suite.

use std::sync::Arc;

use nexus_drivers::cas::Cas;
use nexus_drivers::memory::MemoryTransport;
use nexus_kernel::hal::conformance::object_store::{content, path};
use nexus_kernel::hal::{BlobInfo, StoreFuture, Transport};
use nexus_messages::syscall::ByteRange;

use super::subjects::{cas_local, cas_packs, damage_in, damage_on, damage_packed, memory_paths, path_local};

/// A transport that outlives the store on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<MemoryTransport>);

impl Transport for Shared {
    fn put<'a>(&'a self, key: &'a str, data: &'a [bytes::Bytes]) -> StoreFuture<'a, ()> {
        self.0.put(key, data)
    }

    fn get<'a>(&'a self, key: &'a str, range: ByteRange) -> StoreFuture<'a, bytes::Bytes> {
        self.0.get(key, range)
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<BlobInfo>> {
        self.0.head(key)
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.0.delete(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<String>> {
        self.0.list(prefix, after, limit)
    }
}

#[test]
fn content_in_memory_conforms() {
    let make = || {
        let transport = Shared::default();
        let (reopened, damaged) = (transport.clone(), transport.clone());
        content::Subject::new(Cas::new(transport))
            .reopen(move |_| Arc::new(Cas::new(reopened.clone())))
            .damage(move |id, how| damage_on(&damaged.0, id, how))
    };
    content::check(&make).assert_passed();
}

#[test]
fn content_on_the_local_disk_conforms() {
    let make = || {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let (reopened, damaged) = (folder.clone(), folder.clone());
        content::Subject::new(cas_local(folder.path()))
            .reopen(move |store| {
                drop(store);
                Arc::new(cas_local(reopened.path()))
            })
            .damage(move |id, how| damage_in(damaged.path(), id, how))
    };
    content::check(&make).assert_passed();
}

#[test]
fn packed_content_on_the_local_disk_conforms() {
    let make = || {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let (reopened, damaged) = (folder.clone(), folder.clone());
        content::Subject::new(cas_packs(folder.path()))
            .reopen(move |store| {
                drop(store);
                Arc::new(cas_packs(reopened.path()))
            })
            .damage(move |id, how| damage_packed(damaged.path(), id, how))
    };
    content::check(&make).assert_passed();
}

#[test]
fn paths_in_memory_conform() {
    path::check(&|| path::Subject::new(memory_paths())).assert_passed();
}

#[test]
fn an_existing_folder_conforms() {
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        path::Subject::new(path_local(folder.path())).reopen(move |store| {
            drop(store);
            Arc::new(path_local(folder.path()))
        })
    };
    path::check(&make).assert_passed();
}
