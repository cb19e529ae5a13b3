//! How the pod or process of an agent ended: what a reconciler says of it, and what the run keeps. Plain data.

use groundcrew_protocol::agent_info::{Ending, Exit};
use groundcrew_protocol::runtime::{AgentRuntime, RuntimeSource};
use groundcrew_protocol::time::WallMs;
use serde::{Deserialize, Serialize};

use super::state::Run;
use super::wait::WaitFor;

/// The pod or process of an agent was seen to have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEnded {
    /// Which pod or process.
    pub runtime: AgentRuntime,
    /// Which end of it: a container can end more than once in one pod. The same end always has the same id.
    pub end: String,
    /// In order or not.
    pub ending: Ending,
    /// Why, in the word of who saw it: `OOMKilled`, `Evicted`; empty where nobody said.
    pub reason: String,
    /// What the process left, where that is known.
    pub exit: Option<Exit>,
    /// When it ended, by the runtime's wall clock.
    pub at: WallMs,
}

/// What a run keeps of such an end, with the claim whose agent it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeEnd {
    /// Which end.
    pub end: String,
    /// Who knew.
    pub source: RuntimeSource,
    /// In order or not.
    pub ending: Ending,
    /// Why.
    pub reason: String,
    /// What the process left.
    pub exit: Option<Exit>,
    /// When this run learned of it.
    pub seen: WallMs,
    /// True once the agent spoke all the same: a message that was still under way, or the end was another's.
    pub spoke_since: bool,
}

impl std::fmt::Display for RuntimeEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match &self.source {
            RuntimeSource::Kubernetes => "pod",
            RuntimeSource::Local => "process",
            RuntimeSource::Unknown(word) => word,
        };
        write!(f, "its {what} ended: {}", self.ending.phase())?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        match self.exit {
            Some(exit) => write!(f, ", {exit}"),
            None => Ok(()),
        }
    }
}

impl Run {
    /// How the current claim's agent ended, as long as nothing says otherwise.
    pub fn end(&self) -> Option<&RuntimeEnd> {
        self.claim.as_ref()?.end.as_ref().filter(|end| !end.spoke_since)
    }

    /// What the run waits for, for people.
    pub fn waits_for(&self) -> Option<String> {
        let what = self.wait.as_ref()?.what;
        Some(match (what, self.end()) {
            (WaitFor::Successor, Some(end)) => format!("{}; {end}", what.describe()),
            (
                WaitFor::Claim
                | WaitFor::Result
                | WaitFor::Drain
                | WaitFor::Operator
                | WaitFor::Reboot
                | WaitFor::Successor
                | WaitFor::Farewell,
                _,
            ) => what.describe().to_owned(),
        })
    }
}
