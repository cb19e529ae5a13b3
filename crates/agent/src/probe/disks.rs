//! Disks, from /sys/block: whole devices that hold data of their own.

use groundcrew_protocol::inventory::Disk;

use super::root::pci_address;
use super::{Root, Unreads, smbios};

const PART: &str = "disks";
/// /sys/block counts in these, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES_MAX: u64 = 4096;

/// Reads the disks. No /sys/block at all is noted as unread: every kernel with disks has it.
pub fn read(root: &Root, unreads: &mut Unreads) -> Vec<Disk> {
    let Some(names) = unreads.list(root, PART, "/sys/block") else {
        unreads.note(PART, "/sys/block", "there is no such folder");
        return Vec::new();
    };
    names
        .iter()
        .filter(|name| !is_made_of_others(name))
        .filter_map(|name| disk(root, unreads, name))
        .collect()
}

/// True for devices that are made of others, of memory, or of a medium that comes and goes.
fn is_made_of_others(name: &str) -> bool {
    const KINDS: [&str; 12] =
        ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "mtdblock", "bcache", "drbd", "ublkb", "zd"];
    let is_kind = |kind: &str| {
        let rest = name.strip_prefix(kind);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
    };
    // The boot areas of an eMMC are parts of it that show as devices.
    KINDS.iter().any(|kind| is_kind(kind)) || (name.starts_with("mmcblk") && name.contains("boot"))
}

fn disk(root: &Root, unreads: &mut Unreads, name: &str) -> Option<Disk> {
    let folder = format!("/sys/block/{name}");
    let detail = |attribute: &str| root.detail(&format!("{folder}/{attribute}"));
    // A path of a multipath NVMe namespace: the namespace itself is listed besides.
    if detail("hidden").as_deref() == Some("1") {
        return None;
    }
    let size_path = format!("{folder}/size");
    let sectors = unreads.attribute(root, PART, &size_path);
    let size_bytes = match sectors.as_deref().map(str::parse::<u64>) {
        Some(Ok(sectors)) => sectors.saturating_mul(SECTOR_BYTES),
        Some(Err(error)) => {
            unreads.note(PART, &size_path, error);
            0
        }
        None => 0,
    };
    let may_be_empty = name.starts_with("nbd") || detail("removable").as_deref() == Some("1");
    // Nothing is connected, or no card is in the reader. A fixed disk of no size is broken, and is listed.
    if size_bytes == 0 && may_be_empty {
        return None;
    }
    let path = root.resolved(&folder);
    let first = |attributes: &[&str]| attributes.iter().find_map(|attribute| detail(attribute));
    Some(Disk {
        name: name.to_owned(),
        model: first(&["device/model", "device/name"]).and_then(|text| smbios::said(&text)),
        serial: first(&["device/serial", "serial"])
            .or_else(|| unit_serial(root, &folder))
            .and_then(|text| smbios::said(&text)),
        wwn: first(&["wwid", "device/wwid"]),
        size_bytes,
        transport: transport(root, name, &folder, &path),
        rotational: detail("queue/rotational").map(|text| text == "1"),
        firmware: first(&["device/firmware_rev", "device/rev", "device/fwrev"]),
        pci: pci_address(&path).or_else(|| {
            controllers(root, &folder).iter().find_map(|controller| pci_address(&root.resolved(controller)))
        }),
    })
}

/// Serial in the SCSI page 0x80: a header of four bytes with the length, then text.
fn unit_serial(root: &Root, folder: &str) -> Option<String> {
    let page = root.read(&format!("{folder}/device/vpd_pg80"), PAGE_BYTES_MAX).ok()?;
    parse_unit_serial(&page)
}

