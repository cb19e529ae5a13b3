//! Walks of whole profiles on a machine of files, with a fake stress-ng as a real process.

use super::*;
use crate::probe::fixture::{self, Machine};
use crate::process::tool::tests::stand_in;
use crate::vet::terminal::tests::Paper;
use crate::vet::tests::{as_stress_ng, put_script};
use groundcrew_protocol::stage::Stage;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stress-ng");
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
const BOTH: &str = "name = \"p\"\n[[stage]]\nname = \"Inventory\"\n[[stage]]\nname = \"CPUStress\"\n\
                    [stage.cpu_stress]\nduration = \"1s\"\n";

/// Walks a profile; `script` is what stress-ng does.
fn walk(
    machine: &Machine,
    profile: &str,
    script: &str,
    cancel: &Cancel,
) -> (Walked, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    put_script(&folder.path().join("stress-ng"), &as_stress_ng(script));
    let paper = Paper::default();
    let alone = Alone {
        profile: &Profile::parse(profile).unwrap(),
        root: machine.root.clone(),
        launcher: stand_in(),
        search_path: format!("{}:{SYSTEM_PATH}", folder.path().display()).into(),
        work: folder.path(),
        cancel,
        screen: Arc::new(Screen::on(Box::new(paper.clone()), false)),
    };
    let walked = alone.walk();
    (walked, paper.text(), folder)
}

fn healthy() -> String {
    format!("sleep 1; cat {FIXTURES}/healthy.err >&2; cp {FIXTURES}/healthy.yaml \"$yaml\"")
}

