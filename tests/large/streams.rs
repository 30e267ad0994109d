//! Content that goes in and out piece by piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nexus::blocking::{Nexus, attach};
use nexus::{Bytes, Config, Error, ErrorKind, MountSpec, Op, Precondition, Result, Serving, SysWrite, VPath};

use crate::bench::{Bench, KIB, MIB, noise};

/// A path-addressed and a content-addressed mount of one kernel, and the same over its socket.
fn everywhere(check: impl Fn(&Nexus, &str)) {
    let folder = tempfile::tempdir().expect("it is done");
    let config = Config::new(folder.path().join("data")).serve(Serving::administrator());
    let nx = nexus::blocking::connect(config).expect("it is done");
    let files = folder.path().join("files");
    std::fs::create_dir(&files).expect("it is done");
    nx.mount("/files", MountSpec::new("path-local").option("folder", files.display().to_string()))
        .expect("it is done");
    nx.mount("/memory", MountSpec::new("memory-path")).expect("it is done");
    let attached = attach(folder.path().join("data")).expect("it is done");
    for (nx, on) in [(&nx, "local"), (&attached, "attached")] {
        for point in ["", "/files", "/memory"] {
            check(nx, &format!("{point}/{on}"));
        }
    }
}

fn pieces(content: &[u8], size: usize) -> impl Iterator<Item = Result<Bytes>> + use<> {
    content.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>().into_iter()
}

fn all(stream: impl Iterator<Item = Result<Bytes>>) -> Vec<u8> {
    stream.map(|piece| piece.expect("it is done")).collect::<Vec<_>>().concat()
}

