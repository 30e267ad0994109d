//! Two mounts of one bucket.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nexus_kernel::hal::{PathWrite, StoreError};

use crate::servers::small::Small;
use crate::subjects::{open, read, s3, write};

#[test]
fn of_those_that_make_one_file_at_once_one_wins() {
    const ROUNDS: usize = 20;
    const WRITERS: usize = 4;
    // Moto looks and writes without a lock: under load it lets two win.
    let server = Small::start(Duration::ZERO);
    let stores: Vec<_> = (0..WRITERS).map(|_| open(&s3(server.port()))).collect();
    let barrier = Barrier::new(WRITERS);
    let won: Vec<Vec<bool>> = thread::scope(|scope| {
        let race = |writer: usize| {
            let (store, barrier) = (&stores[writer], &barrier);
            move || {
                let one = |round: usize| {
                    barrier.wait();
                    match write(&**store, &format!("race/{round}"), format!("{writer}"), PathWrite::Exclusive)
                    {
                        Ok(_) => true,
                        Err(StoreError::Exists { .. } | StoreError::Locked { .. }) => false,
                        Err(error) => panic!("{error}"),
                    }
                };
                (0..ROUNDS).map(one).collect()
            }
        };
        let racing: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(race(writer))).collect();
        racing.into_iter().map(|racing| racing.join().expect("it does not panic")).collect()
    });
    for round in 0..ROUNDS {
        let winners: Vec<_> =
            won.iter().enumerate().filter(|(_, rounds)| rounds[round]).map(|(writer, _)| writer).collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let content = read(&*stores[0], &format!("race/{round}")).expect("it is there");
        assert_eq!(&content[..], winners[0].to_string().as_bytes(), "round {round}");
    }
}
