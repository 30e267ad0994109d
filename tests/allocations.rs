//! A warm stat and a warm read allocate nothing: their replies share what the caches hold. What the cache of metadata holds is weighed as it was allocated.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{boot, path};
use nexus_actors::block_on;
use nexus_messages::syscall::{SysRead, SysRename, SysSetattr, SysStat, SysTx, SysWrite};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

/// Counts the allocations of each thread, and the bytes that it allocated and did not free.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn allocated(bytes: i64) {
    // A thread that is ending has no counter any more, and is not measured.
    let _ = BYTES.try_with(|sum| sum.set(sum.get() + bytes));
}

#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
// SAFETY: every call is handed to the system's allocator as it is; counting touches a thread-local number only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more, and is not measured.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        allocated(layout.size() as i64);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        allocated(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    COUNT.with(Cell::get)
}

#[test]
fn warm_calls_allocate_nothing_also_where_somebody_listens_for_other_things() {
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO);
    tracing::subscriber::with_default(subscriber, warm_calls_allocate_nothing);
}

#[test]
fn warm_calls_allocate_nothing() {
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let running = boot(folder.path()).await;
        let (kernel, admin) = (&running.kernel, &running.admin);
        let file = path("/project/file");
        kernel.send(admin, SysWrite::at(&file, vec![7u8; 4_096]).create()).await.expect("it writes");
        // What is made on a thread's first call only (its place among the epochs) is not the call's.
        kernel.send(admin, SysStat::at(&file)).await.expect("it is there");
        kernel.send(admin, SysRead::at(&file)).await.expect("it is there");

        let before = allocations();
        for _ in 0..1_000 {
            assert_eq!(kernel.send(admin, SysStat::at(&file)).await.expect("it is there").size, 4_096);
        }
        assert_eq!(allocations() - before, 0, "a warm stat");

        let before = allocations();
        for _ in 0..1_000 {
            let read = kernel.send(admin, SysRead::at(&file)).await.expect("it is there");
            assert_eq!((read.data.len(), read.data[4_095]), (4_096, 7));
            let part = kernel.send(admin, SysRead::at(&file).range(4_000, 50)).await.expect("it is there");
            assert_eq!(part.data.len(), 50);
        }
        assert_eq!(allocations() - before, 0, "a warm read");
        running.stop().await;
    });
}

#[test]
fn metadata_weighs_what_was_allocated_for_it() {
    const PATHS: usize = 3_000;
    let folder = tempfile::tempdir().expect("there is room");
    block_on(async {
        let running = boot(folder.path()).await;
        let (kernel, admin) = (&running.kernel, &running.admin);
        let files = |directory: &str, kind: &str| -> Vec<_> {
            (0..PATHS).map(|number| path(&format!("/{directory}/{kind}/{number:060}"))).collect()
        };
        for batch in files("before", "file").chunks(1_000) {
            let tx = batch.iter().fold(SysTx::new(), |tx, file| tx.with(SysWrite::at(file, "x").create()));
            kernel.send(admin, tx).await.expect("it commits");
        }
        kernel.send(admin, SysSetattr::directory(path("/before/none"))).await.expect("it is made");
        // Once, so that the store has at hand what it keeps; then below another name, which the cache knows nothing of.
        for file in files("before", "file") {
            kernel.send(admin, SysStat::at(&file)).await.expect("it is there");
        }
        kernel.send(admin, SysRename::new(path("/before"), path("/now"))).await.expect("it is renamed");
        let weighed = kernel.cache_stats().metadata_bytes;
        let allocated = BYTES.get();
        for kind in ["file", "none"] {
            for number in 0..PATHS {
                // Made one by one: what the call drops is not what the cache keeps.
                let file = path(&format!("/now/{kind}/{number:060}"));
                assert_eq!(kernel.send(admin, SysStat::at(&file)).await.is_ok(), kind == "file");
            }
        }
        let allocated = (BYTES.get() - allocated) as f64;
        let weighed = (kernel.cache_stats().metadata_bytes - weighed) as f64;
        let part = allocated / weighed;
        // Less, as the allocator takes its part, too; or more, as tables have room to grow.
        assert!((0.75..1.5).contains(&part), "{allocated} bytes were allocated for {weighed}");
        running.stop().await;
    });
}
