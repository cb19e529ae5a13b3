//! What a heartbeat is answered, from where the run stands. Pure.

use groundcrew_protocol::ids::{Generation, Sha256Hex};
use groundcrew_protocol::wire::{Command, HeartbeatAnswer, OverrideFlags};

use crate::run::state::{Directive, Run};

/// The answer to heartbeats of the run's current claim, until the run changes.
///
/// The directive that the agent has not spoken of yet comes first, then the oldest that it is doing: a `cancel_stage`
/// must not wait behind the `retry_stage` that it is to end.
pub fn heartbeat_answer(run: &Run, generation: Generation, pins: &[Sha256Hex]) -> HeartbeatAnswer {
    let mut answer = HeartbeatAnswer {
        claim: run.claim.as_ref().map(|claim| claim.number).unwrap_or_default(),
        operator_retries: run.operator_retries,
        state: Some(run.state()),
        generation,
        pins: pins.to_vec(),
        ..HeartbeatAnswer::default()
    };
    let unheard = run.directives.iter().find(|directive| directive.said.is_none());
    if let Some(directive) = unheard.or(run.directives.first()) {
        tell(&mut answer, run, directive);
    }
    answer
}

fn tell(answer: &mut HeartbeatAnswer, run: &Run, directive: &Directive) {
    answer.cmd = Some(directive.command.clone());
    answer.directive = Some(directive.id);
    answer.stage = directive.stage.clone();
    answer.attempt = directive.attempt;
    answer.drain.clone_from(&directive.drain);
    let starts_an_attempt = match &directive.command {
        Command::RetryStage | Command::Continue => true,
        Command::Abort
        | Command::Shutdown
        | Command::CancelStage
        | Command::Release
        | Command::Drain
        | Command::Undrain
        | Command::Unknown(_) => false,
    };
    let attempt = run.attempt().filter(|attempt| {
        attempt.number == directive.attempt && directive.stage.as_ref() == Some(&run.stage().spec.name)
    });
    if let Some(attempt) = attempt.filter(|_| starts_an_attempt) {
        answer.planned_checks = run.plan.clone();
        answer.override_flags = (attempt.flags != OverrideFlags::default()).then(|| attempt.flags.clone());
    }
}
