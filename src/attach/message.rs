//! What is said over the connection: the greeting, calls and replies.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nexus_kernel::SharedRegion;
use nexus_kernel::gate::Right;
use nexus_messages::syscall::{Answer, Place, SysRead, SysTx, SysWatch, SysWrite, Syscall, TxOp};
use nexus_messages::{
    Caller, ChildEntry, ChildId, ChildSpec, EntryType, Error, FileMetadata, LockId, Lsn, Op, VPath,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::wire::{Message, WireError};

/// The first bytes of a greeting.
const MAGIC: [u8; 8] = *b"nexus\0s\x01";

/// The protocol. Raised with every change of a frame, or of a structure that travels.
pub(crate) const PROTOCOL: u32 = 17;

/// The version of this program. What travels are its structures, so both ends have the same.
pub(crate) const PRODUCT: &str = env!("CARGO_PKG_VERSION");

/// The largest frame of a greeting.
pub(crate) const GREETING_MAX: usize = 4 * 1_024;

/// Contents in one message; the parts that a larger write is given in are put together first.
const CONTENTS_MAX: usize = 65_536;

/// The longest text in a greeting.
const TEXT_MAX: usize = 1_024;

/// What an end of a connection is. Laid out so that every version can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) protocol: u32,
    pub(crate) product: String,
}

impl Version {
    /// That of this program.
    pub(crate) fn own() -> Self {
        Self { protocol: PROTOCOL, product: PRODUCT.into() }
    }

    fn put(&self, to: &mut BytesMut) {
        to.put_u32_le(self.protocol);
        put_text(to, &self.product);
    }

    fn get(from: &mut Bytes) -> Option<Self> {
        Some(Self { protocol: from.try_get_u32_le().ok()?, product: get_text(from)? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nexus {} (protocol {})", self.product.escape_debug(), self.protocol)
    }
}

/// The greeting of a client.
pub(crate) fn hello(version: &Version) -> Bytes {
    let mut bytes = BytesMut::from(&MAGIC[..]);
    version.put(&mut bytes);
    bytes.freeze()
}

/// The version of the client that greets; none for what is no greeting.
pub(crate) fn read_hello(mut payload: Bytes) -> Option<Version> {
    if !payload.starts_with(&MAGIC) {
        return None;
    }
    payload.advance(MAGIC.len());
    Version::get(&mut payload)
}

/// What a client is told that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// As whom it calls.
    pub(crate) granted: Caller,
    /// How many calls it may have under way.
    pub(crate) in_flight_max: u32,
    /// Whether the kernel ends with its last client, and nobody else is there.
    pub(crate) is_last: bool,
}

impl Welcome {
    pub(crate) fn write(&self) -> Result<Vec<u8>, WireError> {
        encode(self)
    }

    pub(crate) fn read(payload: &[u8]) -> Result<Self, WireError> {
        decode(payload)
    }
}

/// Why a client is not taken. The numbers travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is of another version.
    Version = 1,
    /// It belongs to another user.
    User = 2,
    /// There are as many as may be.
    Full = 3,
    /// The kernel ends.
    Ending = 4,
    /// What it said is no greeting.
    NoGreeting = 5,
}

/// A client that is not taken. Laid out so that every version can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// None for a reason that this version does not know.
    pub(crate) why: Option<Refusal>,
    pub(crate) server: Version,
    pub(crate) text: String,
}

impl Refused {
    pub(crate) fn new(why: Refusal, text: impl Into<String>) -> Self {
        Self { why: Some(why), server: Version::own(), text: text.into() }
    }

    pub(crate) fn write(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(self.why.map_or(0, |why| why as u8));
        self.server.put(&mut bytes);
        put_text(&mut bytes, &self.text);
        bytes.freeze()
    }

    pub(crate) fn read(mut payload: Bytes) -> Option<Self> {
        let why = match payload.try_get_u8().ok()? {
            1 => Some(Refusal::Version),
            2 => Some(Refusal::User),
            3 => Some(Refusal::Full),
            4 => Some(Refusal::Ending),
            5 => Some(Refusal::NoGreeting),
            _ => None,
        };
        Some(Self { why, server: Version::get(&mut payload)?, text: get_text(&mut payload)? })
    }
}

