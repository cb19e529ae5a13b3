//! A load on a machine that runs its installed system, where others may be working.

use groundcrew_durable::fault::ON_DISK;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Server, eventually};

use crate::drain_hooks::Node;
use crate::drains::ctl;
use crate::profiles::LOAD;

/// The profile with another leave than its own: what stands at its top, and what in its load.
fn with_leave(top: &str, stage: &str) -> String {
    let load = "name = \"CPUStress\"\n";
    LOAD.replace("in_service = true\n", top).replace(load, &format!("{load}{stage}"))
}

#[test]
fn a_load_without_leave_holds_at_the_claim_and_names_the_ways_out() {
    let server = Server::start();
    let run = server.create_run("n1", &with_leave("", ""));
    let mut machine = Machine::new(&server, &run, "m1");
    machine.start_with(&[(ON_DISK, "yes")]);
    let view = server.wait_for_state(&run, State::FailedHolding);
    assert_eq!(view.stages[0].attempts, 0, "{view:?}");
    let why = ctl(&server, &["run", "why", run.id.as_str()]);
    for part in
        ["CPUStress puts a load on the machine", "`in_service = true`", "`drain = true`", "live image"]
    {
        assert!(why.contains(part), "{why}");
    }
    server.order(&run, "cancel", "");

    let run = server.create_run("n1", &with_leave("", "in_service = true\n"));
    let mut machine = Machine::started(&server, &run, "m2");
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
}

#[test]
fn a_load_that_drains_the_node_starts_after_its_hook_and_the_node_comes_back_behind_it() {
    let server = Server::start();
    let node = Node::new();
    let run = server.create_run("n1", &with_leave("", "drain = true\n"));
    let mut machine = Machine::new(&server, &run, "m1").with_hooks(&node.hooks_text());
    machine.start();
    node.wait_for(&["before"]);
    server.wait_for_event(&run, "waits_for_drain");
    assert!(machine.load.is_quiet(), "the load began in a node that was not drained");
    node.lets_end("before", 0);
    machine.load.started();
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
    node.wait_for(&["before", "after"]);
    node.lets_end("after", 0);
    eventually("a node that is given back", || (node.succeeded() == ["before", "after"]).then_some(()));
}
