//! Profiles: names for sets of settings, as data.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a set of settings. Whatever is set by file, environment or code stands above it.
///
/// All profiles of this build keep their rows in redb and their content by its hash below the data folder; they differ in what
/// they keep in memory and in how many threads they may use. (On a kernel in memory they differ just so.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Profile {
    /// The least of everything: small caches, for many kernels on one machine.
    Slim,
    /// The least on which agents work well: a helper inside a larger program.
    Embedded,
    /// One person's machine.
    #[default]
    Lite,
    /// A server of its own.
    Full,
    /// Several machines that agree on one log. Not in this build.
    Cluster,
    /// Storage that others run. Not in this build.
    Cloud,
    /// What is being tried. Not in this build.
    Innovation,
    /// A kernel in another process or on another machine. Not in this build.
    Remote,
}

/// What a profile stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) metadata_cache_bytes: u64,
    pub(crate) content_cache_bytes: u64,
    pub(crate) metastore_cache_bytes: usize,
    pub(crate) kernel_threads: usize,
    pub(crate) io_threads: usize,
    pub(crate) search_threads: usize,
}

const MIB: usize = 1 << 20;

/// The profiles of this build. Caches are bounds, not reservations: they fill with use.
const TABLE: [(Profile, Limits); 4] = [
    (Profile::Slim, limits(3 * MIB, 4 * MIB, MIB, 1)),
    (Profile::Embedded, limits(10 * MIB, 16 * MIB, 4 * MIB, 2)),
    (Profile::Lite, limits(64 * MIB, 64 * MIB, 8 * MIB, 2)),
    (Profile::Full, Limits { io_threads: 2, ..limits(512 * MIB, 512 * MIB, 64 * MIB, 8) }),
];

const fn limits(metadata: usize, content: usize, metastore: usize, search_threads: usize) -> Limits {
    Limits {
        metadata_cache_bytes: metadata as u64,
        content_cache_bytes: content as u64,
        metastore_cache_bytes: metastore,
        kernel_threads: 1,
        io_threads: 1,
        search_threads,
    }
}

impl Profile {
    /// Every profile, also those that are not in this build.
    pub const ALL: [Self; 8] = [
        Self::Slim,
        Self::Embedded,
        Self::Lite,
        Self::Full,
        Self::Cluster,
        Self::Cloud,
        Self::Innovation,
        Self::Remote,
    ];

    /// The name in settings, such as `lite`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slim => "slim",
            Self::Embedded => "embedded",
            Self::Lite => "lite",
            Self::Full => "full",
            Self::Cluster => "cluster",
            Self::Cloud => "cloud",
            Self::Innovation => "innovation",
            Self::Remote => "remote",
        }
    }

    /// What it stands for; none when it is not in this build.
    pub(crate) fn limits(self) -> Option<Limits> {
        TABLE.iter().find(|(profile, _)| *profile == self).map(|(_, limits)| *limits)
    }

    /// The names of the profiles of this build.
    pub(crate) fn available() -> String {
        TABLE.map(|(profile, _)| profile.name()).join(", ")
    }
}

/// A text that names no profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownProfile(String);

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no profile {:?}, but {}", self.0, Profile::available())
    }
}

impl std::error::Error for UnknownProfile {}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile(name.into()))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_by_its_name() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        let unknown = "fat".parse::<Profile>().unwrap_err();
        assert_eq!(unknown.to_string(), "there is no profile \"fat\", but slim, embedded, lite, full");
    }

    #[test]
    fn a_larger_profile_has_more_of_everything() {
        for pair in TABLE.windows(2) {
            let ((_, less), (_, more)) = (pair[0], pair[1]);
            assert!(less.metadata_cache_bytes < more.metadata_cache_bytes);
            assert!(less.content_cache_bytes < more.content_cache_bytes);
            assert!(less.metastore_cache_bytes < more.metastore_cache_bytes);
            assert!(less.search_threads <= more.search_threads);
        }
    }
}
