//! The stage Storage with the real fio on files that stand for disks, and with stand-ins.

use groundcrew_protocol::profile::{StorageSettings, WrittenFile};

use super::*;

/// A machine with one disk of 32 MiB, which is a file.
fn machine() -> Machine {
    let machine = Machine::empty();
    machine.write("/sys/devices/virtual/x/block/sda/size", "65536\n");
    machine.write("/sys/devices/virtual/x/block/sda/serial", "S1\n");
    machine.link("/sys/block/sda", "../devices/virtual/x/block/sda");
    machine.write("/dev/sda", vec![7u8; 32 << 20]);
    machine
}

fn storage(root: &Root, settings: StorageSettings) -> Stage {
    let mut stage = stage("Storage", root);
    stage.context.spec.storage = Some(settings);
    stage
}

fn file(folder: &str, mib: u64) -> WrittenFile {
    WrittenFile { write_folder: folder.to_owned(), write_mib: mib }
}

fn short() -> StorageSettings {
    StorageSettings { sequential: 1_000, random: 1_000, ..StorageSettings::default() }
}

#[test]
fn every_disk_is_read_and_none_is_changed() {
    let machine = machine();
    machine.write("/mnt/.keep", "");
    let settings = StorageSettings { written: Some(file("/mnt", 4)), ..short() };
    let outcome = run_stage(&storage(&machine.root, settings).context);
    for name in
        ["io_errors", "sequential_read", "random_read", "sequential_latency", "random_latency", "file_errors"]
    {
        assert_eq!(verdict(&outcome, name), Verdict::Pass, "{name}: {}", outcome.message);
    }
    let check = outcome.checks.iter().find(|check| check.name == "random_read").unwrap();
    assert_eq!(check.component.as_deref(), Some("S1"));
    assert!(check.evidence.contains("--readonly --rw=randread"), "{check:?}");
    assert_eq!(std::fs::read(machine.root.path("/dev/sda")).unwrap(), vec![7u8; 32 << 20]);
    let left: Vec<_> =
        std::fs::read_dir(machine.root.path("/mnt")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [".keep"], "its file is removed");
    let names: Vec<&str> = outcome.artifacts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["fio-sequential.txt", "fio-random.txt", "fio-file.json"]);
    assert!(
        !std::path::Path::new("local-groundcrew-0-verify.state").exists(),
        "fio keeps no state of its check"
    );
}

#[test]
fn the_whole_surface_is_read_to_its_end() {
    let machine = machine();
    let settings = StorageSettings { full_surface: true, ..short() };
    let outcome = run_stage(&storage(&machine.root, settings.clone()).context);
    assert_eq!(verdict(&outcome, "surface"), Verdict::Pass, "{}", outcome.message);
    // The kernel says that it is twice as large as what could be read.
    machine.write("/sys/block/sda/size", "131072\n");
    let outcome = run_stage(&storage(&machine.root, settings).context);
    assert_eq!(verdict(&outcome, "surface"), Verdict::Fail, "{}", outcome.message);
}

#[test]
fn what_cannot_be_read_or_is_not_there_is_no_pass() {
    let machine = machine();
    let mut stage = storage(&machine.root, short());
    let disk = |serial: &str| ExpectedDisk { serial: Some(serial.into()), ..ExpectedDisk::default() };
    stage.context.expected_disks = vec![disk("s1 "), disk("S2")];
    let outcome = run_stage(&stage.context);
    assert_eq!(outcome.verdict, Verdict::Fail);
    assert_eq!(outcome.message, "the disk S2 is missing");
    // One that hides its serial may be the one.
    machine.write("/sys/devices/virtual/x/block/sdb/size", "65536\n");
    machine.link("/sys/block/sdb", "../devices/virtual/x/block/sdb");
    machine.write("/dev/sdb", vec![7u8; 32 << 20]);
    assert_inconclusive(&run_stage(&stage.context), "sdb is there and does not say its serial");
    std::fs::remove_file(machine.root.path("/sys/block/sdb")).unwrap();
    std::fs::remove_file(machine.root.path("/dev/sda")).unwrap();
    assert_inconclusive(&run_stage(&storage(&machine.root, short()).context), "error 2");
    let mut without_tool = storage(&machine.root, short());
    without_tool.context.search_path = without_tool.work.path().into();
    assert_inconclusive(&run_stage(&without_tool.context), "fio is not installed");
    let mut late = storage(&machine.root, short());
    late.context.spec.deadline = 1;
    assert_inconclusive(&run_stage(&late.context), "ended at the stage's deadline of 1ms");
}

#[test]
fn nothing_is_wiped_nobodys_file_is_written_over_and_a_full_folder_is_left_alone() {
    let machine = machine();
    let mut stage = storage(&machine.root, short());
    stage.context.override_flags.wipe = true;
    assert_inconclusive(&run_stage(&stage.context), "the stage writes over none");
    let of = |folder: &str, mib: u64| {
        let settings = StorageSettings { written: Some(file(folder, mib)), ..short() };
        run_stage(&storage(&machine.root, settings).context)
    };
    assert_inconclusive(&of("/nowhere", 4), "look at the folder");
    let own = format!("/mnt/.groundcrew-storage-{}", std::process::id());
    machine.write(&own, "theirs");
    assert_eq!(verdict(&of("/mnt", 4), "file_errors"), Verdict::Pass);
    assert_eq!(std::fs::read(machine.root.path(&own)).unwrap(), b"theirs");
    assert_inconclusive(&of("/mnt", 1 << 40), "MiB free, expected");
}

#[test]
fn a_machine_without_disks_or_with_another_machines_skips() {
    let machine = Machine::empty();
    std::fs::create_dir_all(machine.root.path("/sys/block")).unwrap();
    assert_eq!(run_stage(&storage(&machine.root, short()).context).verdict, Verdict::Skipped);
    let session = "/sys/devices/platform/host2/session1/target2:0:0/2:0:0:0/block/sdz";
    machine.write(&format!("{session}/size"), "65536\n");
    machine.write(&format!("{session}/serial"), "R1\n");
    machine.link("/sys/block/sdz", &format!("..{}", &session["/sys".len()..]));
    let mut stage = storage(&machine.root, short());
    let outcome = run_stage(&stage.context);
    assert_eq!(outcome.verdict, Verdict::Skipped, "{outcome:?}");
    assert!(outcome.checks[0].reason.contains("another machine's (sdz)"), "{:?}", outcome.checks[0]);
    // Listed by its serial it is read.
    stage.context.expected_disks =
        vec![ExpectedDisk { serial: Some("R1".into()), ..ExpectedDisk::default() }];
    machine.write("/dev/sdz", vec![1u8; 32 << 20]);
    assert_eq!(verdict(&run_stage(&stage.context), "io_errors"), Verdict::Pass);
}
