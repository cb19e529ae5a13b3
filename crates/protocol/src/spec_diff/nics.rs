//! Expected network interfaces against those that were found.

use super::{Labels, listed, matching, said, text_equal, unreadable, why_unread};
use crate::check::{Check, Limit, Observation};
use crate::inventory::{Inventory, Nic};
use crate::order;
use crate::profile::{Expected, ExpectedNic};

/// Ranks that [`rank`] gives.
const RANKS: u8 = 5;

/// Number of interfaces that are not virtual, each expected interface with its fields, and each that is not virtual beyond those
/// that are listed, unless the profile says how many there are.
pub(super) fn checks(expected: &Expected, inventory: &Inventory) -> Vec<Check> {
    let unread = why_unread(inventory, "nics");
    let physical = inventory.nics.iter().filter(|nic| !nic.is_virtual).count();
    let mut checks: Vec<Check> =
        listed(expected.nic_count, physical, "nic_count", "interfaces", unread).into_iter().collect();
    let nics = in_order(&inventory.nics);
    let pairs = matching::matched(expected.nics.len(), nics.len(), RANKS, |wanted, found| {
        rank(&expected.nics[wanted], nics[found])
    });
    let mut labels = Labels::default();
    let taken: Vec<usize> = pairs.iter().flatten().copied().collect();
    for (wanted, pair) in expected.nics.iter().zip(&pairs) {
        let component = label(wanted, &mut labels);
        match pair {
            Some(index) => checks.extend(fields(wanted, nics[*index], &component)),
            None => {
                let spare = (0..nics.len()).filter(|index| !taken.contains(index)).map(|index| nics[index]);
                checks.push(not_found(wanted, spare, &component, unread));
            }
        }
    }
    if expected.nics.is_empty() || expected.nic_count.is_some() {
        return checks;
    }
    let extra = (0..nics.len()).filter(|index| !taken.contains(index) && !nics[*index].is_virtual);
    for nic in extra.map(|index| nics[index]) {
        let component = labels.unique(said(nic.mac.as_deref()).unwrap_or(&nic.name));
        let observed = Observation::Unexpected { what: format!("interface {component}") };
        let check = Check::of("nic", Some(&component), observed, Limit::default());
        checks.push(check.with_evidence(nic.name.clone()));
    }
    checks
}

/// The interfaces in an order that does not depend on how the inventory lists them.
fn in_order(nics: &[Nic]) -> Vec<&Nic> {
    let mut nics: Vec<&Nic> = nics.iter().collect();
    fn key(nic: &Nic) -> impl Ord + '_ {
        let speed = (nic.speed_mbps, nic.mtu, nic.state.as_deref());
        (nic.mac.as_deref(), nic.name.as_str(), nic.driver.as_deref(), speed, nic.is_virtual)
    }
    order::sort_by(&mut nics, |one, other| key(one).cmp(&key(other)));
    nics
}

/// How well an interface fits an entry: by MAC; else all that is written, on a device, or on a virtual one; else by
/// driver alone.
fn rank(wanted: &ExpectedNic, nic: &Nic) -> Option<u8> {
    if let Some(mac) = &wanted.mac {
        return said(nic.mac.as_deref()).is_some_and(|found| found.eq_ignore_ascii_case(mac)).then_some(0);
    }
    let driver = wanted.driver.as_deref().map(|driver| said(nic.driver.as_deref()) == Some(driver.trim()));
    let speed = wanted.speed_mbps.is_none_or(|least| nic.speed_mbps.is_some_and(|speed| speed >= least));
    let mtu = wanted.mtu.is_none_or(|mtu| nic.mtu == Some(mtu));
    match (driver, speed && mtu) {
        (Some(false), _) | (None, false) => None,
        (_, true) => Some(1 + u8::from(nic.is_virtual)),
        (Some(true), false) => Some(3 + u8::from(nic.is_virtual)),
    }
}

fn fields(wanted: &ExpectedNic, nic: &Nic, component: &str) -> Vec<Check> {
    let speed = wanted
        .speed_mbps
        .map(|least| Check::of("nic.speed", None, speed(nic), Limit::at_least(f64::from(least))));
    let mtu = wanted.mtu.map(|mtu| {
        let observed = match nic.mtu {
            Some(found) => Observation::measured(f64::from(found), "bytes"),
            None => unreadable(None, "the interface's MTU"),
        };
        let mtu = f64::from(mtu);
        Check::of("nic.mtu", None, observed, Limit { fail_below: Some(mtu), ..Limit::at_most(mtu) })
    });
    let checks = [
        Some(Check::of("nic", None, Observation::Found { text: nic.name.clone() }, Limit::default())),
        text_equal(wanted.driver.as_deref(), "nic.driver", nic.driver.as_deref(), None),
        speed,
        mtu,
    ];
    let named = |check: Check| {
        Check { component: Some(component.to_owned()), ..check }.with_evidence(nic.name.clone())
    };
    checks.into_iter().flatten().map(named).collect()
}

/// A virtual interface has no speed and says so; a link that is down has one that nobody can read.
fn speed(nic: &Nic) -> Observation {
    match (nic.speed_mbps, nic.state.as_deref()) {
        (Some(speed), _) => Observation::measured(f64::from(speed), "Mb/s"),
        (None, _) if nic.is_virtual => {
            Observation::Absent { why: format!("{} is virtual and has no speed", nic.name) }
        }
        (None, state) => unreadable(
            None,
            &format!("the speed of {} (its link is {})", nic.name, state.unwrap_or("unknown")),
        ),
    }
}

/// Missing, unless an interface that was not read or does not say which it is may be the one.
fn not_found<'n>(
    wanted: &ExpectedNic,
    mut spare: impl Iterator<Item = &'n Nic>,
    component: &str,
    unread: Option<&str>,
) -> Check {
    let differs = |wanted: Option<&str>, found: Option<&str>| match (wanted, said(found)) {
        (Some(wanted), Some(found)) => !wanted.trim().eq_ignore_ascii_case(found),
        (Some(_), None) | (None, _) => false,
    };
    let may_be = |nic: &&Nic| {
        let is_slower = match (wanted.speed_mbps, nic.speed_mbps) {
            (Some(least), Some(speed)) => speed < least,
            (Some(_), None) => nic.is_virtual,
            (None, _) => false,
        };
        let is_other_mtu = wanted.mtu.is_some() && nic.mtu.is_some() && wanted.mtu != nic.mtu;
        !differs(wanted.mac.as_deref(), nic.mac.as_deref())
            && !differs(wanted.driver.as_deref(), nic.driver.as_deref())
            && !is_slower
            && !is_other_mtu
    };
    let observed = match (unread, spare.find(may_be)) {
        (Some(_), _) => unreadable(unread, "its interfaces"),
        (None, Some(nic)) => unreadable(None, &format!("whether {} is interface {component}", nic.name)),
        (None, None) => Observation::Missing { what: format!("interface {component}") },
    };
    Check::of("nic", Some(component), observed, Limit::default())
}

fn label(wanted: &ExpectedNic, labels: &mut Labels) -> String {
    if let Some(mac) = &wanted.mac {
        return labels.unique(mac);
    }
    let speed = wanted.speed_mbps.map(|speed| format!("{speed} Mb/s"));
    let mtu = wanted.mtu.map(|mtu| format!("MTU {mtu}"));
    let parts: Vec<&str> =
        [wanted.driver.as_deref(), speed.as_deref(), mtu.as_deref()].into_iter().flatten().collect();
    labels.numbered(&parts.join(" "))
}
