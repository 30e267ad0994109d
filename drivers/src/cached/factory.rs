//! A driver's factory, with a cache in front of what it opens.

use std::path::PathBuf;
use std::sync::Arc;

use nexus_kernel::hal::{
    Addressing, DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture,
};
use nexus_messages::syscall::MountSpec;

use super::contents::CachedContents;
use super::later::{Later, OPENED_WITHIN, Open};
use super::marks::{Told, told_of};
use super::mounted::Mounted;
use super::options::{Caching, OPTIONS, place_of};
use super::paths::CachedPaths;
use super::rows::PlaceId;
use super::vault::Vault;

/// Where the cache lies in the data folder.
const FOLDER: &str = "cached";

/// A driver whose mounts may have a cache in front of them.
#[derive(Debug)]
pub struct Cached {
    inner: Arc<dyn DriverFactory>,
    options: Vec<DriverOption>,
}

impl Cached {
    /// The driver that `inner` opens, with a cache in front of each mount that asks for one.
    pub fn new(inner: Arc<dyn DriverFactory>) -> Self {
        let options = inner.options().iter().chain(OPTIONS).copied().collect();
        Self { inner, options }
    }

    /// Which store a mount is of. A bucket is the same whoever asks; what an API or a program shows depends on that.
    fn place(&self, spec: &MountSpec) -> PlaceId {
        let is_of_who = |option: &&DriverOption| self.inner.is_connector() && option.secret;
        place_of(spec, self.inner.options().iter().filter(is_of_who).map(|option| option.key))
    }
}

impl DriverFactory for Cached {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn options(&self) -> &[DriverOption] {
        &self.options
    }

    fn volatile(&self) -> bool {
        self.inner.volatile()
    }

    fn elsewhere(&self) -> bool {
        self.inner.elsewhere()
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn is_connector(&self) -> bool {
        self.inner.is_connector()
    }

    fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        Caching::check(spec)?;
        self.inner.check(spec)
    }

    fn settled(&self, spec: MountSpec) -> MountSpec {
        self.inner.settled(spec)
    }

    fn located(&self, spec: MountSpec) -> MountSpec {
        self.inner.located(spec)
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let caching = Caching::of(spec);
        let place = self.place(spec);
        let mut plain = spec.clone();
        plain.options.retain(|key, _| !OPTIONS.iter().any(|option| option.key == *key));
        let inner = self.inner.clone();
        Box::pin(async move {
            let caching = caching?;
            let folder = context.data_folder.as_ref().map(|folder| folder.join(FOLDER));
            let env = context.env.clone();
            let vault = match folder {
                Some(folder) if caching.is_wanted() => Some(Vault::open(&env, &folder).await?),
                // What is pending there goes to its store also when it is mounted without these options.
                Some(folder) => match look(&context, folder.clone(), place).await? {
                    Told::Nothing => None,
                    Told::Marked => Some(Vault::open(&env, &folder).await?),
                    Told::Unknown => match Vault::open(&env, &folder).await {
                        Err(error @ StoreError::Corrupt { .. }) => {
                            tracing::warn!(driver = plain.driver, %error, "whether something is pending for a mount is not known; it does without the cache");
                            None
                        }
                        opened => Some(opened?),
                    },
                },
                None if caching.is_wanted() => Some(Vault::in_memory(&env).await?),
                None => None,
            };
            let vault = vault.filter(|vault| caching.is_wanted() || vault.has_pending(place));
            let mounted = vault.map(|vault| Mounted::of(vault, place, &caching));
            if let Some(mounted) = mounted.as_ref().filter(|_| caching.write_back) {
                mounted.vault.mark(place).await?;
            }
            let Some(mounted) = mounted else { return inner.open(&plain, context).await };
            let is_by_path = plain.options.get("addressing").is_none_or(|addressing| addressing != "content");
            let is_known = caching.write_back && is_by_path && !mounted.place.table().is_empty();
            let store = match is_known {
                // What is here of it can be served without it.
                true => at_once_or_later(inner, plain, context).await?,
                false => inner.open(&plain, context).await?,
            };
            let is_by_content = matches!(store.addressing(), Addressing::Content(_));
            let cached: Arc<dyn ObjectStore> = if is_by_content {
                Arc::new(CachedContents::of_place(store, mounted, caching)?)
            } else {
                Arc::new(CachedPaths::of_place(store, mounted, caching)?)
            };
            Ok(cached)
        })
    }
}

/// The store, or what opens it as soon as it can be reached. What else is wrong with it is told now.
async fn at_once_or_later(
    inner: Arc<dyn DriverFactory>,
    plain: MountSpec,
    context: DriverContext,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let env = context.env.clone();
    let open: Open = Box::new(move || {
        let opening = inner.open(&plain, context.clone());
        Box::pin(async move {
            let store = opening.await?;
            store.probe().await?;
            Ok(store)
        })
    });
    let error = match env.timeout(OPENED_WITHIN, open()).await {
        Ok(Err(error)) if error.is_backend_failure() && !matches!(error, StoreError::Panicked { .. }) => {
            error
        }
        Ok(opened) => return opened,
        Err(_) => {
            let what = "opening its store".into();
            StoreError::TimedOut { what, limit: OPENED_WITHIN, changing: false }
        }
    };
    tracing::warn!(%error, "a store is not reached: what is here of it is served, and it is opened when it can be");
    Ok(Later::begin(&env, &error, open))
}

/// What is known of the store `id` without the cache being opened.
async fn look(context: &DriverContext, folder: PathBuf, id: PlaceId) -> Result<Told, StoreError> {
    let failed = |e| StoreError::io("looking for the cache", e);
    let looked = context.pool.run(move || told_of(&folder, &id)).await;
    let looked = looked.map_err(|error| StoreError::Backend {
        what: "looking for the cache".into(),
        cause: error.to_string(),
    })?;
    looked.map_err(failed)
}
