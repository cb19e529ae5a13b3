//! From a table `[[stage]]` to a [`StageSpec`]: which settings belong to which stage, and that its deadline fits its load.

use super::parse::{SPAN_MS_MAX, required, stage_name};
use super::part::Part;
use super::{BadProfile, GpuDiag, SelfTest, StageSpec};
use super::{counters, cpu_stress, gpu, memory, network, psu, smart, soak, storage};
use crate::check_names;
use crate::stage::{Stage, stage_words};
use crate::time::format_span_ms;

/// A stage has this long, beside its load, to start its tools and read what they say.
const DEADLINE_MARGIN_MS: u64 = 10_000;

/// The keys of a stage.
pub(super) const KEYS: [&str; 14] = [
    "name",
    "deadline",
    "in_service",
    "drain",
    "require",
    "counters",
    "cpu_stress",
    "smart",
    "memory",
    "storage",
    "network",
    "gpu",
    "psu",
    "soak",
];

/// Reads a stage.
pub(super) fn stage(part: &Part<'_>) -> Result<StageSpec, BadProfile> {
    let words: Vec<&str> = stage_words().collect();
    let name = stage_name(&part.needed("name", &format!("one of {}", words.join(", ")))?, &words)?;
    let written = part.optional("deadline", |field| field.span_ms(1..=SPAN_MS_MAX))?;
    let by_default = StageSpec::of(name);
    let known = check_names::of(&by_default.name);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let spec = StageSpec {
        in_service: part.optional("in_service", |field| field.flag())?.unwrap_or_default(),
        drain: part.optional("drain", |field| field.flag())?.unwrap_or_default(),
        require: part.optional("require", |field| required(field, &known))?.unwrap_or_default(),
        counters: part.optional("counters", counters::counters)?,
        cpu_stress: part.optional("cpu_stress", cpu_stress::cpu_stress)?,
        smart: part.optional("smart", smart::smart)?,
        memory: part.optional("memory", memory::memory)?,
        storage: part.optional("storage", storage::storage)?,
        network: part.optional("network", network::network)?,
        gpu: part.optional("gpu", gpu::gpu)?,
        psu: part.optional("psu", psu::psu)?,
        soak: part.optional("soak", soak::soak)?,
        deadline: written.unwrap_or(by_default.deadline),
        ..by_default
    };
    if !spec.require.is_empty() && spec.name.is_orchestrators() {
        return Err(part.refuse_at(
            "require",
            &format!("required checks in {}", spec.name),
            "none: no agent does this stage",
        ));
    }
    refuse_settings_of_another(part, &spec)?;
    refuse_idle_leave(part, &spec)?;
    refuse_short_deadline(part, &spec, written.is_some())?;
    Ok(spec)
}

/// Settings in a stage that does not read them would be believed to hold.
fn refuse_settings_of_another(part: &Part<'_>, spec: &StageSpec) -> Result<(), BadProfile> {
    let tables = [
        ("cpu_stress", spec.cpu_stress.is_some(), Stage::CpuStress),
        ("smart", spec.smart.is_some(), Stage::Smart),
        ("memory", spec.memory.is_some(), Stage::Memory),
        ("storage", spec.storage.is_some(), Stage::Storage),
        ("network", spec.network.is_some(), Stage::Network),
        ("gpu", spec.gpu.is_some(), Stage::Gpu),
        ("psu", spec.psu.is_some(), Stage::Psu),
        ("soak", spec.soak.is_some(), Stage::Soak),
    ];
    let found = || format!("a table in stage {}", spec.name);
    if spec.counters.is_some() && check_names::counters(&spec.name).is_empty() {
        return Err(part.refuse_at("counters", &found(), "this table in a stage that tests hardware"));
    }
    // A Soak judges GPUs and supplies by what is written in it.
    let reads = |key: &str, of: &Stage| {
        spec.name == *of || (spec.name == Stage::Soak && ["gpu", "psu"].contains(&key))
    };
    match tables.iter().find(|(key, is_written, of)| *is_written && !reads(key, of)) {
        Some((key, _, of)) => Err(part.refuse_at(key, &found(), &format!("this table in stage {of} alone"))),
        None => Ok(()),
    }
}

