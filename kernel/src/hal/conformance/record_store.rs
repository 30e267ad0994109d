//! The suite of [`RecordStore`]. It knows nothing of the driver: the same text passes on every one.

use std::any::Any;
use std::fmt;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::{Env, block_on};
use nexus_messages::Timestamp;

use super::{Claim, Report, Verdict, check_claims, claims, done, ensure, same};
use crate::hal::{
    Migration, ROWS_MAX, ReadFrom, ReadSession, RecordError, RecordStore, RecordValue, RetryPolicy, Row,
    Statement, WriteSession, transact,
};

/// A store to be checked.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Subject {
    /// A store over an empty database.
    pub store: Box<dyn RecordStore>,
    /// Another store over the same database, as another process would have it.
    pub another: Box<dyn Fn() -> Box<dyn RecordStore> + Send + Sync>,
    /// Clock and randomness for what is repeated.
    pub env: Env,
    /// What goes with the subject: its folder, say.
    pub keeps: Box<dyn Any>,
}

/// Checks every claim on a store of its own.
pub fn check(make: &dyn Fn() -> Subject) -> Report {
    check_claims("record store", CLAIMS, make)
}

/// How often a statement is to be given up that may be done before anybody can.
const GIVEN_UP_TRIES: usize = 16;

const CLAIMS: &[Claim<Subject>] = claims![
    what_is_committed_is_there_for_all,
    what_is_rolled_back_is_not,
    a_dropped_session_takes_back_what_it_did,
    a_dropped_statement_ends_its_session,
    values_come_back_as_they_were,
    placeholders_go_by_their_numbers,
    what_is_there_already_can_be_updated_instead,
    a_statement_tells_how_many_rows_it_changed,
    a_session_sees_its_own_writes_and_others_do_not,
    a_read_session_sees_one_state,
    a_read_session_does_not_write,
    a_second_row_with_a_key_is_refused,
    a_row_that_names_nothing_is_refused,
    a_row_that_the_check_forbids_is_refused,
    a_missing_value_is_refused,
    a_missing_table_is_told,
    what_is_no_sql_is_told,
    what_is_not_portable_is_refused,
    after_an_error_the_session_is_over,
    of_two_that_write_one_key_one_wins,
    sessions_that_collide_are_repeated_and_lose_nothing,
    what_two_sessions_read_still_holds_when_both_commit,
    a_statement_ends_by_its_deadline,
    a_result_has_a_bound,
    migrations_are_carried_out_once_and_in_order,
    a_changed_history_is_refused,
    a_failed_migration_leaves_nothing_of_itself,
    two_that_migrate_at_once_do_it_once,
    a_closed_store_begins_nothing,
];

/// How long after its deadline a statement may end, on a slow machine.
const LATE_MAX: Duration = Duration::from_secs(2);

/// How long one session waits to see whether another one gets through.
const LOOK: Duration = Duration::from_millis(500);

const TABLE: &str =
    "CREATE TABLE items (name TEXT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL CHECK (amount >= 0))";
const PUT: &str = "INSERT INTO items (name, amount) VALUES ($1, $2)";
const ALL: &str = "SELECT name, amount FROM items ORDER BY name";

fn put(name: &str, amount: i64) -> Statement {
    Statement::new(PUT).bind(name).bind(amount)
}

async fn write(store: &dyn RecordStore) -> Result<Box<dyn WriteSession>, String> {
    done("write", store.write().await)
}

async fn read(store: &dyn RecordStore) -> Result<Box<dyn ReadSession>, String> {
    done("read", store.read(ReadFrom::Latest).await)
}

async fn execute(session: &mut dyn WriteSession, statement: impl Into<Statement>) -> Result<u64, String> {
    let statement = statement.into();
    done(statement.sql(), session.execute(&statement).await)
}

/// Carries statements out, in a session of their own.
async fn commit(store: &dyn RecordStore, statements: &[Statement]) -> Verdict {
    let mut session = write(store).await?;
    for statement in statements {
        execute(&mut *session, statement.clone()).await?;
    }
    done("commit", session.commit().await)
}

