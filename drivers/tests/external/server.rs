//! A server of HTTP on loopback, whose answers a test makes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The path and the query, as they came.
    pub(crate) target: String,
    /// With their names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The path, with what is encoded in it as it was.
    pub(crate) fn path(&self) -> String {
        decoded(self.target.split('?').next().unwrap_or_default(), false)
    }

    pub(crate) fn query(&self, key: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(it, _)| *it == key).map(|(_, value)| decoded(value, true))
    }
}

fn decoded(text: &str, plus: bool) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).unwrap_or(0);
        match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// These bytes instead of all of it, and then the connection ends.
    pub(crate) raw: Option<Vec<u8>>,
    /// Nothing, until who asked goes away.
    pub(crate) silent: bool,
    /// Who is told then.
    pub(crate) gone: Option<mpsc::Sender<()>>,
    /// How long the second half of it takes, for who stays.
    pub(crate) half: Option<Duration>,
}

impl Answer {
    pub(crate) fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::default() }
    }

    pub(crate) fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// Silent, and tells when who asked is gone.
    pub(crate) fn silent_until(gone: mpsc::Sender<()>) -> Self {
        Self { gone: Some(gone), ..Self::silent() }
    }

    pub(crate) fn slow(self, half: Duration) -> Self {
        Self { half: Some(half), ..self }
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// The server. It ends with its value.
pub(crate) struct Server {
    port: u16,
    ended: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn start(answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let (ended, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let server = Self { port, ended: ended.clone(), asked: asked.clone() };
        let handler: Handler = Arc::new(answers);
        aside(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let (handler, asked) = (handler.clone(), asked.clone());
                aside(move || serve(&connection, &handler, &asked));
            }
        });
        server
    }

    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What was asked until now; it is forgotten.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // It looks when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn aside(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("server".into()).spawn(work).expect("a thread can be started");
}

fn serve(connection: &TcpStream, handler: &Handler, log: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(connection);
    while let Some(asked) = read(&mut reader) {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let answer = handler(&asked);
        if answer.silent {
            // It ends when the other side does.
            let _ = reader.read_to_end(&mut Vec::new());
            let _ = answer.gone.map(|gone| gone.send(()));
            return;
        }
        let (is_last, slow) = (answer.raw.is_some(), answer.half);
        let mut writer = connection;
        let bytes = written(&asked, answer);
        let (first, second) = bytes.split_at(if slow.is_some() { bytes.len() - 1 } else { 0 });
        if writer.write_all(first).is_err() || slow.is_some_and(|slow| is_left(connection, slow)) {
            return;
        }
        if writer.write_all(second).is_err() || is_last {
            return;
        }
    }
}

/// Whether who asked goes away before this time is over.
fn is_left(connection: &TcpStream, time: Duration) -> bool {
    let _ = connection.set_read_timeout(Some(time));
    let is_left = connection.peek(&mut [0]).is_ok();
    let _ = connection.set_read_timeout(None);
    is_left
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, target, headers, body })
}

fn written(asked: &Asked, answer: Answer) -> Vec<u8> {
    if let Some(raw) = answer.raw {
        return raw;
    }
    let mut text = format!("HTTP/1.1 {} Said\r\n", answer.status);
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    let mut bytes = match answer.status {
        204 | 304 => text + "\r\n",
        _ => text + &format!("Content-Length: {}\r\n\r\n", answer.body.len()),
    }
    .into_bytes();
    if asked.method != "HEAD" && !matches!(answer.status, 204 | 304) {
        bytes.extend(answer.body);
    }
    bytes
}
