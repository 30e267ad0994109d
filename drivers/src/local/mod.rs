//! The local disk: blobs under keys ([`LocalTransport`]), and an existing folder by its paths ([`PathLocal`]).
//!
//! Both have a blocking core that knows nothing of tasks (`blobs`, `folder`) and an asynchronous face that runs it on the mount's pool; but for reads of what is in memory (`at_hand`).

#[cfg(target_os = "linux")]
mod at_hand;
mod blobs;
mod copying;
mod descend;
mod folder;
mod in_place;
mod info;
mod outside;
mod part;
mod paths;
mod staging;
mod transport;
mod upload;

/// Runs `job` as somebody who may not do everything, on a thread of its own.
#[cfg(all(test, target_os = "linux"))]
fn as_nobody(job: impl FnOnce() + Send) {
    const NOBODY: u32 = 65_534;
    let nobody = rustix::process::Uid::from_raw(NOBODY);
    let run = || {
        if rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("who may all may this");
        }
        job();
    };
    std::thread::scope(|scope| scope.spawn(run).join()).expect("the claims hold");
}

pub(crate) use blobs::{Blobs, PACKS_FOLDER, check_key};
pub use paths::PathLocal;
pub use transport::LocalTransport;
