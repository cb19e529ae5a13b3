//! Obeys directives: each is repeated by the orchestrator until its outcome was reported, and done once.

use groundcrew_protocol::ids::{Attempt, DirectiveId};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::{
    Command, DirectiveOutcome, DirectiveReport, HeartbeatAnswer, LogLevel, OutboxEntry, StageAttempt,
};

use super::{Action, Core, EndedBy, Power, Target};

impl Core {
    /// Obeys the directive of a heartbeat's answer, where it has one.
    pub(super) fn obey(&mut self, answer: &HeartbeatAnswer, now_ms: u64) {
        let (Some(command), Some(id)) = (&answer.cmd, answer.directive) else {
            return;
        };
        if let Some(known) = self.memory.outcome_of(id).cloned() {
            return self.report_again(known);
        }
        if self.cancelling == Some(id) || self.powering == Some(id) {
            return self.doing(id); // Its outcome follows with the end of the stage, or of the machine.
        }
        match command {
            Command::CancelStage => self.cancel_stage(id, answer),
            Command::RetryStage | Command::Continue => self.make_attempt(id, command, answer, now_ms),
            Command::Release => {
                self.leave_hold();
                self.settle(id, DirectiveOutcome::Done, "");
            }
            Command::Shutdown => self.shut_down(id, answer),
            Command::Abort => {
                self.say(LogLevel::Warn, "the orchestrator says abort: everything ends");
                self.leave_hold();
                self.settle(id, DirectiveOutcome::Done, "");
                self.abort();
            }
            Command::Drain => self.change_drain(id, answer, true),
            Command::Undrain => self.change_drain(id, answer, false),
            Command::Unknown(_) => {
                self.say(
                    LogLevel::Warn,
                    format!("refuses the directive {command}: this agent does not know it"),
                );
                self.settle(id, DirectiveOutcome::Refused, "this agent does not know it");
            }
        }
    }

    /// Remembers and reports an outcome.
    pub(super) fn settle(&mut self, id: DirectiveId, outcome: DirectiveOutcome, reason: &str) {
        self.report(id, outcome, reason);
        self.persist();
    }

    fn cancel_stage(&mut self, id: DirectiveId, answer: &HeartbeatAnswer) {
        if self.cancel(answer.stage.as_ref(), answer.attempt) {
            self.say(LogLevel::Warn, "the stage is cancelled by an operator");
            self.cancelling = Some(id);
            self.doing(id);
        } else {
            self.settle(id, DirectiveOutcome::TooLate, "that attempt is not in flight");
        }
    }

    /// Reports that a directive is being done; nothing is remembered until it is.
    fn doing(&mut self, id: DirectiveId) {
        self.report_again(DirectiveReport { id, outcome: DirectiveOutcome::Doing, reason: String::new() });
    }

    fn make_attempt(&mut self, id: DirectiveId, command: &Command, answer: &HeartbeatAnswer, now_ms: u64) {
        let Some(stage) = &answer.stage else {
            return self.settle(id, DirectiveOutcome::Refused, "it names no stage");
        };
        let state = State::At(stage.clone());
        if state.agent_stage().is_none() {
            return self.settle(id, DirectiveOutcome::Refused, "this agent knows no such stage");
        }
        if self.makes(stage, answer.attempt) {
            // An earlier answer gave it out. Whatever is ordered behind this must not wait for the stage's end.
            return self.settle(id, DirectiveOutcome::Done, "");
        }
        if self.memory.has_started(stage, answer.attempt) {
            return self.settle(id, DirectiveOutcome::TooLate, "that attempt was started before");
        }
        if self.is_busy() {
            return; // What is in flight ends first; the directive comes again.
        }
        self.say(LogLevel::Info, format!("{command}: {stage}, attempt {}", answer.attempt));
        self.leave_hold();
        // The outcome and the start of the attempt become durable in this order within one step; a crash
        // between them leaves an attempt that was never started, and the next claim numbers another.
        self.settle(id, DirectiveOutcome::Done, "");
        // A key that could not be asked for must not hold the attempt up.
        self.next_try_ms = self.next_try_ms.min(now_ms);
        let flags = answer.override_flags.clone().unwrap_or_default();
        self.aim(Target { state, attempt: answer.attempt, plan: answer.planned_checks.clone(), flags });
    }

    fn shut_down(&mut self, id: DirectiveId, answer: &HeartbeatAnswer) {
        if !self.facts.power_allowed {
            return self.settle(
                id,
                DirectiveOutcome::Refused,
                "this agent's settings do not allow power-off",
            );
        }
        if !answer.state.as_ref().is_some_and(State::is_ended) {
            return self.settle(id, DirectiveOutcome::Refused, "the run has not ended");
        }
        if !self.ended_on_this_boot() {
            return self.settle(
                id,
                DirectiveOutcome::Refused,
                "the run ended under another boot: somebody switched this machine on",
            );
        }
        if self.is_busy() || self.drained().is_some() || self.hook_keeps_power(answer.state.as_ref()) {
            // What is in flight, and what a drain is held for, ends first. It is said, as the end of the drain may be ordered
            // next, and orders that nobody spoke of go out one after the other.
            return self.doing(id);
        }
        self.say(LogLevel::Warn, "the run has ended: the machine is switched off");
        self.powering = Some(id);
        self.doing(id);
        self.power = Power::Wanted;
        self.look_for_power();
        self.actions.push(Action::Flush);
    }

    fn abort(&mut self) {
        self.exiting = true;
        self.undoes = true;
        self.begin_to_leave();
        self.displace();
    }

    pub(super) fn report(&mut self, id: DirectiveId, outcome: DirectiveOutcome, reason: &str) {
        let report = self.memory.note_outcome(id, outcome, reason);
        self.report_again(report);
    }

    pub(super) fn report_again(&mut self, report: DirectiveReport) {
        self.reports.retain(|known| known.id != report.id);
        self.reports.push(report);
    }

    /// Sets where the run stands, by a directive.
    pub(super) fn aim(&mut self, target: Target) {
        self.idle_reason.clear();
        self.target = Some(target);
    }

    /// Ends the stage in flight for an operator, where it is that attempt.
    pub(super) fn cancel(&mut self, stage: Option<&Stage>, attempt: Attempt) -> bool {
        match &mut self.in_flight {
            Some(one) if Some(&one.stage) == stage && one.attempt == attempt => {
                if one.ended_by.is_none() {
                    one.ended_by = Some(EndedBy::Operator);
                    self.actions.push(Action::EndStage(EndedBy::Operator));
                }
                true
            }
            Some(_) | None => false,
        }
    }

    /// True where that attempt is in flight, or its outcome is on its way to the orchestrator.
    fn makes(&self, stage: &Stage, attempt: Attempt) -> bool {
        let is_sent =
            |entry: &OutboxEntry| entry.stage == *stage && entry.attempt == attempt && !entry.acknowledged;
        let is_it = |which: StageAttempt| which.stage == *stage && which.attempt == attempt;
        self.in_flight().is_some_and(is_it) || self.outbox.iter().any(is_sent)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// True on the boot under which the run ended, or where it ended before this agent's eyes.
    fn ended_on_this_boot(&self) -> bool {
        !self.ended_elsewhere
    }
}
