//! The checks that a stage owes, from the profile. Frozen by the orchestrator when a stage starts.

mod components;
mod counters;
mod gpu;
mod loads;
mod power;
mod soak;

pub use components::planned_of;
pub use counters::NO_EVENTS;
pub use gpu::{GPU_DIAG_PASSED, GPU_ENABLED, GPU_KNOWN, GPU_NO, GPU_NOT_ACTIVE, NO_XIDS};
pub use loads::FULL_DUPLEX;
pub use power::{FAN_GOOD, FULLY_REDUNDANT, SUPPLY_GOOD, TEMPERATURE_GOOD};
pub use soak::SoakPart;

use crate::check::{Limit, PlannedCheck};
pub use crate::check_names::{self as names, INVENTORY_CHECKS};
use crate::profile::{CpuStressSettings, InterruptKind, SelfTest, SmartSettings, StageSpec};
use crate::stage::Stage;

/// What the check [`names::HEALTH`] finds of a healthy disk.
pub const HEALTH_PASSED: &str = "passed";

/// What the check [`names::SELF_TEST`] finds of a self-test that found nothing.
pub const SELF_TEST_PASSED: &str = "completed without error";

/// What the check [`names::STEPS`] finds where a package's call ended well.
pub const STEPS_DONE: &str = "done";

/// What the check [`names::COMMANDS`] finds where every command of an interrupt ended well.
pub const COMMANDS_DONE: &str = "done";

/// What the check [`names::REBOOTED`] finds where the machine came back from a reboot that was asked for. An agent never
/// says so: only the boot id of its next claim does.
pub const REBOOTED_FOUND: &str = "another boot id";

/// The planned checks of a stage. A stage that this version cannot plan owes one check that nobody can fulfil but
/// an agent that knows the stage, so that it can never pass by reporting nothing.
pub fn planned_checks(spec: &StageSpec) -> Vec<PlannedCheck> {
    let mut plan = own_checks(spec);
    plan.extend(counters::planned_counters(spec));
    for name in &spec.require {
        match plan.iter_mut().find(|check| check.name == *name) {
            Some(check) => check.required = true,
            None => plan.push(PlannedCheck { required: true, ..planned(name, Limit::default()) }),
        }
    }
    plan
}

/// What a stage owes without the counters around it.
fn own_checks(spec: &StageSpec) -> Vec<PlannedCheck> {
    match &spec.name {
        Stage::Inventory => inventory(),
        Stage::CpuStress => cpu_stress(&spec.cpu_stress.clone().unwrap_or_default()),
        stage if stage.is_interrupt() => vec![interrupt(spec)],
        // There is no check of an interrupt but its own.
        Stage::Package { mode, .. } if !mode.starts_with("interrupt") => {
            vec![planned(names::STEPS, Limit::equal_to(STEPS_DONE))]
        }
        Stage::SpecValidate | Stage::Reporting => Vec::new(),
        Stage::Smart => smart(&spec.smart.clone().unwrap_or_default()),
        Stage::Memory => loads::memory(&spec.memory.clone().unwrap_or_default()),
        Stage::Storage => loads::storage(&spec.storage.clone().unwrap_or_default()),
        Stage::Network => loads::network(&spec.network.clone().unwrap_or_default()),
        Stage::Psu => power::psu(&spec.psu.clone().unwrap_or_default()),
        Stage::Gpu => gpu::gpu(&spec.gpu.clone().unwrap_or_default()),
        Stage::Soak => soak::soak(spec),
        Stage::Package { .. } | Stage::Interrupt { .. } | Stage::Unknown(_) => {
            vec![planned(names::STAGE_KNOWN, Limit::default())]
        }
    }
}

/// A reboot is proved, anything else is done. One that this version cannot tell is known to nobody.
fn interrupt(spec: &StageSpec) -> PlannedCheck {
    match spec.interrupt.as_ref().map(|interrupt| &interrupt.kind) {
        Some(InterruptKind::NodeRestart) => planned(names::REBOOTED, Limit::equal_to(REBOOTED_FOUND)),
        Some(
            InterruptKind::NoOp
            | InterruptKind::RestartAllServices
            | InterruptKind::ScriptInterrupt
            | InterruptKind::ServiceRestart,
        ) => planned(names::COMMANDS, Limit::equal_to(COMMANDS_DONE)),
        Some(InterruptKind::Unknown(_)) | None => planned(names::STAGE_KNOWN, Limit::default()),
    }
}

/// That a part could be read is all that is asked of it here; but a link that lost lanes has lost them at any time.
fn inventory() -> Vec<PlannedCheck> {
    let limit = |name: &str| if name == names::PCIE_WIDTH { loads::whole_link() } else { Limit::default() };
    INVENTORY_CHECKS.iter().map(|name| planned(name, limit(name))).collect()
}

