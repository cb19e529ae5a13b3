//! A healthy machine of the live image to which two things happen: its cable is pulled for a minute in the middle of a stage, which
//! costs nothing, and the whole machine is reset in the middle of another, which it cannot pass until an operator says why.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::operator::AuditList;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_tests::guest::{Parts, left_out};
use groundcrew_tests::harness::{Server, eventually};
use serde_json::json;

use crate::live::{Ward, found, report, stage};

const PROFILE: &str = r#"name = "resumed"

[[stage]]
name = "Package:count/apply"
deadline = "10m"

[[stage]]
name = "Storage"
deadline = "10m"
[stage.storage]
sequential = "60s"
random = "1s"

[[package]]
name = "count"
version = "1.0.0"
root_mount = "local"
[package.env]
COPY_RESOLV = "false"
"#;

const STAGE: &str = "Package:count/apply";
const CONFIG: &str = r#"{"schema_version": "v1", "package_name": "count", "package_version": "1.0.0",
"expected_config_files": [], "modes": {"apply": [
{"name": "count", "path": "count.sh", "arguments": [], "returncodes": [0], "on_host": true, "idempotence": false,
 "upgrade_step": false}],
"apply-check": [
{"name": "check", "path": "check.sh", "arguments": [], "returncodes": [0], "on_host": true, "idempotence": false,
 "upgrade_step": false}]}}"#;
/// No stage asks for it, and no package is without.
const CHECK: &str = "#!/bin/sh\n";

/// Numbers its lines: as long as the cable is in, as long as it is out, and on once it is in again. Nothing else ends it.
const COUNT: &str = r#"#!/bin/sh
n=0
say() { n=$((n + 1)); echo "line $n"; sleep 0.1; }
is_in() { read -r carrier </sys/class/net/eth0/carrier && [ "$carrier" = 1 ]; }
while is_in; do say; done
echo "out after $n"
until is_in; do say; done
echo "in after $n"
for _ in $(seq 50); do say; done
echo "end after $n"
"#;

/// How long the cable is out, by what the orchestrator says of when it heard the agent last.
const SILENT_MS: i64 = 60_000;

#[test]
fn a_machine_goes_on_after_a_minute_without_network_and_after_a_reset() {
    if left_out() {
        return;
    }
    let settings = vec!["GROUNDCREW_ALLOW_PACKAGES=yes".to_owned()];
    // QEMU's e1000e does not tell its driver that the cable is out.
    let parts = Parts { nic: "virtio-net-pci", settings, ..Parts::default() };
    let ward = Ward::boot_after(put_package, "resumed", PROFILE, &parts);
    a_cable_that_is_pulled_for_a_minute(&ward);
    a_reset(&ward);
    an_override_with_its_reason(&ward);
}

fn put_package(server: &Server) {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let package = folder.path().join("count");
    std::fs::create_dir_all(package.join("skyhook_dir")).expect("the folder is ours");
    std::fs::write(package.join("config.json"), CONFIG).expect("the folder is ours");
    for (name, text) in [("count.sh", COUNT), ("check.sh", CHECK)] {
        std::fs::write(package.join("skyhook_dir").join(name), text).expect("the folder is ours");
    }
    let mut tar = Command::new("tar");
    let packed = tar.arg("-C").arg(&package).args(["-c", "."]).output().expect("every system has tar");
    assert!(packed.status.success(), "{packed:?}");
    let caller = server.caller(Some(server.token().clone()));
    caller.put("/api/v1/packages/count/1.0.0", Bytes::from(packed.stdout)).expect("it is a package");
}

fn now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the host's clock is right");
    WallMs(i64::try_from(since.as_millis()).expect("it is not so late"))
}

/// What the step said, line by line.
fn lines(ward: &Ward) -> Vec<String> {
    let texts = ward.server.log(&ward.run, Some(&Stage::from(STAGE)));
    // A stamp may stand before it.
    let said = |text: &String| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [.., first, second] = words[..] else { return None };
        let is_own = first == "line" || (first == "after" && second.parse::<usize>().is_ok());
        is_own.then(|| text.clone())
    };
    texts.iter().filter_map(said).collect()
}

fn number(line: &str) -> usize {
    let last = line.rsplit(' ').next().expect("a line has a last word");
    last.parse().unwrap_or_else(|_| panic!("a number ends {line:?}"))
}

