//! What is asked of a machine, how often, and what is made of a request that does not end well.

use crate::node::{BLOCK, KILLED_BEFORE_THE_COMMAND, LONG_S, NO_GRACE, Node, SKIPPED, eventually};

#[test]
fn a_request_is_noted_once_its_command_runs_and_not_at_its_end() {
    let node = Node::with_reboot(&format!(": >/begun; {BLOCK}"));
    let mut agent = node.start(&[]);
    eventually("the note", || node.is_asked());
    eventually("the command", || node.root().join("begun").exists());
    agent.kill().unwrap();
    agent.wait().unwrap();
    // Whoever comes after it skips, as long as the grace lasts.
    assert_eq!(node.call(&[]), 0);
    assert!(node.said("stdout").contains(SKIPPED), "{}", node.said("stdout"));
    assert_eq!(node.record(), Some(("asked".to_owned(), 1)));
}

#[test]
fn what_was_only_intended_is_asked_for_at_once() {
    let node = Node::with_reboot("echo x >>/asks");
    assert_eq!(node.call(&[KILLED_BEFORE_THE_COMMAND]), -9);
    let flag = std::fs::read(node.flag()).unwrap();
    assert_eq!((node.record(), node.written("asks").as_str()), (Some(("intended".to_owned(), 1)), ""));
    assert_eq!(node.call(&[]), 0);
    assert!(!node.said("stdout").contains(SKIPPED));
    assert_eq!((node.record(), node.written("asks").as_str()), (Some(("asked".to_owned(), 1)), "x\n"));
    assert_eq!(std::fs::read(node.flag()).unwrap(), flag);
}

/// logind refuses a request while a shutdown is in progress, be it one that this very request began.
#[test]
fn a_request_that_fails_on_a_machine_that_goes_down_is_no_failure() {
    for is_first in [true, false] {
        for (state, exit) in [("stopping", 0), ("running", 1)] {
            let node = Node::with_reboot("exit 1");
            node.program("systemctl", &format!("echo {state}"));
            if !is_first {
                assert_eq!(node.call(&[KILLED_BEFORE_THE_COMMAND]), -9);
                assert_eq!(node.record(), Some(("intended".to_owned(), 1)));
            }
            let flag = std::fs::read(node.flag()).ok();
            let what = format!("{state}, first: {is_first}");
            assert_eq!(node.call(&[]), exit, "{what}: {}", node.said("stderr"));
            if exit == 0 {
                assert_eq!(node.record(), Some(("asked".to_owned(), 1)), "{what}");
                assert!(
                    node.flag().exists()
                        && flag.is_none_or(|flag| flag == std::fs::read(node.flag()).unwrap())
                );
                continue;
            }
            assert!(!node.flag().exists(), "{what}");
            let counted = (!is_first).then(|| ("intended".to_owned(), 1));
            assert_eq!(node.record(), counted, "{what}: what was asked before still counts");
            assert!(node.said("stdout").contains("INTERRUPT FAILED: ['reboot'] return_code: 1"));
        }
    }
}

/// What a reboot ends, it ends with SIGTERM, the command that asked for it among them. No other end is one of those.
#[test]
fn of_all_failures_of_a_request_sigterm_alone_keeps_its_flag() {
    for (script, code) in [("kill -TERM $$", -15), ("kill -KILL $$", -9), ("exit 15", 15), ("exit 143", 143)]
    {
        let node = Node::with_reboot(script);
        let is_kept = code == -15;
        assert_eq!(node.call(&[]), i32::from(!is_kept), "{script}");
        let failed = format!("INTERRUPT FAILED: ['reboot'] return_code: {code}");
        assert_eq!(node.said("stdout").contains(&failed), !is_kept, "{script}: {}", node.said("stdout"));
        assert_eq!(node.flag().exists(), is_kept, "{script}");
        assert_eq!(node.record(), is_kept.then(|| ("asked".to_owned(), 1)), "{script}");
        if is_kept {
            assert_eq!(node.call(&[]), 0);
            assert!(node.said("stdout").contains(SKIPPED));
        }
    }
}

#[test]
fn in_a_pod_a_request_that_comes_to_nothing_is_no_success() {
    let node = Node::with_reboot("echo x >>/asks");
    let in_pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("GROUNDCREW_REBOOT_GRACE_S", "0.1")];
    assert_eq!(node.call(&in_pod), 1);
    assert!(node.said("stderr").contains("s ago, not seen yet"));
    assert_eq!((node.flag().exists(), node.record()), (true, Some(("asked".to_owned(), 1))));
    // By then the grace is over, too.
    assert_eq!(node.call(&in_pod), 1);
    assert!(node.said("stderr").contains("its flag is taken off, and the next pass asks again"));
    assert_eq!((node.flag().exists(), node.written("asks").as_str()), (false, "x\n"));
    // Elsewhere the exit status is the reference's.
    assert_eq!(node.call(&in_pod[1..]), 0);
    assert_eq!(node.written("asks"), "x\nx\n");
}

#[test]
fn a_request_that_fails_where_there_is_no_systemd_says_nothing_of_it() {
    let node = Node::with_reboot("exit 1");
    assert_eq!(node.call(&[]), 1);
    assert_eq!((node.flag().exists(), node.record()), (false, None));
    assert_eq!(node.said("stderr"), "");
}

