//! Drains: operators on a node and at the orchestrator ask for them and take them off, or forget to; and somebody asks, again
//! and again, whether he may act.

use groundcrew_agent::control::core::Event;
use groundcrew_agent::control::hooks::Which;
use groundcrew_agent::control::sight::Sight;
use groundcrew_protocol::drain::{DrainOrder, PRINCIPAL_PREFIX};
use groundcrew_protocol::ids::DirectiveId;

use super::super::drains::{Change, change, holders};
use super::{DRAINS, Happening, World};

/// The thread that reads and writes the marker takes so long for each thing.
const DISK_MS: u64 = 50;
/// What it has seen is told within this, and sometimes within that.
const TOLD_MS: u64 = 50;
const TOLD_LATE_MS: u64 = 3_000;
/// It looks by itself each second; here within that after a change, and else now and then, for what time alone changes.
const LOOK_MS: u64 = 1_000;
const LOOK_AGAIN_MS: u64 = 20_000;

/// What the thread does that reads and writes the marker.
#[derive(Debug, Clone)]
pub(super) enum Disk {
    /// Looks for a stage that is about to start.
    Look(u64),
    /// Looks by itself.
    Watch,
    /// Looks by itself, and again.
    WatchOn,
    /// Looks for somebody who asks how the agent stands.
    Ask,
    /// Has the marker hold a drain of the orchestrator's.
    Begin(Option<DirectiveId>, DrainOrder),
    /// Has it hold it no more.
    End(DirectiveId, DrainOrder),
}

impl World {
    /// Gives the thread something to do, after what it was given before.
    pub(super) fn put_disk(&mut self, agent: usize, life: u64, what: Disk) {
        let takes_ms = self.random.below(DISK_MS);
        let drains = &mut self.machines[agent].drains;
        drains.busy_until_ms = drains.busy_until_ms.max(self.now_ms) + takes_ms;
        let after_ms = drains.busy_until_ms - self.now_ms;
        self.put(after_ms, Happening::Disk { agent, life, what });
    }

    /// The thread has come to it.
    pub(super) fn disk(&mut self, agent: usize, life: u64, what: Disk) {
        if !self.lives(agent, life) {
            return;
        }
        match what {
            Disk::Look(_) | Disk::Watch | Disk::Ask => self.look(agent, life, what),
            Disk::WatchOn => {
                self.put(LOOK_AGAIN_MS, Happening::Disk { agent, life, what: Disk::WatchOn });
                self.look(agent, life, Disk::Watch);
            }
            Disk::Begin(order, drain) => {
                let done = self.order_of_disk(agent, Change::Begin(drain.principal()));
                self.step(agent, Event::DrainChanged { order, done });
                self.watch(agent);
            }
            Disk::End(id, drain) => {
                let done = self.order_of_disk(agent, Change::Cancel(drain.principal()));
                self.step(agent, Event::DrainChanged { order: Some(id), done });
                self.watch(agent);
            }
        }
    }

    /// Looks, which the loop is told a little later: perhaps after what was seen since.
    fn look(&mut self, agent: usize, life: u64, what: Disk) {
        let machine = &mut self.machines[agent];
        let sight = machine.drains.look(&machine.boot, self.now_ms);
        let is_late = self.random.chance(10);
        let after_ms = self.random.below(if is_late { TOLD_LATE_MS } else { TOLD_MS });
        self.put(after_ms, Happening::Sighted { agent, life, what, sight });
    }

    /// The loop is told what was seen.
    pub(super) fn sighted(&mut self, agent: usize, life: u64, what: Disk, sight: Sight) {
        if !self.lives(agent, life) {
            return;
        }
        match what {
            Disk::Look(look) => {
                self.machines[agent].drains.last_look_drains = sight.active().is_some();
                self.step(agent, Event::Looked { look, sight: Some(sight) });
            }
            Disk::Ask => {
                self.step(agent, Event::Drain(sight));
                self.ask(agent, life);
            }
            Disk::Watch | Disk::WatchOn | Disk::Begin(..) | Disk::End(..) => {
                self.step(agent, Event::Drain(sight))
            }
        }
    }

    /// The disk takes it, or does not for once.
    fn order_of_disk(&mut self, agent: usize, what: Change) -> Result<(), String> {
        if self.is_chaos() && self.random.chance(5) {
            return Err("the disk is read-only for once".to_owned());
        }
        self.change_marker(agent, what);
        Ok(())
    }

    /// The agent looks soon, as it does each second.
    fn watch(&mut self, agent: usize) {
        let life = self.machines[agent].life;
        let within_ms = self.random.below(LOOK_MS);
        self.put(within_ms, Happening::Disk { agent, life, what: Disk::Watch });
    }

    /// Whether the marker drains, whoever looks.
    pub(super) fn holders(&self, agent: usize) -> Vec<String> {
        let machine = &self.machines[agent];
        let home = machine.home.as_ref();
        home.map(|home| holders(&home.marker, &machine.boot, self.now_ms)).unwrap_or_default()
    }

    fn change_marker(&mut self, agent: usize, what: Change) {
        let drained_before = !self.holders(agent).is_empty();
        let machine = &self.machines[agent];
        let Some(home) = &machine.home else { return };
        change(&home.marker, &machine.boot, self.now_ms, &what);
        self.note(format!("machine {}: {what:?} in its marker", self.machines[agent].name));
        // What somebody was told counts for as long as the marker drains.
        self.machines[agent].drains.told_idle &= drained_before && !self.holders(agent).is_empty();
        self.watch(agent);
        if let Change::Begin(_) = what {
            self.tally.drains += 1;
            let life = self.machines[agent].life;
            for _ in 0..3 {
                let after_ms = self.random.below(600_000);
                self.put(after_ms, Happening::Disk { agent, life, what: Disk::Ask });
            }
        }
    }

