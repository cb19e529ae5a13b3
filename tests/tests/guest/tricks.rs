//! A held machine whose disk may be written over, and everything that may lead the write to another one: a mount, a name that
//! means another disk, an order that was changed, an override that is too old or was used.

use std::path::Path;
use std::process::Command;

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_tests::guest::{Live, OperatorKey, left_out};
use groundcrew_tests::harness::Server;
use groundcrew_tests::harness::server::Run;
use serde_json::json;

use crate::wipes::{Shelf, content, entry, namespace, profile, retry, said, wait_for_hold};

/// Finds the listed disk by what it says of itself, and the other disk of its model, whatever they are called.
const FIND: &str = r#"set -e
name() { basename "$(dirname "$(grep -lx "$1" /sys/block/*/wwid)")"; }
listed=$(name LISTED)
other=$(name OTHER)
"#;
/// Two names change hands: the drivers let go of both disks and take them the other way round.
const SWAP: &str = r#"
bus() { basename "$(realpath /sys/block/$1/device/device)"; }
a=$(bus $listed) b=$(bus $other) was=$listed
for one in $a $b; do echo $one >/sys/bus/pci/drivers/nvme/unbind; done
if [ $a \> $b ]; then first=$a then=$b; else first=$b then=$a; fi
for one in $first $then; do
    echo $one >/sys/bus/pci/drivers/nvme/bind
    until ls -d /sys/bus/pci/devices/$one/nvme/nvme*/nvme* >/dev/null 2>&1; do sleep 0.1; done
done
echo "$was $(name LISTED)""#;

/// After which an override is none.
const HOUR_MS: u64 = 3_600_000;

struct Tricked {
    server: Server,
    run: Run,
    machine: Live,
    key: OperatorKey,
    shelf: Shelf,
    before: Vec<Sha256Hex>,
    attempts: usize,
}

impl Tricked {
    /// Does something on the machine as its operator.
    fn do_there(&self, script: &str) -> String {
        let script = format!("{FIND}{script}");
        let script = script.replace("LISTED", &namespace("S 1", 1)).replace("OTHER", &namespace("S 2", 1));
        self.key.log_in(&self.machine, &script)
    }

    /// An attempt, with an override or without one. What it says of the listed disk.
    fn attempt(&mut self, wipe: bool) -> (Verdict, String) {
        retry(&self.server, &self.run, wipe);
        self.held()
    }

    fn held(&mut self) -> (Verdict, String) {
        self.attempts += 1;
        wait_for_hold(&self.server, &self.run, self.attempts);
        let said = said(&self.server, &self.run);
        let [(serial, verdict, text)] = said.as_slice() else { panic!("one disk is listed: {said:?}") };
        // Where nobody may write, no disk is looked at.
        assert!(["", "S 1"].contains(&serial.as_str()), "{serial}");
        (*verdict, text.clone())
    }

    /// The attempt wrote to nothing, and said why.
    fn expect_nothing(&self, (verdict, text): (Verdict, String), why: &str) {
        assert_eq!(verdict, Verdict::Inconclusive, "{text}");
        assert!(text.contains("nothing was written") && text.contains(why), "{why} in {text}");
        assert_eq!(self.shelf.content(), self.before, "{why}: something was written to");
    }
}

/// Puts one partition with ext4 on a disk.
fn part(disk: &Path) {
    let made =
        Command::new("mkfs.ext4").args(["-q", "-F", "-E", "offset=1048576"]).arg(disk).arg("32M").output();
    let made = made.expect("e2fsprogs is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn nobody_is_tricked_into_writing_over_another_disk() {
    if left_out() {
        return;
    }
    let mut shelf = Shelf::empty();
    shelf.device("nvme,id=other,serial=S 2");
    shelf.put("other-1", "nvme-ns,bus=other,nsid=1", &[(1 << 20, b"theirs")]);
    shelf.device("nvme,id=ctl,serial=S 1");
    let partition = [0, 0, 2, 0, 0x83, 1, 1, 1, 0, 8, 0, 0, 0, 0, 1, 0];
    let listed = shelf.put("listed", "nvme-ns,bus=ctl,nsid=1", &[(446, &partition), (510, &[0x55, 0xaa])]);
    part(&listed);
    shelf.put("neighbour", "nvme-ns,bus=ctl,nsid=2", &[(1 << 20, b"theirs")]);
    let before = shelf.content();
    let server = Server::start_with_steps_of(HOUR_MS + 1);
    let key = OperatorKey::registered(&server);
    // A rate that no disk has: an attempt that was allowed to write is held as well.
    let profile = profile(&entry("S 1", &namespace("S 1", 1), 0.0671))
        .replace("storage.destructive = true\n", "storage.destructive = true\nstorage.write_min_mb_s = 1e9\n")
        .replace("\"10m\"", "\"2h\"")
        .replace("[write]\n", "[write]\nexisting_data = true\n");
    let run = server.create_run("tricked", &profile);
    let machine = Live::boot("tricked", &server, &run, &shelf.parts());
    let mut tricked = Tricked { server, run, machine, key, shelf, before, attempts: 0 };
    let first = tricked.held();
    tricked.expect_nothing(first, "run retry RUN --wipe");
    names_that_lead_elsewhere(&mut tricked);
    an_override_of_an_hour_ago(&mut tricked);
    written_once(&mut tricked, &listed);
}

fn names_that_lead_elsewhere(tricked: &mut Tricked) {
    tricked.do_there("mkdir -p /mnt\nmount -t ext4 /dev/${listed}p1 /mnt");
    let said = tricked.attempt(true);
    tricked.do_there("umount /mnt");
    // Mounting alone has changed what is on it; the others are as they were.
    let mounted = tricked.shelf.content();
    assert_eq!((&mounted[0], &mounted[2]), (&tricked.before[0], &tricked.before[2]));
    tricked.before = mounted;
    tricked.expect_nothing(said, "is in use: it or a part of it is mounted");
    tricked.do_there("mv /dev/$listed /dev/kept\nln -s $other /dev/$listed");
    let said = tricked.attempt(true);
    tricked.expect_nothing(said, "open /dev/nvme");
    tricked.do_there("rm /dev/$listed\nmknod /dev/$listed b $(tr : ' ' </sys/block/$other/dev)");
    let said = tricked.attempt(true);
    tricked.expect_nothing(said, "is device 259:");
    tricked.do_there("rm /dev/$listed\nmv /dev/kept /dev/$listed");
}

/// The machine is away for an hour before it comes to use it.
fn an_override_of_an_hour_ago(tricked: &mut Tricked) {
    tricked.machine.tell("stop", &json!({}));
    retry(&tricked.server, &tricked.run, true);
    tricked.server.pass_time();
    tricked.machine.tell("cont", &json!({}));
    let said = tricked.held();
    tricked.expect_nothing(said, "has lapsed: it was armed over an hour ago");
}

/// The names of both disks have changed hands, and a link of udev's that is older says otherwise.
fn written_once(tricked: &mut Tricked, listed: &Path) {
    let names = tricked.do_there(SWAP);
    let (was, is) = names.split_once(' ').expect("two names");
    assert_ne!(was, is, "the names were to change hands");
    tricked.do_there("mkdir -p /dev/disk/by-id\nln -s ../../$other /dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_S_1");
    let (verdict, text) = tricked.attempt(true);
    assert_eq!(verdict, Verdict::Pass, "{text}");
    let after = tricked.shelf.content();
    assert_ne!(content(listed), tricked.before[1], "it is written over");
    assert_eq!((&after[0], &after[2]), (&tricked.before[0], &tricked.before[2]), "and nothing else");
    // The override was for that attempt.
    tricked.before = after;
    let said = tricked.attempt(false);
    tricked.expect_nothing(said, "run retry RUN --wipe");
}
