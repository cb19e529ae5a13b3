//! Network interfaces, from /sys/class/net.

use groundcrew_protocol::ids::MacAddress;
use groundcrew_protocol::inventory::Nic;

use super::root::pci_address;
use super::{Root, Unreads};

const PART: &str = "nics";
const FOLDER: &str = "/sys/class/net";

/// Reads the interfaces that have a device behind them, and virtual ones whose kind the kernel names (bridge, bond,
/// vlan). The ends of containers' cables are neither; a busy node has thousands.
pub fn read(root: &Root, unreads: &mut Unreads) -> Vec<Nic> {
    let Some(names) = unreads.list(root, PART, FOLDER) else {
        unreads.note(PART, FOLDER, "there is no such folder");
        return Vec::new();
    };
    names.iter().filter(|name| *name != "lo").filter_map(|name| nic(root, name)).collect()
}

/// Addresses of the interfaces with a device behind them, in order of their names, each once.
pub fn macs(root: &Root) -> Vec<MacAddress> {
    let mut macs: Vec<MacAddress> = Vec::new();
    for name in root.list(FOLDER).ok().flatten().unwrap_or_default() {
        if !root.exists(&format!("{FOLDER}/{name}/device")) {
            continue;
        }
        if let Some(mac) = mac(root, &name).and_then(|mac| mac.parse().ok())
            && !macs.contains(&mac)
        {
            macs.push(mac);
        }
    }
    macs
}

fn nic(root: &Root, name: &str) -> Option<Nic> {
    let folder = format!("{FOLDER}/{name}");
    // An entry that is no folder is a switch of a module, as bonding_masters.
    if !root.path(&folder).is_dir() {
        return None;
    }
    let has_device = root.exists(&format!("{folder}/device"));
    let kind = root.detail(&format!("{folder}/uevent")).and_then(|text| device_type(&text));
    if !has_device && kind.is_none() {
        return None;
    }
    let number = |attribute: &str| root.detail(&format!("{folder}/{attribute}"))?.parse::<i64>().ok();
    let driver = root.link_name(&format!("{folder}/device/driver")).or(kind);
    let subsystem = root.link_name(&format!("{folder}/device/subsystem"));
    let is_paravirtual = matches!(subsystem.as_deref(), Some("virtio" | "xen" | "vmbus" | "netdevsim"));
    Some(Nic {
        name: name.to_owned(),
        driver,
        mac: mac(root, name),
        // -1 and 2^32-1 both mean: not known.
        speed_mbps: number("speed")
            .and_then(|speed| u32::try_from(speed).ok())
            .filter(|speed| !matches!(*speed, 0 | u32::MAX)),
        mtu: number("mtu").and_then(|mtu| u32::try_from(mtu).ok()),
        state: root.detail(&format!("{folder}/operstate")),
        pci: pci_address(&root.resolved(&format!("{folder}/device"))),
        is_virtual: !has_device || is_paravirtual,
    })
}

/// The permanent address, which sysfs shows of an interface in a bond; else the current one.
fn mac(root: &Root, name: &str) -> Option<String> {
    let permanent = root.detail(&format!("{FOLDER}/{name}/bonding_slave/perm_hwaddr"));
    let mac = permanent.or_else(|| root.detail(&format!("{FOLDER}/{name}/address")))?.to_ascii_lowercase();
    // All zeros: the interface has none.
    mac.chars().any(|c| !matches!(c, '0' | ':')).then_some(mac)
}

fn device_type(uevent: &str) -> Option<String> {
    uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).map(|kind| kind.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture;
    use proptest::prelude::*;

    #[test]
    fn cards_and_named_virtual_interfaces_are_read() {
        let machine = fixture::server();
        let mut unreads = Unreads::default();
        let nics = read(&machine.root, &mut unreads);
        let names: Vec<&str> = nics.iter().map(|nic| nic.name.as_str()).collect();
        assert_eq!(names, ["bond0", "eno1", "eno2", "eth9"]);
        let card = Nic {
            name: "eno1".into(),
            driver: Some("mlx5_core".into()),
            mac: Some("b8:ce:f6:00:00:01".into()),
            speed_mbps: Some(100_000),
            mtu: Some(9000),
            state: Some("up".into()),
            pci: Some("0000:4b:00.0".into()),
            is_virtual: false,
        };
        assert_eq!(nics[1], card);
        assert_eq!((nics[0].is_virtual, nics[0].driver.as_deref()), (true, Some("bond")));
        // A link that is down has no speed, and a member of a bond keeps its own address.
        assert_eq!((nics[2].speed_mbps, nics[2].mac.as_deref()), (None, Some("b8:ce:f6:00:00:02")));
        assert_eq!((nics[3].is_virtual, nics[3].driver.as_deref()), (true, Some("virtio_net")));
        assert!(unreads.into_vec().is_empty());
        let macs: Vec<String> = macs(&machine.root).iter().map(ToString::to_string).collect();
        assert_eq!(macs, ["b8:ce:f6:00:00:01", "b8:ce:f6:00:00:02", "52:54:00:00:00:09"]);
    }

    proptest! {
        #[test]
        fn no_attribute_makes_it_panic(text in ".{0,30}") {
            let machine = fixture::Machine::empty();
            for attribute in ["speed", "mtu", "address", "operstate", "uevent", "device/x"] {
                machine.write(&format!("/sys/class/net/eth0/{attribute}"), &text);
            }
            prop_assert_eq!(read(&machine.root, &mut Unreads::default()).len(), 1);
            let _ = macs(&machine.root);
        }
    }
}
