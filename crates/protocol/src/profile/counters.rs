//! Settings of the counters around a hardware stage (`[stage.counters]`): how much of what was corrected is worth a word.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::part::Field;

const KEYS: [&str; 5] = [
    "memory_corrected_warn_from",
    "pcie_corrected_warn_from",
    "nic_errors_warn_from",
    "throttle_events_warn_from",
    "lost_carriers_max",
];
/// More than any of them counts in a month.
const COUNT_MAX: u32 = 1_000_000_000;

/// What the counters around a stage may count in each component. What was not corrected fails, and has no setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CounterSettings {
    /// Errors that a memory module corrected: from so many on they warn.
    pub memory_corrected_warn_from: u32,
    /// Errors that a PCIe link corrected: from so many on they warn.
    pub pcie_corrected_warn_from: u32,
    /// Damaged packets of a network interface: from so many on they warn.
    pub nic_errors_warn_from: u32,
    /// Times that a CPU or its package was throttled for its heat: from so many on they warn.
    pub throttle_events_warn_from: u32,
    /// Times that an interface may lose its carrier; more fail.
    pub lost_carriers_max: u32,
}

impl Default for CounterSettings {
    fn default() -> Self {
        CounterSettings {
            memory_corrected_warn_from: 1,
            pcie_corrected_warn_from: 1,
            nic_errors_warn_from: 1,
            throttle_events_warn_from: 1,
            lost_carriers_max: 0,
        }
    }
}

/// Reads `[stage.counters]`.
pub(super) fn counters(field: Field<'_>) -> Result<CounterSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let default = CounterSettings::default();
    let count = |key: &str, least: u32, by_default: u32| -> Result<u32, BadProfile> {
        Ok(part.optional(key, |field| field.whole(least..=COUNT_MAX))?.unwrap_or(by_default))
    };
    Ok(CounterSettings {
        memory_corrected_warn_from: count(
            "memory_corrected_warn_from",
            1,
            default.memory_corrected_warn_from,
        )?,
        pcie_corrected_warn_from: count("pcie_corrected_warn_from", 1, default.pcie_corrected_warn_from)?,
        nic_errors_warn_from: count("nic_errors_warn_from", 1, default.nic_errors_warn_from)?,
        throttle_events_warn_from: count("throttle_events_warn_from", 1, default.throttle_events_warn_from)?,
        lost_carriers_max: count("lost_carriers_max", 0, default.lost_carriers_max)?,
    })
}
