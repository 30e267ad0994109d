//! A Redis server.

use std::path::Path;

use crate::servers::Recipe;
use crate::servers::certificates::AUTHORITY;

/// The password of one that has one.
pub(crate) const PASSWORD: &str = "open-sesame-7319";

/// The socket, in the server's folder.
pub(crate) const SOCKET: &str = "redis.sock";

const INSTALL: &str = "apt-get install -y --no-install-recommends redis-server";

/// One that keeps nothing on disk.
pub(crate) fn redis() -> Recipe {
    Recipe { program: "redis-server", install: INSTALL, ready: "Ready to accept connections", arguments }
}

/// The same, which asks for [`PASSWORD`].
pub(crate) fn redis_with_password() -> Recipe {
    Recipe {
        arguments: |folder, port| [arguments(folder, port), words(&["--requirepass", PASSWORD])].concat(),
        ..redis()
    }
}

/// The same, whose port is encrypted, with the certificates that are in its folder.
pub(crate) fn redis_encrypted() -> Recipe {
    Recipe {
        arguments: |folder, port| {
            let port = port.to_string();
            let tls = ["--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file", "server.crt"];
            let keys = ["--tls-key-file", "server.key", "--tls-ca-cert-file", AUTHORITY];
            [arguments(folder, 0), words(&tls), words(&keys)].concat()
        },
        ..redis()
    }
}

fn arguments(folder: &Path, port: u16) -> Vec<String> {
    let (folder, port) = (folder.display().to_string(), port.to_string());
    let mut all = words(&[
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--dir",
        &folder,
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    all.extend(["--unixsocket".into(), format!("{folder}/{SOCKET}")]);
    all
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
