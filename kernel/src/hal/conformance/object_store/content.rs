//! The suite of [`ContentStore`].

use std::sync::Arc;

use bytes::Bytes;
use nexus_messages::ContentId;
use nexus_messages::syscall::ByteRange;

use super::super::{Claim, Report, Verdict, check_claims, claims, done, ensure, same};
use super::{fails, not_found, wait};
use crate::hal::{Addressing, ContentStore, ObjectStore, StoreError};

/// A store to be checked.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Subject {
    /// A new, empty store.
    pub store: Arc<dyn ObjectStore>,
    /// Closes the store and opens it again; none for a store that is gone with its value.
    pub reopen: Option<Reopen>,
    /// Damages a stored content behind the store's back; none where that cannot be.
    pub damage: Option<Injury>,
}

/// Damages a stored content.
pub type Injury = Box<dyn Fn(&ContentId, Damage)>;

/// Closes a store and opens it again.
pub type Reopen = Box<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>>;

/// What happens to a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its second half is gone.
    Torn,
    /// Its last byte is another one.
    Altered,
}

impl Subject {
    /// A store that is gone with its value.
    pub fn new(store: impl ObjectStore) -> Self {
        Self { store: Arc::new(store), reopen: None, damage: None }
    }

    /// Says how the store is closed and opened again.
    #[must_use]
    pub fn reopen(mut self, reopen: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + 'static) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }

    /// Says how a stored content is damaged.
    #[must_use]
    pub fn damage(mut self, damage: impl Fn(&ContentId, Damage) + 'static) -> Self {
        self.damage = Some(Box::new(damage));
        self
    }
}

/// Checks every claim on a store of its own.
pub fn check(make: &dyn Fn() -> Subject) -> Report {
    check_claims("object store, by content", CLAIMS, make)
}

const CLAIMS: &[Claim<Subject>] = claims![
    it_answers_and_is_addressed_by_content,
    what_was_written_is_read,
    buffers_are_one_content,
    ranges_are_exact,
    ranges_of_large_content_are_exact,
    several_contents_are_read_in_their_order,
    content_that_is_not_there_is_told_so,
    writing_again_changes_nothing,
    deleted_content_is_gone_and_can_come_back,
    content_has_the_length_that_was_written,
    contents_are_listed_once_and_in_order,
    what_comes_and_goes_at_once_is_there_or_not,
    space_is_reclaimed_and_nothing_with_it,
    contents_are_apart,
    identical_writes_at_once_all_succeed,
    content_survives_reopening,
    damaged_content_is_told_and_never_returned,
    an_identical_write_heals_damaged_content,
    damage_is_found_after_reopening,
    an_examination_counts_nothing_from_before,
];

fn contents(store: &dyn ObjectStore) -> Result<&dyn ContentStore, String> {
    match store.addressing() {
        Addressing::Content(contents) => Ok(contents),
        Addressing::Path(_) => Err("the store is addressed by path".into()),
    }
}

/// The id of `content`.
fn id_of(content: &[u8]) -> ContentId {
    ContentId::Blake3(*blake3::hash(content).as_bytes())
}

fn write(store: &dyn ObjectStore, content: &[u8]) -> Result<ContentId, String> {
    let id = id_of(content);
    done("write", wait(contents(store)?.write(&id, &[Bytes::copy_from_slice(content)])))?;
    Ok(id)
}

fn read(store: &dyn ObjectStore, id: &ContentId, range: ByteRange) -> Result<Bytes, String> {
    done("read", wait(contents(store)?.read(id, range)))
}

fn contains(store: &dyn ObjectStore, id: &ContentId) -> Result<bool, String> {
    done("contains", wait(contents(store)?.contains(id)))
}

/// Bytes without a period that any piece size has.
fn pattern(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect()
}

fn it_answers_and_is_addressed_by_content(Subject { store, .. }: Subject) -> Verdict {
    contents(&*store)?;
    done("probe", wait(store.probe()))
}

fn what_was_written_is_read(Subject { store, .. }: Subject) -> Verdict {
    for content in [&b""[..], b"a", b"\0\xff", &pattern(70_000)] {
        let id = write(&*store, content)?;
        let got = read(&*store, &id, ByteRange::ALL)?;
        ensure(got == content, || format!("{} bytes came back as {}", content.len(), got.len()))?;
        same("contains", contains(&*store, &id)?, true)?;
    }
    Ok(())
}

fn buffers_are_one_content(Subject { store, .. }: Subject) -> Verdict {
    let parts = [&b"one"[..], b"", b"two", b"3"].map(Bytes::from_static);
    let id = id_of(b"onetwo3");
    done("write", wait(contents(&*store)?.write(&id, &parts)))?;
    same("content", read(&*store, &id, ByteRange::ALL)?, Bytes::from_static(b"onetwo3"))?;
    let nothing = id_of(b"");
    done("write of nothing", wait(contents(&*store)?.write(&nothing, &[])))?;
    same("nothing", read(&*store, &nothing, ByteRange::ALL)?, Bytes::new())
}

fn ranges_are_exact(Subject { store, .. }: Subject) -> Verdict {
    let id = write(&*store, b"0123456789")?;
    let check = |offset, count, expected: &'static str| {
        let range = ByteRange { offset, count };
        same(&format!("{range:?}"), read(&*store, &id, range)?, Bytes::from_static(expected.as_bytes()))
    };
    check(0, None, "0123456789")?;
    check(0, Some(10), "0123456789")?;
    check(0, Some(1), "0")?;
    check(9, Some(1), "9")?;
    check(3, Some(4), "3456")?;
    check(8, Some(50), "89")?;
    check(4, None, "456789")?;
    check(10, Some(5), "")?;
    check(99, None, "")?;
    check(5, Some(0), "")?;
    check(1, Some(u64::MAX), "123456789")
}

