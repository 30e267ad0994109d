//! The connection to the process that owns the data folder: how it is made, what goes over it, and how it ends.
//!
//! A caller writes its call to the socket itself, on its own task. A task of the handle's own reads replies, and writes what the socket
//! did not take at once. A call whose connection is lost says what is known of it: what was not sent was not executed, and neither was
//! what only reads; of a change that was sent nobody can tell.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use nexus_actors::{Env, Latch, Sleep};
use nexus_messages::{Caller, Error, ErrorKind, Op};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::message::{GREETING_MAX, Parcel, Refusal, Refused, Version, Welcome, hello};
use super::session::{ALL_ANSWERED, WAITS_MAX};
use super::socket::Address;
use super::wire::{Inbox, Incoming, Kind, Message, Outbox, SLICES_MAX};

/// How long the server may take to answer a greeting.
const GREETING_WITHIN: Duration = Duration::from_secs(5);

/// How long the server may leave a call where it is.
const STALL_MAX: Duration = Duration::from_secs(30);

/// How often a server that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoConnection {
    /// Nobody serves the socket: its owner is starting, or ending, or does not serve it.
    #[error("nobody serves the socket: {0}")]
    Nobody(io::Error),
    /// The server ends.
    #[error("the kernel is ending")]
    Ending,
    /// Whatever else: trying again does not help.
    #[error(transparent)]
    Final(Error),
}

impl NoConnection {
    /// As an error of connecting to the kernel of `folder`.
    pub(crate) fn into_error(self, folder: &Path) -> Error {
        match self {
            Self::Final(error) => error,
            other => Error::on_host(Op::Connect, folder, ErrorKind::Down).because(other),
        }
    }
}

/// Among which calls one counts. Those that wait for what others do stand in a line of their own: however many there are, and however long they wait, others go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Calls,
    Waits,
}

/// What became of a call that has no reply.
#[derive(Debug)]
pub(super) enum Lost {
    /// This end let go.
    Closed,
    /// There is no connection, and no other could be made.
    NoOther(NoConnection),
    /// It was not sent.
    Before,
    /// It was sent; whether it may have been executed.
    During { why: Arc<str>, executed: bool },
}

/// A connection to a server that has taken us.
pub(super) struct Connection {
    /// As whom the server took us, this time.
    pub(super) granted: Caller,
    /// Whether the kernel ends with its last client, and nobody else was there.
    pub(super) is_last: bool,
    lines: Mutex<Lines>,
    numbers: AtomicU64,
    /// One for each call that may be under way, those apart that wait for others.
    places: Semaphore,
    /// One for each that may wait for others.
    waits: Semaphore,
    /// Wakes the task that reads.
    driver: AtomicWaker,
    /// Set once it is lost.
    cut: Latch<()>,
}

/// What waits to leave, and who waits for what.
#[derive(Default)]
struct Lines {
    /// None once the connection is lost; the task that reads has the other hold on it.
    stream: Option<Arc<UnixStream>>,
    outbox: Outbox,
    waiting: HashMap<u64, Waiting>,
    /// Why the connection is no more.
    lost: Option<Arc<str>>,
}

struct Waiting {
    reply: oneshot::Sender<Result<Message, Lost>>,
    /// Whether all of the call has left.
    sent: bool,
}

impl Connection {
    /// Is set once the connection is lost.
    pub(super) fn cut(&self) -> Latch<()> {
        self.cut.clone()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lines.lock().lost.is_some()
    }

    pub(super) async fn call(&self, parcel: Parcel, changes: bool, line: Line) -> Result<Message, Lost> {
        let places = match line {
            Line::Calls => &self.places,
            Line::Waits => &self.waits,
        };
        let place = places.acquire().await.map_err(|_| Lost::Before)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (reply, replied) = oneshot::channel();
        {
            let mut lines = self.lines.lock();
            if lines.lost.is_some() {
                return Err(Lost::Before);
            }
            lines.waiting.insert(number, Waiting { reply, sent: false });
            lines.outbox.push_message(Kind::Call, number, &parcel.head, parcel.body);
            self.push_out(&mut lines);
        }
        let mut under_way = UnderWay { connection: self, number, _place: place, replied: false };
        let done = replied.await;
        under_way.replied = true;
        match done {
            Ok(done) => done,
            // Its sender is not dropped without a word.
            Err(_) => Err(Lost::During { why: "the connection was dropped".into(), executed: changes }),
        }
    }

