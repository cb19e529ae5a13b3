//! What agent and orchestrator say to each other under `/api/v1/runs/{run}/…`.
//!
//! A field that a newer side adds is ignored by an older one; a word that a newer side adds is kept and
//! named (`Unknown`). Field names are the protocol: a change of one is a new protocol.

mod shutdown;
mod streams;
mod words;

use serde::{Deserialize, Serialize};

use crate::blank;
use crate::check::{Check, PlannedCheck};
use crate::drain::DrainOrder;
use crate::ids::{
    Attempt, BootId, ClaimNumber, DirectiveId, DrainId, Generation, MacAddress, RandomId, RunId, Sha256Hex,
};
use crate::inventory::Inventory;
use crate::profile::{AtEnd, ExpectedDisk, PackageSettings, StageSpec};
use crate::runtime::AgentRuntime;
use crate::stage::{Stage, State};
use crate::time::WallMs;

pub use shutdown::{Shutdown, Unheard};
pub use streams::{LogGap, LogLine, LogRequest, SensorRequest, SensorSample, StreamAnswer};
pub use words::{Command, DirectiveOutcome, HomeKind, IntentKind, LogLevel, Phase, Taken};

/// First word of an agent. A hello that fails keeps nothing waiting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hello {
    /// Serial of the machine, where it says one.
    #[serde(default, deserialize_with = "blank::is_none")]
    pub serial: Option<String>,
    /// Addresses of its interfaces.
    #[serde(default)]
    pub macs: Vec<MacAddress>,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Oldest protocol that it speaks. An agent that says none speaks 1.
    #[serde(default = "one")]
    pub protocol_min: u32,
    /// Newest protocol that it speaks.
    #[serde(default = "one")]
    pub protocol_max: u32,
    /// Boot id of the machine; absent where it cannot be read.
    #[serde(default)]
    pub boot_id: Option<BootId>,
    /// The home's random id.
    #[serde(default)]
    pub instance: Option<RandomId>,
    /// What kind of home it has.
    #[serde(default)]
    pub home: Option<HomeKind>,
    /// The agent's wall clock.
    #[serde(default)]
    pub wall: WallMs,
}

fn one() -> u32 {
    1
}

/// Header of every answer, whatever it is an answer to, while a rotation of the certificate is announced: the SHA-256 of what is
/// served and of what will be, with a comma between two. Who hears it adds them to those that it knows; which of
/// those count no more is said in answers to heartbeats alone, which come one after the other.
pub const PINS_HEADER: &str = "groundcrew-pins";

/// Answer to a hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HelloAnswer {
    /// The protocol to speak.
    pub protocol: u32,
    /// Which life of the store this is.
    pub generation: Generation,
    /// The orchestrator's wall clock.
    pub server_time: WallMs,
    /// SHA-256 of certificates that are or will be served.
    #[serde(default)]
    pub pins: Vec<Sha256Hex>,
}

/// An outcome that the agent keeps: in its outbox, or acknowledged and kept until the run ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutboxEntry {
    /// Its stage.
    pub stage: Stage,
    /// Its attempt.
    pub attempt: Attempt,
    /// The claim under which it was made.
    pub made_under: ClaimNumber,
    /// True where an orchestrator has acknowledged it.
    #[serde(default)]
    pub acknowledged: bool,
}

/// An agent takes hold of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimRequest {
    /// Address of the machine, for people.
    #[serde(default)]
    pub ip: String,
    /// Boot id; absent where it cannot be read.
    #[serde(default)]
    pub boot_id: Option<BootId>,
    /// Boot epoch: boot id and start of process 1.
    #[serde(default)]
    pub boot_epoch: String,
    /// The home's random id. An agent of protocol 1 has none.
    #[serde(default)]
    pub instance: Option<RandomId>,
    /// A random id of this agent process: tells a repeated call from a second process with a copied home.
    #[serde(default)]
    pub session: Option<RandomId>,
    /// Greatest claim of this run that this home has known; 0 for none.
    #[serde(default)]
    pub known_claim: ClaimNumber,
    /// What kind of home it has.
    #[serde(default)]
    pub home: Option<HomeKind>,
    /// True where the machine runs from disks of its own, or the agent is a pod: others may be working there. False in a live
    /// image. An agent that says neither does not drain the node for a stage that puts a load on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<bool>,
    /// SHA-256 of the run token that the agent has made and stored.
    #[serde(default)]
    pub token_sha256: Option<Sha256Hex>,
    /// Outcomes that the agent keeps.
    #[serde(default)]
    pub outbox: Vec<OutboxEntry>,
    /// The highest attempt of each stage that this home has started: numbers given out after a restore are higher.
    #[serde(default)]
    pub started: Vec<StageAttempt>,
    /// The attempt that this very process has in flight, and goes on with under the new claim.
    #[serde(default)]
    pub in_flight: Option<StageAttempt>,
    /// The attempt that the last agent of this home ended because it was asked to end itself: its loss is no crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StageAttempt>,
    /// The orderly end of an agent of this home that may not have been heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheard: Option<Unheard>,
    /// Serial of the machine: a spent boot token is good again only from the same machine.
    #[serde(default, deserialize_with = "blank::is_none")]
    pub serial: Option<String>,
    /// Addresses of its interfaces.
    #[serde(default)]
    pub macs: Vec<MacAddress>,
    /// The pod or process that the agent is. An older agent says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<AgentRuntime>,
    /// The agent's wall clock.
    #[serde(default)]
    pub wall: WallMs,
}

