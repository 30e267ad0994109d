//! `SysTx`: several changes as one.
//!
//! Each operation goes the way of its own syscall: it is resolved, routed, passed through the gate and shown to the interceptors. Then all
//! paths are locked in one step, the operations are drawn up one after the other, each over what those before it have left, and what comes of it is one
//! entry in the log: one commit, one publication, one weighing.

use std::sync::Arc;

use nexus_messages::syscall::{
    Checked, Fence, Precondition, SysRename, SysSetattr, SysStat, SysTx, SysUnlink, SysWrite, Transacted,
    TxDone, TxOp,
};
use nexus_messages::{
    Caller, Consistency, Durability, EntryType, Error, ErrorKind, Event, HookContext, Message, OpId, Receipt,
    Result, Timestamp, VPath,
};

use super::Serve;
use super::admit::{
    Admissible, Admitted, Hooked, When, Which, announce, intercept, pass_when, refused, resolve_by, wants_of,
};
use super::locate::{ATTEMPTS_MAX, Located, is_served, route};
use super::mutate::{LOCK_WAIT_MAX, Mutation, before, fenced, look_again, writable};
use super::pipe;
use crate::advisory::Hold;
use crate::hal::{LogItem, Told, ToldEvent};
use crate::kernel::Kernel;
use crate::locks::{LockOwner, Mode, Scope};
use crate::mounts::{Mount, Naming};
use crate::owned::{Owned, Ownership};
use crate::store::Announced;
use crate::sys;
use crate::volume::{Intent, Site, Stop, Transaction, Volume, commit_error, logged, store_error};
use crate::watcher::told_by;

/// An operation that may be executed, with its paths resolved.
enum Item {
    Write(Admitted<SysWrite>),
    Setattr(Admitted<SysSetattr>),
    Rename(Admitted<SysRename>),
    Unlink(Admitted<SysUnlink>),
    /// A look, and what is expected to be found.
    Check(Admitted<SysStat>, Precondition),
}

macro_rules! each {
    ($item:expr, $admitted:ident => $do:expr) => {
        match $item {
            Item::Write($admitted) => $do,
            Item::Setattr($admitted) => $do,
            Item::Rename($admitted) => $do,
            Item::Unlink($admitted) => $do,
            Item::Check($admitted, _) => $do,
        }
    };
}

/// A transaction that may be executed.
struct Admission {
    items: Vec<Item>,
    hooked: Hooked,
    /// The lock under which all of it is made.
    fence: Option<Fence>,
}

/// What became of a transaction.
enum Done {
    /// It was done by this very call, and that is what to tell of it.
    Now(Transacted, Option<Announced>),
    /// It was done before, by a call with the same operation id.
    Before(Transacted),
}

impl Admission {
    /// Of the mounts that are changed the one whose acknowledgement promises most.
    fn strictest(&self, wanted: Option<Consistency>) -> Option<Arc<Mount>> {
        strictest(&self.items, wanted).cloned()
    }
}

fn strictest(items: &[Item], wanted: Option<Consistency>) -> Option<&Arc<Mount>> {
    let changes = items.iter().filter(|item| !matches!(item, Item::Check(..)));
    let mounts = changes.flat_map(Item::sites).map(|site| &site.mount);
    mounts.max_by_key(|mount| promise(&mount.durability(wanted)))
}

/// The more is promised, the higher.
fn promise(durability: &Durability) -> u8 {
    match durability {
        Durability::Strong => 2,
        Durability::Eventual => 1,
        _ => 0,
    }
}

