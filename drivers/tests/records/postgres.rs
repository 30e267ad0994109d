//! The suite, and what it does not see: servers that die, lines that break, replicas, secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nexus_actors::{Env, HostConfig};
use nexus_drivers::records;
use nexus_drivers::records::postgres::{PostgresConfig, PostgresRecords, Server};
use nexus_kernel::hal::conformance::record_store::{Subject, check};
use nexus_kernel::hal::{
    DriverContext, ReadFrom, RecordError, RecordStore, RetryPolicy, Statement, transact,
};

use crate::log;
use crate::server::{PASSWORD, Postgres, url};
use crate::servers::free_port;
use crate::servers::proxy::{Fault, Proxy, Speaks};

pub(crate) fn env() -> Env {
    Env::host(HostConfig::default()).expect("threads can be started")
}

pub(crate) fn context(env: &Env) -> DriverContext {
    DriverContext::new(env.clone(), env.pool("records", 1, 1), None)
}

pub(crate) fn config(url: &str) -> PostgresConfig {
    PostgresConfig::new(Server::new(url).expect("the address is right"))
}

pub(crate) fn store(env: &Env, url: &str) -> PostgresRecords {
    PostgresRecords::new(config(url), &context(env))
}

/// Carries statements out, in a session of their own.
pub(crate) async fn commit(store: &dyn RecordStore, statements: &[&'static str]) -> Result<(), RecordError> {
    let mut session = store.write().await?;
    for sql in statements {
        session.execute(&(*sql).into()).await?;
    }
    session.commit().await
}

pub(crate) async fn number(
    store: &dyn RecordStore,
    from: ReadFrom,
    sql: &'static str,
) -> Result<i64, RecordError> {
    store.read(from).await?.query(&sql.into()).await?[0].get(0)
}

/// Makes databases: the one thing that is done in no transaction, and so by no store.
fn make_database(server: &Postgres, env: &Env, name: &str) {
    let (url, sql) = (server.url("postgres"), format!("CREATE DATABASE {name}"));
    let (tell, told) = std::sync::mpsc::channel();
    env.spawn("make-database", async move {
        let made = async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            let made = async move {
                let made = client.batch_execute(&sql).await;
                drop(client);
                made
            };
            let (made, _) = futures_util::future::join(made, connection).await;
            made
        };
        let _ = tell.send(made.await.map_err(|error| error.to_string()));
    });
    assert_eq!(told.recv(), Ok(Ok(())), "{name}");
}

#[test]
fn postgres_conforms() {
    let (server, env, made) = (Postgres::start(), env(), AtomicU32::new(0));
    let make = || {
        let name = format!("claim_{}", made.fetch_add(1, Ordering::Relaxed));
        make_database(&server, &env, &name);
        let (url, mine) = (server.url(&name), env.clone());
        let another = move || Box::new(store(&mine, &url)) as Box<dyn RecordStore>;
        Subject { store: another(), another: Box::new(another), env: env.clone(), keeps: Box::new(()) }
    };
    check(&make).assert_passed();
    env.stop();
}

/// What one writer was told of its rows.
#[derive(Default)]
struct Told {
    acknowledged: Vec<i64>,
    unknown: Vec<i64>,
}

