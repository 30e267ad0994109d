//! A wire between driver and server that fails as it is told.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// The answer comes byte by byte.
    Slow,
    /// The answer is no HTTP.
    Garbage,
    /// A server that cannot serve answers instead.
    Unavailable,
    /// The answer breaks off in the middle.
    Half,
    /// A server that lets nothing be written answers what would write.
    Denied,
}

/// How long each byte of a slow answer takes.
const BYTE_EVERY: Duration = Duration::from_millis(100);

/// The wire. It ends with its value.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    fault: Arc<Mutex<Fault>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// A wire to the server at `to`.
    pub(crate) fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let (fault, ended) = (Arc::new(Mutex::new(Fault::None)), Arc::new(AtomicBool::new(false)));
        let proxy = Self { port, fault: fault.clone(), ended: ended.clone() };
        aside(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                carry(&connection, &server, &fault);
            }
        });
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What happens from now on, also on connections that are there.
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
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

fn carry(client: &TcpStream, server: &TcpStream, fault: &Arc<Mutex<Fault>>) {
    let ends = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
    let (Some((mut asked, mut to)), Some((mut back, mut answered))) = (ends(), ends()) else { return };
    let now = {
        let fault = fault.clone();
        move || *fault.lock().unwrap_or_else(PoisonError::into_inner)
    };
    let looked = now.clone();
    aside(move || {
        while let Some(piece) = piece(&mut asked) {
            match looked() {
                Fault::Cut => break,
                Fault::Unavailable => {
                    let answer =
                        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = asked.write_all(answer);
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
        while let Some(piece) = piece(&mut answered) {
            let carried = match now() {
                Fault::Stall => Ok(()),
                Fault::Lost => break,
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
        end(&back, &answered);
    });
}

/// Byte by byte, for as long as the wire is slow.
fn slowly(to: &mut TcpStream, piece: &[u8], now: &impl Fn() -> Fault) -> std::io::Result<()> {
    // Nothing ever comes: it is a clock.
    let (_held, clock) = mpsc::channel::<()>();
    for byte in piece {
        if now() == Fault::Slow {
            let _ = clock.recv_timeout(BYTE_EVERY);
        }
        to.write_all(&[*byte])?;
    }
    Ok(())
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
