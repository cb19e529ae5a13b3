//! The stage SMART: what each disk says of its own health, and a self-test.
//!
//! `smartctl -j -x` is asked of every disk that the kernel lists; [`report`] reads what it prints, [`judge`] makes checks
//! of it. A disk is named by its serial as smartctl says it. A disk that smartctl cannot reach, as one behind a RAID
//! controller, is inconclusive by name. Disks that have nothing to say are not asked: those of other machines, and
//! what has no SMART at all.

mod judge;
mod nvme_cli;
mod report;
mod self_test;
mod smartctl;

use std::time::Instant;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::inventory::Disk;
use groundcrew_protocol::limits::ARTIFACT_BYTES_MAX;
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::SelfTest;
use groundcrew_protocol::wire::LogLevel;

use self::judge::Finding;
use self::report::Report;
use self::smartctl::{Said, Smartctl};
use super::local_disks::{device, each, found, is_anothers, is_expected, without_smart};
use super::{Done, StageContext, refused, stopped};

/// Disks that are asked at a time. Each has a child under way, of which the agent keeps a record.
const DISKS_AT_A_TIME: usize = 32;
/// A disk that is not asked, and why.
type LeftOut<'d> = (&'d Disk, String);

/// Asks every disk and judges what it says.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let disks = match found(context) {
        Ok(disks) => disks,
        Err(why) => return refused(context, why),
    };
    let mut serials = Vec::new();
    let (mut asked, mut left_out) = (Vec::new(), Vec::new());
    for disk in &disks {
        match left_out_for(context, disk, &asked) {
            None => asked.push(disk.clone()),
            Some(why) => {
                context.say(LogLevel::Info, format!("{} is not asked: {why}", disk.name));
                serials.extend(disk.serial.clone());
                left_out.push((disk, why));
            }
        }
    }
    let (mut done, mut before, mut after) = (Done::default(), Vec::new(), Vec::new());
    for disk in each(context, &asked, DISKS_AT_A_TIME, "asked", |disk| ask(context, disk, deadline)) {
        done.checks.extend(disk.findings.into_iter().map(|finding| {
            let limit = context.limit(finding.name);
            Check::of(finding.name, Some(&disk.component), finding.observed, limit)
                .with_evidence(finding.evidence)
        }));
        serials.push(disk.component);
        before.push(disk.before);
        after.push(disk.after);
    }
    done.artifacts.extend(joined("smartctl", before));
    done.artifacts.extend(joined("smartctl-after", after));
    done.stopped = stopped(context, deadline);
    done.checks.extend(missing(context, &serials));
    done.checks.extend(listed_without_smart(context, &done.checks, &left_out));
    done.checks.extend(kept_by_nobody(context, &done.checks, asked.len(), &left_out));
    done
}

/// Why a disk is not asked. An NVMe disk's health and self-tests are those of its controller, whichever of its namespaces is asked.
fn left_out_for(context: &StageContext, disk: &Disk, asked: &[Disk]) -> Option<String> {
    if let Some(what) = without_smart(disk) {
        return Some(format!("{what} has no SMART"));
    }
    if is_anothers(context, disk) {
        return Some("it is on another machine, and the profile does not list it".to_owned());
    }
    let is_same = |other: &&Disk| {
        let nvme = |of: &Disk| of.name.starts_with("nvme");
        nvme(disk)
            && nvme(other)
            && disk.serial.is_some()
            && (&disk.serial, &disk.pci) == (&other.serial, &other.pci)
    };
    asked
        .iter()
        .find(is_same)
        .map(|other| format!("it is a namespace of the disk that {} is asked of", other.name))
}

/// A disk that was asked.
struct Asked {
    /// Its serial as smartctl says it, else as the kernel does, else its name.
    component: String,
    findings: Vec<Finding>,
    /// What smartctl said of it, and what after its self-test.
    before: Vec<u8>,
    after: Vec<u8>,
}

/// What was printed of the disks, in as few files as may be: a machine may have more disks than an attempt may have artifacts.
fn joined(name: &str, printed: Vec<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<Vec<u8>> = Vec::new();
    for of_disk in printed.into_iter().filter(|of_disk| !of_disk.is_empty()) {
        match files.last_mut().filter(|file| file.len() + of_disk.len() <= ARTIFACT_BYTES_MAX) {
            Some(file) => file.extend(of_disk),
            None => files.push(of_disk),
        }
    }
    let numbered = files.into_iter().enumerate();
    let named = |count: usize| if count == 0 { String::new() } else { format!("-{}", count + 1) };
    numbered.map(|(count, file)| (format!("{name}{}.txt", named(count)), file)).collect()
}

/// The command and what it printed.
fn printed(said: &Said) -> Vec<u8> {
    [format!("# {}\n", said.command).as_bytes(), said.raw.as_slice(), b"\n"].concat()
}

