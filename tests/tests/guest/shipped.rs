//! The units that are shipped, on a real machine: both start under systemd with all their hardening, serve, walk and stop; and
//! the machine switches itself off once its run has ended, where its settings allow that, and not otherwise.

use std::time::Duration;

use groundcrew_client::{Client, PinSet};
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::guest::{Guest, Setup, left_out};
use groundcrew_tests::harness::eventually;

use crate::runs::Rack;

/// The orchestrator's unit, its settings and its user, as they are shipped.
const UNIT: &str = include_str!("../../../deploy/systemd/groundcrewd.service");
const SETTINGS: &str = include_str!("../../../deploy/systemd/groundcrewd.env.sample");
const USER: &str = include_str!("../../../deploy/systemd/groundcrewd.sysusers");

/// Where the orchestrator listens in the guest.
const PORT: u16 = 8443;

/// One stage, and then the machine goes.
const SHUTS_DOWN: &str = "at_end = \"shutdown\"\n[[stage]]\nname = \"Inventory\"\n";

#[test]
fn the_shipped_units_serve_walk_and_stop_and_an_ended_run_switches_off() {
    if left_out() {
        return;
    }
    let setup = Setup::default().forwarding(PORT);
    let mut rack = Rack::with("shipped", setup);
    the_orchestrators_unit_serves_and_stops(&rack.guest);
    a_machine_stays_on_unless_its_settings_allow_otherwise(&mut rack);
    a_machine_whose_run_has_ended_switches_itself_off(&mut rack);
    a_machine_that_was_switched_on_by_hand_stays_on(&mut rack);
}

fn shown(guest: &Guest, unit: &str, property: &str) -> String {
    guest.ok(&["systemctl", "show", &format!("--property={property}"), "--value", unit]).trim().to_owned()
}

/// As deploy/README.md has it.
fn the_orchestrators_unit_serves_and_stops(guest: &Guest) {
    guest.put_binary("groundcrewd");
    guest.put("/usr/lib/sysusers.d/groundcrewd.conf", 0o644, USER.as_bytes());
    guest.put("/etc/systemd/system/groundcrewd.service", 0o644, UNIT.as_bytes());
    let settings = format!("{SETTINGS}\nGROUNDCREWD_FLAGS=--print-token-to=/var/lib/groundcrewd/token\n");
    guest.put("/etc/groundcrew/groundcrewd.env", 0o600, settings.as_bytes());
    guest.ok(&["systemd-sysusers", "groundcrewd.conf"]);
    guest.sh("umask 077; head -c 32 /dev/urandom | base64 >/etc/groundcrew/groundcrewd.key");
    guest.ok(&["chown", "groundcrewd:groundcrewd", "/etc/groundcrew/groundcrewd.key"]);
    guest.ok(&["systemctl", "daemon-reload"]);
    // Whatever systemd does not know in a unit, or cannot do, it says here.
    let verified = guest.run(&["systemd-analyze", "verify", "groundcrewd.service", "groundcrew.service"]);
    assert_eq!((verified.stdout.as_str(), verified.stderr.as_str()), ("", ""));

    guest.ok(&["systemctl", "start", "groundcrewd.service"]);
    let address = eventually("the address that it listens on", || {
        assert_eq!(guest.unit_state("groundcrewd.service"), "active");
        guest.read("/var/lib/groundcrewd/address")
    });
    assert_eq!(address, format!("https://127.0.0.1:{PORT}\n"));
    let told = guest.ok(&["groundcrewd", "fingerprint", "--data", "/var/lib/groundcrewd"]);
    let pin = told.trim().parse().expect("a fingerprint");
    let base = format!("https://{}", guest.forwarded().expect("it has a way in")).parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(base, PinSet::new([pin]), None);
    let answer = runtime.block_on(client.get_bytes("/healthz", Duration::from_secs(60)));
    assert_eq!(answer.unwrap(), "ok\n");
    // It runs as its own user, and what it keeps is nobody else's.
    let pid = shown(guest, "groundcrewd.service", "MainPID");
    assert_eq!(guest.ok(&["stat", "-c", "%U", &format!("/proc/{pid}")]).trim(), "groundcrewd");
    let kept =
        guest.ok(&["stat", "-c", "%U %a", "/var/lib/groundcrewd", "/var/lib/groundcrewd/groundcrew.db"]);
    assert_eq!(kept, "groundcrewd 700\ngroundcrewd 600\n");

    guest.ok(&["systemctl", "stop", "groundcrewd.service"]);
    let ended =
        ["ActiveState", "Result", "ExecMainStatus"].map(|name| shown(guest, "groundcrewd.service", name));
    assert_eq!(ended, ["inactive", "success", "0"]);
}

/// The run's profile asks for it; the node's own settings have the last word.
fn a_machine_stays_on_unless_its_settings_allow_otherwise(rack: &mut Rack) {
    let run = rack.begin(SHUTS_DOWN, "");
    let view = rack.server.wait_for_state(&run, State::Completed);
    assert_eq!(view.stages[0].stage, Stage::Inventory);
    assert_eq!(view.stages[0].verdict.map(Verdict::goes_on), Some(true), "{:?}", view.stages);
    let refused = rack.server.wait_for_event(&run, "directive_refused");
    assert!(refused.text.contains("this agent's settings do not allow power-off"), "{refused:?}");
    assert_eq!(rack.count(&run, "intent"), 0);
    assert!(!rack.guest.is_stopping());
    assert_eq!(rack.guest.unit_state("groundcrew.service"), "active");
}

fn a_machine_whose_run_has_ended_switches_itself_off(rack: &mut Rack) {
    let run = rack.begin(SHUTS_DOWN, "GROUNDCREW_ALLOW_POWER=yes\n");
    rack.server.wait_for_state(&run, State::Completed);
    rack.guest.wait_for_power_off();
    let view = rack.server.view(&run);
    assert_eq!(view.summary.state, State::Completed);
    assert_eq!((view.claim.0, view.stages[0].attempts, rack.count(&run, "intent")), (1, 1, 1));
    // All that it had to say of the stage came before.
    let said = rack.server.log(&run, None);
    let taken = "stage Inventory: the orchestrator has taken the result; the run stands at Completed";
    assert!(said.iter().any(|line| line.contains(taken)), "{said:#?}");
    assert_eq!(rack.guest.boots().len(), 1, "it was switched off and not rebooted");
}

fn a_machine_that_was_switched_on_by_hand_stays_on(rack: &mut Rack) {
    rack.guest.power_on();
    let journal = || rack.guest.ok(&["journalctl", "-u", "groundcrew.service", "--no-pager", "-o", "cat"]);
    eventually("the agent that idles", || journal().contains("this agent idles").then_some(()));
    assert!(!rack.guest.is_stopping());
    assert_eq!(rack.guest.boots().len(), 2);
    rack.guest.ok(&["systemctl", "stop", "groundcrew.service"]);
    let ended = ["Result", "ExecMainStatus"].map(|name| shown(&rack.guest, "groundcrew.service", name));
    assert_eq!(ended, ["success", "0"]);
}
