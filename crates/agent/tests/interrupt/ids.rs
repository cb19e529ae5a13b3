//! Resource ids: what is done for one says nothing of another, and what is none does nothing.

use serde_json::json;

use crate::node::{ID, NO_GRACE, Node};

/// Another package of the same customer.
const OTHER: &str = "customer-f5a1d42e-74e5-4606-8bbc-b504fbe0074d-1_other_1.0.0";

#[test]
fn an_interrupt_for_an_id_that_is_malformed_or_ambiguous_does_nothing_at_all() {
    for interrupt in [
        json!({ "type": "node_restart" }),
        json!({ "type": "service_restart", "services": ["a"] }),
        json!({ "type": "no_op" }),
    ] {
        let node = Node::new(interrupt);
        for program in ["reboot", "systemctl"] {
            node.program(program, "echo x >>/asks");
        }
        for (id, expected) in [
            ("", "SKYHOOK_RESOURCE_ID is not set, expected INSTANCE_PACKAGE_VERSION"),
            (
                "sample_1.0.0",
                "found \"sample_1.0.0\", expected INSTANCE_PACKAGE_VERSION: it has fewer than two",
            ),
            ("c-u-1__1.0.0", "a part is empty"),
            ("c-u-1_.._1.0.0", "names no folder of its own"),
            ("c/u-1_sample_1.0.0", "it holds a slash"),
            (
                "c-u-1_my_sample_1.0.0",
                "with 3 underscores, expected INSTANCE_PACKAGE_VERSION with exactly two",
            ),
        ] {
            assert_eq!(node.call(&[("SKYHOOK_RESOURCE_ID", id)]), 1, "{id:?}");
            let said = node.said("stderr");
            assert!(said.contains(expected) && said.lines().count() == 1, "{id:?}: {said}");
            assert!(!node.root().join("etc").exists(), "{id:?}: something was written");
        }
        assert_eq!(node.written("asks"), "");
        // One that is whole is heard.
        assert_eq!(node.call(&[]), 0, "{}", node.said("stderr"));
        assert!(node.root().join("etc/skyhook/interrupts/flags").join(ID).is_dir());
    }
}

#[test]
fn each_id_may_ask_three_times_unless_told_otherwise_and_has_flags_of_its_own() {
    let node = Node::with_reboot("echo x >>/asks");
    for asks in 1..=3 {
        assert_eq!(node.call(&[NO_GRACE]), 0, "{}", node.said("stderr"));
        assert_eq!(node.record(), Some(("asked".to_owned(), asks)));
        assert_eq!(node.call(&[NO_GRACE]), 1);
        assert!(node.said("stderr").contains(&format!("({asks} of 3 times)")), "{}", node.said("stderr"));
    }
    assert_eq!(node.call(&[NO_GRACE]), 1);
    let said = node.said("stderr");
    assert!(said.contains("asked for 3 times and no reboot was proved; it is not asked again"), "{said}");
    assert!(said.contains(&format!("remove {} to begin anew", node.record_file().display())), "{said}");
    assert_eq!(node.written("asks").lines().count(), 3);

    let other = ("SKYHOOK_RESOURCE_ID", OTHER);
    assert_eq!(node.call(&[other]), 0, "{}", node.said("stderr"));
    assert_eq!(node.written("asks").lines().count(), 4);
    let flags = node.root().join("etc/skyhook/interrupts/flags");
    assert!(flags.join(OTHER).join("node_restart_0.complete").exists() && !node.flag().exists());
    // What the message says begins anew.
    std::fs::remove_file(node.record_file()).unwrap();
    assert_eq!((node.call(&[]), node.record()), (0, Some(("asked".to_owned(), 1))));
}
