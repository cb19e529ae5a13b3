//! The counters around a stage: what memory, PCIe links, CPUs and network interfaces counted while it ran.
//!
//! [`Watch`] reads them before a stage and after it ([`read`]); what grew is a check of that stage, named by its component,
//! with the hottest sensor of that time as evidence ([`heat`]). A counter that nobody keeps is skipped with that reason
//! and never taken for zero; one that went back or away is unreadable.

mod guard;
mod heat;
mod limits;
mod read;
mod sel;

use std::collections::BTreeMap;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::order;
use groundcrew_protocol::plan::{NO_EVENTS, names};

pub(super) use self::guard::Guarded;
use self::heat::{Ended, Heat};
use self::limits::Stop;
use self::read::{Counted, Gap, Reading};
use super::{Done, StageContext};

/// Components of one counter that get a check of their own; the last of them says how many more there are. A machine on which
/// more go wrong at once is past being told which.
const COMPONENTS_MAX: usize = 32;

/// What was read before a stage, and the thread that looks after the heat.
pub(super) struct Watch {
    before: BTreeMap<&'static str, Reading>,
    log: Option<Result<sel::Log, Gap>>,
    heat: Option<Heat>,
    has_limits: bool,
}

impl Watch {
    /// Reads the counters that the plan of a stage owes. Without any, nothing is done. `load` is ended where the machine gets
    /// too hot.
    pub(super) fn begin(context: &StageContext, load: &Guarded) -> Watch {
        let before = planned(context);
        let plan = context.whole_plan();
        let is_planned = |name: &str| plan.iter().any(|planned| planned.name == name);
        let has_log = is_planned(names::SEL_EVENTS);
        let heat = (has_log || !before.is_empty()).then(|| Heat::start(&context.root, load.guards()));
        let log = has_log.then(|| sel::read(context));
        Watch { before, log, heat, has_limits: is_planned(names::CRITICAL_TEMPERATURE) }
    }

    /// Reads them again, and says in checks of the stage what was counted meanwhile. Where the stage itself had nothing to test,
    /// counters that stood still tell of no test either. The BMC's log is kept as it was printed.
    pub(super) fn end(self, context: &StageContext, done: &mut Done) {
        let after = planned(context);
        let mut found: Vec<(&str, Finding)> = Vec::new();
        for (name, before) in &self.before {
            let Some(after) = after.get(name) else { continue };
            let silent = read::uncounted(&context.root, name);
            let findings = compare(name, before, after).into_iter().map(|finding| finding.beside(&silent));
            found.extend(findings.map(|finding| (*name, finding)));
        }
        if let Some(before) = &self.log {
            let after = sel::read(context);
            found
                .extend(sel::compare(before, &after).into_iter().map(|finding| (names::SEL_EVENTS, finding)));
            done.artifacts.extend(after.ok().map(|(_, printed)| ("sel.txt".to_owned(), printed)));
        }
        let nobody = || Ended { hottest: String::new(), limits: None };
        let ended = self.heat.map_or_else(nobody, Heat::end);
        if self.has_limits {
            found.push((names::CRITICAL_TEMPERATURE, heat_finding(&ended)));
        }
        let hottest = &ended.hottest;
        let is_idle = done.checks.iter().all(|check| matches!(check.observed, Observation::Absent { .. }));
        let plan = context.whole_plan();
        let required = |name: &str| plan.iter().any(|planned| planned.required && planned.name == name);
        for (name, mut finding) in found {
            if is_idle && finding.stood_still() && !required(name) {
                finding.observed = Observation::Absent { why: "the stage had nothing to test".to_owned() };
            }
            let evidence = format!("{}\n{hottest}", finding.evidence).trim().to_owned();
            let limit = context.limit(name);
            let check = Check::of(name, finding.component.as_deref(), finding.observed, limit);
            done.checks.push(check.with_evidence(evidence));
        }
    }
}

/// True for a check that [`Watch`] observes, and no stage itself.
pub(super) fn is_counter(name: &str) -> bool {
    names::COUNTER_CHECKS.contains(&name)
}

fn planned(context: &StageContext) -> BTreeMap<&'static str, Reading> {
    let plan = context.whole_plan();
    let is_planned = |name: &&str| plan.iter().any(|planned| planned.name == *name);
    names::COUNTER_CHECKS
        .into_iter()
        .filter(is_planned)
        .filter_map(|name| Some((name, read::read(&context.root, name)?)))
        .collect()
}

/// What a counter says of one component, or where none is named of all.
#[derive(Debug, PartialEq)]
struct Finding {
    component: Option<String>,
    observed: Observation,
    evidence: String,
}

impl Finding {
    /// The same, with the devices of which nothing is known where it is said of all that nothing was counted.
    fn beside(mut self, silent: &[String]) -> Finding {
        if self.stood_still() && !silent.is_empty() {
            let devices = list(silent.iter());
            self.evidence = format!("{}\nnot counted, having no AER: {devices}", self.evidence);
        }
        self
    }

