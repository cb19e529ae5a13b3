//! Stages on a machine of files and on this one, with a fake stress-ng as a real process, and with the real one.

use std::collections::BTreeMap;
use std::sync::Mutex;

use groundcrew_client::PinSet;
use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::plan::INVENTORY_CHECKS;
use groundcrew_protocol::profile::{CpuStressSettings, PackageSettings};

use super::*;
use crate::client::Orchestrator;
use crate::probe::fixture::{self, Machine};
use crate::process::tool::tests::stand_in;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stress-ng");

const PACKAGES_REFUSED: &str = "a test applies no packages";
const INTERRUPTS_REFUSED: &str = "a test interrupts nothing";

mod counters;
mod gpu;
mod interrupts;
pub(super) mod mangled;
mod memory;
mod network;
mod overwrites;
mod smart;
mod soak;
mod storage;

/// What a stage said: lines and progress.
#[derive(Default)]
struct Said {
    lines: Mutex<Vec<(LogLevel, String)>>,
    progress: Mutex<Vec<Progress>>,
}

struct Stage {
    context: StageContext,
    said: Arc<Said>,
    work: tempfile::TempDir,
}

fn stage(name: &str, root: &Root) -> Stage {
    let work = tempfile::tempdir().unwrap();
    let said = Arc::new(Said::default());
    let (lines, progress) = (Arc::clone(&said), Arc::clone(&said));
    let context = StageContext {
        spec: StageSpec { deadline: 60_000, ..StageSpec::of(name.into()) },
        packages: Err(PACKAGES_REFUSED),
        interrupts: Err(INTERRUPTS_REFUSED),
        wipes: Err("no disk is written over here"),
        plan: Vec::new(),
        expected_disks: Vec::new(),
        non_destructive: true,
        override_flags: OverrideFlags::default(),
        root: root.clone(),
        launcher: stand_in(),
        children: Arc::new(ChildRecords::in_home(work.path())),
        work: work.path().to_owned(),
        search_path: PATH.into(),
        lines: Arc::new(move |level, line| lines.lines.lock().unwrap().push((level, line))),
        progress: Arc::new(move |progress_now| progress.progress.lock().unwrap().push(progress_now)),
        cancel: Cancel::new().unwrap(),
    };
    Stage { context, said, work }
}

impl Stage {
    /// Puts a shell script in place of a tool.
    fn put_tool(&mut self, name: &str, script: &str) {
        let bin = self.work.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        put_script(&bin.join(name), script);
        self.context.search_path = format!("{}:{PATH}", bin.display()).into();
    }
}

/// Makes a program of a shell script. Another process writes it: what another test starts meanwhile would hold the file open
/// for writing until it has become its program, and the kernel refuses to run such a file (ETXTBSY).
pub(super) fn put_script(path: &std::path::Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let write = ["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\""];
    let written = std::process::Command::new("/bin/sh").args(write).arg(path).arg(script).status().unwrap();
    assert!(written.success(), "writing {}: {written}", path.display());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A script in place of stress-ng; `$yaml` is the metrics file that it is asked for.
pub(super) fn as_stress_ng(script: &str) -> String {
    format!("for word; do [ \"$last\" = --yaml ] && yaml=$word; last=$word; done\n{script}")
}

/// The pointers of everything in a report that holds no further values.
pub(super) fn leaves(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found));
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| leaves(value, &format!("{at}/{n}"), found));
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => found.push(at.to_owned()),
    }
}

/// CPUStress with a shell script in place of stress-ng.
fn with_fake(root: &Root, script: &str) -> Stage {
    let mut stage = stage("CPUStress", root);
    let settings = CpuStressSettings { duration: 10_000, ..CpuStressSettings::default() };
    stage.context.spec.cpu_stress = Some(settings);
    stage.put_tool("stress-ng", &as_stress_ng(script));
    stage
}

/// Plays a recorded run.
fn replay(name: &str, status: u8) -> String {
    format!("cat {FIXTURES}/{name}.err >&2; cp {FIXTURES}/{name}.yaml \"$yaml\"; exit {status}")
}

