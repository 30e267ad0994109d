//! Changing a part of large content.

use std::time::Duration;

use nexus::blocking::Nexus;
use nexus::{ContentId, ErrorKind, SysWrite, VPath};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::bench::{Bench, KIB, MIB, noise, on};

/// Longer than anybody is expected to hold what was written.
const LONG: Duration = Duration::from_secs(30);

fn at(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn id(nx: &Nexus, path: &str) -> ContentId {
    nx.stat(path).expect("it is there").content_id.clone().expect("it has content")
}

#[test]
fn what_is_kept_of_a_part_of_a_buffer_is_that_part() {
    let folder = tempfile::tempdir().unwrap();
    let nx = on(folder.path());
    let buffer = nexus::Bytes::from(noise(3, MIB));
    nx.write("/small", buffer.slice(..100)).unwrap();
    nx.write("/middle", buffer.slice(100..200 * KIB)).unwrap();
    assert!(
        nx.read("/small").unwrap() == buffer[..100] && nx.read("/middle").unwrap() == buffer[100..200 * KIB]
    );
    // Who wrote it may hold it for a moment after it was told of.
    let env = nx.env();
    let alone = async {
        while !buffer.is_unique() {
            env.sleep(Duration::from_millis(1)).await;
        }
    };
    env.blocking_wait(env.timeout(LONG, alone)).expect("nobody holds all of it for a part");
}

#[test]
fn a_change_writes_what_lies_around_it() {
    let Bench { nx, store } = Bench::uncached();
    let mut content = noise(1, 64 * MIB);
    content[40 * MIB..40 * MIB + 6].copy_from_slice(b"needle");
    nx.write("/f", content).unwrap();
    let moved = store.moved();
    assert!(moved.largest <= 256 * KIB && moved.written >= 64 * MIB, "{moved:?}");
    let changed = |what: &str, call: SysWrite, read_max: usize| {
        nx.send(call).unwrap();
        let moved = store.moved();
        assert!(moved.given <= MIB && moved.read <= read_max, "{what}: {moved:?}");
    };
    changed("over", SysWrite::at(at("/f"), "x").offset(20 * MIB as u64), 2 * MIB);
    changed("append", SysWrite::at(at("/f"), "x").append(), 2 * MIB);
    changed("truncate", SysWrite::at(at("/f"), "").offset(50 * MIB as u64).truncate(), 2 * MIB);
    // All of it is read to find the text.
    changed("edit", SysWrite::edit(at("/f"), "needle", "a pin"), 55 * MIB);
    changed("gap", SysWrite::at(at("/f"), "end").offset(900 * MIB as u64), 2 * MIB);
    let size = nx.stat("/f").unwrap().size;
    assert_eq!(size, 900 * MIB as u64 + 3);
    assert_eq!(nx.read_range("/f", size - 6, 9).unwrap(), &b"\0\0\0end"[..]);
    assert_eq!(nx.read_range("/f", 40 * MIB as u64, 5).unwrap(), "a pin");
}

#[test]
fn chunks_that_are_there_are_not_written_again() {
    let Bench { nx, store } = Bench::uncached();
    let content = noise(2, 16 * MIB);
    nx.write("/f", content.clone()).unwrap();
    store.moved();
    nx.write("/same", content.clone()).unwrap();
    assert_eq!(store.moved().written, 0);
    nx.write("/shifted", [b"a few bytes in front", &content[..]].concat()).unwrap();
    let written = store.moved().written;
    assert!(written <= MIB, "{written} bytes written");
    nx.copy("/f", "/copied").unwrap();
    assert_eq!((store.moved().given, id(&nx, "/copied")), (0, id(&nx, "/f")));
}

#[derive(Debug, Clone)]
enum Change {
    Whole(u64, usize),
    At(usize, u64, usize, bool),
    Append(u64, usize),
    Edit,
}

fn change() -> impl Strategy<Value = Change> {
    let size = prop_oneof![1usize..100, 1usize..3 * MIB, Just(MIB), Just(MIB + 1)];
    prop_oneof![
        1 => (any::<u64>(), size.clone()).prop_map(|(seed, length)| Change::Whole(seed, length)),
        4 => (0usize..4 * MIB, any::<u64>(), size.clone(), any::<bool>())
            .prop_map(|(offset, seed, length, truncate)| Change::At(offset, seed, length, truncate)),
        3 => (any::<u64>(), size).prop_map(|(seed, length)| Change::Append(seed, length)),
        1 => Just(Change::Edit),
    ]
}

/// In steps that take content from the rows to single blobs to chunks and back.
#[test]
fn content_that_came_about_in_steps_is_what_it_would_be_at_once() {
    let Bench { nx, .. } = Bench::with(|config| config);
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(change(), 1..7);
    let case = |steps: Vec<Change>| {
        let mut model: Vec<u8> = Vec::new();
        nx.write("/f", "").unwrap();
        for step in steps {
            let call = match &step {
                Change::Whole(seed, length) => {
                    model = noise(*seed, *length);
                    SysWrite::at(at("/f"), model.clone())
                }
                Change::At(offset, seed, length, truncate) => {
                    let data = noise(*seed, *length);
                    model.resize(model.len().max(offset + length), 0);
                    model[*offset..offset + length].copy_from_slice(&data);
                    let call = SysWrite::at(at("/f"), data).offset(*offset as u64);
                    if *truncate {
                        model.truncate(offset + length);
                    }
                    if *truncate { call.truncate() } else { call }
                }
                Change::Append(seed, length) => {
                    let data = noise(*seed, *length);
                    model.extend_from_slice(&data);
                    SysWrite::at(at("/f"), data).append()
                }
                Change::Edit => {
                    let middle = model.len() / 2;
                    let of = model[middle..model.len().min(middle + 40)].to_vec();
                    // A gap is full of the same.
                    if of.len() < 40 || of == [0; 40] {
                        continue;
                    }
                    model.splice(middle..middle + 40, *b"another text");
                    SysWrite::edit(at("/f"), of, "another text")
                }
            };
            nx.send(call).unwrap();
            nx.write("/g", model.clone()).unwrap();
            assert_eq!(id(&nx, "/f"), id(&nx, "/g"), "after {step:?}");
            assert_eq!(id(&nx, "/f").chunks().is_some(), model.len() > MIB);
            assert!(nx.read("/f").unwrap() == model, "after {step:?}");
        }
        Ok(())
    };
    runner.run(&steps, case).unwrap();
}

#[test]
fn the_largest_content_is_a_tebibyte() {
    let Bench { nx, .. } = Bench::with(|config| config);
    nx.write("/f", "").unwrap();
    let last = (1 << 40) - 1;
    nx.send(SysWrite::at(at("/f"), "!").offset(last)).unwrap();
    assert_eq!(nx.read_range("/f", last - 1, 9).unwrap(), &b"\0!"[..]);
    assert_eq!(nx.append("/f", "!").unwrap_err().kind(), ErrorKind::TooLarge);
    // More than one call carries.
    assert_eq!(nx.read("/f").unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn large_content_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(5, 3 * MIB);
    let nx = on(folder.path());
    nx.write("/f", content.clone()).unwrap();
    let before = id(&nx, "/f");
    nx.shutdown().unwrap();
    let nx = on(folder.path());
    assert_eq!((id(&nx, "/f"), nx.read("/f").unwrap()), (before, content.into()));
}