impl Serve for SysTx {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Transacted> {
        self.validate()?;
        let client = self.op_id;
        let op_id = client.unwrap_or_else(|| kernel.new_op_id());
        let first = self.ops.first().map_or_else(VPath::root, |op| op.path().clone());
        let passing = kernel.underway().begin(op_id, caller, Self::OP, &first);
        if client.is_some()
            && let Some(first) = self.ops.first()
        {
            // What it did then may stand in its own way now: a directory that it made a file, say.
            let before = kernel.store().metastore().outcome(op_id);
            if let Some((tree, lsn)) = before.map_err(|error| store_error(Self::OP, first.path(), &error))? {
                let mounts = self.ops.iter().map(|op| route(kernel, Self::OP, &caller.zone, op.path()));
                let durability = mounts.flatten().map(|mount| mount.durability(self.consistency));
                let durability = durability.max_by_key(promise).unwrap_or(Durability::Strong);
                if durability == Durability::Strong
                    && let Err(error) = kernel.store().make_durable(tree, lsn).await
                {
                    let error = commit_error(Self::OP, first.path(), &error).failed();
                    let error = error.unwrap_or_else(|| Error::global(Self::OP, ErrorKind::Busy));
                    // It was executed, and may stay so.
                    return Err(error.outcome_unknown().of_operation(op_id));
                }
                return Ok(Transacted::before(Receipt::new(op_id, lsn, durability)));
            }
        }
        let mut admission = admit_all(kernel, caller, self.ops, op_id).await?;
        admission.fence = self.fence;
        let intent = Intent {
            caller: caller.clone(),
            op: Self::OP,
            op_id,
            repeatable: client.is_some(),
            consistency: self.consistency,
            at: Timestamp(kernel.env().wall()),
            scales: admission.hooked.scales(),
            staged: None,
            within: None,
            at_once: false,
            held: None,
            is_untold: false,
        };
        let (env, kernel) = (kernel.env().clone(), kernel.clone());
        let executed = |ownership| async move {
            let done = execute(kernel, intent, admission, ownership).await;
            passing.ends(done)
        };
        Owned::new(&env, <Self as Message>::NAME, executed).await
    }
}

/// Takes the operations up to the path lock.
async fn admit_all(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    ops: Vec<TxOp>,
    op_id: OpId,
) -> Result<Admission> {
    let wants = wants_of(kernel, ops.iter().map(TxOp::op));
    let mut hooked = Hooked::NONE;
    if wants.any() {
        // One way for all: they meet the hooks of one version of each service.
        let entered = kernel.dispatch().enter(caller, wants).await;
        let first = ops.first().map_or_else(VPath::root, |op| op.path().clone());
        hooked = Hooked::by(entered.map_err(|refusal| refused(SysTx::OP, &first, refusal))?);
    }
    let mut items = Vec::with_capacity(ops.len());
    for (index, op) in ops.into_iter().enumerate() {
        let shown = wants.ops.contains(op.op()).then_some(op_id);
        let when = if index == 0 { When::Now } else { When::Later };
        let admitted = match op {
            TxOp::Write(call) => match pipe::check_not_meant(SysWrite::OP, &call.path, call.pipe) {
                Ok(()) => admit_one(kernel, caller, call, when, shown, &mut hooked).await.map(Item::Write),
                Err(error) => Err(error),
            },
            TxOp::Setattr(call) => {
                admit_one(kernel, caller, call, when, shown, &mut hooked).await.map(Item::Setattr)
            }
            TxOp::Rename(call) => {
                admit_one(kernel, caller, call, when, shown, &mut hooked).await.map(Item::Rename)
            }
            TxOp::Unlink(call) => {
                admit_one(kernel, caller, call, when, shown, &mut hooked).await.map(Item::Unlink)
            }
            TxOp::Check(check) => {
                let look = SysStat::at(check.path);
                let admitted = admit_one(kernel, caller, look, when, shown, &mut hooked).await;
                admitted.map(|admitted| Item::Check(admitted, check.precondition))
            }
            other => Err(Error::new(other.op(), other.path(), ErrorKind::NotSupported)),
        };
        match admitted.map_err(|error| error.at_item(index)) {
            Ok(item) => items.push(item),
            Err(error) => {
                let refused = Err(error);
                hooked.after::<()>(&refused).await;
                return refused.map(|()| unreachable!("it is an error"));
            }
        }
    }
    Ok(Admission { items, hooked, fence: None })
}