async fn rows(session: &mut dyn ReadSession, statement: impl Into<Statement>) -> Result<Vec<Row>, String> {
    let statement = statement.into();
    done(statement.sql(), session.query(&statement).await)
}

/// The items that a session sees.
async fn seen(session: &mut dyn ReadSession) -> Result<Vec<(String, i64)>, String> {
    let rows = rows(session, ALL).await?;
    let item = |row: &Row| Ok((row.named("name")?, row.named("amount")?));
    done("an item", rows.iter().map(item).collect::<Result<_, RecordError>>())
}

async fn items(store: &dyn RecordStore) -> Result<Vec<(String, i64)>, String> {
    seen(&mut *read(store).await?).await
}

fn item(name: &str, amount: i64) -> (String, i64) {
    (name.to_owned(), amount)
}

/// `result` is an error of this kind.
fn refused<T: fmt::Debug>(
    what: &str,
    result: Result<T, RecordError>,
    is_it: fn(&RecordError) -> bool,
) -> Verdict {
    match result {
        Err(error) if is_it(&error) => Ok(()),
        other => Err(format!("{what}: got {other:?}")),
    }
}

/// In a session with the table and one item, `statement` is refused in this way.
fn refuses(
    Subject { store, keeps: _keeps, .. }: Subject,
    statement: Statement,
    is_it: fn(&RecordError) -> bool,
) -> Verdict {
    block_on(async {
        let orders = "CREATE TABLE orders (id BIGINT NOT NULL PRIMARY KEY, item TEXT NOT NULL REFERENCES items (name))";
        commit(&*store, &[TABLE.into(), orders.into(), put("a", 1)]).await?;
        let mut session = write(&*store).await?;
        refused(statement.sql(), session.execute(&statement).await, is_it)?;
        drop(session);
        same("what is there after it", items(&*store).await?, vec![item("a", 1)])
    })
}

fn what_is_committed_is_there_for_all(Subject { store, another, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into(), put("a", 1), put("b", 2)]).await?;
        let want = vec![item("a", 1), item("b", 2)];
        same("here", items(&*store).await?, want.clone())?;
        same("elsewhere", items(&*another()).await?, want.clone())?;
        let mut replica = done("read", store.read(ReadFrom::Replica).await)?;
        same("at the replica that is none", seen(&mut *replica).await?, want)
    })
}

fn what_is_rolled_back_is_not(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        let mut session = write(&*store).await?;
        execute(&mut *session, put("a", 1)).await?;
        done("rollback", session.rollback().await)?;
        same("items", items(&*store).await?, vec![])
    })
}

fn a_dropped_session_takes_back_what_it_did(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        for _ in 0..20 {
            let mut session = write(&*store).await?;
            execute(&mut *session, put("a", 1)).await?;
            drop(session);
        }
        same("items", items(&*store).await?, vec![])?;
        commit(&*store, &[put("a", 2)]).await?;
        same("items", items(&*store).await?, vec![item("a", 2)])
    })
}

fn a_dropped_statement_ends_its_session(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        for _ in 0..GIVEN_UP_TRIES {
            let mut session = write(&*store).await?;
            execute(&mut *session, put("a", 1)).await?;
            let second = put("b", 2);
            let mut given_up = session.execute(&second);
            let was_done = given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            drop(given_up);
            if was_done {
                // On a loaded machine whoever asks may be late. A store that never waits gives nobody the time to give up.
                continue;
            }
            refused("the next statement", session.execute(&put("c", 3)).await, |e| {
                matches!(e, RecordError::Aborted)
            })?;
            refused("the commit", session.commit().await, |e| matches!(e, RecordError::Aborted))?;
            same("items", items(&*store).await?, vec![])?;
            return commit(&*store, &[put("a", 4)]).await;
        }
        Ok(())
    })
}

