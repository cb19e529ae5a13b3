//! What goes into the control loop and what comes out of it.

use groundcrew_protocol::check::PlannedCheck;
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::hold::HoldAnswer;
use groundcrew_protocol::ids::{Attempt, BootId, ClaimNumber, DirectiveId, MacAddress, RandomId, Sha256Hex};
use groundcrew_protocol::profile::{HookCommand, StageSpec};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{
    ClaimAnswer, ClaimRequest, HeartbeatAnswer, HelloAnswer, HomeKind, Intent, LogLevel, OutboxEntry,
    OverrideFlags, ResultAnswer, StageAttempt,
};

use crate::control::hooks::{Kept, Which};
use crate::control::memory::Memory;
use crate::control::sight::Sight;

/// What the machine and its settings say, fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The home's random id.
    pub instance: RandomId,
    /// This process's random id.
    pub session: RandomId,
    /// Boot id; absent where it cannot be read.
    pub boot_id: Option<BootId>,
    /// Boot epoch.
    pub boot_epoch: String,
    /// What kind of home it is.
    pub home: HomeKind,
    /// True where the machine runs from disks of its own, or this is a pod: others may be working there.
    pub installed: bool,
    /// Address, for people.
    pub ip: String,
    /// Serial of the machine.
    pub serial: Option<String>,
    /// Addresses of its interfaces.
    pub macs: Vec<MacAddress>,
    /// The pod or process that this agent is; absent where it cannot say.
    pub runtime: Option<AgentRuntime>,
    /// Whether settings allow that the machine is switched off.
    pub power_allowed: bool,
    /// Whether settings allow that the machine is rebooted.
    pub reboot_allowed: bool,
    /// Whether settings name a place for the key of a hold.
    pub keys_allowed: bool,
    /// The greatest age of a drain marker, in milliseconds.
    pub drain_max_age_ms: u64,
}

/// What a stage asks leave for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To reboot the machine.
    Reboot,
    /// To write over the disks with these serials.
    Wipe(Vec<String>),
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The process starts; these outcomes are in its home.
    Start(Vec<OutboxEntry>),
    /// Time passed.
    Tick,
    /// The control call under way was answered, or failed.
    Answered(Result<Reply, Failure>),
    /// A heartbeat was answered, or failed.
    Heartbeat {
        /// The claim that it was sent under.
        claim: ClaimNumber,
        /// What came.
        answered: Result<Box<HeartbeatAnswer>, Failure>,
    },
    /// The stage in flight ended, and the driver holds its outcome.
    StageEnded,
    /// The stage in flight waits for leave: [`Action::Leave`].
    LeaveWanted(Asked),
    /// Outbox and spool were acknowledged (true), or the time for that is over (false).
    Flushed(bool),
    /// The disk failed or stalled under a durable write: what the home holds may be in memory alone, from now on.
    HomeFailed,
    /// Whether the key of the hold came into authorized_keys.
    KeyInstalled(bool),
    /// Whether the key of a hold is out of authorized_keys.
    KeyRemoved(bool),
    /// Certificates that some answer announces, beside what else it says ([`PINS_HEADER`]).
    ///
    /// [`PINS_HEADER`]: groundcrew_protocol::wire::PINS_HEADER
    Announced(Vec<Sha256Hex>),
    /// Now and then, with the orchestrator's clock: what should be gone is tried again.
    Reconcile(WallMs),
    /// Somebody looked at the drain marker, and saw something else than before or was asked to look.
    Drain(Sight),
    /// The look that [`Action::LookForDrain`] asks for.
    Looked {
        /// Which one.
        look: u64,
        /// What was seen; `None` where the disk did not answer in time.
        sight: Option<Sight>,
    },
    /// What became of [`Action::BeginDrain`] or [`Action::EndDrain`].
    DrainChanged {
        /// The directive.
        order: Option<DirectiveId>,
        /// Why it could not be done.
        done: Result<(), String>,
    },
    /// The hook of [`Action::StartHook`] has ended, or why it came to nothing.
    HookEnded(Result<(), String>),
    /// Somebody asks this process to end.
    Stop,
}

/// The answer to a control call.
#[derive(Debug)]
pub enum Reply {
    /// To a hello.
    Hello(HelloAnswer),
    /// To a claim.
    Claim(Box<ClaimAnswer>),
    /// To a result.
    Result(Box<ResultAnswer>),
    /// To an intent.
    Intent,
    /// To a hold.
    Hold(HoldAnswer),
}

/// Why a call failed, as far as the agent acts differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or one that says to come again (5xx, 429): asked again soon.
    Soon(String),
    /// The token is not accepted (401): another home has the claim, or the store was restored to a time before it.
    Unauthorized(String),
    /// The boot token is not accepted (401) until the claim that it made has been silent for long enough: asked again
    /// when the answer says.
    NotYet {
        /// What was said.
        text: String,
        /// The seconds that it names.
        after_s: u64,
    },
    /// What only an operator can mend (403, 404, a wrong pin): asked again every five minutes.
    Slow(String),
    /// Another agent has the claim and is alive (409 `claimed_elsewhere`): asked again soon, with nothing in flight.
    Elsewhere(String),
    /// A later claim counts: stand down.
    OldClaim(String),
    /// The store knows no such claim: claim again.
    UnknownClaim(String),
    /// The message itself is refused for good (400, 413, 422).
    Refused(String),
    /// The run is gone (410).
    Gone(String),
}

