//! A program as paths, by a description: what it writes to its standard output is what is read, and what is written it reads from its standard input.
//!
//! | module | what it is |
//! |---|---|
//! | `description` | the file, field by field |
//! | `asks` | its routes, checked, and the arguments for paths |
//! | `run` | one run: no shell, a group of its own that is killed whole, bounds on time, output and how many run at once |
//!
//! The program is started as child processes of the kernel are (`crate::processes`): its environment is what the description says and `PATH`, and it ends at the
//! latest with this process. What it starts goes with it, unless that leaves its group: a program that makes daemons is no program for this.

mod asks;
mod description;
mod run;

use std::collections::BTreeMap;
use std::io::ErrorKind as IoKind;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_kernel::hal::{
    ConnectorCategory, DriverContext, DriverOption, ObjectInfo, ProcessError, StoreError, StoreFuture,
};
use nexus_messages::syscall::MountSpec;
use nexus_messages::{ChildExit, ChildSpec, ContentId, EntryType, ErrorKind, Timestamp};

use self::asks::{Args, CommandAsks};
use self::description::{Description, Exit, Meaning};
use self::run::{Ended, Runner, Stopped};
use super::description::{OPTIONS, Reading, read, settled};
use super::failure::{bad, of_the_backend, of_the_call, shortened};
use super::registry::{Connected, Connector};
use super::routes::Routes;
use super::tree::{self, Backend, Call, Listed, Tree};
use crate::secret::{Secret, scrubbed};

/// How long one operation may take, when nothing is said.
const TIMEOUT_MS: u64 = 30_000;

/// How many programs run at once, when nothing is said.
const CONCURRENCY: usize = 4;

/// The most bytes of an output and of an input, when nothing is said; and the most that may be said.
const BYTES: (u64, u64) = (16 << 20, 1 << 30);

/// The most names of a listing, when nothing is said; and the most that may be said.
const ITEMS: (usize, usize) = (100_000, 1_000_000);

/// Makes mounts of programs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Command;

impl Connector for Command {
    fn name(&self) -> &str {
        "command"
    }

    fn categories(&self) -> &[ConnectorCategory] {
        &[ConnectorCategory::Cli]
    }

    fn options(&self) -> &[DriverOption] {
        OPTIONS
    }

    fn settled(&self, spec: MountSpec) -> MountSpec {
        settled(spec)
    }

    fn connect(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Connected> {
        let spec = spec.clone();
        Box::pin(async move {
            if context.env.is_simulated() {
                return Err(StoreError::NotSupported { what: "a program in a simulation" });
            }
            let plan = read(&spec, &context, Plan::of).await?;
            let runner = Runner::new(
                context.env,
                context.pool,
                plan.template,
                plan.secrets,
                plan.concurrency,
                plan.output_max,
            );
            let program = Program {
                scrubbed: runner.secrets(),
                runner,
                parameters: plan.parameters,
                exits: plan.exits,
                timeout: plan.timeout,
                input_max: plan.input_max,
                items_max: plan.items_max,
            };
            program.is_there().await?;
            let store = std::sync::Arc::new(Tree::new(program, plan.routes));
            Ok(Connected { category: ConnectorCategory::Cli, store })
        })
    }
}

/// What a description comes to, checked, before anything is run.
struct Plan {
    template: ChildSpec,
    secrets: Vec<(String, Secret)>,
    parameters: BTreeMap<String, String>,
    routes: Routes<CommandAsks>,
    exits: Vec<Exit>,
    timeout: Duration,
    concurrency: usize,
    output_max: u64,
    input_max: u64,
    items_max: usize,
}

impl Plan {
    fn of(described: Description, reading: Reading) -> Result<Self, StoreError> {
        let mut template = ChildSpec::new(reading.plain("program", &described.program)?, [""; 0]);
        if let Some(folder) = &described.folder {
            template = template.folder(reading.plain("folder", folder)?);
        }
        for (name, value) in &described.environment {
            template = template.env(name, reading.plain(&format!("environment.{name}"), value)?);
        }
        if let Some(twice) = described.secrets.keys().find(|name| described.environment.contains_key(*name)) {
            return Err(reading.wrong(&format!("secrets.{twice}"), "it is in the environment already"));
        }
        let secrets = described.secrets.iter().map(|(name, place)| {
            let field = format!("secrets.{name}");
            let secret = reading.secret(&field, place)?;
            let fault = ChildSpec::new("x", [""; 0]).env(name, secret.expose()).fault();
            match fault {
                Some(_) => Err(reading.wrong(&field, "it cannot be a variable of an environment")),
                None => Ok((name.clone(), secret)),
            }
        });
        let secrets = secrets.collect::<Result<Vec<_>, StoreError>>()?;
        if let Some(fault) = template.fault() {
            return Err(reading.wrong("program", fault));
        }
        let limits = &described.limits;
        let bytes =
            |field: &str, given| reading.number(&format!("limits.{field}"), given, 1..=BYTES.1, BYTES.0);
        let timeout = reading.number("limits.timeout_ms", limits.timeout_ms, 10..=86_400_000, TIMEOUT_MS)?;
        Ok(Self {
            routes: asks::routes(&reading, described.route)?,
            exits: described.exit,
            timeout: Duration::from_millis(timeout),
            concurrency: reading.number("limits.concurrency", limits.concurrency, 1..=256, CONCURRENCY)?,
            output_max: bytes("output_bytes", limits.output_bytes)?,
            input_max: bytes("input_bytes", limits.input_bytes)?,
            items_max: reading.number("limits.items", limits.items, 1..=ITEMS.1, ITEMS.0)?,
            template,
            secrets,
            parameters: reading.parameters,
        })
    }
}

/// A program that is run.
#[derive(Debug)]
struct Program {
    runner: Runner,
    parameters: BTreeMap<String, String>,
    exits: Vec<Exit>,
    timeout: Duration,
    input_max: u64,
    items_max: usize,
    /// What nothing that is told on has in it.
    scrubbed: Vec<Secret>,
}

/// What is being done by one run.
#[derive(Clone, Copy)]
struct Doing<'a> {
    what: &'static str,
    path: &'a str,
    changing: bool,
}