fn values_come_back_as_they_were(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    let table = "CREATE TABLE kinds (id BIGINT NOT NULL PRIMARY KEY, b BOOLEAN, i BIGINT, f DOUBLE PRECISION, \
        t TEXT, y BYTEA, s TIMESTAMPTZ)";
    let insert = "INSERT INTO kinds (id, b, i, f, t, y, s) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    type Kinds = (Option<bool>, Option<i64>, Option<f64>, Option<String>, Option<Bytes>, Option<Timestamp>);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let cases: Vec<Kinds> = vec![
        (None, None, None, None, None, None),
        (
            Some(true),
            Some(i64::MAX),
            Some(f64::INFINITY),
            Some("".into()),
            Some(Bytes::new()),
            Some(Timestamp(0)),
        ),
        (
            Some(false),
            Some(i64::MIN),
            Some(-1.5e-300),
            Some("ä ☃ '\"$1\n".into()),
            Some(all_bytes.into()),
            Some(Timestamp(1_700_000_000_123_456_000)),
        ),
        (
            Some(true),
            Some(0),
            Some(3.0),
            Some("7".into()),
            Some(Bytes::from_static(b"7")),
            Some(Timestamp(u64::MAX / 1_000 * 1_000)),
        ),
    ];
    block_on(async {
        commit(&*store, &[table.into()]).await?;
        let mut session = write(&*store).await?;
        for (id, (b, i, f, t, y, s)) in (0_i64..).zip(cases.clone()) {
            let statement = Statement::new(insert).bind(id).bind(b).bind(i).bind(f).bind(t).bind(y).bind(s);
            execute(&mut *session, statement).await?;
        }
        let finer =
            Statement::new(insert).bind(99_i64).bind(None::<bool>).bind(None::<i64>).bind(None::<f64>);
        let finer = finer.bind(None::<String>).bind(None::<Bytes>).bind(Timestamp(1_999));
        execute(&mut *session, finer).await?;
        done("commit", session.commit().await)?;
        let mut session = read(&*store).await?;
        let got = rows(&mut *session, "SELECT b, i, f, t, y, s FROM kinds WHERE id < 99 ORDER BY id").await?;
        let kinds =
            |row: &Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?));
        same(
            "values",
            done("values", got.iter().map(kinds).collect::<Result<Vec<Kinds>, RecordError>>())?,
            cases,
        )?;
        let typed: Vec<&RecordValue> = got[1].values().iter().collect();
        ensure(matches!(typed[0], RecordValue::Bool(true)), || format!("a bool came as {:?}", typed[0]))?;
        ensure(matches!(typed[5], RecordValue::Timestamp(_)), || format!("a time came as {:?}", typed[5]))?;
        let cut = rows(&mut *session, "SELECT s FROM kinds WHERE id = 99").await?;
        same("what is finer than a microsecond", done("s", cut[0].get(0))?, Timestamp(1_000))?;
        let found =
            Statement::new("SELECT id FROM kinds WHERE s = $1 AND b = $2").bind(Timestamp(0)).bind(true);
        same("found by its time", rows(&mut *session, found).await?.len(), 1)?;
        let bad = rows(&mut *session, "SELECT t FROM kinds WHERE id = 1").await?;
        refused("a text as a number", bad[0].get::<i64>(0), |e| matches!(e, RecordError::BadValue { .. }))
    })
}

fn placeholders_go_by_their_numbers(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        let mut session = read(&*store).await?;
        let statement = Statement::new("SELECT $2 AS second, $1 AS first, $2 AS again, '$1' AS text")
            .bind("one")
            .bind(2_i64);
        let rows = rows(&mut *session, statement).await?;
        let row = &rows[0];
        let got = (
            done("second", row.named("second"))?,
            done("first", row.named("first"))?,
            done("again", row.named("again"))?,
            done("text", row.named("text"))?,
        );
        same("placeholders", got, (2_i64, "one".to_owned(), 2_i64, "$1".to_owned()))
    })
}

