//! Servers that do not do what they should, and names that are meant to be misunderstood.

use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::future::{Either, select};
use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectStore, PathWrite, StoreError};
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, EntryType, ErrorKind};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::api;
use crate::server::{Answer, Asked, Server};
use crate::subjects::{delete, described, env, files, list, open, read, stat, write};

/// Files at their paths, by reading alone: what is not told is asked.
const ROUTES: &str = r#"
[[route]]
path = "{name}"
stat = "read"
read = { url = "/f/{name}" }
write = { if_none_match = true }
delete = {}

[[route]]
path = "post/{name}"
read = { url = "/f/{name}" }
write = { method = "POST" }

[[route]]
path = "list"
list = { url = "/list", fields = { name = "" }, details = "listing" }
"#;

/// Enough patience for all repetitions, on a machine that has much to do.
const PATIENT: &str = "limits = { timeout_ms = 10000, retries = 2, body_bytes = 1000 }\n";

/// Little patience.
const HASTY: &str = "limits = { timeout_ms = 900, retries = 2, body_bytes = 1000 }\n";

/// Within this time a server sees that somebody is gone.
const LEFT_WITHIN: Duration = Duration::from_secs(10);

fn serving(
    answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (TempDir, Server, Arc<dyn ObjectStore>) {
    serving_with(PATIENT, answers)
}

fn serving_with(
    limits: &str,
    answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (TempDir, Server, Arc<dyn ObjectStore>) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(answers);
    let store = open(&described(&server, folder.path(), &format!("{limits}{ROUTES}")));
    (folder, server, store)
}

#[test]
fn names_are_names_whatever_is_in_them() {
    let (server, _) = api::start();
    let store = open(&files(&server));
    for name in [
        "a%2e%2e",
        "a?b=c",
        "a#b",
        "a&b=c;d",
        "new\nline",
        "tab\tx",
        "ü€😀",
        "a b+c",
        "..a",
        "%",
        "http:",
        "a\\b",
        "-x",
        "'\"",
    ] {
        for path in [name.to_owned(), format!("folder/{name}")] {
            write(&*store, &path, path.clone(), PathWrite::Whole)
                .unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert_eq!(read(&*store, &path).unwrap(), path, "{path:?}");
        }
    }
    let asked = server.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.target.starts_with("/v1/files/") || asked.target.starts_with("/v1/list?"))
    );
    let page = list(&*store, "folder").unwrap();
    assert_eq!((page.entries.len(), page.unnameable), (14, 0));
    for (name, info) in page.entries {
        assert_eq!(stat(&*store, &format!("folder/{name}")).unwrap(), info, "{name:?}");
        delete(&*store, &format!("folder/{name}")).unwrap();
    }
    for path in ["..", "a/../b", "/etc/passwd", "a//b", "."] {
        assert!(
            read(&*store, path).is_err() && write(&*store, path, "x", PathWrite::Whole).is_err(),
            "{path}"
        );
    }
}