async fn admit_one<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    mut call: S,
    when: When,
    shown: Option<OpId>,
    hooked: &mut Hooked,
) -> Result<Admitted<S>> {
    call.validate()?;
    let rewritten = match hooked.passage() {
        Some(passage) => Box::pin(resolve_by(passage, caller, &mut call, false)).await?,
        None => false,
    };
    let Some(op_id) = shown else {
        let (first, second) = pass_when(kernel, caller, &call, when).await?;
        return Ok(Admitted::of_transaction(call, first, second));
    };
    hooked.show(HookContext::new(caller.clone(), Some(op_id), call.clone().into()));
    let located = pass_when(kernel, caller, &call, when).await?;
    let intercepted = Box::pin(intercept(kernel, caller, call, when, rewritten, located, hooked));
    let (call, (first, second)) = intercepted.await?;
    Ok(Admitted::of_transaction(call, first, second))
}

async fn execute(
    kernel: Arc<Kernel>,
    mut intent: Intent,
    mut admission: Admission,
    ownership: Ownership,
) -> Result<Transacted> {
    let done = attempt(&kernel, &mut intent, &mut admission, &ownership).await;
    let mut committed = None;
    let (done, told) = match done {
        Ok(Done::Now(done, told)) => {
            let zone = admission.items.first().map(|item| &item.first().site.mount.zone);
            committed = zone.and_then(|zone| done.receipt.place_in(zone));
            (Ok(done), told)
        }
        Ok(Done::Before(done)) => (Ok(done), None),
        Err(error) => (Err(error), None),
    };
    admission.hooked.after_at(&done, committed).await;
    if let Some(told) = told {
        admission.hooked.observe(&kernel, told).await;
    }
    done
}

async fn attempt(
    kernel: &Arc<Kernel>,
    intent: &mut Intent,
    admission: &mut Admission,
    ownership: &Ownership,
) -> Result<Done> {
    for _ in 0..ATTEMPTS_MAX {
        let items = &mut admission.items;
        let together = one_tree(intent, items)?;
        // Dropped after the guards: watchers are told when the locks are gone.
        let holding = kernel.watches().hold();
        intent.held = holding.held();
        let owner = LockOwner { agent: intent.caller.agent.clone(), since: intent.at };
        let waited = kernel.env().timeout(LOCK_WAIT_MAX, kernel.locks().lock_all(claims(items), owner)).await;
        let Ok(guards) = waited else {
            let error = Error::new(intent.op, &together.path, ErrorKind::TimedOut);
            return Err(error.because(format!("others hold a path for over {LOCK_WAIT_MAX:?}")));
        };

        ownership.take();
        // Under the lock, so that of two changes of one path the later one has the later time.
        intent.at = Timestamp(kernel.env().wall());
        if let Some(receipt) = before(kernel, intent, &together).await? {
            return Ok(Done::Before(Transacted::before(receipt)));
        }
        let fence =
            fenced(kernel, &intent.caller, (intent.op, &together.path), admission.fence.as_ref()).await?;
        let mut fences: Vec<Hold> = fence.into_iter().collect();
        for (index, item) in items.iter().enumerate() {
            let at = (intent.op, &item.first().site.path);
            let fence = fenced(kernel, &intent.caller, at, item.fence()).await;
            fences.extend(fence.map_err(|error| error.at_item(index))?);
        }
        let zone = &intent.caller.zone;
        let served = items.iter().flat_map(Item::sites).all(|site| is_served(kernel, zone, site));
        let stopped = match served {
            true => run(kernel, intent, items, &together).await,
            false => Err(Stop::Again),
        };
        let stopped = stopped.map(|(done, events)| {
            let mount = admission.strictest(intent.consistency);
            let told = mount
                .and_then(|mount| announce(kernel, &mount, mount.durability(intent.consistency), events));
            (done, told)
        });
        drop(guards);
        match stopped {
            Ok((done, told)) => return Ok(Done::Now(done, told)),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Again) => {
                ownership.give_back();
                locate_again(kernel, intent, admission).await?;
            }
        }
    }
    let path = admission.items.first().map_or_else(VPath::root, |item| item.first().site.path.clone());
    let error = Error::new(intent.op, &path, ErrorKind::Busy);
    Err(error.because(format!("it changed under the call {ATTEMPTS_MAX} times in a row")))
}

