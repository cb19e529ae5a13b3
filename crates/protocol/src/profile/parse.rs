//! From TOML to a [`Profile`]: which keys there are, what they may hold, and what a run makes of the list of stages.

use std::collections::BTreeSet;

use super::part::{Field, Part, bad_syntax, one_of};
use super::{
    AtEnd, BadProfile, Count, Expected, ExpectedCpu, ExpectedDisk, ExpectedGpu, ExpectedMemory, ExpectedNic,
    ExpectedSystem, InterruptSettings, PackageSettings, Profile, RunLimits, StageSpec, WriteAllowance,
};
use super::{interrupt, package, stage};
use crate::ids::MacAddress;
use crate::limits;
use crate::stage::Stage;

/// Longest span of any kind: a machine that is longer in vetting is forgotten.
pub(super) const SPAN_MS_MAX: u64 = 30 * 86_400_000;
/// Greatest count of anything in a machine.
pub(crate) const COUNT_MAX: u32 = 65_536;
/// Greatest number of disks or interfaces that a profile lists.
pub(crate) const LIST_MAX: usize = 1_024;
/// Greatest number of checks that one stage requires.
const REQUIRE_MAX: usize = 64;
/// Longest description of a profile, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 4_096;
/// Most crashes in one stage that a profile may allow.
const CRASHES_MAX: u32 = 1_000;
/// Longest name of a package or an interrupt, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// What a package can be asked for; each also with `-check`.
const PACKAGE_MODES: [&str; 6] = ["apply", "config", "upgrade", "uninstall", "interrupt", "post-interrupt"];
/// Greatest number of something that is measured.
pub(super) const NUMBER_MAX: f64 = 1e15;
/// Smallest size of memory in GiB, or of a disk in GB.
pub(crate) const SIZE_MIN: f64 = 0.001;
/// Greatest such size.
pub(crate) const SIZE_MAX: f64 = 1e9;
/// Greatest speed of a memory module.
pub(crate) const SPEED_MTS_MAX: u32 = 1_000_000;
/// Greatest speed of a link.
pub(crate) const SPEED_MBPS_MAX: u32 = 100_000_000;
/// Smallest MTU: that of IPv4.
pub(crate) const MTU_MIN: u32 = 68;

const PROFILE_KEYS: [&str; 10] = [
    "name",
    "description",
    "at_end",
    "in_service",
    "limits",
    "stage",
    "package",
    "interrupt",
    "expected",
    "write",
];
const LIMITS_KEYS: [&str; 5] = ["silence", "claim_within", "hold", "reboot", "crashes"];
const EXPECTED_KEYS: [&str; 9] =
    ["cpu", "memory", "disk_count", "disk", "nic_count", "nic", "gpu_count", "gpu", "system"];
const CPU_KEYS: [&str; 5] = ["model", "sockets", "cores", "logical", "microcode"];
const MEMORY_KEYS: [&str; 5] = ["total_gib", "tolerance_percent", "dimms", "speed_mts", "part"];
const GPU_KEYS: [&str; 2] = ["device", "count"];
const DISK_KEYS: [&str; 6] = ["serial", "model", "size_gb", "tolerance_percent", "wwn", "firmware"];
const NIC_KEYS: [&str; 4] = ["mac", "driver", "speed_mbps", "mtu"];
const SYSTEM_KEYS: [&str; 3] = ["vendor", "product", "firmware_version"];
const WRITE_KEYS: [&str; 3] = ["disks", "existing_data", "shared"];
const COUNT_KEYS: [&str; 2] = ["at_least", "at_most"];

