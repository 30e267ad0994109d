//! The clients: each changes its own home, reads everybody's, calls the services, and tries what is forbidden.

use std::sync::Arc;
use std::time::Duration;

use nexus::service::ServiceRef;
use nexus::services::audit::Audit;
use nexus::services::quota::Quota;
use nexus::{ErrorKind, Executed, Lsn, Nexus, OpId, SysRead, SysRename, SysUnlink, SysWrite, VPath};

use crate::auditing::AUDIT;
use crate::limits::{QUOTA, THRIFTY};
use crate::model::{BAD, Became, CLIENTS, Change, FILES, FORBIDDEN, Home, Mark};
use crate::plan::Dice;
use crate::scene::Scene;
use crate::services::{COUNTER, Counter1, Forbidden, Next, POLICY, Policy1};
use crate::{auditing, limits};

/// Within what a syscall is to end: the kernel waits so long for a committer that is restarted.
pub(crate) const SYSCALL_MAX: Duration = Duration::from_secs(10);

/// Within what a call of a service is to end.
pub(crate) const SERVICE_MAX: Duration = Duration::from_secs(10);

/// Within what a call of the driver that fails at will is to end; the mount is told.
pub(crate) const BAD_MAX: Duration = Duration::from_millis(300);

/// How often a change of unknown outcome is sent again, with the same identity, until one says what became of it.
pub(crate) const REPEATS_MAX: u32 = 50;

/// Files that the driver fails at will with.
const BAD_FILES: u64 = 4;

/// The client that works on the driver that fails at will, beside the rest.
const ON_BAD: usize = 7;

struct Client {
    scene: Arc<Scene>,
    number: usize,
    dice: Dice,
    counter: ServiceRef<Counter1>,
    policy: ServiceRef<Policy1>,
    audit: ServiceRef<Audit>,
    quota: ServiceRef<Quota>,
    /// The agent that may have little.
    thrifty: Nexus,
    /// The newest change that was acknowledged.
    newest: Lsn,
    /// Of the files at the bad driver: the newest version acknowledged or seen, and the newest that was begun.
    bad: Vec<(u64, u64)>,
}

/// Runs one client until the scene ends.
pub(crate) async fn run(scene: Arc<Scene>, number: usize) {
    let dice = Dice::new(scene.life.seed ^ (number as u64 + 1) << 40);
    let (Ok(counter), Ok(policy)) = (scene.nx.service(COUNTER), scene.nx.service(POLICY)) else {
        return scene.broken("the administrator is given no service");
    };
    let (Ok(audit), Ok(quota)) = (scene.nx.service(AUDIT), scene.nx.service(QUOTA)) else {
        return scene.broken("the administrator is given no service");
    };
    let Ok(thrifty) = scene.nx.agent(THRIFTY) else {
        return scene.broken(format_args!("{THRIFTY} is no agent"));
    };
    let bad = vec![(0, 0); usize::try_from(BAD_FILES).unwrap_or(0)];
    let newest = Lsn(0);
    let mut client = Client { scene, number, dice, counter, policy, audit, quota, thrifty, newest, bad };
    while client.scene.goes_on().await && client.step().await {
        let pause = client.dice.around(client.scene.setting.pace);
        client.scene.env.sleep(pause).await;
    }
}

impl Client {
    /// Makes one call; false when there is no going on.
    async fn step(&mut self) -> bool {
        let file = usize::try_from(self.dice.below(FILES as u64)).unwrap_or(0);
        if self.number == ON_BAD && self.dice.below(4) == 0 {
            return self.use_bad_driver().await;
        }
        match self.dice.below(100) {
            0..37 => {
                let whose = usize::try_from(self.dice.below(CLIENTS as u64)).unwrap_or(0);
                self.read(whose, file).await
            }
            37..62 => self.change(Change::Write(file)).await,
            62..69 => self.change(Change::Rename(file)).await,
            69..72 => self.change(Change::Turn).await,
            72..76 => self.change(Change::Remove(file)).await,
            76..85 => self.next().await,
            85..90 => self.ask_policy().await,
            90..93 => self.try_forbidden().await,
            93..97 => self.squeeze().await,
            97..98 => self.look_at_usage().await,
            _ => self.catch_up().await,
        }
    }

    async fn read(&mut self, whose: usize, file: usize) -> bool {
        let before = self.scene.look(whose, file);
        let Some(path) = self.path(&before.path) else { return false };
        let reading = self.scene.nx.send(SysRead::at(&path));
        let found = match self.scene.call("read", path.as_str(), SYSCALL_MAX, reading).await {
            Some(Ok(read)) => Some(Mark::of(&read.data)),
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => None,
            Some(Err(_)) | None if self.scene.is_dying() => return true,
            Some(Err(error)) => {
                self.scene.broken(format_args!("a read failed: {error}"));
                return true;
            }
            None => return true,
        };
        if self.scene.is_dying() && found.is_none() {
            return true;
        }
        self.scene.count(|counts| counts.reads += 1);
        self.scene.check_read(whose, file, &before, found);
        true
    }

