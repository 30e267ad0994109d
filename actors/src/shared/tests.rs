//! Pipes and logs in mapped files, used by one process.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::HostConfig;

fn folder() -> (TempDir, SharedFolder) {
    let host = tempfile::tempdir().unwrap();
    let folder = SharedFolder::new(host.path(), 42, SharedHome::Process);
    (host, folder)
}

fn pipe(folder: &SharedFolder, capacity: u32) -> SharedPipe {
    SharedPipe::make(folder, 7, capacity, 4, u64::MAX).unwrap()
}

proptest! {
    #[test]
    fn a_shared_pipe_does_what_a_queue_does(steps in vec((any::<bool>(), 1usize..40), 0..200), capacity in 1u32..100) {
        let (_host, folder) = folder();
        let (one, mut queue) = (pipe(&folder, capacity), VecDeque::new());
        let other = SharedPipe::attach(&folder.file(SharedKind::Pipe, 7), 42, 7).unwrap();
        for (n, (writes, length)) in steps.into_iter().enumerate() {
            let held: usize = queue.iter().map(Vec::len).sum();
            let side = if n % 2 == 0 { &one } else { &other };
            if writes {
                let message = vec![u8::try_from(n % 256).unwrap(); length];
                let fits = queue.len() < 4 && held + length <= capacity as usize;
                prop_assert_eq!(side.try_push(&message), Ok(fits));
                if fits {
                    queue.push_back(message);
                }
            } else {
                prop_assert_eq!(side.try_pop().unwrap().map(Vec::from), queue.pop_front());
            }
            let held: usize = queue.iter().map(Vec::len).sum();
            prop_assert_eq!(one.held(), (queue.len(), u32::try_from(held).unwrap()));
        }
    }

    /// Whatever stands in the memory, nothing panics, hangs or gives more than there is room for.
    #[test]
    fn garbage_in_the_memory_is_an_error_or_a_message(words in vec((0usize..2_400, any::<u64>()), 1..60), small in any::<bool>()) {
        let (_host, folder) = folder();
        let (pipe, log) = (pipe(&folder, 100), SharedLog::make(&folder, 8, 4_096, [0; 6], u64::MAX).unwrap());
        let mut writing = log.write().unwrap();
        let state = writing.state();
        writing.append(&["abc".into(), "".into()], 1, 3, Some(5), SharedState { bytes: 3, ..state });
        drop(writing);
        prop_assert_eq!(pipe.try_push(b"abcdefghij"), Ok(true));
        for kind in [SharedKind::Pipe, SharedKind::Log] {
            let id = if kind == SharedKind::Pipe { 7 } else { 8 };
            let file = std::fs::OpenOptions::new().write(true).open(folder.file(kind, id)).unwrap();
            let length = file.metadata().unwrap().len();
            for (at, word) in &words {
                let word = if small { word % 50 } else { *word };
                if (*at as u64 + 1) * 8 <= length && *at >= layout::TOLD_WORDS {
                    file.write_all_at(&word.to_le_bytes(), *at as u64 * 8).unwrap();
                }
            }
        }
        for _ in 0..3 {
            let _ = pipe.try_push(b"xyz");
            if let Ok(Some(message)) = pipe.try_pop() {
                prop_assert!((1..=100).contains(&message.len()));
            }
            let _ = pipe.held();
        }
        for from in [0, 1, 2, 7] {
            let mut given = 0;
            let read = log.read(from, Some((1, 3)), |count, length| { given = given.max(length); count < 10 });
            if let Ok((SharedRead::Records(records, _), _)) = read {
                prop_assert!(records.len() <= 10 && given <= 4_096);
            }
        }
        if let Ok(mut writing) = log.write() {
            let state = writing.state();
            let _ = (writing.frame(state.head_at, state.head), writing.find_op(5));
            writing.append(&["x".into()], 1, 1, None, state);
        }
    }
}

