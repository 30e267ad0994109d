//! Consumer groups, without `async`.

use std::time::Duration;

use nexus_actors::Env;
use nexus_messages::syscall::{Chosen, Delivered, GroupDetail, GroupInfo, GroupSettings, StreamStart, Taken};
use nexus_messages::{IntoPath, Result, VPath};

use super::Nexus;

/// A member of a consumer group; see [`crate::Consumer`].
#[derive(Debug, Clone)]
pub struct Consumer {
    env: Env,
    consumer: crate::Consumer,
}

impl Nexus {
    /// As [`crate::Nexus::consumer`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::consumer`].
    pub fn consumer(
        &self,
        at: impl IntoPath,
        group: impl AsRef<str>,
        start: impl Into<StreamStart>,
        settings: GroupSettings,
    ) -> Result<Consumer> {
        let consumer = self.env().blocking_wait(self.0.consumer(at, group, start, settings))?;
        Ok(Consumer { env: self.env().clone(), consumer })
    }

    /// As [`crate::Nexus::groups`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::groups`].
    pub fn groups(&self, at: impl IntoPath) -> Result<Vec<GroupInfo>> {
        self.env().blocking_wait(self.0.groups(at))
    }

    /// As [`crate::Nexus::group`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::group`].
    pub fn group(&self, at: impl IntoPath, group: impl AsRef<str>) -> Result<GroupDetail> {
        self.env().blocking_wait(self.0.group(at, group))
    }

    /// As [`crate::Nexus::remove_group`], and blocks.
    ///
    /// # Errors
    /// As [`crate::Nexus::remove_group`].
    pub fn remove_group(&self, at: impl IntoPath, group: impl AsRef<str>) -> Result<bool> {
        self.env().blocking_wait(self.0.remove_group(at, group))
    }
}

macro_rules! twins {
    ($($name:ident($($arg:ident: $type:ty),*) -> $done:ty;)*) => {
        impl Consumer {$(
            #[doc = concat!("As [`crate::Consumer::", stringify!($name), "`], and blocks.")]
            ///
            /// # Errors
            #[doc = concat!("As [`crate::Consumer::", stringify!($name), "`].")]
            pub fn $name(&self, $($arg: $type),*) -> Result<$done> {
                self.env.blocking_wait(self.consumer.$name($($arg),*))
            }
        )*}
    };
}

twins! {
    take(most: u32, wait: Option<Duration>) -> Vec<Delivered>;
    take_batch(most: u32, wait: Option<Duration>) -> Taken;
    acknowledge(which: impl Into<Chosen>) -> u64;
    give_back(which: impl Into<Chosen>) -> u64;
    give_back_for(which: impl Into<Chosen>, delay: Duration) -> u64;
    extend(which: impl Into<Chosen>) -> u64;
    info() -> GroupDetail;
    dead() -> Vec<Delivered>;
    bury(offsets: Vec<u64>) -> u64;
    revive(offsets: Vec<u64>) -> u64;
}

impl Consumer {
    /// The stream.
    pub fn path(&self) -> &VPath {
        self.consumer.path()
    }

    /// The consumer whose methods do not block.
    pub fn as_async(&self) -> &crate::Consumer {
        &self.consumer
    }

    /// The group.
    pub fn group(&self) -> &str {
        self.consumer.group()
    }

    /// As [`crate::Consumer::hold`].
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.consumer = self.consumer.hold(hold);
        self
    }
}
