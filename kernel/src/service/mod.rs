//! What a service is: an actor that also says what it is, what it needs, and where it stands in the way of calls.
//!
//! A service registers at run time. The kernel is unaware of any particular one: it knows [`Service`], a name, and a configuration. While
//! it serves, another version can take its place (see `registry`).
//!
//! ```text
//! declare → start (init) → probe → serve → export ─┐
//!                                                  ├→ one publish: instance, hooks, exports
//!           start (init) → probe → import → probe ─┘
//! ```

mod calls;
mod carry;
mod declaration;
mod factory;
mod generation;
mod hooks;
mod published;
mod setup;
mod trial;

use futures_util::future::LocalBoxFuture;
use nexus_actors::{Behaviour, ExitReason};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use calls::{ServiceLease, ServiceRef};
pub use carry::Carry;
#[cfg(test)]
pub(crate) use declaration::Need;
pub use declaration::{Declaration, Startup};
pub(crate) use declaration::{Declared, Facts, SwapPolicy};
pub use factory::ServiceCatalogue;
pub(crate) use factory::{Making, ServiceFactory};
pub(crate) use generation::{Begin, Generation, Made};
pub(crate) use hooks::{After, Before, Hear, HookKey, Intercepting, Lose, Run, Shape, Weigh};
pub use hooks::{Completed, Intercept, Intercepted, Observed, OnLate, ServiceHook};
pub use published::Published;
pub use setup::{Commits, Setup, Syscalls};
pub(crate) use trial::Trial;

/// A service. Its state is the actor's own; what others need of it without asking it publishes as its view.
///
/// Beside [`Behaviour`] it is one trait to implement: [`declare`](Self::declare), and what hands the state over to the next version when
/// there is state to keep. Keep as little as possible: what is in files needs no handing over, and outlives a crash.
pub trait Service: Behaviour<Args = Setup<Self>> {
    /// The version of the code, such as `1.2.0`.
    const VERSION: &'static str;

    /// What it is configured with; travels as JSON.
    type Config: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What it publishes for inline hooks and direct calls; `()` when there is none of either.
    type View: Send + Sync + 'static;

    /// What it is, needs and offers. Pure: asked before anything is started, and again at each boot. A panic refuses the registration.
    fn declare(config: &Self::Config) -> Declaration<Self>;

    /// A copy of the state, for the version that takes its place. This one may have to go on, so nothing is moved out.
    fn export(&mut self) -> Result<Carry, ExitReason> {
        Ok(Carry::nothing())
    }

    /// Takes over what the version before exported: after `init`, before the first call. An error leaves the old version serving.
    fn import(&mut self, carry: Carry) -> Result<(), ExitReason> {
        let _ = carry;
        Ok(())
    }

    /// Whether it is fit to serve: asked after `init` and after `import`, before any call reaches it.
    fn probe(&mut self) -> LocalBoxFuture<'static, Result<(), ExitReason>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What the names of services begin with where they act as agents. No other agent can have such a name.
pub const AGENT_PREFIX: &str = "service:";

/// The agent as which the service called `name` makes its own calls.
pub(crate) fn agent_of(name: &str) -> String {
    format!("{AGENT_PREFIX}{name}")
}
