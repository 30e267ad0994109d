//! A wire between driver and server that fails as it is told, whatever protocol goes over it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It carries everything.
    None,
    /// It breaks when it is written to.
    Cut,
    /// The server hears, and its answer never comes.
    Stall,
    /// The server hears, and the wire breaks instead of carrying the answer.
    Lost,
    /// The same, and all is well from then on.
    LostOnce,
    /// The answer comes byte by byte.
    Slow,
    /// The answer is of no protocol.
    Garbage,
    /// A server that cannot serve answers instead, as is said in its protocol: 503 over HTTP.
    Unavailable,
    /// The answer breaks off in the middle.
    Half,
    /// A server that lets nothing be written answers what would write. Over HTTP alone.
    Denied,
}

impl Fault {
    /// All that may become of a wire.
    pub(crate) const ALL: [Self; 7] =
        [Self::Cut, Self::Stall, Self::Lost, Self::Slow, Self::Garbage, Self::Unavailable, Self::Half];
}

/// The protocol that goes over the wire, for what a server says in it that cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Redis,
    Postgres,
}

impl Speaks {
    fn unavailable(self) -> Vec<u8> {
        match self {
            Self::Http => {
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into()
            }
            Self::Redis => b"-LOADING Redis is loading the dataset in memory\r\n".into(),
            Self::Postgres => {
                let fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
                let length = u32::try_from(fields.len() + 4).expect("it is short").to_be_bytes();
                [b"E", &length[..], fields].concat()
            }
        }
    }
}

/// How long each byte of a slow answer takes.
const BYTE_EVERY: Duration = Duration::from_millis(100);

/// How often a stalled connection looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What goes wrong from now on.
#[derive(Debug, Clone, Copy)]
struct Turned {
    fault: Fault,
    /// What the driver must have sent on a connection before it goes wrong; nothing for at once.
    after: &'static [u8],
    /// Raised with each turn: what was sent before counts for nothing.
    turn: u64,
}

/// The wire. It ends with its value.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    turned: Arc<Mutex<Turned>>,
    ended: Arc<AtomicBool>,
    /// Held by each connection until the server has ended it.
    carried: Arc<()>,
}

impl Proxy {
    /// A wire to the server at `to` that speaks HTTP.
    pub(crate) fn start(to: u16) -> Self {
        Self::of(to, Speaks::Http)
    }

    /// A wire to the server at `to`.
    pub(crate) fn of(to: u16, speaks: Speaks) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let turned = Arc::new(Mutex::new(Turned { fault: Fault::None, after: b"", turn: 1 }));
        let ended = Arc::new(AtomicBool::new(false));
        let carried = Arc::new(());
        let proxy = Self { port, turned: turned.clone(), ended: ended.clone(), carried: carried.clone() };
        aside(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                // Without a server, who comes finds nobody.
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                carry(&connection, &server, &turned, &ended, carried.clone(), speaks);
            }
        });
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether no connection is there: the server has done with all that came from those who are gone.
    pub(crate) fn is_idle(&self) -> bool {
        // The wire itself has two.
        Arc::strong_count(&self.carried) <= 2
    }

    /// What happens from now on, also on connections that are there.
    pub(crate) fn set(&self, fault: Fault) {
        self.set_after(b"", fault);
    }

    /// What happens from now on to connections on which the driver sends these words: with them, and after them.
    pub(crate) fn set_after(&self, after: &'static [u8], fault: Fault) {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        *turned = Turned { fault, after, turn: turned.turn + 1 };
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // It looks when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn aside(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("proxy".into()).spawn(work).expect("a thread can be started");
}

fn carry(
    client: &TcpStream,
    server: &TcpStream,
    turned: &Arc<Mutex<Turned>>,
    ended: &Arc<AtomicBool>,
    carried: Arc<()>,
    speaks: Speaks,
) {
    for stream in [client, server] {
        // What is small must not wait for more.
        let _ = stream.set_nodelay(true);
    }
    let ends = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
    let (Some((mut asked, mut to)), Some((mut back, mut answered))) = (ends(), ends()) else { return };
    // The turn at which the words were sent.
    let (heard, turned) = (Arc::new(AtomicU64::new(0)), turned.clone());
    let now = {
        let (heard, turned) = (heard.clone(), turned.clone());
        move || {
            let Turned { fault, after, turn } = *turned.lock().unwrap_or_else(PoisonError::into_inner);
            if after.is_empty() || heard.load(Ordering::Acquire) == turn { fault } else { Fault::None }
        }
    };
    let (looked, ended, turns) = (now.clone(), ended.clone(), turned.clone());
    aside(move || {
        loop {
            let Some(piece) = piece(&mut asked) else {
                // The server may still be at work, and answers before it hears of this.
                let _ = to.shutdown(Shutdown::Write);
                return;
            };
            let Turned { after, turn, .. } = *turned.lock().unwrap_or_else(PoisonError::into_inner);
            if !after.is_empty() && piece.windows(after.len()).any(|part| part == after) {
                heard.store(turn, Ordering::Release);
            }
            match looked() {
                Fault::Cut => break,
                Fault::Unavailable => {
                    let _ = asked.write_all(&speaks.unavailable());
                    break;
                }
                Fault::Denied if piece.starts_with(b"PUT ") => {
                    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = asked.write_all(answer);
                    break;
                }
                _ if to.write_all(&piece).is_err() => break,
                _ => {}
            }
        }
        end(&asked, &to);
    });
    aside(move || {
        let _carried = carried;
        while let Some(piece) = piece(&mut answered) {
            let carried = match now() {
                Fault::Stall => Ok(()),
                Fault::Lost => break,
                Fault::LostOnce => {
                    let mut turned = turns.lock().unwrap_or_else(PoisonError::into_inner);
                    *turned = Turned { fault: Fault::None, after: b"", turn: turned.turn + 1 };
                    break;
                }
                Fault::Garbage => back.write_all(&vec![b'#'; piece.len()]),
                Fault::Half => {
                    let _ = back.write_all(&piece[..piece.len() / 2]);
                    break;
                }
                Fault::Slow => slowly(&mut back, &piece, &now),
                _ => back.write_all(&piece),
            };
            if carried.is_err() {
                break;
            }
        }
        // Nor does the end come of what has stalled, also when the server ends it.
        while now() == Fault::Stall && !ended.load(Ordering::Acquire) {
            pause(LOOK_EVERY);
        }
        end(&back, &answered);
    });
}

/// Byte by byte, for as long as the wire is slow.
fn slowly(to: &mut TcpStream, piece: &[u8], now: &impl Fn() -> Fault) -> std::io::Result<()> {
    for byte in piece {
        if now() == Fault::Slow {
            pause(BYTE_EVERY);
        }
        to.write_all(&[*byte])?;
    }
    Ok(())
}

fn pause(time: Duration) {
    // Nothing ever comes: it is a clock.
    let (_held, clock) = mpsc::channel::<()>();
    let _ = clock.recv_timeout(time);
}

fn piece(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => {
                buffer.truncate(count);
                return Some(buffer);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn end(one: &TcpStream, other: &TcpStream) {
    for stream in [one, other] {
        // The other direction may have ended it.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
