//! The options of a mount that the kernel itself goes by.

use std::time::Duration;

use nexus_messages::syscall::MountSpec;

use crate::hal::{StoreError, is_of_every_mount};

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

/// How the kernel treats the driver of one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MountOptions {
    deadline: Duration,
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
        Ok(Self {
            deadline: millis(spec, "deadline_ms", 1)?.unwrap_or(unsaid.deadline),
            open: millis(spec, "open_ms", 1)?.unwrap_or(unsaid.open),
            probe_every: probe_every.filter(|every| !every.is_zero()),
        })
    }

    /// How long a call may take that moves so many bytes, as far as is known.
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
        self.deadline + Duration::from_secs(bytes / BYTES_PER_SECOND)
    }
}

/// `spec` as its driver sees it.
pub(super) fn for_driver(spec: &MountSpec) -> MountSpec {
    let mut spec = spec.clone();
    spec.options.retain(|key, _| !is_of_every_mount(key));
    spec
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { deadline: DEADLINE, open: OPEN, probe_every: Some(PROBE_EVERY) }
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
            spec = spec.option(option.key, "7");
        }
        assert_eq!(for_driver(&spec), MountSpec::new("d").option("folder", "/x"));
        let options = MountOptions::of(&spec).unwrap();
        let seven = Duration::from_millis(7);
        assert_eq!((options.deadline(0), options.open, options.probe_every), (seven, seven, Some(seven)));
    }

    #[test]
    fn times_that_make_no_sense_are_refused_by_name() {
        for (key, text) in
            [("deadline_ms", "0"), ("deadline_ms", "soon"), ("open_ms", "-1"), ("probe_ms", "1e9")]
        {
            let error = MountOptions::of(&MountSpec::new("d").option(key, text)).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(text), "{error}");
        }
        let never = MountOptions::of(&MountSpec::new("d").option("probe_ms", "0")).unwrap();
        assert_eq!(never.probe_every, None);
    }

    #[test]
    fn a_call_that_moves_much_may_take_longer() {
        let options = MountOptions::of(&MountSpec::new("d")).unwrap();
        assert_eq!(options.deadline(0), DEADLINE);
        assert_eq!(options.deadline(1 << 30), DEADLINE + Duration::from_secs(64));
    }
}