#[test]
fn a_killed_server_loses_nothing_and_what_is_repeated_is_there_once() {
    const WRITERS: i64 = 4;
    let (mut server, env) = (Postgres::start(), env());
    let store = store(&env, &server.url("postgres"));
    let tables = [
        "CREATE TABLE rows (writer BIGINT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (writer, number))",
        "CREATE TABLE counts (writer BIGINT NOT NULL PRIMARY KEY, rows BIGINT NOT NULL)",
        "INSERT INTO counts (writer, rows) VALUES (0, 0), (1, 0), (2, 0), (3, 0)",
    ];
    env.blocking_wait(commit(&store, &tables)).expect("the server is there");
    let (ends, progress) = (AtomicBool::new(false), AtomicU32::new(0));
    let write = |writer: i64| {
        let mut told = Told::default();
        let policy = RetryPolicy { attempts: 1_000, ..RetryPolicy::default() };
        let mut number = 0;
        while !ends.load(Ordering::SeqCst) {
            let done = env.blocking_wait(transact(&store, &env, policy, |session| {
                Box::pin(async move {
                    let row = Statement::new("INSERT INTO rows (writer, number) VALUES ($1, $2)");
                    session.execute(&row.bind(writer).bind(number)).await?;
                    let count = Statement::new("UPDATE counts SET rows = rows + 1 WHERE writer = $1");
                    session.execute(&count.bind(writer)).await
                })
            }));
            match done {
                Ok(_) => told.acknowledged.push(number),
                Err(error) if error.is_unknown() => told.unknown.push(number),
                Err(error) => panic!("{error}"),
            }
            number += 1;
            progress.fetch_add(1, Ordering::SeqCst);
        }
        told
    };
    let goes_on = || {
        let from = progress.load(Ordering::SeqCst);
        while progress.load(Ordering::SeqCst) < from + 40 {
            thread::yield_now();
        }
    };
    let told: Vec<Told> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        for _ in 0..3 {
            goes_on();
            server.kill();
            server.start_again();
        }
        goes_on();
        ends.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().expect("no writer gives up")).collect()
    });
    for (writer, told) in (0..).zip(&told) {
        let of = |sql: &'static str| {
            let statement = Statement::new(sql).bind(writer);
            let rows =
                env.blocking_wait(async { store.read(ReadFrom::Latest).await?.query(&statement).await });
            rows.expect("the server is back")
                .iter()
                .map(|row| row.get(0).expect("a number"))
                .collect::<Vec<i64>>()
        };
        let there = of("SELECT number FROM rows WHERE writer = $1 ORDER BY number");
        assert!(told.acknowledged.iter().all(|number| there.contains(number)), "an acknowledged row is lost");
        let known = |number: &&i64| !told.acknowledged.contains(number) && !told.unknown.contains(number);
        assert_eq!(there.iter().find(known), None, "a row that nobody was told of");
        let count = i64::try_from(there.len()).expect("few");
        assert_eq!(
            of("SELECT rows FROM counts WHERE writer = $1"),
            [count],
            "a session was carried out twice"
        );
    }
    env.stop();
}

#[test]
fn a_commit_whose_answer_is_lost_is_told_as_such_and_not_repeated() {
    let (server, env) = (Postgres::start(), env());
    let proxy = Arc::new(Proxy::of(server.port(), Speaks::Postgres));
    let store = store(&env, &url(proxy.port(), "postgres"));
    env.blocking_wait(commit(&store, &["CREATE TABLE marks (number BIGINT NOT NULL)"]))
        .expect("the server is there");
    let mut want = 0;
    for fault in [Fault::Cut, Fault::Lost] {
        let tries = Arc::new(AtomicU32::new(0));
        let marked = env.blocking_wait(transact(&store, &env, RetryPolicy::default(), |session| {
            let (tries, proxy) = (tries.clone(), proxy.clone());
            Box::pin(async move {
                tries.fetch_add(1, Ordering::SeqCst);
                let done = session.execute(&"INSERT INTO marks (number) VALUES (1)".into()).await;
                proxy.set_after(b"COMMIT", fault);
                done
            })
        }));
        proxy.set(Fault::None);
        let error = marked.expect_err("its answer was cut off");
        assert!(matches!(error, RecordError::ConnectionLost { unknown: true, .. }), "{error:?}");
        assert!(error.to_string().contains("may have been carried out"), "{error}");
        assert_eq!(tries.load(Ordering::SeqCst), 1, "it was repeated");
        want += i64::from(fault == Fault::Lost);
        // The server may still be at it.
        let there = || env.blocking_wait(number(&store, ReadFrom::Latest, "SELECT count(*) FROM marks"));
        while there().expect("the line is there again") < want {
            thread::yield_now();
        }
        assert_eq!(there(), Ok(want));
    }
    env.stop();
}

#[test]
fn of_two_sessions_that_collide_one_is_told_to_repeat() {
    let (server, env) = (Postgres::start(), env());
    let store = store(&env, &server.url("postgres"));
    env.blocking_wait(async {
        commit(&store, &["CREATE TABLE n (i BIGINT NOT NULL)", "INSERT INTO n (i) VALUES (1)"]).await?;
        let (mut one, mut two) = (store.write().await?, store.write().await?);
        for session in [&mut one, &mut two] {
            session.query(&"SELECT i FROM n".into()).await?;
        }
        one.execute(&"UPDATE n SET i = i + 1".into()).await?;
        one.commit().await?;
        let error =
            two.execute(&"UPDATE n SET i = i + 1".into()).await.expect_err("it saw what is not so any more");
        assert!(matches!(error, RecordError::Conflict { .. }) && error.is_retryable(), "{error:?}");
        Ok::<_, RecordError>(())
    })
    .expect("the server is there");
    env.stop();
}

