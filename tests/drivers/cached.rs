//! What is served of a mount whose driver is down.

use nexus::{ErrorKind, Executed, blocking};
use nexus_drivers::faults::{Fault, Faults, Where};

use crate::bench::{Bench, LARGE, config, refused, until};

#[test]
fn names_small_files_and_cached_content_are_served_while_the_driver_is_down() {
    let bench = Bench::with(|config| config.content_cache_bytes(1 << 20));
    bench.mount_blobs(30_000);
    bench.nx.write("/bad/d/small", "in the metastore").expect("it writes");
    bench.nx.write("/bad/d/cold", vec![1; 4 << 20]).expect("too large for the cache");
    bench.nx.write("/bad/d/warm", vec![2; LARGE]).expect("it writes");
    for at in [Where::Look, Where::Change, Where::Probe, Where::Open] {
        bench.faults.always(at, Fault::Error);
    }
    until("it is not called any more", || {
        let error = bench.nx.read("/bad/d/cold").expect_err("it is not in memory");
        (error.kind() == ErrorKind::Unavailable).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(bench.nx.read("/bad/d/warm").expect("it is in memory"), vec![2; LARGE]);
        assert_eq!(bench.nx.read("/bad/d/small").expect("it is in the metastore"), "in the metastore");
        assert_eq!(bench.nx.stat("/bad/d/cold").expect("it is a row").size, 4 << 20);
        assert_eq!(bench.nx.readdir("/bad/d").expect("they are rows").len(), 3);
    }
    // What needs no driver can be changed, too.
    bench.nx.write("/bad/d/small", "changed").expect("it goes into the metastore");
    bench.nx.rename("/bad/d/cold", "/bad/d/moved").expect("it is a row");
    refused(bench.nx.write("/bad/d/new", vec![3; LARGE]), ErrorKind::Unavailable, Executed::No);
    assert!(!bench.nx.exists("/bad/d/new").expect("it answers"));

    bench.faults.clear();
    let cold = until("it serves again", || bench.nx.read("/bad/d/moved").ok());
    assert_eq!(cold, vec![1; 4 << 20]);
}

#[test]
fn names_and_small_files_are_served_when_the_driver_cannot_even_be_opened_at_boot() {
    let bench = Bench::new();
    bench.mount_blobs(30_000);
    bench.nx.write("/bad/d/small", "in the metastore").expect("it writes");
    bench.nx.write("/bad/d/large", vec![1; LARGE]).expect("it writes");
    bench.nx.shutdown().expect("it stops");

    let faults = Faults::new();
    faults.always(Where::Open, Fault::Error);
    let nx = blocking::connect(config(bench.folder.path(), &faults)).expect("it boots");
    assert_eq!(nx.read("/bad/d/small").expect("it is in the metastore"), "in the metastore");
    assert_eq!(nx.stat("/bad/d/large").expect("it is a row").size, LARGE as u64);
    let error = refused(nx.read("/bad/d/large"), ErrorKind::Unavailable, Executed::No);
    assert!(error.cause().is_some_and(|cause| cause.contains("an injected fault")), "{error}");
    nx.write("/bad/d/small", "changed").expect("it goes into the metastore");
    faults.clear();
    assert_eq!(until("it serves", || nx.read("/bad/d/large").ok()), vec![1; LARGE]);
    nx.shutdown().expect("it stops");
}
