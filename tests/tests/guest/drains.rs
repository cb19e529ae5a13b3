//! Which restart ends a drain, on a real machine: the rows of the table that need another boot id, beside those of a host whose
//! process 1 stays. The table's containers are walks (`drain_restarts`).

use groundcrew_protocol::stage::State;
use groundcrew_tests::guest::words::Ended;
use groundcrew_tests::guest::{Call, Guest, left_out};
use groundcrew_tests::harness::eventually;
use serde_json::Value;

use crate::runs::Rack;

const HOME: &str = "/var/lib/groundcrew";
const MARKER: &str = "/var/lib/groundcrew/.drain_request.json";
/// Each hook notes under which boot it ran.
const HOOKS: &str = r#"[drain]
before = { argv = ["/bin/sh", "-c", "echo before $(cat /proc/sys/kernel/random/boot_id) >>$GROUNDCREW_HOME/hooked"], deadline = "2m" }
after = { argv = ["/bin/sh", "-c", "echo after $(cat /proc/sys/kernel/random/boot_id) >>$GROUNDCREW_HOME/hooked"], deadline = "2m" }
"#;
/// A reboot that has the node drained first.
const REBOOTS_DRAINED: &str = "[[stage]]\nname = \"Interrupt:it\"\n[[interrupt]]\nname = \"it\"\ntype = \"node_restart\"\n\
                               drain = true\n";

#[test]
fn a_reboot_ends_a_drain_and_a_restart_of_the_agent_does_not() {
    if left_out() {
        return;
    }
    let mut rack = Rack::new("drains");
    a_stages_own_drain_is_undone_by_the_boot_that_it_was_for(&mut rack);
    a_drain_outlives_the_agent_and_not_the_boot(&rack.guest);
}

fn a_stages_own_drain_is_undone_by_the_boot_that_it_was_for(rack: &mut Rack) {
    rack.guest.put("/etc/groundcrew/hooks.toml", 0o600, HOOKS.as_bytes());
    let before = rack.guest.boot_id();
    let run = rack.begin(REBOOTS_DRAINED, "GROUNDCREW_HOOKS=/etc/groundcrew/hooks.toml\n");
    let after = rack.guest.wait_for_next_boot(&before);
    rack.server.wait_for_state(&run, State::Completed);
    let hooked = || rack.guest.read(&format!("{HOME}/hooked")).unwrap_or_default();
    let expected = format!("before {before}\nafter {after}\n");
    eventually("the undo", || (hooked() == expected).then_some(()));
    let kept = || rack.guest.read(&format!("{HOME}/hooks.json")).unwrap_or_default();
    eventually("nothing that is owed", || {
        let kept: Value = serde_json::from_str(&kept()).ok()?;
        kept["owes"].is_null().then_some(())
    });
    assert_eq!(rack.guest.read(MARKER), None, "it is no marker");
    assert_eq!((rack.guest.boots().len(), rack.count(&run, "intent")), (2, 1));
}

fn status(guest: &Guest) -> Value {
    let text = guest.ok(&["groundcrew", "drain", "status", "--json"]);
    serde_json::from_str(&text).expect("it prints JSON")
}

/// Waits until the agent of the home answers, and gives its state and how the marker's epoch stands to its own.
fn state(guest: &Guest) -> (String, Value) {
    eventually("an agent that answers", || {
        let status = status(guest);
        status["gateway_state"].as_str().map(|state| (state.to_owned(), status["drain"]["epoch"].clone()))
    })
}

fn a_drain_outlives_the_agent_and_not_the_boot(guest: &Guest) {
    assert_eq!(state(guest).0, "running");
    guest.ok(&["groundcrew", "drain", "begin", "--principal", "ann"]);
    let drains = ("draining".to_owned(), Value::from("same"));
    assert_eq!(state(guest), drains);
    // Started again on the host: in order, and by systemd after it was killed.
    guest.ok(&["systemctl", "restart", "groundcrew.service"]);
    assert_eq!(state(guest), drains);
    let pid = || guest.ok(&["systemctl", "show", "--property=MainPID", "--value", "groundcrew.service"]);
    let killed = pid();
    guest.ok(&["systemctl", "kill", "--signal=KILL", "groundcrew.service"]);
    eventually("the next agent", || {
        let next = pid();
        (next != killed && next.trim() != "0").then_some(())
    });
    assert_eq!(state(guest), drains);
    // The machine reboots: another boot id, the same disk with the same marker.
    let boot = guest.boot_id();
    // Whether its end is told is luck; the boot that follows tells.
    let _asked = guest.try_call(&Call::new(&["systemctl", "reboot"]));
    guest.wait_for_next_boot(&boot);
    let (state, epoch) = state(guest);
    assert!(state != "draining" && epoch == "other", "{state} {epoch}");
    assert!(
        guest.read(MARKER).is_some_and(|marker| marker.contains(&boot)),
        "it stands, and is of the boot before"
    );
    let waited = guest.run(&["groundcrew", "drain", "wait"]);
    assert_eq!(waited.ended, Ended::Exit(4), "{waited:?}");
    assert!(waited.stderr.contains("another boot"), "{}", waited.stderr);
    // A drain of this boot takes its place.
    guest.ok(&["groundcrew", "drain", "begin", "--principal", "ann"]);
    assert_eq!(status(guest)["gateway_state"], "draining");
    guest.ok(&["groundcrew", "drain", "cancel"]);
    assert_eq!(guest.read(MARKER), None);
}
