//! Expected disks against those that were found.

use super::{Labels, listed, matching, said, text_equal, text_within, unreadable, why_unread};
use crate::check::{Check, Limit, Observation};
use crate::inventory::{Disk, Inventory};
use crate::order;
use crate::profile::{Expected, ExpectedDisk};

/// How far a size may be off where a profile writes nothing: makers round.
const SIZE_TOLERANCE_PERCENT: f64 = 1.0;
/// Ranks that [`rank`] gives.
const RANKS: u8 = 7;

/// Number of disks, each expected disk with its fields, and each disk beyond those that are listed.
pub(super) fn checks(expected: &Expected, inventory: &Inventory) -> Vec<Check> {
    let unread = why_unread(inventory, "disks");
    let mut checks: Vec<Check> =
        listed(expected.disk_count, inventory.disks.len(), "disk_count", "disks", unread)
            .into_iter()
            .collect();
    if expected.disks.is_empty() {
        return checks;
    }
    let disks = in_order(&inventory.disks);
    let pairs = matching::matched(expected.disks.len(), disks.len(), RANKS, |wanted, found| {
        rank(&expected.disks[wanted], disks[found])
    });
    let mut labels = Labels::default();
    let spare: Vec<&Disk> =
        (0..disks.len()).filter(|index| !pairs.contains(&Some(*index))).map(|index| disks[index]).collect();
    for (wanted, pair) in expected.disks.iter().zip(&pairs) {
        let component = label_of_wanted(wanted, &mut labels);
        match pair {
            Some(index) => checks.extend(fields(wanted, disks[*index], &component)),
            None => checks.push(not_found(wanted, &spare, &component, unread)),
        }
    }
    for disk in spare {
        let component = label_of_found(disk, &mut labels);
        let what = format!("disk {component}");
        checks.push(
            Check::of("disk", Some(&component), Observation::Unexpected { what }, Limit::default())
                .with_evidence(evidence(disk)),
        );
    }
    checks
}

/// The disks in an order that does not depend on how the inventory lists them.
fn in_order(disks: &[Disk]) -> Vec<&Disk> {
    let mut disks: Vec<&Disk> = disks.iter().collect();
    fn key(disk: &Disk) -> impl Ord + '_ {
        (
            disk.serial.as_deref(),
            disk.wwn.as_deref(),
            disk.model.as_deref(),
            disk.size_bytes,
            disk.firmware.as_deref(),
            disk.name.as_str(),
        )
    }
    order::sort_by(&mut disks, |one, other| key(one).cmp(&key(other)));
    disks
}

/// How well a disk fits an entry: by serial with all else, by serial, by WWN with all else, by WWN; where neither
/// is written by model and size with the firmware, without it, by model.
fn rank(wanted: &ExpectedDisk, disk: &Disk) -> Option<u8> {
    let all = each_field(wanted, disk);
    let [serial, wwn, model, size, firmware] = all;
    let fits = |agrees: Agrees| matches!(agrees, Agrees::Yes | Agrees::NotWritten);
    let misfit = u8::from(!all.into_iter().all(fits));
    match (serial, wwn) {
        (Agrees::Yes, _) => Some(misfit),
        (Agrees::No, _) => None,
        (Agrees::Unknown | Agrees::NotWritten, Agrees::Yes) => Some(2 + misfit),
        (Agrees::NotWritten, Agrees::NotWritten) => match (fits(model), fits(size)) {
            (true, true) if firmware == Agrees::Yes => Some(4),
            (true, true) => Some(5),
            (true, false) if model == Agrees::Yes => Some(6),
            (true, false) | (false, _) => None,
        },
        (Agrees::Unknown | Agrees::NotWritten, Agrees::No | Agrees::Unknown | Agrees::NotWritten) => None,
    }
}

/// Serial, WWN, model, size and firmware.
fn each_field(wanted: &ExpectedDisk, disk: &Disk) -> [Agrees; 5] {
    let model = agrees_by(wanted.model.as_deref(), said(disk.model.as_deref()), |part, model| {
        model.contains(part.trim())
    });
    let size = agrees_by(size_limit(wanted), Some(gb(disk)), |limit, gb| {
        limit.fail_below.is_none_or(|bound| gb >= bound) && limit.fail_above.is_none_or(|bound| gb <= bound)
    });
    [
        agrees(wanted.serial.as_deref(), disk.serial.as_deref()),
        agrees(wanted.wwn.as_deref(), disk.wwn.as_deref()),
        model,
        size,
        agrees(wanted.firmware.as_deref(), disk.firmware.as_deref()),
    ]
}

