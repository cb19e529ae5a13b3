//! What a run waits for, since when, until when, and what happens then (rule 1 of the design).

use groundcrew_protocol::operator::Rebooting;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::IntentKind;
use serde::{Deserialize, Serialize};

use super::state::Run;

/// What a run waits for, and what happens when it does not come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// What for.
    pub what: WaitFor,
    /// Since when.
    pub since: WallMs,
    /// Until when, as people read it.
    pub until: WallMs,
    /// Until when on the clock of listening.
    pub until_ms: u64,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// An agent's first claim; then it is held.
    Claim,
    /// The result of the attempt in flight; then it is held.
    Result,
    /// The node's drain to end: the attempt was given out and not begun. Then it is held.
    Drain,
    /// An operator's decision; then it is cancelled.
    Operator,
    /// The machine to come back from a reboot that was asked for; then it is held.
    Reboot,
    /// Another agent to take the place of the one whose pod or process ended in the attempt; then it is held.
    Successor,
    /// The agent to report what became of the last directives of an ended run; then they are given up.
    Farewell,
}

impl WaitFor {
    /// What it waits for, for people.
    pub fn describe(self) -> &'static str {
        match self {
            WaitFor::Claim => "an agent to claim the run",
            WaitFor::Result => "the result of the attempt in flight",
            WaitFor::Drain => "the end of the node's drain, for which the stage waits",
            WaitFor::Operator => "an operator to retry, override, cancel or release",
            WaitFor::Reboot => "the machine to come back from its reboot",
            WaitFor::Successor => "a successor of the agent",
            WaitFor::Farewell => "the agent to confirm the end of the run",
        }
    }

    /// What happens when it does not come, for people.
    pub fn then(self) -> &'static str {
        match self {
            WaitFor::Claim | WaitFor::Drain | WaitFor::Reboot | WaitFor::Successor => "the run is held",
            // Without this nobody could tell why it is later than the deadline that the stage shows.
            WaitFor::Result => {
                "the run is held (the stage's deadline is over by then, and after it the limit of silence)"
            }
            WaitFor::Operator => "the run is cancelled",
            WaitFor::Farewell => "the directive is given up",
        }
    }
}

impl Run {
    /// The reboot that it waits for.
    pub fn rebooting(&self) -> Option<Rebooting> {
        let wait = self.wait.as_ref().filter(|wait| wait.what == WaitFor::Reboot)?;
        let intent = self.intent.as_ref().filter(|intent| intent.kind == IntentKind::Reboot)?;
        Some(Rebooting {
            run: self.id.clone(),
            stage: intent.stage.clone()?,
            attempt: intent.attempt,
            boot_id: intent.boot.clone(),
            asked: intent.at,
            until: wait.until,
            missed: intent.missed,
        })
    }
}
