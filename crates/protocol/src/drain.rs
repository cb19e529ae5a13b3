//! Drains that an operator asks the orchestrator for: of a node, or of every node with a label.
//!
//! The orchestrator keeps what was asked for; a node's marker has a holder for each ([`DrainOrder::principal`]), and the
//! directives that lie between are made from comparing the two, again and again, until they agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, DrainId, NodeName, RunId};
use crate::stage::Stage;
use crate::text_enum::text_enum;
use crate::time::WallMs;

/// How the holder of every such drain begins in a node's marker.
pub const PRINCIPAL_PREFIX: &str = "orchestrator:";

/// What a `drain` or `undrain` directive is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainOrder {
    /// Which drain.
    pub id: DrainId,
    /// True: the fleet-wide notice of a shutdown that ends this drain is not sent.
    #[serde(default)]
    pub suppress_notification: bool,
    /// Who asked for it and why, in a sentence.
    #[serde(default)]
    pub reason: String,
}

impl DrainOrder {
    /// Its holder in the node's marker.
    pub fn principal(&self) -> String {
        principal_of(&self.id)
    }
}

/// The holder of a drain in a node's marker.
pub fn principal_of(id: &DrainId) -> String {
    format!("{PRINCIPAL_PREFIX}{id}")
}

/// The drain that a holder stands for; `None` for anybody else's.
pub fn drain_of(principal: &str) -> Option<DrainId> {
    principal.strip_prefix(PRINCIPAL_PREFIX)?.parse().ok()
}

/// Which nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DrainTarget {
    /// One.
    Node(NodeName),
    /// Every node that has this label, also one that gets it later.
    Label {
        /// The label's key.
        key: String,
        /// Its value.
        value: String,
    },
}

impl DrainTarget {
    /// True for a node of this name with these labels.
    pub fn covers(&self, name: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        match self {
            DrainTarget::Node(node) => node == name,
            DrainTarget::Label { key, value } => labels.get(key) == Some(value),
        }
    }
}

impl std::fmt::Display for DrainTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DrainTarget::Node(name) => write!(f, "node {name}"),
            DrainTarget::Label { key, value } => write!(f, "every node with {key}={value}"),
        }
    }
}

/// Asks for a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateDrain {
    /// Which nodes.
    pub target: DrainTarget,
    /// Ends by itself after this many milliseconds; absent: it stays until somebody ends it.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Ends with this run, however that ends.
    #[serde(default)]
    pub run: Option<RunId>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// True: the fleet-wide notice of a shutdown that ends this drain is not sent.
    #[serde(default)]
    pub suppress_notification: bool,
}

/// Ends drains: the one with this id, or all with exactly this target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndDrains {
    /// One drain.
    Id(DrainId),
    /// Every drain that was asked for with this target.
    Target(DrainTarget),
}

/// A drain, as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drain {
    /// Its id.
    pub id: DrainId,
    /// Which nodes.
    pub target: DrainTarget,
    /// Who asked for it.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it was asked for.
    pub created: WallMs,
    /// When it ends by itself, as people read it; absent: when somebody ends it.
    #[serde(default)]
    pub until: Option<WallMs>,
    /// The same on the orchestrator's clock of listening, which decides.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// The run with which it ends.
    #[serde(default)]
    pub run: Option<RunId>,
    /// True: the fleet-wide notice of a shutdown that ends it is not sent.
    #[serde(default)]
    pub suppress_notification: bool,
    /// When and why it ended.
    #[serde(default)]
    pub ended: Option<DrainEnd>,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainEnd {
    /// When.
    pub at: WallMs,
    /// Why, in a few words.
    pub why: String,
}

impl Drain {
    /// What the agents of its nodes are told.
    pub fn order(&self) -> DrainOrder {
        let reason = match self.reason.is_empty() {
            true => format!("asked for by {}", self.by),
            false => format!("asked for by {}: {}", self.by, self.reason),
        };
        DrainOrder { id: self.id.clone(), suppress_notification: self.suppress_notification, reason }
    }
}

/// A part of the list of drains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainList {
    /// The drains, oldest first.
    pub drains: Vec<Drain>,
}

/// How drains of a node stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeDrain {
    /// In a word, over its agents.
    pub state: DrainState,
    /// What was asked for and holds this node.
    #[serde(default)]
    pub drains: Vec<Drain>,
    /// What its agents say.
    #[serde(default)]
    pub agents: Vec<AgentDrain>,
}

text_enum! {
    /// How a drain of a node stands.
    DrainState {
        /// Nobody speaks for the node: it is asked when an agent comes.
        NoAgent = "no_agent",
        /// An agent refuses it.
        Refused = "refused",
        /// An agent has not said yet that it drains.
        Asked = "asked",
        /// An agent drains, and something is active still.
        Draining = "draining",
        /// Every agent drains, and nothing is active.
        Idle = "idle",
        /// Nothing is asked for any more, and an agent still drains for the orchestrator.
        Leaving = "leaving",
    }
}

impl DrainState {
    /// In words, for people.
    pub fn describe(&self) -> &str {
        match self {
            DrainState::NoAgent => {
                "asked for; no agent speaks for this node, one that comes is told first of all"
            }
            DrainState::Refused => "asked for; the agent refuses it",
            DrainState::Asked => "asked for; the agent has not confirmed it yet",
            DrainState::Draining => "draining: what is active ends first",
            DrainState::Idle => "drained: nothing is active",
            DrainState::Leaving => "taken off; the agent has not confirmed that yet",
            DrainState::Unknown(word) => word,
        }
    }
}

/// What an agent of a node says of its drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentDrain {
    /// Its run.
    pub run: RunId,
    /// `offline`, or the phase that it last said.
    pub agent: String,
    /// Why it drains, in its own words; empty where it does not.
    #[serde(default)]
    pub drain: String,
    /// The orchestrator's drains that its marker holds.
    #[serde(default)]
    pub holds: Vec<DrainId>,
    /// Why it refuses a drain.
    #[serde(default)]
    pub refused: String,
    /// What is active on it.
    #[serde(default)]
    pub active: Option<ActiveWork>,
    /// When it was last heard.
    #[serde(default)]
    pub last_heard: Option<WallMs>,
}

/// What is active on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActiveWork {
    /// The stage.
    pub stage: Stage,
    /// Its attempt.
    pub attempt: Attempt,
    /// What it does, in the agent's words.
    #[serde(default)]
    pub activity: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_names_its_drain_and_nobody_elses() {
        let id: DrainId = "d-7f3k".parse().unwrap();
        assert_eq!(drain_of(&principal_of(&id)), Some(id));
        for other in ["", "orchestrator:", "orchestrator:a b", "drain-control", "x orchestrator:d-1"] {
            assert_eq!(drain_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_target_is_written_as_the_api_has_it() {
        for text in [r#"{"node":"n1"}"#, r#"{"label":{"key":"rack","value":"1"}}"#] {
            let target: DrainTarget = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&target).unwrap(), text);
        }
        let end: EndDrains = serde_json::from_str(r#"{"target":{"node":"n1"}}"#).unwrap();
        assert_eq!(end, EndDrains::Target(DrainTarget::Node("n1".parse().unwrap())));
    }
}
