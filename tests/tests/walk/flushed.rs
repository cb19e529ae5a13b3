//! A live image forgets everything at a reboot: what it holds is the orchestrator's before it may ask for one.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::operator::RunView;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::HomeKind;
use groundcrew_tests::harness::gate::Gate;
use groundcrew_tests::harness::{Machine, Server, eventually};

use crate::interrupts::{calls, put_program, root_with};

/// Long lines that a stage prints. Each is more than an agent sends at a time otherwise: heartbeats, outcomes, short lines.
const LINES: usize = 40;
const LINE_BYTES: usize = 8_000;
const HELD_BYTES: u64 = 7_000;
/// The evidence of a stage is its last lines.
const SHORT_LINES: usize = 20;

#[test]
fn a_live_image_asks_for_a_reboot_once_all_that_it_holds_has_arrived() {
    let server = Server::start();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = restart ] || exit 0\nline=x; while [ ${{#line}} -lt {LINE_BYTES} ]; do line=$line$line; done\n\
         n=0; while [ $n -lt {LINES} ]; do n=$((n+1)); echo \"long $n $line\"; done\n\
         while [ $n -lt {} ]; do n=$((n+1)); echo \"short $n\"; done\n",
        LINES + SHORT_LINES
    );
    let root = root_with(&server, "systemctl", &script);
    put_program(&server, &root, "reboot", "#!/bin/sh\necho reboot >>/calls\n");
    let root_mount = format!("root_mount = \"{}\"", root.display());
    let profile = format!(
        "name = \"flushed\"\n[[stage]]\nname = \"Interrupt:talk\"\n[[stage]]\nname = \"Interrupt:it\"\n\
         [[interrupt]]\nname = \"talk\"\ntype = \"service_restart\"\nservices = [\"a\"]\n{root_mount}\n\
         [[interrupt]]\nname = \"it\"\ntype = \"node_restart\"\n{root_mount}\n"
    );
    let run = server.create_run("n1", &profile);
    let gate = Gate::before_what_is_sent(&server, HELD_BYTES);
    let machine = Machine::new(&server, &run, "m1").with_home_in_memory().with_interrupts();
    let mut machine = machine.with_url(gate.url());
    machine.start();
    gate.wait_held();
    // The stage before has passed, its outcome is here, and the next one wants to reboot; its log hangs on the way.
    let has_ended = |view: &RunView| view.summary.state == State::FailedHolding;
    let view = server.wait_for(&run, "the stage that waits for leave", |view| {
        view.activity.contains("rebooting: waits until the orchestrator knows of it") || has_ended(view)
    });
    assert_eq!(view.home, Some(HomeKind::Volatile));
    assert_eq!(view.stages[0].verdict, Some(Verdict::Pass));
    let talk = Stage::from("Interrupt:talk");
    let arrived = || {
        let is_of_it = |line: &&String| line.contains("long ") || line.contains("short ");
        server.log(&run, Some(&talk)).iter().filter(is_of_it).count()
    };
    assert!(arrived() < LINES + SHORT_LINES, "something is held");
    assert_eq!((server.count_of(&run, "intent"), calls(&root)), (0, vec![]));
    gate.cut(u64::MAX);
    let view = server.wait_for(&run, "the intent, or that it took too long", |view| {
        view.summary.rebooting.is_some() || has_ended(view)
    });
    if view.summary.rebooting.is_none() {
        // This machine stood still for a minute, and what the image holds had not arrived by then: it did not reboot.
        let why = "what this volatile home holds has not arrived at the orchestrator in time";
        assert!(view.summary.reason.contains(why), "{}", view.summary.reason);
        server.order(&run, "retry", "");
        server.wait_for(&run, "the intent", |view| view.summary.rebooting.is_some());
    }
    // It was all here before the intent was.
    assert_eq!(arrived(), LINES + SHORT_LINES);
    eventually("the request", || (!calls(&root).is_empty()).then_some(()));
    assert_eq!(server.count_of(&run, "intent"), 1);
    assert!(machine.stop().success());
}