#[test]
fn a_healthy_machine_completes_with_its_report_written() {
    let cancel = Cancel::new().unwrap();
    let (walked, shown, folder) = walk(&fixture::server(), BOTH, &healthy(), &cancel);
    let report = &walked.report;
    assert_eq!((report.verdict, &report.state), (Verdict::Pass, &State::Completed), "{shown}");
    assert_eq!(exit_code(report, true), 0);
    let stages: Vec<&Stage> = report.stages.iter().map(|stage| &stage.stage).collect();
    assert_eq!(stages, [&Stage::Inventory, &Stage::CpuStress]);
    assert!(report.stages[1].log_tail.iter().any(|line| line.text.contains("successful run completed")));
    assert!(report.sensors.iter().any(|series| series.key == "nvme nvme0 Composite"));
    assert!(report.inventory.is_some());
    assert!(shown.contains("Inventory: begins") && shown.contains("CPUStress      pass"), "{shown}");

    write_files(folder.path(), &walked).unwrap();
    let json = std::fs::read(folder.path().join("report.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), *report);
    assert!(
        std::fs::read_to_string(folder.path().join("report.html")).unwrap().starts_with("<!DOCTYPE html>")
    );
    assert!(folder.path().join("CPUStress-stress-ng.yaml").is_file());
}

#[test]
fn other_hardware_than_expected_fails() {
    let profile = format!("{BOTH}[expected]\ngpu_count = 8\n[expected.cpu]\nsockets = 2\n");
    let (walked, shown, _) = walk(&fixture::server(), &profile, &healthy(), &Cancel::new().unwrap());
    assert_eq!(walked.report.stages[1].stage, Stage::SpecValidate);
    assert_eq!(walked.report.stages[1].verdict, Some(Verdict::Fail));
    assert_eq!(walked.report.stages[2].verdict, Some(Verdict::Pass), "the walk held at a failure");
    assert_eq!((&walked.report.state, exit_code(&walked.report, true)), (&State::Completed, 1), "{shown}");
    assert!(
        walked.report.reason.contains("would have been held at SpecValidate"),
        "{}",
        walked.report.reason
    );
}

#[test]
fn a_wrong_result_fails_and_an_unclear_one_is_inconclusive() {
    let wrong = format!("cat {FIXTURES}/verify-failed.err >&2; exit 2");
    for (script, code) in [(wrong.as_str(), 1), ("exit 0", 2), ("exit 3", 2)] {
        let (walked, _, _) = walk(&fixture::server(), BOTH, script, &Cancel::new().unwrap());
        assert_eq!(exit_code(&walked.report, true), code, "{script}");
    }
}

#[test]
fn a_stage_that_could_check_nothing_is_inconclusive() {
    let profile = "name = \"p\"\n[[stage]]\nname = \"Inventory\"\n[[stage]]\nname = \"Network\"\n";
    let (walked, shown, _) = walk(&fixture::server(), profile, "", &Cancel::new().unwrap());
    assert_eq!(exit_code(&walked.report, true), 2);
    assert!(shown.contains("names nobody to speak with"), "{shown}");
}

#[test]
fn an_interrupt_ends_the_stage_and_starts_no_other() {
    let cancel = Cancel::new().unwrap();
    cancel.ask();
    let (walked, _, _) = walk(&fixture::server(), BOTH, "sleep 1000", &cancel);
    assert!(walked.report.stages.iter().all(|stage| stage.attempts == 0));
    assert_eq!((walked.report.state.clone(), exit_code(&walked.report, true)), (State::Cancelled, 130));
}

#[test]
fn a_run_that_checked_nothing_is_no_success() {
    let (walked, _, _) = walk(&fixture::server(), BOTH, &healthy(), &Cancel::new().unwrap());
    let mut report = walked.report;
    assert_eq!(exit_code(&report, true), 0);
    for check in report.stages.iter_mut().flat_map(|stage| &mut stage.checks) {
        check.observed = groundcrew_protocol::check::Observation::Absent { why: "none".into() };
    }
    assert_eq!(exit_code(&report, true), 2);
    report.stages.clear();
    report.verdict = Verdict::Skipped;
    assert_eq!(exit_code(&report, true), 2);
}

#[test]
fn a_verdict_has_one_exit_status_and_a_lost_report_is_no_success() {
    let (walked, _, _) = walk(&fixture::server(), BOTH, &healthy(), &Cancel::new().unwrap());
    for (verdict, code, lost) in [
        (Verdict::Pass, 0, 2),
        (Verdict::Warn, 0, 2),
        (Verdict::Fail, 1, 1),
        (Verdict::Inconclusive, 2, 2),
        (Verdict::Skipped, 2, 2),
    ] {
        let report = Report { verdict, ..walked.report.clone() };
        assert_eq!((exit_code(&report, true), exit_code(&report, false)), (code, lost), "{verdict}");
        let cancelled = Report { state: State::Cancelled, ..report };
        assert_eq!((exit_code(&cancelled, true), exit_code(&cancelled, false)), (130, 130), "{verdict}");
    }
}

#[test]
fn arguments_are_read_or_refused() {
    let read = |words: &[&str]| parse(&words.iter().map(OsString::from).collect::<Vec<_>>());
    let expected = Arguments { profile: "p.toml".into(), folder: "out".into(), json: true };
    assert_eq!(read(&["--profile", "p.toml", "--report=out", "--json"]).unwrap(), Some(expected));
    assert_eq!(read(&["--help"]).unwrap(), None);
    for bad in [&["--json"][..], &["--profile"], &["--profile", "p", "more"], &["--nonsense"]] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
    assert_eq!(run(&["--nonsense".into()]), ExitCode::from(64));
}

#[test]
fn a_bad_profile_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    std::fs::write(&path, "name = \"p\"\n[[stage]]\nname = \"CPUStres\"\n").unwrap();
    let said = format!("{:#}", read_profile(&path).unwrap_err());
    assert!(said.contains("p.toml") && said.contains("line 3") && said.contains("CPUStres"), "{said}");
    let arguments = ["--profile".into(), path.into_os_string()];
    assert_eq!(run(&arguments), ExitCode::from(BAD_USAGE));
    assert_eq!(run(&["--profile".into(), "/no/such/file".into()]), ExitCode::from(BAD_USAGE));
}
