//! Pipes: each message that was acknowledged is read once, whole and in order, whoever is killed.

use nexus::{ErrorKind, SysRead, VPath};
use nexus_actors::block_on;

use crate::child::{LONG, PIPE, Role, furnish, message, number_of, own};
use crate::cleaning::until;

/// How often it is killed.
const KILLS: u64 = 15;

pub(crate) fn a_writer_that_is_killed_loses_doubles_and_tears_nothing() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    let read = |wait| {
        let mut call = SysRead::at(VPath::parse(PIPE).expect("it is one"));
        call.wait = wait;
        // Without bytes it is the end: the writer's own went with its connection.
        block_on(nx.send(call)).ok().filter(|read| !read.data.is_empty()).map(|read| number_of(&read.data))
    };
    for kill in 0..KILLS {
        let mut writer = Role::start("writer", folder.path());
        // Sometimes it stands before a full pipe, sometimes it is in the middle.
        let until = 1 + kill * 53 % 400;
        let mut next = 0;
        while next < until {
            assert_eq!(read(Some(LONG)), Some(next), "in order, each once");
            next += 1;
        }
        let mut acknowledged = next;
        while acknowledged < next + kill % 3 {
            acknowledged = writer.number().expect("it goes on") + 1;
        }
        acknowledged = writer.kill().last().map_or(acknowledged, |last| acknowledged.max(last + 1));
        while let Some(n) = read(None) {
            assert_eq!(n, next, "in order, each once");
            next += 1;
        }
        assert!(
            next == acknowledged || next == acknowledged + 1,
            "{next} are there, {acknowledged} were acknowledged"
        );
    }
    drop(block_on(nx.shutdown()));
}

pub(crate) fn a_reader_that_is_killed_takes_along_one_message_at_most() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    let writer = block_on(nx.pipe_writer(PIPE)).expect("it is there");
    let (mut written, mut next) = (0, 0);
    for kill in 0..KILLS {
        let mut reader = Role::start("reader", folder.path());
        for _ in 0..20 + kill * 31 % 200 {
            block_on(writer.write(message(written), Some(LONG))).expect("there is room");
            written += 1;
        }
        let mut heard = |n: u64, missing: &mut u64| {
            assert!(n >= next, "{n} was read twice");
            *missing += n - next;
            next = n + 1;
        };
        let mut missing = 0;
        for _ in 0..10 {
            heard(reader.number().expect("it reads"), &mut missing);
        }
        reader.kill().into_iter().for_each(|n| heard(n, &mut missing));
        // The next ones are read by somebody else: all but the one that it took and did not tell of.
        let own = block_on(nx.pipe_reader(PIPE)).expect("it is there");
        while let Ok(Some(found)) = block_on(own.read(None)) {
            heard(number_of(&found), &mut missing);
        }
        if next < written {
            missing += written - next;
            next = written;
        }
        assert!(missing <= 1, "{missing} are gone");
    }
    drop(block_on(nx.shutdown()));
}

