//! Writes down a machine that is known to be good, as what others like it are expected to be.

use std::collections::{BTreeMap, BTreeSet};

use super::{GIB, installed_bytes, said, why_unread};
use crate::ids::MacAddress;
use crate::inventory::{Dimm, Disk, Inventory, Nic};
use crate::profile::{
    COUNT_MAX, Count, Expected, ExpectedCpu, ExpectedDisk, ExpectedGpu, ExpectedMemory, ExpectedNic,
    ExpectedSystem, LIST_MAX, MTU_MIN, SIZE_MAX, SIZE_MIN, SPEED_MBPS_MAX, SPEED_MTS_MAX, TEXT_BYTES_MAX,
};

/// The hardware of a machine as an expectation that this machine meets. What its inventory does not say, or could
/// not read, is not expected.
pub fn expected_of(inventory: &Inventory) -> Expected {
    let is_whole = |part: &str| why_unread(inventory, part).is_none();
    let cpu = &inventory.cpu;
    let disks = if is_whole("disks") { &inventory.disks[..] } else { &[] };
    let nics = if is_whole("nics") { &inventory.nics[..] } else { &[] };
    Expected {
        cpu: ExpectedCpu {
            model: writable(cpu.model.as_deref()),
            sockets: cpu.sockets.and_then(|count| exactly(count as usize)),
            cores: cpu.cores.and_then(|count| exactly(count as usize)),
            logical: cpu.logical.and_then(|count| exactly(count as usize)),
            microcode: writable(cpu.microcode.as_deref()),
        },
        memory: memory(inventory),
        disk_count: exactly(disks.len()).filter(|_| is_whole("disks")),
        disks: disks_of(disks),
        nic_count: exactly(nics.iter().filter(|nic| !nic.is_virtual).count()).filter(|_| is_whole("nics")),
        nics: nics_of(nics),
        gpu_count: exactly(inventory.real_gpus().count()).filter(|_| is_whole("gpus")),
        gpus: if is_whole("gpus") { gpus_of(inventory) } else { Vec::new() },
        system: ExpectedSystem {
            vendor: writable(inventory.dmi.vendor.as_deref()),
            product: writable(inventory.dmi.product.as_deref()),
            firmware_version: writable(inventory.firmware.version.as_deref()),
        },
    }
}

fn exactly(count: usize) -> Option<Count> {
    let count = u32::try_from(count).ok().filter(|count| *count <= COUNT_MAX)?;
    Some(Count { at_least: count, at_most: count })
}

/// A text that a profile can hold.
fn writable(text: Option<&str>) -> Option<String> {
    let fits = |text: &&str| text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    said(text).filter(fits).map(str::to_owned)
}

fn memory(inventory: &Inventory) -> ExpectedMemory {
    let dimms = inventory.memory.dimms.as_deref().filter(|_| why_unread(inventory, "dimms").is_none());
    let slowest = |dimms: &[Dimm]| {
        let speeds: Option<Vec<u32>> = dimms.iter().map(|dimm| dimm.speed_mts).collect();
        speeds?.into_iter().min().filter(|speed| (1..=SPEED_MTS_MAX).contains(speed))
    };
    ExpectedMemory {
        total_gib: installed_bytes(inventory)
            .map(|(bytes, _)| bytes as f64 / GIB)
            .filter(|gib| (SIZE_MIN..=SIZE_MAX).contains(gib)),
        dimms: dimms.and_then(|dimms| exactly(dimms.len())),
        speed_mts: dimms.and_then(slowest),
        part: dimms.and_then(part),
        tolerance_percent: None,
    }
}

/// The part number, where all modules have the same.
fn part(dimms: &[Dimm]) -> Option<String> {
    let (first, others) = dimms.split_first()?;
    let part = writable(first.part.as_deref())?;
    others.iter().all(|dimm| said(dimm.part.as_deref()) == Some(&part)).then_some(part)
}

/// Every kind of GPU, or none where one of them does not say which it is.
fn gpus_of(inventory: &Inventory) -> Vec<ExpectedGpu> {
    let is_id = |id: &str| id.len() == 4 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for gpu in inventory.real_gpus() {
        if !is_id(&gpu.vendor) || !is_id(&gpu.device) {
            return Vec::new();
        }
        *counts.entry(gpu.kind()).or_default() += 1;
    }
    let one = |(device, count)| Some(ExpectedGpu { device, count: exactly(count)? });
    let all: Option<Vec<ExpectedGpu>> = counts.into_iter().map(one).collect();
    all.filter(|all| all.len() <= LIST_MAX).unwrap_or_default()
}

/// Every disk, or none where one of them says nothing that would tell it apart.
fn disks_of(disks: &[Disk]) -> Vec<ExpectedDisk> {
    let (mut serials, mut wwns) = (BTreeSet::new(), BTreeSet::new());
    let one = |disk: &Disk| {
        let expected = ExpectedDisk {
            serial: writable(disk.serial.as_deref()).filter(|serial| serials.insert(serial.clone())),
            model: writable(disk.model.as_deref()),
            size_gb: Some(disk.size_bytes as f64 / 1e9).filter(|gb| (SIZE_MIN..=SIZE_MAX).contains(gb)),
            tolerance_percent: None,
            wwn: writable(disk.wwn.as_deref()).filter(|wwn| wwns.insert(wwn.clone())),
            firmware: writable(disk.firmware.as_deref()),
        };
        let says_which = expected.serial.is_some()
            || expected.wwn.is_some()
            || expected.model.is_some()
            || expected.size_gb.is_some();
        says_which.then_some(expected)
    };
    let all: Option<Vec<ExpectedDisk>> = disks.iter().map(one).collect();
    all.filter(|all| all.len() <= LIST_MAX).unwrap_or_default()
}

/// The interfaces that are not virtual and have an address that no other has.
fn nics_of(nics: &[Nic]) -> Vec<ExpectedNic> {
    let mac_of = |nic: &Nic| said(nic.mac.as_deref()).map(str::to_ascii_lowercase);
    let is_alone = |mac: &String| nics.iter().filter(|nic| mac_of(nic).as_ref() == Some(mac)).count() == 1;
    let one = |nic: &Nic| {
        let mac = mac_of(nic).filter(|mac| mac.parse::<MacAddress>().is_ok()).filter(is_alone)?;
        Some(ExpectedNic {
            mac: Some(mac),
            driver: writable(nic.driver.as_deref()),
            speed_mbps: nic.speed_mbps.filter(|speed| (1..=SPEED_MBPS_MAX).contains(speed)),
            mtu: nic.mtu.filter(|mtu| (MTU_MIN..=COUNT_MAX).contains(mtu)),
        })
    };
    nics.iter().filter(|nic| !nic.is_virtual).filter_map(one).take(LIST_MAX).collect()
}
