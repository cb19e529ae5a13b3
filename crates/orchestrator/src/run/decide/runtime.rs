//! The pod or process of the agent ended: known from who runs it, long before its silence says so.
//!
//! Such a word counts for the claim whose agent that very pod or process is, and for no other. It is a reason to
//! wait for a successor instead of a result, never one to hold: silence and crashes hold. A word of the agent's takes
//! it back, since the two come by different ways and may overtake each other.

use groundcrew_protocol::limits;

use super::step::{AGENT, ORCHESTRATOR, Step, cut};
use crate::run::runtime::{RuntimeEnd, RuntimeEnded};
use crate::run::state::{Standing, WaitFor};

/// Characters that are kept of a reason, and of an end's id.
const TEXT_CHARS_MAX: usize = 500;

/// Takes in that a runtime ended. It may be told again at any time.
pub(super) fn ended(step: &mut Step, told: &RuntimeEnded) {
    if step.run.ended().is_some() {
        return;
    }
    let (quiet_ms, seen) = (step.now.quiet_ms(), step.now.wall);
    let Some(claim) = step.run.claim.as_mut().filter(|claim| claim.runtime.as_ref() == Some(&told.runtime))
    else {
        return;
    };
    let end = cut(&told.end, TEXT_CHARS_MAX);
    // The container of the claim before ended in this same pod, which is shown for a while yet; or it ended before this
    // claim was made, by a clock that may be another. Of one that is well it is no news; silence tells.
    let is_of_before = claim.ended_before.as_ref() == Some(&end) || told.at < claim.since;
    if is_of_before && quiet_ms < limits::FRESH_MS {
        return;
    }
    if let Some(known) = claim.end.as_ref().filter(|known| known.end == end) {
        // Told before. Spoken since by a message that was still under way, or by an agent that is well: silence tells.
        let is_well = quiet_ms < limits::FRESH_MS;
        if !known.spoke_since || is_well {
            return;
        }
    }
    claim.end = Some(RuntimeEnd {
        end,
        source: told.runtime.source.clone(),
        ending: told.ending,
        reason: cut(&told.reason, TEXT_CHARS_MAX),
        exit: told.exit,
        seen,
        spoke_since: false,
    });
    let text = claim.end.as_ref().map(|end| format!("the agent is gone; {end}")).unwrap_or_default();
    step.tell("agent_ended", ORCHESTRATOR, text);
    step.wait_for_successor();
}

/// The current claim speaks: what was said of its end does not hold, or not yet.
pub(super) fn speaks(step: &mut Step) {
    let Some(end) =
        step.run.claim.as_mut().and_then(|claim| claim.end.as_mut()).filter(|end| !end.spoke_since)
    else {
        return;
    };
    end.spoke_since = true;
    step.tell("agent_speaks", AGENT, "the agent speaks though its end was told".to_owned());
    if step.run.wait.as_ref().is_some_and(|wait| wait.what == WaitFor::Successor) {
        step.wait_for_result_again();
    }
}

impl Step<'_> {
    /// Where a result is waited for and the agent that could bring it has ended: waits for its successor instead, as
    /// long as the agent may be silent.
    pub fn wait_for_successor(&mut self) {
        let waits = self.run.wait.as_ref().map(|wait| wait.what);
        let walks = matches!(self.run.standing, Standing::Walking);
        if !walks || waits != Some(WaitFor::Result) || self.run.end().is_none() {
            return;
        }
        self.wait(WaitFor::Successor, self.silence_left_ms());
    }

    /// Waits on for a successor where the allowance of silence began anew meanwhile.
    pub fn wait_longer(&mut self) {
        let left_ms = self.silence_left_ms();
        let (until, until_ms) = (self.now.wall.plus(left_ms), self.now.listened_ms.saturating_add(left_ms));
        if let Some(wait) = &mut self.run.wait {
            (wait.until, wait.until_ms) = (until, until_ms);
        }
    }

    fn silence_left_ms(&self) -> u64 {
        self.run.profile.limits.silence.saturating_sub(self.now.quiet_ms())
    }
}
