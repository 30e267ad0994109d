//! Changes that others make in the mounted folder, as the system tells of them.
//!
//! The system tells of the driver's own changes too. So the driver notes what it makes of each path, and what is found there just so is not told: of
//! the last `OWN_MAX` paths. An older one may be told all the same, which costs whoever hears of it a look.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nexus_actors::{Env, Pool};
use nexus_kernel::hal::{ObjectInfo, OutsideChange, OutsideChanges, StoreError, StoreFuture};
use nexus_messages::{ContentId, EntryType};
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use quick_cache::unsync::Cache;
use tokio::sync::Notify;

use super::folder::{Folder, is_within};
use super::part::HIDDEN;
use crate::pooled;

/// How long a path is let settle before it is told of: many changes in a row are one then.
const SETTLE: Duration = Duration::from_millis(50);

/// How many paths wait to be told of. Beyond that it is told that something was missed.
const PENDING_MAX: usize = 4_096;

/// Of how many paths it is known what the driver made of them.
const OWN_MAX: usize = 4_096;

/// What the driver made of a path, or what was told of it last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Nothing,
    /// A directory: what is in it has paths of its own.
    Directory,
    Other(ContentId),
}

impl Known {
    fn of(info: Option<&ObjectInfo>) -> Self {
        match info {
            None => Self::Nothing,
            Some(info) if info.entry_type == EntryType::Dir => Self::Directory,
            Some(info) => Self::Other(info.tag.clone()),
        }
    }
}

/// What was heard of the folder and is not told yet, and what the driver did itself.
pub(super) struct Heard {
    env: Env,
    state: Mutex<State>,
    bell: Notify,
}

struct State {
    /// In the order in which they were heard of, with when they may be told.
    pending: VecDeque<(Instant, String)>,
    /// Those.
    waiting: HashSet<String>,
    missed: bool,
    closed: bool,
    /// Of what the system does not tell, in words.
    trouble: Option<String>,
    /// At what is being looked, unless the driver has changed it since.
    looking: Option<String>,
    /// How many changes of the driver's own are under way at a path.
    under_way: HashMap<String, usize>,
    known: Cache<String, Known>,
}

impl Heard {
    pub(super) fn new(env: Env) -> Arc<Self> {
        let state = State {
            pending: VecDeque::new(),
            waiting: HashSet::new(),
            missed: false,
            closed: false,
            trouble: None,
            looking: None,
            under_way: HashMap::new(),
            known: Cache::new(OWN_MAX),
        };
        Arc::new(Self { env, state: Mutex::new(state), bell: Notify::new() })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.bell.notify_one();
    }

    /// What is not noticed, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.clone()
    }

    fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// Takes in what the system tells of the folder at `root`, in which `left_out` is not served.
    fn hear(&self, root: &Path, left_out: Option<&str>, told: notify::Result<notify::Event>) {
        let event = match told {
            Ok(event) if !event.need_rescan() => event,
            _ => return self.change(|state| state.missed = true),
        };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return,
            _ => {}
        }
        // That the folder itself went, or is elsewhere, is of all that is in it.
        let is_description = matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
        if !is_description && event.paths.iter().any(|path| path == root) {
            self.change(|state| state.missed = true);
        }
        let due = self.env.now() + SETTLE;
        let paths = event.paths.iter().filter_map(|path| named(root, path));
        let paths = paths.filter(|path| !left_out.is_some_and(|left_out| is_within(path, left_out)));
        self.change(|state| paths.for_each(|path| state.push(due, path)));
    }

    /// Begins a change of the driver's own at `path`.
    pub(super) fn own(self: &Arc<Self>, path: &str) -> Own {
        let mut state = self.state.lock();
        *state.under_way.entry(path.into()).or_default() += 1;
        if state.looking.as_deref() == Some(path) {
            // It is looked at again when this has ended.
            state.looking = None;
            state.push(self.env.now() + SETTLE, path.into());
        }
        drop(state);
        Own { heard: self.clone(), path: path.into(), now: None }
    }

    /// What was known of paths below `path` is of other entries: all that is there came, or went, with it.
    pub(super) fn moved(&self, path: &str) {
        self.state.lock().forget_below(path);
    }

    /// Directories that the driver makes on its way stand there by its doing.
    fn made_above(state: &mut State, path: &str) {
        let ends = path.match_indices('/').map(|(end, _)| &path[..end]);
        for above in ends {
            if state.known.peek(above) != Some(&Known::Directory) {
                state.known.insert(above.into(), Known::Directory);
            }
        }
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heard").field("pending", &self.state.lock().pending.len()).finish_non_exhaustive()
    }
}

