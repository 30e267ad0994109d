//! Many at once: each message comes once, whole, in the order of its writer.

use std::collections::BTreeMap;
use std::thread;

use nexus::{Errno, SysRead, SysWrite};

use crate::bench::{LONG, piped};

const WRITERS: usize = 4;
const READERS: usize = 4;
const EACH: usize = 2_000;

#[test]
fn many_writers_and_readers_lose_nothing_and_double_nothing() {
    let (nx, at) = piped(500);
    let read: Vec<Vec<String>> = thread::scope(|scope| {
        let opened: Vec<_> = (0..WRITERS).map(|_| nx.pipe_writer(&at).unwrap()).collect();
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (nx, at) = (&nx, &at);
                scope.spawn(move || {
                    let mut read = Vec::new();
                    // By an end, and by the path.
                    let end = nx.pipe_reader(at).unwrap();
                    loop {
                        let message = match reader % 2 {
                            0 => end.read(Some(LONG)).unwrap(),
                            _ => Some(nx.send(SysRead::at(at).wait(LONG)).unwrap().data),
                        };
                        match message.filter(|message| !message.is_empty()) {
                            Some(message) => read.push(String::from_utf8(message.to_vec()).unwrap()),
                            None => return read,
                        }
                    }
                })
            })
            .collect();
        for (writer, end) in opened.into_iter().enumerate() {
            let (nx, at) = (&nx, &at);
            scope.spawn(move || {
                for n in 0..EACH {
                    // Messages of many lengths: a torn or merged one would be found out.
                    let message = format!("{writer} {n} {}", "x".repeat(n % 90));
                    if n % 2 == 0 {
                        end.write(message, Some(LONG)).unwrap();
                    } else {
                        nx.send(SysWrite::at(at, message).wait(LONG)).unwrap();
                    }
                }
            });
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let mut count: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for read in &read {
        let mut last = [None; WRITERS];
        for message in read {
            let mut parts = message.split(' ');
            let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
            let (writer, n) = (number(), number());
            assert_eq!(parts.next().unwrap(), "x".repeat(n % 90));
            assert!(last[writer] < Some(n), "{writer} wrote {n} before {:?}", last[writer]);
            last[writer] = Some(n);
            *count.entry((writer, n)).or_default() += 1;
        }
    }
    assert_eq!(count.len(), WRITERS * EACH, "each came");
    assert!(count.values().all(|times| *times == 1), "and came once");
}

#[test]
fn waiting_readers_are_served_in_the_order_in_which_they_came() {
    use futures_util::FutureExt;
    let (nx, at) = piped(1_000);
    let mut waiting: Vec<_> =
        (0..100).map(|_| Box::pin(nx.as_async().send(SysRead::at(&at).wait(LONG)))).collect();
    for read in &mut waiting {
        assert!(read.as_mut().now_or_never().is_none());
    }
    for (n, waiting) in waiting.into_iter().enumerate() {
        nx.send(SysWrite::at(&at, format!("{n}"))).unwrap();
        let read = nx.env().blocking_wait(waiting).unwrap();
        assert_eq!(read.data, format!("{n}"));
    }
    let none = nx.send(SysRead::at(&at)).unwrap_err();
    assert_eq!(none.errno(), Errno::EAGAIN);
}
