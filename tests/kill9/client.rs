//! A client: it sends what the plan says, keeps books on what it was told, and holds what it finds against them.

use std::sync::mpsc::Sender;

use futures_util::future::{BoxFuture, join_all};
use nexus::syscall::{SysCopy, SysRename, SysSetattr, SysTx, SysUnlink, SysWrite, TxOp};
use nexus::{Bytes, Consistency, EntryType, ErrorKind, Executed, Nexus, OpId, VPath, blocking};

use crate::books::{Books, Effect, Node, Tree, complete, explain};
use crate::plan::{self, Random};

/// Content above this many bytes is sent, and read, as a stream.
const STREAM_FROM: usize = 1 << 20;

/// The length of its pieces.
const PIECE_BYTES: usize = 100_000;

/// A call that was sent.
#[derive(Debug)]
struct Call {
    id: OpId,
    effect: Effect,
}

#[derive(Debug)]
pub(crate) struct Client {
    /// Its directory; nobody else changes anything below it.
    pub(crate) base: String,
    /// What was acknowledged.
    tree: Tree,
    /// What of it is on disk.
    books: Books,
    /// What was sent last, and may have been done.
    pending: Vec<Call>,
    /// How much was acknowledged before it was on disk, and lost.
    pub(crate) lost: usize,
    random: Random,
}

fn path(text: &str) -> VPath {
    VPath::parse(text).expect("the plan makes paths")
}

impl Client {
    pub(crate) fn new(number: u64, seed: u64) -> Self {
        let random = Random(seed ^ (number + 1).wrapping_mul(0x0123_4567_89ab_cdef));
        let base = format!("/c{number}");
        Self { base, tree: Tree::new(), books: Books::default(), pending: Vec::new(), lost: 0, random }
    }

    /// Sends what the plan says until a call fails, and tells of each that is acknowledged. Gives the failure.
    pub(crate) fn work(&mut self, nx: &Nexus, heavy: bool, acknowledged: &Sender<()>) -> nexus::Error {
        loop {
            let effects = plan::next(&mut self.random, &self.tree, &self.base, heavy);
            let call = |effect| Call { id: self.random.id(), effect };
            let calls: Vec<Call> = effects.into_iter().map(call).collect();
            let answers = smol::block_on(join_all(calls.iter().map(|call| call.send(nx))));
            let mut failure = None;
            let (mut on_disk, mut soon) = (Vec::new(), Vec::new());
            for (call, answer) in calls.into_iter().zip(answers) {
                match answer {
                    Ok(()) => {
                        call.effect.apply(&mut self.tree);
                        match call.consistency() {
                            Consistency::Eventual => soon.push(call.effect),
                            _ => on_disk.push(call.effect),
                        }
                        // Nobody counts any more when all is being ended.
                        let _ = acknowledged.send(());
                    }
                    Err(error) => {
                        if error.executed() == Executed::Unknown {
                            self.pending.push(call);
                        }
                        failure = Some(error);
                    }
                }
            }
            self.books.enter(on_disk, soon);
            if let Some(failure) = failure {
                return failure;
            }
        }
    }

    /// Holds all that is there against the books. Some of what is unknown is sent again: then it is done, once. Gives what is wrong.
    pub(crate) fn check(&mut self, nx: &blocking::Nexus) -> Result<(), String> {
        let wrong = |what: String| format!("{}: {what}", self.base);
        let found = read_tree(nx, &self.base).map_err(wrong)?;
        let effects: Vec<&Effect> = self.pending.iter().map(|call| &call.effect).collect();
        let (done, lost) = self.books.explain(&effects, &found).map_err(wrong)?;
        self.lost += lost;
        let mut expected = found;
        for (call, done) in self.pending.iter().zip(done) {
            if self.random.below(2) == 0 {
                continue;
            }
            if let Err(error) = smol::block_on(call.send(nx.as_async())) {
                // What it was to work on may be among what was put off and is lost; then nothing of it is done.
                if lost > 0 && !done && finds_otherwise(&error) {
                    continue;
                }
                return Err(wrong(format!(
                    "{call:?}, which was done: {done}, with {lost} lost, cannot be sent again: {error}"
                )));
            }
            if !done {
                call.effect.apply(&mut expected);
                // A directory that was put off and is lost is made again with what is in it.
                complete(&mut expected, &self.base);
            }
        }
        let found = read_tree(nx, &self.base).map_err(wrong)?;
        explain(&expected, &[], &found)
            .map_err(|what| wrong(format!("after {:?} was sent again: {what}", self.pending)))?;
        nx.sync("/").map_err(|error| wrong(format!("it cannot be flushed: {error}")))?;
        self.pending.clear();
        self.books = Books { sure: found.clone(), soon: Vec::new() };
        self.tree = found;
        Ok(())
    }

    /// How much was acknowledged and is to be on disk soon.
    pub(crate) fn put_off(&self) -> usize {
        self.books.put_off()
    }

    /// How many calls are unknown.
    pub(crate) fn unknown(&self) -> usize {
        self.pending.len()
    }
}

