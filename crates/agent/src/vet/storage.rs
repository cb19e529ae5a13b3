//! The stage Storage: every disk is read, one after the other block and here and there, and nothing on it is changed.
//!
//! `fio --readonly` does it, for all disks at a time; [`parse`] reads what it prints. Errors of the disk fail; how fast it must
//! be is the profile's to say. Where the profile names a folder, a file of the stage's own is written there, read back and
//! removed. A destructive stage does none of this: it writes over the disks that the profile lists ([`overwrite`]).

mod chosen;
mod fio;
mod held;
mod overwrite;
mod parse;
mod write;

use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::inventory::Disk;
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::StorageSettings;

use self::fio::{Fio, Pattern};
use self::parse::Load;
use super::local_disks::{device, each, found, is_anothers};
use super::{Done, StageContext, pcie, refused, stopped};

/// Disks that are read at a time: more than a node with full shelves has. Each has a child under way, of which the agent keeps a
/// record, and which takes some 20 MiB.
const DISKS_AT_A_TIME: usize = 128;

const NOT_DESTRUCTIVE: &str = "this attempt is allowed to wipe disks, and the stage writes over none (storage.destructive): \
    nothing was read or written; retry without that override";

/// Reads every disk and judges what came of it.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let settings = context.spec.storage.clone().unwrap_or_default();
    if settings.destructive {
        return overwrite::run(context, &settings, deadline);
    }
    if context.override_flags.wipe {
        return refused(context, NOT_DESTRUCTIVE.to_owned());
    }
    let disks = match found(context) {
        Ok(disks) => disks,
        Err(why) => return refused(context, why),
    };
    let (disks, remote): (Vec<Disk>, Vec<Disk>) =
        disks.into_iter().partition(|disk| !is_anothers(context, disk));
    let left = deadline.saturating_duration_since(Instant::now());
    if let Some(why) = too_short(&settings, disks.len(), left) {
        return refused(context, why);
    }
    let mut done = Done::default();
    // One file for all disks: a machine may have more of them than an attempt may have artifacts.
    let (mut sequential, mut random) = (Vec::new(), Vec::new());
    let links: Vec<String> = disks.iter().filter_map(pcie_of).map(str::to_owned).collect();
    let load = || read_all(context, &settings, &disks, deadline);
    let (reads, speeds) = pcie::fastest(&context.root, &links, load);
    done.checks.extend(speed_checks(context, &disks, &speeds));
    for read in reads {
        done.checks.extend(read.checks);
        sequential.extend(read.sequential);
        random.extend(read.random);
    }
    if !disks.is_empty() {
        done.artifacts.push(("fio-sequential.txt".to_owned(), sequential));
        done.artifacts.push(("fio-random.txt".to_owned(), random));
    }
    done.checks.extend(missing(context, &disks));
    if let Some(file) = &settings.written {
        let written = write::run(context, &file.write_folder, file.write_mib, deadline);
        done.checks.push(written.check);
        done.artifacts.extend(written.raw);
    }
    done.stopped = stopped(context, deadline);
    done.checks.extend(without_disks(context, &done.checks, &remote));
    done
}

/// The address of a disk that has a PCIe link of its own.
fn pcie_of(disk: &Disk) -> Option<&str> {
    disk.pci.as_deref().filter(|_| disk.name.starts_with("nvme"))
}

/// How fast the links of disks got under the load.
fn speed_checks(context: &StageContext, disks: &[Disk], speeds: &pcie::Speeds) -> Vec<Check> {
    let check = |disk: &Disk| {
        let (observed, evidence) = speeds.get(pcie_of(disk)?)?.clone();
        let component = disk.serial.as_deref().unwrap_or(&disk.name);
        let limit = context.limit(names::PCIE_SPEED);
        Some(Check::of(names::PCIE_SPEED, Some(component), observed, limit).with_evidence(evidence))
    };
    let checks: Vec<Check> = disks.iter().filter_map(check).collect();
    if checks.is_empty() && !disks.is_empty() {
        let why = "no disk here has a link on PCIe of its own".to_owned();
        return vec![context.check(names::PCIE_SPEED, Observation::Absent { why })];
    }
    checks
}

/// Why the time does not suffice for disks that are read in several turns, which the profile could not know.
fn too_short(settings: &StorageSettings, disks: usize, left: Duration) -> Option<String> {
    let turns = disks.div_ceil(DISKS_AT_A_TIME);
    let sequential = if settings.full_surface { 0 } else { settings.sequential };
    let of_disk = Duration::from_millis(sequential.saturating_add(settings.random));
    let needed = of_disk.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX));
    (turns > 1 && needed > left).then(|| {
        format!(
            "{disks} disks are read {DISKS_AT_A_TIME} at a time, each for {} s, which takes at least {} s, and the stage has {} s: \
             raise its deadline",
            of_disk.as_secs(),
            needed.as_secs(),
            left.as_secs()
        )
    })
}

/// What came of a disk.
struct Read {
    checks: Vec<Check>,
    /// What fio said of each load, after the command.
    sequential: Vec<u8>,
    random: Vec<u8>,
}

fn read_all(
    context: &StageContext,
    settings: &StorageSettings,
    disks: &[Disk],
    deadline: Instant,
) -> Vec<Read> {
    context.show(0.01, format!("{} disks are read", disks.len()));
    each(context, disks, DISKS_AT_A_TIME, "read", |disk| read(context, settings, disk, deadline))
}