fn ranges_of_large_content_are_exact(Subject { store, .. }: Subject) -> Verdict {
    let content = pattern((2 << 20) + 12_345);
    let id = write(&*store, &content)?;
    let edges =
        [0usize, 1, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, content.len() - 1, content.len()];
    for (index, from) in edges.iter().enumerate() {
        for to in &edges[index..] {
            let got = read(&*store, &id, ByteRange::new(*from as u64, (to - from) as u64))?;
            ensure(got == content[*from..*to], || format!("bytes {from} to {to} are others"))?;
        }
    }
    Ok(())
}

fn content_that_is_not_there_is_told_so(Subject { store, .. }: Subject) -> Verdict {
    let id = id_of(b"never written");
    same("contains", contains(&*store, &id)?, false)?;
    fails("read", wait(contents(&*store)?.read(&id, ByteRange::ALL)), not_found)?;
    fails("an empty range", wait(contents(&*store)?.read(&id, ByteRange::new(0, 0))), not_found)?;
    fails("delete", wait(contents(&*store)?.delete(&id)), not_found)
}

fn writing_again_changes_nothing(Subject { store, .. }: Subject) -> Verdict {
    for _ in 0..3 {
        let id = write(&*store, b"again")?;
        same("content", read(&*store, &id, ByteRange::ALL)?, Bytes::from_static(b"again"))?;
    }
    Ok(())
}

fn deleted_content_is_gone_and_can_come_back(Subject { store, .. }: Subject) -> Verdict {
    let id = write(&*store, b"to and fro")?;
    for _ in 0..2 {
        done("delete", wait(contents(&*store)?.delete(&id)))?;
        same("contains", contains(&*store, &id)?, false)?;
        fails("read", wait(contents(&*store)?.read(&id, ByteRange::ALL)), not_found)?;
        write(&*store, b"to and fro")?;
        same("content", read(&*store, &id, ByteRange::ALL)?, Bytes::from_static(b"to and fro"))?;
    }
    Ok(())
}

fn content_has_the_length_that_was_written(Subject { store, .. }: Subject) -> Verdict {
    let length = |id: &ContentId| done("length", wait(contents(&*store)?.length(id)));
    for size in [0, 1, 70_000] {
        let id = write(&*store, &pattern(size))?;
        same("length", length(&id)?, Some(u64::from(size)))?;
        done("delete", wait(contents(&*store)?.delete(&id)))?;
        same("length of what was deleted", length(&id)?, None)?;
    }
    Ok(())
}

/// All that is listed, read in pages of `limit`.
fn listed(store: &dyn ObjectStore, limit: usize) -> Result<Vec<ContentId>, String> {
    let mut all = Vec::new();
    loop {
        let page = done("list", wait(contents(store)?.list(all.last(), limit)))?;
        ensure(page.len() <= limit, || format!("{} of at most {limit} were listed", page.len()))?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
        ensure(all.len() <= LISTED_MAX, || "the listing has no end".into())?;
    }
}

/// More than any claim here lists.
const LISTED_MAX: usize = 1_000;

