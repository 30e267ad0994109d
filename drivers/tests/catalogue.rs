//! Drivers are opened by name, with the options they have and no others.

use std::path::Path;
use std::sync::Arc;

use nexus_actors::Env;
use nexus_drivers::catalogue;
use nexus_kernel::hal::{
    Addressing, Catalogue, DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture,
};
use nexus_messages::syscall::MountSpec;

/// Opens `spec` in a simulation, where nothing of the real clock or threads is had, and hands the store to `then`.
fn open<T>(
    catalogue: &Catalogue,
    spec: &MountSpec,
    data_folder: Option<&Path>,
    then: impl AsyncFnOnce(Arc<dyn ObjectStore>) -> T,
) -> Result<T, StoreError> {
    let (env, _simulation) = Env::seeded(1);
    let cx = DriverContext::new(env.clone(), env.pool("mount", 2, 8), data_folder.map(Into::into));
    catalogue.check(spec)?;
    let opening = catalogue.get(&spec.driver).expect("it was checked").open(spec, cx);
    env.blocking_wait(async { Ok(then(opening.await?).await) })
}

fn refused(catalogue: &Catalogue, spec: &MountSpec, saying: &str) {
    let error = open(catalogue, spec, None, async |_| ()).expect_err("refused");
    assert!(matches!(error, StoreError::BadOption { .. }) && error.to_string().contains(saying), "{error}");
}

#[test]
fn unknown_drivers_and_options_are_refused_by_name() {
    let all = catalogue();
    refused(&all, &MountSpec::new("floppy"), "cas-local, ");
    #[cfg(not(feature = "s3"))]
    refused(&all, &MountSpec::new("s3"), "the cargo feature \"s3\" brings it");
    refused(&all, &MountSpec::new("cas-local").option("fodler", "/x"), "\"fodler\"; it takes: folder");
    refused(&all, &MountSpec::new("memory").option("size", "1"), "no option \"size\"");
    refused(&all, &MountSpec::new("path-local"), "needs the option \"folder\"");
    refused(&all, &MountSpec::new("cas-local"), "no data folder");
}

#[test]
fn every_built_in_driver_opens_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().to_str().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (spec, by_content) in [
        (MountSpec::new("cas-local"), true),
        (MountSpec::new("cas-local").option("folder", format!("{there}/a/b")), true),
        (MountSpec::new("path-local").option("folder", format!("{there}/a")), false),
        (MountSpec::new("memory"), true),
        (MountSpec::new("memory-path"), false),
    ] {
        let opened = open(&catalogue(), &spec, Some(&data), async |store| {
            store.probe().await.unwrap();
            assert!(!store.read_only());
            matches!(store.addressing(), Addressing::Content(_))
        });
        assert_eq!(opened.unwrap(), by_content, "{spec:?}");
    }
    assert!(data.join("blobs").is_dir() && folder.path().join("a/b").is_dir());
    for own in [data.clone(), data.join("blobs")] {
        let own = MountSpec::new("path-local").option("folder", own.to_str().unwrap());
        let error = open(&catalogue(), &own, Some(&data), async |_| ()).expect_err("it is the kernel's");
        assert!(matches!(error, StoreError::BadOption { .. }), "{error}");
    }
    let missing = MountSpec::new("path-local").option("folder", format!("{there}/none"));
    let error = open(&catalogue(), &missing, None, async |_| ()).expect_err("refused");
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

#[derive(Debug)]
struct Own(&'static str);

impl DriverFactory for Own {
    fn name(&self) -> &str {
        self.0
    }

    fn options(&self) -> &[DriverOption] {
        &[]
    }

    fn open(&self, _: &MountSpec, cx: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        catalogue().get("memory").expect("built in").open(&MountSpec::new("memory"), cx)
    }
}

#[test]
fn users_add_drivers_under_names_that_are_free() {
    let mut all = catalogue();
    all.add(Arc::new(Own("mine"))).unwrap();
    assert!(matches!(all.add(Arc::new(Own("memory"))), Err(StoreError::Exists { .. })));
    assert!(matches!(all.add(Arc::new(Own("mine"))), Err(StoreError::Exists { .. })));
    open(&all, &MountSpec::new("mine"), None, async |store| store.probe().await).unwrap().unwrap();
}
