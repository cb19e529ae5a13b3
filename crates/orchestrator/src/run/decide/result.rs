//! An agent reports an outcome (rule 2 of the design).

use groundcrew_protocol::check::{Check, Judged, Limit, Observation, Verdict, judge_stage};
use groundcrew_protocol::ids::{Attempt, Generation};
use groundcrew_protocol::plan::{REBOOTED_FOUND, names};
use groundcrew_protocol::report::said;
use groundcrew_protocol::spec_diff::spec_validate;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ResultAnswer, ResultRequest, Taken};

use super::step::{AGENT, ORCHESTRATOR, Step, cut};
use super::{Answer, Change, KeptResult, Refused, UnfitFor, heard, identity};
use crate::run::state::{Fate, HeldFor};

/// Decides a result.
pub(super) fn result(mut step: Step, request: &ResultRequest) -> Result<Change, Refused> {
    step.fence(request.claim)?;
    let (index, attempt) = place(&step, request)?;
    heard::end_silence(&mut step);
    let fate =
        step.run.stages[index].attempts.iter().find(|known| known.number == attempt).map(|known| known.fate);
    step.settle(&request.stage, attempt);
    let taken = match fate {
        Some(Fate::InFlight) if index == step.run.at => Taken::First,
        Some(Fate::Done(_)) => Taken::Repeated,
        Some(Fate::InFlight | Fate::Crashed | Fate::Cancelled | Fate::Replaced) | None => Taken::Late,
    };
    let judged = match taken {
        Taken::First => Some(take_first(&mut step, request)),
        Taken::Repeated => None,
        Taken::Late | Taken::Unknown(_) => {
            let text = format!(
                "{}: a result of attempt {attempt} came too late and is kept as evidence",
                request.stage
            );
            step.tell("late_result", AGENT, text);
            let last = step.run.stages[index].attempts.last().map_or(Attempt(0), |known| known.number);
            if index > step.run.at && attempt > last {
                step.give_up_ahead(index, attempt);
            }
            None
        }
    };
    step.keep(KeptResult { taken: taken.clone(), attempt, judged, own: Vec::new() });
    let (next_state, attempt, planned_checks) = step.standing_for_agent();
    let answer = ResultAnswer { taken, next_state, attempt, planned_checks, generation: Generation(0) };
    Ok(step.done(Answer::Result(answer)))
}

/// The stage's index and the attempt that the result is for.
fn place(step: &Step, request: &ResultRequest) -> Result<(usize, Attempt), Refused> {
    let run = &step.run;
    let Some(index) = run.stages.iter().position(|stage| stage.spec.name == request.stage) else {
        let text = format!("result: run {} has no stage {}", run.id, request.stage);
        return Err(Refused::unfit(UnfitFor::NoSuchStage, text));
    };
    if request.stage.is_orchestrators() {
        let text = format!("result: {} is the orchestrator's own stage", request.stage);
        return Err(Refused::unfit(UnfitFor::OwnStage, text));
    }
    let last = run.stages[index].attempts_made;
    let latest = run.stages[index].attempts.last().map_or(Attempt(0), |attempt| attempt.number);
    let speaks_1 = run.claim.as_ref().is_some_and(|claim| claim.protocol == 1);
    let attempt = if speaks_1 && request.attempt == Attempt(0) { latest } else { request.attempt };
    if attempt == Attempt(0) || attempt > last {
        let text =
            format!("result: attempt {attempt} of {} was never given out, the last is {last}", request.stage);
        return Err(Refused::unfit(UnfitFor::NoSuchAttempt, text));
    }
    Ok((index, attempt))
}

/// Judges the first result of the attempt in flight, and goes on or holds.
fn take_first(step: &mut Step, request: &ResultRequest) -> Judged {
    let mut reported = request.checks.clone();
    reported.retain(|check| !says_that_it_rebooted(check));
    if step.run.claim.as_ref().is_some_and(|claim| claim.protocol == 1) {
        reported.push(word_of(request));
    }
    let mut judged = judge_stage(&step.run.plan, &reported);
    for check in checks_beside(step) {
        // That the machine is the right one makes no pass of a stage in which nothing was tested.
        if !check.verdict.goes_on() {
            judged.verdict = Verdict::over([judged.verdict, check.verdict]);
        }
        judged.checks.push(check);
    }
    if request.stage == Stage::Inventory {
        step.run.spec = Some(spec_validate(&step.run.profile.expected, request.inventory.as_deref()));
    }
    let verdict = judged.verdict;
    step.close_attempt(Fate::Done(verdict));
    let stage = &mut step.run.stages[step.run.at];
    stage.verdict = Some(verdict);
    if let (Some(attempt), Some((began, ended))) = (stage.attempts.last_mut(), request.own_times()) {
        attempt.took_ms = u64::try_from(ended.0.saturating_sub(began.0)).ok();
    }
    let summary: String = request.summary.chars().take(200).collect();
    let words = if summary.is_empty() { String::new() } else { format!(" ({summary})") };
    step.tell("result", AGENT, format!("{}: {verdict}{words}", request.stage));
    if request.passed != verdict.goes_on() {
        let word = if request.passed { "passed" } else { "failed" };
        let text = format!("{}: the agent's word is {word}, the verdict is {verdict}", request.stage);
        step.tell("verdict_differs", ORCHESTRATOR, text);
    }
    if verdict.goes_on() {
        step.go_on();
    } else {
        step.hold(HeldFor::Verdict { verdict, what: what_holds(&judged) }, ORCHESTRATOR);
    }
    judged
}

/// That a machine rebooted its next claim proves, and no agent's word: without it the check is still owed.
fn says_that_it_rebooted(check: &Check) -> bool {
    let proof = Observation::Found { text: REBOOTED_FOUND.to_owned() };
    check.name == names::REBOOTED && check.observed == proof
}

fn word_of(request: &ResultRequest) -> Check {
    let text = if request.passed { "passed" } else { "failed" }.to_owned();
    let check = Check::of(names::AGENT_WORD, None, Observation::Found { text }, Limit::equal_to("passed"));
    check.with_evidence(format!("{} {}", request.summary, request.message).trim().to_owned())
}

/// What the orchestrator itself checks in a stage, beside the plan.
pub(super) fn checks_beside(step: &Step) -> impl Iterator<Item = Check> {
    identity::check(step).into_iter().chain(reset_check(step))
}

/// A stage in which the machine was reset cannot pass without an override.
fn reset_check(step: &Step) -> Option<Check> {
    let resets = &step.run.stage().resets;
    let last = resets.last()?;
    let observed = Observation::measured(resets.len() as f64, "resets");
    let evidence = format!("attempt {}: boot id {} became {}", last.attempt, last.from, last.to);
    Some(Check::of(names::UNEXPECTED_RESET, None, observed, Limit::at_most(0.0)).with_evidence(evidence))
}

/// The checks that keep a stage from passing, in a sentence of bounded length.
pub(super) fn what_holds(judged: &Judged) -> String {
    const NAMED_MAX: usize = 5;
    const HOLDING_CHARS_MAX: usize = 400;
    let holding: Vec<String> = judged
        .checks
        .iter()
        .filter(|check| !check.verdict.goes_on())
        .map(|check| cut(&said(check), HOLDING_CHARS_MAX))
        .collect();
    match holding.len() {
        0 => "nothing was checked".to_owned(),
        count if count > NAMED_MAX => {
            format!("{}; and {} more", holding[..NAMED_MAX].join("; "), count - NAMED_MAX)
        }
        _ => holding.join("; "),
    }
}
