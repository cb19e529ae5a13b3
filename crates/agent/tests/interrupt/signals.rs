//! SIGTERM, at each point at which it may come.

use std::io::Read;

use serde_json::json;

use crate::node::{
    BLOCK, LONG_S, NO_GRACE, Node, SKIPPED, end_of, eventually, full_pipe, heeds_sigterm, send_sigterm,
};

/// Commands that are still there when SIGTERM comes, and how they take it.
fn ways() -> [(&'static str, String); 3] {
    let blocks = |trap: &str| format!("{trap}: >/begun; while :; do {BLOCK}; done");
    [
        ("dies of it", blocks("")),
        ("ends in its own way", blocks("trap 'exit 3' TERM; ")),
        ("ignores it", blocks("trap '' TERM; ")),
    ]
}

/// Has SIGTERM come while the command runs. The agent's exit status.
fn sigterm_while_it_runs(node: &Node) -> i32 {
    let agent = node.start(&[("GROUNDCREW_REBOOT_WAIT_S", LONG_S)]);
    eventually("the command", || node.root().join("begun").exists() && node.is_asked());
    send_sigterm(&agent);
    end_of(agent)
}

#[test]
fn sigterm_while_the_command_runs_and_the_machine_goes_down_ends_the_agent_with_0() {
    for (what, script) in ways() {
        let node = Node::with_reboot(&script);
        node.program("systemctl", "echo stopping; exit 1");
        assert_eq!(sigterm_while_it_runs(&node), 0, "{what}: {}", node.said("stderr"));
        assert!(node.flag().exists(), "{what}");
        assert_eq!(node.record(), Some(("asked".to_owned(), 1)), "{what}");
    }
}

#[test]
fn sigterm_while_the_command_runs_on_a_machine_that_stays_up_is_no_request_that_was_made() {
    for (what, script) in ways() {
        let node = Node::with_reboot(&script);
        node.program("systemctl", "echo running");
        assert_eq!(sigterm_while_it_runs(&node), 1, "{what}: {}", node.said("stdout"));
        let said = node.said("stderr");
        assert!(said.contains("whether a reboot was asked for is not known"), "{what}: {said}");
        // It may have been made all the same: the flag and its grace stand, and what did not come is asked for again.
        assert!(node.flag().exists(), "{what}");
        assert_eq!(node.record(), Some(("asked".to_owned(), 1)), "{what}");
        node.program("reboot", "echo x >>/asks");
        assert_eq!(node.call(&[]), 0);
        assert!(node.said("stdout").contains(SKIPPED));
        assert_eq!((node.call(&[NO_GRACE]), node.written("asks").as_str()), (1, ""), "{what}");
        assert_eq!((node.call(&[NO_GRACE]), node.written("asks").as_str()), (0, "x\n"), "{what}");
        assert_eq!(node.record(), Some(("asked".to_owned(), 2)), "{what}");
    }
}

/// Once its command was started a reboot counts as asked for, and a SIGTERM as the reboot's, where nobody knows better.
#[test]
fn sigterm_while_the_command_runs_where_there_is_no_systemd_ends_the_agent_with_0_and_the_grace_decides() {
    for (what, script) in ways() {
        let node = Node::with_reboot(&script);
        if what == "dies of it" {
            node.program("systemctl", "echo offline; exit 1");
        }
        assert_eq!(sigterm_while_it_runs(&node), 0, "{what}: {}", node.said("stderr"));
        assert_eq!((node.flag().exists(), node.record()), (true, Some(("asked".to_owned(), 1))), "{what}");
        node.program("reboot", "echo x >>/asks");
        assert_eq!((node.call(&[NO_GRACE]), node.written("asks").as_str()), (1, ""), "{what}");
        assert_eq!((node.call(&[NO_GRACE]), node.written("asks").as_str()), (0, "x\n"), "{what}");
    }
}

#[test]
fn a_command_is_not_started_once_sigterm_has_come() {
    let node = Node::with_reboot(": >/begun");
    // The agent has a line to say between the flag and the command, and nobody takes it.
    let (mut unread, full) = full_pipe();
    let agent = node.command_in("/no/such/folder", &[]).stderr(full).spawn().unwrap();
    eventually("the flag", || node.flag().exists());
    send_sigterm(&agent);
    assert_eq!(end_of(agent), 1);
    assert!(!node.root().join("begun").exists());
    assert!(!node.flag().exists());
    assert_eq!(node.record(), None);
    let mut said = Vec::new();
    unread.read_to_end(&mut said).unwrap();
}

#[test]
fn sigterm_while_waiting_for_the_reboot_ends_the_agent_with_0() {
    let node = Node::with_reboot("exit 0");
    let waits = [("GROUNDCREW_REBOOT_WAIT_S", LONG_S)];
    let agent = node.start(&waits);
    eventually("the request", || node.is_asked());
    send_sigterm(&agent);
    assert_eq!(end_of(agent), 0);
    let flag = std::fs::read(node.flag()).unwrap();

    // One that finds it asked for waits as well.
    let agent = node.start(&waits);
    eventually("the wait", || node.said("stderr").contains("the machine has not rebooted yet"));
    send_sigterm(&agent);
    assert_eq!(end_of(agent), 0);
    assert!(node.said("stdout").contains(SKIPPED));
    assert_eq!(std::fs::read(node.flag()).unwrap(), flag);
    assert_eq!(node.record(), Some(("asked".to_owned(), 1)));
}

#[test]
fn sigterm_while_systemd_is_asked_means_that_the_machine_goes_down() {
    let node = Node::with_reboot("exit 0");
    let lapses = [("GROUNDCREW_REBOOT_GRACE_S", "0")];
    assert_eq!(node.call(&lapses), 0);
    node.program("systemctl", &format!(": >/begun; {BLOCK}"));
    let agent = node.start(&lapses);
    eventually("the question", || node.root().join("begun").exists());
    send_sigterm(&agent);
    assert_eq!(end_of(agent), 0);
    assert!(node.flag().exists());
    assert!(node.said("stdout").contains(SKIPPED));
}

/// A call that has SIGTERM before it looks at anything: nobody takes its first line until then.
fn with_sigterm_at_its_start(node: &Node, settings: &[(&str, &str)]) -> i32 {
    let (mut unread, full) = full_pipe();
    let agent = node.command_in("/", settings).stdout(full).spawn().unwrap();
    eventually("the agent", || heeds_sigterm(&agent));
    send_sigterm(&agent);
    let reader = std::thread::spawn(move || unread.read_to_end(&mut Vec::new()));
    let exit = end_of(agent);
    reader.join().unwrap().unwrap();
    exit
}

/// Whoever finds a reboot asked for on its way may get the reboot's SIGTERM at once.
#[test]
fn sigterm_at_the_start_of_a_call_makes_a_failure_of_what_is_undone_alone() {
    let node = Node::with_reboot("echo x >>/done");
    for settings in [&[][..], &[("GROUNDCREW_REBOOT_WAIT_S", LONG_S)]] {
        assert_eq!(with_sigterm_at_its_start(&node, settings), 1, "it is not asked for");
        assert_eq!((node.flag().exists(), node.record(), node.written("done").as_str()), (false, None, ""));
    }
    assert_eq!(node.call(&[]), 0);
    let asked = Some(("asked".to_owned(), 1));
    for settings in [&[][..], &[("GROUNDCREW_REBOOT_WAIT_S", LONG_S)], &[NO_GRACE]] {
        assert_eq!(with_sigterm_at_its_start(&node, settings), 0, "it was asked for: {settings:?}");
        assert_eq!(
            (node.flag().exists(), node.record(), node.written("done").as_str()),
            (true, asked.clone(), "x\n")
        );
    }

    let node = Node::new(json!({ "type": "service_restart", "services": ["a"] }));
    node.program("systemctl", "echo \"$*\" >>/done");
    assert_eq!(with_sigterm_at_its_start(&node, &[]), 1);
    assert!(!node.flag_of("service_restart_0").exists() && node.written("done").is_empty());
    assert_eq!(node.call(&[]), 0);
    assert_eq!(with_sigterm_at_its_start(&node, &[]), 0, "all of it was done");
    assert_eq!(node.written("done"), "daemon-reload\nrestart a\n");
}
