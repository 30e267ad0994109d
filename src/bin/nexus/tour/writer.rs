//! The process that the tour kills: it writes files, and says of each once it was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::try_join_all;
use nexus::syscall::SysWrite;
use nexus::{Op, VPath};

use crate::args::TourWriterArgs;
use crate::failure::Outcome;
use crate::session::{Session, path};

/// Should nobody kill it, it ends by itself after this many files.
const FILES_MAX: u64 = 100_000;

/// Writes with many writers at once until it is killed, or nobody listens any more.
pub(crate) async fn write(session: &Arc<Session>, args: TourWriterArgs) -> Outcome {
    let below = path(Op::Write, &args.path)?;
    let next = AtomicU64::new(0);
    let writers = (0..args.writers).map(|_| async {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= FILES_MAX {
                return Ok(());
            }
            let name = format!("{}-{number}", args.round);
            session.nx.send(SysWrite::at(place(&below, &name)?, content(&name)).create_exclusive()).await?;
            session.out.line(&name)?;
            session.out.flush()?;
        }
    });
    try_join_all(writers).await.map(drop)
}

fn place(below: &VPath, name: &str) -> nexus::Result<VPath> {
    path(Op::Write, &format!("{below}/{name}"))
}

/// What the file called `name` holds: of many lengths, and different from every other one at every place.
pub(super) fn content(name: &str) -> Vec<u8> {
    // FNV-1a, then xorshift64*.
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    // Most are small enough to be kept with their row, some are not.
    let length = match next() % 16 {
        0 => 0,
        1 => 100_000,
        2 => 17_000,
        _ => 1_024,
    };
    let mut data = format!("{name}\n").into_bytes();
    while data.len() < length {
        data.extend(next().to_le_bytes());
    }
    data
}