#[test]
fn what_is_in_a_pipe_is_there_when_it_is_opened_again_and_not_when_it_is_made_anew() {
    let (_host, folder) = folder();
    assert_eq!(pipe(&folder, 100).try_push(b"kept"), Ok(true));
    let again = pipe(&folder, 100);
    assert_eq!(again.held(), (1, 4));
    assert_eq!(again.try_pop().unwrap().unwrap(), "kept");
    assert_eq!(again.try_push(b"of another shape"), Ok(true));
    assert_eq!(pipe(&folder, 99).held(), (0, 0));
    assert_eq!(again.held(), (1, 16), "who has the old one mapped keeps it");
    assert_eq!(folder.ids(SharedKind::Pipe).unwrap(), [7]);
    assert!(folder.remove(SharedKind::Pipe, 7).unwrap() && !folder.remove(SharedKind::Pipe, 7).unwrap());
    assert!(folder.ids(SharedKind::Pipe).unwrap().is_empty());
}

#[test]
fn what_belongs_to_nobody_is_removed_and_nothing_else() {
    let host = tempfile::tempdir().unwrap();
    let identity = host.path().join("identity");
    let made = |store, home| {
        let folder = SharedFolder::new(host.path(), store, home);
        assert!(folder.ids(SharedKind::Pipe).unwrap().is_empty() && !folder.path().exists());
        drop(pipe(&folder, 10));
        folder
    };
    let (mine, dead) = (made(1, SharedHome::Process), made(2, SharedHome::Process));
    let kept = made(3, SharedHome::File(identity.clone()));
    let removed = || SharedFolder::remove_left_over(host.path()).unwrap();
    std::fs::write(&identity, format!("{:016x}\n", 3)).unwrap();
    // Another process, by what it has open.
    let it = std::fs::File::options().read(true).write(true).open(dead.path().join("lives")).unwrap();
    let home = format!("{:016x} process {}", 0, lives::enter(&it).unwrap());
    std::fs::write(dead.path().join("home"), home).unwrap();
    assert_eq!(removed(), 0, "it lives, wherever that is");
    drop(it);
    assert_eq!(removed(), 1);
    assert!(mine.path().exists() && kept.path().exists() && !dead.path().exists());
    // Where its home is not to be seen it may be.
    let told = std::fs::read_to_string(kept.path().join("home")).unwrap();
    std::fs::write(&identity, format!("{:016x}", 4)).unwrap();
    std::fs::write(kept.path().join("home"), format!("{:016x}{}", !folder::view().unwrap(), &told[16..]))
        .unwrap();
    assert_eq!(removed(), 0);
    std::fs::write(kept.path().join("home"), told).unwrap();
    assert_eq!((removed(), kept.path().exists()), (1, false));
    // Whatever says so has to be a file.
    let odd = made(5, SharedHome::Process).path().join("home");
    std::fs::remove_file(&odd).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &odd, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!((removed(), odd.exists()), (0, true));
    mine.remove_all().unwrap();
    mine.remove_all().unwrap();
    assert_eq!(removed(), 0);
}

#[test]
fn a_file_that_is_no_such_region_is_refused() {
    let (_host, folder) = folder();
    drop(pipe(&folder, 100));
    let file = folder.file(SharedKind::Pipe, 7);
    let refused = |store, id| SharedPipe::attach(&file, store, id).unwrap_err().kind();
    assert_eq!(refused(41, 7), io::ErrorKind::InvalidData);
    assert_eq!(refused(42, 8), io::ErrorKind::InvalidData);
    assert_eq!(SharedLog::attach(&file, 42, 7).unwrap_err().kind(), io::ErrorKind::InvalidData);
    // Shapes that are larger than the file, or none.
    for shape in [u64::MAX, 1 << 29, 0] {
        let opened = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        opened.write_all_at(&shape.to_le_bytes(), layout::SHAPE_AT[0] as u64 * 8).unwrap();
        assert!(SharedPipe::attach(&file, 42, 7).is_err(), "{shape}");
    }
    std::fs::write(&file, b"short").unwrap();
    assert_eq!(refused(42, 7), io::ErrorKind::UnexpectedEof);
    assert_eq!(pipe(&folder, 100).held(), (0, 0), "its owner makes it anew");
}

