//! The way of every call up to the path lock: resolve, route, gate, intercept.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use nexus_messages::syscall::{SysRead, Syscall, SyscallMessage};
use nexus_messages::{
    Caller, Durability, Effect, Error, ErrorKind, Event, HookContext, Lsn, Op, OpId, Outcome, Resolved,
    Result, VPath, ZoneId,
};

use super::limits::widened;
use super::locate::{Located, beyond_a_file, locate, route, straight};
use crate::dispatch::{ALL_TOLD, HookRefusal, OpSet, Passage, Shown, Wants};
use crate::gate::{Owner, Right};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::store::Announced;
use crate::sys;
use crate::volume::{Scales, Site};

/// A call as the way to the path lock sees it: one or two paths, with what each is needed for.
pub(crate) trait Admissible: SyscallMessage {
    /// The first path.
    fn path(&self) -> &VPath;

    /// The second path, of calls that have two.
    fn other(&self) -> Option<&VPath> {
        None
    }

    /// Puts a rewritten path in the place of the first or the second.
    fn rewrite(&mut self, which: Which, path: VPath);

    /// Whether a link at the end of the path is followed.
    fn follows(&self, which: Which) -> bool;

    /// What the caller must be allowed on the path; `exists` tells whether something is there.
    fn right(&self, which: Which, exists: bool) -> Right;

    /// The service that it replaces or removes, if it is such a call: that one's hooks do not see it. One that is broken could not be got rid of.
    fn ends(&self) -> Option<&str> {
        None
    }

    /// Whether the path is looked at as of before: what stands on the way now is of no matter.
    fn is_of_the_past(&self, which: Which) -> bool {
        let _ = which;
        false
    }

    /// Whether it finds under the lock all that is to be known of what is there, and has the path followed anew when that leads through a link.
    fn finds_by_itself(&self) -> bool {
        false
    }

    /// Refuses arguments that make no sense, before anything happens.
    fn validate(&self) -> Result<()> {
        Ok(())
    }
}

/// The paths of a call that has one.
macro_rules! one_path {
    () => {
        fn path(&self) -> &VPath {
            &self.path
        }

        fn rewrite(&mut self, _: Which, path: VPath) {
            self.path = path;
        }
    };
}

/// The paths of a call from somewhere to somewhere.
macro_rules! two_paths {
    () => {
        fn path(&self) -> &VPath {
            &self.from
        }

        fn other(&self) -> Option<&VPath> {
            Some(&self.to)
        }

        fn rewrite(&mut self, which: Which, path: VPath) {
            match which {
                Which::First => self.from = path,
                Which::Second => self.to = path,
            }
        }
    };
}

pub(super) use {one_path, two_paths};

/// One of the paths of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    First,
    Second,
}

/// When a call finds what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// As things are.
    Now,
    /// When others of its transaction were executed: a file on the way may be none by then.
    Later,
}

/// A call that may be executed, with its paths resolved.
pub(crate) struct Admitted<S> {
    pub(crate) call: S,
    pub(crate) first: Located,
    pub(crate) second: Option<Located>,
    hooked: Hooked,
}

/// The hooks that saw the call, for those that run afterwards, and what they were shown; none when no hook is concerned.
pub(crate) struct Hooked(Option<Arc<Seen>>);

struct Seen {
    passage: Passage,
    /// What the interceptors were shown: the call, or each operation of a transaction; nothing when there are only observers.
    shown: Vec<Shown>,
    /// What came of the call, once the interceptors are told.
    outcome: OnceLock<Outcome>,
    /// How many of them were told.
    told: AtomicUsize,
}

/// Takes `call` up to the path lock.
pub(crate) async fn admit<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: S,
    op_id: Option<OpId>,
) -> Result<Admitted<S>> {
    admit_streamed(kernel, caller, call, op_id, None).await
}

/// As [`admit`], of a call about which nobody is to be asked, and which finds by itself what is there. Any other is given back.
pub(super) fn admit_straight<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Caller,
    call: S,
) -> Result<Admitted<S>, S> {
    if !call.finds_by_itself() || wants::<S>(kernel).any() {
        return Err(call);
    }
    match straight(kernel, S::OP, &caller.zone, call.path()) {
        Some(first) => Ok(Admitted { call, first, second: None, hooked: Hooked(None) }),
        None => Err(call),
    }
}

