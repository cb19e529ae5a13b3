//! Expected GPUs, by their number and by what they are, against those on the bus.

use std::collections::BTreeMap;

use super::{listed, why_unread};
use crate::check::{Check, Limit, Observation};
use crate::inventory::Inventory;
use crate::order;
use crate::profile::Expected;

/// Number of GPUs, how many there are of each kind that is expected, and each kind beyond those.
pub(super) fn checks(expected: &Expected, inventory: &Inventory) -> Vec<Check> {
    let unread = why_unread(inventory, "gpus");
    let count = inventory.real_gpus().count();
    let mut checks: Vec<Check> =
        listed(expected.gpu_count, count, "gpu_count", "GPUs", unread).into_iter().collect();
    if expected.gpus.is_empty() {
        return checks;
    }
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for gpu in inventory.real_gpus() {
        found.entry(gpu.kind()).or_default().push(&gpu.pci);
    }
    found.values_mut().for_each(order::sort);
    let named = |check: Check, kind: &str, addresses: &[&str]| {
        Check { component: Some(kind.to_owned()), ..check }.with_evidence(addresses.join(", "))
    };
    for wanted in &expected.gpus {
        let addresses = found.remove(&wanted.device).unwrap_or_default();
        let check = listed(Some(wanted.count), addresses.len(), "gpu", "GPUs", unread);
        checks.extend(check.map(|check| named(check, &wanted.device, &addresses)));
    }
    for (kind, addresses) in &found {
        let what = format!("{} of the GPU {kind}", addresses.len());
        let check = Check::of("gpu", None, Observation::Unexpected { what }, Limit::default());
        checks.push(named(check, kind, addresses));
    }
    checks
}
