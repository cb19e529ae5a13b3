//! Compares an inventory with the hardware that a profile expects.
//!
//! Pure: what comes out are observations and limits, and `check::judge` alone makes verdicts of them. Missing or
//! less fails, unexpected or more warns, what could not be read is inconclusive. The order in which an inventory
//! lists things changes nothing.

mod disks;
mod gpus;
mod known_good;
mod matching;
mod nics;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use known_good::expected_of;

use crate::check::{Check, Judged, Limit, Observation, Verdict};
use crate::inventory::{Dimm, Inventory, Memory};
use crate::order;
use crate::profile::{Count, Expected, ExpectedCpu, ExpectedMemory, ExpectedSystem};

/// How far the sum of the modules may be off where a profile writes nothing: a module's size is exact, and the smallest of a
/// large machine is more than that of it.
const MODULES_TOLERANCE_PERCENT: f64 = 0.1;
/// The same of what the kernel manages: it keeps some for itself.
const KERNEL_TOLERANCE_PERCENT: f64 = 5.0;
/// Bytes of a GiB.
const GIB: f64 = 1_073_741_824.0;

/// One check for each field that the profile expects, and one for each disk beyond those that it lists.
pub fn spec_diff(expected: &Expected, inventory: &Inventory) -> Vec<Check> {
    let mut checks = cpu(&expected.cpu, inventory);
    checks.extend(memory(&expected.memory, inventory));
    checks.extend(disks::checks(expected, inventory));
    checks.extend(nics::checks(expected, inventory));
    checks.extend(gpus::checks(expected, inventory));
    checks.extend(system(&expected.system, inventory));
    checks
}

/// The stage SpecValidate: skipped where nothing is expected, inconclusive where something is and no inventory came.
pub fn spec_validate(expected: &Expected, inventory: Option<&Inventory>) -> Judged {
    let alone = |name: &str, observed: Observation| vec![Check::of(name, None, observed, Limit::default())];
    let expects_nothing = spec_diff(expected, &Inventory::default()).is_empty();
    let checks = match inventory {
        _ if expects_nothing => {
            let why = "the profile expects no particular hardware".to_owned();
            alone("expected", Observation::Absent { why })
        }
        None => {
            let why = "no inventory was reported, so nothing could be compared".to_owned();
            alone("inventory", Observation::Unreadable { why })
        }
        Some(inventory) => spec_diff(expected, inventory),
    };
    Judged { verdict: Verdict::over(checks.iter().map(|check| check.verdict)), checks }
}

fn cpu(expected: &ExpectedCpu, inventory: &Inventory) -> Vec<Check> {
    let found = &inventory.cpu;
    let unread = why_unread(inventory, "cpu");
    let number = |name: &str, wanted, value: Option<u32>, unit: &str| {
        let observed = match value {
            Some(value) => Observation::measured(f64::from(value), unit),
            None => unreadable(unread, &format!("the number of {unit}")),
        };
        counted(wanted, name, observed)
    };
    [
        text_within(expected.model.as_deref(), "cpu.model", found.model.as_deref(), unread),
        number("cpu.sockets", expected.sockets, found.sockets, "sockets"),
        number("cpu.cores", expected.cores, found.cores, "cores"),
        number("cpu.logical", expected.logical, found.logical, "CPUs online"),
        text_equal(expected.microcode.as_deref(), "cpu.microcode", found.microcode.as_deref(), unread),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn memory(expected: &ExpectedMemory, inventory: &Inventory) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(total_gib) = expected.total_gib {
        let (observed, source, usual) = match installed_bytes(inventory) {
            Some((bytes, source)) => {
                (Observation::measured(bytes as f64 / GIB, "GiB"), source.text(), source.tolerance_percent())
            }
            None => (unreadable(why_unread(inventory, "memory"), "its memory"), "", KERNEL_TOLERANCE_PERCENT),
        };
        let slack = total_gib * expected.tolerance_percent.unwrap_or(usual) / 100.0;
        let limit = Limit {
            fail_below: Some(total_gib - slack),
            warn_above: Some(total_gib + slack),
            ..Limit::default()
        };
        checks.push(Check::of("memory.total", None, observed, limit).with_evidence(source));
    }
    let unread = why_unread(inventory, "dimms");
    let dimms = inventory.memory.dimms.as_ref();
    let no_dimms = || unreadable(unread, "which memory modules are installed (no SMBIOS)");
    if expected.dimms.is_some() {
        let observed = match (dimms, unread) {
            (Some(dimms), None) => Observation::measured(dimms.len() as f64, "modules"),
            (Some(_), Some(_)) | (None, _) => no_dimms(),
        };
        checks.extend(counted(expected.dimms, "memory.dimms", observed));
    }
    if let Some(speed_mts) = expected.speed_mts {
        let limit = Limit::at_least(f64::from(speed_mts));
        let speed = |dimm: &Dimm| match dimm.speed_mts {
            Some(speed_mts) => Observation::measured(f64::from(speed_mts), "MT/s"),
            None => unreadable(None, "the module's speed"),
        };
        checks.extend(each_dimm(&inventory.memory, "memory.speed", &limit, speed, no_dimms));
    }
    if let Some(part) = &expected.part {
        let limit = Limit::containing(part.trim());
        let part = |dimm: &Dimm| match said(dimm.part.as_deref()) {
            Some(part) => Observation::Found { text: part.to_owned() },
            None => unreadable(None, "the module's part number"),
        };
        checks.extend(each_dimm(&inventory.memory, "memory.part", &limit, part, no_dimms));
    }
    checks
}

/// A check of each module; one without a module where none is known, so that what is expected never vanishes.
fn each_dimm(
    memory: &Memory,
    name: &str,
    limit: &Limit,
    observe: impl Fn(&Dimm) -> Observation,
    no_dimms: impl Fn() -> Observation,
) -> Vec<Check> {
    let check = |component: Option<&str>, observed| Check::of(name, component, observed, limit.clone());
    let Some(dimms) = &memory.dimms else { return vec![check(None, no_dimms())] };
    if dimms.is_empty() {
        return vec![check(None, Observation::Missing { what: "a memory module".to_owned() })];
    }
    let mut dimms: Vec<&Dimm> = dimms.iter().collect();
    fn key(dimm: &Dimm) -> impl Ord + '_ {
        (dimm.locator.trim(), dimm.speed_mts, dimm.part.as_deref())
    }
    order::sort_by(&mut dimms, |one, other| key(one).cmp(&key(other)));
    let mut labels = Labels::default();
    let one = |dimm: &Dimm| {
        let locator = dimm.locator.trim();
        check(Some(&labels.unique(if locator.is_empty() { "module" } else { locator })), observe(dimm))
    };
    dimms.into_iter().map(one).collect()
}

