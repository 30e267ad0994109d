//! `tour`: one minute through the kernel, each claim checked.

mod crash;
mod handover;
mod kills;
mod policy;
mod reads;
mod search;
mod source;
mod together;
pub(crate) mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus::sys::ActorEntry;
use nexus::syscall::SysStat;
use nexus::{ErrorKind, VPath};
use nexus_actors::{Env, HostConfig};
use serde_json::{Value, json};

use self::source::Source;
use crate::args::TourArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::ps;
use crate::run::config;
use crate::session::{Session, path};
use crate::signals::{ENDING, Signals};
use crate::transfer::Transfer;
use crate::transfer::import::Import;

/// What a tour takes of a large tree, so that it stays within its minute.
const FILES_MAX: u64 = 20_000;
const BYTES_MAX: u64 = 512 << 20;

/// How often a writer is killed, and after how many acknowledged writes each time.
const KILLS: [usize; 3] = [150, 400, 900];

/// How long the kernel of a tour that is interrupted may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A tour under way.
struct Tour<'a> {
    out: &'a Output,
    env: Env,
    begun: Instant,
    profile: Option<&'a str>,
    /// The data folder.
    data: PathBuf,
    /// The directory that the tour works in.
    base: VPath,
}

/// Walks through the kernel on `args.source`. Fails at the first claim that does not hold.
pub(crate) async fn tour(
    out: &Output,
    args: TourArgs,
    data: Option<PathBuf>,
    profile: Option<&str>,
) -> Outcome {
    // Clock and threads of the tour itself; the kernels have their own.
    let env = Env::host(HostConfig::default())
        .map_err(|error| Failure::host("tour", Path::new("threads"), error))?;
    let done = Box::pin(unless_interrupted(out, &env, args, data, profile)).await;
    env.stop();
    done
}

/// Walks, and leaves nothing in the folder of what is temporary: also when a signal ends it.
async fn unless_interrupted(
    out: &Output,
    env: &Env,
    args: TourArgs,
    data: Option<PathBuf>,
    profile: Option<&str>,
) -> Outcome {
    let mut signals = Signals::listen(env, "tour", ENDING).await?;
    let temporary = tempfile::Builder::new().prefix("nexus-tour-").tempdir();
    let temporary = temporary.map_err(|error| Failure::host("tour", &std::env::temp_dir(), error))?;
    let data = data.unwrap_or_else(|| temporary.path().join("data"));
    let walking = walk(out, env, args, data.clone(), temporary.path(), profile);
    let Some(done) = signals.unless_one(out, walking).await? else {
        // The kernel ends by itself, and writes there until then.
        let latest = env.now() + ENDS_WITHIN;
        while data.starts_with(temporary.path()) && !is_free(&data) && env.now() < latest {
            env.sleep(LOOK_EVERY).await;
        }
        return temporary.close().map_err(|error| Failure::host("tour", &std::env::temp_dir(), error));
    };
    done
}

/// Whether nobody owns the data folder.
fn is_free(data: &Path) -> bool {
    File::open(data.join("nexus.lock")).map_or(true, |lock| lock.try_lock().is_ok())
}

async fn walk(
    out: &Output,
    env: &Env,
    args: TourArgs,
    data: PathBuf,
    temporary: &Path,
    profile: Option<&str>,
) -> Outcome {
    let source = Source::choose(args.source, temporary)?;
    let mut tour = Tour { out, env: env.clone(), begun: env.now(), profile, data, base: VPath::root() };
    if source.made {
        tour.step(
            "source",
            env.now(),
            "the folder is empty, so a small tree was made first".into(),
            json!({}),
        )?;
    }

    let session = tour.boot().await?;
    tour.choose_base(&session).await?;
    let tree = tour.below("tree")?;
    tour.import(&session, &source, &tree).await?;
    let files = tour.read_back(&session, &source, &tree).await?;
    let warm = tour.choose_warm(&session, &files).await?;
    tour.read_warm(&session, &warm).await?;
    tour.grep(&session, &source, &tree, &files).await?;
    tour.commit_together(&session).await?;
    tour.hand_over(&session).await?;
    tour.show_tree(&session).await?;
    tour.kill_primitives(&session, &warm).await?;
    tour.swap_policies(&session).await?;
    session.nx.shutdown().await?;
    tour.crash(&source, &tree).await?;

    let seconds = env.now().duration_since(tour.begun).as_secs_f64();
    let says = format!("every claim held, in {seconds:.1} s");
    tour.step("done", tour.begun, says, json!({}))
}

