//! Certificates for servers of tests.

use std::path::Path;
use std::process::Command;

/// The authority's certificate, in the server's folder.
pub(crate) const AUTHORITY: &str = "authority.pem";

/// Makes in `folder` an authority, and a key and a certificate for `localhost` by it, under these names.
pub(crate) fn certify(folder: &Path, key: &str, certificate: &str) {
    let openssl = |arguments: &str| {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        let done = done.expect("it is on every Debian: apt-get install openssl");
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    };
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(&format!("req -x509 {KEY} -keyout authority.key -out {AUTHORITY} -subj /CN=tests"));
    openssl(&format!(
        "req {KEY} -keyout {key} -out server.csr -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    ));
    openssl(&format!(
        "x509 -req -in server.csr -CA {AUTHORITY} -CAkey authority.key -CAcreateserial -days 2 -copy_extensions copy -out {certificate}"
    ));
}