/// Whether what an entry writes is what a disk says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agrees {
    Yes,
    No,
    /// The entry writes it and the disk does not say it.
    Unknown,
    NotWritten,
}

fn agrees(wanted: Option<&str>, found: Option<&str>) -> Agrees {
    agrees_by(wanted, said(found), |wanted, found| wanted.trim() == found)
}

fn agrees_by<W, F>(wanted: Option<W>, found: Option<F>, fits: impl FnOnce(W, F) -> bool) -> Agrees {
    match (wanted, found) {
        (None, _) => Agrees::NotWritten,
        (Some(_), None) => Agrees::Unknown,
        (Some(wanted), Some(found)) => {
            if fits(wanted, found) {
                Agrees::Yes
            } else {
                Agrees::No
            }
        }
    }
}

fn size_limit(wanted: &ExpectedDisk) -> Option<Limit> {
    let size_gb = wanted.size_gb?;
    let slack = size_gb * wanted.tolerance_percent.unwrap_or(SIZE_TOLERANCE_PERCENT) / 100.0;
    Some(Limit { fail_below: Some(size_gb - slack), fail_above: Some(size_gb + slack), ..Limit::default() })
}

fn gb(disk: &Disk) -> f64 {
    disk.size_bytes as f64 / 1e9
}

/// The disk is there, and each field that the entry writes is compared.
fn fields(wanted: &ExpectedDisk, disk: &Disk, component: &str) -> Vec<Check> {
    let there = Observation::Found { text: evidence(disk) };
    let serial = wanted.serial.as_deref();
    let size = size_limit(wanted)
        .map(|limit| Check::of("disk.size", None, Observation::measured(gb(disk), "GB"), limit));
    let checks = [
        Some(Check::of("disk", None, there, Limit::default())),
        text_equal(serial, "disk.serial", disk.serial.as_deref(), None),
        text_within(wanted.model.as_deref(), "disk.model", disk.model.as_deref(), None),
        size,
        text_equal(wanted.wwn.as_deref(), "disk.wwn", disk.wwn.as_deref(), None),
        text_equal(wanted.firmware.as_deref(), "disk.firmware", disk.firmware.as_deref(), None),
    ];
    let named =
        |check: Check| Check { component: Some(component.to_owned()), ..check }.with_evidence(evidence(disk));
    checks.into_iter().flatten().map(named).collect()
}

/// Missing, unless a disk that was not read or does not say which it is may be the one.
fn not_found(wanted: &ExpectedDisk, spare: &[&Disk], component: &str, unread: Option<&str>) -> Check {
    let may_be = |disk: &&&Disk| {
        let [serial, wwn, model, size, _] = each_field(wanted, disk);
        ![serial, wwn, model, size].contains(&Agrees::No)
    };
    let observed = match (unread, spare.iter().find(may_be)) {
        (Some(_), _) => unreadable(unread, "its disks"),
        (None, Some(disk)) => unreadable(None, &format!("whether {} is disk {component}", evidence(disk))),
        (None, None) => Observation::Missing { what: format!("disk {component}") },
    };
    Check::of("disk", Some(component), observed, Limit::default())
}

fn label_of_wanted(wanted: &ExpectedDisk, labels: &mut Labels) -> String {
    let size = wanted.size_gb.map(|size| format!("{size} GB"));
    let kind: Vec<&str> = [wanted.model.as_deref(), size.as_deref()].into_iter().flatten().collect();
    match (wanted.serial.as_deref(), wanted.wwn.as_deref()) {
        (Some(serial), _) => labels.unique(serial.trim()),
        (None, Some(wwn)) => labels.unique(wwn.trim()),
        (None, None) => labels.numbered(&kind.join(" ")),
    }
}

fn label_of_found(disk: &Disk, labels: &mut Labels) -> String {
    match (said(disk.serial.as_deref()), said(disk.model.as_deref())) {
        (Some(serial), _) => labels.unique(serial),
        (None, Some(model)) => labels.numbered(&format!("{model} {:.0} GB", gb(disk))),
        (None, None) => labels.unique(&disk.name),
    }
}

fn evidence(disk: &Disk) -> String {
    let model = said(disk.model.as_deref()).unwrap_or("without a model");
    format!("{}, {model}, {:.0} GB", disk.name, gb(disk))
}