    /// The message of a pipe that the reply of this number brought is with who asked for it. That leaves with the next call: until then the other end remembers the message.
    pub(super) fn took(&self, number: u64) {
        let mut lines = self.lines.lock();
        if lines.lost.is_none() {
            lines.outbox.push_frame(Kind::Took, number, &[]);
        }
    }

    /// Says what needs no answer, of each of these numbers: before all calls that come later. Does nothing once the connection is lost.
    pub(super) fn tell(&self, kind: Kind, numbers: impl IntoIterator<Item = u64>) {
        let mut lines = self.lines.lock();
        if lines.lost.is_none() {
            numbers.into_iter().for_each(|number| lines.outbox.push_frame(kind, number, &[]));
            self.push_out(&mut lines);
        }
    }

    /// Writes what the socket takes now; what it does not take is for the driver.
    fn push_out(&self, lines: &mut Lines) {
        match lines.write() {
            Ok(true) => {}
            Ok(false) => self.driver.wake(),
            Err(error) => {
                lines.lose(&Arc::from(error.to_string()), true);
                self.close_places();
                self.driver.wake();
            }
        }
    }

    /// Ends the connection, and all that wait for a reply.
    pub(super) fn lose(&self, why: Lost) {
        let (why, executed): (Arc<str>, bool) = match why {
            Lost::During { why, executed } => (why, executed),
            _ => ("the handle was shut down".into(), true),
        };
        self.lines.lock().lose(&why, executed);
        self.close_places();
        self.driver.wake();
    }

    /// Nobody gets a place any more.
    fn close_places(&self) {
        self.cut.set(());
        self.places.close();
        self.waits.close();
    }
}

impl Lines {
    /// Writes what the socket takes; whether that was all.
    fn write(&mut self) -> io::Result<bool> {
        let Some(stream) = &self.stream else { return Ok(true) };
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.outbox.slices(&mut slices);
            match stream.try_write_vectored(&slices[..filled]) {
                Ok(count) => self.outbox.left(count, |number| {
                    if let Some(waiting) = self.waiting.get_mut(&number) {
                        waiting.sent = true;
                    }
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn lose(&mut self, why: &Arc<str>, executed: bool) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(why.clone());
        for (_, waiting) in self.waiting.drain() {
            let lost = match waiting.sent {
                false => Lost::Before,
                true => Lost::During { why: why.clone(), executed },
            };
            // Who waited may be gone.
            let _ = waiting.reply.send(Err(lost));
        }
        self.outbox = Outbox::default();
        self.stream = None;
    }
}

/// A call under way. Dropped before its reply, it is called off.
struct UnderWay<'c> {
    connection: &'c Connection,
    number: u64,
    replied: bool,
    _place: SemaphorePermit<'c>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.replied {
            return;
        }
        let mut lines = self.connection.lines.lock();
        // Also when the reply has come and nobody took it up: what it gives goes back then.
        lines.waiting.remove(&self.number);
        if lines.lost.is_none() {
            lines.outbox.take_back(self.number);
            lines.outbox.push_frame(Kind::Cancel, self.number, &[]);
            self.connection.push_out(&mut lines);
        }
    }
}

/// Connects to the server of `folder`, on the I/O runtime of `env`.
pub(super) async fn connect(env: &Env, folder: &Path) -> Result<(Arc<Connection>, Welcome), NoConnection> {
    let (done, connected) = oneshot::channel();
    let (own, place) = (env.clone(), folder.to_owned());
    env.spawn("attach", async move {
        let greeting = own.timeout(GREETING_WITHIN, greet(&place)).await;
        let greeted = greeting.unwrap_or_else(|_| {
            let error = Error::on_host(Op::Connect, &place, ErrorKind::TimedOut);
            Err(NoConnection::Final(error.because(format!("nobody answered within {GREETING_WITHIN:?}"))))
        });
        let greeted = greeted.map(|(connection, stream, inbox, welcome)| {
            let driver = Driver::new(own.clone(), connection.clone(), stream, inbox);
            own.spawn("attached", driver);
            (connection, welcome)
        });
        // Who wanted to connect may be gone; then so is the connection.
        if let Err(Ok((connection, _))) = done.send(greeted) {
            connection.lose(Lost::Closed);
        }
    });
    connected.await.unwrap_or_else(|_| {
        Err(NoConnection::Final(
            Error::on_host(Op::Connect, folder, ErrorKind::Down).because("the handle ended"),
        ))
    })
}

