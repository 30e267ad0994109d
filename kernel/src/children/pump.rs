//! What carries messages between a child's descriptors and its paths. Each runs as a task of the kernel, and needs no actor.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use nexus_messages::syscall::{IoProfile, StreamSpec, SysSetattr, SysWrite};
use nexus_messages::{Caller, Error, ErrorKind, Framing, VPath};

use super::child::{Count, OpenOutput, Pumping};
use super::framing::Framer;
use crate::hal::{APPEND_BYTES_MAX, APPEND_RECORDS_MAX, ProcessInput, ProcessOutput, RECORD_COST};
use crate::kernel::Kernel;
use crate::syscalls::{PipeReader, PipeWriter};

/// How much of an output is read at once, in bytes.
const CHUNK_MAX: usize = 64 << 10;

/// A pump waits for as long as it takes.
const FOR_EVER: Option<Duration> = Some(Duration::MAX);

/// Carries the messages of a pipe to the child's standard input, until the pipe is at its end, or nobody reads them any more.
pub(super) struct InPump {
    pub(super) pipe: PipeReader,
    pub(super) to: Box<dyn ProcessInput>,
    pub(super) framing: Framing,
}

impl InPump {
    pub(super) async fn run(mut self, pumping: Pumping) {
        if pumping.is_kept().await {
            self.carry(&pumping).await;
        }
        // The pipe is broken, and the input closed, before the pump counts as ended.
        drop(self);
        drop(pumping);
    }

    async fn carry(&mut self, pumping: &Pumping) {
        loop {
            let message = {
                let (next, closed) = (self.pipe.read(FOR_EVER), self.to.closed());
                let next = std::pin::pin!(next);
                let next = select(next, closed);
                match pumping.unless(|stage| stage.exited, next).await {
                    Some(Either::Left((next, _))) => next,
                    _ => return,
                }
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => return told(pumping, &error),
            };
            let (length, data) = (message.len() as u64, self.framed(message));
            let sent = pumping.unless(|stage| stage.exited, self.to.write(data)).await;
            if !matches!(sent, Some(Ok(()))) {
                // As with every pipe: what was on its way to who is gone is gone.
                return pumping.child().count(Count::Unread, 1);
            }
            pumping.child().count(Count::In, length);
            give_way().await;
        }
    }

    fn framed(&self, message: Bytes) -> Bytes {
        if matches!(self.framing, Framing::Raw) || message.ends_with(b"\n") {
            return message;
        }
        let mut line = BytesMut::with_capacity(message.len() + 1);
        line.extend_from_slice(&message);
        line.extend_from_slice(b"\n");
        line.freeze()
    }
}

