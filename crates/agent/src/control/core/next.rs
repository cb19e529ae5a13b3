//! What to do next: a call, a stage, an end. One control call is under way at a time.

use groundcrew_protocol::ids::{Attempt, ClaimNumber, RandomId, Sha256Hex};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{ClaimRequest, LogLevel, StageAttempt};

use super::{Action, Call, Core, InFlight, Power, StartStage, Target, Under};

impl Core {
    /// Takes the next step that is open: a call, a stage, an end. Does nothing while a call is under way.
    pub(super) fn advance(&mut self, now_ms: u64) {
        if self.exiting {
            return self.finish();
        }
        if self.under != Under::Nothing {
            return;
        }
        self.withdraw_power_off();
        if now_ms < self.next_try_ms {
            return;
        }
        if !self.said_hello {
            self.said_hello = true;
            return self.send(Under::Hello, Call::Hello);
        }
        let Some(claim) = self.claim else {
            return self.send_claim();
        };
        if let Some(entry) = self.outbox.iter().find(|entry| !entry.acknowledged).cloned() {
            self.sending = Some(StageAttempt { stage: entry.stage.clone(), attempt: entry.attempt });
            return self.send(Under::Result, Call::Result { claim, entry });
        }
        if self.in_flight.is_some() {
            return self.say_asked(claim);
        }
        let Some(target) = self.target.clone() else {
            // An outcome was refused for good, and nobody has said where the run stands since.
            return self.claim_anew("where the run stands is not known", now_ms);
        };
        self.follow(claim, target, now_ms);
    }

    /// Follows where the run stands, with no stage in flight and an empty outbox.
    pub(super) fn follow(&mut self, claim: ClaimNumber, target: Target, now_ms: u64) {
        if target.state != State::FailedHolding {
            self.leave_hold();
        }
        match &target.state {
            State::FailedHolding => self.hold(claim, now_ms),
            State::Completed | State::Cancelled => self.ended(claim),
            State::At(stage) if target.state.agent_stage().is_some() => {
                if target.attempt == Attempt(0) {
                    self.idle(format!("waits: {stage} has no attempt for this agent yet"));
                } else if self.memory.has_started(stage, target.attempt) {
                    self.claim_anew(
                        "the attempt that was given out was started before, and left no outcome",
                        now_ms,
                    );
                } else if self.may_start(stage, target.attempt) {
                    self.start(claim, stage.clone(), &target);
                }
            }
            State::At(stage) if stage.is_orchestrators() => {
                self.idle(format!("waits for the orchestrator: {stage}"))
            }
            State::At(stage) => self.idle(format!("parked: this agent knows no state {stage}")),
        }
    }

    /// Waits for somebody, and says for what; every heartbeat repeats it.
    pub(super) fn idle(&mut self, reason: String) {
        self.rest(LogLevel::Warn, reason);
    }

    /// Does nothing, and says why; every heartbeat repeats it.
    pub(super) fn rest(&mut self, level: LogLevel, reason: String) {
        if self.idle_reason != reason {
            self.say(level, reason.clone());
            self.idle_reason = reason;
        }
    }

    pub(super) fn start(&mut self, claim: ClaimNumber, stage: Stage, target: &Target) {
        self.idle_reason.clear();
        self.memory.note_started(&stage, target.attempt);
        self.persist();
        self.in_flight = Some(InFlight {
            stage: stage.clone(),
            attempt: target.attempt,
            claim,
            ended_by: None,
            asked: None,
            so_far: Power::Untouched,
        });
        let spec = self.settings.iter().find(|spec| spec.name == stage).cloned();
        let (attempt, plan, flags) = (target.attempt, target.plan.clone(), target.flags.clone());
        self.actions.push(Action::StartStage(Box::new(StartStage { stage, attempt, spec, plan, flags })));
    }

    pub(super) fn send(&mut self, under: Under, call: Call) {
        self.under = under;
        self.actions.push(Action::Send(call));
    }

    pub(super) fn send_claim(&mut self) {
        // The token's text is on disk before its hash leaves the machine.
        self.persist();
        let request = ClaimRequest {
            ip: self.facts.ip.clone(),
            boot_id: self.facts.boot_id.clone(),
            boot_epoch: self.facts.boot_epoch.clone(),
            instance: Some(self.facts.instance.clone()),
            session: Some(self.facts.session.clone()),
            known_claim: self.memory.known_claim,
            home: Some(self.facts.home.clone()),
            installed: Some(self.facts.installed),
            token_sha256: Some(self.token_sha256()),
            outbox: self.outbox.clone(),
            started: self.memory.started.clone(),
            in_flight: self
                .in_flight
                .as_ref()
                .filter(|one| one.ended_by.is_none())
                .map(|one| StageAttempt { stage: one.stage.clone(), attempt: one.attempt }),
            stopped: self.memory.stopped.clone(),
            unheard: self.memory.unheard.clone(),
            serial: self.facts.serial.clone(),
            macs: self.facts.macs.clone(),
            runtime: self.facts.runtime.clone(),
            wall: WallMs(0),
        };
        let by_boot_token = self.by_boot_token;
        self.send(Under::Claim, Call::Claim { request: Box::new(request), by_boot_token });
    }

    pub(super) fn token_sha256(&self) -> Sha256Hex {
        self.memory.token.sha256()
    }

    /// Claims again, after a pause, as a process that starts anew: the orchestrator then numbers a new attempt.
    pub(super) fn claim_anew(&mut self, why: &str, now_ms: u64) {
        self.say(LogLevel::Warn, format!("claims again: {why}"));
        self.facts.session = self.random_id();
        self.claim = None;
        self.back_off(now_ms);
    }

    pub(super) fn random_id(&mut self) -> RandomId {
        let mut bytes = [0; 16];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_random().to_le_bytes());
        }
        RandomId::from_bytes(bytes)
    }

    pub(super) fn next_random(&mut self) -> u64 {
        // xorshift64*: spreads retries, and names a session within one home; it keeps no secret.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
