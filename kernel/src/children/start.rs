//! One start, from the making of its paths to the child that is there; or to nothing, with all that was made taken back.
//!
//! It goes on when its caller goes away, so that no step of it is left half-way, and finds before its end that it is given up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nexus_messages::syscall::{
    IoProfile, PipeSpec, Precondition, StreamSpec, SysSetattr, SysStat, SysUnlink,
};
use nexus_messages::{
    CHILD_PIPE_CAPACITY, Caller, ChildEntry, ChildOutput, ChildSpec, EntryType, Error, ErrorKind,
    FileMetadata, LifeId, Op, Result, VPath,
};

use super::StartChild;
use super::claims::Claim;
use super::spawn::{Ends, Order, untaken};
use super::table::{GivenUp, Place, Untaken};
use crate::kernel::{Kernel, call_kind, down};

/// How long to wait for the actor that starts children, which may be restarting, and for the host.
const START_MAX: Duration = Duration::from_secs(60);

/// How long the ends of a child that is given up may take to be closed.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// A start, and who asked for it.
pub(super) struct Start {
    pub(super) kernel: Arc<Kernel>,
    pub(super) caller: Arc<Caller>,
    pub(super) spec: Arc<ChildSpec>,
    pub(super) program: PathBuf,
    pub(super) given_up: GivenUp,
    /// Its own until its end, also when it is given up: so no more are under way than may be.
    pub(super) place: Place,
}

impl Start {
    pub(super) async fn run(self) -> Result<ChildEntry> {
        let claim = self.kernel.claims().claim(&self.caller.zone, self.spec.paths()).await;
        let started = match Box::pin(self.start(&claim)).await {
            // Its caller polls this, if he is there: so he has it, and cannot go away in between.
            Ok(entry) if !self.given_up.is_so() => {
                claim.keep();
                return Ok(entry);
            }
            started => started,
        };
        Box::pin(self.take_back(claim)).await;
        Err(started.err().unwrap_or_else(|| untaken(&self.spec, Untaken::GivenUp)))
    }

    async fn start(&self, claim: &Claim) -> Result<ChildEntry> {
        let order = Box::pin(self.prepare(claim)).await?;
        self.kernel.children_table().order(self.place.id, Box::new(order));
        match self.kernel.children_actor().call(StartChild(self.place.id), START_MAX).await {
            Ok(started) => started,
            Err(error) => {
                let kind = call_kind(error);
                Err(down(Error::on_host(Op::Spawn, &self.spec.program, kind), error))
            }
        }
    }

    /// Makes what is missing of the child's paths, and opens its ends.
    async fn prepare(&self, claim: &Claim) -> Result<Order> {
        let spec = &self.spec;
        // Its pumps outlive who asked, unless the child itself is tied.
        let life = spec.tied.then_some(self.caller.life).filter(|life| *life != LifeId::KERNEL);
        let caller = Arc::new((*self.caller).clone().living(LifeId::KERNEL));
        let stdin = match &spec.stdin {
            Some(path) => {
                self.make_pipe(claim, &caller, path).await?;
                let opened = self.kernel.open_child_reader(&caller, path).await;
                Some(opened.map_err(|error| error.during(Op::Spawn))?)
            }
            None => None,
        };
        let stdout = self.open_output(claim, &caller, &spec.stdout).await?;
        let stderr = match spec.is_merged() {
            true => Ends::default(),
            false => self.open_output(claim, &caller, &spec.stderr).await?,
        };
        let (id, spec, program) = (self.place.id, spec.clone(), self.program.clone());
        Ok(Order { id, spec, program, caller, life, stdin, stdout, stderr })
    }

    async fn open_output(&self, claim: &Claim, caller: &Arc<Caller>, output: &ChildOutput) -> Result<Ends> {
        let mut ends = Ends::default();
        if let Some(path) = &output.stream {
            let spec = StreamSpec::new().io_profile(IoProfile::Stdio);
            self.make(claim, caller, path, SysSetattr::stream_with(path, spec)).await?;
            ends.stream = Some(path.clone());
        }
        if let Some(path) = &output.pipe {
            self.make_pipe(claim, caller, path).await?;
            let opened = self.kernel.open_child_writer(caller, path).await;
            ends.pipe = Some(opened.map_err(|error| error.during(Op::Spawn))?);
        }
        Ok(ends)
    }

    async fn make_pipe(&self, claim: &Claim, caller: &Arc<Caller>, path: &VPath) -> Result<()> {
        let spec = PipeSpec::new(CHILD_PIPE_CAPACITY).io_profile(IoProfile::Stdio);
        self.make(claim, caller, path, SysSetattr::pipe_with(path, spec)).await
    }

    async fn make(&self, claim: &Claim, caller: &Arc<Caller>, path: &VPath, call: SysSetattr) -> Result<()> {
        if self.given_up.is_so() {
            return Err(untaken(&self.spec, Untaken::GivenUp));
        }
        let done = self.kernel.send(caller, call).await.map_err(|error| error.during(Op::Spawn))?;
        if done.created {
            claim.made(path, done.metadata);
        }
        Ok(())
    }

    /// There will be no child: kills the one that is there, and removes what was made for it and is of use to nobody else.
    async fn take_back(&self, claim: Claim) {
        let (kernel, caller) = (&self.kernel, &self.caller);
        if let Some(child) = kernel.children_table().give_up(self.place.id) {
            // It has ends of what is removed.
            let closed = child.reached(|stage| stage.pumping == 0);
            if kernel.env().timeout(CLOSE_MAX, closed).await.is_err() {
                child.trouble("it is given up, and its pipes are not closed");
            }
        }
        let leaving = claim.give_up();
        for entry in leaving.entries() {
            if !self.is_unused(entry).await {
                tracing::debug!(path = %entry.path, "what was made for a child that is given up is used by others, and stays");
                continue;
            }
            let call = SysUnlink::at(&entry.path).when(Precondition::unchanged(entry));
            match kernel.send(caller, call).await {
                Ok(_) => {}
                // Somebody else has moved or removed it.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PreconditionFailed) => {
                }
                Err(error) => {
                    tracing::warn!(path = %entry.path, %error, "what was made for a child that is given up is still there");
                }
            }
        }
    }

    /// Whether an entry that was made is as it was made, and nobody has opened it, put anything in it, or waits for that. What is done to it from then on goes with it, as with
    /// all that is removed.
    async fn is_unused(&self, entry: &FileMetadata) -> bool {
        let now = self.kernel.send(&self.caller, SysStat::at(&entry.path).no_follow()).await;
        if !now.is_ok_and(|now| now.file_id == entry.file_id && now.changed == entry.changed) {
            return false;
        }
        match entry.entry_type {
            EntryType::Pipe => self.kernel.pipes().get(entry.file_id).is_none_or(|pipe| pipe.is_unused()),
            _ => match self.kernel.streams().get(entry.file_id) {
                Some(stream) => stream.is_unused().await,
                // Nobody has asked for it since it was made.
                None => true,
            },
        }
    }
}
