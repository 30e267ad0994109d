//! Clients that hand messages to each other through pipes: by path and by ends, with pipes that are full, empty, closed, removed and made anew.

pub(crate) mod history;

use std::sync::Arc;

use nexus::{
    Bytes, ErrorKind, Executed, FileId, Nexus, PipeReader, PipeWriter, SysRead, SysSetattr, SysStat,
    SysUnlink, SysWrite, VPath,
};

use self::history::{Became, History, Message};
use crate::clients::SYSCALL_MAX;
use crate::order::Span;
use crate::plan::Dice;
use crate::scene::{MOMENT, Scene};

/// Clients of each kind.
pub(crate) const WRITERS: usize = 3;
pub(crate) const READERS: usize = 3;

/// Where the pipes are.
pub(crate) const PIPES: &str = "/pipes";

/// The pipes: one that is there always, one whose ends are opened and closed, and one that comes and goes.
const PIPE_COUNT: u64 = 3;
const WITH_ENDS: u64 = 1;
const REMOVED: u64 = 2;

/// So few bytes that a pipe is full now and then.
const CAPACITY: u32 = 120;

/// Messages that are written or read without a pause, at most.
const TOGETHER_MAX: u64 = 6;

/// How often a pipe is looked into when nobody else reads it, and something strikes whoever does.
const LOOKS_MAX: u32 = 200;

fn pipe(number: u64) -> VPath {
    VPath::parse(&format!("{PIPES}/{number}")).unwrap_or_else(|_| VPath::root())
}

/// Makes the pipes. To be done before their clients work.
pub(crate) async fn prepare(nx: &Nexus) -> nexus::Result<()> {
    for number in 0..PIPE_COUNT {
        nx.send(SysSetattr::pipe(pipe(number), CAPACITY)).await?;
    }
    Ok(())
}

struct Writer {
    scene: Arc<Scene>,
    number: usize,
    dice: Dice,
    next: u64,
    end: Option<PipeWriter>,
}

struct Reader {
    scene: Arc<Scene>,
    dice: Dice,
    end: Option<PipeReader>,
}

/// Writes until the scene ends.
pub(crate) async fn write(scene: Arc<Scene>, number: usize) {
    let dice = Dice::new(scene.life.seed ^ (number as u64 + 1) << 48);
    let mut writer = Writer { scene: scene.clone(), number, dice, next: 0, end: None };
    while scene.goes_on().await {
        if !scene.is_dying() {
            match writer.dice.below(60) {
                0..3 if number == 0 => Box::pin(writer.replace()).await,
                3..6 => writer.turn_end().await,
                _ => {
                    for _ in 0..=writer.dice.below(TOGETHER_MAX) {
                        writer.step().await;
                    }
                }
            }
        }
        let pause = writer.dice.around(scene.setting.pace * 3);
        scene.env.sleep(pause).await;
    }
}

/// Reads until the scene ends.
pub(crate) async fn read(scene: Arc<Scene>, number: usize) {
    let dice = Dice::new(scene.life.seed ^ (number as u64 + 1) << 52);
    let mut reader = Reader { scene: scene.clone(), dice, end: None };
    while scene.goes_on().await {
        if !scene.is_dying() {
            match reader.dice.below(60) {
                0..3 => reader.turn_end().await,
                _ => {
                    for _ in 0..=reader.dice.below(TOGETHER_MAX) {
                        reader.step().await;
                    }
                }
            }
        }
        let pause = reader.dice.around(scene.setting.pace * 3);
        scene.env.sleep(pause).await;
    }
}

