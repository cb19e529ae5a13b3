//! Reboots that are asked for and do not come at once, by the built agent: what SIGTERM makes of them, and what systemd
//! says. `reboot` and `systemctl` are scripts in a root of their own.

mod shell_root;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

/// What has not come after this never comes.
const STUCK: Duration = Duration::from_secs(120);
/// Nothing tells that a file has come.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// Longer than any test.
const LONG_S: &str = "86400";
const NODE_RESTART: &str = "eyJ0eXBlIjogIm5vZGVfcmVzdGFydCJ9";
const ID: &str = "customer-f5a1d42e-74e5-4606-8bbc-b504fbe0074d-1_sample_1.0.0";
const SKIPPED: &str = "Skipping interrupt node_restart_0 because it was already run for customer-";
/// A program that is there until somebody ends it.
const BLOCK: &str = "read x <>/fifo";

/// A node's root mount, in which a shell runs and nothing else is.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Node {
        assert!(rustix::process::geteuid().is_root(), "entering a root mount needs root");
        let node = Node { folder: tempfile::tempdir().unwrap() };
        shell_root::make_root(&node.root());
        mknodat(CWD, node.root().join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        node
    }

    fn with_reboot(script: &str) -> Node {
        let node = Node::new();
        node.program("reboot", script);
        node
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn program(&self, name: &str, script: &str) {
        let folder = self.root().join("programs");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn start(&self, settings: &[(&str, &str)]) -> Child {
        self.command_in("/", settings).spawn().unwrap()
    }

    fn command_in(&self, copy_dir: &str, settings: &[(&str, &str)]) -> Command {
        let own = |name| File::create(self.folder.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_groundcrew"));
        command
            .args(["package", "interrupt"])
            .arg(self.root())
            .args([copy_dir, NODE_RESTART])
            .env_clear()
            // Nothing outside of the root can be meant.
            .env("PATH", "/programs")
            .env("SKYHOOK_RESOURCE_ID", ID)
            .env("COPY_RESOLV", "false")
            // Where it is not heeded, a test would last for longer than anybody waits.
            .env("SKYHOOK_AGENT_TERM_GRACE_S", LONG_S)
            .envs(settings.iter().copied())
            .stdout(own("stdout"))
            .stderr(own("stderr"));
        command
    }

    /// A call to its end: its exit status.
    fn call(&self, settings: &[(&str, &str)]) -> i32 {
        end_of(self.start(settings))
    }

    fn said(&self, stream: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(stream)).unwrap_or_default()
    }

    fn flag(&self) -> PathBuf {
        self.root().join(format!("etc/skyhook/interrupts/flags/{ID}/node_restart_0.complete"))
    }

    /// The record's state and how often was asked.
    fn record(&self) -> Option<(String, u64)> {
        let text = std::fs::read(self.flag().with_extension("complete.boot")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        Some((record["state"].as_str().unwrap().to_owned(), record["asks"].as_u64().unwrap()))
    }

    fn is_asked(&self) -> bool {
        self.record().is_some_and(|(state, _)| state == "asked")
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < STUCK, "never came: {what}");
        std::thread::sleep(ASK_AGAIN);
    }
}

fn send_sigterm(to: &Child) {
    kill_process(Pid::from_raw(to.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
}

fn end_of(mut child: Child) -> i32 {
    let mut status = None;
    eventually("the agent's end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code().expect("it ends by itself")
}

#[test]
fn sigterm_while_the_command_runs_ends_the_agent_with_0_and_keeps_the_flag() {
    let ways = [
        ("dies of it", String::new()),
        ("ends in its own way", "trap 'exit 3' TERM; ".to_owned()),
        ("ignores it", "trap '' TERM; ".to_owned()),
    ];
    for (what, trap) in ways {
        let node = Node::with_reboot(&format!("{trap}: >/begun; while :; do {BLOCK}; done"));
        let agent = node.start(&[("GROUNDCREW_REBOOT_WAIT_S", LONG_S)]);
        eventually("the command", || node.root().join("begun").exists());
        assert_eq!(node.record(), Some(("intended".to_owned(), 1)), "{what}");
        send_sigterm(&agent);
        assert_eq!(end_of(agent), 0, "{what}: {}", node.said("stdout"));
        assert!(node.flag().exists(), "{what}");
        assert_eq!(node.record(), Some(("asked".to_owned(), 1)), "{what}");
    }
}

#[test]
fn a_command_is_not_started_once_sigterm_has_come() {
    let node = Node::with_reboot(": >/begun");
    // The agent has a line to say between the flag and the command, and nobody takes it.
    let (mut unread, mut full) = std::io::pipe().unwrap();
    // As large as the agent makes it, or there would be room again.
    rustix::pipe::fcntl_setpipe_size(&full, 1 << 20).unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
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
fn a_request_that_is_refused_because_one_before_it_was_heeded_is_no_failure() {
    for (state, exit) in [("stopping", 0), ("running", 1)] {
        let node = Node::with_reboot(&format!(": >/begun; {BLOCK}"));
        let mut agent = node.start(&[]);
        eventually("the command", || node.root().join("begun").exists());
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert_eq!(node.record(), Some(("intended".to_owned(), 1)));
        let flag = std::fs::read(node.flag()).unwrap();
        // As logind does while another shutdown is in progress.
        node.program("reboot", "exit 1");
        node.program("systemctl", &format!("echo {state}"));
        assert_eq!(node.call(&[]), exit, "{state}: {}", node.said("stderr"));
        if exit == 0 {
            assert_eq!(std::fs::read(node.flag()).unwrap(), flag);
            assert_eq!(node.record(), Some(("asked".to_owned(), 1)));
        } else {
            assert!(!node.flag().exists());
            assert_eq!(node.record(), Some(("intended".to_owned(), 1)), "what was asked before still counts");
            assert!(node.said("stdout").contains("INTERRUPT FAILED: ['reboot'] return_code: 1"));
        }
    }
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