fn verdict(outcome: &StageOutcome, check: &str) -> Verdict {
    outcome
        .checks
        .iter()
        .find(|found| found.name == check)
        .unwrap_or_else(|| panic!("no check {check}"))
        .verdict
}

fn assert_inconclusive(outcome: &StageOutcome, why: &str) {
    assert_eq!(outcome.verdict, Verdict::Inconclusive, "{outcome:?}");
    assert!(!outcome.passed);
    assert!(outcome.message.contains(why), "{} does not say {why}", outcome.message);
}

#[test]
fn the_inventory_of_a_server_passes_with_every_part_named() {
    let machine = fixture::server();
    let outcome = run_stage(&stage("Inventory", &machine.root).context);
    assert_eq!((outcome.verdict, outcome.passed), (Verdict::Pass, true), "{}", outcome.message);
    assert_eq!(
        outcome.summary, "pass: 9 pass, 12 skipped",
        "it keeps no counters, and says nothing of links"
    );
    assert_eq!(outcome.inventory.unwrap().disks.len(), 4);
    let dimms = outcome.checks.iter().find(|check| check.name == "dimms").unwrap();
    assert!(dimms.observed.describe().starts_with("4 modules, 96.0 GiB: DIMM_A1,"), "{dimms:?}");
}

#[test]
fn a_gpu_on_the_bus_without_its_driver_fails() {
    let machine = fixture::server();
    machine.pci("0000:27:00.0", "0x030200", "0x10de", "0x2335");
    let outcome = run_stage(&stage("Inventory", &machine.root).context);
    assert_eq!((outcome.verdict, outcome.passed), (Verdict::Fail, false), "{outcome:?}");
    assert_eq!(outcome.message, "the driver of the GPU 10de:2335 at 0000:27:00.0 is missing");
    let of_gpus = |check: &&Check| check.name == "gpus";
    let gpus: Vec<(Option<&str>, Verdict)> = outcome
        .checks
        .iter()
        .filter(of_gpus)
        .map(|check| (check.component.as_deref(), check.verdict))
        .collect();
    let expected = [(Some("0000:17:00.0"), Verdict::Pass), (Some("0000:27:00.0"), Verdict::Fail)];
    assert_eq!(gpus, expected, "each GPU has a check of its own, the console none");
    // The orchestrator judges the same: the plan's limit does not let it pass either.
    let judged = groundcrew_protocol::check::judge_stage(
        &planned_checks(&stage("Inventory", &machine.root).context.spec),
        &outcome.checks,
    );
    assert_eq!(judged.verdict, Verdict::Fail);
}

#[test]
fn a_console_without_a_driver_is_no_gpu() {
    let machine = fixture::server();
    std::fs::remove_dir_all(machine.root.path("/sys/bus/pci/devices/0000:17:00.0")).unwrap();
    machine.take_driver("0000:03:00.0");
    let outcome = run_stage(&stage("Inventory", &machine.root).context);
    assert_eq!(verdict(&outcome, "gpus"), Verdict::Skipped);
    assert!(outcome.passed, "{}", outcome.message);
    let gpus = outcome.checks.iter().find(|check| check.name == "gpus").unwrap();
    assert!(gpus.reason.contains("0000:03:00.0 1a03:2000 only shows a console"), "{gpus:?}");
}

#[test]
fn what_a_machine_does_not_have_is_skipped_unless_it_is_required() {
    let machine = fixture::server();
    for folder in ["/sys/firmware/dmi", "/sys/bus/pci"] {
        std::fs::remove_dir_all(machine.root.path(folder)).unwrap();
    }
    let mut stage = stage("Inventory", &machine.root);
    let outcome = run_stage(&stage.context);
    assert_eq!(outcome.summary, "pass: 4 pass, 17 skipped");
    for name in ["dimms", "gpus", "dmi", "firmware", "psus"] {
        assert_eq!(verdict(&outcome, name), Verdict::Skipped, "{name}");
    }
    stage.context.spec.require = vec!["gpus".into()];
    assert_inconclusive(&run_stage(&stage.context), "no PCI bus");
}

