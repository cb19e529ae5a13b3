//! The machine's disks, for the stages that go through them: which are its own, where their nodes are, and doing something to
//! each of them.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use groundcrew_protocol::inventory::Disk;
use groundcrew_protocol::order;

use super::StageContext;
use crate::probe::{Unreads, disks};

/// Block devices of the kernel's whose data is on another machine, by their name before the number.
const REMOTE_DRIVERS: [&str; 3] = ["rbd", "nbd", "rnbd"];
/// The same of those that keep nothing of their own health, and what they are.
const WITHOUT_SMART: [(&str, &str); 4] = [
    ("vd", "a virtual disk"),
    ("xvd", "a virtual disk"),
    ("mmcblk", "an eMMC or SD card"),
    ("pmem", "persistent memory"),
];

/// The machine's disks.
///
/// # Errors
/// Why they are not known.
pub(super) fn found(context: &StageContext) -> Result<Vec<Disk>, String> {
    let mut unreads = Unreads::default();
    let disks = disks::read(&context.root, &mut unreads);
    match unreads.into_vec().first() {
        Some(unread) => Err(format!("the list of disks could not be read: {}", unread.why)),
        None => Ok(disks),
    }
}

/// The node of a disk. The kernel writes a slash in a device's name as '!'.
pub(super) fn device(context: &StageContext, disk: &Disk) -> PathBuf {
    context.root.path(&format!("/dev/{}", disk.name.replace('!', "/")))
}

/// True for a disk on another machine that the profile does not expect by its serial: it is everybody's.
pub(super) fn is_anothers(context: &StageContext, disk: &Disk) -> bool {
    is_remote(disk) && !is_expected(context, disk)
}

/// Whether the profile lists it.
pub(super) fn is_expected(context: &StageContext, disk: &Disk) -> bool {
    let serials = context.expected_disks.iter().filter_map(|expected| expected.serial.as_deref());
    disk.serial
        .as_deref()
        .is_some_and(|serial| serials.into_iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(serial)))
}

fn is_remote(disk: &Disk) -> bool {
    let is_transport =
        |transport: &str| matches!(transport, "iscsi" | "fc") || transport.starts_with("nvme-");
    REMOTE_DRIVERS.iter().any(|driver| is_named(disk, driver))
        || disk.transport.as_deref().is_some_and(is_transport)
}

/// What a disk is that has no SMART, which no tool then can ask it for.
pub(super) fn without_smart(disk: &Disk) -> Option<&'static str> {
    let of_driver = WITHOUT_SMART.iter().find(|(driver, _)| is_named(disk, driver));
    let network =
        || REMOTE_DRIVERS.iter().any(|driver| is_named(disk, driver)).then_some("a disk over the network");
    of_driver.map(|(_, what)| *what).or_else(network)
}

/// By what the kernel calls disks of a driver: letters, then a number or the letters of the disk.
fn is_named(disk: &Disk, driver: &str) -> bool {
    let rest = disk.name.strip_prefix(driver);
    rest.is_some_and(|rest| match rest.bytes().next() {
        Some(first) => first.is_ascii_digit() || (driver.ends_with('d') && first.is_ascii_lowercase()),
        None => false,
    })
}

/// Does it to each disk, to so many at a time, and says how many are through. What came of them is in the order of the disks.
pub(super) fn each<D: Sync, R: Send>(
    context: &StageContext,
    disks: &[D],
    at_a_time: usize,
    done: &str,
    work: impl Fn(&D) -> R + Sync,
) -> Vec<R> {
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _worker in 0..disks.len().min(at_a_time) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(disk) = disks.get(index) else { return };
                    let came = work(disk);
                    all.lock().expect("nobody panics with the lock").push((index, came));
                    let count = ended.fetch_add(1, Ordering::Relaxed) + 1;
                    let part = count as f64 / disks.len() as f64;
                    context.show(part, format!("{count} of {} disks {done}", disks.len()));
                }
            });
        }
    });
    let mut all = all.into_inner().expect("nobody panics with the lock");
    order::sort_by_key(&mut all, |(index, _)| *index);
    all.into_iter().map(|(_, came)| came).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, transport: Option<&str>) -> Disk {
        Disk { name: name.into(), transport: transport.map(str::to_owned), ..Disk::default() }
    }

    #[test]
    fn disks_of_other_machines_are_told_by_their_driver_or_their_way() {
        for (name, transport) in [
            ("rbd0", None),
            ("nbd12", None),
            ("rnbd1", None),
            ("sdb", Some("iscsi")),
            ("nvme1n1", Some("nvme-tcp")),
        ] {
            assert!(is_remote(&of(name, transport)), "{name}");
        }
        for (name, transport) in [("sdb", Some("sata")), ("nvme0n1", Some("nvme")), ("vda", None)] {
            assert!(!is_remote(&of(name, transport)), "{name}");
        }
    }

    #[test]
    fn what_has_no_smart_is_told_by_its_driver() {
        for (name, has) in [
            ("vda", false),
            ("xvdb", false),
            ("mmcblk0", false),
            ("pmem1", false),
            ("rbd3", false),
            ("sda", true),
            ("nvme0n1", true),
            ("cciss!c0d0", true),
        ] {
            assert_eq!(without_smart(&of(name, Some("sata"))).is_none(), has, "{name}");
        }
    }
}
