//! What the stages owe that put a load on memory, disks and links.

use super::planned;
use crate::check::{Limit, PlannedCheck};
use crate::check_names as names;
use crate::profile::{MemorySettings, NetworkSettings, StorageSettings};

/// Part of the time that a load was meant to last, which it must have lasted: tools round to seconds, and may stop their
/// workers a little early.
pub(super) const TIME_SHARE_MIN: f64 = 0.9;
/// Under this share of the memory, in percent, a test tells little of it.
const TESTED_PERCENT_WARNS: f64 = 50.0;
/// A disk that was read whole was read to its last block; the rest is a block that is not whole.
const SURFACE_PERCENT_MIN: f64 = 99.9;

/// What the check [`names::DUPLEX`] finds of a link that sends and receives at a time.
pub const FULL_DUPLEX: &str = "Full";

pub(super) fn memory(settings: &MemorySettings) -> Vec<PlannedCheck> {
    let tested = Limit {
        fail_below: settings.tested_percent_min,
        // A profile that tests a part of it on purpose says so.
        warn_below: settings.size_mib_max.is_none().then_some(TESTED_PERCENT_WARNS),
        ..Limit::default()
    };
    vec![
        planned(names::MISCOMPARES, Limit::at_most(0.0)),
        planned(names::DURATION, Limit::at_least(settings.duration as f64 / 1000.0 * TIME_SHARE_MIN)),
        planned(names::MEMORY_TESTED, tested),
    ]
}

pub(super) fn storage(settings: &StorageSettings) -> Vec<PlannedCheck> {
    if settings.destructive {
        return overwriting(settings);
    }
    let least = |bound: Option<f64>| Limit { fail_below: bound, ..Limit::default() };
    let most = |bound: Option<f64>| Limit { fail_above: bound, ..Limit::default() };
    let seconds = settings.sequential.min(settings.random) as f64 / 1000.0;
    let mut plan = vec![
        planned(names::IO_ERRORS, Limit::at_most(0.0)),
        match settings.full_surface {
            true => planned(names::SURFACE, Limit::at_least(SURFACE_PERCENT_MIN)),
            false => planned(names::DURATION, Limit::at_least(seconds * TIME_SHARE_MIN)),
        },
        planned(names::SEQUENTIAL_READ, least(settings.sequential_min_mb_s)),
        planned(names::SEQUENTIAL_LATENCY, most(settings.sequential_p99_max_ms)),
        planned(names::RANDOM_READ, least(settings.random_min_iops)),
        planned(names::RANDOM_LATENCY, most(settings.random_p99_max_ms)),
        planned(names::PCIE_SPEED, whole_link()),
    ];
    if settings.written.is_some() {
        plan.push(planned(names::FILE_ERRORS, Limit::at_most(0.0)));
    }
    plan
}

/// A destructive stage writes over disks and does nothing else. Each check is owed: a disk that was not written over is no pass.
fn overwriting(settings: &StorageSettings) -> Vec<PlannedCheck> {
    let owed = |name, limit| PlannedCheck { required: true, ..planned(name, limit) };
    vec![
        owed(names::WRITE_ERRORS, Limit::at_most(0.0)),
        owed(names::OVERWRITTEN, Limit::at_least(SURFACE_PERCENT_MIN)),
        owed(names::WRITE_RATE, Limit { fail_below: settings.write_min_mb_s, ..Limit::default() }),
        owed(names::WRITE_LATENCY, Limit { fail_above: settings.write_p99_max_ms, ..Limit::default() }),
    ]
}

/// What a PCIe link reaches of what both its ends can. Less warns: ends say what they can, and not what a riser or a backplane has wired
/// between them, or what the firmware has set for it.
pub(super) fn whole_link() -> Limit {
    Limit { only_warns: true, ..Limit::at_least(100.0) }
}

pub(super) fn network(settings: &NetworkSettings) -> Vec<PlannedCheck> {
    let share = || Limit::at_least(settings.throughput_percent_min);
    let rate = || Limit { fail_below: settings.rate_min_mbps, ..Limit::default() };
    let retransmits = || Limit {
        warn_above: Some(settings.retransmits_percent_warn.min(settings.retransmits_percent_max)),
        ..Limit::at_most(settings.retransmits_percent_max)
    };
    let seconds = settings.duration as f64 / 1000.0 * TIME_SHARE_MIN;
    vec![
        PlannedCheck {
            required: settings.links_min.is_some(),
            ..planned(
                names::LINKS,
                Limit { fail_below: settings.links_min.map(f64::from), ..Limit::default() },
            )
        },
        planned(
            names::LINK_SPEED,
            Limit { fail_below: settings.link_speed_min_mbps.map(f64::from), ..Limit::default() },
        ),
        planned(names::DUPLEX, Limit::equal_to(FULL_DUPLEX)),
        planned(names::DURATION, Limit::at_least(seconds)),
        planned(names::SEND_RATE, rate()),
        planned(names::SEND_SHARE, share()),
        planned(names::SEND_RETRANSMITS, retransmits()),
        planned(names::RECEIVE_RATE, rate()),
        planned(names::RECEIVE_SHARE, share()),
        planned(names::RECEIVE_RETRANSMITS, retransmits()),
        planned(names::PCIE_SPEED, whole_link()),
    ]
}
