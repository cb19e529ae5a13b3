//! What crosses between agents and the orchestrator: perhaps late, perhaps twice, perhaps never.

use groundcrew_agent::control::core::{Call, Event};
use groundcrew_protocol::check::{Check, Limit, Observation};
use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::inventory::Inventory;
use groundcrew_protocol::limits;
use groundcrew_protocol::plan::planned_checks;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{Command, HeartbeatAnswer, OutboxEntry, ResultRequest, StageAttempt};

use super::super::server::{Request, Response, name_of};
use super::{Happening, World};

impl World {
    /// Sends something across: perhaps late, perhaps twice, perhaps never.
    pub(super) fn across(&mut self, make: impl Fn() -> Happening, what: &str) {
        let bad = self.is_chaos();
        let cut = self.now_ms < self.cut_until_ms;
        let copies = if cut || bad && self.random.chance(8) {
            0
        } else if bad && self.random.chance(5) {
            2
        } else {
            1
        };
        if copies == 0 {
            self.tally.lost += 1;
            self.note(format!("lost: {what}"));
        }
        for _ in 0..copies {
            let late = if bad && self.random.chance(10) {
                self.random.below(30_000)
            } else {
                self.random.below(200)
            };
            self.put(1 + late, make());
        }
    }

    pub(super) fn at_server(&mut self, from: usize, life: u64, call: u64, request: Request, tag: u64) {
        if !self.server_up {
            return;
        }
        self.server.from_hook = self.machines[from].node.runs.is_some();
        let response = self.server.handle(request, tag);
        // A doubled request is answered twice; each answer itself crosses once.
        let bad = self.is_chaos();
        if self.now_ms < self.cut_until_ms || bad && self.random.chance(8) {
            self.tally.lost += 1;
            self.note(format!("lost: an answer to {}", self.machines[from].name));
            return;
        }
        let late =
            if bad && self.random.chance(10) { self.random.below(30_000) } else { self.random.below(200) };
        self.put(1 + late, Happening::ToAgent { to: from, life, call, response });
    }

    pub(super) fn at_agent(&mut self, to: usize, life: u64, call: u64, response: Response) {
        if !self.lives(to, life) {
            return;
        }
        match response {
            Response::Control(answered) => {
                if self.machines[to].waits_for == Some(call) {
                    self.machines[to].waits_for = None;
                    self.step(to, Event::Answered(answered));
                }
            }
            // Only the latest heartbeat is waited for.
            Response::Heartbeat(claim, answered) => {
                if self.machines[to].heartbeats == call {
                    let cancels = answered.as_ref().ok().and_then(|answer| cancelled(answer));
                    self.step(to, Event::Heartbeat { claim, answered });
                    self.check_cancelled(to, life, claim, cancels);
                }
            }
            Response::Log(answered) => self.log_answered(to, call, answered),
        }
    }

    /// A stage that its agent was told to cancel has been told to end.
    fn check_cancelled(&mut self, to: usize, life: u64, claim: ClaimNumber, cancels: Option<StageAttempt>) {
        let machine = &self.machines[to];
        let has_claim = machine.core.as_ref().is_some_and(|core| core.claim() == Some(claim));
        let (true, true, Some(which)) = (self.lives(to, life), has_claim, cancels) else { return };
        if machine.child.as_ref().is_some_and(|child| child.which == which && child.ended_by.is_none()) {
            self.broken.push(format!("{} attempt {} was cancelled and goes on", which.stage, which.attempt));
        }
    }

    pub(super) fn beat(&mut self, agent: usize, life: u64) {
        if !self.lives(agent, life) {
            return;
        }
        self.put(limits::HEARTBEAT_INTERVAL_MS, Happening::Beat { agent, life });
        self.step(agent, Event::Reconcile(WallMs(0)));
        if !self.lives(agent, life) {
            return;
        }
        if self.machines[agent].child.is_some() && self.random.chance(8) {
            let stage = self.machines[agent].child.as_ref().map(|child| child.which.stage.clone());
            let count = 1 + self.random.below(4);
            self.write_lines(agent, stage.as_ref(), count);
        }
        self.plan_forward(agent, 0);
        let heartbeat =
            self.machines[agent].core.as_ref().and_then(|core| core.heartbeat("", false, WallMs(0)));
        let token = self.machines[agent].token(false, &self.server.boot_token.sha256());
        if let (Some(heartbeat), Some(token)) = (heartbeat, token) {
            self.machines[agent].heartbeats += 1;
            let call = self.machines[agent].heartbeats;
            let request = Request::Heartbeat(Box::new(heartbeat), token);
            let make = || Happening::ToServer { from: agent, life, call, request: request.clone(), tag: 0 };
            self.across(make, "a heartbeat");
        }
    }