#[test]
fn a_replica_is_read_while_it_is_there() {
    // Another server instead of a true replica: so it is seen who answers.
    let (server, mut replica, env) = (Postgres::start(), Postgres::start(), env());
    let set = |url: &str, sql: &'static str| {
        let there = ["CREATE TABLE who (id BIGINT NOT NULL)", sql];
        env.blocking_wait(commit(&store(&env, url), &there)).expect("the server is there");
    };
    set(&server.url("postgres"), "INSERT INTO who (id) VALUES (1)");
    set(&replica.url("postgres"), "INSERT INTO who (id) VALUES (2)");
    let mut config = config(&server.url("postgres"));
    config.replica = Some(Server::new(&replica.url("postgres")).expect("the address is right"));
    let store = PostgresRecords::new(config, &context(&env));
    let who =
        |from| env.blocking_wait(number(&store, from, "SELECT id FROM who")).expect("one of them is there");
    assert_eq!((who(ReadFrom::Latest), who(ReadFrom::Replica)), (1, 2));
    replica.kill();
    assert_eq!((who(ReadFrom::Replica), who(ReadFrom::Replica)), (1, 1));
    replica.start_again();
    while who(ReadFrom::Replica) == 1 {
        thread::yield_now();
    }
    env.stop();
}

#[test]
fn sessions_are_bounded_and_given_back_however_they_end() {
    let (server, env) = (Postgres::start(), env());
    let mut config = config(&server.url("postgres"));
    config.sessions = 1;
    config.wait = Duration::from_millis(300);
    let store = PostgresRecords::new(config.clone(), &context(&env));
    env.blocking_wait(async {
        let held = store.write().await?;
        assert!(matches!(store.write().await.map(drop), Err(RecordError::Busy { .. })));
        drop(held);
        config.wait = Duration::from_secs(30);
        let store = PostgresRecords::new(config, &context(&env));
        for _ in 0..20 {
            // Given up before it is begun, and while a statement runs.
            let _ = env.timeout(Duration::ZERO, store.write()).await;
            let mut session = store.write().await?;
            let asleep = Statement::new("SELECT pg_sleep(60)");
            assert!(env.timeout(Duration::from_millis(5), session.query(&asleep)).await.is_err());
        }
        // What was given up does not run on.
        let others = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' AND pid <> pg_backend_pid()";
        while number(&store, ReadFrom::Latest, others).await? > 0 {}
        Ok::<_, RecordError>(())
    })
    .expect("the server is there");
    env.stop();
}

#[test]
fn nothing_that_a_session_sets_is_there_for_the_next() {
    let (server, env) = (Postgres::start(), env());
    let mut config = config(&server.url("postgres"));
    config.sessions = 1;
    let store = PostgresRecords::new(config, &context(&env));
    let own =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'nexus' AND pid = pg_backend_pid()";
    env.blocking_wait(async {
        commit(
            &store,
            &[
                "CREATE TABLE accounts (name TEXT NOT NULL)",
                "CREATE SEQUENCE numbers",
                "SELECT set_config('search_path', 'pg_temp', false), set_config('application_name', 'x', false)",
                "SELECT set_config('statement_timeout', '60000', false), set_config('default_transaction_read_only', 'on', false)",
                // Where the search path leads.
                "CREATE TABLE accounts (name TEXT NOT NULL)",
                "SELECT pg_try_advisory_lock(7)",
                "SELECT nextval('public.numbers')",
            ],
        )
        .await?;
        let pid = number(&store, ReadFrom::Latest, "SELECT pg_backend_pid()").await?;
        commit(&store, &["INSERT INTO accounts (name) VALUES ('a')"]).await?;
        assert_eq!(number(&store, ReadFrom::Latest, "SELECT count(*) FROM public.accounts").await?, 1);
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(number(&store, ReadFrom::Latest, locks).await?, 0);
        assert_eq!(number(&store, ReadFrom::Latest, own).await?, 1, "what it is called is not the session's");
        assert!(number(&store, ReadFrom::Latest, "SELECT lastval()").await.is_err());
        assert_eq!(number(&store, ReadFrom::Latest, "SELECT pg_backend_pid()").await?, pid, "it is one connection");
        Ok::<_, RecordError>(())
    })
    .expect("the server is there");
    env.stop();
}

