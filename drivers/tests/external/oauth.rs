//! Tokens that are renewed: once for all who wait, and seen by nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_drivers::catalogue;
use nexus_kernel::hal::{ConnectorCategory, ObjectStore, StoreError};
use nexus_messages::ErrorKind;
use nexus_messages::syscall::MountSpec;
use serde_json::json;

use crate::server::{Answer, Asked, Server};
use crate::subjects::{env, example, list, names, open, open_in, open_of, read, stat};

const REFRESH: &str = "refresh-of-the-user";
const ROTATED: &str = "refresh-that-came-after";
const CLIENT: &str = "secret-of-the-client";

/// A server of tokens and of what they open.
#[derive(Default)]
struct Tokens {
    granted: AtomicUsize,
    /// Which token is good now; 0 for none.
    good: AtomicUsize,
    /// With what it refuses; 0 when it does not.
    refuses: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

impl Tokens {
    fn answer(&self, asked: &Asked) -> Answer {
        let good = format!("Bearer access-{}", self.good.load(Ordering::Acquire));
        match asked.path().as_str() {
            "/token" => self.token(asked),
            // There no token helps.
            "/calendars/closed/events" => Answer::of(401, ""),
            _ if asked.header("authorization") != Some(&good) => Answer::of(401, good),
            "/users/me/calendarList" => Answer::of(200, json!({"items": [{"id": "me@example"}]}).to_string()),
            "/calendars/me@example/events" => {
                let event = json!({"id": "e1", "updated": "2026-01-02T03:04:05.000Z", "etag": "\"1\""});
                Answer::of(200, json!({"items": [event]}).to_string())
            }
            "/calendars/me@example/events/e1" => Answer::of(200, "{}").header("ETag", "\"1\""),
            _ => Answer::of(404, ""),
        }
    }

    fn token(&self, asked: &Asked) -> Answer {
        self.seen.lock().expect("nobody panics").push(String::from_utf8_lossy(&asked.body).into_owned());
        let refuses = self.refuses.load(Ordering::Acquire);
        if refuses > 0 {
            // It repeats what it was sent, as some do.
            let said =
                json!({"error": "invalid_grant", "error_description": String::from_utf8_lossy(&asked.body)});
            return Answer::of(u16::try_from(refuses).unwrap_or(500), said.to_string());
        }
        let nth = self.granted.fetch_add(1, Ordering::AcqRel) + 1;
        self.good.store(nth, Ordering::Release);
        let token = json!({"access_token": format!("access-{nth}"), "token_type": "Bearer", "expires_in": 3600, "refresh_token": ROTATED});
        Answer::of(200, token.to_string())
    }
}

fn calendar() -> (Server, Arc<Tokens>, Arc<dyn ObjectStore>) {
    let (server, tokens, spec) = described();
    let store = open(&spec);
    (server, tokens, store)
}

fn described() -> (Server, Arc<Tokens>, MountSpec) {
    let tokens = Arc::new(Tokens::default());
    let answering = tokens.clone();
    let server = Server::start(move |asked| answering.answer(asked));
    let base = server.base();
    let spec = MountSpec::new("rest")
        .option("description", example("calendar.toml"))
        .option("parameters", format!("client=me,api={base},tokens={base}/token"))
        .option("refresh_token", REFRESH)
        .option("client_secret", CLIENT);
    (server, tokens, spec)
}

#[test]
fn a_token_is_asked_for_once_and_kept() {
    let (_server, tokens, store) = calendar();
    assert_eq!(store.connector(), Some(ConnectorCategory::OAuth));
    assert_eq!(names(&*store, ""), ["me@example"]);
    assert_eq!(names(&*store, "me@example"), ["e1.json"]);
    assert_eq!(read(&*store, "me@example/e1.json").unwrap(), "{}");
    assert_eq!(tokens.granted.load(Ordering::Acquire), 1);
    let seen = tokens.seen.lock().expect("nobody panics").join("");
    assert_eq!(
        seen,
        format!("grant_type=refresh_token&refresh_token={REFRESH}&client_id=me&client_secret={CLIENT}")
    );
}

#[test]
fn many_who_want_a_token_ask_once() {
    let (_server, tokens, store) = calendar();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(read(&*store, "me@example/e1.json").unwrap(), "{}"));
        }
    });
    assert_eq!(tokens.granted.load(Ordering::Acquire), 1);
}

