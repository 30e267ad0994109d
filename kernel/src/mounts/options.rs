//! The options of a mount that the kernel itself goes by.

use std::time::Duration;

use nexus_messages::syscall::{IoProfile, MountSpec};
use nexus_messages::{Consistency, EntryType};

use crate::hal::{DriverOption, StoreError, is_of_every_mount};

/// How long one call of a driver may take, unless the mount says otherwise: enough for the largest content from a slow disk.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long opening a driver may take, unless the mount says otherwise.
const OPEN: Duration = Duration::from_secs(15);

/// How often an idle mount is probed, unless the mount says otherwise.
const PROBE_EVERY: Duration = Duration::from_secs(30);

/// The longest time that can be asked for: a day.
const MILLIS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// A call may take a second longer for each of so many bytes that it moves.
const BYTES_PER_SECOND: u64 = 16 << 20;

/// How many superseded states of an entry are kept, unless the mount says otherwise.
const HISTORY_COUNT: u32 = 32;

/// The most that can be asked for.
pub(crate) const HISTORY_COUNT_MAX: u32 = 1_000;

/// For how long they are kept, unless the mount says otherwise: a week.
const HISTORY_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest time that can be asked for: a hundred years.
const HISTORY_AGE_MAX_S: u64 = 100 * 365 * 24 * 60 * 60;

/// The most calls of one driver at once that can be asked for.
const CONCURRENCY_MAX: u64 = 1_024;

/// What of what is superseded on a mount is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryPolicy {
    /// How many superseded states of each entry, at least one.
    pub(crate) count: u32,
    /// For how long after they were superseded.
    pub(crate) age: Duration,
}

/// What a mount is for, and so what of it outlives what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Class {
    /// What is acknowledged is kept.
    #[default]
    Durable,
    /// What can be had again from elsewhere: the disk may be behind, and no history is kept.
    Cache,
    /// Nothing outlives the process.
    Scratch,
}

/// How the kernel treats the driver of one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MountOptions {
    class: Class,
    consistency: Option<Consistency>,
    history_count: Option<u32>,
    history_age: Duration,
    deadline: Duration,
    /// Whether changes are refused.
    pub(super) read_only: bool,
    mode_files: Option<u32>,
    mode_dirs: Option<u32>,
    streams: Option<IoProfile>,
    /// How many calls of the driver are made at once, if that is bounded.
    pub(super) concurrency: Option<usize>,
    /// How long opening may take.
    pub(super) open: Duration,
    /// How often an idle mount is probed, if at all.
    pub(super) probe_every: Option<Duration>,
}

impl MountOptions {
    /// What `spec` says of the options of every mount.
    pub(super) fn of(spec: &MountSpec) -> Result<Self, StoreError> {
        let unsaid = Self::default();
        let probe_every = millis(spec, "probe_ms", 0)?.or(unsaid.probe_every);
        let count = number(spec, "history_count", u64::from(HISTORY_COUNT_MAX))?;
        let age = number(spec, "history_age_s", HISTORY_AGE_MAX_S)?;
        let class = choice(spec, "class", &CLASSES)?.unwrap_or_default();
        let consistency = choice(spec, "consistency", &CONSISTENCIES)?;
        if class == Class::Scratch && consistency == Some(Consistency::Strong) {
            return Err(StoreError::BadOption {
                why: "consistency is \"strong\", and class \"scratch\" keeps nothing".into(),
            });
        }
        let streams = choice(spec, "streams", &STREAMS)?;
        if class == Class::Scratch && streams == Some(IoProfile::Durable) {
            return Err(StoreError::BadOption {
                why: "streams is \"durable\", and class \"scratch\" keeps nothing".into(),
            });
        }
        let read_only = choice(spec, "read_only", &[("true", true), ("false", false)])?;
        if spec.read_only && read_only == Some(false) {
            let why = "read_only is \"false\", and the mount is asked to refuse changes".into();
            return Err(StoreError::BadOption { why });
        }
        let concurrency = within(spec, "concurrency", 1, CONCURRENCY_MAX)?;
        Ok(Self {
            class,
            consistency,
            read_only: spec.read_only || read_only == Some(true),
            mode_files: mode(spec, "mode_files")?,
            mode_dirs: mode(spec, "mode_dirs")?,
            streams,
            concurrency: concurrency.and_then(|calls| usize::try_from(calls).ok()),
            history_count: count.and_then(|count| u32::try_from(count).ok()),
            history_age: age.map_or(HISTORY_AGE, Duration::from_secs),
            deadline: millis(spec, "deadline_ms", 1)?.unwrap_or(unsaid.deadline),
            open: millis(spec, "open_ms", 1)?.unwrap_or(unsaid.open),
            probe_every: probe_every.filter(|every| !every.is_zero()),
        })
    }

