//! Drains with a SIGKILL at each step: of the writer, of the agent, and of both. Whoever comes next finds a marker that is
//! whole or none, what a hook owes is undone, and nobody is told of an idle that is none.

use std::os::unix::process::ExitStatusExt;

use groundcrew_durable::points as of_files;
use groundcrew_protocol::drain::DrainState;
use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Server, eventually};
use serde_json::Value;

use crate::drain_commands::{Alone, drain, says};
use crate::drain_hooks::Node;
use crate::drains::{ctl, stands, wait_for_drain};

/// What arms one point of a process.
const FAULT: &str = groundcrew_durable::fault::VARIABLE;
const SIGKILL: i32 = 9;

/// The steps of a call that changes the marker, in which it may be killed.
fn steps(operations: &[&str]) -> Vec<&'static str> {
    let is_of = |name: &&str| operations.iter().any(|operation| name.starts_with(operation));
    of_files::ALL.iter().map(|point| point.name()).filter(is_of).collect()
}

/// Calls `groundcrew drain` and has it killed at `point`. False where it does not come there, and then it must succeed.
fn is_killed_at(alone: &Alone, point: &str, words: &[&str]) -> bool {
    let output = alone.drain_with(words, &[(FAULT, point)]);
    match output.status.signal() {
        Some(signal) => assert_eq!(signal, SIGKILL, "{point}: {output:?}"),
        None => assert!(output.status.success(), "{point}: {output:?}"),
    }
    output.status.signal().is_some()
}

/// Who holds the drain by the agent's word, which must not be of a marker that is only half there.
fn holders(alone: &Alone) -> Vec<String> {
    let status = alone.status();
    assert!(status["drain"]["defect"].is_null(), "{status}");
    let holders: Vec<String> = serde_json::from_value(status["drain"]["holders"].clone()).unwrap();
    assert_eq!(status["gateway_state"] == "draining", !holders.is_empty(), "{status}");
    holders
}

/// The same to an agent that follows a killed one.
fn is_the_same_to_the_next_agent(alone: &mut Alone, point: &str) {
    let found = holders(alone);
    alone.agent().kill();
    alone.start(&[]);
    assert_eq!(holders(alone), found, "{point}: the next agent");
}

/// What the writer has left is one of these, and in nobody's way.
fn is_sound(alone: &Alone, point: &str, expected: &[&[&str]]) {
    let found = holders(alone);
    assert!(expected.iter().any(|expected| found == *expected), "{point}: {found:?}");
    let (code, said) = alone.says(&["begin", "--principal", "zoe"]);
    assert_eq!(code, 0, "{point}: {said}");
    assert!(holders(alone).contains(&"zoe".to_owned()), "{point}");
    assert_eq!(alone.says(&["cancel"]).1, "the drain is off\n", "{point}");
    assert!(holders(alone).is_empty() && !alone.marker().exists(), "{point}");
}

#[test]
fn a_writer_that_is_killed_at_any_step_leaves_a_whole_marker_or_none_and_no_lock() {
    let mut alone = Alone::started();
    let mut killed = 0;
    for point in steps(&["marker.", "whole."]) {
        // The first who asks, and one who joins.
        let is_first = is_killed_at(&alone, point, &["begin", "--principal", "ann"]);
        is_the_same_to_the_next_agent(&mut alone, point);
        is_sound(&alone, point, &[&[], &["ann"]]);
        assert_eq!(alone.says(&["begin", "--principal", "ann"]).0, 0);
        let joins = is_killed_at(&alone, point, &["begin", "--principal", "bob"]);
        is_sound(&alone, point, &[&["ann"], &["ann", "bob"]]);
        killed += usize::from(is_first) + usize::from(joins);
    }
    for point in steps(&["marker.", "remove.", "whole."]) {
        assert_eq!(alone.says(&["begin", "--principal", "ann"]).0, 0);
        let is_last = is_killed_at(&alone, point, &["cancel", "--principal", "ann"]);
        is_the_same_to_the_next_agent(&mut alone, point);
        is_sound(&alone, point, &[&[], &["ann"]]);
        for principal in ["ann", "bob"] {
            assert_eq!(alone.says(&["begin", "--principal", principal]).0, 0);
        }
        let leaves = is_killed_at(&alone, point, &["cancel", "--principal", "ann"]);
        is_sound(&alone, point, &[&["bob"], &["ann", "bob"]]);
        killed += usize::from(is_last) + usize::from(leaves);
    }
    // Each call has its locks, its reading and its writing; those that replace nothing pass one step less.
    assert!(killed > 30, "{killed} kills: the points are not where they were");
}

