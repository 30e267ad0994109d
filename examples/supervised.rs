//! The kernel under a supervisor of one's own, with two actors that use it: `cargo run --example supervised`.
//!
//! ```text
//! app                one_for_one
//! ├─ nexus           the kernel
//! ├─ scribe          writes notes
//! └─ librarian       lists them
//! ```
//!
//! The actors hold an `Embedded`, not a kernel: whichever kernel serves, `ready()` gives it.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, MailboxBounds, Message, Ref, Reply, Start};
use nexus::supervisors::{ChildSpec, Kill, Strategy, SupSpec, Tree};
use nexus::{Embedded, Env, ErrorKind, ExitReason, HostConfig};

/// How long an actor may take to answer, restarts of the kernel included.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes notes.
struct Scribe(Embedded);

/// Keeps a note under a name.
struct Keep(&'static str, &'static str);

impl Message for Keep {
    type Reply = nexus::Result<()>;
    const NAME: &'static str = "scribe.keep";
}

impl Behaviour for Scribe {
    type Args = Embedded;
    const NAME: &'static str = "scribe";

    fn init(kernel: Embedded, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self(kernel)) })
    }
}

impl Handle<Keep> for Scribe {
    fn handle(&mut self, Keep(name, text): Keep, _: &mut Cx<'_, Self>) -> Reply<Self, nexus::Result<()>> {
        let kernel = self.0.clone();
        Reply::later(async move {
            loop {
                let nx = kernel.ready().await?;
                match nx.agent("scribe")?.write(format!("/notes/{name}"), text).await {
                    // This kernel has ended. Writing the whole file twice is writing it once.
                    Err(error) if error.kind() == ErrorKind::Down => {}
                    done => return done.map(drop),
                }
            }
        })
    }
}

/// Lists what the scribe wrote.
struct Librarian(Embedded);

/// The names of all notes.
struct List;

impl Message for List {
    type Reply = nexus::Result<Vec<String>>;
    const NAME: &'static str = "librarian.list";
}

impl Behaviour for Librarian {
    type Args = Embedded;
    const NAME: &'static str = "librarian";

    fn init(kernel: Embedded, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move { Ok(Self(kernel)) })
    }
}

impl Handle<List> for Librarian {
    fn handle(&mut self, _: List, _: &mut Cx<'_, Self>) -> Reply<Self, nexus::Result<Vec<String>>> {
        let kernel = self.0.clone();
        Reply::later(async move {
            loop {
                match kernel.ready().await?.readdir("/notes").await {
                    Err(error) if error.kind() == ErrorKind::Down => {}
                    Err(error) => return Err(error),
                    Ok(entries) => return Ok(entries.iter().map(|entry| entry.name().to_string()).collect()),
                }
            }
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let env = Env::host(HostConfig::default())?;

    let (kernel, embedded) = nexus::child(folder.path());
    let scribe = Ref::<Scribe>::new(&env, "scribe", MailboxBounds { messages: 64 });
    let librarian = Ref::<Librarian>::new(&env, "librarian", MailboxBounds { messages: 64 });
    let app = SupSpec::new("app", Strategy::OneForOne)
        .child(kernel)
        .child(ChildSpec::new("scribe", scribe.clone(), embedded.clone()))
        .child(ChildSpec::new("librarian", librarian.clone(), embedded.clone()));
    let tree = Tree::start(&env, app).await?;
    println!("the kernel and two actors run under one supervisor");

    scribe.call(Keep("monday", "think"), LIMIT).await??;
    let first = embedded.ready().await?;

    assert!(tree.kill("app/nexus", Kill::Panic));
    println!("the kernel's child was made to panic; it ended: {}", first.ended().await?);
    scribe.call(Keep("tuesday", "build"), LIMIT).await??;
    let names = librarian.call(List, LIMIT).await??;
    println!("the next kernel has {names:?}");
    assert_eq!(names, ["monday", "tuesday"]);
    let late = first.read("/notes/monday").await;
    assert!(late.is_err_and(|error| error.kind() == ErrorKind::Down));

    tree.stop().await;
    env.stop();
    let nx = nexus::connect(folder.path()).await?;
    assert_eq!(nx.read("/notes/tuesday").await?, "build");
    println!("the supervisor was stopped, and all of it is on disk");
    nx.shutdown().await?;
    println!("supervised: done");
    Ok(())
}
