//! The suite of path-addressed stores rejects those that are wrong in one way each.

use std::sync::Arc;

use bytes::Bytes;
use nexus_drivers::memory::MemoryPaths;
use nexus_kernel::hal::conformance::object_store::path::{Subject, check};
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathUpload, PathWrite,
    StoreError, StoreFuture,
};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ContentId, EntryType};

use super::subjects::memory_paths;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// An exclusive write replaces what is there.
    ExclusiveReplaces,
    /// A link is followed when something lies behind it.
    FollowsLinks,
    /// A range begins one byte late.
    RangeOffByOne,
    /// A listing leaves out the name at its limit when it goes on.
    ListingSkips,
    /// A write in the middle ends the content.
    WriteAtTruncates,
    /// What is appended goes over what is there.
    AppendsOver,
    /// The tag is that of the path, whatever it holds.
    TagOfThePath,
    /// Permissions are told as set, and are not.
    ForgetsMode,
    /// A write of one state replaces any.
    MatchesAnything,
    /// An upload is seen as far as it has come.
    UploadIsSeenEarly,
    /// An upload that is dropped is finished.
    UploadEndsWhenDropped,
    /// An upload finishes whatever its condition says.
    UploadReplacesAnything,
    /// Of many paths to be deleted it takes those for one that differ by spaces.
    TrimsWhatIsDeleted,
}

#[derive(Debug)]
struct Broken {
    paths: Arc<MemoryPaths>,
    fault: Fault,
}

fn reject(fault: Fault, claim: &str) {
    check(&|| Subject::new(Broken { paths: Arc::new(memory_paths()), fault })).assert_rejected_by(claim);
}

#[test]
fn a_store_whose_exclusive_write_replaces_is_rejected() {
    reject(Fault::ExclusiveReplaces, "an_exclusive_write_replaces_nothing");
}

#[test]
fn a_store_that_follows_links_is_rejected() {
    reject(Fault::FollowsLinks, "links_are_never_followed");
}

#[test]
fn a_store_whose_ranges_are_off_by_one_is_rejected() {
    reject(Fault::RangeOffByOne, "ranges_are_exact");
}

#[test]
fn a_store_whose_listing_skips_a_name_is_rejected() {
    reject(Fault::ListingSkips, "listings_stop_at_their_limit_and_go_on_after_it");
}

#[test]
fn a_store_that_appends_over_what_is_there_is_rejected() {
    reject(Fault::AppendsOver, "a_write_in_the_middle_keeps_the_rest");
}

#[test]
fn a_store_that_truncates_where_it_should_not_is_rejected() {
    reject(Fault::WriteAtTruncates, "a_write_in_the_middle_keeps_the_rest");
}

#[test]
fn a_store_whose_tag_stays_is_rejected() {
    reject(Fault::TagOfThePath, "the_tag_changes_with_the_content");
}

#[test]
fn a_store_that_forgets_permissions_is_rejected() {
    reject(Fault::ForgetsMode, "attributes_are_kept");
}

#[test]
fn a_store_whose_write_of_one_state_replaces_any_is_rejected() {
    reject(Fault::MatchesAnything, "a_write_of_one_state_replaces_no_other");
}

#[test]
fn a_store_that_shows_an_upload_early_is_rejected() {
    reject(Fault::UploadIsSeenEarly, "an_upload_is_seen_when_it_is_finished");
}

#[test]
fn a_store_that_finishes_an_upload_that_is_dropped_is_rejected() {
    reject(Fault::UploadEndsWhenDropped, "an_upload_that_is_dropped_changes_nothing");
}

#[test]
fn a_store_whose_uploads_replace_anything_is_rejected() {
    reject(Fault::UploadReplacesAnything, "an_upload_keeps_to_its_condition");
}

#[test]
fn a_store_that_deletes_others_than_it_is_told_to_is_rejected() {
    reject(Fault::TrimsWhatIsDeleted, "deleting_several_files_removes_those_and_no_others");
}

impl Broken {
    fn told(&self, path: &str, mut info: ObjectInfo) -> ObjectInfo {
        if self.fault == Fault::TagOfThePath {
            info.tag = ContentId::Tag(path.into());
        }
        if self.fault == Fault::ForgetsMode {
            info.mode = info.entry_type.default_mode();
        }
        info
    }

    /// Where `path` leads when links in it are followed.
    async fn resolved(&self, path: &str) -> String {
        let mut at = String::new();
        for name in path.split('/') {
            at = if at.is_empty() { name.into() } else { format!("{at}/{name}") };
            if self.fault != Fault::FollowsLinks || at == path {
                continue;
            }
            if let Ok(info) = self.paths.stat(&at).await
                && info.entry_type == EntryType::Link
            {
                at = info.link_target.as_deref().unwrap_or_default().into();
            }
        }
        at
    }
}

