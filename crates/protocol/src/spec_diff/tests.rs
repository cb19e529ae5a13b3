use super::*;
use crate::inventory::{Dimm, Disk, Gpu, Nic, Unread};
use crate::profile::Profile;

/// Puts a value into an inventory.
type Set<T> = fn(&mut Inventory, T);
/// Changes one part of an inventory.
type Change<T> = fn(&mut T);

const GIB_BYTES: u64 = 1 << 30;

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn disk(name: &str, serial: &str, model: &str, gb: u64) -> Disk {
    Disk {
        name: name.to_owned(),
        serial: text(serial),
        model: text(model),
        size_bytes: gb * 1_000_000_000,
        wwn: Some(format!("wwn-{serial}")),
        firmware: text("F1"),
        ..Disk::default()
    }
}

fn nic(name: &str, mac: &str, speed_mbps: Option<u32>) -> Nic {
    Nic {
        name: name.to_owned(),
        mac: text(mac),
        driver: text("mlx5_core"),
        speed_mbps,
        mtu: Some(1500),
        state: text("up"),
        ..Nic::default()
    }
}

pub(super) fn dimm(locator: &str, gib: u64, speed_mts: Option<u32>) -> Dimm {
    Dimm { locator: locator.to_owned(), size_bytes: gib * GIB_BYTES, speed_mts, ..Dimm::default() }
}

/// One of NVIDIA's.
pub(super) fn gpu(device: &str) -> Gpu {
    Gpu {
        pci: "0000:17:00.0".to_owned(),
        vendor: "10de".to_owned(),
        device: device.to_owned(),
        ..Gpu::default()
    }
}

/// A server with two sockets, two modules, two disks, two interfaces and one GPU.
pub(super) fn machine() -> Inventory {
    let mut machine = Inventory::default();
    machine.cpu.model = text("Example 9000 32-Core Processor ");
    machine.cpu.sockets = Some(2);
    machine.cpu.cores = Some(64);
    machine.cpu.logical = Some(128);
    machine.cpu.microcode = text("0x1f");
    machine.memory.total_bytes = Some(63 * GIB_BYTES);
    machine.memory.dimms = Some(vec![dimm("A1", 32, Some(4800)), dimm("B1", 32, Some(4800))]);
    machine.disks = vec![disk("sda", "S1", "ACME 1T", 1000), disk("sdb", "S2", "ACME 2T", 2000)];
    machine.nics = vec![
        nic("eth0", "02:00:00:00:00:01", Some(25_000)),
        nic("eth1", "02:00:00:00:00:02", Some(25_000)),
        Nic { is_virtual: true, ..nic("dummy0", "02:00:00:00:00:03", None) },
    ];
    machine.gpus = vec![gpu("2330")];
    machine.dmi.vendor = text("ACME");
    machine.dmi.product = text("Server 1");
    machine.firmware.version = text("2.1");
    machine
}

/// What the checks of a name came to, each as `name[component] verdict`, in a fixed order.
fn outcomes(expected: &str, inventory: &Inventory) -> Vec<String> {
    let profile = format!("name = \"p\"\n[[stage]]\nname = \"Inventory\"\n{expected}");
    let profile = Profile::parse(&profile).unwrap_or_else(|bad| panic!("{bad}\n{profile}"));
    let describe = |check: Check| match check.component {
        Some(component) => format!("{}[{component}] {}", check.name, check.verdict),
        None => format!("{} {}", check.name, check.verdict),
    };
    let mut outcomes: Vec<String> =
        spec_diff(&profile.expected, inventory).into_iter().map(describe).collect();
    outcomes.sort();
    outcomes
}

#[track_caller]
fn assert_outcomes(expected: &str, change: impl FnOnce(&mut Inventory), wanted: &[&str]) {
    let mut inventory = machine();
    change(&mut inventory);
    assert_eq!(outcomes(expected, &inventory), wanted, "{expected}");
}

pub(super) fn unread(part: &str) -> Unread {
    Unread { part: part.to_owned(), why: format!("{part} could not be read") }
}

