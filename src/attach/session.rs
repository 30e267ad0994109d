//! One client: its greeting, its calls, its replies.
//!
//! All of it is one task. A call that ends at once, as warm reads do, is executed where it was read; the others wait side by side. The
//! client's calls end with the task: what has not come to the path lock is dropped, what has is finished by the kernel.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures_util::stream::{FuturesUnordered, Stream};
use nexus_actors::Sleep;
use nexus_kernel::{GivenMessage, Kernel, Serve};
use nexus_messages::syscall::{Answer, Syscall};
use nexus_messages::{Caller, Error, ErrorKind, Op, Result};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::gifts::{Gift, Gifts};
use super::grant::lessened;
use super::lives::Lives;
use super::message::{
    Call, GREETING_MAX, Given, Refusal, Refused, Reply, Request, Version, Welcome, read_hello,
};
use super::sent::Sent;
use super::server::{Place, Shared};
use super::streams::Streams;
use super::wire::{BODY_MAX, Inbox, Incoming, Kind, Message, Outbox, REPLY_HEAD_MAX, SLICES_MAX, WireError};

/// How long a client may take to greet.
const GREETING_WITHIN: Duration = Duration::from_secs(5);

/// How long a client may leave a reply, or the rest of a call that it has begun to send, where it is.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How long calls that have begun may go on when the kernel ends.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How often a client that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Content of calls under way above which no further call is read; and of those that wait for what others do, above which no further one of them may wait with content.
const HELD_MAX: u64 = 64 << 20;

/// Bytes of replies that have not left above which no further call is read.
const UNREAD_MAX: u64 = 4 << 20;

/// Calls of one client that may wait for what others do: watches, and those for locks and at pipes. They are not among the calls that it may have under way: those end
/// soon, and these wait for as long as nothing happens.
pub(super) const WAITS_MAX: usize = 1_024;

/// What `Bye` says: all calls that were begun were answered, so that the others were not executed; or not all were.
pub(super) const ALL_ANSWERED: u8 = 1;
pub(super) const SOME_DROPPED: u8 = 0;

type Running = Abortable<BoxFuture<'static, Served>>;

/// What came of a call, and the message that it took from a pipe: that goes back when it is not kept.
type Served = (Result<Given>, Option<GivenMessage>);

/// A client's task.
pub(super) struct Session {
    shared: Arc<Shared>,
    stream: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    state: State,
    /// Since when it is in this state.
    since: Instant,
    running: FuturesUnordered<Tagged>,
    under_way: HashMap<u64, UnderWay>,
    /// How many of them may wait for what others do.
    waiting: usize,
    /// How much content the calls under way have that do not wait for others, and how much those that do.
    held: u64,
    held_waiting: u64,
    /// What is tied to them goes with the connection at the latest.
    lives: Lives,
    /// As whom the client was taken.
    granted: Arc<Caller>,
    /// As whom the last call was made that asked to be somebody.
    last: Option<Arc<Caller>>,
    /// What it reads and writes in pieces.
    streams: Streams,
    /// What was given last and can be taken back.
    given: Gifts,
    /// The messages that were read and are on their way.
    sent: Sent,
    ending: BoxFuture<'static, ()>,
    /// Wakes the task when the client is to be looked at.
    look: Option<Sleep>,
    /// Since when replies do not leave, and calls do not arrive whole.
    blocked_since: Option<Instant>,
    within_since: Option<Instant>,
    /// Whether it is being polled: still so when it is dropped, it panicked.
    is_polled: bool,
    // Last: whoever hears that it is free finds nothing left of the client.
    _place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The client has not greeted.
    New,
    /// It calls.
    Open,
    /// The kernel ends: what has begun goes on, and nothing else begins.
    Ending,
    /// All was said.
    Over,
}