/// Whether it is the state of the tree that a call was refused for.
fn finds_otherwise(error: &nexus::Error) -> bool {
    use ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotEmpty, NotFound};
    error.executed() == Executed::No
        && matches!(error.kind(), NotFound | AlreadyExists | NotADirectory | IsADirectory | NotEmpty)
}

impl Random {
    fn id(&mut self) -> OpId {
        OpId(u128::from(self.next()) << 64 | u128::from(self.next()))
    }
}

impl Call {
    fn consistency(&self) -> Consistency {
        if self.id.0.is_multiple_of(3) { Consistency::Eventual } else { Consistency::Strong }
    }

    fn send<'a>(&'a self, nx: &'a Nexus) -> BoxFuture<'a, nexus::Result<()>> {
        Box::pin(async move {
            match &self.effect {
                Effect::Put(at, Node::File(content)) if content.len() >= STREAM_FROM => {
                    let pieces = content.chunks(PIECE_BYTES).map(|piece| Ok(content.slice_ref(piece)));
                    let call = SysWrite::vectored(path(at), Vec::new())
                        .create()
                        .op_id(self.id)
                        .consistency(self.consistency());
                    nx.send_stream(call, futures_util::stream::iter(pieces)).await.map(drop)
                }
                Effect::Copy(from, to) => nx
                    .send(SysCopy::new(path(from), path(to)).op_id(self.id).consistency(self.consistency()))
                    .await
                    .map(drop),
                Effect::Together(effects) => {
                    let call = effects.iter().fold(SysTx::new(), |call, effect| call.with(operation(effect)));
                    nx.send(call.op_id(self.id).consistency(self.consistency())).await.map(drop)
                }
                effect => match operation(effect) {
                    TxOp::Write(call) => {
                        nx.send(call.op_id(self.id).consistency(self.consistency())).await.map(drop)
                    }
                    TxOp::Setattr(call) => {
                        nx.send(call.op_id(self.id).consistency(self.consistency())).await.map(drop)
                    }
                    TxOp::Rename(call) => {
                        nx.send(call.op_id(self.id).consistency(self.consistency())).await.map(drop)
                    }
                    TxOp::Unlink(call) => {
                        nx.send(call.op_id(self.id).consistency(self.consistency())).await.map(drop)
                    }
                    other => unreachable!("the plan has no {other:?}"),
                },
            }
        })
    }
}

/// The call that has this effect, by itself or as a part of a transaction.
fn operation(effect: &Effect) -> TxOp {
    match effect {
        Effect::Put(at, Node::File(content)) => SysWrite::at(path(at), content.clone()).create().into(),
        Effect::Put(at, Node::Dir) => SysSetattr::directory(path(at)).into(),
        Effect::Put(at, Node::Link(target)) => SysSetattr::link(path(at), target.as_str()).into(),
        Effect::Append(at, data) => SysWrite::at(path(at), data.clone()).append().create().into(),
        Effect::At(at, offset, data) => SysWrite::at(path(at), data.clone()).offset(*offset as u64).into(),
        Effect::Remove(at) => SysUnlink::at(path(at)).recursive().into(),
        Effect::Move(from, to) => SysRename::new(path(from), path(to)).into(),
        Effect::Copy(..) | Effect::Together(_) => unreachable!("they are calls of their own"),
    }
}

/// All that is below `base`, and it, as it is read.
pub(crate) fn read_tree(nx: &blocking::Nexus, base: &str) -> Result<Tree, String> {
    let told = |error: nexus::Error| format!("it cannot be read: {error}");
    let mut tree = Tree::new();
    match nx.lstat(base) {
        Ok(found) if found.entry_type == EntryType::Dir => drop(tree.insert(base.into(), Node::Dir)),
        Ok(found) => return Err(format!("it is a {}", found.entry_type)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(tree),
        Err(error) => return Err(told(error)),
    }
    for entry in nx.walk(base) {
        let entry = entry.map_err(told)?;
        let found = nx.lstat(&entry.path).map_err(told)?;
        let node = match entry.entry_type {
            EntryType::Dir => Node::Dir,
            EntryType::Link => Node::Link(found.link_target.as_deref().unwrap_or_default().into()),
            EntryType::Reg => {
                let content = content(nx, &entry.path, found.size).map_err(told)?;
                if found.size != content.len() as u64 {
                    return Err(format!(
                        "{} has {} bytes and says {}",
                        entry.path,
                        content.len(),
                        found.size
                    ));
                }
                Node::File(content)
            }
            other => return Err(format!("{} is a {other}", entry.path)),
        };
        tree.insert(entry.path.as_str().into(), node);
    }
    Ok(tree)
}

fn content(nx: &blocking::Nexus, at: &VPath, size: u64) -> nexus::Result<Bytes> {
    if size < STREAM_FROM as u64 {
        return nx.read(at);
    }
    let pieces: Vec<Bytes> = nx.stream(at)?.collect::<nexus::Result<_>>()?;
    Ok(pieces.concat().into())
}
