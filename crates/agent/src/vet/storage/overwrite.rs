//! The destructive stage Storage: the disks of the profile's `[write]` are written over and read back by checksums, and nothing
//! else is done.
//!
//! ```text
//!   override armed ──▶ each disk chosen ──▶ held, and empty ──▶ chosen again ──▶ intent acknowledged ──▶ written, all at a time
//!         │                  │                    │                  │                   │
//!         └──────────────────┴────────────────────┴──────────────────┴───────────────────┴──▶ nothing is written, on no disk
//! ```

use std::time::Instant;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::{ExpectedDisk, StorageSettings, WriteAllowance};
use groundcrew_protocol::wire::LogLevel;

use super::chosen::choose;
use super::fio::{Fio, Pattern};
use super::held::Held;
use super::parse::Load;
use super::{each, found};
use crate::control::core::Asked;
use crate::vet::{Done, StageContext, refused, stopped};

const NOT_ARMED: &str = "nothing was written: this attempt has no leave to write over disks. It lies with an operator, for one \
    attempt and an hour: groundcrewctl run retry RUN --wipe";

/// Writes over the disks, where everything speaks for it.
pub(super) fn run(context: &StageContext, settings: &StorageSettings, deadline: Instant) -> Done {
    let Some(allowance) = settings.allowance.as_ref().filter(|allowance| !allowance.disks.is_empty()) else {
        return refused(
            context,
            "nothing was written: the run names no disk that may be written over".to_owned(),
        );
    };
    if !context.override_flags.wipe || context.non_destructive {
        return refused(context, NOT_ARMED.to_owned());
    }
    let all = hold_all(context, allowance, deadline).and_then(|held| leave(context, held, deadline));
    match all {
        Ok(held) => {
            let mut done = write_all(context, settings, &held, deadline);
            done.stopped = stopped(context, deadline);
            done
        }
        Err(refusals) => nothing_written(context, allowance, &refusals),
    }
}

/// Why a disk is not written over, by its serial.
type Refusals = Vec<(String, String)>;

fn serial_of(wanted: &ExpectedDisk) -> String {
    wanted.serial.clone().unwrap_or_default()
}

