//! The orderly end of this process, as others are told of it: the marker is read once more, then every heartbeat says it.
//!
//! The orchestrator writes the run's event and sends the notices; only the node knows whether its marker asks for a
//! quiet shutdown. It is kept in the home besides, until a heartbeat that says it was answered, or a claim.

use groundcrew_protocol::wire::{LogLevel, Shutdown, StageAttempt, Unheard};

use super::{Action, Asked, Core, InFlight, Power};
use crate::control::memory::Memory;

/// What is said of the end.
#[derive(Debug)]
pub(super) struct Leaving {
    /// The look at the marker that it waits for; `None` once that was made, or nobody waits for it any more.
    look: Option<u64>,
    shutdown: Shutdown,
}

impl Core {
    /// This process ends. What it cuts off is known now, which is not a stage that has itself asked for the reboot; the
    /// marker is read for this very shutdown.
    pub(super) fn begin_to_leave(&mut self) {
        let reboots = |one: &InFlight| one.asked == Some(Asked::Reboot) && one.so_far == Power::Acknowledged;
        let is_cut = |one: &&InFlight| one.ended_by.is_none() && !reboots(one);
        let of = |one: &InFlight| StageAttempt { stage: one.stage.clone(), attempt: one.attempt };
        let cut_off = self.in_flight.as_ref().filter(is_cut).map(of);
        let look = self.next_look();
        let shutdown = Shutdown { cut_off, ..Shutdown::default() };
        self.leaving = Some(Leaving { look: Some(look), shutdown });
        self.actions.push(Action::LookForDrain(look));
    }

    /// The look was made. One that the disk did not answer silences nothing: a notice too many is better than none.
    pub(super) fn looked_to_leave(&mut self, look: u64, is_told: bool) {
        let drained = self.drained().map(|active| active.suppress_notification);
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.look == Some(look)) else {
            return;
        };
        leaving.look = None;
        leaving.shutdown.drained = drained.is_some();
        leaving.shutdown.suppress_notification = is_told && drained == Some(true);
        let (level, what) = match &leaving.shutdown.cut_off {
            Some(cut) => {
                let text = format!("{}, attempt {}, is cut off", cut.stage, cut.attempt);
                (LogLevel::Warn, format!("{text}; start the agent again and the run goes on"))
            }
            None => (LogLevel::Info, "nothing is cut off".to_owned()),
        };
        let quiet = if leaving.shutdown.suppress_notification { ", quietly as the drain asks" } else { "" };
        self.say(level, format!("the agent shuts down{quiet}: {what}"));
        self.keep_unheard();
    }

    /// The orchestrator may be away: then the next claim says it. An agent without a claim meets no run, unless it cuts one off.
    fn keep_unheard(&mut self) {
        let is_of_run = |said: &Shutdown| self.claim.is_some() || said.cut_off.is_some();
        let Some(said) = self.shutdown().filter(is_of_run) else { return };
        self.memory.unheard = Some(Unheard { session: self.facts.session.clone(), said });
        self.persist();
    }

    /// The last heartbeat was answered. What is to be kept now, where that is something else.
    pub fn shutdown_heard(&mut self) -> Option<Box<Memory>> {
        let is_own = |unheard: &mut Unheard| unheard.session == self.facts.session;
        self.memory.unheard.take_if(is_own).map(|_| Box::new(self.memory.clone()))
    }

    /// Nobody waits for the marker any more.
    pub(super) fn leave_unread(&mut self) {
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.look.is_some()) {
            leaving.look = None;
            self.keep_unheard();
        }
    }

    /// True while the marker is being read for the end.
    pub(super) fn reads_to_leave(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.look.is_some())
    }

    /// What heartbeats say of the end.
    pub(super) fn shutdown(&self) -> Option<Shutdown> {
        let leaving = self.leaving.as_ref().filter(|leaving| leaving.look.is_none());
        leaving.map(|leaving| leaving.shutdown.clone())
    }
}
