//! A warm stat and a warm read allocate nothing: their replies share what the caches hold.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{boot, path};
use nexus_actors::block_on;
use nexus_messages::syscall::{SysRead, SysStat, SysWrite};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
// SAFETY: every call is handed to the system's allocator as it is; counting touches a thread-local number only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more, and is not measured.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
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