/// All disks, held, or why any is not. Each is chosen again once all are held: none was exchanged meanwhile.
fn hold_all(
    context: &StageContext,
    allowance: &WriteAllowance,
    deadline: Instant,
) -> Result<Vec<Held>, Refusals> {
    let of_all = |why: String| -> Refusals {
        allowance.disks.iter().map(|wanted| (serial_of(wanted), why.clone())).collect()
    };
    let disks = found(context).map_err(of_all)?;
    let (mut held, mut refusals) = (Vec::new(), Refusals::new());
    for wanted in &allowance.disks {
        let one =
            choose(allowance, wanted, &disks).and_then(|disk| Held::open(context, disk)).and_then(|one| {
                one.expect_empty(context, allowance.existing_data, deadline)?;
                Ok(one)
            });
        match one {
            Ok(one) => held.push(one),
            Err(why) => refusals.push((serial_of(wanted), why)),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let again = found(context).map_err(of_all)?;
    for (wanted, one) in allowance.disks.iter().zip(&held) {
        match choose(allowance, wanted, &again) {
            Ok(disk) if *disk == one.disk => {}
            Ok(_) | Err(_) => {
                refusals.push((serial_of(wanted), "the disk was exchanged meanwhile".to_owned()))
            }
        }
    }
    if refusals.is_empty() { Ok(held) } else { Err(refusals) }
}

/// Says what is about to be written over, and waits until that is known.
fn leave(context: &StageContext, held: Vec<Held>, deadline: Instant) -> Result<Vec<Held>, Refusals> {
    let serials: Vec<String> = held.iter().map(|one| one.disk.serial.clone().unwrap_or_default()).collect();
    let leave = match &context.wipes {
        Ok(leave) => leave(Asked::Wipe(serials.clone()), deadline),
        Err(why) => Err((*why).to_owned()),
    };
    match leave {
        Ok(()) => Ok(held),
        Err(why) => Err(serials.into_iter().map(|serial| (serial, why.clone())).collect()),
    }
}

fn nothing_written(context: &StageContext, allowance: &WriteAllowance, refusals: &Refusals) -> Done {
    let mut done = Done::default();
    for (serial, why) in refusals {
        context.say(LogLevel::Error, format!("disk {serial} is not written over: {why}"));
    }
    for wanted in &allowance.disks {
        let serial = serial_of(wanted);
        let own = refusals.iter().find(|(of, _)| of.trim().eq_ignore_ascii_case(serial.trim()));
        let why = own.map_or_else(
            || "nothing was written, because another disk of the list is refused".to_owned(),
            |(_, why)| format!("nothing was written: {why}"),
        );
        let of = |name| {
            let observed = Observation::Unreadable { why: why.clone() };
            Check::of(name, Some(&serial), observed, context.limit(name))
        };
        done.checks.extend(NAMES.map(of));
    }
    done
}

const NAMES: [&str; 4] = [names::WRITE_ERRORS, names::OVERWRITTEN, names::WRITE_RATE, names::WRITE_LATENCY];

fn write_all(context: &StageContext, settings: &StorageSettings, held: &[Held], deadline: Instant) -> Done {
    context.show(0.01, format!("{} disks are written over", held.len()));
    let all = each(context, held, held.len(), "written over", |one| write(context, settings, one, deadline));
    let mut done = Done::default();
    let mut printed = Vec::new();
    for (checks, raw) in all {
        done.checks.extend(checks);
        printed.extend(raw);
    }
    done.artifacts.push(("fio-overwrite.txt".to_owned(), printed));
    done
}

fn write(
    context: &StageContext,
    settings: &StorageSettings,
    held: &Held,
    deadline: Instant,
) -> (Vec<Check>, Vec<u8>) {
    let disk = &held.disk;
    let component = disk.serial.as_deref().unwrap_or(&disk.name);
    let bytes =
        settings.overwrite_mib.map_or(disk.size_bytes, |mib| (u64::from(mib) << 20).min(disk.size_bytes));
    context.say(LogLevel::Warn, format!("{} ({component}): {bytes} bytes are written over", disk.name));
    let pattern = Pattern::Overwrite { bytes };
    let ran = Fio { context, pattern, file: &held.path(), about: &disk.name, deadline }.run();
    let checks = observed(&ran.load, bytes)
        .into_iter()
        .map(|(name, observed)| {
            Check::of(name, Some(component), observed, context.limit(name)).with_evidence(ran.command.clone())
        })
        .collect();
    let raw = ran.raw.unwrap_or_else(|| b"(nothing)".to_vec());
    (checks, [format!("# {component}: {}\n", ran.command).into_bytes(), raw, b"\n".to_vec()].concat())
}

/// What a load says that was to write over so many bytes and to read them back.
pub(super) fn observed(load: &Result<Load, String>, bytes: u64) -> [(&'static str, Observation); 4] {
    let load = match load {
        Ok(load) => load,
        Err(why) => return NAMES.map(|name| (name, Observation::Unreadable { why: why.clone() })),
    };
    let percent = load.bytes.min(load.bytes_read) / bytes as f64 * 100.0;
    let latency = load.p99_ms.clone().map(|ms| Observation::measured(ms, "ms (p99)"));
    [
        (names::WRITE_ERRORS, Observation::measured(load.errors as f64, "errors")),
        (names::OVERWRITTEN, Observation::measured(percent, "% of what was to be")),
        (names::WRITE_RATE, Observation::measured(load.bytes_per_second / 1e6, "MB/s")),
        (names::WRITE_LATENCY, latency.unwrap_or_else(|why| Observation::Unreadable { why })),
    ]
}
