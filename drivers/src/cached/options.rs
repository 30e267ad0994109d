//! What a mount may say of its cache.

use std::time::Duration;

use nexus_kernel::hal::{DriverOption, StoreError};
use nexus_messages::syscall::MountSpec;

use super::paths::count;
use super::rows::{PlaceId, short};

const fn option(key: &'static str, help: &'static str) -> DriverOption {
    DriverOption { key, required: false, secret: false, help }
}

/// The options that a mount takes beside those of its driver.
pub(super) const OPTIONS: &[DriverOption] = &[
    option(
        "cache_bytes",
        "how many bytes of content that was read are kept on the local disk, up to 1099511627776; none when not given",
    ),
    option(
        "cache_age_ms",
        "for how long what the store said of a file or a folder counts as true, up to 86400000; 0, when not given, for asking it each time; not with addressing=content, whose content never changes",
    ),
    option(
        "write_back",
        "yes for acknowledging a small file when it is on the local disk, and bringing it to the store afterwards; no when not given",
    ),
    option(
        "write_back_bytes",
        "how many bytes may be on the local disk alone; what comes then goes to the store at once; 268435456 when not given",
    ),
    option(
        "write_back_at_once",
        "how many files are on their way from the local disk to the store at once, 1 to 1024, within what concurrency allows; 64 when not given",
    ),
];

/// What says where a store is. Another value of one of these is another store; of any other option, it is not.
const WHERE: &[&str] =
    &["account", "bucket", "container", "description", "endpoint", "parameters", "prefix", "url"];

/// What says how it is written back, and nothing where it is not.
const OF_WRITE_BACK: [&str; 2] = ["write_back_bytes", "write_back_at_once"];

/// How many bytes may be pending, when nothing is said.
const PENDING_BYTES: u64 = 256 << 20;

/// The most that a cache may be asked to keep.
const CACHE_MAX: u64 = 1 << 40;

/// How many files are on their way to the store at once, when nothing is said, and the most that may be asked for.
const AT_ONCE: u64 = 64;
const AT_ONCE_MAX: u64 = 1_024;

/// The greatest age.
const AGE_MAX_MS: u64 = 86_400_000;

/// What a mount says of its cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caching {
    /// How many bytes of content that was read are kept; 0 for none.
    pub bytes_max: u64,
    /// For how long what the store said counts as true.
    pub age: Duration,
    /// Whether small files are written back.
    pub write_back: bool,
    /// How many bytes may be pending.
    pub pending_max: u64,
    /// How many files are on their way to the store at once; 0 for one.
    pub uploads_max: usize,
}

impl Caching {
    /// What the options of `spec` say.
    ///
    /// # Errors
    /// [`StoreError::BadOption`] that names the option.
    pub fn of(spec: &MountSpec) -> Result<Self, StoreError> {
        let within = |key: &str, least: u64, most: u64, unsaid: u64| match spec.options.get(key) {
            None => Ok(unsaid),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(StoreError::BadOption {
                    why: format!("{key} is {text:?}, and must be a number from {least} to {most}"),
                }),
            },
        };
        let number = |key: &str, most: u64, unsaid: u64| within(key, 0, most, unsaid);
        let write_back = match spec.options.get("write_back").map(String::as_str) {
            None | Some("no") => false,
            Some("yes") => true,
            Some(other) => {
                let why = format!("write_back is {other:?}, and must be yes or no");
                return Err(StoreError::BadOption { why });
            }
        };
        Ok(Self {
            bytes_max: number("cache_bytes", CACHE_MAX, 0)?,
            age: Duration::from_millis(number("cache_age_ms", AGE_MAX_MS, 0)?),
            write_back,
            pending_max: number("write_back_bytes", CACHE_MAX, PENDING_BYTES)?,
            uploads_max: count(within("write_back_at_once", 1, AT_ONCE_MAX, AT_ONCE)?),
        })
    }

    /// Whether what `spec` asks for makes sense together.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn check(spec: &MountSpec) -> Result<(), StoreError> {
        if Self::of(spec)?.write_back {
            return Ok(());
        }
        match OF_WRITE_BACK.into_iter().find(|key| spec.options.contains_key(*key)) {
            None => Ok(()),
            Some(key) => {
                let why = format!("{key} is given, and write_back is not yes: nothing is written back");
                Err(StoreError::BadOption { why })
            }
        }
    }

    /// Whether anything is asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.bytes_max > 0 || self.write_back || !self.age.is_zero()
    }
}

/// Which store a mount is of. `who` are the options that say in whose name it is asked, where what it shows depends on that.
pub(super) fn place_of<'a>(spec: &MountSpec, who: impl IntoIterator<Item = &'a str>) -> PlaceId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(spec.driver.as_bytes());
    // Paths and hashes are different names also in one bucket.
    let addressing = spec.options.get("addressing").filter(|addressing| *addressing == "content");
    let said = WHERE.iter().copied().chain(who).filter_map(|key| Some((key, spec.options.get(key)?)));
    for (key, value) in said.chain(addressing.map(|content| ("addressing", content))) {
        // Keys and values with their lengths: no two lists read the same.
        for part in [key, value.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
    short(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_or_no_choice_is_named() {
        for (key, value) in [
            ("cache_bytes", "1k"),
            ("cache_age_ms", "-1"),
            ("write_back", "true"),
            ("write_back_bytes", ""),
            ("write_back_at_once", "0"),
        ] {
            let error = Caching::of(&MountSpec::new("s3").option(key, value)).unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
        assert!(!Caching::of(&MountSpec::new("s3")).unwrap().is_wanted());
    }

    #[test]
    fn what_says_how_is_refused_where_nothing_is_written_back() {
        let check = |options: &[(&str, &str)], refused: Option<&str>| {
            let spec =
                options.iter().fold(MountSpec::new("s3"), |spec, (key, value)| spec.option(*key, *value));
            let error = Caching::check(&spec).err().map(|error| error.to_string());
            let is_as_expected = match (&error, refused) {
                (None, None) => true,
                (Some(error), Some(key)) => error.starts_with(key),
                _ => false,
            };
            assert!(is_as_expected, "{options:?}: {error:?}");
        };
        check(&[("write_back_at_once", "3")], Some("write_back_at_once"));
        check(&[("write_back", "no"), ("write_back_bytes", "1")], Some("write_back_bytes"));
        check(&[("write_back", "yes"), ("write_back_bytes", "1"), ("write_back_at_once", "3")], None);
        check(&[("cache_bytes", "1")], None);
    }

    #[test]
    fn a_store_is_the_same_as_long_as_it_is_where_it_was() {
        let spec = MountSpec::new("s3").option("bucket", "a");
        let place = |spec: &MountSpec| place_of(spec, []);
        assert_eq!(place(&spec), place(&spec.clone().option("concurrency", "3").option("write_back", "yes")));
        assert_eq!(place(&spec), place(&spec.clone().option("addressing", "path")));
        assert_ne!(place(&spec), place(&spec.clone().option("addressing", "content")));
        assert_ne!(place(&spec), place(&spec.clone().option("prefix", "b")));
        assert_ne!(place(&spec), place(&MountSpec::new("azure").option("bucket", "a")));
        // Another key to the same bucket opens the same one; what an API shows depends on who asks.
        let (one, other) = (spec.clone().option("token", "one"), spec.option("token", "other"));
        assert_eq!(place(&one), place(&other));
        assert_ne!(place_of(&one, ["token"]), place_of(&other, ["token"]));
    }
}
