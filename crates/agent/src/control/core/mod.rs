//! The state machine of the control loop.
//!
//! ```text
//!   start ──▶ hello ──▶ claiming ──▶ claimed ──▶ outbox empty? ──▶ by the run's state:
//!                          ▲  ▲                     │ no: send        a stage   look for a drain, start it, its outcome to the outbox
//!     every 30 s at most   │  │                     ▼                 held      ask for the key, wait for a directive
//!     (old claim: 5 min) ──┘  └── another life   its answer says      ended     take the key off, idle
//!                                 of the store    where to go         other     parked, with heartbeats
//! ```
//!
//! One control call is under way at a time; heartbeats go beside it. Errors of the network never end the agent.

mod answers;
mod asks;
mod beats;
mod directives;
mod drain;
mod ending;
mod hooks;
mod leaving;
mod next;
mod words;

use groundcrew_protocol::check::PlannedCheck;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId};
use groundcrew_protocol::profile::{Hooks, StageSpec};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::{DirectiveReport, LogLevel, OutboxEntry, OverrideFlags, StageAttempt};

use super::hooks::Kept;
use super::memory::Memory;
use crate::backoff::Backoff;
pub use words::{Action, Asked, Call, EndedBy, Event, Facts, Failure, Reply, StartHook, StartStage};

#[derive(Debug, Clone, PartialEq)]
struct InFlight {
    stage: Stage,
    attempt: Attempt,
    claim: ClaimNumber,
    ended_by: Option<EndedBy>,
    /// What it asks leave for, where it does, and how far that is.
    asked: Option<Asked>,
    so_far: Power,
}

/// Where the run stands, as last said.
#[derive(Debug, Clone, PartialEq)]
struct Target {
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

/// How far the end of this boot is, a power-off after the end of the run; or what a stage asks leave for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    Untouched,
    /// A directive or a stage wants it: outbox and spool go first.
    Wanted,
    Flushed,
    /// The intent was acknowledged.
    Acknowledged,
}

/// The control loop's state.
#[derive(Debug)]
pub struct Core {
    facts: Facts,
    memory: Memory,
    claim: Option<ClaimNumber>,
    target: Option<Target>,
    settings: Vec<StageSpec>,
    /// The run ended under another boot than this one, or nobody knows under which.
    ended_elsewhere: bool,
    outbox: Vec<OutboxEntry>,
    in_flight: Option<InFlight>,
    under: Under,
    /// The outcome whose result is under way.
    sending: Option<StageAttempt>,
    said_hello: bool,
    by_boot_token: bool,
    backoff: Backoff,
    next_try_ms: u64,
    holding: bool,
    /// The key is being taken out.
    key_leaves: bool,
    /// When the key of this hold is asked for again.
    hold_ask_ms: u64,
    /// What was last said of it.
    key_said: String,
    power: Power,
    /// What the home holds may be in memory alone.
    home_failed: bool,
    /// The directive that wants the power off.
    powering: Option<DirectiveId>,
    exiting: bool,
    /// No agent comes after this one by itself: what hooks owe is undone before the end.
    undoes: bool,
    leaving: Option<leaving::Leaving>,
    cancelling: Option<DirectiveId>,
    reports: Vec<DirectiveReport>,
    mismatches: u32,
    idle_reason: String,
    draining: drain::Draining,
    hooks: hooks::NodeHooks,
    /// Heartbeats fail, and that was said.
    said_silence: bool,
    random: u64,
    actions: Vec<Action>,
}

impl Core {
    /// A loop that starts from what the home holds. `seed` spreads retries.
    pub fn new(facts: Facts, memory: Memory, seed: u64) -> Core {
        Core {
            hooks: hooks::NodeHooks::none(&memory.run),
            facts,
            by_boot_token: !memory.claimed,
            memory,
            claim: None,
            target: None,
            settings: Vec::new(),
            ended_elsewhere: false,
            outbox: Vec::new(),
            in_flight: None,
            under: Under::Nothing,
            sending: None,
            said_hello: false,
            backoff: Backoff::default(),
            next_try_ms: 0,
            holding: false,
            key_leaves: false,
            hold_ask_ms: 0,
            key_said: String::new(),
            power: Power::Untouched,
            home_failed: false,
            powering: None,
            exiting: false,
            undoes: false,
            leaving: None,
            cancelling: None,
            reports: Vec::new(),
            mismatches: 0,
            idle_reason: String::new(),
            draining: drain::Draining::default(),
            said_silence: false,
            random: seed | 1,
            actions: Vec::new(),
        }
    }