/// What a script came to with an agent that is killed at its `count`-th passage of a point.
#[derive(Debug, PartialEq)]
enum Passed {
    /// It was killed on the way.
    Killed,
    /// It never came there so often.
    Survived,
}

/// Begins a drain, waits for its end, takes it off and waits for the undo; or for the end of the agent.
fn drains_and_undrains(node: &mut Node) -> Passed {
    let is_gone = |node: &mut Node| !node.alone().agent().is_alive();
    // It may be killed before it answers.
    let _confirmed = node.alone().says(&["begin", "--principal", "ann"]);
    eventually("an agent that is drained or gone", || {
        (is_gone(node) || node.alone().status()["active_agents"] == 0 && node.succeeded() == ["before"])
            .then_some(())
    });
    if is_gone(node) {
        return Passed::Killed;
    }
    let (code, said) = node.alone().says(&["cancel"]);
    assert_eq!(code, 0, "{said}");
    eventually("an agent that owes nothing or is gone", || {
        (is_gone(node) || node.owes().is_null() && node.succeeded() == ["before", "after"]).then_some(())
    });
    // An end that is on its way is one of these, too: what was kept last is behind the last point.
    eventually("an agent that is idle or gone", || {
        (is_gone(node) || node.alone().status()["active_agents"] == 0).then_some(())
    });
    match is_gone(node) {
        true => Passed::Killed,
        false => Passed::Survived,
    }
}

