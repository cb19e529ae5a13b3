//! The drain: while the marker asks for it nothing new starts, and what is in flight ends by itself.
//!
//! ```text
//!   the run stands at a stage ──▶ registered as active ──▶ the marker is read ──▶ no drain: the stage starts
//!                                                                            └──▶ a drain: withdrawn, and waits
//! ```
//!
//! In this order, so that nobody who asked for the drain acts on an idle that the start of a stage is about to break: either
//! the asker sees the work, or the loop sees the marker. Nothing of the stage is on disk before the marker was read; an
//! attempt that waits was never begun.

use groundcrew_durable::drain_marker::read::{Active, Drain};
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::{Attempt, DirectiveId};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{DirectiveOutcome, HeartbeatAnswer, LogLevel, StageAttempt};

use super::{Action, Core, Power};
use crate::control::sight::{Sight, why_absent, why_drained};

/// What the loop knows of the drain.
#[derive(Debug, Default)]
pub(super) struct Draining {
    /// The newest look that was told.
    seen: Option<Sight>,
    /// The stage that is about to start, and the look that it waits for.
    entering: Option<(StageAttempt, u64)>,
    /// Looks that were asked for.
    looks: u64,
    /// The marker was read for the stage that is about to start; good for this step alone.
    is_clear: bool,
    /// The look that a power-off waits for.
    power: Option<u64>,
    /// The order that is being written into the marker.
    order: Option<DirectiveId>,
}

impl Core {
    /// The drain that the loop itself has seen, and abides by.
    pub fn drained(&self) -> Option<&Active> {
        self.draining.seen.as_ref().and_then(Sight::active)
    }

    /// The newest look that the loop knows.
    pub fn sight(&self) -> Option<&Sight> {
        self.draining.seen.as_ref()
    }

    fn seen(&self) -> u64 {
        self.draining.seen.as_ref().map_or(0, |sight| sight.number)
    }

    /// What is active: the attempt in flight, or one that is about to start unless the marker drains.
    pub fn active(&self) -> Option<StageAttempt> {
        self.in_flight().or_else(|| self.draining.entering.as_ref().map(|(which, _)| which.clone()))
    }

    /// True where anything is active: an attempt, a hook, or a power-off.
    pub fn is_active(&self) -> bool {
        self.active().is_some() || self.active_hook().is_some() || self.powers_off()
    }

    /// True while a power-off is under way: it ends with the power, with a refusal, or because a drain holds.
    pub fn powers_off(&self) -> bool {
        self.power != Power::Untouched
    }

    /// A power-off is registered as active: the marker is read for it, as for a stage.
    pub(super) fn look_for_power(&mut self) {
        let look = self.next_look();
        self.draining.power = Some(look);
        self.actions.push(Action::LookForDrain(look));
    }

    /// True while the marker is being read for a power-off.
    pub(super) fn looks_for_power(&self) -> bool {
        self.draining.power.is_some()
    }

    /// A power-off makes way for a drain up to its last step, once the spools are flushed and no call is under way for it. Its
    /// directive comes again, and is obeyed once no drain holds.
    pub(super) fn withdraw_power_off(&mut self) {
        match self.power {
            Power::Untouched | Power::Wanted => return,
            Power::Flushed | Power::Acknowledged => {}
        }
        if let Some(why) = self.drained().map(why_drained) {
            self.say(LogLevel::Warn, format!("the power stays on until the drain is over, {why}"));
            self.power = Power::Untouched;
            self.powering = None;
        }
    }

    /// The stage that waits for the drain to end.
    pub fn waits_for_drain(&self) -> Option<StageAttempt> {
        let waits = self.drained().is_some() && self.active().is_none() && !self.exiting;
        self.next_stage().filter(|_| waits)
    }

    /// The attempt at which the run stands, where this agent would start it.
    fn next_stage(&self) -> Option<StageAttempt> {
        let target = self.target.as_ref().filter(|_| self.claim.is_some())?;
        let stage = target.state.agent_stage()?.clone();
        (target.attempt != Attempt(0)).then_some(StageAttempt { stage, attempt: target.attempt })
    }

    /// Somebody looked at the marker.
    pub(super) fn marker_seen(&mut self, sight: Sight) {
        if sight.number <= self.seen() {
            return; // An older look, told late.
        }
        let was = self.drained().is_some();
        match (was, &sight.drain) {
            (false, Drain::Active(active)) => {
                let text =
                    format!("drains, {}: what is in flight ends, nothing new starts", why_drained(active));
                self.say(LogLevel::Warn, text);
            }
            (true, Drain::Absent(absence)) => {
                // The end of this process wins: nothing goes on.
                let then = if self.exiting { "the agent ends" } else { "work goes on" };
                self.say(LogLevel::Info, format!("the drain is over, {}: {then}", why_absent(absence)));
            }
            (true, Drain::Active(_)) | (false, Drain::Absent(_)) => {}
        }
        self.draining.seen = Some(sight);
    }

    /// The look that a stage waits for was made; without a sight the disk has not answered in time, and what was last
    /// seen stands.
    pub(super) fn looked(&mut self, look: u64, sight: Option<Sight>) {
        let is_told = sight.is_some();
        if let Some(sight) = sight {
            self.marker_seen(sight);
        }
        self.draining.power.take_if(|waited| *waited == look);
        self.looked_for_hook(look);
        self.looked_to_leave(look, is_told);
        let Some((which, waited)) = self.draining.entering.take() else {
            return;
        };
        if waited != look {
            self.draining.entering = Some((which, waited));
            return;
        }
        self.draining.is_clear = self.drained().is_none();
        if !is_told {
            self.say(LogLevel::Warn, "the drain marker could not be read in time: what was last seen stands");
        }
    }

