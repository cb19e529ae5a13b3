//! Links between GPUs and between machines.

use super::*;

/// What a counter says before the stage, of what it says after: 5 where it says 5, 7 where it says more than that, else nothing.
fn before(after: &str) -> String {
    let (name, count) = after.rsplit_once(": ").unwrap();
    match count.parse::<u64>() {
        Ok(5) => after.to_owned(),
        Ok(6..=9) => format!("{name}: 7"),
        Ok(_) => format!("{name}: 0"),
        Err(_) => after.to_owned(),
    }
}

/// After what machines with H100 print (docs.nvidia.com, guides to HGX and DGX).
#[test]
fn links_between_gpus_are_counted_with_their_errors() {
    use Verdict::{Fail, Inconclusive, Pass, Skipped, Warn};
    let links = |speeds: &[&str], counts: &[&str], wanted: Option<u32>| {
        let said = |counts: &[&str]| {
            let (speeds, counts) = (nvlink(speeds), nvlink(counts));
            let ask = |_: &'static str, arguments: &[&str]| {
                Ok(if arguments[1] == "-s" { speeds.clone() } else { counts.clone() }.into_bytes())
            };
            nvlink::Said::of(&ask, &mut Vec::new())
        };
        let gpu = gpu(Some("nvidia"));
        let named =
            |index: &str| Named { gpu: &gpu, component: format!("SERIAL{index}"), index: Some(index.into()) };
        // What they counted before is nothing of now.
        let was: Vec<String> = counts.iter().map(|count| before(count)).collect();
        let was: Vec<&str> = was.iter().map(String::as_str).collect();
        let mut findings = said(counts).state(&[named("0")], wanted);
        findings.extend(said(counts).grown_since(&said(&was), &[named("0")]));
        let mut plan = planned_checks(&StageSpec {
            gpu: Some(GpuSettings { nvlinks_min: wanted, ..GpuSettings::default() }),
            ..StageSpec::of(Stage::Gpu)
        });
        plan.retain(|planned| planned.name.starts_with("nvlink"));
        let check = |finding: Finding| Check::of(finding.name, None, finding.observed, Default::default());
        let checks: Vec<Check> = findings.into_iter().map(check).collect();
        let judged = judge_stage(&plan, &checks).checks;
        [names::NVLINKS, names::NVLINK_ERRORS, names::NVLINK_RECOVERIES]
            .map(|name| judged.iter().find(|check| check.name == name).unwrap().verdict)
    };
    const FULL: &str = "26.562 GB/s";
    const NONE: [&str; 2] = ["Replay Errors: 0", "Recovery Errors: 0"];
    for (speeds, counts, wanted, expected) in [
        (vec![FULL, FULL], NONE.to_vec(), Some(2), [Pass, Pass, Pass]),
        (vec![FULL, "<inactive>"], NONE.to_vec(), Some(2), [Fail, Pass, Pass]),
        (vec![FULL, "13.281 GB/s"], NONE.to_vec(), None, [Warn, Pass, Pass]),
        (vec!["<inactive>"], NONE.to_vec(), None, [Skipped; 3]),
        (vec!["<inactive>"], NONE.to_vec(), Some(1), [Fail, Skipped, Skipped]),
        (vec!["0 GB/s"], NONE.to_vec(), Some(1), [Fail, Skipped, Skipped]),
        (vec!["fast"], NONE.to_vec(), None, [Inconclusive, Pass, Pass]),
        (
            vec![FULL],
            vec!["Replay Errors: 0", "CRC Flit Errors: 3", "Recovery Errors: 0"],
            None,
            [Pass, Warn, Pass],
        ),
        (vec![FULL], vec!["Replay Errors: 0", "Recovery Errors: 1"], None, [Pass, Pass, Fail]),
        // A link that was trained anew at boot is none of the stage's.
        (vec![FULL], vec!["Replay Errors: 5", "Recovery Errors: 5"], None, [Pass, Pass, Pass]),
        (vec![FULL], vec!["Replay Errors: 8", "Recovery Errors: 5"], None, [Pass, Warn, Pass]),
        (vec![FULL], vec!["Replay Errors: 6", "Recovery Errors: 5"], None, [Pass, Inconclusive, Pass]),
        // As later generations write it.
        (
            vec![FULL],
            vec!["Buffer overrun Errors: 0", "Link recovery successful events: 1"],
            None,
            [Pass, Pass, Fail],
        ),
        (vec![FULL], vec!["Replay Errors: many", "Recovery Errors: 0"], None, [Pass, Inconclusive, Pass]),
        // Nothing that is counted is no zero; a histogram counts what is usual.
        (vec![FULL], vec!["FEC Errors - 0: 4711"], None, [Pass, Inconclusive, Inconclusive]),
    ] {
        assert_eq!(links(&speeds, &counts, wanted), expected, "{speeds:?} {counts:?} {wanted:?}");
    }
    let mut said = healthy();
    said.insert("-s", String::new());
    assert_eq!(verdicts(&said, &gpu(Some("nvidia")))[names::NVLINKS], Skipped, "a machine without NVLink");
    said.insert("-s", "GPU 1: NVIDIA H100 (UUID: GPU-b)\n".to_owned());
    assert_eq!(verdicts(&said, &gpu(Some("nvidia")))[names::NVLINKS], Inconclusive, "it leaves one out");
}

