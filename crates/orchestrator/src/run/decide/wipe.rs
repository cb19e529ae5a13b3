//! The override by which disks may be written over (rule 9 of the design): an operator arms it for one attempt of a destructive
//! stage, it lapses after an hour, and an agent may use it once it has said so and was answered.

use groundcrew_protocol::ids::{RandomId, Sha256Hex};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{Intent, OverrideFlags};

use super::step::Step;
use super::{OrderFor, Refused, UnfitFor};
use crate::run::state::{Armed, AttemptRecord};

/// An override that was not used within this is none any more: whoever armed it may have left, and the disks may be others.
pub const LAPSES_MS: u64 = 3_600_000;

/// Serials of the disks that a stage may write over; none where it writes over none.
fn disks<'s>(step: &'s Step<'_>, index: usize) -> Vec<&'s str> {
    let is_destructive =
        step.run.stages[index].spec.storage.as_ref().is_some_and(|storage| storage.destructive);
    let disks = step.run.profile.write.disks.iter().filter(|_| is_destructive);
    disks.filter_map(|disk| disk.serial.as_deref()).collect()
}

/// Refuses an override for a stage that would have no use for it.
pub(super) fn expect_use(step: &Step, index: usize, stage: &Stage) -> Result<(), Refused> {
    let text = if disks(step, index).is_empty() {
        format!("retry: stage {stage} of run {} writes over no disk (storage.destructive)", step.run.id)
    } else if step.run.claim.is_none() {
        format!("retry: no agent has run {}, so no attempt of {stage} could be allowed to wipe", step.run.id)
    } else {
        return Ok(());
    };
    Err(Refused::order(OrderFor::NoUseOfWipe, text))
}

/// Arms the override for the attempt that was just given out.
pub(super) fn arm(step: &mut Step, by: &str) {
    let Some(number) = step.open_attempt() else { return };
    let (now, name) = (step.now, step.run.stage().spec.name.clone());
    let serials = disks(step, step.run.at).join(", ");
    let of = format!("{} {name} {number} {}", step.run.id, now.wall.0);
    // It names the override for whoever reads of it; nobody can do anything with it.
    let id: Option<RandomId> = Sha256Hex::of(of.as_bytes()).to_string()[..32].parse().ok();
    if let Some(attempt) = step.run.stages[step.run.at].attempts.last_mut() {
        attempt.flags = OverrideFlags { wipe: true, id };
        attempt.armed = Some(Armed { at: now.wall, listened_ms: now.listened_ms });
    }
    let text = format!("{by} allows attempt {number} of {name} to write over {serials}, within an hour");
    step.tell("wipe_armed", by, text);
}

/// Whether the agent may write over the disks that it names, now.
pub(super) fn allowed(step: &Step, open: Option<&AttemptRecord>, intent: &Intent) -> Result<(), Refused> {
    let name = &step.run.stage().spec.name;
    let number = intent.attempt;
    let refused = |text: String| Err(Refused::unfit(UnfitFor::NoWipeOverride, format!("intent: {text}")));
    let Some(armed) = open.filter(|open| open.flags.wipe).and_then(|open| open.armed) else {
        return refused(format!("no wipe override is armed for attempt {number} of {name}"));
    };
    let listened_ms = step.now.listened_ms.saturating_sub(armed.listened_ms);
    // Also time in which nobody listened: the operator meant the hour that he saw.
    let wall_ms = u64::try_from(step.now.wall.0.saturating_sub(armed.at.0)).unwrap_or(0);
    if listened_ms.max(wall_ms) > LAPSES_MS {
        return refused(format!(
            "the wipe override of attempt {number} of {name} has lapsed: it was armed over an hour ago; retry with a new one"
        ));
    }
    let listed = disks(step, step.run.at);
    let is_listed =
        |serial: &String| listed.iter().any(|known| known.trim().eq_ignore_ascii_case(serial.trim()));
    match intent.disks.iter().find(|serial| !is_listed(serial)) {
        Some(serial) => refused(format!("disk {serial:?} is not in [[write.disks]] of the profile")),
        None if intent.disks.is_empty() => refused("a wipe that names no disk".to_owned()),
        None => Ok(()),
    }
}