/// Leave in a stage that puts no load on the machine would do nothing; a drain that another leave makes needless would not
/// be noticed to be the weaker of the two.
fn refuse_idle_leave(part: &Part<'_>, spec: &StageSpec) -> Result<(), BadProfile> {
    let written = [("in_service", spec.in_service), ("drain", spec.drain)];
    let Some((key, _)) = written.iter().find(|(_, is_written)| *is_written) else { return Ok(()) };
    if !may_load(&spec.name) {
        let expected = "a stage that puts a load on the machine: CPUStress, Memory, Storage, Network, GPU or Soak (an \
                        interrupt's drain stands in its [[interrupt]])";
        return Err(part.refuse_at(key, &format!("true in stage {}", spec.name), expected));
    }
    match spec.in_service && spec.drain {
        true => Err(part.refuse_at("drain", "true beside in_service = true", "one of the two")),
        false => Ok(()),
    }
}

/// True for a stage that puts a load on the machine with some settings.
fn may_load(stage: &Stage) -> bool {
    match stage {
        Stage::CpuStress | Stage::Memory | Stage::Storage | Stage::Network | Stage::Gpu | Stage::Soak => true,
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

/// What a deadline must fit that no default can, because the hardware alone says how long the stage takes.
fn needs_deadline(spec: &StageSpec) -> Option<&'static str> {
    if spec.storage.as_ref().is_some_and(|storage| storage.destructive) {
        return Some(
            "one that fits the disks: each is written over and read back, which takes a large one a day or two",
        );
    }
    if spec.smart.as_ref().is_some_and(|smart| smart.self_test == SelfTest::Long) {
        return Some(
            "one that fits the disks: a long self-test reads all of each, which takes a large one a day",
        );
    }
    let diag = spec.gpu.as_ref().filter(|_| spec.name == Stage::Gpu).map(|gpu| &gpu.diag);
    match diag {
        Some(GpuDiag::Long | GpuDiag::Extended) => {
            Some("one that fits the diagnosis: half an hour for \"long\", hours for \"extended\"")
        }
        Some(GpuDiag::None | GpuDiag::Quick | GpuDiag::Medium | GpuDiag::Unknown(_)) | None => None,
    }
}

fn refuse_short_deadline(part: &Part<'_>, spec: &StageSpec, is_written: bool) -> Result<(), BadProfile> {
    if let (false, Some(expected)) = (is_written, needs_deadline(spec)) {
        return Err(part.lacks("deadline", expected));
    }
    let Some((load_ms, why)) = load(spec) else { return Ok(()) };
    let deadline_min = load_ms.saturating_add(DEADLINE_MARGIN_MS);
    if spec.deadline >= deadline_min {
        return Ok(());
    }
    let note = if is_written { "" } else { " (the default)" };
    let found = format!("\"{}\"{note}", format_span_ms(spec.deadline));
    let expected = format!("at least \"{}\", as {why}", format_span_ms(deadline_min));
    Err(part.refuse_at("deadline", &found, &expected))
}

/// How long the load of a stage lasts by its settings, and which they are.
fn load(spec: &StageSpec) -> Option<(u64, String)> {
    match &spec.name {
        Stage::CpuStress => {
            let duration = spec.cpu_stress.clone().unwrap_or_default().duration;
            Some((duration, format!("cpu_stress.duration is \"{}\"", format_span_ms(duration))))
        }
        Stage::Memory => {
            let duration = spec.memory.clone().unwrap_or_default().duration;
            Some((duration, format!("memory.duration is \"{}\"", format_span_ms(duration))))
        }
        Stage::Storage => {
            let settings = spec.storage.clone().unwrap_or_default();
            if settings.destructive {
                return None; // How long it takes is the disk's to say.
            }
            // How long a whole surface takes is the disk's to say.
            let sequential = if settings.full_surface { 0 } else { settings.sequential };
            let both = sequential.saturating_add(settings.random);
            Some((both, format!("each disk is read for \"{}\"", format_span_ms(both))))
        }
        Stage::Network => {
            let settings = spec.network.clone().unwrap_or_default();
            let ways = 2 * settings.peers.len() as u64;
            let each = format_span_ms(settings.duration);
            let why =
                format!("each of {} peers is spoken with for \"{each}\" each way", settings.peers.len());
            Some((settings.duration.saturating_mul(ways), why))
        }
        Stage::Soak => {
            let duration = spec.soak.clone().unwrap_or_default().duration;
            Some((duration, format!("soak.duration is \"{}\"", format_span_ms(duration))))
        }
        Stage::Inventory
        | Stage::SpecValidate
        | Stage::Smart
        | Stage::Gpu
        | Stage::Psu
        | Stage::Reporting
        | Stage::Package { .. }
        | Stage::Interrupt { .. }
        | Stage::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Profile, SelfTest, StageSpec};
    use crate::stage::Stage;
    use crate::time::format_span_ms;

    fn assert_refused(stage: &str, key: &str, expected: &str) {
        let text = format!("name = \"p\"\n[[stage]]\n{stage}\n");
        let bad = Profile::parse(&text).unwrap_err();
        assert_eq!(bad.key, key);
        assert!(bad.expected.contains(expected), "{bad}");
    }

    #[test]
    fn settings_that_a_stage_does_not_read_are_refused() {
        for (stage, key, expected) in [
            ("name = \"SMART\"\ncpu_stress = {}", "stage[1].cpu_stress", "in stage CPUStress alone"),
            ("name = \"Inventory\"\nsmart = {}", "stage[1].smart", "in stage SMART alone"),
            ("name = \"SpecValidate\"\ncounters = {}", "stage[1].counters", "a stage that tests hardware"),
            (
                "name = \"SMART\"\ncounters.lost_carriers = 1",
                "stage[1].counters.lost_carriers",
                "is lost_carriers_max meant",
            ),
            (
                "name = \"SMART\"\ncounters.nic_errors_warn_from = 0",
                "stage[1].counters.nic_errors_warn_from",
                "a whole number from 1 to",
            ),
            (
                "name = \"SMART\"\nrequire = [\"memory_correctd\"]",
                "stage[1].require[1]",
                "is memory_corrected meant",
            ),
        ] {
            assert_refused(stage, key, expected);
        }
    }

    #[test]
    fn a_stage_that_writes_over_disks_names_them_and_does_nothing_else() {
        for (stage, key, expected) in [
            (
                "name = \"Storage\"\nstorage.destructive = true",
                "stage[1].deadline",
                "one that fits the disks",
            ),
            (
                "name = \"Storage\"\ndeadline = \"9h\"\nstorage.destructive = true",
                "write.disks",
                "the disks that stage Storage may write over",
            ),
            (
                "name = \"Storage\"\nstorage.destructive = true\nstorage.random = \"1s\"",
                "stage[1].storage.random",
                "none beside destructive = true",
            ),
            (
                "name = \"Storage\"\nstorage.overwrite_mib = 5",
                "stage[1].storage.overwrite_mib",
                "destructive = true beside it",
            ),
        ] {
            assert_refused(stage, key, expected);
        }
    }

    #[test]
    fn settings_of_loads_and_devices_are_refused_by_their_keys() {
        for (stage, key, expected) in [
            (
                "name = \"Storage\"\nstorage.write_folder = \"a/b\"",
                "stage[1].storage.write_folder",
                "an absolute path",
            ),
            (
                "name = \"Storage\"\nstorage.write_folder = \"/a/../b\"",
                "stage[1].storage.write_folder",
                "without '..'",
            ),
            (
                "name = \"Storage\"\nstorage.write_mib = 5",
                "stage[1].storage.write_folder",
                "the folder of the file",
            ),
            (
                "name = \"Storage\"\nstorage.sequential = \"2m\"",
                "stage[1].deadline",
                "\"150s\", as each disk is read",
            ),
            (
                "name = \"Memory\"\nmemory.duration = \"2m\"",
                "stage[1].deadline",
                "as memory.duration is \"2m\"",
            ),
            (
                "name = \"Memory\"\nmemory.reserve_percent = 101",
                "stage[1].memory.reserve_percent",
                "from 0 to 100",
            ),
            (
                "name = \"Memory\"\nmemory.method = \"write64\"",
                "stage[1].memory.method",
                "compare what they read",
            ),
            ("name = \"Memory\"\nmemory.method = \"walk-0\"", "stage[1].memory.method", "is walk-0a meant"),
            ("name = \"Memory\"\nstorage = {}", "stage[1].storage", "in stage Storage alone"),
            ("name = \"Soak\"\nstorage = {}", "stage[1].storage", "in stage Storage alone"),
            ("name = \"Memory\"\nsoak = {}", "stage[1].soak", "in stage Soak alone"),
            ("name = \"Soak\"\nsoak.duration = \"2m\"", "stage[1].deadline", "as soak.duration is \"2m\""),
            (
                "name = \"Network\"\nnetwork.peer = [{ host = \"-x\" }]",
                "stage[1].network.peer[1].host",
                "no '-' first",
            ),
            (
                "name = \"Network\"\nnetwork.peer = [{ host = \"a\" }, { host = \"a\", port = 5201 }]",
                "stage[1].network.peer[2].host",
                "each peer once",
            ),
            (
                "name = \"Network\"\nnetwork = { duration = \"1m\", peer = [{ host = \"a\" }] }",
                "stage[1].deadline",
                "each of 1 peers is spoken with for \"1m\" each way",
            ),
            ("name = \"GPU\"\ngpu.diag = \"lon\"", "stage[1].gpu.diag", "is long meant"),
            ("name = \"Soak\"\nsoak.memory_mib_max = 15", "stage[1].soak.memory_mib_max", "from 16 to"),
            ("name = \"GPU\"\ngpu.diag = \"long\"", "stage[1].deadline", "one that fits the diagnosis"),
            (
                "name = \"SMART\"\nsmart.self_test = \"long\"",
                "stage[1].deadline",
                "a long self-test reads all",
            ),
            ("name = \"PSU\"\npsu.supplies = 0", "stage[1].psu.supplies", "from 1 to 64"),
        ] {
            assert_refused(stage, key, expected);
        }
    }

    /// Two minutes end what these stages ask for by default on a healthy machine.
    #[test]
    fn a_stage_has_time_for_what_it_does_by_default() {
        for (name, deadline_ms) in [
            ("Inventory", 120_000),
            ("CPUStress", 120_000),
            ("SMART", 900_000),
            ("GPU", 900_000),
            ("PSU", 600_000),
        ] {
            let profile = Profile::parse(&format!("name = \"p\"\n[[stage]]\nname = \"{name}\"\n")).unwrap();
            assert_eq!(profile.stages[0].deadline, deadline_ms, "{name}");
        }
    }

    #[test]
    fn counters_are_read_in_every_stage_that_has_them() {
        let text = "name = \"p\"\n[[stage]]\nname = \"SMART\"\nrequire = [\"memory_corrected\"]\n\
                    counters = { memory_corrected_warn_from = 7, lost_carriers_max = 2 }\n";
        let profile = Profile::parse(text).unwrap();
        let counters = profile.stages[0].counters.clone().unwrap();
        assert_eq!((counters.memory_corrected_warn_from, counters.lost_carriers_max), (7, 2));
        assert_eq!(counters.nic_errors_warn_from, 1);
        assert_eq!(Profile::parse(&profile.to_toml()).unwrap(), profile);
    }

    /// Every shipped profile is read as it stands, writes to nothing, and fits the time that it says: its deadlines together
    /// are the longest that it can take. What goes over the whole of a disk takes as long as the disk is large: it is not in the
    /// sum, and its deadline fits a hard disk of 24 TB, which gives some 200 MB/s in the mean.
    #[test]
    fn the_shipped_profiles_are_read_and_fit_their_time() {
        const HOUR_MS: u64 = 3_600_000;
        const LARGE_DISK_MS: u64 = 24_000_000 / 200 * 1_000;
        for (text, name, most_ms) in [
            (include_str!("../../../../profiles/smoke.toml"), "smoke", HOUR_MS / 2),
            (include_str!("../../../../profiles/acceptance.toml"), "acceptance", 4 * HOUR_MS + HOUR_MS / 6),
            (include_str!("../../../../profiles/burn-in.toml"), "burn-in", 24 * HOUR_MS),
        ] {
            let profile = Profile::parse(text).unwrap();
            assert_eq!(profile.name.as_str(), name);
            assert!(profile.write.disks.is_empty(), "{name}");
            let stages = profile.stages.iter();
            assert!(stages.clone().all(|spec| spec.storage.as_ref().is_none_or(|of| of.written.is_none())));
            let is_as_long_as_disks_are_large = |spec: &&StageSpec| {
                spec.storage.as_ref().is_some_and(|storage| storage.full_surface)
                    || spec.smart.as_ref().is_some_and(|smart| smart.self_test == SelfTest::Long)
            };
            let (by_disk, by_time): (Vec<&StageSpec>, Vec<&StageSpec>) =
                stages.filter(|spec| !spec.name.is_orchestrators()).partition(is_as_long_as_disks_are_large);
            assert!(by_disk.iter().all(|spec| spec.deadline >= LARGE_DISK_MS), "{name}");
            let longest_ms: u64 = by_time.iter().map(|spec| spec.deadline).sum();
            assert!(longest_ms <= most_ms, "{name} may take {}", format_span_ms(longest_ms));
            for stage in
                [Stage::Smart, Stage::CpuStress, Stage::Memory, Stage::Storage, Stage::Gpu, Stage::Psu]
            {
                assert!(profile.stages.iter().any(|spec| spec.name == stage), "{name} lacks {stage}");
            }
        }
    }
}
