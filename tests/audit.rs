//! The audit log as its users rely on it: every change once and in order, whatever is killed or swapped, and nothing altered unseen.

#![expect(
    clippy::disallowed_methods,
    reason = "users spawn their own tasks, and a process is killed from outside"
)]

#[path = "common/many.rs"]
mod many;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nexus::actors::{Handle, Message};
use nexus::hal::{Applied, Batch, LogRecord, Metastore, Reader, StoreError, TreeId};
use nexus::service::ServiceRef;
use nexus::services::audit::{
    Audit, AuditConfig, CaughtUp, Entry, Gap, Query, Record, Verify, verify_segment,
};
use nexus::{
    Config, ErrorKind, Kill, Lsn, Nexus, Op, OpId, Receipt, SwapOptions, SysWrite, Timestamp, VPath,
};
use nexus_drivers::memory::MemoryMetastore;

use many::{FORGOTTEN, commit_many};

const SOON: Duration = Duration::from_secs(60);
const WRITERS: usize = 8;
const CHILD: &str = "NEXUS_TEST_AUDIT_CHILD";

fn path(text: &str) -> VPath {
    text.parse().expect("it is a path")
}

/// Small segments, so that there are many.
fn config() -> AuditConfig {
    AuditConfig { segment_bytes: 4_096, ..AuditConfig::default() }
}

async fn boot(config: Config) -> Nexus {
    nexus::connect(config.restarts(10_000, Duration::from_secs(1))).await.expect("it boots")
}

/// Writes by several agents at once, `each` of them so many; gives the receipts with the paths.
async fn writes(nx: &Nexus, round: usize, each: usize) -> Vec<(Receipt, String)> {
    let writers = (0..WRITERS).map(|writer| {
        let agent = nx.agent(format!("writer-{writer}")).expect("it is a name");
        tokio::spawn(async move {
            let mut done = Vec::new();
            for n in 0..each {
                let text = format!("/w{writer}/{round}-{n}");
                let written = agent.send(SysWrite::at(path(&text), "x").create()).await.expect("it writes");
                done.push((written.receipt, text));
            }
            done
        })
    });
    let mut done = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        done.extend(writer.await.expect("it does not panic"));
    }
    done
}

/// What the service answers. A kill may strike the very question, or keep the service down for longer than it waits; then it is asked again.
async fn ask<M: Message + Clone>(audit: &ServiceRef<Audit>, message: M) -> M::Reply
where
    Audit: Handle<M>,
{
    loop {
        match audit.call(message.clone(), SOON).await {
            Ok(reply) => return reply,
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Crashed | ErrorKind::Busy), "{error}"),
        }
    }
}

async fn all(audit: &ServiceRef<Audit>, query: Query) -> Vec<Record> {
    let (mut query, mut records) = (query, Vec::new());
    loop {
        let page = ask(audit, query.clone()).await.expect("it finds");
        records.extend(page.records);
        let Some(next) = page.next else { return records };
        query = query.after(next);
    }
}

/// The log must have just these changes by writers, once and in their order, and be in order itself.
async fn has_just(audit: &ServiceRef<Audit>, done: &[(Receipt, String)]) {
    let expected: BTreeMap<Lsn, _> =
        done.iter().map(|(receipt, text)| (receipt.lsn, (receipt.op_id, text))).collect();
    let last = *expected.keys().next_back().expect("something was written");
    ask(audit, CaughtUp::root(last)).await.expect("it catches up");
    let records = all(audit, Query::root()).await;
    let mut found = Vec::new();
    let mut before = Lsn(0);
    for record in &records {
        let Entry::Change { lsn, op_id, agent, path, .. } = &record.entry else {
            assert!(matches!(record.entry, Entry::Sealed { .. }), "{record:?}");
            continue;
        };
        assert!(*lsn > before, "{lsn} comes after {before}");
        before = *lsn;
        if agent.starts_with("writer-") {
            found.push((*lsn, (*op_id, path.as_str().to_owned())));
        } else {
            assert!(!path.as_str().starts_with("/audit"), "{record:?}");
        }
    }
    let expected: Vec<_> =
        expected.into_iter().map(|(lsn, (op_id, text))| (lsn, (op_id, text.clone()))).collect();
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "the log tells something else");
    let verified = ask(audit, Verify::root()).await.expect("it verifies");
    assert_eq!(verified.broken, None);
    assert_eq!(verified.records, records.len() as u64);
}

