//! Azure's emulator.

use std::path::Path;

use super::{Recipe, Server};

/// The account that it has, and its key, which its makers publish.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// One that keeps all on disk.
pub(crate) fn azurite() -> Server {
    Server::start(Recipe {
        program: "azurite-blob",
        install: "npm install -g azurite@3.35.0",
        ready: "successfully listens",
        arguments: |folder: &Path, port| {
            let (folder, port) = (folder.display().to_string(), port.to_string());
            ["--blobHost", "127.0.0.1", "--blobPort", &port, "--location", &folder]
                .into_iter()
                .chain(["--skipApiVersionCheck", "--disableTelemetry", "--silent"])
                .map(String::from)
                .collect()
        },
    })
}
