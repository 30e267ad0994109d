//! `SysWrite`: content into a file.

use std::sync::Arc;

use nexus_messages::syscall::{Create, Fence, Place, SysWrite, Written};
use nexus_messages::{Caller, Consistency, Error, ErrorKind, Event, EventKind, OpId, Receipt, Result, VPath};

use super::Serve;
use super::admit::{Admissible, Admitted, Which, one_path};
use super::locate::Located;
use super::mutate::{Mutation, mutate};
use super::{pipe, records};
use crate::content;
use crate::gate::Right;
use crate::kernel::Kernel;
use crate::locks::Scope;
use crate::volume::{Intent, Stop, Volume};

impl Admissible for SysWrite {
    one_path!();

    fn follows(&self, _: Which) -> bool {
        // A new file is made at this very path, as with O_EXCL: a link there is an entry.
        self.create != Create::Exclusive
    }

    fn right(&self, _: Which, exists: bool) -> Right {
        if exists { Right::Write } else { Right::Create }
    }

    fn finds_by_itself(&self) -> bool {
        // A repeat is answered from what is there, and a message for a pipe is for nothing else that is.
        self.op_id.is_none() && self.pipe.is_none()
    }

    fn validate(&self) -> Result<()> {
        let length = content::length(&self.data);
        if length > content::CALL_MAX {
            let error = Error::new(Self::OP, &self.path, ErrorKind::TooLarge);
            let max = content::CALL_MAX;
            let why =
                format!("{length} bytes are more than one call carries, {max}: write pieces, or a stream");
            return Err(error.because(why));
        }
        if self.truncate && !matches!(self.place, Place::At(_) | Place::Whole) {
            let error = Error::new(Self::OP, &self.path, ErrorKind::InvalidArgument);
            return Err(error.because("only a write at an offset can truncate"));
        }
        Ok(())
    }
}

impl Mutation for SysWrite {
    fn op_id(&self) -> Option<OpId> {
        self.op_id
    }

    fn consistency(&self) -> Option<Consistency> {
        self.consistency
    }

    fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    fn scope(&self, _: &Admitted<Self>) -> Scope {
        Scope::Entry
    }

    fn may_be_at_once(&self) -> bool {
        // Of any other a driver may have to read what is there, or write it.
        self.place == Place::Whole && content::length(&self.data) <= content::INLINE_MAX
    }

    fn leads_elsewhere(&self, intent: &Intent, first: &Located) -> bool {
        let is_meant = self.pipe.is_some() || pipe::is_there(first) || records::is_there(first);
        is_meant && intent.staged.is_none()
    }

    async fn elsewhere(kernel: &Arc<Kernel>, intent: &Intent, admitted: &Admitted<Self>) -> Result<Written> {
        pipe::check_meant(Self::OP, admitted.call.pipe, &admitted.first)?;
        if records::is_there(&admitted.first) {
            let ready = records::ready(kernel, Self::OP, &admitted.first).await?;
            return records::write(kernel, &intent.caller, ready, &admitted.call).await;
        }
        let (asked, caller) = (admitted.call.path.clone(), &intent.caller);
        let ready = pipe::ready(kernel, caller, Self::OP, &asked, &admitted.first).await?;
        pipe::write(kernel, caller, ready, &admitted.call).await
    }

    async fn run(kernel: &Arc<Kernel>, intent: &Intent, admitted: &Admitted<Self>) -> Result<Written, Stop> {
        let site = &admitted.first.site;
        Volume::to_change(kernel, site, intent).write(site, intent, &admitted.call).await
    }

    fn repeated(&self, first: &Located, _: Option<&Located>, receipt: Receipt) -> Option<Written> {
        let metadata = first.node.as_ref()?.metadata.clone();
        Some(Written::new(content::length(&self.data), Some(metadata.size), metadata, receipt))
    }

    fn receipt(done: &Written) -> Receipt {
        done.receipt
    }

    fn event(intent: &Intent, admitted: &Admitted<Self>, done: &Written) -> Option<Event> {
        let mut event =
            intent.event(EventKind::FileWritten, &admitted.first.site.path, &done.metadata, done.receipt);
        event.is_new = done.created;
        Some(event)
    }
}

impl Serve for SysWrite {
    #[inline]
    fn warm(&mut self, kernel: &Kernel, caller: &Caller) -> Option<Written> {
        if self.pipe.is_some() {
            return None;
        }
        let is_append = self.place == Place::End;
        let appended = if is_append { records::append_warm(kernel, caller, self) } else { None };
        appended.or_else(|| pipe::write_warm(kernel, caller, self))
    }

    async fn serve(self, kernel: &Arc<Kernel>, caller: &Arc<Caller>) -> Result<Written> {
        if let Some(ready) = pipe::at_hand(kernel, caller, Self::OP, &self.path, self.pipe) {
            return Box::pin(pipe::write(kernel, caller, ready, &self)).await;
        }
        if records::is_plain_append(&self)
            && let Some(ready) = records::at_hand(kernel, caller, Self::OP, &self.path)
        {
            self.validate()?;
            return Box::pin(records::write(kernel, caller, ready, &self)).await;
        }
        mutate(kernel, caller, self).await
    }
}