/// After the kernel's Documentation/ABI/stable/sysfs-class-infiniband.
#[test]
fn infiniband_ports_are_judged_by_their_links_and_what_they_counted() {
    use Verdict::{Fail, Inconclusive, Pass, Skipped, Warn};
    const PORT: &str = "/sys/class/infiniband/mlx5_0/ports/1";
    let machine = |changes: &[(&str, &str)]| {
        let machine = crate::probe::fixture::Machine::empty();
        let healthy = [
            ("state", "4: ACTIVE"),
            ("phys_state", "5: LinkUp"),
            ("link_layer", "InfiniBand"),
            ("rate", "400 Gb/sec (4X NDR)"),
            ("counters/symbol_error", "7"),
            ("counters/link_downed", "1"),
            ("counters/link_error_recovery", "0"),
        ];
        for (file, text) in healthy.iter().chain(changes) {
            machine.write(&format!("{PORT}/{file}"), format!("{text}\n"));
        }
        machine
    };
    let verdicts = |after: &[(&str, &str)], wanted: (Option<u32>, Option<f64>)| {
        let settings = GpuSettings {
            infiniband_ports_min: wanted.0,
            infiniband_rate_min_gbps: wanted.1,
            ..GpuSettings::default()
        };
        let mut plan = planned_checks(&StageSpec { gpu: Some(settings), ..StageSpec::of(Stage::Gpu) });
        plan.retain(|planned| planned.name.starts_with("infiniband"));
        let (before, after) = (infiniband::read(&machine(&[]).root), infiniband::read(&machine(after).root));
        let check = |finding: Finding| Check::of(finding.name, None, finding.observed, Default::default());
        let findings = infiniband::findings(&before, &after, wanted.0.is_some());
        let mut checks: Vec<Check> = findings.into_iter().map(check).collect();
        for planned in &plan {
            if !checks.iter().any(|check| check.name == planned.name) {
                let why = "no port".to_owned();
                checks.push(Check::of(&planned.name, None, Observation::Absent { why }, Default::default()));
            }
        }
        let judged = judge_stage(&plan, &checks).checks;
        let worst = |name: &str| {
            Verdict::over(judged.iter().filter(|check| check.name == name).map(|check| check.verdict))
        };
        [
            names::INFINIBAND_PORTS,
            names::INFINIBAND_RATE,
            names::INFINIBAND_WIDTH,
            names::INFINIBAND_SYMBOL_ERRORS,
            names::INFINIBAND_LINK_ERRORS,
        ]
        .map(worst)
    };
    let down = [("state", "1: DOWN"), ("phys_state", "2: Polling")];
    for (after, wanted, expected) in [
        (&[][..], (Some(1), Some(400.0)), [Pass; 5]),
        (&[], (Some(2), None), [Fail, Pass, Pass, Pass, Pass]),
        (&[("rate", "200 Gb/sec (4X HDR)")], (None, Some(400.0)), [Pass, Fail, Pass, Pass, Pass]),
        (&[("rate", "100 Gb/sec (1X NDR)")], (None, None), [Pass, Pass, Warn, Pass, Pass]),
        (&[("rate", "fast")], (None, None), [Pass, Inconclusive, Inconclusive, Pass, Pass]),
        (&down, (None, None), [Skipped; 5]),
        (&down, (Some(1), Some(400.0)), [Fail, Inconclusive, Skipped, Skipped, Skipped]),
        (&[("state", "2: INIT")], (None, None), [Warn, Pass, Pass, Pass, Pass]),
        (&[("counters/symbol_error", "9")], (None, None), [Pass, Pass, Pass, Warn, Pass]),
        (&[("counters/link_downed", "2")], (None, None), [Pass, Pass, Pass, Pass, Fail]),
        (&[("counters/link_downed", "0")], (None, None), [Pass, Pass, Pass, Pass, Inconclusive]),
        // A counter of eight bits that stands at its end counts no more.
        (&[("counters/link_downed", "255")], (None, None), [Pass, Pass, Pass, Pass, Inconclusive]),
        (&[("counters/symbol_error", "255")], (None, None), [Pass, Pass, Pass, Warn, Pass]),
        (&[("counters/symbol_error", "65535")], (None, None), [Pass, Pass, Pass, Inconclusive, Pass]),
        (&[("counters/symbol_error", "-")], (None, None), [Pass, Pass, Pass, Inconclusive, Pass]),
        // The port is gone, as far as InfiniBand goes.
        (&[("link_layer", "Ethernet")], (None, None), [Fail, Skipped, Skipped, Skipped, Skipped]),
    ] {
        assert_eq!(verdicts(after, wanted), expected, "{after:?} {wanted:?}");
    }
}

#[test]
fn a_gpu_with_fewer_links_than_another_is_told() {
    let said = nvlink(&["26.562 GB/s", "26.562 GB/s"]);
    let ask = |_: &'static str, arguments: &[&str]| match arguments[1] {
        "-s" => Ok(said.clone().into_bytes()),
        _ => Err("not asked here".to_owned()),
    };
    let gpu = gpu(Some("nvidia"));
    let named =
        |index: &str| Named { gpu: &gpu, component: format!("SERIAL{index}"), index: Some(index.into()) };
    let findings = nvlink::Said::of(&ask, &mut Vec::new()).state(&[named("0"), named("1")], None);
    let of = |component: &str| {
        let mut findings = findings.iter().filter(|finding| finding.name == names::NVLINKS);
        findings.find(|finding| finding.component.as_deref() == Some(component)).unwrap().observed.clone()
    };
    assert_eq!(of("SERIAL0"), Observation::measured(2.0, "links"));
    let what = "0 active links beside a GPU with 2".to_owned();
    assert_eq!(of("SERIAL1"), Observation::Unexpected { what });
}