    /// The same loop with the hooks of its node, and what an earlier agent of the home has left of them.
    #[must_use]
    pub fn with_hooks(mut self, hooks: Hooks, kept: Kept) -> Core {
        self.hooks = hooks::NodeHooks::new(&self.memory.run, &self.facts.boot_epoch, hooks, kept);
        self
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

    /// Takes in the certificates that an event tells of: they go to disk with the actions of the next step. True where that
    /// changed which count.
    ///
    /// Answers to heartbeats come one after the other, so that one which says less than the one before says what counts no
    /// more. Any other answer may be older than what was heard since, and only adds.
    pub fn hear_pins(&mut self, event: &Event) -> bool {
        let changed = match event {
            Event::Heartbeat { answered: Ok(answer), .. } => self.memory.note_pins(&answer.pins),
            Event::Answered(Ok(Reply::Claim(answer))) => self.memory.note_more_pins(&answer.pins),
            Event::Answered(Ok(Reply::Hello(answer))) => self.memory.note_more_pins(&answer.pins),
            Event::Announced(pins) => self.memory.note_more_pins(pins),
            Event::Heartbeat { answered: Err(_), .. }
            | Event::Answered(_)
            | Event::Start(_)
            | Event::Tick
            | Event::StageEnded
            | Event::LeaveWanted(_)
            | Event::Flushed(_)
            | Event::HomeFailed
            | Event::KeyInstalled(_)
            | Event::KeyRemoved(_)
            | Event::Reconcile(_)
            | Event::Drain(_)
            | Event::Looked { .. }
            | Event::DrainChanged { .. }
            | Event::HookEnded(_)
            | Event::Stop => false,
        };
        if changed {
            self.persist();
        }
        changed
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

    /// True once nothing about the run is left to tell: it has ended or is gone, and every outcome was acknowledged.
    pub fn is_over(&self) -> bool {
        let has_ended = self.memory.gone || self.state().is_some_and(State::is_ended);
        has_ended
            && self.in_flight.is_none()
            && self.power == Power::Untouched
            && self.outbox.iter().all(|entry| entry.acknowledged)
    }

    /// When the loop wants to be woken at the latest, in milliseconds of the driver's clock; `None`: by an event only.
    pub fn wake_ms(&self) -> Option<u64> {
        let asks_key_ms = if self.holding { self.hold_ask_ms } else { 0 };
        let wake_ms = self.next_try_ms.max(asks_key_ms);
        (self.under == Under::Nothing && !self.exiting).then_some(wake_ms)
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
            Event::LeaveWanted(asked) => self.leave_wanted(asked),
            Event::Flushed(whole) => self.flushed(whole),
            Event::HomeFailed => self.home_failed = true,
            // One that could not be put in comes again with the next answer, as it is asked for again.
            Event::KeyInstalled(_) => {}
            // They were heard before this ([`Core::hear_pins`]).
            Event::Announced(_) => {}
            Event::KeyRemoved(done) => self.key_removed(done),
            Event::Reconcile(wall) => self.reconcile(wall),
            Event::Drain(sight) => self.marker_seen(sight),
            Event::Looked { look, sight } => self.looked(look, sight),
            Event::DrainChanged { order, done } => self.drain_changed(order, done),
            Event::HookEnded(done) => self.hook_ended(done, now_ms),
            Event::Stop => self.stop(),
        }
        self.advance(now_ms);
        self.tend_hooks(now_ms);
        self.end_entry();
        std::mem::take(&mut self.actions)
    }

    fn say(&mut self, level: LogLevel, text: impl Into<String>) {
        self.actions.push(Action::Say(level, text.into()));
    }

    fn persist(&mut self) {
        self.actions.push(Action::Persist(Box::new(self.memory.clone())));
    }
}

#[cfg(test)]
mod tests;
