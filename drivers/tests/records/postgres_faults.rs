//! A wire that fails: every session ends in time and says what it is, no acknowledged row is lost, and none is there of which nobody was told.

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
    settings.sessions = 2;
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

#[test]
fn every_session_ends_in_time_and_its_end_is_told_truly() {
    let (server, env) = (Postgres::start(), env());
    let proxy = Proxy::of(server.port(), Speaks::Postgres);
    let (store, direct) = (wired(&env, &proxy), store(&env, &server.url("postgres")));
    let table = ["CREATE TABLE marks (number BIGINT NOT NULL PRIMARY KEY)"];
    env.blocking_wait(commit(&direct, &table)).expect("the server is there");
    let (mut acknowledged, mut unknown, mut next) = (Vec::new(), Vec::new(), 0);
    let mut write = |fault: Fault, when: &str, hurts: bool| {
        next += 1;
        let what = format!("a session under {fault:?} {when}");
        match in_time(&env, &what, insert(&store, next)) {
            Ok(()) => {
                assert!(!hurts, "{what} succeeded");
                acknowledged.push(next);
            }
            Err(error) if error.is_unknown() => unknown.push(next),
            Err(_) => {}
        }
    };
    for fault in Fault::ALL {
        for (when, words) in MOMENTS {
            // A connection is there, so that the fault comes in the middle of its life.
            let began = env.now();
            while in_time(&env, "a look", marks(&store)).is_err() {
                assert!(env.now() - began < WELL_WITHIN, "it does not come back after {fault:?}");
            }
            write(fault, "before", false);
            proxy.set_after(words, fault);
            // The answer to a commit is short: a slow wire carries it while the client still waits.
            write(fault, when, !(fault == Fault::Slow && words == b"COMMIT"));
            if words.is_empty() {
                let read = in_time(&env, &format!("a look under {fault:?}"), marks(&store));
                assert!(read.is_err(), "{read:?} under {fault:?}");
            }
            proxy.set(Fault::None);
        }
    }
    // What was begun on a connection that is gone the server takes back by itself.
    let there = env.blocking_wait(marks(&direct)).expect("the server is there");
    let lost: Vec<_> = acknowledged.iter().filter(|number| !there.contains(number)).collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    let known = |number: &&i64| acknowledged.contains(number) || unknown.contains(number);
    let untold: Vec<_> = there.iter().filter(|number| !known(number)).collect();
    assert!(untold.is_empty(), "told as not done, and there: {untold:?}");
    assert!(acknowledged.len() > Fault::ALL.len() && !unknown.is_empty(), "{acknowledged:?} {unknown:?}");
    env.stop();
}
