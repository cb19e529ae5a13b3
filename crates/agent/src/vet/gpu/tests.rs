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

const BUS: &str = "0000:17:00.0";
const SERIAL: &str = "1655322012345";

/// What a healthy GPU says to each group of fields, by the last of them.
fn healthy() -> BTreeMap<&'static str, String> {
    let at = |rest: &str| format!("00000000:17:00.0, {rest}\n");
    BTreeMap::from([
        ("serial", at(SERIAL)),
        ("pcie.link.width.max", at("41, 16, 16")),
        ("ecc.errors.uncorrected.aggregate.total", at("0, 0, 0")),
        ("retired_pages.double_bit.count", at("[N/A]")),
        ("remapped_rows.pending", at("0, 0, 0")),
        ("clocks_throttle_reasons.hw_slowdown", at("Not Active")),
        ("dmesg", "[    0.000000] Linux version 6.1.0\n".to_owned()),
    ])
}

fn gpu(driver: Option<&str>) -> Gpu {
    Gpu {
        pci: BUS.into(),
        vendor: NVIDIA.into(),
        device: "2330".into(),
        class: "030200".into(),
        driver: driver.map(str::to_owned),
    }
}

/// The verdicts of what a GPU says, by check.
fn verdicts(said: &BTreeMap<&'static str, String>, gpu: &Gpu) -> BTreeMap<String, Verdict> {
    let ask = |program: &'static str, arguments: &[&str]| {
        let of = |key: &str| said.get(key).cloned().ok_or_else(|| format!("{program} is gone"));
        let text = match program {
            "dmesg" => of("dmesg"),
            _ => of(arguments[0].rsplit(',').next().unwrap()),
        };
        text.map(String::into_bytes)
    };
    let mut artifacts = Vec::new();
    let mut findings = of_driver(&ask, &[gpu], &mut artifacts);
    findings.extend(xid::read(&ask, &mut artifacts));
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
    assert_eq!(all.len(), 12);
}

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
        ("clocks_throttle_reasons.hw_slowdown", "Active", names::GPU_SLOWDOWN, Fail),
        ("clocks_throttle_reasons.hw_slowdown", "perhaps", names::GPU_SLOWDOWN, Inconclusive),
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
    said.insert("serial", "00000000:27:00.0, 1\n".to_owned());
    assert_eq!(verdicts(&said, &gpu(Some("nvidia")))[names::GPU_DRIVER], Verdict::Fail);
    // A field that a driver does not know costs its own group alone.
    let mut said = healthy();
    said.remove("remapped_rows.pending");
    let all = verdicts(&said, &gpu(Some("nvidia")));
    assert_eq!(all[names::GPU_REMAPPED_ROWS], Verdict::Inconclusive);
    assert_eq!(all[names::GPU_ECC_UNCORRECTED], Verdict::Pass);
    let none = verdicts(&BTreeMap::new(), &gpu(Some("nvidia")));
    assert!(none.values().all(|verdict| *verdict == Verdict::Inconclusive), "{none:?}");
    assert_eq!(judged(vec![of_another_maker(&gpu(None))])[names::GPU_DRIVER], Verdict::Inconclusive);
}

#[test]
fn errors_in_the_kernels_log_are_told_apart() {
    for (log, expected) in [
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 79, pid=1234, GPU has fallen off the bus.", Verdict::Fail),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 48, pid=1234, DBE (double bit error)", Verdict::Fail),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 31, pid=1234, name=python, MMU Fault", Verdict::Warn),
        ("[ 5.0] NVRM: Xid (PCI:0000:17:00): 63, pid=1234, Row Remapper: New row marked", Verdict::Warn),
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

fn diagnosis(root: &str, status: &str, extra: serde_json::Value) -> Vec<u8> {
    let mut result = json!({"gpu_id": "0", "status": status});
    result.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let passed = json!({"gpu_id": "1", "status": "Pass"});
    let tests = json!([{"name": "GPU Memory", "results": [result, passed]}]);
    let report = json!({"test_categories": [{"category": "Hardware", "tests": tests}], "version": "3.3.8"});
    format!("a line before it\n{}", json!({ root: report })).into_bytes()
}

fn diagnosed(bytes: &[u8]) -> Verdict {
    let finding =
        |observed| Finding { name: names::GPU_DIAG, component: None, observed, evidence: String::new() };
    let findings = match dcgm::results(bytes) {
        Ok(results) => results.into_iter().map(|(_, observed)| finding(observed)).collect(),
        Err(why) => vec![finding(Observation::Unreadable { why })],
    };
    judged(findings)[names::GPU_DIAG]
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
            assert_eq!(diagnosed(&diagnosis(root, status, extra)), expected, "{root} {status}");
        }
    }
    let results = dcgm::results(&diagnosis("DCGM Diagnostic", "Pass", json!({}))).unwrap();
    assert_eq!(results[0].0, "GPU Memory, GPU 0");
    for bytes in
        [&b""[..], b"{}", b"{\"DCGM Diagnostic\": {\"test_categories\": []}}", b"{\"DCGM Diagnostic\": {}}"]
    {
        assert_eq!(diagnosed(bytes), Verdict::Inconclusive);
    }
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
        prop_assert_eq!(diagnosed(&bytes), Verdict::Inconclusive);
        let mut said = healthy();
        said.insert("dmesg", format!("NVRM: Xid ({log}"));
        prop_assert_ne!(verdicts(&said, &gpu(Some("nvidia")))[names::XIDS], Verdict::Pass);
    }
}
