//! Names of checks, shared by who plans, who observes, who requires and who reads.

use crate::stage::Stage;

/// Inventory: processors could be read.
pub const CPU: &str = "cpu";
/// Inventory: memory could be read.
pub const MEMORY: &str = "memory";
/// Inventory: SMBIOS named the memory modules.
pub const DIMMS: &str = "dimms";
/// Inventory: disks could be read.
pub const DISKS: &str = "disks";
/// Inventory: network interfaces could be read.
pub const NICS: &str = "nics";
/// Inventory: each GPU on the PCI bus has a driver.
pub const GPUS: &str = "gpus";
/// Inventory: the firmware names the machine.
pub const DMI: &str = "dmi";
/// Inventory: the firmware names its version.
pub const FIRMWARE: &str = "firmware";
/// Inventory: power supplies could be read.
pub const PSUS: &str = "psus";
/// CPUStress: operations whose result was wrong.
pub const MISCOMPARES: &str = "miscompares";
/// CPUStress: bogo operations per second.
pub const RATE: &str = "rate";
/// CPUStress: share of the time, in percent, that CPUs were throttled.
pub const THROTTLING: &str = "throttling";
/// CPUStress: mean frequency of the slowest CPU under load.
pub const FREQUENCY: &str = "frequency";
/// CPUStress: the load ran for as long as it was meant to.
pub const DURATION: &str = "duration";
/// The first stage: the machine is the one that its node is registered as.
pub const IDENTITY: &str = "identity";
/// Any stage: the machine was not reset in it.
pub const UNEXPECTED_RESET: &str = "unexpected_reset";
/// Any stage of an agent of protocol 1, which reports no checks: its word.
pub const AGENT_WORD: &str = "agent_word";
/// Interrupt: the machine came back under another boot id after a reboot that was asked for.
pub const REBOOTED: &str = "rebooted";
/// Interrupt: each of its commands was done, now or before.
pub const COMMANDS: &str = "commands";
/// Package: every step of the mode was done, now or before.
pub const STEPS: &str = "steps";
/// Any stage: the agent knows how to do it.
pub const STAGE_KNOWN: &str = "stage_known";

/// The parts of the inventory, each a check of the stage Inventory.
pub const INVENTORY_CHECKS: [&str; 9] = [CPU, MEMORY, DIMMS, DISKS, NICS, GPUS, DMI, FIRMWARE, PSUS];

/// The checks of the stage CPUStress.
pub const CPU_STRESS_CHECKS: [&str; 5] = [MISCOMPARES, DURATION, RATE, THROTTLING, FREQUENCY];

/// The checks of a stage. None where this version does not do it, so that an agent which does may have others, and where its
/// settings decide.
pub fn of(stage: &Stage) -> &'static [&'static str] {
    match stage {
        Stage::Inventory => &INVENTORY_CHECKS,
        Stage::CpuStress => &CPU_STRESS_CHECKS,
        Stage::Package { mode, .. } if !mode.starts_with("interrupt") => &[STEPS],
        Stage::SpecValidate
        | Stage::Smart
        | Stage::Memory
        | Stage::Storage
        | Stage::Network
        | Stage::Gpu
        | Stage::Soak
        | Stage::Psu
        | Stage::Package { .. }
        | Stage::Interrupt { .. }
        | Stage::Reporting
        | Stage::Unknown(_) => &[],
    }
}
