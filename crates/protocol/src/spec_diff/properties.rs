use proptest::prelude::*;

use super::tests::{dimm, gpu, machine, unread};
use super::*;
use crate::inventory::{Dimm, Disk, Nic};
use crate::profile::{ExpectedDisk, ExpectedNic, Profile};

prop_compose! {
    fn any_disk()(
        name in "sd[a-d]", serial in prop::option::of("[ST ]{0,2}"), wwn in prop::option::of("[wv]{0,1}"),
        model in prop::option::of("(M|MN|N| )"), firmware in prop::option::of("[FG]"),
        gb in prop::sample::select(vec![0_u64, 1, 1000, 1005, 2000]),
    ) -> Disk {
        Disk { name, serial, wwn, model, firmware, size_bytes: gb * 1_000_000_000, ..Disk::default() }
    }
}

prop_compose! {
    fn any_nic()(
        name in "eth[0-3]", mac in prop::option::of("02:00:00:00:00:0[1-3A]"), driver in prop::option::of("[de]"),
        speed_mbps in prop::option::of(0..3_u32), mtu in prop::option::of(66..70_u32), is_virtual in any::<bool>(),
    ) -> Nic {
        Nic { name, mac, driver, speed_mbps, mtu, is_virtual, ..Nic::default() }
    }
}

prop_compose! {
    fn any_dimm()(locator in "[AB]{0,1}", gib in 0..3_u64, speed_mts in prop::option::of(0..3_u32)) -> Dimm {
        dimm(&locator, gib, speed_mts)
    }
}

prop_compose! {
    fn any_inventory()(
        cpu in (prop::option::of("\\PC{0,5}"), prop::option::of(any::<u32>()), prop::option::of(0..9_u32)),
        dimms in prop::option::of(prop::collection::vec(any_dimm(), 0..4)),
        total_bytes in prop::option::of(any::<u64>()),
        disks in prop::collection::vec(any_disk(), 0..6),
        nics in prop::collection::vec(any_nic(), 0..5),
        gpus in prop::collection::vec(prop::sample::select(vec!["2330", "27b8", ""]), 0..4),
        vendor in prop::option::of("[a-z \n]{0,3}"),
        parts in prop::collection::vec(prop::sample::select(vec!["dimms", "disks", "nics", "gpus", "cpu"]), 0..2),
    ) -> Inventory {
        let mut inventory = machine();
        inventory.cpu.model = cpu.0;
        inventory.cpu.cores = cpu.1;
        inventory.cpu.sockets = cpu.2;
        inventory.memory = Memory { total_bytes, dimms };
        inventory.disks = disks;
        inventory.nics = nics;
        inventory.gpus = gpus.into_iter().map(gpu).collect();
        inventory.dmi.vendor = vendor;
        inventory.unread = parts.into_iter().map(unread).collect();
        inventory
    }
}

prop_compose! {
    fn any_expected()(
        disks in prop::collection::vec(any_disk(), 0..5), bare in prop::collection::vec(any::<[bool; 5]>(), 5),
        nics in prop::collection::vec(any_nic(), 0..4), other in any_inventory(),
    ) -> Expected {
        let disk = |(disk, [serial, wwn, model, size, firmware]): (&Disk, &[bool; 5])| ExpectedDisk {
            serial: disk.serial.clone().filter(|_| *serial),
            wwn: disk.wwn.clone().filter(|_| *wwn),
            model: disk.model.clone().filter(|_| *model),
            size_gb: Some(disk.size_bytes as f64 / 1e9).filter(|_| *size),
            tolerance_percent: None,
            firmware: disk.firmware.clone().filter(|_| *firmware),
        };
        let nic = |nic: &Nic| ExpectedNic {
            mac: nic.mac.clone().filter(|_| !nic.is_virtual),
            driver: nic.driver.clone(),
            speed_mbps: nic.speed_mbps,
            mtu: nic.mtu,
        };
        Expected {
            disks: disks.iter().zip(&bare).map(disk).collect(),
            nics: nics.iter().map(nic).collect(),
            ..expected_of(&other)
        }
    }
}

fn sorted(mut checks: Vec<Check>) -> Vec<Check> {
    checks.sort_by_cached_key(|check| format!("{check:?}"));
    checks
}

/// The inventory with each of its lists in another order.
fn shuffled() -> impl Strategy<Value = (Inventory, Inventory)> {
    any_inventory().prop_flat_map(|inventory| {
        let lists = (
            Just(inventory.disks.clone()).prop_shuffle(),
            Just(inventory.nics.clone()).prop_shuffle(),
            Just(inventory.memory.dimms.clone().unwrap_or_default()).prop_shuffle(),
            Just(inventory.unread.clone()).prop_shuffle(),
            Just(inventory.gpus.clone()).prop_shuffle(),
        );
        lists.prop_map(move |(disks, nics, dimms, unread, gpus)| {
            let mut other = Inventory { disks, nics, unread, gpus, ..inventory.clone() };
            other.memory.dimms = inventory.memory.dimms.as_ref().map(|_| dimms);
            (inventory.clone(), other)
        })
    })
}

proptest! {
    #[test]
    fn the_order_of_an_inventory_changes_nothing((one, other) in shuffled(), expected in any_expected()) {
        prop_assert_eq!(sorted(spec_diff(&expected, &one)), sorted(spec_diff(&expected, &other)));
    }

    #[test]
    fn a_machine_is_what_is_expected_of_it(inventory in any_inventory()) {
        let expected = expected_of(&inventory);
        for check in spec_diff(&expected, &inventory) {
            prop_assert_eq!(check.verdict, Verdict::Pass, "{:?}", check);
        }
        let mut profile = Profile::parse("name = \"p\"\n[[stage]]\nname = \"Inventory\"").unwrap();
        profile.expected = expected.clone();
        let text = profile.to_toml();
        let read = Profile::parse(&text).unwrap_or_else(|bad| panic!("{bad}\n{text}"));
        prop_assert_eq!(read.expected, expected);
    }

    #[test]
    fn every_disk_counts_once_and_every_entry_has_a_check(inventory in any_inventory(), expected in any_expected()) {
        let checks = spec_diff(&expected, &inventory);
        let of = |name: &str| checks.iter().filter(|check| check.name == name).collect::<Vec<_>>();
        let nics = of("nic");
        let extra = nics.iter().filter(|check| matches!(check.observed, Observation::Unexpected { .. })).count();
        prop_assert_eq!(nics.len() - extra, expected.nics.len());
        if !expected.disks.is_empty() {
            let extra = |check: &&&Check| matches!(check.observed, Observation::Unexpected { .. });
            let found = |check: &&&Check| matches!(check.observed, Observation::Found { .. });
            let disks = of("disk");
            prop_assert_eq!(disks.len() - disks.iter().filter(extra).count(), expected.disks.len());
            prop_assert_eq!(disks.iter().filter(|c| extra(c) || found(c)).count(), inventory.disks.len());
        }
        let mut names: Vec<_> = checks.iter().map(|check| (&check.name, &check.component)).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), checks.len(), "two checks of one name: {:?}", checks);
    }
}
