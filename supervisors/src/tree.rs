//! A running tree, from the outside.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use nexus_actors::{Child, Env, ExitReason, Inject, Latch, Moment, Place, Ref, Strike};

use crate::board::{Board, TreeStatus};
use crate::messages::{Order, OrderError};
use crate::spec::{ChildSpec, SupSpec};
use crate::supervisor::Supervisor;

/// How long an order to a supervisor may take. It waits for the stop and the start of other children.
const ORDER_MAX: Duration = Duration::from_secs(120);

/// How to hurt an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// It panics on its own thread, between two messages.
    Panic,
    /// It exits with an error.
    Error,
    /// It is killed, without a word.
    Brutal,
    /// It blocks its thread until its watchdog writes it off; without a watchdog, for a minute.
    Wedge,
    /// This strikes it while it handles the next message that it begins. Until then its status shows it as armed.
    Handling(Inject, Moment),
}

impl Kill {
    /// Every way.
    pub const ALL: [Self; 12] = [
        Self::Panic,
        Self::Error,
        Self::Brutal,
        Self::Wedge,
        Self::Handling(Inject::Panic, Moment::Before),
        Self::Handling(Inject::Panic, Moment::After),
        Self::Handling(Inject::Error, Moment::Before),
        Self::Handling(Inject::Error, Moment::After),
        Self::Handling(Inject::Kill, Moment::Before),
        Self::Handling(Inject::Kill, Moment::After),
        Self::Handling(Inject::Wedge, Moment::Before),
        Self::Handling(Inject::Wedge, Moment::After),
    ];
}

/// Shows as one word, such as `panic`; one that strikes a message as two, such as `panic before`. [`FromStr`] takes the same.
impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = |fault: &Inject| match fault {
            Inject::Panic => "panic",
            Inject::Error => "error",
            Inject::Kill => "brutal",
            Inject::Wedge => "wedge",
        };
        match self {
            Self::Panic => f.write_str(fault(&Inject::Panic)),
            Self::Error => f.write_str(fault(&Inject::Error)),
            Self::Brutal => f.write_str(fault(&Inject::Kill)),
            Self::Wedge => f.write_str(fault(&Inject::Wedge)),
            Self::Handling(what, Moment::Before) => write!(f, "{} before", fault(what)),
            Self::Handling(what, Moment::After) => write!(f, "{} after", fault(what)),
        }
    }
}

impl FromStr for Kill {
    type Err = UnknownKill;

    fn from_str(words: &str) -> Result<Self, UnknownKill> {
        let known = Self::ALL.into_iter().find(|kill| kill.to_string() == words);
        known.ok_or_else(|| UnknownKill(words.to_owned()))
    }
}

/// Words that are no way to [`Kill`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of panic, error, brutal and wedge, each also with before or after")]
pub struct UnknownKill(String);

/// A running supervision tree. Dropping it leaves the tree running.
pub struct Tree {
    name: Arc<str>,
    actor: Ref<Supervisor>,
    root: Arc<dyn Child>,
    board: Arc<Board>,
    ended: Latch<ExitReason>,
}

impl Tree {
    /// Starts the tree, top to bottom. When a child does not start, those above it are stopped again, all mailboxes are
    /// closed, and its reason is the result.
    pub async fn start(env: &Env, spec: SupSpec) -> Result<Tree, ExitReason> {
        let post = spec.post(env);
        let ended = Latch::new();
        let (last_word, board, root) =
            (ended.clone(), Arc::downgrade(&post.board), Arc::downgrade(&post.child));
        let exits = Arc::new(move |exit: nexus_actors::ChildExit| {
            // Nobody restarts the root, so nobody will serve these mailboxes again.
            if let Some(board) = board.upgrade() {
                board.close();
            }
            if let Some(root) = root.upgrade() {
                root.close();
            }
            last_word.set(exit.reason);
        });
        if let Err(reason) = post.child.start(Place::Supervisors, true, exits).await {
            post.child.close();
            post.board.close();
            return Err(reason);
        }
        Ok(Tree {
            name: spec.name.clone(),
            actor: post.actor.clone(),
            root: post.child.clone(),
            board: post.board.clone(),
            ended,
        })
    }

    /// Stops the tree in order, bottom to top, each child within its own limit, and closes all mailboxes. May be
    /// repeated.
    pub async fn stop(&self) {
        let why = self.root.stop(ExitReason::Shutdown, None).await;
        self.root.close();
        self.board.close();
        self.ended.set(why);
    }