#[test]
fn a_process_that_stands_still_within_its_turn_is_told_and_a_dead_one_is_taken_over_from() {
    let (_host, folder) = folder();
    let (pipe, log) = (pipe(&folder, 100), SharedLog::make(&folder, 8, 4_096, [0; 6], u64::MAX).unwrap());
    // Another process, by what it has open.
    let it = std::fs::File::options().read(true).write(true).open(folder.path().join("lives")).unwrap();
    let holder = lives::enter(&it).unwrap();
    let pid = lives::pid_of(holder);
    let held = |kind, id, at: usize| {
        let file = std::fs::OpenOptions::new().write(true).open(folder.file(kind, id)).unwrap();
        file.write_all_at(&holder.to_le_bytes(), at as u64 * 8).unwrap();
    };
    assert_eq!(pipe.try_push(b"before"), Ok(true));
    held(SharedKind::Pipe, 7, layout::WRITERS.holder);
    held(SharedKind::Pipe, 7, layout::READERS.holder);
    held(SharedKind::Log, 8, layout::WRITERS.holder);
    let stands_still = SharedTrouble::Held { pid };
    assert_eq!(pipe.try_push(b"x"), Err(stands_still));
    assert_eq!(pipe.try_pop(), Err(stands_still));
    assert_eq!(log.write().err(), Some(stands_still));
    assert!(log.state().is_ok(), "readers of a log wait for nobody");
    drop(it);
    assert_eq!(pipe.try_push(b"after"), Ok(true));
    assert_eq!(pipe.try_pop().unwrap().unwrap(), "before");
    assert!(log.write().is_ok());
    // No process is this one, or will be.
    let nobody = u64::MAX;
    let file = std::fs::OpenOptions::new().write(true).open(folder.file(SharedKind::Log, 8)).unwrap();
    file.write_all_at(&nobody.to_le_bytes(), layout::WRITERS.holder as u64 * 8).unwrap();
    assert!(log.write().is_ok());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "who copies much does so in real time")]
fn who_waits_among_many_that_go_on_gets_its_turn() {
    let (_host, folder) = folder();
    let log = SharedLog::make(&folder, 8, 4_096, [0; 6], u64::MAX).unwrap();
    std::thread::scope(|scope| {
        let takes_turns = || {
            for _ in 0..10 {
                let held = log.write()?;
                // As one that copies much: for longer than anybody looks before it sleeps.
                std::thread::sleep(Duration::from_micros(300));
                drop(held);
            }
            Ok::<_, SharedTrouble>(())
        };
        let all: Vec<_> = (0..24).map(|_| scope.spawn(takes_turns)).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), Ok(()));
        }
    });
}

