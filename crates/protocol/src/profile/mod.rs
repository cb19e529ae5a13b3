//! Profiles: the stages of a run in order, what hardware is expected, and what may be written to.
//!
//! A profile is TOML. [`Profile::parse`] reads it; a run keeps the profile that it was created with.

mod counters;
mod cpu_stress;
mod gpu;
mod hooks;
mod interrupt;
mod load;
mod memory;
mod network;
mod package;
mod parse;
mod part;
mod psu;
mod smart;
mod soak;
mod stage;
mod storage;

#[cfg(test)]
mod tests;

pub(crate) use parse::{COUNT_MAX, LIST_MAX, MTU_MIN, SIZE_MAX, SIZE_MIN, SPEED_MBPS_MAX, SPEED_MTS_MAX};
pub(crate) use part::TEXT_BYTES_MAX;

pub use counters::CounterSettings;
pub use cpu_stress::CpuStressSettings;
pub use gpu::{GpuDiag, GpuSettings};
pub use hooks::{HOOKS_BYTES_MAX, HookCommand, Hooks};
pub use interrupt::{InterruptKind, InterruptSettings, PackageInterrupt};
pub use load::Leave;
pub use memory::{MEMORY_METHODS, MemorySettings};
pub use network::{NetworkPeer, NetworkSettings, ORCHESTRATOR_PEER};
pub use package::PackageSettings;
pub use psu::PsuSettings;
pub use smart::{SelfTest, SmartSettings};
pub use soak::SoakSettings;
pub use storage::{StorageSettings, WrittenFile};

use serde::{Deserialize, Serialize};

use crate::ids::ProfileName;
use crate::limits;
use crate::stage::Stage;
use crate::text_enum::text_enum;
use crate::time::span;

text_enum! {
    /// What follows the end of a run: Completed, a cancel, a release.
    AtEnd {
        /// The machine stays on and the agent idles.
        Stay = "stay",
        /// The agent powers the machine off, where its own settings allow that.
        Shutdown = "shutdown",
    }
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What follows the end of a run.
    #[serde(default = "stay")]
    pub at_end: AtEnd,
    /// On an installed system, which others may be working on, stages may put a load on the machine.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_service: bool,
    /// How long things may take.
    #[serde(default)]
    pub limits: RunLimits,
    /// The stages in order. `SpecValidate` follows `Inventory` and `Reporting` ends the list, written or not.
    #[serde(rename = "stage")]
    pub stages: Vec<StageSpec>,
    /// The packages that its stages `Package:NAME/MODE` name.
    #[serde(rename = "package", default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PackageSettings>,
    /// The interrupts that its stages `Interrupt:NAME` name.
    #[serde(rename = "interrupt", default, skip_serializing_if = "Vec::is_empty")]
    pub interrupts: Vec<InterruptSettings>,
    /// The hardware that the machine should have.
    #[serde(default)]
    pub expected: Expected,
    /// What may be written to. Empty: nothing.
    #[serde(default)]
    pub write: WriteAllowance,
}

impl Profile {
    /// Writes the profile as [`Profile::parse`] reads it, with every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a profile holds nothing that TOML has no form for")
    }
}

/// A profile was refused: where, what was found there and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BadProfile {
    /// Line of the text, counted from 1: that of the value, or of its table where it is not written.
    pub line: usize,
    /// Dotted key, as `stage[2].cpu_stress.duration` for the second stage; empty for the profile as a whole.
    pub key: String,
    /// What was found: a text in quotes, a number as it is written, or a few words.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl std::fmt::Display for BadProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BadProfile { line, key, found, expected } = self;
        let comma = if key.is_empty() { "" } else { ", " };
        write!(f, "line {line}{comma}{key}: found {found}, expected {expected}")
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn stay() -> AtEnd {
    AtEnd::Stay
}

/// How long a run waits for what. All in milliseconds here and as text (`"15m"`) in TOML and JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RunLimits {
    /// Silence of the agent after which the run is held.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub silence: u64,
    /// Time in which a fresh run must be claimed, else it is held.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub claim_within: u64,
    /// Time that a hold waits for an operator, else the run is cancelled.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub hold: u64,
    /// Time in which a reboot that was asked for must be seen, else the run is held.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reboot: u64,
    /// Crashes of the agent in one stage that hold the run.
    pub crashes: u32,
}

impl Default for RunLimits {
    fn default() -> Self {
        RunLimits {
            silence: 15 * 60_000,
            claim_within: 24 * 3_600_000,
            hold: 7 * 86_400_000,
            reboot: limits::REBOOT_DEADLINE_MS,
            crashes: 3,
        }
    }
}

/// A stage of a profile. Agents are told it: a field that they do not know is passed over (rule 11 of the design), here
/// and in what it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StageSpec {
    /// Its name, as `CPUStress`.
    pub name: Stage,
    /// The agent ends the stage after this; the orchestrator holds the run after this and the limit of silence.
    #[serde(default = "stage_deadline", with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub deadline: u64,
    /// On an installed system this stage may put its load on the machine while others work there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_service: bool,
    /// The node is drained for it first, on an installed system too: its hooks run, and nothing else starts until it has ended.
    /// An interrupt's drain stands with the interrupt.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
    /// Names of checks that must be observed even where the hardware says that it has no source for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    /// What the counters around a hardware stage may count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<CounterSettings>,
    /// Settings of CPUStress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_stress: Option<CpuStressSettings>,
    /// Settings of SMART.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smart: Option<SmartSettings>,
    /// Settings of Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySettings>,
    /// Settings of Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSettings>,
    /// Settings of Network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSettings>,
    /// Settings of GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuSettings>,
    /// Settings of PSU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psu: Option<PsuSettings>,
    /// Settings of Soak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakSettings>,
    /// The package of a stage `Package:NAME/MODE`, as an agent is told it. A profile lists it under `[[package]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageSettings>,
    /// The interrupt of a stage `Interrupt:NAME` or `Package:NAME/interrupt`, as an agent is told it. A profile lists it
    /// under `[[interrupt]]` or `[package.interrupt]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<InterruptSettings>,
}

