//! A wire that fails: every session ends in time and says what it is, no acknowledged row is lost, and none is there of which nobody was told.

use std::thread;
use std::time::Duration;

use nexus_actors::Env;
use nexus_drivers::records::postgres::PostgresRecords;
use nexus_kernel::hal::{ReadFrom, RecordError, RecordStore, Statement};

use crate::postgres::{commit, config, context, env, store};
use crate::server::{Postgres, url};
use crate::servers::proxy::{Fault, Proxy, Speaks};

/// How long a connection, its wait, and a statement may take.
const WITHIN: Duration = Duration::from_millis(300);

/// A session waits for a connection, which is made anew after a dead one, and has three statements.
const STEPS: u32 = 6;

/// What a loaded machine may add, and how long the server's own deadline is given to be told.
const SLACK: Duration = Duration::from_secs(5);

/// Within this time all is well again.
const WELL_WITHIN: Duration = Duration::from_secs(30);

/// When the wire begins to fail.
const MOMENTS: [(&str, &[u8]); 3] =
    [("at once", b""), ("at a statement", b"INSERT"), ("at the commit", b"COMMIT")];

fn wired(env: &Env, proxy: &Proxy) -> PostgresRecords {
    let mut settings = config(&url(proxy.port(), "postgres"));
    (settings.wait, settings.connect, settings.statement) = (WITHIN, WITHIN, WITHIN);
    settings.sessions = 8;
    PostgresRecords::new(settings, &context(env))
}

async fn insert(store: &dyn RecordStore, number: i64) -> Result<(), RecordError> {
    let mut session = store.write().await?;
    let insert = Statement::new("INSERT INTO marks (number) VALUES ($1)").bind(number);
    session.execute(&insert).await?;
    session.commit().await
}

async fn marks(store: &dyn RecordStore) -> Result<Vec<i64>, RecordError> {
    let sql = "SELECT number FROM marks ORDER BY number";
    let rows = store.read(ReadFrom::Latest).await?.query(&sql.into()).await?;
    rows.iter().map(|row| row.get(0)).collect()
}

fn in_time<T>(
    env: &Env,
    what: &str,
    call: impl Future<Output = Result<T, RecordError>> + Send,
) -> Result<T, RecordError>
where
    T: Send,
{
    let began = env.now();
    let answer = env.blocking_wait(call);
    let took = env.now() - began;
    assert!(took < WITHIN * STEPS + SLACK, "{what} took {took:?}");
    if let Err(error) = &answer {
        let is_of_the_wire = matches!(
            error,
            RecordError::ConnectionLost { .. }
                | RecordError::TimedOut { .. }
                | RecordError::Busy { .. }
                | RecordError::Backend { .. }
        );
        assert!(is_of_the_wire, "{what}: {error:?}");
    }
    answer
}

/// What one writer was told of its rows.
#[derive(Debug, Default)]
struct Told {
    acknowledged: Vec<i64>,
    unknown: Vec<i64>,
}

/// Sessions that meet each fault at one moment of their lives, on a wire of their own. Rows are numbered from `first` on.
fn meet_each_fault(env: &Env, server: u16, first: i64, (when, words): (&str, &'static [u8])) -> Told {
    let proxy = Proxy::of(server, Speaks::Postgres);
    let (store, mut told, mut next) = (wired(env, &proxy), Told::default(), first);
    let mut write = |fault: Fault, when: &str, hurts: bool| {
        next += 1;
        let what = format!("a session under {fault:?} {when}");
        match in_time(env, &what, insert(&store, next)) {
            Ok(()) => {
                assert!(!hurts, "{what} succeeded");
                told.acknowledged.push(next);
                return true;
            }
            Err(error) if error.is_unknown() => told.unknown.push(next),
            Err(_) => {}
        }
        false
    };
    for fault in Fault::ALL {
        // A connection is there, so that the fault comes in the middle of its life.
        let began = env.now();
        while in_time(env, "a look", marks(&store)).is_err() || !write(fault, "before", false) {
            assert!(env.now() - began < WELL_WITHIN, "it does not come back after {fault:?}");
        }
        proxy.set_after(words, fault);
        // The answer to a commit is short: a slow wire carries it while the client still waits.
        write(fault, when, !(fault == Fault::Slow && words == b"COMMIT"));
        if words.is_empty() {
            let read = in_time(env, &format!("a look under {fault:?}"), marks(&store));
            assert!(read.is_err(), "{read:?} under {fault:?}");
        }
        proxy.set(Fault::None);
    }
    told
}

#[test]
fn every_session_ends_in_time_and_its_end_is_told_truly() {
    let (server, env) = (Postgres::start(), env());
    let direct = store(&env, &server.url("postgres"));
    let table = ["CREATE TABLE marks (number BIGINT NOT NULL PRIMARY KEY)"];
    env.blocking_wait(commit(&direct, &table)).expect("the server is there");
    let port = server.port();
    // Beside each other: most of the time is spent waiting.
    let all: Vec<Told> = thread::scope(|scope| {
        let env = &env;
        let firsts = (0..).step_by(1_000).zip(MOMENTS);
        let meeting =
            firsts.map(|(first, moment)| scope.spawn(move || meet_each_fault(env, port, first, moment)));
        let meeting: Vec<_> = meeting.collect();
        meeting.into_iter().map(|told| told.join().expect("all is told truly")).collect()
    });
    // What was begun on a connection that is gone the server takes back by itself.
    let there = env.blocking_wait(marks(&direct)).expect("the server is there");
    let mut known = Vec::new();
    for told in &all {
        let lost: Vec<_> = told.acknowledged.iter().filter(|number| !there.contains(number)).collect();
        assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
        assert!(told.acknowledged.len() >= Fault::ALL.len(), "{told:?}");
        known.extend(told.acknowledged.iter().chain(&told.unknown));
    }
    let untold: Vec<_> = there.iter().filter(|number| !known.contains(number)).collect();
    assert!(untold.is_empty(), "told as not done, and there: {untold:?}");
    assert!(all.iter().any(|told| !told.unknown.is_empty()), "no commit met a fault: {all:?}");
    env.stop();
}