/// One disk: from its beginning on, then here and there.
fn read(context: &StageContext, settings: &StorageSettings, disk: &Disk, deadline: Instant) -> Read {
    let component = disk.serial.clone().unwrap_or_else(|| disk.name.clone());
    let device = device(context, disk);
    let run = |pattern: Pattern| Fio { context, pattern, file: &device, about: &disk.name, deadline }.run();
    let sequential = run(match settings.full_surface {
        true => Pattern::WholeSurface,
        false => Pattern::Sequential { ms: settings.sequential },
    });
    let random = run(Pattern::Random { ms: settings.random });
    let checks = observed(settings, disk, &sequential.load, &random.load)
        .into_iter()
        .map(|(name, observed)| {
            let evidence = format!("{}\n{}", sequential.command, random.command);
            Check::of(name, Some(&component), observed, context.limit(name)).with_evidence(evidence)
        })
        .collect();
    let printed = |ran: fio::Ran| {
        let nothing = || b"(nothing)".to_vec();
        [format!("# {}\n", ran.command).into_bytes(), ran.raw.unwrap_or_else(nothing), b"\n".to_vec()]
            .concat()
    };
    Read { checks, sequential: printed(sequential), random: printed(random) }
}

type Loaded = Result<Load, String>;

/// What two loads say of a disk.
fn observed(
    settings: &StorageSettings,
    disk: &Disk,
    sequential: &Loaded,
    random: &Loaded,
) -> Vec<(&'static str, Observation)> {
    let of = |load: &Loaded, observe: &dyn Fn(&Load) -> Result<Observation, String>| {
        let observed = load.as_ref().map_err(Clone::clone).and_then(observe);
        observed.unwrap_or_else(|why| Observation::Unreadable { why })
    };
    // An error that was seen stands, whatever became of the other load.
    let errors = match (sequential, random) {
        (Ok(one), Ok(other)) => Observation::measured((one.errors + other.errors) as f64, "errors"),
        (Ok(load), Err(_)) | (Err(_), Ok(load)) if load.errors > 0 => {
            Observation::measured(load.errors as f64, "errors")
        }
        (Err(why), _) | (_, Err(why)) => Observation::Unreadable { why: why.clone() },
    };
    let reached = match settings.full_surface {
        true => (
            names::SURFACE,
            of(sequential, &|load| match disk.size_bytes {
                0 => Err("the disk does not say how large it is".to_owned()),
                size => Ok(Observation::measured(load.bytes / size as f64 * 100.0, "% of the disk")),
            }),
        ),
        false => (
            names::DURATION,
            of(sequential, &|one| {
                let seconds = one.seconds.min(random.as_ref().map_err(Clone::clone)?.seconds);
                Ok(Observation::measured(seconds, "s"))
            }),
        ),
    };
    vec![
        (names::IO_ERRORS, errors),
        reached,
        (
            names::SEQUENTIAL_READ,
            of(sequential, &|load| Ok(Observation::measured(load.bytes_per_second / 1e6, "MB/s"))),
        ),
        (
            names::SEQUENTIAL_LATENCY,
            of(sequential, &|load| Ok(Observation::measured(load.p99_ms.clone()?, "ms (p99)"))),
        ),
        (names::RANDOM_READ, of(random, &|load| Ok(Observation::measured(load.iops, "reads/s")))),
        (
            names::RANDOM_LATENCY,
            of(random, &|load| Ok(Observation::measured(load.p99_ms.clone()?, "ms (p99)"))),
        ),
    ]
}

/// Disks of the profile that are not there. One that hides its serial may be any of them.
fn missing(context: &StageContext, disks: &[Disk]) -> Vec<Check> {
    let serials = || disks.iter().filter_map(|disk| disk.serial.as_deref());
    let silent = disks.iter().find(|disk| disk.serial.is_none());
    let expected = context.expected_disks.iter().filter_map(|disk| disk.serial.as_deref());
    expected
        .filter(|wanted| !serials().any(|serial| serial.eq_ignore_ascii_case(wanted.trim())))
        .map(|wanted| {
            let observed = match silent {
                None => Observation::Missing { what: format!("the disk {wanted}") },
                Some(disk) => Observation::Unreadable {
                    why: format!(
                        "no disk says that it is {wanted}, but {} is there and does not say its serial",
                        disk.name
                    ),
                },
            };
            Check::of(names::IO_ERRORS, Some(wanted), observed, context.limit(names::IO_ERRORS))
        })
        .collect()
}

/// What is owed of disks where there are none.
fn without_disks(context: &StageContext, checks: &[Check], remote: &[Disk]) -> Vec<Check> {
    let why = match remote {
        [] => "this machine has no disk".to_owned(),
        remote => {
            let names: Vec<&str> = remote.iter().map(|disk| disk.name.as_str()).collect();
            format!(
                "its disks are another machine's ({}), and the profile does not list them",
                names.join(", ")
            )
        }
    };
    let owed = context.plan().into_iter();
    owed.filter(|planned| !checks.iter().any(|check| check.name == planned.name))
        .map(|planned| context.check(&planned.name, Observation::Absent { why: why.clone() }))
        .collect()
}

#[cfg(test)]
mod tests;
