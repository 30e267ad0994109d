//! The interface for modules that are trusted with the kernel: hooks, and who may do what.

use std::sync::Arc;
use std::time::Duration;

use nexus_kernel::dispatch::{HookId, HookInfo, ListHooks, Register, Registration, Unregister};
use nexus_kernel::gate::Permission;
use nexus_messages::{Error, ErrorKind, Op, Result};

use crate::handle::Nexus;

/// How long the dispatch may take to answer; it is restarted within.
const DISPATCH_MAX: Duration = Duration::from_secs(10);

impl Nexus {
    /// Registers a hook. Calls that begin after this returned pass it.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EINVAL` when a resolver has its pattern already, or there are too many hooks.
    ///
    /// ```
    /// # let nx = nexus::blocking::connect(nexus::Config::in_memory())?;
    /// use std::sync::Arc;
    /// use nexus::dispatch::{Registration, Resolution, Resolver};
    /// use nexus::{Caller, VPath};
    ///
    /// /// Gives each agent a home of its own under one name.
    /// struct Home;
    ///
    /// impl Resolver for Home {
    ///     fn resolve(&self, caller: &Caller, path: &VPath) -> Resolution {
    ///         let own = VPath::parse(&format!("/agents/{}{path}", caller.agent));
    ///         own.map_or_else(|why| Resolution::Refuse(why.to_string()), Resolution::Rewrite)
    ///     }
    /// }
    ///
    /// nx.register_hook(Registration::resolver("home", "/home/**", Arc::new(Home))?)?;
    /// nx.agent("coder-7")?.write("/home/plan.md", "1. think")?;
    /// assert_eq!(nx.read("/agents/coder-7/home/plan.md")?, "1. think");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn register_hook(&self, hook: Registration) -> Result<HookId> {
        let answer = self.kernel()?.dispatch_actor().call(Register(hook), DISPATCH_MAX).await;
        let registered = answer.map_err(|error| Error::global(Op::Hook, ErrorKind::Down).because(error))?;
        registered.map_err(|error| Error::global(Op::Hook, ErrorKind::InvalidArgument).because(error))
    }

    /// Removes a hook. Calls that have begun may still pass it.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EINVAL` when there is no such hook.
    pub async fn unregister_hook(&self, id: HookId) -> Result<HookInfo> {
        let answer = self.kernel()?.dispatch_actor().call(Unregister(id), DISPATCH_MAX).await;
        let removed = answer.map_err(|error| Error::global(Op::Hook, ErrorKind::Down).because(error))?;
        removed.map_err(|error| Error::global(Op::Hook, ErrorKind::InvalidArgument).because(error))
    }

    /// The hooks, in the order of their registration.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle.
    pub async fn hooks(&self) -> Result<Vec<HookInfo>> {
        let answer = self.kernel()?.dispatch_actor().call(ListHooks, DISPATCH_MAX).await;
        answer.map_err(|error| Error::global(Op::Hook, ErrorKind::Down).because(error))
    }

    /// Lets `provider` decide from now on who may do what; with none everything is allowed. Who owns an entry always may.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle.
    pub fn set_permission(&self, provider: Option<Arc<dyn Permission>>) -> Result<()> {
        let gate = self.kernel()?.permission_gate();
        // The administrator's handle is no actor and has no generation: the last one who sets a provider has set it.
        gate.set_provider(0, provider)
            .map_err(|error| Error::global(Op::Hook, ErrorKind::Busy).because(error))
    }
}
