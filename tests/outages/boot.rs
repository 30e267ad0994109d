//! Mounts that cannot be reached when the kernel boots: told with the reason, tried again, and a hindrance to nobody.

use std::time::{Duration, Instant};

use nexus::blocking::{self, Nexus};
use nexus::{ErrorKind, MountSpec, MountState, MountStatus};

use crate::servers::free_port;
use crate::servers::proxy::{Fault, Proxy};
use crate::servers::s3::moto;
use crate::servers::web::web_with;
use crate::{bucket, status, until};

/// How long a boot takes at most when servers do not answer. Opening one mount alone may take longer.
const BOOT_WITHIN: Duration = Duration::from_secs(10);

/// Why the mount does not serve; none when it does.
fn why(status: &MountStatus) -> Option<&str> {
    match &status.state {
        MountState::Failed { cause, .. } | MountState::Restarting { cause } => Some(cause),
        _ => None,
    }
}

fn read(nx: &Nexus, path: &str) -> Option<String> {
    nx.read(path).ok().map(|read| String::from_utf8_lossy(&read).into_owned())
}

#[test]
fn servers_that_do_not_answer_hinder_neither_the_boot_nor_other_mounts_and_are_found_when_they_do() {
    let (s3, web, data) = (moto(), web_with("f", "on the web"), tempfile::tempdir().expect("there is room"));
    let wires = [s3.port(), web.port()].map(Proxy::start);
    let far = bucket(wires[0].port(), "far");
    let page = MountSpec::new("http")
        .option("url", format!("http://127.0.0.1:{}", wires[1].port()))
        .option("allow_http", "true")
        .option("open_ms", "700");
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.mount("/far", far).expect("it mounts");
    until("the wire carries the opening", || nx.mount("/web", page.clone()).ok());
    nx.mount("/near", bucket(s3.port(), "near")).expect("it mounts");
    for (path, content) in [("/f", "here"), ("/far/f", "far"), ("/near/f", "near")] {
        nx.write(path, content).expect("it is written");
    }
    nx.shutdown().expect("it ends");

    for wire in &wires {
        wire.set(Fault::Stall);
    }
    let began = Instant::now();
    let nx = blocking::connect(data.path()).expect("it boots");
    assert!(began.elapsed() < BOOT_WITHIN, "the boot took {:?}", began.elapsed());
    assert_eq!(read(&nx, "/f").as_deref(), Some("here"));
    assert_eq!(until("it serves", || read(&nx, "/near/f")), "near");
    for point in ["/far", "/web"] {
        let mount = status(&nx, point);
        assert!(why(&mount).is_some(), "{mount:?}");
        assert_eq!(mount.read_only, point == "/web", "nothing is ever changed on the web");
        let error = nx.read(format!("{point}/f")).expect_err("it does not serve");
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Io), "{error}");
        assert!(!error.to_string().contains("nothing is known"), "it says why: {error}");
    }
    // Its opening is given up, and the reason is told; and where administrators look, too.
    let reason = until("the reason is told", || {
        let mount = status(&nx, "/web");
        why(&mount).filter(|why| why.contains("700ms")).map(str::to_owned)
    });
    let shown = read(&nx, "/__sys__/mounts/root/web/.self").expect("it is shown");
    assert!(shown.contains("700ms"), "{shown}, and not {reason}");

    for wire in &wires {
        wire.set(Fault::None);
    }
    assert_eq!(until("it is found", || read(&nx, "/far/f")), "far");
    assert_eq!(until("it is found", || read(&nx, "/web/f")), "on the web");
    for point in ["/far", "/web", "/near"] {
        until("it serves", || (status(&nx, point).state == MountState::Serving).then_some(()));
    }
    nx.shutdown().expect("it ends");
}

#[test]
fn what_cannot_be_reached_when_it_is_mounted_is_not_mounted() {
    let nx = blocking::connect(nexus::Config::in_memory()).expect("it boots");
    let nobody = free_port();
    let web = MountSpec::new("http")
        .option("url", format!("http://127.0.0.1:{nobody}"))
        .option("allow_http", "true");
    for spec in [bucket(nobody, "x"), web] {
        let spec = spec.option("retries", "0");
        let error = nx.mount("/m", spec.clone()).expect_err("nobody is there");
        assert!(error.cause().is_some_and(|cause| cause.contains("reached")), "{error}");
        let bad = nx.mount("/m", spec.option("timeout_ms", "soon")).expect_err("it makes no sense");
        assert_eq!(bad.kind(), ErrorKind::InvalidArgument, "{bad}");
        assert!(bad.cause().is_some_and(|cause| cause.contains("timeout_ms")), "{bad}");
        assert_eq!(nx.mounts().expect("they are listed").len(), 1);
    }
    nx.shutdown().expect("it ends");
}

#[test]
fn a_mount_that_writes_back_comes_up_with_what_is_pending_while_its_server_is_down() {
    let (s3, data) = (moto(), tempfile::tempdir().expect("there is room"));
    let wire = Proxy::start(s3.port());
    let back = bucket(wire.port(), "back").option("write_back", "yes").option("cache_age_ms", "600000");
    let nx = blocking::connect(data.path()).expect("it boots");
    nx.mount("/back", back).expect("it mounts");
    nx.mount("/theirs", bucket(s3.port(), "back")).expect("it mounts");
    nx.write("/back/f", "one").expect("it is written");
    until("it is at the server", || read(&nx, "/theirs/f"));
    wire.set(Fault::Cut);
    nx.write("/back/f", "two").expect("what is there is known");
    nx.shutdown().expect("it ends");

    let nx = blocking::connect(data.path()).expect("it boots");
    let cause = until("it says so", || match status(&nx, "/back").state {
        MountState::Limited { cause } => Some(cause),
        _ => None,
    });
    assert!(cause.contains("not reached"), "{cause}");
    assert_eq!(read(&nx, "/back/f").as_deref(), Some("two"));
    assert_eq!(read(&nx, "/theirs/f").as_deref(), Some("one"));
    nx.write("/back/f", "three").expect("what is there is known");

    wire.set(Fault::None);
    until("it is found", || (status(&nx, "/back").state == MountState::Serving).then_some(()));
    until("it is at the server", || read(&nx, "/theirs/f").filter(|content| content == "three"));
    nx.shutdown().expect("it ends");
}
