//! A kernel without the front door, for tests that look at its parts.

use std::path::Path;
use std::sync::Arc;

use nexus_actors::{Env, HostConfig};
use nexus_drivers::wal::{WalConfig, WalMetastore};
use nexus_kernel::{Kernel, KernelConfig};
use nexus_messages::syscall::{MountSpec, SysSetattr};
use nexus_messages::{Caller, VPath};
use nexus_supervisors::Tree;

/// A running kernel on a folder, with `/` mounted.
pub(crate) struct Running {
    pub(crate) env: Env,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) admin: Arc<Caller>,
}

pub(crate) fn path(text: &str) -> VPath {
    VPath::parse(text).expect("written as one")
}

/// Boots a kernel on `folder`.
pub(crate) async fn boot(folder: &Path) -> Running {
    let env = Env::host(HostConfig::default()).expect("threads can be started");
    let metastore = WalMetastore::open(folder, WalConfig::default()).expect("it opens");
    let mut config = KernelConfig::default();
    config.data_folder = Some(folder.into());
    let catalogue = Arc::new(nexus_drivers::catalogue());
    let (kernel, spec) = Kernel::new(&env, config, Arc::new(metastore), catalogue).expect("it is made");
    let tree = Arc::new(Tree::start(&env, spec).await.expect("the tree starts"));
    kernel.set_tree(&tree);
    let admin = Arc::new(Caller::administrator());
    kernel.remount().await.expect("it remounts");
    let mount = SysSetattr::mount(path("/"), MountSpec::new("cas-local"));
    kernel.send(&admin, mount).await.expect("it mounts");
    Running { env, kernel, tree, admin }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.tree.stop().await;
        self.env.stop();
    }
}