#[test]
fn a_status_has_its_kind() {
    let (_folder, _server, store) = serving(|asked| {
        let status = asked.target.trim_start_matches("/f/").parse().unwrap_or(200);
        Answer::of(status, "s3cret words of the server")
    });
    let check = |status: u16, is: fn(&StoreError) -> bool| {
        let error = read(&*store, &status.to_string()).unwrap_err();
        assert!(is(&error), "{status}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    };
    let denied = |error: &StoreError| error.kind() == ErrorKind::PermissionDenied;
    check(404, |error| matches!(error, StoreError::NotFound { .. }));
    check(410, |error| matches!(error, StoreError::NotFound { .. }));
    check(401, denied);
    check(403, denied);
    check(405, |error| matches!(error, StoreError::NotSupported { .. }));
    check(409, |error| matches!(error, StoreError::Locked { .. }));
    check(400, |error| !error.is_backend_failure());
    check(429, |error| !error.is_backend_failure());
    check(507, |error| matches!(error, StoreError::Full));
    check(302, |error| !error.is_backend_failure() && error.to_string().contains("not followed"));
    check(500, |error| matches!(error, StoreError::Backend { .. }));
    check(206, |error| matches!(error, StoreError::Backend { .. }));
    // Nobody asked whether it is still so.
    check(304, |error| error.to_string().contains("304"));
    for change in [
        write(&*store, "500", "x", PathWrite::Whole).map(drop),
        write(&*store, "post/503", "x", PathWrite::Whole).map(drop),
    ] {
        assert!(matches!(change, Err(StoreError::Unknown { .. })), "{change:?}");
    }
    assert!(matches!(write(&*store, "412", "x", PathWrite::Exclusive), Err(StoreError::Exists { .. })));
}

#[test]
fn garbage_half_answers_and_lies_are_failures_and_never_content() {
    let (_folder, server, store) = serving(|asked| {
        Answer::raw(match asked.target.as_str() {
            "/f/garbage" => b"\x00\x01 what is this".to_vec(),
            "/f/half" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this".to_vec(),
            "/f/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ".to_vec(),
            "/f/headers" => b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
            _ => Vec::new(),
        })
    });
    for name in ["garbage", "half", "chunks", "headers", "nothing"] {
        let error = read(&*store, name).unwrap_err();
        assert!(error.is_backend_failure() && !error.is_unknown(), "{name}: {error:?}");
        assert_eq!(server.asked().len(), 3, "{name}: it is repeated, and not for ever");
        // Whether it was written, nobody knows, and whether it will be.
        for (path, method) in [(name.to_owned(), "PUT"), (format!("post/{name}"), "POST")] {
            let error = write(&*store, &path, "x", PathWrite::Whole).unwrap_err();
            assert!(error.is_unknown(), "{path}: {error:?}");
            assert_eq!(changes(&server), [method], "{path}");
        }
    }
}

#[test]
fn a_length_that_is_a_lie_holds_nobody() {
    let (_folder, _server, store) = serving(|asked| match asked.target.as_str() {
        "/f/large" => Answer::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\nx".to_vec()),
        "/f/longer" => Answer::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxxxxxxxxx".to_vec()),
        _ => Answer::of(200, vec![b'x'; 1_001]),
    });
    for name in ["large", "endless"] {
        let error = read(&*store, name).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }) && !error.is_backend_failure(), "{name}: {error:?}");
    }
    assert_eq!(read(&*store, "longer").unwrap(), "xx");
    let error = write(&*store, "f", vec![0; 1_001], PathWrite::Whole).unwrap_err();
    assert!(!error.is_unknown() && error.to_string().contains("1000"), "{error}");
}

#[test]
fn a_server_that_never_answers_is_waited_for_until_the_deadline() {
    let (_folder, _server, store) = serving_with(HASTY, |_| Answer::silent());
    let begun = env().now();
    let error = read(&*store, "f").unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { changing: false, .. }), "{error:?}");
    let error = write(&*store, "post/f", "x", PathWrite::Whole).unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    assert!(env().now() - begun < Duration::from_secs(10));
}

/// The changes among what was asked until now.
fn changes(server: &Server) -> Vec<String> {
    let asked = server.asked().into_iter().map(|asked| asked.method);
    asked.filter(|method| ["PUT", "POST", "DELETE"].contains(&&**method)).collect()
}

/// What stands before a server says so, also while the server is still at work.
#[test]
fn a_change_is_made_again_only_when_it_certainly_was_not_made() {
    for (status, again) in [
        (408, None),
        (500, None),
        (502, None),
        (503, None),
        (504, None),
        (429, None),
        (429, Some("0")),
        (503, Some("0")),
    ] {
        let is_first = Mutex::new(true);
        let (_folder, server, store) = serving(move |asked| match asked.method.as_str() {
            "PUT" | "DELETE" if std::mem::take(&mut *is_first.lock().expect("nobody panics")) => again
                .into_iter()
                .fold(Answer::of(status, ""), |answer, again| answer.header("Retry-After", again)),
            _ => Answer::of(200, "there"),
        });
        let is_asked_for = status == 429 || again.is_some();
        let written = write(&*store, "f", "x", PathWrite::Whole);
        assert_eq!(written.is_ok(), is_asked_for, "{status} {again:?}: {written:?}");
        assert!(!written.is_err_and(|error| !error.is_unknown()), "{status}");
        assert_eq!(changes(&server).len(), if is_asked_for { 2 } else { 1 }, "{status} {again:?}");
    }
}

#[test]
fn a_change_that_is_not_answered_is_not_made_again_behind_itself() {
    let (_folder, server, store) = serving_with(HASTY, |asked| match asked.method.as_str() {
        "PUT" | "DELETE" => Answer::silent(),
        _ => Answer::of(200, "there"),
    });
    let check = |error: StoreError| {
        assert!(error.is_unknown(), "{error:?}");
        let changes = changes(&server);
        assert_eq!(changes.len(), 1, "the first one may still be under way: {error} after {changes:?}");
    };
    check(write(&*store, "f", "x", PathWrite::Whole).unwrap_err());
    check(delete(&*store, "f").unwrap_err());
}

