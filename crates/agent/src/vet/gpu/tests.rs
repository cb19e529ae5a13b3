//! What nvidia-smi, the kernel's log and dcgmi say, written after their documents: none of it was seen on hardware yet.
//!
//! Sources: nvidia-smi(1) and `nvidia-smi --help-query-gpu` of driver 535; docs.nvidia.com/deploy/xid-errors;
//! docs.nvidia.com/datacenter/dcgm (diagnostics, JSON of versions 3 and 4).

use std::collections::BTreeMap;

use groundcrew_protocol::check::{Check, Verdict, judge_stage};
use groundcrew_protocol::plan::planned_checks;
use groundcrew_protocol::profile::{GpuSettings, StageSpec};
use groundcrew_protocol::stage::Stage;
use proptest::prelude::*;
use serde_json::json;

use super::*;

mod links;

const BUS: &str = "0000:17:00.0";
const SERIAL: &str = "1655322012345";

/// What a healthy GPU says to each group of fields, by the last of them.
fn healthy() -> BTreeMap<&'static str, String> {
    let at = |rest: &str| format!("00000000:17:00.0, {rest}\n");
    BTreeMap::from([
        ("serial", at(&format!("0, {SERIAL}"))),
        ("pcie.link.width.max", at("41, 16, 16")),
        ("pcie.link.gen.max", at("5, 5")),
        ("ecc.mode.current", at("Enabled")),
        ("ecc.errors.uncorrected.aggregate.total", at("0, 0, 0")),
        ("retired_pages.double_bit.count", at("[N/A]")),
        ("retired_pages.pending", at("[N/A]")),
        ("remapped_rows.pending", at("0, 0, 0")),
        ("clocks_throttle_reasons.hw_slowdown", at("Not Active")),
        ("clocks_throttle_reasons.sw_thermal_slowdown", at("Not Active, Not Active, Not Active")),
        ("-s", nvlink(&["26.562 GB/s", "26.562 GB/s"])),
        ("-e", nvlink(&["Replay Errors: 0", "Recovery Errors: 0", "CRC Errors: 0"])),
        ("dmesg", "[    0.000000] Linux version 6.1.0\n".to_owned()),
    ])
}

/// What `nvidia-smi nvlink` prints of the first of two GPUs; the other has one link.
fn nvlink(lines: &[&str]) -> String {
    let line = |(number, line): (usize, &&str)| format!("\t Link {number}: {line}\n");
    let lines: String = lines.iter().enumerate().map(line).collect();
    format!(
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)\n{lines}GPU 1: NVIDIA H100 (UUID: GPU-b)\n\t Link 0: <inactive>\n"
    )
}

fn gpu(driver: Option<&str>) -> Gpu {
    Gpu {
        pci: BUS.into(),
        vendor: "10de".into(),
        device: "2330".into(),
        class: "030200".into(),
        driver: driver.map(str::to_owned),
    }
}

/// The verdicts of what a GPU says, by check.
fn verdicts(said: &BTreeMap<&'static str, String>, gpu: &Gpu) -> BTreeMap<String, Verdict> {
    let ask = |program: &'static str, arguments: &[&str]| {
        let of = |key: &str| said.get(key).cloned().ok_or_else(|| format!("{program} is gone"));
        let text = match (program, arguments) {
            ("dmesg", _) => of("dmesg"),
            (_, ["nvlink", option]) => of(option),
            _ => of(arguments[0].rsplit(',').next().unwrap()),
        };
        text.map(String::into_bytes)
    };
    let mut artifacts = Vec::new();
    let gpus = named(&smi::query(&ask, &smi::IDENTITY, &mut artifacts), &[gpu]);
    let mut findings = of_driver(&ask, &gpus, &mut artifacts);
    let links = nvlink::Said::of(&ask, &mut artifacts);
    findings.extend(links.state(&gpus, None));
    findings.extend(links.grown_since(&links, &gpus));
    findings.extend(of_groups(&ask, &gpus, smi::under_load(), &mut artifacts));
    findings.extend(xid::findings(None, xid::log(&ask), &mut artifacts));
    judged(findings)
}

