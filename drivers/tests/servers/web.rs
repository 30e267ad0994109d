//! A web server of files, which knows neither ranges nor WebDAV.

use tempfile::TempDir;

use super::{Recipe, Server};

/// One that has what is in `folder`.
pub(crate) fn web(folder: TempDir) -> Server {
    let recipe = Recipe {
        program: "python3",
        install: "apt-get install python3",
        ready: "Serving HTTP",
        arguments: |_, port| {
            ["-u", "-m", "http.server", "--bind", "127.0.0.1", &port.to_string()].map(String::from).to_vec()
        },
    };
    Server::start_in(recipe, folder)
}

/// One that has this one file.
pub(crate) fn web_with(name: &str, content: &str) -> Server {
    let folder = tempfile::tempdir().expect("there is room");
    std::fs::write(folder.path().join(name), content).expect("there is room");
    web(folder)
}