fn what_is_there_already_can_be_updated_instead(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    let upsert = "INSERT INTO items (name, amount) VALUES ($1, $2) \
        ON CONFLICT (name) DO UPDATE SET amount = items.amount + excluded.amount RETURNING amount";
    let keep = "INSERT INTO items (name, amount) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        let mut session = write(&*store).await?;
        for want in [5_i64, 10] {
            let got = rows(&mut *session, Statement::new(upsert).bind("a").bind(5_i64)).await?;
            same("returned", done("amount", got[0].named("amount"))?, want)?;
        }
        same("kept", execute(&mut *session, Statement::new(keep).bind("a").bind(7_i64)).await?, 0)?;
        done("commit", session.commit().await)?;
        same("items", items(&*store).await?, vec![item("a", 10)])
    })
}

fn a_statement_tells_how_many_rows_it_changed(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        let mut session = write(&*store).await?;
        execute(&mut *session, TABLE).await?;
        let three = "INSERT INTO items (name, amount) VALUES ('a', 1), ('b', 2), ('c', 3)";
        same("inserted", execute(&mut *session, three).await?, 3)?;
        same(
            "updated",
            execute(&mut *session, "UPDATE items SET amount = amount WHERE amount > 1").await?,
            2,
        )?;
        same(
            "updated none",
            execute(&mut *session, "UPDATE items SET amount = 9 WHERE amount > 9").await?,
            0,
        )?;
        same("deleted", execute(&mut *session, "DELETE FROM items RETURNING name").await?, 3)
    })
}

fn a_session_sees_its_own_writes_and_others_do_not(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        let mut session = write(&*store).await?;
        execute(&mut *session, put("a", 1)).await?;
        same("its own", rows(&mut *session, ALL).await?.len(), 1)?;
        same("of others", items(&*store).await?, vec![])?;
        done("commit", session.commit().await)?;
        same("then", items(&*store).await?, vec![item("a", 1)])
    })
}

fn a_read_session_sees_one_state(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into(), put("a", 1)]).await?;
        let mut session = read(&*store).await?;
        same("before", seen(&mut *session).await?.len(), 1)?;
        commit(&*store, &[put("b", 2)]).await?;
        same("after", seen(&mut *session).await?.len(), 1)?;
        same("in another session", items(&*store).await?.len(), 2)
    })
}

fn a_read_session_does_not_write(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        for statement in [put("a", 1), "CREATE TABLE more (id BIGINT NOT NULL)".into()] {
            let mut session = read(&*store).await?;
            refused(statement.sql(), session.query(&statement).await, |e| {
                matches!(e, RecordError::ReadOnly)
            })?;
        }
        same("items", items(&*store).await?, vec![])
    })
}

fn a_second_row_with_a_key_is_refused(subject: Subject) -> Verdict {
    refuses(subject, put("a", 2), |e| matches!(e, RecordError::UniqueViolation { .. }))
}

fn a_row_that_names_nothing_is_refused(subject: Subject) -> Verdict {
    let statement = Statement::new("INSERT INTO orders (id, item) VALUES ($1, $2)").bind(1_i64).bind("none");
    refuses(subject, statement, |e| matches!(e, RecordError::ForeignKeyViolation { .. }))
}

fn a_row_that_the_check_forbids_is_refused(subject: Subject) -> Verdict {
    refuses(subject, put("b", -1), |e| matches!(e, RecordError::CheckViolation { .. }))
}

fn a_missing_value_is_refused(subject: Subject) -> Verdict {
    let statement = Statement::new(PUT).bind("b").bind(None::<i64>);
    refuses(subject, statement, |e| matches!(e, RecordError::NotNullViolation { .. }))
}

fn a_missing_table_is_told(subject: Subject) -> Verdict {
    refuses(subject, "SELECT * FROM nowhere".into(), |e| matches!(e, RecordError::NoSuchTable { .. }))
}

fn what_is_no_sql_is_told(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        for sql in [
            "SELECT FROM WHERE",
            "INSERT items",
            "SELECT no_column FROM items",
            "SELECT \"text\" FROM items",
            "SELECT (1",
        ] {
            let mut session = write(&*store).await?;
            refused(sql, session.query(&sql.into()).await, |e| matches!(e, RecordError::Syntax { .. }))?;
        }
        Ok(())
    })
}

