//! What an interrupt writes, and in which order it reaches the disk: a flag before the command that it is for, and a reboot's
//! record before its flag. A power cut at any moment then finds what is true.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::place::{COPY_DIR, Place, RESOURCE_ID};
use crate::tracer;

/// What an interrupt makes durable in the folder of its flags, and the commands that it starts between.
fn order_of(interrupt: &Value, program: &str) -> Vec<String> {
    let place = Place::new();
    place.package(&[("a.sh", "exit 0")]);
    place.write_program(program, "exit 0");
    // The folders are there, and what is synced for a log is not looked for.
    let flags = place.at(&format!("etc/skyhook/interrupts/flags/{RESOURCE_ID}"));
    fs::create_dir_all(&flags).unwrap();
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, interrupt.to_string());
    let root = place.root();
    let call = place.call_with(&["interrupt", root.to_str().unwrap(), COPY_DIR, &data]);
    let mut command = call.env("SKYHOOK_AGENT_WRITE_LOGS", "false").into_command();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (order, exit) = tracer::order_of_syncs(command);
    assert_eq!(exit, 0, "{order:?}");
    let first = order.iter().position(|what| what == "sync new").expect("something is written whole");
    order[first..].to_vec()
}

/// A file that is written whole and outlives a power cut from here on.
fn written(name: &str) -> [String; 3] {
    ["sync new".to_owned(), format!("rename {name}"), format!("sync {RESOURCE_ID}")]
}

#[test]
fn the_record_of_a_reboot_is_durable_before_its_flag_and_both_before_the_command() {
    let order = order_of(&json!({ "type": "node_restart" }), "reboot");
    let mut expected = Vec::new();
    expected.extend(written("node_restart_0.complete.boot"));
    expected.extend(written("node_restart_0.complete"));
    expected.push("start".to_owned());
    // That it was asked for.
    expected.extend(written("node_restart_0.complete.boot"));
    assert_eq!(order, expected);
}

#[test]
fn the_flag_of_each_command_is_durable_before_the_command() {
    let order = order_of(&json!({ "type": "service_restart", "services": ["a", "b"] }), "systemctl");
    let mut expected = Vec::new();
    for index in 0..3 {
        expected.extend(written(&format!("service_restart_{index}.complete")));
        expected.push("start".to_owned());
    }
    assert_eq!(order, expected);
    assert_eq!(order_of(&json!({ "type": "no_op" }), "none"), written("no_op.complete"));
}