    /// What the mount is for.
    pub(super) fn class(&self) -> Class {
        self.class
    }

    /// When a change is acknowledged, unless the call says otherwise.
    pub(super) fn consistency(&self) -> Consistency {
        self.consistency.unwrap_or(match self.class {
            Class::Durable => Consistency::Strong,
            Class::Cache | Class::Scratch => Consistency::Eventual,
        })
    }

    /// What is kept of what is superseded, if anything is. `volatile` says that content ends with the process.
    pub(super) fn history(&self, volatile: bool) -> Option<HistoryPolicy> {
        let none = volatile || self.class != Class::Durable;
        let count = self.history_count.unwrap_or(if none { 0 } else { HISTORY_COUNT });
        (count > 0).then_some(HistoryPolicy { count, age: self.history_age })
    }

    /// The permission bits that the mount gives an entry of this kind, if it says so.
    pub(super) fn mode(&self, entry_type: EntryType) -> Option<u32> {
        match entry_type {
            EntryType::Reg => self.mode_files,
            EntryType::Dir | EntryType::Mount => self.mode_dirs,
            _ => None,
        }
    }

    /// Where the records of a stream are that is made without saying, if the mount says so.
    pub(super) fn streams(&self) -> Option<IoProfile> {
        self.streams
    }

    /// How long a call may take that moves so many bytes, as far as is known.
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
        self.deadline + Duration::from_secs(bytes / BYTES_PER_SECOND)
    }
}

/// `spec` as a driver sees it that declares the options `own`.
pub(super) fn for_driver(spec: &MountSpec, own: &[DriverOption]) -> MountSpec {
    let mut spec = spec.clone();
    spec.read_only |= spec.options.get("read_only").is_some_and(|text| text == "true");
    spec.options.retain(|key, _| !is_of_every_mount(key) || own.iter().any(|option| option.key == key));
    spec
}

/// `spec` with what `old` says of the options of every mount, and it does not: the mount goes on as it is, with another driver.
pub(super) fn going_on(old: &MountSpec, mut spec: MountSpec) -> MountSpec {
    spec.read_only |= old.read_only && !spec.options.contains_key("read_only");
    for (key, value) in old.options.iter().filter(|(key, _)| is_of_every_mount(key)) {
        // Who asks for changes to be refused need not say that twice.
        if !(spec.read_only && key == "read_only") {
            spec.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    spec
}

/// How long the driver of `spec` may take to be opened.
pub(crate) fn opening_max(spec: &MountSpec) -> Duration {
    MountOptions::of(spec).unwrap_or_default().open
}

/// Whether the drivers of both find the same content. How they and the kernel treat it is another matter.
pub(super) fn stores_the_same(one: &MountSpec, other: &MountSpec) -> bool {
    let (one, other) = (for_driver(one, &[]), for_driver(other, &[]));
    (one.driver, one.options) == (other.driver, other.options)
}

/// What a driver turned out to be, as far as options go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nature {
    pub(super) path_addressed: bool,
    pub(super) volatile: bool,
    pub(super) read_only: bool,
}

/// Whether a mount of a driver of this nature is what `spec` asks for. What is remembered is not asked again: a kernel that knows better than the one
/// before it takes no mount away.
pub(super) fn check_honoured(spec: &MountSpec, nature: Nature) -> Result<(), StoreError> {
    let given = |key: &str| spec.options.get(key).map(String::as_str);
    let driver = &spec.driver;
    let why = match nature {
        Nature { read_only: true, .. } if given("read_only") == Some("false") => {
            format!("read_only is \"false\", and {driver} changes nothing here")
        }
        Nature { volatile: true, .. } if given("consistency") == Some("strong") => {
            format!("consistency is \"strong\", and what {driver} stores ends with the process")
        }
        Nature { volatile: true, .. } if given("streams") == Some("durable") => {
            format!("streams is \"durable\", and what {driver} stores ends with the process")
        }
        Nature { path_addressed: true, .. } if given("history_count").is_some_and(|count| count != "0") => {
            let count = given("history_count").unwrap_or_default();
            format!("history_count is {count:?}, and files that are found by their paths keep no history")
        }
        _ => return Ok(()),
    };
    Err(StoreError::BadOption { why })
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            class: Class::default(),
            consistency: None,
            history_count: None,
            history_age: HISTORY_AGE,
            deadline: DEADLINE,
            read_only: false,
            mode_files: None,
            mode_dirs: None,
            streams: None,
            concurrency: None,
            open: OPEN,
            probe_every: Some(PROBE_EVERY),
        }
    }
}