fn what_is_not_portable_is_refused(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        for sql in [
            "SELECT 1; SELECT 2",
            "COMMIT",
            "BEGIN",
            "PRAGMA user_version",
            "SET search_path = x",
            "SELECT ?",
            "SELECT 1::bigint",
            "SELECT $1",
            "CREATE TEMP TABLE t (a BIGINT)",
            "CREATE LOCAL TEMP TABLE t (a BIGINT)",
            "CREATE TABLE temp.t (a BIGINT)",
            "CREATE TABLE pg_temp.t (a BIGINT)",
            "SELECT 1 AS a INTO TEMP t",
        ] {
            let mut session = write(&*store).await?;
            refused(sql, session.query(&sql.into()).await, |e| matches!(e, RecordError::Syntax { .. }))?;
        }
        for value in [RecordValue::from(f64::NAN), RecordValue::from("a\0b")] {
            let mut session = write(&*store).await?;
            let statement = Statement::new("SELECT $1").bind(value);
            refused("a value", session.query(&statement).await, |e| {
                matches!(e, RecordError::BadValue { .. })
            })?;
        }
        Ok(())
    })
}

fn after_an_error_the_session_is_over(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        let mut session = write(&*store).await?;
        execute(&mut *session, put("a", 1)).await?;
        refused("again", session.execute(&put("a", 1)).await, |e| {
            matches!(e, RecordError::UniqueViolation { .. })
        })?;
        refused("after it", session.execute(&put("b", 1)).await, |e| matches!(e, RecordError::Aborted))?;
        refused("commit", session.commit().await, |e| matches!(e, RecordError::Aborted))?;
        same("items", items(&*store).await?, vec![])
    })
}

fn of_two_that_write_one_key_one_wins(Subject { store, keeps: _keeps, env, .. }: Subject) -> Verdict {
    block_on(commit(&*store, &[TABLE.into()]))?;
    for round in 0..10_i64 {
        let name = format!("item {round:02}");
        let claim = |amount: i64| {
            let statement = put(&name, amount);
            block_on(transact(&*store, &env, RetryPolicy::default(), |session| {
                let statement = statement.clone();
                Box::pin(async move { session.execute(&statement).await })
            }))
        };
        let won = thread::scope(|scope| {
            let (one, two) = (scope.spawn(|| claim(1)), scope.spawn(|| claim(2)));
            [one, two].map(|thread| thread.join().unwrap_or(Err(RecordError::Aborted)))
        });
        same("winners", won.iter().filter(|result| result.is_ok()).count(), 1)?;
        let loser = won.iter().position(Result::is_err).map(|at| won[at].clone());
        refused("the other", loser.unwrap_or(Ok(0)), |e| matches!(e, RecordError::UniqueViolation { .. }))?;
        let winner = if won[0].is_ok() { 1 } else { 2 };
        same("the one who won", block_on(items(&*store))?.last().cloned(), Some((name, winner)))?;
    }
    Ok(())
}

fn sessions_that_collide_are_repeated_and_lose_nothing(
    Subject { store, keeps: _keeps, env, .. }: Subject,
) -> Verdict {
    const THREADS: i64 = 4;
    const EACH: i64 = 10;
    block_on(commit(&*store, &[TABLE.into(), put("a", 0)]))?;
    let policy = RetryPolicy { attempts: 200, ..RetryPolicy::default() };
    let count = || -> Verdict {
        for _ in 0..EACH {
            // It reads, and writes what follows from it: not what the store could do in one statement.
            let added = block_on(transact(&*store, &env, policy, |session| {
                Box::pin(async move {
                    let amount: i64 = session.query(&"SELECT amount FROM items".into()).await?[0].get(0)?;
                    session.execute(&Statement::new("UPDATE items SET amount = $1").bind(amount + 1)).await
                })
            }));
            done("a session", added)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })?;
    same("counted", block_on(items(&*store))?, vec![item("a", THREADS * EACH)])
}