fn judged(findings: Vec<Finding>) -> BTreeMap<String, Verdict> {
    let settings = GpuSettings { temperature_max: Some(90.0), ..GpuSettings::default() };
    let plan = planned_checks(&StageSpec { gpu: Some(settings), ..StageSpec::of(Stage::Gpu) });
    let mut verdicts = BTreeMap::new();
    for finding in findings {
        let planned: Vec<_> = plan.iter().filter(|planned| planned.name == finding.name).cloned().collect();
        let check =
            Check::of(finding.name, finding.component.as_deref(), finding.observed, Default::default());
        let verdict = judge_stage(&planned, &[check]).verdict;
        // The worst of a name counts.
        let worst = verdicts.get(finding.name).copied().into_iter().chain([verdict]);
        verdicts.insert(finding.name.to_owned(), Verdict::over(worst));
    }
    verdicts
}

#[test]
fn a_healthy_gpu_passes_and_is_named_by_its_serial() {
    let all = verdicts(&healthy(), &gpu(Some("nvidia")));
    let skipped: Vec<&str> =
        all.iter().filter(|(_, verdict)| **verdict == Verdict::Skipped).map(|(name, _)| &**name).collect();
    assert_eq!(skipped, [names::GPU_RETIRED_PAGES], "its memory remaps rows instead");
    assert!(all.values().all(|verdict| matches!(verdict, Verdict::Pass | Verdict::Skipped)), "{all:?}");
    let is_own = |name: &&&str| !name.starts_with("infiniband") && **name != names::GPU_DIAG;
    assert_eq!(all.len(), names::GPU_CHECKS.iter().filter(is_own).count());
}

const REASONS: &str = "clocks_throttle_reasons.sw_thermal_slowdown";

#[test]
fn what_a_gpu_says_is_judged_by_table() {
    use Verdict::{Fail, Inconclusive, Pass, Warn};
    for (group, rest, name, expected) in [
        ("pcie.link.width.max", "91, 16, 16", names::GPU_TEMPERATURE, Fail),
        ("pcie.link.width.max", "41, 8, 16", names::GPU_PCIE_WIDTH, Fail),
        ("pcie.link.width.max", "41, 16, 0", names::GPU_PCIE_WIDTH, Inconclusive),
        ("pcie.link.width.max", "[Unknown Error], 16, 16", names::GPU_TEMPERATURE, Inconclusive),
        ("ecc.errors.uncorrected.aggregate.total", "1, 0, 1", names::GPU_ECC_UNCORRECTED, Fail),
        ("ecc.errors.uncorrected.aggregate.total", "0, 1, 0", names::GPU_ECC_CORRECTED, Warn),
        ("ecc.errors.uncorrected.aggregate.total", "0, 0, 3", names::GPU_ECC_LIFETIME, Warn),
        ("ecc.errors.uncorrected.aggregate.total", "0, 0", names::GPU_ECC_UNCORRECTED, Inconclusive),
        (
            "ecc.errors.uncorrected.aggregate.total",
            "[GPU requires reset], 0, 0",
            names::GPU_ECC_UNCORRECTED,
            Inconclusive,
        ),
        ("retired_pages.double_bit.count", "0", names::GPU_RETIRED_PAGES, Pass),
        ("retired_pages.double_bit.count", "2", names::GPU_RETIRED_PAGES, Fail),
        ("remapped_rows.pending", "1, 0, 0", names::GPU_REMAPPED_ROWS, Fail),
        ("remapped_rows.pending", "0, 1, 0", names::GPU_REMAP_FAILURE, Fail),
        ("remapped_rows.pending", "0, No, Yes", names::GPU_PENDING, Fail),
        ("retired_pages.pending", "Yes", names::GPU_PENDING, Fail),
        ("ecc.mode.current", "Disabled", names::GPU_ECC_MODE, Warn),
        ("pcie.link.gen.max", "1, 5", names::GPU_PCIE_SPEED, Fail),
        ("pcie.link.gen.max", "5, 0", names::GPU_PCIE_SPEED, Inconclusive),
        ("clocks_throttle_reasons.hw_slowdown", "Active", names::GPU_SLOWDOWN, Fail),
        ("clocks_throttle_reasons.hw_slowdown", "perhaps", names::GPU_SLOWDOWN, Inconclusive),
        (REASONS, "Active, Not Active, Not Active", names::GPU_THERMAL_SLOWDOWN, Fail),
        (REASONS, "Not Active, Active, Not Active", names::GPU_POWER_BRAKE, Fail),
        (REASONS, "Not Active, Not Active, Active", names::GPU_WARM_SLOWDOWN, Warn),
        (REASONS, "Not Active, Not Active, warm", names::GPU_WARM_SLOWDOWN, Inconclusive),
    ] {
        let mut said = healthy();
        said.insert(group, format!("00000000:17:00.0, {rest}\n"));
        assert_eq!(verdicts(&said, &gpu(Some("nvidia")))[name], expected, "{group} {rest}");
    }
}

