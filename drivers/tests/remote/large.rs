//! Content in parts, folders in pages.

use bytes::Bytes;
use nexus_actors::block_on;
use nexus_kernel::hal::PathWrite;
use nexus_messages::syscall::ByteRange;
use nexus_messages::{Attributes, EntryType};

use crate::servers::s3::{moto, request};
use crate::subjects::{PART, open, paths, s3, write};

#[test]
fn large_content_goes_in_parts_and_comes_back_whole() {
    let server = moto();
    let store = open(&s3(server.port()).option("multipart_bytes", PART.to_string()));
    let buffers: Vec<Bytes> = (0..13_u8).map(|byte| Bytes::from(vec![byte; 1_000_003])).collect();
    let size = buffers.iter().map(Bytes::len).sum::<usize>();
    let written = block_on(paths(&*store).write("large", &buffers, PathWrite::Whole, &Attributes::none()));
    let written = written.expect("it is written");
    assert_eq!(written.size, size as u64);
    // The tag of what was written in parts says of how many.
    assert!(written.tag.to_string().contains("-3"), "{}", written.tag);
    let (read, info) = block_on(paths(&*store).read("large", ByteRange::ALL)).expect("it is read");
    assert_eq!(info, written);
    assert!(read == buffers.concat(), "another content");
    let range = ByteRange::new(999_990, 20);
    let (part, _) = block_on(paths(&*store).read("large", range)).expect("it is read");
    assert_eq!(part, buffers.concat()[999_990..1_000_010]);
}

#[test]
fn folders_come_in_pages_in_the_order_of_names() {
    const FILES: usize = 1_100;
    let server = moto();
    let store = open(&s3(server.port()));
    for file in 0..FILES {
        let made = request(server.port(), &format!("PUT /bkt/d/f-{file:05}.txt HTTP/1.1"));
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    }
    // Folders whose keys come behind those of all these files, or of some of them, and whose names come before.
    for path in ["d/f/x", "d/f-00999/x", "d/f-01099/x", "d/g", "d/f-/x"] {
        write(&*store, path, "1", PathWrite::Whole).expect("it is written");
    }
    let mut expected: Vec<String> = (0..FILES).map(|file| format!("f-{file:05}.txt")).collect();
    expected.extend(["f", "f-00999", "f-01099", "g", "f-"].map(String::from));
    expected.sort_unstable();
    for limit in [usize::MAX, 1_000, 999, 700] {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = block_on(paths(&*store).list("d", after.as_deref(), limit)).expect("it is listed");
            assert!(page.entries.len() <= limit);
            seen.extend(page.entries);
            after = seen.last().map(|(name, _)| name.clone());
            if !page.more {
                break;
            }
        }
        let names: Vec<_> = seen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), expected.len(), "pages of {limit}");
        assert!(names == expected, "pages of {limit}");
        let folders = seen.iter().filter(|(_, info)| info.entry_type == EntryType::Dir).count();
        assert_eq!(folders, 4, "pages of {limit}");
    }
}
