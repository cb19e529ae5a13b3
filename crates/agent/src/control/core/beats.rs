//! Heartbeats: what they say, and what their answers mean.

use groundcrew_protocol::agent_info::{InfoActivity, InfoPhase, heard};
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{Heartbeat, HeartbeatAnswer, LogLevel, Phase};

use super::{Core, Failure, Under};
use crate::control::sight::orchestrators;

/// Heartbeats in a row that may say that the run stands elsewhere before the agent claims again.
const MISMATCHES_MAX: u32 = 3;

impl Core {
    /// The heartbeat to send now; `None` while there is no claim.
    pub fn heartbeat(&self, activity: &str, home_failed: bool, wall: WallMs) -> Option<Heartbeat> {
        let claim = self.claim?;
        let in_flight = self.in_flight.as_ref();
        Some(Heartbeat {
            claim,
            stage: in_flight.map(|one| one.stage.clone()),
            attempt: in_flight.map_or(Attempt(0), |one| one.attempt),
            phase: self.phase(),
            activity: if self.idle_reason.is_empty() {
                activity.to_owned()
            } else {
                self.idle_reason.clone()
            },
            drain: self.said_of_drain(),
            drains: self.drained().map(orchestrators).unwrap_or_default(),
            drain_max_age_ms: Some(self.facts.drain_max_age_ms),
            directives: self.reports.clone(),
            home_failed,
            pins_known: self.memory.pins.clone(),
            shutdown: self.shutdown(),
            wall,
        })
    }

    /// Where it stands in the words of `agent-info.json`, and why it waits where it does.
    pub fn in_words_of_the_file(&self) -> (InfoPhase, Option<InfoActivity>, &str) {
        let (phase, activity) = heard(&self.phase(), self.in_flight.as_ref().map(|one| &one.stage));
        // Without a claim there is nothing to start, and somebody said why.
        let is_kept = self.claim.is_none() && !self.idle_reason.is_empty() && !self.exiting;
        (phase, if is_kept { Some(InfoActivity::Blocked) } else { activity }, &self.idle_reason)
    }

    /// What the agent does as a whole.
    pub fn phase(&self) -> Phase {
        if self.exiting {
            return Phase::Stopping;
        }
        if self.drain_holds() {
            return Phase::Draining;
        }
        match self.state() {
            None => Phase::Starting,
            Some(State::FailedHolding) => Phase::Holding,
            Some(State::Completed | State::Cancelled) => Phase::Ended,
            Some(state @ State::At(_)) => {
                if state.agent_stage().is_some() {
                    Phase::Running
                } else {
                    Phase::Idle
                }
            }
        }
    }

    pub(super) fn heartbeat_answered(&mut self, answer: &HeartbeatAnswer, now_ms: u64) {
        // What that heartbeat reported has arrived, unless it was still on its way; then it is asked for again.
        self.reports.clear();
        self.backoff.reset();
        if std::mem::take(&mut self.said_silence) {
            self.say(LogLevel::Info, "heartbeats are answered again");
        }
        if answer.generation.0 != 0 && answer.generation != self.memory.generation {
            return self.meet_generation(answer.generation, now_ms);
        }
        self.obey(answer, now_ms);
        self.compare_state(answer, now_ms);
    }

    /// Where the orchestrator says for several heartbeats that the run stands elsewhere than this agent believes,
    /// and orders nothing, something was lost: claiming again says where to go on, and ends what is in the way.
    fn compare_state(&mut self, answer: &HeartbeatAnswer, now_ms: u64) {
        let (Some(said), Some(target)) = (&answer.state, &mut self.target) else {
            return;
        };
        if self.under != Under::Nothing || *said == target.state {
            self.mismatches = 0;
        } else if said.is_ended() && self.in_flight.is_none() {
            self.mismatches = 0;
            target.state = said.clone();
            target.attempt = Attempt(0);
        } else if answer.cmd.is_some() {
            self.mismatches = 0;
        } else {
            self.mismatches += 1;
            if self.mismatches >= MISMATCHES_MAX {
                self.mismatches = 0;
                self.claim_anew("the orchestrator says that the run stands elsewhere", now_ms);
            }
        }
    }

    pub(super) fn heartbeat_failed(&mut self, failure: &Failure, now_ms: u64) {
        match failure {
            Failure::OldClaim(text) => self.stand_down(text, now_ms),
            Failure::UnknownClaim(text) => self.lost_life(text, now_ms),
            Failure::Gone(text) => self.run_gone(text, now_ms),
            Failure::Unauthorized(text) | Failure::NotYet { text, .. } => self.token_lost(text, now_ms),
            Failure::Slow(text) => {
                if !std::mem::replace(&mut self.said_silence, true) {
                    self.say(LogLevel::Error, format!("heartbeat, asked again in 5 minutes: {text}"));
                }
            }
            // Said once for an outage, not every ten seconds.
            Failure::Soon(text) | Failure::Elsewhere(text) | Failure::Refused(text) => {
                if !std::mem::replace(&mut self.said_silence, true) {
                    self.say(LogLevel::Warn, format!("heartbeat: {text}"));
                }
            }
        }
    }
}