/// What is in the memory folder counts, whoever made it and when, until it goes.
#[test]
fn the_room_of_all_regions_of_a_kind_is_bounded_by_what_is_there() {
    let (host, folder) = folder();
    let make = |folder: &SharedFolder, id, most| SharedPipe::make(folder, id, 1_000, 4, most);
    drop(make(&folder, 1, u64::MAX).unwrap());
    let (_, one) = folder.held(SharedKind::Pipe).unwrap();
    assert!(one > 1_000 && one == folder.file(SharedKind::Pipe, 1).metadata().unwrap().len());
    drop(make(&folder, 2, 2 * one).unwrap());
    assert_eq!(make(&folder, 3, 3 * one - 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(folder.held(SharedKind::Pipe).unwrap(), (2, 2 * one), "what was refused takes nothing");
    assert_eq!(folder.held(SharedKind::Log).unwrap(), (0, 0));
    // Its owner starts again, and has opened none.
    let folder = SharedFolder::new(host.path(), 42, SharedHome::Process);
    assert_eq!(make(&folder, 3, 3 * one - 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(make(&folder, 2, 0).is_ok(), "what is there is opened, however much it is");
    // One that is made otherwise takes the place of its former self.
    drop(SharedPipe::make(&folder, 2, 900, 4, 2 * one).unwrap());
    assert!(folder.remove(SharedKind::Pipe, 1).unwrap());
    assert!(folder.held(SharedKind::Pipe).unwrap().1 < one);
    drop(make(&folder, 3, 2 * one).unwrap());
    folder.remove_all().unwrap();
    assert_eq!(folder.held(SharedKind::Pipe).unwrap(), (0, 0));
}

/// A frame that leads back, or nowhere, keeps nobody going round.
#[test]
fn appends_that_do_not_stand_behind_each_other_are_damage() {
    let (_host, folder) = folder();
    let log = SharedLog::make(&folder, 8, 4_096, [0; 6], u64::MAX).unwrap();
    let mut writing = log.write().unwrap();
    for _ in 0..3 {
        let state = writing.state();
        writing.append(&["abc".into()], 1, 3, Some(5), state);
    }
    let state = writing.state();
    let (first, second) = writing.frame(state.head_at, 0).unwrap();
    assert_eq!((first.first, writing.frame(second, 1).unwrap().0.first), (0, 1));
    assert_eq!(writing.frame(second, 0), Err(SharedTrouble::Damaged), "it begins with another record");
    assert_eq!(writing.find_op(5), Some((2, 1)));
    drop(writing);
    // The second one says that it is the first, as does what is known of the last with an identity.
    let file = std::fs::OpenOptions::new().write(true).open(folder.file(SharedKind::Log, 8)).unwrap();
    let put = |at: usize, word: u64| file.write_all_at(&word.to_le_bytes(), at as u64 * 8).unwrap();
    put(layout::HEADER_WORDS + usize::try_from(second).unwrap(), 0);
    put(layout::OPS_AT + 2 * layout::OP_WORDS + 3, u64::MAX);
    assert_eq!(log.read(0, None, |_, _| true).unwrap_err(), SharedTrouble::Damaged);
    let writing = log.write().unwrap();
    assert_eq!(writing.frame(second, 1), Err(SharedTrouble::Damaged));
    assert_eq!(writing.find_op(5), None, "what was never appended is not known");
    drop(writing);
    // Costs that nothing can have.
    for state in [0, 1] {
        put(layout::STATES_AT + state * layout::STATE_WORDS + 4, u64::MAX);
    }
    assert_eq!(log.state(), Err(SharedTrouble::Damaged));
}

#[test]
fn a_log_that_moves_takes_all_along() {
    let (_host, folder) = folder();
    let log = SharedLog::make(&folder, 8, 800, [9; 6], u64::MAX).unwrap();
    let mut writing = log.write().unwrap();
    // So that it begins in the middle, and goes round.
    for n in 0..20u8 {
        let mut state = writing.state();
        let records = [Bytes::from(vec![n; 40])];
        while state.tail_at - state.head_at + SharedWriting::words_of(&records) as u64 > 100 {
            let (frame, next) = writing.frame(state.head_at, state.head).unwrap();
            (state.head, state.head_at) = (frame.end(), next);
        }
        writing.append(&records, n.into(), 1, Some(n.into()), state);
    }
    let before = writing.state();
    assert!(before.head > 5 && before.tail == 20);
    assert_eq!(writing.moved(&folder, 8, 790, u64::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(writing.moved(&folder, 8, 4_000, 4_000).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let moved = writing.moved(&folder, 8, 4_000, u64::MAX).unwrap();
    drop(writing);
    let read = |log: &SharedLog| log.read(before.head, None, |_, _| true).unwrap().0;
    assert_eq!((moved.state(), read(&moved)), (Ok(before), read(&log)));
    assert_eq!(moved.room_bytes(), 4_000);
    assert_eq!(moved.write().unwrap().find_op(19), Some((19, 1)));
    assert_eq!(SharedLog::open(&folder, 8).unwrap().unwrap().room_bytes(), 4_000, "it has its file");
}

#[test]
fn who_waits_is_told_in_this_process_and_by_others() {
    let env = Env::host(HostConfig::default()).unwrap();
    let sleepers = Sleepers::new(&env);
    let (_host, folder) = folder();
    let one = pipe(&folder, 100);
    // Mapped again, it is as that of another process: nothing is told here but by the bell.
    let other = SharedPipe::attach(&folder.file(SharedKind::Pipe, 7), 42, 7).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            crate::block_on(async {
                let mut got = Vec::new();
                while got.len() < 50 {
                    got.push(one.wait(&sleepers, false, || one.try_pop().unwrap()).await);
                }
                got
            })
        });
        for n in 0..50u8 {
            let within = Duration::from_secs(20);
            let put = || other.try_push(&[n; 30]).unwrap().then_some(());
            assert!(other.wait_here(&env, true, within, 10, put).is_some());
        }
        let got = waits.join().unwrap();
        assert!(got.iter().zip(0..).all(|(message, n)| message[..] == [n; 30]));
    });
    let none = one.wait_here(&env, false, Duration::from_millis(5), 10, || one.try_pop().unwrap());
    assert_eq!(none, None);
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let look = || (other.flags() == 4).then(|| told.load(Ordering::SeqCst));
            crate::block_on(one.wait(&sleepers, false, look))
        });
        told.store(true, Ordering::SeqCst);
        other.change_flags(6, 2);
        assert!(waits.join().unwrap());
    });
    env.stop();
}

