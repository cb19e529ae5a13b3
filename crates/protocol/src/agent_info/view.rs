//! Agents as operators see them listed.

use serde::{Deserialize, Serialize};

use super::{InfoActivity, InfoPhase};
use crate::ids::RunId;
use crate::runtime::RuntimeSource;
use crate::stage::Stage;
use crate::time::WallMs;

/// An agent: by its own word where nothing overrules that, else by what its runtime knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentView {
    /// Where it lies in its runtime; empty where that has no such thing.
    #[serde(default)]
    pub namespace: String,
    /// What it is called: by its runtime, by the folder of its home, or by its node.
    pub name: String,
    /// What it runs in; absent where it did not say.
    #[serde(default)]
    pub runtime: Option<RuntimeSource>,
    /// What the runtime calls this life of it: the uid of its pod, or the process with its start.
    #[serde(default)]
    pub runtime_id: Option<String>,
    /// The machine that it runs on, as the runtime or the run calls it.
    #[serde(default)]
    pub node: Option<String>,
    /// Its run.
    #[serde(default)]
    pub run: Option<RunId>,
    /// The stage in flight.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Where it stands in its life.
    #[serde(default)]
    pub phase: Option<InfoPhase>,
    /// What it does; absent for one that does not run.
    #[serde(default)]
    pub activity: Option<InfoActivity>,
    /// The same for people, or why it ended; may be empty.
    #[serde(default)]
    pub detail: String,
    /// What its runtime says of its container or process; may be empty.
    #[serde(default)]
    pub container_status: String,
    /// When it last wrote its file or was heard.
    #[serde(default)]
    pub last_seen: Option<WallMs>,
    /// What is not as it should be, a sentence each: nobody hears it, its file cannot be written.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// All agents that are known of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentList {
    /// In order of namespace and name.
    pub agents: Vec<AgentView>,
    /// How many more there are than one answer holds.
    #[serde(default)]
    pub left_out: u64,
}