fn contents_are_listed_once_and_in_order(Subject { store, reopen, .. }: Subject) -> Verdict {
    same("nothing", listed(&*store, 10)?, vec![])?;
    let ids = (0..70).map(|n| write(&*store, format!("content {n}").as_bytes()));
    let mut ids = ids.collect::<Result<Vec<_>, _>>()?;
    ids.push(write(&*store, &pattern((1 << 20) + 7))?);
    let hash = |id: &ContentId| id.blake3().copied();
    ids.sort_by_key(hash);
    for limit in [1, 7, 70, LISTED_MAX] {
        same(&format!("pages of {limit}"), listed(&*store, limit)?, ids.clone())?;
    }
    for gone in [40, 3, 0] {
        done("delete", wait(contents(&*store)?.delete(&ids.remove(gone))))?;
    }
    same("what is left", listed(&*store, 7)?, ids.clone())?;
    let Some(reopen) = reopen else { return Ok(()) };
    same("after reopening", listed(&*reopen(store), 7)?, ids)
}

/// Whatever the order was: when all have returned, what was written last is there and whole, and counts as there only if it is.
fn what_comes_and_goes_at_once_is_there_or_not(Subject { store, .. }: Subject) -> Verdict {
    let content = pattern(20_000);
    let id = id_of(&content);
    let deleted = |store: &dyn ObjectStore| match wait(contents(store)?.delete(&id)) {
        Err(error) if !not_found(&error) => Err(format!("delete: {error}")),
        _ => Ok(()),
    };
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4)
                .map(|n| {
                    let (store, content) = (&store, &content);
                    scope.spawn(move || match n % 2 {
                        0 => write(&**store, content).map(drop),
                        _ => deleted(&**store),
                    })
                })
                .collect();
            calls.into_iter().try_for_each(|call| call.join().map_err(|_| "a call panicked".to_owned())?)
        })?;
        match contains(&*store, &id)? {
            true => ensure(read(&*store, &id, ByteRange::ALL)? == content, || "it is another".into())?,
            false => fails("read", wait(contents(&*store)?.read(&id, ByteRange::ALL)), not_found)?,
        }
        // Nothing that was learned on the way may keep this one from being written.
        write(&*store, &content)?;
        ensure(read(&*store, &id, ByteRange::ALL)? == content, || "it was not written".into())?;
        deleted(&*store)?;
        same("contains", contains(&*store, &id)?, false)?;
    }
    Ok(())
}

fn space_is_reclaimed_and_nothing_with_it(Subject { store, .. }: Subject) -> Verdict {
    let ids = (0..20).map(|n| write(&*store, &pattern(5_000 + n))).collect::<Result<Vec<_>, _>>()?;
    for id in &ids[5..] {
        done("delete", wait(contents(&*store)?.delete(id)))?;
    }
    let mut rounds = 0;
    while done("reclaim", wait(contents(&*store)?.reclaim()))? > 0 {
        rounds += 1;
        ensure(rounds < LISTED_MAX, || "there is always more to be reclaimed".into())?;
    }
    for (n, id) in (0..).zip(&ids[..5]) {
        ensure(read(&*store, id, ByteRange::ALL)? == pattern(5_000 + n), || format!("content {n} is lost"))?;
    }
    ids[5..].iter().try_for_each(|id| same("what was deleted", contains(&*store, id)?, false))
}

fn contents_are_apart(Subject { store, .. }: Subject) -> Verdict {
    let texts: Vec<_> = (0..50).map(|n| format!("content {n}")).collect();
    let ids = texts.iter().map(|text| write(&*store, text.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    done("delete", wait(contents(&*store)?.delete(&ids[7])))?;
    for (index, (id, text)) in ids.iter().zip(&texts).enumerate() {
        match index {
            7 => same("the deleted one", contains(&*store, id)?, false)?,
            _ => same(text, &*read(&*store, id, ByteRange::ALL)?, text.as_bytes())?,
        }
    }
    Ok(())
}

fn identical_writes_at_once_all_succeed(Subject { store, .. }: Subject) -> Verdict {
    let content = pattern(100_000);
    let id = id_of(&content);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(|| write(&*store, &content).map(drop))).collect();
        writers.into_iter().try_for_each(|w| w.join().map_err(|_| "a writer panicked".to_owned())?)
    })?;
    ensure(read(&*store, &id, ByteRange::ALL)? == content, || "the content is another".into())
}

fn content_survives_reopening(Subject { store, reopen, .. }: Subject) -> Verdict {
    let Some(reopen) = reopen else { return Ok(()) };
    let large = pattern(300_000);
    let ids = [write(&*store, b"")?, write(&*store, b"kept")?, write(&*store, &large)?];
    let deleted = write(&*store, b"deleted")?;
    done("delete", wait(contents(&*store)?.delete(&deleted)))?;
    let store = reopen(store);
    for (id, expected) in ids.iter().zip([&b""[..], b"kept", &large]) {
        same("contains", contains(&*store, id)?, true)?;
        ensure(read(&*store, id, ByteRange::ALL)? == expected, || {
            format!("{} bytes were lost", expected.len())
        })?;
    }
    same("the deleted one", contains(&*store, &deleted)?, false)
}

