//! Credentials are in nothing that is said.

use std::fmt::Debug;

use nexus_actors::block_on;
use nexus_drivers::catalogue;
use nexus_kernel::hal::PathWrite;
use nexus_messages::syscall::MountSpec;

use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::moto;
use crate::subjects::{open, paths, s3, try_open, write};

const SECRETS: [&str; 3] = ["HUNTER22ACCESS", "hunter22-secret", "hunter22-token"];

fn check(said: &impl Debug) {
    let said = format!("{said:?}");
    for secret in SECRETS {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn nothing_that_is_said_has_them() {
    let [access, secret, token] = SECRETS;
    let server = moto();
    let proxy = Proxy::start(server.port());
    let spec = s3(proxy.port())
        .option("access_key", access)
        .option("secret_key", secret)
        .option("session_token", token)
        .option("timeout_ms", "1000")
        .option("retries", "0");
    check(&spec);
    check(&catalogue().shown(&spec));
    let store = open(&spec);
    check(&store);
    check(&write(&*store, "f", "1", PathWrite::Whole));
    for fault in [Fault::Cut, Fault::Stall, Fault::Garbage, Fault::Unavailable, Fault::Half] {
        proxy.set(fault);
        check(&write(&*store, "f", "1", PathWrite::Whole));
        check(&block_on(paths(&*store).stat("f")));
        check(&block_on(paths(&*store).list("", None, 9)));
        check(&try_open(&spec).map(drop));
    }
    for (key, text) in
        [("region", "no region"), ("bucket", "no/bucket?"), ("endpoint", "http://"), ("prefix", "/")]
    {
        check(&try_open(&spec.clone().option(key, text)).map(drop));
    }
    for other in ["azure", "gcs", "http"].into_iter().filter(|name| catalogue().get(name).is_some()) {
        let spec = MountSpec::new(other)
            .option("container", "c")
            .option("account", "a")
            .option("bucket", "b")
            .option("access_key", secret)
            .option("bearer_token", token);
        check(&spec);
        check(&catalogue().shown(&spec));
        check(&try_open(&spec).map(drop));
    }
}