struct UnderWay {
    abort: AbortHandle,
    held: u64,
    /// Who is given something with it that can be taken back.
    takes: Option<Arc<Caller>>,
    /// The operation, when it may wait for what others do.
    waits: Option<Op>,
}

/// Why a client's task ends.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("it is gone")]
    Gone,
    #[error("it took longer than it may")]
    Stalled,
    #[error("it does not keep to the protocol: {0}")]
    Broken(#[from] WireError),
    #[error(transparent)]
    Host(#[from] io::Error),
    #[error("all was said")]
    Over,
}

impl Closed {
    /// Whether a client that has no more to ask ends so: also one that hangs up before it hears what it has asked, as one does whose output nobody reads on.
    fn is_ordinary(&self) -> bool {
        match self {
            Self::Gone | Self::Over => true,
            Self::Host(error) => {
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            }
            Self::Stalled | Self::Broken(_) => false,
        }
    }
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, stream: UnixStream, place: Place) -> Self {
        let ending = shared.ending.clone();
        let lives = Lives::new(&shared.kernel);
        let granted = Arc::new((*shared.granted).clone().living(lives.own()));
        Self {
            lives,
            granted,
            since: shared.env.now(),
            given: Gifts::new(shared.kernel.clone()),
            shared,
            stream,
            inbox: Inbox::new(GREETING_MAX),
            outbox: Outbox::default(),
            state: State::New,
            running: FuturesUnordered::new(),
            under_way: HashMap::new(),
            waiting: 0,
            held: 0,
            held_waiting: 0,
            last: None,
            streams: Streams::default(),
            sent: Sent::default(),
            ending: Box::pin(async move { ending.wait().await }),
            look: None,
            blocked_since: None,
            within_since: None,
            is_polled: false,
            _place: place,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> std::result::Result<(), Closed> {
        if matches!(self.state, State::New | State::Open) && self.ending.poll_unpin(cx).is_ready() {
            self.turn(State::Ending);
            self.end_waits();
        }
        loop {
            let mut moved = self.finish(cx);
            moved |= self.receive(cx)?;
            if self.state == State::Ending && self.under_way.is_empty() {
                self.end(ALL_ANSWERED);
            }
            moved |= self.send(cx)?;
            if self.state == State::Over && self.outbox.is_empty() {
                return Err(Closed::Over);
            }
            if !moved && self.watch(cx)?.is_pending() {
                return Ok(());
            }
        }
    }

    /// Takes up what has ended.
    fn finish(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some((number, ended))) = Pin::new(&mut self.running).poll_next(cx) {
            moved = true;
            let takes = self.under_way.get_mut(&number).and_then(|call| call.takes.take());
            self.forget(number);
            if let Ok((result, taken)) = ended {
                self.note_given(number, takes, &result);
                self.sent.note(number, taken);
                self.reply(number, result);
            }
        }
        moved
    }

    fn forget(&mut self, number: u64) {
        if let Some(call) = self.under_way.remove(&number) {
            *self.held_by(call.waits) -= call.held;
            self.waiting -= usize::from(call.waits.is_some());
            self.shared.counts.calls.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What counts the content of such a call. That of one that waits is none of what keeps others from being read: among them may be the one that it waits for.
    fn held_by(&mut self, waits: Option<Op>) -> &mut u64 {
        if waits.is_some() { &mut self.held_waiting } else { &mut self.held }
    }

    /// Whether another call may be read.
    fn has_room(&self) -> bool {
        self.under_way.len() - self.waiting < self.shared.in_flight_max as usize
            && self.held < HELD_MAX
            && self.outbox.waiting() < UNREAD_MAX
    }

    fn is_parked(&self) -> bool {
        !self.has_room() && self.inbox.is_call_next()
    }

    /// Reads, and begins what arrived. What is called off goes back together, so that it is in its order.
    fn receive(&mut self, cx: &mut Context<'_>) -> std::result::Result<bool, Closed> {
        let moved = self.take_in(cx);
        self.sent.give_back();
        moved
    }

    fn take_in(&mut self, cx: &mut Context<'_>) -> std::result::Result<bool, Closed> {
        let mut moved = false;
        while matches!(self.state, State::New | State::Open) && !self.is_parked() {
            if let Some(incoming) = self.inbox.next()? {
                moved = true;
                match incoming {
                    Incoming::Part => {}
                    Incoming::Frame { kind: Kind::Hello, payload, .. } if self.state == State::New => {
                        self.greet(payload)?;
                    }
                    Incoming::Message(message) if self.state == State::Open && message.kind == Kind::Call => {
                        // It may read what was called off before it.
                        self.sent.give_back();
                        self.begin(cx, message)?;
                    }
                    Incoming::Frame { kind: Kind::Cancel, number, .. } if self.state == State::Open => {
                        self.cancel(number);
                    }
                    Incoming::Frame { kind: Kind::Took, number, .. } if self.state == State::Open => {
                        self.sent.took(number);
                    }
                    Incoming::Frame { kind: Kind::LifeBegins, number, .. } if self.state == State::Open => {
                        self.lives.begin(number)?;
                    }
                    Incoming::Frame { kind: Kind::LifeEnds, number, .. } if self.state == State::Open => {
                        self.lives.end(number);
                    }
                    other => return Err(unexpected(&other).into()),
                }
                continue;
            }
            if self.stream.poll_read_ready(cx)?.is_pending() {
                return Ok(moved);
            }
            match self.stream.try_read_buf(self.inbox.room()) {
                Ok(0) => return Err(Closed::Gone),
                Ok(_) => {
                    moved = true;
                    self.within_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(moved)
    }

    fn greet(&mut self, payload: bytes::Bytes) -> std::result::Result<(), Closed> {
        let own = Version::own();
        let refused = match read_hello(payload) {
            Some(client) if client == own => {
                let granted = (*self.shared.granted).clone();
                let (in_flight_max, is_last) = (self.shared.in_flight_max, self.shared.ends_with_one());
                let welcome = Welcome { granted, in_flight_max, is_last };
                self.outbox.push_frame(Kind::Welcome, 0, &welcome.write()?);
                self.inbox.widen();
                self.state = State::Open;
                return Ok(());
            }
            Some(client) => {
                tracing::warn!(%client, server = %own, "a client of another version was refused");
                Refused::new(
                    Refusal::Version,
                    format!("the kernel is of {own}, and who attaches of {client}"),
                )
            }
            None => Refused::new(Refusal::NoGreeting, "that was no greeting"),
        };
        self.outbox.push_frame(Kind::Refused, 0, &refused.write());
        self.turn(State::Over);
        Ok(())
    }

    fn begin(&mut self, cx: &mut Context<'_>, message: Message) -> std::result::Result<(), WireError> {
        let (number, held) = (message.number, message.body.len() as u64);
        if self.under_way.contains_key(&number) {
            return Err(WireError::Malformed(format!("two calls have the number {number}")));
        }
        let call = Call::unpack(message)?;
        let caller = match self.caller(call.caller, call.life) {
            Ok(caller) => caller,
            Err(error) => {
                self.reply(number, Err(error));
                return Ok(());
            }
        };
        let waits = call.request.waits();
        if let Some(op) = waits {
            let why = match () {
                () if self.waiting >= WAITS_MAX => Some(format!("{WAITS_MAX} calls of this client wait")),
                () if held > 0 && self.held_waiting >= HELD_MAX => {
                    Some(format!("calls of this client wait with {} bytes", self.held_waiting))
                }
                () => None,
            };
            if let Some(why) = why {
                self.reply(number, Err(Error::global(op, ErrorKind::Busy).because(why)));
                return Ok(());
            }
        }
        self.shared.counts.served.fetch_add(1, Ordering::Relaxed);
        let takes = can_be_taken_back(&call.request).then(|| caller.clone());
        let mut future = serve(self.shared.kernel.clone(), caller, call.request, self.streams.clone());
        if let Poll::Ready((result, taken)) = future.poll_unpin(cx) {
            self.note_given(number, takes, &result);
            self.sent.note(number, taken);
            self.reply(number, result);
            return Ok(());
        }
        let (abort, registration) = AbortHandle::new_pair();
        self.running.push(Tagged { number, call: Abortable::new(future, registration) });
        self.under_way.insert(number, UnderWay { abort, held, takes, waits });
        *self.held_by(waits) += held;
        self.waiting += usize::from(waits.is_some());
        self.shared.counts.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// As whom a call is made, and in which life.
    fn caller(&mut self, asked: Option<Caller>, life: u64) -> Result<Arc<Caller>> {
        let life = self.lives.of(life);
        if asked.is_none() && life == self.granted.life {
            return Ok(self.granted.clone());
        }
        let asked = asked.unwrap_or_else(|| (*self.granted).clone());
        if let Some(last) = self.last.as_ref().filter(|last| last.life == life && ***last == asked) {
            return Ok(last.clone());
        }
        let caller = lessened(&self.granted, asked)?;
        let caller = Arc::new((*caller).clone().living(life));
        self.last = Some(caller.clone());
        Ok(caller)
    }

    fn cancel(&mut self, number: u64) {
        if let Some(call) = self.under_way.get(&number) {
            call.abort.abort();
        } else if !self.given.called_off(number) {
            self.sent.called_off(number);
        }
        self.inbox.forget(number);
        self.outbox.take_back(number);
    }

    /// Notes what a call gave that can be taken back, if it did.
    fn note_given(&mut self, number: u64, takes: Option<Arc<Caller>>, result: &Result<Given>) {
        let gift = match result {
            Ok(Given::Answer(Answer::Lock(locked))) => Gift::Lock(locked.path.clone(), locked.id),
            Ok(Given::Child(child)) => Gift::Child(child.id),
            _ => return,
        };
        if let Some(caller) = takes {
            self.given.note(number, caller, gift);
        }
    }

    fn reply(&mut self, number: u64, result: Result<Given>) {
        let packed = Reply::pack(result).and_then(|parcel| {
            let (head, body) = (parcel.head.len(), parcel.body_length());
            if head > REPLY_HEAD_MAX || body > BODY_MAX {
                return Err(WireError::MessageTooLarge { head: head as u64, body });
            }
            Ok(parcel)
        });
        let parcel = packed.or_else(|why| {
            let error = Error::global(Op::Read, ErrorKind::TooLarge);
            Reply::pack(Err(error.because(format!("the reply cannot be sent: {why}"))))
        });
        match parcel {
            Ok(parcel) => self.outbox.push_message(Kind::Reply, number, &parcel.head, parcel.body),
            Err(why) => tracing::error!(%why, "an error cannot be written"),
        }
    }

    /// Sends what there is, as far as the client takes it.
    fn send(&mut self, cx: &mut Context<'_>) -> std::result::Result<bool, Closed> {
        let mut moved = false;
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.outbox.slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..filled]) {
                Ok(count) => {
                    moved = true;
                    self.blocked_since = None;
                    let (sent, given) = (&mut self.sent, &mut self.given);
                    self.outbox.left(count, |number| {
                        sent.left(number);
                        given.left(number);
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.poll_write_ready(cx)?.is_pending() {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(moved)
    }

    /// Sees to it that a client that is waited for is looked at now and then; ready when it was looked at.
    fn watch(&mut self, cx: &mut Context<'_>) -> std::result::Result<Poll<()>, Closed> {
        let parked = self.is_parked();
        let is_open = self.state == State::Open;
        if is_open && self.outbox.is_empty() && !self.inbox.is_within_a_message() {
            self.look = None;
            return Ok(Poll::Pending);
        }
        let env = &self.shared.env;
        let look = self.look.get_or_insert_with(|| env.sleep(LOOK_EVERY));
        if Pin::new(look).poll(cx).is_pending() {
            return Ok(Poll::Pending);
        }
        self.look = None;
        let now = env.now();
        let stalled = |since: &mut Option<Instant>, waits: bool| {
            let since = since.get_or_insert(now);
            waits && now.duration_since(*since) > STALL_MAX
        };
        if stalled(&mut self.blocked_since, !self.outbox.is_empty())
            || stalled(&mut self.within_since, self.inbox.is_within_a_message() && !parked)
        {
            return Err(Closed::Stalled);
        }
        if parked {
            // It is not read from, so its end does not show in what is read.
            let ready = self.stream.ready(Interest::READABLE).now_or_never().transpose()?;
            if ready.is_some_and(|ready| ready.is_read_closed()) {
                return Err(Closed::Gone);
            }
        }
        match self.state {
            State::New if now.duration_since(self.since) > GREETING_WITHIN => Err(Closed::Stalled),
            State::Over if now.duration_since(self.since) > DRAIN_MAX => Err(Closed::Stalled),
            State::Ending if now.duration_since(self.since) > DRAIN_MAX => {
                // Those that are past their path lock are finished by the kernel, and nobody hears of it.
                self.drop_calls();
                self.end(SOME_DROPPED);
                Ok(Poll::Ready(()))
            }
            _ => Ok(Poll::Ready(())),
        }
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.since = self.shared.env.now();
    }

    /// Nothing will happen any more that could be waited for.
    fn end_waits(&mut self) {
        let waiting = self
            .under_way
            .iter()
            .filter_map(|(number, call)| Some((*number, call.waits?, call.abort.clone())));
        for (number, op, abort) in waiting.collect::<Vec<_>>() {
            abort.abort();
            self.forget(number);
            let error = Error::global(op, ErrorKind::Down);
            // A write to a file or a stream waits for nobody, and may be on its way to the disk.
            self.reply(number, Err(if op == Op::Write { error.outcome_unknown() } else { error }));
        }
    }

    fn end(&mut self, how: u8) {
        self.outbox.push_frame(Kind::Bye, 0, &[how]);
        self.turn(State::Over);
    }

    fn drop_calls(&mut self) {
        self.running = FuturesUnordered::new();
        self.shared.counts.calls.fetch_sub(self.under_way.len(), Ordering::Relaxed);
        self.under_way.clear();
        (self.held, self.held_waiting, self.waiting) = (0, 0, 0);
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.is_polled = true;
        let advanced = self.advance(cx);
        self.is_polled = false;
        match advanced {
            Ok(()) => Poll::Pending,
            Err(why) => {
                match why {
                    why if why.is_ordinary() => tracing::debug!(%why, "a client was let go"),
                    _ => tracing::warn!(%why, "a client was let go"),
                }
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.counts.crashed.fetch_add(self.is_polled.into(), Ordering::Relaxed);
        self.drop_calls();
    }
}

fn unexpected(incoming: &Incoming) -> WireError {
    let kind = match incoming {
        Incoming::Message(message) => message.kind,
        Incoming::Frame { kind, .. } => *kind,
        Incoming::Part => Kind::More,
    };
    WireError::Malformed(format!("a client does not send {kind:?} there"))
}

/// A call under way, and its number.
struct Tagged {
    number: u64,
    call: Running,
}

impl Future for Tagged {
    type Output = (u64, std::result::Result<Served, Aborted>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.call.poll_unpin(cx));
        Poll::Ready((self.number, ended))
    }
}

/// Whether it starts a child; or takes a lock, and does not extend one, or take one that outlives whoever took it.
fn can_be_taken_back(request: &Request) -> bool {
    match request {
        Request::Syscall(Syscall::Lock(call)) => call.id.is_none() && !call.durable,
        Request::Spawn(_) => true,
        _ => false,
    }
}

/// Executes a request for `caller`.
fn serve(
    kernel: Arc<Kernel>,
    caller: Arc<Caller>,
    request: Request,
    streams: Streams,
) -> BoxFuture<'static, Served> {
    let op = request.op();
    let serving = AssertUnwindSafe(async move {
        let mut taken = None;
        let done = execute(kernel, caller, request, streams, &mut taken).await;
        (done, taken)
    });
    Box::pin(serving.catch_unwind().map(move |done| {
        done.unwrap_or_else(|_| (Err(Error::global(op, ErrorKind::Crashed).outcome_unknown()), None))
    }))
}

async fn execute(
    kernel: Arc<Kernel>,
    caller: Arc<Caller>,
    request: Request,
    streams: Streams,
    taken: &mut Option<GivenMessage>,
) -> Result<Given> {
    let (kernel, caller) = (&kernel, &caller);
    match request {
        Request::Stream(call) => streams.serve(kernel, caller, call, taken).await,
        Request::Release { path, id } => Ok(Given::Released(kernel.release_lock(caller, &path, id))),
        Request::Spawn(spec) => {
            kernel.spawn_child(caller, spec).await.map(|child| Given::Child(Box::new(child)))
        }
        Request::Await { id, done } => {
            kernel.wait_child(caller, id, done).await.map(|child| Given::Child(Box::new(child)))
        }
        Request::Region { path, writes } => {
            let op = if writes { Op::Write } else { Op::Read };
            kernel.shared_region(caller, &path, op).await.map(Given::Region)
        }
        Request::Access { path, right } => kernel.access(caller, &path, right).await.map(Given::Access),
        Request::Syscall(call) => match call {
            Syscall::Stat(call) => answer(kernel, caller, call).await,
            Syscall::Read(call) => {
                let (read, message) = kernel.take_message(caller, call).await?;
                *taken = message;
                Ok(Given::Answer(read.into()))
            }
            Syscall::Readdir(call) => answer(kernel, caller, call).await,
            Syscall::Write(call) => answer(kernel, caller, call).await,
            Syscall::Setattr(call) => answer(kernel, caller, call).await,
            Syscall::Rename(call) => answer(kernel, caller, call).await,
            Syscall::Unlink(call) => answer(kernel, caller, call).await,
            Syscall::Copy(call) => answer(kernel, caller, call).await,
            Syscall::Lock(call) => answer(kernel, caller, call).await,
            Syscall::Unlock(call) => answer(kernel, caller, call).await,
            Syscall::Tx(call) => answer(kernel, caller, call).await,
            Syscall::Versions(call) => answer(kernel, caller, call).await,
            Syscall::Sync(call) => answer(kernel, caller, call).await,
            Syscall::Receipt(call) => answer(kernel, caller, call).await,
            Syscall::Outcome(call) => answer(kernel, caller, call).await,
            Syscall::Watch(call) => answer(kernel, caller, call).await,
            Syscall::Take(call) => answer(kernel, caller, call).await,
            Syscall::Group(call) => answer(kernel, caller, call).await,
            other => Err(Error::new(other.op(), other.path(), ErrorKind::NotSupported)),
        },
    }
}

async fn answer<S: Serve>(kernel: &Arc<Kernel>, caller: &Arc<Caller>, call: S) -> Result<Given> {
    let done: Result<S::Done> = kernel.send(caller, call).await;
    done.map(|done| Given::Answer(done.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_hangs_up_is_no_failure_and_one_that_stalls_is() {
        let host = |kind: io::ErrorKind| Closed::Host(kind.into()).is_ordinary();
        assert!(host(io::ErrorKind::BrokenPipe) && host(io::ErrorKind::ConnectionReset));
        assert!(!host(io::ErrorKind::OutOfMemory) && !Closed::Stalled.is_ordinary());
    }
}