#[test]
fn processors_are_compared_field_by_field() {
    let cases: [(&str, &str, Set<Option<u32>>); 3] = [
        ("sockets", "cpu.sockets", |inventory, value| inventory.cpu.sockets = value),
        ("cores", "cpu.cores", |inventory, value| inventory.cpu.cores = value),
        ("logical", "cpu.logical", |inventory, value| inventory.cpu.logical = value),
    ];
    for (key, name, set) in cases {
        let expected = format!("[expected.cpu]\n{key} = {{ at_least = 4, at_most = 6 }}");
        for (value, verdict) in [
            (Some(3), "fail"),
            (Some(4), "pass"),
            (Some(6), "pass"),
            (Some(7), "warn"),
            (None, "inconclusive"),
        ] {
            assert_outcomes(&expected, |inventory| set(inventory, value), &[&format!("{name} {verdict}")]);
        }
    }
}

#[test]
fn texts_are_compared_without_the_blanks_around_them() {
    let cases: [(&str, &str, Set<Option<String>>); 5] = [
        ("[expected.cpu]\nmodel = \"9000\"", "cpu.model", |i, value| i.cpu.model = value),
        ("[expected.cpu]\nmicrocode = \"9000\"", "cpu.microcode", |i, value| i.cpu.microcode = value),
        ("[expected.system]\nvendor = \"9000\"", "system.vendor", |i, value| i.dmi.vendor = value),
        ("[expected.system]\nproduct = \"9000\"", "system.product", |i, value| i.dmi.product = value),
        ("[expected.system]\nfirmware_version = \"9000\"", "system.firmware_version", |i, value| {
            i.firmware.version = value;
        }),
    ];
    for (expected, name, set) in cases {
        // Of a processor's model a part is enough.
        let longer = if name == "cpu.model" { "pass" } else { "fail" };
        for (value, verdict) in [
            (text(" 9000 "), "pass"),
            (text("A 9000 B"), longer),
            (text("8000"), "fail"),
            (text("  "), "inconclusive"),
            (None, "inconclusive"),
        ] {
            assert_outcomes(expected, |inventory| set(inventory, value), &[&format!("{name} {verdict}")]);
        }
    }
}

#[test]
fn memory_is_the_sum_of_the_modules_or_what_the_kernel_manages() {
    let total = "[expected.memory]\ntotal_gib = 64\ntolerance_percent = 2";
    let modules =
        |inventory: &mut Inventory, gib: u64| inventory.memory.dimms = Some(vec![dimm("A1", gib, None)]);
    assert_outcomes(total, |_| {}, &["memory.total pass"]);
    assert_outcomes(total, |inventory| modules(inventory, 62), &["memory.total fail"]);
    assert_outcomes(total, |inventory| modules(inventory, 66), &["memory.total warn"]);
    assert_outcomes(total, |inventory| inventory.memory.dimms = None, &["memory.total pass"]);
    assert_outcomes(
        total,
        |inventory| {
            inventory.unread.push(unread("dimms"));
            inventory.memory.total_bytes = Some(60 * GIB_BYTES);
        },
        &["memory.total fail"],
    );
    assert_outcomes(total, |inventory| inventory.memory = Memory::default(), &["memory.total inconclusive"]);
}

/// 23 of 24 modules are within five percent of all of them.
#[test]
fn one_module_less_is_no_tolerance() {
    let total = "[expected.memory]\ntotal_gib = 768";
    let modules =
        |count: usize| move |i: &mut Inventory| i.memory.dimms = Some(vec![dimm("A", 32, None); count]);
    assert_outcomes(total, modules(24), &["memory.total pass"]);
    assert_outcomes(total, modules(23), &["memory.total fail"]);
    assert_outcomes(total, modules(25), &["memory.total warn"]);
    // The kernel keeps some for itself.
    let kernel = |gib: u64| {
        move |i: &mut Inventory| i.memory = Memory { dimms: None, total_bytes: Some(gib * GIB_BYTES) }
    };
    assert_outcomes(total, kernel(736), &["memory.total pass"]);
    assert_outcomes(total, kernel(729), &["memory.total fail"]);
    let written = format!("{total}\ntolerance_percent = 5.0");
    assert_outcomes(&written, modules(23), &["memory.total pass"]);
}