fn put_text(to: &mut BytesMut, text: &str) {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    to.put_u16_le(u16::try_from(end).unwrap_or_default());
    to.extend_from_slice(&text.as_bytes()[..end]);
}

fn get_text(from: &mut Bytes) -> Option<String> {
    let length = usize::from(from.try_get_u16_le().ok()?);
    let bytes = (length <= from.len()).then(|| from.split_to(length))?;
    String::from_utf8(bytes.into()).ok()
}

/// A call, without its content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// As whom it is made; none for as whom the client was taken.
    pub(crate) caller: Option<Caller>,
    /// In which of the client's lives.
    pub(crate) life: u64,
    pub(crate) request: Request,
    /// The lengths of the contents that the body is made of.
    lengths: Vec<u64>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    Syscall(Syscall),
    Access {
        path: VPath,
        right: Right,
    },
    /// Gives a lock back without asking anybody whether that may be; gives [`Given::Released`].
    Release {
        path: VPath,
        id: LockId,
    },
    Stream(Streaming),
    /// Starts a child process; gives [`Given::Child`].
    Spawn(ChildSpec),
    /// Waits for the end of a child, or until all that it wrote is where it belongs; gives [`Given::Child`].
    Await {
        id: ChildId,
        done: bool,
    },
    /// Where the pipe or stream at the path is in shared memory, to be read or to be written to; gives [`Given::Region`].
    Region {
        path: VPath,
        writes: bool,
    },
}

impl Request {
    /// The operation, of a call that may wait for what others do, for as long as they do not. Those stand in a line of their own, so that they keep nobody from doing it.
    pub(crate) fn waits(&self) -> Option<Op> {
        let waits = match self {
            Self::Syscall(Syscall::Watch(_)) => true,
            Self::Syscall(Syscall::Lock(call)) => call.wait.is_some(),
            Self::Syscall(Syscall::Read(call)) => call.wait.is_some(),
            Self::Syscall(Syscall::Take(call)) => call.wait.is_some(),
            Self::Syscall(Syscall::Write(call)) => call.wait.is_some(),
            Self::Await { .. } | Self::Stream(Streaming::Events(..)) => true,
            Self::Stream(Streaming::Take(_, wait) | Streaming::Put(_, _, wait)) => wait.is_some(),
            _ => false,
        };
        waits.then(|| self.op())
    }

    /// The operation that it is, for its errors.
    pub(crate) fn op(&self) -> Op {
        match self {
            Self::Syscall(call) => call.op(),
            Self::Access { .. } => Op::Access,
            Self::Release { .. } => Op::Unlock,
            Self::Spawn(_) | Self::Await { .. } => Op::Spawn,
            Self::Region { writes: false, .. } => Op::Read,
            Self::Region { writes: true, .. } => Op::Write,
            Self::Stream(Streaming::Watch(..) | Streaming::Events(..)) => Op::Watch,
            Self::Stream(
                Streaming::Open(..)
                | Streaming::Next(..)
                | Streaming::Close(_)
                | Streaming::Reader(..)
                | Streaming::Take(..),
            ) => Op::Read,
            Self::Stream(_) => Op::Write,
        }
    }
}

/// What is asked about a stream, which the owner's process has. The client numbers its streams: so it can also close one of which it never heard whether it was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "there is one for as long as its frame is read or written")]
pub(crate) enum Streaming {
    /// Opens content; gives [`Given::Opened`].
    Open(u64, SysRead),
    /// The bytes from this place in the stream on; gives [`Given::Piece`]. Asked again for the same place, it gives the same.
    Next(u64, u64),
    /// Begins a write; gives [`Given::Opened`].
    Begin(u64, SysWrite),
    /// Bytes for a write. They travel in the body.
    Piece(u64, Bytes),
    /// All bytes have come: commits the write.
    Finish(u64),
    /// Gives the stream up.
    Close(u64),
    /// Opens the reading end of a pipe; gives [`Given::Opened`]. It is closed as a stream is.
    Reader(u64, VPath),
    /// Opens the writing end of a pipe; gives [`Given::Opened`].
    Writer(u64, VPath),
    /// The next message of the pipe, waited for so long; gives [`Given::Piece`], which is the last without a message.
    Take(u64, Option<Duration>),
    /// A message for the pipe, which waits for room for so long. It travels in the body.
    Put(u64, Bytes, Option<Duration>),
    /// Begins a watch, and says whether it goes on where another one was lost; gives [`Given::Watching`]. It is closed as a stream is.
    Watch(u64, SysWatch, bool),
    /// What the watch tells next, waited for so long; gives what [`SysWatch`] gives, or [`Given::NoWatch`]. Says how many answers that told something have come: asked again
    /// without the last of them, it gives that again.
    Events(u64, u64, Duration),
}