#[test]
fn many_threads_share_a_pipe_and_a_log() {
    let env = Env::host(HostConfig::default()).unwrap();
    let (_host, folder) = folder();
    let (pipe, log) = (pipe(&folder, 100), SharedLog::make(&folder, 8, 8_192, [0; 6], u64::MAX).unwrap());
    let within = Duration::from_secs(60);
    std::thread::scope(|scope| {
        for writer in 0..3u8 {
            let (pipe, log, env) = (&pipe, &log, &env);
            scope.spawn(move || {
                for n in 0..300u32 {
                    let message = [&[writer][..], &n.to_le_bytes()].concat();
                    let put = || pipe.try_push(&message).unwrap().then_some(());
                    assert!(pipe.wait_here(env, true, within, 10, put).is_some());
                    let mut writing = log.write().unwrap();
                    let mut state = writing.state();
                    let records = [Bytes::from(message)];
                    while usize::try_from(state.tail_at - state.head_at).unwrap()
                        + SharedWriting::words_of(&records)
                        > writing.room()
                    {
                        let (frame, next) = writing.frame(state.head_at, state.head).unwrap();
                        (state.head, state.head_at) = (frame.end(), next);
                    }
                    writing.append(&records, n.into(), 5, None, state);
                }
            });
        }
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut next = [[0u32; 3]; 1][0];
                    let mut count = 0;
                    while let Some(message) =
                        pipe.wait_here(&env, false, Duration::from_millis(500), 10, || {
                            pipe.try_pop().unwrap()
                        })
                    {
                        let n = u32::from_le_bytes(message[1..].try_into().unwrap());
                        let seen = &mut next[usize::from(message[0])];
                        assert!(n >= *seen, "in the order of its writer");
                        *seen = n + 1;
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        scope.spawn(|| {
            // A reader of the log that is overtaken, and never sees what is half written over.
            let (mut from, mut next) = (0, [0u32; 3]);
            while from < 900 {
                match log.read(from, None, |count, _| count < 100).unwrap().0 {
                    SharedRead::Missing(state) => from = state.head,
                    SharedRead::Records(records, _) => {
                        for (_, record) in &records {
                            let n = u32::from_le_bytes(record[1..].try_into().unwrap());
                            let seen = &mut next[usize::from(record[0])];
                            assert!(n >= *seen, "{n} after {seen}");
                            *seen = n + 1;
                        }
                        from += records.len() as u64;
                    }
                }
            }
        });
        let read: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert_eq!(read, 900);
    });
    env.stop();
}