fn a_cable_that_is_pulled_for_a_minute(ward: &Ward) {
    let machine = &ward.machine;
    eventually("numbered lines", || (lines(ward).len() >= 20).then_some(()));
    machine.plug(false);
    let out = now();
    let view = eventually("a minute without a word", || {
        let view = ward.server.view(&ward.run);
        view.last_heard.is_some_and(|heard| now().0 - heard.0 >= SILENT_MS).then_some(view)
    });
    assert_eq!(view.summary.state, State::At(STAGE.into()));
    assert_eq!(view.summary.agent.as_deref(), Some("offline"));
    let known = lines(ward).len();
    let back = now();
    machine.plug(true);
    ward.server.wait_for(&ward.run, "the end of the stage", |view| view.stages[0].verdict.is_some());
    let said = eventually("the last line", || {
        let said = lines(ward);
        said.last().is_some_and(|line| line.contains("end after")).then_some(said)
    });

    // Every line is there, once and in order, those of the minute too.
    let (counted, marks): (Vec<&String>, Vec<&String>) =
        said.iter().partition(|line| !line.contains("after"));
    let numbers: Vec<usize> = counted.iter().map(|line| number(line)).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    let [pulled, plugged, end] = marks.iter().map(|line| number(line)).collect::<Vec<_>>()[..] else {
        panic!("three marks in {marks:?}")
    };
    assert_eq!(end, numbers.len());
    assert!(pulled < plugged && known <= pulled, "{known} lines came before, of {pulled}, {plugged}, {end}");

    // One attempt under one claim, of which one outcome was taken.
    let view = ward.server.view(&ward.run);
    let package = &view.stages[0];
    assert_eq!((package.attempts, package.verdict), (1, Some(Verdict::Pass)));
    let count = |kind: &str| ward.server.count_of(&ward.run, kind);
    assert_eq!((count("claimed"), count("crashed"), count("late_result")), (1, 0, 0));
    let events = ward.server.events(&ward.run);
    let results = events.iter().filter(|event| event.kind == "result" && event.text.contains(STAGE));
    assert_eq!(results.count(), 1, "{events:#?}");
    assert_eq!(view.gaps, [""; 0]);

    // Sensors were read all the while, and no sample is there twice.
    let (out, back) = (WallMs(out.0 + SILENT_MS / 4), WallMs(back.0 - SILENT_MS / 4));
    let sensors = eventually("samples of that minute, and of after it", || {
        let sensors = report(&ward.server, &ward.run).sensors;
        let has = |wanted: &dyn Fn(WallMs) -> bool| {
            sensors.iter().flat_map(|series| &series.points).any(|(at, _)| wanted(*at))
        };
        (has(&|at| out < at && at < back) && has(&|at| at > back)).then_some(sensors)
    });
    for series in &sensors {
        let at: Vec<WallMs> = series.points.iter().map(|(at, _)| *at).collect();
        assert!(at.windows(2).all(|two| two[0] < two[1]), "{} in order: {at:?}", series.key);
    }
}

fn a_reset(ward: &Ward) {
    // An attempt that the agent has begun, and said so: one of which it has not heard is none that a reset cuts off.
    let begun = "stage Storage: attempt 1 starts";
    eventually("the attempt", || ward.machine.console().contains(begun).then_some(()));
    eventually("the word of it", || ward.server.view(&ward.run).directives.is_empty().then_some(()));
    ward.machine.tell("system_reset", &json!({}));
    eventually("another boot", || (ward.machine.boots().len() == 2).then_some(()));
    ward.server.wait_for_event(&ward.run, "unexpected_reset");
    let storage = ward.held("Storage", 2);
    assert_eq!(found(&storage, Verdict::Fail), ["unexpected_reset -"], "the disks are well");
    assert_eq!(found(&storage, Verdict::Inconclusive), [""; 0]);
    ward.expect_reason(&["unexpected_reset"]);
    assert_eq!(ward.server.count_of(&ward.run, "unexpected_reset"), 1);
    assert_eq!(ward.machine.boots().len(), 2);
    // What it had done before it has not done again.
    let view = ward.server.view(&ward.run);
    assert_eq!((view.stages[0].attempts, view.claim.0), (1, 2));
}

fn an_override_with_its_reason(ward: &Ward) {
    let reason = "the reset was ours: somebody pulled the wrong plug";
    ward.server.order(&ward.run, "override", reason);
    ward.server.wait_for_state(&ward.run, State::Completed);
    let report = report(&ward.server, &ward.run);
    let storage = stage(&report, "Storage");
    assert_eq!((storage.verdict, storage.overridden.as_deref()), (Some(Verdict::Fail), Some(reason)));
    assert_eq!(report.verdict, Verdict::Warn, "an override is no pass");
    let page = ward.server.text(&format!("/api/v1/runs/{}/report?format=html", ward.run.id));
    assert!(page.contains(reason), "{page}");
    let audit: AuditList = ward.server.get("/api/v1/audit");
    let of_run = |action: &str| {
        let rows =
            audit.rows.iter().filter(|row| row.run.as_ref() == Some(&ward.run.id) && row.action == action);
        rows.map(|row| row.text.clone()).collect::<Vec<_>>()
    };
    let [override_of] = &of_run("override")[..] else { panic!("one override in {audit:#?}") };
    assert!(override_of.contains(reason), "{override_of}");
}
