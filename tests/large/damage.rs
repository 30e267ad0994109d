//! Large content that is not what was written.

use nexus::ErrorKind;

use crate::bench::{Bench, KIB, MIB, noise};

#[test]
fn a_damaged_chunk_fails_what_touches_it_and_nothing_else() {
    let Bench { nx, store } = Bench::uncached();
    let content = noise(1, 8 * MIB);
    nx.write("/f", content.clone()).unwrap();
    let blobs = store.blobs();
    let (key, start, end) = blobs
        .iter()
        .find_map(|(key, blob)| {
            let start = content.windows(blob.len()).position(|window| window == &blob[..])?;
            (start > MIB).then_some((key, start, start + blob.len()))
        })
        .expect("there is a chunk");
    store.damage(key);

    let corrupt = |offset: usize, count: usize| {
        let error = nx.read_range("/f", offset as u64, count as u64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    };
    corrupt(start, 1);
    corrupt(end - 1, 1);
    corrupt(start - 10, 20);
    assert_eq!(nx.read("/f").unwrap_err().kind(), ErrorKind::Corrupt);
    for (offset, count) in [(0, start), (start - 10, 10), (end, content.len() - end)] {
        let read = nx.read_range("/f", offset as u64, count as u64).unwrap();
        assert!(read == content[offset..offset + count], "{offset} {count}");
    }

    // The same content, written again, heals it.
    nx.write("/other", content.clone()).unwrap();
    assert!(nx.read("/f").unwrap() == content);
}

#[test]
fn a_damaged_list_is_told() {
    let Bench { nx, store } = Bench::uncached();
    let content = noise(2, 8 * MIB);
    nx.write("/f", content.clone()).unwrap();
    let lists = store.blobs().into_iter().filter(|(_, blob)| blob.starts_with(b"nxcl"));
    lists.for_each(|(key, blob)| {
        assert!(blob.len() < 256 * KIB);
        store.damage(&key);
    });
    assert_eq!(nx.read_range("/f", 0, 1).unwrap_err().kind(), ErrorKind::Corrupt);
    nx.write("/f", content.clone()).unwrap();
    assert!(nx.read("/f").unwrap() == content);
}
