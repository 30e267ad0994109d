//! One check, or one scrub, from its beginning to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::Env;
use nexus_messages::{ContentId, FileId, Timestamp, VPath, ZoneId};

use super::content::{BadBlob, Blob, Found, Inspector, Named, contents, inline};
use super::finding::{Fault, Finding, Remedy};
use super::log;
use super::pace::Pace;
use super::pages::{File, Version, file_at, files_behind, versions_behind};
use super::paths::Paths;
use super::survey::{Places, Suspect, Suspects, survey};
use super::view::{Check, CheckState, Position, Told};
use crate::content::Hash;
use crate::garbage::{Collect, CollectionState};
use crate::hal::{Damage, RowKey, StoreError, TreeId};
use crate::kernel::Kernel;
use crate::mounts::Mount;
use crate::namespace::{Placement, dentry_name, inode_key, zones};
use crate::store::Store;

/// How often a file is looked at again that changes whenever it looks wrong.
const LOOKS_MAX: usize = 16;

/// How long the collector may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often a collection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What could not be looked at is told so often.
const LEFT_OUT_MAX: usize = 100;

/// How many findings are told. Beyond that they are counted.
const FINDINGS_MAX: usize = 1_000;

/// Why a run goes no further.
#[derive(Debug)]
pub(super) enum Halt {
    /// Its scrubber is gone.
    Superseded,
    Failed(String),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// For whom something runs.
#[derive(Clone)]
pub(super) struct Course {
    pub(super) kernel: Arc<Kernel>,
    pub(super) generation: u64,
}

impl Course {
    pub(super) fn env(&self) -> &Env {
        self.kernel.env()
    }

    /// Whether to go on.
    pub(super) fn check(&self) -> Result<(), Halt> {
        if self.kernel.scrubbing().is_current(self.generation) { Ok(()) } else { Err(Halt::Superseded) }
    }

    /// Runs a look at the rows where it holds up nobody. What takes long asks now and then whether it is to go on.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Store, &dyn Fn() -> bool) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Halt> {
        self.check()?;
        let me = self.clone();
        let done =
            self.kernel.scrubbing().aside().run(move || job(me.kernel.store(), &|| me.check().is_ok()));
        let done = done.await.map_err(|error| Halt::Failed(format!("reading rows: {error}")))?;
        self.check()?;
        Ok(done?)
    }
}

/// What a run is to do.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// Look at all that is stored, and repair if that is said.
    Check { repair: bool },
    /// Read the content from here on.
    Scrub { from: Position, pace: Option<Pace> },
}

/// A run.
pub(super) struct Run {
    pub(super) course: Course,
    number: u64,
    task: Task,
    pub(super) inspector: Inspector,
    suspects: Suspects,
    pub(super) places: Arc<Places>,
    /// The points of mounts by their roots, attached or not.
    points: Arc<BTreeMap<FileId, VPath>>,
    /// The mounts that are attached, by their roots.
    pub(super) mounts: BTreeMap<FileId, Arc<Mount>>,
    pub(super) zones: BTreeMap<TreeId, ZoneId>,
    left_out: BTreeSet<String>,
}

impl Run {
    pub(super) fn new(course: Course, number: u64, task: Task) -> Self {
        let pace = match &task {
            Task::Scrub { pace, .. } => *pace,
            Task::Check { .. } => None,
        };
        Self {
            inspector: Inspector::new(course.clone(), pace),
            course,
            number,
            task,
            suspects: Suspects::default(),
            places: Arc::default(),
            points: Arc::default(),
            mounts: BTreeMap::new(),
            zones: BTreeMap::new(),
            left_out: BTreeSet::new(),
        }
    }