/// The names of the classes.
const CLASSES: [(&str, Class); 3] =
    [("durable", Class::Durable), ("cache", Class::Cache), ("scratch", Class::Scratch)];

const CONSISTENCIES: [(&str, Consistency); 2] =
    [("strong", Consistency::Strong), ("eventual", Consistency::Eventual)];

/// Where records of streams can be that nobody is on the other side of.
const STREAMS: [(&str, IoProfile); 3] =
    [("memory", IoProfile::Memory), ("durable", IoProfile::Durable), ("shared", IoProfile::Shared)];

fn choice<T: Copy>(spec: &MountSpec, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, StoreError> {
    let Some(text) = spec.options.get(key) else { return Ok(None) };
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| name == text) {
        return Ok(Some(*chosen));
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    Err(StoreError::BadOption { why: format!("{key} is {text:?}, and must be one of: {}", names.join(", ")) })
}

fn number(spec: &MountSpec, key: &str, max: u64) -> Result<Option<u64>, StoreError> {
    within(spec, key, 0, max)
}

fn within(spec: &MountSpec, key: &str, min: u64, max: u64) -> Result<Option<u64>, StoreError> {
    let Some(text) = spec.options.get(key) else { return Ok(None) };
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => Err(StoreError::BadOption {
            why: format!("{key} is {text:?}, and must be a number from {min} to {max}"),
        }),
    }
}

/// Permission bits, in octal.
fn mode(spec: &MountSpec, key: &str) -> Result<Option<u32>, StoreError> {
    let Some(text) = spec.options.get(key) else { return Ok(None) };
    let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(Some(mode)),
        _ => Err(StoreError::BadOption {
            why: format!("{key} is {text:?}, and must be permission bits in octal, from 000 to 777"),
        }),
    }
}