/// The place of a plain file that is read, when nobody is to be asked whether it may be, or to see that it is.
pub(super) fn straight_to_read(kernel: &Kernel, caller: &Caller, call: &SysRead) -> Option<Site> {
    if kernel.gate().is_guarded() || wants::<SysRead>(kernel).any() || sys::serves(&call.path) {
        return None;
    }
    let mount = route(kernel, SysRead::OP, &caller.zone, &call.path).ok()?;
    mount.is_path_addressed().then(|| Site { mount, path: call.path.clone() })
}

/// As [`admit`], for a write that so many bytes have come for as a stream.
pub(super) async fn admit_streamed<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: S,
    op_id: Option<OpId>,
    stream: Option<u64>,
) -> Result<Admitted<S>> {
    let wants = wants::<S>(kernel);
    if wants.any() {
        return Box::pin(admit_hooked(kernel, caller, call, (op_id, stream), wants)).await;
    }
    let (first, second) = pass(kernel, caller, &call).await?;
    Ok(Admitted { call, first, second, hooked: Hooked(None) })
}

/// The hooks that a call of this kind may meet now.
fn wants<S: Admissible>(kernel: &Kernel) -> Wants {
    wants_of(kernel, [S::OP])
}

/// The hooks that calls of these kinds may meet now.
pub(super) fn wants_of(kernel: &Kernel, ops: impl IntoIterator<Item = Op>) -> Wants {
    let summary = kernel.dispatch().summary();
    let ops: OpSet = ops.into_iter().collect();
    Wants {
        ops: summary.intercepted(ops),
        resolvers: summary.has_resolvers(),
        observers: ops.meets(OpSet::MUTATIONS) && summary.has_any_observers(),
    }
}

async fn admit_hooked<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    mut call: S,
    (op_id, stream): (Option<OpId>, Option<u64>),
    wants: Wants,
) -> Result<Admitted<S>> {
    let entered = kernel.dispatch().enter(caller, wants).await;
    let mut passage = entered.map_err(|refusal| refused(S::OP, call.path(), refusal))?;
    if let Some(service) = call.ends() {
        passage.leave_out(service);
    }
    let rewritten = resolve_by(&mut passage, caller, &mut call, false).await?;
    let passed = pass(kernel, caller, &call).await;
    let mut hooked = Hooked::by(passage);
    if wants.ops.is_empty() {
        let (first, second) = passed?;
        return Ok(Admitted { call, first, second, hooked });
    }
    hooked.show(HookContext::new(caller.clone(), op_id, call.clone().into()).streamed(stream));
    let admitted = match passed {
        Ok(located) => intercept(kernel, caller, call, When::Now, rewritten, located, &mut hooked).await,
        Err(error) => Err(error),
    };
    match admitted {
        Ok((call, (first, second))) => Ok(Admitted { call, first, second, hooked }),
        Err(error) => {
            let refused = Err(error);
            hooked.after::<()>(&refused).await;
            refused.map(|()| unreachable!("it is an error"))
        }
    }
}

/// Shows the call, which is the last that is to be shown, to the interceptors. What they change is checked, routed and passed through the gate again; a path that they rewrite is
/// resolved again, once.
pub(super) async fn intercept<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: S,
    when: When,
    rewritten: bool,
    located: (Located, Option<Located>),
    hooked: &mut Hooked,
) -> Result<(S, (Located, Option<Located>))> {
    let refuse = |why: String| Error::new(S::OP, call.path(), ErrorKind::Refused).because(why);
    let shown: Syscall = call.clone().into();
    let Some((passage, shown_last)) = hooked.last() else { return Ok((call, located)) };
    let context = &mut shown_last.context;
    let (first, second) = (&located.0.site, located.1.as_ref().map(|second| &second.site));
    context.resolved = Some(Resolved {
        path: first.path.clone(),
        zone: first.mount.zone.clone(),
        other: second.map(|second| second.path.clone()),
        other_zone: second.map(|second| second.mount.zone.clone()),
    });
    passage.before(shown_last).await.map_err(|refusal| refused(S::OP, call.path(), refusal))?;
    let context = &mut shown_last.context;
    if context.call == shown {
        return Ok((call, located));
    }
    let changed = S::from_syscall(context.call.clone());
    let mut changed = changed.ok_or_else(|| refuse("a hook made it another call".into()))?;
    changed.validate()?;
    if let Some(limit) = widened(&shown, &context.call) {
        return Err(refuse(format!("a hook widened what bounds the call: its {limit}")));
    }
    if (changed.path(), changed.other()) != (call.path(), call.other()) {
        if rewritten {
            return Err(twice(S::OP, changed.path()));
        }
        resolve_by(passage, caller, &mut changed, true).await?;
        context.call = changed.clone().into();
    }
    let located = pass_when(kernel, caller, &changed, when).await?;
    Ok((changed, located))
}

