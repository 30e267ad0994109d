//! This process's ends of a child's descriptors.

use std::io;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use nexus_kernel::hal::{ProcessFuture, ProcessInput, ProcessOutput};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::net::unix::pipe::{Receiver, Sender};

/// How much room is made for what is read before it is known how much that is.
const ROOM_MIN: usize = 4 << 10;

/// Leads to a child's standard input.
#[derive(Debug)]
pub(super) struct Input(Sender);

/// Comes from an output of a child.
#[derive(Debug)]
pub(super) struct Output(Receiver);

impl Input {
    /// To be called on the I/O runtime.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        Sender::from_owned_fd(end).map(Self)
    }
}

impl Output {
    /// To be called on the I/O runtime.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        Receiver::from_owned_fd(end).map(Self)
    }
}

impl ProcessInput for Input {
    fn write(&mut self, mut data: Bytes) -> ProcessFuture<'_, io::Result<()>> {
        Box::pin(async move {
            while !data.is_empty() {
                self.0.writable().await?;
                match self.0.try_write(&data) {
                    Ok(written) => drop(data.split_to(written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    fn closed(&self) -> ProcessFuture<'_, ()> {
        Box::pin(async move {
            // The host says of the writing end that it is in error when no reading end is left. A runtime that has ended is no news.
            let _ = self.0.ready(Interest::ERROR).await;
        })
    }
}

impl ProcessOutput for Output {
    fn read(&self, max: usize) -> ProcessFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            loop {
                self.0.readable().await?;
                let room = self.ready().unwrap_or_default().max(ROOM_MIN).min(max);
                let mut into = BytesMut::with_capacity(room);
                let mut limited = bytes::BufMut::limit(&mut into, room);
                match self.0.try_read_buf(&mut limited) {
                    Ok(_) => return Ok(into.freeze()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn closed(&self) -> ProcessFuture<'_, ()> {
        Box::pin(async move {
            // Nothing urgent ever comes through a pipe: what is waited for is that no writing end is left. A runtime that has ended is no news.
            let _ = self.0.ready(Interest::PRIORITY).await;
        })
    }

    fn is_open(&self) -> io::Result<bool> {
        let mut looked_at = [PollFd::new(&self.0, PollFlags::empty())];
        rustix::io::retry_on_intr(|| poll(&mut looked_at, Some(&Timespec::default())))?;
        Ok(!looked_at[0].revents().contains(PollFlags::HUP))
    }

    fn ready(&self) -> io::Result<usize> {
        let ready = rustix::io::ioctl_fionread(&self.0)?;
        Ok(usize::try_from(ready).unwrap_or(usize::MAX))
    }
}