    /// True where the attempt may start now: the marker was read since it was registered, and does not drain. Else it is
    /// registered and the marker is read, or it waits.
    pub(super) fn may_start(&mut self, stage: &Stage, attempt: Attempt) -> bool {
        if let Some(active) = self.drained() {
            let reason = format!("drained, {}: {stage} waits for its end", why_drained(active));
            self.draining.entering = None;
            self.idle(reason);
            return false;
        }
        if !self.is_drained_for(stage) {
            return false;
        }
        if std::mem::take(&mut self.draining.is_clear) {
            return true;
        }
        let which = StageAttempt { stage: stage.clone(), attempt };
        if self.draining.entering.as_ref().is_none_or(|(entering, _)| *entering != which) {
            let look = self.next_look();
            self.draining.entering = Some((which, look));
            self.actions.push(Action::LookForDrain(look));
        }
        false
    }

    /// The number of a look that is asked for.
    pub(super) fn next_look(&mut self) -> u64 {
        self.draining.looks += 1;
        self.draining.looks
    }

    /// What is about to start no more is registered no more, and a look was good for its step alone.
    pub(super) fn end_entry(&mut self) {
        self.draining.is_clear = false;
        let next = self.next_stage().filter(|_| !self.exiting && self.in_flight.is_none());
        if self.draining.entering.as_ref().map(|(which, _)| which) != next.as_ref() {
            self.draining.entering = None;
        }
    }

    /// The drains that a claim's answer names hold before anything starts under the claim.
    pub(super) fn take_drains(&mut self, orders: Vec<DrainOrder>) {
        for order in orders {
            self.actions.push(Action::BeginDrain(None, order));
        }
    }

    /// A directive to drain, or to drain no more. Its outcome comes later.
    pub(super) fn change_drain(&mut self, id: DirectiveId, answer: &HeartbeatAnswer, begins: bool) {
        if self.draining.order.is_some() {
            return; // One after the other; this one comes again.
        }
        let Some(order) = answer.drain.clone() else {
            return self.settle(id, DirectiveOutcome::Refused, "it names no drain");
        };
        self.draining.order = Some(id);
        let action = match begins {
            true => Action::BeginDrain(Some(id), order),
            false => Action::EndDrain(id, order),
        };
        self.actions.push(action);
    }

    /// The marker was changed as ordered, or why it was not.
    pub(super) fn drain_changed(&mut self, order: Option<DirectiveId>, done: Result<(), String>) {
        if let Err(why) = &done {
            self.say(LogLevel::Error, format!("the orchestrator's drain: {why}"));
        }
        let Some(id) = order else { return };
        if self.draining.order == Some(id) {
            self.draining.order = None;
        }
        match done {
            Ok(()) => self.settle(id, DirectiveOutcome::Done, ""),
            Err(why) => self.settle(id, DirectiveOutcome::Refused, &why),
        }
    }

    /// The attempt that was given out and never begun, where a drain holds it: the end of this process is no crash of it.
    pub(super) fn unbegun(&self) -> Option<StageAttempt> {
        let next = self.next_stage().filter(|next| !self.memory.has_started(&next.stage, next.attempt));
        next.filter(|_| self.in_flight.is_none())
    }
}

impl Core {
    /// Why a drain holds; empty where none does.
    pub(super) fn why_drain_holds(&self) -> String {
        let of_stage = || {
            let which = self.stages_drain()?;
            Some(format!("{}, attempt {}, drains the node for itself", which.stage, which.attempt))
        };
        self.drained().map(why_drained).or_else(of_stage).unwrap_or_default()
    }

    /// Why the agent does nothing new, as heartbeats say it; empty where no drain holds.
    pub(super) fn said_of_drain(&self) -> String {
        let why = self.why_drain_holds();
        match self.active_hook().filter(|_| !why.is_empty()) {
            Some((which, failed)) if failed.is_empty() => format!("{why}; {} is not done yet", which.key()),
            Some((which, failed)) => format!("{why}; {} {failed}", which.key()),
            None => why,
        }
    }

    /// The stage whose own drain holds: one that its profile drains the node for, from the moment at which it is next until
    /// it has ended, whatever comes of it. It is no marker: nobody else's drain is touched by it.
    pub fn stages_drain(&self) -> Option<StageAttempt> {
        let is_unbegun = |next: &StageAttempt| !self.memory.has_started(&next.stage, next.attempt);
        let next = || self.next_stage().filter(|next| is_unbegun(next) && !self.exiting);
        self.in_flight().or_else(next).filter(|which| self.drains_for(&which.stage))
    }

    /// The stage that is active in its own drain alone, and does not count there. In anybody else's it does.
    pub fn holds_own_drain(&self) -> Option<StageAttempt> {
        self.stages_drain().filter(|_| self.drained().is_none())
    }

    fn drains_for(&self, stage: &Stage) -> bool {
        let spec = self.settings.iter().find(|spec| spec.name == *stage);
        spec.is_some_and(|spec| spec.drain || spec.interrupt.as_ref().is_some_and(|one| one.drain))
    }

    /// True once a stage that drains the node has nothing to wait for: its hook is done, and none runs.
    fn is_drained_for(&mut self, stage: &Stage) -> bool {
        if !self.drains_for(stage) {
            return true;
        }
        let Some((hook, _)) = self.active_hook() else { return true };
        let reason = format!("{stage} drains the node first: waits for {}", hook.key());
        self.draining.entering = None;
        self.rest(LogLevel::Info, reason);
        false
    }
}
