//! The calls that are tried, and where they come from.

use nexus::{Create, EntryType, Expect, Parents};
use proptest::prelude::*;
use proptest::sample::select;

/// One call, as data.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Write {
        path: String,
        data: Vec<u8>,
        place: Place,
        truncate: bool,
        create: Create,
        expected: Expected,
    },
    Set {
        path: String,
        entry_type: Option<EntryType>,
        target: Option<String>,
        create: Create,
        parents: Parents,
        given: Given,
    },
    Rename {
        from: String,
        to: String,
        replace: bool,
        expected: Expected,
    },
    Unlink {
        path: String,
        recursive: bool,
        expect: Expect,
        expected: Expected,
    },
    Copy {
        from: String,
        to: String,
        replace: bool,
    },
    Stat {
        path: String,
        follow: bool,
    },
    /// The runs, as offset and count.
    Read {
        path: String,
        ranges: Vec<(usize, Option<usize>)>,
    },
    /// In pages of `limit`.
    List {
        path: String,
        recursive: bool,
        limit: u32,
    },
    /// Writes, sets, renames and unlinks as one.
    Tx(Vec<Call>),
    /// Writes, unlinks and stats at once, of paths of which none is the other or leads to it.
    Batch(Vec<Call>),
    /// A write whose bytes come as a stream: a head, and a byte so often.
    WriteStream {
        path: String,
        head: Vec<u8>,
        byte: u8,
        count: usize,
        create: Create,
        expected: Expected,
    },
    /// A run of bytes, as offset and count, as a stream.
    ReadStream {
        path: String,
        offset: usize,
        count: usize,
    },
    /// The kernel is stopped, and another one started on what it left.
    Reopen,
    /// The power goes off while the call is made, at so many changes of the disk after it was begun, or when it is done; the seed chooses what
    /// becomes of what was not flushed. Then another kernel is started.
    Crash {
        during: Box<Call>,
        change: u64,
        seed: u64,
    },
}

/// Attributes that are set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<&'static str>,
    pub(crate) mime: Option<&'static str>,
    pub(crate) modified: Option<u64>,
    pub(crate) created: Option<u64>,
}

/// Where written bytes go.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Whole,
    At(usize),
    End,
    Instead { of: &'static str, all: bool },
}

/// A precondition.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    Nothing,
    Absent,
    Version(u64),
    Generation(u64),
    /// These bytes.
    Content(&'static str),
}

impl Place {
    /// What a write makes of `old`, and how many places it changed; none when that makes no sense.
    pub(crate) fn apply(&self, old: Vec<u8>, data: &[u8], truncate: bool) -> Option<(Vec<u8>, usize)> {
        match self {
            Self::Whole => Some((data.to_vec(), 1)),
            Self::End => Some(([&old, data].concat(), 1)),
            Self::At(offset) => {
                let mut new = old;
                let end = offset + data.len();
                if !data.is_empty() || truncate {
                    new.resize(new.len().max(end), 0);
                }
                for (n, byte) in data.iter().enumerate() {
                    new[offset + n] = *byte;
                }
                if truncate {
                    new.truncate(end);
                }
                Some((new, 1))
            }
            Self::Instead { of, all } => {
                // Content is ASCII here.
                let (old, new) = (String::from_utf8(old).ok()?, std::str::from_utf8(data).ok()?);
                match old.matches(of).count() {
                    0 => None,
                    1 => Some((old.replace(of, new).into_bytes(), 1)),
                    many if *all => Some((old.replace(of, new).into_bytes(), many)),
                    _ => None,
                }
            }
        }
    }
}

/// The names are few, so that calls meet.
fn path() -> impl Strategy<Value = String> {
    let name = || select(vec!["a", "a", "b", "b", "c"]);
    let deep = prop::collection::vec(name(), 1..=3).prop_map(|names| format!("/{}", names.join("/")));
    prop_oneof![20 => deep, 1 => Just("/".to_owned())]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    // The long ones are kept elsewhere than the short ones.
    let long = select(vec![16_384, 16_385, 20_000]).prop_map(|size| vec![b'x'; size]);
    prop_oneof![60 => "[xyz]{0,6}".prop_map(String::into_bytes), 1 => long]
}

