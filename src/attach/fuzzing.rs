//! What the wire is fuzzed with. A socket has no checksums: what is promised is that no bytes of a peer break anything or are kept beyond what has
//! arrived, and that what is sent arrives as it was, in whatever portions.

use std::io::IoSlice;

use arbitrary::Unstructured;
use bytes::Bytes;
use nexus_messages::VPath;
use nexus_messages::syscall::{SysRead, SysTx, SysUnlink, SysWrite, Syscall};

use super::lives::OWN;
use super::message::{Call, Refused, Reply, Request, Welcome, read_hello};
use super::wire::{FRAME_MAX, Inbox, Incoming, Kind, Message, Outbox, SLICES_MAX, WireError};

/// Frames of any kind, and frames that were sent, in portions.
pub(crate) fn frames(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let portion = u.int_in_range(1..=300)?;
    if u.arbitrary()? {
        let bytes = u.bytes(u.len())?;
        let at_once = arrive(bytes, bytes.len().max(1));
        assert_eq!(arrive(bytes, portion), at_once, "portions make a difference");
        return Ok(());
    }
    let (mut out, mut sent) = (Outbox::default(), Vec::new());
    for number in 1..=u.int_in_range(1..=3)? {
        let head: Bytes = vec![7; u.int_in_range(0..=300)?].into();
        let large = if u.ratio(1, 10)? { FRAME_MAX } else { 0 };
        let body: Bytes = vec![9; large + u.int_in_range(0..=300)?].into();
        out.push_message(Kind::Reply, number, &head, vec![body.clone()]);
        sent.push(Message { kind: Kind::Reply, number, head, body });
    }
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = out.slices(&mut slices);
        let before = bytes.len();
        slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice));
        let offered = bytes.len() - before;
        let taken = u.int_in_range(1..=offered)?.max(offered.min(4_096));
        bytes.truncate(before + taken);
        out.left(taken, |_| {});
    }
    let (mut arrived, error) = arrive(&bytes, portion);
    arrived.retain(|incoming| *incoming != Incoming::Part);
    arrived.sort_by_key(|incoming| match incoming {
        Incoming::Message(message) => message.number,
        _ => 0,
    });
    assert_eq!((arrived, error), (sent.into_iter().map(Incoming::Message).collect(), None));
    Ok(())
}

/// What arrives when the bytes come in such portions, and why no more does.
fn arrive(bytes: &[u8], portion: usize) -> (Vec<Incoming>, Option<WireError>) {
    let mut inbox = Inbox::new(FRAME_MAX);
    let mut arrived = Vec::new();
    for bytes in bytes.chunks(portion) {
        let room = inbox.room();
        assert!(room.capacity() <= 4 * FRAME_MAX, "room is made for what did not arrive");
        room.extend_from_slice(bytes);
        loop {
            match inbox.next() {
                Ok(Some(incoming)) => arrived.push(incoming),
                Ok(None) => break,
                Err(error) => return (arrived, Some(error)),
            }
        }
    }
    (arrived, None)
}

/// A message with any head and body.
fn any_message(u: &mut Unstructured<'_>) -> arbitrary::Result<Message> {
    let body = u.int_in_range(0..=40)?;
    let body = Bytes::from(u.bytes(body.min(u.len()))?.to_vec());
    Ok(Message { kind: Kind::Call, number: 1, head: u.bytes(u.len())?.to_vec().into(), body })
}

/// A call of any bytes, and one of ours: what is taken travels again as the same.
pub(crate) fn call(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let request = if u.arbitrary()? {
        let Ok(call) = Call::unpack(any_message(u)?) else { return Ok(()) };
        call.request
    } else {
        Request::Syscall(any_call(u)?)
    };
    // A peer can say more than can be packed: that it is told is enough.
    let Ok(parcel) = Call::pack(None, OWN, request.clone()) else { return Ok(()) };
    let body = parcel.body.concat();
    let message = Message { kind: Kind::Call, number: 1, head: parcel.head.into(), body: body.into() };
    let arrived = Call::unpack(message).expect("it is of our making");
    assert_eq!(arrived.request, request, "a call is another one when it has travelled");
    Ok(())
}

fn any_call(u: &mut Unstructured<'_>) -> arbitrary::Result<Syscall> {
    let path = VPath::parse("/a/b").expect("it is a path");
    let bytes = |u: &mut Unstructured<'_>| Ok(Bytes::from(vec![u.arbitrary()?; u.int_in_range(0..=50)?]));
    let write = |u: &mut Unstructured<'_>| {
        arbitrary::Result::Ok(match u.int_in_range(0..=2)? {
            0 => SysWrite::at(&path, bytes(u)?).create(),
            1 => SysWrite::edit(&path, bytes(u)?, bytes(u)?).all(),
            _ => SysWrite::vectored(&path, vec![bytes(u)?; u.int_in_range(0..=3)?]),
        })
    };
    Ok(match u.int_in_range(0..=2)? {
        0 => write(u)?.into(),
        1 => SysRead::at(&path).range(u.arbitrary()?, u.arbitrary()?).into(),
        _ => {
            let mut call = SysTx::new();
            for _ in 0..u.int_in_range(0..=3)? {
                call = if u.arbitrary()? { call.with(write(u)?) } else { call.with(SysUnlink::at(&path)) };
            }
            call.into()
        }
    })
}

/// A reply of any bytes: what is taken travels again as the same.
pub(crate) fn reply(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let Ok(result) = Reply::unpack(any_message(u)?) else { return Ok(()) };
    let Ok(parcel) = Reply::pack(result.clone()) else { return Ok(()) };
    let body = parcel.body.concat();
    let message = Message { kind: Kind::Reply, number: 1, head: parcel.head.into(), body: body.into() };
    let arrived = Reply::unpack(message).expect("it is of our making");
    assert_eq!(arrived, result, "a reply is another one when it has travelled");
    Ok(())
}

/// The first words of a peer.
pub(crate) fn greeting(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let magic: bool = u.arbitrary()?;
    let noise = u.bytes(u.len())?;
    let said = if magic { [b"nexus\0s\x01", noise].concat() } else { noise.to_vec() };
    if let Some(version) = read_hello(said.into()) {
        let _ = version.to_string();
    }
    if let Some(refused) = Refused::read(noise.to_vec().into()) {
        let again = Refused::read(refused.write());
        // Text that is too long is cut off.
        assert_eq!(again.map(|again| again.why), Some(refused.why));
    }
    if let Ok(welcome) = Welcome::read(noise) {
        let written = welcome.write().expect("it is plain data");
        assert_eq!(Welcome::read(&written), Ok(welcome));
    }
    Ok(())
}
