//! What proves a reboot, and what does not.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use serde_json::json;

use crate::node::{KILLED_BEFORE_THE_COMMAND, NO_GRACE, Node, SKIPPED};

/// Runs the rest of its arguments where a file of the root is mounted over the boot id.
const WITH_ANOTHER_BOOT_ID: &str = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id; exec \"$@\"";
/// Runs the rest of its arguments as the child of a process 1, where the root mount has a /proc in which that one is seen.
const WITH_PROC: &str =
    "mkdir -p \"$0/proc\"; for proc in /proc \"$0/proc\"; do mount -t proc proc \"$proc\"; done; \"$@\"";

/// A shell with mounts of its own, whose `$0` is `given`.
fn with_mounts<'a>(script: &'a str, given: &'a str) -> [&'a str; 6] {
    ["/usr/bin/unshare", "--mount", "/bin/sh", "-euc", script, given]
}

/// The same, as process 1 of its own process ids.
fn as_process_1<'a>(script: &'a str, given: &'a str) -> [&'a str; 9] {
    let [unshare, mount, rest @ ..] = with_mounts(script, given);
    let [shell, flags, script, given] = rest;
    [unshare, mount, "--pid", "--fork", "--kill-child", shell, flags, script, given]
}

/// A file as the refusal names it.
fn named(path: &Path) -> String {
    let found = std::fs::metadata(path).unwrap();
    format!("(device {}, inode {})", found.dev(), found.ino())
}

/// The machine's programs for what is around the agent, before those of the root.
const PATH: (&str, &str) = ("PATH", "/programs:/usr/sbin:/usr/bin:/sbin:/bin");

#[test]
fn another_boot_id_is_a_proof_whatever_became_of_the_request() {
    for killed in [true, false] {
        let node = Node::with_reboot("echo x >>/asks");
        let settings = if killed { &[KILLED_BEFORE_THE_COMMAND][..] } else { &[] };
        assert_eq!(node.call(settings), if killed { -9 } else { 0 });
        let asks = node.written("asks");
        node.change_record("boot_id", json!("11111111-1111-4111-8111-111111111111"));
        for settings in [&[][..], &[NO_GRACE], &[("GROUNDCREW_REBOOT_WAIT_S", "86400")]] {
            assert_eq!(node.call(settings), 0);
            assert!(node.said("stdout").contains(SKIPPED));
            assert_eq!(node.said("stderr"), "");
        }
        assert_eq!((node.written("asks"), node.flag().exists()), (asks, true));
    }
}

/// A root mount may hold the /proc of whatever made it.
#[test]
fn the_boot_id_is_the_agents_own_and_never_that_of_the_root() {
    let node = Node::with_reboot("echo x >>/asks");
    let of_root = node.root().join("proc/sys/kernel/random/boot_id");
    std::fs::create_dir_all(of_root.parent().unwrap()).unwrap();
    for (id, exit) in
        [("11111111-1111-4111-8111-111111111111", 0), ("22222222-2222-4222-8222-222222222222", 1)]
    {
        std::fs::write(&of_root, format!("{id}\n")).unwrap();
        // Asked for; and after its grace, on what is the same boot whatever the root says, it has not come.
        let settings = if exit == 0 { &[][..] } else { &[NO_GRACE] };
        assert_eq!(node.call(settings), exit, "{}", node.said("stderr"));
        let recorded = node.whole_record().unwrap();
        let kernels = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(recorded["boot_id"], kernels.trim());
    }
    assert_eq!((node.written("asks").as_str(), node.flag().exists()), ("x\n", false));
}

#[test]
fn a_flag_of_the_reference_agent_counts_as_done() {
    let node = Node::with_reboot("echo x >>/asks");
    std::fs::create_dir_all(node.flag().parent().unwrap()).unwrap();
    std::fs::write(node.flag(), "1795203705.9228933").unwrap();
    for settings in [&[][..], &[NO_GRACE], &[("GROUNDCREW_REBOOT_WAIT_S", "86400")]] {
        assert_eq!(node.call(settings), 0);
        assert!(node.said("stdout").contains(SKIPPED));
        assert_eq!(node.said("stderr"), "");
    }
    assert_eq!((node.record(), node.written("asks").as_str()), (None, ""));
    assert_eq!(std::fs::read_to_string(node.flag()).unwrap(), "1795203705.9228933");
}