#[test]
fn a_part_that_is_there_and_cannot_be_read_holds() {
    let machine = fixture::server();
    machine.write("/sys/firmware/dmi/tables/smbios_entry_point", "nonsense");
    assert_inconclusive(
        &run_stage(&stage("Inventory", &machine.root).context),
        "the entry point is none of SMBIOS",
    );
    let nothing = Machine::empty();
    let outcome = run_stage(&stage("Inventory", &nothing.root).context);
    for name in ["cpu", "memory", "disks", "nics"] {
        assert_eq!(verdict(&outcome, name), Verdict::Inconclusive, "{name}");
    }
}

#[test]
fn this_machines_inventory_names_its_cpus_and_memory() {
    let outcome = run_stage(&stage("Inventory", &Root::system()).context);
    for name in ["cpu", "memory"] {
        assert_eq!(verdict(&outcome, name), Verdict::Pass, "{name}: {}", outcome.message);
    }
    for name in INVENTORY_CHECKS {
        assert!(outcome.checks.iter().any(|check| check.name == name), "no check of {name}");
    }
}

#[test]
fn a_stage_that_the_agent_does_not_know_is_inconclusive_by_name() {
    for name in ["Later", "SpecValidate"] {
        let outcome = run_stage(&stage(name, &Machine::empty().root).context);
        assert_inconclusive(&outcome, &format!("has no stage {name}"));
    }
}

#[test]
fn a_package_that_may_not_be_applied_or_is_not_there_is_inconclusive() {
    let mut stage = stage("Package:a/apply", &Machine::empty().root);
    assert_inconclusive(&run_stage(&stage.context), "no package's settings");
    let folder = stage.work.path().join("pkg");
    stage.context.spec.package = Some(PackageSettings {
        name: "a".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        path: Some(folder.display().to_string()),
        sha256: None,
        root_mount: "/".to_owned(),
        copy_dir: None,
        interrupt: None,
        env: BTreeMap::new(),
        config_files: BTreeMap::new(),
    });
    assert_inconclusive(&run_stage(&stage.context), PACKAGES_REFUSED);
    // Nothing listens there.
    let url = "https://127.0.0.1:1".parse().unwrap();
    let nobody = Orchestrator::new(url, PinSet::new([]), None, "r-test".parse().unwrap());
    let store = Arc::new(Store::new(nobody, stage.work.path(), Vec::new()));
    stage.context.packages = Ok(Packages { instance: "groundcrew-r-0".to_owned(), store });
    assert_inconclusive(&run_stage(&stage.context), "pkg");
    // One from the store, of which the run froze nothing, and one that does not come in time.
    let of_folder = stage.context.spec.package.take().unwrap();
    let mut stored = PackageSettings { path: None, ..of_folder.clone() };
    for (sha256, part) in
        [(None, "neither a folder nor a sum"), (Some(Sha256Hex::of(b"x")), "0 bytes had come")]
    {
        stage.context.spec.deadline = 1;
        stored.sha256 = sha256;
        stage.context.spec.package = Some(stored.clone());
        assert_inconclusive(&run_stage(&stage.context), part);
    }
    stage.context.spec.deadline = 60_000;
    stage.context.spec.package = Some(of_folder);
    // Another package than the profile names is a failure that says both.
    std::fs::create_dir(&folder).unwrap();
    let step = r#"{"name": "a", "path": "a.sh", "arguments": [], "returncodes": [0], "on_host": true,
        "idempotence": false, "upgrade_step": false}"#;
    let config = format!(
        r#"{{"schema_version": "v1", "package_name": "b", "package_version": "2.0.0", "expected_config_files": [],
        "modes": {{"apply": [{step}], "apply-check": [{step}]}}}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
    let outcome = run_stage(&stage.context);
    assert_eq!(verdict(&outcome, "steps"), Verdict::Fail, "{}", outcome.message);
    assert!(
        outcome.message.contains("b 2.0.0") && outcome.message.contains("a 1.0.0"),
        "{}",
        outcome.message
    );
}

