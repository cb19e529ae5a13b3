//! How things end: a stage, a hold, the run, this process.

use groundcrew_protocol::hold::HoldAnswer;
use groundcrew_protocol::ids::{Attempt, ClaimNumber};
use groundcrew_protocol::limits;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    DirectiveOutcome, HomeKind, Intent, IntentKind, LogLevel, OutboxEntry, StageAttempt,
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

    // ---- a hold and its key ----------------------------------------------------------------------------------

    pub(super) fn hold(&mut self, claim: ClaimNumber, now_ms: u64) {
        self.holding = true;
        self.idle("held: waits for an operator (retry, override, cancel or release)".to_owned());
        if self.hold_ask_ms <= now_ms {
            self.send(Under::Hold, Call::Hold { claim });
        }
    }

    /// The key is asked for again every few minutes: an operator often gives one only once a run holds, and one that
    /// was taken back, or that has another in its place, must not stay.
    pub(super) fn hold_answered(&mut self, answer: HoldAnswer, now_ms: u64) {
        if !self.holding || self.claim.is_none() {
            return; // The hold is over meanwhile.
        }
        self.hold_ask_ms = now_ms + limits::SLOW_RETRY_MS;
        let expires_at = answer.expires_at;
        let lines = answer.into_lines();
        if lines.is_empty() {
            if self.memory.hold_key.is_some() && !self.key_leaves {
                self.say(LogLevel::Info, "the keys for this hold were taken back");
            }
            self.take_key_out();
            return self.say_of_key(LogLevel::Info, "the orchestrator has no key for this hold");
        }
        let line = lines.join("\n");
        if line.len() > limits::HOLD_KEYS_BYTES_MAX {
            return self
                .say_of_key(LogLevel::Error, "the keys for this hold are too many, and none is taken");
        }
        if !self.facts.keys_allowed {
            return self.say_of_key(
                LogLevel::Warn,
                "a key for this hold was offered; this agent's settings name no place for it",
            );
        }
        self.key_said.clear();
        self.key_leaves = false;
        // First on disk, so that whoever comes after a crash knows what to take out. Putting it in is repeated by
        // every agent that comes into this hold, and changes nothing where it is in already.
        let known = (self.memory.hold_key.as_ref(), self.memory.hold_key_expires);
        if known != (Some(&line), expires_at) {
            self.memory.hold_key = Some(line.clone());
            self.memory.hold_key_expires = expires_at;
            self.persist();
        }
        self.actions.push(Action::InstallKey { line, expires_at });
    }

    /// Says something of the hold's key, once and not at every asking.
    pub(super) fn say_of_key(&mut self, level: LogLevel, text: &str) {
        if self.key_said != text {
            text.clone_into(&mut self.key_said);
            self.say(level, text);
        }
    }

    pub(super) fn leave_hold(&mut self) {
        self.holding = false;
        self.hold_ask_ms = 0;
        self.key_said.clear();
        self.take_key_out();
    }

    /// Has the key taken out. It is remembered until that was done, and [`Core::reconcile`] keeps trying.
    fn take_key_out(&mut self) {
        if let (Some(line), false) = (&self.memory.hold_key, self.key_leaves) {
            self.key_leaves = true;
            self.actions.push(Action::RemoveKey(line.clone()));
        }
    }

    /// One that could not be taken out is left to [`Core::reconcile`], which comes back later.
    pub(super) fn key_removed(&mut self, done: bool) {
        if done {
            self.key_leaves = false;
            if self.memory.hold_key.take().is_some() {
                self.persist();
            }
        }
    }

    /// What should be gone is tried again: the key of a hold that is over, or whose time is, or that was taken back.
    pub(super) fn reconcile(&mut self, wall: WallMs) {
        let expired = self.memory.hold_key.is_some() && self.memory.hold_key_expires.0 <= wall.0;
        if expired && self.holding {
            self.say(LogLevel::Warn, "the key of this hold has expired, and is taken out");
        }
        // Whether the run still holds is known from a claim on.
        let over = !self.holding && (self.claim.is_some() || self.memory.gone);
        if expired || over || self.key_leaves {
            self.key_leaves = false;
            self.take_key_out();
        }
    }

    // ---- the end of the run ----------------------------------------------------------------------------------

    pub(super) fn ended(&mut self, claim: ClaimNumber) {
        match self.power {
            Power::Untouched => {
                let state = self.state().map(ToString::to_string).unwrap_or_default();
                let then = if self.drained().is_some() { ", which waits for the drain to end" } else { "" };
                self.rest(
                    LogLevel::Info,
                    format!(
                        "the run has ended ({state}); this agent idles until it is stopped or told to shut down{then}"
                    ),
                );
            }
            Power::Wanted => {}
            Power::Flushed if self.looks_for_power() => {}
            Power::Flushed => {
                let Some(boot_id) = self.facts.boot_id.clone() else {
                    return self.keep_power("the boot id cannot be read");
                };
                let kind = IntentKind::PowerOff;
                let intent =
                    Intent { claim, stage: None, attempt: Attempt(0), kind, boot_id, disks: Vec::new() };
                self.send(Under::Intent, Call::Intent(intent));
            }
            Power::Acknowledged => {
                self.power = Power::Untouched;
                if let Some(id) = self.powering.take() {
                    self.settle(id, DirectiveOutcome::Done, "");
                }
                self.actions.push(Action::PowerOff);
            }
        }
    }

    /// Outbox and spool are acknowledged, or not within their time. What a volatile home still has would be lost
    /// with the power.
    pub(super) fn flushed(&mut self, whole: bool) {
        if self.flushed_for_reboot(whole) || self.power != Power::Wanted {
            return;
        }
        if whole || self.outlives_power() {
            self.power = Power::Flushed;
        } else {
            self.keep_power(self.would_be_lost());
        }
    }

    /// Whether what the home holds is there after the machine's power was gone. One that has failed may have it in memory
    /// alone, whatever it lies on.
    pub(super) fn outlives_power(&self) -> bool {
        self.facts.home == HomeKind::Durable && !self.home_failed
    }

    /// Why the machine stays up, where that is so.
    pub(super) fn would_be_lost(&self) -> &'static str {
        match self.home_failed {
            true => "what this home with its failed disk holds has not arrived at the orchestrator in time",
            false => "what this volatile home holds has not arrived at the orchestrator in time",
        }
    }

    /// The power stays on, for that reason.
    pub(super) fn keep_power(&mut self, why: &str) {
        self.say(LogLevel::Error, format!("the power stays on: {why}"));
        self.power = Power::Untouched;
        if let Some(id) = self.powering.take() {
            self.settle(id, DirectiveOutcome::Refused, why);
        }
    }

    // ---- the end of this process -----------------------------------------------------------------------------

    /// Ends the stage, then this process. Asked twice, it does not wait for the stage.
    pub(super) fn stop(&mut self) {
        if self.exiting {
            self.leave_unread();
            return self.actions.push(Action::Exit);
        }
        let unbegun = self.unbegun();
        self.exiting = true;
        self.begin_to_leave();
        if unbegun.is_some() {
            self.memory.stopped = unbegun;
            self.persist();
        }
        if let Some(one) = self.in_flight.as_mut().filter(|one| one.ended_by.is_none()) {
            one.ended_by = Some(EndedBy::Stop);
            // Before the stage ends: whoever asked may lose patience, and an order is no crash for that.
            self.memory.stopped = Some(StageAttempt { stage: one.stage.clone(), attempt: one.attempt });
            self.persist();
            self.actions.push(Action::EndStage(EndedBy::Stop));
        }
    }

    /// The last action once a stop was asked for, no stage or hook is left, and the marker was read for it. Only an abort
    /// waits for what hooks owe.
    pub(super) fn finish(&mut self) {
        if self.in_flight.is_none() && !self.runs_hook() && !self.reads_to_leave() && !self.undo_keeps_up() {
            self.say_what_is_owed();
            self.actions.push(Action::Exit);
        }
    }
}
