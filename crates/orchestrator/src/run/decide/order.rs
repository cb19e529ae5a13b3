//! An operator decides.

use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::Command;

use super::step::Step;
use super::{Answer, Change, OrderFor, OrderKind, Refused, wipe};
use crate::run::state::{DIRECTIVES_MAX, HeldFor, Overridden, Standing};

/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 2_000;

/// Decides an order.
pub(super) fn order(
    mut step: Step,
    order: OrderKind,
    stage: Option<&Stage>,
    reason: &str,
    by: &str,
) -> Result<Change, Refused> {
    let reason: String = reason.trim().chars().take(REASON_CHARS_MAX).collect();
    if step.run.ended().is_some() {
        let text =
            format!("run {} has ended ({}); make a new run for the node", step.run.id, step.run.state());
        return Err(Refused::order(OrderFor::Ended, text));
    }
    match order {
        OrderKind::Retry => retry(&mut step, stage, &reason, by, false)?,
        OrderKind::RetryWithWipe => retry(&mut step, stage, &reason, by, true)?,
        OrderKind::Override => override_verdict(&mut step, stage, &reason, by)?,
        OrderKind::Cancel => step.end_cancelled(sentence("cancelled", by, &reason), by, false),
        OrderKind::Abort => step.end_cancelled(sentence("aborted", by, &reason), by, true),
        OrderKind::Release => {
            held(&step, "release")?;
            step.end_cancelled(sentence("released from its hold", by, &reason), by, false);
        }
    }
    Ok(step.done(Answer::Done))
}

fn sentence(what: &str, by: &str, reason: &str) -> String {
    if reason.is_empty() { format!("{what} by {by}") } else { format!("{what} by {by}: {reason}") }
}

fn held(step: &Step, word: &str) -> Result<HeldFor, Refused> {
    match &step.run.standing {
        Standing::Held { why, .. } => Ok(why.clone()),
        Standing::Walking | Standing::Completed { .. } | Standing::Cancelled { .. } => {
            let text = format!("{word} needs a held run, and run {} is {}", step.run.id, step.run.state());
            Err(Refused::order(OrderFor::NotHeld, text))
        }
    }
}

fn room_for_orders(step: &Step) -> Result<(), Refused> {
    if step.run.directives.len() + 2 > DIRECTIVES_MAX {
        let text = format!("the agent of run {} has not answered {DIRECTIVES_MAX} orders yet", step.run.id);
        return Err(Refused::order(OrderFor::NoRoom, text));
    }
    Ok(())
}

/// Does a stage again, the one at which the run is held or an earlier one.
fn retry(
    step: &mut Step,
    stage: Option<&Stage>,
    reason: &str,
    by: &str,
    may_wipe: bool,
) -> Result<(), Refused> {
    held(step, "retry")?;
    room_for_orders(step)?;
    let wanted = stage.cloned().unwrap_or_else(|| step.run.stage().spec.name.clone());
    // The spec can only come out differently for another inventory.
    let wanted = if wanted == Stage::SpecValidate { Stage::Inventory } else { wanted };
    let index = step.run.stages.iter().position(|record| record.spec.name == wanted);
    let Some(index) = index.filter(|index| *index <= step.run.at && !wanted.is_orchestrators()) else {
        let text = format!(
            "retry: {wanted} is no stage of run {} that was begun and that an agent does",
            step.run.id
        );
        return Err(Refused::order(OrderFor::NotBegun, text));
    };
    if may_wipe {
        wipe::expect_use(step, index, &wanted)?;
    }
    step.withdraw_attempt();
    step.run.offered.clear();
    step.run.at = index;
    step.run.operator_retries = step.run.operator_retries.saturating_add(1);
    for record in &mut step.run.stages[index..] {
        record.verdict = None;
        record.overridden = None;
        record.crashes = 0;
        record.stops = 0;
    }
    begin_anew(step);
    step.tell("retried", by, sentence(&format!("{wanted} is retried"), by, reason));
    step.give_attempt();
    if may_wipe {
        wipe::arm(step, by);
    }
    order_attempt(step, Command::RetryStage);
    Ok(())
}

/// Lets a verdict be, with a reason, and goes on.
fn override_verdict(step: &mut Step, stage: Option<&Stage>, reason: &str, by: &str) -> Result<(), Refused> {
    let why = held(step, "override")?;
    room_for_orders(step)?;
    if reason.is_empty() {
        let text = "override: found no reason, expected one; the report shows it";
        return Err(Refused::order(OrderFor::NoReason, text));
    }
    let name = step.run.stage().spec.name.clone();
    if let Some(wanted) = stage.filter(|wanted| **wanted != name) {
        let text = format!("override: the run is held at {name}, not at {wanted}");
        return Err(Refused::order(OrderFor::OtherStage, text));
    }
    if let Some(instead) = nothing_checked(&why) {
        let text = format!("override: nothing of {name} was checked yet in run {}; {instead}", step.run.id);
        return Err(Refused::order(OrderFor::NothingChecked, text));
    }
    step.withdraw_attempt();
    let at = step.now.wall;
    let record = &mut step.run.stages[step.run.at];
    record.overridden = Some(Overridden { reason: reason.to_owned(), by: by.to_owned(), at });
    record.resets.clear();
    begin_anew(step);
    step.tell("overridden", by, sentence(&format!("the verdict of {name} is overridden"), by, reason));
    step.go_on();
    order_attempt(step, Command::Continue);
    Ok(())
}

/// What to do instead of an override, where the hold is for no verdict: an override would leave out a stage that nobody saw.
fn nothing_checked(why: &HeldFor) -> Option<&'static str> {
    match why {
        HeldFor::NeverClaimed { .. } => Some("retry or cancel it"),
        HeldFor::InService { drains: false, .. } => {
            Some("cancel it and make one of a profile that gives leave, or boot the live image and retry")
        }
        HeldFor::InService { drains: true, .. } => {
            Some("bring the agent up to date, or boot the live image, and retry")
        }
        HeldFor::Verdict { .. }
        | HeldFor::Silence { .. }
        | HeldFor::OverDeadline { .. }
        | HeldFor::Drained { .. }
        | HeldFor::Crashes { .. }
        | HeldFor::Stopped { .. }
        | HeldFor::ClaimFight { .. }
        | HeldFor::RebootNotSeen { .. }
        | HeldFor::RebootsMissed { .. } => None,
    }
}

/// Ends a hold by an operator's word. Who changed hands before it does not count against the run after it.
fn begin_anew(step: &mut Step) {
    step.run.standing = Standing::Walking;
    step.run.hands_changed_ms.clear();
}

/// Tells the agent to make the attempt that was just given out.
fn order_attempt(step: &mut Step, command: Command) {
    let name = step.run.stage().spec.name.clone();
    if let (Some(attempt), Standing::Walking, true) =
        (step.open_attempt(), &step.run.standing, step.run.claim.is_some())
    {
        step.direct(command, Some(name), attempt);
    }
}

/// A new boot token takes the place of the old one.
pub(super) fn new_boot_token(mut step: Step, token: &Sha256Hex, by: &str) -> Result<Change, Refused> {
    if step.run.ended().is_some() {
        let text =
            format!("run {} has ended ({}); make a new run for the node", step.run.id, step.run.state());
        return Err(Refused::order(OrderFor::TokenAfterEnd, text));
    }
    step.run.boot_token = token.clone();
    step.run.boot_token_spent = false;
    step.tell("token_reissued", by, format!("{by} made a new boot token"));
    Ok(step.done(Answer::Done))
}