#[test]
fn what_comes_slowly_has_all_of_the_time() {
    // Longer than one answer is waited for until it begins.
    let (_folder, server, store) =
        serving_with(HASTY, |_| Answer::of(200, "slowly").slow(Duration::from_millis(400)));
    assert_eq!(read(&*store, "f").unwrap(), "slowly");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn who_gives_up_takes_the_request_along() {
    let (tell, told) = oneshot::channel();
    let (tell, (gone, left)) = (Mutex::new(Some(tell)), mpsc::channel());
    let (_folder, _server, store) = serving_with(PATIENT, move |_| {
        let tell = tell.lock().expect("nobody panics").take();
        let _ = tell.map(|tell| tell.send(()));
        Answer::silent_until(gone.clone())
    });
    let paths = crate::subjects::paths(&*store);
    let looks = paths.stat("f");
    // It is dropped while the server has it.
    assert!(matches!(block_on(select(looks, told)), Either::Right((Ok(()), _))));
    assert_eq!(left.recv_timeout(LEFT_WITHIN), Ok(()), "the server still has it");
}

#[test]
fn credentials_for_this_machine_go_to_no_proxy() {
    const CHILD: &str = "NEXUS_TEST_BEHIND_A_PROXY";
    if std::env::var_os(CHILD).is_some() {
        let (_folder, server, store) = serving(|_| Answer::of(200, "direct"));
        assert_eq!(read(&*store, "f").unwrap(), "direct");
        assert_eq!(server.asked().len(), 1);
        return;
    }
    let proxy = Server::start(|_| Answer::of(200, "by the proxy"));
    let name = "hostile::credentials_for_this_machine_go_to_no_proxy";
    let mut child = Command::new(std::env::current_exe().expect("it runs"));
    child.args(["--exact", name]).env(CHILD, "1").env_remove("NO_PROXY").env_remove("no_proxy");
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(variable, proxy.base());
    }
    let ended = child.output().expect("it can be started");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    assert_eq!(proxy.asked().len(), 0);
}

#[test]
fn what_changed_within_the_second_of_its_date_is_never_old() {
    let now = "Wed, 21 Oct 2015 07:28:00 GMT";
    let check = |date: Option<&'static str>, is_asked_about: bool| {
        let reads = AtomicUsize::new(0);
        let (_folder, _server, store) = serving(move |asked| match asked.header("if-modified-since") {
            // To the second nothing has changed.
            Some(_) => Answer::of(304, ""),
            None => {
                let nth = reads.fetch_add(1, Ordering::Relaxed);
                let answer = Answer::of(200, nth.to_string()).header("Last-Modified", now);
                date.into_iter().fold(answer, |answer, date| answer.header("Date", date))
            }
        });
        assert_eq!(read(&*store, "f").unwrap(), "0");
        assert_eq!(read(&*store, "f").unwrap(), if is_asked_about { "0" } else { "1" }, "{date:?}");
    };
    check(None, false);
    check(Some(now), false);
    check(Some("Wed, 21 Oct 2015 07:27:59 GMT"), false);
    check(Some("Wed, 21 Oct 2015 07:28:01 GMT"), true);
}

#[test]
fn what_a_listing_does_not_tell_of_its_files_is_looked_at_there() {
    let folder = tempfile::tempdir().expect("a folder");
    for details in ["listing", "each"] {
        let text = format!(
            r#"
[[route]]
path = "told"
list = {{ url = "/list", fields = {{ name = "" }}, details = "{details}" }}

[[route]]
path = "told/{{name}}"
stat = "listing"
read = {{ url = "/f/{{name}}" }}
"#
        );
        let server = Server::start(|asked| match asked.target.as_str() {
            "/list" => Answer::of(200, r#"["a", "b", "c"]"#),
            _ => Answer::of(200, asked.target.clone()),
        });
        let store = open(&described(&server, folder.path(), &text));
        let page = list(&*store, "told").unwrap();
        let lists = server.asked().iter().filter(|asked| asked.target == "/list").count();
        assert_eq!((page.entries.len(), lists), (3, 1), "{details}");
        assert_eq!(stat(&*store, "told/a").unwrap().size, 4, "{details}");
        assert_eq!(read(&*store, "told/a").unwrap(), "/f/a", "{details}");
        assert!(matches!(read(&*store, "told/none"), Err(StoreError::NotFound { .. })), "{details}");
    }
}

#[test]
fn nobody_there_is_told_and_nothing_was_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| Answer::of(200, ""));
    let spec = described(&server, folder.path(), &format!("{PATIENT}{ROUTES}"));
    drop(server);
    let store = open(&spec);
    let error = write(&*store, "post/f", "x", PathWrite::Whole).unwrap_err();
    assert!(matches!(error, StoreError::Backend { .. }) && !error.is_unknown(), "{error:?}");
    assert!(block_on(store.probe()).is_err());
}

