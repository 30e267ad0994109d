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
        mode: Option<u32>,
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
    /// The kernel is stopped, and another one started on what it left.
    Reopen,
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
    prop_oneof![
        12 => Just(Expected::Nothing),
        1 => Just(Expected::Absent),
        // Where there are no versions, none is asked for.
        if versions { 1 } else { 0 } => version,
    ]
}

/// Links are made when `links`.
fn set(links: bool) -> impl Strategy<Value = Call> {
    let parents = || select(vec![Parents::Implied, Parents::Made, Parents::Required]);
    let mode = || prop::option::of(select(vec![0o644u32, 0o755, 0o600, 0o700]));
    let entry =
        (path(), select(vec![EntryType::Reg, EntryType::Dir, EntryType::Dir]), create(), parents(), mode());
    let entry = entry.prop_map(|(path, entry_type, create, parents, mode)| Call::Set {
        path,
        entry_type: Some(entry_type),
        target: None,
        create,
        parents,
        mode,
    });
    let attributes = (path(), mode()).prop_map(|(path, mode)| Call::Set {
        path,
        entry_type: None,
        target: None,
        create: Create::Never,
        parents: Parents::Implied,
        mode,
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
            mode: None,
        }
    });
    prop_oneof![4 => entry, 2 => attributes, if links { 3 } else { 0 } => link]
}

/// What calls there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    /// Whether preconditions may ask for a version.
    pub(crate) versions: bool,
    /// Whether links are made.
    pub(crate) links: bool,
    /// How often there is a transaction, among about fifty other calls.
    pub(crate) transactions: u32,
}

/// A call that can be an operation of a transaction.
fn change(Calls { versions, links, .. }: Calls) -> impl Strategy<Value = Call> {
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
    prop_oneof![10 => write, 12 => set(links), 10 => rename, 6 => unlink].boxed()
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
    prop_oneof![
        38 => change(calls),
        calls.transactions => transaction,
        4 => copy,
        2 => stat,
        2 => read,
        4 => list,
        1 => Just(Call::Reopen),
    ]
}
