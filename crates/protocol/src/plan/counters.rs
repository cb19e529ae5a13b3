//! What the counters around a stage may have counted by its end.

use super::planned;
use crate::check::{Limit, PlannedCheck};
use crate::check_names::{self as names, counters};
use crate::profile::StageSpec;

/// What the checks [`names::SEL_EVENTS`] and [`names::CRITICAL_TEMPERATURE`] find where nothing happened.
pub const NO_EVENTS: &str = "none";

/// The counters that a stage owes besides its own checks.
pub(super) fn planned_counters(spec: &StageSpec) -> Vec<PlannedCheck> {
    let settings = spec.counters.clone().unwrap_or_default();
    // From so many on: the first number that warns is the count itself.
    let warns_from =
        |count: u32| Limit { warn_above: Some(f64::from(count.saturating_sub(1))), ..Limit::default() };
    let limit = |name: &str| match name {
        names::MEMORY_CORRECTED => warns_from(settings.memory_corrected_warn_from),
        names::PCIE_CORRECTED => warns_from(settings.pcie_corrected_warn_from),
        names::NIC_ERRORS => warns_from(settings.nic_errors_warn_from),
        names::THROTTLE_EVENTS => warns_from(settings.throttle_events_warn_from),
        names::LOST_CARRIERS => Limit::at_most(f64::from(settings.lost_carriers_max)),
        names::SEL_EVENTS | names::CRITICAL_TEMPERATURE => Limit::equal_to(NO_EVENTS),
        // What nothing corrected.
        _ => Limit::at_most(0.0),
    };
    counters(&spec.name).into_iter().map(|name| planned(name, limit(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, Observation, Verdict, judge_stage};
    use crate::profile::CounterSettings;

    fn verdict(settings: Option<CounterSettings>, name: &str, count: f64) -> Verdict {
        let spec = StageSpec { counters: settings, ..StageSpec::of("Inventory".into()) };
        let plan: Vec<PlannedCheck> =
            planned_counters(&spec).into_iter().filter(|planned| planned.name == name).collect();
        let observed = Observation::measured(count, "errors");
        judge_stage(&plan, &[Check::of(name, Some("DIMM_A1"), observed, Limit::default())]).verdict
    }

    #[test]
    fn what_was_not_corrected_fails_and_what_was_warns_from_its_count() {
        let settings = CounterSettings {
            memory_corrected_warn_from: 10,
            lost_carriers_max: 2,
            ..CounterSettings::default()
        };
        for (settings, name, count, expected) in [
            (None, names::MEMORY_UNCORRECTED, 0.0, Verdict::Pass),
            (None, names::MEMORY_UNCORRECTED, 1.0, Verdict::Fail),
            (None, names::PCIE_UNCORRECTED, 1.0, Verdict::Fail),
            (None, names::MACHINE_CHECKS, 1.0, Verdict::Fail),
            (None, names::MEMORY_CORRECTED, 0.0, Verdict::Pass),
            (None, names::MEMORY_CORRECTED, 1.0, Verdict::Warn),
            (None, names::PCIE_CORRECTED, 1e6, Verdict::Warn),
            (None, names::NIC_ERRORS, 1.0, Verdict::Warn),
            (None, names::THROTTLE_EVENTS, 1.0, Verdict::Warn),
            (None, names::LOST_CARRIERS, 1.0, Verdict::Fail),
            (Some(settings.clone()), names::MEMORY_CORRECTED, 9.0, Verdict::Pass),
            (Some(settings.clone()), names::MEMORY_CORRECTED, 10.0, Verdict::Warn),
            (Some(settings.clone()), names::LOST_CARRIERS, 2.0, Verdict::Pass),
            (Some(settings), names::LOST_CARRIERS, 3.0, Verdict::Fail),
        ] {
            assert_eq!(verdict(settings, name, count), expected, "{name} {count}");
        }
    }

    #[test]
    fn stages_that_test_no_hardware_owe_no_counters() {
        for (name, owed) in
            [("Inventory", 9), ("CPUStress", 9), ("Storage", 10), ("SpecValidate", 0), ("Package:a/apply", 0)]
        {
            assert_eq!(planned_counters(&StageSpec::of(name.into())).len(), owed, "{name}");
        }
    }
}
