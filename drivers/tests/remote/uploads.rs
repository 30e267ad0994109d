//! Content that comes piece by piece: parts that are lost on the way, uploads that are given up, and two that race.

use std::future::poll_fn;
use std::sync::Barrier;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectInfo, ObjectStore, PathUpload, PathWrite, StoreError};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, ErrorKind};

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::{moto, request, s3rver};
use crate::servers::small::Small;
use crate::subjects::{PART, env, names, open, paths, read, s3, write};

/// How long the server may take to hear that an upload is no more.
const GONE_MAX: Duration = Duration::from_secs(10);

fn pushed(store: &dyn ObjectStore, path: &str, content: &[u8]) -> Result<Box<dyn PathUpload>, StoreError> {
    block_on(async {
        let mut upload = paths(store).upload(path).await?;
        for piece in content.chunks(1 << 20) {
            upload.push(Bytes::copy_from_slice(piece)).await?;
        }
        Ok(upload)
    })
}

fn finish(upload: Box<dyn PathUpload>, path: &str, how: PathWrite) -> Result<ObjectInfo, StoreError> {
    block_on(upload.finish(path, how, &Attributes::none()))
}

/// How many uploads the server holds parts of.
fn held(port: u16) -> usize {
    request(port, "GET /bkt?uploads HTTP/1.1").matches("<UploadId>").count()
}

fn nothing_is_held(port: u16) {
    let deadline = env().now() + GONE_MAX;
    while held(port) > 0 {
        assert!(env().now() < deadline, "{} uploads are left", held(port));
        block_on(env().sleep(Duration::from_millis(10)));
    }
}

