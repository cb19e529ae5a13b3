//! Self-tests that failed, in reports that were mangled, and a disk that calls itself good and is not.

use super::*;
use crate::vet::tests::mangled::{broken_leaf, mangle, manglings, with_broken};

/// Recorded of a disk of whose sectors some could not be read: what says so is the reading (fio's `read-error-passed-over.json`).
const UNREADABLE: &str = include_str!("../../../../tests/fixtures/smartctl/sata-unreadable-sectors.json");

#[test]
fn a_disk_that_calls_itself_good_is_passed_for_what_it_says_alone() {
    let all = verdicts(0, parsed(UNREADABLE));
    for (name, expected) in [
        (names::HEALTH, Verdict::Pass),
        (names::REALLOCATED, Verdict::Pass),
        (names::ERROR_LOG, Verdict::Pass),
        // What would tell of sectors that cannot be read is not kept, and nothing is made of that.
        (names::REPORTED_UNCORRECTABLE, Verdict::Skipped),
        (names::PENDING, Verdict::Skipped),
        (names::OFFLINE_UNCORRECTABLE, Verdict::Skipped),
    ] {
        assert_eq!(all.iter().find(|(of, _)| *of == name), Some(&(name, expected)));
    }
}

/// Reports of each kind of disk whose last self-test failed, after the sources of smartmontools 7.3 and 7.4.
fn failed() -> [(Kind, Value); 3] {
    let mut ata = parsed(UNREADABLE);
    ata["ata_smart_data"]["self_test"]["status"] = json!({"value": 121, "string": "completed with read failure", "remaining_percent": 90, "passed": false});
    ata["ata_smart_self_test_log"] = json!({"standard": {"revision": 1, "count": 1, "table": [{
        "type": {"value": 1, "string": "Short offline"},
        "status": {"value": 121, "string": "Completed: read failure", "remaining_percent": 90, "passed": false},
        "lifetime_hours": 1, "lba": 2048,
    }]}});
    let nvme = json!({"device": {"protocol": "NVMe"}, "nvme_self_test_log": {
        "current_self_test_operation": {"value": 0, "string": "No self-test in progress"},
        "table": [{
            "self_test_code": {"value": 1, "string": "Short"},
            "self_test_result": {"value": 7, "string": "Completed: failed segments"},
            "power_on_hours": 1, "lba": 2048,
        }],
    }});
    let scsi = json!({"device": {"protocol": "SCSI"}, "scsi_self_test_0": {
        "code": {"value": 1, "string": "Background short"},
        "result": {"value": 7, "string": "Failed in segment"},
        "power_on_time": {"hours": 1},
    }});
    [(Kind::Ata, ata), (Kind::Nvme, nvme), (Kind::Scsi, scsi)]
}

/// The verdict of a self-test after which smartctl prints this. No text that is no JSON comes further than to be none.
fn verdict(kind: Kind, printed: &[u8], seen: bool) -> Verdict {
    let before = State { running: None, last: None, log: Value::Null };
    let after = serde_json::from_slice(printed).map_err(|error| error.to_string());
    let observed =
        after.and_then(|report| read(&said(0, report), kind)).and_then(|after| match after.running {
            Some(_) => Err("it is under way".to_owned()),
            None => outcome(&before, &after, seen),
        });
    let plan = planned_checks(&StageSpec::of(Stage::Smart));
    let limit = plan.iter().find(|planned| planned.name == names::SELF_TEST).unwrap().limit.clone();
    let observed = observed.unwrap_or_else(|why| Observation::Unreadable { why });
    judge_stage(&[], &[Check::of(names::SELF_TEST, None, observed, limit)]).verdict
}

#[test]
fn failed_self_tests_fail_on_each_kind_of_disk() {
    for (kind, report) in failed() {
        assert_eq!(verdict(kind, report.to_string().as_bytes(), false), Verdict::Fail, "{kind:?}");
    }
}

proptest! {
    #[test]
    fn no_broken_leaf_makes_a_failed_self_test_good(
        which in 0..3_usize,
        broken in broken_leaf(),
        seen: bool,
    ) {
        let [(kind, report), ..] = { let mut all = failed(); all.rotate_left(which); all };
        let report = with_broken(report, &broken);
        let verdict = verdict(kind, report.to_string().as_bytes(), seen);
        prop_assert!(matches!(verdict, Verdict::Fail | Verdict::Inconclusive), "{} of {}", verdict, report);
    }

    #[test]
    fn no_mangled_report_makes_a_failed_self_test_good(
        which in 0..3_usize,
        manglings in manglings(),
        seen: bool,
    ) {
        let (kind, report) = &failed()[which];
        let printed = mangle(&serde_json::to_string_pretty(report).unwrap(), &manglings);
        let verdict = verdict(*kind, &printed, seen);
        prop_assert!(matches!(verdict, Verdict::Fail | Verdict::Inconclusive), "{}", verdict);
    }
}