impl Writer {
    /// Writes one message.
    async fn step(&mut self) {
        let scene = self.scene.clone();
        let at = self.dice.below(PIPE_COUNT);
        let message = Message { writer: self.number, number: self.next };
        self.next += 1;
        let wait = (self.dice.below(3) > 0).then(|| self.dice.around(scene.setting.wait));
        let gives_up = (self.dice.below(5) == 0).then(|| self.dice.around(scene.setting.wait));
        scene.pipes.lock().written.insert(message, Became::Doubtful);
        let writing = Box::pin(async {
            match &self.end {
                Some(end) if at == WITH_ENDS => {
                    end.write(message.content(), wait).await.map(|()| end.metadata().file_id)
                }
                _ => {
                    let mut call = SysWrite::at(pipe(at), message.content());
                    call.wait = wait;
                    scene.nx.send(call).await.map(|written| written.metadata.file_id)
                }
            }
        });
        let answer = match gives_up {
            Some(after) => scene.give_up(after, writing).await,
            None => {
                scene.call("write", pipe(at).as_str(), SYSCALL_MAX + wait.unwrap_or_default(), writing).await
            }
        };
        let became = match answer {
            Some(Ok(file_id)) => {
                scene.count(|counts| counts.messages += 1);
                Became::Written(file_id)
            }
            Some(Err(error)) if error.executed() == Executed::Unknown => Became::Doubtful,
            Some(Err(error)) => {
                match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        scene.count(|counts| counts.pipes_full += 1);
                    }
                    ErrorKind::BrokenPipe if at == WITH_ENDS => {}
                    ErrorKind::NotFound if at == REMOVED => {}
                    // Who opens pipes was killed while this one was to be opened: nothing is in it.
                    ErrorKind::Crashed => {}
                    _ => scene.failed("a message was not written for no fault", &error),
                }
                Became::Not
            }
            None => Became::Doubtful,
        };
        scene.pipes.lock().written.insert(message, became);
    }

    /// Opens an end, or closes it.
    async fn turn_end(&mut self) {
        if self.end.take().is_none() {
            match self.scene.nx.pipe_writer(pipe(WITH_ENDS)).await {
                Ok(end) => self.end = Some(end),
                Err(error) if error.kind() == ErrorKind::Crashed => {}
                Err(error) => self.scene.failed("an end was not opened", &error),
            }
        }
    }

    /// Removes the pipe that comes and goes, and makes it anew.
    async fn replace(&self) {
        let (scene, at) = (&self.scene, pipe(REMOVED));
        match scene.nx.send(SysStat::at(&at)).await {
            Ok(stat) => {
                // Whatever is said of the removal: what was in it may be gone.
                scene.pipes.lock().removed.insert(stat.file_id);
                match scene.call("remove", at.as_str(), SYSCALL_MAX, scene.nx.send(SysUnlink::at(&at))).await
                {
                    Some(Ok(_)) => scene.count(|counts| counts.pipes_removed += 1),
                    Some(Err(error)) => scene.failed("a pipe was not removed", &error),
                    None => {}
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => scene.failed("a pipe cannot be looked at", &error),
        }
        let making = Box::pin(scene.nx.send(SysSetattr::pipe(&at, CAPACITY)));
        if let Some(Err(error)) = scene.call("make", at.as_str(), SYSCALL_MAX, making).await {
            scene.failed("a pipe was not made", &error);
        }
    }
}

impl Reader {
    /// Reads one message.
    async fn step(&mut self) {
        let scene = self.scene.clone();
        let at = self.dice.below(PIPE_COUNT);
        let wait = (self.dice.below(3) > 0).then(|| self.dice.around(scene.setting.wait));
        let gives_up = (self.dice.below(4) == 0).then(|| self.dice.around(scene.setting.wait));
        let sent = scene.tick();
        let reading = async {
            match &self.end {
                Some(end) if at == WITH_ENDS => {
                    let message = end.read(wait).await?;
                    Ok((message.unwrap_or_default(), end.metadata().file_id))
                }
                _ => {
                    let mut call = SysRead::at(pipe(at));
                    call.wait = wait;
                    scene.nx.send(call).await.map(|read| (read.data, read.metadata.file_id))
                }
            }
        };
        let answer = match gives_up {
            Some(after) => {
                let Some(answer) = scene.give_up(after, reading).await else { return };
                answer
            }
            None => {
                let (on, deadline) = (pipe(at), SYSCALL_MAX + wait.unwrap_or_default());
                let Some(answer) = scene.call("read", on.as_str(), deadline, reading).await else { return };
                answer
            }
        };
        match answer {
            Ok((content, file_id)) => took(&scene, sent, &content, file_id),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                ErrorKind::NotFound if at == REMOVED => {}
                // As for who writes: the pipe was not opened.
                ErrorKind::Crashed => {}
                _ => scene.failed("a message was not read for no fault", &error),
            },
        }
    }

    async fn turn_end(&mut self) {
        if self.end.take().is_none() {
            match self.scene.nx.pipe_reader(pipe(WITH_ENDS)).await {
                Ok(end) => self.end = Some(end),
                Err(error) if error.kind() == ErrorKind::Crashed => {}
                Err(error) => self.scene.failed("an end was not opened", &error),
            }
        }
    }
}

/// A read gave this; nothing at the end of the pipe.
fn took(scene: &Scene, sent: u64, content: &Bytes, file_id: FileId) {
    let back = scene.tick();
    if content.is_empty() {
        return;
    }
    match Message::of(content) {
        Some(message) => scene.pipes.lock().read.push((message, Span { sent, back }, file_id)),
        None => scene.broken(format_args!("a message is torn, or merged with another: {content:?}")),
    }
    scene.count(|counts| counts.messages_read += 1);
}

/// When nobody writes or reads: takes what is left, and holds all that was read against all that was written.
pub(crate) async fn check(scene: &Scene) {
    for number in 0..PIPE_COUNT {
        let (at, mut looks) = (pipe(number), 0);
        loop {
            let sent = scene.tick();
            match scene.nx.send(SysRead::at(&at)).await {
                Ok(read) if read.data.is_empty() => break,
                Ok(read) => took(scene, sent, &read.data, read.metadata.file_id),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotFound) => break,
                Err(error) => {
                    looks += 1;
                    if looks > LOOKS_MAX {
                        scene.failed("what is left in a pipe cannot be read", &error);
                        break;
                    }
                    scene.env.sleep(MOMENT).await;
                }
            }
        }
    }
    let history: History = std::mem::take(&mut *scene.pipes.lock());
    history.check().iter().for_each(|wrong| scene.broken(wrong));
}