    /// Waits for the end of the root, and says why it ended.
    pub async fn wait(&self) -> ExitReason {
        self.ended.wait().await
    }

    /// Why the root ended, if it has: what [`wait`](Self::wait) gives.
    pub fn ended(&self) -> Option<ExitReason> {
        self.ended.get()
    }

    /// One look at the whole tree. Sends no mail.
    pub fn snapshot(&self) -> TreeStatus {
        let children = self.board.status();
        TreeStatus { id: self.name.clone(), restart: None, actor: self.root.status(), children }
    }

    /// One look at a part of it, such as `nexus/kernel/router`. Sends no mail.
    pub fn find(&self, path: &str) -> Option<TreeStatus> {
        match self.step(path)? {
            Found::Root => Some(self.snapshot()),
            Found::Kid(kid) => Some(kid.status()),
        }
    }

    /// Hurts an actor of the tree, to see what becomes of it. Does not wait. False when there is none of this path; for
    /// [`Kill::Handling`] also when it does not run, or is armed already.
    pub fn kill(&self, path: &str, how: Kill) -> bool {
        let victim = match self.step(path) {
            Some(Found::Root) => self.root.clone(),
            Some(Found::Kid(kid)) => kid.child.clone(),
            None => return false,
        };
        match how {
            Kill::Panic => victim.inject(Inject::Panic),
            Kill::Error => victim.inject(Inject::Error),
            Kill::Wedge => victim.inject(Inject::Wedge),
            Kill::Brutal => victim.kill(),
            Kill::Handling(fault, moment) => return victim.arm(Strike { fault, moment }),
        }
        true
    }

    /// The control of an actor of the tree: suspend, resume and the like.
    pub fn child(&self, path: &str) -> Option<Arc<dyn Child>> {
        match self.step(path)? {
            Found::Root => Some(self.root.clone()),
            Found::Kid(kid) => Some(kid.child.clone()),
        }
    }

    /// A supervisor of the tree, to give orders to. It stays valid over restarts.
    pub fn supervisor(&self, path: &str) -> Option<SupervisorRef> {
        match self.step(path)? {
            Found::Root => Some(SupervisorRef { actor: self.actor.clone(), board: self.board.clone() }),
            Found::Kid(kid) => kid.spec.supervisor_ref(self.actor.env()),
        }
    }

    fn step(&self, path: &str) -> Option<Found> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        if parts.next()? != &*self.name {
            return None;
        }
        let mut board = Some(self.board.clone());
        let mut found = Found::Root;
        for part in parts {
            let kid = board?.find(part)?;
            board = kid.board.clone();
            found = Found::Kid(kid);
        }
        Some(found)
    }
}

enum Found {
    Root,
    Kid(Arc<crate::board::Kid>),
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({})", self.name)
    }
}

/// A handle to a supervisor, for children that come and go. It stays valid over restarts.
#[derive(Clone)]
pub struct SupervisorRef {
    pub(crate) actor: Ref<Supervisor>,
    pub(crate) board: Arc<Board>,
}

impl SupervisorRef {
    /// Adds a child and starts it; its generation is the result. It is kept over restarts of the supervisor. One that
    /// does not start is not added.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<u64, OrderError> {
        self.order(Order::Start(Box::new(spec))).await
    }

    /// Stops a child and closes its mailbox. Its spec stays, unless it is temporary.
    pub async fn terminate_child(&self, id: &str) -> Result<(), OrderError> {
        self.order(Order::Terminate(id.into())).await.map(drop)
    }

    /// Starts a child that is down, on the mailbox that it had.
    pub async fn restart_child(&self, id: &str) -> Result<u64, OrderError> {
        self.order(Order::Restart(id.into())).await
    }

    /// Forgets a child that is down.
    pub async fn delete_child(&self, id: &str) -> Result<(), OrderError> {
        self.order(Order::Delete(id.into())).await.map(drop)
    }

    /// The children, in the order of their start. Sends no mail.
    pub fn which_children(&self) -> Vec<TreeStatus> {
        self.board.status()
    }

    async fn order(&self, order: Order) -> Result<u64, OrderError> {
        self.actor.call(order, ORDER_MAX).await?
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SupervisorRef({})", self.actor.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_kill_has_its_words() {
        for kill in Kill::ALL {
            assert_eq!(kill.to_string().parse(), Ok(kill));
        }
        assert_eq!("wedge after".parse(), Ok(Kill::Handling(Inject::Wedge, Moment::After)));
        assert!("nicely".parse::<Kill>().unwrap_err().to_string().starts_with("\"nicely\" is none of"));
    }
}
