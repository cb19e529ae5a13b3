//! Which of the machine's disks is the one that may be written over (rule 9 of the design). Pure: nothing is opened here.
//!
//! A profile names it by serial, size and WWN (or EUI64 or NGUID, of which each namespace of an NVMe disk has its own), and all
//! three must fit one disk and no other. Names and places of disks say nothing.

use groundcrew_protocol::inventory::Disk;
use groundcrew_protocol::profile::{ExpectedDisk, WriteAllowance};

/// Transports of disks that no other machine reaches.
const LOCAL: [&str; 3] = ["sata", "sas", "nvme"];
/// How far a size may be off where the profile writes nothing: makers round.
const SIZE_TOLERANCE_PERCENT: f64 = 1.0;

fn is_same(wanted: Option<&str>, found: Option<&str>) -> bool {
    let word = |text: &str| text.trim().to_ascii_lowercase();
    matches!((wanted, found), (Some(wanted), Some(found)) if !wanted.trim().is_empty() && word(wanted) == word(found))
}

/// The disk that is beyond doubt the wanted one.
///
/// # Errors
/// What speaks against it.
pub(super) fn choose<'d>(
    allowance: &WriteAllowance,
    wanted: &ExpectedDisk,
    found: &'d [Disk],
) -> Result<&'d Disk, String> {
    let names =
        |disks: &[&Disk]| disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>().join(" and ");
    let said = |text: Option<&str>| text.map_or_else(|| "nothing".to_owned(), |text| format!("{text:?}"));
    let by_serial: Vec<&Disk> =
        found.iter().filter(|disk| is_same(wanted.serial.as_deref(), disk.serial.as_deref())).collect();
    let by_wwn: Vec<&Disk> =
        found.iter().filter(|disk| is_same(wanted.wwn.as_deref(), disk.wwn.as_deref())).collect();
    let serial = said(wanted.serial.as_deref());
    let disk = match (by_serial.as_slice(), by_wwn.as_slice()) {
        ([], _) => return Err(format!("no disk has the serial {serial}")),
        (disks, []) => {
            return Err(format!(
                "{} has the serial {serial}, but its WWN is {}, expected {}",
                names(disks),
                said(disks[0].wwn.as_deref()),
                said(wanted.wwn.as_deref())
            ));
        }
        // Namespaces of one NVMe disk have its serial, each with its own WWN.
        (disks, [disk]) if disks.iter().any(|one| one.name == disk.name) => *disk,
        (_, [disk]) => {
            return Err(format!(
                "{} has the WWN {}, but its serial is {}, expected {serial}",
                disk.name,
                said(wanted.wwn.as_deref()),
                said(disk.serial.as_deref())
            ));
        }
        (_, disks) => {
            return Err(format!("{} have the same WWN {}", names(disks), said(wanted.wwn.as_deref())));
        }
    };
    let bytes = wanted.size_gb.unwrap_or_default() * 1e9;
    let off_percent = (disk.size_bytes as f64 - bytes).abs() / bytes * 100.0;
    let most = wanted.tolerance_percent.unwrap_or(SIZE_TOLERANCE_PERCENT);
    // Of a size that is not written, any size is infinitely far, or no number.
    if off_percent.is_nan() || off_percent > most {
        return Err(format!(
            "{} has {} bytes, expected {} GB to within {most} %",
            disk.name,
            disk.size_bytes,
            wanted.size_gb.unwrap_or_default()
        ));
    }
    let is_local = disk.transport.as_deref().is_some_and(|transport| LOCAL.contains(&transport));
    if !is_local && !allowance.shared {
        return Err(format!(
            "{} hangs on {}, expected {}, or shared = true in the profile's [write]",
            disk.name,
            disk.transport.as_deref().unwrap_or("nothing that says what it is"),
            LOCAL.join(", ")
        ));
    }
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(name: &str, serial: &str, wwn: &str) -> Disk {
        Disk {
            name: name.into(),
            model: Some("M".into()),
            serial: Some(serial.into()),
            wwn: Some(wwn.into()),
            size_bytes: 960_197_124_096,
            transport: Some("sata".into()),
            ..Disk::default()
        }
    }

    fn wanted() -> ExpectedDisk {
        ExpectedDisk {
            serial: Some("S 1".into()),
            wwn: Some("naa.1".into()),
            size_gb: Some(960.0),
            ..ExpectedDisk::default()
        }
    }

    #[track_caller]
    fn refused(disks: &[Disk], why: &str) {
        let found = choose(&WriteAllowance::default(), &wanted(), disks);
        assert!(found.clone().is_err_and(|text| text.contains(why)), "{found:?}, expected {why:?}");
    }

    #[test]
    fn the_one_disk_is_found_wherever_it_stands() {
        let one = disk("sda", " s 1  ", "NAA.1");
        let others = [disk("sdb", "S2", "naa.2"), disk("sdc", "S3", "naa.3")];
        for disks in [
            vec![one.clone(), others[0].clone(), others[1].clone()],
            vec![others[1].clone(), one.clone(), others[0].clone()],
        ] {
            assert_eq!(choose(&WriteAllowance::default(), &wanted(), &disks).unwrap().name, "sda");
        }
        // Two namespaces have one serial.
        let namespaces = [disk("nvme0n1", "S 1", "naa.7"), disk("nvme0n2", "S 1", "naa.1")];
        assert_eq!(choose(&WriteAllowance::default(), &wanted(), &namespaces).unwrap().name, "nvme0n2");
    }

    #[test]
    fn what_is_not_beyond_doubt_is_refused() {
        let one = || disk("sda", "S 1", "naa.1");
        refused(&[], "no disk has the serial");
        refused(&[disk("sda", "S1", "naa.1")], "no disk has the serial \"S 1\"");
        refused(&[disk("sda", "S 1", "naa.2")], "its WWN is \"naa.2\", expected \"naa.1\"");
        refused(&[disk("sda", "S 1", "naa.2"), disk("sdb", "S2", "naa.1")], "its serial is \"S2\"");
        refused(&[one(), disk("sdb", "S 1", "naa.1")], "sda and sdb have the same WWN");
        refused(&[one(), disk("sdb", "S2", "naa.1")], "sda and sdb have the same WWN");
        refused(&[Disk { serial: None, ..one() }], "no disk has the serial");
        refused(&[Disk { wwn: None, ..one() }], "its WWN is nothing");
        refused(&[Disk { size_bytes: 1_000_204_886_016, ..one() }], "expected 960 GB to within 1 %");
        refused(&[Disk { size_bytes: 0, ..one() }], "has 0 bytes");
        refused(&[Disk { transport: None, ..one() }], "hangs on nothing that says");
        for transport in ["usb", "iscsi", "fc", "nvme-tcp", "virtio", "scsi", "block"] {
            refused(&[Disk { transport: Some(transport.into()), ..one() }], "shared = true");
        }
        let usb = [Disk { transport: Some("usb".into()), ..one() }];
        let shared = WriteAllowance { shared: true, ..WriteAllowance::default() };
        assert!(choose(&shared, &wanted(), &usb).is_ok());
        // A profile that lost a part of the name names nothing.
        for less in [
            ExpectedDisk { serial: None, ..wanted() },
            ExpectedDisk { wwn: Some(" ".into()), ..wanted() },
            ExpectedDisk { size_gb: None, ..wanted() },
        ] {
            assert!(choose(&shared, &less, &[one(), Disk { wwn: Some(" ".into()), ..one() }]).is_err());
        }
    }

    proptest! {
        #[test]
        fn only_a_disk_that_fits_in_all_is_ever_chosen(
            disks in prop::collection::vec(
                ("sd[a-d]", "(S 1|S2)?", "(naa.1|naa.2)?", prop_oneof![Just(960u64), Just(970), Just(500)]), 0..5
            )
        ) {
            let disks: Vec<Disk> = disks
                .into_iter()
                .enumerate()
                .map(|(index, (name, serial, wwn, gb))| Disk {
                    size_bytes: gb * 1_000_000_000,
                    ..disk(&format!("{name}{index}"), &serial, &wwn)
                })
                .collect();
            if let Ok(chosen) = choose(&WriteAllowance::default(), &wanted(), &disks) {
                let names = (chosen.serial.as_deref(), chosen.wwn.as_deref());
                prop_assert_eq!(names, (Some("S 1"), Some("naa.1")));
                prop_assert_eq!(chosen.size_bytes, 960_000_000_000);
                prop_assert_eq!(disks.iter().filter(|disk| disk.wwn.as_deref() == Some("naa.1")).count(), 1);
            }
        }
    }
}