#[test]
fn every_module_is_of_the_part_that_was_bought() {
    let expected = "[expected.memory]\npart = \"M321R4GA3BB6\"";
    let parts = |parts: &[Option<&str>]| {
        let of = |part: &Option<&str>| Dimm { part: part.map(str::to_owned), ..dimm("A", 32, None) };
        let dimms = parts.iter().map(of).collect();
        move |i: &mut Inventory| i.memory.dimms = Some(dimms)
    };
    let bought = Some(" M321R4GA3BB6-CQKVG ");
    assert_outcomes(expected, parts(&[bought, bought]), &["memory.part[A #2] pass", "memory.part[A] pass"]);
    assert_outcomes(
        expected,
        parts(&[None, Some("HMCG88AEBRA")]),
        &["memory.part[A #2] fail", "memory.part[A] inconclusive"],
    );
    assert_outcomes(expected, |i| i.memory.dimms = Some(Vec::new()), &["memory.part fail"]);
    assert_outcomes(expected, |i| i.memory.dimms = None, &["memory.part inconclusive"]);
}

/// As many cards of another kind are not what was bought.
#[test]
fn gpus_are_counted_by_what_they_are() {
    let expected = "[[expected.gpu]]\ndevice = \"10DE:2330\"\ncount = 2";
    let with = |devices: &'static [&'static str]| {
        move |i: &mut Inventory| i.gpus = devices.iter().map(|device| gpu(device)).collect()
    };
    assert_outcomes(expected, with(&["2330", "2330"]), &["gpu[10de:2330] pass"]);
    assert_outcomes(expected, with(&["2330"]), &["gpu[10de:2330] fail"]);
    assert_outcomes(expected, with(&["2330", "2330", "2330"]), &["gpu[10de:2330] warn"]);
    assert_outcomes(expected, with(&["27b8", "27b8"]), &["gpu[10de:2330] fail", "gpu[10de:27b8] warn"]);
    assert_outcomes(expected, |i| i.unread.push(unread("gpus")), &["gpu[10de:2330] inconclusive"]);
    assert_outcomes("[[expected.gpu]]\ndevice = \"10de:2330\"", with(&["2330"]), &["gpu[10de:2330] pass"]);
}

#[test]
fn interfaces_beyond_those_that_are_listed_warn_where_nobody_counts_them() {
    let listed = "[[expected.nic]]\nmac = \"02:00:00:00:00:01\"";
    let there = "nic[02:00:00:00:00:01] pass";
    assert_outcomes(listed, |_| {}, &[there, "nic[02:00:00:00:00:02] warn"]);
    assert_outcomes(listed, |i| i.nics[1].is_virtual = true, &[there]);
    let counted = format!("[expected]\nnic_count = 2\n{listed}");
    assert_outcomes(&counted, |_| {}, &[there, "nic_count pass"]);
}

#[test]
fn modules_are_counted_and_each_has_its_speed() {
    let count = "[expected.memory]\ndimms = 2";
    assert_outcomes(count, |_| {}, &["memory.dimms pass"]);
    assert_outcomes(count, |i| i.memory.dimms = Some(vec![dimm("A1", 64, None)]), &["memory.dimms fail"]);
    assert_outcomes(
        count,
        |i| i.memory.dimms.as_mut().unwrap().push(dimm("C1", 1, None)),
        &["memory.dimms warn"],
    );
    assert_outcomes(count, |i| i.memory.dimms = None, &["memory.dimms inconclusive"]);
    assert_outcomes(count, |i| i.unread.push(unread("dimms")), &["memory.dimms inconclusive"]);
    let speed = "[expected.memory]\nspeed_mts = 4800";
    assert_outcomes(speed, |_| {}, &["memory.speed[A1] pass", "memory.speed[B1] pass"]);
    assert_outcomes(
        speed,
        |i| {
            i.memory.dimms =
                Some(vec![dimm("A", 1, None), dimm("A", 1, Some(4400)), dimm("B", 1, Some(5600))]);
        },
        &["memory.speed[A #2] fail", "memory.speed[A] inconclusive", "memory.speed[B] pass"],
    );
    assert_outcomes(speed, |i| i.memory.dimms = Some(Vec::new()), &["memory.speed fail"]);
    assert_outcomes(speed, |i| i.memory.dimms = None, &["memory.speed inconclusive"]);
}