    /// Makes a change and finds out what became of it. Ends the client when nobody can say.
    async fn change(&mut self, change: Change) -> bool {
        let scene = self.scene.clone();
        if !scene.homes[self.number].lock().home.allows(change) {
            return true;
        }
        let op_id = OpId((u128::from(self.dice.roll()) << 64) | u128::from(self.dice.roll()));
        let before = scene.begin(self.number, change, op_id);
        let mut repeats = 0;
        let (became, lsn) = loop {
            let Some(sent) = self.send(&before, change, op_id).await else { return false };
            match sent {
                Ok(lsn) => {
                    self.newest = lsn;
                    scene.acknowledged(lsn);
                    break (Became::Acknowledged, Some(lsn));
                }
                Err(error) if error.executed() == Executed::Unknown => {
                    scene.count(|counts| counts.unknown += 1);
                    repeats += 1;
                    if scene.is_dying() {
                        // The oracle looks.
                        return false;
                    }
                    if repeats > REPEATS_MAX {
                        scene.broken(format_args!("nobody says what became of a change: {error}"));
                        return false;
                    }
                    scene.env.sleep(Duration::from_millis(1)).await;
                }
                Err(_) if repeats > 0 && scene.is_dying() => return false,
                Err(error) if repeats > 0 => match self.find_out(&before, change).await {
                    Some(true) => break (Became::Found, None),
                    Some(false) => break (Became::NotMade, None),
                    None => {
                        scene.broken(format_args!(
                            "{change:?} of {before:?} is neither done nor not: {error}"
                        ));
                        return false;
                    }
                },
                Err(error) => {
                    scene.count(|counts| counts.not_executed += 1);
                    // Whoever is killed, but for the root: what was not begun is done after the restart.
                    if !scene.is_dying() {
                        scene.broken(format_args!("a change failed: {error}"));
                    }
                    break (Became::NotMade, None);
                }
            }
        };
        scene.count(|counts| counts.changes += u64::from(became != Became::NotMade));
        scene.end(self.number, change, op_id, (became, lsn));
        true
    }

    /// Sends `change`; none when the call does not end.
    async fn send(&self, before: &Home, change: Change, op_id: OpId) -> Option<nexus::Result<Lsn>> {
        let (nx, client) = (&self.scene.nx, self.number);
        let after = before.after(change);
        let what = format!("{change:?} of client {client}");
        let sending = async {
            match change {
                Change::Write(file) => {
                    let mark = Mark { client, file, version: before.next_version(file) };
                    let path = parsed(&before.path(client, file))?;
                    let write = SysWrite::at(path, mark.content()).create().op_id(op_id);
                    nx.send(write).await.map(|done| done.receipt.lsn)
                }
                Change::Rename(file) => {
                    let (from, to) =
                        (parsed(&before.path(client, file))?, parsed(&after.path(client, file))?);
                    nx.send(SysRename::new(from, to).op_id(op_id)).await.map(|done| done.receipt.lsn)
                }
                Change::Remove(file) => {
                    let path = parsed(&before.path(client, file))?;
                    nx.send(SysUnlink::at(path).op_id(op_id)).await.map(|done| done.receipt.lsn)
                }
                Change::Turn => {
                    let (from, to) = (parsed(&before.folder(client))?, parsed(&after.folder(client))?);
                    nx.send(SysRename::new(from, to).op_id(op_id)).await.map(|done| done.receipt.lsn)
                }
            }
        };
        self.scene.call("change", &what, SYSCALL_MAX, sending).await
    }

    /// Looks whether a change was made; none when it can be neither.
    async fn find_out(&self, before: &Home, change: Change) -> Option<bool> {
        let (nx, client) = (&self.scene.nx, self.number);
        let after = before.after(change);
        let there = async |path: String| nx.exists(path).await.ok();
        match change {
            Change::Write(file) => {
                let read = nx.read(before.path(client, file)).await;
                let version = match read {
                    Ok(content) => Some(Mark::of(&content)?.version),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(_) => return None,
                };
                if version == after.version(file) {
                    return Some(true);
                }
                (version == before.version(file)).then_some(false)
            }
            Change::Remove(file) => Some(!there(before.path(client, file)).await?),
            Change::Rename(_) | Change::Turn => {
                let (from, to) = match change {
                    Change::Rename(file) => (before.path(client, file), after.path(client, file)),
                    _ => (before.folder(client), after.folder(client)),
                };
                match (there(from).await?, there(to).await?) {
                    (true, false) => Some(false),
                    (false, true) => Some(true),
                    _ => None,
                }
            }
        }
    }

    async fn next(&mut self) -> bool {
        next(&self.scene, &self.counter).await;
        true
    }

