//! What is served of a mount whose driver is down.

use nexus::{ErrorKind, Executed};
use nexus_drivers::faults::{Fault, Where};

use crate::bench::{Bench, LARGE, refused, until};

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