#[test]
fn counts_fail_below_and_warn_above_and_know_when_they_do_not_know() {
    let cases: [(&str, &str, Set<usize>); 3] = [
        ("disk_count", "disks", |i, n| i.disks.resize(n, disk("sdc", "S3", "ACME", 1))),
        ("gpu_count", "gpus", |i, n| {
            i.gpus.resize(n, Gpu { vendor: "10de".to_owned(), ..Gpu::default() });
            // More, which only show a console or came with the CPU, and do not count.
            i.gpus.push(Gpu { vendor: "1a03".to_owned(), class: "030000".to_owned(), ..Gpu::default() });
            let of_cpu = Gpu { class: "030000".to_owned(), pci: "0000:00:02.0".to_owned(), ..Gpu::default() };
            i.gpus.push(Gpu { vendor: "8086".to_owned(), ..of_cpu.clone() });
            i.gpus.push(Gpu { vendor: "1002".to_owned(), ..of_cpu });
        }),
        ("nic_count", "nics", |i, n| {
            // One more, which is virtual and does not count.
            i.nics.resize(n, nic("eth", "", None));
            i.nics.push(Nic { is_virtual: true, ..Nic::default() });
            i.nics.iter_mut().take(n).for_each(|nic| nic.is_virtual = false);
        }),
    ];
    for (key, part, set) in cases {
        let expected = format!("[expected]\n{key} = 2");
        for (count, verdict) in [(0, "fail"), (1, "fail"), (2, "pass"), (3, "warn")] {
            assert_outcomes(&expected, |i| set(i, count), &[&format!("{key} {verdict}")]);
        }
        assert_outcomes(&expected, |i| i.unread.push(unread(part)), &[&format!("{key} inconclusive")]);
    }
}

const BY_SERIAL: &str = "[[expected.disk]]\nserial = \"S1\"\nmodel = \"ACME\"\nsize_gb = 1000\n\
    wwn = \"wwn-S1\"\nfirmware = \"F1\"\n[[expected.disk]]\nserial = \"S2\"";

#[test]
fn a_disk_with_a_serial_is_that_one() {
    let first = |serial: &str, [model, size, firmware, wwn, there]: [&str; 5]| {
        vec![
            format!("disk.firmware[{serial}] {firmware}"),
            format!("disk.model[{serial}] {model}"),
            format!("disk.serial[S1] {there}"),
            format!("disk.size[{serial}] {size}"),
            format!("disk.wwn[{serial}] {wwn}"),
            "disk[S1] pass".to_owned(),
        ]
    };
    let cases: [(Change<Disk>, [&str; 5]); 9] = [
        (|disk| disk.serial = text("  S1 "), ["pass", "pass", "pass", "pass", "pass"]),
        (|disk| disk.model = text("OTHER"), ["fail", "pass", "pass", "pass", "pass"]),
        (|disk| disk.model = None, ["inconclusive", "pass", "pass", "pass", "pass"]),
        (|disk| disk.size_bytes = 989_000_000_000, ["pass", "fail", "pass", "pass", "pass"]),
        (|disk| disk.size_bytes = 1_009_000_000_000, ["pass", "pass", "pass", "pass", "pass"]),
        (|disk| disk.firmware = text("F2"), ["pass", "pass", "fail", "pass", "pass"]),
        (|disk| disk.firmware = None, ["pass", "pass", "inconclusive", "pass", "pass"]),
        (|disk| disk.wwn = text("other"), ["pass", "pass", "pass", "fail", "pass"]),
        // The serial cannot be read; the WWN says that it is the one.
        (|disk| disk.serial = None, ["pass", "pass", "pass", "pass", "inconclusive"]),
    ];
    for (change, verdicts) in cases {
        let mut inventory = machine();
        change(&mut inventory.disks[0]);
        let mut wanted = first("S1", verdicts);
        wanted.extend(["disk.serial[S2] pass".to_owned(), "disk[S2] pass".to_owned()]);
        wanted.sort();
        assert_eq!(outcomes(BY_SERIAL, &inventory), wanted);
    }
}

