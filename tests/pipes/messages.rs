//! Messages: whole, in order, each once, within the capacity; waiting and not waiting.

use std::time::Duration;

use futures_util::FutureExt;
use nexus::{
    ByteRange, Bytes, Durability, Errno, ErrorKind, Executed, OpId, Precondition, SysRead, SysWrite,
};

use crate::bench::{LONG, SHORT, path, piped, read, refused, write};

#[test]
fn messages_come_whole_and_in_the_order_in_which_they_were_written() {
    let (nx, at) = piped(1_000);
    for message in ["one", "two and more", "3"] {
        let written = nx.send(SysWrite::at(&at, message.to_owned())).expect("there is room");
        assert_eq!((written.written, written.created), (message.len() as u64, false));
        let receipt = written.receipt;
        assert_eq!((receipt.lsn.0, receipt.durability, receipt.changed), (0, Durability::Volatile, false));
    }
    let parts: Vec<Bytes> = vec!["in ".into(), "several ".into(), "buffers".into()];
    nx.send(SysWrite::vectored(&at, parts)).expect("there is room");
    for message in ["one", "two and more", "3", "in several buffers"] {
        assert_eq!(read(&nx, &at).unwrap(), message);
    }
    refused(read(&nx, &at), Errno::EAGAIN);
}

#[test]
fn everyday_methods_write_and_read_messages() {
    let (nx, at) = piped(1_000);
    nx.write(&at, "one").unwrap();
    nx.append(&at, "two").unwrap();
    assert_eq!(nx.read(&at).unwrap(), "one");
    let read = nx.read_batch([at.clone(), at.clone()]);
    assert_eq!(read[0].as_ref().unwrap(), "two");
    assert_eq!(read[1].as_ref().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn an_empty_message_is_none() {
    let (nx, at) = piped(10);
    assert_eq!(nx.send(SysWrite::at(&at, "")).unwrap().written, 0);
    assert_eq!(nx.send(SysWrite::vectored(&at, vec![])).unwrap().written, 0);
    refused(read(&nx, &at), Errno::EAGAIN);
}

#[test]
fn the_capacity_counts_the_bytes_of_messages_and_nothing_else() {
    let (nx, at) = piped(10);
    for _ in 0..10 {
        write(&nx, &at, "x").unwrap();
    }
    let full = refused(write(&nx, &at, "x"), Errno::EAGAIN);
    assert_eq!((full.kind(), full.executed()), (ErrorKind::WouldBlock, Executed::No));
    assert_eq!(full.to_string(), "write /p: would have to wait: there is no room in the pipe (EAGAIN)");
    assert_eq!(read(&nx, &at).unwrap(), "x");
    write(&nx, &at, "y").unwrap();
    let large = refused(write(&nx, &at, "eleven byte"), Errno::EMSGSIZE);
    assert_eq!(large.kind(), ErrorKind::MessageTooLarge);
    let patient = SysWrite::at(&at, "eleven byte").wait(LONG);
    refused(nx.send(patient), Errno::EMSGSIZE);
}

#[test]
fn a_pipe_holds_so_many_messages_and_no_more_however_short() {
    let (nx, at) = piped(1 << 20);
    let room = nx.stat(&at).unwrap().pipe().expect("it is a pipe").messages_max();
    assert_eq!(room, 16_384);
    for _ in 0..room {
        write(&nx, &at, "x").unwrap();
    }
    refused(write(&nx, &at, "x"), Errno::EAGAIN);
}

#[test]
fn what_makes_no_sense_for_a_pipe_is_refused_and_takes_nothing() {
    let (nx, at) = piped(100);
    write(&nx, &at, "kept").unwrap();
    let reads = [
        SysRead::at(&at).range(0, 2),
        SysRead::at(&at).from_offset(1),
        SysRead::at(&at).vectored(vec![ByteRange::ALL]),
        SysRead::at(&at).as_of(nexus::AsOf::Lsn(nexus::Lsn(1))),
    ];
    for call in reads {
        refused(nx.send(call), Errno::EINVAL);
    }
    let write = || SysWrite::at(&at, "lost");
    refused(nx.send(write().offset(3)), Errno::EINVAL);
    refused(nx.send(SysWrite::edit(&at, "a", "b")), Errno::EINVAL);
    refused(nx.send(write().when(Precondition::Version(0))), Errno::EINVAL);
    refused(nx.send(write().attributes(nexus::Attributes::none().mode(0o600))), Errno::EINVAL);
    refused(nx.send(write().create_exclusive()), Errno::EEXIST);
    let mut fenced = write();
    fenced.fence = Some(nexus::Fence::new(at.clone(), 1));
    refused(nx.send(fenced), Errno::EFENCED);
    refused(nx.send(write().strong()), Errno::EOPNOTSUPP);
    refused(nx.write_stream(&at, [Ok("lost".into())]), Errno::EOPNOTSUPP);
    refused(nx.stream(&at).map(drop), Errno::EOPNOTSUPP);
    assert_eq!(read(&nx, &at).unwrap(), "kept");
    refused(read(&nx, &at), Errno::EAGAIN);
}

#[test]
fn a_read_that_waits_says_when_nothing_came() {
    let (nx, at) = piped(100);
    for wait in [SHORT, Duration::ZERO] {
        let began = nx.env().now();
        let none = refused(nx.send(SysRead::at(&at).wait(wait)), Errno::ETIMEDOUT);
        assert_eq!((none.kind(), none.executed()), (ErrorKind::TimedOut, Executed::No));
        let took = nx.env().now().duration_since(began);
        assert!(took >= wait && took < LONG, "{took:?}");
    }
    write(&nx, &at, "x").unwrap();
    assert_eq!(nx.send(SysRead::at(&at).wait(SHORT)).unwrap().data, "x");
}

#[test]
fn a_write_to_a_full_pipe_waits_for_room_and_says_when_there_was_none() {
    let (nx, at) = piped(4);
    write(&nx, &at, "full").unwrap();
    let none = refused(nx.send(SysWrite::at(&at, "more").wait(SHORT)), Errno::ETIMEDOUT);
    assert_eq!((none.kind(), none.executed()), (ErrorKind::TimedOut, Executed::No));
    let mut waiting = Box::pin(nx.as_async().send(SysWrite::at(&at, "more").wait(LONG)));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(read(&nx, &at).unwrap(), "full");
    assert_eq!(nx.env().blocking_wait(waiting).unwrap().written, 4);
    assert_eq!(read(&nx, &at).unwrap(), "more");
    refused(read(&nx, &at), Errno::EAGAIN);
}

#[test]
fn a_waiting_read_wakes_on_a_write_by_another_thread() {
    let (nx, at) = piped(100);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| nx.send(SysRead::at(&at).wait(LONG)));
        // It waits already, or finds it.
        write(&nx, &at, "x").unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().data, "x");
    });
}

