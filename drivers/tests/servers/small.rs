//! A small server of S3, in this process: all in memory, each answer as late as is asked for, and conditions honoured wherever Amazon's own honours them, also when parts are
//! put together, which no other server does that tests can start.
//!
//! It does what tests and benchmarks ask for and nothing more. Nothing is verified or hashed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The most keys of a page.
const PAGE: usize = 1_000;

/// The path at which it tells how many requests there were.
pub(crate) const COUNT: &str = "/requests";

/// When all was made, as a listing tells it; who looks at a key hears of no part of a second.
const MODIFIED: &str = "2026-11-29T06:00:00.500Z";

#[derive(Clone)]
struct Object {
    e_tag: String,
    parts: Vec<Arc<Vec<u8>>>,
}

impl Object {
    fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }
}

/// What becomes of a copy, beside that it is said to be made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum AtCopies {
    /// It is made.
    #[default]
    Made,
    /// It is, and then its source is written to by somebody else, after so many copies.
    Rewritten(usize),
    /// It is empty until keys were looked at so many times: it is pending.
    Pending(usize),
}

#[derive(Default)]
struct State {
    at_copies: AtCopies,
    /// Whether it knows nothing of lists of keys to be deleted.
    knows_no_lists: bool,
    /// The copy that is to be made, and where.
    pending: Option<(String, Object)>,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, BTreeMap<usize, Arc<Vec<u8>>>>,
    next: u64,
}

struct Server {
    state: Mutex<State>,
    requests: AtomicU64,
    ended: AtomicBool,
    latency: Duration,
}

/// A server that runs. It takes no connection more when it is dropped.
pub(crate) struct Small {
    server: Arc<Server>,
    port: u16,
}