#[test]
fn a_recorded_load_is_judged_check_by_check() {
    let stage = with_fake(&Machine::empty().root, &replay("healthy", 0));
    // The script replays ten seconds in none: only the clock of the agent knows.
    let outcome = run_stage(&stage.context);
    assert_eq!(verdict(&outcome, "miscompares"), Verdict::Pass);
    assert_eq!(verdict(&outcome, "rate"), Verdict::Pass);
    assert_eq!(verdict(&outcome, "throttling"), Verdict::Skipped);
    assert_eq!(verdict(&outcome, "frequency"), Verdict::Skipped);
    assert_eq!(verdict(&outcome, "duration"), Verdict::Fail, "a load that ended early passed");
    let names: Vec<&str> = outcome.artifacts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["stress-ng.stderr", "stress-ng.yaml"]);
    let lines = stage.said.lines.lock().unwrap();
    assert!(lines.iter().any(|(_, line)| line.contains("successful run completed")));
    assert_eq!(stage.said.progress.lock().unwrap().last().unwrap().fraction, 1.0);
}

#[test]
fn a_wrong_result_fails() {
    let stage = with_fake(&Machine::empty().root, &replay("verify-failed", 2));
    let outcome = run_stage(&stage.context);
    assert_eq!((outcome.verdict, outcome.passed), (Verdict::Fail, false));
    let check = outcome.checks.iter().find(|check| check.name == "miscompares").unwrap();
    assert_eq!(check.observed, Observation::measured(12.0, "miscompares"));
    assert!(check.evidence.contains("lrand48 error detected"), "{}", check.evidence);
    let lines = stage.said.lines.lock().unwrap();
    assert!(lines.iter().any(|(level, line)| *level == LogLevel::Error && line.contains("error detected")));
}

#[test]
fn a_wrong_result_fails_even_where_nothing_else_was_reported() {
    let said = "echo 'stress-ng: fail:  [7] cpu: sqrt error detected on sqrt(7)' >&2";
    for ending in ["exit 0", "exit 7", "kill -KILL $$"] {
        let stage = with_fake(&Machine::empty().root, &format!("{said}; {ending}"));
        assert_eq!(run_stage(&stage.context).verdict, Verdict::Fail, "{ending}");
    }
}

#[test]
fn what_stress_ng_does_not_say_clearly_is_inconclusive() {
    let healthy = format!("cp {FIXTURES}/healthy.yaml \"$yaml\"");
    for (script, why) in [
        ("exit 0".to_owned(), "wrote no metrics file"),
        (format!("head -c 300 {FIXTURES}/healthy.yaml >\"$yaml\""), "not whole"),
        ("printf '\\377\\376\\n...\\n' >\"$yaml\"".to_owned(), "no text"),
        (format!("cp {FIXTURES}/vm.yaml \"$yaml\""), "0 entries"),
        (format!("cp {FIXTURES}/verify-failed.yaml \"$yaml\""), "not finish a single operation"),
        (replay("worker-killed", 2), "corrupted bogo-ops counter"),
        (format!("{healthy}; exit 1"), "refused its options"),
        (format!("{healthy}; exit 2"), "without a wrong result"),
        (format!("{healthy}; exit 3"), "lacked resources"),
        (format!("{healthy}; exit 5"), "killed by a signal"),
        (format!("{healthy}; exit 7"), "not to be trusted"),
        (format!("{healthy}; exit 42"), "no status that its manual names"),
        (format!("{healthy}; kill -SEGV $$"), "signal 11"),
    ] {
        let stage = with_fake(&Machine::empty().root, &script);
        let outcome = run_stage(&stage.context);
        assert_ne!(verdict(&outcome, "miscompares"), Verdict::Pass, "{script}");
        assert!(outcome.message.contains(why), "{script}: {} does not say {why}", outcome.message);
        assert!(!outcome.passed);
    }
}

#[test]
fn metrics_of_an_earlier_run_do_not_speak_for_this_one() {
    let stage = with_fake(&Machine::empty().root, "exit 0");
    std::fs::copy(format!("{FIXTURES}/healthy.yaml"), stage.work.path().join("stress-ng.yaml")).unwrap();
    assert_inconclusive(&run_stage(&stage.context), "wrote no metrics file");
}

#[test]
fn a_missing_tool_is_inconclusive_and_says_where_it_was_looked_for() {
    let mut stage = stage("CPUStress", &Machine::empty().root);
    stage.context.search_path = stage.work.path().into();
    let why = format!("stress-ng is not installed (looked in {})", stage.work.path().display());
    assert_inconclusive(&run_stage(&stage.context), &why);
}

