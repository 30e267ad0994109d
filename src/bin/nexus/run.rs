//! From a parsed command line to an exit status.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexus::services::audit::Audit;
use nexus::services::quota::Quota;
use nexus::{Config, Profile, Serving};
use nexus_actors::block_on;

use crate::args::{Cli, Command, FsckArgs};
use crate::failure::{Failure, Outcome, Status};
use crate::output::{Output, tell};
use crate::session::Session;
use crate::{
    change, children, content, drivers, fsck, gc, kill, list, locks, logs, migrate, mounts, outcome, owner,
    past, pipe, ps, search, serve, services, shell, stream, top, tour, transfer, tx, watch,
};

/// Says for whom a command acts that does not say it itself.
pub(crate) const USER: &str = "NEXUS_USER";

/// The data folder when neither the command line nor the environment names one.
const DATA_FOLDER: &str = "nexus-data";

/// Runs the command in a kernel of its own, which ends in order; or in that of the process that owns the data folder.
pub(crate) fn main(cli: Cli) -> Status {
    if let Err(failure) = logs::start() {
        tell(&failure);
        return failure.status();
    }
    let out = Output::new(cli.json);
    if cli.user.is_some() && matches!(cli.command, Command::Tour(_) | Command::Serve(_) | Command::Drivers(_))
    {
        out.failed(&Failure::Usage(
            "--user: whom it acts for is for each command that changes something to say".into(),
        ));
        return out.take_status();
    }
    let done = match cli.command {
        Command::Tour(args) => {
            let done = block_on(Box::pin(tour::tour(&out, args, cli.data, cli.profile.as_deref())));
            done.and_then(|()| out.flush())
        }
        Command::Serve(args) => {
            block_on(Box::pin(serve::serve(&out, args, cli.data, cli.profile.as_deref())))
        }
        Command::Drivers(args) => drivers::drivers(&out, args).and_then(|()| out.flush()),
        command => block_on(Box::pin(in_kernel(&out, command, cli.data, (cli.profile.as_deref(), cli.user)))),
    };
    if let Err(failure) = done {
        out.failed(&failure);
    }
    out.take_status()
}

async fn in_kernel(
    out: &Output,
    command: Command,
    data: Option<PathBuf>,
    (profile, user): (Option<&str>, Option<String>),
) -> Outcome {
    let data = data.map_or_else(data_folder, Ok)?;
    if let Command::Fsck(FsckArgs { give_up_after: Some(after), .. }) = &command {
        return fsck::give_up(out, &data, after).and_then(|()| out.flush());
    }
    if let Command::Fsck(FsckArgs { give_up_streams_after: Some(place), .. }) = &command {
        return fsck::give_up_streams(out, &data, *place).and_then(|()| out.flush());
    }
    let mut config = config(&data, profile)?;
    if matches!(&command, Command::Run(_)) {
        // What it runs is this process's, and reaches the kernel, as others do, while that is here.
        config = config.serve(Serving::administrator());
    }
    let waits = owner::is_for(&command);
    if waits {
        // An owner that it starts would say so to nobody.
        serve::clients(None)?;
    }
    let opened = match waits {
        true => Box::pin(owner::attach(config, &data, profile, owner::patience(&command))).await,
        false => Box::pin(owner::connect(config, &data)).await.map(|nx| (nx, false)),
    };
    let (nx, started) = match opened {
        Err(error) if matches!(command, Command::Fsck(_)) => {
            let told = fsck::damaged(out, &data, error);
            return out.flush().and(told);
        }
        opened => opened?,
    };
    // What an environment says for all commands is for those that can: who is served as an agent does not say for whom.
    let user = user.or_else(|| std::env::var(USER).ok().filter(|user| nx.is_admin() && !user.is_empty()));
    let nx = match user.map(|user| nx.user(&user)) {
        None => nx,
        Some(Ok(nx)) => nx,
        Some(Err(error)) => {
            nx.shutdown().await?;
            return Err(error.into());
        }
    };
    // What it runs may work elsewhere, and is told where the data is.
    let data = std::path::absolute(&data).map_err(|error| Failure::host("connect", &data, error))?;
    let session = Arc::new(Session::new(nx, Output::new(out.is_json()), data));
    let lasts = Box::pin(owner::would_last(&session, started, &command)).await;
    let executed = match command {
        _ if lasts.is_err() => lasts,
        Command::Run(args) => Box::pin(children::run_alone(&session, args)).await,
        Command::Migrate(args) => Box::pin(migrate::migrate_alone(&session, args)).await,
        Command::Export(args) => Box::pin(transfer::export::export_alone(&session, args)).await,
        command => Box::pin(execute(&session, command)).await,
    };
    let done = executed.and_then(|()| session.out.flush());
    if let Err(failure) = &done {
        // What was printed before comes before.
        let _ = session.out.flush();
        session.out.failed(failure);
    }
    out.ends_with(session.out.take_status());
    session.nx.shutdown().await?;
    Ok(())
}

