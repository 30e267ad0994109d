//! `SysVersions`: the versions of an entry that are kept.

use std::sync::Arc;

use nexus_messages::syscall::{SysVersions, VersionCursor, Versions};
use nexus_messages::{Caller, Error, ErrorKind, Result, VPath};

use super::Serve;
use super::admit::{Admissible, Which, admit, one_path};
use super::locate::{Located, NO_PAST};
use super::past::has_versions;
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::volume::{Volume, store_error};

/// How many versions one reply holds at most; the rest comes with the cursor.
const VERSIONS_MAX: usize = 1_024;

impl Admissible for SysVersions {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        true
    }

    fn right(&self, _: Which, _: bool) -> Right {
        Right::Read
    }
}

impl Serve for SysVersions {
    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Versions> {
        let admitted = Box::pin(admit(kernel, caller, self, None)).await?;
        let found = list(kernel, &admitted.first, &admitted.call);
        admitted.after(&found).await;
        found
    }
}

fn list(kernel: &Arc<Kernel>, located: &Located, call: &SysVersions) -> Result<Versions> {
    has_versions::<SysVersions>(located)?;
    let site = &located.site;
    let limit = call.limit.map_or(VERSIONS_MAX, |limit| (limit.get() as usize).min(VERSIONS_MAX));
    let after = call.cursor.map(|VersionCursor(lsn)| lsn);
    let found = match Volume::of(kernel, site) {
        Volume::Rows(volume) => volume.versions(site, after, limit),
        Volume::Paths(_) | Volume::Sys(_) => Err(NO_PAST),
    };
    match found.map_err(|error| store_error(SysVersions::OP, &site.path, &error))? {
        Some((versions, next)) => Ok(Versions::new(versions, next.map(VersionCursor))),
        None => Err(Error::new(SysVersions::OP, &site.path, ErrorKind::NotFound)),
    }
}