#[test]
fn one_that_is_not_taken_any_more_is_renewed_with_what_came_last() {
    let (_server, tokens, store) = calendar();
    read(&*store, "me@example/e1.json").unwrap();
    tokens.good.store(999, Ordering::Release);
    assert_eq!(read(&*store, "me@example/e1.json").unwrap(), "{}");
    assert_eq!(tokens.granted.load(Ordering::Acquire), 2);
    let seen = tokens.seen.lock().expect("nobody panics");
    assert!(seen[1].contains(&format!("refresh_token={ROTATED}&")), "{seen:?}");
}

#[test]
fn another_instance_of_the_mount_goes_on_with_what_came_last() {
    let (_server, tokens, spec) = described();
    let catalogue = catalogue();
    let store = open_of(&catalogue, &spec).unwrap();
    read(&*store, "me@example/e1.json").unwrap();
    drop(store);
    let store = open_of(&catalogue, &spec).unwrap();
    read(&*store, "me@example/e1.json").unwrap();
    assert_eq!(tokens.granted.load(Ordering::Acquire), 1, "the token is good still");
    tokens.good.store(999, Ordering::Release);
    let store = open_of(&catalogue, &spec).unwrap();
    assert_eq!(read(&*store, "me@example/e1.json").unwrap(), "{}");
    let seen = tokens.seen.lock().expect("nobody panics").clone();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].contains(&format!("refresh_token={ROTATED}&")), "{seen:?}");
    // What is given anew is another one.
    let given = spec.option("refresh_token", "refresh-that-was-given-anew");
    read(&*open_of(&catalogue, &given).unwrap(), "me@example/e1.json").unwrap();
    let seen = tokens.seen.lock().expect("nobody panics").clone();
    assert!(seen[2].contains("refresh_token=refresh-that-was-given-anew&"), "{seen:?}");
}

