//! The handle to a service.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nexus_actors::{CallError, Handle, Lease, Message, Undone};
use nexus_messages::{Error, ErrorKind, Result};

use super::{Generation, Service, Trial};
use crate::registry::{Active, Enlisted, Services};

/// How long a call that found a broken version waits for the one before to come back, at most.
const SWAP_BACK_MAX: Duration = Duration::from_secs(1);

/// How long a call waits for its turn to be copied to a version on trial, at most, and never longer than half of the time that it has left. One
/// that has no turn by then is answered without a copy: a trial may not make calls late.
const TURN_MAX: Duration = Duration::from_millis(100);

/// A handle to a service of type `S`: by its name, so it stays valid over restarts, over swaps, and over being removed and registered again.
/// Cheap to clone.
///
/// A call reaches the version that serves when it begins. Under an exclusive swap it waits, within its deadline; it never fails because of a
/// swap. A version of another type answers what it exports.
pub struct ServiceRef<S> {
    services: Arc<Services>,
    name: Arc<str>,
    /// The version that calls itself. It is inside, so it does not wait before its own gate.
    inside: Option<u64>,
    /// Whether whoever calls may change nothing, not even by another service.
    read_only: bool,
    calls: PhantomData<fn() -> S>,
}

/// The view of one version of a service, kept for as long as this is.
pub struct ServiceLease<V> {
    view: Arc<V>,
    _inside: Option<Lease<Active>>,
}

/// A version that is called, and what keeps it from being ended meanwhile.
enum Inside {
    Leased(Lease<Active>),
    /// By itself.
    Own(Arc<Generation>),
}

impl Inside {
    fn generation(&self) -> &Arc<Generation> {
        match self {
            Self::Leased(lease) => &lease.generation,
            Self::Own(generation) => generation,
        }
    }

    /// Whether another version serves by now.
    fn is_replaced(&self, enlisted: &Enlisted) -> bool {
        matches!(self, Self::Leased(_)) && enlisted.serving().number != self.generation().number
    }
}

impl<S: Service> ServiceRef<S> {
    pub(crate) fn new(services: Arc<Services>, name: &str) -> Self {
        Self { services, name: name.into(), inside: None, read_only: false, calls: PhantomData }
    }

    pub(super) fn inside(self, number: u64) -> Self {
        Self { inside: Some(number), ..self }
    }

    pub(super) fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// The name under which it is registered.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Sends `message` and waits for the answer, at most for `deadline`. What was not executed because its version ended is sent to the next
    /// one, within the deadline. A service that is started on demand is started.
    ///
    /// # Errors
    /// `ENOENT` when there is no such service, `EOPNOTSUPP` when the version that serves does not answer such messages, `ETIMEDOUT`,
    /// `EBUSY`, `EIO` when it crashed under the call, `ESHUTDOWN` when it is down for good, `EROFS` when a version on trial asks another
    /// service. The error says whether the message may have been executed.
    pub async fn call<M: Message>(&self, message: M, deadline: Duration) -> Result<M::Reply>
    where
        S: Handle<M>,
    {
        self.check_may_ask()?;
        let env = self.services.env();
        let began = env.now();
        let mut message = message;
        loop {
            let left = deadline.saturating_sub(env.now().saturating_duration_since(began));
            let (enlisted, inside) = self.enter(left).await?;
            let generation = inside.generation().clone();
            let left = || deadline.saturating_sub(env.now().saturating_duration_since(began));
            // What a version asks itself is not copied: the one on trial asks itself the same.
            let trial = enlisted.trial().filter(|_| self.inside.is_none());
            let trial = trial.zip(generation.comparison::<M>());
            let turn = match &trial {
                Some((trial, _)) => trial.turn(env, TURN_MAX.min(left() / 2)).await,
                None => None,
            };
            let copied = trial.as_ref().filter(|_| turn.is_some());
            let copy = copied.map(|(trial, by)| (trial, (by.copy)(&message)));
            let left = left();
            let answered = match (generation.actor::<S>(), generation.exported::<M>()) {
                (Some(actor), _) => actor.offer(message, left).await,
                (None, Some(recipient)) => recipient.offer(message, left).await,
                (None, None) => return Err(self.unknown_message::<M>(&generation)),
            };
            drop(inside);
            if let (Ok(reply), Some((trial, copy))) = (&answered, copy) {
                self.shadow::<M>(trial, &generation, copy, reply);
            }
            drop(turn);
            match answered {
                Ok(reply) => return Ok(reply),
                Err(Undone { error: CallError::Down, message: Some(back) })
                    if self.moves_on(&enlisted, &generation, left).await =>
                {
                    message = back;
                }
                Err(undone) => {
                    if matches!(undone.error, CallError::Crashed { .. }) && generation.is_on_probation() {
                        // So that whoever was told of the crash does not meet the broken version again.
                        self.moves_on(&enlisted, &generation, left).await;
                    }
                    return Err(self.failed(undone.error));
                }
            }
        }
    }