    /// Runs to the end, and tells how it went.
    pub(super) async fn run(mut self) {
        let done = match self.task.clone() {
            Task::Check { repair } => Box::pin(self.check(repair)).await,
            Task::Scrub { from, .. } => Box::pin(self.scrub(from)).await,
        };
        // It may have been given up within a look that was cut short for that.
        let state = match done.and_then(|()| self.course.check()) {
            Ok(()) => CheckState::Done,
            Err(Halt::Superseded) => return,
            Err(Halt::Failed(_)) if self.course.check().is_err() => return,
            Err(Halt::Failed(cause)) => {
                tracing::error!(number = self.number, cause, "a check of the store was cut short");
                CheckState::Failed { cause }
            }
        };
        self.count();
        if self.is_scrub() {
            self.course.kernel.scrubbing().come_to(self.course.generation, None);
        }
        let ended = Timestamp(self.course.env().wall());
        self.tell(|latest| (latest.state, latest.ended) = (state, Some(ended)));
        if let Some(done) = self.told().latest() {
            let (number, findings, left) = (self.number, done.findings.len(), done.left());
            if left > 0 {
                tracing::error!(number, findings, left, "something is wrong with what is stored");
            } else {
                tracing::info!(
                    number,
                    findings,
                    blobs = done.blobs,
                    bytes = done.bytes,
                    "the store was checked"
                );
            }
        }
    }

    fn is_scrub(&self) -> bool {
        matches!(self.task, Task::Scrub { .. })
    }

    fn told(&self) -> &Told {
        let scrubbing = self.course.kernel.scrubbing();
        if self.is_scrub() { &scrubbing.scrubs } else { &scrubbing.checks }
    }

    fn tell(&self, change: impl FnOnce(&mut Check)) {
        // A ghost is not heard.
        if self.course.check().is_ok() {
            self.told().tell(self.number, change);
        }
    }

    fn state(&self, state: CheckState) {
        self.tell(|latest| latest.state = state);
    }

    /// Tells what was read.
    fn count(&mut self) {
        let (blobs, bytes) = self.inspector.take_read();
        if self.is_scrub() {
            self.course.kernel.scrubbing().add_scrubbed(bytes);
        }
        self.tell(|latest| (latest.blobs, latest.bytes) = (latest.blobs + blobs, latest.bytes + bytes));
    }

    fn leave_out(&mut self, why: String) {
        if self.left_out.len() < LEFT_OUT_MAX && self.left_out.insert(why.clone()) {
            self.tell(|latest| latest.left_out.push(why));
        }
    }

    async fn check(&mut self, repair: bool) -> Result<(), Halt> {
        let damage = self.damaged_rows().await?;
        if !damage.is_empty() {
            for Damage { what, found } in damage {
                self.suspects.push(Suspect::of_tree(
                    TreeId::ROOT,
                    Fault::DamagedRows,
                    format!("{what}: {found}"),
                ));
            }
            // By rows that may say anything nothing else is told, and nothing is repaired.
            return self.settle(repair).await;
        }
        self.survey().await?;
        self.state(CheckState::Contents);
        self.files(None).await?;
        self.state(CheckState::Versions);
        self.versions(None).await?;
        self.state(CheckState::Log);
        self.log().await?;
        self.stores().await?;
        self.state(CheckState::Garbage);
        self.garbage().await?;
        self.state(CheckState::Settling);
        self.settle(repair).await
    }

    /// How what the rows are kept in is damaged.
    async fn damaged_rows(&self) -> Result<Vec<Damage>, Halt> {
        self.course.look(|store, _| store.metastore().verify()).await
    }

    async fn scrub(&mut self, from: Position) -> Result<(), Halt> {
        self.survey().await?;
        // It reads content. What is wrong with names is for a check to tell.
        self.suspects = Suspects::default();
        let versions_from = match from {
            Position::Names(after) => {
                self.state(CheckState::Contents);
                self.files(after).await?;
                None
            }
            Position::Versions(after) => after,
        };
        self.state(CheckState::Versions);
        self.versions(versions_from).await
    }

    /// Matches names with metadata, and learns where everything lies.
    async fn survey(&mut self) -> Result<(), Halt> {
        self.state(CheckState::Names);
        let (found, zones) = self
            .course
            .look(|store, goes_on| {
                let found = survey(store.metastore(), goes_on)?;
                // One that cannot be read is suspected already.
                let zones = zones(&*store.metastore().reader()?).unwrap_or_default();
                Ok((found, zones))
            })
            .await?;
        let zones = zones.into_iter().map(|(zone, tree)| (tree, zone));
        self.zones = zones.chain([(TreeId::ROOT, ZoneId::root())]).collect();
        let attached = self.course.kernel.mounts().all();
        self.mounts = attached.into_iter().map(|mount| (mount.root, mount)).collect();
        self.tell(|latest| (latest.names, latest.entries) = (found.names, found.entries));
        (self.suspects, self.places) = (found.suspects, Arc::new(found.places));
        self.points = Arc::new(found.points);
        found.left_out.into_iter().for_each(|why| self.leave_out(why));
        for (root, point) in self.points.clone().iter() {
            if !self.mounts.contains_key(root) {
                self.leave_out(format!("{point}: it is not mounted"));
            }
        }
        Ok(())
    }

