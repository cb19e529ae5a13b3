//! The stage Inventory: reads the hardware and says, part by part, whether that was possible.
//!
//! Whether it is the hardware that should be there is SpecValidate's question.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::inventory::{Dmi, Firmware, Gpu, Inventory, Nic};
use groundcrew_protocol::plan::{INVENTORY_CHECKS, names};

use super::{Done, StageContext, pcie};
use crate::probe::{Root, gpus, inventory};
use crate::process::tool::Stopped;

/// How often the wait for the readers looks whether somebody asks the stage to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Reads the hardware. A read that hangs in the kernel keeps its thread; the stage ends at its deadline all the same.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    context.show(0.1, "reading /proc, /sys and SMBIOS");
    let (sender, receiver) = channel();
    let root = context.root.clone();
    let reader = std::thread::Builder::new().name("inventory".into()).spawn(move || {
        // Nobody listens any more where the stage has ended.
        let _ = sender.send(inventory::collect(&root));
    });
    if let Err(error) = reader {
        let why = format!("could not start a thread to read the hardware: {error}");
        return Done { checks: context.all_unreadable(&why), ..Done::default() };
    }
    loop {
        let stopped = match receiver.recv_timeout(LOOK_INTERVAL) {
            Ok(inventory) => return done(context, inventory),
            Err(RecvTimeoutError::Disconnected) => {
                let why = "reading the hardware broke off by an error in the agent itself";
                return Done { checks: context.all_unreadable(why), ..Done::default() };
            }
            Err(RecvTimeoutError::Timeout) if context.cancel.is_asked() => Stopped::Cancelled,
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => Stopped::TimedOut,
            Err(RecvTimeoutError::Timeout) => continue,
        };
        let checks = context.all_unreadable(&context.stopped_text(stopped));
        return Done { checks, stopped: Some(stopped), ..Done::default() };
    }
}

fn done(context: &StageContext, inventory: Inventory) -> Done {
    let checks = checks(context, &inventory);
    Done { checks, inventory: Some(Box::new(inventory)), ..Done::default() }
}

/// A check for each part, and for GPUs one for each of them.
fn checks(context: &StageContext, inventory: &Inventory) -> Vec<Check> {
    let checks = |name: &&'static str| {
        let whys: Vec<&str> = inventory
            .unread
            .iter()
            .filter(|unread| unread.part == **name)
            .map(|unread| unread.why.as_str())
            .collect();
        if !whys.is_empty() {
            let observed = Observation::Unreadable { why: whys.join("; ") };
            return vec![context.check(name, observed)];
        }
        if *name == names::GPUS && inventory.real_gpus().next().is_some() {
            return inventory.real_gpus().map(|gpu| gpu_check(context, gpu)).collect();
        }
        if *name == names::PCIE_WIDTH {
            return widths(context, inventory);
        }
        let (observed, source) = part(name, inventory, &context.root);
        vec![context.check(name, observed).with_evidence(source)]
    };
    INVENTORY_CHECKS.iter().flat_map(checks).collect()
}

/// A GPU on the bus without its driver computes nothing: that fails, wherever the profile counts GPUs or not.
fn gpu_check(context: &StageContext, gpu: &Gpu) -> Check {
    let named = format!("{}:{}", gpu.vendor, gpu.device);
    let observed = match &gpu.driver {
        Some(driver) => found(format!("{named} {driver}")),
        None => Observation::Missing { what: format!("the driver of the GPU {named} at {}", gpu.pci) },
    };
    let evidence = format!("{}/{}/driver", gpus::FOLDER, gpu.pci);
    Check { component: Some(gpu.pci.clone()), ..context.check(names::GPUS, observed) }.with_evidence(evidence)
}

/// Lanes of each device that has a link of its own; a GPU's are asked of its driver, in its own stage. A card's functions have one
/// link between them, and virtual ones none.
fn widths(context: &StageContext, inventory: &Inventory) -> Vec<Check> {
    let disks = inventory.disks.iter().filter(|disk| disk.name.starts_with("nvme")).filter_map(|disk| {
        Some((disk.pci.as_deref()?, disk.serial.clone().unwrap_or_else(|| disk.name.clone())))
    });
    // One on USB hangs on its controller's link, which is not its own.
    let is_on_pcie = |nic: &&Nic| {
        let device = context.root.resolved(&format!("/sys/class/net/{}/device", nic.name));
        !nic.is_virtual && nic.pci.is_some() && device.last() == nic.pci.as_ref()
    };
    let nics = inventory.nics.iter().filter(is_on_pcie);
    let nics = nics.filter_map(|nic| Some((nic.pci.as_deref()?, nic.name.clone())));
    let devices: BTreeMap<&str, String> = disks.chain(nics).collect();
    if devices.is_empty() {
        let why = "no NVMe disk and no network interface here is a device on PCIe";
        return vec![context.check(names::PCIE_WIDTH, absent(why))];
    }
    let check = |(pci, component): (&str, String)| {
        let (observed, evidence) = pcie::observed(&context.root, pci, pcie::Of::Width);
        let limit = context.limit(names::PCIE_WIDTH);
        Check::of(names::PCIE_WIDTH, Some(&component), observed, limit).with_evidence(evidence)
    };
    devices.into_iter().map(check).collect()
}

