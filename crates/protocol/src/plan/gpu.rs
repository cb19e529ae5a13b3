//! What the stage GPU owes.

use super::planned;
use crate::check::{Limit, PlannedCheck};
use crate::check_names as names;
use crate::profile::{GpuDiag, GpuSettings};

/// What the check [`names::GPU_DRIVER`] finds of a GPU that its driver knows.
pub const GPU_KNOWN: &str = "known to its driver";
/// What the checks [`names::GPU_REMAP_FAILURE`] and [`names::GPU_PENDING`] find of a GPU with neither.
pub const GPU_NO: &str = "No";
/// What the check [`names::GPU_SLOWDOWN`] finds of a GPU whose hardware does not slow it down.
pub const GPU_NOT_ACTIVE: &str = "Not Active";
/// What the check [`names::GPU_ECC_MODE`] finds of a GPU that corrects and counts errors of its memory.
pub const GPU_ENABLED: &str = "Enabled";
/// What the check [`names::GPU_DIAG`] finds of a test that was passed.
pub const GPU_DIAG_PASSED: &str = "Pass";
/// What the check [`names::XIDS`] finds of a kernel's log without any.
pub const NO_XIDS: &str = "none";

pub(super) fn gpu(settings: &GpuSettings) -> Vec<PlannedCheck> {
    let warn_from =
        Limit { warn_above: Some(f64::from(settings.ecc_corrected_warn_from) - 1.0), ..Limit::default() };
    let mut plan = vec![
        planned(names::GPU_DRIVER, Limit::equal_to(GPU_KNOWN)),
        planned(names::GPU_TEMPERATURE, Limit { fail_above: settings.temperature_max, ..Limit::default() }),
        // An operator may have turned it off, and nothing is counted then.
        planned(names::GPU_ECC_MODE, Limit { only_warns: true, ..Limit::equal_to(GPU_ENABLED) }),
        planned(names::GPU_ECC_UNCORRECTED, Limit::at_most(0.0)),
        planned(names::GPU_ECC_CORRECTED, warn_from),
        planned(names::GPU_ECC_LIFETIME, warns()),
        planned(names::GPU_RETIRED_PAGES, Limit::at_most(f64::from(settings.retired_pages_max))),
        planned(names::GPU_REMAPPED_ROWS, Limit::at_most(f64::from(settings.remapped_rows_max))),
        planned(names::GPU_REMAP_FAILURE, Limit::equal_to(GPU_NO)),
        planned(names::GPU_PENDING, Limit::equal_to(GPU_NO)),
        planned(names::GPU_PCIE_WIDTH, Limit::at_least(100.0)),
        planned(names::GPU_PCIE_SPEED, Limit::at_least(100.0)),
        planned(names::GPU_SLOWDOWN, Limit::equal_to(GPU_NOT_ACTIVE)),
        planned(names::GPU_THERMAL_SLOWDOWN, Limit::equal_to(GPU_NOT_ACTIVE)),
        planned(names::GPU_POWER_BRAKE, Limit::equal_to(GPU_NOT_ACTIVE)),
        // The driver keeps a GPU under its target; a warm room is enough for that.
        planned(names::GPU_WARM_SLOWDOWN, Limit { only_warns: true, ..Limit::equal_to(GPU_NOT_ACTIVE) }),
        planned(names::XIDS, Limit::equal_to(NO_XIDS)),
    ];
    plan.extend(links(settings));
    if settings.diag != GpuDiag::None {
        plan.push(planned(names::GPU_DIAG, Limit::equal_to(GPU_DIAG_PASSED)));
    }
    plan
}

fn warns() -> Limit {
    Limit { warn_above: Some(0.0), ..Limit::default() }
}

/// What the links between GPUs, and those between machines, owe.
fn links(settings: &GpuSettings) -> Vec<PlannedCheck> {
    /// Lanes of a cable; some cables split them, and a profile says so.
    const LANES: f64 = 4.0;
    let at_least = |least: Option<f64>| Limit { fail_below: least, ..Limit::default() };
    let lanes = Limit {
        warn_below: settings.infiniband_lanes_min.is_none().then_some(LANES),
        ..at_least(settings.infiniband_lanes_min.map(f64::from))
    };
    vec![
        PlannedCheck {
            required: settings.nvlinks_min.is_some(),
            ..planned(names::NVLINKS, at_least(settings.nvlinks_min.map(f64::from)))
        },
        planned(names::NVLINK_ERRORS, warns()),
        planned(names::NVLINK_RECOVERIES, Limit::at_most(0.0)),
        planned(names::INFINIBAND_PORTS, at_least(settings.infiniband_ports_min.map(f64::from))),
        PlannedCheck {
            required: settings.infiniband_rate_min_gbps.is_some(),
            ..planned(names::INFINIBAND_RATE, at_least(settings.infiniband_rate_min_gbps))
        },
        planned(names::INFINIBAND_WIDTH, lanes),
        planned(names::INFINIBAND_SYMBOL_ERRORS, warns()),
        planned(names::INFINIBAND_LINK_ERRORS, Limit::at_most(0.0)),
    ]
}