fn place() -> impl Strategy<Value = (Place, bool)> {
    let instead = (select(vec!["x", "yz", "zz"]), any::<bool>());
    prop_oneof![
        4 => any::<bool>().prop_map(|truncate| (Place::Whole, truncate)),
        3 => (0usize..10, any::<bool>()).prop_map(|(offset, truncate)| (Place::At(offset), truncate)),
        2 => prop::bool::weighted(0.1).prop_map(|truncate| (Place::End, truncate)),
        2 => instead.prop_map(|(of, all)| (Place::Instead { of, all }, false)),
    ]
}

fn create() -> impl Strategy<Value = Create> {
    select(vec![Create::IfMissing, Create::IfMissing, Create::IfMissing, Create::Never, Create::Exclusive])
}

fn expected(versions: bool) -> impl Strategy<Value = Expected> {
    let version = (0u64..4).prop_map(Expected::Version);
    let generation = (0u64..4).prop_map(Expected::Generation);
    let content = select(vec!["", "x", "y", "z"]).prop_map(Expected::Content);
    // Where there are no versions, none is asked for.
    let asked = u32::from(versions);
    prop_oneof![
        24 => Just(Expected::Nothing),
        2 => Just(Expected::Absent),
        2 * asked => version,
        asked => generation,
        asked => content,
    ]
}

/// Attributes; all kinds of them where they are rows.
fn given(rows: bool) -> impl Strategy<Value = Given> {
    let mode = prop::option::of(select(vec![0o644u32, 0o755, 0o600, 0o700]));
    let owner = prop::option::weighted(0.3, select(vec!["ann", "bob"]));
    let mime = prop::option::weighted(0.3, select(vec!["text/plain", "image/png"]));
    let at = || prop::option::weighted(0.3, 1u64..4);
    (mode, owner, mime, at(), at()).prop_map(move |(mode, owner, mime, modified, created)| match rows {
        true => Given { mode, owner, mime, modified, created },
        false => Given { mode, ..Given::default() },
    })
}

fn set(Calls { rows, links, .. }: Calls) -> impl Strategy<Value = Call> {
    let parents = || select(vec![Parents::Implied, Parents::Made, Parents::Required]);
    let types = select(vec![EntryType::Reg, EntryType::Dir, EntryType::Dir]);
    let entry = (path(), types, create(), parents(), given(rows));
    let entry = entry.prop_map(|(path, entry_type, create, parents, given)| Call::Set {
        path,
        entry_type: Some(entry_type),
        target: None,
        create,
        parents,
        given,
    });
    let attributes = (path(), given(rows)).prop_map(|(path, given)| Call::Set {
        path,
        entry_type: None,
        target: None,
        create: Create::Never,
        parents: Parents::Implied,
        given,
    });
    let targets = vec![
        "",
        ".",
        "..",
        "/",
        "a",
        "b",
        "./c",
        "../a",
        "../b/c",
        "a/b",
        "c/",
        "a/../b",
        "c/../../a",
        "a/.",
        "/a",
        "/b",
        "/c",
        "/a/b",
        "/b/a",
        "/a/b/c",
        "/b/..",
    ];
    let link = (path(), select(targets), create(), parents()).prop_map(|(path, target, create, parents)| {
        Call::Set {
            path,
            entry_type: Some(EntryType::Link),
            target: Some(target.to_owned()),
            create,
            parents,
            given: Given::default(),
        }
    });
    prop_oneof![4 => entry, 2 => attributes, if links { 3 } else { 0 } => link]
}

/// What calls there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    /// Whether names are rows: there are versions, and all attributes.
    pub(crate) rows: bool,
    /// Whether links are made. Then calls are not made at once: links may lead them to the same path.
    pub(crate) links: bool,
    /// Whether the power may go off.
    pub(crate) crashes: bool,
    /// How often there is a transaction, among about fifty other calls.
    pub(crate) transactions: u32,
}