#[test]
fn a_reader_that_is_cancelled_takes_no_message_along() {
    let (nx, at) = piped(100);
    let waits = || Box::pin(nx.as_async().send(SysRead::at(&at).wait(LONG)));
    let (mut first, mut second) = (waits(), waits());
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    write(&nx, &at, "x").unwrap();
    // It was woken for the message, and goes away with the wake.
    drop(first);
    assert_eq!(nx.env().blocking_wait(second).unwrap().data, "x");
    drop(waits());
    write(&nx, &at, "y").unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "y");
}

#[test]
fn a_writer_that_is_cancelled_writes_nothing_and_lets_the_next_one_write() {
    let (nx, at) = piped(4);
    write(&nx, &at, "full").unwrap();
    let waits = |message: &str| {
        let call = SysWrite::at(&at, message.to_owned()).wait(LONG);
        Box::pin(nx.as_async().send(call))
    };
    let (mut first, mut second) = (waits("lost"), waits("kept"));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    assert_eq!(read(&nx, &at).unwrap(), "full");
    drop(first);
    nx.env().blocking_wait(second).unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "kept");
    refused(read(&nx, &at), Errno::EAGAIN);
}

#[test]
fn a_link_leads_to_a_pipe() {
    let (nx, at) = piped(100);
    nx.link("/l", "/p").unwrap();
    write(&nx, &path("/l"), "x").unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "x");
    write(&nx, &at, "y").unwrap();
    assert_eq!(read(&nx, &path("/l")).unwrap(), "y");
}

#[test]
fn a_write_with_an_identity_may_wait_for_ever() {
    let (nx, at) = piped(4);
    let call =
        |message: &'static str, op: u128| SysWrite::at(&at, message).op_id(OpId(op)).wait(Duration::MAX);
    nx.send(call("one", 1)).unwrap();
    let mut waiting = Box::pin(nx.as_async().send(call("two", 2)));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(read(&nx, &at).unwrap(), "one");
    nx.env().blocking_wait(waiting).unwrap();
    assert_eq!(read(&nx, &at).unwrap(), "two");
}
