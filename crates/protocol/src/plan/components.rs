//! What a stage owes of components that the profile names: each disk that is expected has a result of its own, so that one
//! which nobody looked at is not made good by the disk beside it.
//!
//! Other parts are counted instead, by SpecValidate and by the stage: an interface by its MAC, GPUs and supplies by their number.
//! Interfaces and GPUs are counted again by the stage that tests them, so that one which went away since is not left out of it.

use super::planned_checks;
use crate::check::{Limit, PlannedCheck};
use crate::check_names as names;
use crate::profile::{Expected, ExpectedDisk, Profile, StageSpec};
use crate::stage::Stage;

/// The planned checks of a stage of this profile, each disk that it expects by its serial among them.
pub fn planned_of(profile: &Profile, spec: &StageSpec) -> Vec<PlannedCheck> {
    let mut plan = planned_checks(spec);
    plan.extend(counted(&profile.expected, spec));
    let (name, disks) = of_each_disk(profile, spec);
    let Some(owed) = plan.iter().find(|planned| planned.name == name).cloned() else { return plan };
    let serials = disks.iter().filter_map(|disk| disk.serial.as_deref());
    plan.extend(
        serials.map(|serial| PlannedCheck { component: Some(serial.trim().to_owned()), ..owed.clone() }),
    );
    plan
}

/// How many GPUs or interfaces there must be, where the profile expects some of what the stage tests.
fn counted(expected: &Expected, spec: &StageSpec) -> Option<PlannedCheck> {
    let of_kinds = expected.gpus.iter().map(|gpu| gpu.count.at_least).fold(0, u32::saturating_add);
    let gpus = expected.gpu_count.map_or(0, |count| count.at_least).max(of_kinds);
    let (name, least) = match &spec.name {
        Stage::Gpu => (names::GPUS.to_owned(), gpus),
        Stage::Soak => (format!("{}{}", names::SOAK_GPU, names::GPUS), gpus),
        Stage::Network => (names::NICS.to_owned(), expected.nic_count.map_or(0, |count| count.at_least)),
        Stage::Inventory
        | Stage::SpecValidate
        | Stage::Smart
        | Stage::CpuStress
        | Stage::Memory
        | Stage::Storage
        | Stage::Psu
        | Stage::Reporting
        | Stage::Package { .. }
        | Stage::Interrupt { .. }
        | Stage::Unknown(_) => return None,
    };
    let limit = Limit::at_least(f64::from(least));
    (least > 0).then_some(PlannedCheck { name, component: None, limit, required: true })
}

