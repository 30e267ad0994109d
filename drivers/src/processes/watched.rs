//! A descriptor of a process, which can be waited for.
#![expect(
    unsafe_code,
    reason = "tokio cannot see that a descriptor stays open for as long as it waits for it"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A descriptor that is ready when its process has ended.
#[derive(Debug)]
pub(super) struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// To be called on the I/O runtime.
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: an owned descriptor is open, closes when it is dropped and not before, and is the same number all the while; it is moved into what waits for it,
        // which gives it to nobody: below it is lent only.
        let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        watched.map(Self).map_err(|error| error.into_parts().1)
    }

    pub(super) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