async fn kill_and_wait(nx: &Nexus, how: Kill) {
    let serving =
        || nx.services().expect("it is the administrator's")[0].serving.clone().expect("one serves").number;
    let name = format!("nexus/services/audit@{}", serving());
    while !nx.kill(&name, how).await.expect("it is the administrator's") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_make_neither_a_hole_nor_a_double() {
    let nx = boot(Config::in_memory()).await;
    let audit = nx.register::<Audit>("audit", config()).await.unwrap();
    let mut done = Vec::new();
    for round in 0..50 {
        let how = [Kill::Panic, Kill::Error, Kill::Brutal][round % 3];
        let (written, ()) = tokio::join!(writes(&nx, round, 10), kill_and_wait(&nx, how));
        done.extend(written);
    }
    has_just(&audit, &done).await;
    nx.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_swaps_under_load_make_neither_a_hole_nor_a_double() {
    let nx = boot(Config::in_memory()).await;
    let audit = nx.register::<Audit>("audit", config()).await.unwrap();
    let mut done = Vec::new();
    for round in 0..20 {
        // Both versions write during the swap, with another idea of how large a segment is.
        let config = AuditConfig { segment_bytes: [2_048, 20_000][round % 2], ..config() };
        let options = SwapOptions::new().probation(Duration::ZERO);
        let (written, swapped) =
            tokio::join!(writes(&nx, round, 25), nx.swap_with::<Audit>("audit", config, options));
        swapped.unwrap();
        done.extend(written);
    }
    has_just(&audit, &done).await;
    nx.shutdown().await.unwrap();
}

/// Not a test by itself: what the next one starts as another process, and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let nx = boot(Config::new(std::path::PathBuf::from(folder)).service::<Audit>()).await;
    let _audit = nx.register::<Audit>("audit", config()).await;
    let round = std::process::id() as usize;
    let writers = (0..WRITERS).map(|writer| {
        let agent = nx.agent(format!("writer-{writer}")).expect("it is a name");
        tokio::spawn(async move {
            for n in 0.. {
                let text = format!("/w{writer}/{round}-{n}");
                let written = agent.send(SysWrite::at(path(&text), "x").create()).await.expect("it writes");
                println!("\nACK {} {text}", written.receipt.lsn);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("it writes until it is killed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_a_log_that_the_next_one_goes_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<Lsn, String> = BTreeMap::new();
    for round in 1..=3_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let enough = acknowledged.len() + 150 * round;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((lsn, text)) = line.strip_prefix("ACK ").and_then(|ack| ack.split_once(' ')) else {
                continue;
            };
            acknowledged.insert(Lsn(lsn.parse().unwrap()), text.to_owned());
            if acknowledged.len() == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= enough, "the writers failed");

        // Nobody registers it: it is remembered, and started at boot.
        let nx = boot(Config::new(folder.path()).service::<Audit>()).await;
        let audit = nx.service::<Audit>("audit").unwrap();
        let last = nx.send(SysWrite::at(path("/last"), "x").create()).await.unwrap().receipt.lsn;
        audit.call(CaughtUp::root(last), SOON).await.unwrap().unwrap();
        let verified = audit.call(Verify::root(), SOON).await.unwrap().unwrap();
        assert_eq!(verified.broken, None, "round {round}");
        let mut told = BTreeMap::new();
        for record in all(&audit, Query::root()).await {
            if let Entry::Change { lsn, path, .. } = record.entry {
                assert!(told.insert(lsn, path.as_str().to_owned()).is_none(), "{lsn} is there twice");
            }
        }
        for (lsn, text) in &acknowledged {
            assert_eq!(told.get(lsn), Some(text), "{lsn} in round {round}");
        }
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_refused_or_fails_is_logged_beside_it() {
    let nx = boot(Config::in_memory()).await;
    let audit = nx.register::<Audit>("audit", config()).await.unwrap();
    let agent = nx.agent("coder").unwrap();
    nx.link("/way", "/audit").await.unwrap();
    let check = |result: nexus::Result<()>, kind| assert_eq!(result.unwrap_err().kind(), kind);
    check(agent.write("/audit/root/changes/x", "y").await.map(drop), ErrorKind::PermissionDenied);
    check(nx.write("/audit/root/changes/x", "y").await.map(drop), ErrorKind::PermissionDenied);
    check(nx.write("/way/root/changes/x", "y").await.map(drop), ErrorKind::PermissionDenied);
    check(nx.remove_all("/audit").await.map(drop), ErrorKind::PermissionDenied);
    check(nx.rename("/audit", "/gone").await.map(drop), ErrorKind::PermissionDenied);
    check(agent.rename("/missing", "/found").await.map(drop), ErrorKind::NotFound);
    let refused = loop {
        let refused = all(&audit, Query::root().refusals()).await;
        if refused.iter().filter(|record| matches!(record.entry, Entry::Refusal { .. })).count() == 6 {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    let told: Vec<_> = refused
        .iter()
        .filter_map(|record| match &record.entry {
            Entry::Refusal { agent, path, error, .. } => Some((agent.to_string(), path.to_string(), *error)),
            _ => None,
        })
        .collect();
    let line = |agent: &str, path: &str, kind| (agent.to_owned(), path.to_owned(), kind);
    assert_eq!(told[0], line("coder", "/audit/root/changes/x", ErrorKind::PermissionDenied));
    assert_eq!(told[2], line("nexus", "/way/root/changes/x", ErrorKind::PermissionDenied));
    assert_eq!(told[5], line("coder", "/missing", ErrorKind::NotFound));
    assert_eq!(audit.call(Verify::refusals(), SOON).await.unwrap().unwrap().broken, None);
    // Reading is allowed.
    assert!(!nx.readdir("/audit/root/refusals").await.unwrap().is_empty());
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_transaction_is_one_record_with_all_of_its_operations() {
    let nx = boot(Config::in_memory()).await;
    let audit = nx.register::<Audit>("audit", config()).await.unwrap();
    let tx = nx.tx().write("/a", "x").mkdir("/d").rename("/a", "/d/a").write("/b/c", "y");
    let receipt = tx.commit().await.unwrap().receipt;
    ask(&audit, CaughtUp::root(receipt.lsn)).await.unwrap();
    for place in ["/a", "/d", "/d/a", "/b"] {
        let records = all(&audit, Query::root().below(path(place))).await;
        let [Record { entry: Entry::Change { lsn, op_id, op, items, .. }, .. }] = &records[..] else {
            panic!("{place}: {records:?}")
        };
        assert_eq!((*lsn, *op_id, *op), (receipt.lsn, receipt.op_id, Op::Tx));
        let told: Vec<_> =
            items.iter().map(|item| format!("{} {} {:?}", item.op, item.path, item.other)).collect();
        assert_eq!(told.len(), 4);
        assert!(told[2].starts_with("rename /a ") && told[2].contains("/d/a"), "{told:?}");
    }
    assert!(all(&audit, Query::root().below(path("/elsewhere"))).await.is_empty());
    assert_eq!(ask(&audit, Verify::root()).await.unwrap().broken, None);
    // Its files are as safe from this as from each call by itself.
    let refused = nx.tx().write("/ok", "x").write("/audit/root/changes/x", "y").commit().await.unwrap_err();
    assert_eq!((refused.kind(), refused.item()), (ErrorKind::PermissionDenied, Some(1)));
    let refused = nx.tx().write("/ok", "x").rename("/audit", "/gone").commit().await.unwrap_err();
    assert_eq!((refused.kind(), refused.item()), (ErrorKind::PermissionDenied, Some(1)));
    assert!(!nx.exists("/ok").await.unwrap());
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_version_on_trial_is_no_failure_of_the_one_that_serves() {
    let nx = boot(Config::in_memory()).await;
    let audit = nx.register::<Audit>("audit", config()).await.unwrap();
    let mut swap = std::pin::pin!(nx.swap_with::<Audit>("audit", config(), SwapOptions::new().shadow(100)));
    while nx.services().unwrap()[0].trial_agreed.is_none() {
        assert!(futures_util::poll!(swap.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    let swapped = loop {
        // Looked at until the log has it: a trial that fails to write would say so before.
        let done = nx.send(SysWrite::at(path("/a"), "x").create()).await.unwrap();
        let mut logged = std::pin::pin!(ask(&audit, CaughtUp::root(done.receipt.lsn)));
        while futures_util::poll!(logged.as_mut()).is_pending() {
            assert_eq!(audit.with(|view| view.failure()).unwrap(), None);
            tokio::task::yield_now().await;
        }
        if let std::task::Poll::Ready(swapped) = futures_util::poll!(swap.as_mut()) {
            break swapped;
        }
    };
    swapped.unwrap();
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_what_will_not_come() {
    let nx = boot(Config::in_memory()).await;
    let config = AuditConfig { open_to_administrators: true, ..AuditConfig::default() };
    let audit = nx.register::<Audit>("audit", config).await.unwrap();
    let done = nx.send(SysWrite::at(path("/a"), "x").create()).await.unwrap();
    let through = ask(&audit, CaughtUp::root(done.receipt.lsn)).await.unwrap();
    assert!(through >= done.receipt.lsn);
    // More than are answered at once.
    for _ in 0..2_000 {
        let never = ask(&audit, CaughtUp::root(Lsn(1_000_000))).await.unwrap_err();
        assert_eq!(never.kind(), ErrorKind::InvalidArgument, "{never}");
    }
    let nowhere = CaughtUp { zone: "nowhere".parse().unwrap(), lsn: Lsn(1) };
    assert_eq!(ask(&audit, nowhere).await.unwrap_err().kind(), ErrorKind::InvalidArgument);

    // A log with no end to go on from.
    nx.append("/audit/root/changes/00000000000000000000.log", "no record").await.unwrap();
    let done = nx.send(SysWrite::at(path("/a"), "y")).await.unwrap();
    let broken = ask(&audit, CaughtUp::root(done.receipt.lsn)).await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::Corrupt, "{broken}");
    nx.shutdown().await.unwrap();
}

/// Every append rewrites its segment, and what it was before stays on disk. With segments of 64 KiB this left 33 MB.
#[tokio::test]
async fn a_thousand_appends_leave_little_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let nx = boot(Config::new(folder.path())).await;
    let audit = nx.register::<Audit>("audit", AuditConfig::default()).await.unwrap();
    let before = size(folder.path());
    for _ in 0..1_000 {
        let done = nx.send(SysWrite::at(path("/a"), "x").create()).await.unwrap();
        ask(&audit, CaughtUp::root(done.receipt.lsn)).await.unwrap();
    }
    nx.shutdown().await.unwrap();
    let left = size(folder.path()) - before;
    assert!(left < 8 << 20, "{left} bytes");
}

/// The lengths of all files.
fn size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there"));
    entries
        .map(|entry| {
            if entry.file_type().expect("it is there").is_dir() {
                size(&entry.path())
            } else {
                entry.metadata().expect("it is there").len()
            }
        })
        .sum()
}

#[tokio::test]
async fn what_others_change_in_its_files_is_found() {
    let nx = boot(Config::in_memory()).await;
    let config = AuditConfig { open_to_administrators: true, segment_bytes: 1_024, ..AuditConfig::default() };
    let audit = nx.register::<Audit>("audit", config).await.unwrap();
    let done = writes(&nx, 0, 5).await;
    has_just(&audit, &done).await;
    let names: Vec<String> =
        nx.readdir("/audit/root/changes").await.unwrap().iter().map(|entry| entry.path.to_string()).collect();
    assert!(names.len() > 3, "{names:?}");
    let broken = async || audit.call(Verify::root(), SOON).await.unwrap().unwrap().broken;

    let original = nx.read(&names[1]).await.unwrap();
    let altered = original.replace_once("writer-", "Writer-");
    let by = nx.write(&names[1], altered).await.unwrap();
    let found = broken().await.expect("a changed byte is found");
    assert_eq!(format!("/audit/root/changes/{}", found.segment), names[1]);
    // Whoever did it is in the log.
    audit.call(CaughtUp::root(by.receipt.lsn), SOON).await.unwrap().unwrap();
    let tampering = all(&audit, Query::root().below(path("/audit")).agent("nexus")).await;
    assert_eq!(tampering.len(), 1);
    nx.write(&names[1], original.clone()).await.unwrap();
    assert_eq!(broken().await, None, "put right, it is in order again");

    // Also with nothing but the bytes.
    let first = verify_segment(
        names[0].rsplit('/').next().unwrap(),
        &nx.read(&names[0]).await.unwrap(),
        Default::default(),
    );
    let name = names[1].rsplit('/').next().unwrap();
    assert!(verify_segment(name, &original, first.unwrap().link).is_ok());

    nx.unlink(&names[2]).await.unwrap();
    assert!(broken().await.is_some(), "a segment that is gone is found");
    nx.shutdown().await.unwrap();
}

trait ReplaceOnce {
    fn replace_once(&self, old: &str, new: &str) -> String;
}

impl ReplaceOnce for nexus::Bytes {
    fn replace_once(&self, old: &str, new: &str) -> String {
        String::from_utf8(self.to_vec()).expect("it is text").replacen(old, new, 1)
    }
}

#[tokio::test]
async fn records_are_found_by_path_agent_and_time_a_page_at_a_time() {
    let nx = boot(Config::in_memory()).await;
    let audit = nx.register::<Audit>("audit", config()).await.unwrap();
    let done = writes(&nx, 0, 20).await;
    let moved = nx.rename("/w0/0-3", "/elsewhere").await.unwrap();
    audit.call(CaughtUp::root(moved.receipt.lsn), SOON).await.unwrap().unwrap();
    assert_eq!(all(&audit, Query::root().agent("writer-3")).await.len(), 20);
    assert_eq!(all(&audit, Query::root().below(path("/w0"))).await.len(), 21, "the rename too");
    assert_eq!(all(&audit, Query::root().below(path("/elsewhere"))).await.len(), 1);
    let everything = all(&audit, Query::root()).await;
    let middle = everything[everything.len() / 2].at;
    let early = all(&audit, Query::root().between(Timestamp(0), middle)).await;
    let late = all(&audit, Query::root().between(middle, Timestamp(u64::MAX))).await;
    assert_eq!(early.len() + late.len(), everything.len());
    assert!(!early.is_empty() && !late.is_empty());

    let mut query = Query::root().agent("writer-1").limit(7);
    let mut sizes = Vec::new();
    loop {
        let page = audit.call(query.clone(), SOON).await.unwrap().unwrap();
        sizes.push(page.records.len());
        let Some(next) = page.next else { break };
        query = query.after(next);
    }
    assert_eq!(sizes.iter().sum::<usize>(), 20);
    assert!(sizes.iter().all(|size| *size <= 7), "{sizes:?}");
    assert_eq!(done.len(), WRITERS * 20);
    nx.shutdown().await.unwrap();
}

/// How many records of it a [`Forgetful`] log tells.
const TOLD: u64 = 1_000;

/// A log that tells its last records alone.
#[derive(Debug)]
struct Forgetful(MemoryMetastore);

impl Metastore for Forgetful {
    fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        self.0.apply(batch)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.0.reader()
    }

    fn last_lsn(&self, tree: TreeId) -> Result<Lsn, StoreError> {
        self.0.last_lsn(tree)
    }

    fn changes(&self, tree: TreeId, since: Lsn, limit: usize) -> Result<Vec<LogRecord>, StoreError> {
        let Lsn(last) = self.0.last_lsn(tree)?;
        self.0.changes(tree, since.max(Lsn(last.saturating_sub(TOLD))), limit)
    }

    fn outcome(&self, op_id: OpId) -> Result<Option<(TreeId, Lsn)>, StoreError> {
        self.0.outcome(op_id)
    }

    fn next_file_id(&self) -> Result<u64, StoreError> {
        self.0.next_file_id()
    }
}

#[tokio::test]
async fn commits_that_the_kernel_forgot_before_the_log_came_to_them_are_told_as_a_gap() {
    let (store, content) = (Arc::new(Forgetful(MemoryMetastore::new())), tempfile::tempdir().unwrap());
    commit_many(&store.0, 0);
    let mut told = Vec::new();
    // Before the log was begun, and while the service was away.
    for round in 1..3 {
        let nx = boot(Config::new(content.path()).metastore(store.clone()).service::<Audit>()).await;
        let audit = nx.register::<Audit>("audit", AuditConfig::default()).await.unwrap();
        let written = nx.write("/a", "x").await.unwrap().receipt.lsn;
        // It is a long way, on a machine with other work.
        while let Err(error) = ask(&audit, CaughtUp::root(written)).await {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
        let records = all(&audit, Query::root()).await;
        let gaps: Vec<_> =
            (0..records.len()).filter(|at| matches!(records[*at].entry, Entry::Gap { .. })).collect();
        assert_eq!(gaps.len(), round, "in {} records from {:?}", records.len(), records.first());
        let at = gaps[round - 1];
        let Entry::Gap { from, to } = records[at].entry else { unreachable!("they were chosen so") };
        let before = at.checked_sub(1).map_or(Lsn(0), |at| records[at].entry.lsn().expect("it tells of one"));
        assert_eq!(from, Lsn(before.0 + 1), "it begins where the log ended");
        let next = records[at + 1].entry.lsn();
        assert_eq!(next, Some(Lsn(to.0 + 1)), "it goes on with what the kernel still knows");
        assert!(to.0 - from.0 >= FORGOTTEN - TOLD - 200, "{from} {to}");
        told.push(Gap { n: records[at].n, from, to });
        let verified = ask(&audit, Verify::root()).await.expect("it verifies");
        assert_eq!((verified.broken, &verified.gaps), (None, &told), "a gap is told, and is no tampering");
        assert_eq!(verified.missing, told.iter().map(|gap| gap.to.0 - gap.from.0 + 1).sum::<u64>());
        nx.shutdown().await.unwrap();
        commit_many(&store.0, round as u64);
    }
}

#[tokio::test]
async fn a_gap_over_what_the_kernel_still_knows_is_found() {
    let nx = boot(Config::in_memory()).await;
    let config =
        AuditConfig { open_to_administrators: true, segment_bytes: 1 << 20, ..AuditConfig::default() };
    let audit = nx.register::<Audit>("audit", config).await.unwrap();
    has_just(&audit, &writes(&nx, 0, 1).await).await;
    let name = "/audit/root/changes/00000000000000000000.log";
    let records = all(&audit, Query::root()).await;
    // Two changes are made out to have been forgotten, and the chain is made anew.
    let (hidden, last) = (&records[1], &records[2]);
    let entry = Entry::Gap {
        from: hidden.entry.lsn().expect("it is a change"),
        to: last.entry.lsn().expect("it is a change"),
    };
    let gap = Record { entry, ..hidden.clone() };
    let (mut forged, mut hash) = (Vec::new(), [0; 32]);
    for (record, n) in [&records[0], &gap].into_iter().chain(&records[3..]).zip(0..) {
        let text = serde_json::to_vec(&Record { n, ..record.clone() }).unwrap();
        hash = blake3::Hasher::new().update(&hash).update(&text).finalize().into();
        forged.extend_from_slice(blake3::Hash::from_bytes(hash).to_hex().as_bytes());
        forged.extend([b" ", &*text, b"\n"].concat());
    }
    let name_alone = name.rsplit('/').next().unwrap();
    assert!(verify_segment(name_alone, &forged, Default::default()).is_ok(), "its chain is in order");
    nx.write(name, forged).await.unwrap();
    let broken = ask(&audit, Verify::root()).await.unwrap().broken.expect("it is found");
    assert_eq!(broken.n, 1);
    assert!(broken.why.contains("still knows"), "{broken}");
    nx.shutdown().await.unwrap();
}
