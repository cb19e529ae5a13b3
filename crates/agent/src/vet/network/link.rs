//! The link that a flow went over, and the speed that one flow may be held against.
//!
//! A bond says the sum of its members, of which one flow fills one; what lies on a bond says the same. A bridge says the speed
//! of a port that may be no card. So the fastest card beneath an interface counts, where that is less than what it says itself.

use std::net::IpAddr;

use groundcrew_protocol::inventory::Nic;

use super::iperf3::Flow;
use crate::probe::Root;

/// Interfaces that lie on each other: a VLAN on a bridge on a VLAN on a bond is the most that anybody builds.
const LAYERS_MAX: usize = 8;
const FOLDER: &str = "/sys/class/net";

/// The link that a flow went over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Link {
    /// None: the peer is this machine.
    Loopback,
    /// Nobody knows which.
    Unknown(String),
    /// This interface.
    Of {
        name: String,
        is_virtual: bool,
        /// Mb/s.
        speed: Option<u32>,
    },
}

/// The link of a flow, by whose its addresses are: `owners` gives the interfaces of one by the kernel's word. What is spoken to an
/// address of this machine's own goes over none, whichever interface has it.
pub(super) fn link(
    root: &Root,
    interfaces: &[Nic],
    flow: &Flow,
    owners: impl Fn(IpAddr) -> std::io::Result<Vec<String>>,
) -> Link {
    let (local, remote) = (flow.local.to_canonical(), flow.remote.to_canonical());
    if local.is_loopback() || remote.is_loopback() || local == remote {
        return Link::Loopback;
    }
    let owners = owners(remote).and_then(|of_remote| Ok((of_remote.is_empty(), owners(local)?)));
    let owners = match owners {
        Ok((true, owners)) => owners,
        Ok((false, _)) => return Link::Loopback,
        Err(error) => return Link::Unknown(format!("ask the kernel for its addresses: {error}")),
    };
    let name = match owners.as_slice() {
        [name] => name,
        [] => return Link::Unknown(format!("the kernel knows no interface that has the address {local}")),
        several => {
            return Link::Unknown(format!(
                "several interfaces have the address {local}: {}",
                several.join(", ")
            ));
        }
    };
    match interfaces.iter().find(|nic| nic.name == *name) {
        None => Link::Unknown(format!(
            "it went from {local} of {name}, which is no card and no bond, bridge or VLAN"
        )),
        Some(nic) => Link::Of {
            name: name.clone(),
            is_virtual: nic.is_virtual,
            speed: speed(root, interfaces, nic, LAYERS_MAX),
        },
    }
}

/// The interfaces that carry what goes over this one: itself, and whatever lies beneath it.
pub(super) fn carriers(root: &Root, interfaces: &[Nic], name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    let mut at = 0;
    while let Some(name) = all.get(at).cloned() {
        if let Some(nic) = interfaces.iter().find(|nic| nic.name == name) {
            let lower: Vec<String> = beneath(root, interfaces, nic).map(|nic| nic.name.clone()).collect();
            all.extend(lower.into_iter().filter(|lower| !all.contains(lower)).collect::<Vec<_>>());
        }
        at += 1;
    }
    all
}

/// What one flow over an interface may reach.
fn speed(root: &Root, interfaces: &[Nic], nic: &Nic, layers: usize) -> Option<u32> {
    let beneath = match layers {
        0 => None,
        _ => beneath(root, interfaces, nic)
            .filter_map(|lower| speed(root, interfaces, lower, layers - 1))
            .max(),
    };
    match (nic.speed_mbps, beneath) {
        (Some(own), Some(beneath)) => Some(own.min(beneath)),
        (own, beneath) => own.or(beneath),
    }
}

