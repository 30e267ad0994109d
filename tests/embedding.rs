//! A kernel works the same inside every kind of program, and ends when the program says so.

use std::path::Path;
use std::sync::Arc;

use nexus::hal::{Applied, Batch, LogRecord, Metastore, Reader, StoreError, TreeId};
use nexus::{
    Config, Env, ErrorKind, Grep, Lsn, MountSpec, Nexus, OpId, Profile, SysRead, SysWrite, VPath, blocking,
    connect,
};

/// A little of everything.
async fn exercise(config: Config) -> nexus::Result<()> {
    let nx = connect(config).await?;
    let agent = nx.agent("coder-7")?;
    let path = VPath::parse("/a/b").expect("a path");
    agent.send(SysWrite::at(&path, "one").create()).await?;
    assert_eq!(nx.send(SysRead::at(&path).range(1, 1)).await?.data, "n");
    nx.append(&path, "\ntwo").await?;
    let items: Vec<_> = (0..50).map(|n| (format!("/many/{n}"), n.to_string())).collect();
    assert!(nx.write_batch(items).await.into_iter().all(|done| done.is_ok()));
    assert_eq!(nx.readdir("/many").await?.len(), 50);
    assert_eq!(nx.grep(Grep::new("two")).await?.matches.len(), 1);
    nx.mount("/m", MountSpec::new("memory")).await?;
    nx.copy(&path, "/m/b").await?;
    assert!(nx.kill("nexus/kernel/router", nexus::Kill::Panic).await?);
    assert_eq!(nx.read("/m/b").await?, "one\ntwo");
    nx.unmount("/m").await?;
    nx.shutdown().await?;
    nx.shutdown().await?;
    assert!(agent.read(&path).await.is_err_and(|error| error.kind() == ErrorKind::Down));
    Ok(())
}

async fn exercise_both() -> nexus::Result<()> {
    exercise(Config::in_memory()).await?;
    let folder = tempfile::tempdir().expect("there is room");
    exercise(Config::new(folder.path())).await?;
    // What was kept is there, and the folder is free, although handles of the first kernel were only just dropped.
    let nx = connect(folder.path()).await?;
    assert_eq!(nx.read("/a/b").await?, "one\ntwo");
    assert_eq!(&*nx.stat("/a/b").await?.owner, "coder-7");
    Ok(())
}