/// The next agent goes on from whatever the killed one has left.
fn goes_on(node: &mut Node, moment: &str) {
    node.alone().agent().kill();
    let drains = node.alone().marker().exists();
    node.start();
    assert_eq!(node.alone().is_draining(), drains, "{moment}");
    if drains {
        let (code, said) = node.alone().says(&["wait", "--timeout", "2m"]);
        assert_eq!(code, 0, "{moment}: {said}");
        // Idle is said after a `before` that nothing has undone since.
        assert_eq!(node.succeeded().last().unwrap(), "before", "{moment}");
        assert_eq!(node.owes()["is_drained"], true, "{moment}");
        assert_eq!(node.alone().says(&["cancel"]).1, "the drain is off\n", "{moment}");
    }
    eventually("nothing that is owed", || node.owes().is_null().then_some(()));
    eventually("nothing that is active", || (node.alone().status()["active_agents"] == 0).then_some(()));
    let ended = node.succeeded();
    assert!(ended.last().is_none_or(|last| last == "after"), "{moment}: {ended:?}");
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_drain_is_followed_by_one_that_goes_on() {
    for point in ["drain.met", "drain.over", "hook.kept", "hook.begun", "hook.ended"] {
        let mut count = 0;
        loop {
            count += 1;
            let moment = format!("{point}:{count}");
            let mut node = Node::new();
            node.lets_end("before", 0);
            node.lets_end("after", 0);
            node.start_with(&[(FAULT, &moment)]);
            let passed = drains_and_undrains(&mut node);
            if passed == Passed::Survived {
                break;
            }
            goes_on(&mut node, &moment);
        }
        assert!(count > 1, "no drain passes {point}");
    }
}

#[test]
fn a_drain_whose_writer_and_agent_are_both_killed_lapses_or_is_taken_off_by_the_next() {
    let (mut killed, mut drained) = (0, 0);
    for (number, of_writer) in steps(&["marker.", "whole."]).into_iter().enumerate() {
        for (other, of_agent) in
            ["drain.met", "hook.kept", "hook.begun", "hook.ended"].into_iter().enumerate()
        {
            let moment = format!("{of_writer}, {of_agent}");
            let mut node = Node::new();
            node.lets_end("before", 0);
            node.lets_end("after", 0);
            node.start_with(&[(FAULT, of_agent)]);
            let begun = node.alone().drain_with(&["begin", "--principal", "ann"], &[(FAULT, of_writer)]);
            // One that does not come to its step may find no agent any more that would confirm it.
            match (begun.status.signal(), begun.status.code()) {
                (Some(SIGKILL), None) => killed += 1,
                (None, Some(0 | 4)) => {}
                (_, _) => panic!("{moment}: {begun:?}"),
            }
            // Where the writer came so far, the agent meets the drain.
            let stands = node.alone().marker().exists();
            if stands {
                node.alone().agent().wait();
                drained += 1;
            }
            node.alone().agent().kill();
            let is_taken_off = (number + other) % 2 == 0;
            if !is_taken_off && stands {
                // Nobody renews it, as if two hours had gone by meanwhile.
                node.alone().age_marker(2);
            }
            node.start();
            if is_taken_off {
                assert_eq!(node.alone().is_draining(), stands, "{moment}");
                let expected = if stands { "the drain is off\n" } else { "there was no drain\n" };
                assert_eq!(node.alone().says(&["cancel"]).1, expected, "{moment}");
            }
            assert!(!node.alone().is_draining(), "{moment}");
            eventually("nothing that is owed", || node.owes().is_null().then_some(()));
            let ended = node.succeeded();
            assert!(ended.last().is_none_or(|last| last == "after"), "{moment}: {ended:?}");
        }
    }
    assert!(
        killed > 10 && drained > 10,
        "{killed} kills, {drained} drains: the points are not where they were"
    );
}

#[test]
fn an_agent_that_is_killed_between_the_marker_and_its_word_holds_the_orchestrators_drain_once() {
    let server = Server::start();
    let run = server.create_run("n1", crate::profiles::LOAD);
    let mut machine = Machine::new(&server, &run, "m1");
    machine.start_with(&[(FAULT, "drain.begun_as_ordered")]);
    machine.load.started();
    ctl(&server, &["node", "drain", "n1", "--reason", "new firmware"]);
    machine.wait();
    machine.kill();
    // The order and the marker are both there; the next agent drains by either, for one holder.
    machine.start_with(&[(FAULT, "drain.ended_as_ordered")]);
    let view = wait_for_drain(&server, "nothing active", stands(DrainState::Idle));
    let id = view.drain.unwrap().drains[0].id.to_string();
    let status: Value =
        serde_json::from_slice(&drain(&machine.home(), &["status", "--json"]).stdout).unwrap();
    assert_eq!(status["drain"]["holders"], serde_json::json!([format!("orchestrator:{id}")]), "{status}");
    // Somebody on the node asks, too, and is left alone by the undrain that is cut off.
    assert_eq!(says(drain(&machine.home(), &["begin", "--principal", "ann"])).0, 0);
    ctl(&server, &["node", "undrain", "n1"]);
    machine.wait();
    machine.kill();
    machine.start();
    wait_for_drain(&server, "a node without a drain", |drain| drain.is_none());
    let status: Value =
        serde_json::from_slice(&drain(&machine.home(), &["status", "--json"]).stdout).unwrap();
    assert_eq!(status["drain"]["holders"], serde_json::json!(["ann"]), "{status}");
    assert_eq!(says(drain(&machine.home(), &["cancel"])).0, 0);
    machine.load.started();
    machine.load.pass();
    server.wait_for_state(&run, State::Completed);
}

/// An interrupt that drains the node for itself.
const DRAINS: &str = "name = \"drains\"\n[[stage]]\nname = \"Interrupt:it\"\n\
                      [[interrupt]]\nname = \"it\"\ntype = \"no_op\"\ndrain = true\n";

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_stages_own_drain_is_followed_by_one_that_goes_on() {
    let server = Server::start();
    for point in ["hook.kept", "hook.begun", "hook.ended"] {
        let mut count = 0;
        loop {
            count += 1;
            let moment = format!("{point}:{count}");
            let node = Node::new();
            node.lets_end("before", 0);
            node.lets_end("after", 0);
            let name = format!("{}-{count}", point.replace('.', "-"));
            let run = server.create_run(&name, DRAINS);
            let mut machine =
                Machine::new(&server, &run, &name).with_interrupts().with_hooks(&node.hooks_text());
            machine.start_with(&[(FAULT, &moment)]);
            let kept = machine.home().join("hooks.json");
            let owes = || {
                let bytes = std::fs::read(&kept).ok()?;
                Some(serde_json::from_slice::<Value>(&bytes).unwrap()["owes"].clone())
            };
            let is_over = || {
                node.succeeded().last().is_some_and(|last| last == "after")
                    && owes().is_some_and(|owes| owes.is_null())
            };
            eventually("an agent that is through or gone", || {
                (is_over() || !machine.agent().is_alive()).then_some(())
            });
            let home = machine.home();
            let says_running = || says(drain(&home, &["status"])).1.contains("state       running");
            let survived = says_running();
            if !survived {
                machine.kill();
                machine.start();
            }
            // Whichever agent it was: the stage has passed in a drained node, and all of it was undone.
            server.wait_for_state(&run, State::Completed);
            eventually("the undo", || is_over().then_some(()));
            eventually("an agent that drains no more", || says_running().then_some(()));
            assert!(!machine.home().join(".drain_request.json").exists(), "{moment}: it is no marker");
            assert!(machine.stop().success());
            if survived {
                break;
            }
        }
        assert!(count > 1, "no such drain passes {point}");
    }
}