impl Failure {
    /// What was said.
    pub fn text(&self) -> &str {
        match self {
            Failure::Soon(text)
            | Failure::Unauthorized(text)
            | Failure::NotYet { text, .. }
            | Failure::Slow(text)
            | Failure::Elsewhere(text)
            | Failure::OldClaim(text)
            | Failure::UnknownClaim(text)
            | Failure::Refused(text)
            | Failure::Gone(text) => text,
        }
    }
}

/// A control call to make. The driver fills in what only it has (the outcome's body, wall time).
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Say hello.
    Hello,
    /// Claim the run.
    Claim {
        /// What to say.
        request: Box<ClaimRequest>,
        /// True: with the boot token; false: with the run token.
        by_boot_token: bool,
    },
    /// Send an outcome of the outbox.
    Result {
        /// The sender's claim.
        claim: ClaimNumber,
        /// Which outcome.
        entry: OutboxEntry,
    },
    /// Say what cannot be taken back.
    Intent(Intent),
    /// Ask for the key of a hold.
    Hold {
        /// The sender's claim.
        claim: ClaimNumber,
    },
}

/// What to do. A driver takes the actions of one step in order, each after the one before has taken effect. One that
/// the disk refuses makes the home volatile, which is said; the walk goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write the memory whole, and go on once it is durable.
    Persist(Box<Memory>),
    /// Make a control call.
    Send(Call),
    /// Look at the drain marker, anew, then say [`Event::Looked`]. What is active is said before.
    LookForDrain(u64),
    /// Have the marker hold a drain of the orchestrator's, then say [`Event::DrainChanged`]. A look that is asked for
    /// later sees it.
    BeginDrain(Option<DirectiveId>, DrainOrder),
    /// Have the marker hold that drain no more, then say [`Event::DrainChanged`].
    EndDrain(DirectiveId, DrainOrder),
    /// Keep what is known of hooks, and go on once it is durable.
    KeepHooks(Box<Kept>),
    /// Run a hook of the node, then say [`Event::HookEnded`].
    StartHook(Box<StartHook>),
    /// End the hook that runs.
    EndHook,
    /// Tell what becomes of a hook: as [`Action::Say`] does, and also of a run that is over.
    SayOfHook(Which, LogLevel, String),
    /// Start a stage.
    StartStage(Box<StartStage>),
    /// End the stage in flight: its process group, with the reason.
    EndStage(EndedBy),
    /// Put the outcome of the stage that ended into the outbox, durably.
    KeepOutcome(OutboxEntry),
    /// Let the outcome of the stage that ended go.
    DropOutcome(StageAttempt),
    /// An outcome was acknowledged: keep it aside until the run ends.
    Acknowledge(StageAttempt),
    /// Everything that was acknowledged and kept goes back into the outbox, durably: it is to be sent again.
    Reoffer,
    /// The run is gone: what was acknowledged and kept for it is no longer needed.
    ForgetRun,
    /// An outcome was refused for good: put it aside with the reason.
    Refuse(StageAttempt, String),
    /// Put the hold's key into authorized_keys, then say [`Event::KeyInstalled`]. Done already is done.
    InstallKey {
        /// The line.
        line: String,
        /// When it must be gone, on the orchestrator's clock.
        expires_at: WallMs,
    },
    /// Take the hold's key out again, then say [`Event::KeyRemoved`].
    RemoveKey(String),
    /// Have outbox and spool acknowledged, or wait for as long as that may take, then say [`Event::Flushed`].
    Flush,
    /// Tell the stage in flight whether it may do what it asked for, or why not.
    Leave(Result<(), String>),
    /// Switch the machine off.
    PowerOff,
    /// End this process.
    Exit,
    /// Tell: into the log and to the orchestrator.
    Say(LogLevel, String),
}

/// A hook to run.
#[derive(Debug, Clone, PartialEq)]
pub struct StartHook {
    /// Which.
    pub which: Which,
    /// The command.
    pub command: HookCommand,
    /// Why, for the command and for people.
    pub reason: String,
}

/// A stage to start.
#[derive(Debug, Clone, PartialEq)]
pub struct StartStage {
    /// The stage.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// Its settings and deadline; absent where the claim named none.
    pub spec: Option<StageSpec>,
    /// The frozen plan.
    pub plan: Vec<PlannedCheck>,
    /// Allowances of this attempt.
    pub flags: OverrideFlags,
}

/// Why a stage is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// An operator cancelled it; its outcome says so.
    Operator,
    /// A later claim, or another attempt, took its place; its outcome is dropped.
    Displaced,
    /// This process ends.
    Stop,
}
