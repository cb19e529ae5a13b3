//! The stage GPU with stand-ins for nvidia-smi, dcgmi and dmesg, which print what their documents show.

use groundcrew_protocol::profile::{GpuDiag, GpuSettings};

use super::*;

/// A machine with so many of NVIDIA's GPUs, at 17:00.0, 18:00.0 and on.
fn machine(gpus: u32) -> Machine {
    let machine = Machine::empty();
    for gpu in 0..gpus {
        let address = format!("0000:{}:00.0", 17 + gpu);
        machine.pci(&address, "0x030200", "0x10de", "0x2330");
        machine.link(&format!("/sys/bus/pci/devices/{address}/driver"), "../../../../bus/pci/drivers/nvidia");
    }
    machine
}

/// The stage, with tools that hear of each other: a folder has `under` while dcgmi runs, until it was looked at, and `loaded`
/// from then on. `twist` is shell that sees `$asked` (the last field of a query, `dmesg` or `dcgmi`), and may print and exit.
fn with_tools(machine: &Machine, gpus: u32, twist: &str) -> Stage {
    let mut stage = stage("GPU", &machine.root);
    stage.context.spec.gpu = Some(GpuSettings { diag: GpuDiag::Medium, ..GpuSettings::default() });
    let state = stage.work.path().display().to_string();
    let rows = |rest: &str| {
        let row =
            |gpu: u32| format!("00000000:{}:00.0, {}\\n", 17 + gpu, rest.replace('#', &gpu.to_string()));
        (0..gpus).map(row).collect::<String>()
    };
    let smi = format!(
        "cd {state}; asked=${{1##*,}}; asked=${{asked##*=}}\n\
         if [ $asked = pcie.link.gen.max ]; then until [ -e under ]; do sleep 0.05; done; touch sampled; fi\n{twist}\n\
         case $asked in serial) printf '{}';; pcie.link.width.max) printf '{}';; hw_slowdown|*.hw_slowdown) printf '{}';;\n\
         *.sw_thermal_slowdown) printf '{}';;\n\
         ecc.mode.current) printf '{}';; ecc.errors.*|remapped_rows.pending) printf '{}';; pcie.link.gen.max) printf '{}';;\n\
         retired_pages.*) printf '{}';; esac",
        rows("#, SERIAL#"),
        rows("41, 16, 16"),
        rows("Not Active"),
        rows("Not Active, Not Active, Not Active"),
        rows("Enabled"),
        rows("0, 0, 0"),
        rows("5, 5"),
        rows("[N/A]"),
    );
    stage.put_tool("nvidia-smi", &smi);
    stage.put_tool("dmesg", &format!("cd {state}; asked=dmesg\n{twist}\necho '[ 0.0] Linux version 6.1.0'"));
    let result = |gpu: u32| format!("{{\"gpu_id\": \"{gpu}\", \"status\": \"Pass\"}}");
    let results: Vec<String> = (0..gpus).map(result).collect();
    let dcgmi = format!(
        "cd {state}; asked=dcgmi; touch under; until [ -e sampled ]; do sleep 0.05; done; rm under; touch loaded\n{twist}\n\
         echo '{{\"DCGM Diagnostic\": {{\"test_categories\": [{{\"category\": \"Hardware\", \"tests\":\n\
         [{{\"name\": \"memory\", \"results\": [{}]}}]}}]}}}}'",
        results.join(", ")
    );
    stage.put_tool("dcgmi", &dcgmi);
    stage
}

fn verdict_of(twist: &str, check: &str) -> (Verdict, String) {
    let machine = machine(1);
    let outcome = run_stage(&with_tools(&machine, 1, twist).context);
    (verdict(&outcome, check), outcome.message)
}

#[test]
fn gpus_that_bore_their_load_pass() {
    let machine = machine(2);
    let outcome = run_stage(&with_tools(&machine, 2, "").context);
    assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.message);
    for serial in ["SERIAL0", "SERIAL1"] {
        let of = |name: &str| {
            let mut checks = outcome.checks.iter();
            checks.find(|of| of.name == name && of.component.as_deref() == Some(serial)).unwrap().verdict
        };
        assert_eq!((of("gpu_pcie_speed"), of("gpu_driver")), (Verdict::Pass, Verdict::Pass), "{serial}");
    }
    let mut names: Vec<&str> = outcome.artifacts.iter().map(|(name, _)| name.as_str()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "each artifact has a name of its own");
}

/// All of it was read before the load once, and passed.
#[test]
fn what_the_load_provokes_is_seen() {
    let after =
        |asked: &str, says: &str| format!("[ -e loaded ] && [ $asked = {asked} ] && printf '{says}' && exit");
    for (twist, check) in [
        (
            after("ecc.errors.uncorrected.aggregate.total", "00000000:17:00.0, 1, 0, 1\\n"),
            "gpu_ecc_uncorrected",
        ),
        (after("dmesg", "[ 9.0] NVRM: Xid (PCI:0000:17:00): 79, pid=1, fallen off\\n"), "xids"),
        (after("pcie.link.width.max", "00000000:17:00.0, 41, 8, 16\\n"), "gpu_pcie_width"),
        (after("serial", "00000000:99:00.0, 0, SERIAL9\\n"), "gpu_driver"),
        // The second question is the one under load.
        (
            "case $asked in *hw_slowdown) echo >>slow; [ $(wc -l <slow) = 2 ] && \
             echo '00000000:17:00.0, Active' && exit;; esac"
                .to_owned(),
            "gpu_slowdown",
        ),
        (
            "[ $asked = pcie.link.gen.max ] && echo '00000000:17:00.0, 1, 5' && exit".to_owned(),
            "gpu_pcie_speed",
        ),
    ] {
        let (verdict, message) = verdict_of(&twist, check);
        assert_eq!(verdict, Verdict::Fail, "{check}: {message}");
    }
}

