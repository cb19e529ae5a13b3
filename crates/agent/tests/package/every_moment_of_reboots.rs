//! SIGKILL and SIGTERM at every moment of a call for a reboot, and calls that finish it: on the same boot, as an operator
//! makes them, then after the machine has rebooted.

use std::fs;

use serde_json::{Value, json};

use crate::place::{COPY_DIR, Call, Outcome, Place, RESOURCE_ID};
use crate::tracer::{self, At, Traced};

/// Calls on one boot after which a request was made at the latest: one that finds it cut off and lets the grace lapse, and
/// one that asks again.
const CALLS_MAX: usize = 3;

/// A machine whose `reboot` only says that it was called.
struct Machine(Place);

impl Machine {
    fn new() -> Machine {
        let place = Place::new();
        place.package(&[("a.sh", "exit 0")]);
        // What the agent's own end cut off is no reboot's doing on a machine whose systemd says that it stays up.
        for (name, script) in
            [("reboot", "echo ${WHEN:-reboot} >>/effects/log"), ("systemctl", "echo running")]
        {
            place.write_program(name, script);
        }
        Machine(place)
    }

    fn call(&self) -> Call {
        let data = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            json!({ "type": "node_restart" }).to_string(),
        );
        let root = self.0.root();
        self.0.call_with(&["interrupt", root.to_str().unwrap(), COPY_DIR, &data])
    }

    fn traced(&self, stop: usize, what: At) -> Traced {
        let stderr = fs::File::create(self.0.path().join("stderr")).unwrap();
        tracer::run_said(self.call(), stderr, stop, what)
    }

    /// Whether systemd gave no answer in time, as on a machine that stands still for so long: nobody then knows better than
    /// that the request was the reboot's.
    fn was_silent(&self) -> bool {
        fs::read_to_string(self.0.path().join("stderr")).unwrap().contains("systemctl is-system-running: ")
    }

    fn asks(&self) -> usize {
        self.0.effects().get("reboot").copied().unwrap_or_default()
    }

    fn record(&self) -> Option<Value> {
        let text = fs::read(self.flag().with_extension("complete.boot")).ok()?;
        Some(serde_json::from_slice(&text).expect("a record is whole whenever its agent was ended"))
    }

    fn flag(&self) -> std::path::PathBuf {
        self.0.at(&format!("etc/skyhook/interrupts/flags/{RESOURCE_ID}/node_restart_0.complete"))
    }

    /// The record is of another boot from now on, as it is once the machine has rebooted.
    fn reboot(&self) {
        let mut record = self.record().expect("a request that was made has its record");
        record["boot_id"] = json!("11111111-1111-4111-8111-111111111111");
        fs::write(self.flag().with_extension("complete.boot"), record.to_string()).unwrap();
    }
}

/// Whatever happens at whichever moment: the reboot is asked for, and once it has come never again.
fn ended_at_every_moment(what: At, check: impl Fn(&Machine, &Traced, &str)) {
    let whole = Machine::new().traced(usize::MAX, At::Nothing);
    assert_eq!(whole.exit, 0);
    assert!(whole.stops > 30, "{} moments: the tracer sees too little", whole.stops);
    for stop in 0..whole.stops {
        let machine = Machine::new();
        let ended = machine.traced(stop, what);
        let moment = format!("moment {stop}, before system call {:?}", ended.at);
        if let Some(record) = machine.record() {
            let flag = fs::read_to_string(machine.flag()).ok();
            assert!(flag.is_none_or(|flag| record["flag"] == flag), "{moment}: {record}");
        }
        check(&machine, &ended, &moment);
        let mut last: Option<Outcome> = None;
        for _call in 0..CALLS_MAX {
            // The grace is over at once, so that a request which was cut off is made again.
            if machine.asks() == 0 {
                last = Some(machine.call().env("GROUNDCREW_REBOOT_GRACE_S", "0").run());
            }
        }
        assert!(machine.asks() > 0, "{moment}: it is never asked for: {last:#?}");
        // Under one boot a second request reboots no second time; there is no third.
        assert!(machine.asks() <= 2, "{moment}: asked for {} times", machine.asks());
        if !machine.flag().exists() {
            // The request was made by a command whose agent was ended with it, and let go: it is made again.
            machine.call().succeed();
        }
        machine.reboot();
        for settings in [None, Some("0")] {
            let call = machine.call().env("WHEN", "after the reboot");
            let call =
                settings.into_iter().fold(call, |call, grace| call.env("GROUNDCREW_REBOOT_GRACE_S", grace));
            let skipped = call.succeed();
            assert!(skipped.stdout.contains("Skipping interrupt node_restart_0"), "{moment}: {skipped:#?}");
        }
        // What a killed agent left may still be asking, and counts for the boot that is over.
        let asked_again = machine.0.effects().contains_key("after the reboot");
        assert!(!asked_again, "{moment}: it rebooted, and was asked to do so again");
        assert_eq!(machine.0.leftovers(), Vec::<std::path::PathBuf>::new(), "{moment}");
    }
}

#[test]
fn killed_at_any_moment_a_reboot_is_neither_lost_nor_asked_for_after_it_came() {
    ended_at_every_moment(At::Kill, |machine, killed, moment| {
        let state = machine.record().map(|record| record["state"].as_str().unwrap().to_owned());
        // The request of a killed agent is made by a command that lives on, and its record then says so.
        if killed.at.is_some() {
            assert_eq!(killed.exit, -9, "{moment}");
            let second = machine.call().succeed();
            let skips = second.stdout.contains("Skipping interrupt node_restart_0");
            assert_eq!(skips, state.as_deref() == Some("asked"), "{moment}: {state:?} {second:#?}");
        }
    });
}

#[test]
fn asked_to_end_at_any_moment_an_agent_says_of_a_request_only_what_is_so() {
    ended_at_every_moment(At::Terminate, |machine, ended, moment| {
        let state = machine.record().map(|record| record["state"].as_str().unwrap().to_owned());
        match ended.exit {
            0 if machine.was_silent() => assert_eq!(state.as_deref(), Some("asked"), "{moment}"),
            // It was made, and nobody ended it.
            0 => assert_eq!((machine.asks(), state.as_deref()), (1, Some("asked")), "{moment}"),
            // Nothing was begun, or nobody knows.
            1 => {
                assert_eq!(machine.flag().exists(), state.as_deref() == Some("asked"), "{moment}: {state:?}")
            }
            // Before it has said what is to become of the signal.
            -15 => assert_eq!((machine.asks(), state), (0, None), "{moment}"),
            other => panic!("{moment}: it ended with {other}"),
        }
    });
}