#[test]
fn a_record_of_another_flag_is_ignored_and_that_is_said() {
    let node = Node::with_reboot("echo x >>/asks");
    assert_eq!(node.call(&[]), 0);
    std::fs::write(node.flag(), "1795203705.9228933").unwrap();
    assert_eq!(node.call(&[NO_GRACE]), 0);
    assert!(node.said("stdout").contains(SKIPPED));
    let said = node.said("stderr");
    assert!(
        said.contains("it belongs to a flag with the text") && said.contains("the flag alone counts"),
        "{said}"
    );
    // Without its flag it means nothing either, but for how often was asked.
    std::fs::remove_file(node.flag()).unwrap();
    assert_eq!(node.call(&[NO_GRACE]), 0);
    assert_eq!((node.record(), node.written("asks").as_str()), (Some(("asked".to_owned(), 2)), "x\nx\n"));
}

#[test]
fn the_grace_is_measured_on_the_clock_since_boot_that_nobody_sets() {
    let node = Node::with_reboot("echo x >>/asks");
    assert_eq!(node.call(&[]), 0);
    // When it was asked for by the wall clock is for people.
    node.change_record("asked_at", json!("1970-01-01T00:00:00Z"));
    assert_eq!(node.call(&[]), 0);
    assert!(node.said("stdout").contains(SKIPPED));
    // Time that a machine has slept is on one clock of those two.
    // Before Linux 6.2 only a child is on the clocks of a new namespace.
    let later = |clock| ["/usr/bin/unshare", "--time", clock, "400", "--fork", "--kill-child"];
    assert_eq!(node.call_under(&later("--monotonic"), &[]), 0);
    assert!(node.said("stdout").contains(SKIPPED));
    assert_eq!(node.call_under(&later("--boottime"), &[]), 1);
    let said = node.said("stderr");
    assert!(said.contains("(1 of 3 times) and the machine never rebooted"), "{said}");
    assert!(!node.flag().exists());
}

#[test]
fn a_request_in_its_grace_is_skipped_and_its_age_is_said() {
    let node = Node::with_reboot("echo x >>/asks");
    assert_eq!(node.call(&[]), 0);
    let asked = node.whole_record().unwrap()["boottime_s"].as_f64().unwrap();
    node.change_record("boottime_s", json!(asked - 1_000.0));
    assert_eq!(node.call(&[("GROUNDCREW_REBOOT_GRACE_S", "86400")]), 0);
    assert!(node.said("stdout").contains(SKIPPED));
    let said = node.said("stderr");
    let age = said
        .split_once("node_restart_0: asked for ")
        .and_then(|(_, rest)| rest.split_once(" s ago under this boot"));
    let age: u64 = age.unwrap_or_else(|| panic!("{said}")).0.parse().unwrap();
    assert!((1_000..86_400).contains(&age), "{said}");
    assert_eq!((node.flag().exists(), node.written("asks").as_str()), (true, "x\n"));
    // Whoever finds it asked for waits as whoever asked does, and it has not come by then.
    let waits = [("GROUNDCREW_REBOOT_GRACE_S", "86400"), ("GROUNDCREW_REBOOT_WAIT_S", "0.01")];
    assert_eq!(node.call(&waits), 1);
    assert!(node.said("stderr").contains(" s ago, not seen yet"), "{}", node.said("stderr"));
    assert_eq!((node.flag().exists(), node.written("asks").as_str()), (true, "x\n"));
    // By the grace that it has otherwise, of five minutes, it is over.
    assert_eq!((node.call(&[]), node.flag().exists()), (1, false));
}