/// Resolves the paths once more. Where interceptors were shown where they lead, they must lead there still.
async fn locate_again(kernel: &Arc<Kernel>, intent: &Intent, admission: &mut Admission) -> Result<()> {
    let shown = admission.hooked.is_shown();
    for (index, item) in admission.items.iter_mut().enumerate() {
        let led: Vec<VPath> = item.sites().map(|site| site.path.clone()).collect();
        let when = if index == 0 { When::Now } else { When::Later };
        let located =
            each!(&*item, admitted => pass_when(kernel, &intent.caller, &admitted.call, when).await);
        let (first, second) = located.map_err(|error| error.at_item(index))?;
        each!(&mut *item, admitted => (admitted.first, admitted.second) = (first, second));
        if shown && !item.sites().map(|site| &site.path).eq(&led) {
            let error = Error::new(intent.op, &item.first().site.path, ErrorKind::Busy).at_item(index);
            return Err(error.because("a link leads elsewhere since hooks were asked: not executed"));
        }
    }
    Ok(())
}

/// Refuses what cannot be one commit: paths of two trees, or of mounts that keep their files elsewhere. Gives the first path.
fn one_tree(intent: &Intent, items: &[Item]) -> Result<Site> {
    let mut first: Option<&Site> = None;
    for (index, item) in items.iter().enumerate() {
        let intent = Intent { op: item.op(), ..intent.clone() };
        for site in item.sites() {
            let elsewhere = if sys::serves(&site.path) {
                Some("the kernel's own files are not changed by a transaction".to_owned())
            } else if site.mount.is_path_addressed() {
                Some(format!("the mount {} keeps its files elsewhere", site.mount.point))
            } else {
                let other = first.filter(|first| first.mount.tree != site.mount.tree);
                other.map(|first| format!("it is of another zone than {}", first.path))
            };
            if let Some(why) = elsewhere {
                let error = Error::new(intent.op, &site.path, ErrorKind::CrossMount);
                return Err(error.because(why).at_item(index));
            }
            if item.mode() == Mode::Write {
                writable(&intent, site).map_err(|error| error.at_item(index))?;
            }
            first = first.or(Some(site));
        }
    }
    first.cloned().ok_or_else(|| Error::global(intent.op, ErrorKind::InvalidArgument))
}

fn claims(items: &[Item]) -> Vec<(VPath, Mode, Scope)> {
    let claims = |item: &Item| {
        let (mode, scope) = (item.mode(), item.scope());
        item.sites().map(|site| (site.path.clone(), mode, scope)).collect::<Vec<_>>()
    };
    items.iter().flat_map(claims).collect()
}