/// Takes a call that makes its path one that is served, or that no longer is: there is nothing to route it to. Hooks may refuse it, and not
/// change it.
pub(crate) async fn admit_unrouted<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
) -> Result<Hooked> {
    let path = call.path();
    let passed = kernel.gate().pass(caller, call.right(Which::First, false), path, None).await;
    let passed =
        passed.map_err(|denied| Error::new(S::OP, path, ErrorKind::PermissionDenied).because(denied));
    let wants = Wants { resolvers: false, observers: false, ..wants::<S>(kernel) };
    if wants.ops.is_empty() {
        return passed.map(|()| Hooked(None));
    }
    let entered = kernel.dispatch().enter(caller, wants).await;
    let passage = entered.map_err(|refusal| refused(S::OP, path, refusal))?;
    let shown: Syscall = call.clone().into();
    let mut hooked = Hooked::by(passage);
    hooked.show(HookContext::new(caller.clone(), None, shown.clone()));
    let admitted = match passed {
        Ok(()) => show_unrouted(&mut hooked, &shown).await,
        Err(error) => Err(error),
    };
    if admitted.is_err() {
        hooked.after(&admitted).await;
    }
    admitted.map(|()| hooked)
}

async fn show_unrouted(hooked: &mut Hooked, shown: &Syscall) -> Result<()> {
    let Some((passage, shown_last)) = hooked.last() else { return Ok(()) };
    passage.before(shown_last).await.map_err(|refusal| refused(shown.op(), shown.path(), refusal))?;
    if shown_last.context.call != *shown {
        let refused = Error::new(shown.op(), shown.path(), ErrorKind::Refused);
        return Err(refused.because("a hook changed a call that hooks may only refuse"));
    }
    Ok(())
}

pub(super) fn refused(op: Op, path: &VPath, refusal: HookRefusal) -> Error {
    Error::new(op, path, refusal.kind()).because(refusal)
}

impl<S> Admitted<S> {
    /// Whether interceptors were shown where it leads.
    pub(crate) fn is_shown(&self) -> bool {
        self.hooked.is_shown()
    }

    /// One operation of a transaction, which is what the hooks have seen.
    pub(super) fn of_transaction(call: S, first: Located, second: Option<Located>) -> Self {
        Self { call, first, second, hooked: Hooked(None) }
    }

    /// The hooks that weigh what the call does, when there are any.
    pub(crate) fn scales(&self) -> Option<Arc<dyn Scales>> {
        self.hooked.scales()
    }

    /// Leaves the hooks that saw the call, because it is about to replace or remove one of their services. Nothing may weigh it.
    pub(crate) fn step_aside(&mut self) {
        if let Some(seen) = self.hooked.alone() {
            seen.passage.step_aside();
        }
    }

    /// Meets those again that are still there, to be told what came of the call.
    pub(crate) fn step_back(&mut self) {
        if let Some(seen) = self.hooked.alone() {
            seen.passage.step_back();
        }
    }

    /// Tells the hooks what came of the call.
    pub(crate) async fn after<T>(&self, result: &Result<T>) {
        self.hooked.after(result).await;
    }

    /// As [`after`](Self::after), of a call that was committed there.
    pub(crate) async fn after_at<T>(&self, result: &Result<T>, committed: Option<(ZoneId, Lsn)>) {
        self.hooked.after_at(result, committed).await;
    }

    /// As [`Hooked::observe`].
    pub(crate) async fn observe(&self, kernel: &Arc<Kernel>, told: Announced) {
        self.hooked.observe(kernel, told).await;
    }

