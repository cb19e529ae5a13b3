//! The current claim spoke: directives, intents, a hold.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::wire::{Command, DirectiveOutcome, DirectiveReport, Intent, IntentKind};

use super::step::{AGENT, ORCHESTRATOR, Step, cut};
use super::{Answer, Change, HoldSaid, OrderFor, Refused, UnfitFor, drain, runtime, wipe};
use crate::run::state::{Directive, Fate, HeldFor, HoldKey, IntentRecord, Standing, WaitFor};

/// Host keys that are kept of a machine, and the length of each.
const HOST_KEYS_MAX: usize = 8;
const HOST_KEY_BYTES_MAX: usize = 2_048;
/// Longest name of a user: useradd(8) takes 32 characters, directories of users more.
const USER_BYTES_MAX: usize = 64;
/// Characters that are kept of an agent's reason for not doing a directive.
const REASON_CHARS_MAX: usize = 500;
/// Characters that are kept of an outcome that this version does not know.
const WORD_CHARS_MAX: usize = 64;

/// What was said of its end is taken back, and a hold for silence ends by itself when the current claim speaks again; the attempt in flight stands.
pub(super) fn end_silence(step: &mut Step) {
    runtime::speaks(step);
    let silent = matches!(&step.run.standing, Standing::Held { why: HeldFor::Silence { .. }, .. });
    if silent {
        step.run.standing = Standing::Walking;
        step.wait_for_result_again();
        step.tell("resumed", AGENT, "the agent speaks again; the hold for its silence is over".to_owned());
    }
}

/// Takes in what became of directives.
pub(super) fn heard(step: &mut Step, reports: &[DirectiveReport]) {
    end_silence(step);
    for report in reports {
        take_report(step, report);
    }
    step.end_farewell();
}

fn take_report(step: &mut Step, report: &DirectiveReport) {
    let Some(index) = step.run.directives.iter().position(|directive| directive.id == report.id) else {
        return; // Its outcome was taken before, or a new claim made it moot.
    };
    match &report.outcome {
        DirectiveOutcome::Doing => {
            step.run.directives[index].said = Some(DirectiveOutcome::Doing);
            begins(step, index);
        }
        DirectiveOutcome::Unknown(word) => {
            let word = cut(word, WORD_CHARS_MAX);
            step.run.directives[index].said = Some(DirectiveOutcome::Unknown(word));
        }
        DirectiveOutcome::Done => {
            begins(step, index);
            let directive = step.run.directives.remove(index);
            if drain::done(step, &directive) {
                return; // It holds as it did: that was asked for to keep it alive.
            }
            step.tell("directive_done", AGENT, format!("{} is done", directive.command));
        }
        DirectiveOutcome::Refused | DirectiveOutcome::TooLate => {
            let directive = step.run.directives.remove(index);
            let reason = cut(&report.reason, REASON_CHARS_MAX);
            drain::refused(step, &directive, &reason);
            let text = format!("{}: {} ({reason})", directive.command, report.outcome);
            step.tell("directive_refused", AGENT, text.clone());
            // Nobody makes the attempt that was ordered: that must not look like a stage on its way.
            if makes_attempt(&directive) && is_open(step, &directive) {
                step.close_attempt(Fate::Replaced);
                step.hold(HeldFor::Verdict { verdict: Verdict::Inconclusive, what: text }, ORCHESTRATOR);
            }
        }
    }
}

fn makes_attempt(directive: &Directive) -> bool {
    matches!(directive.command, Command::RetryStage | Command::Continue)
}

fn is_open(step: &Step, directive: &Directive) -> bool {
    directive.stage.as_ref() == Some(&step.run.stage().spec.name)
        && step.open_attempt() == Some(directive.attempt)
}

