//! Services: registering one, calling it, and putting another version in its place while it serves.

use nexus_kernel::service::{Service, ServiceRef};
use nexus_kernel::{ServiceState, ServiceStatus};
use nexus_messages::syscall::{ServiceSpec, ServiceSwapped, SwapOptions, SysSetattr, SysUnlink, Unlinked};
use nexus_messages::{Error, ErrorKind, Op, Result, VPath};

use crate::handle::Nexus;

/// Where services are in the namespace.
const FOLDER: &str = "/__sys__/services";

impl Nexus {
    /// Registers `S` as the service called `name` and starts it, with what it needs running already. It is remembered: at the next boot it is
    /// started as soon as the process knows the type, by [`Config::service`](crate::Config::service) or by this very call, which may be repeated at
    /// each start of the program.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EEXIST` when another service has the name; `EINVAL` for what it declares or needs;
    /// whatever keeps it from starting. Nothing has changed then.
    ///
    /// ```
    /// # smol::block_on(async {
    /// use std::time::Duration;
    ///
    /// use nexus::actors::{Behaviour, Cx, ExitReason, Handle, LocalBoxFuture, Message, Reply, Start};
    /// use nexus::service::{Declaration, Service, Setup};
    ///
    /// struct Greeter(Setup<Self>);
    /// struct Greet(&'static str);
    /// impl Message for Greet { type Reply = String; const NAME: &'static str = "greeter.greet"; }
    ///
    /// impl Behaviour for Greeter {
    ///     type Args = Setup<Self>;
    ///     const NAME: &'static str = "greeter";
    ///     fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
    ///         Box::pin(async move { Ok(Greeter(setup)) })
    ///     }
    /// }
    /// impl Service for Greeter {
    ///     const VERSION: &'static str = "1.0.0";
    ///     type Config = String;
    ///     type View = ();
    ///     fn declare(_: &String) -> Declaration<Self> { Declaration::new().exports::<Greet>() }
    /// }
    /// impl Handle<Greet> for Greeter {
    ///     fn handle(&mut self, m: Greet, _: &mut Cx<'_, Self>) -> Reply<Self, String> {
    ///         Reply::Now(format!("{} {}", self.0.config(), m.0))
    ///     }
    /// }
    ///
    /// let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// let greeter = nx.register::<Greeter>("greeter", "hello".into()).await?;
    /// let limit = Duration::from_secs(1);
    /// assert_eq!(greeter.call(Greet("world"), limit).await?, "hello world");
    ///
    /// let report = nx.swap::<Greeter>("greeter", "good day".into()).await?;
    /// assert_eq!((report.from.number, report.to.number), (1, 2));
    /// assert_eq!(greeter.call(Greet("world"), limit).await?, "good day world");
    /// # nx.shutdown().await?;
    /// # Ok::<(), nexus::Error>(()) }).unwrap();
    /// ```
    pub async fn register<S: Service>(&self, name: &str, config: S::Config) -> Result<ServiceRef<S>> {
        let kernel = self.kernel()?;
        let spec = self.spec::<S>(name, config, SwapOptions::new())?;
        let mut call = SysSetattr::service(service_path(name)?, spec.factory, spec.config).exclusive();
        if let Some(there) = kernel.service_status(name)
            && matches!(there.state, ServiceState::Failed { .. })
        {
            // Remembered from before, and not started: this call is what it waits for.
            call.create = nexus_messages::syscall::Create::IfMissing;
        }
        self.send(call).await?;
        Ok(kernel.service(name))
    }

    /// A handle to the service called `name`: valid over restarts and swaps, and over being removed and registered again. Whether there is such a
    /// service, a call tells.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle: whoever holds the service's handle can call it, so it is handed out.
    pub fn service<S: Service>(&self, name: &str) -> Result<ServiceRef<S>> {
        Ok(self.kernel()?.service(name))
    }

    /// Puts `S` with `config` in the place of the version of `name` that serves, as `S` declares: started and probed beside it, with a copy of its
    /// state, published at once; and back again should it crash while it is on probation. Whatever fails before the publish leaves the
    /// old version serving. Dropping the future gives up what is not published yet.
    ///
    /// No call fails, and what becomes of the state is a matter of the mode. With [`Overlap`](crate::SwapMode::Overlap), which is declared unless
    /// something else is, what the old version acknowledges after the copy is not in the new one. With [`Exclusive`](crate::SwapMode::Exclusive) calls
    /// wait for a moment, and nothing is lost. A swap back undoes what the new version acknowledged, where it is not kept in files or shared.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `ENOENT` when there is no such service; `EINVAL`, `EBUSY` (another change of it is under way, or
    /// another service needs what it no longer exports), `ETIMEDOUT`, `EIO` with the step that failed.
    pub async fn swap<S: Service>(&self, name: &str, config: S::Config) -> Result<ServiceSwapped> {
        self.swap_with::<S>(name, config, SwapOptions::new()).await
    }

    /// As [`swap`](Self::swap), with the mode, the limits, or a trial in shadow before it: the new version is given copies of real calls, and takes
    /// the old one's place only when it has given that many of the same answers.
    ///
    /// # Errors
    /// As [`swap`](Self::swap); `ECANCELED` when the versions disagree on trial.
    pub async fn swap_with<S: Service>(
        &self,
        name: &str,
        config: S::Config,
        options: SwapOptions,
    ) -> Result<ServiceSwapped> {
        let spec = self.spec::<S>(name, config, options)?;
        let mut call = SysSetattr::at(service_path(name)?);
        call.service = Some(spec);
        let path = call.path.clone();
        let done = self.send(call).await.map_err(|error| error.during(Op::Service))?;
        done.service_swapped
            .map(|swapped| *swapped)
            .ok_or_else(|| Error::new(Op::Service, &path, ErrorKind::NotFound))
    }

    /// Removes the service called `name`: its hooks go, its calls end, and it is not started again.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `ENOENT`; `EBUSY` when another service needs it.
    pub async fn unregister(&self, name: &str) -> Result<Unlinked> {
        self.send(SysUnlink::at(service_path(name)?)).await
    }

    /// The services and how they are, by name. Asks no actor.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle.
    pub fn services(&self) -> Result<Vec<ServiceStatus>> {
        Ok(self.kernel()?.service_statuses())
    }

    fn spec<S: Service>(&self, name: &str, config: S::Config, swap: SwapOptions) -> Result<ServiceSpec> {
        let path = service_path(name)?;
        let invalid = |why: String| Error::new(Op::Service, &path, ErrorKind::InvalidArgument).because(why);
        let factory = self.kernel()?.service_catalogue().add::<S>().map_err(invalid)?;
        let config =
            serde_json::to_string(&config).map_err(|why| invalid(format!("its configuration: {why}")))?;
        Ok(ServiceSpec::new(factory, config).swap(swap))
    }
}

fn service_path(name: &str) -> Result<VPath> {
    let folder = VPath::parse(FOLDER).and_then(|folder| folder.join(name));
    folder.map_err(|why| Error::bad_path(Op::Service, name, &why))
}
