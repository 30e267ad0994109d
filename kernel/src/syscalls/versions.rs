//! `SysVersions`: what was at a path over time, and the versions of a file, as far as they are kept.

use std::sync::Arc;

use nexus_messages::syscall::{SysVersions, VersionCursor, Versions};
use nexus_messages::{Caller, Error, ErrorKind, Result, VPath};

use super::Serve;
use super::admit::{Admissible, Which, admit, one_path};
use super::locate::{Located, NO_PAST};
use super::past::has_versions;
use crate::gate::Right;
use crate::hal::StoreError;
use crate::kernel::Kernel;
use crate::volume::{Volume, store_error};

/// How many versions one reply holds at most; the rest comes with the cursor.
const VERSIONS_MAX: usize = 1_024;

impl Admissible for SysVersions {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        self.follow
    }

    fn is_of_the_past(&self, _: Which) -> bool {
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
    if call.of_file {
        has_versions::<SysVersions>(located)?;
    }
    let site = &located.site;
    let limit = call.limit.map_or(VERSIONS_MAX, |limit| (limit.get() as usize).min(VERSIONS_MAX));
    let cursor = call.cursor.map(|VersionCursor(lsn)| lsn);
    let failed = |error: StoreError| store_error(SysVersions::OP, &site.path, &error);
    let nothing = || Error::new(SysVersions::OP, &site.path, ErrorKind::NotFound);
    let Volume::Rows(volume) = Volume::of(kernel, site) else { return Err(failed(NO_PAST)) };
    let (versions, next) = if call.of_file {
        volume.versions_of_file(site, cursor, limit).map_err(failed)?.ok_or_else(nothing)?
    } else {
        let (page, begins) = volume.versions(site, cursor, limit).map_err(failed)?;
        if page.0.is_empty() && page.1.is_none() && cursor.is_none() {
            let point = &site.mount.point;
            return Err(nothing().because(format!(
                "nothing was there since LSN {begins}, where the history of {point} begins, as far as it is kept"
            )));
        }
        page
    };
    Ok(Versions::new(versions, next.map(VersionCursor)))
}