impl Tour<'_> {
    /// Tells what a step did and took.
    fn step(&self, name: &str, begun: Instant, says: String, mut measured: Value) -> Outcome {
        let seconds = self.env.now().duration_since(begun).as_secs_f64();
        if self.out.is_json() {
            measured["step"] = name.into();
            measured["seconds"] = seconds.into();
            measured["says"] = says.into();
            self.out.json(&measured)?;
        } else {
            self.out.line(format_args!("{name:<8} {seconds:>7.3} s  {says}"))?;
        }
        // Each line is for now.
        self.out.flush()
    }

    fn below(&self, name: &str) -> nexus::Result<VPath> {
        path(nexus::Op::Write, &format!("{}/{name}", self.base))
    }

    async fn open(&self) -> Outcome<Arc<Session>> {
        let nx = nexus::connect_or_attach(config(&self.data, self.profile)?).await?;
        Ok(Arc::new(Session::new(nx, Output::new(self.out.is_json()), self.data.clone())))
    }

    async fn boot(&self) -> Outcome<Arc<Session>> {
        let begun = self.env.now();
        let session = self.open().await?;
        let took = self.env.now().duration_since(begun);
        let tree = session.nx.tree().await?;
        let (actors, mounts) = (count(&tree), session.nx.mounts().await?.len());
        let what = if session.nx.kernel().is_ok() { "a kernel on" } else { "the kernel that owns" };
        let says = format!(
            "{what} {} is ready after {:.1} ms: {actors} actors in its supervision tree, {mounts} mounts",
            self.data.display(),
            took.as_secs_f64() * 1e3
        );
        self.step("boot", begun, says, json!({ "data": self.data, "actors": actors, "mounts": mounts }))?;
        Ok(session)
    }

    /// A directory that nobody uses: the data folder may be one that is worked with.
    async fn choose_base(&mut self, session: &Session) -> Outcome {
        for number in 1.. {
            let name = if number == 1 { "/tour".into() } else { format!("/tour-{number}") };
            let base = path(nexus::Op::Write, &name)?;
            match session.nx.send(SysStat::at(&base).no_follow()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.base = base;
                    break;
                }
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    async fn import(&self, session: &Arc<Session>, source: &Source, tree: &VPath) -> Outcome {
        let begun = self.env.now();
        // What was committed is counted in the process of the kernel.
        let stats = || session.nx.kernel().ok().map(|kernel| kernel.store_stats());
        let before = stats();
        let transfer = Arc::new(Transfer::begin("import", session.env(), &session.out));
        let import = Import {
            destination: tree.clone(),
            tracked_only: true,
            files_max: FILES_MAX,
            bytes_max: BYTES_MAX,
            ..Import::new(source.folder.clone())
        };
        let done = Box::pin(import.run(session, &transfer)).await;
        let counts = transfer.end(&session.out);
        done?;
        if counts.failed > 0 {
            return Err(Failure::claim("tour", format!("{} entries were not imported", counts.failed)));
        }
        let counted = before.zip(stats());
        let counted =
            counted.map(|(before, after)| (after.entries - before.entries, after.batches - before.batches));
        let commits = match counted {
            Some((entries, batches)) => {
                format!("{entries} commits in {batches} batches, each on disk before it was acknowledged")
            }
            None => "each commit on disk before it was acknowledged".into(),
        };
        let (entries, batches) = counted.unzip();
        let capped = counts.files >= FILES_MAX || counts.bytes >= BYTES_MAX;
        let says = format!(
            "{} {} files, {:.1} MB, {} directories, {} links from {} are in: {:.0} files/s, {commits}",
            if capped { "the first" } else { "all" },
            counts.files,
            counts.bytes as f64 / 1e6,
            counts.directories,
            counts.links,
            source.folder.display(),
            counts.files as f64 / counts.seconds,
        );
        let measured = json!({ "counts": counts, "commits": entries, "batches": batches, "capped": capped });
        self.step("import", begun, says, measured)
    }

    async fn show_tree(&self, session: &Session) -> Outcome {
        let tree = session.nx.tree().await?;
        let says = "the tree of actors; a crash of any of them concerns what is below its supervisor";
        self.step("actors", self.env.now(), says.into(), json!({ "tree": tree }))?;
        if !self.out.is_json() {
            ps::draw(self.out, &tree)?;
        }
        self.out.flush()
    }

    /// Kills a writing process, three times, and opens what it left.
    async fn crash(&self, source: &Source, tree: &VPath) -> Outcome {
        let below = self.below("written")?;
        let mut acknowledged = BTreeSet::new();
        for (round, enough) in (1..).zip(KILLS) {
            let begun = self.env.now();
            let told = crash::kill_writer(&self.env, &self.data, self.profile, &below, round, enough).await?;
            let in_round = told.len();
            acknowledged.extend(told);
            let killed = self.env.now();
            let session = self.open().await?;
            let opened = self.env.now().duration_since(killed).as_secs_f64() * 1e3;
            let left = crash::inspect(&session.nx, &below, &acknowledged).await?;
            if left.missing > 0 || left.torn > 0 {
                let found = format!(
                    "{} acknowledged writes are missing and {} torn after kill -9",
                    left.missing, left.torn
                );
                return Err(Failure::claim("tour", found));
            }
            let kernel =
                if session.nx.kernel().is_ok() { "its store was open" } else { "its kernel was asked" };
            let says = format!(
                "a process with 64 writers was killed (SIGKILL) after {in_round} acknowledged writes; {kernel} again \
                 after {opened:.1} ms: {} acknowledged in all, {} present, {} missing, {} torn",
                left.acknowledged, left.present, left.missing, left.torn
            );
            self.step("kill -9", begun, says, json!({ "round": round, "opened_ms": opened, "left": left }))?;
            if round as usize == KILLS.len() {
                self.read_back(&session, source, tree).await?;
            }
            session.nx.shutdown().await?;
        }
        Ok(())
    }
}

fn count(tree: &ActorEntry) -> usize {
    1 + tree.children.iter().map(count).sum::<usize>()
}