/// A reply, without its content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    result: Result<Given, Error>,
    lengths: Vec<u64>,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Given {
    Answer(Answer),
    Access(bool),
    /// Whether the lock was held.
    Released(bool),
    /// A stream is open; one that is read is of this file.
    Opened(Option<Arc<FileMetadata>>),
    /// Bytes, which travel in the body, and whether they are the last.
    Piece(Bytes, bool),
    /// A watch is there, and tells all from this place on.
    Watching(Lsn),
    /// That watch is not there: its connection was another.
    NoWatch,
    /// A child process, as it is now.
    Child(Box<ChildEntry>),
    /// Where it is in shared memory, if it is there.
    Region(Option<SharedRegion>),
}

impl Given {
    /// Whether it is a message that was taken from a pipe, as what `request` comes to.
    pub(crate) fn is_taken(&self, request: &Request) -> bool {
        match (self, request) {
            (Self::Answer(Answer::Read(read)), _) => {
                read.metadata.entry_type == EntryType::Pipe && !read.data.is_empty()
            }
            (Self::Piece(message, _), Request::Stream(Streaming::Take(..))) => !message.is_empty(),
            _ => false,
        }
    }
}

/// A message ready to leave.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<Bytes>,
}

impl Parcel {
    /// How many bytes the body has.
    pub(crate) fn body_length(&self) -> u64 {
        self.body.iter().map(|part| part.len() as u64).sum()
    }
}

impl Call {
    /// Packs a call: its content goes into the body as it is.
    pub(crate) fn pack(caller: Option<Caller>, life: u64, mut request: Request) -> Result<Parcel, WireError> {
        let body = match &mut request {
            Request::Syscall(Syscall::Write(call)) => {
                let mut body = std::mem::take(&mut call.data);
                if body.len() >= CONTENTS_MAX {
                    body = vec![body.concat().into()];
                }
                if let Place::Instead { of, .. } = &mut call.place {
                    body.push(std::mem::take(of));
                }
                body
            }
            Request::Stream(Streaming::Piece(_, data) | Streaming::Put(_, data, _)) => {
                vec![std::mem::take(data)]
            }
            Request::Syscall(Syscall::Tx(call)) => {
                shorten(call);
                contents_of(call).map(std::mem::take).collect()
            }
            _ => Vec::new(),
        };
        let head = encode(&Self { caller, life, request, lengths: lengths(&body) })?;
        Ok(Parcel { head, body })
    }

    /// The call in a message.
    pub(crate) fn unpack(message: Message) -> Result<Self, WireError> {
        let mut call: Self = decode(&message.head)?;
        let mut contents = contents(&call.lengths, message.body)?;
        match &mut call.request {
            Request::Syscall(Syscall::Write(call)) => {
                if let Place::Instead { of, .. } = &mut call.place {
                    *of = contents.pop().ok_or_else(misfit)?;
                }
                call.data = contents;
            }
            Request::Stream(Streaming::Piece(_, data) | Streaming::Put(_, data, _)) => {
                *data = contents.pop().ok_or_else(misfit)?;
                if !contents.is_empty() {
                    return Err(misfit());
                }
            }
            Request::Syscall(Syscall::Tx(call)) => {
                let mut contents = contents.into_iter();
                for place in contents_of(call) {
                    *place = contents.next().ok_or_else(misfit)?;
                }
                if contents.next().is_some() {
                    return Err(misfit());
                }
            }
            _ if contents.is_empty() => {}
            _ => return Err(misfit()),
        }
        Ok(call)
    }
}

