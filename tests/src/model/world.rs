//! The world of the model: time, the network, and what goes wrong.

mod ends;
mod network;
mod operators;
mod queue;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use groundcrew_agent::control::core::{Action, Event, Failure};
use groundcrew_orchestrator::run::state::Standing;
use groundcrew_protocol::ids::{Attempt, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{OutboxEntry, StageAttempt};

use queue::{Entry, Happening};

use super::agent::{Child, Home, Machine};
use super::random::Random;
use super::server::{Server, Store};

/// How long things go wrong, in milliseconds of the world.
const CHAOS_MS: u64 = 3_600_000;
/// How long the calm after it may take until the run has ended.
const CALM_MS: u64 = 24 * 3_600_000;
/// How often the deadline task of the model's orchestrator passes.
const TICK_MS: u64 = 5_000;
/// Lines of history that are kept.
const HISTORY_MAX: usize = 4_000;

/// The profile that the model walks.
const STAGES: [&str; 6] =
    ["Inventory", "SpecValidate", "CPUStress", "Package:tuning/apply", "Interrupt:restart", "Reporting"];

/// The world.
pub struct World {
    random: Random,
    now_ms: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    server: Server,
    server_up: bool,
    backup: Option<Store>,
    machines: Vec<Machine>,
    tags: u64,
    /// (generation, stage, attempt) of every start.
    started: BTreeSet<(u64, String, u32)>,
    /// (machine, home, stage, attempt) of every start: a home never repeats one, whatever a restore forgot.
    started_by: BTreeSet<(usize, String, String, u32)>,
    /// What came to pass, oldest first.
    pub history: Vec<String>,
    broken: Vec<String>,
    /// What the seed led to, for a summary.
    pub tally: Tally,
}

/// What a seed led to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Crashes of agents.
    pub crashes: u32,
    /// Resets of machines.
    pub resets: u32,
    /// Deaths of the orchestrator.
    pub server_deaths: u32,
    /// Restores.
    pub restores: u32,
    /// Messages that were lost.
    pub lost: u32,
    /// Stages started.
    pub stages: u32,
    /// Steps of the world.
    pub steps: u64,
    /// 1 where the run ended Completed.
    pub completed: u32,
}

fn profile() -> Profile {
    let stages: Vec<serde_json::Value> =
        STAGES.iter().map(|name| serde_json::json!({"name": name, "deadline": "2m"})).collect();
    serde_json::from_value(serde_json::json!({"name": "model", "stage": stages})).expect("a profile")
}

impl World {
    /// The world of a seed.
    pub fn of(seed: u64) -> World {
        let mut random = Random::of(seed);
        let server = Server::new(profile(), TokenText::boot(random.bytes32()));
        let machines = vec![
            Machine::new("a", random.chance(60), &mut random),
            Machine::new("b", random.chance(60), &mut random),
        ];
        let mut world = World {
            random,
            now_ms: 0,
            order: 0,
            queue: BinaryHeap::new(),
            server,
            server_up: true,
            backup: None,
            machines,
            tags: 0,
            started: BTreeSet::new(),
            started_by: BTreeSet::new(),
            history: Vec::new(),
            broken: Vec::new(),
            tally: Tally::default(),
        };
        world.put(0, Happening::StartAgent { agent: 0 });
        if world.random.chance(40) {
            let after_ms = world.random.below(600_000);
            world.put(after_ms, Happening::StartAgent { agent: 1 });
        }
        world.put(TICK_MS, Happening::ServerTick);
        world.put(60_000, Happening::Operator);
        let first = world.random.below(120_000);
        world.put(first, Happening::Trouble);
        world
    }

