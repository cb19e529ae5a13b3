//! Interrupts that are no reboot: done when their command has ended well, and only then.

use std::fs::File;

use serde_json::json;

use crate::node::{BLOCK, ID, KILLED_BEFORE_THE_COMMAND, Node, end_of, eventually, send_sigterm};

const RESTART: &str = "service_restart_1";

fn restarting(systemctl: &str) -> Node {
    let node = Node::new(json!({ "type": "service_restart", "services": ["a"] }));
    node.program("systemctl", systemctl);
    node
}

/// -15 is no failure of a reboot, and of nothing else.
#[test]
fn a_service_restart_that_a_signal_ended_has_failed() {
    for (what, script, code) in
        [("SIGTERM", "kill -TERM $$", -15), ("SIGKILL", "kill -KILL $$", -9), ("an exit status", "exit 5", 5)]
    {
        let node = restarting(&format!("echo \"$*\" >>/done; [ $1 = daemon-reload ] || {{ {script}; }}"));
        assert_eq!(node.call(&[]), 1, "{what}");
        let failed = format!("INTERRUPT FAILED: ['systemctl', 'restart', 'a'] return_code: {code}");
        assert!(node.said("stdout").contains(&failed), "{what}: {}", node.said("stdout"));
        assert!(node.flag_of("service_restart_0").exists() && !node.flag_of(RESTART).exists(), "{what}");
        // The next pass tries again, and only that.
        node.program("systemctl", "echo again \"$*\" >>/done");
        assert_eq!(node.call(&[]), 0, "{what}");
        assert_eq!(node.written("done"), "daemon-reload\nrestart a\nagain restart a\n", "{what}");
        assert!(
            node.flag_of(RESTART).exists() && !node.flag_of(RESTART).with_extension("complete.boot").exists()
        );
    }
}

#[test]
fn a_service_restart_that_is_ended_with_the_agent_has_failed() {
    let node = restarting(&format!("[ $1 = daemon-reload ] || {{ : >/begun; {BLOCK}; }}"));
    let agent = node.start(&[("SKYHOOK_AGENT_TERM_GRACE_S", "0")]);
    eventually("the restart", || node.root().join("begun").exists());
    send_sigterm(&agent);
    assert_eq!(end_of(agent), 1);
    assert!(node.flag_of("service_restart_0").exists() && !node.flag_of(RESTART).exists());
}

#[test]
fn restart_all_services_is_one_command_that_runs_once() {
    let node = Node::new(json!({ "type": "restart_all_services" }));
    node.program("service", "echo \"$*\" >>/done; exit 4");
    let flag = node.flag_of("restart_all_services_0");
    assert_eq!(node.call(&[]), 1);
    let failed = "INTERRUPT FAILED: ['service', 'procps', 'force-reload'] return_code: 4";
    assert!(node.said("stdout").contains(failed), "{}", node.said("stdout"));
    assert!(!flag.exists());
    node.program("service", "echo \"$*\" >>/done");
    assert_eq!(node.call(&[]), 0);
    let stamp = std::fs::read_to_string(&flag).unwrap();
    assert!(stamp.parse::<f64>().is_ok(), "{stamp}");
    assert_eq!(node.call(&[]), 0);
    let skipped = "Skipping interrupt restart_all_services_0 because it was already run for customer-";
    assert!(node.said("stdout").contains(skipped));
    assert_eq!(node.written("done"), "procps force-reload\nprocps force-reload\n");
    assert_eq!(std::fs::read_to_string(&flag).unwrap(), stamp);
}

/// The price of never running twice: whoever is killed between flag and command has not run it.
#[test]
fn the_flag_of_a_service_restart_is_durable_before_its_command() {
    let node = restarting("echo \"$*\" >>/done");
    assert_eq!(node.call(&[KILLED_BEFORE_THE_COMMAND]), -9);
    assert!(node.flag_of("service_restart_0").exists() && !node.flag_of(RESTART).exists());
    assert_eq!(node.call(&[]), 0);
    assert_eq!(node.written("done"), "restart a\n");
}

/// A flag stands while its command runs: who finds it then knows nothing of how that ends.
#[test]
fn two_calls_for_one_id_take_turns_and_what_failed_in_the_first_is_done_by_the_second() {
    let node = restarting(&format!(
        "echo \"$*\" >>/done; [ $1 = daemon-reload ] || [ -e /mended ] || {{ : >/begun; {BLOCK}; exit 5; }}"
    ));
    let first = node.start(&[]);
    eventually("the restart", || node.root().join("begun").exists());
    let output = tempfile::tempdir().unwrap();
    let file = |name: &str| File::create(output.path().join(name)).unwrap();
    let mut second = node.command_in("/", &[]);
    let second = second.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
    let waits = format!("waiting for another interrupt of {ID} to end");
    let said = || std::fs::read_to_string(output.path().join("stderr")).unwrap();
    eventually("the second call's wait", || said().contains(&waits));
    std::fs::write(node.root().join("mended"), "").unwrap();
    std::fs::write(node.root().join("fifo"), "\n").unwrap();
    assert_eq!((end_of(first), end_of(second)), (1, 0), "{}", said());
    assert_eq!(node.written("done"), "daemon-reload\nrestart a\nrestart a\n");
    assert!(node.flag_of(RESTART).exists());
}

#[test]
fn a_command_that_could_not_be_prepared_leaves_no_flag() {
    let node = restarting("echo \"$*\" >>/done");
    std::os::unix::fs::symlink("loop", node.root().join("loop")).unwrap();
    assert_eq!(end_of(node.command_in("/loop", &[]).spawn().unwrap()), 1);
    let said = node.said("stderr");
    assert!(said.contains("/loop"), "{said}");
    assert!(!node.flag_of("service_restart_0").exists() && node.written("done").is_empty());
    assert_eq!((node.call(&[]), node.written("done").as_str()), (0, "daemon-reload\nrestart a\n"));
}