impl Reply {
    /// Packs a reply: its content goes into the body as it is.
    pub(crate) fn pack(mut result: Result<Given, Error>) -> Result<Parcel, WireError> {
        let body = match &mut result {
            Ok(Given::Answer(Answer::Read(read))) => {
                let first = std::mem::take(&mut read.data);
                std::iter::once(first).chain(std::mem::take(&mut read.more)).collect()
            }
            Ok(Given::Piece(data, _)) => vec![std::mem::take(data)],
            _ => Vec::new(),
        };
        let head = encode(&Self { result, lengths: lengths(&body) })?;
        Ok(Parcel { head, body })
    }

    /// What the call of this reply came to.
    pub(crate) fn unpack(message: Message) -> Result<Result<Given, Error>, WireError> {
        let mut reply: Self = decode(&message.head)?;
        let contents = contents(&reply.lengths, message.body)?;
        match &mut reply.result {
            Ok(Given::Answer(Answer::Read(read))) => {
                let mut contents = contents.into_iter();
                read.data = contents.next().ok_or_else(misfit)?;
                read.more = contents.collect();
            }
            Ok(Given::Piece(data, _)) => {
                let [piece] = contents.try_into().map_err(|_| misfit())?;
                *data = piece;
            }
            _ if contents.is_empty() => {}
            _ => return Err(misfit()),
        }
        Ok(reply.result)
    }
}

/// All contents of a transaction, in their order.
fn contents_of(call: &mut SysTx) -> impl Iterator<Item = &mut Bytes> {
    call.ops.iter_mut().flat_map(|op| {
        let (data, replaced) = match op {
            TxOp::Write(SysWrite { data, place: Place::Instead { of, .. }, .. }) => (&mut data[..], Some(of)),
            TxOp::Write(SysWrite { data, .. }) => (&mut data[..], None),
            _ => (&mut [][..], None),
        };
        data.iter_mut().chain(replaced)
    })
}

/// Puts together what is given in more parts than one message has room for.
fn shorten(call: &mut SysTx) {
    if contents_of(call).count() > CONTENTS_MAX {
        for op in &mut call.ops {
            if let TxOp::Write(SysWrite { data, .. }) = op {
                *data = vec![data.concat().into()];
            }
        }
    }
}

fn lengths(body: &[Bytes]) -> Vec<u64> {
    body.iter().map(|content| content.len() as u64).collect()
}

/// The contents that a body is made of, without a copy.
fn contents(lengths: &[u64], mut body: Bytes) -> Result<Vec<Bytes>, WireError> {
    if lengths.len() > CONTENTS_MAX {
        return Err(WireError::Malformed(format!("{} contents in one message", lengths.len())));
    }
    let mut contents = Vec::with_capacity(lengths.len());
    for length in lengths {
        let length = usize::try_from(*length).ok().filter(|length| *length <= body.len());
        contents.push(body.split_to(length.ok_or_else(misfit)?));
    }
    if body.is_empty() { Ok(contents) } else { Err(misfit()) }
}