#[tokio::test(flavor = "current_thread")]
async fn in_a_current_thread_tokio_program() {
    exercise_both().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_multi_thread_tokio_program() {
    exercise_both().await.unwrap();
}

#[test]
fn under_another_executor() {
    smol::block_on(exercise_both()).unwrap();
}

#[test]
fn with_no_runtime_at_all() {
    let folder = tempfile::tempdir().unwrap();
    for config in [Config::in_memory(), Config::new(folder.path())] {
        let nx = blocking::connect(config).unwrap();
        nx.write("/f", "one").unwrap();
        assert_eq!(nx.read("/f").unwrap(), "one");
        nx.shutdown().unwrap();
    }
}

#[test]
fn in_a_simulation() {
    let (env, simulation) = Env::seeded(7);
    simulation.block_on(exercise(Config::in_memory().env(env))).unwrap();
}

#[test]
fn in_a_simulation_without_async() {
    let (env, _simulation) = Env::seeded(7);
    let nx = blocking::connect(Config::in_memory().env(env)).unwrap();
    nx.write("/f", "one").unwrap();
    assert_eq!(nx.walk("/").count(), 1);
    nx.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_is_used_by_many_tasks_and_threads() {
    let nx = connect(Config::in_memory()).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let nx = nx.agent(format!("agent-{task}")).unwrap();
            #[expect(clippy::disallowed_methods, reason = "the test's own runtime")]
            tokio::spawn(async move {
                for n in 0..50 {
                    nx.append("/log", format!("{task} {n}\n")).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let log = nx.read("/log").await.unwrap();
    assert_eq!(String::from_utf8_lossy(&log).lines().count(), 400);
}

#[test]
fn a_folder_has_one_owner_until_it_is_shut_down() {
    let folder = tempfile::tempdir().unwrap();
    let first = blocking::connect(folder.path()).unwrap();
    let refused = blocking::connect(folder.path()).unwrap_err();
    let expected = format!(
        "connect {}: busy: the data folder is in use by this process (EBUSY)",
        folder.path().display()
    );
    assert_eq!(refused.to_string(), expected);
    first.write("/f", "still served").unwrap();
    first.shutdown().unwrap();
    // The first handle is kept, and yet the folder is free.
    let second = blocking::connect(folder.path()).unwrap();
    assert_eq!(second.read("/f").unwrap(), "still served");
    for error in [first.read("/f").unwrap_err(), first.write("/f", "late").unwrap_err()] {
        assert_eq!(error.errno().name(), "ESHUTDOWN", "{error}");
    }
    assert_eq!(first.access("/f", nexus::Right::Read).unwrap_err().kind(), ErrorKind::Down);
}

#[test]
fn dropping_the_last_handle_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let nx = blocking::connect(folder.path()).unwrap();
        nx.write(format!("/f{round}"), "x").unwrap();
        let agent = nx.agent("last").unwrap();
        drop(nx);
        assert_eq!(agent.readdir("/").unwrap().len(), round + 1);
    }
}

/// Connects, as soon as the kernel before has ended: a drop waits for that only briefly, and on a busy machine it takes longer.
async fn connected(folder: &Path) -> Nexus {
    loop {
        match connect(folder).await {
            Err(error) if error.kind() == ErrorKind::Busy => tokio::task::yield_now().await,
            connected => return connected.expect("it boots"),
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn dropping_the_last_handle_in_a_task_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let nx = connected(folder.path()).await;
        nx.write("/f", "x").await.unwrap();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_connect_that_is_given_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::host(Default::default()).unwrap();
    for polls in 0..12 {
        let mut connecting = Box::pin(connect(folder.path()));
        for _ in 0..polls {
            let waker = std::task::Waker::noop();
            if connecting.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready() {
                break;
            }
            env.sleep(std::time::Duration::from_millis(1)).await;
        }
        drop(connecting);
    }
    // What was given up ends in the background.
    let mut tries = 0;
    let nx = loop {
        match connect(folder.path()).await {
            Ok(nx) => break nx,
            Err(error) if error.kind() == ErrorKind::Busy && tries < 1_000 => tries += 1,
            Err(error) => panic!("{error}"),
        }
        env.sleep(std::time::Duration::from_millis(5)).await;
    };
    nx.write("/f", "x").await.unwrap();
}

/// A metastore that is out of order.
#[derive(Debug)]
struct Broken;

impl Metastore for Broken {
    fn apply(&self, _: &Batch) -> Result<Applied, StoreError> {
        Err(StoreError::Full)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Err(StoreError::Full)
    }

    fn last_lsn(&self, _: TreeId) -> Result<Lsn, StoreError> {
        Err(StoreError::Full)
    }

    fn changes(&self, _: TreeId, _: Lsn, _: usize) -> Result<Vec<LogRecord>, StoreError> {
        Err(StoreError::Full)
    }

    fn outcome(&self, _: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        Err(StoreError::Full)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        Ok(1)
    }
}

/// The kernel does not boot, says in which step and why, and leaves the folder free.
#[track_caller]
fn check_boot_fails(config: impl Fn(Config) -> Config, kind: ErrorKind, why: &str) {
    let folder = tempfile::tempdir().expect("there is room");
    let error = blocking::connect(config(Config::new(folder.path()))).expect_err("it does not boot");
    let text = error.to_string();
    assert!(error.kind() == kind && text.contains(why), "{text}");
    assert!(text.starts_with(&format!("connect {}: ", folder.path().display())), "{text}");
    blocking::connect(folder.path()).and_then(|nx| nx.write("/f", "x")).expect("the folder is free");
}

#[test]
fn a_boot_that_fails_says_where_and_leaves_nothing_behind() {
    check_boot_fails(|c| c.root(MountSpec::new("nothing")), ErrorKind::InvalidArgument, "the first mount: ");
    check_boot_fails(|c| c.metastore(Arc::new(Broken)), ErrorKind::StoreFull, "mounting again: ");
    check_boot_fails(
        |c| c.kernel_threads(0),
        ErrorKind::InvalidArgument,
        "kernel_threads must be at least 1",
    );
    check_boot_fails(
        |c| c.profile(Profile::Cluster),
        ErrorKind::NotSupported,
        "the profile cluster is not in this",
    );
}

#[test]
fn a_metastore_that_is_none_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("meta.redb");
    std::fs::write(&file, "my diary").unwrap();
    let error = blocking::connect(folder.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("opening {}: ", file.display())), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "my diary");
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let error = blocking::connect(folder.path().join("file/data")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory, "{error}");
}
