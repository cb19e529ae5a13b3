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
/// Inventory: network interfaces could be read. Network: how many there are that are not virtual, where the profile expects some.
pub const NICS: &str = "nics";
/// Inventory: each GPU on the PCI bus has a driver. GPU: how many there are, where the profile expects some.
pub const GPUS: &str = "gpus";
/// Inventory: the firmware names the machine.
pub const DMI: &str = "dmi";
/// Inventory: the firmware names its version.
pub const FIRMWARE: &str = "firmware";
/// Inventory: power supplies could be read.
pub const PSUS: &str = "psus";
/// Inventory: lanes of the PCIe link of an NVMe disk or a network interface that work, of those that it and its port have, in
/// percent.
pub const PCIE_WIDTH: &str = "pcie_width";
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
/// SMART: the disk's own word on its health.
pub const HEALTH: &str = "health";
/// SMART, ATA: attributes that foretell a failure and are at their threshold.
pub const PREFAIL: &str = "prefail_attributes";
/// SMART, ATA: such attributes that were at it some time ago.
pub const PAST_THRESHOLD: &str = "past_prefail_attributes";
/// SMART, ATA: sectors that were replaced.
pub const REALLOCATED: &str = "reallocated_sectors";
/// SMART, ATA: errors that no correction mended.
pub const REPORTED_UNCORRECTABLE: &str = "reported_uncorrectable";
/// SMART, ATA: commands that took too long. Only warns: makers count it in their own ways.
pub const COMMAND_TIMEOUTS: &str = "command_timeouts";
/// SMART, ATA: sectors that wait to be replaced.
pub const PENDING: &str = "pending_sectors";
/// SMART, ATA: sectors that the disk's own scans could not read.
pub const OFFLINE_UNCORRECTABLE: &str = "offline_uncorrectable";
/// SMART, ATA: errors on the cable while the stage had the disk.
pub const CRC_ERRORS: &str = "crc_errors";
/// SMART, SAS: defects that came since the disk was made.
pub const GROWN_DEFECTS: &str = "grown_defects";
/// SMART, SAS: errors of reads, writes and verifies that no correction mended.
pub const UNCORRECTED_ERRORS: &str = "uncorrected_errors";
/// SMART, NVMe: the bits of its critical warning.
pub const CRITICAL_WARNING: &str = "critical_warning";
/// SMART, NVMe: how far its spare is over its own threshold, in percent.
pub const SPARE: &str = "spare";
/// SMART, NVMe: how much of its life it has used, in percent.
pub const PERCENTAGE_USED: &str = "percentage_used";
/// SMART, NVMe: errors of the media or of its data's integrity.
pub const MEDIA_ERRORS: &str = "media_errors";
/// SMART: the log of self-tests holds a failed one. Of an ATA disk one that no later one has made good.
pub const FAILED_SELF_TESTS: &str = "failed_self_tests";
/// SMART, ATA: errors that the disk's own log has counted.
pub const ERROR_LOG: &str = "error_log";
/// SMART: hours under power.
pub const POWER_ON_HOURS: &str = "power_on_hours";
/// SMART: TB that were written to it.
pub const WRITTEN: &str = "written";
/// SMART: the disk's own test of itself.
pub const SELF_TEST: &str = "self_test";
/// Memory: share of the machine's memory, in percent, that was tested.
pub const MEMORY_TESTED: &str = "memory_tested";
/// Storage: reads of a disk that failed.
pub const IO_ERRORS: &str = "io_errors";
/// Storage: share of a disk, in percent, that was read where all of it was to be.
pub const SURFACE: &str = "surface";
/// Storage: MB/s of reading a disk from its beginning on.
pub const SEQUENTIAL_READ: &str = "sequential_read";
/// Storage: what 99 of 100 such reads ended within, in milliseconds.
pub const SEQUENTIAL_LATENCY: &str = "sequential_latency";
/// Storage: reads per second here and there on a disk.
pub const RANDOM_READ: &str = "random_read";
/// Storage: what 99 of 100 such reads ended within, in milliseconds.
pub const RANDOM_LATENCY: &str = "random_latency";
/// Storage, Network: speed that the PCIe link of an NVMe disk or of a card reached under load, of the one that it and its port can,
/// in percent.
pub const PCIE_SPEED: &str = "pcie_speed";
/// Storage: errors of writing a file and reading it back, in the folder that the profile names.
pub const FILE_ERRORS: &str = "file_errors";
/// Storage, destructive: errors of writing over a disk and reading it back by checksums.
pub const WRITE_ERRORS: &str = "write_errors";
/// Storage, destructive: share of what was to be written over, in percent, that was written and read back.
pub const OVERWRITTEN: &str = "overwritten";
/// Storage, destructive: MB/s of writing over a disk from its beginning on.
pub const WRITE_RATE: &str = "write_rate";
/// Storage, destructive: what 99 of 100 such writes ended within, in milliseconds.
pub const WRITE_LATENCY: &str = "write_latency";
/// Network: interfaces with a device that have a link.
pub const LINKS: &str = "links";
/// Network: Mb/s that an interface's link negotiated.
pub const LINK_SPEED: &str = "link_speed";
/// Network: a link that negotiated less than its interface supports. Owed by none, and there where one did.
pub const LINK_HELD_BACK: &str = "link_held_back";
/// Network: whether a link sends and receives at a time.
pub const DUPLEX: &str = "duplex";
/// Network: Mb/s to a peer.
pub const SEND_RATE: &str = "send_rate";
/// Network: the same as a share of the link's speed, in percent.
pub const SEND_SHARE: &str = "send_share";
/// Network: share of the segments to a peer, in percent, that were sent again.
pub const SEND_RETRANSMITS: &str = "send_retransmits";
/// Network: Mb/s from a peer.
pub const RECEIVE_RATE: &str = "receive_rate";
/// Network: the same as a share of the link's speed, in percent.
pub const RECEIVE_SHARE: &str = "receive_share";
/// Network: share of the segments from a peer, in percent, that were sent again.
pub const RECEIVE_RETRANSMITS: &str = "receive_retransmits";
/// PSU: power supplies that are there.
pub const SUPPLIES: &str = "supplies";
/// PSU: a supply is there and has no failure.
pub const SUPPLY: &str = "supply";
/// PSU: one supply may fail, by the machine's own word.
pub const REDUNDANCY: &str = "redundancy";
/// PSU: what a supply takes in, in watts.
pub const INPUT_POWER: &str = "input_power";
/// PSU: a fan turns as it should.
pub const FANS: &str = "fans";
/// PSU: fans that turn as they should.
pub const FAN_COUNT: &str = "fan_count";
/// PSU: the BMC's sensors of temperature are within their thresholds.
pub const TEMPERATURES: &str = "temperatures";
/// PSU: what the whole machine takes, in watts.
pub const SYSTEM_POWER: &str = "system_power";
/// Around a stage: memory errors that nothing corrected (EDAC), by module.
pub const MEMORY_UNCORRECTED: &str = "memory_uncorrected";
/// Around a stage: memory errors that were corrected (EDAC), by module.
pub const MEMORY_CORRECTED: &str = "memory_corrected";
/// Around a stage: errors of PCIe links that nothing corrected (AER), by device.
pub const PCIE_UNCORRECTED: &str = "pcie_uncorrected";
/// Around a stage: errors of PCIe links that were corrected (AER), by device.
pub const PCIE_CORRECTED: &str = "pcie_corrected";
/// Around a stage: machine check exceptions, by CPU.
pub const MACHINE_CHECKS: &str = "machine_checks";
/// Around a stage: damaged packets, by network interface.
pub const NIC_ERRORS: &str = "nic_errors";
/// Around a stage: carriers that network interfaces lost.
pub const LOST_CARRIERS: &str = "lost_carriers";
/// Around a stage: times that a CPU or its package was throttled for its heat.
pub const THROTTLE_EVENTS: &str = "throttle_events";
/// Around a load: a sensor passed its critical limit, and the load was stopped.
pub const CRITICAL_TEMPERATURE: &str = "critical_temperature";
/// Around a stage: events that came to the BMC's log.
pub const SEL_EVENTS: &str = "sel_events";
/// GPU: a GPU on the bus is known to its driver.
pub const GPU_DRIVER: &str = "gpu_driver";
/// GPU: its temperature.
pub const GPU_TEMPERATURE: &str = "gpu_temperature";
/// GPU: errors since its driver was loaded that nothing corrected.
pub const GPU_ECC_UNCORRECTED: &str = "gpu_ecc_uncorrected";
/// GPU: errors since its driver was loaded that were corrected.
pub const GPU_ECC_CORRECTED: &str = "gpu_ecc_corrected";
/// GPU: errors in its life that nothing corrected.
pub const GPU_ECC_LIFETIME: &str = "gpu_ecc_lifetime";
/// GPU: pages of memory that were retired for errors of two bits.
pub const GPU_RETIRED_PAGES: &str = "gpu_retired_pages";
/// GPU: rows of memory that were replaced because of an error that nothing corrected.
pub const GPU_REMAPPED_ROWS: &str = "gpu_remapped_rows";
/// GPU: a row could not be replaced.
pub const GPU_REMAP_FAILURE: &str = "gpu_remap_failure";
/// GPU: a row waits for a reset to be replaced.
pub const GPU_PENDING: &str = "gpu_remap_pending";
/// GPU: lanes of its link that work, of those that there are, in percent.
pub const GPU_PCIE_WIDTH: &str = "gpu_pcie_width";
/// GPU: generation of PCIe that its link runs at under load, of the one that it and its port can, in percent.
pub const GPU_PCIE_SPEED: &str = "gpu_pcie_speed";
/// GPU: errors of its memory are corrected and counted.
pub const GPU_ECC_MODE: &str = "gpu_ecc_mode";
/// GPU: its hardware slows it down, for heat or power.
pub const GPU_SLOWDOWN: &str = "gpu_slowdown";
/// GPU: a GPU is slowed down by its hardware for its heat.
pub const GPU_THERMAL_SLOWDOWN: &str = "gpu_thermal_slowdown";
/// GPU: a GPU is slowed down by its hardware because a supply says that it cannot give more.
pub const GPU_POWER_BRAKE: &str = "gpu_power_brake";
/// GPU: a GPU is slowed down by its driver, to stay under its target temperature.
pub const GPU_WARM_SLOWDOWN: &str = "gpu_warm_slowdown";
/// GPU: errors that its driver wrote into the kernel's log.
pub const XIDS: &str = "xids";
/// GPU: links of NVLink that are active.
pub const NVLINKS: &str = "nvlinks";
/// GPU: errors of NVLink's links that were corrected, since they were counted anew.
pub const NVLINK_ERRORS: &str = "nvlink_errors";
/// GPU: times that a link of NVLink broke off and was made anew.
pub const NVLINK_RECOVERIES: &str = "nvlink_recoveries";
/// GPU: InfiniBand ports that have a link.
pub const INFINIBAND_PORTS: &str = "infiniband_ports";
/// GPU: Gb/s that an InfiniBand port's link negotiated.
pub const INFINIBAND_RATE: &str = "infiniband_rate";
/// GPU: lanes that an InfiniBand port's link negotiated.
pub const INFINIBAND_WIDTH: &str = "infiniband_width";
/// GPU: symbols that an InfiniBand port received wrong within the stage.
pub const INFINIBAND_SYMBOL_ERRORS: &str = "infiniband_symbol_errors";
/// GPU: times within the stage that an InfiniBand port's link broke off or had to be mended.
pub const INFINIBAND_LINK_ERRORS: &str = "infiniband_link_errors";
/// GPU: NVIDIA's own diagnosis, by test.
pub const GPU_DIAG: &str = "gpu_diag";
/// Any stage: the agent knows how to do it.
pub const STAGE_KNOWN: &str = "stage_known";

