//! How things end: a stage, a hold, the run, this process.

use groundcrew_protocol::ids::{Attempt, ClaimNumber};
use groundcrew_protocol::limits;
use groundcrew_protocol::wire::{
    DirectiveOutcome, HoldAnswer, Intent, IntentKind, LogLevel, OutboxEntry, StageAttempt,
};

use super::{Action, Call, Core, EndedBy, Power, Under};

impl Core {
    /// A stage that is in flight and is not what the run stands at makes way.
    pub(super) fn end_other_attempt(&mut self) {
        let (Some(one), Some(target)) = (&mut self.in_flight, &self.target) else {
            return;
        };
        let stands = target.state.agent_stage() == Some(&one.stage) && target.attempt == one.attempt;
        if !stands && one.ended_by.is_none() {
            one.ended_by = Some(EndedBy::Displaced);
            self.actions.push(Action::EndStage(EndedBy::Displaced));
        }
    }

    pub(super) fn displace(&mut self) {
        if let Some(one) = &mut self.in_flight {
            if one.ended_by.is_none() {
                self.actions.push(Action::EndStage(EndedBy::Displaced));
            }
            one.ended_by = Some(EndedBy::Displaced);
        }
    }

    pub(super) fn stage_ended(&mut self) {
        let Some(one) = self.in_flight.take() else {
            return;
        };
        let which = StageAttempt { stage: one.stage.clone(), attempt: one.attempt };
        match one.ended_by {
            Some(EndedBy::Displaced | EndedBy::Stop) => self.actions.push(Action::DropOutcome(which)),
            Some(EndedBy::Operator) | None => {
                // Over the limit the oldest that was acknowledged goes; the driver's outbox does the same.
                if self.outbox.len() >= limits::OUTBOX_MAX
                    && let Some(index) = self.outbox.iter().position(|entry| entry.acknowledged)
                {
                    self.outbox.remove(index);
                }
                let (stage, attempt) = (one.stage, one.attempt);
                let entry = OutboxEntry { stage, attempt, made_under: one.claim, acknowledged: false };
                self.outbox.push(entry.clone());
                self.actions.push(Action::KeepOutcome(entry));
            }
        }
        if let Some(id) = self.cancelling.take() {
            self.report(id, DirectiveOutcome::Done, "");
            self.persist();
        }
    }

    pub(super) fn hold(&mut self, claim: ClaimNumber) {
        self.holding = true;
        if self.hold_asked {
            return;
        }
        self.hold_asked = true;
        self.say(LogLevel::Warn, "held: waits for an operator");
        self.send(Under::Hold, Call::Hold { claim });
    }

    pub(super) fn hold_answered(&mut self, answer: HoldAnswer) {
        let Some(line) = answer.authorized_key else {
            return self.say(LogLevel::Info, "no operator has given a key for holds");
        };
        if !self.facts.keys_allowed {
            return self.say(
                LogLevel::Warn,
                "a key for this hold was offered; this agent's settings name no place for it",
            );
        }
        if self.memory.hold_key.as_ref() == Some(&line) {
            return; // It is there: the key goes in once.
        }
        // First on disk, so that whoever comes after a crash knows what to take out.
        self.memory.hold_key = Some(line.clone());
        self.persist();
        self.actions.push(Action::InstallKey { line, expires_at: answer.expires_at });
    }

    pub(super) fn leave_hold(&mut self) {
        self.holding = false;
        self.hold_asked = false;
        if let Some(line) = self.memory.hold_key.take() {
            self.actions.push(Action::RemoveKey(line));
            self.persist();
        }
    }

    pub(super) fn ended(&mut self, claim: ClaimNumber) {
        match self.power {
            Power::Untouched | Power::Wanted => {}
            Power::Flushed => {
                let Some(boot_id) = self.facts.boot_id.clone() else {
                    self.power = Power::Untouched;
                    return self.say(LogLevel::Error, "the power stays on: the boot id cannot be read");
                };
                let kind = IntentKind::PowerOff;
                let intent =
                    Intent { claim, stage: None, attempt: Attempt(0), kind, boot_id, disks: Vec::new() };
                self.send(Under::Intent, Call::Intent(intent));
            }
            Power::Acknowledged => {
                self.power = Power::Untouched;
                self.actions.push(Action::PowerOff);
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.exiting = true;
        if let Some(one) = self.in_flight.as_mut().filter(|one| one.ended_by.is_none()) {
            one.ended_by = Some(EndedBy::Stop);
            self.actions.push(Action::EndStage(EndedBy::Stop));
        }
    }

    /// Everything ends: the stage, and then this process. What was kept stays in the outbox.
    pub(super) fn displace_for_abort(&mut self) {
        self.displace();
    }

    /// The last action once a stop was asked for and no stage is left.
    pub(super) fn finish(&mut self) {
        if self.in_flight.is_none() {
            self.actions.push(Action::Exit);
        }
    }
}