/// What an agent needs in order to walk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimAnswer {
    /// Number of the claim that the agent now has.
    pub claim: ClaimNumber,
    /// All stages of the run, in order.
    pub stages: Vec<Stage>,
    /// Where the run stands.
    pub current_state: State,
    /// The attempt of the current stage that the agent is to make, or to report from its outbox.
    pub attempt: Attempt,
    /// Port of the orchestrator's iperf3 server, where it runs one.
    #[serde(default)]
    pub iperf_port: Option<u16>,
    /// Disks that the profile expects.
    #[serde(default)]
    pub expected_disks: Vec<ExpectedDisk>,
    /// True where nothing may be written over.
    pub non_destructive: bool,
    /// Settings and deadline of every stage of an agent's.
    #[serde(default)]
    pub stage_settings: Vec<StageSpec>,
    /// The packages of the run that the orchestrator stores, each with its SHA-256. Those that are folders on the node stand
    /// in the settings of their stages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored_packages: Vec<PackageSettings>,
    /// The plan of the current stage, frozen.
    #[serde(default)]
    pub planned_checks: Vec<PlannedCheck>,
    /// Attempts that were cancelled or given up: what is kept for them is evidence, and none may be running.
    #[serde(default)]
    pub cancelled_attempts: Vec<StageAttempt>,
    /// How often an operator has had a stage of the run done again.
    #[serde(default)]
    pub operator_retries: u32,
    /// The orchestrator's drains of this node: they hold it before anything starts under this claim, also on a boot that
    /// knows nothing of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drains: Vec<DrainOrder>,
    /// What follows the end of the run.
    pub at_end: AtEnd,
    /// The boot under which the run ended, once it has: power is touched on that boot alone.
    #[serde(default)]
    pub ended_boot: Option<BootId>,
    /// Which life of the store this is.
    pub generation: Generation,
    /// The orchestrator's wall clock.
    pub server_time: WallMs,
    /// SHA-256 of certificates that are or will be served.
    #[serde(default)]
    pub pins: Vec<Sha256Hex>,
}

/// A try of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StageAttempt {
    /// The stage.
    pub stage: Stage,
    /// The try.
    pub attempt: Attempt,
}

/// Sent every ten seconds: latest state, never queued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// The sender's claim. An agent of protocol 1 sends none.
    #[serde(default)]
    pub claim: ClaimNumber,
    /// Stage in flight.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Its attempt.
    #[serde(default)]
    pub attempt: Attempt,
    /// What the agent does as a whole.
    #[serde(default = "running")]
    pub phase: Phase,
    /// What it is busy with, for people; at most 256 bytes.
    #[serde(default)]
    pub activity: String,
    /// Whether it is drained, and why; empty where it is not.
    #[serde(default)]
    pub drain: String,
    /// The orchestrator's drains that hold this node, as the agent last read its marker: what it is told follows from this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drains: Vec<DrainId>,
    /// The greatest age of a drain marker here, in milliseconds: a drain that nobody renews lapses after it. An older agent says
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_max_age_ms: Option<u64>,
    /// What became of directives.
    #[serde(default)]
    pub directives: Vec<DirectiveReport>,
    /// True once a home that was durable has failed: outcomes may live in memory only.
    #[serde(default)]
    pub home_failed: bool,
    /// SHA-256 of every certificate that this agent accepts and has stored; sent while answers carry `pins`, so that
    /// the orchestrator knows when it may serve the next one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins_known: Vec<Sha256Hex>,
    /// The agent shuts down in order. Once it says so, every further heartbeat of it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Shutdown>,
    /// The agent's wall clock.
    #[serde(default)]
    pub wall: WallMs,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn running() -> Phase {
    Phase::Running
}

