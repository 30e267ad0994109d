//! What a mount of an object store may say: options by name, checked before anything is asked of a server.

use std::time::Duration;

use nexus_kernel::hal::{DriverOption, StoreError};
use nexus_messages::syscall::MountSpec;

use super::multipart::PARTS_MAX;
use crate::path;
use crate::secret::Secret;

/// How long one operation may take, when nothing is said.
const TIMEOUT_MS: u64 = 30_000;

/// How many operations of one mount are under way at once, when nothing is said.
const CONCURRENCY: u64 = 64;

/// How often a request that may be repeated is, when nothing is said.
const RETRIES: u64 = 3;

/// The least that S3 takes for a part that is not the last one.
const PART_MIN: u64 = 5 << 20;

/// The size of a part, when nothing is said.
const PART_BYTES: u64 = 8 << 20;

/// From which size on content goes in parts, when nothing is said.
const MULTIPART_FROM: u64 = 16 << 20;

/// The most that one part, or content that goes at once, may be asked to have.
const AT_ONCE_MAX: u64 = 1 << 30;

/// The options of which one says what all keys are in.
const WHOLES: [&str; 2] = ["bucket", "container"];

pub(super) const fn option(key: &'static str, required: bool, help: &'static str) -> DriverOption {
    DriverOption { key, required, secret: false, help }
}

pub(super) const fn secret(key: &'static str, help: &'static str) -> DriverOption {
    DriverOption { key, required: false, secret: true, help }
}

/// The options of one driver, and with them those that have to do with any server.
macro_rules! with_any {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)*
            $crate::remote::options::option("prefix", false, "what all keys begin with: a folder, without a slash at its ends; all that there is when not given"),
            $crate::remote::options::option("timeout_ms", false, "how long one operation may take, and a second more for each 4 MiB that it moves; a request that hears nothing for a third of it is repeated; 30000 when not given"),
            $crate::remote::options::option("concurrency", false, "how many operations are under way at once, 1 to 1024; a part of large content is one, and such content has up to 4; 64 when not given"),
            $crate::remote::options::option("retries", false, "how often a request that may be repeated is, 0 to 20; 3 when not given"),
        ]
    };
}
pub(super) use with_any;

/// The options of one driver, and with them those that all object stores have that can be written to.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
macro_rules! with_common {
    ($($own:expr),* $(,)?) => {
        $crate::remote::options::with_any![
            $($own,)*
            $crate::remote::options::option("addressing", false, "path, when not given, for keys as they are, which other tools see; content for content by its hash, with names in the metastore"),
            $crate::remote::options::option("rename", false, "copy for renaming by copying and deleting, which is not atomic; when not given, renaming is not supported"),
            $crate::remote::options::option("multipart_bytes", false, "from which size on content goes in parts; 16777216 when not given"),
            $crate::remote::options::option("part_bytes", false, "how large a part is, at least 5242880; parts of content that comes piece by piece grow when there are many; 8388608 when not given"),
        ]
    };
}
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
pub(super) use with_common;

/// How content is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressed {
    Path,
    Content,
}

/// What all object stores are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// The option that says what all keys are in, and what it says; none where that is a URL.
    pub(super) whole: Option<(&'static str, String)>,
    /// What all keys begin with: empty, or with a slash at the end.
    pub(super) prefix: String,
    pub(super) addressed: Addressed,
    pub(super) read_only: bool,
    pub(super) rename_by_copy: bool,
    pub(super) timeout: Duration,
    /// How long a call waits for what was asked for before it. It ends before its caller gives it up, who would not know whether it was made.
    pub(super) patience: Duration,
    pub(super) concurrency: usize,
    pub(super) retries: usize,
    pub(super) multipart_bytes: u64,
    pub(super) part_bytes: u64,
}