impl StageSpec {
    /// A stage with nothing but defaults.
    pub fn of(name: Stage) -> StageSpec {
        let deadline = if name.is_interrupt() {
            limits::INTERRUPT_DEADLINE_MS
        } else if name == Stage::Psu {
            limits::PSU_DEADLINE_MS
        } else if [Stage::Smart, Stage::Gpu].contains(&name) {
            limits::SELF_TEST_DEADLINE_MS
        } else {
            limits::STAGE_DEADLINE_MS
        };
        StageSpec {
            name,
            deadline,
            in_service: false,
            drain: false,
            require: Vec::new(),
            counters: None,
            cpu_stress: None,
            smart: None,
            memory: None,
            storage: None,
            network: None,
            gpu: None,
            psu: None,
            soak: None,
            package: None,
            interrupt: None,
        }
    }
}

fn stage_deadline() -> u64 {
    limits::STAGE_DEADLINE_MS
}

/// The hardware that a machine should have. What is not written is not compared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Expected {
    /// Processors.
    pub cpu: ExpectedCpu,
    /// Memory.
    pub memory: ExpectedMemory,
    /// Number of disks; none written: not compared.
    pub disk_count: Option<Count>,
    /// Disks by serial, or by model and size.
    #[serde(rename = "disk")]
    pub disks: Vec<ExpectedDisk>,
    /// Number of network interfaces that are not virtual.
    pub nic_count: Option<Count>,
    /// Network interfaces.
    #[serde(rename = "nic")]
    pub nics: Vec<ExpectedNic>,
    /// Number of GPUs on the PCI bus that are there to compute; what comes with a CPU or only shows a console is none.
    pub gpu_count: Option<Count>,
    /// GPUs by what they are.
    #[serde(rename = "gpu")]
    pub gpus: Vec<ExpectedGpu>,
    /// Firmware and maker.
    pub system: ExpectedSystem,
}

/// A count with a tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(from = "CountText")]
pub struct Count {
    /// Fewer fail.
    pub at_least: u32,
    /// More warn.
    pub at_most: u32,
}

/// A count as it is written: a number, or bounds.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a whole number, or { at_least = N, at_most = M }")]
enum CountText {
    Exactly(u32),
    Bounds { at_least: u32, at_most: u32 },
}

impl From<CountText> for Count {
    fn from(text: CountText) -> Count {
        match text {
            CountText::Exactly(count) => Count { at_least: count, at_most: count },
            CountText::Bounds { at_least, at_most } => Count { at_least, at_most },
        }
    }
}

/// Expected processors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedCpu {
    /// Text that the model name holds.
    pub model: Option<String>,
    /// Sockets.
    pub sockets: Option<Count>,
    /// Cores over all sockets.
    pub cores: Option<Count>,
    /// CPUs online.
    pub logical: Option<Count>,
    /// Microcode revision.
    pub microcode: Option<String>,
}

/// Expected memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedMemory {
    /// GiB installed.
    pub total_gib: Option<f64>,
    /// How much less or more may be found, in percent. Where nothing is written: 0.1 of the sum of the modules, and 5 of what the
    /// kernel manages, which keeps some for itself.
    pub tolerance_percent: Option<f64>,
    /// Modules installed.
    pub dimms: Option<Count>,
    /// Speed in MT/s that every module must have at least.
    pub speed_mts: Option<u32>,
    /// Text that every module's part number holds.
    pub part: Option<String>,
}

/// An expected disk. By serial where one is written; otherwise any disk of that model and size, each counted once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ExpectedDisk {
    /// Serial.
    pub serial: Option<String>,
    /// Text that the model holds.
    pub model: Option<String>,
    /// Size in GB (10^9 bytes), as makers write it.
    pub size_gb: Option<f64>,
    /// How far the size may be off, in percent; 1 where nothing is written.
    pub tolerance_percent: Option<f64>,
    /// WWN, EUI64 or NGUID.
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
}

/// An expected network interface. By MAC where one is written; otherwise any with that driver and speed, each counted once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedNic {
    /// MAC address in lower case.
    pub mac: Option<String>,
    /// Driver.
    pub driver: Option<String>,
    /// Speed in Mb/s that the link must have at least.
    pub speed_mbps: Option<u32>,
    /// MTU.
    pub mtu: Option<u32>,
}

/// Expected GPUs of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExpectedGpu {
    /// PCI ids of vendor and device in lower case, as `10de:2330`.
    pub device: String,
    /// How many there are; one where nothing is written.
    #[serde(default = "one")]
    pub count: Count,
}

fn one() -> Count {
    Count { at_least: 1, at_most: 1 }
}

/// Expected firmware and maker.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedSystem {
    /// Maker.
    pub vendor: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// Firmware version.
    pub firmware_version: Option<String>,
}

/// What may be written to (rule 9 of the design). Nothing is unless a run's wipe override is armed besides.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct WriteAllowance {
    /// Disks, each by serial, size and WWN.
    pub disks: Vec<ExpectedDisk>,
    /// Disks with a partition table, file system or other signature may be written over.
    pub existing_data: bool,
    /// Disks behind another transport than local SATA, SAS and NVMe may be written over.
    pub shared: bool,
}
