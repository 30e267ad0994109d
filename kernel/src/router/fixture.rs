//! A mount that is only what the router needs to know, for tests.

use nexus_messages::{VPath, ZoneId};

use super::table::{AsMount, MountId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestMount {
    pub(crate) id: MountId,
    pub(crate) zone: ZoneId,
    pub(crate) point: VPath,
}

impl AsMount for TestMount {
    fn id(&self) -> MountId {
        self.id
    }

    fn zone(&self) -> &ZoneId {
        &self.zone
    }

    fn point(&self) -> &VPath {
        &self.point
    }
}

pub(crate) fn path(text: &str) -> VPath {
    VPath::parse(text).unwrap()
}

pub(crate) fn zone(name: &str) -> ZoneId {
    ZoneId::parse(name).unwrap()
}

pub(crate) fn mount(id: u64, zone_name: &str, point: &str) -> TestMount {
    TestMount { id: MountId(id), zone: zone(zone_name), point: path(point) }
}