#[test]
fn what_passes_is_passed_over() {
    let asked = AtomicUsize::new(0);
    let (_folder, _server, store) = serving(move |request| match asked.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Answer::of(503, ""),
        1 => Answer::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nha".to_vec()),
        _ if request.method == "DELETE" => Answer::of(404, ""),
        _ => Answer::of(200, "whole"),
    });
    assert_eq!(read(&*store, "f").unwrap(), "whole");
    // The one before may have done it: then there is nothing any more.
    let (_folder, _server, store) = {
        let asked = AtomicUsize::new(0);
        serving(move |request| match (request.method.as_str(), asked.fetch_add(1, Ordering::Relaxed)) {
            ("DELETE", 1) => Answer::of(503, "").header("Retry-After", "0"),
            ("DELETE", _) => Answer::of(404, ""),
            _ => Answer::of(200, "there"),
        })
    };
    delete(&*store, "f").unwrap();
}

#[test]
fn what_may_have_been_done_is_told_so_whatever_comes_then() {
    let failing_then = |status: u16| {
        let asked = AtomicUsize::new(0);
        move |request: &Asked| match (request.method.as_str(), asked.load(Ordering::Relaxed)) {
            ("PUT" | "DELETE", 0) => {
                asked.store(1, Ordering::Relaxed);
                Answer::of(503, "").header("Retry-After", "0")
            }
            ("PUT" | "DELETE", _) => Answer::of(status, ""),
            _ => Answer::of(200, "there"),
        }
    };
    for status in [400, 403, 404, 409, 412] {
        let (_folder, server, store) = serving(failing_then(status));
        let error = write(&*store, "f", "x", PathWrite::Whole).unwrap_err();
        assert!(error.is_unknown(), "{status}: {error:?}");
        assert_eq!(server.asked().iter().filter(|asked| asked.method == "PUT").count(), 2);
    }
    let (_folder, _server, store) = serving(failing_then(403));
    let error = delete(&*store, "f").unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    // Nothing comes, since it must not be asked again.
    let rate = format!("rate = {{ requests = 1, per_ms = 60000 }}\n{PATIENT}");
    let (_folder, server, store) = serving_with(&rate, |_| Answer::of(503, "").header("Retry-After", "0"));
    let error = write(&*store, "f", "x", PathWrite::Whole).unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn who_finds_no_place_in_time_says_nothing_against_the_server() {
    let limits = "limits = { timeout_ms = 3000, retries = 0, concurrency = 1 }\n";
    let (tell, told) = oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let (_folder, server, store) = serving_with(limits, move |_| {
        let tell = tell.lock().expect("nobody panics").take();
        let _ = tell.map(|tell| tell.send(()));
        Answer::silent()
    });
    let paths = crate::subjects::paths(&*store);
    let data = ["x".into()];
    let attributes = Attributes::none();
    let holds = paths.write("post/f", &data, PathWrite::Whole, &attributes);
    let waits = async {
        told.await.expect("it is asked");
        paths.read("f", ByteRange::ALL).await
    };
    let error = match block_on(select(holds, pin!(waits))) {
        Either::Right((waited, _)) => waited.unwrap_err(),
        Either::Left((held, _)) => panic!("it is held longer: {held:?}"),
    };
    assert!(!error.is_backend_failure() && !error.is_unknown(), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn the_server_says_when_to_come_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let (_folder, _server, store) = serving_with(PATIENT, move |request| {
        match (request.target.as_str(), counted.fetch_add(1, Ordering::Relaxed)) {
            ("/f/soon", 0) => Answer::of(429, "").header("Retry-After", "0"),
            ("/f/late", _) => Answer::of(429, "").header("Retry-After", "3600"),
            _ => Answer::of(200, "now"),
        }
    });
    assert_eq!(read(&*store, "soon").unwrap(), "now");
    let before = asked.load(Ordering::Relaxed);
    let error = read(&*store, "late").unwrap_err();
    assert!(error.to_string().contains("too often") && !error.is_backend_failure(), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), before + 1, "it does not come before");
    let error = read(&*store, "other").unwrap_err();
    assert!(error.to_string().contains("too often"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), before + 1, "nor for another path");
}

/// Some servers do not tell it by the status.
#[test]
fn a_server_that_is_asked_too_often_may_say_that_it_is_not_allowed() {
    let now = Duration::from_nanos(env().wall()).as_secs();
    let (_folder, server, store) = serving_with(PATIENT, move |request| {
        let (number, refused) = (request.target.as_str(), || Answer::of(403, ""));
        match number {
            "/f/soon" => refused()
                .header("X-RateLimit-Remaining", "0")
                .header("X-RateLimit-Reset", (now - 5).to_string()),
            "/f/late" => refused()
                .header("X-RateLimit-Remaining", "0")
                .header("X-RateLimit-Reset", (now + 3_600).to_string()),
            "/f/never" => refused().header("X-RateLimit-Remaining", "17"),
            _ => refused().header("Retry-After", "3600"),
        }
    });
    let refused = |path: &str| read(&*store, path).unwrap_err();
    assert_eq!(refused("never").kind(), ErrorKind::PermissionDenied);
    for path in ["soon", "late"] {
        let (before, error) = (server.asked().len(), refused(path));
        assert!(error.to_string().contains("too often") && !error.is_backend_failure(), "{path}: {error}");
        assert_eq!(
            server.asked().len() > before + 1,
            path == "soon",
            "{path}: it is asked again when it may"
        );
    }
    let (_folder, _server, store) =
        serving_with(PATIENT, |_| Answer::of(403, "").header("Retry-After", "3600"));
    assert!(read(&*store, "f").unwrap_err().to_string().contains("too often"));
}

#[test]
fn the_rate_is_kept() {
    let (_folder, server, store) =
        serving_with(&format!("rate = {{ requests = 1, per_ms = 60000, burst = 3 }}\n{PATIENT}"), |_| {
            Answer::of(200, "x")
        });
    for _ in 0..3 {
        read(&*store, "f").unwrap();
    }
    let error = read(&*store, "f").unwrap_err();
    assert!(!error.is_backend_failure() && error.to_string().contains("too often"), "{error}");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn what_is_still_so_is_not_sent_again_and_what_is_not_is() {
    let (server, held) = api::start();
    let store = open(&files(&server));
    api::locked(&held).put("f", &vec![b'a'; 100_000]);
    let sent = |server: &Server| {
        server
            .asked()
            .iter()
            .filter_map(|asked| asked.header("if-none-match").map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(read(&*store, "f").unwrap().len(), 100_000);
    assert_eq!(sent(&server), [""; 0]);
    assert_eq!(read(&*store, "f").unwrap().len(), 100_000);
    assert_eq!(sent(&server), ["\"v1\""], "it is asked each time");
    api::locked(&held).put("f", b"new");
    assert_eq!(read(&*store, "f").unwrap(), "new");
    write(&*store, "f", "ours", PathWrite::Whole).unwrap();
    assert_eq!(read(&*store, "f").unwrap(), "ours");
}

#[test]
fn a_listing_that_makes_no_sense_is_no_listing() {
    let folder = tempfile::tempdir().expect("a folder");
    let body = Arc::new(Mutex::new(String::new()));
    let said = body.clone();
    let server = Server::start(move |_| Answer::of(200, said.lock().expect("nobody panics").clone()));
    let store = open(&described(
        &server,
        folder.path(),
        &format!(
            "{PATIENT}{ROUTES}\n[[route]]\npath = \"list/{{name}}\"\nread = {{ url = \"/x/{{name}}\" }}"
        ),
    ));
    let say = |text: &str| text.clone_into(&mut body.lock().expect("nobody panics"));
    for garbage in ["", "no json", "{", "[1, {}]", "[null]", "\"text\"", "3", &"[".repeat(900)] {
        say(garbage);
        let listed = list(&*store, "list");
        match garbage {
            // Nothing is an empty listing.
            "" => assert!(listed.unwrap().entries.is_empty()),
            _ => assert!(matches!(listed, Err(StoreError::Backend { .. })), "{garbage}: {listed:?}"),
        }
    }
    say(r#"["ok", "", ".", "..", "a/b", "../../etc", "nul\u0000", "dir/", "ok"]"#);
    let page = list(&*store, "list").unwrap();
    let found: Vec<_> = page.entries.iter().map(|(name, info)| (name.as_str(), info.entry_type)).collect();
    assert_eq!(found, [("dir", EntryType::Dir), ("ok", EntryType::Reg)]);
    assert_eq!(page.unnameable, 6);
}
