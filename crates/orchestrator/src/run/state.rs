//! Where a run stands: plain data, stored as one JSON document with a version beside it.
//!
//! ```text
//!              create                      claim                      first result that goes on
//!   (none) ───────────▶ at the first stage ──────▶ attempt n in flight ───────────────────────▶ next stage …
//!                          │ not claimed in time        │ fail, inconclusive, silence, over its deadline,
//!                          ▼                            ▼ too many crashes, a fight for the claim
//!                       ┌──────────────────── held (FailedHolding) ───────────────┐
//!          retry: same  │            │ override: next stage      │ the agent      │ cancel, release,
//!          stage, n + 1 ▼            ▼                           ▼ speaks again   ▼ nobody decided in time
//!                   in flight     in flight                  in flight        Cancelled
//!
//!   … last stage passed ──▶ Reporting (inside the same answer) ──▶ Completed
//!   any of these ── cancel ──▶ Cancelled
//! ```
//!
//! Nothing here acts. [`super::decide`] makes the changes; the store lands them.

mod held;

use std::sync::Arc;

use groundcrew_protocol::check::{Judged, PlannedCheck, Verdict};
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::{
    Attempt, BootId, ClaimNumber, DirectiveId, DrainId, MacAddress, NodeName, RandomId, RunId, Sha256Hex,
    SinkName,
};
use groundcrew_protocol::profile::{Profile, StageSpec};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    Command, DirectiveOutcome, HomeKind, IntentKind, OverrideFlags, StageAttempt,
};
use serde::{Deserialize, Serialize};

use super::notice::Notice;
use super::runtime::RuntimeEnd;
pub use super::wait::{Wait, WaitFor};
pub use held::{HeldFor, HoldKey};

/// A moment for decisions.
///
/// `listened_ms` is the orchestrator's own clock of listening: milliseconds for which it has answered agents,
/// over all its starts. It stands still while the orchestrator is down, so that time in which nobody listened
/// counts against nobody (rule 10 of the design). `wall` is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock.
    pub wall: WallMs,
    /// Clock of listening.
    pub listened_ms: u64,
    /// When the current claim was last heard, on the clock of listening; never before listening last began anew.
    pub heard_ms: u64,
}

impl Now {
    /// Milliseconds since the current claim was last heard.
    pub fn quiet_ms(self) -> u64 {
        self.listened_ms.saturating_sub(self.heard_ms)
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its node.
    pub node: NodeName,
    /// The profile as it was when the run was made.
    pub profile: Arc<Profile>,
    /// When it was made.
    pub created: WallMs,
    /// SHA-256 of the boot token; good for claiming only.
    pub boot_token: Sha256Hex,
    /// True once a claim was made with it.
    pub boot_token_spent: bool,
    /// Serial and MACs of the machine that spent the boot token: spent, it is good only from there.
    pub machine: Option<Machine>,
    /// What the node was known by when the run was made: a claim from a machine that says otherwise is refused.
    #[serde(default)]
    pub node_is: Machine,
    /// The stages in order.
    pub stages: Vec<StageRecord>,
    /// Index of the stage at which the run stands, also while it is held or after it ended.
    pub at: usize,
    /// Walking, held or ended.
    pub standing: Standing,
    /// The claim that counts.
    pub claim: Option<Claim>,
    /// Highest number that any claim of this run has had.
    pub claims: ClaimNumber,
    /// When the claim changed hands, on the clock of listening; the latest few.
    pub hands_changed_ms: Vec<u64>,
    /// What it waits for. At most one.
    pub wait: Option<Wait>,
    /// The plan of the attempt in flight, frozen when it was given out.
    pub plan: Vec<PlannedCheck>,
    /// What comparing the inventory with the profile gave, until the stage SpecValidate is reached.
    #[serde(default)]
    pub spec: Option<Judged>,
    /// Orders for the agent whose outcome is not known yet, oldest first.
    pub directives: Vec<Directive>,
    /// Number of the last directive.
    pub directives_made: u64,
    /// What the agent said it would do and cannot take back, and has not been seen to have happened.
    pub intent: Option<IntentRecord>,
    /// True from the restore of a backup to the next claim: what the agent knows may be ahead of the store.
    #[serde(default)]
    pub restored: bool,
    /// Outcomes that the agent of the current claim keeps and that the store has no attempt for: they were made
    /// before a restore. When the walk comes to such a stage, that attempt is waited for, and no new one. One a stage.
    #[serde(default)]
    pub offered: Vec<StageAttempt>,
    /// How often an operator has had a stage done again: what a package does once is done once for each of them.
    #[serde(default)]
    pub operator_retries: u32,
    /// The machine's public SSH host keys, from the agent's request for a hold.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// As whom an operator logs in there, from the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_user: Option<String>,
    /// The key of the hold that stands; none outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_key: Option<HoldKey>,
    /// The node's drains that the agent of this run was told of. One a drain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drains: Vec<DrainTold>,
    /// Sinks that are told where the agent's shutdown meets this run while it is active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<SinkName>,
    /// Notices that are to be sent, oldest first; at most [`NOTICES_MAX`](super::notice::NOTICES_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// Number of the last notice.
    #[serde(default)]
    pub notices_made: u64,
    /// The agent process whose orderly end was told last. It may say so again with the next claim of its home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_told: Option<RandomId>,
}

/// What the agent of a run last made of a drain of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainTold {
    /// Which drain.
    pub id: DrainId,
    /// When it was last asked for, on the clock of listening.
    pub asked_ms: u64,
    /// Under which claim that was.
    pub claim: ClaimNumber,
    /// True once the agent said that it holds.
    #[serde(default)]
    pub held: bool,
    /// Why the agent does not do it, where it said so.
    #[serde(default)]
    pub refused: Option<String>,
}

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Serial, where it says one.
    pub serial: Option<String>,
    /// Addresses, sorted.
    pub macs: Vec<MacAddress>,
}

