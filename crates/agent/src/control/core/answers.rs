//! What was said to control calls.

use std::time::Duration;

use groundcrew_protocol::ids::Generation;
use groundcrew_protocol::limits;
use groundcrew_protocol::wire::{
    ClaimAnswer, LogLevel, OutboxEntry, OverrideFlags, ResultAnswer, StageAttempt, Taken,
};

use super::{Action, Core, Failure, Power, Reply, Target, Under};

/// A pause as the clock of the loop counts.
fn millis(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

impl Core {
    pub(super) fn answered(&mut self, answered: Result<Reply, Failure>, now_ms: u64) {
        let under = std::mem::replace(&mut self.under, Under::Nothing);
        match answered {
            Ok(Reply::Hello(_)) => {}
            Ok(Reply::Claim(answer)) => {
                self.next_try_ms = now_ms;
                self.claimed(*answer);
            }
            Ok(Reply::Result(answer)) => {
                self.backoff.reset();
                self.result_taken(*answer, now_ms);
            }
            // What was asked under a claim that is over meanwhile says nothing any more.
            Ok(Reply::Intent) if self.power == Power::Flushed => {
                self.backoff.reset();
                self.power = Power::Acknowledged;
            }
            Ok(Reply::Intent) => {
                self.backoff.reset();
                self.asked_acknowledged();
            }
            Ok(Reply::Hold(answer)) => {
                self.backoff.reset();
                self.hold_answered(answer, now_ms);
            }
            Err(failure) => self.call_failed(under, &failure, now_ms),
        }
    }

    pub(super) fn call_failed(&mut self, under: Under, failure: &Failure, now_ms: u64) {
        if under == Under::Hello {
            // A hello that fails is told and keeps nothing waiting.
            return self.say(LogLevel::Warn, format!("hello: {}", failure.text()));
        }
        match failure {
            // A claim that is over anyway: when to ask again is settled.
            Failure::OldClaim(_) | Failure::UnknownClaim(_) | Failure::Soon(_) | Failure::Slow(_)
                if self.claim.is_none() && under != Under::Claim => {}
            Failure::Soon(text) => {
                self.say(LogLevel::Warn, format!("asked again soon: {text}"));
                self.back_off(now_ms);
            }
            Failure::Slow(text) => {
                self.say(LogLevel::Error, format!("asked again in 5 minutes: {text}"));
                self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
            }
            Failure::Unauthorized(text) => self.unauthorized(under, text, None, now_ms),
            Failure::NotYet { text, after_s } => self.unauthorized(under, text, Some(*after_s), now_ms),
            Failure::Elsewhere(text) => {
                self.say(LogLevel::Warn, format!("waits: {text}"));
                self.displace();
                self.leave_hold();
                self.back_off(now_ms);
            }
            Failure::OldClaim(text) => self.stand_down(text, now_ms),
            Failure::UnknownClaim(text) => self.lost_life(text, now_ms),
            Failure::Gone(text) => self.run_gone(text, now_ms),
            Failure::Refused(text) => self.refused(under, text, now_ms),
        }
    }

    /// The token is not accepted. A home that has claimed before tries its other token at once; where neither is
    /// good, somebody else has the run: what is in flight ends. `after_s`: time alone will mend it.
    pub(super) fn unauthorized(&mut self, under: Under, text: &str, after_s: Option<u64>, now_ms: u64) {
        if under != Under::Claim {
            if self.claim.is_some() {
                self.token_lost(text, now_ms);
            }
            return;
        }
        self.next_try_ms = now_ms;
        if self.memory.claimed && !self.by_boot_token {
            self.by_boot_token = true;
            return;
        }
        let pause = match after_s {
            Some(after_s) => {
                let pause = self.backoff.asked_for(after_s);
                self.say(LogLevel::Warn, format!("asked again in {} s: {text}", pause.as_secs()));
                pause
            }
            None => {
                self.say(LogLevel::Error, format!("asked again in 5 minutes: {text}"));
                self.backoff.slow()
            }
        };
        self.by_boot_token = !self.memory.claimed;
        self.displace();
        self.leave_hold();
        self.next_try_ms = now_ms + millis(pause);
    }

    /// The run token is not accepted for anything but perhaps a claim.
    pub(super) fn token_lost(&mut self, text: &str, now_ms: u64) {
        self.say(LogLevel::Warn, format!("claims again: {text}"));
        self.claim = None;
        self.by_boot_token = !self.memory.claimed;
        self.back_off(now_ms);
    }

    pub(super) fn back_off(&mut self, now_ms: u64) {
        // The upper half is the better one of this generator.
        let random = (self.next_random() >> 32) as u32;
        self.next_try_ms = now_ms + millis(self.backoff.pause(random));
    }

    pub(super) fn refused(&mut self, under: Under, text: &str, now_ms: u64) {
        match under {
            Under::Result => {
                self.say(LogLevel::Error, format!("an outcome was refused for good: {text}"));
                if let Some(which) = self.sending.take() {
                    self.outbox.retain(|entry| entry.stage != which.stage || entry.attempt != which.attempt);
                    self.actions.push(Action::Refuse(which, text.to_owned()));
                }
                if self.in_flight.is_none() && !self.outbox.iter().any(|entry| !entry.acknowledged) {
                    self.target = None;
                }
            }
            Under::Intent => {
                if !self.asked_refused(text) {
                    self.keep_power(&format!("the power-off was refused: {text}"));
                }
            }
            Under::Hold => {
                self.say_of_key(LogLevel::Warn, &format!("no key for this hold: {text}"));
                self.hold_ask_ms = now_ms + limits::SLOW_RETRY_MS;
            }
            Under::Claim | Under::Hello | Under::Nothing => {
                self.say(LogLevel::Error, format!("asked again in 5 minutes: {text}"));
                self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
            }
        }
    }

    pub(super) fn claimed(&mut self, answer: ClaimAnswer) {
        self.memory.claimed = true;
        self.memory.gone = false;
        self.memory.stopped = None;
        if !self.exiting {
            self.memory.unheard = None;
        }
        self.by_boot_token = false;
        self.memory.known_claim = self.memory.known_claim.max(answer.claim);
        self.know_generation(answer.generation);
        self.claim = Some(answer.claim);
        self.settings = answer.stage_settings;
        let is_here = answer.ended_boot.is_some() && answer.ended_boot == self.facts.boot_id;
        self.ended_elsewhere = answer.current_state.is_ended() && !is_here;
        self.hold_ask_ms = 0;
        self.idle_reason.clear();
        // What wanted the power off comes again, if it still does.
        self.power = Power::Untouched;
        self.powering = None;
        self.persist();
        let state = &answer.current_state;
        self.say(LogLevel::Info, format!("claim {}: the run stands at {state}", answer.claim));
        self.target = Some(Target {
            state: answer.current_state,
            attempt: answer.attempt,
            plan: answer.planned_checks,
            flags: OverrideFlags::default(),
        });
        self.end_other_attempt();
        self.take_drains(answer.drains);
    }

    /// Another life of the store: outcomes that it acknowledged may be forgotten, directives are numbered anew.
    pub(super) fn know_generation(&mut self, generation: Generation) -> bool {
        if self.memory.generation == generation {
            return false;
        }
        let is_first = self.memory.generation.0 == 0;
        self.memory.generation = generation;
        if is_first {
            return false;
        }
        self.memory.directives.clear();
        self.reports.clear();
        self.cancelling = None;
        for entry in &mut self.outbox {
            entry.acknowledged = false;
        }
        // Before the new generation is on disk: a crash in between offers them twice, the other way round never.
        self.actions.push(Action::Reoffer);
        self.say(
            LogLevel::Warn,
            format!("the orchestrator was restored (generation {generation}): outcomes are offered again"),
        );
        true
    }

    pub(super) fn result_taken(&mut self, answer: ResultAnswer, now_ms: u64) {
        let Some(which) = self.sending.take() else {
            return;
        };
        let is_it = |entry: &&mut OutboxEntry| entry.stage == which.stage && entry.attempt == which.attempt;
        if let Some(entry) = self.outbox.iter_mut().find(is_it) {
            entry.acknowledged = true;
        }
        let taken = match &answer.taken {
            Taken::First => "the orchestrator has taken the result".to_owned(),
            Taken::Repeated => "the orchestrator had the result already".to_owned(),
            Taken::Late => "the result came too late to count, and is kept as evidence".to_owned(),
            Taken::Unknown(word) => format!("the orchestrator says of the result: {word}"),
        };
        self.say(
            LogLevel::Info,
            format!("stage {}: {taken}; the run stands at {}", which.stage, answer.next_state),
        );
        self.actions.push(Action::Acknowledge(which));
        if answer.generation != self.memory.generation {
            return self.meet_generation(answer.generation, now_ms);
        }
        if self.claim.is_none() {
            return; // The next claim says where the run stands.
        }
        // Allowances were given with the order of an attempt, and stay with it.
        let same = |target: &Target| target.state == answer.next_state && target.attempt == answer.attempt;
        let flags = self.target.take().filter(same).map(|target| target.flags).unwrap_or_default();
        let (state, attempt, plan) = (answer.next_state, answer.attempt, answer.planned_checks);
        self.target = Some(Target { state, attempt, plan, flags });
        self.end_other_attempt();
    }

    pub(super) fn meet_generation(&mut self, generation: Generation, now_ms: u64) {
        if self.know_generation(generation) {
            self.persist();
            self.claim = None;
            self.next_try_ms = now_ms;
        }
    }

    /// A later claim counts: the stage ends, the outbox stays, and the agent asks again later.
    pub(super) fn stand_down(&mut self, text: &str, now_ms: u64) {
        self.say(LogLevel::Error, format!("stands down, and asks again in 5 minutes: {text}"));
        self.claim = None;
        self.target = None;
        self.reports.clear();
        self.cancelling = None;
        self.power = Power::Untouched;
        self.powering = None;
        self.displace();
        self.leave_hold();
        self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
    }

    pub(super) fn lost_life(&mut self, text: &str, now_ms: u64) {
        self.say(LogLevel::Warn, format!("claims again: {text}"));
        self.claim = None;
        self.back_off(now_ms);
    }

    /// The run is gone at the orchestrator. A restore may bring it back: it is asked for every five minutes.
    pub(super) fn run_gone(&mut self, text: &str, now_ms: u64) {
        self.say(LogLevel::Error, format!("idles, and asks again in 5 minutes: {text}"));
        self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
        self.power = Power::Untouched;
        self.powering = None;
        self.target = None;
        self.displace();
        self.leave_hold();
        for entry in std::mem::take(&mut self.outbox).into_iter().filter(|entry| !entry.acknowledged) {
            let which = StageAttempt { stage: entry.stage, attempt: entry.attempt };
            self.actions.push(Action::Refuse(which, text.to_owned()));
        }
        self.claim = None;
        if !self.memory.gone {
            self.actions.push(Action::ForgetRun);
            self.memory.gone = true;
            self.persist();
        }
    }
}