/// The parts of the inventory, each a check of the stage Inventory.
pub const INVENTORY_CHECKS: [&str; 10] =
    [CPU, MEMORY, DIMMS, DISKS, NICS, GPUS, DMI, FIRMWARE, PSUS, PCIE_WIDTH];

/// The checks of the stage CPUStress.
pub const CPU_STRESS_CHECKS: [&str; 5] = [MISCOMPARES, DURATION, RATE, THROTTLING, FREQUENCY];

/// The checks of the stage SMART, of every kind of disk.
pub const SMART_CHECKS: [&str; 20] = [
    HEALTH,
    PREFAIL,
    PAST_THRESHOLD,
    REALLOCATED,
    REPORTED_UNCORRECTABLE,
    COMMAND_TIMEOUTS,
    PENDING,
    OFFLINE_UNCORRECTABLE,
    CRC_ERRORS,
    GROWN_DEFECTS,
    UNCORRECTED_ERRORS,
    CRITICAL_WARNING,
    SPARE,
    PERCENTAGE_USED,
    MEDIA_ERRORS,
    FAILED_SELF_TESTS,
    ERROR_LOG,
    POWER_ON_HOURS,
    WRITTEN,
    SELF_TEST,
];

/// The checks of the stage Memory.
pub const MEMORY_CHECKS: [&str; 3] = [MISCOMPARES, DURATION, MEMORY_TESTED];