pub(crate) fn others_go_on_when_the_owner_is_killed_and_the_next_one_finds_what_is_left() {
    let folder = tempfile::tempdir().expect("there is room");
    let (mut written, mut next) = (0, 0);
    for round in 0..4 {
        let owner = Role::start("owner", folder.path());
        if round == 0 {
            let nx = block_on(nexus::attach(folder.path())).expect("it is served");
            let (reader, writer) = (block_on(nx.pipe_reader(PIPE)), block_on(nx.pipe_writer(PIPE)));
            let (reader, writer) = (reader.expect("it is there"), writer.expect("it is there"));
            assert!(reader.is_mapped() && writer.is_mapped());
            for _ in 0..10 {
                writer.write_here(message(written), LONG).expect("there is room");
                written += 1;
            }
            owner.kill();
            // Nobody owns it now.
            for _ in 0..5 {
                assert_eq!(number_of(&reader.read_here(LONG).expect("it is there").expect("no end")), next);
                next += 1;
                block_on(writer.write(message(written), None)).expect("there is room");
                written += 1;
            }
            let nothing = block_on(nx.stat(PIPE)).expect_err("nobody serves it");
            assert_eq!(nothing.kind(), ErrorKind::Down);
            continue;
        }
        // Under load from both sides when it is killed.
        let mut writer = Role::start("reader", folder.path());
        while next < written {
            assert_eq!(writer.number().expect("it reads"), next);
            next += 1;
        }
        let mut load = Role::start("writer", folder.path());
        for n in 0..50 {
            assert_eq!(writer.number().expect("it reads"), n);
        }
        owner.kill();
        for n in 50..300 {
            assert_eq!(writer.number().expect("they go on"), n);
        }
        let read = writer.kill().last().map_or(300, |last| last + 1);
        while load.number().expect("it goes on") < read + 3 {}
        let acknowledged = load.kill().last().map_or(read + 4, |last| (last + 1).max(read + 4));
        // What is left is there for the next owner.
        let nx = own(folder.path());
        let own = block_on(nx.pipe_reader(PIPE)).expect("it is there");
        let left: Vec<u64> =
            std::iter::from_fn(|| block_on(own.read(None)).ok().flatten().map(|found| number_of(&found)))
                .collect();
        let first = left.first().copied().expect("something is left");
        assert!(first == read || first == read + 1, "{first} after {read}");
        assert!(left.windows(2).all(|two| two[1] == two[0] + 1), "each once, in order");
        let end = left.last().copied().unwrap_or(0) + 1;
        assert!(end == acknowledged || end == acknowledged + 1, "{end} of {acknowledged}");
        drop(block_on(nx.shutdown()));
        (written, next) = (0, 0);
    }
}

pub(crate) fn ends_in_other_processes_are_the_pipes_ends() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    let mut reader = Role::start("reader", folder.path());
    let writer = block_on(nx.pipe_writer(PIPE)).expect("it is there");
    block_on(writer.write(message(0), None)).expect("there is room");
    assert_eq!(reader.number(), Some(0));
    // The last writer goes: the reader in the other process comes to the end.
    drop(writer);
    assert_eq!(reader.number(), Some(u64::MAX));
    // The last reader dies: its end goes with its connection.
    reader.kill();
    let write = || block_on(async { nx.pipe_writer(PIPE).await?.write(message(1), None).await });
    let began = std::time::Instant::now();
    let refused = loop {
        match write() {
            Err(refused) => break refused,
            Ok(()) => assert!(began.elapsed() < LONG, "its end is still open"),
        }
        block_on(nx.read(PIPE)).expect("it is there");
    };
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    // A reader that waits, because there is a writer, is told that the pipe is removed.
    let _writer = block_on(nx.pipe_writer(PIPE)).expect("it is there");
    let mut reader = Role::start("waiter", folder.path());
    block_on(nx.unlink(PIPE)).expect("it is there");
    assert_eq!(reader.line().as_deref(), Some("gone"));
    drop(block_on(nx.shutdown()));
}

/// Nobody keeps others out who does not write any more: neither one that is dead nor one that became another program; and who lives is not taken for dead, wherever it lives.
pub(crate) fn whoever_holds_the_lock_and_is_gone_is_taken_over_from_and_nobody_else() {
    let folder = tempfile::tempdir().expect("there is room");
    let nx = own(folder.path());
    furnish(&nx);
    let empty = || while block_on(nx.read(PIPE)).is_ok_and(|found| !found.is_empty()) {};
    let write = || {
        empty();
        block_on(nx.write(PIPE, "x"))
    };
    let lives = |what: &str| assert_eq!(write().expect_err(what).kind(), ErrorKind::Busy);
    let holder = Role::start("holder", folder.path());
    lives("it is there");
    holder.kill();
    write().expect("it is dead");

    let mut changer = Role::start("changer", folder.path());
    assert_eq!(changer.line().as_deref(), Some("changed"));
    write().expect("it is another program");
    assert!(changer.is_there());
    drop(changer);

    match Role::start_elsewhere("holder", folder.path()) {
        Some(elsewhere) => {
            lives("it is there, where it has another number");
            elsewhere.kill();
            until("it ends with who started it", || write().is_ok());
        }
        None => println!("no process may be started here that has other numbers"),
    }
    drop(block_on(nx.shutdown()));
}