impl Settings {
    pub(super) fn of(spec: &MountSpec) -> Result<Self, StoreError> {
        let prefix = spec.options.get("prefix").map_or("", String::as_str);
        if path::components(prefix).is_err() {
            return Err(bad("prefix", prefix, "a relative path of names, without a slash at its ends"));
        }
        let small = |key, range: std::ops::RangeInclusive<u64>, unsaid| {
            // The largest of them is far below.
            number(spec, key, range, unsaid).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
        };
        let timeout = Duration::from_millis(number(spec, "timeout_ms", 100..=86_400_000, TIMEOUT_MS)?);
        // The kernel's own option, which the kernel has checked.
        let deadline = spec.options.get("deadline_ms").and_then(|millis| millis.parse().ok());
        let deadline = deadline.map_or(timeout, Duration::from_millis);
        let whole = WHOLES.into_iter().find_map(|key| Some((key, spec.options.get(key)?.clone())));
        let settings = Self {
            whole,
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            addressed: choice(
                spec,
                "addressing",
                &[("path", Addressed::Path), ("content", Addressed::Content)],
            )?
            .unwrap_or(Addressed::Path),
            read_only: spec.read_only,
            rename_by_copy: choice(spec, "rename", &[("copy", true)])?.unwrap_or(false),
            timeout,
            patience: timeout.min(deadline) / 2,
            concurrency: small("concurrency", 1..=1_024, CONCURRENCY)?,
            retries: small("retries", 0..=20, RETRIES)?,
            multipart_bytes: number(spec, "multipart_bytes", PART_MIN..=AT_ONCE_MAX, MULTIPART_FROM)?,
            part_bytes: number(spec, "part_bytes", PART_MIN..=AT_ONCE_MAX, PART_BYTES)?,
        };
        if settings.addressed == Addressed::Content && settings.rename_by_copy {
            let why = "rename is \"copy\", and content that is found by its hash is never renamed".into();
            return Err(StoreError::BadOption { why });
        }
        Ok(settings)
    }

    /// What all keys are in, as it was asked for.
    pub(super) fn in_what(&self) -> String {
        self.whole.as_ref().map_or_else(|| "the server".into(), |(key, name)| format!("the {key} {name:?}"))
    }

    /// How large the parts are of content of `size` bytes: as asked, or larger, so that there are not too many.
    pub(super) fn part_of(&self, size: u64) -> u64 {
        self.part_bytes.max(size.div_ceil(PARTS_MAX as u64))
    }
}

/// Checks that none of the names is empty that `keys` give.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
pub(super) fn not_empty(spec: &MountSpec, keys: &[&str]) -> Result<(), StoreError> {
    match keys.iter().find(|key| spec.options.get(**key).is_some_and(String::is_empty)) {
        Some(key) => Err(bad(key, "", "a name")),
        None => Ok(()),
    }
}

fn bad(key: &str, text: &str, must_be: &str) -> StoreError {
    StoreError::BadOption { why: format!("{key} is {text:?}, and must be {must_be}") }
}

/// The credential that the option `key` gives, if it does.
pub(super) fn credential(spec: &MountSpec, key: &str) -> Result<Option<Secret>, StoreError> {
    spec.options.get(key).map(|text| Secret::given(key, text)).transpose()
}

/// The server that `key` names. Neither credentials in it nor a connection that anybody can read is taken by mistake.
pub(super) fn server<'a>(spec: &'a MountSpec, key: &str) -> Result<Option<&'a str>, StoreError> {
    let Some(text) = spec.options.get(key) else { return Ok(None) };
    let must_be = |what| Err(StoreError::BadOption { why: format!("{key} must be {what}") });
    let Some((scheme, rest)) = text.split_once("://") else {
        return must_be("a URL with http:// or https:// before it");
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match scheme {
        // It is not repeated: what stands before the host may be a password.
        _ if host.contains('@') => must_be("a URL without a user's name or password"),
        _ if rest.contains(['?', '#']) => must_be("a URL without a query"),
        _ if host.is_empty() => must_be("a URL with a host"),
        "https" => Ok(Some(text)),
        "http" if flag(spec, "allow_http")? => Ok(Some(text)),
        "http" => {
            must_be("a URL with https://, unless allow_http is true: anybody on the way can read http://")
        }
        _ => must_be("a URL with http:// or https:// before it"),
    }
}

/// `spec` with the option `key` as the first of these variables says that is set, where it is not given: in another environment the mount is of the same store, and what
/// was to be written back to it goes nowhere else.
#[cfg_attr(
    not(any(feature = "s3", feature = "azure", feature = "gcs")),
    allow(dead_code, reason = "a web server is always named")
)]
pub(super) fn said_by_env(mut spec: MountSpec, key: &str, variables: &[&str]) -> MountSpec {
    if !spec.options.contains_key(key)
        && let Some(said) = variables.iter().find_map(|name| std::env::var(name).ok())
    {
        spec.options.insert(key.into(), said);
    }
    spec
}