/// The checks of the stage Storage, with those that some settings bring.
pub const STORAGE_CHECKS: [&str; 13] = [
    IO_ERRORS,
    DURATION,
    SEQUENTIAL_READ,
    SEQUENTIAL_LATENCY,
    RANDOM_READ,
    RANDOM_LATENCY,
    PCIE_SPEED,
    SURFACE,
    FILE_ERRORS,
    WRITE_ERRORS,
    OVERWRITTEN,
    WRITE_RATE,
    WRITE_LATENCY,
];

/// The checks of the stage Network.
pub const NETWORK_CHECKS: [&str; 11] = [
    LINKS,
    LINK_SPEED,
    DUPLEX,
    DURATION,
    SEND_RATE,
    SEND_SHARE,
    SEND_RETRANSMITS,
    RECEIVE_RATE,
    RECEIVE_SHARE,
    RECEIVE_RETRANSMITS,
    PCIE_SPEED,
];

/// The checks of the stage PSU.
pub const PSU_CHECKS: [&str; 8] =
    [SUPPLIES, SUPPLY, REDUNDANCY, INPUT_POWER, FANS, FAN_COUNT, TEMPERATURES, SYSTEM_POWER];

/// The checks of the stage GPU.
pub const GPU_CHECKS: [&str; 26] = [
    GPU_DRIVER,
    GPU_TEMPERATURE,
    GPU_ECC_MODE,
    GPU_ECC_UNCORRECTED,
    GPU_ECC_CORRECTED,
    GPU_ECC_LIFETIME,
    GPU_RETIRED_PAGES,
    GPU_REMAPPED_ROWS,
    GPU_REMAP_FAILURE,
    GPU_PENDING,
    GPU_PCIE_WIDTH,
    GPU_PCIE_SPEED,
    GPU_SLOWDOWN,
    GPU_THERMAL_SLOWDOWN,
    GPU_POWER_BRAKE,
    GPU_WARM_SLOWDOWN,
    XIDS,
    NVLINKS,
    NVLINK_ERRORS,
    NVLINK_RECOVERIES,
    INFINIBAND_PORTS,
    INFINIBAND_RATE,
    INFINIBAND_WIDTH,
    INFINIBAND_SYMBOL_ERRORS,
    INFINIBAND_LINK_ERRORS,
    GPU_DIAG,
];

