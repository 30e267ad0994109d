//! The suite of content-addressed stores rejects those that are wrong in one way each.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nexus_drivers::cas::Cas;
use nexus_drivers::memory::MemoryTransport;
use nexus_kernel::hal::conformance::object_store::content::{Subject, check};
use nexus_kernel::hal::{Addressing, ContentStore, ObjectStore, StoreFuture, Transport};
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;

use super::conforms::Shared;
use super::subjects::damage_on;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// Content is returned as it is found.
    Unverified,
    /// Content is verified only where it was asked for as a whole.
    RangesUnverified,
    /// A range ends one byte late.
    RangeTooLong,
    /// Opening the store again finds it empty.
    ForgetsOnReopen,
    /// What is there by name counts as written, whatever it holds.
    BelievesNames,
    /// Deleting leaves the content.
    KeepsDeleted,
    /// What was written once counts as there for ever.
    BelievesItself,
    /// Content is told to be longer than it is.
    MeasuresWrong,
    /// A listing does not go on where it ended.
    ListsFromTheStart,
    /// A listing is in no order.
    ListsUnordered,
    /// Contents that are asked for together come in another order.
    ReadsUnordered,
    /// Contents that are asked for together are returned as they are found.
    ManyUnverified,
    /// An examination goes by what was verified before.
    ExaminesFromMemory,
}

#[derive(Debug)]
struct Broken {
    cas: Cas<Shared>,
    transport: Shared,
    fault: Fault,
    written: Mutex<BTreeSet<String>>,
}

fn reject(fault: Fault, claim: &str) {
    let make = move || {
        let transport = Shared::default();
        let (reopened, damaged) = (transport.clone(), transport.clone());
        let open = move |transport: Shared| {
            let (cas, written) = (Cas::new(transport.clone()), Mutex::default());
            Broken { cas, transport, fault, written }
        };
        Subject::new(open(transport))
            .reopen(move |_| match fault {
                Fault::ForgetsOnReopen => Arc::new(open(Shared(Arc::new(MemoryTransport::new())))),
                _ => Arc::new(open(reopened.clone())),
            })
            .damage(move |id, how| damage_on(&damaged.0, id, how))
    };
    check(&make).assert_rejected_by(claim);
}

#[test]
fn a_store_that_returns_unverified_bytes_is_rejected() {
    reject(Fault::Unverified, "damaged_content_is_told_and_never_returned");
}

#[test]
fn a_store_that_verifies_no_ranges_is_rejected() {
    reject(Fault::RangesUnverified, "damaged_content_is_told_and_never_returned");
}

#[test]
fn a_store_whose_ranges_are_off_by_one_is_rejected() {
    reject(Fault::RangeTooLong, "ranges_are_exact");
}

#[test]
fn a_store_that_forgets_when_it_is_opened_again_is_rejected() {
    reject(Fault::ForgetsOnReopen, "content_survives_reopening");
}

#[test]
fn a_store_that_believes_names_is_rejected() {
    reject(Fault::BelievesNames, "damage_is_found_after_reopening");
}

#[test]
fn a_store_that_counts_what_it_once_wrote_as_there_is_rejected() {
    reject(Fault::BelievesItself, "deleted_content_is_gone_and_can_come_back");
}

#[test]
fn a_store_that_measures_wrong_is_rejected() {
    reject(Fault::MeasuresWrong, "content_has_the_length_that_was_written");
}

#[test]
fn a_store_whose_listing_begins_anew_is_rejected() {
    reject(Fault::ListsFromTheStart, "contents_are_listed_once_and_in_order");
}

#[test]
fn a_store_whose_listing_has_no_order_is_rejected() {
    reject(Fault::ListsUnordered, "contents_are_listed_once_and_in_order");
}

#[test]
fn a_store_that_mixes_up_what_was_asked_for_together_is_rejected() {
    reject(Fault::ReadsUnordered, "several_contents_are_read_in_their_order");
}

#[test]
fn a_store_that_verifies_nothing_that_was_asked_for_together_is_rejected() {
    reject(Fault::ManyUnverified, "several_contents_are_read_in_their_order");
}

#[test]
fn a_store_that_examines_from_memory_is_rejected() {
    reject(Fault::ExaminesFromMemory, "an_examination_counts_nothing_from_before");
}

#[test]
fn a_store_that_keeps_what_was_deleted_is_rejected() {
    reject(Fault::KeepsDeleted, "deleted_content_is_gone_and_can_come_back");
}

impl ObjectStore for Broken {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Content(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.cas.probe()
    }
}

impl ContentStore for Broken {
    fn write<'a>(&'a self, id: &'a ContentId, data: &'a [Bytes]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let key = Cas::<Shared>::key(id)?;
            if self.fault == Fault::BelievesNames && self.transport.head(&key).await?.is_some() {
                return Ok(());
            }
            if self.fault == Fault::BelievesItself && !self.written.lock().unwrap().insert(key) {
                return Ok(());
            }
            self.cas.write(id, data).await
        })
    }

    fn read<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        Box::pin(async move {
            let key = Cas::<Shared>::key(id)?;
            match self.fault {
                Fault::Unverified => self.transport.get(&key, range).await,
                Fault::RangesUnverified if range != ByteRange::ALL => self.transport.get(&key, range).await,
                Fault::RangeTooLong => {
                    let count = range.count.map(|count| count.saturating_add(1));
                    self.cas.read(id, ByteRange { count, ..range }).await
                }
                _ => self.cas.read(id, range).await,
            }
        })
    }

    fn read_many<'a>(&'a self, ids: &'a [ContentId]) -> StoreFuture<'a, Vec<Bytes>> {
        Box::pin(async move {
            if self.fault == Fault::ManyUnverified {
                let keys: Vec<_> = ids.iter().map(Cas::<Shared>::key).collect::<Result<_, _>>()?;
                return self.transport.get_many(&keys).await?.into_iter().collect();
            }
            let mut contents = self.cas.read_many(ids).await?;
            if self.fault == Fault::ReadsUnordered {
                contents.reverse();
            }
            Ok(contents)
        })
    }

    fn examine<'a>(&'a self, id: &'a ContentId, range: ByteRange) -> StoreFuture<'a, Bytes> {
        match self.fault {
            Fault::ExaminesFromMemory => self.cas.read(id, range),
            _ => self.cas.examine(id, range),
        }
    }

    fn contains<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, bool> {
        self.cas.contains(id)
    }

    fn delete<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, ()> {
        match self.fault {
            Fault::KeepsDeleted => Box::pin(std::future::ready(Ok(()))),
            _ => self.cas.delete(id),
        }
    }

    fn length<'a>(&'a self, id: &'a ContentId) -> StoreFuture<'a, Option<u64>> {
        Box::pin(async move {
            let length = self.cas.length(id).await?;
            Ok(length.map(|length| length + u64::from(self.fault == Fault::MeasuresWrong)))
        })
    }

    fn list<'a>(&'a self, after: Option<&'a ContentId>, limit: usize) -> StoreFuture<'a, Vec<ContentId>> {
        Box::pin(async move {
            let mut ids = self.cas.list(after, limit).await?;
            match self.fault {
                Fault::ListsFromTheStart if after.is_some() => return self.cas.list(None, limit).await,
                Fault::ListsUnordered => ids.reverse(),
                _ => {}
            }
            Ok(ids)
        })
    }
}
