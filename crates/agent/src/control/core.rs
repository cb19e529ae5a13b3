//! The state machine of the control loop.
//!
//! ```text
//!   start ──▶ hello ──▶ claiming ──▶ claimed ──▶ outbox empty? ──▶ by the run's state:
//!                          ▲  ▲                     │ no: send        a stage   start it, its outcome to the outbox
//!     every 30 s at most   │  │                     ▼                 held      ask for the key, wait for a directive
//!     (old claim: 5 min) ──┘  └── another life   its answer says      ended     take the key off, idle
//!                                 of the store    where to go         other     parked, with heartbeats
//! ```
//!
//! One control call is under way at a time; heartbeats go beside it. Errors of the network never end the agent.

use groundcrew_protocol::check::PlannedCheck;
use groundcrew_protocol::ids::{
    Attempt, BootId, ClaimNumber, DirectiveId, Generation, MacAddress, RandomId, Sha256Hex,
};
use groundcrew_protocol::limits;
use groundcrew_protocol::profile::StageSpec;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    ClaimAnswer, ClaimRequest, DirectiveOutcome, DirectiveReport, Heartbeat, HeartbeatAnswer, HelloAnswer,
    HoldAnswer, HomeKind, Intent, IntentKind, LogLevel, OutboxEntry, OverrideFlags, Phase, ResultAnswer,
    StageAttempt,
};

use super::memory::Memory;

/// What the machine and its settings say, fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The home's random id.
    pub instance: RandomId,
    /// This process's random id.
    pub session: RandomId,
    /// Boot id; absent where it cannot be read.
    pub boot_id: Option<BootId>,
    /// Boot epoch.
    pub boot_epoch: String,
    /// What kind of home it is.
    pub home: HomeKind,
    /// Address, for people.
    pub ip: String,
    /// Serial of the machine.
    pub serial: Option<String>,
    /// Addresses of its interfaces.
    pub macs: Vec<MacAddress>,
    /// Whether settings allow that the machine is switched off.
    pub power_allowed: bool,
    /// Whether settings name a place for the key of a hold.
    pub keys_allowed: bool,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The process starts; these outcomes are in its home.
    Start(Vec<OutboxEntry>),
    /// Time passed.
    Tick,
    /// The control call under way was answered, or failed.
    Answered(Result<Reply, Failure>),
    /// A heartbeat was answered, or failed.
    Heartbeat {
        /// The claim that it was sent under.
        claim: ClaimNumber,
        /// What came.
        answered: Result<Box<HeartbeatAnswer>, Failure>,
    },
    /// The stage in flight ended, and the driver holds its outcome.
    StageEnded,
    /// Outbox and spool were acknowledged, or the time for that is over; the power may go.
    Flushed,
    /// Somebody asks this process to end.
    Stop,
}

/// The answer to a control call.
#[derive(Debug)]
pub enum Reply {
    /// To a hello.
    Hello(HelloAnswer),
    /// To a claim.
    Claim(Box<ClaimAnswer>),
    /// To a result.
    Result(Box<ResultAnswer>),
    /// To an intent.
    Intent,
    /// To a hold.
    Hold(HoldAnswer),
}

/// Why a call failed, as far as the agent acts differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or one that says to come again (5xx, 429): asked again soon.
    Soon(String),
    /// The token is not accepted (401): another home has the claim, or the store was restored to a time before it.
    Unauthorized(String),
    /// What only an operator can mend (403, 404, a wrong pin): asked again every five minutes.
    Slow(String),
    /// Another agent has the claim and is alive (409 `claimed_elsewhere`): asked again soon, with nothing in flight.
    Elsewhere(String),
    /// A later claim counts: stand down.
    OldClaim(String),
    /// The store knows no such claim: claim again.
    UnknownClaim(String),
    /// The message itself is refused for good (400, 413, 422).
    Refused(String),
    /// The run is gone (410).
    Gone(String),
}

