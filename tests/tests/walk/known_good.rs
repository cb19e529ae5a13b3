//! A machine that is known to be good, written down by `profile from-run` as what is expected of others.

use groundcrew_protocol::stage::State;
use groundcrew_tests::harness::{Machine, Server};
use serde_json::Value;

use crate::stored_packages::{ctl, refusal, said};

#[test]
fn a_machine_meets_what_was_written_of_it_and_not_what_says_more() {
    let server = Server::start();
    let first = server.create_run("n1", "name = \"first\"\n[[stage]]\nname = \"Inventory\"\n");
    let written = |more: &[&str]| {
        let words = [&["profile", "from-run", first.id.as_str()], more].concat();
        ctl(&server, &words)
    };
    let refused = refusal(&written(&[]));
    assert!(refused.contains("known to be good") && refused.contains(first.id.as_str()), "{refused}");
    let _machine = Machine::started(&server, &first, "m1");
    server.wait_for_state(&first, State::Completed);
    let expected = said(&written(&[]));
    let json: Value = serde_json::from_str(&said(&written(&["--json"]))).unwrap();
    assert_eq!((json["run"].as_str(), json["toml"].as_str()), (Some(first.id.as_str()), Some(&*expected)));
    let logical = |line: &str| line.strip_prefix("logical = ").and_then(|count| count.parse::<u32>().ok());
    let logical = expected.lines().find_map(logical).unwrap_or_else(|| panic!("{expected}"));
    let profile = |name: &str, expected: &str| {
        format!("name = \"{name}\"\n[[stage]]\nname = \"Inventory\"\n{expected}")
    };
    let same = server.create_run("n2", &profile("same", &expected));
    let _machine = Machine::started(&server, &same, "m2");
    server.wait_for_state(&same, State::Completed);
    // Of the same make, which this very machine is.
    let of_make = said(&written(&["--of-make"]));
    let alike = server.create_run("n3", &profile("alike", &of_make));
    let _machine = Machine::started(&server, &alike, "m3");
    server.wait_for_state(&alike, State::Completed);
    let line = format!("logical = {logical}\n");
    let more = expected.replace(&line, &format!("logical = {}\n", logical + 1));
    assert_ne!(more, expected, "{line} in {expected}");
    let other = server.create_run("n4", &profile("more", &more));
    let _machine = Machine::started(&server, &other, "m4");
    let held = server.wait_for_state(&other, State::FailedHolding);
    assert!(held.summary.reason.contains("cpu.logical"), "{}", held.summary.reason);
}