fn cpu_stress(settings: &CpuStressSettings) -> Vec<PlannedCheck> {
    let seconds_min = settings.duration as f64 / 1000.0 * loads::TIME_SHARE_MIN;
    vec![
        planned(names::MISCOMPARES, Limit::at_most(0.0)),
        planned(names::DURATION, Limit::at_least(seconds_min)),
        planned(names::RATE, Limit { fail_below: settings.rate_min, ..Limit::default() }),
        planned(
            names::THROTTLING,
            Limit { warn_above: Some(0.0), ..Limit::at_most(settings.throttled_percent_max) },
        ),
        planned(names::FREQUENCY, Limit { fail_below: settings.frequency_min_mhz, ..Limit::default() }),
    ]
}

/// Over this, in percent, a disk's life counts as nearly used up.
const PERCENTAGE_USED_WARNS: f64 = 80.0;

/// A disk of any kind fulfils what its kind keeps; what no disk keeps is skipped with that reason.
fn smart(settings: &SmartSettings) -> Vec<PlannedCheck> {
    let warns = Limit { warn_above: Some(0.0), ..Limit::default() };
    let at_most = |bound: Option<f64>| Limit { fail_above: bound, ..Limit::default() };
    let used = Limit {
        warn_above: Some(PERCENTAGE_USED_WARNS.min(settings.percentage_used_max)),
        ..Limit::at_most(settings.percentage_used_max)
    };
    let mut plan = vec![
        planned(names::HEALTH, Limit::equal_to(HEALTH_PASSED)),
        planned(names::PREFAIL, Limit::at_most(0.0)),
        planned(names::PAST_THRESHOLD, warns.clone()),
        planned(names::FAILED_SELF_TESTS, Limit::at_most(0.0)),
        planned(names::ERROR_LOG, warns.clone()),
        planned(names::REALLOCATED, Limit::at_most(settings.reallocated_sectors_max)),
        planned(names::REPORTED_UNCORRECTABLE, Limit::at_most(settings.reported_uncorrectable_max)),
        planned(names::COMMAND_TIMEOUTS, warns.clone()),
        planned(names::PENDING, Limit::at_most(settings.pending_sectors_max)),
        planned(names::OFFLINE_UNCORRECTABLE, Limit::at_most(settings.offline_uncorrectable_max)),
        planned(names::GROWN_DEFECTS, Limit::at_most(settings.grown_defects_max)),
        planned(names::UNCORRECTED_ERRORS, Limit::at_most(settings.uncorrected_errors_max)),
        planned(names::CRITICAL_WARNING, Limit::at_most(0.0)),
        planned(names::SPARE, Limit::at_least(0.0)),
        planned(names::PERCENTAGE_USED, used),
        planned(names::MEDIA_ERRORS, Limit::at_most(settings.media_errors_max)),
        planned(names::POWER_ON_HOURS, at_most(settings.power_on_hours_max)),
        planned(names::WRITTEN, at_most(settings.written_tb_max)),
    ];
    if settings.self_test != SelfTest::None {
        plan.push(planned(names::SELF_TEST, Limit::equal_to(SELF_TEST_PASSED)));
        plan.push(planned(names::CRC_ERRORS, warns));
    }
    plan
}

