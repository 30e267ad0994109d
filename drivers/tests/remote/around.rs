//! What the environment of the process may say, and what it may not: each test runs itself again in an environment of its own.

use std::process::Command;
use std::time::Duration;

use nexus_kernel::hal::PathWrite;

use crate::servers::small::Small;
use crate::subjects::{open, read, s3, write};

/// Set in the process that a test starts: the port of the server that is meant.
const CHILD: &str = "NEXUS_TEST_SERVER";

const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The port that is meant, in the process that was started for it.
fn meant() -> Option<u16> {
    std::env::var(CHILD).ok().map(|port| port.parse().expect("it is a port"))
}

/// Runs the test `name` by itself: `meant` is the server that it is to speak to, `proxy` is between it and all others, and `around` is in its environment.
fn by_itself(name: &str, meant: &Small, proxy: &Small, around: &[(&str, String)]) {
    let mut child = Command::new(std::env::current_exe().expect("it runs"));
    child.args(["--exact", name]).env(CHILD, meant.port().to_string());
    for variable in PROXIES {
        child.env(variable, format!("http://127.0.0.1:{}", proxy.port()));
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    child.envs(around.iter().map(|(name, value)| (name, value)));
    let ended = child.output().expect("it can be started");
    let (said, failed) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && said.contains("1 passed"), "{said}{failed}");
}

#[test]
fn what_goes_to_this_machine_goes_to_no_proxy() {
    let name = "around::what_goes_to_this_machine_goes_to_no_proxy";
    let Some(port) = meant() else {
        let [meant, proxy] = [(); 2].map(|()| Small::start(Duration::ZERO));
        by_itself(name, &meant, &proxy, &[]);
        assert!(meant.requests() > 0);
        assert_eq!(proxy.requests(), 0, "it has seen what was signed");
        return;
    };
    let store = open(&s3(port));
    write(&*store, "f", "there", PathWrite::Whole).expect("it is written");
    assert_eq!(&read(&*store, "f").expect("it is read")[..], b"there");
    #[cfg(feature = "http")]
    assert_eq!(&read(&*open(&crate::web::mount(port)), "bkt/f").expect("it is read")[..], b"there");
}
