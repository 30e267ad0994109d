//! Registers services, starts them in the order of their needs, and puts one version in the place of another while they serve.
//!
//! Owns:       who needs whom, `table.rs`; the slots in which versions serve, published as they are, `view.rs`; their rows in the metastore.
//! Asks:       the dispatch, the services' supervisor, the committer, and the versions themselves.
//! On restart: takes the last published services, warm or cold: their actors are the supervisor's and went on. A change that was under way
//!             is undone by what it leaves behind, which keeps the name until then; its caller is told that the outcome is unknown. Probation goes
//!             on, and a version that broke on it is swapped back.
//! Bounds:     `SERVICES_MAX` services, one change of each at a time, `MAILBOX_MAX` messages.

mod admin;
mod census;
mod change;
mod enlist;
mod messages;
mod start;
mod status;
mod swap;
mod table;
mod view;

use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, CallError, Cx, ExitReason, Handle, Message, Reply, Start, Superseded};
use nexus_messages::{Error, ErrorKind, Result};

use change::Undo;
pub(crate) use messages::{
    Delist, Enlist, Enlistment, Exited, Gone, How, Left, StartAll, StartOnDemand, StopAll, presence,
};
pub use status::{ServiceState, ServiceStatus};
use table::{RegistryError, Table};
pub(crate) use view::{Active, Enlisted, Services, error, is_service_path, path_of};

use crate::kernel::Kernel;
use crate::service::{Declared, Facts};

/// The service registry.
pub(crate) struct Registry {
    kernel: Arc<Kernel>,
    table: Table,
    generation: u64,
    /// Whether the services of the boot are being started: nothing else changes which there are.
    starting: bool,
}

impl Behaviour for Registry {
    // Weak: the kernel holds a reference to this actor, which holds what it is started with.
    type Args = Weak<Kernel>;
    const NAME: &'static str = "registry";

    fn init(kernel: Weak<Kernel>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        let (generation, me) = (start.generation(), start.me().clone());
        async move {
            let kernel = kernel.upgrade().ok_or_else(|| ExitReason::Error("the kernel is gone".into()))?;
            let listed = kernel.services().claim(generation).map_err(ExitReason::error)?;
            let serving = listed.enlisted.values().map(|enlisted| enlisted.serving());
            let mut table =
                Table::of(serving.map(|version| (version.service.clone(), version.facts.clone())));
            for enlisted in listed.enlisted.values() {
                change::settle(&kernel, &me, enlisted);
                if enlisted.is_leaving() {
                    // Nobody takes its name before it has ended. Nobody needs it, or it would not be leaving.
                    let _ = table.begin_removal(&enlisted.name);
                }
                if let Some(number) = enlisted.has_reserve() {
                    swap::end_probation_later(&kernel, enlisted.clone(), number);
                    // The incarnation before may have died of the news, and the version waits for the one before it.
                    if let Some(reason) = enlisted.serving().broke() {
                        let _ = me.signal(Exited { name: enlisted.name.clone(), number, reason });
                    }
                }
            }
            Ok(Self { kernel, table, generation, starting: false })
        }
        .boxed_local()
    }
}

impl Registry {
    fn list(&self, change: impl FnOnce(&mut view::Listed)) -> Result<(), Superseded> {
        list(&self.kernel, self.generation, change)
    }

    /// Checks a new version against what is there, and holds its place. What the service declared before comes back.
    fn begin(&mut self, name: &Arc<str>, facts: Facts) -> Result<Option<Facts>> {
        self.check_started(name)?;
        self.table.begin(name, facts).map_err(|refused| refuse(name, refused))
    }

    fn check_started(&self, name: &str) -> Result<()> {
        match self.starting {
            true => Err(error(name, ErrorKind::Busy).because("the services of the boot are being started")),
            false => Ok(()),
        }
    }
}