    async fn ask_policy(&mut self) -> bool {
        let scene = &self.scene;
        let called = scene.call("call", POLICY, SERVICE_MAX, self.policy.call(Forbidden, SERVICE_MAX)).await;
        scene.count(|counts| counts.service_calls += 1);
        match called {
            Some(Ok(forbidden)) if forbidden == FORBIDDEN => {}
            Some(Ok(other)) => scene.broken(format_args!("the policy forbids {other:?}")),
            Some(Err(error)) if error.executed() == Executed::Unknown => {
                scene.count(|counts| counts.service_crashes += 1);
            }
            Some(Err(_)) | None if scene.is_dying() => {}
            Some(Err(error)) => scene.broken(format_args!("a call of the policy failed: {error}")),
            None => {}
        }
        true
    }

    async fn squeeze(&mut self) -> bool {
        limits::squeeze(&self.scene, &self.thrifty, &mut self.dice).await;
        true
    }

    async fn look_at_usage(&mut self) -> bool {
        limits::look(&self.scene, &self.quota, &mut self.dice).await;
        true
    }

    async fn catch_up(&mut self) -> bool {
        if self.newest > Lsn(0) {
            auditing::catch_up(&self.scene, &self.audit, self.newest).await;
        }
        true
    }

    async fn try_forbidden(&mut self) -> bool {
        try_forbidden(&self.scene, &format!("c{}", self.number)).await;
        true
    }

    /// Reads or writes where the driver fails: typed, in time, and never with what was not written.
    async fn use_bad_driver(&mut self) -> bool {
        let file = usize::try_from(self.dice.below(BAD_FILES)).unwrap_or(0);
        let Some(path) = self.path(&format!("{BAD}/f{file}")) else { return false };
        let client = CLIENTS;
        let writes = self.dice.below(2) == 0;
        let scene = self.scene.clone();
        let (seen, begun) = self.bad[file];
        let failed = if writes {
            let mark = Mark { client, file, version: begun + 1 };
            self.bad[file].1 = mark.version;
            let writing = scene.nx.send(SysWrite::at(&path, mark.content()).create());
            match scene.call("write", path.as_str(), BAD_MAX, writing).await {
                Some(Ok(_)) => {
                    self.bad[file].0 = mark.version;
                    false
                }
                Some(Err(_)) | None => true,
            }
        } else {
            let reading = scene.nx.send(SysRead::at(&path));
            match scene.call("read", path.as_str(), BAD_MAX, reading).await {
                Some(Ok(read)) => {
                    match Mark::of(&read.data) {
                        Some(mark) if mark.version >= seen && mark.version <= begun => {
                            self.bad[file].0 = mark.version;
                        }
                        // What another life wrote.
                        Some(_) if seen == 0 => {}
                        found => scene.broken(format_args!(
                            "{path} gave {found:?}, but {seen} was seen and {begun} is the newest"
                        )),
                    }
                    scene.count(|counts| counts.reads += 1);
                    false
                }
                Some(Err(error)) if error.kind() == ErrorKind::NotFound => {
                    if seen > 0 && !scene.is_dying() {
                        scene.broken(format_args!("{path} is gone, but version {seen} was seen: {error}"));
                    }
                    false
                }
                Some(Err(_)) | None => true,
            }
        };
        scene.count(|counts| {
            counts.driver_calls += 1;
            counts.driver_errors += u64::from(failed);
        });
        true
    }

    fn path(&self, text: &str) -> Option<VPath> {
        let parsed = parsed(text);
        parsed.inspect_err(|error| self.scene.broken(error)).ok()
    }
}

/// Has the counter count.
pub(crate) async fn next(scene: &Scene, counter: &ServiceRef<Counter1>) {
    let called = scene.call("call", COUNTER, SERVICE_MAX, counter.call(Next, SERVICE_MAX)).await;
    scene.count(|counts| counts.service_calls += 1);
    let mut counter = scene.counter.lock();
    match called {
        Some(Ok(_)) => counter.answered += 1,
        Some(Err(error)) if error.executed() == Executed::Unknown => {
            counter.unknown += 1;
            scene.count(|counts| counts.service_crashes += 1);
        }
        Some(Err(_)) | None if scene.is_dying() => {}
        Some(Err(error)) => scene.broken(format_args!("a call of the counter failed: {error}")),
        None => counter.unknown += 1,
    }
}

/// Writes where the policy lets nobody write.
pub(crate) async fn try_forbidden(scene: &Scene, name: &str) {
    let path = match parsed(&format!("{FORBIDDEN}/{name}")) {
        Ok(path) => path,
        Err(error) => return scene.broken(error),
    };
    let writing = scene.nx.send(SysWrite::at(&path, "it should not be here").create());
    match scene.call("write", path.as_str(), SYSCALL_MAX, writing).await {
        Some(Ok(_)) => scene.broken("a forbidden operation passed"),
        Some(Err(error)) => match error.kind() {
            ErrorKind::Refused | ErrorKind::Crashed | ErrorKind::PermissionDenied => {
                scene.count(|counts| counts.refused += 1);
            }
            _ if scene.is_dying() => {}
            _ => scene.broken(format_args!("what is forbidden failed otherwise: {error}")),
        },
        None => {}
    }
}

fn parsed(text: &str) -> nexus::Result<VPath> {
    VPath::parse(text).map_err(|why| nexus::Error::bad_path(nexus::Op::Access, text, &why))
}
