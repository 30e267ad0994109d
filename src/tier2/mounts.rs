//! Mounts.

use nexus_kernel::{MigrateOrder, MigrationStatus};
use nexus_messages::syscall::{
    DriverSwapped, Expect, MountSpec, SetattrDone, SysRead, SysSetattr, SysUnlink, SysWrite, Unlinked,
};
use nexus_messages::{Error, ErrorKind, IntoPath, Op, Result};

use crate::handle::{Nexus, path};

/// Where migrations are ordered and shown.
const MIGRATIONS: &str = "/__sys__/migrations";

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

    /// Begins to move all files of the mount at a path to another driver while calls go on, or goes on with what was begun. It is done in the background: see
    /// [`migrations`](Self::migrations). All that is there is copied and verified, what changes meanwhile is copied again, and in one step the new
    /// driver takes the place of the old one, which keeps what it has. Until then the old one serves, and what goes wrong leaves it so. Without
    /// `modes`, permission bits are given up where the new driver keeps none, and owners and media types where names cease to be rows of the metastore. A history is given
    /// up there when `to` says `history_count=0`.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `ENOENT` when nothing is mounted there; `EINVAL` for an unknown driver or option, and for a store
    /// that a mount has already; `EOPNOTSUPP` for a driver that keeps no history when the mount does, and for one whose content is gone with
    /// the process; `EBUSY` while the mount is changed otherwise; what opening the new driver says.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    /// # std::fs::create_dir(&old)?;
    /// # std::fs::create_dir(&new)?;
    /// # let (old, new) = (old.display().to_string(), new.display().to_string());
    /// # let nx = nexus::blocking::connect(folder.path().join("data"))?;
    /// use nexus::{MigrationState, MountSpec};
    ///
    /// nx.mount("/m", MountSpec::new("path-local").option("folder", old))?;
    /// nx.write("/m/a.txt", "one")?;
    /// nx.migrate("/m", MountSpec::new("path-local").option("folder", &new), true)?;
    /// while !nx.migrations()?[0].is_over() {
    ///     std::thread::yield_now();
    /// }
    /// assert_eq!(nx.migrations()?[0].state, MigrationState::Done);
    /// assert_eq!(std::fs::read_to_string(format!("{new}/a.txt"))?, "one");
    /// # nx.shutdown()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn migrate(&self, at: impl IntoPath, to: MountSpec, modes: bool) -> Result<()> {
        let path = path(Op::Mount, at)?;
        self.order_migration(&MigrateOrder::Begin { path, to, without_modes: !modes }).await
    }

    /// Ends a migration that runs or was cut short, and removes what it has written. It is done in the background. A new store that cannot be
    /// reached ends it, and it can be aborted again, or [given up](Self::give_up_migration).
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `ENOENT` when there is none; `EBUSY` when the new driver takes the place of the old one just
    /// now; what opening the new driver says.
    pub async fn abort_migration(&self, at: impl IntoPath) -> Result<()> {
        self.order_migration(&MigrateOrder::Abort { path: path(Op::Mount, at)? }).await
    }

    /// Ends a migration that runs, is being aborted or was cut short, and leaves what it has written where it is: nothing is asked of the new store, which may be
    /// gone. It is done in the background; [`left`](MigrationStatus::left) tells how many copies may be there, which nobody here knows of any more.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle; `ENOENT` when there is none; `EBUSY` when the new driver takes the place of the old one just now.
    pub async fn give_up_migration(&self, at: impl IntoPath) -> Result<()> {
        self.order_migration(&MigrateOrder::GiveUp { path: path(Op::Mount, at)? }).await
    }

    /// The migrations that run, ended since the kernel began, or were cut short before.
    ///
    /// # Errors
    /// `EACCES` unless this is an administrator's handle.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>> {
        let file = path(Op::Read, MIGRATIONS)?;
        let read = self.send(SysRead::at(&file)).await?;
        serde_json::from_slice(&read.data)
            .map_err(|why| Error::new(Op::Read, &file, ErrorKind::Io).because(why))
    }

    async fn order_migration(&self, order: &MigrateOrder) -> Result<()> {
        let file = path(Op::Mount, MIGRATIONS)?;
        let told =
            |why: serde_json::Error| Error::new(Op::Mount, &file, ErrorKind::InvalidArgument).because(why);
        let order = serde_json::to_vec(order).map_err(told)?;
        self.send(SysWrite::at(&file, order)).await.map(drop).map_err(|error| error.during(Op::Mount))
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
