//! A decision in the making: the run as it will be, what to tell, and the moves that several inputs share.

use std::sync::Arc;

use groundcrew_protocol::check::{Judged, Limit, PlannedCheck, Verdict};
use groundcrew_protocol::ids::{Attempt, BootId, ClaimNumber, DirectiveId};
use groundcrew_protocol::limits;
use groundcrew_protocol::plan::{names, planned_of};
use groundcrew_protocol::profile::{AtEnd, Profile, StageSpec};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::{Command, StageAttempt};

use super::result::what_holds;
use super::{Answer, Change, KeptResult, NewEvent, Refused, in_service};
use crate::run::state::{
    ATTEMPTS_KEPT_MAX, AttemptRecord, DIRECTIVES_MAX, Directive, Fate, HeldFor, Now, Run, StageRecord,
    Standing, Wait, WaitFor,
};

/// Who caused what the orchestrator does by itself.
pub(super) const ORCHESTRATOR: &str = "orchestrator";
/// Who caused what an agent said.
pub(super) const AGENT: &str = "agent";
/// Who caused what the passing of time did.
pub(super) const DEADLINE: &str = "deadline";

/// A decision in the making.
pub(super) struct Step<'a> {
    /// The run as it will be.
    pub run: Run,
    /// The moment.
    pub now: Now,
    /// Verdicts of the orchestrator's own stages, resolved on the way.
    pub own: Vec<(Stage, Attempt, Judged)>,
    before: &'a Run,
    events: Vec<NewEvent>,
    result: Option<KeptResult>,
}