/// What became of a directive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DirectiveReport {
    /// Which one.
    pub id: DirectiveId,
    /// What became of it.
    pub outcome: DirectiveOutcome,
    /// Why it was refused, or came too late.
    #[serde(default)]
    pub reason: String,
}

/// Allowances of one attempt, given by an operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverrideFlags {
    /// Disks that the profile names may be written over.
    #[serde(default)]
    pub wipe: bool,
    /// Id of the override, for the attempt that uses it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RandomId>,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatAnswer {
    /// What to do, where something is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Command>,
    /// Id of the directive. It is repeated until its outcome was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directive: Option<DirectiveId>,
    /// The claim that the directive is for.
    #[serde(default)]
    pub claim: ClaimNumber,
    /// The stage that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The attempt that it names: for `cancel_stage` the one to end, for `retry_stage` and `continue` the one to make.
    #[serde(default)]
    pub attempt: Attempt,
    /// Allowances of that attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_flags: Option<OverrideFlags>,
    /// For `drain` and `undrain`: which drain, and what it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainOrder>,
    /// The plan of the attempt to make, frozen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planned_checks: Vec<PlannedCheck>,
    /// How often an operator has had a stage of the run done again, where one has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub operator_retries: u32,
    /// Where the run stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Which life of the store this is.
    #[serde(default)]
    pub generation: Generation,
    /// SHA-256 of certificates that will be served; sent while a rotation is announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Sha256Hex>,
}

/// What the agent is about to do and cannot take back. It acts only once this is answered with 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Intent {
    /// The sender's claim.
    pub claim: ClaimNumber,
    /// The stage that asks for it; absent for a power-off after the end.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Its attempt.
    #[serde(default)]
    pub attempt: Attempt,
    /// What.
    pub kind: IntentKind,
    /// The boot under which it is asked.
    pub boot_id: BootId,
    /// Serials of the disks that will be written over.
    #[serde(default)]
    pub disks: Vec<String>,
}

/// Answer to an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntentAnswer {
    /// True: recorded, and may be acted on.
    pub acknowledged: bool,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResultRequest {
    /// The sender's claim, which is fenced. An agent of protocol 1 sends none.
    #[serde(default)]
    pub claim: ClaimNumber,
    /// The claim under which it was made, which is not.
    #[serde(default)]
    pub made_under: ClaimNumber,
    /// The stage.
    pub stage: Stage,
    /// The attempt. An agent of protocol 1 sends none, and means the current one.
    #[serde(default)]
    pub attempt: Attempt,
    /// The agent's own word.
    pub passed: bool,
    /// In a few words. (Protocol 1 sends an object here; it is kept as text.)
    #[serde(default, deserialize_with = "text_of_any")]
    pub summary: String,
    /// What went wrong, where something did.
    #[serde(default)]
    pub message: String,
    /// What was checked.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// The hardware, from the stage Inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Box<Inventory>>,
    /// When the attempt began and ended on the agent's wall clock.
    #[serde(default)]
    pub began: WallMs,
    /// See `began`.
    #[serde(default)]
    pub ended: WallMs,
}

impl ResultRequest {
    /// When the attempt began and ended by the agent's own clock, which is that of its readings and lines too: when its result
    /// came says how long that waited, not how long the stage took. `None` where the agent does not say.
    pub fn own_times(&self) -> Option<(WallMs, WallMs)> {
        (WallMs(0) < self.began && self.began <= self.ended).then_some((self.began, self.ended))
    }
}

fn text_of_any<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    })
}

/// Answer to a result: how it was taken, and where the run stands now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResultAnswer {
    /// How it was taken.
    pub taken: Taken,
    /// Where the run stands.
    pub next_state: State,
    /// The attempt of that stage that the agent is to make; 0 where it is to make none.
    pub attempt: Attempt,
    /// The plan of that attempt, frozen.
    #[serde(default)]
    pub planned_checks: Vec<PlannedCheck>,
    /// Which life of the store this is.
    pub generation: Generation,
}

/// Body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// One clear sentence: what was found, where, and what was expected or is to be done.
    pub error: String,
    /// A word for programs: `old_claim`, `claimed_elsewhere`, `other_content`, `token`, `gone`, `full`, `bad`, …
    pub code: String,
    /// Where the run stands, for errors about a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The claim that counts now, for `old_claim` and `claimed_elsewhere`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimNumber>,
    /// Where time alone mends it: after how many seconds it is worth asking again. The header Retry-After says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// The path of an agent's call.
pub fn agent_path(run: &RunId, call: &str) -> String {
    format!("/api/v1/runs/{run}/{call}")
}
