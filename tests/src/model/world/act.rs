//! What an agent's control loop asks its world to do.

use groundcrew_agent::control::core::{Action, Asked, Event};
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{OutboxEntry, StageAttempt};

use super::super::agent::{Child, Home};
use super::drains::Disk;
use super::queue::Happening;
use super::{DRAINS, World, reboots};

impl World {
    /// Performs an action; says what follows it.
    pub(super) fn act(&mut self, agent: usize, life: u64, action: Action) -> Option<Event> {
        match action {
            Action::Persist(memory) => self.home(agent).memory = *memory,
            Action::Send(call) => self.send(agent, life, call),
            Action::LookForDrain(look) => self.put_disk(agent, life, Disk::Look(look)),
            Action::BeginDrain(id, order) => self.put_disk(agent, life, Disk::Begin(id, order)),
            Action::EndDrain(id, order) => self.put_disk(agent, life, Disk::End(id, order)),
            Action::KeepHooks(kept) => self.home(agent).hooks = *kept,
            Action::StartHook(start) => self.start_hook(agent, life, start.which),
            Action::EndHook => self.end_hook(agent, life),
            Action::SayOfHook(which, _, text) => {
                self.note(format!("agent {}: hook {}: {text}", self.machines[agent].name, which.key()));
            }
            Action::StartStage(start) => return self.start_stage(agent, life, &start.stage, start.attempt),
            Action::EndStage(by) => {
                if let Some(child) = &mut self.machines[agent].child {
                    child.ended_by = Some(by);
                    let which = child.which.clone();
                    let after_ms = self.random.below(6_000);
                    self.put(after_ms, Happening::StageEnd { agent, life, which });
                }
            }
            Action::KeepOutcome(_)
            | Action::DropOutcome(_)
            | Action::Acknowledge(_)
            | Action::Reoffer
            | Action::Refuse(..)
            | Action::ForgetRun => self.act_on_outbox(agent, action),
            // The file of keys may refuse for a while.
            Action::InstallKey { .. } => {
                let done = !(self.is_chaos() && self.random.chance(20));
                self.machines[agent].key_installed |= done;
                return Some(Event::KeyInstalled(done));
            }
            Action::RemoveKey(_) => {
                let done = !(self.is_chaos() && self.random.chance(20));
                self.machines[agent].key_installed &= !done;
                return Some(Event::KeyRemoved(done));
            }
            Action::Flush => {
                let below = self.machines[agent].log.as_ref().map_or(0, |log| log.finish());
                self.machines[agent].flushing = Some((self.now_ms + reboots::FLUSH_MS, below));
                self.plan_forward(agent, 0);
                self.put(0, Happening::Flush { agent, life });
            }
            Action::Leave(answer) => self.leave_given(agent, life, answer),
            Action::PowerOff => self.power_off(agent),
            Action::Exit => {
                self.note(format!("agent {} ends", self.machines[agent].name));
                self.machines[agent].crash();
                let after_ms = 60_000 + self.random.below(60_000);
                self.put(after_ms, Happening::StartAgent { agent });
            }
            Action::Say(_, text) => {
                let name = self.machines[agent].name;
                self.note(format!("agent {name}: {text}"));
                if self.random.chance(40) {
                    self.write_lines(agent, None, 1);
                }
            }
        }
        None
    }

    /// Performs an action that is about outcomes alone.
    fn act_on_outbox(&mut self, agent: usize, action: Action) {
        match action {
            Action::KeepOutcome(entry) => {
                self.machines[agent].child = None;
                self.tags += 1;
                let tag = self.tags;
                self.note(format!(
                    "agent {} keeps outcome {tag}: {} attempt {}",
                    self.machines[agent].name, entry.stage, entry.attempt
                ));
                self.home(agent).outbox.push((entry, tag));
            }
            Action::DropOutcome(_) => self.machines[agent].child = None,
            Action::Acknowledge(which) => {
                for (entry, _) in &mut self.home(agent).outbox {
                    if entry.stage == which.stage && entry.attempt == which.attempt {
                        entry.acknowledged = true;
                    }
                }
            }
            Action::Reoffer => {
                for (entry, _) in &mut self.home(agent).outbox {
                    entry.acknowledged = false;
                }
            }
            Action::Refuse(which, why) => {
                self.note(format!("agent {}: refused for good: {why}", self.machines[agent].name));
                let home = self.home(agent);
                let is_it =
                    |entry: &OutboxEntry| entry.stage == which.stage && entry.attempt == which.attempt;
                if let Some(index) = home.outbox.iter().position(|(entry, _)| is_it(entry)) {
                    let (_, tag) = home.outbox.remove(index);
                    home.refused.push((which, tag));
                }
            }
            Action::ForgetRun => self.home(agent).outbox.retain(|(entry, _)| !entry.acknowledged),
            Action::Persist(_)
            | Action::Send(_)
            | Action::LookForDrain(_)
            | Action::BeginDrain(..)
            | Action::EndDrain(..)
            | Action::KeepHooks(_)
            | Action::StartHook(_)
            | Action::EndHook
            | Action::SayOfHook(..)
            | Action::StartStage(_)
            | Action::EndStage(_)
            | Action::InstallKey { .. }
            | Action::RemoveKey(_)
            | Action::Flush
            | Action::Leave(_)
            | Action::PowerOff
            | Action::Exit
            | Action::Say(..) => unreachable!("it is about something else"),
        }
    }

    pub(super) fn home(&mut self, agent: usize) -> &mut Home {
        self.machines[agent].home.as_mut().expect("an agent that runs has a home")
    }

    /// Starts a stage; some ask for leave to reboot the machine at once.
    fn start_stage(&mut self, agent: usize, life: u64, stage: &Stage, attempt: Attempt) -> Option<Event> {
        let generation = self.home(agent).memory.generation.0;
        self.tally.stages += 1;
        let name = self.machines[agent].name;
        self.note(format!("agent {name} starts {stage} attempt {attempt} (generation {generation})"));
        if !self.started.insert((generation, stage.to_string(), attempt.0)) {
            self.broken
                .push(format!("{stage} attempt {attempt} was started twice in generation {generation}"));
        }
        let home = self.home(agent).id;
        if !self.started_by.insert((home, stage.to_string(), attempt.0)) {
            self.broken
                .push(format!("agent {name} starts {stage} attempt {attempt} again from the same home"));
        }
        self.check_undrained(agent, &stage.to_string());
        if stage.to_string() == DRAINS && !self.machines[agent].node.may_be_drained() {
            self.broken.push(format!("agent {name} starts {stage} before the node is drained for it"));
        }
        if self.machines[agent].child.is_some() {
            self.broken.push(format!("agent {name} starts {stage} beside another stage"));
        }
        let which = StageAttempt { stage: stage.clone(), attempt };
        let passes = !self.is_chaos() || !self.random.chance(15);
        self.machines[agent].child =
            Some(Child { which: which.clone(), passes, ended_by: None, may_reboot: false });
        let count = self.random.below(5);
        self.write_lines(agent, Some(stage), count);
        if stage.to_string() == "Interrupt:reboot" && self.random.chance(80) {
            return Some(Event::LeaveWanted(Asked::Reboot));
        }
        // Some take longer than their deadline and the limit of silence together.
        let slow = self.is_chaos() && self.random.chance(4);
        let after_ms = if slow { 1_200_000 } else { 1_000 + self.random.below(500_000) };
        self.put(after_ms, Happening::StageEnd { agent, life, which });
        None
    }
}
