//! The current claim spoke: directives, intents, a hold.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::wire::{Command, DirectiveOutcome, DirectiveReport, Intent, IntentKind};

use super::step::{AGENT, ORCHESTRATOR, Step};
use super::{Answer, Change, Refused};
use crate::run::state::{Fate, HeldFor, IntentRecord, Standing, WaitFor};

/// Host keys that are kept of a machine, and the length of each.
const HOST_KEYS_MAX: usize = 8;
const HOST_KEY_BYTES_MAX: usize = 2_048;

/// A hold for silence ends by itself when the current claim speaks again; the attempt in flight stands.
pub(super) fn end_silence(step: &mut Step) {
    let silent = matches!(&step.run.standing, Standing::Held { why: HeldFor::Silence { .. }, .. });
    if silent {
        step.run.standing = Standing::Walking;
        step.wait_for_result();
        step.tell("resumed", AGENT, "the agent speaks again; the hold for its silence is over".to_owned());
    }
}

/// Takes in what became of directives.
pub(super) fn heard(step: &mut Step, reports: &[DirectiveReport]) {
    end_silence(step);
    for report in reports {
        take_report(step, report);
    }
    let bade_farewell = step.run.wait.as_ref().is_some_and(|wait| wait.what == WaitFor::Farewell);
    if bade_farewell && step.run.directives.is_empty() {
        step.run.wait = None;
    }
}

fn take_report(step: &mut Step, report: &DirectiveReport) {
    let Some(index) = step.run.directives.iter().position(|directive| directive.id == report.id) else {
        return; // Its outcome was taken before, or a new claim made it moot.
    };
    match &report.outcome {
        DirectiveOutcome::Doing | DirectiveOutcome::Unknown(_) => {
            step.run.directives[index].said = Some(report.outcome.clone());
        }
        DirectiveOutcome::Done => {
            let directive = step.run.directives.remove(index);
            step.tell("directive_done", AGENT, format!("{} is done", directive.command));
        }
        DirectiveOutcome::Refused | DirectiveOutcome::TooLate => {
            let directive = step.run.directives.remove(index);
            let reason: String = report.reason.chars().take(500).collect();
            let text = format!("{}: {} ({reason})", directive.command, report.outcome);
            step.tell("directive_refused", AGENT, text.clone());
            let makes_attempt = matches!(directive.command, Command::RetryStage | Command::Continue);
            let open =
                step.run.attempt().filter(|attempt| attempt.fate.is_open()).map(|attempt| attempt.number);
            // Nobody makes the attempt that was ordered: that must not look like a stage on its way.
            if makes_attempt && open == Some(directive.attempt) {
                step.close_attempt(Fate::Replaced);
                step.hold(HeldFor::Verdict { verdict: Verdict::Inconclusive, what: text }, ORCHESTRATOR);
            }
        }
    }
}

/// The agent is about to do what cannot be taken back (rule 4 of the design).
pub(super) fn intent(mut step: Step, intent: &Intent) -> Result<Change, Refused> {
    step.fence(intent.claim)?;
    end_silence(&mut step);
    let open = step.run.attempt().filter(|attempt| attempt.fate.is_open()).cloned();
    let walking = matches!(step.run.standing, Standing::Walking);
    let name = step.run.stage().spec.name.clone();
    match &intent.stage {
        Some(stage) => {
            let fits =
                walking && *stage == name && open.as_ref().is_some_and(|open| open.number == intent.attempt);
            if !fits {
                let text = format!(
                    "intent: attempt {} of {stage} is not in flight in run {}",
                    intent.attempt, step.run.id
                );
                return Err(Refused::Unfit(text));
            }
        }
        None if intent.kind == IntentKind::PowerOff && step.run.ended().is_some() => {}
        None => {
            let text = format!(
                "intent: a {} outside a stage is for the power-off after the end of a run",
                intent.kind
            );
            return Err(Refused::Unfit(text));
        }
    }
    match &intent.kind {
        IntentKind::Wipe if !open.is_some_and(|open| open.flags.wipe) => {
            let text = format!("intent: no wipe override is armed for attempt {} of {name}", intent.attempt);
            return Err(Refused::Unfit(text));
        }
        IntentKind::Unknown(word) => {
            return Err(Refused::Unfit(format!(
                "intent: found kind {word:?}, expected reboot, poweroff or wipe"
            )));
        }
        IntentKind::Reboot | IntentKind::PowerOff | IntentKind::Wipe => {}
    }
    record_intent(&mut step, intent);
    Ok(step.done(Answer::Done))
}

fn record_intent(step: &mut Step, intent: &Intent) {
    let before =
        step.run.intent.as_ref().filter(|known| known.attempt == intent.attempt && known.kind == intent.kind);
    let asks = before.map_or(0, |known| known.asks).saturating_add(1);
    step.run.intent = Some(IntentRecord {
        kind: intent.kind.clone(),
        stage: intent.stage.clone(),
        attempt: intent.attempt,
        boot: intent.boot_id.clone(),
        at: step.now.wall,
        asks,
    });
    if intent.stage.is_some() && intent.kind == IntentKind::Reboot {
        step.wait(WaitFor::Reboot, step.run.profile.limits.reboot);
    }
    step.tell(
        "intent",
        AGENT,
        format!("the agent is about to {} under boot id {}", intent.kind, intent.boot_id),
    );
}

/// An agent in a hold gives its host keys.
pub(super) fn hold(mut step: Step, host_keys: &[String]) -> Result<Change, Refused> {
    if !matches!(step.run.standing, Standing::Held { .. }) {
        return Err(Refused::Order(format!("hold: run {} is {}, not held", step.run.id, step.run.state())));
    }
    let fits = |key: &&String| key.len() <= HOST_KEY_BYTES_MAX && !key.chars().any(char::is_control);
    let keys: Vec<String> = host_keys.iter().filter(fits).take(HOST_KEYS_MAX).cloned().collect();
    if step.run.host_keys != keys {
        step.run.host_keys = keys;
        step.tell("hold_entered", AGENT, "the agent waits for an operator".to_owned());
    }
    Ok(step.done(Answer::Done))
}