    /// Sends `message` and forgets it. Waits only while a swap holds the gate shut.
    ///
    /// Not lost by a swap: the version that was told does it before it ends, within the limit of the swap. Lost with a version that breaks on
    /// probation, is removed, or is down for good; and with the kernel. For as long as the service is there, those that were not begun are counted in
    /// [`ServiceStatus::missed`](crate::ServiceStatus::missed). Who must know calls.
    ///
    /// # Errors
    /// As [`call`](Self::call); a full mailbox is `EBUSY`.
    pub async fn tell<M: Message>(&self, message: M) -> Result<()>
    where
        S: Handle<M>,
    {
        self.check_may_ask()?;
        let (_, inside) = self.enter(Duration::MAX).await?;
        let generation = inside.generation();
        let told = match (generation.actor::<S>(), generation.exported::<M>()) {
            (Some(actor), _) => actor.tell(message),
            (None, Some(recipient)) => recipient.tell(message),
            (None, None) => return Err(self.unknown_message::<M>(generation)),
        };
        told.map_err(|error| self.failed(error))
    }

    /// Looks at what the service publishes, on this thread: a direct call. No mail, no wait.
    ///
    /// # Errors
    /// `ENOENT` when there is no such service, `EBUSY` while an exclusive swap holds the gate shut (see [`lease`](Self::lease)),
    /// `EOPNOTSUPP` when the version that serves publishes something else, or nothing yet.
    pub fn with<R>(&self, look: impl FnOnce(&S::View) -> R) -> Result<R> {
        let enlisted = self.find()?;
        let view = enlisted.slot.with(|active| active.generation.view::<S::View>());
        let view = view.ok_or_else(|| {
            self.error(ErrorKind::Busy).because("a swap is under way, and this call cannot wait for it")
        })?;
        let view = view.ok_or_else(|| self.no_view())?;
        Ok(look(&view))
    }

    /// The view of the version that serves, kept for as long as the lease is; waits while an exclusive swap holds the gate shut. A swap waits for
    /// leases: do not keep one.
    ///
    /// # Errors
    /// As [`with`](Self::with), but for `EBUSY`.
    pub async fn lease(&self) -> Result<ServiceLease<S::View>> {
        let (_, inside) = self.enter(Duration::MAX).await?;
        let view = inside.generation().view::<S::View>().ok_or_else(|| self.no_view())?;
        let inside = match inside {
            Inside::Leased(lease) => Some(lease),
            Inside::Own(_) => None,
        };
        Ok(ServiceLease { view, _inside: inside })
    }