    /// The mount that the children of the directory are served by; none when no mount that is attached does.
    pub(super) fn mount_of(&self, tree: TreeId, directory: FileId) -> Option<Arc<Mount>> {
        if let Some(root) = self.places.root(tree, directory) {
            return self.mounts.get(&root).cloned();
        }
        // Made since the survey, or one of too many: if it can be only one, it is.
        let mut all = self.mounts.values().filter(|mount| mount.tree == tree && !mount.is_path_addressed());
        let only = all.next().filter(|_| all.next().is_none());
        only.cloned()
    }

    /// Looks at the content of all files whose names come behind `after`.
    async fn files(&mut self, mut after: Option<RowKey>) -> Result<(), Halt> {
        loop {
            let from = after.clone();
            let (page, last) = self.course.look(move |store, _| files_behind(store, from.as_ref())).await?;
            for file in page {
                let key = file.key.clone();
                self.file(file).await?;
                self.come_to(|| Position::Names(Some(key))).await?;
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// All before this place is looked at.
    async fn come_to(&mut self, position: impl FnOnce() -> Position) -> Result<(), Halt> {
        if self.is_scrub() {
            // Told before the place is: what was found is not found again behind it.
            if !self.suspects.is_empty() {
                self.settle(false).await?;
            }
            self.course.kernel.scrubbing().come_to(self.course.generation, Some(position()));
        }
        self.count();
        Ok(())
    }

    async fn file(&mut self, mut file: File) -> Result<(), Halt> {
        self.tell(|latest| latest.files += 1);
        let Some(mount) = self.mount_of(file.tree, file.parent) else { return Ok(()) };
        let mut seen = false;
        for _ in 0..LOOKS_MAX {
            if file.row.placement == Placement::Inline {
                self.inspector.count(1, file.row.size).await?;
            }
            let told = file.row.size;
            let named = std::mem::replace(&mut file.named, Named::Known(Found::Whole));
            let found = self.inspector.content(&mount, named, told).await?;
            match found {
                Found::Whole => return Ok(()),
                Found::Unasked(why) => {
                    self.leave_out(why);
                    return Ok(());
                }
                found if seen => {
                    self.suspect_file(&mount, &file, told, found);
                    return Ok(());
                }
                _ => {}
            }
            // It may have changed meanwhile, and what was looked for may be rightly gone: looked at again, until it is the same twice.
            let (key, value, inode) = (file.key.clone(), file.value.clone(), file.inode.clone());
            match self.course.look(move |store, _| file_at(&*store.metastore().reader()?, &key)).await? {
                None => return Ok(()),
                Some(again) => {
                    seen = again.value == value && again.inode == inode;
                    file = again;
                }
            }
        }
        // Whoever changes it that often finds what is wrong with it.
        Ok(())
    }

    fn suspect_file(&mut self, mount: &Arc<Mount>, file: &File, told: u64, found: Found) {
        let Ok(name) = dentry_name(&file.key) else { return };
        let new = |fault, cause: String| {
            let suspect = Suspect::new(file.tree, Some(file.id), fault, cause).named(file.parent, name);
            let suspect = suspect.seen(file.key.clone(), Some(file.value.clone()));
            suspect.seen(inode_key(file.tree, file.id), Some(file.inode.clone()))
        };
        match found {
            Found::Whole | Found::Unasked(_) => {}
            Found::Size(found) => self.suspects.push(new(Fault::WrongSize { told, found }, String::new())),
            Found::NoAddress => {
                self.suspects.push(new(Fault::NoAddress, format!("{:?}", file.row.content_id)));
            }
            Found::Bad(blobs) => {
                for BadBlob { hash, missing, cause } in blobs {
                    let content = ContentId::Blake3(hash).to_string();
                    let fault = match missing {
                        true => Fault::MissingContent { content },
                        false => Fault::DamagedContent { content },
                    };
                    let mut suspect = new(fault, cause);
                    suspect.blob = Some(hash);
                    suspect.mount = (file.row.placement != Placement::Inline).then_some(mount.root);
                    self.suspects.push(suspect);
                }
            }
        }
    }

    /// Looks at the rows of the history behind `after`, and their content.
    async fn versions(&mut self, mut after: Option<RowKey>) -> Result<(), Halt> {
        loop {
            let from = after.clone();
            let page = self.course.look(move |store, _| versions_behind(store, from.as_ref())).await?;
            self.tell(|latest| latest.versions += page.rows);
            if !self.is_scrub() {
                page.suspects.into_iter().for_each(|suspect| self.suspects.push(suspect));
            }
            for version in page.versions {
                let key = version.key.clone();
                self.version(version).await?;
                self.come_to(|| Position::Versions(Some(key))).await?;
            }
            match page.last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    async fn version(&mut self, mut version: Version) -> Result<(), Halt> {
        let Some(mount) = self.mounts.get(&version.mount).cloned() else { return Ok(()) };
        let is_inline = version.row.placement == Placement::Inline;
        if is_inline {
            self.inspector.count(1, version.row.size).await?;
        }
        let named = std::mem::replace(&mut version.named, Named::Known(Found::Whole));
        let found = self.inspector.content(&mount, named, version.row.size).await?;
        let new = |content: String, cause: String| {
            let fault = Fault::LostVersion { until: version.until, content };
            let suspect = Suspect::new(version.tree, version.id, fault, cause);
            suspect.seen(version.key.clone(), Some(version.value.clone()))
        };
        let id = version.row.content_id.as_ref().map(ToString::to_string).unwrap_or_default();
        match found {
            Found::Whole => {}
            Found::Unasked(why) => self.leave_out(why),
            Found::Size(found) => {
                let cause = format!("{found} bytes, and {} are told", version.row.size);
                self.suspects.push(new(id, cause));
            }
            Found::NoAddress => self.suspects.push(new(id, "it does not say which content it had".into())),
            Found::Bad(blobs) => {
                for BadBlob { hash, cause, .. } in blobs {
                    let mut suspect = new(ContentId::Blake3(hash).to_string(), cause);
                    (suspect.blob, suspect.mount) = (Some(hash), (!is_inline).then_some(mount.root));
                    self.suspects.push(suspect);
                }
            }
        }
        Ok(())
    }

    async fn log(&mut self) -> Result<(), Halt> {
        for tree in self.zones.keys().copied().collect::<Vec<_>>() {
            let look = self.course.look(move |store, goes_on| log::check(store.metastore(), tree, goes_on));
            let (records, suspects) = look.await?;
            self.tell(|latest| latest.records += records);
            suspects.into_iter().for_each(|suspect| self.suspects.push(suspect));
        }
        Ok(())
    }

    /// What the stores know of their own files.
    async fn stores(&mut self) -> Result<(), Halt> {
        let mounts: Vec<_> =
            self.mounts.values().filter(|mount| !mount.is_path_addressed()).cloned().collect();
        let mut asked: Vec<Arc<Mount>> = Vec::new();
        for mount in mounts.into_iter().filter(|mount| mount.has_driver()) {
            if asked.iter().any(|other| other.shares_store_with(&mount)) {
                continue;
            }
            self.course.check()?;
            let told = {
                let driver = mount.lease().await;
                match contents(&driver) {
                    Ok(store) => store.damage().await,
                    Err(error) => Err(error),
                }
            };
            match told {
                Ok(damage) => {
                    for part in damage {
                        let cause = format!("found when the store of {} was opened", mount.point);
                        let suspect = Suspect::of_tree(mount.tree, Fault::DamagedStore { part }, cause);
                        self.suspects.push(suspect);
                    }
                }
                Err(error) => self.leave_out(format!("{}: {error}", mount.point)),
            }
            asked.push(mount);
        }
        Ok(())
    }

    /// Lets the collector count what nothing names: it knows what is held just now.
    async fn garbage(&mut self) -> Result<(), Halt> {
        let kernel = self.course.kernel.clone();
        let order = Collect { dry_run: true, grace: Some(Duration::ZERO) };
        loop {
            self.course.check()?;
            let number = match kernel.collector().call(order, ANSWER_MAX).await {
                Ok(Some(number)) => number,
                // One runs that takes something away. It ends.
                Ok(None) => {
                    self.course.env().sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(error) => {
                    self.leave_out(format!("garbage: {error}"));
                    return Ok(());
                }
            };
            loop {
                self.course.check()?;
                let Some(latest) = kernel.garbage().latest().filter(|latest| latest.number == number) else {
                    break;
                };
                match latest.state {
                    CollectionState::Done => {
                        self.tell(|check| check.garbage = Some(latest.freed));
                        return Ok(());
                    }
                    CollectionState::Failed { cause } => {
                        self.leave_out(format!("garbage: {cause}"));
                        return Ok(());
                    }
                    _ => self.course.env().sleep(LOOK_EVERY).await,
                }
            }
        }
    }

    /// Looks again at all that is suspected, and tells what is still so; repairs it if that is asked for.
    async fn settle(&mut self, repair: bool) -> Result<(), Halt> {
        let mut suspects = std::mem::take(&mut self.suspects);
        // What a repair of one brings back is not repaired once more.
        suspects.all.sort_by_key(|suspect| rank(&suspect.fault));
        let mut confirmed = Vec::new();
        for suspect in suspects.all {
            if self.is_so(&suspect).await? {
                confirmed.push(suspect);
            }
        }
        let (places, points) = (self.places.clone(), self.points.clone());
        let named = self
            .course
            .look(move |store, goes_on| {
                let reader = store.metastore().reader()?;
                let mut paths = Paths::new(&*reader, &places, &points, goes_on);
                paths.name(&mut confirmed)?;
                let told =
                    confirmed.iter().map(|suspect| paths.of(suspect)).collect::<Result<Vec<_>, _>>()?;
                Ok(confirmed.into_iter().zip(told).collect::<Vec<_>>())
            })
            .await?;
        for (suspect, path) in named {
            let remedy = match repair {
                true => self.repair(&suspect, path.as_deref()).await?,
                false => Remedy::Untried,
            };
            let finding = Finding {
                zone: self.zones.get(&suspect.tree).cloned(),
                path,
                file_id: suspect.id,
                fault: suspect.fault,
                cause: suspect.cause,
                remedy,
            };
            tracing::error!(%finding, "found");
            self.tell(|latest| {
                // A scrub that was killed between the two told it, and finds it again.
                if latest.findings.contains(&finding) {
                    return;
                }
                if latest.findings.len() < FINDINGS_MAX {
                    latest.findings.push(finding);
                } else {
                    latest.untold += 1;
                }
            });
        }
        self.tell(|latest| latest.untold += suspects.untold);
        Ok(())
    }

    /// Whether it is still as it was suspected.
    pub(super) async fn is_so(&mut self, suspect: &Suspect) -> Result<bool, Halt> {
        if let Some(hash) = suspect.blob
            && self.is_whole(suspect.mount, hash).await?
        {
            return Ok(false);
        }
        // Behind the content: what was named is there, as long as it is named.
        let again = suspect.clone();
        self.course.look(move |store, _| again.holds(&*store.metastore().reader()?)).await
    }

    /// Whether the blob can be read: in the store of the mount with this root, or among the rows.
    pub(super) async fn is_whole(&mut self, mount: Option<FileId>, hash: Hash) -> Result<bool, Halt> {
        match mount {
            None => {
                let look = self.course.look(move |store, _| inline(&*store.metastore().reader()?, &hash));
                Ok(look.await?.is_ok())
            }
            Some(root) => match self.mounts.get(&root).cloned() {
                Some(mount) => Ok(!matches!(self.inspector.blob(&mount, &hash).await?, Blob::Bad(_))),
                None => Ok(false),
            },
        }
    }
}

/// What is repaired first.
fn rank(fault: &Fault) -> u8 {
    match fault {
        Fault::NameWithoutInode | Fault::WrongType { .. } => 0,
        Fault::Circle { .. } => 1,
        Fault::NamesInNothing => 2,
        Fault::InodeWithoutName => 3,
        _ => 4,
    }
}
