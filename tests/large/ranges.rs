//! Reading a part of large content.

use nexus::{ByteRange, SysRead, VPath};

use crate::bench::{Bench, KIB, MIB, noise};

#[test]
fn a_range_reads_only_the_chunks_it_lies_in() {
    let Bench { nx, store } = Bench::uncached();
    let content = noise(1, 64 * MIB);
    nx.write("/f", content.clone()).unwrap();
    store.moved();
    for offset in [0, 1, 10 * MIB + 77, 33 * MIB, 64 * MIB - 4 * KIB] {
        assert_eq!(
            nx.read_range("/f", offset as u64, 4 * KIB as u64).unwrap(),
            content[offset..offset + 4 * KIB]
        );
        let read = store.moved().read;
        // Two chunks at most, and the lists that lead to them.
        assert!(read <= (2 * 256 + 100) * KIB, "{read} bytes read at {offset}");
    }
    assert!(nx.read_range("/f", 64 * MIB as u64, 5).unwrap().is_empty());
    assert_eq!(nx.read_range("/f", 64 * MIB as u64 - 2, 5).unwrap(), content[64 * MIB - 2..]);
}

#[test]
fn all_of_it_and_several_ranges_are_read_at_once() {
    let Bench { nx, .. } = Bench::with(|config| config);
    let content = noise(2, 5 * MIB + 3);
    nx.write("/f", content.clone()).unwrap();
    assert_eq!(nx.read("/f").unwrap(), content);
    let ranges =
        vec![ByteRange::new(7, 9), ByteRange { offset: 4 * MIB as u64, count: None }, ByteRange::new(0, 0)];
    let read = nx.send(SysRead::at(VPath::parse("/f").unwrap()).vectored(ranges)).unwrap();
    let runs: Vec<_> = read.runs().collect();
    assert_eq!(runs, [&content[7..16], &content[4 * MIB..], &[][..]]);
}

#[test]
fn what_is_in_the_cache_is_not_read_again_and_is_shared_by_files() {
    let Bench { nx, store } = Bench::with(|config| config.content_cache_bytes(32 << 20));
    let content = noise(3, 12 * MIB);
    nx.write("/f", content.clone()).unwrap();
    let changed = [&content[..], b"more"].concat();
    nx.write("/g", changed.clone()).unwrap();
    assert_eq!(nx.read("/f").unwrap(), content);
    store.moved();
    assert_eq!(nx.read("/f").unwrap(), content);
    assert_eq!(store.moved().read, 0);
    assert_eq!(nx.read("/g").unwrap(), changed);
    let read = store.moved().read;
    assert!(read <= 256 * KIB, "{read} bytes read for a file whose chunks are those of another");
}
