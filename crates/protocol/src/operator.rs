//! What operators' tools and the orchestrator say to each other under `/api/v1/…`.

use serde::{Deserialize, Serialize};

use crate::check::Verdict;
use crate::ids::{Attempt, ClaimNumber, MacAddress, NodeName, ProfileName, RunId, TokenText};
use crate::stage::{Stage, State};
use crate::time::WallMs;

/// A node: known by its name, and found by serial or MACs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Serial of the machine.
    #[serde(default)]
    pub serial: Option<String>,
    /// Addresses of its interfaces.
    #[serde(default)]
    pub macs: Vec<MacAddress>,
    /// Words of the operator's own.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Asks for a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateRun {
    /// The node.
    pub node: NodeName,
    /// The profile.
    pub profile: ProfileName,
}

/// A run was made.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunCreated {
    /// Its id.
    pub run: RunId,
    /// The boot token, shown this once.
    pub boot_token: TokenText,
    /// Parameters for the kernel command line of the node.
    pub kernel_arguments: String,
}

/// What a run waits for, since when, until when, and what happens then (rule 5 of the design).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitView {
    /// What for.
    pub r#for: String,
    /// Since when.
    pub since: WallMs,
    /// Until when, if nothing comes.
    pub until: WallMs,
    /// What happens then.
    pub then: String,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunSummary {
    /// Its id.
    pub run: RunId,
    /// Its node.
    pub node: NodeName,
    /// Its profile.
    pub profile: ProfileName,
    /// Where it stands.
    pub state: State,
    /// The stage at which it stands, also while it is held.
    pub stage: Option<Stage>,
    /// The attempt of that stage.
    pub attempt: Attempt,
    /// Verdict so far.
    pub verdict: Option<Verdict>,
    /// Why it is held or was cancelled.
    #[serde(default)]
    pub reason: String,
    /// What it waits for.
    pub wait: Option<WaitView>,
    /// Its agent: `offline`, or the phase that it last said; absent before the first claim.
    pub agent: Option<String>,
    /// When it was made.
    pub created: WallMs,
    /// When it ended.
    pub ended: Option<WallMs>,
}

/// A stage in a run's view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StageView {
    /// The stage.
    pub stage: Stage,
    /// Its attempts so far.
    pub attempts: u32,
    /// Its verdict.
    pub verdict: Option<Verdict>,
    /// The reason of an override.
    pub overridden: Option<String>,
    /// Its deadline in milliseconds.
    pub deadline_ms: u64,
    /// When the latest attempt began.
    pub began: Option<WallMs>,
    /// When it ended.
    pub ended: Option<WallMs>,
}

/// A run in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunView {
    /// What the list says of it.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Its stages.
    pub stages: Vec<StageView>,
    /// Number of the current claim; 0 for none.
    pub claim: ClaimNumber,
    /// Address of the agent.
    #[serde(default)]
    pub ip: String,
    /// When the agent was last heard.
    pub last_heard: Option<WallMs>,
    /// What the agent last said that it is busy with.
    #[serde(default)]
    pub activity: String,
    /// How far the agent's clock is from the orchestrator's, in milliseconds, where it is over 5 s.
    pub skew_ms: Option<i64>,
    /// Parts of the log that are not there.
    pub gaps: Vec<String>,
    /// Directives that are under way.
    pub directives: Vec<String>,
}

/// An operator's order about a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The stage; absent for the one at which the run is held.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Why. An override needs one.
    #[serde(default)]
    pub reason: String,
}

/// An event of a run, as it is stored and as its stream sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventView {
    /// Number of the event, over all runs; the `id` of the stream.
    pub id: u64,
    /// Its run.
    pub run: RunId,
    /// When it was stored.
    pub at: WallMs,
    /// A word: `claimed`, `stage_started`, `result`, `held`, …
    pub kind: String,
    /// Who caused it: `agent`, `orchestrator`, `deadline`, or an operator's name.
    pub actor: String,
    /// One sentence for people.
    pub text: String,
    /// The stage that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Where the run stands after it.
    pub state: State,
}
