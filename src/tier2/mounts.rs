//! Mounts.

use nexus_messages::syscall::{
    DriverSwapped, Expect, MountSpec, SetattrDone, SysSetattr, SysUnlink, Unlinked,
};
use nexus_messages::{Error, ErrorKind, IntoPath, Op, Result};

use crate::handle::{Nexus, path};

impl Nexus {
    /// Attaches what a driver stores at a path, and remembers it over restarts. Nothing happens when the same is mounted there.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `EEXIST` when something else is mounted there; `EINVAL` for an unknown driver or option;
    /// what opening the driver says when it does not start.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let nx = nexus::connect(nexus::Config::in_memory()).await?;
    /// use nexus::MountSpec;
    ///
    /// let project = MountSpec::new("local").option("folder", folder.path().display().to_string());
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

    /// Replaces the driver of the mount at a path while calls go on: another driver, the same with other options, or the same anew. No call fails
    /// of it; when something goes wrong, the old driver serves on. Remembered over restarts. Nothing is copied: see
    /// [`SysSetattr::replace`](nexus_messages::syscall::SysSetattr::replace).
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `ENOENT` when nothing is mounted there; `EINVAL` for an unknown driver or option, and for
    /// one that finds files in another way than the old one; `EOPNOTSUPP` when either of them keeps its content in memory; otherwise what opening and
    /// probing the new driver says, with `ETIMEDOUT` for one that hangs.
    ///
    /// ```
    /// # smol::block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let nx = nexus::connect(folder.path()).await?;
    /// use nexus::MountSpec;
    ///
    /// let swapped = nx.swap_driver("/", MountSpec::new("cas-local").option("deadline_ms", "5000")).await?;
    /// assert_eq!(swapped.to, swapped.from + 1);
    /// # nx.shutdown().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn swap_driver(&self, at: impl IntoPath, spec: MountSpec) -> Result<DriverSwapped> {
        let at = path(Op::Mount, at)?;
        let done = self.send(SysSetattr::mount(&at, spec).replace()).await;
        let done = done.map_err(|error| error.during(Op::Mount))?;
        done.swapped.ok_or_else(|| Error::new(Op::Mount, &at, ErrorKind::NotSupported))
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