/// The counters around a stage that tests hardware, each a check of that stage. CPUStress and Soak judge throttling by its share of
/// the time instead ([`THROTTLING`]).
pub const COUNTER_CHECKS: [&str; 10] = [
    MEMORY_UNCORRECTED,
    MEMORY_CORRECTED,
    PCIE_UNCORRECTED,
    PCIE_CORRECTED,
    MACHINE_CHECKS,
    NIC_ERRORS,
    LOST_CARRIERS,
    THROTTLE_EVENTS,
    SEL_EVENTS,
    CRITICAL_TEMPERATURE,
];

/// Soak: what the names of the checks of its CPUs begin with.
pub const SOAK_CPU: &str = "cpu.";
/// Soak: the same of its memory.
pub const SOAK_MEMORY: &str = "memory.";
/// Soak: the same of its disks.
pub const SOAK_STORAGE: &str = "storage.";
/// Soak: the same of its GPUs.
pub const SOAK_GPU: &str = "gpu.";
/// Soak: the same of its supplies and fans.
pub const SOAK_PSU: &str = "psu.";

/// The parts of the stage Soak with the checks of each: its disks are read for a time, and nothing is written.
const SOAK_PARTS: [(&str, &[&str]); 5] = [
    (SOAK_CPU, &CPU_STRESS_CHECKS),
    (SOAK_MEMORY, &MEMORY_CHECKS),
    (
        SOAK_STORAGE,
        &[IO_ERRORS, DURATION, SEQUENTIAL_READ, SEQUENTIAL_LATENCY, RANDOM_READ, RANDOM_LATENCY, PCIE_SPEED],
    ),
    (SOAK_GPU, &GPU_CHECKS),
    (SOAK_PSU, &PSU_CHECKS),
];