/// Runs one command.
pub(crate) async fn execute(session: &Arc<Session>, command: Command) -> Outcome {
    match command {
        Command::Import(args) => Box::pin(transfer::import::import(session, args)).await,
        Command::Export(args) => Box::pin(transfer::export::export(session, args)).await,
        Command::Ls(args) => Box::pin(list::ls(session, args)).await,
        Command::Tree(args) => Box::pin(list::tree(session, args)).await,
        Command::Stat(args) => Box::pin(list::stat(session, args)).await,
        Command::Cat(args) => Box::pin(content::cat(session, args)).await,
        Command::Write(args) => Box::pin(content::write(session, args)).await,
        Command::Append(args) => Box::pin(content::append(session, args)).await,
        Command::Edit(args) => Box::pin(content::edit(session, args)).await,
        Command::Mkdir(args) => Box::pin(change::mkdir(session, args)).await,
        Command::Rm(args) => Box::pin(change::rm(session, args)).await,
        Command::Mv(args) => Box::pin(change::mv(session, args)).await,
        Command::Cp(args) => Box::pin(transfer::copy::cp(session, args)).await,
        Command::Versions(args) => Box::pin(past::versions(session, args)).await,
        Command::Restore(args) => Box::pin(past::restore(session, args)).await,
        Command::Ln(args) => Box::pin(change::ln(session, args)).await,
        Command::Tx(args) => Box::pin(tx::tx(session, args)).await,
        Command::Glob(args) => Box::pin(search::glob(session, args)).await,
        Command::Grep(args) => Box::pin(search::grep(session, args)).await,
        Command::Pipe(args) => Box::pin(pipe::pipe(session, args)).await,
        Command::Stream(args) => Box::pin(stream::stream(session, args)).await,
        Command::Run(args) => Box::pin(children::run(session, args)).await,
        Command::Children(args) => Box::pin(children::children(session, args)).await,
        Command::Mount(args) => Box::pin(mounts::mount(session, args)).await,
        Command::Umount(args) => Box::pin(mounts::umount(session, args)).await,
        Command::Migrate(args) => Box::pin(migrate::migrate(session, args)).await,
        Command::Mounts(_) => mounts::mounts(session).await,
        Command::Drivers(args) => drivers::drivers(&session.out, args),
        Command::Services(_) => services::services(session).await,
        Command::Register(args) => Box::pin(services::register(session, args)).await,
        Command::Unregister(args) => Box::pin(services::unregister(session, args)).await,
        Command::Swap(args) => Box::pin(services::swap(session, args)).await,
        Command::Lock(args) => Box::pin(locks::lock(session, args)).await,
        Command::Unlock(args) => Box::pin(locks::unlock(session, args)).await,
        Command::Locks(args) => Box::pin(locks::locks(session, args)).await,
        Command::Ps(args) => Box::pin(ps::ps(session, args)).await,
        Command::Top(args) => Box::pin(top::top(session, args)).await,
        Command::Gc(args) => Box::pin(gc::gc(session, args)).await,
        Command::Sync(args) => Box::pin(transfer::sync::sync(session, args)).await,
        Command::Outcome(args) => Box::pin(outcome::outcome(session, args)).await,
        Command::Fsck(args) => Box::pin(fsck::fsck(session, args)).await,
        Command::Kill(args) => Box::pin(kill::kill(session, args)).await,
        Command::Watch(args) => Box::pin(watch::watch(session, args)).await,
        Command::Shell(_) => Box::pin(shell::shell(session)).await,
        Command::TourWriter(args) => Box::pin(tour::writer::write(session, args)).await,
        Command::Serve(_) => Err(Failure::Usage(
            "serve: this kernel is in use; serve it from a command line of its own".into(),
        )),
        // Its kernels are its own, and so is its data.
        Command::Tour(args) => Box::pin(tour::tour(&session.out, args, None, None)).await,
    }
}

/// The settings: the command line's above the environment's and the file's.
pub(crate) fn config(data: &Path, profile: Option<&str>) -> Outcome<Config> {
    // What can be registered by name, and is started at boot when it was.
    let config = Config::load_from(data)?.service::<Audit>().service::<Quota>();
    let Some(name) = profile else { return Ok(config) };
    let profile: Profile = name.parse().map_err(|why| Failure::Usage(format!("--profile: {why}")))?;
    Ok(config.profile(profile))
}

/// Where the data is when the command line does not say it: the environment does, or the settings.
pub(crate) fn data_folder() -> Outcome<PathBuf> {
    let is_said = |dir: &PathBuf| !dir.as_os_str().is_empty();
    if let Some(dir) = std::env::var_os("NEXUS_DATA_DIR").map(PathBuf::from).filter(is_said) {
        return Ok(dir);
    }
    let said = Config::load()?.folder().map(Path::to_owned);
    Ok(said.filter(is_said).unwrap_or_else(|| DATA_FOLDER.into()))
}