fn millis(spec: &MountSpec, key: &str, min: u64) -> Result<Option<Duration>, StoreError> {
    let Some(text) = spec.options.get(key) else { return Ok(None) };
    match text.parse() {
        Ok(millis) if (min..=MILLIS_MAX).contains(&millis) => Ok(Some(Duration::from_millis(millis))),
        _ => Err(StoreError::BadOption {
            why: format!("{key} is {text:?}, and must be milliseconds from {min} to {MILLIS_MAX}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hal::MOUNT_OPTIONS;

    #[test]
    fn the_kernel_keeps_its_own_options_from_the_driver() {
        let mut spec = MountSpec::new("d").option("folder", "/x");
        for option in MOUNT_OPTIONS {
            let value = match option.key {
                "class" => "cache",
                "consistency" => "strong",
                "read_only" => "true",
                "streams" => "memory",
                _ => "7",
            };
            spec = spec.option(option.key, value);
        }
        assert_eq!(for_driver(&spec, &[]), MountSpec::new("d").option("folder", "/x").read_only());
        let own = [DriverOption { key: "concurrency", required: false, secret: false, help: "" }];
        assert_eq!(for_driver(&spec, &own).options.keys().collect::<Vec<_>>(), ["concurrency", "folder"]);
        let options = MountOptions::of(&spec).unwrap();
        assert_eq!((options.read_only, options.concurrency), (true, Some(7)));
        assert_eq!((options.mode(EntryType::Reg), options.mode(EntryType::Mount)), (Some(7), Some(7)));
        assert_eq!((options.mode(EntryType::Link), options.streams()), (None, Some(IoProfile::Memory)));
        let kept = HistoryPolicy { count: 7, age: Duration::from_secs(7) };
        assert_eq!((options.history(true), options.history(false)), (Some(kept), Some(kept)));
        assert_eq!((options.class(), options.consistency()), (Class::Cache, Consistency::Strong));
        let seven = Duration::from_millis(7);
        assert_eq!((options.deadline(0), options.open, options.probe_every), (seven, seven, Some(seven)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (key, text) in [
            ("deadline_ms", "0"),
            ("deadline_ms", "soon"),
            ("open_ms", "-1"),
            ("probe_ms", "1e9"),
            ("read_only", "yes"),
            ("concurrency", "0"),
            ("concurrency", "1025"),
            ("mode_files", "rw-r--r--"),
            ("mode_files", "+644"),
            ("mode_files", "1777"),
            ("mode_dirs", "798"),
            ("mode_dirs", ""),
            ("streams", "stdio"),
        ] {
            let error = MountOptions::of(&MountSpec::new("d").option(key, text)).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(text), "{error}");
        }
        let never = MountOptions::of(&MountSpec::new("d").option("probe_ms", "0")).unwrap();
        assert_eq!(never.probe_every, None);
        let kept = MountSpec::new("d").option("class", "scratch").option("streams", "durable");
        assert!(MountOptions::of(&kept).unwrap_err().to_string().contains("streams"));
        let both = MountSpec::new("d").option("read_only", "false").read_only();
        assert!(MountOptions::of(&both).unwrap_err().to_string().contains("read_only"));
    }

    #[test]
    fn what_a_driver_cannot_honour_is_refused_by_name() {
        let nature = |path_addressed, volatile, read_only| Nature { path_addressed, volatile, read_only };
        for (key, text, nature, is_refused) in [
            ("read_only", "false", nature(true, false, true), true),
            ("read_only", "false", nature(true, false, false), false),
            ("read_only", "true", nature(true, false, true), false),
            ("consistency", "strong", nature(false, true, false), true),
            ("consistency", "strong", nature(true, false, false), false),
            ("streams", "durable", nature(false, true, false), true),
            ("streams", "durable", nature(true, false, false), false),
            ("streams", "memory", nature(false, true, false), false),
            ("consistency", "eventual", nature(false, true, false), false),
            ("history_count", "5", nature(true, false, false), true),
            ("history_count", "0", nature(true, false, false), false),
            ("history_count", "5", nature(false, true, false), false),
        ] {
            let spec = MountSpec::new("d").option(key, text);
            let checked = check_honoured(&spec, nature);
            assert_eq!(checked.is_err(), is_refused, "{key}={text} {nature:?}");
            assert!(checked.err().is_none_or(|error| error.to_string().starts_with(&format!("{key} is"))));
        }
    }

    #[test]
    fn a_history_is_kept_unless_content_ends_with_the_process_or_none_is_wanted() {
        let options = |count: &str| MountOptions::of(&MountSpec::new("d").option("history_count", count));
        let unsaid = MountOptions::default();
        assert_eq!(unsaid.history(false), Some(HistoryPolicy { count: HISTORY_COUNT, age: HISTORY_AGE }));
        assert_eq!(unsaid.history(true), None);
        assert_eq!(options("0").unwrap().history(false), None);
        assert_eq!(options("5").unwrap().history(true).unwrap().count, 5);
        for text in ["1001", "-1", "many"] {
            let error = options(text).unwrap_err().to_string();
            assert!(error.contains("history_count") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_call_that_moves_much_may_take_longer() {
        let options = MountOptions::of(&MountSpec::new("d")).unwrap();
        assert_eq!(options.deadline(0), DEADLINE);
        assert_eq!(options.deadline(1 << 30), DEADLINE + Duration::from_secs(64));
    }
}
