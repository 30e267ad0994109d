//! `nexus`, the command.

mod args;
mod logs;
mod run;

mod change;
mod children;
mod content;
mod drivers;
mod fsck;
mod gc;
mod group;
mod kill;
mod list;
mod locks;
mod migrate;
mod mounts;
mod outcome;
mod pass;
mod past;
mod pipe;
mod ps;
mod search;
mod serve;
mod services;
mod shell;
mod stream;
mod top;
mod tour;
mod transfer;
mod tx;
mod watch;

mod entry;
mod failure;
mod feed;
mod line;
mod listing;
mod output;
mod owner;
mod session;
mod signals;
mod sys;
mod when;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Wrong usage ends here, with status 2.
    let cli = args::Cli::parse();
    if let Some(fault) = cli.command.fault(&std::env::args_os().next_back().unwrap_or_default()) {
        output::tell(fault);
        return ExitCode::from(failure::Status::Usage.code());
    }
    ExitCode::from(run::main(cli).code())
}
