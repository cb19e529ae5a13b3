//! A run on a bench: lands what `decide` says, moves the clock, and plays agents in a word or two.

use groundcrew_orchestrator::run::decide::{
    Answer, Change, Input, NewEvent, NewRun, OrderKind, Refused, create, decide,
};
use groundcrew_orchestrator::run::runtime::RuntimeEnded;
use groundcrew_orchestrator::run::state::{Fate, HeldFor, Now, Run, Standing, WaitFor};
use groundcrew_protocol::agent_info::{Ending, Exit};
use groundcrew_protocol::check::{Check, Observation, PlannedCheck, Verdict};
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::{Attempt, BootId, ClaimNumber, DirectiveId, RandomId, Sha256Hex};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    ClaimAnswer, ClaimRequest, Command, DirectiveOutcome, DirectiveReport, Intent, OutboxEntry, ResultAnswer,
    ResultRequest, StageAttempt, Taken,
};
use serde_json::json;

pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
/// Limits of the profile on the bench.
pub const SILENCE: u64 = 15 * MINUTE;
pub const DEADLINE: u64 = 2 * MINUTE;
pub const HOLD: u64 = 7 * 24 * HOUR;
pub const REBOOT: u64 = 30 * MINUTE;
pub const CLAIM_WITHIN: u64 = 24 * HOUR;

pub fn inventory() -> Stage {
    Stage::Inventory
}
pub fn stress() -> Stage {
    Stage::CpuStress
}
pub fn reboot() -> Stage {
    Stage::Interrupt { name: "reboot".into() }
}

/// Drains that are wanted beside those that hold.
pub fn drains(wanted: &[&str], held: &[&str]) -> Input {
    let order = |id: &&str| DrainOrder {
        id: id.parse().unwrap(),
        suppress_notification: false,
        reason: "why".into(),
    };
    let wanted = wanted.iter().map(order).collect();
    let held = held.iter().map(|id| id.parse().unwrap()).collect();
    Input::Drains { wanted, held, max_age_ms: None }
}

/// A profile with these stages and Reporting.
pub fn profile(stages: &[&str], at_end: &str) -> Profile {
    let mut text = format!("name = \"bench\"\nat_end = \"{at_end}\"\n");
    for stage in stages.iter().chain(&["Reporting"]) {
        text.push_str(&format!("[[stage]]\nname = \"{stage}\"\n"));
    }
    toml::from_str(&text).unwrap()
}

pub fn boot_token() -> Sha256Hex {
    Sha256Hex::of(b"boot token")
}
pub fn boot(n: u64) -> BootId {
    format!("00000000-0000-0000-0000-{n:012x}").parse().unwrap()
}
pub fn id(n: u64) -> RandomId {
    format!("{n:032x}").parse().unwrap()
}

/// What agent `n` says in its first claim: a machine, a home and a boot of its own.
pub fn agent(n: u64) -> ClaimRequest {
    let mut request: ClaimRequest = serde_json::from_value(json!({})).unwrap();
    request.ip = format!("10.0.0.{n}");
    request.boot_id = Some(boot(n));
    request.instance = Some(id(n));
    request.session = Some(id(1_000 + n));
    request.token_sha256 = Some(Sha256Hex::of(format!("run token {n}").as_bytes()));
    request.serial = Some(format!("serial-{n}"));
    request.macs = vec![format!("02:00:00:00:00:{n:02x}").parse().unwrap()];
    request.runtime = Some(AgentRuntime::pod(&format!("pod-{n}")));
    request
}

/// The same home after its process was started again, knowing claim `known`.
pub fn restarted(mut request: ClaimRequest, known: u64) -> ClaimRequest {
    let session = request.session.take().map_or(0, |id| u64::from_str_radix(id.as_str(), 16).unwrap());
    request.session = Some(id(session + 1_000));
    request.known_claim = ClaimNumber(known);
    request
}

/// The same machine after its power went, with nothing of its home left.
pub fn reborn(mut request: ClaimRequest, boot_number: u64) -> ClaimRequest {
    request.boot_id = Some(boot(boot_number));
    request.instance = Some(id(50_000 + boot_number));
    request.session = Some(id(60_000 + boot_number));
    request.token_sha256 = Some(Sha256Hex::of(format!("run token of boot {boot_number}").as_bytes()));
    request.known_claim = ClaimNumber(0);
    request
}

pub fn entry(stage: Stage, attempt: u32, made_under: u64) -> OutboxEntry {
    OutboxEntry { stage, attempt: Attempt(attempt), made_under: ClaimNumber(made_under), acknowledged: false }
}
pub fn of(stage: Stage, attempt: u32) -> StageAttempt {
    StageAttempt { stage, attempt: Attempt(attempt) }
}

/// The end of a pod, killed for its memory after all that this bench does.
pub fn end_of(runtime: AgentRuntime, end: &str) -> Input {
    end_at(runtime, end, WallMs(i64::MAX))
}

