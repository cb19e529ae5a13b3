//! One reading of each counter: EDAC, AER, machine check exceptions, network interfaces, throttling.
//!
//! Which files there are: the kernel's Documentation/admin-guide/RAS (EDAC), Documentation/ABI/testing/sysfs-bus-pci-devices-aer
//! and sysfs-class-net, arch/x86/kernel/irq.c for the row MCE of /proc/interrupts, and drivers/thermal/intel/therm_throt.c.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use groundcrew_protocol::plan::names;

use crate::probe::{Root, cpu};

/// What each component counted so far, or why nothing is known.
pub(super) type Reading = Result<BTreeMap<String, Counted>, Gap>;

/// What a component counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// All of it.
    pub count: u64,
    /// What it consists of, where the kernel says it.
    pub parts: BTreeMap<String, u64>,
    /// The file.
    pub source: String,
}

/// Why there is no reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nobody on this machine counts it.
    NotKept(String),
    /// It is there and was not understood.
    Unreadable(String),
}

const EDAC: &str = "/sys/devices/system/edac/mc";
const PCI: &str = "/sys/bus/pci/devices";
const NET: &str = "/sys/class/net";
const INTERRUPTS: &str = "/proc/interrupts";
/// Thousands of interrupts on hundreds of CPUs.
const INTERRUPTS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads a counter; `None` for a check that is none.
pub(super) fn read(root: &Root, name: &str) -> Option<Reading> {
    Some(match name {
        names::MEMORY_UNCORRECTED => memory(root, "ue"),
        names::MEMORY_CORRECTED => memory(root, "ce"),
        names::PCIE_UNCORRECTED => pcie(root, &["aer_dev_fatal", "aer_dev_nonfatal"]),
        names::PCIE_CORRECTED => pcie(root, &["aer_dev_correctable"]),
        names::MACHINE_CHECKS => machine_checks(root),
        names::NIC_ERRORS => interfaces(root, &["statistics/rx_errors", "statistics/tx_errors"]),
        names::LOST_CARRIERS => interfaces(root, &["carrier_down_count"]),
        names::THROTTLE_EVENTS => throttling(root),
        _ => return None,
    })
}

/// A counter, where it is there.
fn count(root: &Root, path: &str) -> Result<Option<u64>, Gap> {
    let text = root.attribute(path).map_err(|error| Gap::Unreadable(format!("{path}: {error}")))?;
    let number = |text: String| {
        text.parse::<u64>()
            .map_err(|_| Gap::Unreadable(format!("{path}: found \"{text}\", expected a count")))
    };
    text.map(number).transpose()
}

fn entries(root: &Root, folder: &str) -> Result<Vec<String>, Gap> {
    let listed = root.list(folder).map_err(|error| Gap::Unreadable(format!("{folder}: {error}")))?;
    Ok(listed.unwrap_or_default())
}

fn kept(counts: BTreeMap<String, Counted>, otherwise: &str) -> Reading {
    if counts.is_empty() { Err(Gap::NotKept(otherwise.to_owned())) } else { Ok(counts) }
}

/// `kind` is `ce` or `ue`. A controller counts more than its modules where it could not tell which one it was.
fn memory(root: &Root, kind: &str) -> Reading {
    let is_numbered = |name: &str, prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut counts = BTreeMap::new();
    for controller in entries(root, EDAC)?.iter().filter(|name| is_numbered(name, "mc")) {
        let folder = format!("{EDAC}/{controller}");
        let mut of_modules = 0u64;
        // The kernel says dimmN, or rankN where it knows no modules.
        let is_module = |name: &&String| is_numbered(name, "dimm") || is_numbered(name, "rank");
        for module in entries(root, &folder)?.iter().filter(is_module) {
            let source = format!("{folder}/{module}/dimm_{kind}_count");
            let Some(count) = count(root, &source)? else { continue };
            of_modules = of_modules.saturating_add(count);
            let place = format!("{controller}/{module}");
            let label = root.detail(&format!("{folder}/{module}/dimm_label"));
            // Two modules may be given one label; their place tells them apart.
            let component = label.map_or_else(|| place.clone(), |label| format!("{label} ({place})"));
            counts.insert(component, Counted { count, source, ..Counted::default() });
        }
        let source = format!("{folder}/{kind}_count");
        if let Some(all) = count(root, &source)? {
            let count = all.saturating_sub(of_modules);
            counts.insert(controller.clone(), Counted { count, source, ..Counted::default() });
        }
    }
    kept(
        counts,
        "no EDAC driver counts this machine's memory errors (no controller in /sys/devices/system/edac/mc)",
    )
}

fn pcie(root: &Root, files: &[&str]) -> Reading {
    let mut counts = BTreeMap::new();
    for device in entries(root, PCI)? {
        let mut of_device: Option<Counted> = None;
        for file in files {
            let source = format!("{PCI}/{device}/{file}");
            let text =
                root.attribute(&source).map_err(|error| Gap::Unreadable(format!("{source}: {error}")))?;
            let Some(text) = text else { continue };
            let (total, parts) = aer(&text)
                .ok_or_else(|| Gap::Unreadable(format!("{source}: it is no table with a total")))?;
            let counted = of_device.get_or_insert_default();
            counted.count = counted.count.saturating_add(total);
            // Fatal errors and others go by the same words.
            let kind = file.trim_start_matches("aer_dev_");
            counted.parts.extend(parts.into_iter().map(|(word, count)| (format!("{kind} {word}"), count)));
            let comma = if counted.source.is_empty() { "" } else { ", " };
            counted.source = format!("{}{comma}{source}", counted.source);
        }
        counts.extend(of_device.map(|counted| (device, counted)));
    }
    kept(counts, "no PCI device here reports its errors (no AER in /sys/bus/pci/devices)")
}