fn parse_unit_serial(page: &[u8]) -> Option<String> {
    const PAGE: u8 = 0x80;
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let bytes = page.get(4..4 + length).filter(|_| page[1] == PAGE)?;
    Some(String::from_utf8_lossy(bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

/// What the disk hangs on, by the way to it through the devices; else the kernel's word for the bus.
fn transport(root: &Root, name: &str, folder: &str, path: &[String]) -> Option<String> {
    let passes = |kind: &str| {
        path.iter().any(|part| {
            part.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    if name.starts_with("nvme") {
        return nvme_transport(root, folder);
    }
    let by_path = [
        ("usb", "usb"),
        ("ata", "sata"),
        ("session", "iscsi"),
        ("rport-", "fc"),
        ("virtio", "virtio"),
        ("mmc", "mmc"),
    ];
    if let Some((_, word)) = by_path.iter().find(|(kind, _)| passes(kind)) {
        return Some((*word).to_owned());
    }
    if passes("end_device-") {
        // A SATA disk behind a SAS controller says so in place of its maker.
        let is_ata = root.detail(&format!("{folder}/device/vendor")).as_deref() == Some("ATA");
        return Some(if is_ata { "sata" } else { "sas" }.to_owned());
    }
    root.link_name(&format!("{folder}/device/subsystem"))
}

/// Folders of an NVMe disk's controllers: its device, or where the disk has several ports, those that its subsystem
/// links to.
fn controllers(root: &Root, folder: &str) -> Vec<String> {
    let device = format!("{folder}/device");
    if root.exists(&format!("{device}/transport")) {
        return vec![device];
    }
    let names = root.list(&device).ok().flatten().unwrap_or_default();
    let is_controller = |name: &&String| {
        name.strip_prefix("nvme")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    names.iter().filter(is_controller).map(|name| format!("{device}/{name}")).collect()
}

/// `nvme` only where every way to the disk is local; a disk that does not say is not taken for local.
fn nvme_transport(root: &Root, folder: &str) -> Option<String> {
    let words: Option<Vec<String>> = controllers(root, folder)
        .iter()
        .map(|controller| root.detail(&format!("{controller}/transport")))
        .collect();
    let words = words?;
    let fabric = words.iter().find(|word| *word != "pcie");
    match (fabric, words.is_empty()) {
        (_, true) => None,
        (Some(fabric), false) => Some(format!("nvme-{fabric}")),
        (None, false) => Some("nvme".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture::{self, Machine};
    use proptest::prelude::*;

    #[test]
    fn nvme_sata_sas_and_virtio_are_told_apart() {
        let machine = fixture::server();
        let mut unreads = Unreads::default();
        let disks = read(&machine.root, &mut unreads);
        let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["nvme0n1", "sda", "sdb", "vda"]);
        let nvme = Disk {
            name: "nvme0n1".into(),
            model: Some("SAMSUNG MZQL23T8HCLS-00A07".into()),
            serial: Some("S64HNE0R500123".into()),
            wwn: Some("eui.36344830526001230025384500000001".into()),
            size_bytes: 3_840_755_982_336,
            transport: Some("nvme".into()),
            rotational: Some(false),
            firmware: Some("GDC5602Q".into()),
            pci: Some("0000:65:00.0".into()),
        };
        assert_eq!(disks[0], nvme);
        let told = |at: usize| {
            let disk: &Disk = &disks[at];
            (disk.transport.as_deref(), disk.serial.as_deref(), disk.rotational, disk.pci.as_deref())
        };
        assert_eq!(told(1), (Some("sata"), Some("WD-WCC4N0000001"), Some(true), Some("0000:00:17.0")));
        assert_eq!(told(2), (Some("sas"), Some("ZC1A0001"), Some(true), Some("0000:18:00.0")));
        assert_eq!(told(3), (Some("virtio"), Some("rootdisk"), Some(true), Some("0000:00:04.0")));
        assert!(unreads.into_vec().is_empty());
    }

    #[test]
    fn a_disk_with_several_ports_is_local_only_where_every_way_is() {
        let machine = Machine::empty();
        let subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys3";
        machine.write(&format!("{subsystem}/nvme3n1/size"), "2048\n");
        machine.write(&format!("{subsystem}/serial"), "S1\n");
        machine.link(&format!("{subsystem}/nvme3n1/device"), "../../nvme-subsys3");
        machine.link("/sys/block/nvme3n1", "../devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1");
        let read = || {
            let disks = read(&machine.root, &mut Unreads::default());
            (disks[0].transport.clone(), disks[0].pci.clone(), disks[0].serial.clone())
        };
        assert_eq!(read(), (None, None, Some("S1".into())));
        let local = "/sys/devices/pci0000:80/0000:81:00.0/nvme/nvme3";
        machine.write(&format!("{local}/transport"), "pcie\n");
        machine.link(&format!("{subsystem}/nvme3"), "../../../pci0000:80/0000:81:00.0/nvme/nvme3");
        assert_eq!(read(), (Some("nvme".into()), Some("0000:81:00.0".into()), Some("S1".into())));
        machine.write("/sys/devices/virtual/nvme-fabrics/ctl/nvme4/transport", "tcp\n");
        machine.link(&format!("{subsystem}/nvme4"), "../../nvme-fabrics/ctl/nvme4");
        assert_eq!(read().0, Some("nvme-tcp".into()));
    }

    #[test]
    fn a_size_that_is_no_number_is_unread_and_the_disk_listed() {
        let machine = fixture::server();
        machine.write("/sys/devices/virtual/odd/block/odd0/size", "many\n");
        machine.link("/sys/block/odd0", "../devices/virtual/odd/block/odd0");
        let mut unreads = Unreads::default();
        let disks = read(&machine.root, &mut unreads);
        assert!(disks.iter().any(|disk| disk.name == "odd0" && disk.size_bytes == 0));
        assert_eq!(unreads.into_vec().len(), 1);
    }

    #[test]
    fn no_folder_of_disks_is_unread() {
        let folder = tempfile::tempdir().unwrap();
        let mut unreads = Unreads::default();
        assert!(read(&Root::at(folder.path()), &mut unreads).is_empty());
        assert_eq!(unreads.into_vec()[0].part, "disks");
    }

    proptest! {
        #[test]
        fn no_page_makes_it_panic(page in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_unit_serial(&page);
        }

        #[test]
        fn no_attribute_makes_it_panic(name in "[a-z]{1,4}[0-9]{0,2}", text in ".{0,30}") {
            let machine = fixture::Machine::empty();
            for attribute in ["size", "device/model", "device/serial", "device/vpd_pg80", "wwid", "removable"] {
                machine.write(&format!("/sys/block/{name}/{attribute}"), &text);
            }
            let _ = read(&machine.root, &mut Unreads::default());
        }
    }
}
