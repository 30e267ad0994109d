//! The grammar of the command line, in clap's terms. Reading this folder is reading `nexus --help`.

mod agents;
mod children;
mod files;
mod kernel;

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use agents::*;
pub(crate) use children::*;
pub(crate) use files::*;
pub(crate) use kernel::*;

/// One namespace of paths over any storage, served by a supervised kernel.
#[derive(Debug, Parser)]
#[command(
    name = "nexus",
    version,
    after_help = "\
Exit status: 0 done; 1 failed, or grep found nothing; 2 wrong usage; 3 the outcome is unknown.
Errors are told on stderr as `nexus: OPERATION PATH: what happened (ENOENT)`.
Logs go to stderr when $NEXUS_LOG or $RUST_LOG asks for them, such as NEXUS_LOG=debug;
NEXUS_LOG=nexus_kernel::syscall=debug tells each syscall, NEXUS_LOG=nexus_actors=trace each message of an actor."
)]
pub(crate) struct Cli {
    /// The data folder, made when missing [default: $NEXUS_DATA_DIR, else what the settings say, else ./nexus-data; of `tour` a temporary one]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// The stack to run: slim, embedded, lite or full
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// For whom: told with what the command does, and to hooks [default: $NEXUS_USER, else nobody]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Print JSON: one object, or one a line. Each command's help says which fields
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A line typed into the shell: a command without the options that choose the kernel.
#[derive(Debug, Parser)]
#[command(name = "nexus", no_binary_name = true, override_usage = "COMMAND [ARGUMENT]..")]
pub(crate) struct ShellLine {
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Import(ImportArgs),
    Export(ExportArgs),
    Ls(LsArgs),
    Tree(TreeArgs),
    Stat(StatArgs),
    Cat(CatArgs),
    #[command(about = "Make a host file or standard input the whole content of a file")]
    Write(WriteArgs),
    #[command(about = "Add a host file or standard input to the end of a file")]
    Append(WriteArgs),
    Edit(EditArgs),
    Mkdir(MkdirArgs),
    Rm(RmArgs),
    Mv(MvArgs),
    Cp(CpArgs),
    Versions(VersionsArgs),
    Restore(RestoreArgs),
    Ln(LnArgs),
    Tx(TxArgs),
    Glob(GlobArgs),
    Grep(GrepArgs),
    Pipe(PipeArgs),
    Stream(StreamArgs),
    Run(RunArgs),
    Children(ChildrenArgs),
    Mount(MountArgs),
    Umount(UmountArgs),
    Migrate(MigrateArgs),
    Mounts(MountsArgs),
    Drivers(DriversArgs),
    Services(ServicesArgs),
    Register(RegisterArgs),
    Unregister(UnregisterArgs),
    Swap(SwapArgs),
    Lock(LockArgs),
    Unlock(UnlockArgs),
    Locks(LocksArgs),
    Ps(PsArgs),
    Top(TopArgs),
    Kill(KillArgs),
    Watch(WatchArgs),
    Gc(GcArgs),
    Sync(SyncArgs),
    Outcome(OutcomeArgs),
    Fsck(FsckArgs),
    Serve(ServeArgs),
    Shell(ShellArgs),
    Tour(TourArgs),
    #[command(hide = true)]
    TourWriter(TourWriterArgs),
}

impl Command {
    /// What is wrong with a command line that ends in `last`, although the grammar takes it: `--` announces a command, and none follows. A variable is empty, most likely.
    pub(crate) fn fault(&self, last: &OsStr) -> Option<&'static str> {
        let (command, fault) = match self {
            Self::Lock(args) => (&args.command, "lock: no command follows --"),
            Self::Stream(StreamArgs { command: StreamCommand::Take(args) }) => {
                (&args.command, "stream take: no command follows --")
            }
            _ => return None,
        };
        (last == "--" && command.is_empty()).then_some(fault)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use nexus::hal::MOUNT_OPTIONS;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
        ShellLine::command().debug_assert();
    }