    /// Apart, for a call that goes another way.
    pub(crate) fn into_hooked(self) -> Hooked {
        self.hooked
    }
}

impl Hooked {
    /// No hook is concerned.
    pub(super) const NONE: Self = Self(None);

    /// The hooks on this way, which were shown nothing yet.
    pub(super) fn by(passage: Passage) -> Self {
        Self(Some(Arc::new(Seen {
            passage,
            shown: Vec::new(),
            outcome: OnceLock::new(),
            told: AtomicUsize::new(0),
        })))
    }

    /// Says what the interceptors are to be shown next.
    pub(super) fn show(&mut self, context: HookContext) {
        if let Some(seen) = self.alone() {
            seen.shown.push(Shown::new(context));
        }
    }

    /// Whether interceptors were shown where it leads.
    pub(super) fn is_shown(&self) -> bool {
        self.0.as_ref().is_some_and(|seen| !seen.shown.is_empty())
    }

    /// The way through the hooks, before the call is executed.
    pub(super) fn passage(&mut self) -> Option<&mut Passage> {
        self.alone().map(|seen| &mut seen.passage)
    }

    fn last(&mut self) -> Option<(&mut Passage, &mut Shown)> {
        let seen = self.alone()?;
        Some((&mut seen.passage, seen.shown.last_mut()?))
    }

    /// What was seen, while nobody else holds it: before the call is executed.
    fn alone(&mut self) -> Option<&mut Seen> {
        self.0.as_mut().and_then(Arc::get_mut)
    }

    /// The hooks that weigh what the call does, when there are any.
    pub(super) fn scales(&self) -> Option<Arc<dyn Scales>> {
        let seen = self.0.as_ref()?;
        seen.passage.weighs(&seen.shown).then(|| seen.clone() as Arc<dyn Scales>)
    }

    /// Tells the observers of one commit: those that the call met from its beginning; or, when it is told later only, since it is not on disk yet or
    /// another one of its path comes before it, those that are there then.
    pub(super) async fn observe(&self, kernel: &Arc<Kernel>, told: Announced) {
        if !told.begin() {
            let telling = kernel.clone();
            told.put_off(move |events| {
                async move {
                    for event in &events {
                        telling.dispatch().tell(event).await;
                    }
                }
                .boxed()
            });
            return;
        }
        for event in told.events() {
            match &self.0 {
                Some(seen) => seen.passage.observe(event),
                None => kernel.dispatch().tell(event).await,
            }
        }
    }

    /// Tells the hooks that saw the call what came of it.
    pub(crate) async fn after<T>(&self, result: &Result<T>) {
        self.after_at(result, None).await;
    }

    /// As [`after`](Self::after), of a call that was committed there.
    pub(crate) async fn after_at<T>(&self, result: &Result<T>, committed: Option<(ZoneId, Lsn)>) {
        if let Some(Seen { passage, shown, outcome, told }) = self.0.as_deref() {
            let outcome = outcome.get_or_init(|| Outcome::of(result).committed(committed));
            passage.after(shown, outcome, told).await;
        }
    }
}

impl Scales for Seen {
    fn weigh(&self, effect: Effect) -> Result<()> {
        let Some(Shown { context, .. }) = self.shown.first() else { return Ok(()) };
        let weighed = self.passage.weigh(&self.shown, effect);
        let op = if self.shown.len() > 1 { Op::Tx } else { context.call.op() };
        weighed.map_err(|refusal| refused(op, context.call.path(), refusal))
    }

