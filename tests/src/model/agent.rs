//! An agent of the model: the real control loop over a home that is a value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use groundcrew_agent::control::core::{Core, EndedBy, Facts};
use groundcrew_agent::control::hooks::Kept;
use groundcrew_agent::control::memory::Memory;
use groundcrew_agent::spool::{Kind, Message, Spool};
use groundcrew_orchestrator::store::LogChunk;
use groundcrew_protocol::ids::{BootId, ClaimNumber, RandomId, RunId, Sha256Hex};
use groundcrew_protocol::wire::{HomeKind, OutboxEntry, StageAttempt};

use super::drains::{self, Drains};
use super::folder;
use super::hooks::Node;
use super::logs::{HomeId, LineId};
use super::random::Random;

/// What a small spool may hold: four segments.
const SMALL_SPOOL_BYTES: u64 = 64 * 1024;

/// What is on an agent's disk.
#[derive(Debug, Clone)]
pub struct Home {
    /// Its random id.
    pub instance: RandomId,
    /// What the control loop keeps.
    pub memory: Memory,
    /// Outcomes, each with the tag that names it in the world.
    pub outbox: Vec<(OutboxEntry, u64)>,
    /// Outcomes that were refused for good.
    pub refused: Vec<(StageAttempt, u64)>,
    /// Its number; a copy has another.
    pub id: HomeId,
    /// The folder of its log spool.
    pub spool: PathBuf,
    /// How much of each segment outlives a power cut.
    pub synced: BTreeMap<PathBuf, u64>,
    /// Lines that were written since.
    pub unsynced: Vec<LineId>,
    /// What the spool may hold.
    pub spool_bytes_max: u64,
    /// The folder of its drain marker.
    pub marker: PathBuf,
    /// What its hooks owe.
    pub hooks: Kept,
}

/// A stage that runs.
#[derive(Debug, Clone)]
pub struct Child {
    /// Which.
    pub which: StageAttempt,
    /// True where it will pass.
    pub passes: bool,
    /// Set once it was told to end.
    pub ended_by: Option<EndedBy>,
    /// True once it may reboot the machine: it runs the command in a moment.
    pub may_reboot: bool,
}

/// A message that was sent.
#[derive(Debug)]
pub struct UnderWay {
    /// Number of its call.
    pub call: u64,
    /// The message.
    pub message: Message,
    /// What it holds.
    pub chunk: LogChunk,
    /// How many restores had been when it was sent.
    pub restores: u32,
}

/// The sender of log lines: one message is under way at a time.
#[derive(Debug, Default)]
pub struct Forwarder {
    /// The message that is waited for.
    pub under_way: Option<UnderWay>,
    /// Number of the last call.
    pub calls: u64,
    /// Nothing is sent before this.
    pub pause_until_ms: u64,
    /// Nothing is sent under this claim any more.
    pub displaced: Option<ClaimNumber>,
    /// A look at the spool is planned for then.
    pub planned_ms: Option<u64>,
    /// A sync is planned.
    pub syncs: bool,
}

/// A machine with an agent on it.
#[derive(Debug)]
pub struct Machine {
    /// Its name in histories.
    pub name: &'static str,
    /// Its serial.
    pub serial: String,
    /// The boot that it is in.
    pub boot: BootId,
    /// True where the home outlives the power.
    pub durable: bool,
    /// Its disk.
    pub home: Option<Home>,
    /// The agent, while it runs.
    pub core: Option<Core>,
    /// Counts the agent's lives: what belongs to an earlier one is past.
    pub life: u64,
    /// The stage that runs.
    pub child: Option<Child>,
    /// Number of the last control call.
    pub calls: u64,
    /// The control call that is waited for.
    pub waits_for: Option<u64>,
    /// The heartbeat that is waited for.
    pub heartbeats: u64,
    /// True while the key of a hold is in authorized_keys.
    pub key_installed: bool,
    /// The spool of log lines, while the agent runs.
    pub log: Option<Spool>,
    /// What sends them.
    pub forwarder: Forwarder,
    /// Until when outbox and spool may be acknowledged before the power goes, and the streams that must be.
    pub flushing: Option<(u64, u64)>,
    /// True where its settings let it be switched off.
    pub power_allowed: bool,
    /// What its agent makes of the marker.
    pub drains: Drains,
    /// Its hooks, and what they have done.
    pub node: Node,
}

/// A boot id of random bytes.
pub fn random_boot(random: &mut Random) -> BootId {
    let hex = groundcrew_protocol::ids::hex(&random.bytes16());
    let text = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    text.parse().expect("a boot id")
}

impl Machine {
    /// A machine that is switched on, without an agent yet.
    pub fn new(name: &'static str, durable: bool, power_allowed: bool, random: &mut Random) -> Machine {
        Machine {
            name,
            serial: format!("S-{name}"),
            boot: random_boot(random),
            durable,
            home: None,
            core: None,
            life: 0,
            child: None,
            calls: 0,
            waits_for: None,
            heartbeats: 0,
            key_installed: false,
            log: None,
            forwarder: Forwarder::default(),
            flushing: None,
            power_allowed,
            drains: Drains::default(),
            node: Node::with(random.chance(50)),
        }
    }

