//! Asking a driver whether its backend answers.

use nexus_messages::{Error, ErrorKind, Op, VPath, ZoneId};

use super::attach::{ANSWER_GRACE, silent};
use super::driver::Probe;
use crate::kernel::Kernel;
use crate::volume::store_error;

pub(crate) async fn probe(kernel: &Kernel, zone: &ZoneId, point: &VPath) -> Result<(), Error> {
    let fail = |kind| Error::new(Op::Mount, point, kind);
    let Some(mount) = kernel.mount_at(zone, point) else {
        return Err(fail(ErrorKind::NotFound).because("nothing is mounted there"));
    };
    let Some(actor) = mount.actor() else { return Err(fail(ErrorKind::Down)) };
    match actor.call(Probe, mount.options().open + ANSWER_GRACE).await {
        Ok(answer) => answer.map_err(|error| store_error(Op::Mount, point, &error)),
        Err(error) => Err(fail(silent(error)).because(error)),
    }
}
