//! What a supervision tree looks like: data, written down before anything runs.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nexus_actors::{Behaviour, Child, ChildExit, Env, Place, Ref, child};
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::board::{Board, Kid};
use crate::supervisor::Post;
use crate::tree::SupervisorRef;

/// How long `init` of a child may take, unless its spec says otherwise.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a child may take to stop, unless its spec says otherwise.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Restarts that a supervisor allows, unless its spec says otherwise.
const RESTARTS: (u32, Duration) = (3, Duration::from_secs(60));

/// Who is restarted when a child ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// That child alone.
    OneForOne,
    /// All children.
    OneForAll,
    /// That child and those below it in the list.
    RestForOne,
}

/// After which exits a child is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// After every one.
    Permanent,
    /// After one that was not in order.
    Transient,
    /// Never; its spec goes with it.
    Temporary,
}

/// How a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Killed at once.
    Brutal,
    /// Asked, and killed after this long.
    Timeout(Duration),
    /// Asked, and waited for as long as it takes. For supervisors, whose children have their own limits.
    Infinity,
}

impl Shutdown {
    pub(crate) fn limit(self) -> Option<Duration> {
        match self {
            Shutdown::Brutal => Some(Duration::ZERO),
            Shutdown::Timeout(limit) => Some(limit),
            Shutdown::Infinity => None,
        }
    }
}

/// Whether a supervisor ends when its significant children have ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoShutdown {
    /// No.
    #[default]
    Never,
    /// When one of them has.
    AnySignificant,
    /// When all of them have.
    AllSignificant,
}

/// One child: an actor, or a supervisor with a tree of its own.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) id: Arc<str>,
    kind: Kind,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) significant: bool,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) place: Place,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) start_max: Duration,
    pub(crate) monitors: Vec<Monitor>,
}

/// Is told of a child's exits; see [`ChildSpec::monitor`].
pub type Monitor = Arc<dyn Fn(&ChildExit) + Send + Sync>;

/// Makes an actor for an environment; see [`ChildSpec::lazy`].
pub type MakeChild = Arc<dyn Fn(&Env) -> Arc<dyn Child> + Send + Sync>;

#[derive(Clone)]
enum Kind {
    Actor(Arc<dyn Child>),
    Lazy(MakeChild),
    Supervisor(SupSpec),
}

impl ChildSpec {
    /// The actor behind `actor`, whose every start is given `args`. Permanent, five seconds to stop, thirty to start, on
    /// a kernel thread, without a watchdog.
    pub fn new<B: Behaviour>(id: impl Into<Arc<str>>, actor: Ref<B>, args: B::Args) -> Self {
        let shutdown = Shutdown::Timeout(STOP_MAX);
        let kind = Kind::Actor(child(&actor, args));
        drop(actor);
        Self::with(id.into(), kind, shutdown, Place::Kernel)
    }

    /// An actor that is made when its tree is, so that its spec can be written down before there is an [`Env`]: `make` is
    /// called once for each tree, and what it gives stays over restarts, of supervisors too. Else as [`new`](Self::new).
    pub fn lazy(id: impl Into<Arc<str>>, make: MakeChild) -> Self {
        Self::with(id.into(), Kind::Lazy(make), Shutdown::Timeout(STOP_MAX), Place::Kernel)
    }

    fn with(id: Arc<str>, kind: Kind, shutdown: Shutdown, place: Place) -> Self {
        ChildSpec {
            id,
            kind,
            restart: Restart::Permanent,
            shutdown,
            significant: false,
            backoff: None,
            place,
            watchdog: None,
            start_max: START_MAX,
            monitors: Vec::new(),
        }
    }

    /// After which exits it is restarted.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How it is stopped.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Whether its end in order counts for [`SupSpec::auto_shutdown`].
    #[must_use]
    pub fn significant(mut self, significant: bool) -> Self {
        self.significant = significant;
        self
    }

