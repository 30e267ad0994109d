//! Azure's emulator.

use std::path::Path;

use std::process::Command;

use super::{Recipe, Server};

/// The container that it has.
pub(crate) const CONTAINER: &str = "bkt";

/// Makes the container, which takes a signature.
const MAKE: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.error, urllib.request
account, key, container, port = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{account}/{account}/{container}\nrestype:container"
mac = base64.b64encode(hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {account}:{mac}", "Content-Length": "0"}
url = f"http://127.0.0.1:{port}/{account}/{container}?restype=container"
try:
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers))
except urllib.error.HTTPError as error:
    # It is there.
    if error.code != 409:
        raise
"#;

/// The account that it has, and its key, which its makers publish.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// One that keeps content on disk, and what it knows of it some seconds later: a killed one may have forgotten what it acknowledged last.
pub(crate) fn azurite() -> Server {
    let server = Server::start(Recipe {
        program: "azurite-blob",
        install: "npm install -g azurite@3.35.0",
        ready: "successfully listens",
        arguments: |folder: &Path, port| {
            let (folder, port) = (folder.display().to_string(), port.to_string());
            ["--blobHost", "127.0.0.1", "--blobPort", &port, "--location", &folder]
                .into_iter()
                .chain(["--skipApiVersionCheck", "--disableTelemetry"])
                .map(String::from)
                .collect()
        },
    });
    make_container(server.port());
    server
}

/// Makes the container, unless it is there.
pub(crate) fn make_container(port: u16) {
    let port = port.to_string();
    let made = Command::new("python3").args(["-c", MAKE, ACCOUNT, KEY, CONTAINER, &port]).output();
    let made = made.expect("python3 is a part of every Debian");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