impl Machine {
    /// In words, with a few of its addresses.
    pub fn describe(&self) -> String {
        let serial = self.serial.as_ref().map(|serial| format!("serial {serial}"));
        let macs: Vec<String> = self.macs.iter().take(MACS_NAMED_MAX).map(ToString::to_string).collect();
        let more = if self.macs.len() > MACS_NAMED_MAX { ", …" } else { "" };
        let macs = (!macs.is_empty()).then(|| format!("MAC {}{more}", macs.join(", ")));
        let words: Vec<String> = [serial, macs].into_iter().flatten().collect();
        if words.is_empty() { "nothing is known of it".to_owned() } else { words.join(", ") }
    }
}

/// Walking, held or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Standing {
    /// On its way.
    Walking,
    /// Held for a decision.
    Held {
        /// Why.
        why: HeldFor,
        /// Since when.
        since: WallMs,
    },
    /// Every stage was passed, skipped or overridden.
    Completed {
        /// When.
        at: WallMs,
        /// The boot under which it ended: power is touched on that boot alone.
        boot: Option<BootId>,
    },
    /// Ended without that.
    Cancelled {
        /// When.
        at: WallMs,
        /// The boot under which it ended.
        boot: Option<BootId>,
        /// Why and by whom, in a sentence.
        reason: String,
    },
}

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// What the profile says of it. It never changes, so that a run which does need not copy it.
    pub spec: Arc<StageSpec>,
    /// How many attempts were numbered.
    pub attempts_made: Attempt,
    /// The latest attempts, oldest first; at most [`ATTEMPTS_KEPT_MAX`].
    pub attempts: Vec<AttemptRecord>,
    /// The verdict that counts.
    pub verdict: Option<Verdict>,
    /// An operator's override of it.
    pub overridden: Option<Overridden>,
    /// Crashes of the agent since the stage began or was last retried by an operator.
    pub crashes: u32,
    /// How often the agent was stopped in order in an attempt that may have stopped it itself, since then.
    #[serde(default)]
    pub stops: u32,
    /// Resets of the machine that nobody asked for, and nobody has overridden.
    pub resets: Vec<Reset>,
}

/// Attempts of a stage that the run's document holds. Older ones live on as results and events.
pub const ATTEMPTS_KEPT_MAX: usize = 32;
/// Resets of a stage that the run's document holds.
pub const RESETS_KEPT_MAX: usize = 8;
/// Directives under way at a time; an order beyond them is refused.
pub const DIRECTIVES_MAX: usize = 16;
/// Addresses that are kept of a machine: those of a large one with its virtual functions.
pub const MACS_KEPT_MAX: usize = 256;
/// Addresses that are named in a sentence.
const MACS_NAMED_MAX: usize = 4;
/// Characters that are kept of a text by which an agent names itself (its address, its serial).
pub const NAME_CHARS_MAX: usize = 128;

/// A reset that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The attempt in flight.
    pub attempt: Attempt,
    /// Boot before.
    pub from: BootId,
    /// Boot after.
    pub to: BootId,
    /// When it was noticed.
    pub seen: WallMs,
}

/// An override.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overridden {
    /// Why.
    pub reason: String,
    /// The operator's name.
    pub by: String,
    /// When.
    pub at: WallMs,
}

/// A try of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its number.
    pub number: Attempt,
    /// The claim to which it was given.
    pub claim: ClaimNumber,
    /// When it was given out.
    pub began: WallMs,
    /// The same on the clock of listening.
    pub began_ms: u64,
    /// When it was over.
    pub ended: Option<WallMs>,
    /// What became of it.
    pub fate: Fate,
    /// How long the stage took by its agent's own clock, in milliseconds, once its result was taken: between beginning and
    /// end here lies also the time in which the result waited to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Allowances of this attempt.
    #[serde(default)]
    pub flags: OverrideFlags,
    /// When an operator gave them, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub armed: Option<Armed>,
}

/// When an operator gave an allowance, which lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// By the wall clock.
    pub at: WallMs,
    /// By the clock of listening, in milliseconds.
    pub listened_ms: u64,
}

