//! How a mount's driver comes into being: a name in the process's catalogue, and options.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use nexus_actors::{Env, Pool};
use nexus_messages::EntryType;
use nexus_messages::syscall::MountSpec;

use super::{ObjectStore, StoreError, StoreFuture};

/// Makes drivers of one kind.
pub trait DriverFactory: fmt::Debug + Send + Sync + 'static {
    /// The name under which mounts ask for it.
    fn name(&self) -> &str;

    /// The options that it takes. Others are refused before anything happens.
    fn options(&self) -> &[DriverOption];

    /// Whether what it stores is gone with the process: then a mount is empty whenever it is attached.
    fn volatile(&self) -> bool {
        false
    }

    /// Whether what it asks is another machine's, which may be down while this one is well: then a boot waits for it a moment only.
    fn elsewhere(&self) -> bool {
        false
    }

    /// Whether no mount of it ever changes anything, whatever its options: known before one is opened, and while none can be.
    fn read_only(&self) -> bool {
        false
    }

    /// Whether it makes connectors: then a mount point of it is told as [`ExternalStorage`](nexus_messages::EntryType::ExternalStorage), and is one for all else
    /// a mount point as any.
    fn is_connector(&self) -> bool {
        false
    }

    /// Whether what `spec` asks for makes sense together. Asked when a mount is ordered, and not when one is opened again that is remembered: what was taken
    /// once still opens. Nothing is asked of a backend.
    ///
    /// # Errors
    /// [`StoreError::BadOption`] that names the option.
    fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        let _ = spec;
        Ok(())
    }

    /// `spec` without what depends on where this process works: what is remembered must mean the same in another one. Called before a mount is made; what it
    /// cannot tell it leaves as it is. Nothing is asked of a backend.
    fn settled(&self, spec: MountSpec) -> MountSpec {
        spec
    }

    /// `spec` with where its store is, as far as the environment of this process says that and `spec` does not. Called before a mount is made, and never for one that is
    /// remembered: that nothing was said means something, too. Nothing is asked of a backend.
    fn located(&self, spec: MountSpec) -> MountSpec {
        spec
    }

    /// Opens a driver with these options, which were checked against [`options`](Self::options). What blocks runs on the pool of the context.
    /// Called again at every restart of the driver, beside the one that serves: both may be in use for a while.
    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>>;
}

/// One option of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverOption {
    /// The key.
    pub key: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// Whether what is given for it is shown to nobody: a password, a key.
    pub secret: bool,
    /// What it means, for help texts.
    pub help: &'static str,
}

/// The options that every mount takes, whatever its driver: the kernel itself goes by them, and drivers see none of them but
/// [`SHARED_OPTIONS`]. What [`read_only`](DriverOption) says they see as [`MountSpec::read_only`].
pub const MOUNT_OPTIONS: &[DriverOption] = &[
    DriverOption {
        key: "read_only",
        required: false,
        secret: false,
        help: "true for a mount that refuses changes",
    },
    DriverOption {
        key: "mode_files",
        required: false,
        secret: false,
        help: "the permission bits of files that are made without saying, and of all files where the backend keeps none, in octal; 644 when not given",
    },
    DriverOption {
        key: "mode_dirs",
        required: false,
        secret: false,
        help: "the same of directories; 755 when not given",
    },
    DriverOption {
        key: "concurrency",
        required: false,
        secret: false,
        help: "how many calls of the driver are made at once, 1 to 1024: others wait for their turn within their deadline; not limited by the kernel when not given",
    },
    DriverOption {
        key: "deadline_ms",
        required: false,
        secret: false,
        help: "how long one call of the driver may take, and a second more for each 16 MiB that it is known to move; 60000 when not given",
    },
    DriverOption {
        key: "open_ms",
        required: false,
        secret: false,
        help: "how long opening the driver may take; 15000 when not given",
    },
    DriverOption {
        key: "probe_ms",
        required: false,
        secret: false,
        help: "how often a mount that nobody uses is asked whether its backend answers, 0 for never; 30000 when not given",
    },
    DriverOption {
        key: "class",
        required: false,
        secret: false,
        help: "what the mount is for: durable, when not given; cache for what can be had again, with changes on disk soon after they are acknowledged; scratch for what ends with the process",
    },
    DriverOption {
        key: "consistency",
        required: false,
        secret: false,
        help: "when a change is acknowledged unless the call says: strong for when it is on disk, as durable does, or eventual for when all can see it",
    },
    DriverOption {
        key: "history_count",
        required: false,
        secret: false,
        help: "how many states of an entry are kept once they are superseded, at most 1000, 0 for none; when not given 32, and none but on durable mounts",
    },
    DriverOption {
        key: "history_age_s",
        required: false,
        secret: false,
        help: "for how many seconds they are kept; 604800 when not given, which is a week",
    },
    DriverOption {
        key: "streams",
        required: false,
        secret: false,
        help: "where the records of streams are that are made without saying: durable for on disk, memory, or shared for memory that other processes map; when not given on disk, where the mount and the kernel outlive the process",
    },
];

