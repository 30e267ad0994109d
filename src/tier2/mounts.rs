//! Mounts.

use nexus_messages::syscall::{Expect, MountSpec, SetattrDone, SysSetattr, SysUnlink, Unlinked};
use nexus_messages::{IntoPath, Op, Result};

use crate::handle::{Nexus, path};

impl Nexus {
    /// Attaches what a driver stores at a path, and remembers it over restarts. Nothing happens when the same is mounted there.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EEXIST` when something else is mounted there; `EINVAL` for an unknown driver or option;
    /// `EIO` when the driver does not start.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::MountSpec;
    ///
    /// let project = MountSpec::new("path-local").option("folder", folder.path().display().to_string());
    /// nx.mount("/project", project).await?;
    /// nx.write("/project/a.txt", "a plain file on disk").await?;
    /// assert_eq!(std::fs::read_to_string(folder.path().join("a.txt"))?, "a plain file on disk");
    /// nx.unmount("/project").await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn mount(&self, at: impl IntoPath, spec: MountSpec) -> Result<SetattrDone> {
        self.send(SysSetattr::mount(path(Op::Mount, at)?, spec))
            .await
            .map_err(|error| error.during(Op::Mount))
    }

    /// Detaches a mount, once the calls in it have ended. What it stores is kept.
    ///
    /// # Errors
    /// `EINVAL` when nothing is mounted there, `EBUSY` when another mount lies below it or calls do not end, `EACCES` unless this is an administrator's
    /// handle.
    pub async fn unmount(&self, at: impl IntoPath) -> Result<Unlinked> {
        let call = SysUnlink::at(path(Op::Unmount, at)?).expect(Expect::Mount);
        self.send(call).await.map_err(|error| error.during(Op::Unmount))
    }
}
