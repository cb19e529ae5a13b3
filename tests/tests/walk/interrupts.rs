//! Interrupts as stages of a run: services once each, and a reboot that is asked for only once the orchestrator knows of it.
//! What reboots here is a program that says that it was called, so that the machine never does.

use std::path::{Path, PathBuf};

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::limits::{REBOOT_DEADLINE_MS, REBOOTS_MISSED_MAX};
use groundcrew_protocol::operator::NodeView;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Server, eventually, programs};

/// A root with a shell and nothing else but `program`, where the agent of machine `m1` looks for programs.
pub fn root_with(server: &Server, program: &str, script: &str) -> PathBuf {
    assert!(rustix::process::geteuid().is_root(), "an interrupt needs root: its commands change their root");
    let root = server.beside("root");
    programs::make_root(&root);
    put_program(server, &root, program, script);
    root
}

/// Puts another program there.
pub fn put_program(server: &Server, root: &Path, program: &str, script: &str) {
    // Within the root by the same path as outside it.
    let folder = server.beside("m1").join("bin");
    let folder = root.join(folder.strip_prefix("/").unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    programs::write_program(&folder.join(program), script);
}

pub fn profile(root: &Path, settings: &str) -> String {
    let root = root.display();
    format!(
        "name = \"interrupts\"\n[[stage]]\nname = \"Interrupt:it\"\n[[interrupt]]\nname = \"it\"\n\
         root_mount = \"{root}\"\n{settings}\n"
    )
}

pub fn calls(root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(root.join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn services_are_restarted_in_order_and_one_that_fails_holds_until_it_is_mended() {
    let server = Server::start();
    let script = "#!/bin/sh\necho \"$*\" >>/calls\n[ \"$2\" != ailing ] || [ -e /mended ]\n";
    let root = root_with(&server, "systemctl", script);
    let services = "type = \"service_restart\"\nservices = [\"well\", \"ailing\"]";
    let run = server.create_run("n1", &profile(&root, services));
    let mut machine = Machine::new(&server, &run, "m1").with_interrupts();
    machine.start();
    let held = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(held.stages[0].verdict, Some(Verdict::Fail), "{}", held.summary.reason);
    let failed = "INTERRUPT FAILED: ['systemctl', 'restart', 'ailing'] return_code: 1";
    assert!(held.summary.reason.contains(failed), "{}", held.summary.reason);
    assert_eq!(calls(&root), ["daemon-reload", "restart well", "restart ailing"]);
    std::fs::write(root.join("mended"), "").unwrap();
    server.order(&run, "retry", "");
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!((view.stages[0].attempts, view.stages[0].verdict), (2, Some(Verdict::Pass)));
    assert!(machine.stop().success());
}

/// Time in which a reboot must be seen passes where a test says so.
const PAST_THE_REBOOT_MS: u64 = 1_900_000;

fn asked(root: &Path, times: usize) {
    eventually("the request", || (calls(root).len() >= times).then_some(()));
}

#[test]
fn a_reboot_is_asked_for_once_it_is_acknowledged_and_one_that_never_comes_holds() {
    let server = Server::start_with_steps_of(PAST_THE_REBOOT_MS);
    let script =
        "#!/bin/sh\necho \"$GROUNDCREW_REBOOT_WAIT_S $SKYHOOK_RESOURCE_ID\" >>/told; echo reboot >>/calls";
    let root = root_with(&server, "reboot", script);
    let run = server.create_run("n1", &profile(&root, "type = \"node_restart\""));
    let mut machine = Machine::new(&server, &run, "m1").with_interrupts();
    machine.start();
    asked(&root, 1);
    // The stage waits for the reboot, and not the package agent, whose time is the stage's own.
    let told = std::fs::read_to_string(root.join("told")).unwrap();
    assert_eq!(told, format!("0 groundcrew-{}-0-1_interrupt-it_0\n", run.id));
    let rebooting = server.view(&run).summary.rebooting.expect("it waits for a reboot");
    assert_eq!((rebooting.stage.to_string().as_str(), rebooting.attempt.0), ("Interrupt:it", 1));
    assert_eq!(rebooting.until.0 - rebooting.asked.0, i64::try_from(REBOOT_DEADLINE_MS).unwrap());
    let node = || server.get::<NodeView>("/api/v1/nodes/n1").rebooting;
    assert_eq!(node(), Some(rebooting));
    // The stage's own deadline is for the asking. What was asked for is the orchestrator's to wait for.
    server.pass_time();
    let held = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(held.summary.reason, "a reboot was asked for and not seen within 30m");
    assert_eq!((held.summary.rebooting, node()), (None, None));
    eventually("the end of the stage", || server.view(&run).directives.is_empty().then_some(()));
    assert_eq!((calls(&root), server.count_of(&run, "intent")), (vec!["reboot".to_owned()], 1));
    assert!(machine.stop().success());
}

#[test]
fn an_agent_back_under_the_same_boot_asks_again_so_often_and_no_more() {
    let server = Server::start_with_steps_of(PAST_THE_REBOOT_MS);
    let root = root_with(&server, "reboot", "#!/bin/sh\necho reboot >>/calls\n");
    let run = server.create_run("n1", &profile(&root, "type = \"node_restart\""));
    let mut machine = Machine::new(&server, &run, "m1").with_interrupts();
    for times in 1..=REBOOTS_MISSED_MAX {
        machine.start();
        asked(&root, times as usize);
        let missed = server.view(&run).summary.rebooting.map(|rebooting| rebooting.missed);
        assert_eq!(missed, Some(times - 1));
        // The SIGTERM of a reboot that was asked for ends it with 0.
        assert!(machine.stop().success());
    }
    machine.start();
    let held = server.wait_for_state(&run, State::FailedHolding);
    let why = "a reboot was asked for 3 times and the machine is still in the same boot";
    assert_eq!(held.summary.reason, why);
    assert_eq!((server.count_of(&run, "reboot_missed"), server.count_of(&run, "crashed")), (3, 0));
    assert_eq!(calls(&root).len(), 3);
    assert!(machine.stop().success());
}

#[test]
fn a_machine_that_allows_neither_reboots_nor_services_is_left_alone() {
    for (settings, flag) in [
        ("type = \"node_restart\"", "--allow-reboot"),
        ("type = \"service_restart\"\nservices = [\"well\"]", "--allow-services"),
    ] {
        let server = Server::start();
        let root = root_with(&server, "systemctl", "#!/bin/sh\necho called >>/calls\n");
        let run = server.create_run("n1", &profile(&root, settings));
        let mut machine = Machine::new(&server, &run, "m1");
        machine.start();
        let held = server.wait_for_state(&run, State::FailedHolding);
        assert_eq!(held.stages[0].verdict, Some(Verdict::Inconclusive));
        assert!(held.summary.reason.contains(flag), "{}", held.summary.reason);
        assert!(calls(&root).is_empty() && server.count_of(&run, "intent") == 0);
        assert!(machine.stop().success());
    }
}