impl Failure {
    /// What was said.
    pub fn text(&self) -> &str {
        match self {
            Failure::Soon(text)
            | Failure::Unauthorized(text)
            | Failure::Slow(text)
            | Failure::Elsewhere(text)
            | Failure::OldClaim(text)
            | Failure::UnknownClaim(text)
            | Failure::Refused(text)
            | Failure::Gone(text) => text,
        }
    }
}

/// A control call to make. The driver fills in what only it has (the outcome's body, wall time).
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Say hello.
    Hello,
    /// Claim the run.
    Claim {
        /// What to say.
        request: Box<ClaimRequest>,
        /// True: with the boot token; false: with the run token.
        by_boot_token: bool,
    },
    /// Send an outcome of the outbox.
    Result {
        /// The sender's claim.
        claim: ClaimNumber,
        /// Which outcome.
        entry: OutboxEntry,
    },
    /// Say what cannot be taken back.
    Intent(Intent),
    /// Ask for the key of a hold.
    Hold {
        /// The sender's claim.
        claim: ClaimNumber,
    },
}

/// What to do. A driver takes the actions of one step in order, and none after one that failed to become durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write the memory whole, and go on once it is durable.
    Persist(Box<Memory>),
    /// Make a control call.
    Send(Call),
    /// Start a stage.
    StartStage(Box<StartStage>),
    /// End the stage in flight: its process group, with the reason.
    EndStage(EndedBy),
    /// Put the outcome of the stage that ended into the outbox, durably.
    KeepOutcome(OutboxEntry),
    /// Let the outcome of the stage that ended go.
    DropOutcome(StageAttempt),
    /// An outcome was acknowledged: keep it aside until the run ends.
    Acknowledge(StageAttempt),
    /// Everything that was acknowledged and kept goes back into the outbox, durably: it is to be sent again.
    Reoffer,
    /// An outcome was refused for good: put it aside with the reason.
    Refuse(StageAttempt, String),
    /// Put the hold's key into authorized_keys.
    InstallKey {
        /// The line.
        line: String,
        /// When it must be gone, on the orchestrator's clock.
        expires_at: WallMs,
    },
    /// Take the hold's key out again.
    RemoveKey(String),
    /// Have outbox and spool acknowledged, or wait for as long as that may take, then say [`Event::Flushed`].
    Flush,
    /// Switch the machine off.
    PowerOff,
    /// End this process.
    Exit,
    /// Tell: into the log and to the orchestrator.
    Say(LogLevel, String),
}

/// A stage to start.
#[derive(Debug, Clone, PartialEq)]
pub struct StartStage {
    /// The stage.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// Its settings and deadline; absent where the claim named none.
    pub spec: Option<StageSpec>,
    /// The frozen plan.
    pub plan: Vec<PlannedCheck>,
    /// Allowances of this attempt.
    pub flags: OverrideFlags,
}

/// Why a stage is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// An operator cancelled it; its outcome says so.
    Operator,
    /// A later claim, or another attempt, took its place; its outcome is dropped.
    Displaced,
    /// This process ends.
    Stop,
}

#[derive(Debug, Clone, PartialEq)]
struct InFlight {
    stage: Stage,
    attempt: Attempt,
    claim: ClaimNumber,
    ended_by: Option<EndedBy>,
}

/// Where the run stands, as last said.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub state: State,
    pub attempt: Attempt,
    pub plan: Vec<PlannedCheck>,
    pub flags: OverrideFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Under {
    Nothing,
    Hello,
    Claim,
    Result,
    Intent,
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Untouched,
    /// A directive wants it off: outbox and spool go first.
    Wanted,
    Flushed,
    /// The intent was acknowledged.
    Acknowledged,
}

/// Heartbeats in a row that may say that the run stands elsewhere before the agent claims again.
const MISMATCHES_MAX: u32 = 3;