impl State {
    fn push(&mut self, due: Instant, path: String) {
        if self.waiting.contains(&path) {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            self.missed = true;
            return;
        }
        self.waiting.insert(path.clone());
        self.pending.push_back((due, path));
    }

    fn forget_below(&mut self, path: &str) {
        self.known.retain(|known, _| known.strip_prefix(path).is_none_or(|rest| !rest.starts_with('/')));
    }

    fn pop(&mut self) {
        if let Some((_, path)) = self.pending.pop_front() {
            self.waiting.remove(&path);
        }
    }
}

/// The path below `root`, if it is one that the driver serves.
fn named(root: &Path, path: &Path) -> Option<String> {
    let below = path.strip_prefix(root).ok()?.to_str()?;
    let is_hidden = below.split('/').any(|name| name.starts_with(HIDDEN));
    (!below.is_empty() && !is_hidden).then(|| below.to_owned())
}

/// A change of the driver's own, until it is dropped.
#[derive(Debug)]
pub(super) struct Own {
    heard: Arc<Heard>,
    path: String,
    now: Option<Known>,
}

impl Own {
    /// What is at its path by the change.
    pub(super) fn made(&mut self, now: Option<&ObjectInfo>) {
        self.now = Some(Known::of(now));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut state = self.heard.state.lock();
        match self.now.take() {
            Some(now) => {
                Heard::made_above(&mut state, &self.path);
                state.known.insert(self.path.clone(), now);
            }
            // It failed: what it left is for a look to tell.
            None => drop(state.known.remove(&self.path)),
        }
        if let Some(count) = state.under_way.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(&self.path);
            }
        }
    }
}

/// Has the system tell of the folder, for as long as it is there.
pub(super) struct Watching {
    heard: Arc<Heard>,
    _watcher: RecommendedWatcher,
}

impl Watching {
    /// Begins. Looks at each folder in it, and blocks for as long.
    pub(super) fn begin(
        root: PathBuf,
        left_out: Option<String>,
        heard: Arc<Heard>,
    ) -> Result<Self, StoreError> {
        let failed = |error: notify::Error| StoreError::Backend {
            what: format!("having the system tell of changes in {}", root.display()),
            cause: error.to_string(),
        };
        let (hears, below) = (heard.clone(), root.clone());
        let config = notify::Config::default().with_follow_symlinks(false);
        let mut watcher =
            RecommendedWatcher::new(move |told| hears.hear(&below, left_out.as_deref(), told), config)
                .map_err(failed)?;
        let mut deaf = Deaf::default();
        let begun = watch_below(&mut watcher, &root, &mut deaf).map_err(failed);
        let trouble = match &begun {
            Err(error) => Some(error.to_string()),
            Ok(()) => deaf.told(&root),
        };
        if let Some(trouble) = &trouble {
            tracing::warn!(folder = %root.display(), trouble, "not all that others change is noticed");
        }
        heard.state.lock().trouble = trouble;
        begun.map(|()| Self { heard, _watcher: watcher })
    }
}

/// Folders of which the system does not tell this process.
#[derive(Default)]
struct Deaf {
    count: u64,
    first: Option<(PathBuf, notify::Error)>,
}

impl Deaf {
    fn told(&self, root: &Path) -> Option<String> {
        let (path, error) = self.first.as_ref()?;
        let path = path.strip_prefix(root).unwrap_or(path).display();
        Some(format!("what others change in {} folders is not noticed, such as {path}: {error}", self.count))
    }
}

/// Has `watcher` tell of `folder` and of all below it, but for what this process may not look into, or what went meanwhile.
fn watch_below(watcher: &mut dyn Watcher, folder: &Path, deaf: &mut Deaf) -> notify::Result<()> {
    let Err(error) = watcher.watch(folder, RecursiveMode::Recursive) else { return Ok(()) };
    let kind = match &error.kind {
        notify::ErrorKind::PathNotFound => ErrorKind::NotFound,
        notify::ErrorKind::Io(error) => error.kind(),
        _ => return Err(error),
    };
    if !matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied) {
        return Err(error);
    }
    // It ended at the first one that is so. What it came to before that is watched, and each folder that comes to be there.
    let Ok(entries) = std::fs::read_dir(folder) else {
        if kind == ErrorKind::PermissionDenied {
            deaf.count += 1;
            deaf.first.get_or_insert((folder.to_owned(), error));
        }
        return Ok(());
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir())) {
        watch_below(watcher, &entry.path(), deaf)?;
    }
    Ok(())
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").field("heard", &self.heard).finish_non_exhaustive()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.heard.close();
    }
}

