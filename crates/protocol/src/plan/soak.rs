//! What the stage Soak owes: what the stages owe that it does together, each check by the name of its part.

use crate::check::PlannedCheck;
use crate::check_names as names;
use crate::profile::{CpuStressSettings, MemorySettings, SoakSettings, StageSpec, StorageSettings};
use crate::stage::Stage;

/// Of the memory this share, in percent, is left to the others: to the disks' reads, and to what the GPUs are tested by.
const RESERVE_PERCENT: f64 = 25.0;

/// What bears a load, or is looked at under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoakPart {
    /// The CPUs compute.
    Cpu,
    /// The memory is written and read back.
    Memory,
    /// The disks are read.
    Storage,
    /// The GPUs take all the power that they can.
    Gpu,
    /// Supplies and fans, looked at meanwhile.
    Psu,
}

impl SoakPart {
    /// All of them.
    pub const ALL: [SoakPart; 5] =
        [SoakPart::Cpu, SoakPart::Memory, SoakPart::Storage, SoakPart::Gpu, SoakPart::Psu];

    /// What the names of its checks begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            SoakPart::Cpu => names::SOAK_CPU,
            SoakPart::Memory => names::SOAK_MEMORY,
            SoakPart::Storage => names::SOAK_STORAGE,
            SoakPart::Gpu => names::SOAK_GPU,
            SoakPart::Psu => names::SOAK_PSU,
        }
    }

    /// The stage that does it alone, as Soak has it done.
    pub fn spec(self, soak: &StageSpec) -> StageSpec {
        let settings = soak.soak.clone().unwrap_or_default();
        let SoakSettings { duration, memory_mib_max: size_mib_max } = settings.clone();
        let of = |name: Stage| StageSpec {
            deadline: soak.deadline,
            soak: Some(settings.clone()),
            ..StageSpec::of(name)
        };
        match self {
            SoakPart::Cpu => {
                let settings = CpuStressSettings { duration, ..CpuStressSettings::default() };
                StageSpec { cpu_stress: Some(settings), ..of(Stage::CpuStress) }
            }
            SoakPart::Memory => {
                let reserve_percent = RESERVE_PERCENT;
                let settings =
                    MemorySettings { duration, reserve_percent, size_mib_max, ..MemorySettings::default() };
                StageSpec { memory: Some(settings), ..of(Stage::Memory) }
            }
            SoakPart::Storage => {
                // One half of the time from the beginning on, the other here and there.
                let half = duration / 2;
                let settings =
                    StorageSettings { sequential: half, random: half, ..StorageSettings::default() };
                StageSpec { storage: Some(settings), ..of(Stage::Storage) }
            }
            SoakPart::Gpu => StageSpec { gpu: soak.gpu.clone(), ..of(Stage::Gpu) },
            SoakPart::Psu => StageSpec { psu: soak.psu.clone(), ..of(Stage::Psu) },
        }
    }
}

pub(super) fn soak(spec: &StageSpec) -> Vec<PlannedCheck> {
    let of_part = |part: SoakPart| {
        let owed = super::own_checks(&part.spec(spec)).into_iter();
        owed.map(move |planned| PlannedCheck {
            name: format!("{}{}", part.prefix(), planned.name),
            ..planned
        })
    };
    SoakPart::ALL.into_iter().flat_map(of_part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Check, Limit, Observation, Verdict, judge_stage};
    use crate::plan::planned_checks;

    #[test]
    fn what_a_part_owes_is_owed_by_its_name() {
        let soak = StageSpec {
            soak: Some(SoakSettings { duration: 100_000, ..SoakSettings::default() }),
            ..StageSpec::of(Stage::Soak)
        };
        let plan = planned_checks(&soak);
        let mut names: Vec<&str> = plan.iter().map(|planned| planned.name.as_str()).collect();
        let count = names.len();
        for owed in
            ["cpu.miscompares", "memory.miscompares", "storage.io_errors", "gpu.gpu_diag", "psu.supply"]
        {
            assert!(names.contains(&owed), "{owed}");
        }
        assert!(names.contains(&names::SEL_EVENTS) && names.contains(&names::CRITICAL_TEMPERATURE));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "each name once");
        assert_eq!(judge_stage(&plan, &[]).verdict, Verdict::Inconclusive);
        // A load that ended early fails.
        let check = |seconds: f64| {
            Check::of("memory.duration", None, Observation::measured(seconds, "s"), Limit::default())
        };
        let verdict = |seconds: f64| judge_stage(&plan, &[check(seconds)]).checks[0].verdict;
        assert_eq!((verdict(89.0), verdict(90.0)), (Verdict::Fail, Verdict::Pass));
    }

    /// A profile that tests a part of the memory on purpose is not warned of it.
    #[test]
    fn how_much_memory_is_tested_is_the_profiles_to_say() {
        let tested = |memory_mib_max| {
            let soak = SoakSettings { memory_mib_max, ..SoakSettings::default() };
            let soak = StageSpec { soak: Some(soak), ..StageSpec::of(Stage::Soak) };
            let observed = Observation::measured(2.0, "% of the memory");
            let check = Check::of("memory.memory_tested", None, observed, Limit::default());
            let of_part = SoakPart::Memory.spec(&soak).memory.unwrap_or_default();
            (of_part.size_mib_max, judge_stage(&planned_checks(&soak), &[check]).checks[0].verdict)
        };
        assert_eq!(tested(None), (None, Verdict::Warn));
        assert_eq!(tested(Some(32)), (Some(32), Verdict::Pass));
    }
}
