//! The drivers that come with Nexus, by the names under which mounts ask for them.

use std::sync::Arc;

use nexus_kernel::hal::{Catalogue, DriverContext, DriverFactory, DriverOption, ObjectStore, StoreFuture};
use nexus_messages::Timestamp;
use nexus_messages::syscall::MountSpec;

use crate::cas::Cas;
use crate::memory::{MemoryPaths, MemoryTransport};

/// All drivers of this build: `cas-local` and `local` (which `path-local` is, too) on the local disk, `memory` and `memory-path` in memory; and,
/// with the features of these names, `s3`, `azure`, `gcs` and `http`, and with `connectors` `rest` and `command`.
pub fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::new();
    let [local, older] = path_local();
    let built_in: [Option<Arc<dyn DriverFactory>>; 5] =
        [cas_local(), local, older, Some(Arc::new(Memory)), Some(Arc::new(MemoryPath))];
    for factory in built_in.into_iter().flatten().chain(elsewhere().into_iter().map(with_cache)) {
        let name = factory.name().to_owned();
        if catalogue.add(factory).is_err() {
            unreachable!("the name {name} is given twice");
        }
    }
    let left_out = ["s3", "azure", "gcs", "http"].map(|name| (name, name));
    for (name, feature) in left_out.into_iter().chain(["rest", "command"].map(|name| (name, "connectors"))) {
        if catalogue.get(name).is_none() {
            catalogue.leave_out(name, feature);
        }
    }
    catalogue
}

/// Object stores on other machines, and connectors.
fn elsewhere() -> Vec<Arc<dyn DriverFactory>> {
    #[cfg(feature = "connectors")]
    let connectors = crate::external::Connectors::built_in();
    #[allow(unused_mut, reason = "without connectors nothing is added")]
    let mut all: Vec<Arc<dyn DriverFactory>> = vec![
        #[cfg(feature = "s3")]
        Arc::new(crate::remote::S3::default()),
        #[cfg(feature = "azure")]
        Arc::new(crate::remote::Azure::default()),
        #[cfg(feature = "gcs")]
        Arc::new(crate::remote::Gcs::default()),
        #[cfg(feature = "http")]
        Arc::new(crate::remote::Http),
    ];
    #[cfg(feature = "connectors")]
    all.extend(connectors.drivers());
    all
}

/// A driver of what is far away, whose mounts may have a cache here.
#[cfg(all(feature = "cached", unix))]
fn with_cache(factory: Arc<dyn DriverFactory>) -> Arc<dyn DriverFactory> {
    Arc::new(crate::cached::Cached::new(factory))
}

#[cfg(not(all(feature = "cached", unix)))]
fn with_cache(factory: Arc<dyn DriverFactory>) -> Arc<dyn DriverFactory> {
    factory
}

#[cfg(all(feature = "local", unix))]
fn cas_local() -> Option<Arc<dyn DriverFactory>> {
    Some(Arc::new(disk::CasLocal))
}

#[cfg(all(feature = "local", unix))]
fn path_local() -> [Option<Arc<dyn DriverFactory>>; 2] {
    ["local", "path-local"].map(|name| Some(Arc::new(disk::Local(name)) as Arc<dyn DriverFactory>))
}

#[cfg(not(all(feature = "local", unix)))]
fn cas_local() -> Option<Arc<dyn DriverFactory>> {
    None
}

#[cfg(not(all(feature = "local", unix)))]
fn path_local() -> [Option<Arc<dyn DriverFactory>>; 2] {
    [None, None]
}

#[cfg(all(feature = "local", unix))]
mod disk {
    use std::path::{Path, PathBuf};

    use nexus_kernel::hal::StoreError;

    use super::{Arc, Cas, DriverContext, DriverFactory, DriverOption, MountSpec, ObjectStore, StoreFuture};
    use crate::local::PathLocal;
    use crate::packs::Packs;
    use crate::path::{components, with_absolute};
    use crate::pooled;

    /// Where blobs go within the data folder, when no folder is named.
    const BLOBS: &str = "blobs";

    /// Content by its hash, in a folder of the store's own.
    #[derive(Debug)]
    pub(super) struct CasLocal;

    impl DriverFactory for CasLocal {
        fn name(&self) -> &str {
            "cas-local"
        }

        fn options(&self) -> &[DriverOption] {
            &[DriverOption {
                key: "folder",
                required: false,
                secret: false,
                help: "where the blobs are kept, from the working directory when it is no absolute path; `blobs` in the data folder when it is not given",
            }]
        }

        fn settled(&self, spec: MountSpec) -> MountSpec {
            with_absolute(spec, "folder")
        }

