//! Content by its hash moves to another store of contents.

use std::time::Duration;

use nexus::{AsOf, SysRead, VPath};

use crate::bench::{AT, Bench, LARGE, ODD_CONTENTS, content};
use crate::load::{Files, Load};

#[test]
fn names_stay_and_all_content_moves_also_what_was_superseded() {
    let bench = Bench::of_contents();
    let at = |name: &str| format!("{AT}/{name}");
    let first = bench.nx.write(at("a"), content(1, LARGE)).expect("it writes");
    bench.nx.write(at("a"), content(2, LARGE)).expect("it writes");
    bench.nx.write(at("small"), "small").expect("it writes");
    bench.nx.write(at("large"), content(3, 5 << 20)).expect("it writes");
    let before = bench.nx.stat(at("large")).expect("it is there");

    bench.begin(bench.spec("cas-local", "new")).expect("it begins");
    let status = bench.done();
    assert!(status.copied > 3, "{status:?}");
    std::fs::remove_dir_all(bench.host("old")).expect("nobody needs it any more");

    let bench = bench.again();
    assert_eq!(bench.driver(), bench.spec("cas-local", "new"));
    assert!(bench.nx.read(at("a")).expect("it is there") == content(2, LARGE));
    assert!(bench.nx.read(at("large")).expect("it is there") == content(3, 5 << 20));
    assert_eq!(bench.nx.read(at("small")).expect("it is there"), "small");
    let after = bench.nx.stat(at("large")).expect("it is there");
    assert_eq!((after.file_id, after.version), (before.file_id, before.version));
    let then = SysRead::at(VPath::parse(&at("a")).expect("it is one")).as_of(AsOf::Lsn(first.receipt.lsn));
    assert!(bench.nx.send(then).expect("it was there").data == content(1, LARGE));
}

#[test]
fn nothing_acknowledged_is_lost_under_load() {
    let bench = Bench::of_contents();
    let mut expected = Files::new();
    for number in 0..60 {
        let (name, content) = (format!("/still/{number}"), content(number, 20_000));
        bench.nx.write(format!("{AT}{name}"), content.clone()).expect("it writes");
        expected.insert(name, content);
    }
    let load = Load::on(&bench.nx);
    load.go_on(50);
    bench.odd.slow(Duration::from_millis(1));
    bench.begin(bench.spec(ODD_CONTENTS, "new")).expect("it begins");
    bench.done();
    bench.odd.slow(Duration::ZERO);
    load.go_on(50);
    expected.extend(load.end());
    std::fs::remove_dir_all(bench.host("old")).expect("nobody needs it any more");
    let bench = bench.again();
    assert!(bench.tree() == expected);
    // Nothing but what is reachable would go.
    bench.nx.write(format!("{AT}/last"), content(99, LARGE)).expect("it writes");
    assert!(bench.nx.read(format!("{AT}/last")).expect("it is there") == content(99, LARGE));
}

#[test]
fn content_that_was_streamed_and_is_named_after_the_switch_is_there() {
    let bench = Bench::of_contents();
    let (begun, goes_on) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let whole: Vec<nexus::Bytes> = (0..8).map(|number| content(number, 1 << 20).into()).collect();
    let pieces = whole.clone();
    std::thread::scope(|scope| {
        let nx = &bench.nx;
        let (tell, wait) = (begun.0, goes_on.1);
        let upload = scope.spawn(move || {
            let pieces = pieces.into_iter().enumerate().map(move |(number, piece)| {
                if number == 5 {
                    tell.send(()).expect("somebody waits");
                    wait.recv().expect("somebody tells");
                }
                Ok(piece)
            });
            nx.write_stream(format!("{AT}/large"), pieces)
        });
        begun.1.recv().expect("it has begun");
        bench.begin(bench.spec("cas-local", "new")).expect("it begins");
        bench.done();
        goes_on.0.send(()).expect("it waits");
        upload.join().expect("it ends").expect("it is written");
    });
    std::fs::remove_dir_all(bench.host("old")).expect("nobody needs it any more");
    let bench = bench.again();
    assert!(bench.nx.read(format!("{AT}/large")).expect("it is there") == whole.concat());
}