#[test]
fn a_gpu_without_its_driver_or_unknown_to_it_fails() {
    assert_eq!(verdicts(&healthy(), &gpu(None))[names::GPU_DRIVER], Verdict::Fail);
    let mut said = healthy();
    said.insert("serial", "00000000:27:00.0, 0, 1\n".to_owned());
    assert_eq!(verdicts(&said, &gpu(Some("nvidia")))[names::GPU_DRIVER], Verdict::Fail);
    // A field that a driver does not know costs its own group alone.
    let mut said = healthy();
    said.remove("remapped_rows.pending");
    let all = verdicts(&said, &gpu(Some("nvidia")));
    assert_eq!(all[names::GPU_REMAPPED_ROWS], Verdict::Inconclusive);
    assert_eq!(all[names::GPU_ECC_UNCORRECTED], Verdict::Pass);
    let none = verdicts(&BTreeMap::new(), &gpu(Some("nvidia")));
    assert!(none.values().all(|verdict| *verdict == Verdict::Inconclusive), "{none:?}");
}

/// This agent has a test of NVIDIA's alone. Where the profile asks for no load, a driver and a whole link are enough.
#[test]
fn a_gpu_of_another_maker_passes_only_where_no_load_is_asked_for() {
    use Verdict::{Fail, Inconclusive, Pass, Skipped};
    let machine = crate::probe::fixture::Machine::empty();
    let verdicts = |driver: Option<&str>, diag: GpuDiag| {
        let amd = Gpu { vendor: "1002".into(), device: "74a1".into(), ..gpu(driver) };
        let all = judged(of_another_maker(&machine.root, &amd, &diag));
        [all[names::GPU_DRIVER], all[names::GPU_PCIE_WIDTH]]
    };
    let width = |file: &str, lanes: &str| machine.write(&format!("{}/{BUS}/{file}", gpus::FOLDER), lanes);
    assert_eq!(verdicts(Some("amdgpu"), GpuDiag::None), [Pass, Skipped]);
    width("current_link_width", "16\n");
    width("max_link_width", "16\n");
    assert_eq!(verdicts(Some("amdgpu"), GpuDiag::None), [Pass, Pass]);
    assert_eq!(verdicts(Some("amdgpu"), GpuDiag::Medium), [Inconclusive, Pass]);
    assert_eq!(verdicts(None, GpuDiag::None), [Fail, Pass]);
    width("current_link_width", "8\n");
    assert_eq!(verdicts(Some("amdgpu"), GpuDiag::None), [Pass, Fail]);
}

#[test]
fn errors_in_the_kernels_log_are_told_apart() {
    for (log, expected) in [
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 79, pid=1234, GPU has fallen off the bus.", Verdict::Fail),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 48, pid=1234, DBE (double bit error)", Verdict::Fail),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 31, pid=1234, name=python, MMU Fault", Verdict::Warn),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 63, pid=1234, Row Remapper: New row marked", Verdict::Warn),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 144, NVLINK: SAW Error", Verdict::Fail),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 158, GPU Fatal Timeout", Verdict::Fail),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 172, Uncorrectable SRAM error", Verdict::Fail),
        // It sums up others, and one by itself says nothing more.
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 154, GPU recovery action changed", Verdict::Warn),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): what", Verdict::Inconclusive),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00", Verdict::Inconclusive),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 31, a\n[ 6.0] NVRM: Xid (PCI:0000:27:00): 95, b", Verdict::Fail),
        ("", Verdict::Inconclusive),
        ("[ 5.0] usb 1-1: new device", Verdict::Pass),
    ] {
        let mut said = healthy();
        said.insert("dmesg", log.to_owned());
        assert_eq!(verdicts(&said, &gpu(Some("nvidia")))[names::XIDS], expected, "{log}");
    }
}

