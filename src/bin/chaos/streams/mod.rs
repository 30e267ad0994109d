//! Clients that append records to streams, in memory and on disk, and readers that follow each from its start.

pub(crate) mod durable;
pub(crate) mod history;

use std::sync::Arc;

use nexus::{
    ErrorKind, Executed, IoProfile, Nexus, OpId, StreamSpec, StreamStart, SysUnlink, SysWrite, VPath,
};
use parking_lot::Mutex;

use self::durable::{Became, Begun};
use self::history::{Appended, OTHERS_MAX, Seen};
use crate::clients::{REPEATS_MAX, SYSCALL_MAX};
use crate::order::Span;
use crate::pipes::history::Message;
use crate::plan::Dice;
use crate::record::Record;
use crate::scene::{MOMENT, Scene};

/// Clients that append, to either stream.
pub(crate) const APPENDERS: usize = 3;

/// Clients that read each stream.
pub(crate) const FOLLOWERS: usize = 2;

/// The streams: one in memory, which each life begins anew, and one on disk.
pub(crate) const STREAMS: &str = "/streams";
const PATHS: [&str; 2] = ["/streams/memory", "/streams/durable"];
pub(crate) const MEMORY: usize = 0;
pub(crate) const DURABLE: usize = 1;

/// Records that are appended together, at most.
const TOGETHER_MAX: u64 = 4;

/// How often a stream is looked into when something strikes whoever does.
const LOOKS_MAX: u32 = 200;

/// What callers saw of one stream in this life of the kernel.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    appended: Vec<Appended>,
    /// Appends that were acknowledged, with their offsets.
    order: Vec<(Span, u64)>,
    seen: Seen,
}

/// Both of them.
pub(crate) type Streams = [Mutex<Shown>; 2];

fn stream(at: usize) -> VPath {
    VPath::parse(PATHS[at]).unwrap_or_else(|_| VPath::root())
}

/// Makes the streams. To be done in each life, before their clients work.
pub(crate) async fn prepare(nx: &Nexus) -> nexus::Result<()> {
    match nx.send(SysUnlink::at(stream(MEMORY))).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    nx.make_stream(stream(MEMORY), StreamSpec::new().io_profile(IoProfile::Memory)).await?;
    // As the mount keeps it: on disk, where there is one.
    nx.make_stream(stream(DURABLE), StreamSpec::new()).await?;
    Ok(())
}

struct Appender {
    scene: Arc<Scene>,
    number: usize,
    dice: Dice,
    /// The number of the next record for each stream.
    next: [u64; 2],
}

/// Appends until the scene ends.
pub(crate) async fn append(scene: Arc<Scene>, number: usize) {
    let dice = Dice::new(scene.life.seed ^ (number as u64 + 1) << 56);
    let stream = &scene.ledger.stream;
    let next = [0, stream.numbers.get(number).copied().unwrap_or(0)];
    let mut appender = Appender { scene: scene.clone(), number, dice, next };
    // What a kernel that was killed may have done is sent again.
    if let Some(begun) = stream.pending.get(number).copied().flatten()
        && !appender.send(DURABLE, begun, false).await
    {
        return idle(&scene).await;
    }
    while scene.goes_on().await {
        if !scene.is_dying() && !appender.step().await {
            return idle(&scene).await;
        }
        let pause = appender.dice.around(scene.setting.pace * 6);
        scene.env.sleep(pause).await;
    }
}

async fn idle(scene: &Scene) {
    while scene.goes_on().await {
        scene.env.sleep(MOMENT * 20).await;
    }
}

impl Appender {
    /// Appends something; false when nobody says what became of it.
    async fn step(&mut self) -> bool {
        let at = usize::from(self.dice.below(3) == 0);
        let count = 1 + self.dice.below(TOGETHER_MAX);
        let op_id = OpId((u128::from(self.dice.roll()) << 64) | u128::from(self.dice.roll()));
        let first = Message { writer: self.number, number: self.next[at] };
        self.next[at] += count;
        self.send(at, Begun { first, count, op_id }, true).await
    }

    /// Appends it; of one that is not new, an earlier life may have done so, and its place is as old.
    async fn send(&mut self, at: usize, begun: Begun, is_new: bool) -> bool {
        let scene = self.scene.clone();
        let Begun { first, count, op_id } = begun;
        if at == DURABLE {
            scene.tell(Record::Appending { begun });
        }
        let records: Vec<_> = (first.number..first.number + count)
            .map(|number| Message { writer: self.number, number }.content())
            .collect();
        let others = || scene.streams[at].lock().order.len() as u64;
        let (sent, before) = (scene.tick(), others());
        let mut repeats = 0;
        let append = |offset: Option<u64>, times_max: u64| {
            scene.streams[at].lock().appended.push(Appended { first, count, offset, times_max });
        };
        loop {
            let call = SysWrite::vectored(stream(at), records.clone()).append().op_id(op_id);
            let appending = scene.nx.send(call);
            // Who gives up does not know, and sends it again.
            let gives_up = repeats == 0 && self.dice.below(5) == 0;
            let answer = if gives_up {
                let after = self.dice.around(scene.setting.pace);
                scene.give_up(after, appending).await
            } else {
                match scene.call("append", PATHS[at], SYSCALL_MAX, appending).await {
                    None => return false,
                    answer => answer,
                }
            };
            match answer {
                Some(Ok(written)) => {
                    let Some(offset) = written.first_record else {
                        scene.broken("what was appended has no offset");
                        return false;
                    };
                    let span = Span { sent, back: scene.tick() };
                    let times_max =
                        if repeats > 0 && others() - before > OTHERS_MAX { repeats + 1 } else { 1 };
                    append(Some(offset), times_max);
                    if is_new {
                        scene.streams[at].lock().order.push((span, offset));
                    }
                    if at == DURABLE {
                        let became = Became::Acknowledged { offset, times_max };
                        scene.tell(Record::Appended { appender: self.number, became });
                    }
                    scene.count(|counts| counts.appended += count);
                    return true;
                }
                None => {}
                Some(Err(error)) if error.executed() == Executed::Unknown => {
                    if repeats > u64::from(REPEATS_MAX) {
                        append(None, repeats + 1);
                        scene.failed("nobody says what became of an append", &error);
                        return false;
                    }
                    scene.env.sleep(MOMENT * 2).await;
                }
                Some(Err(_)) if scene.is_dying() => return false,
                Some(Err(error)) => {
                    scene.broken(format_args!("an append failed: {error}"));
                    append(None, repeats);
                    if at == DURABLE && repeats == 0 {
                        scene.tell(Record::Appended { appender: self.number, became: Became::NotMade });
                    }
                    return repeats == 0;
                }
            }
            if scene.is_dying() {
                // The oracle looks, and the next life sends it again.
                return false;
            }
            repeats += 1;
            scene.count(|counts| counts.appends_repeated += 1);
        }
    }
}

