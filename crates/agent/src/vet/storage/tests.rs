//! fio's reports, real ones and mangled ones, and the stage with a stand-in for fio and with the real one.

use groundcrew_protocol::check::{Limit, Verdict, judge_stage};
use groundcrew_protocol::plan::planned_checks;
use groundcrew_protocol::profile::StageSpec;
use groundcrew_protocol::stage::Stage;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::parse::{Direction, load};
use super::*;
use crate::vet::tests::leaves;

mod mangled;

const RANDOM: &str = include_str!("../../../tests/fixtures/fio/random-read.json");
const READ_ERROR: &str = include_str!("../../../tests/fixtures/fio/read-error.json");
const PASSED_OVER: &str = include_str!("../../../tests/fixtures/fio/read-error-passed-over.json");
const WRITE_ERROR: &str = include_str!("../../../tests/fixtures/fio/write-error.json");
const VERIFIED: &str = include_str!("../../../tests/fixtures/fio/write-verify.json");

fn disk() -> Disk {
    Disk {
        name: "sdb".into(),
        model: None,
        serial: Some("S1".into()),
        wwn: None,
        size_bytes: 138_047_488,
        transport: Some("sata".into()),
        rotational: Some(false),
        firmware: None,
        pci: None,
    }
}

/// The verdict of each check of two loads, by the plan of these settings.
fn verdicts(
    settings: &StorageSettings,
    sequential: &Loaded,
    random: &Loaded,
) -> Vec<(&'static str, Verdict)> {
    let spec = StageSpec { storage: Some(settings.clone()), ..StageSpec::of(Stage::Storage) };
    let plan = planned_checks(&spec);
    observed(settings, &disk(), sequential, random)
        .into_iter()
        .map(|(name, observed)| {
            let limit = plan.iter().find(|planned| planned.name == name).unwrap().limit.clone();
            (name, judge_stage(&[], &[Check::of(name, None, observed, limit)]).verdict)
        })
        .collect()
}

