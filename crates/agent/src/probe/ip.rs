//! The machine's addresses. The one for people is read from /proc/net, without a packet or a socket; whose an address is, the
//! kernel says.
//!
//! For people: of the local IPv4 addresses in /proc/net/fib_trie the one is taken that lies in a network of the interface with
//! the default route; then any but loopback; then an IPv6 address of global scope from /proc/net/if_inet6.

use std::collections::BTreeSet;
use std::ffi::CStr;
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

/// The interfaces that have an address by the kernel's word, in order of their names, each once. Routes do not tell: two
/// interfaces may lie in one network.
///
/// # Errors
/// Where the kernel does not list its addresses.
pub fn interfaces_of(address: IpAddr) -> std::io::Result<Vec<String>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the function writes a pointer to where it is told to, which is a pointer's place.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut names = BTreeSet::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: the list and all that it points to stay until they are freed below, and nobody else has them.
        let entry = unsafe { &*next };
        // SAFETY: an address of the list is as long as its family needs.
        if unsafe { ip_of(entry.ifa_addr) } == Some(address) {
            // SAFETY: the list's names end with a zero.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy();
            // A label of an address is the interface's name, a colon and more.
            names.extend(name.split(':').next().map(str::to_owned));
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list is what the first call gave, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(names.into_iter().collect())
}

/// # Safety
/// The pointer is null, or an address that is as long as its family needs.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: it is null or points to an address.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: by its family it is one of IPv4; nothing is said of how it is aligned.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            // It stands there in the order of the network.
            Some(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: by its family it is one of IPv6; nothing is said of how it is aligned.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
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
    fn the_kernel_says_whose_an_address_is() {
        // A machine without a loopback of one family has none of it.
        for address in ["127.0.0.1", "::1"] {
            let owners = interfaces_of(address.parse().unwrap()).unwrap();
            assert!(owners == ["lo"] || owners.is_empty(), "{owners:?}");
        }
        // An address for documents, and for tests of nobody's.
        assert_eq!(interfaces_of("192.0.2.17".parse().unwrap()).unwrap(), Vec::<String>::new());
        assert_eq!(interfaces_of("2001:db8::3".parse().unwrap()).unwrap(), Vec::<String>::new());
        // Every address that the kernel's own table has belongs to somebody.
        let local = local_addresses(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default());
        for address in local {
            assert!(!interfaces_of(address.into()).unwrap().is_empty(), "{address}");
        }
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        // SAFETY: an address of zeros is a valid one.
        let mut of_four: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        of_four.sin_family = libc::AF_INET as libc::sa_family_t;
        of_four.sin_addr.s_addr = u32::from_ne_bytes([192, 0, 2, 17]);
        // SAFETY: it is an address of IPv4, as its family says.
        let read = unsafe { ip_of((&raw const of_four).cast()) };
        assert_eq!(read, Some("192.0.2.17".parse().unwrap()));
        // SAFETY: a null pointer is allowed.
        assert_eq!(unsafe { ip_of(std::ptr::null()) }, None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([ -~]{0,30}\n){0,4}", inet6 in "([0-9a-f ]{0,50}\n){0,3}") {
            let _ = (local_addresses(&text), routes(&text).len(), global_inet6(&inet6));
        }
    }
}