/// What is told of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) heard: Arc<Heard>,
    pub(super) folder: Weak<Folder>,
    pub(super) pool: Pool,
}

/// What to do next.
enum Next {
    Tell(OutsideChange),
    Look(String),
    Wait(Option<Duration>),
    End,
}

impl Told {
    fn step(&self) -> Next {
        let mut state = self.heard.state.lock();
        if state.closed {
            return Next::End;
        }
        if let Some(path) = state.looking.clone() {
            // Whoever looked was dropped.
            return Next::Look(path);
        }
        if std::mem::take(&mut state.missed) {
            state.pending.clear();
            state.waiting.clear();
            return Next::Tell(OutsideChange::Missed);
        }
        let now = self.heard.env.now();
        let Some((due, path)) = state.pending.front().cloned() else { return Next::Wait(None) };
        if due > now {
            return Next::Wait(Some(due - now));
        }
        state.pop();
        if state.under_way.contains_key(&path) {
            // What it comes to is known when it has ended.
            state.push(now + SETTLE, path);
            return Next::Wait(Some(Duration::ZERO));
        }
        state.looking = Some(path.clone());
        Next::Look(path)
    }

    /// What is at `path` now, if that is news.
    async fn look(&self, path: &str) -> Result<Option<OutsideChange>, StoreError> {
        let Some(folder) = self.folder.upgrade() else { return Ok(None) };
        let at = path.to_owned();
        let looked = pooled::look(&self.pool, "looking at what was changed", move || folder.stat(&at)).await;
        let now = match looked {
            Ok(info) => Some(info),
            Err(StoreError::NotFound { .. } | StoreError::NotADirectory { .. }) => None,
            // It is there, and cannot be seen.
            Err(StoreError::Io { .. }) => {
                return Ok(self.heard.state.lock().looking.take().map(|_| OutsideChange::Missed));
            }
            Err(error) => return Err(error),
        };
        let mut state = self.heard.state.lock();
        let known = Known::of(now.as_ref());
        if state.looking.take().is_none() || state.known.get(path) == Some(&known) {
            return Ok(None);
        }
        if known == Known::Directory {
            // It may have been moved here, with all that is in it.
            state.forget_below(path);
        }
        state.known.insert(path.into(), known);
        Ok(Some(OutsideChange::At { path: path.into(), now }))
    }
}