/// Each of two takes one away when it sees that there are two. A store that lets both in at once has to refuse one of them.
fn what_two_sessions_read_still_holds_when_both_commit(
    Subject { store, keeps: _keeps, .. }: Subject,
) -> Verdict {
    async fn look(session: &mut dyn WriteSession) -> Result<bool, String> {
        Ok(rows(session, ALL).await?.len() == 2)
    }
    async fn take(mut session: Box<dyn WriteSession>, name: &str) -> Result<(), RecordError> {
        session.execute(&Statement::new("DELETE FROM items WHERE name = $1").bind(name)).await?;
        session.commit().await
    }
    block_on(commit(&*store, &[TABLE.into(), put("a", 1), put("b", 1)]))?;
    let mut first = block_on(write(&*store))?;
    let both = block_on(look(&mut *first))?;
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let store = &store;
        let other = scope.spawn(move || {
            block_on(async move {
                let mut second = write(&**store).await?;
                if look(&mut *second).await? {
                    // Refused or not: what counts is what is there in the end.
                    let _ = take(second, "b").await;
                }
                let _ = tell.send(());
                Ok::<_, String>(())
            })
        });
        // A store that lets one in at a time has the other one wait until this one is done.
        let _ = told.recv_timeout(LOOK);
        if both {
            let _ = block_on(take(first, "a"));
        }
        other.join().unwrap_or_else(|_| Err("a thread panicked".into()))
    })?;
    same("how many are left", block_on(items(&*store))?.len(), 1)
}

fn a_statement_ends_by_its_deadline(Subject { store, keeps: _keeps, env, .. }: Subject) -> Verdict {
    const LIMIT: Duration = Duration::from_millis(200);
    let endless = "WITH RECURSIVE n (i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        let mut session = write(&*store).await?;
        execute(&mut *session, put("a", 1)).await?;
        let began = env.now();
        let ended = session.query(&Statement::new(endless).within(LIMIT)).await;
        refused("an endless statement", ended, |e| {
            matches!(e, RecordError::TimedOut { unknown: false, .. })
        })?;
        let took = env.now().saturating_duration_since(began);
        ensure(took < LIMIT + LATE_MAX, || format!("it took {took:?}"))?;
        refused("after it", session.commit().await, |e| matches!(e, RecordError::Aborted))?;
        same("items", items(&*store).await?, vec![])?;
        // One that is given up ends, too: its session's place is free again.
        for _ in 0..10 {
            let mut session = write(&*store).await?;
            let statement = Statement::new(endless);
            let mut given_up = pin!(env.timeout(LIMIT / 10, session.query(&statement)));
            ensure(given_up.as_mut().await.is_err(), || "an endless statement ended".into())?;
        }
        commit(&*store, &[put("a", 2)]).await
    })
}

fn a_result_has_a_bound(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    let numbers = "WITH RECURSIVE n (i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n";
    let most = i64::try_from(ROWS_MAX).unwrap_or(i64::MAX);
    block_on(async {
        let mut session = read(&*store).await?;
        same("rows", rows(&mut *session, Statement::new(numbers).bind(most)).await?.len(), ROWS_MAX)?;
        let more = session.query(&Statement::new(numbers).bind(most + 1)).await;
        refused("one more", more.map(|rows| rows.len()), |e| matches!(e, RecordError::TooLarge { .. }))
    })
}

fn history() -> Vec<Migration> {
    vec![
        Migration::new(1, "items").step(TABLE).step("INSERT INTO items (name, amount) VALUES ('a', 1)"),
        Migration::new(2, "one more").step("UPDATE items SET amount = amount * 10"),
        Migration::new(5, "and one").step("UPDATE items SET amount = amount + 1"),
    ]
}

