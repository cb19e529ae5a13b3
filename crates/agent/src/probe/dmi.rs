//! What the firmware says of the machine, from SMBIOS, and where there are no tables from /sys/class/dmi/id.

use groundcrew_protocol::inventory::{Dimm, Dmi, Firmware, Psu};

use super::{Root, Unreads, smbios};

const IDS: &str = "/sys/class/dmi/id";
const TABLES: &str = "SMBIOS tables in /sys/firmware/dmi/tables";

/// All that the firmware says.
#[derive(Debug, Default)]
pub struct Said {
    /// Of the system and its board.
    pub dmi: Dmi,
    /// Of itself.
    pub firmware: Firmware,
    /// Of memory modules; `None` where it has no tables, or they cannot be read.
    pub dimms: Option<Vec<Dimm>>,
    /// Of power supplies.
    pub psus: Vec<Psu>,
}

/// Reads what the firmware says.
pub fn read(root: &Root, unreads: &mut Unreads) -> Said {
    let mut said = match smbios::read(root) {
        Ok(Some(tables)) => from_tables(tables.said(), unreads),
        Ok(None) => from_ids(root, unreads, true),
        Err(error) => {
            for part in ["dimms", "psus"] {
                unreads.note(part, TABLES, &error);
            }
            // The kernel has read the tables itself: what it kept of them is as good, where it can be read.
            let said = from_ids(root, unreads, true);
            if said.dmi == Dmi::default() {
                unreads.note("dmi", TABLES, &error);
            }
            if said.firmware == Firmware::default() {
                unreads.note("firmware", TABLES, &error);
            }
            said
        }
    };
    said.firmware.efi = root.exists("/sys/firmware/efi");
    said
}

/// Serial of the machine, where it says one.
pub fn serial(root: &Root) -> Option<String> {
    let from_tables = || smbios::read(root).ok().flatten()?.said().dmi.serial;
    from_tables().or_else(|| from_ids(root, &mut Unreads::default(), false).dmi.serial)
}

fn from_tables(said: smbios::Said, unreads: &mut Unreads) -> Said {
    if let Some(broken) = &said.broken {
        // What stands before the break may be all there is, or not: nobody knows.
        let unknown = [
            ("dimms", true),
            ("psus", true),
            ("dmi", said.dmi == Dmi::default()),
            ("firmware", said.firmware == Firmware::default()),
        ];
        for (part, _) in unknown.into_iter().filter(|(_, unknown)| *unknown) {
            unreads.note(part, TABLES, broken);
        }
    }
    for locator in &said.sizes_unknown {
        unreads.note("dimms", locator, "the firmware does not know the size of this module");
    }
    Said { dmi: said.dmi, firmware: said.firmware, dimms: Some(said.dimms), psus: said.psus }
}

/// What the kernel keeps of the tables. Serials and UUID are readable for root alone.
fn from_ids(root: &Root, unreads: &mut Unreads, note: bool) -> Said {
    let mut read = |part: &str, name: &str| {
        let path = format!("{IDS}/{name}");
        let text = if note { unreads.attribute(root, part, &path) } else { root.detail(&path) };
        text.and_then(|text| smbios::said(&text))
    };
    let board: Vec<String> =
        [read("dmi", "board_vendor"), read("dmi", "board_name")].into_iter().flatten().collect();
    let dmi = Dmi {
        vendor: read("dmi", "sys_vendor"),
        product: read("dmi", "product_name"),
        serial: read("dmi", "product_serial"),
        uuid: read("dmi", "product_uuid"),
        board: Some(board.join(" ")).filter(|board| !board.is_empty()),
        board_serial: read("dmi", "board_serial"),
    };
    let firmware = Firmware {
        vendor: read("firmware", "bios_vendor"),
        version: read("firmware", "bios_version"),
        date: read("firmware", "bios_date"),
        efi: false,
    };
    Said { dmi, firmware, dimms: None, psus: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture;

    #[test]
    fn without_tables_the_kernels_copy_serves() {
        let machine = fixture::server();
        std::fs::remove_dir_all(machine.root.path("/sys/firmware/dmi")).unwrap();
        machine.write("/sys/class/dmi/id/sys_vendor", "Acme\n");
        machine.write("/sys/class/dmi/id/product_serial", "SN-7\n");
        machine.write("/sys/class/dmi/id/board_serial", "To Be Filled By O.E.M.\n");
        machine.write("/sys/class/dmi/id/bios_version", "2.1\n");
        let mut unreads = Unreads::default();
        let said = read(&machine.root, &mut unreads);
        assert_eq!(said.dmi.vendor.as_deref(), Some("Acme"));
        assert_eq!(said.dmi.board_serial, None);
        assert_eq!(said.firmware.version.as_deref(), Some("2.1"));
        assert_eq!(said.dimms, None);
        assert_eq!(serial(&machine.root).as_deref(), Some("SN-7"));
        assert!(unreads.into_vec().is_empty());
    }

    #[test]
    fn tables_that_are_there_and_mangled_are_unread() {
        let machine = fixture::server();
        machine.write("/sys/firmware/dmi/tables/smbios_entry_point", "nonsense");
        let mut unreads = Unreads::default();
        let said = read(&machine.root, &mut unreads);
        assert_eq!(said.dimms, None);
        let parts: Vec<String> = unreads.into_vec().into_iter().map(|unread| unread.part).collect();
        assert_eq!(parts, ["dimms", "psus", "dmi", "firmware"]);
    }

    #[test]
    fn a_table_that_breaks_off_leaves_its_modules_unread() {
        let machine = fixture::server();
        let path = machine.root.path("/sys/firmware/dmi/tables/DMI");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
        let mut unreads = Unreads::default();
        let said = read(&machine.root, &mut unreads);
        assert_eq!(said.dmi.serial.as_deref(), Some("SN-0001"));
        let parts: Vec<String> = unreads.into_vec().into_iter().map(|unread| unread.part).collect();
        assert_eq!(parts, ["dimms", "psus"]);
    }
}
