//! One pipe beside a model that is too simple to be wrong, and the table.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_messages::{EntryType, FileId, FileMetadata, LifeId, Timestamp, VPath, ZoneId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::hal::TreeId;

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

fn metadata(id: u64, capacity: u32) -> Arc<FileMetadata> {
    let at = path(&format!("/pipes/{id}"));
    let mut metadata = FileMetadata::new(at, ZoneId::root(), FileId(id), EntryType::Pipe, Timestamp(1));
    metadata.size = capacity.into();
    Arc::new(metadata)
}

fn open(table: &PipeTable, id: u64, capacity: u32) -> Result<(Arc<Pipe>, bool), Refusal> {
    table.open(OpenPipe {
        mount: FileId(1),
        tree: TreeId::ROOT,
        metadata: metadata(id, capacity),
        shared: None,
    })
}

/// What a pipe is, said as simply as possible.
#[derive(Default)]
struct Model {
    capacity: usize,
    messages: VecDeque<Bytes>,
    /// How many ends are open of each side, and whether one ever was.
    readers: (usize, bool),
    writers: (usize, bool),
}

impl Model {
    fn write(&mut self, message: &Bytes) -> Result<(), Refusal> {
        let held: usize = self.messages.iter().map(Bytes::len).sum();
        if self.readers == (0, true) {
            Err(Refusal::NoReaders)
        } else if message.len() > self.capacity {
            let capacity = u32::try_from(self.capacity).unwrap();
            Err(Refusal::TooLarge { length: message.len(), capacity })
        } else if message.is_empty() {
            Ok(())
        } else if held + message.len() > self.capacity {
            Err(Refusal::Full)
        } else {
            self.messages.push_back(message.clone());
            Ok(())
        }
    }

    fn read(&mut self) -> Result<Bytes, Refusal> {
        match self.messages.pop_front() {
            Some(message) => Ok(message),
            None if self.writers == (0, true) => Ok(Bytes::new()),
            None => Err(Refusal::Empty),
        }
    }