/// The interfaces that an interface lies on. The ends of containers' cables are not among them.
fn beneath<'a>(root: &Root, interfaces: &'a [Nic], nic: &Nic) -> impl Iterator<Item = &'a Nic> {
    let entries = root.list(&format!("{FOLDER}/{}", nic.name)).ok().flatten().unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| entry.strip_prefix("lower_").map(str::to_owned))
        .filter_map(|lower| interfaces.iter().find(|nic| nic.name == lower))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture::Machine;

    const LOCAL: &str = "192.0.2.1";
    const REMOTE: &str = "192.0.2.9";

    fn flow(local: &str, remote: &str) -> Flow {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        Flow { mbps: 1.0, seconds: 1.0, retransmits_percent: Ok(0.0), local, remote, busy: None }
    }

    fn nic(name: &str, speed_mbps: Option<u32>, is_virtual: bool) -> Nic {
        Nic { name: name.into(), speed_mbps, is_virtual, ..Nic::default() }
    }

    /// A VLAN on a bond of two cards, and a bridge over a card and a container's cable, which says more than the card.
    fn machine() -> (Machine, Vec<Nic>) {
        let machine = Machine::empty();
        for (upper, lower) in
            [("bond0", "eno1"), ("bond0", "eno2"), ("bond0.7", "bond0"), ("br0", "eno3"), ("br0", "veth1")]
        {
            machine.write(&format!("{FOLDER}/{upper}/lower_{lower}/mtu"), "1500");
        }
        let interfaces = vec![
            nic("eno1", Some(25_000), false),
            nic("eno2", Some(10_000), false),
            nic("eno3", Some(1_000), false),
            nic("bond0", Some(35_000), true),
            nic("bond0.7", Some(35_000), true),
            nic("br0", Some(10_000), true),
            nic("tun0", None, true),
        ];
        (machine, interfaces)
    }

    #[test]
    fn what_goes_over_a_bond_is_carried_by_its_members() {
        let machine = Machine::empty();
        for link in ["vlan5/lower_bond0", "bond0/lower_eno1", "bond0/lower_eno2"] {
            machine.write(&format!("{FOLDER}/{link}"), "");
        }
        let all = [nic("vlan5", None, true), nic("bond0", None, true), nic("eno1", None, false)];
        assert_eq!(carriers(&machine.root, &all, "vlan5"), ["vlan5", "bond0", "eno1"]);
        assert_eq!(carriers(&machine.root, &all, "eno1"), ["eno1"]);
    }

    #[test]
    fn one_flow_is_held_against_the_fastest_card_beneath() {
        let (machine, mut interfaces) = machine();
        let speed = |interfaces: &[Nic], name: &str| {
            let owners = |address: IpAddr| {
                let has_it = address.to_string() == LOCAL;
                Ok(has_it.then(|| name.to_owned()).into_iter().collect())
            };
            match link(&machine.root, interfaces, &flow(LOCAL, REMOTE), owners) {
                Link::Of { speed, .. } => speed,
                other => panic!("{name}: {other:?}"),
            }
        };
        for (name, expected) in [
            ("eno1", Some(25_000)),
            ("bond0", Some(25_000)),
            ("bond0.7", Some(25_000)),
            ("br0", Some(1_000)),
            ("tun0", None),
        ] {
            assert_eq!(speed(&interfaces, name), expected, "{name}");
        }
        // Of a bond with one member at work, it is that one's.
        interfaces[3].speed_mbps = Some(10_000);
        assert_eq!(speed(&interfaces, "bond0"), Some(10_000));
    }

    #[test]
    fn what_a_machine_says_to_itself_goes_over_no_link() {
        let (machine, interfaces) = machine();
        // Both cards have an address of their own.
        let owners = |address: IpAddr| {
            let name = match address.to_string().as_str() {
                "192.0.2.1" => "eno1",
                "192.0.2.2" => "eno2",
                _ => return Ok(Vec::new()),
            };
            Ok(vec![name.to_owned()])
        };
        for (local, remote, is_loopback) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.9.9.9", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.2", true),
            ("192.0.2.1", REMOTE, false),
        ] {
            let link = link(&machine.root, &interfaces, &flow(local, remote), owners);
            assert_eq!(link == Link::Loopback, is_loopback, "{local} {remote}: {link:?}");
        }
    }

    #[test]
    fn an_interface_that_nobody_knows_is_no_loopback() {
        let (machine, interfaces) = machine();
        let denied = || Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        let of = |of_local: Result<&[&str], ()>| {
            let owners = |address: IpAddr| match (address.to_string() == LOCAL, of_local) {
                (_, Err(())) => denied(),
                (true, Ok(names)) => Ok(names.iter().map(|name| (*name).to_owned()).collect()),
                (false, Ok(_)) => Ok(Vec::new()),
            };
            link(&machine.root, &interfaces, &flow(LOCAL, REMOTE), owners)
        };
        for (owners, expected) in [
            (Ok(&[][..]), "no interface that has the address 192.0.2.1"),
            // A router's own address, which the cards beneath have none of.
            (Ok(&["lo"][..]), "192.0.2.1 of lo"),
            (Ok(&["eno1", "eno2"][..]), "several interfaces have the address 192.0.2.1: eno1, eno2"),
            (Err(()), "ask the kernel for its addresses"),
        ] {
            match of(owners) {
                Link::Unknown(why) => assert!(why.contains(expected), "{why}"),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
