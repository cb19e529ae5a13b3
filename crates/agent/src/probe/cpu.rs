//! Processors, from /proc/cpuinfo and /sys/devices/system/cpu.

use std::collections::BTreeSet;

use groundcrew_protocol::inventory::Cpu;

use super::{Root, Unreads};

const PART: &str = "cpu";
/// A block of /proc/cpuinfo has some 1.5 KiB; this is enough for eight thousand CPUs.
const CPUINFO_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The kernel knows no more CPUs than this in one machine (NR_CPUS).
const CPUS_MAX: u32 = 8192;

/// Reads the processors.
pub fn read(root: &Root, unreads: &mut Unreads) -> Cpu {
    let info = match root.text("/proc/cpuinfo", CPUINFO_BYTES_MAX) {
        Ok(text) => parse_cpuinfo(&text),
        Err(error) => {
            unreads.note(PART, "/proc/cpuinfo", error);
            CpuInfo::default()
        }
    };
    let online = online(root);
    let logical = if online.is_empty() { info.processors } else { u32::try_from(online.len()).ok() };
    let (sockets, cores) = topology(root, &online);
    if logical.is_none() {
        unreads.note(PART, "/proc/cpuinfo", "it names no processor");
    }
    Cpu {
        model: info.model,
        sockets: sockets.or(info.sockets),
        cores: cores.or(info.cores),
        logical,
        microcode: info.microcode,
    }
}

/// Numbers of the CPUs that are online; empty where the kernel does not say.
pub fn online(root: &Root) -> Vec<u32> {
    root.detail("/sys/devices/system/cpu/online").map(|text| parse_list(&text)).unwrap_or_default()
}

/// Parses a list of CPUs as the kernel writes it: `0-3,8`.
fn parse_list(text: &str) -> Vec<u32> {
    let mut cpus = BTreeSet::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) else {
            continue;
        };
        cpus.extend(first..=last.min(CPUS_MAX - 1));
    }
    cpus.into_iter().collect()
}

/// Sockets and cores of the CPUs that are online, by their topology.
fn topology(root: &Root, online: &[u32]) -> (Option<u32>, Option<u32>) {
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    for cpu in online {
        let at = |name: &str| root.detail(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}"));
        // Some ARM machines say -1: they do not know.
        sockets.extend(at("physical_package_id").and_then(|id| id.parse::<u32>().ok()));
        // The CPUs that share a core name it, whatever numbers its cores have.
        cores.extend(at("core_cpus_list").or_else(|| at("thread_siblings_list")));
    }
    let count = |count: usize| u32::try_from(count).ok().filter(|count| *count > 0);
    (count(sockets.len()), count(cores.len()))
}

#[derive(Debug, Default, PartialEq)]
struct CpuInfo {
    model: Option<String>,
    microcode: Option<String>,
    processors: Option<u32>,
    sockets: Option<u32>,
    cores: Option<u32>,
}

fn parse_cpuinfo(text: &str) -> CpuInfo {
    let mut info = CpuInfo::default();
    let mut processors = 0;
    let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
    let mut socket = "";
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.trim() {
            "processor" => processors += 1,
            "model name" if info.model.is_none() => info.model = Some(value.to_owned()),
            "microcode" if info.microcode.is_none() => info.microcode = Some(value.to_owned()),
            "physical id" => {
                socket = value;
                sockets.insert(value);
            }
            "core id" => {
                cores.insert((socket, value));
            }
            _ => {}
        }
    }
    let count = |count: usize| u32::try_from(count).ok().filter(|count| *count > 0);
    info.processors = count(processors);
    info.sockets = count(sockets.len());
    info.cores = count(cores.len());
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture;
    use proptest::prelude::*;

    #[test]
    fn two_sockets_with_threads_are_counted() {
        let machine = fixture::server();
        let mut unreads = Unreads::default();
        let cpu = read(&machine.root, &mut unreads);
        let expected = Cpu {
            model: Some("Intel(R) Xeon(R) Gold 6430".into()),
            sockets: Some(2),
            cores: Some(4),
            logical: Some(8),
            microcode: Some("0x2b000590".into()),
        };
        assert_eq!(cpu, expected);
        assert!(unreads.into_vec().is_empty());
    }

    #[test]
    fn cpuinfo_alone_is_enough() {
        let machine = fixture::server();
        std::fs::remove_dir_all(machine.root.path("/sys/devices/system/cpu")).unwrap();
        let cpu = read(&machine.root, &mut Unreads::default());
        assert_eq!((cpu.sockets, cpu.cores, cpu.logical), (Some(2), Some(4), Some(8)));
    }

    #[test]
    fn no_cpuinfo_is_unread() {
        let folder = tempfile::tempdir().unwrap();
        let mut unreads = Unreads::default();
        read(&Root::at(folder.path()), &mut unreads);
        assert!(unreads.into_vec().iter().all(|unread| unread.part == "cpu" && !unread.why.is_empty()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_grow(text in ".{0,200}", list in "[0-9,-]{0,40}") {
            let _ = parse_cpuinfo(&text);
            prop_assert!(parse_list(&list).len() <= CPUS_MAX as usize);
        }
    }
}