impl<'a> Step<'a> {
    /// Starts from a run as it is.
    ///
    /// What is known for the moment learns of a claim only once it has landed, while the next input may be decided in
    /// the same transaction: the run itself says when its claim was made, and that counts as a word of its agent's.
    pub fn new(before: &'a Run, now: Now) -> Step<'a> {
        let claimed_ms = before.claim.as_ref().map_or(0, |claim| claim.listened_ms);
        let now = Now { heard_ms: now.heard_ms.max(claimed_ms), ..now };
        Step { run: before.clone(), before, now, own: Vec::new(), events: Vec::new(), result: None }
    }

    /// Tells something about the run and the stage at which it stands.
    pub fn tell(&mut self, kind: &'static str, actor: &str, text: String) {
        let stage = Some(self.run.stage().spec.name.clone());
        self.events.push(NewEvent { kind, actor: actor.to_owned(), text, stage, state: self.run.state() });
    }

    /// Keeps a result.
    pub fn keep(&mut self, result: KeptResult) {
        self.result = Some(result);
    }

    /// The decision.
    pub fn done(mut self, answer: Answer) -> Change {
        if let Some(result) = &mut self.result {
            result.own = std::mem::take(&mut self.own);
        }
        if !matches!(self.run.standing, Standing::Held { .. }) {
            self.run.hold_key = None; // However the hold ended, its key is destroyed with it.
        }
        // The run itself is compared last: that is the dear part.
        let changed = !self.events.is_empty() || self.result.is_some() || self.run != *self.before;
        let own = self.own;
        Change { run: self.run, changed, events: self.events, answer, result: self.result, own }
    }

    /// Refuses a message that is not of the current claim, and notes that the claim has spoken.
    pub fn fence(&mut self, found: ClaimNumber) -> Result<(), Refused> {
        let run = self.run.id.clone();
        let Some(claim) = &mut self.run.claim else {
            return Err(Refused::NotClaimed { run });
        };
        // An agent of protocol 1 knows no claim numbers; it is fenced by its token alone.
        let unnumbered = found == ClaimNumber(0) && claim.protocol == 1;
        if !unnumbered && found > claim.number {
            return Err(Refused::UnknownClaim { run, found, current: claim.number });
        }
        if !unnumbered && found < claim.number {
            return Err(Refused::OldClaim { run, found, current: claim.number });
        }
        // What was given out since the backup is forgotten here. A message about it would be refused for good, and
        // its outcome lost; a claim says what there is. Protocol 1 has no words for that.
        if self.run.restored && !unnumbered {
            return Err(Refused::UnknownClaim { run, found, current: claim.number });
        }
        claim.spoke = true;
        Ok(())
    }

    /// Begins to wait.
    pub fn wait(&mut self, what: WaitFor, span_ms: u64) {
        let until = self.now.wall.plus(span_ms);
        let until_ms = self.now.listened_ms.saturating_add(span_ms);
        self.run.wait = Some(Wait { what, since: self.now.wall, until, until_ms });
    }

    /// Begins to wait for an agent.
    pub fn wait_for_claim(&mut self) {
        self.wait(WaitFor::Claim, self.run.profile.limits.claim_within);
    }

    /// Gives out a new attempt of the stage at which the run stands, or waits for somebody to give it to.
    pub fn give_attempt(&mut self) {
        self.run.standing = Standing::Walking;
        let Some(claim) = &self.run.claim else {
            self.run.plan = Vec::new();
            return self.wait_for_claim();
        };
        let (claim, protocol) = (claim.number, claim.protocol);
        if let Some(why) = in_service::lacks_leave(&self.run) {
            self.run.plan = Vec::new();
            return self.hold(why, ORCHESTRATOR);
        }
        let number = self.run.stage().next_attempt();
        self.put_in_flight(number, claim, protocol);
        let name = &self.run.stage().spec.name;
        let text = format!("{name}: attempt {number} given to claim {claim}");
        self.tell("stage_started", ORCHESTRATOR, text);
    }

    /// Waits for an attempt that was made before a restore, and whose outcome the agent has, instead of a new one.
    pub fn know_again(&mut self, number: Attempt) {
        self.close_attempt(Fate::Replaced);
        let (claim, protocol) =
            self.run.claim.as_ref().map_or((ClaimNumber(0), 1), |claim| (claim.number, claim.protocol));
        self.put_in_flight(number, claim, protocol);
        let name = &self.run.stage().spec.name;
        let text =
            format!("{name}: attempt {number} was made before the restore, and its outcome is awaited");
        self.tell("attempt_known_again", AGENT, text);
    }

    /// Puts an attempt of the stage at which the run stands in flight, with its plan frozen.
    fn put_in_flight(&mut self, number: Attempt, claim: ClaimNumber, protocol: u32) {
        self.put_attempt(number, claim, Fate::InFlight);
        let stage = &mut self.run.stages[self.run.at];
        stage.verdict = None;
        self.run.plan = frozen_plan(&self.run.profile, &stage.spec, protocol);
        self.wait_for_result();
    }

    /// Adds an attempt to the stage at which the run stands; one with an end has it now.
    fn put_attempt(&mut self, number: Attempt, claim: ClaimNumber, fate: Fate) {
        let now = (self.now.wall, self.now.listened_ms);
        self.run.stages[self.run.at].push_attempt(AttemptRecord::of(number, claim, fate, now));
    }

    /// Gives up an attempt of a later stage that was made before a restore: its outcome came before the walk did, is
    /// acknowledged, and will not come again. The walk gives out another one there.
    pub fn give_up_ahead(&mut self, index: usize, number: Attempt) {
        let claim = self.run.claim.as_ref().map_or(ClaimNumber(0), |claim| claim.number);
        let stage = &mut self.run.stages[index];
        stage.push_attempt(AttemptRecord::of(
            number,
            claim,
            Fate::Replaced,
            (self.now.wall, self.now.listened_ms),
        ));
        let name = stage.spec.name.clone();
        self.run.offered.retain(|known| known.stage != name || known.attempt != number);
    }

    /// Begins to wait for the result of the attempt in flight.
    fn wait_for_result(&mut self) {
        self.wait(WaitFor::Result, over_deadline_ms(&self.run));
        self.wait_for_successor();
    }

    /// The attempt in flight was kept from starting until now: it has the whole of its time.
    pub fn begin_attempt_anew(&mut self) {
        let now = self.now;
        if let Some(attempt) = self.run.stages[self.run.at].attempts.last_mut() {
            (attempt.began, attempt.began_ms) = (now.wall, now.listened_ms);
        }
        self.wait_for_result();
    }

    /// Waits on for the result of an attempt that stands: what is left of its time, and after another wait at least
    /// the limit of silence, in which an agent that is back can bring it.
    pub fn wait_for_result_again(&mut self) {
        let awaits = |what: WaitFor| self.run.wait.as_ref().is_some_and(|wait| wait.what == what);
        // An agent that only claims anew may go down yet, and has the time for it that it had.
        if awaits(WaitFor::Result) || (awaits(WaitFor::Reboot) && self.run.intent.is_some()) {
            return;
        }
        let began_ms = self.run.attempt().map_or(self.now.listened_ms, |attempt| attempt.began_ms);
        let over_ms = began_ms.saturating_add(over_deadline_ms(&self.run));
        let left_ms = over_ms.saturating_sub(self.now.listened_ms);
        self.wait(WaitFor::Result, left_ms.max(self.run.profile.limits.silence));
    }

    /// The number of the attempt in flight.
    pub fn open_attempt(&self) -> Option<Attempt> {
        self.run.attempt().filter(|attempt| attempt.fate.is_open()).map(|attempt| attempt.number)
    }

    /// True for a run that walks, or will when its agent speaks again.
    pub fn is_on_its_way(&self) -> bool {
        match &self.run.standing {
            Standing::Walking | Standing::Held { why: HeldFor::Silence { .. }, .. } => true,
            Standing::Held { .. } | Standing::Completed { .. } | Standing::Cancelled { .. } => false,
        }
    }

    /// Gives up the attempt in flight, where there is one, and orders the agent to end it.
    pub fn withdraw_attempt(&mut self) {
        let name = self.run.stage().spec.name.clone();
        if let Some(number) = self.open_attempt() {
            self.close_attempt(Fate::Replaced);
            self.settle(&name, number);
            if self.run.claim.is_some() {
                self.direct_cancel();
            }
        }
    }

    /// Takes back the orders to make or to end an attempt: it is over.
    pub fn settle(&mut self, stage: &Stage, attempt: Attempt) {
        self.run.directives.retain(|directive| match directive.command {
            Command::CancelStage | Command::RetryStage | Command::Continue => {
                directive.stage.as_ref() != Some(stage) || directive.attempt != attempt
            }
            Command::Abort
            | Command::Shutdown
            | Command::Release
            | Command::Drain
            | Command::Undrain
            | Command::Unknown(_) => true,
        });
        self.end_farewell();
    }

    /// Ends the wait of an ended run once nothing of it is left to confirm.
    pub fn end_farewell(&mut self) {
        let awaits = self.run.wait.as_ref().is_some_and(|wait| wait.what == WaitFor::Farewell);
        if awaits && self.run.directives.is_empty() {
            self.run.wait = None;
        }
    }

    /// Closes the attempt in flight, where there is one. True where there was.
    pub fn close_attempt(&mut self, fate: Fate) -> bool {
        let wall = self.now.wall;
        match self.run.stages[self.run.at].attempts.last_mut() {
            Some(attempt) if attempt.fate.is_open() => {
                attempt.fate = fate;
                attempt.ended = Some(wall);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Goes on to the next stage that an agent does, resolving the orchestrator's own on the way.
    pub fn go_on(&mut self) {
        self.run.standing = Standing::Walking;
        self.run.intent = None;
        // Bounded by the number of stages: each turn takes the next one or ends.
        while self.run.at + 1 < self.run.stages.len() {
            self.run.at += 1;
            match self.run.stage().spec.name {
                Stage::SpecValidate => {
                    if !self.resolve_spec() {
                        return;
                    }
                }
                Stage::Reporting => self.resolve_reporting(),
                Stage::Inventory
                | Stage::Smart
                | Stage::CpuStress
                | Stage::Memory
                | Stage::Storage
                | Stage::Network
                | Stage::Gpu
                | Stage::Soak
                | Stage::Psu
                | Stage::Package { .. }
                | Stage::Interrupt { .. }
                | Stage::Unknown(_) => return self.arrive(),
            }
        }
        self.end_completed();
    }

    /// Begins the stage at which the walk arrived, unless the agent has an outcome of it from before a restore.
    fn arrive(&mut self) {
        let stage = self.run.stage();
        let last = stage.attempts.last().map_or(Attempt(0), |attempt| attempt.number);
        let is_offered = |known: &StageAttempt| known.stage == stage.spec.name && known.attempt > last;
        match self.run.offered.iter().position(is_offered) {
            Some(index) => {
                let known = self.run.offered.remove(index);
                self.know_again(known.attempt);
            }
            None => self.give_attempt(),
        }
    }

    /// Resolves SpecValidate; false where it holds the run.
    fn resolve_spec(&mut self) -> bool {
        let judged = self.run.spec.take().unwrap_or_else(|| {
            groundcrew_protocol::spec_diff::spec_validate(&self.run.profile.expected, None)
        });
        let verdict = judged.verdict;
        let what = what_holds(&judged);
        self.resolve_own(judged);
        if !verdict.goes_on() {
            self.hold(HeldFor::Verdict { verdict, what }, ORCHESTRATOR);
        }
        verdict.goes_on()
    }

    /// Reporting has nothing that could fail here: the report is made from the store whenever somebody asks.
    fn resolve_reporting(&mut self) {
        self.resolve_own(Judged { verdict: Verdict::Pass, checks: Vec::new() });
    }

    fn resolve_own(&mut self, judged: Judged) {
        let claim = self.run.claim.as_ref().map_or(ClaimNumber(0), |claim| claim.number);
        let attempt = self.run.stage().next_attempt();
        self.put_attempt(attempt, claim, Fate::Done(judged.verdict));
        let stage = &mut self.run.stages[self.run.at];
        stage.verdict = Some(judged.verdict);
        let name = stage.spec.name.clone();
        self.tell("result", ORCHESTRATOR, format!("{name}: {}", judged.verdict));
        self.own.push((name, attempt, judged));
    }

    /// Holds the run for an operator.
    pub fn hold(&mut self, why: HeldFor, actor: &str) {
        let text = format!("held: {}", why.describe(&self.run.stage().spec.name));
        // What the agent is about to do may happen yet while nobody hears it.
        if !why.may_pass_yet() {
            self.run.intent = None;
        }
        self.run.standing = Standing::Held { why, since: self.now.wall };
        // Also where it follows another in one decision: each hold has a key of its own.
        self.run.hold_key = None;
        self.wait(WaitFor::Operator, self.run.profile.limits.hold);
        self.tell("held", actor, text);
    }

    /// Orders something of the agent. An order that cannot be kept is told and not given.
    pub fn direct(&mut self, command: Command, stage: Option<Stage>, attempt: Attempt) {
        if self.run.directives.len() >= DIRECTIVES_MAX {
            return self.tell(
                "directive_dropped",
                ORCHESTRATOR,
                format!("{command}: {DIRECTIVES_MAX} are under way"),
            );
        }
        self.run.directives_made += 1;
        let id = DirectiveId(self.run.directives_made);
        self.run.directives.push(Directive { id, command, stage, attempt, said: None, drain: None });
    }

    /// Orders the agent to end the attempt that was in flight.
    fn direct_cancel(&mut self) {
        let stage = self.run.stage().spec.name.clone();
        let attempt = self.run.attempt().map_or(Attempt(0), |attempt| attempt.number);
        self.direct(Command::CancelStage, Some(stage), attempt);
    }

    fn end_completed(&mut self) {
        self.run.standing = Standing::Completed { at: self.now.wall, boot: self.boot() };
        self.end();
        self.tell("completed", ORCHESTRATOR, "every stage was passed, skipped or overridden".to_owned());
        // An override ended it: the agent waits in its hold, with the operator's key.
        let was_held = match &self.before.standing {
            Standing::Held { why: HeldFor::Silence { .. }, .. } => false,
            Standing::Held { .. } => true,
            Standing::Walking | Standing::Completed { .. } | Standing::Cancelled { .. } => false,
        };
        if was_held && self.run.claim.is_some() {
            self.direct(Command::Release, None, Attempt(0));
        }
        self.farewell();
    }

    /// Ends the run without completing it.
    pub fn end_cancelled(&mut self, reason: String, actor: &str, aborts: bool) {
        let was_in_flight = self.close_attempt(Fate::Cancelled);
        let was_held = matches!(self.run.standing, Standing::Held { .. });
        self.run.standing =
            Standing::Cancelled { at: self.now.wall, boot: self.boot(), reason: reason.clone() };
        self.end();
        self.tell("cancelled", actor, reason);
        if self.run.claim.is_some() {
            if aborts {
                self.direct(Command::Abort, None, Attempt(0));
            } else if was_in_flight {
                self.direct_cancel();
            } else if was_held {
                self.direct(Command::Release, None, Attempt(0));
            }
        }
        self.farewell();
    }

    /// Lets go of what only a run on its way has.
    fn end(&mut self) {
        self.run.plan = Vec::new();
        self.run.offered = Vec::new();
        self.run.intent = None;
        self.run.directives.retain(outlives_the_run);
    }

    /// What follows the end: the profile's power-off, and the wait for the agent to confirm what it was told.
    fn farewell(&mut self) {
        if self.run.claim.is_some() && self.run.profile.at_end == AtEnd::Shutdown {
            self.direct(Command::Shutdown, None, Attempt(0));
        }
        if self.run.directives.is_empty() {
            self.run.wait = None;
        } else {
            self.wait(WaitFor::Farewell, self.run.profile.limits.silence);
        }
    }

    fn boot(&self) -> Option<BootId> {
        self.run.claim.as_ref().and_then(|claim| claim.boot.clone())
    }

    /// State, attempt and plan as an answer gives them: attempt 0 where the agent is to make none.
    pub fn standing_for_agent(&self) -> (State, Attempt, Vec<PlannedCheck>) {
        let state = self.run.state();
        match (state.agent_stage(), self.run.attempt()) {
            (Some(_), Some(attempt)) if attempt.fate.is_open() => {
                (state, attempt.number, self.run.plan.clone())
            }
            _ => (state, Attempt(0), Vec::new()),
        }
    }
}

/// The time that a stage may take before the run is held.
pub(super) fn over_deadline_ms(run: &Run) -> u64 {
    run.stage().spec.deadline.saturating_add(run.profile.limits.silence)
}

/// Orders that outlive the end of a run: those about the machine, and to end what may be running still.
fn outlives_the_run(directive: &Directive) -> bool {
    match directive.command {
        Command::Drain | Command::Undrain | Command::Unknown(_) | Command::CancelStage => true,
        Command::Abort | Command::Shutdown | Command::RetryStage | Command::Continue | Command::Release => {
            false
        }
    }
}

/// An agent of protocol 1 reports no checks: its word is then the one check, and the report shows that.
fn frozen_plan(profile: &Profile, spec: &StageSpec, protocol: u32) -> Vec<PlannedCheck> {
    if protocol >= limits::PROTOCOL_WITH_CHECKS {
        return planned_of(profile, &profile.settled(spec));
    }
    let limit = Limit::equal_to("passed");
    vec![PlannedCheck { name: names::AGENT_WORD.to_owned(), component: None, limit, required: false }]
}

/// The first characters of a text.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

impl StageRecord {
    /// A stage that was not started yet.
    pub fn new(spec: Arc<StageSpec>) -> StageRecord {
        StageRecord {
            spec,
            attempts_made: Attempt(0),
            attempts: Vec::new(),
            verdict: None,
            overridden: None,
            crashes: 0,
            stops: 0,
            resets: Vec::new(),
        }
    }

    /// The number of the attempt that comes next.
    fn next_attempt(&self) -> Attempt {
        Attempt(self.attempts_made.0.saturating_add(1))
    }

    /// Adds an attempt; later ones get higher numbers.
    fn push_attempt(&mut self, attempt: AttemptRecord) {
        self.attempts_made = self.attempts_made.max(attempt.number);
        self.attempts.push(attempt);
        if self.attempts.len() > ATTEMPTS_KEPT_MAX {
            self.attempts.remove(0);
        }
    }
}