impl OutsideChanges for Told {
    fn next(&mut self) -> StoreFuture<'_, Option<OutsideChange>> {
        Box::pin(async move {
            loop {
                match self.step() {
                    Next::End => return Ok(None),
                    Next::Tell(change) => return Ok(Some(change)),
                    Next::Look(path) => {
                        if let Some(change) = self.look(&path).await? {
                            return Ok(Some(change));
                        }
                    }
                    Next::Wait(None) => self.heard.bell.notified().await,
                    Next::Wait(Some(time)) => self.heard.env.sleep(time).await,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use nexus_actors::{HostConfig, block_on};

    use super::*;

    #[test]
    fn more_than_can_be_told_is_told_as_missed_and_what_comes_then_is_told() {
        let env = Env::host(HostConfig::default()).unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("there"), "x").unwrap();
        let (heard, folder) = (Heard::new(env.clone()), Arc::new(Folder::open(root.path()).unwrap()));
        let mut told =
            Told { heard: heard.clone(), folder: Arc::downgrade(&folder), pool: env.pool("test", 1, 8) };
        let event = |name: &str| notify::Event::new(EventKind::Any).add_path(folder.path().join(name));
        let hear = |told| heard.hear(folder.path(), None, told);
        for n in 0..=PENDING_MAX {
            hear(Ok(event(&n.to_string())));
        }
        hear(Ok(event(&format!("{HIDDEN}1"))));
        assert_eq!(block_on(told.next()).unwrap(), Some(OutsideChange::Missed));
        hear(Ok(event("there")));
        let Some(OutsideChange::At { path, now: Some(_) }) = block_on(told.next()).unwrap() else {
            panic!("it is there")
        };
        assert_eq!(path, "there");
        hear(Err(notify::Error::generic("the system lost count")));
        assert_eq!(block_on(told.next()).unwrap(), Some(OutsideChange::Missed));
        hear(Ok(notify::Event::new(EventKind::Any).add_path(folder.path().to_owned())));
        assert_eq!(block_on(told.next()).unwrap(), Some(OutsideChange::Missed), "the folder itself went");
        heard.close();
        assert_eq!(block_on(told.next()).unwrap(), None);
        env.stop();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_may_not_be_looked_into_keeps_no_other_from_being_noticed() {
        crate::local::as_nobody(|| {
            let env = Env::host(HostConfig::default()).unwrap();
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            for name in ["a", "b/closed", "b/open/deep", "c"] {
                std::fs::create_dir_all(at(name)).unwrap();
            }
            let mode = |mode| std::fs::set_permissions(at("b/closed"), Permissions::from_mode(mode)).unwrap();
            mode(0);
            let (heard, folder) = (Heard::new(env.clone()), Arc::new(Folder::open(root.path()).unwrap()));
            let mut told =
                Told { heard: heard.clone(), folder: Arc::downgrade(&folder), pool: env.pool("test", 1, 8) };
            let watching = Watching::begin(folder.path().to_owned(), None, heard.clone()).unwrap();
            let trouble = heard.trouble().unwrap();
            assert!(trouble.contains("1 folders") && trouble.contains("b/closed"), "{trouble}");
            std::fs::create_dir(at("b/open/new")).unwrap();
            for name in ["a/f", "b/f", "b/open/deep/f", "c/f"] {
                std::fs::write(at(name), "theirs").unwrap();
                loop {
                    let told = block_on(env.timeout(SETTLE * 1_000, told.next()));
                    if matches!(told, Ok(Ok(Some(OutsideChange::At { path, .. }))) if path == name) {
                        break;
                    }
                }
            }
            drop(watching);
            mode(0o700);
            env.stop();
        });
    }

    #[test]
    fn what_was_known_below_a_folder_does_not_hide_what_becomes_of_another_one_in_its_place() {
        let env = Env::host(HostConfig::default()).unwrap();
        let root = tempfile::tempdir().unwrap();
        let (heard, folder) = (Heard::new(env.clone()), Arc::new(Folder::open(root.path()).unwrap()));
        let mut told =
            Told { heard: heard.clone(), folder: Arc::downgrade(&folder), pool: env.pool("test", 1, 8) };
        let mut told_of = |path: &str| {
            let event = notify::Event::new(EventKind::Any).add_path(folder.path().join(path));
            heard.hear(folder.path(), None, Ok(event));
            match block_on(env.timeout(SETTLE * 20, told.next())) {
                Ok(Ok(Some(OutsideChange::At { path: at, now }))) if at == path => now.is_some(),
                other => panic!("{path}: {other:?}"),
            }
        };
        // The driver removed it, and moves another folder here that has one of that name; then others remove that.
        heard.own("d/x").made(None);
        std::fs::create_dir(root.path().join("d")).unwrap();
        heard.own("d").made(Some(&folder.stat("d").unwrap()));
        heard.moved("d");
        assert!(!told_of("d/x"));
        std::fs::remove_dir(root.path().join("d")).unwrap();
        assert!(!told_of("d"));
        // So it is when others move it here.
        std::fs::create_dir(root.path().join("d")).unwrap();
        heard.own("d/x").made(None);
        heard.own("d").made(None);
        assert!(told_of("d"));
        assert!(!told_of("d/x"));
        env.stop();
    }

    #[test]
    fn what_is_changed_while_it_is_looked_at_is_looked_at_again() {
        let env = Env::host(HostConfig::default()).unwrap();
        let root = tempfile::tempdir().unwrap();
        let (heard, folder) = (Heard::new(env.clone()), Arc::new(Folder::open(root.path()).unwrap()));
        let told =
            Told { heard: heard.clone(), folder: Arc::downgrade(&folder), pool: env.pool("test", 1, 8) };
        let hear = || {
            let event = notify::Event::new(EventKind::Any).add_path(folder.path().join("f"));
            heard.hear(folder.path(), None, Ok(event));
        };
        let look = || loop {
            match told.step() {
                Next::Look(path) => break path,
                Next::Wait(Some(time)) => block_on(env.sleep(time)),
                _ => panic!("there is something to look at"),
            }
        };
        hear();
        let path = look();
        // Its look was dropped.
        assert_eq!(look(), path);
        // The driver's own change begins, and ends, between the look and what comes of it.
        let mut own = heard.own("f");
        std::fs::write(root.path().join("f"), "ours").unwrap();
        own.made(Some(&folder.stat("f").unwrap()));
        drop(own);
        assert_eq!(block_on(told.look(&path)).unwrap(), None);
        assert_eq!(look(), path);
        assert_eq!(block_on(told.look(&path)).unwrap(), None, "it is the driver's own");
        std::fs::write(root.path().join("f"), "theirs").unwrap();
        hear();
        assert!(matches!(block_on(told.look(&look())).unwrap(), Some(OutsideChange::At { .. })));
        env.stop();
    }
}