/// The same at this time.
pub fn end_at(runtime: AgentRuntime, end: &str, at: WallMs) -> Input {
    Input::RuntimeEnded(Box::new(RuntimeEnded {
        runtime,
        end: end.into(),
        ending: Ending::Error,
        reason: "OOMKilled".into(),
        exit: Some(Exit::Code(137)),
        at,
    }))
}

/// Checks that fulfil a plan.
pub fn passing(plan: &[PlannedCheck]) -> Vec<Check> {
    plan.iter()
        .map(|planned| {
            let limit = planned.limit.clone();
            let observed = match &limit.equals {
                Some(text) => Observation::Found { text: text.clone() },
                None if limit.describe().is_empty() => Observation::Found { text: "there".into() },
                None => Observation::measured(limit.fail_below.unwrap_or(0.0), "units"),
            };
            Check::of(&planned.name, planned.component.as_deref(), observed, limit)
        })
        .collect()
}

/// How an outcome comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    /// A planned check is missing.
    Gap,
    /// No check at all.
    Nothing,
}

pub struct Bench {
    pub run: Run,
    pub now: Now,
    /// Of the last change.
    pub events: Vec<NewEvent>,
}

impl Bench {
    pub fn new(profile: Profile) -> Bench {
        let now = Now { wall: WallMs(1_700_000_000_000), listened_ms: HOUR, heard_ms: HOUR };
        let new = NewRun {
            id: "r-1".parse().unwrap(),
            node: "node-1".parse().unwrap(),
            node_is: Default::default(),
            profile,
            boot_token: boot_token(),
            by: "olga".into(),
            notify: Vec::new(),
        };
        let change = create(new, now);
        assert!(change.changed);
        Bench { run: change.run, now, events: change.events }
    }

    /// Inventory, CPUStress, an interrupt.
    pub fn fresh() -> Bench {
        Bench::new(profile(&["Inventory", "CPUStress", "Interrupt:reboot"], "stay"))
    }

    /// The same, claimed by agent 1: its attempt 1 of Inventory is in flight.
    pub fn claimed() -> Bench {
        let mut bench = Bench::fresh();
        bench.claim(&agent(1)).unwrap();
        bench
    }

    /// Held, because Inventory failed.
    pub fn held() -> Bench {
        let mut bench = Bench::claimed();
        bench.report(1, inventory(), 1, Outcome::Fail);
        assert_eq!(bench.run.state(), State::FailedHolding);
        bench
    }

    pub fn put(&mut self, input: &Input) -> Result<Change, Refused> {
        let before = self.run.clone();
        let change = decide(&self.run, input, self.now)?;
        assert_eq!(decide(&before, input, self.now).as_ref(), Ok(&change), "decided twice, differently");
        if !change.changed {
            assert_eq!(change.run, before);
            assert!(change.events.is_empty());
        }
        match input {
            Input::Claim { .. }
            | Input::Result(_)
            | Input::Heard { .. }
            | Input::Intent(_)
            | Input::ShutsDown { .. }
            | Input::Hold { .. } => self.now.heard_ms = self.now.listened_ms,
            Input::Order { .. }
            | Input::Drains { .. }
            | Input::AttemptWaits(_)
            | Input::Deadline
            | Input::NoticeSettled { .. }
            | Input::RuntimeEnded(_)
            | Input::NewBootToken { .. }
            | Input::Restored => {}
        }
        self.run = change.run.clone();
        self.events = change.events.clone();
        Ok(change)
    }

    /// Time passes, nobody speaks, and deadlines are looked at.
    pub fn pass(&mut self, span_ms: u64) {
        self.now.listened_ms += span_ms;
        self.now.wall = self.now.wall.plus(span_ms);
        self.put(&Input::Deadline).unwrap();
    }

    /// The same while the agent speaks.
    pub fn pass_heard(&mut self, span_ms: u64) {
        self.now.heard_ms = self.now.listened_ms + span_ms;
        self.pass(span_ms);
    }

    pub fn claim_as(
        &mut self,
        request: &ClaimRequest,
        protocol: u32,
        bearer: &Sha256Hex,
    ) -> Result<ClaimAnswer, Refused> {
        let request = Box::new(request.clone());
        let fleet = vec!["ops".parse().expect("a name")];
        match self.put(&Input::Claim { request, protocol, bearer: bearer.clone(), fleet })?.answer {
            Answer::Claim(answer) => Ok(*answer),
            other => panic!("{other:?} to a claim"),
        }
    }

    /// A claim with the boot token.
    pub fn claim(&mut self, request: &ClaimRequest) -> Result<ClaimAnswer, Refused> {
        self.claim_as(request, 2, &boot_token())
    }

    /// A claim with the agent's own run token.
    pub fn claim_again(&mut self, request: &ClaimRequest) -> Result<ClaimAnswer, Refused> {
        let token = request.token_sha256.clone().unwrap();
        self.claim_as(request, 2, &token)
    }

