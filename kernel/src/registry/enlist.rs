//! Registering and removing: declare, start, show the hooks, remember; and back.

use std::sync::Arc;

use nexus_actors::Ref;
use nexus_messages::{Caller, Durability, ErrorKind, Receipt, Result};

use super::change::{Role, Undo, cover, end, forget, make, remember, remember_serving, start};
use super::messages::{Enlist, Enlistment, How};
use super::view::{Enlisted, error};
use super::{Chosen, Registry, RegistryError, refuse};
use crate::hal::TreeId;
use crate::kernel::Kernel;
use crate::service::Startup;

/// The answer to a registration that changes nothing, or cannot be one.
pub(super) fn settled(kernel: &Kernel, there: Option<&Enlisted>, m: &Enlist) -> Option<Result<Enlistment>> {
    let Some(there) = there else {
        let unknown = RegistryError::Unknown { name: m.name.clone() };
        return (m.how == How::Swap).then(|| Err(refuse(&m.name, unknown)));
    };
    let spec = there.serving().spec.clone();
    let same = spec.factory == m.spec.factory && same_config(&spec.config, &m.spec.config);
    match m.how {
        How::New | How::Either if same => Some(unchanged(kernel, &m.name)),
        How::New => {
            let taken = RegistryError::Taken { factory: spec.factory };
            Some(Err(refuse(&m.name, taken)))
        }
        _ => None,
    }
}

/// Whether two configurations are the same JSON, however they are written.
fn same_config(a: &str, b: &str) -> bool {
    let read = |text: &str| match text.trim() {
        // All defaults.
        "" | "null" => Some(serde_json::json!({})),
        text => serde_json::from_str::<serde_json::Value>(text).ok(),
    };
    a.trim() == b.trim() || read(a).is_some_and(|a| Some(a) == read(b))
}

fn unchanged(kernel: &Kernel, name: &str) -> Result<Enlistment> {
    let lsn = kernel.store().last_lsn(TreeId::ROOT).map_err(|why| error(name, why.kind()).because(why))?;
    let receipt = Receipt::new(kernel.new_op_id(), lsn, Durability::Strong);
    Ok(Enlistment { created: false, swapped: None, receipt })
}

/// What the factory declares of the service with this configuration.
pub(super) fn declare(kernel: &Kernel, m: &Enlist) -> Result<Chosen> {
    let refused = |why: String| error(&m.name, ErrorKind::InvalidArgument).because(why);
    let factory = kernel.service_catalogue().get(&m.spec.factory).map_err(refused)?;
    let declared = factory.declare(&m.spec.config);
    let declared = declared.map_err(|why| refused(format!("{:?}: {why}", m.spec.factory)))?;
    Ok((factory, declared))
}

/// Starts a service that was not there. It is registered when it is listed; until then it is to be undone.
pub(super) async fn enlist(
    kernel: Arc<Kernel>,
    me: Ref<Registry>,
    m: Enlist,
    chosen: Chosen,
) -> Result<(Arc<Enlisted>, Enlistment, Undo)> {
    let made = make(&kernel, &me, &m.name, &m.spec, chosen, Role::FIRST);
    let enlisted = Enlisted::new(kernel.services(), made.generation.clone());
    let undo = Undo::service(&kernel, &enlisted);
    let begun = async {
        match made.generation.facts.startup {
            Startup::Persistent => start(&kernel, &made).await?,
            Startup::OnDemand => enlisted.keep_dormant(made.child.clone()),
        }
        // Remembered before its hooks stand in anybody's way: what is refused by the store was never there.
        let receipt = remember(&kernel, &enlisted, &m.spec, &m.caller).await?;
        cover(&kernel, &enlisted).await?;
        Ok(receipt)
    };
    match begun.await {
        Ok(receipt) => Ok((enlisted, Enlistment { created: true, swapped: None, receipt }, undo)),
        Err(error) => {
            undo.now().await;
            Err(error)
        }
    }
}

/// Removes a service: from the next call on nobody finds it or meets its hooks, and it is not started again. Then its calls end, and it.
pub(super) async fn delist(
    kernel: Arc<Kernel>,
    enlisted: Arc<Enlisted>,
    caller: Arc<Caller>,
) -> Result<Receipt> {
    let receipt = match forget(&kernel, &enlisted, &caller).await {
        Ok(receipt) => receipt,
        Err(refused) => {
            // It stays. So it is to be there after the next boot as well, should it be forgotten all the same.
            if let Err(why) = remember_serving(&kernel, &enlisted).await {
                tracing::error!(service = %enlisted.name, %why, "whether the next boot starts it is not known");
            }
            return Err(refused);
        }
    };
    enlisted.leave();
    if let Err(why) = cover(&kernel, &enlisted).await {
        // It is forgotten, and cannot be there any more: its hooks meet calls until the next boot at the latest.
        tracing::error!(service = %enlisted.name, %why, "hooks of a service that was removed are still listed");
    }
    end(&kernel, &enlisted).await;
    Ok(receipt)
}
