//! Names and numbers that identify things.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::path::NAME_MAX;

/// A zone: one namespace with a log of its own. Named like a path component.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ZoneId(Arc<str>);

/// Why a text does not name a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} does not name a zone: 1 to {NAME_MAX} bytes of letters, digits, '-', '_' or '.', no '.' first"
)]
pub struct ZoneError {
    /// The text as given.
    pub name: String,
}

impl ZoneId {
    /// The name of the zone that every kernel has.
    pub const ROOT: &'static str = "root";

    /// The zone that every kernel has. Other zones see its mounts below their own.
    pub fn root() -> Self {
        Self(Arc::from(Self::ROOT))
    }

    /// Validates `name`.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let good = !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with('.');
        if good && name.bytes().all(allowed) {
            Ok(Self(Arc::from(name)))
        } else {
            Err(ZoneError { name: name.into() })
        }
    }

    /// The zone's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root zone.
    pub fn is_root(&self) -> bool {
        &*self.0 == Self::ROOT
    }
}

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ZoneId {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<Self, ZoneError> {
        Self::parse(name)
    }
}

impl Serialize for ZoneId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ZoneId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// An entry's identity: given once, never reused, kept over renames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(pub u64);

/// A commit's place in its zone's log. The first commit is 1; 0 is before all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lsn(pub u64);

/// The identity of one mutation. Sending the same one twice executes it once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpId(pub u128);

/// The identity of an advisory lock's holder.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockId(pub u128);

/// The life of somebody who calls: a handle with all its clones, a connection, an incarnation of a service. What is tied to it goes when it
/// ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LifeId(pub u64);

impl LifeId {
    /// The kernel's own life, and that of its first handle. What is tied to it goes with the kernel.
    pub const KERNEL: Self = Self(0);
}

macro_rules! shown {
    ($($name:ident as $format:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    )*};
}

shown!(FileId as "{}", Lsn as "{}", LifeId as "{}", OpId as "{:032x}", LockId as "{:032x}");

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpId({self})")
    }
}

impl fmt::Debug for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockId({self})")
    }
}

/// Who makes a call: an agent of a zone. Taken from the handle that the call was made with, never from a message.
///
/// Two are equal when they are the same agent with the same rights, for the same user, in whichever of its lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Caller {
    /// The agent's name, which owns what it creates.
    pub agent: Arc<str>,
    /// The zone whose namespace its paths are in.
    pub zone: ZoneId,
    /// Whether it holds the administrator's capability.
    pub admin: bool,
    /// For whom it acts, if that was said: told with what it does, and no right by itself.
    pub user: Option<Arc<str>>,
    /// With whose end it ends what is tied to it. Neither stored nor sent: it is known where the call is executed.
    #[serde(skip)]
    pub life: LifeId,
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        (&self.agent, &self.zone, self.admin, &self.user)
            == (&other.agent, &other.zone, other.admin, &other.user)
    }
}

impl Eq for Caller {}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.agent, &self.zone, self.admin, &self.user).hash(state);
    }
}

impl Caller {
    /// The name under which the kernel itself acts, as at boot.
    pub const KERNEL: &'static str = "nexus";

    /// The agent called `agent` of `zone`, without the administrator's capability.
    pub fn agent(agent: impl Into<Arc<str>>, zone: ZoneId) -> Self {
        Self { agent: agent.into(), zone, admin: false, user: None, life: LifeId::KERNEL }
    }

    /// The administrator: the kernel's own name, in the root zone.
    pub fn administrator() -> Self {
        Self { admin: true, ..Self::agent(Self::KERNEL, ZoneId::root()) }
    }

    /// The same for this user; for none that is known.
    #[must_use]
    pub fn acting_for(mut self, user: Option<Arc<str>>) -> Self {
        self.user = user;
        self
    }

    /// The same in this life.
    #[must_use]
    pub fn living(mut self, life: LifeId) -> Self {
        self.life = life;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_named_like_a_component() {
        for good in ["root", "team-7", "a.b", "A_1"] {
            assert_eq!(ZoneId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", ".hidden", "a/b", "a b", "\0", &"z".repeat(NAME_MAX + 1)] {
            assert!(ZoneId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
