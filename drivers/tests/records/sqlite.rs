//! SQLite: the suite, and what is its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nexus_actors::{Env, HostConfig};
use nexus_drivers::records;
use nexus_drivers::records::sqlite::{SqliteConfig, SqliteRecords};
use nexus_kernel::hal::conformance::record_store::{Subject, check};
use nexus_kernel::hal::{
    DriverContext, ReadFrom, RecordError, RecordStore, RetryPolicy, Statement, WriteSession, transact,
};

/// How long sessions and statements may take when nothing is wrong.
const WAIT: Duration = Duration::from_secs(30);

fn env() -> Env {
    Env::host(HostConfig::default()).expect("threads can be started")
}

fn context(env: &Env) -> DriverContext {
    DriverContext::new(env.clone(), env.pool("records", 8, 64), None)
}

fn store(env: &Env, path: &Path, wait: Duration) -> SqliteRecords {
    let mut config = SqliteConfig::new(path);
    (config.wait, config.statement) = (wait, wait);
    SqliteRecords::new(config, &context(env))
}

/// A subject over a file of its own, each store of which is what `make` makes of it.
pub(crate) fn subject<S: RecordStore>(
    wait: Duration,
    make: impl Fn(SqliteRecords) -> S + Send + Sync + 'static,
) -> Subject {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("records.sqlite");
    let mine = env.clone();
    let another = move || Box::new(make(store(&mine, &path, wait))) as Box<dyn RecordStore>;
    let stops = Stops(env.clone());
    Subject { store: another(), another: Box::new(another), env, keeps: Box::new((stops, folder)) }
}

/// Ends an environment's threads with what it goes with.
struct Stops(Env);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn sqlite_conforms() {
    check(&|| subject(WAIT, |store| store)).assert_passed();
}

#[test]
fn no_name_of_its_own_makes_what_is_temporary() {
    let folder = tempfile::tempdir().expect("a folder");
    let env = env();
    let store = store(&env, &folder.path().join("records.sqlite"), WAIT);
    for sql in [
        // A text where a name should be is one to SQLite.
        "CREATE TABLE 'temp'.t (a BIGINT)",
        "CREATE VIEW 'temp'.t AS SELECT 1",
    ] {
        let error = env.blocking_wait(async { store.write().await?.execute(&sql.into()).await });
        assert!(matches!(error, Err(RecordError::Syntax { .. })), "{sql}: {error:?}");
    }
    env.stop();
}

const TABLE: &str = "CREATE TABLE counts (name TEXT NOT NULL PRIMARY KEY, n BIGINT NOT NULL)";
const COUNT: &str =
    "INSERT INTO counts (name, n) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET n = counts.n + 1";

/// A session that wrote one row, and is open.
async fn begun(store: &dyn RecordStore, statement: Statement) -> Result<Box<dyn WriteSession>, RecordError> {
    let mut session = store.write().await?;
    session.execute(&statement).await?;
    Ok(session)
}

async fn count(store: &dyn RecordStore, name: &str) -> Result<i64, RecordError> {
    let statement = Statement::new("SELECT COALESCE(MAX(n), 0) FROM counts WHERE name = $1").bind(name);
    store.read(ReadFrom::Latest).await?.query(&statement).await?[0].get(0)
}

#[test]
fn nothing_is_opened_until_it_is_used_and_what_was_not_there_may_come() {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let inner = folder.path().join("later");
    let path = inner.join("records.sqlite");
    let store = store(&env, &path, WAIT);
    assert!(!path.exists());
    env.blocking_wait(async {
        let error = store.write().await.map(drop).expect_err("its folder is not there");
        assert!(matches!(error, RecordError::Backend { unknown: false, .. }), "{error:?}");
        std::fs::create_dir(&inner).expect("a folder");
        begun(&store, TABLE.into()).await?.commit().await
    })
    .expect("the folder is there");
    env.stop();
}

