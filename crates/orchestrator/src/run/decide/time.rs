//! Time has passed, or was taken back by a restore.

use groundcrew_protocol::wire::OverrideFlags;

use super::step::{DEADLINE, ORCHESTRATOR, Step, over_deadline_ms};
use crate::run::state::{HeldFor, Standing, WaitFor};

/// Directives that can have been made between a backup and its restore.
const DIRECTIVES_FORGOTTEN_MAX: u64 = 1 << 20;

/// Does what a wait said would happen, once it is over.
pub(super) fn deadline(step: &mut Step) {
    let limits = step.run.profile.limits.clone();
    let over =
        step.run.wait.as_ref().filter(|wait| step.now.listened_ms >= wait.until_ms).map(|wait| wait.what);
    let silent = step.now.quiet_ms() >= limits.silence && step.run.claim.is_some();
    match (&step.run.standing, over) {
        (Standing::Completed { .. } | Standing::Cancelled { .. }, Some(WaitFor::Farewell)) => {
            step.run.directives.clear();
            step.run.wait = None;
            step.tell("farewell_missed", DEADLINE, "the agent never confirmed the end of the run".to_owned());
        }
        (Standing::Held { .. }, Some(WaitFor::Operator)) => {
            let limit = groundcrew_protocol::time::format_span_ms(limits.hold);
            step.end_cancelled(format!("held for {limit} without a decision"), DEADLINE, false);
        }
        (Standing::Walking, Some(WaitFor::Claim)) => {
            step.hold(HeldFor::NeverClaimed { limit_ms: limits.claim_within }, DEADLINE);
        }
        (Standing::Walking, Some(WaitFor::Reboot)) => {
            step.withdraw_attempt();
            step.hold(HeldFor::RebootNotSeen { limit_ms: limits.reboot }, DEADLINE);
        }
        (Standing::Walking, Some(WaitFor::Result)) => {
            let limit_ms = over_deadline_ms(&step.run);
            step.withdraw_attempt();
            step.hold(HeldFor::OverDeadline { limit_ms }, DEADLINE);
        }
        (Standing::Walking, Some(WaitFor::Drain)) => {
            step.withdraw_attempt();
            step.hold(HeldFor::Drained { limit_ms: limits.hold }, DEADLINE);
        }
        (Standing::Walking, Some(WaitFor::Successor)) if silent => {
            step.hold(HeldFor::Silence { limit_ms: limits.silence }, DEADLINE);
        }
        (Standing::Walking, Some(WaitFor::Successor)) => step.wait_longer(),
        (Standing::Walking, None) if silent && waits_for_agent(step) => {
            step.hold(HeldFor::Silence { limit_ms: limits.silence }, DEADLINE);
        }
        // What is not over, and waits that do not go with where the run stands, change nothing.
        (
            Standing::Walking
            | Standing::Held { .. }
            | Standing::Completed { .. }
            | Standing::Cancelled { .. },
            Some(
                WaitFor::Claim
                | WaitFor::Result
                | WaitFor::Drain
                | WaitFor::Operator
                | WaitFor::Reboot
                | WaitFor::Successor
                | WaitFor::Farewell,
            )
            | None,
        ) => {}
    }
}

/// Where anything else is waited for, that wait has a limit of its own.
fn waits_for_agent(step: &Step) -> bool {
    step.run.wait.as_ref().is_some_and(|wait| matches!(wait.what, WaitFor::Result | WaitFor::Drain))
}

/// The store was restored: allowances that were armed since the backup may have been used up, so all are disarmed.
pub(super) fn restored(step: &mut Step) {
    if step.run.ended().is_some() {
        return;
    }
    step.run.restored = true;
    // The agent remembers the ids of directives that are forgotten here, and would not do one again. Milliseconds
    // of the wall clock keep two restores of one backup apart.
    let made = step.run.directives_made.saturating_add(DIRECTIVES_FORGOTTEN_MAX);
    step.run.directives_made = made.max(u64::try_from(step.now.wall.0).unwrap_or(0));
    // It may have been destroyed since.
    step.run.hold_key = None;
    for stage in &mut step.run.stages {
        for attempt in &mut stage.attempts {
            attempt.flags = OverrideFlags::default();
        }
    }
    step.tell(
        "restored",
        ORCHESTRATOR,
        "the store was restored from a backup; overrides are disarmed".to_owned(),
    );
}
