//! What operators' tools and the orchestrator say to each other under `/api/v1/…`.

use serde::{Deserialize, Serialize};

use crate::blank;
use crate::check::Verdict;
use crate::drain::NodeDrain;
use crate::ids::{
    Attempt, BootId, ClaimNumber, MacAddress, NodeName, PackageName, PackageVersion, ProfileName, RunId,
    Sha256Hex, SinkName, TokenText,
};
use crate::stage::{Stage, State};
use crate::time::WallMs;
use crate::wire::LogLine;

/// A node: known by its name, and found by serial or MACs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Serial of the machine.
    #[serde(default, deserialize_with = "blank::is_none")]
    pub serial: Option<String>,
    /// Addresses of its interfaces.
    #[serde(default)]
    pub macs: Vec<MacAddress>,
    /// Words of the operator's own.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A node as it is shown: what an operator wrote, and how its drains stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeView {
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
    /// How its drains stand; absent where none is asked for and no agent of it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<NodeDrain>,
    /// The reboot that a run has asked for; absent where none is awaited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebooting: Option<Rebooting>,
}

impl NodeView {
    /// What the operator wrote.
    pub fn node(&self) -> Node {
        let NodeView { name, serial, macs, labels, drain: _, rebooting: _ } = self.clone();
        Node { name, serial, macs, labels }
    }
}

/// A package that the orchestrator stores. Its content never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackageView {
    /// Its name, as its config.json has it.
    pub name: PackageName,
    /// Its version, as its config.json has it.
    pub version: PackageVersion,
    /// SHA-256 of its archive.
    pub sha256: Sha256Hex,
    /// Bytes of its archive.
    pub bytes: u64,
    /// Bytes of its files, unpacked.
    pub unpacked_bytes: u64,
    /// When it was stored.
    pub at: WallMs,
    /// Whose token stored it.
    pub by: String,
}

/// A part of the list of stored packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackageList {
    /// Packages, by name and version.
    pub packages: Vec<PackageView>,
    /// Where the next part begins, as `NAME/VERSION`.
    #[serde(default)]
    pub next: Option<String>,
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
    /// Sinks of the orchestrator's settings that are told when the agent shuts down in the middle of this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<SinkName>,
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
    /// Other runs of the node that have not ended, the latest few: agents of two runs on one machine disturb each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_going: Vec<RunId>,
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

/// A reboot that a machine was asked to make and that nobody has seen yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rebooting {
    /// The run that asked.
    pub run: RunId,
    /// The stage that asked.
    pub stage: Stage,
    /// Its attempt.
    pub attempt: Attempt,
    /// The boot under which it was asked for; a claim under any other proves the reboot.
    pub boot_id: BootId,
    /// When the agent said that it would ask.
    pub asked: WallMs,
    /// Until when it must be seen, else the run is held.
    pub until: WallMs,
    /// How often the agent came back under the same boot, and was told to ask again.
    #[serde(default)]
    pub missed: u32,
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
    /// The reboot that it waits for; absent where it waits for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebooting: Option<Rebooting>,
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
    /// How long it took by its agent's own clock, in milliseconds, as the report says it; absent until its result came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
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
    /// Why the agent drains, in its own words; empty where it does not.
    #[serde(default)]
    pub drain: String,
    /// True where the agent's durable home has failed: it keeps what it has in memory.
    #[serde(default)]
    pub home_failed: bool,
    /// What kind of home the current claim's agent has: `durable` or `volatile`; absent before the first claim.
    #[serde(default)]
    pub home: Option<crate::wire::HomeKind>,
    /// The machine's public SSH host keys, as its agent gave them when it entered a hold: with them an operator who logs in
    /// there knows that it is that machine.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// The user as whom an operator logs in to the held machine, where its agent can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_user: Option<String>,
    /// The public half of the key that was made for this hold; absent where there is none, or no hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_key: Option<String>,
    /// Why no key could be made for this hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_key_failed: Option<String>,
    /// Why the latest claim from another machine than the node was refused, since the orchestrator's start.
    #[serde(default)]
    pub wrong_machine: Option<String>,
    /// Why nobody can tell that the machine of the current claim is the run's node; absent where its serial or an address
    /// says so, or the node is registered with neither.
    #[serde(default)]
    pub machine_unproved: Option<String>,
    /// How far the agent's clock is from the orchestrator's, in milliseconds, where it is over 5 s.
    pub skew_ms: Option<i64>,
    /// Parts of the log that are not there.
    pub gaps: Vec<String>,
    /// Directives that are under way.
    pub directives: Vec<String>,
}