impl Doing<'_> {
    fn in_words(self) -> String {
        format!("{} {:?}", self.what, self.path)
    }
}

impl Program {
    async fn is_there(&self) -> Result<(), StoreError> {
        self.runner.find().await.map_err(|error| not_started(&error, "looking for the program", "", false))
    }

    /// What it says when it is run for `call`.
    async fn run(
        &self,
        doing: Doing<'_>,
        args: Option<&Args>,
        call: &Call<'_, CommandAsks>,
        input: Option<Bytes>,
    ) -> Result<Bytes, StoreError> {
        let Some(args) = args else {
            return Err(StoreError::NotSupported { what: "this: the description does not say how" });
        };
        let args = args.filled(&call.vars, &self.parameters)?;
        let left = call.deadline.saturating_duration_since(self.runner.env.now());
        if left.is_zero() {
            // Those that ran before have used it up.
            let what = doing.in_words();
            return Err(StoreError::TimedOut { what, limit: self.timeout, changing: false });
        }
        match self.runner.run(args, input, left).await {
            Ok(ended) => self.meant(doing, ended),
            Err(stopped) => Err(self.stopped(doing, &stopped)),
        }
    }

    /// What its end means.
    fn meant(&self, doing: Doing<'_>, ended: Ended) -> Result<Bytes, StoreError> {
        let code = match ended.exit {
            ChildExit::Code(0) => return Ok(ended.stdout),
            ChildExit::Code(code) => code,
            ChildExit::Signal(signal) => {
                return Err(broken_off(doing, format!("the program was ended by the signal {signal}")));
            }
        };
        let fits = |exit: &&Exit| {
            exit.code.is_none_or(|it| it == code)
                && exit.stderr.as_ref().is_none_or(|text| ended.stderr.contains(text.as_str()))
        };
        let said = shortened(&scrubbed(&ended.stderr, &self.scrubbed));
        let cause = format!("the program ended with {code}: {said}");
        let (what, path) = (doing.in_words(), doing.path.to_owned());
        Err(match self.exits.iter().find(fits).map(|exit| exit.means) {
            Some(Meaning::Ok) => return Ok(ended.stdout),
            Some(Meaning::NotFound) => StoreError::NotFound { what: path },
            Some(Meaning::Exists) => StoreError::Exists { what: path },
            Some(Meaning::NotADirectory) => StoreError::NotADirectory { what: path },
            Some(Meaning::IsADirectory) => StoreError::IsADirectory { what: path },
            Some(Meaning::Denied) => of_the_call(IoKind::PermissionDenied, what, cause),
            Some(Meaning::Busy) => StoreError::Locked { what: path },
            Some(Meaning::Unsupported) => of_the_call(IoKind::Unsupported, what, cause),
            Some(Meaning::Invalid) => of_the_call(IoKind::InvalidInput, what, cause),
            Some(Meaning::Broken) => of_the_backend(false, what, cause),
            None => broken_off(doing, cause),
        })
    }

