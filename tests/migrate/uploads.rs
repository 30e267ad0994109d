//! Content that is under way piece by piece while the files move.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt, stream};
use nexus::{Bytes, ErrorKind, Executed, MigrationState, Result, SysRead, SysWrite, Written};
use nexus_drivers::disk::sim::SimDisk;
use tokio::sync::oneshot;

use crate::bench::{AT, Bench, until};
use crate::crashes::{Lasting, Life, path};

/// So large that the driver has some of it before all has come.
fn pieces() -> Vec<Bytes> {
    (0..9).map(|number| vec![number; 1 << 20].into()).collect()
}

/// How many pieces come before it is waited for the rest.
const FIRST: usize = 7;

#[test]
fn the_switch_waits_for_an_upload_that_is_under_way() {
    let bench = Bench::of_files();
    bench.nx.write(format!("{AT}/small"), "one").expect("it writes");
    let ((tell, begun), (go_on, wait)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    thread::scope(|scope| {
        let nx = &bench.nx;
        let upload = scope.spawn(move || {
            let pieces = pieces().into_iter().enumerate().map(move |(number, piece)| {
                if number == FIRST {
                    tell.send(()).expect("somebody waits");
                    wait.recv().expect("somebody tells");
                }
                Ok(piece)
            });
            nx.write_stream(format!("{AT}/large"), pieces)
        });
        begun.recv().expect("it has begun");
        bench.begin(bench.spec("path-local", "new")).expect("it begins");
        until("copied", || bench.status().filter(|status| status.copied > 0));
        bench.nx.write(format!("{AT}/small"), "two").expect("nobody waits at the gate");
        go_on.send(()).expect("it waits");
        upload.join().expect("it ends").expect("it is written");
    });
    bench.done();
    let expected = pieces().concat();
    assert!(bench.nx.read(format!("{AT}/large")).expect("it is there") == expected);
    assert!(fs::read(bench.host("new").join("large")).expect("it is there") == expected);
    assert_eq!(fs::read_to_string(bench.host("new").join("small")).expect("it is there"), "two");
}

/// An upload that waits for `goes_on` before its last pieces.
async fn upload(life: &Life, goes_on: oneshot::Receiver<()>) -> Result<Written> {
    let mut goes_on = Some(goes_on);
    let pieces = stream::iter(pieces()).enumerate().then(move |(number, piece)| {
        let wait = if number == FIRST { goes_on.take() } else { None };
        async move {
            if let Some(wait) = wait {
                wait.await.expect("somebody tells");
            }
            Ok(piece)
        }
    });
    let call = SysWrite::vectored(path("/m/large"), Vec::new()).create();
    life.kernel.write_stream(&life.admin, call, pieces).await
}

/// How the old store is made, and the new one.
type Way = (fn(&'static str) -> Lasting, fn(&'static str) -> Lasting);

const FILES: Way = (Lasting::new, Lasting::new);
const TO_ROWS: Way = (Lasting::new, Lasting::of_contents);
const FROM_ROWS: Way = (Lasting::of_contents, Lasting::new);

/// Migrates with an upload under way, which goes on when it was waited for so long, or when the migration is over.
fn run((old, new): Way, goes_on_after: Option<Duration>) -> (Result<Written>, Vec<u8>) {
    let (old, new, disk) = (old("old"), new("new"), SimDisk::new(1));
    let life = Life::boot(&disk, &[&old, &new], 7);
    let (written, there) = life.simulation.block_on(async {
        let before = SysWrite::at(path("/m/large"), "before").create();
        life.kernel.send(&life.admin, before).await.expect("it is written");
        let (go_on, goes_on) = oneshot::channel();
        let migration = async {
            // The upload has given its first pieces by then.
            life.env.sleep(Duration::from_secs(1)).await;
            life.order(&Life::begin_to(&new.spec())).await.expect("it begins");
            match goes_on_after {
                Some(time) => life.env.sleep(time).await,
                None => assert_eq!(life.over().await.expect("it is told").state, MigrationState::Done),
            }
            go_on.send(()).expect("it waits");
            life.over().await.expect("it is told")
        };
        let (written, status) = join(upload(&life, goes_on), migration).await;
        assert_eq!(status.state, MigrationState::Done, "{status:?}");
        let read = SysRead::at(path("/m/large"));
        (written, life.kernel.send(&life.admin, read).await.expect("it is there").data.to_vec())
    });
    assert_eq!(life.driver(), "new");
    life.end();
    (written, there)
}

#[test]
fn an_upload_that_ends_before_the_switch_is_in_the_new_store() {
    for way in [FILES, TO_ROWS, FROM_ROWS] {
        let (written, there) = run(way, Some(Duration::from_secs(50)));
        written.expect("it is written");
        assert!(there == pieces().concat());
    }
}

#[test]
fn an_upload_over_the_switch_is_refused_and_changes_nothing() {
    for way in [FILES, TO_ROWS, FROM_ROWS] {
        let (written, there) = run(way, None);
        let refused = written.expect_err("the new store has nothing of it");
        assert_eq!((refused.kind(), refused.executed()), (ErrorKind::Busy, Executed::No), "{refused}");
        assert!(refused.to_string().contains("another"), "{refused}");
        assert_eq!(there, b"before");
    }
}