/// A report of one test of two GPUs.
fn diagnosis(root: &str, category: &str, status: &str, extra: serde_json::Value) -> Vec<u8> {
    let mut result = json!({"gpu_id": "0", "status": status});
    result.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let passed = json!({"gpu_id": "1", "status": "Pass"});
    let tests = json!([{"name": "GPU Memory", "results": [result, passed]}]);
    let report = json!({"test_categories": [{"category": category, "tests": tests}], "version": "3.3.8"});
    format!("a line before it\n{}", json!({ root: report })).into_bytes()
}

/// What a diagnosis says of these GPUs, each by its number.
fn findings_of<'g>(bytes: &[u8], level: u8, exit: i32, gpus: &[(&'g Gpu, &str)]) -> Vec<Finding> {
    let named = |&(gpu, index): &(&'g Gpu, &str)| Named {
        gpu,
        component: format!("SERIAL{index}"),
        index: Some(index.to_owned()),
    };
    let gpus: Vec<Named<'g>> = gpus.iter().map(named).collect();
    dcgm::findings(dcgm::Report::read(bytes).map(|report| (report, exit)), level, &gpus, "dcgmi")
}

fn diagnosed(bytes: &[u8], level: u8, exit: i32) -> Verdict {
    let gpu = gpu(Some("nvidia"));
    judged(findings_of(bytes, level, exit, &[(&gpu, "0"), (&gpu, "1")]))[names::GPU_DIAG]
}

#[test]
fn each_test_of_a_diagnosis_is_judged_by_itself() {
    for root in ["DCGM GPU Diagnostic", "DCGM Diagnostic"] {
        for (status, extra, expected) in [
            ("Pass", json!({}), Verdict::Pass),
            ("Pass", json!({"warnings": ["could not allocate"]}), Verdict::Warn),
            ("Fail", json!({"warnings": "a page was wrong"}), Verdict::Fail),
            ("Warn", json!({}), Verdict::Warn),
            ("Skip", json!({}), Verdict::Inconclusive),
            ("Not Run", json!({}), Verdict::Inconclusive),
            ("later word", json!({}), Verdict::Inconclusive),
        ] {
            let report = diagnosis(root, "Hardware", status, extra);
            assert_eq!(diagnosed(&report, 2, 0), expected, "{root} {status}");
        }
    }
    let whole = diagnosis("DCGM Diagnostic", "Hardware", "Pass", json!({}));
    let gpu = gpu(Some("nvidia"));
    assert_eq!(
        findings_of(&whole, 2, 0, &[(&gpu, "0")])[0].component.as_deref(),
        Some("GPU Memory, SERIAL0")
    );
    for bytes in
        [&b""[..], b"{}", b"{\"DCGM Diagnostic\": {\"test_categories\": []}}", b"{\"DCGM Diagnostic\": {}}"]
    {
        assert_eq!(diagnosed(bytes, 2, 0), Verdict::Inconclusive);
    }
    assert_eq!(diagnosed(&whole, 2, 226), Verdict::Inconclusive, "it failed, and does not say where");
    let text = String::from_utf8(whole).unwrap();
    let broken_off = text.replace("{\"DCGM", "{\"runtime_error\": \"nvvs was killed\", \"DCGM");
    assert_eq!(diagnosed(broken_off.as_bytes(), 2, 0), Verdict::Inconclusive);
}