impl Profile {
    /// Reads a profile from TOML.
    ///
    /// `SpecValidate` is put after `Inventory` where hardware is expected and the profile does not write it,
    /// and `Reporting` at the end.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and key.
    pub fn parse(text: &str) -> Result<Profile, BadProfile> {
        if text.len() > limits::PROFILE_BYTES_MAX {
            return Err(BadProfile {
                line: 1,
                key: String::new(),
                found: format!("{} bytes", text.len()),
                expected: format!("a profile of at most {} bytes", limits::PROFILE_BYTES_MAX),
            });
        }
        let document = toml::de::DeTable::parse(text).map_err(|error| bad_syntax(text, &error))?;
        let root = Part::root(text, &document, &PROFILE_KEYS)?;
        let name = root.needed("name", "a profile name")?.id()?;
        let expected = root.optional("expected", expected)?.unwrap_or_default();
        let packages = root.optional("package", package::packages)?.unwrap_or_default();
        let interrupts = root.optional("interrupt", interrupt::interrupts)?.unwrap_or_default();
        let stages = stages(&root, &expected, &packages, &interrupts)?;
        let profile = Profile {
            name,
            description: root.optional("description", description)?.unwrap_or_default(),
            at_end: root.optional("at_end", at_end)?.unwrap_or(AtEnd::Stay),
            in_service: root.optional("in_service", |field| field.flag())?.unwrap_or_default(),
            limits: root.optional("limits", run_limits)?.unwrap_or_default(),
            stages,
            packages,
            interrupts,
            expected,
            write: root.optional("write", write_allowance)?.unwrap_or_default(),
        };
        match profile.destructive_without_disks() {
            Some(stage) => Err(root.refuse_at(
                "write.disks",
                "nothing",
                &format!("the disks that stage {stage} may write over, as its storage.destructive is true"),
            )),
            None => Ok(profile),
        }
    }
}

fn description(field: Field<'_>) -> Result<String, BadProfile> {
    field.text_of("a text of at most 4096 bytes", |text| text.len() <= DESCRIPTION_BYTES_MAX)
}

fn at_end(field: Field<'_>) -> Result<AtEnd, BadProfile> {
    let expected = "\"stay\" or \"shutdown\"";
    match AtEnd::from(field.raw_text(expected)?.to_owned()) {
        AtEnd::Unknown(_) => Err(field.refuse(expected)),
        known @ (AtEnd::Stay | AtEnd::Shutdown) => Ok(known),
    }
}

fn run_limits(field: Field<'_>) -> Result<RunLimits, BadProfile> {
    let part = field.table(&LIMITS_KEYS)?;
    let default = RunLimits::default();
    let span = |key: &str, default: u64| {
        Ok::<u64, BadProfile>(part.optional(key, |field| field.span_ms(1..=SPAN_MS_MAX))?.unwrap_or(default))
    };
    Ok(RunLimits {
        silence: span("silence", default.silence)?,
        claim_within: span("claim_within", default.claim_within)?,
        hold: span("hold", default.hold)?,
        reboot: span("reboot", default.reboot)?,
        crashes: part.optional("crashes", |field| field.whole(1..=CRASHES_MAX))?.unwrap_or(default.crashes),
    })
}

/// The stages as a run walks them: those that are written, `SpecValidate` and `Reporting`.
fn stages(
    root: &Part<'_>,
    expected: &Expected,
    packages: &[PackageSettings],
    interrupts: &[InterruptSettings],
) -> Result<Vec<StageSpec>, BadProfile> {
    let words = "at least one [[stage]]";
    let fields = root.needed("stage", words)?.items(words, limits::STAGES_MAX)?;
    let parts: Vec<Part<'_>> =
        fields.iter().map(|field| field.table(&stage::KEYS)).collect::<Result<_, _>>()?;
    let mut stages = Vec::with_capacity(parts.len() + 2);
    for part in &parts {
        stages.push(stage::stage(part)?);
    }
    refuse_repeated(&parts, &stages)?;
    if let Some((index, lacks)) = package::unlisted(&stages, packages, interrupts) {
        return Err(parts[index].refuse_at("name", &format!("\"{}\"", stages[index].name), &lacks));
    }
    refuse_wrong_order(root, &parts, &stages, expected)?;
    put_in_what_is_not_written(&mut stages, expected);
    if stages.len() > limits::STAGES_MAX {
        let found = format!("{} of them with SpecValidate and Reporting", stages.len());
        return Err(root.refuse_at("stage", &found, &format!("at most {}", limits::STAGES_MAX)));
    }
    Ok(stages)
}

