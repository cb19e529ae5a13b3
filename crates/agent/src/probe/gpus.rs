//! GPUs, from the PCI bus: whatever is of class 03, display controllers, and what AMD makes of class 12, processing
//! accelerators (the MI300 says that it is one); driver or none.

use groundcrew_protocol::inventory::Gpu;

use super::{Root, Unreads};

const PART: &str = "gpus";
/// Where the kernel lists the PCI bus.
pub const FOLDER: &str = "/sys/bus/pci/devices";

/// Reads the GPUs. A machine without a PCI bus has none.
pub fn read(root: &Root, unreads: &mut Unreads) -> Vec<Gpu> {
    let Some(addresses) = unreads.list(root, PART, FOLDER) else { return Vec::new() };
    addresses.into_iter().filter_map(|pci| gpu(root, unreads, pci)).collect()
}

fn gpu(root: &Root, unreads: &mut Unreads, pci: String) -> Option<Gpu> {
    const DISPLAY: &str = "03";
    const ACCELERATOR: &str = "12";
    const AMD: &str = "1002";
    let folder = format!("{FOLDER}/{pci}");
    let class = hexadecimal(&unreads.attribute(root, PART, &format!("{folder}/class"))?);
    if !class.starts_with(DISPLAY) && !class.starts_with(ACCELERATOR) {
        return None;
    }
    let mut id = |name: &str| {
        let text = unreads.attribute(root, PART, &format!("{folder}/{name}"));
        text.map(|text| hexadecimal(&text)).unwrap_or_default()
    };
    let (vendor, device) = (id("vendor"), id("device"));
    if class.starts_with(ACCELERATOR) && vendor != AMD {
        return None;
    }
    let driver = root.link_name(&format!("{folder}/driver"));
    Some(Gpu { pci, vendor, device, class, driver })
}

fn hexadecimal(text: &str) -> String {
    text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture;

    #[test]
    fn display_controllers_are_found_with_or_without_a_driver() {
        let machine = fixture::server();
        machine.take_driver("0000:17:00.0");
        machine.pci("0000:27:00.0", "0x120000", "0x1002", "0x74a1");
        machine.pci("0000:37:00.0", "0x120000", "0x8086", "0x1020");
        let mut unreads = Unreads::default();
        let gpus = read(&machine.root, &mut unreads);
        let gpu = |pci: &str, vendor: &str, device: &str, class: &str, driver: Option<&str>| Gpu {
            pci: pci.into(),
            vendor: vendor.into(),
            device: device.into(),
            class: class.into(),
            driver: driver.map(str::to_owned),
        };
        let expected = [
            gpu("0000:03:00.0", "1a03", "2000", "030000", Some("ast")),
            gpu("0000:17:00.0", "10de", "2335", "030200", None),
            gpu("0000:27:00.0", "1002", "74a1", "120000", None),
        ];
        assert_eq!(gpus, expected);
        assert!(unreads.into_vec().is_empty());
    }

    #[test]
    fn no_bus_is_no_gpu_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut unreads = Unreads::default();
        assert!(read(&Root::at(folder.path()), &mut unreads).is_empty());
        assert!(unreads.into_vec().is_empty());
    }
}
