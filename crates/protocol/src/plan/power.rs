//! What the stage PSU owes.

use super::planned;
use crate::check::{Limit, PlannedCheck};
use crate::check_names as names;
use crate::profile::PsuSettings;

/// What the check [`names::SUPPLY`] finds of a supply that is there and has no failure.
pub const SUPPLY_GOOD: &str = "present";
/// What the check [`names::FANS`] finds of a fan that turns as it should.
pub const FAN_GOOD: &str = "ok";
/// What the check [`names::TEMPERATURES`] finds of sensors that are within their thresholds.
pub const TEMPERATURE_GOOD: &str = "ok";
/// What the check [`names::REDUNDANCY`] finds where one supply may fail.
pub const FULLY_REDUNDANT: &str = "Fully Redundant";

pub(super) fn psu(settings: &PsuSettings) -> Vec<PlannedCheck> {
    let watts = Limit {
        fail_below: settings.input_watts_min,
        fail_above: settings.input_watts_max,
        ..Limit::default()
    };
    vec![
        PlannedCheck {
            required: settings.supplies.is_some(),
            // One at least: a machine that runs has a supply.
            ..planned(names::SUPPLIES, Limit::at_least(f64::from(settings.supplies.unwrap_or(1))))
        },
        planned(names::SUPPLY, Limit::equal_to(SUPPLY_GOOD)),
        PlannedCheck {
            required: settings.redundant,
            ..planned(names::REDUNDANCY, Limit::equal_to(FULLY_REDUNDANT))
        },
        PlannedCheck {
            required: settings.input_watts_min.is_some() || settings.input_watts_max.is_some(),
            ..planned(names::INPUT_POWER, watts)
        },
        planned(names::FANS, Limit::equal_to(FAN_GOOD)),
        PlannedCheck {
            required: settings.fans_min.is_some(),
            ..planned(
                names::FAN_COUNT,
                Limit { fail_below: settings.fans_min.map(f64::from), ..Limit::default() },
            )
        },
        planned(names::TEMPERATURES, Limit::equal_to(TEMPERATURE_GOOD)),
        planned(names::SYSTEM_POWER, Limit::default()),
    ]
}