pub(super) fn stage_name(field: &Field<'_>, words: &[&str]) -> Result<Stage, BadProfile> {
    let forms = "Package:NAME/MODE or Interrupt:NAME";
    let text = field.raw_text(&format!("one of {}, {forms}", words.join(", ")))?;
    match Stage::from(text) {
        Stage::Package { name, .. } | Stage::Interrupt { name } if !is_plain_name(&name) => {
            Err(field
                .refuse("a NAME of 1 to 128 of a-z, A-Z, 0-9, '_', '-' and '.', with no '.' at its start"))
        }
        Stage::Package { mode, .. }
            if !PACKAGE_MODES.contains(&mode.strip_suffix("-check").unwrap_or(&mode)) =>
        {
            let modes = one_of(&mode, &PACKAGE_MODES);
            Err(field.refuse(&format!("a MODE that is {modes}, each also with -check")))
        }
        Stage::Unknown(word) => Err(field.refuse(&format!("{}, {forms}", one_of(&word, words)))),
        known => Ok(known),
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

pub(super) fn required(field: Field<'_>, known: &[&str]) -> Result<Vec<String>, BadProfile> {
    let is_check = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.".contains(&byte))
    };
    let mut names = Vec::new();
    for item in field.items("an array of names of checks", REQUIRE_MAX)? {
        let name = item.text_of("a name of a check: 1 to 64 of a-z, '_' and '.'", is_check)?;
        if names.contains(&name) {
            return Err(item.refuse("each name once"));
        }
        if !known.is_empty() && !known.contains(&name.as_str()) {
            return Err(item.refuse(&one_of(&name, known)));
        }
        names.push(name);
    }
    Ok(names)
}

pub(super) fn percent(field: Field<'_>) -> Result<f64, BadProfile> {
    field.number(0.0..=100.0)
}

/// Each stage once, a package's mode and an interrupt too: states, attempts, results and the agent's memory know a stage by
/// its name, and could not tell a second one from the first.
fn refuse_repeated(parts: &[Part<'_>], stages: &[StageSpec]) -> Result<(), BadProfile> {
    let mut seen = BTreeSet::new();
    for (part, spec) in parts.iter().zip(stages) {
        if !seen.insert(&spec.name) {
            let found = format!("\"{}\" a second time", spec.name);
            return Err(part.refuse_at("name", &found, "each stage once"));
        }
    }
    Ok(())
}

fn refuse_wrong_order(
    root: &Part<'_>,
    parts: &[Part<'_>],
    stages: &[StageSpec],
    expected: &Expected,
) -> Result<(), BadProfile> {
    let found = |spec: &StageSpec| format!("\"{}\"", spec.name);
    let Some(first) = stages.iter().position(|spec| !spec.name.is_orchestrators()) else {
        return Err(root.refuse_at("stage", "no stage of an agent's", "a stage that checks something"));
    };
    if let Some(early) = stages.iter().rev().skip(1).position(|spec| spec.name == Stage::Reporting) {
        let index = stages.len() - 2 - early;
        return Err(parts[index].refuse_at("name", &found(&stages[index]), "Reporting as the last stage"));
    }
    let validates = stages.iter().position(|spec| spec.name == Stage::SpecValidate);
    if stages[first].name != Stage::Inventory && (validates.is_some() || *expected != Expected::default()) {
        let why = if validates.is_some() { "SpecValidate compares it" } else { "hardware is expected" };
        return Err(parts[first].refuse_at(
            "name",
            &found(&stages[first]),
            &format!("Inventory first, because {why}"),
        ));
    }
    match validates {
        Some(index) if index < first => {
            Err(parts[index].refuse_at("name", &found(&stages[index]), "SpecValidate after Inventory"))
        }
        Some(_) | None => Ok(()),
    }
}

fn put_in_what_is_not_written(stages: &mut Vec<StageSpec>, expected: &Expected) {
    let is_written = stages.iter().any(|spec| spec.name == Stage::SpecValidate);
    let inventory = stages.iter().position(|spec| spec.name == Stage::Inventory);
    if let (false, true, Some(index)) = (is_written, *expected != Expected::default(), inventory) {
        stages.insert(index + 1, StageSpec::of(Stage::SpecValidate));
    }
    if stages.last().is_none_or(|spec| spec.name != Stage::Reporting) {
        stages.push(StageSpec::of(Stage::Reporting));
    }
}

fn expected(field: Field<'_>) -> Result<Expected, BadProfile> {
    let part = field.table(&EXPECTED_KEYS)?;
    Ok(Expected {
        cpu: part.optional("cpu", expected_cpu)?.unwrap_or_default(),
        memory: part.optional("memory", expected_memory)?.unwrap_or_default(),
        disk_count: part.optional("disk_count", count)?,
        disks: part.optional("disk", expected_disks)?.unwrap_or_default(),
        nic_count: part.optional("nic_count", count)?,
        nics: part.optional("nic", expected_nics)?.unwrap_or_default(),
        gpu_count: part.optional("gpu_count", count)?,
        gpus: part.optional("gpu", expected_gpus)?.unwrap_or_default(),
        system: part.optional("system", expected_system)?.unwrap_or_default(),
    })
}

fn count(field: Field<'_>) -> Result<Count, BadProfile> {
    if !field.is_table() {
        let exactly = field.whole(0..=COUNT_MAX).map_err(|bad| BadProfile {
            expected: format!("{}, or {{ at_least = N, at_most = M }}", bad.expected),
            ..bad
        })?;
        return Ok(Count { at_least: exactly, at_most: exactly });
    }
    let part = field.table(&COUNT_KEYS)?;
    let bound = |key: &str| part.needed(key, "both at_least and at_most")?.whole(0..=COUNT_MAX);
    let count = Count { at_least: bound("at_least")?, at_most: bound("at_most")? };
    if count.at_least > count.at_most {
        let found = count.at_least.to_string();
        return Err(part.refuse_at("at_least", &found, &format!("at most {}, as at_most is", count.at_most)));
    }
    Ok(count)
}

fn expected_cpu(field: Field<'_>) -> Result<ExpectedCpu, BadProfile> {
    let part = field.table(&CPU_KEYS)?;
    Ok(ExpectedCpu {
        model: part.optional("model", |field| field.name())?,
        sockets: part.optional("sockets", count)?,
        cores: part.optional("cores", count)?,
        logical: part.optional("logical", count)?,
        microcode: part.optional("microcode", |field| field.name())?,
    })
}

fn expected_memory(field: Field<'_>) -> Result<ExpectedMemory, BadProfile> {
    let part = field.table(&MEMORY_KEYS)?;
    Ok(ExpectedMemory {
        total_gib: part.optional("total_gib", |field| field.number(SIZE_MIN..=SIZE_MAX))?,
        tolerance_percent: part.optional("tolerance_percent", percent)?,
        dimms: part.optional("dimms", count)?,
        speed_mts: part.optional("speed_mts", |field| field.whole(1..=SPEED_MTS_MAX))?,
        part: part.optional("part", |field| field.name())?,
    })
}

fn expected_disk(part: &Part<'_>) -> Result<ExpectedDisk, BadProfile> {
    Ok(ExpectedDisk {
        serial: part.optional("serial", |field| field.name())?,
        model: part.optional("model", |field| field.name())?,
        size_gb: part.optional("size_gb", |field| field.number(SIZE_MIN..=SIZE_MAX))?,
        tolerance_percent: part.optional("tolerance_percent", percent)?,
        wwn: part.optional("wwn", |field| field.name())?,
        firmware: part.optional("firmware", |field| field.name())?,
    })
}

fn disks_of(
    field: &Field<'_>,
    complete: fn(&Part<'_>, &ExpectedDisk) -> Result<(), BadProfile>,
) -> Result<Vec<ExpectedDisk>, BadProfile> {
    let (mut serials, mut wwns) = (BTreeSet::new(), BTreeSet::new());
    let mut disks = Vec::new();
    for item in field.items("an array of tables, one for each disk", LIST_MAX)? {
        let part = item.table(&DISK_KEYS)?;
        let disk = expected_disk(&part)?;
        complete(&part, &disk)?;
        for (key, value, seen) in [("serial", &disk.serial, &mut serials), ("wwn", &disk.wwn, &mut wwns)] {
            if let Some(value) = value
                && !seen.insert(value.clone())
            {
                return Err(part.refuse_at(key, &format!("\"{value}\" a second time"), "each disk once"));
            }
        }
        disks.push(disk);
    }
    Ok(disks)
}

fn expected_disks(field: Field<'_>) -> Result<Vec<ExpectedDisk>, BadProfile> {
    disks_of(&field, |part, disk| {
        let says_which =
            disk.serial.is_some() || disk.wwn.is_some() || disk.model.is_some() || disk.size_gb.is_some();
        let missing = || part.refuse("nothing that says which disk", "serial, wwn, model or size_gb");
        if says_which { Ok(()) } else { Err(missing()) }
    })
}

fn expected_nics(field: Field<'_>) -> Result<Vec<ExpectedNic>, BadProfile> {
    let mut macs = BTreeSet::new();
    let mut nics = Vec::new();
    for item in field.items("an array of tables, one for each interface", LIST_MAX)? {
        let part = item.table(&NIC_KEYS)?;
        let nic = ExpectedNic {
            mac: part.optional("mac", |field| field.id::<MacAddress>())?.map(String::from),
            driver: part.optional("driver", |field| field.name())?,
            speed_mbps: part.optional("speed_mbps", |field| field.whole(1..=SPEED_MBPS_MAX))?,
            mtu: part.optional("mtu", |field| field.whole(MTU_MIN..=COUNT_MAX))?,
        };
        if nic == ExpectedNic::default() {
            return Err(part.refuse("nothing that says which interface", "mac, driver, speed_mbps or mtu"));
        }
        if let Some(mac) = &nic.mac
            && !macs.insert(mac.clone())
        {
            return Err(part.refuse_at("mac", &format!("\"{mac}\" a second time"), "each interface once"));
        }
        nics.push(nic);
    }
    Ok(nics)
}

fn expected_gpus(field: Field<'_>) -> Result<Vec<ExpectedGpu>, BadProfile> {
    const IDS: &str = "the PCI ids of its vendor and device, as \"10de:2330\"";
    fn is_kind(text: &str) -> bool {
        let is_id = |id: &str| id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        text.split_once(':').is_some_and(|(vendor, device)| is_id(vendor) && is_id(device))
    }
    let mut gpus: Vec<ExpectedGpu> = Vec::new();
    for item in field.items("an array of tables, one for each kind of GPU", LIST_MAX)? {
        let part = item.table(&GPU_KEYS)?;
        let device = part.needed("device", IDS)?.text_of(IDS, is_kind)?.to_ascii_lowercase();
        if gpus.iter().any(|gpu| gpu.device == device) {
            return Err(part.refuse_at("device", &format!("\"{device}\" a second time"), "each kind once"));
        }
        let count = part.optional("count", count)?.unwrap_or_else(super::one);
        gpus.push(ExpectedGpu { device, count });
    }
    Ok(gpus)
}

fn expected_system(field: Field<'_>) -> Result<ExpectedSystem, BadProfile> {
    let part = field.table(&SYSTEM_KEYS)?;
    Ok(ExpectedSystem {
        vendor: part.optional("vendor", |field| field.name())?,
        product: part.optional("product", |field| field.name())?,
        firmware_version: part.optional("firmware_version", |field| field.name())?,
    })
}

fn write_allowance(field: Field<'_>) -> Result<WriteAllowance, BadProfile> {
    let part = field.table(&WRITE_KEYS)?;
    Ok(WriteAllowance {
        disks: part.optional("disks", writable_disks)?.unwrap_or_default(),
        existing_data: part.optional("existing_data", |field| field.flag())?.unwrap_or_default(),
        shared: part.optional("shared", |field| field.flag())?.unwrap_or_default(),
    })
}

/// A disk may be written to only where all three say that it is the one (rule 9 of the design).
fn writable_disks(field: Field<'_>) -> Result<Vec<ExpectedDisk>, BadProfile> {
    disks_of(&field, |part, disk| {
        let written = [
            ("serial", disk.serial.is_some()),
            ("size_gb", disk.size_gb.is_some()),
            ("wwn", disk.wwn.is_some()),
        ];
        match written.iter().find(|(_, is_written)| !is_written) {
            Some((key, _)) => {
                Err(part.lacks(key, "serial, size_gb and wwn of a disk that may be written to"))
            }
            None => Ok(()),
        }
    })
}
