//! Drains of the run's node: what operators want is compared with what the agent says, and the difference is ordered.
//!
//! ```text
//!   wanted, not held     ──▶ drain      again at a new claim, and 5 minutes after a refusal
//!   wanted and held      ──▶ drain      every 20 minutes, or thrice within the agent's greatest age of a marker where that is
//!                                       less: one that nobody renews lapses
//!   held, not wanted     ──▶ undrain
//!   ordered, not wanted  ──▶ the order is taken back; where it was done already, the agent's next word says so
//! ```
//!
//! While the agent drains and has not begun the attempt that it was given, the run waits for the end of the drain, and no
//! deadline of the stage runs.
//!
//! So it does not matter who was away, was started again or forgot what: the next comparison makes it so.

use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, DirectiveId, DrainId};
use groundcrew_protocol::limits;
use groundcrew_protocol::wire::Command;

use super::step::{AGENT, ORCHESTRATOR, Step};
use crate::run::state::{Directive, DrainTold, Standing, WaitFor};

/// A drain that holds is asked for again this often: thrice within the greatest age of a marker that an agent has
/// unless it is told otherwise (an hour).
const RENEWED_MS: u64 = 1_200_000;
/// How often that is, where markers have this greatest age. An older agent says none.
pub fn renewed_after_ms(max_age_ms: Option<u64>) -> u64 {
    max_age_ms.map_or(RENEWED_MS, |max_age_ms| RENEWED_MS.min(max_age_ms / 3))
}

/// A drain that the agent refused is asked for again after this.
const REFUSED_PAUSE_MS: u64 = limits::SLOW_RETRY_MS;
/// Orders about drains that are under way at a time; the rest follows. Half of the room, so that an operator's orders
/// about the run have the other.
const UNDER_WAY_MAX: usize = crate::run::state::DIRECTIVES_MAX / 2;

/// Orders what is missing, and takes back what is moot.
pub(super) fn reconcile(step: &mut Step, wanted: &[DrainOrder], held: &[DrainId], max_age_ms: Option<u64>) {
    let Some(claim) = step.run.claim.as_ref().map(|claim| claim.number) else {
        return; // The claim's answer will tell the agent.
    };
    let is_wanted = |id: &DrainId| wanted.iter().any(|order| order.id == *id);
    step.run.drains.retain(|told| is_wanted(&told.id) || held.contains(&told.id));
    step.run.directives.retain(|directive| match &directive.drain {
        Some(order) if directive.command == Command::Undrain => {
            held.contains(&order.id) && !is_wanted(&order.id)
        }
        Some(order) => is_wanted(&order.id),
        None => true,
    });
    for order in wanted {
        if is_due(step, order, claim, held, max_age_ms) && has_room(step, &order.id) {
            ask(step, order, claim, held.contains(&order.id));
        }
    }
    for id in held.iter().filter(|id| !is_wanted(id)) {
        if has_room(step, id) {
            step.tell("undrain_asked", ORCHESTRATOR, format!("drain {id} is over: the agent is told"));
            let order = DrainOrder { id: id.clone(), suppress_notification: false, reason: String::new() };
            direct(step, Command::Undrain, order);
        }
    }
    // An ended run whose farewell waited for nothing but an order that was taken back is done.
    step.end_farewell();
}

fn is_due(
    step: &Step,
    order: &DrainOrder,
    claim: ClaimNumber,
    held: &[DrainId],
    max_age_ms: Option<u64>,
) -> bool {
    let Some(told) = step.run.drains.iter().find(|told| told.id == order.id) else {
        return true;
    };
    let since_ms = step.now.listened_ms.saturating_sub(told.asked_ms);
    match (held.contains(&order.id), &told.refused) {
        (true, _) => since_ms >= renewed_after_ms(max_age_ms),
        (false, Some(_)) => told.claim != claim || since_ms >= REFUSED_PAUSE_MS,
        // Done, and not said to hold: it lapsed, was removed by hand, or the next heartbeat is on its way.
        (false, None) => told.claim != claim || since_ms >= limits::FRESH_MS,
    }
}

/// True where nothing is under way about that drain, and there is room for one more.
fn has_room(step: &Step, id: &DrainId) -> bool {
    let mut under_way = step.run.directives.iter().filter_map(|directive| directive.drain.as_ref());
    let count = under_way.clone().count();
    count < UNDER_WAY_MAX && !under_way.any(|order| order.id == *id)
}

fn ask(step: &mut Step, order: &DrainOrder, claim: ClaimNumber, held: bool) {
    let asked_ms = step.now.listened_ms;
    let told = DrainTold { id: order.id.clone(), asked_ms, claim, held, refused: None };
    match step.run.drains.iter_mut().find(|known| known.id == order.id) {
        Some(known) => *known = told,
        None => step.run.drains.push(told),
    }
    if !held {
        step.tell("drain_asked", ORCHESTRATOR, format!("drain {} {}", order.id, order.reason));
    }
    direct(step, Command::Drain, order.clone());
}

fn direct(step: &mut Step, command: Command, order: DrainOrder) {
    let made = step.run.directives_made;
    step.direct(command, None, Attempt(0));
    if let Some(directive) = step.run.directives.last_mut().filter(|last| last.id > DirectiveId(made)) {
        directive.drain = Some(order);
    }
}

/// What the agent says of the attempt that it was given: that it waits for the end of a drain, or does so no more. The
/// stage's time begins when it can start.
pub(super) fn attempt_waits(step: &mut Step, waits: bool) {
    let waits_for = |step: &Step, what: WaitFor| step.run.wait.as_ref().is_some_and(|wait| wait.what == what);
    if !matches!(step.run.standing, Standing::Walking) || step.open_attempt().is_none() {
        return;
    }
    let name = step.run.stage().spec.name.clone();
    if waits && waits_for(step, WaitFor::Result) {
        step.wait(WaitFor::Drain, step.run.profile.limits.hold);
        step.tell("waits_for_drain", AGENT, format!("{name}: waits for the end of the node's drain"));
    } else if !waits && waits_for(step, WaitFor::Drain) {
        step.begin_attempt_anew();
        step.tell("drain_over", AGENT, format!("{name}: the node's drain is over"));
    }
}

/// A directive was done. True where it only kept alive a drain that held before.
pub(super) fn done(step: &mut Step, directive: &Directive) -> bool {
    let Some(order) = &directive.drain else {
        return false;
    };
    let told = step.run.drains.iter_mut().find(|told| told.id == order.id);
    let told = told.filter(|_| directive.command == Command::Drain);
    told.is_some_and(|told| std::mem::replace(&mut told.held, true))
}

/// A directive was refused, or came too late.
pub(super) fn refused(step: &mut Step, directive: &Directive, reason: &str) {
    let id = directive.drain.as_ref().map(|order| &order.id);
    if let Some(told) = step.run.drains.iter_mut().find(|told| Some(&told.id) == id) {
        told.refused = Some(reason.to_owned());
    }
}
