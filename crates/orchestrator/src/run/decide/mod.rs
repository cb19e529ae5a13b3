//! Decides every change of a run. Pure and total: no clock, no I/O, no randomness.
//!
//! [`decide`] takes a run, what happened to it and the moment, and says what the run is afterwards, what to tell
//! and what to answer, or why nothing changes. Handlers, deadlines and operators are all only callers of it.
//! One file for each kind of input; what they share stands in `step`.

mod claim;
mod drain;
mod heard;
mod identity;
mod in_service;
mod notice;
mod order;
mod refused;
mod rejoin;
mod result;
mod runtime;
mod step;
mod time;
mod wipe;

use std::sync::Arc;

use groundcrew_protocol::check::Judged;
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::{Attempt, ClaimNumber, DrainId, NodeName, RunId, Sha256Hex, SinkName};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::{
    ClaimAnswer, ClaimRequest, DirectiveReport, Intent, ResultAnswer, ResultRequest, Shutdown,
};

pub use self::drain::renewed_after_ms;
pub use self::identity::unproved;
pub use self::refused::{OrderFor, Refused, SpentFor, UnfitFor};
use self::step::Step;
use super::runtime::RuntimeEnded;
use super::state::{HoldKey, Machine, Now, Run, StageRecord, Standing};

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An agent asks to take hold.
    Claim {
        /// What it says.
        request: Box<ClaimRequest>,
        /// The protocol that its hello agreed upon.
        protocol: u32,
        /// The token that it showed, hashed.
        bearer: Sha256Hex,
        /// The sinks of the settings that are told of every shutdown: the agent before may have ended unheard.
        fleet: Vec<SinkName>,
    },
    /// An agent reports an outcome.
    Result(Box<ResultRequest>),
    /// The current claim spoke: a heartbeat, or any other message that carries something to decide.
    Heard {
        /// The claim.
        claim: ClaimNumber,
        /// What became of directives.
        directives: Vec<DirectiveReport>,
    },
    /// An agent is about to do what cannot be taken back.
    Intent(Intent),
    /// An agent in a hold gave its host keys and asks for a key.
    Hold {
        /// The claim.
        claim: ClaimNumber,
        /// What it says of its machine.
        said: HoldSaid,
        /// The key that was made for this hold, or why none was; `None` where none is needed.
        key: Option<HoldKey>,
    },
    /// An operator decides.
    Order {
        /// What.
        order: OrderKind,
        /// The stage that it names, where it names one.
        stage: Option<Stage>,
        /// Why.
        reason: String,
        /// The operator's name.
        by: String,
    },
    /// The agent says that the attempt which it was given waits for the end of a drain, or does so no more.
    AttemptWaits(bool),
    /// The drains of the run's node are compared with what its agent says of them.
    Drains {
        /// Those that operators want to hold the node now.
        wanted: Vec<DrainOrder>,
        /// Those that hold it, as the current claim last said.
        held: Vec<DrainId>,
        /// The greatest age of a marker there, as it last said.
        max_age_ms: Option<u64>,
    },
    /// Time has passed.
    Deadline,
    /// The current claim's agent says that it shuts down in order.
    ShutsDown {
        /// The claim.
        claim: ClaimNumber,
        /// What it says.
        said: Shutdown,
        /// The sinks of the settings that are told of every shutdown.
        fleet: Vec<SinkName>,
    },
    /// A sink was told of a notice, or will not be.
    NoticeSettled {
        /// The notice's number.
        number: u64,
        /// The sink.
        sink: SinkName,
        /// Why it was not told.
        outcome: Result<(), String>,
    },
    /// The pod or process of an agent was seen to have ended.
    RuntimeEnded(Box<RuntimeEnded>),
    /// A new boot token was made for the run.
    NewBootToken {
        /// Its hash.
        token: Sha256Hex,
        /// The operator's name.
        by: String,
    },
    /// The store was restored from a backup.
    Restored,
}

/// What an agent in a hold says of its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldSaid {
    /// The machine's public host keys.
    pub host_keys: Vec<String>,
    /// As whom an operator logs in.
    pub user: Option<String>,
}

/// What an operator can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderKind {
    /// Do the stage again.
    Retry,
    /// Do the stage again, and let that attempt write over the disks of the profile's `[write]`.
    RetryWithWipe,
    /// Let the verdict be, with a reason, and go on.
    Override,
    /// End the run.
    Cancel,
    /// End a hold, and with it the run.
    Release,
    /// End the run and the agent.
    Abort,
}

/// A change that is to land in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The run afterwards.
    pub run: Run,
    /// True where it differs from before.
    pub changed: bool,
    /// What to tell, in order.
    pub events: Vec<NewEvent>,
    /// What to answer.
    pub answer: Answer,
    /// A result to keep, and as what.
    pub result: Option<KeptResult>,
    /// Stages that were resolved without a result: the orchestrator's own after an override, a proved reboot.
    pub own: Vec<(Stage, Attempt, Judged)>,
}