/// A call that can be an operation of a transaction.
fn change(calls: Calls) -> impl Strategy<Value = Call> {
    let versions = calls.rows;
    let write = (path(), data(), place(), create(), expected(versions)).prop_map(
        |(path, data, (place, truncate), create, expected)| Call::Write {
            path,
            data,
            place,
            truncate,
            create,
            expected,
        },
    );
    let rename = (path(), path(), prop::bool::weighted(0.8), expected(versions))
        .prop_map(|(from, to, replace, expected)| Call::Rename { from, to, replace, expected });
    let expect = vec![Expect::Any, Expect::Any, Expect::File, Expect::Directory, Expect::Mount];
    let unlink = (path(), any::<bool>(), select(expect), expected(versions)).prop_map(
        |(path, recursive, expect, expected)| {
            // The root itself is not to be unmounted.
            let recursive = recursive || path == "/";
            Call::Unlink { path, recursive, expect, expected }
        },
    );
    prop_oneof![10 => write, 12 => set(calls), 10 => rename, 6 => unlink].boxed()
}

/// Any call.
pub(crate) fn call(calls: Calls) -> impl Strategy<Value = Call> {
    let transaction = prop::collection::vec(change(calls), 1..5).prop_map(Call::Tx);
    let copy = (path(), path(), prop::bool::weighted(0.8)).prop_map(|(from, to, replace)| Call::Copy {
        from,
        to,
        replace,
    });
    let stat = (path(), any::<bool>()).prop_map(|(path, follow)| Call::Stat { path, follow });
    let range = (0usize..8, prop::option::of(0usize..8));
    let read =
        (path(), prop::collection::vec(range, 0..4)).prop_map(|(path, ranges)| Call::Read { path, ranges });
    let list = (path(), any::<bool>(), 1u32..4).prop_map(|(path, recursive, limit)| Call::List {
        path,
        recursive,
        limit,
    });
    let stream = (path(), data(), select(vec![0, 10, 20_000, LARGE]), create(), expected(calls.rows))
        .prop_map(|(path, head, count, create, expected)| Call::WriteStream {
            path,
            head,
            byte: b'y',
            count,
            create,
            expected,
        });
    let part = select(vec![0usize, 3, 16_000, LARGE]);
    let read_stream = (path(), part.clone(), part).prop_map(|(path, offset, count)| Call::ReadStream {
        path,
        offset,
        count,
    });
    let at_once = prop::collection::vec(change(calls), 2..6).prop_map(|calls| Call::Batch(unrelated(calls)));
    let crash = (change(calls), 1u64..8, 0u64..6).prop_map(|(during, change, seed)| Call::Crash {
        during: Box::new(during),
        change,
        seed,
    });
    let look = prop_oneof![2 => stat, 2 => read, 1 => read_stream, 4 => list];
    prop_oneof![
        38 => change(calls),
        calls.transactions => transaction,
        4 => copy,
        9 => look,
        2 => stream,
        if calls.links { 0 } else { 3 } => at_once,
        1 => Just(Call::Reopen),
        if calls.crashes { 25 } else { 0 } => crash,
    ]
}

/// More than is kept as one blob.
const LARGE: usize = (1 << 20) + 1_000;

/// Those writes and unlinks among the calls whose paths have nothing to do with each other.
fn unrelated(calls: Vec<Call>) -> Vec<Call> {
    let mut kept: Vec<Call> = Vec::new();
    let top = |call: &Call| match call {
        Call::Write { path, .. } | Call::Unlink { path, .. } => {
            path.split('/').nth(1).filter(|name| !name.is_empty()).map(str::to_owned)
        }
        _ => None,
    };
    for call in calls {
        if top(&call).is_some() && kept.iter().all(|other| top(other) != top(&call)) {
            kept.push(call);
        }
    }
    kept
}
