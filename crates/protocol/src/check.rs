//! Checks and how they are judged. Pure: agent and orchestrator judge alike, the orchestrator's verdict
//! counts, and a stored report can be judged again under other limits.
//!
//! What could not be checked is never a pass: an observation that is missing or unreadable makes a check
//! inconclusive, and a stage without a single check is inconclusive too.

mod incoming;

use serde::{Deserialize, Serialize};

/// How a check, a stage or a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Checked and within its limits.
    Pass,
    /// Checked; outside what is normal, within what is allowed.
    Warn,
    /// Checked and outside its limits.
    Fail,
    /// Could not be checked. Holds a run exactly as a failure does.
    Inconclusive,
    /// The hardware says itself that it has nothing to check here, and nothing requires it.
    Skipped,
}

impl Verdict {
    /// True where a run goes on after a stage with this verdict.
    pub fn goes_on(self) -> bool {
        match self {
            Verdict::Pass | Verdict::Warn | Verdict::Skipped => true,
            Verdict::Fail | Verdict::Inconclusive => false,
        }
    }

    /// The word of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Skipped => "skipped",
        }
    }

    /// The verdict over several: fail before inconclusive before warn before pass; all skipped is skipped;
    /// none at all is inconclusive.
    pub fn over(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
        let mut worst: Option<Verdict> = None;
        for verdict in verdicts {
            if worst.is_none_or(|so_far| verdict.rank() > so_far.rank()) {
                worst = Some(verdict);
            }
        }
        worst.unwrap_or(Verdict::Inconclusive)
    }

    fn rank(self) -> u8 {
        match self {
            Verdict::Skipped => 0,
            Verdict::Pass => 1,
            Verdict::Warn => 2,
            Verdict::Inconclusive => 3,
            Verdict::Fail => 4,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(remote = "Self", tag = "kind", rename_all = "snake_case")]
pub enum Observation {
    /// A number. A number that is not finite counts as unreadable.
    Measured {
        /// The number. Not finite travels as null and is read as unreadable.
        value: Option<f64>,
        /// Its unit as people write it (`°C`, `bogo-ops/s`, `%`, `miscompares`).
        unit: String,
    },
    /// A word or a name, compared as it stands.
    Found {
        /// What was found.
        text: String,
    },
    /// The source is there or should be, and could not be read: a missing tool, a timeout, output that
    /// nobody understands.
    Unreadable {
        /// Why.
        why: String,
    },
    /// The hardware itself says that it has no such source.
    Absent {
        /// How it says so.
        why: String,
    },
    /// Expected, and looked for where it should be, and not there. A failure, not a gap in what we know.
    Missing {
        /// What is missing.
        what: String,
    },
    /// There, and not expected. A warning.
    Unexpected {
        /// What was found.
        what: String,
    },
}

impl Observation {
    /// A measured number.
    pub fn measured(value: f64, unit: &str) -> Observation {
        Observation::Measured { value: value.is_finite().then_some(value), unit: unit.to_owned() }
    }

    /// What was observed, for people.
    pub fn describe(&self) -> String {
        match self {
            Observation::Measured { value: Some(value), unit } => {
                format!("{} {unit}", number(*value)).trim_end().to_owned()
            }
            Observation::Measured { value: None, unit } => format!("no number ({unit})"),
            Observation::Found { text } => text.clone(),
            Observation::Unreadable { why } | Observation::Absent { why } => why.clone(),
            Observation::Missing { what } => format!("missing: {what}"),
            Observation::Unexpected { what } => format!("unexpected: {what}"),
        }
    }
}

/// What an observation must satisfy. Every bound that is there holds; a value on a bound is within it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Limit {
    /// A lower number fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_below: Option<f64>,
    /// A lower number warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_below: Option<f64>,
    /// A higher number warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_above: Option<f64>,
    /// A higher number fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_above: Option<f64>,
    /// Any other text fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// A text without this in it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// A deviation warns instead of failing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_warns: bool,
}

impl Limit {
    /// Fails above `bound`.
    pub fn at_most(bound: f64) -> Limit {
        Limit { fail_above: Some(bound), ..Limit::default() }
    }

    /// Fails below `bound`.
    pub fn at_least(bound: f64) -> Limit {
        Limit { fail_below: Some(bound), ..Limit::default() }
    }