    fn ends(&mut self, side: Side) -> &mut (usize, bool) {
        match side {
            Side::Reader => &mut self.readers,
            Side::Writer => &mut self.writers,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    Read,
    Open(Side),
    /// Closes one of those that are open, if one is.
    Close(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let side = prop_oneof![Just(Side::Reader), Just(Side::Writer)];
    prop_oneof![
        4 => (0usize..40).prop_map(Step::Write),
        4 => Just(Step::Read),
        1 => side.prop_map(Step::Open),
        1 => any::<usize>().prop_map(Step::Close),
    ]
}

proptest! {
    #[test]
    fn a_pipe_does_what_its_model_does(steps in vec(step(), 0..150), capacity in 1usize..100) {
        let table = PipeTable::new();
        let (pipe, _) = open(&table, 7, u32::try_from(capacity).unwrap()).unwrap();
        let mut model = Model { capacity, ..Model::default() };
        let mut ends = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(length) => {
                    let message = Bytes::from(vec![u8::try_from(n).unwrap_or(0); length]);
                    let written = pipe.try_write(message.clone()).map_err(|(refusal, back)| {
                        assert_eq!(back, message, "what is not written comes back");
                        refusal
                    });
                    prop_assert_eq!(written, model.write(&message));
                }
                Step::Read => prop_assert_eq!(pipe.try_read(), model.read()),
                Step::Open(side) => {
                    // Some are tied to a life, and go with it.
                    let life = LifeId(ends.len() as u64 % 3);
                    ends.push((table.open_end(&pipe, side, Holder::Caller, &"agent".into(), life).unwrap(), side));
                    let (open, ever) = model.ends(side);
                    (*open, *ever) = (*open + 1, true);
                }
                Step::Close(_) if ends.is_empty() => {}
                Step::Close(which) => {
                    let (end, side) = ends.swap_remove(which % ends.len());
                    table.close_end(&pipe, &end);
                    table.close_end(&pipe, &end);
                    model.ends(side).0 -= 1;
                    prop_assert!(end.is_closed());
                }
            }
            let entry = pipe.entry();
            prop_assert_eq!(entry.messages, model.messages.len());
            prop_assert_eq!(entry.bytes, model.messages.iter().map(|message| message.len() as u64).sum::<u64>());
            prop_assert_eq!(entry.ends.len(), model.readers.0 + model.writers.0);
        }
        for life in [1, 2] {
            table.end_life(LifeId(life));
        }
        prop_assert!(ends.iter().all(|(end, _)| end.is_closed() == (end.life != LifeId::KERNEL)));
    }
}

#[test]
fn a_pipe_is_opened_once_and_no_more_than_may_be() {
    let table = PipeTable::new();
    let (pipe, is_new) = open(&table, 7, 10).unwrap();
    assert!(is_new);
    assert!(pipe.try_write("x".into()).is_ok());
    let (again, is_new) = open(&table, 7, 99).unwrap();
    assert!(!is_new && Arc::ptr_eq(&pipe, &again));
    assert_eq!((table.statistics().open, table.statistics().capacity), (1, 10));
    // Rings are made for messages and not for bytes: all of this is some forty megabytes.
    let largest = nexus_messages::syscall::PIPE_CAPACITY_MAX;
    let all = PIPES_BYTES_MAX / u64::from(largest);
    for id in 1..all {
        open(&table, 100 + id, largest).unwrap();
    }
    assert_eq!(open(&table, 99, largest).unwrap_err(), Refusal::TooManyPipes);
    let (env, _simulation) = Env::seeded(1);
    table.remove(&env, [FileId(101), FileId(7), FileId(5_000)]);
    open(&table, 99, largest).unwrap();
    assert_eq!(pipe.try_read().unwrap_err(), Refusal::Removed);
    assert_eq!(pipe.try_write("y".into()).unwrap_err().0, Refusal::Removed);
    assert_eq!(
        table.open_end(&pipe, Side::Reader, Holder::Caller, &"a".into(), LifeId::KERNEL).unwrap_err(),
        Refusal::Removed
    );
    table.close_mount(&env, FileId(1));
    assert_eq!(table.statistics().open, 0);
    table.end();
    assert_eq!(open(&table, 7, 10).unwrap_err(), Refusal::Down);
}

#[test]
fn who_opens_an_end_is_told_what_has_become_of_the_pipe() {
    let (env, _simulation) = Env::seeded(1);
    let table = PipeTable::new();
    let [(removed, _), (down, _)] = [7, 8].map(|id| open(&table, id, 10).unwrap());
    let opened =
        |pipe| table.open_end(pipe, Side::Reader, Holder::Caller, &"a".into(), LifeId::KERNEL).map(drop);
    table.remove(&env, [FileId(7)]);
    table.end();
    assert_eq!((opened(&removed), opened(&down)), (Err(Refusal::Removed), Err(Refusal::Down)));
    table.remove(&env, [FileId(8)]);
    assert_eq!(opened(&down), Err(Refusal::Removed), "as what reads and writes there is told");
}

#[test]
fn no_more_ends_are_open_than_may_be() {
    let table = PipeTable::new();
    let (pipe, _) = open(&table, 7, 10).unwrap();
    let end = || table.open_end(&pipe, Side::Writer, Holder::Caller, &"a".into(), LifeId(5));
    for _ in 0..ENDS_MAX {
        end().unwrap();
    }
    assert_eq!(end().unwrap_err(), Refusal::TooManyEnds);
    table.end_life(LifeId(5));
    assert!(end().is_ok());
}

#[test]
fn a_path_that_is_noted_holds_until_something_changes() {
    let table = PipeTable::new();
    let generation = Arc::new(AtomicU64::new(3));
    let (pipe, _) = open(&table, 7, 10).unwrap();
    let (zone, at) = (ZoneId::root(), path("/pipes/7"));
    let known = || {
        let generation = (generation.clone(), 3);
        Known::new(zone.clone(), at.clone(), pipe.clone(), metadata(7, 10), generation, 1)
    };
    let looked = |routes| table.known(routes, &zone, &at, |known| known.pipe.clone()).is_some();
    assert!(!table.may_know(&at) && !looked(1));
    table.note(known(), table.changes());
    assert!(table.may_know(&at) && looked(1));
    assert!(!looked(2), "the routes are others");
    assert!(
        table.known(1, &ZoneId::parse("team").unwrap(), &at, |_| ()).is_none(),
        "another zone sees another path"
    );
    generation.store(4, std::sync::atomic::Ordering::Relaxed);
    assert!(!looked(1), "the namespace is another");
    generation.store(3, std::sync::atomic::Ordering::Relaxed);
    table.note(known(), table.changes());
    assert!(looked(1), "noted twice it is noted once");
    let before = table.changes();
    table.forget(FileId(7));
    assert!(!looked(1) && !table.may_know(&at));
    table.note(known(), before);
    assert!(!looked(1), "what was found before the change is not noted after it");
    table.note(known(), table.changes());
    let (env, _simulation) = Env::seeded(1);
    table.remove(&env, [FileId(7)]);
    assert!(!looked(1) && !table.may_know(&at));
    table.note(known(), table.changes());
    assert!(!looked(1), "nor a pipe that is removed");
}

#[test]
fn of_one_pipe_a_few_paths_are_noted() {
    let table = PipeTable::new();
    let (pipe, _) = open(&table, 7, 10).unwrap();
    let paths: Vec<VPath> = (0..20).map(|n| path(&format!("/{n}/p"))).collect();
    for at in &paths {
        let generation = (Arc::default(), 0);
        let known = Known::new(ZoneId::root(), at.clone(), pipe.clone(), metadata(7, 10), generation, 1);
        table.note(known, table.changes());
    }
    let known: Vec<usize> =
        (0..20).filter(|n| table.known(1, &ZoneId::root(), &paths[*n], |_| ()).is_some()).collect();
    assert_eq!(known, (12..20).collect::<Vec<_>>());
}