/// Devices of which nobody counts errors, where others beside them are counted: a link without AER.
pub(super) fn uncounted(root: &Root, name: &str) -> Vec<String> {
    let file = match name {
        names::PCIE_UNCORRECTED => "aer_dev_fatal",
        names::PCIE_CORRECTED => "aer_dev_correctable",
        _ => return Vec::new(),
    };
    let devices = entries(root, PCI).unwrap_or_default();
    devices.into_iter().filter(|device| !root.exists(&format!("{PCI}/{device}/{file}"))).collect()
}

/// The total and the parts of a table of AER: a word and a count each line, of which one is `TOTAL_…`.
fn aer(text: &str) -> Option<(u64, Vec<(String, u64)>)> {
    let mut total = None;
    let mut parts = Vec::new();
    for line in text.lines() {
        let (word, count) = line.trim().rsplit_once(' ')?;
        let count: u64 = count.parse().ok()?;
        match word.starts_with("TOTAL") {
            true if total.is_some() => return None,
            true => total = Some(count),
            false => parts.push((word.trim().to_owned(), count)),
        }
    }
    Some((total?, parts))
}

fn machine_checks(root: &Root) -> Reading {
    const ABSENT: &str = "the kernel counts no machine check exceptions (no row MCE in /proc/interrupts)";
    let broken = |why: String| Gap::Unreadable(format!("{INTERRUPTS}: {why}"));
    let file = match std::fs::File::open(root.path(INTERRUPTS)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Gap::NotKept(ABSENT.to_owned()));
        }
        Err(error) => return Err(broken(error.to_string())),
    };
    let mut header = None;
    for line in std::io::BufReader::new(file.take(INTERRUPTS_BYTES_MAX)).split(b'\n') {
        let line = line.map_err(|error| broken(error.to_string()))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let Some(header) = &header else {
            header = Some(line);
            continue;
        };
        if let Some(row) = line.trim_start().strip_prefix("MCE:") {
            return row_of_interrupts(header, row)
                .ok_or_else(|| broken("its row MCE has no count for each CPU".to_owned()));
        }
    }
    Err(Gap::NotKept(ABSENT.to_owned()))
}

fn row_of_interrupts(header: &str, row: &str) -> Option<BTreeMap<String, Counted>> {
    let mut counts = row.split_whitespace();
    let of_cpu = |cpu: &str| {
        let number = cpu.strip_prefix("CPU").filter(|number| number.parse::<u32>().is_ok())?;
        let count = counts.next()?.parse().ok()?;
        let source = format!("the row MCE of {INTERRUPTS}");
        Some((format!("cpu{number}"), Counted { count, source, ..Counted::default() }))
    };
    let counts: BTreeMap<String, Counted> = header.split_whitespace().map(of_cpu).collect::<Option<_>>()?;
    (!counts.is_empty()).then_some(counts)
}

/// What is told of the kinds of damaged packets. They are no parts of a sum: a packet may count in several.
const KINDS_OF_ERRORS: [&str; 8] = [
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_length_errors",
    "rx_fifo_errors",
    "rx_over_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
];

/// Interfaces with a device behind them. Functions that a card lends out (SR-IOV) come and go, and are left out.
fn interfaces(root: &Root, files: &[&str]) -> Reading {
    let mut counts = BTreeMap::new();
    for interface in entries(root, NET)? {
        let folder = format!("{NET}/{interface}");
        if !root.exists(&format!("{folder}/device")) || root.exists(&format!("{folder}/device/physfn")) {
            continue;
        }
        let mut of_interface: Option<Counted> = None;
        for file in files {
            let path = format!("{folder}/{file}");
            let Some(count) = count(root, &path)? else { continue };
            let counted = of_interface.get_or_insert_default();
            counted.count = counted.count.saturating_add(count);
            counted.source = format!("{folder}/{}", files.join(" + "));
        }
        if let Some(mut counted) = of_interface {
            if files.len() > 1 {
                for kind in KINDS_OF_ERRORS {
                    let known = count(root, &format!("{folder}/statistics/{kind}"))?;
                    counted.parts.extend(known.map(|count| (kind.to_owned(), count)));
                }
            }
            counts.insert(interface, counted);
        }
    }
    kept(counts, "no network interface here has a device that counts it")
}

/// Each CPU counts for itself, and all CPUs of a package repeat the package's count.
fn throttling(root: &Root) -> Reading {
    let mut counts = BTreeMap::new();
    for cpu in cpu::online(root) {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}");
        let package = root
            .detail(&format!("{folder}/topology/physical_package_id"))
            .map_or_else(|| format!("package of cpu{cpu}"), |id| format!("package {id}"));
        for (file, component) in
            [("core_throttle_count", format!("cpu{cpu}")), ("package_throttle_count", package)]
        {
            let source = format!("{folder}/thermal_throttle/{file}");
            if let Some(count) = count(root, &source)? {
                let counted = Counted { count, source, ..Counted::default() };
                counts.entry(component).or_insert(counted);
            }
        }
    }
    kept(
        counts,
        "the kernel counts no throttling of these CPUs (no thermal_throttle in /sys/devices/system/cpu)",
    )
}