/// The checks of a stage that a profile may require, in the order of its plan. None where this version does not do the stage, so
/// that an agent which does may have others, and where its settings decide.
pub fn of(stage: &Stage) -> Vec<String> {
    let own: &[&str] = match stage {
        Stage::Soak => {
            let of_part = |(part, checks): &(&str, &[&str])| -> Vec<String> {
                checks.iter().map(|check| format!("{part}{check}")).collect()
            };
            let own = SOAK_PARTS.iter().flat_map(of_part);
            return own.chain(counters(stage).into_iter().map(str::to_owned)).collect();
        }
        Stage::Inventory => &INVENTORY_CHECKS,
        Stage::Smart => &SMART_CHECKS,
        Stage::CpuStress => &CPU_STRESS_CHECKS,
        Stage::Memory => &MEMORY_CHECKS,
        Stage::Storage => &STORAGE_CHECKS,
        Stage::Network => &NETWORK_CHECKS,
        Stage::Psu => &PSU_CHECKS,
        Stage::Gpu => &GPU_CHECKS,
        Stage::Package { mode, .. } if !mode.starts_with("interrupt") => &[STEPS],
        Stage::SpecValidate
        | Stage::Package { .. }
        | Stage::Interrupt { .. }
        | Stage::Reporting
        | Stage::Unknown(_) => &[],
    };
    own.iter().copied().chain(counters(stage)).map(str::to_owned).collect()
}

/// The counters that are read around a stage.
pub fn counters(stage: &Stage) -> Vec<&'static str> {
    let all = COUNTER_CHECKS.into_iter();
    match stage {
        Stage::Inventory | Stage::Smart | Stage::Network | Stage::Psu => {
            all.filter(|name| *name != CRITICAL_TEMPERATURE).collect()
        }
        // These put a load on the machine.
        Stage::Memory | Stage::Storage | Stage::Gpu => all.collect(),
        Stage::CpuStress | Stage::Soak => all.filter(|name| *name != THROTTLE_EVENTS).collect(),
        Stage::SpecValidate
        | Stage::Package { .. }
        | Stage::Interrupt { .. }
        | Stage::Reporting
        | Stage::Unknown(_) => Vec::new(),
    }
}
