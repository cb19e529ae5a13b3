//! What fio says of writes that went wrong, mangled.

use groundcrew_protocol::profile::WrittenFile;

use super::*;
use crate::vet::tests::mangled::{broken_leaf, mangle, manglings, with_broken};

/// Recorded of reads and writes here and there: some blocks were written, and others read.
const MIXED: &str = include_str!("../../../../tests/fixtures/fio/random-read-write-verify.json");
/// What `write-verify.json` wrote and read back.
const SIZE: u64 = 32 << 20;

/// The verdicts of a file, and of a disk that was written over: of its errors, and of how much was written.
fn verdicts_of(printed: &[u8], status: i32, size: u64) -> [Verdict; 3] {
    let load = fio::ended(load(printed, Direction::Write), status);
    let of_file = match &load {
        Ok(load) => write::verified(load, size),
        Err(why) => Observation::Unreadable { why: why.clone() },
    };
    let [errors, written, ..] = overwrite::observed(&load, size);
    let file = WrittenFile { write_folder: "/scratch".into(), write_mib: 32 };
    let plan =
        |settings| planned_checks(&StageSpec { storage: Some(settings), ..StageSpec::of(Stage::Storage) });
    let mut all = plan(StorageSettings { written: Some(file), ..StorageSettings::default() });
    all.extend(plan(StorageSettings { destructive: true, ..StorageSettings::default() }));
    [(names::FILE_ERRORS, of_file), errors, written].map(|(name, observed)| {
        let limit = all.iter().find(|planned| planned.name == name).unwrap().limit.clone();
        judge_stage(&[], &[Check::of(name, None, observed, limit)]).verdict
    })
}

fn edited(change: impl FnOnce(&mut Value)) -> String {
    let mut report: Value = serde_json::from_str(VERIFIED).unwrap();
    report["jobs"][0]["total_err"] = json!(0);
    report["jobs"][0]["first_error"] = json!(0);
    change(&mut report["jobs"][0]);
    serde_json::to_string_pretty(&report).unwrap()
}

/// A disk that did not write, one that gave back something else (EILSEQ), and one that was not read back to its end; with the
/// verdicts of each as it stands.
fn faulty() -> [(String, [Verdict; 3]); 3] {
    use Verdict::{Fail, Inconclusive, Pass};
    let other = edited(|job| {
        (job["error"], job["total_err"], job["first_error"]) = (json!(84), json!(1), json!(84));
    });
    let part = edited(|job| job["read"]["io_bytes"] = json!(4_108_288));
    [
        (WRITE_ERROR[WRITE_ERROR.find('{').unwrap()..].to_owned(), [Fail; 3]),
        (other, [Fail, Fail, Pass]),
        (part, [Inconclusive, Pass, Fail]),
    ]
}

/// Those of the checks that say what is wrong: none of them passes.
fn hidden(faulty: &[Verdict; 3], mangled: &[Verdict; 3]) -> bool {
    faulty.iter().zip(mangled).any(|(was, is)| *was != Verdict::Pass && *is == Verdict::Pass)
}

#[test]
fn writes_that_went_wrong_are_judged_as_they_stand() {
    assert_eq!(verdicts_of(edited(|_| {}).as_bytes(), 0, SIZE), [Verdict::Pass; 3]);
    for (printed, expected) in faulty() {
        assert_eq!(verdicts_of(printed.as_bytes(), 0, SIZE), expected, "{printed}");
    }
}

#[test]
fn reads_and_writes_of_some_blocks_prove_no_file() {
    assert_eq!(
        verdicts_of(MIXED.as_bytes(), 0, 16 << 20),
        [Verdict::Inconclusive; 3],
        "no errors were counted"
    );
    let mut counted: Value = serde_json::from_str(MIXED).unwrap();
    counted["jobs"][0]["total_err"] = json!(0);
    let verdicts = verdicts_of(counted.to_string().as_bytes(), 0, 16 << 20);
    assert_eq!(verdicts, [Verdict::Inconclusive, Verdict::Pass, Verdict::Fail], "half of it was written");
}

proptest! {
    #[test]
    fn no_broken_leaf_hides_a_write_that_went_wrong(which in 0..3_usize, broken in broken_leaf(), status in 0..2) {
        let (printed, expected) = &faulty()[which];
        let report = with_broken(serde_json::from_str(printed).unwrap(), &broken);
        let verdicts = verdicts_of(report.to_string().as_bytes(), status, SIZE);
        prop_assert!(!hidden(expected, &verdicts), "{:?} of {}", verdicts, report);
    }

    #[test]
    fn nothing_mangled_hides_a_write_that_went_wrong(which in 0..3_usize, manglings in manglings(), status in 0..2) {
        let (printed, expected) = &faulty()[which];
        let verdicts = verdicts_of(&mangle(printed, &manglings), status, SIZE);
        prop_assert!(!hidden(expected, &verdicts), "{:?}", verdicts);
    }
}
