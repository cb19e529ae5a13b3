//! From a disk's report to checks.

use groundcrew_protocol::check::{Limit, Observation, Verdict, judge};
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

/// One observation of a disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub name: &'static str,
    pub observed: Observation,
    pub evidence: String,
}

/// Nothing could be read of a disk.
pub(super) fn unreadable(why: &str, command: &str) -> Vec<Finding> {
    of_health(Observation::Unreadable { why: why.to_owned() }, command)
}

/// All that there is to say of a disk.
pub(super) fn of_health(observed: Observation, command: &str) -> Vec<Finding> {
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
    all.push((names::POWER_ON_HOURS, observed(report.kept("/power_on_time/hours"), "h")));
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
    let logged = ["extended", "summary"].map(|log| format!("/ata_smart_error_log/{log}/count"));
    let errors = match (logged.iter().find(|at| report.at(at).is_some()), report.exit & exit::ERRORS) {
        (Some(at), 0) => report.number(at),
        (Some(at), _) => report.number(at).map(|count| count.max(1.0)),
        (None, 0) => Err(Gap::NotKept("the disk keeps no log of errors".to_owned())),
        (None, _) => Ok(1.0),
    };
    vec![
        (names::PREFAIL, observed(failing("now", exit::PREFAIL), "attributes")),
        (names::PAST_THRESHOLD, observed(failing("past", exit::PAST), "attributes")),
        (names::FAILED_SELF_TESTS, Observation::measured(failed_tests, "(1: the log holds one)")),
        (names::ERROR_LOG, observed(errors, "errors in the disk's log")),
        (names::REALLOCATED, observed(report.attribute(5), "sectors")),
        (names::REPORTED_UNCORRECTABLE, observed(report.attribute(187), "errors")),
        (names::COMMAND_TIMEOUTS, observed(report.low_word(188), "commands")),
        (names::PENDING, observed(report.attribute(197), "sectors")),
        (names::OFFLINE_UNCORRECTABLE, observed(report.attribute(198), "sectors")),
    ]
}

/// Disks of other kinds keep a failed self-test in their log whatever came after it, and smartctl says no more than that there is one.
fn logged_failure(report: &Report) -> Option<(&'static str, Observation)> {
    let what = "a failed self-test in the disk's log, which a later one may have made good,".to_owned();
    (report.exit & exit::SELF_TEST != 0)
        .then_some((names::FAILED_SELF_TESTS, Observation::Unexpected { what }))
}

/// The count of an NVMe disk's log of errors is left out: commands that it does not know, such as those of tools, are in it.
fn nvme(report: &Report) -> Vec<(&'static str, Observation)> {
    let log = |key: &str| report.number(&format!("/nvme_smart_health_information_log/{key}"));
    let spare = log("available_spare")
        .and_then(|spare| log("available_spare_threshold").map(|threshold| spare - threshold));
    let mut all = vec![
        (names::CRITICAL_WARNING, observed(log("critical_warning"), "(bits)")),
        (names::SPARE, observed(spare, "% over its threshold")),
        (names::PERCENTAGE_USED, observed(log("percentage_used"), "%")),
        (names::MEDIA_ERRORS, observed(log("media_errors"), "errors")),
    ];
    all.extend(logged_failure(report));
    all
}

fn scsi(report: &Report) -> Vec<(&'static str, Observation)> {
    // Disks need not keep this log; where they do, a row of it must be whole.
    let uncorrected = report
        .at("/scsi_error_counter_log")
        .map(|_| {
            ["read", "write", "verify"]
                .map(|what| format!("/scsi_error_counter_log/{what}/total_uncorrected_errors"))
                .iter()
                // A disk that never verified anything may leave that row out; reads and writes it must have.
                .filter(|pointer| !pointer.contains("verify") || report.at(pointer).is_some())
                .map(|pointer| report.number(pointer))
                .sum::<Number>()
        })
        .unwrap_or_else(|| report.kept("/scsi_error_counter_log"));
    let mut all = vec![
        (names::GROWN_DEFECTS, observed(report.kept("/scsi_grown_defect_list"), "defects")),
        (names::UNCORRECTED_ERRORS, observed(uncorrected, "errors")),
    ];
    all.extend(logged_failure(report));
    all
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

/// What a disk says before its self-test and after it, as one finding for each check: the worse one. `after` is its report then and the
/// command, or why there is none.
pub(super) fn over_both(
    before: &Report,
    mut found: Vec<Finding>,
    after: Result<(&Report, &str), String>,
    limit: &dyn Fn(&str) -> Limit,
) -> Vec<Finding> {
    let after = after.and_then(|(report, command)| match report.serial == before.serial {
        true => Ok((report, command)),
        false => Err(format!(
            "another disk answered: its serial is {}",
            report.serial.as_deref().unwrap_or("not told")
        )),
    });
    let later = match &after {
        Ok((report, command)) => findings(report, command),
        Err(why) => unreadable(&format!("after the self-test, {why}"), ""),
    };
    for is in later {
        match found.iter_mut().find(|was| was.name == is.name) {
            None => found.push(is),
            Some(was) if stands(was, &is, &limit(is.name)) => {
                let evidence = format!("{} (after the self-test)", is.evidence);
                *was = Finding { evidence, ..is };
            }
            Some(_) => {}
        }
    }
    found.extend(cable_errors(before, after.map(|(report, _)| report)));
    found
}

/// Whether what was found later stands in place of what was found first: where it is as bad or worse.
fn stands(was: &Finding, is: &Finding, limit: &Limit) -> bool {
    match is.name {
        // A self-test that ended well makes an earlier one good.
        names::FAILED_SELF_TESTS => true,
        // The hours of the self-test are not a used disk's.
        names::POWER_ON_HOURS | names::WRITTEN => false,
        _ => {
            let verdict = |of: &Finding| judge(&of.observed, limit, false).0;
            Verdict::over([verdict(was), verdict(is)]) == verdict(is)
        }
    }
}

/// Errors on the cable, of which only new ones tell of this machine.
fn cable_errors(before: &Report, after: Result<&Report, String>) -> Option<Finding> {
    const CRC: u64 = 199;
    if before.kind != Kind::Ata {
        return None;
    }
    let errors = before.attribute(CRC).and_then(|first| {
        let last = after.map_err(Gap::Unreadable)?.attribute(CRC)?;
        match last >= first {
            true => Ok(last - first),
            false => Err(Gap::Unreadable(format!("attribute 199 went back from {first} to {last}"))),
        }
    });
    let evidence = "attribute 199 before and after the self-test".to_owned();
    Some(Finding { name: names::CRC_ERRORS, observed: observed(errors, "new errors"), evidence })
}

fn observed(number: Number, unit: &str) -> Observation {
    match number {
        Ok(value) => Observation::measured(value, unit),
        Err(Gap::NotKept(why)) => Observation::Absent { why },
        Err(Gap::Unreadable(why)) => Observation::Unreadable { why },
    }
}