    fn stopped(&self, doing: Doing<'_>, stopped: &Stopped) -> StoreError {
        let what = doing.in_words();
        match stopped {
            Stopped::NotStarted(error) => not_started(error, doing.what, doing.path, false),
            Stopped::NoPlace => {
                let cause = "as many programs as may run at once have run for all of its time";
                of_the_call(IoKind::ResourceBusy, what, cause)
            }
            Stopped::Late => StoreError::TimedOut { what, limit: self.timeout, changing: doing.changing },
            Stopped::TooMuch => {
                let cause = "the program says more than the description lets it say, and was killed";
                match doing.changing {
                    true => broken_off(doing, cause.into()),
                    false => of_the_call(IoKind::FileTooLarge, what, cause),
                }
            }
            Stopped::LeftOpen => {
                let cause = "the program ended, and what it started holds its outputs: that was killed";
                broken_off(doing, cause.into())
            }
            Stopped::Lost(cause) => of_the_backend(doing.changing, what, cause.clone()),
        }
    }

    async fn content(&self, call: &Call<'_, CommandAsks>) -> Result<(Bytes, ObjectInfo), StoreError> {
        let doing = Doing { what: "reading", path: call.path, changing: false };
        let bytes = self.run(doing, call.asks.read.as_ref(), call, None).await?;
        let tag = tree::tag_of_content(&bytes);
        let info = ObjectInfo::new(EntryType::Reg, bytes.len() as u64, tag, Timestamp(0));
        Ok((bytes, info))
    }
}

/// What it means that a program ended in a way of which the description says nothing. It is about this one call: whoever asks for what makes it end so must not take
/// the mount away from all others.
fn broken_off(doing: Doing<'_>, cause: String) -> StoreError {
    match doing.changing {
        true => StoreError::Doubtful { what: doing.in_words(), cause },
        false => of_the_call(IoKind::InvalidInput, doing.in_words(), cause),
    }
}

fn not_started(error: &ProcessError, what: &str, path: &str, changing: bool) -> StoreError {
    let (what, cause) = (format!("{what} {path:?}"), shortened(&error.why));
    match error.kind {
        ErrorKind::NotFound => of_the_backend(changing, what, cause),
        ErrorKind::PermissionDenied => of_the_call(IoKind::PermissionDenied, what, cause),
        ErrorKind::InvalidArgument => bad(format!("{what}: {cause}")),
        ErrorKind::Busy => of_the_call(IoKind::ResourceBusy, what, cause),
        _ => of_the_backend(changing, what, cause),
    }
}

impl Backend for Program {
    type Asks = CommandAsks;

    fn env(&self) -> &Env {
        &self.runner.env
    }

    fn limit(&self) -> Duration {
        self.timeout
    }

    fn stat<'a>(&'a self, call: &'a Call<'a, CommandAsks>) -> StoreFuture<'a, Option<ObjectInfo>> {
        Box::pin(async move {
            match self.content(call).await {
                Ok((_, info)) => Ok(Some(info)),
                Err(StoreError::NotFound { .. } | StoreError::IsADirectory { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn read<'a>(&'a self, call: &'a Call<'a, CommandAsks>) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(self.content(call))
    }

    fn write<'a>(
        &'a self,
        call: &'a Call<'a, CommandAsks>,
        data: &'a [Bytes],
        _: bool,
    ) -> StoreFuture<'a, Option<ContentId>> {
        Box::pin(async move {
            let doing = Doing { what: "writing", path: call.path, changing: true };
            let input = tree::joined(data, self.input_max, call.path)?;
            self.run(doing, call.asks.write.as_ref(), call, Some(input)).await.map(|_| None)
        })
    }

    fn delete<'a>(&'a self, call: &'a Call<'a, CommandAsks>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let doing = Doing { what: "deleting", path: call.path, changing: true };
            self.run(doing, call.asks.delete.as_ref(), call, None).await.map(drop)
        })
    }

    fn list<'a>(&'a self, call: &'a Call<'a, CommandAsks>, _: usize) -> StoreFuture<'a, Listed> {
        Box::pin(async move {
            let Some(list) = &call.asks.list else {
                return Err(StoreError::NotADirectory { what: call.path.into() });
            };
            let doing = Doing { what: "listing", path: call.path, changing: false };
            let output = self.run(doing, Some(&list.args), call, None).await?;
            // What it is instead has words of the program in it.
            let wrong =
                |cause: String| of_the_backend(false, doing.in_words(), scrubbed(&cause, &self.scrubbed));
            let (items, unreadable) = list.items(&output).map_err(wrong)?;
            if items.len() > self.items_max {
                let cause = format!("it has more than {} names", self.items_max);
                return Err(of_the_call(IoKind::FileTooLarge, doing.in_words(), cause));
            }
            Ok(Listed { items, unreadable })
        })
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.is_there())
    }
}