#[test]
fn a_stage_at_its_deadline_is_ended_and_inconclusive() {
    let mut stage =
        with_fake(&Machine::empty().root, &format!("cp {FIXTURES}/healthy.yaml \"$yaml\"; sleep 1000"));
    stage.context.spec.deadline = 400;
    let outcome = run_stage(&stage.context);
    assert_inconclusive(&outcome, "ended at the stage's deadline of 400ms");
    assert!(!outcome.cancelled);
}

#[test]
fn a_cancelled_stage_says_so() {
    let mut stage = with_fake(&Machine::empty().root, "echo begun >&2; sleep 1000");
    let cancel = stage.context.cancel.clone();
    stage.context.lines = Arc::new(move |_, line| {
        if line == "begun" {
            cancel.ask();
        }
    });
    let outcome = run_stage(&stage.context);
    assert_eq!(
        (outcome.summary.as_str(), outcome.message.as_str()),
        ("cancelled", "stage cancelled by operator")
    );
    assert!(outcome.cancelled && !outcome.passed);
    // Asked before it begins, it does not begin.
    let outcome = run_stage(&stage.context);
    assert!(outcome.cancelled && outcome.verdict == Verdict::Inconclusive);
}

#[test]
fn a_panic_makes_a_stage_inconclusive() {
    let mut stage = stage("CPUStress", &Machine::empty().root);
    let first = Mutex::new(true);
    stage.context.lines = Arc::new(move |_, _| {
        let is_first = std::mem::replace(&mut *first.lock().unwrap(), false);
        assert!(!is_first, "a test makes this panic");
    });
    assert_inconclusive(&run_stage(&stage.context), "a test makes this panic");
}

#[test]
fn the_frozen_plan_beats_the_settings() {
    let mut stage = with_fake(&Machine::empty().root, &replay("healthy", 0));
    stage.context.plan = planned_checks(&stage.context.spec);
    stage.context.plan.retain(|planned| planned.name != "duration");
    let rate = stage.context.plan.iter_mut().find(|planned| planned.name == "rate").unwrap();
    rate.limit = Limit::at_least(1e9);
    let outcome = run_stage(&stage.context);
    assert_eq!(verdict(&outcome, "rate"), Verdict::Fail);
    assert_eq!(verdict(&outcome, "duration"), Verdict::Pass);
}

#[test]
fn throttling_and_frequency_are_read_around_the_load() {
    let machine = Machine::empty();
    machine.write("/sys/devices/system/cpu/online", "0\n");
    machine.write("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2400000\n");
    let throttled = "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms";
    machine.write(throttled, "5\n");
    let path = machine.root.path(throttled);
    let grow = format!("echo 500000 >{}; sleep 1.2; {}", path.display(), replay("healthy", 0));
    let outcome = run_stage(&with_fake(&machine.root, &grow).context);
    assert_eq!(verdict(&outcome, "throttling"), Verdict::Fail);
    let frequency = outcome.checks.iter().find(|check| check.name == "frequency").unwrap();
    assert_eq!(frequency.observed, Observation::measured(2400.0, "MHz"));
}

/// Needs stress-ng: `apt-get install stress-ng`; `cargo xtask test` sees to it.
#[test]
fn the_real_stress_ng_passes_on_this_machine() {
    let mut stage = stage("CPUStress", &Root::system());
    stage.context.spec.cpu_stress = Some(CpuStressSettings {
        duration: 2_000,
        throttled_percent_max: 100.0,
        ..CpuStressSettings::default()
    });
    let outcome = run_stage(&stage.context);
    assert!(outcome.passed, "{} (is stress-ng missing? apt-get install stress-ng)", outcome.message);
    assert_eq!(verdict(&outcome, "miscompares"), Verdict::Pass);
    assert_eq!(verdict(&outcome, "rate"), Verdict::Pass);
    assert_eq!(verdict(&outcome, "duration"), Verdict::Pass);
    assert_eq!(crate::process::child_record::read_left(stage.work.path()).unwrap(), []);
}
