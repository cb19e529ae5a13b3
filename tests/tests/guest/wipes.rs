//! Machines of the live image whose disks may be written over: the one that the profile lists is, once an operator says so, and
//! nothing else ever is.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::operator::{Order, RunView};
use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::State;
use groundcrew_tests::guest::{Live, Parts, left_out};
use groundcrew_tests::harness::Server;
use groundcrew_tests::harness::server::Run;
use http::Method;

pub(crate) const DISK_BYTES: u64 = 64 << 20;

/// Disks of a machine, whose content is the test's.
pub(crate) struct Shelf {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
    arguments: Vec<OsString>,
}

impl Shelf {
    pub(crate) fn empty() -> Shelf {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        Shelf { folder, files: Vec::new(), arguments: Vec::new() }
    }

    /// A disk that holds these bytes, each at its place, and zeros.
    pub(crate) fn put(&mut self, name: &str, device: &str, content: &[(u64, &[u8])]) -> PathBuf {
        let path = self.folder.path().join(name);
        let file = File::create(&path).expect("the folder is ours");
        file.set_len(DISK_BYTES).expect("the file is ours");
        for (at, bytes) in content {
            file.write_all_at(bytes, *at).expect("the file is ours");
        }
        let mut drive = OsString::from(format!("if=none,id={name},format=raw,cache=unsafe,file="));
        drive.push(&path);
        self.arguments.extend([
            "-drive".into(),
            drive,
            "-device".into(),
            format!("{device},drive={name}").into(),
        ]);
        self.files.push(path.clone());
        path
    }

    pub(crate) fn device(&mut self, device: &str) {
        self.arguments.extend(["-device".into(), device.into()]);
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts { nvme: Vec::new(), sata: Vec::new(), more: self.arguments.clone(), ..Parts::default() }
    }

    /// What each disk holds, by its hash.
    pub(crate) fn content(&self) -> Vec<Sha256Hex> {
        self.files.iter().map(|path| content(path)).collect()
    }
}

pub(crate) fn content(path: &Path) -> Sha256Hex {
    Sha256Hex::of(&std::fs::read(path).expect("a disk is a file"))
}

pub(crate) fn profile(disks: &str) -> String {
    format!(
        "name = \"wipes\"\nat_end = \"shutdown\"\n[[stage]]\nname = \"Storage\"\ndeadline = \"10m\"\n\
         storage.destructive = true\n[write]\ndisks = [\n{disks}]\n"
    )
}

pub(crate) fn entry(serial: &str, wwn: &str, gb: f64) -> String {
    format!("{{ serial = \"{serial}\", wwn = \"{wwn}\", size_gb = {gb} }},\n")
}

/// What the kernel calls a namespace of QEMU's NVMe disk, whose own identifiers it does not trust.
pub(crate) fn namespace(serial: &str, number: u32) -> String {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("nvme.1b36-{}-{}-{number:08x}", hex(serial), hex("QEMU NVMe Ctrl"))
}

/// Waits until so many attempts are over and the run is held.
pub(crate) fn wait_for_hold(server: &Server, run: &Run, attempts: usize) {
    server.wait_for(run, &format!("a hold after attempt {attempts}"), |view| {
        let stage = &view.stages[0];
        view.summary.state == State::FailedHolding && stage.attempts as usize == attempts
    });
}

pub(crate) fn retry(server: &Server, run: &Run, wipe: bool) {
    let path = format!("/api/v1/runs/{}/retry", run.id);
    let _view: RunView = server.must(Method::POST, &path, &Order { wipe, ..Order::default() });
}

/// What the stage says of each disk's errors of writing: serial, verdict, and in words.
pub(crate) fn said(server: &Server, run: &Run) -> Vec<(String, Verdict, String)> {
    let report: Report = server.get(&format!("/api/v1/runs/{}/report", run.id));
    let checks = report.stages[0].checks.iter().filter(|check| check.name == "write_errors");
    checks
        .map(|check| (check.component.clone().unwrap_or_default(), check.verdict, check.observed.describe()))
        .collect()
}