#[test]
fn a_missing_disk_fails_an_extra_one_warns_and_one_that_may_be_it_is_neither() {
    let both = ["disk.serial[S1] pass", "disk[S1] pass"];
    let expected = "[[expected.disk]]\nserial = \"S1\"\n[[expected.disk]]\nserial = \"S9\"";
    let with = |rest: &[&str]| {
        let mut all: Vec<String> = both.iter().chain(rest).map(|one| (*one).to_owned()).collect();
        all.sort();
        all
    };
    assert_eq!(outcomes(expected, &machine()), with(&["disk[S2] warn", "disk[S9] fail"]));
    let mut silent = machine();
    silent.disks[1].serial = None;
    assert_eq!(
        outcomes(expected, &silent),
        with(&["disk[ACME 2T 2000 GB #1] warn", "disk[S9] inconclusive"])
    );
    let mut partly = machine();
    partly.disks.truncate(1);
    partly.unread.push(unread("disks"));
    assert_eq!(outcomes(expected, &partly), with(&["disk[S9] inconclusive"]));
}

#[test]
fn disks_of_a_kind_are_counted_once_each() {
    let expected = "[[expected.disk]]\nmodel = \"ACME\"\n[[expected.disk]]\nmodel = \"ACME\"\nsize_gb = 1000\n\
        [[expected.disk]]\nmodel = \"ACME\"\nsize_gb = 1000";
    // Two of 1000 GB and one other; the entry without a size comes first and must not take one of the two.
    let mut whole = machine();
    whole.disks.push(disk("sdc", "S0", "ACME 1T", 1000));
    let passes = [
        "disk.model[ACME #1] pass",
        "disk.model[ACME 1000 GB #1] pass",
        "disk.model[ACME 1000 GB #2] pass",
        "disk.size[ACME 1000 GB #1] pass",
        "disk.size[ACME 1000 GB #2] pass",
        "disk[ACME #1] pass",
        "disk[ACME 1000 GB #1] pass",
        "disk[ACME 1000 GB #2] pass",
    ];
    assert_eq!(outcomes(expected, &whole), passes);
    // One of them is another size: it is named with its size rather than called missing.
    let wrong_size = outcomes("[[expected.disk]]\nmodel = \"ACME 2T\"\nsize_gb = 4000", &machine());
    assert!(wrong_size.contains(&"disk.size[ACME 2T 4000 GB #1] fail".to_owned()), "{wrong_size:?}");
    // And one is not there at all.
    whole.disks.remove(0);
    whole.disks[0].model = text("OTHER");
    assert!(outcomes(expected, &whole).contains(&"disk[ACME 1000 GB #2] fail".to_owned()));
    assert!(outcomes(expected, &whole).contains(&"disk[S2] warn".to_owned()));
}

