//! The stage SMART: what each disk says of its own health, and a self-test.
//!
//! `smartctl -j -x` is asked of every disk that the kernel lists; [`report`] reads what it prints, [`judge`] makes checks
//! of it. A disk is named by its serial as smartctl says it. A disk that smartctl cannot reach, as one behind a RAID
//! controller, is inconclusive by name.

mod judge;
mod report;
mod self_test;
mod smartctl;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::inventory::Disk;
use groundcrew_protocol::order;
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::SelfTest;
use groundcrew_protocol::wire::LogLevel;

use self::judge::Finding;
use self::report::Report;
use self::smartctl::Smartctl;
use super::{Done, StageContext, stopped};
use crate::probe::{Unreads, disks};

/// Disks that are asked at a time. Each has a child under way, of which the agent keeps a record.
const DISKS_AT_A_TIME: usize = 32;

/// Asks every disk and judges what it says.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let mut unreads = Unreads::default();
    let disks = disks::read(&context.root, &mut unreads);
    if let Some(unread) = unreads.into_vec().first() {
        let why = format!("the list of disks could not be read: {}", unread.why);
        return Done { checks: context.all_unreadable(&why), ..Done::default() };
    }
    let asked = ask_all(context, &disks, deadline);
    let mut done = Done { stopped: stopped(context, deadline), ..Done::default() };
    let mut serials = Vec::new();
    for disk in asked {
        done.checks.extend(disk.findings.into_iter().map(|finding| {
            let limit = context.limit(finding.name);
            Check::of(finding.name, Some(&disk.component), finding.observed, limit)
                .with_evidence(finding.evidence)
        }));
        serials.push(disk.component);
        done.artifacts.extend(disk.raw);
    }
    done.checks.extend(missing(context, &serials));
    done.checks.extend(kept_by_nobody(context, &done.checks, disks.len()));
    done
}

/// A disk that was asked.
struct Asked {
    /// Its serial as smartctl says it, else as the kernel does, else its name.
    component: String,
    findings: Vec<Finding>,
    raw: Vec<(String, Vec<u8>)>,
}

fn ask_all(context: &StageContext, disks: &[Disk], deadline: Instant) -> Vec<Asked> {
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let asked = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _worker in 0..disks.len().min(DISKS_AT_A_TIME) {
            scope.spawn(|| {
                while let Some(disk) = disks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = ask(context, disk, deadline);
                    asked.lock().expect("nobody panics with the lock").push((disk.name.clone(), answer));
                    let count = ended.fetch_add(1, Ordering::Relaxed) + 1;
                    let part = count as f64 / disks.len() as f64;
                    context.show(part, format!("{count} of {} disks asked", disks.len()));
                }
            });
        }
    });
    let mut asked = asked.into_inner().expect("nobody panics with the lock");
    order::sort_by(&mut asked, |(left, _), (right, _)| left.cmp(right));
    asked.into_iter().map(|(_name, answer)| answer).collect()
}

/// One disk: what it says, the self-test, and what it says then.
fn ask(context: &StageContext, disk: &Disk, deadline: Instant) -> Asked {
    let smartctl = Smartctl { context, device: format!("/dev/{}", disk.name), deadline };
    let settings = context.spec.smart.clone().unwrap_or_default();
    let by_kernel = || disk.serial.clone().unwrap_or_else(|| disk.name.clone());
    let first = match smartctl.ask(&["-x"]) {
        Ok(said) => said,
        Err(why) => {
            let findings = judge::unreadable(&why, &smartctl.command(&["-x"]));
            return Asked { component: by_kernel(), findings, raw: Vec::new() };
        }
    };
    let raw = vec![(format!("smartctl-{}.json", disk.name), first.raw.clone())];
    let before = match Report::read(&first) {
        Ok(report) => report,
        Err(why) => {
            context.say(LogLevel::Warn, format!("{}: {why}", disk.name));
            return Asked { component: by_kernel(), findings: judge::unreadable(&why, &first.command), raw };
        }
    };
    let component = before.serial.clone().unwrap_or_else(by_kernel);
    context.say(LogLevel::Info, format!("{}: {} {component}", disk.name, before.model));
    let mut findings = judge::findings(&before, &first.command);
    if settings.self_test != SelfTest::None {
        findings.push(self_test::run(&smartctl, &settings.self_test, &before));
        let ask_again = || smartctl.ask(&["-x"]).and_then(|said| Report::read(&said));
        findings.extend(judge::difference(&before, ask_again));
    }
    Asked { component, findings, raw }
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

/// Planned checks of which no disk here keeps anything: an attribute of another kind of disk.
fn kept_by_nobody(context: &StageContext, checks: &[Check], disks: usize) -> Vec<Check> {
    let why = match disks {
        0 => "this machine has no disk".to_owned(),
        count => format!("none of the {count} disks that could be read keeps it"),
    };
    let planned = context.plan().into_iter();
    planned
        .filter(|planned| !checks.iter().any(|check| check.name == planned.name))
        .map(|planned| context.check(&planned.name, Observation::Absent { why: why.clone() }))
        .collect()
}

#[cfg(test)]
mod tests;
