//! Servers that speak S3.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::{Recipe, Server};

/// The bucket that each of them has.
pub(crate) const BUCKET: &str = "bkt";

/// What both take as access key and as secret.
pub(crate) const KEY: &str = "S3RVER";

/// One that honours conditional writes, and keeps all in memory.
pub(crate) fn moto() -> Server {
    let server = Server::start(Recipe {
        program: "moto_server",
        install: "pip install 'moto[server]==5.2.5'",
        ready: "Running on",
        arguments: |_, port| ["-H", "127.0.0.1", "-p", &port.to_string()].map(String::from).to_vec(),
    });
    let made = request(server.port(), &format!("PUT /{BUCKET} HTTP/1.1"));
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    server
}

/// One that ignores the conditions of writes, and keeps all on disk.
pub(crate) fn s3rver() -> Server {
    Server::start(Recipe {
        program: "env",
        install: "npm install -g s3rver@3.7.1",
        ready: "listening",
        arguments: |folder: &Path, port| {
            let (folder, port) = (folder.display().to_string(), port.to_string());
            // Its continuation tokens are of a cipher that is no longer usual.
            let settled = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/s3rver-settled.cjs");
            let options = format!("NODE_OPTIONS=--openssl-legacy-provider --require {settled:?}");
            [&options, "s3rver", "--directory", &folder, "--address", "127.0.0.1", "--port", &port]
                .into_iter()
                .chain(["--configure-bucket", BUCKET])
                .map(String::from)
                .collect()
        },
    })
}

/// Sends a request without a body, and gives the answer.
pub(crate) fn request(port: u16, line: &str) -> String {
    exchange(port, line, "")
}

/// Writes to the bucket, past any driver.
pub(crate) fn put(port: u16, key: &str, content: &str) {
    let made = exchange(port, &format!("PUT /{BUCKET}/{key} HTTP/1.1"), content);
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
}

fn exchange(port: u16, line: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("it serves");
    let length = body.len();
    let head =
        format!("{line}\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    connection.write_all(head.as_bytes()).expect("it listens");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}
