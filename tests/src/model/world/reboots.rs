//! What cannot be taken back: a stage that asks for a reboot, and the power-off after the end of the run.
//!
//! The control loop is the real one: it has outbox and spool acknowledged, says its intent on the same bad network until that
//! is answered, and gives leave only then. What the world adds is the command, and what becomes of it: the machine goes down
//! at once or later, with or without a word to the agent, or never.

use groundcrew_agent::control::core::Event;
use groundcrew_protocol::ids::{Attempt, BootId, Generation};
use groundcrew_protocol::limits;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{Intent, IntentKind, StageAttempt};

use super::{Happening, World};

/// How long outbox and spool may take to be acknowledged before a machine goes down.
pub(super) const FLUSH_MS: u64 = 60_000;
/// How long a stage waits for the reboot that it asked for: the run's limit, and a minute.
const REBOOT_AWAITED_MS: u64 = limits::REBOOT_DEADLINE_MS + 60_000;

/// A request for a reboot: one machine goes down for it at most once. What makes another of it: a restore, which forgets what
/// was asked; an operator's retry; a claim that went to the other machine and back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    agent: usize,
    stage: String,
    generation: u64,
    retries: u32,
    hands: u32,
}

impl World {
    /// A stage was told whether it may reboot its machine.
    pub(super) fn leave_given(&mut self, agent: usize, life: u64, answer: Result<(), String>) {
        let Some(child) = &mut self.machines[agent].child else { return };
        let which = child.which.clone();
        match answer {
            Ok(()) => {
                child.may_reboot = true;
                let after_ms = self.random.below(5_000);
                self.put(after_ms, Happening::Reboot { agent, life, which });
            }
            Err(why) => {
                self.note(format!("no reboot: {why}"));
                self.put(0, Happening::StageEnd { agent, life, which });
            }
        }
    }

    /// The command runs, unless the stage was ended first. It cannot be taken back.
    pub(super) fn reboot(&mut self, agent: usize, life: u64, which: StageAttempt) {
        let machine = &self.machines[agent];
        let lets = machine
            .child
            .as_ref()
            .is_some_and(|child| child.which == which && child.may_reboot && child.ended_by.is_none());
        if !self.lives(agent, life) || !lets {
            return;
        }
        let (name, boot) = (machine.name, machine.boot.clone());
        self.note(format!("machine {name} is asked to reboot for {} attempt {}", which.stage, which.attempt));
        // A restore between the acknowledgement and the command forgets the one and cannot take the other back.
        let generation =
            self.expect_acknowledged(IntentKind::Reboot, Some(&which.stage), which.attempt, &boot);
        let asked = Asked {
            agent,
            stage: which.stage.to_string(),
            generation,
            retries: self.server.store.run.operator_retries,
            hands: self.server.hands,
        };
        if self.rebooted.contains(&asked) {
            self.broken
                .push(format!("{} is asked to reboot again for what it has rebooted for", asked.stage));
        }
        self.asked.insert(boot.clone(), asked);
        self.put(REBOOT_AWAITED_MS, Happening::StageEnd { agent, life, which });
        let bad = self.is_chaos();
        if bad && self.random.chance(8) {
            return self.note("which comes to nothing".into());
        }
        if bad && self.random.chance(15) {
            // The agent ends before its machine does, in order or not, and may be back before that too.
            let ended_in_order = self.random.chance(50);
            match ended_in_order {
                true => self.step(agent, Event::Stop),
                false => self.crash_agent(agent),
            }
        }
        let slow = bad && self.random.chance(20);
        let after_ms = if slow { self.random.below(180_000) } else { self.random.below(3_000) };
        self.put(after_ms, Happening::GoDown { agent, boot });
    }

    /// The machine goes down for what was asked under that boot.
    pub(super) fn go_down(&mut self, agent: usize, boot: &BootId) {
        let machine = &self.machines[agent];
        if machine.boot != *boot {
            return; // Something else has ended that boot.
        }
        self.note(format!("machine {} reboots", machine.name));
        self.tally.reboots += 1;
        let asked = self.asked.get(boot).cloned().expect("somebody asked under this boot");
        if !self.rebooted.insert(asked.clone()) {
            self.broken.push(format!("{} reboots its machine twice for one request", asked.stage));
        }
        if self.machines[agent].core.is_some() && self.random.chance(50) {
            // The SIGTERM of the shutdown.
            self.step(agent, Event::Stop);
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

    /// The generation under which the orchestrator has acknowledged an intent, which it must have.
    fn expect_acknowledged(
        &mut self,
        kind: IntentKind,
        stage: Option<&Stage>,
        attempt: Attempt,
        boot: &BootId,
    ) -> u64 {
        let is_it = |(intent, _): &&(Intent, Generation)| {
            intent.kind == kind
                && intent.stage.as_ref() == stage
                && intent.attempt == attempt
                && intent.boot_id == *boot
        };
        let Some((_, generation)) = self.server.acknowledged.iter().rev().find(is_it) else {
            self.broken.push(format!("a {kind} that nobody had acknowledged"));
            return 0;
        };
        generation.0
    }

    /// The machine is switched off at the end of the run.
    pub(super) fn power_off(&mut self, agent: usize) {
        let machine = &self.machines[agent];
        let (name, boot, allowed) = (machine.name, machine.boot.clone(), machine.power_allowed);
        self.note(format!("machine {name} is switched off"));
        self.tally.power_offs += 1;
        self.check_undrained(agent, "the power-off");
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