    pub(super) fn send(&mut self, agent: usize, life: u64, call: Call) {
        let boot_token = self.server.boot_token.sha256();
        let what = name_of(&call);
        self.machines[agent].calls += 1;
        let number = self.machines[agent].calls;
        self.machines[agent].waits_for = Some(number);
        self.put(limits::CALL_TIMEOUT_MS, Happening::CallTimeout { agent, life, call: number });
        let by_boot = matches!(call, Call::Claim { by_boot_token: true, .. });
        let Some(token) = self.machines[agent].token(by_boot, &boot_token) else {
            return;
        };
        let mut tag = 0;
        let request = match call {
            Call::Hello => Request::Hello,
            Call::Claim { request, .. } => Request::Claim(request, token),
            Call::Result { claim, entry } => {
                let (body, of) = self.outcome(agent, claim, &entry);
                tag = of;
                Request::Result(Box::new(body), token)
            }
            Call::Intent(intent) => Request::Intent(intent, token),
            Call::Hold { claim } => Request::Hold(claim, token),
        };
        let make = || Happening::ToServer { from: agent, life, call: number, request: request.clone(), tag };
        self.across(make, what);
    }

    /// The outcome that a home keeps. What it says depends on its tag alone, so that it is the same each time.
    fn outcome(&mut self, agent: usize, claim: ClaimNumber, entry: &OutboxEntry) -> (ResultRequest, u64) {
        let is_it = |known: &OutboxEntry| known.stage == entry.stage && known.attempt == entry.attempt;
        let tag = self.home(agent).outbox.iter().find(|(known, _)| is_it(known)).map_or(0, |(_, tag)| *tag);
        if tag == 0 {
            self.broken.push(format!(
                "an outcome of {} attempt {} is sent and not kept",
                entry.stage, entry.attempt
            ));
        }
        let passes = !tag.is_multiple_of(7);
        let profile = &self.server.store.run.profile;
        let spec =
            profile.stages.iter().find(|spec| spec.name == entry.stage).expect("a stage of the profile");
        let spec = profile.settled(spec);
        let value = if passes {
            Observation::Found { text: "fine".into() }
        } else {
            Observation::Missing { what: "it".into() }
        };
        let checks: Vec<Check> = planned_checks(&spec)
            .into_iter()
            .map(|planned| {
                let observed = match planned.limit.fail_below.or(planned.limit.fail_above) {
                    None if passes && planned.limit.equals.is_some() => {
                        Observation::Found { text: planned.limit.equals.clone().unwrap_or_default() }
                    }
                    Some(bound) if passes => Observation::measured(bound, "x"),
                    Some(_) | None if planned.limit == Limit::default() => value.clone(),
                    Some(_) | None => Observation::measured(if passes { 0.0 } else { f64::NAN }, "x"),
                };
                Check::of(&planned.name, None, observed, Limit::default())
            })
            .collect();
        let body = ResultRequest {
            claim,
            made_under: entry.made_under,
            stage: entry.stage.clone(),
            attempt: entry.attempt,
            passed: passes,
            summary: format!("outcome {tag}"),
            message: String::new(),
            checks,
            inventory: (entry.stage == Stage::Inventory).then(|| Box::new(Inventory::default())),
            began: WallMs(0),
            ended: WallMs(0),
        };
        (body, tag)
    }
}

/// The attempt that an answer says is cancelled.
fn cancelled(answer: &HeartbeatAnswer) -> Option<StageAttempt> {
    let stage = answer.stage.clone().filter(|_| answer.cmd == Some(Command::CancelStage))?;
    Some(StageAttempt { stage, attempt: answer.attempt })
}