    /// Fails for any other text.
    pub fn equal_to(text: impl Into<String>) -> Limit {
        Limit { equals: Some(text.into()), ..Limit::default() }
    }

    /// Fails for a text that does not hold `part`.
    pub fn containing(part: impl Into<String>) -> Limit {
        Limit { contains: Some(part.into()), ..Limit::default() }
    }

    /// The limit for people: `at least 5, at most 7 (warns above 6)`; empty where nothing is bounded.
    pub fn describe(&self) -> String {
        let bound = |word: &str, bound: Option<f64>| bound.map(|bound| format!("{word} {}", number(bound)));
        let parts: Vec<String> = [
            bound("at least", self.fail_below),
            bound("at most", self.fail_above),
            bound("warns below", self.warn_below),
            bound("warns above", self.warn_above),
            self.equals.clone(),
            self.contains.as_ref().map(|part| format!("holds {part}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        parts.join(", ")
    }
}

/// A number with up to three digits after the point, and no zeros at the end.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A check that a stage owes. Planned checks are frozen when the stage starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedCheck {
    /// Name of the check, as `miscompares`.
    pub name: String,
    /// The component, where the plan knows it; without one, any component's check of this name fulfils it,
    /// and its limit holds for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// The limit of the profile, or its default. It beats the limit that an agent sends.
    #[serde(default)]
    pub limit: Limit,
    /// The profile lists it under `require`: hardware without a source for it makes it inconclusive.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

impl PlannedCheck {
    /// True for a check that is a result of it. Serials count as the same in either case, and without the blanks that makers
    /// pad them with.
    pub fn is_fulfilled_by(&self, check: &Check) -> bool {
        let is_of_it = |component: &str| {
            check
                .component
                .as_deref()
                .is_some_and(|found| found.trim().eq_ignore_ascii_case(component.trim()))
        };
        self.name == check.name && self.component.as_deref().is_none_or(is_of_it)
    }
}

/// A check as an agent reports it and as it was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// Name of the check.
    pub name: String,
    /// What was checked: a serial where there is one, else a place (`DIMM_A1`, `0000:01:00.0`, `cpu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What was observed.
    pub observed: Observation,
    /// What it was held against.
    #[serde(default)]
    pub limit: Limit,
    /// The verdict of whoever wrote this: the agent's word in a result, the orchestrator's in a report.
    pub verdict: Verdict,
    /// Why this verdict, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Where the observation came from: a command line, a file, lines of output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

impl Check {
    /// A check of an observation against a limit, judged.
    pub fn of(name: &str, component: Option<&str>, observed: Observation, limit: Limit) -> Check {
        let (verdict, reason) = judge(&observed, &limit, false);
        let component = component.map(str::to_owned);
        Check { name: name.to_owned(), component, observed, limit, verdict, reason, evidence: String::new() }
    }

    /// The same with its evidence.
    #[must_use]
    pub fn with_evidence(mut self, evidence: impl Into<String>) -> Check {
        self.evidence = evidence.into();
        self
    }
}

/// Judges one observation: the verdict and, where it is no plain pass, why.
pub fn judge(observed: &Observation, limit: &Limit, required: bool) -> (Verdict, String) {
    match observed {
        Observation::Measured { value: Some(value), unit } if value.is_finite() => {
            judge_number(*value, unit, limit)
        }
        Observation::Measured { unit, .. } => {
            (Verdict::Inconclusive, format!("no finite number of {unit} was measured"))
        }
        Observation::Found { text } => judge_text(text, limit),
        Observation::Unreadable { why } => (Verdict::Inconclusive, why.clone()),
        Observation::Absent { why } if required => {
            (Verdict::Inconclusive, format!("required by the profile, but {why}"))
        }
        Observation::Absent { why } => (Verdict::Skipped, why.clone()),
        Observation::Missing { what } => (Verdict::Fail, format!("{what} is missing")),
        Observation::Unexpected { what } => (Verdict::Warn, format!("{what} was not expected")),
    }
}

fn judge_text(text: &str, limit: &Limit) -> (Verdict, String) {
    let deviation = if limit.only_warns { Verdict::Warn } else { Verdict::Fail };
    match (&limit.equals, &limit.contains) {
        (Some(wanted), _) if wanted != text => {
            (deviation, format!("found \"{text}\", expected \"{wanted}\""))
        }
        (_, Some(part)) if !text.contains(part.as_str()) => {
            (deviation, format!("found \"{text}\", expected \"{part}\" in it"))
        }
        (Some(_), _) | (_, Some(_)) => (Verdict::Pass, String::new()),
        (None, None) if limit.describe().is_empty() => (Verdict::Pass, String::new()),
        (None, None) => (Verdict::Inconclusive, format!("found \"{text}\" where a number was expected")),
    }
}

fn judge_number(value: f64, unit: &str, limit: &Limit) -> (Verdict, String) {
    let said = format!("{} {unit}", number(value));
    if limit.equals.is_some() || limit.contains.is_some() {
        return (Verdict::Inconclusive, format!("measured {said} where a text was expected"));
    }
    let fails = limit.fail_below.is_some_and(|bound| value < bound)
        || limit.fail_above.is_some_and(|bound| value > bound);
    let warns = limit.warn_below.is_some_and(|bound| value < bound)
        || limit.warn_above.is_some_and(|bound| value > bound);
    let reason = || format!("{said}, expected {}", limit.describe());
    match (fails, warns) {
        (true, _) if limit.only_warns => (Verdict::Warn, reason()),
        (true, _) => (Verdict::Fail, reason()),
        (false, true) => (Verdict::Warn, reason()),
        (false, false) => (Verdict::Pass, String::new()),
    }
}

/// A stage's verdict with every check judged, the planned ones that nobody reported included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Judged {
    /// The verdict over all checks.
    pub verdict: Verdict,
    /// All checks, judged by the plan's limits where the plan names them.
    pub checks: Vec<Check>,
}

/// Judges a stage from its frozen plan and the checks that were reported.
///
/// Reported verdicts do not count; limits of the plan beat reported ones. A planned check without a report
/// is inconclusive. Checks beyond the plan are judged by their own limits and count too. No check at all is
/// inconclusive.
pub fn judge_stage(plan: &[PlannedCheck], reported: &[Check]) -> Judged {
    let mut checks: Vec<Check> = reported.iter().map(|check| judge_reported(plan, check)).collect();
    for planned in plan {
        if reported.iter().any(|check| planned.is_fulfilled_by(check)) {
            continue;
        }
        checks.push(Check {
            name: planned.name.clone(),
            component: planned.component.clone(),
            observed: Observation::Unreadable { why: "planned, and no result came".to_owned() },
            limit: planned.limit.clone(),
            verdict: Verdict::Inconclusive,
            reason: "planned, and no result came".to_owned(),
            evidence: String::new(),
        });
    }
    Judged { verdict: Verdict::over(checks.iter().map(|check| check.verdict)), checks }
}

fn judge_reported(plan: &[PlannedCheck], check: &Check) -> Check {
    // The most exact entry of the plan holds: one that names the component before one that does not.
    let planned = plan
        .iter()
        .filter(|planned| planned.is_fulfilled_by(check))
        .max_by_key(|planned| planned.component.is_some());
    let limit = planned.map_or_else(|| check.limit.clone(), |planned| planned.limit.clone());
    let required = planned.is_some_and(|planned| planned.required);
    let (verdict, reason) = judge(&check.observed, &limit, required);
    Check { limit, verdict, reason, ..check.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn planned(name: &str, limit: Limit) -> PlannedCheck {
        PlannedCheck { name: name.into(), component: None, limit, required: false }
    }

    #[test]
    fn judging_by_table() {
        let number = |value: f64| Observation::measured(value, "x");
        let found = |text: &str| Observation::Found { text: text.into() };
        let both = Limit { warn_above: Some(1.0), fail_above: Some(2.0), ..Limit::default() };
        let soft = Limit { equals: Some("a".into()), only_warns: true, ..Limit::default() };
        for (observed, limit, required, verdict) in [
            (number(0.0), Limit::at_most(0.0), false, Verdict::Pass),
            (number(1.0), Limit::at_most(0.0), false, Verdict::Fail),
            (number(4.9), Limit::at_least(5.0), false, Verdict::Fail),
            (number(5.0), Limit::at_least(5.0), false, Verdict::Pass),
            (number(1.5), both.clone(), false, Verdict::Warn),
            (number(2.5), both, false, Verdict::Fail),
            (number(f64::NAN), Limit::at_most(0.0), false, Verdict::Inconclusive),
            (number(f64::INFINITY), Limit::default(), false, Verdict::Inconclusive),
            (number(1.0), Limit::equal_to("1"), false, Verdict::Inconclusive),
            (found("a"), Limit::equal_to("a"), false, Verdict::Pass),
            (found("b"), Limit::equal_to("a"), false, Verdict::Fail),
            (found("b"), soft, false, Verdict::Warn),
            (found("abc"), Limit::containing("b"), false, Verdict::Pass),
            (found("abc"), Limit::containing("d"), false, Verdict::Fail),
            (number(1.0), Limit::containing("1"), false, Verdict::Inconclusive),
            (found("12"), Limit::at_most(13.0), false, Verdict::Inconclusive),
            (found("b"), Limit::default(), false, Verdict::Pass),
            (
                Observation::Unreadable { why: "no tool".into() },
                Limit::default(),
                false,
                Verdict::Inconclusive,
            ),
            (Observation::Absent { why: "no EDAC".into() }, Limit::default(), false, Verdict::Skipped),
            (Observation::Absent { why: "no EDAC".into() }, Limit::default(), true, Verdict::Inconclusive),
            (Observation::Missing { what: "disk S1".into() }, Limit::default(), false, Verdict::Fail),
            (Observation::Unexpected { what: "disk S2".into() }, Limit::default(), false, Verdict::Warn),
        ] {
            assert_eq!(judge(&observed, &limit, required).0, verdict, "{observed:?} {limit:?} {required}");
        }
    }

    #[test]
    fn no_check_at_all_is_never_a_pass() {
        assert_eq!(judge_stage(&[], &[]).verdict, Verdict::Inconclusive);
    }

    #[test]
    fn a_stage_of_skipped_checks_is_skipped() {
        let absent = Observation::Absent { why: "no GPU".into() };
        let judged = judge_stage(&[], &[Check::of("gpus", None, absent, Limit::default())]);
        assert_eq!(judged.verdict, Verdict::Skipped);
    }

    #[test]
    fn the_plans_limit_beats_the_agents_and_its_word() {
        let mut check =
            Check::of("rate", Some("cpu"), Observation::measured(10.0, "ops/s"), Limit::default());
        assert_eq!(check.verdict, Verdict::Pass);
        check.verdict = Verdict::Pass;
        let judged = judge_stage(&[planned("rate", Limit::at_least(100.0))], &[check]);
        assert_eq!(judged.verdict, Verdict::Fail);
    }

    fn any_observation() -> impl Strategy<Value = Observation> {
        prop_oneof![
            any::<f64>().prop_map(|value| Observation::measured(value, "u")),
            "[a-c]{0,2}".prop_map(|text| Observation::Found { text }),
            Just(Observation::Unreadable { why: "w".into() }),
            Just(Observation::Absent { why: "w".into() }),
            Just(Observation::Missing { what: "w".into() }),
        ]
    }

    fn any_check() -> impl Strategy<Value = Check> {
        ("[a-c]", proptest::option::of("[xy]"), any_observation(), any::<bool>()).prop_map(
            |(name, component, observed, lies)| {
                let mut check = Check::of(&name, component.as_deref(), observed, Limit::default());
                if lies {
                    check.verdict = Verdict::Pass;
                }
                check
            },
        )
    }

    proptest! {
        #[test]
        fn a_stage_passes_only_when_every_planned_check_was_observed(
            reported in proptest::collection::vec(any_check(), 0..6),
            names in proptest::collection::vec("[a-d]", 0..4),
        ) {
            let plan: Vec<PlannedCheck> = names.iter().map(|name| planned(name, Limit::default())).collect();
            let judged = judge_stage(&plan, &reported);
            if judged.verdict.goes_on() {
                for planned in &plan {
                    prop_assert!(reported.iter().any(|check| check.name == planned.name));
                }
                let unread = |check: &Check| matches!(check.observed, Observation::Unreadable { .. });
                prop_assert!(!reported.iter().any(unread));
                prop_assert!(!judged.checks.is_empty());
            }
            // Judging what was judged changes nothing.
            prop_assert_eq!(judge_stage(&plan, &judged.checks), judged);
        }
    }
}