fn planned(name: &str, limit: Limit) -> PlannedCheck {
    PlannedCheck { name: name.to_owned(), component: None, limit, required: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, Observation, Verdict, judge_stage};

    fn spec(name: &str, require: &[&str]) -> StageSpec {
        StageSpec {
            deadline: 1000,
            require: require.iter().map(|name| (*name).to_owned()).collect(),
            ..StageSpec::of(name.into())
        }
    }

    #[test]
    fn no_stage_of_an_agents_passes_by_reporting_nothing() {
        for name in
            ["Inventory", "CPUStress", "SMART", "Storage", "GPU", "Package:a/apply", "Interrupt:b", "Later"]
        {
            let plan = planned_checks(&spec(name, &[]));
            assert_eq!(judge_stage(&plan, &[]).verdict, Verdict::Inconclusive, "{name}");
        }
    }

    #[test]
    fn a_package_passes_by_its_word_alone() {
        let plan = planned_checks(&spec("Package:a/apply", &[]));
        for (text, verdict) in [(STEPS_DONE, Verdict::Pass), ("FAILED: b.sh  3", Verdict::Fail)] {
            let found = Observation::Found { text: text.to_owned() };
            let check = Check::of(names::STEPS, None, found, Limit::default());
            assert_eq!(judge_stage(&plan, &[check]).verdict, verdict, "{text}");
        }
        for mode in ["interrupt", "interrupt-check"] {
            let plan = planned_checks(&spec(&format!("Package:a/{mode}"), &[]));
            assert_eq!(plan[0].name, names::STAGE_KNOWN, "{mode}");
        }
    }

    #[test]
    fn an_interrupt_owes_its_commands_and_a_reboot_its_proof() {
        for (kind, owed) in [
            ("no_op", names::COMMANDS),
            ("service_restart", names::COMMANDS),
            ("node_restart", names::REBOOTED),
            ("of_later", names::STAGE_KNOWN),
        ] {
            let interrupt = crate::profile::InterruptSettings {
                name: "a".to_owned(),
                kind: kind.to_owned().into(),
                drain: false,
                services: Vec::new(),
                root_mount: "/".to_owned(),
                reboot_ms: None,
            };
            for name in ["Interrupt:a", "Package:a/interrupt"] {
                let spec = StageSpec { interrupt: Some(interrupt.clone()), ..spec(name, &[]) };
                let plan = planned_checks(&spec);
                assert_eq!(
                    plan.iter().map(|check| &*check.name).collect::<Vec<_>>(),
                    [owed],
                    "{name} {kind}"
                );
            }
        }
    }

    #[test]
    fn the_names_that_a_profile_may_require_are_those_that_are_planned() {
        for name in ["Inventory", "CPUStress", "Memory", "Network", "PSU", "GPU", "Soak", "Package:a/apply"] {
            let plan = planned_checks(&spec(name, &[]));
            let planned: Vec<&str> = plan.iter().map(|check| &*check.name).collect();
            assert_eq!(names::of(&name.into()), planned, "{name}");
        }
    }

    #[test]
    fn what_is_required_is_marked_or_added() {
        let plan = planned_checks(&spec("CPUStress", &["frequency", "edac"]));
        assert!(plan.iter().any(|check| check.name == "frequency" && check.required));
        assert!(plan.iter().any(|check| check.name == "edac" && check.required));
        assert!(plan.iter().any(|check| check.name == "rate" && !check.required));
    }

    #[test]
    fn limits_of_the_profile_judge_what_an_agent_measured() {
        let settings = CpuStressSettings {
            duration: 40_000,
            rate_min: Some(1000.0),
            frequency_min_mhz: Some(2000.0),
            throttled_percent_max: 5.0,
            ..CpuStressSettings::default()
        };
        let plan = planned_checks(&StageSpec { cpu_stress: Some(settings), ..spec("CPUStress", &[]) });
        let whole = [
            (names::MISCOMPARES, 0.0),
            (names::DURATION, 36.0),
            (names::RATE, 1000.0),
            (names::THROTTLING, 0.0),
            (names::FREQUENCY, 2000.0),
        ];
        let verdict_with = |name: &str, value: f64| {
            let check = |(of, usual): &(&str, f64)| {
                let value = if *of == name { value } else { *usual };
                // The agent's own limit asks for nothing, and does not count.
                Check::of(of, Some("cpu"), Observation::measured(value, "u"), Limit::default())
            };
            let counters = names::counters(&Stage::CpuStress).into_iter();
            let (told, counted): (Vec<&str>, Vec<&str>) =
                counters.partition(|name| [names::SEL_EVENTS, names::CRITICAL_TEMPERATURE].contains(name));
            let counted = counted.into_iter().map(|name| (name, 0.0));
            let none = || Observation::Found { text: NO_EVENTS.to_owned() };
            let told = told.into_iter().map(|name| Check::of(name, None, none(), Limit::default()));
            let measured: Vec<(&str, f64)> = whole.into_iter().chain(counted).collect();
            judge_stage(&plan, &measured.iter().map(check).chain(told).collect::<Vec<_>>()).verdict
        };
        for (name, value, verdict) in [
            (names::MISCOMPARES, 0.0, Verdict::Pass),
            (names::MISCOMPARES, 1.0, Verdict::Fail),
            (names::DURATION, 35.9, Verdict::Fail),
            (names::RATE, 999.9, Verdict::Fail),
            (names::THROTTLING, 0.1, Verdict::Warn),
            (names::THROTTLING, 5.1, Verdict::Fail),
            (names::FREQUENCY, 1999.0, Verdict::Fail),
            (names::FREQUENCY, f64::NAN, Verdict::Inconclusive),
        ] {
            assert_eq!(verdict_with(name, value), verdict, "{name} {value}");
        }
    }

    #[test]
    fn a_required_source_that_the_machine_lacks_holds_the_run() {
        let absent = Observation::Absent { why: "no cpufreq".to_owned() };
        let reported = [Check::of(names::FREQUENCY, Some("cpu"), absent, Limit::default())];
        let verdict = |require: &[&str]| {
            let plan = planned_checks(&spec("CPUStress", require));
            let judged = judge_stage(&plan, &reported);
            judged.checks.into_iter().find(|check| check.name == names::FREQUENCY).unwrap().verdict
        };
        assert_eq!(verdict(&[]), Verdict::Skipped);
        assert_eq!(verdict(&["frequency"]), Verdict::Inconclusive);
    }

    #[test]
    fn every_part_of_the_inventory_is_owed_once() {
        let plan = planned_checks(&spec("Inventory", &["dimms", "psus"]));
        let owed: Vec<&str> = plan.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(owed, names::of(&Stage::Inventory));
        let required: Vec<&str> =
            plan.iter().filter(|check| check.required).map(|check| check.name.as_str()).collect();
        assert_eq!(required, ["dimms", "psus"]);
    }
}