/// The check that each disk owes, whatever kind it is of, and which disks those are.
fn of_each_disk<'a>(profile: &'a Profile, spec: &StageSpec) -> (String, &'a [ExpectedDisk]) {
    let expected = profile.expected.disks.as_slice();
    match &spec.name {
        Stage::Smart => (names::HEALTH.to_owned(), expected),
        Stage::Storage if spec.storage.as_ref().is_some_and(|storage| storage.destructive) => {
            (names::OVERWRITTEN.to_owned(), profile.write.disks.as_slice())
        }
        Stage::Storage => (names::IO_ERRORS.to_owned(), expected),
        Stage::Soak => (format!("{}{}", names::SOAK_STORAGE, names::IO_ERRORS), expected),
        Stage::Inventory
        | Stage::SpecValidate
        | Stage::CpuStress
        | Stage::Memory
        | Stage::Network
        | Stage::Gpu
        | Stage::Psu
        | Stage::Reporting
        | Stage::Package { .. }
        | Stage::Interrupt { .. }
        | Stage::Unknown(_) => (String::new(), &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, Limit, Observation, Verdict, judge_stage};

    fn profile(stage: &str, rest: &str) -> Profile {
        let text = format!("name = \"p\"\n[[stage]]\nname = \"Inventory\"\n[[stage]]\n{stage}\n{rest}");
        Profile::parse(&text).unwrap()
    }

    /// Everything that is owed of any component, and of these disks.
    fn reported(plan: &[PlannedCheck], serials: &[&str]) -> Vec<Check> {
        let fulfil = |planned: &PlannedCheck, component: Option<&str>| {
            let limit = &planned.limit;
            let observed = match (&limit.equals, limit.fail_below.or(limit.fail_above)) {
                (Some(text), _) => Observation::Found { text: text.clone() },
                (None, Some(bound)) => Observation::measured(bound, "x"),
                (None, None) => Observation::measured(0.0, "x"),
            };
            Check::of(&planned.name, component, observed, Limit::default())
        };
        let of_any = plan.iter().filter(|planned| planned.component.is_none());
        let mut checks: Vec<Check> = of_any.clone().map(|planned| fulfil(planned, Some("other"))).collect();
        for serial in serials {
            checks.extend(of_any.clone().map(|planned| fulfil(planned, Some(serial))));
        }
        checks
    }

    #[test]
    fn a_disk_that_is_expected_and_has_no_result_is_made_good_by_no_other() {
        let expected =
            "[expected]\ndisk = [{ serial = \"S1\" }, { serial = \"S2 \" }, { model = \"any\" }]\n";
        let written = "[write]\ndisks = [{ serial = \"S1\", size_gb = 1, wwn = \"a\" }, \
                       { serial = \"S2\", size_gb = 1, wwn = \"b\" }]\n";
        for (stage, rest, check) in [
            ("name = \"SMART\"", expected, "health"),
            ("name = \"Storage\"", expected, "io_errors"),
            ("name = \"Soak\"\ndeadline = \"5m\"", expected, "storage.io_errors"),
            ("name = \"Storage\"\ndeadline = \"9h\"\nstorage.destructive = true", written, "overwritten"),
        ] {
            let profile = profile(stage, rest);
            let at = profile.stages.iter().position(|spec| stage.contains(&spec.name.to_string())).unwrap();
            let plan = planned_of(&profile, &profile.settled(&profile.stages[at]));
            // As a disk says it: makers pad serials, and write them in either case.
            let whole = judge_stage(&plan, &reported(&plan, &["s1", "S2"]));
            assert!(whole.checks.iter().all(|check| check.verdict != Verdict::Inconclusive), "{whole:?}");
            let lacking = judge_stage(&plan, &reported(&plan, &["S1"]));
            assert_eq!(lacking.verdict, Verdict::Inconclusive, "{stage}");
            let open = lacking.checks.iter().filter(|check| check.verdict == Verdict::Inconclusive);
            let open: Vec<_> = open.map(|check| (&*check.name, check.component.as_deref())).collect();
            assert_eq!(open, [(check, Some("S2"))], "{stage}");
        }
    }

    #[test]
    fn what_is_required_and_bounded_holds_for_each_disk() {
        let profile =
            profile("name = \"SMART\"\nrequire = [\"health\"]", "[expected]\ndisk = [{ serial = \"S1\" }]\n");
        let plan =
            planned_of(&profile, profile.stages.iter().find(|spec| spec.name == Stage::Smart).unwrap());
        let of: Vec<_> = plan.iter().filter(|planned| planned.name == names::HEALTH).collect();
        assert_eq!(of.len(), 2);
        assert_eq!((&of[0].limit, of[0].required), (&of[1].limit, of[1].required));
        assert!(of[1].required);
    }

    /// A stage whose GPU is gone had nothing to test, and was skipped.
    #[test]
    fn what_is_expected_and_went_away_is_missed_by_the_stage_that_tests_it() {
        for (stage, rest, name, least) in [
            ("name = \"GPU\"", "[expected]\ngpu_count = 8", "gpus", Some(8.0)),
            ("name = \"GPU\"", "[expected]\ngpu_count = { at_least = 1, at_most = 8 }", "gpus", Some(1.0)),
            ("name = \"GPU\"", "[[expected.gpu]]\ndevice = \"10de:2330\"\ncount = 4", "gpus", Some(4.0)),
            ("name = \"GPU\"", "[expected]\ngpu_count = 0", "gpus", None),
            ("name = \"Soak\"\ndeadline = \"5m\"", "[expected]\ngpu_count = 2", "gpu.gpus", Some(2.0)),
            ("name = \"Network\"", "[expected]\nnic_count = 2", "nics", Some(2.0)),
            ("name = \"PSU\"", "[expected]\nnic_count = 2", "nics", None),
        ] {
            let profile = profile(stage, rest);
            let at = profile.stages.iter().position(|spec| stage.contains(&spec.name.to_string())).unwrap();
            let plan = planned_of(&profile, &profile.settled(&profile.stages[at]));
            let owed = plan.iter().find(|planned| planned.name == name);
            assert_eq!(owed.and_then(|owed| owed.limit.fail_below), least, "{stage} {rest}");
            let Some(owed) = owed else { continue };
            let gone = Check::of(name, None, Observation::measured(0.0, "x"), Limit::default());
            let of = |checks: &[Check]| judge_stage(std::slice::from_ref(owed), checks).verdict;
            assert_eq!((of(&[gone]), of(&[])), (Verdict::Fail, Verdict::Inconclusive));
        }
    }
}