/// Follows a stream from its start until the scene ends.
pub(crate) async fn follow(scene: Arc<Scene>, at: usize, number: usize) {
    let mut dice = Dice::new(scene.life.seed ^ ((at * FOLLOWERS + number) as u64 + 1) << 60);
    let mut next = 0;
    let Ok(mut reader) = scene.nx.stream_reader(stream(at), StreamStart::Oldest) else {
        return scene.broken("a path is none");
    };
    while scene.goes_on().await {
        if scene.is_dying() {
            scene.env.sleep(MOMENT * 20).await;
            continue;
        }
        let wait = (dice.below(3) > 0).then(|| dice.around(scene.setting.wait));
        let reading = reader.next(wait);
        let read = if dice.below(4) == 0 {
            let after = dice.around(scene.setting.wait);
            let Some(read) = scene.give_up(after, reading).await else { continue };
            read
        } else {
            let Some(read) =
                scene.call("read", PATHS[at], SYSCALL_MAX + wait.unwrap_or_default(), reading).await
            else {
                continue;
            };
            read
        };
        match read {
            Ok(Some(record)) => {
                scene.count(|counts| counts.records_read += 1);
                let Some(message) = Message::of(&record.data) else {
                    scene.broken(format_args!("a record is torn: {record:?}"));
                    continue;
                };
                let wrong = scene.streams[at].lock().seen.saw(next, record.offset, message);
                if let Some(wrong) = wrong {
                    scene.broken(format_args!("{}: {wrong}", PATHS[at]));
                }
                next = record.offset + 1;
                if dice.below(200) == 0 {
                    // Another reader goes on there.
                    match scene.nx.stream_reader(stream(at), next) {
                        Ok(other) => reader = other,
                        Err(error) => scene.broken(error),
                    }
                }
            }
            Ok(None) => {
                let pause = dice.around(scene.setting.pace * 4);
                scene.env.sleep(pause).await;
            }
            Err(error) => {
                scene.failed("a record was not read for no fault", &error);
                scene.env.sleep(MOMENT * 2).await;
            }
        }
    }
}

/// All records of a stream, from its first one on.
///
/// # Errors
/// What kept it from being read, or what is wrong with a record.
async fn all(nx: &Nexus, at: usize) -> Result<Vec<Message>, String> {
    let mut reader = nx.stream_reader(stream(at), StreamStart::Oldest).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    while let Some(record) = reader.next(None).await.map_err(|error| error.to_string())? {
        if record.offset != records.len() as u64 {
            return Err(format!("offset {} comes after {} records", record.offset, records.len()));
        }
        records.push(Message::of(&record.data).ok_or_else(|| format!("a record is torn: {record:?}"))?);
    }
    Ok(records)
}

/// When nobody appends: what is there is what was acknowledged, in its order.
pub(crate) async fn check(scene: &Scene) {
    for (at, path) in PATHS.iter().enumerate() {
        let wrong = history::order(&scene.streams[at].lock().order);
        if let Some(wrong) = wrong {
            scene.broken(format_args!("{path}: {wrong}"));
        }
    }
    let mut looks = 0;
    let records = loop {
        match all(&scene.nx, MEMORY).await {
            Ok(records) => break records,
            Err(wrong) if looks > LOOKS_MAX => {
                return scene.broken(format_args!("{}: {wrong}", PATHS[MEMORY]));
            }
            Err(_) => looks += 1,
        }
        scene.env.sleep(MOMENT).await;
    };
    let shown = scene.streams[MEMORY].lock();
    let mut wrong = history::check(&records, &shown.appended);
    if !records.starts_with(shown.seen.records()) {
        wrong.push("readers saw other records".into());
    }
    drop(shown);
    wrong.iter().for_each(|wrong| scene.broken(format_args!("{}: {wrong}", PATHS[MEMORY])));
}

/// What is wrong with the stream that is on disk, when nobody appends.
pub(crate) async fn check_durable(nx: &Nexus, durable: &mut durable::Durable) -> Vec<String> {
    match all(nx, DURABLE).await {
        Ok(records) => {
            durable.settle(records).into_iter().map(|wrong| format!("{}: {wrong}", PATHS[DURABLE])).collect()
        }
        Err(wrong) => vec![format!("{}: {wrong}", PATHS[DURABLE])],
    }
}