async fn greet(folder: &Path) -> Result<(Arc<Connection>, Arc<UnixStream>, Inbox, Welcome), NoConnection> {
    let fail = |kind: ErrorKind, why: &dyn fmt::Display| {
        NoConnection::Final(Error::on_host(Op::Connect, folder, kind).because(why))
    };
    let address = Address::of(folder).map_err(|error| host(folder, error))?;
    let stream = UnixStream::connect(&address.path).await.map_err(|error| host(folder, error))?;
    let stream = Arc::new(stream);
    let mut lines = Lines { stream: Some(stream.clone()), ..Lines::default() };
    lines.outbox.push_frame(Kind::Hello, 0, &hello(&Version::own()));
    let mut inbox = Inbox::new(GREETING_MAX);
    // It is taken to have gone away while it ended, when it says nothing.
    let gone = |error: io::Error| NoConnection::Nobody(error);
    // Who is not taken may be told before it has greeted, and let go: what was told can be read all the same.
    while let Ok(false) = lines.write() {
        stream.writable().await.map_err(gone)?;
    }
    let answer = loop {
        if let Some(answer) = inbox.next().map_err(|why| fail(ErrorKind::NotSupported, &why))? {
            break answer;
        }
        stream.readable().await.map_err(gone)?;
        match stream.try_read_buf(inbox.room()) {
            Ok(0) => return Err(gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(gone(error)),
        }
    };
    match answer {
        Incoming::Frame { kind: Kind::Welcome, payload, .. } => {
            let welcome = Welcome::read(&payload).map_err(|why| fail(ErrorKind::NotSupported, &why))?;
            inbox.widen();
            let connection = Arc::new(Connection {
                granted: welcome.granted.clone(),
                is_last: welcome.is_last,
                lines: Mutex::new(lines),
                numbers: AtomicU64::new(1),
                places: Semaphore::new((welcome.in_flight_max as usize).min(Semaphore::MAX_PERMITS)),
                waits: Semaphore::new(WAITS_MAX),
                driver: AtomicWaker::new(),
                cut: Latch::new(),
            });
            Ok((connection, stream, inbox, welcome))
        }
        Incoming::Frame { kind: Kind::Refused, payload, .. } => Err(match Refused::read(payload) {
            Some(Refused { why: Some(Refusal::Ending), .. }) => NoConnection::Ending,
            Some(Refused { why: Some(Refusal::Version), server, .. }) => {
                let why = format!("the kernel is of {server}, and this program of {}", Version::own());
                fail(ErrorKind::NotSupported, &why)
            }
            Some(Refused { why: Some(Refusal::User), text, .. }) => fail(ErrorKind::PermissionDenied, &text),
            Some(Refused { why: Some(Refusal::Full), text, .. }) => fail(ErrorKind::Busy, &text),
            Some(Refused { text, .. }) => fail(ErrorKind::NotSupported, &text),
            None => fail(ErrorKind::NotSupported, &"who serves the socket speaks another language"),
        }),
        // It was about to end when we came.
        Incoming::Frame { kind: Kind::Bye, .. } => Err(NoConnection::Ending),
        _ => Err(fail(ErrorKind::NotSupported, &"who serves the socket speaks another language")),
    }
}

/// What the host says of a socket that cannot be reached.
fn host(folder: &Path, error: io::Error) -> NoConnection {
    match error.kind() {
        // There is none, its owner is dead or died while we stood in its queue, or it has more clients waiting than it can take at once.
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::WouldBlock => NoConnection::Nobody(error),
        io::ErrorKind::PermissionDenied => {
            let told = Error::on_host(Op::Connect, folder, ErrorKind::PermissionDenied);
            NoConnection::Final(told.because("the socket belongs to another user"))
        }
        _ => NoConnection::Final(Error::on_host(Op::Connect, folder, ErrorKind::Io).because(error)),
    }
}

/// Reads replies, and writes what callers could not.
struct Driver {
    env: Env,
    connection: Arc<Connection>,
    stream: Arc<UnixStream>,
    inbox: Inbox,
    look: Option<Sleep>,
    blocked_since: Option<Instant>,
}

impl Driver {
    fn new(env: Env, connection: Arc<Connection>, stream: Arc<UnixStream>, inbox: Inbox) -> Self {
        Self { env, connection, stream, inbox, look: None, blocked_since: None }
    }

    /// Says why the connection is no more, and whether calls that have no reply may have been executed.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<(Arc<str>, bool)> {
        let connection = self.connection.clone();
        connection.driver.register(cx.waker());
        loop {
            let blocked = {
                let mut lines = connection.lines.lock();
                if let Some(why) = &lines.lost {
                    return Poll::Ready((why.clone(), true));
                }
                match lines.write() {
                    Ok(all) => !all,
                    Err(error) => return Poll::Ready((error.to_string().into(), true)),
                }
            };
            if blocked {
                match self.stream.poll_write_ready(cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready((error.to_string().into(), true)),
                    Poll::Pending => {}
                }
            }
            match self.receive(cx, &connection) {
                Ok(true) => {
                    self.blocked_since = None;
                    continue;
                }
                Ok(false) => {}
                Err(lost) => return Poll::Ready(lost),
            }
            if self.is_stalled(cx, blocked) {
                return Poll::Ready(("it takes no calls any more".into(), true));
            }
            return Poll::Pending;
        }
    }

    /// Reads once, and hands on what arrived; whether there was anything.
    fn receive(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Result<bool, (Arc<str>, bool)> {
        let lost = |why: &dyn fmt::Display| (Arc::from(why.to_string()), true);
        let mut moved = false;
        self.forget(connection);
        while let Some(incoming) = self.inbox.next().map_err(|why| lost(&why))? {
            moved = true;
            match incoming {
                Incoming::Part => {}
                Incoming::Message(message) if message.kind == Kind::Reply => {
                    let waiting = connection.lines.lock().waiting.remove(&message.number);
                    // Who called it off hears nothing.
                    if let Some(waiting) = waiting {
                        let _ = waiting.reply.send(Ok(message));
                    }
                }
                Incoming::Frame { kind: Kind::Bye, payload, .. } => {
                    let executed = payload.first() != Some(&ALL_ANSWERED);
                    return Err(("the kernel ended".into(), executed));
                }
                _ => return Err(lost(&"it does not keep to the protocol")),
            }
        }
        match self.stream.poll_read_ready(cx) {
            Poll::Pending => return Ok(moved),
            Poll::Ready(ready) => ready.map_err(|error| lost(&error))?,
        }
        match self.stream.try_read_buf(self.inbox.room()) {
            Ok(0) => Err(lost(&"it closed the connection")),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(lost(&error)),
        }
    }

    /// Forgets the reply that is arriving when nobody waits for it any more: its rest may never come.
    fn forget(&mut self, connection: &Connection) {
        if let Some(number) = self.inbox.large()
            && !connection.lines.lock().waiting.contains_key(&number)
        {
            self.inbox.forget(number);
        }
    }

    fn is_stalled(&mut self, cx: &mut Context<'_>, blocked: bool) -> bool {
        if !blocked {
            (self.look, self.blocked_since) = (None, None);
            return false;
        }
        let now = self.env.now();
        let since = *self.blocked_since.get_or_insert(now);
        let env = &self.env;
        let look = self.look.get_or_insert_with(|| env.sleep(LOOK_EVERY));
        if Pin::new(look).poll(cx).is_ready() {
            self.look = None;
            cx.waker().wake_by_ref();
        }
        now.duration_since(since) > STALL_MAX
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.advance(cx).map(|(why, executed)| self.connection.lose(Lost::During { why, executed }))
    }
}

impl Drop for Driver {
    /// It may end with its runtime.
    fn drop(&mut self) {
        self.connection.lose(Lost::During { why: "the handle ended".into(), executed: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_dies_while_we_stand_in_its_queue_is_nobody_and_not_a_failure() {
        for kind in [
            io::ErrorKind::NotFound,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::WouldBlock,
        ] {
            let found = host(Path::new("data"), kind.into());
            assert!(matches!(found, NoConnection::Nobody(_)), "{kind:?}: {found:?}");
        }
    }
}