/// Draws the operations up and commits them, with the locks held.
async fn run(
    kernel: &Arc<Kernel>,
    intent: &Intent,
    items: &mut [Item],
    together: &Site,
) -> Result<(Transacted, Vec<Event>), Stop> {
    let transaction = Arc::new(Transaction::new(&together.mount));
    let mut results = Vec::with_capacity(items.len());
    for index in 0..items.len() {
        let (before, rest) = items.split_at_mut(index);
        let Some(item) = rest.first_mut() else { break };
        let intent = Intent { op: item.op(), within: Some(transaction.clone()), ..intent.clone() };
        let drawn = draw_up(kernel, &intent, before, item, &transaction).await;
        results.push(drawn.map_err(|stop| match stop {
            Stop::Failed(error) => Stop::Failed(error.at_item(index)),
            Stop::Again => Stop::Again,
        })?);
    }
    let logged = items.iter().filter_map(Item::logged).collect();
    let told = told(intent, items, &results);
    let mount = strictest(items, intent.consistency).unwrap_or(&together.mount);
    let changed = items.iter().filter(|item| item.mode() == Mode::Write);
    let names = changed.flat_map(|item| {
        let deep = item.scope() == Scope::Subtree;
        item.sites().map(move |site| (&*site.mount, &site.path, deep))
    });
    // Until it is committed, or is not, and no longer than the locks.
    let naming = Naming::of(names);
    let receipt = transaction.commit(kernel, together, intent, mount, logged, told).await?;
    drop(naming);
    let done = Transacted::new(results, receipt);
    let told = kernel.dispatch().summary().has_any_observers();
    let events = items.iter().zip(&done.results).filter(|_| told);
    let events = events.filter_map(|(item, done)| item.event(intent, done)).collect();
    Ok((done, events))
}

/// What the log keeps for those who watch: for each operation that is in it, what observers are told.
fn told(intent: &Intent, items: &[Item], results: &[TxDone]) -> Arc<Told> {
    let logged = items.iter().zip(results).filter(|(item, _)| item.mode() == Mode::Write);
    let events = logged.map(|(item, done)| {
        let Event { kind, entry_type, size, content_id, version, generation, is_new, .. } =
            item.event(intent, done)?;
        let owner = item.owner(done).unwrap_or_else(|| intent.caller.agent.clone());
        Some(ToldEvent { kind, entry_type, size, content_id, version, generation, is_new, owner })
    });
    told_by(&intent.caller, events.collect())
}

async fn draw_up(
    kernel: &Arc<Kernel>,
    intent: &Intent,
    before: &[Item],
    item: &mut Item,
    transaction: &Transaction,
) -> Result<TxDone, Stop> {
    for step in item.way() {
        if let Some(before) = before.iter().find(|before| before.changes(step)) {
            let error = Error::new(intent.op, &item.first().site.path, ErrorKind::NotSupported);
            let why =
                format!("a link leads to it by way of {step}, and {} before it changes that", before.op());
            return Err(error.because(why).into());
        }
    }
    // What those before it have left.
    each!(&mut *item, admitted => look_again(kernel, intent, admitted).await)?;
    match item.run(kernel, intent).await {
        // Behind a link that nobody follows nothing is found, either.
        Err(stop) if stop.may_be_of_a_link() => {
            for site in item.sites() {
                let brought = transaction.brought_link(kernel, site);
                if brought.map_err(|error| store_error(intent.op, &site.path, &error))? {
                    let error = Error::new(intent.op, &site.path, ErrorKind::NotSupported);
                    let why = "a link that the transaction makes or moves is not followed by it";
                    return Err(error.because(why).into());
                }
            }
            Err(stop)
        }
        other => other,
    }
}

impl Item {
    fn fence(&self) -> Option<&Fence> {
        match self {
            Self::Write(admitted) => admitted.call.fence.as_ref(),
            Self::Setattr(admitted) => admitted.call.fence.as_ref(),
            Self::Rename(admitted) => admitted.call.fence.as_ref(),
            Self::Unlink(admitted) => admitted.call.fence.as_ref(),
            Self::Check(..) => None,
        }
    }

    fn op(&self) -> nexus_messages::Op {
        match self {
            Self::Write(_) => SysWrite::OP,
            Self::Setattr(_) => SysSetattr::OP,
            Self::Rename(_) => SysRename::OP,
            Self::Unlink(_) => SysUnlink::OP,
            Self::Check(..) => SysStat::OP,
        }
    }

    fn first(&self) -> &Located {
        each!(self, admitted => &admitted.first)
    }

    fn located(&self, which: Which) -> Option<&Located> {
        each!(self, admitted => match which {
            Which::First => Some(&admitted.first),
            Which::Second => admitted.second.as_ref(),
        })
    }

