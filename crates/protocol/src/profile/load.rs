//! Which stages put a load on the machine, and what leave a profile gives them where the machine is an installed system: one
//! that others may be working on. A live image has nobody to ask.

use super::{Profile, StageSpec};
use crate::stage::Stage;

/// The leave that a profile gives a stage on an installed system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It puts no load on the machine, and needs none.
    NotNeeded,
    /// `in_service = true`, of the profile or of the stage: others may feel it.
    InService,
    /// `drain = true` of the stage: the node is drained first.
    Drained,
    /// None.
    Missing,
}

impl StageSpec {
    /// True where others on the machine would feel the stage: it keeps CPUs, memory, disks, GPUs or a link busy.
    pub fn loads_the_machine(&self) -> bool {
        match &self.name {
            Stage::CpuStress | Stage::Memory | Stage::Storage | Stage::Soak => true,
            // Without peers it only looks at the links, and without a level over the first `dcgmi` only at what is installed.
            Stage::Network => self.network.as_ref().is_some_and(|network| !network.peers.is_empty()),
            Stage::Gpu => self.gpu.clone().unwrap_or_default().diag.level().is_some_and(|level| level > 1),
            Stage::Inventory
            | Stage::SpecValidate
            | Stage::Smart
            | Stage::Psu
            | Stage::Reporting
            | Stage::Package { .. }
            | Stage::Interrupt { .. }
            | Stage::Unknown(_) => false,
        }
    }
}

impl Profile {
    /// The leave that it gives a stage of its own.
    pub fn leave(&self, spec: &StageSpec) -> Leave {
        if !spec.loads_the_machine() {
            Leave::NotNeeded
        } else if self.in_service || spec.in_service {
            Leave::InService
        } else if spec.drain {
            Leave::Drained
        } else {
            Leave::Missing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_others_would_feel_needs_leave() {
        for (stage, wanted) in [
            ("name = \"Inventory\"", Leave::NotNeeded),
            ("name = \"SMART\"", Leave::NotNeeded),
            ("name = \"PSU\"", Leave::NotNeeded),
            ("name = \"CPUStress\"", Leave::Missing),
            ("name = \"Memory\"", Leave::Missing),
            ("name = \"Storage\"", Leave::Missing),
            ("name = \"Soak\"\ndeadline = \"5m\"", Leave::Missing),
            ("name = \"Soak\"\ndeadline = \"5m\"\ngpu.diag = \"none\"", Leave::Missing),
            ("name = \"Network\"", Leave::NotNeeded),
            ("name = \"Network\"\nnetwork.peer = [{ host = \"a\" }]", Leave::Missing),
            ("name = \"GPU\"\ngpu.diag = \"none\"", Leave::NotNeeded),
            ("name = \"GPU\"\ngpu.diag = \"quick\"", Leave::NotNeeded),
            ("name = \"GPU\"\ngpu.diag = \"medium\"", Leave::Missing),
            ("name = \"CPUStress\"\nin_service = true", Leave::InService),
            ("name = \"CPUStress\"\nin_service = false", Leave::Missing),
            ("name = \"CPUStress\"\ndrain = true", Leave::Drained),
            ("name = \"CPUStress\"\ndrain = false", Leave::Missing),
        ] {
            for (in_service, alone) in [("", wanted), ("in_service = false\n", wanted)] {
                let profile =
                    Profile::parse(&format!("name = \"p\"\n{in_service}[[stage]]\n{stage}\n")).unwrap();
                assert_eq!(profile.leave(&profile.stages[0]), alone, "{stage}");
                assert_eq!(Profile::parse(&profile.to_toml()).unwrap(), profile);
            }
            let text = format!("name = \"p\"\nin_service = true\n[[stage]]\n{stage}\n");
            let profile = Profile::parse(&text).unwrap();
            let allowed = if wanted == Leave::NotNeeded { Leave::NotNeeded } else { Leave::InService };
            assert_eq!(profile.leave(&profile.stages[0]), allowed, "{stage}");
        }
    }

    #[test]
    fn leave_is_written_where_it_is_needed_alone() {
        for (stage, key) in [
            ("name = \"PSU\"\ndrain = true", "stage[1].drain"),
            ("name = \"SMART\"\nin_service = true", "stage[1].in_service"),
            ("name = \"Inventory\"\ndrain = true", "stage[1].drain"),
            ("name = \"CPUStress\"\ndrain = true\nin_service = true", "stage[1].drain"),
        ] {
            let bad = Profile::parse(&format!("name = \"p\"\n[[stage]]\n{stage}\n")).unwrap_err();
            assert_eq!(bad.key, key, "{bad}");
        }
    }
}