    /// What a version on trial asks of another service would be done twice: the version that serves asks for it as well.
    fn check_may_ask(&self) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        Err(self
            .error(ErrorKind::ReadOnly)
            .because("a version on trial asks nothing of other services: not executed"))
    }

    fn find(&self) -> Result<Arc<Enlisted>> {
        self.services.find(&self.name).ok_or_else(|| {
            self.error(ErrorKind::NotFound).because(format!("no service is called {:?}", &*self.name))
        })
    }

    /// Enters the version that serves, and starts it when it is one that waits for its first call.
    async fn enter(&self, left: Duration) -> Result<(Arc<Enlisted>, Inside)> {
        let env = self.services.env();
        let began = env.now();
        let late = |what: &str| {
            self.error(ErrorKind::TimedOut).because(format!("the deadline passed while {what}: not executed"))
        };
        loop {
            let enlisted = self.find()?;
            let left = || left.saturating_sub(env.now().saturating_duration_since(began));
            let own = self.inside.and_then(|number| enlisted.version(number));
            let inside = match (own, enlisted.slot.try_lease()) {
                (Some(own), _) => Inside::Own(own),
                (None, Some(lease)) => Inside::Leased(lease),
                (None, None) => match env.timeout(left(), enlisted.slot.lease()).await {
                    Ok(lease) => Inside::Leased(lease),
                    Err(_) => return Err(late("a swap was under way")),
                },
            };
            if inside.generation().is_started() {
                return Ok((enlisted, inside));
            }
            match env.timeout(left(), enlisted.start()).await {
                Ok(started) => started?,
                Err(_) => return Err(late("it was being started")),
            }
            if !inside.generation().is_started() && inside.is_replaced(&enlisted) {
                // Another version came before it was started, and it never will be: that one is called.
                continue;
            }
            return Ok((enlisted, inside));
        }
    }

    /// Whether another version serves, or comes to serve within a moment.
    async fn moves_on(&self, enlisted: &Enlisted, from: &Generation, left: Duration) -> bool {
        let env = self.services.env();
        let now = |enlisted: &Enlisted| enlisted.slot.with(|active| active.generation.number);
        loop {
            let seen = enlisted.slot.generation();
            match now(enlisted) {
                Some(number) if number != from.number => return true,
                // Once the version before is back, it is on probation no more, and another one serves than a moment ago.
                Some(_)
                    if !from.is_on_probation()
                        && !enlisted.is_changing()
                        && enlisted.slot.generation() == seen =>
                {
                    return false;
                }
                _ => {}
            }
            if env.timeout(left.min(SWAP_BACK_MAX), enlisted.slot.replaced(seen)).await.is_err() {
                return false;
            }
        }
    }

    /// Gives a copy of a call that was answered to the version on trial, and compares.
    fn shadow<M: Message>(&self, trial: &Arc<Trial>, old: &Arc<Generation>, copy: M, reply: &M::Reply)
    where
        S: Handle<M>,
    {
        let Some(by) = old.comparison::<M>() else { return };
        let (equal, expected) = (by.equal, (by.copy_reply)(reply));
        let limit = trial.generation.facts.swap.limit;
        let asked = match (trial.generation.actor::<S>(), trial.generation.exported::<M>()) {
            (Some(actor), _) => {
                let actor = actor.clone();
                async move { actor.offer(copy, limit).await }.boxed()
            }
            (None, Some(recipient)) => recipient.offer(copy, limit),
            (None, None) => return trial.differs(format!("it does not answer {}", M::NAME)),
        };
        let judged = trial.clone();
        let mut comparing = async move {
            match asked.await {
                Ok(answer) => {
                    judged
                        .compare(equal(&expected, &answer), format!("its answer to {} was another", M::NAME));
                }
                Err(undone) => judged.differs(format!("{} gave no answer: {}", M::NAME, undone.error)),
            }
        }
        .boxed();
        // It is sent with its first step, which is made here, in the caller's turn.
        if (&mut comparing).now_or_never().is_none() {
            self.services.env().spawn("service.shadow", comparing);
        }
    }

    fn unknown_message<M: Message>(&self, generation: &Generation) -> Error {
        let why = format!("version {} does not answer {}", generation.version, M::NAME);
        self.error(ErrorKind::NotSupported).because(why)
    }

    fn no_view(&self) -> Error {
        self.error(ErrorKind::NotSupported).because("it publishes no such view")
    }

    fn failed(&self, error: CallError) -> Error {
        let told = match error {
            CallError::Busy => self.error(ErrorKind::Busy),
            CallError::Timeout => self.error(ErrorKind::TimedOut).outcome_unknown(),
            CallError::Crashed { .. } => self.error(ErrorKind::Crashed).outcome_unknown(),
            _ => self.error(ErrorKind::Down),
        };
        told.because(error)
    }

    fn error(&self, kind: ErrorKind) -> Error {
        crate::registry::error(&self.name, kind)
    }
}

impl<S> Clone for ServiceRef<S> {
    fn clone(&self) -> Self {
        Self {
            services: self.services.clone(),
            name: self.name.clone(),
            inside: self.inside,
            read_only: self.read_only,
            calls: PhantomData,
        }
    }
}

impl<S> fmt::Debug for ServiceRef<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceRef({})", self.name)
    }
}

impl<V> std::ops::Deref for ServiceLease<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.view
    }
}
