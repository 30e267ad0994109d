//! Starting and stopping in the order of needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_actors::Ref;
use nexus_messages::syscall::ServiceSpec;
use nexus_messages::{Caller, ErrorKind, Result};
use nexus_supervisors::OrderError;

use super::change::{Role, cover, make, remembered, start, stop};
use super::messages::{Enlist, How, presence};
use super::table::Table;
use super::view::{Enlisted, error};
use super::{Chosen, Registry, enlist, list, refuse};
use crate::kernel::Kernel;
use crate::service::{Begin, Startup};

/// Starts what the metastore remembers, each after what it needs, and lists each when it serves: those after it may call it. Says how many
/// serve, and who needs whom.
pub(super) async fn all(kernel: Arc<Kernel>, me: Ref<Registry>, writer: u64) -> Result<(usize, Table)> {
    // Those that were started before the registry died of it, or are registered already.
    let listed = kernel.services().listed();
    let serving = listed.enlisted.values().map(|enlisted| enlisted.serving());
    let mut table = Table::of(serving.map(|version| (version.service.clone(), version.facts.clone())));
    let mut count = listed.enlisted.len();
    let absent = |name: &Arc<str>, spec: ServiceSpec, why: String| {
        let _ = list(&kernel, writer, |listed| drop(listed.absent.insert(name.clone(), (spec, why))));
    };
    let mut declared: BTreeMap<Arc<str>, (ServiceSpec, Chosen)> = BTreeMap::new();
    for (name, spec) in remembered(&kernel)? {
        if listed.enlisted.contains_key(&name) {
            continue;
        }
        let (_alive, gone) = presence();
        let caller = Arc::new(Caller::administrator());
        let ask = Enlist { name: name.clone(), spec: spec.clone(), caller, how: How::New, gone };
        match enlist::declare(&kernel, &ask) {
            Ok(chosen) => drop(declared.insert(name, (spec, chosen))),
            Err(why) => absent(&name, spec, cause(&why)),
        }
    }
    let facts = declared.iter().map(|(name, (_, (_, declared)))| (name.clone(), declared.facts.clone()));
    let order = Table::of(facts).order();
    for name in order {
        let Some((spec, chosen)) = declared.remove(&name) else { continue };
        match one(&kernel, &me, &name, &spec, chosen, &mut table).await {
            Ok(enlisted) => {
                count += 1;
                let _ = list(&kernel, writer, |listed| drop(listed.enlisted.insert(name, enlisted)));
            }
            Err(why) => {
                tracing::error!(service = %name, %why, "a service could not be started");
                table.remove(&name);
                absent(&name, spec, cause(&why));
            }
        }
    }
    Ok((count, table))
}

fn cause(why: &nexus_messages::Error) -> String {
    why.cause().unwrap_or(why.kind().describe()).to_owned()
}

async fn one(
    kernel: &Arc<Kernel>,
    me: &Ref<Registry>,
    name: &Arc<str>,
    spec: &ServiceSpec,
    chosen: Chosen,
    table: &mut Table,
) -> Result<Arc<Enlisted>> {
    table.begin(name, chosen.1.facts.clone()).map_err(|refused| refuse(name, refused))?;
    table.done(name);
    let made = make(kernel, me, name, spec, chosen, Role::FIRST);
    if kernel.service_children().which_children().iter().any(|child| *child.id == *made.generation.child_id) {
        // Started by an incarnation of the registry that died before it could list it.
        stop(kernel, &made.generation).await;
    }
    let enlisted = Enlisted::new(kernel.services(), made.generation.clone());
    let begun = match made.generation.facts.startup {
        Startup::Persistent => start(kernel, &made).await,
        Startup::OnDemand => {
            enlisted.keep_dormant(made.child.clone());
            Ok(())
        }
    };
    let begun = match begun {
        Ok(()) => cover(kernel, &enlisted).await,
        failed => failed,
    };
    if begun.is_err() {
        stop(kernel, &made.generation).await;
    }
    begun.map(|()| enlisted)
}

/// Starts a service at its first call, after those that it needs.
pub(super) async fn on_demand(kernel: Arc<Kernel>, name: Arc<str>) -> Result<()> {
    let Some(enlisted) = kernel.services().find(&name) else {
        return Err(error(&name, ErrorKind::NotFound));
    };
    // Those that come at the same time wait for the first one.
    let _turn = enlisted.starting.lock().await;
    let generation = enlisted.serving();
    if generation.is_started() {
        return Ok(());
    }
    for need in &generation.facts.needs {
        Box::pin(on_demand(kernel.clone(), need.service.clone())).await?;
    }
    let Some(child) = enlisted.dormant() else { return Ok(()) };
    match kernel.service_children().start_child(child).await {
        // Also when it was started for an incarnation of the registry that died before it could say so.
        Ok(_) | Err(OrderError::Exists(_)) => {}
        Err(why) => return Err(error(&name, ErrorKind::Crashed).because(why)),
    }
    if let Err(why) = Begin::of(&generation).await {
        stop(&kernel, &generation).await;
        return Err(super::change::not_fit(&generation, "its probe", &why));
    }
    generation.set_started(true);
    Ok(())
}

/// Stops these services, one after the other. What changes one of them comes to its end before; a trial ends at once.
pub(super) async fn stop_all(kernel: Arc<Kernel>, services: Vec<Arc<Enlisted>>) {
    for enlisted in services {
        if let Some(trial) = enlisted.trial() {
            trial.differs("the kernel is stopping");
        }
        enlisted.settled().await;
        for version in enlisted.versions() {
            stop(&kernel, &version).await;
        }
    }
}
