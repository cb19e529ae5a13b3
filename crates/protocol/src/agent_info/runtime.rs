//! What a runtime knows of an agent: Kubernetes of its pod, this host of its process.

use serde::{Deserialize, Serialize};

use super::{AgentLife, InfoPhase};
pub use crate::runtime::RuntimeSource;
use crate::time::WallMs;

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// In order.
    Stopped,
    /// Otherwise.
    Error,
}

impl Ending {
    /// The phase that says so.
    pub fn phase(self) -> InfoPhase {
        match self {
            Ending::Stopped => InfoPhase::Stopped,
            Ending::Error => InfoPhase::Error,
        }
    }
}

/// What a process left its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Its exit status.
    Code(i32),
    /// The signal that ended it.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What the runtime says of the agent's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum RuntimeState {
    /// Nothing that would overrule the agent's own word.
    Deferring,
    /// It does not run yet.
    Waiting {
        /// Why, in the runtime's word; may be empty.
        #[serde(default)]
        reason: String,
    },
    /// Its container or process runs.
    Running,
    /// Its container does not run, and the runtime does not say that the agent has ended.
    Halted,
    /// The agent has ended. Final for this life of it.
    Ended {
        /// How.
        ending: Ending,
        /// What the process left, where that is known.
        #[serde(default)]
        exit: Option<Exit>,
        /// Why, in one word of the runtime, such as `OOMKilled`; may be empty.
        #[serde(default)]
        reason: String,
        /// What people are told of it, where there is more to tell than that it ended; may be empty.
        #[serde(default)]
        detail: String,
    },
}

impl RuntimeState {
    /// Reads the two words by which other systems tell it: a phase and the status of the container. A terminal phase
    /// counts, the legacy `ended` by the status; otherwise the status says whether the container runs.
    pub fn of_words(phase: &InfoPhase, container_status: &str) -> RuntimeState {
        let ended =
            |ending| RuntimeState::Ended { ending, exit: None, reason: String::new(), detail: String::new() };
        match phase {
            InfoPhase::Stopped => return ended(Ending::Stopped),
            InfoPhase::Error => return ended(Ending::Error),
            InfoPhase::Ended => return ended(ended_by_status(container_status)),
            InfoPhase::Created
            | InfoPhase::Provisioning
            | InfoPhase::Cloning
            | InfoPhase::Starting
            | InfoPhase::Running
            | InfoPhase::Stopping
            | InfoPhase::Unknown(_) => {}
        }
        let status = container_status.to_ascii_lowercase();
        if status.starts_with("up") || status == "running" {
            RuntimeState::Running
        } else if status.starts_with("exited") || status == "stopped" {
            RuntimeState::Halted
        } else {
            RuntimeState::Deferring
        }
    }
}

/// What the legacy phase `ended` means beside a container's status: an error where it speaks of a failure.
pub(super) fn ended_by_status(container_status: &str) -> Ending {
    if container_status.to_ascii_lowercase().contains("failed") { Ending::Error } else { Ending::Stopped }
}

/// What a runtime knows of one life of an agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RuntimeFact {
    /// Who says it.
    pub source: RuntimeSource,
    /// Of which life it is said.
    #[serde(default)]
    pub life: AgentLife,
    /// What.
    pub state: RuntimeState,
    /// The same as people read it: `Phase (Reason)`.
    #[serde(default)]
    pub container_status: String,
    /// When it was seen, or, of an end, when that happened, by the runtime's wall clock.
    pub at: WallMs,
}