/// What the disk remembers of a request, the machine that goes on from an older snapshot has never heard. Its clock since boot
/// may be years behind: nobody waits for it to catch up.
#[test]
fn a_request_that_a_resumed_snapshot_has_never_heard_is_made_again() {
    let node = Node::with_reboot("echo x >>/asks");
    assert_eq!(node.call(&[]), 0);
    node.change_record("boottime_s", json!(1e9));
    assert_eq!(node.call(&[]), 1);
    let said = node.said("stderr");
    let expected = "node_restart_0: asked for at a moment that this boot has yet to reach, as after a resumed snapshot (1 of \
                    3 times) and the machine never rebooted; its flag is taken off, and the next pass asks again";
    assert!(said.contains(expected), "{said}");
    assert_eq!((node.flag().exists(), node.written("asks").as_str()), (false, "x\n"));
    assert_eq!((node.call(&[]), node.record()), (0, Some(("asked".to_owned(), 2))));
}

#[test]
fn where_the_boot_id_is_not_the_kernels_the_flag_counts_alone_and_that_is_said() {
    let node = Node::with_reboot("echo x >>/asks");
    let fake = node.root().join("fake");
    std::fs::write(&fake, "11111111-1111-4111-8111-111111111111\n").unwrap();
    let around = with_mounts(WITH_ANOTHER_BOOT_ID, fake.to_str().unwrap());
    let unproved = "is mounted over /proc/sys/kernel/random/boot_id, so the boot id that is read there is not the \
                    kernel's: a reboot cannot be proved, the flag alone counts";
    assert_eq!(node.call_under(&around, &[PATH]), 0, "{}", node.said("stderr"));
    assert!(node.said("stderr").contains(unproved), "{}", node.said("stderr"));
    assert!(node.flag().exists());
    assert_eq!((node.record(), node.written("asks").as_str()), (None, "x\n"));
    // As the reference has it: skipped, whether it came or not.
    assert_eq!(node.call_under(&around, &[PATH, NO_GRACE]), 0);
    assert!(node.said("stdout").contains(SKIPPED) && node.said("stderr").contains(unproved));
    assert_eq!(node.call(&[NO_GRACE]), 0);
    assert!(node.said("stdout").contains(SKIPPED));
    // A command that failed takes its flag with it.
    let node = Node::with_reboot("exit 7");
    assert_eq!(node.call_under(&around, &[PATH]), 1);
    assert!(!node.flag().exists());
}

#[test]
fn a_request_that_systemd_would_ignore_is_not_made() {
    let node = Node::with_reboot("");
    let reboot = node.root().join("programs/reboot");
    std::fs::remove_file(&reboot).unwrap();
    node.program("systemctl", "echo \"$0 $*\" >>/asks");
    symlink("systemctl", &reboot).unwrap();
    let root = node.root();
    let around = as_process_1(WITH_PROC, root.to_str().unwrap());
    assert_eq!(node.call_under(&around, &[PATH]), 1);
    let said = node.said("stderr");
    assert!(said.contains("node_restart_0: not asked for: systemd would ignore the request"), "{said}");
    assert!(said.contains(&named(&root)) && said.contains(&named(Path::new("/"))), "{said}");
    assert_eq!((node.flag().exists(), node.record(), node.written("asks").as_str()), (false, None, ""));
    // One that was intended before is no longer: the flag would keep the next pass from asking.
    assert_eq!(node.call(&[KILLED_BEFORE_THE_COMMAND]), -9);
    assert_eq!(node.call_under(&around, &[PATH]), 1);
    assert!(!node.flag().exists());

    // systemd heeds it where it is told to.
    std::fs::remove_file(node.record_file()).unwrap();
    assert_eq!(
        node.call_under(&around, &[PATH, ("SYSTEMD_IGNORE_CHROOT", "1")]),
        0,
        "{}",
        node.said("stderr")
    );
    assert_eq!((node.record(), node.written("asks").lines().count()), (Some(("asked".to_owned(), 1)), 1));

    // Another program of that name, in front of systemd's, is none of systemd's business.
    for remains in [node.flag(), node.record_file(), node.root().join("asks")] {
        std::fs::remove_file(remains).unwrap();
    }
    node.program("own/reboot", "echo own >>/asks");
    let first = ("PATH", "/programs/own:/programs:/usr/sbin:/usr/bin:/sbin:/bin");
    assert_eq!(node.call_under(&around, &[first]), 0, "{}", node.said("stderr"));
    assert_eq!((node.record(), node.written("asks").as_str()), (Some(("asked".to_owned(), 1)), "own\n"));
}