#[test]
fn interfaces_are_found_by_address_or_kind() {
    let by_mac = "[[expected.nic]]\nmac = \"02:00:00:00:00:01\"\ndriver = \"mlx5_core\"\nspeed_mbps = 25000\nmtu = 1500";
    let cases: [(Change<Nic>, [&str; 3]); 9] = [
        (|nic| nic.mac = text("02:00:00:00:00:01"), ["pass", "pass", "pass"]),
        (|nic| nic.driver = text("virtio_net"), ["fail", "pass", "pass"]),
        (|nic| nic.driver = None, ["inconclusive", "pass", "pass"]),
        (|nic| nic.mtu = Some(9000), ["pass", "fail", "pass"]),
        (|nic| nic.mtu = None, ["pass", "inconclusive", "pass"]),
        (|nic| nic.speed_mbps = Some(10_000), ["pass", "pass", "fail"]),
        (|nic| nic.speed_mbps = Some(100_000), ["pass", "pass", "pass"]),
        (|nic| nic.speed_mbps = None, ["pass", "pass", "inconclusive"]),
        (
            |nic| {
                nic.speed_mbps = None;
                nic.is_virtual = true;
            },
            ["pass", "pass", "skipped"],
        ),
    ];
    for (change, [driver, mtu, speed]) in cases {
        let of = |name: &str, verdict: &str| format!("{name}[02:00:00:00:00:01] {verdict}");
        assert_outcomes(
            by_mac,
            |inventory| {
                inventory.nics.truncate(1);
                change(&mut inventory.nics[0]);
            },
            &[&of("nic.driver", driver), &of("nic.mtu", mtu), &of("nic.speed", speed), &of("nic", "pass")],
        );
    }
    let gone = |inventory: &mut Inventory| drop(inventory.nics.drain(..2));
    assert_outcomes(by_mac, gone, &["nic[02:00:00:00:00:01] fail"]);
    let silent = |inventory: &mut Inventory| {
        inventory.nics.truncate(1);
        inventory.nics[0].mac = None;
    };
    assert_outcomes(by_mac, silent, &["nic[02:00:00:00:00:01] inconclusive", "nic[eth0] warn"]);
    assert_outcomes(
        by_mac,
        |i| {
            i.nics.clear();
            i.unread.push(unread("nics"));
        },
        &["nic[02:00:00:00:00:01] inconclusive"],
    );
    let by_kind = "[[expected.nic]]\nspeed_mbps = 25000\n".repeat(3);
    let of = |n: u32, verdict: &str| format!("nic[25000 Mb/s #{n}] {verdict}");
    let found = outcomes(&by_kind, &machine());
    assert!(found.contains(&of(2, "pass")) && found.contains(&of(3, "fail")), "{found:?}");
}

#[test]
fn every_difference_says_what_was_found_and_what_was_expected() {
    let expected = "[expected.cpu]\nmodel = \"1000\"\ncores = 128\n[[expected.disk]]\nserial = \"S9\"";
    let profile = format!("name = \"p\"\n[[stage]]\nname = \"Inventory\"\n{expected}");
    let checks = spec_diff(&Profile::parse(&profile).unwrap().expected, &machine());
    let reasons: Vec<&str> = checks.iter().map(|check| check.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "found \"Example 9000 32-Core Processor\", expected \"1000\" in it",
            "64 cores, expected at least 128, warns above 128",
            "disk S9 is missing",
            "disk S1 was not expected",
            "disk S2 was not expected",
        ]
    );
}

#[test]
fn nothing_expected_is_skipped_and_no_inventory_is_inconclusive() {
    let nothing = spec_validate(&Expected::default(), Some(&machine()));
    assert_eq!((nothing.verdict, nothing.checks.len()), (Verdict::Skipped, 1));
    assert_eq!(spec_validate(&Expected::default(), None).verdict, Verdict::Skipped);
    let expected = expected_of(&machine());
    let unknown = spec_validate(&expected, None);
    assert_eq!((unknown.verdict, unknown.checks.len()), (Verdict::Inconclusive, 1));
    assert_eq!(spec_validate(&expected, Some(&machine())).verdict, Verdict::Pass);
    assert_eq!(spec_validate(&expected, Some(&Inventory::default())).verdict, Verdict::Fail);
    // What judges the stage again, from what was observed alone, comes to the same.
    let judged = spec_validate(&expected, Some(&machine()));
    assert_eq!(crate::check::judge_stage(&[], &judged.checks), judged);
}
