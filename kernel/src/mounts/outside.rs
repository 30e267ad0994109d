//! What others change in what a driver serves by its paths, told to watchers and observers.

use std::sync::{Arc, Weak};

use nexus_actors::Env;
use nexus_messages::{Caller, EntryType, Event, EventKind, OpId, Timestamp};

use super::mount::Mount;
use crate::hal::{Addressing, ObjectStore, OutsideChange, OutsideChanges, StoreError};
use crate::kernel::Kernel;

/// Tells of an event. Without the kernel in its type, in which all of this is.
pub(super) type Announce = Arc<dyn Fn(Event) + Send + Sync>;

/// The way to those who hear of what happens in `kernel`, for as long as it is there.
pub(super) fn announce(kernel: &Arc<Kernel>) -> Announce {
    let kernel = Arc::downgrade(kernel);
    Arc::new(move |mut event| {
        if let Some(kernel) = kernel.upgrade() {
            event.at = Timestamp(kernel.env().wall());
            kernel.announce(event);
        }
    })
}

/// Tells of what others change in what `driver` serves, for as long as it is there. Does not keep it.
pub(super) fn listen(env: &Env, driver: Weak<dyn ObjectStore>, mount: &Weak<Mount>, announce: &Announce) {
    let (mount, announce) = (mount.clone(), announce.clone());
    env.spawn("mount.outside", async move {
        let changes = match changes(driver).await {
            Ok(Some(changes)) => changes,
            Ok(None) => return,
            Err(error) => return unheard(&mount, &error),
        };
        if let Err(error) = tell(changes, &mount, &announce).await {
            unheard(&mount, &error);
        }
    });
}

async fn changes(driver: Weak<dyn ObjectStore>) -> Result<Option<Box<dyn OutsideChanges>>, StoreError> {
    let Some(driver) = driver.upgrade() else { return Ok(None) };
    match driver.addressing() {
        Addressing::Path(store) => store.outside().await,
        Addressing::Content(_) => Ok(None),
    }
}

fn unheard(mount: &Weak<Mount>, error: &StoreError) {
    let point = mount.upgrade().map(|mount| mount.point.to_string()).unwrap_or_default();
    tracing::warn!(mount = %point, %error, "what others change there is not noticed");
}

async fn tell(
    mut changes: Box<dyn OutsideChanges>,
    mount: &Weak<Mount>,
    announce: &Announce,
) -> Result<(), StoreError> {
    while let Some(change) = changes.next().await? {
        let Some(mount) = mount.upgrade() else { return Ok(()) };
        if let Some(event) = event(&mount, change) {
            announce(event);
        }
    }
    Ok(())
}

/// None when no path of the kernel's leads there.
fn event(mount: &Mount, change: OutsideChange) -> Option<Event> {
    // The kernel's name is nobody else's: who did it is not known.
    let caller = Arc::new(Caller::agent(Caller::KERNEL, mount.zone.clone()));
    let bare = |kind, path, entry_type| Event::new(kind, path, entry_type, caller, OpId(0));
    match change {
        OutsideChange::Missed => Some(bare(EventKind::ChangedOutside, mount.point.clone(), EntryType::Dir)),
        OutsideChange::At { path, now } => {
            let path = mount.point.join_relative(&path).ok()?;
            // What it was nobody knows any more.
            let Some(now) = now else { return Some(bare(EventKind::GoneOutside, path, EntryType::Reg)) };
            let mut event = bare(EventKind::ChangedOutside, path, now.entry_type);
            event.size = now.size;
            event.content_id = (now.entry_type == EntryType::Reg).then_some(now.tag);
            Some(event)
        }
    }
}