#[test]
fn a_gpu_that_the_diagnosis_leaves_out_is_named() {
    let machine = machine(2);
    let stage = with_tools(&machine, 1, "");
    // The driver knows both, the diagnosis one.
    let both = "case $asked in serial) printf '00000000:17:00.0, 0, SERIAL0\\n00000000:18:00.0, 1, SERIAL1\\n'; exit;; esac";
    let outcome = run_stage(&with_tools(&machine, 1, both).context);
    drop(stage);
    let left_out =
        outcome.checks.iter().find(|of| of.name == "gpu_diag" && of.component.as_deref() == Some("SERIAL1"));
    let left_out = left_out.expect("it has a check of its own");
    assert_eq!(left_out.verdict, Verdict::Inconclusive);
    assert!(left_out.reason.contains("put no load on this GPU"), "{left_out:?}");
}

#[test]
fn gpus_without_a_load_pass_only_where_the_profile_says_so() {
    let machine = machine(1);
    let with = |diag: GpuDiag, twist: &str| {
        let mut stage = with_tools(&machine, 1, twist);
        stage.context.spec.gpu = Some(GpuSettings { diag, ..GpuSettings::default() });
        run_stage(&stage.context)
    };
    let none = with(GpuDiag::None, "");
    assert_eq!(none.verdict, Verdict::Pass, "{}", none.message);
    assert_eq!(verdict(&none, "gpu_pcie_speed"), Verdict::Skipped);
    let installed = "[ $asked = dcgmi ] && echo '{\"DCGM Diagnostic\": {\"test_categories\": [{\"category\": \
        \"Deployment\", \"tests\": [{\"name\": \"software\", \"results\": [{\"gpu_id\": 0, \"status\": \"Pass\"}]}]}]}}' && exit";
    assert_inconclusive(&with(GpuDiag::Quick, installed), "dcgmi diag -r 1 -j put no load on this GPU");
    let refused = "[ $asked = dcgmi ] && echo no engine && exit 255";
    let outcome = with(GpuDiag::Medium, refused);
    assert_inconclusive(&outcome, "dcgmi printed no JSON");
    assert!(
        outcome.checks.iter().any(|of| of.name == "gpu_diag" && of.component.as_deref() == Some("SERIAL0"))
    );
}

#[test]
fn a_gpu_of_intels_is_no_absent_gpu() {
    let machine = Machine::empty();
    machine.pci("0000:37:00.0", "0x038000", "0x8086", "0x0bd5");
    let outcome = run_stage(&stage("GPU", &machine.root).context);
    assert_eq!(verdict(&outcome, "gpu_driver"), Verdict::Fail, "{}", outcome.message);
    machine.link("/sys/bus/pci/devices/0000:37:00.0/driver", "../../../../bus/pci/drivers/i915");
    let outcome = run_stage(&stage("GPU", &machine.root).context);
    assert_inconclusive(&outcome, "no test of the GPU 8086:0bd5 at 0000:37:00.0");
}

/// It is on the bus no more, and nobody expects one: but its driver wrote why.
#[test]
fn a_gpu_that_fell_off_the_bus_is_told_by_the_kernels_log() {
    let machine = machine(0);
    std::fs::create_dir_all(machine.root.path("/sys/bus/pci/devices")).unwrap();
    let fallen =
        with_tools(&machine, 0, "echo '[ 9.0] NVRM: Xid (PCI:0000:17:00): 79, pid=1, fallen off' && exit");
    assert_eq!(verdict(&run_stage(&fallen.context), "xids"), Verdict::Fail);
    assert_eq!(verdict(&run_stage(&with_tools(&machine, 0, "").context), "xids"), Verdict::Skipped);
}

#[test]
fn gpus_that_are_expected_are_counted_again() {
    let profile = "name = \"p\"\n[[stage]]\nname = \"Inventory\"\n[[stage]]\nname = \"GPU\"\ngpu.diag = \"none\"\n[expected]\ngpu_count = 2";
    let profile = groundcrew_protocol::profile::Profile::parse(profile).unwrap();
    let with = |gpus: u32| {
        let machine = machine(gpus);
        std::fs::create_dir_all(machine.root.path("/sys/bus/pci/devices")).unwrap();
        let mut stage = with_tools(&machine, gpus, "");
        stage.context.spec.gpu = Some(GpuSettings { diag: GpuDiag::None, ..GpuSettings::default() });
        stage.context.plan = groundcrew_protocol::plan::planned_of(&profile, &stage.context.spec);
        run_stage(&stage.context)
    };
    let outcome = with(2);
    assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.message);
    assert_eq!(verdict(&with(1), "gpus"), Verdict::Fail);
    // The only ones fell off the bus: nothing is left to test, and that is no pass.
    assert_eq!(with(0).verdict, Verdict::Fail);
}