#[test]
fn what_was_streamed_in_is_streamed_out() {
    everywhere(|nx, below| {
        for (n, (length, piece)) in
            [(0, 1), (5, 2), (20_000, 999), (MIB, MIB), (MIB + 1, 7_000), (6 * MIB + 5, 100_000)]
                .iter()
                .enumerate()
        {
            let (at, content) = (format!("{below}/{n}"), noise(n as u64, *length));
            let written = nx.write_stream(&at, pieces(&content, *piece)).unwrap();
            assert_eq!((written.written, written.created), (*length as u64, true), "{at}");
            assert_eq!(written.metadata.size, *length as u64);
            assert!(nx.read(&at).unwrap() == content, "{at}");
            assert!(all(nx.stream(&at).unwrap()) == content, "{at}");
            let (from, to) = (length / 3, length - length / 5);
            assert!(all(nx.stream_range(&at, from as u64..to as u64).unwrap()) == content[from..to], "{at}");
            assert!(all(nx.stream_range(&at, *length as u64..).unwrap()).is_empty());
            // As if it had been written at once.
            nx.write(format!("{below}/at-once"), content).unwrap();
            let id = |at: &str| nx.stat(at).unwrap().content_id.clone();
            if !at.starts_with("/files") && !at.starts_with("/memory") {
                assert_eq!(id(&at), id(&format!("{below}/at-once")));
            }
        }
        assert_eq!(nx.stream(format!("{below}/missing")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(nx.stream(below).unwrap_err().kind(), ErrorKind::IsADirectory);
        let into = nx.write_stream(below, pieces(b"x", 1)).unwrap_err();
        assert_eq!(into.kind(), ErrorKind::IsADirectory);
    });
}

#[test]
fn a_stream_that_fails_changes_nothing() {
    everywhere(|nx, below| {
        let at = format!("{below}/f");
        nx.write(&at, "before").unwrap();
        let broken = || Error::global(Op::Write, ErrorKind::Io).because("the source broke");
        let data = pieces(&noise(1, 9 * MIB), MIB).chain([Err(broken())]);
        let error = nx.write_stream(&at, data).unwrap_err();
        assert!(error.to_string().contains("the source broke"), "{error}");
        assert_eq!(nx.read(&at).unwrap(), "before");
        let new = format!("{below}/new");
        nx.write_stream(&new, [Err(broken())]).unwrap_err();
        assert!(!nx.exists(&new).unwrap());
    });
}

#[test]
fn what_is_expected_is_looked_at_when_all_has_come() {
    everywhere(|nx, below| {
        let at = VPath::parse(&format!("{below}/f")).unwrap();
        nx.write(&at, "one").unwrap();
        let expected = Precondition::Version(nx.stat(&at).unwrap().version);
        let call = || SysWrite::vectored(&at, Vec::new()).when(expected.clone());
        // While the stream comes, nobody holds the path: another writer gets through.
        let other = (nx.clone(), at.clone(), Arc::new(AtomicBool::new(false)));
        let meanwhile = other.2.clone();
        let data = noise(1, 5 * MIB);
        let data = pieces(&data, MIB).inspect(move |_| {
            if !other.2.swap(true, Ordering::SeqCst) {
                let (nx, at) = (other.0.clone(), other.1.clone());
                std::thread::spawn(move || nx.write(&at, "two").unwrap()).join().unwrap();
            }
        });
        let error = nx.send_stream(call(), data).unwrap_err();
        assert!(meanwhile.load(Ordering::SeqCst));
        assert_eq!(error.kind(), ErrorKind::PreconditionFailed, "{error}");
        assert_eq!(nx.read(&at).unwrap(), "two");
    });
}

#[test]
fn a_stream_holds_a_few_chunks() {
    let Bench { nx, store } = Bench::uncached();
    let piece = |n: usize| Ok(Bytes::from(noise(n as u64 + 1, 64 * KIB)));
    nx.write_stream("/f", (0..1_024).map(piece)).unwrap();
    let moved = store.moved();
    assert!(moved.written >= 64 * MIB && moved.most <= 4 * MIB && moved.largest <= 256 * KIB, "{moved:?}");
    let mut come = 0;
    for piece in nx.stream("/f").unwrap() {
        come += piece.unwrap().len();
        // What was read and has not come yet: the chunks ahead, and lists.
        let ahead = store.read_so_far().saturating_sub(come);
        assert!(ahead <= 3 * MIB, "{ahead} bytes ahead");
    }
    assert_eq!(come, 64 * MIB);
}

#[test]
fn a_stream_that_was_opened_goes_on_when_the_file_is_replaced() {
    let Bench { nx, .. } = Bench::uncached();
    let content = noise(1, 8 * MIB);
    nx.write("/f", content.clone()).unwrap();
    let mut stream = nx.stream("/f").unwrap();
    let first = stream.next().unwrap().unwrap();
    nx.write("/f", "new").unwrap();
    nx.unlink("/f").unwrap();
    assert!([first.to_vec(), all(stream)].concat() == content);
}

#[test]
fn a_plain_file_that_changes_under_a_stream_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let nx = nexus::blocking::connect(Config::in_memory()).unwrap();
    nx.mount("/files", MountSpec::new("path-local").option("folder", folder.path().display().to_string()))
        .unwrap();
    nx.write("/files/f", noise(1, 4 * MIB)).unwrap();
    let mut stream = nx.stream("/files/f").unwrap();
    stream.next().unwrap().unwrap();
    nx.send(SysWrite::at(VPath::parse("/files/f").unwrap(), "x").offset(7)).unwrap();
    let told: Vec<_> = stream.collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].as_ref().unwrap_err().kind(), ErrorKind::Busy);
    // Nothing is left of streams beside the files.
    nx.write_stream("/files/g", pieces(&noise(2, 9 * MIB), MIB)).unwrap();
    let names: Vec<_> =
        nx.readdir("/files").unwrap().into_iter().map(|entry| entry.name().to_owned()).collect();
    assert_eq!(names, ["f", "g"]);
}

#[test]
fn a_client_that_goes_away_commits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let nx = nexus::blocking::connect(Config::new(folder.path()).serve(Serving::administrator())).unwrap();
    let attached = attach(folder.path()).unwrap();
    let gone = attached.clone();
    let data = pieces(&noise(1, 4 * MIB), MIB).enumerate().map(move |(n, piece)| {
        if n == 3 {
            gone.shutdown().unwrap();
        }
        piece
    });
    assert_eq!(attached.write_stream("/f", data).unwrap_err().kind(), ErrorKind::Down);
    assert!(!nx.exists("/f").unwrap());
    nx.shutdown().unwrap();
    let nx = nexus::blocking::connect(folder.path()).unwrap();
    assert!(!nx.exists("/f").unwrap());
}