impl AttemptRecord {
    /// One that was given out at this moment, by the wall clock and by that of listening; where it has an end already, it has
    /// it now.
    pub fn of(
        number: Attempt,
        claim: ClaimNumber,
        fate: Fate,
        (wall, began_ms): (WallMs, u64),
    ) -> AttemptRecord {
        AttemptRecord {
            number,
            claim,
            began: wall,
            began_ms,
            ended: (!fate.is_open()).then_some(wall),
            fate,
            took_ms: None,
            flags: OverrideFlags::default(),
            armed: None,
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Given out; no result yet.
    InFlight,
    /// Its first result was taken.
    Done(Verdict),
    /// The agent came back without a result.
    Crashed,
    /// An operator cancelled it, or the run.
    Cancelled,
    /// Given up without a result: over its deadline, never begun, or another took its place.
    Replaced,
}

impl Fate {
    /// True where an attempt can still be given its first result.
    pub fn is_open(self) -> bool {
        match self {
            Fate::InFlight => true,
            Fate::Done(_) | Fate::Crashed | Fate::Cancelled | Fate::Replaced => false,
        }
    }
}

/// An agent's hold on a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Its number.
    pub number: ClaimNumber,
    /// The protocol that the agent speaks.
    pub protocol: u32,
    /// The home's random id.
    pub instance: Option<RandomId>,
    /// The agent process's random id.
    pub session: Option<RandomId>,
    /// SHA-256 of the run token. In protocol 1 the boot token's.
    pub token: Sha256Hex,
    /// Boot id; absent where the agent cannot read one.
    pub boot: Option<BootId>,
    /// The machine that the agent is on.
    #[serde(default)]
    pub machine: Machine,
    /// Address, for people.
    pub ip: String,
    /// What kind of home it has.
    pub home: HomeKind,
    /// Whether the machine runs an installed system, where the agent says so. An older one does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<bool>,
    /// When it was made.
    pub since: WallMs,
    /// The same on the clock of listening.
    #[serde(default)]
    pub listened_ms: u64,
    /// True once a message came under it: its holder knows its number.
    pub spoke: bool,
    /// The pod or process that the agent is, where it says.
    #[serde(default)]
    pub runtime: Option<AgentRuntime>,
    /// How that ended, once somebody saw it end.
    #[serde(default)]
    pub end: Option<RuntimeEnd>,
    /// The end of the claim before, where that was in the very same pod: a container is started again in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_before: Option<String>,
    /// When its agent said that it shuts down in order. It says so more than once, and is told of once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuts_down: Option<WallMs>,
}

/// An order for the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directive {
    /// Its number.
    pub id: DirectiveId,
    /// What to do.
    pub command: Command,
    /// The stage that it names.
    pub stage: Option<Stage>,
    /// The attempt that it names.
    pub attempt: Attempt,
    /// The last that the agent said of it; absent until it said something.
    pub said: Option<DirectiveOutcome>,
    /// The drain that it is about, of a `drain` or `undrain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainOrder>,
}

/// What the agent said it would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntentRecord {
    /// What.
    pub kind: IntentKind,
    /// The stage that asked.
    pub stage: Option<Stage>,
    /// Its attempt.
    pub attempt: Attempt,
    /// The boot under which it was asked.
    pub boot: BootId,
    /// When.
    pub at: WallMs,
    /// How often it was said of this attempt.
    pub asks: u32,
    /// How often the agent came back under that boot, and was told to ask again.
    #[serde(default)]
    pub missed: u32,
}

impl Run {
    /// Where the run stands, in the word of the wire.
    pub fn state(&self) -> State {
        match &self.standing {
            Standing::Walking => State::At(self.stages[self.at].spec.name.clone()),
            Standing::Held { .. } => State::FailedHolding,
            Standing::Completed { .. } => State::Completed,
            Standing::Cancelled { .. } => State::Cancelled,
        }
    }

    /// The stage at which it stands, or stood.
    pub fn stage(&self) -> &StageRecord {
        &self.stages[self.at]
    }

    /// The latest attempt of the stage at which it stands.
    pub fn attempt(&self) -> Option<&AttemptRecord> {
        self.stage().attempts.last()
    }

    /// When the run ended.
    pub fn ended(&self) -> Option<WallMs> {
        match &self.standing {
            Standing::Walking | Standing::Held { .. } => None,
            Standing::Completed { at, .. } | Standing::Cancelled { at, .. } => Some(*at),
        }
    }

    /// The boot under which it ended.
    pub fn ended_boot(&self) -> Option<&BootId> {
        match &self.standing {
            Standing::Walking | Standing::Held { .. } => None,
            Standing::Completed { boot, .. } | Standing::Cancelled { boot, .. } => boot.as_ref(),
        }
    }

    /// Why the run is held or was cancelled, in a sentence; empty where it is neither.
    pub fn reason(&self) -> String {
        match &self.standing {
            Standing::Walking | Standing::Completed { .. } => String::new(),
            Standing::Held { why: why @ HeldFor::Silence { .. }, .. } => {
                let end = self.end().map(|end| format!("; {end}")).unwrap_or_default();
                format!("{}{end}", why.describe(&self.stage().spec.name))
            }
            Standing::Held { why, .. } => why.describe(&self.stage().spec.name),
            Standing::Cancelled { reason, .. } => reason.clone(),
        }
    }
}
