//! Suffers the faults that are put in from outside.
//!
//! A message that is to be struck is handled in steps, with the blow between two of them. All others know nothing of it.

use super::{Stage, Turn};
use crate::behaviour::Behaviour;
use crate::cell::{Mail, WEDGE_MAX};
use crate::envelope::{Answer, Opened, Step};
use crate::exit::ExitReason;
use crate::fault::{Inject, Moment};

/// What is still to be done with a message after a blow that it has survived.
pub(super) struct Rest<B: Behaviour> {
    pub(super) name: &'static str,
    what: What<B>,
}

enum What<B: Behaviour> {
    /// Its handler is to run.
    Handle(Opened<B>),
    /// Its reply is to go out. The number is its place among the messages in flight.
    Reply(Answer, Option<usize>),
}

impl<B: Behaviour> Turn<B> {
    /// A fault between two messages.
    pub(super) fn suffer(&mut self, fault: Inject) {
        match fault {
            Inject::Panic | Inject::Error | Inject::Kill => {
                let why = self.fatal(fault, None);
                self.finish(why);
            }
            Inject::Wedge if self.is_simulated() => {
                self.stage = Stage::Stuck(self.me.env().sleep(WEDGE_MAX), None);
            }
            Inject::Wedge => self.cell().wedge(self.generation),
        }
    }

    /// Begins the message that is to be struck.
    pub(super) fn strike(&mut self, mail: Mail<B>, moment: Moment) -> Result<(), ExitReason> {
        let name = mail.name();
        self.me.env().note(self.me.name(), || name);
        // One that was withdrawn at the last moment is spared: the next one will be struck.
        let Some(opened) = mail.open(self.generation) else { return Ok(()) };
        self.cell().carry(self.generation);
        match moment {
            Moment::Before => self.blow(Rest { name, what: What::Handle(opened) }),
            Moment::After => self.handle_struck(name, opened),
        }
    }

    /// The blow falls, unless the fault has been withdrawn.
    fn blow(&mut self, rest: Rest<B>) -> Result<(), ExitReason> {
        match self.cell().blow(self.generation, rest.name) {
            None => self.go_on(rest),
            Some(Inject::Wedge) if self.is_simulated() => {
                self.stage = Stage::Stuck(self.me.env().sleep(WEDGE_MAX), Some(rest));
                Ok(())
            }
            Some(Inject::Wedge) => {
                self.cell().wedge(self.generation);
                // It does not know that it has been written off meanwhile.
                self.go_on(rest)
            }
            Some(fault) => {
                let why = self.fatal(fault, Some(rest.name));
                self.discard(rest);
                Err(why)
            }
        }
    }

    pub(super) fn go_on(&mut self, Rest { name, what }: Rest<B>) -> Result<(), ExitReason> {
        match what {
            What::Handle(opened) => self.handle_struck(name, opened),
            What::Reply(answer, number) => {
                if let Some(send) = answer.take() {
                    self.on_behaviour(Some(name), |_, _| send())?;
                }
                number.into_iter().for_each(|number| self.cell().landed(self.generation, number));
                Ok(())
            }
        }
    }

    /// Runs the handler. Its reply is held back for the blow.
    fn handle_struck(&mut self, name: &'static str, opened: Opened<B>) -> Result<(), ExitReason> {
        let (step, answer) = self.on_behaviour(Some(name), opened)?;
        match step {
            Step::Done => self.blow(Rest { name, what: What::Reply(answer, None) }),
            Step::Exclusive(job) => {
                self.take_off(job, name, None, Some(answer));
                Ok(())
            }
            Step::Interleaved(job) => {
                let number = self.cell().fly(self.generation);
                self.take_off(job, name, number, Some(answer));
                Ok(())
            }
        }
    }

    /// The future of a struck message has ended, and its reply is held back.
    pub(super) fn landed_struck(
        &mut self,
        name: &'static str,
        number: Option<usize>,
        answer: Answer,
    ) -> Result<(), ExitReason> {
        self.blow(Rest { name, what: What::Reply(answer, number) })
    }

    fn fatal(&mut self, fault: Inject, handling: Option<&'static str>) -> ExitReason {
        match (fault, handling) {
            (Inject::Panic, _) => {
                let panicked = self.on_behaviour(handling, |_, _| panic!("an injected panic"));
                panicked.err().unwrap_or(ExitReason::Killed)
            }
            (Inject::Error, None) => ExitReason::error("an injected error"),
            (Inject::Error, Some(name)) => {
                ExitReason::error(format!("an injected error while handling {name}"))
            }
            (Inject::Kill | Inject::Wedge, _) => ExitReason::Killed,
        }
    }
}