fn is_corrupt(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. })
}

const DAMAGES: [Damage; 2] = [Damage::Torn, Damage::Altered];

fn damaged_content_is_told_and_never_returned(Subject { store, damage, .. }: Subject) -> Verdict {
    let Some(damage) = damage else { return Ok(()) };
    for (how, len) in DAMAGES.into_iter().zip([5_000, (1 << 20) + 5]) {
        let id = write(&*store, &pattern(len))?;
        damage(&id, how);
        for range in [ByteRange::ALL, ByteRange::new(0, 10), ByteRange::new(u64::from(len) - 1, 1)] {
            let got = wait(contents(&*store)?.read(&id, range));
            fails(&format!("{how:?}, {range:?}"), got.map(|bytes| bytes.len()), is_corrupt)?;
        }
        same("contains what was found damaged", contains(&*store, &id)?, false)?;
    }
    Ok(())
}

fn several_contents_are_read_in_their_order(Subject { store, damage, .. }: Subject) -> Verdict {
    let contents_of: Vec<_> = (0..12).map(|n| pattern(1_000 + n * 20_000)).collect();
    let written: Vec<_> =
        contents_of.iter().map(|content| write(&*store, content)).collect::<Result<_, _>>()?;
    let order = [3, 4, 5, 0, 11, 7, 6, 3];
    for _ in 0..2 {
        let ids: Vec<_> = order.iter().map(|n| written[*n].clone()).collect();
        let read = done("read_many", wait(contents(&*store)?.read_many(&ids)))?;
        same("how many were read", read.len(), order.len())?;
        for (n, content) in order.iter().zip(read) {
            ensure(content == contents_of[*n], || format!("another content than that of {n}"))?;
        }
    }
    let missing = [written[0].clone(), id_of(b"nobody wrote it"), written[1].clone()];
    fails("one is missing", wait(contents(&*store)?.read_many(&missing)).map(|read| read.len()), not_found)?;
    let Some(damage) = damage else { return Ok(()) };
    // One that nobody has read yet.
    damage(&written[8], Damage::Altered);
    let damaged = [written[7].clone(), written[8].clone(), written[9].clone()];
    fails("one is damaged", wait(contents(&*store)?.read_many(&damaged)).map(|read| read.len()), is_corrupt)
}

fn an_examination_counts_nothing_from_before(Subject { store, damage, .. }: Subject) -> Verdict {
    let Some(damage) = damage else { return Ok(()) };
    for how in DAMAGES {
        let content = pattern(70_000);
        let id = write(&*store, &content)?;
        for _ in 0..2 {
            ensure(read(&*store, &id, ByteRange::ALL)? == content, || "another content was read".into())?;
        }
        let range = ByteRange::new(1, 9);
        let examined = done("examine", wait(contents(&*store)?.examine(&id, range)))?;
        ensure(examined == content[1..10], || "another part was examined".into())?;
        damage(&id, how);
        let found = wait(contents(&*store)?.examine(&id, range));
        fails(&format!("{how:?}, after it was read"), found.map(|bytes| bytes.len()), is_corrupt)?;
        let got = wait(contents(&*store)?.read(&id, range));
        fails(&format!("{how:?}, known"), got.map(|bytes| bytes.len()), is_corrupt)?;
        write(&*store, &content)?;
        ensure(read(&*store, &id, ByteRange::ALL)? == content, || format!("{how:?} was not healed"))?;
    }
    Ok(())
}

fn an_identical_write_heals_damaged_content(Subject { store, damage, .. }: Subject) -> Verdict {
    let Some(damage) = damage else { return Ok(()) };
    for how in DAMAGES {
        let content = pattern(9_000);
        let id = write(&*store, &content)?;
        damage(&id, how);
        fails("examine", wait(contents(&*store)?.examine(&id, ByteRange::ALL)).map(|b| b.len()), is_corrupt)?;
        write(&*store, &content)?;
        same("contains", contains(&*store, &id)?, true)?;
        ensure(read(&*store, &id, ByteRange::ALL)? == content, || format!("{how:?} was not healed"))?;
    }
    Ok(())
}

fn damage_is_found_after_reopening(Subject { mut store, reopen, damage }: Subject) -> Verdict {
    let (Some(reopen), Some(damage)) = (reopen, damage) else { return Ok(()) };
    for how in DAMAGES {
        let content = pattern(4_000);
        let id = write(&*store, &content)?;
        damage(&id, how);
        store = reopen(store);
        // Nobody has read it since: the write itself must look.
        write(&*store, &content)?;
        ensure(read(&*store, &id, ByteRange::ALL)? == content, || format!("{how:?} counted as written"))?;
    }
    Ok(())
}