    fn committed(&self, lsn: Lsn) {
        self.passage.committed(lsn);
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Drop for Seen {
    /// The caller has gone before the call was executed: what a hook set aside for it is free again. Or before all hooks were told what came of it.
    fn drop(&mut self) {
        let Some(Shown { context, .. }) = self.shown.first() else { return };
        if let Some(outcome) = self.outcome.get() {
            let told = *self.told.get_mut();
            if told != ALL_TOLD {
                self.passage.rest(&self.shown, outcome, told);
            }
            return;
        }
        let gone = Error::new(context.call.op(), context.call.path(), ErrorKind::TimedOut);
        let gone = gone.because("its caller went away before it was executed");
        self.passage.gone(&self.shown, &Outcome::of::<()>(&Err(gone)));
    }
}

/// Lets the resolvers rewrite the paths, once.
pub(super) async fn resolve<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &mut S,
) -> Result<()> {
    if kernel.dispatch().summary().has_resolvers() {
        let wants = Wants { ops: OpSet::NONE, resolvers: true, observers: false };
        let entered = kernel.dispatch().enter(caller, wants).await;
        let mut passage = entered.map_err(|refusal| refused(S::OP, call.path(), refusal))?;
        resolve_by(&mut passage, caller, call, false).await?;
    }
    Ok(())
}

/// Lets the resolvers rewrite the paths, once; says whether they were rewritten.
pub(super) async fn resolve_by<S: Admissible>(
    passage: &mut Passage,
    caller: &Arc<Caller>,
    call: &mut S,
    mut rewritten: bool,
) -> Result<bool> {
    loop {
        let mut changed = false;
        for which in [Which::First, Which::Second] {
            let path = match which {
                Which::First => Some(call.path()),
                Which::Second => call.other(),
            };
            let Some(path) = path else { continue };
            let resolved = passage.resolve(caller, S::OP, path).await;
            let resolved = resolved.map_err(|refusal| refused(S::OP, path, refusal))?;
            if let Some(new) = resolved {
                call.rewrite(which, new);
                changed = true;
            }
        }
        match (changed, rewritten) {
            (false, _) => return Ok(rewritten),
            (true, true) => return Err(twice(S::OP, call.path())),
            (true, false) => rewritten = true,
        }
    }
}

/// Gives events of a commit on `mount` their place among what observers are told, under its locks: none when nobody is to be told.
pub(super) fn announce(
    kernel: &Kernel,
    mount: &Mount,
    durability: Durability,
    events: Vec<Event>,
) -> Option<Announced> {
    // What ends with the process waits for no disk.
    kernel.store().announce(mount.tree, durability == Durability::Volatile, events)
}

fn twice(op: Op, path: &VPath) -> Error {
    Error::new(op, path, ErrorKind::Refused).because("a rewritten path was rewritten again")
}

/// Routes the paths and asks the gate about what they lead to.
pub(crate) async fn pass<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
) -> Result<(Located, Option<Located>)> {
    pass_when(kernel, caller, call, When::Now).await
}

/// As [`pass`], for a call that is executed then.
pub(super) async fn pass_when<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
    when: When,
) -> Result<(Located, Option<Located>)> {
    let first = pass_one(kernel, caller, call, when, call.path(), Which::First).await?;
    let second = match call.other() {
        Some(path) => Some(pass_one(kernel, caller, call, when, path, Which::Second).await?),
        None => None,
    };
    Ok((first, second))
}

/// Whether what is on the way now keeps a path from leading anywhere.
fn leads_nowhere(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound | ErrorKind::TooManyLinks)
}

async fn pass_one<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
    when: When,
    path: &VPath,
    which: Which,
) -> Result<Located> {
    let found = match locate(kernel, S::OP, &caller.zone, path, call.follows(which)).await {
        Err(error) if when == When::Later && error.kind() == ErrorKind::NotADirectory => {
            beyond_a_file(kernel, S::OP, &caller.zone, path)?.ok_or(error)?
        }
        Err(error) if call.is_of_the_past(which) && leads_nowhere(&error) => {
            let site = Site { mount: route(kernel, S::OP, &caller.zone, path)?, path: path.clone() };
            Located { site, node: None, way: Vec::new() }
        }
        found => found?,
    };
    allow(kernel, caller, S::OP, call.right(which, found.node.is_some()), &found).await?;
    Ok(found)
}

/// Asks the gate whether `caller` has `right` on what was located.
pub(crate) async fn allow(
    kernel: &Kernel,
    caller: &Arc<Caller>,
    op: Op,
    right: Right,
    located: &Located,
) -> Result<()> {
    sys::permit(caller, op, right, &located.site.path)?;
    if !kernel.gate().is_guarded() {
        return Ok(());
    }
    let owner = located.node.as_ref().map(|node| Owner::from(&*node.metadata));
    let path = &located.site.path;
    let checked = kernel.gate().pass(caller, right, path, owner).await;
    checked.map_err(|denied| Error::new(op, path, ErrorKind::PermissionDenied).because(denied))
}
