//! What stands between a store and its server, and cuts the line at the worst moment.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum OnCommit {
    /// It goes through.
    Pass = 0,
    /// The server never sees it.
    CutBefore = 1,
    /// The server carries it out, and its answer is lost.
    CutAfter = 2,
}

/// A line to a server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// Listens for as long as the process lives.
    pub(crate) fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let mode = Arc::new(AtomicU8::new(OnCommit::Pass as u8));
        let seen = mode.clone();
        let accept = move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                serve(client, server, seen.clone());
            }
        };
        thread::Builder::new().name("proxy".into()).spawn(accept).expect("a thread can be started");
        Self { port, mode }
    }

    pub(crate) fn on_commit(&self, mode: OnCommit) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

fn serve(client: TcpStream, server: TcpStream, mode: Arc<AtomicU8>) {
    let (Ok(to_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
    let back_mode = mode.clone();
    // Once a commit is on its way, nothing of the server comes back but the end.
    let back = move || {
        copy(from_server, to_client, |_| back_mode.load(Ordering::SeqCst) != OnCommit::CutAfter as u8);
    };
    let forth = move || {
        let cuts = |bytes: &[u8]| {
            let is_commit = bytes.windows(6).any(|word| word == b"COMMIT");
            !(is_commit && mode.load(Ordering::SeqCst) == OnCommit::CutBefore as u8)
        };
        copy(client, server, cuts);
    };
    for way in [Box::new(back) as Box<dyn FnOnce() + Send>, Box::new(forth)] {
        thread::Builder::new().name("proxy-way".into()).spawn(way).expect("a thread can be started");
    }
}

/// Moves bytes for as long as `passes` says so, then cuts both.
fn copy(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !passes(&buffer[..read]) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