    /// `nexus COMMAND --help`, on one line.
    fn help(command: &str) -> String {
        let told = Cli::try_parse_from(["nexus", command, "--help"]).unwrap_err().to_string();
        told.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_option_of_every_mount_is_in_the_help() {
        let help = help("mount");
        for option in MOUNT_OPTIONS {
            let words: Vec<_> = option.help.split_whitespace().collect();
            assert!(help.contains(&format!("{} {}", option.key, words.join(" "))), "{}: {help}", option.key);
        }
    }

    #[test]
    fn the_help_of_the_tour_says_one_thing_of_its_data() {
        let help = help("tour");
        assert!(help.contains("The data is in a temporary folder unless --data is given"), "{help}");
        assert!(help.contains("else ./nexus-data; of `tour` a temporary one]"), "{help}");
    }

    fn check(line: &str, good: bool) {
        let parsed = Cli::try_parse_from(line.split_whitespace());
        assert_eq!(parsed.is_ok(), good, "{line}: {:?}", parsed.err().map(|error| error.to_string()));
    }

    #[test]
    fn lines_of_the_manual_are_understood() {
        check("nexus --data d --profile lite --json ls -l -R /", true);
        check("nexus ls --json --data d /", true);
        check("nexus grep -i -n --glob *.rs fn /src", true);
        check("nexus grep -l -c fn", false);
        check("nexus ln /a /b", false);
        check("nexus ln -s /a /b", true);
        check("nexus mount /m --driver path-local --opt folder=/x --opt a=b=c", true);
        check("nexus mount /m --driver path-local --opt root", false);
        check("nexus mount /m", false);
        check("nexus migrate /m --to local --opt folder=/x --without-modes", true);
        check("nexus migrate /m --abort", true);
        check("nexus migrate /m --status --json", true);
        check("nexus migrate /m", false);
        check("nexus migrate /m --to local --abort", false);
        check("nexus migrate /m --abort --opt a=b", false);
        check("nexus sync", true);
        check("nexus sync /a", true);
        check("nexus sync host:x /a --delete --dry-run --json", true);
        check("nexus sync /a --delete", false);
        check("nexus edit /a --old -x --new --y", true);
        check("nexus grep -l -foo", false);
        check("nexus ls --as-of lsn:3 /a", true);
        check("nexus ls --as-of yesterday /a", false);
        check("nexus cp -r --as-of 2h /a /b", true);
        check("nexus versions /a", true);
        check("nexus restore /a --version 3", true);
        check("nexus restore /a --time 2h --to /b", true);
        check("nexus restore /a --time v:3", false);
        check("nexus restore /a", false);
        check("nexus restore /a --version 3 --lsn 4", false);
        check("nexus tx plan.json", true);
        check("nexus tx a b", false);
        check("nexus cat", false);
        check("nexus cat --offset 3 --count 4 /a /b", true);
        check("nexus serve --agent coder-7 --clients 3", true);
        check("nexus serve --while-used", true);
        check("nexus ps --watch --json", true);
        check("nexus top", true);
        check("nexus kill nexus/kernel/router", true);
        check("nexus kill --how wedge --handling after nexus/kernel/router", true);
        check("nexus kill --how nicely nexus/kernel/router", false);
        check("nexus kill", false);
        check("nexus watch / --since 7 --mask file_write,lock --count 3 --wait 2s --json", true);
        check("nexus watch --glob /logs/*.txt", true);
        check("nexus watch --glob --alone /logs/*.txt", false);
        check("nexus watch / --mask written", false);
        check("nexus fsck --repair --json", true);
        check("nexus fsck /a", false);
        check("nexus run --in /in --out /out --err /log -- server --stdio -v", true);
        check("nexus run --framing raw --env A=b --env HOME -- cat", true);
        check("nexus run --framing words -- cat", false);
        check("nexus run --err /log --merge -- cat", false);
        check("nexus run cat", false);
        check("nexus children --json", true);
        check("nexus children 3 --signal KILL", true);
        check("nexus children --signal KILL", false);
        check("nexus children 3 --signal SEGV", false);
        check("nexus", false);
    }
}