    /// Waits before restarts, from the second one on.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// The kind of thread it runs on.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// How long one message may hold it, or its thread. Then it is written off and restarted.
    #[must_use]
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.watchdog = Some(limit);
        self
    }

    /// How long its `init` may take.
    #[must_use]
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.start_max = limit;
        self
    }

    /// Is told, on the supervisor's thread, of each exit that the supervisor hears of, before it acts on it; and of each
    /// restart by the supervisor that fails, under the number of the incarnation that did not come to be. Not of stops, and not of starts
    /// that fail by order: who gave the order knows. It must not block; its panics are logged. It is kept over restarts,
    /// the supervisor's too, and may stand beside others.
    #[must_use]
    pub fn monitor(mut self, monitor: Monitor) -> Self {
        self.monitors.push(monitor);
        self
    }

    pub(crate) fn supervisor_ref(&self, env: &Env) -> Option<SupervisorRef> {
        let Kind::Supervisor(spec) = &self.kind else { return None };
        let post = spec.post(env);
        Some(SupervisorRef { actor: post.actor.clone(), board: post.board.clone() })
    }

    pub(crate) fn build(&self, env: &Env, dynamic: bool) -> Kid {
        let (child, board) = match &self.kind {
            Kind::Actor(child) => (child.clone(), None),
            Kind::Lazy(make) => (make(env), None),
            Kind::Supervisor(spec) => {
                let post = spec.post(env);
                (post.child.clone(), Some(post.board.clone()))
            }
        };
        Kid { spec: self.clone(), child, board, dynamic, has_run: AtomicBool::new(false) }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

/// A supervisor and its children, started top to bottom and stopped bottom to top.
#[derive(Clone)]
pub struct SupSpec {
    pub(crate) name: Arc<str>,
    pub(crate) strategy: Strategy,
    pub(crate) restarts: u32,
    pub(crate) within: Duration,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) children: Vec<ChildSpec>,
    /// The supervisor that this spec became. It outlives the incarnations of the supervisor above.
    post: Arc<OnceLock<Post>>,
}

impl SupSpec {
    /// A supervisor without children, that allows three restarts a minute.
    pub fn new(name: impl Into<Arc<str>>, strategy: Strategy) -> Self {
        SupSpec {
            name: name.into(),
            strategy,
            restarts: RESTARTS.0,
            within: RESTARTS.1,
            backoff: None,
            auto_shutdown: AutoShutdown::Never,
            children: Vec::new(),
            post: Arc::default(),
        }
    }

    /// Gives up on more than `max` restarts in any period of this length.
    #[must_use]
    pub fn restarts(mut self, max: u32, within: Duration) -> Self {
        (self.restarts, self.within) = (max, within);
        self
    }

    /// The back-off of children that name none.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Whether it ends with its significant children.
    #[must_use]
    pub fn auto_shutdown(mut self, auto: AutoShutdown) -> Self {
        self.auto_shutdown = auto;
        self
    }

    /// Adds a child below those it has.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Adds a supervisor as a permanent child, which may take as long to stop as its own children do.
    #[must_use]
    pub fn supervisor(self, spec: SupSpec) -> Self {
        self.child(spec.into_child())
    }

    /// This supervisor as a child of another.
    pub fn into_child(self) -> ChildSpec {
        let id = self.name.clone();
        ChildSpec::with(id, Kind::Supervisor(self), Shutdown::Infinity, Place::Supervisors)
            .start_within(Duration::MAX)
    }

    /// A handle to the supervisor that this spec, and no clone made of it before, becomes. May be asked for before it is started: orders
    /// wait for the start. The spec must be complete.
    pub fn handle(&self, env: &Env) -> SupervisorRef {
        let post = self.post(env);
        SupervisorRef { actor: post.actor.clone(), board: post.board.clone() }
    }

    pub(crate) fn post(&self, env: &Env) -> &Post {
        self.post.get_or_init(|| Post::new(env, self))
    }

    pub(crate) fn board(&self, env: &Env) -> Arc<Board> {
        Board::new(self.children.iter().map(|child| child.build(env, false)).collect())
    }
}

impl fmt::Debug for SupSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupSpec")
            .field("name", &self.name)
            .field("strategy", &self.strategy)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}
