//! The destructive stage Storage: what keeps it from writing, with a file, and with a block device of the kernel's, in place of
//! disks. Machines with real disks are written over in the guests' tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use groundcrew_protocol::profile::{StorageSettings, WriteAllowance};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::control::core::Asked;

const BYTES: usize = 32 << 20;

fn wanted(serial: &str) -> ExpectedDisk {
    ExpectedDisk {
        serial: Some(serial.into()),
        wwn: Some(format!("naa.{serial}")),
        size_gb: Some(BYTES as f64 / 1e9),
        ..ExpectedDisk::default()
    }
}

/// A disk in /sys, whose node is for the caller to make.
fn put_disk(machine: &Machine, name: &str, serial: &str, device: &str) {
    let folder = format!("/sys/devices/pci0000:00/0000:00:17.0/ata1/block/{name}");
    machine.write(&format!("{folder}/size"), format!("{}\n", BYTES / 512));
    machine.write(&format!("{folder}/serial"), format!("{serial}\n"));
    machine.write(&format!("{folder}/wwid"), format!("naa.{serial}\n"));
    machine.write(&format!("{folder}/dev"), format!("{device}\n"));
    machine.link(&format!("/sys/block/{name}"), &format!("..{}", folder.strip_prefix("/sys").unwrap()));
}

/// A stage that may write over these disks, if leave is given.
fn storage(root: &Root, serials: &[&str], leave: Result<Leave, &'static str>) -> Stage {
    let mut stage = stage("Storage", root);
    let disks = serials.iter().map(|serial| wanted(serial)).collect();
    stage.context.spec.storage = Some(StorageSettings {
        destructive: true,
        overwrite_mib: Some(8),
        allowance: Some(WriteAllowance { disks, ..WriteAllowance::default() }),
        ..StorageSettings::default()
    });
    stage.context.override_flags.wipe = true;
    stage.context.non_destructive = false;
    stage.context.wipes = leave;
    stage
}

fn never() -> Result<Leave, &'static str> {
    Ok(Arc::new(|asked, _| panic!("it asks for leave: {asked:?}")))
}

fn given() -> Result<Leave, &'static str> {
    Ok(Arc::new(|_, _| Ok(())))
}

/// A file as a block device. It is let go of with its end.
struct Loop {
    device: PathBuf,
}

impl Loop {
    fn of(file: &Path) -> Loop {
        let done = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(done.status.success(), "losetup: {}", String::from_utf8_lossy(&done.stderr));
        Loop { device: String::from_utf8(done.stdout).unwrap().trim().into() }
    }

    /// Puts its node into the machine, and gives its number.
    fn put(&self, machine: &Machine, name: &str) -> String {
        let number = rustix::fs::stat(&self.device).unwrap().st_rdev;
        machine.write("/dev/.keep", "");
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, machine.root.path(&format!("/dev/{name}")), FileType::BlockDevice, mode, number)
            .unwrap();
        format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let done = Command::new("losetup").arg("--detach").arg(&self.device).status();
        assert!(done.is_ok_and(|status| status.success()), "losetup --detach {}", self.device.display());
    }
}

/// A file that is a disk of the machine, in the folder that is given.
fn disk_of_file(machine: &Machine, folder: &Path, name: &str, serial: &str) -> (PathBuf, Loop) {
    let file = folder.join(name);
    std::fs::write(&file, vec![7u8; BYTES]).unwrap();
    let device = Loop::of(&file);
    let number = device.put(machine, name);
    put_disk(machine, name, serial, &number);
    (file, device)
}

#[test]
fn without_an_override_or_leave_nothing_is_written() {
    let (machine, folder) = (Machine::empty(), tempfile::tempdir().unwrap());
    let (file, _device) = disk_of_file(&machine, folder.path(), "sda", "S1");
    let mut unarmed = storage(&machine.root, &["S1"], never());
    unarmed.context.override_flags.wipe = false;
    assert_inconclusive(&run_stage(&unarmed.context), "run retry RUN --wipe");
    let mut read_only = storage(&machine.root, &["S1"], never());
    read_only.context.non_destructive = true;
    assert_inconclusive(&run_stage(&read_only.context), "nothing was written");
    assert_inconclusive(
        &run_stage(&storage(&machine.root, &["S1"], Err("its settings do not allow it")).context),
        "its settings do not allow it",
    );
    let late: Leave = Arc::new(|asked, _| {
        assert_eq!(asked, Asked::Wipe(vec!["S1".to_owned()]));
        Err("the override has lapsed".to_owned())
    });
    let outcome = run_stage(&storage(&machine.root, &["S1"], Ok(late)).context);
    assert_inconclusive(&outcome, "the override has lapsed");
    assert_eq!(std::fs::read(file).unwrap(), vec![7u8; BYTES]);
}