#[test]
fn of_four_disks_the_one_that_is_listed_is_written_over_once_an_operator_says_so() {
    if left_out() {
        return;
    }
    let mut shelf = Shelf::empty();
    // Same model, and its own neighbour in all but a letter.
    let listed =
        shelf.put("one", "ide-hd,bus=ide.1,serial=S 1,wwn=0x5000c50000000001", &[(1 << 20, b"mine")]);
    shelf.put("two", "ide-hd,bus=ide.0,serial=S 2,wwn=0x5000c50000000002", &[(1 << 20, b"theirs")]);
    shelf.device("nvme,id=ctl,serial=N1");
    shelf.put("three", "nvme-ns,bus=ctl,nsid=1", &[(1 << 20, b"theirs")]);
    shelf.put("four", "nvme-ns,bus=ctl,nsid=2", &[(1 << 20, b"theirs")]);
    let before = shelf.content();
    let server = Server::start();
    let run = server.create_run("wipes", &profile(&entry(" S 1 ", "naa.5000C50000000001", 0.0671)));
    let mut machine = Live::boot("wipes", &server, &run, &shelf.parts());
    wait_for_hold(&server, &run, 1);
    assert!(said(&server, &run)[0].2.contains("run retry RUN --wipe"), "{:?}", said(&server, &run));
    // A retry that does not say so is none.
    retry(&server, &run, false);
    wait_for_hold(&server, &run, 2);
    assert_eq!(shelf.content(), before);
    retry(&server, &run, true);
    server.wait_for_state(&run, State::Completed);
    machine.wait_for_power_off();
    assert_eq!(said(&server, &run)[0].1, Verdict::Pass, "{:?}", said(&server, &run));
    assert_ne!(content(&listed), before[0], "it is written over");
    assert_eq!(shelf.content()[1..], before[1..]);
}

#[test]
fn a_machine_with_any_disk_in_doubt_has_none_written_over() {
    if left_out() {
        return;
    }
    let mut shelf = Shelf::empty();
    let sata = |index: u32, serial: &str, wwn: u32| {
        format!("ide-hd,bus=ide.{index},serial={serial},wwn=0x5000c500000000{wwn:02x}")
    };
    shelf.put("good", &sata(0, "GOOD", 1), &[]);
    shelf.put("size", &sata(1, "SIZE", 2), &[]);
    let ext4 = shelf.put("ext4", &sata(2, "EXT4", 3), &[]);
    let made = Command::new("mkfs.ext4").arg("-q").arg(&ext4).output().expect("e2fsprogs is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // A table with one partition, as fdisk writes it.
    let partition = [0, 0, 2, 0, 0x83, 1, 1, 1, 0, 8, 0, 0, 0, 0, 1, 0];
    shelf.put("table", &sata(3, "TABLE", 4), &[(446, &partition), (510, &[0x55, 0xaa])]);
    shelf.put("twin-a", &sata(4, "TWIN", 5), &[]);
    shelf.put("twin-b", &sata(5, "TWIN", 5), &[]);
    // Labels of LVM and of md, as libblkid looks for them.
    let lvm = [&b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001"[..], &[b'a'; 32][..]].concat();
    let md = {
        let mut block = [0u8; 256];
        block[..8].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
        block[16..32].fill(b'u');
        block[144] = 8;
        block
    };
    shelf.device("nvme,id=lvm,serial=LVM");
    shelf.put("lvm-1", "nvme-ns,bus=lvm,nsid=1", &[(512, &lvm)]);
    shelf.device("nvme,id=md,serial=MD");
    shelf.put("md-1", "nvme-ns,bus=md,nsid=1", &[(4096, &md)]);
    shelf.device("nvme,id=ns,serial=SPACE");
    shelf.put("ns-1", "nvme-ns,bus=ns,nsid=1", &[]);
    shelf.put("ns-2", "nvme-ns,bus=ns,nsid=2", &[]);
    let before = shelf.content();
    const GB: f64 = 0.0671;
    let disks = [
        entry("GOOD", "naa.5000c50000000001", GB),
        entry("SIZE", "naa.5000c50000000002", 0.07),
        entry("EXT4", "naa.5000c50000000003", GB),
        entry("TABLE", "naa.5000c50000000004", GB),
        entry("TWIN", "naa.5000c50000000005", GB),
        entry("LVM", &namespace("LVM", 1), GB),
        entry("MD", &namespace("MD", 1), GB),
        entry("SPACE", &namespace("SPACE", 3), GB),
    ];
    let server = Server::start();
    let run = server.create_run("doubt", &profile(&disks.concat()));
    let _machine = Live::boot("doubt", &server, &run, &shelf.parts());
    wait_for_hold(&server, &run, 1);
    retry(&server, &run, true);
    wait_for_hold(&server, &run, 2);
    let said = said(&server, &run);
    for (serial, why) in [
        ("GOOD", "another disk of the list is refused"),
        ("SIZE", "expected 0.07 GB to within 1 %"),
        ("EXT4", "holds ext4"),
        ("TABLE", "holds dos"),
        ("TWIN", "have the same WWN"),
        ("LVM", "holds LVM2_member"),
        ("MD", "holds linux_raid_member"),
        ("SPACE", "has the serial \"SPACE\", but its WWN is \"nvme.1b36-"),
    ] {
        let found = said.iter().find(|(of, ..)| of == serial);
        let (_, verdict, text) = found.unwrap_or_else(|| panic!("nothing is said of {serial}: {said:#?}"));
        assert_eq!(*verdict, Verdict::Inconclusive, "{serial}: {text}");
        assert!(text.contains(why), "{serial}: {text}");
    }
    assert_eq!(shelf.content(), before, "no disk was written to");
}