/// The control loop's state.
#[derive(Debug)]
pub struct Core {
    pub(super) facts: Facts,
    pub(super) memory: Memory,
    pub(super) claim: Option<ClaimNumber>,
    pub(super) target: Option<Target>,
    settings: Vec<StageSpec>,
    ended_boot: Option<BootId>,
    outbox: Vec<OutboxEntry>,
    in_flight: Option<InFlight>,
    under: Under,
    said_hello: bool,
    by_boot_token: bool,
    tries: u32,
    next_try_ms: u64,
    holding: bool,
    hold_asked: bool,
    pub(super) power: Power,
    pub(super) exiting: bool,
    pub(super) cancelling: Option<DirectiveId>,
    reports: Vec<DirectiveReport>,
    mismatches: u32,
    idle_reason: String,
    random: u64,
    pub(super) actions: Vec<Action>,
}

impl Core {
    /// A loop that starts from what the home holds. `seed` spreads retries.
    pub fn new(facts: Facts, memory: Memory, seed: u64) -> Core {
        Core {
            facts,
            by_boot_token: !memory.claimed,
            memory,
            claim: None,
            target: None,
            settings: Vec::new(),
            ended_boot: None,
            outbox: Vec::new(),
            in_flight: None,
            under: Under::Nothing,
            said_hello: false,
            tries: 0,
            next_try_ms: 0,
            holding: false,
            hold_asked: false,
            power: Power::Untouched,
            exiting: false,
            cancelling: None,
            reports: Vec::new(),
            mismatches: 0,
            idle_reason: String::new(),
            random: seed | 1,
            actions: Vec::new(),
        }
    }

    /// What the loop keeps in the home.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What the machine and its settings say.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The machine's address, for people.
    pub fn ip(&self) -> &str {
        &self.facts.ip
    }

    /// Notes certificates that were announced; they go to disk with the next thing that does.
    pub fn know_pins(&mut self, pins: Vec<Sha256Hex>) {
        self.memory.pins = pins;
        self.persist();
    }

    /// The current claim.
    pub fn claim(&self) -> Option<ClaimNumber> {
        self.claim
    }

    /// The attempt in flight.
    pub fn in_flight(&self) -> Option<StageAttempt> {
        self.in_flight.as_ref().map(|one| StageAttempt { stage: one.stage.clone(), attempt: one.attempt })
    }

    /// Where the run stands, as last said.
    pub fn state(&self) -> Option<&State> {
        self.target.as_ref().map(|target| &target.state)
    }