    fn both(&self) -> impl Iterator<Item = &Located> {
        [Which::First, Which::Second].into_iter().filter_map(|which| self.located(which))
    }

    fn sites(&self) -> impl Iterator<Item = &Site> {
        self.both().map(|located| &located.site)
    }

    /// What its paths are only reached by while it is as it was, on account of links.
    fn way(&self) -> impl Iterator<Item = &VPath> {
        self.both().flat_map(|located| &located.way)
    }

    /// Whether what is at `path`, or on the way to it, is another thing after this operation, which was drawn up. A directory where nothing was is
    /// what a way needs.
    fn changes(&self, path: &VPath) -> bool {
        match self {
            Self::Rename(_) | Self::Unlink(_) => self.sites().any(|site| path.is_within(&site.path)),
            Self::Write(admitted) => admitted.first.site.path == *path,
            Self::Setattr(admitted) => {
                let made = admitted.first.node.is_none() && admitted.call.entry_type != Some(EntryType::Dir);
                made && admitted.first.site.path == *path
            }
            Self::Check(..) => false,
        }
    }

    /// Whether all below its paths is locked with them. What an operation before it has brought there may be a directory: with what is no directory now,
    /// and is one under the lock, nothing is lost but others' time.
    fn scope(&self) -> Scope {
        match self {
            Self::Rename(_) | Self::Unlink(_) => Scope::Subtree,
            Self::Write(_) | Self::Setattr(_) | Self::Check(..) => Scope::Entry,
        }
    }

    /// How its paths are locked.
    fn mode(&self) -> Mode {
        if matches!(self, Self::Check(..)) { Mode::Read } else { Mode::Write }
    }

    /// As the log keeps it; what changes nothing is not in it.
    fn logged(&self) -> Option<LogItem> {
        let other = self.located(Which::Second).map(|second| &second.site.path);
        (self.mode() == Mode::Write).then(|| logged(self.op(), &self.first().site.path, other))
    }

    async fn run(&self, kernel: &Arc<Kernel>, intent: &Intent) -> Result<TxDone, Stop> {
        match self {
            Self::Write(admitted) => SysWrite::run(kernel, intent, admitted).await.map(TxDone::Write),
            Self::Setattr(admitted) => SysSetattr::run(kernel, intent, admitted).await.map(TxDone::Setattr),
            Self::Rename(admitted) => SysRename::run(kernel, intent, admitted).await.map(TxDone::Rename),
            Self::Unlink(admitted) => SysUnlink::run(kernel, intent, admitted).await.map(TxDone::Unlink),
            Self::Check(admitted, expected) => {
                let site = &admitted.first.site;
                let Volume::Rows(volume) = Volume::to_change(kernel, site, intent) else {
                    return Err(Stop::Again);
                };
                volume.check(site, intent, expected).map(|found| TxDone::Check(Checked::new(found)))
            }
        }
    }

    /// Who owns the entry that it changed, or owned the one that it removed.
    fn owner(&self, done: &TxDone) -> Option<Arc<str>> {
        let metadata = match done {
            TxDone::Write(done) => &done.metadata,
            TxDone::Setattr(done) => &done.metadata,
            TxDone::Rename(done) => &done.metadata,
            _ => &self.first().node.as_ref()?.metadata,
        };
        Some(metadata.owner.clone())
    }

    /// What observers are told of it.
    fn event(&self, intent: &Intent, done: &TxDone) -> Option<Event> {
        match (self, done) {
            (Self::Write(admitted), TxDone::Write(done)) => SysWrite::event(intent, admitted, done),
            (Self::Setattr(admitted), TxDone::Setattr(done)) => SysSetattr::event(intent, admitted, done),
            (Self::Rename(admitted), TxDone::Rename(done)) => SysRename::event(intent, admitted, done),
            (Self::Unlink(admitted), TxDone::Unlink(done)) => SysUnlink::event(intent, admitted, done),
            _ => None,
        }
    }
}