/// Lets all others of its thread go on: where there is always more, and always room for it, they would wait for ever, among them who hears that the child has ended.
async fn give_way() {
    let mut gave_way = false;
    poll_fn(|cx| match mem::replace(&mut gave_way, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Carries what a child says to where it is wanted, until nobody can say anything, or nobody wants it any more.
pub(super) struct OutPump {
    pub(super) from: Box<dyn ProcessOutput>,
    pub(super) open: OpenOutput,
    pub(super) to: Outlet,
}

/// Where what a child says is wanted.
pub(super) struct Outlet {
    pub(super) kernel: Arc<Kernel>,
    pub(super) caller: Arc<Caller>,
    pub(super) framer: Framer,
    pub(super) pipe: Option<PipeWriter>,
    pub(super) stream: Option<VPath>,
    /// Where its bytes are counted.
    pub(super) count: Count,
}

impl OutPump {
    pub(super) async fn run(self, pumping: Pumping) {
        let Self { from, open, to } = self;
        {
            let carried = std::pin::pin!(to.carry(&*from, &pumping));
            // Who writes may be gone while what was written waits for who reads.
            let closed = std::pin::pin!(open.until_closed(&*from));
            if let Either::Right(((), carried)) = select(carried, closed).await {
                carried.await;
            }
        }
        // The output is closed, as its end of the pipe is, before the pump counts as ended.
        drop(from);
        drop(pumping);
    }
}

impl Outlet {
    async fn carry(mut self, from: &dyn ProcessOutput, pumping: &Pumping) {
        if !pumping.is_kept().await {
            return;
        }
        let mut messages = Vec::new();
        loop {
            let chunk = pumping.unless(|stage| stage.over, from.read(CHUNK_MAX)).await;
            let is_read = chunk.is_some();
            match chunk {
                Some(Ok(chunk)) if chunk.is_empty() => break,
                Some(Ok(chunk)) => self.take(pumping, chunk, &mut messages),
                Some(Err(error)) => {
                    pumping.child().trouble(format_args!("its output cannot be read: {error}"));
                    break;
                }
                // Nobody is waited for any more. What the child itself wrote is in the buffer by now.
                None => self.take_rest(from, pumping, &mut messages).await,
            }
            if !is_read {
                break;
            }
            if !self.deliver(pumping, &mut messages).await {
                // The child is told with its next write.
                return;
            }
            give_way().await;
        }
        self.framer.end(&mut messages);
        self.left_out(pumping);
        self.deliver(pumping, &mut messages).await;
    }

    fn take(&mut self, pumping: &Pumping, chunk: Bytes, messages: &mut Vec<Bytes>) {
        pumping.child().count(self.count, chunk.len() as u64);
        self.framer.take(chunk, messages);
        self.left_out(pumping);
    }

    fn left_out(&mut self, pumping: &Pumping) {
        let dropped = self.framer.dropped();
        if dropped > 0 {
            pumping.child().count(Count::Dropped, dropped);
            pumping.child().trouble(format_args!("{dropped} lines were too long, and are left out"));
        }
    }

    /// Takes what is in the buffer of the descriptor, and no more.
    async fn take_rest(&mut self, from: &dyn ProcessOutput, pumping: &Pumping, messages: &mut Vec<Bytes>) {
        let mut left = from.ready().unwrap_or_default();
        while left > 0 {
            match from.read(left.min(CHUNK_MAX)).await {
                Ok(chunk) if !chunk.is_empty() => {
                    left = left.saturating_sub(chunk.len());
                    self.take(pumping, chunk, messages);
                }
                _ => return,
            }
        }
    }

    /// Hands the messages over; false when nobody wants any more.
    async fn deliver(&mut self, pumping: &Pumping, messages: &mut Vec<Bytes>) -> bool {
        if let Some(stream) = self.stream.clone()
            && !self.append(pumping, &stream, messages).await
        {
            self.stream = None;
        }
        for message in messages.drain(..) {
            let Some(pipe) = &self.pipe else { break };
            let written = pumping.unless(|stage| stage.stopping, pipe.write(message, FOR_EVER)).await;
            match written {
                Some(Ok(())) => {}
                // The kernel ends, and the pipe with it.
                None => self.pipe = None,
                Some(Err(error)) => {
                    told(pumping, &error);
                    self.pipe = None;
                }
            }
        }
        self.pipe.is_some() || self.stream.is_some()
    }

    /// Appends all, as many at once as may be; false when the kernel ends.
    async fn append(&self, pumping: &Pumping, stream: &VPath, messages: &[Bytes]) -> bool {
        let (mut batch, mut cost) = (Vec::new(), 0);
        for message in messages {
            let costs = message.len() as u64 + RECORD_COST;
            if !batch.is_empty() && (cost + costs > APPEND_BYTES_MAX || batch.len() >= APPEND_RECORDS_MAX) {
                if !self.append_batch(pumping, stream, mem::take(&mut batch)).await {
                    return false;
                }
                cost = 0;
            }
            batch.push(message.clone());
            cost += costs;
        }
        batch.is_empty() || self.append_batch(pumping, stream, batch).await
    }

    /// Appends a batch; what cannot be appended is counted, and the child goes on. False when the kernel ends.
    async fn append_batch(&self, pumping: &Pumping, stream: &VPath, batch: Vec<Bytes>) -> bool {
        let Err(error) = self.append_records(stream, batch.clone()).await else { return true };
        if error.kind() != ErrorKind::TooLarge {
            return self.without(pumping, &error, batch.len());
        }
        // All or none: one is larger than the stream keeps, and the others are not to go with it.
        for one in batch {
            if let Err(error) = self.append_records(stream, vec![one]).await
                && !self.without(pumping, &error, 1)
            {
                return false;
            }
        }
        true
    }

    /// Goes on without so many records; false when the kernel ends.
    fn without(&self, pumping: &Pumping, error: &Error, records: usize) -> bool {
        pumping.child().count(Count::Lost, records as u64);
        told(pumping, error);
        error.kind() != ErrorKind::Down
    }

    async fn append_records(&self, stream: &VPath, records: Vec<Bytes>) -> nexus_messages::Result<()> {
        let call = SysWrite::vectored(stream, records).append();
        let done = Box::pin(self.kernel.send(&self.caller, call.clone())).await;
        if !done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return done.map(drop);
        }
        // It was removed, or moved out of the way as logs are: what comes next has a new one.
        let made = SysSetattr::stream_with(stream, StreamSpec::new().io_profile(IoProfile::Stdio));
        Box::pin(self.kernel.send(&self.caller, made)).await?;
        Box::pin(self.kernel.send(&self.caller, call)).await.map(drop)
    }
}

/// Notes what went wrong at a path, if it is more than that nobody is there any more.
fn told(pumping: &Pumping, error: &Error) {
    if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Down) {
        pumping.child().trouble(error);
    }
}