    /// When the loop wants to be woken at the latest, in milliseconds of the driver's clock; `None`: by an event only.
    pub fn wake_ms(&self) -> Option<u64> {
        (self.under == Under::Nothing && !self.exiting).then_some(self.next_try_ms)
    }

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
            drain: String::new(),
            directives: self.reports.clone(),
            home_failed,
            pins_known: self.memory.pins.clone(),
            wall,
        })
    }

    fn phase(&self) -> Phase {
        if self.exiting {
            return Phase::Stopping;
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

    /// Takes in an event; says what to do, in order.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        match event {
            Event::Start(outbox) => self.outbox = outbox,
            Event::Tick => {}
            Event::Answered(answered) => self.answered(answered, now_ms),
            // What was said of a claim that this agent no longer has says nothing of the one that it has.
            Event::Heartbeat { claim, .. } if self.claim != Some(claim) => {}
            Event::Heartbeat { answered: Ok(answer), .. } => self.heartbeat_answered(&answer, now_ms),
            Event::Heartbeat { answered: Err(failure), .. } => self.heartbeat_failed(&failure, now_ms),
            Event::StageEnded => self.stage_ended(),
            Event::Flushed => {
                if self.power == Power::Wanted {
                    self.power = Power::Flushed;
                }
            }
            Event::Stop => self.stop(),
        }
        self.advance(now_ms);
        std::mem::take(&mut self.actions)
    }

    pub(super) fn say(&mut self, level: LogLevel, text: impl Into<String>) {
        self.actions.push(Action::Say(level, text.into()));
    }

    pub(super) fn persist(&mut self) {
        self.actions.push(Action::Persist(Box::new(self.memory.clone())));
    }

    // ---- what to do next ------------------------------------------------------------------------------------

    /// Takes the next step that is open: a call, a stage, an end. Does nothing while a call is under way.
    fn advance(&mut self, now_ms: u64) {
        if self.exiting {
            return self.finish();
        }
        if self.under != Under::Nothing || now_ms < self.next_try_ms || self.memory.gone {
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
            return self.send(Under::Result, Call::Result { claim, entry });
        }
        if self.in_flight.is_some() {
            return;
        }
        let Some(target) = self.target.clone() else {
            // An outcome was refused for good, and nobody has said where the run stands since.
            return self.claim_anew("where the run stands is not known");
        };
        self.follow(claim, target);
    }

    /// Follows where the run stands, with no stage in flight and an empty outbox.
    fn follow(&mut self, claim: ClaimNumber, target: Target) {
        if target.state != State::FailedHolding {
            self.leave_hold();
        }
        match &target.state {
            State::FailedHolding => self.hold(claim),
            State::Completed | State::Cancelled => self.ended(claim),
            State::At(stage) if target.state.agent_stage().is_some() => {
                if target.attempt == Attempt(0) {
                    self.idle(format!("waits: {stage} has no attempt for this agent yet"));
                } else if self.memory.has_started(stage, target.attempt) {
                    self.claim_anew("the attempt that was given out was started before, and left no outcome");
                } else {
                    self.start(claim, stage.clone(), &target);
                }
            }
            State::At(stage) if stage.is_orchestrators() => {
                self.idle(format!("waits for the orchestrator: {stage}"))
            }
            State::At(stage) => self.idle(format!("parked: this agent knows no state {stage}")),
        }
    }

    fn idle(&mut self, reason: String) {
        if self.idle_reason != reason {
            self.say(LogLevel::Warn, reason.clone());
            self.idle_reason = reason;
        }
    }

    fn start(&mut self, claim: ClaimNumber, stage: Stage, target: &Target) {
        self.idle_reason.clear();
        self.memory.note_started(&stage, target.attempt);
        self.persist();
        self.in_flight =
            Some(InFlight { stage: stage.clone(), attempt: target.attempt, claim, ended_by: None });
        let spec = self.settings.iter().find(|spec| spec.name == stage).cloned();
        let (attempt, plan, flags) = (target.attempt, target.plan.clone(), target.flags.clone());
        self.actions.push(Action::StartStage(Box::new(StartStage { stage, attempt, spec, plan, flags })));
    }

    fn send(&mut self, under: Under, call: Call) {
        self.under = under;
        self.actions.push(Action::Send(call));
    }

    fn send_claim(&mut self) {
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
            token_sha256: Some(self.token_sha256()),
            outbox: self.outbox.clone(),
            started: self.memory.started.clone(),
            in_flight: self
                .in_flight
                .as_ref()
                .filter(|one| one.ended_by.is_none())
                .map(|one| StageAttempt { stage: one.stage.clone(), attempt: one.attempt }),
            serial: self.facts.serial.clone(),
            macs: self.facts.macs.clone(),
            wall: WallMs(0),
        };
        let by_boot_token = self.by_boot_token;
        self.send(Under::Claim, Call::Claim { request: Box::new(request), by_boot_token });
    }

    fn token_sha256(&self) -> Sha256Hex {
        self.memory.token.sha256()
    }

    /// Claims again as a process that starts anew: the orchestrator then numbers a new attempt.
    fn claim_anew(&mut self, why: &str) {
        self.say(LogLevel::Warn, format!("claims again: {why}"));
        self.facts.session = self.random_id();
        self.claim = None;
        self.send_claim();
    }

    fn random_id(&mut self) -> RandomId {
        let mut bytes = [0; 16];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_random().to_le_bytes());
        }
        RandomId::from_bytes(bytes)
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64*: spreads retries, and names a session within one home; it keeps no secret.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    // ---- what was said ---------------------------------------------------------------------------------------

    fn answered(&mut self, answered: Result<Reply, Failure>, now_ms: u64) {
        let under = std::mem::replace(&mut self.under, Under::Nothing);
        match answered {
            Ok(reply) => {
                self.tries = 0;
                self.next_try_ms = now_ms;
                match reply {
                    Reply::Hello(_) => {}
                    Reply::Claim(answer) => self.claimed(*answer),
                    Reply::Result(answer) => self.result_taken(*answer, now_ms),
                    Reply::Intent => self.power = Power::Acknowledged,
                    Reply::Hold(answer) => self.hold_answered(answer),
                }
            }
            Err(failure) => self.call_failed(under, &failure, now_ms),
        }
    }

    fn call_failed(&mut self, under: Under, failure: &Failure, now_ms: u64) {
        if under == Under::Hello {
            // A hello that fails is told and keeps nothing waiting.
            return self.say(LogLevel::Warn, format!("hello: {}", failure.text()));
        }
        match failure {
            Failure::Soon(text) => {
                self.say(LogLevel::Warn, format!("asked again soon: {text}"));
                self.back_off(now_ms);
            }
            Failure::Slow(text) => {
                self.say(LogLevel::Error, format!("asked again in 5 minutes: {text}"));
                self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
            }
            Failure::Unauthorized(text) => self.unauthorized(under, text, now_ms),
            Failure::Elsewhere(text) => {
                self.say(LogLevel::Warn, format!("waits: {text}"));
                self.displace();
                self.back_off(now_ms);
            }
            // A claim that is being replaced anyway.
            Failure::OldClaim(_) | Failure::UnknownClaim(_) if self.claim.is_none() => {
                self.next_try_ms = now_ms
            }
            Failure::OldClaim(text) => self.stand_down(text, now_ms),
            Failure::UnknownClaim(text) => self.lost_life(text, now_ms),
            Failure::Gone(text) => self.run_gone(text),
            Failure::Refused(text) => self.refused(under, text, now_ms),
        }
    }

    /// The token is not accepted. A home that has claimed before tries its other token at once; where neither is
    /// good, somebody else has the run: what is in flight ends.
    fn unauthorized(&mut self, under: Under, text: &str, now_ms: u64) {
        self.next_try_ms = now_ms;
        if under != Under::Claim {
            self.say(LogLevel::Warn, format!("claims again: {text}"));
            self.claim = None;
            self.by_boot_token = !self.memory.claimed;
            return;
        }
        if self.memory.claimed && !self.by_boot_token {
            self.by_boot_token = true;
            return;
        }
        self.say(LogLevel::Error, format!("asked again in 5 minutes: {text}"));
        self.by_boot_token = !self.memory.claimed;
        self.displace();
        self.leave_hold();
        self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
    }

    fn back_off(&mut self, now_ms: u64) {
        let doubled = limits::BACKOFF_FIRST_MS.saturating_mul(1 << self.tries.min(10));
        let pause = doubled.min(limits::BACKOFF_MAX_MS);
        self.tries = self.tries.saturating_add(1);
        // From three quarters of the pause to all of it, so that a fleet does not come back as one.
        let spread = self.next_random() % (pause / 4 + 1);
        self.next_try_ms = now_ms + pause - spread;
    }

    fn refused(&mut self, under: Under, text: &str, now_ms: u64) {
        match under {
            Under::Result => {
                self.say(LogLevel::Error, format!("an outcome was refused for good: {text}"));
                if let Some(index) = self.outbox.iter().position(|entry| !entry.acknowledged) {
                    let entry = self.outbox.remove(index);
                    let which = StageAttempt { stage: entry.stage, attempt: entry.attempt };
                    self.actions.push(Action::Refuse(which, text.to_owned()));
                }
                if self.in_flight.is_none() && !self.outbox.iter().any(|entry| !entry.acknowledged) {
                    self.target = None;
                }
            }
            Under::Intent => {
                self.say(LogLevel::Error, format!("the power-off was refused: {text}"));
                self.power = Power::Untouched;
            }
            Under::Hold => {
                self.say(LogLevel::Warn, format!("no key for this hold: {text}"));
            }
            Under::Claim | Under::Hello | Under::Nothing => {
                self.say(LogLevel::Error, format!("asked again in 5 minutes: {text}"));
                self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
            }
        }
    }

    fn claimed(&mut self, answer: ClaimAnswer) {
        self.memory.claimed = true;
        self.by_boot_token = false;
        self.memory.known_claim = self.memory.known_claim.max(answer.claim);
        self.know_generation(answer.generation);
        self.claim = Some(answer.claim);
        self.settings = answer.stage_settings;
        self.ended_boot = answer.ended_boot;
        self.hold_asked = false;
        self.idle_reason.clear();
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
    }

    /// A stage that is in flight and is not what the run stands at makes way.
    fn end_other_attempt(&mut self) {
        let (Some(one), Some(target)) = (&mut self.in_flight, &self.target) else {
            return;
        };
        let stands = target.state.agent_stage() == Some(&one.stage) && target.attempt == one.attempt;
        if !stands && one.ended_by.is_none() {
            one.ended_by = Some(EndedBy::Displaced);
            self.actions.push(Action::EndStage(EndedBy::Displaced));
        }
    }

    /// Another life of the store: outcomes that it acknowledged may be forgotten, directives are numbered anew.
    fn know_generation(&mut self, generation: Generation) -> bool {
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

    fn result_taken(&mut self, answer: ResultAnswer, now_ms: u64) {
        let Some(entry) = self.outbox.iter_mut().find(|entry| !entry.acknowledged) else {
            return;
        };
        entry.acknowledged = true;
        let which = StageAttempt { stage: entry.stage.clone(), attempt: entry.attempt };
        self.say(
            LogLevel::Info,
            format!(
                "stage {}: {} result; the run stands at {}",
                which.stage, answer.taken, answer.next_state
            ),
        );
        self.actions.push(Action::Acknowledge(which));
        if answer.generation != self.memory.generation {
            return self.meet_generation(answer.generation, now_ms);
        }
        self.target = Some(Target {
            state: answer.next_state,
            attempt: answer.attempt,
            plan: answer.planned_checks,
            flags: OverrideFlags::default(),
        });
        self.end_other_attempt();
    }

    fn meet_generation(&mut self, generation: Generation, now_ms: u64) {
        if self.know_generation(generation) {
            self.persist();
            self.claim = None;
            self.next_try_ms = now_ms;
        }
    }

    /// A later claim counts: the stage ends, the outbox stays, and the agent asks again later.
    fn stand_down(&mut self, text: &str, now_ms: u64) {
        self.say(LogLevel::Error, format!("stands down, and asks again in 5 minutes: {text}"));
        self.claim = None;
        self.target = None;
        self.reports.clear();
        self.cancelling = None;
        self.displace();
        self.leave_hold();
        self.next_try_ms = now_ms + limits::SLOW_RETRY_MS;
    }

    fn lost_life(&mut self, text: &str, now_ms: u64) {
        self.say(LogLevel::Warn, format!("claims again: {text}"));
        self.claim = None;
        self.next_try_ms = now_ms;
    }

    fn run_gone(&mut self, text: &str) {
        self.say(LogLevel::Error, format!("idles: {text}"));
        self.displace();
        self.leave_hold();
        for entry in std::mem::take(&mut self.outbox).into_iter().filter(|entry| !entry.acknowledged) {
            let which = StageAttempt { stage: entry.stage, attempt: entry.attempt };
            self.actions.push(Action::Refuse(which, text.to_owned()));
        }
        self.claim = None;
        self.memory.gone = true;
        self.persist();
    }

    fn displace(&mut self) {
        if let Some(one) = &mut self.in_flight {
            if one.ended_by.is_none() {
                self.actions.push(Action::EndStage(EndedBy::Displaced));
            }
            one.ended_by = Some(EndedBy::Displaced);
        }
    }

    fn stage_ended(&mut self) {
        let Some(one) = self.in_flight.take() else {
            return;
        };
        let which = StageAttempt { stage: one.stage.clone(), attempt: one.attempt };
        match one.ended_by {
            Some(EndedBy::Displaced | EndedBy::Stop) => self.actions.push(Action::DropOutcome(which)),
            Some(EndedBy::Operator) | None => {
                // Over the limit the oldest that was acknowledged goes; the driver's outbox does the same.
                if self.outbox.len() >= limits::OUTBOX_MAX {
                    if let Some(index) = self.outbox.iter().position(|entry| entry.acknowledged) {
                        self.outbox.remove(index);
                    }
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

    // ---- heartbeats ------------------------------------------------------------------------------------------

    fn heartbeat_answered(&mut self, answer: &HeartbeatAnswer, now_ms: u64) {
        // What that heartbeat reported has arrived, unless it was still on its way; then it is asked for again.
        self.reports.clear();
        if answer.generation.0 != 0 && answer.generation != self.memory.generation {
            return self.meet_generation(answer.generation, now_ms);
        }
        self.obey(answer);
        self.compare_state(answer);
    }

    /// Where the orchestrator says for several heartbeats that the run stands elsewhere than this idle agent
    /// believes, and orders nothing, something was lost: claiming again says where to go on.
    fn compare_state(&mut self, answer: &HeartbeatAnswer) {
        let (Some(said), Some(target)) = (&answer.state, &mut self.target) else {
            return;
        };
        let settled = self.in_flight.is_none() && self.under == Under::Nothing;
        if !settled || answer.cmd.is_some() || *said == target.state {
            self.mismatches = 0;
        } else if said.is_ended() {
            target.state = said.clone();
            target.attempt = Attempt(0);
        } else {
            self.mismatches += 1;
            if self.mismatches >= MISMATCHES_MAX {
                self.mismatches = 0;
                self.claim_anew("the orchestrator says that the run stands elsewhere");
            }
        }
    }

    fn heartbeat_failed(&mut self, failure: &Failure, now_ms: u64) {
        match failure {
            Failure::OldClaim(text) => self.stand_down(text, now_ms),
            Failure::UnknownClaim(text) => self.lost_life(text, now_ms),
            Failure::Gone(text) => self.run_gone(text),
            Failure::Unauthorized(text) => {
                self.say(LogLevel::Warn, format!("claims again: {text}"));
                self.claim = None;
                self.by_boot_token = !self.memory.claimed;
                self.next_try_ms = now_ms;
            }
            Failure::Soon(text) | Failure::Slow(text) | Failure::Elsewhere(text) | Failure::Refused(text) => {
                self.say(LogLevel::Warn, format!("heartbeat: {text}"));
            }
        }
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

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// True on the boot under which the run ended, or where it ended before this agent's eyes.
    pub(super) fn ended_on_this_boot(&self) -> bool {
        self.ended_boot.is_none() || self.ended_boot == self.facts.boot_id
    }

    // ---- hold, end, stop -------------------------------------------------------------------------------------

    fn hold(&mut self, claim: ClaimNumber) {
        self.holding = true;
        if self.hold_asked {
            return;
        }
        self.hold_asked = true;
        self.say(LogLevel::Warn, "held: waits for an operator");
        self.send(Under::Hold, Call::Hold { claim });
    }

    fn hold_answered(&mut self, answer: HoldAnswer) {
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

    fn ended(&mut self, claim: ClaimNumber) {
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

    fn stop(&mut self) {
        self.exiting = true;
        if let Some(one) = &mut self.in_flight {
            if one.ended_by.is_none() {
                one.ended_by = Some(EndedBy::Stop);
                self.actions.push(Action::EndStage(EndedBy::Stop));
            }
        }
    }

    /// Everything ends: the stage, and then this process. What was kept stays in the outbox.
    pub(super) fn displace_for_abort(&mut self) {
        self.displace();
    }

    /// The last action once a stop was asked for and no stage is left.
    fn finish(&mut self) {
        if self.in_flight.is_none() {
            self.actions.push(Action::Exit);
        }
    }
}
