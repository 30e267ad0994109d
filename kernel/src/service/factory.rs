//! How a service comes into being: a name in the process's catalogue, and a configuration.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use nexus_actors::Env;
use nexus_messages::LifeId;
use nexus_messages::syscall::ServiceSpec;
use nexus_supervisors::Monitor;
use parking_lot::Mutex;

use super::{Declared, Service};
use crate::caught::catch;
use crate::kernel::Kernel;

/// The most kinds of services that one process knows.
const FACTORIES_MAX: usize = 1_024;

/// Makes versions of one kind of service.
pub(crate) trait ServiceFactory: Send + Sync {
    fn name(&self) -> &str;

    fn version(&self) -> &'static str;

    /// The type that it makes.
    fn makes(&self) -> TypeId;

    /// What it declares with this configuration, as JSON; nothing is started. Refuses what it cannot read, in words.
    fn declare(&self, config: &str) -> Result<Declared, String>;
}

/// What a version is made with.
pub(crate) struct Making {
    pub(crate) name: Arc<str>,
    pub(crate) number: u64,
    pub(crate) spec: ServiceSpec,
    pub(crate) factory: Arc<str>,
    pub(crate) version: &'static str,
    pub(crate) env: Env,
    pub(crate) kernel: Weak<Kernel>,
    /// Its life, which ends when it is stopped.
    pub(crate) life: LifeId,
    /// Whether its own calls may change nothing: it is on trial.
    pub(crate) read_only: bool,
    /// What the version before publishes.
    pub(crate) before: Option<Arc<dyn Any + Send + Sync>>,
    pub(crate) monitor: Monitor,
}

impl Making {
    /// Its id among the services' children: each version has its own, because two may run beside each other.
    pub(crate) fn child_id(&self) -> String {
        format!("{}@{}", self.name, self.number)
    }
}

/// The factory of services of type `S`, under `name`.
fn of<S: Service>(name: String) -> Arc<dyn ServiceFactory> {
    Arc::new(Typed::<S> { name, makes: PhantomData })
}

struct Typed<S> {
    name: String,
    makes: PhantomData<fn() -> S>,
}

impl<S: Service> ServiceFactory for Typed<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &'static str {
        S::VERSION
    }

    fn makes(&self) -> TypeId {
        TypeId::of::<S>()
    }

    fn declare(&self, config: &str) -> Result<Declared, String> {
        let config = read::<S::Config>(config).map_err(|why| format!("its configuration: {why}"))?;
        let declared = catch(|| S::declare(&config)).map_err(|panicked| panicked.to_string())?;
        declared.forget(config)
    }
}

/// Reads a configuration. An empty one is that of all defaults, whether the type is a map of settings or none at all.
fn read<C: serde::de::DeserializeOwned>(text: &str) -> Result<C, serde_json::Error> {
    if text.trim().is_empty() {
        return serde_json::from_str("{}").or_else(|why| serde_json::from_str("null").map_err(|_| why));
    }
    serde_json::from_str(text)
}

/// The kinds of services that this process knows. Grows while it runs.
#[derive(Default)]
pub struct ServiceCatalogue(Mutex<BTreeMap<String, Arc<dyn ServiceFactory>>>);

impl ServiceCatalogue {
    /// Adds services of type `S` and says under which name: that of its kind, or, when another version has that, `NAME@VERSION`. The same
    /// again is no matter.
    ///
    /// # Errors
    /// In words: another type of the same name and version is there, or there are 1,024 kinds already.
    pub fn add<S: Service>(&self) -> Result<String, String> {
        let mut factories = self.0.lock();
        for name in [S::NAME.to_owned(), format!("{}@{}", S::NAME, S::VERSION)] {
            match factories.get(&name) {
                Some(there) if there.makes() == TypeId::of::<S>() => return Ok(name),
                Some(_) => {}
                None if factories.len() >= FACTORIES_MAX => {
                    return Err(format!(
                        "there are {FACTORIES_MAX} factories already, and no more are possible"
                    ));
                }
                None => {
                    factories.insert(name.clone(), of::<S>(name.clone()));
                    return Ok(name);
                }
            }
        }
        Err(format!("another type makes {:?} in version {}", S::NAME, S::VERSION))
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<dyn ServiceFactory>, String> {
        let factories = self.0.lock();
        // A version that was beside another one when it was registered may be the only one today.
        let kind = name.split_once('@').map_or(name, |(kind, _)| kind);
        factories.get(name).or_else(|| factories.get(kind)).cloned().ok_or_else(|| {
            let names: Vec<&str> = factories.keys().map(String::as_str).collect();
            match names.as_slice() {
                [] => format!("there is no factory {name:?}, and no other"),
                names => format!("there is no factory {name:?}, but {}", names.join(", ")),
            }
        })
    }
}

impl fmt::Debug for ServiceCatalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceCatalogue").field(&self.names()).finish()
    }
}