#[test]
fn one_disk_is_written_over_and_read_back_as_far_as_the_profile_says() {
    let (machine, folder) = (Machine::empty(), tempfile::tempdir().unwrap());
    let (file, _device) = disk_of_file(&machine, folder.path(), "sda", "S1");
    let (other, _other_device) = disk_of_file(&machine, folder.path(), "sdb", "S2");
    let outcome = run_stage(&storage(&machine.root, &["S1"], given()).context);
    for name in ["write_errors", "overwritten", "write_rate", "write_latency"] {
        assert_eq!(verdict(&outcome, name), Verdict::Pass, "{name}: {}", outcome.message);
    }
    assert_eq!(outcome.verdict, Verdict::Pass);
    let written = std::fs::read(file).unwrap();
    assert_ne!(written[..8 << 20], vec![7u8; 8 << 20], "the beginning is written over");
    assert_eq!(written[8 << 20..], vec![7u8; BYTES - (8 << 20)], "and no more");
    assert_eq!(std::fs::read(other).unwrap(), vec![7u8; BYTES]);
}

#[test]
fn a_disk_that_somebody_has_or_that_holds_anything_is_left_as_it_is() {
    let (machine, folder) = (Machine::empty(), tempfile::tempdir().unwrap());
    let (file, device) = disk_of_file(&machine, folder.path(), "sda", "S1");
    let (other, _other_device) = disk_of_file(&machine, folder.path(), "sdb", "S2");
    let mut stage = storage(&machine.root, &["S1", "S2"], never());
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.device).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let before = std::fs::read(&file).unwrap();
    assert_inconclusive(&run_stage(&stage.context), "sda holds ext4, expected nothing, or existing_data");
    // Allowed to write over what is there, but not over what is mounted.
    let point = folder.path().join("mounted");
    std::fs::create_dir(&point).unwrap();
    let mounted =
        Command::new("mount").args(["-o", "ro,noload"]).arg(&device.device).arg(&point).output().unwrap();
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    let allowance = stage.context.spec.storage.as_mut().unwrap().allowance.as_mut().unwrap();
    allowance.existing_data = true;
    let outcome = run_stage(&stage.context);
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    assert_inconclusive(&outcome, "sda is in use");
    let of_other = outcome.checks.iter().find(|check| check.component.as_deref() == Some("S2")).unwrap();
    assert!(of_other.observed.describe().contains("another disk of the list is refused"), "{of_other:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(std::fs::read(&other).unwrap(), vec![7u8; BYTES]);
}

#[test]
fn a_node_that_is_not_the_disk_of_sys_is_refused() {
    let (machine, folder) = (Machine::empty(), tempfile::tempdir().unwrap());
    let (file, device) = disk_of_file(&machine, folder.path(), "sda", "S1");
    let refused = |why: &str| {
        assert_inconclusive(&run_stage(&storage(&machine.root, &["S1"], never()).context), why);
    };
    let of_sys = |name: &str, text: &str| {
        machine.write(&format!("/sys/devices/pci0000:00/0000:00:17.0/ata1/block/sda/{name}"), text);
    };
    of_sys("dev", "8:0\n");
    refused("expected 8:0");
    std::fs::remove_file(machine.root.path("/dev/sda")).unwrap();
    machine.write("/dev/sda", vec![7u8; BYTES]);
    refused("is no block device");
    std::fs::remove_file(machine.root.path("/dev/sda")).unwrap();
    std::os::unix::fs::symlink(&device.device, machine.root.path("/dev/sda")).unwrap();
    refused("open ");
    std::fs::remove_file(machine.root.path("/dev/sda")).unwrap();
    let number = device.put(&machine, "sda");
    of_sys("dev", &number);
    of_sys("size", "65000\n");
    refused("33554432 bytes, and 33280000 by /sys");
    // The tool that would say what is on it is not there.
    of_sys("size", "65536\n");
    let mut without = storage(&machine.root, &["S1"], never());
    without.context.search_path = without.work.path().into();
    assert_inconclusive(&run_stage(&without.context), "wipefs is not installed");
    assert_eq!(std::fs::read(file).unwrap(), vec![7u8; BYTES]);
}
