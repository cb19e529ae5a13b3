//! What steps do to the agent: endless lines, daemons that hold its pipes, signals to themselves; and what SIGTERM to the
//! agent does to them.

use std::fs;
use std::process::Stdio;

use rustix::fs::{CWD, FileType, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, effect};

/// The whole agent, from the banner on, stays below this; it is what a step may cost on a node.
const PEAK_KB_MAX: u64 = 10_000;

/// A device of the kernel's memory devices, which are the same everywhere.
fn add_device(place: &Place, name: &str, minor: u32) {
    fs::create_dir_all(place.at("dev")).unwrap();
    let device = rustix::fs::makedev(1, minor);
    mknodat(CWD, place.at("dev").join(name), FileType::CharacterDevice, 0o666.into(), device).unwrap();
}

#[test]
fn a_gigabyte_without_a_line_end_leaves_the_whole_agent_small() {
    let place = Place::new();
    place.add_program("/usr/bin/head");
    add_device(&place, "zero", 5);
    // The agent is looked at while the step is still there, which has by then written all but what a pipe holds.
    let wait = "echo begun >/effects/begun; while ! [ -e /effects/go ]; do :; done";
    place.package(&[("a.sh", &format!("/usr/bin/head -c 1G /dev/zero; {wait}"))]);
    let mut command = place.call("apply").env("SKYHOOK_AGENT_WRITE_LOGS", "false").into_command();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !place.at("effects/begun").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its step did");
        std::thread::yield_now();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    fs::write(place.at("effects/go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    println!("peak {peak} kB");
    // Unoptimised code is not what is shipped: its own pages alone are more.
    let max = if cfg!(debug_assertions) { 3 * PEAK_KB_MAX } else { PEAK_KB_MAX };
    assert!(peak < max, "{peak} kB");
}

#[test]
fn a_daemon_that_holds_the_pipe_is_left_running_and_stops_nothing() {
    let place = Place::new();
    // A shell gives its background processes an empty input.
    add_device(&place, "null", 3);
    let daemon =
        "(while ! [ -e /effects/go ]; do :; done; echo x >/effects/gone) & echo $! >/effects/pid; exit 0";
    place.package(&[("a.sh", daemon), ("b.sh", &effect("b.sh"))]);
    let outcome = place.call("apply").succeed();
    assert_eq!(outcome.said(), ["SUCEEDED: a.sh ", "SUCEEDED: b.sh "]);
    assert!(outcome.stderr.contains("WARNING:root:"), "{outcome:#?}");
    let pid: i32 = fs::read_to_string(place.at("effects/pid")).unwrap().trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    rustix::process::test_kill_process(pid).expect("it was left running");
    fs::write(place.at("effects/go"), "").unwrap();
    while !place.at("effects/gone").exists() {
        std::thread::yield_now();
    }
}

#[test]
fn a_step_that_kills_its_own_group_kills_nobody_else() {
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("HUP", 1)] {
        let place = Place::new();
        place.package(&[
            ("a.sh", &format!("{}; kill -{signal} 0; exit 0", effect("a.sh"))),
            ("b.sh", "exit 0"),
        ]);
        let outcome = place.call("apply").run();
        assert_eq!(outcome.exit, 1, "{outcome:#?}");
        assert_eq!(outcome.said(), [format!("FAILED: a.sh  -{number}")]);
        assert_eq!((place.flagged().len(), place.leftovers().len()), (0, 0));
    }
}

#[test]
fn sigterm_ends_a_step_that_outlasts_its_grace_with_minus_fifteen() {
    let place = Place::new();
    let script = format!("{}; echo begun >/effects/begun; while :; do :; done", effect("a.sh"));
    place.package(&[("a.sh", &script), ("b.sh", &effect("b.sh"))]);
    let mut call = place.call("apply").env("SKYHOOK_AGENT_TERM_GRACE_S", "0").start();
    call.until_exists(&place.at("effects/begun"));
    call.signal(Signal::TERM);
    let outcome = call.end();
    assert_eq!(outcome.exit, 1, "{outcome:#?}");
    // Not -1, 143 or 255.
    assert_eq!(outcome.said(), ["FAILED: a.sh  -15"]);
    assert_eq!((place.flagged().len(), place.leftovers().len()), (0, 0));
    assert_eq!(place.effects(), [("a.sh".to_owned(), 1)].into());
}

#[test]
fn sigterm_lets_a_step_end_in_its_grace_and_starts_no_other() {
    let place = Place::new();
    let script = "echo begun >/effects/begun; while ! [ -e /effects/go ]; do :; done; ".to_owned();
    place.package(&[("a.sh", &(script + &effect("a.sh"))), ("b.sh", &effect("b.sh"))]);
    let mut call = place.call("apply").env("SKYHOOK_AGENT_TERM_GRACE_S", "600").start();
    call.until_exists(&place.at("effects/begun"));
    call.signal(Signal::TERM);
    fs::write(place.at("effects/go"), "").unwrap();
    let outcome = call.end();
    assert_eq!((outcome.exit, outcome.said()), (1, vec!["SUCEEDED: a.sh "]));
    assert_eq!(place.flagged(), ["a.sh"]);
    place.call("apply").succeed();
    assert_eq!(place.effects(), ["a.sh", "b.sh"].map(|name| (name.to_owned(), 1)).into());
}

#[test]
fn sigterm_in_the_last_step_that_then_ends_well_leaves_nothing_undone() {
    let place = Place::new();
    let script = "echo begun >/effects/begun; while ! [ -e /effects/go ]; do :; done";
    place.package(&[("a.sh", script)]);
    let mut call = place.call("apply").start();
    call.until_exists(&place.at("effects/begun"));
    call.signal(Signal::TERM);
    fs::write(place.at("effects/go"), "").unwrap();
    let outcome = call.end();
    assert_eq!((outcome.exit, outcome.said()), (0, vec!["SUCEEDED: a.sh "]));
}

#[test]
fn a_second_call_for_a_package_waits_for_its_turn() {
    let place = Place::new();
    let script = "echo begun >/effects/begun; while ! [ -e /effects/go ]; do :; done; ".to_owned();
    place.package(&[("a.sh", &(script + &effect("a.sh")))]);
    let mut first = place.call("apply").start();
    first.until_exists(&place.at("effects/begun"));
    let second = place.call("apply").start();
    // Asked to end while it waits, it has run nothing.
    kill_process(second.pid(), Signal::TERM).unwrap();
    assert!(matches!(second.end().exit, 1 | -15));
    let third = place.call("apply").start();
    fs::write(place.at("effects/go"), "").unwrap();
    assert_eq!((first.end().exit, third.end().exit), (0, 0));
    assert_eq!(place.effects(), [("a.sh".to_owned(), 1)].into());
}