/// Those of [`MOUNT_OPTIONS`] that a driver may declare, too: then it sees what is given for them, beside the kernel that goes by it.
pub const SHARED_OPTIONS: &[&str] = &["concurrency"];

/// What a driver is given of the kernel around it.
#[derive(Clone)]
#[non_exhaustive]
pub struct DriverContext {
    /// Clock, randomness, tasks.
    pub env: Env,
    /// Threads for a backend that blocks, bounded, this mount's own.
    pub pool: Pool,
    /// The kernel's data folder, when it has one.
    pub data_folder: Option<PathBuf>,
    /// Whether nobody asks for this mount just now: it was mounted before, and is opened again, at a start of the kernel or behind a failure. What was found out then
    /// may count.
    pub is_again: bool,
}

impl DriverContext {
    /// The context of a driver of one mount that is asked for.
    pub fn new(env: Env, pool: Pool, data_folder: Option<PathBuf>) -> Self {
        Self { env, pool, data_folder, is_again: false }
    }

    /// The same, of a mount that is opened again.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.is_again = true;
        self
    }
}

/// The drivers that this process can mount. Users add their own.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    factories: BTreeMap<String, Arc<dyn DriverFactory>>,
    /// Drivers that this build has not, and the features that bring them.
    left_out: BTreeMap<&'static str, &'static str>,
}

impl Catalogue {
    /// No driver.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind of driver.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one of this name, [`StoreError::BadOption`] when it has an option that is the kernel's own.
    pub fn add(&mut self, factory: Arc<dyn DriverFactory>) -> Result<(), StoreError> {
        let name = factory.name().to_owned();
        let is_taken = |key: &str| is_of_every_mount(key) && !SHARED_OPTIONS.contains(&key);
        if let Some(taken) = factory.options().iter().find(|option| is_taken(option.key)) {
            let why = format!("{name} has the option {:?}, which is the kernel's own", taken.key);
            return Err(StoreError::BadOption { why });
        }
        if self.factories.contains_key(&name) {
            return Err(StoreError::Exists { what: format!("the driver {name:?}") });
        }
        self.factories.insert(name, factory);
        Ok(())
    }

    /// Says that this build leaves out the driver `name`, and which cargo feature brings it.
    pub fn leave_out(&mut self, name: &'static str, feature: &'static str) {
        self.left_out.insert(name, feature);
    }