        fn open(
            &self,
            spec: &MountSpec,
            context: DriverContext,
        ) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
            let named = spec.options.get("folder").map(PathBuf::from);
            Box::pin(async move {
                let folder = named.or_else(|| context.data_folder.map(|data| data.join(BLOBS)));
                let folder = folder.ok_or_else(|| StoreError::BadOption {
                    why: "cas-local needs the option \"folder\": this kernel has no data folder".into(),
                })?;
                let transport = Packs::open(folder, context.pool, context.env.random()).await?;
                transport.probe().await?;
                Ok(Arc::new(Cas::new(transport)) as Arc<dyn ObjectStore>)
            })
        }
    }

    /// The folder `prefix` in `folder`, which leads nowhere else.
    fn beneath(folder: &Path, prefix: &str) -> Result<PathBuf, StoreError> {
        let bad = |why: &str| StoreError::BadOption { why: format!("prefix is {prefix:?}, and {why}") };
        if components(prefix).is_err() {
            return Err(bad("must be a relative path of names, without a slash at its ends"));
        }
        let real =
            |path: &Path| path.canonicalize().map_err(|error| StoreError::io("finding a folder", error));
        let (whole, part) = (real(folder)?, real(&folder.join(prefix)));
        match part {
            Ok(part) if part.starts_with(&whole) => Ok(part),
            Ok(_) => Err(bad("leads out of the folder")),
            Err(StoreError::NotFound { .. }) => Err(bad("there is no such folder")),
            Err(error) => Err(error),
        }
    }

    /// Where in `folder` the kernel keeps its own data, if it does there: whoever removes a file of that removes what all mounts stand on, and what is secret would
    /// be there to read. Refuses a folder that is, or lies in, that.
    fn our_own(folder: &Path, data: &Path) -> Result<Option<String>, StoreError> {
        let (Ok(folder), Ok(data)) = (folder.canonicalize(), data.canonicalize()) else { return Ok(None) };
        if folder.starts_with(&data) {
            let why = format!("it leads to {folder:?}, where this kernel keeps its own data");
            return Err(StoreError::BadOption { why });
        }
        // What is no text no path leads to.
        Ok(data.strip_prefix(&folder).ok().and_then(Path::to_str).map(str::to_owned))
    }

    /// An existing folder, whose files stay plain files; under this name.
    #[derive(Debug)]
    pub(super) struct Local(pub(super) &'static str);

    impl DriverFactory for Local {
        fn name(&self) -> &str {
            self.0
        }

        fn options(&self) -> &[DriverOption] {
            &[
                DriverOption {
                    key: "folder",
                    required: true,
                    secret: false,
                    help: "the existing folder to serve, from the working directory when it is no absolute path",
                },
                DriverOption {
                    key: "prefix",
                    required: false,
                    secret: false,
                    help: "the existing folder in it that is served instead of all of it, without a slash at its ends",
                },
                DriverOption {
                    key: "notice",
                    required: false,
                    secret: false,
                    help: "whether watchers hear of what others change in it: yes, when not given, or no, for trees with more folders than the system tells of",
                },
            ]
        }

        fn settled(&self, spec: MountSpec) -> MountSpec {
            with_absolute(spec, "folder")
        }

        fn open(
            &self,
            spec: &MountSpec,
            context: DriverContext,
        ) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
            let folder = spec.options.get("folder").map(PathBuf::from).unwrap_or_default();
            let prefix = spec.options.get("prefix").cloned();
            let notice = match spec.options.get("notice").map(String::as_str) {
                None | Some("yes") => Ok(true),
                Some("no") => Ok(false),
                Some(other) => {
                    Err(StoreError::BadOption { why: format!("notice is {other:?}, not yes or no") })
                }
            };
            Box::pin(async move {
                let folder = match prefix {
                    None => folder,
                    Some(prefix) => {
                        let beneath = move || beneath(&folder, &prefix);
                        pooled::look(&context.pool, "looking for the prefix", beneath).await?
                    }
                };
                let our_own = match context.data_folder.clone() {
                    None => None,
                    Some(data) => {
                        let served = folder.clone();
                        let looked = move || our_own(&served, &data);
                        pooled::look(&context.pool, "looking for the data folder", looked).await?
                    }
                };
                // The system's threads do not wait for a simulation's time.
                let store = if notice? && !context.env.is_simulated() {
                    PathLocal::open_noticing(folder, context.pool, context.env).await?
                } else {
                    PathLocal::open(folder, context.pool).await?
                };
                let store = match our_own {
                    Some(path) => store.without(path),
                    None => store,
                };
                Ok(Arc::new(store) as Arc<dyn ObjectStore>)
            })
        }
    }
}

/// Content by its hash, in memory.
#[derive(Debug)]
struct Memory;

impl DriverFactory for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn volatile(&self) -> bool {
        true
    }

    fn open(&self, _: &MountSpec, _: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let store: Arc<dyn ObjectStore> = Arc::new(Cas::new(MemoryTransport::new()));
        Box::pin(std::future::ready(Ok(store)))
    }
}

/// A file system in memory.
#[derive(Debug)]
struct MemoryPath;

impl DriverFactory for MemoryPath {
    fn name(&self) -> &str {
        "memory-path"
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn volatile(&self) -> bool {
        true
    }

    fn open(&self, _: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        let env = context.env;
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryPaths::new(Arc::new(move || Timestamp(env.wall()))));
        Box::pin(std::future::ready(Ok(store)))
    }
}