    /// What cannot be told comes before what grew, and what grew more before what grew less.
    fn weight(&self) -> f64 {
        match &self.observed {
            Observation::Measured { value: Some(value), .. } => *value,
            Observation::Measured { value: None, .. }
            | Observation::Found { .. }
            | Observation::Unreadable { .. }
            | Observation::Absent { .. }
            | Observation::Missing { .. }
            | Observation::Unexpected { .. } => f64::INFINITY,
        }
    }

    fn stood_still(&self) -> bool {
        match &self.observed {
            Observation::Measured { value, .. } => *value == Some(0.0),
            Observation::Found { text } => text == NO_EVENTS,
            Observation::Unreadable { .. }
            | Observation::Absent { .. }
            | Observation::Missing { .. }
            | Observation::Unexpected { .. } => false,
        }
    }
}

/// Whether the machine got too hot.
fn heat_finding(ended: &Ended) -> Finding {
    let of = |observed| Finding { component: None, observed, evidence: String::new() };
    let Some(limits) = &ended.limits else {
        return of(Observation::Unreadable { why: ended.hottest.clone() });
    };
    match limits.stop() {
        Some(Stop::TooHot { key, celsius, critical }) => {
            let text = format!("{celsius:.1} °C in three samples, critical at {critical:.1} °C");
            Finding { component: Some(key.clone()), ..of(Observation::Found { text }) }
        }
        Some(Stop::Silent) => {
            let why = "for 30 s no sensor of temperature that was there has answered: the load was stopped";
            of(Observation::Unreadable { why: why.to_owned() })
        }
        None if limits.bounded() == 0 => {
            let why = "no sensor but a CPU's own tells a critical limit";
            of(Observation::Absent { why: why.to_owned() })
        }
        None => {
            let evidence = format!("{} sensors have a limit that counts", limits.bounded());
            Finding { evidence, ..of(Observation::Found { text: NO_EVENTS.to_owned() }) }
        }
    }
}

/// Holds two readings against each other.
fn compare(name: &str, before: &Reading, after: &Reading) -> Vec<Finding> {
    let of_all = |observed, evidence| vec![Finding { component: None, observed, evidence }];
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(Gap::Unreadable(why)), _) | (_, Err(Gap::Unreadable(why))) => {
            return of_all(Observation::Unreadable { why: why.clone() }, String::new());
        }
        (Err(Gap::NotKept(why)), Err(Gap::NotKept(_))) => {
            return of_all(Observation::Absent { why: why.clone() }, String::new());
        }
        (Err(Gap::NotKept(why)), Ok(_)) => {
            let why = format!("before the stage, {why}");
            return of_all(Observation::Absent { why }, String::new());
        }
        (Ok(_), Err(Gap::NotKept(why))) => {
            let why = format!("it was counted before the stage; after it, {why}");
            return of_all(Observation::Unreadable { why }, String::new());
        }
    };
    let mut findings: Vec<Finding> = before
        .iter()
        .filter_map(|(component, was)| finding(name, component, was, after.get(component)))
        .collect();
    if findings.is_empty() {
        let evidence = format!("none of {} counted any: {}", before.len(), list(before.keys()));
        return of_all(Observation::measured(0.0, unit(name)), evidence);
    }
    // What is cut is what matters least.
    order::sort_by(&mut findings, |one, other| other.weight().total_cmp(&one.weight()));
    let more = findings.len().saturating_sub(COMPONENTS_MAX);
    findings.truncate(COMPONENTS_MAX);
    if let (true, Some(last)) = (more > 0, findings.last_mut()) {
        last.evidence = format!("{}\nand {more} more components of which this is said", last.evidence);
    }
    findings
}

/// What is to be said of a component: that it counted, or cannot be told. `None` where it counted nothing.
fn finding(name: &str, component: &str, was: &Counted, is: Option<&Counted>) -> Option<Finding> {
    let of = |observed, evidence| Some(Finding { component: Some(component.to_owned()), observed, evidence });
    let unreadable = |why: String| of(Observation::Unreadable { why }, String::new());
    let Some(is) = is else { return unreadable("it went away within the stage".to_owned()) };
    let Some(grown) = is.count.checked_sub(was.count) else {
        return unreadable(format!("its counter went back from {} to {}", was.count, is.count));
    };
    if grown == 0 {
        return None;
    }
    let parts: Vec<String> = is
        .parts
        .iter()
        .filter_map(|(part, is)| {
            let grown = is.checked_sub(was.parts.get(part).copied().unwrap_or(0))?;
            (grown > 0).then(|| format!("{part} +{grown}"))
        })
        .collect();
    let said = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    let evidence = format!("{}: {} before the stage, {} after it{said}", is.source, was.count, is.count);
    of(Observation::measured(grown as f64, unit(name)), evidence)
}

fn unit(name: &str) -> &'static str {
    match name {
        names::MACHINE_CHECKS => "exceptions",
        names::NIC_ERRORS => "damaged packets",
        names::LOST_CARRIERS => "times",
        names::THROTTLE_EVENTS => "times throttled",
        _ => "errors",
    }
}

/// Some of the names, and how many more there are.
fn list<'a>(all: impl ExactSizeIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 8;
    let more = all.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = all.take(SHOWN).map(String::as_str).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests;