impl Handle<Enlist> for Registry {
    fn handle(&mut self, m: Enlist, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<Enlistment>> {
        let name = m.name.clone();
        let there = self.kernel.services().find(&name);
        if there.as_ref().is_some_and(|there| there.is_changing()) {
            // Also of the same again: it may be about to be removed.
            return Reply::Now(Err(refuse(&name, RegistryError::Changing { name: name.clone() })));
        }
        if let Some(settled) = enlist::settled(&self.kernel, there.as_deref(), &m) {
            return Reply::Now(settled);
        }
        if there.is_none() && self.kernel.services().is_clearing(&name) {
            // What an incarnation before had begun under this name is being undone, by the number of a version that this one would have.
            return Reply::Now(Err(refuse(&name, RegistryError::Changing { name: name.clone() })));
        }
        let declared = match enlist::declare(&self.kernel, &m) {
            Ok(declared) => declared,
            Err(error) => return Reply::Now(Err(error)),
        };
        let before = match self.begin(&name, declared.1.facts.clone()) {
            Ok(before) => before,
            Err(error) => return Reply::Now(Err(error)),
        };
        let (kernel, me) = (self.kernel.clone(), cx.me().clone());
        match there {
            None => Reply::later_then(
                enlist::enlist(kernel, me, m, declared),
                move |me: &mut Self, _, done: Result<(Arc<Enlisted>, Enlistment, Undo)>| {
                    let (enlisted, enlistment, undo) = done.inspect_err(|_| me.table.undo(&name, before))?;
                    me.table.done(&name);
                    let listed = me.list(|listed| {
                        listed.absent.remove(&name);
                        listed.enlisted.insert(name.clone(), enlisted);
                    });
                    if let Err(ghost) = listed {
                        // Its caller has been told that nobody knows; what is not listed is undone.
                        return Err(error(&name, ErrorKind::Crashed).because(ghost).outcome_unknown());
                    }
                    undo.keep();
                    Ok(enlistment)
                },
            ),
            Some(enlisted) => {
                let change = enlisted.begin_change();
                let swapping = swap::swap(kernel, me, enlisted.clone(), m, declared);
                Reply::later_then(swapping, move |me: &mut Self, _, done: Result<Enlistment>| {
                    match &done {
                        Ok(_) => me.table.done(&name),
                        Err(error) => {
                            enlisted.swap_failed(error.to_string());
                            // It may have been published all the same.
                            me.table.undo(&name, Some(enlisted.serving().facts.clone()));
                        }
                    }
                    drop(change);
                    done
                })
            }
        }
    }
}

impl Handle<Delist> for Registry {
    fn handle(&mut self, m: Delist, _: &mut Cx<'_, Self>) -> Reply<Self, <Delist as Message>::Reply> {
        let name = m.name.clone();
        if let Err(error) = self.check_started(&name) {
            return Reply::Now(Err(error));
        }
        let listed = self.kernel.services().listed();
        let enlisted = listed.enlisted.get(&name).cloned();
        if enlisted.is_none() && listed.absent.contains_key(&name) {
            let kernel = self.kernel.clone();
            let forgetting = async move { change::forget_absent(&kernel, &m.name, &m.caller).await };
            return Reply::later_then(forgetting, move |me: &mut Self, _, done: Result<_>| {
                done.inspect(|_| {
                    let _ = me.list(|listed| drop(listed.absent.remove(&name)));
                })
            });
        }
        if enlisted.as_ref().is_some_and(|enlisted| enlisted.is_changing()) {
            return Reply::Now(Err(refuse(&name, RegistryError::Changing { name: name.clone() })));
        }
        if let Err(refused) = self.table.begin_removal(&name) {
            return Reply::Now(Err(refuse(&name, refused)));
        }
        let Some(enlisted) = enlisted else {
            self.table.remove(&name);
            return Reply::Now(Err(refuse(&name, RegistryError::Unknown { name: name.clone() })));
        };
        let change = enlisted.begin_change();
        let removing = enlist::delist(self.kernel.clone(), enlisted, m.caller);
        Reply::later_then(removing, move |me: &mut Self, _, done: Result<_>| {
            match &done {
                Ok(_) => {
                    me.table.remove(&name);
                    let _ = me.list(|listed| drop(listed.enlisted.remove(&name)));
                }
                Err(_) => me.table.done(&name),
            }
            drop(change);
            done
        })
    }
}

impl Handle<StartOnDemand> for Registry {
    fn handle(&mut self, m: StartOnDemand, _: &mut Cx<'_, Self>) -> Reply<Self, Result<()>> {
        Reply::later(start::on_demand(self.kernel.clone(), m.name))
    }
}

impl Handle<StartAll> for Registry {
    fn handle(&mut self, _: StartAll, cx: &mut Cx<'_, Self>) -> Reply<Self, Result<usize>> {
        self.starting = true;
        // Beside the mailbox: a service may take longer than a message may hold the registry, and may need one that is started at its first call.
        let starting = start::all(self.kernel.clone(), cx.me().clone(), self.generation);
        Reply::later_then(starting, |me: &mut Self, _, done: Result<(usize, Table)>| {
            me.starting = false;
            let (count, table) = done?;
            me.table = table;
            Ok(count)
        })
    }
}

impl Handle<StopAll> for Registry {
    fn handle(&mut self, _: StopAll, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let order = self.table.order();
        let listed = self.kernel.services().listed();
        let stopping: Vec<_> =
            order.iter().rev().filter_map(|name| listed.enlisted.get(name).cloned()).collect();
        // Later: changes that are under way come to their end meanwhile.
        Reply::later(start::stop_all(self.kernel.clone(), stopping))
    }
}

impl Handle<Exited> for Registry {
    fn handle(&mut self, m: Exited, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let Some(enlisted) = self.kernel.services().find(&m.name) else { return Reply::Now(()) };
        if let Some(trial) = enlisted.trial().filter(|trial| trial.generation.number == m.number) {
            trial.differs(format!("it ended: {}", m.reason));
        }
        let on_probation = enlisted.has_reserve() == Some(m.number) && enlisted.serving().is_on_probation();
        if !on_probation || !change::is_failure(&m.reason) {
            return Reply::Now(());
        }
        let (kernel, reason) = (self.kernel.clone(), m.reason);
        let change = enlisted.begin_change();
        Reply::later_then(
            swap::swap_back(kernel, enlisted, reason),
            move |me: &mut Self, _, done: Option<Facts>| {
                if let Some(facts) = done {
                    me.table.undo(&m.name, Some(facts));
                }
                drop(change);
            },
        )
    }
}

impl Handle<Left> for Registry {
    fn handle(&mut self, m: Left, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let name = m.enlisted.name.clone();
        let listed = self.kernel.services().listed();
        if listed.enlisted.get(&name).is_some_and(|listed| Arc::ptr_eq(listed, &m.enlisted)) {
            self.table.remove(&name);
            let _ = self.list(|listed| drop(listed.enlisted.remove(&name)));
        }
        Reply::Now(())
    }
}

/// Publishes the services, changed by `change`, as incarnation `writer` of the registry. Refused only for a ghost, whose successor has published.
fn list(kernel: &Kernel, writer: u64, change: impl FnOnce(&mut view::Listed)) -> Result<(), Superseded> {
    let mut listed = (*kernel.services().listed()).clone();
    change(&mut listed);
    kernel.services().publish(writer, listed)
}

/// What is declared by a factory of the catalogue, and the factory.
type Chosen = (Arc<dyn crate::service::ServiceFactory>, Declared);

fn refuse(name: &str, refused: RegistryError) -> Error {
    error(name, refused.kind()).because(refused)
}

/// What a caller is told of a registry that did not answer.
pub(crate) fn lost(name: &str, error: CallError) -> Error {
    let told = |kind| view::error(name, kind).because(error);
    match error {
        CallError::Busy => told(ErrorKind::Busy),
        CallError::Timeout => told(ErrorKind::TimedOut).outcome_unknown(),
        CallError::Crashed { .. } => told(ErrorKind::Crashed).outcome_unknown(),
        _ => told(ErrorKind::Down),
    }
}