impl ObjectStore for Broken {
    fn addressing(&self) -> Addressing<'_> {
        Addressing::Path(self)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.paths.probe()
    }
}

impl PathStore for Broken {
    fn capabilities(&self) -> PathCapabilities {
        self.paths.capabilities()
    }

    fn stat<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { Ok(self.told(path, self.paths.stat(&self.resolved(path).await).await?)) })
    }

    fn read<'a>(&'a self, path: &'a str, mut range: ByteRange) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        if self.fault == Fault::RangeOffByOne && range.offset > 0 {
            range.offset += 1;
        }
        Box::pin(async move {
            let (bytes, info) = self.paths.read(&self.resolved(path).await, range).await?;
            Ok((bytes, self.told(path, info)))
        })
    }

    fn write<'a>(
        &'a self,
        path: &'a str,
        data: &'a [Bytes],
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let how = match (self.fault, how) {
            (Fault::ExclusiveReplaces, PathWrite::Exclusive)
            | (Fault::MatchesAnything, PathWrite::IfMatch(_)) => PathWrite::Whole,
            (Fault::WriteAtTruncates, PathWrite::At { offset, .. }) => {
                PathWrite::At { offset, truncate: true }
            }
            (Fault::AppendsOver, PathWrite::Append) => PathWrite::At { offset: 0, truncate: false },
            (_, how) => how,
        };
        Box::pin(async move {
            Ok(self.told(path, self.paths.write(&self.resolved(path).await, data, how, attributes).await?))
        })
    }

    fn upload<'a>(&'a self, path: &'a str) -> StoreFuture<'a, Box<dyn PathUpload>> {
        Box::pin(async move {
            let path = self.resolved(path).await;
            let inner = Some(self.paths.upload(&path).await?);
            let (paths, fault) = (self.paths.clone(), self.fault);
            Ok(Box::new(BrokenUpload { inner, paths, path, pushed: Vec::new(), fault })
                as Box<dyn PathUpload>)
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        self.paths.delete(path)
    }

    fn delete_many<'a>(&'a self, paths: &'a [String]) -> StoreFuture<'a, Vec<Result<(), StoreError>>> {
        Box::pin(async move {
            let is_broken = self.fault == Fault::TrimsWhatIsDeleted;
            let told = paths.iter().map(|path| if is_broken { path.trim() } else { path });
            self.paths.delete_many(&told.map(str::to_owned).collect::<Vec<_>>()).await
        })
    }

    fn list<'a>(&'a self, path: &'a str, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, ListPage> {
        Box::pin(async move {
            let mut page = self.paths.list(path, after, limit).await?;
            if self.fault == Fault::ListingSkips && after.is_some() && !page.entries.is_empty() {
                page.entries.remove(0);
            }
            for (_, info) in &mut page.entries {
                *info = self.told(path, info.clone());
            }
            Ok(page)
        })
    }

    fn make_directory<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        Box::pin(async move { Ok(self.told(path, self.paths.make_directory(path, attributes).await?)) })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.paths.rename(from, to)
    }

    fn make_link<'a>(&'a self, path: &'a str, target: &'a str) -> StoreFuture<'a, ObjectInfo> {
        self.paths.make_link(path, target)
    }

    fn set_attributes<'a>(
        &'a self,
        path: &'a str,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        self.paths.set_attributes(path, attributes)
    }
}

#[derive(Debug)]
struct BrokenUpload {
    inner: Option<Box<dyn PathUpload>>,
    paths: Arc<MemoryPaths>,
    path: String,
    pushed: Vec<Bytes>,
    fault: Fault,
}

impl BrokenUpload {
    /// Writes what has come so far past the upload.
    fn write_through(&self) -> StoreFuture<'_, ObjectInfo> {
        Box::pin(async move {
            self.paths.write(&self.path, &self.pushed, PathWrite::Whole, &Attributes::none()).await
        })
    }
}

impl PathUpload for BrokenUpload {
    fn push(&mut self, data: Bytes) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.pushed.push(data.clone());
            if self.fault == Fault::UploadIsSeenEarly {
                self.write_through().await?;
            }
            self.inner.as_mut().expect("it is not finished").push(data).await
        })
    }

    fn finish<'a>(
        mut self: Box<Self>,
        path: &'a str,
        how: PathWrite,
        attributes: &'a Attributes,
    ) -> StoreFuture<'a, ObjectInfo> {
        let how = if self.fault == Fault::UploadReplacesAnything { PathWrite::Whole } else { how };
        let inner = self.inner.take().expect("it is not finished");
        Box::pin(async move { inner.finish(path, how, attributes).await })
    }
}

impl Drop for BrokenUpload {
    fn drop(&mut self) {
        if self.fault == Fault::UploadEndsWhenDropped && self.inner.is_some() {
            nexus_actors::block_on(self.write_through()).expect("it is in memory");
        }
    }
}