fn misfit() -> WireError {
    WireError::Malformed("the content of a message is not what its head says".into())
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, WireError> {
    postcard::to_allocvec(value).map_err(|why| WireError::Malformed(why.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(WireError::Malformed(format!("{} bytes follow a structure", rest.len()))),
        Err(why) => Err(WireError::Malformed(why.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::syscall::{ReadData, SysStat, SysUnlink};
    use nexus_messages::{ErrorKind, FileId, Op, Timestamp, ZoneId};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::lives::OWN;
    use super::super::wire::Kind;
    use super::*;

    fn path() -> VPath {
        VPath::parse("/a/b").expect("written as one")
    }

    fn arrived(parcel: Parcel) -> Message {
        Message { kind: Kind::Call, number: 1, head: parcel.head.into(), body: parcel.body.concat().into() }
    }

    fn check_call(call: impl Into<Syscall>, in_body: u64) {
        let request = Request::Syscall(call.into());
        let parcel = Call::pack(None, OWN, request.clone()).expect("it can be written");
        assert_eq!(parcel.body_length(), in_body, "{request:?}");
        assert!(parcel.head.len() < 100, "content is in the body");
        assert_eq!(Call::unpack(arrived(parcel)).expect("it can be read").request, request);
    }

    #[test]
    fn calls_arrive_with_their_content() {
        check_call(SysStat::at(path()), 0);
        check_call(SysWrite::at(path(), vec![7; 1_000]).create(), 1_000);
        check_call(SysWrite::vectored(path(), vec!["a".into(), "".into(), "bcd".into()]), 4);
        check_call(SysWrite::vectored(path(), vec![]), 0);
        check_call(SysWrite::edit(path(), vec![1; 300], vec![2; 200]).all(), 500);
        let edit = SysWrite::edit(path(), vec![1; 300], vec![2; 200]);
        let vectored = SysWrite::vectored(path(), vec!["a".into(), "".into(), "bcd".into()]);
        check_call(SysTx::new().with(edit).with(SysUnlink::at(path())).with(vectored), 504);
        check_call(SysTx::new(), 0);
    }

    #[test]
    fn pieces_of_streams_travel_in_the_body() {
        let request = Request::Stream(Streaming::Piece(7, vec![1; 500].into()));
        let parcel = Call::pack(None, OWN, request.clone()).expect("it can be written");
        assert!(parcel.body_length() == 500 && parcel.head.len() < 20);
        assert_eq!(Call::unpack(arrived(parcel)).expect("it can be read").request, request);
        check_reply(Ok(Given::Piece(vec![2; 300].into(), true)));
        check_reply(Ok(Given::Opened(None)));
    }

    fn check_reply(result: Result<Given, Error>) {
        let parcel = Reply::pack(result.clone()).expect("it can be written");
        assert_eq!(Reply::unpack(arrived(parcel)).expect("it can be read"), result);
    }

    #[test]
    fn replies_arrive_with_their_content() {
        let metadata = FileMetadata::new(path(), ZoneId::root(), FileId(7), EntryType::Reg, Timestamp(1));
        let mut read = ReadData::new(Bytes::from(vec![7; 1_000]), metadata.into());
        check_reply(Ok(Given::Answer(read.clone().into())));
        read.more = vec!["".into(), "abc".into()];
        check_reply(Ok(Given::Answer(read.into())));
        check_reply(Ok(Given::Access(true)));
        check_reply(Err(Error::new(Op::Read, &path(), ErrorKind::Io).because("disk").outcome_unknown()));
    }

    #[test]
    fn a_body_that_does_not_fit_its_head_is_refused() {
        let parcel = Call::pack(None, OWN, Request::Syscall(SysWrite::at(path(), "abc").into()));
        let good = arrived(parcel.expect("it can be written"));
        let longer = Message { body: "abcd".into(), ..good.clone() };
        let shorter = Message { body: "ab".into(), ..good };
        assert!(Call::unpack(longer).is_err() && Call::unpack(shorter).is_err());
        let parcel =
            Call::pack(None, OWN, Request::Syscall(SysRead::at(path()).into())).expect("it can be written");
        let more = Message { body: "x".into(), ..arrived(parcel) };
        assert!(Call::unpack(more).is_err());
    }

    #[test]
    fn a_greeting_can_be_read_by_every_version() {
        let version = Version { protocol: 77, product: "9.9.9-next".into() };
        assert_eq!(read_hello(hello(&version)), Some(version.clone()));
        let long = Version { product: "ü".repeat(TEXT_MAX), ..version.clone() };
        assert_eq!(read_hello(hello(&long)).expect("it is cut").product, "ü".repeat(TEXT_MAX / 2));
        let refused = Refused { why: Some(Refusal::Version), server: version, text: "no".into() };
        assert_eq!(Refused::read(refused.write()), Some(refused));
        assert!(hello(&long).len() <= GREETING_MAX);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_without_a_panic(head in vec(any::<u8>(), 0..200), body in vec(any::<u8>(), 0..50)) {
            let message = Message { kind: Kind::Call, number: 1, head: head.clone().into(), body: body.into() };
            let _ = Call::unpack(message.clone());
            let _ = Reply::unpack(message);
            let _ = Welcome::read(&head);
            let _ = read_hello(head.clone().into());
            let _ = Refused::read(Bytes::from(head).clone());
            let mut greeting = BytesMut::from(&MAGIC[..]);
            greeting.extend_from_slice(b"\xff\xff\xff\xff\xff\xff");
            prop_assert_eq!(read_hello(greeting.freeze()), None);
        }
    }
}
