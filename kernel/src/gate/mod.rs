//! Decides whether a caller may do what it asks for.
//!
//! Owns:       the provider, if there is one; published as it is.
//! Asks:       the provider, on the caller's task. No actor: looking needs no mail, and changing is one publish.
//! On restart: nothing to do. The provider stays until another one is set.
//! Bounds:     one provider.

mod permission;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nexus_actors::{Panicked, Snap, Superseded};
use nexus_messages::{Caller, VPath};
use parking_lot::Mutex;

pub use permission::{Decision, Owner, Permission, Right};

use crate::caught::{catch, catch_async};

/// The gate that every call passes on its resolved paths.
#[derive(Default)]
pub struct PermissionGate {
    /// Invariant: whether `provider` holds one; changed after it, so that who sees it raised finds the provider.
    guarded: AtomicBool,
    provider: Snap<Option<Arc<dyn Permission>>>,
    /// Held while both change.
    setting: Mutex<()>,
}

/// The gate said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// Why, in the provider's words.
    pub reason: String,
}

impl PermissionGate {
    /// A gate without a provider: it lets everything pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `provider` the one that decides from now on; with none everything is allowed. `writer` is the generation of who sets
    /// it: an older one is refused. May be repeated.
    pub fn set_provider(&self, writer: u64, provider: Option<Arc<dyn Permission>>) -> Result<(), Superseded> {
        let guarded = provider.is_some();
        let _both = self.setting.lock();
        self.provider.publish(writer, provider)?;
        // Pairs with the acquire in `is_guarded`. Who misses a flag that is just being raised came before it.
        self.guarded.store(guarded, Ordering::Release);
        Ok(())
    }

    /// Whether there is a provider. One load.
    #[inline]
    pub fn is_guarded(&self) -> bool {
        self.guarded.load(Ordering::Acquire)
    }

    /// Whether `caller` may do this at `path`. Without a provider one load; the owner, where it is known, passes without being asked
    /// for; otherwise the provider decides, and a provider that panics denies.
    ///
    /// Does not block. A `Slow` answer may be awaited anywhere, and denies when it panics.
    #[inline]
    pub fn check(&self, caller: &Caller, right: Right, path: &VPath, owner: Option<Owner<'_>>) -> Decision {
        if !self.is_guarded() || owner.is_some_and(|owner| owner.is(caller)) {
            return Decision::Allow;
        }
        self.ask(caller, right, path)
    }

    /// As [`check`](Self::check), and waits for a slow answer.
    pub async fn pass(
        &self,
        caller: &Caller,
        right: Right,
        path: &VPath,
        owner: Option<Owner<'_>>,
    ) -> Result<(), Denied> {
        match self.check(caller, right, path, owner) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) => Err(Denied { reason }),
            Decision::Slow(answer) => answer.await.map_err(|reason| Denied { reason }),
        }
    }

    fn ask(&self, caller: &Caller, right: Right, path: &VPath) -> Decision {
        // Cloned out: the provider is somebody else's code, and must not run under a pin.
        let Some(provider) = self.provider.read(Option::clone) else { return Decision::Allow };
        match catch(|| provider.check(caller, right, path)) {
            Ok(Decision::Slow(answer)) => {
                let answer = async move { catch_async(|| answer).await.unwrap_or_else(|m| Err(broken(&m))) };
                Decision::Slow(Box::pin(answer))
            }
            Ok(decided) => decided,
            Err(panicked) => Decision::Deny(broken(&panicked)),
        }
    }
}

fn broken(panicked: &Panicked) -> String {
    tracing::error!(%panicked, "the permission provider panicked, and the call is denied");
    format!("the permission provider panicked: {}", panicked.message)
}

#[cfg(test)]
mod tests;