/// It may have asked, so that a reboot may come later: only its grace tells that none will.
#[test]
fn a_request_that_hangs_is_ended_and_asked_for_again_after_its_grace() {
    for (state, exit) in [("running", 1), ("stopping", 0)] {
        let node = Node::with_reboot(&format!("echo x >>/asks; while :; do {BLOCK}; done"));
        node.program("systemctl", &format!("echo {state}"));
        // Long enough that it has begun on whatever machine: it is not ended before it is noted.
        let hangs = [("GROUNDCREW_REBOOT_COMMAND_S", "0.5"), ("GROUNDCREW_REBOOT_WAIT_S", "0")];
        assert_eq!(node.call(&hangs), exit, "{state}");
        assert_eq!((node.flag().exists(), node.record()), (true, Some(("asked".to_owned(), 1))), "{state}");
        if exit == 1 {
            let said = node.said("stderr");
            let expected = "`reboot` had not ended after 0.5 s (GROUNDCREW_REBOOT_COMMAND_S), and was ended: whether a \
                            reboot was asked for is not known, and the flag stays";
            assert!(said.contains(expected), "{said}");
            assert_eq!((node.call(&hangs), node.record()), (0, Some(("asked".to_owned(), 1))));
            assert!(node.said("stdout").contains(SKIPPED));
            assert_eq!((node.call(&[NO_GRACE]), node.flag().exists()), (1, false));
            assert_eq!((node.call(&hangs), node.record()), (1, Some(("asked".to_owned(), 2))));
        }
    }
}

#[test]
fn a_command_that_cannot_be_run_at_all_leaves_no_flag() {
    let node = Node::with_reboot("exit 0");
    std::fs::remove_file(node.root().join("programs/reboot")).unwrap();
    assert_eq!(node.call(&[("GROUNDCREW_REBOOT_WAIT_S", LONG_S)]), 1);
    assert!(node.said("stdout").contains("INTERRUPT FAILED: ['reboot'] return_code: 1"));
    assert_eq!((node.flag().exists(), node.record()), (false, None));
}

#[test]
fn the_grace_does_not_lapse_while_systemd_says_stopping() {
    let node = Node::with_reboot("exit 0");
    let lapses = [("GROUNDCREW_REBOOT_GRACE_S", "0"), ("GROUNDCREW_REBOOT_LIMIT", "3")];
    assert_eq!(node.call(&lapses), 0);
    let flag = std::fs::read(node.flag()).unwrap();
    node.program("systemctl", "[ \"$*\" = is-system-running ] && echo stopping; exit 1");
    assert_eq!(node.call(&lapses), 0);
    assert!(node.said("stdout").contains(SKIPPED));
    assert_eq!(std::fs::read(node.flag()).unwrap(), flag);

    // It lapses where systemd says something else, is not asked where nothing lapses, and lapses without any.
    node.program("systemctl", "echo asked >>/asked; echo degraded; exit 1");
    assert_eq!(node.call(&lapses), 1);
    assert!(!node.flag().exists());
    assert_eq!(node.call(&lapses), 0);
    assert_eq!(std::fs::read_to_string(node.root().join("asked")).unwrap(), "asked\n");
    std::fs::remove_file(node.root().join("programs/systemctl")).unwrap();
    assert_eq!(node.call(&lapses), 1);
    let said = node.said("stderr");
    assert!(said.contains("systemctl is-system-running: could not start systemctl"), "{said}");
    assert!(!node.flag().exists());
    assert_eq!(node.record(), Some(("asked".to_owned(), 2)));
}

#[test]
fn a_machine_that_never_reboots_is_asked_so_often_and_no_more() {
    let node = Node::with_reboot("echo x >>/asks");
    node.program("systemctl", "echo running");
    let settings = [
        ("GROUNDCREW_REBOOT_GRACE_S", "0"),
        ("GROUNDCREW_REBOOT_LIMIT", "2"),
        ("GROUNDCREW_REBOOT_WAIT_S", "0.01"),
    ];
    for pass in 1..=2 {
        assert_eq!(node.call(&settings), 1);
        assert!(node.said("stderr").contains("s ago, not seen yet"));
        assert!(node.flag().exists());
        assert_eq!(node.record(), Some(("asked".to_owned(), pass)));
        assert_eq!(node.call(&settings), 1);
        assert!(node.said("stderr").contains("and the machine never rebooted; its flag is taken off"));
        assert!(!node.flag().exists());
    }
    for _pass in 0..2 {
        assert_eq!(node.call(&settings), 1);
        let record = node.flag().with_extension("complete.boot");
        let said = node.said("stderr");
        assert!(said.contains(&format!("then remove {} to begin anew", record.display())), "{said}");
        assert!(!node.flag().exists());
    }
    assert_eq!(std::fs::read_to_string(node.root().join("asks")).unwrap(), "x\nx\n");
    std::fs::remove_file(node.flag().with_extension("complete.boot")).unwrap();
    assert_eq!(node.call(&[("GROUNDCREW_REBOOT_LIMIT", "2")]), 0);
    assert_eq!(node.record(), Some(("asked".to_owned(), 1)));
}