    /// Lets the world run until its run has ended, or something that must hold does not.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse(Entry(at_ms, _, happening))) = self.queue.pop() {
            if self.server_up {
                self.server.listen(at_ms - self.now_ms);
            }
            self.now_ms = at_ms;
            self.tally.steps += 1;
            self.happen(happening);
            self.check();
            if let Some(broken) = self.broken.first() {
                return Err(broken.clone());
            }
            if self.now_ms > CHAOS_MS && self.server.store.run.ended().is_some() && self.is_settled() {
                self.tally.completed =
                    u32::from(matches!(self.server.store.run.standing, Standing::Completed { .. }));
                return self.check_end();
            }
            if self.now_ms > CHAOS_MS + CALM_MS {
                return Err(format!("the calm came to no end: {}", self.server.describe()));
            }
        }
        Err("nothing happens any more".into())
    }

    /// Every agent that runs and has the claim has sent what it kept.
    fn is_settled(&self) -> bool {
        self.machines.iter().all(|machine| {
            let sent = machine
                .home
                .as_ref()
                .is_none_or(|home| home.outbox.iter().all(|(entry, _)| entry.acknowledged));
            machine
                .core
                .as_ref()
                .is_none_or(|core| core.claim().is_none() || (sent && !machine.key_installed))
        })
    }

    fn put(&mut self, after_ms: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry(self.now_ms + after_ms, self.order, happening)));
    }

    fn note(&mut self, text: String) {
        if self.history.len() >= HISTORY_MAX {
            self.history.drain(..HISTORY_MAX / 2);
        }
        self.history.push(format!("{:>9.3} s  {text}", self.now_ms as f64 / 1000.0));
    }

    fn is_chaos(&self) -> bool {
        self.now_ms < CHAOS_MS
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToServer { from, life, call, request, tag } => {
                self.at_server(from, life, call, request, tag)
            }
            Happening::ToAgent { to, life, call, response } => self.at_agent(to, life, call, response),
            Happening::CallTimeout { agent, life, call } => {
                if self.lives(agent, life) && self.machines[agent].waits_for == Some(call) {
                    self.machines[agent].waits_for = None;
                    self.step(agent, Event::Answered(Err(Failure::Soon("timed out".into()))));
                }
            }
            Happening::Beat { agent, life } => self.beat(agent, life),
            Happening::Wake { agent, life } => {
                if self.lives(agent, life) {
                    self.step(agent, Event::Tick);
                }
            }
            Happening::StageEnd { agent, life, which } => {
                let runs = self.machines[agent].child.as_ref().is_some_and(|child| child.which == which);
                if self.lives(agent, life) && runs {
                    self.step(agent, Event::StageEnded);
                }
            }
            Happening::StartAgent { agent } => self.start_agent(agent),
            Happening::ServerTick => {
                if self.server_up {
                    self.server.tick();
                }
                self.put(TICK_MS, Happening::ServerTick);
            }
            Happening::ServerStart => {
                self.note("the orchestrator starts".into());
                self.server_up = true;
                self.server.start();
            }
            Happening::Trouble => self.trouble(),
            Happening::Operator => self.operator(),
        }
    }

    fn lives(&self, agent: usize, life: u64) -> bool {
        self.machines[agent].core.is_some() && self.machines[agent].life == life
    }

    // ---- agents ----------------------------------------------------------------------------------------------

    fn start_agent(&mut self, agent: usize) {
        if self.machines[agent].core.is_some() {
            return;
        }
        let run = self.server.store.run.id.clone();
        let outbox = self.machines[agent].start(&run, &mut self.random);
        self.note(format!("agent {} starts, {} outcomes kept", self.machines[agent].name, outbox.len()));
        let life = self.machines[agent].life;
        self.put(limits::HEARTBEAT_INTERVAL_MS, Happening::Beat { agent, life });
        self.step(agent, Event::Start(outbox));
    }

    fn step(&mut self, agent: usize, event: Event) {
        let now_ms = self.now_ms;
        let life = self.machines[agent].life;
        let Some(core) = self.machines[agent].core.as_mut() else {
            return;
        };
        let actions = core.step(event, now_ms);
        let mut follows = Vec::new();
        // A crash between any two actions; more often where their order keeps something from being lost.
        let per_mille = if actions.contains(&Action::Reoffer) { 150 } else { 3 };
        for action in actions {
            if self.is_chaos() && self.random.below(1_000) < per_mille {
                self.crash_agent(agent);
                return;
            }
            follows.extend(self.act(agent, life, action));
            if !self.lives(agent, life) {
                return;
            }
        }
        for event in follows {
            self.step(agent, event);
            if !self.lives(agent, life) {
                return;
            }
        }
        let wake_ms = self.machines[agent].core.as_ref().and_then(|core| core.wake_ms());
        if let Some(wake_ms) = wake_ms.filter(|wake_ms| *wake_ms > now_ms) {
            self.put(wake_ms - now_ms, Happening::Wake { agent, life });
        }
    }

    /// Performs an action; says what follows it.
    fn act(&mut self, agent: usize, life: u64, action: Action) -> Option<Event> {
        match action {
            Action::Persist(memory) => self.home(agent).memory = *memory,
            Action::Send(call) => self.send(agent, life, call),
            Action::StartStage(start) => self.start_stage(agent, life, &start.stage, start.attempt),
            Action::EndStage(by) => {
                if let Some(child) = &mut self.machines[agent].child {
                    child.ended_by = Some(by);
                    let which = child.which.clone();
                    let after_ms = self.random.below(6_000);
                    self.put(after_ms, Happening::StageEnd { agent, life, which });
                }
            }
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
            Action::Flush => return Some(Event::Flushed(true)),
            Action::PowerOff => self.broken.push("the power was touched although settings forbid it".into()),
            Action::Exit => {
                self.note(format!("agent {} ends", self.machines[agent].name));
                self.machines[agent].crash();
                let after_ms = 60_000 + self.random.below(60_000);
                self.put(after_ms, Happening::StartAgent { agent });
            }
            Action::Say(_, text) => {
                let name = self.machines[agent].name;
                self.note(format!("agent {name}: {text}"));
            }
        }
        None
    }

    fn home(&mut self, agent: usize) -> &mut Home {
        self.machines[agent].home.as_mut().expect("an agent that runs has a home")
    }

    fn start_stage(&mut self, agent: usize, life: u64, stage: &Stage, attempt: Attempt) {
        let generation = self.home(agent).memory.generation.0;
        self.tally.stages += 1;
        let name = self.machines[agent].name;
        self.note(format!("agent {name} starts {stage} attempt {attempt} (generation {generation})"));
        if !self.started.insert((generation, stage.to_string(), attempt.0)) {
            self.broken
                .push(format!("{stage} attempt {attempt} was started twice in generation {generation}"));
        }
        let instance = self.home(agent).instance.to_string();
        if !self.started_by.insert((agent, instance, stage.to_string(), attempt.0)) {
            self.broken
                .push(format!("agent {name} starts {stage} attempt {attempt} again from the same home"));
        }
        if self.machines[agent].child.is_some() {
            self.broken.push(format!("agent {name} starts {stage} beside another stage"));
        }
        let which = StageAttempt { stage: stage.clone(), attempt };
        let passes = !self.is_chaos() || !self.random.chance(15);
        self.machines[agent].child = Some(Child { which: which.clone(), passes, ended_by: None });
        // Some take longer than their deadline and the limit of silence together.
        let slow = self.is_chaos() && self.random.chance(4);
        let after_ms = if slow { 1_200_000 } else { 1_000 + self.random.below(500_000) };
        self.put(after_ms, Happening::StageEnd { agent, life, which });
    }

    // ---- trouble ---------------------------------------------------------------------------------------------

    fn crash_agent(&mut self, agent: usize) {
        let name = self.machines[agent].name;
        self.note(format!("agent {name} is killed"));
        self.tally.crashes += 1;
        self.machines[agent].crash();
        let after_ms = 500 + self.random.below(20_000);
        self.put(after_ms, Happening::StartAgent { agent });
    }

    fn trouble(&mut self) {
        if !self.is_chaos() {
            return;
        }
        let next_ms = 5_000 + self.random.below(300_000);
        self.put(next_ms, Happening::Trouble);
        let agent = usize::from(self.random.chance(25));
        match self.random.below(12) {
            0..=2 if self.machines[agent].core.is_some() => self.crash_agent(agent),
            3 | 4 => self.reset_machine(agent),
            5 | 6 => self.kill_server(),
            7 => {
                self.note("a backup is made".into());
                self.backup = Some(self.server.store.clone());
            }
            8 => self.restore(),
            9 => {
                let jump = self.random.below(7_200_000) as i64 - 3_600_000;
                self.note(format!("the orchestrator's clock jumps by {jump} ms"));
                self.server.wall_skew_ms += jump;
            }
            10 => self.clone_home(),
            _ => self.partition(),
        }
    }

    fn reset_machine(&mut self, agent: usize) {
        let loses = self.random.chance(20);
        let name = self.machines[agent].name;
        self.note(format!("machine {name} is reset{}", if loses { " and its home is lost" } else { "" }));
        self.tally.resets += 1;
        let ran = self.machines[agent].core.is_some();
        let mut random = self.random.clone();
        self.machines[agent].reset(loses, &mut random);
        self.random = random;
        self.random.draw();
        if ran {
            let after_ms = 5_000 + self.random.below(120_000);
            self.put(after_ms, Happening::StartAgent { agent });
        }
    }

    fn kill_server(&mut self) {
        if !self.server_up {
            return;
        }
        self.note("the orchestrator is killed".into());
        self.tally.server_deaths += 1;
        self.server_up = false;
        let down_ms = if self.random.chance(20) { 3_600_000 } else { 1_000 + self.random.below(60_000) };
        self.put(down_ms, Happening::ServerStart);
    }

    fn restore(&mut self) {
        if let (Some(backup), true) = (self.backup.clone(), self.server_up) {
            self.note("the backup is restored".into());
            self.tally.restores += 1;
            // Whatever led to the restore may have taken the agents down as well.
            for agent in 0..self.machines.len() {
                if self.machines[agent].core.is_some() && self.random.chance(30) {
                    self.crash_agent(agent);
                }
            }
            self.server.restore(backup);
        }
    }

    /// The other machine comes up with a copy of the first one's disk.
    fn clone_home(&mut self) {
        if self.machines[1].core.is_none() && self.machines[0].home.is_some() {
            self.note("machine b comes up with a copy of a's home".into());
            self.machines[1].home = self.machines[0].home.clone();
            // What an earlier copy started, this one has never heard of.
            self.started_by.retain(|(agent, ..)| *agent != 1);
            self.put(1, Happening::StartAgent { agent: 1 });
        }
    }

    /// The network is gone for a while: everything under way is lost.
    fn partition(&mut self) {
        let gone_ms = 30_000 + self.random.below(1_500_000);
        self.note(format!("the network is gone for {} s", gone_ms / 1000));
        let until_ms = self.now_ms + gone_ms;
        let queue = std::mem::take(&mut self.queue);
        for Reverse(entry) in queue {
            let crosses = matches!(entry.2, Happening::ToServer { .. } | Happening::ToAgent { .. });
            if !crosses {
                self.queue.push(Reverse(entry));
            }
        }
        // What is sent meanwhile is lost as well: the orchestrator is as good as not there, yet it goes on listening.
        self.server_up = false;
        self.server.listen(0);
        self.put(until_ms - self.now_ms, Happening::ServerStart);
    }

    // ---- what must hold --------------------------------------------------------------------------------------

    fn check(&mut self) {
        self.broken.append(&mut self.server.broken);
    }
}
