//! How a stage came out: its checks judged, and the words for it.

use groundcrew_protocol::check::{Check, Observation, PlannedCheck, Verdict, judge_stage};
use groundcrew_protocol::inventory::Inventory;
use groundcrew_protocol::limits::{CHECK_TEXT_BYTES_MAX, CHECKS_MAX};
use groundcrew_protocol::order;
use groundcrew_protocol::report;
use groundcrew_protocol::wire::LogLevel;

use super::Done;
use crate::process::tool::Stopped;

/// Summary of a stage that an operator cancelled.
pub(super) const CANCELLED_SUMMARY: &str = "cancelled";
/// Message of a stage that an operator cancelled.
pub(super) const CANCELLED_MESSAGE: &str = "stage cancelled by operator";
/// Longest message; each check has its reason besides.
const MESSAGE_BYTES_MAX: usize = 2048;
/// Longest text of an observation: the reason quotes it and must itself stay under its limit.
const OBSERVED_BYTES_MAX: usize = CHECK_TEXT_BYTES_MAX / 4;

/// How a stage came out.
#[derive(Debug, Clone)]
pub struct StageOutcome {
    /// Its checks, judged by the plan; planned ones that nobody observed included.
    pub checks: Vec<Check>,
    /// The verdict over them.
    pub verdict: Verdict,
    /// In a few words.
    pub summary: String,
    /// What went wrong, where something did.
    pub message: String,
    /// The hardware, from the stage Inventory.
    pub inventory: Option<Box<Inventory>>,
    /// Somebody ended it before its time.
    pub cancelled: bool,
    /// The agent's own word: the run may go on.
    pub passed: bool,
    /// Raw output of tools, by name.
    pub artifacts: Vec<(String, Vec<u8>)>,
}

/// Judges what a stage did.
pub(super) fn judge(plan: &[PlannedCheck], mut done: Done) -> StageOutcome {
    bound(&mut done.checks);
    let judged = judge_stage(plan, &done.checks);
    let cancelled = done.stopped == Some(Stopped::Cancelled);
    let (summary, message) = if cancelled {
        (CANCELLED_SUMMARY.to_owned(), CANCELLED_MESSAGE.to_owned())
    } else {
        words(judged.verdict, &judged.checks)
    };
    StageOutcome {
        passed: judged.verdict.goes_on() && !cancelled,
        checks: judged.checks,
        verdict: judged.verdict,
        summary,
        message,
        inventory: done.inventory,
        cancelled,
        artifacts: done.artifacts,
    }
}

/// Cuts what a message could not carry. Checks that do not pass are kept before those that do.
fn bound(checks: &mut Vec<Check>) {
    if checks.len() > CHECKS_MAX {
        order::sort_by_key(checks, |check| check.verdict.goes_on());
        checks.truncate(CHECKS_MAX);
    }
    for check in checks {
        cut(&mut check.evidence, CHECK_TEXT_BYTES_MAX);
        cut(&mut check.reason, CHECK_TEXT_BYTES_MAX);
        match &mut check.observed {
            Observation::Measured { unit: text, .. }
            | Observation::Found { text }
            | Observation::Unreadable { why: text }
            | Observation::Absent { why: text }
            | Observation::Missing { what: text }
            | Observation::Unexpected { what: text } => cut(text, OBSERVED_BYTES_MAX),
        }
    }
}

/// Cuts a text at a character's edge.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    let edge = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(edge.unwrap_or(0));
}

/// Summary and message of a stage that was not cancelled.
pub(super) fn words(verdict: Verdict, checks: &[Check]) -> (String, String) {
    let mut message = report::message(checks);
    cut(&mut message, MESSAGE_BYTES_MAX);
    (report::summary(verdict, checks), message)
}

/// A check as a line of the log.
pub(super) fn line(check: &Check) -> String {
    let said = check.observed.describe();
    let reason = if check.reason.is_empty() || check.reason == said {
        String::new()
    } else {
        format!(" ({})", check.reason)
    };
    format!("{}: {}: {said}{reason}", check.verdict, report::name(check))
}

/// How much a verdict matters in a log.
pub(super) fn level(verdict: Verdict) -> LogLevel {
    match verdict {
        Verdict::Pass | Verdict::Skipped => LogLevel::Info,
        Verdict::Warn => LogLevel::Warn,
        Verdict::Inconclusive | Verdict::Fail => LogLevel::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundcrew_protocol::check::Limit;

    #[test]
    fn what_a_result_could_not_carry_is_cut() {
        let long = || "ü".repeat(CHECK_TEXT_BYTES_MAX);
        let found = Check::of("a", None, Observation::Found { text: long() }, Limit::default());
        let failed = Check::of("b", None, Observation::Missing { what: long() }, Limit::default());
        let mut checks = vec![found.with_evidence(long()); CHECKS_MAX];
        checks.push(failed);
        let outcome = judge(&[], Done { checks, ..Done::default() });
        assert_eq!((outcome.checks.len(), outcome.verdict), (CHECKS_MAX, Verdict::Fail));
        assert!(outcome.message.len() <= MESSAGE_BYTES_MAX);
        for check in &outcome.checks {
            assert!(check.evidence.len() <= CHECK_TEXT_BYTES_MAX);
            assert!(check.observed.describe().len() <= CHECK_TEXT_BYTES_MAX);
            assert!(check.reason.len() <= CHECK_TEXT_BYTES_MAX);
        }
    }

    #[test]
    fn a_text_is_cut_at_a_characters_edge() {
        for (bytes_max, kept) in [(0, ""), (1, ""), (2, "é"), (3, "é"), (4, "éé"), (9, "éé")] {
            let mut text = "éé".to_owned();
            cut(&mut text, bytes_max);
            assert_eq!(text, kept, "{bytes_max}");
        }
    }
}