/// A file in the making has a lock for as long as somebody makes it.
#[test]
fn what_a_killed_process_left_of_a_stream_is_seen_by_nobody_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let nx = nexus::blocking::connect(Config::in_memory()).unwrap();
    nx.mount("/files", MountSpec::new("path-local").option("folder", folder.path().display().to_string()))
        .unwrap();
    let below = folder.path().join("d");
    std::fs::create_dir(&below).unwrap();
    let leave = |name: &str| std::fs::File::create(below.join(name)).unwrap();
    leave(".nexus-part-dead");
    let alive = leave(".nexus-part-alive");
    alive.lock().unwrap();
    assert!(nx.readdir("/files/d").unwrap().is_empty());
    for refused in [
        nx.write("/files/d/.nexus-part-mine", "x").unwrap_err(),
        nx.unlink("/files/d/.nexus-part-dead").unwrap_err(),
        nx.rename("/files/d", "/files/.nexus-part-d").unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    }
    let names = || {
        let entries = std::fs::read_dir(&below).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // One that is on its way is in the way; one that is not goes.
    assert_eq!(nx.rmdir("/files/d").unwrap_err().kind(), ErrorKind::NotEmpty);
    nx.write_stream("/files/d/f", pieces(&noise(2, 9 * MIB), MIB)).unwrap();
    assert_eq!(names(), [".nexus-part-alive", "f"]);
    nx.unlink("/files/d/f").unwrap();
    leave(".nexus-part-dead");
    drop(alive);
    nx.rmdir("/files/d").unwrap();
    assert!(!below.exists());
}

#[test]
fn a_stream_of_single_bytes_becomes_what_it_says() {
    everywhere(|nx, below| {
        let at = format!("{below}/bytes");
        let content = noise(5, 70_000);
        // Small ones, one that is not, and small ones again.
        let (small, rest) = content.split_at(66_000);
        let (large, last) = rest.split_at(3_900);
        let all: Vec<_> = pieces(small, 1)
            .chain(pieces(large, 5_000))
            .chain(pieces(small, 9_000))
            .chain(pieces(last, 1))
            .collect();
        nx.write_stream(&at, all).unwrap();
        assert!(nx.read(&at).unwrap() == [small, large, small, last].concat(), "{at}");
    });
}

/// An attached client, and a file of several pieces that it may read.
fn attached() -> (tempfile::TempDir, Nexus, Nexus, Vec<u8>) {
    let folder = tempfile::tempdir().expect("it is done");
    let nx = nexus::blocking::connect(Config::new(folder.path()).serve(Serving::administrator()))
        .expect("it is done");
    let content = noise(4, 9 * MIB);
    nx.write("/f", content.clone()).expect("it is done");
    let attached = attach(folder.path()).expect("it is done");
    (folder, nx, attached, content)
}

#[test]
fn a_piece_whose_call_was_given_up_comes_with_the_next_one() {
    let (_folder, _nx, attached, content) = attached();
    nexus::actors::block_on(async {
        for patience in [0, 1, 10, 100, 1_000, 10_000] {
            let mut stream = attached.as_async().stream("/f").await.unwrap();
            let mut all = Vec::new();
            loop {
                let mut come = None;
                {
                    let mut next = std::pin::pin!(stream.next());
                    for _ in 0..patience {
                        if let std::task::Poll::Ready(piece) = futures_util::poll!(next.as_mut()) {
                            come = Some(piece);
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
                let come = match come {
                    Some(come) => come,
                    None => stream.next().await,
                };
                let Some(piece) = come else { break };
                all.extend_from_slice(&piece.unwrap());
            }
            assert!(all == content, "given up after {patience} looks");
        }
    });
}

#[test]
fn a_stream_that_was_given_up_before_it_was_open_takes_no_place() {
    let (_folder, _nx, attached, _) = attached();
    let nx = attached.as_async();
    nexus::actors::block_on(async {
        for round in 0..600 {
            let mut opening = std::pin::pin!(nx.stream("/f"));
            let mut beginning = std::pin::pin!(nx.write_stream("/new", futures_util::stream::pending()));
            for _ in 0..round % 60 {
                let _ = futures_util::poll!(beginning.as_mut());
                if futures_util::poll!(opening.as_mut()).is_ready() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        // What was given up is closed behind the calls that were made since.
        let mut opened = nx.stream("/f").await;
        for _ in 0..100_000 {
            if opened.is_ok() {
                break;
            }
            std::thread::yield_now();
            opened = nx.stream("/f").await;
        }
        let mut all: Vec<_> = vec![opened.unwrap()];
        while all.len() < 60 {
            all.push(nx.stream("/f").await.unwrap());
        }
    });
}