#[test]
fn a_session_that_does_nothing_for_too_long_is_taken_back_and_another_one_has_its_place() {
    let (server, env) = (Postgres::start(), env());
    let mut config = config(&server.url("postgres"));
    (config.hold, config.sessions) = (Duration::from_millis(400), 1);
    let store = PostgresRecords::new(config, &context(&env));
    env.blocking_wait(async {
        commit(&store, &["CREATE TABLE marks (number BIGINT NOT NULL)"]).await?;
        let mut idle = store.write().await?;
        let lost = Statement::new("INSERT INTO marks (number) VALUES (1)");
        idle.execute(&lost).await?;
        // It has the only place there is.
        commit(&store, &["INSERT INTO marks (number) VALUES (2)"]).await?;
        let error = idle.execute(&lost).await.expect_err("it is over");
        assert!(matches!(error, RecordError::TimedOut { unknown: false, .. }), "{error:?}");
        assert_eq!(idle.commit().await, Err(RecordError::Aborted));
        assert_eq!(
            number(&store, ReadFrom::Latest, "SELECT CAST(sum(number) AS BIGINT) FROM marks").await?,
            2
        );
        // One that does something is let be.
        let mut busy = store.write().await?;
        for _ in 0..8 {
            env.sleep(Duration::from_millis(100)).await;
            busy.execute(&lost).await?;
        }
        busy.commit().await?;
        assert_eq!(number(&store, ReadFrom::Latest, "SELECT count(*) FROM marks").await?, 9);
        Ok::<_, RecordError>(())
    })
    .expect("the server is there");
    env.stop();
}

#[test]
fn a_connection_that_died_in_silence_holds_nobody_beyond_the_wait() {
    let (server, env) = (Postgres::start(), env());
    let proxy = Proxy::of(server.port(), Speaks::Postgres);
    let mut config = config(&url(proxy.port(), "postgres"));
    // A statement may take long; to find somebody there may not.
    (config.wait, config.connect) = (Duration::from_millis(500), Duration::from_millis(500));
    let store = PostgresRecords::new(config, &context(&env));
    env.blocking_wait(async {
        for _ in 0..2 {
            let (one, two) = (store.read(ReadFrom::Latest).await?, store.read(ReadFrom::Latest).await?);
            drop((one, two));
        }
        Ok::<_, RecordError>(())
    })
    .expect("the server is there");
    proxy.set(Fault::Stall);
    let began = env.now();
    let error = env.blocking_wait(store.read(ReadFrom::Latest)).map(drop).expect_err("nobody answers");
    assert!(matches!(error, RecordError::ConnectionLost { .. }), "{error:?}");
    assert!(env.now() - began < Duration::from_secs(10), "it took {:?}", env.now() - began);
    env.stop();
}

#[test]
fn a_server_that_is_away_is_waited_for_until_the_deadline() {
    let env = env();
    // One where nobody listens, and one who listens and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
    for port in [free_port(), silent.local_addr().expect("it is bound").port()] {
        let mut config = config(&url(port, "postgres"));
        (config.wait, config.connect) = (Duration::from_millis(400), Duration::from_millis(100));
        let store = PostgresRecords::new(config, &context(&env));
        let began = env.now();
        let error = env.blocking_wait(store.write()).map(drop).expect_err("nobody serves");
        assert!(matches!(error, RecordError::ConnectionLost { unknown: false, .. }), "{error:?}");
        assert!(env.now() - began < Duration::from_secs(3), "{error:?}");
        hides(&error);
    }
    env.stop();
}