#[test]
fn a_gpu_that_bore_no_load_does_not_pass() {
    let gpu = gpu(Some("nvidia"));
    let report = |category: &str| diagnosis("DCGM Diagnostic", category, "Pass", json!({}));
    for (category, level, expected) in [
        ("Deployment", 1, Verdict::Inconclusive),
        // Whatever was asked for, only what is installed was looked at.
        ("Deployment", 3, Verdict::Inconclusive),
        ("Later", 2, Verdict::Inconclusive),
        ("Integration", 2, Verdict::Pass),
        ("Hardware", 3, Verdict::Inconclusive),
        ("Stress", 3, Verdict::Pass),
    ] {
        assert_eq!(diagnosed(&report(category), level, 0), expected, "{category} {level}");
    }
    // The third has no result of its own, and is named.
    let findings = findings_of(&report("Hardware"), 2, 0, &[(&gpu, "0"), (&gpu, "1"), (&gpu, "2")]);
    let left_out: Vec<&str> = findings
        .iter()
        .filter(|finding| matches!(finding.observed, Observation::Unreadable { .. }))
        .filter_map(|finding| finding.component.as_deref())
        .collect();
    assert_eq!(left_out, ["SERIAL2"]);
}

/// DCGM 4 numbers entities of each kind by themselves, and tells serials: they beat the driver's numbers.
#[test]
fn a_result_of_another_entity_is_none_of_a_gpus() {
    let gpu = gpu(Some("nvidia"));
    let report = |group: &str, serials: serde_json::Value| {
        let results =
            json!([{"entity_group": group, "entity_group_id": 1, "entity_id": 0, "status": "Pass"}]);
        let tests = json!([{"name": "pcie", "results": results}]);
        json!({
            "DCGM Diagnostic": {"test_categories": [{"category": "Integration", "tests": tests}]},
            "entity_groups": [{"entity_group": "GPU", "entities": serials}],
        })
        .to_string()
        .into_bytes()
    };
    let verdict = |bytes: &[u8]| judged(findings_of(bytes, 2, 0, &[(&gpu, "0")]))[names::GPU_DIAG];
    let serial = |serial: &str| json!([{"entity_id": 0, "serial_num": serial}]);
    assert_eq!(verdict(&report("GPU", json!([]))), Verdict::Pass);
    assert_eq!(verdict(&report("GPU", serial("SERIAL0"))), Verdict::Pass);
    assert_eq!(verdict(&report("GPU", serial("0"))), Verdict::Pass, "no serial");
    assert_eq!(verdict(&report("GPU", serial("SERIAL1"))), Verdict::Inconclusive);
    assert_eq!(verdict(&report("CPU", json!([]))), Verdict::Inconclusive);
}

/// What was seen at one time stays, however good the next reading is.
#[test]
fn the_worst_of_several_readings_counts() {
    use Verdict::{Fail, Inconclusive, Pass, Warn};
    let settings = GpuSettings { temperature_max: Some(90.0), ..GpuSettings::default() };
    let plan = planned_checks(&StageSpec { gpu: Some(settings), ..StageSpec::of(Stage::Gpu) });
    let limit = |name: &str| plan.iter().find(|planned| planned.name == name).unwrap().limit.clone();
    let number = |value: f64| Observation::measured(value, "u");
    let word = |text: &str| Observation::Found { text: text.to_owned() };
    let gone = || Observation::Unreadable { why: "the driver hangs".to_owned() };
    for (name, readings, expected) in [
        (names::GPU_TEMPERATURE, vec![number(40.0), number(95.0), number(50.0)], Fail),
        (names::GPU_TEMPERATURE, vec![number(40.0), gone(), number(50.0)], Inconclusive),
        (names::GPU_PCIE_WIDTH, vec![number(100.0), number(50.0), number(100.0)], Fail),
        (names::GPU_SLOWDOWN, vec![word("Not Active"), word("Active"), word("Not Active")], Fail),
        (names::GPU_PCIE_SPEED, vec![number(20.0), number(100.0), gone()], Pass),
        (names::GPU_PCIE_SPEED, vec![number(20.0), number(60.0)], Fail),
        (names::GPU_ECC_CORRECTED, vec![number(0.0), number(2.0)], Warn),
        (names::GPU_ECC_UNCORRECTED, vec![number(0.0), number(1.0)], Fail),
        (names::GPU_ECC_CORRECTED, vec![number(2.0), number(0.0)], Inconclusive),
        (names::GPU_ECC_LIFETIME, vec![number(3.0), number(3.0)], Warn),
        (names::GPU_ECC_LIFETIME, vec![number(3.0), number(4.0), number(4.0)], Inconclusive),
    ] {
        let mut seen = Vec::new();
        for observed in readings.clone() {
            worst::merge(&mut seen, vec![Finding::of(name, Some("a"), observed, "")], &limit);
        }
        assert_eq!(seen.len(), 1);
        let verdict = judged(seen)[name];
        assert_eq!(verdict, expected, "{name} {readings:?}");
    }
}

