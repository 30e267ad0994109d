//! Listings in pages: each way to go on, and each way to go on for ever.

use std::sync::Arc;

use nexus_actors::block_on;
use nexus_kernel::hal::{ObjectStore, StoreError};
use serde_json::json;
use tempfile::TempDir;

use crate::server::{Answer, Asked, Server};
use crate::subjects::{described, example, list, names, open, paths, read, stat};

fn listing(
    pages: &str,
    answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (TempDir, Server, Arc<dyn ObjectStore>) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(answers);
    let text = format!(
        r#"
limits = {{ timeout_ms = 5000, pages = 10, items = 50 }}

[[route]]
path = ""

[route.list]
url = "/items"
query = {{ of = "all" }}
fields = {{ items = "/items", name = "/id", size = "/size", tag = "/tag" }}
pages = {pages}

[[route]]
path = "{{id}}"
read = {{ url = "/items/{{id}}" }}
"#
    );
    let store = open(&described(&server, folder.path(), &text));
    (folder, server, store)
}

/// Items `from` to `to`, with `more` beside them.
fn items(from: u64, to: u64, more: &serde_json::Value) -> Answer {
    let items: Vec<_> = (from..to).map(|id| json!({"id": id, "size": 1, "tag": "x"})).collect();
    let mut body = json!({"items": items});
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    Answer::of(200, body.to_string())
}

fn number(asked: &Asked, key: &str) -> Option<u64> {
    asked.query(key).and_then(|text| text.parse().ok())
}

fn expected(count: u64) -> Vec<String> {
    let mut names: Vec<_> = (0..count).map(|id| id.to_string()).collect();
    names.sort();
    names
}

#[test]
fn pages_have_numbers() {
    let pages = r#"{ by = "page", parameter = "page", first = 0, size_parameter = "n", size = 10 }"#;
    let (_folder, server, store) = listing(pages, |asked| {
        assert_eq!((number(asked, "n"), asked.query("of").as_deref()), (Some(10), Some("all")));
        let page = number(asked, "page").unwrap_or(99);
        items(page * 10, (page * 10 + 10).min(25), &json!({}))
    });
    assert_eq!(names(&*store, ""), expected(25));
    assert_eq!(server.asked().len(), 3, "the last is short");
}

#[test]
fn pages_name_the_next() {
    let cursors = |asked: &Asked| {
        let from = number(asked, "after").unwrap_or(0);
        let next = if from < 20 { json!({"next": format!("{}", from + 10)}) } else { json!({"next": ""}) };
        items(from, from + 10, &next)
    };
    let (_folder, server, store) =
        listing(r#"{ by = "cursor", parameter = "after", next = "/next" }"#, cursors);
    assert_eq!(names(&*store, ""), expected(30));
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn pages_have_the_url_of_the_next() {
    let links = |asked: &Asked| match number(asked, "p") {
        None => items(0, 10, &json!({"next": "/items?p=1"})).header("Link", "</items?p=1>; rel=\"next\""),
        Some(_) => items(10, 12, &json!({"next": null})).header("Link", "</items>; rel=\"prev\""),
    };
    for pages in [r#"{ by = "link" }"#, r#"{ by = "url", next = "/next" }"#] {
        let (_folder, server, store) = listing(pages, links);
        assert_eq!(names(&*store, ""), expected(12), "{pages}");
        assert_eq!(server.asked().len(), 2);
    }
}

#[test]
fn a_listing_without_end_is_none() {
    let failed = |pages: &str, saying: &str, answers: fn(&Asked) -> Answer| {
        let (_folder, server, store) = listing(pages, answers);
        let error = list(&*store, "").unwrap_err();
        assert!(error.to_string().contains(saying), "{error}");
        // One that is too long takes the mount away from nobody.
        assert_eq!(error.is_backend_failure(), !saying.starts_with("more than"), "{error:?}");
        assert!(server.asked().len() <= 11, "{pages}");
    };
    failed(r#"{ by = "page", parameter = "page" }"#, "more than 10 pages", |_| items(0, 1, &json!({})));
    failed(r#"{ by = "page", parameter = "page" }"#, "more than 50 names", |_| items(0, 20, &json!({})));
    failed(r#"{ by = "cursor", parameter = "c", next = "/next" }"#, "circle", |_| {
        items(0, 1, &json!({"next": "same"}))
    });
    failed(r#"{ by = "cursor", parameter = "c", next = "/next" }"#, "more than 10 pages", |asked| {
        let at = number(asked, "c").unwrap_or(0);
        items(0, 1, &json!({"next": at + 1}))
    });
    failed(r#"{ by = "link" }"#, "circle", |_| items(0, 1, &json!({})).header("Link", "<?of=all>; rel=next"));
}

#[test]
fn who_asks_is_shown_to_no_other_server() {
    for next in ["http://127.0.0.1:1/items", "https://evil.example/", "//evil.example/items"] {
        let (_folder, _server, store) = listing(r#"{ by = "link" }"#, move |_| {
            items(0, 1, &json!({})).header("Link", format!("<{next}>; rel=\"next\""))
        });
        let error = list(&*store, "").unwrap_err();
        assert!(error.to_string().contains("another server"), "{error}");
    }
}

#[test]
fn what_is_taken_page_by_page_is_asked_for_once() {
    let (_folder, server, store) =
        listing(r#"{ by = "page", parameter = "page" }"#, |asked| match number(asked, "page") {
            Some(1) => items(0, 30, &json!({})),
            _ => items(0, 0, &json!({})),
        });
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = block_on(paths(&*store).list("", after.as_deref(), 7)).expect("it is listed");
        seen.extend(page.entries.into_iter().map(|(name, _)| name));
        after = seen.last().cloned();
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, expected(30));
    assert_eq!(server.asked().len(), 2);
}