/// An operator's order about a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The stage; absent for the one at which the run is held.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Why. An override needs one.
    #[serde(default)]
    pub reason: String,
    /// With a retry: that attempt may write over the disks of the profile's `[write]`, if it begins within an hour.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wipe: bool,
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

/// A part of the list of runs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunList {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Hand this in as `after` for the next part; absent at the end.
    #[serde(default)]
    pub next: Option<RunId>,
}

/// A part of the list of nodes, in order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeList {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Hand this in as `after` for the next part; absent at the end.
    #[serde(default)]
    pub next: Option<NodeName>,
}

/// A part of the list of profiles, in order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProfileList {
    /// Their names.
    pub profiles: Vec<ProfileName>,
    /// Hand this in as `after` for the next part; absent at the end.
    #[serde(default)]
    pub next: Option<ProfileName>,
}

/// A part of a run's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogView {
    /// The lines, in order of arrival.
    pub lines: Vec<LogLine>,
    /// Hand this in as `after` for the next part, which may bring nothing where nothing has come yet.
    pub next: String,
    /// True where nothing more was there.
    pub at_end: bool,
}

/// An artifact of a run: raw output of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArtifactView {
    /// Its stage.
    pub stage: Stage,
    /// Its attempt.
    pub attempt: Attempt,
    /// Its name.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: Sha256Hex,
    /// Bytes of its content.
    pub bytes: u64,
    /// When it came.
    pub at: WallMs,
}

/// Asks for an operator's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Whose it is, 1 to 63 characters; it appears in events as who acted.
    pub name: String,
}

/// An operator's token was made.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenCreated {
    /// Whose it is.
    pub name: String,
    /// The token, shown this once.
    pub token: TokenText,
}

/// An operator's token, without itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenView {
    /// Whose it is.
    pub name: String,
    /// When it was made.
    pub created: WallMs,
    /// When it was revoked.
    #[serde(default)]
    pub revoked: Option<WallMs>,
}

/// A task that the orchestrator keeps up beside answering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskView {
    /// Its name.
    pub name: String,
    /// True where its last pass did what it should.
    pub healthy: bool,
    /// What the last pass found, or why it failed.
    pub said: String,
    /// Passes since the start.
    pub passes: u64,
    /// Passes since the start that failed.
    pub failures: u64,
    /// When the last pass ended.
    pub last: Option<WallMs>,
}

/// Something that somebody did: a row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditView {
    /// Its number; they grow with time.
    pub id: u64,
    /// When.
    pub at: WallMs,
    /// Who: an operator, `agent`, `deadline` or `orchestrator`.
    pub actor: String,
    /// What was done, as `override` or `put_hold_key`.
    pub action: String,
    /// The run that it was done to, where it was one.
    #[serde(default)]
    pub run: Option<RunId>,
    /// With what words.
    pub text: String,
}

/// A part of the audit trail, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditList {
    /// The rows.
    pub rows: Vec<AuditView>,
    /// Hand this in as `after` for the next part, which is older; absent at the end.
    #[serde(default)]
    pub next: Option<u64>,
}

/// The certificate that is served, and the one that will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CertificateView {
    /// SHA-256 of what is served.
    pub fingerprint: Sha256Hex,
    /// SHA-256 of what will be, while a rotation is announced.
    #[serde(default)]
    pub next: Option<Sha256Hex>,
    /// Runs whose agent was seen in the last 7 days and does not know the next one yet.
    #[serde(default)]
    pub waiting_for: Vec<RunId>,
    /// Seconds until the next one is served at the earliest: it is announced for ten minutes, so that agents that are only
    /// refused hear of it too. Absent while no rotation is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest_in_s: Option<u64>,
}