/// One disk: what it says, the self-test, and what it says then.
fn ask(context: &StageContext, disk: &Disk, deadline: Instant) -> Asked {
    let smartctl = Smartctl { context, device: device(context, disk).display().to_string(), deadline };
    let by_kernel = disk.serial.clone().unwrap_or_else(|| disk.name.clone());
    let nothing =
        |findings| Asked { component: by_kernel.clone(), findings, before: Vec::new(), after: Vec::new() };
    let first = match smartctl.ask(&["-x"]) {
        Ok(said) => said,
        Err(why) => return nothing(judge::unreadable(&why, &smartctl.command(&["-x"]))),
    };
    let report = match Report::read(&first) {
        Ok(report) => report,
        Err(why) => {
            context.say(LogLevel::Warn, format!("{}: {why}", disk.name));
            return Asked {
                before: printed(&first),
                ..nothing(unreached(context, disk, why, &first.command))
            };
        }
    };
    let component = report.serial.clone().unwrap_or(by_kernel);
    context.say(LogLevel::Info, format!("{}: {} {component}", disk.name, report.model));
    let findings = judge::findings(&report, &first.command);
    let asked = Asked { component, findings, before: printed(&first), after: Vec::new() };
    match context.spec.smart.clone().unwrap_or_default().self_test {
        SelfTest::None => asked,
        kind => tested(&smartctl, &kind, &report, asked),
    }
}

/// The same disk after its self-test.
fn tested(smartctl: &Smartctl<'_>, kind: &SelfTest, before: &Report, asked: Asked) -> Asked {
    let self_test = self_test::run(smartctl, kind, before);
    let again = smartctl.ask(&["-x"]);
    let after = again.as_ref().map(printed).unwrap_or_default();
    let report = again.and_then(|said| Ok((Report::read(&said)?, said.command)));
    let report = report.as_ref().map(|(report, command)| (report, command.as_str())).map_err(Clone::clone);
    let limit = |name: &str| smartctl.context.limit(name);
    let mut findings = judge::over_both(before, asked.findings, report, &limit);
    findings.push(self_test);
    Asked { findings, after, ..asked }
}

/// A disk that smartctl cannot reach. One that hangs on USB, and that nobody expects, is a medium that comes and goes.
fn unreached(context: &StageContext, disk: &Disk, why: String, command: &str) -> Vec<Finding> {
    match disk.transport.as_deref() == Some("usb") && !is_expected(context, disk) {
        true => {
            let why = format!("it hangs on USB, the profile does not list it, and {why}");
            judge::of_health(Observation::Absent { why }, command)
        }
        false => judge::unreadable(&why, command),
    }
}

/// Disks of the profile that did not answer under their serial.
fn missing(context: &StageContext, serials: &[String]) -> Vec<Check> {
    let expected = context.expected_disks.iter().filter_map(|disk| disk.serial.as_deref());
    expected
        .filter(|wanted| !serials.iter().any(|serial| serial.eq_ignore_ascii_case(wanted.trim())))
        .map(|wanted| {
            let observed = Observation::Missing { what: format!("the disk {wanted}") };
            Check::of(names::HEALTH, Some(wanted), observed, context.limit(names::HEALTH))
        })
        .collect()
}

/// Disks of the profile that are there and have nothing to say.
fn listed_without_smart(context: &StageContext, checks: &[Check], left_out: &[LeftOut]) -> Vec<Check> {
    let has_result = |serial: &str| checks.iter().any(|check| check.component.as_deref() == Some(serial));
    let listed = left_out.iter().filter(|(disk, _)| is_expected(context, disk));
    let absent = |(disk, why): &LeftOut| {
        let serial = disk.serial.as_deref().filter(|serial| !has_result(serial))?;
        let observed = Observation::Absent { why: why.clone() };
        Some(Check::of(names::HEALTH, Some(serial), observed, context.limit(names::HEALTH)))
    };
    listed.filter_map(absent).collect()
}

/// Planned checks of which no disk here keeps anything: an attribute of another kind of disk.
fn kept_by_nobody(
    context: &StageContext,
    checks: &[Check],
    asked: usize,
    left_out: &[LeftOut],
) -> Vec<Check> {
    let said = |(disk, why): &LeftOut| format!("{}: {why}", disk.name);
    let why = match (asked, left_out) {
        (0, []) => "this machine has no disk".to_owned(),
        (0, left_out) => {
            let all: Vec<String> = left_out.iter().map(said).collect();
            format!("no disk here can be asked: {}", all.join("; "))
        }
        (count, _) => format!("none of the {count} disks that could be read keeps it"),
    };
    let owed = context.plan().into_iter();
    owed.filter(|planned| !checks.iter().any(|check| check.name == planned.name))
        .map(|planned| context.check(&planned.name, Observation::Absent { why: why.clone() }))
        .collect()
}

#[cfg(test)]
mod tests;
