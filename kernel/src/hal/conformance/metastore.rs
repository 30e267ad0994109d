//! The suite of [`Metastore`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nexus_messages::{Lsn, Op, OpId, Timestamp, VPath};

use super::{Claim, Report, Verdict, check_claims, claims, done, ensure, same};
use crate::hal::{
    Batch, Change, Entry, EntryOutcome, LogRecord, Metastore, Precondition, RowKey, Table, TreeId,
};

/// A store to be checked.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Subject {
    /// A new, empty store.
    pub store: Box<dyn Metastore>,
    /// Closes the store, as a crash would at the latest, and opens it again; none for a store that is gone with its value.
    pub reopen: Option<Reopen>,
}

/// Closes a store and opens it again.
pub type Reopen = Box<dyn Fn(Box<dyn Metastore>) -> Box<dyn Metastore>>;

impl Subject {
    /// A store that is gone with its value.
    pub fn new(store: impl Metastore) -> Self {
        Self { store: Box::new(store), reopen: None }
    }

    /// Says how the store is closed and opened again.
    #[must_use]
    pub fn reopen(mut self, reopen: impl Fn(Box<dyn Metastore>) -> Box<dyn Metastore> + 'static) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }
}

/// Checks every claim on a store of its own.
pub fn check(make: &dyn Fn() -> Subject) -> Report {
    check_claims("metastore", CLAIMS, make)
}

const CLAIMS: &[Claim<Subject>] = claims![
    a_new_store_is_empty,
    what_was_committed_is_read,
    places_are_dense_and_given_once,
    each_tree_has_its_own_log,
    a_refused_entry_changes_nothing,
    the_precondition_that_failed_is_named,
    entries_see_those_before_them,
    preconditions_hold_exactly_when_they_should,
    changes_are_made_in_their_order,
    put_if_absent_keeps_the_first_value,
    delete_if_vacant_looks_when_it_is_reached,
    a_row_is_put_at_the_place_of_its_entry,
    what_a_removal_keeps_is_kept_when_something_is_removed,
    what_is_put_at_its_place_survives_reopening,
    tables_are_apart,
    scans_give_the_prefix_in_byte_order,
    scans_stop_at_their_limit_and_go_on_after_it,
    odd_keys_and_values_are_kept,
    a_reader_sees_what_was_there_when_it_was_made,
    no_reader_sees_half_a_batch,
    the_log_tells_what_was_committed,
    the_log_is_read_in_pages,
    a_repeatable_operation_is_done_once,
    a_repeat_within_a_batch_is_done_once,
    a_refused_operation_may_come_again,
    operations_without_a_clients_id_are_forgotten,
    the_next_identity_only_grows,
    an_empty_batch_does_nothing,
    what_was_committed_survives_reopening,
    places_go_on_after_reopening,
    what_was_appended_is_read_at_once,
    what_is_appended_and_applied_keeps_one_order,
    the_log_tells_only_what_is_durable,
    a_batch_makes_what_was_appended_before_it_durable,
    a_repeat_makes_what_it_repeats_durable,
    a_record_is_found_at_its_place,
    what_was_synced_survives_reopening,
];

const ROOT: TreeId = TreeId::ROOT;

fn key(bytes: impl AsRef<[u8]>) -> RowKey {
    RowKey::new(Table::Dentries, bytes.as_ref())
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(name: &str, text: &str) -> Change {
    Change::Put(key(name), value(text))
}

fn entry(op: u128, preconditions: Vec<Precondition>, changes: Vec<Change>) -> Entry {
    Entry {
        tree: ROOT,
        op_id: OpId(op),
        repeatable: false,
        caller: Arc::from("conformance"),
        op: Op::Write,
        path: VPath::root(),
        other: None,
        items: Vec::new(),
        told: None,
        at: Timestamp(1),
        preconditions,
        changes,
    }
}

fn repeatable(op: u128, preconditions: Vec<Precondition>, changes: Vec<Change>) -> Entry {
    Entry { repeatable: true, ..entry(op, preconditions, changes) }
}

fn committed(lsn: u64) -> EntryOutcome {
    EntryOutcome::Committed(Lsn(lsn))
}

fn refused(precondition: usize) -> EntryOutcome {
    EntryOutcome::Refused { precondition }
}

fn apply(store: &dyn Metastore, entries: Vec<Entry>) -> Result<Vec<EntryOutcome>, String> {
    Ok(done("apply", store.apply(&Batch { entries, next_file_id: 0 }))?.outcomes)
}

/// Applies entries that have only changes and commits them all.
fn commit(store: &dyn Metastore, changes: Vec<Change>) -> Verdict {
    let outcomes = apply(store, vec![entry(0, vec![], changes)])?;
    ensure(matches!(outcomes[..], [EntryOutcome::Committed(_)]), || format!("not committed: {outcomes:?}"))
}

fn get(store: &dyn Metastore, key: &RowKey) -> Result<Option<Bytes>, String> {
    done("get", done("reader", store.reader())?.get(key))
}

fn scan(
    store: &dyn Metastore,
    prefix: &RowKey,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<Vec<u8>>, String> {
    let rows = done("scan", done("reader", store.reader())?.scan(prefix, after, limit))?;
    Ok(rows.into_iter().map(|(key, _)| key.bytes.into_vec()).collect())
}

fn a_new_store_is_empty(Subject { store, .. }: Subject) -> Verdict {
    same("the last place", done("last_lsn", store.last_lsn(ROOT))?, Lsn(0))?;
    same("the log", done("changes", store.changes(ROOT, Lsn(0), 10))?, vec![])?;
    same("an outcome", done("outcome", store.outcome(OpId(1)))?, None)?;
    for table in Table::ALL {
        same("a row", get(&*store, &RowKey::new(table, *b"a"))?, None)?;
        same("a scan", scan(&*store, &RowKey::new(table, []), None, 10)?, vec![])?;
    }
    Ok(())
}

fn what_was_committed_is_read(Subject { store, .. }: Subject) -> Verdict {
    commit(&*store, vec![put("a", "1"), put("b", "2")])?;
    commit(&*store, vec![put("a", "3")])?;
    same("a", get(&*store, &key("a"))?, Some(value("3")))?;
    same("b", get(&*store, &key("b"))?, Some(value("2")))?;
    commit(&*store, vec![Change::Delete(key("a")), Change::Delete(key("never"))])?;
    same("a deleted row", get(&*store, &key("a"))?, None)
}

fn places_are_dense_and_given_once(Subject { store, .. }: Subject) -> Verdict {
    let mut next = 1;
    for round in 0..4u32 {
        let entries = (0..=round).map(|n| entry(n.into(), vec![], vec![put(&format!("{n}"), "")])).collect();
        let outcomes = apply(&*store, entries)?;
        let expected = (0..=round).map(|n| committed(next + u64::from(n))).collect::<Vec<_>>();
        same("outcomes", outcomes, expected)?;
        next += u64::from(round) + 1;
        same("the last place", done("last_lsn", store.last_lsn(ROOT))?, Lsn(next - 1))?;
    }
    Ok(())
}

fn each_tree_has_its_own_log(Subject { store, .. }: Subject) -> Verdict {
    let other = TreeId(256);
    let in_other = |n| Entry { tree: other, ..entry(n, vec![], vec![]) };
    let outcomes = apply(&*store, vec![in_other(1), entry(2, vec![], vec![]), in_other(3)])?;
    same("outcomes", outcomes, vec![committed(1), committed(1), committed(2)])?;
    same("the other's last place", done("last_lsn", store.last_lsn(other))?, Lsn(2))?;
    same("the root's last place", done("last_lsn", store.last_lsn(ROOT))?, Lsn(1))?;
    let ops = |tree| Ok::<_, String>(ops_of(&done("changes", store.changes(tree, Lsn(0), 10))?));
    same("the other's log", ops(other)?, vec![1, 3])?;
    same("the root's log", ops(ROOT)?, vec![2])?;
    same("a third log", ops(TreeId(1))?, vec![])
}

fn ops_of(records: &[LogRecord]) -> Vec<u128> {
    records.iter().map(|record| record.op_id.0).collect()
}

fn a_refused_entry_changes_nothing(Subject { store, .. }: Subject) -> Verdict {
    commit(&*store, vec![put("kept", "1")])?;
    let bad = entry(
        2,
        vec![Precondition::Present(key("kept")), Precondition::Absent(key("kept"))],
        vec![put("new", "x"), Change::Delete(key("kept")), put("new2", "y")],
    );
    let outcomes = apply(
        &*store,
        vec![entry(1, vec![], vec![put("first", "")]), bad, entry(3, vec![], vec![put("last", "")])],
    )?;
    same("outcomes", outcomes, vec![committed(2), refused(1), committed(3)])?;
    same(
        "the rows",
        scan(&*store, &key(""), None, 10)?,
        [&b"first"[..], b"kept", b"last"].map(Vec::from).to_vec(),
    )?;
    same("the log", ops_of(&done("changes", store.changes(ROOT, Lsn(0), 10))?), vec![0, 1, 3])
}

fn the_precondition_that_failed_is_named(Subject { store, .. }: Subject) -> Verdict {
    commit(&*store, vec![put("a", "1")])?;
    let good = || Precondition::Present(key("a"));
    for index in 0..3 {
        let mut preconditions = vec![good(), good(), good()];
        preconditions[index] = Precondition::Absent(key("a"));
        same("outcome", apply(&*store, vec![entry(1, preconditions, vec![])])?, vec![refused(index)])?;
    }
    Ok(())
}

fn entries_see_those_before_them(Subject { store, .. }: Subject) -> Verdict {
    let absent = || vec![Precondition::Absent(key("a"))];
    let outcomes = apply(
        &*store,
        vec![
            entry(1, absent(), vec![put("a", "1")]),
            entry(2, absent(), vec![put("a", "2")]),
            entry(3, vec![Precondition::Equals(key("a"), value("1"))], vec![Change::Delete(key("a"))]),
            entry(4, absent(), vec![put("a", "4")]),
        ],
    )?;
    same("outcomes", outcomes, vec![committed(1), refused(0), committed(2), committed(3)])?;
    same("a", get(&*store, &key("a"))?, Some(value("4")))
}

fn preconditions_hold_exactly_when_they_should(Subject { store, .. }: Subject) -> Verdict {
    commit(&*store, vec![put("dir/x", "1"), put("e", "")])?;
    let elsewhere = RowKey::new(Table::Inodes, *b"dir/");
    let cases = [
        (Precondition::Absent(key("dir/")), true),
        (Precondition::Absent(key("dir/x")), false),
        (Precondition::Absent(key("e")), false),
        (Precondition::Present(key("dir/x")), true),
        (Precondition::Present(key("dir/")), false),
        (Precondition::Equals(key("dir/x"), value("1")), true),
        (Precondition::Equals(key("dir/x"), value("10")), false),
        (Precondition::Equals(key("dir/x"), value("")), false),
        (Precondition::Equals(key("e"), value("")), true),
        (Precondition::Equals(key("none"), value("")), false),
        (Precondition::Vacant(key("dir/")), false),
        (Precondition::Vacant(key("dir/x")), false),
        (Precondition::Vacant(key("dir/x1")), true),
        (Precondition::Vacant(key("dir/w")), true),
        (Precondition::Vacant(key("")), false),
        (Precondition::Vacant(elsewhere), true),
    ];
    let mut lsn = 1;
    for (precondition, holds) in cases {
        lsn += u64::from(holds);
        let outcome = apply(&*store, vec![entry(1, vec![precondition.clone()], vec![])])?;
        same(&format!("{precondition:?}"), outcome, vec![if holds { committed(lsn) } else { refused(0) }])?;
    }
    Ok(())
}

fn changes_are_made_in_their_order(Subject { store, .. }: Subject) -> Verdict {
    commit(
        &*store,
        vec![
            put("a", "1"),
            put("a", "2"),
            put("b", "1"),
            Change::Delete(key("b")),
            Change::Delete(key("c")),
            put("c", "3"),
        ],
    )?;
    same("a", get(&*store, &key("a"))?, Some(value("2")))?;
    same("b", get(&*store, &key("b"))?, None)?;
    same("c", get(&*store, &key("c"))?, Some(value("3")))
}

fn put_if_absent_keeps_the_first_value(Subject { store, .. }: Subject) -> Verdict {
    let keep = |text| Change::PutIfAbsent(key("a"), value(text));
    commit(&*store, vec![keep("1"), keep("2")])?;
    commit(&*store, vec![keep("3")])?;
    same("a", get(&*store, &key("a"))?, Some(value("1")))?;
    commit(&*store, vec![Change::Delete(key("a")), keep("4")])?;
    same("a, made again", get(&*store, &key("a"))?, Some(value("4")))
}

fn delete_if_vacant_looks_when_it_is_reached(Subject { store, .. }: Subject) -> Verdict {
    let guarded = || Change::DeleteIfVacant {
        prefix: key("dir/"),
        rows: vec![key("dir"), key("meta"), key("none")],
        kept: vec![],
    };
    commit(&*store, vec![put("dir", ""), put("meta", ""), put("dir/a", "")])?;
    commit(&*store, vec![guarded(), put("after", "")])?;
    same("not vacant: rows", scan(&*store, &key(""), None, 10)?.len(), 4)?;
    commit(&*store, vec![guarded(), Change::Delete(key("dir/a"))])?;
    same("vacant too late: dir", get(&*store, &key("dir"))?, Some(value("")))?;
    commit(&*store, vec![put("dir/b", ""), guarded(), Change::Delete(key("dir/b")), guarded()])?;
    same("vacant in the end", scan(&*store, &key(""), None, 10)?, vec![b"after".to_vec()])
}

/// The key `name` with the place `lsn` behind it.
fn at(name: &str, lsn: u64) -> RowKey {
    key([name.as_bytes(), &lsn.to_be_bytes()].concat())
}

fn put_at(name: &str, text: &str) -> Change {
    Change::PutAtLsn { prefix: key(name), value: value(text) }
}

fn a_row_is_put_at_the_place_of_its_entry(Subject { store, .. }: Subject) -> Verdict {
    let other = |op| Entry { tree: TreeId(9), ..entry(op, vec![], vec![put_at("b/", "other tree")]) };
    let first = entry(1, vec![], vec![put_at("a/", "1"), put("a", "1"), put_at("a/", "1, again")]);
    let never = entry(2, vec![Precondition::Absent(key("a"))], vec![put_at("a/", "refused")]);
    let second = entry(3, vec![Precondition::Present(at("a/", 1))], vec![put_at("a/", "2")]);
    let outcomes = apply(&*store, vec![first, other(4), never, second, other(5)])?;
    same("outcomes", outcomes, vec![committed(1), committed(1), refused(0), committed(2), committed(2)])?;
    commit(&*store, vec![put_at("a/", "3")])?;
    same("the first", get(&*store, &at("a/", 1))?, Some(value("1, again")))?;
    same("the second", get(&*store, &at("a/", 2))?, Some(value("2")))?;
    let keys =
        |name: &str, lsns: &[u64]| lsns.iter().map(|lsn| at(name, *lsn).bytes.to_vec()).collect::<Vec<_>>();
    same("all", scan(&*store, &key("a/"), None, 9)?, keys("a/", &[1, 2, 3]))?;
    same("after the first", scan(&*store, &key("a/"), Some(&at("a/", 1)), 1)?, keys("a/", &[2]))?;
    same("those of another tree", scan(&*store, &key("b/"), None, 9)?, keys("b/", &[1, 2]))?;
    commit(&*store, vec![Change::Delete(at("a/", 2))])?;
    same("without the second", scan(&*store, &key("a/"), None, 9)?, keys("a/", &[1, 3]))
}

fn what_a_removal_keeps_is_kept_when_something_is_removed(Subject { store, .. }: Subject) -> Verdict {
    let guarded = || Change::DeleteIfVacant {
        prefix: key("dir/"),
        rows: vec![key("dir")],
        kept: vec![(key("was/"), value("dir"))],
    };
    commit(&*store, vec![put("dir", ""), put("dir/a", "")])?;
    commit(&*store, vec![guarded()])?;
    same("not vacant", scan(&*store, &key("was/"), None, 9)?, vec![])?;
    commit(&*store, vec![Change::Delete(key("dir/a")), guarded()])?;
    same("vacant", scan(&*store, &key(""), None, 9)?, vec![at("was/", 3).bytes.to_vec()])
}

fn what_is_put_at_its_place_survives_reopening(Subject { store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    commit(&*store, vec![put_at("a/", "1")])?;
    let store = reopen(store);
    commit(&*store, vec![put_at("a/", "2")])?;
    let store = reopen(store);
    same("the first", get(&*store, &at("a/", 1))?, Some(value("1")))?;
    same("the second", get(&*store, &at("a/", 2))?, Some(value("2")))
}

fn tables_are_apart(Subject { store, .. }: Subject) -> Verdict {
    let puts = Table::ALL.map(|table| Change::Put(RowKey::new(table, *b"k"), value(&format!("{table:?}"))));
    commit(&*store, puts.to_vec())?;
    commit(&*store, vec![Change::Delete(RowKey::new(Table::Inodes, *b"k"))])?;
    for table in Table::ALL {
        let expected = (table != Table::Inodes).then(|| value(&format!("{table:?}")));
        same("the row", get(&*store, &RowKey::new(table, *b"k"))?, expected.clone())?;
        same(
            "the scan",
            scan(&*store, &RowKey::new(table, []), None, 9)?.len(),
            usize::from(expected.is_some()),
        )?;
    }
    Ok(())
}

const NAMES: [&[u8]; 9] = [b"", b"\x00", b"a", b"a\x00", b"a\x01", b"aa", b"b", b"\xff", b"\xff\xff"];

fn scans_give_the_prefix_in_byte_order(Subject { store, .. }: Subject) -> Verdict {
    commit(&*store, NAMES.iter().rev().map(|name| Change::Put(key(name), value("v"))).collect())?;
    let cases: [(&[u8], &[&[u8]]); 7] = [
        (b"", &NAMES),
        (b"a", &NAMES[2..6]),
        (b"a\x00", &NAMES[3..4]),
        (b"\xff", &NAMES[7..9]),
        (b"\xff\xff\xff", &[]),
        (b"c", &[]),
        (b"b", &NAMES[6..7]),
    ];
    for (prefix, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|name| name.to_vec()).collect();
        same(&format!("{:?}", key(prefix)), scan(&*store, &key(prefix), None, usize::MAX)?, expected)?;
    }
    Ok(())
}

fn scans_stop_at_their_limit_and_go_on_after_it(Subject { store, .. }: Subject) -> Verdict {
    commit(&*store, NAMES.iter().map(|name| Change::Put(key(name), value("v"))).collect())?;
    for prefix in [&b""[..], b"a", b"\xff"] {
        let all = scan(&*store, &key(prefix), None, usize::MAX)?;
        for limit in 1..=all.len() + 1 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = scan(&*store, &key(prefix), after.as_ref(), limit)?;
                ensure(page.len() <= limit, || format!("{} rows with limit {limit}", page.len()))?;
                let Some(last) = page.last() else { break };
                let next = Some(key(last));
                ensure(next > after, || format!("a page that does not go on after {after:?}"))?;
                after = next;
                let full = page.len() == limit;
                seen.extend(page);
                if !full {
                    break;
                }
            }
            same(&format!("pages of {limit} below {:?}", key(prefix)), seen, all.clone())?;
        }
    }
    same("no row", scan(&*store, &key(""), None, 0)?, vec![])?;
    same("after a key before the prefix", scan(&*store, &key("a"), Some(&key("\0")), 9)?.len(), 4)?;
    same("after a key beyond the prefix", scan(&*store, &key("a"), Some(&key("b")), 9)?, vec![])?;
    same("after a key that is not there", scan(&*store, &key("a"), Some(&key("a\x005")), 9)?.len(), 2)
}

fn odd_keys_and_values_are_kept(Subject { store, .. }: Subject) -> Verdict {
    let long_key = RowKey::new(Table::Contents, vec![0xfe; 4_400]);
    let large = Bytes::from((0..200_000u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>());
    let rows =
        [(key(""), value("")), (key([0; 300]), value("\0")), (long_key, large.clone()), (key([0xff]), large)];
    commit(&*store, rows.iter().map(|(key, value)| Change::Put(key.clone(), value.clone())).collect())?;
    for (key, expected) in rows {
        let got = get(&*store, &key)?;
        ensure(got == Some(expected), || format!("a key of {} bytes lost its value", key.bytes.len()))?;
    }
    Ok(())
}

fn a_reader_sees_what_was_there_when_it_was_made(Subject { store, .. }: Subject) -> Verdict {
    commit(&*store, vec![put("a", "1"), put("b", "1")])?;
    let reader = done("reader", store.reader())?;
    commit(&*store, vec![put("a", "2"), Change::Delete(key("b")), put("c", "2")])?;
    same("a", done("get", reader.get(&key("a")))?, Some(value("1")))?;
    same("b", done("get", reader.get(&key("b")))?, Some(value("1")))?;
    let rows = done("scan", reader.scan(&key(""), None, 9))?;
    same("rows", rows, vec![(key("a"), value("1")), (key("b"), value("1"))])?;
    same("a, for a new reader", get(&*store, &key("a"))?, Some(value("2")))
}

fn no_reader_sees_half_a_batch(Subject { store, .. }: Subject) -> Verdict {
    const BATCHES_MIN: u64 = 40;
    const READS_MIN: u64 = 400;
    let store = &*store;
    let reads = AtomicU64::new(0);
    let write = || -> Verdict {
        let mut round = 0;
        // What the reader has seen orders nothing; it only says when both have done enough.
        while round < BATCHES_MIN || reads.load(Ordering::Relaxed) < READS_MIN {
            round += 1;
            let text = round.to_string();
            let one = |name| entry(0, vec![], vec![put(name, &text)]);
            apply(store, vec![one("a"), one("b"), one("c")])?;
        }
        Ok(())
    };
    let read = || -> Verdict {
        let reader = done("reader", store.reader())?;
        let rows = done("scan", reader.scan(&key(""), None, 9))?;
        let whole = rows.is_empty() || (rows.len() == 3 && rows.iter().all(|row| row.1 == rows[0].1));
        ensure(whole, || format!("half a batch: {rows:?}"))
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        let mut verdict = Ok(());
        while !writer.is_finished() {
            verdict = verdict.and_then(|()| read());
            reads.fetch_add(1, Ordering::Relaxed);
        }
        writer.join().map_err(|_| "the writer panicked".to_owned())?.and(verdict)
    })
}

fn the_log_tells_what_was_committed(Subject { store, .. }: Subject) -> Verdict {
    let path = |text| VPath::parse(text).map_err(|e| e.to_string());
    let renamed = Entry {
        op: Op::Rename,
        path: path("/a")?,
        other: Some(path("/b/c")?),
        items: Vec::new(),
        told: None,
        caller: Arc::from("coder-7"),
        at: Timestamp(77),
        ..repeatable(u128::MAX, vec![], vec![put("a", "1")])
    };
    let written = entry(1, vec![], vec![]);
    apply(&*store, vec![renamed.clone(), written.clone()])?;
    let expected = vec![LogRecord::of(&renamed, Lsn(1)), LogRecord::of(&written, Lsn(2))];
    same("the log", done("changes", store.changes(ROOT, Lsn(0), 10))?, expected)
}

fn the_log_is_read_in_pages(Subject { store, .. }: Subject) -> Verdict {
    apply(&*store, (0..5).map(|n| entry(n, vec![], vec![])).collect())?;
    let check = |since, limit, expected: &[u128]| {
        let records = done("changes", store.changes(ROOT, Lsn(since), limit))?;
        same(&format!("{limit} after {since}"), ops_of(&records), expected.to_vec())
    };
    check(0, 2, &[0, 1])?;
    check(2, 2, &[2, 3])?;
    check(4, 2, &[4])?;
    check(5, 2, &[])?;
    check(1, 0, &[])?;
    check(0, usize::MAX, &[0, 1, 2, 3, 4])?;
    check(u64::MAX, 9, &[])
}

fn a_repeatable_operation_is_done_once(Subject { store, .. }: Subject) -> Verdict {
    let first = repeatable(7, vec![Precondition::Absent(key("a"))], vec![put("a", "1")]);
    same("first", apply(&*store, vec![first.clone()])?, vec![committed(1)])?;
    commit(&*store, vec![put("a", "2")])?;
    // Its precondition no longer holds; that it was done counts more.
    same("again", apply(&*store, vec![first])?, vec![EntryOutcome::Repeated(Lsn(1))])?;
    same("a", get(&*store, &key("a"))?, Some(value("2")))?;
    same("the last place", done("last_lsn", store.last_lsn(ROOT))?, Lsn(2))?;
    same("outcome", done("outcome", store.outcome(OpId(7)))?, Some((ROOT, Lsn(1))))
}

fn a_repeat_within_a_batch_is_done_once(Subject { store, .. }: Subject) -> Verdict {
    let one = |text| repeatable(7, vec![], vec![put("a", text)]);
    let outcomes = apply(&*store, vec![one("1"), one("2"), entry(8, vec![], vec![])])?;
    same("outcomes", outcomes, vec![committed(1), EntryOutcome::Repeated(Lsn(1)), committed(2)])?;
    same("a", get(&*store, &key("a"))?, Some(value("1")))
}

fn a_refused_operation_may_come_again(Subject { store, .. }: Subject) -> Verdict {
    let one = || repeatable(7, vec![Precondition::Present(key("a"))], vec![put("b", "")]);
    same("too early", apply(&*store, vec![one()])?, vec![refused(0)])?;
    same("its outcome", done("outcome", store.outcome(OpId(7)))?, None)?;
    commit(&*store, vec![put("a", "")])?;
    same("in time", apply(&*store, vec![one()])?, vec![committed(2)])
}

fn operations_without_a_clients_id_are_forgotten(Subject { store, .. }: Subject) -> Verdict {
    let one = || entry(7, vec![], vec![put("a", "")]);
    same("outcomes", apply(&*store, vec![one(), one()])?, vec![committed(1), committed(2)])?;
    same("outcome", done("outcome", store.outcome(OpId(7)))?, None)
}

fn the_next_identity_only_grows(Subject { store, .. }: Subject) -> Verdict {
    let first = done("next_file_id", store.next_file_id())?;
    for (given, expected) in [(first + 9, first + 9), (first + 3, first + 9), (first + 10, first + 10)] {
        let entries = vec![entry(1, vec![], vec![])];
        done("apply", store.apply(&Batch { entries, next_file_id: given }))?;
        same("the next identity", done("next_file_id", store.next_file_id())?, expected)?;
    }
    Ok(())
}

fn an_empty_batch_does_nothing(Subject { store, .. }: Subject) -> Verdict {
    same("outcomes", apply(&*store, vec![])?, vec![])?;
    same("the last place", done("last_lsn", store.last_lsn(ROOT))?, Lsn(0))
}

fn what_was_committed_survives_reopening(Subject { store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    let entries = vec![
        repeatable(7, vec![], vec![put("a", "1"), put("gone", "")]),
        entry(8, vec![Precondition::Absent(key("a"))], vec![put("refused", "")]),
        entry(9, vec![], vec![Change::Delete(key("gone"))]),
    ];
    done("apply", store.apply(&Batch { entries, next_file_id: 1_000 }))?;
    let log = done("changes", store.changes(ROOT, Lsn(0), 9))?;
    let store = reopen(store);
    same("the rows", scan(&*store, &key(""), None, 9)?, vec![b"a".to_vec()])?;
    same("the log", done("changes", store.changes(ROOT, Lsn(0), 9))?, log)?;
    same("the outcome", done("outcome", store.outcome(OpId(7)))?, Some((ROOT, Lsn(1))))?;
    same("the next identity", done("next_file_id", store.next_file_id())?, 1_000)
}

fn places_go_on_after_reopening(Subject { mut store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    let other = TreeId(9);
    for round in 1..4 {
        let entries = vec![entry(0, vec![], vec![]), Entry { tree: other, ..entry(0, vec![], vec![]) }];
        same("outcomes", apply(&*store, entries)?, vec![committed(round), committed(round)])?;
        store = reopen(store);
        for tree in [ROOT, other] {
            same("the last place", done("last_lsn", store.last_lsn(tree))?, Lsn(round))?;
        }
    }
    Ok(())
}

/// As [`apply`], without asking that it be durable.
fn append(store: &dyn Metastore, entries: Vec<Entry>) -> Result<Vec<EntryOutcome>, String> {
    let batch = Batch { entries, next_file_id: 0 };
    let before = done("last_lsn", store.last_lsn(ROOT))?;
    match done("append", store.append(&batch))? {
        Some(applied) => Ok(applied.outcomes),
        None => {
            let after = done("last_lsn", store.last_lsn(ROOT))?;
            same("the last place after a batch that was not taken", after, before)?;
            Ok(done("apply", store.apply(&batch))?.outcomes)
        }
    }
}

fn what_was_appended_is_read_at_once(Subject { store, .. }: Subject) -> Verdict {
    let written = repeatable(7, vec![Precondition::Absent(key("a"))], vec![put("a", "1"), put("b", "2")]);
    same("outcomes", append(&*store, vec![written.clone()])?, vec![committed(1)])?;
    same("a", get(&*store, &key("a"))?, Some(value("1")))?;
    same("the rows", scan(&*store, &key(""), None, 9)?, vec![b"a".to_vec(), b"b".to_vec()])?;
    same("the last place", done("last_lsn", store.last_lsn(ROOT))?, Lsn(1))?;
    same("its outcome", done("outcome", store.outcome(OpId(7)))?, Some((ROOT, Lsn(1))))?;
    same("again", append(&*store, vec![written])?, vec![EntryOutcome::Repeated(Lsn(1))])?;
    let late = entry(8, vec![Precondition::Absent(key("a"))], vec![put("a", "3")]);
    same("refused", append(&*store, vec![late])?, vec![refused(0)])?;
    same("a, in the end", get(&*store, &key("a"))?, Some(value("1")))
}

fn what_is_appended_and_applied_keeps_one_order(Subject { store, .. }: Subject) -> Verdict {
    for n in 0..12_u32 {
        let one = entry(n.into(), vec![], vec![put("a", &n.to_string())]);
        let outcomes = if n % 3 == 0 { apply(&*store, vec![one])? } else { append(&*store, vec![one])? };
        same("its place", outcomes, vec![committed(u64::from(n) + 1)])?;
        same("a", get(&*store, &key("a"))?, Some(value(&n.to_string())))?;
    }
    done("sync", store.sync())?;
    same("the log", ops_of(&done("changes", store.changes(ROOT, Lsn(0), 99))?), (0..12).collect())
}

fn the_log_tells_only_what_is_durable(Subject { store, .. }: Subject) -> Verdict {
    let told = || -> Result<Vec<u128>, String> {
        let records = done("changes", store.changes(ROOT, Lsn(0), 99))?;
        let Lsn(durable) = done("durable_lsn", store.durable_lsn(ROOT))?;
        same("the records that are told", records.len() as u64, durable)?;
        Ok(ops_of(&records))
    };
    apply(&*store, vec![entry(1, vec![], vec![put("a", "1")])])?;
    same("the log", told()?, vec![1])?;
    for op in [2, 3] {
        append(&*store, vec![entry(op, vec![], vec![put("a", "2")])])?;
        told()?;
    }
    done("sync", store.sync())?;
    same("the log after the flush", told()?, vec![1, 2, 3])?;
    same("what is not flushed after it", store.unsynced_bytes(), 0)
}

fn a_batch_makes_what_was_appended_before_it_durable(Subject { store, .. }: Subject) -> Verdict {
    append(&*store, vec![entry(1, vec![], vec![put("a", "1")])])?;
    append(&*store, vec![entry(2, vec![], vec![put("b", "1")])])?;
    apply(&*store, vec![entry(3, vec![], vec![put("c", "1")])])?;
    same("the durable place", done("durable_lsn", store.durable_lsn(ROOT))?, Lsn(3))?;
    same("the log", ops_of(&done("changes", store.changes(ROOT, Lsn(0), 9))?), vec![1, 2, 3])
}

fn a_repeat_makes_what_it_repeats_durable(Subject { store, .. }: Subject) -> Verdict {
    let one = || repeatable(7, vec![], vec![put("a", "1")]);
    append(&*store, vec![one()])?;
    same("the repeat", apply(&*store, vec![one()])?, vec![EntryOutcome::Repeated(Lsn(1))])?;
    same("the durable place", done("durable_lsn", store.durable_lsn(ROOT))?, Lsn(1))
}

fn a_record_is_found_at_its_place(Subject { store, .. }: Subject) -> Verdict {
    apply(&*store, vec![entry(1, vec![], vec![])])?;
    append(&*store, vec![entry(2, vec![], vec![])])?;
    let at = |lsn| -> Result<Option<u128>, String> {
        Ok(done("record", store.record(ROOT, Lsn(lsn)))?.map(|record| record.op_id.0))
    };
    same("the first", at(1)?, Some(1))?;
    same("the second, which may be on its way to disk", at(2)?, Some(2))?;
    same("none before the first", at(0)?, None)?;
    same("none after the last", at(3)?, None)?;
    same("none of another tree", done("record", store.record(TreeId(9), Lsn(1)))?, None)
}

fn what_was_synced_survives_reopening(Subject { store, reopen }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    append(&*store, vec![repeatable(7, vec![], vec![put("a", "1")])])?;
    done("sync", store.sync())?;
    let store = reopen(store);
    same("a", get(&*store, &key("a"))?, Some(value("1")))?;
    same("the durable place", done("durable_lsn", store.durable_lsn(ROOT))?, Lsn(1))?;
    same("the outcome", done("outcome", store.outcome(OpId(7)))?, Some((ROOT, Lsn(1))))
}
