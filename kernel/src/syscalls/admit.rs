//! The way of every call up to the path lock: resolve, route, gate, intercept.

use std::sync::Arc;

use nexus_messages::syscall::{Syscall, SyscallMessage};
use nexus_messages::{Caller, Error, ErrorKind, HookContext, Op, OpId, Outcome, Result, VPath};

use super::locate::{Located, locate};
use crate::dispatch::DispatchView;
use crate::gate::{Owner, Right};
use crate::kernel::Kernel;
use crate::sys;

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

/// A call that may be executed, with its paths resolved.
pub(crate) struct Admitted<S> {
    pub(crate) call: S,
    pub(crate) first: Located,
    pub(crate) second: Option<Located>,
    hooked: Hooked,
}

/// The hooks that saw the call, for those that run afterwards, and what they were shown; none when there are no hooks.
pub(crate) struct Hooked(Option<Box<(Arc<DispatchView>, HookContext)>>);

/// Takes `call` up to the path lock.
pub(crate) async fn admit<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    mut call: S,
    op_id: Option<OpId>,
) -> Result<Admitted<S>> {
    let rewritten = resolve(kernel, caller, &mut call, false)?;
    let (first, second) = pass(kernel, caller, &call).await?;
    if !kernel.dispatch().summary().has_interceptors(S::OP) {
        return Ok(Admitted { call, first, second, hooked: Hooked(None) });
    }
    Box::pin(intercept(kernel, caller, call, op_id, rewritten, (first, second))).await
}

/// Shows the call to the interceptors. What they change is checked, routed and passed through the gate again; a path that they rewrite is
/// resolved again, once.
async fn intercept<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: S,
    op_id: Option<OpId>,
    rewritten: bool,
    (mut first, mut second): (Located, Option<Located>),
) -> Result<Admitted<S>> {
    let refuse = |why: String| Error::new(S::OP, call.path(), ErrorKind::Refused).because(why);
    let shown: Syscall = call.clone().into();
    let mut hooked = show(kernel, caller, S::OP, op_id, &shown).await?;
    let context = &mut hooked.1;
    if context.call == shown {
        return Ok(Admitted { call, first, second, hooked: Hooked(Some(hooked)) });
    }
    let changed = S::from_syscall(context.call.clone());
    let mut changed = changed.ok_or_else(|| refuse("a hook made it another call".into()))?;
    changed.validate()?;
    if (changed.path(), changed.other()) != (call.path(), call.other()) {
        if rewritten {
            return Err(twice(S::OP, changed.path()));
        }
        resolve(kernel, caller, &mut changed, true)?;
        context.call = changed.clone().into();
    }
    (first, second) = pass(kernel, caller, &changed).await?;
    Ok(Admitted { call: changed, first, second, hooked: Hooked(Some(hooked)) })
}

/// Runs the interceptors that come before the call.
async fn show(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    op: Op,
    op_id: Option<OpId>,
    call: &Syscall,
) -> Result<Box<(Arc<DispatchView>, HookContext)>> {
    let context = HookContext::new(caller.clone(), op_id, call.clone());
    let mut hooked = Box::new((kernel.dispatch().view(), context));
    let (hooks, context) = &mut *hooked;
    let shown = hooks.before(context).await;
    shown.map_err(|refusal| Error::new(op, call.path(), refusal.kind()).because(refusal))?;
    Ok(hooked)
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
    passed.map_err(|denied| Error::new(S::OP, path, ErrorKind::PermissionDenied).because(denied))?;
    if !kernel.dispatch().summary().has_interceptors(S::OP) {
        return Ok(Hooked(None));
    }
    let shown: Syscall = call.clone().into();
    let hooked = show(kernel, caller, S::OP, None, &shown).await?;
    if hooked.1.call != shown {
        let refused = Error::new(S::OP, path, ErrorKind::Refused);
        return Err(refused.because("a hook changed a call that hooks may only refuse"));
    }
    Ok(Hooked(Some(hooked)))
}

impl<S> Admitted<S> {
    /// Tells the hooks what came of the call.
    pub(crate) async fn after<T>(&self, result: &Result<T>) {
        self.hooked.after(result).await;
    }

    /// Apart, for a call that goes another way.
    pub(crate) fn into_hooked(self) -> Hooked {
        self.hooked
    }
}

impl Hooked {
    /// Tells the hooks that saw the call what came of it.
    pub(crate) async fn after<T>(&self, result: &Result<T>) {
        if let Some((hooks, context)) = self.0.as_deref() {
            hooks.after(context, &Outcome::of(result)).await;
        }
    }
}

/// Lets the resolvers rewrite the paths, once; says whether they were rewritten.
pub(super) fn resolve<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &mut S,
    mut rewritten: bool,
) -> Result<bool> {
    if !kernel.dispatch().summary().has_resolvers() {
        return Ok(rewritten);
    }
    loop {
        let mut changed = false;
        for which in [Which::First, Which::Second] {
            let path = match which {
                Which::First => Some(call.path()),
                Which::Second => call.other(),
            };
            let Some(path) = path else { continue };
            let refused = |why: String| Error::new(S::OP, path, ErrorKind::Refused).because(why);
            if let Some(new) = kernel
                .dispatch()
                .view()
                .resolve(caller, path)
                .map_err(|refusal| refused(refusal.to_string()))?
            {
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

fn twice(op: Op, path: &VPath) -> Error {
    Error::new(op, path, ErrorKind::Refused).because("a rewritten path was rewritten again")
}

/// Routes the paths and asks the gate about what they lead to.
pub(crate) async fn pass<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
) -> Result<(Located, Option<Located>)> {
    let first = pass_one(kernel, caller, call, call.path(), Which::First).await?;
    let second = match call.other() {
        Some(path) => Some(pass_one(kernel, caller, call, path, Which::Second).await?),
        None => None,
    };
    Ok((first, second))
}

async fn pass_one<S: Admissible>(
    kernel: &Arc<Kernel>,
    caller: &Arc<Caller>,
    call: &S,
    path: &VPath,
    which: Which,
) -> Result<Located> {
    let found = locate(kernel, S::OP, &caller.zone, path, call.follows(which)).await?;
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