    /// Somebody asks for a drain, or takes one off, or forgets to.
    pub(super) fn drainer(&mut self) {
        if !self.is_chaos() {
            return;
        }
        let next_ms = 60_000 + self.random.below(900_000);
        self.put(next_ms, Happening::Drainer);
        let agent = usize::from(self.random.chance(25));
        let who = if self.random.chance(50) { "ann" } else { "bob" }.to_owned();
        match self.random.below(12) {
            0..=2 => self.change_marker(agent, Change::Begin(who)),
            3 | 4 => self.change_marker(agent, Change::Cancel(who)),
            5 => self.change_marker(agent, Change::CancelAll),
            6 => self.change_marker(agent, Change::ByHand),
            7..=9 if self.server_up => {
                self.drains_made += 1;
                let for_ms = self.random.chance(60).then(|| 30_000 + self.random.below(1_800_000));
                self.note(format!("operator: drains the node for {for_ms:?} ms (d-{})", self.drains_made));
                self.server.drain(self.drains_made, for_ms);
            }
            10 | 11 if self.server_up && self.server.undrain() => self.note("operator: ends a drain".into()),
            _ => {}
        }
    }

    /// Somebody who wants to do something disruptive asks whether he may: the agent has seen the marker for him, drains, and
    /// names nothing that is active.
    fn ask(&mut self, agent: usize, life: u64) {
        if !self.lives(agent, life) {
            return;
        }
        let Some(core) = &self.machines[agent].core else { return };
        if core.drained().is_none() || core.is_active() {
            return;
        }
        self.tally.told_idle += 1;
        let machine = &mut self.machines[agent];
        machine.drains.told_idle = true;
        if !machine.node.may_be_drained() {
            let name = machine.name;
            self.broken.push(format!("agent {name} says that nothing is active, and its hook is not done"));
        }
        let machine = &self.machines[agent];
        if let Some(child) = &machine.child {
            let (name, stage) = (machine.name, child.which.stage.clone());
            self.broken.push(format!("agent {name} says that nothing is active while {stage} runs"));
        }
    }

    /// A stage or hook starts, or the power goes: in no drain that the loop has seen, and in none in which somebody was told that nothing is active.
    pub(super) fn check_undrained(&mut self, agent: usize, what: &str) {
        let machine = &self.machines[agent];
        let name = machine.name;
        if machine.core.as_ref().is_some_and(|core| core.drained().is_some()) {
            self.broken.push(format!("agent {name} starts {what} while it drains"));
        } else if machine.drains.last_look_drains {
            self.broken.push(format!("agent {name} starts {what}, and the look for it has found a drain"));
        } else if machine.drains.told_idle && !self.holders(agent).is_empty() {
            self.broken.push(format!(
                "agent {name} starts {what} although somebody was told that nothing is active, and the marker stands"
            ));
        }
    }

    /// True once nothing of a drain is left on the machine of an agent that has the claim: no drain of the orchestrator's where
    /// none is wanted, and nothing that a hook has done.
    pub(super) fn is_undrained(&self, agent: usize) -> bool {
        let is_held = |holder: &String| holder.starts_with(PRINCIPAL_PREFIX);
        let is_left = || self.server.wanted().is_empty() && self.holders(agent).iter().any(is_held);
        !self.machines[agent].node.is_to_undo && !is_left()
    }

    // ---- hooks -----------------------------------------------------------------------------------------------

    pub(super) fn start_hook(&mut self, agent: usize, life: u64, which: Which) {
        if which != Which::BeforeDrain {
            self.check_undrained(agent, &format!("hook {}", which.key()));
        }
        let machine = &self.machines[agent];
        let drains_for = machine.child.as_ref().filter(|child| child.which.stage.to_string() == DRAINS);
        if let (Some(child), Which::AfterDrain) = (drains_for, which) {
            let (name, stage) = (machine.name, child.which.stage.clone());
            self.broken.push(format!("agent {name} undoes the drain of {stage} while that runs"));
        }
        let owes = self.home(agent).hooks.owes.is_some();
        let node = &mut self.machines[agent].node;
        let wrong = node.begin(which, owes);
        let number = node.begun;
        if let Some(wrong) = wrong {
            self.broken.push(format!("hook {} is begun {wrong}", which.key()));
        }
        let fails = self.is_chaos() && self.random.chance(20);
        let done = if fails { Err("no budget".to_owned()) } else { Ok(()) };
        let slow = self.random.chance(10);
        let after_ms = if slow { self.random.below(600_000) } else { self.random.below(20_000) };
        self.put(after_ms, Happening::HookEnd { agent, life, number, done });
    }

    pub(super) fn end_hook(&mut self, agent: usize, life: u64) {
        let number = self.machines[agent].node.begun;
        let after_ms = self.random.below(5_000);
        let done = Err("it was told to end".to_owned());
        self.put(after_ms, Happening::HookEnd { agent, life, number, done });
    }

    pub(super) fn hook_ended(&mut self, agent: usize, life: u64, number: u64, done: Result<(), String>) {
        if self.lives(agent, life) && self.machines[agent].node.ended(number, done.is_ok()) {
            self.tally.hooks += 1;
            self.step(agent, Event::HookEnded(done));
        }
    }
}