/// What a part says of itself, and where it was read.
fn part(name: &str, inventory: &Inventory, root: &Root) -> (Observation, &'static str) {
    const NO_TABLES: &str = "the firmware exports no SMBIOS tables";
    let smbios = "/sys/firmware/dmi/tables";
    let observed = match name {
        names::CPU => return (found(cpu(inventory)), "/proc/cpuinfo, /sys/devices/system/cpu"),
        names::MEMORY => return (found(memory(inventory)), "/proc/meminfo"),
        names::DIMMS => match &inventory.memory.dimms {
            None => absent(NO_TABLES),
            Some(dimms) if dimms.is_empty() => absent("SMBIOS names no memory module"),
            Some(_) => found(dimms(inventory)),
        },
        names::DISKS => return (listed(&disks(inventory), "/sys/block names no disk"), "/sys/block"),
        names::NICS => {
            return (
                listed(&nics(inventory), "/sys/class/net names no interface with a device"),
                "/sys/class/net",
            );
        }
        names::GPUS if !root.exists(gpus::FOLDER) => absent("the machine has no PCI bus"),
        names::GPUS => return (absent(&no_gpu(inventory)), gpus::FOLDER),
        names::DMI if inventory.dmi == Dmi::default() => absent("the firmware does not name the machine"),
        names::DMI => found(dmi(inventory)),
        names::FIRMWARE if nothing_of_firmware(&inventory.firmware) => {
            absent("the firmware does not name itself")
        }
        names::FIRMWARE => found(firmware(inventory)),
        names::PSUS if inventory.psus.is_empty() && inventory.memory.dimms.is_none() => absent(NO_TABLES),
        names::PSUS => listed(&psus(inventory), "SMBIOS names no power supply"),
        other => Observation::Unreadable { why: format!("the inventory has no part {other}") },
    };
    (observed, smbios)
}

fn found(text: String) -> Observation {
    Observation::Found { text }
}

fn absent(why: &str) -> Observation {
    Observation::Absent { why: why.to_owned() }
}

fn listed(items: &[String], none: &str) -> Observation {
    if items.is_empty() { absent(none) } else { found(items.join("; ")) }
}

fn nothing_of_firmware(firmware: &Firmware) -> bool {
    *firmware == Firmware { efi: firmware.efi, ..Firmware::default() }
}

/// Joins what is there.
fn joined<const N: usize>(parts: [Option<String>; N], between: &str) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(between)
}

fn cpu(inventory: &Inventory) -> String {
    let cpu = &inventory.cpu;
    let count = |count: Option<u32>, what: &str| {
        count.map(|count| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
    };
    let parts = [
        cpu.model.clone(),
        count(cpu.sockets, "socket"),
        count(cpu.cores, "core"),
        count(cpu.logical, "CPU"),
    ];
    joined(parts, ", ")
}

fn memory(inventory: &Inventory) -> String {
    let bytes = inventory.memory.total_bytes.unwrap_or_default();
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn dimms(inventory: &Inventory) -> String {
    let dimms = inventory.memory.dimms.as_deref().unwrap_or_default();
    let names: Vec<&str> = dimms.iter().map(|dimm| dimm.locator.as_str()).collect();
    let bytes: u64 = dimms.iter().map(|dimm| dimm.size_bytes).fold(0, u64::saturating_add);
    format!("{} modules, {:.1} GiB: {}", dimms.len(), bytes as f64 / f64::from(1 << 30), names.join(", "))
}

fn disks(inventory: &Inventory) -> Vec<String> {
    let gigabytes = |bytes: u64| Some(format!("{:.0} GB", bytes as f64 / 1e9));
    inventory
        .disks
        .iter()
        .map(|disk| {
            let serial = disk.serial.as_ref().map(|serial| format!("serial {serial}"));
            let kind = disk.transport.clone();
            joined(
                [Some(disk.name.clone()), kind, disk.model.clone(), serial, gigabytes(disk.size_bytes)],
                " ",
            )
        })
        .collect()
}

fn nics(inventory: &Inventory) -> Vec<String> {
    inventory
        .nics
        .iter()
        .map(|nic| {
            let speed = nic.speed_mbps.map(|speed| format!("{speed} Mb/s"));
            let parts =
                [Some(nic.name.clone()), nic.driver.clone(), nic.mac.clone(), speed, nic.state.clone()];
            joined(parts, " ")
        })
        .collect()
}

/// Why there is no GPU, with what is not counted as one.
fn no_gpu(inventory: &Inventory) -> String {
    let consoles: Vec<String> =
        inventory.gpus.iter().map(|gpu| format!("{} {}:{}", gpu.pci, gpu.vendor, gpu.device)).collect();
    if consoles.is_empty() {
        return "no GPU on the PCI bus".to_owned();
    }
    format!("no GPU on the PCI bus; {} only shows a console", consoles.join(", "))
}

fn dmi(inventory: &Inventory) -> String {
    let dmi = &inventory.dmi;
    let serial = dmi.serial.as_ref().map(|serial| format!("serial {serial}"));
    joined([dmi.vendor.clone(), dmi.product.clone(), serial, dmi.board.clone()], ", ")
}

fn firmware(inventory: &Inventory) -> String {
    let firmware = &inventory.firmware;
    let start = if firmware.efi { "UEFI" } else { "BIOS" };
    let parts =
        [firmware.vendor.clone(), firmware.version.clone(), firmware.date.clone(), Some(start.to_owned())];
    joined(parts, " ")
}

fn psus(inventory: &Inventory) -> Vec<String> {
    let text = |psu: &groundcrew_protocol::inventory::Psu| {
        joined([Some(psu.name.clone()), psu.model.clone(), psu.state.clone()], " ")
    };
    inventory.psus.iter().map(text).collect()
}
