//! Reports against damage of every kind: what is mangled never passes.

use groundcrew_protocol::check::{Check, Limit, Observation, Verdict, judge, judge_stage};
use groundcrew_protocol::plan::{names, planned_checks};
use groundcrew_protocol::profile::StageSpec;
use groundcrew_protocol::stage::Stage;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::judge::{Finding, findings, over_both};
use super::report::{Kind, Report};
use super::self_test::{State, outcome, read};
use super::smartctl::Said;
use crate::vet::tests::leaves;

mod mangled;

const NVME: &str = include_str!("../../../tests/fixtures/smartctl/nvme.json");
const SATA: &str = include_str!("../../../tests/fixtures/smartctl/sata.json");

fn said(exit: i32, json: Value) -> Said {
    Said { exit, json, raw: Vec::new(), command: "smartctl".to_owned() }
}

/// The verdict of a check over a report, by the default plan.
fn verdicts(exit: i32, json: Value) -> Vec<(&'static str, Verdict)> {
    let plan = planned_checks(&StageSpec::of(Stage::Smart));
    let Ok(report) = Report::read(&said(exit, json)) else {
        return vec![(names::HEALTH, Verdict::Inconclusive)];
    };
    let judged = |finding: Finding| {
        let limit = plan.iter().find(|planned| planned.name == finding.name).unwrap().limit.clone();
        let check = Check::of(finding.name, None, finding.observed, limit);
        (finding.name, judge_stage(&[], &[check]).verdict)
    };
    findings(&report, "smartctl").into_iter().map(judged).collect()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A SAS disk, after the source of smartmontools 7.3 (scsiprint.cpp); no real one was seen yet.
fn sas() -> Value {
    let row = json!({"total_uncorrected_errors": 0, "gigabytes_processed": "1234.5"});
    json!({
        "device": {"protocol": "SCSI"}, "scsi_model_name": "A B", "serial_number": " S1 ",
        "smart_status": {"passed": true}, "power_on_time": {"hours": 5}, "scsi_grown_defect_list": 0,
        "scsi_error_counter_log": {"read": row, "write": row},
    })
}

fn with(mut report: Value, pointer: &str, value: Value) -> Value {
    *report.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    report
}

#[test]
fn what_a_disk_says_is_judged_by_table() {
    let attribute = "/ata_smart_attributes/table/3/raw/string";
    let at_threshold =
        |when: &str| with(parsed(SATA), "/ata_smart_attributes/table/0/when_failed", json!(when));
    let log = |key: &str, value: i64| {
        with(parsed(NVME), &format!("/nvme_smart_health_information_log/{key}"), json!(value))
    };
    for (exit, report, check, verdict) in [
        (0, parsed(SATA), names::HEALTH, Verdict::Pass),
        (8, parsed(SATA), names::HEALTH, Verdict::Fail),
        (2, parsed(SATA), names::HEALTH, Verdict::Inconclusive),
        (0, with(parsed(SATA), "/smart_status/passed", json!("true")), names::HEALTH, Verdict::Inconclusive),
        (0, with(parsed(SATA), "/smart_status/passed", json!(false)), names::HEALTH, Verdict::Fail),
        (0, at_threshold("now"), names::PREFAIL, Verdict::Fail),
        (0, at_threshold("past"), names::PREFAIL, Verdict::Pass),
        (0, at_threshold("past"), names::PAST_THRESHOLD, Verdict::Warn),
        (16, parsed(SATA), names::PREFAIL, Verdict::Fail),
        (128, parsed(SATA), names::FAILED_SELF_TESTS, Verdict::Fail),
        (32, parsed(SATA), names::PAST_THRESHOLD, Verdict::Warn),
        (0, parsed(SATA), names::ERROR_LOG, Verdict::Pass),
        (64, parsed(SATA), names::ERROR_LOG, Verdict::Warn),
        (
            0,
            with(parsed(SATA), "/ata_smart_error_log/summary/count", json!(3)),
            names::ERROR_LOG,
            Verdict::Warn,
        ),
        (0, with(parsed(SATA), "/ata_smart_error_log", json!({})), names::ERROR_LOG, Verdict::Skipped),
        (128, parsed(NVME), names::FAILED_SELF_TESTS, Verdict::Warn),
        (128, sas(), names::FAILED_SELF_TESTS, Verdict::Warn),
        (0, with(parsed(SATA), attribute, json!("8 (0 1)")), names::REALLOCATED, Verdict::Fail),
        (0, with(parsed(SATA), attribute, json!("many")), names::REALLOCATED, Verdict::Inconclusive),
        (
            0,
            with(parsed(SATA), "/ata_smart_attributes/table", json!([])),
            names::REALLOCATED,
            Verdict::Inconclusive,
        ),
        (0, log("critical_warning", 4), names::CRITICAL_WARNING, Verdict::Fail),
        (0, log("available_spare_threshold", 10), names::SPARE, Verdict::Fail),
        (0, log("percentage_used", 80), names::PERCENTAGE_USED, Verdict::Pass),
        (0, log("percentage_used", 81), names::PERCENTAGE_USED, Verdict::Warn),
        (0, log("percentage_used", 101), names::PERCENTAGE_USED, Verdict::Fail),
        (0, log("media_errors", 1), names::MEDIA_ERRORS, Verdict::Fail),
        (0, sas(), names::GROWN_DEFECTS, Verdict::Pass),
        (0, with(sas(), "/scsi_grown_defect_list", json!(3)), names::GROWN_DEFECTS, Verdict::Fail),
        (
            0,
            with(sas(), "/scsi_error_counter_log/write", json!({})),
            names::UNCORRECTED_ERRORS,
            Verdict::Inconclusive,
        ),
    ] {
        let found = verdicts(exit, report).into_iter().find(|(name, _)| *name == check);
        assert_eq!(found, Some((check, verdict)), "exit {exit}");
    }
    assert_eq!(Report::read(&said(0, sas())).unwrap().serial.as_deref(), Some("S1"));
    // SAS disks need not keep what others do: that is skipped, and holds nobody.
    let mut bare = sas();
    for key in ["power_on_time", "scsi_grown_defect_list", "scsi_error_counter_log"] {
        bare.as_object_mut().unwrap().remove(key);
    }
    let skipped = verdicts(0, bare).into_iter().filter(|(_, verdict)| *verdict == Verdict::Skipped).count();
    assert_eq!(skipped, 4);
}

/// An ATA disk that keeps one attribute more, as smartctl prints it.
fn keeping(attribute: Value) -> Value {
    let mut report = parsed(SATA);
    report.pointer_mut("/ata_smart_attributes/table").unwrap().as_array_mut().unwrap().push(attribute);
    report
}

/// smartctl writes the three counts of `-v 188,raw16` highest first (atacmds.cpp, RAWFMT_RAW16), and names what its database
/// (drivedb.h) knows of an attribute.
#[test]
fn an_attribute_is_what_the_database_of_disks_says_of_it() {
    let raw = |id: u64, name: &str, value: u64, string: &str| {
        let raw = json!({"value": value, "string": string});
        keeping(
            json!({"id": id, "name": name, "when_failed": "", "flags": {"prefailure": false}, "raw": raw}),
        )
    };
    for (report, check, verdict) in [
        (raw(188, "Command_Timeout", 7, "0 0 7"), names::COMMAND_TIMEOUTS, Verdict::Warn),
        (raw(188, "Command_Timeout", 7, "7"), names::COMMAND_TIMEOUTS, Verdict::Warn),
        (raw(188, "Command_Timeout", 7 << 32 | 5 << 16, "7 5 0"), names::COMMAND_TIMEOUTS, Verdict::Pass),
        (raw(198, "Offline_Uncorrectable", 5, "5"), names::OFFLINE_UNCORRECTABLE, Verdict::Fail),
        (raw(198, "Host_Reads_GiB", 5, "5"), names::OFFLINE_UNCORRECTABLE, Verdict::Skipped),
        (raw(198, "Read_Sectors_Tot_Ct", 5, "5"), names::OFFLINE_UNCORRECTABLE, Verdict::Skipped),
        (raw(197, "Not_In_Use", 5, "5"), names::PENDING, Verdict::Skipped),
        (raw(187, "Unknown_JMF_Attribute", 5, "5"), names::REPORTED_UNCORRECTABLE, Verdict::Skipped),
        (raw(187, "Total_Unc_NAND_Reads", 5, "5"), names::REPORTED_UNCORRECTABLE, Verdict::Fail),
        (
            with(raw(188, "Command_Timeout", 7, "7"), "/ata_smart_attributes/table/7/raw/value", json!("7")),
            names::COMMAND_TIMEOUTS,
            Verdict::Inconclusive,
        ),
    ] {
        let said = report.pointer("/ata_smart_attributes/table/7").unwrap().to_string();
        let found = verdicts(0, report).into_iter().find(|(name, _)| *name == check);
        assert_eq!(found, Some((check, verdict)), "{said}");
    }
}

/// Disks that are bad, and the check that says so.
fn bad_disks() -> Vec<(Value, &'static str)> {
    let log = |key: &str, value: i64| {
        with(parsed(NVME), &format!("/nvme_smart_health_information_log/{key}"), json!(value))
    };
    vec![
        (log("media_errors", 7), names::MEDIA_ERRORS),
        (log("critical_warning", 4), names::CRITICAL_WARNING),
        (log("percentage_used", 101), names::PERCENTAGE_USED),
        (with(parsed(NVME), "/smart_status/passed", json!(false)), names::HEALTH),
        (with(parsed(SATA), "/smart_status/passed", json!(false)), names::HEALTH),
        (with(parsed(SATA), "/ata_smart_attributes/table/3/raw/string", json!("7")), names::REALLOCATED),
        (with(sas(), "/smart_status/passed", json!(false)), names::HEALTH),
        (with(sas(), "/scsi_grown_defect_list", json!(3)), names::GROWN_DEFECTS),
        (
            with(sas(), "/scsi_error_counter_log/read/total_uncorrected_errors", json!(3)),
            names::UNCORRECTED_ERRORS,
        ),
    ]
}

proptest! {
    /// A leaf that becomes anything else makes no check better than it was.
    #[test]
    fn nothing_mangled_makes_a_bad_disk_good(
        which in any::<proptest::sample::Index>(),
        leaf in any::<proptest::sample::Index>(),
        other in prop_oneof![
            Just(Value::Null), Just(json!("")), Just(json!("x")), Just(json!([])), Just(json!({})), Just(json!(false)),
        ],
    ) {
        let all = bad_disks();
        let (bad, check) = which.get(&all).clone();
        let mut leaves_of = Vec::new();
        leaves(&bad, "", &mut leaves_of);
        let mangled = with(bad, &leaf.get(&leaves_of[..]).clone(), other);
        let verdict = verdicts(0, mangled).into_iter().find(|(name, _)| *name == check).map(|(_, verdict)| verdict);
        // An attribute whose number is gone is one that the disk does not keep: skipped, and never passed.
        prop_assert_ne!(verdict, Some(Verdict::Pass));
    }
}

#[test]
fn of_what_a_disk_says_before_its_self_test_and_after_it_the_worse_counts() {
    let plan = planned_checks(&StageSpec::of(Stage::Smart));
    let limit = |name: &str| -> Limit {
        plan.iter()
            .find(|planned| planned.name == name)
            .map(|planned| planned.limit.clone())
            .unwrap_or_default()
    };
    let report = |exit: i32, json: Value| Report::read(&said(exit, json)).unwrap();
    let verdict = |before: &Report, after: Result<&Report, String>, check: &str| {
        let first = findings(before, "smartctl");
        let found = over_both(before, first, after.map(|after| (after, "smartctl")), &limit);
        let of = found.iter().find(|finding| finding.name == check).unwrap();
        judge(&of.observed, &limit(check), false).0
    };
    let attribute =
        |value: &str| with(parsed(SATA), "/ata_smart_attributes/table/3/raw/string", json!(value));
    let warned = with(parsed(NVME), "/nvme_smart_health_information_log/critical_warning", json!(4));
    let other = with(parsed(SATA), "/serial_number", json!("ANOTHER"));
    for (before, after, check, expected) in [
        (report(0, attribute("0")), report(0, attribute("8")), names::REALLOCATED, Verdict::Fail),
        (report(0, attribute("8")), report(0, attribute("0")), names::REALLOCATED, Verdict::Fail),
        (report(0, attribute("0")), report(0, attribute("many")), names::REALLOCATED, Verdict::Inconclusive),
        (report(0, parsed(NVME)), report(0, warned), names::CRITICAL_WARNING, Verdict::Fail),
        (report(0, parsed(SATA)), report(8, parsed(SATA)), names::HEALTH, Verdict::Fail),
        (report(0, parsed(SATA)), report(0, other), names::HEALTH, Verdict::Inconclusive),
        // A later test made the failed one good; one that has just failed is in the log.
        (report(128, parsed(SATA)), report(0, parsed(SATA)), names::FAILED_SELF_TESTS, Verdict::Pass),
        (report(0, parsed(SATA)), report(128, parsed(SATA)), names::FAILED_SELF_TESTS, Verdict::Fail),
        (report(0, parsed(NVME)), report(128, parsed(NVME)), names::FAILED_SELF_TESTS, Verdict::Warn),
    ] {
        assert_eq!(verdict(&before, Ok(&after), check), expected, "{check}");
    }
    let (good, bad) = (report(0, parsed(SATA)), report(8, parsed(SATA)));
    assert_eq!(verdict(&good, Err("it is gone".to_owned()), names::HEALTH), Verdict::Inconclusive);
    assert_eq!(verdict(&bad, Err("it is gone".to_owned()), names::HEALTH), Verdict::Fail);
}

#[test]
fn where_a_self_test_stands_is_read_of_each_kind_of_disk() {
    let state = |running, last: Option<(u64, &str)>, log| State {
        running,
        last: last.map(|(code, words)| (code, words.to_owned())),
        log,
    };
    let ata = |value: u64| json!({"ata_smart_data": {"self_test": {"status": {"value": value, "string": "w"}}}, "ata_smart_self_test_log": 1});
    let nvme = |operation: u64| {
        json!({"nvme_self_test_log": {
            "current_self_test_operation": {"value": operation}, "current_self_test_completion_percent": 30,
            "table": [{"self_test_result": {"value": 7, "string": "w"}}],
        }})
    };
    let scsi = json!({"scsi_self_test_0": {"result": {"value": 15, "string": "w"}}});
    let table = json!([{"self_test_result": {"value": 7, "string": "w"}}]);
    for (kind, report, expected) in [
        (Kind::Ata, ata(0), state(None, Some((0, "w")), json!(1))),
        (Kind::Ata, ata(0xf9), state(Some(90), None, json!(1))),
        (Kind::Nvme, nvme(0), state(None, Some((7, "w")), table.clone())),
        (Kind::Nvme, nvme(1), state(Some(70), Some((7, "w")), table)),
        (Kind::Scsi, scsi.clone(), state(Some(100), Some((15, "w")), scsi["scsi_self_test_0"].clone())),
    ] {
        assert_eq!(read(&said(0, report), kind), Ok(expected));
    }
    for kind in [Kind::Nvme, Kind::Scsi] {
        let why = read(&said(0, json!({})), kind).unwrap_err();
        assert!(why.contains("7.4"), "{why}");
    }
    assert!(read(&said(0, json!({})), Kind::Ata).is_err());
}

#[test]
fn a_self_test_passes_by_its_result_alone_and_only_where_it_ran() {
    let state = |log: u64, last: Option<(u64, &str)>| State {
        running: None,
        last: last.map(|(code, words)| (code, words.to_owned())),
        log: json!(log),
    };
    let before = state(0, Some((0, "old")));
    let passed = Ok(Observation::Found { text: "completed without error".to_owned() });
    assert_eq!(outcome(&before, &state(1, Some((0, "new"))), false), passed);
    assert_eq!(outcome(&before, &state(0, Some((0, "new"))), true), passed);
    assert!(outcome(&before, &state(0, Some((0, "old"))), false).is_err());
    assert!(outcome(&before, &state(1, None), false).is_err());
    assert!(outcome(&before, &state(1, Some((1, "was Aborted by the host"))), true).is_err());
    let failed = Ok(Observation::Found { text: "read failure (code 7)".to_owned() });
    assert_eq!(outcome(&before, &state(1, Some((7, "read failure"))), true), failed);
}