#[test]
fn gpus_that_compute_are_told_from_those_that_show_a_console() {
    let of = |pci: &str, vendor: &str, class: &str| Gpu {
        pci: pci.into(),
        vendor: vendor.into(),
        class: class.into(),
        ..Gpu::default()
    };
    for (gpu, expected) in [
        (of("0000:17:00.0", "10de", "030000"), true),
        (of("0000:27:00.0", "1002", "120000"), true),
        (of("0000:03:00.0", "1002", "030000"), false),
        (of("0000:37:00.0", "8086", "038000"), true),
        (of("0000:37:00.0", "8086", "030000"), true),
        (of("0000:00:02.0", "8086", "030000"), false),
        (of("0000:47:00.0", "1ed5", "030200"), true),
        (of("0000:03:00.0", "1a03", "030000"), false),
        (of("0000:01:00.0", "1af4", "038000"), false),
    ] {
        assert_eq!(gpu.computes(), expected, "{gpu:?}");
    }
}

#[test]
fn what_left_the_kernels_log_during_the_load_still_counts() {
    let line =
        |at: &str, code: u32| format!("[{at}] NVRM: Xid (PCI:0000:17:00): {code}, pid=1, x\n").into_bytes();
    let verdict = |before: Option<Vec<u8>>, after: Result<Vec<u8>, String>| {
        judged(xid::findings(before, after, &mut Vec::new()))[names::XIDS]
    };
    let quiet = || b"[ 1.0] usb 1-1: new device\n".to_vec();
    assert_eq!(verdict(Some(quiet()), Ok(quiet())), Verdict::Pass);
    assert_eq!(verdict(Some(line(" 5.0", 79)), Ok(quiet())), Verdict::Fail);
    assert_eq!(verdict(Some(quiet()), Ok(line(" 9.0", 79))), Verdict::Fail);
    assert_eq!(verdict(Some(quiet()), Err("dmesg is gone".to_owned())), Verdict::Inconclusive);
    // Read twice, it happened once.
    let both = [line(" 5.0", 31), line(" 6.0", 31)].concat();
    let findings = xid::findings(Some(line(" 5.0", 31)), Ok(both), &mut Vec::new());
    assert_eq!(findings[0].observed, Observation::Unexpected { what: "XID 31, 2 times".to_owned() });
}

proptest! {
    /// However the answer about errors is mangled, one that nothing corrected does not pass.
    #[test]
    fn nothing_mangled_makes_a_bad_gpu_good(at in 0usize..40, text in "[ -+--~]{0,5}", drop in 0usize..3) {
        let mut bytes = b"00000000:17:00.0, 7777777, 0, 7777777\n".to_vec();
        let at = at % bytes.len();
        let end = (at + drop).min(bytes.len());
        bytes.splice(at..end, text.bytes());
        let mut said = healthy();
        said.insert("ecc.errors.uncorrected.aggregate.total", String::from_utf8(bytes).unwrap());
        let all = verdicts(&said, &gpu(Some("nvidia")));
        prop_assert_ne!(all[names::GPU_ECC_UNCORRECTED], Verdict::Pass);
    }

    #[test]
    fn no_bytes_make_it_panic_or_pass(bytes in proptest::collection::vec(any::<u8>(), 0..120), log in "\\PC{0,80}") {
        prop_assert_eq!(diagnosed(&bytes, 2, 0), Verdict::Inconclusive);
        let mut said = healthy();
        said.insert("dmesg", format!("NVRM: Xid ({log}"));
        prop_assert_ne!(verdicts(&said, &gpu(Some("nvidia")))[names::XIDS], Verdict::Pass);
    }
}