impl Small {
    /// Starts one whose answers come so much later than its work is done.
    pub(crate) fn start(latency: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let (state, requests) = (Mutex::default(), AtomicU64::default());
        let server = Arc::new(Server { state, requests, ended: AtomicBool::default(), latency });
        let serving = server.clone();
        aside(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if serving.ended.load(Ordering::Acquire) {
                    break;
                }
                let server = serving.clone();
                aside(move || serve(&server, &connection));
            }
        });
        Self { server, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What becomes of copies from now on.
    pub(crate) fn at_copies(&self, at_copies: AtCopies) {
        self.server.state.lock().unwrap_or_else(PoisonError::into_inner).at_copies = at_copies;
    }

    /// It takes no lists of keys to be deleted from now on.
    pub(crate) fn take_no_lists(&self) {
        self.server.state.lock().unwrap_or_else(PoisonError::into_inner).knows_no_lists = true;
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> u64 {
        self.server.requests.load(Ordering::Relaxed)
    }

    /// How many uploads it holds parts of.
    pub(crate) fn uploads(&self) -> usize {
        self.server.state.lock().unwrap_or_else(PoisonError::into_inner).uploads.len()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.server.ended.store(true, Ordering::Release);
        // It looks when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn aside(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("small-server".into()).spawn(work).expect("a thread can be started");
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// An answer: its status, its headers, and the pieces of its body.
struct Answer(&'static str, Vec<(&'static str, String)>, Vec<(Arc<Vec<u8>>, usize, usize)>);

impl Answer {
    fn empty(status: &'static str) -> Self {
        Self(status, Vec::new(), Vec::new())
    }

    fn text(text: String) -> Self {
        let text = Arc::new(text.into_bytes());
        let length = text.len();
        Self("200 OK", Vec::new(), vec![(text, 0, length)])
    }
}

fn serve(server: &Server, connection: &TcpStream) {
    // Nothing ever comes: it is a clock.
    let (_held, clock) = mpsc::channel::<()>();
    connection.set_nodelay(true).expect("it is TCP");
    let mut reader = BufReader::with_capacity(256 << 10, connection);
    while let Some(request) = heard(&mut reader) {
        let is_counted = request.path != COUNT;
        server.requests.fetch_add(u64::from(is_counted), Ordering::Relaxed);
        let is_head = request.method == "HEAD";
        let is_last = request.headers.get("connection").is_some_and(|wanted| wanted == "close");
        let answer = answered(server, request);
        if is_counted && !server.latency.is_zero() {
            let _ = clock.recv_timeout(server.latency);
        }
        if told(connection, &answer, is_head).is_err() || is_last {
            break;
        }
    }
}

fn heard(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    });
    Some(Request { method, path: decoded(path), query: query.collect(), headers, body })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = (*byte == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn told(mut connection: &TcpStream, answer: &Answer, is_head: bool) -> std::io::Result<()> {
    let Answer(status, headers, body) = answer;
    let length: usize = body.iter().map(|(_, from, to)| to - from).sum();
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes())?;
    for (bytes, from, to) in body.iter().filter(|_| !is_head) {
        connection.write_all(&bytes[*from..*to])?;
    }
    Ok(())
}

fn answered(server: &Server, request: Request) -> Answer {
    let mut state = server.state.lock().unwrap_or_else(PoisonError::into_inner);
    let state = &mut *state;
    let key = request.path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key).to_owned();
    let upload = request.query.get("uploadId").cloned();
    let is_refused = |state: &State| {
        let there = state.objects.get(&key);
        let (none, of) = (request.headers.get("if-none-match"), request.headers.get("if-match"));
        none.is_some() && there.is_some() || of.is_some_and(|of| there.is_none_or(|there| there.e_tag != *of))
    };
    match (&*request.method, &*key, upload) {
        ("GET", "", _) if request.path == COUNT => {
            Answer::text(server.requests.load(Ordering::Relaxed).to_string())
        }
        // Makes as many keys as are asked for, in a folder.
        ("POST", "", _) if request.query.contains_key("fill") => {
            let count: usize = request.query["fill"].parse().expect("it is a number");
            let object = Object { e_tag: "\"filled\"".into(), parts: Vec::new() };
            let key = |number| format!("listed/f-{number:06}.txt");
            state.objects.extend((0..count).map(|number| (key(number), object.clone())));
            Answer::empty("200 OK")
        }
        ("GET", "", _) => listed(state, &request.query),
        ("POST", "", _) if request.query.contains_key("delete") => {
            if state.knows_no_lists {
                Answer::empty("501 Not Implemented")
            } else {
                deleted(state, &request)
            }
        }
        ("POST", _, None) if request.query.contains_key("uploads") => {
            state.next += 1;
            let id = format!("upload-{}", state.next);
            state.uploads.insert(id.clone(), BTreeMap::new());
            Answer::text(format!(
                "<InitiateMultipartUploadResult><Bucket>bkt</Bucket><Key>k</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        ("PUT", _, Some(id)) => {
            let number = request.query["partNumber"].parse().expect("it is a number");
            let Some(parts) = state.uploads.get_mut(&id) else { return Answer::empty("404 Not Found") };
            parts.insert(number, Arc::new(request.body));
            Answer("200 OK", vec![("ETag", format!("\"part-{number}\""))], Vec::new())
        }
        ("POST", _, Some(id)) => {
            if is_refused(state) {
                return Answer::empty("412 Precondition Failed");
            }
            let Some(parts) = state.uploads.remove(&id) else { return Answer::empty("404 Not Found") };
            state.next += 1;
            let e_tag = format!("\"{:032x}-{}\"", state.next, parts.len());
            let made = format!(
                "<CompleteMultipartUploadResult><Bucket>bkt</Bucket><Key>k</Key><ETag>{e_tag}</ETag></CompleteMultipartUploadResult>"
            );
            state.objects.insert(key, Object { e_tag, parts: parts.into_values().collect() });
            Answer::text(made)
        }
        ("DELETE", _, Some(id)) => {
            state.uploads.remove(&id);
            Answer::empty("204 No Content")
        }
        ("PUT", _, None) if request.headers.contains_key("x-amz-copy-source") => {
            let source = decoded(&request.headers["x-amz-copy-source"]);
            let source = source.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
            let Some(object) = state.objects.get(source).cloned() else {
                return Answer::empty("404 Not Found");
            };
            let e_tag = object.e_tag.clone();
            match &mut state.at_copies {
                AtCopies::Rewritten(left) if *left > 0 => {
                    *left -= 1;
                    state.next += 1;
                    let (e_tag, content) =
                        (format!("\"{:032x}\"", state.next), format!("rewritten, and {left} to come"));
                    let parts = vec![Arc::new(content.into_bytes())];
                    state.objects.insert(source.to_owned(), Object { e_tag, parts });
                    state.objects.insert(key, object);
                }
                AtCopies::Pending(_) => {
                    state.objects.insert(key.clone(), Object { e_tag: e_tag.clone(), parts: Vec::new() });
                    state.pending = Some((key, object));
                }
                _ => drop(state.objects.insert(key, object)),
            }
            Answer::text(format!(
                "<CopyObjectResult><LastModified>{MODIFIED}</LastModified><ETag>{e_tag}</ETag></CopyObjectResult>"
            ))
        }
        ("PUT", _, None) => {
            if is_refused(state) {
                return Answer::empty("412 Precondition Failed");
            }
            state.next += 1;
            let e_tag = format!("\"{:032x}\"", state.next);
            state.objects.insert(key, Object { e_tag: e_tag.clone(), parts: vec![Arc::new(request.body)] });
            Answer("200 OK", vec![("ETag", e_tag)], Vec::new())
        }
        ("DELETE", _, None) => {
            state.objects.remove(&key);
            Answer::empty("204 No Content")
        }
        _ => {
            if let AtCopies::Pending(left) = &mut state.at_copies {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    state.objects.extend(state.pending.take());
                }
            }
            seen(state, &request, &key)
        }
    }
}

/// Text within XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Deletes the keys of a list, but for those with `locked` in them.
fn deleted(state: &mut State, request: &Request) -> Answer {
    let text = String::from_utf8_lossy(&request.body);
    let mut said = String::from("<DeleteResult>");
    for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")).map(|(key, _)| key) {
        if key.contains("locked") {
            said.push_str(&format!(
                "<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>{key} is mine</Message></Error>"
            ));
        } else {
            state.objects.remove(&key.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"));
            said.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
        }
    }
    Answer::text(said + "</DeleteResult>")
}

fn seen(state: &State, request: &Request, key: &str) -> Answer {
    match state.objects.get(key) {
        Some(object) => read(object, request.headers.get("range").map(String::as_str)),
        None => Answer::empty("404 Not Found"),
    }
}

fn read(object: &Object, range: Option<&str>) -> Answer {
    let size = object.size();
    let asked = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (from, to) = match asked {
        Some((from, to)) => {
            let to = to.parse::<u64>().map_or(size, |last| size.min(last + 1));
            (from.parse::<u64>().expect("it is a number"), to)
        }
        None => (0, size),
    };
    if asked.is_some() && from >= size {
        return Answer::empty("416 Range Not Satisfiable");
    }
    let mut headers = vec![
        ("ETag", object.e_tag.clone()),
        ("Last-Modified", "Sun, 29 Nov 2026 06:00:00 GMT".to_owned()),
        ("Content-Type", "application/octet-stream".to_owned()),
        ("Accept-Ranges", "bytes".to_owned()),
    ];
    let (mut pieces, mut offset) = (Vec::new(), 0);
    for part in &object.parts {
        let end = offset + part.len() as u64;
        let index = |at: u64| usize::try_from(at.clamp(offset, end) - offset).expect("it is in memory");
        if index(from) < index(to) {
            pieces.push((part.clone(), index(from), index(to)));
        }
        offset = end;
    }
    if asked.is_none() {
        return Answer("200 OK", headers, pieces);
    }
    headers.push(("Content-Range", format!("bytes {from}-{}/{size}", to - 1)));
    Answer("206 Partial Content", headers, pieces)
}

fn listed(state: &State, query: &BTreeMap<String, String>) -> Answer {
    let given = |key: &str| query.get(key).cloned().unwrap_or_default();
    let (prefix, delimiter) = (given("prefix"), given("delimiter"));
    let after = given("continuation-token").max(given("start-after"));
    let limit = given("max-keys").parse().unwrap_or(PAGE).min(PAGE);
    let (mut entries, mut last, mut count, mut more) = (String::new(), String::new(), 0, false);
    let mut folder = String::new();
    for (key, object) in state.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix))
    {
        let is_in_folder = !folder.is_empty() && key.starts_with(&folder);
        if *key <= after || is_in_folder {
            continue;
        }
        if count == limit {
            more = true;
            break;
        }
        let rest = &key[prefix.len()..];
        match rest.find('/').filter(|_| !delimiter.is_empty()) {
            Some(end) => {
                folder = format!("{prefix}{}", &rest[..=end]);
                if folder <= after {
                    continue;
                }
                entries.push_str(&format!(
                    "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                    escaped(&folder)
                ));
                last.clone_from(&folder);
            }
            None => {
                let (e_tag, size) = (&object.e_tag, object.size());
                let name = escaped(key);
                entries.push_str(&format!("<Contents><Key>{name}</Key><LastModified>{MODIFIED}</LastModified><ETag>{e_tag}</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"));
                last.clone_from(key);
            }
        }
        count += 1;
    }
    let next = if more {
        format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(&last))
    } else {
        String::new()
    };
    Answer::text(format!(
        "<ListBucketResult><Name>bkt</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{limit}</MaxKeys><IsTruncated>{more}</IsTruncated>{next}{entries}</ListBucketResult>",
        escaped(&prefix)
    ))
}
