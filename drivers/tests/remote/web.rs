//! What a web server has.

use nexus_actors::block_on;
use nexus_kernel::hal::{PathWrite, StoreError};
use nexus_messages::syscall::{ByteRange, MountSpec};

use crate::servers::{Recipe, Server};
use crate::subjects::{open, paths, read, write};

/// One that knows neither ranges nor WebDAV.
pub(crate) fn plain(folder: tempfile::TempDir) -> Server {
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

pub(crate) fn mount(port: u16) -> MountSpec {
    MountSpec::new("http").option("url", format!("http://127.0.0.1:{port}")).option("allow_http", "true")
}

#[test]
fn files_are_read_and_nothing_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("docs")).expect("it is made");
    std::fs::write(folder.path().join("docs/a b.txt"), "0123456789").expect("it is written");
    std::fs::write(folder.path().join("empty"), "").expect("it is written");
    let server = plain(folder);
    let store = open(&mount(server.port()));
    assert!(store.read_only());
    assert_eq!(&read(&*store, "docs/a b.txt").expect("it is read")[..], b"0123456789");
    assert_eq!(&read(&*store, "empty").expect("it is read")[..], b"");
    let range = |offset, count| {
        block_on(paths(&*store).read("docs/a b.txt", ByteRange::new(offset, count))).expect("it is read")
    };
    assert_eq!(&range(3, 4).0[..], b"3456");
    assert_eq!(&range(8, 9).0[..], b"89");
    assert_eq!((&range(10, 1).0[..], range(10, 1).1.size), (&b""[..], 10));
    let missing = block_on(paths(&*store).stat("none")).expect_err("it is not there");
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    let listed = block_on(paths(&*store).list("", None, 9)).expect_err("it lists nothing");
    assert!(matches!(listed, StoreError::NotSupported { .. }), "{listed:?}");
    // The same of one folder of it.
    let spec = MountSpec::new("http").option("url", format!("http://127.0.0.1:{}", server.port()));
    let below = open(&spec.option("allow_http", "true").option("prefix", "docs"));
    assert_eq!(&read(&*below, "a b.txt").expect("it is read")[..], b"0123456789");
    let listed = block_on(paths(&*below).list("", None, 9)).expect_err("it lists nothing");
    assert!(matches!(listed, StoreError::NotSupported { .. }), "{listed:?}");
    let written = write(&*store, "new", "1", PathWrite::Whole).expect_err("it is refused");
    assert!(matches!(written, StoreError::ReadOnly { .. }), "{written:?}");
}