#[test]
fn a_column_that_came_since_is_in_what_the_same_statement_reads() {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("records.sqlite");
    let mut config = SqliteConfig::new(&path);
    // One connection reads, and keeps its statements.
    config.readers = 1;
    let store = SqliteRecords::new(config, &context(&env));
    env.blocking_wait(async {
        begun(&store, TABLE.into()).await?.commit().await?;
        begun(&store, Statement::new(COUNT).bind("a")).await?.commit().await?;
        let all = Statement::new("SELECT * FROM counts");
        let rows = store.read(ReadFrom::Latest).await?.query(&all).await?;
        assert_eq!(rows[0].values().len(), 2);
        let add = "ALTER TABLE counts ADD COLUMN seen BOOLEAN NOT NULL DEFAULT TRUE";
        begun(&store, add.into()).await?.commit().await?;
        let rows = store.read(ReadFrom::Latest).await?.query(&all).await?;
        assert!(rows[0].named::<bool>("seen")?);
        assert_eq!(rows[0].named::<i64>("n")?, 1);
        Ok::<_, RecordError>(())
    })
    .expect("nothing is wrong");
    env.stop();
}

#[test]
fn a_session_that_does_nothing_for_too_long_is_taken_back_and_another_one_writes() {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let mut config = SqliteConfig::new(folder.path().join("records.sqlite"));
    (config.hold, config.readers) = (Duration::from_millis(100), 1);
    let store = SqliteRecords::new(config, &context(&env));
    env.blocking_wait(async {
        begun(&store, TABLE.into()).await?.commit().await?;
        let mut idle = begun(&store, Statement::new(COUNT).bind("lost")).await?;
        let reading = store.read(ReadFrom::Latest).await?;
        // Each of them has the only place there is.
        begun(&store, Statement::new(COUNT).bind("a")).await?.commit().await?;
        assert_eq!(count(&store, "a").await?, 1);
        let error = idle.execute(&Statement::new(COUNT).bind("lost")).await.expect_err("it is over");
        assert!(matches!(error, RecordError::TimedOut { unknown: false, .. }), "{error:?}");
        assert_eq!(idle.commit().await, Err(RecordError::Aborted));
        drop(reading);
        assert_eq!(count(&store, "lost").await?, 0);
        // One that does something is let be.
        let mut busy = store.write().await?;
        for _ in 0..6 {
            env.sleep(Duration::from_millis(30)).await;
            busy.execute(&Statement::new(COUNT).bind("b")).await?;
        }
        busy.commit().await?;
        assert_eq!(count(&store, "b").await?, 6);
        Ok::<_, RecordError>(())
    })
    .expect("nothing is wrong");
    env.stop();
}

#[test]
fn who_gives_up_waiting_to_write_is_in_nobodys_way() {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let store = store(&env, &folder.path().join("records.sqlite"), WAIT);
    env.blocking_wait(async {
        let held = begun(&store, TABLE.into()).await?;
        for _ in 0..5 {
            assert!(env.timeout(Duration::from_millis(1), store.write()).await.is_err());
        }
        held.commit().await?;
        for micros in 0..50 {
            // Given up at any moment of its beginning.
            let _ = env.timeout(Duration::from_micros(micros * 10), store.write()).await;
        }
        begun(&store, Statement::new(COUNT).bind("a")).await?.commit().await?;
        assert_eq!(count(&store, "a").await?, 1);
        Ok::<_, RecordError>(())
    })
    .expect("nobody is in the way");
    env.stop();
}

#[test]
fn another_process_that_writes_is_waited_for_until_the_deadline() {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("records.sqlite");
    // As another process has it: with connections and turns of its own.
    let (one, other) = (store(&env, &path, WAIT), store(&env, &path, Duration::from_millis(200)));
    env.blocking_wait(async {
        let held = begun(&one, TABLE.into()).await?;
        let error = other.write().await.map(drop).expect_err("the other one writes");
        assert!(matches!(error, RecordError::Busy { .. }), "{error:?}");
        held.commit().await
    })
    .expect("nothing is wrong");
    let patient = store(&env, &path, WAIT);
    thread::scope(|scope| {
        for store in [&one, &patient] {
            let env = &env;
            scope.spawn(move || {
                for _ in 0..50 {
                    let counted = transact(store, env, RetryPolicy::default(), |session| {
                        Box::pin(async move { session.execute(&Statement::new(COUNT).bind("both")).await })
                    });
                    assert_eq!(env.blocking_wait(counted), Ok(1));
                }
            });
        }
    });
    assert_eq!(env.blocking_wait(count(&one, "both")), Ok(100));
    env.stop();
}