    pub fn outcome(&self, claim: u64, stage: Stage, attempt: u32, outcome: Outcome) -> ResultRequest {
        let mut request: ResultRequest =
            serde_json::from_value(json!({"stage": stage.to_string(), "passed": outcome == Outcome::Pass}))
                .unwrap();
        request.claim = ClaimNumber(claim);
        request.made_under = ClaimNumber(claim);
        request.attempt = Attempt(attempt);
        let record = self.run.stages.iter().find(|record| record.spec.name == stage);
        let plan =
            record.map(|record| groundcrew_protocol::plan::planned_checks(&record.spec)).unwrap_or_default();
        request.checks = passing(&plan);
        match outcome {
            Outcome::Pass => {}
            Outcome::Fail => {
                request.checks[0].observed = Observation::Missing { what: "it".into() };
            }
            Outcome::Gap => {
                request.checks.remove(0);
            }
            Outcome::Nothing => request.checks.clear(),
        }
        request
    }

    pub fn result(&mut self, request: ResultRequest) -> Result<(ResultAnswer, Change), Refused> {
        let change = self.put(&Input::Result(Box::new(request)))?;
        match &change.answer {
            Answer::Result(answer) => Ok((answer.clone(), change)),
            other => panic!("{other:?} to a result"),
        }
    }

    /// Reports, and says how it was taken and where the run stands then.
    pub fn report(
        &mut self,
        claim: u64,
        stage: Stage,
        attempt: u32,
        outcome: Outcome,
    ) -> (Taken, State, u32) {
        let request = self.outcome(claim, stage, attempt, outcome);
        let (answer, change) = self.result(request).unwrap();
        let kept = change.result.unwrap();
        assert_eq!(kept.taken, answer.taken);
        assert_eq!(kept.judged.is_some(), answer.taken == Taken::First);
        assert_eq!(answer.next_state, self.run.state());
        (answer.taken, answer.next_state, answer.attempt.0)
    }

    pub fn heard(&mut self, claim: u64, reports: &[(u64, DirectiveOutcome)]) -> Result<Change, Refused> {
        let report = |(id, outcome): &(u64, DirectiveOutcome)| DirectiveReport {
            id: DirectiveId(*id),
            outcome: outcome.clone(),
            reason: "because".into(),
        };
        let directives = reports.iter().map(report).collect();
        self.put(&Input::Heard { claim: ClaimNumber(claim), directives })
    }

    /// The node's drains are compared with what the agent holds.
    pub fn drains(&mut self, wanted: &[&str], held: &[&str]) -> Change {
        self.put(&drains(wanted, held)).unwrap()
    }

    pub fn order(&mut self, order: OrderKind, stage: Option<Stage>, reason: &str) -> Result<Change, Refused> {
        self.put(&Input::Order { order, stage, reason: reason.into(), by: "olga".into() })
    }

    pub fn intent(
        &mut self,
        claim: u64,
        kind: &str,
        at: Option<(Stage, u32)>,
        boot_number: u64,
    ) -> Result<(), Refused> {
        let (stage, attempt) = at.map_or((None, 0), |(stage, attempt)| (Some(stage), attempt));
        let intent = Intent {
            claim: ClaimNumber(claim),
            stage,
            attempt: Attempt(attempt),
            kind: kind.to_owned().into(),
            boot_id: boot(boot_number),
            disks: Vec::new(),
        };
        self.put(&Input::Intent(intent)).map(|_| ())
    }

    /// State, attempt of the stage at which the run stands, and its fate.
    pub fn at(&self) -> (State, u32, Option<Fate>) {
        let attempt = self.run.attempt();
        (self.run.state(), attempt.map_or(0, |a| a.number.0), attempt.map(|a| a.fate))
    }

    pub fn why(&self) -> &HeldFor {
        match &self.run.standing {
            Standing::Held { why, .. } => why,
            other => panic!("not held but {other:?}"),
        }
    }

    pub fn told(&self, kind: &str) -> bool {
        self.events.iter().any(|event| event.kind == kind)
    }

    pub fn waits_for(&self) -> Option<WaitFor> {
        self.run.wait.as_ref().map(|wait| wait.what)
    }

    /// Until when the run waits, from now.
    pub fn waits_ms(&self) -> u64 {
        self.run.wait.as_ref().unwrap().until_ms - self.now.listened_ms
    }

    /// Directives under way: id, command, attempt.
    pub fn orders(&self) -> Vec<(u64, Command, u32)> {
        self.run.directives.iter().map(|d| (d.id.0, d.command.clone(), d.attempt.0)).collect()
    }

    pub fn commands(&self) -> Vec<Command> {
        self.run.directives.iter().map(|d| d.command.clone()).collect()
    }

    pub fn verdict_of(&self, stage: &Stage) -> Option<Verdict> {
        self.run.stages.iter().find(|record| record.spec.name == *stage).unwrap().verdict
    }
}

pub fn walking(stage: Stage) -> State {
    State::At(stage)
}
pub const IN_FLIGHT: Option<Fate> = Some(Fate::InFlight);
