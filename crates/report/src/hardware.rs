//! The inventory as tables.

use groundcrew_protocol::inventory::{Inventory, Unread};
use maud::{Markup, html};

use crate::words::{bytes_binary, bytes_decimal};

/// What a machine is made of; what it does not say is left out.
pub(crate) fn tables(inventory: &Inventory) -> Markup {
    html! {
        (facts(inventory))
        (table("Memory modules", &["Slot", "Size", "Kind", "Speed", "Maker", "Part", "Serial"], &dimms(inventory)))
        (table("Disks", &["Name", "Model", "Serial", "Size", "Bus", "Firmware", "WWN"], &disks(inventory)))
        (table("Network interfaces", &["Name", "Driver", "MAC", "Speed", "MTU", "State", "PCI"], &nics(inventory)))
        (table("GPUs", &["PCI", "Vendor", "Device", "Class", "Driver"], &gpus(inventory)))
        (table("Power supplies", &["Name", "Model", "Serial", "State"], &psus(inventory)))
        (unread(&inventory.unread))
    }
}

fn facts(inventory: &Inventory) -> Markup {
    let Inventory { cpu, memory, dmi, firmware, .. } = inventory;
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let joined = |parts: [&Option<String>; 3]| {
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    };
    let facts = [
        ("System", joined([&dmi.vendor, &dmi.product, &None])),
        ("System serial", dmi.serial.clone()),
        ("System UUID", dmi.uuid.clone()),
        ("Board", dmi.board.clone()),
        ("Board serial", dmi.board_serial.clone()),
        ("Firmware", joined([&firmware.vendor, &firmware.version, &firmware.date])),
        ("Started by", Some(if firmware.efi { "UEFI" } else { "not UEFI" }.to_owned())),
        ("Kernel", inventory.kernel.clone()),
        ("Processor", cpu.model.clone()),
        ("Sockets", number(cpu.sockets)),
        ("Cores", number(cpu.cores)),
        ("CPUs online", number(cpu.logical)),
        ("Microcode", cpu.microcode.clone()),
        ("Memory", memory.total_bytes.map(|bytes| format!("{} managed by the kernel", bytes_binary(bytes)))),
    ];
    html! {
        dl.facts {
            @for (name, value) in facts {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// A table with a row for each thing; nothing where there is none.
fn table<const COLUMNS: usize>(title: &str, heads: &[&str; COLUMNS], rows: &[[String; COLUMNS]]) -> Markup {
    html! {
        @if !rows.is_empty() {
            h3 { (title) " (" (rows.len()) ")" }
            div.scroll tabindex="0" role="group" aria-label=(title) {
                table {
                    thead { tr { @for head in heads { th scope="col" { (head) } } } }
                    tbody {
                        @for row in rows {
                            tr {
                                @for (index, cell) in row.iter().enumerate() {
                                    @if index == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn said(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

fn with_unit(number: Option<u32>, unit: &str) -> String {
    number.map(|number| format!("{number} {unit}")).unwrap_or_default()
}

fn dimms(inventory: &Inventory) -> Vec<[String; 7]> {
    let dimms = inventory.memory.dimms.iter().flatten();
    dimms
        .map(|dimm| {
            [
                dimm.locator.clone(),
                bytes_binary(dimm.size_bytes),
                said(&dimm.kind),
                with_unit(dimm.speed_mts, "MT/s"),
                said(&dimm.manufacturer),
                said(&dimm.part),
                said(&dimm.serial),
            ]
        })
        .collect()
}

fn disks(inventory: &Inventory) -> Vec<[String; 7]> {
    let row = |disk: &groundcrew_protocol::inventory::Disk| {
        let kind = match disk.rotational {
            Some(true) => " (platters)",
            Some(false) | None => "",
        };
        [
            disk.name.clone(),
            said(&disk.model),
            said(&disk.serial),
            bytes_decimal(disk.size_bytes),
            said(&disk.transport) + kind,
            said(&disk.firmware),
            said(&disk.wwn),
        ]
    };
    inventory.disks.iter().map(row).collect()
}

fn nics(inventory: &Inventory) -> Vec<[String; 7]> {
    let row = |nic: &groundcrew_protocol::inventory::Nic| {
        [
            if nic.is_virtual { format!("{} (virtual)", nic.name) } else { nic.name.clone() },
            said(&nic.driver),
            said(&nic.mac),
            with_unit(nic.speed_mbps, "Mb/s"),
            nic.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            said(&nic.state),
            said(&nic.pci),
        ]
    };
    inventory.nics.iter().map(row).collect()
}

fn gpus(inventory: &Inventory) -> Vec<[String; 5]> {
    let row = |gpu: &groundcrew_protocol::inventory::Gpu| {
        let driver = gpu.driver.clone().unwrap_or_else(|| "none".to_owned());
        [gpu.pci.clone(), gpu.vendor.clone(), gpu.device.clone(), gpu.class.clone(), driver]
    };
    inventory.gpus.iter().map(row).collect()
}

fn psus(inventory: &Inventory) -> Vec<[String; 4]> {
    let psus = inventory.psus.iter();
    psus.map(|psu| [psu.name.clone(), said(&psu.model), said(&psu.serial), said(&psu.state)]).collect()
}

fn unread(unread: &[Unread]) -> Markup {
    html! {
        @if !unread.is_empty() {
            h3 { "Could not be read" }
            ul { @for one in unread { li { strong { (one.part) } ": " (one.why) } } }
        }
    }
}
