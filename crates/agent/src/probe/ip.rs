//! The machine's address, for people: read from /proc/net, without a packet or a socket.
//!
//! Of the local IPv4 addresses in /proc/net/fib_trie the one is taken that lies in a network of the interface with
//! the default route; then any but loopback; then an IPv6 address of global scope from /proc/net/if_inet6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Root;

/// Routing tables of large nodes have some megabytes.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The machine's address; `None` where it has none but loopback.
pub fn address(root: &Root) -> Option<IpAddr> {
    let read = |name: &str| root.text(&format!("/proc/net/{name}"), TABLE_BYTES_MAX).unwrap_or_default();
    let local = local_addresses(&read("fib_trie"));
    let table = read("route");
    let routes = routes(&table);
    let default = routes.iter().find(|route| route.destination == 0 && route.mask == 0);
    let on_default = |address: &&Ipv4Addr| {
        routes.iter().any(|route| {
            default.is_some_and(|default| default.interface == route.interface)
                && route.mask != 0
                && address.to_bits() & route.mask == route.destination
        })
    };
    let chosen = local.iter().find(on_default).or(local.first()).copied().map(IpAddr::V4);
    chosen.or_else(|| global_inet6(&read("if_inet6")).map(IpAddr::V6))
}

/// The interface that an address of this machine belongs to; `None` for loopback and what the kernel does not say.
pub fn interface_of(root: &Root, address: IpAddr) -> Option<String> {
    let read = |name: &str| root.text(&format!("/proc/net/{name}"), TABLE_BYTES_MAX).unwrap_or_default();
    match address {
        IpAddr::V4(address) => {
            let table = read("route");
            let routes = routes(&table);
            let fits =
                |route: &&Route<'_>| route.mask != 0 && address.to_bits() & route.mask == route.destination;
            // The narrowest network that the address lies in.
            let narrowest = routes.iter().filter(fits).max_by_key(|route| route.mask);
            narrowest.map(|route| route.interface.to_owned())
        }
        IpAddr::V6(address) => read("if_inet6").lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let bits = u128::from_str_radix(fields.first()?, 16).ok()?;
            let interface = *fields.get(5)?;
            (bits == address.to_bits() && interface != "lo").then(|| interface.to_owned())
        }),
    }
}

/// Local addresses in the kernel's routing trie, loopback left out.
fn local_addresses(trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.trim().parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = leaf
            && !address.is_loopback()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

#[derive(Debug, PartialEq)]
struct Route<'a> {
    interface: &'a str,
    destination: u32,
    mask: u32,
}

/// Routes of IPv4. The kernel writes addresses as they stand in its memory, in the order of the network.
fn routes(table: &str) -> Vec<Route<'_>> {
    let address = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let route = |line| {
        let fields: Vec<&str> = str::split_whitespace(line).collect();
        let (destination, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
        Some(Route { interface: fields[0], destination, mask })
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// The first IPv6 address of global scope that is neither tentative nor deprecated.
fn global_inet6(table: &str) -> Option<Ipv6Addr> {
    const GLOBAL: &str = "00";
    const UNUSABLE: u32 = 0x20 | 0x40 | 0x08;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(4)?, 16).ok()?;
        let bits = u128::from_str_radix(fields.first()?, 16).ok()?;
        (fields.get(3) == Some(&GLOBAL) && flags & UNUSABLE == 0).then_some(Ipv6Addr::from_bits(bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture;
    use proptest::prelude::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
        +-- 127.0.0.0/8 2 0 2\n           |-- 127.0.0.1\n              /32 host LOCAL\n     \
        |-- 172.17.0.1\n              /32 host LOCAL\n     |-- 192.0.2.0\n              /24 link UNICAST\n     \
        |-- 192.0.2.17\n              /32 host LOCAL\nLocal:\n     |-- 192.0.2.17\n              /32 host LOCAL\n";
    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eno1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eno1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    const INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
        fe8000000000000000fc00fffe000001 04 40 20 80     eno1\n\
        20010db8000000000000000000000002 04 40 00 40     eno1\n\
        20010db8000000000000000000000003 04 40 00 80     eno1\n";

    #[test]
    fn the_address_of_the_default_route_comes_first() {
        let machine = fixture::Machine::empty();
        assert_eq!(address(&machine.root), None);
        machine.write("/proc/net/if_inet6", INET6);
        assert_eq!(address(&machine.root), Some("2001:db8::3".parse().unwrap()));
        machine.write("/proc/net/fib_trie", TRIE);
        assert_eq!(address(&machine.root), Some("172.17.0.1".parse().unwrap()));
        machine.write("/proc/net/route", ROUTES);
        assert_eq!(address(&machine.root), Some("192.0.2.17".parse().unwrap()));
    }

    #[test]
    fn an_address_belongs_to_an_interface() {
        let machine = fixture::Machine::empty();
        let of = |text: &str| interface_of(&machine.root, text.parse().unwrap());
        assert_eq!(of("192.0.2.17"), None);
        machine.write("/proc/net/if_inet6", INET6);
        machine.write("/proc/net/route", ROUTES);
        assert_eq!(of("192.0.2.17").as_deref(), Some("eno1"));
        assert_eq!(of("172.17.0.1").as_deref(), Some("docker0"));
        assert_eq!(of("127.0.0.1"), None);
        assert_eq!(of("2001:db8::3").as_deref(), Some("eno1"));
        assert_eq!(of("::1"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([ -~]{0,30}\n){0,4}", inet6 in "([0-9a-f ]{0,50}\n){0,3}") {
            let _ = (local_addresses(&text), routes(&text).len(), global_inet6(&inet6));
        }
    }
}