/// What GitHub answers, in the parts that count.
fn github(asked: &Asked) -> Answer {
    let raw = asked.header("accept") == Some("application/vnd.github.raw+json");
    assert_eq!(asked.header("authorization"), Some("Bearer x"));
    match (asked.path().as_str(), asked.query("page").as_deref()) {
        ("/repos/me/mine/contents/", _) => Answer::of(
            200,
            json!([
                {"name": "README.md", "type": "file", "size": 5, "sha": "a1"},
                {"name": "src", "type": "dir", "size": 0, "sha": "a2"},
                {"name": "sub", "type": "submodule", "size": 0, "sha": "a3"},
            ])
            .to_string(),
        ),
        ("/repos/me/mine/contents/src", _) => {
            Answer::of(200, json!([{"name": "lib.rs", "type": "file", "size": 4, "sha": "b1"}]).to_string())
        }
        ("/repos/me/mine/contents/README.md", _) if raw => Answer::of(200, "hello"),
        ("/repos/me/mine/contents/src/lib.rs", _) if raw => Answer::of(200, "code"),
        ("/repos/me/mine/issues", None) => {
            Answer::of(200, json!([{"number": 2, "updated_at": "2026-01-02T03:04:05Z"}]).to_string())
                .header("Link", "</repos/me/mine/issues?page=2>; rel=\"next\"")
        }
        ("/repos/me/mine/issues", _) => Answer::of(200, json!([{"number": 1}]).to_string()),
        ("/repos/me/mine/issues/2", _) => Answer::of(200, "{\"number\": 2}"),
        _ => Answer::of(404, "{}"),
    }
}

#[test]
fn the_example_of_github_is_paths() {
    let server = Server::start(github);
    let spec = nexus_messages::syscall::MountSpec::new("rest")
        .option("description", example("github.toml"))
        .option("parameters", format!("owner=me,repo=mine,api={}", server.base()))
        .option("token", "x");
    let store = open(&spec);
    assert_eq!(names(&*store, ""), ["files", "issues"]);
    assert_eq!(names(&*store, "files"), ["README.md", "src"]);
    assert_eq!(names(&*store, "issues"), ["1.json", "2.json"]);
    assert_eq!(read(&*store, "files/README.md").unwrap(), "hello");
    assert_eq!(read(&*store, "files/src/lib.rs").unwrap(), "code");
    assert_eq!(stat(&*store, "files/src/lib.rs").unwrap().size, 4);
    assert_eq!(read(&*store, "issues/2.json").unwrap(), "{\"number\": 2}");
    assert!(matches!(stat(&*store, "issues/3.json"), Err(StoreError::NotFound { .. })));
    assert!(store.read_only());
}
