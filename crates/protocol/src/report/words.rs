//! How a stage came out, in words for people: agent and orchestrator say it alike.

use crate::check::{Check, Observation, Verdict};

/// Longest message, in characters; each check has its reason besides.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// `fail: 1 fail, 3 pass, 1 skipped`.
pub fn summary(verdict: Verdict, checks: &[Check]) -> String {
    let order = [Verdict::Fail, Verdict::Inconclusive, Verdict::Warn, Verdict::Pass, Verdict::Skipped];
    let counted = order.into_iter().filter_map(|verdict| {
        let count = checks.iter().filter(|check| check.verdict == verdict).count();
        (count > 0).then(|| format!("{count} {verdict}"))
    });
    format!("{verdict}: {}", counted.collect::<Vec<_>>().join(", "))
}

/// The reasons why a run may not go on; checks that share one are named together. Empty where it may.
pub fn message(checks: &[Check]) -> String {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for check in checks.iter().filter(|check| !check.verdict.goes_on()) {
        let label = label(check);
        match reasons.iter_mut().find(|(reason, _)| *reason == check.reason) {
            Some((_, names)) => names.extend(label),
            None => reasons.push((&check.reason, label.into_iter().collect())),
        }
    }
    let part = |(reason, names): &(&str, Vec<String>)| match names.as_slice() {
        [] => (*reason).to_owned(),
        names => format!("{}: {reason}", names.join(", ")),
    };
    let message = reasons.iter().map(part).collect::<Vec<_>>().join("; ");
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// A check and its reason.
pub fn said(check: &Check) -> String {
    match label(check) {
        Some(label) => format!("{label}: {}", check.reason),
        None => check.reason.clone(),
    }
}

/// `rate`, or `rate of cpu0`.
pub fn name(check: &Check) -> String {
    match &check.component {
        Some(component) => format!("{} of {component}", check.name),
        None => check.name.clone(),
    }
}

/// What stands before the reason; nothing where that names the component itself, as `disk S1 is missing` does.
fn label(check: &Check) -> Option<String> {
    let names_it = match (&check.observed, &check.component) {
        (Observation::Missing { what } | Observation::Unexpected { what }, Some(component)) => {
            what.contains(component.as_str())
        }
        (Observation::Missing { .. } | Observation::Unexpected { .. }, None)
        | (
            Observation::Measured { .. }
            | Observation::Found { .. }
            | Observation::Unreadable { .. }
            | Observation::Absent { .. },
            _,
        ) => false,
    };
    (!names_it).then(|| name(check))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Limit;

    #[test]
    fn what_is_missing_is_named_once_and_what_shares_a_reason_together() {
        let missing = |what: &str| Observation::Missing { what: what.to_owned() };
        let disk = Check::of("disk", Some("S1"), missing("disk S1"), Limit::default());
        let dimms = Check::of("dimm.speed", None, missing("a memory module"), Limit::default());
        let unread =
            |name| Check::of(name, None, Observation::Unreadable { why: "no tool".into() }, Limit::default());
        let passed = Check::of("cpu", None, Observation::Found { text: "x".into() }, Limit::default());
        let checks = [disk, dimms, unread("rate"), unread("duration"), passed];
        assert_eq!(
            message(&checks),
            "disk S1 is missing; dimm.speed: a memory module is missing; rate, duration: no tool"
        );
        assert_eq!(said(&checks[0]), "disk S1 is missing");
        assert_eq!(summary(Verdict::Fail, &checks), "fail: 2 fail, 2 inconclusive, 1 pass");
        assert_eq!(message(&checks[4..]), "");
    }
}
