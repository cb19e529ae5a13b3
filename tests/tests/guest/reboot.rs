//! What systemd 252 makes of a reboot, the ground of interrupts: exit 0 and a signal both mean "asked for" and no more,
//! and only another boot id means "done".

use groundcrew_tests::guest::words::Ended;
use groundcrew_tests::guest::{Finished, Guest, Unit, left_out};

#[test]
fn an_exit_code_of_reboot_says_nothing_of_a_reboot() {
    if left_out() {
        return;
    }
    let guest = Guest::boot("reboot");
    a_chroot_on_another_root_is_ignored(&guest);
    a_chroot_without_proc_and_run_fails(&guest);
    a_bound_root_reboots(&guest);
    a_shell_around_it_is_ended_by_the_shutdown(&guest);
    an_unheeded_chroot_reboots(&guest);
}

/// An overlay of the root, which has another root inode.
pub const OVERLAY: &str = "mkdir -p /run/o/upper /run/o/work /run/o/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/run/o/upper,workdir=/run/o/work /run/o/root
    for folder in proc sys dev run; do mount --rbind /$folder /run/o/root/$folder; done";

fn a_chroot_on_another_root_is_ignored(guest: &Guest) {
    guest.sh(OVERLAY);
    let Finished { ended, stdout, stderr } = guest.run(&["chroot", "/run/o/root", "reboot"]);
    assert_eq!(ended, Ended::Exit(0), "{stderr}");
    assert!([stdout, stderr].concat().contains("Running in chroot, ignoring request."));
    expect_no_reboot(guest, 1);
    // systemd's own test: the root of this process and that of process 1 are not the same inode.
    let inodes = guest.sh("chroot /run/o/root stat -L -c '%d %i' / /proc/1/root");
    let inodes: Vec<&str> = inodes.lines().collect();
    assert!(inodes.len() == 2 && inodes[0] != inodes[1], "{inodes:?}");
}

fn a_chroot_without_proc_and_run_fails(guest: &Guest) {
    guest.sh("mkdir -p /run/bare; mount --bind / /run/bare");
    let finished = guest.run(&["chroot", "/run/bare", "reboot"]);
    assert_eq!(finished.ended, Ended::Exit(1), "{finished:?}");
    expect_no_reboot(guest, 1);
}

fn a_bound_root_reboots(guest: &Guest) {
    let before = guest.boot_id();
    guest.sh("mkdir -p /run/bound; mount --rbind / /run/bound");
    guest.start_unit(&Unit::new(
        "bound",
        &["sh", "-c", "chroot /run/bound reboot; echo code $?; exec sleep infinity"],
    ));
    guest.wait_for_next_boot(&before);
    assert_eq!(guest.boots().len(), 2);
    assert_eq!(guest.unit_output("bound").0, "code 0\n");
    assert_eq!(guest.unit_end("bound").map(|end| end.status).as_deref(), Some("TERM"));
}

fn a_shell_around_it_is_ended_by_the_shutdown(guest: &Guest) {
    let before = guest.boot_id();
    // The outer shell tells of the inner one's end before it heeds its own signal.
    let script =
        "trap 'echo told >>/etc/shell' TERM; sh -c 'reboot; exec sleep infinity'; echo code $? >>/etc/shell";
    guest.start_unit(&Unit::new("shell", &["sh", "-c", script]));
    guest.wait_for_next_boot(&before);
    assert_eq!(guest.boots().len(), 3);
    let said = guest.read("/etc/shell").unwrap();
    assert!(said.contains("told\n") && said.contains("code 143\n"), "128 and SIGTERM: {said}");
}

fn an_unheeded_chroot_reboots(guest: &Guest) {
    let before = guest.boot_id();
    guest.sh(OVERLAY);
    let script = "SYSTEMD_IGNORE_CHROOT=1 chroot /run/o/root reboot; echo code $?";
    guest.start_unit(&Unit::new("unheeded", &["sh", "-c", script]));
    guest.wait_for_next_boot(&before);
    assert_eq!(guest.boots().len(), 4);
    assert_eq!(guest.unit_output("unheeded").0, "code 0\n");
}

/// Nothing is asked of systemd, and the guest is in the boot that it was in.
pub fn expect_no_reboot(guest: &Guest, boots: usize) {
    assert!(!guest.is_stopping());
    assert_eq!(guest.boots().len(), boots);
    assert_eq!(guest.boot_id(), guest.sh("cat /proc/sys/kernel/random/boot_id").trim());
}