/// A result to keep.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptResult {
    /// First, repeated or late.
    pub taken: groundcrew_protocol::wire::Taken,
    /// The attempt that it is for (protocol 1 does not say; the orchestrator does).
    pub attempt: Attempt,
    /// The verdict and the checks as the orchestrator judged them; only for a first one.
    pub judged: Option<Judged>,
    /// Stages of the orchestrator's own that were resolved on the way.
    pub own: Vec<(Stage, Attempt, Judged)>,
}

/// An event that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// A word for programs.
    pub kind: &'static str,
    /// Who caused it: `agent`, `orchestrator`, `deadline`, or an operator's name.
    pub actor: String,
    /// One sentence for people.
    pub text: String,
    /// The stage that it is about.
    pub stage: Option<Stage>,
    /// Where the run stood after it.
    pub state: State,
}

/// What to answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To a claim; the caller fills in generation, server time, pins and the iperf3 port.
    Claim(Box<ClaimAnswer>),
    /// To a result; the caller fills in the generation.
    Result(ResultAnswer),
    /// To what needs no words.
    Done,
}

/// Everything that a new run is made of.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// Its node.
    pub node: NodeName,
    /// Serial and addresses of the node, as far as they are known.
    pub node_is: Machine,
    /// Its profile, with the orchestrator's own stages in their places.
    pub profile: Profile,
    /// Hash of its boot token.
    pub boot_token: Sha256Hex,
    /// The operator's name.
    pub by: String,
    /// Sinks that are told where the agent's shutdown meets this run.
    pub notify: Vec<SinkName>,
}

/// Makes a run that waits for its first claim. The profile has at least one stage, and the first is an agent's.
pub fn create(new: NewRun, now: Now) -> Change {
    let stages = new.profile.stages.iter().map(|spec| StageRecord::new(Arc::new(spec.clone()))).collect();
    let run = Run {
        id: new.id,
        node: new.node,
        created: now.wall,
        boot_token: new.boot_token,
        boot_token_spent: false,
        machine: None,
        node_is: new.node_is,
        stages,
        at: 0,
        standing: Standing::Walking,
        claim: None,
        claims: ClaimNumber(0),
        hands_changed_ms: Vec::new(),
        wait: None,
        plan: Vec::new(),
        spec: None,
        directives: Vec::new(),
        directives_made: 0,
        intent: None,
        restored: false,
        offered: Vec::new(),
        operator_retries: 0,
        host_keys: Vec::new(),
        hold_user: None,
        hold_key: None,
        drains: Vec::new(),
        notify: new.notify,
        notices: Vec::new(),
        notices_made: 0,
        shutdown_told: None,
        profile: Arc::new(new.profile),
    };
    let mut step = Step::new(&run, now);
    step.tell("created", &new.by, format!("run created with profile {}", step.run.profile.name));
    step.wait_for_claim();
    step.done(Answer::Done)
}

/// Decides what an input changes.
///
/// # Errors
/// Where it changes nothing, the reason.
pub fn decide(run: &Run, input: &Input, now: Now) -> Result<Change, Refused> {
    let mut step = Step::new(run, now);
    match input {
        Input::Claim { request, protocol, bearer, fleet } => {
            claim::claim(step, request, *protocol, bearer, fleet)
        }
        Input::Result(request) => result::result(step, request),
        Input::Heard { claim, directives } => {
            step.fence(*claim)?;
            heard::heard(&mut step, directives);
            Ok(step.done(Answer::Done))
        }
        Input::Intent(intent) => heard::intent(step, intent),
        Input::Hold { claim, said, key } => {
            step.fence(*claim)?;
            heard::hold(step, said, key.as_ref())
        }
        Input::Order { order, stage, reason, by } => order::order(step, *order, stage.as_ref(), reason, by),
        Input::Drains { wanted, held, max_age_ms } => {
            drain::reconcile(&mut step, wanted, held, *max_age_ms);
            Ok(step.done(Answer::Done))
        }
        Input::AttemptWaits(waits) => {
            drain::attempt_waits(&mut step, *waits);
            Ok(step.done(Answer::Done))
        }
        Input::ShutsDown { claim, said, fleet } => {
            step.fence(*claim)?;
            notice::shuts_down(&mut step, said, fleet);
            Ok(step.done(Answer::Done))
        }
        Input::NoticeSettled { number, sink, outcome } => {
            notice::settled(&mut step, *number, sink, outcome);
            Ok(step.done(Answer::Done))
        }
        Input::Deadline => {
            time::deadline(&mut step);
            Ok(step.done(Answer::Done))
        }
        Input::RuntimeEnded(told) => {
            runtime::ended(&mut step, told);
            Ok(step.done(Answer::Done))
        }
        Input::NewBootToken { token, by } => order::new_boot_token(step, token, by),
        Input::Restored => {
            time::restored(&mut step);
            Ok(step.done(Answer::Done))
        }
    }
}
