//! The suite of path-addressed stores rejects those that are wrong in one way each.

use bytes::Bytes;
use nexus_drivers::memory::MemoryPaths;
use nexus_kernel::hal::conformance::object_store::path::{Subject, check};
use nexus_kernel::hal::{
    Addressing, ListPage, ObjectInfo, ObjectStore, PathCapabilities, PathStore, PathWrite, StoreFuture,
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
    /// The tag is that of the path, whatever it holds.
    TagOfThePath,
    /// Permissions are told as set, and are not.
    ForgetsMode,
}

#[derive(Debug)]
struct Broken {
    paths: MemoryPaths,
    fault: Fault,
}

fn reject(fault: Fault, claim: &str) {
    check(&|| Subject::new(Broken { paths: memory_paths(), fault })).assert_rejected_by(claim);
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
            (Fault::ExclusiveReplaces, PathWrite::Exclusive) => PathWrite::Whole,
            (Fault::WriteAtTruncates, PathWrite::At { offset, .. }) => {
                PathWrite::At { offset, truncate: true }
            }
            (_, how) => how,
        };
        Box::pin(async move {
            Ok(self.told(path, self.paths.write(&self.resolved(path).await, data, how, attributes).await?))
        })
    }

    fn delete<'a>(&'a self, path: &'a str) -> StoreFuture<'a, ()> {
        self.paths.delete(path)
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