    /// Starts the agent from what its home holds; makes the home in `folder`, as number `id`, where there is none.
    pub fn start(&mut self, run: &RunId, folder: &Path, id: HomeId, random: &mut Random) -> Vec<OutboxEntry> {
        self.life += 1;
        let home = self.home.get_or_insert_with(|| {
            // A few spools are so small that they overflow in an outage.
            let spool_bytes_max = if random.chance(10) { SMALL_SPOOL_BYTES } else { 1 << 24 };
            let spool = folder.join(id.to_string());
            let marker = folder.join(format!("{id}-marker"));
            for folder in [&spool, &marker] {
                std::fs::create_dir_all(folder).expect("a folder for a home");
            }
            Home {
                instance: RandomId::from_bytes(random.bytes16()),
                memory: Memory::new(run.clone(), random.bytes32()),
                outbox: Vec::new(),
                refused: Vec::new(),
                id,
                spool,
                synced: BTreeMap::new(),
                unsynced: Vec::new(),
                spool_bytes_max,
                marker,
                hooks: Kept::default(),
            }
        });
        self.drains.begin(&home.marker, &self.boot);
        let opened = Spool::open_in(&home.spool, run, Kind::Log, home.spool_bytes_max);
        let (spool, _notes) = opened.expect("a spool opens after whatever happened to it");
        self.log = Some(spool);
        self.forwarder = Forwarder { calls: self.forwarder.calls, ..Forwarder::default() };
        let facts = Facts {
            instance: home.instance.clone(),
            session: RandomId::from_bytes(random.bytes16()),
            boot_id: Some(self.boot.clone()),
            boot_epoch: drains::epoch(&self.boot),
            home: if self.durable { HomeKind::Durable } else { HomeKind::Volatile },
            installed: self.durable,
            ip: self.name.to_owned(),
            serial: Some(self.serial.clone()),
            macs: Vec::new(),
            runtime: None,
            power_allowed: self.power_allowed,
            reboot_allowed: true,
            keys_allowed: true,
            drain_max_age_ms: drains::MAX_AGE_MS,
        };
        let core = Core::new(facts, home.memory.clone(), random.draw());
        self.core = Some(core.with_hooks(self.node.hooks(), home.hooks.clone()));
        home.outbox.iter().map(|(entry, _)| entry.clone()).collect()
    }

    /// The agent's process dies, and its stage with it.
    pub fn crash(&mut self) {
        self.core = None;
        self.child = None;
        self.waits_for = None;
        self.log = None;
        self.flushing = None;
        self.drains.end();
        self.node.end();
        self.forwarder = Forwarder { calls: self.forwarder.calls, ..Forwarder::default() };
    }

    /// The machine boots again. Says which lines may be gone by it: none after an ordered reboot of a durable home.
    pub fn reset(&mut self, loses_home: bool, ordered: bool, random: &mut Random) -> Vec<LineId> {
        self.crash();
        self.drains.told_idle = false;
        self.node.boot();
        self.boot = random_boot(random);
        if loses_home || !self.durable {
            if let Some(home) = self.home.take() {
                for folder in [&home.spool, &home.marker] {
                    std::fs::remove_dir_all(folder).expect("a home's folder can be removed");
                }
                // Nobody knows any more what a hook has done.
                self.node.forget();
            }
            self.key_installed = false;
            return Vec::new();
        }
        let Some(home) = self.home.as_mut().filter(|_| !ordered) else { return Vec::new() };
        folder::cut(&home.spool, &home.synced, random);
        home.synced = folder::lengths(&home.spool);
        std::mem::take(&mut home.unsynced)
    }

    /// True where the spool holds no stream below that number, and the outbox nothing that is to be sent.
    pub fn is_flushed(&self, below: u64) -> bool {
        let sent = |home: &Home| home.outbox.iter().all(|(entry, _)| entry.acknowledged);
        let oldest = self.log.as_ref().and_then(|log| log.status().oldest);
        self.home.as_ref().is_none_or(sent) && oldest.is_none_or(|oldest| oldest >= below)
    }

    /// The token that a call shows.
    pub fn token(&self, by_boot_token: bool, boot_token: &Sha256Hex) -> Option<Sha256Hex> {
        if by_boot_token {
            return Some(boot_token.clone());
        }
        self.home.as_ref().map(|home| home.memory.token.sha256())
    }

    /// The outcomes by name, for the check at the end.
    pub fn outcomes(&self) -> BTreeMap<(StageAttemptKey, u64), bool> {
        let entries = self.home.iter().flat_map(|home| &home.outbox);
        entries
            .map(|(entry, tag)| (((entry.stage.to_string(), entry.attempt.0), *tag), entry.acknowledged))
            .collect()
    }
}

/// Stage and attempt as plain values.
pub type StageAttemptKey = (String, u32);
