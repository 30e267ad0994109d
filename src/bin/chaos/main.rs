//! `chaos`: kills the actors of a kernel, its process, and swaps its services and drivers, under clients of every kind; an oracle in another process checks
//! that nothing of it can be seen.
//!
//!     cargo run --release --bin chaos -- --seed 1 --seconds 60
//!
//! This process is the oracle. It starts another one, which runs the kernel with its clients and tells it what each was told; kills that one, more than
//! once; and holds what is on disk against what it heard: files, the stream and the locks that outlive the process, and what watchers were told with
//! cursors that go on from one process to the next. What ends with a kernel's process, such as messages in pipes, is held against what callers saw at
//! each pause, in that process. The same seed gives the same plan of faults; what they meet is up to the threads.

mod auditing;
mod cleaning;
mod clients;
mod hurting;
mod kernel;
mod life;
mod limits;
mod locks;
mod model;
mod oracle;
mod order;
mod pipes;
mod plan;
mod record;
mod report;
mod run;
mod scene;
mod services;
mod streams;
mod swaps;
mod watches;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Kills everything in a kernel, all the time, and checks that nobody notices.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "chaos",
    version,
    after_help = "Exit status: 0 every claim held; 1 one did not; 2 wrong usage."
)]
pub(crate) struct Args {
    /// What the plan of faults is drawn from [default: the time]
    #[arg(long)]
    seed: Option<u64>,

    /// How long the kernels work, all together
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,

    /// The number of the life to live: of the kernel's process, which this one starts
    #[arg(long, hide = true, requires = "folder")]
    life: Option<usize>,

    /// The folder of the run
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match (args.life, &args.folder) {
        (Some(life), Some(folder)) => kernel::live(&args, life, folder).map(|()| true),
        _ => run::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "chaos: {why}");
            ExitCode::FAILURE
        }
    }
}
