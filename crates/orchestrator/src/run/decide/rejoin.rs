//! A new claim meets the attempt in flight: what the agent still has of it, and what the machine went through.

use groundcrew_protocol::check::{Check, Judged, Limit, Observation, Verdict};
use groundcrew_protocol::ids::{Attempt, BootId};
use groundcrew_protocol::limits::{REBOOTS_MISSED_MAX, STOPS_MAX};
use groundcrew_protocol::plan::{REBOOTED_FOUND, names};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ClaimRequest, Command, IntentKind, StageAttempt};

use super::claim::may_have_booted;
use super::result::{checks_beside, what_holds};
use super::step::{AGENT, ORCHESTRATOR, Step};
use crate::run::state::{
    Claim, Directive, Fate, HeldFor, IntentRecord, RESETS_KEPT_MAX, Reset, Standing, WaitFor,
};

/// How far beyond the store's last attempt of a stage an agent's may be. After a restore it is a few; a number far
/// beyond would use up the numbers that are left.
const ATTEMPTS_AHEAD_MAX: u32 = 1_000;

/// Settles what the claim before left open. The new claim stands already.
pub(super) fn rejoin(step: &mut Step, old: Option<&Claim>, request: &ClaimRequest) {
    know_attempts(step, request);
    // Before boots are compared: a machine that was switched off and on in a hold has reset no stage, though an
    // operator ordered one meanwhile.
    drop_stale_directives(step, request);
    match compare_boots(step, old, request) {
        Boot::Proved => pass_interrupt(step, request),
        Boot::Same | Boot::Reset => {}
    }
    resume(step, request);
}

/// After a restore the agent may have made attempts that the store has forgotten: later ones get higher numbers,
/// and an outcome that it kept for one of them counts as that attempt's when the walk comes there.
fn know_attempts(step: &mut Step, request: &ClaimRequest) {
    for known in &request.started {
        if let Some(stage) = step.run.stages.iter_mut().find(|stage| stage.spec.name == known.stage) {
            let highest = stage.attempts_made.0.saturating_add(ATTEMPTS_AHEAD_MAX);
            if known.attempt > stage.attempts_made && known.attempt.0 <= highest {
                stage.attempts_made = known.attempt;
            }
        }
    }
    let at = step.run.at;
    let mut forgotten: Vec<StageAttempt> = step.run.stages[at..]
        .iter()
        .filter(|stage| !stage.spec.name.is_orchestrators())
        .filter_map(|stage| {
            let last = stage.attempts.last().map_or(Attempt(0), |attempt| attempt.number);
            let highest = Attempt(stage.attempts_made.0.saturating_add(ATTEMPTS_AHEAD_MAX));
            let entries = request.outbox.iter().filter(|entry| entry.stage == stage.spec.name);
            let attempt = entries.map(|entry| entry.attempt).filter(|n| *n > last && *n <= highest).max()?;
            Some(StageAttempt { stage: stage.spec.name.clone(), attempt })
        })
        .collect();
    let here = step.run.stage().spec.name.clone();
    if step.is_on_its_way()
        && let Some(index) = forgotten.iter().position(|known| known.stage == here)
    {
        let known = forgotten.remove(index);
        step.know_again(known.attempt);
    }
    forgotten.retain(|known| known.stage != here);
    step.run.offered = if step.run.ended().is_some() { Vec::new() } else { forgotten };
}

/// At a new claim the state itself says what to do: what ordered it for an attempt is past.
fn drop_stale_directives(step: &mut Step, request: &ClaimRequest) {
    let ended_here = step.run.ended_boot().is_some() && step.run.ended_boot() == request.boot_id.as_ref();
    let has_ended = step.run.ended().is_some();
    // On another boot than the one under which the run ended nothing of it is left to end, and a machine that
    // somebody switched on by hand must not be switched off.
    let is_past = |directive: &Directive| match directive.command {
        Command::CancelStage | Command::RetryStage | Command::Continue => true,
        Command::Abort | Command::Shutdown | Command::Release => has_ended && !ended_here,
        Command::Drain | Command::Undrain | Command::Unknown(_) => false,
    };
    let (past, kept): (Vec<Directive>, Vec<Directive>) =
        std::mem::take(&mut step.run.directives).into_iter().partition(is_past);
    step.run.directives = kept;
    for directive in &past {
        let text = format!("{}: a new claim makes it moot", directive.command);
        step.tell("directive_too_late", ORCHESTRATOR, text);
    }
    step.end_farewell();
    // An attempt that was ordered of an agent which never heard of it was not begun: its loss is no crash.
    let name = step.run.stage().spec.name.clone();
    let Some(open) = step.open_attempt() else {
        return;
    };
    let is_unheard = past.iter().any(|directive| {
        directive.command != Command::CancelStage
            && directive.stage.as_ref() == Some(&name)
            && directive.attempt == open
            && directive.said.is_none()
    });
    let attempt = StageAttempt { stage: name.clone(), attempt: open };
    // An intent of it is a word of its agent's too, and outlives a home that the reboot takes with it.
    let has_intent = step
        .run
        .intent
        .as_ref()
        .is_some_and(|intent| intent.stage.as_ref() == Some(&name) && intent.attempt == open);
    let was_begun = has_intent
        || request.started.contains(&attempt)
        || request.in_flight.as_ref() == Some(&attempt)
        || holds_outcome(request, &name, open);
    if is_unheard && !was_begun {
        step.close_attempt(Fate::Replaced);
    }
}