fn migrations_are_carried_out_once_and_in_order(
    Subject { store, another, keeps: _keeps, .. }: Subject,
) -> Verdict {
    block_on(async {
        let history = history();
        same("nothing", done("migrate", store.migrate(&[]).await)?.applied, vec![])?;
        same("some", done("migrate", store.migrate(&history[..1]).await)?.applied, vec![1])?;
        same("the rest", done("migrate", store.migrate(&history).await)?.applied, vec![2, 5])?;
        same("again", done("migrate", store.migrate(&history).await)?.applied, vec![])?;
        same("elsewhere", done("migrate", another().migrate(&history).await)?.applied, vec![])?;
        same("items", items(&*store).await?, vec![item("a", 11)])
    })
}

fn a_changed_history_is_refused(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    let is_it: fn(&RecordError) -> bool = |e| matches!(e, RecordError::History { .. });
    block_on(async {
        let history = history();
        done("migrate", store.migrate(&history).await)?;
        let mut changed = history.clone();
        changed[1] = Migration::new(2, "one more").step("UPDATE items SET amount = amount * 100");
        changed.push(Migration::new(6, "not this").step("DELETE FROM items"));
        refused("another statement", store.migrate(&changed).await, is_it)?;
        refused("one left out", store.migrate(&history[1..]).await, is_it)?;
        refused("the last left out", store.migrate(&history[..2]).await, is_it)?;
        let mut between = history.clone();
        between.insert(2, Migration::new(3, "between").step("DELETE FROM items"));
        refused("one in between", store.migrate(&between).await, is_it)?;
        let turned: Vec<Migration> = history.iter().rev().cloned().collect();
        refused("turned around", store.migrate(&turned).await, is_it)?;
        same("items", items(&*store).await?, vec![item("a", 11)])
    })
}

fn a_failed_migration_leaves_nothing_of_itself(Subject { store, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        let mut history = history();
        let bad = Migration::new(6, "fails")
            .step("CREATE TABLE more (id BIGINT NOT NULL)")
            .step("INSERT INTO items (name, amount) VALUES ('b', 1)")
            .step("INSERT INTO items (name, amount) VALUES ('a', 1)");
        history.push(bad);
        let failed = store.migrate(&history).await;
        let is_it: fn(&RecordError) -> bool = |e| matches!(e, RecordError::Migration { id: 6, cause, .. } if matches!(**cause, RecordError::UniqueViolation { .. }));
        refused("the last", failed, is_it)?;
        same("items", items(&*store).await?, vec![item("a", 11)])?;
        history[3] = Migration::new(6, "is mended").step("CREATE TABLE more (id BIGINT NOT NULL)");
        same("mended", done("migrate", store.migrate(&history).await)?.applied, vec![6])
    })
}

fn two_that_migrate_at_once_do_it_once(Subject { store, another, keeps: _keeps, .. }: Subject) -> Verdict {
    let history = history();
    let migrate = || block_on(another().migrate(&history));
    let applied = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(migrate)).collect();
        let all = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(RecordError::Aborted)));
        all.map(|migrated| done("migrate", migrated).map(|migrated| migrated.applied))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut applied: Vec<u32> = applied.into_iter().flatten().collect();
    applied.sort_unstable();
    same("carried out by all of them", applied, vec![1, 2, 5])?;
    same("items", block_on(items(&*store))?, vec![item("a", 11)])
}

fn a_closed_store_begins_nothing(Subject { store, another, keeps: _keeps, .. }: Subject) -> Verdict {
    block_on(async {
        commit(&*store, &[TABLE.into()]).await?;
        let mut open = write(&*store).await?;
        execute(&mut *open, put("a", 1)).await?;
        done("close", store.close().await)?;
        done("close again", store.close().await)?;
        refused("write", store.write().await.map(drop), |e| {
            matches!(e, RecordError::ConnectionLost { unknown: false, .. })
        })?;
        refused("read", store.read(ReadFrom::Latest).await.map(drop), |e| {
            matches!(e, RecordError::ConnectionLost { unknown: false, .. })
        })?;
        done("the commit of what was open", open.commit().await)?;
        same("items", items(&*another()).await?, vec![item("a", 1)])
    })
}