pub(super) fn flag(spec: &MountSpec, key: &str) -> Result<bool, StoreError> {
    Ok(choice(spec, key, &[("true", true), ("false", false)])?.unwrap_or(false))
}

pub(super) fn choice<T: Copy>(
    spec: &MountSpec,
    key: &str,
    choices: &[(&str, T)],
) -> Result<Option<T>, StoreError> {
    let Some(text) = spec.options.get(key) else { return Ok(None) };
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| name == text) {
        return Ok(Some(*chosen));
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    Err(bad(key, text, &names.join(" or ")))
}

fn number(
    spec: &MountSpec,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
    unsaid: u64,
) -> Result<u64, StoreError> {
    let Some(text) = spec.options.get(key) else { return Ok(unsaid) };
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| bad(key, text, &format!("a number from {} to {}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused_by_name() {
        for (key, text) in [
            ("prefix", "/a"),
            ("prefix", "a/../b"),
            ("prefix", "a/"),
            ("addressing", "both"),
            ("rename", "atomic"),
            ("timeout_ms", "0"),
            ("concurrency", "0"),
            ("retries", "many"),
            ("multipart_bytes", "1"),
            ("part_bytes", "5242879"),
        ] {
            let error = Settings::of(&MountSpec::new("s3").option(key, text)).unwrap_err();
            assert!(matches!(error, StoreError::BadOption { .. }), "{error:?}");
            assert!(error.to_string().starts_with(&format!("{key} is {text:?}, and must be")), "{error}");
        }
        let both = MountSpec::new("s3").option("addressing", "content").option("rename", "copy");
        assert!(Settings::of(&both).unwrap_err().to_string().contains("rename"));
    }

    #[test]
    fn a_prefix_ends_with_one_slash() {
        let settings = |prefix: &str| Settings::of(&MountSpec::new("s3").option("prefix", prefix)).unwrap();
        assert_eq!((settings("").prefix, settings("a/b").prefix), (String::new(), "a/b/".to_owned()));
    }

    #[test]
    fn a_server_is_a_url_without_credentials() {
        let check = |text: &str, allow: &str, expected: Result<(), &str>| {
            let spec = MountSpec::new("s3").option("endpoint", text).option("allow_http", allow);
            match (server(&spec, "endpoint"), expected) {
                (Ok(Some(found)), Ok(())) => assert_eq!(found, text),
                (Err(error), Err(saying)) => {
                    let error = error.to_string();
                    assert!(error.starts_with("endpoint must be") && error.contains(saying), "{error}");
                    assert!(!error.contains("hunter22"), "{error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check("https://s3.example", "false", Ok(()));
        check("http://s3.example:9000", "true", Ok(()));
        check("http://s3.example", "false", Err("allow_http"));
        check("https://me:hunter22@s3.example", "false", Err("password"));
        check("https://s3.example/?sig=hunter22", "false", Err("query"));
        check("s3.example", "true", Err("http"));
        check("ftp://s3.example", "true", Err("http"));
    }

    #[test]
    fn there_are_never_too_many_parts() {
        let settings = Settings::of(&MountSpec::new("s3")).unwrap();
        assert_eq!(settings.part_of(100 << 20), PART_BYTES);
        let size = 1_u64 << 40;
        assert!(size.div_ceil(settings.part_of(size)) <= PARTS_MAX as u64);
    }

    #[test]
    fn where_a_store_is_that_the_environment_says_is_written_down() {
        // Cargo sets it.
        let variables = ["NEXUS_IS_NOT_SET", "CARGO_MANIFEST_DIR"];
        let said = said_by_env(MountSpec::new("s3"), "endpoint", &variables);
        assert_eq!(said.options.get("endpoint").map(String::as_str), Some(env!("CARGO_MANIFEST_DIR")));
        let given = said_by_env(MountSpec::new("s3").option("endpoint", "https://a"), "endpoint", &variables);
        assert_eq!(given.options.get("endpoint").map(String::as_str), Some("https://a"));
        assert!(said_by_env(MountSpec::new("s3"), "endpoint", &variables[..1]).options.is_empty());
    }
}