/// Many servers take a refresh token once.
#[test]
fn what_came_last_outlives_the_process_where_there_is_a_data_folder() {
    let (_server, tokens, spec) = described();
    let data = tempfile::tempdir().unwrap();
    // What another process makes of the same folder.
    let started = || open_in(&catalogue(), &spec, Some(data.path())).unwrap();
    read(&*started(), "me@example/e1.json").unwrap();
    read(&*started(), "me@example/e1.json").unwrap();
    let seen = || tokens.seen.lock().expect("nobody panics").clone();
    assert_eq!(seen().len(), 2);
    assert!(seen()[1].contains(&format!("refresh_token={ROTATED}&")), "{:?}", seen());
    let kept: Vec<_> = fs::read_dir(data.path().join("grants")).unwrap().map(|it| it.unwrap()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // It may be older than the given one, in a folder that was brought back.
    tokens.refuses.store(400, Ordering::Release);
    let store = started();
    read(&*store, "me@example/e1.json").unwrap_err();
    tokens.refuses.store(0, Ordering::Release);
    let began = env().now();
    while read(&*store, "me@example/e1.json").is_err() {
        assert!(env().now() - began < Duration::from_secs(30), "it is not tried again");
        block_on(env().sleep(Duration::from_millis(50)));
    }
    assert!(seen()[3].contains(&format!("refresh_token={REFRESH}&")), "{:?}", seen());
    // Nothing is guessed where it cannot be read.
    fs::write(kept[0].path(), "something else").unwrap();
    let refused = open_in(&catalogue(), &spec, Some(data.path())).unwrap_err();
    assert!(refused.to_string().contains("grants/"), "{refused}");
}

#[test]
fn who_is_refused_a_token_waits_however_often_the_mount_is_made_anew() {
    let (_server, tokens, spec) = described();
    tokens.refuses.store(400, Ordering::Release);
    let catalogue = catalogue();
    for _ in 0..20 {
        let store = open_of(&catalogue, &spec).unwrap();
        // The server is there: another instance would be no better.
        block_on(store.probe()).unwrap();
        assert!(store.trouble().is_some_and(|why| why.contains("invalid_grant")), "{:?}", store.trouble());
        read(&*store, "me@example/e1.json").unwrap_err();
    }
    let asked = tokens.seen.lock().expect("nobody panics").len();
    assert!(asked < 5, "it was asked {asked} times");
    tokens.refuses.store(0, Ordering::Release);
    let store = open_of(&catalogue, &spec).unwrap();
    let begun = env().now();
    while read(&*store, "me@example/e1.json").is_err() {
        assert!(env().now() - begun < Duration::from_secs(20), "{:?}", store.trouble());
        thread::yield_now();
    }
    assert_eq!(store.trouble(), None);
}

#[test]
fn what_no_token_opens_is_not_asked_for_with_ever_new_ones() {
    let (_server, tokens, store) = calendar();
    for _ in 0..20 {
        assert!(list(&*store, "closed").is_err());
        assert_eq!(read(&*store, "me@example/e1.json").unwrap(), "{}");
    }
    let granted = tokens.granted.load(Ordering::Acquire);
    assert!((2..6).contains(&granted), "{granted} tokens");
}

#[test]
fn a_server_of_tokens_that_fails_has_a_moment_to_recover() {
    let (_server, tokens, store) = calendar();
    tokens.refuses.store(503, Ordering::Release);
    for _ in 0..20 {
        let error = read(&*store, "me@example/e1.json").unwrap_err();
        assert!(error.is_backend_failure() && error.to_string().contains("503"), "{error}");
    }
    let asked = tokens.seen.lock().expect("nobody panics").len();
    assert!(asked < 5, "it was asked {asked} times");
}

#[test]
fn a_refusal_is_one_and_shows_nothing() {
    let (_server, tokens, store) = calendar();
    tokens.refuses.store(400, Ordering::Release);
    let error = read(&*store, "me@example/e1.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.to_string().contains("invalid_grant"), "{error}");
    let all = format!("{error} {error:?} {store:?}");
    for secret in [REFRESH, ROTATED, CLIENT, "access-1"] {
        assert!(!all.contains(secret), "{all}");
    }
    // However much it is wanted, it is asked for again only after a moment; what is told meanwhile says why.
    for _ in 0..10 {
        let error = read(&*store, "me@example/e1.json").unwrap_err();
        assert!(error.to_string().contains("invalid_grant") && !error.is_backend_failure(), "{error}");
        assert!(error.to_string().contains("asked again in"), "{error}");
    }
    tokens.refuses.store(0, Ordering::Release);
    let begun = env().now();
    let content = loop {
        match read(&*store, "me@example/e1.json") {
            Ok(content) => break content,
            Err(error) => assert!(env().now() - begun < Duration::from_secs(10), "{error}"),
        }
        thread::yield_now();
    };
    assert_eq!(content, "{}");
    let asked = tokens.seen.lock().expect("nobody panics").len();
    assert!((2..5).contains(&asked), "it was asked {asked} times");
}

#[test]
fn nothing_that_is_told_has_a_token_in_it() {
    let (server, _tokens, store) = calendar();
    read(&*store, "me@example/e1.json").unwrap();
    let missing = stat(&*store, "me@example/none.json").unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    drop(server);
    let gone = stat(&*store, "me@example/e1.json");
    let all = format!("{missing} {missing:?} {gone:?} {store:?}");
    for secret in [REFRESH, ROTATED, CLIENT, "access-1"] {
        assert!(!all.contains(secret), "{all}");
    }
}