fn verdict_of(all: &[(&str, Verdict)], name: &str) -> Verdict {
    all.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn recorded_reports_are_read() {
    let random = load(RANDOM.as_bytes(), Direction::Read).unwrap();
    assert_eq!((random.errors, random.bytes, random.seconds), (0, 138_047_488.0, 1.001));
    assert_eq!(random.p99_ms, Ok(10.420224));
    let verified = load(VERIFIED.as_bytes(), Direction::Write).unwrap_err();
    assert!(verified.contains("/total_err"), "it passed no errors over, so nobody counted them: {verified}");
    for (text, errors) in [(READ_ERROR, 1), (PASSED_OVER, 1)] {
        assert_eq!(load(text.as_bytes(), Direction::Read).unwrap().errors, errors);
    }
    assert_eq!(load(WRITE_ERROR.as_bytes(), Direction::Write).unwrap().errors, 1);
}

#[test]
fn errors_of_a_disk_fail_and_those_of_the_test_are_no_word_on_it() {
    let with_error = |code: i64| {
        let mut report: Value = serde_json::from_str(RANDOM).unwrap();
        report["jobs"][0]["error"] = json!(code);
        load(report.to_string().as_bytes(), Direction::Read)
    };
    for code in [5, 6, 19, 61, 84, 121] {
        assert_eq!(with_error(code).unwrap().errors, 1, "{code}");
    }
    for code in [1, 2, 13, 22, 28, 38, 52, 95] {
        assert!(with_error(code).unwrap_err().contains(&format!("error {code}")));
    }
}

#[test]
fn loads_are_judged_by_table() {
    let good = || load(RANDOM.as_bytes(), Direction::Read);
    let default = || StorageSettings { sequential: 1_000, random: 1_000, ..StorageSettings::default() };
    let whole = || StorageSettings { full_surface: true, ..default() };
    let broken = || Err("fio is gone".to_owned());
    let bad = || load(PASSED_OVER.as_bytes(), Direction::Read);
    for (settings, sequential, random, name, expected) in [
        (default(), good(), good(), names::IO_ERRORS, Verdict::Pass),
        (default(), bad(), good(), names::IO_ERRORS, Verdict::Fail),
        (default(), good(), bad(), names::IO_ERRORS, Verdict::Fail),
        (default(), bad(), broken(), names::IO_ERRORS, Verdict::Fail),
        (default(), good(), broken(), names::IO_ERRORS, Verdict::Inconclusive),
        (default(), good(), good(), names::DURATION, Verdict::Pass),
        (default(), good(), broken(), names::DURATION, Verdict::Inconclusive),
        (
            StorageSettings { random: 60_000, sequential: 60_000, ..default() },
            good(),
            good(),
            names::DURATION,
            Verdict::Fail,
        ),
        (
            StorageSettings { sequential_min_mb_s: Some(137.0), ..default() },
            good(),
            good(),
            names::SEQUENTIAL_READ,
            Verdict::Pass,
        ),
        (
            StorageSettings { sequential_min_mb_s: Some(138.0), ..default() },
            good(),
            good(),
            names::SEQUENTIAL_READ,
            Verdict::Fail,
        ),
        (
            StorageSettings { random_min_iops: Some(33_669.0), ..default() },
            good(),
            good(),
            names::RANDOM_READ,
            Verdict::Pass,
        ),
        (
            StorageSettings { random_min_iops: Some(33_670.0), ..default() },
            good(),
            good(),
            names::RANDOM_READ,
            Verdict::Fail,
        ),
        (
            StorageSettings { random_p99_max_ms: Some(10.4), ..default() },
            good(),
            good(),
            names::RANDOM_LATENCY,
            Verdict::Fail,
        ),
        (
            StorageSettings { sequential_p99_max_ms: Some(10.5), ..default() },
            good(),
            good(),
            names::SEQUENTIAL_LATENCY,
            Verdict::Pass,
        ),
        (whole(), good(), good(), names::SURFACE, Verdict::Pass),
        (whole(), bad(), good(), names::SURFACE, Verdict::Fail),
    ] {
        let all = verdicts(&settings, &sequential, &random);
        assert_eq!(verdict_of(&all, name), expected, "{name} {settings:?}");
    }
}

/// fio that gets SIGTERM within its check says no error, and ends with status 128.
#[test]
fn a_load_that_was_cut_off_is_none() {
    let good = || load(RANDOM.as_bytes(), Direction::Read);
    assert!(fio::ended(good(), 0).is_ok());
    assert!(fio::ended(good(), 128).unwrap_err().contains("ended with status 128"));
    // The errors that it saw count all the same.
    assert_eq!(fio::ended(load(PASSED_OVER.as_bytes(), Direction::Read), 128).unwrap().errors, 1);
    const SIZE: u64 = 16 << 20;
    let of = |errors: u64, written: u64, read: u64| {
        let load = Load { errors, bytes: written as f64, bytes_read: read as f64, ..good().unwrap() };
        judge_stage(
            &[],
            &[Check::of(names::FILE_ERRORS, None, write::verified(&load, SIZE), Limit::at_most(0.0))],
        )
        .verdict
    };
    for (errors, written, read, expected) in [
        (0, SIZE, SIZE, Verdict::Pass),
        (0, SIZE, 4_108_288, Verdict::Inconclusive),
        (0, SIZE, 0, Verdict::Inconclusive),
        (0, SIZE - 1, SIZE, Verdict::Inconclusive),
        (1, SIZE, 4_108_288, Verdict::Fail),
    ] {
        assert_eq!(of(errors, written, read), expected, "{errors} {written} {read}");
    }
}

#[test]
fn disks_that_are_read_in_turns_need_time_for_all_turns() {
    let settings = StorageSettings { sequential: 20_000, random: 10_000, ..StorageSettings::default() };
    let whole = StorageSettings { full_surface: true, ..settings.clone() };
    for (settings, disks, seconds, fits) in [
        // One turn's time is the profile's to know, and the deadline's to end.
        (&settings, 0, 1, true),
        (&settings, DISKS_AT_A_TIME, 1, true),
        (&settings, DISKS_AT_A_TIME + 1, 60, true),
        (&settings, DISKS_AT_A_TIME + 1, 59, false),
        (&settings, 2 * DISKS_AT_A_TIME + 1, 60, false),
        (&whole, DISKS_AT_A_TIME + 1, 20, true),
        (&whole, DISKS_AT_A_TIME + 1, 19, false),
    ] {
        let said = too_short(settings, disks, Duration::from_secs(seconds));
        assert_eq!(said.is_none(), fits, "{disks} {seconds}: {said:?}");
    }
}

#[test]
fn a_report_that_breaks_off_or_contradicts_itself_gives_nothing() {
    for cut in (0..RANDOM.trim_end().len()).step_by(7) {
        assert!(load(&RANDOM.as_bytes()[..cut], Direction::Read).is_err(), "cut at {cut}");
    }
    for (from, to) in [
        ("\"io_bytes\" : 138047488", "\"io_bytes\" : 0"),
        ("\"io_bytes\" : 138047488", "\"io_bytes\" : 1380474880"),
        ("\"total_ios\" : 33703", "\"total_ios\" : 3370"),
        ("\"runtime\" : 1001", "\"runtime\" : 10010"),
        ("\"runtime\" : 1001", "\"runtime\" : 0"),
        ("\"error\" : 0", "\"error\" : \"none\""),
        ("\"total_err\" : 0", "\"total_er\" : 0"),
        ("\"jobs\"", "\"job\""),
    ] {
        assert!(RANDOM.contains(from), "{from}");
        assert!(load(RANDOM.replacen(from, to, 1).as_bytes(), Direction::Read).is_err(), "{from} -> {to}");
    }
}

proptest! {
    /// A leaf that becomes anything else hides no error.
    #[test]
    fn nothing_mangled_makes_a_bad_disk_good(
        leaf in any::<proptest::sample::Index>(),
        other in prop_oneof![Just(Value::Null), Just(json!("")), Just(json!("x")), Just(json!([])), Just(json!(false)), Just(json!(0))],
    ) {
        let text = &PASSED_OVER[PASSED_OVER.find('{').unwrap()..];
        let mut report: Value = serde_json::from_str(text).unwrap();
        let mut all = Vec::new();
        leaves(&report, "", &mut all);
        *report.pointer_mut(leaf.get(&all).as_str()).unwrap() = other;
        let read = load(report.to_string().as_bytes(), Direction::Read);
        let good = load(RANDOM.as_bytes(), Direction::Read);
        let judged = verdicts(&StorageSettings::default(), &read, &good);
        prop_assert_ne!(verdict_of(&judged, names::IO_ERRORS), Verdict::Pass);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(load(&bytes, Direction::Read).is_err());
    }
}