/// How it is known what is installed.
#[derive(Clone, Copy)]
enum Source {
    /// The sum of the modules.
    Modules,
    /// What the kernel manages.
    Kernel,
}

impl Source {
    fn text(self) -> &'static str {
        match self {
            Source::Modules => "sum of the modules that SMBIOS names",
            Source::Kernel => "what the kernel manages (MemTotal)",
        }
    }

    fn tolerance_percent(self) -> f64 {
        match self {
            Source::Modules => MODULES_TOLERANCE_PERCENT,
            Source::Kernel => KERNEL_TOLERANCE_PERCENT,
        }
    }
}

/// What is installed, and how that is known.
fn installed_bytes(inventory: &Inventory) -> Option<(u64, Source)> {
    let is_whole = why_unread(inventory, "dimms").is_none();
    let dimms = inventory.memory.dimms.iter().filter(|_| is_whole).flatten();
    match dimms.fold(0_u64, |sum, dimm| sum.saturating_add(dimm.size_bytes)) {
        0 => inventory.memory.total_bytes.map(|bytes| (bytes, Source::Kernel)),
        sum => Some((sum, Source::Modules)),
    }
}

fn system(expected: &ExpectedSystem, inventory: &Inventory) -> Vec<Check> {
    let dmi = why_unread(inventory, "dmi");
    let version = inventory.firmware.version.as_deref();
    [
        text_equal(expected.vendor.as_deref(), "system.vendor", inventory.dmi.vendor.as_deref(), dmi),
        text_equal(expected.product.as_deref(), "system.product", inventory.dmi.product.as_deref(), dmi),
        text_equal(
            expected.firmware_version.as_deref(),
            "system.firmware_version",
            version,
            why_unread(inventory, "firmware"),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Why a part of the inventory is not whole, where it is not; of several reasons the same one each time.
fn why_unread<'i>(inventory: &'i Inventory, part: &str) -> Option<&'i str> {
    inventory.unread.iter().filter(|unread| unread.part == part).map(|unread| unread.why.as_str()).min()
}

fn unreadable(unread: Option<&str>, what: &str) -> Observation {
    let why = match unread {
        Some(why) => why.to_owned(),
        None => format!("the machine does not say {what}"),
    };
    Observation::Unreadable { why }
}

/// A count against its bounds: fewer fail, more warn.
fn counted(wanted: Option<Count>, name: &str, observed: Observation) -> Option<Check> {
    let Count { at_least, at_most } = wanted?;
    let limit = Limit {
        fail_below: Some(f64::from(at_least)),
        warn_above: Some(f64::from(at_most)),
        ..Limit::default()
    };
    Some(Check::of(name, None, observed, limit))
}

/// The length of a list, which is known only where the list is whole.
fn listed(
    wanted: Option<Count>,
    length: usize,
    name: &str,
    unit: &str,
    unread: Option<&str>,
) -> Option<Check> {
    let observed = match unread {
        None => Observation::measured(length as f64, unit),
        Some(_) => unreadable(unread, unit),
    };
    counted(wanted, name, observed)
}

fn text_equal(wanted: Option<&str>, name: &str, found: Option<&str>, unread: Option<&str>) -> Option<Check> {
    let limit = Limit::equal_to(wanted?.trim());
    Some(Check::of(name, None, text(found, name, unread), limit))
}

fn text_within(wanted: Option<&str>, name: &str, found: Option<&str>, unread: Option<&str>) -> Option<Check> {
    let limit = Limit::containing(wanted?.trim());
    Some(Check::of(name, None, text(found, name, unread), limit))
}

fn text(found: Option<&str>, name: &str, unread: Option<&str>) -> Observation {
    match said(found) {
        Some(text) => Observation::Found { text: text.to_owned() },
        None => unreadable(unread, &format!("its {name}")),
    }
}

/// A text without the blanks around it that firmware likes to add; a blank one says nothing.
fn said(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// Names that differ: the second of a name gets ` #2`.
#[derive(Default)]
struct Labels(BTreeMap<String, u32>);

impl Labels {
    fn unique(&mut self, label: &str) -> String {
        match self.next(label) {
            1 => label.to_owned(),
            count => format!("{label} #{count}"),
        }
    }

    /// The label with its number even where it is the first: it names one of a kind.
    fn numbered(&mut self, label: &str) -> String {
        format!("{label} #{}", self.next(label))
    }

    fn next(&mut self, label: &str) -> u32 {
        let count = self.0.entry(label.to_owned()).or_default();
        *count += 1;
        *count
    }
}