/// How the boot of a claim compares with the one before.
enum Boot {
    /// The same, or nobody can tell.
    Same,
    /// Another, after a reboot that was asked for.
    Proved,
    /// Another, and nobody asked for it.
    Reset,
}

fn compare_boots(step: &mut Step, old: Option<&Claim>, request: &ClaimRequest) -> Boot {
    let intent = step.run.intent.clone();
    let before =
        old.and_then(|claim| claim.boot.clone()).or(intent.as_ref().map(|intent| intent.boot.clone()));
    let (Some(from), Some(to)) = (before, request.boot_id.clone()) else {
        return Boot::Same;
    };
    if from == to || old.is_some_and(|claim| !may_have_booted(&claim.machine, request)) {
        return Boot::Same;
    }
    let text = format!("the boot id went from {from} to {to}");
    match intent.filter(|intent| intent.boot == from).map(|intent| intent.kind) {
        Some(IntentKind::Reboot) => {
            step.tell("reboot_proved", AGENT, format!("{text}, as was asked for"));
            Boot::Proved
        }
        Some(IntentKind::PowerOff) => {
            step.run.intent = None;
            step.tell("power_cycle_seen", AGENT, format!("{text}, after a power-off that was asked for"));
            Boot::Same
        }
        Some(IntentKind::Wipe | IntentKind::Unknown(_)) | None if step.run.restored => {
            step.tell("reset", AGENT, format!("{text}; whether that was asked for went with the restore"));
            Boot::Same
        }
        Some(IntentKind::Wipe | IntentKind::Unknown(_)) | None if is_unbegun(step, request) => {
            let text = format!("{text}, while the node was drained and the stage not begun");
            step.tell("reset", AGENT, text);
            Boot::Same
        }
        Some(IntentKind::Wipe | IntentKind::Unknown(_)) | None => {
            note_reset(step, from, to);
            Boot::Reset
        }
    }
}

/// True where the attempt in flight waited for the end of a drain, and the agent has not begun it since.
fn is_unbegun(step: &Step, request: &ClaimRequest) -> bool {
    let waits = step.run.wait.as_ref().is_some_and(|wait| wait.what == WaitFor::Drain);
    let name = &step.run.stage().spec.name;
    let open = step.open_attempt().map(|attempt| StageAttempt { stage: name.clone(), attempt });
    let is_begun = |open: &StageAttempt| {
        let outcome = holds_outcome(request, name, open.attempt);
        outcome || request.started.contains(open) || request.in_flight.as_ref() == Some(open)
    };
    waits && open.is_some_and(|open| !is_begun(&open))
}

/// A reset that nobody asked for is a failed check of the attempt in flight.
fn note_reset(step: &mut Step, from: BootId, to: BootId) {
    let Some(attempt) = step.open_attempt() else {
        let text = format!("the boot id went from {from} to {to}, with no stage in flight");
        return step.tell("reset", AGENT, text);
    };
    let text = format!("the boot id went from {from} to {to} in attempt {attempt}, and nobody asked for it");
    let seen = step.now.wall;
    let resets = &mut step.run.stages[step.run.at].resets;
    if resets.len() < RESETS_KEPT_MAX {
        resets.push(Reset { attempt, from, to, seen });
    }
    step.tell("unexpected_reset", AGENT, text);
}

/// A reboot that an interrupt asked for was seen: that is the interrupt's outcome, unless the agent has kept one.
fn pass_interrupt(step: &mut Step, request: &ClaimRequest) {
    let Some(intent) = step.run.intent.take() else {
        return;
    };
    let name = step.run.stage().spec.name.clone();
    let is_current = intent.stage.as_ref() == Some(&name) && step.open_attempt() == Some(intent.attempt);
    if !is_current || !name.is_interrupt() || holds_outcome(request, &name, intent.attempt) {
        return;
    }
    let observed = Observation::Found { text: REBOOTED_FOUND.to_owned() };
    let mut checks = vec![Check::of(names::REBOOTED, None, observed, Limit::equal_to(REBOOTED_FOUND))];
    checks.extend(checks_beside(step));
    let verdict = Verdict::over(checks.iter().map(|check| check.verdict));
    let judged = Judged { verdict, checks };
    let what = what_holds(&judged);
    step.close_attempt(Fate::Done(verdict));
    step.run.stages[step.run.at].verdict = Some(verdict);
    step.tell("result", ORCHESTRATOR, format!("{name}: {verdict}, by the reboot that was seen"));
    step.own.push((name, intent.attempt, judged));
    if verdict.goes_on() {
        step.go_on();
    } else {
        step.hold(HeldFor::Verdict { verdict, what }, ORCHESTRATOR);
    }
}