/// The agent makes the attempt that was ordered: it has not gone down for what it meant to do in one before.
fn begins(step: &mut Step, index: usize) {
    let directive = &step.run.directives[index];
    let is_of_another = step
        .run
        .intent
        .as_ref()
        .is_some_and(|intent| intent.stage != directive.stage || intent.attempt != directive.attempt);
    if makes_attempt(directive) && is_of_another {
        step.run.intent = None;
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
                return Err(Refused::unfit(UnfitFor::NotInFlight, text));
            }
        }
        None if intent.kind == IntentKind::PowerOff && step.run.ended().is_some() => {}
        None => {
            let text = format!(
                "intent: a {} outside a stage is for the power-off after the end of a run",
                intent.kind
            );
            return Err(Refused::unfit(UnfitFor::OutsideStage, text));
        }
    }
    match &intent.kind {
        IntentKind::Unknown(word) => {
            let text = format!("intent: found kind {word:?}, expected reboot, poweroff or wipe");
            return Err(Refused::unfit(UnfitFor::UnknownIntent, text));
        }
        IntentKind::Wipe => wipe::allowed(&step, open.as_ref(), intent)?,
        IntentKind::Reboot | IntentKind::PowerOff => {}
    }
    // A reboot is proved against the boot of the claim: one that names another boot could never be.
    let boot = step.run.claim.as_ref().and_then(|claim| claim.boot.as_ref());
    if let Some(boot) = boot.filter(|boot| **boot != intent.boot_id) {
        let text = format!(
            "intent: found boot id {}, expected {boot}, under which claim {} was made",
            intent.boot_id, intent.claim
        );
        return Err(Refused::unfit(UnfitFor::OtherBoot, text));
    }
    record_intent(&mut step, intent);
    Ok(step.done(Answer::Done))
}

/// Keeps an intent. One that is said again, because its answer was lost, prolongs nothing.
fn record_intent(step: &mut Step, intent: &Intent) {
    let is_same = |known: &IntentRecord| {
        known.kind == intent.kind
            && known.stage == intent.stage
            && known.attempt == intent.attempt
            && known.boot == intent.boot_id
    };
    let reboots = intent.stage.is_some() && intent.kind == IntentKind::Reboot;
    let awaits = step.run.wait.as_ref().is_some_and(|wait| wait.what == WaitFor::Reboot);
    if reboots && !awaits {
        step.wait(WaitFor::Reboot, step.run.profile.limits.reboot);
    }
    if let Some(known) = step.run.intent.as_mut().filter(|known| is_same(known)) {
        known.asks = known.asks.saturating_add(1);
        return;
    }
    step.run.intent = Some(IntentRecord {
        kind: intent.kind.clone(),
        stage: intent.stage.clone(),
        attempt: intent.attempt,
        boot: intent.boot_id.clone(),
        at: step.now.wall,
        asks: 1,
        missed: 0,
    });
    let disks: String = intent.disks.iter().map(|disk| format!(" {disk}")).collect();
    let text = format!("the agent is about to {}{disks} under boot id {}", intent.kind, intent.boot_id);
    step.tell("intent", AGENT, text);
}

/// An agent in a hold gives its host keys, and may bring the key that was made for it.
pub(super) fn hold(mut step: Step, said: &HoldSaid, key: Option<&HoldKey>) -> Result<Change, Refused> {
    end_silence(&mut step);
    if !matches!(step.run.standing, Standing::Held { .. }) {
        let text = format!("hold: run {} is {}, not held", step.run.id, step.run.state());
        return Err(Refused::order(OrderFor::AgentHoldsAlone, text));
    }
    let fits = |key: &&String| key.len() <= HOST_KEY_BYTES_MAX && !key.chars().any(char::is_control);
    let keys: Vec<String> = said.host_keys.iter().filter(fits).take(HOST_KEYS_MAX).cloned().collect();
    let user = said.user.clone().filter(|name| is_user(name));
    if step.run.host_keys != keys || step.run.hold_user != user {
        (step.run.host_keys, step.run.hold_user) = (keys, user);
        step.tell("hold_entered", AGENT, "the agent waits for an operator".to_owned());
    }
    match (&step.run.hold_key, key) {
        // The first that was made stands, however often it is asked for.
        (_, None) | (Some(HoldKey::Made { .. }), Some(_)) => {}
        (_, Some(made @ HoldKey::Made { .. })) => {
            step.run.hold_key = Some(made.clone());
            step.tell("hold_key_made", ORCHESTRATOR, "an SSH key was made for this hold alone".to_owned());
        }
        (known, Some(failed @ HoldKey::Failed { why })) => {
            if known.as_ref() != Some(failed) {
                let text = format!("no SSH key could be made for this hold: {why}");
                step.run.hold_key = Some(failed.clone());
                step.tell("hold_key_failed", ORCHESTRATOR, text);
            }
        }
    }
    Ok(step.done(Answer::Done))
}

/// A name that login programs take, and that no option of theirs begins with.
fn is_user(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=USER_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-')
}
