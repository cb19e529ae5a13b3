//! The world of the model: time, the network, and what goes wrong.

mod act;
mod drains;
mod ends;
mod lines;
mod network;
mod operators;
mod queue;
mod reboots;
mod steps;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Instant;

use groundcrew_agent::control::core::{Action, Event, Failure};
use groundcrew_orchestrator::run::state::Standing;
use groundcrew_orchestrator::store::{LogChunk, Taken};
use groundcrew_protocol::ids::{BootId, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::profile::Profile;

use queue::{Entry, Happening};

use tempfile::TempDir;

use super::agent::Machine;
use super::folder;
use super::logs::HomeId;
use super::random::Random;
use super::server::{Server, Store};
use super::tally::Tally;

/// How long things go wrong, in milliseconds of the world.
const CHAOS_MS: u64 = 3_600_000;
/// Who was cut off has been heard within this, and has heard whose claim it is: some heartbeats.
const HEARD_AGAIN_MS: u64 = 60_000;
/// How long the calm after it may take until the run has ended.
const CALM_MS: u64 = 24 * 3_600_000;
/// How often the deadline task of the model's orchestrator passes.
const TICK_MS: u64 = 5_000;
/// Lines of history that are kept: those of any seed so far, several times over.
const HISTORY_MAX: usize = 100_000;

/// The profile that the model walks.
const STAGES: [&str; 7] = [
    "Inventory",
    "SpecValidate",
    "CPUStress",
    "Package:tuning/apply",
    "Interrupt:restart",
    "Interrupt:reboot",
    "Reporting",
];

/// The world.
pub struct World {
    random: Random,
    now_ms: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    server: Server,
    server_up: bool,
    /// Until then nothing crosses, in either direction.
    cut_until_ms: u64,
    backup: Option<Store>,
    machines: Vec<Machine>,
    tags: u64,
    /// (generation, stage, attempt) of every start.
    started: BTreeSet<(u64, String, u32)>,
    /// (home, stage, attempt) of every start: a home never repeats one, whatever a restore forgot.
    started_by: BTreeSet<(HomeId, String, u32)>,
    /// What each machine was last asked to reboot for, and under which boot.
    asked: BTreeMap<BootId, reboots::Asked>,
    /// Requests for which a machine went down.
    rebooted: BTreeSet<reboots::Asked>,
    /// Where the spools of all homes lie.
    folder: TempDir,
    /// Homes that were made.
    homes: HomeId,
    /// The world's first moment, for what asks for moments. Only what lies between two of them counts.
    base: Instant,
    /// What came to pass, oldest first.
    pub history: Vec<String>,
    broken: Vec<String>,
    /// Drains that operators have asked the orchestrator for.
    drains_made: u64,
    /// A step after which something does not hold, for the test of how that is told.
    break_at: Option<u64>,
    /// What the seed led to, for a summary.
    pub tally: Tally,
}

/// The stage of it that drains the node for itself.
const DRAINS: &str = "Interrupt:restart";

fn profile(at_end: &str) -> Profile {
    let stages: Vec<serde_json::Value> =
        STAGES.iter().map(|name| serde_json::json!({"name": name, "deadline": "2m"})).collect();
    let drains = serde_json::json!([{"name": "restart", "type": "no_op", "drain": true}]);
    let profile = serde_json::json!({"name": "model", "at_end": at_end, "in_service": true, "stage": stages, "interrupt": drains});
    serde_json::from_value(profile).expect("a profile")
}

impl World {
    /// The world of a seed.
    pub fn of(seed: u64) -> World {
        let mut random = Random::of(seed);
        let at_end = if random.chance(30) { "shutdown" } else { "stay" };
        let power_allowed = random.chance(70);
        let server = Server::new(profile(at_end), TokenText::boot(random.bytes32()));
        let machines = vec![
            Machine::new("a", random.chance(60), power_allowed, &mut random),
            Machine::new("b", random.chance(60), power_allowed, &mut random),
        ];
        let mut world = World {
            random,
            now_ms: 0,
            order: 0,
            queue: BinaryHeap::new(),
            server,
            server_up: true,
            cut_until_ms: 0,
            backup: None,
            machines,
            tags: 0,
            started: BTreeSet::new(),
            started_by: BTreeSet::new(),
            asked: BTreeMap::new(),
            rebooted: BTreeSet::new(),
            folder: folder::make(),
            homes: 0,
            base: Instant::now(),
            history: Vec::new(),
            broken: Vec::new(),
            drains_made: 0,
            break_at: None,
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
        if world.random.chance(50) {
            let first = world.random.below(900_000);
            world.put(first, Happening::Drainer);
        }
        world
    }

    /// The same world, in which something does not hold after that many steps.
    pub fn breaking_at(self, step: u64) -> World {
        World { break_at: Some(step), ..self }
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
            if self.break_at == Some(self.tally.steps) {
                self.broken.push(format!("step {} breaks, as it was told to", self.tally.steps));
            }
            if let Some(broken) = self.broken.first() {
                return Err(broken.clone());
            }
            let calm = self.now_ms > CHAOS_MS.max(self.cut_until_ms + HEARD_AGAIN_MS);
            if calm && self.server.store.run.ended().is_some() && self.is_settled() {
                self.tally.completed =
                    u32::from(matches!(self.server.store.run.standing, Standing::Completed { .. }));
                return self.end();
            }
            if self.now_ms > CHAOS_MS + CALM_MS {
                return Err(format!("the calm came to no end: {}", self.server.describe()));
            }
        }
        Err("nothing happens any more".into())
    }

    /// Every chunk of log that came to be taken before the store was taken back, with how it was.
    pub fn traffic(&self) -> &[(LogChunk, Taken)] {
        &self.server.traffic
    }

    /// Every agent that runs and has the claim has sent what it kept.
    fn is_settled(&self) -> bool {
        let current = self.server.store.run.claim.as_ref().map(|claim| claim.number);
        let all_sent = self.machines.iter().all(|machine| {
            let sent = machine
                .home
                .as_ref()
                .is_none_or(|home| home.outbox.iter().all(|(entry, _)| entry.acknowledged));
            machine
                .core
                .as_ref()
                // One with an older claim has yet to hear that.
                .is_none_or(|core| {
                    core.claim().is_none() || (core.claim() == current && sent && !machine.key_installed)
                })
        });
        let has_claim = |agent: &usize| {
            let core = self.machines[*agent].core.as_ref();
            core.is_some_and(|core| core.claim().is_some() && core.claim() == current)
        };
        // Last, because it reads files.
        all_sent && (0..self.machines.len()).filter(has_claim).all(|agent| self.is_undrained(agent))
    }

    fn put(&mut self, after_ms: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry(self.now_ms + after_ms, self.order, happening)));
    }

    fn note(&mut self, text: String) {
        if self.history.len() >= HISTORY_MAX {
            self.history.drain(..HISTORY_MAX / 2);
            self.history[0] = format!("(what came before, {} lines at a time, is let go)", HISTORY_MAX / 2);
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
            Happening::Forward { agent, life } => self.forward(agent, life),
            Happening::LogTimeout { agent, life, call } => self.log_timed_out(agent, life, call),
            Happening::Sync { agent, life } => self.sync(agent, life),
            Happening::Flush { agent, life } => self.flush(agent, life),
            Happening::Reboot { agent, life, which } => self.reboot(agent, life, which),
            Happening::GoDown { agent, boot } => self.go_down(agent, &boot),
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
            Happening::Disk { agent, life, what } => self.disk(agent, life, what),
            Happening::Sighted { agent, life, what, sight } => self.sighted(agent, life, what, sight),
            Happening::Drainer => self.drainer(),
            Happening::HookEnd { agent, life, number, done } => self.hook_ended(agent, life, number, done),
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
        self.homes += 1;
        let outbox = self.machines[agent].start(&run, self.folder.path(), self.homes, &mut self.random);
        self.note(format!("agent {} starts, {} outcomes kept", self.machines[agent].name, outbox.len()));
        let life = self.machines[agent].life;
        self.put(limits::HEARTBEAT_INTERVAL_MS, Happening::Beat { agent, life });
        self.put_disk(agent, life, drains::Disk::WatchOn);
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
        let core = self.machines[agent].core.as_ref();
        let wakes = core.map(|core| [core.wake_ms(), core.hook_wake_ms()]);
        for wake_ms in wakes.into_iter().flatten().flatten().filter(|wake_ms| *wake_ms > now_ms) {
            self.put(wake_ms - now_ms, Happening::Wake { agent, life });
        }
    }

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
        let cut = self.machines[agent].reset(loses, false, &mut random);
        self.cut_lines(cut);
        self.random = random;
        self.random.draw();
        if ran {
            // Some stay off for longer than the profile lets an agent be silent.
            let long = self.random.chance(10);
            let after_ms = if long { 1_500_000 } else { 5_000 + self.random.below(120_000) };
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
            if let Some(old) = &self.machines[1].home {
                std::fs::remove_dir_all(&old.spool).expect("a spool's folder can be removed");
            }
            self.homes += 1;
            let mut home = self.machines[0].home.clone().expect("it is there");
            self.server.ledger.copy(home.id);
            home.id = self.homes;
            home.spool = self.folder.path().join(home.id.to_string());
            folder::copy(&self.machines[0].home.as_ref().expect("it is there").spool, &home.spool);
            // Its marker is of the first one's boot.
            let marker =
                std::mem::replace(&mut home.marker, self.folder.path().join(format!("{}-marker", home.id)));
            folder::copy(&marker, &home.marker);
            self.machines[1].drains.told_idle = false;
            self.machines[1].node.forget();
            home.synced = folder::lengths(&home.spool);
            home.unsynced.clear();
            self.machines[1].home = Some(home);
            // The file of keys is on the disk: the one that was there before is gone with what was.
            self.machines[1].key_installed = self.machines[0].key_installed;
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
        // What is sent meanwhile is lost as well. The orchestrator listens all the while, and counts the silence.
        self.cut_until_ms = self.cut_until_ms.max(until_ms);
    }
}