/// Content of three parts, the last one short.
fn content() -> Vec<u8> {
    let numbers: Vec<u8> = (0..=250).collect();
    let mut content = numbers.repeat(2 * PART / numbers.len() + 2);
    content.truncate(2 * PART + 11);
    content
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing_on_the_server() {
    let server = moto();
    let store = open(&s3(server.port()));
    assert_eq!(held(server.port()), 0, "nothing is left of trying");
    // In the middle of a part, with all parts there, and with none.
    for length in [PART + 1, 2 * PART, 17] {
        let mut upload = pushed(&*store, "f", &content()[..length]).expect("it is taken");
        block_on(upload.settle()).expect("the server has it");
        assert_eq!(held(server.port()), usize::from(length > PART));
        drop(upload);
        nothing_is_held(server.port());
    }
    // Before anything of it is answered.
    for looks in 0..4 {
        let mut upload = block_on(paths(&*store).upload("f")).expect("it is taken");
        block_on(async {
            let mut push = upload.push(content().into());
            for _ in 0..looks {
                if poll_fn(|cx| Poll::Ready(push.as_mut().poll(cx).is_ready())).await {
                    break;
                }
                env().sleep(Duration::from_millis(5)).await;
            }
        });
    }
    nothing_is_held(server.port());
    assert_eq!(names(&*store, ""), [""; 0]);
}

#[test]
fn an_upload_whose_condition_does_not_hold_leaves_nothing_on_the_server() {
    let server = moto();
    let store = open(&s3(server.port()));
    let tag = write(&*store, "f", "1", PathWrite::Whole).expect("it is written").tag;
    let first = pushed(&*store, "f", &content()).expect("it is taken");
    let second = pushed(&*store, "f", &content()).expect("it is taken");
    write(&*store, "f", "others", PathWrite::Whole).expect("it is written");
    let refused = finish(first, "f", PathWrite::IfMatch(tag)).expect_err("it is another one");
    assert_eq!(refused.kind(), ErrorKind::PreconditionFailed, "{refused:?}");
    let refused = finish(second, "f", PathWrite::Exclusive).expect_err("it is there");
    assert!(matches!(refused, StoreError::Exists { .. }), "{refused:?}");
    assert_eq!(held(server.port()), 0);
    assert_eq!(&read(&*store, "f").expect("it is read")[..], b"others");
}

#[test]
fn an_upload_ends_at_its_own_path_once_the_server_has_a_part() {
    let server = moto();
    let store = open(&s3(server.port()));
    let small = pushed(&*store, "f", b"small").expect("it is taken");
    finish(small, "g", PathWrite::Exclusive).expect("nothing was sent yet");
    let large = pushed(&*store, "f", &content()).expect("it is taken");
    let refused = finish(large, "g", PathWrite::Whole).expect_err("parts belong to a key");
    assert!(matches!(refused, StoreError::NotSupported { .. }), "{refused:?}");
    assert_eq!(held(server.port()), 0);
    assert_eq!(names(&*store, ""), ["g"]);
}

#[test]
fn parts_that_are_lost_are_sent_again_and_an_upload_that_cannot_go_on_says_so() {
    let server = moto();
    let proxy = Proxy::start(server.port());
    let spec = s3(proxy.port()).option("timeout_ms", "3000");
    let store = open(&spec.clone().option("retries", "6"));
    let mut upload = pushed(&*store, "f", &content()[..PART]).expect("it is taken");
    let content = content();
    block_on(async {
        proxy.set(Fault::Cut);
        upload.push(Bytes::copy_from_slice(&content[PART..])).await?;
        env().sleep(Duration::from_millis(300)).await;
        proxy.set(Fault::None);
        upload.settle().await
    })
    .expect("it is repeated");
    finish(upload, "f", PathWrite::Exclusive).expect("it is finished");
    assert!(read(&*store, "f").expect("it is read") == content, "another content");

    let store = open(&spec.option("retries", "0"));
    for fault in [Fault::Cut, Fault::Lost, Fault::Unavailable] {
        let mut upload = pushed(&*store, "g", &content[..PART]).expect("it is taken");
        block_on(upload.settle()).expect("the server has it");
        proxy.set(fault);
        let error = block_on(async {
            upload.push(Bytes::copy_from_slice(&content[PART..])).await?;
            upload.settle().await
        });
        let error = error.expect_err("it is lost");
        assert!(error.is_backend_failure() && !error.is_unknown(), "{fault:?}: {error:?}");
        // Told while nothing reaches it, the server is told again.
        drop(upload);
        block_on(env().sleep(Duration::from_millis(100)));
        proxy.set(Fault::None);
        nothing_is_held(server.port());
    }
    assert_eq!(names(&*store, ""), ["f"]);
}

/// What a write of one state, by each of two at the same moment, comes to.
fn race(
    stores: [&dyn ObjectStore; 2],
    path: &str,
    how: &PathWrite,
    contents: [&[u8]; 2],
    large: bool,
) -> usize {
    let barrier = Barrier::new(2);
    let won: Vec<bool> = thread::scope(|scope| {
        let one = |number: usize| {
            let (store, content, barrier) = (stores[number], contents[number], &barrier);
            move || {
                let upload = large.then(|| pushed(store, path, content).expect("it is taken"));
                barrier.wait();
                let written = match upload {
                    Some(upload) => finish(upload, path, how.clone()),
                    None => write(store, path, content.to_vec(), how.clone()),
                };
                match written {
                    Ok(_) => true,
                    Err(
                        StoreError::Changed { .. } | StoreError::Exists { .. } | StoreError::Locked { .. },
                    ) => false,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let racing: Vec<_> = (0..2).map(|number| scope.spawn(one(number))).collect();
        racing.into_iter().map(|racing| racing.join().expect("it does not panic")).collect()
    });
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{path} {how:?}");
    usize::from(won[1])
}

#[test]
fn of_those_that_replace_one_state_at_once_one_wins() {
    const ROUNDS: usize = 20;
    let server = Small::start(Duration::ZERO);
    let stores = [open(&s3(server.port())), open(&s3(server.port()))];
    assert!(stores.iter().all(|store| paths(&**store).capabilities().if_match));
    let stores = [&*stores[0], &*stores[1]];
    let mut tag = write(stores[0], "f", "begin", PathWrite::Whole).expect("it is written").tag;
    for round in 0..ROUNDS {
        let contents = [format!("{round}: 0"), format!("{round}: 1")];
        let bytes = [contents[0].as_bytes(), contents[1].as_bytes()];
        let winner = race(stores, "f", &PathWrite::IfMatch(tag), bytes, false);
        assert_eq!(&read(stores[0], "f").expect("it is there")[..], bytes[winner], "round {round}");
        tag = block_on(paths(stores[0]).stat("f")).expect("it is there").tag;
    }
}

/// As Amazon's does.
#[test]
fn a_server_that_decides_when_parts_are_put_together_is_believed() {
    const ROUNDS: usize = 5;
    let server = Small::start(Duration::ZERO);
    let stores = [open(&s3(server.port())), open(&s3(server.port()))];
    assert!(paths(&*stores[0]).capabilities().conditional_upload);
    assert_eq!(server.uploads(), 0, "nothing is left of trying");
    let stores = [&*stores[0], &*stores[1]];
    let (one, mut other) = (content(), content());
    other[7] ^= 1;
    race(stores, "f", &PathWrite::Exclusive, [&one, &other], true);
    for round in 0..ROUNDS {
        let tag = block_on(paths(stores[0]).stat("f")).expect("it is there").tag;
        let winner = race(stores, "f", &PathWrite::IfMatch(tag), [&one, &other], true);
        let content = [&one, &other][winner];
        assert!(read(stores[0], "f").expect("it is there") == content, "round {round}");
    }
    assert_eq!(server.uploads(), 0);
}

#[test]
fn what_is_put_after_a_look_takes_one_request() {
    let server = Small::start(Duration::ZERO);
    let store = open(&s3(server.port()));
    let put = |path, looked| {
        block_on(paths(&*store).put(path, &[Bytes::from_static(b"new")], &Attributes::none(), looked))
    };
    let before = server.requests();
    let tag = put("a/b", true).expect("it is put");
    assert_eq!(server.requests() - before, 1);
    assert_eq!(block_on(paths(&*store).stat("a/b")).expect("it is there").tag, tag);
    let (above, below) = (put("a/b/c", false), put("a", false));
    assert!(matches!(above, Err(StoreError::NotADirectory { .. })), "{above:?}");
    assert!(matches!(below, Err(StoreError::IsADirectory { .. })), "{below:?}");
    assert_eq!(&read(&*store, "a/b").expect("it is there")[..], b"new");
}

/// This one looks at one of both conditions when parts are put together, and not in one step.
#[test]
fn a_server_that_decides_in_part_is_believed_in_part() {
    let server = moto();
    let can = paths(&*open(&s3(server.port()))).capabilities();
    assert!(can.upload && can.exclusive && can.if_match && !can.conditional_upload);
}

#[test]
fn what_a_server_does_not_decide_is_looked_at_and_not_promised() {
    let server = s3rver();
    let store = open(&s3(server.port()));
    let can = paths(&*store).capabilities();
    assert!(can.upload && !can.if_match && !can.conditional_upload);
    let tag = write(&*store, "f", "1", PathWrite::Whole).expect("it is written").tag;
    write(&*store, "f", "2", PathWrite::Whole).expect("it is written");
    let refused = write(&*store, "f", "3", PathWrite::IfMatch(tag)).expect_err("it is another one");
    assert!(matches!(refused, StoreError::Changed { .. }), "{refused:?}");
}

/// Each part is held against the first one: another state in the middle makes it begin again, at once.
#[test]
fn a_large_read_of_what_changes_meanwhile_is_of_one_state() {
    const ROUNDS: usize = 12;
    let server = moto();
    let (store, other) = (open(&s3(server.port())), open(&s3(server.port())));
    let content = |byte: u8| vec![byte; 3 * PART];
    write(&*other, "f", content(0), PathWrite::Whole).expect("it is written");
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for round in 1..=ROUNDS {
                let byte = u8::try_from(round).expect("they are few");
                write(&*other, "f", content(byte), PathWrite::Whole).expect("it is written");
            }
        });
        let mut reads = 0;
        while !writing.is_finished() || reads == 0 {
            let (bytes, info) = block_on(paths(&*store).read("f", ByteRange::ALL)).expect("it is read");
            assert_eq!((bytes.len(), info.size), (3 * PART, 3 * PART as u64));
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two states in one read");
            reads += 1;
        }
        writing.join().expect("it does not panic");
    });
}
