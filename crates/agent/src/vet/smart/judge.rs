//! From a disk's report to checks.

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::names;
use serde_json::Value;

use super::report::{Gap, Kind, Number, Report, exit};

/// What the check `health` finds of a good disk.
const PASSED: &str = groundcrew_protocol::plan::HEALTH_PASSED;
/// NVMe counts what was read and written in thousands of blocks of 512 bytes (NVM Express base specification, "SMART /
/// Health Information").
const NVME_UNIT_BYTES: f64 = 512_000.0;
const TB: f64 = 1e12;
/// The name that disks give to the count in their statistics (ATA command set, "General Statistics").
const SECTORS_WRITTEN: &str = "Logical Sectors Written";
/// The low 16 bits of attribute 188: some makers keep three counts in one number, of which this is the plain one.
const TIMEOUTS_MASK: u64 = 0xffff;

/// One observation of a disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub name: &'static str,
    pub observed: Observation,
    pub evidence: String,
}

/// Nothing could be read of a disk.
pub(super) fn unreadable(why: &str, command: &str) -> Vec<Finding> {
    let observed = Observation::Unreadable { why: why.to_owned() };
    vec![Finding { name: names::HEALTH, observed, evidence: command.to_owned() }]
}

/// Everything that a disk says of itself.
pub(super) fn findings(report: &Report, command: &str) -> Vec<Finding> {
    let mut all = vec![(names::HEALTH, health(report))];
    all.extend(match report.kind {
        Kind::Ata => ata(report),
        Kind::Nvme => nvme(report),
        Kind::Scsi => scsi(report),
    });
    all.push((names::POWER_ON_HOURS, observed(report.number("/power_on_time/hours"), "h")));
    all.push((names::WRITTEN, observed(written(report), "TB")));
    let evidence = format!("{command}: exit status {}", report.exit);
    let finding = |(name, observed)| Finding { name, observed, evidence: evidence.clone() };
    all.into_iter().map(finding).collect()
}

/// Failed by any sign, passed by the disk's own word alone.
fn health(report: &Report) -> Observation {
    let found = |text: &str| Observation::Found { text: text.to_owned() };
    match report.at("/smart_status/passed").and_then(Value::as_bool) {
        Some(false) => found("failed"),
        Some(true) | None if report.exit & exit::FAILING != 0 => found("failed"),
        Some(true) => found(PASSED),
        None => Observation::Unreadable { why: "the disk does not say whether it is healthy".to_owned() },
    }
}

fn ata(report: &Report) -> Vec<(&'static str, Observation)> {
    let failing = |when: &str, bit: i32| {
        // The exit status counts where the table does not agree with it: whichever is worse.
        let least = if report.exit & bit == 0 { 0 } else { 1 };
        report.at_threshold(when).map(|names| names.len().max(least) as f64)
    };
    let failed_tests = if report.exit & exit::SELF_TEST == 0 { 0.0 } else { 1.0 };
    let timeouts = report.attribute(188).map(|raw| ((raw as u64) & TIMEOUTS_MASK) as f64);
    vec![
        (names::PREFAIL, observed(failing("now", exit::PREFAIL), "attributes")),
        (names::PAST_THRESHOLD, observed(failing("past", exit::PAST), "attributes")),
        (names::FAILED_SELF_TESTS, Observation::measured(failed_tests, "(1: the log holds one)")),
        (names::REALLOCATED, observed(report.attribute(5), "sectors")),
        (names::REPORTED_UNCORRECTABLE, observed(report.attribute(187), "errors")),
        (names::COMMAND_TIMEOUTS, observed(timeouts, "commands")),
        (names::PENDING, observed(report.attribute(197), "sectors")),
        (names::OFFLINE_UNCORRECTABLE, observed(report.attribute(198), "sectors")),
    ]
}

fn nvme(report: &Report) -> Vec<(&'static str, Observation)> {
    let log = |key: &str| report.number(&format!("/nvme_smart_health_information_log/{key}"));
    let spare = log("available_spare")
        .and_then(|spare| log("available_spare_threshold").map(|threshold| spare - threshold));
    vec![
        (names::CRITICAL_WARNING, observed(log("critical_warning"), "(bits)")),
        (names::SPARE, observed(spare, "% over its threshold")),
        (names::PERCENTAGE_USED, observed(log("percentage_used"), "%")),
        (names::MEDIA_ERRORS, observed(log("media_errors"), "errors")),
    ]
}

fn scsi(report: &Report) -> Vec<(&'static str, Observation)> {
    let uncorrected = ["read", "write", "verify"]
        .map(|what| format!("/scsi_error_counter_log/{what}/total_uncorrected_errors"))
        .iter()
        // A disk that never verified anything may leave that row out; reads and writes it must have.
        .filter(|pointer| !pointer.contains("verify") || report.at(pointer).is_some())
        .map(|pointer| report.number(pointer))
        .sum::<Number>();
    vec![
        (names::GROWN_DEFECTS, observed(report.number("/scsi_grown_defect_list"), "defects")),
        (names::UNCORRECTED_ERRORS, observed(uncorrected, "errors")),
    ]
}

/// TB written in the disk's life.
fn written(report: &Report) -> Number {
    match report.kind {
        Kind::Nvme => {
            let units = report.number("/nvme_smart_health_information_log/data_units_written")?;
            Ok(units * NVME_UNIT_BYTES / TB)
        }
        Kind::Ata => {
            let pages = report.at("/ata_device_statistics/pages").and_then(Value::as_array);
            let rows =
                pages.into_iter().flatten().filter_map(|page| page.pointer("/table")?.as_array()).flatten();
            let row = rows
                .filter(|row| row.pointer("/flags/valid").and_then(Value::as_bool) != Some(false))
                .find(|row| row.pointer("/name").and_then(Value::as_str) == Some(SECTORS_WRITTEN));
            let Some(sectors) = row.and_then(|row| row.pointer("/value")?.as_f64()) else {
                return Err(Gap::NotKept("the disk keeps no statistics of what was written".to_owned()));
            };
            Ok(sectors * report.number("/logical_block_size")? / TB)
        }
        Kind::Scsi => match report.at("/scsi_error_counter_log/write/gigabytes_processed") {
            None => Err(Gap::NotKept("the disk does not count what was written".to_owned())),
            Some(_) => Ok(report.number("/scsi_error_counter_log/write/gigabytes_processed")? / 1000.0),
        },
    }
}

/// What changed while the stage had the disk: errors on the cable, of which only new ones tell of this machine. A disk that
/// counts none is not asked again.
pub(super) fn difference(
    before: &Report,
    ask_again: impl FnOnce() -> Result<Report, String>,
) -> Vec<Finding> {
    const CRC: u64 = 199;
    if before.kind != Kind::Ata {
        return Vec::new();
    }
    let errors = before.attribute(CRC).and_then(|first| {
        let after = ask_again().map_err(Gap::Unreadable)?;
        Ok(after.attribute(CRC)? - first)
    });
    let evidence = "attribute 199 before and after the self-test".to_owned();
    vec![Finding { name: names::CRC_ERRORS, observed: observed(errors, "new errors"), evidence }]
}

fn observed(number: Number, unit: &str) -> Observation {
    match number {
        Ok(value) => Observation::measured(value, unit),
        Err(Gap::NotKept(why)) => Observation::Absent { why },
        Err(Gap::Unreadable(why)) => Observation::Unreadable { why },
    }
}
