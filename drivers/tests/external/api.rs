//! A server of files, whose API `examples/connectors/files.toml` describes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::server::{Answer, Asked, Server};

/// What who asks must show.
pub(crate) const TOKEN: &str = "t0ken-0f-a-user";

/// How many names a page of a listing has.
const PAGE: usize = 3;

/// When all of them changed, in both ways to write it.
const CHANGED: (&str, &str) = ("Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37.5Z");

/// Files by their paths, each with its ETag.
#[derive(Debug, Default)]
pub(crate) struct Files {
    files: BTreeMap<String, (Vec<u8>, String)>,
    written: u64,
}

/// Starts one, and gives what it holds.
pub(crate) fn start() -> (Server, Arc<Mutex<Files>>) {
    let files = Arc::new(Mutex::new(Files::default()));
    let held = files.clone();
    (Server::start(move |asked| locked(&held).answer(asked)), files)
}

pub(crate) fn locked(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    pub(crate) fn put(&mut self, path: &str, content: &[u8]) {
        self.written += 1;
        self.files.insert(path.into(), (content.to_vec(), format!("\"v{}\"", self.written)));
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return Answer::of(401, "who asks?");
        }
        let path = asked.path();
        match path.strip_prefix("/v1/files/") {
            Some(file) => self.file(asked, file),
            None if path == "/v1/list" => self.list(asked),
            None => Answer::of(404, ""),
        }
    }

    fn file(&mut self, asked: &Asked, path: &str) -> Answer {
        match asked.method.as_str() {
            "PUT" if asked.header("if-none-match").is_some() && self.files.contains_key(path) => {
                Answer::of(412, "")
            }
            "PUT" => {
                self.put(path, &asked.body);
                Answer::of(201, "").header("ETag", self.files[path].1.as_str())
            }
            "DELETE" => Answer::of(if self.files.remove(path).is_some() { 204 } else { 404 }, ""),
            _ => match self.files.get(path) {
                None => Answer::of(404, "nothing"),
                Some((_, etag)) if asked.header("if-none-match") == Some(etag) => Answer::of(304, ""),
                Some((content, etag)) => Answer::of(200, content.as_slice())
                    .header("ETag", etag.as_str())
                    .header("Last-Modified", CHANGED.0),
            },
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        let folder = asked.query("folder").unwrap_or_default();
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = self.files.iter().filter_map(|(path, file)| Some((path.strip_prefix(&prefix)?, file)));
        let (mut entries, mut folders) = (Vec::new(), BTreeSet::new());
        for (rest, (content, etag)) in below {
            match rest.split_once('/') {
                Some((name, _)) if folders.insert(name) => {
                    entries.push(json!({"name": name, "kind": "folder"}));
                }
                Some(_) => {}
                None => entries.push(json!({
                    "name": rest, "kind": "file", "bytes": content.len(), "changed": CHANGED.1, "etag": etag,
                })),
            }
        }
        if entries.is_empty() && !folder.is_empty() {
            return Answer::of(404, "");
        }
        // No server need have an order that is of use.
        entries.reverse();
        let from: usize = asked.query("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let next = (from + PAGE < entries.len()).then(|| (from + PAGE).to_string());
        let page: Vec<_> = entries.into_iter().skip(from).take(PAGE).collect();
        Answer::of(200, json!({"entries": page, "next": next}).to_string())
    }
}
