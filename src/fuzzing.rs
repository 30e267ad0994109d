//! What decoders are fuzzed with: those of messages and texts here, and with the feature `fuzzing` all others. See `nexus_kernel::fuzzing`.

use std::fmt::Debug;

use arbitrary::Unstructured;
use nexus_messages::syscall::{Answer, Syscall};
use nexus_messages::{
    ContentId, Error, FileMetadata, HookContext, NAME_MAX, PATH_MAX, Receipt, VPath, ZoneId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::attach::fuzzing::{call, frames, greeting, reply};

pub use nexus_kernel::fuzzing::Target;

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    ("frames", frames),
    ("call", call),
    ("reply", reply),
    ("greeting", greeting),
    ("message", message),
    ("text", text),
];

/// The targets of all crates.
#[cfg(feature = "fuzzing")]
pub fn all() -> impl Iterator<Item = Target> {
    let below = nexus_kernel::fuzzing::TARGETS.iter().chain(nexus_drivers::fuzzing::TARGETS);
    TARGETS.iter().chain(below).copied()
}

/// Texts that become paths and names.
fn text(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let cut = u.int_in_range(0..=9)?;
    let text = String::from_utf8_lossy(u.bytes(u.len())?).into_owned();
    let (name, rest) = text.split_at(text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(0));
    let base = VPath::parse("/base/of").expect("it is a path");
    let made =
        [VPath::parse(&text), VPath::parse(&format!("/{text}")), base.join(name), base.join_relative(rest)];
    for path in made.iter().flatten() {
        check_path(path);
    }
    if let Ok(joined) = &made[2] {
        assert_eq!((joined.name(), joined.parent()), (Some(name), Some(base.clone())));
    }
    if let Ok(zone) = ZoneId::parse(&text) {
        assert_eq!((zone.as_str(), VPath::root().join(&text).is_ok()), (&*text, true));
    }
    if let Some(id) = ContentId::parse(&text) {
        assert_eq!(id.to_string(), text);
    }
    Ok(())
}

fn check_path(path: &VPath) {
    let text = path.as_str();
    assert!(text.starts_with('/') && text.len() <= PATH_MAX && !text.contains('\0'), "{text:?}");
    assert!(path.is_root() || !text.ends_with('/'), "{text:?}");
    for name in path.components() {
        assert!(!name.is_empty() && name != "." && name != ".." && name.len() <= NAME_MAX, "{text:?}");
    }
    assert_eq!(path.components().count(), path.depth());
    assert_eq!(VPath::parse(text).as_ref(), Ok(path), "a path is another one when it is parsed again");
    assert_eq!(path.ancestors().count(), path.depth());
    assert!(path.ancestors().all(|above| VPath::parse(above).is_ok_and(|above| path.is_within(&above))));
}

/// What crosses a boundary, in both of its forms.
fn message(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let kind = u.int_in_range(0..=5)?;
    let bytes = u.bytes(u.len())?;
    match kind {
        0 => check::<Syscall>(bytes),
        1 => check::<Answer>(bytes),
        2 => check::<Error>(bytes),
        3 => check::<FileMetadata>(bytes),
        4 => check::<HookContext>(bytes),
        _ => check::<Receipt>(bytes),
    }
    Ok(())
}

/// What is taken is written again as the same.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(taken) = postcard::from_bytes::<T>(bytes) {
        let written = postcard::to_allocvec(&taken).expect("it is plain data");
        assert_eq!(postcard::from_bytes::<T>(&written).as_ref(), Ok(&taken));
        let _ = format!("{taken:?}");
    }
    if let Ok(taken) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&taken).expect("it is plain data");
        assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&taken));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nexus_kernel::fuzzing::{run, run_found};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_broke_a_decoder_once_breaks_it_no_more() {
        run_found(TARGETS, &Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_decoder(input in vec(any::<u8>(), 0..2_000)) {
            TARGETS.iter().for_each(|target| run(target, &input));
        }
    }
}
