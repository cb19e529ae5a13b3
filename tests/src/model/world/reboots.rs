//! What cannot be taken back: a stage that asks for a reboot, and the power-off after the end of the run.
//!
//! The agent has no stage that asks for a reboot yet. A small actor stands in for it: it has outbox and spool
//! acknowledged, posts its intent on the same bad network until it is answered, and reboots only then.

use groundcrew_agent::control::core::{Event, Failure};
use groundcrew_protocol::ids::{Attempt, BootId};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{Intent, IntentKind, StageAttempt};

use super::super::agent::{Child, Reboot};
use super::super::server::Request;
use super::{Happening, World};

/// How long outbox and spool may take to be acknowledged before a machine goes down.
pub(super) const FLUSH_MS: u64 = 60_000;
/// How often the actor looks.
const LOOK_MS: u64 = 2_000;

impl World {
    fn child(&mut self, agent: usize, life: u64, which: &StageAttempt) -> Option<&mut Child> {
        if !self.lives(agent, life) {
            return None;
        }
        self.machines[agent].child.as_mut().filter(|child| child.which == *which && child.ended_by.is_none())
    }

    /// The stage begins to ask for a reboot.
    pub(super) fn begin_reboot(&mut self, agent: usize) {
        let below = self.machines[agent].log.as_ref().map_or(0, |log| log.finish());
        let (until_ms, life) = (self.now_ms + FLUSH_MS, self.machines[agent].life);
        let Some(child) = &mut self.machines[agent].child else { return };
        child.reboot = Some(Reboot::Flushing { below, until_ms });
        let which = child.which.clone();
        self.plan_forward(agent, 0);
        self.put(LOOK_MS, Happening::Reboot { agent, life, which });
    }

    /// The next step towards the reboot.
    pub(super) fn reboot(&mut self, agent: usize, life: u64, which: StageAttempt) {
        let Some(at) = self.child(agent, life, &which).and_then(|child| child.reboot.clone()) else { return };
        match at {
            Reboot::Flushing { below, until_ms } => {
                let whole = self.machines[agent].is_flushed(below);
                let late = self.now_ms >= until_ms;
                if late && !whole && !self.machines[agent].durable {
                    self.note("what a volatile home holds has not arrived: no reboot".into());
                    return self.step(agent, Event::StageEnded);
                }
                if whole || late {
                    self.ask(agent, life, &which);
                }
                self.put(LOOK_MS, Happening::Reboot { agent, life, which });
            }
            // Asked again where no answer came in time.
            Reboot::Asking(_) => {
                self.ask(agent, life, &which);
                self.put(limits::CALL_TIMEOUT_MS, Happening::Reboot { agent, life, which });
            }
            Reboot::Acknowledged => self.go_down(agent, &which),
        }
    }

    fn ask(&mut self, agent: usize, life: u64, which: &StageAttempt) {
        let machine = &mut self.machines[agent];
        machine.calls += 1;
        let call = machine.calls;
        if let Some(child) = &mut machine.child {
            child.reboot = Some(Reboot::Asking(call));
        }
        let claim = machine.core.as_ref().and_then(|core| core.claim());
        let (Some(claim), Some(home)) = (claim, &machine.home) else { return };
        let token = home.memory.token.sha256();
        let intent = Intent {
            claim,
            stage: Some(which.stage.clone()),
            attempt: which.attempt,
            kind: IntentKind::Reboot,
            boot_id: machine.boot.clone(),
            disks: Vec::new(),
        };
        let request = Request::Reboot(intent, token);
        let make = || Happening::ToServer { from: agent, life, call, request: request.clone(), tag: 0 };
        self.across(make, "an intent to reboot");
    }

    pub(super) fn reboot_answered(&mut self, agent: usize, call: u64, answered: Result<(), Failure>) {
        let life = self.machines[agent].life;
        let Some(child) = &mut self.machines[agent].child else { return };
        if child.reboot != Some(Reboot::Asking(call)) || child.ended_by.is_some() {
            return;
        }
        let which = child.which.clone();
        match answered {
            Ok(()) => {
                child.reboot = Some(Reboot::Acknowledged);
                let after_ms = self.random.below(5_000);
                self.put(after_ms, Happening::Reboot { agent, life, which });
            }
            Err(Failure::Refused(why)) => {
                self.note(format!("no reboot: {why}"));
                self.step(agent, Event::StageEnded);
            }
            Err(_) => {} // Asked again, unless something else ends the stage.
        }
    }

    fn go_down(&mut self, agent: usize, which: &StageAttempt) {
        let boot = self.machines[agent].boot.clone();
        self.note(format!("machine {} reboots for {}", self.machines[agent].name, which.stage));
        self.tally.reboots += 1;
        self.expect_acknowledged(IntentKind::Reboot, Some(&which.stage), which.attempt, &boot);
        let generation = self.server.store.generation.0;
        if !self.rebooted.insert((generation, which.stage.to_string(), which.attempt.0)) {
            self.broken.push(format!("{} attempt {} reboots twice", which.stage, which.attempt));
        }
        let mut random = self.random.clone();
        self.machines[agent].reset(false, true, &mut random);
        self.random = random;
        self.random.draw();
        // A few take longer than the profile lets them.
        let slow = self.is_chaos() && self.random.chance(5);
        let after_ms = if slow { 2_400_000 } else { 5_000 + self.random.below(120_000) };
        self.put(after_ms, Happening::StartAgent { agent });
    }

    fn expect_acknowledged(
        &mut self,
        kind: IntentKind,
        stage: Option<&Stage>,
        attempt: Attempt,
        boot: &BootId,
    ) {
        let is_it = |intent: &Intent| {
            intent.kind == kind
                && intent.stage.as_ref() == stage
                && intent.attempt == attempt
                && intent.boot_id == *boot
        };
        if !self.server.acknowledged.iter().any(is_it) {
            self.broken.push(format!("a {kind} that nobody had acknowledged"));
        }
    }

    /// The machine is switched off at the end of the run.
    pub(super) fn power_off(&mut self, agent: usize) {
        let machine = &self.machines[agent];
        let (name, boot, allowed) = (machine.name, machine.boot.clone(), machine.power_allowed);
        self.note(format!("machine {name} is switched off"));
        self.tally.power_offs += 1;
        if !allowed {
            self.broken.push("the power was touched although settings forbid it".into());
        }
        self.expect_acknowledged(IntentKind::PowerOff, None, Attempt(0), &boot);
        let mut random = self.random.clone();
        self.machines[agent].reset(false, true, &mut random);
        self.random = random;
        self.random.draw();
        // Somebody switches it on again.
        if self.random.chance(50) {
            let after_ms = 600_000 + self.random.below(600_000);
            self.put(after_ms, Happening::StartAgent { agent });
        }
    }
}
