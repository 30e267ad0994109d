//! What a connector is, and those that there are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nexus_kernel::hal::{
    Addressing, Catalogue, ConnectorCategory, DriverContext, DriverFactory, DriverOption, ObjectStore,
    StoreError, StoreFuture,
};
use nexus_messages::syscall::MountSpec;

use super::rest::Rest;

/// Makes paths of what lies elsewhere and has none.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// The name under which mounts ask for it, as for a driver.
    fn name(&self) -> &str;

    /// The categories of what it may give. Which one a mount is of, it tells when it is connected.
    fn categories(&self) -> &[ConnectorCategory];

    /// The options that it takes. Others are refused before anything happens.
    fn options(&self) -> &[DriverOption];

    /// As [`DriverFactory::settled`], with the same promises.
    fn settled(&self, spec: MountSpec) -> MountSpec {
        spec
    }

    /// Connects. As [`DriverFactory::open`], with the same promises.
    fn connect(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Connected>;
}

/// What a connector gives.
#[derive(Debug, Clone)]
pub struct Connected {
    /// What it is.
    pub category: ConnectorCategory,
    /// Its paths.
    pub store: Arc<dyn ObjectStore>,
}

/// The connectors that a process has, by name. Users add their own.
#[derive(Debug, Clone, Default)]
pub struct Connectors {
    connectors: BTreeMap<String, Arc<dyn Connector>>,
}

impl Connectors {
    /// No connector.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those that come with Nexus: `rest`, and on Linux `command`.
    pub fn built_in() -> Self {
        let all: Vec<Arc<dyn Connector>> = vec![
            Arc::new(Rest::default()),
            #[cfg(target_os = "linux")]
            Arc::new(super::command::Command),
        ];
        Self { connectors: all.into_iter().map(|one| (one.name().to_owned(), one)).collect() }
    }

    /// Adds a connector.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one of this name.
    pub fn add(&mut self, connector: Arc<dyn Connector>) -> Result<(), StoreError> {
        let name = connector.name().to_owned();
        if self.connectors.contains_key(&name) {
            return Err(StoreError::Exists { what: format!("the connector {name:?}") });
        }
        self.connectors.insert(name, connector);
        Ok(())
    }

    /// The connector of this name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Connector>> {
        self.connectors.get(name).cloned()
    }

    /// The names, in order, of those that may give this category.
    pub fn of(&self, category: ConnectorCategory) -> impl Iterator<Item = &str> {
        self.connectors.values().filter(move |one| one.categories().contains(&category)).map(|one| one.name())
    }

    /// The drivers that they are, for a kernel's catalogue.
    pub fn drivers(&self) -> impl Iterator<Item = Arc<dyn DriverFactory>> {
        self.connectors.values().map(|one| Arc::new(Driver(one.clone())) as Arc<dyn DriverFactory>)
    }

    /// Adds them to the drivers that can be mounted.
    ///
    /// # Errors
    /// As [`Catalogue::add`]; those before the one that is refused are added.
    pub fn add_to(&self, catalogue: &mut Catalogue) -> Result<(), StoreError> {
        self.drivers().try_for_each(|driver| catalogue.add(driver))
    }
}

/// A connector as a driver.
#[derive(Debug)]
struct Driver(Arc<dyn Connector>);

impl DriverFactory for Driver {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn options(&self) -> &[DriverOption] {
        self.0.options()
    }

    fn is_connector(&self) -> bool {
        true
    }

    fn settled(&self, spec: MountSpec) -> MountSpec {
        self.0.settled(spec)
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let connecting = self.0.connect(spec, context);
        Box::pin(async move { Ok(Arc::new(Categorised(connecting.await?)) as Arc<dyn ObjectStore>) })
    }
}

/// A store that says what kind of connector it is.
#[derive(Debug)]
struct Categorised(Connected);

impl ObjectStore for Categorised {
    fn addressing(&self) -> Addressing<'_> {
        self.0.store.addressing()
    }

    fn read_only(&self) -> bool {
        self.0.store.read_only()
    }

    fn connector(&self) -> Option<ConnectorCategory> {
        Some(self.0.category)
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        self.0.store.probe()
    }

    fn trouble(&self) -> Option<String> {
        self.0.store.trouble()
    }
}