/// Where the child finds its file.
const CHILD: &str = "NEXUS_TEST_RECORDS";

/// The child of the next test: writes row after row, each in a session of its own, and prints each that is acknowledged.
fn write_until_killed(path: &Path) {
    let env = env();
    let store = store(&env, path, WAIT);
    let count = |name: String| {
        let counted = transact(&store, &env, RetryPolicy::default(), |session| {
            let name = name.clone();
            Box::pin(async move {
                session.execute(&Statement::new(COUNT).bind(name)).await?;
                session.execute(&Statement::new(COUNT).bind("all")).await
            })
        });
        env.blocking_wait(counted).map(drop)
    };
    thread::scope(|scope| {
        for writer in 0..2 {
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("{writer}-{number}");
                    count(name.clone()).expect("nothing is wrong");
                    writeln!(std::io::stdout(), "acknowledged {name}").expect("the test reads it");
                }
            });
        }
    });
}

#[test]
fn a_killed_process_keeps_every_acknowledged_row() {
    const ROUNDS: usize = 3;
    // It starts itself.
    if let Some(path) = std::env::var_os(CHILD) {
        return write_until_killed(Path::new(&path));
    }
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    for round in 0..ROUNDS {
        let path = folder.path().join(format!("records-{round}.sqlite"));
        let store = store(&env, &path, WAIT);
        env.blocking_wait(async { begun(&store, TABLE.into()).await?.commit().await })
            .expect("nothing is wrong");
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args([
            "--exact",
            "sqlite::a_killed_process_keeps_every_acknowledged_row",
            "--nocapture",
            "--test-threads=1",
        ]);
        let mut child = command.env(CHILD, &path).stdout(Stdio::piped()).spawn().expect("this test runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut acknowledged = Vec::new();
        let mut names = lines.filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned()));
        let enough = 20 + 30 * round;
        acknowledged.extend(names.by_ref().take(enough));
        assert_eq!(acknowledged.len(), enough, "it writes");
        child.kill().expect("it runs");
        // What it printed before its end counts, too; the last line may be cut off.
        acknowledged.extend(names);
        child.wait().expect("it is ours");
        let mut there = 0;
        for name in &acknowledged {
            let found = env.blocking_wait(count(&store, name)).expect("the file is whole");
            assert!(found == 1 || Some(name) == acknowledged.last(), "{name}: {found}");
        }
        let rows = env.blocking_wait(async {
            store
                .read(ReadFrom::Latest)
                .await?
                .query(&"SELECT n FROM counts WHERE name <> 'all'".into())
                .await
        });
        for row in rows.expect("the file is whole") {
            there += row.get::<i64>(0).expect("a number");
        }
        assert_eq!(env.blocking_wait(count(&store, "all")), Ok(there), "a session was carried out by halves");
    }
    env.stop();
}

#[test]
fn wrong_options_are_named() {
    let (env, folder) = (env(), tempfile::tempdir().expect("a folder"));
    let context = DriverContext::new(env.clone(), env.pool("records", 1, 8), Some(folder.path().into()));
    let check = |driver: &str, options: &[(&str, &str)], want: &str| {
        let options: BTreeMap<String, String> =
            options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let error = records::open(driver, &options, &context).map(drop).expect_err(want);
        assert!(
            matches!(error, RecordError::BadOption { .. }) && error.to_string().contains(want),
            "{error}"
        );
    };
    check("mysql", &[], "no driver \"mysql\"");
    check("sqlite", &[("url", "x")], "no option \"url\"");
    check("sqlite", &[("readers", "0")], "\"readers\" is a whole number from 1");
    check("sqlite", &[("wait_ms", "soon")], "\"wait_ms\"");
    check("sqlite", &[("path", ":memory:")], "\"path\"");
    check("postgres", &[], "\"url\"");
    if cfg!(not(feature = "postgres")) {
        check("postgres", &[("url", "postgres://localhost/x")], "the feature \"postgres\" brings it");
    }
    assert!(records::open("sqlite", &BTreeMap::new(), &context).is_ok());
    assert!(records::open_url("sqlite:other.sqlite", &context).is_ok());
    let error = records::open_url("mysql://u:hidden@h/d", &context).map(drop).expect_err("there is none");
    assert!(!error.to_string().contains("hidden"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing was opened");
    env.stop();
}
