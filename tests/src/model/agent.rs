//! An agent of the model: the real control loop over a home that is a value.

use std::collections::BTreeMap;

use groundcrew_agent::control::core::{Core, EndedBy, Facts};
use groundcrew_agent::control::memory::Memory;
use groundcrew_protocol::ids::{BootId, RandomId, RunId, Sha256Hex};
use groundcrew_protocol::wire::{HomeKind, OutboxEntry, StageAttempt};

use super::random::Random;

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
    /// True where its home was ever lost.
    pub lost_home: bool,
}

/// A boot id of random bytes.
pub fn random_boot(random: &mut Random) -> BootId {
    let hex = groundcrew_protocol::ids::hex(&random.bytes16());
    let text = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    text.parse().expect("a boot id")
}

impl Machine {
    /// A machine that is switched on, without an agent yet.
    pub fn new(name: &'static str, durable: bool, random: &mut Random) -> Machine {
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
            lost_home: false,
        }
    }

    /// Starts the agent from what its home holds; makes the home where there is none.
    pub fn start(&mut self, run: &RunId, random: &mut Random) -> Vec<OutboxEntry> {
        self.life += 1;
        let home = self.home.get_or_insert_with(|| Home {
            instance: RandomId::from_bytes(random.bytes16()),
            memory: Memory::new(run.clone(), random.bytes32()),
            outbox: Vec::new(),
            refused: Vec::new(),
        });
        let facts = Facts {
            instance: home.instance.clone(),
            session: RandomId::from_bytes(random.bytes16()),
            boot_id: Some(self.boot.clone()),
            boot_epoch: String::new(),
            home: if self.durable { HomeKind::Durable } else { HomeKind::Volatile },
            ip: self.name.to_owned(),
            serial: Some(self.serial.clone()),
            macs: Vec::new(),
            power_allowed: false,
            keys_allowed: true,
        };
        self.core = Some(Core::new(facts, home.memory.clone(), random.draw()));
        home.outbox.iter().map(|(entry, _)| entry.clone()).collect()
    }

    /// The agent's process dies, and its stage with it.
    pub fn crash(&mut self) {
        self.core = None;
        self.child = None;
        self.waits_for = None;
    }

    /// The power goes and comes back.
    pub fn reset(&mut self, loses_home: bool, random: &mut Random) {
        self.crash();
        self.boot = random_boot(random);
        if loses_home || !self.durable {
            self.home = None;
            self.lost_home = true;
            self.key_installed = false;
        }
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