#[test]
fn the_way_to_another_machine_is_encrypted_and_its_name_is_checked() {
    let (server, env) = (Postgres::start_encrypted(), env());
    let context = context(&env);
    let authority = server.authority();
    let at = |host: &str, mode: &str, authority: Option<&std::path::Path>| {
        let url = format!("postgres://nexus:{PASSWORD}@{host}:{}/postgres{mode}", server.port());
        let mut options = BTreeMap::from([("url".to_owned(), url)]);
        options.extend(authority.map(|path| ("ca_file".to_owned(), path.to_string_lossy().into_owned())));
        let store = records::open("postgres", &options, &context).expect("the options are right");
        env.blocking_wait(async move {
            let own = "SELECT CASE WHEN ssl THEN 1 ELSE 0 END FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            let row = store.read(ReadFrom::Latest).await?.query(&own.into()).await?.remove(0);
            // One that is given up is cancelled by the same way.
            let mut session = store.read(ReadFrom::Latest).await?;
            let asleep = Statement::new("SELECT pg_sleep(60)").within(Duration::from_millis(20));
            assert!(session.query(&asleep).await.is_err());
            row.get::<i64>(0)
        })
    };
    assert_eq!(at("localhost", "", None), Ok(0));
    assert_eq!(at("localhost", "?sslmode=require", Some(&authority)), Ok(1));
    for (host, authority) in [("127.0.0.1", Some(&*authority)), ("localhost", None)] {
        let error = at(host, "?sslmode=require", authority).expect_err("it is not to be trusted");
        assert!(matches!(error, RecordError::BadOption { .. }), "{error:?}");
        hides(&error);
    }
    // A server that does not encrypt is refused, and not talked to in the clear.
    let plain = Postgres::start();
    let url = format!("{}?sslmode=require", plain.url("postgres"));
    let server = Server::new(&url).expect("the address is right").trusted_by(&authority);
    let store = PostgresRecords::new(PostgresConfig::new(server), &context);
    let error = env.blocking_wait(store.write()).map(drop).expect_err("it does not encrypt");
    assert!(matches!(error, RecordError::BadOption { .. }), "{error:?}");
    env.stop();
}

/// Nothing that is printed of it has the password in it.
fn hides(it: &(impl std::fmt::Debug + ?Sized)) {
    let shown = format!("{it:?} {it:#?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[test]
fn the_password_is_shown_nowhere() {
    log::keep();
    let (mut server, env) = (Postgres::start(), env());
    let context = context(&env);
    let open = |key: &str, url: &str| {
        let options =
            BTreeMap::from([("url".to_owned(), server.url("postgres")), (key.to_owned(), url.to_owned())]);
        records::open("postgres", &options, &context)
    };
    for bad in [
        format!("postgres://nexus:{PASSWORD}"),
        format!("postgres://nexus:{PASSWORD}@127.0.0.1:{PASSWORD}/x"),
        format!("postgres://nexus:{PASSWORD}@127.0.0.1/x?sslmode={PASSWORD}"),
        format!("postgres://nexus:{PASSWORD}@127.0.0.1/x?{PASSWORD}={PASSWORD}"),
        format!("host=127.0.0.1 password='{PASSWORD}"),
    ] {
        for key in ["url", "replica_url"] {
            let error = open(key, &bad).expect_err("the address is wrong");
            assert!(matches!(error, RecordError::BadOption { .. }), "{error:?}");
            assert!(!error.to_string().contains(PASSWORD) && error.to_string().contains(key), "{error}");
            hides(&error);
        }
        let error = records::open_url(&bad, &context).expect_err("the address is wrong");
        hides(&error);
    }
    hides(&config(&server.url("postgres")));
    let wrong = format!("postgres://nobody:{PASSWORD}@127.0.0.1:{}/postgres", server.port());
    let store = records::open_url(&wrong, &context).expect("the address is right");
    let error = env.blocking_wait(store.write()).map(drop).expect_err("there is no such user");
    assert!(matches!(error, RecordError::BadOption { .. }), "{error:?}");
    hides(&error);
    assert!(!error.to_string().contains(PASSWORD), "{error}");
    let store = records::open_url(&server.url("postgres"), &context).expect("the address is right");
    env.blocking_wait(async {
        let mut session = store.write().await?;
        hides(&session);
        let secret = Statement::new("SELECT CAST($1 AS BIGINT)").bind(PASSWORD);
        hides(&secret);
        let error = session.query(&secret).await.expect_err("it is no number");
        assert!(matches!(error, RecordError::BadValue { .. }), "{error:?}");
        Ok::<_, RecordError>(())
    })
    .expect("the server is there");
    hides(&store);
    // Lines that break, and a server that is away, are logged.
    server.kill();
    let mut config = config(&server.url("postgres"));
    config.replica = Some(config.server.clone());
    config.wait = Duration::from_millis(100);
    let store = PostgresRecords::new(config, &context);
    assert!(env.blocking_wait(store.read(ReadFrom::Replica)).is_err());
    let logged = log::kept();
    assert!(logged.contains("the replica is not reached"), "{logged}");
    assert!(!logged.contains(PASSWORD), "{logged}");
    env.stop();
}