/// The reboot for which the interrupt's open attempt has asked, where the agent is back under the very boot that was to end.
fn missed_reboot(step: &Step, request: &ClaimRequest) -> Option<IntentRecord> {
    let name = &step.run.stage().spec.name;
    let intent = step.run.intent.as_ref().filter(|intent| {
        intent.kind == IntentKind::Reboot
            && intent.stage.as_ref() == Some(name)
            && Some(intent.attempt) == step.open_attempt()
            && Some(&intent.boot) == request.boot_id.as_ref()
    });
    intent.filter(|_| name.is_interrupt()).cloned()
}

/// Tells the agent to ask for the reboot again, by another attempt. A second request under one boot cannot reboot twice; what
/// was asked for before may yet come, and then counts: the intent goes over to the new attempt, and so does its deadline.
fn ask_again(step: &mut Step, intent: IntentRecord) {
    let name = step.run.stage().spec.name.clone();
    let (before, boot, count) = (intent.attempt, intent.boot.clone(), intent.missed.saturating_add(1));
    step.close_attempt(Fate::Replaced);
    let text = format!(
        "{name}: the agent is back under boot id {boot}, under which attempt {before} asked for the reboot ({count} of at \
         most {REBOOTS_MISSED_MAX} times)"
    );
    step.tell("reboot_missed", AGENT, text);
    if count >= REBOOTS_MISSED_MAX {
        return step.hold(HeldFor::RebootsMissed { count }, ORCHESTRATOR);
    }
    let wait = step.run.wait.take().filter(|wait| wait.what == WaitFor::Reboot);
    step.give_attempt();
    if let (Some(attempt), Some(wait)) = (step.open_attempt(), wait) {
        step.run.intent = Some(IntentRecord { attempt, missed: count, asks: 0, ..intent });
        step.run.wait = Some(wait);
    }
}

/// Somebody stopped the agent, in order: nothing says that the stage or the machine cannot bear another attempt. But a stage
/// that restarts services or runs an operator's programs may be what stops the agent, and would do so for ever.
fn stopped(step: &mut Step, name: &Stage, attempt: Attempt) {
    step.close_attempt(Fate::Replaced);
    step.tell("stopped", AGENT, format!("{name}: the agent was stopped in order in attempt {attempt}"));
    let may_stop_it = name.listed().is_some();
    let stage = &mut step.run.stages[step.run.at];
    stage.stops = stage.stops.saturating_add(u32::from(may_stop_it));
    let count = stage.stops;
    if count >= STOPS_MAX {
        step.hold(HeldFor::Stopped { count }, ORCHESTRATOR);
    } else {
        step.give_attempt();
    }
}

fn holds_outcome(request: &ClaimRequest, stage: &Stage, attempt: Attempt) -> bool {
    request.outbox.iter().any(|entry| entry.stage == *stage && entry.attempt == attempt)
}

/// Goes on from where the run stands.
fn resume(step: &mut Step, request: &ClaimRequest) {
    match &step.run.standing {
        Standing::Held { why: HeldFor::Silence { .. }, .. } => {
            step.run.standing = Standing::Walking;
            step.tell("resumed", AGENT, "the agent is back; the hold for its silence is over".to_owned());
        }
        Standing::Held { .. } | Standing::Completed { .. } | Standing::Cancelled { .. } => return,
        Standing::Walking => {}
    }
    let name = step.run.stage().spec.name.clone();
    let Some(open) = step.open_attempt() else {
        return step.give_attempt();
    };
    let going_on = request.in_flight == Some(StageAttempt { stage: name.clone(), attempt: open });
    if holds_outcome(request, &name, open) || going_on {
        return step.wait_for_result_again();
    }
    // Given out in the very decision that made this claim, after a proved reboot.
    let claim = step.run.claims;
    if step.run.attempt().is_some_and(|attempt| attempt.claim == claim) {
        return;
    }
    if is_unbegun(step, request) {
        // It waited for the end of a drain, and was never begun: its loss is no crash.
        step.close_attempt(Fate::Replaced);
        return step.give_attempt();
    }
    if step.run.restored {
        // What the agent did since the backup is forgotten here: that it comes without this attempt is no crash.
        step.close_attempt(Fate::Replaced);
        return step.give_attempt();
    }
    if let Some(missed) = missed_reboot(step, request) {
        return ask_again(step, missed);
    }
    if request.stopped == Some(StageAttempt { stage: name.clone(), attempt: open }) {
        return stopped(step, &name, open);
    }
    step.close_attempt(Fate::Crashed);
    let stage = &mut step.run.stages[step.run.at];
    stage.crashes = stage.crashes.saturating_add(1);
    let count = stage.crashes;
    step.tell("crashed", AGENT, format!("{name}: the agent came back without an outcome of attempt {open}"));
    if count >= step.run.profile.limits.crashes {
        step.hold(HeldFor::Crashes { count }, ORCHESTRATOR);
    } else {
        step.give_attempt();
    }
}