    /// The kind of driver of this name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn DriverFactory>> {
        self.factories.get(name).cloned()
    }

    /// What the root of a mount of `driver` is told to be.
    pub fn mount_type(&self, driver: &str) -> EntryType {
        match self.factories.get(driver) {
            Some(factory) if factory.is_connector() => EntryType::ExternalStorage,
            _ => EntryType::Mount,
        }
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// Whether the driver exists and takes these options, together.
    ///
    /// # Errors
    /// [`StoreError::BadOption`] that says what is wrong, and what there is instead.
    pub fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        let bad = |why: String| Err(StoreError::BadOption { why });
        let Some(factory) = self.factories.get(&spec.driver) else {
            if let Some(feature) = self.left_out.get(&*spec.driver) {
                let why = format!(
                    "this build leaves out the driver {:?}: the cargo feature {feature:?} brings it",
                    spec.driver
                );
                return bad(why);
            }
            let names: Vec<&str> = self.names().collect();
            return bad(format!("there is no driver {:?}, but {}", spec.driver, names.join(", ")));
        };
        let options = factory.options();
        let is_known = |key: &str| is_of_every_mount(key) || options.iter().any(|option| option.key == key);
        if let Some(unknown) = spec.options.keys().find(|key| !is_known(key)) {
            let kernels =
                MOUNT_OPTIONS.iter().filter(|of_all| options.iter().all(|own| own.key != of_all.key));
            let keys: Vec<&str> = options.iter().chain(kernels).map(|option| option.key).collect();
            return bad(format!("{} has no option {unknown:?}; it takes: {}", spec.driver, keys.join(", ")));
        }
        match options.iter().find(|option| option.required && !spec.options.contains_key(option.key)) {
            Some(missing) => {
                bad(format!("{} needs the option {:?}: {}", spec.driver, missing.key, missing.help))
            }
            None => factory.check(spec),
        }
    }

    /// `spec`, which is asked for, as it is remembered: the same wherever the process works that opens it. The file that a secret lies in is an absolute path then.
    pub fn settled(&self, spec: MountSpec) -> MountSpec {
        match self.factories.get(&spec.driver) {
            Some(factory) => self.remembered(factory.located(spec)),
            None => spec,
        }
    }

    /// `spec`, which is remembered, as this kernel would have done it: older ones did not settle all. The environment of this process says nothing of where its store is.
    pub fn remembered(&self, spec: MountSpec) -> MountSpec {
        let Some(factory) = self.factories.get(&spec.driver) else { return spec };
        let mut spec = factory.settled(spec);
        for option in factory.options().iter().filter(|option| option.secret) {
            if let Some(given) = spec.options.get_mut(option.key)
                && let Some(file) = given.strip_prefix(SECRET_FILE)
                && let Ok(absolute) = std::path::absolute(file)
                && let Some(absolute) = absolute.to_str()
            {
                *given = format!("{SECRET_FILE}{absolute}");
            }
        }
        spec
    }

    /// The options of `spec` as anybody may see them: what its driver declares secret is [`HIDDEN`]. So is all that the kernel itself does not go by, when
    /// there is no such driver that could say.
    pub fn shown(&self, spec: &MountSpec) -> BTreeMap<String, String> {
        let factory = self.factories.get(&spec.driver);
        let options = factory.map_or(&[][..], |factory| factory.options());
        let is_open = |key: &str| {
            is_of_every_mount(key) || options.iter().any(|option| option.key == key && !option.secret)
        };
        let show = |(key, value): (&String, &String)| {
            (key.clone(), if is_open(key) { value.clone() } else { HIDDEN.to_owned() })
        };
        spec.options.iter().map(show).collect()
    }

    /// The options of `spec` that are secret and given themselves: the metastore remembers them in the clear. Where they are, `env:NAME` or `file:PATH`, may be known.
    pub fn in_the_clear<'a>(&self, spec: &'a MountSpec) -> Vec<&'a str> {
        let shown = self.shown(spec);
        let is_told = |text: &str| SECRET_PLACES.iter().any(|place| text.starts_with(place));
        let is_hidden = |key: &str| shown.get(key).is_some_and(|shown| shown == HIDDEN);
        let given = spec.options.iter().filter(|(key, text)| is_hidden(key) && !is_told(text));
        given.map(|(key, _)| key.as_str()).collect()
    }
}

/// With what an option begins that says where a secret is.
pub const SECRET_PLACES: [&str; 2] = ["env:", SECRET_FILE];

/// With what it begins when that is a file.
const SECRET_FILE: &str = "file:";

/// What stands in a listing instead of what is secret.
pub const HIDDEN: &str = "(hidden)";

/// Whether the kernel itself goes by the option of this key.
pub(crate) fn is_of_every_mount(key: &str) -> bool {
    MOUNT_OPTIONS.iter().any(|option| option.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Locked;

    impl DriverFactory for Locked {
        fn name(&self) -> &str {
            "locked"
        }

        fn options(&self) -> &[DriverOption] {
            &[
                DriverOption { key: "bucket", required: false, secret: false, help: "" },
                DriverOption { key: "password", required: false, secret: true, help: "" },
            ]
        }

        fn open(&self, _: &MountSpec, _: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
            Box::pin(std::future::ready(Err(StoreError::NotSupported { what: "being opened" })))
        }
    }

    #[test]
    fn what_a_driver_declares_secret_is_shown_to_nobody() {
        let mut catalogue = Catalogue::new();
        catalogue.add(Arc::new(Locked)).unwrap();
        let check = |driver: &str, key: &str, shown: bool| {
            let spec = MountSpec::new(driver).option(key, "value");
            let expected = if shown { "value" } else { HIDDEN };
            assert_eq!(catalogue.shown(&spec)[key], expected, "{driver} {key}");
            assert!(!format!("{spec:?}").contains("value"), "{spec:?}");
        };
        check("locked", "bucket", true);
        check("locked", "deadline_ms", true);
        check("locked", "password", false);
        check("locked", "unknown", false);
        // A driver that this build leaves out cannot say.
        check("elsewhere", "bucket", false);
        check("elsewhere", "deadline_ms", true);
    }

    #[test]
    fn a_secret_that_is_given_itself_is_told_from_where_it_is() {
        let mut catalogue = Catalogue::new();
        catalogue.add(Arc::new(Locked)).unwrap();
        let check = |password: &str, expected: &[&str]| {
            let spec = MountSpec::new("locked").option("bucket", "b").option("password", password);
            assert_eq!(catalogue.in_the_clear(&spec), expected, "{password}");
        };
        check("hunter22", &["password"]);
        check("env:PASSWORD", &[]);
        check("file:/run/password", &[]);
        assert!(catalogue.in_the_clear(&MountSpec::new("locked").option("bucket", "b")).is_empty());
    }
}
